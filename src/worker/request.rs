//! From bytes to the call of the application: parsing, framing, the body, and the refusal of what is wrong.

use crate::http::error::{self, Error};
use crate::http::framing::{self, Framing, Length};
use crate::http::head::{Head, Parsed};
use crate::http::response::CONTINUE;

use super::answer::Answer;
use super::app::{Body, Fate, Reply, Request};
use super::connection::{CloseReason, Connection, FLUSH_SIZE, Flow, Phase};
use super::seat::{Entry, Seat};
use super::upload::{Fed, Upload, UploadError};

/// The client left before its request was complete; nginx's number for it, only ever seen in the log.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// What became of some input.
#[derive(Clone, Copy, Debug)]
pub(super) struct Used {
    /// Bytes that are dealt with.
    pub bytes: usize,
    /// Whether the rest needs more bytes to mean anything (and not merely its turn).
    pub wants_more: bool,
}

impl Connection {
    /// Serves the requests in `input` one after the other, rendering their answers into the seat's output.
    pub(super) fn consume(&mut self, input: &[u8], head: &mut Head, seat: &mut Seat) -> Used {
        let mut bytes = 0;
        loop {
            let rest = &input[bytes..];
            let used = match &mut self.phase {
                Phase::Head => self.take_head(rest, head, seat),
                Phase::Body(_) => self.take_body(rest, seat),
                Phase::Answer(_) | Phase::Closing(_) | Phase::Linger(_) => return Used { bytes, wants_more: false },
            };
            bytes += used.bytes;
            if used.wants_more {
                return Used { bytes, wants_more: true };
            }
            if seat.out.len() >= FLUSH_SIZE && self.flush(seat) != Flow::Go {
                return Used { bytes, wants_more: false };
            }
        }
    }

    /// A head, and as much of its body as is there.
    fn take_head(&mut self, rest: &[u8], head: &mut Head, seat: &mut Seat) -> Used {
        const MORE: Used = Used { bytes: 0, wants_more: true };
        if rest.is_empty() {
            return MORE;
        }
        match head.parse(rest, &seat.rules.head) {
            Ok(Parsed::Complete) => {}
            Ok(Parsed::Partial) if rest.len() < seat.rules.head_max => return MORE,
            Ok(Parsed::Partial) => return self.refuse(Error::FieldTooLong(seat.rules.head_max), None, rest.len(), seat),
            Err(error) => return self.refuse(error, None, rest.len(), seat),
        }
        let framing = match framing::of(head, rest) {
            Ok(framing) => framing,
            Err(error) => return self.refuse(error, Some((head, rest)), rest.len(), seat),
        };
        if matches!(framing.length, Length::None | Length::Known(0)) {
            self.call(head, rest, framing, Body::Empty, seat);
            return Used { bytes: head.len, wants_more: false };
        }
        let body = &rest[head.len..];
        let started = Upload::new(framing, &seat.rules).and_then(|mut upload| Ok((upload.feed(body)?, upload)));
        match started {
            Ok((Fed { used, done: true }, upload)) => {
                match upload.finish() {
                    Ok(body) => self.call(head, rest, framing, body, seat),
                    Err(error) => return self.refuse_body(error, (head, rest), rest.len(), seat),
                }
                Used { bytes: head.len + used, wants_more: false }
            }
            Ok((Fed { used, done: false }, mut upload)) => {
                if framing.expect_continue && body.is_empty() {
                    seat.out.extend_from_slice(CONTINUE);
                }
                let head_len = head.len;
                upload.bytes = rest[..head_len].to_vec();
                upload.head = std::mem::take(head);
                self.phase = Phase::Body(Box::new(upload));
                self.deadline = seat.clock.ms() + seat.rules.body_timeout;
                Used { bytes: head_len + used, wants_more: true }
            }
            Err(error) => self.refuse_body(error, (head, rest), rest.len(), seat),
        }
    }

    /// More of a body.
    fn take_body(&mut self, rest: &[u8], seat: &mut Seat) -> Used {
        let Phase::Body(mut upload) = std::mem::replace(&mut self.phase, Phase::Head) else {
            unreachable!("called in the body phase only");
        };
        let fed = match upload.feed(rest) {
            Ok(fed) => fed,
            Err(error) => {
                let upload = *upload;
                return self.refuse_body(error, (&upload.head, &upload.bytes), rest.len(), seat);
            }
        };
        if !fed.done {
            self.phase = Phase::Body(upload);
            self.deadline = seat.clock.ms() + seat.rules.body_timeout;
            return Used { bytes: fed.used, wants_more: true };
        }
        let mut upload = *upload;
        let (bytes, head, framing) = (std::mem::take(&mut upload.bytes), std::mem::take(&mut upload.head), upload.framing);
        match upload.finish() {
            Ok(body) => self.call(&head, &bytes, framing, body, seat),
            Err(error) => return self.refuse_body(error, (&head, &bytes), rest.len(), seat),
        }
        Used { bytes: fed.used, wants_more: false }
    }

    /// Calls the application with a complete request.
    fn call(&mut self, head: &Head, bytes: &[u8], framing: Framing, body: Body, seat: &mut Seat) {
        let began = seat.clock.ns();
        seat.slot().begin(head.line.of(bytes), began);
        let rendered = seat.out.len();
        let keeps_alive = seat.keeps_alive();
        // Taken out of the connection for the time of the call: the request borrows it while the outlet borrows the rest.
        let peer = std::mem::take(&mut self.peer);
        let request = Request {
            bytes,
            head,
            framing,
            peer: &peer,
            listener: self.listener,
            persistent: keeps_alive,
            date: seat.date.at(seat.clock.wall()),
            body,
        };
        let reply = seat.app.call(request, &mut seat.out, &mut self.outlet());
        self.peer = peer;
        seat.slot().end();
        seat.clock.tick();
        match reply {
            Reply::Complete(summary) => {
                if seat.journal.is_some() {
                    let out = std::mem::take(&mut seat.out);
                    let environ = seat.app.logged().to_vec();
                    let entry = Entry {
                        peer: &self.peer,
                        head: Some((head, bytes)),
                        status: summary.status,
                        sent: summary.sent,
                        response_head: seat.response_head(&out[rendered.min(out.len())..]),
                        began: Some(began),
                        environ: &environ,
                    };
                    seat.record(&entry);
                    seat.out = out;
                }
                self.after_answer(summary.fate, seat);
            }
            Reply::Stream(stream) => {
                let answer = Answer::new(stream, head, bytes, began, seat, &seat.out[rendered.min(seat.out.len())..]);
                self.phase = Phase::Answer(Box::new(answer));
            }
        }
    }

    /// Answers a request whose body cannot be taken.
    fn refuse_body(&mut self, error: UploadError, head: (&Head, &[u8]), used: usize, seat: &mut Seat) -> Used {
        match error {
            UploadError::Bad(error) => self.refuse(error, Some(head), used, seat),
            UploadError::TooLarge => self.refuse(Error::BodyTooLong(seat.rules.body_max), Some(head), used, seat),
            UploadError::Spool(error) => {
                let (method, target) = (head.0.method.of(head.1), head.0.target.of(head.1));
                seat.log.error(format_args!(
                    "cannot spool the body of {} {}: {error}; check the space and the rights of the temporary directory (TMPDIR)",
                    method.escape_ascii(),
                    target.escape_ascii(),
                ));
                self.answer_ourselves(500, "the request body could not be stored", Some(head), seat);
                Used { bytes: used, wants_more: false }
            }
        }
    }

    /// Answers a bad request and closes: nothing behind it can be trusted.
    fn refuse(&mut self, error: Error, head: Option<(&Head, &[u8])>, used: usize, seat: &mut Seat) -> Used {
        seat.log.debug(format_args!("refused a request of {}: {error}", self.peer.addr));
        self.answer_ourselves(error.status(), &error.to_string(), head, seat);
        Used { bytes: used, wants_more: false }
    }

    /// The client took too long: 408.
    pub(super) fn time_out(&mut self, seat: &mut Seat) {
        let phase = std::mem::replace(&mut self.phase, Phase::Head);
        match phase {
            Phase::Body(upload) => self.refuse(Error::BodyTimeout, Some((&upload.head, &upload.bytes)), 0, seat),
            Phase::Head | Phase::Answer(_) | Phase::Closing(_) | Phase::Linger(_) => {
                self.refuse(Error::HeadTimeout, None, 0, seat)
            }
        };
        // A send that fails shows again at the next step, which closes.
        let _ = self.flush(seat);
    }

    /// The client is gone; a request that it had begun is logged.
    pub(super) fn lost(&mut self, reason: CloseReason, seat: &mut Seat) -> CloseReason {
        let phase = std::mem::replace(&mut self.phase, Phase::Head);
        let head = match &phase {
            Phase::Body(upload) => Some((&upload.head, upload.bytes.as_slice())),
            Phase::Head | Phase::Answer(_) | Phase::Closing(_) | Phase::Linger(_) => None,
        };
        if head.is_none() && self.input.is_empty() {
            return reason;
        }
        self.record_refusal(CLIENT_CLOSED_REQUEST, head, seat);
        CloseReason::ClientGone
    }

    /// Renders an answer of our own and closes behind it.
    fn answer_ourselves(&mut self, status: u16, detail: &str, head: Option<(&Head, &[u8])>, seat: &mut Seat) {
        let version = head.map_or_else(Default::default, |(head, _)| head.version);
        let head_only = head.is_some_and(|(head, bytes)| head.method.of(bytes) == b"HEAD");
        let date = *seat.date.at(seat.clock.wall());
        error::render(&mut seat.out, status, detail, version, head_only, &date);
        self.record_refusal(status, head, seat);
        self.unread = true;
        self.phase = Phase::Closing(Fate::Close);
    }

    fn record_refusal(&self, status: u16, head: Option<(&Head, &[u8])>, seat: &mut Seat) {
        seat.record(&Entry { peer: &self.peer, head, status, sent: 0, response_head: &[], began: None, environ: &[] });
    }
}
