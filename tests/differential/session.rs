//! A client's connection: what is to be sent on it and when, how it is read, how it ends; and the possible fates of each request.

use std::fmt;

use super::plan::{Flavour, Habits, Plan, Taste};
use super::random::Random;

/// How the client reads.
#[derive(Clone, Copy, Debug)]
pub enum Reading {
    /// At once.
    Fast,
    /// Not at all for so many milliseconds after its first request, then with pauses of one millisecond between so many reads.
    Slow {
        /// Milliseconds.
        stall: u64,
        /// Reads.
        pauses: usize,
    },
}

/// How the client leaves.
#[derive(Clone, Copy, Debug)]
pub enum Leaving {
    /// When everything is answered.
    Done,
    /// As [`Self::Done`], but it says with its last request that nothing follows. The server then closes when it has given the
    /// kernel all answers, and kernels do not wait for ever for a client that does not read.
    HalfClose,
    /// When it has sent so many bytes and so many milliseconds have passed.
    Sent(usize, u64),
    /// When it has received so many bytes.
    Received(usize),
}

/// A connection.
#[derive(Debug)]
pub struct Session {
    /// The requests, in order.
    pub plans: Vec<Plan>,
    /// How many may be sent and not answered.
    pub window: usize,
    /// Most bytes of one write, and whether a millisecond passes after each (at most a few times).
    pub piece: Option<usize>,
    /// How it reads.
    pub reading: Reading,
    /// How it leaves.
    pub leaving: Leaving,
    /// Whether a client that leaves early resets the connection.
    pub resets: bool,
    /// Pause after each answer, in milliseconds.
    pub pause: u64,
}

/// The fate of a request, as the client saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Not all of it was sent.
    Unsent,
    /// It was sent after one whose answer closed the connection.
    Behind,
    /// The client left before the whole answer was there; so many bytes of its body came.
    Left(u64),
    /// Answered as expected, with so many bytes of a body.
    Answered(u64),
    /// Refused with 503, with so many bytes of a body.
    Refused(u64),
}

impl Session {
    /// Makes one up; ids begin at `id`.
    pub fn random(id: u32, habits: Habits, random: &mut Random) -> Self {
        let flavour = habits.flavour(random);
        let quick = flavour == Flavour::Quick;
        // Asks for more than the server's socket takes, and reads late.
        let floods = quick && random.percent(15);
        let window = match random.between(0, 9) {
            _ if floods => 300,
            0..=3 if !quick => 1,
            0 => 1,
            1..=5 => random.between(2, 6),
            _ => random.between(8, 32),
        };
        let taste = Taste {
            flavour,
            writes: habits.writes,
            page: if floods { 16_400 } else { random.pick(&[400, 400, 400, 4_000]) },
            pipelined: window > 1,
        };
        let count = match (flavour, random.between(0, 9)) {
            (_, 0 | 1) => 1,
            (Flavour::Quick, _) => random.between(50, 300),
            (_, 2..=7) => random.between(2, 8),
            (_, _) => random.between(10, 30),
        };
        let mut plans: Vec<Plan> = (0..count).map(|n| Plan::random(id + n as u32, taste, random)).collect();
        // A client that has said so sends nothing more (RFC 9112 section 9.6).
        if let Some(last) = plans.iter().position(|plan| !plan.keep) {
            plans.truncate(last + 1);
        }
        let total = {
            let mut bytes = Vec::new();
            plans.iter().for_each(|plan| plan.render(&mut bytes));
            bytes.len()
        };
        let leaving = match random.between(0, 99) {
            0..=9 => Leaving::HalfClose,
            10..=15 => Leaving::Sent(random.between(0, total), random.pick(&[0, 0, 1, 5, 20])),
            16..=21 => Leaving::Received(random.pick(&[1, 100, 1_000, 20_000, 70_000, 300_000])),
            _ => Leaving::Done,
        };
        let reading = match random.between(0, 9) {
            _ if floods => Reading::Slow { stall: random.pick(&[1, 5, 50]), pauses: random.between(1, 40) },
            0 | 1 if !quick => Reading::Slow { stall: random.pick(&[0, 5, 50, 200]), pauses: random.between(1, 40) },
            _ => Reading::Fast,
        };
        let piece = (!quick && random.percent(10)).then(|| random.pick(&[1, 7, 100, 1_460, 16_384, 100_000]));
        let pause = if quick || random.percent(80) { 0 } else { random.between(1, 20) as u64 };
        Self { plans, window, piece, reading, leaving, resets: random.percent(50), pause }
    }
}

/// What is wrong, and with which request of the session.
#[derive(Debug)]
pub struct Fault {
    /// Index of the request.
    pub plan: usize,
    /// What.
    pub what: String,
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plans, window, piece, reading, leaving, resets, pause } = self;
        let count = plans.len();
        write!(f, "{count} requests, at most {window} unanswered, pieces {piece:?}, {reading:?}, {leaving:?}, ")?;
        write!(f, "resets: {resets}, pause {pause} ms")
    }
}
