//! What is read and opened again while the server runs: the configuration, for a new generation, and the log files.

use std::sync::Arc;
use std::time::Instant;

use crate::certificates::Certificates;
use crate::config::{Notice, Settings, keep_fixed};
use crate::master::credentials::same_demand;
use crate::master::directory;
use crate::master::event::{Event, Generation, Policy};
use crate::master::generations::Kit;
use crate::master::logs::Logs;
use crate::master::reading::Reading;
use crate::sys::time::wall;

use super::{Server, look_up};

impl Server {
    /// Begins to read the configuration for a new generation, in what the directory of the start is now.
    pub(super) fn begin_reading(&mut self, generation: Generation) -> Option<Event> {
        let begun = directory::follow(self.command.dir()).and_then(|()| {
            let begun = Reading::start(|| {
                let (mut settings, notices) = (self.reread)(generation)?;
                look_up(&mut settings)?;
                let certificates = Certificates::of(settings.tls.as_ref())?;
                Ok((settings, certificates, notices))
            });
            begun.map_err(|error| format!("the configuration cannot be read: {error}"))
        });
        // Until it is read, the master is where its generation is.
        self.generations.current().directories.return_to();
        match begun {
            Ok(reading) => {
                self.reading = Some((generation, reading));
                None
            }
            Err(why) => Some(Event::Read(Err(why))),
        }
    }

    /// What was read, once it is there, with what it names opened.
    pub(super) fn reading_outcome(&mut self) -> Option<Event> {
        let (_, reading) = self.reading.as_mut()?;
        let read = reading.outcome(Instant::now())?;
        let (generation, reading) = self.reading.take()?;
        // Its process is about to end, or has ended unheard.
        self.orphans = true;
        let entered = reading.enter_its_directory().map_err(|error| format!("its directory cannot be entered: {error}"));
        let policy = entered.and_then(|()| self.open(generation, read?));
        if policy.is_err() {
            self.generations.current().directories.return_to();
        }
        Some(Event::Read(policy))
    }

    /// Nobody wants to know any more what is read.
    pub(super) fn end_reading(&mut self) {
        if let Some((_, reading)) = self.reading.take() {
            reading.abandon();
            self.orphans = true;
        }
    }

    /// Opens what the settings of a new generation name.
    fn open(&mut self, generation: Generation, read: (Settings, Option<Certificates>, Vec<Notice>)) -> Result<Policy, String> {
        let (mut settings, certificates, notices) = read;
        let current = self.generations.current();
        if !settings.binds_given {
            // Sockets of a service manager, which nobody names again.
            settings.binds.clone_from(&current.settings.binds);
        }
        let fixed = keep_fixed(&mut settings, &current.settings);
        let (now, same) = (wall().seconds, same_demand(settings.tls.as_ref(), current.settings.tls.as_ref()));
        let credentials = match (&current.credentials, certificates) {
            (Some(old), Some(new)) => Some(old.next(new, same, now)?),
            // Whether TLS is spoken stays as it is.
            (old, _) => old.clone(),
        };
        let kit = Kit::open(Arc::new(settings), credentials, Some(current), self.command.dir()).map_err(|refusal| refusal.why)?;
        for notice in &notices {
            kit.log.write(notice.level, format_args!("{notice}"));
        }
        if !fixed.is_empty() {
            let names: Vec<_> = fixed.iter().map(|name| format!("--{name}")).collect();
            kit.log.warning(format_args!("changed, but only a restart can apply it: {}", names.join(", ")));
        }
        if let Some(credentials) = &kit.credentials {
            credentials.certificates.tell(&kit.log);
        }
        let policy = kit.policy();
        self.generations.put(generation, kit);
        Ok(policy)
    }

    /// Opens the logs again, here and in the workers, each those of its generation.
    pub(super) fn reopen_logs(&self) {
        let mut all: Vec<Arc<Logs>> = self.generations.logs().cloned().collect();
        let of_workers = self.table.living_ones().filter_map(|(_, child)| child.logs.clone());
        all.extend(of_workers.chain(self.molds.all().filter_map(|mold| mold.logs.clone())));
        for index in 0..all.len() {
            let logs = &all[index];
            if all[..index].iter().any(|other| Arc::ptr_eq(other, logs)) {
                continue;
            }
            let reopened = logs.reopen();
            for why in &reopened.failures {
                self.log().error(format_args!("{why}"));
            }
            for mold in self.molds.all() {
                let same = mold.logs.as_ref().is_some_and(|other| Arc::ptr_eq(other, logs));
                if let (true, Some(channel)) = (same, mold.channel())
                    && let Err(error) = reopened.send(channel)
                {
                    self.log().error(format_args!("the mold (pid {}) writes its old log files on: {error}", mold.pid));
                }
            }
            for (slot, child) in self.table.living_ones() {
                let same = child.logs.as_ref().is_some_and(|other| Arc::ptr_eq(other, logs));
                if let (true, Some(channel)) = (same, &child.channel)
                    && let Err(error) = reopened.send(channel)
                {
                    self.log().error(format_args!("worker {} writes its old log files on: {error}", slot.0));
                }
            }
        }
        self.hooks.tell_log(self.generations.current(), self.log());
        self.log().info(format_args!("logs opened anew"));
    }
}
