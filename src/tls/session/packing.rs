//! A session leaves its process as bytes, and comes into another.

use std::io;

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::WriteTraffic;
use zeroize::Zeroizing;

use super::{Engine, Session, certificate};
use crate::tls::keys::{KeySet, Records};
use crate::tls::records::{Unsent, has_record};
use crate::tls::travel::{CERTIFICATE_MAX, Travelling};

impl Session {
    /// Whether it can go to another process, when nothing is in between.
    pub fn may_travel(&self) -> bool {
        match &self.engine {
            Engine::Negotiated(connection) => {
                certificate(connection).is_none_or(|certificate| certificate.len() <= CERTIFICATE_MAX)
            }
            Engine::Moved(_) => true,
            Engine::Gone => false,
        }
    }

    /// What another process needs to go on with it ([`Self::unpack`]); `None`: it cannot go, or not now. Nothing may be done here after
    /// it has gone; if it stays, it goes on by the same keys, which [`Records`] have from then on: a client that asks for new ones ends it.
    /// So it is packed where it will find room.
    pub fn pack(&mut self) -> Option<Zeroizing<Vec<u8>>> {
        // Whole records may be parts of a message, which rustls has opened where they are.
        let is_between = !self.is_handshaking() && !has_record(&self.incoming);
        if !is_between || self.is_broken || self.has_ended || !self.may_travel() || self.holds_back() {
            return None;
        }
        self.engine = match std::mem::replace(&mut self.engine, Engine::Gone) {
            Engine::Negotiated(connection) => match keys_of(connection) {
                Some(keys) => Engine::Moved(Box::new(Records::new(keys))),
                None => {
                    self.is_broken = true;
                    return None;
                }
            },
            engine => engine,
        };
        let Engine::Moved(records) = &self.engine else { return None };
        let (opened, incoming) = (self.opened.clone(), self.incoming.clone());
        Travelling { keys: records.keys().clone(), rules: self.rules, is_ended: self.is_ended, opened, incoming }.to_bytes()
    }

    /// Whether records are sealed and not sent, those of rustls too. Its answer to new keys of the client is sealed, by keys that are
    /// gone, when they come, and leaves with the next bytes: without it the client understands nothing that follows. Nothing tells of
    /// it; a record for which there is no room has it queued, and is not made.
    fn holds_back(&mut self) -> bool {
        if matches!(&self.engine, Engine::Negotiated(_)) {
            let queue = |traffic: &mut WriteTraffic<'_, _>, _: &mut [u8]| traffic.encrypt(b"?", &mut []).or(Ok(0));
            if self.with_traffic(queue, 0).is_err() {
                return true;
            }
        }
        self.has_unsent() || matches!(&self.engine, Engine::Negotiated(connection) if connection.wants_write())
    }

    /// Goes on with what another process has packed.
    ///
    /// # Errors
    /// `InvalidData`: it has packed something else.
    pub fn unpack(bytes: &[u8]) -> io::Result<Self> {
        let Travelling { keys, rules, is_ended, opened, incoming } = Travelling::of_bytes(bytes)?;
        let engine = Engine::Moved(Box::new(Records::new(keys)));
        Ok(Self { engine, rules, incoming, opened, unsent: Unsent::default(), is_ended, has_ended: false, is_broken: false })
    }
}

/// The keys of a connection after its handshake, which ends by that; `None`: they are not known outside of rustls.
fn keys_of(connection: UnbufferedServerConnection) -> Option<KeySet> {
    let shown = certificate(&connection).unwrap_or_default().into();
    let (version, suite) = (connection.protocol_version()?, connection.negotiated_cipher_suite()?.suite());
    let (secrets, _) = connection.dangerous_into_kernel_connection().ok()?;
    KeySet::of(&secrets, version, suite, shown)
}
