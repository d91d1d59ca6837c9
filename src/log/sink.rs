//! One log descriptor: appends whole lines, each batch in one write, and can be given a new file under its feet.
//!
//! Several processes write to the same file or pipe, so what must stay whole has to leave in one write(2):
//! - a regular file, opened with O_APPEND: the kernel places each write after the last, whatever its length;
//! - anything else (pipe, socket of a service manager, terminal): as many whole lines as fit into PIPE_BUF, which pipe(7)
//!   promises not to mix with others. A longer line leaves in one write of its own; Linux keeps it whole as long as the pipe
//!   has room for it, and may mix it with others when the writer has to wait for the reader in the middle of it;
//! - the system log: one datagram for each line, each record with its header in front.
//!
//! Nothing but the number of the descriptor is kept between writes and no lock is taken, so a new file can be put under the
//! number (dup3) while others write: each write goes to the old file or to the new one, whole.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::process;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};

use crate::config::LogTarget;
use crate::sys::{fd, time};

use super::stamp;
use super::syslog::{self, Syslog};
use crate::config::Level;

/// Longest write that a pipe does not mix with those of other processes, in bytes (Linux: limits.h, pipe(7)).
pub const PIPE_BUF: usize = 4096;

/// How long a write waits for the reader of a full non-blocking pipe: enough for one that is only late, short beside what a
/// client would notice. A reader that stays away costs this once, until it reads again; what one write waits in all is no more
/// than this.
const FULL_PIPE_WAIT: Duration = Duration::from_millis(100);

/// Access of new files: the group may read (adm, say), others may not, because logs name clients.
const FILE_MODE: u32 = 0o640;

/// How a sink writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// As the open file has it: it may wait.
    Plain,
    /// Never waits, whatever the flags of the open file, which others may change.
    Now,
    /// As [`Way::Now`], for a socket.
    Send,
}

/// A place for log lines.
#[derive(Debug)]
pub struct Sink {
    /// Its number stays the same for the sink's life; the file of that number may change.
    file: File,
    /// Whether that is a regular file.
    regular: AtomicBool,
    /// The system log, if that is what the sink writes to.
    syslog: Option<Syslog>,
    way: Way,
    /// How long a write waits for the reader of a full pipe.
    patience: Duration,
    /// Lines that could not be written since the last success.
    lost: AtomicU64,
    /// Why, the latest error number.
    error: AtomicI32,
    /// Whether the last write ended in the middle of a line.
    torn: AtomicBool,
}

impl Sink {
    /// Opens the target (a file: append, create, mode 0640). Standard output and error are duplicated, so that the sink's
    /// descriptor is its own.
    pub fn open(target: &LogTarget) -> io::Result<Self> {
        let file = match target {
            LogTarget::Stdout => duplicate(&io::stdout())?,
            LogTarget::Stderr => duplicate(&io::stderr())?,
            // std opens with O_CLOEXEC.
            LogTarget::File(path) => OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(path)?,
            LogTarget::Syslog(path) => {
                let (syslog, socket) = Syslog::connect(path)?;
                return Ok(Self { syslog: Some(syslog), ..Self::over(File::from(socket))? });
            }
        };
        Self::over(file)
    }

    /// A sink over an open descriptor.
    fn over(file: File) -> io::Result<Self> {
        let regular = AtomicBool::new(file.metadata()?.is_file());
        let (lost, error, torn) = (AtomicU64::new(0), AtomicI32::new(0), AtomicBool::new(false));
        Ok(Self { file, regular, syslog: None, way: Way::Plain, patience: FULL_PIPE_WAIT, lost, error, torn })
    }

    /// The same place for the master, whose writes neither wait for long nor depend on the flags of an open file that workers
    /// have: an open file of its own, or where that cannot be had (a socket, a pipe of another user) calls that do not wait.
    pub fn own(&self) -> io::Result<Self> {
        if let Some(syslog) = &self.syslog {
            let (syslog, socket) = syslog.again()?;
            return Ok(Self { syslog: Some(syslog), way: Way::Send, ..Self::over(File::from(socket))? });
        }
        let kind = self.file.metadata()?.file_type();
        if kind.is_file() {
            // What others write to the first open file must be appended to what is written to the second.
            fd::add_flags(&self.file, OFlag::O_APPEND)?;
            return Self::over(self.opened_again(OFlag::empty()).or_else(|_| self.file.try_clone())?);
        }
        if kind.is_socket() {
            return Ok(Self { way: Way::Send, ..Self::over(self.file.try_clone()?)? });
        }
        match self.opened_again(OFlag::O_NONBLOCK) {
            Ok(file) => Self::over(file),
            Err(_) => Ok(Self { way: Way::Now, ..Self::over(self.file.try_clone()?)? }),
        }
    }

    /// The same place for one worker: where others could harm it by the open file (a file, the system log), through one of its
    /// own.
    pub fn apart(&self) -> io::Result<Self> {
        if let Some(syslog) = &self.syslog {
            let (syslog, socket) = syslog.again()?;
            return Ok(Self { syslog: Some(syslog), ..Self::over(File::from(socket))? });
        }
        let file = if self.regular.load(Relaxed) { self.opened_again(OFlag::empty()).ok() } else { None };
        Self::over(file.map_or_else(|| self.file.try_clone(), Ok)?)
    }

    /// The file opened once more, whatever its name is now (proc_pid_fd(5)).
    fn opened_again(&self, flags: OFlag) -> io::Result<File> {
        let flags = flags | OFlag::O_NOCTTY;
        OpenOptions::new().append(true).custom_flags(flags.bits()).open(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }

    /// Puts another descriptor of the same kind (the log, opened again) in the place of this one. Writes of other threads
    /// continue meanwhile, each to the old file or to the new one.
    pub fn replace(&self, with: &impl AsFd) -> io::Result<()> {
        fd::replace(&self.file, with)?;
        self.regular.store(self.file.metadata()?.is_file(), Relaxed);
        Ok(())
    }

    /// Whether it stays one file until it is replaced: the system log is connected again.
    pub fn is_file(&self) -> bool {
        self.syslog.is_none()
    }

    /// The system log, which gets each record with a header of its own.
    pub(super) fn syslog(&self) -> Option<&Syslog> {
        self.syslog.as_ref()
    }

    /// Hands one record with its header to the system log.
    pub(super) fn send(&self, record: &[u8]) {
        if self.lost.load(Relaxed) > 0 && !self.say_lost(record) {
            return self.lose(record);
        }
        if let Err((error, _)) = self.push(record) {
            self.error.store(error, Relaxed);
            self.lose(record);
        }
    }

    /// Appends `lines` (one or more whole lines): to a file in one write, to a pipe in writes that the kernel keeps whole
    /// (PIPE_BUF, pipe(7)). A short write is continued; what cannot be written is counted and said on the next success.
    pub fn write(&self, lines: &[u8]) {
        if let Some(syslog) = &self.syslog {
            let mut record = Vec::with_capacity(256);
            for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                record.clear();
                syslog.header(&mut record, Level::Info, syslog::Kind::Access, process::id());
                record.extend_from_slice(line);
                self.send(&record);
            }
            return;
        }
        let mut rest = lines;
        while !rest.is_empty() {
            if self.lost.load(Relaxed) > 0 && !self.say_lost(rest) {
                self.lose(rest);
                return;
            }
            let (batch, later) = rest.split_at(if self.regular.load(Relaxed) { rest.len() } else { whole_lines(rest) });
            if let Err((error, done)) = self.push(batch) {
                self.error.store(error, Relaxed);
                self.torn.store(done > 0 && batch[done - 1] != b'\n', Relaxed);
                self.lose(&rest[done..]);
                return;
            }
            rest = later;
        }
    }

    /// Writes all of `bytes`; else the error's number and how many bytes were written.
    fn push(&self, bytes: &[u8]) -> Result<(), (i32, usize)> {
        let mut done = 0;
        let mut deadline = None;
        let mut reconnected = false;
        while done < bytes.len() {
            match self.put(&bytes[done..]) {
                Ok(0) => return Err((Errno::EIO as i32, done)),
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && self.lost.load(Relaxed) == 0 && !is_over(deadline) => {
                    self.await_room(*deadline.get_or_insert_with(|| Instant::now() + self.patience));
                }
                Err(e) => match &self.syslog {
                    Some(syslog) if !reconnected && syslog::is_gone(&e) && syslog.reconnect(&self.file).is_ok() => {
                        reconnected = true;
                    }
                    Some(_) | None => return Err((e.raw_os_error().unwrap_or(Errno::EIO as i32), done)),
                },
            }
        }
        Ok(())
    }

    fn put(&self, bytes: &[u8]) -> io::Result<usize> {
        match self.way {
            Way::Plain => (&self.file).write(bytes),
            Way::Now => fd::write_now(&self.file, bytes, PIPE_BUF),
            Way::Send => Ok(send(self.file.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)?),
        }
    }

    /// Waits for room in a full pipe. The next write shows whether there is any.
    fn await_room(&self, deadline: Instant) {
        let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // poll(2) is never restarted after a signal (signal(7)), and a signal says nothing of the reader.
            if poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) != Err(Errno::EINTR) {
                return;
            }
        }
    }

    /// Counts the lines that are dropped.
    fn lose(&self, lines: &[u8]) {
        self.lost.fetch_add(memchr::memchr_iter(b'\n', lines).count().max(1) as u64, Relaxed);
    }

    /// Tries to write the line that says how many were lost; returns whether the sink works again.
    fn say_lost(&self, next: &[u8]) -> bool {
        let lost = self.lost.load(Relaxed);
        let mut notice = Vec::with_capacity(160);
        if self.torn.load(Relaxed) {
            notice.push(b'\n');
        }
        let why = io::Error::from_raw_os_error(self.error.load(Relaxed));
        let mut time = Vec::with_capacity(32);
        stamp::precise(&mut time, time::wall());
        let time = String::from_utf8_lossy(&time);
        let pid = process::id();
        if let Some(syslog) = &self.syslog {
            syslog.header(&mut notice, Level::Warning, syslog::Kind::Error, pid);
            notice.extend_from_slice(format!("{lost} records lost here: {why}").as_bytes());
            return self.say(lost, &notice);
        }
        // The notice takes the shape of the lines around it, so that a reader of a JSON log is not given anything else.
        if next.first() == Some(&b'{') {
            let object = serde_json::json!({ "time": time, "pid": pid, "lost_lines": lost, "error": why.to_string() });
            notice.extend_from_slice(object.to_string().as_bytes());
        } else {
            notice.extend_from_slice(format!("{time} [{pid}] [log] WARNING {lost} lines lost here: {why}").as_bytes());
        }
        notice.push(b'\n');
        self.say(lost, &notice)
    }

    /// Writes the notice of so many lost lines; whether that worked.
    fn say(&self, lost: u64, notice: &[u8]) -> bool {
        match self.push(notice) {
            Ok(()) => {
                // Another thread may have lost more meanwhile: only what was said is taken off.
                self.lost.fetch_sub(lost, Relaxed);
                self.torn.store(false, Relaxed);
                true
            }
            Err((error, done)) => {
                self.error.store(error, Relaxed);
                if done > 0 {
                    self.torn.store(true, Relaxed);
                }
                false
            }
        }
    }
}

impl AsFd for Sink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn is_over(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| deadline <= Instant::now())
}

fn duplicate(fd: &impl AsFd) -> io::Result<File> {
    let owned: OwnedFd = fd.as_fd().try_clone_to_owned()?;
    Ok(File::from(owned))
}

/// Length of the longest run of whole lines at the start of `bytes` that fits into PIPE_BUF; of the first line if that alone is
/// longer.
fn whole_lines(bytes: &[u8]) -> usize {
    if bytes.len() <= PIPE_BUF {
        return bytes.len();
    }
    memchr::memrchr(b'\n', &bytes[..PIPE_BUF]).or_else(|| memchr::memchr(b'\n', bytes)).map_or(bytes.len(), |end| end + 1)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read};
    use std::os::unix::fs::PermissionsExt;

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
    fn a_reader_that_stays_away_costs_lines_that_are_counted_and_said() {
        for (line, said) in [("plain line\n", "lines lost here: Resource temp"), ("{\"a\":1}\n", "\"lost_lines\":")] {
            let (sink, mut reader) = piped();
            nonblocking(&sink.file);
            nonblocking(&reader);
            let mut written = 0_u64;
            let lost = loop {
                sink.write(line.as_bytes());
                written += 1;
                match sink.lost.load(Relaxed) {
                    0 => {}
                    lost if lost >= 7 => break lost,
                    _ => {}
                }
            };
            let mut text = Vec::new();
            let end = reader.read_to_end(&mut text).expect_err("a writer is left");
            assert_eq!(end.kind(), io::ErrorKind::WouldBlock);
            assert_eq!(text.len() as u64, (written - lost) * line.len() as u64);
            sink.write(line.as_bytes());
            drop(sink);
            text.clear();
            // A child that another test has just forked holds the writer until it executes its program.
            set_flags(&reader, OFlag::empty());
            reader.read_to_end(&mut text).expect("the writer has gone");
            let text = String::from_utf8(text).expect("text");
            let lines: Vec<&str> = text.lines().collect();
            assert_eq!(lines.len(), 2, "{text}");
            assert!(lines[0].contains(said) && lines[0].contains(&lost.to_string()), "{text}");
            assert_eq!(lines[1], line.trim_end());
        }
    }

    #[test]
    fn a_late_reader_of_a_nonblocking_pipe_loses_nothing() {
        let (mut sink, reader) = piped();
        nonblocking(&sink.file);
        sink.patience = PATIENCE;
        let batch = [vec![b'x'; 1023], vec![b'\n']].concat().repeat(4);
        let read = std::thread::spawn(move || BufReader::new(reader).lines().count());
        for _ in 0..256 {
            sink.write(&batch);
        }
        assert_eq!(sink.lost.load(Relaxed), 0);
        drop(sink);
        assert_eq!(read.join().expect("the reader ends"), 1024);
    }

    #[test]
    fn a_signal_does_not_end_the_wait_for_a_late_reader() {
        use nix::sys::pthread::{pthread_kill, pthread_self};
        use nix::sys::signal::Signal;
        const SIGNALS: usize = 50;
        signal_hook::flag::register(Signal::SIGURG as i32, std::sync::Arc::new(AtomicBool::new(false))).expect("a handler");
        let (mut sink, mut reader) = piped();
        nonblocking(&sink.file);
        sink.patience = PATIENCE;
        let (sender, full) = std::sync::mpsc::channel();
        let writer = std::thread::spawn(move || {
            let line = [vec![b'x'; PIPE_BUF - 1], vec![b'\n']].concat();
            while (&sink.file).write(&line).is_ok() {}
            sender.send(pthread_self()).expect("the test waits");
            sink.write(b"late\n");
            sink.lost.load(Relaxed)
        });
        let thread = full.recv().expect("the pipe is full");
        for _ in 0..SIGNALS {
            pthread_kill(thread, Signal::SIGURG).expect("the writer waits for its reader");
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut text = Vec::new();
        reader.read_to_end(&mut text).expect("the pipe is read");
        assert_eq!(writer.join().expect("the writer ends"), 0);
        assert!(text.ends_with(b"\nlate\n"));
    }

    #[test]
    fn a_line_cut_by_a_full_disk_does_not_swallow_the_next() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("x.log");
        let sink = Sink::open(&LogTarget::File(path.clone())).expect("it opens");
        sink.write(b"half a li");
        sink.torn.store(true, Relaxed);
        sink.lost.store(1, Relaxed);
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
    fn the_masters_own_sink_does_not_wait_whatever_others_do_to_the_flags() {
        use std::os::unix::net::{UnixDatagram, UnixStream};
        let (pipe, _reader) = piped();
        let (shared, _peer) = UnixStream::pair().expect("a pair");
        let socket = Sink::over(File::from(OwnedFd::from(shared))).expect("a sink");
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("log");
        let _silent = UnixDatagram::bind(&path).expect("a socket");
        let syslog = Sink::open(&LogTarget::Syslog(path)).expect("it connects");
        let closed = Sink { way: Way::Now, ..Sink::over(pipe.file.try_clone().expect("dup")).expect("a sink") };
        for (what, shared) in [("pipe", &pipe), ("socket", &socket), ("syslog", &syslog), ("pipe of another user", &closed)] {
            let own = if what == "pipe of another user" {
                Ok(Sink { way: Way::Now, ..Sink::over(shared.file.try_clone().expect("dup")).expect("a sink") })
            } else {
                shared.own()
            };
            let own = own.expect("it opens");
            let began = Instant::now();
            for _ in 0..200 {
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
}
