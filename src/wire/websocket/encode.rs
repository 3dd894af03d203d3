//! Frames to send: unmasked, final, one per message (RFC 6455, section 5.1).
//!
//! A frame is made once and shared by every receiver, so these functions give whole buffers. What is
//! encoded straight into a frame ([`frame_with`]) leaves room for the header first and finds out its own
//! length afterwards. The layout is tungstenite's. Who receives a frame, and when, is not known here.

use smallvec::SmallVec;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::close::CloseCode;

/// The opcode of a text message.
pub const TEXT: OpCode = OpCode::Data(Data::Text);

/// The opcode of a binary message.
pub const BINARY: OpCode = OpCode::Data(Data::Binary);

/// The one ping everybody is sent: a frame without payload.
pub const PING: [u8; 2] = [0x89, 0];

/// A close frame without code and reason: the answer to one like it.
pub const CLOSE: [u8; 2] = [0x88, 0];

/// The longest payload of a control frame (RFC 6455, section 5.5).
pub const CONTROL_BYTES: usize = 125;

/// The longest reason beside a close code.
pub const CLOSE_REASON_BYTES: usize = CONTROL_BYTES - 2;

/// The longest header of a server frame.
pub const HEADER_BYTES: usize = 10;

/// The header of a final frame with `length` bytes of payload: 2, 4 or 10 bytes.
#[must_use]
pub fn header(opcode: OpCode, length: usize) -> SmallVec<[u8; HEADER_BYTES]> {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    let mut bytes = [0; HEADER_BYTES];
    let mut free = bytes.as_mut_slice();
    let written = header.format(length as u64, &mut free);
    assert!(written.is_ok(), "no server frame has a header of more than {HEADER_BYTES} bytes");
    let used = HEADER_BYTES - free.len();
    SmallVec::from_slice(&bytes[..used])
}

/// A frame of `opcode` with this payload.
///
/// # Panics
/// When a control frame would have more than [`CONTROL_BYTES`] of payload.
#[must_use]
pub fn frame(opcode: OpCode, payload: &[u8]) -> Vec<u8> {
    assert_sendable(opcode, payload.len());
    let header = header(opcode, payload.len());
    let mut frame = Vec::with_capacity(header.len() + payload.len());
    frame.extend_from_slice(&header);
    frame.extend_from_slice(payload);
    frame
}

/// A frame of `opcode` whose payload is what `write` appends to the vector it is given; it must leave
/// what stands there already. Exact `expected` bytes of payload are laid out without a move; any other
/// number costs at most one.
///
/// # Panics
/// When `write` shortens the vector, or writes more than [`CONTROL_BYTES`] into a control frame.
#[must_use]
pub fn frame_with(opcode: OpCode, expected: usize, write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let guess = header(opcode, expected);
    let mut frame = Vec::with_capacity(guess.len() + expected);
    frame.extend_from_slice(&guess);
    write(&mut frame);
    assert!(frame.len() >= guess.len(), "the header's room was taken away");
    let length = frame.len() - guess.len();
    assert_sendable(opcode, length);
    frame.splice(..guess.len(), header(opcode, length));
    frame
}

/// A text message; the payload must be UTF-8.
#[must_use]
pub fn text(payload: &[u8]) -> Vec<u8> {
    debug_assert!(std::str::from_utf8(payload).is_ok(), "a text message must be UTF-8");
    frame(TEXT, payload)
}

/// A binary message.
#[must_use]
pub fn binary(payload: &[u8]) -> Vec<u8> {
    frame(BINARY, payload)
}

/// A ping.
///
/// # Panics
/// When the payload has more than [`CONTROL_BYTES`].
#[must_use]
pub fn ping(payload: &[u8]) -> Vec<u8> {
    frame(OpCode::Control(Control::Ping), payload)
}

/// A pong; its payload is that of the ping it answers.
///
/// # Panics
/// When the payload has more than [`CONTROL_BYTES`].
#[must_use]
pub fn pong(payload: &[u8]) -> Vec<u8> {
    frame(OpCode::Control(Control::Pong), payload)
}

/// A close frame. A reason of more than [`CLOSE_REASON_BYTES`] is cut at the last character that fits.
#[must_use]
pub fn close(code: CloseCode, reason: &str) -> Vec<u8> {
    let reason = &reason[..reason.floor_char_boundary(CLOSE_REASON_BYTES)];
    let payload = [&code.get().to_be_bytes(), reason.as_bytes()].concat();
    frame(OpCode::Control(Control::Close), &payload)
}

fn assert_sendable(opcode: OpCode, length: usize) {
    let is_control = matches!(opcode, OpCode::Control(_));
    assert!(!is_control || length <= CONTROL_BYTES, "a control frame of {length} bytes");
}
