//! A piece of work in the application, from its begin to its log line.

use crate::http::head::HeadView;
use crate::http::terms::Terms;
use crate::log::access::Record;
use crate::scoreboard::RequestFacts;

use crate::worker::app::{Peer, Reply, Request};
use crate::worker::body::spool::Lease;
use crate::worker::connection::Token;
use crate::worker::ctx::ThreadCtx;
use crate::worker::hijack;
use crate::worker::job::QueuedRequest;
use crate::worker::kept::Kept;
use crate::worker::send::outlet::SocketOutlet;
use crate::worker::streaming::Streaming;
use crate::worker::threads::pace::TICK_NS;
use crate::worker::work::{Completion, Served, Work};

/// The facts about a request for the flight recorder.
#[inline(always)] // a call of its own would cost each request 15 instructions
pub(in crate::worker) fn facts<'a>(head: HeadView<'a>, peer: &'a Peer) -> RequestFacts<'a> {
    RequestFacts { line: head.line(), client: head.client().unwrap_or(peer.addr.as_bytes()), id: head.request_id() }
}

impl ThreadCtx {
    /// Does a piece of work in the application, from its begin to its log line.
    /// `desk` takes the request from the thread's desk.
    pub fn serve(&mut self, work: Work, desk: impl FnOnce() -> Option<Box<QueuedRequest>>) -> Served {
        self.unblock_sigpipe();
        let before = self.clock.ns();
        let served = match work {
            Work::Call => self.call(),
            Work::Desk => {
                // The wait for the interpreter is no part of the call, whose time begins after it.
                self.app.enter();
                self.clock.tick();
                self.serve_queued(desk())
            }
            Work::Advance(answer) => self.advance(answer),
            Work::Drop(answer) => self.abandon(answer),
            Work::Signals => self.handle_signals(),
        };
        match &served {
            Served::Begun(..) => self.streams += 1,
            Served::Ended(..) | Served::Dropped => self.streams -= 1,
            Served::Whole(..) | Served::Produced(..) | Served::Handled | Served::Gone | Served::Withdrawn => {}
        }
        self.send.note_time(self.clock.ns().saturating_sub(before));
        served
    }

    fn serve_queued(&mut self, queued: Option<Box<QueuedRequest>>) -> Served {
        let Some(mut queued) = queued else {
            self.job.began = self.clock.ns();
            return Served::Withdrawn;
        };
        self.draining = queued.draining;
        queued.leave_desk(self.clock.ns());
        self.job.unpack(queued);
        self.call()
    }

    /// The completion of a thread that lost the loop meanwhile, for its owner. `rest`: the thread context has the connection's
    /// input.
    pub fn completion(&mut self, token: Token, served: Served, rest: bool) -> Completion {
        let rest = (rest && self.input.has_rest()).then(|| Kept::rest(self.input.rest(), &self.memory));
        let out = std::mem::take(&mut self.out);
        self.input.forget();
        self.end_iteration();
        let slow = self.clock.ns().saturating_sub(self.job.began) > TICK_NS;
        let spare = self.job.spare.take();
        Completion { from: self.thread, token, served, out, rest, spare, slow }
    }

    /// Whether the client of the request in hand, which has waited, is certainly gone; the request is logged then. The client of
    /// a request that has not waited is not checked, which saves a system call.
    #[cold]
    fn is_deserted(&mut self) -> bool {
        let gone = self.job.link.as_ref().is_some_and(|link| link.is_reset());
        if gone {
            self.job.began = self.clock.ns();
            self.forget_job();
        }
        gone
    }

    /// Calls the application with the job in hand.
    fn call(&mut self) -> Served {
        if self.job.waited && self.is_deserted() {
            return Served::Gone;
        }
        let Some(link) = self.job.link.take() else { unreachable!("a job is submitted with its link") };
        let (keeps_alive, wants_head) = (self.keeps_alive(&link), self.wants_response_head());
        let job = &mut self.job;
        job.began = self.clock.ns();
        job.rendered = self.out.len();
        let body = std::mem::take(&mut job.body);
        job.lease = Lease::default();
        let upgrade = if job.framing.upgrade {
            hijack::offer(job, self.input.bytes(), &link, &self.scoreboard, self.slot, self.thread)
        } else {
            None
        };
        let (at, began) = (job.at.clone(), job.began);
        // The fields are borrowed one by one: the call reads some and writes to others.
        let queued: &mut QueuedRequest = job;
        let bytes = if queued.own.is_empty() { &self.input.bytes()[at] } else { queued.own.as_slice() };
        let calls = self.scoreboard.call(self.slot, self.thread.index());
        let view = HeadView { head: &queued.head, bytes };
        calls.begin(&facts(view, &link.peer), began);
        if self.journal.is_some() {
            self.alarms[self.thread.index()].note_request(view, began, queued.queued);
        }
        if queued.queued > 0 {
            calls.counters().count_wait(queued.queued);
        }
        if !body.is_empty() {
            calls.counters().count_received(body.len());
        }
        let request = Request {
            bytes,
            head: &queued.head,
            block: queued.block,
            framing: queued.framing,
            peer: &link.peer,
            tls: link.stream.facts(),
            client: link.clone(),
            listener: link.listener(),
            terms: Terms { persistent: keeps_alive && queued.terms.persistent, ..queued.terms },
            date: self.date.at(self.clock.wall()),
            body,
            upgrade,
        };
        let mut sent_head = Vec::new();
        let mut outlet = SocketOutlet {
            link: &link,
            passage: &self.passage,
            output: &mut queued.output,
            behind: queued.behind,
            used: false,
            coalescing: None,
            head: wants_head.then_some(&mut sent_head),
        };
        let reply = self.app.call(request, &mut self.out, &mut outlet);
        self.send.writes |= outlet.used;
        self.clock.tick();
        calls.end(self.clock.ns());
        let output = self.job.output.take();
        let late = match &reply {
            Reply::Complete(_) => !link.claim.complete(),
            Reply::Blocks(_) => link.claim.is_late(),
        };
        if let (Reply::Complete(summary), false) = (&reply, late) {
            calls.counters().count_answer(summary.status, summary.sent);
            calls.counters().count_duration(self.clock.ns() - began);
            if summary.failed {
                self.scoreboard.slot(self.slot).count_exception();
            }
        }
        self.after_call(late);
        match reply {
            Reply::Complete(summary) => {
                if let Some(journal) = self.journal.as_mut().filter(|_| !late) {
                    let job = &self.job;
                    let response_head = match sent_head.as_slice() {
                        [] => journal.response_head(&self.out, summary.head),
                        sent => sent,
                    };
                    let record = Record {
                        peer: link.peer.addr.as_bytes(),
                        socket: link.peer.socket(),
                        head: Some(job.view(self.input.bytes())),
                        id: &[],
                        status: summary.status,
                        sent: summary.sent,
                        response_head,
                        timing: self.clock.timing(Some(job.began), job.queued),
                        environ: self.app.logged(),
                    };
                    journal.record(record);
                }
                Served::Whole(output, self.last_fate(summary.fate))
            }
            Reply::Blocks(stream) => {
                if self.out.len() > self.job.rendered {
                    link.claim.begin();
                }
                Served::Begun(output, Box::new(Streaming::new((stream, sent_head), link, self)))
            }
        }
    }
}
