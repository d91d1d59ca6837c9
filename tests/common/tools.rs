//! Other people's programs that tests drive: found on PATH, skipped visibly when missing.

use std::env;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Time for one run of a program that fetches a few files.
pub const CLIENT_LIMIT: Duration = Duration::from_secs(120);

/// The program's path, or `None` after saying that the test is skipped. Under CI=true a missing program is a failure.
pub fn tool(name: &str) -> Option<PathBuf> {
    let found = env::split_paths(&env::var_os("PATH").unwrap_or_default())
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")])
        .map(|dir| dir.join(name))
        .find(|path| path.is_file());
    if found.is_none() {
        skip(&format!("{name} is not installed"));
    }
    found
}

/// Says that a test is skipped and why; under CI=true a skipped test is a failure.
pub fn skip(reason: &str) {
    let test = thread::current().name().unwrap_or("a test").to_owned();
    assert!(env::var("CI").as_deref() != Ok("true"), "{test} would be skipped: {reason}");
    eprintln!("SKIPPED: {test}: {reason}");
}

/// What a finished program left.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    /// Itself, if the program succeeded.
    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert!(self.status.success(), "{}\n{}\n{}", self.status, self.stdout, self.stderr);
        self
    }
}

/// Runs a program to its end; it is killed and the test fails after `limit`.
#[track_caller]
pub fn run(command: &mut Command, limit: Duration) -> Finished {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let stdout = reader(child.stdout.take().expect("stdout is piped"));
    let stderr = reader(child.stderr.take().expect("stderr is piped"));
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("the child is ours") {
            break status;
        }
        if began.elapsed() > limit {
            let _ = child.kill();
            let _ = child.wait();
            let (out, err) = (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default());
            panic!("{command:?} did not end within {limit:?}\n{out}\n{err}");
        }
        thread::sleep(super::LOOK_EVERY);
    };
    let text = |handle: thread::JoinHandle<String>| handle.join().expect("a reader does not panic");
    Finished { status, stdout: text(stdout), stderr: text(stderr) }
}

fn reader(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// The files below a directory by their names in it, links among them; links to directories are followed.
pub fn files_below(dir: &Path) -> Vec<String> {
    fn add(dir: &Path, within: &str, found: &mut Vec<String>) {
        for entry in fs::read_dir(dir.join(within)).expect("the directory can be read") {
            let name = entry.expect("the directory can be read").file_name();
            let name = format!("{within}{}", name.to_str().expect("names are UTF-8"));
            if dir.join(&name).is_dir() {
                add(dir, &format!("{name}/"), found);
            } else {
                found.push(name);
            }
        }
    }
    let mut found = Vec::new();
    add(dir, "", &mut found);
    found
}
