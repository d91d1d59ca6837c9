//! A request body on its way to the application: in memory up to a limit, then in an unlinked temporary file.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};

use super::app::Body;

/// Memory set aside at once for a body of known length, in bytes: a client that announces much and sends nothing must not
/// make us allocate it.
const RESERVE_MAX: u64 = 64 * 1024;

/// Bytes gathered before the file is written: a body in tiny chunks must not cost a system call for each. What comes in larger
/// pieces is written without being copied.
const FILE_BUFFER: usize = 16 * 1024;

/// Collects one body.
#[derive(Debug)]
pub struct Spool {
    memory: Vec<u8>,
    file: Option<BufWriter<File>>,
    len: u64,
    /// Bytes kept in memory (`--body-buffer`).
    buffer: usize,
}

impl Spool {
    /// An empty spool; `expected` is the announced length, if there is one.
    pub fn new(buffer: usize, expected: Option<u64>) -> Self {
        let reserve = expected.unwrap_or(0).min(RESERVE_MAX).min(buffer as u64) as usize;
        Self { memory: Vec::with_capacity(reserve), file: None, len: 0, buffer }
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
        if self.memory.len() + data.len() <= self.buffer {
            self.memory.extend_from_slice(data);
            return Ok(());
        }
        let mut file = BufWriter::with_capacity(FILE_BUFFER, tempfile::tempfile()?);
        file.write_all(&self.memory)?;
        file.write_all(data)?;
        self.memory = Vec::new();
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

    #[test]
    fn a_small_body_stays_in_memory() {
        let mut spool = Spool::new(8, Some(8));
        spool.push(b"abcd").unwrap();
        spool.push(b"efgh").unwrap();
        match spool.finish().unwrap() {
            Body::Memory(bytes) => assert_eq!(bytes, b"abcdefgh"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_large_body_goes_to_a_file_and_keeps_its_order() {
        let mut spool = Spool::new(8, None);
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
        let mut spool = Spool::new(1, None);
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
        assert!(matches!(Spool::new(8, None).finish().unwrap(), Body::Empty));
    }

    #[test]
    fn an_announced_length_does_not_reserve_it_all() {
        assert!(Spool::new(1 << 30, Some(1 << 30)).memory.capacity() <= RESERVE_MAX as usize);
    }
}
