//! The packets of Socket.IO, protocol version 5, which travel in the messages of Engine.IO.
//!
//! A packet is a digit, then for packets with binary parts how many of those follow and a hyphen, then a
//! namespace and a comma where it is not `/`, then a number where an answer is wanted or given, and
//! then JSON. What it means stands in the first digit alone:
//!
//! | digit | packet | JSON |
//! |---|---|---|
//! | 0 | connect | from a client what it shows of itself, from a server the connection's id |
//! | 1 | disconnect | nothing |
//! | 2 | event | a list: its name and its arguments |
//! | 3 | acknowledgement | a list: the answer |
//! | 4 | refusal of a connect | an object with a message |
//! | 5, 6 | event and acknowledgement with binary parts | as 2 and 3, with places for the parts |
//!
//! The JSON is not parsed here but for the outermost list, whose parts are handed out as they were
//! written. Binary parts are not carried; a packet that announces some is read, so that whoever sent it can be told.

use std::fmt;

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;
use smallvec::SmallVec;

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A namespace is entered, or the server says that it was.
    Connect,
    /// A namespace is left, or the server sends away.
    Disconnect,
    /// Something said by name.
    Event,
    /// The answer to something that was said.
    Ack,
    /// A connect that is refused.
    ConnectError,
    /// An event with binary parts behind it.
    BinaryEvent,
    /// An answer with binary parts behind it.
    BinaryAck,
}

impl Kind {
    fn from_digit(digit: u8) -> Option<Self> {
        Some(match digit {
            b'0' => Self::Connect,
            b'1' => Self::Disconnect,
            b'2' => Self::Event,
            b'3' => Self::Ack,
            b'4' => Self::ConnectError,
            b'5' => Self::BinaryEvent,
            b'6' => Self::BinaryAck,
            _ => return None,
        })
    }

    fn digit(self) -> u8 {
        match self {
            Self::Connect => b'0',
            Self::Disconnect => b'1',
            Self::Event => b'2',
            Self::Ack => b'3',
            Self::ConnectError => b'4',
            Self::BinaryEvent => b'5',
            Self::BinaryAck => b'6',
        }
    }

    /// True when binary messages follow it.
    #[must_use]
    pub fn is_binary(self) -> bool {
        matches!(self, Self::BinaryEvent | Self::BinaryAck)
    }
}

/// The namespace of whoever names none.
pub const ROOT: &str = "/";

/// The largest number of an acknowledgement: what JavaScript counts exactly.
pub const MAX_ACK: u64 = (1 << 53) - 1;

/// Names of events that clients keep for themselves: they refuse to hear of them from a server.
pub const RESERVED: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

/// A packet as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// What it is.
    pub kind: Kind,
    /// Binary messages that follow it; none but where the kind is binary.
    pub attachments: u32,
    /// The namespace it is in, with the slash it begins with.
    pub namespace: &'a str,
    /// The number by which it is, or is to be, answered.
    pub ack: Option<u64>,
    /// The JSON as it was written; may be empty, and may be anything.
    pub data: &'a str,
}

impl<'a> Packet<'a> {
    /// Reads a packet from a message. Its JSON is not looked at.
    ///
    /// # Errors
    /// When what stands before the JSON cannot be understood.
    pub fn read(text: &'a str) -> Result<Self, Fault> {
        let Some(kind) = text.bytes().next().and_then(Kind::from_digit) else {
            return Err(Fault::Kind);
        };
        let mut rest = &text[1..];
        let mut attachments = 0;
        if kind.is_binary() {
            let (count, behind) = rest.split_once('-').ok_or(Fault::Attachments)?;
            let count = number(count).and_then(|count| u32::try_from(count).ok());
            attachments = count.ok_or(Fault::Attachments)?;
            rest = behind;
        }
        let mut namespace = ROOT;
        if rest.starts_with('/') {
            (namespace, rest) = rest.split_once(',').unwrap_or((rest, ""));
        }
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, data) = rest.split_at(digits);
        let ack = match digits {
            "" => None,
            digits => Some(number(digits).ok_or(Fault::Ack)?),
        };
        Ok(Self { kind, attachments, namespace, ack, data })
    }
}

fn number(digits: &str) -> Option<u64> {
    let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| digits.parse().ok()).flatten().filter(|number| *number <= MAX_ACK)
}

/// Appends a packet: all of it but binary parts, of which there are none.
///
/// # Panics
/// When the namespace would be read as something else.
pub fn write(out: &mut Vec<u8>, kind: Kind, namespace: &str, ack: Option<u64>, data: &[u8]) {
    head(out, kind, namespace, ack);
    out.extend_from_slice(data);
}

/// Appends what stands before the JSON of a packet.
///
/// # Panics
/// When the namespace would be read as something else, or the kind has binary parts.
pub fn head(out: &mut Vec<u8>, kind: Kind, namespace: &str, ack: Option<u64>) {
    assert!(!kind.is_binary(), "binary parts are not carried");
    assert!(namespace.starts_with('/') && !namespace.contains(','), "no namespace: {namespace:?}");
    out.push(kind.digit());
    if namespace != ROOT {
        out.extend_from_slice(namespace.as_bytes());
        out.push(b',');
    }
    if let Some(ack) = ack {
        out.extend_from_slice(ack.to_string().as_bytes());
    }
}

/// The parts of an event or an acknowledgement, as they were written.
pub type Parts<'a> = SmallVec<[&'a RawValue; 4]>;

/// Takes the list of an event or acknowledgement apart.
///
/// # Errors
/// When it is no JSON, no list, or a list of more than `most`.
pub fn parts(data: &str, most: usize) -> Result<Parts<'_>, Fault> {
    let mut reader = serde_json::Deserializer::from_str(data);
    let read = reader.deserialize_seq(List { most }).map_err(|error| match error.is_data() {
        // The only kinds of data that the list refuses are what is none and what is too long.
        true if data.trim_start().starts_with('[') => Fault::TooMany,
        true => Fault::NoList,
        false => Fault::NoJson,
    })?;
    reader.end().map_err(|_| Fault::NoJson)?;
    Ok(read)
}

struct List {
    most: usize,
}

impl<'de> Visitor<'de> for List {
    type Value = Parts<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {} parts", self.most)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut parts = Parts::new();
        while let Some(part) = list.next_element::<&RawValue>()? {
            if parts.len() == self.most {
                return Err(serde::de::Error::invalid_length(parts.len() + 1, &self));
            }
            parts.push(part);
        }
        Ok(parts)
    }
}

/// Why a message is no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It begins with no digit, or with one that says nothing.
    Kind,
    /// The count of binary parts is missing or no number.
    Attachments,
    /// The number of the acknowledgement is too large.
    Ack,
    /// What follows is not JSON.
    NoJson,
    /// What follows is no list.
    NoList,
    /// The list has too many parts.
    TooMany,
}

impl Fault {
    /// What is wrong, for whoever sent it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kind => "a Socket.IO packet begins with a digit from 0 to 6",
            Self::Attachments => "a binary Socket.IO packet says how many parts follow, as in 51-",
            Self::Ack => "the number of an acknowledgement is at most 9007199254740991",
            Self::NoJson => "the JSON of the Socket.IO packet is broken",
            Self::NoList => "an event or acknowledgement of Socket.IO is a JSON list",
            Self::TooMany => "the event has too many arguments",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A reader that goes through the text by characters with one state after the other, as the protocol
    /// describes it, and knows nothing of the one above: kind, count, namespace, number, rest.
    fn twin(text: &str) -> Option<(u32, u64, String, Option<u64>, String)> {
        let chars: Vec<char> = text.chars().collect();
        let mut at = 0;
        let kind = chars.first()?.to_digit(10).filter(|kind| *kind <= 6)?;
        at += 1;
        let mut count = 0_u64;
        if kind >= 5 {
            let mut seen = false;
            while *chars.get(at)? != '-' {
                let digit = chars[at].to_digit(10)?;
                count = count.checked_mul(10)?.checked_add(digit.into())?;
                seen = true;
                at += 1;
            }
            if !seen || count > u32::MAX.into() {
                return None;
            }
            at += 1;
        }
        let mut namespace = String::new();
        if chars.get(at) == Some(&'/') {
            while at < chars.len() && chars[at] != ',' {
                namespace.push(chars[at]);
                at += 1;
            }
            at += 1;
        } else {
            namespace.push('/');
        }
        let mut ack = None;
        while let Some(digit) = chars.get(at).and_then(|char| char.to_digit(10)) {
            let before: u64 = ack.unwrap_or(0);
            ack = Some(before.checked_mul(10)?.checked_add(digit.into())?);
            at += 1;
        }
        if ack.is_some_and(|ack| ack >= 1 << 53) {
            return None;
        }
        let rest = chars.get(at..).unwrap_or_default().iter().collect();
        Some((kind, count, namespace, ack, rest))
    }

    fn read(text: &str) -> Option<(u32, u64, String, Option<u64>, String)> {
        let packet = Packet::read(text).ok()?;
        let kind = u32::from(packet.kind.digit() - b'0');
        let (namespace, data) = (packet.namespace.to_owned(), packet.data.to_owned());
        Some((kind, packet.attachments.into(), namespace, packet.ack, data))
    }

    #[test]
    fn packets_as_clients_send_them_are_understood() {
        let packet = Packet::read(r#"0{"token":"abc"}"#).expect("a packet");
        assert_eq!(
            (packet.kind, packet.namespace, packet.data),
            (Kind::Connect, ROOT, r#"{"token":"abc"}"#)
        );
        let packet = Packet::read(r#"2/admin,456["project:delete",123]"#).expect("a packet");
        assert_eq!((packet.kind, packet.namespace, packet.ack), (Kind::Event, "/admin", Some(456)));
        let named = parts(packet.data, 8).expect("a list");
        assert_eq!(
            named.iter().map(|part| part.get()).collect::<Vec<_>>(),
            [r#""project:delete""#, "123"]
        );
        let packet = Packet::read("1/admin").expect("a packet");
        assert_eq!((packet.kind, packet.namespace, packet.data), (Kind::Disconnect, "/admin", ""));
        let packet =
            Packet::read(r#"51-["hello",{"_placeholder":true,"num":0}]"#).expect("a packet");
        assert_eq!((packet.kind, packet.attachments), (Kind::BinaryEvent, 1));
    }

    #[test]
    fn what_is_no_packet_is_told_with_what_was_expected() {
        for (text, fault) in [
            ("", Fault::Kind),
            ("7", Fault::Kind),
            ("hello", Fault::Kind),
            (r#"5["x"]"#, Fault::Attachments),
            ("5-[]", Fault::Attachments),
            ("54294967296-[]", Fault::Attachments),
            ("29007199254740992[]", Fault::Ack),
            ("299999999999999999999999[]", Fault::Ack),
        ] {
            assert_eq!(Packet::read(text), Err(fault), "{text}");
            assert!(!fault.to_string().is_empty());
        }
        assert_eq!(Packet::read("29007199254740991[]").expect("exact").ack, Some(MAX_ACK));
    }

    #[test]
    fn only_a_list_of_bounded_length_has_parts() {
        for (data, fault) in [
            ("", Fault::NoJson),
            ("[", Fault::NoJson),
            (r#"["a",]"#, Fault::NoJson),
            (r#"["a"]x"#, Fault::NoJson),
            (r#"{"a":1}"#, Fault::NoList),
            ("\"a\"", Fault::NoList),
            ("[1,2,3,4,5]", Fault::TooMany),
        ] {
            assert_eq!(parts(data, 4).err(), Some(fault), "{data}");
        }
        assert_eq!(parts("[]", 4).expect("a list").len(), 0);
    }

    #[test]
    #[should_panic(expected = "no namespace")]
    fn a_namespace_cannot_smuggle_in_another_packet() {
        write(&mut Vec::new(), Kind::Event, "/a,1", None, b"[]");
    }

    fn part() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(serde_json::Value::from),
            any::<i64>().prop_map(serde_json::Value::from),
            ".{0,12}".prop_map(serde_json::Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
                prop::collection::hash_map(".{0,4}", inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_text_is_read_as_its_twin_reads_it(
            text in r#"[0-7]?([0-9]{0,11}-)?(/[a-z,?]{0,6})?,?[0-9]{0,18}[\[\]"a-z{}:\u{e9} ]{0,10}"#,
        ) {
            prop_assert_eq!(read(&text), twin(&text), "{}", text);
        }

        #[test]
        fn what_is_written_is_read(
            kind in 0_u8..5,
            namespace in "/[a-z0-9]{0,8}",
            ack in prop::option::of(0..=MAX_ACK),
            list in prop::collection::vec(part(), 0..6),
        ) {
            let kind = Kind::from_digit(b'0' + kind).expect("a kind");
            let data = serde_json::to_string(&list).expect("JSON");
            let mut out = Vec::new();
            write(&mut out, kind, &namespace, ack, data.as_bytes());
            let text = String::from_utf8(out).expect("text");
            let packet = Packet::read(&text).expect("a packet");
            prop_assert_eq!(packet, Packet { kind, attachments: 0, namespace: &namespace, ack, data: &data });
            let parts = parts(packet.data, 6).expect("a list");
            let parts: Vec<serde_json::Value> =
                parts.iter().map(|part| serde_json::from_str(part.get()).expect("JSON")).collect();
            prop_assert_eq!(parts, list);
        }

        #[test]
        fn taking_a_list_apart_agrees_with_a_whole_parser(data in r#"[\[\]{}",:0-9a-z \\]{0,16}"#) {
            let whole: Result<serde_json::Value, _> = serde_json::from_str(&data);
            match parts(&data, 64) {
                Ok(parts) => {
                    let list = whole.expect("JSON");
                    prop_assert_eq!(list.as_array().map(Vec::len), Some(parts.len()));
                }
                Err(Fault::NoList) => prop_assert!(!data.trim_start().starts_with('[')),
                Err(fault) => {
                    prop_assert_eq!(fault, Fault::NoJson);
                    prop_assert!(whole.is_err(), "{} is JSON", data);
                }
            }
        }
    }
}
