//! Writing to a sink: in pieces that stay whole and never wait, in their order, and with a count of what was lost.

use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::process;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{MutexGuard, PoisonError};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};

use crate::config::Level;
use crate::log::{stamp, syslog};
use crate::sys::{fd, time};

use super::backlog::{Backlog, PIPE_BUF, lines};
use super::{LAST_WAIT, Sink, SinkKind};

/// Why a piece is not written.
struct Stop {
    /// Number of the error.
    error: i32,
    /// Bytes that were written before.
    done: usize,
}

impl Sink {
    /// Hands one record with its header to the system log.
    pub(in crate::log) fn send(&self, record: &[u8]) {
        self.deliver(record);
    }

    /// Appends `lines` (one or more whole lines): to a file in one write, to a pipe in writes that the kernel keeps whole
    /// (PIPE_BUF, pipe(7)). What there is no room for waits for its reader, or is counted and said on the next success.
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
            let (batch, later) = rest.split_at(if self.regular.load(Relaxed) { rest.len() } else { whole_lines(rest) });
            self.deliver(batch);
            rest = later;
        }
    }

    /// Writes a piece behind all that waits, keeps it, or loses it.
    #[inline]
    fn deliver(&self, piece: &[u8]) {
        if self.behind.load(Relaxed) {
            self.deliver_behind(piece);
        } else if let Err(stop) = self.push(piece) {
            self.stopped(piece, &stop, None);
        }
    }

    #[cold]
    fn deliver_behind(&self, piece: &[u8]) {
        let Some(mut backlog) = self.own_backlog() else {
            // A child of this process has no backlog.
            if let Err(stop) = self.push(piece) {
                self.lose_rest(piece, &stop);
            }
            return;
        };
        if self.catch_up(&mut backlog) {
            if let Err(stop) = self.push(piece) {
                self.stopped(piece, &stop, Some(backlog));
            }
        } else if self.lost.load(Relaxed) > 0 || !backlog.keep(piece, self.syslog.is_none()) {
            // Once a line is lost those after it are too, until that can be said in its place.
            if !backlog.is_empty() {
                self.error.store(Errno::EAGAIN as i32, Relaxed);
            }
            self.lose(piece);
        }
    }

    /// A write has failed: what there was no room for is kept, the rest of another failure is lost.
    #[cold]
    fn stopped(&self, piece: &[u8], stop: &Stop, backlog: Option<MutexGuard<'_, Backlog>>) {
        if stop.error == Errno::EAGAIN as i32
            && let Some(mut backlog) = backlog.or_else(|| self.own_backlog())
            && self.lost.load(Relaxed) == 0
            && backlog.keep(&piece[stop.done..], self.syslog.is_none())
        {
            self.behind.store(true, Relaxed);
            return;
        }
        self.lose_rest(piece, stop);
    }

    /// Whether something waits for its reader, so that [`Self::catch_up_now`] is to be called when the descriptor can be written.
    pub fn is_waiting(&self) -> bool {
        self.behind.load(Relaxed) && self.own_backlog().is_some_and(|backlog| !backlog.is_empty())
    }

    /// Whether something waits or was lost, and the log does not have it yet.
    #[inline]
    pub fn is_behind(&self) -> bool {
        self.behind.load(Relaxed)
    }

    /// Writes what waits, as far as there is room, and says what was lost.
    #[cold]
    pub fn catch_up_now(&self) {
        if let Some(mut backlog) = self.own_backlog() {
            self.catch_up(&mut backlog);
        }
    }

    /// The process is about to end, or to become another program: waits a moment for a reader that is late.
    pub fn finish(&self) {
        let deadline = Instant::now() + LAST_WAIT;
        while self.is_behind() {
            self.catch_up_now();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.is_waiting() {
                return;
            }
            let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)];
            // A signal says nothing of the reader.
            let _ = poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
        }
    }

    /// The lines that are lost if this sink ends now.
    pub fn unwritten(&self) -> u64 {
        let waiting =
            if self.is_behind() { self.own_backlog().map_or(0, |backlog| backlog.lines(self.syslog.is_some())) } else { 0 };
        self.lost.load(Relaxed) + waiting
    }

    /// So many lines were lost before it was opened.
    pub fn owe(&self, lines: u64) {
        if lines > 0 {
            self.error.store(Errno::EAGAIN as i32, Relaxed);
            self.lost.fetch_add(lines, Relaxed);
            self.behind.store(true, Relaxed);
        }
    }

    /// The backlog, in the process that it belongs to. A child that it forked may find the lock taken for ever.
    fn own_backlog(&self) -> Option<MutexGuard<'_, Backlog>> {
        let own = process::id() == self.owner;
        own.then(|| self.backlog.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes what waits, then says how much was lost; whether the next piece may follow.
    fn catch_up(&self, backlog: &mut Backlog) -> bool {
        while let Some(piece) = backlog.first() {
            match self.push(piece) {
                Ok(()) => {
                    let all = piece.len();
                    backlog.written(all);
                }
                Err(Stop { error, done }) => {
                    backlog.written(done);
                    if error == Errno::EAGAIN as i32 {
                        return false;
                    }
                    self.error.store(error, Relaxed);
                    self.torn.fetch_or(backlog.is_torn(), Relaxed);
                    self.count_lost(backlog.give_up(self.syslog.is_some()));
                }
            }
        }
        let even = self.lost.load(Relaxed) == 0 || self.say_lost();
        if even {
            self.behind.store(false, Relaxed);
        }
        even
    }

    /// Writes all of `bytes`, without waiting.
    fn push(&self, bytes: &[u8]) -> Result<(), Stop> {
        let mut done = 0;
        let mut reconnected = false;
        while done < bytes.len() {
            match self.put(&bytes[done..]) {
                Ok(0) => return Err(Stop { error: Errno::EIO as i32, done }),
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(Stop { error: Errno::EAGAIN as i32, done }),
                Err(e) => match &self.syslog {
                    Some(syslog) if !reconnected && syslog::is_gone(&e) && syslog.reconnect(&self.file).is_ok() => {
                        reconnected = true;
                    }
                    Some(_) | None => return Err(Stop { error: e.raw_os_error().unwrap_or(Errno::EIO as i32), done }),
                },
            }
        }
        Ok(())
    }

    fn put(&self, bytes: &[u8]) -> io::Result<usize> {
        if self.regular.load(Relaxed) {
            return (&self.file).write(bytes);
        }
        match self.way {
            SinkKind::Own => (&self.file).write(bytes),
            SinkKind::Now => fd::write_now(&self.file, bytes, PIPE_BUF),
            SinkKind::Send => Ok(send(self.file.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)?),
        }
    }

    /// Counts what is left of a piece as lost.
    fn lose_rest(&self, piece: &[u8], stop: &Stop) {
        self.error.store(stop.error, Relaxed);
        self.torn.store(stop.done > 0 && piece[stop.done - 1] != b'\n', Relaxed);
        self.lose(&piece[stop.done..]);
    }

    /// Counts the lines that are dropped.
    fn lose(&self, lost: &[u8]) {
        // In the middle of a line its shape cannot be seen, and does not change.
        if lost.first().is_some_and(|first| *first == b'{' || first.is_ascii_digit()) {
            self.json.store(lost[0] == b'{', Relaxed);
        }
        self.count_lost(if self.syslog.is_some() { 1 } else { lines(lost) });
        self.behind.store(true, Relaxed);
    }

    fn count_lost(&self, lines: u64) {
        self.lost.fetch_add(lines, Relaxed);
        self.lost_ever.fetch_add(lines, Relaxed);
    }

    /// Lines that were ever lost here.
    pub fn lost_ever(&self) -> u64 {
        self.lost_ever.load(Relaxed)
    }

    /// Tries to write the line that says how many were lost; returns whether the sink works again.
    fn say_lost(&self) -> bool {
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
        if self.json.load(Relaxed) {
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
            Err(Stop { error, done }) => {
                self.error.store(error, Relaxed);
                if done > 0 {
                    self.torn.store(true, Relaxed);
                }
                false
            }
        }
    }
}

/// Length of the longest run of whole lines at the start of `bytes` that fits into PIPE_BUF; of the first line if that alone is
/// longer.
pub(super) fn whole_lines(bytes: &[u8]) -> usize {
    if bytes.len() <= PIPE_BUF {
        return bytes.len();
    }
    memchr::memrchr(b'\n', &bytes[..PIPE_BUF]).or_else(|| memchr::memchr(b'\n', bytes)).map_or(bytes.len(), |end| end + 1)
}
