//! All unsafe system calls outside `wsgi`, each wrapped in a safe function. No policy; no other module of the crate.

pub mod access;
pub mod bound;
pub mod connected;
pub mod creation;
pub mod entry;
pub mod epoll;
pub mod exec;
pub mod fd;
pub mod forked;
pub mod host;
pub mod listen_queue;
pub mod lock;
pub mod memory;
pub mod open;
pub mod privileges;
pub mod process;
pub mod random;
pub mod read;
pub mod scm;
pub mod sendfile;
pub mod signals;
pub mod socket;
pub mod terminal;
pub mod time;
pub mod title;
mod unix_diag;
