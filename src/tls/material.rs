//! What a worker needs to speak TLS: certificates, keys, and the secrets of tickets. The master reads and checks it, as root where
//! it is root; workers get it with their birth, and anew when it has changed.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::provider;

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

impl TicketSecrets {
    /// New ones. The error is one clause.
    pub fn random() -> Result<Self, String> {
        Ok(Self { current: TicketSecret::random()?, previous: None })
    }

    /// A new secret for new tickets; those from before are still taken for as long as this holds.
    pub fn rotated(&self) -> Result<Self, String> {
        Ok(Self { current: TicketSecret::random()?, previous: Some(self.current.clone()) })
    }
}

impl TicketSecret {
    fn random() -> Result<Self, String> {
        let mut secret = Self::default();
        let source = provider().secure_random;
        source
            .fill(&mut secret.name)
            .and_then(|()| source.fill(&mut secret.key))
            .map_err(|_| "the kernel gives no random numbers (getrandom)".to_owned())?;
        Ok(secret)
    }
}

// Secrets are in no log.
impl fmt::Debug for TicketSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketSecrets").finish_non_exhaustive()
    }
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material").field("pairs", &self.pairs.len()).finish_non_exhaustive()
    }
}
