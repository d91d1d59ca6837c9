//! The watcher of the sources in the master's loop (`--reload`): made, heard, and told what the workers name.

use std::io;
use std::ops::ControlFlow::{self, Continue};
use std::os::fd::AsFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;

use crate::config::WatchEngine;
use crate::master::event::{Event, ReloadFailure, SlotIndex};
use crate::sys::fd::close_all_but;
use crate::sys::process::{self, Fork, exit_now};
use crate::watch;

use super::{Ending, Server};

impl Server {
    /// Makes the watcher if it is time, and loads what it says has changed.
    pub(super) fn watch_sources(&mut self) -> ControlFlow<Ending> {
        if let Some(engine) = self.watch.wanted(Instant::now())
            && let Err(error) = self.make_watcher(engine)
        {
            self.watch.not_made(&error, &self.generations.current().log);
        }
        let booting = self.supervisor.is_booting();
        let there = self.watch.socket().is_some();
        let changed = self.watch.changes(booting, &self.generations.current().log);
        // The signal of its end may have come before it was given up.
        self.orphans |= there && self.watch.socket().is_none();
        if let Some(what) = changed {
            self.log().info(format_args!("reload: {what} changed"));
            self.feed(Event::SourcesChanged)?;
        }
        Continue(())
    }

    fn make_watcher(&mut self, engine: WatchEngine) -> io::Result<()> {
        let (master, watcher) = watch::pair()?;
        // Its signals stay blocked: a terminal sends some to the whole group, and it ends with the socket.
        match process::fork(Signal::SIGKILL, &[])? {
            Fork::Parent(pid) => self.watch.made(pid, master),
            Fork::Child(_blocked) => {
                let watched = self.service.enter_watcher(Signal::SIGKILL).and_then(|()| {
                    close_all_but(&watcher)?;
                    // The directory of the start may be about to be unmounted.
                    std::env::set_current_dir("/")?;
                    watch::run(watcher, engine)
                });
                exit_now(i32::from(watched.is_err()))
            }
        }
        Ok(())
    }

    /// Tells the workers that serve why the code that was saved last does not.
    pub(super) fn tell_breakage(&mut self, why: &ReloadFailure) {
        let why = match why {
            ReloadFailure::Configuration(why) => Some(why.as_str()),
            ReloadFailure::Worker | ReloadFailure::NoPlace => None,
        };
        let Some(breakage) = self.watch.fail(why) else { return };
        let told = breakage.to_file().map(|file| {
            for channel in self.table.serving().filter_map(|(_, child)| child.channel.as_ref()) {
                // It fails for a worker that is gone, or does not read.
                let _ = channel.send_breakage(file.as_fd());
            }
        });
        if let Err(error) = told {
            self.log().error(format_args!("clients are not told that the reload has failed: {error}"));
        }
    }

    /// A worker has named directories of its application.
    pub(super) fn take_sources(&mut self, slot: SlotIndex, list: String) {
        let (Some(child), Some(generation)) = (self.table.child(slot), self.supervisor.generation(slot)) else { return };
        let age = self.pace.now().saturating_duration_since(child.born);
        let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).saturating_sub(age);
        self.watch.take_sources(generation, u64::try_from(began.as_nanos()).unwrap_or(u64::MAX), list);
    }
}
