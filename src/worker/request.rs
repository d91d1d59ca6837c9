//! From bytes to the application: parsing, framing, the body, the refusal of what is wrong, and what follows a call.

use crate::http::error::{self, Error};
use crate::http::framing::Length;
use crate::http::head::{Head, Parsed};
use crate::http::response::CONTINUE;
use crate::scoreboard::Facts;
use crate::sys::time::NS_PER_MS;

use super::answer::Answer;
use super::app::{Body, Fate, Peer, Reply, Request, Step};
use super::connection::{CloseReason, Connection, Flow, Next, Phase, Token};
use super::job::{Job, Letter, Parcel, Served, SocketOutlet, Work};
use super::member::Member;
use super::output::Output;
use super::overload::{RETRY_AFTER, Refusal};
use super::pace::TICK_NS;
use super::seat::{Entry, Seat};
use super::spool::Lease;
use super::upgrade;
use super::upload::{Fed, Upload, UploadError};

/// The client left before its request was complete; nginx's number for it, only ever seen in the log.
const CLIENT_CLOSED_REQUEST: u16 = 499;

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
    pub(super) fn take_body(&mut self, mut upload: Box<Upload>, seat: &mut Seat) -> Flow {
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

    /// A request is complete: what its call needs goes to the seat's job.
    fn submit(&mut self, body: Body, seat: &mut Seat) -> Flow {
        if seat.job.framing.upgrade {
            // A copy: what is no takeover is an ordinary request, and this is the next one.
            seat.job.early = seat.rest().to_vec();
        }
        let job = &mut seat.job;
        job.link = Some(self.link.clone());
        job.body = body;
        job.queued = match std::mem::take(&mut self.since) {
            0 => 0,
            since => seat.clock.ns().saturating_sub(since),
        };
        self.send_along(job);
        self.phase = Phase::Serving;
        Err(Next::Work(Work::Call))
    }

    /// What the socket has not taken goes along with the request, so that `write()` goes behind it.
    pub(super) fn send_along(&mut self, job: &mut Job) {
        job.output = self.output.take();
        job.behind = self.held;
        if job.behind {
            self.link.precede(true);
        }
        if job.output.is_some() {
            self.link.claim.begin();
        }
    }

    /// No slot is free for the work that the connection asked for: it is kept until one is.
    pub fn park(&mut self, work: Work, seat: &mut Seat) {
        match work {
            Work::Call => {
                let parcel = self.pack(seat);
                self.queue(parcel, seat);
            }
            Work::Parcel(parcel) => self.queue(parcel, seat),
            Work::Advance(answer) | Work::Drop(answer) => {
                self.phase = Phase::Answer(answer);
                self.deadline = u64::MAX;
            }
            // No connection asks for it.
            Work::Signals => {}
        }
    }

    fn queue(&mut self, mut parcel: Box<Parcel>, seat: &Seat) {
        // It goes out while the request waits.
        self.keep_behind(parcel.output.take());
        self.link.claim.end();
        parcel.since = seat.clock.ns();
        let waited = parcel.queued / NS_PER_MS;
        self.phase = Phase::Waiting(parcel);
        self.deadline = seat.clock.ms().saturating_sub(waited).saturating_add(seat.rules.queue_timeout);
    }

    /// Its request was parked and may not wait: 503.
    pub fn turn_away(&mut self, refusal: Refusal, seat: &mut Seat) -> Next {
        if let Phase::Waiting(parcel) = std::mem::replace(&mut self.phase, Phase::Head) {
            self.refuse_overload(refusal, &parcel, seat);
        }
        self.input = Vec::new();
        self.begin_turn(seat)
    }

    /// Keeps what a call has not sent, behind what waits here.
    fn keep_behind(&mut self, output: Option<Box<Output>>) {
        match (&mut self.output, output) {
            (Some(first), Some(second)) => first.append(second),
            (first @ None, second) => *first = second,
            (Some(_), None) => {}
        }
    }

    /// Whether its complete request waits for a free slot.
    pub fn is_waiting(&self) -> bool {
        matches!(self.phase, Phase::Waiting(_))
    }

    /// Whether it waits for a free slot, for its request or its stream.
    pub fn is_parked(&self) -> bool {
        matches!(self.phase, Phase::Waiting(_) | Phase::Answer(_))
    }

    /// Takes the request that it has submitted out of the seat, and its own input too.
    pub fn pack(&mut self, seat: &mut Seat) -> Box<Parcel> {
        let mut parcel = Box::new(seat.job.pack(&seat.input, seat.draining));
        if let Some(output) = self.output.take() {
            parcel.output = Some(output);
            self.link.claim.begin();
        }
        self.stow(seat);
        parcel
    }

    /// The thread that must do what the connection waits for, if only one can.
    pub fn waits_for(&self) -> Option<Member> {
        match &self.phase {
            Phase::Answer(answer) => Some(answer.member()),
            Phase::Head | Phase::Body(_) | Phase::Waiting(_) | Phase::Serving | Phase::Closing(_) | Phase::Linger(_) => None,
        }
    }

    /// A slot is free: asks again for the work that was parked.
    pub fn unpark(&mut self, seat: &mut Seat) -> Next {
        match std::mem::replace(&mut self.phase, Phase::Serving) {
            Phase::Waiting(mut parcel) => {
                self.renew_turn(seat);
                parcel.output = self.output.take();
                if parcel.output.is_some() {
                    self.link.claim.begin();
                }
                parcel.stop_waiting(seat.clock.ns());
                seat.job.unpack(*parcel);
                Next::Work(Work::Call)
            }
            phase => {
                self.phase = phase;
                self.begin_turn(seat)
            }
        }
    }

    /// Gives its request away for the tray; `None` when it does not wait for any slot, or has earlier output to send meanwhile.
    pub fn lay(&mut self) -> Option<Box<Parcel>> {
        if self.output.is_some() {
            return None;
        }
        match std::mem::replace(&mut self.phase, Phase::Serving) {
            Phase::Waiting(parcel) => {
                (self.queued, self.laid) = (false, true);
                Some(parcel)
            }
            phase => {
                self.phase = phase;
                None
            }
        }
    }

    /// Its request comes back from the tray.
    pub fn wait_again(&mut self, parcel: Box<Parcel>) {
        self.laid = false;
        self.phase = Phase::Waiting(parcel);
    }

    /// Takes back what the application's side made.
    pub fn served(&mut self, served: Served, seat: &mut Seat) {
        self.deadline = seat.clock.ms() + seat.rules.write_timeout;
        self.moves = 0;
        match served {
            Served::Whole(output, fate) => {
                self.keep_behind(output);
                self.after_answer(fate, seat);
            }
            Served::Begun(output, answer) => {
                self.keep_behind(output);
                self.phase = Phase::Answer(answer);
            }
            Served::Step(answer, step) => {
                seat.take_in(&self.input, self.partial);
                self.take_step(answer, step, seat);
                if step == Step::Rendered {
                    // It has had its time: what it gave is sent, then others have theirs.
                    self.turn = 0;
                }
            }
            Served::Ended(fate) => {
                seat.take_in(&self.input, self.partial);
                self.after_answer(fate, seat);
            }
            Served::Dropped | Served::Handled => {}
        }
    }

    /// Answers a request whose body cannot be taken.
    fn refuse_body(&mut self, error: UploadError, head: (&Head, &[u8]), seat: &mut Seat) -> Flow {
        match error {
            UploadError::Bad(error) => self.refuse(error, Some(head), seat),
            UploadError::TooLarge => self.refuse(Error::BodyTooLong(seat.rules.body_max), Some(head), seat),
            UploadError::Spool(error) => {
                let line = head.0.line.of(head.1).escape_ascii();
                seat.log.error(format_args!(
                    "cannot spool the body of {line}: {error}; check the space and the rights of the temporary directory (TMPDIR)"
                ));
                self.answer_ourselves(500, "the request body could not be stored", Some(head), seat);
            }
        }
        Ok(())
    }

    /// Answers a bad request and closes: nothing behind it can be trusted.
    fn refuse(&mut self, error: Error, head: Option<(&Head, &[u8])>, seat: &mut Seat) {
        seat.log.debug(format_args!("refused a request of {}: {error}", self.link.peer.addr));
        self.answer_ourselves(error.status(), &error.to_string(), head, seat);
    }

    /// The server has no time for a request: 503.
    fn refuse_overload(&mut self, refusal: Refusal, parcel: &Parcel, seat: &mut Seat) {
        let head = Some((&parcel.head, parcel.bytes.as_slice()));
        self.render_ourselves(503, refusal.detail(), &[(b"Retry-After", RETRY_AFTER)], head, seat);
        self.record_refusal(503, head, parcel.queued, seat);
    }

    /// The client took too long: 408. The application did: 503.
    pub(super) fn time_out(&mut self, seat: &mut Seat) {
        match std::mem::replace(&mut self.phase, Phase::Head) {
            Phase::Body(upload) => self.refuse(Error::BodyTimeout, Some((&upload.head, &upload.bytes)), seat),
            Phase::Waiting(mut parcel) => {
                parcel.stop_waiting(seat.clock.ns());
                self.refuse_overload(Refusal::Waited, &parcel, seat);
            }
            Phase::Head | Phase::Serving | Phase::Answer(_) | Phase::Closing(_) | Phase::Linger(_) => {
                self.refuse(Error::HeadTimeout, None, seat);
            }
        }
    }

    /// The client is gone; a request that it had begun is logged.
    pub(super) fn lost(&mut self, reason: CloseReason, seat: &mut Seat) -> CloseReason {
        let phase = std::mem::replace(&mut self.phase, Phase::Head);
        let head = match &phase {
            Phase::Body(upload) => Some((&upload.head, upload.bytes.as_slice())),
            Phase::Head | Phase::Waiting(_) | Phase::Serving | Phase::Answer(_) | Phase::Closing(_) | Phase::Linger(_) => None,
        };
        if head.is_none() && seat.rest().is_empty() {
            return reason;
        }
        self.record_refusal(CLIENT_CLOSED_REQUEST, head, 0, seat);
        CloseReason::ClientGone
    }

    /// Renders an answer of our own and closes behind it.
    fn answer_ourselves(&mut self, status: u16, detail: &str, head: Option<(&Head, &[u8])>, seat: &mut Seat) {
        self.render_ourselves(status, detail, &[], head, seat);
        self.record_refusal(status, head, 0, seat);
    }

    pub(super) fn render_ourselves(
        &mut self,
        status: u16,
        detail: &str,
        fields: &[error::Field<'_>],
        head: Option<(&Head, &[u8])>,
        seat: &mut Seat,
    ) {
        let version = head.map_or_else(Default::default, |(head, _)| head.version);
        let head_only = head.is_some_and(|(head, bytes)| head.method.of(bytes) == b"HEAD");
        let date = *seat.date.at(seat.clock.wall());
        error::render_with(&mut seat.out, status, detail, fields, version, head_only, &date);
        self.unread = true;
        self.phase = Phase::Closing(Fate::Close);
    }

    fn record_refusal(&self, status: u16, head: Option<(&Head, &[u8])>, queued: u64, seat: &mut Seat) {
        let peer = &self.link.peer;
        seat.record(&Entry { peer, head, status, sent: 0, response_head: &[], began: None, queued, environ: &[] });
    }
}

/// What the flight recorder is told of a request.
pub(super) fn facts<'a>(head: &Head, bytes: &'a [u8], peer: &'a Peer) -> Facts<'a> {
    let id = head.request_id.map_or(&[][..], |place| head.fields[place].value.of(bytes));
    Facts { line: head.line.of(bytes), client: peer.addr.as_bytes(), id }
}

impl Seat {
    /// Does a piece of work in the application, from its begin to its log line.
    pub fn serve(&mut self, work: Work) -> Served {
        let before = self.clock.ns();
        let served = match work {
            Work::Call => self.call(),
            Work::Parcel(parcel) => {
                // This thread has waited: by its old clock the call would be over its time before it began.
                self.clock.turn();
                let mut parcel = *parcel;
                self.draining = parcel.draining;
                parcel.stop_waiting(self.clock.ns());
                self.job.unpack(parcel);
                self.call()
            }
            Work::Advance(answer) => self.advance(answer),
            Work::Drop(answer) => self.abandon(answer),
            Work::Signals => self.handle_signals(),
        };
        match &served {
            Served::Begun(..) => self.streams += 1,
            Served::Ended(_) | Served::Dropped => self.streams -= 1,
            Served::Whole(..) | Served::Step(..) | Served::Handled => {}
        }
        self.note_time(self.clock.ns().saturating_sub(before));
        served
    }

    /// What a thread that lost the loop meanwhile tells its owner.
    /// `rest` says whether the seat has the connection's input.
    pub fn letter(&mut self, token: Token, served: Served, rest: bool) -> Letter {
        let rest = rest.then(|| self.rest().to_vec());
        self.take_in(&[], false);
        self.end_turn();
        let slow = self.clock.ns().saturating_sub(self.job.began) > TICK_NS;
        Letter { from: self.member, token, served, out: std::mem::take(&mut self.out), rest, slow, next: None }
    }

    /// Calls the application with the job in hand.
    fn call(&mut self) -> Served {
        let keeps_alive = self.keeps_alive();
        let job = &mut self.job;
        let Some(link) = job.link.take() else { unreachable!("a job is submitted with its link") };
        job.began = self.clock.ns();
        job.rendered = self.out.len();
        let body = std::mem::take(&mut job.body);
        job.lease = Lease::default();
        let upgrade = if job.framing.upgrade {
            upgrade::offer(job, &self.input, &link, &self.scoreboard, self.slot, self.member)
        } else {
            None
        };
        let bytes = if job.own.is_empty() { &self.input[job.at.clone()] } else { job.own.as_slice() };
        if job.queued > 0 {
            self.scoreboard.slot(self.slot).count_wait(job.queued);
        }
        let calls = self.scoreboard.call(self.slot, self.member.0);
        calls.begin(&facts(&job.head, bytes, &link.peer), job.began);
        let request = Request {
            bytes,
            head: &job.head,
            block: job.block,
            framing: job.framing,
            peer: &link.peer,
            client: link.clone(),
            listener: link.listener,
            persistent: keeps_alive,
            date: self.date.at(self.clock.wall()),
            body,
            upgrade,
        };
        let waits = job.output.is_some();
        let mut outlet = SocketOutlet { link: &link, output: &mut job.output, behind: job.behind, used: false };
        let reply = self.app.call(request, &mut self.out, &mut outlet);
        self.writes |= outlet.used;
        let used = waits || outlet.used;
        calls.end();
        self.clock.tick();
        let output = self.job.output.take();
        let late = link.claim.is_late();
        self.after_call(late);
        match reply {
            Reply::Complete(summary) => {
                if used {
                    link.claim.end();
                }
                if let Some(journal) = self.journal.as_mut().filter(|_| !late) {
                    let job = &self.job;
                    let rendered = &self.out[job.rendered.min(self.out.len())..];
                    let entry = Entry {
                        peer: &link.peer,
                        head: Some((&job.head, job.bytes(&self.input))),
                        status: summary.status,
                        sent: summary.sent,
                        response_head: journal.response_head(rendered),
                        began: Some(job.began),
                        queued: job.queued,
                        environ: self.app.logged(),
                    };
                    journal.record(&entry, &self.clock);
                }
                Served::Whole(output, self.last_fate(summary.fate))
            }
            Reply::Stream(stream) => {
                if self.out.len() > self.job.rendered {
                    link.claim.begin();
                }
                Served::Begun(output, Box::new(Answer::new(stream, link, self)))
            }
        }
    }
}
