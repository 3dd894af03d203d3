//! What a peer can do wrong in frames, and the close code for it.
//!
//! A violation is a value, not a fault of ours: it maps totally to a code and a reason that can go into
//! the close frame as they stand (RFC 6455, section 7.4.1). Reasons are constant texts, so nothing a
//! peer sent is ever sent back.

use std::fmt;

use super::close::CloseCode;

/// Why a peer's bytes cannot be accepted. The decoder takes nothing more after one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Violation {
    /// A reserved bit is set where no extension was negotiated, or where the one that was does not set it
    /// (section 5.2; RFC 7692, section 6).
    ReservedBits,
    /// Opcodes 3 to 7 and 11 to 15 mean nothing yet (section 5.2).
    ReservedOpcode,
    /// A control frame without the final bit (section 5.5).
    FragmentedControl,
    /// A control frame of more than 125 bytes (section 5.5).
    ControlTooLong,
    /// A client frame without a mask (section 5.1).
    Unmasked,
    /// A length in more bytes than it needs (section 5.2).
    LengthNotMinimal,
    /// A length with its most significant bit set (section 5.2).
    LengthTooLarge,
    /// A continuation with no message to continue (section 5.4).
    NothingToContinue,
    /// A new message inside a fragmented one (section 5.4).
    MessageInsideMessage,
    /// A message of more bytes than the limit, by what its frames declare.
    MessageTooBig,
    /// A message of more frames than the limit.
    TooManyFragments,
    /// Text that is not UTF-8 (section 8.1).
    TextNotUtf8,
    /// A compressed message that is not deflate, or not a whole one (RFC 7692, section 7.2.2).
    NotDeflate,
    /// Compressed messages that become more in one read than was agreed (ours to bound; RFC 7692, section 8).
    TooDense,
    /// A close payload of one byte (section 5.5.1).
    CloseTooShort,
    /// A close code that may not be sent (section 7.4).
    CloseCodeForbidden,
    /// A close reason that is not UTF-8 (section 5.5.1).
    CloseReasonNotUtf8,
}

impl Violation {
    /// Every violation, for tests and metric labels.
    pub const ALL: [Self; 17] = [
        Self::ReservedBits,
        Self::ReservedOpcode,
        Self::FragmentedControl,
        Self::ControlTooLong,
        Self::Unmasked,
        Self::LengthNotMinimal,
        Self::LengthTooLarge,
        Self::NothingToContinue,
        Self::MessageInsideMessage,
        Self::MessageTooBig,
        Self::TooManyFragments,
        Self::TextNotUtf8,
        Self::NotDeflate,
        Self::TooDense,
        Self::CloseTooShort,
        Self::CloseCodeForbidden,
        Self::CloseReasonNotUtf8,
    ];

    /// The code to close with: 1002, 1007 or 1009.
    #[must_use]
    pub const fn code(self) -> CloseCode {
        match self {
            Self::ReservedBits
            | Self::ReservedOpcode
            | Self::FragmentedControl
            | Self::ControlTooLong
            | Self::Unmasked
            | Self::LengthNotMinimal
            | Self::LengthTooLarge
            | Self::NothingToContinue
            | Self::MessageInsideMessage
            | Self::CloseTooShort
            | Self::CloseCodeForbidden => CloseCode::PROTOCOL,
            Self::TextNotUtf8 | Self::NotDeflate | Self::CloseReasonNotUtf8 => CloseCode::INVALID,
            Self::MessageTooBig | Self::TooManyFragments | Self::TooDense => CloseCode::TOO_BIG,
        }
    }

    /// The reason to close with: at most 123 bytes, the same for every peer.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::ReservedBits => "a reserved bit is set",
            Self::ReservedOpcode => "the opcode is reserved",
            Self::FragmentedControl => "a control frame is fragmented",
            Self::ControlTooLong => "a control frame is longer than 125 bytes",
            Self::Unmasked => "a client frame is not masked",
            Self::LengthNotMinimal => "a length is not in its shortest form",
            Self::LengthTooLarge => "a length has its highest bit set",
            Self::NothingToContinue => "a continuation has no message to continue",
            Self::MessageInsideMessage => "a message begins inside a fragmented one",
            Self::MessageTooBig => "the message is too big",
            Self::TooManyFragments => "the message has too many fragments",
            Self::TextNotUtf8 => "the text is not UTF-8",
            Self::NotDeflate => "the message is not compressed as was agreed",
            Self::TooDense => "messages become too much when inflated",
            Self::CloseTooShort => "a close payload has one byte",
            Self::CloseCodeForbidden => "the close code may not be sent",
            Self::CloseReasonNotUtf8 => "the close reason is not UTF-8",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for Violation {}
