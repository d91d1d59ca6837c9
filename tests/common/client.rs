//! A raw HTTP/1.1 client: sends the bytes a test gives it, reads exactly one response, keeps the bytes after it.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::tls;

/// Longest wait for a byte of an answer; a test that reaches it has failed.
pub const PATIENCE: Duration = super::SOON;

/// Bytes asked of the socket at once.
const READ_SIZE: usize = 64 * 1024;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
    /// TLS over TCP.
    Tls(SocketAddr),
}

impl Address {
    /// Parses an address of the ready line: `http://127.0.0.1:8000`, `https://127.0.0.1:8000`, `unix:/run/x.sock`, `scgi:127.0.0.1:4000` or
    /// `scgi:unix:/run/x.sock`.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(address) = text.strip_prefix("https://") {
            return address.parse().ok().map(Self::Tls);
        }
        let gateway = ["scgi:", "uwsgi:", "fastcgi:", "ajp:"].iter().find_map(|prefix| text.strip_prefix(prefix));
        match (gateway.unwrap_or(text).strip_prefix("unix:"), gateway) {
            (Some(path), _) => Some(Self::Unix(PathBuf::from(path))),
            (None, Some(address)) => address.parse().ok().map(Self::Tcp),
            (None, None) => text.strip_prefix("http://")?.parse().ok().map(Self::Tcp),
        }
    }

    /// The address for a TCP client.
    #[track_caller]
    pub fn tcp(&self) -> SocketAddr {
        match self {
            Self::Tcp(address) | Self::Tls(address) => *address,
            Self::Unix(path) => panic!("{} is a unix socket", path.display()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "http://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tls(address) => write!(f, "https://{address}"),
        }
    }
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Socket {
    fn stream(&mut self) -> &mut dyn Stream {
        match self {
            Self::Tcp(stream) => stream,
            Self::Unix(stream) => stream,
            Self::Tls(stream) => stream.as_mut(),
        }
    }

    fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(stream) => Some(stream),
            Self::Tls(stream) => Some(&stream.sock),
            Self::Unix(_) => None,
        }
    }
}

trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

/// One connection.
pub struct Client {
    socket: Socket,
    /// Bytes that were read and belong to no response yet.
    buffer: Vec<u8>,
}

/// One response.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    /// `HTTP/1.1`.
    pub version: String,
    /// Status code.
    pub status: u16,
    /// Reason phrase.
    pub reason: String,
    /// Field lines in order, names as sent, values as latin-1.
    pub fields: Vec<(String, String)>,
    /// Body with its framing removed.
    pub body: Vec<u8>,
    /// Whether the end of the body was as announced; false for a cut one.
    pub complete: bool,
}

impl Response {
    /// Value of the first field of this name, whatever its case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Values of all fields of this name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// Whether the server says that it closes the connection, or HTTP/1.0 rules do.
    pub fn closes(&self) -> bool {
        let has = |wish: &str| self.all("connection").iter().any(|value| value.eq_ignore_ascii_case(wish));
        has("close") || (self.version == "HTTP/1.0" && !has("keep-alive"))
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 400;
        let shown = &self.body[..self.body.len().min(SHOWN)];
        writeln!(f, "{} {} {}", self.version, self.status, self.reason)?;
        for (name, value) in &self.fields {
            writeln!(f, "{name}: {value}")?;
        }
        write!(f, "\n{}\n({} bytes, complete: {})", shown.escape_ascii(), self.body.len(), self.complete)
    }
}

impl Client {
    /// Connects, failing the test when nobody listens.
    #[track_caller]
    pub fn connect(address: &Address) -> Self {
        Self::try_connect(address).unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"))
    }

    /// Connects.
    pub fn try_connect(address: &Address) -> io::Result<Self> {
        let socket = match address {
            Address::Tcp(address) => Socket::Tcp(connect_tcp(address)?),
            Address::Tls(_) => return Self::try_connect_tls(address, tls::localhost(), tls::anyone()),
            Address::Unix(path) => Socket::Unix(UnixStream::connect(path)?),
        };
        let client = Self { socket, buffer: Vec::new() };
        client.set_patience(PATIENCE)?;
        Ok(client)
    }

    /// Connects from this address of the machine.
    #[track_caller]
    pub fn connect_from(source: Ipv4Addr, address: &Address) -> Self {
        let [a, b, c, d] = source.octets();
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket::socket(AddressFamily::Inet, SockType::Stream, flags, None).expect("a socket can be made");
        socket::bind(socket.as_raw_fd(), &SockaddrIn::new(a, b, c, d, 0)).expect("loopback has many addresses");
        let SocketAddr::V4(to) = address.tcp() else { panic!("{address} is not IPv4") };
        socket::connect(socket.as_raw_fd(), &SockaddrIn::from(to)).expect("the server listens");
        let client = Self { socket: Socket::Tcp(TcpStream::from(socket)), buffer: Vec::new() };
        client.set_patience(PATIENCE).expect("the socket is open");
        client
    }

    /// Connects and shakes hands, asking for this name in this manner.
    pub fn try_connect_tls(address: &Address, name: ServerName<'static>, config: Arc<ClientConfig>) -> io::Result<Self> {
        Self::shake_hands(connect_tcp(&address.tcp())?, name, config)
    }

    /// As [`Client::try_connect_tls`], on a connection that is there.
    pub fn shake_hands(mut socket: TcpStream, name: ServerName<'static>, config: Arc<ClientConfig>) -> io::Result<Self> {
        socket.set_read_timeout(Some(PATIENCE)).and(socket.set_write_timeout(Some(PATIENCE)))?;
        let mut connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        while connection.wants_write() {
            connection.write_tls(&mut socket)?;
        }
        Ok(Self { socket: Socket::Tls(Box::new(StreamOwned::new(connection, socket))), buffer: Vec::new() })
    }

    /// The client's side of TLS and the connection below it.
    #[track_caller]
    pub fn tls(&mut self) -> &mut StreamOwned<ClientConnection, TcpStream> {
        match &mut self.socket {
            Socket::Tls(stream) => stream,
            Socket::Tcp(_) | Socket::Unix(_) => panic!("it does not speak TLS"),
        }
    }

    /// Bounds every later read and write.
    pub fn set_patience(&self, limit: Duration) -> io::Result<()> {
        match &self.socket {
            Socket::Tcp(stream) => stream.set_read_timeout(Some(limit)).and(stream.set_write_timeout(Some(limit))),
            Socket::Tls(stream) => stream.sock.set_read_timeout(Some(limit)).and(stream.sock.set_write_timeout(Some(limit))),
            Socket::Unix(stream) => stream.set_read_timeout(Some(limit)).and(stream.set_write_timeout(Some(limit))),
        }
    }

    /// The client's own port.
    pub fn port(&self) -> u16 {
        self.socket.tcp().and_then(|stream| stream.local_addr().ok()).map_or(0, |address| address.port())
    }

    /// Sends bytes, all of them.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes.as_ref()).unwrap_or_else(|error| panic!("cannot send: {error}"));
    }

    /// Sends bytes, all of them or an error.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.stream().write_all(bytes)?;
        self.socket.stream().flush()
    }

    /// Sends bytes until the server takes none for `limit` or closes; returns how many it took.
    pub fn send_while_taken(&mut self, bytes: &[u8], limit: Duration) -> usize {
        self.set_patience(limit).expect("the socket is open");
        let mut sent = 0;
        while sent < bytes.len() {
            match self.socket.stream().write(&bytes[sent..]) {
                Ok(count) => sent += count,
                Err(_) => break,
            }
        }
        self.set_patience(PATIENCE).expect("the socket is open");
        sent
    }

    /// Says that nothing more is sent.
    pub fn finish_sending(&mut self) {
        // The server may have closed already, which is no matter.
        let _ = match &mut self.socket {
            Socket::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Socket::Unix(stream) => stream.shutdown(Shutdown::Write),
            Socket::Tls(stream) => {
                stream.conn.send_close_notify();
                stream.flush().and_then(|()| stream.sock.shutdown(Shutdown::Write))
            }
        };
    }

    /// Sends a GET for `target` and reads its response.
    #[track_caller]
    pub fn get(&mut self, target: &str) -> Response {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
        self.response()
    }

    /// Reads exactly one response to a request that is not HEAD.
    #[track_caller]
    pub fn response(&mut self) -> Response {
        self.response_to("GET")
    }

    /// Reads exactly one response to a request with this method.
    #[track_caller]
    pub fn response_to(&mut self, method: &str) -> Response {
        self.try_response_to(method).unwrap_or_else(|error| {
            panic!("no response: {error}; received {} bytes: {}", self.buffer.len(), self.buffer.escape_ascii())
        })
    }

    /// Reads exactly one response; an error when the connection ends before its head does.
    pub fn try_response_to(&mut self, method: &str) -> io::Result<Response> {
        let head = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let rest = self.buffer.split_off(end + 4);
                break std::mem::replace(&mut self.buffer, rest);
            }
            if self.fill()? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed before the end of the head"));
            }
        };
        let mut response = parse_head(&head)?;
        let none = method == "HEAD" || matches!(response.status, 100..=199 | 204 | 304);
        let length = response.field("content-length").map(str::to_owned);
        if none {
            return Ok(response);
        } else if response.field("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            (response.body, response.complete) = self.chunked();
        } else if let Some(length) = length {
            let length = length.parse().map_err(|_| invalid("bad Content-Length"))?;
            response.complete = self.fill_to(length);
            let rest = self.buffer.split_off(length.min(self.buffer.len()));
            response.body = std::mem::replace(&mut self.buffer, rest);
        } else {
            response.complete = loop {
                match self.fill() {
                    Ok(0) => break true,
                    Ok(_) => {}
                    Err(_) => break false,
                }
            };
            response.body = std::mem::take(&mut self.buffer);
        }
        Ok(response)
    }

    /// Reads until `count` bytes are in the buffer or the connection ends; true if they are.
    fn fill_to(&mut self, count: usize) -> bool {
        while self.buffer.len() < count {
            if !matches!(self.fill(), Ok(1..)) {
                return false;
            }
        }
        true
    }

    fn chunked(&mut self) -> (Vec<u8>, bool) {
        let mut body = Vec::new();
        loop {
            let Some(line) = self.line() else { return (body, false) };
            let size = usize::from_str_radix(line.split(';').next().unwrap_or("").trim(), 16);
            let Ok(size) = size else { return (body, false) };
            if size == 0 {
                loop {
                    match self.line() {
                        Some(trailer) if trailer.is_empty() => return (body, true),
                        Some(_) => {}
                        None => return (body, false),
                    }
                }
            }
            let whole = self.fill_to(size + 2);
            let taken = size.min(self.buffer.len());
            body.extend(self.buffer.drain(..taken));
            if !whole || self.buffer.drain(..2).ne(*b"\r\n") {
                return (body, false);
            }
        }
    }

    /// One line without its CR LF.
    pub fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return Some(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if !matches!(self.fill(), Ok(1..)) {
                return None;
            }
        }
    }

    /// Reads once; returns how many bytes came, 0 at the end.
    pub fn fill(&mut self) -> io::Result<usize> {
        let mut block = [0; READ_SIZE];
        let count = loop {
            match self.socket.stream().read(&mut block) {
                // A read with a timeout ends so when the process was stopped for a moment (signal(7)).
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.buffer.extend_from_slice(&block[..count]);
        Ok(count)
    }

    /// The next `count` bytes after the last response.
    #[track_caller]
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            assert!(self.fill().expect("bytes come in time") > 0, "the end came after {:?}", self.buffer);
        }
        self.buffer.drain(..count).collect()
    }

    /// Bytes read after the last response.
    pub fn leftover(&self) -> &[u8] {
        &self.buffer
    }

    /// Reads until the server closes; true when nothing more came and it did close (in order, by a cut or by a reset) in time.
    pub fn is_closed(&mut self) -> bool {
        let ended = match self.fill() {
            Ok(0) => true,
            Ok(_) => false,
            // Over TLS: without a word.
            Err(error) => matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof),
        };
        ended && self.buffer.is_empty()
    }

    /// Reads until the server closes; true when nothing more came and it closed in order and in time: over TLS it has said so before
    /// (close_notify).
    pub fn ends_in_order(&mut self) -> bool {
        matches!(self.fill(), Ok(0)) && self.buffer.is_empty()
    }

    /// Everything up to the end of the connection.
    pub fn rest(&mut self) -> Vec<u8> {
        while matches!(self.fill(), Ok(1..)) {}
        std::mem::take(&mut self.buffer)
    }

    /// Ends the connection with a reset: unread data in the receive buffer makes the kernel send one, SO_LINGER does always.
    pub fn reset(self) {
        if let Some(stream) = self.socket.tcp() {
            let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
            nix::sys::socket::setsockopt(stream, nix::sys::socket::sockopt::Linger, &linger).expect("the socket is open");
        }
    }

    /// Makes the kernel hold few received bytes, so that a reader that stalls is felt by the server soon.
    pub fn shrink_receive_buffer(&self, bytes: usize) {
        if let Some(stream) = self.socket.tcp() {
            nix::sys::socket::setsockopt(stream, nix::sys::socket::sockopt::RcvBuf, &bytes).expect("the socket is open");
        }
    }
}

fn connect_tcp(address: &SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(address, PATIENCE)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn parse_head(head: &[u8]) -> io::Result<Response> {
    // Latin-1, as HTTP's field values are bytes.
    let text: String = head[..head.len() - 4].iter().map(|byte| *byte as char).collect();
    let mut lines = text.split("\r\n");
    let mut words = lines.next().unwrap_or("").splitn(3, ' ');
    let version = words.next().unwrap_or("").to_owned();
    let status = words.next().and_then(|word| word.parse().ok()).ok_or_else(|| invalid(&text))?;
    let reason = words.next().unwrap_or("").to_owned();
    let field = |line: &str| {
        let (name, value) = line.split_once(':').ok_or_else(|| invalid(line))?;
        Ok((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
    };
    let fields = lines.map(field).collect::<io::Result<_>>()?;
    Ok(Response { version, status, reason, fields, body: Vec::new(), complete: true })
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("no HTTP: {what}"))
}

/// Where `needle` begins in `bytes`.
pub fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, needle)
}
