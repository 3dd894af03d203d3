//! Floor 1: bytes to protocol and back.
//!
//! Slices in, slices or vectors out, in both directions: request heads and responses in [`http`],
//! RFC 6455 frames in [`websocket`], event streams in [`sse`], the packets of Socket.IO in [`socketio`] and those of
//! its transport in [`engineio`], what programs pack in [`msgpack`], below all of them, where it is wanted, TLS in [`tls`], and ahead of all what a proxy
//! says in [`proxy`]. What arrives is a stranger's, so every function here is total: any bytes in any pieces give a
//! value, a refusal or a violation, never a panic. Limits are arguments.
//!
//! Nothing here knows a socket, a clock, a connection, a room, or what a path means. Time limits on a
//! slow head or a slow message are the caller's; [`websocket::Decoder::is_mid_message`] and a `None`
//! from [`http::parse`] tell it when one is running.

pub mod engineio;
pub mod http;
pub mod msgpack;
pub mod proxy;
pub mod socketio;
pub mod sse;
pub mod tls;
pub mod websocket;
