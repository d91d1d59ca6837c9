//! Sockets that others have opened and pass on: service managers by LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES (sd_listen_fds(3)), web
//! servers that start gateways as standard input (FastCGI specification, section 2.2).

use std::io;

use crate::config::{Bind, Endpoint};
use crate::sys::{fd, process};

use super::bind;

/// The first descriptor passed (SD_LISTEN_FDS_START).
const FIRST: i32 = 3;

/// Most sockets that a service manager can mean: more is a mistake, not a number of descriptors.
const SOCKETS_MAX: i32 = 4096;

const VARIABLES: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// Sockets that were passed to this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    count: i32,
    /// Their names in the service manager, for messages.
    pub names: String,
}

/// Takes the variables out of the environment, so that no program that is started later uses them, and returns the sockets that
/// are for this process.
pub fn take() -> io::Result<Option<Passed>> {
    let [pid, count, names] = VARIABLES.map(|name| std::env::var(name).ok());
    if pid.is_some() || count.is_some() || names.is_some() {
        process::unset_env(&VARIABLES)?;
    }
    Ok(read(pid.as_deref(), count.as_deref(), names, std::process::id()))
}

fn read(pid: Option<&str>, count: Option<&str>, names: Option<String>, own: u32) -> Option<Passed> {
    // Without LISTEN_PID, or with another one, the sockets are for an earlier process, which has left the variables.
    if pid?.parse() != Ok(own) {
        return None;
    }
    let count = count?.parse().ok().filter(|count| (1..=SOCKETS_MAX).contains(count))?;
    Some(Passed { count, names: names.unwrap_or_default() })
}

impl Passed {
    /// The sockets as addresses to listen on. They are checked when they are bound: an error names the descriptor.
    pub fn endpoints(&self) -> impl Iterator<Item = Endpoint> {
        self.numbers().map(Endpoint::Fd)
    }

    fn numbers(&self) -> impl Iterator<Item = i32> {
        FIRST..FIRST + self.count
    }

    /// Leaves the sockets alone, except those in `used`; the programs that the application starts do not get them.
    pub fn leave(&self, used: &[Bind]) {
        for number in self.numbers().filter(|number| used.iter().all(|bind| bind.endpoint != Endpoint::Fd(*number))) {
            // It fails for a number without a file, which nobody inherits either.
            let _ = fd::keep_from_programs(number);
        }
    }
}

/// Whether standard input is a listening socket.
pub fn is_input_listening() -> bool {
    bind::check(&io::stdin()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_for_this_process_are_counted_from_3() {
        let passed = read(Some("7"), Some("2"), Some("web:admin".into()), 7).unwrap();
        assert!(passed.endpoints().eq([Endpoint::Fd(3), Endpoint::Fd(4)]));
        assert_eq!(passed.names, "web:admin");
    }

    #[test]
    fn what_is_for_another_process_or_no_number_is_nothing() {
        for (pid, count) in [
            (None, Some("1")),
            (Some("8"), Some("1")),
            (Some("7"), None),
            (Some("7"), Some("0")),
            (Some("7"), Some("-1")),
            (Some("7"), Some("x")),
            (Some("7"), Some("4097")),
            (Some("x"), Some("1")),
        ] {
            assert_eq!(read(pid, count, None, 7), None, "{pid:?} {count:?}");
        }
    }
}
