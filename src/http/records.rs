//! The records of FastCGI 1.0 as they are written (FastCGI specification, sections 3.3, 5.5 and 8), for answers and for what a
//! server says of itself.

/// The one version there is.
pub const VERSION: u8 = 1;

/// Bytes before the content of a record: version, type, id (2), length (2), padding, reserved.
pub const HEAD: usize = 8;

/// Most bytes of content in a record of ours: a multiple of eight, as section 3.3 advises.
pub const CONTENT_MAX: u64 = 0xFFF8;

/// The type of a record.
pub mod kind {
    /// A request begins.
    pub const BEGIN_REQUEST: u8 = 1;
    /// A request is not wanted any more.
    pub const ABORT_REQUEST: u8 = 2;
    /// A request is over.
    pub const END_REQUEST: u8 = 3;
    /// A part of the variables.
    pub const PARAMS: u8 = 4;
    /// A part of the body.
    pub const STDIN: u8 = 5;
    /// A part of the answer.
    pub const STDOUT: u8 = 6;
    /// A part of the second body of a filter.
    pub const DATA: u8 = 8;
    /// A question about the server.
    pub const GET_VALUES: u8 = 9;
    /// Its answer.
    pub const GET_VALUES_RESULT: u8 = 10;
    /// The answer to a record of an unknown type.
    pub const UNKNOWN_TYPE: u8 = 11;
}

/// How a request has ended (section 5.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestEnd {
    /// With an answer, or because it was aborted.
    Complete = 0,
    /// It was refused because another one is on the connection.
    CannotMultiplex = 1,
    /// It was refused because its role is not known.
    UnknownRole = 3,
}

/// Appends the head of a record without padding.
#[inline]
pub fn put_head(out: &mut Vec<u8>, kind: u8, id: u16, len: u16) {
    out.extend_from_slice(&head(kind, id, len));
}

/// The head of a record without padding.
#[inline]
pub fn head(kind: u8, id: u16, len: u16) -> [u8; HEAD] {
    let ([id_high, id_low], [high, low]) = (id.to_be_bytes(), len.to_be_bytes());
    [VERSION, kind, id_high, id_low, high, low, 0, 0]
}

/// Appends the end of a request.
pub fn put_end(out: &mut Vec<u8>, id: u16, ended: RequestEnd) {
    put_head(out, kind::END_REQUEST, id, 8);
    out.extend_from_slice(&[0, 0, 0, 0, ended as u8, 0, 0, 0]);
}

/// Appends the end of an answer: of its stream, and of the request. Nothing may follow, or nginx does not use the connection again.
#[inline]
pub fn put_last(out: &mut Vec<u8>, id: u16) {
    put_head(out, kind::STDOUT, id, 0);
    put_end(out, id, RequestEnd::Complete);
}

/// Puts the bytes of the output from `start` on into records of this stream.
pub fn wrap(out: &mut Vec<u8>, start: usize, kind: u8, id: u16) {
    let mut at = start;
    while at < out.len() {
        let len = (out.len() - at).min(CONTENT_MAX as usize);
        out.splice(at..at, head(kind, id, len as u16));
        at += HEAD + len;
    }
}
