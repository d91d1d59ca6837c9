//! The threads of a worker, by number.

/// A thread of the crew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member(pub usize);

/// The thread that runs the process's `main`; with one application slot it alone calls the application.
pub const MAIN: Member = Member(0);

/// Some members.
#[derive(Clone, Debug)]
pub struct Members {
    there: Vec<bool>,
    count: usize,
}

impl Members {
    /// None of `size` members.
    pub fn none(size: usize) -> Self {
        Self { there: vec![false; size], count: 0 }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether this one is among them.
    pub fn contains(&self, member: Member) -> bool {
        self.there[member.0]
    }

    /// Adds one.
    pub fn insert(&mut self, member: Member) {
        if !std::mem::replace(&mut self.there[member.0], true) {
            self.count += 1;
        }
    }

    /// Removes one.
    pub fn remove(&mut self, member: Member) {
        if std::mem::replace(&mut self.there[member.0], false) {
            self.count -= 1;
        }
    }
}
