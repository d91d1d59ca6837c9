//! The configuration of rustls for a server: made of what the master has read, and of the settings.

use std::sync::Arc;

use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{CertificateError, Error, InconsistentKeys, RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::material::{CertifiedPair, Material};
use super::names::ByName;
use super::provider;
use super::tickets::Tickets;
use crate::config::{ClientCertificates, TlsSettings, TlsVersion};

/// What is spoken inside (RFC 7301), the best first. A client that offers others alone is refused, and one that keeps to HTTP/1.0, as
/// `curl --http1.0`, offers nothing else.
const ALPN: [&[u8]; 2] = [b"http/1.1", b"http/1.0"];

/// Bytes in one record (RFC 8446 section 5.1).
pub const RECORD_MAX: usize = 16 * 1024;

/// How connections are taken from now on; clones are the same.
#[derive(Clone)]
pub struct TlsServer {
    /// For rustls.
    pub config: Arc<ServerConfig>,
    /// By which rules a client is let in.
    pub rules: ClientRules,
}

/// The digest of the rules by which clients are let in.
pub type ClientRules = [u8; SHA256_OUTPUT_LEN];

/// The configuration of every connection from now on.
///
/// # Errors
/// Says which pair cannot be used, and why.
pub fn tls_server(material: &Material, settings: &TlsSettings) -> Result<TlsServer, String> {
    let provider = provider();
    let keys = material.pairs.iter().enumerate().map(|(index, pair)| {
        certified_key(pair, &provider)
            .map(Arc::new)
            .map_err(|why| format!("certificate {} of {}: {why}", index + 1, material.pairs.len()))
    });
    let names = ByName::new(keys.collect::<Result<_, _>>()?)?;
    let versions: &[&SupportedProtocolVersion] = match settings.oldest {
        TlsVersion::V1_2 => &[&TLS13, &TLS12],
        TlsVersion::V1_3 => &[&TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions);
    let builder = builder.map_err(|error| format!("the versions of TLS: {error}"))?;
    let mut config = match client_verifier(material, settings.client_certificates, &provider)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    }
    .with_cert_resolver(Arc::new(names));
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).into();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    let rules = format!("{:?} {:?} {}", settings.client_certificates, settings.oldest, material.client_roots);
    config.ticketer = Arc::new(Tickets::new(material.tickets.clone(), rules.as_bytes(), provider)?);
    // Data that a client sends before the handshake is over could be sent again by anybody (RFC 8446 section 8).
    config.max_early_data_size = 0;
    // A connection may go on in another worker.
    config.enable_secret_extraction = true;
    let rules = digest(&SHA256, rules.as_bytes()).as_ref().try_into().expect("its length is that of the digest");
    Ok(TlsServer { config: Arc::new(config), rules })
}

/// A certificate and its key, which belong together.
///
/// # Errors
/// Says what is wrong with them.
pub fn certified_key(pair: &CertifiedPair, provider: &CryptoProvider) -> Result<CertifiedKey, String> {
    let chain = certificates(&pair.chain)?;
    if chain.is_empty() {
        return Err("there is no certificate (-----BEGIN CERTIFICATE-----) in it".to_owned());
    }
    let key = private_key(&pair.key)?;
    let key =
        provider.key_provider.load_private_key(key).map_err(|error| format!("the key cannot be used: {}", plain(&error)))?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(Error::InconsistentKeys(_)) => Err("the key is not that of the certificate".to_owned()),
        Err(error) => Err(format!("the certificate cannot be used: {}", plain(&error))),
    }
}

/// The certificates of a text in PEM, in their order.
///
/// # Errors
/// Says which one cannot be read.
pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let numbered = CertificateDer::pem_slice_iter(pem.as_bytes()).enumerate();
    numbered.map(|(index, found)| found.map_err(|error| format!("certificate {} in it is no PEM: {error}", index + 1))).collect()
}

fn private_key(pem: &str) -> Result<PrivateKeyDer<'static>, String> {
    if pem.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") || pem.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(
            "the key is encrypted, and a server that starts by itself has nobody to ask for the password; take the password away \
             (openssl pkey -in KEY -out NEWKEY) and let only root read the file"
                .to_owned(),
        );
    }
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound => {
            "there is no private key (-----BEGIN PRIVATE KEY-----) in the key file".to_owned()
        }
        error => format!("the key is no PEM: {error}"),
    })
}

/// What looks at certificates of clients; `None`: they are not asked for one.
fn client_verifier(
    material: &Material,
    wanted: ClientCertificates,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, String> {
    if wanted == ClientCertificates::None {
        return Ok(None);
    }
    let roots = Arc::new(client_roots(&material.client_roots)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
    let verifier = if wanted == ClientCertificates::Optional { verifier.allow_unauthenticated() } else { verifier };
    verifier.build().map(Some).map_err(|error| format!("the certificates that sign those of clients: {error}"))
}

/// The certificates that sign those of clients.
///
/// # Errors
/// Says which one cannot be used.
pub fn client_roots(pem: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for (index, certificate) in certificates(pem)?.into_iter().enumerate() {
        roots.add(certificate).map_err(|error| format!("certificate {} in it cannot be used: {}", index + 1, plain(&error)))?;
    }
    if roots.is_empty() {
        return Err("there is no certificate (-----BEGIN CERTIFICATE-----) in it".to_owned());
    }
    Ok(roots)
}

/// An error in words.
fn plain(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::BadEncoding) => "it is not encoded as a certificate must be".to_owned(),
        Error::General(text) => text.clone(),
        error => error.to_string(),
    }
}
