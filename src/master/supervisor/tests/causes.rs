//! Why a worker has ended, for the counters: what it was told before decides, else how it ended.

use super::*;
use crate::channel::Breach;

const KILLED: Exit = Exit::Signal { number: libc::SIGKILL, core: false };

impl Server {
    #[track_caller]
    fn assert_cause(&self, slot: usize, exit: Exit, cause: ExitCause) {
        assert_eq!(self.supervisor.cause(SlotIndex(slot), exit), Some(cause));
    }
}

#[test]
fn a_sudden_end_is_named_by_how_it_came() {
    let server = Server::serving(1);
    server.assert_cause(0, CRASH, ExitCause::Crashed);
    server.assert_cause(0, KILLED, ExitCause::Killed);
    server.assert_cause(0, Exit::Code(0), ExitCause::Exited);
    assert_eq!(server.supervisor.cause(SlotIndex(7), CRASH), None, "no worker of this server");
}

#[test]
fn a_worker_that_cannot_boot_or_makes_no_progress_is_no_crash() {
    let mut server = Server::starting(1);
    server.assert_cause(0, KILLED, ExitCause::BootFailed);
    server.after(BOOT_TIMEOUT);
    server.assert_cause(0, CRASH, ExitCause::BootFailed);
    let mut server = Server::serving(1);
    server.event(Event::Stuck { slot: SlotIndex(0), hang: Hang::Silent(GRACEFUL) });
    server.assert_cause(0, CRASH, ExitCause::Timeout);
    let mut server = Server::serving(1);
    server.event(Event::Broken { slot: SlotIndex(0), breach: Breach::TooMany });
    server.assert_cause(0, KILLED, ExitCause::Crashed);
}

#[test]
fn a_worker_that_wore_out_ends_for_that_and_for_nothing_later() {
    let wears = [
        (Report::Worn, ExitCause::MaxRequests),
        (Report::Starved, ExitCause::Crashed),
        (Report::Dismissed, ExitCause::Dismissed),
    ];
    for (report, cause) in wears {
        let mut server = Server::serving(1);
        server.report(0, report);
        server.ready(1);
        server.assert_cause(0, Exit::Code(0), cause);
        server.assert_cause(0, CRASH, ExitCause::Crashed);
        server.asked(OperatorRequest::Stop);
        server.assert_cause(0, Exit::Code(0), cause);
        server.assert_cause(1, Exit::Code(0), ExitCause::Stop);
        server.asked(OperatorRequest::QuickStop);
        server.asked(OperatorRequest::QuickStop);
        server.assert_cause(0, KILLED, cause);
    }
    let mut server = Server::serving(1);
    server.event(Event::Worn { slot: SlotIndex(0), wear: Wear::Memory(1) });
    server.ready(1);
    server.assert_cause(0, Exit::Code(0), ExitCause::MaxRss);
}

#[test]
fn reloads_upgrades_and_smaller_numbers_are_told_apart() {
    let mut server = Server::reloading(policy(1));
    server.ready(1);
    server.assert_cause(0, Exit::Code(0), ExitCause::Reload);
    let mut server = Server::serving(2);
    server.asked(OperatorRequest::FewerWorkers);
    server.assert_cause(1, Exit::Code(0), ExitCause::Scale);
    let mut server = Server::serving(1);
    server.supervisor.reload_for_upgrade();
    server.event(Event::Read(Ok(policy(1))));
    server.ready(1);
    server.assert_cause(0, Exit::Code(0), ExitCause::Upgrade);
}

#[test]
fn a_stop_ends_the_reading_of_the_configuration() {
    let mut server = Server::serving(1);
    server.asked(OperatorRequest::Reload);
    assert!(server.asked(OperatorRequest::Stop).contains(&Action::EndReading));
    assert_eq!(server.event(Event::Read(Ok(policy(1)))), [], "nobody wants to know");
    let mut server = Server::reloading(policy(1));
    assert!(!server.asked(OperatorRequest::Stop).contains(&Action::EndReading));
}
