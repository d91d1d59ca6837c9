//! The connections that a process has, as it finds them.

use std::fs;
use std::os::fd::RawFd;

use nix::sys::socket::{SockaddrStorage, UnixAddr, getpeername};

use super::forked::is_stream_socket;

/// Peers of the stream sockets of this process that are connected to somebody with a name: an address, or the path of a socket. Empty
/// without /proc.
pub fn connections() -> Vec<String> {
    let Ok(listing) = fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let numbers: Vec<RawFd> = listing.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    let mut peers: Vec<String> = numbers.into_iter().filter(|number| is_stream_socket(*number)).filter_map(peer).collect();
    peers.sort();
    peers.dedup();
    peers
}

fn peer(number: RawFd) -> Option<String> {
    // It fails for a socket that is not connected.
    let name: SockaddrStorage = getpeername(number).ok()?;
    if let Some(v4) = name.as_sockaddr_in() {
        return Some(v4.to_string());
    }
    if let Some(v6) = name.as_sockaddr_in6() {
        return Some(v6.to_string());
    }
    // One end of a pair has no name.
    name.as_unix_addr().and_then(UnixAddr::path).map(|path| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn peers_with_names_are_found_and_pairs_and_listeners_are_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let _pair = UnixStream::pair().unwrap();
        assert!(!connections().contains(&address));
        let _client = TcpStream::connect(&address).unwrap();
        assert!(connections().contains(&address));
    }
}
