//! Certificates and keys of the operator (`--certfile` and what belongs to it): their files are read and checked, and become what
//! workers get of them.
//!
//! Whatever would fail later, or only for some clients, is found here: a key of another certificate, a password, the wrong order, dates.
//! What can be mended by nobody but the operator and still be served is a warning: a server that does not start because its certificate
//! has expired serves nobody, not even those who do not mind.

mod file;
mod inspect;
mod pem;
mod sealed;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::config::{ClientCertificates, TlsSettings};
use crate::log::error::Log;
use crate::sys::time::wall;
use crate::tls::material::{Material, TicketSecrets};
use crate::tls::server::tls_server;

pub use file::FileStamp;
use file::PemFile;
use inspect::{Inspected, SECONDS_PER_DAY};
pub use sealed::{seal, unseal};

/// Most bytes of all certificates and keys together: they are sent to each worker.
const MATERIAL_MAX: usize = 4 << 20;

/// A certificate is about to expire when fewer days are left, and less than a third of its life: who renews in time does so before.
const DAYS_LEFT: u64 = 14;

/// What the files have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificates {
    /// For workers, without secrets of tickets.
    material: Material,
    /// The certificates of the server, in the order of `--certfile`.
    pub facts: Vec<CertificateFacts>,
    /// How the files were when they were read, in the order of [`files`].
    pub stamps: Vec<Option<FileStamp>>,
    /// What is not as it should be and can be served, one line each.
    pub warnings: Vec<String>,
}

/// What is known of a certificate of the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateFacts {
    /// Its file, as it was given.
    pub file: String,
    /// The hosts that it is for.
    pub names: Vec<String>,
    /// When it begins and ceases to be valid, in seconds since 1970.
    pub valid: (u64, u64),
}

/// What a look at the files has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Found {
    /// They are as they were.
    Same,
    /// They are others.
    Changed(Box<Certificates>),
    /// They are others, and of no use: why, in one line, and how they are.
    Unusable(String, Vec<Option<FileStamp>>),
}

/// The files that the settings name.
fn files(settings: &TlsSettings) -> impl Iterator<Item = &Path> {
    let pairs = settings.pairs.iter().flat_map(|pair| [pair.chain.as_path(), pair.key.as_path()]);
    pairs.chain(settings.client_roots.as_deref())
}

/// How the files are now; `None` for one that is not there.
fn stamps(settings: &TlsSettings) -> Vec<Option<FileStamp>> {
    files(settings).map(FileStamp::of).collect()
}

/// Looks whether the files, relative to the working directory, are others than those with these stamps. `now`: seconds since 1970.
pub fn look(settings: &TlsSettings, known: &[Option<FileStamp>], now: u64) -> Found {
    let before = stamps(settings);
    if before == known {
        return Found::Same;
    }
    match Certificates::read(settings, now) {
        Ok(certificates) => Found::Changed(Box::new(certificates)),
        Err(why) => Found::Unusable(why, before),
    }
}

impl Certificates {
    /// The same as [`Self::read`] at this moment; `None`: TLS is not spoken.
    pub fn of(settings: Option<&TlsSettings>) -> Result<Option<Self>, String> {
        settings.map(|settings| Self::read(settings, wall().seconds)).transpose()
    }

    /// Reads and checks the files, relative to the working directory. `now`: seconds since 1970. The error is one line for the
    /// operator.
    pub fn read(settings: &TlsSettings, now: u64) -> Result<Self, String> {
        // Before they are read: what changes meanwhile is another change.
        let mut certificates = Self { stamps: stamps(settings), ..Self::default() };
        for pair in &settings.pairs {
            let chain = PemFile::read("--certfile", &pair.chain)?;
            let is_one = pair.key == pair.chain;
            let key = if is_one { None } else { Some(PemFile::read("--keyfile", &pair.key)?) };
            let inspected = inspect::pair(&chain, key.as_ref())?;
            certificates.warnings.extend(key.as_ref().unwrap_or(&chain).exposure());
            certificates.take(&pair.chain, inspected, now);
        }
        if let Some(roots) = &settings.client_roots {
            certificates.material.client_roots = inspect::roots(&PemFile::read("--ca-certs", roots)?)?;
            if settings.client_certificates == ClientCertificates::None {
                let file = roots.display();
                certificates.warnings.push(format!("--ca-certs {file}: no client is asked for a certificate (--cert-reqs none)"));
            }
        }
        let material = &certificates.material;
        let size =
            material.pairs.iter().map(|pair| pair.chain.len() + pair.key.len()).sum::<usize>() + material.client_roots.len();
        if size > MATERIAL_MAX {
            return Err(format!("the certificates and keys have {size} bytes together, more than {MATERIAL_MAX}"));
        }
        // What a worker does with it, which must not fail there.
        tls_server(material, settings).map_err(|why| format!("TLS cannot be spoken with these files: {why}"))?;
        Ok(certificates)
    }

    fn take(&mut self, file: &Path, inspected: Inspected, now: u64) {
        let facts = CertificateFacts { file: file.display().to_string(), names: inspected.names, valid: inspected.valid };
        self.warnings.extend(inspected.warnings);
        if facts.names.is_empty() {
            self.warnings.push(format!("--certfile {}: it names no host (subjectAltName), so no browser takes it", facts.file));
        }
        self.warnings.extend(facts.doubt(now));
        self.material.pairs.push(inspected.pair);
        self.facts.push(facts);
    }

    /// What workers get, with these secrets.
    pub fn with(&self, tickets: &TicketSecrets) -> Material {
        Material { tickets: tickets.clone(), ..self.material.clone() }
    }

    /// Tells the log what is served, and what is not as it should be.
    pub fn tell(&self, log: &Log) {
        let now = wall().seconds;
        for warning in &self.warnings {
            log.warning(format_args!("{warning}"));
        }
        for facts in &self.facts {
            log.info(format_args!("{}", facts.describe(now)));
        }
    }

    /// Whether workers would get the same.
    pub fn is_as(&self, other: &Self) -> bool {
        self.material == other.material
    }

    /// Whether the same certificates of clients are valid.
    pub fn trusts_as(&self, other: &Self) -> bool {
        self.material.client_roots == other.material.client_roots
    }

    /// Why these are no successors of the ones that serve: a copy from before has come into their place.
    pub fn is_older_than(&self, serving: &Self, now: u64) -> Option<String> {
        let worse = self.facts.iter().find(|facts| {
            let served = serving.facts.iter().find(|served| served.file == facts.file);
            facts.is_expired(now) && served.is_some_and(|served| !served.is_expired(now))
        })?;
        Some(format!("--certfile {}: the new certificate has expired, the one that is served has not", worse.file))
    }
}

impl CertificateFacts {
    /// Whether it is valid no more.
    pub fn is_expired(&self, now: u64) -> bool {
        self.valid.1 < now
    }

    /// Whole days until it expires; negative: since then.
    pub fn days_left(&self, now: u64) -> i64 {
        let seconds = i128::from(self.valid.1) - i128::from(now);
        i64::try_from(seconds.div_euclid(i128::from(SECONDS_PER_DAY))).unwrap_or(i64::MAX)
    }

    /// What its dates make doubtful, in one line.
    pub fn doubt(&self, now: u64) -> Option<String> {
        let (file, (begin, end)) = (&self.file, self.valid);
        if self.is_expired(now) {
            let days = (now - end) / SECONDS_PER_DAY;
            return Some(format!("--certfile {file}: it has expired {days} days ago, and clients refuse it; renew it"));
        }
        if begin > now {
            let hours = (begin - now).div_ceil(3600);
            return Some(format!(
                "--certfile {file}: it is valid in {hours} hours only, by the clock of this machine: is that right?"
            ));
        }
        let left = end - now;
        let near = left < DAYS_LEFT * SECONDS_PER_DAY && left < (end - begin) / 3;
        near.then(|| format!("--certfile {file}: it expires in {} days; renew it", left / SECONDS_PER_DAY))
    }

    /// What it is, for the log: names and days.
    pub fn describe(&self, now: u64) -> String {
        const SHOWN: usize = 5;
        let more = self.names.len().saturating_sub(SHOWN);
        let mut names = self.names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
        if more > 0 {
            names += &format!(" and {more} more");
        }
        format!("certificate {} for {names}: {} days left", self.file, self.days_left(now))
    }
}

/// A file, or a line of it, as messages name it.
fn named(option: &str, path: &Path, line: Option<usize>) -> String {
    match line {
        Some(line) => format!("{option} {} line {line}", path.display()),
        None => format!("{option} {}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = SECONDS_PER_DAY;

    fn facts(begin: u64, end: u64) -> CertificateFacts {
        CertificateFacts { file: "c.pem".into(), names: vec!["a".into()], valid: (begin * DAY, end * DAY) }
    }

    #[test]
    fn dates_are_doubted_when_clients_do_or_will_soon() {
        for (valid, now, expected) in [
            ((0, 90), 75, None),
            ((0, 90), 77, Some("it expires in 13 days; renew it")),
            ((0, 90), 92, Some("it has expired 2 days ago, and clients refuse it; renew it")),
            ((0, 6), 3, None),
            ((0, 6), 5, Some("it expires in 1 days; renew it")),
            ((10, 90), 9, Some("it is valid in 24 hours only, by the clock of this machine: is that right?")),
        ] {
            let expected = expected.map(|why| format!("--certfile c.pem: {why}"));
            assert_eq!(facts(valid.0, valid.1).doubt(now * DAY), expected, "{valid:?} on day {now}");
        }
        assert_eq!((facts(0, 90).days_left(89 * DAY + 1), facts(0, 90).days_left(91 * DAY)), (0, -1));
    }

    #[test]
    fn an_old_certificate_is_no_successor_of_a_valid_one() {
        let of = |end: u64| Certificates { facts: vec![facts(0, end)], ..Certificates::default() };
        assert!(of(50).is_older_than(&of(90), 60 * DAY).is_some());
        assert_eq!(of(50).is_older_than(&of(90), 40 * DAY), None, "it is shorter, and valid");
        assert_eq!(of(55).is_older_than(&of(50), 60 * DAY), None, "neither is valid");
    }

    #[test]
    fn many_names_are_cut_short() {
        let mut many = facts(0, 90);
        many.names = (0..7).map(|number| format!("n{number}")).collect();
        assert_eq!(many.describe(0), "certificate c.pem for n0, n1, n2, n3, n4 and 2 more: 90 days left");
    }
}
