//! Requests whose variables were seen before: the environ of each is that of a request that comes for the first time.

use serde_json::Value;

use super::common::client::Client;
use super::common::server::{Running, Server};
use super::wire::{scgi, uwsgi};
use super::{ajp, fastcgi, records};

/// Tells its environ, and whether those that it has kept are as they were; does with it what the query says.
const APP: &str = "
import json
kept = []

def app(environ, start_response):
    seen = {key: value for key, value in environ.items() if isinstance(value, str)}
    seen['body'] = environ['wsgi.input'].read().decode()
    seen['intact'] = all(now == then for now, then in kept)
    query = environ.get('QUERY_STRING', '')
    if 'add' in query:
        environ['HTTP_ADDED'] = environ['ADDED'] = 'added'
    if 'change' in query:
        environ.update(dict.fromkeys(seen, 'changed'))
    if 'delete' in query:
        del environ['PATH_INFO'], environ['HTTP_COOKIE']
    if 'clear' in query:
        environ.clear()
    if 'keep' in query:
        kept.append((environ, dict(environ)))
    body = json.dumps(seen).encode()
    start_response('200 OK', [('Content-Length', str(len(body)))])
    return [body]
";

/// What differs from request to request while the block stays the same.
#[derive(Clone, Copy)]
struct Asked<'a> {
    method: &'a str,
    path: &'a str,
    query: &'a str,
    cookie: &'a str,
    client: &'a str,
    port: &'a str,
    user: &'a str,
    body: &'a str,
}

const USUAL: Asked<'_> =
    Asked { method: "GET", path: "/a", query: "", cookie: "id=1", client: "192.0.2.7", port: "4711", user: "ann", body: "" };

/// Requests that follow each other.
const HISTORY: [Asked<'_>; 24] = [
    USUAL,
    USUAL,
    USUAL,
    Asked { cookie: "id=2; session=secret", ..USUAL },
    USUAL,
    Asked { path: "/b/c d", query: "add", ..USUAL },
    Asked { path: "/b/c d", query: "x=%2F&y", ..USUAL },
    Asked { query: "change", user: "bob", ..USUAL },
    Asked { cookie: "", user: "", ..USUAL },
    Asked { query: "delete", ..USUAL },
    USUAL,
    Asked { query: "keep", port: "1", ..USUAL },
    Asked { port: "65535", client: "2001:db8::1", cookie: "id=3", ..USUAL },
    Asked { query: "keep", method: "POST", body: "some body", ..USUAL },
    USUAL,
    Asked { method: "POST", body: "another", cookie: "\u{e4}", ..USUAL },
    Asked { method: "DELETE", ..USUAL },
    Asked { method: "HEADER", path: "/", ..USUAL },
    Asked { path: "/mnt/x", ..USUAL },
    Asked { query: "clear", ..USUAL },
    Asked { path: "/\u{e4}", ..USUAL },
    Asked { query: "keep&change", ..USUAL },
    Asked { user: "carol", ..USUAL },
    USUAL,
];

/// Variables as a front sends them; a mark makes their block one that was never seen.
fn variables(asked: Asked<'_>, mark: Option<usize>) -> Vec<(&'static str, String)> {
    let uri = match asked.query {
        "" => asked.path.replace(' ', "%20"),
        query => format!("{}?{query}", asked.path.replace(' ', "%20")),
    };
    let mut all = vec![
        ("CONTENT_LENGTH", asked.body.len().to_string()),
        ("SCGI", "1".into()),
        ("QUERY_STRING", asked.query.into()),
        ("REQUEST_METHOD", asked.method.into()),
        ("REQUEST_URI", uri),
        ("PATH_INFO", asked.path.into()),
        ("DOCUMENT_URI", asked.path.into()),
        ("REMOTE_ADDR", asked.client.into()),
        ("REMOTE_PORT", asked.port.into()),
        ("REMOTE_USER", asked.user.into()),
        ("SERVER_NAME", "front".into()),
        ("HTTP_HOST", "front".into()),
        ("HTTP_COOKIE", asked.cookie.into()),
        ("HTTP_ACCEPT", "*/*".into()),
    ];
    all.extend(mark.map(|mark| ("HTTP_X_MARK", mark.to_string())));
    all
}

/// One request by this protocol on a connection that may be kept.
fn ask(protocol: &str, server: &Running, kept: &mut Option<Client>, asked: Asked<'_>, mark: Option<usize>) -> Value {
    let all = variables(asked, mark);
    let all: Vec<(&str, &str)> = all.iter().map(|(name, value)| (*name, value.as_str())).collect();
    if matches!(protocol, "scgi" | "uwsgi") {
        let head = if protocol == "scgi" { scgi(&all) } else { uwsgi(&all) };
        return super::ask(server.address(), &[&head, asked.body.as_bytes()].concat()).json();
    }
    let client = kept.get_or_insert_with(|| server.connect());
    if protocol == "fastcgi" {
        client.send(records::request(1, 1, &all, asked.body.as_bytes()));
        return fastcgi::answer(client, 1).json();
    }
    let mark = mark.map(|mark| mark.to_string());
    let mut fields = vec![("Host", "front"), ("Cookie", asked.cookie)];
    fields.extend(mark.as_deref().map(|mark| ("X-Mark", mark)));
    let path = asked.path.replace(' ', "%20");
    client.send(ajp::request(ajp::GET, &path, &fields, &[(5, asked.query), (3, asked.user)]));
    ajp::answer(client).json()
}

#[test]
fn the_environ_is_that_of_a_request_that_comes_for_the_first_time() {
    for protocol in ["scgi", "uwsgi", "fastcgi", "ajp"] {
        for options in [&["--threads", "1"][..], &["--threads", "3"], &["--root-path", "/mnt"]] {
            let server = Server::source(APP).binds([format!("{protocol}:127.0.0.1:0")]).options(options).start();
            let mut kept = None;
            for (number, asked) in HISTORY.into_iter().enumerate() {
                let mut seen = ask(protocol, &server, &mut kept, asked, None);
                let mut first = ask(protocol, &server, &mut kept, Asked { query: &mark(asked.query), ..asked }, Some(number));
                // What it was told to do it has done once.
                for (environ, query) in [(&mut seen, asked.query), (&mut first, &mark(asked.query))] {
                    assert_eq!(environ["intact"], true, "{protocol} {options:?} {number}");
                    assert_eq!(environ["QUERY_STRING"], query, "{protocol} {options:?} {number}");
                    let environ = environ.as_object_mut().expect("an environ");
                    for name in ["HTTP_X_MARK", "QUERY_STRING", "REQUEST_URI", "RAW_URI"] {
                        environ.remove(name);
                    }
                }
                assert_eq!(seen, first, "{protocol} {options:?} {number}");
            }
            server.stop();
        }
    }
}

/// A query of the same length that the application does nothing for.
fn mark(query: &str) -> String {
    "-".repeat(query.len())
}
