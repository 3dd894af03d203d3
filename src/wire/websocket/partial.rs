//! What the decoder holds while a frame or a message is incomplete.
//!
//! It stands in a box that exists only then, so an idle connection pays one empty pointer. Memory grows
//! with what has arrived, never with what a header declares: by doubling, so that a message costs a
//! constant number of copies per byte, and not beyond what the message can still become. The limits
//! themselves are checked by the decoder before anything comes here.

use smallvec::SmallVec;

use super::decode::DecodeLimits;
use super::header::{Header, Kind, Role};
use super::mask::unmask;
use super::text::Text;
use super::violation::Violation;

/// A frame whose payload has not arrived entirely.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) role: Role,
    pub(super) is_final: bool,
    mask: [u8; 4],
    /// Declared bytes of payload.
    length: usize,
    /// Bytes of it that have arrived; at most `length`.
    arrived: usize,
}

/// A message of which some bytes are held here.
#[derive(Debug)]
pub(super) struct Message {
    body: Body,
    /// Frames begun.
    pub(super) fragments: u32,
    /// Declared bytes of the frames begun; at most the limit.
    pub(super) declared: usize,
    /// True when the final frame is there: the message has been handed out and is to be forgotten.
    pub(super) is_complete: bool,
}

#[derive(Debug)]
enum Body {
    Text(Text),
    Binary(Vec<u8>),
    Deflated(Kind, Vec<u8>),
}

/// A complete message, lent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Whole<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
    Deflated(Kind, &'a [u8]),
}

/// What has arrived of a header, a frame and a message.
#[derive(Debug, Default)]
pub(super) struct Partial {
    /// The beginning of a header; empty unless a header is incomplete.
    pub(super) header: SmallVec<[u8; 14]>,
    /// The frame whose payload arrives; `None` while `header` is not empty.
    frame: Option<Frame>,
    /// The payload of a control frame that arrived in pieces; kept until it has been handed out.
    control: Vec<u8>,
    pub(super) message: Option<Message>,
    /// True after a close frame or a violation: nothing more is taken.
    pub(super) is_ended: bool,
}

impl Partial {
    /// The state after the last item: nothing held, nothing taken.
    pub(super) fn ended() -> Self {
        Self { is_ended: true, ..Self::default() }
    }

    pub(super) fn frame(&self) -> Option<Frame> {
        self.frame
    }

    /// True while a message waits for its next fragment.
    pub(super) fn is_open(&self) -> bool {
        self.message.as_ref().is_some_and(|message| !message.is_complete)
    }

    /// True while bytes have come that are part of something that is not complete.
    pub(super) fn is_waiting(&self) -> bool {
        !self.header.is_empty() || self.frame.is_some() || self.is_open()
    }

    /// Drops what has been handed out.
    pub(super) fn let_go(&mut self) {
        self.message.take_if(|message| message.is_complete);
        if self.frame.is_none() {
            self.control = Vec::new();
        }
    }

    /// Begins a frame of `length` bytes, which the limits allow.
    pub(super) fn begin(&mut self, header: &Header, length: usize) {
        let Header { role, is_final, mask, .. } = *header;
        self.frame = Some(Frame { role, is_final, mask, length, arrived: 0 });
        let body = match role {
            Role::Text => Body::Text(Text::default()),
            Role::Binary => Body::Binary(Vec::new()),
            Role::Deflated(kind) => Body::Deflated(kind, Vec::new()),
            Role::Continuation => {
                if let Some(message) = &mut self.message {
                    message.fragments += 1;
                    message.declared += length;
                }
                return;
            }
            Role::Close | Role::Ping | Role::Pong => return,
        };
        self.message = Some(Message { body, fragments: 1, declared: length, is_complete: false });
    }

    /// Bytes of payload that the frame still waits for.
    pub(super) fn missing(&self) -> usize {
        self.frame.map_or(0, |frame| frame.length - frame.arrived)
    }

    /// Takes the next piece of the frame's payload, masked. Gives the frame when this was its end.
    pub(super) fn take(
        &mut self,
        piece: &mut [u8],
        limits: &DecodeLimits,
    ) -> Result<Option<Frame>, Violation> {
        let Some(frame) = &mut self.frame else { return Ok(None) };
        unmask(piece, frame.mask, frame.arrived);
        frame.arrived += piece.len();
        let frame = *frame;
        if frame.role.is_control() {
            append(&mut self.control, piece, frame.length);
        } else if let Some(message) = &mut self.message {
            let limit = limits.payload_bytes(message.is_deflated());
            message.append(piece, frame.is_final, limit)?;
        }
        if frame.arrived < frame.length {
            return Ok(None);
        }
        if let Some(message) = &mut self.message
            && !frame.role.is_control()
            && frame.is_final
        {
            message.finish()?;
        }
        self.frame = None;
        Ok(Some(frame))
    }

    /// The payload of the control frame that has just ended.
    pub(super) fn control(&self) -> &[u8] {
        &self.control
    }

    /// The message that has just ended.
    pub(super) fn whole(&self) -> Option<Whole<'_>> {
        let message = self.message.as_ref().filter(|message| message.is_complete)?;
        Some(match &message.body {
            Body::Text(text) => Whole::Text(text.as_str()),
            Body::Binary(bytes) => Whole::Binary(bytes),
            Body::Deflated(kind, bytes) => Whole::Deflated(*kind, bytes),
        })
    }

    /// Bytes of heap memory behind this record.
    pub(super) fn capacity(&self) -> usize {
        let header = if self.header.spilled() { self.header.capacity() } else { 0 };
        header + self.control.capacity() + self.message.as_ref().map_or(0, Message::capacity)
    }

    /// Asserts what must hold between calls.
    pub(super) fn check(&self) {
        let Self { header, frame, control, message, is_ended } = self;
        assert!(header.len() < 14 && !header.spilled(), "a header of 14 bytes is complete");
        assert!(header.is_empty() || frame.is_none(), "a header arrives inside a payload");
        let mut missing = 0;
        if let Some(frame) = frame {
            assert!(frame.arrived < frame.length, "a frame that is complete is kept");
            if frame.role.is_control() {
                assert_eq!(control.len(), frame.arrived, "a control payload lost bytes");
            } else {
                assert!(message.is_some(), "a data frame belongs to no message");
                missing = frame.length - frame.arrived;
            }
        }
        if let Some(message) = message {
            let held = message.len();
            assert_eq!(held + missing, message.declared, "a message lost bytes");
            assert!(
                message.capacity() <= (2 * held).max(LEAST_CAPACITY),
                "memory is reserved for bytes that have not arrived"
            );
        }
        if *is_ended {
            assert!(!self.is_waiting(), "a decoder that has ended waits for bytes");
        }
    }
}

impl Message {
    /// True when what arrives has yet to be inflated.
    pub(super) fn is_deflated(&self) -> bool {
        matches!(self.body, Body::Deflated(..))
    }

    fn append(&mut self, piece: &[u8], is_final: bool, limit: usize) -> Result<(), Violation> {
        // Only the final frame tells how long the message can become. Sizing to the declared end of an
        // earlier one would make each of many small fragments move the whole message.
        let ceiling = if is_final { self.declared } else { limit };
        match &mut self.body {
            Body::Text(text) => text.push(piece, ceiling),
            Body::Binary(bytes) | Body::Deflated(_, bytes) => {
                append(bytes, piece, ceiling);
                Ok(())
            }
        }
    }

    fn finish(&mut self) -> Result<(), Violation> {
        if let Body::Text(text) = &self.body {
            text.finish()?;
        }
        self.is_complete = true;
        Ok(())
    }

    fn len(&self) -> usize {
        match &self.body {
            Body::Text(text) => text.len(),
            Body::Binary(bytes) | Body::Deflated(_, bytes) => bytes.len(),
        }
    }

    fn capacity(&self) -> usize {
        match &self.body {
            Body::Text(text) => text.capacity(),
            Body::Binary(bytes) | Body::Deflated(_, bytes) => bytes.capacity(),
        }
    }
}

/// The capacity a buffer should have to hold `needed` bytes: what it has, or else twice that, but not
/// more than `ceiling` unless `needed` is.
pub(super) fn grown(capacity: usize, needed: usize, ceiling: usize) -> usize {
    if needed <= capacity {
        return capacity;
    }
    let doubled = capacity.saturating_mul(2).max(LEAST_CAPACITY);
    doubled.min(ceiling).max(needed)
}

fn append(buffer: &mut Vec<u8>, piece: &[u8], ceiling: usize) {
    let wanted = grown(buffer.capacity(), buffer.len() + piece.len(), ceiling);
    buffer.reserve_exact(wanted - buffer.len());
    buffer.extend_from_slice(piece);
}

/// The first step of growth, unless the message is known to be shorter.
const LEAST_CAPACITY: usize = 64;
