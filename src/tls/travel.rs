//! A session as bytes, on its way to another process:
//!
//! ```text
//! version aead ended | suite (2) | rules (32) | sealing: number (8) iv (12) key | opening: likewise | certificate: length (2) bytes
//! | opened: length (4) bytes | incoming
//! ```
//! Numbers are little-endian. Who gets the bytes can read and forge what is on the connection, and say who the client is.

use std::io;

use rustls::CipherSuite;
use zeroize::Zeroizing;

use super::keys::{Aead, Direction, KeySet};
use super::server::ClientRules;

/// Longest certificate of a client that travels, in bytes. Usual ones have one or two KiB.
pub const CERTIFICATE_MAX: usize = 8 * 1024;

/// Most bytes of a session: a certificate, a record that is opened, one that is not whole, and keys.
pub const SESSION_MAX: usize = 48 * 1024;

/// What a session consists of between two records.
pub struct Travelling {
    /// Its keys.
    pub keys: KeySet,
    /// By which its client was let in.
    pub rules: ClientRules,
    /// Whether the client has said that it sends nothing more.
    pub is_ended: bool,
    /// What was in a record that is opened, and has not been taken.
    pub opened: Vec<u8>,
    /// The beginning of a record.
    pub incoming: Vec<u8>,
}

impl Travelling {
    /// As bytes; `None`: they would be too many.
    pub fn to_bytes(&self) -> Option<Zeroizing<Vec<u8>>> {
        let Self { keys, rules, is_ended, opened, incoming } = self;
        let certificate = u16::try_from(keys.certificate.len()).ok()?;
        let len = 256 + keys.certificate.len() + opened.len() + incoming.len();
        if len > SESSION_MAX {
            return None;
        }
        // It never grows: memory that was left would keep keys.
        let mut bytes = Zeroizing::new(Vec::with_capacity(len));
        bytes.extend([keys.is_newest.into(), letter(keys.aead), (*is_ended).into()]);
        bytes.extend(u16::from(keys.suite).to_le_bytes());
        bytes.extend_from_slice(rules);
        for direction in [&keys.sealing, &keys.opening] {
            bytes.extend(direction.number.to_le_bytes());
            bytes.extend(direction.iv);
            bytes.extend_from_slice(&direction.key[..keys.aead.key_len()]);
        }
        bytes.extend(certificate.to_le_bytes());
        bytes.extend_from_slice(&keys.certificate);
        bytes.extend(u32::try_from(opened.len()).ok()?.to_le_bytes());
        bytes.extend_from_slice(opened);
        bytes.extend_from_slice(incoming);
        debug_assert!(bytes.capacity() <= len, "it has not grown");
        Some(bytes)
    }

    /// What [`Self::to_bytes`] has made.
    ///
    /// # Errors
    /// `InvalidData`: they are something else.
    pub fn of_bytes(bytes: &[u8]) -> io::Result<Self> {
        Self::read(bytes).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "its TLS session is not one"))
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > SESSION_MAX {
            return None;
        }
        let (&[is_newest @ (0 | 1), aead, is_ended @ (0 | 1)], rest) = bytes.split_first_chunk()? else { return None };
        let aead = [Aead::Aes128, Aead::Aes256, Aead::ChaCha].into_iter().find(|known| letter(*known) == aead)?;
        let (suite, rest) = rest.split_first_chunk()?;
        let (rules, rest) = rest.split_first_chunk()?;
        let (sealing, rest) = direction(rest, aead)?;
        let (opening, rest) = direction(rest, aead)?;
        let (certificate, rest) = rest.split_first_chunk()?;
        let (certificate, rest) = rest.split_at_checked(u16::from_le_bytes(*certificate).into())?;
        let (opened, rest) = rest.split_first_chunk()?;
        let (opened, incoming) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*opened)).ok()?)?;
        if certificate.len() > CERTIFICATE_MAX {
            return None;
        }
        let keys = KeySet {
            is_newest: is_newest == 1,
            suite: CipherSuite::from(u16::from_le_bytes(*suite)),
            aead,
            sealing,
            opening,
            certificate: certificate.into(),
        };
        Some(Self { keys, rules: *rules, is_ended: is_ended == 1, opened: opened.to_vec(), incoming: incoming.to_vec() })
    }
}

fn direction(bytes: &[u8], aead: Aead) -> Option<(Direction, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    let (iv, rest) = rest.split_first_chunk()?;
    let (given, rest) = rest.split_at_checked(aead.key_len())?;
    let mut key = Zeroizing::new([0; _]);
    key[..given.len()].copy_from_slice(given);
    Some((Direction { key, iv: *iv, number: u64::from_le_bytes(*number) }, rest))
}

fn letter(aead: Aead) -> u8 {
    match aead {
        Aead::Aes128 => b'a',
        Aead::Aes256 => b'A',
        Aead::ChaCha => b'c',
    }
}
