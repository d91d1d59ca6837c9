//! AJP by hand: connections that stay, bodies that are asked for, pings, secrets, what is malformed.

use std::time::Duration;

use serde_json::Value;

use crate::common::client::{Address, Client, Response};
use crate::common::server::{Running, Server};
use crate::common::{SOON, wait_for};

pub const GET: u8 = 2;
const HEAD: u8 = 3;
const POST: u8 = 4;
/// The method is named by an attribute.
const STORED: u8 = 0xFF;

/// Numbers of attributes.
const USER: u8 = 3;
const QUERY: u8 = 5;
const ATTRIBUTE: u8 = 10;
const SECRET: u8 = 12;
const METHOD: u8 = 13;

const PING: &[u8] = b"\x12\x34\x00\x01\x0a";
const PONG: &[u8] = b"AB\x00\x01\x09";

/// Types of packets from the server.
const BODY: u8 = 3;
const FIELDS: u8 = 4;
const END: u8 = 5;
const WISH: u8 = 6;

pub fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes(), b"\0"].concat()
}

fn packet(payload: &[u8]) -> Vec<u8> {
    [&[0x12, 0x34], &(payload.len() as u16).to_be_bytes()[..], payload].concat()
}

/// A part of a body.
fn part(bytes: &[u8]) -> Vec<u8> {
    packet(&[&(bytes.len() as u16).to_be_bytes()[..], bytes].concat())
}

/// A request without its body.
pub fn request(method: u8, uri: &str, fields: &[(&str, &str)], attributes: &[(u8, &str)]) -> Vec<u8> {
    let mut payload = vec![2, method];
    payload.extend([text("HTTP/1.1"), text(uri), text("192.0.2.7"), vec![0xFF, 0xFF], text("front")].concat());
    payload.extend([0x1F, 0x90, 0]);
    payload.extend((fields.len() as u16).to_be_bytes());
    payload.extend(fields.iter().flat_map(|(name, value)| [text(name), text(value)].concat()));
    payload.extend(attributes.iter().flat_map(|(number, value)| [vec![*number], text(value)].concat()));
    packet(&[&payload[..], &[0xFF]].concat())
}

fn post(uri: &str, length: usize) -> Vec<u8> {
    request(POST, uri, &[("Content-Length", &length.to_string())], &[])
}

/// One packet of the server: what it is, and the rest of it.
fn next(client: &mut Client) -> (u8, Vec<u8>) {
    let head = client.take(4);
    assert_eq!(&head[..2], b"AB", "{head:?}");
    let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
    assert!(len + 4 <= 8192, "a packet of {len} bytes");
    let mut payload = client.take(len);
    (payload.remove(0), payload)
}

fn number(rest: &mut &[u8]) -> u16 {
    let (number, after) = rest.split_first_chunk::<2>().expect("a number");
    *rest = after;
    u16::from_be_bytes(*number)
}

fn string(rest: &mut &[u8]) -> String {
    let len = usize::from(number(rest));
    let (text, after) = rest.split_at(len);
    assert_eq!(after.first(), Some(&0), "a text ends with NUL");
    *rest = &after[1..];
    text.iter().map(|byte| char::from(*byte)).collect()
}

fn head_of(payload: &[u8]) -> Response {
    let known = [
        "Content-Type",
        "Content-Language",
        "Content-Length",
        "Date",
        "Last-Modified",
        "Location",
        "Set-Cookie",
        "Set-Cookie2",
        "Servlet-Engine",
        "Status",
        "WWW-Authenticate",
    ];
    let mut rest = payload;
    let (status, reason, count) = (number(&mut rest), string(&mut rest), number(&mut rest));
    let fields = (0..count).map(|_| {
        let name = if let [0xA0, number, ..] = *rest {
            rest = &rest[2..];
            known[usize::from(number) - 1].to_owned()
        } else {
            string(&mut rest)
        };
        (name, string(&mut rest))
    });
    let fields = fields.collect();
    assert!(rest.is_empty(), "{rest:?}");
    Response { version: "HTTP/1.1".into(), status, reason, fields, body: Vec::new(), complete: false }
}

/// An answer, whether the connection stays open, and how often the front was told to send on what it has.
#[track_caller]
fn whole_answer(client: &mut Client) -> (Response, bool, usize) {
    let (kind, payload) = next(client);
    assert_eq!(kind, FIELDS, "{payload:?}");
    let (mut response, mut flushes) = (head_of(&payload), 0);
    loop {
        match next(client) {
            (BODY, payload) => {
                let len = usize::from(u16::from_be_bytes([payload[0], payload[1]]));
                // mod_proxy_ajp refuses a packet that is not exactly so.
                assert_eq!((payload.len(), payload.last()), (len + 3, Some(&0)));
                response.body.extend(&payload[2..2 + len]);
                flushes += usize::from(len == 0);
            }
            (END, payload) => {
                response.complete = true;
                return (response, payload == [1], flushes);
            }
            other => panic!("{other:?} in {response:?}"),
        }
    }
}

#[track_caller]
pub fn answer(client: &mut Client) -> Response {
    whole_answer(client).0
}

#[track_caller]
fn ask(address: &Address, bytes: &[u8]) -> Response {
    let mut client = Client::connect(address);
    client.send(bytes);
    answer(&mut client)
}

fn server() -> Server {
    Server::new("probe").binds(["ajp:127.0.0.1:0", "ajp:unix:{temp}/s"])
}

#[test]
fn requests_are_served_one_after_the_other_wherever_they_are_cut() {
    let server = server().start();
    for address in server.addresses() {
        let bytes = [post("/echo", 5), part(b"hello")].concat();
        let mut client = Client::connect(address);
        client.send(&bytes);
        let (whole, stays, flushes) = whole_answer(&mut client);
        assert_eq!((whole.status, whole.text().as_str(), stays, flushes), (200, "hello", true, 0));
        for name in ["date", "server", "connection", "transfer-encoding"] {
            assert_eq!(whole.field(name), None, "the front has its own {name}");
        }
        for byte in &bytes {
            client.send([*byte]);
        }
        assert_eq!(answer(&mut client), whole);
        for cut in 1..bytes.len() {
            client.send(&bytes[..cut]);
            if cut % 16 == 0 {
                std::thread::sleep(Duration::from_millis(2));
            }
            client.send(&bytes[cut..]);
            assert_eq!(answer(&mut client), whole, "cut at {cut}");
        }
        // Pipelined, with what fronts send between requests, and a beginning of the next.
        let get = request(GET, "/", &[], &[]);
        client.send([&bytes[..], PING, &get, b"\x12\x34\x00\x00", &bytes, &get[..7]].concat());
        assert_eq!(answer(&mut client), whole);
        assert_eq!(client.take(5), PONG);
        assert_eq!(answer(&mut client).text(), "hello\n");
        assert_eq!(answer(&mut client), whole);
        client.send([&get[7..], b"trailing bytes"].concat());
        assert_eq!(answer(&mut client).text(), "hello\n");
        assert!(client.is_closed(), "what is no packet ends the connection");
        let mut half = Client::connect(address);
        half.send(&bytes);
        half.finish_sending();
        assert_eq!(answer(&mut half), whole, "a front that sends nothing more still reads");
    }
    let log = server.stop();
    let told = log.text().lines().filter(|line| line.contains("it does not begin with a packet of AJP")).count();
    assert_eq!(told, 2, "{}", log.text());
}

#[test]
fn the_application_and_both_logs_see_what_the_front_says() {
    let server = server();
    let path = server.temp().join("access").display().to_string();
    let format = "%(h)s|%(r)s|%(s)s|%({x-request-id}i)s|%({content-type}o)s|%(a)s|%({REMOTE_USER}e)s";
    let server = server.options(["--access-logfile", &path, "--access-logformat", format]).start();
    let fields = [
        ("X-Request-ID", "id-1"),
        ("user-agent", "hand"),
        ("Cookie", "a=1"),
        ("Cookie", "b=2"),
        ("X-A", "1"),
        ("X-A", "2"),
        ("X_Under", "evil"),
        ("Proxy", "http://evil"),
        ("Content-Type", "text/x"),
    ];
    let attributes = [(USER, "ann"), (QUERY, "a=%2F"), (SECRET, "s"), (METHOD, "PURGE")];
    let mut bytes = request(STORED, "/caf%C3%A9/%2541", &fields, &attributes);
    let named = [("AJP_REMOTE_PORT", "4711"), ("MY_NAME", "x"), ("REMOTE_ADDR", "evil"), ("wsgi.url_scheme", "evil")];
    bytes.pop();
    for (name, value) in named {
        bytes.extend([vec![ATTRIBUTE], text(name), text(value)].concat());
    }
    bytes.push(0xFF);
    let len = (bytes.len() as u16 - 4).to_be_bytes();
    bytes[2..4].copy_from_slice(&len);
    // The byte that says that the client's connection is encrypted.
    let tls = bytes.windows(3).position(|bytes| bytes == [0x1F, 0x90, 0]).expect("the port") + 2;
    bytes[tls] = 1;
    let seen = ask(server.address(), &bytes).json();
    for (name, value) in [
        ("REQUEST_METHOD", "PURGE"),
        ("SCRIPT_NAME", ""),
        ("PATH_INFO", "/caf\u{c3}\u{a9}/%41"),
        ("QUERY_STRING", "a=%2F"),
        ("REQUEST_URI", "/caf%C3%A9/%2541?a=%2F"),
        ("RAW_URI", "/caf%C3%A9/%2541?a=%2F"),
        ("HTTP_COOKIE", "a=1; b=2"),
        ("HTTP_X_A", "1,2"),
        ("CONTENT_TYPE", "text/x"),
        ("HTTPS", "on"),
        ("wsgi.url_scheme", "https"),
        ("REMOTE_ADDR", "192.0.2.7"),
        ("REMOTE_PORT", "4711"),
        ("REMOTE_USER", "ann"),
        ("MY_NAME", "x"),
        ("SERVER_NAME", "front"),
        ("SERVER_PORT", "8080"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
    ] {
        assert_eq!(seen[name], value, "{name}: {seen}");
    }
    for name in ["HTTP_PROXY", "HTTP_X_UNDER", "HTTP_CONTENT_TYPE"] {
        assert_eq!(seen[name], Value::Null, "{name}");
    }
    let line =
        wait_for("a line of the access log", SOON, || std::fs::read_to_string(&path).ok().filter(|line| line.ends_with('\n')));
    assert_eq!(line, "192.0.2.7|PURGE /caf%C3%A9/%2541?a=%2F HTTP/1.1|200|id-1|application/json|hand|ann\n");
    server.stop();
}

#[test]
fn bodies_are_asked_for_up_to_their_end() {
    let server = server().start();
    let mut client = server.connect();
    let wish = |client: &mut Client| match next(client) {
        (WISH, wanted) => usize::from(u16::from_be_bytes([wanted[0], wanted[1]])),
        other => panic!("{other:?}"),
    };
    // The first packet comes by itself; the front gives less than it is asked for.
    client.send([post("/digest", 20_000), part(&[b'x'; 8186])].concat());
    let mut left = 20_000 - 8186;
    while left > 0 {
        let wanted = wish(&mut client);
        assert_eq!(wanted, left.min(8186));
        // A ping is answered in the middle, too.
        client.send([PING, &part(&vec![b'x'; wanted.min(5000)])].concat());
        assert_eq!(client.take(5), PONG);
        left -= wanted.min(5000);
    }
    assert!(answer(&mut client).text().starts_with("20000 "));
    // Without a length nothing comes by itself, and an empty packet is the end.
    let chunked = request(POST, "/environ", &[("Transfer-Encoding", "chunked")], &[]);
    for (parts, length) in [(&["hel", "lo"][..], Some("5")), (&[], None)] {
        client.send(&chunked);
        for part_of in parts {
            assert_eq!(wish(&mut client), 8186);
            client.send(part(part_of.as_bytes()));
        }
        assert_eq!(wish(&mut client), 8186);
        client.send(if length.is_some() { packet(b"") } else { part(b"") });
        let seen = answer(&mut client).json();
        assert_eq!((&seen["body"], seen["CONTENT_LENGTH"].as_str()), (&parts.concat().into(), length), "{seen}");
        assert_eq!(seen["HTTP_TRANSFER_ENCODING"], Value::Null);
    }
    client.send(post("/environ", 0));
    assert_eq!(answer(&mut client).json()["CONTENT_LENGTH"], "0", "nothing is asked for");
    // A client that has left: its body ends early.
    client.send([post("/environ", 6), part(b"hello")].concat());
    assert_eq!(wish(&mut client), 1);
    client.send(packet(b""));
    let (short, stays, _) = whole_answer(&mut client);
    assert_eq!((short.status, stays), (400, false));
    assert!(client.is_closed());
    server.stop();
}

#[test]
fn answers_have_the_shape_of_ajp() {
    let server = server().expect_error("this was to happen").expect_error("this was to happen").start();
    let mut client = server.connect();
    let mut get = |method: u8, uri: &str| {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        client.send(request(method, path, &[], &[(QUERY, query)]));
        whole_answer(&mut client)
    };
    let (hello, stays, flushes) = get(GET, "/");
    assert_eq!((hello.reason.as_str(), hello.field("content-length"), hello.text().as_str()), ("OK", Some("6"), "hello\n"));
    assert_eq!((stays, flushes), (true, 0));
    let (head, ..) = get(HEAD, "/");
    assert_eq!((head.field("content-length"), head.body.len()), (Some("6"), 0));
    assert_eq!(get(HEAD, "/no-length").0.body.len(), 0);
    let (streamed, _, flushes) = get(GET, "/no-length");
    assert_eq!(streamed.text(), "one two three");
    assert!(flushes >= 3, "each block is sent on by the front at once: {flushes}");
    assert_eq!((get(GET, "/no-content").0.status, get(GET, "/not-modified").0.status), (204, 304));
    for length in ["", "&length=0"] {
        assert_eq!(get(GET, &format!("/big?n=300000{length}")).0.body, vec![0; 300_000]);
    }
    assert_eq!(get(GET, "/redirect").0.field("location"), Some("/elsewhere?a=%2F"));
    let (failed, ..) = get(GET, "/failing");
    assert_eq!((failed.status, failed.field("connection")), (500, None));
    let mut broken = server.connect();
    broken.send(request(GET, "/broken", &[], &[]));
    let end = loop {
        match broken.fill() {
            Ok(1..) => {}
            end => break end,
        }
    };
    assert!(end.is_err(), "a broken answer ends with a reset: {end:?}");
    server.stop();
}

#[test]
fn a_file_and_blocks_of_any_size_come_whole() {
    let source = "import os, tempfile\n\
         data = bytes(range(256)) * 400\n\
         name = os.path.join(tempfile.mkdtemp(), 'f')\n\
         open(name, 'wb').write(data)\n\
         def application(environ, start_response):\n\
         \x20   kind = environ['PATH_INFO']\n\
         \x20   write = start_response('200 OK', [('Content-Length', str(len(data)))] if kind == '/length' else [])\n\
         \x20   if kind == '/file':\n\
         \x20       return environ['wsgi.file_wrapper'](open(name, 'rb'))\n\
         \x20   if kind == '/write':\n\
         \x20       write(data[:20000])\n\
         \x20       return [data[20000:]]\n\
         \x20   sizes = [1, 8183, 8184, 8185, 16384, 16385, 0, 30000]\n\
         \x20   ends = [sum(sizes[:n]) for n in range(len(sizes) + 1)]\n\
         \x20   return iter([data[a:b] for a, b in zip(ends, ends[1:])] + [data[ends[-1]:]])\n";
    let server = Server::source(source).binds(["ajp:127.0.0.1:0"]).start();
    let data: Vec<u8> = (0..=255).collect::<Vec<u8>>().repeat(400);
    let mut client = server.connect();
    for path in ["/file", "/write", "/blocks", "/length"] {
        client.send(request(GET, path, &[], &[]));
        assert!(answer(&mut client).body == data, "{path}");
    }
    server.stop();
}

#[test]
fn a_head_that_is_too_large_is_a_failure_that_the_log_tells() {
    let source = "def application(environ, start_response):\n\
         \x20   start_response('200 OK', [('X-Large', 'x' * int(environ['QUERY_STRING']))])\n\
         \x20   return [b'whole']\n";
    let server = Server::source(source).binds(["ajp:127.0.0.1:0"]).expect_error("as AJP has it").start();
    for (size, status) in [(8000, 200), (8190, 500), (70_000, 500), (8000, 200)] {
        let answer = ask(server.address(), &request(GET, "/", &[], &[(QUERY, &size.to_string())]));
        assert_eq!(answer.status, status, "{size}");
    }
    let log = server.stop();
    assert!(log.text().contains("and a packet at most 8192: send fewer or shorter headers"), "{}", log.text());
}

#[test]
fn pings_are_answered_while_requests_are_served_elsewhere() {
    let server = server().options(["--keep-alive", "30", "--header-timeout", "1"]).start();
    let mut busy = server.connect();
    busy.send(request(GET, "/sleep", &[], &[(QUERY, "ms=1500")]));
    let mut client = server.connect();
    for _ in 0..3 {
        let asked = std::time::Instant::now();
        client.send(PING);
        assert_eq!(client.take(5), PONG);
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    }
    // Longer than the time for a head: none has begun.
    assert_eq!(answer(&mut busy).status, 200);
    client.send(request(GET, "/", &[], &[]));
    assert_eq!(answer(&mut client).text(), "hello\n");
    server.stop();
}

#[test]
fn only_a_front_with_the_secret_is_served() {
    let server = server().env("TAPSTER_AJP_SECRET", "open sesame").start();
    for address in server.addresses() {
        let mut client = Client::connect(address);
        client.send(request(GET, "/", &[], &[(SECRET, "open sesame")]));
        assert_eq!(answer(&mut client).text(), "hello\n");
        for secret in [None, Some(""), Some("open sesam"), Some("open sesamf"), Some("open sesame ")] {
            let attributes: Vec<(u8, &str)> = secret.map(|secret| (SECRET, secret)).into_iter().collect();
            let mut client = Client::connect(address);
            client.send(request(GET, "/", &[], &attributes));
            let (refused, stays, _) = whole_answer(&mut client);
            assert_eq!((refused.status, stays), (403, false), "{secret:?}");
            assert!(client.is_closed());
        }
    }
    let log = server.stop();
    let text = log.text();
    let told = text.lines().filter(|line| line.contains("not that of --ajp-secret; is it that of this server?")).count();
    assert_eq!(told, 10, "one line for each connection: {text}");
    assert!(!text.contains("sesam"), "{text}");
}

#[test]
fn other_machines_need_a_secret() {
    for bind in ["ajp:0.0.0.0:0", "ajp::0", "ajp:[::]:0"] {
        Server::new("probe")
            .binds(["unix:{temp}/first", bind])
            .run_to_end()
            .failed(2, &["--bind", "needs a secret: give --ajp-secret"]);
    }
    let options = ["--ajp-secret", "x", "--gateway-allow-from", "127.0.0.1"];
    let server = Server::new("probe").binds(["ajp:0.0.0.0:0"]).options(options).start();
    let address = Address::Tcp(([127, 0, 0, 1], server.address().tcp().port()).into());
    assert_eq!(ask(&address, &request(GET, "/", &[], &[(SECRET, "x")])).text(), "hello\n");
    server.stop();
}

#[test]
fn what_is_malformed_is_refused_and_logged_once() {
    let server = server().start();
    let figures = || {
        let mut client = Client::connect(&server.control());
        client.send("GET /status.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        client.response().json()
    };
    // What shows no request has no answer.
    let closed: [&[u8]; 7] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"\x12\x34\x00\x01\x08",
        b"\x12\x34\x00\x02\x0a\x0a",
        b"\x12\x34\x00\x07\x00\x05hello",
        PONG,
        b"\x12\x35",
    ];
    for bytes in closed {
        let mut client = server.connect();
        client.send(bytes);
        assert!(client.is_closed(), "{:?}: {:?}", bytes.escape_ascii().to_string(), client.leftover());
    }
    let get = request(GET, "/", &[("X-A", "1")], &[(QUERY, "a")]);
    let mut short: Vec<Vec<u8>> = [5, 20, get.len() - 1].iter().map(|len| packet(&get[4..*len])).collect();
    short.extend([
        request(99, "/", &[], &[]),
        request(STORED, "/", &[], &[]),
        request(GET, "no slash", &[], &[]),
        request(GET, "/%zz", &[], &[]),
        request(GET, "/%00", &[], &[]),
        request(GET, "/", &[], &[(QUERY, "a\nb")]),
        request(GET, "/", &[("X-A", "a\r\nX-Evil: 1")], &[]),
        request(GET, "/", &[("X A", "1")], &[]),
        request(GET, "/", &[("", "1")], &[]),
        request(GET, "/", &[], &[(77, "1")]),
        request(POST, "/", &[("Content-Length", "+5")], &[]),
        request(POST, "/", &[("Content-Length", "5"), ("Content-Length", "5")], &[]),
        request(POST, "/", &[("Content-Length", "5"), ("Transfer-Encoding", "chunked")], &[]),
        [post("/echo", 5), packet(b"hello")].concat(),
        [post("/echo", 5), part(b"hello!")].concat(),
        [post("/echo", 5), b"GET / HTTP/1.1\r\n".to_vec()].concat(),
    ]);
    for bytes in &short {
        let mut client = server.connect();
        client.send(bytes);
        let (refused, stays, _) = whole_answer(&mut client);
        assert_eq!((refused.status, stays), (400, false), "{:?}", bytes.escape_ascii().to_string());
        assert!(client.is_closed());
    }
    let coding = request(POST, "/", &[("Transfer-Encoding", "gzip, chunked")], &[]);
    assert_eq!(ask(server.address(), &coding).status, 501);
    let long = "x".repeat(9000);
    assert_eq!(ask(server.address(), &request(GET, &format!("/{long}"), &[], &[])).status, 414);
    assert_eq!(ask(server.address(), &request(GET, "/", &[("X", &long)], &[])).status, 431);
    let many = vec![("X", "1"); 101];
    assert_eq!(ask(server.address(), &request(GET, "/", &many, &[])).status, 431);
    // Its length says more than the limit of a head; nothing of it has to come.
    let large = Server::new("probe").binds(["ajp:127.0.0.1:0"]).options(["--limit-request-head", "8192"]).start();
    assert_eq!(ask(large.address(), b"\x12\x34\xff\xff\x02").status, 431);
    large.stop();
    let alive: &Running = &server;
    assert_eq!(ask(alive.address(), &get).text(), "hello\n");
    let malformed = closed.len() + short.len();
    wait_for("the count of the refusals", SOON, || (figures()["queue"]["refused"]["malformed"] == malformed + 1).then_some(()));
    let log = server.stop();
    let told = log.text().lines().filter(|line| line.contains("WARNING refused a request of 127.0.0.1: ")).count();
    assert_eq!(told, malformed, "one line for each connection: {}", log.text());
}

#[test]
fn static_files_of_all_sizes_come_in_packets() {
    let server = server();
    let sizes = [0, 13, 8 * 1024, 16 * 1024, 16 * 1024 + 1, 65_536, 700_000];
    let content: Vec<u8> = (0..700_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let dir = server.temp().join("static");
    std::fs::create_dir(&dir).unwrap();
    for size in sizes {
        std::fs::write(dir.join(size.to_string()), &content[..size]).unwrap();
    }
    let map = format!("/static={}", dir.display());
    let server = server.options(["--static-map", &map]).start();
    for address in server.addresses() {
        let mut client = Client::connect(address);
        for size in sizes {
            client.send(request(2, &format!("/static/{size}"), &[], &[]));
            let whole = answer(&mut client);
            assert!(whole.status == 200 && whole.body == content[..size], "{size}: {whole:?}");
        }
        client.send(request(2, "/static/none", &[], &[]));
        assert_eq!(answer(&mut client).status, 404);
    }
    server.stop();
}
