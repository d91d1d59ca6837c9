//! Bodies of which every block says whose it is: the same bytes as `piece` in tests/apps/differential.py makes.

/// Number of the piece that a client uploads.
pub const UPLOAD: usize = 0xfff;

/// Number of the piece that stands in the head.
pub const FIELD: usize = 0xffe;

/// Bytes with one number, as units of [`UNIT`] bytes.
const GROUP: usize = 1024;

/// Bytes of a unit: eight digits of the request, three of the piece, four of the group, a stop.
const UNIT: usize = 16;

/// `size` bytes that name the request, the piece, and the group.
pub fn piece(id: u32, number: usize, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + GROUP);
    let mut group = 0;
    while bytes.len() < size {
        let unit = format!("{id:08x}{number:03x}{group:04x}.");
        let units = (GROUP / UNIT).min((size - bytes.len()) / UNIT + 1);
        bytes.extend_from_slice(&unit.as_bytes().repeat(units));
        group += 1;
    }
    bytes.truncate(size);
    bytes
}

/// The checksum that Python's `zlib.adler32` gives.
pub fn adler32(bytes: &[u8]) -> u32 {
    const MODULUS: u32 = 65_521;
    // As many bytes as the sums take without a division.
    const RUN: usize = 5_552;
    let (mut low, mut high) = (1, 0);
    for run in bytes.chunks(RUN) {
        for byte in run {
            low += u32::from(*byte);
            high += low;
        }
        (low, high) = (low % MODULUS, high % MODULUS);
    }
    high << 16 | low
}

/// Where two bodies begin to differ, with the bytes there.
pub fn difference(expected: &[u8], found: &[u8]) -> Option<String> {
    const SHOWN: usize = 48;
    // The rule, and quick without optimisation too.
    if expected == found {
        return None;
    }
    let at = expected.iter().zip(found).position(|(a, b)| a != b);
    let at = at.or_else(|| (expected.len() != found.len()).then_some(expected.len().min(found.len())))?;
    let from = at / UNIT * UNIT;
    let show = |bytes: &[u8]| bytes[from.min(bytes.len())..(from + SHOWN).min(bytes.len())].escape_ascii().to_string();
    Some(format!(
        "{} bytes instead of {}; they differ from byte {at} on: from {from} there is \"{}\" and should be \"{}\"",
        found.len(),
        expected.len(),
        show(found),
        show(expected)
    ))
}
