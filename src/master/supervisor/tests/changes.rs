//! The rules of reloads, of worn and hanging workers, and of their number, one per test.

use super::super::super::event::ReloadFailure;
use super::*;

#[test]
fn a_worker_with_a_stuck_request_gives_way_to_a_successor_and_is_ended_when_nothing_else_is_left() {
    let mut server = Server::serving(2);
    let told = Action::Tell(Note::Recycling { slot: SlotIndex(1), wear: Wear::Stuck });
    assert_eq!(server.report(1, Report::Stuck), [told, fork(2)]);
    assert_eq!(server.report(1, Report::Stuck), [], "once");
    assert_eq!(server.ready(2), [Action::Order(SlotIndex(1), Order::Retire)]);
    assert_eq!(server.report(1, Report::Stranded), [Action::Abort(SlotIndex(1))]);
    let hung = Action::Tell(Note::Hung { slot: SlotIndex(1), hang: Hang::Stranded, exit: CRASH, fatal: false });
    assert_eq!(server.ended(1, CRASH), [hung], "neither a crash nor replaced again");
}

#[test]
fn a_worker_whose_channel_is_closed_is_replaced_unless_it_is_about_to_end() {
    let mut server = Server::serving(2);
    assert_eq!(server.event(Event::Cut(SlotIndex(1))), []);
    assert_eq!(server.crashed(1), [died(1, CRASH), fork(1)], "that was why");
    server.ready(1);
    assert_eq!(server.wait(), None);
    server.event(Event::Cut(SlotIndex(1)));
    assert_eq!(server.wait(), Some(CUT_GRACE));
    let told = Action::Tell(Note::Recycling { slot: SlotIndex(1), wear: Wear::Cut });
    assert_eq!(server.after(CUT_GRACE), [told, fork(2)]);
    assert_eq!(server.ready(2), [retire(1)]);
    assert_eq!(server.ended(1, Exit::Code(0)), []);
}

#[test]
fn a_socket_that_was_made_anew_replaces_all_workers_one_by_one_those_that_boot_too() {
    let mut server = Server::serving(2);
    server.crashed(1);
    let told = |slot| Action::Tell(Note::Recycling { slot: SlotIndex(slot), wear: Wear::Socket });
    assert_eq!(server.event(Event::NewSocket), [told(0), fork(2)]);
    assert_eq!(server.ready(2), []);
    assert_eq!(server.ready(1), [retire(0)], "three are ready, and the oldest of the two stale ones goes");
    assert_eq!(server.leaves(0), [fork(0)]);
    assert_eq!(server.ready(0), [retire(1)]);
}

#[test]
fn a_socket_that_is_lost_ends_the_server_with_1_when_everything_is_answered() {
    let mut server = Server::serving(1);
    assert_eq!(server.event(Event::Deaf), stop(Order::Drain, &[0]));
    assert_eq!(server.ended(0, Exit::Code(0)), [Action::Exit(code::FAILED)]);
}

#[test]
fn why_a_worker_fails_is_told_before_its_end() {
    let mut server = Server::serving(2);
    let why = "descriptor 7 is another file".to_owned();
    let told = Action::Tell(Note::Failed { slot: SlotIndex(1), why: why.clone() });
    assert_eq!(server.report(1, Report::Failed(why)), [told]);
}

#[test]
fn a_stuck_request_is_known_before_the_last_worker_is_ready() {
    let mut server = Server::starting(2);
    server.ready(0);
    let told = Action::Tell(Note::Recycling { slot: SlotIndex(0), wear: Wear::Stuck });
    assert_eq!(server.report(0, Report::Stuck), [told]);
    assert!(server.ready(1).contains(&fork(2)));
}

#[test]
fn a_stuck_request_at_a_stop_does_not_use_up_the_time_for_the_drain() {
    let mut server = Server::serving(1);
    server.asked(OperatorRequest::Stop);
    assert_eq!(server.report(0, Report::Stranded), [Action::Abort(SlotIndex(0))]);
    let ended = server.ended(0, CRASH);
    assert!(ended.contains(&Action::Exit(code::OK)), "{ended:?}");
}

#[test]
fn a_reload_boots_one_worker_first_and_then_rolls_one_by_one() {
    let mut server = Server::reloading(policy(2));
    let adopted = [Action::Tell(Note::Adopted(SECOND)), Action::Adopt(SECOND)];
    assert_eq!(server.ready(2), with(adopted[0].clone(), vec![adopted[1].clone(), retire(0)]));
    assert_eq!(server.leaves(0), [Action::Fork(SlotIndex(0), SECOND)], "only now is there room for one more");
    assert_eq!(server.ready(0), [retire(1), Action::Tell(Note::Reloaded(SECOND))]);
    assert_eq!(server.leaves(1), []);
    assert_eq!(server.wait(), None, "a healthy server has nothing to wait for");
    assert_eq!(server.ended(0, CRASH), [died(0, CRASH), Action::Fork(SlotIndex(0), SECOND)]);
}

#[test]
fn a_surge_of_two_rolls_two_at_a_time() {
    let mut server = Server::reloading(Policy { surge: 2, ..policy(4) });
    assert_eq!(server.ready(4)[2..], [retire(0), Action::Fork(SlotIndex(5), SECOND)]);
    assert_eq!(server.ready(5), [retire(1)]);
    assert_eq!(server.leaves(0), [Action::Fork(SlotIndex(0), SECOND)]);
    assert_eq!(server.leaves(1), [Action::Fork(SlotIndex(1), SECOND)]);
    assert_eq!(server.ready(0), [retire(2)]);
    assert_eq!(server.ready(1), [retire(3), Action::Tell(Note::Reloaded(SECOND))]);
}

#[test]
fn a_canary_that_fails_in_any_way_changes_nothing() {
    let canary = SlotIndex(2);
    let mut server = Server::reloading(policy(2));
    let told = Action::Tell(Note::BootFailed { slot: canary, why: app_error(), fatal: false });
    assert_eq!(server.report(2, Report::BootFailed(app_error())), [told]);
    assert_eq!(server.ended(2, Exit::Code(4)), reload_failed(ReloadFailure::Worker));

    let mut server = Server::reloading(policy(2));
    let told = Action::Tell(Note::Died { slot: canary, exit: CRASH, booting: true, fatal: false });
    assert_eq!(server.ended(2, CRASH), with(told, reload_failed(ReloadFailure::Worker).to_vec()));

    let mut server = Server::reloading(policy(2));
    assert_eq!(server.after(BOOT_TIMEOUT), [Action::Abort(canary)]);
    let told = Action::Tell(Note::Hung { slot: canary, hang: Hang::Boot(BOOT_TIMEOUT), exit: CRASH, fatal: false });
    assert_eq!(server.ended(2, CRASH), with(told, reload_failed(ReloadFailure::Worker).to_vec()));
    assert_eq!(server.wait(), None);
    assert_eq!(server.ended(0, CRASH), [died(0, CRASH), fork(0)], "the old generation goes on");

    let mut server = Server::reloading(policy(2));
    let failed = server.event(Event::ForkFailed { slot: canary, why: "out of processes".into() });
    assert_eq!(failed[1..], reload_failed(ReloadFailure::Worker));
}

#[test]
fn a_configuration_that_cannot_be_used_changes_nothing() {
    let mut server = Server::serving(2);
    server.asked(OperatorRequest::Reload);
    let why = "workers = 0: must be 1".to_owned();
    assert_eq!(server.event(Event::Read(Err(why.clone()))), reload_failed(ReloadFailure::Configuration(why)));
    assert_eq!(server.asked(OperatorRequest::Reload)[1], Action::Read(Generation(3)), "a number is used once");
}

#[test]
fn a_reload_during_a_reload_follows_it() {
    let mut server = Server::reloading(policy(1));
    assert_eq!(server.asked(OperatorRequest::Reload), [Action::Tell(Note::ReloadQueued)]);
    assert_eq!(server.asked(OperatorRequest::Reload), [Action::Tell(Note::ReloadQueued)]);
    let ready = server.ready(1);
    assert_eq!(ready[3..5], [Action::Tell(Note::Reloaded(SECOND)), Action::Tell(Note::Reloading(Generation(3)))]);
    assert_eq!(
        server.event(Event::Read(Ok(policy(1)))),
        [Action::Fork(SlotIndex(2), Generation(3))],
        "whoever leaves does not matter"
    );
    assert_eq!(server.ended(2, CRASH)[2..], [Action::Discard(Generation(3))], "two queued are one");

    let mut server = Server::reloading(policy(1));
    server.asked(OperatorRequest::Reload);
    let failed = server.ended(1, CRASH);
    assert_eq!(failed.last(), Some(&Action::Read(Generation(3))), "a failed one is followed as well");
}

#[test]
fn a_reload_during_the_start_follows_it() {
    let mut server = Server::starting(1);
    assert_eq!(server.asked(OperatorRequest::Reload), [Action::Tell(Note::ReloadQueued)]);
    assert_eq!(server.ready(0), [Action::NotifyReady, Action::Tell(Note::Reloading(SECOND)), Action::Read(SECOND)]);
}

#[test]
fn a_reload_applies_the_new_number_of_workers() {
    let mut server = Server::serving(2);
    server.asked(OperatorRequest::Reload);
    server.event(Event::Read(Ok(policy(3))));
    assert_eq!(server.ready(2)[2..], [Action::Fork(SlotIndex(3), SECOND)]);
    assert_eq!(server.ready(3), [retire(0)]);
    let mut server = Server::serving(3);
    server.asked(OperatorRequest::Reload);
    server.event(Event::Read(Ok(policy(1))));
    assert_eq!(server.ready(3)[2..5], [retire(0), retire(1), retire(2)]);
}

#[test]
fn an_old_worker_that_dies_while_the_new_ones_take_over_is_replaced_by_a_new_one() {
    let mut server = Server::reloading(policy(3));
    server.ready(3);
    assert_eq!(server.ended(1, CRASH), [died(1, CRASH), Action::Fork(SlotIndex(1), SECOND)]);
}

#[test]
fn a_stop_during_a_reload_ends_the_canary_too() {
    let mut server = Server::reloading(policy(2));
    assert_eq!(server.asked(OperatorRequest::Stop), stop(Order::Drain, &[0, 1, 2]));
    assert_eq!(server.after(BOOT_GRACE), kills(&[2]));
    assert_eq!(server.ended(2, CRASH), [], "its end is no news");
}

#[test]
fn a_worn_worker_leaves_when_its_successor_is_ready() {
    let mut server = Server::serving(2);
    let told = |slot, wear| Action::Tell(Note::Recycling { slot: SlotIndex(slot), wear });
    assert_eq!(server.report(1, Report::Worn), [told(1, Wear::Requests), fork(2)]);
    let wear = Wear::Memory(1 << 30);
    assert_eq!(server.event(Event::Worn { slot: SlotIndex(0), wear }), [told(0, wear)], "one at a time");
    assert_eq!(server.event(Event::Worn { slot: SlotIndex(0), wear }), [], "and once");
    assert_eq!(server.ready(2), [retire(0)]);
    assert_eq!(server.leaves(0), [fork(0)]);
    assert_eq!(server.ready(0), [retire(1)]);
    assert_eq!(server.leaves(1), []);
    assert_eq!(server.wait(), None);
}

#[test]
fn a_worn_worker_serves_on_while_its_successor_cannot_boot() {
    let mut server = Server::serving(1);
    server.report(0, Report::Worn);
    server.report(1, Report::BootFailed(app_error()));
    assert_eq!(server.ended(1, Exit::Code(4)), [fork(1)]);
    assert_eq!(server.fail_boot(1), BACKOFF_FIRST);
    assert_eq!(server.ready(1), [retire(0)]);
}

#[test]
fn workers_are_replaced_at_their_age_one_by_one() {
    let age = Duration::from_secs(3600);
    let mut server = Server::serving_with(Policy { max_age: Some(age), ..policy(2) });
    assert_eq!(server.wait(), Some(age));
    let told = |slot| Action::Tell(Note::Recycling { slot: SlotIndex(slot), wear: Wear::Age(age) });
    assert_eq!(server.after(age), [told(0), told(1), fork(2)]);
}

#[test]
fn workers_that_wear_out_faster_than_they_are_replaced_all_have_their_turn() {
    let age = Duration::from_secs(2);
    let mut server = Server::serving_with(Policy { max_age: Some(age), ..policy(3) });
    server.after(age);
    for (successor, replaced) in [(3, 0), (0, 1), (1, 2), (2, 3), (3, 0)] {
        assert_eq!(server.ready(successor), [retire(replaced)]);
        assert!(server.leaves(replaced).contains(&fork(replaced)));
        server.after(age);
    }
}

#[test]
fn a_worker_that_does_not_go_on_is_aborted_then_killed_and_replaced() {
    let hang = Hang::Call(GRACEFUL);
    let told = |slot, exit| Action::Tell(Note::Hung { slot: SlotIndex(slot), hang, exit, fatal: false });
    let mut server = Server::serving(2);
    assert_eq!(server.event(Event::Stuck { slot: SlotIndex(1), hang }), [Action::Abort(SlotIndex(1))]);
    assert_eq!(server.event(Event::Stuck { slot: SlotIndex(1), hang }), []);
    assert_eq!(server.after(ABORT_GRACE), [Action::Kill(SlotIndex(1))], "the report says all");
    assert_eq!(server.ended(1, CRASH), [told(1, CRASH), fork(1)]);
}

#[test]
fn a_start_that_hangs_fails() {
    let mut server = Server::starting(2);
    server.ready(0);
    assert_eq!(server.after(BOOT_TIMEOUT), [Action::Abort(SlotIndex(1))]);
    let told = Action::Tell(Note::Hung { slot: SlotIndex(1), hang: Hang::Boot(BOOT_TIMEOUT), exit: CRASH, fatal: true });
    assert_eq!(server.ended(1, CRASH), with(told, stop(Order::Quit, &[0])));
    assert_eq!(server.ended(0, Exit::Code(0)), [Action::Exit(code::BOOT)]);
}

#[test]
fn ttin_adds_a_worker_and_ttou_takes_the_last() {
    let mut server = Server::serving(2);
    let told = |count| Action::Tell(Note::Workers(count));
    assert_eq!(server.asked(OperatorRequest::MoreWorkers), [told(3), fork(2)]);
    assert_eq!(server.asked(OperatorRequest::MoreWorkers), [told(4), fork(3)]);
    server.ready(2);
    server.ready(3);
    assert_eq!(server.asked(OperatorRequest::FewerWorkers), [told(3), retire(3)]);
    assert_eq!(server.leaves(3), []);
    for count in [2, 1] {
        assert_eq!(server.asked(OperatorRequest::FewerWorkers), [told(count), retire(count)]);
    }
    assert_eq!(server.asked(OperatorRequest::FewerWorkers), [Action::Tell(Note::WorkersLimit(1))]);
}

#[test]
fn ttin_ends_where_the_places_end() {
    let mut server = Server::serving(1);
    let limit = (CAPACITY - 1) / 2;
    for count in 2..=limit {
        assert_eq!(server.asked(OperatorRequest::MoreWorkers)[0], Action::Tell(Note::Workers(count)));
    }
    assert_eq!(server.asked(OperatorRequest::MoreWorkers), [Action::Tell(Note::WorkersLimit(limit))]);
}

#[test]
fn a_worker_that_boots_when_there_are_enough_leaves_when_it_is_ready() {
    let mut server = Server::serving(2);
    server.asked(OperatorRequest::MoreWorkers);
    assert_eq!(server.asked(OperatorRequest::FewerWorkers), [Action::Tell(Note::Workers(2))]);
    assert_eq!(server.ready(2), [retire(2)]);
}

#[test]
fn winch_stops_all_workers_and_ttin_brings_them_back() {
    let mut server = Server::serving(2);
    let vacate = |slot| Action::Order(SlotIndex(slot), Order::Vacate);
    assert_eq!(server.asked(OperatorRequest::StopWorkers), [Action::Tell(Note::WorkersStopping), vacate(1), vacate(0)]);
    server.leaves(0);
    server.leaves(1);
    assert_eq!(server.wait(), None, "the master stays");
    assert_eq!(server.asked(OperatorRequest::StopWorkers), [Action::Tell(Note::WorkersStopped)]);
    assert_eq!(server.asked(OperatorRequest::FewerWorkers), [Action::Tell(Note::WorkersStopped)]);
    assert_eq!(server.asked(OperatorRequest::MoreWorkers), [Action::Tell(Note::Workers(2)), fork(0), fork(1)]);
}

#[test]
fn winch_reaches_workers_that_hand_their_connections_over_already() {
    let vacate = |slot| Action::Order(SlotIndex(slot), Order::Vacate);
    let mut server = Server::serving(3);
    assert_eq!(server.asked(OperatorRequest::FewerWorkers)[1..], [retire(2)]);
    let stopping = Action::Tell(Note::WorkersStopping);
    assert_eq!(
        server.asked(OperatorRequest::StopWorkers),
        [stopping.clone(), vacate(2), vacate(1), vacate(0)],
        "first who left first"
    );
    for slot in 0..3 {
        server.leaves(slot);
    }
    assert_eq!(server.wait(), None);

    let mut server = Server::serving(2);
    server.asked(OperatorRequest::FewerWorkers);
    assert_eq!(server.after(GRACEFUL), [Action::Order(SlotIndex(1), Order::Quit)]);
    assert_eq!(server.asked(OperatorRequest::StopWorkers), [stopping, vacate(0)], "who was told to quit hands nothing over");
}

#[test]
fn hup_brings_back_workers_of_a_new_generation_if_it_boots() {
    let mut server = Server::serving(2);
    server.asked(OperatorRequest::StopWorkers);
    server.leaves(0);
    server.leaves(1);
    server.asked(OperatorRequest::Reload);
    assert_eq!(server.event(Event::Read(Ok(policy(2)))), [Action::Fork(SlotIndex(0), SECOND)]);
    assert_eq!(server.ready(0)[2..], [Action::Fork(SlotIndex(1), SECOND)]);
    assert_eq!(server.ready(1), [Action::Tell(Note::Reloaded(SECOND))]);
}

#[test]
fn a_stop_ends_a_server_without_workers_at_once() {
    let mut server = Server::serving(1);
    server.asked(OperatorRequest::StopWorkers);
    server.leaves(0);
    assert_eq!(server.asked(OperatorRequest::Stop).last(), Some(&Action::Exit(code::OK)));
}

#[test]
fn a_change_of_the_sources_is_a_reload_and_one_during_it_begins_it_anew() {
    const THIRD: Generation = Generation(3);
    let mut server = Server::serving(1);
    assert_eq!(server.event(Event::SourcesChanged), [Action::Tell(Note::Reloading(SECOND)), Action::Read(SECOND)]);
    assert_eq!(server.event(Event::SourcesChanged), [], "nothing was loaded yet");
    assert_eq!(server.event(Event::Read(Ok(policy(1)))), [Action::Fork(SlotIndex(1), SECOND)]);
    assert_eq!(
        server.event(Event::SourcesChanged),
        [Action::Kill(SlotIndex(1)), Action::Discard(SECOND), Action::Tell(Note::Reloading(THIRD)), Action::Read(THIRD)]
    );
    assert_eq!(server.event(Event::Read(Ok(policy(1)))), [Action::Fork(SlotIndex(2), THIRD)]);
    assert_eq!(server.ended(1, Exit::Signal { number: 9, core: false }), [], "nobody misses it");
    let ready = server.ready(2);
    assert_eq!(ready[..2], [Action::Tell(Note::Adopted(THIRD)), Action::Adopt(THIRD)]);
    assert!(ready.contains(&retire(0)) && ready.contains(&Action::Tell(Note::Reloaded(THIRD))), "{ready:?}");
}

#[test]
fn a_change_while_the_server_starts_begins_the_boots_anew_and_reloads_what_was_ready() {
    let mut server = Server::starting(2);
    server.ready(0);
    assert_eq!(server.event(Event::SourcesChanged), [Action::Kill(SlotIndex(1)), fork(2)]);
    assert_eq!(server.ended(1, Exit::Signal { number: 9, core: false }), [], "the start goes on");
    let ready = server.ready(2);
    assert_eq!(ready, [Action::NotifyReady, Action::Tell(Note::Reloading(SECOND)), Action::Read(SECOND)]);
}

#[test]
fn a_change_while_a_generation_takes_over_does_not_wait_for_it() {
    let mut server = Server::reloading(policy(2));
    server.ready(2);
    let changed = server.event(Event::SourcesChanged);
    assert!(changed.contains(&Action::Read(Generation(3))), "{changed:?}");
}
