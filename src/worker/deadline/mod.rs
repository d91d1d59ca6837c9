//! Calls that take too long: how they are watched and interrupted, and how their clients are answered.

pub mod alarm;
pub mod calls;
pub mod claim;
pub mod late;
pub mod stacks;
