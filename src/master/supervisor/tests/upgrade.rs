//! Upgrades: before exec, and what the next program makes of the workers.

use super::super::super::event::{Life, UpgradeFailure};
use super::*;

const THIRD: Generation = Generation(3);

fn failed(why: &str) -> Action {
    Action::Tell(Note::UpgradeFailed { why: UpgradeFailure::Program(why.into()), serves: FIRST })
}

/// The same server in its next program, before it starts.
fn in_next_program(server: &Server) -> Server {
    let old = &server.supervisor;
    let lives: Vec<_> = (0..CAPACITY).filter_map(|slot| old.life(SlotIndex(slot), server.now)).collect();
    let now = server.now + Duration::from_secs(1000);
    let policy = policy(old.wanted);
    Server { supervisor: Supervisor::adopt(policy, CAPACITY, old.generations(), old.wanted(), &lives, now), now }
}

#[test]
fn a_program_that_is_fit_is_executed() {
    let mut server = Server::serving(2);
    assert_eq!(server.asked(OperatorRequest::Upgrade), [Action::TryUpgrade]);
    assert_eq!(server.asked(OperatorRequest::Upgrade), [], "it is the same upgrade");
    assert_eq!(server.event(Event::Tried(Ok(()))), [Action::Upgrade]);
    assert_eq!(server.event(Event::Tried(Err("cannot".into()))), [failed("cannot")], "exec has failed");
    assert_eq!(server.asked(OperatorRequest::Upgrade), [Action::TryUpgrade]);
}

#[test]
fn a_program_that_is_not_fit_or_does_not_answer_changes_nothing() {
    let mut server = Server::serving(1);
    server.asked(OperatorRequest::Upgrade);
    assert_eq!(server.event(Event::Tried(Err("no".into()))), [failed("no")]);
    server.asked(OperatorRequest::Upgrade);
    assert_eq!(server.wait(), Some(TRIAL_TIMEOUT));
    let actions = server.after(TRIAL_TIMEOUT);
    assert_eq!(actions, [Action::EndTrial, failed("the new program gave no answer within 10 s")]);
    assert_eq!(server.wait(), None);
}

#[test]
fn an_upgrade_waits_for_the_start_and_for_a_reload() {
    let mut server = Server::starting(1);
    assert_eq!(server.asked(OperatorRequest::Upgrade), [Action::Tell(Note::UpgradeQueued)]);
    assert_eq!(server.ready(0), [Action::NotifyReady, Action::TryUpgrade]);
    server.asked(OperatorRequest::Reload);
    assert_eq!(server.event(Event::Tried(Ok(()))), [], "a reload has begun meanwhile");
    assert!(server.event(Event::Read(Err("bad".into()))).contains(&Action::TryUpgrade));
}

#[test]
fn a_stop_ends_the_trial() {
    let mut server = Server::serving(1);
    server.asked(OperatorRequest::Upgrade);
    assert!(server.asked(OperatorRequest::Stop).contains(&Action::EndTrial));
    assert_eq!(server.event(Event::Tried(Ok(()))), []);
}

#[test]
fn the_next_program_replaces_the_workers_as_a_reload_does() {
    let mut server = in_next_program(&Server::serving(2));
    assert_eq!(server.event(Event::Start), [Action::Tell(Note::Reloading(SECOND)), Action::Read(SECOND)]);
    assert_eq!(server.event(Event::Read(Ok(policy(2)))), [Action::Fork(SlotIndex(2), SECOND)]);
    let ready = server.ready(2);
    assert!(ready.contains(&Action::Adopt(SECOND)) && ready.contains(&Action::Order(SlotIndex(0), Order::Retire)), "{ready:?}");
    server.leaves(0);
    server.ready(0);
    assert!(server.leaves(1).is_empty());
    assert_eq!(server.supervisor.generations(), (SECOND, SECOND));
}

#[test]
fn workers_that_fail_in_the_next_program_leave_the_old_ones_serving() {
    let mut server = in_next_program(&Server::serving(1));
    server.event(Event::Start);
    server.event(Event::Read(Ok(policy(1))));
    server.report(1, Report::BootFailed(app_error()));
    let why = UpgradeFailure::Load(SECOND, ReloadFailure::Worker);
    let told = Action::Tell(Note::UpgradeFailed { why, serves: FIRST });
    assert_eq!(server.ended(1, Exit::Code(4)), [told, Action::Discard(SECOND)]);
    assert_eq!(server.asked(OperatorRequest::Reload), [Action::Tell(Note::Reloading(THIRD)), Action::Read(THIRD)]);
    let told = server.event(Event::Read(Err("bad".into())));
    assert!(matches!(told[0], Action::Tell(Note::ReloadFailed { serves: FIRST, .. })), "{told:?}");
}

#[test]
fn each_worker_goes_on_where_it_was() {
    let mut server = Server::serving(4);
    server.ended(0, CRASH);
    server.report(1, Report::Draining);
    server.now += Duration::from_secs(10);
    let life = |server: &Server, slot| server.supervisor.life(SlotIndex(slot), server.now).map(|life| (life.life, life.owed));
    let lives = |server: &Server| (0..6).map(|slot| life(server, slot)).collect::<Vec<_>>();
    let before = lives(&server);
    let left = |seconds| Some(Duration::from_secs(seconds));
    assert_eq!(before[0], Some((Life::Booting { left: left(50) }, true)));
    assert_eq!(before[1], Some((Life::Leaving { left: left(20), hurried: false }, false)));
    assert_eq!(before[2], Some((Life::Ready { ago: Duration::from_secs(10) }, true)));
    assert_eq!(before[5], None);
    assert_eq!(lives(&in_next_program(&server)), before);
}
