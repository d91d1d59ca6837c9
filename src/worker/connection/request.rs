//! From bytes to a complete request: head, framing and body.

use crate::http::error::Error;
use crate::http::framing::Length;
use crate::http::head::Parsed;
use crate::http::response::CONTINUE;
use crate::worker::app::Body;
use crate::worker::seat::Seat;
use crate::worker::upload::{Fed, Upload};

use super::{Connection, Flow, Phase};

impl Connection {
    /// Uses the seat's input for one head or a piece of a body.
    pub(super) fn consume(&mut self, seat: &mut Seat) -> Flow {
        match std::mem::replace(&mut self.phase, Phase::Head) {
            Phase::Body(upload) => self.take_body(upload, seat),
            Phase::Head | Phase::Waiting(_) | Phase::Serving | Phase::Answer(_) | Phase::Closing(_) | Phase::Linger(_) => {
                self.take_head(seat)
            }
        }
    }

    /// A head, and as much of its body as is there.
    fn take_head(&mut self, seat: &mut Seat) -> Flow {
        let rest = &seat.input[seat.unused.clone()];
        let (limits, job) = (&seat.rules, &mut seat.job);
        let parsed = match seat.blocks.resume(&mut job.head, rest, &limits.head, &mut self.progress) {
            Ok(Parsed::Partial) if rest.len() >= limits.head_max => Err((Error::HeadTooLong(limits.head_max), false)),
            Ok(Parsed::Partial) => {
                seat.partial = true;
                return Ok(());
            }
            Ok(Parsed::Complete) => seat.blocks.framing(&job.head, rest).map_err(|error| (error, true)),
            Err(error) => Err((error, false)),
        };
        let (framing, block) = match parsed {
            Ok(found) => found,
            Err((error, whole)) => {
                let (head, bytes) = (std::mem::take(&mut job.head), rest.to_vec());
                self.refuse(error, whole.then_some((&head, &bytes)), seat);
                seat.job.head = head;
                return Ok(());
            }
        };
        let (start, end) = (seat.unused.start, seat.unused.start + job.head.len);
        job.framing = framing;
        job.block = block;
        job.own.clear();
        job.at = start..end;
        if matches!(framing.length, Length::None | Length::Known(0)) {
            seat.unused.start = end;
            return self.submit(Body::Empty, seat);
        }
        let head = std::mem::take(&mut job.head);
        let rest = seat.rest();
        let body = &rest[head.len..];
        let wants_continue = framing.expect_continue && body.is_empty();
        let started = Upload::new(framing, &seat.rules, &seat.bodies).and_then(|mut upload| Ok((upload.feed(body)?, upload)));
        match started {
            Ok((Fed { used, done: true }, upload)) => {
                seat.used(head.len + used);
                match upload.finish() {
                    Ok(body) => {
                        seat.job.head = head;
                        self.submit(body, seat)
                    }
                    Err(error) => {
                        let bytes = seat.input[start..end].to_vec();
                        self.refuse_body(error, (&head, &bytes), seat)
                    }
                }
            }
            Ok((Fed { used, done: false }, mut upload)) => {
                upload.bytes = rest[..head.len].to_vec();
                seat.used(head.len + used);
                seat.partial = true;
                upload.head = head;
                self.phase = Phase::Body(Box::new(upload));
                self.deadline = seat.clock.ms() + seat.rules.body_timeout;
                if wants_continue {
                    seat.out.extend_from_slice(CONTINUE);
                }
                Ok(())
            }
            Err(error) => {
                let bytes = rest[..head.len].to_vec();
                self.refuse_body(error, (&head, &bytes), seat)
            }
        }
    }

    /// More of a body.
    pub(in crate::worker) fn take_body(&mut self, mut upload: Box<Upload>, seat: &mut Seat) -> Flow {
        let fed = match upload.feed(seat.rest()) {
            Ok(fed) => fed,
            Err(error) => return self.refuse_body(error, (&upload.head, &upload.bytes), seat),
        };
        seat.used(fed.used);
        if !fed.done {
            seat.partial = true;
            self.phase = Phase::Body(upload);
            self.deadline = seat.clock.ms() + seat.rules.body_timeout;
            return Ok(());
        }
        let mut upload = *upload;
        seat.job.own = std::mem::take(&mut upload.bytes);
        seat.job.head = std::mem::take(&mut upload.head);
        seat.job.framing = upload.framing;
        seat.job.block = None;
        seat.job.lease = upload.lease();
        match upload.finish() {
            Ok(body) => self.submit(body, seat),
            Err(error) => {
                let (head, bytes) = (std::mem::take(&mut seat.job.head), std::mem::take(&mut seat.job.own));
                self.refuse_body(error, (&head, &bytes), seat)
            }
        }
    }
}
