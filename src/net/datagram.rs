//! Datagrams to a daemon that may not be there: never waited for, by a socket for each time, so that one that was started again is
//! found, and no worker inherits it.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

/// Where datagrams go.
#[derive(Clone, Copy, Debug)]
pub enum Receiver<'a> {
    /// UDP.
    Udp(SocketAddr),
    /// A unix socket.
    Unix(&'a Path),
}

/// What has become of datagrams.
#[derive(Debug)]
pub struct Delivery {
    /// How many were taken by the system, from the first on.
    pub count: usize,
    /// Why the next one was not; or, of UDP, that nobody was there for the last one.
    pub error: Option<io::Error>,
}

/// Sends datagrams in this order, up to the first that is not taken at once.
pub fn send(to: Receiver<'_>, datagrams: &[String]) -> Delivery {
    let mut count = 0;
    let error = send_all(to, datagrams, &mut count).err();
    Delivery { count, error }
}

fn send_all(to: Receiver<'_>, datagrams: &[String], count: &mut usize) -> io::Result<()> {
    match to {
        Receiver::Udp(address) => {
            let any: SocketAddr = match address {
                SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
            };
            let socket = UdpSocket::bind(any)?;
            socket.set_nonblocking(true)?;
            socket.connect(address)?;
            for datagram in datagrams {
                socket.send(datagram.as_bytes())?;
                // On this machine it is known at once that nobody listens.
                if let Some(error) = socket.take_error()? {
                    return Err(error);
                }
                *count += 1;
            }
        }
        Receiver::Unix(path) => {
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            socket.connect(path)?;
            for datagram in datagrams {
                socket.send(datagram.as_bytes())?;
                *count += 1;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("n:{number}|c")).collect()
    }

    #[test]
    fn datagrams_arrive_or_it_is_known_that_they_do_not() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = receiver.local_addr().unwrap();
        let sent = send(Receiver::Udp(address), &texts(3));
        assert!(sent.count == 3 && sent.error.is_none(), "{sent:?}");
        let mut buffer = [0; 64];
        let count = receiver.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..count], b"n:0|c");
        drop(receiver);
        let sent = send(Receiver::Udp(address), &texts(3));
        assert_eq!((sent.count, sent.error.map(|error| error.kind())), (0, Some(io::ErrorKind::ConnectionRefused)));
    }

    #[test]
    fn a_unix_socket_that_is_full_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let receiver = UnixDatagram::bind(&path).unwrap();
        let sent = send(Receiver::Unix(&path), &texts(10_000));
        assert!(sent.count > 0 && sent.count < 10_000, "{sent:?}");
        assert_eq!(sent.error.map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
        drop(receiver);
        assert_eq!(send(Receiver::Unix(&path), &texts(1)).error.unwrap().kind(), io::ErrorKind::ConnectionRefused);
    }
}
