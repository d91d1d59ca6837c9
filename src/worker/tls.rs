//! TLS of the worker's connections: on which listeners it is spoken, and with which certificates from now on.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use crate::config::TlsSettings;
use crate::tls::material::Material;
use crate::tls::server::{TlsServer, tls_server};

/// What new connections get; clones are the same one.
#[derive(Clone)]
pub struct Terminator(Arc<Termination>);

struct Termination {
    settings: TlsSettings,
    /// Whether each listener is encrypted.
    encrypted: Box<[bool]>,
    server: RwLock<TlsServer>,
}

impl fmt::Debug for Terminator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terminator").field("encrypted", &self.0.encrypted).finish_non_exhaustive()
    }
}

impl Terminator {
    /// With these certificates, for the listeners that are `encrypted`.
    ///
    /// # Errors
    /// Says what cannot be used.
    pub fn new(material: &Material, settings: TlsSettings, encrypted: impl Iterator<Item = bool>) -> Result<Self, String> {
        let server = RwLock::new(tls_server(material, &settings)?);
        Ok(Self(Arc::new(Termination { settings, encrypted: encrypted.collect(), server })))
    }

    /// Whether this listener is encrypted.
    pub fn covers(&self, listener: usize) -> bool {
        self.0.encrypted.get(listener).is_some_and(|&is_encrypted| is_encrypted)
    }

    /// How a new connection is taken.
    pub fn server(&self) -> TlsServer {
        self.0.server.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// New connections get this from now on; those that there are go on.
    ///
    /// # Errors
    /// Says what cannot be used; what was there stays.
    pub fn renew(&self, material: &Material) -> Result<(), String> {
        let server = tls_server(material, &self.0.settings)?;
        *self.0.server.write().unwrap_or_else(PoisonError::into_inner) = server;
        Ok(())
    }
}
