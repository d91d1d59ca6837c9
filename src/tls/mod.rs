//! TLS without I/O: certificates and keys in, records in and out. The library is rustls; what else of a server needs it asks here.

pub mod facts;
pub mod keys;
pub mod material;
pub mod names;
pub mod records;
pub mod server;
pub mod session;
pub mod tickets;
pub mod travel;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// The cryptography of every process: ring, or AWS's with the cargo feature `aws-lc-rs`.
pub fn provider() -> Arc<CryptoProvider> {
    #[cfg(feature = "aws-lc-rs")]
    return Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    #[cfg(not(feature = "aws-lc-rs"))]
    Arc::new(rustls::crypto::ring::default_provider())
}
