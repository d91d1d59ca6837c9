//! Web servers that connect to a server which runs already, by each protocol that they speak.

use serde_json::Value;

use crate::common::manual;
use crate::common::server::{Running, Server};
use crate::front::Front;
use crate::through::{
    Cuts, Habits, LARGE, REQUESTS, Slash, assert_serves_through, assert_streams_through, assert_tells_of_clients_that_leave,
};

/// Where mod_jk writes, which packages of it set.
const JK_FILES: &str = "JkLogFile {temp}/jk.log\nJkShmFile {temp}/jk.shm\n";

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
    let source = manual::example("# hello.py, by: tapster \\-b fastcgi:127.0.0.1:9000 hello");
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
