//! A connection that goes from one worker to another: what it takes along, and when it may go.
//!
//! It may go before its request has reached the application, with nothing unsent, when nobody else in this process has its socket:
//! the worker that lends it closes its own descriptor, and only the last one to close ends a connection.

use std::sync::Arc;

use crate::http::framing::Length;
use crate::lending::{INPUT_MAX, Kind, Message};
use crate::sys::time::NS_PER_MS;

use super::app::Body;
use super::connection::{Connection, Phase};
use super::job::{Link, Parcel};

/// How often a request may be lent before it waits where it is: each time it met a worker that had just become busy, and a copy of
/// it is made.
const MOVES_MAX: u8 = 8;

impl Connection {
    /// What another worker needs to go on with it; `None` when it cannot go now.
    pub fn loan(&self) -> Option<Message> {
        if self.output.is_some() || self.held || self.moves >= MOVES_MAX {
            return None;
        }
        let (kind, time, input, owners) = match &self.phase {
            Phase::Waiting(parcel) => {
                return self.loan_of(parcel);
            }
            // What is not partial has its turn here.
            Phase::Head if self.partial || self.input.is_empty() => {
                (Kind::Idle, self.deadline.saturating_mul(NS_PER_MS), self.input.clone(), 1)
            }
            Phase::Head | Phase::Body(_) | Phase::Serving | Phase::Answer(_) | Phase::Closing(_) | Phase::Linger(_) => {
                return None;
            }
        };
        self.message(kind, time, input, owners)
    }

    /// Whether another worker may have this request of the connection, which lies on a desk.
    pub fn may_lend(&self, parcel: &Parcel) -> bool {
        parcel.output.is_none() && self.loan_of(parcel).is_some()
    }

    fn loan_of(&self, parcel: &Parcel) -> Option<Message> {
        if self.output.is_some() || self.moves >= MOVES_MAX {
            return None;
        }
        let mut input = raw(parcel)?;
        input.extend_from_slice(&self.input);
        self.message(Kind::Request, parcel.since.saturating_sub(parcel.queued), input, 2)
    }

    fn message(&self, kind: Kind, time: u64, input: Vec<u8>, owners: usize) -> Option<Message> {
        // The application may keep a request's `tapster.client_disconnected`.
        if Arc::strong_count(&self.link) > owners || input.len() > INPUT_MAX {
            return None;
        }
        let Link { peer, listener, .. } = &*self.link;
        let peer = match peer.addr.is_empty() {
            true => None,
            false => Some((peer.addr.parse().ok()?, peer.port.parse().ok()?)),
        };
        Some(Message { kind, moves: self.moves + 1, listener: u16::try_from(*listener).ok()?, peer, time, input })
    }

    /// Takes over where another worker was.
    pub fn adopt(&mut self, message: Message) {
        self.input = message.input;
        match message.kind {
            Kind::Request => (self.since, self.waited, self.moves) = (message.time, true, message.moves),
            Kind::Idle => {
                self.partial = !self.input.is_empty();
                self.deadline = message.time / NS_PER_MS;
            }
        }
    }
}

/// The request as a client would send it now; `None` when its body is in a file.
fn raw(parcel: &Parcel) -> Option<Vec<u8>> {
    let mut raw = parcel.bytes.clone();
    let body: &[u8] = match &parcel.body {
        Body::Empty => &[],
        Body::Memory(bytes) if bytes.len() <= INPUT_MAX => bytes,
        Body::Memory(_) | Body::File(_) => return None,
    };
    match parcel.framing.length {
        Length::None | Length::Known(_) => raw.extend_from_slice(body),
        // Its chunks are decoded already: one takes their place.
        Length::Chunked => {
            if !body.is_empty() {
                raw.extend_from_slice(format!("{:x}\r\n", body.len()).as_bytes());
                raw.extend_from_slice(body);
                raw.extend_from_slice(b"\r\n");
            }
            raw.extend_from_slice(b"0\r\n\r\n");
        }
    }
    Some(raw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use crate::http::head::{Head, Limits};
    use crate::net::stream::Stream;
    use crate::scoreboard::Scoreboard;
    use crate::worker::app::Peer;
    use crate::worker::connection::Token;
    use crate::worker::disk::Disk;
    use crate::worker::seat::Rules;
    use crate::worker::spool::{Budget, Lease};
    use crate::worker::upload::Upload;

    fn waiting(head: &str, body: Body) -> Connection {
        let (stream, _) = std::os::unix::net::UnixStream::pair().unwrap();
        let disk = Disk::new(std::sync::Arc::new(Scoreboard::new(1, 1).unwrap()), 0, u64::MAX);
        let link = Link::new(Stream::Unix(mio::net::UnixStream::from_std(stream)), Peer::default(), 3, disk);
        let mut connection = Connection::new(Token::new(0, 1), link, 5_000);
        let (mut parsed, bytes) = (Head::default(), head.as_bytes().to_vec());
        let limits = Limits { request_line: 1000, fields: 10, field_size: 1000 };
        parsed.parse(&bytes, &limits).unwrap();
        let framing = crate::http::framing::of(&parsed, &bytes).unwrap();
        let link = connection.link.clone();
        let parcel = Parcel {
            link,
            bytes,
            head: parsed,
            framing,
            body,
            lease: Lease::default(),
            output: None,
            early: Vec::new(),
            queued: 7,
            waited: false,
            draining: false,
            since: 100,
            given: 0,
            block: None,
            behind: false,
        };
        connection.phase = Phase::Waiting(Box::new(parcel));
        connection
    }

    #[test]
    fn a_waiting_request_goes_with_its_body_and_what_follows_it() {
        let head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n";
        let mut connection = waiting(head, Body::Memory(b"hello".to_vec()));
        connection.input = b"GET /next".to_vec();
        let message = connection.loan().unwrap();
        assert_eq!(message.input, format!("{head}helloGET /next").into_bytes());
        assert_eq!((message.kind, message.listener, message.peer, message.moves), (Kind::Request, 3, None, 1));
        assert_eq!(message.time, 93, "it has waited before");
    }

    #[test]
    fn a_chunked_body_is_chunked_again() {
        let head = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
        for body in [&b"hello, world"[..], b""] {
            let kept = if body.is_empty() { Body::Empty } else { Body::Memory(body.to_vec()) };
            let connection = waiting(head, kept);
            let message = connection.loan().unwrap();
            let Phase::Waiting(parcel) = &connection.phase else { unreachable!("it was made so") };
            let mut upload =
                Upload::new(parcel.framing, &Rules::of(&Settings::default()), &Budget::new(0, parcel.link.disk.clone())).unwrap();
            let fed = upload.feed(&message.input[head.len()..]).unwrap();
            assert!(fed.done && fed.used == message.input.len() - head.len());
            match upload.finish().unwrap() {
                Body::Empty => assert!(body.is_empty()),
                Body::Memory(bytes) => assert_eq!(bytes, body),
                Body::File(_) => panic!("a file for {} bytes", body.len()),
            }
        }
    }

    #[test]
    fn what_others_hold_or_is_too_large_or_moved_too_often_stays() {
        let head = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        let held = waiting(head, Body::Empty);
        let _client = held.link.clone();
        assert_eq!(held.loan(), None);
        assert_eq!(waiting(head, Body::Memory(vec![0; INPUT_MAX])).loan(), None);
        let mut weary = waiting(head, Body::Empty);
        weary.moves = MOVES_MAX;
        assert_eq!(weary.loan(), None);
        weary.moves = MOVES_MAX - 1;
        let message = weary.loan().unwrap();
        let mut next = waiting(head, Body::Empty);
        next.adopt(message);
        next.phase = Phase::Head;
        assert_eq!((next.since, next.moves, next.partial), (93, MOVES_MAX, false));
    }

    #[test]
    fn an_idle_connection_goes_with_its_deadline_and_half_a_head() {
        let mut connection = waiting("GET / HTTP/1.1\r\nHost: x\r\n\r\n", Body::Empty);
        connection.phase = Phase::Head;
        for input in [&b""[..], b"GET / HT"] {
            (connection.input, connection.partial) = (input.to_vec(), !input.is_empty());
            let message = connection.loan().unwrap();
            let mut next = waiting("GET / HTTP/1.1\r\nHost: x\r\n\r\n", Body::Empty);
            next.adopt(message);
            assert_eq!((next.deadline(), next.input.as_slice(), next.partial), (5_000, input, !input.is_empty()));
        }
        connection.partial = false;
        assert_eq!(connection.loan(), None, "a request that has its turn here");
    }
}
