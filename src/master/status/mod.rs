//! The one place where the master speaks HTTP: to operators, never to clients of the application.
//!
//! There are two kinds of doors. `--status-bind` shows figures to whoever reaches it; the control socket shows more of them and
//! takes commands. The doors only hear and answer: what is asked for goes up to the loop ([`Doors::attend`]), which has the figures
//! and the policy, and its answer comes back ([`Doors::answer`]).
//!
//! Nobody outside can hold the master up or make it grow. No call here waits. A connection has [`EXCHANGE_TIME`] for a request and
//! as long for its answer, and gives one request in a turn. Each kind of door has a bounded number of connections; beyond it the
//! one that has been silent longest gives way, so that probes always get in.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use crate::http::date;
use crate::net::listener::{Address, Listener};
use crate::net::stream::Stream;
use crate::sys::time;

mod open;
pub mod reply;
pub mod request;
mod visitor;

pub use open::adopt;
use reply::DoorReply;
use request::{Ask, DoorKind};
pub use visitor::EXCHANGE_TIME;
pub use visitor::VisitorId;
use visitor::{Visitor, VisitorNext};

/// Most connections of all `--status-bind` together: a handful of scrapers and probes, and people with the page.
pub const PUBLIC_MAX: usize = 32;

/// Most connections of the control socket, which have their own bound so that nobody outside can lock its users out.
pub const CONTROL_MAX: usize = 16;

/// Most connections accepted from one door in a turn: what comes faster waits in the kernel's queue.
const ACCEPTS_PER_TURN: usize = 16;

/// How long nobody is let in after the system has refused a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);

/// A listening socket for operators.
#[derive(Debug)]
pub struct Door {
    /// What is let in.
    pub kind: DoorKind,
    /// Where.
    pub listener: Listener,
}

impl Door {
    /// A door of this kind; `control`: the control socket.
    pub fn new(listener: Listener, control: bool) -> Self {
        let loopback = match listener.address() {
            Address::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Address::Unix(_) => false,
        };
        Self { kind: if control { DoorKind::Control } else { DoorKind::Public { loopback } }, listener }
    }

    /// Whether it is the control socket.
    pub fn is_control(&self) -> bool {
        self.kind == DoorKind::Control
    }
}

/// What has woken the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knock {
    /// Somebody comes to the door of this number.
    Door(usize),
    /// A connection can go on.
    Visitor(VisitorId),
}

/// All doors of a server, and who has come through them.
#[derive(Debug, Default)]
pub struct Doors {
    doors: Vec<Door>,
    visitors: Vec<Visitor>,
    /// The number of connections so far.
    count: u64,
    /// Until when nobody is let in, because the system has refused it.
    pause: Option<Instant>,
    date: date::Cache,
}

impl Doors {
    /// These doors.
    pub fn new(doors: Vec<Door>) -> Self {
        Self { doors, ..Self::default() }
    }

    /// The doors themselves.
    pub fn all(&self) -> &[Door] {
        &self.doors
    }

    /// The descriptors to wait for.
    pub fn descriptors(&self) -> impl Iterator<Item = (Knock, BorrowedFd<'_>, PollFlags)> {
        let open = if self.pause.is_none() { &self.doors[..] } else { &[] };
        let doors = open.iter().enumerate().map(|(number, door)| (Knock::Door(number), door.listener.as_fd(), PollFlags::POLLIN));
        let visitors = self.visitors.iter().map(|visitor| {
            let (socket, flags) = visitor.watch();
            (Knock::Visitor(visitor.id), socket, flags)
        });
        doors.chain(visitors)
    }

    /// When the next connection has used up its time.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.visitors.iter().map(|visitor| visitor.until).chain(self.pause).min()
    }

    /// Goes on with what has woken the master; returns what is asked for, at most one request of each connection. Requests that
    /// cannot be carried out are answered here.
    pub fn attend(&mut self, knocks: &[Knock], now: Instant) -> Vec<(VisitorId, DoorKind, Ask)> {
        let mut asked = Vec::new();
        self.pause = self.pause.filter(|until| *until > now);
        // Those that are here before those that come, for whom the silent ones have to go.
        for knock in knocks {
            if let Knock::Visitor(id) = knock {
                self.drive(*id, now, &mut asked);
            }
        }
        self.visitors.retain(|visitor| visitor.until > now);
        for knock in knocks {
            if let Knock::Door(number) = knock {
                self.accept(*number, now, &mut asked);
            }
        }
        asked
    }

    /// Answers a request; one whose connection is gone is forgotten.
    pub fn answer(&mut self, id: VisitorId, reply: &DoorReply, now: Instant) {
        let Some(visitor) = self.visitors.iter_mut().find(|visitor| visitor.id == id) else { return };
        let next = visitor.answer(reply, self.date.at(time::wall().seconds), now);
        if let VisitorNext::Gone = next {
            self.visitors.retain(|visitor| visitor.id != id);
        }
    }

    /// A request waits for its answer until then; whether its connection is still there.
    pub fn hold(&mut self, id: VisitorId, until: Instant) -> bool {
        let visitor = self.visitors.iter_mut().find(|visitor| visitor.id == id);
        visitor.map(|visitor| visitor.extend(until)).is_some()
    }

    /// Whether this connection is still there.
    pub fn has(&self, id: VisitorId) -> bool {
        self.visitors.iter().any(|visitor| visitor.id == id)
    }

    fn drive(&mut self, id: VisitorId, now: Instant, asked: &mut Vec<(VisitorId, DoorKind, Ask)>) {
        let Some(index) = self.visitors.iter().position(|visitor| visitor.id == id) else { return };
        let visitor = &mut self.visitors[index];
        match visitor.drive(now) {
            VisitorNext::Wait => {}
            VisitorNext::Gone => drop(self.visitors.remove(index)),
            VisitorNext::Ask(request) => match request.ask {
                Ok(ask) => asked.push((id, visitor.door, ask)),
                Err(refusal) => self.answer(id, &DoorReply::refusal(&refusal), now),
            },
        }
    }

    fn accept(&mut self, number: usize, now: Instant, asked: &mut Vec<(VisitorId, DoorKind, Ask)>) {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(door) = self.doors.get(number) else { return };
            match door.listener.accept() {
                Ok((stream, _)) => {
                    let id = self.let_in(stream, door.kind, now);
                    self.drive(id, now, asked);
                }
                // The connection had ended in the queue.
                Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // There are no descriptors, as a rule. The connection stays in the queue and would wake the master at once again.
                Err(_) => {
                    self.pause = Some(now + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    fn let_in(&mut self, stream: Stream, kind: DoorKind, now: Instant) -> VisitorId {
        let is_control = |kind: DoorKind| kind == DoorKind::Control;
        let most = if is_control(kind) { CONTROL_MAX } else { PUBLIC_MAX };
        let same = |visitor: &&Visitor| is_control(visitor.door) == is_control(kind);
        if self.visitors.iter().filter(same).count() >= most
            && let Some(oldest) = self.visitors.iter().filter(same).min_by_key(|visitor| (!visitor.is_silent(), visitor.since))
        {
            let oldest = oldest.id;
            self.visitors.retain(|visitor| visitor.id != oldest);
        }
        self.count += 1;
        let id = VisitorId(self.count);
        self.visitors.push(Visitor::new(id, kind, stream, now));
        id
    }
}

#[cfg(test)]
mod tests;
