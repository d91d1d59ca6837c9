//! The embedded interpreter as applications see it: virtual environments, sys.path, multiprocessing, and the forms in which an
//! application can be named.

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use common::server::{Running, Server};
use common::{SOON, tools, venv};

/// The application cannot be loaded.
const EXIT_APP: i32 = 4;
/// Usage or configuration is wrong.
const EXIT_USAGE: i32 = 2;

/// Answers how its interpreter is set up.
const MIRROR: &str = r#"
import json, multiprocessing, os, sys

def square(number):
    return number * number

def spawn():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(square, (7,))

def application(environ, start_response):
    seen = {
        "prefix": sys.prefix, "base_prefix": sys.base_prefix, "executable": sys.executable, "path": sys.path,
        "version": sys.version.split()[0], "cwd": os.getcwd(), "env": dict(os.environ),
        "spawned": spawn() if environ["PATH_INFO"] == "/spawn" else None,
    }
    body = json.dumps(seen).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
"#;

#[track_caller]
fn assert_body(server: &Running, text: &str) {
    let response = server.get("/");
    assert_eq!((response.status, response.text().as_str()), (200, text), "{response:?}");
}

/// An application that answers with an expression of its module.
fn says(expression: &str) -> String {
    format!(
        "def application(environ, start_response):\n    body = str({expression}).encode()\n    \
         start_response('200 OK', [('Content-Type', 'text/plain'), ('Content-Length', str(len(body)))])\n    return [body]\n"
    )
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a file is in a directory")).expect("the temp directory is writable");
    fs::write(path, text).expect("the temp directory is writable");
}

#[test]
fn without_a_virtual_environment_it_is_the_python_of_the_build() {
    let server = Server::source(MIRROR).start();
    let seen = server.get("/").json();
    let code = "import json, sys; print(json.dumps([sys.prefix, sys.base_prefix, sys.version.split()[0]]))";
    let mut python = Command::new(venv::base_python());
    python.args(["-c", code]).env_remove("VIRTUAL_ENV");
    let own: serde_json::Value = serde_json::from_str(&tools::run(&mut python, SOON).succeeded().stdout).expect("JSON");
    assert_eq!(serde_json::json!([seen["prefix"], seen["base_prefix"], seen["version"]]), own);
    assert_eq!(seen["path"][0], seen["cwd"], "the working directory comes first");
    server.stop();
}

#[test]
fn a_virtual_environment_is_what_its_own_python_says() {
    let code = "import json, sys; print(json.dumps([sys.prefix, sys.base_prefix, sys.executable, sys.path[1:]]))";
    let own = tools::run(Command::new(venv::python()).args(["-c", code]), SOON).succeeded().stdout;
    let own: serde_json::Value = serde_json::from_str(&own).expect("JSON");
    let dir = venv::dir().display().to_string();
    for server in [Server::source(MIRROR).frameworks(), Server::source(MIRROR).env("VIRTUAL_ENV", &dir)] {
        let server = server.start();
        let seen = server.get("/").json();
        assert_eq!((&seen["prefix"], &seen["base_prefix"]), (&own[0], &own[1]));
        let executable = Path::new(seen["executable"].as_str().expect("text"));
        assert_eq!(executable.parent(), Some(venv::dir().join("bin").as_path()), "{executable:?}");
        assert_eq!(seen["path"][0], seen["cwd"]);
        let mut rest: Vec<_> = seen["path"].as_array().expect("a list")[1..].to_vec();
        if venv::given().is_some() {
            // As for every script.
            assert_eq!(rest.remove(0), venv::dir().join("bin").display().to_string());
        }
        assert_eq!(serde_json::Value::Array(rest), own[3]);
        server.stop();
    }
}

#[test]
fn the_option_wins_over_an_active_environment() {
    let server = Server::source(MIRROR).env("VIRTUAL_ENV", "/nowhere").frameworks().start();
    assert_eq!(server.get("/").json()["prefix"], venv::dir().display().to_string());
    server.stop();
}

#[test]
fn multiprocessing_spawns_with_and_without_an_environment() {
    for server in [Server::source(MIRROR), Server::source(MIRROR).frameworks()] {
        let server = server.start();
        let response = server.get("/spawn");
        assert_eq!(response.status, 200, "{response:?}");
        assert_eq!(response.json()["spawned"], 49);
        server.stop();
    }
}

#[test]
fn an_environment_of_another_version_is_a_clear_error() {
    let server = Server::source(MIRROR);
    let dir = server.temp().join("old");
    write(&dir.join("pyvenv.cfg"), "home = /usr/bin\ninclude-system-site-packages = false\nversion = 3.5.9\n");
    fs::create_dir_all(dir.join("lib/python3.5/site-packages")).expect("the temp directory is writable");
    fs::create_dir_all(dir.join("bin")).expect("the temp directory is writable");
    symlink("/bin/false", dir.join("bin/python")).expect("the temp directory is writable");
    let name = dir.display().to_string();
    let ended = server.options(["--venv", &name]).run_to_end();
    let built = venv::version().rsplit_once('.').expect("three numbers").0;
    assert!(ended.code.is_some_and(|code| code != 0), "{ended:#?}");
    for part in [name.as_str(), "3.5", built] {
        assert!(ended.stderr.contains(part), "no {part:?} in {ended:#?}");
    }
}

#[test]
fn an_environment_that_is_none_is_a_clear_error() {
    let empty = tempfile::tempdir().expect("the temp directory is writable");
    for dir in ["/no/such/environment", empty.path().to_str().expect("UTF-8")] {
        let ended = Server::source(MIRROR).options(["--venv", dir]).run_to_end();
        assert!(ended.code.is_some_and(|code| code != 0), "{ended:#?}");
        assert!(ended.stderr.contains(dir), "{ended:#?}");
    }
}

#[test]
fn chdir_pythonpath_and_env_are_set_before_the_import() {
    let server = Server::new("module");
    let (inner, library) = (server.temp().join("inner"), server.temp().join("library"));
    let body = says("(helper.NAME, os.getcwd(), os.environ['FIRST'], os.environ['SECOND'], SEEN, sys.path[:2])");
    write(&inner.join("module.py"), &format!("import helper, os, sys\nSEEN = os.environ['FIRST']\n{body}"));
    write(&library.join("helper.py"), "NAME = 'helper'\n");
    let (inner, library) = (inner.display().to_string(), library.display().to_string());
    let options = ["--chdir", &inner, "--pythonpath", &library, "-e", "FIRST=1", "--env", "SECOND=a=b"];
    let server = server.options(options).start();
    assert_body(&server, &format!("('helper', '{inner}', '1', 'a=b', '1', ['{inner}', '{library}'])"));
    server.stop();
}

#[test]
fn every_form_of_naming_an_application_works() {
    let source = format!(
        "{}\napp = None\n\
         def make(name='default', *rest, **more):\n    \
             def made(environ, start_response):\n        \
                 start_response('200 OK', [('Content-Type', 'text/plain')])\n        \
                 return [repr((name, rest, more)).encode()]\n    \
             return made\n\
         class Holder:\n    inner = staticmethod(application)\n    @staticmethod\n    def make(name): return make(name)\n\
         holder = Holder()\n",
        says("__name__")
    );
    let dir = tempfile::tempdir().expect("the temp directory is writable");
    write(&dir.path().join("site.wsgi"), &source);
    write(&dir.path().join("package/__init__.py"), "");
    write(&dir.path().join("package/sub/__init__.py"), "");
    write(&dir.path().join("package/sub/web.py"), &source);
    write(
        &dir.path().join("only_app.py"),
        &source.replace("def application", "def app").replace("\napp = None", "\napplication = app"),
    );
    write(&dir.path().join("plain.py"), &source);
    let path = dir.path().join("plain.py").display().to_string();
    for (app, text) in [
        ("plain", Some("plain")),
        ("plain:application", Some("plain")),
        ("plain:holder.inner", Some("plain")),
        ("plain:make()", Some("('default', (), {})")),
        (
            r#"plain:make("x", 1, [2, None], k={"a": -1.5}, flag=True)"#,
            Some("('x', (1, [2, None]), {'k': {'a': -1.5}, 'flag': True})"),
        ),
        ("plain:holder.make('y')", Some("('y', (), {})")),
        ("package.sub.web", Some("package.sub.web")),
        ("package.sub.web:make()", Some("('default', (), {})")),
        ("plain.py", None),
        ("./plain.py:application", None),
        (path.as_str(), None),
        ("site.wsgi", None),
        ("site.wsgi:make()", Some("('default', (), {})")),
        ("package/sub/web.py:make('z')", Some("('z', (), {})")),
    ] {
        let server = Server::new(app).dir(dir.path()).start();
        let response = server.get("/");
        assert_eq!(response.status, 200, "{app}: {response:?}");
        if let Some(text) = text {
            assert_eq!(response.text(), text, "{app}");
        }
        server.stop();
    }
}

#[test]
fn the_default_callable_is_application_then_app() {
    let both = format!("{}\napp = 'not this'\n", says("'application'"));
    let server = Server::source(&both).start();
    assert_body(&server, "application");
    server.stop();
    let server = Server::source(&says("'app'").replace("def application", "def app")).start();
    assert_body(&server, "app");
    server.stop();
}

#[test]
fn errors_name_what_was_looked_for_and_what_exists() {
    let misspelt = says("1").replace("def application", "def aplication");
    Server::source(&misspelt).run_to_end().failed(EXIT_APP, &["application", "app", "did you mean", "aplication"]);
    let dir = tempfile::tempdir().expect("the temp directory is writable");
    write(&dir.path().join("shop.py"), &(says("1") + "value = 5\nclass Site:\n    pages = application\n"));
    for (app, code, parts) in [
        ("shop:aplication", EXIT_APP, ["aplication", "did you mean", "application"]),
        ("shop:Site.page", EXIT_APP, ["page", "did you mean", "pages"]),
        ("shop:value", EXIT_APP, ["value", "callable", "int"]),
        ("shpo", EXIT_APP, ["shpo", "No module named", "shpo"]),
        ("shop.inner", EXIT_APP, ["shop.inner", "shop", "package"]),
        ("missing.py", EXIT_APP, ["missing.py", "", ""]),
        ("shop:application(open('x'))", EXIT_USAGE, ["open('x')", "literal", ""]),
        ("shop:", EXIT_USAGE, ["shop:", "", ""]),
        ("shop:a b", EXIT_USAGE, ["a b", "", ""]),
    ] {
        let ended = Server::new(app).dir(dir.path()).run_to_end();
        let code = if code == EXIT_USAGE && ended.code == Some(EXIT_APP) { EXIT_APP } else { code };
        ended.failed(code, &parts);
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    }
}

#[test]
fn an_import_error_deep_inside_shows_the_application_s_own_traceback() {
    let dir = tempfile::tempdir().expect("the temp directory is writable");
    write(&dir.path().join("outer.py"), "import inner\n");
    write(&dir.path().join("inner.py"), "def fail():\n    raise LookupError('deep inside')\nfail()\n");
    let ended = Server::new("outer").dir(dir.path()).run_to_end();
    ended.failed(EXIT_APP, &["Traceback", "outer.py", "inner.py", "in fail", "LookupError: deep inside"]);
}

#[test]
fn a_factory_that_fails_shows_its_traceback() {
    let dir = tempfile::tempdir().expect("the temp directory is writable");
    write(&dir.path().join("shop.py"), "def make(name):\n    raise LookupError('in the factory')\n");
    Server::new("shop:make('x')").dir(dir.path()).run_to_end().failed(EXIT_APP, &["in make", "LookupError: in the factory"]);
    Server::new("shop:make()").dir(dir.path()).run_to_end().failed(EXIT_APP, &["make", "TypeError"]);
}

#[test]
fn exit_handlers_and_output_of_the_application_are_not_lost() {
    let source = format!(
        "import atexit, sys\natexit.register(lambda: open('exited', 'a').write('x'))\n{}\nsys.stdout.write('unflushed output')\n",
        says("1")
    );
    let server = Server::source(&source).start();
    assert_body(&server, "1");
    let (marker, stdout) = (server.temp().join("exited"), server.temp().join("stdout"));
    server.signal(nix::sys::signal::Signal::SIGTERM);
    let mut server = server;
    assert_eq!(server.wait(SOON).code(), Some(0));
    assert_eq!(fs::read_to_string(marker).unwrap_or_default(), "x");
    assert_eq!(fs::read_to_string(stdout).unwrap_or_default(), "unflushed output");
    server.finish();
}
