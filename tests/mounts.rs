//! Several applications in one server (`--mount`): which one has a request, what it is told of its place, and how they are loaded.

#[path = "mounts/cases.rs"]
mod cases;
mod common;
#[path = "gateways/wire.rs"]
mod wire;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::sys::signal::Signal;

use cases::{CASES, Case, HOSTS};
use common::client::{Client, Response};
use common::server::{Running, Server, signal_to};
use common::{SOON, wait_for};

/// Applications that say which of them was called, and with which place.
const APP: &str = r#"
import json, os, time

def make(name):
    def application(environ, start_response):
        if environ['PATH_INFO'].endswith('/missing'):
            start_response('404 Not Found', [('Content-Length', '4')])
            return [b'none']
        if environ['PATH_INFO'].endswith('/slow'):
            time.sleep(0.05)
        seen = [name, environ['SCRIPT_NAME'], environ['PATH_INFO'], environ['QUERY_STRING'], environ['RAW_URI']]
        body = json.dumps(seen).encode()
        start_response('200 OK', [('Content-Type', 'application/json'), ('Content-Length', str(len(body)))])
        return [body]
    return application

app = make('main')
"#;

/// A server with these mounts of applications that are called as their mounts.
fn server(mounts: &[&str]) -> Server {
    let option = |mount: &&str| format!("--mount={mount}=app:make('{mount}')");
    Server::source(APP).options(mounts.iter().map(option))
}

/// Mounts of the table, in an order that must not matter.
const MOUNTS: [&str; 10] =
    ["/a", "/a/b", "/ab", "/sp ace", "/gr\u{fc}n", "h.test:/", "h.test:/a", "h.test:/only", "[::1]:/six", "10.0.0.1:/four"];

/// Name, SCRIPT_NAME, PATH_INFO.
#[track_caller]
fn seen(response: &Response) -> [String; 3] {
    let seen: Vec<String> = serde_json::from_slice(&response.body).unwrap_or_else(|_| panic!("{response:?}"));
    [seen[0].clone(), seen[1].clone(), seen[2].clone()]
}

#[track_caller]
fn check(case: &Case, root: &str, response: &Response) {
    let Case { target, app, script, path, .. } = case;
    let expected = [(*app).to_owned(), format!("{root}{script}"), (*path).to_owned()];
    assert_eq!(seen(response), expected, "{target}");
}

fn request(host: &str, target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nX-Same: 1\r\n\r\n")
}

#[test]
fn every_case_of_the_table_on_kept_connections_and_pipelined() {
    for threads in ["1", "4"] {
        let server = server(&MOUNTS).options(["--threads", threads]).start();
        let mut client = server.connect();
        // More than once: header blocks and targets are known then.
        for _ in 0..5 {
            for case in CASES.iter().chain(HOSTS) {
                client.send(request(case.host, case.target));
                check(case, "", &client.response());
            }
        }
        let all: Vec<&Case> = CASES.iter().chain(HOSTS).collect();
        for shift in 0..4 {
            // Neighbours in the pipeline differ each time.
            let order: Vec<&Case> = (0..all.len()).map(|at| all[(at * 7 + shift) % all.len()]).collect();
            client.send(order.iter().map(|case| request(case.host, case.target)).collect::<String>());
            for case in order {
                check(case, "", &client.response());
            }
        }
        server.stop();
    }
}

#[test]
fn one_header_block_and_one_target_are_told_apart_by_their_application() {
    // The authority of an absolute form names the host, while the fields, which are cached, stay the same.
    let server = server(&["a.test:/", "b.test:/", "/x"]).start();
    let mut client = server.connect();
    for round in 0..20 {
        for (target, expected) in [
            ("http://a.test/x/y", ["a.test:/", "", "/x/y"]),
            ("http://B.test:81/x/y", ["b.test:/", "", "/x/y"]),
            ("http://c.test/x/y", ["/x", "/x", "/y"]),
            ("/x/y", ["/x", "/x", "/y"]),
            ("/y", ["main", "", "/y"]),
        ] {
            client.send(request("c.test", target));
            assert_eq!(seen(&client.response()), expected.map(str::to_owned), "{target} in round {round}");
        }
    }
    // HTTP/1.0 needs no host.
    client.send("GET /x HTTP/1.0\r\n\r\n");
    assert_eq!(seen(&client.response()), ["/x", "/x", ""].map(str::to_owned));
    server.stop();
}

#[test]
fn what_a_trusted_proxy_tells_chooses_the_mount_and_stands_in_front_of_it() {
    let trusted = ["--forwarded-allow-ips", "127.0.0.1", "--trusted-proxy-headers", "x-forwarded-host x-forwarded-prefix"];
    let server = server(&["h.test:/", "/a"]).options(trusted).start();
    let mut client = server.connect();
    for round in 0..5 {
        for (target, host, fields, expected) in [
            ("/x", "t", "", ["main", "", "/x"]),
            ("/x", "t", "X-Forwarded-Host: H.test.:443\r\n", ["h.test:/", "", "/x"]),
            ("/x", "h.test", "X-Forwarded-Host: t\r\n", ["main", "", "/x"]),
            // It tells of the target too.
            ("http://h.test/x", "h.test", "X-Forwarded-Host: t\r\n", ["main", "", "/x"]),
            ("/x", "t", "X-Forwarded-Host: h.test/x\r\n", ["main", "", "/x"]),
            ("/a/x", "t", "X-Forwarded-Prefix: /front\r\n", ["/a", "/front/a", "/x"]),
            ("/x", "t", "X-Forwarded-Prefix: /a\r\n", ["main", "/a", "/x"]),
        ] {
            client.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n"));
            assert_eq!(
                seen(&client.response()),
                expected.map(str::to_owned),
                "{target} of {host} with {fields:?} in round {round}"
            );
        }
    }
    server.stop();
}

#[test]
fn a_root_path_stands_in_front_whether_or_not_the_proxy_has_cut_it_off() {
    let server = server(&["/a", "/a/b"]).options(["--root-path", "/root"]).start();
    let mut client = server.connect();
    for _ in 0..3 {
        for (target, expected) in [
            ("/root/a/x", ["/a", "/root/a", "/x"]),
            ("/a/x", ["/a", "/root/a", "/x"]),
            ("/root/a/b", ["/a/b", "/root/a/b", ""]),
            ("/root/a/b/", ["/a/b", "/root/a/b", "/"]),
            ("/root/b", ["main", "/root", "/b"]),
            ("/roota", ["main", "/root", "/roota"]),
            ("/root", ["main", "/root", ""]),
            ("/r%6fot/%61", ["/a", "/root/a", ""]),
        ] {
            client.send(request("t", target));
            assert_eq!(seen(&client.response()), expected.map(str::to_owned), "{target}");
        }
    }
    server.stop();
}

#[test]
fn a_front_server_has_its_own_script_name() {
    let binds = ["scgi:127.0.0.1:0", "uwsgi:127.0.0.1:0", "127.0.0.1:0"];
    for (root, cases) in [
        (
            "",
            &[
                ("", "/a/x", ["/a", "/a", "/x"]),
                ("", "/a", ["/a", "/a", ""]),
                ("", "/abc", ["main", "", "/abc"]),
                ("/front", "/a/x", ["/a", "/front/a", "/x"]),
                ("/front", "/x", ["main", "/front", "/x"]),
                // It has cut the mount off.
                ("/a", "/x", ["/a", "/a", "/x"]),
                ("/a", "/", ["/a", "/a", "/"]),
                ("/a/b", "/x", ["main", "/a/b", "/x"]),
                ("", "/h/x", ["h.test:/h", "/h", "/x"]),
            ][..],
        ),
        (
            "/root",
            &[
                ("", "/root/a/x", ["/a", "/root/a", "/x"]),
                ("/root", "/a/x", ["/a", "/root/a", "/x"]),
                ("/root/a", "/x", ["/a", "/root/a", "/x"]),
                ("", "/a/x", ["/a", "/root/a", "/x"]),
                ("", "/root/x", ["main", "/root", "/x"]),
            ],
        ),
    ] {
        let server = server(&["/a", "h.test:/h"]).binds(binds).options(["--root-path", root]).start();
        for (address, head) in server.addresses().iter().zip([wire::scgi, wire::uwsgi]) {
            for (script, path, expected) in cases {
                let variables = [("SCRIPT_NAME", *script), ("PATH_INFO", *path), ("HTTP_HOST", "H.test:80")];
                let mut client = Client::connect(address);
                client.send(head(&wire::with(&variables)));
                let bytes = client.rest();
                let start = common::client::find(&bytes, b"\r\n\r\n").expect("there is a head") + 4;
                let body: Vec<String> = serde_json::from_slice(&bytes[start..]).expect("JSON");
                assert_eq!(body[..3], expected.map(str::to_owned), "{script} {path}");
            }
            // HTTP in the same worker has nothing of it.
            let mut client = Client::connect(&server.addresses()[2]);
            client.send("GET /a HTTP/1.0\r\n\r\n");
            assert_eq!(seen(&client.response()), ["/a".to_owned(), format!("{root}/a"), String::new()]);
        }
        server.stop();
    }
}

#[test]
fn without_an_application_for_the_rest_it_is_not_found() {
    let server =
        Server::new("").options(["--access-logfile", "-", "--access-logformat", "%(m)s %(U)s %(s)s %(B)s %({SCRIPT_NAME}e)s"]);
    fs::write(server.temp().join("app.py"), APP).unwrap();
    let here = server.temp().to_owned();
    let server = server.dir(&here).options(["--mount", "/a=app"]).start();
    let mut client = server.connect();
    assert_eq!(client.get("/a/first").status, 200);
    let text = "404 Not Found\nno application is mounted at this path\n";
    for (method, target) in [("GET", "/"), ("POST", "/ab"), ("HEAD", "/x"), ("OPTIONS", "*"), ("GET", "/%61b")] {
        client.send(format!("{method} {target} HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nxy"));
        let response = client.response_to(method);
        assert_eq!((response.status, response.closes()), (404, false), "{method} {target}");
        assert_eq!(response.field("Content-Length"), Some(text.len().to_string().as_str()));
        assert_eq!(response.text(), if method == "HEAD" { "" } else { text });
    }
    assert_eq!(seen(&client.get("/a/x")), ["main", "/a", "/x"].map(str::to_owned), "the connection stays");
    let length = text.len();
    wait_for("the log", SOON, || server.stdout().contains(&format!("HEAD /x 404 0 -\nOPTIONS * 404 {length} -\n")).then_some(()));
    // An answer of the application's own is its own.
    let missing = client.get("/a/missing");
    assert_eq!((missing.status, missing.text().as_str()), (404, "none"));
    // So is the end of a connection.
    client.send("GET /x HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    assert!(client.response().closes() && client.is_closed());
    server.stop();
}

#[test]
fn a_mount_of_everything_takes_the_place_of_the_application() {
    let server = Server::new("");
    fs::write(server.temp().join("app.py"), APP).unwrap();
    let here = server.temp().to_owned();
    let server = server.dir(&here).options(["--mount", "/=app:make('all')", "--mount", "/a=app:make('a')"]).start();
    let mut client = server.connect();
    for (target, expected) in [("/", ["all", "", "/"]), ("/ab", ["all", "", "/ab"]), ("/a", ["a", "/a", ""])] {
        assert_eq!(seen(&client.get(target)), expected.map(str::to_owned));
    }
    client.send("OPTIONS * HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(seen(&client.response()), ["all", "", ""].map(str::to_owned));
    server.stop();
    Server::source(APP)
        .options(["--mount", "/=app:make('all')"])
        .run_to_end()
        .failed(2, &["--mount /=app:make('all') (command line): has every path, so that APP would never be called"]);
}

#[test]
fn static_files_come_first() {
    let server = server(&["/a", "/a/static"]);
    for directory in ["static", "root"] {
        fs::create_dir(server.temp().join(directory)).unwrap();
        fs::write(server.temp().join(directory).join("f.txt"), directory).unwrap();
    }
    let server = server.options(["--static-map", "/a/static=static", "--static-map", "/=root"]).start();
    let mut client = server.connect();
    assert_eq!(client.get("/a/static/f.txt").text(), "static");
    assert_eq!(client.get("/f.txt").text(), "root");
    assert_eq!(client.get("/a/static/none").status, 404);
    assert_eq!(seen(&client.get("/a/f.txt")), ["/a", "/a", "/f.txt"].map(str::to_owned));
    server.stop();
}

#[test]
fn all_threads_of_all_workers_have_all_applications() {
    for more in [&["--threads", "4"][..], &["--threads", "2", "--preload"], &["--preload"]] {
        let server = server(&["/a", "/b"]).workers(2).options(more).start();
        let clients: Vec<_> = (0..8)
            .map(|number| {
                let address = server.address().clone();
                std::thread::spawn(move || {
                    let mut client = Client::connect(&address);
                    for round in 0..40 {
                        let (mount, rest) = (["/a", "/b", ""][(number + round) % 3], ["/slow", "/x"][round % 2]);
                        let name = if mount.is_empty() { "main" } else { mount };
                        let expected = [name, mount, rest].map(str::to_owned);
                        assert_eq!(seen(&client.get(&format!("{mount}{rest}"))), expected);
                    }
                })
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().expect("every answer is right"));
        server.stop();
    }
}

#[test]
fn an_application_that_cannot_be_loaded_fails_the_boot_with_its_traceback() {
    let broken = |more: &[&str]| {
        let server = Server::source(APP);
        fs::write(server.temp().join("broken.py"), "def inner():\n    return 1 / 0\ninner()\n").unwrap();
        server.options(["--mount", "/fine=app", "--mount", "h.test:/bad=broken"]).options(more)
    };
    for more in [&[][..], &["--preload"]] {
        let parts =
            ["--mount h.test:/bad: cannot load broken: importing `broken` raised an exception", "in inner", "ZeroDivisionError"];
        broken(more).run_to_end().failed(4, &parts);
    }
    let ended = broken(&["--check-config"]).run_to_end();
    ended.failed(4, &["--mount h.test:/bad: cannot load broken", "in inner", "ZeroDivisionError"]);
    Server::source(APP).options(["--mount", "/a=none.py"]).run_to_end().failed(4, &["--mount /a: cannot load none.py"]);
    Server::source(APP).options(["--mount", "/a=app", "--check-config"]).run_to_end().failed(0, &[]);
    for (mount, part) in [
        ("a=app", "must be a path, = and an application"),
        ("h.test/a=app", "no colon between host and path; write h.test:/a"),
        ("h.test:80:/a=app", "has a port in its host"),
        ("/a=", "the module is missing"),
    ] {
        Server::source(APP).options(["--mount", mount]).run_to_end().failed(2, &["--mount", mount, part]);
    }
    Server::source(APP)
        .options(["--mount", "/a=app", "--mount", "/a/=app"])
        .run_to_end()
        .failed(2, &["mounts /a for the second time"]);
}

/// Waits until the path has this answer.
#[track_caller]
fn answers(server: &Running, path: &str, text: &str) {
    wait_for(&format!("the answer {text:?}"), SOON, || (server.get(path).text() == text).then_some(()));
}

fn versioned(version: &str) -> String {
    format!("def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'{version}']\n")
}

#[test]
fn the_record_of_a_boot_that_ends_or_hangs_names_the_mount() {
    let app = format!("{APP}\ndef leave():\n    os._exit(7)\n\ndef hang():\n    time.sleep(600)\n");
    for (mounts, parts) in [
        (
            &["/a=app:make('a')", "h.test:/b=app:leave()"][..],
            &["exited with code 7", "was loading the application of --mount h.test:/b"][..],
        ),
        (
            &["/a=app:hang()", "/b=app:make('b')"],
            &["--boot-timeout 3.0 s", "was loading the application of --mount /a\n", "in hang"],
        ),
    ] {
        for preload in [&[][..], &["--preload"]] {
            let mounts = mounts.iter().map(|mount| format!("--mount={mount}"));
            let server = Server::source(&app).workers(1).options(["--boot-timeout", "3"]).options(preload).options(mounts);
            server.run_to_end().failed(3, parts);
        }
    }
    let app = format!("{APP}\ndef app(environ, start_response):\n    os._exit(7)\n");
    let server = Server::source(&app).workers(1).options(["--mount=/a=app:make('a')"]).expect_error("exited with code 7").start();
    server.connect().send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let record = server.log().wait(&["exited with code 7"]);
    assert!(!record.text.contains("was loading"), "the loads are over: {}", record.text);
    server.stop();
}

#[test]
fn a_change_of_any_application_is_loaded() {
    let server = Server::source(&versioned("main 1"));
    let other = server.temp().join("elsewhere");
    fs::create_dir(&other).unwrap();
    let file = other.join("app.py");
    fs::write(&file, versioned("other 1")).unwrap();
    fs::write(server.temp().join("t.toml"), "mount = [\"/o=elsewhere/app.py\"]\nreload = \"on\"\n").unwrap();
    let config = server.temp().join("t.toml").display().to_string();
    let mut server = server.options(["--config", &config]).start();
    // Two files of one name are two modules.
    assert_eq!((server.get("/").text(), server.get("/o").text()), ("main 1".into(), "other 1".into()));
    let save = |path: &Path, text: &str| {
        fs::write(path.with_extension("new"), text).unwrap();
        fs::rename(path.with_extension("new"), path).unwrap();
    };
    save(&file, &versioned("other 2"));
    answers(&server, "/o", "other 2");
    server.expect_error("cannot boot");
    server.expect_error("SyntaxError");
    server.expect_error("reload");
    save(&file, "def\n");
    wait_for("the failure", SOON, || server.log().text().contains("--mount /o: cannot load elsewhere/app.py").then_some(()));
    save(&file, &versioned("other 3"));
    answers(&server, "/o", "other 3");
    save(&server.temp().join("app.py"), &versioned("main 2"));
    answers(&server, "/", "main 2");
    server.stop();
}

#[test]
fn hup_takes_other_mounts() {
    let server = Server::source(APP);
    let config = server.temp().join("t.toml");
    fs::write(&config, "mount = [\"/a=app:make('one')\"]\n").unwrap();
    let server = server.options(["--config", &config.display().to_string()]).start();
    assert_eq!(seen(&server.get("/a/x")), ["one", "/a", "/x"].map(str::to_owned));
    fs::write(&config, "mount = [\"/b=app:make('two')\"]\n").unwrap();
    // While both generations serve, either may answer.
    let before = server.workers();
    server.signal(Signal::SIGHUP);
    server.wait_for_end_of(&before);
    assert_eq!(seen(&server.get("/b/x")), ["two", "/b", "/x"].map(str::to_owned));
    assert_eq!(seen(&server.get("/a/x")), ["main", "", "/a/x"].map(str::to_owned));
    server.stop();
}

#[test]
fn the_functions_of_a_gunicorn_file_see_requests_of_all_applications() {
    let server = server(&["/a"]);
    let config = server.temp().join("gunicorn.conf.py");
    fs::write(
        &config,
        "def pre_request(worker, req):\n    print('before', worker.nr, req.path, flush=True)\n\
         def post_request(worker, req, environ, resp):\n    print('after', environ['SCRIPT_NAME'], resp.status, flush=True)\n",
    )
    .unwrap();
    let server = server.options(["--config", &config.display().to_string()]).start();
    let mut client = server.connect();
    for target in ["/a/x", "/x", "/a/missing"] {
        client.get(target);
    }
    let expected = "before 0 /a/x\nafter /a 200 OK\nbefore 1 /x\nafter  200 OK\nbefore 2 /a/missing\nafter /a 404 Not Found\n";
    wait_for("the lines", SOON, || {
        let text = server.stdout();
        (text.lines().count() >= 6).then(|| assert_eq!(text, expected))
    });
    server.stop();
}

#[test]
fn a_mounted_application_takes_a_connection_over() {
    const SOURCE: &str = "
def app(environ, start_response):
    sock = environ['gunicorn.socket']
    sock.sendall(b'HTTP/1.1 101 Switching Protocols\\r\\nConnection: upgrade\\r\\nUpgrade: websocket\\r\\n\\r\\n'
                 + (environ['SCRIPT_NAME'] + environ['PATH_INFO']).encode())
    sock.close()
    return []
";
    let server = Server::source(SOURCE).options(["--mount", "/ws=app", "--threads", "2"]).start();
    let mut client = server.connect();
    client.send("GET /ws/room HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    let bytes = client.rest();
    assert!(bytes.ends_with(b"\r\n\r\n/ws/room"), "{}", bytes.escape_ascii());
    server.stop();
}

#[test]
fn one_file_is_executed_once_and_files_of_one_name_are_apart() {
    let source = "import json, sys\nprint('executed', __file__[-9:], flush=True)\nNAME = __name__\n\
                  def app(environ, start_response):\n    start_response('200 OK', [])\n    \
                  return [f'{NAME} {sys.modules[NAME].__file__[-9:]}'.encode()]\n";
    let server = Server::source(&versioned("main"));
    let mut options = Vec::new();
    for directory in ["1", "2", "3"] {
        fs::create_dir(server.temp().join(directory)).unwrap();
        fs::write(server.temp().join(directory).join("site.py"), source).unwrap();
        options.push(format!("--mount=/{directory}={directory}/site.py"));
        options.push(format!("--mount=/{directory}/again={directory}/site.py:app"));
    }
    let server = server.options(options).start();
    let names: Vec<String> = ["1", "2", "3"].map(|directory| server.get(&format!("/{directory}")).text()).to_vec();
    for (name, directory) in names.iter().zip(["1", "2", "3"]) {
        assert!(name.ends_with(&format!(" {directory}/site.py")), "each is its own module: {names:?}");
        assert_eq!(server.get(&format!("/{directory}/again")).text(), *name);
    }
    assert_eq!(server.stdout().lines().count(), 3, "{}", server.stdout());
    server.stop();
}

#[test]
fn a_worker_that_replaces_another_one_loads_the_same_release() {
    let server = Server::source(&versioned("main"));
    let temp = server.temp().to_owned();
    for release in ["1", "2"] {
        fs::create_dir(temp.join(release)).unwrap();
        fs::write(temp.join(release).join("other.py"), versioned(release)).unwrap();
    }
    let switch = |release: &str| {
        symlink(release, temp.join("new")).unwrap();
        fs::rename(temp.join("new"), temp.join("current")).unwrap();
    };
    switch("1");
    let file = temp.join("current/other.py").display().to_string();
    let options = ["--chdir", "current", "--pythonpath", "..", "--mount", &format!("/o={file}")];
    let server = server.options(options).expect_error("SIGKILL").start();
    assert_eq!(server.get("/o").text(), "1");
    switch("2");
    let before = server.workers();
    signal_to(before[0], Signal::SIGKILL);
    wait_for("another worker", SOON, || {
        let now = server.workers();
        (now.len() == 1 && now != before).then_some(())
    });
    assert_eq!(server.get("/o").text(), "1");
    server.signal(Signal::SIGHUP);
    answers(&server, "/o", "2");
    server.stop();
}
