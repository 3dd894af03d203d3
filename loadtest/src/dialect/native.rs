//! The engine's own protocol, `throng.v1.json`.

use std::borrow::Cow;

use serde_json::Value;

use super::{Push, literal, number, quote, string};

/// The type of our publications.
const TYPE: &str = "load";

/// The reference of the joins that an event stream's request asks for.
const LISTENING: &str = "join";

pub(super) fn join(room: &str, reference: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"type":"throng:join","room":"#);
    quote(room, out);
    out.extend_from_slice(br#","ref":"#);
    number(reference, out);
    out.push(b'}');
}

pub(super) fn rejoin(room: &str, reference: u64, (epoch, offset): (&str, u64), out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"type":"throng:join","room":"#);
    quote(room, out);
    out.extend_from_slice(br#","since":{"epoch":"#);
    quote(epoch, out);
    out.extend_from_slice(br#","offset":"#);
    number(offset, out);
    out.extend_from_slice(br#"},"ref":"#);
    number(reference, out);
    out.push(b'}');
}

pub(super) fn publish(room: &str, payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"type":"load","room":"#);
    quote(room, out);
    out.extend_from_slice(br#","payload":""#);
    out.extend_from_slice(payload);
    out.extend_from_slice(br#""}"#);
}

pub(super) fn ping(reference: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"type":"throng:ping","ref":"#);
    number(reference, out);
    out.push(b'}');
}

pub(super) fn parse(text: &[u8]) -> Result<Push<'_>, String> {
    match publication(text) {
        Some(push) => Ok(push),
        None => parsed(text),
    }
}

/// A publication in the order of fields in which the engine writes it.
fn publication(text: &[u8]) -> Option<Push<'_>> {
    let rest = literal(text, br#"{"type":"load","room":""#)?;
    let (room, rest) = string(rest)?;
    let rest = literal(rest, br#","offset":"#)?;
    let (offset, rest) = digits(rest)?;
    let rest = literal(rest, br#","payload":""#)?;
    let (payload, rest) = string(rest)?;
    // What follows is the author, or nothing; a whole message ends in a brace.
    if rest != b"}" {
        let (_, rest) = string(literal(rest, br#","from":""#)?)?;
        literal(rest, b"}").filter(|rest| rest.is_empty())?;
    }
    let (room, payload) = (Cow::Borrowed(room), Cow::Borrowed(payload));
    Some(Push::Publication { room, offset: Some(offset), payload })
}

/// A number without sign, fraction or leading zero, of at most 18 digits.
fn digits(text: &[u8]) -> Option<(u64, &[u8])> {
    let end = text.iter().position(|byte| !byte.is_ascii_digit())?;
    if end == 0 || end > 18 || (text[0] == b'0' && end > 1) {
        return None;
    }
    let value = text[..end].iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0'));
    Some((value, &text[end..]))
}

/// Any message, by the parser.
fn parsed(text: &[u8]) -> Result<Push<'_>, String> {
    let shown = || String::from_utf8_lossy(&text[..text.len().min(200)]).into_owned();
    let message: Value = serde_json::from_slice(text)
        .map_err(|error| format!("the server's message is no JSON: {error} in {}", shown()))?;
    let number = |key: &str| message[key].as_u64();
    let owned = |key: &str| {
        let text = message[key].as_str().unwrap_or_default();
        Cow::Owned(text.as_bytes().to_vec())
    };
    Ok(match message["type"].as_str() {
        Some(TYPE) => Push::Publication {
            room: owned("room"),
            offset: number("offset"),
            payload: owned("payload"),
        },
        Some("throng:connected") if message["clientId"].is_string() => Push::Connected,
        Some("throng:reply") if message["ref"] == LISTENING && message["ok"] == true => {
            Push::Listening {
                offset: number("offset"),
                epoch: message["epoch"].as_str().map(str::to_owned),
                recovered: message["recovered"].as_bool(),
            }
        }
        Some("throng:close") => {
            Push::Closing(number("code").and_then(|code| u16::try_from(code).ok()).unwrap_or(0))
        }
        Some("throng:reply") => Push::Reply {
            reference: number("ref").ok_or_else(|| format!("a reply to nothing: {}", shown()))?,
            ok: message["ok"] == true,
            offset: number("offset"),
            epoch: message["epoch"].as_str().map(str::to_owned),
            recovered: message["recovered"].as_bool(),
        },
        Some("throng:resync") => {
            let reason = message["reason"].as_str().unwrap_or("no reason");
            Push::Error(format!("begin anew: {reason}"))
        }
        Some("throng:gap") => Push::Gap { room: owned("room"), lost: number("lost").unwrap_or(0) },
        Some("throng:pong") => Push::Pong { reference: number("ref").unwrap_or(0) },
        Some("throng:error") => {
            let code = message["code"].as_str().unwrap_or("no code");
            Push::Error(code.to_owned())
        }
        Some("throng:reload") => Push::Reload,
        Some(_) => Push::Ignored,
        None => return Err(format!("the server's message has no type: {}", shown())),
    })
}
