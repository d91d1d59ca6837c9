//! `tapster migrate`: what a configuration of gunicorn or uWSGI is here. What it prints is served.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::server::{Server, binary};

const USAGE: i32 = 2;

/// What is printed in this directory; the exit code is 0.
#[track_caller]
fn migrated(directory: &Path, args: &[&str]) -> String {
    let output = Command::new(binary()).arg("migrate").args(args).current_dir(directory).output().expect("the program starts");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[track_caller]
fn has(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|other| other.starts_with(line)), "{line:?} is not in\n{text}");
    }
}

const APP: &str = "import os\n\
                   def application(environ, start_response):\n    \
                   start_response('200 OK', [('Content-Type', 'text/plain')])\n    return [os.environ['WHO'].encode()]\n";

/// Writes the translation of a file into the directory of an application, and asks that.
#[track_caller]
fn served(name: &str, content: &str) -> (String, String) {
    let server = Server::source(APP);
    fs::write(server.temp().join(name), content).expect("writable");
    let toml = migrated(server.temp(), &[name]);
    fs::write(server.temp().join("tapster.toml"), &toml).expect("writable");
    let server = server.command_line(["--config", "tapster.toml"]).start();
    let answer = server.get("/").text().to_owned();
    assert_eq!(server.workers().len(), 2, "{toml}");
    server.stop();
    (toml, answer)
}

#[test]
fn a_file_of_gunicorn_becomes_one_of_toml() {
    let content = "import os\nbind = '127.0.0.1:0'\nworkers = 1 + 1\nwsgi_app = 'app'\nraw_env = ['WHO=gunicorn']\n\
                   worker_class = 'gthread'\nlogger_class = 'shop.Logger'\npaste = 'shop.ini'\ndef when_ready(server):\n    pass\n";
    let (toml, answer) = served("settings.py", content);
    assert_eq!(answer, "gunicorn");
    has(
        &toml,
        &[
            "bind = [\"127.0.0.1:0\"]",
            "workers = 2",
            "# Needs nothing here:",
            "#   worker_class = gthread (file settings.py line 6): ",
            "# Not carried over:",
            "#   logger_class = shop.Logger (file settings.py line 7): ",
            "#   paste = shop.ini (file settings.py line 8): ",
            "#   when_ready: a function has no place in TOML",
        ],
    );
}

#[test]
fn a_file_of_uwsgi_becomes_one_of_toml() {
    let content = "[uwsgi]\nmodule = app:application\nhttp-socket = 127.0.0.1:0\nmaster = true\nprocesses = 2\nenv = WHO=uwsgi\n\
                   cheaper = 1\nstatic-map = /static=.\nmount = h.test/=app\n";
    let (toml, answer) = served("shop.ini", content);
    assert_eq!(answer, "uwsgi");
    has(
        &toml,
        &[
            "timeout = 0  # its default",
            "#   master = true (line 4): there is always a master",
            "#   cheaper = 1 (line 7): the number of workers is fixed",
            "static_map = [\"/static=.\"]",
            "static_symlinks = \"beneath\"  # its default",
            "mount = [\"h.test:/=app\"]",
            "bind = [\"http:127.0.0.1:0\"]",
        ],
    );
}

#[test]
fn a_command_line_is_translated_and_strict_counts_what_is_lost() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("conf.py"), "import sys\nbacklog = 7\nproc_name = sys.argv[-1]\n").expect("writable");
    let line = ["--", "PORT=1", "/usr/bin/gunicorn", "-c", "conf.py", "-b", ":8000", "--preload", "-k", "gevent", "shop:app"];
    let toml = migrated(directory.path(), &line);
    has(
        &toml,
        &[
            "app = \"shop:app\"",
            "bind = [\":8000\"]",
            "backlog = 7",
            "name = \"shop:app\"",
            "workers = 1  # its default",
            "preload = true",
            "#   --worker-class gevent (command line): there are no greenlets",
        ],
    );
    let strict = |args: &[&str]| {
        let output = Command::new(binary()).args(["migrate", "--strict"]).args(args).current_dir(directory.path()).output();
        output.expect("the program starts").status.code()
    };
    assert_eq!(strict(&line), Some(USAGE));
    assert_eq!(strict(&["--", "gunicorn", "-w", "2", "--preload", "shop:app"]), Some(0));
}

#[test]
fn an_application_of_that_name_can_be_served() {
    let server = Server::source("");
    fs::write(server.temp().join("migrate.py"), APP).expect("writable");
    let server = server.env("WHO", "migrate").command_line(["migrate:application", "-b", "127.0.0.1:0"]).start();
    assert_eq!(server.get("/").text(), "migrate");
    server.stop();
}

#[test]
fn what_is_no_configuration_is_refused() {
    for (args, why) in [
        (&["migrate"][..], "migrate: write: tapster migrate"),
        (&["migrate", "--", "waitress-serve", "app:app"], "migrate: the command is not one of gunicorn"),
        (&["migrate", "no-such.ini"], "migrate: no-such.ini cannot be read: no such file or directory"),
        (&["migrate", "no-such.py"], "configuration file no-such.py: cannot be read: no such file or directory"),
    ] {
        let output = Command::new(binary()).args(args).output().expect("the program starts");
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(USAGE) && message.contains(why), "{args:?}: {message}");
    }
}

#[test]
fn addresses_certificates_and_keys_are_carried_over_together() {
    let dir = tempfile::tempdir().expect("the temp directory is writable");
    let files = [
        ("shop.ini", "[uwsgi]\nhttps = :443,c.pem,k.pem,HIGH,!ca.pem\nhttp = :80\nprocesses = zero\n"),
        (
            "settings.py",
            "certfile = 'c.pem'\nkeyfile = 'k.pem'\nca_certs = 'ca.pem'\ncert_reqs = 2\nbind = ':443'\nworkers = 'zero'\n",
        ),
    ];
    for (name, content) in files {
        fs::write(dir.path().join(name), content).expect("writable");
        let toml = migrated(dir.path(), &[name]);
        has(&toml, &["certfile = [\"c.pem\"]", "keyfile = [\"k.pem\"]", "ca_certs = \"ca.pem\"", "cert_reqs = ", "bind = [\""]);
        assert_eq!(toml.lines().filter(|line| line.contains("zero")).count(), 1, "{toml}");
        assert!(!toml.contains("needs a certificate"), "{toml}");
    }
}
