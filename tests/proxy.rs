//! With a reverse proxy in front: nginx over TCP and a unix socket, and the peers that the server believes about the client's
//! scheme.

mod common;

use std::fs;
use std::process::{Child, Command, Stdio};

use common::client::{Address, Client};
use common::server::{Running, Server};
use common::{SOON, apps, tools, venv, wait_for};

/// Requests through the proxy in one test.
const REQUESTS: usize = 300;

/// A large answer and a large upload, in bytes.
const LARGE: usize = 5_000_000;

/// Longer than nginx keeps its connections to the server by default (60 s), so that none is closed just when it is used again.
const KEEP_ALIVE: [&str; 2] = ["--keep-alive", "75"];

/// nginx in front of a server, killed at the end.
struct Nginx {
    child: Child,
    dir: tempfile::TempDir,
}

impl Nginx {
    /// Starts it in the foreground with all its files in a fresh directory, listening on a unix socket there.
    fn start(server: &Running, http_version: &str) -> Option<Self> {
        let program = tools::tool("nginx")?;
        let dir = tempfile::tempdir().expect("the temp directory is writable");
        let path = dir.path().display();
        let upstream = match server.address() {
            Address::Tcp(address) | Address::Tls(address) => address.to_string(),
            Address::Unix(socket) => format!("unix:{}", socket.display()),
        };
        let connection = if http_version == "1.1" { "proxy_set_header Connection \"\";" } else { "" };
        let config = format!(
            "daemon off; master_process off; pid {path}/pid; error_log {path}/error.log;\nevents {{}}\nhttp {{\n\
             access_log off; client_max_body_size 0; client_body_temp_path {path}/body; proxy_temp_path {path}/proxy;\n\
             fastcgi_temp_path {path}/f; uwsgi_temp_path {path}/u; scgi_temp_path {path}/s;\n\
             upstream app {{ server {upstream}; keepalive 4; }}\n\
             server {{ listen unix:{path}/front.sock;\n\
             location / {{ proxy_pass http://app; proxy_http_version {http_version}; {connection}\n\
             proxy_set_header Host $host; proxy_set_header X-Forwarded-Proto https; proxy_set_header X-Forwarded-For 192.0.2.1; }}\n\
             location /unbuffered/ {{ proxy_pass http://app/; proxy_http_version {http_version}; {connection}\n\
             proxy_request_buffering off; proxy_buffering off; }}\n\
             location /sockets/ {{ proxy_pass http://app/; proxy_http_version 1.1; proxy_set_header Host $host;\n\
             proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \"upgrade\"; }} }} }}\n"
        );
        fs::write(dir.path().join("nginx.conf"), config).expect("the temp directory is writable");
        let mut command = Command::new(program);
        command
            .arg("-p")
            .arg(dir.path())
            .arg("-c")
            .arg(dir.path().join("nginx.conf"))
            .arg("-e")
            .arg(dir.path().join("error.log"));
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("nginx can be started");
        let nginx = Self { child, dir };
        wait_for("nginx to listen", SOON, || Client::try_connect(&nginx.address()).is_ok().then_some(()));
        Some(nginx)
    }

    fn address(&self) -> Address {
        Address::Unix(self.dir.path().join("front.sock"))
    }

    /// What nginx holds against its upstream.
    fn complaints(&self) -> String {
        let log = fs::read_to_string(self.dir.path().join("error.log")).unwrap_or_default();
        log.lines().filter(|line| line.contains("upstream")).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Every kind of request through the proxy.
#[track_caller]
fn assert_serves_through(nginx: &Nginx) {
    let mut client = Client::connect(&nginx.address());
    for n in 0..REQUESTS {
        let response = client.get("/");
        assert_eq!(response.text(), "hello\n", "request {n}: {response:?}");
    }
    for prefix in ["", "/unbuffered"] {
        assert_eq!(client.get(&format!("{prefix}/no-length")).text(), "one two three");
        assert_eq!(client.get(&format!("{prefix}/big?n={LARGE}")).body.len(), LARGE);
        assert_eq!(client.get(&format!("{prefix}/no-content")).status, 204);
        client.send(format!("HEAD {prefix}/ HTTP/1.1\r\nHost: test\r\n\r\n"));
        assert_eq!(client.response_to("HEAD").field("content-length"), Some("6"));
        client.send(format!("POST {prefix}/digest HTTP/1.1\r\nHost: test\r\nContent-Length: {LARGE}\r\n\r\n"));
        client.send(vec![b'x'; LARGE]);
        let by_length = client.response().text();
        assert!(by_length.starts_with(&format!("{LARGE} ")), "{by_length}");
        client.send(format!("POST {prefix}/digest HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n{LARGE:x}\r\n"));
        client.send(vec![b'x'; LARGE]);
        client.send("\r\n0\r\n\r\n");
        assert_eq!(client.response().text(), by_length, "chunked");
    }
    let seen = client.get("/environ?a=%2F").json();
    assert_eq!((&seen["wsgi.url_scheme"], &seen["QUERY_STRING"]), (&"https".into(), &"a=%2F".into()), "{seen}");
    assert_eq!(nginx.complaints(), "");
}

#[test]
fn nginx_is_served_over_tcp_and_unix_sockets_in_both_versions() {
    for bind in ["127.0.0.1:0", "unix:{temp}/app.sock"] {
        for version in ["1.0", "1.1"] {
            let server = Server::new("probe").binds([bind]).workers(2).options(KEEP_ALIVE).start();
            let Some(nginx) = Nginx::start(&server, version) else { return };
            assert_serves_through(&nginx);
            drop(nginx);
            server.stop();
        }
    }
}

#[test]
fn websockets_pass_through_nginx() {
    for bind in ["127.0.0.1:0", "unix:{temp}/app.sock"] {
        let server = Server::new("sockets").frameworks().binds([bind]).options(["--threads", "4"]).options(KEEP_ALIVE);
        let temp = server.temp().display().to_string();
        let server = server.env("SOCKETS_DIR", temp).start();
        let Some(nginx) = Nginx::start(&server, "1.1") else { return };
        let mut client = Command::new(venv::python());
        client.arg(apps().join("clients/websocket_client.py")).arg(nginx.address().to_string());
        for scenario in ["echo", "bye"] {
            tools::run(client.arg(scenario).env("PREFIX", "/sockets"), SOON).succeeded();
        }
        let mut plain = Client::connect(&nginx.address());
        assert!(plain.get("/sockets/").text().starts_with("hello "));
        // nginx has asked for an upgrade in its client's place; the application has nothing to say to that.
        assert_eq!(plain.get("/sockets/raw/refuse").status, 426);
        assert_eq!(plain.get("/echo").status, 400);
        assert_eq!(nginx.complaints(), "");
        drop(nginx);
        server.stop();
    }
}

#[test]
fn only_trusted_peers_say_the_scheme() {
    let request = "GET /environ HTTP/1.1\r\nHost: test\r\nX-Forwarded-Proto: https\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n";
    for (trusted, scheme) in [("127.0.0.1", "https"), ("10.0.0.0/8", "http"), ("*", "https"), ("127.0.0.0/8,::1", "https")] {
        let server = Server::new("probe").options(["--forwarded-allow-ips", trusted]).start();
        let seen = server.exchange(request).json();
        assert_eq!(seen["wsgi.url_scheme"], scheme, "{trusted}: {seen}");
        assert_eq!(seen["REMOTE_ADDR"], "127.0.0.1", "the peer, not what a field claims");
        server.stop();
    }
    let server = Server::new("probe").start();
    let odd = server.exchange("GET /environ HTTP/1.1\r\nHost: test\r\nX-Forwarded-Proto: javascript\r\n\r\n").json();
    assert_eq!(odd["wsgi.url_scheme"], "http", "a scheme that is none is not believed");
    server.stop();
}
