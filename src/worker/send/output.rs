//! Bytes of an answer that the socket did not take at once.
//!
//! The loop advances an application only while nothing waits here, so that memory stays bounded by one block. `write()` alone can
//! produce while the client does not read: its bytes beyond [`MEMORY_MAX`] go to a temporary file, so that neither memory grows
//! nor the application waits.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;

use crate::net::stream::Stream;

use crate::worker::app::{Gone, StorageError};
use crate::worker::body::disk::{Disk, TempFile};

/// Bytes of `write()` kept in memory for one connection before they go to a file.
const MEMORY_MAX: usize = 256 * 1024;

/// Whether everything was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Nothing is left.
    All,
    /// The socket is full; the bytes that it took show whether the client reads at all.
    Blocked {
        /// Whether any byte was taken.
        progress: bool,
    },
}

/// The bytes that wait to be sent.
#[derive(Debug, Default)]
pub struct Output {
    bytes: Vec<u8>,
    at: usize,
    overflow: Option<Overflow>,
    /// The bytes after the file.
    behind: Option<Box<Output>>,
}

/// The part of the output that is in a file, after `bytes`.
#[derive(Debug)]
struct Overflow {
    file: TempFile,
    read: u64,
}

impl Output {
    /// Appends bytes: to memory, or beyond the limit and when there is no memory, to a file on this disk.
    pub fn push(&mut self, data: &[u8], disk: &Disk) -> Result<(), StorageError> {
        if let Some(behind) = &mut self.behind {
            return behind.push(data, disk);
        }
        if self.overflow.is_none() && !self.has_memory(data.len()) {
            self.overflow = Some(Overflow { file: disk.file()?, read: 0 });
        }
        match &mut self.overflow {
            Some(overflow) => overflow.file.append(data)?,
            None => self.bytes.extend_from_slice(data),
        }
        Ok(())
    }

    /// Whether so many bytes more may stay in memory, and there is as much.
    fn has_memory(&mut self, more: usize) -> bool {
        if self.bytes.len() - self.at + more > MEMORY_MAX {
            return false;
        }
        // Bytes that were sent are removed before the rest grows, or a client that keeps pace but never catches up would cost
        // memory for the whole answer. This moves fewer bytes than were sent since the last time.
        if self.at > self.bytes.len() / 2 {
            self.bytes.drain(..self.at);
            self.at = 0;
        }
        self.bytes.try_reserve(more).is_ok()
    }

    /// Puts bytes before all others, as [`Output::push`] puts them after.
    pub fn put_first(&mut self, data: &[u8], disk: &Disk) -> Result<(), StorageError> {
        let mut first = Self::default();
        first.push(data, disk)?;
        let rest = std::mem::replace(self, first);
        self.append(Box::new(rest));
        Ok(())
    }

    /// Appends all that waits in another one.
    pub fn append(&mut self, other: Box<Self>) {
        match &mut self.behind {
            Some(behind) => behind.append(other),
            None => self.behind = Some(other),
        }
    }

    /// Sends until nothing is left or the socket is full.
    pub fn send(&mut self, stream: &Stream) -> io::Result<Sent> {
        let mut progress = false;
        while self.at < self.bytes.len() {
            match written(stream.send(&self.bytes[self.at..]))? {
                Some(sent) => self.at += sent,
                None => return Ok(Sent::Blocked { progress }),
            }
            progress = true;
        }
        if let Some(overflow) = &mut self.overflow {
            while overflow.read < overflow.file.len() {
                let left = overflow.file.len() - overflow.read;
                match stream.send_file(overflow.file.file().as_fd(), overflow.read, left) {
                    Ok(sent) => overflow.read += sent,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Sent::Blocked { progress }),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(error),
                }
                progress = true;
            }
        }
        match self.behind.take() {
            Some(behind) => {
                *self = *behind;
                match self.send(stream)? {
                    Sent::Blocked { progress: more } => Ok(Sent::Blocked { progress: progress || more }),
                    Sent::All => Ok(Sent::All),
                }
            }
            None => flush(stream, progress),
        }
    }
}

/// Sends the bytes that the stream itself keeps; `progress`: it has taken some just now.
#[inline]
pub fn flush(stream: &Stream, progress: bool) -> io::Result<Sent> {
    match stream.flush() {
        Ok(()) => Ok(Sent::All),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Sent::Blocked { progress }),
        Err(error) => Err(error),
    }
}

/// The bytes that a write took: `None` when the socket is full.
#[inline]
fn written(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        Ok(sent) => Ok(Some(sent)),
        Err(error) => nothing_sent(error),
    }
}

#[cold]
fn nothing_sent(error: io::Error) -> io::Result<Option<usize>> {
    match error.kind() {
        io::ErrorKind::WouldBlock => Ok(None),
        io::ErrorKind::Interrupted => Ok(Some(0)),
        _ => Err(error),
    }
}

/// Sends `bytes` in as few calls as the socket allows; returns how many it took. See [`send_parts`].
#[inline(always)] // likewise
pub fn send(stream: &Stream, bytes: &[u8]) -> io::Result<usize> {
    send_by(bytes, |bytes| stream.send(bytes))
}

/// As [`send`], but bytes that fill no segment may leave only with the end of the stream, which must follow at once.
#[inline]
pub fn send_last(stream: &Stream, bytes: &[u8]) -> io::Result<usize> {
    send_by(bytes, |bytes| stream.send_last(bytes))
}

#[inline(always)] // a call of its own would cost each answer 27 instructions
fn send_by(bytes: &[u8], mut write: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<usize> {
    while !bytes.is_empty() {
        match written(write(bytes))? {
            Some(0) => continue,
            Some(sent) => return Ok(sent),
            None => break,
        }
    }
    Ok(0)
}

/// Sends `parts` in order in as few calls as the socket allows; returns how many bytes it took in all.
/// Fewer than there are means that the socket is full: a short write ends the attempt, for its edge comes with free space.
pub fn send_parts(stream: &Stream, parts: [&[u8]; 3]) -> io::Result<usize> {
    let total: usize = parts.iter().map(|part| part.len()).sum();
    let mut sent = 0;
    while sent < total {
        let mut skip = sent;
        let rest = parts.map(|part| {
            let cut = skip.min(part.len());
            skip -= cut;
            &part[cut..]
        });
        let lone = rest.iter().filter(|part| !part.is_empty()).count() == 1;
        let result = match rest.iter().find(|part| !part.is_empty()) {
            Some(part) if lone => stream.send(part),
            _ => stream.send_slices(&rest.map(IoSlice::new)),
        };
        match written(result)? {
            Some(0) => continue,
            Some(count) => {
                sent += count;
                if count < rest.iter().map(|part| part.len()).sum() {
                    break;
                }
            }
            None => break,
        }
    }
    Ok(sent)
}

/// As [`crate::worker::link::deliver`], with `send`, which returns how many bytes the socket took.
#[inline]
pub fn deliver_by(
    disk: &Disk,
    output: &mut Option<Box<Output>>,
    out: &mut Vec<u8>,
    send: impl FnOnce(&[u8]) -> io::Result<usize>,
) -> Result<(), Gone> {
    let sent = match output {
        Some(_) => 0,
        None => send(out).map_err(|_| Gone::Client)?,
    };
    if sent < out.len() {
        output.get_or_insert_default().push(&out[sent..], disk).map_err(Gone::Storage)?;
    }
    out.clear();
    Ok(())
}
