//! What is wrong with a request, and the status it is answered with: one table.

use super::head::Version;

/// A request that cannot be served as sent. `Display` is one clause that names what is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// To be replaced by the real variants.
    BadRequestLine,
}

impl Error {
    /// The status that answers it (RFC 9110 section 15).
    pub fn status(self) -> u16 {
        400
    }
}

/// The standard reason phrase of a status, or an empty string.
pub fn reason(status: u16) -> &'static str {
    let _ = status;
    todo!()
}

/// Renders a complete answer with a short text body that Tapster makes itself (400, 408, 413, 500, 503 ...), closing the
/// connection; `head_only` leaves the body out (HEAD). `detail` is one line for the body.
pub fn render(out: &mut Vec<u8>, status: u16, detail: &str, version: Version, head_only: bool, date: &[u8]) {
    let _ = (out, status, detail, version, head_only, date);
    todo!()
}
