//! Session tickets (RFC 5077, RFC 8446 section 4.6.1): what a client needs to resume its session in any worker, sealed by a secret
//! that the master makes for all of them and changes.
//!
//! ```text
//! name of the secret (16) | nonce (12) | sealed session | tag (16)
//! ```
//! The cipher is AES-256-GCM, reached by rustls' interface for QUIC, which every provider has. A session says who its client is, or
//! that nobody asked: under other rules for the certificates of clients it is none.

use std::fmt;
use std::sync::Arc;

use rustls::SupportedCipherSuite;
use rustls::crypto::CryptoProvider;
use rustls::crypto::cipher::{AeadKey, Iv, NONCE_LEN};
use rustls::quic::{Algorithm, PacketKey};
use rustls::server::ProducesTickets;

use super::material::{TicketSecret, TicketSecrets};
use rustls::CipherSuite;

/// How long a ticket can be used, in seconds: a secret is current for half of that, and previous for as long.
pub const LIFETIME: u32 = 24 * 60 * 60;

const NAME_LEN: usize = 16;

/// Longest ticket that is opened, in bytes: those with a chain of certificates of a client are some thousands.
const TICKET_MAX: usize = 64 * 1024;

/// Makes and opens tickets.
pub struct Tickets {
    secrets: TicketSecrets,
    /// The digest of the rules, sealed with each session.
    rules: Vec<u8>,
    cipher: &'static dyn Algorithm,
    provider: Arc<CryptoProvider>,
}

// Secrets are in no log.
impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

impl Tickets {
    /// With these secrets, of sessions that hold under these rules.
    ///
    /// # Errors
    /// When the provider has not the cipher.
    pub fn new(secrets: TicketSecrets, rules: &[u8], provider: Arc<CryptoProvider>) -> Result<Self, String> {
        let suites = provider.cipher_suites.iter();
        let mut ciphers = suites.filter_map(|suite| match suite {
            SupportedCipherSuite::Tls13(suite) if suite.common.suite == CipherSuite::TLS13_AES_256_GCM_SHA384 => {
                suite.quic.map(|cipher| (cipher, suite.common.hash_provider.hash(rules).as_ref().to_vec()))
            }
            SupportedCipherSuite::Tls13(_) | SupportedCipherSuite::Tls12(_) => None,
        });
        let (cipher, rules) = ciphers.next().ok_or("the cryptography has no AES-256-GCM")?;
        drop(ciphers);
        Ok(Self { secrets, rules, cipher, provider })
    }

    fn key(&self, secret: &TicketSecret, nonce: [u8; NONCE_LEN]) -> Box<dyn PacketKey> {
        self.cipher.packet_key(AeadKey::from(secret.key), Iv::from(nonce))
    }

    /// What is sealed with a session and not in its ticket, as far as that is known to both.
    fn about(&self, name: &[u8]) -> Vec<u8> {
        [name, &self.rules].concat()
    }

    fn named(&self, name: &[u8]) -> Option<&TicketSecret> {
        let TicketSecrets { current, previous } = &self.secrets;
        [Some(current), previous.as_ref()].into_iter().flatten().find(|secret| secret.name == name)
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let secret = &self.secrets.current;
        let mut nonce = [0; NONCE_LEN];
        self.provider.secure_random.fill(&mut nonce).ok()?;
        let mut ticket = [&secret.name[..], &nonce, plain].concat();
        let tag =
            self.key(secret, nonce).encrypt_in_place(0, &self.about(&secret.name), &mut ticket[NAME_LEN + NONCE_LEN..]).ok()?;
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(NAME_LEN)?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        if ticket.len() > TICKET_MAX {
            return None;
        }
        let secret = self.named(name)?;
        let mut sealed = sealed.to_vec();
        let len = self.key(secret, *nonce).decrypt_in_place(0, &self.about(name), &mut sealed).ok()?.len();
        sealed.truncate(len);
        Some(sealed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::provider;

    fn secret(name: u8) -> TicketSecret {
        TicketSecret { name: [name; 16], key: [name ^ 0x55; 32] }
    }

    fn tickets(current: u8, previous: Option<u8>) -> Tickets {
        Tickets::new(TicketSecrets { current: secret(current), previous: previous.map(secret) }, b"rules", provider()).unwrap()
    }

    #[test]
    fn a_ticket_is_opened_with_the_secret_of_its_time_and_the_one_after_that() {
        let ticket = tickets(1, None).encrypt(b"a session").unwrap();
        assert!(!ticket.windows(9).any(|part| part == b"a session"));
        assert_eq!(tickets(1, None).decrypt(&ticket).unwrap(), b"a session");
        assert_eq!(tickets(2, Some(1)).decrypt(&ticket).unwrap(), b"a session");
        assert_eq!(tickets(3, Some(2)).decrypt(&ticket), None);
        assert_ne!(tickets(1, None).encrypt(b"a session").unwrap(), ticket, "no nonce comes twice");
    }

    #[test]
    fn a_ticket_is_none_under_other_rules() {
        let secrets = TicketSecrets { current: secret(1), previous: None };
        let ticket = tickets(1, None).encrypt(b"a session").unwrap();
        assert_eq!(Tickets::new(secrets.clone(), b"others", provider()).unwrap().decrypt(&ticket), None);
        assert!(Tickets::new(secrets, b"rules", provider()).unwrap().decrypt(&ticket).is_some());
    }

    #[test]
    fn no_byte_of_a_ticket_can_be_changed_or_left_out() {
        let tickets = tickets(1, Some(2));
        let ticket = tickets.encrypt(b"a session").unwrap();
        for at in 0..ticket.len() {
            let mut forged = ticket.clone();
            forged[at] ^= 1;
            assert_eq!(tickets.decrypt(&forged), None, "byte {at}");
            assert_eq!(tickets.decrypt(&ticket[..at]), None, "{at} bytes");
        }
        // A name that is known, before what another secret has sealed.
        let mut forged = ticket;
        forged[..16].copy_from_slice(&[2; 16]);
        assert_eq!(tickets.decrypt(&forged), None);
    }
}
