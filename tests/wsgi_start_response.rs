//! `start_response` and `write` as PEP 3333 defines them, and what is said when they are used wrongly.

mod wsgi_driver;

use tapster::worker::app::Fate;
use wsgi_driver::{Server, Setup, with_python};

const GET: &str = "GET / HTTP/1.1\r\nHost: testing\r\n\r\n";

/// Serves one GET by an app with this body (indented by four blanks) and returns status, body, fate and log.
#[track_caller]
fn serve(app_body: &str) -> (u16, String, Fate, String) {
    let source = format!("import sys\ndef app(environ, start_response):\n{app_body}\n");
    with_python(move || {
        let mut server = Server::new(&source);
        let answer = server.get(GET);
        assert_eq!(answer.status(), answer.summary.status);
        (answer.status(), answer.body(), answer.summary.fate, server.log())
    })
}

/// The application fails before its head is sent: 500, close, and a log record with these words.
#[track_caller]
fn fails_with(app_body: &str, words: &[&str]) {
    let (status, _, fate, log) = serve(app_body);
    assert_eq!((status, fate), (500, Fate::Close), "{log}");
    assert!(log.contains("GET /"), "{log}");
    for word in words {
        assert!(log.contains(word), "{word:?} is not in\n{log}");
    }
}

#[test]
fn arguments_are_positional_or_named() {
    for call in [
        "start_response('200 OK', [])",
        "start_response('200 OK', headers=[])",
        "start_response(status='200 OK', response_headers=[], exc_info=None)",
        "start_response(headers=[], status='200 OK')",
        "start_response(*('200 OK', [], None))",
        "start_response(**{'status': '200 OK', 'headers': ()})",
    ] {
        let (status, body, fate, log) = serve(&format!("    {call}\n    return [b'x']"));
        assert_eq!((status, body.as_str(), fate, log.as_str()), (200, "x", Fate::Keep, ""), "{call}");
    }
}

#[test]
fn wrong_arguments_raise_in_the_application_and_name_the_cause() {
    fails_with("    start_response('200 OK')", &["TypeError", "headers are missing", "in app"]);
    fails_with("    start_response()", &["TypeError", "status is missing"]);
    fails_with("    start_response('200 OK', [], None, 1)", &["TypeError", "4 positional"]);
    fails_with("    start_response('200 OK', [], foo=1)", &["TypeError", "'foo'"]);
    fails_with("    start_response('200 OK', [], status='x')", &["TypeError", "'status' twice"]);
    fails_with("    start_response(200, [])", &["TypeError", "status must be a str like '200 OK', not int"]);
    fails_with("    start_response(b'200 OK', [])", &["status must be a str like '200 OK', not bytes"]);
    fails_with("    start_response('200 OK', {})", &["must be a list of (name, value) tuples, not dict"]);
    fails_with("    start_response('200 OK', [('a',)])", &["each header must be a (name, value) tuple, not ('a',)"]);
    fails_with("    start_response('200 OK', [('Content-Length', 1)])", &["header 'Content-Length' must be a str, not int"]);
    fails_with("    start_response('200 OK', [(b'A', 'b')])", &["header names must be str, not bytes"]);
    fails_with("    start_response('200 OK', [('A', '\\u20ac')])", &["'A'", "outside latin-1"]);
    fails_with("    start_response('200 OK', [('A', 'b\\r\\nC: d')])", &["ValueError", "header A", "control character"]);
    fails_with("    start_response('200 OK', [('Transfer-Encoding', 'chunked')])", &["ValueError", "hop-by-hop"]);
    fails_with("    start_response('200 OK', [('Upgrade', 'websocket')])", &["ValueError", "with 426 Upgrade Required only"]);
    fails_with("    start_response('400 Bad Request', [('Connection', 'upgrade')])", &["ValueError", "belongs to the server"]);
    fails_with("    start_response('20 OK', [])", &["ValueError", "20 OK"]);
}

#[test]
fn a_refused_head_leaves_nothing() {
    let (status, body, ..) = serve(
        "    try:\n        start_response('200 OK', [('A', '1'), ('B', 'x\\n')])\n    except ValueError:\n        pass\n    \
         start_response('404 Not Found', [('C', '2')])\n    return [b'gone']",
    );
    assert_eq!((status, body.as_str()), (404, "gone"));
}

#[test]
fn a_head_that_is_given_again_is_sent_again_and_a_changed_one_is_not() {
    with_python(|| {
        let mut server = Server::new(
            "HEADERS = [('Content-Length', '3'), ('X-A', 'a')]\nCASES = {\n    'same': lambda: HEADERS,\n    \
             'copy': lambda: [(name[:1] + name[1:], ''.join(list(value))) for name, value in HEADERS],\n    \
             'value': lambda: [('Content-Length', '3'), ('X-A', 'b')],\n    'name': lambda: [('Content-Length', '3'), ('X-B', 'a')],\n    \
             'more': lambda: HEADERS + [('X-C', 'c')],\n    'less': lambda: HEADERS[:1],\n    'order': lambda: HEADERS[::-1],\n    \
             'own': lambda: [('Date', 'today'), ('Server', 'mine'), ('Content-Length', '3')],\n    \
             'close': lambda: [('Connection', 'close'), ('Content-Length', '3')],\n    'bad': lambda: [('X-A', 'a\\n')],\n    'none': lambda: []}\n\
             def app(environ, start_response):\n    status = environ['QUERY_STRING'] or '200 OK'\n    try:\n        \
             start_response(status, CASES[environ['PATH_INFO'][1:]]())\n    except ValueError:\n        \
             start_response('500 Bad', [('Content-Length', '3')])\n    return [b'abc']\n",
        );
        let names = ["same", "copy", "value", "name", "more", "less", "order", "own", "close", "bad", "none"];
        let lines = ["GET /{} HTTP/1.1", "HEAD /{} HTTP/1.1", "GET /{} HTTP/1.0", "GET /{}?404 HTTP/1.1", "GET /{}?204 HTTP/1.1"];
        let requests: Vec<String> =
            names.iter().flat_map(|name| lines.map(|line| format!("{}\r\nHost: a\r\n\r\n", line.replace("{}", name)))).collect();
        // Each by a server that has seen nothing.
        let alone: Vec<String> = requests
            .iter()
            .map(|request| {
                server.get("GET /none?299 HTTP/1.1\r\nHost: a\r\n\r\n");
                server.get(request).text()
            })
            .collect();
        assert!(alone[0].contains("\r\nX-A: a\r\n") && alone[10].contains("\r\nX-A: b\r\n"), "{alone:?}");
        for (first, before) in requests.iter().enumerate() {
            for (second, request) in requests.iter().enumerate() {
                assert_eq!(server.get(before).text(), alone[first], "{before}");
                assert_eq!(server.get(request).text(), alone[second], "{request} behind {before}");
                assert_eq!(server.get(request).text(), alone[second], "{request} twice");
            }
        }
    });
}

#[test]
fn a_426_names_the_protocol_that_the_client_has_to_upgrade_to() {
    with_python(|| {
        let mut server = Server::new(
            "def app(environ, start_response):\n    \
             start_response(environ['QUERY_STRING'] + ' X', [('Upgrade', 'websocket'), ('Content-Length', '0')])\n    return []\n",
        );
        // The second time the head is taken from the memo.
        for _ in 0..2 {
            let answer = server.get("GET /?426 HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!((answer.status(), answer.summary.fate), (426, Fate::Keep));
            let text = answer.text();
            assert!(text.contains("\r\nUpgrade: websocket\r\n") && text.contains("\r\nConnection: upgrade\r\n"), "{text}");
            let old = server.get("GET /?426 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").text();
            assert!(old.contains("\r\nConnection: keep-alive, upgrade\r\n"), "{old}");
            assert_eq!(server.get("GET /?200 HTTP/1.1\r\nHost: a\r\n\r\n").status(), 500, "the same fields, another status");
        }
    });
}

#[test]
fn a_second_call_needs_exc_info() {
    fails_with(
        "    start_response('200 OK', [])\n    start_response('200 OK', [])\n    return [b'']",
        &["AssertionError", "second time without exc_info"],
    );
}

#[test]
fn exc_info_replaces_a_head_that_is_not_sent() {
    let (status, body, fate, _) = serve(
        "    start_response('200 OK', [('A', '1')])\n    try:\n        1 / 0\n    except ZeroDivisionError:\n        \
         start_response('503 Sorry', [], sys.exc_info())\n    return [b'sorry']",
    );
    assert_eq!((status, body.as_str(), fate), (503, "sorry", Fate::Keep));
}

#[test]
fn exc_info_is_raised_again_once_the_head_is_sent() {
    let (status, _, fate, log) = serve(
        "    start_response('200 OK', [])\n    yield b'part'\n    try:\n        1 / 0\n    except ZeroDivisionError:\n        \
         start_response('500 Oops', [], sys.exc_info())\n    yield b'never'",
    );
    assert_eq!((status, fate), (200, Fate::Cut));
    assert!(log.contains("ZeroDivisionError"), "{log}");
    assert!(log.contains("1 / 0"), "the traceback shows where: {log}");
}

#[test]
fn the_call_may_come_with_the_first_block() {
    let (status, body, fate, log) =
        serve("    def blocks():\n        start_response('201 Late', [])\n        yield b'late'\n    return blocks()");
    assert_eq!((status, body.as_str(), fate, log.as_str()), (201, "late", Fate::Keep, ""));
}

#[test]
fn a_missing_call_is_reported() {
    fails_with("    return [b'x']", &["did not call start_response"]);
    fails_with("    return []", &["did not call start_response"]);
    fails_with("    yield b'x'", &["did not call start_response"]);
}

#[test]
fn write_sends_at_once_and_before_the_iterable() {
    with_python(|| {
        let mut server = Server::new(
            "def app(environ, start_response):\n    write = start_response('200 OK', [])\n    write(b'')\n    write(b'one ')\n    \
             write(b'two ')\n    return [b'three']\n",
        );
        let answer = server.get(GET);
        assert_eq!(answer.pushes, 2);
        answer.expect_ok("one two three");
    });
}

#[test]
fn write_comes_after_earlier_pipelined_answers() {
    with_python(|| {
        let mut server =
            Server::new("def app(environ, start_response):\n    start_response('200 OK', [])(b'x')\n    return []\n");
        let mut out = b"earlier".to_vec();
        let mut sent = wsgi_driver::Sent { wire: Vec::new(), pushes: 0, left: None };
        let _reply = server.begin(GET.as_bytes(), &Setup::default(), &mut out, &mut sent);
        assert!(sent.wire.starts_with(b"earlierHTTP/1.1 200 OK\r\n"));
    });
}

#[test]
fn write_takes_bytes_alone() {
    fails_with("    start_response('200 OK', [])('text')", &["write() takes bytes, not str"]);
}

#[test]
fn an_exception_after_write_cuts_the_answer() {
    let (status, _, fate, log) = serve("    start_response('200 OK', [])(b'x')\n    raise ValueError('late')");
    assert_eq!((status, fate), (200, Fate::Cut));
    assert!(log.contains("ValueError: late"), "{log}");
}

#[test]
fn a_client_that_leaves_during_write_is_no_error() {
    with_python(|| {
        let mut server = Server::new(
            "def app(environ, start_response):\n    write = start_response('200 OK', [])\n    while True:\n        write(b'x' * 1000)\n",
        );
        let answer = server.call(GET.as_bytes(), &Setup { leave_after: Some(3), ..Setup::default() });
        assert_eq!(answer.pushes, 3);
        assert_ne!(answer.summary.fate, Fate::Keep);
        assert!(!server.log().contains("ERROR"), "{}", server.log());
    });
}

#[test]
fn an_object_that_was_kept_cannot_touch_the_next_request() {
    with_python(|| {
        let mut server = Server::new(
            "kept = []\ndef app(environ, start_response):\n    for old, write in kept:\n        for call in (lambda: old('500 Bad', []), \
             lambda: write(b'bad')):\n            try:\n                call()\n            except RuntimeError:\n                pass\n            \
             else:\n                raise SystemExit('must be refused')\n    write = start_response('200 OK', [])\n    \
             kept.append((start_response, write))\n    return [b'%d' % len(kept)]\n",
        );
        for round in ["1", "2", "3"] {
            server.get(GET).expect_ok(round);
        }
        assert_eq!(server.log(), "");
    });
}

#[test]
fn write_works_only_on_the_thread_of_the_call() {
    fails_with(
        "    import threading\n    write = start_response('200 OK', [])\n    caught = []\n    def run():\n        try:\n            \
         write(b'x')\n        except RuntimeError as error:\n            caught.append(error)\n    thread = threading.Thread(target=run)\n    \
         thread.start()\n    thread.join()\n    raise caught[0]",
        &["another thread"],
    );
}

#[test]
fn duplicate_fields_and_odd_bytes_pass_unchanged() {
    with_python(|| {
        let mut server = Server::new(
            "def app(environ, start_response):\n    start_response('200 Tr\\xe8s bien', [('Set-Cookie', 'a=1'), ('Set-Cookie', 'b=2'), \
             ('X-Latin', 'caf\\xe9'), ('Date', 'mine'), ('Server', 'me')])\n    return (b'x',)\n",
        );
        let answer = server.get(GET);
        assert!(
            answer.bytes.starts_with(b"HTTP/1.1 200 Tr\xe8s bien\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Latin: caf\xe9\r\n")
        );
        assert_eq!((answer.field("Date"), answer.field("Server")), (Some("mine".into()), Some("me".into())));
        assert_eq!(answer.head().matches("Date").count(), 1);
    });
}
