//! Which workers make no progress: pure, from what the scoreboard shows and the time.
//!
//! A call of the application has its deadline from the moment it was entered. The worker's own loop looks after that, as long as
//! it runs: at the deadline it is asked for a sign, and ended when it gives none. A worker outside of the application shows by
//! its loop's beat that it makes progress; the loop of an idle worker sleeps, so one that has been quiet for a while is woken by
//! a ping first, and has half of the timeout to answer. Times are nanoseconds of CLOCK_MONOTONIC, which stands still while the
//! machine is suspended. What passed before the master itself woke up late counts for nobody: then everything stood still.

use std::collections::HashMap;
use std::time::Duration;

use super::event::{Hang, SlotIndex};

/// Shortest and longest time without a sign until a worker is pinged.
const QUIET_MIN: Duration = Duration::from_millis(100);
const QUIET_MAX: Duration = Duration::from_secs(10);

/// How long a worker has to give a sign at the deadline of a call, in nanoseconds: its loop answers within a few milliseconds
/// when it is there and the machine is not worn out. It is asked twice: where everything stands still for a moment, the master
/// may be the first to run again, and finds the first question unanswered.
const ANSWER: u64 = 250_000_000;

/// What can be seen of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When each call that runs was entered.
    pub calls: Vec<u64>,
    /// When its loop last went round.
    pub beat: u64,
    /// Requests that it has served.
    pub served: u64,
    /// Whether its loop should go round: not while it leaves, when the application's exit handlers run.
    pub loops: bool,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Look again at this time.
    Later(u64),
    /// Wake its loop, and look again at this time.
    Ping(u64),
    /// It makes no progress.
    Stuck(Hang),
}

/// What was seen of a worker before.
#[derive(Clone, Copy, Debug)]
struct WorkerHistory {
    /// When it last showed progress.
    sign: u64,
    served: u64,
    /// When it was pinged since then.
    pinged: Option<u64>,
    /// Whether that ping, at the deadline of a call, was the second one.
    again: bool,
}

/// The looks of the past.
#[derive(Debug, Default)]
pub struct HealthWatch {
    rows: HashMap<SlotIndex, WorkerHistory>,
    /// When the master woke up late.
    woke: u64,
}

impl HealthWatch {
    /// A new worker is watched from now on.
    pub fn begin(&mut self, slot: SlotIndex, now: u64) {
        self.rows.insert(slot, WorkerHistory { sign: now, served: 0, pinged: None, again: false });
    }

    /// The worker is gone.
    pub fn end(&mut self, slot: SlotIndex) {
        self.rows.remove(&slot);
    }

    /// The master has just woken up late.
    pub fn overslept(&mut self, now: u64) {
        self.woke = now;
        for row in self.rows.values_mut() {
            row.pinged = None;
        }
    }

    /// Judges a worker; `None` for one that is not watched.
    pub fn judge(&mut self, slot: SlotIndex, timeout: Duration, look: &Sample, now: u64) -> Option<Verdict> {
        let limit = nanos(timeout);
        let row = self.rows.get_mut(&slot)?;
        // The worker writes these times: one that is still to come is no better than now.
        let beat = look.beat.min(now);
        let first = look.calls.iter().map(|&entered| entered.min(now).max(self.woke)).min();
        let quiet = nanos((timeout / 4).clamp(QUIET_MIN, QUIET_MAX));
        if let Some(deadline) = first.map(|entered| entered + limit).filter(|deadline| *deadline <= now) {
            return Some(row.judge_overdue(deadline, beat, (timeout, quiet), now));
        }
        if first.is_some() || look.served != row.served {
            (row.sign, row.served) = (now, look.served);
        }
        let sign = row.sign.max(beat).max(self.woke);
        if row.pinged.is_some_and(|pinged| pinged <= sign) {
            row.pinged = None;
        }
        // A call that begins right after this look is seen before its deadline.
        let next_call = first.unwrap_or(now) + limit;
        if !look.loops {
            return Some(Verdict::Later(next_call.min(now + quiet)));
        }
        let verdict = match row.pinged {
            None if now >= sign + quiet => {
                row.pinged = Some(now);
                Verdict::Ping(next_call.min((sign + limit).max(now + limit / 2)))
            }
            None => Verdict::Later(next_call.min(sign + quiet)),
            Some(pinged) if now >= (sign + limit).max(pinged + limit / 2) => Verdict::Stuck(Hang::Silent(timeout)),
            Some(pinged) => Verdict::Later(next_call.min((sign + limit).max(pinged + limit / 2))),
        };
        Some(verdict)
    }
}

impl WorkerHistory {
    /// Judges a worker with a call that is over its deadline.
    fn judge_overdue(&mut self, deadline: u64, beat: u64, (timeout, quiet): (Duration, u64), now: u64) -> Verdict {
        match self.pinged.filter(|pinged| *pinged >= deadline) {
            Some(pinged) if beat >= pinged && now < pinged + quiet => Verdict::Later(pinged + quiet),
            Some(pinged) if beat < pinged && now < pinged + ANSWER => Verdict::Later(pinged + ANSWER),
            Some(pinged) if beat < pinged && self.again => Verdict::Stuck(Hang::Call(timeout)),
            asked => {
                self.again = asked.is_some_and(|pinged| beat < pinged);
                self.pinged = Some(now);
                Verdict::Ping(now + ANSWER)
            }
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const TIMEOUT: Duration = Duration::from_secs(8);
    const SLOT: SlotIndex = SlotIndex(0);

    fn idle(beat: u64, served: u64) -> Sample {
        Sample { calls: Vec::new(), beat: beat * SECOND, served, loops: true }
    }

    fn calling(entered: u64) -> Sample {
        Sample { calls: vec![entered * SECOND], ..idle(0, 0) }
    }

    /// Watched since second 100.
    fn watch() -> HealthWatch {
        let mut watch = HealthWatch::default();
        watch.begin(SLOT, 100 * SECOND);
        watch
    }

    fn judge(watch: &mut HealthWatch, look: &Sample, second: u64) -> Verdict {
        watch.judge(SLOT, TIMEOUT, look, second * SECOND).expect("it is watched")
    }

    #[test]
    fn a_call_is_ended_at_its_deadline_and_not_before() {
        let mut watch = watch();
        assert_eq!(judge(&mut watch, &calling(101), 105), Verdict::Later(107 * SECOND), "the next quiet look comes first");
        assert_eq!(judge(&mut watch, &calling(101), 108), Verdict::Later(109 * SECOND));
        assert_eq!(judge(&mut watch, &calling(101), 109), Verdict::Ping(109 * SECOND + ANSWER));
        assert_eq!(judge(&mut watch, &calling(101), 110), Verdict::Ping(110 * SECOND + ANSWER));
        assert_eq!(judge(&mut watch, &calling(101), 111), Verdict::Stuck(Hang::Call(TIMEOUT)));
    }

    #[test]
    fn an_answer_to_the_second_question_is_one() {
        let mut watch = watch();
        judge(&mut watch, &calling(101), 109);
        judge(&mut watch, &calling(101), 110);
        let answered = Sample { calls: vec![101 * SECOND], ..idle(110, 0) };
        assert_eq!(judge(&mut watch, &answered, 111), Verdict::Later(112 * SECOND));
        assert_eq!(judge(&mut watch, &answered, 112), Verdict::Ping(112 * SECOND + ANSWER));
        assert_eq!(judge(&mut watch, &answered, 113), Verdict::Ping(113 * SECOND + ANSWER), "it is asked twice each time");
        assert_eq!(judge(&mut watch, &answered, 114), Verdict::Stuck(Hang::Call(TIMEOUT)));
    }

    #[test]
    fn a_loop_that_goes_round_at_the_deadline_is_left_to_deal_with_it() {
        let mut watch = watch();
        let look = |beat: u64| Sample { calls: vec![101 * SECOND], ..idle(beat, 0) };
        assert_eq!(judge(&mut watch, &look(108), 109), Verdict::Ping(109 * SECOND + ANSWER));
        assert_eq!(judge(&mut watch, &look(110), 110), Verdict::Later(111 * SECOND));
        assert_eq!(judge(&mut watch, &look(110), 111), Verdict::Ping(111 * SECOND + ANSWER), "and looked at again");
        assert_eq!(judge(&mut watch, &look(111), 113), Verdict::Ping(113 * SECOND + ANSWER));
        judge(&mut watch, &look(111), 114);
        assert_eq!(judge(&mut watch, &look(111), 115), Verdict::Stuck(Hang::Call(TIMEOUT)), "until it does not any more");
    }

    #[test]
    fn one_of_many_calls_is_enough() {
        let look = Sample { calls: vec![108 * SECOND, 101 * SECOND], ..idle(108, 9) };
        let mut watch = watch();
        judge(&mut watch, &look, 109);
        judge(&mut watch, &look, 110);
        assert_eq!(judge(&mut watch, &look, 111), Verdict::Stuck(Hang::Call(TIMEOUT)));
    }

    #[test]
    fn an_idle_worker_is_pinged_and_lives_on_when_it_answers() {
        let mut watch = watch();
        assert_eq!(judge(&mut watch, &idle(100, 0), 101), Verdict::Later(102 * SECOND));
        assert_eq!(judge(&mut watch, &idle(100, 0), 102), Verdict::Ping(108 * SECOND));
        assert_eq!(judge(&mut watch, &idle(103, 0), 104), Verdict::Later(105 * SECOND));
        assert_eq!(judge(&mut watch, &idle(103, 0), 105), Verdict::Ping(111 * SECOND));
    }

    #[test]
    fn a_stopped_worker_is_found_within_the_timeout_of_its_last_sign() {
        let mut watch = watch();
        assert_eq!(judge(&mut watch, &idle(100, 0), 102), Verdict::Ping(108 * SECOND));
        assert_eq!(judge(&mut watch, &idle(100, 0), 107), Verdict::Later(108 * SECOND));
        assert_eq!(judge(&mut watch, &idle(100, 0), 108), Verdict::Stuck(Hang::Silent(TIMEOUT)));
    }

    #[test]
    fn whoever_serves_goes_on_even_if_the_turn_is_long() {
        let mut watch = watch();
        for second in 101..140 {
            let verdict = judge(&mut watch, &idle(100, second), second);
            assert!(matches!(verdict, Verdict::Later(_)), "{second}: {verdict:?}");
        }
    }

    #[test]
    fn a_ping_that_comes_late_leaves_half_of_the_timeout() {
        let mut watch = watch();
        assert_eq!(judge(&mut watch, &idle(100, 0), 150), Verdict::Ping(154 * SECOND));
        assert_eq!(judge(&mut watch, &idle(100, 0), 153), Verdict::Later(154 * SECOND));
        assert_eq!(judge(&mut watch, &idle(100, 0), 154), Verdict::Stuck(Hang::Silent(TIMEOUT)));
    }

    #[test]
    fn what_stood_still_with_the_master_is_not_judged_for_it() {
        let mut watch = watch();
        judge(&mut watch, &idle(100, 0), 102);
        watch.overslept(500 * SECOND);
        assert_eq!(judge(&mut watch, &idle(100, 0), 500), Verdict::Later(502 * SECOND));
        assert_eq!(judge(&mut watch, &calling(101), 507), Verdict::Later(508 * SECOND));
        assert_eq!(judge(&mut watch, &calling(101), 508), Verdict::Ping(508 * SECOND + ANSWER));
        judge(&mut watch, &calling(101), 509);
        assert_eq!(judge(&mut watch, &calling(101), 510), Verdict::Stuck(Hang::Call(TIMEOUT)));
    }

    #[test]
    fn a_leaving_worker_is_judged_by_its_calls_alone() {
        let mut watch = watch();
        let leaving = Sample { loops: false, ..idle(100, 0) };
        assert!(matches!(judge(&mut watch, &leaving, 300), Verdict::Later(_)));
        let calling = Sample { loops: false, ..calling(101) };
        assert!(matches!(judge(&mut watch, &calling, 301), Verdict::Ping(_)));
        judge(&mut watch, &calling, 302);
        assert_eq!(judge(&mut watch, &calling, 303), Verdict::Stuck(Hang::Call(TIMEOUT)));
    }

    #[test]
    fn times_to_come_are_no_better_than_now_and_overflow_nothing() {
        let mut watch = watch();
        for second in 101..140 {
            for time in [second + 1_000_000, u64::MAX, u64::MAX - 1, u64::MAX / 2] {
                for look in [calling(0), idle(0, 0)] {
                    let calls = look.calls.iter().map(|_| time).collect();
                    judge(&mut watch, &Sample { calls, beat: time, ..look }, second);
                }
            }
        }
        let mut honest = super::tests::watch();
        let lying = Sample { beat: u64::MAX, ..idle(0, 0) };
        judge(&mut honest, &lying, 101);
        judge(&mut honest, &idle(0, 0), 110);
        assert!(matches!(judge(&mut honest, &idle(0, 0), 140), Verdict::Stuck(Hang::Silent(_))), "it has stopped since");
    }

    #[test]
    fn nobody_is_judged_before_being_watched_or_after() {
        let mut watch = watch();
        assert_eq!(watch.judge(SlotIndex(1), TIMEOUT, &calling(1), 500 * SECOND), None);
        watch.end(SLOT);
        assert_eq!(watch.judge(SLOT, TIMEOUT, &calling(1), 500 * SECOND), None);
    }
}
