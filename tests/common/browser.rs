//! A real browser: headless Chromium, by its WebDriver.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::client::{Address, Client};
use super::place;
use super::tools::{skip, tool};

/// A browser that a driver steers. Dropped, both end.
pub struct Browser {
    driver: Child,
    address: Address,
    session: String,
}

impl Browser {
    /// `None`, and a line about it, where it is not installed.
    pub fn start() -> Option<Self> {
        let (Some(driver), Some(chromium)) = (tool("chromedriver"), tool("chromium")) else {
            skip("chromium and chromedriver (package chromium-driver) are not installed");
            return None;
        };
        let mut driver = Command::new(driver);
        // Its profiles are left where it is killed.
        driver.env("TMPDIR", place::dir()).arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
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
        let wanted = json!({"acceptInsecureCerts": true, "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}});
        let answer = browser.call("POST", "", &json!({"capabilities": {"alwaysMatch": wanted}}));
        browser.session = format!("/{}", answer["sessionId"].as_str().unwrap_or_else(|| panic!("no session: {answer}")));
        Some(browser)
    }

    /// One command of the WebDriver protocol; returns its value.
    #[track_caller]
    pub fn call(&self, method: &str, path: &str, body: &Value) -> Value {
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

    /// What a script returns in the page.
    #[track_caller]
    pub fn run(&self, script: &str) -> Value {
        self.call("POST", "/execute/sync", &json!({"script": script, "args": []}))
    }

    /// One command of the DevTools protocol.
    #[track_caller]
    pub fn devtools(&self, command: &str, parameters: &Value) {
        let answer = self.call("POST", "/goog/cdp/execute", &json!({"cmd": command, "params": parameters}));
        assert!(answer.get("error").is_none(), "{answer}");
    }

    /// Makes the page so many pixels wide, and the theme one that is wished for.
    pub fn look_like(&self, width: u32, theme: &str) {
        let size = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
        let theme = json!({"features": [{"name": "prefers-color-scheme", "value": theme}]});
        self.devtools("Emulation.setEmulatedMedia", &theme);
    }

    /// Keeps a picture of the page where TAPSTER_SCREENSHOTS names a directory.
    pub fn keep_picture(&self, name: &str) {
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
