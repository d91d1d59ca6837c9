//! The records of a connection by its keys alone, in a process that has not made its handshake.
//!
//! rustls gives the keys of a session away, and takes none. So what is left of TLS after a handshake is done here, by ring: data and
//! alerts, sealed and opened under keys that stay as they are. What needs more, new keys (RFC 8446 section 4.6.3) or another
//! handshake (RFC 5246 section 7.4.1.1), is the end of what the client can say; what it is owed is still sent.

use std::io;
use std::ops::Range;

use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use rustls::{AlertDescription, CipherSuite, ConnectionTrafficSecrets, ContentType, ExtractedSecrets, ProtocolVersion};
use zeroize::Zeroizing;

use super::records::{HEADER, PlainSink, Unsent, has_record};
use super::server::RECORD_MAX;

/// Bytes of a nonce (RFC 8446 section 5.3).
const NONCE: usize = 12;

/// Bytes of the part of a nonce that records of AES-GCM show in TLS 1.2 (RFC 5288 section 3).
const EXPLICIT: usize = 8;

/// Bytes of a tag.
const TAG: usize = 16;

/// Bytes of the longest key.
const KEY_MAX: usize = 32;

/// Records that are sealed under one key of AES-GCM until the connection is to end. rustls seals 2^24 at most, so one that has just
/// moved may have more.
const AES_WORN: u64 = 1 << 23;

/// Records that are sealed under one key of AES-GCM at all; those after [`AES_WORN`] are the rest of an answer (RFC 8446 section 5.5
/// has 2^24.5, which are 23,726,566).
const AES_MAX: u64 = 22 << 20;

/// The same for ChaCha20-Poly1305, whose numbers end first (RFC 8446 section 5.5).
const CHACHA_WORN: u64 = 1 << 62;
const CHACHA_MAX: u64 = 1 << 63;

/// Records without contents that a client may send one after the other, as many as rustls takes. They give the loop no reason to go on
/// to another connection.
const FRUITLESS_MAX: u8 = 32;

/// The first byte of an alert that only warns (RFC 8446 section 6), and that of one that ends the connection.
const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// How records are sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aead {
    /// AES-128-GCM.
    Aes128,
    /// AES-256-GCM.
    Aes256,
    /// ChaCha20-Poly1305.
    ChaCha,
}

impl Aead {
    fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::Aes128 => &AES_128_GCM,
            Self::Aes256 => &AES_256_GCM,
            Self::ChaCha => &CHACHA20_POLY1305,
        }
    }

    /// Records until the connection is to end, and until nothing is sealed any more.
    fn bounds(self) -> (u64, u64) {
        match self {
            Self::Aes128 | Self::Aes256 => (AES_WORN, AES_MAX),
            Self::ChaCha => (CHACHA_WORN, CHACHA_MAX),
        }
    }

    /// Bytes of its key.
    pub fn key_len(self) -> usize {
        self.algorithm().key_len()
    }
}

/// What seals or opens the records of one direction.
#[derive(Clone)]
pub struct Direction {
    /// The key, in its first bytes.
    pub key: Zeroizing<[u8; KEY_MAX]>,
    /// What nonces are made of.
    pub iv: [u8; NONCE],
    /// Number of the next record.
    pub number: u64,
}

impl Direction {
    /// The nonce of the next record (RFC 8446 section 5.3; rustls does the same in TLS 1.2).
    fn nonce(&self) -> [u8; NONCE] {
        let mut nonce = self.iv;
        let number = self.number.to_be_bytes();
        nonce[NONCE - number.len()..].iter_mut().zip(number).for_each(|(byte, other)| *byte ^= other);
        nonce
    }

    fn of((number, secrets): &(u64, ConnectionTrafficSecrets)) -> Option<(Aead, Self)> {
        let (aead, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Aead::Aes128, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Aead::Aes256, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (Aead::ChaCha, key, iv),
            _ => return None,
        };
        let mut bytes = Zeroizing::new([0; KEY_MAX]);
        bytes.get_mut(..aead.key_len())?.copy_from_slice(key.as_ref().get(..aead.key_len())?);
        Some((aead, Self { key: bytes, iv: iv.as_ref().try_into().ok()?, number: *number }))
    }
}

/// What a connection is, after its handshake.
#[derive(Clone)]
pub struct KeySet {
    /// Whether it is TLS 1.3, else 1.2.
    pub is_newest: bool,
    /// The suite, as it was negotiated.
    pub suite: CipherSuite,
    /// How records are sealed.
    pub aead: Aead,
    /// For those that leave.
    pub sealing: Direction,
    /// For those that come.
    pub opening: Direction,
    /// The certificate that the client has shown; empty: none.
    pub certificate: Box<[u8]>,
}

impl KeySet {
    /// Of what rustls has given away; `None`: it is not known here.
    pub fn of(secrets: &ExtractedSecrets, version: ProtocolVersion, suite: CipherSuite, certificate: Box<[u8]>) -> Option<Self> {
        let ((aead, sealing), (_, opening)) = (Direction::of(&secrets.tx)?, Direction::of(&secrets.rx)?);
        let is_newest = match version {
            ProtocolVersion::TLSv1_3 => true,
            ProtocolVersion::TLSv1_2 => false,
            _ => return None,
        };
        Some(Self { is_newest, suite, aead, sealing, opening, certificate })
    }

    /// Its version.
    pub fn version(&self) -> ProtocolVersion {
        if self.is_newest { ProtocolVersion::TLSv1_3 } else { ProtocolVersion::TLSv1_2 }
    }
}

/// What was in a record.
enum RecordContent {
    /// Data at this place of it, perhaps none.
    Data(Range<usize>),
    /// The client sends nothing more.
    End,
    /// An alert that changes nothing.
    Nothing,
}

/// What records have brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Processed {
    /// Bytes of records that are used.
    pub used: usize,
    /// Whether the client sends nothing more.
    pub is_ended: bool,
}

/// The records of a connection.
pub struct Records {
    keys: KeySet,
    sealing: LessSafeKey,
    opening: LessSafeKey,
    /// Records without contents since the last one that had some.
    fruitless: u8,
}

impl Records {
    /// By these keys.
    pub fn new(keys: KeySet) -> Self {
        let key = |direction: &Direction| {
            let algorithm = keys.aead.algorithm();
            let key = UnboundKey::new(algorithm, &direction.key[..algorithm.key_len()]).expect("the length is right");
            LessSafeKey::new(key)
        };
        let (sealing, opening) = (key(&keys.sealing), key(&keys.opening));
        Self { keys, sealing, opening, fruitless: 0 }
    }

    /// The keys as they are now.
    pub fn keys(&self) -> &KeySet {
        &self.keys
    }

    /// Whether so many records were sealed that the connection is to end.
    pub fn is_worn(&self) -> bool {
        self.keys.sealing.number >= self.keys.aead.bounds().0
    }

    /// Whether records show a part of their nonce.
    fn shows_nonce(&self) -> bool {
        !self.keys.is_newest && self.keys.aead != Aead::ChaCha
    }

    /// Opens whole records until `place` has no room; what the last one has more goes to `opened`.
    ///
    /// # Errors
    /// What came is no record of this connection; the alert to send.
    pub fn process(
        &mut self,
        records: &mut [u8],
        place: &mut impl PlainSink,
        opened: &mut Vec<u8>,
    ) -> Result<Processed, AlertDescription> {
        let mut done = Processed::default();
        while place.room() > 0 && !done.is_ended && has_record(&records[done.used..]) {
            let rest = &mut records[done.used..];
            let len = HEADER + usize::from(u16::from_be_bytes([rest[3], rest[4]]));
            let record = &mut rest[..len];
            match self.open(record)? {
                RecordContent::Data(at) => {
                    self.count_fruitless(at.is_empty())?;
                    let data = &record[at];
                    let (now, later) = data.split_at(data.len().min(place.room()));
                    place.put(now);
                    opened.extend_from_slice(later);
                }
                RecordContent::End => done.is_ended = true,
                RecordContent::Nothing => self.count_fruitless(true)?,
            }
            done.used += len;
        }
        if done.is_ended {
            // What comes after the end means nothing (RFC 8446 section 6.1).
            done.used = records.len();
        }
        // The header of one that is none comes long before the rest of it.
        match records[done.used..].first_chunk::<HEADER>() {
            Some(&[20..=23, 3, _, high, low]) if usize::from(u16::from_be_bytes([high, low])) <= RECORD_MAX + self.around() => {
                Ok(done)
            }
            Some(&[20..=23, 3, ..]) => Err(AlertDescription::RecordOverflow),
            Some(_) => Err(AlertDescription::UnexpectedMessage),
            None => Ok(done),
        }
    }

    fn count_fruitless(&mut self, is_fruitless: bool) -> Result<(), AlertDescription> {
        self.fruitless = if is_fruitless { self.fruitless + 1 } else { 0 };
        if self.fruitless > FRUITLESS_MAX { Err(AlertDescription::UnexpectedMessage) } else { Ok(()) }
    }

    /// Bytes of a record beside its contents at most, without the header (RFC 8446 section 5.2; RFC 5246 section 6.2.3 for the ciphers
    /// that are here).
    fn around(&self) -> usize {
        if self.keys.is_newest { 256 } else { EXPLICIT + TAG }
    }

    /// Opens a whole record.
    fn open(&mut self, record: &mut [u8]) -> Result<RecordContent, AlertDescription> {
        let (header, sealed) = record.split_at_mut(HEADER);
        let &mut [kind, major, minor, high, low] = header else { unreachable!("it was split so") };
        if sealed.len() > RECORD_MAX + self.around() {
            return Err(AlertDescription::RecordOverflow);
        }
        let direction = &self.keys.opening;
        let mut nonce = direction.nonce();
        let hidden = if self.shows_nonce() { EXPLICIT } else { 0 };
        let Some(inner) = sealed.len().checked_sub(hidden + TAG) else { return Err(AlertDescription::BadRecordMac) };
        let (shown, text) = sealed.split_at_mut(hidden);
        nonce[NONCE - hidden..].copy_from_slice(shown);
        let opened = if self.keys.is_newest {
            self.opening.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from([kind, major, minor, high, low]), text)
        } else {
            let associated = associated(direction.number, [kind, major, minor], inner);
            self.opening.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(associated), text)
        };
        let text = &*opened.map_err(|_| AlertDescription::BadRecordMac)?;
        self.keys.opening.number = direction.number.checked_add(1).ok_or(AlertDescription::InternalError)?;
        let start = HEADER + hidden;
        let (kind, len) = match (self.keys.is_newest, ContentType::from(kind)) {
            // The kind is after the contents, and padding after it (RFC 8446 section 5.4).
            (true, ContentType::ApplicationData) => {
                let at = text.iter().rposition(|&byte| byte != 0).ok_or(AlertDescription::UnexpectedMessage)?;
                (ContentType::from(text[at]), at)
            }
            (true, _) => return Err(AlertDescription::UnexpectedMessage),
            (false, kind) => (kind, text.len()),
        };
        if len > RECORD_MAX {
            return Err(AlertDescription::RecordOverflow);
        }
        match (kind, &text[..len]) {
            (ContentType::ApplicationData, _) => Ok(RecordContent::Data(start..start + len)),
            // What it has to say later cannot be opened.
            (ContentType::Handshake, [_, ..]) => Ok(RecordContent::End),
            (ContentType::Alert, &[level, description]) => match AlertDescription::from(description) {
                AlertDescription::CloseNotify => Ok(RecordContent::End),
                AlertDescription::UserCanceled => Ok(RecordContent::Nothing),
                _ if level == WARNING && !self.keys.is_newest => Ok(RecordContent::Nothing),
                // One of the client's errors: there is nobody to tell of it.
                _ => Ok(RecordContent::End),
            },
            (ContentType::Alert, _) => Err(AlertDescription::DecodeError),
            _ => Err(AlertDescription::UnexpectedMessage),
        }
    }

    /// Makes records of these bytes.
    ///
    /// # Errors
    /// The key has sealed as many as it may.
    pub fn seal(&mut self, bytes: &[u8], unsent: &mut Unsent) -> io::Result<()> {
        bytes.chunks(RECORD_MAX).try_for_each(|part| self.seal_one(ContentType::ApplicationData, part, unsent))
    }

    /// Says that nothing more is sent (RFC 8446 section 6.1).
    pub fn seal_end(&mut self, unsent: &mut Unsent) -> io::Result<()> {
        self.seal_one(ContentType::Alert, &[WARNING, AlertDescription::CloseNotify.into()], unsent)
    }

    /// Tells the client of an error.
    pub fn seal_alert(&mut self, alert: AlertDescription, unsent: &mut Unsent) -> io::Result<()> {
        self.seal_one(ContentType::Alert, &[FATAL, alert.into()], unsent)
    }

    fn seal_one(&mut self, kind: ContentType, bytes: &[u8], unsent: &mut Unsent) -> io::Result<()> {
        let (_, most) = self.keys.aead.bounds();
        let direction = &mut self.keys.sealing;
        // No nonce is used twice.
        if direction.number >= most {
            return Err(io::Error::other("the key has sealed as many records as it may"));
        }
        let nonce = direction.nonce();
        direction.number += 1;
        let number = direction.number - 1;
        let hidden = if self.shows_nonce() { EXPLICIT } else { 0 };
        let kind = u8::from(kind);
        // TLS 1.3 has the kind among the contents.
        let (outer, inner) = if self.keys.is_newest { (u8::from(ContentType::ApplicationData), 1) } else { (kind, 0) };
        let len = hidden + bytes.len() + inner + TAG;
        let [high, low] = u16::try_from(len).expect("a record is shorter").to_be_bytes();
        let header = [outer, 3, 3, high, low];
        unsent.reserve(HEADER + len);
        unsent.put(|space| {
            let record = &mut space[..HEADER + len];
            record[..HEADER].copy_from_slice(&header);
            record[HEADER..][..hidden].copy_from_slice(&nonce[NONCE - hidden..]);
            let (text, tag) = record[HEADER + hidden..].split_at_mut(bytes.len() + inner);
            text[..bytes.len()].copy_from_slice(bytes);
            text[bytes.len()..].fill(kind);
            let unique = Nonce::assume_unique_for_key(nonce);
            let sealed = if self.keys.is_newest {
                self.sealing.seal_in_place_separate_tag(unique, Aad::from(header), text)
            } else {
                let associated = associated(number, [kind, 3, 3], bytes.len());
                self.sealing.seal_in_place_separate_tag(unique, Aad::from(associated), text)
            };
            // It fails for texts beyond 64 GiB only.
            tag.copy_from_slice(sealed.expect("a record is shorter").as_ref());
            Ok(HEADER + len)
        });
        Ok(())
    }
}

/// What a tag of TLS 1.2 covers beside the contents (RFC 5246 section 6.2.3.3).
fn associated(number: u64, [kind, major, minor]: [u8; 3], len: usize) -> [u8; 13] {
    let mut bytes = [0; 13];
    let [high, low] = u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes();
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes[8..].copy_from_slice(&[kind, major, minor, high, low]);
    bytes
}

#[cfg(test)]
mod tests;
