//! Why the code that was saved last is not served (`--reload`), on its way from the master to its workers: a sealed file in
//! memory, since a traceback is longer than a packet.

use std::fs::File;
use std::io;

use crate::sys::memory;

/// Most bytes that a worker takes: a traceback, which is cut where it is sent.
const SIZE_MAX: u64 = 256 * 1024;

/// Why the saved code is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breakage {
    /// When it was saved, or its load begun, in seconds since 1970.
    pub saved: u64,
    /// The error with its traceback.
    pub text: String,
}

impl Breakage {
    /// As a file that can be sent.
    pub fn to_file(&self) -> io::Result<File> {
        memory::constant(c"tapster-breakage", format!("{}\n{}", self.saved, self.text).as_bytes())
    }

    /// From such a file.
    pub fn read(file: &File) -> io::Result<Self> {
        let bytes = memory::read_constant(file, SIZE_MAX)?;
        let text = String::from_utf8_lossy(&bytes);
        let parts = text.split_once('\n').and_then(|(saved, text)| Some((saved.parse().ok()?, text)));
        let (saved, text) = parts.ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { saved, text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_breakage_comes_back() {
        let breakage = Breakage { saved: 7, text: "a\nb\n".into() };
        assert_eq!(Breakage::read(&breakage.to_file().unwrap()).unwrap(), breakage);
        assert!(Breakage::read(&memory::constant(c"x", b"x\ny").unwrap()).is_err());
    }
}
