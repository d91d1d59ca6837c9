//! The meaning of a failed call on a listening socket, and the advice for it.

use std::io;

use nix::errno::Errno;

/// First port that needs no privilege (net.ipv4.ip_unprivileged_port_start, as it is on most machines).
const UNPRIVILEGED_PORT: u16 = 1024;

/// The meaning of a failed call here, and the advice for it. `port` is 0 where there is none.
pub(super) fn explain(errno: Errno, port: u16) -> String {
    let what = errno.desc().to_lowercase();
    match errno {
        Errno::EACCES if (1..UNPRIVILEGED_PORT).contains(&port) => format!(
            "{what}; ports below {UNPRIVILEGED_PORT} need root or CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=), \
             or put a proxy in front of a higher port"
        ),
        Errno::EADDRINUSE => format!("{what}; another process listens there (try: ss -ltnp 'sport = :{port}')"),
        Errno::EADDRNOTAVAIL => format!("{what}; this machine does not have the address (try: ip address)"),
        Errno::ENOENT => format!("{what}; the directory must exist"),
        _ => what,
    }
}

/// An error of the system as a clause: `permission denied`.
pub(super) fn lower(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => explain(Errno::from_raw(number), 0),
        None => error.to_string(),
    }
}
