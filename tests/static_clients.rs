//! Other people's clients and the static files of a Django project, collected with hashed names: wget, aria2 and a browser with
//! module scripts, styles and media that are sought in.

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::json;

use common::browser::Browser;
use common::server::{Running, Server};
use common::tools::{self, CLIENT_LIMIT, Finished, files_below, tool};
use common::{SOON, venv, wait_for};

/// A project of one file: pages whose addresses of files are those of the manifest.
const PROJECT: &str = r##"
from pathlib import Path

import django
from django.conf import settings

HERE = Path(__file__).resolve().parent
APPS = ["admin", "auth", "contenttypes", "sessions", "messages", "staticfiles"]
settings.configure(
    DEBUG=False,
    SECRET_KEY="only for tests",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF="app",
    INSTALLED_APPS=[f"django.contrib.{name}" for name in APPS],
    STATIC_URL="/static/",
    STATIC_ROOT=HERE / "releases/1",
    STATICFILES_DIRS=[HERE / "source"],
    STORAGES={"staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"}},
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
)
django.setup()

from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.template import engines
from django.urls import path

PAGE = """<!doctype html>{% load static %}<title>static</title>
<link rel="stylesheet" href="{% static 'shop/site.css' %}"><link rel="stylesheet" href="{% static 'admin/css/base.css' %}">
<script type="module" src="{% static 'shop/main.mjs' %}"></script>
<p id="text">text</p><img id="image" src="{% static 'admin/img/search.svg' %}">
<audio id="audio" preload="metadata" src="{% static 'shop/tone.wav' %}"></audio>
<video id="video" preload="metadata" src="{% static 'shop/tone.wav' %}"></video>"""

def page(request):
    return HttpResponse(engines["django"].from_string(PAGE).render({}, request))

urlpatterns = [path("", page)]
application = get_wsgi_application()
"##;

/// Samples in a second, of two bytes each; seconds of the tone.
const RATE: u32 = 44_100;
const SECONDS: u32 = 120;

/// A tone that is longer than what a browser fetches ahead (RIFF WAVE, PCM, one channel).
fn tone() -> Vec<u8> {
    let len = RATE * SECONDS * 2;
    let mut bytes = [&b"RIFF"[..], &(36 + len).to_le_bytes(), b"WAVEfmt ", &16u32.to_le_bytes()].concat();
    for half in [1u16, 1] {
        bytes.extend(half.to_le_bytes());
    }
    bytes.extend([RATE.to_le_bytes(), (RATE * 2).to_le_bytes()].concat());
    bytes.extend([2u16.to_le_bytes(), 16u16.to_le_bytes()].concat());
    bytes.extend([&b"data"[..], &len.to_le_bytes()].concat());
    // A sawtooth that is another one each time, so that a wrong piece is seen.
    bytes.extend((0..RATE * SECONDS).flat_map(|at| (((at % 211) * 97 + at / 211) as i16).to_le_bytes()));
    bytes
}

/// The project with its collected files, those that are not hashed being links into the sources; the directory that is mapped is a
/// link as well, as deployments have it.
fn server() -> Option<Server> {
    let server = Server::source(PROJECT).frameworks();
    let dir = server.temp().to_owned();
    let shop = dir.join("source/shop");
    fs::create_dir_all(&shop).unwrap();
    fs::write(shop.join("site.css"), "@import url(\"more.css\");\nbody { background: url(\"dot.svg\") }\n").unwrap();
    fs::write(shop.join("more.css"), "#text { color: rgb(1, 2, 3) }\n").unwrap();
    fs::write(shop.join("dot.svg"), "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"1\" height=\"1\"/>\n").unwrap();
    let main = "import { word } from './part.mjs';\nimport data from './data.json' with { type: 'json' };\n\
                document.title = word + data.number;\n";
    fs::write(shop.join("main.mjs"), main).unwrap();
    fs::write(shop.join("part.mjs"), "export const word = 'module ';\n").unwrap();
    fs::write(shop.join("data.json"), "{\"number\": 7}\n").unwrap();
    fs::write(shop.join("tone.wav"), tone()).unwrap();
    let mut collect = Command::new(venv::python());
    let code = "import app\nfrom django.core.management import call_command\n\
                call_command('collectstatic', interactive=False, verbosity=0, link=True)\n";
    collect.args(["-c", code]).current_dir(&dir).env("PYTHONDONTWRITEBYTECODE", "1");
    tools::run(&mut collect, CLIENT_LIMIT).succeeded();
    std::os::unix::fs::symlink("releases/1", dir.join("current")).unwrap();
    let log = dir.join("access").display().to_string();
    let format = "%(m)s %(U)s %(s)s %({range}i)s %({content-type}o)s";
    Some(server.options(["--static-map", "/static=current", "--access-logfile", &log, "--access-logformat", format]))
}

fn lines(server: &Running) -> Vec<String> {
    fs::read_to_string(server.temp().join("access")).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// The names of all collected files, and a file with their addresses.
fn addresses(server: &Running) -> (PathBuf, Vec<String>, PathBuf) {
    let root = server.temp().join("current");
    let names = files_below(&root);
    let links = names.iter().filter(|name| root.join(name).is_symlink()).count();
    assert!(names.len() > 200 && links > 100, "{} files, {links} links", names.len());
    let list = server.temp().join("list");
    let text: String = names.iter().map(|name| format!("{}\n", server.url(&format!("/static/{name}")))).collect();
    fs::write(&list, text).unwrap();
    (root, names, list)
}

/// Runs a client in a directory of its own; its output goes with a failure.
#[track_caller]
fn run(server: &Running, program: &str, directory: &str, words: &[&str]) -> (PathBuf, Finished) {
    let dir = server.temp().join(directory);
    fs::create_dir_all(&dir).unwrap();
    let mut command = Command::new(program);
    command.args(words).current_dir(&dir).env("no_proxy", "*").env("LC_ALL", "C");
    (dir, tools::run(&mut command, CLIENT_LIMIT))
}

#[test]
fn wget_fetches_all_compares_times_and_goes_on() {
    let (Some(_), Some(server)) = (tool("wget"), server()) else { return };
    let server = server.start();
    let (root, names, list) = addresses(&server);
    let list = list.display().to_string();
    let words = ["--no-verbose", "--force-directories", "--no-host-directories", "--timestamping", "--input-file", &list];
    for round in ["200", "304"] {
        let (dir, finished) = run(&server, "wget", "all", &words);
        finished.succeeded();
        for name in &names {
            assert!(fs::read(dir.join("static").join(name)).unwrap() == fs::read(root.join(name)).unwrap(), "{name}");
        }
        let answered = lines(&server).iter().filter(|line| line.contains(&format!(" {round} "))).count();
        assert_eq!(answered, names.len(), "{round} in\n{}", lines(&server).join("\n"));
    }
    let part = server.temp().join("part");
    fs::create_dir(&part).unwrap();
    fs::write(part.join("tone.wav"), &tone()[..1_234_567]).unwrap();
    let url = server.url("/static/shop/tone.wav");
    // The rest, and nothing when nothing is left (416).
    for line in ["GET /static/shop/tone.wav 206 bytes=1234567- ", "GET /static/shop/tone.wav 416 bytes="] {
        let (dir, finished) = run(&server, "wget", "part", &["--no-verbose", "--continue", &url]);
        finished.succeeded();
        assert!(fs::read(dir.join("tone.wav")).unwrap() == tone());
        assert!(lines(&server).last().is_some_and(|last| last.contains(line)), "{:?}", lines(&server).last());
    }
    let (_, finished) = run(&server, "wget", "none", &["--no-verbose", &server.url("/static/shop/none.css")]);
    assert!(finished.status.code() == Some(8) && finished.stderr.contains("ERROR 404"), "{}", finished.stderr);
    server.stop();
}

#[test]
fn aria2_fetches_pieces_at_once_and_goes_on() {
    let (Some(_), Some(server)) = (tool("aria2c"), server()) else { return };
    let server = server.workers(2).start();
    let (root, names, _) = addresses(&server);
    // Names come twice in other directories, so that each file says where it goes.
    let line = |name: &String| format!("{}\n out={name}\n", server.url(&format!("/static/{name}")));
    let list = server.temp().join("aria2");
    fs::write(&list, names.iter().map(line).collect::<String>()).unwrap();
    let quiet = ["--no-conf=true", "--quiet=true", "--allow-overwrite=true", "--auto-file-renaming=false"];
    let words = |more: &[&str]| -> Vec<String> { quiet.iter().chain(more).map(|word| (*word).to_owned()).collect() };
    let aria2 = |directory: &str, more: &[&str]| {
        let words = words(more);
        let (dir, finished) = run(&server, "aria2c", directory, &words.iter().map(String::as_str).collect::<Vec<_>>());
        finished.succeeded();
        dir
    };
    let list = format!("--input-file={}", list.display());
    let dir = aria2("all", &[&list, "--max-concurrent-downloads=8"]);
    for name in &names {
        assert!(fs::read(dir.join(name)).unwrap() == fs::read(root.join(name)).unwrap(), "{name}");
    }
    let url = server.url("/static/shop/tone.wav");
    let before = lines(&server).len();
    let dir = aria2("pieces", &["--split=8", "--max-connection-per-server=8", "--min-split-size=1M", &url]);
    assert!(fs::read(dir.join("tone.wav")).unwrap() == tone());
    let pieces = lines(&server)[before..].iter().filter(|line| line.contains(" 206 bytes=")).count();
    assert!(pieces >= 4, "{pieces} pieces in\n{}", lines(&server)[before..].join("\n"));
    // A download that curl or a browser has broken off goes on.
    fs::write(dir.join("tone.wav"), &tone()[..3_000_000]).unwrap();
    let dir = aria2("pieces", &["--continue=true", &url]);
    assert!(fs::read(dir.join("tone.wav")).unwrap() == tone());
    // Asked again it compares (If-Modified-Since).
    let before = lines(&server).len();
    aria2("pieces", &["--conditional-get=true", &url]);
    let after = &lines(&server)[before..];
    assert!(after.iter().all(|line| line.contains(" 304 ")) && !after.is_empty(), "{after:?}");
    server.stop();
}

#[test]
fn a_browser_runs_modules_and_seeks_in_media() {
    let (Some(browser), Some(server)) = (Browser::start(), server()) else { return };
    let mut server = server.workers(2).start();
    browser.call("POST", "/url", &json!({"url": server.url("/")}));
    wait_for("the module", SOON, || (browser.run("return document.title") == "module 7").then_some(()));
    assert_eq!(browser.run("return getComputedStyle(document.getElementById('text')).color"), "rgb(1, 2, 3)");
    assert_eq!(browser.run("return document.getElementById('image').naturalWidth > 0"), true);
    let hashed = browser.run("return document.querySelector('script').src");
    assert!(hashed.as_str().is_some_and(|url| url.contains("/shop/main.") && url.len() > "/main.mjs".len() + 12), "{hashed}");
    for kind in ["audio", "video"] {
        let duration = format!("return document.getElementById('{kind}').duration");
        wait_for("the length", SOON, || (browser.run(&duration) == f64::from(SECONDS)).then_some(()));
        // Backwards too: the bytes there have not been asked for yet.
        for at in [110, 60] {
            browser.run(&format!("document.getElementById('{kind}').currentTime = {at}"));
            let there = format!(
                "const m = document.getElementById('{kind}');\
                 return !m.seeking && m.readyState >= 2 && m.currentTime == {at} && !m.error"
            );
            wait_for("the place", SOON, || (browser.run(&there) == true).then_some(()));
        }
    }
    // Without ranges nothing can be sought in.
    assert_eq!(browser.run("return document.getElementById('audio').seekable.end(0)"), f64::from(SECONDS));
    let said = browser.call("POST", "/se/log", &json!({"type": "browser"}));
    let mistakes: Vec<_> =
        said.as_array().into_iter().flatten().filter(|line| !line.to_string().contains("favicon.ico")).collect();
    assert!(mistakes.is_empty(), "{mistakes:?}");
    browser.call("POST", "/url", &json!({"url": "about:blank"}));
    drop(browser);
    // With the page its answers have ended, and are in the log.
    server.signal(Signal::SIGTERM);
    server.wait(SOON);
    let lines = lines(&server);
    let begins = |line: &String| {
        let (_, range) = line.split_once(".wav 206 bytes=")?;
        range.split_once('-')?.0.parse::<u64>().ok()
    };
    let begun: Vec<u64> = lines.iter().filter_map(begins).collect();
    assert!(begun.iter().any(|at| *at > 9_000_000), "no piece from near the end in\n{}", lines.join("\n"));
    for (name, kind) in
        [("main.", "text/javascript"), ("part.", "text/javascript"), ("data.", "application/json"), ("tone.", "audio/")]
    {
        let found = lines.iter().any(|line| line.contains(&format!("/shop/{name}")) && line.contains(&format!(" {kind}")));
        assert!(found, "{name} as {kind} in\n{}", lines.join("\n"));
    }
}
