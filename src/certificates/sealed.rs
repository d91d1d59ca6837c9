//! What workers get of certificates and keys, as a file in memory that nobody can change: it is longer than a packet.

use std::fs::File;
use std::io;

use crate::sys::memory;
use crate::tls::material::Material;

/// Largest such file in bytes: the certificates and keys have a bound of their own, and each line end becomes two bytes.
const SIZE_MAX: u64 = 8 << 20;

/// As a file that can be sent.
pub fn seal(material: &Material) -> io::Result<File> {
    memory::constant(c"tapster-tls", &serde_json::to_vec(material)?)
}

/// From such a file.
pub fn unseal(file: &File) -> io::Result<Material> {
    Ok(serde_json::from_slice(&memory::read_constant(file, SIZE_MAX)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::material::{CertifiedPair, TicketSecrets};

    #[test]
    fn what_was_sealed_comes_back_and_nothing_else_does() {
        let pairs = vec![CertifiedPair { chain: "a\n\"".into(), key: "k".into() }];
        let material = Material { pairs, client_roots: "r".into(), tickets: TicketSecrets::random().unwrap() };
        assert!(unseal(&seal(&material).unwrap()).unwrap() == material);
        assert!(unseal(&memory::constant(c"x", b"{}").unwrap()).is_err());
        assert!(unseal(&tempfile::tempfile().unwrap()).is_err(), "somebody could write to it");
    }
}
