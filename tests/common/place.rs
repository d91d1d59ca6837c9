//! One directory for everything that a test program puts into the temp directory. It is removed when the program has ended, in whatever
//! way: what is in a static is never dropped, and a program that is killed drops nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

/// The directory. From the first call on, `tempfile` makes its own in it.
pub fn dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(make)
}

/// A fresh directory in it, whose name begins so.
pub fn fresh(prefix: &str) -> TempDir {
    TempDir::with_prefix_in(prefix, dir()).expect("the temp directory is writable")
}

fn make() -> PathBuf {
    // A short name: those of sockets are below it.
    let dir = tempfile::Builder::new().prefix("tapster-").tempdir().expect("the temp directory is writable").keep();
    // Some servers are another user's.
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("the directory is ours");
    // Its standard input ends with this process. It has no part in the terminal's signals, nor in the output that somebody waits for.
    let mut remover = Command::new("/bin/sh");
    remover.args(["-c", r#"read -r _; rm -rf "$0""#]).arg(&dir).process_group(0);
    remover.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    std::mem::forget(remover.spawn().expect("the shell can be started"));
    tempfile::env::override_temp_dir(&dir).expect("nothing else chooses one");
    dir
}
