//! The client's half of RFC 6455 over slices: no socket, no task, no engine code.
//!
//! Headers, the accept key and the key itself are tungstenite's; fragments, limits and what a server must
//! not do are judged here. The judge is strict: a masked frame, a reserved bit, a length longer than it
//! need be or text that is not UTF-8 is an error and ends the run, because the engine's mistakes are what
//! this program looks for. It negotiates no extension and answers nothing by itself.

use std::fmt;
use std::io::Cursor;
use std::ops::Range;

use tungstenite::handshake::client::Response;
use tungstenite::handshake::derive_accept_key;
use tungstenite::handshake::machine::TryParse as _;
use tungstenite::http::header::{CONNECTION, UPGRADE};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// What a server sent, borrowed from the bytes it came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Item<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
    Ping(&'a [u8]),
    Pong(&'a [u8]),
    /// The close code, if one was given.
    Close(Option<u16>),
}

/// What a server did wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CodecError(String);

impl CodecError {
    pub(crate) fn new(what: String) -> Self {
        Self(what)
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<CodecError> for String {
    fn from(error: CodecError) -> Self {
        error.0
    }
}

fn wrong<T>(what: impl Into<String>) -> Result<T, CodecError> {
    Err(CodecError(what.into()))
}

/// The longest message taken, in bytes: well above what any scenario sends.
const MAX_MESSAGE: u64 = 64 << 20;

/// Frames to messages. Whole frames are handed on without a copy; memory is held only while something is
/// incomplete.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    held: Option<Box<Held>>,
}

/// What an incomplete message keeps.
#[derive(Debug, Default)]
struct Held {
    /// The bytes of a frame that has not ended.
    rest: Vec<u8>,
    /// The message that awaits its next fragment.
    partial: Partial,
}

type Partial = Option<(Data, Vec<u8>)>;

impl Decoder {
    /// Takes bytes from the socket and hands on each whole message and control frame in them.
    ///
    /// # Errors
    /// When the server breaks the protocol or `each` fails; the connection cannot go on.
    pub(crate) fn decode(
        &mut self,
        bytes: &[u8],
        each: &mut dyn FnMut(Item<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut held = self.held.take().unwrap_or_default();
        if held.rest.is_empty() {
            let used = frames(bytes, &mut held.partial, each)?;
            held.rest.extend_from_slice(&bytes[used..]);
        } else {
            held.rest.extend_from_slice(bytes);
            let used = frames(&held.rest, &mut held.partial, each)?;
            held.rest.drain(..used);
        }
        if !held.rest.is_empty() || held.partial.is_some() {
            self.held = Some(held);
        }
        Ok(())
    }

    /// True while a frame or a message has not ended.
    pub(crate) fn is_inside(&self) -> bool {
        self.held.is_some()
    }
}

/// Hands on what `bytes` hold whole; returns how many of them that took.
fn frames(
    bytes: &[u8],
    partial: &mut Partial,
    each: &mut dyn FnMut(Item<'_>) -> Result<(), String>,
) -> Result<usize, String> {
    let mut used = 0;
    while let Some((header, payload)) = frame(&bytes[used..])? {
        used += payload.end;
        let payload = &bytes[used - payload.len()..used];
        match header.opcode {
            OpCode::Control(control) => each(control_frame(control, payload)?)?,
            OpCode::Data(data) if header.is_final && partial.is_none() => {
                each(whole(data, payload)?)?;
            }
            OpCode::Data(data) => fragment(data, header.is_final, payload, partial, each)?,
        }
    }
    Ok(used)
}

/// The first frame, if it is whole, and where its payload lies.
fn frame(bytes: &[u8]) -> Result<Option<(FrameHeader, Range<usize>)>, CodecError> {
    let mut cursor = Cursor::new(bytes);
    let parsed = FrameHeader::parse(&mut cursor).map_err(|e| CodecError(e.to_string()))?;
    let Some((header, length)) = parsed else { return Ok(None) };
    let head = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
    check_header(&header, length, head)?;
    let Ok(length) = usize::try_from(length) else { return wrong("a frame beyond memory") };
    let payload = head..head + length;
    Ok((bytes.len() >= payload.end).then_some((header, payload)))
}

fn whole(kind: Data, payload: &[u8]) -> Result<Item<'_>, CodecError> {
    match kind {
        Data::Text => match std::str::from_utf8(payload) {
            Ok(text) => Ok(Item::Text(text)),
            Err(_) => wrong("a text message that is not UTF-8"),
        },
        Data::Continue => wrong("a continuation of no message"),
        _ => Ok(Item::Binary(payload)),
    }
}

fn fragment(
    data: Data,
    last: bool,
    payload: &[u8],
    partial: &mut Partial,
    each: &mut dyn FnMut(Item<'_>) -> Result<(), String>,
) -> Result<(), String> {
    let (kind, message) = match (data, partial.take()) {
        (Data::Continue, Some((kind, mut message))) => {
            message.extend_from_slice(payload);
            (kind, message)
        }
        (Data::Continue, None) => return Err("a continuation of no message".to_owned()),
        (_, Some(_)) => return Err("a new message inside a fragmented one".to_owned()),
        (kind, None) => (kind, payload.to_vec()),
    };
    if message.len() as u64 > MAX_MESSAGE {
        return Err(format!("a message of more than {MAX_MESSAGE} bytes"));
    }
    if last {
        return each(whole(kind, &message)?);
    }
    *partial = Some((kind, message));
    Ok(())
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

fn control_frame(control: Control, payload: &[u8]) -> Result<Item<'_>, CodecError> {
    Ok(match (control, payload) {
        (Control::Ping, _) => Item::Ping(payload),
        (Control::Pong, _) => Item::Pong(payload),
        (_, []) => Item::Close(None),
        (_, [high, low, reason @ ..]) if std::str::from_utf8(reason).is_ok() => {
            Item::Close(Some(u16::from_be_bytes([*high, *low])))
        }
        _ => return wrong("a close frame with half a code or a reason that is not UTF-8"),
    })
}

/// Appends a whole frame of a client, masked.
pub(crate) fn encode(opcode: OpCode, payload: &[u8], mask: [u8; 4], frames: &mut Vec<u8>) {
    let header = FrameHeader { opcode, mask: Some(mask), ..FrameHeader::default() };
    let length = payload.len() as u64;
    frames.reserve(header.len(length) + payload.len());
    let written = header.format(length, frames);
    assert!(written.is_ok(), "writing to memory cannot fail");
    let key = u64::from_ne_bytes([mask, mask].concat().try_into().unwrap_or_default());
    let (words, tail) = payload.as_chunks::<8>();
    for word in words {
        frames.extend_from_slice(&(u64::from_ne_bytes(*word) ^ key).to_ne_bytes());
    }
    frames.extend(tail.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// The request that opens a connection (RFC 6455, section 4.1).
pub(crate) fn request(
    authority: &str,
    path: &str,
    key: &str,
    protocol: Option<&str>,
    token: Option<&str>,
) -> Vec<u8> {
    let mut head = format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
    );
    if let Some(protocol) = protocol {
        head.push_str(&format!("Sec-WebSocket-Protocol: {protocol}\r\n"));
    }
    if let Some(token) = token {
        head.push_str(&format!("Authorization: Bearer {token}\r\n"));
    }
    head.push_str("\r\n");
    head.into_bytes()
}

/// Judges the answer to [`request`]: `None` while it is incomplete, else the length of its head.
///
/// # Errors
/// When the server refuses or its answer is not the one that the key asks for.
pub(crate) fn check_response(
    bytes: &[u8],
    key: &str,
    protocol: Option<&str>,
) -> Result<Option<usize>, CodecError> {
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
        None => Ok(Some(length)),
        chosen if chosen == protocol => Ok(Some(length)),
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
