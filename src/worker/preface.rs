//! The PROXY protocol at the start of connections (`--proxy-protocol`): which peers may speak it, and the log of those that do
//! not.

use std::fmt;
use std::sync::Arc;

use crate::config::{Settings, Trusted};
use crate::log::count;
use crate::log::error::Log;
use crate::net::stream::PeerAddr;
use crate::protocol::proxy::{self, Accept, Broken, Preface};

use super::app::Peer;
use super::tally::{Reminder, Tally};
use super::trust;

/// Least time between two lines of the log about connections that were closed, in milliseconds.
const SUMMARY_MS: u64 = 10_000;

/// The rules for the start of a connection; clones are the same one.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Admission>);

#[derive(Debug)]
struct Admission {
    accept: Accept,
    /// `--proxy-allow-from`.
    allowed: Trusted,
    /// Connections that were closed.
    closed: Tally,
}

impl Gate {
    /// The rules of these settings; `None`: connections have no preface.
    pub fn of(settings: &Settings, reminder: &Reminder) -> Option<Self> {
        let (accept, allowed) = (settings.proxy_protocol?, settings.proxy_allow_from.clone());
        Some(Self(Arc::new(Admission { accept, allowed, closed: Tally::new(SUMMARY_MS, reminder) })))
    }

    /// Whether this peer may name the clients of its connections.
    pub fn admits(&self, peer: &PeerAddr) -> bool {
        trust::is_trusted(&self.0.allowed, peer)
    }

    /// Reads the first bytes of a connection.
    pub fn read(&self, bytes: &[u8]) -> Result<Option<Preface>, Broken> {
        proxy::read(bytes, self.0.accept)
    }

    /// Counts a connection of this peer that is closed; logs that from time to time. `now`: milliseconds of the loop's clock.
    #[cold]
    pub fn note_closed(&self, peer: &Peer, why: &dyn fmt::Display, now: u64, log: &Log) {
        let Some(closed) = self.0.closed.count(now) else { return };
        let others = if closed > 1 { format!(" ({} others since the last record)", closed - 1) } else { String::new() };
        log.warning(format_args!("closed a connection of {peer}{others}: {why}"));
    }

    /// Logs the connections that no record has, if one is due.
    #[cold]
    pub fn tell_rest(&self, now: u64, log: &Log) {
        let Some(closed) = self.0.closed.rest(now) else { return };
        log.warning(format_args!(
            "closed {} more since the last record, without a valid PROXY protocol preface or not in --proxy-allow-from",
            count(closed, "connection")
        ));
    }
}
