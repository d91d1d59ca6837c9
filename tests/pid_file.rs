//! The pid file: which servers start while another one has it, and which start although an old one is left. A lock on the file
//! decides, and not the number in it.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;

use common::server::{Running, STOP_LIMIT, Server, signal_to};
use common::{SOON, procfs, wait_for};

/// A server with its pid file there.
fn server(file: &Path) -> Server {
    Server::new("probe").options(["--pid", file.to_str().expect("UTF-8")])
}

/// A place for the pid file, which no server removes.
fn place() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn text(file: &Path) -> String {
    fs::read_to_string(file).expect("it is there")
}

/// A second server is refused, by the name of the first, and changes nothing.
#[track_caller]
fn assert_refused(file: &Path, running: i32) {
    let before = text(file);
    server(file).run_to_end().failed(1, &[&format!("a server is running already, pid {running}")]);
    assert_eq!(text(file), before);
    assert_eq!(fs::read_dir(file.parent().expect("a directory")).expect("it is there").count(), 1, "no draft is left");
}

/// The file is this server's now, and leaves with it.
#[track_caller]
fn assert_owned(file: &Path, server: Running) {
    assert_eq!(text(file), format!("{}\n", server.pid()));
    server.stop();
    assert!(!file.exists());
}

/// Another program, ended with the test.
struct Program(Child);

impl Program {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("it can be run"))
    }

    fn pid(&self) -> i32 {
        self.0.id() as i32
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_number_of_another_program_keeps_nobody_from_starting() {
    let dir = place();
    let (file, log) = (dir.path().join("pid"), dir.path().join("tapster.log"));
    fs::write(&log, "").expect("the temp directory is writable");
    let viewer = Program::start(Command::new("tail").arg("-f").arg(&log));
    let other = Server::new("probe").start();
    for pid in [viewer.pid(), other.pid()] {
        fs::write(&file, format!("{pid}\n")).expect("the temp directory is writable");
        assert_owned(&file, server(&file).start());
    }
    other.stop();
}

#[test]
fn what_a_power_failure_leaves_of_the_file_keeps_nobody_from_starting() {
    let dir = place();
    let file = dir.path().join("pid");
    for left in ["", "\n", "\0\0\0\0\0\0", "1234567\0\0\0"] {
        fs::write(&file, left).expect("the temp directory is writable");
        assert_owned(&file, server(&file).start());
    }
}

#[test]
fn a_running_server_has_the_file_whatever_is_written_to_it() {
    let dir = place();
    let file = dir.path().join("pid");
    let first = server(&file).start();
    assert_refused(&file, first.pid());
    for scribbled in ["\n", "1\n"] {
        fs::write(&file, scribbled).expect("the temp directory is writable");
        assert_refused(&file, first.pid());
    }
    fs::write(&file, format!("{}\n", first.pid())).expect("the temp directory is writable");
    assert_owned(&file, first);
}

#[test]
fn the_file_stays_locked_across_an_upgrade_and_its_workers_have_no_descriptor_of_it() {
    let dir = place();
    let file = dir.path().join("pid");
    let first = server(&file).start();
    let inode = fs::metadata(&file).expect("it is there").ino();
    for count in 1..=2 {
        first.signal(Signal::SIGUSR2);
        first.log().wait(&[&format!("reload done: all workers are of generation {}", count + 1)]);
        assert_refused(&file, first.pid());
        for worker in first.workers() {
            let fds = fs::read_dir(format!("/proc/{worker}/fd")).expect("it lives").flatten();
            let has = fds.into_iter().any(|fd| fs::metadata(fd.path()).is_ok_and(|meta| meta.ino() == inode));
            assert!(!has, "a worker could write another number into it");
        }
    }
    assert_owned(&file, first);
}

#[test]
fn a_dead_server_has_no_file_although_its_children_live_on() {
    let source = "import os, time\n\
                  def app(environ, start_response):\n\
                  \x20   if not os.fork():\n\
                  \x20       os.setsid()\n\
                  \x20       time.sleep(600)\n\
                  \x20   start_response('200 OK', [])\n\
                  \x20   return [b'']\n";
    let dir = place();
    let file = dir.path().join("pid");
    let mut first = Server::source(source).options(["--pid", file.to_str().expect("UTF-8")]).start();
    assert_eq!(first.get("/").status, 200);
    let child = first.workers().into_iter().flat_map(procfs::children).next().expect("it was forked");
    signal_to(first.pid(), Signal::SIGKILL);
    first.wait(STOP_LIMIT);
    assert!(file.exists() && procfs::alive(child));
    // At once: the workers may not have noticed yet.
    let second = server(&file).start();
    assert!(procfs::alive(child));
    signal_to(child, Signal::SIGKILL);
    first.wait_for_empty_group(SOON);
    assert_owned(&file, second);
}

#[test]
fn of_servers_that_start_at_once_one_gets_the_file() {
    let dir = place();
    let file = dir.path().join("pid");
    for left in [None, Some("1\n")] {
        if let Some(left) = left {
            fs::write(&file, left).expect("the temp directory is writable");
        }
        let mut all: Vec<Running> = (0..5).map(|_| server(&file).start_without_waiting()).collect();
        let ready: Vec<bool> = all.iter_mut().map(Running::becomes_ready).collect();
        assert_eq!(ready.iter().filter(|ready| **ready).count(), 1, "{ready:?}");
        let winner = all.remove(ready.iter().position(|ready| *ready).expect("one is"));
        for mut loser in all {
            assert_eq!(loser.wait(STOP_LIMIT).code(), Some(1), "{}", loser.log().text());
        }
        assert_eq!(text(&file), format!("{}\n", winner.pid()));
        winner.signal(Signal::SIGTERM);
        let mut winner = winner;
        assert_eq!(winner.wait(STOP_LIMIT).code(), Some(0));
        assert_eq!(fs::read_dir(dir.path()).expect("it is there").count(), 0, "nothing is left");
    }
}

#[test]
fn links_and_foreign_files_are_refused_and_left_alone() {
    let dir = place();
    let (file, precious) = (dir.path().join("pid"), dir.path().join("precious"));
    for content in ["precious\n", "1\n", ""] {
        fs::write(&precious, content).and_then(|()| symlink(&precious, &file)).expect("the temp directory is writable");
        server(&file).run_to_end().failed(1, &["pid: it is a link, not a file of a server; remove it, or give another file"]);
        assert_eq!(text(&precious), content);
        fs::remove_file(&file).expect("it is ours");
    }
    fs::rename(&precious, &file).and_then(|()| fs::write(&file, "precious")).expect("the temp directory is writable");
    server(&file).run_to_end().failed(1, &["holds no process id"]);
    assert_eq!(text(&file), "precious");
    fs::remove_file(&file).and_then(|()| fs::create_dir(&file)).expect("it is ours");
    server(&file).run_to_end().failed(1, &["pid: it is a directory"]);
}

#[test]
fn a_lock_for_reading_which_anybody_can_take_is_not_that_of_a_server() {
    let dir = place();
    let file = dir.path().join("pid");
    fs::write(&file, "1\n").expect("the temp directory is writable");
    let script = "import fcntl, sys, time\n\
                  file = open(sys.argv[1])\n\
                  fcntl.lockf(file, fcntl.LOCK_SH); fcntl.flock(file, fcntl.LOCK_EX)\n\
                  print('locked', flush=True); time.sleep(600)\n";
    let mut reader = Program::start(Command::new(env!("BUILD_PYTHON_EXECUTABLE")).args(["-c", script]).arg(&file));
    let mut locked = [0; 6];
    std::io::Read::read_exact(reader.0.stdout.as_mut().expect("piped"), &mut locked).expect("it says so");
    assert_owned(&file, server(&file).start());
}

#[test]
fn a_file_that_was_moved_away_or_replaced_is_not_removed() {
    let dir = place();
    let (file, moved) = (dir.path().join("pid"), dir.path().join("moved"));
    let mut first = server(&file).start();
    fs::rename(&file, &moved).expect("it is ours");
    // Removing the file of a running server lets a second one start.
    let second = server(&file).start();
    first.signal(Signal::SIGTERM);
    assert_eq!(first.wait(STOP_LIMIT).code(), Some(0));
    wait_for("the first to leave", SOON, || (!procfs::alive(first.pid())).then_some(()));
    assert!(moved.exists());
    assert_owned(&file, second);
}
