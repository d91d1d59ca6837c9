//! What the server says: to the log, to the service manager, and to the reader of `--ready-fd`.

use std::time::Duration;

use crate::config::Level;
use crate::hooks::HookEvent;
use crate::log::count;
use crate::master::event::{Note, SlotIndex, UpgradeFailure};
use crate::master::notes::{self, About};
use crate::master::ready::places;
use crate::master::refusal::complain;
use crate::master::service;
use crate::scoreboard::InFlight;
use crate::sys::time;

use super::Server;

impl Server {
    pub(super) fn tell(&mut self, note: &Note) {
        if let Note::Stopping(_) = note {
            self.service.stopping(self.generations.current().settings.graceful_timeout);
        } else if let Note::Reloading(generation) = note {
            self.service.reloading(*generation);
        } else if let Note::Reloaded(generation) = note {
            let serving = service::serving(self.generations.current().workers(), &places(&self.listeners).join(", "));
            self.service.reloaded(&format!("{serving}, {generation}"));
        } else if let Note::ReloadFailed { serves, .. } = note {
            self.service.reloaded(&format!("reload failed, {serves} keeps serving"));
        } else if let Note::UpgradeFailed { why, serves } = note {
            let status = format!("upgrade failed, {serves} keeps serving");
            match why {
                UpgradeFailure::Program(_) => self.service.notifier.status(&status),
                UpgradeFailure::Load(..) => self.service.reloaded(&status),
            }
        } else if let Note::Degraded { .. } | Note::Recovered(_) = note {
            self.service.notifier.status(&notes::text(note, None));
        }
        if let Note::Workers(count) = note {
            self.hooks.tell_workers(*count, &self.generations.current().log);
        }
        let about = notes::subject(note).and_then(|slot| self.about(slot));
        let text = notes::text(note, about.as_ref());
        self.heed(note, &text);
        match note {
            Note::BootFailed { why, .. } => self.watch.note_failure(&why.text),
            Note::Died { booting: true, .. } | Note::Hung { .. } => self.watch.note_failure(&text),
            Note::ReloadFailed { why, .. } => self.tell_breakage(why),
            _ => {}
        }
        let level = notes::level(note);
        self.log().write(level, format_args!("{text}"));
        if level == Level::Critical && !self.generations.current().logs.on_stderr() {
            complain(&text);
        }
    }

    fn about(&self, slot: SlotIndex) -> Option<About> {
        match &self.molds.ghost {
            Some((ghost, about)) if *ghost == slot => return Some(about.clone()),
            // What is known of the slot is another worker's.
            _ if self.molds.has_unborn(slot) => return None,
            Some(_) | None => {}
        }
        let child = self.table.child(slot)?;
        let oom = child.oom;
        let stacks = if self.table.living(slot).is_none() { child.stacks() } else { String::new() };
        let age = self.pace.now().saturating_duration_since(child.born);
        Some(About { pid: child.pid.as_raw(), age, serving: self.calls(slot), stacks, oom })
    }

    /// The calls of the application that run in a worker, or ran when it died, and for how long; the oldest first.
    pub(super) fn calls(&self, slot: SlotIndex) -> Vec<(InFlight, Duration)> {
        let now = time::monotonic();
        let since = |call: &InFlight| Duration::from_nanos(now.saturating_sub(call.since));
        self.scoreboard.in_flight(slot.0).into_iter().map(|call| (since(&call), call)).map(|(time, call)| (call, time)).collect()
    }

    /// Says that the server is ready: to the log, and to the reader of `--ready-fd`.
    pub(super) fn announce(&mut self) {
        let places = places(&self.listeners);
        let addresses = places.join(", ");
        let settings = &self.generations.current().settings;
        let (workers, threads) = (self.generations.current().workers(), settings.threads);
        self.log().info(format_args!(
            "tapster {}: {} x {} = {} on {} ({}, pid {})",
            env!("CARGO_PKG_VERSION"),
            count(workers as u64, "worker"),
            count(threads as u64, "thread"),
            count((workers * threads) as u64, "concurrent request"),
            addresses,
            self.python,
            std::process::id(),
        ));
        self.service.ready(workers, &addresses, &self.generations.current().log);
        self.hooks.tell(HookEvent::Ready, &self.generations.current().log);
        if let Some(ready) = self.ready.take()
            && let Err(error) = ready.announce(&places)
        {
            self.log().warning(format_args!("nobody reads --ready-fd: {error}"));
        }
    }
}
