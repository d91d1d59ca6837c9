//! What a worker is born with: its [`Boot`] as text in a file in memory and as descriptors, for a worker that executes a program
//! of its own after the fork.
//!
//! ```text
//! master ── fork ──▶ user, directories, environment, output ── exec ──▶ a fresh interpreter ──▶ adopt ──▶ worker::run
//!                    (still the master's program)              state and descriptors stay
//! ```
//!
//! A server that lives inside a Python interpreter needs it: a fork would inherit whatever that interpreter has taken at its
//! start, such as its streams, environment and hash seed. The embedded program forks only; its master has no interpreter, and
//! both ways make the same [`Boot`].
//!
//! The state is two lines of JSON, as that of an upgrade. The first one never changes its form: who the worker and its master
//! are, and which versions the rest has, for the package may have been replaced since the master was started.
//!
//! **Who has written it.** The environment only names a descriptor, and anybody can set a variable. So the descriptor must have
//! come through exec, and be a file in memory that is sealed against every change; and the file must name this process as the
//! worker and its parent as the master. A parent that writes this to a descriptor of its child could as well have executed
//! anything else in its place; nobody else can make it. The same holds in the other direction for no one: a master reads nothing
//! of this from a worker.
//!
//! All that needs the rights of the master is done before exec, as is all that needs a process with one thread (`--env`): what a
//! start of Python runs (`sitecustomize`, .pth files, agents that measure) may start threads.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::getppid;
use serde::{Deserialize, Serialize};

use crate::channel::{self, MASTER_DIED, MASTER_OF_MOLD_DIED, WorkerEnd};
use crate::config::{Protocol, Settings};
use crate::handoff::{self, Queue};
use crate::log::access::Format;
use crate::log::error::{Log, Who};
use crate::log::sink::Sink;
use crate::mold::BirthEnd;
use crate::net::listener::{Address, Listener};
use crate::scoreboard::{self, Scoreboard};
use crate::sys::exec::exec;
use crate::sys::fd::inherited;
use crate::sys::memory;
use crate::sys::process::exit_now;
use crate::sys::signals::Blocked;
use crate::sys::title::Title;
use crate::tls::material::Material;
use crate::worker::{Boot, MoldBirth};

/// Names the descriptor of the state to the program of the worker, which removes it from its environment.
pub const VARIABLE: &str = "TAPSTER_WORKER_FD";

/// Version of [`BirthState`]. It changes when a field is added that must be known, or gets another meaning. Settings are part of
/// it.
const VERSION: u32 = 4;

/// Largest state read, in bytes: settings are some KiB, a socket is a line, and certificates have a bound of their own.
const SIZE_MAX: u64 = 16 * 1024 * 1024;

/// The first line.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct BirthHeader {
    /// Process id of the worker.
    tapster_worker: u32,
    /// Process id of its master.
    master: i32,
    /// Version of the master's program, for messages.
    program: String,
    birth: u32,
    channel: u32,
    scoreboard: u32,
    handoff: u8,
}

impl BirthHeader {
    fn of(worker: u32, master: i32) -> Self {
        Self {
            tapster_worker: worker,
            master,
            program: env!("CARGO_PKG_VERSION").into(),
            birth: VERSION,
            channel: channel::PROTOCOL,
            scoreboard: scoreboard::LAYOUT,
            handoff: handoff::VERSION,
        }
    }

    /// Refuses what is not for this process and this program.
    fn check(&self, worker: u32) -> Result<(), String> {
        if self.tapster_worker != worker {
            return Err(format!("the state is that of process {}", self.tapster_worker));
        }
        let known = Self::of(worker, self.master);
        if (self.birth, self.channel, self.scoreboard, self.handoff)
            != (known.birth, known.channel, known.scoreboard, known.handoff)
        {
            return Err(format!(
                "this is tapster {}, which cannot be a worker of the tapster {} that runs: upgrade the running server (SIGUSR2), or \
                 stop and start it",
                known.program, self.program
            ));
        }
        Ok(())
    }
}

/// The second line. Descriptors are numbers: they stay open across exec.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct BirthState {
    settings: Settings,
    /// The title of the process.
    title: String,
    listeners: Vec<ListenerState>,
    /// The hand-off queue: sending and receiving end.
    queue: [i32; 2],
    slot: usize,
    workers: usize,
    age: u64,
    stands_in: bool,
    /// The scoreboard: slots and calls.
    scoreboard: [i32; 2],
    /// Slots of the scoreboard.
    slots: usize,
    channel: i32,
    stacks: i32,
    tls: Option<Material>,
    error_log: LogState,
    access_log: Option<LogState>,
    /// Where the orders for a mold come from, if it is one.
    births: Option<i32>,
}

/// A listening socket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct ListenerState {
    fd: i32,
    own: bool,
    protocol: Protocol,
    is_encrypted: bool,
    address: AddressState,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum AddressState {
    Tcp(SocketAddr),
    Unix(OsString),
}

/// A log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct LogState {
    fd: i32,
    /// The socket of the system log, if it goes there.
    system_log: Option<OsString>,
}

impl LogState {
    fn of(sink: &Sink) -> Self {
        Self { fd: sink.as_fd().as_raw_fd(), system_log: sink.system_log().map(Into::into) }
    }

    fn adopt(self) -> io::Result<Arc<Sink>> {
        Sink::adopt(inherited(self.fd)?, self.system_log.map(PathBuf::from)).map(Arc::new)
    }
}

impl ListenerState {
    fn of(listener: &Listener) -> Self {
        let address = match listener.address() {
            Address::Tcp(address) => AddressState::Tcp(*address),
            Address::Unix(path) => AddressState::Unix(path.into()),
        };
        let (protocol, is_encrypted) = (listener.protocol(), listener.is_encrypted());
        Self { fd: listener.as_raw_fd(), own: listener.is_own(), protocol, is_encrypted, address }
    }

    fn adopt(self) -> io::Result<Listener> {
        let address = match self.address {
            AddressState::Tcp(address) => Address::Tcp(address),
            AddressState::Unix(path) => Address::Unix(path.into()),
        };
        Ok(Listener::shared(inherited(self.fd)?, address).owned(self.own).speaking(self.protocol).encrypted(self.is_encrypted))
    }
}

impl BirthState {
    fn of(boot: &Boot, title: &str) -> Self {
        Self {
            settings: Settings::clone(&boot.settings),
            title: title.to_owned(),
            listeners: boot.listeners.iter().map(ListenerState::of).collect(),
            queue: boot.queue.ends().map(|end| end.as_raw_fd()),
            slot: boot.slot,
            workers: boot.workers,
            age: boot.age,
            stands_in: boot.stands_in,
            scoreboard: boot.scoreboard.memory().map(|memory| memory.as_raw_fd()),
            slots: boot.scoreboard.slots(),
            channel: boot.channel.as_fd().as_raw_fd(),
            stacks: boot.stacks.as_raw_fd(),
            tls: boot.tls.clone(),
            error_log: LogState::of(&boot.log.sink()),
            access_log: boot.access.as_ref().map(|(sink, _)| LogState::of(sink)),
            births: boot.mold.as_ref().map(|mold| mold.births.as_fd().as_raw_fd()),
        }
    }

    /// Takes the descriptors over. The signals of the master's table are blocked since before exec.
    fn adopt(self, title: Option<Title>) -> io::Result<Boot> {
        let mold = self.births.map(|fd| Ok::<_, io::Error>(MoldBirth { births: BirthEnd::adopt(inherited(fd)?), title }));
        let [queue_in, queue_out] = self.queue.map(inherited);
        let [slots, calls] = self.scoreboard.map(inherited);
        let who = if self.births.is_some() { Who::Mold } else { Who::Worker(self.slot) };
        let log = Log::new(self.error_log.adopt()?, self.settings.log_level, who);
        let access = match self.access_log {
            Some(state) => {
                let format = Format::compile(&self.settings.access_format).map_err(|error| io::Error::other(error.0))?;
                Some((state.adopt()?, Arc::new(format)))
            }
            None => None,
        };
        let listeners = self.listeners.into_iter().map(ListenerState::adopt).collect::<io::Result<_>>()?;
        Ok(Boot {
            listeners,
            queue: Queue::adopt([queue_in?, queue_out?]),
            slot: self.slot,
            workers: self.workers,
            age: self.age,
            stands_in: self.stands_in,
            scoreboard: Arc::new(Scoreboard::adopt([slots?, calls?], self.slots, self.settings.all_threads())?),
            channel: WorkerEnd::adopt(inherited(self.channel)?),
            signals: Blocked::before_exec(),
            log,
            access,
            stacks: inherited(self.stacks)?.into(),
            tls: self.tls,
            settings: Arc::new(self.settings),
            mold: mold.transpose()?,
        })
    }
}

fn render(header: &BirthHeader, state: &BirthState) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(header)?;
    text.push(b'\n');
    serde_json::to_writer(&mut text, state)?;
    Ok(text)
}

fn read(text: &[u8], worker: u32) -> Result<(BirthHeader, BirthState), String> {
    let mut lines = text.splitn(2, |&byte| byte == b'\n');
    let (first, second) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let header: BirthHeader =
        serde_json::from_slice(first).map_err(|_| "this is not the state of a worker of tapster".to_owned())?;
    header.check(worker)?;
    let state = serde_json::from_slice(second).map_err(|error| format!("the state of the worker is damaged: {error}"))?;
    Ok((header, state))
}

/// The descriptors that the state names.
fn descriptors<'a>(boot: &'a Boot, sinks: &'a [Arc<Sink>]) -> Vec<BorrowedFd<'a>> {
    let mut fds: Vec<BorrowedFd<'_>> = boot.listeners.iter().map(AsFd::as_fd).collect();
    fds.extend(boot.queue.ends());
    fds.extend(boot.scoreboard.memory());
    fds.extend([boot.channel.as_fd(), boot.stacks.as_fd()]);
    fds.extend(boot.mold.as_ref().map(|mold| mold.births.as_fd()));
    fds.extend(sinks.iter().map(|sink| sink.as_fd()));
    fds
}

/// Makes this process, which is what a worker is but for its program, execute `program` as the worker, with the `signals`
/// blocked. Returns only when that failed: the channel, to say so.
pub fn execute(mut boot: Boot, title: &str, program: &Path, argv: &[OsString], signals: &[Signal]) -> (WorkerEnd, io::Error) {
    let error = match prepare(&boot, title, signals) {
        Ok(state) => {
            let sinks: Vec<Arc<Sink>> = boot.access.iter().map(|(sink, _)| sink.clone()).chain([boot.log.sink()]).collect();
            let blocked = std::mem::replace(&mut boot.signals, Blocked::before_exec());
            let mut keep = descriptors(&boot, &sinks);
            keep.push(state.as_fd());
            let number = OsString::from(state.as_raw_fd().to_string());
            exec(program, argv, (VARIABLE, OsStr::new(&number)), &keep, blocked)
        }
        Err(error) => error,
    };
    (boot.channel, error)
}

fn prepare(boot: &Boot, title: &str, signals: &[Signal]) -> io::Result<File> {
    let header = BirthHeader::of(process::id(), getppid().as_raw());
    let state = memory::constant(c"tapster-worker", &render(&header, &BirthState::of(boot, title))?)?;
    // Programs that the start of Python runs would inherit a mask of everything.
    boot.signals.narrow(signals)?;
    Ok(state)
}

/// Makes this program the worker whose state descriptor `number` has. The error is one line. Call it in the main thread.
pub fn adopt(number: i32) -> Result<Boot, String> {
    let failed = |error: io::Error| format!("{VARIABLE} {number}: {error}");
    let file = File::from(inherited(number).map_err(failed)?);
    let text = memory::read_constant(&file, SIZE_MAX).map_err(failed)?;
    let (header, state) = read(&text, process::id())?;
    // The kernel forgets it at exec of a program with capabilities (prctl(2), PR_SET_PDEATHSIG).
    let death: Signal = if state.births.is_some() { MASTER_OF_MOLD_DIED } else { MASTER_DIED };
    prctl::set_pdeathsig(death).map_err(|errno| failed(errno.into()))?;
    if getppid().as_raw() != header.master {
        // The master has died meanwhile: nobody waits for this process, and it is no error of anybody here.
        exit_now(0);
    }
    let mut title = Title::take();
    if let Some(title) = &mut title {
        title.set(&state.title);
    }
    state.adopt(title).map_err(|error| format!("the worker cannot take over what it is born with: {error}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;
    use crate::config::gunicorn::Source;
    use crate::config::hooks::{HookValue, Hooks};
    use crate::config::{AppSpec, Code};

    fn state() -> BirthState {
        let mut settings = Settings::default();
        let odd = || PathBuf::from(OsString::from_vec(b"/srv/\xff".to_vec()));
        settings.python.venv = Some(odd());
        settings.python.pythonpath = vec![odd(), "lib".into()];
        settings.app = AppSpec::Target { code: Code::File(odd()), callable: None, text: "x".into() };
        settings.env = vec![("A".into(), "b\n\"".into())];
        settings.hooks = Some(Hooks {
            source: Source::File(odd()),
            start: odd(),
            names: vec!["post_fork".into()],
            settings: vec![
                ("keepalive".into(), HookValue::Float(1.5)),
                ("bind".into(), HookValue::List(vec![":80".into()])),
                ("chdir".into(), HookValue::None),
            ],
        });
        BirthState {
            settings,
            title: "tapster: worker 3 [x]".into(),
            listeners: vec![
                ListenerState {
                    fd: 5,
                    own: true,
                    protocol: Protocol::Http,
                    is_encrypted: true,
                    address: AddressState::Tcp("[::1]:80".parse().unwrap()),
                },
                ListenerState {
                    fd: 6,
                    own: false,
                    protocol: Protocol::Http,
                    is_encrypted: true,
                    address: AddressState::Unix(OsString::from_vec(b"/run/\xfe".to_vec())),
                },
            ],
            queue: [7, 8],
            slot: 3,
            workers: 4,
            age: 17,
            stands_in: true,
            scoreboard: [9, 10],
            slots: 72,
            channel: 11,
            stacks: 12,
            tls: Some(Material { client_roots: "x\n".into(), ..Material::default() }),
            error_log: LogState { fd: 13, system_log: None },
            access_log: Some(LogState { fd: 14, system_log: Some("/dev/log".into()) }),
            births: Some(15),
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let header = BirthHeader::of(77, 76);
        assert_eq!(read(&render(&header, &state()).unwrap(), 77).unwrap(), (header, state()));
    }

    #[test]
    fn the_state_of_another_process_and_of_another_version_is_refused_before_the_rest_is_looked_at() {
        let with = |change: fn(&mut BirthHeader)| {
            let mut header = BirthHeader::of(77, 76);
            change(&mut header);
            let mut text = serde_json::to_vec(&header).unwrap();
            text.extend(b"\nanything");
            read(&text, 77).unwrap_err()
        };
        assert_eq!(with(|header| header.tapster_worker = 78), "the state is that of process 78");
        let changes: [fn(&mut BirthHeader); 4] = [
            |header| header.birth += 1,
            |header| header.channel += 1,
            |header| header.scoreboard += 1,
            |header| header.handoff += 1,
        ];
        for change in changes {
            assert!(with(change).contains("upgrade the running server (SIGUSR2)"));
        }
        assert!(with(|_| ()).starts_with("the state of the worker is damaged"));
    }

    #[test]
    fn what_is_no_state_is_refused() {
        for text in [&b""[..], b"{}\n{}", b"\xff", b"{\"tapster\":1}\n"] {
            assert_eq!(read(text, 77).unwrap_err(), "this is not the state of a worker of tapster");
        }
    }

    #[test]
    fn a_descriptor_that_was_opened_here_is_no_state() {
        let file = memory::constant(c"x", b"").unwrap();
        let refusal = |number: i32| adopt(number).err().expect("it must be refused");
        assert!(refusal(file.as_raw_fd()).contains("was not inherited"));
        assert!(refusal(1_000_000).contains("no such descriptor"));
    }
}
