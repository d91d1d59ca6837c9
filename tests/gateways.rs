//! SCGI and uwsgi: by hand, and behind real web servers with the configurations of the manual page.

#[path = "gateways/ajp.rs"]
mod ajp;
#[path = "gateways/cgi.rs"]
mod cgi;
mod common;
#[path = "gateways/fastcgi.rs"]
mod fastcgi;
#[path = "gateways/front.rs"]
mod front;
#[path = "gateways/hostile.rs"]
mod hostile;
#[path = "gateways/records.rs"]
mod records;
#[path = "gateways/repeated.rs"]
mod repeated;
#[path = "gateways/spawned.rs"]
mod spawned;
#[path = "gateways/wire.rs"]
mod wire;

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::Value;

use common::client::{Address, Client, Response};
use common::server::{Running, Server};
use common::{SOON, wait_for};
use front::Front;
use wire::{scgi, uwsgi, with};

/// Requests on end through one front.
const REQUESTS: usize = 100;

/// A large answer and a large upload, in bytes.
const LARGE: usize = 20_000_000;

/// Where mod_jk writes, which packages of it set.
const JK_FILES: &str = "JkLogFile {temp}/jk.log\nJkShmFile {temp}/jk.shm\n";

/// Makes the head of a request.
type Encode = fn(&[(&str, &str)]) -> Vec<u8>;

/// The protocols, and how their heads are made.
const PROTOCOLS: [(&str, Encode); 2] = [("scgi", scgi), ("uwsgi", uwsgi)];

/// A server that speaks this protocol over TCP and a unix socket.
fn server(protocol: &str) -> Server {
    Server::new("probe").binds([format!("{protocol}:127.0.0.1:0"), format!("{protocol}:unix:{{temp}}/s")])
}

/// The whole answer on this connection as a response of HTTP.
#[track_caller]
fn answer(mut client: Client) -> Response {
    parse(&client.rest())
}

#[track_caller]
pub(crate) fn parse(bytes: &[u8]) -> Response {
    let end =
        common::client::find(bytes, b"\r\n\r\n").unwrap_or_else(|| panic!("no head: {:?}", bytes.escape_ascii().to_string()));
    let head: String = bytes[..end].iter().map(|byte| char::from(*byte)).collect();
    let (first, fields) = head.split_once("\r\n").unwrap_or((&head, ""));
    let status =
        first.strip_prefix("Status: ").or(first.strip_prefix("HTTP/1.1 ")).unwrap_or_else(|| panic!("no status: {first}"));
    let (code, reason) = status.split_once(' ').unwrap_or((status, ""));
    Response {
        version: "HTTP/1.1".into(),
        status: code.parse().expect("a status is a number"),
        reason: reason.into(),
        fields: fields.split("\r\n").filter_map(|line| line.split_once(": ")).map(|(n, v)| (n.into(), v.into())).collect(),
        body: bytes[end + 4..].to_vec(),
        complete: true,
    }
}

#[track_caller]
fn ask(address: &Address, request: &[u8]) -> Response {
    let mut client = Client::connect(address);
    client.send(request);
    answer(client)
}

#[test]
fn bytes_behind_a_request_whose_front_leaves_are_no_requests_in_the_log() {
    for (protocol, encode) in PROTOCOLS {
        let server = server(protocol);
        let path = server.temp().join("access").display().to_string();
        let options = ["--threads", "1", "--access-logfile", &path, "--access-logformat", "%(U)s %(s)s"];
        let server = server.options(options).start();
        let slow = encode(&with(&[("REQUEST_URI", "/sleep?ms=300"), ("QUERY_STRING", "ms=300")]));
        let mut first = server.connect();
        first.send(&slow);
        std::thread::sleep(Duration::from_millis(50));
        // It waits for the thread, and is left there.
        let mut second = server.connect();
        second.send([&slow[..], b"GET /forged HTTP/1.1\r\nHost: test\r\n\r\n"].concat());
        std::thread::sleep(Duration::from_millis(50));
        second.reset();
        assert_eq!(answer(first).status, 200);
        assert_eq!(ask(server.address(), &encode(&with(&[("REQUEST_URI", "/")]))).status, 200);
        let lines = wait_for("the last line", SOON, || {
            std::fs::read_to_string(&path).ok().filter(|text| text.contains("/ 200") && text.contains("499"))
        });
        assert!(!lines.contains("/forged"), "{lines}");
        server.stop();
    }
}

#[test]
fn a_request_is_served_whole_byte_by_byte_and_with_trailing_bytes() {
    for (protocol, encode) in PROTOCOLS {
        let server = server(protocol).start();
        for address in server.addresses() {
            let head = encode(&with(&[("REQUEST_METHOD", "POST"), ("REQUEST_URI", "/echo"), ("CONTENT_LENGTH", "5")]));
            let request = [&head[..], b"hello"].concat();
            let whole = ask(address, &request);
            assert_eq!((whole.status, whole.text().as_str()), (200, "hello"), "{protocol}");
            assert_eq!(whole.field("date"), None, "the front has its own");
            let mut slow = Client::connect(address);
            for byte in &request {
                slow.send([*byte]);
                std::thread::sleep(Duration::from_micros(200));
            }
            assert_eq!(answer(slow), whole);
            for cut in [1, 3, head.len() - 1, head.len(), head.len() + 1, request.len() - 1] {
                let mut client = Client::connect(address);
                client.send(&request[..cut]);
                std::thread::sleep(Duration::from_millis(2));
                client.send(&request[cut..]);
                assert_eq!(answer(client), whole, "{protocol} cut at {cut}");
            }
            assert_eq!(ask(address, &[&request[..], b"trailing bytes", &request].concat()), whole);
            let mut half = Client::connect(address);
            half.send(&request);
            half.finish_sending();
            assert_eq!(answer(half), whole, "a front that sends nothing more still reads");
        }
        server.stop();
    }
}

#[test]
fn the_application_and_both_logs_see_what_the_front_says() {
    for (protocol, encode) in PROTOCOLS {
        let server = server(protocol);
        let path = server.temp().join("access").display().to_string();
        let format = "%(h)s|%(r)s|%(s)s|%({x-request-id}i)s|%({content-type}o)s|%(a)s|%({REMOTE_USER}e)s";
        let server = server.options(["--access-logfile", &path, "--access-logformat", format]).start();
        let seen = ask(
            server.address(),
            &encode(&with(&[
                ("REQUEST_URI", "/caf%C3%A9/x?a=%2F"),
                ("SCRIPT_NAME", "/caf\u{e9}"),
                ("PATH_INFO", "/x"),
                ("QUERY_STRING", "a=%2F"),
                ("HTTP_X_REQUEST_ID", "id-1"),
                ("HTTP_USER_AGENT", "hand"),
                ("HTTP_COOKIE", "a=1"),
                ("HTTP_COOKIE", "b=2"),
                ("HTTP_X_A", "1"),
                ("HTTP_X_A", "2"),
                ("HTTP_PROXY", "http://evil"),
                ("HTTP_X_FORWARDED_PROTO", "http"),
                ("HTTPS", "on"),
                ("REMOTE_PORT", "4711"),
                ("REMOTE_USER", "ann"),
                ("SERVER_NAME", "front:8080"),
                ("SERVER_PORT", "8080"),
                ("SERVER_PROTOCOL", "HTTP/2.0"),
                ("wsgi.url_scheme", "evil"),
                ("wsgi.multithread", ""),
                ("UWSGI_FILE", "/evil"),
            ])),
        );
        let seen = seen.json();
        for (name, value) in [
            ("REQUEST_METHOD", "GET"),
            ("SCRIPT_NAME", "/caf\u{c3}\u{a9}"),
            ("PATH_INFO", "/x"),
            ("QUERY_STRING", "a=%2F"),
            ("REQUEST_URI", "/caf%C3%A9/x?a=%2F"),
            ("RAW_URI", "/caf%C3%A9/x?a=%2F"),
            ("HTTP_COOKIE", "a=1; b=2"),
            ("HTTP_X_A", "1,2"),
            ("HTTP_X_FORWARDED_PROTO", "http"),
            ("HTTPS", "on"),
            ("wsgi.url_scheme", "https"),
            ("REMOTE_ADDR", "192.0.2.7"),
            ("REMOTE_PORT", "4711"),
            ("REMOTE_USER", "ann"),
            ("SERVER_NAME", "front"),
            ("SERVER_PORT", "8080"),
            ("SERVER_PROTOCOL", "HTTP/2.0"),
        ] {
            assert_eq!(seen[name], value, "{protocol}: {name}: {seen}");
        }
        for name in ["HTTP_PROXY", "UWSGI_FILE", "HTTP_CONTENT_LENGTH"] {
            assert_eq!(seen[name], Value::Null, "{protocol}: {name}");
        }
        assert_eq!(seen["flags"]["wsgi.multithread"], false);
        let line = wait_for("a line of the access log", SOON, || {
            std::fs::read_to_string(&path).ok().filter(|line| line.ends_with('\n'))
        });
        assert_eq!(line, "192.0.2.7|GET /caf%C3%A9/x?a=%2F HTTP/2.0|200|id-1|application/json|hand|ann\n", "{protocol}");
        server.stop();
    }
}

#[test]
fn answers_have_the_shape_of_their_protocol() {
    for (protocol, encode) in PROTOCOLS {
        let server = server(protocol).expect_error("this was to happen").expect_error("this was to happen").start();
        let first = if protocol == "uwsgi" { "HTTP/1.1 " } else { "Status: " };
        let raw = |method: &str, uri: &str| {
            let mut client = server.connect();
            client.send(encode(&with(&[("REQUEST_METHOD", method), ("REQUEST_URI", uri)])));
            let bytes = client.rest();
            assert!(bytes.starts_with(first.as_bytes()), "{protocol}: {:?}", bytes.escape_ascii().to_string());
            parse(&bytes)
        };
        let hello = raw("GET", "/");
        assert_eq!((hello.reason.as_str(), hello.field("content-length"), hello.text().as_str()), ("OK", Some("6"), "hello\n"));
        for name in ["connection", "transfer-encoding", "date", "server"] {
            assert_eq!(hello.field(name), None);
        }
        let head = raw("HEAD", "/");
        assert_eq!((head.field("content-length"), head.body.len()), (Some("6"), 0));
        assert_eq!(raw("HEAD", "/no-length").body.len(), 0);
        let streamed = raw("GET", "/no-length");
        assert_eq!((streamed.field("transfer-encoding"), streamed.text().as_str()), (None, "one two three"));
        assert_eq!((raw("GET", "/no-content").status, raw("GET", "/not-modified").status), (204, 304));
        assert_eq!(raw("GET", "/big?n=300000").body.len(), 300_000);
        assert_eq!(raw("GET", "/redirect").field("location"), Some("/elsewhere?a=%2F"));
        let failed = raw("GET", "/failing");
        assert_eq!((failed.status, failed.field("connection")), (500, None));
        let mut broken = server.connect();
        broken.send(encode(&with(&[("REQUEST_URI", "/broken")])));
        let end = loop {
            match broken.fill() {
                Ok(1..) => {}
                end => break end,
            }
        };
        assert!(end.is_err(), "{protocol}: a broken answer ends with a reset: {end:?}");
        server.stop();
    }
}

#[test]
fn what_is_malformed_is_refused_and_logged_once() {
    for (protocol, encode) in PROTOCOLS {
        let server = server(protocol).start();
        let figures = || {
            let mut client = Client::connect(&server.control());
            client.send("GET /status.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            client.response().json()
        };
        let mut cases = vec![
            encode(&[("SCGI", "1"), ("CONTENT_LENGTH", "0")]),
            encode(&with(&[("REQUEST_METHOD", "G T")])),
            encode(&with(&[("CONTENT_LENGTH", "+5")])),
            encode(&with(&[("REQUEST_URI", "no slash")])),
            encode(&with(&[("QUERY_STRING", "a\nb")])),
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            b"\x16\x03\x01\x02\x00".to_vec(),
        ];
        if protocol == "scgi" {
            cases.extend([
                b"5:hello,".to_vec(),
                b"007:hello..,".to_vec(),
                b"2:a\0x".to_vec(),
                encode(&[("REQUEST_METHOD", "GET"), ("REQUEST_URI", "/")]),
            ]);
        } else {
            cases.extend([vec![22, 4, 0, 0, b'e', b'v', b'a', b'l'], vec![0, 3, 0, 0, 9, 0, b'x']]);
        }
        for case in &cases {
            let refused = ask(server.address(), case);
            assert_eq!(refused.status, 400, "{protocol}: {:?}", case.escape_ascii().to_string());
        }
        for name in ["HTTP_X", "HTTP_COOKIE", "CONTENT_TYPE"] {
            for value in ["a\r\nX-Evil: 1", "a\nb", "a\rb"] {
                let refused = ask(server.address(), &encode(&with(&[(name, value)])));
                assert_eq!(refused.status, 400, "{protocol}: {name}: {value:?}");
                assert!(refused.text().contains("control character"), "{}", refused.text());
            }
        }
        let long = "x".repeat(9000);
        assert_eq!(ask(server.address(), &encode(&with(&[("REQUEST_URI", &format!("/{long}"))]))).status, 414);
        assert_eq!(ask(server.address(), &encode(&with(&[("HTTP_X", &long)]))).status, 431);
        assert_eq!(ask(server.address(), &encode(&with(&[]))).status, 200, "the worker lives");
        wait_for("the count of the refusals", SOON, || {
            (figures()["queue"]["refused"]["malformed"] == cases.len() + 9).then_some(())
        });
        let log = server.stop();
        let text = log.text();
        let told = text.lines().filter(|line| line.contains("WARNING refused a request of 127.0.0.1: ")).count();
        assert_eq!(told, cases.len() + 9, "one line for each connection: {text}");
    }
}

#[test]
fn only_peers_that_may_are_served() {
    for (protocol, encode) in PROTOCOLS {
        let server = server(protocol).options(["--gateway-allow-from", "10.0.0.0/8"]).start();
        let request = encode(&with(&[]));
        let mut stranger = Client::connect(&server.addresses()[0]);
        let _ = stranger.try_send(&request);
        assert!(stranger.is_closed(), "{protocol}: {:?}", stranger.leftover());
        assert_eq!(ask(&server.addresses()[1], &request).text(), "hello\n");
        let log = server.stop();
        assert!(log.text().contains("closed a connection of 127.0.0.1: it is not in --gateway-allow-from"), "{}", log.text());
    }
}

#[test]
fn a_root_path_is_the_script_name_in_every_protocol() {
    let binds = ["127.0.0.1:0", "scgi:127.0.0.1:0", "uwsgi:127.0.0.1:0"];
    let server = Server::new("probe").binds(binds).options(["--root-path", "/shop/"]).start();
    for (target, path) in [("/shop/a%20b?q", "/a b"), ("/shop", ""), ("/shopping", "/shopping"), ("/", "/")] {
        if path != "/" {
            let seen = server.get(target).json();
            assert_eq!((&seen["SCRIPT_NAME"], &seen["PATH_INFO"]), (&"/shop".into(), &path.into()), "{seen}");
        }
        for ((_, encode), address) in PROTOCOLS.iter().zip(&server.addresses()[1..]) {
            if path != "/" {
                let seen = ask(address, &encode(&with(&[("REQUEST_URI", target)]))).json();
                assert_eq!((&seen["SCRIPT_NAME"], &seen["PATH_INFO"]), (&"/shop".into(), &path.into()), "{seen}");
            }
        }
    }
    server.stop();
}

#[test]
fn protocols_are_named_by_addresses_and_by_an_option() {
    let server = Server::new("probe").binds(["127.0.0.1:0", "http:127.0.0.1:0"]).options(["--protocol", "scgi"]).start();
    assert_eq!(ask(server.address(), &scgi(&with(&[]))).text(), "hello\n");
    assert_eq!(Client::connect(&server.addresses()[1]).get("/").text(), "hello\n");
    let log = server.stop();
    assert!(log.text().contains(" on scgi:127.0.0.1:"), "{}", log.text());
    Server::new("probe")
        .binds(["https:127.0.0.1:0"])
        .run_to_end()
        .failed(2, &["--bind https:127.0.0.1:0", "needs a certificate"]);
    Server::new("probe").options(["--protocol", "gopher"]).run_to_end().failed(2, &["--protocol gopher", "must be one of http"]);
    Server::new("probe")
        .binds(["fcgi:127.0.0.1:0"])
        .run_to_end()
        .failed(2, &["fastcgi, scgi, uwsgi, ajp", "did you mean fastcgi?"]);
    Server::new("probe").options(["--protocol", "fcgi"]).run_to_end().failed(2, &["did you mean fastcgi?"]);
}

/// What fronts do differently with the same request.
#[derive(Clone, Copy, Default)]
struct Habits {
    /// Uploads without a length are refused.
    needs_length: bool,
    /// What it shows of broken answers.
    cuts: Cuts,
    /// What becomes of an escaped slash.
    slash: Slash,
    /// Each request starts a process.
    single_use: bool,
    /// Slashes that follow each other are one.
    merges: bool,
}

/// Which cut answers a front's clients see to be cut in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Cuts {
    #[default]
    All,
    /// Those that have announced their length.
    WithLength,
    None,
}

/// What a front does with `%2F` in a path.
#[derive(Clone, Copy, Default)]
enum Slash {
    #[default]
    Decoded,
    Kept,
    Refused,
}

/// Every kind of request through the front.
#[track_caller]
fn assert_serves_through(front: &Front, habits: Habits) {
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
fn assert_streams_through(front: &Front) {
    let mut client = front.connect();
    client.send("GET /drip?n=4 HTTP/1.1\r\nHost: test\r\n\r\n");
    let dots = |bytes: &[u8]| {
        let body = common::client::find(bytes, b"\r\n\r\n").map_or(&b""[..], |end| &bytes[end..]);
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
fn assert_tells_of_clients_that_leave(front: &Front, single_use: bool) {
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
        let is_gone = single_use && !common::procfs::alive(process.parse().expect("a process id"));
        (rest == "closed\n" || is_gone).then_some(())
    });
}

/// What the front of a block of the page speaks to the server.
fn protocol_of(block: &str) -> &str {
    match block.split_once(' ').expect("front and protocol") {
        (_, "jk") => "ajp",
        (_, protocol) => protocol,
    }
}

fn behind(block: &str, habits: Habits, more: &[(&str, &str)]) {
    let mut server: Running = Server::new("probe")
        .binds([format!("{}:127.0.0.1:0", protocol_of(block))])
        .workers(2)
        .options(["--keep-alive", "75"])
        .start();
    for _ in 0..3 {
        server.expect_error("this was to happen");
    }
    let Some(front) = Front::start(block, server.address(), more) else { return };
    assert_serves_through(&front, habits);
    assert_streams_through(&front);
    assert_tells_of_clients_that_leave(&front, habits.single_use);
    drop(front);
    server.stop();
}

/// Each front with an application below a path: what the page says to write in the place of what. The server has `--root-path`.
const MOUNTED: [(&str, &[(&str, &str)]); 12] = [
    ("nginx fastcgi", &[("location / ", "location /shop ")]),
    ("nginx scgi", &[("location / ", "location /shop ")]),
    ("nginx uwsgi", &[("location / ", "location /shop ")]),
    ("apache fastcgi", &[("ProxyPass \"/\"", "ProxyPass \"/shop\""), ("/\" enablereuse", "/shop\" enablereuse")]),
    ("apache scgi", &[("ProxyPass \"/\"", "ProxyPass \"/shop\""), ("/\"\n", "/shop\"\n")]),
    ("apache uwsgi", &[("ProxyPass \"/\"", "ProxyPass \"/shop\""), ("/\"\n", "/shop\"\n")]),
    ("apache ajp", &[("ProxyPass \"/\"", "ProxyPass \"/shop\""), ("/\" ttl", "/shop\" ttl")]),
    ("apache jk", &[("JkMount /*", "JkMount /shop|/*"), ("", JK_FILES)]),
    ("lighttpd fastcgi", &[("( \"/\" =>", "( \"/shop\" =>")]),
    ("lighttpd scgi", &[("( \"/\" =>", "( \"/shop\" =>")]),
    ("haproxy fastcgi", &[]),
    ("caddy fastcgi", &[("reverse_proxy ", "reverse_proxy /shop* ")]),
];

#[test]
fn an_application_below_a_path_is_told_so_by_each_front() {
    for (block, more) in MOUNTED {
        let server = Server::new("probe").binds([format!("{}:127.0.0.1:0", protocol_of(block))]);
        let server = server.options(["--root-path", "/shop", "--keep-alive", "75"]).start();
        let Some(front) = Front::start(block, server.address(), more) else { return };
        for (target, path, query) in [
            ("/shop/a%20b/?x=%2F", "/a b/", "x=%2F"),
            ("/shop/caf%C3%A9", "/caf\u{c3}\u{a9}", ""),
            ("/shop/environ", "/environ", ""),
            ("/shop/", "/", ""),
            ("/shop", "", ""),
        ] {
            let answer = front.connect().get(target);
            assert_eq!(answer.status, 200, "{block} {target}: {answer:?}");
            if path == "/" {
                assert_eq!(answer.text(), "hello\n", "{block} {target}");
                continue;
            }
            let seen = answer.json();
            let found = ["SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "REQUEST_URI"].map(|name| seen[name].as_str());
            assert_eq!(found, [Some("/shop"), Some(path), Some(query), Some(target)], "{block} {target}: {seen}");
        }
        drop(front);
        server.stop();
    }
}

#[test]
fn nginx_is_served() {
    for protocol in ["fastcgi", "scgi", "uwsgi"] {
        behind(&format!("nginx {protocol}"), Habits::default(), &[]);
    }
}

#[test]
fn apache_is_served() {
    let habits = Habits { slash: Slash::Kept, merges: true, ..Habits::default() };
    let length = Habits { needs_length: true, ..habits };
    behind("apache fastcgi", habits, &[("", "ProxyTimeout 20\n")]);
    behind("apache scgi", length, &[("", "ProxyTimeout 20\n")]);
    behind("apache uwsgi", Habits { cuts: Cuts::WithLength, slash: Slash::Refused, ..length }, &[("", "ProxyTimeout 20\n")]);
    behind("apache ajp", Habits { slash: Slash::Decoded, ..habits }, &[("", "ProxyTimeout 20\n")]);
}

#[test]
fn mod_jk_is_served() {
    behind("apache jk", Habits { cuts: Cuts::WithLength, ..Habits::default() }, &[("", JK_FILES)]);
}

#[test]
fn lighttpd_is_served() {
    let stream = [("", "server.stream-response-body = 1\n")];
    let habits = Habits { merges: true, ..Habits::default() };
    behind("lighttpd fastcgi", habits, &stream);
    behind("lighttpd scgi", Habits { cuts: Cuts::WithLength, ..habits }, &stream);
    behind("lighttpd uwsgi", Habits { cuts: Cuts::WithLength, ..habits }, &stream);
}

#[test]
fn lighttpd_asks_by_ajp_and_cannot_send() {
    let server = Server::new("probe").binds(["ajp:127.0.0.1:0"]).workers(2).options(["--keep-alive", "75"]);
    let server = server.expect_error("this was to happen").start();
    let stream = [("", "server.stream-response-body = 1\n")];
    let Some(front) = Front::start("lighttpd ajp", server.address(), &stream) else { return };
    let mut client = front.connect();
    for n in 0..REQUESTS {
        assert_eq!(client.get("/").text(), "hello\n", "request {n}");
    }
    for (target, path, query) in [
        ("/a%20b/c?x=%2F&y", "/a b/c", "x=%2F&y"),
        ("/caf%C3%A9/?%C3%A9", "/caf\u{c3}\u{a9}/", "%C3%A9"),
        ("/x/y/z", "/x/y/z", ""),
    ] {
        let seen = front.connect().get(target).json();
        assert_eq!((&seen["SCRIPT_NAME"], &seen["PATH_INFO"]), (&"".into(), &path.into()), "{target}: {seen}");
        assert_eq!((&seen["QUERY_STRING"], &seen["REQUEST_URI"]), (&query.into(), &target.into()), "{target}: {seen}");
    }
    client.send("GET /environ HTTP/1.1\r\nHost: front.example\r\nCookie: a=1; b=2\r\nX-A: 1\r\nProxy: http://evil\r\n\r\n");
    let seen = client.response().json();
    for (name, value) in
        [("HTTP_COOKIE", "a=1; b=2"), ("HTTP_X_A", "1"), ("HTTP_HOST", "front.example"), ("REMOTE_ADDR", "127.0.0.1")]
    {
        assert_eq!(seen[name], value, "{name}: {seen}");
    }
    assert_eq!(seen["HTTP_PROXY"], Value::Null, "{seen}");
    assert_eq!(client.get(&format!("/big?n={LARGE}")).body.len(), LARGE);
    assert_eq!(client.get("/no-length").text(), "one two three");
    client.send("HEAD / HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.response_to("HEAD").status, 200);
    assert_eq!((client.get("/no-content").status, client.get("/not-modified").status), (204, 304));
    assert_eq!(front.connect().get("/failing").status, 500);
    assert_streams_through(&front);
    assert_tells_of_clients_that_leave(&front, false);
    let mut upload = front.connect();
    upload.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello");
    let refused = upload.response();
    assert_eq!(refused.status, 400, "{refused:?}");
    assert_eq!(front.connect().get("/").text(), "hello\n", "after all that");
    drop(front);
    let log = server.stop();
    assert!(log.text().contains("the two lengths of a packet of its body differ"), "{}", log.text());
}

#[test]
fn apache_sends_the_secret_and_asks_before_each_request() {
    let server =
        Server::new("probe").binds(["ajp:127.0.0.1:0"]).options(["--keep-alive", "75", "--ajp-secret", "s3cret"]).start();
    for (with, status) in [("ttl=60 ping=5 secret=s3cret", 200), ("ttl=60 secret=other", 403), ("ttl=60", 403)] {
        let Some(front) = Front::start("apache ajp", server.address(), &[("ttl=60", with)]) else { return };
        let mut client = front.connect();
        for _ in 0..20 {
            assert_eq!(client.get("/").status, status, "{with}");
        }
    }
    for (secret, status) in [("s3cret", 200), ("other", 403)] {
        let more = format!("{JK_FILES}JkWorkerProperty worker.tapster.secret={secret}\n");
        let Some(front) = Front::start("apache jk", server.address(), &[("", &more)]) else { return };
        let mut client = front.connect();
        for _ in 0..20 {
            assert_eq!(client.get("/").status, status, "mod_jk: {secret}");
        }
    }
    server.stop();
}

#[test]
fn haproxy_is_served() {
    // What does not fit into its buffer has no length for it.
    let habits = Habits { needs_length: true, slash: Slash::Decoded, ..Habits::default() };
    behind("haproxy fastcgi", habits, &[]);
    behind("haproxy fastcgi", habits, &[("option get-values", "option mpxs-conns")]);
}

#[test]
fn caddy_is_served() {
    behind("caddy fastcgi", Habits { cuts: Cuts::WithLength, ..Habits::default() }, &[]);
}

#[test]
fn the_example_for_users_of_flup_serves_behind_each_protocol() {
    let source = common::manual::example("# hello.py, by: tapster \\-b fastcgi:127.0.0.1:9000 hello");
    let server = Server::source(&source).binds(["fastcgi:127.0.0.1:0", "scgi:127.0.0.1:0", "ajp:127.0.0.1:0"]).start();
    let blocks = ["nginx fastcgi", "nginx scgi", "apache ajp"];
    for (block, address) in blocks.into_iter().zip(server.addresses()) {
        let Some(front) = Front::start(block, address, &[]) else { continue };
        let mut client = front.connect();
        assert_eq!(client.get("/").text(), "Hello world!\n", "{block}");
        assert_eq!(client.get("/?name=J%C3%B6rg").text(), "Hello J\u{f6}rg!\n", "{block}");
        client.send("POST /?name=x HTTP/1.1\r\nHost: test\r\nContent-Length: 8\r\n\r\nname=you");
        assert_eq!(client.response().text(), "Hello you!\n", "{block}");
    }
    server.stop();
}

#[test]
fn arguments_in_the_wrong_order_are_told_when_the_application_is_loaded() {
    let source = "def application(start_response, environ):\n\
                  \x20   start_response('200 OK', [('Content-Type', 'text/plain')])\n\
                  \x20   return [b'Hello World!']\n";
    let server =
        Server::source(source).binds(["fastcgi:127.0.0.1:0"]).expect_error("are its arguments in the wrong order?").start();
    let Some(front) = Front::start("nginx fastcgi", server.address(), &[]) else { return };
    assert_eq!(front.connect().get("/").status, 500);
    drop(front);
    let log = server.stop();
    assert!(log.text().contains("takes its arguments in the wrong order (start_response, environ)"), "{}", log.text());
}
