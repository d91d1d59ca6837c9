//! `tapster.wsgi.environ`: for the description of a request that has just come it makes the environ that the request has.

mod common;

use serde_json::{Value, json};

use common::server::Server;

/// Describes each request that comes, as `CASES` has it, and answers what differs.
const COMPARE: &str = r#"
import json, os
from tapster.wsgi import Request, environ as make

CASES = json.loads(os.environ["CASES"])
# Of the request itself, or of the server's log.
OTHERS = {"wsgi.errors", "wsgi.early_hints", "tapster.client_disconnected", "wsgi.input"}

def application(environ, start_response):
    method, target, version, headers, body = CASES[int(environ["HTTP_X_CASE"])]
    made = make(Request(
        method, target, [tuple(pair) for pair in headers], body.encode("latin-1"), version=version,
        client=(environ["REMOTE_ADDR"], environ["REMOTE_PORT"]), server=(environ["SERVER_NAME"], environ["SERVER_PORT"]),
        root_path=os.environ["ROOT"],
    ))
    differ = [[key, str(environ.get(key)), str(made.get(key))] for key in sorted(environ.keys() | made.keys())
              if key not in OTHERS and (key not in environ or key not in made or environ[key] != made[key])]
    bodies = [made["wsgi.input"].read(), environ["wsgi.input"].read()]
    if bodies[0] != bodies[1]:
        differ.append(["wsgi.input", repr(bodies[0]), repr(bodies[1])])
    if type(made["wsgi.input"]) is not type(environ["wsgi.input"]):
        differ.append(["wsgi.input", str(type(made["wsgi.input"])), str(type(environ["wsgi.input"]))])
    made["wsgi.errors"].write("")
    assert made["wsgi.early_hints"]([("Link", "</a>")]) is None and made["tapster.client_disconnected"]() is False
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"differ": differ, "path": made["PATH_INFO"], "scheme": made["wsgi.url_scheme"]}).encode()]
"#;

/// Method, target, version, fields, body.
type Case = (&'static str, &'static str, &'static str, Vec<(&'static str, String)>, &'static str);

/// The same without a number.
type RawCase = (&'static str, &'static str, &'static str, Vec<(&'static str, &'static str)>, &'static str);

/// The same with the field by which the application finds it.
fn with_number(number: usize, (method, target, version, fields, body): RawCase) -> Case {
    let fields = fields.into_iter().map(|(name, value)| (name, value.to_owned()));
    (method, target, version, fields.chain([("X-Case", number.to_string())]).collect(), body)
}

#[test]
fn a_description_has_the_environ_of_the_request() {
    let cases = [
        ("GET", "/a%2Fb/caf%C3%A9?x=%20&y", "HTTP/1.1", vec![("Host", "a.example:81")], ""),
        ("GET", "/", "HTTP/1.0", vec![("Cookie", "a=1"), ("Cookie", "b=2"), ("X-A", "1"), ("X-A", "2"), ("X_Under", "x")], ""),
        ("POST", "/shop/x", "HTTP/1.1", vec![("Host", "h"), ("Content-Type", "text/x"), ("Content-Length", "5")], "h\u{e9}llo"),
        ("PUT", "/", "HTTP/1.1", vec![("Host", "h"), ("X-Forwarded-Proto", "https"), ("Proxy", "http://evil")], ""),
        ("OPTIONS", "*", "HTTP/1.1", vec![("Host", "h")], ""),
        ("GET", "http://other.example/abs?q", "HTTP/1.1", vec![("Host", "other.example")], ""),
        ("DELETE", "//a//b;c=d", "HTTP/1.1", vec![("Host", "h"), ("Authorization", "Basic YTpi"), ("Content-Length", "0")], ""),
    ];
    let cases: Vec<Case> = (0..).zip(cases).map(|(number, case)| with_number(number, case)).collect();
    for root in ["", "/shop"] {
        let server = Server::source(COMPARE).workers(2).env("CASES", json!(cases).to_string()).env("ROOT", root);
        let server = if root.is_empty() { server } else { server.options(["--root-path", root]) }.start();
        for (method, target, version, headers, body) in &cases {
            let fields: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let mut request = format!("{method} {target} {version}\r\n{fields}\r\n").into_bytes();
            request.extend(body.chars().map(|c| c as u8));
            let seen = server.exchange(request).json();
            assert_eq!(seen["differ"], json!([]), "{method} {target}: {seen}");
            assert_eq!(seen["scheme"] == "https", headers.iter().any(|(name, _)| *name == "X-Forwarded-Proto"), "{seen}");
        }
        server.stop();
    }
}

#[test]
fn the_example_of_the_manual_passes() {
    let source = common::manual::example("# test_shop.py");
    let app =
        "\ntest_path()\n\ndef application(environ, start_response):\n    start_response('204 No Content', [])\n    return []\n";
    let server = Server::source(&(source + app)).start();
    assert_eq!(server.get("/").status, 204);
    server.stop();
}

/// Answers what each description gives: some keys of the environ, or the mistake.
const DESCRIBE: &str = r#"
import json
import tapster.wsgi
from tapster.wsgi import Request, environ as make
from tornado.httputil import HTTPHeaders, HTTPServerRequest
from tornado.wsgi import WSGIContainer

def tornado_request():
    class Context:
        remote_ip, protocol = "192.0.2.7", "https"
    class Connection:
        context = Context
    headers = HTTPHeaders({"Host": "a.example:8443", "Content-Type": "text/x", "Content-Length": "5"})
    headers.add("X-A", "1")
    headers.add("X-A", "2")
    return HTTPServerRequest("POST", "/a%20b?x=1", "HTTP/1.1", headers, b"hello", "a.example:8443", connection=Connection)

def show(case):
    try:
        made = make(case)
    except ValueError as error:
        return str(error)
    keys = ["REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "CONTENT_LENGTH", "HTTP_HOST", "SERVER_NAME", "REMOTE_ADDR", "wsgi.url_scheme"]
    return [made.get(key) for key in keys] + [made["wsgi.input"].read().decode()]

def application(environ, start_response):
    request = tornado_request()
    made, shown = make(request), show(request)
    # It takes fields out of the request.
    container = WSGIContainer(lambda environ, start_response: []).environ(request)
    same = ["REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "REMOTE_ADDR", "SERVER_NAME", "SERVER_PORT", "SERVER_PROTOCOL",
            "CONTENT_TYPE", "CONTENT_LENGTH", "HTTP_HOST", "HTTP_X_A", "wsgi.url_scheme", "wsgi.version"]
    try:
        tapster.wsgi.nothing
    except AttributeError as error:
        missing = str(error)
    result = {
        "plain": show(Request()),
        "posted": show(Request("POST", "/x?y", {"Host": "h"}, b"12345")),
        "encrypted": show(Request(protocol="https", server=("::1", 443), client=("::1", 5))),
        "chunked": show(Request("POST", "/", {"Transfer-Encoding": "chunked"}, b"123")),
        "split": show(Request(headers={"X": "a\r\nX-Evil: 1"})),
        "target": show(Request(target="/a b")),
        "two": show(Request(target="/ HTTP/1.1\r\nHost: x\r\n\r\nGET /evil")),
        "method": show(Request("G T")),
        "length": show(Request("POST", headers={"Content-Length": "4"}, body=b"12345")),
        "hosts": show(Request(headers=[("Host", "a"), ("Host", "b")])),
        "tornado": shown,
        "differ": [[key, container.get(key), made.get(key)] for key in same if container.get(key) != made.get(key)],
        "missing": missing,
    }
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(result).encode()]
"#;

#[test]
fn what_is_left_out_is_as_usual_and_what_the_server_refuses_is_an_error() {
    let server = Server::source(DESCRIBE).frameworks().start();
    let seen = server.get("/").json();
    for (name, expected) in [
        ("plain", json!(["GET", "/", "", null, "127.0.0.1:8000", "127.0.0.1", "127.0.0.1", "http", ""])),
        ("posted", json!(["POST", "/x", "y", "5", "h", "127.0.0.1", "127.0.0.1", "http", "12345"])),
        ("encrypted", json!(["GET", "/", "", null, "[::1]:443", "::1", "::1", "https", ""])),
        ("chunked", json!(["POST", "/", "", "3", "127.0.0.1:8000", "127.0.0.1", "127.0.0.1", "http", "123"])),
        ("tornado", json!(["POST", "/a b", "x=1", "5", "a.example:8443", "a.example", "192.0.2.7", "https", "hello"])),
    ] {
        assert_eq!(seen[name], expected, "{name}");
    }
    for (name, why) in [
        ("split", "a line end stands in the middle of its head"),
        ("target", "the request line does not end with a well-formed HTTP version"),
        ("two", "a line end stands in the middle of its head"),
        ("method", "the request line does not end with a well-formed HTTP version"),
        ("length", "its Content-Length is 4, and its body has 5 bytes"),
        ("hosts", "Host comes more than once"),
    ] {
        let text = seen[name].as_str().unwrap_or_default();
        assert!(text.starts_with("the server refuses this request: ") && text.contains(why), "{name}: {}", seen[name]);
    }
    // Tornado joins values with a comma, and so does the server.
    assert_eq!(seen["differ"], json!([]), "{}", seen["differ"]);
    assert_eq!(seen["missing"], Value::from("module 'tapster.wsgi' has no attribute 'nothing'"));
    server.stop();
}
