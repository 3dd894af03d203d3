//! Sockets from one descriptor table to another.
//!
//! Workers have tables of their own ([`super::descriptors`]), so a descriptor's number means nothing to another
//! thread. What does cross is the open socket itself, over a pair of local sockets that was made before the tables
//! parted: the kernel installs it in the table of whoever takes it.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Two ends, of which no call waits.
///
/// # Errors
/// EMFILE, ENFILE, ENOMEM.
pub fn pair() -> io::Result<(UnixStream, UnixStream)> {
    let (one, other) = UnixStream::pair()?;
    one.set_nonblocking(true)?;
    other.set_nonblocking(true)?;
    Ok((one, other))
}

/// Sends a socket with a number to the other end, which gets it though it be closed here.
///
/// # Errors
/// `WouldBlock` when too many wait there, ETOOMANYREFS when too many are on their way in the system.
pub fn send(over: &impl AsFd, number: u64, socket: &impl AsFd) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let sockets = [socket.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&sockets)), "there is space for one");
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(over, &[IoSlice::new(&number.to_ne_bytes())], &mut control, flags)?;
    Ok(())
}

/// Takes the next socket with its number, in the order in which they were sent; `None` in its place when this table had
/// no room for it (EMFILE).
///
/// # Errors
/// `WouldBlock` when none waits, `UnexpectedEof` when the other end is closed.
pub fn receive(over: &impl AsFd) -> io::Result<(u64, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut number = [0; 8];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let got = recvmsg(over, &mut [IoSliceMut::new(&mut number)], &mut control, flags)?;
    if got.bytes < number.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let socket = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
        _ => None,
    });
    Ok((u64::from_ne_bytes(number), socket))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::descriptors::separate;
    use std::io::{Read as _, Write as _};

    #[test]
    fn a_socket_crosses_from_one_table_to_another_and_stays_open() {
        let (ours, theirs) = pair().expect("two ends");
        let (mut near, far) = UnixStream::pair().expect("a pair");
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                separate(&[theirs.as_fd(), far.as_fd()]).expect("separate");
                for number in [7, 8] {
                    send(&theirs, number, &far).expect("sent");
                }
            });
            worker.join().expect("the thread's assertions hold");
        });
        drop(far);
        let (number, first) = receive(&ours).expect("a socket");
        let mut first = UnixStream::from(first.expect("room for it"));
        assert_eq!(number, 7);
        assert_eq!(receive(&ours).expect("another").0, 8);
        let none = receive(&ours).expect_err("no third");
        assert_eq!(none.kind(), io::ErrorKind::WouldBlock);
        near.write_all(b"hello").expect("written");
        let mut heard = [0; 5];
        first.read_exact(&mut heard).expect("read");
        assert_eq!(&heard, b"hello");
    }
}
