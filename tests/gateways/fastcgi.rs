//! FastCGI by hand: connections that stay, questions, requests in turn, aborts, what is malformed.

use std::time::Duration;

use crate::common::client::{Address, Client, Response};
use crate::common::server::{Running, Server};
use crate::parse;
use crate::records::{END, PARAMS, STDIN, STDOUT, begin, params, record, request};
use crate::wire::with;

/// Kinds of records beside those of a request and its answer.
const ABORT: u8 = 2;
const GET_VALUES: u8 = 9;

/// One record.
fn next(client: &mut Client) -> (u8, u16, Vec<u8>) {
    let head = client.take(8);
    let (len, padding) = (usize::from(u16::from_be_bytes([head[4], head[5]])), usize::from(head[6]));
    let mut content = client.take(len + padding);
    content.truncate(len);
    (head[1], u16::from_be_bytes([head[2], head[3]]), content)
}

/// The answer to this request, up to its end.
#[track_caller]
pub fn answer(client: &mut Client, id: u16) -> Response {
    let mut bytes = Vec::new();
    loop {
        match next(client) {
            (STDOUT, of, content) if of == id => bytes.extend(content),
            (END, of, content) if of == id => {
                assert_eq!(content, [0; 8], "it is complete");
                return parse(&bytes);
            }
            other => panic!("in the answer to {id}: {other:?}"),
        }
    }
}

fn server() -> Server {
    Server::new("probe").binds(["fastcgi:127.0.0.1:0", "fastcgi:unix:{temp}/s"])
}

#[track_caller]
fn ask(address: &Address, bytes: &[u8], id: u16) -> Response {
    let mut client = Client::connect(address);
    client.send(bytes);
    answer(&mut client, id)
}

#[test]
fn requests_are_served_one_after_the_other_wherever_they_are_cut() {
    let server = server().start();
    for address in server.addresses() {
        let post = [("REQUEST_METHOD", "POST"), ("REQUEST_URI", "/echo"), ("CONTENT_LENGTH", "5")];
        let bytes = request(7, 1, &post, b"hello");
        let whole = ask(address, &bytes, 7);
        assert_eq!((whole.text().as_str(), whole.field("date")), ("hello", None));
        let mut kept = Client::connect(address);
        for byte in &bytes {
            kept.send([*byte]);
        }
        assert_eq!(answer(&mut kept, 7), whole);
        for id in [1, 7, 0xFFFF] {
            kept.send(request(id, 1, &[("REQUEST_URI", "/")], b""));
            assert_eq!(answer(&mut kept, id).text(), "hello\n");
        }
        // Pipelined, with variables that are split anywhere, and late records of requests that are over.
        let split = [begin(3, 1, 1), params(3, &with(&[("REQUEST_URI", "/")]), 3), record(STDIN, 3, b"")].concat();
        kept.send([&bytes[..], &record(STDIN, 7, b"late"), &split, &bytes].concat());
        assert_eq!(answer(&mut kept, 7), whole);
        assert_eq!(answer(&mut kept, 3).text(), "hello\n");
        assert_eq!(answer(&mut kept, 7), whole);
        // Without KEEP_CONN the server closes.
        kept.send(request(9, 0, &[("REQUEST_URI", "/")], b""));
        assert_eq!(answer(&mut kept, 9).text(), "hello\n");
        assert!(kept.is_closed());
    }
    server.stop();
}

#[test]
fn a_failure_of_the_application_ends_its_request_and_not_the_connection() {
    let mut server = server().start();
    server.expect_error("this was to happen");
    for address in server.addresses() {
        let mut kept = Client::connect(address);
        for id in [1, 2, 3] {
            kept.send(
                [request(id, 1, &[("REQUEST_URI", "/failing")], b""), request(id, 1, &[("REQUEST_URI", "/")], b"")].concat(),
            );
            assert_eq!(answer(&mut kept, id).status, 500);
            assert_eq!(answer(&mut kept, id).text(), "hello\n");
        }
        kept.send(request(4, 0, &[("REQUEST_URI", "/failing")], b""));
        assert_eq!(answer(&mut kept, 4).status, 500);
        assert!(kept.is_closed());
    }
    server.stop();
}

#[test]
fn bodies_end_with_their_stream_and_their_length() {
    let server = server().start();
    let post = |length: &'static str, body: &[u8]| {
        let variables = [("REQUEST_METHOD", "POST"), ("REQUEST_URI", "/environ"), ("CONTENT_LENGTH", length)];
        ask(server.address(), &request(1, 1, &variables, body), 1)
    };
    let seen = |response: Response| {
        let seen = response.json();
        (seen["body"].as_str().map(str::to_owned), seen["CONTENT_LENGTH"].as_str().map(str::to_owned))
    };
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(seen(post("5", b"hello")), (text("hello"), text("5")));
    assert_eq!(seen(post("5", b"hello, world")), (text("hello"), text("5")), "what is beyond the length is cut off");
    assert_eq!(seen(post("", b"no length")), (text("no length"), text("9")));
    assert_eq!(seen(post("", b"")), (text(""), None));
    assert_eq!(seen(post("0", b"")), (text(""), text("0")));
    assert_eq!(post("6", b"hello").status, 400, "the client has left");
    let large = vec![b'x'; 5_000_000];
    let digest = [("REQUEST_METHOD", "POST"), ("REQUEST_URI", "/digest"), ("CONTENT_LENGTH", "5000000")];
    assert!(ask(server.address(), &request(1, 0, &digest, &large), 1).text().starts_with("5000000 "));
    let big = ask(server.address(), &request(1, 0, &[("REQUEST_URI", "/big?n=3000000"), ("QUERY_STRING", "n=3000000")], b""), 1);
    assert_eq!(big.body.len(), 3_000_000);
    server.stop();
}

#[test]
fn questions_are_answered_before_and_within_requests() {
    let server = server().start();
    let mut client = server.connect();
    let get = record(GET_VALUES, 0, b"\x0f\x00FCGI_MPXS_CONNS");
    let whole = request(1, 1, &[("REQUEST_URI", "/echo"), ("CONTENT_LENGTH", "5"), ("REQUEST_METHOD", "POST")], b"hello");
    let answered = (10, 0, b"\x0f\x01FCGI_MPXS_CONNS0".to_vec());
    client.send(&get);
    assert_eq!(next(&mut client), answered);
    for cut in [16, whole.len() - 24] {
        client.send([&whole[..cut], &get].concat());
        assert_eq!(next(&mut client), answered, "after {cut} bytes");
        client.send(&whole[cut..]);
        assert_eq!(answer(&mut client, 1).text(), "hello");
    }
    // The same, with requests in one send.
    client.send(
        [&get[..], &whole, &get, &whole[..16], &get, &whole[16..whole.len() - 8], &get, &whole[whole.len() - 8..]].concat(),
    );
    assert_eq!(next(&mut client), answered);
    assert_eq!(answer(&mut client, 1).text(), "hello");
    for _ in 0..3 {
        assert_eq!(next(&mut client), answered);
    }
    assert_eq!(answer(&mut client, 1).text(), "hello");
    client.send([&get[..], &request(1, 1, &[("REQUEST_URI", "/")], b"")].concat());
    assert_eq!(next(&mut client), answered);
    assert_eq!(answer(&mut client, 1).text(), "hello\n");
    client.send(record(99, 0, b""));
    assert_eq!(next(&mut client), (11, 0, vec![99, 0, 0, 0, 0, 0, 0, 0]));
    client.send(begin(2, 2, 1));
    assert_eq!(next(&mut client), (END, 2, vec![0, 0, 0, 0, 3, 0, 0, 0]), "an authorizer");
    client.send(request(3, 1, &[("REQUEST_URI", "/")], b""));
    assert_eq!(answer(&mut client, 3).text(), "hello\n");
    server.stop();
}

#[test]
fn requests_that_begin_together_are_all_served() {
    let server = server().start();
    let mut client = server.connect();
    let post = |id, body: &'static [u8]| {
        let variables = [("REQUEST_METHOD", "POST"), ("REQUEST_URI", "/echo"), ("CONTENT_LENGTH", "5")];
        (begin(id, 1, 1), params(id, &with(&variables), 0xFFF8), record(STDIN, id, body), record(STDIN, id, b""))
    };
    let (first, second) = (post(1, b"first"), post(3, b"third"));
    client.send([first.0, second.0, first.1, second.1, second.2].concat());
    client.send([first.2, first.3, second.3].concat());
    assert_eq!(answer(&mut client, 1).text(), "first");
    assert_eq!(answer(&mut client, 3).text(), "third");
    server.stop();
}

#[test]
fn an_abort_ends_its_request_and_not_the_connection() {
    let server = server();
    let path = server.temp().join("access").display().to_string();
    let server = server.options(["--access-logfile", &path, "--access-logformat", "%(h)s %(s)s"]).start();
    let mut client = server.connect();
    let whole = request(5, 1, &[("REQUEST_METHOD", "POST"), ("CONTENT_LENGTH", "5")], b"hello");
    for cut in [16, whole.len() - 24, whole.len() - 8] {
        client.send(&whole[..cut]);
        std::thread::sleep(Duration::from_millis(5));
        client.send(record(ABORT, 5, b""));
        assert_eq!(next(&mut client), (END, 5, vec![0; 8]), "after {cut} bytes");
    }
    client.send(record(ABORT, 77, b""));
    client.send(request(6, 1, &[("REQUEST_URI", "/")], b""));
    assert_eq!(answer(&mut client, 6).text(), "hello\n");
    let lines = crate::wait_for("lines of the log", crate::SOON, || {
        std::fs::read_to_string(&path).ok().filter(|text| text.lines().count() == 3)
    });
    assert_eq!(lines, "192.0.2.7 499\n192.0.2.7 499\n192.0.2.7 200\n");
    server.stop();
}

/// An endless stream, which says when it is closed.
const ENDLESS: &str = "import time\n\
     closed = 0\n\
     class Endless:\n\
     \x20   def __init__(self, block):\n\
     \x20       self.block = block\n\
     \x20   def __iter__(self):\n\
     \x20       while True:\n\
     \x20           time.sleep(0.005)\n\
     \x20           yield self.block\n\
     \x20   def close(self):\n\
     \x20       global closed\n\
     \x20       closed += 1\n\
     def application(environ, start_response):\n\
     \x20   start_response('200 OK', [])\n\
     \x20   size = environ['QUERY_STRING']\n\
     \x20   return Endless(b'.' * int(size)) if size else [str(closed).encode()]\n";

#[test]
fn an_abort_ends_a_streamed_answer_and_not_the_connection() {
    for threads in ["1", "4"] {
        let server = Server::source(ENDLESS).binds(["fastcgi:127.0.0.1:0", "fastcgi:unix:{temp}/s"]);
        let path = server.temp().join("access").display().to_string();
        let log = ["--threads", threads, "--access-logfile", &path, "--access-logformat", "%(s)s %(U)s"];
        let server = server.options(log).start();
        let mut ended = 0;
        for address in server.addresses() {
            // Small blocks, blocks of several records, and none at all.
            for size in ["1", "200000", "0"] {
                let (mut client, began) = (Client::connect(address), std::time::Instant::now());
                let stream = |id, flags| {
                    request(id, flags, &[("REQUEST_URI", "/stream"), ("PATH_INFO", "/stream"), ("QUERY_STRING", size)], b"")
                };
                let state = |id| request(id, 1, &[("REQUEST_URI", "/state"), ("PATH_INFO", "/state"), ("QUERY_STRING", "")], b"");
                let up_to_end = |client: &mut Client, id| loop {
                    match next(client) {
                        (STDOUT, of, _) if of == id => assert!(began.elapsed() < crate::SOON, "it has no end"),
                        other => {
                            assert_eq!(other, (END, id, vec![0; 8]), "{size}");
                            break;
                        }
                    }
                };
                client.send(stream(1, 1));
                if size != "0" {
                    assert_eq!(next(&mut client).0, STDOUT);
                }
                // Of another request, one that is over, and ours, cut.
                client.send(record(ABORT, 9, b""));
                client.send(&record(ABORT, 1, b"")[..5]);
                std::thread::sleep(Duration::from_millis(5));
                client.send(&record(ABORT, 1, b"")[5..]);
                up_to_end(&mut client, 1);
                // In one send, with the next request behind.
                client.send([stream(1, 1), record(ABORT, 1, b""), state(1)].concat());
                up_to_end(&mut client, 1);
                ended += 2;
                // A stream of another thread may be closed a moment later.
                let mut seen = answer(&mut client, 1).text();
                for _ in 0..100 {
                    if seen == ended.to_string() {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(10));
                    client.send(state(3));
                    seen = answer(&mut client, 3).text();
                }
                assert_eq!(seen, ended.to_string(), "{size}");
                client.send([stream(5, 0), record(ABORT, 5, b"")].concat());
                up_to_end(&mut client, 5);
                ended += 1;
                assert!(client.is_closed());
            }
        }
        let streams = crate::wait_for("lines of the log", crate::SOON, || {
            let text = std::fs::read_to_string(&path).ok()?;
            let streams: Vec<String> = text.lines().filter(|line| line.ends_with("/stream")).map(str::to_owned).collect();
            (streams.len() >= ended).then_some(streams)
        });
        assert!(streams.len() == ended && streams.iter().all(|line| line == "200 /stream"), "{streams:?}");
        server.stop();
    }
}

#[test]
fn answers_to_questions_are_for_those_who_have_asked() {
    let server = Server::new("probe").binds(["fastcgi:127.0.0.1:0", "127.0.0.1:0"]).options(["--threads", "1"]).start();
    let asked = record(GET_VALUES, 0, b"\x0f\x00FCGI_MPXS_CONNS");
    let slow = [("REQUEST_METHOD", "GET"), ("REQUEST_URI", "/sleep?ms=200"), ("QUERY_STRING", "ms=200")];
    let post = [("REQUEST_METHOD", "POST"), ("REQUEST_URI", "/echo"), ("CONTENT_LENGTH", "5")];
    let [front, other] = server.addresses() else { panic!("two addresses") };
    for request in [request(1, 1, &[("REQUEST_URI", "/")], b""), request(1, 1, &post, b"hello")] {
        // All threads are in the application, so the request waits.
        let mut before = Client::connect(front);
        before.send(self::request(9, 1, &slow, b""));
        std::thread::sleep(Duration::from_millis(50));
        let mut client = Client::connect(front);
        client.send([&asked[..], &request].concat());
        let beside: Vec<Client> = (0..3)
            .map(|_| {
                let mut client = Client::connect(other);
                client.send("GET /missing HTTP/1.1\r\nHost: test\r\n\r\n");
                client
            })
            .collect();
        let (kind, id, _) = next(&mut client);
        assert_eq!((kind, id), (10, 0));
        assert_eq!(answer(&mut client, 1).status, 200);
        for mut client in beside {
            assert!(client.response().status > 0, "it is an answer of HTTP");
        }
        answer(&mut before, 9);
    }
    server.stop();
}

#[test]
fn those_that_wait_are_served_after_an_abort() {
    let server = server().start();
    let first = request(5, 1, &[("REQUEST_METHOD", "POST"), ("CONTENT_LENGTH", "5")], b"hello");
    let others: Vec<u8> = [6, 7].into_iter().flat_map(|id| request(id, 1, &[("REQUEST_URI", "/")], b"")).collect();
    for cut in [16, first.len() - 24] {
        for pieces in [1, 3] {
            let mut client = server.connect();
            let sent = [&first[..cut], &others, &record(ABORT, 5, b"")].concat();
            for piece in sent.chunks(sent.len().div_ceil(pieces)) {
                client.send(piece);
            }
            assert_eq!(next(&mut client), (END, 5, vec![0; 8]), "after {cut} bytes");
            for id in [6, 7] {
                assert_eq!(answer(&mut client, id).text(), "hello\n", "after {cut} bytes in {pieces} pieces");
            }
        }
    }
    server.stop();
}

#[test]
fn an_abort_ends_a_connection_that_was_to_end_with_its_request() {
    let server = server().start();
    let whole = request(5, 0, &[("REQUEST_METHOD", "POST"), ("CONTENT_LENGTH", "5")], b"hello");
    for cut in [16, whole.len() - 24, whole.len() - 8] {
        let mut client = server.connect();
        client.send([&whole[..cut], &record(ABORT, 5, b"")].concat());
        assert_eq!(next(&mut client), (END, 5, vec![0; 8]), "after {cut} bytes");
        assert!(client.is_closed(), "after {cut} bytes");
    }
    server.stop();
}

#[test]
fn answers_are_whole_or_visibly_cut() {
    let server = server().expect_error("this was to happen").expect_error("this was to happen").start();
    let get = |method, uri| ask(server.address(), &request(1, 1, &[("REQUEST_METHOD", method), ("REQUEST_URI", uri)], b""), 1);
    assert_eq!((get("HEAD", "/").body.len(), get("HEAD", "/").field("content-length").map(str::to_owned)), (0, Some("6".into())));
    assert_eq!((get("HEAD", "/no-length").body.len(), get("GET", "/no-length").text()), (0, "one two three".into()));
    assert_eq!((get("GET", "/no-content").status, get("GET", "/not-modified").status), (204, 304));
    assert_eq!(get("GET", "/failing").status, 500);
    let mut broken = server.connect();
    broken.send(request(1, 1, &[("REQUEST_URI", "/broken")], b""));
    let end = loop {
        match broken.fill() {
            Ok(1..) => {}
            end => break end,
        }
    };
    assert!(end.is_err(), "it ends with a reset: {end:?}");
    server.stop();
}

#[test]
fn what_is_no_fastcgi_is_closed_and_logged() {
    let server = server().start();
    let closed = |bytes: &[u8]| {
        let mut client = server.connect();
        client.send(bytes);
        client.finish_sending();
        assert!(client.is_closed(), "{:?}: {:?}", bytes.escape_ascii().to_string(), client.leftover());
    };
    closed(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    closed(&[2, 1, 0, 1, 0, 0, 0, 0]);
    closed(&begin(0, 1, 1));
    let refused = |bytes: Vec<u8>| ask(server.address(), &bytes, 1).status;
    assert_eq!(refused([begin(1, 1, 1), begin(1, 1, 1)].concat()), 400);
    assert_eq!(
        refused([begin(1, 1, 1), record(PARAMS, 1, b"\xff\xff\xff\xff\x7f\xff\xff\xffab"), record(PARAMS, 1, b"")].concat()),
        400
    );
    assert_eq!(refused([begin(1, 1, 1), record(PARAMS, 1, b"")].concat()), 400);
    for value in ["a\r\nX-Evil: 1", "a\nb", "a\rb"] {
        assert_eq!(refused(request(1, 0, &[("REQUEST_URI", "/"), ("HTTP_X", value)], b"")), 400, "{value:?}");
    }
    let long = vec![b'x'; 60_000];
    assert_eq!(refused([begin(1, 1, 1), record(PARAMS, 1, &long), record(PARAMS, 1, &long)].concat()), 431);
    let alive: &Running = &server;
    assert_eq!(ask(alive.address(), &request(1, 0, &[("REQUEST_URI", "/")], b""), 1).text(), "hello\n");
    let log = server.stop();
    let told = log.text().lines().filter(|line| line.contains("WARNING refused a request of 127.0.0.1: ")).count();
    assert_eq!(told, 9, "one line for each connection: {}", log.text());
}

#[test]
fn static_files_of_all_sizes_come_in_records() {
    let server = server();
    let sizes = [0, 13, 16 * 1024, 16 * 1024 + 1, 65_535, 65_536, 700_000];
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
        for (id, size) in sizes.into_iter().enumerate().map(|(id, size)| (id as u16 + 1, size)) {
            let uri = format!("/static/{size}");
            client.send(request(id, 1, &[("REQUEST_URI", &uri)], b""));
            let whole = answer(&mut client, id);
            assert!(whole.status == 200 && whole.body == content[..size], "{size}: {whole:?}");
            client.send(request(id, 1, &[("REQUEST_URI", &uri), ("HTTP_IF_NONE_MATCH", "*")], b""));
            assert_eq!(answer(&mut client, id).status, 304, "{size}");
        }
        client.send(request(9, 1, &[("REQUEST_URI", "/static/none")], b""));
        assert_eq!(answer(&mut client, 9).status, 404);
    }
    server.stop();
}
