//! A peer that sends what it likes and says what came of it.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;
use socket2::SockRef;

use crate::support::{PATIENCE, clock};

/// A handshake in order.
pub(super) const GOOD: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// What comes of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// One response with this status, then the end of the stream.
    Status(u16),
    /// A close frame with this code, then the end of the stream.
    Close(u16),
    /// One error with this code; the session lives.
    Error(&'static str),
    /// No error; the session lives.
    Lives,
    /// The end of the stream, whatever came before.
    Gone,
}

/// A raw socket and what was read of it but not looked at.
pub(super) struct Peer {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Peer {
    pub(super) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // A write that waits gives the peer time to read; see `send`.
        stream.set_write_timeout(Some(Duration::from_millis(20))).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, read: Vec::new() }
    }

    /// A peer past its handshake and the first push.
    pub(super) fn upgraded(address: SocketAddr) -> Self {
        let mut peer = Self::connect(address);
        peer.send(GOOD.as_bytes());
        peer.expect_upgrade();
        peer
    }

    fn expect_upgrade(&mut self) {
        let end = self.upgrade();
        self.read.drain(..end);
        let (_, hello) = self.frame().expect("the first push");
        assert!(hello.starts_with(br#"{"type":"throng:connected""#));
    }

    /// Waits for the answer to an upgrade; where it ends.
    fn upgrade(&mut self) -> usize {
        let end = loop {
            if let Some(at) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.more(), "no answer to the handshake");
        };
        assert!(
            self.read.starts_with(b"HTTP/1.1 101 "),
            "{:?}",
            String::from_utf8_lossy(&self.read)
        );
        end
    }

    /// Sends as much as the other side takes: it may have closed already, and that is its right. Where it takes
    /// nothing before something of what it said is read, that is read first.
    pub(super) fn send(&mut self, mut bytes: &[u8]) {
        let start = clock();
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if !self.more_at_once() {
                        return;
                    }
                    assert!(start.elapsed() < PATIENCE, "nobody takes what is sent");
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    /// Reads what is there, without waiting for more; false at the end of the stream.
    fn more_at_once(&mut self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let mut piece = [0; 16_384];
        let goes_on = loop {
            match self.stream.read(&mut piece) {
                Ok(0) => break false,
                Ok(read) => self.read.extend_from_slice(&piece[..read]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => break error.kind() == ErrorKind::WouldBlock,
            }
        };
        self.stream.set_nonblocking(false).unwrap();
        goes_on
    }

    /// Reads on; false at the end of the stream.
    fn more(&mut self) -> bool {
        let mut piece = [0; 16_384];
        match self.stream.read(&mut piece) {
            Ok(0) => false,
            Ok(read) => {
                self.read.extend_from_slice(&piece[..read]);
                true
            }
            // A reset is an end too; a time-out is none.
            Err(error) => {
                let kind = error.kind();
                assert!(kind != ErrorKind::WouldBlock, "no end within {PATIENCE:?}");
                false
            }
        }
    }

    /// The next frame of the server: first byte and payload.
    pub(super) fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some((first, from, length)) = header(&self.read)
                && self.read.len() >= from + length
            {
                let payload = self.read[from..from + length].to_vec();
                self.read.drain(..from + length);
                return Some((first, payload));
            }
            if !self.more() {
                return None;
            }
        }
    }

    /// The next message as JSON; pongs are skipped.
    pub(super) fn message(&mut self) -> Option<Value> {
        loop {
            match self.frame()? {
                (0x81, text) => return Some(serde_json::from_slice(&text).unwrap()),
                (0x88, payload) => panic!("closed: {}", payload.escape_ascii()),
                _ => {}
            }
        }
    }

    /// Asserts what comes of what was sent.
    pub(super) fn expect(&mut self, name: &str, end: &End) {
        match end {
            End::Status(status) => {
                while self.more() {}
                let text = String::from_utf8_lossy(&self.read).into_owned();
                assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {text:?}");
                let answers = text.lines().filter(|line| line.starts_with("HTTP/1.1 ")).count();
                assert_eq!(answers, 1, "{name}: {text:?}");
            }
            End::Close(code) => {
                let payload = loop {
                    match self.frame() {
                        Some((0x88, payload)) => break payload,
                        Some(_) => {}
                        None => panic!("{name}: no close frame"),
                    }
                };
                assert_eq!(close_code(&payload), Some(*code), "{name}: {payload:?}");
                // Whoever was closed answers, and then the stream ends.
                self.send(&masked(0x88, &payload));
                assert_eq!(self.frame(), None, "{name}: something after the close frame");
            }
            End::Error(code) => {
                let error = self.message().unwrap_or_else(|| panic!("{name}: the stream ended"));
                assert_eq!(error["type"], "throng:error", "{name}: {error}");
                assert_eq!(error["code"], *code, "{name}: {error}");
                self.expect(name, &End::Lives);
            }
            End::Lives => {
                self.send(&text(r#"{"type":"throng:ping","ref":"lives"}"#));
                loop {
                    let message = self.message().unwrap_or_else(|| panic!("{name}: it ended"));
                    assert_ne!(message["type"], "throng:error", "{name}: {message}");
                    if message["type"] == "throng:pong" && message["ref"] == "lives" {
                        break;
                    }
                }
            }
            End::Gone => while self.frame().is_some() {},
        }
    }

    /// Asserts what comes of what was sent behind the head.
    pub(super) fn expect_upgraded(&mut self, name: &str, end: &End) {
        self.expect_upgrade();
        self.expect(name, end);
    }

    /// Asserts that the upgrade was made, nothing was pushed, and it was closed with this code.
    pub(super) fn expect_unheard(&mut self, name: &str, code: u16) {
        let end = self.upgrade();
        self.read.drain(..end);
        let (first, payload) = self.frame().unwrap_or_else(|| panic!("{name}: no close frame"));
        assert_eq!((first, close_code(&payload)), (0x88, Some(code)), "{name}: {payload:?}");
    }

    /// Sends a byte and gives the other side a moment to answer; false once it has closed.
    pub(super) fn trickle(&mut self, byte: u8) -> bool {
        self.send(&[byte]);
        self.stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let read = self.stream.read(&mut [0; 512]);
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    /// Ends the connection as a crash does.
    pub(super) fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Says that nothing more will be sent.
    pub(super) fn finish(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Sends a byte out of band, which has no place in either protocol.
    pub(super) fn urge(&self) {
        let _ = SockRef::from(&self.stream).send_out_of_band(b"!");
    }
}

/// The first byte, and where the payload lies, of the server's frame at the start of `bytes`.
fn header(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    match bytes {
        [first, 126, high, low, ..] => {
            Some((*first, 4, usize::from(u16::from_be_bytes([*high, *low]))))
        }
        [first, 127, rest @ ..] => {
            let length = u64::from_be_bytes(rest.get(..8)?.try_into().unwrap());
            Some((*first, 10, usize::try_from(length).unwrap()))
        }
        [first, length, ..] if *length < 126 => Some((*first, 2, usize::from(*length))),
        _ => None,
    }
}

fn close_code(payload: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes([*payload.first()?, *payload.get(1)?]))
}

/// A client's frame under a mask of zeros, with the length in its shortest form.
pub(crate) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | u8::try_from(length).unwrap()),
        length @ 126..65_536 => {
            frame.push(0xfe);
            frame.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        length => {
            frame.push(0xff);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// A text message.
pub(super) fn text(text: &str) -> Vec<u8> {
    masked(0x81, text.as_bytes())
}
