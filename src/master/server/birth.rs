//! A new worker: forked by the master, and made from the copy of the master that the new process is.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::sys::signal::Signal;
use nix::unistd::getuid;

use crate::birth;
use crate::channel::{self, BootError, MASTER_DIED, MASTER_OF_MOLD_DIED, MasterEnd, Report, WorkerEnd};
use crate::config::Settings;
use crate::hooks::HookEvent;
use crate::log::error::Who;
use crate::master::command::Afresh;
use crate::master::event::{Generation, SlotIndex, code};
use crate::master::generations::WorkerLogs;
use crate::master::service::Service;
use crate::master::signals::kept_in_workers;
use crate::master::table::{self, Child};
use crate::mold::BirthEnd;
use crate::sys::privileges;
use crate::sys::process::{self, Fork, Pid};
use crate::sys::signals::Blocked;
use crate::worker::{Boot, MoldBirth};

use super::Server;

/// The master's part of what a worker has of its own.
pub(super) struct Offspring {
    pub(super) channel: MasterEnd,
    pub(super) stacks: File,
    /// Where its output comes from, if that is captured.
    pub(super) output: Option<OwnedFd>,
}

/// What a worker has of its own, or a mold.
pub(in crate::master) struct Birth {
    slot: SlotIndex,
    generation: Generation,
    stacks: File,
    channel: WorkerEnd,
    signals: Blocked,
    /// Where it prints to, if that is captured.
    output: Option<OwnedFd>,
    /// Those of its generation, as they concern it.
    settings: Option<Arc<Settings>>,
    /// Where its orders come from, if it is a mold; the slot means nothing then.
    births: Option<BirthEnd>,
    /// What it executes, if it is to be a program of its own; of the same release as its settings.
    afresh: Option<Afresh>,
}

impl Birth {
    /// A mold.
    pub(super) fn of_mold(
        generation: Generation,
        stacks: File,
        channel: WorkerEnd,
        signals: Blocked,
        births: BirthEnd,
        output: Option<OwnedFd>,
    ) -> Self {
        let (slot, births) = (SlotIndex(0), Some(births));
        Self { slot, generation, stacks, channel, signals, output, settings: None, births, afresh: None }
    }

    /// The signal that it gets from the kernel when the master dies.
    fn death(&self) -> Signal {
        if self.births.is_some() { MASTER_OF_MOLD_DIED } else { MASTER_DIED }
    }

    /// The title of its process.
    fn title(&self, service: &Service) -> String {
        if self.births.is_some() { service.mold_title() } else { service.worker_title(self.slot.0) }
    }
}

impl Server {
    /// Makes this process, just forked, a worker, or ends it.
    pub(super) fn become_worker(mut self, mut birth: Birth) -> Boot {
        match self.enter_worker(&mut birth) {
            Ok(logs) => {
                let (afresh, title) = (birth.afresh.take(), birth.title(&self.service));
                let boot = self.into_boot(birth, logs);
                if let Some(afresh) = afresh {
                    execute(boot, &title, &afresh);
                }
                // Until now other workers of its user could not look into it (ptrace(2)), where descriptors of the master were
                // open. It fails for no valid argument.
                let _ = privileges::let_be_inspected();
                boot
            }
            Err(error) => {
                // The master waits for it; without a master there is nobody to report to.
                let _ = birth.channel.send(&Report::BootFailed(error));
                process::exit_now(code::BOOT)
            }
        }
    }

    /// Forks a worker; `Some` in the new process.
    pub(super) fn fork(&mut self, slot: SlotIndex, generation: Generation) -> io::Result<Option<Birth>> {
        if self.generations.kit(generation).settings.uses_mold() {
            return self.fork_from_mold(slot, generation).map(|()| None);
        }
        self.mend_queue()?;
        self.end_calls(slot);
        self.births += 1;
        let (master, worker) = channel::pair()?;
        let (reader, output) = self.service.output()?.unzip();
        let stacks = table::stacks_file()?;
        let copy = stacks.try_clone()?;
        match process::fork(MASTER_DIED, &kept_in_workers())? {
            Fork::Parent(pid) => {
                self.take_offspring(slot, generation, pid, None, Offspring { channel: master, stacks, output: reader });
                Ok(None)
            }
            Fork::Child(signals) => {
                let births = None;
                Ok(Some(Birth {
                    slot,
                    generation,
                    stacks: copy,
                    channel: worker,
                    signals,
                    output,
                    settings: None,
                    births,
                    afresh: None,
                }))
            }
        }
    }

    /// The process is the worker of the slot, forked by the master or by a mold.
    pub(super) fn take_offspring(
        &mut self,
        slot: SlotIndex,
        generation: Generation,
        pid: Pid,
        mold: Option<Pid>,
        Offspring { channel, stacks, output }: Offspring,
    ) {
        let kit = self.generations.kit(generation);
        let settings = &kit.settings;
        let mut child = Child::new(pid, self.pace.now(), channel, stacks);
        child.logs = Some(kit.logs.clone());
        child.count_from(&self.scoreboard, slot);
        (child.age, child.mold, child.edition) = (self.births, mold, self.renewal.edition);
        (child.timeout, child.max_memory) = (settings.timeout, settings.max_worker_rss);
        self.table.put(slot, child);
        if let Some(reader) = output {
            self.service.add_output(Who::Worker(slot.0), pid, reader);
        }
        self.log().debug(format_args!("worker {} of {generation} forked (pid {pid})", slot.0));
        let forked = HookEvent::Forked { pid: pid.as_raw(), age: self.births };
        self.hooks.tell(forked, &self.generations.current().log);
    }

    /// Makes this process, just forked, what a worker of its generation is.
    fn enter_worker(&mut self, birth: &mut Birth) -> Result<WorkerLogs, BootError> {
        let kit = self.generations.kit(birth.generation);
        let (directories, logs) = (
            kit.directories.clone(),
            match birth.births {
                Some(_) => kit.logs_of(Who::Mold),
                None => kit.logs_of_worker(birth.slot.0),
            },
        );
        let failed = |text: String| BootError { app: false, text };
        // An operator may have set another level since the generation was loaded.
        birth.settings = Some(Arc::new(Settings { log_level: kit.log.level(), ..directories.pin(&kit.settings) }));
        birth.afresh = self.afresh.as_ref().map(|afresh| afresh.with_paths(|path| directories.pinned(path)));
        let start = directories.enter_start().map_err(failed)?;
        let (title, death) = (birth.title(&self.service), birth.death());
        self.service.enter_worker(&title, birth.output.take(), death)?;
        // Under their values the program of the worker is to start.
        process::set_env(&kit.settings.env).map_err(|error| failed(format!("cannot set the variables of --env: {error}")))?;
        if let Some(closed) = birth.afresh.as_ref().and_then(Afresh::closed) {
            return Err(failed(format!("the worker cannot start Python: {closed}")));
        }
        let chdir = directories.enter_chdir().map_err(failed)?;
        if let Some(name) = start.or(chdir) {
            logs.0.warning(format_args!(
                "the directory of this generation is gone: the application is loaded from what {} is now; a reload makes all \
                 workers the same",
                name.display()
            ));
        }
        Ok(logs)
    }

    /// Turns the copy of the master in a new process into a worker. The master's signals, channels and ready descriptor are
    /// closed; none of that is noticed outside.
    fn into_boot(mut self, birth: Birth, (log, access): WorkerLogs) -> Boot {
        let slot = birth.slot.0;
        let mold = birth.births.map(|births| MoldBirth { births, title: self.service.take_title() });
        if mold.is_none() {
            self.scoreboard.reset(slot, std::process::id());
        }
        // The first of a new generation decides whether that is to serve.
        let is_current = self.generations.is_current(birth.generation);
        let kit = self.generations.into_kit(birth.generation);
        let stands_in = is_current && kit.settings.watch().is_some();
        Boot {
            workers: kit.workers(),
            age: self.births,
            stands_in,
            log,
            settings: birth.settings.unwrap_or(kit.settings),
            access,
            listeners: self.listeners,
            queue: self.queue,
            slot,
            scoreboard: self.scoreboard,
            channel: birth.channel,
            signals: birth.signals,
            stacks: birth.stacks,
            // A mold speaks to nobody; each order has them for its worker.
            tls: kit.credentials.filter(|_| mold.is_none()).map(|credentials| credentials.material()),
            mold,
        }
    }
}

/// Ends the life of the master's program in this process, which is a worker but for its program.
fn execute(boot: Boot, title: &str, Afresh { command, .. }: &Afresh) -> ! {
    let (channel, error) = birth::execute(boot, title, command.program(), command.argv(), &kept_in_workers());
    let (program, user) = (command.program().display(), getuid());
    let hint = match error.kind() {
        io::ErrorKind::PermissionDenied => format!("; user {user} must be able to execute it"),
        io::ErrorKind::NotFound => "; it was there when the server was started".to_owned(),
        _ => String::new(),
    };
    let text = format!("cannot execute {program} for the worker: {error}{hint}");
    // As in `become_worker`.
    let _ = channel.send(&Report::BootFailed(BootError { app: false, text }));
    process::exit_now(code::BOOT)
}
