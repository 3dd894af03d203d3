//! RFC 6455, the server's side.
//!
//! | file | subject |
//! |---|---|
//! | `decode` | the decoder: what is whole in the input is lent from it, in place |
//! | `partial` | what the decoder holds while a frame or message is incomplete |
//! | `header` | frame headers, strictly |
//! | `text` | UTF-8, checked as it arrives |
//! | `input` | received bytes, handed out from the front |
//! | `mask` | unmasking by whole words |
//! | `close` | close codes and the payload of a close frame |
//! | `violation` | what a peer can do wrong, and the close code for it |
//! | `encode` | frames to send |
//! | `deflate` | messages in less space, both directions (RFC 7692) |
//! | `packed` | messages around a part that was compressed before them |
//!
//! Header layout, opcodes and the accept key come from tungstenite; it is lax on minimal lengths and
//! leaves most rules to its own state machine, so the rules of the RFC stand here. One extension exists; where
//! it was not negotiated, every reserved bit is a violation. When a close handshake has to end, and how long
//! a message may take, is the connection's business.

mod close;
mod decode;
mod deflate;
mod encode;
mod header;
mod input;
mod mask;
mod packed;
mod partial;
mod text;
mod violation;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod twin;

pub use close::CloseCode;
pub use decode::{DecodeLimits, Decoder, Item};
pub use deflate::{Deflator, Inflator, WINDOW_BITS, fits, payload};
pub use encode::{
    BINARY, CLOSE, CLOSE_REASON_BYTES, CONTROL_BYTES, HEADER_BYTES, PING, TEXT, binary, close,
    frame, frame_with, header, ping, pong, text,
};
pub use header::Kind;
pub use input::Input;
pub use mask::unmask;
pub use packed::frame_around;
pub use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
pub use violation::Violation;
