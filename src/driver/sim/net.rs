//! The network: hosts that listen, links between them and their peers, and what goes wrong.
//!
//! Hosts and peers share one world through a `RefCell`; each borrows it for the length of one call and
//! never while it reports an event, so a handler may use its peers. Links are never numbered anew: a
//! late look at a dead one finds it dead.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use fastrand::Rng;
use rustix::io::Errno;

use super::host::SimDriver;
use super::peer::Peer;
use super::pipe::Pipe;
use crate::contract::ListenerId;

/// What goes wrong and how often. Chances are in thousandths; delays are in turns of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    /// Bytes that may be under way in each direction of a link; at least 1.
    pub window: usize,
    /// The largest number of bytes in one `Received`; at least 1. Sizes are drawn from 1 up to it.
    pub max_read: usize,
    /// The chance that a write is taken only in part in one turn.
    pub short_write: u32,
    /// The chance that a completion, or the answer to `Close`, is put off.
    pub late: u32,
    /// The longest time bytes are under way, and a completion is put off.
    pub max_delay: u32,
    /// The chance, for each link and turn, that the network resets it.
    pub reset: u32,
    /// The chance, for each link and turn, that one of its directions stalls.
    pub stall: u32,
    /// The longest stall.
    pub max_stall: u32,
    /// The chance, for each accepted socket, that the host has no descriptor for it.
    pub accept_failure: u32,
}

impl Faults {
    /// A network without faults: everything arrives in the next turn, in large pieces.
    #[must_use]
    pub fn none() -> Self {
        Self {
            window: 64 * 1024,
            max_read: 64 * 1024,
            short_write: 0,
            late: 0,
            max_delay: 0,
            reset: 0,
            stall: 0,
            max_stall: 0,
            accept_failure: 0,
        }
    }

    /// A network that delays and splits everything, stalls, and runs out of descriptors, but delivers
    /// in the end: it resets nothing.
    #[must_use]
    pub fn rough() -> Self {
        Self {
            max_read: 4096,
            short_write: 300,
            late: 300,
            max_delay: 5,
            stall: 10,
            max_stall: 40,
            accept_failure: 50,
            ..Self::none()
        }
    }

    /// A rough network that also resets links.
    #[must_use]
    pub fn hostile() -> Self {
        Self { reset: 5, ..Self::rough() }
    }
}

/// An in-memory network. Clones are the same network.
#[derive(Clone, Debug)]
pub struct Net(Rc<RefCell<World>>);

impl Net {
    /// A network whose whole course follows from `seed` and the calls made.
    #[must_use]
    pub fn new(seed: u64, faults: Faults) -> Self {
        assert!(faults.window > 0 && faults.max_read > 0, "nothing could ever move: {faults:?}");
        let rng = Rng::with_seed(seed);
        Self(Rc::new(RefCell::new(World { rng, faults, hosts: Vec::new(), links: Vec::new() })))
    }

    /// A driver with listeners of its own. They are numbered from 0 in the order made.
    #[must_use]
    pub fn driver(&self) -> SimDriver {
        let mut world = self.0.borrow_mut();
        world.hosts.push(Host { turn: 0, is_listening: true, backlog: VecDeque::new() });
        SimDriver::new(Rc::clone(&self.0), world.hosts.len() - 1)
    }

    /// A client that connects to the driver numbered `to`. It may write at once; like a client of a
    /// kernel's, it does not notice when it is accepted. A host that does not listen resets it.
    ///
    /// # Panics
    /// When there is no such driver.
    #[must_use]
    pub fn connect(&self, to: usize) -> Peer {
        self.connect_on(to, ListenerId(0))
    }

    /// The same, at one of the driver's listeners: it has as many as are asked for.
    ///
    /// # Panics
    /// When there is no such driver.
    #[must_use]
    pub fn connect_on(&self, to: usize, listener: ListenerId) -> Peer {
        let mut world = self.0.borrow_mut();
        let mut link = Link::new(to, listener, world.faults.window);
        let number = world.links.len();
        if world.hosts[to].is_listening {
            world.hosts[to].backlog.push_back(number);
        } else {
            link.close_server(true, 0, 0);
        }
        world.links.push(link);
        Peer::new(Rc::clone(&self.0), number)
    }

    /// True while the driver numbered `host` lives and has not stopped accepting for good.
    ///
    /// # Panics
    /// When there is no such driver.
    #[must_use]
    pub fn is_listening(&self, host: usize) -> bool {
        self.0.borrow().hosts[host].is_listening
    }

    /// Changes what goes wrong from now on; the window of a link stays what it was.
    pub fn set_faults(&self, faults: Faults) {
        self.0.borrow_mut().faults = faults;
    }
}

/// The address of a link's peer: one that tells links apart, until there are 64,000 of them.
pub(super) fn address(link: usize) -> SocketAddr {
    let port = u16::try_from(1024 + link % 64_000).unwrap_or(u16::MAX);
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// What hosts and peers share.
#[derive(Debug)]
pub(super) struct World {
    pub(super) rng: Rng,
    pub(super) faults: Faults,
    pub(super) hosts: Vec<Host>,
    pub(super) links: Vec<Link>,
}

/// What the network knows of a driver.
#[derive(Debug)]
pub(super) struct Host {
    /// Calls of `wait` so far: the clock of all its links.
    pub(super) turn: u64,
    pub(super) is_listening: bool,
    /// Links not yet accepted.
    pub(super) backlog: VecDeque<usize>,
}

/// A connection in the network, whatever its two ends know of it.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) host: usize,
    pub(super) listener: ListenerId,
    /// From the peer to the host.
    pub(super) inbound: Pipe,
    /// From the host to the peer.
    pub(super) outbound: Pipe,
    /// Why the host's end is broken; it may not have noticed yet.
    pub(super) broken: Option<Errno>,
    /// True once the host has let go of the link.
    pub(super) is_server_gone: bool,
    /// True once the peer has let go of the link.
    pub(super) is_client_gone: bool,
    /// True once a reset is on its way to the peer.
    pub(super) is_client_reset: bool,
}

impl World {
    pub(super) fn chance(&mut self, thousandths: u32) -> bool {
        // Drawn only where it matters, so that a fault that is off does not shift the others.
        thousandths > 0 && self.rng.u32(0..1000) < thousandths
    }

    /// The present turn of the link's host.
    pub(super) fn now(&self, link: usize) -> u64 {
        self.hosts[self.links[link].host].turn
    }

    /// The turn in which what is sent now arrives.
    pub(super) fn due(&mut self, link: usize) -> u64 {
        self.now(link) + u64::from(self.delay())
    }

    /// How long something is under way.
    pub(super) fn delay(&mut self) -> u32 {
        let most = self.faults.max_delay;
        if most == 0 { 0 } else { self.rng.u32(0..=most) }
    }

    /// How long a completion is put off; mostly not at all.
    pub(super) fn lateness(&mut self) -> u32 {
        if self.chance(self.faults.late) { 1 + self.delay() } else { 0 }
    }

    /// Lets the network do its worst to a link for one turn.
    pub(super) fn strike(&mut self, link: usize) {
        let now = self.now(link);
        if self.chance(self.faults.stall) {
            let until = now + u64::from(self.rng.u32(0..=self.faults.max_stall));
            let inbound = self.rng.bool();
            let link = &mut self.links[link];
            if inbound { &mut link.inbound } else { &mut link.outbound }.stall(until);
        }
        if self.chance(self.faults.reset) {
            let error = if self.rng.bool() { Errno::CONNRESET } else { Errno::TIMEDOUT };
            let link = &mut self.links[link];
            link.broken.get_or_insert(error);
            link.reset_client(now);
        }
    }
}

impl Link {
    fn new(host: usize, listener: ListenerId, window: usize) -> Self {
        Self {
            host,
            listener,
            inbound: Pipe::new(window),
            outbound: Pipe::new(window),
            broken: None,
            is_server_gone: false,
            is_client_gone: false,
            is_client_reset: false,
        }
    }

    /// Resets the peer: what has arrived at its end may still be read, as on Linux.
    pub(super) fn reset_client(&mut self, now: u64) {
        self.outbound.cut(now);
        self.is_client_reset = true;
    }

    /// The host lets go. What it wrote is delivered and then the end, unless it aborts or leaves bytes
    /// unread, for which Linux sends a reset too.
    pub(super) fn close_server(&mut self, abort: bool, now: u64, due: u64) {
        self.is_server_gone = true;
        if abort || self.inbound.holds_bytes() {
            self.reset_client(now);
        } else if self.broken.is_none() {
            self.outbound.finish(due);
        }
        self.inbound.clear();
    }

    /// The host's error, when its end is broken.
    pub(super) fn error(&self) -> Option<io::Error> {
        self.broken.map(io::Error::from)
    }
}
