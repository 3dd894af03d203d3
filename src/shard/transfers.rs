//! WebSockets that have come to another shard than the session they are for.
//!
//! A session stays where it has begun, and the kernel gives a new socket to any shard. Whoever gets one whose request
//! names a session of another shard has judged nothing yet: the socket leaves with every byte that was read of it, as
//! one does that goes to another server, and begins anew over there, as if it had been accepted there. Nothing of the
//! session depends on its getting through: without space on the way the socket is closed, and the session polls on.
//!
//! Workers have descriptor tables of their own, so the socket itself does not travel by mail: whoever turns the shard
//! sends it and says by which number it is found again.

use std::collections::VecDeque;

use crate::base::id::{ConnId, ShardId};
use crate::base::outside::Handed;
use crate::base::party::Party;
use crate::base::time::Time;
use crate::contract::Op;
use crate::shard::mail::Mail;
use crate::shard::passages::To;
use crate::shard::petitions::LATER;
use crate::shard::seats::{CROWDED, TRUSTED};
use crate::shard::state::Shard;
use crate::wire::http::Refusal;
use crate::wire::tls::Layer;

/// Connections of a shard that are on their way to others at one time.
const MOST: usize = 4096;

/// A connection on its way to another shard, but for its socket.
#[derive(Debug)]
pub struct Transfer {
    pub(super) to: ShardId,
    /// Whose connection it is, as far as that is known.
    pub(super) party: Option<Party>,
    /// Its request may name the client, as it comes by a proxy that is believed.
    pub(super) is_trusted: bool,
    /// What has come, as far as it was opened.
    pub(super) said: Vec<u8>,
    /// What came behind that.
    pub(super) unread: Vec<u8>,
    /// Its TLS; `None` where it speaks plainly.
    pub(super) layer: Option<Box<Layer>>,
}

impl Transfer {
    /// What it costs while it waits, in bytes.
    pub(super) fn cost(&self) -> usize {
        size_of::<Self>() + self.said.len() + self.unread.len()
    }
}

/// Connections that go to other shards.
#[derive(Debug, Default)]
pub(super) struct Transfers {
    /// Those of which the driver has yet to let go.
    pub(super) leaving: usize,
    /// Those that have left, until the end of the turn.
    pub(super) out: VecDeque<(Transfer, Handed)>,
}

impl Shard {
    /// A request has come for a session of that shard: what has arrived so far is `said`.
    pub(super) fn begin_transfer(&mut self, conn: ConnId, to: ShardId, said: Vec<u8>, now: Time) {
        let is_crowded = self.gate.people.petitions.passages.transfers.leaving >= MOST;
        if is_crowded || self.is_overloaded() {
            return self.refuse_handshake(conn, &Refusal::unavailable(Some(LATER)), now);
        }
        let seats = &self.gate.seats;
        let (party, is_trusted) = (seats.party(conn.index), seats.has(conn.index, TRUSTED));
        let (nothing, layer) = (Vec::new(), None);
        let transfer =
            Transfer { to, party, is_trusted, said: nothing.clone(), unread: nothing, layer };
        self.send_off(conn, To::Shard(transfer), said, now);
    }

    /// Hands the sockets of connections that go to other shards to `send`, which says by which number each is found
    /// there, or that it has no space. To be called once a turn, before mail is.
    pub fn poll_transfers(&mut self, send: &mut dyn FnMut(ShardId, Handed) -> Option<u64>) {
        while let Some((transfer, socket)) =
            self.gate.people.petitions.passages.transfers.out.pop_front()
        {
            let to = transfer.to;
            match send(to, socket) {
                Some(number) => {
                    self.outbox.push(to, Mail::Transfer(Box::new((number, transfer))));
                }
                None => self.counters.transfers_lost_total += 1,
            }
        }
    }

    /// A connection comes from another shard. Without its socket, for which there was no space, it is none.
    pub fn handle_transfer(&mut self, transfer: Transfer, socket: Option<Handed>, now: Time) {
        let is_closed = self.gate.drain.is_some() || self.is_beyond();
        let Some(socket) = socket.filter(|_| !is_closed) else {
            self.counters.transfers_lost_total += 1;
            return;
        };
        self.counters.transfers_total += 1;
        let Transfer { party, is_trusted, mut said, mut unread, layer, .. } = transfer;
        let crowded = self.gate.opening >= self.settings.limits.door.most;
        let conn = self.table.insert(now.tick());
        self.gate.opening += 1;
        self.table.wheel.set(conn.index, now.tick().plus(self.settings.timeouts.handshake));
        self.writes.ops.push_back(Op::Adopt { conn, socket });
        if let Some(layer) = layer {
            self.put_layer(conn, layer);
        }
        self.seat_as(conn, party, is_trusted);
        self.gate.seats.set(conn.index, CROWDED, crowded);
        self.evict_some(now);
        self.handle_plain(conn, &mut said, now);
        if !unread.is_empty() {
            self.handle_sealed(conn, &mut unread, now);
        }
    }
}
