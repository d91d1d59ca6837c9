//! Binding the addresses of the settings: all of them or none.
//!
//! A host name is resolved once. Of its addresses the first that this machine has is bound, IPv4 before IPv6, so that `localhost`
//! is 127.0.0.1. An IPv6 wildcard also takes IPv4 clients, unless the settings bind an IPv4 address to the same port.
//!
//! The rules for unix sockets are in `unix`.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrLike, SockaddrStorage, UnixAddr, bind, getsockname, getsockopt, setsockopt,
    socket, sockopt,
};

use crate::config::{Bind, Endpoint, NO_SECRET, Settings};
use crate::sys::fd::{add_flags, inherited, take_input};
use crate::sys::privileges::{Gid, Uid};
use crate::sys::socket::{disconnect, listen, set_defer_accept};

use super::listener::{Address, Listener, Socket};
use super::reason::{explain, lower};
use super::unix::{self, FileMark, UnixFile};

/// A bind that failed. `Display`: `cannot listen on 127.0.0.1:80: permission denied; ...what to do`.
#[derive(Debug)]
pub struct BindError(pub String);

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BindError {}

/// Binds every address of the settings, or none, as [`bind_all_for`] does. The files of unix sockets belong to the user of this
/// process.
pub fn bind_all(settings: &Settings) -> Result<Vec<Listener>, BindError> {
    bind_all_for(settings, None)
}

/// Binds every address of the settings, or none. Stale unix sockets are replaced only when nobody listens on them. New ones
/// belong to `owner`, which only root can give; without one to the user of this process.
pub fn bind_all_for(settings: &Settings, owner: Option<(Uid, Gid)>) -> Result<Vec<Listener>, BindError> {
    // After a failure the sockets bound so far are dropped, which closes them and removes their files.
    settings.binds.iter().enumerate().try_fold(Vec::new(), |mut bound, (index, wanted)| {
        let same = |other: &Bind| other.endpoint == wanted.endpoint;
        let repeated = settings.binds[..index].iter().any(same) && !matches!(wanted.endpoint, Endpoint::Tcp { port: 0, .. });
        let result = if repeated { Err("it is given twice".into()) } else { bind_one(wanted, settings, owner) };
        bound.push(result.map_err(|why| BindError(format!("cannot listen on {wanted}: {why}")))?);
        Ok(bound)
    })
}

fn bind_one(wanted: &Bind, settings: &Settings, owner: Option<(Uid, Gid)>) -> Result<Listener, String> {
    let lacks_secret = settings.lacks_secret(wanted);
    let bound = match &wanted.endpoint {
        Endpoint::Tcp { host, port } => bind_tcp(host, *port, settings, lacks_secret),
        Endpoint::Unix(path) => unix::bind(path, settings, owner),
        Endpoint::Fd(number) => (if *number == 0 { take_input() } else { inherited(*number) })
            .map_err(|error| lower(&error))
            .and_then(|socket| take_over(socket, settings))
            .map(|listener| listener.owned(false)),
    }?;
    if let Address::Tcp(address) = bound.address()
        && lacks_secret
    {
        require_loopback(*address)?;
    }
    Ok(speaking(bound, wanted, settings))
}

/// The socket of this address, with what is spoken there.
pub fn speaking(listener: Listener, wanted: &Bind, settings: &Settings) -> Listener {
    let is_encrypted = settings.encrypts(wanted, matches!(listener.address(), Address::Unix(_)));
    listener.speaking(settings.protocol_at(wanted)).encrypted(is_encrypted)
}

/// Looks up the addresses of a host, those of IPv4 first. It may wait for a name server. The error is one clause.
pub fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let found = (host, port).to_socket_addrs().map_err(|error| format!("the name cannot be resolved: {}", lower(&error)))?;
    let mut found: Vec<SocketAddr> = found.collect();
    found.sort_by_key(SocketAddr::is_ipv6);
    Ok(found)
}

/// Refuses an address that others than this machine can reach, for AJP without a secret: what a name means shows only here.
fn require_loopback(address: SocketAddr) -> Result<(), String> {
    if address.ip().to_canonical().is_loopback() { Ok(()) } else { Err(format!("{address} {NO_SECRET}")) }
}

fn bind_tcp(host: &str, port: u16, settings: &Settings, lacks_secret: bool) -> Result<Listener, String> {
    let found = resolve(if host.is_empty() { "0.0.0.0" } else { host }, port)?;
    let mut missing = Errno::EADDRNOTAVAIL;
    for addr in found {
        if lacks_secret {
            require_loopback(addr)?;
        }
        match listen_tcp(addr, settings) {
            Ok(socket) => return tcp_listener(socket).map_err(|error| lower(&error)),
            // Only addresses that this machine does not have are skipped: binding the next address instead of one in use would be
            // a surprise.
            Err(errno @ (Errno::EADDRNOTAVAIL | Errno::EAFNOSUPPORT)) => missing = errno,
            Err(errno) => return Err(explain(errno, port)),
        }
    }
    Err(explain(missing, port))
}

fn listen_tcp(addr: SocketAddr, settings: &Settings) -> nix::Result<OwnedFd> {
    let family = if addr.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    if addr.is_ipv6() {
        let beside_ipv4 = settings.binds.iter().any(|other| is_ipv4_on(other, addr.port()));
        setsockopt(&socket, sockopt::Ipv6V6Only, &(beside_ipv4 || !addr.ip().is_unspecified()))?;
    }
    set_tcp_options(&socket, settings)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(addr))?;
    listen(&socket, settings.backlog).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
    Ok(socket)
}

/// Options that accepted connections inherit, or that concern accepting.
pub(super) fn set_tcp_options(socket: &impl AsFd, settings: &Settings) -> nix::Result<()> {
    setsockopt(socket, sockopt::TcpNoDelay, &true)?;
    let seconds = u32::try_from(settings.defer_accept.as_secs()).unwrap_or(u32::MAX);
    if seconds > 0 {
        set_defer_accept(socket, seconds).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
    }
    Ok(())
}

/// Whether a bind takes the IPv4 side of `port`.
fn is_ipv4_on(bind: &Bind, wanted: u16) -> bool {
    match &bind.endpoint {
        Endpoint::Tcp { host, port } => *port == wanted && !host.contains(':'),
        Endpoint::Unix(_) | Endpoint::Fd(_) => false,
    }
}

/// A new socket that listens there.
pub(super) fn listener_at(addr: SocketAddr, settings: &Settings) -> io::Result<Listener> {
    tcp_listener(listen_tcp(addr, settings)?)
}

fn tcp_listener(socket: OwnedFd) -> io::Result<Listener> {
    let listener = TcpListener::from(socket);
    let address = Address::Tcp(listener.local_addr()?);
    Ok(Listener::new(Socket::Tcp(mio::net::TcpListener::from_std(listener)), address, None))
}

/// Takes over a listening socket of the program that this process ran before exec: its own or not, with the file made for it.
pub fn adopt(number: i32, own: bool, file: Option<FileMark>, settings: &Settings) -> Result<Listener, BindError> {
    let failed = |why: String| BindError(format!("cannot go on listening on {number}: {why}"));
    let socket = inherited(number).map_err(|error| failed(lower(&error)))?;
    if own && check(&socket).is_err() {
        // A worker has shut it down since the trial, or connected it to somebody.
        let before = port_of(&socket);
        let _ = disconnect(&socket);
        let _ = listen(&socket, settings.backlog);
        if port_of(&socket) != before {
            return Err(failed("a worker has ended it, and the port that the kernel had chosen is lost".into()));
        }
    }
    let listener = take_over(socket, settings).map_err(failed)?.owned(own);
    Ok(match file {
        Some(mark) => listener.with_file(UnixFile::of(mark)),
        None => listener,
    })
}

/// The port of a TCP socket; `None` for others.
fn port_of(socket: &OwnedFd) -> Option<u16> {
    let name = getsockname::<SockaddrStorage>(socket.as_raw_fd()).ok()?;
    let (v4, v6) = (name.as_sockaddr_in().map(|name| name.port()), name.as_sockaddr_in6().map(|name| name.port()));
    v4.or(v6)
}

/// Whether [`adopt`] could take this descriptor, which stays as it is, but its number is used up: it cannot be checked twice.
pub fn examine(number: i32) -> Result<(), BindError> {
    let socket = inherited(number).map_err(|error| lower(&error));
    socket.and_then(|socket| check(&socket)).map_err(|why| BindError(format!("cannot go on listening on {number}: {why}")))
}

/// Whether this is a listening stream socket; why not.
pub fn check(socket: &impl AsFd) -> Result<(), String> {
    let kind = getsockopt(socket, sockopt::SockType).map_err(|errno| match errno {
        Errno::ENOTSOCK => "the descriptor is not a socket".into(),
        errno => explain(errno, 0),
    })?;
    if kind != SockType::Stream || !getsockopt(socket, sockopt::AcceptConn).map_err(|errno| explain(errno, 0))? {
        return Err("the descriptor is not a listening stream socket".into());
    }
    Ok(())
}

/// Takes over a listening socket that the parent process (systemd, a test) has opened.
fn take_over(socket: OwnedFd, settings: &Settings) -> Result<Listener, String> {
    check(&socket)?;
    add_flags(&socket, OFlag::O_NONBLOCK).map_err(|error| lower(&error))?;
    let name: SockaddrStorage = getsockname(socket.as_raw_fd()).map_err(|errno| explain(errno, 0))?;
    match name.family() {
        Some(AddressFamily::Inet | AddressFamily::Inet6) => {
            set_tcp_options(&socket, settings).map_err(|errno| explain(errno, 0))?;
            tcp_listener(socket).map_err(|error| lower(&error))
        }
        Some(AddressFamily::Unix) => {
            let path = name.as_unix_addr().and_then(UnixAddr::path).map(Path::to_path_buf).unwrap_or_default();
            let socket = mio::net::UnixListener::from_std(UnixListener::from(socket));
            Ok(Listener::new(Socket::Unix(socket), Address::Unix(path), None))
        }
        _ => Err("the descriptor is neither a TCP nor a unix socket".into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::IntoRawFd;
    use std::os::unix::net::UnixStream;
    use std::path::PathBuf;

    use nix::fcntl::{FcntlArg, FdFlag, fcntl};

    use super::*;
    use crate::net::stream::{Got, PeerAddr};
    use crate::sys::process::FORKS;

    fn settings(binds: Vec<Bind>) -> Settings {
        Settings { binds, ..Settings::default() }
    }

    fn tcp(host: &str, port: u16) -> Bind {
        Bind::plain(Endpoint::Tcp { host: host.into(), port })
    }

    #[track_caller]
    fn port(listener: &Listener) -> u16 {
        match listener.address() {
            Address::Tcp(addr) => addr.port(),
            Address::Unix(path) => panic!("a unix socket: {}", path.display()),
        }
    }

    #[track_caller]
    fn refused(settings: &Settings) -> String {
        bind_all(settings).expect_err("it must not be bound").to_string()
    }

    /// Passes a descriptor as a parent process would: open across exec.
    fn pass(socket: impl Into<OwnedFd>) -> i32 {
        let socket = socket.into();
        fcntl(socket.as_fd(), FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        socket.into_raw_fd()
    }

    #[test]
    fn port_0_becomes_the_port_that_the_kernel_chose() {
        let bound = bind_all(&settings(vec![tcp("127.0.0.1", 0), tcp("127.0.0.1", 0)])).unwrap();
        assert!(port(&bound[0]) != 0 && port(&bound[0]) != port(&bound[1]));
        assert_eq!(bound[0].place().to_string(), format!("http://127.0.0.1:{}", port(&bound[0])));
    }

    #[test]
    fn an_accepted_connection_is_nonblocking_and_never_waits_for_acks() {
        let bound = bind_all(&settings(vec![tcp("localhost", 0)])).unwrap();
        assert_eq!(bound[0].accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let mut client = TcpStream::connect(("127.0.0.1", port(&bound[0]))).unwrap();
        client.write_all(b"x").unwrap();
        let (stream, peer) = loop {
            match bound[0].accept() {
                Ok(accepted) => break accepted,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        };
        assert_eq!(peer, PeerAddr::Tcp(client.local_addr().unwrap()));
        assert_eq!(stream.receive(&mut [0; 8]).unwrap(), Got { count: 1, more: false });
        assert_eq!(stream.receive(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(getsockopt(&stream.descriptor(), sockopt::TcpNoDelay).unwrap());
    }

    #[test]
    fn a_port_in_use_is_refused_with_the_way_to_find_who_has_it() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = other.local_addr().unwrap().port();
        assert_eq!(
            refused(&settings(vec![tcp("127.0.0.1", taken)])),
            format!(
                "cannot listen on 127.0.0.1:{taken}: address already in use; another process listens there \
                 (try: ss -ltnp 'sport = :{taken}')"
            )
        );
    }

    #[test]
    fn addresses_and_names_that_do_not_exist_are_refused() {
        let message = refused(&settings(vec![tcp("192.0.2.1", 0)]));
        assert!(message.contains("192.0.2.1:0: cannot assign requested address; this machine"), "{message}");
        let message = refused(&settings(vec![tcp("name.invalid", 80)]));
        assert!(message.starts_with("cannot listen on name.invalid:80: the name cannot be resolved: "), "{message}");
    }

    #[test]
    fn privileged_ports_are_explained() {
        assert!(explain(Errno::EACCES, 80).starts_with("permission denied; ports below 1024 need root or CAP_NET_BIND_SERVICE"));
        assert_eq!(explain(Errno::EACCES, 8000), "permission denied");
    }

    #[test]
    fn the_ipv6_wildcard_takes_ipv4_clients_unless_ipv4_is_bound_too() {
        let _undisturbed = FORKS.read();
        let Ok(bound) = bind_all(&settings(vec![tcp("::", 0)])) else { return };
        TcpStream::connect(("127.0.0.1", port(&bound[0]))).expect("dual-stack");
        let free = port(&bound[0]);
        drop(bound);
        let bound = bind_all(&settings(vec![tcp("::", free), tcp("", free)])).unwrap();
        assert_eq!(bound[1].place().to_string(), format!("http://0.0.0.0:{free}"));
    }

    #[test]
    fn the_same_address_twice_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let twice = Bind::plain(Endpoint::Unix(dir.path().join("s")));
        assert!(refused(&settings(vec![twice.clone(), twice])).ends_with(": it is given twice"));
    }

    #[test]
    fn a_missing_directory_is_named_as_the_reason() {
        let message = refused(&settings(vec![Bind::plain(Endpoint::Unix(PathBuf::from("/nonexistent/x")))]));
        assert_eq!(message, "cannot listen on unix:/nonexistent/x: no such file or directory; the directory must exist");
    }

    #[test]
    fn after_a_failure_nothing_stays_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        refused(&settings(vec![Bind::plain(Endpoint::Unix(path.clone())), tcp("192.0.2.1", 0)]));
        assert!(!path.exists());
    }

    #[test]
    fn an_inherited_socket_is_taken_over_as_it_is_bound() {
        let given = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = given.local_addr().unwrap();
        let bound = bind_all(&settings(vec![Bind::plain(Endpoint::Fd(pass(given)))])).unwrap();
        assert_eq!(bound[0].address(), &Address::Tcp(address));
        assert_eq!(bound[0].accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let bound = bind_all(&settings(vec![Bind::plain(Endpoint::Fd(pass(UnixListener::bind(&path).unwrap())))])).unwrap();
        assert_eq!(bound[0].address(), &Address::Unix(path.clone()));
        drop(bound);
        assert!(path.exists(), "it belongs to who made it");
    }

    #[test]
    fn a_socket_that_a_worker_has_ended_fails_the_trial_and_listens_again_when_it_is_adopted() {
        use nix::sys::socket::{Shutdown, shutdown};
        for connected in [false, true] {
            let chosen = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = chosen.local_addr().unwrap();
            shutdown(chosen.as_raw_fd(), Shutdown::Both).unwrap();
            assert!(adopt(pass(chosen), true, None, &settings(vec![])).is_err(), "it would get another port");
            let given = TcpListener::bind(address).unwrap();
            let other = TcpListener::bind("127.0.0.1:0").unwrap();
            shutdown(given.as_raw_fd(), Shutdown::Both).unwrap();
            if connected {
                let to = SockaddrStorage::from(other.local_addr().unwrap());
                nix::sys::socket::connect(given.as_raw_fd(), &to).unwrap();
            }
            let copy = given.try_clone().unwrap();
            assert!(examine(pass(copy)).unwrap_err().0.ends_with("is not a listening stream socket"));
            let settings = settings(vec![]);
            let listener = adopt(pass(given.try_clone().unwrap()), true, None, &settings).unwrap();
            assert_eq!(listener.address(), &Address::Tcp(address));
            TcpStream::connect(address).unwrap();
            shutdown(given.as_raw_fd(), Shutdown::Both).unwrap();
            assert!(adopt(pass(given), false, None, &settings).is_err(), "another server may use what is not ours");
        }
    }

    #[test]
    fn inherited_descriptors_that_do_not_listen_are_refused() {
        for (number, why) in [
            (pass(fs::File::open("/dev/null").unwrap()), "is not a socket"),
            (pass(UnixStream::pair().unwrap().0), "is not a listening stream socket"),
            (pass(std::net::UdpSocket::bind("127.0.0.1:0").unwrap()), "is not a listening stream socket"),
            (1, "standard streams"),
            (1_000_000, "no such descriptor is open"),
        ] {
            let message = refused(&settings(vec![Bind::plain(Endpoint::Fd(number))]));
            assert!(message.starts_with(&format!("cannot listen on fd://{number}: ")) && message.contains(why), "{message}");
        }
    }
}
