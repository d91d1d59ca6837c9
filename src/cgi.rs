//! CGI (RFC 3875): the one request that a web server has started this process for, from the environment and standard input to
//! standard output, without a master, workers or sockets.
//!
//! The order is that of cost: what can be refused is refused before Python starts, and the body is taken before it too, so that the
//! web server does not wait. Standard output is moved away at the very first, and its number leads to standard error: what the
//! application prints becomes no header.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::channel::BootError;
use crate::config::Settings;
use crate::http::error::Error;
use crate::http::framing::{Framing, Length};
use crate::http::head::{Head, HeadView, Limits};
use crate::http::page::render;
use crate::http::response::Context;
use crate::http::target::percent_decode;
use crate::http::terms::{Dialect, Terms};
use crate::log::error::Log;
use crate::protocol::pairs::Packing;
use crate::protocol::variables;
use crate::sys::fd;
use crate::worker::app::{App, BodyFile, Client, Fate, Gone, Outlet, Peer, Produced, Reply, Request, RequestBody};

/// Bytes of one read of a body or a file.
const PIECE: usize = 64 * 1024;

/// The exit code where the answer is whole, whatever its status.
const ANSWERED: i32 = 0;

/// The exit code where the answer was cut, or nobody takes it.
const CUT: i32 = 1;

/// The variable that a client makes by a field `Proxy`, and that programs take for the name of their proxy (CVE-2016-5385).
pub const PROXY: &str = "HTTP_PROXY";

/// Whether a web server has started this process for one request.
pub fn is_environment() -> bool {
    let interface = env::var_os("GATEWAY_INTERFACE");
    interface.is_some_and(|interface| interface.as_bytes().starts_with(b"CGI/")) && env::var_os("REQUEST_METHOD").is_some()
}

/// Whether the last arguments are those that a web server has made of the client's query, which has no `=` then (RFC 3875 section
/// 4.4). They come where a script passes its arguments on, or is one that this program interprets, and would let the client choose
/// options.
pub fn has_words_of_client(args: &[OsString]) -> bool {
    is_environment() && env::var_os("QUERY_STRING").is_some_and(|query| end_with_query(args, query.as_bytes()))
}

fn end_with_query(args: &[OsString], query: &[u8]) -> bool {
    if query.is_empty() || query.contains(&b'=') {
        return false;
    }
    // Apache puts backslashes in front of what means something to a shell.
    let plain = |word: &[u8]| -> Vec<u8> { word.iter().copied().filter(|byte| *byte != b'\\').collect() };
    let words = query.split(|byte| *byte == b'+').map(|word| {
        let mut decoded = Vec::new();
        percent_decode(word, &mut decoded);
        plain(&decoded)
    });
    let words: Vec<Vec<u8>> = words.collect();
    let own = args.len().saturating_sub(words.len());
    // The first argument is the program.
    own > 0 && args[own..].iter().zip(&words).all(|(arg, word)| plain(arg.as_bytes()) == *word)
}

/// Standard input and output, of which this process has no other copy.
#[derive(Debug)]
pub struct Streams {
    input: File,
    output: Arc<File>,
}

impl Streams {
    /// Takes them: standard input is empty from now on, and standard output is standard error.
    pub fn take() -> io::Result<Self> {
        fd::open_streams()?;
        Ok(Self { input: fd::take_input()?.into(), output: Arc::new(fd::take_output()?.into()) })
    }

    /// What a child that the application forks begins with: the answer is not its own, and the web server does not wait for its end.
    pub fn renounce(&self) -> impl Fn() + Send + Sync + use<> {
        let output = Arc::downgrade(&self.output);
        move || {
            if let Some(output) = output.upgrade() {
                fd::silence(output.as_raw_fd());
            }
        }
    }

    /// Answers that the server cannot serve anything; the log, or standard error, says why.
    pub fn fail(&self) {
        let _ = Front(self.output.clone()).page(500, "the server cannot answer");
    }

    /// Serves the request by the application that `load` returns; returns the exit code.
    pub fn serve(mut self, settings: &Settings, log: &Log, load: impl FnOnce() -> Result<Box<dyn App>, (BootError, i32)>) -> i32 {
        let mut front = Front(self.output.clone());
        let incoming = match Incoming::read(&mut self.input, settings) {
            Ok(incoming) => incoming,
            Err(NotTaken::Request(error)) => {
                log.warning(format_args!("refused a request: {error}"));
                return front.end(|front| front.page(error.status(), &error.to_string()));
            }
            Err(NotTaken::Body(error)) => {
                log.error(format_args!("the body of a request cannot be taken: {error}"));
                return front.end(|front| front.page(500, "the request cannot be read"));
            }
        };
        // The socket of some web servers is both; it ends with the last copy.
        drop(self);
        let mut app = match load() {
            Ok(app) => app,
            Err((error, code)) => {
                log.critical(format_args!("{}", error.text.trim_end()));
                front.end(|front| front.page(500, "the application cannot be loaded"));
                return code;
            }
        };
        let code = front.end(|front| incoming.answer(&mut *app, front));
        drop(front);
        app.finish();
        code
    }
}

/// The request.
struct Incoming {
    head: Head,
    bytes: Vec<u8>,
    framing: Framing,
    body: RequestBody,
}

/// Why there is none.
enum NotTaken {
    Request(Error),
    Body(io::Error),
}

impl Incoming {
    fn read(input: &mut File, settings: &Settings) -> Result<Self, NotTaken> {
        let limits = Limits {
            request_line: settings.limit_request_line,
            fields: settings.limit_request_fields,
            field_size: settings.limit_request_field_size,
        };
        let mut bytes = pack(env::vars_os());
        let (mut head, pairs) = (Head::default(), 0..bytes.len());
        let framing = variables::read(&mut head, &mut bytes, (Packing::Long, pairs), &limits).map_err(NotTaken::Request)?;
        let coding = env::var_os("HTTP_TRANSFER_ENCODING");
        let chunked = coding.is_some_and(|coding| variables::is_chunked(coding.as_bytes()));
        let length = match framing.length {
            // The web server has removed the chunks, and the body is all that comes.
            Length::None if chunked => Length::Chunked,
            length => length,
        };
        let body = read_body(input, length, settings)?;
        Ok(Self { head, bytes, framing: Framing { length, ..framing }, body })
    }

    fn answer(self, app: &mut dyn App, front: &mut Front) -> io::Result<Fate> {
        let terms = Terms::of(HeadView { head: &self.head, bytes: &self.bytes }, false).in_dialect(Dialect::Cgi);
        let request = Request {
            bytes: &self.bytes,
            head: &self.head,
            block: None,
            framing: self.framing,
            peer: &Peer::default(),
            tls: None,
            client: Arc::new(front.clone()),
            listener: 0,
            terms,
            // The web server adds its own.
            date: b"",
            body: self.body,
            upgrade: None,
        };
        let mut out = Vec::new();
        let mut stream = match app.call(request, &mut out, front) {
            Reply::Complete(summary) => return front.send(&mut out).map(|()| summary.fate),
            Reply::Blocks(stream) => stream,
        };
        loop {
            let produced = stream.advance(&mut out, front);
            front.send(&mut out)?;
            match produced {
                Produced::Rendered => {}
                Produced::LargeBlock => {
                    let (block, after) = stream.large_block();
                    front.write(block)?;
                    front.write(after)?;
                }
                Produced::File { offset, len } => {
                    let file = stream.file().ok_or(io::ErrorKind::NotFound)?;
                    front.send_file(&file.try_clone_to_owned()?.into(), offset, len)?;
                }
                Produced::End(summary) => return Ok(summary.fate),
            }
        }
    }
}

/// The environment as a gateway sends it. PATH_INFO is always there: web servers leave it out where it is empty, and SCRIPT_NAME then
/// is the address of the program.
fn pack(environment: impl Iterator<Item = (OsString, OsString)>) -> Vec<u8> {
    const LONG: u32 = 1 << 31;
    let mut bytes = Vec::new();
    let mut put = |name: &[u8], value: &[u8]| {
        for text in [name, value] {
            bytes.extend_from_slice(&(text.len() as u32 | LONG).to_be_bytes());
        }
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(value);
    };
    let mut has_path = false;
    for (name, value) in environment {
        has_path |= name == "PATH_INFO";
        put(name.as_bytes(), value.as_bytes());
    }
    if !has_path {
        put(b"PATH_INFO", b"");
    }
    bytes
}

/// Takes the body, in memory up to `--body-buffer` and else in a file. Without a length nothing is read: standard input need not end.
fn read_body(input: &mut File, length: Length, settings: &Settings) -> Result<RequestBody, NotTaken> {
    let limit = if settings.limit_request_body == 0 { u64::MAX } else { settings.limit_request_body };
    let wanted = match length {
        Length::None | Length::Known(0) => return Ok(RequestBody::Empty),
        Length::Known(len) if len > limit => return Err(NotTaken::Request(Error::BodyTooLong(limit))),
        Length::Known(len) => len,
        Length::Chunked => limit.saturating_add(1),
    };
    let (mut memory, mut file, mut came) = (Vec::new(), None, 0);
    let mut piece = vec![0; PIECE];
    while came < wanted {
        let most = piece.len().min(usize::try_from(wanted - came).unwrap_or(usize::MAX));
        let count = patiently(input, PollFlags::POLLIN, |mut input| input.read(&mut piece[..most])).map_err(NotTaken::Body)?;
        if count == 0 {
            break;
        }
        came += count as u64;
        if file.is_none() && memory.len() + count > settings.body_buffer {
            let mut spooled = tempfile::tempfile().map_err(NotTaken::Body)?;
            spooled.write_all(&std::mem::take(&mut memory)).map_err(NotTaken::Body)?;
            file = Some(spooled);
        }
        match &mut file {
            Some(file) => file.write_all(&piece[..count]).map_err(NotTaken::Body)?,
            None => memory.extend_from_slice(&piece[..count]),
        }
    }
    match length {
        Length::Known(len) if came < len => return Err(NotTaken::Request(Error::BodyShort)),
        _ if came > limit => return Err(NotTaken::Request(Error::BodyTooLong(limit))),
        _ => {}
    }
    let Some(mut file) = file else { return Ok(RequestBody::Memory(memory)) };
    file.rewind().map_err(NotTaken::Body)?;
    Ok(RequestBody::File(BodyFile { file, len: came, guard: Box::new(()) }))
}

/// Does what may be interrupted, or refused because the file is not to wait for it.
fn patiently<T>(file: &File, wish: PollFlags, mut act: impl FnMut(&File) -> io::Result<T>) -> io::Result<T> {
    loop {
        match act(file) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                match poll(&mut [PollFd::new(file.as_fd(), wish)], PollTimeout::NONE) {
                    Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
            result => return result,
        }
    }
}

/// The web server, as it takes the answer.
#[derive(Clone)]
struct Front(Arc<File>);

impl Front {
    /// Has an answer sent; returns the exit code.
    fn end(&mut self, answer: impl FnOnce(&mut Self) -> io::Result<Fate>) -> i32 {
        match answer(self) {
            Ok(Fate::Cut | Fate::Reset) | Err(_) => CUT,
            Ok(Fate::Keep | Fate::Close | Fate::CloseWithFin | Fate::Hijacked { .. }) => ANSWERED,
        }
    }

    fn page(&mut self, status: u16, detail: &str) -> io::Result<Fate> {
        let mut out = Vec::new();
        let terms = Terms::default().closing().in_dialect(Dialect::Cgi);
        let context = Context { terms, date: b"", id: b"" };
        render(&mut out, status, detail, &context);
        self.send(&mut out).map(|()| Fate::Close)
    }

    fn send(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        self.write(out)?;
        out.clear();
        Ok(())
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = patiently(&self.0, PollFlags::POLLOUT, |mut output| output.write(bytes))?;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    fn send_file(&mut self, file: &File, mut offset: u64, mut len: u64) -> io::Result<()> {
        let mut piece = vec![0; PIECE];
        while len > 0 {
            let most = piece.len().min(usize::try_from(len).unwrap_or(usize::MAX));
            let count = patiently(file, PollFlags::POLLIN, |file| file.read_at(&mut piece[..most], offset))?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.write(&piece[..count])?;
            (offset, len) = (offset + count as u64, len - count as u64);
        }
        Ok(())
    }
}

impl Outlet for Front {
    fn push(&mut self, out: &mut Vec<u8>) -> Result<(), Gone> {
        self.send(out).map_err(|_| Gone::Client)
    }
}

impl Client for Front {
    fn has_left(&self) -> bool {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::empty())];
        let asked = poll(&mut fds, PollTimeout::ZERO);
        asked.is_ok() && fds[0].revents().is_some_and(|found| found.intersects(PollFlags::POLLERR | PollFlags::POLLHUP))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_of_the_client_are_known() {
        let ends = |args: &[&str], query: &str| {
            let args: Vec<OsString> = args.iter().map(OsString::from).collect();
            end_with_query(&args, query.as_bytes())
        };
        assert!(ends(&["tapster", "app.wsgi", "--pythonpath", "/tmp"], "--pythonpath+/tmp"));
        assert!(ends(&["tapster", "app.wsgi", "--env", "A\\;B"], "--env+A%3bB"));
        assert!(!ends(&["tapster", "app.wsgi"], "--pythonpath+/tmp"));
        assert!(!ends(&["tapster", "app.wsgi", "a=b"], "a=b"), "no web server passes such a query");
        assert!(!ends(&["tapster", "app.wsgi"], "") && !ends(&["tapster"], "tapster"));
    }

    #[test]
    fn the_environment_is_packed_with_a_path() {
        let packed = |variables: &[(&str, &str)]| {
            let bytes = pack(variables.iter().map(|(name, value)| (name.into(), value.into())));
            let pairs: Vec<(String, String)> = Packing::Long
                .pairs(&bytes, 0..bytes.len())
                .map(|pair| {
                    let pair = pair.expect("it is whole");
                    let text = |span: crate::http::head::Span| String::from_utf8_lossy(span.of(&bytes)).into_owned();
                    (text(pair.name), text(pair.value))
                })
                .collect();
            pairs
        };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(packed(&[("A", "b"), ("PATH_INFO", "/x")]), [pair("A", "b"), pair("PATH_INFO", "/x")]);
        assert_eq!(packed(&[("SCRIPT_NAME", "/app.cgi")]), [pair("SCRIPT_NAME", "/app.cgi"), pair("PATH_INFO", "")]);
    }
}
