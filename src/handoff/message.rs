//! The facts about a connection in the queue, as bytes:
//!
//! ```text
//! version kind moves families | listener (2) | time (8) | port (2) address (16) | port (2) address (16) | input
//! ```
//! Numbers are little-endian. The first address is that of the peer, whose family is the lower half of its byte, the second one
//! that of the client. An IPv4 address takes the first four bytes of its place.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Version of the message; the first byte of each. It changes with the others: programs of two versions share a queue while one
/// becomes the other.
pub const VERSION: u8 = 3;

/// Most bytes of input that are handed over with a connection: a connection with more is kept, because copying costs more.
pub const INPUT_MAX: usize = 64 * 1024;

/// Bytes before the input.
const HEADER: usize = 14 + 2 * ADDRESS;

/// Bytes of a port and an address.
const ADDRESS: usize = 2 + 16;

/// Longest message in bytes.
pub const MESSAGE_MAX: usize = HEADER + INPUT_MAX;

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
    /// Bytes that were read and not used; at most [`INPUT_MAX`].
    pub input: Cow<'a, [u8]>,
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
    /// Its bytes before the input.
    pub fn header(&self) -> [u8; HEADER] {
        let ((peer_family, peer), (client_family, client)) = (place_of(self.peer), place_of(self.client));
        let first = [VERSION, self.kind.letter(), self.moves, peer_family | client_family << 4];
        let mut header = [0; HEADER];
        let mut places = header.iter_mut();
        [&first[..], &self.listener.to_le_bytes(), &self.time.to_le_bytes(), &peer, &client]
            .into_iter()
            .flatten()
            .zip(&mut places)
            .for_each(|(byte, place)| *place = *byte);
        debug_assert!(places.next().is_none(), "the parts fill it");
        header
    }

    /// Reads the header and the input after it.
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
        let (client, input) = rest.split_first_chunk().ok_or(short)?;
        let kinds = [HandoffKind::Request, HandoffKind::Idle, HandoffKind::Preface];
        let kind = kinds.into_iter().find(|known| known.letter() == *kind);
        Ok(Self {
            kind: kind.ok_or(Unknown("its kind is unknown"))?,
            moves: *moves,
            listener: u16::from_le_bytes(*listener),
            peer: address_in(families & 0xf, peer)?,
            client: address_in(families >> 4, client)?,
            time: u64::from_le_bytes(*time),
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
        [&message.header()[..], &message.input].concat()
    }

    fn messages() -> impl Strategy<Value = HandoffMessage<'static>> {
        let kind = prop_oneof![Just(HandoffKind::Request), Just(HandoffKind::Idle), Just(HandoffKind::Preface)];
        let peer = proptest::option::of((any::<IpAddr>(), any::<u16>()));
        let client = proptest::option::of((any::<IpAddr>(), any::<u16>()));
        let input = proptest::collection::vec(any::<u8>(), 0..300);
        (kind, any::<u8>(), any::<u16>(), (peer, client), any::<u64>(), input).prop_map(
            |(kind, moves, listener, (peer, client), time, input)| HandoffMessage {
                kind,
                moves,
                listener,
                peer,
                client,
                time,
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
            input: vec![b'x'; INPUT_MAX].into(),
        };
        let mut bytes = bytes_of(&message);
        assert_eq!(HandoffMessage::decode(&bytes), Ok(message));
        bytes.push(0);
        assert_eq!(HandoffMessage::decode(&bytes), Err(Unknown("it is empty or too long")));
        bytes.truncate(HEADER);
        bytes[0] = VERSION + 1;
        assert_eq!(HandoffMessage::decode(&bytes), Err(Unknown("it has the version of another program")));
    }
}
