//! A request: what the client sends, the steps that the application is to take, and how they are made up.

use std::fmt;

use super::pattern::{UPLOAD, piece};
use super::random::Random;

/// Sizes at which buffers of the server change their ways, each tried with one byte less and one more, in bytes.
const BOUNDS: [usize; 5] = [0, 16 * 1024, 64 * 1024, 256 * 1024, 1024 * 1024];

/// How many bytes and how much time requests take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// Small and quick answers, hardly anything else.
    Quick,
    /// Everything.
    Mixed,
    /// Much of it large.
    Heavy,
}

/// What the requests of a round are like.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// Which flavour its connections have more often than the others.
    pub mostly: Flavour,
    /// Whether the application ever sends by itself (`write()`, early hints): the server sends otherwise from then on.
    pub writes: bool,
}

impl Habits {
    /// The flavour of one connection. All are there in every round, and quick ones have most of the requests.
    pub fn flavour(self, random: &mut Random) -> Flavour {
        let (quick, mixed) = match self.mostly {
            Flavour::Quick => (75, 22),
            Flavour::Mixed => (45, 49),
            Flavour::Heavy => (40, 35),
        };
        match random.between(0, 99) {
            roll if roll < quick => Flavour::Quick,
            roll if roll < quick + mixed => Flavour::Mixed,
            _ => Flavour::Heavy,
        }
    }
}

/// What the requests of a connection are like.
#[derive(Clone, Copy, Debug)]
pub struct Taste {
    /// Their sizes and times.
    pub flavour: Flavour,
    /// See [`Habits::writes`].
    pub writes: bool,
    /// Most bytes of a quick answer.
    pub page: usize,
    /// Whether others are sent after one before it is answered.
    pub pipelined: bool,
}

/// What the application returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A list.
    List,
    /// A tuple.
    Tuple,
    /// A generator.
    Generator,
    /// An object with `__next__` and `close`.
    Iterable,
    /// `wsgi.file_wrapper` of a file, from this byte on.
    File(usize),
    /// `wsgi.file_wrapper` of an object that is no file, with blocks of this size.
    Memory(usize),
}

/// One step of the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Sleep so many milliseconds.
    Sleep(usize),
    /// Early hints.
    Hint,
    /// A field of this size in the head.
    Field(usize),
    /// This Content-Length.
    Length(usize),
    /// `Connection: close`.
    Close,
    /// `start_response`.
    Start(u16),
    /// `start_response` once more, with `exc_info`.
    Restart(u16),
    /// `write()` of so many bytes.
    Write(usize),
    /// Reads the upload: 0 at once, 1 by lines, else in blocks of so many bytes.
    Read(usize),
    /// An exception.
    Raise,
    /// `close()` raises an exception.
    CloseFails,
    /// `close()` writes so many bytes.
    CloseWrites(usize),
    /// Return; the blocks follow.
    Return(Form),
    /// A block of so many bytes.
    Block(usize),
    /// The upload as a block.
    Echo,
    /// Length and checksum of the upload as a block.
    Sum,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sleep(ms) => write!(f, "t{ms}"),
            Self::Hint => write!(f, "i"),
            Self::Field(size) => write!(f, "h{size}"),
            Self::Length(length) => write!(f, "c{length}"),
            Self::Close => write!(f, "x"),
            Self::Start(status) => write!(f, "s{status}"),
            Self::Restart(status) => write!(f, "z{status}"),
            Self::Write(size) => write!(f, "w{size}"),
            Self::Read(size) => write!(f, "r{size}"),
            Self::Raise => write!(f, "!"),
            Self::CloseFails => write!(f, "k"),
            Self::CloseWrites(size) => write!(f, "q{size}"),
            Self::Return(Form::List) => write!(f, "L"),
            Self::Return(Form::Tuple) => write!(f, "T"),
            Self::Return(Form::Generator) => write!(f, "G"),
            Self::Return(Form::Iterable) => write!(f, "I"),
            Self::Return(Form::File(offset)) => write!(f, "F{offset}"),
            Self::Return(Form::Memory(size)) => write!(f, "B{size}"),
            Self::Block(size) => write!(f, "b{size}"),
            Self::Echo => write!(f, "e"),
            Self::Sum => write!(f, "u"),
        }
    }
}

/// The body of a request.
#[derive(Clone, Debug)]
pub struct Upload {
    /// Bytes.
    pub size: usize,
    /// Sizes of the first chunks, the last of which is repeated; `None` with Content-Length.
    pub chunks: Option<Vec<usize>>,
    /// Whether the client sends `Expect: 100-continue` (and does not wait).
    pub expect: bool,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its name, the only one in a server's life.
    pub id: u32,
    /// `GET`, `HEAD` or `POST`.
    pub method: &'static str,
    /// HTTP/1.0.
    pub old: bool,
    /// Whether the client wants to keep the connection.
    pub keep: bool,
    /// Bytes of a field that only makes the head larger.
    pub padding: usize,
    /// Its body.
    pub upload: Option<Upload>,
    /// What the application does.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Makes one up.
    pub fn random(id: u32, taste: Taste, random: &mut Random) -> Self {
        let Taste { flavour, pipelined, .. } = taste;
        let dull = flavour == Flavour::Quick && random.percent(95);
        // Old clients do not pipeline: a reset, the only way to show them a cut, destroys what is on its way.
        let old = !pipelined && random.percent(10);
        let keep = if old { random.percent(70) } else { !random.percent(if dull { 0 } else { 4 }) };
        let upload = (!dull && random.percent(20)).then(|| Upload::random(old, flavour, random));
        let method = match upload {
            Some(_) => "POST",
            None if random.percent(8) => "HEAD",
            None => "GET",
        };
        let padding = if random.percent(4) { random.between(1, 7_000) } else { 0 };
        let mut plan = Self { id, method, old, keep, padding, upload, steps: Vec::new() };
        if dull {
            let form = if random.percent(80) { Form::List } else { random.pick(&[Form::Tuple, Form::Iterable, Form::Generator]) };
            plan.steps = vec![Step::Start(200), Step::Return(form), Step::Block(random.between(0, taste.page))];
        } else {
            plan.make_steps(taste, random);
        }
        plan
    }

    fn make_steps(&mut self, Taste { flavour, writes, .. }: Taste, random: &mut Random) {
        let slow =
            |chance: u64, random: &mut Random| random.percent(chance).then(|| Step::Sleep(random.pick(&[1, 2, 4, 10, 10, 30])));
        let mut steps = Vec::new();
        let read = self.upload.is_some() && random.percent(80);
        if read {
            steps.push(Step::Read(random.pick(&[0, 0, 1, 1_000, 4_096, 65_536, 100_000])));
        }
        steps.extend(slow(15, random));
        if writes && random.percent(3) {
            steps.push(Step::Hint);
        }
        if random.percent(2) {
            steps.push(Step::Raise);
        }
        let mut status = if random.percent(85) { 200 } else { random.pick(&[201, 204, 304, 404, 500, 503]) };
        if random.percent(5) {
            steps.push(Step::Field(if random.percent(50) { random.between(1, 9_000) } else { size(flavour, random).max(1) }));
        }
        if random.percent(4) {
            steps.push(Step::Close);
        }
        let length_at = steps.len();
        steps.push(Step::Start(status));
        if random.percent(2) {
            status = random.pick(&[400, 404, 500]);
            steps.push(Step::Restart(status));
        }
        steps.extend(slow(4, random));
        let bodiless = self.method == "HEAD" || matches!(status, 204 | 304);
        let mut blocks = 0;
        if writes && random.percent(20) {
            for _ in 0..random.pick(&[1, 1, 2, 5]) {
                let size = size(flavour, random);
                blocks += size;
                steps.push(Step::Write(size));
                steps.extend(slow(5, random));
            }
        }
        let fails = random.percent(4);
        if fails && random.percent(40) && (blocks == 0 || !bodiless) {
            steps.push(Step::Raise);
        }
        let form = match random.between(0, 9) {
            0..=2 => Form::List,
            3 => Form::Tuple,
            4 | 5 => Form::Generator,
            6 | 7 => Form::Iterable,
            8 => Form::File(random.pick(&[0, 0, 1, 5_000])),
            _ => Form::Memory(random.pick(&[1_000, 16_384, 16_385, 100_000])),
        };
        let lazy = matches!(form, Form::Generator | Form::Iterable);
        if form == Form::Iterable && random.percent(3) {
            steps.push(Step::CloseFails);
        }
        // Of an answer that is cut nothing may follow.
        if form == Form::Iterable && writes && !fails && random.percent(8) {
            let size = size(flavour, random);
            blocks += size;
            steps.push(Step::CloseWrites(size));
        }
        steps.push(Step::Return(form));
        for _ in 0..random.pick(&[0, 1, 1, 1, 1, 2, 3, 8, 40]) {
            let step = match random.between(0, 9) {
                0 if read => Step::Echo,
                1 | 2 if read => Step::Sum,
                3 => Step::Block(0),
                4..=7 => Step::Block(random.between(0, 300)),
                8 if writes && lazy && random.percent(30) => Step::Write(size(flavour, random)),
                _ => Step::Block(size(flavour, random)),
            };
            blocks += self.bytes_of(step).len();
            steps.push(step);
            if lazy {
                steps.extend(slow(8, random));
            }
        }
        if fails && lazy && !bodiless {
            let at = steps.iter().position(|step| matches!(step, Step::Return(_))).expect("it was pushed") + 1;
            steps.insert(random.between(at, steps.len()), Step::Raise);
        } else if random.percent(25) && !steps.contains(&Step::Raise) {
            let length = match random.between(0, 9) {
                0 => blocks + random.between(1, 70_000),
                1 => random.between(0, blocks),
                _ => blocks,
            };
            steps.insert(length_at, Step::Length(length));
        }
        self.steps = steps;
    }

    /// The bytes of a block that does not depend on its number.
    pub fn bytes_of(&self, step: Step) -> Vec<u8> {
        match step {
            Step::Echo => self.body(),
            Step::Sum => {
                let body = self.body();
                format!("{:08x} {:08x};", body.len(), super::pattern::adler32(&body)).into_bytes()
            }
            Step::Block(size) | Step::Write(size) => vec![0; size],
            _ => Vec::new(),
        }
    }

    /// The body that is uploaded, without its framing.
    pub fn body(&self) -> Vec<u8> {
        self.upload.as_ref().map_or_else(Vec::new, |upload| piece(self.id, UPLOAD, upload.size))
    }

    /// The target.
    fn target(&self) -> String {
        let steps: Vec<String> = self.steps.iter().map(Step::to_string).collect();
        format!("/{:08x}/{}", self.id, steps.join(","))
    }

    /// Appends the request as it is sent.
    pub fn render(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("{self}\r\nHost: test\r\n").as_bytes());
        if self.padding > 0 {
            out.extend_from_slice(format!("X-Padding: {}\r\n", "p".repeat(self.padding)).as_bytes());
        }
        match (self.old, self.keep) {
            (false, false) => out.extend_from_slice(b"Connection: close\r\n"),
            (true, true) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
            _ => {}
        }
        let Some(upload) = &self.upload else { return out.extend_from_slice(b"\r\n") };
        if upload.expect {
            out.extend_from_slice(b"Expect: 100-continue\r\n");
        }
        let body = self.body();
        let Some(chunks) = &upload.chunks else {
            out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
            return out.extend_from_slice(&body);
        };
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
        let (mut rest, mut sizes) = (body.as_slice(), chunks.iter());
        let mut size = 1;
        while !rest.is_empty() {
            size = sizes.next().copied().unwrap_or(size);
            let (chunk, behind) = rest.split_at(size.min(rest.len()));
            out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            out.extend_from_slice(chunk);
            out.extend_from_slice(b"\r\n");
            rest = behind;
        }
        out.extend_from_slice(b"0\r\n\r\n");
    }
}

/// The request line, which says nearly all.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} HTTP/1.{}", self.method, self.target(), u8::from(!self.old))
    }
}

impl Upload {
    fn random(old: bool, flavour: Flavour, random: &mut Random) -> Self {
        let size = size(flavour, random);
        let chunks = (!old && random.percent(50)).then(|| {
            let count = random.between(0, 3);
            let mut chunks: Vec<usize> = (0..count).map(|_| random.between(1, 20_000)).collect();
            chunks.push(random.pick(&[1_000, 4_096, 16_384, 65_537, 1 << 21]));
            chunks
        });
        Self { size, chunks, expect: !old && random.percent(10) }
    }
}

/// A size: mostly small, else at a bound.
pub fn size(flavour: Flavour, random: &mut Random) -> usize {
    let small = if flavour == Flavour::Heavy { 20 } else { 60 };
    if random.percent(small) {
        return random.between(0, 300);
    }
    let bound = match random.between(0, 9) {
        0 => BOUNDS[0],
        1..=3 => BOUNDS[1],
        4..=6 => BOUNDS[2],
        7 | 8 => BOUNDS[3],
        _ => BOUNDS[4],
    };
    (bound + random.between(0, 2)).saturating_sub(1)
}
