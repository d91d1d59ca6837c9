//! What is in a certificate and its key, and whether the two can be served.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::file::PemFile;
use super::pem::{PemSection, sections};
use crate::tls::material::CertifiedPair;
use crate::tls::provider;

/// A day.
pub(super) const SECONDS_PER_DAY: u64 = 24 * 3600;

/// Most certificates in a chain that every client takes: Java refuses longer ones (jdk.tls.maxCertificateChainLength). An ordinary one
/// has two or three, and each handshake sends all of them.
const CHAIN_MAX: usize = 10;

/// The label of a certificate.
const CERTIFICATE: &str = "CERTIFICATE";

/// Labels of keys: PKCS #8, and the older forms of RSA and of elliptic curves.
const KEYS: [&str; 3] = ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"];

/// Labels of keys that are no use.
const ENCRYPTED_KEY: &str = "ENCRYPTED PRIVATE KEY";
const DSA_KEY: &str = "DSA PRIVATE KEY";
const OPENSSH_KEY: &str = "OPENSSH PRIVATE KEY";

/// What is in a certificate and its key.
pub(super) struct Inspected {
    /// The certificates and the key, and nothing else of their files.
    pub(super) pair: CertifiedPair,
    /// The hosts that the certificate is for.
    pub(super) names: Vec<String>,
    /// When it begins and ceases to be valid, in seconds since 1970.
    pub(super) valid: (u64, u64),
    /// What is not as it should be, one line each.
    pub(super) warnings: Vec<String>,
}

/// A certificate of a file.
struct Read {
    line: usize,
    der: CertificateDer<'static>,
    parsed: Certificate,
}

/// Inspects a certificate and its key, which is in the same file if it has none of its own.
pub(super) fn pair(chain: &PemFile, key: Option<&PemFile>) -> Result<Inspected, String> {
    let (certificates, text) = certificates(chain)?;
    let key_file = key.unwrap_or(chain);
    let key_section = private_key(key_file, key.is_none())?;
    let der = PrivateKeyDer::from_pem_slice(key_section.text.as_bytes())
        .map_err(|error| key_file.fault(Some(key_section.line), &format!("the key cannot be read: {error}")))?;
    let provider = provider();
    let signing = provider.key_provider.load_private_key(der).map_err(|error| {
        let why = format!("the key cannot be used ({error}); RSA of 2048 bits and more, ECDSA (P-256, P-384) and Ed25519 can be");
        key_file.fault(Some(key_section.line), &why)
    })?;
    let fits = |read: &Read| match CertifiedKey::new(vec![read.der.clone()], signing.clone()).keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(true),
        Err(Error::InconsistentKeys(_)) => Ok(false),
        Err(error) => Err(chain.fault(Some(read.line), &format!("the certificate cannot be used: {error}"))),
    };
    let (first, rest) = certificates.split_first().ok_or_else(|| none(chain))?;
    if !fits(first)? {
        return Err(match rest.iter().find(|read| fits(read) == Ok(true)) {
            Some(own) => chain.fault(
                Some(own.line),
                &format!("the certificate of the key has to be the first one, and the one in line {} is another", first.line),
            ),
            None => key_file.fault(
                Some(key_section.line),
                &format!("the key is not that of the certificate in {}; the two are given in the same order", chain.path()),
            ),
        });
    }
    let warnings = doubts(chain, &certificates);
    let names =
        names(&first.parsed).map_err(|error| chain.fault(Some(first.line), &format!("its names cannot be read: {error}")))?;
    let valid = valid(&first.parsed);
    Ok(Inspected { pair: CertifiedPair { chain: text, key: key_section.text.to_owned() }, names, valid, warnings })
}

/// What clients may not like in a chain, one line each.
fn doubts(chain: &PemFile, certificates: &[Read]) -> Vec<String> {
    let count = certificates.len();
    if count > CHAIN_MAX {
        // Its links are not looked at: whoever has put them all together has not meant a chain.
        let why = format!(
            "it has {count} certificates, which every handshake sends, and some clients refuse more than {CHAIN_MAX}; leave the \
             server's own and those that sign it"
        );
        return vec![chain.fault(None, &why)];
    }
    let links = certificates.iter().zip(&certificates[1..]);
    let broken =
        links.filter(|(below, above)| below.parsed.tbs_certificate().issuer() != above.parsed.tbs_certificate().subject());
    let fault = |(below, above): (&Read, &Read)| {
        let why = format!("it does not sign the one before it (line {}): some clients refuse such a chain", below.line);
        chain.fault(Some(above.line), &why)
    };
    broken.map(fault).collect()
}

/// Checks certificates that sign those of clients; returns them and nothing else of the file.
pub(super) fn roots(file: &PemFile) -> Result<String, String> {
    let (certificates, text) = certificates(file)?;
    let mut roots = RootCertStore::empty();
    for read in certificates {
        roots.add(read.der).map_err(|error| file.fault(Some(read.line), &format!("the certificate cannot be used: {error}")))?;
    }
    if roots.is_empty() { Err(none(file)) } else { Ok(text) }
}

/// The certificates of a file, and their text.
fn certificates(file: &PemFile) -> Result<(Vec<Read>, String), String> {
    let mut text = String::new();
    let mut read = Vec::new();
    for section in found(file)?.into_iter().filter(|section| section.label == CERTIFICATE) {
        let fault = |why: String| file.fault(Some(section.line), &format!("the certificate cannot be read: {why}"));
        let der = CertificateDer::from_pem_slice(section.text.as_bytes()).map_err(|error| fault(error.to_string()))?;
        let parsed = Certificate::from_der(&der).map_err(|error| fault(error.to_string()))?;
        read.push(Read { line: section.line, der, parsed });
        text.push_str(section.text);
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    if read.is_empty() { Err(none(file)) } else { Ok((read, text)) }
}

fn found(file: &PemFile) -> Result<Vec<PemSection<'_>>, String> {
    sections(&file.text)
        .map_err(|line| file.fault(Some(line), "what begins there has no end: the file is cut off, or being written"))
}

/// No certificate is in the file.
fn none(file: &PemFile) -> String {
    let labels: Vec<_> = found(file).unwrap_or_default().iter().map(|section| section.label).collect();
    let hint = match labels.first() {
        Some(label) if label.ends_with("CERTIFICATE REQUEST") => {
            ", but a request for one, which the authority makes a certificate of".to_owned()
        }
        Some(label) => format!(", but {label}"),
        None if file.text.trim().is_empty() => ": it is empty".to_owned(),
        None => String::new(),
    };
    file.fault(None, &format!("there is no certificate in it (-----BEGIN CERTIFICATE-----){hint}"))
}

/// The key of a file. `with_chain`: the file is that of the certificate.
fn private_key(file: &PemFile, with_chain: bool) -> Result<PemSection<'_>, String> {
    let sections = found(file)?;
    let of = |label: &str| sections.iter().find(|section| section.label == label);
    let key = sections.iter().find(|section| KEYS.contains(&section.label));
    let encrypted = key.filter(|section| section.text.contains("Proc-Type: 4,ENCRYPTED"));
    if let Some(section) = encrypted.or_else(|| if key.is_none() { of(ENCRYPTED_KEY) } else { None }) {
        let why = format!(
            "the key is encrypted, and a server has nobody to ask for the password; take it away: (umask 077; openssl pkey -in {} -out \
             NEW.key)",
            file.path()
        );
        return Err(file.fault(Some(section.line), &why));
    }
    if let Some(section) = key {
        return Ok(*section);
    }
    if let Some(section) = of(OPENSSH_KEY).or_else(|| of(DSA_KEY)) {
        let why = format!("it is a key of another kind ({}); RSA, ECDSA and Ed25519 in PKCS #8 can be used", section.label);
        return Err(file.fault(Some(section.line), &why));
    }
    let hint = if with_chain { "; name its file by --keyfile" } else { "" };
    Err(file.fault(None, &format!("there is no private key in it (-----BEGIN PRIVATE KEY-----){hint}")))
}

/// The hosts that a certificate is for: names and addresses (RFC 5280 section 4.2.1.6). The common name is none, since clients look at
/// it no more (RFC 9525 section 2).
fn names(certificate: &Certificate) -> Result<Vec<String>, x509_cert::der::Error> {
    let Some((_, SubjectAltName(names))) = certificate.tbs_certificate().get_extension::<SubjectAltName>()? else {
        return Ok(Vec::new());
    };
    let host = |name: GeneralName| match name {
        // It gets into logs and figures.
        GeneralName::DnsName(name) => Some(name.as_str().chars().filter(char::is_ascii_graphic).collect()),
        GeneralName::IpAddress(address) => {
            let bytes = address.as_bytes();
            let v4 = <[u8; 4]>::try_from(bytes).map(|bytes| Ipv4Addr::from(bytes).to_string());
            v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(|bytes| Ipv6Addr::from(bytes).to_string())).ok()
        }
        _ => None,
    };
    Ok(names.into_iter().filter_map(host).collect())
}

fn valid(certificate: &Certificate) -> (u64, u64) {
    let validity = certificate.tbs_certificate().validity();
    let seconds = |time: Duration| time.as_secs();
    (seconds(validity.not_before.to_unix_duration()), seconds(validity.not_after.to_unix_duration()))
}
