//! One message in the forms that connections read.
//!
//! Whoever speaks by WebSocket, listens to an event stream or speaks Socket.IO is told the same, in other bytes.
//! The form of a publication is made where somebody of the shard reads it, once for all of them and for all shards;
//! while nobody reads a form it costs nothing but a comparison. The frame of the JSON protocol there always is,
//! because histories and bounds count by it.

use std::sync::Arc;

use crate::base::shared::Shared;
use crate::connection::Form;
use crate::hub::{Class, Publication};
use crate::session::encode::Push;
use crate::session::packets;
use crate::shard::fanout::{encode_json, push_of};
use crate::shard::state::Shard;
use crate::shard::stream;
use crate::wire::websocket::WINDOW_BITS;
use crate::wire::{sse, websocket};

/// Something in the forms that somebody reads.
#[derive(Debug)]
pub(super) struct Forms<T> {
    pub(super) frame: T,
    /// `None` while nobody here listens to an event stream.
    pub(super) event: Option<T>,
    /// `None` while nobody here speaks Socket.IO.
    pub(super) packet: Option<T>,
    /// The frame compressed, or plain where that is shorter; `None` while nobody here agreed on that.
    pub(super) small: Option<T>,
    /// The same of the packet.
    pub(super) small_packet: Option<T>,
}

impl<T> Forms<T> {
    /// True when all read the same.
    pub(super) fn is_one(&self) -> bool {
        self.event.is_none() && self.packet.is_none() && self.small.is_none()
    }

    /// The one that is read in that form.
    pub(super) fn of(&self, form: Form) -> &T {
        let other = match form {
            Form::Frame => &None,
            Form::Event => &self.event,
            Form::Packet => &self.packet,
        };
        other.as_ref().unwrap_or(&self.frame)
    }

    /// Each of them as something else.
    pub(super) fn map<U>(self, mut each: impl FnMut(T) -> U) -> Forms<U> {
        Forms {
            frame: each(self.frame),
            event: self.event.map(&mut each),
            packet: self.packet.map(&mut each),
            small: self.small.map(&mut each),
            small_packet: self.small_packet.map(each),
        }
    }
}

impl Forms<Shared> {
    /// The one that is read in that form with that window for compressed messages. No distance in a frame is longer
    /// than the plain one, so a smaller window than the largest is enough for what fits it.
    pub(super) fn read_with(&self, form: Form, window: Option<u8>) -> &Shared {
        let plain = self.of(form);
        let small = match form {
            Form::Frame => &self.small,
            Form::Packet => &self.small_packet,
            Form::Event => &None,
        };
        let fits = |bits: u8| bits >= WINDOW_BITS || plain.size() <= 1 << bits;
        small.as_ref().filter(|_| window.is_some_and(fits)).unwrap_or(plain)
    }
}

/// A message of the server's in that form.
pub(super) fn framed(form: Form, text: &[u8]) -> Vec<u8> {
    match form {
        Form::Frame => websocket::text(text),
        Form::Event => sse::event(None, None, text),
        Form::Packet => {
            let Ok(text) = str::from_utf8(text) else { unreachable!("JSON is text") };
            websocket::text(&packets::said(text))
        }
    }
}

/// The class of publications that are read in that form.
pub(super) fn class(form: Form) -> Class {
    match form {
        Form::Frame => Class::WS_JSON,
        Form::Event => Class::SSE_JSON,
        Form::Packet => Class::SIO_JSON,
    }
}

/// The bytes of a publication in that form, made when they are asked for first. `places`: packets end with their place.
pub(super) fn bytes(publication: &Publication, form: Form, places: bool) -> &Arc<[u8]> {
    publication.bytes(class(form), |publication| match form {
        Form::Frame => websocket::text(&encode_json(publication)),
        Form::Event => {
            let id = stream::event_id(publication);
            sse::event(None, id.as_deref(), &encode_json(publication))
        }
        Form::Packet => {
            let place = stream::event_id(publication).filter(|_| places);
            websocket::text(&packet(&push_of(publication), place.as_deref()))
        }
    })
}

fn packet(push: &Push<'_>, place: Option<&str>) -> Vec<u8> {
    let mut out = Vec::new();
    packets::publication(&mut out, push, place);
    out
}

impl Shard {
    /// What `make` gives for each form that somebody reads here.
    pub(super) fn forms<T>(&self, mut make: impl FnMut(Form) -> T) -> Forms<T> {
        let (streams, packets) =
            (self.counters.stream_connections, self.counters.packet_connections);
        Forms {
            frame: make(Form::Frame),
            event: (streams > 0).then(|| make(Form::Event)),
            packet: (packets > 0).then(|| make(Form::Packet)),
            small: None,
            small_packet: None,
        }
    }

    /// A message of the server's in the forms that somebody reads here.
    pub(super) fn forms_of(&self, text: &[u8]) -> Forms<Vec<u8>> {
        self.forms(|form| framed(form, text))
    }

    /// A publication in the forms that somebody reads here.
    pub(super) fn publication_forms(&self, publication: &Publication) -> Forms<Arc<[u8]>> {
        let places = self.recalls();
        let forms = self.forms(|form| Arc::clone(bytes(publication, form, places)));
        self.with_deflated(publication, forms)
    }
}
