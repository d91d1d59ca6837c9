//! From bytes to a complete request: head, framing and body.

use crate::http::error::Error;
use crate::http::framing::Length;
use crate::http::head::{Parsed, Progress};
use crate::http::response::CONTINUE;
use crate::worker::app::Body;
use crate::worker::kept::{Kept, Leased};
use crate::worker::seat::Seat;
use crate::worker::upload::{Fed, Upload};

use super::{Connection, Flow, Phase};

impl Connection {
    /// Uses the seat's input for one head or a piece of a body.
    pub(super) fn consume(&mut self, seat: &mut Seat) -> Flow {
        if matches!(self.phase, Phase::Body(_))
            && let Phase::Body(upload) = std::mem::replace(&mut self.phase, Phase::Head)
        {
            return self.take_body(upload, seat);
        }
        let complete = match self.kept.take() {
            None => self.take_head(seat),
            Some(kept) => self.take_more_head(kept, seat),
        };
        if complete { self.begin_request(seat) } else { Ok(()) }
    }

    /// A head; whether it is complete, and in the job.
    fn take_head(&mut self, seat: &mut Seat) -> bool {
        let rest = &seat.input[seat.unused.clone()];
        let (rules, job) = (&seat.rules, &mut seat.job);
        // Where the input was cut says nothing about the verdict.
        let window = &rest[..rest.len().min(rules.head_max)];
        let mut progress = Progress::default();
        match seat.blocks.resume(&mut job.head, window, &rules.head, &mut progress) {
            Ok(Parsed::Complete) => {
                let (start, end) = (seat.unused.start, seat.unused.start + job.head.len);
                job.own.clear();
                job.at = start..end;
                seat.unused.start = end;
                return true;
            }
            Ok(Parsed::Partial) if window.len() >= rules.head_max => self.refuse(Error::HeadTooLong(rules.head_max), None, seat),
            Ok(Parsed::Partial) => match Leased::copy(window, &seat.memory) {
                Some(bytes) => {
                    self.kept = Some(Box::new(Kept::Head(bytes, progress)));
                    seat.unused = 0..0;
                }
                None => self.refuse_kept(None, seat),
            },
            Err(error) => self.refuse(error, None, seat),
        }
        false
    }

    /// More of a head whose beginning is kept; it is complete with these bytes, or they are kept too. Returns as [`Self::take_head`].
    #[cold]
    fn take_more_head(&mut self, mut kept: Box<Kept>, seat: &mut Seat) -> bool {
        let Kept::Head(bytes, progress) = &mut *kept else { unreachable!("what may be a request is taken to the seat first") };
        let (rules, job, before) = (&seat.rules, &mut seat.job, bytes.len());
        let more = &seat.input[seat.unused.clone()];
        let more = &more[..more.len().min(rules.head_max - before)];
        if !bytes.push(more, &seat.memory) {
            self.refuse_kept(None, seat);
            return false;
        }
        match seat.blocks.resume(&mut job.head, bytes, &rules.head, progress) {
            Ok(Parsed::Complete) => {
                seat.unused.start += job.head.len - before;
                job.own = std::mem::take(bytes).into_bytes();
                job.own.truncate(job.head.len);
                return true;
            }
            Ok(Parsed::Partial) if bytes.len() >= rules.head_max => self.refuse(Error::HeadTooLong(rules.head_max), None, seat),
            Ok(Parsed::Partial) => {
                self.kept = Some(kept);
                seat.unused = 0..0;
            }
            Err(error) => self.refuse(error, None, seat),
        }
        false
    }

    /// The head in the job is complete, and what follows it is in the seat.
    fn begin_request(&mut self, seat: &mut Seat) -> Flow {
        let job = &mut seat.job;
        match seat.blocks.framing(&job.head, job.bytes(&seat.input)) {
            Ok((framing, block)) => (job.framing, job.block) = (framing, block),
            Err(error) => {
                seat.with_head(|seat, head| self.refuse(error, Some(head), seat));
                return Ok(());
            }
        }
        if !matches!(job.framing.length, Length::None | Length::Known(0)) {
            return self.begin_body(seat);
        }
        if !job.body.is_empty() {
            job.body = Body::Empty;
        }
        self.submit(seat)
    }

    /// As much of a body as is there.
    #[inline(never)]
    fn begin_body(&mut self, seat: &mut Seat) -> Flow {
        let framing = seat.job.framing;
        let body = seat.rest();
        let wants_continue = framing.expect_continue && body.is_empty();
        let started = Upload::new(framing, &seat.rules, &seat.bodies).and_then(|mut upload| Ok((upload.feed(body)?, upload)));
        let error = match started {
            Ok((Fed { used, done: true }, upload)) => {
                seat.used(used);
                match upload.finish() {
                    Ok(body) => {
                        seat.job.body = body;
                        return self.submit(seat);
                    }
                    Err(error) => error,
                }
            }
            Ok((Fed { used, done: false }, mut upload)) => {
                seat.used(used);
                let Some(bytes) = lease_head(seat) else {
                    seat.with_head(|seat, head| self.refuse_kept(Some(head), seat));
                    return Ok(());
                };
                (upload.head, upload.bytes) = (std::mem::take(&mut seat.job.head), bytes);
                self.phase = Phase::Body(Box::new(upload));
                self.deadline = seat.clock.ms() + seat.rules.body_timeout;
                if wants_continue {
                    seat.out.extend_from_slice(CONTINUE);
                }
                return Ok(());
            }
            Err(error) => error,
        };
        seat.with_head(|seat, head| self.refuse_body(error, head, seat))
    }

    /// More of a body.
    #[inline(never)]
    pub(in crate::worker) fn take_body(&mut self, mut upload: Box<Upload>, seat: &mut Seat) -> Flow {
        let fed = match upload.feed(seat.rest()) {
            Ok(fed) => fed,
            Err(error) => return self.refuse_body(error, (&upload.head, &upload.bytes), seat),
        };
        seat.used(fed.used);
        if !fed.done {
            self.phase = Phase::Body(upload);
            self.deadline = seat.clock.ms() + seat.rules.body_timeout;
            return Ok(());
        }
        let mut upload = *upload;
        seat.job.own = std::mem::take(&mut upload.bytes).into_bytes();
        seat.job.head = std::mem::take(&mut upload.head);
        seat.job.framing = upload.framing;
        seat.job.block = None;
        seat.job.lease = upload.lease();
        match upload.finish() {
            Ok(body) => {
                seat.job.body = body;
                self.submit(seat)
            }
            Err(error) => seat.with_head(|seat, head| self.refuse_body(error, head, seat)),
        }
    }
}

/// The bytes of the head in hand, to be kept while its body comes; `None` when there is no memory.
fn lease_head(seat: &mut Seat) -> Option<Leased> {
    let job = &mut seat.job;
    if job.own.is_empty() {
        return Leased::copy(&seat.input[job.at.clone()], &seat.memory);
    }
    Leased::own(std::mem::take(&mut job.own), &seat.memory).map_err(|bytes| job.own = bytes).ok()
}
