//! CGI: one request for each process, by hand, and started by Apache and lighttpd.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use serde_json::Value;

use crate::common::client::Response;
use crate::common::server::{START_LIMIT, binary};
use crate::common::{apps, wait_for};
use crate::front::Front;
use crate::parse;
use crate::through::{
    Cuts, Habits, LARGE, Slash, assert_serves_through, assert_streams_through, assert_tells_of_clients_that_leave,
};

/// The variables of a plain request, and what a process needs.
const PLAIN: [(&str, &str); 9] = [
    ("GATEWAY_INTERFACE", "CGI/1.1"),
    ("REQUEST_METHOD", "GET"),
    ("REQUEST_URI", "/"),
    ("SCRIPT_NAME", ""),
    ("PATH_INFO", "/"),
    ("SERVER_PROTOCOL", "HTTP/1.1"),
    ("REMOTE_ADDR", "192.0.2.7"),
    ("PYTHONDONTWRITEBYTECODE", "1"),
    ("PATH", "/usr/bin:/bin"),
];

/// A program that answers one request.
struct Call {
    child: Child,
    stdout: thread::JoinHandle<Vec<u8>>,
    stderr: thread::JoinHandle<Vec<u8>>,
}

/// What it left.
struct Done {
    code: Option<i32>,
    stdout: Vec<u8>,
    stderr: String,
}

/// Reads all of it, beside the test.
fn reader(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

impl Call {
    fn start(dir: &Path, words: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(binary());
        command.args(words).current_dir(dir).env_clear().envs(PLAIN).envs(variables.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program can be started");
        let (stdout, stderr) = (child.stdout.take().expect("a pipe"), child.stderr.take().expect("a pipe"));
        Self { child, stdout: reader(stdout), stderr: reader(stderr) }
    }

    /// Sends the body, and leaves standard input open unless it is to be `closed`.
    #[track_caller]
    fn send(mut self, body: &[u8], closed: bool) -> Done {
        let mut input = self.child.stdin.take().expect("a pipe");
        // It may leave before it has read all.
        let _ = input.write_all(body);
        let open = (!closed).then_some(input);
        let child = &mut self.child;
        let status = wait_for("the end of the program", START_LIMIT, || child.try_wait().expect("it is ours"));
        drop(open);
        let text = |reader: thread::JoinHandle<Vec<u8>>| reader.join().expect("a reader does not panic");
        Done { code: status.code(), stdout: text(self.stdout), stderr: String::from_utf8_lossy(&text(self.stderr)).into_owned() }
    }
}

/// The answer of the application of tests to this request.
#[track_caller]
fn ask(variables: &[(&str, &str)], body: &[u8]) -> Response {
    let done = Call::start(&apps(), &["probe"], variables).send(body, false);
    assert!(done.stdout.starts_with(b"Status: "), "{:?}", done.stdout.escape_ascii().to_string());
    assert!(done.code == Some(0) || done.stderr.contains("this was to happen"), "{:?} {}", done.code, done.stderr);
    parse(&done.stdout)
}

#[track_caller]
fn get(path: &str) -> Response {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    ask(&[("PATH_INFO", path), ("QUERY_STRING", query)], b"")
}

#[test]
fn one_request_is_answered_from_the_environment() {
    let hello = get("/");
    assert_eq!((hello.reason.as_str(), hello.field("content-length"), hello.text().as_str()), ("OK", Some("6"), "hello\n"));
    for name in ["connection", "transfer-encoding", "date", "server"] {
        assert_eq!(hello.field(name), None);
    }
    let post = [("REQUEST_METHOD", "POST"), ("PATH_INFO", "/echo"), ("CONTENT_LENGTH", "5")];
    assert_eq!(ask(&post, b"hello and more").text(), "hello", "standard input need not end");
    let head = ask(&[("REQUEST_METHOD", "HEAD")], b"");
    assert_eq!((head.field("content-length"), head.body.len()), (Some("6"), 0));
    assert_eq!((get("/no-content").status, get("/not-modified").status), (204, 304));
    assert_eq!(get("/redirect").field("location"), Some("/elsewhere?a=%2F"));
    assert_eq!(get("/no-length").text(), "one two three");
    assert_eq!(get(&format!("/big?n={LARGE}")).body.len(), LARGE);
    let failed = get("/failing");
    assert_eq!((failed.status, failed.field("content-type")), (500, Some("text/plain; charset=utf-8")));
    let length = LARGE.to_string();
    let upload = [("REQUEST_METHOD", "POST"), ("PATH_INFO", "/digest"), ("CONTENT_LENGTH", length.as_str())];
    let large = ask(&upload, &vec![b'x'; LARGE]).text();
    assert!(large.starts_with(&format!("{LARGE} ")), "{large}");
    let chunked = [("REQUEST_METHOD", "POST"), ("PATH_INFO", "/digest"), ("HTTP_TRANSFER_ENCODING", "chunked")];
    let done = Call::start(&apps(), &["probe"], &chunked).send(&vec![b'x'; LARGE], true);
    assert_eq!(parse(&done.stdout).text(), large, "the web server has removed the chunks");
}

#[test]
fn the_application_sees_what_the_web_server_says() {
    let seen = ask(
        &[
            ("REQUEST_URI", "/app.cgi/a%20b?x=%2F"),
            ("SCRIPT_NAME", "/app.cgi"),
            ("PATH_INFO", "/a b"),
            ("QUERY_STRING", "x=%2F"),
            ("HTTP_COOKIE", "a=1; b=2"),
            ("HTTP_PROXY", "http://evil"),
            ("HTTPS", "on"),
            ("REMOTE_USER", "ann"),
            ("SERVER_NAME", "front"),
            ("SERVER_PORT", "8080"),
            ("wsgi.url_scheme", "evil"),
        ],
        b"",
    )
    .json();
    for (name, value) in [
        ("SCRIPT_NAME", "/app.cgi"),
        ("PATH_INFO", "/a b"),
        ("QUERY_STRING", "x=%2F"),
        ("REQUEST_URI", "/app.cgi/a%20b?x=%2F"),
        ("HTTP_COOKIE", "a=1; b=2"),
        ("wsgi.url_scheme", "https"),
        ("REMOTE_ADDR", "192.0.2.7"),
        ("REMOTE_USER", "ann"),
        ("SERVER_NAME", "front"),
        ("SERVER_PORT", "8080"),
    ] {
        assert_eq!(seen[name], value, "{name}: {seen}");
    }
    assert_eq!(seen["HTTP_PROXY"], Value::Null);
    let flags = &seen["flags"];
    let flags = ["wsgi.run_once", "wsgi.multiprocess", "wsgi.multithread"].map(|name| flags[name] == true);
    assert_eq!(flags, [true, true, false]);
    // The address of the program itself: web servers leave PATH_INFO out.
    let done = Command::new(binary())
        .args(["--cgi", "--chdir"])
        .arg(apps())
        .arg("probe")
        .env_clear()
        .envs(PLAIN.into_iter().filter(|(name, _)| *name != "PATH_INFO"))
        // It is the request's, not the option --root-path, which takes UTF-8 alone.
        .env("SCRIPT_NAME", OsStr::from_bytes(b"/caf\xE9"))
        .env("REQUEST_URI", "/caf%E9")
        .stdin(Stdio::null())
        .output()
        .expect("the program can be started");
    let seen = parse(&done.stdout).json();
    assert_eq!((&seen["SCRIPT_NAME"], &seen["PATH_INFO"]), (&"/caf\u{e9}".into(), &"".into()), "{seen}");
}

#[test]
fn what_is_printed_is_no_part_of_the_answer() {
    let dir = tempfile::tempdir().expect("the temp directory is writable");
    let source = r#"
import os, sys
print("printed at import", flush=True)
os.system("echo a child")

def application(environ, start_response):
    print("Status: 200 printed", flush=True)
    os.write(1, b"written\n")
    sys.stdout.write("without an end")
    assert sys.stdin is None or sys.stdin.read() == ""
    write = start_response("201 Created", [("Content-Type", "text/plain")])
    write(b"first ")
    return [b"second"]
"#;
    fs::write(dir.path().join("app.py"), source).expect("the temp directory is writable");
    let done = Call::start(dir.path(), &["app"], &[]).send(b"", false);
    let answer = parse(&done.stdout);
    assert_eq!((answer.status, answer.text().as_str(), done.code), (201, "first second", Some(0)), "{}", done.stderr);
    for printed in ["printed at import", "a child", "Status: 200 printed", "written", "without an end"] {
        assert!(done.stderr.contains(printed), "{printed}: {}", done.stderr);
    }
}

#[test]
fn a_child_that_the_application_forks_has_no_part_in_the_answer() {
    let dir = tempfile::tempdir().expect("the temp directory is writable");
    let source = r#"
import os, time

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    if os.fork() == 0:
        if environ["QUERY_STRING"] == "stay":
            os.closerange(0, 3)
            until = time.monotonic() + 20
            while not os.path.exists("answered"):
                if time.monotonic() > until:
                    open("late", "w").close()
                    break
                time.sleep(0.01)
        return [b"by the child"]
    if environ["QUERY_STRING"] != "stay":
        os.wait()
    return [b"by the parent"]
"#;
    fs::write(dir.path().join("app.py"), source).expect("the temp directory is writable");
    // The web server waits for the end of its pipes, which a child must not have that has closed its standard streams.
    for query in ["", "stay"] {
        let done = Call::start(dir.path(), &["app"], &[("QUERY_STRING", query)]).send(b"", true);
        let answer = parse(&done.stdout);
        assert_eq!((answer.status, answer.text().as_str(), done.code), (200, "by the parent", Some(0)), "{}", done.stderr);
    }
    assert!(!dir.path().join("late").exists(), "the pipes end before the child does");
    fs::write(dir.path().join("answered"), "").expect("the temp directory is writable");
}

#[test]
fn what_cannot_be_answered_has_a_status_a_line_on_standard_error_and_an_exit_code() {
    for (words, variables, status, code, line) in [
        (&["missing"][..], &[][..], 500, 4, "No module named `missing`"),
        (&["--workers", "many", "probe"], &[], 500, 2, "--workers many"),
        (&["probe"], &[("CONTENT_LENGTH", "+5")], 400, 0, "Content-Length is not a decimal number"),
        (&["probe"], &[("REQUEST_METHOD", "G T")], 400, 0, "REQUEST_METHOD is not a token"),
        (&["--limit-request-body", "4", "probe"], &[("CONTENT_LENGTH", "5")], 413, 0, "the body is longer than"),
        (&["probe"], &[("CONTENT_LENGTH", "5")], 400, 0, "the body ended before it was complete"),
        (&["probe"], &[("HTTP_TRANSFER_ENCODING", "gzip, chunked")], 501, 0, "the only transfer coding known here is chunked"),
        (&["probe"], &[("PATH_INFO", "/failing")], 500, 0, "RuntimeError: this was to happen"),
        (&["probe"], &[("PATH_INFO", "/broken")], 200, 1, "RuntimeError: this was to happen"),
    ] {
        let done = Call::start(&apps(), words, variables).send(b"", true);
        let answer = parse(&done.stdout);
        assert_eq!((answer.status, done.code), (status, Some(code)), "{words:?} {variables:?}: {}", done.stderr);
        assert!(done.stderr.contains(line), "{words:?} {variables:?}: {}", done.stderr);
    }
    let outside = Command::new(binary()).args(["--cgi", "probe"]).current_dir(apps()).stdin(Stdio::null()).output();
    let outside = outside.expect("the program can be started");
    assert_eq!((outside.status.code(), outside.stdout.len()), (Some(2), 0));
    assert!(String::from_utf8_lossy(&outside.stderr).contains("not the environment of a CGI program"));
}

#[test]
fn a_client_chooses_no_options() {
    let evil = ["--cgi", "probe", "--pythonpath", "/tmp"];
    for (words, query) in
        [(&evil[..], "--pythonpath+/tmp"), (&["--cgi", "probe", "--help"], "-%2dhelp"), (&["probe", "-h"], "-h")]
    {
        let done = Call::start(&apps(), words, &[("QUERY_STRING", query)]).send(b"", true);
        assert_eq!((parse(&done.stdout).status, done.code), (500, Some(2)), "{words:?}: {}", done.stderr);
        assert!(done.stderr.contains("words of the client's query"), "{}", done.stderr);
    }
    // A query without `=` is none of that by itself.
    let done = Call::start(&apps(), &["--cgi", "probe"], &[("QUERY_STRING", "--pythonpath+/tmp")]).send(b"", true);
    assert_eq!((parse(&done.stdout).status, done.code), (200, Some(0)), "{}", done.stderr);
}

#[test]
fn a_front_that_has_left_closes_the_stream() {
    let dir = tempfile::tempdir().expect("the temp directory is writable");
    let source = r#"
class Endless:
    def __iter__(self):
        return self
    def __next__(self):
        return bytes(65536)
    def close(self):
        open("closed", "w").close()

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return Endless()
"#;
    fs::write(dir.path().join("app.py"), source).expect("the temp directory is writable");
    let mut command = Command::new(binary());
    command.arg("app").current_dir(dir.path()).env_clear().envs(PLAIN).stdin(Stdio::null());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the program can be started");
    let mut output = child.stdout.take().expect("a pipe");
    output.read_exact(&mut [0; 1000]).expect("it answers");
    drop(output);
    let status = wait_for("the end of the program", START_LIMIT, || child.try_wait().expect("it is ours"));
    assert_eq!(status.code(), Some(1));
    assert!(dir.path().join("closed").exists());
}

#[test]
fn apache_starts_it_for_each_request() {
    let habits = Habits { slash: Slash::Kept, cuts: Cuts::None, single_use: true, merges: true, ..Habits::default() };
    let Some(front) = Front::spawning("apache cgi", &[("", "ScriptSock {temp}/cgisock\n")]) else { return };
    assert_serves_through(&front, habits);
    assert_streams_through(&front);
    assert_tells_of_clients_that_leave(&front, true);
}

#[test]
fn lighttpd_starts_it_for_each_request() {
    let habits = Habits { cuts: Cuts::WithLength, single_use: true, merges: true, ..Habits::default() };
    let Some(front) = Front::spawning("lighttpd cgi", &[("", "server.stream-response-body = 1\n")]) else { return };
    assert_serves_through(&front, habits);
    assert_streams_through(&front);
    assert_tells_of_clients_that_leave(&front, true);
}
