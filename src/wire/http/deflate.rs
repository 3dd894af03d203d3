//! What a client offers of permessage-deflate, and what it is answered (RFC 7692, section 7.1).
//!
//! Offers are tried in the order in which they stand; one with a parameter that does not exist, stands twice or
//! has a value it may not have is passed over, as section 7.1 asks, and with it nothing but itself. Whoever has none
//! that can be kept is served without compression. Both sides are always told to begin each message anew: then
//! one compressor serves all connections of a shard. What a window of the client's own is does not matter here,
//! because the largest is read; the server's is as the client wants it.

use smallvec::SmallVec;

use super::upgrade::Upgrade;
use crate::wire::websocket::WINDOW_BITS;

/// An offer that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deflate {
    /// The size of the window that the client wants of the server, as a power of two: 8 to 15.
    window: Option<u8>,
}

impl Deflate {
    /// The first of the client's offers that can be kept.
    #[must_use]
    pub fn of(upgrade: &Upgrade<'_>) -> Option<Self> {
        let offers = upgrade.extensions.iter().flat_map(|line| line.split(','));
        offers.filter_map(read).next()
    }

    /// The power of two of the window that the client has for what it is sent: 8 to 15.
    #[must_use]
    pub fn window_bits(self) -> u8 {
        self.window.unwrap_or(WINDOW_BITS)
    }

    /// What the server says of it in its handshake.
    pub(super) fn answer(self, response: &mut Vec<u8>) {
        response.extend_from_slice(
            b"permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        );
        if let Some(bits) = self.window {
            response.extend_from_slice(format!("; server_max_window_bits={bits}").as_bytes());
        }
    }
}

/// Reads one element of a list that is in order by its grammar; no token of it, quoted or not, has a comma or a
/// semicolon in it.
fn read(element: &str) -> Option<Deflate> {
    let mut parts = element.split(';').map(|part| part.trim_matches(SPACE));
    if parts.next() != Some("permessage-deflate") {
        return None;
    }
    let mut seen: SmallVec<[&str; 4]> = SmallVec::new();
    let mut window = None;
    for part in parts {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name.trim_matches(SPACE), Some(value.trim_matches(SPACE))),
            None => (part, None),
        };
        if seen.contains(&name) {
            return None;
        }
        match (name, value) {
            ("server_no_context_takeover" | "client_no_context_takeover", None)
            | ("client_max_window_bits", None) => {}
            ("client_max_window_bits", Some(value)) => drop(bits(value)?),
            ("server_max_window_bits", Some(value)) => window = Some(bits(value)?),
            _ => return None,
        }
        seen.push(name);
    }
    Some(Deflate { window })
}

/// 8 to 15, in decimal without leading zeros (RFC 7692, section 7.1.2), quoted or not.
fn bits(value: &str) -> Option<u8> {
    let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    match quoted.unwrap_or(value).replace('\\', "").as_str() {
        "8" => Some(8),
        "9" => Some(9),
        "10" => Some(10),
        "11" => Some(11),
        "12" => Some(12),
        "13" => Some(13),
        "14" => Some(14),
        "15" => Some(15),
        _ => None,
    }
}

/// White space inside a header value (RFC 9110, section 5.6.3).
const SPACE: [char; 2] = [' ', '\t'];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::http::{HeadLimits, parse, switching, upgrade};

    /// The window agreed on and what the server says, for these lines of the client.
    fn agreed(lines: &[&str]) -> Option<(u8, String)> {
        let mut request =
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                .to_owned();
        for line in lines {
            request += &format!("Sec-WebSocket-Extensions: {line}\r\n");
        }
        request += "\r\n";
        let parsed = parse(request.as_bytes(), &HeadLimits::default()).expect("fine");
        let head = parsed.expect("whole").head;
        let upgrade = upgrade(&head).expect("a handshake");
        let deflate = Deflate::of(&upgrade);
        let response = String::from_utf8(switching(&upgrade, None, deflate)).expect("text");
        let said = response.split_once("Sec-WebSocket-Extensions: ");
        let said = said.map(|(_, said)| said.trim_end().to_owned());
        assert_eq!(said.is_some(), deflate.is_some());
        Some((deflate?.window_bits(), said?))
    }

    const PLAIN: &str =
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

    #[test]
    fn offers_that_can_be_kept_are_kept_without_context() {
        for offer in [
            "permessage-deflate",
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate; client_max_window_bits=8",
            "permessage-deflate;client_max_window_bits = \"1\\0\"",
            "permessage-deflate; server_no_context_takeover",
            "permessage-deflate ; client_no_context_takeover;server_no_context_takeover",
            "x-webkit-deflate-frame, permessage-deflate",
        ] {
            assert_eq!(agreed(&[offer]), Some((15, PLAIN.to_owned())), "{offer}");
        }
    }

    #[test]
    fn the_window_that_a_client_wants_is_promised() {
        for bits in 8..=15 {
            for quote in ["", "\""] {
                let offer =
                    format!("permessage-deflate; server_max_window_bits={quote}{bits}{quote}");
                let said = format!("{PLAIN}; server_max_window_bits={bits}");
                assert_eq!(agreed(&[&offer]), Some((bits, said)));
            }
        }
    }

    #[test]
    fn an_offer_that_cannot_be_kept_is_passed_over_and_the_next_is_tried() {
        for wrong in [
            "permessage-deflat",
            "Permessage-Deflate",
            "permessage-deflate; x",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=7",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=010",
            "permessage-deflate; server_max_window_bits=+9",
            "permessage-deflate; client_max_window_bits=0",
            "permessage-deflate; client_max_window_bits=99999999999",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; client_no_context_takeover=\"true\"",
            "permessage-deflate; client_max_window_bits; client_max_window_bits",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "permessage-deflate; server_max_window_bits=9; server_max_window_bits=9",
            "permessage-deflate; SERVER_NO_CONTEXT_TAKEOVER",
        ] {
            assert_eq!(agreed(&[wrong]), None, "{wrong}");
            let next = "permessage-deflate; server_max_window_bits=11";
            assert_eq!(agreed(&[&format!("{wrong}, {next}")]).map(|(bits, _)| bits), Some(11));
            assert_eq!(agreed(&[wrong, next]).map(|(bits, _)| bits), Some(11));
        }
        assert_eq!(agreed(&[]), None);
    }

    #[test]
    fn the_clients_favourite_comes_first() {
        let offers = "permessage-deflate; server_max_window_bits=10, permessage-deflate";
        assert_eq!(agreed(&[offers]).map(|(bits, _)| bits), Some(10));
        assert_eq!(agreed(&["permessage-deflate", offers]).map(|(bits, _)| bits), Some(15));
    }
}
