//! What an application returns, how it reaches the wire, and that `close()` is called once on every path.

mod wsgi_driver;

use tapster::worker::app::{Fate, Produced, Reply};
use wsgi_driver::{Answer, Sent, Server, Setup, with_python};

const GET: &str = "GET /path?q HTTP/1.1\r\nHost: testing\r\n\r\n";
const HEAD: &str = "HEAD /path HTTP/1.1\r\nHost: testing\r\n\r\n";
const OLD: &str = "GET /path HTTP/1.0\r\n\r\n";

/// An app whose iterable counts its own life: `make(...)` returns it, `CLOSED` and `STARTED` count.
const COUNTING: &str = "
STARTED = CLOSED = 0
class Blocks:
    def __init__(self, blocks):
        global STARTED
        STARTED += 1
        self.blocks = iter(blocks)
    def __iter__(self):
        return self
    def __next__(self):
        block = next(self.blocks)
        if isinstance(block, BaseException):
            raise block
        return block
    def close(self):
        global CLOSED
        CLOSED += 1
def app(environ, start_response):
    if environ['PATH_INFO'] == '/count':
        start_response('200 OK', [])
        return [b'%d %d' % (STARTED, CLOSED)]
    return serve(environ, start_response)
";

fn counting(serve: &str) -> Server {
    Server::new(&format!("{COUNTING}\ndef serve(environ, start_response):\n    {serve}\n"))
}

#[track_caller]
fn expect_closed_once(server: &mut Server) {
    assert_eq!(server.get("GET /count HTTP/1.1\r\nHost: h\r\n\r\n").body(), "1 1", "started and closed");
}

/// One request to an app with this body; answer and log.
#[track_caller]
fn serve(request: &'static str, app_body: &str) -> (Answer, String) {
    let source = format!("import sys\ndef app(environ, start_response):\n    {app_body}\n");
    with_python(move || {
        let mut server = Server::new(&source);
        let answer = server.get(request);
        (answer, server.log())
    })
}

#[track_caller]
fn get(app_body: &str) -> (Answer, String) {
    serve(GET, app_body)
}

#[test]
fn one_block_leaves_with_its_length_in_one_step() {
    for result in ["[b'hello']", "(b'hello',)"] {
        let (answer, log) = get(&format!("start_response('200 OK', [('A', 'b')])\n    return {result}"));
        answer.expect_ok("hello");
        assert_eq!((answer.steps, answer.field("Content-Length").as_deref(), log.as_str()), (0, Some("5"), ""));
        assert_eq!(answer.summary.sent, 5);
        assert_eq!(answer.head().matches("Content-Length").count(), 1);
    }
}

#[test]
fn an_empty_body_has_length_zero() {
    for result in ["[]", "()", "[b'']", "iter([])", "iter([b'', b''])"] {
        let (answer, _) = get(&format!("start_response('200 OK', [])\n    return {result}"));
        answer.expect_ok("");
        assert_eq!(answer.field("Content-Length").as_deref(), Some("0"), "{result}");
    }
}

#[test]
fn empty_blocks_end_nothing() {
    let (answer, _) = get("start_response('200 OK', [])\n    return iter([b'', b'a', b'', b'b', b''])");
    answer.expect_ok("ab");
    assert!(answer.bytes.ends_with(b"\r\n0\r\n\r\n"));
}

#[test]
fn a_generator_gives_one_block_a_step() {
    with_python(|| {
        let mut server = Server::new(
            "MADE = 0\ndef app(e, s):\n    s('200 OK', [])\n    def blocks():\n        global MADE\n        for n in range(3):\n            MADE += 1\n            \
             yield b'%d' % MADE\n    return blocks()\n",
        );
        let (mut out, mut sent) = (Vec::new(), Sent { wire: Vec::new(), pushes: 0, left: None });
        let Reply::Blocks(mut stream) = server.begin(GET.as_bytes(), &Setup::default(), &mut out, &mut sent) else {
            panic!("a generator is a stream");
        };
        // The application has said its status; nothing is sent.
        assert!(out.is_empty());
        assert_eq!((stream.summary().status, stream.summary().sent), (200, 0));
        for block in ["1\r\n1\r\n", "1\r\n2\r\n", "1\r\n3\r\n"] {
            assert_eq!(stream.advance(&mut out, &mut sent), Produced::Rendered);
            assert!(out.ends_with(block.as_bytes()));
            assert_eq!(stream.summary().status, 200);
        }
        assert!(
            matches!(stream.advance(&mut out, &mut sent), Produced::End(summary) if summary.sent == 3 && summary.fate == Fate::Keep)
        );
    });
}

#[test]
fn large_blocks_are_held_not_copied() {
    let (answer, _) = get("start_response('200 OK', [('Content-Length', '40000')])\n    return [b'x' * 40000]");
    assert_eq!((answer.held, answer.raw_body().len(), answer.summary.fate), (1, 40000, Fate::Keep));
    let (answer, _) = get("start_response('200 OK', [])\n    return [b'x' * 40000]");
    assert_eq!((answer.held, answer.field("Content-Length").as_deref()), (1, Some("40000")));
    let (answer, _) = get("start_response('200 OK', [])\n    yield b'a'\n    yield b'x' * 40000\n    yield b'b'");
    assert_eq!((answer.held, answer.body().len(), answer.summary.sent), (1, 40002, 40002));
    answer.expect_ok(&format!("a{}b", "x".repeat(40000)));
}

#[test]
fn an_old_client_gets_no_chunks() {
    let (answer, _) = serve(OLD, "start_response('200 OK', [])\n    yield b'a'\n    yield b'b'");
    assert_eq!((answer.body().as_str(), answer.summary.fate), ("ab", Fate::Close));
    assert_eq!(answer.field("Transfer-Encoding"), None);
}

#[test]
fn the_connection_stays_only_if_both_sides_want() {
    with_python(|| {
        let mut server = Server::new("def app(e, s):\n    s('200 OK', [])\n    return [b'x']\n");
        let answer = server.call(GET.as_bytes(), &Setup { persistent: false, ..Setup::default() });
        assert_eq!((answer.summary.fate, answer.field("Connection").as_deref()), (Fate::Close, Some("close")));
        let answer = server.get("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        assert_eq!(answer.summary.fate, Fate::Close);
    });
}

#[test]
fn head_has_the_fields_and_no_body() {
    for result in ["[b'hello']", "iter([b'hello'])"] {
        let (answer, log) = serve(HEAD, &format!("start_response('200 OK', [('Content-Length', '5')])\n    return {result}"));
        assert_eq!((answer.raw_body(), answer.field("Content-Length").as_deref()), (&b""[..], Some("5")));
        assert_eq!((answer.summary.fate, answer.summary.sent, log.as_str()), (Fate::Keep, 0, ""));
    }
    let (answer, _) = serve(HEAD, "start_response('200 OK', [])\n    return [b'hello']");
    assert_eq!((answer.raw_body(), answer.field("Content-Length").as_deref()), (&b""[..], Some("5")));
    let (answer, _) = serve(HEAD, "start_response('200 OK', [])\n    return []");
    assert_eq!((answer.raw_body(), answer.field("Content-Length")), (&b""[..], None));
    with_python(|| {
        let mut server = counting("start_response('200 OK', []); return Blocks([b'a', b'b'])");
        assert_eq!(server.get(HEAD).summary.fate, Fate::Keep);
        expect_closed_once(&mut server);
    });
}

#[test]
fn a_304_keeps_its_length_and_has_no_body() {
    let (answer, log) = get("start_response('304 Not Modified', [('Content-Length', '5')])\n    return []");
    assert_eq!((answer.raw_body(), answer.field("Content-Length").as_deref()), (&b""[..], Some("5")));
    assert_eq!((answer.summary.fate, log.as_str()), (Fate::Keep, ""));
}

#[test]
fn too_much_is_cut_and_logged() {
    for result in ["[b'hello']", "iter([b'hel', b'lo', b'more'])", "[b'hel' + b'x' * 40000]"] {
        let (answer, log) = get(&format!("start_response('200 OK', [('Content-Length', '3')])\n    return {result}"));
        answer.expect_ok("hel");
        assert!(log.contains("WARNING") && log.contains("more than its Content-Length") && log.contains("GET /path?q"), "{log}");
    }
}

#[test]
fn too_little_is_cut_visibly_and_logged() {
    for result in ["[b'hel']", "iter([b'hel'])", "[]"] {
        let (answer, log) = get(&format!("start_response('200 OK', [('Content-Length', '5')])\n    return {result}"));
        assert_eq!((answer.status(), answer.summary.fate), (200, Fate::Cut), "{result}");
        assert!(log.contains("ERROR") && log.contains("less than its Content-Length") && log.contains("GET /path?q"), "{log}");
    }
}

#[test]
fn an_exception_becomes_500_and_one_record() {
    let (answer, log) = get("raise ValueError('the cause')");
    assert_eq!((answer.status(), answer.summary.fate, answer.summary.status), (500, Fate::Close, 500));
    assert_eq!(answer.summary.sent as usize, answer.raw_body().len());
    assert!(!answer.body().contains("cause"), "clients learn nothing: {}", answer.body());
    assert_eq!(log.lines().filter(|line| !line.starts_with("  ")).count(), 1, "{log}");
    for part in ["GET /path?q", "Traceback (most recent call last)", "tested.py\", line 3, in app", "ValueError: the cause"] {
        assert!(log.contains(part), "{part:?} is not in\n{log}");
    }
}

#[test]
fn an_exception_keeps_earlier_answers_in_the_output() {
    with_python(|| {
        let mut server = Server::new("def app(e, s):\n    s('200 OK', [])\n    raise ValueError\n");
        let (mut out, mut sent) = (b"earlier".to_vec(), Sent { wire: Vec::new(), pushes: 0, left: None });
        let Reply::Complete(summary) = server.begin(GET.as_bytes(), &Setup::default(), &mut out, &mut sent) else {
            panic!("nothing follows");
        };
        assert_eq!(summary.fate, Fate::Close);
        assert!(out.starts_with(b"earlierHTTP/1.1 500 "), "{}", String::from_utf8_lossy(&out));
    });
}

#[test]
fn exits_and_interrupts_are_exceptions_like_others() {
    for raised in ["SystemExit(3)", "KeyboardInterrupt()", "GeneratorExit()", "BaseException('x')"] {
        let (answer, log) = get(&format!("raise {raised}"));
        assert_eq!(answer.status(), 500, "{raised}");
        assert!(log.contains(raised.split('(').next().unwrap()), "{log}");
        let (answer, _) = get(&format!("start_response('200 OK', [])\n    yield b'x'\n    raise {raised}"));
        assert_eq!(answer.summary.fate, Fate::Cut, "{raised}");
    }
}

#[test]
fn an_exception_within_the_body_cuts_it() {
    let (answer, log) = get("start_response('200 OK', [])\n    yield b'part'\n    raise ValueError('late')");
    assert_eq!((answer.status(), answer.summary.fate), (200, Fate::Cut));
    assert!(!answer.bytes.ends_with(b"0\r\n\r\n"), "the last chunk would make it complete");
    assert!(log.contains("ValueError: late"), "{log}");
    // Delimited by the close only: an orderly close would look complete.
    let (answer, _) = serve(OLD, "start_response('200 OK', [])\n    yield b'part'\n    raise ValueError('late')");
    assert_eq!(answer.summary.fate, Fate::Reset);
    let (answer, _) = get("start_response('200 OK', [])\n    yield b''\n    raise ValueError('before the first block')");
    assert_eq!((answer.status(), answer.summary.fate), (500, Fate::Close));
}

#[test]
fn misuse_is_named() {
    let head = "start_response('200 OK', [])\n    return";
    for (result, words) in [
        ("['text']", "yielded str, not bytes: encode"),
        ("iter(['text'])", "yielded str, not bytes: encode"),
        ("'text'", "returned a str"),
        ("b'text'", "returned bytes"),
        ("None", "returned None"),
        ("7", "returned int, which is not an iterable"),
        ("[7]", "yielded int, not bytes"),
        ("[[b'x']]", "list wrapped twice"),
        ("{'a': 1}", "yielded str, not bytes"),
    ] {
        let (answer, log) = get(&format!("{head} {result}"));
        assert_eq!((answer.status(), answer.summary.fate), (500, Fate::Close), "{result}");
        assert!(log.contains(words) && log.contains("GET /path?q"), "{result}: {log}");
    }
}

#[test]
fn mutable_bytes_are_accepted_as_they_were() {
    let (answer, _) = get("start_response('200 OK', [])\n    return [bytearray(b'ab'), memoryview(b'cd')]");
    answer.expect_ok("abcd");
}

#[test]
fn swapped_arguments_are_recognised() {
    with_python(|| {
        for body in ["environ['PATH_INFO']", "start_response('200 OK', [])", "environ.get('x')"] {
            let mut server = Server::new(&format!("def app(start_response, environ):\n    {body}\n    return [b'x']\n"));
            assert_eq!(server.get(GET).status(), 500);
            assert!(server.log().contains("wrong order"), "{body}: {}", server.log());
        }
    });
}

#[test]
fn a_wrong_number_of_arguments_is_recognised() {
    with_python(|| {
        for signature in ["", "a", "a, b, c"] {
            let mut server = Server::new(&format!("def app({signature}):\n    return [b'x']\n"));
            assert_eq!(server.get(GET).status(), 500);
            assert!(server.log().contains("not callable as app(environ, start_response)"), "{}", server.log());
        }
    });
}

#[test]
fn close_is_called_once_at_the_end() {
    for blocks in ["[]", "[b'a']", "[b'', b'a', b'b']", "[b'x' * 40000]"] {
        with_python(move || {
            let mut server = counting(&format!("start_response('200 OK', []); return Blocks({blocks})"));
            assert_eq!(server.get(GET).summary.fate, Fate::Keep);
            expect_closed_once(&mut server);
        });
    }
}

#[test]
fn close_is_called_once_when_the_client_leaves() {
    for after in [0, 1, 2] {
        with_python(move || {
            let mut server = counting("start_response('200 OK', []); return Blocks([b'a', b'x' * 40000, b'c'])");
            server.call(GET.as_bytes(), &Setup { drop_after: Some(after), ..Setup::default() });
            expect_closed_once(&mut server);
        });
    }
}

#[test]
fn close_is_called_once_after_a_failure() {
    for (head, blocks) in [
        ("start_response('200 OK', [])", "[ValueError()]"),
        ("start_response('200 OK', [])", "[b'a', ValueError()]"),
        ("start_response('200 OK', [])", "[b'a', 'text']"),
        ("start_response('200 OK', [])", "[b'a', KeyboardInterrupt()]"),
        ("start_response('200 OK', [('Content-Length', '9')])", "[b'a']"),
        ("start_response('200 OK', [('Content-Length', '1')])", "[b'abc', b'd']"),
        ("pass", "[b'a']"),
        ("pass", "[]"),
    ] {
        with_python(move || {
            let mut server = counting(&format!("{head}; return Blocks({blocks})"));
            server.get(GET);
            expect_closed_once(&mut server);
        });
    }
}

#[test]
fn close_of_what_cannot_be_iterated_is_called() {
    with_python(|| {
        let mut server = Server::new(
            "CLOSED = 0\nclass Odd:\n    def close(self):\n        global CLOSED\n        CLOSED += 1\ndef app(e, s):\n    s('200 OK', [])\n    \
             return [b'%d' % CLOSED] if e['PATH_INFO'] == '/count' else Odd()\n",
        );
        assert_eq!(server.get(GET).status(), 500);
        server.get("GET /count HTTP/1.1\r\nHost: h\r\n\r\n").expect_ok("1");
    });
}

#[test]
fn an_exception_in_close_is_logged_and_harms_nothing() {
    let (answer, log) = get(
        "class Bad(list):\n        def close(self):\n            raise ValueError('at close')\n    start_response('200 OK', [])\n    return Bad([b'x'])",
    );
    answer.expect_ok("x");
    assert!(log.contains("close()") && log.contains("ValueError: at close"), "{log}");
}

#[test]
fn a_generator_runs_its_finally_when_the_client_leaves() {
    with_python(|| {
        let mut server = Server::new(
            "SEEN = []\ndef app(e, s):\n    s('200 OK', [])\n    if e['PATH_INFO'] == '/seen':\n        return [repr(SEEN).encode()]\n    \
             return blocks()\ndef blocks():\n    try:\n        yield b'a'\n        yield b'b'\n    finally:\n        SEEN.append('closed')\n",
        );
        server.call(GET.as_bytes(), &Setup { drop_after: Some(1), ..Setup::default() });
        server.get("GET /seen HTTP/1.1\r\nHost: h\r\n\r\n").expect_ok("['closed']");
    });
}

#[test]
fn wsgiref_finds_nothing_to_complain_about() {
    with_python(|| {
        let mut server = Server::new(
            "from wsgiref.validate import validator\n@validator\ndef app(environ, start_response):\n    environ['wsgi.errors'].write('')\n    \
             environ['wsgi.errors'].flush()\n    input = environ['wsgi.input']\n    data = input.read(2) + input.readline() + \
             b''.join(input.readlines()) + b''.join(input)\n    start_response('200 OK', [('Content-Type', 'text/plain')])\n    return [data or \
             b'nothing']\n",
        );
        server.get(GET).expect_ok("nothing");
        server.get("POST /a%20b HTTP/1.1\r\nHost: h\r\nContent-Length: 7\r\n\r\nabc\nd\ne").expect_ok("abc\nd\ne");
        server.get("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nhello").expect_ok("hello");
        let answer = server.get(HEAD);
        assert_eq!((answer.status(), answer.raw_body()), (200, &b""[..]));
        assert_eq!(server.log(), "");
    });
}
