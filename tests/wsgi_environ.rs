//! The environ and its streams: `wsgi.input` and `wsgi.errors`.

mod wsgi_driver;

use tapster::worker::app::Peer;
use tapster::wsgi::ListenerEnviron;
use wsgi_driver::{Options, Server, Setup, listener, with_python};

/// Answers with the values of the environ variables that the query names (`?A&B`), one `repr` a line; all of them without.
const SHOW: &str = "
def app(environ, start_response):
    assert type(environ) is dict
    assert all(type(key) is str for key in environ)
    names = environ.get('QUERY_STRING').split('&') if environ.get('QUERY_STRING') else sorted(environ)
    start_response('200 OK', [])
    return ['\\n'.join(repr(environ.get(name)) for name in names).encode()]
";

#[track_caller]
fn shown(request: &'static str, setup: fn() -> Setup) -> Vec<String> {
    with_python(move || {
        let mut server = Server::new(SHOW);
        let answer = server.call(request.as_bytes(), &setup());
        assert_eq!(answer.status(), 200, "{}", server.log());
        answer.body().lines().map(str::to_owned).collect()
    })
}

#[track_caller]
fn plain(request: &'static str) -> Vec<String> {
    shown(request, Setup::default)
}

#[test]
fn the_request_line_is_taken_apart() {
    let lines = plain(
        "PURGE /a%2Fb/%C3%A4%zz?REQUEST_METHOD&SCRIPT_NAME&PATH_INFO&QUERY_STRING&RAW_URI&REQUEST_URI&SERVER_PROTOCOL HTTP/1.0\r\n\r\n",
    );
    assert_eq!(lines[..3], ["'PURGE'", "''", "'/a/b/Ã\u{a4}%zz'"]);
    assert!(lines[3].starts_with("'REQUEST_METHOD&"));
    assert!(lines[4].starts_with("'/a%2Fb/%C3%A4%zz?REQUEST"));
    assert_eq!(lines[4], lines[5]);
    assert_eq!(lines[6], "'HTTP/1.0'");
}

#[test]
fn what_one_request_set_is_not_in_the_next() {
    with_python(|| {
        let mut server = Server::new(SHOW);
        let names = "CONTENT_TYPE&CONTENT_LENGTH&HTTP_X_SECRET&HTTP_COOKIE";
        let first = server.get(&format!(
            "POST /x?{names} HTTP/1.1\r\nHost: a\r\nContent-Type: text/x\r\nX-Secret: s\r\nCookie: c\r\nContent-Length: 2\r\n\r\nhi"
        ));
        assert_eq!(first.body(), "'text/x'\n'2'\n's'\n'c'");
        let second = server.get(&format!("GET /x?{names} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(second.body(), "None\nNone\nNone\nNone");
        // Same names, other values; and what the application puts into its dict stays there.
        let third = server.get("GET /x?HTTP_HOST&HTTP_X_SECRET HTTP/1.1\r\nHost: b\r\nX-Secret: t\r\n\r\n");
        assert_eq!(third.body(), "'b'\n't'");
    });
}

#[test]
fn the_application_may_change_its_environ() {
    with_python(|| {
        let mut server = Server::new(
            "def app(environ, start_response):\n    start_response('200 OK', [])\n    seen = environ.pop('mark', 'clean')\n    \
             environ.clear()\n    environ['mark'] = 'dirty'\n    return [seen.encode()]\n",
        );
        server.get("GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect_ok("clean");
        server.get("GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect_ok("clean");
    });
}

/// More often than it takes for a header block to be known.
const OFTEN: usize = 5;

#[test]
fn what_the_application_does_to_its_environ_is_not_in_the_next_of_a_known_block() {
    with_python(|| {
        let mut server = Server::new(
            "def app(environ, start_response):\n    start_response('200 OK', [])\n    seen = [environ.get('mark'), \
             environ['HTTP_COOKIE'], environ['REMOTE_ADDR'], environ['wsgi.url_scheme'], environ.get('CONTENT_LENGTH')]\n    \
             environ.update({key: 'dirty' for key in list(environ)}, mark='dirty')\n    del environ['HTTP_COOKIE']\n    \
             return [repr(seen).encode()]\n",
        );
        for _ in 0..OFTEN {
            let answer = server.get("GET / HTTP/1.1\r\nHost: a\r\nCookie: c=1\r\nAccept: */*\r\n\r\n");
            assert_eq!(answer.body(), "[None, 'c=1', '127.0.0.1', 'http', None]");
        }
    });
}

#[test]
fn no_client_gets_the_fields_of_another_that_sends_nearly_the_same() {
    with_python(|| {
        let mut server = Server::new(SHOW);
        let show = "/?HTTP_COOKIE&HTTP_AUTHORIZATION&HTTP_X_FORWARDED_FOR&HTTP_X_OWN";
        for round in 0..OFTEN {
            for client in 0..70 {
                let own = if client % 2 == 0 { format!("X-Own: {client:04}\r\n") } else { String::new() };
                let fields = format!(
                    "Host: a\r\nCookie: id={client:04}\r\nAuthorization: Basic {client:04}\r\nX-Forwarded-For: {client:04}\r\n"
                );
                let answer = server.get(&format!("GET {show} HTTP/1.1\r\n{fields}{own}Accept: text/html\r\n\r\n"));
                let own = if client % 2 == 0 { format!("'{client:04}'") } else { "None".to_owned() };
                let wanted = format!("'id={client:04}'\n'Basic {client:04}'\n'{client:04}'\n{own}");
                assert_eq!(answer.body(), wanted, "client {client} in round {round}");
            }
        }
    });
}

#[test]
fn what_is_not_in_the_block_differs_between_requests_with_the_same_one() {
    with_python(|| {
        let listeners = vec![listener("first", "1"), listener("second", "2")];
        let mut server = Server::with(SHOW, Options { listeners, ..Options::default() });
        let names = "REQUEST_METHOD&QUERY_STRING&SERVER_PROTOCOL&SERVER_NAME&REMOTE_ADDR&REMOTE_PORT&wsgi.url_scheme&HTTP_HOST";
        for round in 0..OFTEN {
            for (method, version) in [("GET", "1.1"), ("PATCH", "1.1"), ("GET", "1.0"), ("OPTIONS", "1.0")] {
                for (listener, name) in [(0, "first"), (1, "second")] {
                    for (addr, port, trusted) in
                        [("10.0.0.1", "1", true), ("10.0.0.1", "2", false), ("::1", "2", false), ("", "", true)]
                    {
                        for (prefix, host) in [("", "a"), ("http://b", "b")] {
                            let peer = Peer { addr: addr.into(), port: port.into(), trusted, proxy: None };
                            let request = format!(
                                "{method} {prefix}/?{names} HTTP/{version}\r\nHost: a\r\nX-Forwarded-Proto: https\r\n\r\n"
                            );
                            let answer = server.call(request.as_bytes(), &Setup { peer, listener, ..Setup::default() });
                            let scheme = if trusted { "https" } else { "http" };
                            let wanted = format!(
                                "'{method}'\n'{names}'\n'HTTP/{version}'\n'{name}'\n'{addr}'\n'{port}'\n'{scheme}'\n'{host}'"
                            );
                            assert_eq!(answer.body(), wanted, "round {round}");
                        }
                    }
                }
            }
        }
    });
}

#[test]
fn the_forms_of_a_target_are_understood() {
    let lines = plain("GET http://example.org:81?PATH_INFO&HTTP_HOST&REQUEST_URI HTTP/1.1\r\nHost: other\r\n\r\n");
    assert_eq!(lines, ["'/'", "'example.org:81'", "'http://example.org:81?PATH_INFO&HTTP_HOST&REQUEST_URI'"]);
    with_python(|| {
        let mut server =
            Server::new("def app(e, s):\n    s('200 OK', [])\n    return [repr((e['PATH_INFO'], e['RAW_URI'])).encode()]\n");
        server.get("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").expect_ok("('', '*')");
        server.get("GET http://a HTTP/1.1\r\nHost: a\r\n\r\n").expect_ok("('/', 'http://a')");
        server.get("OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n").expect_ok("('', 'http://a')");
        server.get("GET http://a HTTP/1.1\r\nHost: a\r\n\r\n").expect_ok("('/', 'http://a')");
        server.get("OPTIONS http://a?b HTTP/1.1\r\nHost: a\r\n\r\n").expect_ok("('/', 'http://a?b')");
        server.get("GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect_ok("('/', '/')");
        server.get("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").expect_ok("('/x', '/x')");
        server.get("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").expect_ok("('/x', '/x')");
    });
}

#[test]
fn server_and_client_are_named() {
    let lines = plain("GET /?SERVER_NAME&SERVER_PORT&REMOTE_ADDR&REMOTE_PORT&SERVER_SOFTWARE HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(lines[..4], ["'testing'", "'8000'", "'127.0.0.1'", "'50000'"]);
    assert!(lines[4].starts_with("'tapster/"));
    with_python(|| {
        let listeners = vec![listener("a", "1"), ListenerEnviron::unix(false)];
        let mut server = Server::with(SHOW, Options { listeners, workers: 4, ..Options::default() });
        let setup = Setup { listener: 1, peer: Default::default(), ..Setup::default() };
        let names = "SERVER_NAME&SERVER_PORT&REMOTE_ADDR&REMOTE_PORT&wsgi.multiprocess";
        let answer = server.call(format!("GET /?{names} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(), &setup);
        assert_eq!(answer.body(), "'localhost'\n'80'\n''\n''\nTrue");
    });
}

#[test]
fn fields_become_http_variables() {
    let lines = plain(
        "GET /?HTTP_X_LATIN&HTTP_EMPTY&HTTP_A_B&HTTP_USER_AGENT HTTP/1.1\r\nHost: h\r\nX-Latin: caf\u{e9}\r\nEmpty:\r\na-B: 1\r\nUSER-AGENT: u\r\n\r\n",
    );
    // The test's text is UTF-8; each byte becomes one character.
    assert_eq!(lines, ["'cafÃ©'", "''", "'1'", "'u'"]);
}

#[test]
fn repeated_fields_are_joined() {
    let lines = plain(
        "GET /?HTTP_ACCEPT&HTTP_COOKIE&HTTP_X&HTTP_HOST HTTP/1.1\r\nHost: h\r\nAccept: a\r\nCookie: x=1\r\naccept: b\r\nX: 1\r\n\
         COOKIE: y=2\r\nAccept: a\r\nX: 1\r\n\r\n",
    );
    assert_eq!(lines, ["'a,b,a'", "'x=1; y=2'", "'1,1'", "'h'"]);
}

#[test]
fn what_could_deceive_is_dropped() {
    let lines = plain(
        "POST /?HTTP_X_REAL_IP&HTTP_PROXY&HTTP_TRANSFER_ENCODING&HTTP_CONTENT_LENGTH&HTTP_CONTENT_TYPE&CONTENT_LENGTH&CONTENT_TYPE \
         HTTP/1.1\r\nHost: h\r\nX_Real_IP: evil\r\nX-Real_IP: evil\r\nProxy: evil\r\nTransfer-Encoding: chunked\r\nContent-Type: t/x\r\n\r\nhello",
    );
    assert_eq!(lines, ["None", "None", "None", "None", "None", "'5'", "'t/x'"]);
}

#[test]
fn an_empty_body_has_a_length_when_the_client_gave_one() {
    assert_eq!(plain("POST /?CONTENT_LENGTH HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"), ["'0'"]);
    assert_eq!(plain("POST /?CONTENT_LENGTH HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"), ["'0'"]);
    assert_eq!(plain("POST /?CONTENT_LENGTH HTTP/1.1\r\nHost: h\r\n\r\n"), ["None"]);
}

#[test]
fn only_a_trusted_peer_sets_the_scheme() {
    let trusted = || Setup { peer: tapster::worker::app::Peer { trusted: true, ..Setup::default().peer }, ..Setup::default() };
    let request = "GET /?wsgi.url_scheme&HTTP_X_FORWARDED_PROTO HTTP/1.1\r\nHost: h\r\nX-Forwarded-Proto: https\r\n\r\n";
    assert_eq!(plain(request), ["'http'", "'https'"]);
    assert_eq!(shown(request, trusted), ["'https'", "'https'"]);
    let request = "GET /?wsgi.url_scheme HTTP/1.1\r\nHost: h\r\n\r\n";
    assert_eq!(shown(request, trusted), ["'http'"]);
}

#[test]
fn the_wsgi_variables_are_there() {
    let lines = plain(
        "GET /?wsgi.version&wsgi.multithread&wsgi.multiprocess&wsgi.run_once&wsgi.input_terminated&wsgi.url_scheme HTTP/1.1\r\nHost: h\r\n\r\n",
    );
    assert_eq!(lines, ["(1, 0)", "False", "False", "False", "True", "'http'"]);
}

#[test]
fn variables_for_the_access_log_are_those_after_the_call() {
    with_python(|| {
        let source = "def app(e, s):\n    e['user'] = 'ann'\n    e['n'] = 7\n    s('200 OK', [])\n    return [b'x']\n";
        let environ_names = vec!["user".into(), "n".into(), "missing".into(), "PATH_INFO".into()];
        let mut server = Server::with(source, Options { environ_names, ..Options::default() });
        server.get("GET /p HTTP/1.1\r\nHost: h\r\n\r\n").expect_ok("x");
        assert_eq!(server.app.logged(), [Some("ann".to_owned()), Some("7".to_owned()), None, Some("/p".to_owned())]);
    });
}

/// Runs Python code with `input` bound to `wsgi.input` over this body, in memory and spooled; an exception fails the test.
#[track_caller]
fn with_input(body: &'static str, code: &'static str) {
    with_python(move || {
        let source = format!(
            "import io\ndef app(environ, start_response):\n    input = environ['wsgi.input']\n{}\n    start_response('200 OK', [])\n    return \
             [b'done']\n",
            code.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
        );
        let mut server = Server::new(&source);
        let request = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        for spool in [false, true] {
            let answer = server.call(request.as_bytes(), &Setup { spool, ..Setup::default() });
            assert_eq!(answer.body(), "done", "spooled: {spool}\n{}", server.log());
        }
    });
}

#[test]
fn the_input_is_read_to_its_end_and_no_further() {
    with_input("hello world", "assert input.read() == b'hello world'\nassert input.read() == b''\nassert input.read(5) == b''");
    with_input(
        "hello world",
        "assert input.read(5) == b'hello'\nassert input.read(0) == b''\nassert input.read(-1) == b' world'\nassert input.readline() == b''",
    );
    with_input("hello", "assert input.read(10**15) == b'hello'\nassert input.read(None) == b''");
    with_input(
        "",
        "assert input.read() == b''\nassert input.readline() == b''\nassert input.readlines() == []\nassert list(input) == []",
    );
}

#[test]
fn the_input_is_read_by_lines() {
    with_input("a\nbc\n\nd", "assert list(input) == [b'a\\n', b'bc\\n', b'\\n', b'd']\nassert input.read() == b''");
    with_input("a\nbc\n\nd", "assert input.readlines() == [b'a\\n', b'bc\\n', b'\\n', b'd']");
    with_input("a\nbc\n\nd", "assert input.readlines(3) == [b'a\\n', b'bc\\n']\nassert input.readline() == b'\\n'");
    with_input(
        "hello\nworld",
        "assert input.readline(3) == b'hel'\nassert input.readline(3) == b'lo\\n'\nassert input.readline(-1) == b'world'\nassert \
         input.readline() == b''",
    );
    with_input("a\nb", "assert input.read(1) == b'a'\nassert input.readline() == b'\\n'\nassert next(input) == b'b'");
}

#[test]
fn the_input_works_under_the_io_classes() {
    with_input("hello world", "buffer = bytearray(5)\nassert input.readinto(buffer) == 5\nassert buffer == b'hello'");
    with_input("hi", "buffer = bytearray(b'12345')\nassert input.readinto(buffer) == 2\nassert buffer == b'hi345'");
    with_input("a\nb", "assert io.BufferedReader(input).readlines() == [b'a\\n', b'b']");
    with_input("\u{e4}\nb", "assert io.TextIOWrapper(io.BufferedReader(input), 'utf-8').read() == '\\xe4\\nb'");
    with_input("x", "input.close()\nassert not input.closed\nassert input.read() == b'x'");
    with_input("x", "try:\n    input.readinto(b'ro')\nexcept ValueError:\n    pass\nelse:\n    assert False");
}

#[test]
fn nothing_of_one_body_is_in_the_next() {
    with_python(|| {
        let mut server = Server::new("def app(e, s):\n    s('200 OK', [])\n    return [b'<' + e['wsgi.input'].read() + b'>']\n");
        server.get("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc").expect_ok("<abc>");
        server.get("GET / HTTP/1.1\r\nHost: h\r\n\r\n").expect_ok("<>");
        server.get("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nde").expect_ok("<de>");
    });
}

#[test]
fn a_large_spooled_body_is_read_whole() {
    with_python(|| {
        let mut server = Server::new(
            "import hashlib\ndef app(e, s):\n    s('200 OK', [])\n    return [hashlib.sha256(e['wsgi.input'].read()).hexdigest().encode()]\n",
        );
        let body = "0123456789abcdef".repeat(200_000);
        let request = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let spooled = server.call(request.as_bytes(), &Setup { spool: true, ..Setup::default() });
        assert_eq!(spooled.body(), server.get(&request).body());
        assert_eq!(spooled.body().len(), 64);
    });
}

/// The messages of the error log after one request to an app with this body.
#[track_caller]
fn logged(app_body: &'static str) -> Vec<String> {
    with_python(move || {
        let source = format!(
            "def app(environ, start_response):\n    errors = environ['wsgi.errors']\n    {app_body}\n    start_response('200 OK', [])\n    return [b'x']\n"
        );
        let mut server = Server::new(&source);
        server.get("GET / HTTP/1.1\r\nHost: h\r\n\r\n").expect_ok("x");
        server.log().lines().map(|line| line.split_once("WARNING ").map_or(line, |(_, message)| message).to_owned()).collect()
    })
}

#[test]
fn errors_are_logged_line_by_line() {
    assert_eq!(
        logged("errors.write('one\\ntwo\\n'); errors.writelines(['thr', 'ee\\n', 'four'])"),
        ["one", "two", "three", "four"]
    );
    assert_eq!(logged("errors.write('a'); errors.flush(); errors.write('b')"), ["a", "b"]);
    assert_eq!(logged("print('printed', file=errors)"), ["printed"]);
    assert_eq!(logged("errors.write('lone \\udc80 surrogate, \\u20ac\\n')"), ["lone \\udc80 surrogate, €"]);
}

#[test]
fn errors_take_only_text() {
    with_python(|| {
        let mut server = Server::new("def app(e, s):\n    e['wsgi.errors'].write(b'x')\n");
        assert_eq!(server.get("GET / HTTP/1.1\r\nHost: h\r\n\r\n").status(), 500);
        assert!(server.log().contains("wsgi.errors takes str, not bytes"), "{}", server.log());
    });
}
