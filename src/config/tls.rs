//! TLS: the files of certificates and keys, and what clients have to show.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What the options for TLS say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsSettings {
    /// `--certfile` and `--keyfile`, at least one pair; the first one is for clients that ask for no name of another one.
    pub pairs: Vec<PairFiles>,
    /// `--ca-certs`: the file with the certificates that sign those of clients.
    #[serde(with = "super::paths")]
    pub client_roots: Option<PathBuf>,
    /// `--cert-reqs`; default none.
    pub client_certificates: ClientCertificates,
    /// `--tls-min`; default 1.2.
    pub oldest: TlsVersion,
}

/// The files of a certificate and its key, in PEM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairFiles {
    /// The certificate and those between it and a root.
    #[serde(with = "super::paths")]
    pub chain: PathBuf,
    /// The key; it may be in the same file.
    #[serde(with = "super::paths")]
    pub key: PathBuf,
}

/// What clients have to show (`--cert-reqs`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientCertificates {
    /// Nothing; they are not asked.
    #[default]
    None,
    /// A valid certificate, or none.
    Optional,
    /// A valid certificate.
    Required,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TlsVersion {
    /// 1.2 (RFC 5246).
    #[default]
    V1_2,
    /// 1.3 (RFC 8446).
    V1_3,
}
