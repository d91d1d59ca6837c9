//! A request body on its way to the application: in memory up to a limit, then in an unlinked temporary file.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::sys::read::read_behind;

use super::app::Body;

/// Memory that every body may have, in bytes: a client that announces much and sends nothing must not make us allocate it.
const RESERVE_MAX: usize = 64 * 1024;

/// Memory for what bodies have beyond that, of all connections of a worker, in bytes. When it is used up, bodies go to files: who
/// opens many connections and ends no body cannot have `--body-buffer` for each.
const BUDGET: usize = 64 * 1024 * 1024;

/// Bytes of a body read at once, where they come past the read buffer.
const READ_MAX: usize = 256 * 1024;

/// Bytes gathered before the file is written: a body in tiny chunks must not cost a system call for each. What comes in larger
/// pieces is written without being copied.
const FILE_BUFFER: usize = 16 * 1024;

/// What is left of a worker's memory for bodies.
#[derive(Clone, Debug)]
pub struct Budget(Arc<AtomicUsize>);

impl Budget {
    /// A budget that is not touched. One body may have its `buffer` in any case.
    pub fn new(buffer: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(BUDGET.max(buffer))))
    }
}

/// A part of a budget, given back when dropped.
#[derive(Debug, Default)]
pub struct Lease(Option<(Budget, usize)>);

impl Lease {
    /// Takes so many bytes more; says whether there were as many.
    fn grow(&mut self, budget: &Budget, bytes: usize) -> bool {
        let less = |left: usize| left.checked_sub(bytes);
        if budget.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_err() {
            return false;
        }
        self.0.get_or_insert_with(|| (budget.clone(), 0)).1 += bytes;
        true
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some((budget, bytes)) = &self.0 {
            budget.0.fetch_add(*bytes, Ordering::Relaxed);
        }
    }
}

/// Collects one body.
#[derive(Debug)]
pub struct Spool {
    memory: Vec<u8>,
    file: Option<BufWriter<File>>,
    len: u64,
    /// Bytes kept in memory (`--body-buffer`).
    buffer: usize,
    budget: Budget,
    lease: Lease,
}

impl Spool {
    /// An empty spool; `expected` is the announced length, if there is one.
    pub fn new(buffer: usize, budget: &Budget, expected: Option<u64>) -> Self {
        let reserve = expected.unwrap_or(0).min(RESERVE_MAX.min(buffer) as u64) as usize;
        let (budget, lease) = (budget.clone(), Lease::default());
        Self { memory: Vec::with_capacity(reserve), file: None, len: 0, buffer, budget, lease }
    }

    /// Makes room for so many bytes more in memory, if they may stay there.
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
        let lent = self.memory.capacity().max(RESERVE_MAX);
        if capacity > lent && !self.lease.grow(&self.budget, capacity - lent) {
            return false;
        }
        self.memory.reserve_exact(capacity - self.memory.len());
        true
    }

    /// Whether what comes next can be read straight to memory.
    pub fn takes_more(&mut self) -> bool {
        self.file.is_none() && self.memory.len() < self.buffer && self.reserve(1)
    }

    /// Reads at most `left` bytes straight to memory, after [`Spool::takes_more`]; returns how many were asked for and came.
    pub fn read(&mut self, fd: BorrowedFd<'_>, left: u64) -> (usize, io::Result<usize>) {
        let most = READ_MAX.min(self.buffer - self.memory.len()).min(usize::try_from(left).unwrap_or(usize::MAX));
        let max = if self.reserve(most) { most } else { self.memory.capacity() - self.memory.len() };
        let result = read_behind(fd, &mut self.memory, max);
        if let Ok(count) = result {
            self.len += count as u64;
        }
        (max, result)
    }

    /// What its memory has of the budget.
    pub fn lease(&mut self) -> Lease {
        std::mem::take(&mut self.lease)
    }

    /// Bytes collected.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Appends data; fails when the temporary file cannot be made or written (a full disk).
    pub fn push(&mut self, data: &[u8]) -> io::Result<()> {
        self.len += data.len() as u64;
        if let Some(file) = &mut self.file {
            return file.write_all(data);
        }
        if self.reserve(data.len()) {
            self.memory.extend_from_slice(data);
            return Ok(());
        }
        let mut file = BufWriter::with_capacity(FILE_BUFFER, tempfile::tempfile()?);
        file.write_all(&self.memory)?;
        file.write_all(data)?;
        self.memory = Vec::new();
        self.lease = Lease::default();
        self.file = Some(file);
        Ok(())
    }

    /// The complete body, a file rewound to its start.
    pub fn finish(self) -> io::Result<Body> {
        match self.file {
            Some(file) => {
                let mut file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
                file.seek(SeekFrom::Start(0))?;
                Ok(Body::File(file, self.len))
            }
            None if self.memory.is_empty() => Ok(Body::Empty),
            None => Ok(Body::Memory(self.memory)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn spool(buffer: usize, expected: Option<u64>) -> Spool {
        Spool::new(buffer, &Budget::new(buffer), expected)
    }

    #[test]
    fn a_small_body_stays_in_memory() {
        let mut spool = spool(8, Some(8));
        spool.push(b"abcd").unwrap();
        spool.push(b"efgh").unwrap();
        match spool.finish().unwrap() {
            Body::Memory(bytes) => assert_eq!(bytes, b"abcdefgh"),
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
            Body::File(mut file, len) => {
                let mut text = String::new();
                file.read_to_string(&mut text).unwrap();
                assert_eq!((text.as_str(), len), ("abcdefghijklmnop", 16));
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
            Body::File(mut file, len) => {
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes).unwrap();
                assert!(bytes == expected && len == expected.len() as u64);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn no_bytes_are_an_empty_body() {
        assert!(matches!(spool(8, None).finish().unwrap(), Body::Empty));
    }

    #[test]
    fn an_announced_length_does_not_reserve_it_all() {
        assert!(spool(1 << 30, Some(1 << 30)).memory.capacity() <= RESERVE_MAX);
    }

    #[test]
    fn bodies_share_a_budget_and_go_to_files_when_it_is_used_up() {
        const MB: usize = 1024 * 1024;
        let budget = Budget::new(MB);
        let mut lent = Vec::new();
        for _ in 0..200 {
            let mut body = Spool::new(MB, &budget, None);
            body.push(&[b'x'; MB]).unwrap();
            let lease = body.lease();
            lent.push((body.finish().unwrap(), lease));
        }
        let in_memory = lent.iter().filter(|(body, _)| matches!(body, Body::Memory(_))).count();
        assert!((BUDGET / MB..BUDGET / MB + 10).contains(&in_memory), "{in_memory} bodies are in memory");
        drop(lent);
        assert_eq!(budget.0.load(Ordering::Relaxed), BUDGET, "all of it is given back");
    }

    #[test]
    fn a_body_read_past_the_buffers_is_whole_in_memory_or_in_a_file() {
        use std::os::fd::AsFd;
        for buffer in [100_000, 300_000, 1_000_000] {
            let (reader, mut writer) = std::os::unix::net::UnixStream::pair().unwrap();
            let sent: Vec<u8> = (0..500_000_usize).map(|number| number as u8).collect();
            let sending = std::thread::spawn({
                let sent = sent.clone();
                move || writer.write_all(&sent).unwrap()
            });
            let mut body = spool(buffer, Some(sent.len() as u64));
            while body.len() < sent.len() as u64 {
                if body.takes_more() {
                    let left = sent.len() as u64 - body.len();
                    assert!(body.read(reader.as_fd(), left).1.unwrap() > 0);
                } else {
                    let mut piece = [0; 1000];
                    let count = (&reader).read(&mut piece).unwrap();
                    body.push(&piece[..count]).unwrap();
                }
            }
            sending.join().unwrap();
            let mut got = Vec::new();
            match body.finish().unwrap() {
                Body::Memory(bytes) => got = bytes,
                Body::File(mut file, _) => drop(file.read_to_end(&mut got).unwrap()),
                Body::Empty => {}
            }
            assert!(got == sent, "buffer of {buffer}");
        }
    }
}
