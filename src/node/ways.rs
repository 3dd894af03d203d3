//! What leads out of a worker besides mail and the store.
//!
//! To the thread between clients and other servers, to those that check tokens and compress, and to the other workers for sockets:
//! each has a descriptor table of its own, so a socket goes over a pair of local sockets that was made before the
//! tables parted. What is said of a connection comes by mail and has the number under which its socket was sent. The
//! socket is sent first, so it is there when the mail is. Nothing here waits: without space a socket is closed.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use crossbeam_channel::Sender;

use crate::base::id::ShardId;
use crate::base::outside::Handed;
use crate::front::Line;
use crate::node::prover::Work;
use crate::node::running::LaunchError;
use crate::shard::Settings;
use crate::sys::rights;

/// What leads out of a worker to threads beside it.
pub(super) struct Ways {
    /// Where connections go that leave; `None` where none does.
    pub(super) front: Option<Line>,
    /// Where tokens go whose check takes long, and payloads to be compressed; `None` where there is nothing of both.
    pub(super) work: Option<Sender<Work>>,
    /// Where sockets go that are for other shards; `None` where none is.
    pub(super) ferry: Option<Ferry>,
}

impl Ways {
    /// What the worker has to keep open when it parts with the common table.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let front = self.front.iter().map(Line::as_fd);
        let ferry = self
            .ferry
            .iter()
            .flat_map(|ferry| ferry.there.iter().map(AsFd::as_fd).chain([ferry.here.as_fd()]));
        front.chain(ferry)
    }
}

/// A worker's way for sockets to and from the others.
#[derive(Debug)]
pub(super) struct Ferry {
    /// Where they come.
    here: Arc<UnixStream>,
    /// Where they go, by shard.
    there: Arc<[Arc<UnixStream>]>,
    /// Of the last that was sent; no other worker's numbers are like its own.
    number: u64,
    /// Those that have come and were not asked for yet; `None` for one that found no room in this table.
    arrived: BTreeMap<u64, Option<OwnedFd>>,
}

/// Holds the ends of ferries for as long as a node lives, in the common table: a worker that drops an end closes it
/// in its own table alone.
pub(super) type Moorings = Vec<Arc<UnixStream>>;

impl Ferry {
    /// A ferry for each of so many workers. To be called before they part with the common table.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub(super) fn between(workers: u16) -> io::Result<(Vec<Self>, Moorings)> {
        let pairs = (0..workers).map(|_| rights::pair()).collect::<io::Result<Vec<_>>>()?;
        let (here, there): (Vec<_>, Vec<_>) =
            pairs.into_iter().map(|(ours, theirs)| (Arc::new(ours), Arc::new(theirs))).unzip();
        let moorings = here.iter().chain(&there).map(Arc::clone).collect();
        let there: Arc<[_]> = there.into();
        let ferries = (0..workers).zip(here).map(|(worker, here)| Self {
            here,
            there: Arc::clone(&there),
            number: u64::from(worker) << 48,
            arrived: BTreeMap::new(),
        });
        Ok((ferries.collect(), moorings))
    }

    /// Sends a socket; the number by which it is found there. `None` when it has no space and was closed.
    pub(super) fn send(&mut self, to: ShardId, socket: Handed) -> Option<u64> {
        let there = self.there.get(usize::from(to.0))?;
        self.number += 1;
        rights::send(there, self.number, &socket.into_fd()).is_ok().then_some(self.number)
    }

    /// The socket with that number, of which mail has told; `None` when there was no room for it.
    pub(super) fn receive(&mut self, number: u64) -> Option<Handed> {
        while !self.arrived.contains_key(&number)
            && let Ok((number, socket)) = rights::receive(&self.here)
        {
            self.arrived.insert(number, socket);
        }
        self.arrived.remove(&number).flatten().map(Handed::new)
    }
}

/// A ferry for each worker, where one may get a socket that is for another.
pub(super) fn ferries(
    workers: u16,
    settings: &Settings,
) -> Result<(std::vec::IntoIter<Ferry>, Moorings), LaunchError> {
    let routes = &settings.routes;
    let is_needed = workers > 1 && routes.packets.is_some() && routes.polling.is_some();
    let (ferries, moorings) = Ferry::between(if is_needed { workers } else { 0 })
        .map_err(|error| LaunchError::new("sockets between shards", error))?;
    Ok((ferries.into_iter(), moorings))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    #[test]
    fn sockets_of_several_workers_are_found_by_their_numbers_in_any_order() {
        let (mut ferries, moorings) = Ferry::between(3).expect("pairs");
        assert_eq!(moorings.len(), 6);
        let (mut ends, mut numbers) = (Vec::new(), Vec::new());
        for round in 0..3 {
            for from in [0, 2] {
                let (near, far) = UnixStream::pair().expect("a pair");
                let socket = Handed::new(far.into());
                let number = ferries[from].send(ShardId(1), socket).expect("space");
                numbers.push((number, format!("{round} of {from}")));
                ends.push(near);
            }
        }
        for ((number, text), near) in numbers.iter().zip(&mut ends).rev() {
            let socket = ferries[1].receive(*number).expect("a socket");
            let mut far = UnixStream::from(socket.into_fd());
            far.write_all(text.as_bytes()).expect("written");
            drop(far);
            let mut heard = String::new();
            near.read_to_string(&mut heard).expect("read");
            assert_eq!(heard, *text);
        }
        assert!(ferries[1].receive(numbers[0].0).is_none(), "each is there once");
        assert!(ferries[0].receive(numbers[0].0).is_none(), "it is nobody else's");
    }

    #[test]
    fn a_socket_that_finds_no_space_is_closed_and_that_is_said() {
        let (mut ferries, _moorings) = Ferry::between(2).expect("pairs");
        let mut last = None;
        for _ in 0..100_000 {
            let (mut near, far) = UnixStream::pair().expect("a pair");
            if ferries[0].send(ShardId(1), Handed::new(far.into())).is_none() {
                let mut heard = Vec::new();
                assert_eq!(near.read_to_end(&mut heard).expect("an end"), 0);
                last = Some(near);
                break;
            }
            last = None;
        }
        assert!(last.is_some(), "what may wait is bounded");
        let (_, far) = UnixStream::pair().expect("a pair");
        assert!(ferries[0].send(ShardId(7), Handed::new(far.into())).is_none(), "there is no such");
    }
}
