//! What operators ask for, and what they are answered. Figures are told at once; of a command, that it has begun, and of a reload,
//! where somebody waits for it, how it has ended.

use std::ops::ControlFlow::{self, Continue};
use std::time::{Duration, Instant};

use crate::config::Level;
use crate::master::event::{Event, Generation, Note, OperatorRequest};
use crate::master::molds::Mold;
use crate::master::status::reply::DoorReply;
use crate::master::status::request::{Ask, DoorKind, FigureForm};
use crate::master::status::{Doors, Knock, VisitorId};
use crate::status::{Detail, ServerState};
use crate::sys::time;

use super::repeats::Standing;
use super::{Ending, Server};

/// Somebody waits for the end of a reload.
#[derive(Debug)]
struct Petition {
    visitor: VisitorId,
    /// The generation that it asked for.
    generation: Generation,
    /// How long it waits.
    until: Instant,
    time: Duration,
}

/// Those who wait for the end of a reload: as many as there are connections of the control socket, at most.
#[derive(Debug, Default)]
pub(in crate::master) struct Petitions(Vec<Petition>);

impl Petitions {
    fn put(&mut self, petition: Petition) {
        self.0.push(petition);
    }

    /// Takes those out of which this holds.
    fn take(&mut self, wanted: impl Fn(&Petition) -> bool) -> Vec<Petition> {
        self.0.extract_if(.., |petition| wanted(petition)).collect()
    }

    /// Drops those whose client has left, or had to make way.
    fn forget_gone(&mut self, doors: &Doors) {
        self.0.retain(|petition| doors.has(petition.visitor));
    }

    /// When the first one has waited long enough.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.0.iter().map(|petition| petition.until).min()
    }
}

impl Server {
    /// Hears and answers those who have come.
    pub(super) fn receive_operators(&mut self, knocks: &[Knock]) -> ControlFlow<Ending> {
        let now = Instant::now();
        for (visitor, door, ask) in self.doors.attend(knocks, now) {
            self.serve_operator(visitor, door, ask)?;
        }
        self.petitions.forget_gone(&self.doors);
        for petition in self.petitions.take(|petition| petition.until <= now) {
            let why = format!("{} does not serve after {} s; the reload goes on", petition.generation, petition.time.as_secs());
            self.doors.answer(petition.visitor, &DoorReply::failed(504, why, Some(petition.generation.0)), now);
        }
        self.tell_stacks(now);
        Continue(())
    }

    fn serve_operator(&mut self, visitor: VisitorId, door: DoorKind, ask: Ask) -> ControlFlow<Ending> {
        let reply = match ask {
            Ask::Figures(form) => {
                self.tell_figures(visitor, door, form);
                return Continue(());
            }
            Ask::Live => DoorReply::text(200, "live"),
            Ask::Ready => self.readiness(),
            Ask::Reload { wait } => return self.reload_for(visitor, wait),
            Ask::Upgrade => return self.order(visitor, OperatorRequest::Upgrade, "the upgrade has begun"),
            Ask::Stop { quick: false } => return self.order(visitor, OperatorRequest::Stop, "the server stops"),
            Ask::Stop { quick: true } => return self.order(visitor, OperatorRequest::QuickStop, "the server stops quickly"),
            Ask::Reopen => return self.order(visitor, OperatorRequest::ReopenLogs, "the logs are opened anew"),
            Ask::Scale(workers) => return self.scale_for(visitor, workers),
            Ask::LogLevel(level) => self.log_from(level),
            Ask::Stacks { worker } => match self.ask_stacks(visitor, worker) {
                Some(reply) => reply,
                None => return Continue(()),
            },
        };
        self.doors.answer(visitor, &reply, Instant::now());
        Continue(())
    }

    /// Answers whoever asks for figures; at a public door maybe with those of a moment ago.
    fn tell_figures(&mut self, visitor: VisitorId, door: DoorKind, form: FigureForm) {
        if door == DoorKind::Control {
            let reply = self.figures_as(form, Detail::Full);
            return self.doors.answer(visitor, &reply, Instant::now());
        }
        let (now, standing) = (Instant::now(), self.standing());
        if let Some(reply) = self.repeats.find(form, standing, now) {
            return self.doors.answer(visitor, reply, now);
        }
        let reply = self.figures_as(form, Detail::Public);
        self.doors.answer(visitor, self.repeats.keep(form, standing, reply, now), Instant::now());
    }

    fn figures_as(&mut self, form: FigureForm, detail: Detail) -> DoorReply {
        let document = self.document(detail);
        match form {
            FigureForm::Page => DoorReply::page(&document),
            FigureForm::Document => DoorReply::json(200, &document),
            FigureForm::Metrics(format) => DoorReply::metrics(&document, format),
        }
    }

    /// What no repeated answer may be behind of.
    fn standing(&self) -> Standing {
        Standing {
            state: self.supervisor.state(),
            generation: self.supervisor.generations().0.0,
            workers: (self.supervisor.ready_workers(), self.births, self.ledger.exits.iter().sum()),
            reloads: self.changes.counts(),
        }
    }

    /// Does what a signal would ask for. The answer comes first, since the server may be over, or another program, behind it.
    fn order(&mut self, visitor: VisitorId, request: OperatorRequest, words: &str) -> ControlFlow<Ending> {
        let reply = match (request, self.supervisor.state()) {
            (OperatorRequest::Upgrade, ServerState::Stopping) => DoorReply::failed(409, "the server stops", None),
            _ => DoorReply::done(202, words, Some(self.supervisor.generations().0.0)),
        };
        self.doors.answer(visitor, &reply, Instant::now());
        self.feed(Event::Asked(request))
    }

    fn reload_for(&mut self, visitor: VisitorId, wait: Option<Duration>) -> ControlFlow<Ending> {
        let now = Instant::now();
        if self.supervisor.state() == ServerState::Stopping {
            self.doors.answer(visitor, &DoorReply::failed(409, "the server stops", None), now);
            return Continue(());
        }
        // Whether it begins now or after the one that is under way: several that wait are one.
        let generation = Generation(self.supervisor.generations().1.0 + 1);
        match wait {
            Some(time) if self.doors.hold(visitor, now + time + Duration::from_secs(1)) => {
                self.petitions.put(Petition { visitor, generation, until: now + time, time });
            }
            Some(_) => {}
            None => {
                let words = format!("the reload to {generation} has begun, or follows the one under way");
                self.doors.answer(visitor, &DoorReply::done(202, words, Some(generation.0)), now);
            }
        }
        self.feed(Event::Asked(OperatorRequest::Reload))
    }

    /// Records this severity and above from now on, here and in the workers, until the next generation.
    fn log_from(&self, level: Level) -> DoorReply {
        let words = format!("the error log records from {} on, until the next reload", level.name().to_ascii_lowercase());
        self.log().pass(Level::Info, format_args!("an operator has asked: {words}"));
        self.log().set_level(level);
        for (slot, child) in self.table.living_ones() {
            if let Some(channel) = &child.channel
                && let Err(error) = channel.send_log_level(level as u8)
            {
                self.log().warning(format_args!("worker {} keeps its log level: {error}", slot.0));
            }
        }
        // What a mold has to say is little, and it says so at its start.
        self.molds.all().filter_map(Mold::channel).for_each(|channel| _ = channel.send_log_level(level as u8));
        DoorReply::done(200, words, None)
    }

    fn scale_for(&mut self, visitor: VisitorId, workers: usize) -> ControlFlow<Ending> {
        let most = self.supervisor.most_workers();
        let reply = if self.supervisor.state() == ServerState::Stopping {
            DoorReply::failed(409, "the server stops", None)
        } else if workers > most {
            let why = format!("there is room for {most} workers; a restart with --workers {workers} makes more");
            DoorReply::failed(400, why, None)
        } else {
            self.feed(Event::Scale(workers))?;
            DoorReply::done(202, format!("workers wanted until the next reload: {workers}"), None)
        };
        self.doors.answer(visitor, &reply, Instant::now());
        Continue(())
    }

    /// Takes in what the log says as `text`: answers those who have waited for it.
    pub(super) fn heed(&mut self, note: &Note, text: &str) {
        let now = Instant::now();
        if let Note::Stopping(_) = note {
            for petition in self.petitions.take(|_| true) {
                self.doors.answer(petition.visitor, &DoorReply::failed(409, "the server stops", None), now);
            }
        }
        let Some(change) = self.changes.note(note, text, time::wall().as_secs_f64()) else { return };
        let reply = match &change.error {
            None => {
                DoorReply::done(200, format!("reload done: {} serves", Generation(change.generation)), Some(change.generation))
            }
            Some(why) => DoorReply::failed(409, why.clone(), Some(change.generation)),
        };
        let done = Generation(change.generation);
        for petition in self.petitions.take(|petition| petition.generation <= done) {
            self.doors.answer(petition.visitor, &reply, now);
        }
    }

    /// Whether requests can be served: the answer to a probe.
    fn readiness(&self) -> DoorReply {
        let (status, word) = match self.supervisor.state() {
            ServerState::Serving => (200, "ready"),
            ServerState::Degraded => (200, "degraded"),
            ServerState::Reloading => (200, "reloading"),
            ServerState::Upgrading => (200, "upgrading"),
            ServerState::Starting => (503, "starting"),
            ServerState::Paused => (503, "paused"),
            ServerState::Stopping => (503, "stopping"),
        };
        // While a new generation is on its way, the last worker of the old one may have died.
        match (status, self.supervisor.ready_workers()) {
            (200, 0) => DoorReply::text(503, "no worker is ready"),
            _ => DoorReply::text(status, word),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::config::{Bind, Endpoint, Settings};
    use crate::master::status::Door;
    use crate::net::bind::bind_all;

    #[test]
    fn a_petition_ends_with_its_client_and_not_with_what_that_says() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("door");
        let binds = vec![Bind::plain(Endpoint::Unix(path.clone()))];
        let listener = bind_all(&Settings { binds, ..Settings::default() }).unwrap().remove(0);
        let mut doors = Doors::new(vec![Door::new(listener, true)]);
        let mut petitions = Petitions::default();
        let now = Instant::now();
        let time = Duration::from_secs(60);
        let turn = |doors: &mut Doors, petitions: &mut Petitions| {
            let knocks: Vec<Knock> = doors.descriptors().map(|(knock, ..)| knock).collect();
            for (visitor, ..) in doors.attend(&knocks, now) {
                assert!(doors.hold(visitor, now + time));
                petitions.put(Petition { visitor, generation: Generation(2), until: now + time, time });
            }
            petitions.forget_gone(doors);
        };
        let ask = || {
            let mut client = UnixStream::connect(&path).unwrap();
            client.write_all(b"POST /reload?wait=60 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            client
        };
        for _ in 0..100 {
            let client = ask();
            turn(&mut doors, &mut petitions);
            assert_eq!(petitions.0.len(), 1);
            drop(client);
            turn(&mut doors, &mut petitions);
            assert_eq!(petitions.0.len(), 0, "nobody waits for it");
        }
        let client = ask();
        turn(&mut doors, &mut petitions);
        client.shutdown(Shutdown::Write).unwrap();
        turn(&mut doors, &mut petitions);
        assert_eq!((petitions.0.len(), petitions.next_deadline()), (1, Some(now + time)), "who has said all still listens");
        let crowd: Vec<UnixStream> = (0..100).map(|_| ask()).collect();
        for _ in 0..crowd.len() {
            turn(&mut doors, &mut petitions);
        }
        assert!(petitions.0.len() <= crate::master::status::CONTROL_MAX, "{}", petitions.0.len());
    }
}
