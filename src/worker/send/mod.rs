//! Bytes on their way to a client: kept output, whole answers sent together, coalesced blocks, files, the last segment.

pub mod coalesce;
pub mod file_pace;
pub mod fin;
pub mod outbox;
pub mod outlet;
pub mod output;
pub mod policy;
