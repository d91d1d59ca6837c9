//! A request body on its way to the application: in memory up to a limit, then in a temporary file.
//!
//! An allocation whose size the client influences may fail; then the body goes to the file too.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::net::stream::{Got, Stream};

use super::disk::{Disk, TempFile};
use crate::worker::app::{RequestBody, StorageError};

/// Memory that every body may have, in bytes: a client that announces much and sends nothing must not make us allocate it.
const RESERVE_MAX: usize = 64 * 1024;

/// Memory that the bodies of all connections of a worker may have beyond that, in bytes. When it is used up, bodies go to files:
/// a client that opens many connections and ends no body cannot have `--body-buffer` for each.
const BUDGET: usize = 64 * 1024 * 1024;

/// Bytes of a body read at once, where they bypass the read buffer.
const READ_MAX: usize = 256 * 1024;

/// Bytes gathered before the file is written: a body in tiny chunks must not cost a system call for each. Larger pieces are
/// written without being copied.
const FILE_BUFFER: usize = 16 * 1024;

/// The rest of a worker's memory for bodies, and the place of those beyond it.
#[derive(Clone, Debug)]
pub struct BodyBudget {
    memory: Arc<AtomicUsize>,
    /// The temporary files.
    pub disk: Disk,
}

impl BodyBudget {
    /// A full budget. One body may have its `buffer` in any case.
    pub fn new(buffer: usize, disk: Disk) -> Self {
        Self { memory: Arc::new(AtomicUsize::new(BUDGET.max(buffer))), disk }
    }
}

/// A part of a budget, given back when dropped.
#[derive(Debug, Default)]
pub struct Lease(Option<(BodyBudget, usize)>);

impl Lease {
    /// Takes so many bytes more; returns whether there were as many.
    fn grow(&mut self, budget: &BodyBudget, bytes: usize) -> bool {
        let less = |left: usize| left.checked_sub(bytes);
        if budget.memory.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_err() {
            return false;
        }
        self.0.get_or_insert_with(|| (budget.clone(), 0)).1 += bytes;
        true
    }

    /// Gives so many of its bytes back.
    fn shrink(&mut self, bytes: usize) {
        if let Some((budget, held)) = &mut self.0 {
            *held -= bytes;
            budget.memory.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some((budget, bytes)) = &self.0 {
            budget.memory.fetch_add(*bytes, Ordering::Relaxed);
        }
    }
}

/// A file with a buffer of bytes that are not written yet.
#[derive(Debug)]
struct Gathered {
    file: TempFile,
    /// Written when its capacity is used up. Without memory for it everything is written at once.
    pending: Vec<u8>,
}

impl Gathered {
    fn new(disk: &Disk) -> Result<Self, StorageError> {
        let file = disk.file()?;
        let mut pending = Vec::new();
        let _none_is_as_good = pending.try_reserve_exact(FILE_BUFFER);
        Ok(Self { file, pending })
    }

    fn push(&mut self, data: &[u8]) -> Result<(), StorageError> {
        if data.len() > self.pending.capacity() - self.pending.len() {
            self.flush()?;
        }
        if data.len() >= self.pending.capacity() {
            return self.file.append(data);
        }
        self.pending.extend_from_slice(data);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        if !self.pending.is_empty() {
            self.file.append(&self.pending)?;
            self.pending.clear();
        }
        Ok(())
    }
}

/// Collects one body.
#[derive(Debug)]
pub struct Spool {
    memory: Vec<u8>,
    file: Option<Gathered>,
    len: u64,
    /// Bytes kept in memory (`--body-buffer`).
    buffer: usize,
    budget: BodyBudget,
    lease: Lease,
}

impl Spool {
    /// An empty spool; `expected` is the announced length, if there is one.
    pub fn new(buffer: usize, budget: &BodyBudget, expected: Option<u64>) -> Self {
        let reserve = expected.unwrap_or(0).min(RESERVE_MAX.min(buffer) as u64) as usize;
        let (budget, lease) = (budget.clone(), Lease::default());
        let mut memory = Vec::new();
        let _asked_again_when_needed = memory.try_reserve_exact(reserve);
        Self { memory, file: None, len: 0, buffer, budget, lease }
    }

    /// Makes room for so many bytes more in memory, if they may stay there and there is as much.
    fn reserve(&mut self, more: usize) -> bool {
        let needed = self.memory.len() + more;
        if needed <= self.memory.capacity() {
            return true;
        }
        if needed > self.buffer {
            return false;
        }
        // Doubled, so that a body is moved a few times only while it grows.
        let capacity = needed.max(self.memory.capacity() * 2).min(self.buffer);
        let handed_over = self.memory.capacity().max(RESERVE_MAX);
        let lease = capacity.saturating_sub(handed_over);
        if lease > 0 && !self.lease.grow(&self.budget, lease) {
            return false;
        }
        let reserved = self.memory.try_reserve_exact(capacity - self.memory.len()).is_ok();
        if !reserved && lease > 0 {
            self.lease.shrink(lease);
        }
        reserved
    }

    /// Whether the next bytes can be read straight to memory.
    pub fn takes_more(&mut self) -> bool {
        self.file.is_none() && self.memory.len() < self.buffer && self.reserve(1)
    }

    /// Reads at most `left` bytes straight to memory, after [`Spool::takes_more`].
    pub fn receive(&mut self, stream: &Stream, left: u64) -> io::Result<Got> {
        let most = READ_MAX.min(self.buffer - self.memory.len()).min(usize::try_from(left).unwrap_or(usize::MAX));
        let max = if self.reserve(most) { most } else { most.min(self.memory.capacity() - self.memory.len()) };
        let got = stream.receive_behind(&mut self.memory, max)?;
        self.len += got.count as u64;
        Ok(got)
    }

    /// The part of the budget that its memory has.
    pub fn lease(&mut self) -> Lease {
        std::mem::take(&mut self.lease)
    }

    /// Bytes collected.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Appends data; fails when the temporary file cannot be made or written.
    pub fn push(&mut self, data: &[u8]) -> Result<(), StorageError> {
        self.len += data.len() as u64;
        if let Some(file) = &mut self.file {
            return file.push(data);
        }
        if self.reserve(data.len()) {
            self.memory.extend_from_slice(data);
            return Ok(());
        }
        let mut file = Gathered::new(&self.budget.disk)?;
        file.push(&self.memory)?;
        file.push(data)?;
        self.memory = Vec::new();
        self.lease = Lease::default();
        self.file = Some(file);
        Ok(())
    }

    /// The complete body, a file at its start.
    pub fn finish(self) -> Result<RequestBody, StorageError> {
        match self.file {
            Some(mut file) => {
                file.flush()?;
                Ok(RequestBody::File(file.file.into_body()))
            }
            None if self.memory.is_empty() => Ok(RequestBody::Empty),
            None => Ok(RequestBody::Memory(self.memory)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::scoreboard::Scoreboard;
    use crate::worker::body::disk::Storage;

    fn budget(buffer: usize) -> BodyBudget {
        BodyBudget::new(
            buffer,
            Disk::new(Arc::new(Scoreboard::new(1, 1).unwrap()), 0, Storage::Directory, u64::MAX, &Default::default()),
        )
    }

    fn spool(buffer: usize, expected: Option<u64>) -> Spool {
        Spool::new(buffer, &budget(buffer), expected)
    }

    #[test]
    fn a_small_body_stays_in_memory() {
        let mut spool = spool(8, Some(8));
        spool.push(b"abcd").unwrap();
        spool.push(b"efgh").unwrap();
        match spool.finish().unwrap() {
            RequestBody::Memory(bytes) => assert_eq!(bytes, b"abcdefgh"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_large_body_goes_to_a_file_and_keeps_its_order() {
        let mut spool = spool(8, None);
        for part in ["abcd", "efgh", "ijkl", "mnop"] {
            spool.push(part.as_bytes()).unwrap();
        }
        assert_eq!(spool.len(), 16);
        match spool.finish().unwrap() {
            RequestBody::File(mut body) => {
                let mut text = String::new();
                body.file.read_to_string(&mut text).unwrap();
                assert_eq!((text.as_str(), body.len), ("abcdefghijklmnop", 16));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn tiny_pieces_and_large_ones_keep_their_order_in_the_file() {
        let mut spool = spool(1, None);
        let mut expected = Vec::new();
        for number in 0..1000_usize {
            let piece = vec![number as u8; if number % 100 == 0 { FILE_BUFFER + number } else { number % 7 }];
            spool.push(&piece).unwrap();
            expected.extend_from_slice(&piece);
        }
        match spool.finish().unwrap() {
            RequestBody::File(mut body) => {
                let mut bytes = Vec::new();
                body.file.read_to_end(&mut bytes).unwrap();
                assert!(bytes == expected && body.len == expected.len() as u64);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn no_bytes_are_an_empty_body() {
        assert!(matches!(spool(8, None).finish().unwrap(), RequestBody::Empty));
    }

    #[test]
    fn an_announced_length_does_not_reserve_it_all() {
        assert!(spool(1 << 30, Some(1 << 30)).memory.capacity() <= RESERVE_MAX);
    }

    #[test]
    fn a_body_that_gets_no_memory_goes_to_a_file_and_holds_no_part_of_the_budget() {
        // More than any address space has: the memory is refused, as it is when little is left.
        let buffer = usize::MAX / 4;
        let budget = budget(buffer);
        let mut spool = Spool::new(buffer, &budget, None);
        spool.push(b"abc").unwrap();
        assert!(!spool.reserve(buffer - 100));
        assert_eq!(budget.memory.load(Ordering::Relaxed), buffer);
    }

    #[test]
    fn bodies_share_a_budget_and_go_to_files_when_it_is_used_up() {
        const MB: usize = 1024 * 1024;
        let budget = budget(MB);
        let mut handed_over = Vec::new();
        for _ in 0..200 {
            let mut body = Spool::new(MB, &budget, None);
            body.push(&[b'x'; MB]).unwrap();
            let lease = body.lease();
            handed_over.push((body.finish().unwrap(), lease));
        }
        let in_memory = handed_over.iter().filter(|(body, _)| matches!(body, RequestBody::Memory(_))).count();
        assert!((BUDGET / MB..BUDGET / MB + 10).contains(&in_memory), "{in_memory} bodies are in memory");
        drop(handed_over);
        assert_eq!(budget.memory.load(Ordering::Relaxed), BUDGET, "all of it is given back");
    }

    #[test]
    fn a_body_read_past_the_buffers_is_whole_in_memory_or_in_a_file() {
        for buffer in [100_000, 300_000, 1_000_000] {
            let (reader, mut writer) = std::os::unix::net::UnixStream::pair().unwrap();
            let reader = Stream::from(crate::net::socket::PlainSocket::Unix(mio::net::UnixStream::from_std(reader)));
            let sent: Vec<u8> = (0..500_000_usize).map(|number| number as u8).collect();
            let sending = std::thread::spawn({
                let sent = sent.clone();
                move || writer.write_all(&sent).unwrap()
            });
            let mut body = spool(buffer, Some(sent.len() as u64));
            while body.len() < sent.len() as u64 {
                if body.takes_more() {
                    let left = sent.len() as u64 - body.len();
                    assert!(body.receive(&reader, left).unwrap().count > 0);
                } else {
                    let mut piece = [0; 1000];
                    let count = reader.receive(&mut piece).unwrap().count;
                    body.push(&piece[..count]).unwrap();
                }
            }
            sending.join().unwrap();
            let mut got = Vec::new();
            match body.finish().unwrap() {
                RequestBody::Memory(bytes) => got = bytes,
                RequestBody::File(mut body) => drop(body.file.read_to_end(&mut got).unwrap()),
                RequestBody::Empty => {}
            }
            assert!(got == sent, "buffer of {buffer}");
        }
    }
}
