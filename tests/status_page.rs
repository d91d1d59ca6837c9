//! The page for operators in a real browser: headless Chromium, by its WebDriver. Where TAPSTER_SCREENSHOTS names a directory, the
//! pictures of the page are kept there.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};

use common::client::{Address, Client};
use common::server::{Running, Server};
use common::tools::{skip, tool};
use common::{SOON, venv, wait_for};

const APP: &str = "import time\n\
                   def application(environ, start_response):\n    \
                   if environ['PATH_INFO'] == '/wait':\n        \
                   time.sleep(600)\n    \
                   status = '500 X' if environ['PATH_INFO'] == '/error' else '200 OK'\n    \
                   start_response(status, [('Content-Type', 'text/plain')])\n    \
                   return [b'hello']\n";

/// A browser that a driver steers. Dropped, both end.
struct Browser {
    driver: Child,
    address: Address,
    session: String,
}

impl Browser {
    /// `None`, and a line about it, where it is not installed.
    fn start() -> Option<Self> {
        let (Some(driver), Some(chromium)) = (tool("chromedriver"), tool("chromium")) else {
            skip("chromium and chromedriver (package chromium-driver) are not installed");
            return None;
        };
        let mut driver = Command::new(driver);
        driver.arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
        let mut driver = driver.spawn().expect("it starts");
        let mut lines = BufReader::new(driver.stdout.take().expect("it is piped")).lines();
        let port = lines.find_map(|line| {
            let line = line.expect("it speaks");
            line.strip_prefix("ChromeDriver was started successfully on port ").map(|port| port.trim_end_matches('.').to_owned())
        });
        let address = Address::parse(&format!("http://127.0.0.1:{}", port.expect("it says its port"))).expect("an address");
        // What it says later must not end it.
        std::thread::spawn(move || lines.for_each(drop));
        let mut browser = Self { driver, address, session: String::new() };
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--disable-breakpad",
            "--disable-crash-reporter",
        ];
        let options = json!({"binary": chromium, "args": arguments});
        let wanted = json!({"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}});
        let answer = browser.call("POST", "", &json!({"capabilities": {"alwaysMatch": wanted}}));
        browser.session = format!("/{}", answer["sessionId"].as_str().unwrap_or_else(|| panic!("no session: {answer}")));
        Some(browser)
    }

    /// One command of the WebDriver protocol; returns its value.
    #[track_caller]
    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut client = Client::connect(&self.address);
        client.set_patience(Duration::from_secs(60)).expect("the socket is open");
        let body = if method == "GET" { String::new() } else { body.to_string() };
        client.send(format!(
            "{method} /session{}{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.session,
            body.len()
        ));
        client.response().json()["value"].take()
    }

    #[track_caller]
    fn run(&self, script: &str) -> Value {
        self.call("POST", "/execute/sync", &json!({"script": script, "args": []}))
    }

    #[track_caller]
    fn devtools(&self, command: &str, parameters: &Value) {
        let answer = self.call("POST", "/goog/cdp/execute", &json!({"cmd": command, "params": parameters}));
        assert!(answer.get("error").is_none(), "{answer}");
    }

    fn look_like(&self, width: u32, theme: &str) {
        let size = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
        let theme = json!({"features": [{"name": "prefers-color-scheme", "value": theme}]});
        self.devtools("Emulation.setEmulatedMedia", &theme);
    }

    fn keep_picture(&self, name: &str) {
        use base64::Engine;
        let Some(directory) = std::env::var_os("TAPSTER_SCREENSHOTS").map(PathBuf::from) else { return };
        let picture = self.call("GET", "/screenshot", &Value::Null);
        let bytes = base64::engine::general_purpose::STANDARD.decode(picture.as_str().expect("text")).expect("base64");
        fs::write(directory.join(name), bytes).expect("the directory is there");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() && !std::thread::panicking() {
            self.call("DELETE", "", &Value::Null);
        }
        // With the browser, which is in its group.
        let _ = killpg(Pid::from_raw(self.driver.id() as i32), Signal::SIGKILL);
        let _ = self.driver.wait();
    }
}

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
