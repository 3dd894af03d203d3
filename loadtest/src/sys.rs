//! The two system calls that no crate wraps.
//!
//! A descriptor table holds only so many descriptors, and look-ups in a shared one cost more; so each thread
//! of the generator gets a table of its own. And a source address must be bound without choosing a port
//! (IP_BIND_ADDRESS_NO_PORT, Linux 4.2), or the kernel looks for one that is free towards every destination
//! and an address is exhausted long before its connections are.

#![expect(unsafe_code, reason = "unshare and this socket option have no safe wrapper")]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Gives the calling thread a copy of the descriptor table: what is open stays open under the same number,
/// what is opened or closed later concerns this thread alone.
///
/// # Errors
/// ENOMEM, or EPERM under some sandboxes; the thread then still shares the common table.
pub(crate) fn separate_descriptors() -> io::Result<()> {
    // SAFETY: with FILES alone unshare copies the descriptor table and nothing else, so every number this
    // thread holds means the same file as before. Wake-ups of tokio and the rings are open in every table
    // because all runtimes exist before the first thread parts (worker::crew keeps that order).
    unsafe { unshare_unsafe(UnshareFlags::FILES) }.map_err(io::Error::from)
}

/// Lets the kernel choose the port when the socket connects and not when it is bound.
///
/// # Errors
/// Those of setsockopt(2).
pub(crate) fn bind_without_port(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of_val(&on)).unwrap_or(4);
    // SAFETY: the pointer and the length describe `on`, which outlives the call; the kernel only reads it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
