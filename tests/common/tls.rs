//! Certificates, made by the program openssl, and the client's side of TLS.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme, SupportedProtocolVersion};
use tempfile::TempDir;

use super::client::Address;
use super::{SOON, place, tools};

/// TLS 1.2 and 1.3, as rustls names them.
pub use rustls::version::{TLS12, TLS13};

/// The configuration of `openssl ca`, which can make certificates of any time.
const CONFIGURATION: &str = "[ca]
default_ca = it
[it]
dir = .
new_certs_dir = .
database = index
rand_serial = yes
default_md = sha256
policy = any
copy_extensions = copy
unique_subject = no
[any]
countryName = optional
organizationName = optional
organizationalUnitName = optional
commonName = optional
emailAddress = optional
";

/// One that signs certificates, in a directory of its own.
pub struct Authority {
    dir: TempDir,
}

/// A certificate and its key, in PEM.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The certificate alone.
    pub chain: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// A kind of key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// ECDSA on P-256.
    Ecdsa,
    /// RSA with 2,048 bits.
    Rsa,
}

/// What a certificate is to be.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// The subject as `openssl req -subj` takes it; UTF-8.
    pub subject: &'a str,
    /// The subject's other names as openssl takes them, such as `DNS:*.example.test`; empty: none.
    pub names: &'a str,
    /// Its key.
    pub key: Key,
    /// `serverAuth` or `clientAuth`.
    pub usage: &'a str,
    /// The first and the last moment, as `20200101000000Z`.
    pub valid: (&'a str, &'a str),
}

/// Long before and long after any test.
pub const VALID: (&str, &str) = ("20200101000000Z", "20991231235959Z");

/// Over for years.
pub const EXPIRED: (&str, &str) = ("20200101000000Z", "20210101000000Z");

/// For a server at these names.
pub fn server_wish(names: &str) -> Wish<'_> {
    Wish { subject: "/CN=server", names, key: Key::Ecdsa, usage: "serverAuth", valid: VALID }
}

/// For a client of this name.
pub fn client_wish(subject: &str) -> Wish<'_> {
    Wish { subject, names: "", key: Key::Ecdsa, usage: "clientAuth", valid: VALID }
}

impl Authority {
    /// A new one, with a certificate of its own.
    pub fn new(name: &str) -> Self {
        let dir = place::fresh("ca-");
        fs::write(dir.path().join("ca.cnf"), CONFIGURATION).expect("it is writable");
        fs::write(dir.path().join("index"), "").expect("it is writable");
        let authority = Self { dir };
        let subject = format!("/CN={name}");
        authority.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
            "-days",
            "30",
            "-subj",
            &subject,
        ]);
        authority
    }

    fn openssl(&self, words: &[&str]) {
        tools::run(Command::new("openssl").args(words).current_dir(self.dir.path()), SOON).succeeded();
    }

    /// The file of its own certificate.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Makes `NAME.pem` and `NAME.key`, or makes them anew.
    pub fn issue(&self, name: &str, wish: Wish<'_>) -> Certificate {
        let [chain, key, request] = ["pem", "key", "csr"].map(|end| format!("{name}.{end}"));
        let kind: &[&str] = match wish.key {
            Key::Ecdsa => &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
            Key::Rsa => &["-newkey", "rsa:2048"],
        };
        let usage = format!("extendedKeyUsage={}", wish.usage);
        let names = format!("subjectAltName={}", wish.names);
        let mut words = ["req", "-new", "-nodes", "-utf8", "-keyout", &key, "-out", &request, "-subj", wish.subject].to_vec();
        words.extend_from_slice(kind);
        words.extend(["-addext", &usage]);
        if !wish.names.is_empty() {
            words.extend(["-addext", &names]);
        }
        self.openssl(&words);
        let (from, until) = wish.valid;
        self.openssl(&[
            "ca",
            "-config",
            "ca.cnf",
            "-batch",
            "-notext",
            "-preserveDN",
            "-cert",
            "ca.pem",
            "-keyfile",
            "ca.key",
            "-in",
            &request,
            "-out",
            &chain,
            "-startdate",
            from,
            "-enddate",
            until,
        ]);
        Certificate { chain: self.dir.path().join(chain), key: self.dir.path().join(key) }
    }
}

/// What every test may use: an authority and a server's certificate for `localhost` and 127.0.0.1.
pub fn shared() -> &'static (Authority, Certificate) {
    static SHARED: OnceLock<(Authority, Certificate)> = OnceLock::new();
    SHARED.get_or_init(|| {
        let authority = Authority::new("Tests");
        let certificate = authority.issue("shared", server_wish("DNS:localhost,IP:127.0.0.1"));
        (authority, certificate)
    })
}

/// Has another program trust the authority that tests share, where it connects to an encrypted address.
pub fn trust(command: &mut Command, address: &Address) {
    if matches!(address, Address::Tls(_)) {
        // Python's requests, its websocket-client, and curl.
        for name in ["REQUESTS_CA_BUNDLE", "WEBSOCKET_CLIENT_CA_BUNDLE", "CURL_CA_BUNDLE"] {
            command.env(name, shared().0.root());
        }
    }
}

/// The name that clients ask for unless a test says another one.
pub fn localhost() -> ServerName<'static> {
    ServerName::try_from("localhost").expect("it is a name")
}

/// How a client speaks.
#[derive(Clone, Copy, Default)]
pub struct Manner<'a> {
    /// The only version it speaks; `None`: both.
    pub version: Option<&'static SupportedProtocolVersion>,
    /// The authority that it trusts; `None`: it trusts everybody.
    pub root: Option<&'a Path>,
    /// What it shows.
    pub certificate: Option<&'a Certificate>,
}

impl Manner<'_> {
    /// The configuration; it has tickets of its own.
    pub fn config(&self) -> Arc<ClientConfig> {
        let versions = self.version.map_or_else(|| vec![&TLS13, &TLS12], |version| vec![version]);
        let provider = Arc::new(ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(&versions).expect("it has these");
        let builder = match self.root {
            Some(path) => {
                let mut roots = RootCertStore::empty();
                certificates(path).into_iter().for_each(|one| roots.add(one).expect("it is a root"));
                builder.with_root_certificates(roots)
            }
            None => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider))),
        };
        Arc::new(match self.certificate {
            Some(of) => builder
                .with_client_auth_cert(certificates(&of.chain), PrivateKeyDer::from_pem_file(&of.key).expect("a key"))
                .expect("a pair"),
            None => builder.with_no_client_auth(),
        })
    }

    /// As [`Manner::config`], for clients of which each begins anew.
    pub fn forgetful(&self) -> Arc<ClientConfig> {
        let mut config = Arc::unwrap_or_clone(self.config());
        config.resumption = Resumption::disabled();
        Arc::new(config)
    }
}

/// Trusts everybody and resumes what it can: for tests of something else.
pub fn anyone() -> Arc<ClientConfig> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    CONFIG.get_or_init(|| Manner::default().config()).clone()
}

/// The certificates in a file.
pub fn certificates(path: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(path).expect("it can be read").map(|one| one.expect("a certificate")).collect()
}

#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
