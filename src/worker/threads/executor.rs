//! The hybrid executor: quick calls run where the loop runs, slow ones do not hold the loop up.
//!
//! A worker has as many permits as `--threads` says and one thread more. One thread *owns* the loop. When the application is
//! needed, the owner puts the loop on the table (an atomic cell), calls, and takes the loop back: no lock, no allocation. One of
//! the other threads is the *watcher*: it sleeps on a timer that the owner puts off as long as calls are quick. When a call lasts
//! one to two ticks, the timer fires: the watcher takes the loop from the table, is the owner from then on, and serves everybody
//! else. The first thread, back from its call, finds the table empty: it leaves its answer in the owner's completions and joins
//! the idle threads.
//!
//! ```text
//!            ┌──────────── takes the loop ────────────┐
//!            ▼                                        │
//!   Owner ── publish, call, take back ── there ──▶ Owner
//!     │                            └─── gone ──▶ (completion to the owner) ──▶ Idle ──▶ Watcher ──┘
//!     └── hands the loop over ──▶ Idle
//! ```
//!
//! The rules that keep it correct:
//! - The loop is one value in one box. The thread that has the box owns the loop; the table has it only while its owner calls.
//! - `epoch` counts how often the loop was published (put on the table) and taken; it is odd while the loop is on the table. The
//!   thread that changes an odd number to the next one has the loop. So a thread that is back from its call takes the loop back
//!   only if it is the one that has published it, and no other owner has done so meanwhile.
//! - `due` is the time that the timer is set to, or is about to be (0: not set). After publishing a call, when `epoch` is odd,
//!   the owner reads `due`, and sets the timer if it is not set or would fire too early for the call. A thread that has seen the
//!   timer fire takes the loop, or sets the timer again for a call that is too young, or clears `due` and then reads `epoch` once
//!   more. So no call is unwatched: two threads may set the timer to different times, but whenever it fires, one of them checks
//!   again. The timer belongs to the thread group and stays ready until it is cleared: another thread may become the watcher at
//!   any time, and for a while there may be none.
//! - Threads that are in the application without owning the loop are known to the loop itself ([`EventLoop::outside`]), so
//!   this needs no atomics: a taker adds the thread it took the loop from, a completion removes its sender.
//! - As long as fewer threads than permits are outside, an idle thread is left to watch: there is one thread more than permits.
//!   When all permits are taken, the owner does not call at all; complete requests wait in the loop, in order.
//! - Handlers of signals run on the main thread and take no permit. When it owns the loop while all permits are taken, nobody
//!   watches until the first thread is back.
//! - A thread that is back from a call without the loop joins the idle ones before it posts its completion: the owner that reads
//!   it finds a thread for the next request, and need not call itself.
//! - When calls are slow one after the other ([`super::pace`]), the owner stops calling and sends the requests to idle threads by
//!   mail, so that a slow call does not cost a tick each time. It calls itself again when they are quick.
//! - Handlers and the work of streams are mailed to a thread that stays among the idle ones until it reads them, or joins them
//!   only then. The loop has it as outside, so nobody sends it a request that would wait for them ([`ThreadHandle::claim_idle`]).
//! - A stream stays on the thread that began it, and waits while that thread is in another call. So a thread that has streams
//!   begins no other request as long as one with fewer is idle.
//! - With one permit the application stays on the process's main thread: the second thread only does I/O, and gives the loop back
//!   as soon as the main thread is idle.
//! - A thread never waits for the interpreter's lock while it owns the loop: it takes it inside the call, when the loop is on the
//!   table.
//! - A request that begins while others are in the application waits at the desk of its thread ([`super::desk`]) until that
//!   thread has the interpreter: the owner of the loop can take it back until then. A thread that finds its desk empty reports so
//!   in its completion.

use std::io;

use super::completions::Completions;
use super::desk::Desks;
use super::mailbox::{Mail, MailBox};
use super::pace::TICK_NS;
use super::sync::Ordering::{Acquire, Relaxed, Release, SeqCst};
use super::sync::{Arc, AtomicCell, AtomicU64, Mutex, PoisonError, fence};
use super::thread_id::{MAIN, ThreadId, ThreadSet};
use super::wakeup::Wakeups;
use crate::worker::connection::Token;
use crate::worker::ctx::ThreadCtx;
use crate::worker::event_loop::{EventLoop, Step};
use crate::worker::work::{Served, Work};

/// The idle threads.
#[derive(Debug, Default)]
struct Idle {
    watcher: Option<ThreadId>,
    others: Vec<ThreadId>,
}

/// The state that the threads share.
pub struct ThreadGroup {
    table: AtomicCell<Option<Box<EventLoop>>>,
    epoch: AtomicU64,
    /// When the call of this epoch began, in nanoseconds of the watch's clock. Written before the epoch becomes odd.
    began: AtomicU64,
    /// The time that the timer is set to, in the same unit; 0: nobody relies on it.
    due: AtomicU64,
    /// How long before that time a new call puts it off.
    spare: u64,
    watch: Wakeups,
    idle: Mutex<Idle>,
    /// Streams that each thread has begun and not ended. Written by that thread alone, and before it joins the idle ones.
    streams: Vec<AtomicU64>,
    mail: Vec<MailBox>,
    completed: Completions,
    desks: Desks,
}

/// One thread's end of the thread group.
pub struct ThreadHandle {
    group: Arc<ThreadGroup>,
    me: ThreadId,
}

/// How a thread's ownership ended.
enum Parted {
    /// Another thread has the loop; this one is idle already, as the watcher or not (`None`: not yet).
    Lost(Option<bool>),
    /// The worker is done.
    Leave,
}

/// The next role of an idle thread.
enum Wake {
    Owner(Box<EventLoop>),
    Helper(Token, Work),
    Leave,
}

/// What ended a watch.
enum Watched {
    Mail(Mail),
    Taken(Box<EventLoop>),
}

/// How the work for a connection ended.
enum Performed {
    /// The loop is still this thread's.
    Kept(Box<EventLoop>),
    /// Another thread has it; this one is idle, as the watcher or not.
    Lost(bool),
}

/// A thread group of `threads` threads, whose completions go to `completed`; requests for them wait at `desks`.
///
/// `puts_off`: a busy owner puts the timer off before it fires, and the watcher sleeps. Otherwise the timer fires every other
/// tick. Where workers and clients share cores the watcher's wake lets the kernel spread them: without it some of four workers
/// were seen to answer 1.4 to 2 times as many requests as others, for seconds; with it at most 1.3 times as many. It costs 3 to 5
/// %.
///
/// # Errors
/// When there are no descriptors left.
pub fn group(threads: usize, completed: Completions, desks: Desks, puts_off: bool) -> io::Result<Vec<ThreadHandle>> {
    let mail = (0..threads).map(|_| MailBox::default()).collect();
    let group = Arc::new(ThreadGroup {
        table: AtomicCell::new(None),
        epoch: AtomicU64::new(0),
        began: AtomicU64::new(0),
        due: AtomicU64::new(0),
        spare: if puts_off { TICK_NS } else { 0 },
        watch: Wakeups::new(threads)?,
        idle: Mutex::new(Idle::default()),
        streams: (0..threads).map(|_| AtomicU64::new(0)).collect(),
        mail,
        completed,
        desks,
    });
    Ok((0..threads).map(|index| ThreadHandle { group: group.clone(), me: ThreadId::new(index) }).collect())
}

impl ThreadGroup {
    /// Takes the loop that was published in this epoch, unless another thread has.
    fn take(&self, epoch: u64) -> Option<Box<EventLoop>> {
        self.epoch.compare_exchange(epoch, epoch + 1, Acquire, Relaxed).ok()?;
        self.table.take()
    }

    /// Puts the timer off: when it fires, no call that begins now is older than two ticks. It stores `due` first and sets the
    /// timer a moment later. In the reverse order, others would rely on a time that the watcher has already seen pass.
    #[cold]
    fn put_off(&self) {
        let due = self.watch.now() + 2 * TICK_NS;
        self.due.store(due, Relaxed);
        self.watch.set(due);
    }

    /// The timer has fired and is cleared: takes the loop if the call of this epoch has lasted a tick.
    fn look(&self, epoch: u64) -> Option<Box<EventLoop>> {
        if epoch % 2 == 1 {
            let ready = self.began.load(Relaxed) + TICK_NS;
            if self.watch.now() < ready {
                self.due.store(ready, Relaxed);
                self.watch.set(ready);
                return None;
            }
            if let Some(event_loop) = self.take(epoch) {
                // The taker publishes next, or gives the loop to the thread that does.
                self.due.store(0, Relaxed);
                return Some(event_loop);
            }
        }
        self.settle();
        None
    }

    /// The timer is not set: makes the next thread that publishes set it, and sets it here for one that still relies on it.
    fn settle(&self) {
        self.due.store(0, Relaxed);
        fence(SeqCst);
        if self.epoch.load(Relaxed) % 2 == 1 {
            self.put_off();
        }
    }

    fn streams(&self, thread: ThreadId) -> u64 {
        self.streams[thread.index()].load(Relaxed)
    }
}

impl ThreadHandle {
    /// Ends every other thread of the thread group, as a process does by its end.
    #[cfg(test)]
    #[allow(dead_code, reason = "for tests/handover.rs, which runs this file in a model: there each thread must end")]
    pub fn dismiss(&self) {
        (1..self.group.mail.len()).for_each(|index| self.send(ThreadId::new(index), Mail::Leave));
    }

    /// The thread that has this place.
    pub fn thread(&self) -> ThreadId {
        self.me
    }

    /// Works until the worker leaves; the thread that begins as the owner brings the loop. Returns on the main thread only when
    /// the worker leaves, on another only when the loop has failed.
    pub fn work(&self, ctx: &mut ThreadCtx, first: Option<Box<EventLoop>>) -> io::Result<()> {
        let mut first = first.map(Wake::Owner);
        // Whether this thread has joined the idle ones, and as their watcher.
        let mut joined = None;
        loop {
            let wake = match first.take() {
                Some(first) => first,
                None => {
                    ctx.app.release();
                    self.wait(joined.take())?
                }
            };
            match wake {
                Wake::Owner(event_loop) => match self.own(event_loop, ctx)? {
                    Parted::Lost(idle) => joined = idle,
                    Parted::Leave if self.me == MAIN => return Ok(()),
                    Parted::Leave => self.send(MAIN, Mail::Leave),
                },
                Wake::Helper(token, work) => {
                    let served = self.serve(work, ctx);
                    joined = Some(self.post(token, served, false, ctx));
                }
                Wake::Leave => return Ok(()),
            }
        }
    }

    /// Runs the loop until it is lost.
    fn own(&self, mut event_loop: Box<EventLoop>, ctx: &mut ThreadCtx) -> io::Result<Parted> {
        event_loop.own(ctx);
        loop {
            // A loop that fails ends the worker.
            match event_loop.next(ctx).inspect_err(|error| event_loop.close_up(error, ctx))? {
                Step::Work(token, work) => match self.perform(event_loop, token, work, ctx) {
                    Performed::Kept(back) => event_loop = back,
                    Performed::Lost(watching) => return Ok(Parted::Lost(Some(watching))),
                },
                Step::HandOver(thread) => {
                    self.send(thread, Mail::Own(event_loop));
                    return Ok(Parted::Lost(None));
                }
                Step::Leave => return Ok(Parted::Leave),
            }
        }
    }

    /// Works in the application for one connection, as often as it asks for it.
    fn perform(&self, mut event_loop: Box<EventLoop>, token: Token, work: Work, ctx: &mut ThreadCtx) -> Performed {
        let mut next = Some((token, work));
        while let Some((token, work)) = next {
            if let Some(thread) = work.thread().filter(|&thread| thread != self.me) {
                event_loop.send_out(thread, token, ctx);
                self.send(thread, Mail::Help(token, work));
                return Performed::Kept(event_loop);
            }
            let mut work = work;
            // Without memory for it the request stays where it is, and is called there.
            if matches!(work, Work::Call) && self.may_part(&event_loop) && event_loop.detach(token, ctx) {
                if let Some(thread) = self.helper(&event_loop) {
                    event_loop.hand_out(thread, token, ctx);
                    self.send(thread, Mail::Help(token, Work::Desk));
                    return Performed::Kept(event_loop);
                }
                if !event_loop.outside.is_empty() {
                    // One of them may have the interpreter, and keep it.
                    event_loop.keep_back(token, ctx);
                    work = Work::Desk;
                }
            }
            let rest = !matches!(work, Work::Desk);
            event_loop.prepare_publish(token, &work, ctx);
            let epoch = self.publish(event_loop, ctx.clock.ns());
            let served = self.serve(work, ctx);
            let Some(back) = self.group.take(epoch) else {
                return Performed::Lost(self.post(token, served, rest, ctx));
            };
            event_loop = back;
            if !event_loop.outside.is_empty() {
                // The others need the interpreter more than this thread, which reads and writes now.
                ctx.app.release();
            }
            next = event_loop.resume(token, served, rest, ctx);
        }
        Performed::Kept(event_loop)
    }

    /// Does the work, and publishes how many streams this thread has now.
    fn serve(&self, work: Work, ctx: &mut ThreadCtx) -> Served {
        let served = ctx.serve(work, || self.group.desks.take(self.me));
        let streams = &self.group.streams[self.me.index()];
        if streams.load(Relaxed) != ctx.streams {
            streams.store(ctx.streams, Relaxed);
        }
        served
    }

    /// Whether another thread may make the next call, or its request may wait at the desk of this one.
    fn may_part(&self, event_loop: &EventLoop) -> bool {
        !event_loop.outside.is_empty() || event_loop.wants_help() || (event_loop.has_helpers() && self.group.streams(self.me) > 0)
    }

    /// The idle thread that should make the next call instead of this one, if there is one.
    fn helper(&self, event_loop: &EventLoop) -> Option<ThreadId> {
        let own = self.group.streams(self.me);
        if event_loop.wants_help() {
            self.claim_idle(own, &event_loop.outside)
        } else if own > 0 && event_loop.has_helpers() {
            self.claim_idle(own - 1, &event_loop.outside)
        } else {
            None
        }
    }

    /// Puts the loop on the table for a call that begins `now`, by the owner's clock; returns the epoch.
    fn publish(&self, event_loop: Box<EventLoop>, now: u64) -> u64 {
        let group = &self.group;
        group.table.store(Some(event_loop));
        group.began.store(now, Relaxed);
        let epoch = group.epoch.load(Relaxed) + 1;
        group.epoch.store(epoch, Release);
        // The fence is between the odd epoch above and the read of `due` below. The one in `settle` is between the same two in
        // reverse. So one of the two threads sees the other's change.
        fence(SeqCst);
        if group.due.load(Relaxed) <= now + group.spare {
            group.put_off();
        }
        epoch
    }

    fn send(&self, to: ThreadId, mail: Mail) {
        if self.group.mail[to.index()].put(mail) {
            self.group.watch.ring(to);
        }
    }

    /// Joins the idle threads and reports the result to the loop; returns whether this thread is their watcher.
    fn post(&self, token: Token, served: Served, rest: bool, ctx: &mut ThreadCtx) -> bool {
        let completion = ctx.completion(token, served, rest);
        // Others may wait for the interpreter.
        ctx.app.release();
        let watching = self.join_idle();
        self.group.completed.post(completion);
        watching
    }

    /// Waits until this thread is needed; it may have joined the idle ones already.
    fn wait(&self, joined: Option<bool>) -> io::Result<Wake> {
        let mut watching = joined.unwrap_or_else(|| self.join_idle());
        loop {
            let watched = if watching { self.watch()? } else { Watched::Mail(self.group.mail[self.me.index()].wait()) };
            match watched {
                Watched::Mail(Mail::Watch) => watching = self.is_watcher(),
                Watched::Mail(Mail::Own(event_loop)) => {
                    self.leave_idle();
                    return Ok(Wake::Owner(event_loop));
                }
                Watched::Mail(Mail::Help(token, work)) => {
                    self.leave_idle();
                    return Ok(Wake::Helper(token, work));
                }
                Watched::Mail(Mail::Leave) => return Ok(Wake::Leave),
                Watched::Taken(mut event_loop) => {
                    self.leave_idle();
                    event_loop.lost_loop();
                    return Ok(Wake::Owner(event_loop));
                }
            }
        }
    }

    /// Waits for mail and for a call that lasts.
    fn watch(&self) -> io::Result<Watched> {
        let group = &self.group;
        let mut fired = false;
        loop {
            // The epoch is read first, then the mail: a thread that sends this one away owns the loop, and publishes it in a
            // later epoch.
            let epoch = group.epoch.load(Acquire);
            if let Some(mail) = group.mail[self.me.index()].look() {
                return Ok(Watched::Mail(mail));
            }
            if fired
                && group.watch.clear()?
                && let Some(event_loop) = group.look(epoch)
            {
                return Ok(Watched::Taken(event_loop));
            }
            fired = group.watch.wait(self.me)?;
        }
    }

    /// Whether it still is the watcher: between the mail and its reading another thread may have replaced it.
    fn is_watcher(&self) -> bool {
        self.group.idle.lock().unwrap_or_else(PoisonError::into_inner).watcher == Some(self.me)
    }

    /// Joins the idle threads; returns whether this one is their watcher.
    fn join_idle(&self) -> bool {
        let mut idle = self.group.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.watcher.is_none() {
            idle.watcher = Some(self.me);
            return true;
        }
        idle.others.push(self.me);
        false
    }

    /// Takes a thread with the fewest streams, and not more than `most`, out of the idle ones, the watcher last: without the loop
    /// on the table there is nothing to watch, and the next thread that becomes idle watches again.
    ///
    /// One that is `outside` has work in its mail, or its completion is not read yet. As many others as there are free permits
    /// are idle or about to be.
    fn claim_idle(&self, most: u64, outside: &ThreadSet) -> Option<ThreadId> {
        let mut idle = self.group.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let streams = |thread: ThreadId| self.group.streams(thread);
        let is_free = |thread: &ThreadId| !outside.contains(*thread);
        let best = match idle.others.iter().rposition(is_free) {
            Some(last) if streams(idle.others[last]) > 0 => {
                (0..=last).filter(|&index| is_free(&idle.others[index])).min_by_key(|&index| streams(idle.others[index]))
            }
            other => other,
        };
        if let Some(index) = best.filter(|&index| streams(idle.others[index]) <= most) {
            return Some(idle.others.swap_remove(index));
        }
        idle.watcher.take_if(|watcher| is_free(watcher) && streams(*watcher) <= most)
    }

    /// Leaves the idle threads; another becomes the watcher if this one was.
    fn leave_idle(&self) {
        let mut idle = self.group.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.watcher == Some(self.me) {
            idle.watcher = idle.others.pop();
            if let Some(next) = idle.watcher {
                self.send(next, Mail::Watch);
            }
        } else {
            idle.others.retain(|&thread| thread != self.me);
        }
    }
}
