//! The threads of a worker, by number.

/// A thread of the thread group. In 16 bits, since each connection has room for one; `--threads` allows far fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadId(u16);

impl ThreadId {
    /// The thread with this number.
    pub const fn new(number: usize) -> Self {
        debug_assert!(number <= u16::MAX as usize);
        Self(number as u16)
    }

    /// Its number.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The thread that runs the process's `main`; with one permit it alone calls the application.
pub const MAIN: ThreadId = ThreadId::new(0);

/// The members that are in the application, each as often as it owes the loop a completion: a member may own the loop again
/// before its last completion is read.
#[derive(Clone, Debug)]
pub struct ThreadSet {
    owing: Vec<u32>,
    count: usize,
}

impl ThreadSet {
    /// An empty set of `size` members.
    pub fn none(size: usize) -> Self {
        Self { owing: vec![0; size], count: 0 }
    }

    /// Completions owed in all: the permits that are taken.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether none is owed.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether this one owes a completion.
    pub fn contains(&self, thread: ThreadId) -> bool {
        self.owing[thread.index()] > 0
    }

    /// Notes that this one owes one more completion.
    pub fn insert(&mut self, thread: ThreadId) {
        self.owing[thread.index()] += 1;
        self.count += 1;
    }

    /// Notes that a completion of this one was read.
    pub fn remove(&mut self, thread: ThreadId) {
        self.owing[thread.index()] -= 1;
        self.count -= 1;
    }
}
