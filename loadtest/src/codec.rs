//! The client's half of RFC 6455 over slices: no socket, no task, no engine code.
//!
//! Headers, the accept key and the key itself are tungstenite's; fragments, limits and what a server must
//! not do are judged here. The judge is strict: a masked frame, a reserved bit, a length longer than it
//! need be or text that is not UTF-8 is an error and ends the run, because the engine's mistakes are what
//! this program looks for. It negotiates no extension and answers nothing by itself.

use std::fmt;
use std::io::Cursor;

use tungstenite::handshake::client::Response;
use tungstenite::handshake::derive_accept_key;
use tungstenite::handshake::machine::TryParse as _;
use tungstenite::http::header::{CONNECTION, UPGRADE};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// What a server sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// The close code, if one was given.
    Close(Option<u16>),
}

/// What a server did wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CodecError(String);

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn wrong<T>(what: impl Into<String>) -> Result<T, CodecError> {
    Err(CodecError(what.into()))
}

/// The longest message taken, in bytes: well above what any scenario sends.
const MAX_MESSAGE: u64 = 64 << 20;

/// Frames to messages. Holds memory only while something is incomplete.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    buffer: Vec<u8>,
    /// Bytes of `buffer` that are decoded already.
    taken: usize,
    /// The message that awaits its next fragment.
    partial: Option<(Data, Vec<u8>)>,
}

impl Decoder {
    /// Takes bytes from the socket.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        if self.taken > 0 {
            self.buffer.drain(..self.taken);
            self.taken = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message or control frame.
    ///
    /// # Errors
    /// When the server breaks the protocol; the connection cannot go on.
    pub(crate) fn next(&mut self) -> Result<Option<Item>, CodecError> {
        loop {
            let Some((header, payload)) = self.frame()? else {
                if self.taken == self.buffer.len() {
                    (self.buffer, self.taken) = (Vec::new(), 0);
                }
                return Ok(None);
            };
            match header.opcode {
                OpCode::Control(control) => return control_frame(control, payload).map(Some),
                OpCode::Data(data) => {
                    if let Some(item) = self.fragment(data, header.is_final, payload)? {
                        return Ok(Some(item));
                    }
                }
            }
        }
    }

    /// The next frame, if it is whole.
    fn frame(&mut self) -> Result<Option<(FrameHeader, Vec<u8>)>, CodecError> {
        let rest = &self.buffer[self.taken..];
        let mut cursor = Cursor::new(rest);
        let parsed = FrameHeader::parse(&mut cursor).map_err(|e| CodecError(e.to_string()))?;
        let Some((header, length)) = parsed else { return Ok(None) };
        let head = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
        check_header(&header, length, head)?;
        let Ok(length) = usize::try_from(length) else { return wrong("a frame beyond memory") };
        let Some(payload) = rest.get(head..head + length) else { return Ok(None) };
        let payload = payload.to_vec();
        self.taken += head + length;
        Ok(Some((header, payload)))
    }

    fn fragment(
        &mut self,
        data: Data,
        last: bool,
        payload: Vec<u8>,
    ) -> Result<Option<Item>, CodecError> {
        let (kind, whole) = match (data, self.partial.take()) {
            (Data::Continue, Some((kind, mut whole))) => {
                whole.extend_from_slice(&payload);
                (kind, whole)
            }
            (Data::Continue, None) => return wrong("a continuation of no message"),
            (_, Some(_)) => return wrong("a new message inside a fragmented one"),
            (kind, None) => (kind, payload),
        };
        if whole.len() as u64 > MAX_MESSAGE {
            return wrong(format!("a message of more than {MAX_MESSAGE} bytes"));
        }
        if !last {
            self.partial = Some((kind, whole));
            return Ok(None);
        }
        match kind {
            Data::Text => match String::from_utf8(whole) {
                Ok(text) => Ok(Some(Item::Text(text))),
                Err(_) => wrong("a text message that is not UTF-8"),
            },
            _ => Ok(Some(Item::Binary(whole))),
        }
    }
}

fn check_header(header: &FrameHeader, length: u64, head: usize) -> Result<(), CodecError> {
    if header.mask.is_some() {
        return wrong("a masked frame from the server");
    }
    if header.rsv1 || header.rsv2 || header.rsv3 {
        return wrong("a reserved bit without an extension");
    }
    if header.len(length) != head {
        return wrong("a length in more bytes than it needs");
    }
    if length > MAX_MESSAGE {
        return wrong(format!("a frame of {length} bytes, more than {MAX_MESSAGE}"));
    }
    if matches!(header.opcode, OpCode::Control(_)) && (length > 125 || !header.is_final) {
        return wrong("a control frame that is fragmented or longer than 125 bytes");
    }
    Ok(())
}

fn control_frame(control: Control, payload: Vec<u8>) -> Result<Item, CodecError> {
    Ok(match (control, payload.as_slice()) {
        (Control::Ping, _) => Item::Ping(payload),
        (Control::Pong, _) => Item::Pong(payload),
        (_, []) => Item::Close(None),
        (_, [high, low, reason @ ..]) if std::str::from_utf8(reason).is_ok() => {
            Item::Close(Some(u16::from_be_bytes([*high, *low])))
        }
        _ => return wrong("a close frame with half a code or a reason that is not UTF-8"),
    })
}

/// A whole frame of a client, masked.
pub(crate) fn encode(opcode: OpCode, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let header = FrameHeader { opcode, mask: Some(mask), ..FrameHeader::default() };
    let length = payload.len() as u64;
    let mut frame = Vec::with_capacity(header.len(length) + payload.len());
    let written = header.format(length, &mut frame);
    assert!(written.is_ok(), "writing to memory cannot fail");
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// The request that opens a connection (RFC 6455, section 4.1).
pub(crate) fn request(authority: &str, path: &str, key: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\
         Sec-WebSocket-Protocol: throng.v1.json\r\n\r\n"
    )
    .into_bytes()
}

/// Judges the answer to [`request`]: `None` while it is incomplete, else the length of its head.
///
/// # Errors
/// When the server refuses or its answer is not the one that the key asks for.
pub(crate) fn check_response(bytes: &[u8], key: &str) -> Result<Option<usize>, CodecError> {
    let parsed = Response::try_parse(bytes).map_err(|e| CodecError(e.to_string()))?;
    let Some((length, response)) = parsed else { return Ok(None) };
    let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok());
    let is = |name: &str, value: &str| header(name).is_some_and(|v| v.eq_ignore_ascii_case(value));
    if response.status() != 101 {
        let body = String::from_utf8_lossy(&bytes[length..]);
        return wrong(format!("the upgrade was refused: {} {}", response.status(), body.trim()));
    }
    if !is(UPGRADE.as_str(), "websocket") || !is(CONNECTION.as_str(), "upgrade") {
        return wrong("a 101 without Upgrade: websocket and Connection: Upgrade");
    }
    if header("sec-websocket-accept") != Some(derive_accept_key(key.as_bytes()).as_str()) {
        return wrong("a Sec-WebSocket-Accept that does not answer the key");
    }
    if header("sec-websocket-extensions").is_some() {
        return wrong("an extension that was not offered");
    }
    match header("sec-websocket-protocol") {
        None | Some("throng.v1.json") => Ok(Some(length)),
        Some(other) => wrong(format!("the subprotocol {other}, which was not offered")),
    }
}

/// Masking keys from a seed. RFC 6455 wants them unpredictable to scripts behind a proxy; a generator of
/// load has no such script and wants them cheap.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Masks(pub(crate) u64);

impl Masks {
    /// The next key, by the steps of SplitMix64.
    pub(crate) fn next(&mut self) -> [u8; 4] {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let [a, b, c, d, ..] = (mixed ^ (mixed >> 27)).to_be_bytes();
        [a, b, c, d]
    }
}

#[cfg(test)]
mod tests;
