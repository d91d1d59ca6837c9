//! USR2 on the side of the program that is replaced: the trial of the new one, the state for it, and exec. The other side, and
//! the way of an upgrade as a whole, are in [`crate::master::upgrade`].

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::process;

use nix::unistd::fchdir;

use crate::config::Settings;
use crate::handoff;
use crate::log::error::Who;
use crate::master::event::{Event, SlotIndex};
use crate::master::molds::Mold;
use crate::master::state::{self, SavedState};
use crate::master::status::Door;
use crate::master::table::Child;
use crate::master::trial::Trial;
use crate::master::upgrade::VARIABLE;
use crate::net::bind;
use crate::net::listener::Listener;
use crate::sys::exec::exec;
use crate::sys::process::Pid;
use crate::sys::signals::Blocked;
use crate::sys::{memory, time};

use super::Server;

impl Server {
    /// Starts the trial of the program that the server was started with, as it is now on the disk.
    pub(super) fn try_upgrade(&mut self) -> Option<Event> {
        self.log().info(format_args!("upgrade: trying {}", self.command.program().display()));
        match Trial::start(&self.command, &self.state(), &self.descriptors()) {
            Ok(trial) => {
                self.trial = Some(trial);
                None
            }
            Err(why) => Some(Event::Tried(Err(why))),
        }
    }

    /// The end of the trial, if it has ended.
    pub(super) fn trial_outcome(&mut self) -> Option<Event> {
        let outcome = self.trial.as_mut()?.outcome()?;
        self.trial = None;
        let program = self.command.program().display();
        Some(Event::Tried(outcome.map_err(|why| format!("{program}: {why}"))))
    }

    /// Becomes the new program, once the hook process has called what it calls before that.
    pub(super) fn begin_to_become(&mut self) -> Option<Event> {
        self.hooks.leave(&self.generations.current().log);
        self.becoming = true;
        self.become_new()
    }

    /// Becomes the new program, if it is to and nothing is to be waited for. It returns an event only when that failed.
    pub(super) fn become_new(&mut self) -> Option<Event> {
        if !self.becoming || !self.hooks.is_gone() {
            return None;
        }
        self.becoming = false;
        if !self.supervisor.may_upgrade() {
            // A reload has begun meanwhile, or the end of the server.
            self.hooks.renew(self.generations.current());
            return Some(Event::Tried(Ok(())));
        }
        match self.exec() {
            Ok(never) => match never {},
            Err(error) => {
                self.hooks.renew(self.generations.current());
                Some(Event::Tried(Err(format!("cannot execute {}: {error}", self.command.program().display()))))
            }
        }
    }

    fn exec(&mut self) -> io::Result<std::convert::Infallible> {
        // Since the trial a worker may have ended one.
        for listener in &self.listeners {
            bind::check(listener).map_err(|why| io::Error::other(format!("{}: {why}", listener.place())))?;
        }
        self.log().finish();
        let blocked = Blocked::all()?;
        // What was caught and not yet looked at would be forgotten with this program's memory.
        self.signals.give_back()?;
        let state = memory::file_of(c"tapster-state", &self.state().render(process::id())?)?;
        let number = OsString::from(state.as_raw_fd().to_string());
        let here = File::open(".")?;
        std::env::set_current_dir(self.command.dir())?;
        let mut keep = self.descriptors();
        keep.push(state.as_fd());
        let error = exec(self.command.program(), self.command.argv(), (VARIABLE, &number), &keep, blocked);
        fchdir(here)?;
        Err(error)
    }

    /// Everything that must stay open; the same that [`Server::state`] names.
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let mut fds = self.scoreboard.memory().to_vec();
        fds.extend(self.listeners.iter().map(AsFd::as_fd));
        fds.extend(self.doors.all().iter().map(|door| door.listener.as_fd()));
        fds.extend(self.queue.ends());
        for (_, child) in self.table.living_ones() {
            fds.extend(child.channel.as_ref().map(AsFd::as_fd));
            fds.push(child.stacks.as_fd());
        }
        for (channel, stacks) in self.molds.all().filter_map(Mold::descriptors) {
            fds.extend([channel, stacks]);
        }
        fds.extend(self.service.outputs().map(|(.., reader)| reader));
        fds.extend(self.service.pidfile().map(AsFd::as_fd));
        fds
    }

    fn state(&self) -> SavedState {
        let ((current, latest), (wanted, stopped)) = (self.supervisor.generations(), self.supervisor.wanted());
        SavedState {
            command: self.command.clone(),
            current,
            latest,
            wanted,
            stopped,
            python: self.python.clone(),
            births: self.births,
            ledger: self.ledger.for_next(self.lost_records(), self.own_records()),
            lost_lines: self.log().sink().unwritten(),
            binds: binds(&self.generations.current().settings),
            listeners: self.listeners.iter().map(listening).collect(),
            queue: state::QueueState { version: handoff::VERSION, ends: self.queue.ends().map(|end| end.as_raw_fd()) },
            children: self.table.living_ones().filter_map(|(slot, child)| self.saved(slot, child)).collect(),
            molds: self.molds.all().filter_map(mold).collect(),
            scoreboard: self.scoreboard.memory().map(|memory| memory.as_raw_fd()),
            slots: self.scoreboard.slots(),
            threads: self.generations.current().settings.threads,
            outputs: self.service.outputs().map(output).collect(),
            pid_file: self.service.pidfile().map(|file| file.path().into()),
            pid_lock: self.service.pidfile().map(|file| file.as_fd().as_raw_fd()),
            doors: self.doors.all().iter().map(door).collect(),
            tls: self.tls_state(),
            started: self.started.seconds,
            changes: self.changes.counts(),
        }
    }

    fn tls_state(&self) -> Option<state::TlsState> {
        let kit = self.generations.current();
        Some(state::TlsState { settings: kit.settings.tls.clone()?, credentials: kit.credentials.clone()? })
    }

    fn saved(&self, slot: SlotIndex, child: &Child) -> Option<state::ChildState> {
        let now = self.pace.now();
        let age = u64::try_from(now.saturating_duration_since(child.born).as_nanos()).unwrap_or(u64::MAX);
        Some(state::ChildState {
            life: self.supervisor.life(slot, now)?,
            pid: child.pid.as_raw(),
            channel: child.channel.as_ref().map(|channel| channel.as_fd().as_raw_fd()),
            stacks: child.stacks.as_raw_fd(),
            age: child.age,
            mold: child.mold.map(Pid::as_raw),
            born: time::monotonic().saturating_sub(age),
        })
    }
}

fn binds(settings: &Settings) -> Vec<String> {
    settings.binds.iter().map(ToString::to_string).collect()
}

fn listening(listener: &Listener) -> state::Listening {
    state::Listening { fd: listener.as_raw_fd(), own: listener.is_own(), file: state::File::of(listener) }
}

fn door(door: &Door) -> state::DoorState {
    state::DoorState { socket: listening(&door.listener), control: door.is_control() }
}

fn output((who, pid, reader): (Who, Pid, BorrowedFd<'_>)) -> state::OutputState {
    let slot = if let Who::Worker(slot) = who { slot } else { 0 };
    state::OutputState { slot, mold: who == Who::Mold, pid: pid.as_raw(), fd: reader.as_raw_fd() }
}

fn mold(mold: &Mold) -> Option<state::MoldState> {
    let (channel, stacks) = mold.descriptors()?;
    let (channel, stacks) = (channel.as_raw_fd(), stacks.as_raw_fd());
    Some(state::MoldState { generation: mold.generation, pid: mold.pid.as_raw(), channel, stacks })
}
