//! A client in the simulation: a codec that shares nothing with the engine's, and what it has seen.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use serde_json::Value;
use throng::driver::sim::Peer;

/// What a client may expect of a room.
#[derive(Default)]
pub(crate) struct Membership {
    /// Publications made before its join was answered; from then on it must get all of them.
    pub(crate) since: Option<usize>,
    /// It asked to leave at some time: then nothing is promised.
    pub(crate) left: bool,
}

/// One client over one simulated link.
pub(crate) struct Client {
    pub(crate) peer: Peer,
    /// TLS, for those who speak it.
    seam: Option<Box<Seam>>,
    /// What has been heard and is to be said, in plain bytes.
    inbound: Vec<u8>,
    outbound: Vec<u8>,
    upgraded: bool,
    /// The connection id, once the server has said hello.
    pub(crate) id: Option<String>,
    /// Every push and reply, parsed, in order.
    pub(crate) heard: Vec<Value>,
    /// The close code, once a close frame came.
    pub(crate) closed: Option<u16>,
    pub(crate) answers_pings: bool,
    /// Rooms it has ever asked to be in.
    pub(crate) rooms: BTreeMap<String, Membership>,
    /// Messages of `heard` that the story has taken note of.
    pub(crate) noted: usize,
    pub(crate) gone: bool,
}

/// What stands between a secure client and its link.
struct Seam {
    tls: ClientConnection,
    /// Records that the link has not taken.
    sealed: Vec<u8>,
}

impl Seam {
    /// Moves bytes both ways: all of `outbound`, and to `inbound` what can be opened.
    fn turn(&mut self, peer: &mut Peer, outbound: &mut Vec<u8>, inbound: &mut Vec<u8>) {
        self.tls.writer().write_all(outbound).expect("memory");
        outbound.clear();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.sealed).expect("memory");
        }
        let taken = peer.write(&self.sealed);
        self.sealed.drain(..taken);
        let mut arrived = Vec::new();
        peer.read(&mut arrived);
        let mut rest = arrived.as_slice();
        while !rest.is_empty() {
            self.tls.read_tls(&mut rest).expect("memory");
            self.tls.process_new_packets().expect("records in order and whole");
            // The end of the stream and the end of what is there both end this.
            let _ = self.tls.reader().read_to_end(inbound);
        }
    }
}

impl Client {
    /// A client that speaks TLS.
    pub(crate) fn secure(peer: Peer, config: &Arc<ClientConfig>) -> Self {
        let name = ServerName::try_from("example.org").expect("a name");
        let mut tls = ClientConnection::new(Arc::clone(config), name).expect("a client");
        tls.set_buffer_limit(None);
        Self { seam: Some(Box::new(Seam { tls, sealed: Vec::new() })), ..Self::new(peer) }
    }

    /// A client that shows a token.
    pub(crate) fn known(peer: Peer, token: &str) -> Self {
        let mut client = Self::new(peer);
        client.outbound.truncate(client.outbound.len() - 2);
        client.outbound.extend(format!("Authorization: Bearer {token}\r\n\r\n").bytes());
        client
    }

    pub(crate) fn new(peer: Peer) -> Self {
        let head = "GET /ws HTTP/1.1\r\nHost: sim\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
        Self {
            peer,
            seam: None,
            inbound: Vec::new(),
            outbound: head.as_bytes().to_vec(),
            upgraded: false,
            id: None,
            heard: Vec::new(),
            closed: None,
            answers_pings: true,
            rooms: BTreeMap::new(),
            noted: 0,
            gone: false,
        }
    }

    /// True while the link works and neither side has begun to close.
    pub(crate) fn is_alive(&self) -> bool {
        !self.gone && self.closed.is_none() && !self.peer.is_closed()
    }

    pub(crate) fn send(&mut self, message: &Value) {
        self.frame(0x1, message.to_string().as_bytes());
    }

    /// A masked frame, in pieces of its own now and then by the network.
    fn frame(&mut self, opcode: u8, payload: &[u8]) {
        self.outbound.push(0x80 | opcode);
        match u16::try_from(payload.len()).expect("a short message") {
            length @ 0..=125 => self.outbound.push(0x80 | u8::try_from(length).unwrap()),
            length => {
                self.outbound.push(0x80 | 126);
                self.outbound.extend(length.to_be_bytes());
            }
        }
        let mask = [0x12, 0x34, 0x56, 0x78];
        self.outbound.extend(mask);
        self.outbound
            .extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    }

    pub(crate) fn has_unsent(&self) -> bool {
        let waits = |seam: &Seam| !seam.sealed.is_empty() || seam.tls.wants_write();
        !self.outbound.is_empty() || self.seam.as_deref().is_some_and(waits)
    }

    /// Moves bytes both ways and takes in what is complete.
    pub(crate) fn turn(&mut self) {
        if let Some(seam) = &mut self.seam {
            seam.turn(&mut self.peer, &mut self.outbound, &mut self.inbound);
        } else {
            let taken = self.peer.write(&self.outbound);
            self.outbound.drain(..taken);
            self.peer.read(&mut self.inbound);
        }
        if !self.upgraded {
            let Some(end) = self.inbound.windows(4).position(|window| window == b"\r\n\r\n") else {
                return;
            };
            let head = String::from_utf8_lossy(&self.inbound[..end]).into_owned();
            assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
            self.inbound.drain(..end + 4);
            self.upgraded = true;
        }
        while let Some((opcode, payload)) = self.take_frame() {
            self.take_in(opcode, &payload);
        }
    }

    fn take_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let (first, second) = (*self.inbound.first()?, *self.inbound.get(1)?);
        assert_eq!(first & 0xf0, 0x80, "servers send whole frames without extensions");
        assert_eq!(second & 0x80, 0, "servers do not mask");
        let (begin, length) = match second {
            126 => {
                let bytes = self.inbound.get(2..4)?;
                (4, usize::from(u16::from_be_bytes(bytes.try_into().unwrap())))
            }
            127 => panic!("nothing here is that long"),
            length => (2, usize::from(length)),
        };
        let payload = self.inbound.get(begin..begin + length)?.to_vec();
        self.inbound.drain(..begin + length);
        Some((first & 0xf, payload))
    }

    fn take_in(&mut self, opcode: u8, payload: &[u8]) {
        assert_eq!(self.closed, None, "a frame after the close frame");
        match opcode {
            0x1 => {
                let message: Value = serde_json::from_slice(payload).expect("JSON");
                if message["type"] == "throng:connected" {
                    assert!(self.heard.is_empty(), "the hello comes first");
                    self.id = Some(message["clientId"].as_str().expect("an id").to_owned());
                }
                self.heard.push(message);
            }
            0x8 => {
                self.closed = Some(u16::from_be_bytes(payload[..2].try_into().expect("a code")));
                self.frame(0x8, &payload[..2]);
            }
            0x9 if self.answers_pings => self.frame(0xa, payload),
            0x9 => {}
            other => panic!("opcode {other}"),
        }
    }
}
