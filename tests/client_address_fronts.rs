//! The address of the client behind a real nginx and a real haproxy, which append to what the client has forged.

mod common;

use std::net::Ipv4Addr;
use std::process::Command;

use common::client::Client;
use common::relay::{HAPROXY, NGINX, Relay, TIMES};
use common::server::{Running, Server};
use common::{SOON, tools};

/// What a client sends in the hope to pass for another.
const FORGED: &str = "X-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6;proto=https\r\nX-Real-IP: 6.6.6.6\r\nX-Forwarded-Proto: gopher\r\n\
                      X-Request-ID: of-the-client\r\n";

/// The client; the front is 127.0.0.1.
const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 77);

fn nginx(server: &Running, fields: &str) -> Option<Relay> {
    let upstream = server.address().tcp();
    Relay::start("nginx", &NGINX, |address, dir| {
        format!(
            "daemon off; master_process off; pid {dir}/pid; error_log {dir}/error.log;\nevents {{}}\nhttp {{\n\
             access_log off; client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f;\n\
             uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;\n\
             map $remote_addr $proxy_forwarded_elem {{ ~^[0-9.]+$ \"for=$remote_addr;proto=https\"; default \"for=unknown\"; }}\n\
             map $http_forwarded $proxy_add_forwarded {{ \"\" $proxy_forwarded_elem; default \"$http_forwarded, $proxy_forwarded_elem\"; }}\n\
             upstream app {{ server {upstream}; keepalive 4; }}\n\
             server {{ listen {address}; location / {{ proxy_pass http://app; proxy_http_version 1.1;\n\
             proxy_set_header Connection \"\"; proxy_set_header Host $http_host; {fields} }} }} }}\n"
        )
    })
}

fn haproxy(server: &Running, lines: &str) -> Option<Relay> {
    let upstream = server.address().tcp();
    Relay::start("haproxy", &HAPROXY, |address, _| {
        format!(
            "defaults\n mode http\n {TIMES}\n\
             frontend f\n bind {address}\n {lines}\n default_backend b\nbackend b\n server s {upstream}\n"
        )
    })
}

/// The client's address and scheme are what the application sees, whatever the client has sent, and those of no other one.
#[track_caller]
fn assert_names_clients(relay: &Relay, scheme: &str) {
    let mut one = Client::connect_from(CLIENT, relay.address());
    let mut other = Client::connect_from(Ipv4Addr::new(127, 0, 0, 78), relay.address());
    for n in 0..10 {
        for (client, addr) in [(&mut one, CLIENT.to_string()), (&mut other, "127.0.0.78".to_owned())] {
            client.send(format!("GET /environ HTTP/1.1\r\nHost: shop.test\r\n{}\r\n", if n % 2 == 0 { FORGED } else { "" }));
            let seen = client.response().json();
            assert_eq!((seen["REMOTE_ADDR"].as_str(), seen["wsgi.url_scheme"].as_str()), (Some(&*addr), Some(scheme)), "{seen}");
            assert_eq!(seen["HTTP_HOST"], "shop.test");
            if n % 2 == 0 {
                assert_eq!(seen["HTTP_X_REQUEST_ID"], "of-the-client", "the front is trusted, and has passed it on");
            }
        }
    }
}

/// A server behind a front at 127.0.0.1.
fn server(trusted: &str) -> Running {
    let options = ["--trusted-proxy-headers", trusted, "--request-id", "--keep-alive", "75"];
    Server::new("probe").workers(2).options(options).start()
}

#[test]
fn nginx_names_its_clients_in_each_family() {
    for (trusted, fields, scheme) in [
        (
            "x-forwarded-for x-forwarded-proto",
            "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme;",
            "http",
        ),
        ("x-real-ip x-scheme", "proxy_set_header X-Real-IP $remote_addr; proxy_set_header X-Scheme https;", "https"),
        ("forwarded", "proxy_set_header Forwarded $proxy_add_forwarded;", "https"),
    ] {
        let server = server(trusted);
        let Some(front) = nginx(&server, fields) else { return };
        assert_names_clients(&front, scheme);
        drop(front);
        server.stop();
    }
}

#[test]
fn haproxy_names_its_clients() {
    for (trusted, lines, scheme) in [
        // Without an argument haproxy adds a line of its own behind that of the client.
        ("x-forwarded-for,x-forwarded-proto", "option forwardfor\n http-request set-header X-Forwarded-Proto https", "https"),
        ("forwarded", "http-request add-header Forwarded for=%[src];proto=http", "http"),
    ] {
        let server = server(trusted);
        let Some(front) = haproxy(&server, lines) else { return };
        assert_names_clients(&front, scheme);
        drop(front);
        server.stop();
    }
}

#[test]
fn haproxy_writes_forwarded_itself() {
    let Some(program) = tools::tool("haproxy") else { return };
    let version = tools::run(Command::new(program).arg("-v"), SOON).stdout;
    let number = |part: Option<&str>| part.and_then(|part| part.parse::<u32>().ok()).unwrap_or(0);
    let mut parts = version.split("version ").nth(1).unwrap_or_default().split(['.', '-']);
    if (number(parts.next()), number(parts.next())) < (2, 8) {
        eprintln!("SKIPPED: option forwarded needs haproxy 2.8: {}", version.lines().next().unwrap_or_default());
        return;
    }
    let server = server("forwarded");
    let Some(front) = haproxy(&server, "option forwarded") else { return };
    assert_names_clients(&front, "http");
    drop(front);
    server.stop();
}

#[test]
fn two_proxies_in_a_row_are_walked_past() {
    let server = server("x-forwarded-for");
    let Some(inner) = nginx(&server, "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;") else { return };
    let address = inner.address().tcp();
    let outer = Relay::start("haproxy", &HAPROXY, |front, _| {
        format!(
            "defaults\n mode http\n {TIMES}\n\
             frontend f\n bind {front}\n option forwardfor\n default_backend b\nbackend b\n server s {address}\n"
        )
    });
    let Some(outer) = outer else { return };
    assert_names_clients(&outer, "http");
    drop((outer, inner));
    server.stop();
}
