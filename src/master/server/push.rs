//! The figures that are sent to statsd: what has come since the last time, every few seconds, before an upgrade and at the end.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::config::{Settings, StatsdTarget};
use crate::master::refusal::reason;
use crate::net::bind;
use crate::net::datagram::{self, Receiver};
use crate::status::Detail;
use crate::status::statsd::{Naming, SentSums, datagrams};

use super::Server;

/// How often: what statsd itself sums up by default, so a shorter time would show nothing more.
const EVERY: Duration = Duration::from_secs(10);

/// The sending.
#[derive(Debug, Default)]
pub struct Pushing {
    /// When it is to be done next; `None`: never, or not begun.
    due: Option<Instant>,
    /// Whether the log says that it fails.
    failing: bool,
}

impl Pushing {
    /// When it is to be done next.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.due
    }
}

impl Server {
    /// Takes what is counted now for what was sent, if the settings are the first that have the figures sent: it has no time. Called
    /// before a worker serves by these settings, so that no request of theirs is taken for one from before.
    pub(super) fn begin_pushing(&mut self) {
        if self.generations.current().settings.statsd_host.is_some() && self.ledger.sent.is_none() {
            self.ledger.sent = Some(SentSums::of(&self.document(Detail::Public)));
        }
    }

    /// Sends the figures, if that is due.
    pub(super) fn push_figures(&mut self, now: Instant) {
        if self.generations.current().settings.statsd_host.is_none() {
            self.pushing.due = None;
            self.ledger.sent = None;
        } else if self.pushing.due.is_none_or(|due| due <= now) {
            self.pushing.due = Some(now + EVERY);
            self.push_now();
        }
    }

    /// Sends the figures, where they are sent at all.
    pub(super) fn push_now(&mut self) {
        let settings = self.generations.current().settings.clone();
        let Some(target) = &settings.statsd_host else { return };
        let destination = match (target, settings.statsd_address) {
            (StatsdTarget::Unix(path), _) => Receiver::Unix(path),
            (StatsdTarget::Udp { .. }, Some(address)) => {
                self.ledger.looked_up = Some((target.clone(), address));
                Receiver::Udp(address)
            }
            // An upgrade could not look it up, and has said so.
            (StatsdTarget::Udp { .. }, None) => return,
        };
        let document = self.document(Detail::Public);
        let Some(before) = &self.ledger.sent else { unreachable!("the settings that have them sent began with it") };
        let naming = Naming { prefix: &settings.statsd_prefix, tags: &settings.dogstatsd_tags, backlog: settings.backlog_metric };
        let lines = datagrams(&document, before, naming);
        let sent = datagram::send(destination, &lines);
        if sent.count > 0 {
            self.ledger.sent = Some(SentSums::of(&document));
        }
        match sent.error {
            Some(error) if !self.pushing.failing => {
                self.pushing.failing = true;
                let what = if sent.count == 0 { "they are sent together later" } else { "some are lost" };
                let why = match error.kind() {
                    io::ErrorKind::WouldBlock => "nobody reads there what was sent before".to_owned(),
                    _ => reason(&error),
                };
                self.log().warning(format_args!("metrics cannot be sent to {target}: {why}; {what}"));
            }
            Some(_) => {}
            None => {
                if std::mem::take(&mut self.pushing.failing) {
                    self.log().info(format_args!("metrics are sent to {target} again"));
                }
            }
        }
    }
}

/// Looks up the host of `--statsd-host`. It may wait for a name server, so the loop does not call it.
pub fn look_up(settings: &mut Settings) -> Result<(), String> {
    settings.statsd_address = match &settings.statsd_host {
        Some(StatsdTarget::Udp { host, port }) => {
            Some(address_of(host, *port).map_err(|why| format!("--statsd-host {host}: {why}"))?)
        }
        Some(StatsdTarget::Unix(_)) | None => None,
    };
    Ok(())
}

fn address_of(host: &str, port: u16) -> Result<SocketAddr, String> {
    bind::resolve(host, port)?.first().copied().ok_or_else(|| "the name has no address".to_owned())
}
