//! A descriptor that is kept for the moment in which there is no other, and how long that moment lasts.
//!
//! A connection that cannot be accepted has woken this worker and nobody else. With the number of the spare descriptor it is taken
//! after all. Until there is a spare one again, the sockets are left to the other workers.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;

use crate::sys::fd::{FileId, forget, identity};
use crate::sys::process::descriptor_limit;

/// How long a worker has no descriptor before it gives up, in milliseconds: a burst of clients, or of files of the application, is
/// over in less.
const GIVES_UP_MS: u64 = 1000;

/// Part of the limit that connections have at most where it is not they that take the descriptors: each may have a file besides, and
/// they are promised half of the limit.
const OF_CONNECTIONS: usize = 4;

/// Descriptors besides the spare one without which a worker does not go on: for a connection, its body, and files that the application
/// opens meanwhile.
const NEEDED: usize = 8;

/// The spare descriptor of a worker.
#[derive(Debug, Default)]
pub struct Spare {
    held: Option<(FileId, UnixDatagram)>,
    /// Since when descriptors are missing, as far as is known, in milliseconds of the loop's clock.
    missing_since: Option<u64>,
    /// Whether the worker has given up.
    told: bool,
}

impl Spare {
    /// Opens it, if there is none; returns whether there is one.
    pub fn take(&mut self) -> bool {
        if self.held.is_none() {
            // A socket that nobody uses: no other file is taken for it.
            let socket = UnixDatagram::unbound().ok();
            self.held = socket.and_then(|socket| Some((identity(socket.as_raw_fd()).ok()?, socket)));
        }
        self.held.is_some()
    }

    /// Closes it, so that its number is free; returns whether there was one.
    #[cold]
    pub fn spend(&mut self, now: u64) -> bool {
        self.missing_since.get_or_insert(now);
        match self.held.take() {
            // The application has closed it, and may have another file there.
            Some((file, socket)) if identity(socket.as_raw_fd()).ok() != Some(file) => {
                forget(socket.into());
                false
            }
            held => held.is_some(),
        }
    }

    /// Whether descriptors have been missing for long, and are now, while a worker with `open` connections has few of them: the
    /// application has them, or has lowered the limit. `true` comes once.
    #[inline]
    pub fn gives_up(&mut self, open: usize, now: u64) -> bool {
        self.missing_since.is_some_and(|since| now >= since + GIVES_UP_MS) && self.is_hopeless(open, now)
    }

    #[cold]
    fn is_hopeless(&mut self, open: usize, now: u64) -> bool {
        let free =
            self.held.as_ref().map(|(_, spare)| std::iter::repeat_with(|| spare.try_clone()).take(NEEDED).map_while(Result::ok));
        let is_short = free.is_none_or(|free| free.collect::<Vec<_>>().len() < NEEDED);
        self.missing_since = is_short.then_some(now);
        let is_first = is_short && open <= descriptor_limit() / OF_CONNECTIONS && !self.told;
        self.told |= is_first;
        is_first
    }

    /// Closes it for good.
    pub fn close(&mut self) {
        self.spend(0);
        (self.missing_since, self.told) = (None, true);
    }
}
