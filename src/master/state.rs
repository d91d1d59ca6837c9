//! What a master leaves to the program that takes its place by exec, as text in a file in memory.
//!
//! Two lines of JSON. The first says which versions the second, the messages of the workers and their slots in shared memory
//! have, and it never changes its form, so that every program can tell whether it understands the rest. Descriptors are numbers:
//! they stay open across exec.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read};

use serde::{Deserialize, Serialize};

use crate::config::TlsSettings;
use crate::net::listener::{FileMark, Listener};
use crate::status::ReloadCounts;
use crate::{channel, scoreboard};

use super::command::Command;
use super::credentials::Credentials;
use super::event::{Generation, WorkerLife};
use super::ledger::Ledger;

/// Version of [`SavedState`]. It changes when a field is added that must be known, or gets another meaning.
const VERSION: u32 = 3;

/// Largest state read, in bytes: some hundred for each of thousands of workers.
const SIZE_MAX: u64 = 16 * 1024 * 1024;

/// The first line.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    /// Process id of the master.
    tapster: u32,
    state: u32,
    channel: u32,
    scoreboard: u32,
}

impl Header {
    fn of(pid: u32) -> Self {
        Self { tapster: pid, state: VERSION, channel: channel::PROTOCOL, scoreboard: scoreboard::LAYOUT }
    }
}

/// The second line: a running server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedState {
    /// How it was started.
    pub command: Command,
    /// The generation that serves.
    pub current: Generation,
    /// The last generation that was begun.
    pub latest: Generation,
    /// Workers wanted.
    pub wanted: usize,
    /// Whether an operator has stopped the workers.
    pub stopped: bool,
    /// The interpreter, as the workers describe it.
    pub python: String,
    /// Workers started so far. A program that does not count them leaves none.
    #[serde(default)]
    pub births: u64,
    /// What it has counted and remembers. A program that counts nothing leaves none.
    #[serde(default)]
    pub ledger: Ledger,
    /// Lines that the error log has lost and does not say. A program that does not know it leaves none.
    #[serde(default)]
    pub lost_lines: u64,
    /// `--bind`, as it was when the sockets were bound.
    pub binds: Vec<String>,
    /// The listening sockets.
    pub listeners: Vec<Listening>,
    /// The hand-off queue.
    pub queue: QueueState,
    /// The workers.
    pub children: Vec<ChildState>,
    /// Their molds. A program that knows none leaves none.
    #[serde(default)]
    pub molds: Vec<MoldState>,
    /// Descriptors of the scoreboard: slots and calls.
    pub scoreboard: [i32; 2],
    /// Slots of the scoreboard.
    pub slots: usize,
    /// `--threads`, which gives the scoreboard its shape.
    pub threads: usize,
    /// The pipes of captured output.
    pub outputs: Vec<OutputState>,
    /// The pid file, absolute.
    pub pid_file: Option<OsString>,
    /// The descriptor that holds its lock. A program that knows no lock leaves none.
    #[serde(default)]
    pub pid_lock: Option<i32>,
    /// Where operators come in. A program that knows no doors leaves none.
    #[serde(default)]
    pub doors: Vec<DoorState>,
    /// What TLS is spoken with. A program that speaks none leaves none. Only the next program and its trial, of the same user, can read
    /// the keys here.
    #[serde(default)]
    pub tls: Option<TlsState>,
    /// When the server was started, seconds since the epoch.
    #[serde(default)]
    pub started: u64,
    /// Reloads and upgrades so far.
    #[serde(default)]
    pub changes: ReloadCounts,
}

/// What TLS is spoken with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsState {
    /// The options.
    pub settings: TlsSettings,
    /// Certificates, keys, and the secrets that tickets of before are made with.
    pub credentials: Credentials,
}

/// A listening socket for operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoorState {
    /// The socket.
    pub socket: Listening,
    /// Whether it is the control socket.
    pub control: bool,
}

/// A listening socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listening {
    /// Its descriptor.
    pub fd: i32,
    /// Whether the server made it.
    pub own: bool,
    /// The file that was made for it, to be removed at the end.
    pub file: Option<File>,
}

/// The hand-off queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueState {
    /// Version of the messages in it.
    pub version: u8,
    /// Descriptors of the sending and the receiving end.
    pub ends: [i32; 2],
}

/// The file of a unix socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Where.
    pub path: OsString,
    /// Device of its file system.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
}

impl File {
    /// The file of this listener, if one was made for it.
    pub fn of(listener: &Listener) -> Option<Self> {
        let FileMark { path, device, inode } = listener.file()?.clone();
        Some(Self { path: path.into(), device, inode })
    }

    /// The same for the listener.
    pub fn mark(self) -> FileMark {
        FileMark { path: self.path.into(), device: self.device, inode: self.inode }
    }
}

/// A worker that has not been waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildState {
    /// Place, generation, and how far it is.
    pub life: WorkerLife,
    /// Process id.
    pub pid: i32,
    /// Descriptor of the master's end of its channel, if that is open.
    pub channel: Option<i32>,
    /// Descriptor of the file for the stacks of its threads.
    pub stacks: i32,
    /// When it was forked, nanoseconds of the monotonic clock.
    pub born: u64,
    /// How many workers the server had started with it; 0: a program has forked it that does not count them.
    #[serde(default)]
    pub age: u64,
    /// Process id of the mold that has forked it. A program that knows no molds leaves none.
    #[serde(default)]
    pub mold: Option<i32>,
}

/// A mold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoldState {
    /// Whose application it has.
    pub generation: Generation,
    /// Process id.
    pub pid: i32,
    /// Descriptor of the master's end of its channel.
    pub channel: i32,
    /// Descriptor of the file for the stacks of its threads.
    pub stacks: i32,
}

/// What a worker prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputState {
    /// The worker's place.
    pub slot: usize,
    /// Whether it is a mold instead of a worker.
    #[serde(default)]
    pub mold: bool,
    /// Its process id.
    pub pid: i32,
    /// Descriptor of the master's end of the pipe.
    pub fd: i32,
}

/// Why a state cannot be used. `Display` is one clause: `state version 7 is not known here (1 is)`.
#[derive(Debug)]
pub struct Unusable(pub String);

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl SavedState {
    /// The state of the master with this process id as text.
    pub fn render(&self, pid: u32) -> io::Result<Vec<u8>> {
        let mut text = serde_json::to_vec(&Header::of(pid))?;
        text.push(b'\n');
        serde_json::to_writer(&mut text, self)?;
        text.push(b'\n');
        Ok(text)
    }

    /// Reads a state; returns it with the process id of its master.
    pub fn read(source: impl Read) -> Result<(Self, u32), Unusable> {
        let mut source = BufReader::new(source.take(SIZE_MAX));
        let mut first = Vec::new();
        source.read_until(b'\n', &mut first).map_err(|error| Unusable(format!("the state cannot be read: {error}")))?;
        let header: Header = serde_json::from_slice(&first).map_err(|_| Unusable("this is not the state of a tapster".into()))?;
        let known = Header::of(header.tapster);
        let versions = [
            ("state", header.state, known.state),
            ("message", header.channel, known.channel),
            ("scoreboard", header.scoreboard, known.scoreboard),
        ];
        if let Some((what, given, ours)) = versions.into_iter().find(|(_, given, ours)| given != ours) {
            return Err(Unusable(format!(
                "{what} version {given} is not known here ({ours} is): stop and start the server instead"
            )));
        }
        let state: Self = serde_json::from_reader(source).map_err(|error| Unusable(format!("the state is damaged: {error}")))?;
        state.check()?;
        Ok((state, header.tapster))
    }

    /// What the rest relies on: each worker in a slot of its own that exists.
    fn check(&self) -> Result<(), Unusable> {
        for (index, child) in self.children.iter().enumerate() {
            let slot = child.life.slot;
            if slot.0 >= self.slots || self.children[..index].iter().any(|other| other.life.slot == slot) {
                return Err(Unusable(format!("the state is damaged: worker {} has no slot of its own", child.pid)));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;
    use std::time::Duration;

    use super::*;
    use crate::master::event::{Life, SlotIndex};

    fn state() -> SavedState {
        let left = Some(Duration::from_millis(1500));
        let lives = [Life::Ready { ago: Duration::MAX }, Life::Leaving { left, hurried: true }];
        let life = |slot| WorkerLife {
            slot: SlotIndex(slot),
            generation: Generation(3),
            life: lives[slot],
            owed: true,
            worn: false,
            why: None,
        };
        let child = |slot, channel| ChildState {
            life: life(slot),
            pid: 100 + slot as i32,
            channel,
            stacks: 12,
            born: u64::MAX,
            age: 7,
            mold: Some(99),
        };
        SavedState {
            command: Command::of_this_process(&[OsString::from_vec(b"not utf-8 \xff".to_vec())]),
            current: Generation(3),
            latest: Generation(5),
            wanted: 4,
            stopped: false,
            python: "Python 3.11.7".into(),
            births: 9,
            ledger: Ledger::default(),
            lost_lines: 3,
            binds: vec!["unix:/run/x".into()],
            listeners: vec![
                Listening { fd: 5, own: false, file: None },
                Listening { fd: 6, own: true, file: Some(File { path: "/run/x".into(), device: 1, inode: u64::MAX }) },
            ],
            queue: QueueState { version: 1, ends: [14, 15] },
            children: vec![child(0, Some(8)), child(1, None)],
            molds: vec![MoldState { generation: Generation(3), pid: 99, channel: 18, stacks: 19 }],
            scoreboard: [4, 13],
            slots: 2,
            threads: 1,
            outputs: vec![OutputState { slot: 1, mold: false, pid: 101, fd: 9 }],
            pid_file: Some("/run/x.pid".into()),
            pid_lock: Some(16),
            doors: vec![DoorState { socket: Listening { fd: 17, own: true, file: None }, control: true }],
            tls: Some(TlsState {
                settings: TlsSettings {
                    pairs: Vec::new(),
                    client_roots: None,
                    client_certificates: Default::default(),
                    oldest: Default::default(),
                },
                credentials: Credentials::new(Default::default(), 1).unwrap(),
            }),
            started: 1_700_000_000,
            changes: ReloadCounts { ok: 4, failed: 1 },
        }
    }

    fn refused(text: &[u8]) -> String {
        SavedState::read(text).expect_err("it must be refused").to_string()
    }

    #[test]
    fn what_was_written_is_read() {
        let state = state();
        let text = state.render(77).unwrap();
        assert_eq!(SavedState::read(text.as_slice()).unwrap(), (state, 77));
    }

    #[test]
    fn other_versions_are_refused_before_anything_else_is_looked_at() {
        for (what, header) in [
            ("state version 9 is", r#"{"tapster":1,"state":9,"channel":6,"scoreboard":2,"more":0}"#),
            ("message version 9 is", r#"{"tapster":1,"state":3,"channel":9,"scoreboard":2}"#),
            ("scoreboard version 0 is", r#"{"tapster":1,"state":3,"channel":6,"scoreboard":0}"#),
        ] {
            let why = refused(format!("{header}\nanything\n").as_bytes());
            assert!(why.starts_with(what), "{why}");
        }
    }

    #[test]
    fn what_is_no_state_is_refused() {
        let text = state().render(77).unwrap();
        for text in [&b""[..], b"{}\n{}\n", b"\xff\xff", b"nonsense"] {
            assert_eq!(refused(text), "this is not the state of a tapster");
        }
        for end in [text.len() - 2, text.len() / 2] {
            assert!(refused(&text[..end]).starts_with("the state is damaged"), "cut at {end}");
        }
        let mut twice = state();
        twice.children[1].life.slot = SlotIndex(0);
        assert!(refused(&twice.render(77).unwrap()).contains("worker 101 has no slot of its own"));
    }
}
