//! `write()` called by the iterable that the application returned: where its bytes go, and when it is refused.

mod wsgi_driver;

use tapster::worker::app::{Fate, Produced, Reply};
use wsgi_driver::{Answer, Options, Sent, Server, Setup, with_python};

const GET: &str = "GET /path HTTP/1.1\r\nHost: testing\r\n\r\n";
const HEAD: &str = "HEAD /path HTTP/1.1\r\nHost: testing\r\n\r\n";
const OLD: &str = "GET /path HTTP/1.0\r\n\r\n";

/// An iterable of its own: `items` are functions, called by `__next__` and `close` with `write`.
const ITERABLE: &str = "
import sys, threading
class Iterable:
    def __init__(self, write, items, close=lambda write: None):
        self.write, self.items, self.end = write, iter(items), close
    def __iter__(self):
        return self
    def __next__(self):
        return next(self.items)(self.write)
    def close(self):
        self.end(self.write)
def error():
    try:
        raise ValueError('the cause')
    except ValueError:
        return sys.exc_info()
";

/// One request to the application with these lines; answer and log.
#[track_caller]
fn ask(request: &'static str, setup: Setup, lines: &str) -> (Answer, String) {
    let source = format!("{ITERABLE}def app(environ, s):\n    {}\n", lines.replace('\n', "\n    "));
    with_python(move || {
        let mut server = Server::new(&source);
        let answer = server.call(request.as_bytes(), &setup);
        (answer, server.log())
    })
}

#[track_caller]
fn get(lines: &str) -> (Answer, String) {
    ask(GET, Setup::default(), lines)
}

/// The answer is complete and has this body; nothing is logged.
#[track_caller]
fn gives(lines: &str, body: &str) -> Answer {
    let (answer, log) = get(lines);
    assert_eq!(log, "", "{lines}");
    answer.expect_ok(body);
    assert_eq!(answer.summary.sent, body.len() as u64, "{lines}");
    answer
}

#[test]
fn write_by_the_iterable_comes_before_its_block() {
    let answer = gives("def g():\n    w = s('200 OK', [])\n    w(b'one ')\n    yield b'two'\nreturn g()", "one two");
    assert_eq!(answer.pushes, 1, "sent before the block is there");
    gives(
        "w = s('200 OK', [])\ndef g():\n    yield b'one '\n    w(b'two ')\n    w(b'three ')\n    yield b'four'\nreturn g()",
        "one two three four",
    );
    gives(
        "def g():\n    w = s('200 OK', [])\n    yield b''\n    w(b'a')\n    yield b''\n    w(b'b')\n    yield b'c'\nreturn g()",
        "abc",
    );
    gives("def g():\n    s('200 OK', [])(b'only')\n    return\n    yield\nreturn g()", "only");
    gives("w = s('200 OK', [])\nw(b'a')\ndef g():\n    yield b'b'\n    w(b'c')\nreturn g()", "abc");
    gives("w = s('200 OK', [])\nreturn map(lambda n: w(b'%d' % n) or b'', range(3))", "012");
    gives(
        "w = s('200 OK', [])\nclass I:\n    def __iter__(self):\n        w(b'a')\n        return iter([b'b'])\nreturn I()",
        "ab",
    );
}

#[test]
fn large_blocks_and_files_come_after_it() {
    let x = "x".repeat(40_000);
    gives(
        "def g():\n    w = s('200 OK', [])\n    w(b'a')\n    yield b'x' * 40000\n    w(b'b')\n    yield b''\nreturn g()",
        &format!("a{x}b"),
    );
    gives("def g():\n    w = s('200 OK', [])\n    w(b'x' * 40000)\n    yield b'a'\nreturn g()", &format!("{x}a"));
    gives(
        "import tempfile\nf = tempfile.TemporaryFile()\nf.write(b'file')\nf.seek(0)\nw = s('200 OK', [])\nw(b'a ')\n\
         return environ['wsgi.file_wrapper'](f)",
        "a file",
    );
}

#[test]
fn write_by_close_comes_before_the_end() {
    gives("w = s('200 OK', [])\nreturn Iterable(w, [lambda w: b'one '], lambda w: w(b'two'))", "one two");
    gives("w = s('200 OK', [])\nreturn Iterable(w, [], lambda w: w(b'only'))", "only");
    gives(
        "def g():\n    w = s('200 OK', [])\n    try:\n        yield b'one '\n    finally:\n        w(b'two')\nreturn g()",
        "one two",
    );
    let (answer, log) = get("def fail(w):\n    w(b'two')\n    raise ValueError('late')\n\
                             return Iterable(s('200 OK', []), [lambda w: b'one '], fail)");
    answer.expect_ok("one two");
    assert!(log.contains("close() of the application's iterable raised") && log.contains("ValueError: late"), "{log}");
}

#[test]
fn an_iterable_may_start_its_answer_again_before_it_has_written() {
    let lines = "def g():\n    s('200 OK', [])\n    w = s('500 Sorry', [], error())\n    w(b'sorry')\n    yield b''\nreturn g()";
    let (answer, log) = get(lines);
    assert_eq!((answer.status(), answer.body().as_str(), answer.summary.fate, log.as_str()), (500, "sorry", Fate::Keep, ""));
    // After the first byte exc_info raises the exception, and the cut is seen.
    let (answer, log) =
        get("def g():\n    w = s('200 OK', [])\n    w(b'part')\n    s('500 Sorry', [], error())\n    yield b''\nreturn g()");
    assert_eq!((answer.status(), answer.summary.fate, answer.summary.sent), (200, Fate::Cut, 4), "{}", answer.text());
    assert!(log.contains("ValueError: the cause") && !answer.bytes.ends_with(b"0\r\n\r\n"), "{log}");
    let (answer, log) =
        get("def g():\n    w = s('200 OK', [])\n    w(b'part')\n    raise KeyError('late')\n    yield b''\nreturn g()");
    assert_eq!((answer.status(), answer.summary.fate, answer.summary.sent), (200, Fate::Cut, 4), "{}", answer.text());
    assert!(log.contains("KeyError: 'late'"), "{log}");
}

#[test]
fn head_and_old_clients_have_what_they_have_from_blocks() {
    let lines = "def g():\n    w = s('200 OK', [])\n    w(b'one ')\n    yield b'two'\n    w(b' three')\nreturn g()";
    let (answer, log) = ask(HEAD, Setup::default(), lines);
    assert_eq!((answer.status(), answer.raw_body(), answer.summary.fate, log.as_str()), (200, &b""[..], Fate::Keep, ""));
    assert_eq!(answer.summary.sent, 0);
    let (answer, log) = ask(OLD, Setup::default(), lines);
    assert_eq!((answer.body().as_str(), answer.summary.fate, log.as_str()), ("one two three", Fate::Close, ""));
    let (answer, _) =
        ask(OLD, Setup::default(), "def g():\n    s('200 OK', [])(b'part')\n    raise ValueError\n    yield\nreturn g()");
    assert_eq!((answer.body().as_str(), answer.summary.fate), ("part", Fate::Reset));
}

#[test]
fn a_length_holds_for_what_is_written_too() {
    let exact = "def g():\n    w = s('200 OK', [('Content-Length', '7')])\n    w(b'one ')\n    yield b'two'\nreturn g()";
    assert_eq!(gives(exact, "one two").field("Transfer-Encoding"), None);
    for (length, body, fate, words) in [
        ("5", "one t", Fate::Keep, "2 bytes more than its Content-Length"),
        ("3", "one", Fate::Keep, "more than its Content-Length"),
        ("9", "one two", Fate::Cut, "2 bytes less than its Content-Length"),
    ] {
        let lines = exact.replace("'7'", &format!("'{length}'"));
        let (answer, log) = get(&lines);
        assert_eq!((answer.body().as_str(), answer.summary.fate), (body, fate), "{log}");
        assert!(log.contains(words), "{log}");
    }
    let (answer, log) =
        get("w = s('200 OK', [('Content-Length', '3')])\nreturn Iterable(w, [lambda w: b'one'], lambda w: w(b'more'))");
    answer.expect_ok("one");
    assert!(log.contains("4 bytes more than its Content-Length"), "{log}");
}

#[test]
fn streams_of_one_thread_have_their_own() {
    with_python(|| {
        let mut server = Server::new(
            "WRITES = []\nCAUGHT = []\ndef app(e, s):\n    if e['PATH_INFO'] == '/caught':\n        s('200 OK', [])\n        \
             return ['; '.join(map(str, CAUGHT)).encode()]\n    def g():\n        w = s('200 OK', [])\n        WRITES.append(w)\n        for n in range(3):\n            \
             w(b'%d' % n)\n            for other in WRITES:\n                if other is not w:\n                    try:\n                        \
             other(b'bad')\n                    except RuntimeError as error:\n                        CAUGHT.append(error)\n            yield b'.'\n    return g()\n",
        );
        let mut streams = Vec::new();
        for _ in 0..2 {
            let (mut out, mut sent) = (Vec::new(), Sent { wire: Vec::new(), pushes: 0, left: None });
            let Reply::Blocks(stream) = server.begin(GET.as_bytes(), &Setup::default(), &mut out, &mut sent) else {
                panic!("a generator is a stream");
            };
            streams.push((stream, out, sent));
        }
        for _ in 0..3 {
            for (stream, out, sent) in &mut streams {
                assert_eq!(stream.advance(out, sent), Produced::Rendered);
            }
        }
        for (stream, out, sent) in &mut streams {
            assert!(matches!(stream.advance(out, sent), Produced::End(summary) if summary.sent == 6));
            sent.wire.append(out);
            let wire = String::from_utf8_lossy(&sent.wire);
            let body = ["0", ".", "1", ".", "2", "."].map(|part| format!("1\r\n{part}\r\n")).concat();
            assert!(wire.ends_with(&format!("\r\n\r\n{body}0\r\n\r\n")), "{wire}");
        }
        let caught = server.get("GET /caught HTTP/1.1\r\nHost: h\r\n\r\n").body();
        assert_eq!(caught.matches("write() called after the application returned").count(), 5, "{caught}");
    });
}

#[test]
fn other_threads_and_later_calls_are_refused() {
    let (answer, _) = get(
        "def g():\n    w = s('200 OK', [])\n    caught = []\n    def run():\n        try:\n            w(b'bad')\n        except RuntimeError as error:\n            \
         caught.append(str(error).encode())\n    thread = threading.Thread(target=run)\n    thread.start()\n    thread.join()\n    yield caught[0]\nreturn g()",
    );
    answer.expect_ok("write() called by another thread than the one that runs the application");
    with_python(|| {
        let mut server = Server::new(
            "KEPT = []\ndef app(e, s):\n    w = s('200 OK', [])\n    if e['PATH_INFO'] == '/late':\n        try:\n            KEPT[0](b'bad')\n        \
             except RuntimeError as error:\n            return [str(error).encode()]\n    KEPT.append(w)\n    return iter([b'x'])\n",
        );
        server.get(GET).expect_ok("x");
        let late = server.get("GET /late HTTP/1.1\r\nHost: h\r\n\r\n");
        assert!(late.body().starts_with("write() called after the application returned"), "{}", late.text());
    });
    // The server decides the end of an answer that has failed.
    let (answer, log) = get("return Iterable(s('200 OK', []), [lambda w: 'text'], lambda w: w(b'bad'))");
    assert_eq!((answer.status(), answer.summary.fate), (500, Fate::Close));
    assert!(!answer.text().contains("bad") && log.contains("write() called after the application returned"), "{log}");
}

#[test]
fn a_client_that_leaves_is_an_exception_of_write_and_no_error() {
    let lines = "def g():\n    w = s('200 OK', [])\n    while True:\n        w(b'x' * 1000)\n        yield b''\nreturn g()";
    let (answer, log) = ask(GET, Setup { leave_after: Some(3), ..Setup::default() }, lines);
    assert_eq!(answer.pushes, 3);
    assert!(!log.contains("ERROR") && log.contains("ConnectionResetError"), "{log}");
    let lines = "def g():\n    w = s('200 OK', [])\n    try:\n        yield b'one'\n        yield b'two'\n    finally:\n        w(b'late')\nreturn g()";
    let (answer, log) = ask(GET, Setup { drop_after: Some(1), ..Setup::default() }, lines);
    assert!(!log.contains("ERROR") && log.contains("ConnectionResetError"), "{log}");
    assert_eq!(answer.summary.sent, 3);
}

#[test]
fn what_is_written_counts_when_the_client_leaves_in_the_middle() {
    let lines = "def g():\n    w = s('200 OK', [])\n    w(b'12345')\n    yield b''\n    yield b'more'\nreturn g()";
    let (answer, _) = ask(GET, Setup { drop_after: Some(1), ..Setup::default() }, lines);
    assert_eq!((answer.summary.status, answer.summary.sent), (200, 5));
}

#[test]
fn early_hints_can_come_from_the_iterable() {
    with_python(|| {
        let mut server = Server::with(
            "def app(e, s):\n    def g():\n        e['wsgi.early_hints']([('Link', '</a.css>')])\n        s('200 OK', [])\n        yield b'x'\n    return g()\n",
            Options::default(),
        );
        let answer = server.get(GET);
        assert!(
            answer.text().starts_with("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\n"),
            "{}",
            answer.text()
        );
    });
}
