//! A client's connection: what is sent on it and when, how it is read, how it ends, and what became of each request.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::libc::linger;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{setsockopt, sockopt};

use super::answer::{Answer, Ended, read};
use super::common::client::Address;
use super::model::{End, Expected};
use super::plan::{Flavour, Plan};
use super::random::Random;

/// Longest wait for a byte or for room for one, however busy the machine: whoever waits longer has been forgotten.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes asked of the socket at once by a client that reads as fast as it can.
const READ_SIZE: usize = 256 * 1024;

/// Receive buffer of a client that stalls, in bytes: little, so that the server feels it.
const SMALL_BUFFER: usize = 128 * 1024;

/// Receive buffer of the same client when it has done with its pauses, in bytes: the kernel sends to a small one five times a second.
const LARGE_BUFFER: usize = 2 * 1024 * 1024;

/// Bytes asked of the socket at once by a client that pauses.
const SLOW_READ: usize = 4_096;

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
    /// As [`Self::Done`], but it says with its last request that nothing follows. The server then closes when it has given the kernel
    /// all answers, and kernels do not wait for ever for a client that does not read.
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
    /// Most bytes of one write, and whether a millisecond passes behind each (at most a few times).
    pub piece: Option<usize>,
    /// How it reads.
    pub reading: Reading,
    /// How it leaves.
    pub leaving: Leaving,
    /// Whether a client that leaves early resets the connection.
    pub resets: bool,
    /// Pause behind each answer, in milliseconds.
    pub pause: u64,
}

/// What became of a request, as the client saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Not all of it was sent.
    Unsent,
    /// It was sent behind one whose answer closed the connection.
    Behind,
    /// The client left before the whole answer was there; so many bytes of its body came.
    Left(u64),
    /// Answered as expected, with so many bytes of a body.
    Answered(u64),
    /// Refused with 503.
    Refused,
}

impl Session {
    /// Makes one up; ids begin at `id`.
    pub fn random(id: u32, flavour: Flavour, random: &mut Random) -> Self {
        let quick = flavour == Flavour::Quick;
        let window = match random.between(0, 9) {
            0..=3 if !quick => 1,
            0 => 1,
            1..=5 => random.between(2, 6),
            _ => random.between(8, 32),
        };
        let count = match (flavour, random.between(0, 9)) {
            (_, 0 | 1) => 1,
            (Flavour::Quick, _) => random.between(50, 300),
            (_, 2..=7) => random.between(2, 8),
            (_, _) => random.between(10, 30),
        };
        let mut plans: Vec<Plan> = (0..count).map(|n| Plan::random(id + n as u32, flavour, window > 1, random)).collect();
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
            10..=17 => Leaving::Sent(random.between(0, total), random.pick(&[0, 0, 1, 5, 20])),
            18..=25 => Leaving::Received(random.pick(&[1, 100, 1_000, 20_000, 70_000, 300_000])),
            _ => Leaving::Done,
        };
        let reading = match random.between(0, 9) {
            // Not together with a half-close: see [`Leaving::HalfClose`].
            0 | 1 if !quick && !matches!(leaving, Leaving::HalfClose) => {
                Reading::Slow { stall: random.pick(&[0, 5, 50, 200]), pauses: random.between(1, 40) }
            }
            _ => Reading::Fast,
        };
        let piece = (!quick && random.percent(10)).then(|| random.pick(&[1, 7, 100, 1_460, 16_384, 100_000]));
        let pause = if quick || random.percent(80) { 0 } else { random.between(1, 20) as u64 };
        Self { plans, window, piece, reading, leaving, resets: random.percent(50), pause }
    }

    /// Runs it; what became of each request, or what is wrong with which.
    pub fn run(&self, address: &Address, may_refuse: bool) -> Result<Vec<Seen>, Fault> {
        let socket = Socket::connect(address, matches!(self.reading, Reading::Slow { .. }))
            .map_err(|error| Fault { plan: 0, what: format!("cannot connect: {error}") })?;
        let run = Run {
            session: self,
            socket,
            may_refuse,
            out: Vec::new(),
            sent: 0,
            broken: false,
            ends: Vec::new(),
            input: Vec::new(),
            at: 0,
            received: 0,
            seen: Vec::new(),
            ended: None,
            closing: None,
            pauses: match self.reading {
                Reading::Fast => 0,
                Reading::Slow { pauses, .. } => pauses,
            },
            pieces: 20,
        };
        run.finish()
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

/// A connection that is running.
struct Run<'a> {
    session: &'a Session,
    socket: Socket,
    may_refuse: bool,
    /// All that was to be sent so far.
    out: Vec<u8>,
    /// How much of it is sent.
    sent: usize,
    /// Whether the server takes no more of it.
    broken: bool,
    /// Where each request in it ends.
    ends: Vec<usize>,
    /// All that came and is not used.
    input: Vec<u8>,
    /// How much of it belongs to answers that were read.
    at: usize,
    /// Bytes that came in all.
    received: usize,
    seen: Vec<Seen>,
    ended: Option<Ended>,
    /// The answer that ends the connection was read.
    closing: Option<End>,
    /// Reads that are still followed by a pause.
    pauses: usize,
    /// Writes that are still followed by one.
    pieces: usize,
}

/// Whether a connection goes on.
enum Goes {
    On,
    /// The client leaves before the end.
    Away,
    /// All is answered, or the server has closed.
    Done,
}

impl Run<'_> {
    fn finish(mut self) -> Result<Vec<Seen>, Fault> {
        if let Reading::Slow { stall, .. } = self.session.reading {
            self.enqueue();
            self.write().map_err(|what| self.fault(what))?;
            sleep(Duration::from_millis(stall));
        }
        loop {
            match self.step().map_err(|what| self.fault(what))? {
                Goes::On => {}
                Goes::Away => {
                    if self.session.resets {
                        self.socket.reset();
                    }
                    return self.left();
                }
                Goes::Done => return self.left(),
            }
        }
    }

    fn fault(&self, what: String) -> Fault {
        Fault { plan: self.seen.len().min(self.session.plans.len() - 1), what }
    }

    /// The requests that have no answer.
    fn left(mut self) -> Result<Vec<Seen>, Fault> {
        let begun = self.seen.len();
        for (index, plan) in self.session.plans.iter().enumerate().skip(begun) {
            let whole = self.ends.get(index).is_some_and(|end| *end <= self.sent);
            let seen = if self.closing.is_some() {
                Seen::Behind
            } else if !whole {
                Seen::Unsent
            } else if index == begun {
                let ended = Some(Ended::Reset);
                let answer = read(&self.input[self.at..], plan.method == "HEAD", ended).map_err(|what| self.fault(what))?;
                match answer {
                    Some(answer) if !(self.may_refuse && answer.is_refusal()) => {
                        answer.check(plan, &plan.expected(), true, false).map_err(|what| self.fault(what))?;
                        Seen::Left(answer.body.len() as u64)
                    }
                    _ => Seen::Left(0),
                }
            } else {
                Seen::Left(0)
            };
            self.seen.push(seen);
        }
        Ok(self.seen)
    }

    /// Puts the requests that may be sent into the output.
    fn enqueue(&mut self) {
        let plans = &self.session.plans;
        while self.ends.len() < plans.len().min(self.seen.len() + self.session.window) {
            plans[self.ends.len()].render(&mut self.out);
            self.ends.push(self.out.len());
        }
    }

    fn step(&mut self) -> Result<Goes, String> {
        if self.closing.is_none() {
            self.enqueue();
        }
        let may_send = match self.session.leaving {
            Leaving::Sent(bytes, _) => bytes,
            _ => usize::MAX,
        };
        let wants_to_send = self.closing.is_none() && !self.broken && self.sent < self.out.len().min(may_send);
        if let Leaving::Sent(bytes, wait) = self.session.leaving
            && self.sent >= bytes
        {
            sleep(Duration::from_millis(wait));
            self.read_once()?;
            self.read_answers()?;
            return Ok(Goes::Away);
        }
        let (readable, writable) = self.socket.wait(wants_to_send)?;
        if writable {
            self.write()?;
        }
        if readable {
            self.read_once()?;
            self.read_answers()?;
        }
        if let Leaving::Received(bytes) = self.session.leaving
            && self.received >= bytes
            && self.closing.is_none()
        {
            return Ok(Goes::Away);
        }
        if self.ended.is_some() {
            return self.at_end();
        }
        let half = matches!(self.session.leaving, Leaving::HalfClose);
        let answered = self.seen.len() == self.session.plans.len();
        if answered && self.closing.is_none() && !half {
            if self.at < self.input.len() {
                return Err(format!("bytes behind the last answer: \"{}\"", self.input[self.at..].escape_ascii()));
            }
            return Ok(Goes::Done);
        }
        Ok(Goes::On)
    }

    fn write(&mut self) -> Result<(), String> {
        let mut to = self.out.len();
        if let Leaving::Sent(bytes, _) = self.session.leaving {
            to = to.min(bytes);
        }
        let piece = self.session.piece.filter(|_| self.pieces > 0);
        if let Some(piece) = piece {
            to = to.min(self.sent + piece);
        }
        match self.socket.stream().write(&self.out[self.sent..to]) {
            Ok(sent) => self.sent += sent,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            // What the server has answered before it closed can still be read, and says whether it was right to.
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                self.broken = true;
            }
            Err(error) => return Err(format!("cannot send: {error}")),
        }
        if piece.is_some() {
            self.pieces -= 1;
            sleep(Duration::from_millis(1));
        }
        let all = self.ends.len() == self.session.plans.len() && self.sent == self.out.len();
        if all && matches!(self.session.leaving, Leaving::HalfClose) {
            self.socket.finish_sending();
        }
        Ok(())
    }

    fn read_once(&mut self) -> Result<(), String> {
        let slow = self.pauses > 0;
        let room = if slow { SLOW_READ } else { READ_SIZE };
        if slow {
            self.pauses -= 1;
            if self.pauses == 0 {
                self.socket.set_buffer(LARGE_BUFFER).map_err(|error| format!("cannot set the buffer: {error}"))?;
            }
            sleep(Duration::from_millis(1));
        }
        // Answers are small as a rule: what was used goes before it is much.
        if self.at > READ_SIZE {
            self.input.drain(..self.at);
            self.at = 0;
        }
        let before = self.input.len();
        self.input.resize(before + room, 0);
        let count = match self.socket.stream().read(&mut self.input[before..]) {
            Ok(0) => {
                self.ended = Some(Ended::Closed);
                0
            }
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => 0,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                self.ended = Some(Ended::Reset);
                0
            }
            Err(error) => return Err(format!("cannot read: {error}")),
        };
        self.input.truncate(before + count);
        self.received += count;
        Ok(())
    }

    /// Takes the answers that are whole.
    fn read_answers(&mut self) -> Result<(), String> {
        while self.closing.is_none() {
            let Some(plan) = self.session.plans.get(self.seen.len()) else { break };
            let bytes = &self.input[self.at..];
            if bytes.is_empty() {
                break;
            }
            let Some(answer) = read(bytes, plan.method == "HEAD", self.ended)? else { break };
            if self.ends.get(self.seen.len()).is_none_or(|end| *end > self.sent) {
                return Err(format!("an answer before the whole request was sent: status {}", answer.status));
            }
            self.at += answer.len;
            self.take(plan, &answer)?;
        }
        Ok(())
    }

    fn take(&mut self, plan: &Plan, answer: &Answer) -> Result<(), String> {
        if self.may_refuse && answer.is_refusal() {
            self.seen.push(Seen::Refused);
            self.closing = Some(End::Close);
            return Ok(());
        }
        let expected: Expected = plan.expected();
        // Unix sockets know no reset, so that a cut which only the close could show looks whole.
        let unseen = expected.end == End::Reset && matches!(self.socket, Socket::Unix(_));
        answer.check(plan, &expected, expected.end == End::Reset, unseen).map_err(|what| match self.ended {
            None => what,
            Some(ended) => format!("{what}; the connection has ended ({ended:?}, broken: {})", self.broken),
        })?;
        if answer.closes() != (expected.end == End::Close || (matches!(expected.end, End::Cut | End::Reset) && answer.closes())) {
            return Err(format!("the answer says that it closes: {}, expected is {:?}", answer.closes(), expected.end));
        }
        self.seen.push(Seen::Answered(answer.body.len() as u64));
        if expected.end != End::Keep {
            self.closing = Some(expected.end);
        } else if self.session.pause > 0 {
            sleep(Duration::from_millis(self.session.pause));
        }
        Ok(())
    }

    /// The server has ended the connection.
    fn at_end(&mut self) -> Result<Goes, String> {
        if self.at < self.input.len() {
            return Err(format!(
                "the connection ended ({:?}) behind {} bytes that are no answer: \"{}\"",
                self.ended,
                self.input.len() - self.at,
                self.input[self.at..].iter().take(200).copied().collect::<Vec<u8>>().escape_ascii()
            ));
        }
        let answered = self.seen.len() == self.session.plans.len();
        if self.closing.is_some() || (answered && matches!(self.session.leaving, Leaving::HalfClose)) {
            return Ok(Goes::Done);
        }
        Err(format!("the connection ended ({:?}) and the request has no answer", self.ended))
    }
}

/// The socket of a client, which does not block.
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    fn connect(address: &Address, small: bool) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                if small {
                    setsockopt(&stream, sockopt::RcvBuf, &SMALL_BUFFER)?;
                }
                stream.set_nonblocking(true)?;
                Ok(Self::Tcp(stream))
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_nonblocking(true)?;
                Ok(Self::Unix(stream))
            }
        }
    }

    /// A unix socket has its bytes in the sender's buffer.
    fn set_buffer(&self, bytes: usize) -> nix::Result<()> {
        match self {
            Self::Tcp(stream) => setsockopt(stream, sockopt::RcvBuf, &bytes),
            Self::Unix(_) => Ok(()),
        }
    }

    fn stream(&mut self) -> &mut dyn Stream {
        match self {
            Self::Tcp(stream) => stream,
            Self::Unix(stream) => stream,
        }
    }

    /// Waits until it can be read, or written if that is wanted.
    fn wait(&self, write: bool) -> Result<(bool, bool), String> {
        let wanted = if write { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN };
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let mut fds = [PollFd::new(self.as_fd(), wanted)];
            match poll(&mut fds, 1_000_u16) {
                Ok(0) | Err(nix::errno::Errno::EINTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(format!("cannot wait: {error}")),
            }
            let found = fds[0].revents().unwrap_or(PollFlags::empty());
            return Ok((found.intersects(!PollFlags::POLLOUT), found.contains(PollFlags::POLLOUT) && write));
        }
        Err(format!("nothing came for {PATIENCE:?}"))
    }

    fn finish_sending(&self) {
        // The server may have closed already.
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
    }

    /// The close that follows is a reset.
    fn reset(&self) {
        if let Self::Tcp(stream) = self {
            // Fails only when the server has ended the connection.
            let _ = setsockopt(stream, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 });
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}
