//! The packets of Engine.IO, version 4, the transport under Socket.IO.
//!
//! A packet is one digit that says what it is and, behind it, what it says. Over WebSocket each is a text
//! message; a binary message is one of the application's without a digit. Over long polling several
//! stand in one body with U+001E between them, and a binary one is the letter `b` and base64. Nothing is
//! copied here: a packet refers to the text it was read from.
//!
//! The first packet of a server says who the client is to be on this transport, how often it is pinged
//! and how large its messages may be. A client that hears no ping for the sum of both times takes the
//! connection for dead, whatever else it hears. What a session is, and when a ping is due, is known elsewhere.

use std::fmt;
use std::time::Duration;

/// What stands between the packets of one body of long polling.
pub const SEPARATOR: u8 = 0x1e;

/// The server's question whether the client is there.
pub const PING: &[u8] = b"2";

/// What a message begins with.
pub const MESSAGE: &[u8] = b"4";

/// Ends a transport on purpose.
pub const CLOSE: &[u8] = b"1";

/// Says nothing; it ends a request that waits.
pub const NOOP: &[u8] = b"6";

/// What a client says to find out whether a second transport carries, and what it is answered.
pub const PROBE: &str = "probe";

/// A packet as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// A transport begins; only servers say so.
    Open(&'a str),
    /// The transport ends on purpose.
    Close,
    /// Whether the other end is there, or whether this transport carries.
    Ping(&'a str),
    /// The answer, with what the question said.
    Pong(&'a str),
    /// A message of the protocol above.
    Message(&'a str),
    /// From now on this transport is the session's.
    Upgrade,
    /// Nothing.
    Noop,
}

impl<'a> Packet<'a> {
    /// Reads a packet from a text message or a part of a body.
    ///
    /// # Errors
    /// When it is empty, or of a kind that there is not.
    pub fn read(text: &'a str) -> Result<Self, Malformed> {
        let mut rest = text.chars();
        let Some(kind) = rest.next() else { return Err(Malformed::Empty) };
        let rest = rest.as_str();
        Ok(match kind {
            '0' => Self::Open(rest),
            '1' => Self::Close,
            '2' => Self::Ping(rest),
            '3' => Self::Pong(rest),
            '4' => Self::Message(rest),
            '5' => Self::Upgrade,
            '6' => Self::Noop,
            other => return Err(Malformed::Kind(other)),
        })
    }
}

/// Why a text is no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// There is nothing.
    Empty,
    /// The first character says a kind that there is not.
    Kind(char),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("an empty Engine.IO packet"),
            Self::Kind(kind) => {
                write!(f, "an Engine.IO packet begins with a digit from 0 to 6, not with {kind:?}")
            }
        }
    }
}

/// What the first packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening<'a> {
    /// The transport's session; letters, digits, `-` and `_`.
    pub sid: &'a str,
    /// True when a session that polls may go on by WebSocket.
    pub upgrades: bool,
    /// Between two pings.
    pub ping_interval: Duration,
    /// How long the answer to one may take.
    pub ping_timeout: Duration,
    /// Bytes of the largest message.
    pub max_payload: u64,
}

impl Opening<'_> {
    /// Appends the packet.
    ///
    /// # Panics
    /// When `sid` has a character that would need to be escaped.
    pub fn write(&self, out: &mut Vec<u8>) {
        let Self { sid, .. } = self;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        assert!(sid.bytes().all(plain), "a session id stands in URLs as it is");
        let upgrades = if self.upgrades { r#""websocket""# } else { "" };
        let text = format!(
            r#"0{{"sid":"{sid}","upgrades":[{upgrades}],"pingInterval":{},"pingTimeout":{},"maxPayload":{}}}"#,
            self.ping_interval.as_millis(),
            self.ping_timeout.as_millis(),
            self.max_payload,
        );
        out.extend_from_slice(text.as_bytes());
    }
}

/// The packets of a body of long polling, in order, as texts to be read one by one.
pub fn packets(body: &str) -> impl Iterator<Item = &str> {
    body.split(char::from(SEPARATOR))
}

/// Appends a packet to a body of long polling.
pub fn append(body: &mut Vec<u8>, packet: &[u8]) {
    if !body.is_empty() {
        body.push(SEPARATOR);
    }
    body.extend_from_slice(packet);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a packet is, written down a second time: as the text that it must be.
    fn written(packet: &Packet<'_>) -> String {
        let (kind, says) = match packet {
            Packet::Open(says) => (0, *says),
            Packet::Close => (1, ""),
            Packet::Ping(says) => (2, *says),
            Packet::Pong(says) => (3, *says),
            Packet::Message(says) => (4, *says),
            Packet::Upgrade => (5, ""),
            Packet::Noop => (6, ""),
        };
        format!("{kind}{says}")
    }

    fn packet(kind: u8, says: &str) -> Packet<'_> {
        match kind {
            0 => Packet::Open(says),
            1 => Packet::Close,
            2 => Packet::Ping(says),
            3 => Packet::Pong(says),
            4 => Packet::Message(says),
            5 => Packet::Upgrade,
            _ => Packet::Noop,
        }
    }

    #[test]
    fn a_packet_is_a_digit_and_what_it_says() {
        assert_eq!(Packet::read("4hello"), Ok(Packet::Message("hello")));
        assert_eq!(Packet::read("2probe"), Ok(Packet::Ping(PROBE)));
        assert_eq!(Packet::read("3"), Ok(Packet::Pong("")));
        assert_eq!(Packet::read(""), Err(Malformed::Empty));
        assert_eq!(Packet::read("7"), Err(Malformed::Kind('7')));
        assert_eq!(Packet::read("é4"), Err(Malformed::Kind('é')));
        for (constant, kind) in [
            (PING, Packet::Ping("")),
            (MESSAGE, Packet::Message("")),
            (CLOSE, Packet::Close),
            (NOOP, Packet::Noop),
        ] {
            assert_eq!(Packet::read(str::from_utf8(constant).expect("text")), Ok(kind));
        }
    }

    #[test]
    fn the_first_packet_says_what_a_client_has_to_know() {
        let mut opening = Opening {
            sid: "1-2a-7",
            upgrades: false,
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_millis(20_000),
            max_payload: 65_536,
        };
        let text = |opening: &Opening<'_>| {
            let mut out = Vec::new();
            opening.write(&mut out);
            String::from_utf8(out).expect("text")
        };
        assert_eq!(
            text(&opening),
            r#"0{"sid":"1-2a-7","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":65536}"#
        );
        opening.upgrades = true;
        let said = text(&opening);
        let Ok(Packet::Open(json)) = Packet::read(&said) else { panic!("{said} is no opening") };
        let read: serde_json::Value = serde_json::from_str(json).expect("JSON");
        assert_eq!(read["upgrades"], serde_json::json!(["websocket"]));
    }

    #[test]
    #[should_panic(expected = "stands in URLs")]
    fn a_session_id_cannot_smuggle_in_another_field() {
        let opening = Opening {
            sid: "1\",\"upgrades\":[\"x",
            upgrades: false,
            ping_interval: Duration::ZERO,
            ping_timeout: Duration::ZERO,
            max_payload: 0,
        };
        opening.write(&mut Vec::new());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(kind in 0_u8..7, says in ".{0,40}") {
            let packet = packet(kind, &says);
            let text = written(&packet);
            prop_assert_eq!(Packet::read(&text), Ok(packet));
        }

        #[test]
        fn any_text_is_a_packet_or_none(text in ".{0,12}") {
            let known = text.chars().next().is_some_and(|first| ('0'..='6').contains(&first));
            prop_assert_eq!(Packet::read(&text).is_ok(), known);
        }

        #[test]
        fn a_body_holds_its_packets_in_order(
            sent in prop::collection::vec("[1-6][^\u{1e}]{0,12}", 1..8),
        ) {
            let mut body = Vec::new();
            for packet in &sent {
                append(&mut body, packet.as_bytes());
            }
            let body = String::from_utf8(body).expect("text");
            prop_assert_eq!(packets(&body).collect::<Vec<_>>(), sent);
        }
    }
}
