//! A node to test against, and clients.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use throng::base::counters::Counters;
use throng::node::Node;
use throng::node::config::Origin;
use tungstenite::client::IntoClientRequest;
use tungstenite::{Message, WebSocket};

/// Patience with what must happen. No test passes or fails by how long something took, short of this.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at something that did not happen at once: whoever looks all the time takes the processor from those
/// it waits for.
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);

#[expect(clippy::disallowed_methods, reason = "patience is measured with the real clock")]
pub(crate) fn clock() -> Instant {
    Instant::now()
}

/// Runs the same test on both drivers, each under its own name.
macro_rules! on_both_drivers {
    ($($(#[$doc:meta])* fn $name:ident($driver:ident) $body:block)*) => {
        $(mod $name {
            #[allow(unused_imports, reason = "not every test uses all of its module")]
            use super::*;

            fn run($driver: &str) $body

            #[test]
            fn on_epoll() {
                run("epoll");
            }

            #[test]
            fn on_io_uring() {
                run("uring");
            }
        })*
    };
}
pub(crate) use on_both_drivers;

/// Starts a node with two shards on a free port.
pub(crate) fn node(driver: &str, sets: &[&str]) -> Node {
    // The tests send as fast as they can; those of the limits set one.
    let own = [
        "server.listen=127.0.0.1:0",
        "server.shards=2",
        "server.pin=false",
        "limits.messages_per_second=0",
    ];
    let driver = format!("server.driver={driver}");
    let all = own.iter().copied().chain([driver.as_str()]).chain(sets.iter().copied());
    let origin = Origin { file: None, sets: all.map(str::to_owned).collect() };
    Node::start(&origin.load().expect("a valid configuration")).expect("a running node")
}

/// Waits until the counters are as they should be; what is checked here is never a duration.
pub(crate) fn wait_for(node: &Node, what: &str, holds: impl Fn(&Counters) -> bool) {
    wait_until(&format!("{what}: {:?}", node.counters()), || holds(&node.counters()));
}

/// Waits until something holds.
pub(crate) fn wait_until(what: &str, holds: impl FnMut() -> bool) {
    wait_within(PATIENCE, what, holds);
}

/// The same with another patience, for what others decide by clocks of their own.
pub(crate) fn wait_within(patience: Duration, what: &str, holds: impl FnMut() -> bool) {
    assert!(holds_within(patience, holds), "in vain: {what}");
}

/// Whether something comes to hold, for tests that have more to say when it does not.
pub(crate) fn holds_within(patience: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let start = clock();
    let mut looks = 0;
    while !holds() {
        if start.elapsed() >= patience {
            return false;
        }
        looks += 1;
        if looks < 100 {
            std::thread::yield_now();
        } else {
            std::thread::park_timeout(BETWEEN_LOOKS);
        }
    }
    true
}

/// A port for a program that is started next: of those that the kernel gives to nobody who asks for any, as tests
/// beside this one do all the time, and to each caller another.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let end: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
    let (begin, count) = (end / 2, end - end / 2);
    // Another run of the tests at the same time begins elsewhere, also one that was started next.
    let offset = u16::try_from(std::process::id().wrapping_mul(101) % u32::from(count)).unwrap();
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let place = (u32::from(offset) + u32::from(step)) % u32::from(count);
        let port = begin + u16::try_from(place).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A client that speaks `throng.v1.json`.
pub(crate) struct Client {
    socket: WebSocket<TcpStream>,
    pub(crate) id: String,
    next_ref: u64,
    /// What came before a reply that was waited for.
    kept: VecDeque<Value>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).expect("a connection"), address)
    }

    /// A client whose kernel takes in next to nothing that it does not read.
    pub(crate) fn connect_narrow(address: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(2048).unwrap();
        socket.connect(&address.into()).expect("a connection");
        Self::over(socket.into(), address)
    }

    /// The same with a token.
    pub(crate) fn connect_narrow_with(address: SocketAddr, bearer: &str) -> Self {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(2048).unwrap();
        socket.connect(&address.into()).expect("a connection");
        let headers = [("authorization", bearer)];
        let mut client = Self::upgraded(socket.into(), address, "/ws", &headers);
        client.greet();
        client
    }

    /// A client with an address of its own in the loopback network.
    pub(crate) fn connect_from(address: SocketAddr, source: [u8; 4]) -> Self {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
        socket.connect(&address.into()).expect("a connection");
        Self::over(socket.into(), address)
    }

    /// A client that asks for `target` with headers of its own.
    pub(crate) fn connect_with(
        address: SocketAddr,
        target: &str,
        headers: &[(&'static str, &str)],
    ) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        let mut client = Self::upgraded(stream, address, target, headers);
        client.greet();
        client
    }

    /// A client that is not greeted before it has said who it is.
    pub(crate) fn connect_silent(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        Self::upgraded(stream, address, "/ws", &[])
    }

    /// A client with headers of its own that may be closed before it is greeted.
    pub(crate) fn connect_unheard(address: SocketAddr, headers: &[(&'static str, &str)]) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        Self::upgraded(stream, address, "/ws", headers)
    }

    /// A client over a connection that there is.
    pub(crate) fn over(stream: TcpStream, address: SocketAddr) -> Self {
        let mut client = Self::upgraded(stream, address, "/ws", &[]);
        client.greet();
        client
    }

    fn upgraded(
        stream: TcpStream,
        address: SocketAddr,
        target: &str,
        headers: &[(&'static str, &str)],
    ) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut request = format!("ws://{address}{target}").into_client_request().unwrap();
        let protocol = "throng.v1.json".parse().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", protocol);
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let (socket, response) = tungstenite::client(request, stream).expect("an upgrade");
        assert_eq!(response.headers()["sec-websocket-protocol"], "throng.v1.json");
        Self { socket, id: String::new(), next_ref: 0, kept: VecDeque::new() }
    }

    fn greet(&mut self) {
        let hello = self.next();
        assert_eq!(hello["type"], "throng:connected", "{hello}");
        hello["clientId"].as_str().expect("an id").clone_into(&mut self.id);
    }

    /// Connects until the connection lands on that shard: the kernel spreads them by a hash.
    pub(crate) fn connect_to_shard(address: SocketAddr, shard: &str) -> Self {
        for _ in 0..200 {
            let client = Self::connect(address);
            if client.shard() == shard {
                return client;
            }
        }
        panic!("200 connections and none on shard {shard}");
    }

    pub(crate) fn shard(&self) -> &str {
        self.id.rsplit('-').nth(2).unwrap()
    }

    pub(crate) fn send(&mut self, message: &Value) {
        self.send_text(&message.to_string());
    }

    pub(crate) fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).expect("a write");
    }

    /// Sends if the kernel takes it at once.
    pub(crate) fn try_send(&mut self, text: &str) -> Result<(), tungstenite::Error> {
        self.socket.send(Message::text(text))
    }

    /// The next push or reply.
    pub(crate) fn next(&mut self) -> Value {
        if let Some(kept) = self.kept.pop_front() {
            return kept;
        }
        match self.next_message() {
            Message::Text(text) => serde_json::from_str(&text).expect("JSON"),
            other => panic!("instead of a text: {other:?}"),
        }
    }

    /// A message of any kind. A signal for the process interrupts a read that has a time limit, and tungstenite says so.
    fn read(&mut self) -> tungstenite::Result<Message> {
        loop {
            match self.socket.read() {
                Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }

    /// The next message that is not a ping; tungstenite answers those by itself.
    pub(crate) fn next_message(&mut self) -> Message {
        loop {
            match self.read().expect("a message") {
                Message::Ping(_) | Message::Pong(_) => {}
                message => return message,
            }
        }
    }

    /// Sends a command and waits for its reply; pushes in between are an error here.
    pub(crate) fn ask(&mut self, mut command: Value) -> Value {
        self.next_ref += 1;
        command["ref"] = json!(self.next_ref);
        self.send(&command);
        let reply = self.next();
        assert_eq!(reply["ref"], json!(self.next_ref), "{command} -> {reply}");
        reply
    }

    /// The same; pushes that come before the reply are read again after it.
    pub(crate) fn ask_among(&mut self, mut command: Value) -> Value {
        self.next_ref += 1;
        command["ref"] = json!(self.next_ref);
        self.send(&command);
        let mut before = Vec::new();
        loop {
            let message = self.next();
            if message["ref"] == json!(self.next_ref) {
                self.kept.extend(before);
                return message;
            }
            before.push(message);
        }
    }

    /// What comes after this; `None` when the server is gone.
    pub(crate) fn try_ask(&mut self, command: &Value) -> Option<Value> {
        self.try_send(&command.to_string()).ok()?;
        loop {
            match self.read().ok()? {
                Message::Ping(_) | Message::Pong(_) => {}
                Message::Text(text) => return serde_json::from_str(&text).ok(),
                _ => return None,
            }
        }
    }

    pub(crate) fn join(&mut self, room: &str) -> Value {
        let reply = self.ask(json!({"type": "throng:join", "room": room}));
        assert_eq!(reply["ok"], json!(true), "{reply}");
        reply
    }

    /// Asserts that nothing is on its way: what a later command is answered comes first.
    pub(crate) fn expect_silence(&mut self) {
        let pong = self.ask(json!({"type": "throng:ping"}));
        assert_eq!(pong["type"], "throng:pong", "{pong}");
    }

    /// The code of the close frame that ends the connection; pushes before it are skipped.
    pub(crate) fn close_code(self) -> u16 {
        self.end().0
    }

    /// The same with the words beside it.
    pub(crate) fn end(mut self) -> (u16, String) {
        loop {
            match self.read() {
                Ok(Message::Close(Some(frame))) => {
                    return (frame.code.into(), frame.reason.to_string());
                }
                Ok(Message::Close(None)) => return (1005, String::new()),
                Ok(_) => {}
                Err(error) => panic!("no close frame: {error}"),
            }
        }
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        self.socket.get_ref()
    }
}

/// Sends raw bytes and returns all that comes back until the end of the stream.
pub(crate) fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    // A reset after the answer is as good an end as any.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}
