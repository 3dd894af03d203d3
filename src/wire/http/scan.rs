//! The strict pass over a head as it arrives: finds its end and refuses it as early as possible.
//!
//! httparse reads heads well but forgives much: empty lines in front, bare line feeds, any visible byte
//! in a target. What two parsers read differently is what request smuggling is made of, so this pass
//! walks the grammar of RFC 9112 byte by byte and refuses at the first byte that breaks it, long before
//! the head is complete. A scan remembers where it stopped: a head that trickles in costs each byte one
//! look, not one look per packet. It knows the shape of lines, not what a header means.

use super::grammar::{TARGET, TOKEN, VALUE, is};
use super::head::HeadLimits;
use super::refusal::Refusal;

/// How far a head has been looked at. For one connection and one growing buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Bytes that have been looked at.
    at: usize,
    /// Where the present part of a line began; at most `at`.
    begin: usize,
    /// Header lines begun.
    headers: usize,
    part: Part,
}

/// The part of the head that the next byte belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    #[default]
    Method,
    Target,
    Version,
    /// A CR was seen; its LF must follow.
    LineFeed,
    LineStart,
    Name,
    Value,
    /// The CR of the empty line was seen.
    LastLineFeed,
    End,
}

impl Scan {
    /// Looks at what `buf` has beyond the last call; `buf` must begin with the bytes of that call. Gives
    /// the length of the head once it is complete, and `None` when more must come.
    ///
    /// # Errors
    /// A [`Refusal`] with status 400, 414 or 431, at the first byte that allows the verdict.
    pub fn advance(&mut self, buf: &[u8], limits: &HeadLimits) -> Result<Option<usize>, Refusal> {
        let within = &buf[..buf.len().min(limits.head_bytes)];
        while self.part != Part::End {
            let class = match self.part {
                Part::Method | Part::Name => TOKEN,
                Part::Target => TARGET,
                Part::Value => VALUE,
                _ => 0,
            };
            if class != 0 {
                let run = within[self.at..].iter().position(|byte| !is(*byte, class));
                self.at = run.map_or(within.len(), |run| self.at + run);
            }
            self.check_length(limits)?;
            let Some(&byte) = within.get(self.at) else {
                return if self.at < limits.head_bytes {
                    Ok(None)
                } else {
                    Err(self.overlong(limits))
                };
            };
            self.step(byte, within, limits)?;
        }
        Ok(Some(self.at))
    }

    /// Header lines begun.
    pub(super) fn headers(&self) -> usize {
        self.headers
    }

    /// Bytes of the present part, as far as they have come.
    fn length(&self) -> usize {
        self.at - self.begin
    }

    /// Takes the byte that ends a run, or one of a part that is no run.
    fn step(&mut self, byte: u8, buf: &[u8], limits: &HeadLimits) -> Result<(), Refusal> {
        match (self.part, byte) {
            (Part::Method, b' ') if self.length() > 0 => {
                if &buf[..self.at] == b"PRI" {
                    return Err(Refusal::bad_request("HTTP/2 is not spoken here; use HTTP/1.1"));
                }
                self.go(Part::Target);
            }
            (Part::Target, b' ') if self.length() > 0 => self.go(Part::Version),
            (Part::Version, _) => self.version(byte)?,
            (Part::LineFeed, b'\n') => self.go(Part::LineStart),
            (Part::LineStart, b'\r') => self.go(Part::LastLineFeed),
            (Part::LineStart, b' ' | b'\t') => {
                return Err(Refusal::bad_request(
                    "a header line begins with a space (folded line)",
                ));
            }
            (Part::LineStart, _) if is(byte, TOKEN) => {
                self.headers += 1;
                if self.headers > limits.headers {
                    let limit = limits.headers;
                    let message = format!("the request has more than {limit} headers");
                    return Err(Refusal::head_too_large(message));
                }
                (self.part, self.begin) = (Part::Name, self.at);
            }
            (Part::Name, b':') => self.go(Part::Value),
            (Part::Name, b' ' | b'\t') => {
                return Err(Refusal::bad_request("white space stands before a header's colon"));
            }
            (Part::Value, b'\r') => self.go(Part::LineFeed),
            (Part::LastLineFeed, b'\n') => self.go(Part::End),
            _ => return Err(self.odd(byte)),
        }
        Ok(())
    }

    /// Takes one byte of the version and of the line end behind it.
    fn version(&mut self, byte: u8) -> Result<(), Refusal> {
        let at = self.length();
        match VERSION.get(at) {
            Some(expected) if byte == *expected => self.at += 1,
            None if at == VERSION.len() && matches!(byte, b'0' | b'1') => self.at += 1,
            None if at > VERSION.len() && byte == b'\r' => self.go(Part::LineFeed),
            _ if byte == 0 || byte == b'\n' => return Err(self.odd(byte)),
            _ => return Err(Refusal::bad_request("the version is neither HTTP/1.1 nor HTTP/1.0")),
        }
        Ok(())
    }

    /// Consumes the present byte; the next one begins `part`.
    fn go(&mut self, part: Part) {
        self.at += 1;
        (self.part, self.begin) = (part, self.at);
    }

    fn check_length(&self, limits: &HeadLimits) -> Result<(), Refusal> {
        if self.part == Part::Method && self.length() > METHOD_BYTES {
            return Err(Refusal::bad_request("the request does not begin with a known method"));
        }
        if self.part == Part::Target && self.length() > limits.target_bytes {
            return Err(Refusal::target_too_long(limits.target_bytes));
        }
        Ok(())
    }

    /// What to say when the head fills its whole allowance and has not ended.
    fn overlong(&self, limits: &HeadLimits) -> Refusal {
        let limit = limits.head_bytes;
        if self.part == Part::Target {
            return Refusal::target_too_long(limit);
        }
        Refusal::head_too_large(format!("the request head is longer than {limit} bytes"))
    }

    /// Why `byte` cannot stand where the scan is.
    fn odd(&self, byte: u8) -> Refusal {
        let place = match self.part {
            Part::Method if self.at == 0 && byte == TLS_HANDSHAKE => {
                return Refusal::bad_request(
                    "a TLS hello was seen, but this port speaks plain HTTP",
                );
            }
            Part::Method if self.length() == 0 => {
                return Refusal::bad_request("the request does not begin with a method");
            }
            Part::Target if matches!(byte, b'\r' | b'\n') => {
                return Refusal::bad_request("the request line has no HTTP version");
            }
            Part::LineFeed | Part::LastLineFeed => {
                return Refusal::bad_request("a carriage return stands without a line feed");
            }
            Part::Method => "the method",
            Part::Target => "the request target",
            Part::Version => "the version",
            Part::LineStart | Part::Name => "a header name",
            Part::Value | Part::End => "a header value",
        };
        Refusal::bad_request(match byte {
            0 => format!("a NUL byte stands in {place}"),
            b'\n' => format!("a line feed without a carriage return stands in {place}"),
            _ => format!("a byte that is not allowed stands in {place}"),
        })
    }
}

const VERSION: &[u8] = b"HTTP/1.";

/// The longest method looked at; the longest registered by IANA has 17 bytes (UPDATEREDIRECTREF).
const METHOD_BYTES: usize = 24;

/// Content type "handshake", the first byte of every TLS connection (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;
