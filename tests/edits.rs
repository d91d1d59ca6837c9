//! `--reload`: saved changes are loaded, broken ones change nothing, and what the application itself writes is no change.

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use common::load::Plan;
use common::server::{Running, Server};
use common::{SOON, deploy, procfs, wait_for};

/// An application that answers with its version, and says which worker has answered.
fn source(version: &str) -> String {
    format!(
        "import os\ndef app(environ, start_response):\n    start_response('200 OK', [('X-Worker', str(os.getpid()))])\n    \
         return [b'{version}']\n"
    )
}

/// A server of this application with `--reload`, in a directory of its own.
fn server() -> Server {
    Server::source(&source("v0")).workers_by_default().options(["--reload", "--log-level", "debug"])
}

/// Saves a file as editors do: under another name first.
fn save(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).expect("the temp directory is writable");
    fs::rename(new, path).expect("it can be renamed");
}

/// Waits until the answer has this text.
#[track_caller]
fn answers(server: &Running, text: &str) {
    wait_for(&format!("the answer {text:?}"), SOON, || (server.get("/").text() == text).then_some(()));
}

/// How many reloads changes have begun.
fn changes(server: &Running) -> usize {
    server.log().records().iter().filter(|record| record.text.contains("reload: ") && record.text.contains(" changed")).count()
}

/// The process with this word in its title.
fn process(server: &Running, word: &str) -> Option<i32> {
    procfs::children(server.pid()).into_iter().find(|pid| procfs::command_line(*pid).contains(word))
}

#[test]
fn fifty_edits_under_load_lose_nothing() {
    /// Of ten edits so many are broken: a third.
    const BROKEN: [usize; 3] = [2, 5, 6];
    /// Time without any answer, on a busy machine.
    const GAP: Duration = Duration::from_secs(2);
    let mut server = server().start();
    server.expect_error("cannot boot");
    server.expect_error("reload failed");
    let file = server.temp().join("app.py");
    let plan = |keep_alive| Plan { clients: 4, pause: Duration::from_millis(20), keep_alive, ..Plan::new(server.address()) };
    let loads = [plan(true).start(), plan(false).start()];
    let (mut failed, mut good) = (0, "v0".to_owned());
    for edit in 1..=50 {
        if BROKEN.contains(&(edit % 10)) {
            failed += 1;
            // Of the same size and in the same second as a good one, as a rule.
            save(&file, &source(&format!("v{edit}")).replace("def app", "dfe app"));
            deploy::wait_for_records(&server, "reload failed", failed);
            assert_eq!(server.get("/").text(), good, "the old code answers");
        } else {
            good = format!("v{edit}");
            save(&file, &source(&good));
            answers(&server, &good);
        }
    }
    for load in loads {
        let tally = load.stop();
        tally.assert_flawless();
        assert!(tally.ok > 100 && tally.gap < GAP, "{} answers, {:?} without one", tally.ok, tally.gap);
    }
    assert_eq!(failed, 15);
    server.stop();
}

#[test]
fn whatever_way_a_file_is_saved_it_is_loaded() {
    let server = server().start();
    let file = server.temp().join("app.py");
    fs::write(&file, source("in place")).unwrap();
    answers(&server, "in place");
    save(&file, &source("renamed"));
    answers(&server, "renamed");
    // As vim does it.
    fs::rename(&file, server.temp().join("app.py~")).unwrap();
    fs::write(&file, source("backed up")).unwrap();
    fs::remove_file(server.temp().join("app.py~")).unwrap();
    answers(&server, "backed up");
    let before = server.get("/").field("x-worker").unwrap().to_owned();
    // As touch does it.
    drop(fs::OpenOptions::new().append(true).open(&file).unwrap());
    wait_for("another worker", SOON, || (server.get("/").field("x-worker") != Some(&before)).then_some(()));
    server.stop();
}

#[test]
fn what_the_application_writes_is_no_change() {
    let app = "import os, pathlib, sqlite3\nHERE = pathlib.Path(__file__).parent\n\
         def app(environ, start_response):\n    database = sqlite3.connect(HERE / 'site.db')\n    \
         database.execute('CREATE TABLE IF NOT EXISTS t (x)')\n    database.execute('INSERT INTO t VALUES (1)')\n    \
         database.commit()\n    database.close()\n    (HERE / 'app.log').write_text('line')\n    \
         (HERE / 'uploads').mkdir(exist_ok=True)\n    (HERE / 'uploads' / 'virus.py').write_text('upload')\n    \
         (HERE / '__pycache__').mkdir(exist_ok=True)\n    (HERE / '__pycache__' / 'app.cpython-311.pyc').write_bytes(b'')\n    \
         start_response('200 OK', [])\n    return [b'written']\n";
    let server = Server::source(app).options(["--reload"]).start();
    for _ in 0..5 {
        assert_eq!(server.get("/").text(), "written");
    }
    // The watcher reads events in their order: what it said before this one, it has said.
    save(&server.temp().join("app.py"), &source("v1"));
    answers(&server, "v1");
    assert_eq!(changes(&server), 1, "{}", server.log().text());
    server.log().wait(&["app.py changed"]);
    server.stop();
}

#[test]
fn a_boot_that_hangs_gives_way_to_the_next_save() {
    let server = server().start();
    let file = server.temp().join("app.py");
    save(&file, &format!("open({:?}, 'w')\nwhile True: pass\n", server.temp().join("hangs")));
    wait_for("the boot that hangs", SOON, || server.temp().join("hangs").exists().then_some(()));
    assert_eq!(server.get("/").text(), "v0");
    save(&file, &source("v1"));
    answers(&server, "v1");
    server.stop();
}

#[test]
fn the_first_boot_that_hangs_gives_way_too() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("app.py");
    fs::write(&file, "import time\nopen('hangs', 'w')\nwhile True: time.sleep(0.01)\n").unwrap();
    let mut starting = Server::new("app").dir(temp.path()).options(["--reload"]).start_without_waiting();
    wait_for("the boot that hangs", SOON, || temp.path().join("hangs").exists().then_some(()));
    save(&file, &source("v1"));
    starting.wait_for_ready();
    assert_eq!(starting.get("/").text(), "v1");
    starting.stop();
}

#[test]
fn a_module_that_cannot_be_imported_is_watched_all_the_same() {
    let mut server = server().start();
    server.expect_error("cannot boot");
    server.expect_error("reload failed");
    let (file, package) = (server.temp().join("app.py"), server.temp().join("shop"));
    save(&file, &format!("from shop.cart import version\n{}", source("{}").replace("b'{}'", "version")));
    server.log().wait(&["No module named 'shop'"]);
    deploy::wait_for_records(&server, "reload failed", 1);
    fs::create_dir(&package).unwrap();
    fs::write(package.join("__init__.py"), "").unwrap();
    fs::write(package.join("cart.py"), "version = b'v1'\nthis is no Python\n").unwrap();
    server.log().wait(&["SyntaxError"]);
    fs::write(package.join("cart.py"), "version = b'v1'\n").unwrap();
    answers(&server, "v1");
    server.stop();
}

#[test]
fn modules_that_are_imported_by_a_request_are_watched() {
    let app = "import os\ndef app(environ, start_response):\n    from lazy.late import version\n    \
         start_response('200 OK', [('X-Worker', str(os.getpid()))])\n    return [version]\n";
    let server = Server::source(app).options(["--reload"]);
    let package = server.temp().join("lazy");
    fs::create_dir(&package).unwrap();
    fs::write(package.join("late.py"), "version = b'v0'\n").unwrap();
    let server = server.start();
    answers(&server, "v0");
    // A worker names what it has loaded after a moment; a change before that is noticed as well.
    save(&package.join("late.py"), "version = b'v1'\n");
    answers(&server, "v1");
    server.stop();
}

#[test]
fn a_checkout_of_many_files_is_one_change_and_directories_may_vanish() {
    let server = Server::source("from pages import p0\napp = p0.app\n").options(["--reload"]);
    let pages = server.temp().join("pages");
    let check_out = |version: &str| {
        fs::create_dir(&pages).unwrap();
        fs::write(pages.join("__init__.py"), "").unwrap();
        for number in 0..100 {
            fs::write(pages.join(format!("p{number}.py")), source(version)).unwrap();
        }
    };
    check_out("v0");
    let server = server.start();
    fs::remove_dir_all(&pages).unwrap();
    check_out("v1");
    answers(&server, "v1");
    assert!(changes(&server) <= 3, "{}", server.log().text());
    save(&pages.join("p0.py"), &source("v2"));
    answers(&server, "v2");
    server.stop();
}

#[test]
fn a_project_whose_directory_is_replaced_is_watched_on() {
    let temp = tempfile::tempdir().unwrap();
    let (project, next, last) = (temp.path().join("project"), temp.path().join("next"), temp.path().join("last"));
    let check_out = |at: &Path, version: &str| {
        fs::create_dir_all(at.join("shop")).unwrap();
        fs::write(at.join("app.py"), "from shop.cart import app\n").unwrap();
        fs::write(at.join("shop/__init__.py"), "").unwrap();
        fs::write(at.join("shop/cart.py"), source(version)).unwrap();
    };
    // The directory itself, and one above it, of which the kernel says nothing.
    for (parts, by_hand) in [("project", false), ("project/inner", true)] {
        let at = |root: &Path| root.join(Path::new(parts).strip_prefix("project").unwrap());
        for left in [&project, &last] {
            let _ = fs::remove_dir_all(left);
        }
        check_out(&at(&project), "v0");
        let server = Server::new("app").dir(temp.path()).options(["--reload", "--chdir", parts]).start();
        assert_eq!(server.get("/").text(), "v0");
        check_out(&at(&next), "v1");
        fs::rename(&project, &last).unwrap();
        fs::rename(&next, &project).unwrap();
        if by_hand {
            server.signal(Signal::SIGHUP);
        }
        answers(&server, "v1");
        deploy::wait_for_records(&server, "reload done", 1);
        // What is watched is known to the watcher before that of the file which it names.
        save(&at(&project).join("shop/cart.py"), &source("v2"));
        answers(&server, "v2");
        server.stop();
    }
}

#[test]
fn a_project_behind_a_link_is_watched_where_it_is() {
    let temp = tempfile::tempdir().unwrap();
    let (real, link) = (temp.path().join("real"), temp.path().join("link"));
    fs::create_dir(&real).unwrap();
    fs::create_dir(temp.path().join("shared")).unwrap();
    symlink(&real, &link).unwrap();
    fs::write(temp.path().join("shared/words.py"), "version = b'v0'\n").unwrap();
    symlink(temp.path().join("shared/words.py"), real.join("words.py")).unwrap();
    fs::write(real.join("app.py"), format!("from words import version\n{}", source("{}").replace("b'{}'", "version"))).unwrap();
    let server = Server::new("app").options(["--reload", "--chdir", link.to_str().unwrap()]).start();
    save(&temp.path().join("shared/words.py"), "version = b'v1'\n");
    answers(&server, "v1");
    save(&link.join("app.py"), &source("v2"));
    answers(&server, "v2");
    server.stop();
}

#[test]
fn modules_on_the_python_path_are_watched_and_packages_in_an_environment_are_not() {
    let temp = tempfile::tempdir().unwrap();
    let installed = temp.path().join("venv/lib/python3/site-packages");
    let lib = temp.path().join("lib");
    fs::create_dir_all(&installed).unwrap();
    fs::create_dir(&lib).unwrap();
    fs::write(installed.join("installed.py"), "").unwrap();
    fs::write(lib.join("words.py"), "version = b'v0'\n").unwrap();
    let app = format!("import installed\nfrom words import version\n{}", source("{}").replace("b'{}'", "version"));
    fs::write(temp.path().join("app.py"), app).unwrap();
    let server = Server::new("app").dir(temp.path()).options(["--reload", "--pythonpath", lib.to_str().unwrap()]);
    let server = server.env("PYTHONPATH", installed.to_str().unwrap()).start();
    save(&installed.join("installed.py"), "x = 1\n");
    save(&lib.join("words.py"), "version = b'v1'\n");
    answers(&server, "v1");
    server.log().wait(&["words.py changed"]);
    assert_eq!(changes(&server), 1, "{}", server.log().text());
    server.stop();
}

#[test]
fn other_files_that_are_named_are_watched() {
    let app = "import os, pathlib\nHERE = pathlib.Path(__file__).parent\nVERSION = (HERE / 'site.toml').read_bytes() + \
         (HERE / 'data' / 'x.json').read_bytes()\n"
        .to_owned()
        + &source("{}").replace("b'{}'", "VERSION");
    let server = Server::source(&app);
    let temp = server.temp().to_owned();
    fs::write(temp.join("site.toml"), "a").unwrap();
    fs::create_dir(temp.join("data")).unwrap();
    fs::write(temp.join("data/x.json"), "b").unwrap();
    let server = server.options(["--reload", "--reload-extra-file", "site.toml", "--reload-extra-file", "data"]).start();
    assert_eq!(server.get("/").text(), "ab");
    save(&temp.join("site.toml"), "A");
    answers(&server, "Ab");
    save(&temp.join("data/x.json"), "B");
    answers(&server, "AB");
    server.stop();
}

#[test]
fn the_configuration_is_watched() {
    let app = "import os\ndef app(environ, start_response):\n    start_response('200 OK', [])\n    \
               return [os.environ['GREETING'].encode()]\n";
    for (name, text) in [("conf/site.toml", "env = [\"GREETING=@\"]\n"), ("conf/site.py", "raw_env = ['GREETING=@']\n")] {
        let server = Server::source(app).expect_error("reload failed");
        let temp: PathBuf = server.temp().to_owned();
        let file = temp.join(name);
        fs::create_dir(temp.join("conf")).unwrap();
        fs::write(&file, text.replace('@', "v0")).unwrap();
        let server = server.options(["--reload", "-c", name]).start();
        assert_eq!(server.get("/").text(), "v0");
        save(&file, &text.replace('@', "v1"));
        answers(&server, "v1");
        save(&file, "][");
        server.log().wait(&["reload failed", "site"]);
        assert_eq!(server.get("/").text(), "v1");
        fs::write(&file, text.replace('@', "v2")).unwrap();
        answers(&server, "v2");
        server.stop();
    }
}

#[test]
fn templates_are_watched() {
    let temp = tempfile::tempdir().unwrap();
    let pages = temp.path().join("templates/mail");
    fs::create_dir_all(&pages).unwrap();
    fs::write(pages.join("index.html"), "t0").unwrap();
    let app = "import flask\napp = flask.Flask(__name__)\n@app.route('/')\ndef index():\n    \
         return flask.render_template('mail/index.html')\n";
    fs::write(temp.path().join("app.py"), app).unwrap();
    let server = Server::new("app").dir(temp.path()).frameworks().options(["--reload"]).start();
    assert_eq!(server.get("/").text(), "t0");
    save(&pages.join("index.html"), "t1");
    answers(&server, "t1");
    server.stop();
}

#[test]
fn files_are_looked_at_where_no_events_come() {
    let server = Server::source(&source("v0")).options(["--reload=poll"]).start();
    for version in ["v1", "v2"] {
        save(&server.temp().join("app.py"), &source(version));
        answers(&server, version);
    }
    server.stop();
}

#[test]
fn a_watcher_that_dies_is_made_again() {
    let mut server = server().start();
    server.expect_error("the watcher of the sources has ended");
    let watcher = wait_for("the watcher", SOON, || process(&server, "watcher"));
    kill(Pid::from_raw(watcher), Signal::SIGKILL).unwrap();
    wait_for("another watcher", SOON, || process(&server, "watcher").filter(|pid| *pid != watcher));
    save(&server.temp().join("app.py"), &source("v1"));
    answers(&server, "v1");
    server.stop();
}

#[test]
fn a_saved_change_is_loaded_by_hand_too_and_one_worker_is_the_default() {
    let server = server().start();
    assert_eq!(procfs::children(server.pid()).len(), 2, "a worker and the watcher");
    server.signal(Signal::SIGHUP);
    server.log().wait(&["reload done"]);
    save(&server.temp().join("app.py"), &source("v1"));
    answers(&server, "v1");
    server.stop();
}

#[test]
fn it_is_refused_in_production_and_without_a_file_that_is_named() {
    let managed = Server::new("hello").env("NOTIFY_SOCKET", "/run/none").options(["--reload"]);
    managed.run_to_end().failed(2, &["--reload is for development", "NOTIFY_SOCKET"]);
    let missing = Server::new("hello").options(["--reload", "--reload-extra-file", "none.toml"]);
    missing.run_to_end().failed(2, &["--reload-extra-file none.toml: no such file"]);
}

#[test]
fn the_names_of_gunicorn_mean_the_same() {
    let server = Server::source(&source("v0"));
    let temp: PathBuf = server.temp().to_owned();
    fs::write(temp.join("site.toml"), "a").unwrap();
    fs::write(temp.join("gunicorn.conf.py"), "reload = True\nreload_engine = 'poll'\nreload_extra_files = ['site.toml']\n")
        .unwrap();
    let server = server.start();
    let before = server.get("/").field("x-worker").unwrap().to_owned();
    fs::write(temp.join("site.toml"), "b").unwrap();
    wait_for("another worker", SOON, || (server.get("/").field("x-worker") != Some(&before)).then_some(()));
    server.stop();
}

/// What browsers say they accept.
const BROWSER: &str = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

/// The answer to a request with these fields.
fn ask(server: &Running, method: &str, fields: &str) -> common::client::Response {
    let mut client = server.connect();
    client.send(format!("{method} /shop HTTP/1.1\r\nHost: test\r\n{fields}\r\nConnection: close\r\n\r\n"));
    client.response_to(method)
}

#[test]
fn browsers_are_shown_why_the_code_is_broken_and_others_get_the_old_answers() {
    let mut server = server().start();
    server.expect_error("cannot boot");
    server.expect_error("reload failed");
    let file = server.temp().join("app.py");
    assert_eq!(ask(&server, "GET", BROWSER).field("tapster-reload"), None);
    save(&file, &format!("{}\nimport none_<such>\n", source("v1")));
    // Workers are told after the log.
    let page = wait_for("the page", SOON, || Some(ask(&server, "GET", BROWSER)).filter(|answer| answer.status == 500));
    let text = page.text();
    for part in
        ["<h1>SyntaxError: invalid syntax</h1>", "app.py</b>, line 6", "Saved at ", "import none_&lt;such&gt;", "data-seen="]
    {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert_eq!(page.field("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!((page.field("tapster-reload"), page.field("cache-control")), (Some("failed"), Some("no-store")));
    let head = ask(&server, "HEAD", BROWSER);
    assert_eq!(
        (head.status, head.text().as_str(), head.field("content-length").unwrap()),
        (500, "", text.len().to_string().as_str())
    );
    for (method, accept) in [("GET", "Accept: */*"), ("GET", "Accept: application/json"), ("POST", BROWSER)] {
        let other = ask(&server, method, accept);
        assert_eq!((other.status, other.text().as_str()), (200, "v0"), "{method} {accept}");
        assert_eq!(other.field("tapster-reload"), Some("failed"));
    }
    // Another mistake is another page.
    save(&file, &format!("{}\nraise RuntimeError('again')\n", source("v1")));
    wait_for("the next page", SOON, || {
        ask(&server, "GET", BROWSER).text().contains("<h1>RuntimeError: again</h1>").then_some(())
    });
    save(&file, &source("v2"));
    answers(&server, "v2");
    let mended = ask(&server, "GET", BROWSER);
    assert_eq!((mended.text().as_str(), mended.field("tapster-reload")), ("v2", None));
    server.stop();
}

#[test]
fn a_server_that_is_started_with_broken_code_waits_until_it_is_mended() {
    for threads in ["1", "2"] {
        let server = Server::source("import shop\n").workers_by_default().options(["--reload", "--threads", threads]);
        let mut server = server.expect_error("the application cannot be loaded").expect_error("reload failed").start();
        server.expect_error("cannot boot");
        let page = ask(&server, "GET", BROWSER);
        assert_eq!(page.status, 500);
        assert!(page.text().contains("<h1>ModuleNotFoundError: No module named 'shop'</h1>"), "{}", page.text());
        let other = ask(&server, "GET", "Accept: */*");
        assert_eq!((other.status, other.field("content-type")), (500, Some("text/plain; charset=utf-8")));
        assert!(other.text().contains("No module named 'shop'"), "{}", other.text());
        save(&server.temp().join("app.py"), "import shop\nimport cart\n");
        fs::write(server.temp().join("shop.py"), "").unwrap();
        wait_for("the next mistake", SOON, || ask(&server, "GET", BROWSER).text().contains("cart").then_some(()));
        save(&server.temp().join("app.py"), &source("v1"));
        answers(&server, "v1");
        server.stop();
    }
}
