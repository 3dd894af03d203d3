//! The decoder's naive twin: the rules of RFC 6455 over a whole stream, written as they are read.
//!
//! It sees all bytes at once, copies everything and checks all text again after every frame. What it
//! says is what the decoder has to say for any cutting of the same stream. It shares no code with it,
//! not even the header parser.

use super::{CloseCode, DecodeLimits, Decoder, Input, Item, Kind, Violation};

/// An item that owns its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owned {
    Text(String),
    Binary(Vec<u8>),
    Deflated(bool, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

impl From<Item<'_>> for Owned {
    fn from(item: Item<'_>) -> Self {
        match item {
            Item::Text(text) => Self::Text(text.to_owned()),
            Item::Binary(bytes) => Self::Binary(bytes.to_vec()),
            Item::Deflated(kind, bytes) => Self::Deflated(kind == Kind::Text, bytes.to_vec()),
            Item::Ping(bytes) => Self::Ping(bytes.to_vec()),
            Item::Pong(bytes) => Self::Pong(bytes.to_vec()),
            Item::Close(close) => Self::Close(close.map(|(c, r)| (c.get(), r.to_owned()))),
        }
    }
}

/// All items of a stream, and the violation that ended it, if one did.
pub(super) type Outcome = (Vec<Owned>, Option<Violation>);

/// What the decoder makes of `stream` cut into pieces of the given sizes, over and over. Its invariants
/// and the bound on its memory are held after every call.
pub(super) fn decoded(stream: &[u8], cuts: &[usize], limits: &DecodeLimits) -> Outcome {
    let mut decoder = Decoder::default();
    let (mut items, mut violation) = (Vec::new(), None);
    let mut stream = stream.to_vec();
    let (mut rest, mut cuts) = (stream.as_mut_slice(), cuts.iter().cycle());
    let mut fed = 0;
    while !rest.is_empty() {
        let cut = cuts.next().map_or(rest.len(), |cut| rest.len().min(*cut));
        let (piece, after) = rest.split_at_mut(cut);
        rest = after;
        fed += cut;
        let mut input = Input::new(piece);
        loop {
            match decoder.decode(&mut input, limits) {
                Ok(Some(item)) => items.push(Owned::from(item)),
                Ok(None) => break,
                Err(found) => assert_eq!(violation.replace(found), None, "a second violation"),
            }
            decoder.check();
            assert!(decoder.buffered_capacity() <= 2 * fed + 512, "memory before bytes");
        }
        assert!(input.is_empty(), "input was left behind");
        decoder.check();
    }
    (items, violation)
}

/// What the rules make of the whole `stream`.
pub(super) fn naive(stream: &[u8], limits: &DecodeLimits) -> Outcome {
    let mut items = Vec::new();
    let mut open: Option<((u8, bool), Vec<u8>, u32)> = None;
    let mut rest = stream;
    let violation = loop {
        let (header, payload) = match frame(rest, open.is_some(), limits.deflated) {
            Ok(Some(frame)) => frame,
            Ok(None) => break None,
            Err(violation) => break Some(violation),
        };
        let is_whole = payload.len() as u64 == header.length;
        let plain: Vec<u8> =
            payload.iter().enumerate().map(|(at, byte)| byte ^ header.mask[at % 4]).collect();
        rest = &rest[header.size + payload.len()..];
        if header.opcode >= 8 {
            if !is_whole {
                break None;
            }
            match control(header.opcode, &plain) {
                Ok(item) => items.push(item),
                Err(violation) => break Some(violation),
            }
            if header.opcode == 8 {
                break None;
            }
            continue;
        }
        let kind = (header.opcode, header.is_deflated);
        let (kind, mut body, fragments) = open.take().unwrap_or((kind, Vec::new(), 0));
        if fragments >= limits.fragments {
            break Some(Violation::TooManyFragments);
        }
        let most = limits.message_bytes as u128;
        let most = if kind.1 { most + most / 256 + 64 } else { most };
        if body.len() as u128 + u128::from(header.length) > most {
            break Some(Violation::MessageTooBig);
        }
        body.extend(plain);
        let is_complete = is_whole && header.is_final;
        if kind == (1, false) && !text_is_in_order(&body, is_complete) {
            break Some(Violation::TextNotUtf8);
        }
        if !is_whole {
            break None;
        }
        if is_complete {
            items.push(match kind {
                (1, false) => Owned::Text(String::from_utf8(body).expect("checked above")),
                (opcode, true) => Owned::Deflated(opcode == 1, body),
                _ => Owned::Binary(body),
            });
        } else {
            open = Some((kind, body, fragments + 1));
        }
    };
    (items, violation)
}

struct Head {
    opcode: u8,
    is_deflated: bool,
    is_final: bool,
    mask: [u8; 4],
    length: u64,
    size: usize,
}

/// The header at the start of `bytes` and as much of its payload as there is.
fn frame(
    bytes: &[u8],
    is_open: bool,
    may_deflate: bool,
) -> Result<Option<(Head, &[u8])>, Violation> {
    let Some(first) = bytes.first() else { return Ok(None) };
    let (is_final, opcode) = (first >> 7 == 1, first & 15);
    let is_deflated = may_deflate && first & 0x70 == 0x40 && matches!(opcode, 1 | 2);
    match (if is_deflated { 0 } else { first >> 4 & 7 }, opcode) {
        (1.., _) => return Err(Violation::ReservedBits),
        (0, 3..=7 | 11..) => return Err(Violation::ReservedOpcode),
        (0, 8..=10) if !is_final => return Err(Violation::FragmentedControl),
        (0, 0) if !is_open => return Err(Violation::NothingToContinue),
        (0, 1 | 2) if is_open => return Err(Violation::MessageInsideMessage),
        _ => {}
    }
    let Some(second) = bytes.get(1) else { return Ok(None) };
    if *second < 128 {
        return Err(Violation::Unmasked);
    }
    let short = second - 128;
    if opcode >= 8 && short > 125 {
        return Err(Violation::ControlTooLong);
    }
    let wide = match short {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let size = 2 + wide + 4;
    if bytes.len() < size {
        return Ok(None);
    }
    let mut length = u64::from(short);
    if wide > 0 {
        length = bytes[2..2 + wide].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let needed = if length < 126 {
            0
        } else if length < 65_536 {
            2
        } else {
            8
        };
        if wide != needed {
            return Err(Violation::LengthNotMinimal);
        }
    }
    if length >= 1 << 63 {
        return Err(Violation::LengthTooLarge);
    }
    let mask = bytes[size - 4..size].try_into().expect("four bytes");
    let there = usize::try_from(length).unwrap_or(usize::MAX).min(bytes.len() - size);
    Ok(Some((
        Head { opcode, is_deflated, is_final, mask, length, size },
        &bytes[size..size + there],
    )))
}

fn control(opcode: u8, payload: &[u8]) -> Result<Owned, Violation> {
    match opcode {
        9 => return Ok(Owned::Ping(payload.to_vec())),
        10 => return Ok(Owned::Pong(payload.to_vec())),
        _ => {}
    }
    if payload.is_empty() {
        return Ok(Owned::Close(None));
    }
    if payload.len() == 1 {
        return Err(Violation::CloseTooShort);
    }
    let code = u16::from(payload[0]) << 8 | u16::from(payload[1]);
    if CloseCode::new(code).is_none() {
        return Err(Violation::CloseCodeForbidden);
    }
    match String::from_utf8(payload[2..].to_vec()) {
        Ok(reason) => Ok(Owned::Close(Some((code, reason)))),
        Err(_) => Err(Violation::CloseReasonNotUtf8),
    }
}

fn text_is_in_order(bytes: &[u8], is_complete: bool) -> bool {
    match std::str::from_utf8(bytes) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none() && !is_complete,
    }
}
