//! Several floors behind one address, each with a descriptor table of its own.
//!
//! A table holds only so many descriptors, so a floor for a large room is several: the kernel spreads the
//! connections over them, and what one receives for a room goes to the others as a datagram, which each writes
//! to its own members. That is the least a server of several threads can do, and there is nothing else to it.

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use socket2::Socket;

use super::server::{Server, address_of, listen};
use crate::sys;

/// Bytes of a datagram: a room's name and what is published, at most.
pub(super) const DATAGRAM: usize = 64 * 1024;

/// How one table hears from the others and tells them.
#[derive(Debug)]
pub(super) struct Across {
    pub(super) own: UnixDatagram,
    pub(super) others: Vec<Arc<UnixDatagram>>,
    /// Whether it is said how long writing took.
    pub(super) tell: bool,
}

impl Across {
    /// So many ends that reach each other.
    fn all(tables: usize) -> io::Result<Vec<Self>> {
        let pairs: Vec<_> = (0..tables).map(|_| UnixDatagram::pair()).collect::<io::Result<_>>()?;
        let mut reads = Vec::new();
        let mut writes = Vec::new();
        for (read, write) in pairs {
            read.set_nonblocking(true)?;
            reads.push(read);
            writes.push(Arc::new(write));
        }
        let others = |own: usize| {
            let all = writes.iter().enumerate().filter(move |(at, _)| *at != own);
            all.map(|(_, write)| Arc::clone(write)).collect()
        };
        let ends = reads.into_iter().enumerate();
        Ok(ends.map(|(at, own)| Self { own, others: others(at), tell: false }).collect())
    }

    /// Tells the other tables what is published in a room. Waits while one of them is behind.
    pub(super) fn tell(&self, room: &[u8], frames: &[u8]) {
        let Ok(length) = u16::try_from(room.len()) else { return };
        let datagram = [&length.to_be_bytes(), room, frames].concat();
        for other in &self.others {
            // One that is too large or has nobody to read it is lost, as the members' counts will say.
            let _ = other.send(&datagram);
        }
    }

    /// What another table has told: the room's name, and the frames.
    pub(super) fn hear<'a>(&self, buffer: &'a mut [u8]) -> Option<(&'a [u8], &'a [u8])> {
        let got = self.own.recv(buffer).ok()?;
        let (length, rest) = buffer[..got].split_first_chunk::<2>()?;
        rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
    }
}

/// Listeners of one address, for so many tables, each with its end; made before any of their threads.
///
/// # Errors
/// The address cannot be had, or descriptors have run out.
pub(super) fn bind(address: SocketAddr, tables: usize) -> Result<Vec<(Socket, Across)>, String> {
    let ends = Across::all(tables).map_err(|error| format!("datagrams: {error}"))?;
    let mut listeners = Vec::new();
    let mut address = address;
    for end in ends {
        let listener = listen(address, true)?;
        address = address_of(&listener)?;
        listeners.push((listener, end));
    }
    Ok(listeners)
}

/// Serves with each in a thread and a table of its own, until one fails.
///
/// # Errors
/// What has failed.
pub(super) fn serve(listeners: Vec<(Socket, Across)>, tell: bool) -> Result<(), String> {
    let work = move |listener: Socket, across: Across| -> Result<(), String> {
        let across = Across { tell, ..across };
        sys::separate_descriptors().map_err(|error| format!("unshare: {error}"))?;
        let mut server = Server::over(listener, Some(across))?;
        loop {
            server.turn(None)?;
        }
    };
    let mut threads = Vec::new();
    for (listener, across) in listeners {
        let thread = std::thread::Builder::new().name("floor".to_owned());
        threads.push(thread.spawn(move || work(listener, across)));
    }
    for thread in threads {
        let thread = thread.map_err(|error| format!("a thread: {error}"))?;
        thread.join().map_err(|_| "a floor has panicked".to_owned())??;
    }
    Ok(())
}
