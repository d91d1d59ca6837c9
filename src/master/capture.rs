//! `--capture-output`: what workers, the hook process and the programs that they start print, as records of the error log.
//!
//! Each of them gets a pipe as its standard output and error, which the master reads: so a line has its time and its process,
//! cannot pretend to be a record of the server, follows the log when that is opened again, and the last words of a crash are not
//! lost.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::log::error::{Log, Who};
use crate::sys::process::Pid;

/// Longest line in bytes; what is longer is cut into several records.
const LINE_MAX: usize = 8 * 1024;

/// Bytes read from one pipe in one turn of the master's loop, so that a worker that prints without end does not keep it from its
/// duties: what a pipe holds.
const TURN_MAX: usize = 64 * 1024;

/// Most pipes of the workers of one slot, and of molds: the last one's, and those of processes that ended before it and whose programs
/// still run.
const PIPES_OF_ONE: usize = 8;

/// The pipes of all workers whose output may still come.
#[derive(Debug, Default)]
pub struct Captures {
    pipes: Vec<CapturePipe>,
}

/// The master's end of the pipe of one process.
#[derive(Debug)]
pub struct CapturePipe {
    who: Who,
    pid: Pid,
    reader: File,
    /// The start of a line.
    line: Vec<u8>,
}

/// Makes the pipe of a process: the master's end and its own.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = io::pipe()?;
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((reader.into(), writer.into()))
}

impl Captures {
    /// Reads the pipe of this process from now on, a worker or a mold.
    pub fn add(&mut self, who: Who, pid: Pid, reader: OwnedFd) {
        // What a worker has started may print after its end. It cannot have all the descriptors that the master may open.
        let earlier = self.pipes.iter().filter(|pipe| pipe.who == who).count();
        if earlier >= PIPES_OF_ONE
            && let Some(oldest) = self.pipes.iter().position(|pipe| pipe.who == who)
        {
            self.pipes.remove(oldest);
        }
        self.pipes.push(CapturePipe::new(who, pid, reader));
    }

    /// Who writes to the pipe, its process id and the master's end, for each.
    pub fn pipes(&self) -> impl Iterator<Item = (Who, Pid, BorrowedFd<'_>)> {
        self.pipes.iter().map(|pipe| (pipe.who, pipe.pid, pipe.as_fd()))
    }

    /// What to wait for.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.pipes.iter().map(AsFd::as_fd)
    }

    /// Writes what has come to the log, and forgets pipes that nobody writes to any more.
    pub fn read(&mut self, log: &Log) {
        self.pipes.retain_mut(|pipe| pipe.read(log));
    }
}

impl AsFd for CapturePipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

impl CapturePipe {
    /// What this process prints comes from `reader`, which does not block.
    pub fn new(who: Who, pid: Pid, reader: OwnedFd) -> Self {
        Self { who, pid, reader: reader.into(), line: Vec::new() }
    }

    /// Writes what has come to the log, at most [`TURN_MAX`] bytes. Whether more may come.
    pub fn read(&mut self, log: &Log) -> bool {
        let mut buffer = [0; LINE_MAX];
        let mut total = 0;
        while total < TURN_MAX {
            match self.reader.read(&mut buffer) {
                Ok(0) => {
                    self.end_line(log);
                    return false;
                }
                Ok(count) => {
                    total += count;
                    self.take(&buffer[..count], log);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
        true
    }

    fn take(&mut self, bytes: &[u8], log: &Log) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") || self.line.len() >= LINE_MAX {
                self.end_line(log);
            }
        }
    }

    fn end_line(&mut self, log: &Log) {
        let text = String::from_utf8_lossy(&self.line);
        let text = text.trim_end_matches(['\n', '\r']);
        if !text.is_empty() {
            log.relay(self.who, self.pid.as_raw().unsigned_abs(), text);
        }
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use super::*;
    use crate::config::Level;
    use crate::config::LogTarget;
    use crate::log::sink::Sink;

    #[test]
    fn each_line_becomes_a_record_of_its_worker_and_the_pipe_is_forgotten_at_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("error.log");
        let sink = Sink::open(&LogTarget::File(path.clone())).unwrap();
        let log = Log::new(Arc::new(sink), Level::Critical, Who::Master);
        let mut captures = Captures::default();
        let (reader, writer) = pipe().unwrap();
        captures.add(Who::Worker(3), Pid::from_raw(77), reader);
        let mut writer = File::from(writer);
        writer.write_all(b"one\n\ntwo\r\nthr").unwrap();
        captures.read(&log);
        writer.write_all(b"ee\nhalf").unwrap();
        captures.read(&log);
        writer.write_all(&vec![b'x'; LINE_MAX]).unwrap();
        drop(writer);
        captures.read(&log);
        assert_eq!(captures.descriptors().count(), 0);
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().map(|line| line.split_once(' ').unwrap().1).collect();
        assert_eq!(lines[..3], ["one", "two", "three"].map(|line| format!("[77] [worker 3] INFO {line}")));
        assert!(lines[3].starts_with("[77] [worker 3] INFO halfxxx"), "{text}");
        assert_eq!(lines.iter().map(|line| line.matches('x').count()).sum::<usize>(), LINE_MAX);
    }
}
