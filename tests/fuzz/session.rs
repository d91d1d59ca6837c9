//! Any bytes as a TLS session that comes from another worker, and any bytes as the records after it. No panic, and an end; what is packed
//! again is what was unpacked; what one session seals, another one with the same keys opens.
#![no_main]

use std::io;

use libfuzzer_sys::fuzz_target;
use tapster::tls::records::{Scratch, SliceSink};
use tapster::tls::session::Session;

/// What a session consists of, before the certificate: version, aead, ended, suite, rules, and twice number, iv, key.
fn begin(numbers: &mut Numbers<'_>) -> Vec<u8> {
    let aead = numbers.byte();
    let (letter, key) = [(b'a', 16), (b'A', 32), (b'c', 32)][usize::from(aead % 3)];
    let mut bytes = vec![numbers.byte() & 1, letter, numbers.byte() & 1, 0x13, 1];
    bytes.extend([7; 32]);
    for _ in 0..2 {
        // Small ones, those near each bound, and those near the end.
        let number = u64::from(numbers.byte());
        let number = [number, (1 << 23) - number, (22 << 20) - number, u64::MAX - number][usize::from(numbers.byte() % 4)];
        bytes.extend(number.to_le_bytes());
        bytes.extend([3; 12]);
        bytes.extend((0..key).map(|_| 5));
    }
    bytes
}

/// A whole one.
fn session(numbers: &mut Numbers<'_>) -> Vec<u8> {
    let mut bytes = begin(numbers);
    let certificate = numbers.some();
    bytes.extend((certificate.len() as u16).to_le_bytes());
    bytes.extend(certificate);
    let opened = numbers.some();
    bytes.extend((opened.len() as u32).to_le_bytes());
    bytes.extend(opened);
    let incoming = numbers.some();
    bytes.extend(incoming);
    bytes
}

/// What a case is made of; zeros when there is no more.
struct Numbers<'a>(&'a [u8]);

impl<'a> Numbers<'a> {
    fn byte(&mut self) -> u8 {
        self.0.split_off_first().copied().unwrap_or_default()
    }

    /// Some of the bytes that are left.
    fn some(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte()).min(self.0.len());
        self.0.split_off(..len).unwrap_or_default()
    }
}

/// Has a session take bytes, `most` at once; what was in them.
fn take(session: &mut Session, mut bytes: &[u8], most: usize, scratch: &mut Scratch) -> (Vec<u8>, io::Result<()>) {
    let (mut all, mut space) = (Vec::new(), [0; 300]);
    loop {
        let read = |to: &mut [u8]| {
            let count = bytes.len().min(to.len()).min(most);
            let Some(now) = bytes.split_off(..count).filter(|now| !now.is_empty()) else {
                return Err(io::ErrorKind::WouldBlock.into());
            };
            to[..count].copy_from_slice(now);
            Ok(count)
        };
        match session.receive(read, &mut SliceSink::of(&mut space), scratch) {
            Ok(got) if got.count == 0 => return (all, Ok(())),
            Ok(got) => all.extend_from_slice(&space[..got.count]),
            Err(error) => return (all, Err(error)),
        }
    }
}

fn check(packed: &[u8], mut numbers: Numbers<'_>) {
    let Ok(mut session) = Session::unpack(packed) else { return };
    let mut scratch = Scratch::default();
    let facts = session.facts();
    if let Some(again) = session.pack() {
        assert_eq!(&again[..], packed, "it is what it was");
    }
    let most = 1 + usize::from(numbers.byte());
    let records = numbers.some();
    let _ = take(&mut session, records, most, &mut scratch);
    let mut sent = Vec::new();
    let write = |records: &[u8]| {
        sent.extend_from_slice(records);
        Ok(records.len())
    };
    let contents = numbers.some();
    let taken = session.send(&[contents, b"", contents], write, &mut scratch);
    assert!(taken.is_err() || taken.is_ok_and(|count| count == 2 * contents.len()));
    session.end();
    let _ = session.flush(|records| Ok(records.len()));
    assert!(session.pack().is_none(), "it has ended");
    assert_eq!(session.facts(), facts);
}

/// Both ends, with keys that fit.
fn both(mut numbers: Numbers<'_>) {
    let mut bytes = begin(&mut numbers);
    bytes[2] = 0;
    bytes.extend([0; 6]);
    let mut other = bytes.clone();
    let (place, len) = (5 + 32, (bytes.len() - 6 - 5 - 32) / 2);
    other[place..][..len].copy_from_slice(&bytes[place + len..][..len]);
    other[place + len..][..len].copy_from_slice(&bytes[place..][..len]);
    let (Ok(mut ours), Ok(mut theirs)) = (Session::unpack(&bytes), Session::unpack(&other)) else { panic!("they are sessions") };
    let mut scratch = Scratch::default();
    while !numbers.0.is_empty() && !ours.is_ended() && !theirs.is_ended() {
        let (most, contents, mut sent) = (1 + usize::from(numbers.byte()), numbers.some(), Vec::new());
        let write = |records: &[u8]| {
            sent.extend_from_slice(records);
            Ok(records.len())
        };
        if ours.send(&[contents], write, &mut scratch).is_err() {
            return;
        }
        let (got, result) = take(&mut theirs, &sent, most, &mut scratch);
        // The number of the last record of all cannot be counted on.
        let is_last = result.is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock);
        assert!(is_last || got == contents);
        if is_last {
            return;
        }
        let packed = theirs.pack().expect("nothing is in between");
        theirs = Session::unpack(&packed).expect("it was packed");
        std::mem::swap(&mut ours, &mut theirs);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let (first, rest) = bytes.split_first().unwrap_or((&0, &[]));
    let mut numbers = Numbers(rest);
    match first % 3 {
        0 => {
            let (packed, rest) = rest.split_at(rest.len() / 2);
            check(packed, Numbers(rest));
        }
        1 => {
            let packed = session(&mut numbers);
            check(&packed, numbers);
        }
        _ => both(numbers),
    }
});
