//! TLS in a shard: the layers of its connections, and how much of handshakes a turn takes.
//!
//! A layer lies beside its connection's record, at the same index, and exists from the connection's first
//! byte: a socket that stays silent costs none, and where no listener speaks TLS there is no table. What
//! a layer opens takes the same way as what arrives plain; what a queue has for the kernel is sealed when
//! the write leaves, so that all queues go on sharing their frames.
//!
//! A full handshake costs a signature and a key exchange, hundreds of times what a message costs. So a
//! turn takes a bounded number of steps ([`SecureListener::steps_per_turn`]), and of time for them
//! ([`SecureListener::time_per_turn`]): what a step costs depends on the key, the machine and the peer. Time is told and not
//! asked for: who turns the shard hears that a step was made ([`Shard::wants_time`]) and has a fresh time with what comes
//! next, so a step is charged when the next one is about to begin. Whoever comes later has its bytes
//! kept, is not read from, and stands in a line that the next turns work off. Between them the loop looks
//! for events: a storm of handshakes is no stall for those who are in.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::base::id::ConnId;
use crate::base::shared::Shared;
use crate::base::spare::{Release, cut};
use crate::base::time::Time;
use crate::connection::{Connection, Disconnect, Lane, Pause};
use crate::contract::{Op, SendBatch};
use crate::flow::outbound::Store;
use crate::shard::state::{Shard, enlist};
use crate::wire::tls::{Layer, Peer, SecureListener, ServerConfig};

/// The TLS layers of a shard.
#[derive(Debug)]
pub(super) struct Layers {
    /// By index; reserved with the first, so that it does not move.
    places: Vec<Option<Box<Layer>>>,
    /// What is to be reserved.
    capacity: usize,
    /// How many there are.
    len: usize,
    /// Connections whose handshake waits for a turn. Each is paused for that, and is in here once.
    waiting: VecDeque<ConnId>,
    /// Connections whose keys have failed while they were written to; their end is due.
    broken: Vec<ConnId>,
    /// Steps that this turn may still take.
    steps: u32,
    /// Time that this turn may still take for them.
    left: Duration,
    /// When the last of them began, until it is known how long it took.
    began: Option<Time>,
    /// Scratch for what is opened, and for the frames of a record; both without a meaning between events.
    plain: Vec<u8>,
    gathered: Vec<u8>,
}

impl Layers {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            places: Vec::new(),
            capacity,
            len: 0,
            waiting: VecDeque::new(),
            broken: Vec::new(),
            steps: 0,
            left: Duration::ZERO,
            began: None,
            plain: Vec::new(),
            gathered: Vec::new(),
        }
    }

    /// Number of layers.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// A turn's share.
    fn refill(&mut self, secure: Option<&SecureListener>) {
        self.steps = secure.map_or(0, |secure| secure.steps_per_turn);
        self.left = secure.map_or(Duration::ZERO, |secure| secure.time_per_turn);
        self.began = None;
    }

    /// The step that was made last is over by now.
    pub(super) fn charge(&mut self, now: Time) {
        if let Some(began) = self.began.take() {
            self.left = self.left.saturating_sub(now.since(began));
        }
    }

    /// True while the turn's share is not spent.
    fn may_step(&self) -> bool {
        self.steps > 0 && !self.left.is_zero()
    }

    fn get(&mut self, index: u32) -> Option<&mut Layer> {
        self.places.get_mut(index as usize)?.as_deref_mut()
    }

    /// The layer at an index, which begins now if there is none.
    fn begin(&mut self, index: u32, config: &Arc<ServerConfig>) -> Option<&mut Layer> {
        self.reach(index);
        let place = &mut self.places[index as usize];
        if place.is_none() {
            *place = Some(Box::new(Layer::new(Arc::clone(config)).ok()?));
            self.len += 1;
        }
        place.as_deref_mut()
    }

    fn reach(&mut self, index: u32) {
        let at = index as usize;
        if self.places.len() <= at {
            let spare = self.capacity.saturating_sub(self.places.len());
            self.places.reserve_exact(spare.max(at + 1 - self.places.len()));
            self.places.resize_with(at + 1, || None);
        }
    }

    pub(super) fn remove(&mut self, index: u32) {
        self.take(index);
    }

    /// Puts in a layer that was another connection's.
    fn put(&mut self, index: u32, layer: Box<Layer>) {
        self.reach(index);
        let before = self.places[index as usize].replace(layer);
        assert!(before.is_none(), "connection {index} speaks TLS already");
        self.len += 1;
    }

    /// Takes the layer out, for whoever goes on with it.
    pub(super) fn take(&mut self, index: u32) -> Option<Box<Layer>> {
        let layer = self.places.get_mut(index as usize)?.take();
        self.len -= usize::from(layer.is_some());
        layer
    }

    /// True when frames can be sealed for that connection.
    pub(super) fn is_ready(&self, index: u32) -> bool {
        let place = self.places.get(index as usize).and_then(Option::as_ref);
        place.is_some_and(|layer| layer.is_ready())
    }

    /// What a connection wants of the kernel next, as [`Connection::poll_op`]; its batch is not sealed yet.
    pub(super) fn poll_op(
        &mut self,
        id: ConnId,
        connection: &mut Connection,
        queues: &mut Store,
        spare: &mut Vec<SendBatch>,
    ) -> Option<Op> {
        let Some(layer) = self.get(id.index) else {
            let lane = Lane { is_open: false, is_idle: true };
            return connection.poll_op(id, queues, spare, lane);
        };
        if connection.is_flushed() && !layer.is_sending() {
            layer.finish();
        }
        let lane = Lane {
            is_open: layer.is_ready() && !layer.is_sending(),
            is_idle: !layer.has_output() && !layer.is_sending(),
        };
        if let Some(op) = connection.poll_op(id, queues, spare, lane) {
            return Some(op);
        }
        let has_word = layer.has_output() && !layer.is_sending() && !connection.is_released();
        has_word.then(|| Op::Send { conn: id, batch: spare.pop().unwrap_or_default() })
    }

    /// Seals what an operation has to write, if it writes; an empty batch is for what the layer itself has
    /// to say. `None` when the keys have failed.
    pub(super) fn seal(&mut self, id: ConnId, op: Op) -> Option<Op> {
        let Op::Send { conn, mut batch } = op else { return Some(op) };
        let mut gathered = std::mem::take(&mut self.gathered);
        let layer = self.get(id.index)?;
        let sealed = if batch.is_done() {
            Ok(layer.take_output())
        } else {
            layer.seal(batch.slices(), batch.left(), &mut gathered)
        };
        self.gathered = gathered;
        batch.clear();
        match sealed {
            Ok(sealed) => {
                batch.push(Shared::kept(sealed));
                Some(Op::Send { conn, batch })
            }
            Err(_) => {
                self.broken.push(id);
                None
            }
        }
    }

    /// Notes that the kernel took a connection's write: how many bytes of its queue that was, if any, and
    /// whether the layer has more to say.
    pub(super) fn sent(&mut self, index: u32) -> (Option<usize>, bool) {
        self.get(index).map_or((None, false), |layer| (layer.sent(), layer.has_output()))
    }

    /// When the next turn is due: at once while anybody waits for one.
    pub(super) fn due(&self, now: Time) -> Option<Time> {
        (!self.waiting.is_empty() || !self.broken.is_empty()).then_some(now)
    }

    /// Gives back what the places from `from` on cost; none of them has a layer.
    pub(super) fn trim(&mut self, from: u32, to: &mut impl Release) {
        cut(&mut self.places, from as usize, to);
    }

    /// Gives back what a crowd has left behind.
    pub(super) fn relax(&mut self) {
        (self.plain, self.gathered) = (Vec::new(), Vec::new());
        self.waiting.shrink_to_fit();
    }

    /// Verifies that every layer is a connection's that speaks TLS.
    ///
    /// # Panics
    /// When one is not.
    pub(super) fn check(&self, is_secure: impl Fn(u32) -> bool) {
        let taken = (0_u32..).zip(&self.places).filter(|(_, place)| place.is_some());
        let mut len = 0;
        for (index, _) in taken {
            assert!(is_secure(index), "a TLS layer for {index}, which speaks plainly or is gone");
            len += 1;
        }
        assert_eq!(len, self.len, "TLS layers");
    }
}

impl Shard {
    /// A connection goes on with another one's TLS.
    pub(super) fn put_layer(&mut self, conn: ConnId, layer: Box<Layer>) {
        if let Some(connection) = self.table.get(conn) {
            connection.set_secure();
            self.gate.layers.put(conn.index, layer);
        }
    }

    /// Takes in what arrived for a connection that speaks TLS.
    pub(super) fn handle_sealed(&mut self, conn: ConnId, bytes: &mut [u8], now: Time) {
        let Some(connection) = self.table.get(conn).filter(|c| c.is_heard()) else { return };
        let Some(secure) = &self.settings.routes.tls else { return };
        let layers = &mut self.gate.layers;
        let may_step = layers.may_step() && layers.waiting.is_empty();
        let Some(layer) = layers.begin(conn.index, &secure.config) else {
            return self.handle_lost(conn, now);
        };
        if may_step || !layer.is_handshaking() {
            return self.unseal(conn, bytes, now);
        }
        if layer.keep(bytes).is_err() {
            return self.handle_fault(conn, now);
        }
        if connection.set_pause(Pause::Handshake, true) {
            layers.waiting.push_back(conn);
            self.counters.tls_waits_total += 1;
            enlist(connection, conn.index, &mut self.writes);
        }
    }

    /// True when a step of a handshake was made since time was told: it is to be told anew with what comes next.
    #[must_use]
    pub fn wants_time(&self) -> bool {
        self.gate.layers.began.is_some()
    }

    /// Begins a turn's share of handshakes, and ends whom sealing has failed.
    pub(super) fn begin_handshakes(&mut self, now: Time) {
        for conn in std::mem::take(&mut self.gate.layers.broken) {
            self.handle_lost(conn, now);
        }
        self.gate.layers.refill(self.settings.routes.tls.as_ref());
    }

    /// Spends the turn's share on those whose handshakes wait longest; `time` says what time it is after each step.
    /// What is left of it is for those who come before the next turn.
    pub fn shake_hands(&mut self, mut now: Time, time: &mut dyn FnMut() -> Time) {
        while self.gate.layers.may_step()
            && let Some(conn) = self.gate.layers.waiting.pop_front()
        {
            let Some(connection) = self.table.get(conn) else { continue };
            if connection.set_pause(Pause::Handshake, false) && connection.is_heard() {
                enlist(connection, conn.index, &mut self.writes);
                self.unseal(conn, &mut [], now);
            }
            if self.wants_time() {
                now = time();
                self.gate.layers.charge(now);
            }
        }
    }

    /// Opens what came, and what was kept before it, and takes in what it says.
    fn unseal(&mut self, conn: ConnId, bytes: &mut [u8], now: Time) {
        let layers = &mut self.gate.layers;
        let mut plain = std::mem::take(&mut layers.plain);
        plain.clear();
        let Some(layer) = layers.get(conn.index) else { return };
        let began = layer.is_handshaking();
        let result = layer.open(bytes, &mut plain);
        let (speaks, done) = (layer.has_output(), began && !layer.is_handshaking());
        self.counters.tls_handshakes_total += u64::from(done);
        self.counters.tls_resumed_total += u64::from(done && layer.is_resumed());
        if began && speaks {
            layers.steps = layers.steps.saturating_sub(1);
            layers.began = Some(now);
        }
        if speaks {
            self.enlist(conn.index);
        }
        if !plain.is_empty() {
            self.handle_plain(conn, &mut plain, now);
        }
        self.gate.layers.plain = plain;
        match result {
            Ok(false) => {}
            Ok(true) => self.handle_end(conn, now),
            Err(_) => self.handle_fault(conn, now),
        }
    }

    /// The peer broke TLS, or the two could not agree; the alert is the layer's to send.
    fn handle_fault(&mut self, conn: ConnId, now: Time) {
        let Some(connection) = self.table.get(conn) else { return };
        if connection.is_living() {
            self.close(conn, Disconnect::TlsFailed, now);
        } else {
            connection.handle_fault(&mut self.queues, conn.index);
            self.note_lost(conn);
            self.enlist(conn.index);
        }
    }

    /// Who the client of a connection has proved to be by a certificate; `None` when it showed none or does not
    /// speak TLS. Reads the certificate, so it is not for every message.
    pub(super) fn peer(&self, conn: ConnId) -> Option<Peer> {
        let layer = self.gate.layers.places.get(conn.key())?.as_ref()?;
        self.table.peek(conn.index).filter(|c| c.generation() == conn.generation)?;
        layer.peer()
    }
}
