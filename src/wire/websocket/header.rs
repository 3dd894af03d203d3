//! Frame headers, strictly (RFC 6455, section 5.2).
//!
//! A header is checked as far as it has arrived: the first byte alone can already be a violation, and
//! then nothing is waited for. tungstenite reads the fields; the rules it leaves out (reserved bits,
//! minimal lengths, masking, control frames, the order of fragments) stand here, in one order, so that
//! the verdict on a stream does not depend on how it was cut into pieces. Limits are not known here.

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::deflate::RSV1;
use super::encode::CONTROL_BYTES;
use super::violation::Violation;

/// What a compressed message is when it is no longer compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It must be UTF-8.
    Text,
    /// It may be anything.
    Binary,
}

/// What a frame is, reserved opcodes excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Text,
    Binary,
    /// The first frame of a compressed message.
    Deflated(Kind),
    Continuation,
    Close,
    Ping,
    Pong,
}

impl Role {
    pub(super) fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

impl TryFrom<OpCode> for Role {
    type Error = Violation;

    fn try_from(opcode: OpCode) -> Result<Self, Violation> {
        match opcode {
            OpCode::Data(Data::Text) => Ok(Self::Text),
            OpCode::Data(Data::Binary) => Ok(Self::Binary),
            OpCode::Data(Data::Continue) => Ok(Self::Continuation),
            OpCode::Control(Control::Close) => Ok(Self::Close),
            OpCode::Control(Control::Ping) => Ok(Self::Ping),
            OpCode::Control(Control::Pong) => Ok(Self::Pong),
            OpCode::Data(Data::Reserved(_)) | OpCode::Control(Control::Reserved(_)) => {
                Err(Violation::ReservedOpcode)
            }
        }
    }
}

/// A client's frame header that broke no rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) role: Role,
    pub(super) is_final: bool,
    pub(super) mask: [u8; 4],
    /// Declared bytes of payload; below 2^63, and at most 125 for a control frame.
    pub(super) length: u64,
    /// Bytes of the header itself, 6 to 14.
    pub(super) size: usize,
}

/// Reads the header at the start of `bytes`; `None` when it is incomplete and what is there is in order.
/// `is_open` tells whether a fragmented message waits for its continuation, and `may_deflate` whether a message
/// may be compressed.
pub(super) fn read(
    bytes: &[u8],
    is_open: bool,
    may_deflate: bool,
) -> Result<Option<Header>, Violation> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    let role = check_first(first, is_open, may_deflate)?;
    let Some(&second) = bytes.get(1) else { return Ok(None) };
    check_second(second, role)?;
    // Reading from a slice cannot fail, so the only error left is an opcode refused above.
    let parsed = FrameHeader::parse(&mut Cursor::new(bytes));
    let Some((header, length)) = parsed.map_err(|_| Violation::ReservedOpcode)? else {
        return Ok(None);
    };
    check_length(second, length)?;
    let mask = header.mask.ok_or(Violation::Unmasked)?;
    let size = wanted(bytes);
    Ok(Some(Header { role, is_final: header.is_final, mask, length, size }))
}

/// Bytes the header at the start of `bytes` will have; 2 while its second byte is missing.
pub(super) fn wanted(bytes: &[u8]) -> usize {
    let extended = match bytes.get(1).map(|second| second & LENGTH_BITS) {
        None => return 2,
        Some(LENGTH_IN_2) => 2,
        Some(LENGTH_IN_8) => 8,
        Some(_) => 0,
    };
    2 + extended + 4
}

fn check_first(first: u8, is_open: bool, may_deflate: bool) -> Result<Role, Violation> {
    let role = Role::try_from(OpCode::from(first & OPCODE_BITS));
    let role = match (first & RESERVED_BITS, role) {
        (0, role) => role?,
        (RSV1, Ok(Role::Text)) if may_deflate => Role::Deflated(Kind::Text),
        (RSV1, Ok(Role::Binary)) if may_deflate => Role::Deflated(Kind::Binary),
        _ => return Err(Violation::ReservedBits),
    };
    match role {
        Role::Close | Role::Ping | Role::Pong if first & FINAL_BIT == 0 => {
            Err(Violation::FragmentedControl)
        }
        Role::Continuation if !is_open => Err(Violation::NothingToContinue),
        Role::Text | Role::Binary | Role::Deflated(_) if is_open => {
            Err(Violation::MessageInsideMessage)
        }
        _ => Ok(role),
    }
}

fn check_second(second: u8, role: Role) -> Result<(), Violation> {
    if second & MASK_BIT == 0 {
        return Err(Violation::Unmasked);
    }
    if role.is_control() && usize::from(second & LENGTH_BITS) > CONTROL_BYTES {
        return Err(Violation::ControlTooLong);
    }
    Ok(())
}

fn check_length(second: u8, length: u64) -> Result<(), Violation> {
    let least = match second & LENGTH_BITS {
        LENGTH_IN_2 => 126,
        LENGTH_IN_8 => 1 << 16,
        _ => 0,
    };
    if length < least {
        return Err(Violation::LengthNotMinimal);
    }
    if length >> 63 != 0 {
        return Err(Violation::LengthTooLarge);
    }
    Ok(())
}

// The layout of RFC 6455, section 5.2.
const FINAL_BIT: u8 = 0x80;
const RESERVED_BITS: u8 = 0x70;
const OPCODE_BITS: u8 = 0x0f;
const MASK_BIT: u8 = 0x80;
const LENGTH_BITS: u8 = 0x7f;
const LENGTH_IN_2: u8 = 126;
const LENGTH_IN_8: u8 = 127;
