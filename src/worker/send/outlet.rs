//! `write()`'s way to the client while the application works for it.

use std::time::Duration;

use super::coalesce::{Coalescing, WritePath};
use super::output::{Output, Sent};
use crate::worker::app::{Gone, Outlet};
use crate::worker::ctx::journal::copy_of_head;
use crate::worker::link::{Link, deliver};
use crate::worker::threads::pace::TICK;
use crate::worker::threads::precedence::Passage;

/// How long `write()` waits, once in a call, for the loop to send what goes before it. The loop is taken after one to two ticks;
/// a longer wait on an idle machine means a full socket, whose client can wait.
const OVERTAKEN: Duration = TICK.saturating_mul(250);

/// `write()`'s way to the client while the application works for it.
pub struct SocketOutlet<'a> {
    /// The connection.
    pub link: &'a Link,
    /// Where the call waits for the bytes that go before it.
    pub passage: &'a Passage,
    /// The bytes that its socket did not take.
    pub output: &'a mut Option<Box<Output>>,
    /// Whether bytes go before it that this thread does not have: nothing is sent before those.
    pub behind: bool,
    /// Whether anything was written.
    pub used: bool,
    /// The blocks of the stream that is asked; `None` during a call.
    pub coalescing: Option<Coalescing<'a>>,
    /// Where the head of the answer is copied to for the log, before it leaves the buffer; `None`: the log does not need it.
    pub head: Option<&'a mut Vec<u8>>,
}

impl Outlet for SocketOutlet<'_> {
    fn push(&mut self, out: &mut Vec<u8>) -> Result<(), Gone> {
        let mut before = Vec::new();
        if let Some(coalescing) = &mut self.coalescing
            && !self.link.has_unsent(self.output)
            && !self.behind
        {
            match coalescing.coalesce(out) {
                WritePath::Coalesced => return Ok(()),
                WritePath::Free => {}
                WritePath::After(bytes) => before = bytes,
                WritePath::Flushed => self.behind = true,
            }
        }
        if self.behind && self.is_preceded() {
            return self.keep(out);
        }
        if !self.link.claim.begin_to_send() {
            return Err(Gone::Client);
        }
        self.used = true;
        let result = if before.is_empty() { self.send(out) } else { self.send(&mut before).and_then(|()| self.send(out)) };
        self.link.claim.has_sent();
        result
    }

    fn show_head(&mut self, head: &[u8]) {
        if let Some(copy) = &mut self.head
            && copy.is_empty()
        {
            **copy = copy_of_head(head);
        }
    }
}

impl SocketOutlet<'_> {
    /// Whether something still goes before it. The first time it waits: the thread that takes the loop sends that.
    fn is_preceded(&mut self) -> bool {
        let precedence = &self.link.precedence;
        self.behind = if self.used { precedence.is_set() } else { !self.passage.wait(precedence, OVERTAKEN) };
        self.behind
    }

    fn keep(&mut self, out: &mut Vec<u8>) -> Result<(), Gone> {
        if self.link.claim.is_late() {
            return Err(Gone::Client);
        }
        self.used = true;
        self.output.get_or_insert_default().push(out, &self.link.disk).map_err(Gone::Storage)?;
        out.clear();
        Ok(())
    }

    fn send(&mut self, out: &mut Vec<u8>) -> Result<(), Gone> {
        let stream = &self.link.stream;
        if let Some(output) = self.output.as_mut()
            && output.send(stream).map_err(|_| Gone::Client)? == Sent::All
        {
            *self.output = None;
        }
        deliver(self.link, self.output, out)
    }
}
