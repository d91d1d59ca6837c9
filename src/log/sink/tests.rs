//! What each kind of place makes of whole lines, also when its reader stays away.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use nix::errno::Errno;

use super::write::whole_lines;
use super::*;

/// A sink over the writing end of a pipe, and the reading end.
fn piped() -> (Sink, File) {
    let (reader, writer) = io::pipe().expect("a pipe");
    (Sink::over(File::from(OwnedFd::from(writer))).expect("a sink"), File::from(OwnedFd::from(reader)))
}

/// The longest wait for a reader that a test is sure of, however busy the machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn nonblocking(fd: &impl AsFd) {
    set_flags(fd, OFlag::O_NONBLOCK);
}

fn set_flags(fd: &impl AsFd, flags: OFlag) {
    use nix::fcntl::{FcntlArg, fcntl};
    fcntl(fd, FcntlArg::F_SETFL(flags)).expect("F_SETFL");
}

#[test]
fn a_file_is_created_for_owner_and_group_and_appended_to() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("access.log");
    for line in [b"one\n", b"two\n"] {
        Sink::open(&LogTarget::File(path.clone())).expect("it opens").write(line);
    }
    assert_eq!(std::fs::read(&path).expect("it exists"), b"one\ntwo\n");
    let mode = std::fs::metadata(&path).expect("it exists").permissions().mode();
    assert_eq!(mode & 0o7757 & !0o640, 0, "{mode:o}");
}

#[test]
fn a_missing_directory_is_an_error() {
    let error = Sink::open(&LogTarget::File("/nonexistent/x.log".into())).expect_err("no such directory");
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[test]
fn batches_for_a_pipe_are_whole_lines_of_at_most_pipe_buf() {
    let line = |len: usize| [vec![b'x'; len - 1], vec![b'\n']].concat();
    assert_eq!(whole_lines(&line(10)), 10);
    assert_eq!(whole_lines(&line(100).repeat(41)), 4000);
    assert_eq!(whole_lines(&[line(PIPE_BUF), line(5)].concat()), PIPE_BUF);
    assert_eq!(whole_lines(&[line(PIPE_BUF + 1), line(5)].concat()), PIPE_BUF + 1);
    assert_eq!(whole_lines(&vec![b'x'; 5000]), 5000);
}

#[test]
fn lines_of_several_writers_do_not_tear() {
    const WRITERS: usize = 4;
    const BATCHES: usize = 200;
    let (sink, reader) = piped();
    std::thread::scope(|scope| {
        for id in 0..WRITERS {
            let sink = Sink::over(sink.file.try_clone().expect("dup")).expect("a sink");
            scope.spawn(move || {
                let letter = b'a' + id as u8;
                let batch: Vec<u8> = (0..30).flat_map(|n| [vec![letter; 300 + n * 7], vec![b'\n']].concat()).collect();
                for _ in 0..BATCHES {
                    sink.write(&batch);
                    while sink.is_behind() {
                        sink.finish();
                    }
                }
            });
        }
        drop(sink);
        let mut lines = 0;
        for line in BufReader::new(reader).split(b'\n') {
            let line = line.expect("the pipe is read");
            assert!(line.iter().all(|b| *b == line[0]), "a torn line: {}", String::from_utf8_lossy(&line));
            lines += 1;
        }
        assert_eq!(lines, WRITERS * BATCHES * 30);
    });
}

#[test]
fn a_reader_that_stays_away_costs_lines_that_are_counted_and_said_as_soon_as_it_reads() {
    for (line, said) in [("2026 plain line\n", "lines lost here: Resource temp"), ("{\"a\":1}\n", "\"lost_lines\":")] {
        let line = format!("{}{line}", &line[..1]).repeat(20);
        let (sink, mut reader) = piped();
        nonblocking(&reader);
        let mut written = 0_u64;
        while sink.lost.load(Relaxed) < 7 * 20 {
            sink.write(line.as_bytes());
            written += 20;
        }
        let lost = sink.lost.load(Relaxed);
        let mut text = Vec::new();
        while sink.is_behind() {
            let end = reader.read_to_end(&mut text).expect_err("a writer is left");
            assert_eq!(end.kind(), io::ErrorKind::WouldBlock);
            sink.catch_up_now();
        }
        sink.write(b"the next line\n");
        drop(sink);
        // A child that another test has just forked holds the writer until it executes its program.
        set_flags(&reader, OFlag::empty());
        reader.read_to_end(&mut text).expect("the writer has gone");
        let text = String::from_utf8(text).expect("text");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len() as u64, written - lost + 2, "all others are there");
        let [.., notice, next] = lines[..] else { panic!("{text}") };
        assert!(notice.contains(said) && notice.contains(&lost.to_string()), "{notice}");
        assert_eq!(next, "the next line");
        assert!(lines[..lines.len() - 2].iter().all(|whole| line.starts_with(&format!("{whole}\n"))), "whole lines, in order");
    }
}

#[test]
fn a_late_reader_loses_nothing_and_nobody_waits_for_it() {
    let (sink, reader) = piped();
    let batch = [vec![b'x'; 1023], vec![b'\n']].concat().repeat(4);
    let began = Instant::now();
    for _ in 0..200 {
        sink.write(&batch);
    }
    assert!(sink.is_waiting() && began.elapsed() < PATIENCE, "it has waited");
    let read = std::thread::spawn(move || BufReader::new(reader).lines().count());
    while sink.is_behind() {
        sink.finish();
    }
    assert_eq!(sink.lost.load(Relaxed), 0);
    drop(sink);
    assert_eq!(read.join().expect("the reader ends"), 800);
}

#[test]
fn what_a_reader_that_left_did_not_get_is_lost_and_counted() {
    let (sink, reader) = piped();
    while !sink.is_waiting() {
        sink.write(&[vec![b'x'; PIPE_BUF - 1], vec![b'\n']].concat());
    }
    sink.write(b"one\ntwo\n");
    drop(reader);
    sink.catch_up_now();
    assert_eq!((sink.lost.load(Relaxed), sink.is_waiting(), sink.is_behind()), (3, false, true));
    assert_eq!(sink.error.load(Relaxed), Errno::EPIPE as i32);
}

#[test]
fn a_child_of_the_process_does_not_write_what_its_parent_keeps() {
    use crate::sys::process::{alone_in_test, fork_in_test, wait_in_test};
    let alone = alone_in_test();
    let (sink, mut reader) = piped();
    while !sink.is_waiting() {
        sink.write(&[vec![b'x'; PIPE_BUF - 1], vec![b'\n']].concat());
    }
    // As if another thread had it at the moment of the fork.
    let lock = sink.backlog.lock().expect("it is free");
    let child = fork_in_test(&alone, |_| {
        sink.write(b"of the child\n");
        i32::from(sink.is_waiting() || sink.lost.load(Relaxed) != 1)
    });
    assert_eq!(wait_in_test(child), crate::sys::process::Exit::Code(0));
    drop(lock);
    nonblocking(&reader);
    let mut text = Vec::new();
    while sink.is_behind() {
        let _ = reader.read_to_end(&mut text);
        sink.catch_up_now();
    }
    let _ = reader.read_to_end(&mut text);
    assert!(text.len().is_multiple_of(PIPE_BUF) && !text.contains(&b'c'));
}

#[test]
fn a_named_pipe_is_opened_without_its_reader_and_keeps_lines_for_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a named pipe");
    let shared = Sink::open(&LogTarget::File(path.clone())).expect("it opens");
    let (own, apart) = (shared.own().expect("it opens"), shared.apart().expect("it opens"));
    own.write(b"one\n");
    apart.write(b"two\n");
    let reader = File::open(&path).expect("it is there");
    drop((shared, own, apart));
    let lines: Vec<String> = BufReader::new(reader).lines().map(|line| line.expect("text")).collect();
    assert_eq!(lines, ["one", "two"]);
}

#[test]
fn a_line_cut_by_a_full_disk_does_not_swallow_the_next() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("x.log");
    let sink = Sink::open(&LogTarget::File(path.clone())).expect("it opens");
    sink.write(b"half a li");
    sink.torn.store(true, Relaxed);
    sink.owe(1);
    sink.error.store(Errno::ENOSPC as i32, Relaxed);
    sink.write(b"whole\n");
    let text = std::fs::read_to_string(&path).expect("it exists");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines[0], lines[2]), ("half a li", "whole"));
    assert!(lines[1].contains("1 lines lost here: No space left on device"), "{text}");
}

#[test]
fn a_log_opened_anew_gets_what_is_written_from_then_on() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("x.log");
    let target = LogTarget::File(path.clone());
    let sink = Sink::open(&target).expect("it opens");
    sink.write(b"one\n");
    std::fs::rename(&path, dir.path().join("x.log.1")).expect("it is ours");
    sink.write(b"two\n");
    sink.replace(&Sink::open(&target).expect("it opens")).expect("dup3");
    sink.write(b"three\n");
    assert_eq!(std::fs::read(dir.path().join("x.log.1")).expect("it is there"), b"one\ntwo\n");
    assert_eq!(std::fs::read(&path).expect("it is there"), b"three\n");
}

#[test]
fn a_system_log_started_anew_gets_what_follows() {
    use std::os::unix::net::UnixDatagram;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("log");
    let first = UnixDatagram::bind(&path).expect("a socket");
    let sink = Sink::open(&LogTarget::Syslog(path.clone())).expect("it connects");
    let next = |socket: &UnixDatagram| {
        let mut buffer = [0; 1024];
        let len = socket.recv(&mut buffer).expect("a datagram");
        String::from_utf8_lossy(&buffer[..len]).into_owned()
    };
    sink.write(b"one\ntwo\n");
    assert!(next(&first).ends_with(" access - one") && next(&first).ends_with(" access - two"));
    drop(first);
    sink.write(b"nobody listens\n");
    std::fs::remove_file(&path).expect("it is ours");
    let second = UnixDatagram::bind(&path).expect("a socket");
    sink.write(b"three\n");
    assert!(next(&second).contains("1 records lost here"));
    assert!(next(&second).ends_with(" access - three"));
}

#[test]
fn no_sink_waits_whatever_others_do_to_the_flags() {
    use std::os::unix::net::{UnixDatagram, UnixStream};
    let (pipe, _reader) = piped();
    let (shared, _peer) = UnixStream::pair().expect("a pair");
    let socket = Sink::over(File::from(OwnedFd::from(shared))).expect("a sink");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("log");
    let _silent = UnixDatagram::bind(&path).expect("a socket");
    let syslog = Sink::open(&LogTarget::Syslog(path)).expect("it connects");
    for (what, shared) in [("pipe", &pipe), ("socket", &socket), ("syslog", &syslog), ("pipe of another user", &pipe)] {
        let own = if what == "pipe of another user" { Sink::over(shared.file.try_clone().expect("dup")) } else { shared.own() };
        let own = own.expect("it opens");
        let began = Instant::now();
        for _ in 0..400 {
            // What a worker that was broken into does between any two writes.
            set_flags(&shared.file, OFlag::empty());
            own.write(&[vec![b'x'; 4000], vec![b'\n']].concat());
        }
        assert!(own.lost.load(Relaxed) > 0, "{what}: nobody reads");
        assert!(began.elapsed() < PATIENCE, "{what}: it has waited");
    }
}

#[test]
fn the_masters_lines_and_those_of_others_go_one_behind_the_other_into_a_file_that_was_not_opened_to_append() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("x.log");
    let shared = Sink::over(File::create(&path).expect("it is made")).expect("a sink");
    shared.write(b"one\n");
    let (own, apart) = (shared.own().expect("it opens"), shared.apart().expect("it opens"));
    own.write(b"two\n");
    shared.write(b"three\n");
    set_flags(&shared.file, OFlag::empty());
    apart.write(b"four\n");
    own.write(b"five\n");
    assert_eq!(std::fs::read(&path).expect("it is there"), b"one\ntwo\nthree\nfour\nfive\n");
}

#[test]
fn a_closed_pipe_is_no_panic() {
    let (sink, reader) = piped();
    drop(reader);
    sink.write(b"a\nb\n");
    sink.write(b"c\n");
    assert_eq!(sink.lost.load(Relaxed), 3);
}
