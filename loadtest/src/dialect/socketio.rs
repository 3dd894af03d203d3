//! Socket.IO 4 over Engine.IO 4, WebSocket transport only, default namespace, no acknowledgements.
//!
//! Packets are `0{...}` open, `2` and `3` the heartbeat, `40` connect, `42[...]` an event. The peer application
//! knows the events `join`, `joined`, `publish`, `echo` and `m`, a delivery.

use std::borrow::Cow;

use serde_json::Value;

use super::{Push, literal, quote, string};

/// The path of every connection.
pub(super) const PATH: &str = "/socket.io/?EIO=4&transport=websocket";

/// Replies name no reference; a client of this dialect joins one room.
const REFERENCE: u64 = 0;

pub(super) fn join(room: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"42["join","#);
    quote(room, out);
    out.push(b']');
}

pub(super) fn publish(room: &str, payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(br#"42["publish","#);
    quote(room, out);
    out.extend_from_slice(br#",""#);
    out.extend_from_slice(payload);
    out.extend_from_slice(br#""]"#);
}

pub(super) fn echo(payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(br#"42["echo",""#);
    out.extend_from_slice(payload);
    out.extend_from_slice(br#""]"#);
}

pub(super) fn parse(text: &[u8]) -> Result<Push<'_>, String> {
    if let Some(push) = delivery(text) {
        return Ok(push);
    }
    match text {
        [b'0', ..] => Ok(Push::Opened),
        b"2" => Ok(Push::HeartbeatPing),
        [b'4', b'0', ..] => Ok(Push::Connected),
        [b'4', b'2', event @ ..] => parsed(event),
        [b'4', b'4', why @ ..] => Ok(Push::Error(String::from_utf8_lossy(why).into_owned())),
        _ => Ok(Push::Ignored),
    }
}

/// A delivery or an echo in the shape in which the server writes it.
fn delivery(text: &[u8]) -> Option<Push<'_>> {
    let ends = |rest: &[u8]| (rest == b"]").then_some(());
    if let Some(rest) = literal(text, br#"42["m",""#) {
        let (room, rest) = string(rest)?;
        let (payload, rest) = string(literal(rest, br#",""#)?)?;
        ends(rest)?;
        let (room, payload) = (Cow::Borrowed(room), Cow::Borrowed(payload));
        return Some(Push::Publication { room, offset: None, payload });
    }
    let (payload, rest) = string(literal(text, br#"42["echo",""#)?)?;
    ends(rest)?;
    Some(Push::Echo { payload: Cow::Borrowed(payload) })
}

fn parsed(event: &[u8]) -> Result<Push<'_>, String> {
    let event: Value = serde_json::from_slice(event)
        .map_err(|error| format!("the server's event is no JSON: {error}"))?;
    let owned = |at: usize| {
        let text = event[at].as_str().unwrap_or_default();
        Cow::Owned(text.as_bytes().to_vec())
    };
    Ok(match event[0].as_str() {
        Some("joined") => Push::Reply {
            reference: REFERENCE,
            ok: true,
            offset: None,
            epoch: None,
            recovered: None,
        },
        Some("m") => Push::Publication { room: owned(1), offset: None, payload: owned(2) },
        Some("echo") => Push::Echo { payload: owned(1) },
        _ => Push::Ignored,
    })
}
