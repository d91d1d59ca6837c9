//! What a generation has to speak TLS: certificates and keys, and the secrets of session tickets.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::certificates::Certificates;
use crate::config::{Settings, TlsSettings};
use crate::tls::material::{Material, TicketSecrets};

/// How long new tickets get the same secret. A secret is taken for twice that time, which is the life of a ticket at most (RFC 8446
/// section 4.6.1 allows seven days).
const ROTATION: Duration = Duration::from_secs(12 * 3600);

/// Certificates, keys and secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// What the files have.
    pub certificates: Certificates,
    /// The secrets of tickets, which all workers have.
    tickets: TicketSecrets,
    /// When they were made, in seconds since 1970.
    made: u64,
}

impl Credentials {
    /// With new secrets. `now`: seconds since 1970.
    pub fn new(certificates: Certificates, now: u64) -> Result<Self, String> {
        Ok(Self { certificates, tickets: TicketSecrets::random()?, made: now })
    }

    /// Reads what the settings name, if TLS is spoken.
    pub fn read(settings: &Settings, now: u64) -> Result<Option<Self>, String> {
        Certificates::of(settings.tls.as_ref())?.map(|certificates| Self::new(certificates, now)).transpose()
    }

    /// Of the next generation. Tickets are taken on, unless other clients are to be let in: who resumes is not asked again for a
    /// certificate.
    pub fn next(&self, certificates: Certificates, same_demand: bool, now: u64) -> Result<Self, String> {
        if same_demand && self.certificates.trusts_as(&certificates) {
            return Ok(Self { certificates, ..self.clone() });
        }
        Self::new(certificates, now)
    }

    /// The same with another secret for new tickets, if that is due. A clock that was set back makes it due as well.
    pub fn rotated(&self, now: u64) -> Option<Result<Self, String>> {
        let is_due = now.checked_sub(self.made).is_none_or(|age| age >= ROTATION.as_secs());
        is_due.then(|| Ok(Self { tickets: self.tickets.rotated()?, made: now, ..self.clone() }))
    }

    /// What workers get.
    pub fn material(&self) -> Material {
        self.certificates.with(&self.tickets)
    }
}

/// Whether clients have to show the same.
pub fn same_demand(new: Option<&TlsSettings>, old: Option<&TlsSettings>) -> bool {
    new.map(|tls| tls.client_certificates) == old.map(|tls| tls.client_certificates)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials() -> Credentials {
        Credentials::new(Certificates::default(), 1_000_000).unwrap()
    }

    #[test]
    fn secrets_are_rotated_after_half_a_day_and_the_last_one_is_kept() {
        let first = credentials();
        assert!(first.rotated(1_000_000 + ROTATION.as_secs() - 1).is_none());
        let second = first.rotated(1_000_000 + ROTATION.as_secs()).unwrap().unwrap();
        assert!(second.tickets.current != first.tickets.current);
        assert!(second.tickets.previous.as_ref() == Some(&first.tickets.current));
        assert!(first.rotated(0).is_some(), "the clock was set back");
    }

    #[test]
    fn tickets_are_taken_on_unless_other_clients_are_let_in() {
        let first = credentials();
        assert!(first.next(Certificates::default(), true, 0).unwrap().tickets == first.tickets);
        assert!(first.next(Certificates::default(), false, 0).unwrap().tickets != first.tickets);
    }
}
