//! What is said of a connection in the queue, as bytes:
//!
//! ```text
//! version kind moves family | listener (2) port (2) | time (8) | address (16) | input
//! ```
//! Numbers are little-endian. An IPv4 address takes the first four bytes of its place.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Version of the message; the first byte of each. It changes with the others: programs of two versions share a queue while one
/// becomes the other.
pub const VERSION: u8 = 1;

/// Most bytes of input that are handed over with a connection: what is larger is better kept than copied.
pub const INPUT_MAX: usize = 64 * 1024;

/// Bytes before the input.
const HEADER: usize = 32;

/// Longest message in bytes.
pub const MESSAGE_MAX: usize = HEADER + INPUT_MAX;

/// Families of addresses.
const UNIX: u8 = 0;
const V4: u8 = 4;
const V6: u8 = 6;

/// How far the connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandoffKind {
    /// Its input begins with a complete request, which waits for the application.
    Request,
    /// It waits for a request; its input is empty, or a head without its end.
    Idle,
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
    /// Address and port of the client; `None` on a unix socket.
    pub peer: Option<(IpAddr, u16)>,
    /// Nanoseconds of the monotonic clock, which processes share: since when the request waits, or until when the next may come.
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
        }
    }
}

impl<'a> HandoffMessage<'a> {
    /// Its bytes before the input.
    pub fn header(&self) -> [u8; HEADER] {
        let (family, address, port) = match self.peer {
            None => (UNIX, [0; 16], 0),
            Some((IpAddr::V4(address), port)) => {
                let mut place = [0; 16];
                place[..4].copy_from_slice(&address.octets());
                (V4, place, port)
            }
            Some((IpAddr::V6(address), port)) => (V6, address.octets(), port),
        };
        let first = [VERSION, self.kind.letter(), self.moves, family];
        let (listener, port, time) = (self.listener.to_le_bytes(), port.to_le_bytes(), self.time.to_le_bytes());
        let mut header = [0; HEADER];
        let mut places = header.iter_mut();
        [&first[..], &listener, &port, &time, &address]
            .into_iter()
            .flatten()
            .zip(&mut places)
            .for_each(|(byte, place)| *place = *byte);
        debug_assert!(places.next().is_none(), "the parts fill it");
        header
    }

    /// Reads the header and the input behind it.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Unknown> {
        let (&[version, ref rest @ ..], true) = (bytes, bytes.len() <= MESSAGE_MAX) else {
            return Err(Unknown("it is empty or too long"));
        };
        if version != VERSION {
            return Err(Unknown("it has the version of another program"));
        }
        let short = Unknown("it is too short");
        let ([kind, moves, family], rest) = rest.split_first_chunk().ok_or(short)?;
        let (listener, rest) = rest.split_first_chunk().ok_or(short)?;
        let (port, rest) = rest.split_first_chunk().ok_or(short)?;
        let (time, rest) = rest.split_first_chunk().ok_or(short)?;
        let (address, input) = rest.split_first_chunk::<16>().ok_or(short)?;
        let kind = [HandoffKind::Request, HandoffKind::Idle].into_iter().find(|known| known.letter() == *kind);
        let port = u16::from_le_bytes(*port);
        let peer = match *family {
            UNIX => None,
            V4 => Some((Ipv4Addr::new(address[0], address[1], address[2], address[3]).into(), port)),
            V6 => Some((Ipv6Addr::from(*address).into(), port)),
            _ => return Err(Unknown("its address has an unknown family")),
        };
        Ok(Self {
            kind: kind.ok_or(Unknown("its kind is unknown"))?,
            moves: *moves,
            listener: u16::from_le_bytes(*listener),
            peer,
            time: u64::from_le_bytes(*time),
            input: input.into(),
        })
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
        let kind = prop_oneof![Just(HandoffKind::Request), Just(HandoffKind::Idle)];
        let peer = proptest::option::of((any::<IpAddr>(), any::<u16>()));
        let input = proptest::collection::vec(any::<u8>(), 0..300);
        (kind, any::<u8>(), any::<u16>(), peer, any::<u64>(), input).prop_map(|(kind, moves, listener, peer, time, input)| {
            HandoffMessage { kind, moves, listener, peer, time, input: input.into() }
        })
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
                // Of an IPv4 address and a unix socket not every byte means something.
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
