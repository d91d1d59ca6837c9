//! Who the client is: `--trusted-proxy-headers` and `--clear-untrusted-proxy-headers`, one table of cases against the real binary, and
//! that nothing of a request sticks to the next one.

mod common;

use std::fs;
use std::net::Ipv4Addr;

use serde_json::Value;

use common::client::{Client, Response};
use common::server::{Running, Server};
use common::{SOON, wait_for};

/// The proxies of all cases; the peer is 127.0.0.1.
const PROXIES: &str = "127.0.0.1,10.0.0.0/8,fd00::/8";

/// A peer that is none of them.
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

const FOR: &str = "x-forwarded-for";
const ALL: &str = "x-forwarded-for x-forwarded-proto x-forwarded-host x-forwarded-port x-forwarded-prefix";
const STANDARD: &str = "forwarded";
const REAL: &str = "x-real-ip x-scheme";

/// What the application sees: address and port of the client (`=` for those of the peer), then what differs from a request that has
/// no such fields, as `scheme host server-name server-port script`, with `=` for what does not.
struct Case {
    trusted: &'static str,
    fields: &'static [&'static str],
    client: (&'static str, &'static str),
    rest: [&'static str; 5],
}

const SAME: [&str; 5] = ["="; 5];

const fn addr(trusted: &'static str, fields: &'static [&'static str], client: &'static str, port: &'static str) -> Case {
    Case { trusted, fields, client: (client, port), rest: SAME }
}

/// The address stays the peer's.
const fn peer(trusted: &'static str, fields: &'static [&'static str]) -> Case {
    addr(trusted, fields, "=", "=")
}

const fn rest(trusted: &'static str, fields: &'static [&'static str], rest: [&'static str; 5]) -> Case {
    Case { trusted, fields, client: ("=", "="), rest }
}

const CASES: &[Case] = &[
    // X-Forwarded-For: lists, lines, forgeries.
    peer(FOR, &[]),
    addr(FOR, &["X-Forwarded-For: 192.0.2.7"], "192.0.2.7", ""),
    addr(FOR, &["x-forwarded-FOR:192.0.2.7 "], "192.0.2.7", ""),
    addr(FOR, &["X-Forwarded-For: 6.6.6.6, 192.0.2.7"], "192.0.2.7", ""),
    addr(FOR, &["X-Forwarded-For: 127.0.0.1, 192.0.2.7"], "192.0.2.7", ""),
    addr(FOR, &["X-Forwarded-For: 192.0.2.7, 10.0.0.1"], "192.0.2.7", ""),
    addr(FOR, &["X-Forwarded-For: 6.6.6.6, 192.0.2.7, 10.0.0.1, 10.255.0.9"], "192.0.2.7", ""),
    addr(FOR, &["X-Forwarded-For: 10.0.0.2, 10.0.0.1"], "10.0.0.2", ""),
    addr(FOR, &["X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 192.0.2.7"], "192.0.2.7", ""),
    addr(FOR, &["X-Forwarded-For: 6.6.6.6, 192.0.2.7", "X-Forwarded-For: 10.0.0.1"], "192.0.2.7", ""),
    addr(FOR, &["X-Forwarded-For: 192.0.2.7", "X-Forwarded-For: "], "192.0.2.7", ""),
    addr(FOR, &["X-Forwarded-For: ,192.0.2.7, ,"], "192.0.2.7", ""),
    peer(FOR, &["X-Forwarded-For: "]),
    peer(FOR, &["X-Forwarded-For: unknown"]),
    peer(FOR, &["X-Forwarded-For: 192.0.2.7, unknown"]),
    addr(FOR, &["X-Forwarded-For: 192.0.2.7, unknown, 10.0.0.1"], "10.0.0.1", ""),
    // Ports.
    addr(FOR, &["X-Forwarded-For: 192.0.2.7:4711"], "192.0.2.7", "4711"),
    addr(FOR, &["X-Forwarded-For: 192.0.2.7:0"], "192.0.2.7", ""),
    peer(FOR, &["X-Forwarded-For: 192.0.2.7:99999"]),
    peer(FOR, &["X-Forwarded-For: 192.0.2.7:http"]),
    peer(FOR, &["X-Forwarded-For: 192.0.2.7:_port"]),
    addr(FOR, &["X-Forwarded-For: 192.0.2.7:4711, 10.0.0.1:80"], "192.0.2.7", "4711"),
    // IPv6.
    addr(FOR, &["X-Forwarded-For: 2001:db8::7"], "2001:db8::7", ""),
    addr(FOR, &["X-Forwarded-For: 2001:0DB8:0:0::7"], "2001:db8::7", ""),
    addr(FOR, &["X-Forwarded-For: [2001:db8::7]"], "2001:db8::7", ""),
    addr(FOR, &["X-Forwarded-For: [2001:db8::7]:4711"], "2001:db8::7", "4711"),
    addr(FOR, &["X-Forwarded-For: 2001:db8::7, fd00::1"], "2001:db8::7", ""),
    addr(FOR, &["X-Forwarded-For: ::ffff:192.0.2.7"], "192.0.2.7", ""),
    addr(FOR, &["X-Forwarded-For: 192.0.2.7, ::ffff:10.0.0.1"], "192.0.2.7", ""),
    addr(FOR, &["X-Forwarded-For: 192.0.2.7, [::ffff:10.0.0.1]:80"], "192.0.2.7", ""),
    peer(FOR, &["X-Forwarded-For: [2001:db8::7"]),
    peer(FOR, &["X-Forwarded-For: fe80::1%eth0"]),
    // Garbage.
    peer(FOR, &["X-Forwarded-For: 192.0.2.07"]),
    peer(FOR, &["X-Forwarded-For: 3221225991"]),
    peer(FOR, &["X-Forwarded-For: 192.0.2"]),
    peer(FOR, &["X-Forwarded-For: example.org"]),
    peer(FOR, &["X-Forwarded-For: 1.2.3.4\" <script>"]),
    peer(FOR, &["X-Forwarded-For: 192.0.2.7 10.0.0.1"]),
    // Other families, and what was not asked for.
    peer(FOR, &["X-Real-IP: 192.0.2.7", "Forwarded: for=192.0.2.7;proto=https", "X-Client-IP: 192.0.2.7"]),
    addr(FOR, &["X-Forwarded-For: 192.0.2.7", "X-Real-IP: 6.6.6.6", "Forwarded: for=6.6.6.6"], "192.0.2.7", ""),
    addr(
        FOR,
        &["X-Forwarded-For: 192.0.2.7", "X-Forwarded-Proto: https", "X-Forwarded-Host: a", "X-Forwarded-Prefix: /a"],
        "192.0.2.7",
        "",
    ),
    peer("x-forwarded-proto", &["X-Forwarded-For: 192.0.2.7"]),
    // Scheme.
    rest(ALL, &["X-Forwarded-Proto: https"], ["https", "=", "=", "=", "="]),
    rest(ALL, &["X-Forwarded-Proto: HTTPS"], ["https", "=", "=", "=", "="]),
    rest(ALL, &["X-Forwarded-Proto: http"], SAME),
    rest(ALL, &["X-Forwarded-Proto: http, https"], ["https", "=", "=", "=", "="]),
    rest(ALL, &["X-Forwarded-Proto: https, http"], SAME),
    rest(ALL, &["X-Forwarded-Proto: https", "X-Forwarded-Proto: http"], SAME),
    rest(ALL, &["X-Forwarded-Proto: wss"], ["https", "=", "=", "=", "="]),
    rest(ALL, &["X-Forwarded-Proto: javascript"], SAME),
    rest(ALL, &["X-Scheme: https", "X-Forwarded-Ssl: on", "Forwarded: proto=https"], SAME),
    // Host, port, prefix.
    rest(ALL, &["X-Forwarded-Host: shop.test"], ["=", "shop.test", "shop.test", "=", "="]),
    rest(ALL, &["X-Forwarded-Host: shop.test:8443"], ["=", "shop.test:8443", "shop.test", "8443", "="]),
    rest(ALL, &["X-Forwarded-Host: evil.test, shop.test"], ["=", "shop.test", "shop.test", "=", "="]),
    rest(ALL, &["X-Forwarded-Host: [2001:db8::1]:81"], ["=", "[2001:db8::1]:81", "[2001:db8::1]", "81", "="]),
    rest(ALL, &["X-Forwarded-Host: a b"], SAME),
    rest(ALL, &["X-Forwarded-Host: user@evil.test"], SAME),
    rest(ALL, &["X-Forwarded-Host: shop.test", "X-Forwarded-Proto: https"], ["https", "shop.test", "shop.test", "443", "="]),
    rest(ALL, &["X-Forwarded-Host: shop.test", "X-Forwarded-Port: 8443"], ["=", "shop.test:8443", "shop.test", "8443", "="]),
    rest(
        ALL,
        &["X-Forwarded-Host: shop.test", "X-Forwarded-Port: 443", "X-Forwarded-Proto: https"],
        ["https", "shop.test", "shop.test", "443", "="],
    ),
    rest(ALL, &["X-Forwarded-Port: 443"], ["=", "=", "=", "443", "="]),
    rest(ALL, &["X-Forwarded-Port: 0"], SAME),
    rest(ALL, &["X-Forwarded-Prefix: /shop"], ["=", "=", "=", "=", "/shop"]),
    rest(ALL, &["X-Forwarded-Prefix: /shop/"], ["=", "=", "=", "=", "/shop"]),
    rest(ALL, &["X-Forwarded-Prefix: //evil.test"], SAME),
    rest(ALL, &["X-Forwarded-Prefix: /../etc"], SAME),
    rest(ALL, &["X-Forwarded-Prefix: shop"], SAME),
    Case {
        trusted: ALL,
        fields: &[
            "X-Forwarded-For: 6.6.6.6, 192.0.2.7:4711",
            "X-Forwarded-Proto: https",
            "X-Forwarded-Host: shop.test",
            "X-Forwarded-Prefix: /a%20b",
        ],
        client: ("192.0.2.7", "4711"),
        rest: ["https", "shop.test", "shop.test", "443", "/a b"],
    },
    // RFC 7239.
    addr(STANDARD, &["Forwarded: for=192.0.2.7"], "192.0.2.7", ""),
    addr(STANDARD, &["Forwarded: For=\"192.0.2.7:4711\""], "192.0.2.7", "4711"),
    addr(STANDARD, &["Forwarded: for=\"192.0.2.7:_port\""], "192.0.2.7", ""),
    addr(STANDARD, &["Forwarded: for=\"[2001:db8::7]:4711\";by=10.0.0.1"], "2001:db8::7", "4711"),
    addr(STANDARD, &["Forwarded: for=\"\\[2001:db8::7\\]\""], "2001:db8::7", ""),
    addr(STANDARD, &["Forwarded: for=6.6.6.6, for=192.0.2.7"], "192.0.2.7", ""),
    addr(STANDARD, &["Forwarded: for=6.6.6.6, for=192.0.2.7;by=x, for=10.0.0.1"], "192.0.2.7", ""),
    addr(STANDARD, &["Forwarded: for=6.6.6.6", "Forwarded: for=192.0.2.7"], "192.0.2.7", ""),
    addr(STANDARD, &["Forwarded: x=\"a, for=6.6.6.6\";for=192.0.2.7"], "192.0.2.7", ""),
    addr(STANDARD, &["Forwarded: for=192.0.2.7;x=\"\\\", for=6.6.6.6\""], "192.0.2.7", ""),
    addr(STANDARD, &["Forwarded: for=\"6.6.6.6, for=192.0.2.7"], "192.0.2.7", ""),
    addr(STANDARD, &["Forwarded: \"", "Forwarded: for=192.0.2.7"], "192.0.2.7", ""),
    peer(STANDARD, &["Forwarded: for=192.0.2.7", "Forwarded: nonsense"]),
    peer(STANDARD, &["Forwarded: for=unknown"]),
    peer(STANDARD, &["Forwarded: for=_hidden"]),
    addr(STANDARD, &["Forwarded: for=192.0.2.7, for=unknown, for=10.0.0.1"], "10.0.0.1", ""),
    peer(STANDARD, &["Forwarded: for=192.0.2.7;for=192.0.2.8"]),
    peer(STANDARD, &["Forwarded: for=192.0.2.7:80"]),
    peer(STANDARD, &["Forwarded: for=\"2001:db8::7\""]),
    peer(STANDARD, &["Forwarded: for=192.0.2.7 proto=https"]),
    peer(STANDARD, &["Forwarded: 192.0.2.7"]),
    peer(STANDARD, &["X-Forwarded-For: 192.0.2.7", "X-Forwarded-Proto: https", "X-Forwarded-Host: a"]),
    rest(STANDARD, &["Forwarded: proto=https"], ["https", "=", "=", "=", "="]),
    rest(STANDARD, &["Forwarded: for=unknown;proto=https;host=shop.test"], ["https", "shop.test", "shop.test", "443", "="]),
    rest(STANDARD, &["Forwarded: host=\"shop.test:8443\""], ["=", "shop.test:8443", "shop.test", "8443", "="]),
    Case {
        trusted: STANDARD,
        fields: &["Forwarded: for=6.6.6.6;host=evil.test, for=192.0.2.7;proto=https, for=10.0.0.1;proto=http"],
        client: ("192.0.2.7", ""),
        rest: ["https", "=", "=", "=", "="],
    },
    // X-Real-IP and X-Scheme.
    addr(REAL, &["X-Real-IP: 192.0.2.7"], "192.0.2.7", ""),
    addr(REAL, &["X-Real-IP: 2001:db8::7"], "2001:db8::7", ""),
    addr(REAL, &["X-Real-IP: 192.0.2.7", "X-Forwarded-For: 6.6.6.6"], "192.0.2.7", ""),
    peer(REAL, &["X-Real-IP: 192.0.2.7, 192.0.2.8"]),
    peer(REAL, &["X-Real-IP: 192.0.2.7", "X-Real-IP: 192.0.2.8"]),
    peer(REAL, &["X-Forwarded-For: 192.0.2.7"]),
    rest(REAL, &["X-Scheme: https", "X-Forwarded-Proto: http"], ["https", "=", "=", "=", "="]),
    rest(REAL, &["X-Forwarded-Proto: https"], SAME),
];

fn server(trusted: &str) -> Server {
    Server::new("probe").options(["--forwarded-allow-ips", PROXIES, "--trusted-proxy-headers", trusted])
}

fn request(fields: &[&str]) -> String {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    format!("GET /environ HTTP/1.1\r\nHost: plain.test:81\r\n{fields}Accept: */*\r\n\r\n")
}

fn ask(client: &mut Client, fields: &[&str]) -> Value {
    client.send(request(fields));
    client.response().json()
}

/// REMOTE_ADDR and REMOTE_PORT, and what a [`Case`] has of the rest.
fn seen(environ: &Value) -> [String; 7] {
    let names = ["REMOTE_ADDR", "REMOTE_PORT", "wsgi.url_scheme", "HTTP_HOST", "SERVER_NAME", "SERVER_PORT", "SCRIPT_NAME"];
    names.map(|name| environ[name].as_str().unwrap_or_else(|| panic!("no {name}: {environ}")).to_owned())
}

#[track_caller]
fn assert_case(client: &mut Client, case: &Case, plain: &[String; 7]) {
    let Case { client: (addr, port), rest, fields, trusted } = case;
    let given = [[*addr, *port].as_slice(), rest].concat();
    let wanted: Vec<&str> = given.iter().zip(plain).map(|(new, old)| if *new == "=" { old.as_str() } else { new }).collect();
    let environ = ask(client, fields);
    assert_eq!(seen(&environ).as_slice(), wanted, "{trusted}: {fields:?}");
    let https = if wanted[2] == "https" { Some("on") } else { None };
    assert_eq!(environ["HTTPS"].as_str(), https, "{trusted}: {fields:?}");
}

#[test]
fn the_table() {
    assert!(CASES.len() >= 60, "{} cases", CASES.len());
    let mut sets: Vec<&str> = CASES.iter().map(|case| case.trusted).collect();
    sets.dedup();
    for trusted in sets {
        let server = server(trusted).start();
        let mut client = server.connect();
        let mut stranger = Client::connect_from(STRANGER, server.address());
        let plain = seen(&ask(&mut client, &[]));
        assert_eq!(&plain[..4], ["127.0.0.1", &client.port().to_string(), "http", "plain.test:81"]);
        let foreign = seen(&ask(&mut stranger, &[]));
        for case in CASES.iter().filter(|case| case.trusted == trusted) {
            // The block is known from its third coming on, and its environ comes back; the requests between differ in all.
            for _ in 0..5 {
                assert_case(&mut client, case, &plain);
                assert_eq!(seen(&ask(&mut client, &[])), plain, "behind {:?}", case.fields);
                assert_eq!(seen(&ask(&mut stranger, case.fields)), foreign, "a stranger with {:?}", case.fields);
            }
        }
        server.stop();
    }
}

#[test]
fn nothing_sticks_to_a_known_block() {
    let server = server(ALL).start();
    let mut proxies = [server.connect(), server.connect()];
    let mut stranger = Client::connect_from(STRANGER, server.address());
    let own = seen(&ask(&mut stranger, &[]));
    // The value of X-Forwarded-For may change within a known block, those of the others make another one.
    for round in 0..40 {
        for (number, proxy) in proxies.iter_mut().enumerate() {
            let client = format!("192.0.2.{}", (round * 7 + number * 3) % 250 + 1);
            let forwarded = format!("X-Forwarded-For: {client}");
            let host = ["X-Forwarded-Host: a.test", "X-Forwarded-Host: b.test"][round % 2];
            let got = seen(&ask(proxy, &[&forwarded, host, "X-Forwarded-Proto: https"]));
            assert_eq!((got[0].as_str(), got[2].as_str()), (client.as_str(), "https"), "{round}");
            assert_eq!(got[3], &host[18..], "{round}");
            let got = seen(&ask(proxy, &[&forwarded]));
            assert_eq!(
                (got[0].as_str(), got[2].as_str(), got[3].as_str()),
                (client.as_str(), "http", "plain.test:81"),
                "{round}"
            );
            assert_eq!(seen(&ask(&mut stranger, &[&forwarded, host, "X-Forwarded-Proto: https"])), own, "{round}");
            let got = seen(&ask(proxy, &["X-Forwarded-For: unknown", "X-Forwarded-Proto: https"]));
            assert_eq!((got[0].as_str(), got[1].as_str()), ("127.0.0.1", proxy.port().to_string().as_str()), "{round}");
        }
    }
    // In one send, and with a target that names a host of its own.
    let pipelined: String = (1..=20)
        .map(|n| match n % 3 {
            0 => request(&[]),
            1 => request(&[&format!("X-Forwarded-For: 192.0.2.{n}")]),
            _ => request(&["X-Forwarded-Host: c.test"]).replace("GET /", "GET http://target.test/"),
        })
        .collect();
    let proxy = &mut proxies[0];
    proxy.send(pipelined);
    for n in 1..=20 {
        let got = seen(&proxy.response().json());
        let (addr, host) = match n % 3 {
            0 => ("127.0.0.1".to_owned(), "plain.test:81"),
            1 => (format!("192.0.2.{n}"), "plain.test:81"),
            _ => ("127.0.0.1".to_owned(), "c.test"),
        };
        assert_eq!((&got[0], got[3].as_str()), (&addr, host), "{n}");
    }
    server.stop();
}

#[test]
fn requests_in_pieces_with_bodies_and_on_other_threads_name_their_client() {
    let server = server(FOR).options(["--threads", "4"]).workers(2).start();
    let mut client = server.connect();
    for n in 1..=20 {
        let body = "x".repeat(n * 1000);
        let head = format!(
            "POST /environ HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.{n}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let (first, second) = head.split_at(n);
        client.send(first);
        client.send(second);
        let (first, second) = body.split_at(n);
        client.send(first);
        client.send(second);
        let seen = client.response().json();
        assert_eq!(
            (seen["REMOTE_ADDR"].as_str(), seen["body"].as_str().map(str::len)),
            (Some(&*format!("192.0.2.{n}")), Some(n * 1000))
        );
    }
    server.stop();
}

#[test]
fn a_request_that_is_lent_to_another_worker_keeps_its_client() {
    let source = "import os, time\ndef app(environ, start_response):\n    if environ['PATH_INFO'] == '/slow':\n        time.sleep(0.3)\n    \
                  start_response('200 OK', [])\n    return [f\"{environ['REMOTE_ADDR']} {environ.get('HTTP_X_REQUEST_ID')} {os.getpid()}\".encode()]\n\
                  application = app\n";
    let server = Server::source(source)
        .workers(2)
        .options(["--forwarded-allow-ips", PROXIES, "--trusted-proxy-headers", FOR, "--request-id"])
        .start();
    let mut pids = std::collections::BTreeSet::new();
    let clients: Vec<Client> = (0..12).map(|_| server.connect()).collect();
    let mut clients: Vec<(usize, Client)> = clients.into_iter().enumerate().collect();
    for round in 0..3 {
        for (n, client) in &mut clients {
            let path = if *n % 3 == 0 { "/slow" } else { "/" };
            client.send(format!(
                "GET {path} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.{n}\r\nX-Request-ID: {round}-{n}\r\n\r\n"
            ));
        }
        for (n, client) in &mut clients {
            let response = client.response();
            let text = response.text();
            let words: Vec<&str> = text.split(' ').collect();
            assert_eq!(words[..2], [&*format!("192.0.2.{n}"), &*format!("{round}-{n}")], "{response:?}");
            assert_eq!(response.all("x-request-id"), [format!("{round}-{n}")]);
            pids.insert(words[2].to_owned());
        }
    }
    assert_eq!(pids.len(), 2, "both workers serve");
    server.stop();
}

#[test]
fn everybody_is_trusted_means_who_connects() {
    let options = ["--forwarded-allow-ips", "*", "--trusted-proxy-headers", "x-forwarded-for,x-forwarded-proto"];
    let server = Server::new("probe").options(options).binds(["127.0.0.1:0", "unix:{temp}/app.sock"]).start();
    for address in server.addresses() {
        let mut client = Client::connect(address);
        let fields = ["X-Forwarded-For: 6.6.6.6, 192.0.2.7", "X-Forwarded-Proto: https"];
        let got = seen(&ask(&mut client, &fields));
        assert_eq!(got[..3], ["192.0.2.7", "", "https"], "an address that the client may have made up is not walked past");
    }
    server.stop();
    // The other end of a unix socket is always trusted, and has no address.
    let server = Server::new("probe")
        .options(["--forwarded-allow-ips", "10.0.0.0/8", "--trusted-proxy-headers", FOR])
        .binds(["unix:{temp}/app.sock"])
        .start();
    let mut client = server.connect();
    assert_eq!(seen(&ask(&mut client, &["X-Forwarded-For: 192.0.2.7, 10.0.0.1"]))[..2], ["192.0.2.7", ""]);
    assert_eq!(seen(&ask(&mut client, &[]))[..2], ["", ""]);
    server.stop();
}

#[test]
fn without_the_option_only_the_scheme_is_believed() {
    let server = Server::new("probe").options(["--forwarded-allow-ips", PROXIES]).start();
    let mut client = server.connect();
    let fields = ["X-Forwarded-For: 192.0.2.7", "X-Forwarded-Proto: https", "X-Forwarded-Host: a", "Forwarded: for=192.0.2.7"];
    let environ = ask(&mut client, &fields);
    let got = seen(&environ);
    assert_eq!((got[0].as_str(), got[2].as_str(), got[3].as_str()), ("127.0.0.1", "https", "plain.test:81"));
    assert_eq!((environ["HTTPS"].as_str(), environ["HTTP_X_FORWARDED_FOR"].as_str()), (None, Some("192.0.2.7")));
    server.stop();
}

#[test]
fn fields_that_are_not_believed_can_be_hidden() {
    const SENT: [&str; 9] = [
        "X-Forwarded-For: 192.0.2.7",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: a",
        "X-Forwarded-User: root",
        "Forwarded: for=192.0.2.7",
        "X-Real-IP: 192.0.2.7",
        "X-Scheme: https",
        "X-Forwarded: no",
        "X-Other: stays",
    ];
    let shown = |environ: &Value| -> Vec<String> {
        let names = environ.as_object().expect("an object").keys();
        names.filter(|name| name.starts_with("HTTP_X_") || *name == "HTTP_FORWARDED").map(|name| name[5..].to_owned()).collect()
    };
    let everything: Vec<String> =
        SENT.iter().map(|field| field[..field.find(':').unwrap_or(0)].to_ascii_uppercase().replace('-', "_")).collect();
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    for (trusted, of_proxy) in [
        (None, everything),
        (Some(FOR), ["X_FORWARDED_FOR", "X_FORWARDED_USER", "X_FORWARDED", "X_OTHER"].map(str::to_owned).to_vec()),
        (Some(STANDARD), ["FORWARDED", "X_FORWARDED_USER", "X_FORWARDED", "X_OTHER"].map(str::to_owned).to_vec()),
        (Some(REAL), ["X_REAL_IP", "X_SCHEME", "X_FORWARDED_USER", "X_FORWARDED", "X_OTHER"].map(str::to_owned).to_vec()),
    ] {
        let mut server = Server::new("probe").options(["--forwarded-allow-ips", PROXIES, "--clear-untrusted-proxy-headers"]);
        if let Some(trusted) = trusted {
            server = server.options(["--trusted-proxy-headers", trusted]);
        }
        let server = server.start();
        let mut client = server.connect();
        let mut stranger = Client::connect_from(STRANGER, server.address());
        for _ in 0..5 {
            assert_eq!(sorted(shown(&ask(&mut client, &SENT))), sorted(of_proxy.clone()), "{trusted:?}");
            assert_eq!(sorted(shown(&ask(&mut stranger, &SENT))), ["X_FORWARDED", "X_OTHER"], "{trusted:?}");
            assert_eq!(seen(&ask(&mut stranger, &SENT))[2], "http");
        }
        server.stop();
    }
}

#[test]
fn the_proxy_protocol_names_who_has_sent_the_fields() {
    let server = server(ALL).options(["--proxy-protocol", "auto"]).start();
    let begun = |source: &str| {
        let mut client = server.connect();
        client.send(format!("PROXY TCP4 {source} 127.0.0.1 4711 80\r\n"));
        client
    };
    let fields = [
        "X-Forwarded-For: 6.6.6.6, 192.0.2.7",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: told.test",
        "X-Forwarded-Prefix: /told",
    ];
    for _ in 0..4 {
        // The fields are those of the client that the preface names: a proxy of connections writes none.
        let mut client = begun("198.51.100.1");
        for _ in 0..4 {
            let [addr, port, scheme, host, .., script] = seen(&ask(&mut client, &fields));
            assert_eq!([addr, port, scheme, host, script], ["198.51.100.1", "4711", "http", "plain.test:81", ""]);
        }
        let mut client = begun("10.0.0.7");
        for _ in 0..4 {
            let [addr, port, scheme, host, .., script] = seen(&ask(&mut client, &fields));
            assert_eq!([addr, port, scheme, host, script], ["192.0.2.7", "", "https", "told.test", "/told"]);
            assert_eq!(seen(&ask(&mut client, &[]))[..3], ["10.0.0.7", "4711", "http"]);
        }
    }
    server.stop();
}

#[test]
fn without_the_option_who_connects_tells_the_scheme_also_by_the_proxy_protocol() {
    let server = Server::new("probe").options(["--forwarded-allow-ips", PROXIES, "--proxy-protocol", "auto"]).start();
    let mut client = server.connect();
    client.send("PROXY TCP4 198.51.100.1 127.0.0.1 4711 80\r\n");
    for _ in 0..4 {
        let told = seen(&ask(&mut client, &["X-Forwarded-Proto: https", "X-Forwarded-Host: told.test"]));
        assert_eq!(told[..4], ["198.51.100.1", "4711", "https", "plain.test:81"]);
    }
    server.stop();
}

#[test]
fn one_block_tells_more_where_its_sender_is_trusted() {
    let server = server(STANDARD).options(["--proxy-protocol", "auto"]).start();
    let mut clients = ["198.51.100.1", "10.0.0.7"].map(|source| {
        let mut client = server.connect();
        client.send(format!("PROXY TCP4 {source} 127.0.0.1 4711 80\r\n"));
        client
    });
    // The fields are the same bytes, and their block is known from its third coming on. What is told differs in one thing alone.
    for (fields, of_proxy) in [
        ("Forwarded: for=192.0.2.7;proto=https, for=10.0.0.1;proto=http", ["https", "plain.test:81"]),
        ("Forwarded: for=192.0.2.7;host=shop.test, for=10.0.0.1;host=inner.test", ["http", "shop.test"]),
    ] {
        for _ in 0..5 {
            let [stranger, proxy] = clients.each_mut().map(|client| seen(&ask(client, &[fields])));
            assert_eq!(stranger[..4], ["198.51.100.1", "4711", "http", "plain.test:81"]);
            assert_eq!(proxy[..4], ["192.0.2.7", "", of_proxy[0], of_proxy[1]]);
        }
    }
    server.stop();
}

#[test]
fn a_proxy_that_speaks_tls_tells_of_a_client_that_does_not() {
    let server = server("x-forwarded-proto").tls().start();
    let mut client = server.connect();
    for _ in 0..5 {
        for (field, scheme, https) in [
            ("X-Forwarded-Proto: http", "http", None),
            ("X-Other: 1", "https", Some("on")),
            ("X-Forwarded-Proto: https", "https", Some("on")),
        ] {
            let environ = ask(&mut client, &[field]);
            assert_eq!((environ["wsgi.url_scheme"].as_str(), environ["HTTPS"].as_str()), (Some(scheme), https), "{field}");
        }
    }
    server.stop();
}

#[test]
fn logs_and_status_name_the_client_and_the_peer() {
    let server = server(FOR);
    let path = server.temp().join("access");
    let format = "%(h)s %(P)s %(s)s";
    let server = server.options(["--access-logfile", &path.display().to_string(), "--access-logformat", format]).start();
    let mut client = server.connect();
    ask(&mut client, &["X-Forwarded-For: 192.0.2.7"]);
    ask(&mut client, &[]);
    // One that is refused after its head, and one before.
    client.send("POST / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.8\r\nContent-Length: x\r\n\r\n");
    assert_eq!(client.response().status, 400);
    assert_eq!(server.exchange("nonsense\r\n\r\n").status, 400);
    let lines = wait_for("four lines", SOON, || {
        let log = fs::read_to_string(&path).unwrap_or_default();
        (log.lines().count() == 4).then_some(log)
    });
    let wanted = ["192.0.2.7 127.0.0.1 200", "127.0.0.1 127.0.0.1 200", "192.0.2.8 127.0.0.1 400", "127.0.0.1 127.0.0.1 400"];
    assert_eq!(lines.lines().collect::<Vec<_>>(), wanted);
    server.stop();
}

#[test]
fn other_names_and_mixtures_are_refused() {
    for (list, parts) in [
        ("forwarded x-forwarded-for", &["--trusted-proxy-headers", "different families"][..]),
        ("x-real-ip,x-forwarded-for", &["different families"]),
        ("true-client-ip", &["no field of proxies", "known: x-forwarded-for"]),
    ] {
        Server::new("probe").options(["--trusted-proxy-headers", list]).run_to_end().failed(2, parts);
    }
}

/// A gateway's request, as uwsgi has it, whose answers look like those of HTTP.
fn by_gateway(server: &Running, variables: &[(&str, &str)]) -> Response {
    let first =
        [("REQUEST_METHOD", "GET"), ("REQUEST_URI", "/environ"), ("PATH_INFO", "/environ"), ("SERVER_PROTOCOL", "HTTP/1.1")];
    let mut pairs = Vec::new();
    for text in first.iter().chain(variables).flat_map(|(name, value)| [name, value]) {
        pairs.extend_from_slice(&(text.len() as u16).to_le_bytes());
        pairs.extend_from_slice(text.as_bytes());
    }
    let mut client = server.connect();
    let [low, high] = (pairs.len() as u16).to_le_bytes();
    client.send([&[0, low, high, 0], pairs.as_slice()].concat());
    client.response()
}

#[test]
fn of_a_gateway_the_address_that_it_names_is_the_first_hop() {
    let server = Server::new("probe")
        .binds(["uwsgi:127.0.0.1:0"])
        .options(["--forwarded-allow-ips", PROXIES, "--trusted-proxy-headers", ALL, "--request-id"])
        .start();
    let fields = [
        ("HTTP_X_FORWARDED_FOR", "6.6.6.6, 192.0.2.7"),
        ("HTTP_X_FORWARDED_PROTO", "https"),
        ("HTTP_X_FORWARDED_PREFIX", "/a"),
        ("HTTP_X_REQUEST_ID", "of-the-front"),
    ];
    let ask = |remote: &[(&str, &str)]| {
        let response = by_gateway(&server, &[remote, &fields].concat());
        let environ = response.json();
        assert_eq!(
            (environ["HTTP_X_REQUEST_ID"].as_str(), response.field("x-request-id")),
            (Some("of-the-front"), Some("of-the-front"))
        );
        let names = ["REMOTE_ADDR", "REMOTE_PORT", "wsgi.url_scheme", "SCRIPT_NAME"];
        names.map(|name| environ[name].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(ask(&[("REMOTE_ADDR", "198.51.100.1"), ("REMOTE_PORT", "4711")]), ["198.51.100.1", "4711", "http", ""]);
    assert_eq!(ask(&[("REMOTE_ADDR", "10.0.0.1"), ("REMOTE_PORT", "4711")]), ["192.0.2.7", "", "https", "/a"]);
    assert_eq!(ask(&[]), ["", "", "http", ""]);
    server.stop();
}
