//! A secure client, and a node for it with certificates of its own authority.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::{Value, json};
use tempfile::TempDir;
use throng::node::Node;
use throng::node::config::{Config, Origin};
use tungstenite::client::IntoClientRequest;
use tungstenite::{Message, WebSocket};

use crate::authority::{Authority, Spoken};
use crate::support::PATIENCE;

/// A node that speaks TLS too, the files it reads, and who vouches for it.
pub(crate) struct Secure {
    pub(crate) node: Node,
    pub(crate) config: Config,
    pub(crate) files: Files,
}

/// A folder with a certificate, its key, and an authority of clients.
pub(crate) struct Files {
    folder: TempDir,
    pub(crate) authority: Authority,
}

impl Files {
    pub(crate) fn new() -> Self {
        let files = Self { folder: tempfile::tempdir().unwrap(), authority: Authority::new() };
        files.issue();
        files.write("clients.pem", &files.authority.pem());
        files
    }

    /// Writes a new certificate of the authority over the old one.
    pub(crate) fn issue(&self) {
        let issued = self.authority.issue("example", &["example.org"]);
        self.write("chain.pem", &issued.chain_pem);
        self.write("key.pem", &issued.key_pem);
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// What a node needs to be told to use them, but where to listen.
    pub(crate) fn sets(&self) -> [String; 2] {
        let (chain, key) = (self.path("chain.pem"), self.path("key.pem"));
        [
            format!("certificate=[{{chain={chain:?}, key={key:?}}}]"),
            format!("tls.client_ca={}", self.path("clients.pem")),
        ]
    }
}

impl Secure {
    pub(crate) fn start(driver: &str, sets: &[&str]) -> Self {
        Self::start_with(driver, Files::new(), sets)
    }

    /// The same with these files; what `sets` say of them holds.
    pub(crate) fn start_with(driver: &str, files: Files, sets: &[&str]) -> Self {
        let driver = format!("server.driver={driver}");
        let own = [
            "server.listen=127.0.0.1:0",
            "tls.listen=127.0.0.1:0",
            "server.shards=2",
            "server.pin=false",
            "debug.echo_path=/echo",
            &driver,
        ];
        let own = own.iter().map(|set| (*set).to_owned()).chain(files.sets());
        let sets = own.chain(sets.iter().map(|set| (*set).to_owned())).collect();
        let config = Origin { file: None, sets }.load().expect("valid");
        let node = Node::start(&config).expect("a running node");
        Self { node, config, files }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.node.tls_address().expect("TLS is on")
    }

    pub(crate) fn client(&self, version: Spoken) -> Arc<ClientConfig> {
        Arc::new(self.files.authority.client(version, None))
    }

    /// A client that has been greeted.
    pub(crate) fn connect(&self, version: Spoken) -> SecureClient {
        SecureClient::connect(self.address(), &self.client(version))
    }

    /// A client of the echo endpoint.
    pub(crate) fn echo(&self, version: Spoken) -> SecureClient {
        SecureClient::echo(self.address(), &self.client(version))
    }
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// A socket with TLS over it; nothing is said yet.
pub(crate) fn stream(address: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> Stream {
    let socket = TcpStream::connect(address).expect("a connection");
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket.set_nodelay(true).unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), socket)
}

/// A client that speaks `throng.v1.json`, or that is echoed.
pub(crate) struct SecureClient(WebSocket<Stream>);

impl SecureClient {
    pub(crate) fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> Self {
        let mut client =
            Self::over(stream(address, config, "example.org"), "/ws").expect("an upgrade");
        assert_eq!(client.next()["type"], "throng:connected");
        client
    }

    /// A client of the echo endpoint.
    pub(crate) fn echo(address: SocketAddr, config: &Arc<ClientConfig>) -> Self {
        Self::over(stream(address, config, "example.org"), "/echo").expect("an upgrade")
    }

    /// `None` when the connection ends before the upgrade.
    pub(crate) fn over(stream: Stream, path: &str) -> Option<Self> {
        let request = format!("wss://example.org{path}").into_client_request().unwrap();
        tungstenite::client(request, stream).ok().map(|(socket, _)| Self(socket))
    }

    pub(crate) fn send(&mut self, message: &Value) {
        self.0.send(Message::text(message.to_string())).expect("a write");
    }

    pub(crate) fn next(&mut self) -> Value {
        loop {
            match self.0.read().expect("a message") {
                Message::Text(text) => return serde_json::from_str(&text).expect("JSON"),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("instead of a text: {other:?}"),
            }
        }
    }

    pub(crate) fn join(&mut self, room: &str) {
        self.send(&json!({"type": "throng:join", "room": room, "ref": 1}));
        assert_eq!(self.next()["ok"], json!(true));
    }

    /// Sends that many bytes and asserts that they come back.
    pub(crate) fn bounce(&mut self, bytes: usize) {
        let payload: Vec<u8> =
            (0..bytes).map(|at| u8::try_from((at ^ at >> 8) & 0xff).unwrap()).collect();
        self.0.send(Message::binary(payload.clone())).expect("a write");
        match self.0.read().expect("an echo") {
            Message::Binary(echo) => assert!(echo == payload, "{} bytes came back", echo.len()),
            other => panic!("instead of an echo: {other:?}"),
        }
    }

    /// The close code and that nothing but an orderly end follows.
    pub(crate) fn close_code(mut self) -> u16 {
        loop {
            match self.0.read() {
                Ok(Message::Close(Some(frame))) => {
                    let end = self.0.read();
                    assert!(matches!(end, Err(tungstenite::Error::ConnectionClosed)), "{end:?}");
                    return frame.code.into();
                }
                Ok(_) => {}
                Err(error) => panic!("no close frame: {error}"),
            }
        }
    }

    pub(crate) fn close(&mut self) {
        self.0.close(None).expect("a close frame");
        while self.0.read().is_ok() {}
    }

    pub(crate) fn tls(&self) -> &ClientConnection {
        &self.0.get_ref().conn
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        &self.0.get_ref().sock
    }
}
