//! Copies between an application and its client on a stream that only this process can use: what the client sends is opened, what
//! the application sends is sealed.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::Sender;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::net::stream::{Got, Stream};

/// Bytes that are copied at once, and kept for an application that does not read.
const BLOCK: usize = 16 * 1024;

/// Copies until both directions have ended, or one has failed. `early`: what has come from the client already. `copied` is dropped
/// when the kernel has all bytes of the application.
pub fn run(client: &Stream, app: &UnixStream, early: Vec<u8>, copied: Sender<()>) {
    let mut relay = CopyLoop { client, app, to_app: early, at: 0, may_read: true, from_client: true, to_client: Some(copied) };
    // A failure is the end of one of them, which the other one is to see.
    let _ = relay.copy();
    let _ = app.shutdown(Shutdown::Both);
}

struct CopyLoop<'a> {
    client: &'a Stream,
    app: &'a UnixStream,
    /// Bytes of the client that the application has not taken, from `at`.
    to_app: Vec<u8>,
    at: usize,
    /// Whether the client's bytes may be here without an event: they were opened with others.
    may_read: bool,
    /// Whether the client may send more.
    from_client: bool,
    /// `None`: the application sends nothing more.
    to_client: Option<Sender<()>>,
}

impl CopyLoop<'_> {
    fn copy(&mut self) -> io::Result<()> {
        let mut block = vec![0; BLOCK];
        loop {
            self.give_to_app()?;
            if self.at == self.to_app.len() && self.from_client && self.may_read {
                self.take_from_client(&mut block)?;
                continue;
            }
            if !self.client.has_unsent() && self.to_client.is_some() && self.take_from_app(&mut block)? {
                continue;
            }
            if !self.from_client && self.to_client.is_none() && self.at == self.to_app.len() && !self.client.has_unsent() {
                return Ok(());
            }
            self.wait()?;
        }
    }

    /// Gives the application what it takes.
    fn give_to_app(&mut self) -> io::Result<()> {
        while self.at < self.to_app.len() {
            match (&*self.app).write(&self.to_app[self.at..]) {
                Ok(count) => self.at += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes what has come from the client.
    fn take_from_client(&mut self, block: &mut [u8]) -> io::Result<()> {
        match self.client.receive(block) {
            Ok(Got { count: 0, .. }) => {
                self.from_client = false;
                self.app.shutdown(Shutdown::Write)
            }
            Ok(Got { count, more }) => {
                self.to_app.clear();
                self.to_app.extend_from_slice(&block[..count]);
                (self.at, self.may_read) = (0, more);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.may_read = false;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Takes what the application has sent; returns whether there was any, or its end.
    fn take_from_app(&mut self, block: &mut [u8]) -> io::Result<bool> {
        loop {
            let count = match (&*self.app).read(block) {
                Ok(0) => {
                    self.to_client = None;
                    return Ok(true);
                }
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            };
            // A block is taken as a whole: nothing is unsent, and so much is sealed at once.
            self.client.send(&block[..count])?;
            return Ok(true);
        }
    }

    /// Waits until something can be done.
    fn wait(&mut self) -> io::Result<()> {
        let has_unsent = self.client.has_unsent();
        let (reads, gives) = (self.at == self.to_app.len(), self.at < self.to_app.len());
        let mut from_client = PollFlags::empty();
        from_client.set(PollFlags::POLLIN, self.from_client && reads);
        from_client.set(PollFlags::POLLOUT, has_unsent);
        let mut from_app = PollFlags::empty();
        from_app.set(PollFlags::POLLIN, self.to_client.is_some() && !has_unsent);
        from_app.set(PollFlags::POLLOUT, gives);
        // One of which nothing is wanted would wake it by its end again and again.
        let fd = |fd, events: PollFlags| (!events.is_empty()).then(|| PollFd::new(fd, events));
        let mut fds: Vec<PollFd<'_>> =
            [fd(self.client.descriptor(), from_client), fd(self.app.as_fd(), from_app)].into_iter().flatten().collect();
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.may_read = true;
        match self.client.flush() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}
