//! What a worker needs to speak TLS: certificates, keys, and the secrets of tickets. The master reads and checks it, as root where
//! it is root; workers get it with their birth, and anew when it has changed.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Certificates, keys and secrets of tickets.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Material {
    /// Certificates with their keys; the first one is for clients that ask for no name of another one.
    pub pairs: Vec<CertifiedPair>,
    /// The certificates in PEM that sign those of clients (`--ca-certs`); empty: none.
    pub client_roots: String,
    /// The secrets of session tickets.
    pub tickets: TicketSecrets,
}

/// A certificate and its key.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertifiedPair {
    /// The certificate and those between it and a root, in PEM.
    pub chain: String,
    /// The private key in PEM.
    pub key: String,
}

/// Secrets that every worker of a server has, so that each resumes what another one has begun.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketSecrets {
    /// For new tickets.
    pub current: TicketSecret,
    /// For tickets from before the last change.
    pub previous: Option<TicketSecret>,
}

/// The secret of session tickets of a time.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketSecret {
    /// Its name, at the beginning of each ticket.
    pub name: [u8; 16],
    /// The key of the cipher.
    pub key: [u8; 32],
}

// Secrets are in no log.
impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material").field("pairs", &self.pairs.len()).finish_non_exhaustive()
    }
}
