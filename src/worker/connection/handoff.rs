//! A connection that goes from one worker to another: its data, and when it may go.
//!
//! It may go before its request has reached the application, with nothing unsent, when nobody else in this process has its
//! socket: the worker that hands it over closes its own descriptor, and only the last close ends a connection.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use crate::handoff::{HandoffKind, HandoffMessage, INPUT_MAX, SESSION_MAX, SessionBytes};
use crate::sys::time::NS_PER_MS;
use crate::tls::travel;

use crate::worker::DRAIN_IDLE_MS;
use crate::worker::app::Peer;
use crate::worker::connection::{Connection, Phase};
use crate::worker::job::QueuedRequest;
use crate::worker::kept::{InputBudget, Kept};
use crate::worker::link::Link;
use crate::worker::read_buffer::READ_SIZE;
use crate::worker::rules::Rules;

// The input that is handed over goes into the thread context as the bytes of one read.
const _: () = assert!(INPUT_MAX <= READ_SIZE);
const _: () = assert!(travel::SESSION_MAX <= SESSION_MAX);

/// How often a request may be handed over before it waits where it is: each time it met a worker that had just become busy, and
/// each time it is copied.
const MOVES_MAX: u8 = 8;

/// How a request has come to its turn on this connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arrival {
    /// Since when it waits, if another worker has handed it over: nanoseconds of the loop's clock; 0: it has not.
    pub(super) since: u64,
    /// How often it was handed over.
    pub(super) moves: u8,
    /// Whether it has waited here or elsewhere, so that its client may have left.
    pub(in crate::worker) waited: bool,
}

impl Connection {
    /// The data that another worker needs to continue with it; `None` when it cannot go now.
    pub fn handoff(&self) -> Option<HandoffMessage<'_>> {
        let mut message = self.handoff_of_phase()?;
        message.session.0 = std::mem::take(&mut *self.link.stream.pack()?).into();
        Some(message)
    }

    /// The same without what its encryption needs.
    fn handoff_of_phase(&self) -> Option<HandoffMessage<'_>> {
        if !self.may_move() {
            return None;
        }
        let kind = match &self.phase {
            Phase::Waiting(queued) => return self.handoff_of(queued),
            Phase::Head => HandoffKind::Idle,
            Phase::Preface => HandoffKind::Preface,
            Phase::Handshake if self.is_untouched() => HandoffKind::Idle,
            Phase::Handshake
            | Phase::Body(_)
            | Phase::Serving(_)
            | Phase::Streaming(_)
            | Phase::File(_)
            | Phase::Closing(_)
            | Phase::Linger(_) => return None,
        };
        let input = match self.kept.as_deref() {
            None => &[][..],
            Some(Kept::Partial(bytes)) if bytes.len() <= INPUT_MAX && self.wire.keeps_raw() => bytes,
            // Bytes that may be a request are served here.
            Some(Kept::Partial(_) | Kept::Handshake(_) | Kept::Rest(_) | Kept::Refused) => return None,
        };
        self.message(kind, self.timer.deadline.saturating_mul(NS_PER_MS), input.into(), 1)
    }

    /// Whether nothing of it is left to be sent here, and it has not moved too often.
    fn may_move(&self) -> bool {
        !self.has_unsent() && !self.held && self.arrival.moves < MOVES_MAX
    }

    /// Whether another worker may have this request of the connection, which is at a desk.
    pub fn may_hand_over(&self, queued: &QueuedRequest) -> bool {
        queued.output.is_none() && self.handoff_of(queued).is_some()
    }

    fn handoff_of(&self, queued: &QueuedRequest) -> Option<HandoffMessage<'static>> {
        if !self.may_move() {
            return None;
        }
        let rest: &[u8] = match self.kept.as_deref() {
            Some(Kept::Rest(rest)) => rest,
            // It is refused here, after the answer.
            Some(Kept::Refused | Kept::Partial(_) | Kept::Handshake(_)) => return None,
            None => &[],
        };
        let input = self.wire.raw(queued, rest)?;
        self.message(HandoffKind::Request, queued.since.saturating_sub(queued.queued), input.into(), 2)
    }

    fn message<'a>(&self, kind: HandoffKind, time: u64, input: Cow<'a, [u8]>, owners: usize) -> Option<HandoffMessage<'a>> {
        // The application may keep a request's `tapster.client_disconnected`.
        if Arc::strong_count(&self.link) > owners || !self.link.stream.can_travel() {
            return None;
        }
        let Link { peer, .. } = &*self.link;
        let (peer, client) = match &peer.proxy {
            None => (address(peer)?, None),
            Some(proxy) => (address(proxy)?, address(peer)?),
        };
        Some(HandoffMessage {
            kind,
            moves: self.arrival.moves + 1,
            listener: u16::try_from(self.link.listener()).ok()?,
            peer,
            client,
            time,
            session: SessionBytes::default(),
            input,
        })
    }

    /// Continues where another worker was. That worker may have had other limits, or may have been broken into: its input is
    /// parsed as if it came from the client now, and no time is longer than this worker would have given. `now`: nanoseconds of
    /// the loop's clock.
    pub fn adopt(&mut self, message: HandoffMessage<'_>, now: u64, rules: &Rules, memory: &InputBudget) {
        match message.kind {
            HandoffKind::Request => self.arrival = Arrival { since: message.time.min(now), moves: message.moves, waited: true },
            HandoffKind::Idle | HandoffKind::Preface => {
                let begun = message.kind == HandoffKind::Preface || !message.input.is_empty() || self.link.stream.has_part();
                let longest = if begun { rules.header_timeout } else { rules.keep_alive.max(DRAIN_IDLE_MS) };
                self.timer.deadline = (message.time / NS_PER_MS).min((now / NS_PER_MS).saturating_add(longest));
            }
        }
        if !message.input.is_empty() {
            self.kept = Some(Kept::rest(&message.input, memory));
        }
    }
}

/// Address and port of a peer, none for a unix socket; `None` when they cannot be read.
fn address(peer: &Peer) -> Option<Option<(IpAddr, u16)>> {
    if peer.addr.is_empty() {
        return Some(None);
    }
    Some(Some((peer.addr.parse().ok()?, peer.port.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Protocol, Settings};
    use crate::http::head::{Head, Limits};
    use crate::net::stream::Stream;
    use crate::scoreboard::Scoreboard;
    use crate::worker::app::RequestBody;
    use crate::worker::body::disk::{Disk, Storage};
    use crate::worker::body::spool::BodyBudget;
    use crate::worker::body::upload::Upload;
    use crate::worker::connection::Token;
    use crate::worker::kept::Leased;
    use crate::worker::wire::Wire;

    fn waiting(head: &str, body: RequestBody) -> Connection {
        let (stream, _) = std::os::unix::net::UnixStream::pair().unwrap();
        let disk =
            Disk::new(std::sync::Arc::new(Scoreboard::new(1, 1).unwrap()), 0, Storage::Directory, u64::MAX, &Default::default());
        let link = Link::new(
            Stream::from(crate::net::socket::PlainSocket::Unix(mio::net::UnixStream::from_std(stream))),
            Peer::default(),
            3,
            disk,
        );
        let mut connection = Connection::new(Token::new(0, 1), link, Wire::new(Protocol::Http), 5_000);
        let (mut parsed, bytes) = (Head::default(), head.as_bytes().to_vec());
        let limits = Limits { request_line: 1000, fields: 10, field_size: 1000 };
        parsed.parse(&bytes, &limits).unwrap();
        let framing = crate::http::framing::of(&parsed, &bytes).unwrap();
        let link = connection.link.clone();
        let queued = QueuedRequest {
            link: Some(link),
            own: bytes,
            head: parsed,
            framing,
            body,
            queued: 7,
            since: 100,
            ..QueuedRequest::default()
        };
        connection.phase = Phase::Waiting(Box::new(queued));
        connection
    }

    #[test]
    fn a_waiting_request_goes_with_its_body_and_what_follows_it() {
        let head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n";
        let mut connection = waiting(head, RequestBody::Memory(b"hello".to_vec()));
        connection.kept = Some(Kept::rest(b"GET /next", &InputBudget::default()));
        let message = connection.handoff().unwrap();
        assert_eq!(*message.input, *format!("{head}helloGET /next").as_bytes());
        assert_eq!((message.kind, message.listener, message.peer, message.moves), (HandoffKind::Request, 3, None, 1));
        assert_eq!(message.time, 93, "it has waited before");
    }

    #[test]
    fn a_chunked_body_is_chunked_again() {
        let head = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
        for body in [&b"hello, world"[..], b""] {
            let kept = if body.is_empty() { RequestBody::Empty } else { RequestBody::Memory(body.to_vec()) };
            let connection = waiting(head, kept);
            let message = connection.handoff().unwrap();
            let Phase::Waiting(queued) = &connection.phase else { unreachable!("it was made so") };
            let mut upload = Upload::new(
                Wire::new(Protocol::Http).decoder(&queued.framing, &InputBudget::default()),
                queued.framing,
                &Rules::of(&Settings::default()),
                &BodyBudget::new(0, connection.link.disk.clone()),
            )
            .unwrap();
            let fed = upload.feed(&message.input[head.len()..]).unwrap();
            assert!(fed.done && fed.used == message.input.len() - head.len());
            match upload.finish().unwrap() {
                RequestBody::Empty => assert!(body.is_empty()),
                RequestBody::Memory(bytes) => assert_eq!(bytes, body),
                RequestBody::File(_) => panic!("a file for {} bytes", body.len()),
            }
        }
    }

    #[test]
    fn requests_of_gateways_go_as_they_came() {
        use crate::http::terms::{Dialect, Terms};
        use crate::protocol::fastcgi::{RecordEvent, RecordReader};
        use crate::protocol::pairs::{Envelope, Measure, Packing};
        use crate::protocol::variables;

        let pairs = b"REQUEST_METHOD\0POST\0PATH_INFO\0/x\0HTTP_X_A\x001\0CONTENT_LENGTH\x005\0SCGI\x001\0";
        let came = [format!("{}:", pairs.len()).as_bytes(), pairs, b","].concat();
        let limits = Limits { request_line: 1000, fields: 10, field_size: 1000 };
        let mut connection = waiting("GET / HTTP/1.1\r\nHost: x\r\n\r\n", RequestBody::Memory(b"hello".to_vec()));
        let Ok(Measure::Whole { pairs: place, .. }) = Envelope::Scgi.measure(&came, 1000) else { panic!("it is whole") };
        let Phase::Waiting(queued) = &mut connection.phase else { unreachable!("it was made so") };
        queued.own = came.clone();
        queued.framing = variables::read(&mut queued.head, &mut queued.own, (Packing::Nul, place), &limits).unwrap();
        connection.wire = Wire::new(Protocol::Scgi);
        assert_eq!(*connection.handoff().unwrap().input, [&came[..], b"hello"].concat());

        let pairs = b"\x0e\x04REQUEST_METHODPOST\x09\x02PATH_INFO/x\x08\x01HTTP_X_A1";
        let Phase::Waiting(queued) = &mut connection.phase else { unreachable!("it was made so") };
        queued.own = pairs.to_vec();
        queued.framing = variables::read(&mut queued.head, &mut queued.own, (Packing::Long, 0..pairs.len()), &limits).unwrap();
        queued.terms = Terms::default().in_dialect(Dialect::FastCgi(7));
        connection.wire = Wire::new(Protocol::FastCgi);
        connection.kept = Some(Kept::rest(b"the next record", &InputBudget::default()));
        let message = connection.handoff().unwrap();
        let (mut reader, mut at, mut found) = (RecordReader::default(), 0, (Vec::new(), Vec::new()));
        loop {
            let input = &message.input[at..];
            let step = reader.step(input, &mut Vec::new(), &mut || false).unwrap();
            at += step.used;
            match step.event {
                RecordEvent::Params(part) => found.0.extend_from_slice(&input[part]),
                RecordEvent::Stdin(part) => found.1.extend_from_slice(&input[part]),
                RecordEvent::StdinEnd => break,
                RecordEvent::None | RecordEvent::ParamsEnd | RecordEvent::Aborted { .. } | RecordEvent::Refused => {}
            }
        }
        assert_eq!((&found.0[..], &found.1[..], &message.input[at..]), (&pairs[..], &b"hello"[..], &b"the next record"[..]));

        use crate::protocol::ajp::Forward;
        let head = b"\x02\x04\x00\x08HTTP/1.1\0\x00\x02/x\0\xff\xff\xff\xff\xff\xff\0\x50\0\x00\x02\xa0\x08\x00\x015\0\x00\x03x-a\0\x00\x011\0\xff";
        let came = [b"\x12\x34\x00", &[head.len() as u8][..], head].concat();
        let Phase::Waiting(queued) = &mut connection.phase else { unreachable!("it was made so") };
        queued.own = came.clone();
        let forward = Forward::read(&came, 0..came.len(), 10).unwrap();
        forward.put(&mut queued.own);
        let place = came.len()..queued.own.len();
        queued.framing = variables::read(&mut queued.head, &mut queued.own, (Packing::Short, place), &limits).unwrap();
        connection.wire = Wire::new(Protocol::Ajp);
        connection.kept = Some(Kept::rest(b"the next packet", &InputBudget::default()));
        let message = connection.handoff().unwrap();
        assert_eq!(*message.input, [&came[..], b"\x12\x34\x00\x07\x00\x05hello", b"the next packet"].concat());
    }

    #[test]
    fn what_others_hold_or_is_too_large_or_moved_too_often_stays() {
        let head = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        let held = waiting(head, RequestBody::Empty);
        let _client = held.link.clone();
        assert_eq!(held.handoff(), None);
        assert_eq!(waiting(head, RequestBody::Memory(vec![0; INPUT_MAX])).handoff(), None);
        let mut weary = waiting(head, RequestBody::Empty);
        weary.arrival.moves = MOVES_MAX;
        assert_eq!(weary.handoff(), None);
        weary.arrival.moves = MOVES_MAX - 1;
        let message = weary.handoff().unwrap();
        let mut next = waiting(head, RequestBody::Empty);
        take_over(&mut next, message);
        assert_eq!((next.arrival.since, next.arrival.moves), (93, MOVES_MAX));
        assert!(matches!(next.kept.as_deref(), Some(Kept::Rest(bytes)) if **bytes == *head.as_bytes()));
    }

    #[test]
    fn an_idle_connection_goes_with_its_deadline_and_half_a_head() {
        let mut connection = waiting("GET / HTTP/1.1\r\nHost: x\r\n\r\n", RequestBody::Empty);
        connection.phase = Phase::Head;
        let memory = InputBudget::default();
        for input in [&b""[..], b"GET / HT"] {
            if !input.is_empty() {
                connection.kept = Some(Box::new(Kept::Partial(Leased::copy(input, &memory).unwrap())));
            }
            let message = connection.handoff().unwrap();
            assert_eq!(*message.input, *input);
            let mut next = waiting("GET / HTTP/1.1\r\nHost: x\r\n\r\n", RequestBody::Empty);
            take_over(&mut next, message);
            // It is parsed where it arrives: the limits may differ there.
            let kept = next
                .kept
                .as_deref()
                .map_or(&b""[..], |kept| if let Kept::Rest(bytes) = kept { bytes } else { b"not to be read" });
            assert_eq!((next.timer.deadline, kept), (5_000, input));
        }
        connection.kept = Some(Kept::rest(b"GET / HTTP/1.1\r\n\r\n", &memory));
        assert_eq!(connection.handoff(), None, "a request that has its turn here");
        (connection.kept, connection.held) = (None, true);
        assert_eq!(connection.handoff(), None, "an answer of it waits to be sent");
    }

    #[test]
    fn times_and_input_of_another_worker_are_bounded() {
        let mut next = waiting("GET / HTTP/1.1\r\nHost: x\r\n\r\n", RequestBody::Empty);
        let message = |kind, input: &[u8]| HandoffMessage {
            kind,
            moves: 0,
            listener: 0,
            peer: None,
            client: None,
            time: u64::MAX,
            session: SessionBytes::default(),
            input: input.to_vec().into(),
        };
        let rules = Rules::of(&Settings::default());
        take_over(&mut next, message(HandoffKind::Idle, b""));
        assert_eq!(next.timer.deadline, NOW / NS_PER_MS + rules.keep_alive);
        take_over(&mut next, message(HandoffKind::Idle, b"GET"));
        assert_eq!(next.timer.deadline, NOW / NS_PER_MS + rules.header_timeout);
        take_over(&mut next, message(HandoffKind::Request, b"GET"));
        assert_eq!(next.arrival.since, NOW);
    }

    /// The clock of the worker that takes over, in nanoseconds.
    const NOW: u64 = 4_000 * NS_PER_MS;

    fn take_over(connection: &mut Connection, message: HandoffMessage<'_>) {
        connection.adopt(message, NOW, &Rules::of(&Settings::default()), &InputBudget::default());
    }
}
