//! What operators have to do with static files: options that are refused, reloads, directories that are replaced, logs and figures.

use std::fs;
use std::os::unix::fs::symlink;

use nix::sys::signal::Signal;

use crate::common::client::{Address, Client};
use crate::common::server::Server;
use crate::common::{SOON, user, wait_for};
use crate::{APP, root, server, tree};

#[test]
fn a_file_that_the_workers_may_not_read_is_not_found_and_the_log_says_why() {
    let Some(other) = user::other() else { return };
    let server = server();
    user::open_to_all(server.temp());
    let server = server.options(["--user", user::NAME]);
    let server = match other.python_home() {
        Some(home) => server.env("PYTHONHOME", home.display().to_string()),
        None => server,
    };
    let server = server.start();
    let path = root(&server).join("closed.txt");
    fs::write(&path, "closed").unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(server.get("/static/closed.txt").status, 404);
    server.log().wait(&["WARNING", "may not read it: closed.txt"]);
    server.stop();
}

#[test]
fn answers_are_logged_and_counted_as_others() {
    let server = server().options(["--access-logfile", "-", "--access-logformat", "%(r)s %(s)s %(b)s %({etag}o)s %({x}i)s"]);
    let door = server.temp().join("door");
    let server = server.options(["--status-bind", &format!("unix:{}", door.display())]).start();
    let mut client = server.connect();
    let tag = tree::tag(13, "");
    let requests = [
        ("GET /static/a.txt", String::new(), format!("200 13 {tag} -")),
        ("GET /static/a.txt", format!("If-None-Match: {tag}\r\nX: y\r\n"), format!("304 - {tag} y")),
        ("HEAD /static/a.txt", String::new(), format!("200 - {tag} -")),
        ("GET /static/none", String::new(), "404 36 - -".into()),
        ("GET /static/a.txt", "Range: bytes=0-1\r\n".into(), format!("206 2 {tag} -")),
        ("GET /static/large.bin", "X: z\r\n".into(), format!("200 {} {} z", tree::LARGE, tree::tag(tree::LARGE, ""))),
        ("DELETE /static/a.txt", String::new(), "405 47 - -".into()),
    ];
    let mut expected = Vec::new();
    for (request, fields, line) in requests {
        client.send(format!("{request} HTTP/1.1\r\nHost: t\r\n{fields}\r\n"));
        client.response_to(request.split(' ').next().unwrap_or_default());
        // Quotes are escaped in the log.
        expected.push(format!("{request} HTTP/1.1 {}", line.replace('"', "\\x22")));
    }
    let lines = wait_for("the lines", SOON, || {
        let lines: Vec<String> = server.stdout().lines().map(str::to_owned).collect();
        (lines.len() >= expected.len()).then_some(lines)
    });
    assert_eq!(lines, expected);
    let mut operator = Client::connect(&Address::Unix(door));
    operator.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let metrics = operator.response().text();
    for (status, count) in [(200, 3), (206, 1), (304, 1), (404, 1), (405, 1)] {
        let found = metrics.lines().any(|line| line.contains(&status.to_string()) && line.ends_with(&format!(" {count}")));
        assert!(found, "{count} answers with {status} in\n{metrics}");
    }
    server.stop();
}

#[test]
fn a_reload_takes_new_maps_and_refuses_missing_directories() {
    let server = Server::source(APP);
    tree::make(server.temp());
    let file = server.temp().join("t.toml");
    fs::write(&file, "static_map = [\"/static=static\"]\n").unwrap();
    let options = ["--config", file.to_str().unwrap()];
    let mut server = server.options(options).start();
    assert_eq!(server.get("/static/a.txt").text(), "hello, world!");
    assert_eq!(server.get("/other/a.txt").text(), "/other/a.txt");
    fs::write(&file, "static_map = [\"/other=static\"]\n").unwrap();
    server.signal(Signal::SIGHUP);
    server.log().wait(&["generation 2", "ready"]);
    wait_for("the new maps", SOON, || (server.get("/other/a.txt").text() == "hello, world!").then_some(()));
    wait_for("the end of the old ones", SOON, || (server.get("/static/a.txt").text() == "/static/a.txt").then_some(()));
    server.expect_error("its directory cannot be used");
    fs::write(&file, "static_map = [\"/other=nowhere\"]\n").unwrap();
    server.signal(Signal::SIGHUP);
    server.log().wait(&["static_map = /other=nowhere", "line 1", "no such file or directory"]);
    assert_eq!(server.get("/other/a.txt").text(), "hello, world!");
    server.stop();
}

#[test]
fn what_cannot_be_served_is_refused_before_anything_is_bound() {
    let refused = |options: &[&str], parts: &[&str]| {
        let server = Server::source(APP);
        fs::write(server.temp().join("file"), "").unwrap();
        for check in [&[][..], &["--check-config"]] {
            let server = Server::source(APP);
            fs::write(server.temp().join("file"), "").unwrap();
            server.options(options).options(check).run_to_end().failed(2, parts);
        }
    };
    refused(&["--static-map", "/s=nowhere"], &["--static-map /s=nowhere (command line)", "no such file or directory"]);
    refused(&["--static-map", "/s=file"], &["--static-map /s=file", "names a file"]);
    refused(&["--static-map", "s=/"], &["must begin with a slash"]);
    refused(&["--static-map", "/s=/,/s=/tmp"], &["no such file or directory"]);
    refused(&["--static-map", "/s=/", "--static-map", "/s/=/tmp"], &["names /s for the second time"]);
    refused(&["--static-immutable", "("], &["is no regular expression"]);
    refused(&["--static-symlinks", "never"], &["must be follow, beneath or deny"]);
    refused(&["--mime-type", "js"], &["must be an extension, = and a media type"]);
    refused(&["--static-index", "a/b"], &["without a slash"]);
    refused(&["--static-expires", "forever"], &["must be a duration"]);
    let server = Server::source(APP);
    fs::create_dir(server.temp().join("here")).unwrap();
    let ended = server.options(["--static-map", "/s=here", "--check-config"]).run_to_end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[test]
fn a_relative_directory_starts_at_chdir_and_another_one_in_its_place_is_seen() {
    let server = Server::source(APP);
    let site = server.temp().join("site");
    fs::create_dir(&site).unwrap();
    tree::make(&site);
    let server = server.options(["--chdir", "site", "--pythonpath", "..", "--static-map", "/static=static"]).start();
    assert_eq!(server.get("/static/a.txt").text(), "hello, world!");
    fs::rename(site.join("static"), site.join("old")).unwrap();
    fs::create_dir(site.join("static")).unwrap();
    fs::write(site.join("static/a.txt"), "another").unwrap();
    wait_for("the new directory", SOON, || (server.get("/static/a.txt").text() == "another").then_some(()));
    // A link in its place is a deployment as well.
    fs::remove_dir_all(site.join("static")).unwrap();
    symlink("old", site.join("static")).unwrap();
    wait_for("the old directory", SOON, || (server.get("/static/a.txt").text() == "hello, world!").then_some(()));
    server.stop();
}
