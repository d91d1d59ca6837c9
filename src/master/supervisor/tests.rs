//! One rule of the policy per test; the invariants over random histories are in `tests/supervisor_properties.rs`.

use super::super::event::ReloadFailure;
use super::*;
use crate::channel::BootError;

mod causes;
mod changes;
mod upgrade;

const GRACEFUL: Duration = Duration::from_secs(30);
const BOOT_TIMEOUT: Duration = Duration::from_secs(60);
const CAPACITY: usize = 20;
const FIRST: Generation = Generation(1);
const SECOND: Generation = Generation(2);
const CRASH: Exit = Exit::Signal { number: 11, core: true };

/// A server under test, and its time.
struct Server {
    supervisor: Supervisor,
    now: Instant,
}

impl Server {
    /// Started, nobody ready yet.
    fn starting(workers: usize) -> Self {
        Self::with(policy(workers))
    }

    /// Started with this policy.
    fn with(policy: Policy) -> Self {
        let mut server = Self { supervisor: Supervisor::new(policy, CAPACITY), now: Instant::now() };
        let forks: Vec<_> = (0..policy.workers).map(fork).collect();
        assert_eq!(server.event(Event::Start), forks);
        server
    }

    /// Everybody is ready.
    fn serving(workers: usize) -> Self {
        Self::serving_with(policy(workers))
    }

    fn serving_with(policy: Policy) -> Self {
        let mut server = Self::with(policy);
        for index in 0..policy.workers {
            server.ready(index);
        }
        server
    }

    /// A reload whose canary, in the place behind the workers, boots.
    fn reloading(policy: Policy) -> Self {
        let mut server = Self::serving_with(policy);
        assert_eq!(server.asked(OperatorRequest::Reload), [Action::Tell(Note::Reloading(SECOND)), Action::Read(SECOND)]);
        assert_eq!(server.event(Event::Read(Ok(policy))), [Action::Fork(SlotIndex(policy.workers), SECOND)]);
        server
    }

    /// A worker that was told to leave does so.
    fn leaves(&mut self, slot: usize) -> Vec<Action> {
        assert_eq!(self.report(slot, Report::Draining), []);
        self.ended(slot, Exit::Code(0))
    }

    fn event(&mut self, event: Event) -> Vec<Action> {
        self.supervisor.handle(event, self.now)
    }

    fn asked(&mut self, request: OperatorRequest) -> Vec<Action> {
        self.event(Event::Asked(request))
    }

    fn report(&mut self, slot: usize, report: Report) -> Vec<Action> {
        self.event(Event::Reported { slot: SlotIndex(slot), report })
    }

    fn ready(&mut self, slot: usize) -> Vec<Action> {
        self.report(slot, Report::Ready("Python 3.11.7".into()))
    }

    /// A worker ends that no client had reached.
    fn ended(&mut self, slot: usize, exit: Exit) -> Vec<Action> {
        self.event(Event::Ended { slot: SlotIndex(slot), exit, reached: false })
    }

    /// A worker crashes that a client had reached.
    fn crashed(&mut self, slot: usize) -> Vec<Action> {
        self.event(Event::Ended { slot: SlotIndex(slot), exit: CRASH, reached: true })
    }

    fn after(&mut self, time: Duration) -> Vec<Action> {
        self.now += time;
        self.event(Event::Tick)
    }

    /// How long until the next deadline.
    fn wait(&self) -> Option<Duration> {
        self.supervisor.next_deadline().map(|at| at.saturating_duration_since(self.now))
    }

    /// Lets a replacement fail to boot; returns the pause before the next one.
    fn fail_boot(&mut self, slot: usize) -> Duration {
        self.report(slot, Report::BootFailed(app_error()));
        self.ended(slot, Exit::Code(4));
        let wait = self.wait().expect("it is tried again");
        assert_eq!(self.after(wait), [fork(slot)]);
        wait
    }
}

fn policy(workers: usize) -> Policy {
    Policy { workers, graceful_timeout: GRACEFUL, boot_timeout: Some(BOOT_TIMEOUT), surge: 1, max_age: None }
}

fn fork(slot: usize) -> Action {
    Action::Fork(SlotIndex(slot), FIRST)
}

fn retire(slot: usize) -> Action {
    Action::Order(SlotIndex(slot), Order::Retire)
}

fn reload_failed(why: ReloadFailure) -> [Action; 2] {
    [Action::Tell(Note::ReloadFailed { failed: SECOND, why, serves: FIRST }), Action::Discard(SECOND)]
}

fn app_error() -> BootError {
    BootError { app: true, text: "cannot load app: no module named app".into() }
}

/// What a stop begins with: the note, the end of listening, the orders.
fn stop(order: Order, slots: &[usize]) -> Vec<Action> {
    let first = [Action::Tell(Note::Stopping(order)), Action::StopListening];
    first.into_iter().chain(orders(order, slots)).collect()
}

fn died(slot: usize, exit: Exit) -> Action {
    Action::Tell(Note::Died { slot: SlotIndex(slot), exit, booting: false, fatal: false })
}

fn orders(order: Order, slots: &[usize]) -> Vec<Action> {
    slots.iter().map(|&slot| Action::Order(SlotIndex(slot), order)).collect()
}

fn kills(slots: &[usize]) -> Vec<Action> {
    slots.iter().flat_map(|&slot| [Action::Tell(Note::Killing(SlotIndex(slot))), Action::Kill(SlotIndex(slot))]).collect()
}

fn with(first: Action, rest: Vec<Action>) -> Vec<Action> {
    std::iter::once(first).chain(rest).collect()
}

#[test]
fn readiness_is_told_once_and_when_the_last_worker_is_ready() {
    let mut server = Server::starting(3);
    assert_eq!(server.ready(2), []);
    assert_eq!(server.ready(0), []);
    assert_eq!(server.ready(1), [Action::NotifyReady]);
    assert_eq!(server.ready(1), []);
    server.ended(1, CRASH);
    assert_eq!(server.ready(1), []);
    assert_eq!(server.wait(), None, "a healthy server has nothing to wait for");
}

#[test]
fn a_crashed_worker_is_replaced_in_its_slot_at_once() {
    let mut server = Server::serving(4);
    assert_eq!(server.ended(2, CRASH), [died(2, CRASH), fork(2)]);
}

#[test]
fn a_worker_that_leaves_by_itself_is_replaced_and_is_no_error() {
    let mut server = Server::serving(2);
    assert_eq!(server.report(1, Report::Draining), [Action::Tell(Note::Left(SlotIndex(1))), fork(2)]);
    assert_eq!(server.ended(1, Exit::Code(0)), []);
}

#[test]
fn workers_that_leave_by_themselves_again_and_again_meet_pauses_and_a_bound() {
    let mut server = Server::serving(2);
    server.report(1, Report::Draining);
    server.ready(2);
    let left = |slot| Action::Tell(Note::Left(SlotIndex(slot)));
    let pause = Action::Tell(Note::Pause { slot: SlotIndex(3), wait: BACKOFF_FIRST });
    assert_eq!(server.report(2, Report::Draining), [left(2), pause, Action::Tell(Note::Degraded { ready: 1, wanted: 2 })]);
    assert_eq!(server.after(BACKOFF_FIRST), [fork(3)]);
    server.ready(3);
    assert_eq!(server.report(3, Report::Draining), [left(3)], "there are twice as many as are wanted");
    assert_eq!(server.ended(1, Exit::Code(0)), []);
    let pause = Action::Tell(Note::Pause { slot: SlotIndex(3), wait: 2 * BACKOFF_FIRST });
    assert_eq!(server.ended(3, Exit::Code(0))[0], pause);
    assert_eq!(server.after(2 * BACKOFF_FIRST), [fork(3)]);
}

#[test]
fn a_worker_that_was_well_and_leaves_by_itself_is_replaced_at_once_each_time() {
    let mut server = Server::serving(2);
    for (old, new) in [(1, 2), (2, 1), (1, 2)] {
        server.after(HEALTHY_AFTER);
        assert_eq!(server.report(old, Report::Draining), [Action::Tell(Note::Left(SlotIndex(old))), fork(new)]);
        server.ready(new);
        server.ended(old, Exit::Code(0));
    }
}

#[test]
fn a_worker_that_does_not_end_when_it_is_killed_is_replaced_elsewhere_and_not_waited_for() {
    let mut server = Server::serving(2);
    let broken = Event::Broken { slot: SlotIndex(0), breach: Breach::OutOfOrder };
    assert_eq!(server.event(broken).last(), Some(&Action::Kill(SlotIndex(0))));
    assert_eq!(server.wait(), Some(KILL_GRACE));
    assert_eq!(server.after(KILL_GRACE), [Action::Tell(Note::Lost(SlotIndex(0))), fork(2)]);
    server.ready(2);
    assert_eq!(server.wait(), None);
    server.asked(OperatorRequest::Stop);
    assert_eq!(server.ended(1, Exit::Code(0)), []);
    assert_eq!(server.ended(2, Exit::Code(0)), [Action::Exit(code::OK)]);
}

#[test]
fn a_lost_worker_that_ends_after_all_gives_its_place_back() {
    let mut server = Server::serving(1);
    server.event(Event::Stuck { slot: SlotIndex(0), hang: Hang::Call(GRACEFUL) });
    assert_eq!(server.after(ABORT_GRACE), [Action::Kill(SlotIndex(0))]);
    assert_eq!(server.after(KILL_GRACE), [Action::Tell(Note::Lost(SlotIndex(0))), fork(1)]);
    server.ready(1);
    assert_eq!(server.ended(0, CRASH), []);
    assert_eq!(
        server.ended(1, CRASH)[1..],
        [
            Action::Tell(Note::Pause { slot: SlotIndex(1), wait: BACKOFF_FIRST }),
            Action::Tell(Note::Degraded { ready: 0, wanted: 1 })
        ]
    );
}

#[test]
fn a_breach_counts_as_a_crash_by_a_client_that_had_reached_the_worker() {
    for (reached, pause) in [(true, false), (false, true)] {
        let mut server = Server::serving(4);
        for round in 0..2 {
            server.event(Event::Broken { slot: SlotIndex(0), breach: Breach::OutOfOrder });
            let exit = Exit::Signal { number: 9, core: false };
            let actions = server.event(Event::Ended { slot: SlotIndex(0), exit, reached });
            assert_eq!(actions.contains(&fork(0)), round == 0 || !pause, "{reached}");
            server.ready(0);
        }
    }
}

#[test]
fn a_worker_that_ends_unannounced_is_a_crash_even_with_code_0() {
    let mut server = Server::serving(2);
    assert_eq!(server.ended(0, Exit::Code(0)), [died(0, Exit::Code(0)), fork(0)]);
}

#[test]
fn a_worker_that_drains_by_itself_has_the_graceful_timeout_for_it() {
    let mut server = Server::serving(2);
    server.report(1, Report::Draining);
    server.ready(2);
    assert_eq!(server.wait(), Some(GRACEFUL));
    assert_eq!(server.after(GRACEFUL), orders(Order::Quit, &[1]));
    assert_eq!(server.after(QUIT_GRACE_AFTER_DRAIN), kills(&[1]));
    assert_eq!(server.ended(1, CRASH), []);
}

#[test]
fn repeated_failures_of_a_slot_are_tried_again_after_growing_pauses() {
    let mut server = Server::serving(2);
    server.ended(0, CRASH);
    let pauses: Vec<u128> = (0..9).map(|_| server.fail_boot(0).as_millis()).collect();
    assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
}

#[test]
fn a_boot_failure_while_serving_is_told_each_time_and_is_not_the_end() {
    let mut server = Server::serving(2);
    server.ended(0, CRASH);
    let told = server.report(0, Report::BootFailed(app_error()));
    assert_eq!(told, [Action::Tell(Note::BootFailed { slot: SlotIndex(0), why: app_error(), fatal: false })]);
    let wait = BACKOFF_FIRST;
    let told = [Note::Pause { slot: SlotIndex(0), wait }, Note::Degraded { ready: 1, wanted: 2 }].map(Action::Tell);
    assert_eq!(server.ended(0, Exit::Code(4)), told);
    assert_eq!(server.after(wait), [fork(0)]);
    assert_eq!(server.ready(0), [Action::Tell(Note::Recovered(2))]);
}

#[test]
fn a_healthy_life_makes_the_next_death_a_first_one() {
    let mut server = Server::serving(2);
    server.ended(0, CRASH);
    server.fail_boot(0);
    server.ready(0);
    server.now += HEALTHY_AFTER;
    assert_eq!(server.ended(0, CRASH), [died(0, CRASH), fork(0)]);
    server.ready(0);
    server.now += HEALTHY_AFTER - Duration::from_millis(1);
    let pause = Action::Tell(Note::Pause { slot: SlotIndex(0), wait: BACKOFF_FIRST });
    assert_eq!(server.ended(0, CRASH)[..2], [died(0, CRASH), pause]);
}

#[test]
fn many_deaths_at_once_are_replaced_two_a_second() {
    let mut server = Server::serving(5);
    for slot in 0..5 {
        let forked = server.ended(slot, CRASH).contains(&fork(slot));
        assert_eq!(forked, slot < 2);
    }
    assert_eq!(server.wait(), Some(RESTART_WINDOW));
    assert_eq!(server.after(RESTART_WINDOW), [fork(2), fork(3)]);
    assert_eq!(server.after(RESTART_WINDOW / 2), []);
    assert_eq!(server.after(RESTART_WINDOW / 2), [fork(4)]);
}

#[test]
fn a_worker_that_a_client_had_reached_is_replaced_at_once_however_often() {
    let mut server = Server::serving(4);
    for _ in 0..50 {
        assert_eq!(server.crashed(1), [died(1, CRASH), fork(1)]);
        assert_eq!(server.ready(1), [], "nobody was degraded");
    }
}

#[test]
fn a_request_that_hangs_is_as_little_a_reason_for_a_pause_as_one_that_crashes() {
    let mut server = Server::serving(2);
    for _ in 0..5 {
        let hang = Hang::Call(Duration::from_secs(1));
        assert_eq!(server.event(Event::Stuck { slot: SlotIndex(0), hang }), [Action::Abort(SlotIndex(0))]);
        let hung = Action::Tell(Note::Hung { slot: SlotIndex(0), hang, exit: CRASH, fatal: false });
        assert_eq!(server.crashed(0), [hung, fork(0)]);
        server.ready(0);
    }
}

#[test]
fn half_of_the_workers_boot_at_once_in_the_place_of_those_that_were_well() {
    let mut server = Server::serving(5);
    for slot in 0..5 {
        let forked = server.crashed(slot).contains(&fork(slot));
        // Beyond three, two more may begin within a second, as all failures may.
        assert!(forked, "{slot}");
    }
    for slot in 0..5 {
        server.ready(slot);
    }
    for slot in 0..5 {
        assert_eq!(server.crashed(slot).contains(&fork(slot)), slot < 3);
    }
    assert_eq!(server.ready(0), [fork(3)], "as soon as one is ready");
    assert_eq!(server.after(RESTART_WINDOW), [fork(4)]);
}

#[test]
fn while_boots_fail_a_crash_is_as_slow_as_they_are() {
    let mut server = Server::serving(5);
    server.crashed(0);
    server.report(0, Report::BootFailed(app_error()));
    server.ended(0, Exit::Code(4));
    for slot in 1..5 {
        assert_eq!(server.crashed(slot).contains(&fork(slot)), slot < 3, "two a second");
    }
    assert_eq!(server.ready(1), [fork(3), fork(4)], "boots do not fail any more");
}

#[test]
fn an_application_that_cannot_be_loaded_ends_the_start_with_4_and_one_traceback() {
    let mut server = Server::starting(3);
    let note = Action::Tell(Note::BootFailed { slot: SlotIndex(1), why: app_error(), fatal: true });
    let rest = stop(Order::Quit, &[0, 2]);
    assert_eq!(server.report(1, Report::BootFailed(app_error())), with(note, rest));
    assert_eq!(server.report(0, Report::BootFailed(app_error())), []);
    assert_eq!(server.ended(1, Exit::Code(4)), []);
    assert_eq!(server.ended(0, Exit::Code(4)), []);
    assert_eq!(server.after(BOOT_GRACE), kills(&[2]));
    assert_eq!(server.ended(2, Exit::Signal { number: 9, core: false }), [Action::Exit(code::APP)]);
}

#[test]
fn a_worker_that_fails_or_dies_while_booting_ends_the_start_with_3() {
    let mut server = Server::starting(2);
    server.report(0, Report::BootFailed(BootError { app: false, text: "no interpreter".into() }));
    server.ended(0, Exit::Code(3));
    assert_eq!(server.ended(1, CRASH), [Action::Exit(code::BOOT)]);

    let mut server = Server::starting(2);
    server.ready(0);
    let note = Action::Tell(Note::Died { slot: SlotIndex(1), exit: CRASH, booting: true, fatal: true });
    let rest = stop(Order::Quit, &[0]);
    assert_eq!(server.ended(1, CRASH), with(note, rest));
    assert_eq!(server.ended(0, Exit::Code(0)), [Action::Exit(code::BOOT)]);
}

#[test]
fn a_worker_that_does_not_end_after_a_failed_boot_is_killed() {
    let mut server = Server::serving(2);
    server.ended(0, CRASH);
    server.report(0, Report::BootFailed(app_error()));
    assert_eq!(server.after(BOOT_GRACE), kills(&[0]));
}

#[test]
fn a_worker_that_dies_after_it_was_ready_does_not_end_the_start() {
    let mut server = Server::starting(2);
    server.ready(0);
    assert_eq!(server.ended(0, CRASH), [died(0, CRASH), fork(0)]);
    assert_eq!(server.ready(1), []);
    assert_eq!(server.ready(0), [Action::NotifyReady]);
}

#[test]
fn a_refused_fork_ends_the_start_and_is_tried_again_later() {
    let failed = |slot| Event::ForkFailed { slot: SlotIndex(slot), why: "out of processes".into() };
    let mut server = Server::starting(1);
    assert_eq!(server.event(failed(0)).last(), Some(&Action::Exit(code::BOOT)));
    let mut server = Server::serving(1);
    server.ended(0, CRASH);
    server.event(failed(0));
    assert_eq!(server.wait(), Some(BACKOFF_FIRST));
    assert_eq!(server.after(BACKOFF_FIRST), [fork(0)]);
}

#[test]
fn term_drains_everybody_and_ends_with_0() {
    let mut server = Server::serving(2);
    assert_eq!(server.asked(OperatorRequest::Stop), stop(Order::Drain, &[0, 1]));
    assert_eq!(server.report(0, Report::Draining), []);
    assert_eq!(server.ended(0, Exit::Code(0)), []);
    assert_eq!(server.asked(OperatorRequest::Stop), [Action::Tell(Note::AlreadyStopping)]);
    assert_eq!(server.ended(1, Exit::Code(0)), [Action::Exit(code::OK)]);
    assert_eq!(server.wait(), None);
}

#[test]
fn a_drain_that_takes_too_long_becomes_a_quick_stop_and_then_a_kill() {
    let mut server = Server::serving(3);
    server.asked(OperatorRequest::Stop);
    server.ended(1, Exit::Code(0));
    assert_eq!(server.wait(), Some(GRACEFUL));
    assert_eq!(server.after(GRACEFUL), with(Action::Tell(Note::DrainTimeout(GRACEFUL)), orders(Order::Quit, &[0, 2])));
    assert_eq!(server.wait(), Some(QUIT_GRACE_AFTER_DRAIN));
    assert_eq!(server.after(QUIT_GRACE_AFTER_DRAIN), kills(&[0, 2]));
    let killed = Exit::Signal { number: 9, core: false };
    assert_eq!(server.ended(0, killed), []);
    assert_eq!(server.ended(2, killed), [Action::Exit(code::OK)]);
}

#[test]
fn int_stops_quickly_and_a_second_one_at_once() {
    let mut server = Server::serving(2);
    assert_eq!(server.asked(OperatorRequest::QuickStop), stop(Order::Quit, &[0, 1]));
    assert_eq!(server.wait(), Some(QUIT_GRACE));
    assert_eq!(server.asked(OperatorRequest::QuickStop), kills(&[0, 1]));
    assert_eq!(server.asked(OperatorRequest::QuickStop), [], "they are killed already");
}

#[test]
fn int_hurries_a_drain() {
    let mut server = Server::serving(1);
    server.asked(OperatorRequest::Stop);
    server.now += Duration::from_secs(3);
    let quick = with(Action::Tell(Note::Stopping(Order::Quit)), orders(Order::Quit, &[0]));
    assert_eq!(server.asked(OperatorRequest::QuickStop), quick);
    assert_eq!(server.after(QUIT_GRACE), kills(&[0]));
}

#[test]
fn a_worker_that_still_boots_gets_a_moment_at_a_stop() {
    let mut server = Server::starting(2);
    server.ready(0);
    server.asked(OperatorRequest::Stop);
    assert_eq!(server.wait(), Some(BOOT_GRACE));
    assert_eq!(server.after(BOOT_GRACE), kills(&[1]));
    server.ended(1, Exit::Signal { number: 9, core: false });
    assert_eq!(server.wait(), Some(GRACEFUL - BOOT_GRACE), "the one that serves has its full time");
}

#[test]
fn a_worker_that_gets_ready_while_the_server_stops_may_drain() {
    let mut server = Server::starting(1);
    server.asked(OperatorRequest::Stop);
    assert_eq!(server.ready(0), [], "nobody is told that the server is ready");
    assert_eq!(server.wait(), Some(GRACEFUL));
    assert_eq!(server.ended(0, Exit::Code(0)), [Action::Exit(code::OK)]);
}

#[test]
fn nobody_is_replaced_while_the_server_stops() {
    let mut server = Server::serving(2);
    server.ended(0, CRASH);
    server.report(0, Report::BootFailed(app_error()));
    server.ended(0, Exit::Code(4));
    server.asked(OperatorRequest::Stop);
    assert_eq!(server.after(BACKOFF_FIRST), []);
    assert_eq!(server.ended(1, CRASH), [died(1, CRASH), Action::Exit(code::OK)]);
}

#[test]
fn a_stop_while_all_slots_wait_ends_at_once() {
    let mut server = Server::serving(1);
    server.ended(0, CRASH);
    server.report(0, Report::BootFailed(app_error()));
    server.ended(0, Exit::Code(4));
    assert_eq!(server.asked(OperatorRequest::Stop).last(), Some(&Action::Exit(code::OK)));
}

#[test]
fn logs_are_opened_anew_whatever_else_goes_on() {
    let mut server = Server::serving(1);
    assert_eq!(server.asked(OperatorRequest::ReopenLogs), [Action::ReopenLogs]);
    server.asked(OperatorRequest::Stop);
    assert_eq!(server.asked(OperatorRequest::ReopenLogs), [Action::ReopenLogs]);
}

#[test]
fn an_endless_graceful_timeout_is_no_overflow() {
    let endless = Policy { graceful_timeout: Duration::MAX, boot_timeout: Some(Duration::MAX), ..policy(1) };
    let mut supervisor = Supervisor::new(endless, CAPACITY);
    let now = Instant::now();
    supervisor.handle(Event::Start, now);
    supervisor.handle(Event::Asked(OperatorRequest::Stop), now);
    assert!(supervisor.next_deadline().is_some());
}
