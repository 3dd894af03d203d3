//! Whether the kernel lets us use io_uring, and if not, what forbids it.
//!
//! A version number proves nothing: container runtimes filter the calls, administrators turn them
//! off, old kernels lack a flag. So the probe builds a ring as the driver would, registers a small
//! ring of buffers, and asks for every opcode the driver uses.

use std::fmt;
use std::io;

use io_uring::{Probe, opcode};

use super::Options;
use super::buffers::Buffers;
use super::ring::Ring;

/// Why there is no io_uring here.
#[derive(Debug)]
pub enum Refusal {
    /// The kernel has no io_uring at all, or a sandbox pretends so (ENOSYS).
    Missing,
    /// A setting or a sandbox forbids it (EPERM, EACCES); the value of `kernel.io_uring_disabled`,
    /// where it can be read.
    Forbidden(Option<u8>),
    /// The kernel is too old for a flag the driver needs (EINVAL); 6.1 is enough.
    TooOld,
    /// Not enough memory may be locked for the rings (ENOMEM), or none is left.
    Memory,
    /// The named opcode is not supported.
    Opcode(&'static str),
    /// Anything else, by the call that failed.
    Other(&'static str, io::Error),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => {
                f.write_str("the kernel has no io_uring, or a sandbox hides it (ENOSYS)")
            }
            Self::Forbidden(Some(2)) => f.write_str(
                "forbidden by the setting kernel.io_uring_disabled = 2 (EPERM); 0 permits it",
            ),
            Self::Forbidden(Some(1)) => f.write_str(
                "forbidden by the setting kernel.io_uring_disabled = 1 (EPERM): it permits only \
                 processes with CAP_SYS_ADMIN or in the group of kernel.io_uring_group",
            ),
            Self::Forbidden(_) => f.write_str(
                "forbidden by a sandbox (EPERM), as most container runtimes do with seccomp",
            ),
            Self::TooOld => f.write_str(
                "the kernel lacks a flag the driver needs (EINVAL); Linux 6.1 or later has them all",
            ),
            Self::Memory => f.write_str(
                "not enough memory for the rings (ENOMEM); raise the limit on locked memory \
                 (ulimit -l) or lower uring.entries",
            ),
            Self::Opcode(name) => write!(f, "the kernel lacks the operation {name}"),
            Self::Other(call, error) => write!(f, "{call}: {error}"),
        }
    }
}

/// Finds out whether the driver can run with these options. Costs a few hundred microseconds and
/// leaves nothing behind.
///
/// # Errors
/// What stands in the way.
pub fn probe(options: &Options) -> Result<(), Refusal> {
    let ring = Ring::new(options.entries).map_err(|error| refusal("io_uring_setup", error))?;
    let buffers = Buffers::new(&ring, 1, 64)
        .map_err(|error| refusal("io_uring_register of a buffer ring", error))?;
    let mut known = Probe::new();
    ring.raw()
        .submitter()
        .register_probe(&mut known)
        .map_err(|error| refusal("io_uring_register of a probe", error))?;
    let needed = [
        ("ACCEPT", opcode::Accept::CODE),
        ("ASYNC_CANCEL", opcode::AsyncCancel::CODE),
        ("POLL_ADD", opcode::PollAdd::CODE),
        ("RECV", opcode::Recv::CODE),
        ("SEND", opcode::Send::CODE),
        ("SENDMSG", opcode::SendMsg::CODE),
    ];
    // The ring ends before the memory it was lent.
    drop(ring);
    drop(buffers);
    match needed.iter().find(|(_, code)| !known.is_supported(*code)) {
        Some((name, _)) => Err(Refusal::Opcode(name)),
        None => Ok(()),
    }
}

fn refusal(call: &'static str, error: io::Error) -> Refusal {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => Refusal::Missing,
        Some(libc::EPERM | libc::EACCES) => Refusal::Forbidden(setting()),
        Some(libc::EINVAL) => Refusal::TooOld,
        Some(libc::ENOMEM) => Refusal::Memory,
        _ => Refusal::Other(call, error),
    }
}

fn setting() -> Option<u8> {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests;
