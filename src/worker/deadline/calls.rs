//! The deadlines of calls that run without the loop (`--timeout`), one for each time that the application is entered.
//!
//! A call that keeps the loop for longer than a tick loses it, so every call that can be late is in this list, and a quick
//! request never is. The list is checked when the earliest deadline in it has come; with calls of a few milliseconds that happens
//! once in a timeout.

use std::time::Duration;

use crate::sys::time::NS_PER_MS;
use crate::worker::connection::Token;
use crate::worker::threads::thread_id::ThreadId;

/// A poll that returns so much later than planned, in nanoseconds, means that the process stood still (stopped, suspended,
/// without a processor): that time counts for no call.
const STOOD_STILL: u64 = 500_000_000;

/// Pause before the next check of a call that could not be given up in the middle of its write, in milliseconds.
const AGAIN_MS: u64 = 20;

/// A thread that has waited for the interpreter for so long does so because C code keeps it, in milliseconds: Python releases it
/// every 5 ms.
const LOCKED_MS: u64 = 1_000;

/// How far a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CallState {
    /// It runs.
    Running,
    /// The exception was raised in it, at this time in milliseconds.
    Interrupted(u64),
    /// Its client was answered without it.
    Abandoned,
    /// Its request was taken back before it was begun: its thread still waits for the interpreter.
    Withdrawn,
}

#[derive(Debug)]
struct TrackedCall {
    thread: ThreadId,
    token: Token,
    state: CallState,
    /// Since when it is in the list, in milliseconds of the loop's clock.
    since: u64,
    /// Whether its request may still be at the desk of its thread.
    desk: bool,
}

/// A call whose time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overdue {
    /// Its thread.
    pub thread: ThreadId,
    /// Its connection; [`Token::NONE`] for a stream that is dropped.
    pub token: Token,
    /// When it was entered, nanoseconds of the loop's clock: this identifies it, since a thread enters one call at a time.
    pub entered: u64,
    /// What to do.
    pub action: OverdueAction,
}

/// What to do with a call whose time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverdueAction {
    /// Raise the exception in it.
    Interrupt,
    /// Answer without it.
    GiveUp,
}

/// The calls outside of the loop.
#[derive(Debug)]
pub struct Calls {
    /// `--timeout` in milliseconds; `None`: no limit.
    limit: Option<u64>,
    /// `--timeout-grace` in milliseconds; 0: no exception is raised.
    grace: u64,
    tracked: Vec<TrackedCall>,
    /// When to check, in milliseconds of the loop's clock.
    next: u64,
    /// When the process last continued after it had stood still.
    woke: u64,
}

impl Calls {
    /// No calls.
    pub fn new(timeout: Duration, grace: Duration) -> Self {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 4);
        let limit = (!timeout.is_zero()).then(|| ms(timeout));
        Self { limit, grace: ms(grace), tracked: Vec::new(), next: u64::MAX, woke: 0 }
    }

    /// Adds a call that continues without the loop, or is about to begin; `desk`: with the request at its thread's desk.
    pub fn add(&mut self, thread: ThreadId, token: Token, now: u64, desk: bool) {
        self.tracked.push(TrackedCall { thread, token, state: CallState::Running, since: now, desk });
        if let Some(limit) = self.limit {
            self.next = self.next.min(now + limit);
        }
    }

    /// Removes a call that has ended.
    pub fn remove(&mut self, thread: ThreadId, token: Token) {
        // The first of several: a thread may have ended one for this connection and begun another before its completion was read.
        if let Some(index) = self.tracked.iter().position(|call| call.thread == thread && call.token == token) {
            self.tracked.remove(index);
        }
    }

    /// A poll that began at `before` and was to last for `patience` (`None`: for ever) is over; times in nanoseconds.
    #[inline]
    pub fn woken(&mut self, before: u64, patience: Option<Duration>, now: u64) {
        // No call is tracked, so there is nothing to adjust.
        if self.next != u64::MAX
            && now - before > STOOD_STILL
            && patience.is_some_and(|patience| now - before - STOOD_STILL > patience.as_nanos() as u64)
        {
            self.woke = now / NS_PER_MS;
        }
    }

    /// When to check, in milliseconds of the loop's clock; `None`: not before a call begins.
    pub fn next(&self) -> Option<u64> {
        (self.next != u64::MAX).then_some(self.next)
    }

    /// The calls whose time is over; `entered` returns since when a thread is in the application, nanoseconds of the loop's
    /// clock.
    pub fn overdue(&mut self, now: u64, entered: impl Fn(ThreadId) -> Option<u64>) -> Vec<Overdue> {
        let mut found = Vec::new();
        self.next = u64::MAX;
        let Some(limit) = self.limit else { return found };
        for index in 0..self.tracked.len() {
            let (done, rest) = self.tracked.split_at_mut(index + 1);
            let Some(TrackedCall { thread, token, state, .. }) = done.last_mut() else { break };
            // A thread that has begun another call has ended this one; the completion is on its way.
            if matches!(state, CallState::Abandoned | CallState::Withdrawn) || rest.iter().any(|call| call.thread == *thread) {
                continue;
            }
            let Some(entered) = entered(*thread) else {
                // It has not begun yet, has just ended, or has no deadline.
                self.next = self.next.min(now + limit);
                continue;
            };
            let deadline = match *state {
                CallState::Running => (entered / NS_PER_MS).max(self.woke) + limit,
                CallState::Interrupted(at) => at.max(self.woke) + self.grace,
                CallState::Abandoned | CallState::Withdrawn => continue,
            };
            if now < deadline {
                self.next = self.next.min(deadline);
                continue;
            }
            let action = if *state == CallState::Running && self.grace > 0 {
                *state = CallState::Interrupted(now);
                self.next = self.next.min(now + self.grace);
                OverdueAction::Interrupt
            } else {
                self.next = self.next.min(now + AGAIN_MS);
                OverdueAction::GiveUp
            };
            found.push(Overdue { thread: *thread, token: *token, entered, action });
        }
        found
    }

    /// Notes that the client of this call was answered without it.
    pub fn gave_up(&mut self, thread: ThreadId, token: Token) {
        if let Some(call) = self.tracked.iter_mut().rev().find(|call| call.thread == thread && call.token == token) {
            call.state = CallState::Abandoned;
        }
    }

    /// The calls whose requests may be at desks since `before` or longer.
    pub fn on_desks(&self, before: u64) -> Vec<(ThreadId, Token)> {
        self.tracked.iter().filter(|call| call.desk && call.since <= before).map(|call| (call.thread, call.token)).collect()
    }

    /// Whether there are any.
    pub fn has_desks(&self) -> bool {
        self.tracked.iter().any(|call| call.desk)
    }

    /// Notes that its thread has taken the request from its desk.
    pub fn begun(&mut self, thread: ThreadId, token: Token) {
        if let Some(call) = self.tracked.iter_mut().find(|call| call.desk && call.thread == thread && call.token == token) {
            call.desk = false;
        }
    }

    /// Notes that the request was taken back: its thread has nothing to do when it gets the interpreter.
    pub fn took_back(&mut self, thread: ThreadId, token: Token) {
        if let Some(call) = self.tracked.iter_mut().find(|call| call.desk && call.thread == thread && call.token == token) {
            (call.state, call.desk) = (CallState::Withdrawn, false);
        }
    }

    /// Whether no call in the list will continue: all were given up, or their threads wait for the interpreter, which one of
    /// those keeps.
    pub fn is_locked(&self, now: u64) -> bool {
        let stands = |call: &TrackedCall| match call.state {
            CallState::Abandoned | CallState::Withdrawn => true,
            CallState::Running | CallState::Interrupted(_) => call.desk && call.since + LOCKED_MS <= now,
        };
        self.late() > 0 && self.tracked.iter().all(stands)
    }

    /// How many calls that were given up have not ended yet.
    pub fn late(&self) -> usize {
        self.tracked.iter().filter(|call| call.state == CallState::Abandoned).count()
    }

    /// Whether this thread is in such a call.
    pub fn is_late(&self, thread: ThreadId) -> bool {
        self.tracked.iter().any(|call| call.thread == thread && call.state == CallState::Abandoned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: ThreadId = ThreadId::new(0);
    const SECOND: ThreadId = ThreadId::new(1);

    fn token(key: u32) -> Token {
        Token::new(key, 1)
    }

    fn calls(grace: u64) -> Calls {
        Calls::new(Duration::from_millis(1_000), Duration::from_millis(grace))
    }

    /// Checks as if every thread had entered the application at `entered`, in milliseconds.
    fn look(calls: &mut Calls, now: u64, entered: u64) -> Vec<(ThreadId, OverdueAction)> {
        calls.overdue(now, |_| Some(entered * NS_PER_MS)).iter().map(|found| (found.thread, found.action)).collect()
    }

    #[test]
    fn a_call_is_interrupted_at_its_deadline_and_given_up_after_the_grace() {
        let mut calls = calls(200);
        calls.add(FIRST, token(1), 5_001, false);
        assert_eq!(calls.next(), Some(6_001));
        assert_eq!(look(&mut calls, 5_999, 5_000), []);
        assert_eq!(calls.next(), Some(6_000), "by the time that it was entered");
        assert_eq!(look(&mut calls, 6_000, 5_000), [(FIRST, OverdueAction::Interrupt)]);
        assert_eq!((look(&mut calls, 6_199, 5_000), calls.next()), (vec![], Some(6_200)));
        assert_eq!(look(&mut calls, 6_200, 5_000), [(FIRST, OverdueAction::GiveUp)]);
        assert_eq!(look(&mut calls, 6_230, 5_000), [(FIRST, OverdueAction::GiveUp)], "until it could be");
        calls.gave_up(FIRST, token(1));
        assert_eq!((look(&mut calls, 9_000, 5_000), calls.late(), calls.next()), (vec![], 1, None));
        calls.remove(FIRST, token(1));
        assert_eq!(calls.late(), 0);
    }

    #[test]
    fn without_a_grace_it_is_given_up_at_once() {
        let mut calls = calls(0);
        calls.add(FIRST, token(1), 5_000, false);
        assert_eq!(look(&mut calls, 6_000, 5_000), [(FIRST, OverdueAction::GiveUp)]);
    }

    #[test]
    fn what_waits_for_the_interpreter_has_no_deadline_and_counts_as_locked_beside_a_late_call() {
        let mut calls = calls(0);
        calls.add(FIRST, token(1), 0, false);
        calls.add(SECOND, token(2), 0, true);
        let entered = |thread: ThreadId| (thread == FIRST).then_some(1);
        let late = calls.overdue(1_000, entered);
        assert_eq!(late.iter().map(|found| found.token).collect::<Vec<_>>(), [token(1)]);
        assert!(!calls.is_locked(1_000), "no call is given up");
        calls.gave_up(FIRST, token(1));
        assert!(calls.is_locked(1_000) && !calls.is_locked(999), "it has not waited for long");
        assert_eq!(calls.overdue(9_000, entered), []);
        assert_eq!((calls.on_desks(0), calls.has_desks()), (vec![(SECOND, token(2))], true));
        calls.begun(SECOND, token(2));
        assert!(!calls.is_locked(9_000) && !calls.has_desks(), "it runs");
        assert_eq!(calls.overdue(9_000, |_| Some(NS_PER_MS)).len(), 1, "and has a deadline");
    }

    #[test]
    fn a_thread_whose_request_was_taken_back_has_nothing_to_be_late_with() {
        let mut calls = calls(0);
        calls.add(FIRST, token(1), 0, true);
        calls.took_back(FIRST, token(1));
        assert_eq!((look(&mut calls, 9_000, 1), calls.late(), calls.has_desks()), (vec![], 0, false));
        calls.add(SECOND, token(1), 0, false);
        calls.gave_up(SECOND, token(1));
        assert!(calls.is_locked(0));
        calls.remove(FIRST, token(1));
        assert_eq!(calls.late(), 1, "the completion of the first");
    }

    #[test]
    fn without_a_timeout_nothing_is_ever_due() {
        let mut calls = Calls::new(Duration::ZERO, Duration::from_secs(1));
        calls.add(FIRST, token(1), 0, false);
        assert_eq!((calls.next(), look(&mut calls, u64::MAX / 2, 1)), (None, vec![]));
    }

    #[test]
    fn a_thread_is_judged_by_its_last_call_alone() {
        let mut calls = calls(0);
        calls.add(FIRST, token(1), 0, false);
        calls.add(SECOND, token(2), 10, false);
        calls.add(FIRST, token(3), 900, false);
        let found = calls.overdue(1_500, |thread| (thread == FIRST).then_some(900 * NS_PER_MS));
        assert_eq!((found, calls.next()), (vec![], Some(1_900)));
        let found = calls.overdue(1_900, |_| Some(900 * NS_PER_MS));
        assert_eq!(found.iter().map(|found| found.token).collect::<Vec<_>>(), [token(2), token(3)]);
    }

    #[test]
    fn what_passed_while_the_process_stood_still_counts_for_no_call() {
        let mut calls = calls(0);
        calls.add(FIRST, token(1), 5_000, false);
        let mut slept = |from: u64, patience: Option<u64>, to: u64| {
            calls.woken(from * NS_PER_MS, patience.map(Duration::from_millis), to * NS_PER_MS);
            calls.woke
        };
        assert_eq!(slept(5_000, Some(300), 5_700), 0, "late, but not that late");
        assert_eq!(slept(5_000, None, 50_000), 0, "it was to sleep for as long as nothing happens");
        assert_eq!(slept(5_000, Some(1_000), 9_000), 9_000);
        assert_eq!(look(&mut calls, 9_000, 5_000), []);
        assert_eq!(look(&mut calls, 10_000, 5_000), [(FIRST, OverdueAction::GiveUp)]);
    }
}
