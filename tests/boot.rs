//! The boot of a worker: its imports, and the reports of its time.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use common::server::Server;
use common::{SOON, tools, venv};
use nix::sys::signal::Signal;

/// An application with a module that takes 300 ms to import.
const SLOW_IMPORT: &str =
    "import slow_part\n\n\ndef application(environ, start_response):\n    start_response('200 OK', [])\n    return []\n";

/// No worker could boot.
const EXIT_BOOT: i32 = 3;

fn with_slow_import() -> Server {
    let server = Server::source(SLOW_IMPORT);
    fs::write(server.temp().join("slow_part.py"), "import time\n\ntime.sleep(0.3)\n").expect("the temp directory is writable");
    server
}

#[test]
fn a_small_application_is_loaded_with_little_more_than_python_itself() {
    let source = "import sys\n\n\ndef application(environ, start_response):\n    start_response('200 OK', [])\n    \
                  return [' '.join(sys.modules).encode()]\n";
    let server = Server::source(source);
    // A package is started by a script of pip's.
    let (at, more) = match venv::given() {
        Some(at) => (at, "re, "),
        None => (server.temp().join("venv"), ""),
    };
    if venv::given().is_none() {
        // Without packages: those may import anything when Python starts (site, .pth files).
        venv::bare(&venv::base_python(), &at);
    }
    let server = server.options(["--venv", &at.display().to_string()]).start();
    let modules = server.get("/").text();
    let code = format!("import sys, {more}threading, faulthandler; print(*sys.modules)");
    let python = tools::run(Command::new(at.join("bin/python")).args(["-c", &code]), SOON).succeeded().stdout;
    server.stop();
    let known: BTreeSet<&str> = python
        .split_whitespace()
        .chain([
            "app",
            "tapster",
            "tapster._tapster",
            "tapster.__main__",
            // Empty until somebody asks for what is in them.
            "tapster.tornado",
            "tapster.wsgi",
            "tapster_children",
            "tapster_logs",
            "tapster_wakeup",
            "tapster_write_errors",
        ])
        .collect();
    let more: Vec<&str> = modules.split_whitespace().filter(|module| !known.contains(module)).collect();
    assert!(more.is_empty(), "also imported: {more:?}");
}

#[test]
fn the_boot_profile_names_the_slow_import_in_the_log_of_each_worker() {
    let server = with_slow_import().workers(2).options(["--boot-profile"]).start();
    let records = server.log().records();
    let profiles: Vec<_> = records.iter().filter(|record| record.text.contains(" boot profile: ")).collect();
    assert_eq!(profiles.len(), 2, "{records:#?}");
    for profile in profiles {
        let lines: Vec<&str> = profile.text.lines().collect();
        let [own, _, whole, _, name] = lines[1].split_whitespace().collect::<Vec<_>>()[..] else { panic!("{profile:?}") };
        let (own, whole): (f64, f64) = (own.parse().expect("a number"), whole.parse().expect("a number"));
        assert!(name == "app" && whole >= 300.0 && own < whole, "what it imports counts for the whole: {profile:?}");
        let slow = lines.iter().find(|line| line.ends_with(" slow_part")).unwrap_or_else(|| panic!("{profile:?}"));
        let own: f64 = slow.split_whitespace().next().and_then(|own| own.parse().ok()).expect("a number");
        assert!(own >= 300.0, "{slow}");
    }
    assert_eq!(server.get("/").status, 200);
    server.stop();
}

#[test]
fn check_config_prints_the_boot_profile_at_once() {
    let ended = with_slow_import().options(["--check-config", "--boot-profile"]).run_to_end();
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    assert!(ended.stderr.contains("boot profile: interpreter") && ended.stderr.contains("slow_part"), "{ended:#?}");
}

#[test]
fn a_failed_import_is_shown_without_the_frames_of_the_profile() {
    for (source, part) in [("import none_such_module\n", "none_such_module"), ("1 / 0\n", "ZeroDivisionError")] {
        let frames = |options: &[&str]| {
            let ended = Server::source(source).options(options).run_to_end();
            assert!(ended.stderr.contains(part), "{ended:#?}");
            ended.stderr.lines().filter(|line| line.starts_with("  File ")).count()
        };
        assert_eq!(frames(&["--check-config", "--boot-profile"]), frames(&["--check-config"]), "{part}");
    }
}

#[test]
fn a_slow_boot_is_named_with_where_its_time_went() {
    let slow = SLOW_IMPORT.replace("import slow_part", "import time\n\ntime.sleep(2)");
    let server = Server::source(&slow).start();
    let record = server.log().wait(&["slow boot: ", "--boot-profile"]).text;
    let time = record.split("slow boot: ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<f64>().ok());
    assert!(time.is_some_and(|seconds| seconds >= 2.0), "{record}");
    assert!(record.contains("interpreter and application, 0.") && record.contains(" s for --warmup"), "{record}");
    server.stop();
}

#[test]
fn a_quick_boot_is_not_worth_a_line() {
    let server = Server::new("hello").start();
    assert_eq!(server.log().find(&["slow boot"]), None);
    assert_eq!(server.log().find(&["boot profile"]), None);
    server.stop();
}

#[test]
fn a_worker_is_ready_when_nothing_is_left_that_can_fail() {
    let (mut ready, mut told) = (Vec::new(), false);
    // From too few for Python to more than an idle worker has.
    for files in 18..40 {
        let server = Server::new("hello:application").workers(1).options(["--threads", "4"]);
        let mut server = server.open_files(files).start_without_waiting();
        ready.push(server.becomes_ready());
        if ready.ends_with(&[true]) {
            server.signal(Signal::SIGTERM);
            assert_eq!(server.wait(SOON).code(), Some(0));
            assert_eq!(server.log().find(&["CRITICAL"]), None, "a worker failed that was ready");
        } else {
            assert_eq!(server.wait(SOON).code(), Some(EXIT_BOOT), "{}", server.log().text());
            told |= server.log().text().contains("cannot set up its event loop and threads: Too many open files");
        }
    }
    assert!(told && ready.is_sorted() && ready.ends_with(&[true]) && !ready[0], "{ready:?}");
}
