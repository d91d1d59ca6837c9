//! Front servers that speak another protocol than HTTP: which may connect (`--gateway-allow-from`), and the log of what they send
//! that is none of it.

use std::sync::Arc;

use crate::config::{Settings, Trusted};
use crate::http::error::Error;
use crate::log::count;
use crate::log::error::Log;
use crate::net::stream::PeerAddr;

use super::app::Peer;
use super::tally::{Reminder, Tally};
use super::trust;

/// Least time between two lines of the log about each kind of connections, in milliseconds.
const SUMMARY_MS: u64 = 10_000;

/// Connections with a malformed request that have a line of their own in so much time: each has one, unless it is a flood.
const LINES_MAX: u64 = 50;

/// The rules for gateways; clones are the same one.
#[derive(Clone, Debug)]
pub struct Gateways(Arc<GatewayRules>);

#[derive(Debug)]
struct GatewayRules {
    /// `--gateway-allow-from`.
    allowed: Trusted,
    /// `--ajp-secret`.
    secret: Option<String>,
    /// Connections of others, which were closed.
    strangers: Tally,
    /// Requests that were refused because they are malformed.
    malformed: Tally,
}

impl Gateways {
    /// The rules of these settings.
    pub fn of(settings: &Settings, reminder: &Reminder) -> Self {
        Self(Arc::new(GatewayRules {
            allowed: settings.gateway_allow_from.clone(),
            secret: settings.ajp_secret.clone(),
            strangers: Tally::new(SUMMARY_MS, reminder),
            malformed: Tally::with_lines(LINES_MAX, SUMMARY_MS, reminder),
        }))
    }

    /// Whether this peer may connect.
    pub fn admits(&self, peer: &PeerAddr) -> bool {
        trust::is_trusted(&self.0.allowed, peer)
    }

    /// Whether a front that has sent this secret of AJP, or none, is one of ours. How long that takes says nothing about ours but its
    /// length.
    pub fn knows(&self, secret: Option<&[u8]>) -> bool {
        let Some(ours) = &self.0.secret else { return true };
        let differs = |secret: &[u8]| ours.bytes().zip(secret).fold(0, |all, (a, b)| std::hint::black_box(all | (a ^ b)));
        secret.is_some_and(|secret| secret.len() == ours.len() && differs(secret) == 0)
    }

    /// Counts a connection that is closed because its peer may not connect; logs that from time to time. `now`: milliseconds of the
    /// loop's clock.
    #[cold]
    pub fn note_stranger(&self, peer: &Peer, now: u64, log: &Log) {
        let Some(closed) = self.0.strangers.count(now) else { return };
        log.warning(format_args!("closed a connection of {peer}{}: it is not in --gateway-allow-from", others(closed)));
    }

    /// Counts a request that is refused because it is malformed, which ends its connection, and logs it: once for each connection,
    /// as long as they are not many.
    #[cold]
    pub fn note_malformed(&self, peer: &Peer, error: Error, now: u64, log: &Log) {
        let Some(refused) = self.0.malformed.count(now) else { return };
        let hint = if error == Error::Secret { "is it that of this server?" } else { "does it speak the protocol of --bind?" };
        log.warning(format_args!("refused a request of {peer}{}: {error}; {hint}", others(refused)));
    }

    /// Logs the connections that no record has, if one is due.
    #[cold]
    pub fn tell_rest(&self, now: u64, log: &Log) {
        if let Some(closed) = self.0.strangers.rest(now) {
            let closed = count(closed, "connection");
            log.warning(format_args!("closed {closed} more since the last record that are not in --gateway-allow-from"));
        }
        if let Some(refused) = self.0.malformed.rest(now) {
            let refused = count(refused, "malformed request");
            log.warning(format_args!("refused {refused} more of gateways since the last record"));
        }
    }
}

fn others(all: u64) -> String {
    if all > 1 { format!(" ({} others since the last record)", all - 1) } else { String::new() }
}
