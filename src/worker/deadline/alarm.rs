//! The exception of the deadline (`--timeout-grace`): raised in the thread that runs the call, by a thread that is made for it,
//! because that needs the interpreter, which the owner of the loop never waits for. When C code keeps the interpreter, that
//! thread waits too, but nobody waits for it.

use std::borrow::Cow;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

use crate::http::head::{Findings, Head, HeadView, Limits, NamedClient, Parsed};
use crate::scoreboard::Scoreboard;
use crate::sys::signals::Blocked;

use crate::worker::app::{Interrupter, Stacks};
use crate::worker::threads::thread_id::ThreadId;

/// Name of the thread that raises (pthread_setname_np(3): at most 15 bytes).
const THREAD: &str = "tapster-alarm";

/// A head that was accepted once keeps within the limits.
const ANY: Limits = Limits { request_line: usize::MAX, fields: usize::MAX, field_size: usize::MAX };

/// The alarms of a worker's threads, in the order of their numbers.
pub type Alarms = Arc<[Alarm]>;

/// One thread's alarm.
#[derive(Default)]
pub struct Alarm {
    interrupter: OnceLock<Arc<dyn Interrupter>>,
    /// Whether the exception was raised in the call that runs.
    raised: AtomicBool,
    /// The stacks of the threads at that moment, until they are logged.
    stacks: Mutex<Stacks>,
    /// Whether this process is a child that the application has forked: no call of it may return.
    stray: AtomicBool,
    /// The request of the last call that was noted here.
    request: Mutex<CalledRequest>,
}

/// The request of a call, for the record of one that does not end: the thread that has it does not come back.
#[derive(Clone, Debug, Default)]
pub struct CalledRequest {
    /// When it began, nanoseconds of the loop's clock.
    began: u64,
    /// How long it had waited for its thread, in nanoseconds.
    pub queued: u64,
    bytes: Vec<u8>,
    /// Its parsed head, if it came from a gateway. That of HTTP can be had from the bytes again, and nearly no call is late.
    gateway: Head,
    /// What was found out about it besides what it says.
    found: (Option<NamedClient>, Findings),
}

impl CalledRequest {
    /// Keeps the request instead of the one before, in the same memory; nothing where there is not enough.
    #[inline]
    fn keep(&mut self, request: HeadView<'_>) {
        self.bytes.clear();
        if request.head.is_from_gateway() || self.gateway.is_from_gateway() {
            self.keep_head(request.head);
        }
        let head = request.head;
        if head.client.is_some() || !head.assigned.id.is_empty() || self.found.0.is_some() || !self.found.1.id.is_empty() {
            self.found = (head.client, head.assigned);
        }
        if self.bytes.try_reserve(request.bytes.len()).is_ok() {
            self.bytes.extend_from_slice(request.bytes);
        }
    }

    #[inline(never)]
    fn keep_head(&mut self, head: &Head) {
        let kept = &mut self.gateway;
        let fields = head.fields.len().saturating_sub(kept.fields.capacity());
        let variables = head.variables.len().saturating_sub(kept.variables.capacity());
        if kept.fields.try_reserve(fields).is_ok() && kept.variables.try_reserve(variables).is_ok() {
            kept.copy_from(head);
        } else {
            *kept = Head::default();
        }
    }

    /// Its head and the bytes of that; `None`: there was no memory for it.
    pub fn head(&self) -> Option<(Cow<'_, Head>, &[u8])> {
        if self.gateway.is_from_gateway() {
            return Some((Cow::Borrowed(&self.gateway), &self.bytes));
        }
        let mut head = Head::default();
        match head.parse(&self.bytes, &ANY) {
            Ok(Parsed::Complete) => {
                (head.client, head.assigned) = self.found;
                Some((Cow::Owned(head), &self.bytes))
            }
            Ok(Parsed::Partial) | Err(_) => None,
        }
    }
}

/// The call to be interrupted.
#[derive(Debug)]
pub struct InterruptTarget {
    /// Its thread.
    pub thread: ThreadId,
    /// Its name: when it was entered.
    pub entered: u64,
    /// The scoreboard that shows whether it still runs, and the worker's slot in it.
    pub board: (Arc<Scoreboard>, usize),
    /// Its request, in words for people.
    pub request: String,
}

/// Alarms of so many threads.
pub fn alarms(count: usize) -> Alarms {
    (0..count).map(|_| Alarm::default()).collect()
}

impl Alarm {
    /// Makes the thread interruptible from now on.
    pub fn set(&self, interrupter: Arc<dyn Interrupter>) {
        // A thread sets its own once.
        let _ = self.interrupter.set(interrupter);
    }

    /// The means to look at the thread, once it has any.
    pub fn interrupter(&self) -> Option<Arc<dyn Interrupter>> {
        self.interrupter.get().cloned()
    }

    /// Notes the request of a call that begins, or goes on.
    #[inline]
    pub fn note_request(&self, request: HeadView<'_>, began: u64, queued: u64) {
        let mut noted = self.request.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.began != began {
            noted.keep(request);
            (noted.began, noted.queued) = (began, queued);
        }
    }

    /// The request of the call that began then.
    pub fn request(&self, began: u64) -> Option<CalledRequest> {
        let request = self.request.lock().unwrap_or_else(PoisonError::into_inner);
        (request.began == began).then(|| request.clone())
    }

    /// Whether the exception was raised in the call that has just ended.
    #[inline]
    pub fn is_raised(&self) -> bool {
        self.raised.load(Relaxed)
    }

    /// In a forked child: a call that returns here must end the process.
    pub fn forbid_return(&self) {
        self.stray.store(true, Relaxed);
        // So that the end of an ordinary call has one flag to look at.
        self.raised.store(true, Relaxed);
    }

    /// Whether the call that has just ended should not have returned.
    pub fn is_stray(&self) -> bool {
        self.stray.load(Relaxed)
    }

    /// The call has ended: forgets all about it.
    pub fn clear(&self) {
        self.raised.store(false, Relaxed);
        *self.stacks.lock().unwrap_or_else(PoisonError::into_inner) = Stacks::default();
    }

    /// The stack of the thread itself at that moment, once; empty when the exception could not be raised.
    pub fn own_stack(&self) -> String {
        std::mem::take(&mut self.stacks.lock().unwrap_or_else(PoisonError::into_inner).own)
    }

    /// The stacks of all threads as they were when the exception was raised; empty when it could not be.
    pub fn stacks(&self) -> String {
        std::mem::take(&mut self.stacks.lock().unwrap_or_else(PoisonError::into_inner).all)
    }
}

/// Raises the exception in a call, if it still runs when the interpreter is available.
pub fn ring(alarms: &Alarms, target: InterruptTarget) -> std::io::Result<()> {
    let alarms = alarms.clone();
    let blocked = Blocked::all()?;
    let made = thread::Builder::new().name(THREAD.to_owned()).spawn(move || raise(&alarms[target.thread.index()], &target));
    drop(blocked);
    made.map(drop)
}

fn raise(alarm: &Alarm, target: &InterruptTarget) {
    let Some(interrupter) = alarm.interrupter.get() else { return };
    let (board, slot) = &target.board;
    // The thread leaves its call while it has the interpreter, and notes that in the scoreboard before it releases it. So the
    // answer stays true as long as the asking thread has the interpreter.
    let runs = || board.call(*slot, target.thread.index()).entered() == Some(target.entered);
    let raising = |stacks| {
        *alarm.stacks.lock().unwrap_or_else(PoisonError::into_inner) = stacks;
        alarm.raised.store(true, Relaxed);
    };
    interrupter.interrupt(&target.request, &runs, &raising);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::{Field, Span};

    #[test]
    fn the_request_of_a_call_is_the_one_that_was_noted_last() {
        let alarm = Alarm::default();
        let told = |began| {
            let request = alarm.request(began).expect("it was noted");
            let (head, bytes) = request.head().expect("there is memory");
            let view = HeadView { head: &head, bytes };
            (String::from_utf8_lossy(view.line()).into_owned(), head.fields.len(), head.variables.len(), request.queued)
        };
        let http = b"\r\nPOST /a?b HTTP/1.0\r\nHost: x\r\nX-Request-ID: 7\r\n\r\n";
        let mut head = Head::default();
        assert!(matches!(head.parse(http, &ANY), Ok(Parsed::Complete)));
        alarm.note_request(HeadView { head: &head, bytes: http }, 5, 40);
        assert_eq!(told(5), ("POST /a?b HTTP/1.0".to_owned(), 2, 0, 40));
        assert!(alarm.request(4).is_none());
        // What a gateway has said is no text of HTTP.
        let (name, value) = (Span::new(0, 3), Span::new(3, 6));
        let variables = vec![Field { name, value }];
        let from_gateway = Head { line: Span::new(6, 20), variables, ..Head::default() };
        let bytes = b"HTTPonGET / HTTP/1.1";
        alarm.note_request(HeadView { head: &from_gateway, bytes }, 6, 0);
        assert_eq!(told(6), ("GET / HTTP/1.1".to_owned(), 0, 1, 0));
        alarm.note_request(HeadView { head: &head, bytes: http }, 7, 0);
        assert_eq!(told(7), ("POST /a?b HTTP/1.0".to_owned(), 2, 0, 0));
        // A stream goes on: it is the same request.
        alarm.note_request(HeadView { head: &from_gateway, bytes }, 7, 9);
        assert_eq!(told(7).0, "POST /a?b HTTP/1.0");
    }

    #[test]
    fn what_was_found_out_about_one_request_is_not_said_of_the_next() {
        let alarm = Alarm::default();
        let http = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n192.0.2.7id";
        let end = http.len();
        let mut plain = Head::default();
        assert!(matches!(plain.parse(http, &ANY), Ok(Parsed::Complete)));
        let client = Some(NamedClient { addr: Span::new(end - 11, end - 2), port: Span::default() });
        let assigned = Findings { id: Span::new(end - 2, end), ..Findings::default() };
        let (named, called) = (Head { client, ..plain.clone() }, Head { assigned, ..plain.clone() });
        for (began, head) in [(1, &named), (2, &plain), (3, &called), (4, &plain)] {
            alarm.note_request(HeadView { head, bytes: http }, began, 0);
            let request = alarm.request(began).expect("it was noted");
            let (noted, _) = request.head().expect("there is memory");
            assert_eq!((noted.client, noted.assigned), (head.client, head.assigned), "request {began}");
        }
    }
}
