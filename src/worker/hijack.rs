//! A connection that the application takes over, because its request asked for another protocol (a WebSocket).
//!
//! The socket is offered with the call and left alone by the loop as long as the call runs: not read, not written, not polled. If
//! the application takes it, it makes it blocking and uses it by another descriptor of the same open file until its call ends;
//! then the loop has it back only to close it in order. If it does not, nothing has changed and its answer goes the ordinary way.
//!
//! A client should wait for the answer before it uses the new protocol. If it does not wait, its early bytes were read together
//! with the head. The application must find them in the socket, as any library expects. So it gets one end of a socketpair then,
//! and two threads copy between the other end and the client. It gets one as well when the socket itself would mean nothing to it,
//! because TLS is spoken there; then one thread copies ([`relay`]).

use crate::worker::threads::sync::{Arc, Mutex, PoisonError};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crate::http::framing::Length;
use crate::scoreboard::Scoreboard;
use crate::sys::signals::Blocked;

use super::app::{RawSocket, Takeover};
use super::job::Job;
use super::relay;
use crate::worker::link::Link;
use crate::worker::threads::thread_id::ThreadId;

/// Longest wait at the end of a call until a relay has sent the application's bytes, when the client does not read them.
const RELAY_PATIENCE: Duration = Duration::from_secs(5);

/// Bytes that a relay copies at once.
const RELAY_BLOCK: usize = 16 * 1024;

/// The offer of one connection.
pub struct HijackOffer {
    link: Arc<Link>,
    scoreboard: Arc<Scoreboard>,
    slot: usize,
    thread: ThreadId,
    /// The bytes that the client has sent after its head.
    early: Arc<Vec<u8>>,
    relay: Mutex<Relay>,
}

/// The way of a connection with early bytes.
enum Relay {
    /// There is none.
    None,
    /// The server's end of the socketpair.
    Ready(UnixStream),
    /// It copies; the channel closes when the kernel has all bytes of the application.
    Running { ours: UnixStream, done: Receiver<()> },
}

/// The offer for the request in hand, if its connection can be taken over: a GET without a body and with nothing before it that
/// waits to be sent.
pub fn offer(
    job: &mut Job,
    input: &[u8],
    link: &Arc<Link>,
    scoreboard: &Arc<Scoreboard>,
    slot: usize,
    thread: ThreadId,
) -> Option<Arc<dyn Takeover>> {
    let early = std::mem::take(&mut job.early);
    let is_get = job.head.method.of(job.bytes(input)) == b"GET";
    let is_empty = matches!(job.framing.length, Length::None | Length::Known(0));
    (is_get && is_empty && !link.has_unsent(&job.output) && !job.behind && job.rendered == 0).then(|| {
        let (link, scoreboard, early) = (link.clone(), scoreboard.clone(), Arc::new(early));
        Arc::new(HijackOffer { link, scoreboard, slot, thread, early, relay: Mutex::new(Relay::None) }) as Arc<dyn Takeover>
    })
}

impl Takeover for HijackOffer {
    fn socket(&self) -> io::Result<RawSocket> {
        if self.early.is_empty() && self.link.stream.shares_descriptor() {
            return Ok(RawSocket { descriptor: self.link.stream.duplicate()?, peer: None });
        }
        let (ours, theirs) = UnixStream::pair()?;
        *self.relay.lock().unwrap_or_else(PoisonError::into_inner) = Relay::Ready(ours);
        Ok(RawSocket { descriptor: theirs.into(), peer: self.link.peer.socket_address() })
    }

    fn take(&self) -> io::Result<()> {
        let mut relay = self.relay.lock().unwrap_or_else(PoisonError::into_inner);
        *relay = match std::mem::replace(&mut *relay, Relay::None) {
            Relay::Ready(ours) => {
                let done = self.start_relay(&ours)?;
                Relay::Running { ours, done }
            }
            other => other,
        };
        self.link.take();
        self.scoreboard.call(self.slot, self.thread.index()).lift_deadline();
        Ok(())
    }

    fn is_hijacked(&self) -> bool {
        self.link.is_hijacked()
    }

    fn finish(&self) {
        let relay = std::mem::replace(&mut *self.relay.lock().unwrap_or_else(PoisonError::into_inner), Relay::None);
        if let Relay::Running { ours, done } = relay {
            // The application's end may still be open in one of its threads. After its bytes the copy finds an end.
            let _ = ours.shutdown(Shutdown::Read);
            // An error is the end of the copy, or a client that does not read.
            let _ = done.recv_timeout(RELAY_PATIENCE);
        }
    }
}

impl HijackOffer {
    /// Copies between our end and the client until one of them ends.
    fn start_relay(&self, ours: &UnixStream) -> io::Result<Receiver<()>> {
        if !self.link.stream.shares_descriptor() {
            return self.start_encrypted_relay(ours);
        }
        // Its calls are those of any stream socket; a TCP socket takes them as well.
        let client = UnixStream::from(self.link.stream.duplicate()?);
        client.set_nonblocking(false)?;
        let (to_app, from_client) = (ours.try_clone()?, client.try_clone()?);
        let from_app = ours.try_clone()?;
        let early = self.early.clone();
        let (copied, done) = channel();
        // The application's threads must get signals of the process.
        let blocked = Blocked::all()?;
        let named = |name: &str| std::thread::Builder::new().name(name.to_owned());
        named("tapster-early")
            .spawn(move || {
                let begun = (&to_app).write_all(&early);
                let _ = begun.and_then(|()| copy(&from_client, &to_app));
                let _ = to_app.shutdown(Shutdown::Write);
            })
            .and_then(|_| named("tapster-relay").spawn(move || copy_out(&from_app, &client, copied)))?;
        drop(blocked);
        Ok(done)
    }
}

impl HijackOffer {
    /// As [`Self::start_relay`], for a client whose bytes have to be opened and sealed.
    fn start_encrypted_relay(&self, ours: &UnixStream) -> io::Result<Receiver<()>> {
        let (app, link, early) = (ours.try_clone()?, self.link.clone(), self.early.to_vec());
        app.set_nonblocking(true)?;
        let (copied, done) = channel();
        // As above.
        let blocked = Blocked::all()?;
        let body = move || relay::run(&link.stream, &app, early, copied);
        std::thread::Builder::new().name("tapster-relay".to_owned()).spawn(body)?;
        drop(blocked);
        Ok(done)
    }
}

/// Copies the application's bytes; closes the channel after them.
fn copy_out(from_app: &UnixStream, client: &UnixStream, copied: Sender<()>) {
    let _ = copy(from_app, client);
    drop(copied);
}

/// Copies until the end of either.
fn copy(mut from: &UnixStream, mut to: &UnixStream) -> io::Result<()> {
    let mut block = [0; RELAY_BLOCK];
    loop {
        match from.read(&mut block) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&block[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
