//! What is read and opened again while the server runs: the configuration, for a new generation, and the log files.

use std::sync::Arc;

use crate::config::keep_fixed;
use crate::master::directory;
use crate::master::event::{Generation, Policy};
use crate::master::generations::Kit;
use crate::master::logs::Logs;

use super::Server;

impl Server {
    /// Reads the configuration and opens what it names, for a new generation, in what the directory of the start is now.
    pub(super) fn read(&mut self, generation: Generation) -> Result<Policy, String> {
        directory::follow(self.command.dir())?;
        let policy = self.read_here(generation);
        if policy.is_err() {
            self.generations.current().directories.return_to();
        }
        policy
    }

    fn read_here(&mut self, generation: Generation) -> Result<Policy, String> {
        let (mut settings, notices) = (self.reread)()?;
        let current = self.generations.current();
        if !settings.binds_given {
            // Sockets of a service manager, which nobody names again.
            settings.binds.clone_from(&current.settings.binds);
        }
        let fixed = keep_fixed(&mut settings, &current.settings);
        let kit = Kit::open(Arc::new(settings), Some(current), self.command.dir()).map_err(|refusal| refusal.why)?;
        for notice in &notices {
            kit.log.write(notice.level, format_args!("{notice}"));
        }
        if !fixed.is_empty() {
            let names: Vec<_> = fixed.iter().map(|name| format!("--{name}")).collect();
            kit.log.warning(format_args!("changed, but only a restart can apply it: {}", names.join(", ")));
        }
        let policy = kit.policy();
        self.generations.put(generation, kit);
        Ok(policy)
    }

    /// Opens the logs again, here and in the workers, each those of its generation.
    pub(super) fn reopen_logs(&self) {
        let mut all: Vec<Arc<Logs>> = self.generations.logs().cloned().collect();
        let of_workers = self.table.living_ones().filter_map(|(_, child)| child.logs.clone());
        all.extend(of_workers);
        for index in 0..all.len() {
            let logs = &all[index];
            if all[..index].iter().any(|other| Arc::ptr_eq(other, logs)) {
                continue;
            }
            let reopened = logs.reopen();
            for why in &reopened.failures {
                self.log().error(format_args!("{why}"));
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
