//! Thin wrappers around the system calls that the rim needs.
//!
//! Each file covers one subject and gives it a safe face: the clock, thread placement, descriptor
//! tables and their limits, the listening socket, the eventfd that wakes a sleeping worker, epoll,
//! memory that goes back to the kernel, what a service manager is told.
//! Safe libraries (rustix, socket2) do the work wherever they can; what they do not cover is done
//! with libc, and only here. Nothing in `sys` knows what a connection, a frame or a room is, and
//! nothing here decides: policies (how many, how long, when to stop) arrive as arguments.
//!
//! Linux only, 64-bit only. The oldest kernel the epoll driver is made for is 5.11.

pub mod affinity;
pub mod clock;
pub mod descriptors;
pub mod epoll;
pub mod eventfd;
pub mod listener;
pub mod memory;
pub mod notify;
pub mod rights;
pub mod socket;
