//! Real frameworks driven by real clients: Flask, Django, Bottle, Falcon and Pyramid from a virtual environment, asked by
//! Python's requests and by curl.

mod common;
#[path = "gateways/front.rs"]
mod front;

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::load::Plan;
use common::server::{Running, Server};
use common::{apps, tls, tools, venv};
use front::Front;

/// Time for one run of a client script.
const CLIENT_LIMIT: Duration = Duration::from_secs(120);

/// The body that curl uploads, in bytes.
const UPLOAD_SIZE: usize = 20 * 1024 * 1024;

fn framework(app: &str, workers: usize) -> Server {
    Server::new(app).frameworks().workers(workers)
}

/// A server of the Django project with a fresh database in its own directory.
fn django(workers: usize) -> Server {
    let server = framework("djangoproj.wsgi", workers);
    let dir = server.temp().join("django");
    fs::create_dir(&dir).expect("the temp directory is writable");
    let mut prepare = Command::new(venv::python());
    prepare.args(["-m", "djangoproj.prepare"]).current_dir(apps()).env("DJANGO_DIR", &dir).env("PYTHONDONTWRITEBYTECODE", "1");
    tools::run(&mut prepare, CLIENT_LIMIT).succeeded();
    server.env("DJANGO_DIR", dir.display().to_string())
}

fn client(script: &str, url: &str, more: &[&Path]) -> Command {
    let mut client = Command::new(venv::python());
    client.arg(apps().join("clients").join(script)).arg(url).args(more);
    client
}

#[track_caller]
fn run_client(script: &str, server: &Running, more: &[&Path]) {
    let mut client = client(script, &server.address().to_string(), more);
    tls::trust(&mut client, server.address());
    tools::run(&mut client, CLIENT_LIMIT).succeeded();
}

/// Runs curl against a path of the server; `None` when it is not installed.
#[track_caller]
fn curl(server: &Running, options: &[&str], path: &str) -> Option<String> {
    let mut curl = Command::new(tools::tool("curl")?);
    tls::trust(&mut curl, server.address());
    curl.args(["--silent", "--show-error", "--fail", "--max-time", "60", "--noproxy", "*"]).args(options).arg(server.url(path));
    Some(tools::run(&mut curl, CLIENT_LIMIT).succeeded().stdout)
}

fn hello(app: &str, text: &str, body: Option<&str>) {
    for workers in [1, 4] {
        let server = framework(app, workers).start();
        assert_eq!(server.workers().len(), workers);
        let mut client = server.connect();
        for _ in 0..20 {
            assert_eq!(client.get("/").text(), text);
            assert_eq!(server.get("/").text(), text);
        }
        if let Some(path) = body {
            client.send(format!("POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nbody"));
            assert_eq!(client.response().text(), "body");
            client
                .send(format!("POST {path} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"));
            assert_eq!(client.response().text(), "body", "chunked");
            assert_eq!(client.get("/").text(), text);
        }
        server.stop();
    }
}

#[test]
fn flask_says_hello() {
    hello("flask_app", "Hello from Flask", None);
}

#[test]
fn bottle_says_hello() {
    hello("bottle_app", "Hello from Bottle", Some("/body"));
}

#[test]
fn falcon_says_hello() {
    hello("falcon_app:app", "Hello from Falcon", Some("/body"));
}

#[test]
fn pyramid_says_hello() {
    hello("pyramid_app", "Hello from Pyramid", Some("/body"));
}

#[test]
fn flask_serves_forms_cookies_streams_and_uploads() {
    for workers in [1, 4] {
        let server = framework("flask_app:app", workers).start();
        run_client("flask_client.py", &server, &[]);
        server.stop();
    }
}

#[test]
fn a_fault_that_a_framework_logs_itself_is_in_the_error_log() {
    let server = framework("flask_app:app", 1).start();
    assert_eq!(server.get("/fail").status, 500);
    server.log().wait(&["LookupError: a fault in a view"]);
    server.log().wait(&["Exception on /fail [GET]"]);
    server.stop();
}

#[test]
fn django_serves_admin_uploads_streams_and_downloads() {
    for workers in [1, 4] {
        let server = django(workers).start();
        let dir = server.temp().join("django");
        run_client("django_client.py", &server, &[&dir]);
        server.stop();
    }
}

#[test]
fn flask_and_django_are_served_behind_web_servers_by_each_gateway_protocol() {
    for block in ["nginx fastcgi", "nginx scgi", "nginx uwsgi", "apache ajp"] {
        for is_django in [false, true] {
            let (_, protocol) = block.split_once(' ').expect("front and protocol");
            let server = if is_django { django(2) } else { framework("flask_app:app", 2) };
            let server = server.binds([format!("{protocol}:127.0.0.1:0")]).options(["--keep-alive", "75"]).start();
            // The clients speak to no unix socket.
            let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port is free");
            let is_nginx = block.starts_with("nginx");
            // Apache drops the Content-Length of downloads otherwise.
            let apache = "SetEnvIf Request_URI . ap_trust_cgilike_cl\n".to_owned();
            let more = if is_nginx { format!("listen {free};\n") } else { apache };
            let Some(front) = Front::start(block, server.address(), &[("", &more)]) else { return };
            let address = if is_nginx { free } else { front.address().tcp() };
            let (url, dir) = (format!("http://{address}"), server.temp().join("django"));
            if is_django {
                tools::run(&mut client("django_client.py", &url, &[&dir]), CLIENT_LIMIT).succeeded();
            } else {
                tools::run(&mut client("flask_client.py", &url, &[]), CLIENT_LIMIT).succeeded();
            }
            server.stop();
        }
    }
}

#[test]
fn flask_and_django_serve_clients_and_load_with_eight_threads() {
    for django_project in [false, true] {
        let server = if django_project { django(1) } else { framework("flask_app:app", 1) };
        let server = server.options(["--threads", "8"]).start();
        let dir = server.temp().join("django");
        let mut plan = Plan::new(server.address());
        plan.clients = 16;
        plan.pause = Duration::from_millis(50);
        let load = plan.start();
        if django_project {
            run_client("django_client.py", &server, &[&dir]);
        } else {
            run_client("flask_client.py", &server, &[]);
        }
        load.wait_for_more(50);
        load.stop().assert_flawless();
        server.stop();
    }
}

#[test]
fn django_closes_a_stream_that_its_client_left() {
    let server = django(1).start();
    let mut client = server.connect();
    client.send("GET /stream-closed/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    assert!(matches!(client.fill(), Ok(1..)));
    drop(client);
    let closed = server.temp().join("django/media/closed");
    common::wait_for("close() of the stream", common::SOON, || closed.exists().then_some(()));
    server.stop();
}

#[test]
fn curl_uploads_and_downloads() {
    let server = django(2).start();
    let file = server.temp().join("upload.bin");
    fs::write(&file, vec![b'u'; UPLOAD_SIZE]).expect("the temp directory is writable");
    let upload = format!("@{}", file.display());
    let Some(answer) = curl(&server, &["--data-binary", &upload], "/raw/") else { return };
    assert!(answer.contains(&format!("\"length\": {UPLOAD_SIZE}")), "{answer}");
    let chunked = curl(&server, &["--header", "Transfer-Encoding: chunked", "--data-binary", &upload], "/raw/");
    assert_eq!(chunked.as_ref(), Some(&answer));
    let awaited = curl(&server, &["--header", "Expect: 100-continue", "--data-binary", &upload], "/raw/");
    assert_eq!(awaited.as_ref(), Some(&answer));
    let with_1_0 = curl(&server, &["--http1.0", "--data-binary", &upload], "/raw/");
    assert_eq!(with_1_0.as_ref(), Some(&answer));

    let target = server.temp().join("download.bin");
    let whole = fs::read(server.temp().join("django/media/download.bin")).expect("the project has a file");
    let output = target.display().to_string();
    curl(&server, &["--output", &output], "/download/");
    assert!(fs::read(&target).expect("curl wrote it") == whole);
    fs::write(&target, &whole[..500_000]).expect("the temp directory is writable");
    curl(&server, &["--continue-at", "-", "--output", &output], "/range/");
    assert!(fs::read(&target).expect("curl wrote it") == whole, "a download is resumed");
    curl(&server, &["--range", "100-199", "--output", &output], "/range/");
    assert!(fs::read(&target).expect("curl wrote it") == whole[100..200]);

    let head = curl(&server, &["--head"], "/download/").unwrap_or_default();
    assert!(head.contains("200 OK") && head.contains(&format!("Content-Length: {}", whole.len())), "{head}");
    let streamed = curl(&server, &["--no-buffer"], "/stream/").unwrap_or_default();
    assert_eq!(streamed.lines().count(), 10_000);
    server.stop();
}
