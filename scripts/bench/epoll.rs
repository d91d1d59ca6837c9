//! The least that a server on this kernel can do: an edge-triggered epoll loop that finds the ends of heads and answers each
//! with the same bytes. No parser, no limits, no timeouts: a yardstick, not a server. Listens at HOST:PORT.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd};
use std::process::ExitCode;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use tapster::config::{Bind, Endpoint, Settings};
use tapster::net::bind;
use tapster::net::stream::Stream;
use tapster::sys::epoll;

/// The answer of tests/apps/hello.py, as long as Tapster's.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\
    Server: tapster\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\nHello World!\n";

/// To an HTTP/1.0 client that asked for keep-alive.
const KEPT: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\
    Server: tapster\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nConnection: keep-alive\r\n\r\nHello World!\n";

/// The last of a connection.
const LAST: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\
    Server: tapster\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nConnection: close\r\n\r\nHello World!\n";

const LISTENER: Token = Token(usize::MAX);

/// Reads once and answers; whether the connection goes on.
fn serve(stream: &Stream, input: &mut [u8], out: &mut Vec<u8>) -> bool {
    let count = match stream.receive(input) {
        Ok(got) => got.count,
        Err(error) => return error.kind() == ErrorKind::WouldBlock,
    };
    let mut keep = count > 0;
    out.clear();
    let mut rest = &input[..count];
    while let Some(end) = memchr::memmem::find(rest, b"\r\n\r\n") {
        let head = &rest[..end];
        let old = memchr::memmem::find(head, b" HTTP/1.0\r\n").is_some();
        let asked = old && memchr::memmem::find(head, b"Keep-Alive").is_some();
        let goes_on = asked || !old && memchr::memmem::find(head, b"Connection: close").is_none();
        keep &= goes_on;
        out.extend_from_slice(match (goes_on, asked) {
            (false, _) => LAST,
            (true, true) => KEPT,
            (true, false) => ANSWER,
        });
        rest = &rest[end + 4..];
    }
    // The last answer leaves with the end.
    if keep {
        out.is_empty() || stream.send(out).is_ok_and(|sent| sent == out.len())
    } else {
        stream.send_last(out).is_ok_and(|_| false)
    }
}

fn run(bind: Bind) -> std::io::Result<()> {
    let settings = Settings { binds: vec![bind], ..Settings::default() };
    let listeners = bind::bind_all(&settings).map_err(|error| std::io::Error::other(error.to_string()))?;
    let mut poll = Poll::new()?;
    epoll::add_exclusive(poll.registry().as_fd(), listeners[0].as_fd(), LISTENER.0 as u64)?;
    let mut events = Events::with_capacity(256);
    let mut connections: HashMap<Token, Stream> = HashMap::new();
    let mut input = vec![0; 64 * 1024];
    let mut out = Vec::new();
    loop {
        match poll.poll(&mut events, None) {
            // A tracer interrupts it.
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            if event.token() == LISTENER {
                let Ok((stream, _)) = listeners[0].accept() else { continue };
                if serve(&stream, &mut input, &mut out) {
                    let fd = stream.descriptor().as_raw_fd();
                    let token = Token(fd as usize);
                    poll.registry().register(&mut SourceFd(&fd), token, Interest::READABLE)?;
                    connections.insert(token, stream);
                }
            } else if connections.get(&event.token()).is_some_and(|stream| !serve(stream, &mut input, &mut out)) {
                connections.remove(&event.token());
            }
        }
    }
}

fn main() -> ExitCode {
    let address = std::env::args().nth(1).and_then(|address| {
        let (host, port) = address.rsplit_once(':')?;
        Some(Bind::plain(Endpoint::Tcp { host: host.to_owned(), port: port.parse().ok()? }))
    });
    let Some(bind) = address else {
        eprintln!("usage: epoll HOST:PORT");
        return ExitCode::from(2);
    };
    if let Err(error) = run(bind) {
        eprintln!("epoll: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
