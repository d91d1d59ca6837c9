//! A browser over TLS: pages and modules from files, an upload, events.

mod common;

use std::fs;

use serde_json::json;

use common::browser::Browser;
use common::server::Server;
use common::{SOON, wait_for};

const APP: &str = "import time
def application(environ, start_response):
    if environ['PATH_INFO'] == '/upload':
        body = str(sum(environ['wsgi.input'].read())).encode()
        start_response('200 OK', [('Content-Type', 'text/plain'), ('Content-Length', str(len(body)))])
        return [body]
    start_response('200 OK', [('Content-Type', 'text/event-stream'), ('Cache-Control', 'no-store')])
    return events()

def events():
    for n in range(3):
        yield f'data: {n}\\n\\n'.encode()
        time.sleep(0.1)
";

const PAGE: &str = "<!doctype html><title>page</title><script type=module src=/static/main.mjs></script>";

const MODULE: &str = "import {name} from './part.mjs';
const seen = window.seen = {name, secure: isSecureContext, events: []};
seen.upload = await (await fetch('/upload', {method: 'POST', body: new Uint8Array(1000000).fill(1)})).text();
seen.file = (await (await fetch('/static/large.bin')).arrayBuffer()).byteLength;
await new Promise(done => {
  const source = new EventSource('/events');
  source.onmessage = event => { seen.events.push(event.data); if (seen.events.length == 3) { source.close(); done(); } };
});
seen.done = true;
";

#[test]
fn a_browser_is_served() {
    let Some(browser) = Browser::start() else { return };
    let server = Server::source(APP).tls();
    let dir = server.temp().join("files");
    fs::create_dir(&dir).expect("the temp directory is writable");
    let put = |name: &str, bytes: &[u8]| fs::write(dir.join(name), bytes).expect("it is writable");
    put("page.html", PAGE.as_bytes());
    put("main.mjs", MODULE.as_bytes());
    put("part.mjs", b"export const name = 'part';");
    put("large.bin", &vec![7; 3_000_001]);
    let server = server.options(["--threads", "4", "--static-map", &format!("/static={}", dir.display())]).start();
    browser.call("POST", "/url", &json!({"url": server.url("/static/page.html")}));
    let seen = wait_for("the page", SOON, || {
        let seen = browser.run("return window.seen");
        (seen["done"] == true).then_some(seen)
    });
    assert_eq!(seen["name"], "part");
    assert_eq!(seen["secure"], true);
    assert_eq!(seen["upload"], "1000000");
    assert_eq!(seen["file"], 3_000_001);
    assert_eq!(seen["events"], json!(["0", "1", "2"]));
    let protocol = "return performance.getEntriesByType('navigation')[0].nextHopProtocol";
    assert_eq!(browser.run(protocol), "http/1.1");
    drop(browser);
    server.stop();
}
