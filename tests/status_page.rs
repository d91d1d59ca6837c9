//! The page for operators in a real browser: headless Chromium, by its WebDriver. Where TAPSTER_SCREENSHOTS names a directory, the
//! pictures of the page are kept there.

mod common;

use std::fs;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::json;

use common::browser::Browser;
use common::client::{Address, Client};
use common::server::{Running, Server};
use common::{SOON, venv, wait_for};

const APP: &str = "import time\n\
                   def application(environ, start_response):\n    \
                   if environ['PATH_INFO'] == '/wait':\n        \
                   time.sleep(600)\n    \
                   status = '500 X' if environ['PATH_INFO'] == '/error' else '200 OK'\n    \
                   start_response(status, [('Content-Type', 'text/plain')])\n    \
                   return [b'hello']\n";

/// axe-core, as a package of PyPI has it.
fn axe() -> String {
    let libraries = fs::read_dir(venv::dir().join("lib")).expect("the environment has one").filter_map(Result::ok);
    let mut found = libraries.map(|python| python.path().join("site-packages/axe_core_python/axe.min.js"));
    let found = found.find(|path| path.exists()).expect("axe-core-python is in the environment");
    fs::read_to_string(found).expect("it is text")
}

fn page(server: &Running) -> String {
    let record = server.log().wait(&["status and metrics on http://127.0.0.1:"]);
    record.text.split(" on ").nth(1).expect("an address").trim().to_owned()
}

#[test]
fn people_can_use_the_page() {
    let Some(browser) = Browser::start() else { return };
    let options = ["--threads", "3", "--name", "shop", "--status-bind", "127.0.0.1:0", "--timeout", "0"];
    let mut server = Server::source(APP).workers(2).options(options).start();
    for _ in 0..20 {
        server.get("/");
        server.get("/error");
    }
    let mut waiting = server.connect();
    waiting.send("GET /wait/<script>alert(1)</script>?token=secret HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut held = server.connect();
    held.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
    browser.call("POST", "/url", &json!({"url": page(&server)}));
    assert_eq!(browser.run("return document.title"), "shop: serving");
    assert_eq!(browser.run("return document.querySelectorAll('#workers tr').length"), 2);
    wait_for("the request", SOON, || {
        let text = browser.run("return document.getElementById('flying').textContent");
        text.as_str().is_some_and(|text| text.contains("GET /wait")).then_some(())
    });
    let total = "return document.getElementById('rps2').textContent";
    let before = browser.run(total);
    server.get("/");
    wait_for("other figures", SOON, || (browser.run(total) != before).then_some(()));

    let axe = axe();
    let mut colours = Vec::new();
    for theme in ["light", "dark"] {
        for width in [320, 390, 1280, 1920] {
            browser.look_like(width, theme);
            let wider = browser.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth");
            assert_eq!(wider, 0, "the page is wider than {width} pixels");
            if width == 390 || width == 1280 {
                browser.run(&axe);
                let script = "const done = arguments[arguments.length - 1];\
                              axe.run().then(found => done(found.violations.map(v => [v.id, v.nodes.map(n => n.html)])), e => done(String(e)))";
                let found = browser.call("POST", "/execute/async", &json!({"script": script, "args": []}));
                assert_eq!(found, json!([]), "{theme}, {width}");
            }
            browser.keep_picture(&format!("{theme}-{width}.png"));
        }
        colours.push(browser.run("return getComputedStyle(document.body).backgroundColor"));
    }
    assert_ne!(colours[0], colours[1]);

    // By keyboard: the first stop is the button.
    browser.run("document.getElementById('pause').focus()");
    browser.run("document.getElementById('pause').click()");
    assert_eq!(browser.run("return document.getElementById('pause').getAttribute('aria-pressed')"), "true");
    browser.run("document.getElementById('pause').click()");
    // What the policy forbids, and every other mistake, is in the log.
    let said = browser.call("POST", "/se/log", &json!({"type": "browser"}));
    assert_eq!(said, json!([]));

    server.signal(Signal::SIGINT);
    server.signal(Signal::SIGQUIT);
    server.wait(SOON);
    wait_for("the word that the server is gone", SOON, || {
        (browser.run("return document.getElementById('alert').hidden") == false).then_some(())
    });
    browser.keep_picture("gone.png");
}

#[test]
fn the_policy_has_the_hashes_of_style_and_script() {
    let server = Server::source(APP).options(["--status-bind", "127.0.0.1:0"]).start();
    let address = Address::parse(&page(&server)).expect("an address");
    let mut client = Client::connect(&address);
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let response = client.response();
    let policy = response.field("content-security-policy").expect("a policy").to_owned();
    let text = response.text();
    for (kind, begin, end) in [("style-src", "<style>", "</style>"), ("script-src", "<script>", "</script>")] {
        let content = text.split(begin).nth(1).and_then(|rest| rest.split(end).next()).expect("it is there");
        let file = server.temp().join(kind);
        fs::write(&file, content).expect("writable");
        let code = "import base64, hashlib, sys\n\
                    print(base64.b64encode(hashlib.sha256(open(sys.argv[1], 'rb').read()).digest()).decode())";
        let mut command = Command::new(venv::base_python());
        let hash = common::tools::run(command.args(["-c", code]).arg(&file), SOON).succeeded().stdout;
        let wanted = format!("{kind} 'sha256-{}'", hash.trim());
        assert!(policy.contains(&wanted), "src/status/page.rs needs {wanted}");
    }
    server.stop();
}
