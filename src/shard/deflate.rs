//! What a shard compresses with, and when (RFC 7692).
//!
//! One compressor and one decompressor serve all connections of the shard, and exist from the first message that
//! needs them; no message is read or written with what another has left behind. A publication is compressed by
//! whichever shard meets the first reader that agreed on it, and all its readers share those bytes, as they share
//! the plain ones. A message that is short, very long, or no shorter by it goes plain: the first would gain
//! nothing, the second would hold up the others on this core, and RFC 7692 leaves it to the sender. Of a long
//! publication the payload comes compressed already (`packing`), and is only put in its place.
//!
//! A peer chooses how much its messages become. Each is inflated no further than a message may be long, and what one
//! read brings becomes at most so many times its own length, or one message of the longest; so a turn costs what its
//! bytes are worth. Rates weigh what was inflated. What was agreed on is a field of the connection.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use crate::base::counters::Counters;
use crate::base::id::ConnId;
use crate::base::time::Time;
use crate::connection::Form;
use crate::hub::{Class, Publication};
use crate::session::in_lines;
use crate::shard::forms::{self, Forms};
use crate::shard::packing::Packings;
use crate::shard::settings::{Compression, Settings};
use crate::shard::state::Shard;
use crate::wire::websocket::{Deflator, Inflator, Kind, Violation, fits, frame_around};

/// The tools, and what was done with them.
#[derive(Debug, Default)]
pub(super) struct Codec {
    /// Behind a cell because frames are made where nothing else of a shard changes.
    deflator: RefCell<Option<Box<Deflator>>>,
    /// Taken out while what it has inflated is obeyed.
    inflator: Option<Box<Inflator>>,
    deflated: Cell<Sum>,
    inflated: Sum,
    /// What is compressed elsewhere.
    pub(super) packings: Packings,
}

/// Messages, their bytes before and their bytes afterwards.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    messages: u64,
    before: u64,
    after: u64,
}

impl Sum {
    fn plus(self, before: usize, after: usize) -> Self {
        Self {
            messages: self.messages + 1,
            before: self.before + before as u64,
            after: self.after + after as u64,
        }
    }
}

/// What messages of one read may become.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    /// Bytes of one message.
    message: usize,
    /// Bytes of all that are still to come.
    left: usize,
}

impl Codec {
    /// A plain frame as a compressed one; `None` when it should go plain.
    fn deflate(&self, plain: &[u8], rules: &Compression) -> Option<Vec<u8>> {
        if plain.len() > rules.inline_bytes {
            return None;
        }
        self.shrink(plain, rules, |deflator| deflator.frame(plain))
    }

    /// The same of a publication's, however long its payload is, if that was compressed before.
    fn deflate_publication(
        &self,
        publication: &Publication,
        plain: &[u8],
        rules: &Compression,
    ) -> Option<Vec<u8>> {
        let payload = publication.payload.as_ref().map_or("", |payload| payload.get());
        self.shrink(plain, rules, |deflator| {
            if payload.len() <= rules.inline_bytes {
                return deflator.frame(plain);
            }
            frame_around(publication.encoded.packed()?, in_lines(payload).as_bytes(), plain)
        })
    }

    fn shrink(
        &self,
        plain: &[u8],
        rules: &Compression,
        make: impl FnOnce(&mut Deflator) -> Option<Vec<u8>>,
    ) -> Option<Vec<u8>> {
        if !(rules.min_bytes..=rules.max_bytes).contains(&plain.len()) {
            return None;
        }
        let mut deflator = self.deflator.borrow_mut();
        let deflator = deflator.get_or_insert_with(|| Box::new(Deflator::new(rules.level)));
        let frame = make(deflator)?;
        self.deflated.set(self.deflated.get().plus(plain.len(), frame.len()));
        Some(frame)
    }

    /// The bytes of a publication in that class, made of the plain ones when they are asked for first, or the plain
    /// ones themselves.
    fn share(
        &self,
        publication: &Publication,
        class: Class,
        plain: &Arc<[u8]>,
        rules: &Compression,
    ) -> Arc<[u8]> {
        let make = || match self.deflate_publication(publication, plain, rules) {
            Some(frame) => frame.into(),
            None => Arc::clone(plain),
        };
        Arc::clone(publication.encoded.share(class, make))
    }

    /// Adds what was done to the shard's counters.
    pub(super) fn count(&self, counters: &mut Counters) {
        let (deflated, inflated) = (self.deflated.get(), self.inflated);
        counters.deflated_messages_total = deflated.messages;
        counters.deflated_before_bytes_total = deflated.before;
        counters.deflated_after_bytes_total = deflated.after;
        counters.inflated_messages_total = inflated.messages;
        counters.inflated_before_bytes_total = inflated.before;
        counters.inflated_after_bytes_total = inflated.after;
    }
}

impl Shard {
    /// What messages in a read of so many bytes may become, each of at most `message`.
    pub(super) fn allowance(&self, bytes: usize, message: usize) -> Allowance {
        let ratio = self.settings.capacity.compression.as_ref().map_or(1, |rules| rules.ratio);
        Allowance { message, left: message.max(bytes.saturating_mul(ratio)) }
    }

    /// Obeys a message that came compressed.
    pub(super) fn handle_deflated(
        &mut self,
        id: ConnId,
        (kind, payload): (Kind, &[u8]),
        allowance: &mut Allowance,
        settings: &Settings,
        now: Time,
    ) -> Result<(), Violation> {
        let mut inflator = self.table.codec.inflator.take().unwrap_or_default();
        let most = allowance.message.min(allowance.left);
        let done = match inflator.inflate(payload, most) {
            Ok(message) => {
                allowance.left -= message.len();
                let codec = &mut self.table.codec;
                codec.inflated = codec.inflated.plus(payload.len(), message.len());
                self.handle_inflated(id, (kind, message), settings, now)
            }
            Err(Violation::MessageTooBig) if most < allowance.message => Err(Violation::TooDense),
            Err(violation) => Err(violation),
        };
        self.table.codec.inflator = Some(inflator);
        done
    }

    fn handle_inflated(
        &mut self,
        id: ConnId,
        (kind, message): (Kind, &[u8]),
        settings: &Settings,
        now: Time,
    ) -> Result<(), Violation> {
        match kind {
            Kind::Text => {
                let text = simdutf8::basic::from_utf8(message);
                self.handle_text(id, text.map_err(|_| Violation::TextNotUtf8)?, settings, now);
            }
            Kind::Binary => self.handle_binary(id, message, now),
        }
        Ok(())
    }

    /// A frame for this connection alone, in less space where it reads that and it helps.
    pub(super) fn deflated_for(&mut self, id: ConnId, plain: Vec<u8>) -> Vec<u8> {
        let Some(rules) = &self.settings.capacity.compression else { return plain };
        let bits = self.table.get(id).and_then(|connection| connection.window());
        if bits.is_none_or(|bits| !fits(&plain, bits)) {
            return plain;
        }
        self.table.codec.deflate(&plain, rules).unwrap_or(plain)
    }

    /// Adds to the forms of a publication those in less space, while somebody here reads them.
    pub(super) fn with_deflated(
        &self,
        publication: &Publication,
        forms: Forms<Arc<[u8]>>,
    ) -> Forms<Arc<[u8]>> {
        let rules = self.settings.capacity.compression.as_ref();
        let Some(rules) = rules.filter(|_| self.counters.deflate_connections > 0) else {
            return forms;
        };
        let codec = &self.table.codec;
        let small = Some(codec.share(publication, Class::WS_JSON_DEFLATED, &forms.frame, rules));
        let small_packet = forms.packet.as_ref();
        let small_packet = small_packet
            .map(|plain| codec.share(publication, Class::SIO_JSON_DEFLATED, plain, rules));
        Forms { small, small_packet, ..forms }
    }
    /// A publication compressed, for one that reads that form with such a window; `None` where it is to be plain.
    pub(super) fn deflated(
        &self,
        publication: &Publication,
        form: Form,
        bits: u8,
    ) -> Option<Arc<[u8]>> {
        let rules = self.settings.capacity.compression.as_ref()?;
        let class = match form {
            Form::Frame => Class::WS_JSON_DEFLATED,
            Form::Packet => Class::SIO_JSON_DEFLATED,
            Form::Event => return None,
        };
        let plain = forms::bytes(publication, form, self.recalls());
        if !fits(plain, bits) {
            return None;
        }
        let small = self.table.codec.share(publication, class, plain, rules);
        (!Arc::ptr_eq(&small, plain)).then_some(small)
    }
}
