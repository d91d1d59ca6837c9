//! Which certificate a client gets: by the name that it asks for (SNI, RFC 6066 section 3) and the signatures that it can check.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// Certificates by their names.
pub struct ByName {
    keys: Vec<Arc<CertifiedKey>>,
    /// Names in small letters, those with a wildcard without their `*`, each with the certificates that have it, in their order.
    names: HashMap<String, Vec<usize>>,
}

impl fmt::Debug for ByName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByName").field("names", &self.names).finish_non_exhaustive()
    }
}

impl ByName {
    /// These, of which the first one is for clients that ask for no name of another one.
    ///
    /// # Errors
    /// When the names in a certificate cannot be read.
    pub fn new(keys: Vec<Arc<CertifiedKey>>) -> Result<Self, String> {
        let mut names = HashMap::<String, Vec<usize>>::new();
        for (index, key) in keys.iter().enumerate() {
            for name in
                alternative_names(&key.cert[0]).map_err(|error| format!("the names in certificate {}: {error}", index + 1))?
            {
                let name = name.strip_prefix('*').unwrap_or(&name).to_ascii_lowercase();
                names.entry(name).or_default().push(index);
            }
        }
        Ok(Self { keys, names })
    }

    /// The certificates for this name, best first: with the name itself, then with a wildcard in the place of its first label
    /// (RFC 9525 section 6.3), else the first one.
    fn candidates(&self, name: Option<&str>) -> impl Iterator<Item = &Arc<CertifiedKey>> {
        let name = name.map(|name| name.trim_end_matches('.').to_ascii_lowercase()).unwrap_or_default();
        let of = |name: &str| self.names.get(name).map_or(&[][..], Vec::as_slice);
        let wild = name.find('.').map_or(&[][..], |dot| if dot > 0 { of(&name[dot..]) } else { &[] });
        let exact = if name.starts_with('.') { &[][..] } else { of(&name) };
        let first: &[usize] = if exact.is_empty() && wild.is_empty() { &[0] } else { &[] };
        exact.iter().chain(wild).chain(first).filter_map(|&index| self.keys.get(index))
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        let name = hello.server_name();
        self.candidates(name).find(fits).or_else(|| self.candidates(name).next()).cloned()
    }
}

/// The host names in a certificate (RFC 5280 section 4.2.1.6). The common name is none: no client looks at it (RFC 9525).
///
/// # Errors
/// When it cannot be read.
pub fn alternative_names(certificate: &[u8]) -> Result<Vec<String>, x509_cert::der::Error> {
    let certificate = Certificate::from_der(certificate)?;
    let Some((_, SubjectAltName(names))) = certificate.tbs_certificate().get_extension::<SubjectAltName>()? else {
        return Ok(Vec::new());
    };
    let hosts =
        names.into_iter().filter_map(|name| if let GeneralName::DnsName(name) = name { Some(name.to_string()) } else { None });
    Ok(hosts.collect())
}
