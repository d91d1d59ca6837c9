//! The threads of a worker, by number.

/// A thread of the crew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member(pub usize);

/// The thread that runs the process's `main`; with one application slot it alone calls the application.
pub const MAIN: Member = Member(0);

/// The members that are in the application, each as often as it owes the loop a letter: a member may own the loop again before
/// its last letter is read.
#[derive(Clone, Debug)]
pub struct Members {
    owing: Vec<u32>,
    count: usize,
}

impl Members {
    /// None of `size` members.
    pub fn none(size: usize) -> Self {
        Self { owing: vec![0; size], count: 0 }
    }

    /// Letters owed in all: the application slots that are taken.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether none is owed.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether this one owes a letter.
    pub fn contains(&self, member: Member) -> bool {
        self.owing[member.0] > 0
    }

    /// This one owes a letter more.
    pub fn insert(&mut self, member: Member) {
        self.owing[member.0] += 1;
        self.count += 1;
    }

    /// A letter of this one is read.
    pub fn remove(&mut self, member: Member) {
        self.owing[member.0] -= 1;
        self.count -= 1;
    }
}
