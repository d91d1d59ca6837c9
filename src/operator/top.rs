//! `tapster top`: the server in a terminal, drawn anew each second, and keys for what one wants to do at the sight of it.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use signal_hook::consts::{SIGHUP, SIGTERM};

use crate::status::Document;
use crate::status::screen::{self, View};
use crate::sys::terminal::{self, RawMode};

use super::{Done, OperatorFailure, code, orders, show};

/// Rates that are kept for the curve.
const RATES_MAX: usize = 120;

/// Time for the second look of a single frame.
const FIRST_LOOK: Duration = Duration::from_millis(500);

/// Another screen than the shell's, without a cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

const KEYS: &str = "q quit  p pause  s sort  enter requests  k stacks  R reload  + - workers";

/// What is drawn.
#[derive(Debug, PartialEq, Eq)]
enum Scene {
    /// The server.
    Server,
    /// The requests in the application.
    Requests,
    /// Stacks, as they were when they were asked for.
    Text(String),
}

/// The state of the program.
struct Top<'a> {
    socket: &'a Path,
    view: View,
    scene: Scene,
    now: Document,
    before: Option<Document>,
    paused: bool,
    /// The line above the keys.
    message: String,
}

/// Shows the server until the user has seen enough; once, where there is no terminal or only one frame is asked for.
pub fn run(socket: &Path, interval: Duration, once: bool) -> Result<Done, OperatorFailure> {
    let (stdin, stdout) = (io::stdin(), io::stdout());
    let now = show::document(socket)?;
    let size = terminal::size(&stdout);
    if once || size.is_none() || !stdin.is_terminal() {
        // Rates need two looks.
        std::thread::sleep(FIRST_LOOK);
        let view = View { width: size.map_or(View::default().width, |(columns, _)| columns.into()), ..View::default() };
        return Ok((code::OK, screen::frame(&show::document(socket)?, Some(&now), &view)));
    }
    let failed = |error: io::Error| OperatorFailure { code: code::FAILED, why: format!("the terminal cannot be used: {error}") };
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, ended.clone()).map_err(failed)?;
    }
    let _raw = RawMode::enter(&stdin).map_err(failed)?;
    let _screen = Screen::enter().map_err(failed)?;
    let mut top =
        Top { socket, view: View::default(), scene: Scene::Server, now, before: None, paused: false, message: String::new() };
    top.watch(interval, &ended).map_err(failed)?;
    Ok((code::OK, String::new()))
}

/// The other screen, until this is dropped.
struct Screen;

impl Screen {
    fn enter() -> io::Result<Self> {
        put(ENTER)?;
        Ok(Self)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that is gone.
        let _ = put(LEAVE);
    }
}

fn put(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

impl Top<'_> {
    fn watch(&mut self, interval: Duration, ended: &AtomicBool) -> io::Result<()> {
        let mut due = Instant::now() + interval;
        while !ended.load(Relaxed) {
            self.draw()?;
            if wait(due)? {
                let mut keys = [0; 16];
                let count = io::stdin().lock().read(&mut keys)?;
                match &keys[..count] {
                    // The terminal is gone.
                    [] => return Ok(()),
                    // A key that is a sequence (arrows) is none of ours.
                    [0x1b, _, ..] => {}
                    keys => {
                        if keys.iter().any(|key| !self.press(*key)) {
                            return Ok(());
                        }
                    }
                }
            }
            if Instant::now() >= due {
                due = Instant::now() + interval;
                self.look();
            }
        }
        Ok(())
    }

    /// Looks at the server again.
    fn look(&mut self) {
        if self.paused {
            return;
        }
        match show::document(self.socket) {
            Ok(document) => {
                if self.message.starts_with("no answer") {
                    self.message.clear();
                }
                let before = std::mem::replace(&mut self.now, document);
                if let Some(rate) = screen::rate(&self.now, &before) {
                    self.view.rates.push(rate);
                    let more = self.view.rates.len().saturating_sub(RATES_MAX);
                    self.view.rates.drain(..more);
                }
                self.before = Some(before);
            }
            Err(failure) => self.message = format!("no answer, the figures are old: {}", failure.why),
        }
    }

    /// Does what a key stands for; whether the program goes on.
    fn press(&mut self, key: u8) -> bool {
        /// What Ctrl-C sends in raw mode.
        const INTERRUPT: u8 = 3;
        const ESCAPE: u8 = 0x1b;
        if let Scene::Text(_) = self.scene {
            // Any key leads back.
            self.scene = Scene::Server;
            return key != INTERRUPT;
        }
        let wanted = self.now.capacity.workers_wanted;
        match key {
            b'q' | b'Q' | INTERRUPT | ESCAPE => return false,
            b'p' => {
                self.paused = !self.paused;
                self.message = if self.paused { "paused".to_owned() } else { String::new() };
            }
            b's' => {
                self.view.sort = self.view.sort.next();
                self.message = format!("workers by {}", self.view.sort.name());
            }
            b'\r' | b'\n' => self.scene = if self.scene == Scene::Requests { Scene::Server } else { Scene::Requests },
            b'k' => match show::stacks(self.socket, None, false) {
                Ok((_, text)) => self.scene = Scene::Text(text),
                Err(failure) => self.message = failure.why,
            },
            b'R' => self.say(orders::post(self.socket, "/reload")),
            b'+' => self.say(orders::post(self.socket, &format!("/workers?count={}", wanted + 1))),
            b'-' if wanted > 1 => self.say(orders::post(self.socket, &format!("/workers?count={}", wanted - 1))),
            b'-' => self.message = "the last worker stays".to_owned(),
            _ => self.message.clear(),
        }
        self.look();
        true
    }

    fn say(&mut self, outcome: Result<Done, OperatorFailure>) {
        self.message = match outcome {
            Ok((_, text)) => text.trim_end().to_owned(),
            Err(failure) => failure.why,
        };
    }

    fn draw(&mut self) -> io::Result<()> {
        let (columns, rows) = terminal::size(&io::stdout()).unwrap_or((80, 24));
        let (columns, rows) = (usize::from(columns), usize::from(rows));
        self.view.width = columns;
        let text = match &self.scene {
            Scene::Server => screen::frame(&self.now, self.before.as_ref(), &self.view),
            Scene::Requests => screen::requests(&self.now),
            Scene::Text(text) => text.clone(),
        };
        let keys = if let Scene::Text(_) = self.scene { "any key goes back" } else { KEYS };
        let mut out = String::from("\x1b[H");
        for line in text.lines().take(rows.saturating_sub(2)) {
            let line: String = line.chars().take(columns).collect();
            // Writing to a string cannot fail.
            let _ = write!(out, "{line}\x1b[K\r\n");
        }
        let cut = |text: &str| text.lines().next().unwrap_or_default().chars().take(columns).collect::<String>();
        let _ = write!(out, "\x1b[J\x1b[{};1H{}\x1b[K\r\n{}\x1b[K", rows.saturating_sub(1).max(1), cut(&self.message), cut(keys));
        put(&out)
    }
}

/// Waits for a key until then; whether there is one.
fn wait(until: Instant) -> io::Result<bool> {
    let stdin = io::stdin();
    let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    let left = until.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
    match poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
        Ok(count) => Ok(count > 0),
        // A window that has another size, or a signal that ends the program.
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}
