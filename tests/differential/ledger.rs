//! The books: the clients' results, the application's notes and the access log must agree.

use std::collections::HashMap;

use super::model::{End, Expected};
use super::plan::Form;
use super::plan::{Plan, Step};
use super::session::{Seen, Session};

/// Status of a request that the server had no time for.
const REFUSED: u16 = 503;

/// Status in the log of a request whose client left before the application had it.
const LEFT: u16 = 499;

/// The records of server and application about one request.
#[derive(Debug, Default)]
struct Entry {
    calls: usize,
    closes: usize,
    /// Status and bytes of each line.
    lines: Vec<(u16, u64)>,
    errors: usize,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: HashMap<u32, Entry>,
    /// Lines of requests of which only a part came.
    nameless: usize,
}

/// The id in a target, or in a request line.
fn id(line: &str) -> Option<u32> {
    let from = line.find(" /")? + 2;
    u32::from_str_radix(line.get(from..from + 8)?, 16).ok()
}

impl Ledger {
    /// Reads the application's notes, the access log (`%(s)s %(B)s %(r)s`) and the errors.
    pub fn read<'a>(marks: &str, access: &str, errors: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let mut ledger = Self::default();
        for mark in marks.lines() {
            let found = mark.split_once(' ').and_then(|(kind, id)| Some((kind, u32::from_str_radix(id, 16).ok()?)));
            let Some((kind, id)) = found else { return Err(format!("no note: {mark:?}")) };
            let entry = ledger.entries.entry(id).or_default();
            *(if kind == "E" { &mut entry.calls } else { &mut entry.closes }) += 1;
        }
        for line in access.lines() {
            let mut words = line.splitn(3, ' ');
            let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
            let (Some(status), Some(bytes)) = (number(), number()) else { return Err(format!("no line of a log: {line:?}")) };
            match id(line) {
                Some(id) => ledger.entries.entry(id).or_default().lines.push((status as u16, bytes)),
                None if status == u64::from(LEFT) => ledger.nameless += 1,
                None => return Err(format!("a line of nobody's: {line:?}")),
            }
        }
        for error in errors {
            let Some(id) = id(error) else { return Err(format!("an error of nobody's: {error}")) };
            ledger.entries.entry(id).or_default().errors += 1;
        }
        Ok(ledger)
    }

    /// Looks at each request of a session; the first that does not agree, with its index.
    pub fn check(&mut self, session: &Session, seen: &[Seen], may_refuse: bool) -> Result<(), (usize, String)> {
        for (index, (plan, seen)) in session.plans.iter().zip(seen).enumerate() {
            let entry = self.entries.remove(&plan.id).unwrap_or_default();
            entry
                .check(plan, *seen, may_refuse)
                .map_err(|what| (index, format!("{what}; the client saw {seen:?}, {entry:?}")))?;
        }
        Ok(())
    }

    /// The mistakes that remain after all sessions were checked, of which so many were cut.
    pub fn finish(&self, cut: usize) -> Result<(), String> {
        if let Some((id, entry)) = self.entries.iter().next() {
            return Err(format!("nobody has sent a request {id:08x}: {entry:?}"));
        }
        if self.nameless > cut {
            return Err(format!("{} lines of requests without a name, but only {cut} clients have left early", self.nameless));
        }
        Ok(())
    }
}

impl Entry {
    fn check(&self, plan: &Plan, seen: Seen, may_refuse: bool) -> Result<(), String> {
        if self.calls > 1 {
            return Err(format!("the request was run {} times", self.calls));
        }
        if self.lines.len() > 1 {
            return Err(format!("the request has {} lines in the access log", self.lines.len()));
        }
        match seen {
            Seen::Unsent | Seen::Behind if self.calls > 0 => Err("the request was run".to_owned()),
            Seen::Unsent => self.left(false),
            Seen::Behind if !self.lines.is_empty() => Err("a request behind the last of its connection was logged".to_owned()),
            Seen::Behind => Ok(()),
            Seen::Refused(_) if self.calls > 0 => Err("a request that was refused was run".to_owned()),
            Seen::Refused(received) if self.lines != [(REFUSED, received)] => Err("no line with 503 and these bytes".to_owned()),
            Seen::Refused(_) => Ok(()),
            Seen::Left(_) if self.calls == 0 => self.left(may_refuse),
            Seen::Left(received) => self.served(plan, received, true),
            Seen::Answered(_) if self.calls == 0 => Err("a request that was answered was not noted".to_owned()),
            Seen::Answered(received) => self.served(plan, received, false),
        }
    }

    /// A request that the application never had.
    fn left(&self, may_refuse: bool) -> Result<(), String> {
        match self.lines.first() {
            None | Some((LEFT, 0)) => Ok(()),
            Some((REFUSED, _)) if may_refuse => Ok(()),
            Some((status, bytes)) => Err(format!("a request that was not run is logged with {status} and {bytes} bytes")),
        }
    }

    /// A request that the application had.
    fn served(&self, plan: &Plan, received: u64, left: bool) -> Result<(), String> {
        let expected = plan.expected();
        let Some(&(status, bytes)) = self.lines.first() else { return Err("no line in the access log".to_owned()) };
        // A client that leaves early may see only a part: no exception of a later block, or nothing.
        let started = plan.steps.iter().any(|step| matches!(step, Step::Start(found) | Step::Restart(found) if *found == status));
        if status != expected.status && !(left && (started || (status == LEFT && received == 0))) {
            return Err(format!("the access log has {status} instead of {}", expected.status));
        }
        let most = expected.body.as_ref().map_or(u64::MAX, |body| body.len() as u64);
        let torn = left || expected.end == End::Reset;
        if bytes < received || (bytes != received && !torn) || bytes > most {
            return Err(format!("the access log has {bytes} bytes, the client {received}, the answer at most {most}"));
        }
        self.closed(plan, &expected, left)?;
        if self.errors != expected.errors && !left {
            return Err(format!("{} errors in the log instead of {}", self.errors, expected.errors));
        }
        Ok(())
    }

    fn closed(&self, plan: &Plan, expected: &Expected, left: bool) -> Result<(), String> {
        // A generator that was never asked for a block has nothing to clean up.
        let lazy = left && plan.steps.contains(&Step::Return(Form::Generator));
        // When the client has left, `write()` raises, and there is no iterable.
        let writes = left && plan.steps.iter().any(|step| matches!(step, Step::Write(_)));
        if self.closes == expected.closes || (self.closes == 0 && (lazy || writes)) {
            return Ok(());
        }
        Err(format!("close() was called {} times instead of {}", self.closes, expected.closes))
    }
}
