//! Close codes and the payload of a close frame (RFC 6455, sections 5.5.1 and 7.4).
//!
//! A code that may not stand on the wire cannot be held by a [`CloseCode`], so neither a peer's mistake
//! nor ours can pass one on. The registered meanings come from tungstenite; 1014, which IANA
//! registered later (bad gateway), is added to what it allows. What a code asks of the application is
//! not known here.

use std::fmt;

use tungstenite::protocol::frame::coding;

use super::violation::Violation;

/// A close code that may stand in a close frame: 1000 to 1003, 1007 to 1014, 3000 to 4999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CloseCode(u16);

impl CloseCode {
    /// 1000: the purpose of the connection is fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// 1001: the server goes down or the page is left.
    pub const AWAY: Self = Self(1001);
    /// 1002: the peer broke the protocol.
    pub const PROTOCOL: Self = Self(1002);
    /// 1003: a type of data that is not accepted.
    pub const UNSUPPORTED: Self = Self(1003);
    /// 1007: data that does not fit its type, such as text that is not UTF-8.
    pub const INVALID: Self = Self(1007);
    /// 1008: against policy, when nothing more fitting exists.
    pub const POLICY: Self = Self(1008);
    /// 1009: a message too big to process.
    pub const TOO_BIG: Self = Self(1009);
    /// 1011: an unexpected condition at the server.
    pub const INTERNAL: Self = Self(1011);
    /// 1012: the server restarts; come back after a random delay.
    pub const RESTART: Self = Self(1012);
    /// 1013: overloaded; try again later.
    pub const TRY_AGAIN: Self = Self(1013);

    /// 4401: the token has expired; come back with a fresh one. Of the range that applications define.
    pub const EXPIRED: Self = Self(4401);
    /// 4409: the same user has connected again too often; who comes back sends the other one away.
    pub const REPLACED: Self = Self(4409);

    /// The code with this number; `None` when that number may not stand in a close frame (0 to 999, 1004,
    /// 1005, 1006, 1015 to 2999, 5000 and above).
    #[must_use]
    pub fn new(code: u16) -> Option<Self> {
        let known = coding::CloseCode::from(code);
        (known.is_allowed() || code == BAD_GATEWAY).then_some(Self(code))
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl From<CloseCode> for u16 {
    fn from(code: CloseCode) -> Self {
        code.0
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Reads an unmasked close payload: nothing, or a code and a reason in UTF-8.
pub(super) fn read(payload: &[u8]) -> Result<Option<(CloseCode, &str)>, Violation> {
    match payload {
        [] => Ok(None),
        [_] => Err(Violation::CloseTooShort),
        [high, low, reason @ ..] => {
            let code = CloseCode::new(u16::from_be_bytes([*high, *low]))
                .ok_or(Violation::CloseCodeForbidden)?;
            let reason = std::str::from_utf8(reason).map_err(|_| Violation::CloseReasonNotUtf8)?;
            Ok(Some((code, reason)))
        }
    }
}

/// IANA registry of WebSocket close codes.
const BAD_GATEWAY: u16 = 1014;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_codes_that_may_stand_on_the_wire_are_codes() {
        for code in 0..=u16::MAX {
            let allowed = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
            assert_eq!(CloseCode::new(code).map(CloseCode::get), allowed.then_some(code), "{code}");
        }
    }

    #[test]
    fn every_named_code_may_be_sent() {
        use CloseCode as C;
        for code in [C::NORMAL, C::AWAY, C::PROTOCOL, C::UNSUPPORTED, C::INVALID, C::POLICY] {
            assert_eq!(CloseCode::new(code.get()), Some(code));
        }
        for code in [C::TOO_BIG, C::INTERNAL, C::RESTART, C::TRY_AGAIN] {
            assert_eq!(CloseCode::new(code.get()), Some(code));
        }
    }

    #[test]
    fn a_close_payload_is_empty_or_a_code_and_a_reason() {
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[3]), Err(Violation::CloseTooShort));
        assert_eq!(read(&[3, 232]), Ok(Some((CloseCode::NORMAL, ""))));
        assert_eq!(read(b"\x03\xe9bye"), Ok(Some((CloseCode::AWAY, "bye"))));
        assert_eq!(read(&[3, 237]), Err(Violation::CloseCodeForbidden));
        assert_eq!(read(&[3, 232, 0xc3]), Err(Violation::CloseReasonNotUtf8));
    }
}
