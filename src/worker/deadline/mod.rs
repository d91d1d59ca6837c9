//! Calls that take too long: who watches them, who interrupts them, and what their clients are answered.

pub mod alarm;
pub mod calls;
pub mod claim;
pub mod late;
