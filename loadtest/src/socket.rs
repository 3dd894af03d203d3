//! One connection over io_uring, a WebSocket or an event stream: dial, handshake, messages in and out.
//!
//! The reading half belongs to the client's task. The [`Sender`] may be used by others too: whoever finds it
//! writing leaves its bytes behind for the writer to take along, so frames never interleave when a write is
//! short and nobody waits for a lock. An idle connection holds one small read buffer; when a message does not
//! fit, the next read borrows a large one from the thread and gives it back.
//!
//! With `wss://` the two halves share a [`Seal`]. Bytes are sealed by whoever writes them, right before they
//! are written, because the order of records is the order in which they were sealed.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, ToSocketAddrs as _};
use std::os::fd::AsFd as _;
use std::rc::Rc;

use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio_uring::net::TcpStream;
use tungstenite::handshake::client::generate_key;
use tungstenite::http::Uri;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::clock;
use crate::codec::{Decoder, Item, Masks, check_response, encode, request};
use crate::events::{self, Events};
use crate::seal::{Seal, Trust};
use crate::spec::TargetSpec;
use crate::sys;

/// Where to connect.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// Host and port as the URL has them, for the Host header.
    authority: String,
    /// Path and query.
    pub(crate) path: String,
    /// Whom to believe; `None` without TLS.
    trust: Option<Trust>,
}

impl Target {
    /// Reads the URL and looks its host up.
    pub(crate) fn parse(spec: &TargetSpec) -> Result<Self, String> {
        let url = spec.url.as_str();
        let uri: Uri = url.parse().map_err(|error| format!("{url:?} is no URL: {error}"))?;
        let host = uri.host().unwrap_or_default();
        let (usual, trust) = match uri.scheme_str() {
            Some("ws") => (80, None),
            Some("wss") => (443, Some(Trust::new(host, &spec.ca, spec.insecure)?)),
            _ => {
                return Err(format!(
                    "{url:?}: expected ws://host:port/path or wss://host:port/path"
                ));
            }
        };
        let port = uri.port_u16().unwrap_or(usual);
        let bare = host.trim_matches(['[', ']']);
        let mut found = (bare, port).to_socket_addrs().map_err(|e| format!("{host}: {e}"))?;
        let address = found.next().ok_or_else(|| format!("{host} has no address"))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { address, authority: format!("{host}:{port}"), path, trust })
    }
}

/// How to dial.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dial {
    pub(crate) source: Option<IpAddr>,
    pub(crate) seed: u64,
    /// Bytes of the read buffer that the connection keeps.
    pub(crate) read_bytes: usize,
    /// Whether the connection is to vanish later, which needs a second descriptor.
    pub(crate) may_vanish: bool,
    /// Whether it is to be an event stream.
    pub(crate) listens: bool,
}

/// Large read buffers of one thread, lent to connections in the middle of a message.
#[derive(Debug, Default)]
pub(crate) struct Pool(RefCell<Vec<Vec<u8>>>);

/// Bytes of a lent buffer, and how many of them a thread keeps.
const LARGE: usize = 16 << 10;
const KEPT: usize = 256;

impl Pool {
    fn take(&self) -> Vec<u8> {
        self.0.borrow_mut().pop().unwrap_or_else(|| vec![0; LARGE])
    }

    fn give(&self, buffer: Vec<u8>) {
        let mut kept = self.0.borrow_mut();
        if kept.len() < KEPT {
            kept.push(buffer);
        }
    }
}

/// The reading half.
pub(crate) struct Reader {
    sender: Rc<Sender>,
    wire: Wire,
    small: Vec<u8>,
    /// True after a read that filled its buffer in the middle of a message.
    hungry: bool,
}

/// How what is read becomes messages.
enum Wire {
    Frames(Decoder),
    Events(Box<Events>),
}

impl Wire {
    fn decode(
        &mut self,
        bytes: &[u8],
        each: &mut dyn FnMut(Item<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        match self {
            Self::Frames(decoder) => decoder.decode(bytes, each),
            Self::Events(events) => events.decode(bytes, each),
        }
    }

    fn is_inside(&self) -> bool {
        match self {
            Self::Frames(decoder) => decoder.is_inside(),
            Self::Events(events) => events.is_inside(),
        }
    }
}

/// What to ask for once there is a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening<'a> {
    pub(crate) path: &'a str,
    /// The subprotocol that a WebSocket offers.
    pub(crate) protocol: Option<&'a str>,
    pub(crate) token: Option<&'a str>,
    /// For an event stream: the id of the event after which it is to go on.
    pub(crate) last: Option<&'a str>,
}

/// The writing half.
pub(crate) struct Sender {
    stream: TcpStream,
    masks: Cell<Masks>,
    out: RefCell<Outgoing>,
    /// TLS, where the URL asks for it; borrowed for no longer than it takes to seal or to open.
    seal: Option<Box<RefCell<Seal>>>,
    /// A second descriptor of the socket, by which it can be made to vanish.
    handle: Option<Box<Socket>>,
    /// True of an event stream, which its client ends by hanging up.
    listens: bool,
}

#[derive(Default)]
struct Outgoing {
    writing: bool,
    left: Vec<u8>,
}

/// Bytes that may wait behind a write. Beyond it the server has stopped reading for good.
const MOST_LEFT: usize = 16 << 20;

/// Too many open files.
const EMFILE: i32 = 24;
/// The attempt to connect goes on by itself.
const EINPROGRESS: i32 = 115;

/// Starts to connect. [`Reader::shake_hands`] comes next.
pub(crate) fn connect(target: &Target, dial: &Dial) -> Result<Reader, String> {
    let socket = open(target.address, dial.source).map_err(|error| match error.raw_os_error() {
        Some(EMFILE) => "no descriptors left; raise the limit (ulimit -n)".to_owned(),
        _ => format!("connect: {error}"),
    })?;
    let second = dial.may_vanish.then(|| socket.try_clone().map(Box::new)).transpose();
    let handle = second.map_err(|error| format!("a second descriptor: {error}"))?;
    let seal = target.trust.as_ref().map(Seal::new).transpose()?;
    let sender = Rc::new(Sender {
        stream: TcpStream::from_std(socket.into()),
        masks: Cell::new(Masks(dial.seed)),
        out: RefCell::default(),
        seal: seal.map(|seal| Box::new(RefCell::new(seal))),
        handle,
        listens: dial.listens,
    });
    let small = vec![0; dial.read_bytes];
    let wire = match dial.listens {
        false => Wire::Frames(Decoder::default()),
        true => Wire::Events(Box::default()),
    };
    Ok(Reader { sender, wire, small, hungry: false })
}

/// Starts a connection attempt and does not wait for it. The socket blocks again afterwards, because
/// io_uring gives up at once on sockets that do not; the first write then waits in the kernel for the
/// attempt to succeed, and reports its failure.
fn open(address: SocketAddr, source: Option<IpAddr>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if let Some(source) = source {
        sys::bind_without_port(socket.as_fd())?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(EINPROGRESS) => return Err(error),
        _ => {}
    }
    socket.set_nonblocking(false)?;
    Ok(socket)
}

impl Reader {
    /// The writing half.
    pub(crate) fn sender(&self) -> &Rc<Sender> {
        &self.sender
    }

    /// Sends the opening request and judges the answer. What came behind it is handed on.
    pub(crate) async fn shake_hands(
        &mut self,
        target: &Target,
        opening: Opening<'_>,
        each: &mut (dyn FnMut(Item<'_>, u64) -> Result<(), String> + '_),
    ) -> Result<(), String> {
        let Opening { path, protocol, token, last } = opening;
        let key = generate_key();
        let head = match self.wire {
            Wire::Frames(_) => request(&target.authority, path, &key, protocol, token),
            Wire::Events(_) => events::request(&target.authority, path, token, last),
        };
        self.sender.write(head).await.map_err(|error| format!("connect: {error}"))?;
        let mut answer = Vec::new();
        loop {
            let buffer = std::mem::take(&mut self.small);
            let (result, buffer) = self.sender.stream.read(buffer).await;
            self.small = buffer;
            let read = result.map_err(|error| format!("handshake: {error}"))?;
            if read == 0 {
                let answer = String::from_utf8_lossy(&answer);
                return Err(format!("hung up during the handshake: {}", answer.trim()));
            }
            let mut ends = false;
            match self.sender.open(&self.small[..read])? {
                None => answer.extend_from_slice(&self.small[..read]),
                Some((plain, ended)) => {
                    answer.extend_from_slice(&plain);
                    ends = ended;
                    if !ended {
                        self.sender.write(Vec::new()).await?;
                    }
                }
            }
            let judged = match self.wire {
                Wire::Frames(_) => check_response(&answer, &key, protocol)?,
                Wire::Events(_) => events::check_response(&answer)?,
            };
            // A refusal was read above, whatever came with it.
            if ends {
                return Err("hung up during the handshake".to_owned());
            }
            if let Some(length) = judged {
                let at = clock::now_ns();
                return self.wire.decode(&answer[length..], &mut |item| each(item, at));
            }
        }
    }

    /// Reads no more than the small buffer holds the next time.
    pub(crate) fn sip(&mut self) {
        self.hungry = false;
    }

    /// Waits for bytes and hands on the messages and control frames that they complete, with the moment of
    /// their arrival. Returns how many bytes there were; 0 is the end of the stream.
    pub(crate) async fn receive(
        &mut self,
        pool: &Pool,
        each: &mut (dyn FnMut(Item<'_>, u64) -> Result<(), String> + '_),
    ) -> Result<usize, String> {
        let large = self.hungry;
        let buffer = if large { pool.take() } else { std::mem::take(&mut self.small) };
        let (result, buffer) = self.sender.stream.read(buffer).await;
        let read = match result {
            Ok(read) => {
                let at = clock::now_ns();
                let (decoded, ended) = match self.sender.open(&buffer[..read]) {
                    Ok(None) => {
                        let mut each = |item: Item<'_>| each(item, at);
                        (self.wire.decode(&buffer[..read], &mut each), false)
                    }
                    Ok(Some((plain, ended))) => {
                        (self.wire.decode(&plain, &mut |item| each(item, at)), ended)
                    }
                    Err(error) => (Err(error), false),
                };
                // With TLS a read that was filled is in the middle of a record.
                let inside = self.wire.is_inside() || self.sender.seal.is_some();
                self.hungry = read == buffer.len() && inside;
                decoded.map(|()| if ended { 0 } else { read })
            }
            Err(error) => Err(format!("read: {error}")),
        };
        if large {
            pool.give(buffer);
        } else {
            self.small = buffer;
        }
        read
    }
}

impl Sender {
    /// Appends the answer to a ping.
    pub(crate) fn pong(&self, payload: &[u8], frames: &mut Vec<u8>) {
        self.append(OpCode::Control(Control::Pong), payload, frames);
    }

    /// Sends a close frame with code 1000; a stream has none and hangs up.
    pub(crate) async fn close(&self) -> Result<(), String> {
        if self.listens {
            self.abandon();
            return Ok(());
        }
        let mut frame = Vec::new();
        self.append(OpCode::Control(Control::Close), &1000_u16.to_be_bytes(), &mut frame);
        self.write(frame).await
    }

    /// Appends a text message to frames that will be written together.
    pub(crate) fn frame(&self, text: &[u8], frames: &mut Vec<u8>) {
        self.append(OpCode::Data(Data::Text), text, frames);
    }

    /// Writes frames. When a write is under way they leave behind it, and this returns at once.
    pub(crate) async fn write(&self, mut bytes: Vec<u8>) -> Result<(), String> {
        {
            let mut out = self.out.borrow_mut();
            if out.writing {
                if out.left.len() > MOST_LEFT {
                    return Err("the server has stopped reading".to_owned());
                }
                out.left.extend_from_slice(&bytes);
                return Ok(());
            }
            out.writing = true;
        }
        loop {
            let result = match self.sealed(bytes) {
                Ok(bytes) if bytes.is_empty() => Ok(()),
                Ok(bytes) => {
                    self.stream.write_all(bytes).await.0.map_err(|e| format!("write: {e}"))
                }
                Err(error) => Err(error),
            };
            let mut out = self.out.borrow_mut();
            if let Err(error) = result {
                out.writing = false;
                return Err(error);
            }
            if out.left.is_empty() {
                out.writing = false;
                return Ok(());
            }
            bytes = std::mem::take(&mut out.left);
        }
    }

    /// What to write to say `bytes`.
    fn sealed(&self, bytes: Vec<u8>) -> Result<Vec<u8>, String> {
        match &self.seal {
            None => Ok(bytes),
            Some(seal) => seal.borrow_mut().close(&bytes),
        }
    }

    /// What `bytes` say, and whether that was the end; `None` without TLS, where they say what they are.
    fn open(&self, bytes: &[u8]) -> Result<Option<(Vec<u8>, bool)>, String> {
        let open = |seal: &RefCell<Seal>| seal.borrow_mut().open(bytes);
        self.seal.as_deref().map(open).transpose()
    }

    /// Ends the connection at once, whatever is in flight.
    pub(crate) fn abandon(&self) {
        // A socket that is already gone is what is wanted.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Drops every packet that arrives from now on, acknowledgements included: to the server the host has
    /// vanished without a word.
    pub(crate) fn vanish(&self) -> Result<(), String> {
        // A classic socket filter of one instruction: return 0, keep nothing (bpf(4), BPF_RET | BPF_K).
        let nothing = SockFilter::new(0x06, 0, 0, 0);
        let handle = self.handle.as_ref().ok_or("a connection without a second descriptor")?;
        handle.attach_filter(&[nothing]).map_err(|error| format!("attaching a filter: {error}"))
    }

    fn append(&self, opcode: OpCode, payload: &[u8], frames: &mut Vec<u8>) {
        let mut masks = self.masks.get();
        encode(opcode, payload, masks.next(), frames);
        self.masks.set(masks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Kind, Spec};

    fn target(url: &str, insecure: bool) -> Result<Target, String> {
        let spec = Spec::new(Kind::Idle).target;
        Target::parse(&TargetSpec { url: url.to_owned(), insecure, ..spec })
    }

    #[test]
    fn a_url_is_taken_apart_or_refused() {
        let parsed = target("ws://127.0.0.1:8080/ws?a=b", false).expect("a target");
        assert_eq!(parsed.address.to_string(), "127.0.0.1:8080");
        assert_eq!(
            (parsed.authority.as_str(), parsed.path.as_str()),
            ("127.0.0.1:8080", "/ws?a=b")
        );
        let parsed = target("ws://[::1]:9", false).expect("a target");
        assert_eq!((parsed.address.to_string().as_str(), parsed.path.as_str()), ("[::1]:9", "/"));
        let parsed = target("wss://127.0.0.1/ws", true).expect("a target");
        assert_eq!((parsed.address.port(), parsed.trust.is_some()), (443, true));
        for url in ["", "127.0.0.1:8080", "http://127.0.0.1/", "/ws"] {
            assert!(target(url, true).is_err(), "{url}");
        }
    }

    #[test]
    fn tls_needs_somebody_to_believe() {
        let error = target("wss://127.0.0.1/ws", false).expect_err("nobody");
        assert!(error.contains("--ca") && error.contains("--insecure"), "{error}");
        let spec = Spec::new(Kind::Idle).target;
        let (url, ca) = ("wss://127.0.0.1/ws".to_owned(), "/nowhere.pem".to_owned());
        let error = Target::parse(&TargetSpec { url, ca, ..spec }).expect_err("no file");
        assert!(error.starts_with("/nowhere.pem: "), "{error}");
    }
}
