//! The chunked transfer coding (RFC 9112 section 7.1): a strict decoder, and the encoder's chunk head.

/// Decoder of one chunked body with its trailer section.
#[derive(Clone, Debug)]
pub struct Decoder {}
