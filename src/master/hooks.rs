//! The hook process as its parent sees it ([`crate::hooks`]): there while the generation that serves has functions for it, started
//! again when it dies. Nothing waits for it but the start of the server and its end, both within bounds.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{self, Child, ExitStatus};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};

use crate::channel::LogName;
use crate::config::Settings;
use crate::hooks::{HookBirth, HookEvent, HookReport, OPTION, receive, send};
use crate::log::error::{Log, Who};
use crate::log::sink::Sink;
use crate::sys::fd::add_flags;
use crate::sys::process::{Pid, close_elsewhere};
use crate::sys::scm::{self, Peeked};

use super::capture::{self, CapturePipe};
use super::command::Command;
use super::generations::Kit;
use super::logs::is_file;
use super::notify;

/// Room for events that wait for a function, in bytes of the kernel's accounting: some hundred.
const EVENTS_ROOM: usize = 256 * 1024;

/// Most events that wait for a process which is to be started.
const FIRST_MAX: usize = 256;

/// Longest time for `on_starting` where `--boot-timeout` sets no limit.
const STARTING_MAX: Duration = Duration::from_secs(600);

/// Longest time for `on_exit` at the end of the server, and for what waits before it.
const EXITING_MAX: Duration = Duration::from_secs(5);

/// Time that a process has to end whose socket is closed; then it is killed.
const ENDING_MAX: Duration = Duration::from_secs(5);

/// Pause before a process that has died is started again; doubled for each that has not lived for [`STEADY`].
const PAUSE_MIN: Duration = Duration::from_millis(500);

/// Longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// A process that has lived for so long was fit.
const STEADY: Duration = Duration::from_secs(60);

/// Keeps the hook process.
pub struct HookKeeper {
    command: Command,
    process: Option<HookProcess>,
    /// What the process prints, with `--capture-output`, until nobody can print any more or the next process starts.
    output: Option<CapturePipe>,
    /// When the next one is to be started.
    due: Option<Instant>,
    pause: Duration,
    /// Until when the server waits for its start.
    starting: Option<Instant>,
    /// What has happened while a process is to be started, and whether the server has been ready.
    first: Vec<HookEvent>,
    ready: bool,
    /// The workers wanted, as last told.
    workers: Option<usize>,
    /// Whether the server has just become this program.
    is_upgrade: bool,
    /// Whether the log knows that events are lost.
    lossy: bool,
}

struct HookProcess {
    child: Child,
    socket: Option<OwnedFd>,
    born: Instant,
    /// Whether it was told to end.
    dismissed: bool,
    /// When it is killed, if it is to end.
    kill_at: Option<Instant>,
}

impl HookProcess {
    /// Closes its socket; then it has to end.
    fn close(&mut self) {
        // It has only packets that it was not allowed to send.
        let _closed = self.socket.take().map(close_elsewhere);
        self.kill_at.get_or_insert(Instant::now() + ENDING_MAX);
    }
}

impl HookKeeper {
    /// Without a process; `command` is how the server was started.
    pub fn new(command: Command) -> Self {
        Self {
            command,
            process: None,
            output: None,
            due: None,
            pause: PAUSE_MIN,
            starting: None,
            first: Vec::new(),
            ready: false,
            workers: None,
            is_upgrade: false,
            lossy: false,
        }
    }

    /// The server starts. Whether it has to wait for [`Self::started`]. Errors are lines for the log.
    pub fn begin(&mut self, kit: &Kit, title: &str) -> Result<bool, String> {
        if self.ready || !is_wanted(&kit.settings) {
            return Ok(false);
        }
        let failed = |error: io::Error| format!("the process for the hooks cannot be started: {error}");
        self.spawn(kit, title).map_err(failed)?;
        let limit = kit.settings.boot_timeout;
        self.starting = Some(Instant::now() + if limit.is_zero() { STARTING_MAX } else { limit });
        self.tell_workers(kit.workers(), &kit.log);
        self.tell(HookEvent::Starting, &kit.log);
        Ok(true)
    }

    /// That of a server that has become another program, and has been ready before.
    pub fn adopt(command: Command, kit: &Kit) -> Self {
        let mut keeper = Self { ready: true, ..Self::new(command) };
        keeper.renew(kit);
        keeper.is_upgrade = true;
        keeper
    }

    /// What has come of the start, once; `None`: nothing yet, or it is over.
    pub fn started(&mut self) -> Option<Result<(), String>> {
        let until = self.starting?;
        let outcome = match self.report() {
            Some(HookReport::Done) => Ok(()),
            Some(HookReport::Failed(why)) => Err(why),
            None if self.process.as_ref().is_none_or(|process| process.socket.is_none()) => {
                Err("the process for the hooks has ended before on_starting was done".into())
            }
            None if until <= Instant::now() => Err("on_starting takes longer than --boot-timeout".into()),
            None => return None,
        };
        self.starting = None;
        Some(outcome)
    }

    /// Another generation serves: its functions take the place of those before.
    pub fn reload(&mut self, kit: &Kit) {
        // The reload that is a part of an upgrade: the process is of this program already.
        if !std::mem::take(&mut self.is_upgrade) {
            self.renew(kit);
            self.first.insert(0, HookEvent::Reloaded);
        }
    }

    /// Has a new process take the place of the one that there is.
    pub fn renew(&mut self, kit: &Kit) {
        self.pause = PAUSE_MIN;
        self.dismiss();
        self.first.clear();
        self.due = is_wanted(&kit.settings).then(Instant::now);
        let new = kit.workers();
        let old = self.workers.replace(new);
        self.first.extend((old.is_some() && old != Some(new)).then_some(HookEvent::Workers { new, old }));
    }

    /// Closes the socket of the process, which ends when it has done what waits there.
    fn dismiss(&mut self) {
        if let Some(process) = &mut self.process {
            process.dismissed = true;
            process.close();
        }
    }

    /// Tells the process what has happened, if there is one.
    pub fn tell(&mut self, event: HookEvent, log: &Log) {
        if event == HookEvent::Ready {
            self.ready = true;
        }
        let Some(socket) = self.process.as_ref().and_then(|process| process.socket.as_ref()) else {
            if self.due.is_some() && self.first.len() < FIRST_MAX && event != HookEvent::Ready {
                self.first.push(event);
            }
            return;
        };
        match send(socket, &event, &[]) {
            Ok(()) => self.lossy = false,
            Err(error) if is_full(&error) => {
                if !std::mem::replace(&mut self.lossy, true) {
                    log.warning(format_args!("a hook does not end; what happens meanwhile is lost to the hooks ({event:?})"));
                }
            }
            // It is dead, which its end will say.
            Err(_) => {}
        }
    }

    /// Tells how many workers are wanted, if that is new.
    pub fn tell_workers(&mut self, new: usize, log: &Log) {
        if self.workers != Some(new) {
            let old = self.workers.replace(new);
            self.tell(HookEvent::Workers { new, old }, log);
        }
    }

    /// Hands over the error log, opened again.
    pub fn tell_log(&self, kit: &Kit, log: &Log) {
        let Some(socket) = self.process.as_ref().and_then(|process| process.socket.as_ref()) else { return };
        let Some(sink) = kit.logs.for_worker(LogName::Error) else { return };
        if let Err(error) = send(socket, &HookEvent::NewLog, &[sink.as_fd()]) {
            log.error(format_args!("the hooks write their old log file on: {error}"));
        }
    }

    /// Whether this is its process.
    pub fn owns(&self, pid: Pid) -> bool {
        self.process.as_ref().is_some_and(|process| u32::try_from(pid.as_raw()) == Ok(process.child.id()))
    }

    /// What to wait for, besides SIGCHLD.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.socket().into_iter().chain(self.output.as_ref().map(AsFd::as_fd))
    }

    fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.process.as_ref()?.socket.as_ref().map(AsFd::as_fd)
    }

    /// Writes what the process has printed to the log.
    fn listen(&mut self, log: &Log) {
        self.output.take_if(|output| !output.read(log));
    }

    /// When [`Self::tick`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        let kill = self.process.as_ref().and_then(|process| process.kill_at);
        let due = self.due.filter(|_| self.process.is_none());
        [kill, due, self.starting].into_iter().flatten().min()
    }

    /// Takes in what the process says, its end, and deadlines. `title` is that of a new one.
    pub fn tick(&mut self, kit: &Kit, title: &str) {
        let (log, now) = (&kit.log, Instant::now());
        self.listen(log);
        if self.starting.is_none()
            && let Some(report) = self.report()
        {
            if let HookReport::Failed(why) = report {
                log.error(format_args!("{why}"));
            }
            // It ends after a failure, and has nothing else to say.
            self.process.iter_mut().for_each(HookProcess::close);
        }
        if let Some(process) = &mut self.process
            && process.kill_at.is_some_and(|at| at <= now)
        {
            process.kill_at = None;
            // Fails only if it has ended.
            let _ = process.child.kill();
        }
        self.bury(log, is_wanted(&kit.settings));
        if self.process.is_none() && self.due.is_some_and(|due| due <= now) {
            self.due = None;
            match self.spawn(kit, title) {
                Ok(()) => {
                    let events = std::mem::take(&mut self.first);
                    self.ready.then_some(HookEvent::Ready).into_iter().chain(events).for_each(|event| self.tell(event, log));
                }
                Err(error) => {
                    log.error(format_args!("the process for the hooks cannot be started: {error}"));
                    self.delay();
                }
            }
        }
    }

    /// Takes in the end of the process. It is started again if it was not asked to end.
    fn bury(&mut self, log: &Log, wanted: bool) {
        if self.starting.is_some() {
            // The server does not start.
            return;
        }
        let Some(process) = &mut self.process else { return };
        // Nobody else waits for it.
        let Ok(Some(status)) = process.child.try_wait() else { return };
        let (asked, lived) = (process.dismissed, process.born.elapsed());
        self.process = None;
        // Its last words.
        self.listen(log);
        if asked || !wanted || self.due.is_some() {
            return;
        }
        if lived >= STEADY {
            self.pause = PAUSE_MIN;
        }
        let pause = self.pause;
        self.delay();
        log.error(format_args!(
            "the process of the hooks {}; it is started again in {} s, and when_ready is called in it",
            ended(status),
            pause.as_secs_f64()
        ));
    }

    fn delay(&mut self) {
        self.due = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    /// The server ends: lets `on_exit` run, and ends the process.
    pub fn end(&mut self, log: &Log) {
        self.due = None;
        self.tell(HookEvent::Exiting, log);
        let until = Instant::now() + EXITING_MAX;
        let mut done = false;
        while !done && self.socket().is_some() && self.wait_until(until) {
            // It could not go on with a full pipe.
            self.listen(log);
            done = self.report().is_some();
        }
        if !done && self.socket().is_some() {
            log.warning(format_args!("hooks do not end in {} s: their process is killed", EXITING_MAX.as_secs()));
        }
        self.finish(if done { ENDING_MAX } else { Duration::ZERO }, log);
    }

    /// The master is about to become another program, which starts a process of its own: this one ends when it has done what
    /// waits, or is killed after [`ENDING_MAX`].
    pub fn leave(&mut self, log: &Log) {
        self.tell(HookEvent::Upgrading, log);
        self.due = None;
        self.dismiss();
    }

    /// Whether there is no process.
    pub fn is_gone(&self) -> bool {
        self.process.is_none()
    }

    /// The server cannot start.
    pub fn abandon(&mut self, log: &Log) {
        self.finish(Duration::ZERO, log);
    }

    /// Ends the process, which has so much time for what waits in its socket.
    fn finish(&mut self, time: Duration, log: &Log) {
        let Some(mut process) = self.process.take() else { return };
        process.close();
        let end = Instant::now() + time;
        // There is nothing to wait by but SIGCHLD, and the loop that takes it in is over.
        while Instant::now() < end && matches!(process.child.try_wait(), Ok(None)) {
            self.listen(log);
            std::thread::sleep(LOOK_EVERY);
        }
        self.listen(log);
        // It fails only if it has ended and was waited for. Where it sleeps in the kernel, its end may last: nobody waits for that.
        let _ = process.child.kill();
    }

    /// Whether something came from the process before that time.
    fn wait_until(&self, until: Instant) -> bool {
        let left = until.saturating_duration_since(Instant::now());
        let mut fds: Vec<_> = self.descriptors().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(count) => count > 0,
            Err(Errno::EINTR) => !left.is_zero(),
            Err(_) => false,
        }
    }

    /// The next report, without waiting. The socket is closed at its end, and when it says what no hook process says.
    fn report(&mut self) -> Option<HookReport> {
        let process = self.process.as_mut()?;
        let socket = process.socket.as_ref()?;
        let peeked = match scm::peek(socket, &mut [0]) {
            // Said once where it has left packets unread; what it has sent comes behind that.
            Err(error) if error.raw_os_error() == Some(Errno::ECONNRESET as i32) => scm::peek(socket, &mut [0]),
            peeked => peeked,
        };
        let report = match peeked {
            Err(error) if is_full(&error) => return None,
            // A hook process sends none, and the master takes none: the last close of a file may last.
            Ok(Peeked { descriptors: true, .. }) => None,
            Ok(_) => receive(socket).ok().flatten(),
            Err(_) => None,
        };
        match report {
            Some((report, _)) => Some(report),
            None => {
                process.close();
                None
            }
        }
    }

    fn spawn(&mut self, kit: &Kit, title: &str) -> io::Result<()> {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        setsockopt(&ours, sockopt::SndBuf, &EVENTS_ROOM)?;
        add_flags(&ours, nix::fcntl::OFlag::O_NONBLOCK)?;
        let settings = kit.directories.pin(&kit.settings);
        let sink = kit.logs.for_worker(LogName::Error).unwrap_or_else(|| kit.log.sink());
        let system_log = Sink::system_log(&sink).map(Into::into);
        let argv = self.command.with_option(OPTION);
        let mut command = process::Command::new(self.command.program());
        command.arg0(&argv[0]).args(&argv[1..]).stdin(theirs);
        let (reader, output) = settings.capture_output.then(capture::pipe).transpose()?.unzip();
        // An interpreter that starts finds out what its streams are: they are never changed under it.
        let printed = match output {
            Some(output) => output,
            // Those that wait for the caller's streams to be closed must not wait for it.
            None if settings.daemon && !is_file(&io::stderr()) => OpenOptions::new().write(true).open("/dev/null")?.into(),
            None => io::stderr().as_fd().try_clone_to_owned()?,
        };
        command.stdout(printed.try_clone()?).stderr(printed);
        notify::VARIABLES.iter().for_each(|name| _ = command.env_remove(name));
        command.envs(settings.env.iter().map(|(name, value)| (name, value)));
        let birth = HookBirth { workers: kit.workers(), master: process::id(), title: title.to_owned(), system_log, settings };
        send(&ours, &birth, &[sink.as_fd()])?;
        let child = command.spawn()?;
        kit.log.debug(format_args!("hooks started (pid {})", child.id()));
        self.lossy = false;
        let pid = Pid::from_raw(child.id().cast_signed());
        self.output = reader.map(|reader| CapturePipe::new(Who::Hooks, pid, reader));
        self.process = Some(HookProcess { child, socket: Some(ours), born: Instant::now(), dismissed: false, kill_at: None });
        Ok(())
    }
}

/// Pause between two looks at a process that is about to end.
const LOOK_EVERY: Duration = Duration::from_millis(5);

fn is_wanted(settings: &Settings) -> bool {
    settings.hooks.as_ref().is_some_and(|hooks| hooks.in_process().next().is_some())
}

fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(Errno::ENOBUFS as i32)
}

fn ended(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;

    match status.signal() {
        Some(number) => format!("was killed by {}", crate::sys::signals::name(number)),
        None => format!("has ended with exit code {}", status.code().unwrap_or_default()),
    }
}
