//! The exception of the deadline (`--timeout-grace`): raised in the thread that runs the call, by a thread that is made for it,
//! because that needs the interpreter, which the owner of the loop never waits for. When C code keeps the interpreter, that
//! thread waits too, but nobody waits for it.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

use crate::http::head::{Head, HeadView};
use crate::scoreboard::Scoreboard;
use crate::sys::signals::Blocked;

use crate::worker::app::{Interrupter, Stacks};
use crate::worker::threads::thread_id::ThreadId;

/// Name of the thread that raises (pthread_setname_np(3): at most 15 bytes).
const THREAD: &str = "tapster-alarm";

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
    head: Head,
    bytes: Vec<u8>,
}

impl CalledRequest {
    /// Its head; `None`: there was no memory for it.
    pub fn view(&self) -> Option<HeadView<'_>> {
        (!self.bytes.is_empty()).then_some(HeadView { head: &self.head, bytes: &self.bytes })
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

    /// Notes the request of a call that begins, or goes on. The memory is used again for the next one.
    pub fn note_request(&self, head: HeadView<'_>, began: u64, queued: u64) {
        let mut request = self.request.lock().unwrap_or_else(PoisonError::into_inner);
        if request.began == began {
            return;
        }
        let CalledRequest { head: kept, bytes, .. } = &mut *request;
        bytes.clear();
        let fields = head.head.fields.len().saturating_sub(kept.fields.capacity());
        let variables = head.head.variables.len().saturating_sub(kept.variables.capacity());
        if bytes.try_reserve(head.bytes.len()).is_ok()
            && kept.fields.try_reserve(fields).is_ok()
            && kept.variables.try_reserve(variables).is_ok()
        {
            bytes.extend_from_slice(head.bytes);
            kept.copy_from(head.head);
        }
        (request.began, request.queued) = (began, queued);
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
