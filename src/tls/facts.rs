//! What applications learn of a TLS connection, in the words of mod_ssl.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::{CipherSuite, ProtocolVersion};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

/// Characters in a line of PEM (RFC 7468 section 2).
const PEM_LINE: usize = 64;

/// What applications learn of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFacts {
    /// SSL_PROTOCOL.
    pub protocol: &'static str,
    /// SSL_CIPHER, as OpenSSL names it.
    pub cipher: &'static str,
    /// The certificate of the client, which is valid; `None`: it has shown none.
    pub client: Option<Arc<ClientCertificate>>,
}

/// The certificate of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// SSL_CLIENT_S_DN: the subject (RFC 4514), in UTF-8.
    pub subject: String,
    /// SSL_CLIENT_M_SERIAL: the serial number, in hexadecimal digits.
    pub serial: String,
    /// SSL_CLIENT_CERT, in PEM.
    pub pem: String,
}

impl TlsFacts {
    /// The facts of a connection; `certificate`: that of the client.
    pub fn new(version: Option<ProtocolVersion>, suite: Option<CipherSuite>, certificate: Option<&[u8]>) -> Self {
        let protocol = match version {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "",
        };
        let client = certificate.map(|certificate| Arc::new(ClientCertificate::of(certificate)));
        Self { protocol, cipher: suite.map_or("", cipher), client }
    }
}

impl ClientCertificate {
    fn of(certificate: &[u8]) -> Self {
        // It has been verified, by another reader: what this one does not understand has no name and no number here.
        let parsed = Certificate::from_der(certificate).ok();
        let parsed = parsed.as_ref().map(Certificate::tbs_certificate);
        let digits = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02X}")).collect::<String>();
        Self {
            subject: parsed.map(|parsed| parsed.subject().to_string()).unwrap_or_default(),
            serial: parsed.map(|parsed| digits(parsed.serial_number().as_bytes())).unwrap_or_default(),
            pem: pem(certificate),
        }
    }
}

fn pem(certificate: &[u8]) -> String {
    let text = STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(PEM_LINE));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

/// The name that OpenSSL has for a suite; those that rustls has.
fn cipher(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-ECDSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        suite => suite.as_str().unwrap_or(""),
    }
}
