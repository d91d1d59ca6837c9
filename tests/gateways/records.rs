//! Requests of FastCGI, made by hand.

use crate::wire::with;

/// Kinds of records of a request and its answer (FastCGI section 8).
const BEGIN: u8 = 1;
pub const END: u8 = 3;
pub const PARAMS: u8 = 4;
pub const STDIN: u8 = 5;
pub const STDOUT: u8 = 6;

/// A record, padded to a multiple of eight bytes.
pub fn record(kind: u8, id: u16, content: &[u8]) -> Vec<u8> {
    let ([id_high, id_low], [high, low]) = (id.to_be_bytes(), (content.len() as u16).to_be_bytes());
    let padding = content.len().next_multiple_of(8) - content.len();
    [&[1, kind, id_high, id_low, high, low, padding as u8, 0], content, &vec![0; padding]].concat()
}

/// The begin of a request.
pub fn begin(id: u16, role: u8, flags: u8) -> Vec<u8> {
    record(BEGIN, id, &[0, role, flags, 0, 0, 0, 0, 0])
}

/// The records of a request's variables, in pieces of this size.
pub fn params(id: u16, variables: &[(&str, &str)], piece: usize) -> Vec<u8> {
    let mut pairs = Vec::new();
    for (name, value) in variables {
        // Long lengths are legal for short texts too.
        pairs.extend(
            [&[name.len() as u8][..], &(value.len() as u32 | 1 << 31).to_be_bytes(), name.as_bytes(), value.as_bytes()].concat(),
        );
    }
    let records: Vec<u8> = pairs.chunks(piece).flat_map(|part| record(PARAMS, id, part)).collect();
    [records, record(PARAMS, id, b"")].concat()
}

/// A whole request.
pub fn request(id: u16, flags: u8, variables: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let stdin: Vec<u8> = body.chunks(0xFFF8).flat_map(|part| record(STDIN, id, part)).collect();
    [begin(id, 1, flags), params(id, &with(variables), 0xFFF8), stdin, record(STDIN, id, b"")].concat()
}
