//! Request bodies: decoded as they come, in memory up to a budget, then in temporary files.

pub mod disk;
pub mod spool;
pub mod upload;
