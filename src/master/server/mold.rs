//! Workers that are forked from a mold (`--preload`), and the molds in the master's loop.

use std::io;
use std::ops::ControlFlow::{self, Break, Continue};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use crate::certificates;
use crate::channel::{self, MASTER_OF_MOLD_DIED, Report};
use crate::log::error::Who;
use crate::log::sink::Sink;
use crate::master::event::{Event, Exit, Generation, SlotIndex, code};
use crate::master::molds::{self, Mold, MoldEvent};
use crate::master::signals::kept_in_workers;
use crate::master::table;
use crate::mold::{self, BirthAnswer, BirthOrder, LogPlace};
use crate::status::ServerState;
use crate::sys::process::{self, Fork, Pid};

use super::birth::{Birth, Offspring};
use super::{Ending, Server};

/// How long a mold has to fork a worker. It does nothing else, and needs some milliseconds; the master waits for it.
const FORK_MAX: Duration = Duration::from_secs(3);

/// What came of an attempt to fork a worker.
enum Attempt {
    Born,
    /// The mold is of no use.
    NoMold,
    Failed(io::Error),
}

impl Server {
    /// Forks a worker from the mold of its generation, or has it wait until there is one.
    pub(super) fn fork_from_mold(&mut self, slot: SlotIndex, generation: Generation) -> io::Result<()> {
        let generation = if self.generations.has(generation) { generation } else { self.current_generation() };
        let Some(pid) = self.molds.ready(generation).map(|mold| mold.pid) else {
            self.end_calls(slot);
            self.molds.wait_for(slot, generation);
            return Ok(());
        };
        match self.order_birth(pid, slot, generation) {
            Attempt::Born => Ok(()),
            Attempt::NoMold => {
                self.molds.wait_for(slot, generation);
                Ok(())
            }
            Attempt::Failed(error) => Err(error),
        }
    }

    fn order_birth(&mut self, mold: Pid, slot: SlotIndex, generation: Generation) -> Attempt {
        if self.queue.is_shut_down() {
            // The mold has the old one.
            self.molds.renew();
            return match self.mend_queue() {
                Ok(()) => Attempt::NoMold,
                Err(error) => Attempt::Failed(error),
            };
        }
        let made = self.make_offspring(slot, generation);
        let (offspring, order, descriptors) = match made {
            Ok(made) => made,
            Err(error) => return Attempt::Failed(error),
        };
        let fds: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        let answer = match self.molds.next_order(mold) {
            None => return Attempt::NoMold,
            Some((end, number)) => end.order(&BirthOrder { number, ..order }, &fds).and_then(|()| end.answer(number, FORK_MAX)),
        };
        let known = |pid: Pid| self.is_known(pid) || !process::is_child(pid);
        match answer {
            Ok(BirthAnswer::Born(pid)) if !known(pid) => {
                self.take_offspring(slot, generation, pid, Some(mold), offspring);
                Attempt::Born
            }
            Ok(BirthAnswer::Failed(errno)) => Attempt::Failed(io::Error::from_raw_os_error(errno)),
            Ok(BirthAnswer::Born(_)) => self.give_up(mold, "names a process that is no new child of the master"),
            Err(error) => match molds::reason(&error) {
                Some(why) => self.give_up(mold, why),
                // It has ended, which is about to be reported.
                None => {
                    self.molds.kill(mold);
                    Attempt::NoMold
                }
            },
        }
    }

    fn give_up(&mut self, mold: Pid, why: &str) -> Attempt {
        self.log().error(format_args!("the mold of the workers (pid {mold}) {why}: it is killed, and another one is made"));
        self.molds.kill(mold);
        Attempt::NoMold
    }

    /// Makes what a worker has of its own: the master's part, the order, and the descriptors that go with it.
    fn make_offspring(
        &mut self,
        slot: SlotIndex,
        generation: Generation,
    ) -> io::Result<(Offspring, BirthOrder, Vec<std::os::fd::OwnedFd>)> {
        self.end_calls(slot);
        self.births += 1;
        let (master, worker) = channel::pair()?;
        let (reader, output) = self.service.output()?.unzip();
        if let Some(output) = &output {
            self.service.give_output(output)?;
        }
        let stacks = table::stacks_file()?;
        let kit = self.generations.kit(generation);
        let (log, access) = kit.logs_of_worker(slot.0);
        let own = |fd: BorrowedFd<'_>| fd.try_clone_to_owned();
        let mut descriptors = vec![own(worker.as_fd())?, stacks.try_clone()?.into(), own(log.sink().as_fd())?];
        if let Some((sink, _)) = &access {
            descriptors.push(own(sink.as_fd())?);
        }
        let place = |sink: &Sink| LogPlace { system_log: sink.system_log().map(Into::into) };
        let order = BirthOrder {
            number: 0,
            slot: slot.0,
            workers: kit.workers(),
            age: self.births,
            title: self.service.worker_title(slot.0),
            log_level: log.level() as u8,
            error_log: place(&log.sink()),
            access_log: access.as_ref().map(|(sink, _)| place(sink)),
            captured: output.is_some(),
            encrypts: kit.credentials.is_some(),
        };
        descriptors.extend(output);
        if let Some(credentials) = &kit.credentials {
            descriptors.push(certificates::seal(&credentials.material())?.into());
        }
        Ok((Offspring { channel: master, stacks, output: reader }, order, descriptors))
    }

    /// Whether this is a process that somebody waits for.
    pub(super) fn is_known(&self, pid: Pid) -> bool {
        self.table.is_own(pid)
            || self.hooks.owns(pid)
            || self.watch.owns(pid)
            || self.molds.owns(pid)
            || self.trial.as_ref().is_some_and(|trial| trial.is(pid))
            || self.reading.as_ref().is_some_and(|(_, reading)| reading.is(pid))
            || self.renewal.looking.as_ref().is_some_and(|errand| errand.is(pid))
    }

    /// When [`Self::tend_molds`] has something to do.
    pub(super) fn next_of_molds(&self) -> Option<Instant> {
        let make = self.wanted_mold().map(|(_, at)| at.unwrap_or_else(Instant::now));
        make.into_iter().chain(self.molds.next_deadline()).min()
    }

    fn wanted_mold(&self) -> Option<(Generation, Option<Instant>)> {
        if self.supervisor.state() == ServerState::Stopping {
            return None;
        }
        let current = self.current_generation();
        let current = self.generations.kit(current).settings.uses_mold().then_some(current);
        self.molds.wanted(current, |generation| self.generations.has(generation))
    }

    /// Takes in what has become of molds; makes those that are wanted, and dismisses the others.
    pub(super) fn tend_molds(&mut self) -> ControlFlow<Ending> {
        for event in self.molds.tick(&self.generations.current().log) {
            match event {
                MoldEvent::Ready(generation, python) => {
                    self.python = python;
                    self.log().debug(format_args!("the mold of {generation} is ready"));
                    self.bear(generation)?;
                }
                MoldEvent::Ended(mold, exit) => {
                    // While it was not waited for, those that ended after it were not either.
                    self.orphans = true;
                    self.mold_ended(&mold, exit)?;
                }
            }
        }
        let (generations, table) = (&self.generations, &self.table);
        self.molds.dismiss(
            |generation| generations.has(generation),
            |mold| table.living_ones().any(|(_, child)| child.mold == Some(mold)),
        );
        if let Some((generation, at)) = self.wanted_mold()
            && at.is_none_or(|at| at <= Instant::now())
        {
            match self.make_mold(generation) {
                Ok(None) => {}
                Ok(Some(birth)) => return Break(Ending::Born(Box::new(birth))),
                Err(error) => {
                    self.molds.delay(generation, Duration::ZERO);
                    let why = format!("the mold of {generation} cannot be forked: {error}");
                    while let Some(slot) = self.molds.take_unborn(generation) {
                        self.feed(Event::ForkFailed { slot, why: why.clone() })?;
                    }
                }
            }
        }
        Continue(())
    }

    /// Forks the workers that have waited.
    fn bear(&mut self, generation: Generation) -> ControlFlow<Ending> {
        while self.molds.ready(generation).is_some()
            && let Some(slot) = self.molds.take_unborn(generation)
        {
            if let Err(error) = self.fork_from_mold(slot, generation) {
                self.feed(Event::ForkFailed { slot, why: error.to_string() })?;
            }
        }
        Continue(())
    }

    fn mold_ended(&mut self, mold: &Mold, exit: Exit) -> ControlFlow<Ending> {
        let (generation, pid) = (mold.generation, mold.pid);
        if mold.was_dismissed() {
            self.log().debug(format_args!("the mold of {generation} (pid {pid}) has ended"));
            return Continue(());
        }
        let about = mold.about();
        let (never_ready, is_current) = (mold.was_booting(), self.current_generation() == generation);
        // They were to be its workers. A server that starts does not try again, nor does a generation that is tried.
        let gives_up = never_ready || !is_current || self.supervisor.state() == ServerState::Starting;
        let unborn: Vec<SlotIndex> =
            std::iter::from_fn(|| if gives_up { self.molds.take_unborn(generation) } else { None }).collect();
        let serve_on = self.supervisor.ready_workers() > 0;
        // Of one that was never ready while nobody serves the workers tell, which have waited for it.
        if is_current && (serve_on || !never_ready) {
            let pause = self.molds.delay(generation, if never_ready { Duration::ZERO } else { about.age });
            let again = if pause.is_zero() { "at once".to_owned() } else { format!("in {} s", pause.as_secs_f64()) };
            let what = match mold.failure() {
                // The workers say it.
                Some(_) if !unborn.is_empty() => "cannot boot".to_owned(),
                Some(why) => format!("cannot boot: {}", why.text.trim_end()),
                None => exit.to_string(),
            };
            let others = if serve_on { "; the workers that there are serve on" } else { "" };
            self.log().error(format_args!("the mold of the workers (pid {pid}) {what}\nanother one is made {again}{others}"));
        } else if is_current {
            self.molds.delay(generation, Duration::ZERO);
        }
        for slot in unborn {
            self.molds.ghost = Some((slot, about.clone()));
            let exit = match mold.failure() {
                Some(why) => {
                    self.feed(Event::Reported { slot, report: Report::BootFailed(why.clone()) })?;
                    Exit::Code(if why.app { code::APP } else { code::BOOT })
                }
                None => exit,
            };
            self.feed(Event::Ended { slot, exit, reached: false })?;
        }
        self.molds.ghost = None;
        Continue(())
    }

    fn current_generation(&self) -> Generation {
        self.supervisor.generations().0
    }

    /// Forks a mold; `Some` in the new process.
    fn make_mold(&mut self, generation: Generation) -> io::Result<Option<Birth>> {
        self.mend_queue()?;
        // Workers that it forks become children of the master.
        self.molds.adopt_orphans()?;
        let (master, channel) = channel::pair()?;
        let (orders, births) = mold::pair()?;
        let stacks = table::stacks_file()?;
        let copy = stacks.try_clone()?;
        let (reader, output) = self.service.output()?.unzip();
        match process::fork(MASTER_OF_MOLD_DIED, &kept_in_workers())? {
            Fork::Parent(pid) => {
                let kit = self.generations.kit(generation);
                let limit = Some(kit.settings.boot_timeout).filter(|limit| !limit.is_zero());
                let mut mold = Mold::new((generation, pid), master, orders, stacks, limit);
                mold.logs = Some(kit.logs.clone());
                self.molds.put(mold);
                if let Some(reader) = reader {
                    self.service.add_output(Who::Mold, pid, reader);
                }
                self.log().debug(format_args!("mold of {generation} forked (pid {pid})"));
                Ok(None)
            }
            Fork::Child(signals) => Ok(Some(Birth::of_mold(generation, copy, channel, signals, births, output))),
        }
    }

    /// The worker, which waits for its mold, is to end; what follows from that at once.
    pub(super) fn end_unborn(&mut self, slot: SlotIndex, exit: Exit) -> Option<Event> {
        self.molds.forget(slot).then_some(Event::Ended { slot, exit, reached: false })
    }
}
