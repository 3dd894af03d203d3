//! What the drivers do to a stream socket besides waiting for it.
//!
//! Every call here is non-blocking and raises no signal. A socket that is closed with `abort` sends
//! RST instead of FIN and forgets what it had not sent, so a dead or hostile peer pins no memory.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketAddrAny, SocketFlags,
    acceptfrom_with, getpeername, recv, send, sendmsg, shutdown, sockopt,
};

/// The most slices one vectored write takes (`IOV_MAX` of Linux).
pub const MAX_SLICES: usize = 1024;

/// Takes a socket that waits on the listener, non-blocking and not inherited by child processes.
///
/// # Errors
/// `WouldBlock` when none waits; EMFILE, ENFILE, ENOBUFS, ENOMEM; ECONNABORTED for a peer that left.
pub fn accept(listener: &impl AsFd) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (socket, peer) = acceptfrom_with(listener, flags)?;
    Ok((socket, peer.and_then(readable)))
}

/// Lets calls on the socket wait, for an interface that waits by itself.
///
/// # Errors
/// When the descriptor is none.
pub fn set_blocking(socket: &impl AsFd) -> io::Result<()> {
    Ok(rustix::io::ioctl_fionbio(socket, false)?)
}

/// The remote end; `None` when the kernel no longer knows it.
pub fn peer(socket: &impl AsFd) -> Option<SocketAddr> {
    getpeername(socket).ok().flatten().and_then(readable)
}

/// An IPv4 peer of a dual-stack listener is shown as IPv4.
fn readable(address: SocketAddrAny) -> Option<SocketAddr> {
    let address = SocketAddr::try_from(address).ok()?;
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

/// Reads what is there, at most the buffer's length; 0 is the peer's end of stream.
///
/// # Errors
/// `WouldBlock` when nothing is there; the socket's failure.
pub fn read(socket: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<usize> {
    let (bytes, _) = recv(socket, into, RecvFlags::DONTWAIT)?;
    Ok(bytes)
}

/// True when reading would give something at once: bytes, the end or a failure; also when that cannot be told.
#[must_use]
pub fn is_readable(socket: BorrowedFd<'_>) -> bool {
    let mut asked = [PollFd::from_borrowed_fd(socket, PollFlags::IN)];
    poll(&mut asked, Some(&Timespec::default())).map_or(true, |found| found > 0)
}

/// Writes as much of `bytes` as there is room for.
///
/// # Errors
/// `WouldBlock` when there is no room; the socket's failure.
pub fn write(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    Ok(send(socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?)
}

/// Writes as much of the slices, in order, as there is room for. At most [`MAX_SLICES`] slices.
///
/// # Errors
/// `WouldBlock` when there is no room; the socket's failure.
pub fn write_slices(socket: BorrowedFd<'_>, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    Ok(sendmsg(socket, slices, &mut SendAncillaryBuffer::default(), flags)?)
}

/// Sends FIN. A socket whose peer is gone already has nothing to shut down, which is no error here:
/// reading tells.
pub fn finish(socket: BorrowedFd<'_>) {
    let _ = shutdown(socket, Shutdown::Write);
}

/// Takes the socket's failure, if it has one.
pub fn failure(socket: BorrowedFd<'_>) -> Option<io::Error> {
    match sockopt::socket_error(socket) {
        Ok(Ok(())) => None,
        Ok(Err(error)) | Err(error) => Some(error.into()),
    }
}

/// Closes the socket; with `abort` the peer is reset and what was not sent is forgotten.
pub fn close(socket: OwnedFd, abort: bool) {
    if abort {
        // Fails only on descriptors that are not sockets; then the plain close below is right.
        let _ = sockopt::set_socket_linger(&socket, Some(Duration::ZERO));
    }
    drop(socket);
}

/// True when accepting failed for want of descriptors or memory, so that trying again at once would
/// only spin.
#[must_use]
pub fn is_shortage(error: &io::Error) -> bool {
    let shortages = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| shortages.contains(&errno))
}
