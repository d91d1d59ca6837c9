//! Reads the files of certificates and keys (`--certfile` and what belongs to it) into what workers get of them.
//!
//! A file may be anything that its path names by now: a pipe must not be waited for, and nothing endless be read.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};

use crate::config::TlsSettings;
use crate::tls::material::{CertifiedPair, Material, TicketSecrets};

/// Largest file in bytes: all authorities that a system trusts are 220 KB.
const FILE_MAX: u64 = 1 << 20;

/// What the files have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificates {
    /// For workers, without secrets of tickets.
    pub material: Material,
}

impl Certificates {
    /// Reads and checks the files, relative to the working directory; `None` without TLS. The error is one line for the operator.
    pub fn read(settings: Option<&TlsSettings>) -> Result<Option<Self>, String> {
        let Some(settings) = settings else { return Ok(None) };
        let mut material = Material::default();
        for pair in &settings.pairs {
            let (chain, key) = (read_text("--certfile", &pair.chain)?, read_text("--keyfile", &pair.key)?);
            material.pairs.push(CertifiedPair { chain, key });
        }
        if let Some(roots) = &settings.client_roots {
            material.client_roots = read_text("--ca-certs", roots)?;
        }
        Ok(Some(Self { material }))
    }

    /// What workers get, with these secrets.
    pub fn with(&self, tickets: &TicketSecrets) -> Material {
        Material { tickets: tickets.clone(), ..self.material.clone() }
    }
}

/// Reads a file of text.
fn read_text(option: &str, path: &Path) -> Result<String, String> {
    let failed = |why: String| format!("{option} {}: {why}", path.display());
    // A pipe without a writer must not keep this process.
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path);
    let file = file.map_err(|error| failed(reason(&error)))?;
    let meta = file.metadata().map_err(|error| failed(reason(&error)))?;
    if !meta.is_file() {
        return Err(failed("it is no regular file".into()));
    }
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(|error| failed(reason(&error)))?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(failed(format!("it has more than {FILE_MAX} bytes, which no file of certificates has")));
    }
    String::from_utf8(bytes).map_err(|_| failed("it is no text, so not in PEM".into()))
}

/// An error of the system without its number.
fn reason(error: &io::Error) -> String {
    error.kind().to_string()
}
