//! What a worker is born with, whichever way: descriptors, signals, environment and title, of its own and of nobody else.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use common::procfs;
use common::server::{Running, Server};

/// The open files of a process as /proc shows them, without its standard streams and what the test itself has got from whoever
/// started it.
fn files(pid: i32) -> Vec<(i32, String)> {
    let inherited: BTreeSet<String> = all_files(std::process::id() as i32).into_iter().map(|(_, file)| file).collect();
    let own = |(number, file): &(i32, String)| *number > 2 && !(file.starts_with("pipe:") && inherited.contains(file));
    all_files(pid).into_iter().filter(own).collect()
}

fn all_files(pid: i32) -> Vec<(i32, String)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process lives");
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let link = |number: i32| fs::read_link(format!("/proc/{pid}/fd/{number}")).ok();
    numbers.filter_map(|number| Some((number, link(number)?.display().to_string()))).collect()
}

fn of_kind(files: &[(i32, String)], start: &str) -> BTreeSet<String> {
    files.iter().map(|(_, file)| file.clone()).filter(|file| file.starts_with(start)).collect()
}

fn named(files: &[(i32, String)], name: &str) -> usize {
    files.iter().filter(|(_, file)| file.contains(name)).count()
}

/// What a process and another one have both.
fn common(one: &[(i32, String)], other: &[(i32, String)], start: &str) -> BTreeSet<String> {
    &of_kind(one, start) & &of_kind(other, start)
}

fn server() -> (Server, [PathBuf; 3]) {
    let server = Server::new("probe").workers(3);
    let paths = ["error.log", "access.log", "server.pid"].map(|name| server.temp().join(name));
    let [error, access, pid] = paths.each_ref().map(|path| path.display().to_string());
    let options = ["--error-logfile", &error, "--access-logfile", &access, "--pid", &pid, "--capture-output"];
    (server.options(options), paths)
}

#[track_caller]
fn check_descriptors(server: &Running, [error, access, pid_file]: &[PathBuf; 3]) {
    let master = files(server.pid());
    let workers: Vec<_> = server.workers().into_iter().map(files).collect();
    assert_eq!(workers.len(), 3);
    assert_eq!(named(&master, pid_file.to_str().unwrap()), 1, "the master holds the lock of the pid file: {master:#?}");
    for (index, worker) in workers.iter().enumerate() {
        let has = |name: &str| named(worker, name);
        for (name, count) in [
            (error.to_str().unwrap(), 1),
            (access.to_str().unwrap(), 1),
            (pid_file.to_str().unwrap(), 0),
            ("memfd:tapster-shared", 2),
            ("memfd:stacks", 1),
            ("memfd:", 3),
        ] {
            assert_eq!(has(name), count, "{name}: {worker:#?}");
        }
        // The listening socket, and both ends of the hand-off queue.
        let shared = common(worker, &master, "socket:");
        assert_eq!(shared.len(), 3, "{shared:?} of {worker:#?}");
        // The pipe of its output is its standard output and error; the master reads it, and nobody else has it.
        assert_eq!(common(worker, &master, "pipe:"), BTreeSet::new(), "{worker:#?}");
        for other in workers.iter().skip(index + 1) {
            assert_eq!(common(worker, other, "socket:"), shared, "{worker:#?} and {other:#?}");
            assert_eq!(common(worker, other, "pipe:"), BTreeSet::new(), "{worker:#?} and {other:#?}");
        }
        // Directories of the generation are the master's (and are entered).
        let directories = worker.iter().filter(|(_, file)| file.starts_with('/') && fs::metadata(file).is_ok_and(|m| m.is_dir()));
        assert_eq!(directories.count(), 0, "{worker:#?}");
    }
}

#[test]
fn a_worker_has_the_descriptors_that_it_needs_and_no_other() {
    let (server, paths) = server();
    let server = server.start();
    check_descriptors(&server, &paths);
    // One that comes later is made while the master has channels and pipes of others.
    let victim = server.workers()[1];
    common::server::signal_to(victim, nix::sys::signal::Signal::SIGKILL);
    server.wait_for_end_of(&[victim]);
    common::wait_for("another worker", common::SOON, || {
        let now = server.workers();
        (now.len() == 3 && now.iter().all(|pid| named(&files(*pid), "anon_inode:[eventpoll]") > 0)).then_some(())
    });
    check_descriptors(&server, &paths);
    server.stop();
}

/// Bits of a line of /proc/PID/status, such as `SigBlk`.
fn mask(pid: i32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel shows it");
    u64::from_str_radix(line.trim_start_matches(':').trim(), 16).expect("it is hexadecimal")
}

fn bit(signal: nix::sys::signal::Signal) -> u64 {
    1 << (signal as i32 - 1)
}

#[test]
fn a_worker_blocks_no_signal_ignores_what_means_an_error_and_catches_what_operators_send() {
    use nix::sys::signal::Signal::*;
    let server = Server::new("probe").workers(1).start();
    let worker = server.workers()[0];
    assert_eq!(mask(worker, "SigBlk"), 0);
    // Beyond 31 are those that the C library and the test's own parents have to do with.
    assert_eq!(mask(worker, "SigIgn") & u64::from(u32::MAX >> 1), bit(SIGPIPE) | bit(SIGXFSZ));
    let caught = mask(worker, "SigCgt");
    for signal in [SIGTERM, SIGQUIT, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGTTIN, SIGTTOU, SIGWINCH] {
        assert_ne!(caught & bit(signal), 0, "{signal}");
    }
    for signal in [SIGCHLD, SIGALRM, SIGCONT, SIGTSTP] {
        assert_eq!(caught & bit(signal), 0, "{signal}");
    }
    server.stop();
}

#[test]
fn a_worker_leaves_when_its_master_is_killed() {
    let mut server = Server::new("probe").workers(2).start();
    let workers = server.workers();
    server.signal(nix::sys::signal::Signal::SIGKILL);
    server.wait(common::SOON);
    common::wait_for("the workers to leave", common::SOON, || workers.iter().all(|pid| !procfs::alive(*pid)).then_some(()));
}
