//! What every web server in front of the application has to pass on, and what each does in its own way.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::common::client::find;
use crate::common::{SOON, procfs, wait_for};
use crate::front::Front;

/// Requests on end through one front.
pub const REQUESTS: usize = 100;

/// A large answer and a large upload, in bytes.
pub const LARGE: usize = 20_000_000;

/// What fronts do differently with the same request.
#[derive(Clone, Copy, Default)]
pub struct Habits {
    /// Uploads without a length are refused.
    pub needs_length: bool,
    /// What it shows of broken answers.
    pub cuts: Cuts,
    /// What becomes of an escaped slash.
    pub slash: Slash,
    /// Each request starts a process.
    pub single_use: bool,
    /// Slashes that follow each other are one.
    pub merges: bool,
}

/// Which cut answers a front's clients see to be cut in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cuts {
    #[default]
    All,
    /// Those that have announced their length.
    WithLength,
    None,
}

/// What a front does with `%2F` in a path.
#[derive(Clone, Copy, Default)]
pub enum Slash {
    #[default]
    Decoded,
    Kept,
    Refused,
}

/// Every kind of request through the front.
#[track_caller]
pub fn assert_serves_through(front: &Front, habits: Habits) {
    let mut client = front.connect();
    for n in 0..if habits.single_use { 3 } else { REQUESTS } {
        let response = client.get("/");
        assert_eq!(response.text(), "hello\n", "request {n}: {response:?}");
    }
    let slash = match habits.slash {
        Slash::Decoded => ("/a%2Fb", "/a/b", ""),
        Slash::Kept => ("/a%2Fb", "/a%2Fb", ""),
        Slash::Refused => ("/a", "/a", ""),
    };
    for (target, path, query) in [
        slash,
        ("/a%20b/c?x=%2F&y", "/a b/c", "x=%2F&y"),
        ("/caf%C3%A9", "/caf\u{c3}\u{a9}", ""),
        ("/caf%C3%A9/?%C3%A9", "/caf\u{c3}\u{a9}/", "%C3%A9"),
        ("/a%2541", "/a%41", ""),
        ("/x/y/z", "/x/y/z", ""),
        ("//x//y/", if habits.merges { "/x/y/" } else { "//x//y/" }, ""),
    ] {
        let seen = front.connect().get(target).json();
        assert_eq!((&seen["SCRIPT_NAME"], &seen["PATH_INFO"]), (&"".into(), &path.into()), "{target}: {seen}");
        // By AJP there is one path alone.
        let is_merged = habits.merges && seen["REQUEST_URI"] == path;
        assert!(seen["QUERY_STRING"] == query && (seen["REQUEST_URI"] == target || is_merged), "{target}: {seen}");
        assert_eq!(seen["wsgi.url_scheme"], "http", "{seen}");
        assert!(
            seen["SERVER_NAME"].is_string() && seen["SERVER_PORT"].is_string() && seen["SERVER_PROTOCOL"] == "HTTP/1.1",
            "{seen}"
        );
    }
    client.send(
        "PUT /environ HTTP/1.1\r\nHost: front.example\r\nCookie: a=1; b=2\r\nX-A: 1\r\nContent-Type: text/x\r\n\
         Authorization: Basic YTpi\r\nProxy: http://evil\r\nContent-Length: 5\r\n\r\nhello",
    );
    let seen = client.response().json();
    for (name, value) in [
        ("REQUEST_METHOD", "PUT"),
        ("HTTP_COOKIE", "a=1; b=2"),
        ("HTTP_X_A", "1"),
        ("CONTENT_TYPE", "text/x"),
        ("CONTENT_LENGTH", "5"),
        ("HTTP_AUTHORIZATION", "Basic YTpi"),
        ("HTTP_HOST", "front.example"),
        ("body", "hello"),
    ] {
        assert_eq!(seen[name], value, "{name}: {seen}");
    }
    assert_eq!((&seen["HTTP_PROXY"], &seen["HTTP_CONTENT_LENGTH"]), (&Value::Null, &Value::Null), "{seen}");
    assert_eq!(client.get(&format!("/big?n={LARGE}")).body.len(), LARGE);
    assert_eq!(client.get(&format!("/big?n={LARGE}&length=0")).body.len(), LARGE);
    client.send(format!("POST /digest HTTP/1.1\r\nHost: test\r\nContent-Length: {LARGE}\r\n\r\n"));
    client.send(vec![b'x'; LARGE]);
    let by_length = client.response().text();
    assert!(by_length.starts_with(&format!("{LARGE} ")), "{by_length}");
    let mut chunked = front.connect();
    chunked.send(format!("POST /digest HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n{LARGE:x}\r\n"));
    let _ = chunked.try_send(&vec![b'x'; LARGE]).and_then(|()| chunked.try_send(b"\r\n0\r\n\r\n"));
    let chunked = chunked.response();
    assert_eq!(
        (matches!(chunked.status, 400 | 411), chunked.text() == by_length),
        (habits.needs_length, !habits.needs_length),
        "{chunked:?}"
    );
    let mut unread = front.connect();
    unread.send("POST /unread HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n");
    unread.send(vec![b'x'; 1_000_000]);
    assert_eq!(unread.response().text(), "unread\n");
    assert_eq!(client.get("/no-length").text(), "one two three");
    for (target, length) in [("/", true), ("/no-length", false)] {
        client.send(format!("HEAD {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
        let head = client.response_to("HEAD");
        assert!(head.status == 200 && (!length || head.field("content-length").is_none_or(|length| length == "6")), "{head:?}");
        assert_eq!(client.get("/").text(), "hello\n", "after HEAD {target}");
    }
    assert_eq!(client.get("/no-content").status, 204);
    assert_eq!(client.get("/not-modified").status, 304);
    let redirect = client.get("/redirect");
    assert!(
        redirect.status == 302 && redirect.field("location").is_some_and(|to| to.ends_with("/elsewhere?a=%2F")),
        "{redirect:?}"
    );
    assert_eq!(front.connect().get("/failing").status, 500);
    // What comes at once with its end, some fronts take for whole.
    for (target, shown) in
        [("/broken?pause=1", habits.cuts == Cuts::All), ("/broken?length=1&pause=1", habits.cuts != Cuts::None)]
    {
        // The last request of its connection: some fronts say no more of the cut than that they close, which they put off for long.
        let mut client = front.connect();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"));
        let broken = client.response();
        assert!(!broken.complete || matches!(broken.status, 502 | 503) || !shown, "{target}: {broken:?}");
    }
    assert_eq!(front.connect().get("/").text(), "hello\n", "after all that");
}

/// The blocks of an answer arrive when they are made: the first while others are still to come.
#[track_caller]
pub fn assert_streams_through(front: &Front) {
    let mut client = front.connect();
    client.send("GET /drip?n=4 HTTP/1.1\r\nHost: test\r\n\r\n");
    let dots = |bytes: &[u8]| {
        let body = find(bytes, b"\r\n\r\n").map_or(&b""[..], |end| &bytes[end..]);
        body.iter().filter(|byte| **byte == b'.').count()
    };
    while dots(client.leftover()) == 0 {
        assert!(client.fill().expect("bytes come in time") > 0, "{:?}", client.leftover().escape_ascii().to_string());
    }
    let first = dots(client.leftover());
    assert!(first < 4, "all blocks came together: {:?}", client.leftover().escape_ascii().to_string());
}

/// The application is told that a client has left; `single_use`: the process that has answered it ends.
#[track_caller]
pub fn assert_tells_of_clients_that_leave(front: &Front, single_use: bool) {
    let dir = tempfile::tempdir().expect("the temp directory is writable");
    // Some servers are another user's.
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).expect("the directory is ours");
    let notes = dir.path().join("notes");
    let mut client = front.connect();
    client.send(format!("GET /endless?note={} HTTP/1.1\r\nHost: test\r\n\r\n", notes.display()));
    while client.leftover().len() < 20_000 {
        assert!(client.fill().expect("bytes come in time") > 0, "the stream goes on");
    }
    drop(client);
    wait_for("the end of the stream", SOON, || {
        let notes = std::fs::read_to_string(&notes).ok()?;
        let (process, rest) = notes.split_once('\n')?;
        let is_gone = single_use && !procfs::alive(process.parse().expect("a process id"));
        (rest == "closed\n" || is_gone).then_some(())
    });
}
