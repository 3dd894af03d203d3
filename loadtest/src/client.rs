//! One WebSocket connection over io_uring: connect, handshake, messages in and out.
//!
//! A connection has two halves. The [`Reader`] belongs to the client's task and answers pings while it
//! waits for messages; the [`Sender`] may also be used by another task. Frames must not interleave on the
//! wire when a write is short, so the sender keeps a lock over each write.

use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, ToSocketAddrs as _};
use std::rc::Rc;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::Mutex;
use tokio_uring::net::TcpStream;
use tungstenite::handshake::client::generate_key;
use tungstenite::http::Uri;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::codec::{Decoder, Item, Masks, check_response, encode, request};

/// Where to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// Host and port as the URL has them, for the Host header.
    authority: String,
    /// Path and query.
    path: String,
}

impl Target {
    /// Reads a `ws://` URL and looks its host up.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|error| format!("{url:?} is no URL: {error}"))?;
        if uri.scheme_str() != Some("ws") {
            return Err(format!("{url:?}: expected ws://host:port/path"));
        }
        let host = uri.host().unwrap_or_default();
        let port = uri.port_u16().unwrap_or(80);
        let bare = host.trim_matches(['[', ']']);
        let mut found = (bare, port).to_socket_addrs().map_err(|e| format!("{host}: {e}"))?;
        let address = found.next().ok_or_else(|| format!("{host} has no address"))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { address, authority: format!("{host}:{port}"), path })
    }
}

/// The reading half.
pub(crate) struct Reader {
    sender: Rc<Sender>,
    decoder: Decoder,
    chunk: Vec<u8>,
}

/// The writing half.
pub(crate) struct Sender {
    stream: TcpStream,
    masks: Mutex<Masks>,
}

/// Bytes read at once. A smoke client's messages are small; a larger buffer would only cost memory per
/// client.
const CHUNK: usize = 4096;

/// Starts to connect from `source`, if one is given. [`Reader::shake_hands`] comes next.
pub(crate) fn connect(
    target: &Target,
    source: Option<IpAddr>,
    seed: u64,
) -> Result<Reader, String> {
    let stream = dial(target.address, source).map_err(|error| match error.raw_os_error() {
        Some(EMFILE) => "no descriptors left; raise the limit (ulimit -n)".to_owned(),
        _ => format!("connect: {error}"),
    })?;
    let sender = Rc::new(Sender { stream, masks: Mutex::new(Masks(seed)) });
    Ok(Reader { sender, decoder: Decoder::default(), chunk: vec![0; CHUNK] })
}

/// Too many open files.
const EMFILE: i32 = 24;
/// The attempt to connect goes on by itself.
const EINPROGRESS: i32 = 115;

/// Starts a connection attempt and does not wait for it. The socket blocks again afterwards, because
/// io_uring gives up at once on sockets that do not; the first write then waits in the kernel for the
/// attempt to succeed, and reports its failure.
fn dial(address: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(EINPROGRESS) => return Err(error),
        _ => {}
    }
    socket.set_nonblocking(false)?;
    Ok(TcpStream::from_std(socket.into()))
}

impl Reader {
    /// The writing half.
    pub(crate) fn sender(&self) -> Rc<Sender> {
        Rc::clone(&self.sender)
    }

    /// Sends the opening request and judges the answer.
    pub(crate) async fn shake_hands(&mut self, target: &Target) -> Result<(), String> {
        let key = generate_key();
        let head = request(&target.authority, &target.path, &key);
        self.sender.write(head).await.map_err(|error| format!("connect: {error}"))?;
        let mut answer = Vec::new();
        loop {
            let read = self.read().await?;
            if read == 0 {
                let answer = String::from_utf8_lossy(&answer);
                return Err(format!("hung up during the handshake: {}", answer.trim()));
            }
            answer.extend_from_slice(&self.chunk[..read]);
            if let Some(length) = check_response(&answer, &key).map_err(|e| e.to_string())? {
                self.decoder.feed(&answer[length..]);
                return Ok(());
            }
        }
    }

    /// The next text message or close frame; `None` at the end of the stream. Pings are answered on the
    /// way.
    pub(crate) async fn next(&mut self) -> Result<Option<Item>, String> {
        loop {
            match self.decoder.next().map_err(|error| error.to_string())? {
                Some(Item::Ping(payload)) => {
                    self.sender.send(OpCode::Control(Control::Pong), &payload).await?;
                }
                Some(Item::Pong(_)) => {}
                Some(item) => return Ok(Some(item)),
                None => match self.read().await? {
                    0 => return Ok(None),
                    read => self.decoder.feed(&self.chunk[..read]),
                },
            }
        }
    }

    async fn read(&mut self) -> Result<usize, String> {
        let (result, chunk) = self.sender.stream.read(std::mem::take(&mut self.chunk)).await;
        self.chunk = chunk;
        result.map_err(|error| format!("read: {error}"))
    }
}

impl Sender {
    /// Sends a text message.
    pub(crate) async fn text(&self, text: &str) -> Result<(), String> {
        self.send(OpCode::Data(Data::Text), text.as_bytes()).await
    }

    /// Sends a close frame with code 1000.
    pub(crate) async fn close(&self) -> Result<(), String> {
        self.send(OpCode::Control(Control::Close), &1000_u16.to_be_bytes()).await
    }

    /// Ends the connection at once, whatever is in flight.
    pub(crate) fn abandon(&self) {
        // A socket that is already gone is what is wanted.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    async fn send(&self, opcode: OpCode, payload: &[u8]) -> Result<(), String> {
        let mut masks = self.masks.lock().await;
        let frame = encode(opcode, payload, masks.next());
        self.write(frame).await.map_err(|error| format!("write: {error}"))
    }

    async fn write(&self, bytes: Vec<u8>) -> io::Result<()> {
        self.stream.write_all(bytes).await.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_or_refused() {
        let target = Target::parse("ws://127.0.0.1:8080/ws?a=b").expect("a target");
        assert_eq!(target.address.to_string(), "127.0.0.1:8080");
        assert_eq!(
            (target.authority.as_str(), target.path.as_str()),
            ("127.0.0.1:8080", "/ws?a=b")
        );
        let target = Target::parse("ws://[::1]:9").expect("a target");
        assert_eq!((target.address.to_string().as_str(), target.path.as_str()), ("[::1]:9", "/"));
        for url in ["", "127.0.0.1:8080", "wss://127.0.0.1/ws", "http://127.0.0.1/", "/ws"] {
            assert!(Target::parse(url).is_err(), "{url}");
        }
    }
}
