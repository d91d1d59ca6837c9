//! Deploys by a symbolic link to the release: which release a worker loads, and what happens when one is deleted.

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use common::deploy::{reload, wait_for_records};
use common::server::{Running, Server, signal_to};
use common::{SOON, place, wait_for};

/// Its answer: what it read from its release when it was loaded, by each way in which a path can name it.
const APP: &str = "import os, part
VERSION = open('version').read() + part.VERSION + open(os.path.join(os.path.dirname(__file__), 'version')).read()
def app(environ, start_response):
    body = VERSION.encode()
    start_response('200 OK', [('Content-Length', str(len(body)))])
    return [body]
";

/// A directory with releases and the link `current`.
struct Site(TempDir);

impl Site {
    /// With the first release, which is the current one.
    fn new() -> Self {
        let site = Self(place::fresh("site-"));
        site.release(1);
        site.switch(1);
        site
    }

    fn dir(&self, number: usize) -> PathBuf {
        self.0.path().join(format!("release-{number}"))
    }

    fn current(&self) -> PathBuf {
        self.0.path().join("current")
    }

    fn release(&self, number: usize) {
        let dir = self.dir(number);
        fs::create_dir_all(dir.join("lib")).expect("the temp directory is writable");
        fs::write(dir.join("app.py"), APP).expect("the temp directory is writable");
        fs::write(dir.join("version"), number.to_string()).expect("the temp directory is writable");
        fs::write(dir.join("lib/part.py"), format!("VERSION = '{number}'")).expect("the temp directory is writable");
    }

    /// Lets the link name this release from now on, in one step as deploy tools do.
    fn switch(&self, number: usize) {
        let new = self.0.path().join("new");
        symlink(format!("release-{number}"), &new).expect("a link can be made");
        fs::rename(new, self.current()).expect("a link can be renamed");
    }

    fn delete(&self, number: usize) {
        fs::remove_dir_all(self.dir(number)).expect("the release is there");
    }

    /// A server that is started in the link, as a shell that has changed to it does.
    fn server(&self) -> Server {
        // One worker, so that its answer means that no worker still boots in a directory that is about to be deleted.
        let server = Server::new("app").workers(1).options(["--pythonpath", "lib"]).expect_error("SIGKILL");
        server.dir(&self.current()).env("PWD", self.current().display().to_string())
    }
}

/// Kills all workers and waits for others, which have to say `version`.
#[track_caller]
fn replace_and_ask(server: &Running, version: &str) {
    let before = server.workers();
    for &pid in &before {
        signal_to(pid, Signal::SIGKILL);
    }
    wait_for("other workers", SOON, || {
        let now = server.workers();
        (now.len() == before.len() && now.iter().all(|pid| !before.contains(pid))).then_some(())
    });
    assert_eq!(server.get("/").text(), version);
}

#[track_caller]
fn reloaded(server: &Running, nth: usize, version: &str) {
    let before = server.workers();
    reload(server, "reload done", nth);
    server.wait_for_end_of(&before);
    assert_eq!(server.get("/").text(), version);
}

#[test]
fn each_generation_follows_the_link_and_its_workers_stay_with_what_it_has_found() {
    let site = Site::new();
    let server = site.server().start();
    assert_eq!(server.get("/").text(), "111");
    site.release(2);
    site.switch(2);
    replace_and_ask(&server, "111");
    reloaded(&server, 1, "222");
    site.delete(1);
    replace_and_ask(&server, "222");
    site.release(3);
    site.switch(3);
    site.delete(2);
    reloaded(&server, 2, "333");
    server.stop();
}

#[test]
fn without_its_release_a_worker_loads_what_the_link_names_now() {
    let site = Site::new();
    let server = site.server().start();
    site.release(2);
    site.switch(2);
    site.delete(1);
    replace_and_ask(&server, "222");
    server.log().wait(&["WARNING", "the directory of this generation is gone", "current"]);
    server.stop();
}

#[test]
fn paths_of_options_follow_the_link_with_their_generation_too() {
    let site = Site::new();
    let current = |path: &str| site.current().join(path).display().to_string();
    let server = Server::new(&current("app.py")).workers(2).expect_error("SIGKILL");
    let server = server.options(["--chdir", &current(""), "--pythonpath", &current("lib")]).start();
    assert_eq!(server.get("/").text(), "111");
    site.release(2);
    site.switch(2);
    replace_and_ask(&server, "111");
    reloaded(&server, 1, "222");
    site.delete(1);
    replace_and_ask(&server, "222");
    site.release(3);
    site.switch(3);
    site.delete(2);
    replace_and_ask(&server, "333");
    server.stop();
}

#[test]
fn a_reload_without_the_directory_is_refused_and_the_old_generation_serves() {
    let site = Site::new();
    let server = site.server().expect_error("reload failed, generation 1 keeps serving").start();
    fs::remove_file(site.current()).expect("the link is there");
    server.signal(Signal::SIGHUP);
    let record = server.log().wait(&["reload failed"]);
    assert!(record.text.contains("the directory that the server was started in cannot be entered"), "{}", record.text);
    assert!(record.text.contains(&format!("{}: no such file or directory", site.current().display())), "{}", record.text);
    replace_and_ask(&server, "111");
    site.switch(1);
    reloaded(&server, 1, "111");
    server.stop();
}

#[test]
fn a_reload_that_fails_leaves_nothing_in_the_new_release() {
    let site = Site::new();
    let log = |dir: &Path| dir.join("access.log").exists();
    fs::write(site.dir(1).join("tapster.toml"), "access-logfile = 'access.log'\n").expect("the temp directory is writable");
    let server = site.server().options(["--config", "tapster.toml"]).expect_error("reload failed").start();
    site.release(2);
    fs::write(site.dir(2).join("tapster.toml"), "workers = 0\n").expect("the temp directory is writable");
    site.switch(2);
    server.signal(Signal::SIGHUP);
    server.log().wait(&["reload failed", "workers = 0"]);
    server.signal(Signal::SIGUSR1);
    wait_for_records(&server, "logs opened anew", 1);
    replace_and_ask(&server, "111");
    assert!(log(&site.dir(1)) && !log(&site.dir(2)), "relative paths start where they did");
    server.stop();
}
