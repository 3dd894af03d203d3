//! The decoder: client frames in, messages and control frames out (RFC 6455, section 5).
//!
//! A message that lies wholly in the input is unmasked where it lies and lent from there: no copy, no
//! allocation. Only what arrives in pieces is held, in a box that exists while something is incomplete;
//! between messages a decoder is one empty pointer. Every limit is checked against what a header
//! declares, before a byte of the payload is kept, and text is checked as it arrives. Any cutting of a
//! stream into pieces gives the same items and the same end as the whole.
//!
//! After a close frame or a violation the decoder has ended: what follows is swallowed unread. The
//! decoder does not know time, the close handshake, or whom an item is for.

use super::close;
use super::close::CloseCode;
use super::header;
use super::header::{Header, Kind, Role};
use super::input::Input;
use super::mask::unmask;
use super::partial::{Partial, Whole};
use super::violation::Violation;

/// Bounds on one message. How long it may take is the caller's to watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Bytes of payload, all fragments together.
    pub message_bytes: usize,
    /// Frames of one message; 1 forbids fragmentation, 0 every message.
    pub fragments: u32,
    /// True where messages may come compressed. Of one that does, the bytes are counted as they come: whoever
    /// inflates it has to count what it becomes.
    pub deflated: bool,
}

impl DecodeLimits {
    /// Bytes that the frames of one message may have. A compressed one that has become longer by that is let
    /// through as far as an honest compressor could not help it: five bytes for each stored block.
    pub(super) fn payload_bytes(&self, is_deflated: bool) -> usize {
        let extra = if is_deflated { self.message_bytes / 256 + 64 } else { 0 };
        self.message_bytes.saturating_add(extra)
    }
}

/// One message or control frame, lent until the next call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A text message.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
    /// A compressed message, as it came; it has yet to be inflated, and text to be checked.
    Deflated(Kind, &'a [u8]),
    /// A ping, to be answered by a pong with the same payload of at most 125 bytes.
    Ping(&'a [u8]),
    /// A pong, asked for or not.
    Pong(&'a [u8]),
    /// The peer begins or answers the close handshake; the last item. The payload is absent when the
    /// frame was empty.
    Close(Option<(CloseCode, &'a str)>),
}

/// The receiving half of one connection. Eight bytes; owns memory only while something is incomplete.
#[derive(Debug, Default)]
pub struct Decoder(Option<Box<Partial>>);

/// What one step of decoding came to.
enum Step<'b> {
    /// The input is used up.
    Starved,
    /// A step was made that gives nothing by itself.
    Onward,
    /// A payload lies whole in the input, unmasked.
    Lent(Role, &'b [u8]),
    /// A control frame that came in pieces is complete.
    Control(Role),
    /// A message that came in pieces is complete.
    Message,
}

impl Decoder {
    /// Consumes input up to the end of the next item and lends that item. `None` when the input is used
    /// up; the caller calls again until then, because only that call gives back the last item's memory.
    ///
    /// # Errors
    /// A [`Violation`] by the peer. It and [`Item::Close`] are the last: from then on all input is
    /// swallowed and the answer is `None`.
    pub fn decode<'a, 'b: 'a>(
        &'a mut self,
        input: &mut Input<'b>,
        limits: &DecodeLimits,
    ) -> Result<Option<Item<'a>>, Violation> {
        match self.next(input, limits) {
            Ok(Step::Starved | Step::Onward) => Ok(None),
            Ok(Step::Lent(role, payload)) => {
                let item = item(role, payload);
                if matches!(item, Ok(Item::Close(_)) | Err(_)) {
                    self.end();
                }
                item.map(Some)
            }
            Ok(Step::Control(role)) => self.control(role),
            Ok(Step::Message) => Ok(self.message()),
            Err(violation) => {
                self.end();
                Err(violation)
            }
        }
    }

    /// Ends it for what the last item turned out to be: the peer is not listened to any more.
    pub fn refuse(&mut self) {
        self.end();
    }

    /// True while part of a header, frame or message has arrived and the rest has not: the time in which
    /// a caller may lose patience. False after the end.
    #[must_use]
    pub fn is_mid_message(&self) -> bool {
        self.0.as_ref().is_some_and(|partial| partial.is_waiting())
    }

    /// True after a close frame or a violation.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.0.as_ref().is_some_and(|partial| partial.is_ended)
    }

    /// Bytes of heap memory held: 0 between messages, and at most twice what has arrived of a message
    /// plus a constant.
    #[must_use]
    pub fn buffered_capacity(&self) -> usize {
        self.0.as_ref().map_or(0, |partial| size_of::<Partial>() + partial.capacity())
    }

    /// Asserts the invariants that cost too much to assert in passing.
    ///
    /// # Panics
    /// When one does not hold.
    pub fn check(&self) {
        if let Some(partial) = &self.0 {
            partial.check();
        }
    }

    fn next<'b>(
        &mut self,
        input: &mut Input<'b>,
        limits: &DecodeLimits,
    ) -> Result<Step<'b>, Violation> {
        self.let_go();
        if self.is_ended() {
            input.take(input.len());
            return Ok(Step::Starved);
        }
        loop {
            let step = if self.frame_is_open() {
                self.payload(input, limits)?
            } else {
                self.begin(input, limits)?
            };
            if !matches!(step, Step::Onward) {
                return Ok(step);
            }
        }
    }

    fn frame_is_open(&self) -> bool {
        self.0.as_ref().is_some_and(|partial| partial.frame().is_some())
    }

    /// Gives back the memory of the item that was lent last.
    fn let_go(&mut self) {
        if let Some(partial) = &mut self.0 {
            partial.let_go();
            if !partial.is_waiting() && !partial.is_ended {
                self.0 = None;
            }
        }
    }

    /// Ends the decoder and drops what it holds.
    fn end(&mut self) {
        match &mut self.0 {
            Some(partial) => **partial = Partial::ended(),
            None => self.0 = Some(Box::new(Partial::ended())),
        }
    }

    /// Takes a header and, when the frame is a whole item in the input, its payload too.
    fn begin<'b>(
        &mut self,
        input: &mut Input<'b>,
        limits: &DecodeLimits,
    ) -> Result<Step<'b>, Violation> {
        let Some(header) = self.header(input, limits.deflated)? else { return Ok(Step::Starved) };
        let length = self.admit(&header, limits)?;
        let is_item = header.is_final && header.role != Role::Continuation;
        if is_item && length <= input.len() {
            let payload = input.take(length);
            unmask(payload, header.mask, 0);
            return Ok(Step::Lent(header.role, payload));
        }
        self.0.get_or_insert_default().begin(&header, length);
        Ok(Step::Onward)
    }

    /// Takes the next header, or keeps its beginning when the input ends inside it.
    fn header(
        &mut self,
        input: &mut Input<'_>,
        may_deflate: bool,
    ) -> Result<Option<Header>, Violation> {
        let is_open = self.0.as_ref().is_some_and(|partial| partial.is_open());
        if self.0.as_ref().is_none_or(|partial| partial.header.is_empty()) {
            if let Some(header) = header::read(input.rest(), is_open, may_deflate)? {
                input.take(header.size);
                return Ok(Some(header));
            }
            if input.is_empty() {
                return Ok(None);
            }
        }
        let begun = &mut self.0.get_or_insert_default().header;
        loop {
            let piece = input.take(header::wanted(begun) - begun.len());
            if piece.is_empty() {
                return Ok(None);
            }
            begun.extend_from_slice(piece);
            if let Some(header) = header::read(begun, is_open, may_deflate)? {
                begun.clear();
                return Ok(Some(header));
            }
        }
    }

    /// Checks a frame against the limits, by what it declares, and gives its length.
    fn admit(&self, header: &Header, limits: &DecodeLimits) -> Result<usize, Violation> {
        let length = usize::try_from(header.length).map_err(|_| Violation::MessageTooBig)?;
        if header.role.is_control() {
            return Ok(length);
        }
        let open = self.0.as_ref().and_then(|partial| partial.message.as_ref());
        let (declared, fragments) = open.map_or((0, 0), |open| (open.declared, open.fragments));
        if fragments >= limits.fragments {
            return Err(Violation::TooManyFragments);
        }
        let is_deflated = matches!(header.role, Role::Deflated(_))
            || open.is_some_and(|message| message.is_deflated());
        let most = limits.payload_bytes(is_deflated);
        match declared.checked_add(length) {
            Some(total) if total <= most => Ok(length),
            _ => Err(Violation::MessageTooBig),
        }
    }

    /// Takes what the input has of the open frame's payload.
    fn payload<'b>(
        &mut self,
        input: &mut Input<'b>,
        limits: &DecodeLimits,
    ) -> Result<Step<'b>, Violation> {
        let Some(partial) = &mut self.0 else { return Ok(Step::Onward) };
        let piece = input.take(partial.missing());
        Ok(match partial.take(piece, limits)? {
            None => Step::Starved,
            Some(frame) if frame.role.is_control() => Step::Control(frame.role),
            Some(frame) if frame.is_final => Step::Message,
            Some(_) => Step::Onward,
        })
    }

    /// Lends the control frame that has just ended in the box.
    fn control(&mut self, role: Role) -> Result<Option<Item<'_>>, Violation> {
        // The verdict comes first: once an item borrows from the box, the box cannot be ended.
        let verdict = self.0.as_ref().map_or(Ok(()), |p| item(role, p.control()).map(drop));
        if let Err(violation) = verdict {
            self.end();
            return Err(violation);
        }
        let Some(partial) = &mut self.0 else { return Ok(None) };
        if role == Role::Close {
            partial.message = None;
            partial.is_ended = true;
        }
        item(role, partial.control()).map(Some)
    }

    /// Lends the message that has just ended in the box.
    fn message(&self) -> Option<Item<'_>> {
        self.0.as_ref()?.whole().map(|whole| match whole {
            Whole::Text(text) => Item::Text(text),
            Whole::Binary(bytes) => Item::Binary(bytes),
            Whole::Deflated(kind, bytes) => Item::Deflated(kind, bytes),
        })
    }
}

/// The item that a whole payload makes.
fn item(role: Role, payload: &[u8]) -> Result<Item<'_>, Violation> {
    match role {
        Role::Text => {
            let text = simdutf8::basic::from_utf8(payload).map_err(|_| Violation::TextNotUtf8)?;
            Ok(Item::Text(text))
        }
        Role::Binary | Role::Continuation => Ok(Item::Binary(payload)),
        Role::Deflated(kind) => Ok(Item::Deflated(kind, payload)),
        Role::Ping => Ok(Item::Ping(payload)),
        Role::Pong => Ok(Item::Pong(payload)),
        Role::Close => close::read(payload).map(Item::Close),
    }
}
