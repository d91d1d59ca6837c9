//! Socket calls and options that nix does not have, or not in this form.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

/// TCP_DEFER_ACCEPT (tcp(7)): a connection is handed out when its first bytes arrive, or after about this many seconds without
/// any.
pub fn set_defer_accept(listener: &impl AsFd, seconds: u32) -> io::Result<()> {
    let seconds = libc::c_int::try_from(seconds).unwrap_or(libc::c_int::MAX);
    // SAFETY: the option's value is an int, which is all that it points to.
    unsafe { set_option(listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, &seconds) }
}

/// Hides the first packets of new connections from a listening TCP socket (SYN without ACK, RFC 9293 section 3.5), as if the
/// network had lost them. Handshakes that have begun are completed. It lasts as long as the socket (socket(7), SO_ATTACH_FILTER).
pub fn hold_off_connections(listener: &impl AsFd) -> io::Result<()> {
    /// Offset of the flags in a TCP header, where the filter of a TCP socket begins to read.
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    const DROP: u32 = 0;
    const KEEP: u32 = u32::MAX;
    let step = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut program = [
        step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, FLAGS),
        step(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, SYN | ACK),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, SYN),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, DROP),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, KEEP),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the option's value is a sock_fprog. It points to as many instructions as it states, which live until the end of
    // this function; the kernel copies them during the call and checks them.
    unsafe { set_option(listener, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &filter) }
}

/// Bytes that were sent on a unix socket and not received, as the kernel counts them against its SO_SNDBUF (SIOCOUTQ, unix(7)).
pub fn unsent(socket: &impl AsFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the request writes an int to its argument, which outlives the call; the descriptor is open as long as it is borrowed.
    Errno::result(unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) })?;
    Ok(usize::try_from(bytes).unwrap_or_default())
}

/// Forbids sending descriptors to this socket (SO_PASSRIGHTS, Linux 6.16): the sender gets EPERM.
pub fn refuse_descriptors(socket: &impl AsFd) -> io::Result<()> {
    /// From the kernel's asm-generic/socket.h; the C library does not name it yet.
    const SO_PASSRIGHTS: libc::c_int = 83;
    let off: libc::c_int = 0;
    // SAFETY: the option's value is an int, which is all that it points to.
    unsafe { set_option(socket, libc::SOL_SOCKET, SO_PASSRIGHTS, &off) }
}

/// setsockopt(2).
///
/// # Safety
/// `T` is the type that the kernel takes for this option, and all that `value` points to is valid during the call.
unsafe fn set_option<T>(socket: &impl AsFd, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
    let size = size_of::<T>() as libc::socklen_t;
    // SAFETY: the value outlives the call, which only reads it; its size is given. The rest is the caller's.
    Errno::result(unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), level, option, (&raw const *value).cast(), size) })?;
    Ok(())
}

/// listen(2). A backlog above net.core.somaxconn is cut to it by the kernel (nix refuses some that the kernel takes).
pub fn listen(socket: &impl AsFd, backlog: u32) -> io::Result<()> {
    let backlog = libc::c_int::try_from(backlog).unwrap_or(libc::c_int::MAX);
    // SAFETY: no memory is passed; the descriptor is open as long as it is borrowed.
    Errno::result(unsafe { libc::listen(socket.as_fd().as_raw_fd(), backlog) })?;
    Ok(())
}

/// Breaks a TCP connection off by a reset, even if others have a descriptor of it (connect(2), AF_UNSPEC).
pub fn disconnect(socket: &impl AsFd) -> io::Result<()> {
    // SAFETY: zeros are a valid sockaddr.
    let mut nobody: libc::sockaddr = unsafe { std::mem::zeroed() };
    nobody.sa_family = libc::AF_UNSPEC as libc::sa_family_t;
    // SAFETY: the address outlives the call, which only reads it; its size is given.
    let result =
        unsafe { libc::connect(socket.as_fd().as_raw_fd(), &raw const nobody, size_of::<libc::sockaddr>() as libc::socklen_t) };
    Errno::result(result)?;
    Ok(())
}
