//! Finding the application: each form of APP, and what is said when it cannot be found or loaded.

mod wsgi_driver;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tapster::config::{AppSpec, PythonSettings, Settings};
use tapster::worker::app::{Renounce, WorkerFacts};
use tapster::wsgi::{self, AppStart, Wsgi};
use wsgi_driver::{Options, Server, boot, log, with_python};

/// Loads `app` from a directory with these files; `DIR` in `app` stands for it. Returns the body of `GET /`, or the error.
fn load(files: &[(&str, &str)], app: &str) -> Result<String, String> {
    let files: Vec<(String, String)> = files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    let app = app.to_owned();
    with_python(move || {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for (name, text) in &files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("inside the directory")).expect("writable");
            fs::write(path, text).expect("writable");
        }
        let app = AppSpec::parse(&app.replace("DIR", &dir.path().to_string_lossy())).expect("APP is well-formed");
        let python = PythonSettings { venv: None, pythonpath: vec![dir.path().to_path_buf()] };
        let settings = Settings { app, python, ..Settings::default() };
        let listeners = Options::default().listeners;
        let (renounce, log): (Renounce, _) = (Arc::new(|| ()), log(dir.path()));
        let start = AppStart {
            settings: &settings,
            listeners,
            workers: 1,
            run_once: false,
            renounce: &renounce,
            told: None,
            facts: &WorkerFacts { age: 1, requests: Arc::new(|| 0) },
            log,
            environ_names: Vec::new(),
            stacks: None,
        };
        let loaded = Wsgi::new(start);
        match loaded {
            Ok(app) => {
                let mut server = Server::of(app, dir);
                let mut body = server.get("GET / HTTP/1.1\r\nHost: h\r\n\r\n").body();
                body.push_str(&server.log());
                Ok(body)
            }
            Err(error) => {
                assert!(error.app, "the application is at fault: {}", error.text);
                Err(error.text.replace(&*dir.path().to_string_lossy(), "DIR"))
            }
        }
    })
}

/// An app that answers with this text.
fn says(name: &str, text: &str) -> String {
    format!("def {name}(environ, start_response):\n    start_response('200 OK', [])\n    return [{text:?}.encode()]\n")
}

#[track_caller]
fn fails(files: &[(&str, &str)], app: &str, words: &[&str], not: &[&str]) {
    let text = load(files, app).expect_err("must not load");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in\n{text}");
    }
    for word in not {
        assert!(!text.contains(word), "{word:?} is in\n{text}");
    }
}

#[test]
fn a_module_is_named_with_and_without_callable() {
    let both = says("app", "app") + &says("application", "application");
    assert_eq!(load(&[("form_a.py", &both)], "form_a"), Ok("application".into()));
    assert_eq!(load(&[("form_b.py", &says("app", "app"))], "form_b"), Ok("app".into()));
    assert_eq!(load(&[("form_c.py", &both)], "form_c:app"), Ok("app".into()));
    assert_eq!(load(&[("form_d/__init__.py", ""), ("form_d/wsgi.py", &both)], "form_d.wsgi"), Ok("application".into()));
    let nested = says("inner", "nested") + "class holder:\n    class deeper:\n        app = staticmethod(inner)\n";
    assert_eq!(load(&[("form_e.py", &nested)], "form_e:holder.deeper.app"), Ok("nested".into()));
}

#[test]
fn a_factory_is_called_with_literals() {
    let source = "def make(*args, **kwargs):\n    def app(environ, start_response):\n        start_response('200 OK', [])\n        return \
                  [repr((args, kwargs)).encode()]\n    return app\nclass ns:\n    make = staticmethod(make)\n";
    assert_eq!(load(&[("fact_a.py", source)], "fact_a:make()"), Ok("((), {})".into()));
    assert_eq!(
        load(&[("fact_b.py", source)], "fact_b:ns.make('x', -1, [True, None], k={'a': 1.5}, b=b'y')"),
        Ok("(('x', -1, [True, None]), {'k': {'a': 1.5}, 'b': b'y'})".into())
    );
    for arguments in ["open('x')", "*[1]", "**{'a': 1}", "x", "[i for i in 'ab']"] {
        fails(&[("fact_c.py", source)], &format!("fact_c:make({arguments})"), &["literals"], &["Traceback", "malformed node"]);
    }
    fails(&[("fact_d.py", source)], "fact_d:make(1 2)", &["no valid Python"], &[]);
    fails(&[("fact_e.py", "def make():\n    pass\n")], "fact_e:make()", &["the factory returned None"], &[]);
    fails(
        &[("fact_f.py", "def make():\n    raise ValueError('in factory')\n")],
        "fact_f:make()",
        &["calling the factory", "ValueError: in factory", "fact_f.py"],
        &[],
    );
}

#[test]
fn a_file_is_loaded_with_its_directory_on_the_path() {
    let app = "from file_helper import app\n";
    let helper = says("app", "by path");
    assert_eq!(load(&[("site/file_a.py", app), ("site/file_helper.py", &helper)], "DIR/site/file_a.py"), Ok("by path".into()));
    assert_eq!(load(&[("b/file-b.wsgi", &helper)], "DIR/b/file-b.wsgi:app"), Ok("by path".into()));
    // The name of a module that is imported already must not replace it.
    assert_eq!(load(&[("c/threading.py", &helper)], "DIR/c/threading.py"), Ok("by path".into()));
    with_python(|| {
        pyo3::Python::attach(|py| {
            use pyo3::types::PyAnyMethods;
            assert!(py.import("threading").unwrap().hasattr("Thread").unwrap());
        });
    });
    fails(&[], "DIR/nowhere.py", &["DIR/nowhere.py does not exist"], &[]);
    fails(&[("dir.py/x", "")], "DIR/dir.py", &["is not a file"], &[]);
    fails(
        &[("broken.py", "import nothing_like_it\n")],
        "DIR/broken.py",
        &["importing DIR/broken.py raised", "No module named 'nothing_like_it'", "line 1"],
        &["frozen importlib"],
    );
}

#[test]
fn a_missing_module_is_distinguished_from_one_missing_inside() {
    fails(&[], "no_such_module_x", &["No module named `no_such_module_x`", "looked in"], &["Traceback"]);
    fails(
        &[("pack_a/__init__.py", "")],
        "pack_a.sub:app",
        &["No module named `pack_a.sub`", "`pack_a` is a package without it"],
        &["Traceback"],
    );
    fails(
        &[("inside_a.py", "import another_missing\n")],
        "inside_a",
        &["importing `inside_a` raised", "Traceback", "inside_a.py\", line 1", "No module named 'another_missing'"],
        &["importlib"],
    );
    fails(
        &[("inside_b.py", "raise ModuleNotFoundError('by hand', name='inside_b')\n")],
        "inside_b",
        &["raised an exception", "by hand"],
        &["No module named"],
    );
}

#[test]
fn failing_imports_show_the_applications_traceback() {
    fails(&[("fail_a.py", "def f():\n    1 / 0\nf()\n")], "fail_a", &["fail_a.py\", line 3", "in f", "ZeroDivisionError"], &[]);
    fails(&[("fail_b.py", "def f(:\n")], "fail_b", &["SyntaxError", "fail_b.py"], &[]);
    fails(&[("fail_c.py", "import sys\nsys.exit(3)\n")], "fail_c", &["called sys.exit()", "SystemExit: 3"], &[]);
    fails(&[("fail_d.py", "raise KeyboardInterrupt\n")], "fail_d", &["KeyboardInterrupt"], &[]);
}

#[test]
fn a_missing_callable_is_answered_with_what_is_there() {
    let source = "import os\nfrom json import loads\nVALUE = 1\n".to_owned() + &says("ap", "x") + "def _hidden(): pass\n";
    fails(
        &[("call_a.py", &source)],
        "call_a:app",
        &["there is no `app`", "found `ap`", "did you mean `ap`?"],
        &["loads", "_hidden", "VALUE"],
    );
    fails(
        &[("call_b.py", &source)],
        "call_b",
        &["neither `application` nor `app`", "found `ap`", "did you mean call_b:ap?"],
        &[],
    );
    fails(
        &[("call_c.py", "def create(): pass\n")],
        "call_c",
        &["neither `application` nor `app`", "found `create`", "call_c:create() if it is a factory"],
        &[],
    );
    // As Django makes it. The interpreter of the test knows each name once.
    for (package, app) in
        [("shop_a", "shop_a"), ("shop_b", "shop_b.settings"), ("shop_c", "manage_c"), ("shop_d", "DIR/manage_d.py")]
    {
        let [init, settings, wsgi] = ["__init__", "settings", "wsgi"].map(|name| format!("{package}/{name}.py"));
        let manage = "def main():\n    pass\n";
        let files = [
            (&init[..], ""),
            (&settings, ""),
            (&wsgi, "raise RuntimeError('nobody imports it')"),
            ("manage_c.py", manage),
            ("manage_d.py", manage),
        ];
        fails(&files, app, &[&format!("neither `application` nor `app`; did you mean {package}.wsgi?")], &["main"]);
    }
    fails(&[("call_d.py", "")], "call_d", &["neither `application` nor `app`", "nor anything else that can be called"], &[]);
    fails(&[("call_e.py", "class box: pass\n")], "call_e:box.app", &["there is no `app` in `box`"], &[]);
}

#[test]
fn what_is_no_wsgi_application_is_refused() {
    fails(&[("kind_a.py", "app = 7\n")], "kind_a", &["an object of the type int is not callable"], &[]);
    fails(&[("kind_b/__init__.py", "import os as app\n")], "kind_b", &["is not callable", "it is a module"], &[]);
    fails(&[("kind_c.py", "async def app(scope, receive, send): pass\n")], "kind_c", &["ASGI"], &[]);
    fails(&[("kind_d.py", "class App:\n    async def __call__(self, s, r, x): pass\napp = App()\n")], "kind_d", &["ASGI"], &[]);
}

#[test]
fn suspicious_signatures_are_warned_of() {
    let swapped =
        load(&[("sign_a.py", "def app(start_response, environ):\n    environ('200 OK', [])\n    return [b'x']\n")], "sign_a");
    assert!(swapped.is_ok_and(|text| text.contains("WARNING") && text.contains("wrong order")));
    let factory = load(&[("sign_b.py", "def create_app():\n    pass\n")], "sign_b:create_app");
    assert!(factory.is_ok_and(|text| text.contains("looks like a factory: use sign_b:create_app()")));
}

#[test]
fn the_welcome_page_answers_get_and_head() {
    with_python(|| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let options = Options { workers: 3, ..Options::default() };
        let app = boot(dir.path(), AppSpec::Welcome, options).unwrap_or_else(|error| panic!("{}", error.text));
        let mut server = Server::of(app, dir);
        let page = server.get("GET /?a=<script> HTTP/1.1\r\nHost: h\r\nX-Bad: \"<b>&amp;\r\n\r\n");
        assert_eq!((page.status(), page.field("Content-Type").as_deref()), (200, Some("text/html; charset=utf-8")));
        let body = page.body();
        assert!(
            body.contains("tapster myapp:app") && body.contains(env!("CARGO_PKG_VERSION")) && body.contains("</small>3</li>")
        );
        assert!(body.contains(wsgi::version().trim_start_matches("Python ")));
        assert!(body.contains("a=&lt;script&gt;") && !body.contains("<script>"), "escaped");
        assert!(body.contains("&quot;&lt;b&gt;&amp;amp;"), "escaped");
        let head = server.get("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!((head.status(), head.raw_body()), (200, &b""[..]));
        assert_eq!(server.get("GET /favicon.ico HTTP/1.1\r\nHost: h\r\n\r\n").status(), 404);
        assert_eq!(server.get("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx").status(), 405);
        assert_eq!(server.log(), "");
    });
}

#[test]
fn check_loads_without_serving() {
    with_python(|| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let settings = |app: &str| Settings { app: AppSpec::parse(app).expect("well-formed"), ..Settings::default() };
        assert_eq!(wsgi::check(&settings("wsgiref.simple_server:demo_app"), &log(dir.path())), Ok(()));
        assert!(wsgi::check(&settings("wsgiref.simple_server:demo"), &log(dir.path())).is_err_and(|error| error.app));
    });
}

#[test]
fn the_working_directory_and_the_given_ones_come_first() {
    with_python(|| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let python = PythonSettings { venv: None, pythonpath: vec!["relative".into(), dir.path().into()] };
        let settings = Settings { python, ..Settings::default() };
        wsgi::check(&settings, &log(dir.path())).unwrap_or_else(|error| panic!("{}", error.text));
        let path: Vec<String> = pyo3::Python::attach(|py| {
            use pyo3::types::PyAnyMethods;
            py.import("sys").and_then(|sys| sys.getattr("path")?.extract()).expect("sys.path is a list of strings")
        });
        let here = std::env::current_dir().expect("a working directory");
        let expected = [here.clone(), here.join("relative"), dir.path().to_path_buf()];
        assert_eq!(
            path.iter().take(3).map(Path::new).collect::<Vec<_>>(),
            expected.iter().map(|p| p.as_path()).collect::<Vec<_>>()
        );
    });
}
