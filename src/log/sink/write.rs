//! Writing to a sink: in pieces that stay whole, with a short wait for a reader that is late, and with a count of what was lost.

use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::process;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};

use crate::config::Level;
use crate::log::{stamp, syslog};
use crate::sys::{fd, time};

use super::{Sink, SinkKind};

/// Longest write that a pipe does not mix with those of other processes, in bytes (Linux: limits.h, pipe(7)).
pub const PIPE_BUF: usize = 4096;

impl Sink {
    /// Hands one record with its header to the system log.
    pub(in crate::log) fn send(&self, record: &[u8]) {
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
                syslog.header(&mut record, Level::Info, syslog::RecordKind::Access, process::id());
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
            SinkKind::Plain => (&self.file).write(bytes),
            SinkKind::Now => fd::write_now(&self.file, bytes, PIPE_BUF),
            SinkKind::Send => Ok(send(self.file.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)?),
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
            syslog.header(&mut notice, Level::Warning, syslog::RecordKind::Error, pid);
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

fn is_over(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| deadline <= Instant::now())
}

/// Length of the longest run of whole lines at the start of `bytes` that fits into PIPE_BUF; of the first line if that alone is
/// longer.
pub(super) fn whole_lines(bytes: &[u8]) -> usize {
    if bytes.len() <= PIPE_BUF {
        return bytes.len();
    }
    memchr::memrchr(b'\n', &bytes[..PIPE_BUF]).or_else(|| memchr::memchr(b'\n', bytes)).map_or(bytes.len(), |end| end + 1)
}
