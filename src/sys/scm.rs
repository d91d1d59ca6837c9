//! Descriptors that travel with a message over a unix socket (SCM_RIGHTS, unix(7)).

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// Most descriptors in one message.
pub const DESCRIPTORS_MAX: usize = 8;

/// Sends `bytes` (at least one) with `descriptors`, at most [`DESCRIPTORS_MAX`]; the receiver gets duplicates.
pub fn send(socket: &impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control = if numbers.is_empty() { &[][..] } else { &rights[..] };
    // MSG_NOSIGNAL: a vanished reader is an error, whatever SIGPIPE is set to.
    Ok(sendmsg::<()>(socket.as_fd().as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None)?)
}

/// Receives a message into `buffer`: how many bytes, and the descriptors that came with them, close-on-exec.
pub fn receive(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut room = cmsg_space!([RawFd; DESCRIPTORS_MAX]);
    let mut slices = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_fd().as_raw_fd(), &mut slices, Some(&mut room), flags)?;
    let mut descriptors = Vec::new();
    // A control message that was cut has closed what it could not deliver; the receiver sees that some are missing.
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            for number in numbers {
                // SAFETY: the kernel has just opened the number for this process in this call, so nobody else owns it.
                descriptors.push(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
    }
    Ok((message.bytes, descriptors))
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
        let received = receive(&theirs, &mut [0; 1]);
        assert!(received.is_err() || received.is_ok_and(|(_, descriptors)| descriptors.len() <= DESCRIPTORS_MAX));
    }
}
