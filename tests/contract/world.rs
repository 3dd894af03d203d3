//! The bench: turns a driver, collects its events, and holds the contract's rules against each.
//!
//! Tests never sleep. They turn the driver until a condition holds, and fail with what was seen last
//! when it does not hold and nothing has happened for ten seconds (a transfer that goes on slowly on
//! a busy machine is no failure). Peers are moved by the test itself, between turns, so an
//! in-memory network can stand in for sockets.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use throng::base::id::ConnId;
use throng::base::outside::Handed;
use throng::base::shared::Shared;
use throng::base::time::Time;
use throng::contract::{Driver, Event, ListenerId, Op, SendBatch, SocketTicket};
use throng::sys::clock::Clock;
use throng::sys::eventfd::Waker;

/// What makes a driver under test and peers for it.
pub(crate) trait Rig {
    /// The driver.
    fn driver(&mut self) -> &mut dyn Driver;
    /// A peer whose socket is on its way to the driver's first listener.
    fn connect(&mut self) -> Box<dyn Peer> {
        self.connect_to(ListenerId(0))
    }
    /// A peer whose socket is on its way to one of the driver's two listeners.
    fn connect_to(&mut self, listener: ListenerId) -> Box<dyn Peer>;
    /// What ends a wait from another thread; `None` where there are no threads.
    fn waker(&self) -> Option<Waker>;
    /// Binds the addresses again for somebody else, as a new process on the port would.
    fn listen_again(&mut self) -> io::Result<()>;
    /// Ends the driver where it stands.
    fn drop_driver(&mut self);
    /// True when a fault of the core, such as an operation after `Closed`, is ignored; the simulator
    /// panics, to find it.
    fn forgives(&self) -> bool;
}

/// The remote end of a connection. No call waits: `WouldBlock` says that nothing can be done now.
pub(crate) trait Peer {
    /// The address the driver should see.
    fn address(&self) -> Option<SocketAddr>;
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize>;
    /// Sends FIN.
    fn finish(&mut self);
    /// Sends RST.
    fn reset(self: Box<Self>);
}

/// An event that outlives the call that reported it.
#[derive(Debug)]
#[expect(dead_code, reason = "the fields are read in the messages of failures")]
pub(crate) enum Seen {
    Accepted(ListenerId, Option<SocketAddr>),
    AcceptFailed(io::Error),
    Received(ConnId, usize),
    End(ConnId),
    Sent(ConnId, usize),
    Lost(ConnId, io::Error),
    Looked(ConnId, bool),
    HandedOver(ConnId),
    Closed(ConnId),
}

/// One connection as the rules see it.
#[derive(Debug, Default)]
pub(crate) struct Life {
    pub(crate) received: Vec<u8>,
    pub(crate) sent: usize,
    pub(crate) ended: bool,
    pub(crate) lost: bool,
    pub(crate) closed: bool,
    /// The socket, once the driver has let go of it.
    pub(crate) handed: Option<Handed>,
    sending: Option<usize>,
}

pub(crate) struct World {
    pub(crate) rig: Box<dyn Rig>,
    pub(crate) seen: Vec<Seen>,
    lives: BTreeMap<ConnId, Life>,
    tickets: Vec<SocketTicket>,
    clock: Clock,
    generation: u32,
}

const DEADLINE: Duration = Duration::from_secs(10);

impl World {
    pub(crate) fn new(rig: Box<dyn Rig>) -> Self {
        Self {
            rig,
            seen: Vec::new(),
            lives: BTreeMap::new(),
            tickets: Vec::new(),
            clock: Clock::start(),
            generation: 0,
        }
    }

    pub(crate) fn now(&self) -> Time {
        self.clock.now()
    }

    pub(crate) fn submit(&mut self, op: Op) {
        let before = self.seen.len();
        if let Op::Send { conn, batch } = &op
            && let Some(life) = self.lives.get_mut(conn).filter(|life| !life.lost && !life.closed)
        {
            assert_eq!(life.sending.replace(batch.left()), None, "the test sends twice at once");
        }
        if let Some(event) = self.rig.driver().submit(op) {
            note(&mut self.seen, &mut self.lives, &mut self.tickets, event);
        }
        assert!(self.seen.len() <= before + 1);
    }

    /// One turn of at most `timeout`.
    pub(crate) fn turn(&mut self, timeout: Option<Duration>) {
        let Self { rig, seen, lives, tickets, .. } = self;
        let mut on_event = |event: Event<'_>| note(seen, lives, tickets, event);
        rig.driver().wait(timeout, &mut on_event).expect("the driver goes on");
    }

    /// A few turns in which nothing is expected to change.
    pub(crate) fn linger(&mut self) {
        for _ in 0..5 {
            self.turn(Some(Duration::from_millis(1)));
        }
    }

    /// Turns until `done`, which may move peers.
    pub(crate) fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let (mut start, mut events) = (self.now(), self.seen.len());
        while !done(self) {
            if self.seen.len() > events {
                (start, events) = (self.now(), self.seen.len());
            }
            let tail = &self.seen[self.seen.len().saturating_sub(20)..];
            assert!(self.now().since(start) < DEADLINE, "waited for {what}; last seen: {tail:?}");
            self.turn(Some(Duration::from_millis(1)));
        }
    }

    /// A ticket that awaits an answer.
    pub(crate) fn ticket(&mut self) -> SocketTicket {
        self.until("a socket", |w| !w.tickets.is_empty());
        self.tickets.remove(0)
    }

    /// How many sockets were accepted so far.
    pub(crate) fn accepted(&self) -> usize {
        self.seen.iter().filter(|seen| matches!(seen, Seen::Accepted(..))).count()
    }

    /// Opens the next accepted socket at `index`.
    pub(crate) fn open_at(&mut self, index: u32) -> ConnId {
        let socket = self.ticket();
        self.generation += 1;
        let conn = ConnId { index, generation: self.generation };
        self.lives.insert(conn, Life::default());
        self.submit(Op::Open { conn, socket });
        conn
    }

    /// Has the driver go on at `index` with a socket that it has let go of.
    pub(crate) fn adopt_at(&mut self, index: u32, socket: OwnedFd) -> ConnId {
        self.generation += 1;
        let conn = ConnId { index, generation: self.generation };
        self.lives.insert(conn, Life::default());
        self.submit(Op::Adopt { conn, socket: Handed::new(socket) });
        conn
    }

    /// Connects a peer and opens it at `index`.
    pub(crate) fn pair_at(&mut self, index: u32) -> (ConnId, Box<dyn Peer>) {
        let peer = self.rig.connect();
        (self.open_at(index), peer)
    }

    pub(crate) fn pair(&mut self) -> (ConnId, Box<dyn Peer>) {
        self.pair_at(0)
    }

    pub(crate) fn life(&self, conn: ConnId) -> &Life {
        &self.lives[&conn]
    }

    pub(crate) fn is_sending(&self, conn: ConnId) -> bool {
        self.life(conn).sending.is_some()
    }

    pub(crate) fn send(&mut self, conn: ConnId, parts: &[&[u8]]) {
        let mut batch = SendBatch::new();
        parts.iter().for_each(|part| batch.push(Shared::kept(*part)));
        self.submit(Op::Send { conn, batch });
    }

    /// Sends and turns until the kernel has taken it.
    pub(crate) fn send_all(&mut self, conn: ConnId, bytes: &[u8]) {
        let goal = self.life(conn).sent + bytes.len();
        self.send(conn, &[bytes]);
        self.until("the write", |w| w.life(conn).sent == goal);
    }

    pub(crate) fn until_received(&mut self, conn: ConnId, bytes: usize) {
        self.until("received bytes", |w| w.life(conn).received.len() >= bytes);
    }

    pub(crate) fn until_lost(&mut self, conn: ConnId) {
        self.until("Lost", |w| w.life(conn).lost);
    }

    /// Has the driver let go of a socket; `None` where there is none that anybody else could use.
    pub(crate) fn hand_over(&mut self, conn: ConnId) -> Option<OwnedFd> {
        self.submit(Op::HandOver { conn });
        self.until("the last word", |w| w.life(conn).closed);
        let handed = self.lives.get_mut(&conn).and_then(|life| life.handed.take());
        handed.map(Handed::into_fd)
    }

    pub(crate) fn close(&mut self, conn: ConnId, abort: bool) {
        self.submit(Op::Close { conn, abort });
        self.until("Closed", |w| w.life(conn).closed);
    }

    /// Writes everything from the peer's side, turning as needed.
    pub(crate) fn peer_writes(&mut self, peer: &mut dyn Peer, bytes: &[u8]) {
        let mut written = 0;
        self.until("the peer's write", |_| {
            written += write_some(peer, &bytes[written..]);
            written == bytes.len()
        });
    }

    /// Reads `count` bytes on the peer's side, turning as needed.
    pub(crate) fn peer_reads(&mut self, peer: &mut dyn Peer, count: usize) -> Vec<u8> {
        let mut got = Vec::new();
        self.until("the peer's bytes", |_| {
            read_some(peer, &mut got);
            got.len() >= count
        });
        got
    }

    /// Turns until the peer reads an end (0) or an error, and returns which.
    pub(crate) fn peer_end(&mut self, peer: &mut dyn Peer) -> io::Result<usize> {
        let mut end = None;
        self.until("the peer's end", |_| {
            end = match peer.read(&mut [0; 4096]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
                Ok(1..) => None,
                other => Some(other),
            };
            end.is_some()
        });
        end.expect("the loop ends with one")
    }
}

impl Life {
    fn must_not_be_lost(&self, conn: ConnId) {
        assert!(!self.lost, "{conn:?}: an event other than Closed after Lost");
    }
}

/// The connection an event names, which must have been opened and not be closed.
fn living(lives: &mut BTreeMap<ConnId, Life>, conn: ConnId) -> &mut Life {
    let life = lives.get_mut(&conn).expect("an event names a connection that was opened");
    assert!(!life.closed, "{conn:?}: an event after Closed");
    life
}

/// Notes an event, after holding the contract's rules against it.
fn note(
    seen: &mut Vec<Seen>,
    lives: &mut BTreeMap<ConnId, Life>,
    tickets: &mut Vec<SocketTicket>,
    event: Event<'_>,
) {
    seen.push(match event {
        Event::Accepted { socket, listener, peer } => {
            tickets.push(socket);
            Seen::Accepted(listener, peer)
        }
        Event::AcceptFailed { error } => Seen::AcceptFailed(error),
        Event::Received { conn, bytes } => {
            let life = living(lives, conn);
            life.must_not_be_lost(conn);
            assert!(!life.ended, "{conn:?}: bytes after the end");
            assert!(!bytes.is_empty(), "{conn:?}: no bytes");
            life.received.extend_from_slice(bytes);
            // The handler may change what it is lent; nobody may see that later.
            bytes.fill(0xaa);
            Seen::Received(conn, bytes.len())
        }
        Event::ReceivedEnd { conn } => {
            let life = living(lives, conn);
            life.must_not_be_lost(conn);
            assert!(!std::mem::replace(&mut life.ended, true), "{conn:?}: a second end");
            Seen::End(conn)
        }
        Event::Sent { conn, batch, bytes } => {
            let life = living(lives, conn);
            life.must_not_be_lost(conn);
            assert_eq!(
                life.sending.take(),
                Some(bytes),
                "{conn:?}: what was sent is not what was asked"
            );
            assert!(batch.is_done() && batch.parts() == 0, "{conn:?}: the batch is not empty");
            life.sent += bytes;
            Seen::Sent(conn, bytes)
        }
        Event::Lost { conn, error } => {
            let life = living(lives, conn);
            assert!(!std::mem::replace(&mut life.lost, true), "{conn:?}: lost twice");
            life.sending = None;
            Seen::Lost(conn, error)
        }
        Event::Looked { conn, unread } => {
            living(lives, conn).must_not_be_lost(conn);
            Seen::Looked(conn, unread)
        }
        Event::HandedOver { conn, socket } => {
            let life = living(lives, conn);
            life.must_not_be_lost(conn);
            life.closed = true;
            life.handed = Some(socket);
            Seen::HandedOver(conn)
        }
        Event::Closed { conn } => {
            living(lives, conn).closed = true;
            Seen::Closed(conn)
        }
    });
}

fn write_some(peer: &mut dyn Peer, bytes: &[u8]) -> usize {
    match peer.write(bytes) {
        Ok(written) => written,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        Err(error) => panic!("the peer cannot write: {error}"),
    }
}

/// Reads what is there, at most 64 KiB.
pub(crate) fn read_some(peer: &mut dyn Peer, got: &mut Vec<u8>) {
    let mut buffer = [0; 64 * 1024];
    match peer.read(&mut buffer) {
        Ok(length) => got.extend_from_slice(&buffer[..length]),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Err(error) => panic!("the peer cannot read: {error}"),
    }
}

/// Bytes that show where they belong: every position has its own value for a long way.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from((at ^ at >> 8 ^ at >> 16) & 0xff).expect("a byte")).collect()
}
