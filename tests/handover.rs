//! The hand-over of the loop in every order in which the threads may run, within a bound on preemptions: the very files of the
//! executor under loom, with a small loop and an application whose calls wait for each other.
//!
//! loom runs each model once for every order of its synchronisation and for every value that a relaxed load may see. A thread
//! that is never woken ends in a deadlock, which loom reports; a loop that two threads touch without one coming before the other
//! is reported as a race; the rest is asserted here. `LOOM_MAX_PREEMPTIONS` raises the bound.

#[path = "handover/worker.rs"]
mod worker;

use std::env;
use std::process::Command;
use std::time::Duration;

use worker::ctx::{Desked, Kind, Plan, ThreadCtx, World};
use worker::event_loop::EventLoop;
use worker::threads::completions::Completions;
use worker::threads::desk::Desks;
use worker::threads::precedence::{Passage, Precedence};
use worker::threads::sync::Arc;
use worker::threads::thread_id::MAIN;

/// Preemptions of one run at most. Two find every known fault of such protocols but the contrived; three take minutes.
const PREEMPTIONS: usize = 2;

/// No permit, no request, no signal.
const NOTHING: Plan = Plan {
    preemptions: PREEMPTIONS,
    puts_off: true,
    slots: 0,
    slow: false,
    requests: &[],
    handlers: &[],
    handlers_first: false,
    memory: true,
    fails: false,
    desks: Desked::Wait,
};

/// Set for the process of one test.
const ALONE: &str = "TAPSTER_TEST_ALONE";

/// Runs these requests in every order, with so many permits; `slow` sends them to other threads at once.
fn model(slots: usize, slow: bool, requests: &'static [Kind]) {
    explore(&[Plan { slots, slow, requests, ..NOTHING }]);
}

/// Runs these plans in every order, each test in a process of its own: loom maps and unmaps a stack for each thread of each run,
/// which takes the tests of one process as long beside each other as one after the other.
fn explore(plans: &[Plan]) {
    let thread = std::thread::current();
    // Without others beside it a test is on the main thread.
    match thread.name().filter(|&name| name != "main" && env::var_os(ALONE).is_none()) {
        Some(test) => {
            let program = env::current_exe().expect("it is running");
            let child = Command::new(program).args([test, "--exact", "--nocapture"]).env(ALONE, "1").output();
            let output = child.expect("it can be run again");
            let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success() && out.contains("1 passed"), "{out}{err}");
        }
        None => plans.iter().copied().for_each(check),
    }
}

fn check(plan: Plan) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(plan.preemptions);
    builder.check(move || {
        let threads = plan.slots + 1;
        let world = Arc::new(World::new(plan));
        let (completed, desks) = (Completions::default(), Desks::new(threads));
        let event_loop = EventLoop::new(world.clone(), threads, completed.clone(), desks.clone());
        let group =
            worker::threads::executor::group(threads, completed, desks, plan.puts_off).expect("the model has descriptors");
        let mut places = group.into_iter();
        let main = places.next().expect("there is one");
        let others: Vec<_> = places
            .map(|place| {
                let mut ctx = ThreadCtx::new(world.clone(), place.thread());
                loom::thread::spawn(move || place.work(&mut ctx, None).expect("the model does not fail"))
            })
            .collect();
        main.work(&mut ThreadCtx::new(world.clone(), MAIN), Some(Box::new(event_loop))).expect("the model does not fail");
        world.check();
        // The process would end here: in which order the threads of the model do is nobody's concern.
        loom::stop_exploring();
        main.dismiss();
        others.into_iter().for_each(|thread| thread.join().expect("it ends"));
    });
}

#[test]
fn with_one_permit_quick_calls_leave_the_loop_where_it_is_or_get_it_back() {
    model(1, false, &[Kind::Quick, Kind::Quick]);
}

#[test]
fn with_one_permit_the_loop_runs_beside_a_call_and_comes_back() {
    model(1, false, &[Kind::UntilTaken, Kind::Quick]);
}

#[test]
fn a_call_that_begins_while_the_timer_fires_for_another_is_not_waited_for() {
    model(1, false, &[Kind::Quick, Kind::UntilTaken]);
}

#[test]
fn a_call_is_not_waited_for_although_the_timer_was_put_off_or_fired_too_early() {
    model(1, false, &[Kind::Long, Kind::UntilTaken]);
}

#[test]
fn a_call_is_not_waited_for_although_the_loop_was_taken_from_the_last_one() {
    model(1, false, &[Kind::UntilTaken, Kind::UntilTaken]);
}

#[test]
fn a_call_is_not_waited_for_where_the_timer_is_never_put_off() {
    let plan = Plan { puts_off: false, slots: 1, ..NOTHING };
    explore(&[
        Plan { requests: &[Kind::Quick, Kind::UntilTaken], ..plan },
        Plan { requests: &[Kind::Long, Kind::UntilTaken], ..plan },
        Plan { requests: &[Kind::UntilTaken, Kind::UntilTaken], ..plan },
    ]);
}

#[test]
fn who_is_sent_away_does_not_take_the_loop() {
    let requests = &[Kind::Quick, Kind::Quick, Kind::Opens, Kind::Waits];
    explore(&[Plan { preemptions: 1, slots: 2, slow: true, requests, ..NOTHING }]);
}

#[test]
fn a_call_that_waits_for_another_request_is_not_waited_for() {
    model(2, false, &[Kind::Waits, Kind::Opens]);
}

#[test]
fn the_watch_is_passed_on() {
    // One thread more makes many more orders.
    let requests = &[Kind::Waits, Kind::Waits, Kind::Opens];
    explore(&[Plan { preemptions: 1, slots: 3, requests, ..NOTHING }]);
}

#[test]
fn slow_requests_go_to_idle_threads_and_to_returning_ones() {
    model(2, true, &[Kind::Quick, Kind::Quick, Kind::Quick]);
}

#[test]
fn a_request_that_waits_for_one_that_has_no_permit_yet_gets_its_answer() {
    model(2, true, &[Kind::Waits, Kind::Quick, Kind::Opens]);
}

#[test]
fn a_stream_is_advanced_on_its_thread_although_others_work() {
    model(2, false, &[Kind::Stream, Kind::Quick]);
}

#[test]
fn a_stream_that_another_thread_has_begun_is_advanced_there() {
    model(2, true, &[Kind::Stream, Kind::Quick]);
}

#[test]
fn a_signal_is_handled_on_the_main_thread_wherever_the_loop_is() {
    let handlers = &[Kind::Quick];
    explore(&[
        Plan { slots: 1, requests: &[Kind::Quick], handlers, ..NOTHING },
        Plan { preemptions: 1, slots: 2, requests: &[Kind::UntilTaken, Kind::Quick], handlers, ..NOTHING },
    ]);
}

#[test]
fn a_handler_that_lasts_gives_the_loop_away_although_every_permit_is_taken() {
    let handlers = &[Kind::UntilTaken];
    explore(&[
        Plan { slots: 1, requests: &[Kind::Quick], handlers, ..NOTHING },
        Plan { slots: 2, slow: true, requests: &[Kind::Quick, Kind::Quick], handlers, ..NOTHING },
    ]);
}

#[test]
fn a_request_does_not_wait_for_a_handler_while_a_thread_is_idle() {
    // The first gives the loop away, so that the second is sent to the main thread.
    let plan = Plan { preemptions: 1, slots: 2, slow: true, requests: &[Kind::Opens], ..NOTHING };
    explore(&[Plan { handlers: &[Kind::UntilTaken, Kind::Waits], handlers_first: true, ..plan }]);
}

#[test]
fn a_request_that_waits_for_the_interpreter_is_another_workers_or_its_threads_and_never_both() {
    let plan = Plan { preemptions: 1, slots: 2, desks: Desked::HandedOver, ..NOTHING };
    explore(&[
        Plan { requests: &[Kind::Holds, Kind::Quick], ..plan },
        Plan { requests: &[Kind::Holds, Kind::Quick, Kind::Quick], slow: true, ..plan },
    ]);
}

#[test]
fn a_request_that_is_taken_back_from_one_thread_is_run_once_by_another() {
    let plan = Plan { slots: 2, desks: Desked::Requeued, ..NOTHING };
    explore(&[
        Plan { requests: &[Kind::UntilTaken, Kind::Quick], ..plan },
        Plan { preemptions: 1, requests: &[Kind::Quick, Kind::Quick, Kind::Quick], slow: true, ..plan },
    ]);
}

#[test]
fn a_request_that_there_is_no_memory_to_hand_out_is_called_where_it_is() {
    let plan = Plan { preemptions: 1, slots: 2, memory: false, ..NOTHING };
    explore(&[
        Plan { requests: &[Kind::UntilTaken, Kind::Quick], ..plan },
        Plan { requests: &[Kind::Waits, Kind::Quick, Kind::Opens], slow: true, ..plan },
    ]);
}

#[test]
fn a_loop_that_fails_sends_the_answers_that_it_holds_before_the_worker_ends() {
    loom::model(|| {
        let world = Arc::new(World::new(Plan { slots: 1, fails: true, ..NOTHING }));
        let (completed, desks) = (Completions::default(), Desks::new(1));
        let event_loop = EventLoop::new(world.clone(), 1, completed.clone(), desks.clone());
        let places = worker::threads::executor::group(1, completed, desks, true).expect("the model has descriptors");
        assert!(places[0].work(&mut ThreadCtx::new(world.clone(), MAIN), Some(Box::new(event_loop))).is_err());
        assert!(world.sent.get());
    });
}

#[test]
fn a_call_that_waits_for_the_loop_to_send_is_woken_and_sends_after_it() {
    loom::model(|| {
        let shared = Arc::new((Precedence::new(), Passage::default(), loom::cell::Cell::new(false)));
        let (precedence, passage, sent) = &*shared;
        precedence.set();
        let calls: Vec<_> = (0..2)
            .map(|_| {
                let shared = shared.clone();
                loom::thread::spawn(move || {
                    assert!(shared.1.wait(&shared.0, Duration::from_secs(1)));
                    assert!(shared.2.get(), "before what goes first was sent");
                })
            })
            .collect();
        sent.set(true);
        passage.free(precedence);
        calls.into_iter().for_each(|call| call.join().expect("it ends"));
    });
}
