//! The loop's view of an application: the trait that `wsgi` implements, and the data that passes between the two.
//!
//! The loop passes a complete request. The answer is rendered into the connection's output buffer by the application's side, so
//! that the common one (head and one block) needs no allocation and leaves in one send. An answer that has more comes back as a
//! [`Blocks`], which the loop advances one block at a time while nothing waits to be sent.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::channel::BootError;
use crate::http::framing::Framing;
use crate::http::head::{Head, Span};
use crate::http::header_cache::BlockId;
use crate::http::response::Context;
use crate::http::terms::Terms;
use crate::net::stream::{IP_MAX, PORT_MAX};
use crate::net::text::Text;
use crate::tls::facts::TlsFacts;

/// The client of a connection as text, rendered once at accept.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// Address without port (`127.0.0.1`, `::1`); empty for a unix socket.
    pub addr: Text<IP_MAX>,
    /// Port in decimal; empty for a unix socket.
    pub port: Text<PORT_MAX>,
    /// Whether forwarding fields of this peer are believed (`--forwarded-allow-ips`).
    pub trusted: bool,
    /// The socket's peer, where that is a proxy which has named the client.
    pub proxy: Option<Box<Peer>>,
}

impl Peer {
    /// Address and port of the socket's peer; `None` for a unix socket.
    pub fn socket_address(&self) -> Option<(String, u16)> {
        let Peer { addr, port, .. } = self.proxy.as_deref().unwrap_or(self);
        Some((addr.to_string(), port.parse().ok()?))
    }

    /// Address of the socket's peer.
    #[inline]
    pub fn socket(&self) -> &[u8] {
        self.proxy.as_ref().map_or(self.addr.as_bytes(), |proxy| proxy.addr.as_bytes())
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.addr.is_empty() { f.write_str("a client of a unix socket") } else { f.write_str(&self.addr) }
    }
}

/// The client's end of a connection, as long as its request lasts.
pub trait Client: Send + Sync {
    /// Whether it has closed its end, or its side of sending: the two look the same. May be asked from any thread.
    fn has_left(&self) -> bool;
}

/// A connection whose request asks for another protocol (RFC 9110 section 7.8), as the application may take it over.
pub trait Takeover: Send + Sync {
    /// The connected socket for the application. It may be non-blocking; the server leaves it alone while the call runs.
    fn socket(&self) -> io::Result<RawSocket>;

    /// Notes that the application begins to use the descriptor: until its call ends the connection belongs to it, and its result
    /// is no answer to the client.
    fn take(&self) -> io::Result<()>;

    /// Whether the application has taken the connection over.
    fn is_hijacked(&self) -> bool;

    /// After the call: waits until the bytes of the application have been sent.
    fn finish(&self);
}

/// What the application uses as the socket of its client.
#[derive(Debug)]
pub struct RawSocket {
    /// A descriptor of it, or one end of a pair whose other end the server copies to and from it.
    pub descriptor: OwnedFd,
    /// Address and port of the client's end of the connection, where the descriptor does not know it; `None` for a unix socket as well.
    pub peer: Option<(String, u16)>,
}

/// A complete request body.
#[derive(Debug, Default)]
pub enum RequestBody {
    /// No bytes.
    #[default]
    Empty,
    /// In memory.
    Memory(Vec<u8>),
    /// In a temporary file.
    File(BodyFile),
}

/// A body in an unlinked temporary file, read from its start.
#[derive(Debug)]
pub struct BodyFile {
    /// The file.
    pub file: File,
    /// Length in bytes.
    pub len: u64,
    /// The file's claims on memory and disk, to be dropped with it.
    pub guard: Box<dyn Guard>,
}

/// A value that only has to be dropped in time.
pub trait Guard: fmt::Debug + Send + Sync {}

impl<T: fmt::Debug + Send + Sync> Guard for T {}

impl RequestBody {
    /// Length in bytes, transfer coding removed.
    pub fn len(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File(file) => file.len,
        }
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A request that is ready to be served.
pub struct Request<'a> {
    /// The bytes that `head` was parsed from.
    pub bytes: &'a [u8],
    /// Request line and fields.
    pub head: &'a Head,
    /// Name of the head's block, if it was seen before: equal names mean equal fields and version.
    pub block: Option<BlockId>,
    /// Framing, keep-alive wish.
    pub framing: Framing,
    /// The client.
    pub peer: &'a Peer,
    /// What is known of the encryption of the connection, if it is encrypted.
    pub tls: Option<&'a TlsFacts>,
    /// The client's end of the connection.
    pub client: Arc<dyn Client>,
    /// Index of the listener in the order of the settings' binds; SERVER_NAME and SERVER_PORT come from it.
    pub listener: usize,
    /// How the answer goes over the wire.
    pub terms: Terms,
    /// Date field value.
    pub date: &'a [u8],
    /// The complete body.
    pub body: RequestBody,
    /// The connection itself, if the request asks for another protocol.
    pub upgrade: Option<Arc<dyn Takeover>>,
}

impl Request<'_> {
    /// The X-Request-ID that its answer gets; empty: none.
    #[inline(always)] // most requests have none
    pub fn id(&self) -> &[u8] {
        let id = self.head.assigned.id;
        if id.is_empty() { &[] } else { id.of_any(self.bytes) }
    }

    /// The facts that an encoder of its answer needs.
    pub fn context(&self) -> Context<'_> {
        Context { terms: self.terms, date: self.date, id: self.id() }
    }
}

/// The facts about an answer, for the access log and the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Status code.
    pub status: u16,
    /// Body bytes rendered, framing excluded.
    pub sent: u64,
    /// Where the answer's head is in the output, as the call or step that has rendered it leaves that; empty when it is not
    /// there.
    pub head: Span,
    /// The connection's fate once the output is flushed.
    pub fate: Fate,
    /// Whether it is what the server has made of an exception of the application, or of what it did against the rules.
    pub failed: bool,
}

/// The connection's fate after an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fate {
    /// It may serve the next request.
    #[default]
    Keep,
    /// It is closed in order.
    Close,
    /// As [`Fate::Close`], and the answer may leave with the end: only the worker uses it, not applications.
    CloseWithFin,
    /// The body is short; the end is visible by closing.
    Cut,
    /// The body is short and delimited only by the close: reset it, so that the client sees the cut.
    Reset,
    /// The application took the socket over, and its call has ended: it is closed in order.
    Hijacked {
        /// Whether a thread of the application still has it, and may be about to end it in its own way.
        in_use: bool,
    },
}

/// The result of a call.
pub enum Reply {
    /// The whole answer is in the output.
    Complete(Summary),
    /// The answer is not complete; the bytes rendered so far (maybe none) are in the output.
    Blocks(Box<dyn Blocks>),
}

/// The rest of an answer. Dropping it closes the application's iterable (PEP 3333: `close()` exactly once on every path).
pub trait Blocks: Send {
    /// Advances the application by at most one block, rendering into `out`. Called only when no held block or file is pending.
    /// Bytes of `write()` meanwhile go to `outlet`, after all that is in `out`.
    fn advance(&mut self, out: &mut Vec<u8>, outlet: &mut dyn Outlet) -> Produced;

    /// The block that [`Produced::LargeBlock`] announced: bytes to send after `out`, and framing to send after them.
    fn large_block(&self) -> (&[u8], &'static [u8]);

    /// The file that [`Produced::File`] announced.
    fn file(&self) -> Option<BorrowedFd<'_>>;

    /// The facts about the answer so far (status 0 before the head is rendered).
    fn summary(&self) -> Summary;
}

/// One step of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Produced {
    /// A block (or, for an empty one, nothing) was rendered into the output; ask again.
    Rendered,
    /// A large block is kept by the stream: send the output, then [`Blocks::held`], then ask again.
    LargeBlock,
    /// Send the output, then `len` bytes of [`Blocks::file`] from `offset`, then ask again. A file that ends early is a cut.
    File {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// The answer is complete, or cut as its fate says. The stream is dropped by the loop at once.
    End(Summary),
}

/// Why nothing more can be sent: the answer ends with a cut.
#[derive(Debug)]
pub enum Gone {
    /// The client has left, or stopped taking bytes for longer than allowed.
    Client,
    /// Bytes that the client has not read yet cannot be kept in a temporary file: they are lost.
    Storage(StorageError),
}

/// Why bytes cannot be kept in a temporary file.
#[derive(Debug)]
pub struct StorageError {
    /// An error that names what failed, where, and the cure.
    pub text: String,
    /// Whether it may succeed later: there is no room at present.
    pub passing: bool,
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Interrupts the thread that it was made on, from another one.
pub trait Interrupter: Send + Sync {
    /// Raises the exception of the deadline in the thread's call, which serves `request` (words for its text). It waits for the
    /// application's runtime, which may last for ever, and then asks `runs` whether the call is still there; `raising` gets the
    /// stacks just before, while no thread runs.
    fn interrupt(&self, request: &str, runs: &dyn Fn() -> bool, raising: &dyn Fn(Stacks));

    /// The number by which the application's runtime knows the thread.
    fn number(&self) -> i64;

    /// The stacks of all threads of the application's runtime, as text; `about` has words for the thread of a number. It waits
    /// for the runtime, which may last for ever.
    fn stacks(&self, about: &dyn Fn(i64) -> Option<String>) -> Result<String, String>;
}

/// The stacks of the application's threads when one of them was interrupted, as text without a final line end.
#[derive(Debug, Default)]
pub struct Stacks {
    /// The stack of the one that was interrupted.
    pub own: String,
    /// The stacks of all of them, including that one.
    pub all: String,
}

/// A turn in the life of a worker at which an operator's function is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// It leaves at once.
    Interrupted,
    /// A call has not ended within its time, and the worker is to be replaced.
    GivenUp,
}

/// The operator's functions for a worker.
pub trait LifeHooks: Send + Sync {
    /// Calls the function for this occasion, on a thread that does nothing else. It waits for the application's runtime.
    fn run(&self, occasion: Occasion);
}

/// The directories that the application was loaded from, as entries of [`crate::channel::Report::Sources`].
pub trait ModuleSources: Send + Sync {
    /// Those that were not returned before. It waits for the application's runtime.
    fn more(&self) -> Vec<String>;

    /// Has these returned again.
    fn forget(&self, list: &[String]);
}

/// Tells the master these directories; `false`: it has no room for them at present.
pub type ToldSources = Arc<dyn Fn(&[String]) -> bool + Send + Sync>;

/// What an operator's functions learn of a worker.
#[derive(Clone)]
pub struct WorkerFacts {
    /// How many workers the server had started with this one, from 1.
    pub age: u64,
    /// Requests that it has served.
    pub requests: Arc<dyn Fn() -> u64 + Send + Sync>,
}

/// The function that a forked child of the application runs before any code of the application: it gives up the server's
/// descriptors.
pub type Renounce = Arc<dyn Fn() + Send + Sync>;

/// Where `write()` (PEP 3333, "The write() Callable") puts bytes while the call, or a step of its stream, still runs.
pub trait Outlet {
    /// Takes all of `out` (leaves it empty): as much as the socket takes is sent now, the rest is kept and sent later. Never
    /// blocks for long.
    fn push(&mut self, out: &mut Vec<u8>) -> Result<(), Gone>;

    /// The head of the answer, which is among the bytes that are pushed next.
    fn show_head(&mut self, _head: &[u8]) {}
}

/// An application that was loaded once, to be served by forks of its process (`--preload`). All functions are for the thread that
/// has loaded it, which is the one that forks.
pub trait MoldedApp {
    /// The application as a worker would call it.
    fn probe(&mut self) -> Result<Box<dyn App>, BootError>;

    /// Nothing more is loaded or asked: makes what is there cheap to share.
    fn settle(&mut self) -> MoldFacts;

    /// Lets the application's other threads run until [`Self::enter`].
    fn release(&mut self);

    /// Undoes [`Self::release`].
    fn enter(&mut self);

    /// A worker is about to be forked, which is no child of the application; `false`: it was, or could not be. Called in both
    /// processes.
    fn bears(&mut self, begins: bool);

    /// Runs the exit handlers; the process ends.
    fn finish(&mut self);
}

/// What forks of an application have in common, and should not.
#[derive(Debug, Default)]
pub struct MoldFacts {
    /// Names of the threads that it has started.
    pub threads: Vec<String>,
    /// Random numbers that each worker seeds anew.
    pub seeded: Vec<String>,
}

/// An application as one thread of a worker sees it.
pub trait App {
    /// Serves one request on the calling thread. Renders into `out`, which may already hold answers to earlier pipelined
    /// requests: append only. Never panics because of the application; its failures are logged and answered with 500.
    fn call(&mut self, request: Request<'_>, out: &mut Vec<u8>, outlet: &mut dyn Outlet) -> Reply;

    /// Lets the application's other threads run until the next call of the calling thread.
    fn release(&mut self);

    /// Notes that the calling thread advances a stream, maybe by many blocks.
    fn enter(&mut self) {}

    /// Runs several steps of an answer on a thread that has entered the runtime, so that each of them does not do again what
    /// one entry needs. A function of its own, since the steps borrow the application too.
    fn together(&self) -> fn(&mut dyn FnMut()) {
        |steps| steps()
    }

    /// Whether no other thread of the application's runtime is known that could wait for [`App::release`], so that a wait of a
    /// moment may do without it.
    fn is_alone(&self) -> bool {
        false
    }

    /// Runs the application's handlers of signals that have come. Only on the main thread.
    fn signalled(&mut self) {}

    /// Makes each signal that the application handles put a byte into this non-blocking pipe from now on; [`App::signalled`] is
    /// called for it. Without this only a signal that interrupts a wait is noticed.
    fn tell_signals(&mut self, _pipe: OwnedFd) {}

    /// Starts a thread of the application's runtime that runs `body` with the same application.
    fn spawn(&self, name: &str, body: Box<dyn FnOnce(Box<dyn App>) + Send>) -> io::Result<()>;

    /// Values of environ variables that the access log's format asked for, of the latest call, in the order given at start.
    fn logged(&self) -> &[Option<String>] {
        &[]
    }

    /// The same, to be kept.
    fn take_logged(&mut self) -> Vec<Option<String>> {
        Vec::new()
    }

    /// The means to interrupt the calling thread; `None`: there are none.
    fn interrupter(&self) -> Option<Arc<dyn Interrupter>> {
        None
    }

    /// The operator's functions for this worker; `None`: there are none.
    fn life_hooks(&self) -> Option<Arc<dyn LifeHooks>> {
        None
    }

    /// Where it was loaded from, if somebody asks for that (`--reload`).
    fn sources(&self) -> Option<Arc<dyn ModuleSources>> {
        None
    }

    /// A call in which the exception of the deadline was raised has ended on this thread: takes the exception back if it was not
    /// raised yet. Returns whether it came out of the application, so that the log has it already.
    fn settle(&mut self) -> bool {
        false
    }

    /// Flushes the application's output and runs its exit handlers, when the worker leaves.
    fn finish(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_without_an_address_has_a_name_in_messages() {
        let tcp = Peer { addr: "::1".into(), port: "80".into(), trusted: false, proxy: None };
        assert_eq!(tcp.to_string(), "::1");
        assert_eq!(Peer::default().to_string(), "a client of a unix socket");
    }
}
