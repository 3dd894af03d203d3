//! The loop of the floor: accept, receive, and write at once.
//!
//! Connections lie in a table by their descriptor, so finding one costs an index. An event for a descriptor
//! that was closed and given out again in the same turn is harmless: its `recv` finds nothing. A write that
//! fails is not looked at either; the epoll set reports the connection, and the `recv` that follows ends it.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::mem;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsRawFd as _, OwnedFd};

use memchr::memmem;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags, SocketFlags, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use tungstenite::handshake::derive_accept_key;

use super::frames::{self, Kind};
use super::tables::{Across, DATAGRAM};
use crate::clock;

/// A bare WebSocket server.
pub(crate) struct Server {
    epoll: OwnedFd,
    listener: Socket,
    /// Events of one turn; empty between turns.
    events: Vec<Event>,
    /// What one `recv` may bring; of no connection between turns.
    buffer: Vec<u8>,
    clients: Clients,
}

/// Who is connected, and who is in which room.
#[derive(Default)]
struct Clients {
    /// By descriptor.
    table: Vec<Option<Client>>,
    names: BTreeMap<Vec<u8>, usize>,
    /// The descriptors of the members of each room, in no order.
    rooms: Vec<Vec<usize>>,
    /// Where other tables have members too.
    across: Option<Across>,
}

struct Client {
    socket: OwnedFd,
    role: Role,
    /// Made at need, so that a client that keeps up has none.
    backlog: Option<Box<Backlog>>,
}

#[derive(Clone, Copy)]
enum Role {
    /// The request is not whole yet.
    Guest,
    Echo,
    Publisher {
        room: usize,
    },
    Member {
        room: usize,
        /// Where it is in the room's list.
        place: usize,
    },
}

#[derive(Default)]
struct Backlog {
    /// Received, but not a whole frame or request yet.
    partial: Vec<u8>,
    /// To be written once the socket takes it. The epoll set watches for that while this is not empty.
    pending: Vec<u8>,
}

/// How far the bytes of one `recv` were used.
struct Progress {
    used: usize,
    /// True when the connection is to be closed.
    over: bool,
}

const LISTENER: u64 = u64::MAX;
const OTHERS: u64 = u64::MAX - 1;
const EVENTS: usize = 1024;
const BUFFER: usize = 64 * 1024;
/// Accepted in one turn; a storm must not keep those who are connected waiting.
const ACCEPTS: usize = 1024;
const BACKLOG: i32 = 4096;
/// The kernel's `UIO_MAXIOV`.
const MOST_SLICES: usize = 1024;
const KEY: &[u8] = b"sec-websocket-key:";
const NOT_FOUND: &[u8] =
    b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

impl Server {
    /// Listens on an address. Connections inherit `TCP_NODELAY` from the listener.
    ///
    /// # Errors
    ///
    /// The address cannot be had.
    pub(crate) fn bind(address: SocketAddr) -> Result<Self, String> {
        Self::over(listen(address, false)?, None)
    }

    /// Serves what a listener brings; `across` where it is one of several.
    ///
    /// # Errors
    ///
    /// Descriptors have run out.
    pub(super) fn over(listener: Socket, across: Option<Across>) -> Result<Self, String> {
        let watch = || -> Result<OwnedFd, Errno> {
            let epoll = epoll::create(CreateFlags::CLOEXEC)?;
            epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
            if let Some(across) = &across {
                epoll::add(&epoll, &across.own, EventData::new_u64(OTHERS), EventFlags::IN)?;
            }
            Ok(epoll)
        };
        let epoll = watch().map_err(|error| format!("epoll: {error}"))?;
        let events = Vec::with_capacity(EVENTS);
        let clients = Clients { across, ..Clients::default() };
        Ok(Self { epoll, listener, events, buffer: vec![0; BUFFER], clients })
    }

    /// Where it listens.
    ///
    /// # Errors
    ///
    /// The kernel does not say.
    pub(crate) fn address(&self) -> Result<SocketAddr, String> {
        address_of(&self.listener)
    }

    /// Waits for events, at most as long as said, and does what they ask for.
    ///
    /// # Errors
    ///
    /// Descriptors or memory have run out.
    pub(crate) fn turn(&mut self, timeout: Option<&Timespec>) -> Result<(), String> {
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), timeout) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(format!("epoll: {error}")),
        }
        for at in 0..self.events.len() {
            let Event { flags, data } = self.events[at];
            if data.u64() == LISTENER {
                self.accept()?;
            } else if data.u64() == OTHERS {
                self.clients.publish_heard(&self.epoll);
            } else if let Ok(who) = usize::try_from(data.u64()) {
                if flags.contains(EventFlags::OUT) {
                    self.clients.flush(who, &self.epoll);
                }
                self.receive(who);
            }
        }
        self.events.clear();
        Ok(())
    }

    fn accept(&mut self) -> Result<(), String> {
        for _ in 0..ACCEPTS {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let socket = match net::accept_with(&self.listener, flags) {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::CONNABORTED | Errno::INTR) => continue,
                Err(error) => return Err(format!("accept: {error}")),
            };
            let who = usize::try_from(socket.as_raw_fd()).unwrap_or_default();
            epoll::add(&self.epoll, &socket, token(who), EventFlags::IN)
                .map_err(|error| format!("epoll: {error}"))?;
            let table = &mut self.clients.table;
            if table.len() <= who {
                table.resize_with(who + 1, || None);
            }
            table[who] = Some(Client { socket, role: Role::Guest, backlog: None });
        }
        Ok(())
    }

    /// One `recv`, and all that follows from it.
    fn receive(&mut self, who: usize) {
        let Some(client) = self.clients.get(who) else { return };
        let got = match net::recv(&client.socket, &mut self.buffer[..], RecvFlags::empty()) {
            Ok((0, _)) => return self.clients.close(who),
            Ok((got, _)) => got,
            Err(Errno::AGAIN | Errno::INTR) => return,
            Err(_) => return self.clients.close(who),
        };
        let mut joined = client.take_partial();
        let bytes = if joined.is_empty() {
            &mut self.buffer[..got]
        } else {
            joined.extend_from_slice(&self.buffer[..got]);
            &mut joined[..]
        };
        let progress = self.clients.handle(who, bytes, &self.epoll);
        if progress.over {
            self.clients.close(who);
        } else if progress.used < bytes.len()
            && let Some(client) = self.clients.get(who)
        {
            client.backlog().partial.extend_from_slice(&bytes[progress.used..]);
        }
    }
}

impl Clients {
    fn get(&mut self, who: usize) -> Option<&mut Client> {
        self.table.get_mut(who)?.as_mut()
    }

    /// Serves what was received.
    fn handle(&mut self, who: usize, bytes: &mut [u8], epoll: &OwnedFd) -> Progress {
        let mut used = 0;
        if matches!(self.get(who), Some(Client { role: Role::Guest, .. })) {
            let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
                return Progress { used, over: false };
            };
            used = end + 4;
            if !self.admit(who, &bytes[..used], epoll) {
                return Progress { used, over: true };
            }
        }
        let mut data = Vec::new();
        let mut first = None;
        let mut goodbye = None;
        while let Some(frame) = frames::rewrite(bytes, used) {
            used = frame.bytes.end;
            match frame.kind {
                // The first needs no list, and mostly it is the only one.
                Kind::Data if first.is_none() => first = Some(frame.bytes),
                Kind::Data => data.push(frame.bytes),
                Kind::Pong => self.answer(who, &bytes[frame.bytes], epoll),
                Kind::Close => {
                    goodbye = Some(frame.bytes);
                    break;
                }
                Kind::Nothing => {}
            }
        }
        if let Some(first) = first {
            self.serve(who, first, &data, bytes, epoll);
        }
        let over = goodbye.is_some();
        if let Some(goodbye) = goodbye {
            self.answer(who, &bytes[goodbye], epoll);
        }
        Progress { used, over }
    }

    fn answer(&mut self, who: usize, bytes: &[u8], epoll: &OwnedFd) {
        if let Some(client) = self.get(who) {
            client.write(who, &[IoSlice::new(bytes)], epoll);
        }
    }

    /// Answers a request. False when it asks for what is not served.
    fn admit(&mut self, who: usize, request: &[u8], epoll: &OwnedFd) -> bool {
        let Some(key) = key(request) else { return false };
        let Some(role) = self.role(who, path(request)) else {
            self.answer(who, NOT_FOUND, epoll);
            return false;
        };
        let Some(client) = self.get(who) else { return false };
        client.role = role;
        let accept = derive_accept_key(key);
        let response = [
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: ",
            &accept,
            "\r\n\r\n",
        ]
        .concat();
        client.write(who, &[IoSlice::new(response.as_bytes())], epoll);
        true
    }

    /// What a path makes of a client; a member is entered in its room.
    fn role(&mut self, who: usize, path: &[u8]) -> Option<Role> {
        if path == b"/echo" {
            return Some(Role::Echo);
        }
        if let Some(name) = path.strip_prefix(b"/publish/") {
            return Some(Role::Publisher { room: self.room(name) });
        }
        let room = self.room(path.strip_prefix(b"/room/")?);
        let members = &mut self.rooms[room];
        members.push(who);
        Some(Role::Member { room, place: members.len() - 1 })
    }

    fn room(&mut self, name: &[u8]) -> usize {
        if let Some(room) = self.names.get(name) {
            return *room;
        }
        self.rooms.push(Vec::new());
        self.names.insert(name.to_vec(), self.rooms.len() - 1);
        self.rooms.len() - 1
    }

    /// Echoes or publishes the messages of one `recv`, the first of which is given apart.
    fn serve(
        &mut self,
        who: usize,
        first: Range<usize>,
        more: &[Range<usize>],
        bytes: &mut [u8],
        epoll: &OwnedFd,
    ) {
        let Some(client) = self.table.get_mut(who).and_then(Option::as_mut) else { return };
        let room = match client.role {
            Role::Guest => return,
            Role::Echo => {
                let echo = close_ranks(bytes, first, more);
                return client.write(who, &[IoSlice::new(&bytes[echo])], epoll);
            }
            Role::Member { room, .. } | Role::Publisher { room } => room,
        };
        if more.is_empty() {
            return self.publish(room, &[IoSlice::new(&bytes[first])], epoll);
        }
        let frames = [first].into_iter().chain(more.iter().cloned());
        let slices: Vec<IoSlice<'_>> = frames.map(|frame| IoSlice::new(&bytes[frame])).collect();
        for slices in slices.chunks(MOST_SLICES) {
            self.publish(room, slices, epoll);
        }
    }

    /// Publishes here, and tells the other tables first, if there are any.
    fn publish(&mut self, room: usize, frames: &[IoSlice<'_>], epoll: &OwnedFd) {
        if let Some(across) = &self.across
            && let Some((name, _)) = self.names.iter().find(|(_, at)| **at == room)
        {
            let frames: Vec<&[u8]> = frames.iter().map(|frame| &frame[..]).collect();
            across.tell(name, &frames.concat());
        }
        self.publish_here(room, frames, epoll);
    }

    /// Publishes what other tables have told.
    fn publish_heard(&mut self, epoll: &OwnedFd) {
        let mut buffer = vec![0; DATAGRAM];
        while let Some(across) = &self.across
            && let Some((name, frames)) = across.hear(&mut buffer)
        {
            if let Some(room) = self.names.get(name).copied() {
                self.publish_here(room, &[IoSlice::new(frames)], epoll);
            }
        }
    }

    fn publish_here(&mut self, room: usize, frames: &[IoSlice<'_>], epoll: &OwnedFd) {
        let tells = self.across.as_ref().is_some_and(|across| across.tell);
        let began = if tells { clock::now_ns() } else { 0 };
        for member in &self.rooms[room] {
            if let Some(client) = &mut self.table[*member] {
                client.write(*member, frames, epoll);
            }
        }
        if tells {
            let (members, ended) = (self.rooms[room].len(), clock::now_ns());
            eprintln!("wrote to {members} from {began} to {ended}");
        }
    }

    /// Writes what a full socket left over.
    fn flush(&mut self, who: usize, epoll: &OwnedFd) {
        let Some(client) = self.get(who) else { return };
        let Some(backlog) = &mut client.backlog else { return };
        let Ok(sent) = net::send(&client.socket, &backlog.pending, SendFlags::NOSIGNAL) else {
            return;
        };
        backlog.pending.drain(..sent);
        if backlog.pending.is_empty() {
            client.backlog = client.backlog.take().filter(|backlog| !backlog.partial.is_empty());
            let _ = epoll::modify(epoll, &client.socket, token(who), EventFlags::IN);
        }
    }

    fn close(&mut self, who: usize) {
        let Some(client) = self.table.get_mut(who).and_then(Option::take) else { return };
        let Role::Member { room, place } = client.role else { return };
        self.rooms[room].swap_remove(place);
        if let Some(moved) = self.rooms[room].get(place).copied()
            && let Some(Client { role: Role::Member { place: old, .. }, .. }) =
                &mut self.table[moved]
        {
            *old = place;
        }
    }
}

impl Client {
    fn backlog(&mut self) -> &mut Backlog {
        self.backlog.get_or_insert_default()
    }

    /// What was received and not yet used; gives the box back when nothing else is in it.
    fn take_partial(&mut self) -> Vec<u8> {
        let Some(backlog) = &mut self.backlog else { return Vec::new() };
        let partial = mem::take(&mut backlog.partial);
        if backlog.pending.is_empty() {
            self.backlog = None;
        }
        partial
    }

    /// Writes, or keeps what the socket does not take.
    fn write(&mut self, who: usize, frames: &[IoSlice<'_>], epoll: &OwnedFd) {
        if let Some(backlog) = &mut self.backlog
            && !backlog.pending.is_empty()
        {
            return keep(&mut backlog.pending, frames, 0);
        }
        let result = match frames {
            [one] => net::send(&self.socket, one, SendFlags::NOSIGNAL),
            many => rustix::io::writev(&self.socket, many),
        };
        let sent = match result {
            Ok(sent) => sent,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(_) => return,
        };
        if sent < frames.iter().map(|frame| frame.len()).sum() {
            keep(&mut self.backlog().pending, frames, sent);
            let flags = EventFlags::IN | EventFlags::OUT;
            let _ = epoll::modify(epoll, &self.socket, token(who), flags);
        }
    }
}

/// A listener, which others may share the address with where that is said.
///
/// # Errors
///
/// The address cannot be had.
pub(super) fn listen(address: SocketAddr, shared: bool) -> Result<Socket, String> {
    let listen = || -> std::io::Result<Socket> {
        let domain = Domain::for_address(address);
        let kind = Type::STREAM.nonblocking().cloexec();
        let listener = Socket::new(domain, kind, Some(Protocol::TCP))?;
        listener.set_reuse_address(true)?;
        sockopt::set_socket_reuseport(&listener, shared)?;
        listener.set_tcp_nodelay(true)?;
        listener.bind(&address.into())?;
        listener.listen(BACKLOG)?;
        Ok(listener)
    };
    listen().map_err(|error| format!("cannot listen on {address}: {error}"))
}

/// Where a listener is.
///
/// # Errors
///
/// The kernel does not say.
pub(super) fn address_of(listener: &Socket) -> Result<SocketAddr, String> {
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    address.as_socket().ok_or_else(|| "the listener has no IP address".to_owned())
}

/// Appends all but the first `sent` bytes.
fn keep(pending: &mut Vec<u8>, frames: &[IoSlice<'_>], mut sent: usize) {
    for frame in frames {
        let skipped = sent.min(frame.len());
        sent -= skipped;
        pending.extend_from_slice(&frame[skipped..]);
    }
}

/// Moves the frames together behind the first, over the gaps that their masks left; gives where they lie.
fn close_ranks(bytes: &mut [u8], first: Range<usize>, more: &[Range<usize>]) -> Range<usize> {
    let mut end = first.end;
    for frame in more {
        bytes.copy_within(frame.clone(), end);
        end += frame.len();
    }
    first.start..end
}

/// The path of a request, which is whatever stands between the first two spaces.
fn path(request: &[u8]) -> &[u8] {
    request.split(|byte| *byte == b' ').nth(1).unwrap_or_default()
}

fn key(request: &[u8]) -> Option<&[u8]> {
    request.split(|byte| *byte == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked(KEY.len())?;
        name.eq_ignore_ascii_case(KEY).then(|| value.trim_ascii())
    })
}

fn token(who: usize) -> EventData {
    EventData::new_u64(u64::try_from(who).unwrap_or(LISTENER))
}
