//! What both Rust peers share: the paths, the rooms and the runtime. The libraries are in the binaries.
//!
//! A peer serves three paths. `/echo` sends every message back, a connection to `/room/NAME` is a member
//! of that room and publishes to it what it sends, and one to `/publish/NAME` publishes without being a
//! member. The runtime has one thread and tasks that need not be `Send`, because a peer is measured on one
//! core and an atomic that nobody contends for would only be a handicap. For the same reason a room is a
//! plain list of queues.
//!
//! Each member has a bounded queue of shared messages; the task of the connection takes from it all there
//! is and writes once. Neither library has a policy for a client that reads too slowly, and none is added
//! here: its queue is full, so it misses what does not fit. There are no heartbeats, as neither library
//! sends any.

use std::cell::RefCell;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use mimalloc::MiMalloc;
use slab::Slab;
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Messages that may wait for one member.
const QUEUE: usize = 1024;
/// Connections that may wait to be accepted; the kernel caps it at somaxconn.
const BACKLOG: u32 = 4096;

/// What a connection is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// Every message goes back.
    Echo,
    /// Member of the room named; what it sends goes to all members, itself included.
    Member(String),
    /// What it sends goes to all members of the room named.
    Publisher(String),
}

impl Route {
    /// The route of a request's path; nothing for a path that is not served.
    #[must_use]
    pub fn of(path: &str) -> Option<Self> {
        if path == "/echo" {
            return Some(Self::Echo);
        }
        let (kind, name) = path.strip_prefix('/')?.split_once('/')?;
        match kind {
            "room" => Some(Self::Member(name.to_owned())),
            "publish" => Some(Self::Publisher(name.to_owned())),
            _ => None,
        }
    }
}

/// The rooms of a server; a handle to share among its tasks.
pub struct Rooms<M>(Rc<RefCell<Vec<Named<M>>>>);

type Named<M> = (String, Rc<Room<M>>);

impl<M> Clone for Rooms<M> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<M> Default for Rooms<M> {
    fn default() -> Self {
        Self(Rc::default())
    }
}

impl<M: Clone> Rooms<M> {
    /// The room of that name, made if it is not there. A connection asks once, so a walk will do.
    #[must_use]
    pub fn room(&self, name: &str) -> Rc<Room<M>> {
        let mut rooms = self.0.borrow_mut();
        if let Some((_, room)) = rooms.iter().find(|(known, _)| known == name) {
            return Rc::clone(room);
        }
        let room = Rc::new(Room { members: RefCell::new(Slab::new()) });
        rooms.push((name.to_owned(), Rc::clone(&room)));
        room
    }
}

/// The queues of a room's members.
pub struct Room<M> {
    members: RefCell<Slab<mpsc::Sender<M>>>,
}

impl<M: Clone> Room<M> {
    /// Adds a member: its queue to read from, and what takes it out of the room when dropped.
    #[must_use]
    pub fn join(self: &Rc<Self>) -> (Membership<M>, mpsc::Receiver<M>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let key = self.members.borrow_mut().insert(sender);
        (Membership { room: Rc::clone(self), key }, receiver)
    }

    /// Queues the message for every member that has room for it.
    pub fn publish(&self, message: &M) {
        for (_, member) in self.members.borrow().iter() {
            // A full queue is a slow reader's own loss, and a closed one is about to leave.
            let _ = member.try_send(message.clone());
        }
    }
}

/// A member's place in its room; dropping it leaves the room.
pub struct Membership<M> {
    room: Rc<Room<M>>,
    key: usize,
}

impl<M: Clone> Membership<M> {
    /// Publishes to the room, the member itself included.
    pub fn publish(&self, message: &M) {
        self.room.publish(message);
    }

    /// Queues a message for this member alone, false when its queue is full.
    #[must_use]
    pub fn reply(&self, message: M) -> bool {
        self.room.members.borrow()[self.key].try_send(message).is_ok()
    }
}

impl<M> Drop for Membership<M> {
    fn drop(&mut self) {
        self.room.members.borrow_mut().remove(self.key);
    }
}

/// Listens on the port named by the first argument or by `PORT` (none: a free one), says so in the first
/// line of the output, and hands every connection to `connected`, which spawns what it needs by
/// `tokio::task::spawn_local`.
///
/// # Errors
///
/// When the port cannot be had or the runtime not be built.
pub fn serve(connected: impl Fn(TcpStream)) -> io::Result<()> {
    let port = std::env::args().nth(1).or_else(|| std::env::var("PORT").ok());
    let port = match port {
        None => 0,
        Some(text) => text.parse().map_err(io::Error::other)?,
    };
    let runtime = Builder::new_current_thread().enable_io().build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        let listener = socket.listen(BACKLOG)?;
        println!("peer serves ws://{}", listener.local_addr()?);
        loop {
            // Accepting fails when the peer has gone already or no descriptor is left; neither lasts.
            let Ok((stream, _)) = listener.accept().await else {
                tokio::task::yield_now().await;
                continue;
            };
            if stream.set_nodelay(true).is_ok() {
                connected(stream);
            }
        }
    })
}
