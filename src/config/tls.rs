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

/// The words for what clients have to show; the numbers are those of Python's `ssl`, which gunicorn has.
const CLIENT_CERTIFICATES: &[(&str, ClientCertificates)] = &[
    ("none", ClientCertificates::None),
    ("0", ClientCertificates::None),
    ("optional", ClientCertificates::Optional),
    ("1", ClientCertificates::Optional),
    ("required", ClientCertificates::Required),
    ("2", ClientCertificates::Required),
];

const VERSIONS: &[(&str, TlsVersion)] =
    &[("1.2", TlsVersion::V1_2), ("tlsv1.2", TlsVersion::V1_2), ("1.3", TlsVersion::V1_3), ("tlsv1.3", TlsVersion::V1_3)];

impl ClientCertificates {
    /// Reads a value of `--cert-reqs`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        find(CLIENT_CERTIFICATES, text).ok_or_else(|| "must be none, optional or required (or 0, 1, 2)".into())
    }
}

impl TlsVersion {
    /// Reads a value of `--tls-min`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let older = matches!(text.trim(), "1.0" | "1.1" | "1" | "TLSv1" | "TLSv1.0" | "TLSv1.1" | "SSLv3");
        let why = || if older { "is not spoken any more (RFC 8996); must be 1.2 or 1.3" } else { "must be 1.2 or 1.3" };
        find(VERSIONS, text).ok_or_else(|| why().into())
    }
}

fn find<T: Copy>(words: &[(&str, T)], text: &str) -> Option<T> {
    let text = text.trim().to_ascii_lowercase();
    words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value)
}
