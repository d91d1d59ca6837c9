//! Projects with files that are named like modules of Python's standard library: the server says and does what it does elsewhere,
//! and the project's own imports find its own modules.

mod common;

use std::fs;
use std::path::Path;

use common::server::Server;
use common::{SOON, wait_for};

/// Modules that the server, or what it imports, needs: directly and for a case.
const NAMES: [&str; 8] = ["traceback", "token", "linecache", "tokenize", "threading", "ast", "inspect", "functools"];

/// The content of such a file in a project.
const OWN: &str = "MARK = 'own'\n";

const APP: &str = "
import os, sys, time
import tapster
def make(word):
    def app(environ, s):
        path = environ['PATH_INFO']
        if path == '/fail':
            try:
                {}['the cause']
            except KeyError as error:
                raise ValueError('what failed') from error
        if path == '/sleep':
            end = time.monotonic() + 60
            while time.monotonic() < end:
                time.sleep(.01)
        s('200 OK', [])
        return [getattr(__import__(path[1:]), 'MARK', 'the library').encode()]
    return app
application = make('')
";

/// Writes the project to this directory.
fn project(dir: &Path, name: &str) {
    fs::write(dir.join("app.py"), APP).expect("the temp directory is writable");
    fs::write(dir.join(format!("{name}.py")), OWN).expect("the temp directory is writable");
}

const FAILURE: [&str; 7] = [
    "GET /fail: the application raised an exception",
    "Traceback (most recent call last):",
    "app.py\", line 9, in app",
    "KeyError: 'the cause'",
    "The above exception was the direct cause of the following exception:",
    "app.py\", line 11, in app",
    "ValueError: what failed",
];

#[test]
fn a_module_of_the_project_hides_no_traceback_and_is_found_by_the_project() {
    for name in NAMES {
        let server = Server::source("").options(["--threads", "2"]).expect_error("ValueError: what failed");
        project(server.temp(), name);
        let server = server.start();
        assert_eq!(server.get("/fail").status, 500);
        let record = server.log().wait(&["what failed"]).text;
        for part in FAILURE {
            assert!(record.contains(part), "{part:?} is not in the record beside {name}.py:\n{record}");
        }
        // Modules that Python itself may have imported at its start are the library's, here as without the server.
        if !["threading", "functools"].contains(&name) {
            assert_eq!(server.get(&format!("/{name}")).text(), "own", "{name}");
        }
        server.stop();
    }
}

#[test]
fn a_request_is_interrupted_at_its_timeout_beside_such_modules() {
    for name in ["traceback", "token", "linecache", "threading"] {
        let server = Server::source("").options(["--timeout", "1"]).expect_error("interrupted at --timeout");
        project(server.temp(), name);
        let server = server.start();
        assert_eq!(server.get("/sleep").status, 504, "{name}");
        let record = server.log().wait(&["interrupted at --timeout"]).text;
        assert!(record.contains("in app") && record.contains("RequestTimeout"), "{name}: {record}");
        server.stop();
    }
}

#[test]
fn factories_files_and_other_directories_have_the_same() {
    for name in ["ast", "traceback", "inspect"] {
        for way in ["factory", "file", "pythonpath"] {
            let (app, options) = match way {
                "factory" => ("app:make('word')", vec![]),
                "file" => ("inner/app.py", vec![]),
                _ => ("app", vec!["--pythonpath", "inner"]),
            };
            let server = Server::new(app).options(options).expect_error("ValueError: what failed");
            let temp = server.temp().to_owned();
            let inner = if way == "factory" { temp.clone() } else { temp.join("inner") };
            fs::create_dir_all(&inner).expect("the temp directory is writable");
            project(&inner, name);
            let server = server.dir(&temp).start();
            assert_eq!(server.get("/fail").status, 500);
            let record = wait_for("the record", SOON, || server.log().find(&["what failed"])).text;
            assert!(FAILURE.iter().all(|part| record.contains(part)), "{name} by {way}: {record}");
            assert_eq!(server.get(&format!("/{name}")).text(), "own", "{way}");
            server.stop();
        }
    }
}

#[test]
fn a_directory_that_comes_on_the_path_later_hides_no_traceback() {
    let app = "
import os, sys
sys.path.insert(0, os.path.join(os.path.dirname(__file__), 'inner'))
import traceback
def app(environ, s):
    raise ValueError('what failed')
";
    let server = Server::source(app).expect_error("ValueError: what failed");
    let inner = server.temp().join("inner");
    fs::create_dir(&inner).expect("the temp directory is writable");
    fs::write(inner.join("traceback.py"), OWN).expect("the temp directory is writable");
    let server = server.start();
    assert_eq!(server.get("/").status, 500);
    let record = server.log().wait(&["what failed"]).text;
    for part in ["Traceback (most recent call last):", "app.py\", line 6, in app", "raise ValueError('what failed')"] {
        assert!(record.contains(part), "{record}");
    }
    server.stop();
}
