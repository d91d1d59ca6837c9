//! Descriptors that travel with a message over a unix socket (SCM_RIGHTS, unix(7)).

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, recv, recvmsg, sendmsg, setsockopt, sockopt};
use nix::unistd::Pid;

/// Most descriptors in one message.
pub const DESCRIPTORS_MAX: usize = 8;

/// As [`send_parts`], of one part.
pub fn send(socket: &impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    send_parts(socket, &[bytes], descriptors)
}

/// Sends the bytes of `parts` (at least one byte) with `descriptors`, at most [`DESCRIPTORS_MAX`]; the receiver gets duplicates.
pub fn send_parts(socket: &impl AsFd, parts: &[&[u8]], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control = if numbers.is_empty() { &[][..] } else { &rights[..] };
    // MSG_NOSIGNAL: a vanished reader is an error, whatever SIGPIPE is set to.
    Ok(sendmsg::<()>(socket.as_fd().as_raw_fd(), &slices, control, MsgFlags::MSG_NOSIGNAL, None)?)
}

/// Room for control messages, aligned as they must be: descriptors, and more of them than [`DESCRIPTORS_MAX`] only by its
/// alignment.
#[repr(C, align(8))]
struct ControlBuffer([u8; CONTROL]);

/// Size of a control message with [`DESCRIPTORS_MAX`] descriptors.
// SAFETY: the macro computes a size and touches nothing.
const CONTROL: usize = unsafe { libc::CMSG_SPACE((DESCRIPTORS_MAX * size_of::<RawFd>()) as u32) } as usize;

/// Receives a message into `buffer`: how many bytes, and the descriptors that came with them, close-on-exec. Those beyond
/// [`DESCRIPTORS_MAX`] are closed by the kernel; the receiver sees that their number is not the expected one.
pub fn receive(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut room = ControlBuffer([0; CONTROL]);
    let mut slice = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: zeros are a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut slice, 1);
    (message.msg_control, message.msg_controllen) = (room.0.as_mut_ptr().cast(), CONTROL as _);
    // SAFETY: the message names one buffer and room for control messages with their sizes, which outlive the call.
    let count = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
    let count = Errno::result(count)?;
    let mut descriptors = Vec::new();
    // SAFETY: the kernel has filled the room as the message says now.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    // nix refuses to read control messages that were cut, and would leave the descriptors in them open. SAFETY: the macros give a
    // header within the room, or none.
    while let Some(header) = unsafe { next.as_ref() } {
        if (header.cmsg_level, header.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: as above; a size and an address within the room.
            let (empty, data) = unsafe { (libc::CMSG_LEN(0) as usize, libc::CMSG_DATA(header).cast::<RawFd>()) };
            let numbers = header.cmsg_len.saturating_sub(empty) / size_of::<RawFd>();
            for index in 0..numbers.min(DESCRIPTORS_MAX + 1) {
                // SAFETY: the message holds so many numbers, which the kernel has just opened for this process in this call, so
                // nobody else owns them.
                descriptors.push(unsafe { OwnedFd::from_raw_fd(data.add(index).read_unaligned()) });
            }
        }
        // SAFETY: as above.
        next = unsafe { libc::CMSG_NXTHDR(&raw const message, next) };
    }
    Ok((count as usize, descriptors))
}

/// The result of [`peek`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peeked {
    /// Length of the packet, also if that is more than the buffer took; 0 for an empty packet, and at the end.
    pub len: usize,
    /// Whether descriptors came with it.
    pub descriptors: bool,
}

/// Reads the facts about the next packet of a packet socket, without waiting. It stays in the queue, and its descriptors are
/// neither opened in this process nor closed.
pub fn peek(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<Peeked> {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT;
    let mut slices = [IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(socket.as_fd().as_raw_fd(), &mut slices, None, flags)?;
    // There is no room for control messages, so one that is there was cut.
    Ok(Peeked { len: message.bytes, descriptors: message.flags.contains(MsgFlags::MSG_CTRUNC) })
}

/// As [`peek`], for a socket that was told to [`name_senders`]: also the process id of the sender, which the kernel states and a
/// process cannot choose unless it has the rights of root.
pub fn peek_sender(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<(Peeked, Option<Pid>)> {
    /// Size of the control message with the sender, and of nothing else: descriptors behind it are cut off, and that is seen.
    // SAFETY: the macro computes a size and touches nothing.
    const ROOM: usize = unsafe { libc::CMSG_SPACE(size_of::<libc::ucred>() as u32) } as usize;
    #[repr(C, align(8))]
    struct Room([u8; ROOM]);
    let mut room = Room([0; ROOM]);
    let mut slice = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: zeros are a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut slice, 1);
    (message.msg_control, message.msg_controllen) = (room.0.as_mut_ptr().cast(), ROOM as _);
    let flags = libc::MSG_PEEK | libc::MSG_TRUNC | libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the message names one buffer and room for control messages with their sizes, which outlive the call.
    let len = Errno::result(unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, flags) })? as usize;
    let mut sender = None;
    // SAFETY: the kernel has filled the room as the message says now; the macro gives a header within it, or none.
    if let Some(header) = unsafe { libc::CMSG_FIRSTHDR(&raw const message).as_ref() }
        && (header.cmsg_level, header.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_CREDENTIALS)
    {
        // SAFETY: a message of this type holds one ucred, for which the room was made.
        let credentials = unsafe { libc::CMSG_DATA(header).cast::<libc::ucred>().read_unaligned() };
        sender = Some(Pid::from_raw(credentials.pid)).filter(|pid| pid.as_raw() > 0);
    }
    let descriptors = message.msg_flags & libc::MSG_CTRUNC != 0;
    Ok((Peeked { len, descriptors }, sender))
}

/// Has the kernel state the sender of each packet that comes to this socket (SO_PASSCRED, unix(7)).
pub fn name_senders(socket: &impl AsFd) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::PassCred, &true)?)
}

/// Throws the next packet away, without waiting; its descriptors are closed by this process.
pub fn skip(socket: &impl AsFd) -> io::Result<()> {
    recv(socket.as_fd().as_raw_fd(), &mut [], MsgFlags::MSG_DONTWAIT)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use nix::fcntl::{FcntlArg, FdFlag, fcntl};

    use super::*;

    #[test]
    fn a_descriptor_arrives_with_its_message_and_close_on_exec() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        assert_eq!(send(&ours, b"with", &[writer.as_fd()]).unwrap(), 4);
        send(&ours, b"without", &[]).unwrap();
        drop(writer);
        let mut buffer = [0; 4];
        let (len, mut descriptors) = receive(&theirs, &mut buffer).unwrap();
        assert_eq!((&buffer[..len], descriptors.len()), (&b"with"[..], 1));
        let flags = fcntl(&descriptors[0], FcntlArg::F_GETFD).unwrap();
        assert!(FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC));
        File::from(descriptors.remove(0)).write_all(b"x").unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
        assert_eq!(receive(&theirs, &mut [0; 16]).unwrap().1.len(), 0);
    }

    #[test]
    fn too_many_descriptors_are_not_leaked_into_the_receiver() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let file = File::open("/dev/null").unwrap();
        send(&ours, b"x", &[file.as_fd(); DESCRIPTORS_MAX + 4]).unwrap();
        let (len, descriptors) = receive(&theirs, &mut [0; 1]).unwrap();
        assert_eq!((len, descriptors.len()), (1, DESCRIPTORS_MAX));
    }
}
