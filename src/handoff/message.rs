//! The facts about a connection in the queue, as bytes:
//!
//! ```text
//! version kind moves families | listener (2) | time (8) | port (2) address (16) | port (2) address (16) | session (4)
//! | the session | input
//! ```
//! Numbers are little-endian. The first address is that of the peer, whose family is the lower half of its byte, the second one
//! that of the client. An IPv4 address takes the first four bytes of its place. The session is that of TLS (`tls::travel`), with as
//! many bytes as the number before it says.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zeroize::Zeroize as _;

/// Version of the message; the first byte of each. It changes with the others: programs of two versions share a queue while one
/// becomes the other.
pub const VERSION: u8 = 4;

/// Most bytes of input that are handed over with a connection: a connection with more is kept, because copying costs more.
pub const INPUT_MAX: usize = 64 * 1024;

/// Most bytes of a session.
pub const SESSION_MAX: usize = 48 * 1024;

/// Bytes before the session.
const HEADER: usize = 14 + 2 * ADDRESS + 4;

/// Bytes of a port and an address.
const ADDRESS: usize = 2 + 16;

/// Longest message in bytes.
pub const MESSAGE_MAX: usize = HEADER + SESSION_MAX + INPUT_MAX;

/// Families of addresses.
const NONE: u8 = 0;
const V4: u8 = 4;
const V6: u8 = 6;

/// How far the connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandoffKind {
    /// Its input begins with a complete request, which waits for the application.
    Request,
    /// It waits for a request; its input is empty, or a head without its end.
    Idle,
    /// It waits for a proxy to name its client; its input is empty, or a preface without its end.
    Preface,
}

/// A connection on its way from one worker to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandoffMessage<'a> {
    /// How far it is.
    pub kind: HandoffKind,
    /// How often its request was handed over before; no more than 255 are counted.
    pub moves: u8,
    /// Index of the listener it came from. The sockets of a server never change, so it means the same to every worker.
    pub listener: u16,
    /// Address and port of the socket's peer; `None` on a unix socket.
    pub peer: Option<(IpAddr, u16)>,
    /// Address and port of the client, where the peer is a proxy that has named it.
    pub client: Option<(IpAddr, u16)>,
    /// Nanoseconds of the monotonic clock, which processes share: since when the request waits, or until when what
    /// it waits for may come.
    pub time: u64,
    /// The session of TLS, at most [`SESSION_MAX`] bytes; empty: there is none, or its handshake has not begun.
    pub session: SessionBytes<'a>,
    /// Bytes that were read and not used; at most [`INPUT_MAX`].
    pub input: Cow<'a, [u8]>,
}

/// The keys of a connection among other things.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SessionBytes<'a>(pub Cow<'a, [u8]>);

impl fmt::Debug for SessionBytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl SessionBytes<'_> {
    /// Wipes the keys, where they are nobody else's.
    pub fn wipe(&mut self) {
        if let Cow::Owned(bytes) = &mut self.0 {
            bytes.zeroize();
        }
    }
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unknown(pub &'static str);

impl HandoffKind {
    fn letter(self) -> u8 {
        match self {
            Self::Request => b'r',
            Self::Idle => b'i',
            Self::Preface => b'p',
        }
    }
}

impl<'a> HandoffMessage<'a> {
    /// Its bytes before the session.
    pub fn header(&self) -> [u8; HEADER] {
        let ((peer_family, peer), (client_family, client)) = (place_of(self.peer), place_of(self.client));
        let first = [VERSION, self.kind.letter(), self.moves, peer_family | client_family << 4];
        let mut header = [0; HEADER];
        let mut places = header.iter_mut();
        // One that is too long is read by nobody.
        let session = u32::try_from(self.session.0.len()).unwrap_or(u32::MAX).to_le_bytes();
        [&first[..], &self.listener.to_le_bytes(), &self.time.to_le_bytes(), &peer, &client, &session]
            .into_iter()
            .flatten()
            .zip(&mut places)
            .for_each(|(byte, place)| *place = *byte);
        debug_assert!(places.next().is_none(), "the parts fill it");
        header
    }

    /// Reads the header and what comes after it.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Unknown> {
        let (&[version, ref rest @ ..], true) = (bytes, bytes.len() <= MESSAGE_MAX) else {
            return Err(Unknown("it is empty or too long"));
        };
        if version != VERSION {
            return Err(Unknown("it has the version of another program"));
        }
        let short = Unknown("it is too short");
        let ([kind, moves, families], rest) = rest.split_first_chunk().ok_or(short)?;
        let (listener, rest) = rest.split_first_chunk().ok_or(short)?;
        let (time, rest) = rest.split_first_chunk().ok_or(short)?;
        let (peer, rest) = rest.split_first_chunk().ok_or(short)?;
        let (client, rest) = rest.split_first_chunk().ok_or(short)?;
        let (session, rest) = rest.split_first_chunk().ok_or(short)?;
        let (session, input) = usize::try_from(u32::from_le_bytes(*session))
            .ok()
            .filter(|&len| len <= SESSION_MAX)
            .and_then(|len| rest.split_at_checked(len))
            .filter(|(_, input)| input.len() <= INPUT_MAX)
            .ok_or(Unknown("a part of it has the wrong length"))?;
        let kinds = [HandoffKind::Request, HandoffKind::Idle, HandoffKind::Preface];
        let kind = kinds.into_iter().find(|known| known.letter() == *kind);
        Ok(Self {
            kind: kind.ok_or(Unknown("its kind is unknown"))?,
            moves: *moves,
            listener: u16::from_le_bytes(*listener),
            peer: address_in(families & 0xf, peer)?,
            client: address_in(families >> 4, client)?,
            time: u64::from_le_bytes(*time),
            session: SessionBytes(session.into()),
            input: input.into(),
        })
    }
}

/// Family, and port and address in their place.
fn place_of(address: Option<(IpAddr, u16)>) -> (u8, [u8; ADDRESS]) {
    let mut place = [0; ADDRESS];
    let Some((address, port)) = address else { return (NONE, place) };
    let (family, octets): (u8, &[u8]) = match &address {
        IpAddr::V4(address) => (V4, &address.octets()),
        IpAddr::V6(address) => (V6, &address.octets()),
    };
    place[..2].copy_from_slice(&port.to_le_bytes());
    place[2..][..octets.len()].copy_from_slice(octets);
    (family, place)
}

/// What [`place_of`] has made.
fn address_in(family: u8, &[low, high, ref address @ ..]: &[u8; ADDRESS]) -> Result<Option<(IpAddr, u16)>, Unknown> {
    let port = u16::from_le_bytes([low, high]);
    match family {
        NONE => Ok(None),
        V4 => Ok(Some((Ipv4Addr::new(address[0], address[1], address[2], address[3]).into(), port))),
        V6 => Ok(Some((Ipv6Addr::from(*address).into(), port))),
        _ => Err(Unknown("its address has an unknown family")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes_of(message: &HandoffMessage<'_>) -> Vec<u8> {
        [&message.header()[..], &message.session.0, &message.input].concat()
    }

    fn messages() -> impl Strategy<Value = HandoffMessage<'static>> {
        let kind = prop_oneof![Just(HandoffKind::Request), Just(HandoffKind::Idle), Just(HandoffKind::Preface)];
        let peer = proptest::option::of((any::<IpAddr>(), any::<u16>()));
        let client = proptest::option::of((any::<IpAddr>(), any::<u16>()));
        let bytes = || proptest::collection::vec(any::<u8>(), 0..300);
        (kind, any::<u8>(), any::<u16>(), (peer, client), any::<u64>(), bytes(), bytes()).prop_map(
            |(kind, moves, listener, (peer, client), time, session, input)| HandoffMessage {
                kind,
                moves,
                listener,
                peer,
                client,
                time,
                session: SessionBytes(session.into()),
                input: input.into(),
            },
        )
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(message in messages()) {
            let bytes = bytes_of(&message);
            prop_assert_eq!(HandoffMessage::decode(&bytes), Ok(message));
        }

        #[test]
        fn any_bytes_are_a_message_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = HandoffMessage::decode(&bytes);
            let known = [&[VERSION][..], &bytes].concat();
            if let Ok(message) = HandoffMessage::decode(&known) {
                // Some bytes of an IPv4 address and of a unix socket have no meaning.
                prop_assert_eq!(bytes_of(&message).len(), known.len());
            }
        }

        #[test]
        fn a_message_that_is_cut_in_its_header_is_refused(message in messages(), len in 0..HEADER) {
            prop_assert!(HandoffMessage::decode(&bytes_of(&message)[..len]).is_err());
        }
    }

    #[test]
    fn other_versions_and_longer_messages_are_refused() {
        let message = HandoffMessage {
            kind: HandoffKind::Idle,
            moves: 0,
            listener: 0,
            peer: None,
            client: None,
            time: 0,
            session: SessionBytes(vec![b's'; SESSION_MAX].into()),
            input: vec![b'x'; INPUT_MAX].into(),
        };
        let mut bytes = bytes_of(&message);
        assert_eq!(HandoffMessage::decode(&bytes), Ok(message));
        let wrong = Err(Unknown("a part of it has the wrong length"));
        for len in [SESSION_MAX - 1, SESSION_MAX + 1, u32::MAX as usize] {
            bytes[HEADER - 4..HEADER].copy_from_slice(&(len as u32).to_le_bytes());
            assert_eq!(HandoffMessage::decode(&bytes), wrong, "{len}");
        }
        bytes.push(0);
        assert_eq!(HandoffMessage::decode(&bytes), Err(Unknown("it is empty or too long")));
        bytes.truncate(HEADER);
        bytes[0] = VERSION + 1;
        assert_eq!(HandoffMessage::decode(&bytes), Err(Unknown("it has the version of another program")));
    }
}
