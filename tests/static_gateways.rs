//! Static files for front servers, in their own protocols.

mod common;
#[path = "gateways/records.rs"]
mod records;
#[path = "gateways/wire.rs"]
mod wire;

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use nix::sys::socket::{MsgFlags, recv};

use common::client::{Address, Client, find};
use common::server::{Running, Server};
use common::{SOON, wait_for};
use records::{END, STDOUT};

const APP: &str = r#"
def application(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [environ['PATH_INFO'].encode('latin-1')]
"#;

/// More bytes than a unix socket takes.
const VAST: u64 = 4 * 1024 * 1024;

/// Looks in a row that find the same before it is taken to stay.
const SAME_LOOKS: usize = 10;

/// The content of a file of several turns of the loop.
fn large() -> Vec<u8> {
    (0..200_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

/// A server with `a.txt` and `large.bin` in `static`, mapped at `/static`.
fn server() -> Server {
    let server = Server::source(APP);
    let root = server.temp().join("static");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("a.txt"), "hello, world!").unwrap();
    fs::write(root.join("large.bin"), large()).unwrap();
    server.options(["--static-map", "/static=static"])
}

#[test]
fn front_servers_get_files_in_their_own_protocols() {
    let server = server().binds(["scgi:127.0.0.1:0", "uwsgi:127.0.0.1:0"]).options(["--root-path", "/shop"]).start();
    let large = large();
    for (address, head) in server.addresses().iter().zip([wire::scgi, wire::uwsgi]) {
        let ask = |uri: &str, more: &[(&str, &str)]| {
            let variables = wire::with(&[&[("REQUEST_URI", uri)][..], more].concat());
            let mut client = Client::connect(address);
            client.send(head(&variables));
            let bytes = client.rest();
            let end = bytes.windows(4).position(|end| end == b"\r\n\r\n").expect("there is a head") + 4;
            (String::from_utf8_lossy(&bytes[..end]).into_owned(), bytes[end..].to_vec())
        };
        for uri in ["/shop/static/a.txt", "/static/a.txt"] {
            let (head, body) = ask(uri, &[]);
            assert!(head.contains("200 OK\r\n") && head.contains("ETag: "), "{uri}: {head}");
            assert_eq!(body, b"hello, world!", "{uri}");
        }
        let (head, body) = ask("/static/large.bin", &[]);
        assert!(body == large, "{head}");
        let (head, body) = ask("/static/large.bin", &[("HTTP_RANGE", "bytes=5-9")]);
        assert!(head.contains("206 Partial Content\r\n") && body == large[5..10], "{head}");
        let (head, _) = ask("/static/../x", &[]);
        assert!(head.contains("404 Not Found"), "{head}");
        let (_, body) = ask("/other", &[]);
        assert_eq!(body, b"/other");
    }
    server.stop();
}

#[test]
fn a_redirection_names_what_a_trusted_proxy_has_cut_off() {
    let trusted = ["--forwarded-allow-ips", "127.0.0.1", "--trusted-proxy-headers", "x-forwarded-prefix"];
    let server = server().options(trusted).options(["--static-index", "index.html"]).start();
    let docs = server.temp().join("static/docs");
    fs::create_dir(&docs).unwrap();
    fs::write(docs.join("index.html"), "docs").unwrap();
    let mut proxy = server.connect();
    let mut stranger = Client::connect_from(Ipv4Addr::new(127, 0, 0, 9), server.address());
    for (is_trusted, prefix, expected) in [
        (true, "/a%20b", "/a%20b/static/docs/?x=1"),
        (true, "", "/static/docs/?x=1"),
        (true, "//evil.test", "/static/docs/?x=1"),
        (false, "/a", "/static/docs/?x=1"),
    ] {
        let client = if is_trusted { &mut proxy } else { &mut stranger };
        client.send(format!("GET /static/docs?x=1 HTTP/1.1\r\nHost: t\r\nX-Forwarded-Prefix: {prefix}\r\n\r\n"));
        let response = client.response();
        assert_eq!((response.status, response.field("location")), (301, Some(expected)), "{prefix:?}");
    }
    server.stop();
}

/// A client of FastCGI that has asked for the file `sized`, which has so many bytes, when the server can send no more, and how many
/// bytes have come by then.
fn stalled(server: &Running, size: u64) -> (UnixStream, usize) {
    let path = server.temp().join("static/sized");
    File::create(&path).and_then(|file| file.set_len(size)).unwrap();
    let Address::Unix(path) = server.address() else { panic!("it is a unix socket") };
    let mut client = UnixStream::connect(path).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    let request = records::request(1, 0, &[("REQUEST_URI", "/static/sized"), ("PATH_INFO", "/static/sized")], b"");
    client.write_all(&request).unwrap();
    let mut room = vec![0; VAST as usize];
    let mut last = (0, 0);
    let count = wait_for("bytes that are no more", SOON, || {
        let seen = recv(client.as_raw_fd(), &mut room, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT).unwrap_or(0);
        last = (seen, if seen > 0 && seen == last.0 { last.1 + 1 } else { 0 });
        (last.1 == SAME_LOOKS).then_some(seen)
    });
    (client, count)
}

/// Kinds and contents of the records, of which the last may be cut.
fn split(mut bytes: &[u8]) -> Vec<(u8, &[u8])> {
    let mut found = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<8>() {
        let (len, padding) = (usize::from(u16::from_be_bytes([head[4], head[5]])), usize::from(head[6]));
        found.push((head[1], &rest[..len.min(rest.len())]));
        bytes = &rest[(len + padding).min(rest.len())..];
    }
    found
}

/// Bytes of the answer's body.
fn body(bytes: &[u8]) -> u64 {
    let records = split(bytes).into_iter().filter(|(kind, _)| *kind == STDOUT);
    let sent: Vec<u8> = records.flat_map(|(_, text)| text.to_vec()).collect();
    (sent.len() - find(&sent, b"\r\n\r\n").expect("there is a head") - 4) as u64
}

#[test]
fn an_answer_whose_end_has_no_room_ends_once() {
    let server = server().binds(["fastcgi:unix:{temp}/app.sock"]).start();
    // How much of a file the socket takes.
    let (mut client, count) = stalled(&server, VAST);
    let mut bytes = vec![0; count];
    client.read_exact(&mut bytes).unwrap();
    let size = body(&bytes);
    drop(client);
    // A file that fills it leaves no room for the end. The head of a shorter one is some bytes shorter.
    for more in -16..=8 {
        let size = size.strict_add_signed(more);
        let (mut client, _) = stalled(&server, size);
        bytes.clear();
        client.read_to_end(&mut bytes).unwrap();
        let ends = split(&bytes).iter().filter(|(kind, _)| *kind == END).count();
        assert_eq!((ends, body(&bytes)), (1, size), "{more} bytes more than the socket takes");
    }
    fs::remove_file(server.temp().join("static/sized")).unwrap();
    server.stop();
}
