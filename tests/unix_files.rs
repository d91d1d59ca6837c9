//! The files of unix sockets: right from the moment of their creation, even if others may write to their directory, and removed
//! only by their server.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use nix::sys::signal::Signal;

use common::server::{STOP_LIMIT, Server};
use common::tools::tool;
use common::user;

/// A server whose workers are another user's.
fn server(other: &user::Other) -> Server {
    let server = Server::new("probe").options(["--user", user::NAME]);
    match other.python_home() {
        Some(home) => server.env("PYTHONHOME", home.to_str().expect("UTF-8")),
        None => server,
    }
}

fn owner(path: &Path) -> (u32, u32, u32) {
    let meta = fs::metadata(path).expect("it is there");
    (meta.permissions().mode() & 0o7777, meta.uid(), meta.gid())
}

#[test]
fn a_socket_gets_mode_and_owner_when_it_is_made_and_nothing_is_changed_by_a_name_after_it() {
    let (Some(other), Some(strace)) = (user::other(), tool("strace")) else { return };
    let (uid, gid) = (other.user.uid.as_raw(), other.user.gid.as_raw());
    for (umask, mode) in [(None, 0o777), (Some("0117"), 0o660)] {
        let server = server(&other).binds(["unix:{temp}/socket"]).options(umask.iter().flat_map(|mask| ["--umask", mask]));
        let dir = server.temp().to_owned();
        // Root itself may not be let in: what it makes in a directory of others must not depend on its group or mode.
        chown(&dir, Some(uid), Some(gid)).expect("we are root");
        let traces = tempfile::tempdir().expect("a temporary directory");
        let trace = traces.path().join("trace");
        let trace_text = trace.display().to_string();
        // The tracer is beside the server, which stays the child of the test.
        let calls = "trace=/^(f|l)?ch(mod|own)(at2?)?$,bind,umask";
        let server = server.launcher([strace.to_str().expect("UTF-8"), "-D", "-qq", "-e", calls, "-o", &trace_text]).start();
        assert_eq!(owner(&dir.join("socket")), (mode, uid, gid));
        assert_eq!(server.get("/").status, 200);
        server.stop();
        let trace = fs::read_to_string(&trace).expect("it is written");
        assert!(trace.contains("bind("), "{trace}");
        let changes: Vec<&str> = trace.lines().filter(|line| line.contains("chmod") || line.contains("chown")).collect();
        assert!(changes.is_empty(), "files are changed by their names: {changes:#?}");
    }
}

#[test]
fn a_socket_where_others_may_write_is_warned_of() {
    let Some(other) = user::other() else { return };
    for foreign in [false, true] {
        let server = server(&other).binds(["unix:{temp}/run/socket"]);
        let dir = server.temp().join("run");
        fs::create_dir(&dir).expect("the temp directory is writable");
        if foreign {
            chown(&dir, Some(other.user.uid.as_raw()), None).expect("we are root");
        }
        let server = server.start();
        assert_eq!(server.get("/").status, 200);
        let text = server.stop().text();
        assert_eq!(text.contains("run/socket: others may write to its directory, and could put"), foreign, "{text}");
    }
}

#[test]
fn a_directory_that_others_can_move_is_warned_of_too() {
    let Some(other) = user::other() else { return };
    let server = server(&other).binds(["unix:{temp}/theirs/ours/socket"]);
    let dir = server.temp().join("theirs/ours");
    let log = dir.join("error.log").display().to_string();
    fs::create_dir_all(&dir).expect("the temp directory is writable");
    chown(server.temp().join("theirs"), Some(other.user.uid.as_raw()), None).expect("we are root");
    let server = server.options(["--access-logfile", &log]).start();
    let text = server.stop().text();
    for file in ["ours/socket: others", "ours/error.log: others"] {
        assert!(text.contains(file), "{file}: {text}");
    }
}

#[test]
fn a_socket_file_is_removed_where_it_was_made_and_nowhere_else() {
    let server = Server::new("probe").binds(["unix:{temp}/run/socket"]);
    let (dir, moved, elsewhere) = (server.temp().join("run"), server.temp().join("moved"), server.temp().join("elsewhere"));
    fs::create_dir(&dir).and_then(|()| fs::create_dir(&elsewhere)).expect("the temp directory is writable");
    let mut server = server.start();
    fs::write(elsewhere.join("socket"), "precious").expect("the temp directory is writable");
    fs::rename(&dir, &moved).and_then(|()| symlink(&elsewhere, &dir)).expect("the temp directory is writable");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(STOP_LIMIT).code(), Some(0));
    assert_eq!(fs::read_to_string(elsewhere.join("socket")).expect("it is left alone"), "precious");
    server.finish();
}
