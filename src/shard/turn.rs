//! A turn of a shard: events in, time passes, mail in, operations and mail out.
//!
//! The order within a turn is the loop's (`node::worker`). Nothing acts on the kernel in here: what an
//! event causes is queued and leaves by [`Shard::poll_op`] and [`Shard::poll_mail`] at the end of the
//! turn, so one write carries what many events caused.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::base::id::{ConnId, ShardId};
use crate::base::shared::Shared;
use crate::base::time::{Tick, Time};
use crate::connection::{Disconnect, Due, Lane, Pause, Phase};
use crate::contract::{Event, Op, SendBatch};
use crate::flow::outbound::Control;
use crate::shard::farewells::Told;
use crate::shard::mail::{Answer, Mail};
use crate::shard::state::{Shard, enlist, own_settings};

/// Places in the wheel looked at in one turn: the longest walk that time alone can cause.
const EXPIRIES_PER_TURN: usize = 128;

/// When a silent peer of which something lies unread is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Shard {
    /// Takes in what the driver reports.
    pub fn handle_event(&mut self, event: Event<'_>, now: Time) {
        self.gate.layers.charge(now);
        match event {
            Event::Accepted { socket, listener, peer } => {
                self.handle_accepted(socket, (listener, peer.map(|peer| peer.ip())), now);
            }
            Event::AcceptFailed { .. } => self.handle_accept_failed(now),
            Event::Received { conn, bytes } => self.handle_received(conn, bytes, now),
            Event::ReceivedEnd { conn } => self.handle_end(conn, now),
            Event::Sent { conn, batch, bytes } => self.handle_sent(conn, batch, bytes, now),
            Event::Lost { conn, .. } => self.handle_lost(conn, now),
            Event::Looked { conn, unread } => self.handle_looked(conn, unread, now),
            Event::HandedOver { conn, socket } => self.handle_handed_over(conn, socket, now),
            Event::Closed { conn } => self.handle_closed(conn, now),
        }
    }

    pub(super) fn handle_end(&mut self, conn: ConnId, now: Time) {
        let Some(connection) = self.table.get(conn) else { return };
        if connection.is_living() {
            self.close(conn, Disconnect::Vanished, now);
        } else {
            connection.handle_end();
            self.enlist(conn.index);
        }
    }

    pub(super) fn handle_lost(&mut self, conn: ConnId, now: Time) {
        let Some(connection) = self.table.get(conn) else { return };
        if connection.is_living() {
            self.close(conn, Disconnect::Lost, now);
        } else {
            connection.handle_lost(&mut self.queues, conn.index);
            self.note_lost(conn);
            self.enlist(conn.index);
        }
    }

    /// A peer is given up for its silence when nothing of it lies unread. In a shard with more input than it
    /// can read in time what does is on its way, and the peer is no less alive for it.
    fn handle_looked(&mut self, conn: ConnId, unread: bool, now: Time) {
        let Some(connection) = self.table.get(conn) else { return };
        if unread {
            self.counters.heartbeat_spared_total += 1;
        } else if connection.is_living() {
            self.close(conn, Disconnect::HeartbeatLost, now);
        }
    }

    pub(super) fn handle_closed(&mut self, conn: ConnId, now: Time) {
        if let Some(mut connection) = self.table.remove(conn) {
            self.counters.paused_connections -= u64::from(connection.is_told_paused());
            connection.outbound.clear(&mut self.queues, conn.index);
            self.note_lost(conn);
            self.gate.layers.remove(conn.index);
            self.gate.seats.leave(conn.index);
            self.uncharge_tenant(conn.index);
            self.measures.farewells.leave(conn.index);
            self.gate.pressure.half_read -= connection.decoder.buffered_capacity() as u64;
            if let Some(session) = self.gate.people.petitions.passages.forget(conn) {
                self.lose_switch(session, now);
            }
        }
    }

    fn handle_sent(&mut self, conn: ConnId, mut batch: SendBatch, bytes: usize, now: Time) {
        let tag = batch.tag;
        batch.clear();
        self.writes.keep(batch);
        self.counters.sent_bytes_total += bytes as u64;
        if self.counts_bytes() && self.table.get(conn).is_some() {
            self.measures.farewells.count(conn.index, 1, bytes);
        }
        let Some(connection) = self.table.get(conn) else { return };
        // What was sealed is longer than what was queued, and may have been no part of the queue.
        let (of_queue, more) = if connection.is_secure() {
            self.gate.layers.sent(conn.index)
        } else {
            (Some(bytes), false)
        };
        let limits = self.settings.queue_of(connection);
        if let Some(bytes) = of_queue {
            connection.outbound.sent(&mut self.queues, conn.index, bytes, limits);
            if self.measures.outcomes.is_on() {
                self.measures.outcomes.written(conn, tag);
            }
        }
        // The state decides and not the report: a push can relieve a queue as well, by dropping.
        connection.outbound.poll_pressure();
        let relieved = connection.is_paused() && !connection.outbound.is_congested();
        if relieved {
            connection.set_pause(Pause::Congested, false);
        }
        if relieved || more || !connection.outbound.is_empty() || connection.awaits_write() {
            enlist(connection, conn.index, &mut self.writes);
        }
        if connection.outbound.has_gaps() && !connection.outbound.is_congested() {
            self.tell_gaps(conn, now);
        }
        self.catch_up(conn, now);
    }

    /// Our own code panicked while it handled an event of this connection.
    pub fn handle_panic(&mut self, conn: Option<ConnId>, now: Time) {
        if let Some(conn) = conn {
            self.close(conn, Disconnect::Panicked, now);
        }
    }

    /// Lets time pass: at most a bounded number of deadlines per turn.
    pub fn handle_timeout(&mut self, now: Time) {
        self.counters.turns_total += 1;
        self.measures.outcomes.pass(now);
        self.begin_handshakes(now);
        self.tend_carriers(now);
        let mut fired = std::mem::take(&mut self.table.fired);
        self.table.wheel.expire(now.tick(), EXPIRIES_PER_TURN, &mut fired);
        self.table.fetch(&fired);
        for key in fired.drain(..) {
            self.handle_due(key, now);
        }
        self.table.fired = fired;
        self.queues.relax(now.tick());
        self.sweep_some(now);
        self.inspect_some(now);
        self.fail_some(now);
        self.tend_presence(now);
        self.resume_delayed(now);
        self.age_history(now);
        self.tend_shelf(now);
        self.mind_hoards(now);
        self.mind_memory(now);
        self.retry_accept(now);
        self.drain_some(now);
    }

    fn handle_due(&mut self, key: u32, now: Time) {
        let tick = now.tick();
        let Some((id, connection)) = self.table.at(key) else { return };
        let due = connection.handle_timeout(tick, &self.settings.timeouts, &self.queues);
        if matches!(due, Due::Nothing(_) | Due::Ping(_)) && self.tend_token(id, now) {
            return;
        }
        let token = self.next_of_token(key, now);
        let before_token = |next: Tick| token.map_or(next, |token| token.min(next));
        let Some((id, connection)) = self.table.at(key) else { return };
        match due {
            Due::Nothing(next) => {
                let is_probe = connection.is_probe();
                self.table.wheel.set(key, before_token(next));
                if is_probe {
                    self.urge_poll(id, now);
                }
            }
            Due::Ping(next) => {
                self.table.wheel.set(key, before_token(next));
                self.beat(key, tick);
            }
            Due::End(Disconnect::HandshakeTimeout) => self.refuse_late(id, now),
            Due::End(Disconnect::HeartbeatLost) => {
                self.writes.ops.push_back(Op::Look { conn: id });
                self.table.wheel.set(key, before_token(tick.plus(LOOK_AGAIN)));
            }
            Due::End(why) => self.close(id, why, now),
            Due::Release => {
                connection.handle_close_deadline(&mut self.queues, key);
                self.note_lost(id);
                // Should the driver's word be late, the connection is looked at again.
                self.table.wheel.set(key, tick.plus(self.settings.timeouts.close));
                self.enlist(key);
            }
        }
    }

    /// Queues a ping. Never part of its caller, so that a profile tells what deadlines cost from what they lead to.
    #[inline(never)]
    fn beat(&mut self, key: u32, now: Tick) {
        let Some((_, connection)) = self.table.at(key) else { return };
        let ping = self.writes.ping(connection.form());
        connection.outbound.push_control(&mut self.queues, ping, Control::Ping, now);
        self.counters.pings_total += 1;
        enlist(connection, key, &mut self.writes);
    }

    fn take_answer(&mut self, answer: &Answer, now: Time) {
        let conn = answer.question.to.conn;
        self.handle_answer(answer, now);
        self.catch_up(conn, now);
    }

    /// Takes in mail from another shard or from the node.
    pub fn handle_mail(&mut self, mail: Mail, now: Time) {
        self.counters.mail_taken_total += 1;
        match mail {
            Mail::Publish { drafts, group, across } => {
                self.take_in_turn(SmallVec::from_vec(drafts), group, across, now);
            }
            Mail::Submit(submission) => self.handle_submission(*submission, now),
            // The node's own and the bridge's, which read them before they would get here.
            Mail::Report(_) | Mail::Across { .. } | Mail::Interest { .. } | Mail::Here(_) => {}
            Mail::Claim(_) | Mail::Record(_) | Mail::Name(_) | Mail::Replied(_) => {}
            // Who turns the shard gives it with its socket.
            Mail::Transfer(_) => {}
            Mail::Named(named) => self.handle_named(&named, now),
            Mail::Recorded(told) => self.handle_recorded(*told, now),
            Mail::Joint(joint) => self.handle_joint(*joint, now),
            Mail::Afar(news) => self.handle_afar(news, now),
            Mail::Astray(rooms) => self.handle_astray(&rooms, now),
            Mail::Count { room, shard, members } => self.set_count(&room, shard, members, now),
            Mail::Stand { user, shard, stand } => self.handle_stand(&user, shard, stand, now),
            Mail::Inquire(number, inquire) => self.handle_inquire(number, &inquire),
            Mail::Presence(word) => self.handle_word(*word, now),
            Mail::Ask(question) => self.answer(*question, now),
            Mail::Once(asked) => self.handle_once(asked.0, asked.1, now),
            Mail::Deliver { publications, group } => {
                self.deliver(&publications, group.as_ref(), now);
            }
            Mail::Answer(answer) => self.take_answer(&answer, now),
            Mail::Redeem(asked) => self.redeem(asked.0, asked.1, now),
            Mail::Redeemed { to, fresh } => self.handle_redeemed(to, fresh, now),
            Mail::Proven(proven) => self.handle_proven(*proven, now),
            Mail::Packed(done) => self.handle_packed(*done, now),
            // The node's desk has the first three; a shard is never sent one.
            Mail::Inquiry(_) | Mail::Tidings(_) | Mail::Petition(_) | Mail::Wake => {}
            Mail::Ruling(answer) => self.handle_ruling(answer.0, answer.1, now),
            Mail::Polling(polling) => self.handle_polling(*polling, now),
            Mail::Polled(answer) => self.handle_polled(answer.0, answer.1, now),
            Mail::Recall(recall) => self.handle_recall(&recall, now),
            Mail::Recalled(recalled) => self.handle_recalled(*recalled, now),
            Mail::Answered(answer) => self.handle_answered(answer.0, answer.1, now),
            Mail::Revoke(revocation) => self.handle_revoke(&revocation, now),
            Mail::Keys(keys) => self.handle_keys(keys),
            Mail::Enter { party, conn, most } => {
                self.handle_enter(party, conn, most);
                self.evict_some(now);
            }
            Mail::Leave { party, conn } => self.gate.tally.leave(party, conn),
            Mail::Evict { conn, excess } => self.handle_evict(conn, excess, now),
            Mail::Toll(toll) => self.handle_toll(&toll, now),
            Mail::Share(share) => self.handle_share(share.0, &share.1, now),
            Mail::Hold(holding) => self.handle_hold(&holding, now),
            Mail::Held(holding) => self.handle_held(&holding, now),
            Mail::Begin(begin, from) => self.handle_begin(begin, from),
            Mail::End(party) => self.handle_room_end(party),
            Mail::Verdict(begin, granted) => self.handle_verdict(&begin, granted, now),
            Mail::Refused(question) => self.handle_refused(&question, now),
            Mail::Awaits(awaits) => self.handle_awaits(&awaits),
            Mail::Awaited(awaits) => self.handle_awaited(&awaits),
            Mail::Kept(kept) => self.handle_kept(&kept, now),
            Mail::Saved(saved) => self.handle_saved(&saved, now),
            Mail::Notice(notice) => self.handle_notice(&notice, now),
            Mail::Drain(window) => self.handle_drain(window, now),
            Mail::Settings(settings) => self.handle_settings(settings, now),
            Mail::Mark(number) => self.gate.mark = number,
            Mail::Survey(number) => self.handle_survey(number),
            Mail::Stop => self.gate.stopped = true,
        }
    }

    fn handle_settings(&mut self, settings: Arc<crate::shard::Settings>, now: Time) {
        self.writes.set_window(settings.capacity.flush_window);
        self.gate.pressure.set_limits(&settings.queue);
        let anew = !settings.rooms.has_namespaces_of(&self.settings.rooms);
        if anew {
            self.measures.forget_losses();
        }
        if settings.capacity.told == Told::Nothing {
            self.measures.farewells.end();
        }
        self.settings = Rc::new(own_settings(settings, &self.identity.seed));
        self.set_hoards(anew);
        if self.measures.outcomes.size() != self.settings.capacity.outcomes {
            self.remember_outcomes(now);
        }
        self.join_keys();
        // A lower budget holds at once: where nothing else happens, no turn would come that looks at it.
        self.mind_memory(now);
    }

    /// True while requests may be taken from the inbox; deliveries always may.
    #[must_use]
    pub fn takes_requests(&self) -> bool {
        !self.outbox.has_parked_deliveries()
    }

    /// Offers all waiting mail to `post`, which gives back what an inbox had no space for; that is
    /// parked and offered again on the next call.
    pub fn poll_mail(&mut self, post: &mut dyn FnMut(ShardId, Mail) -> Result<(), Mail>) {
        if !self.outbox.is_blocked() {
            let now = self.rooms.presence.now;
            self.push_counts(now);
            self.post_news(now);
            self.post_here();
            self.post_wants(now);
            self.post_holdings(now);
            self.post_awaited();
        }
        let was_blocked = self.outbox.is_blocked();
        self.counters.mail_sent_total += self.outbox.offer(post);
        if was_blocked && !self.outbox.is_blocked() {
            for conn in std::mem::take(&mut self.outbox.paused) {
                if let Some(connection) = self.table.get(conn) {
                    connection.set_pause(Pause::Mail, false);
                    enlist(connection, conn.index, &mut self.writes);
                }
            }
        }
    }

    /// Decides whether this turn's writes leave now or gather more first. `busy`: this turn found
    /// something to read, or mail, and did not sleep for it. To be called once a turn, before
    /// [`Shard::poll_op`].
    pub fn begin_writes(&mut self, busy: bool, now: Time) {
        self.walk_some(now);
        self.settle(now);
        self.release_delayed(now);
        self.rooms.replays.relax();
        if self.writes.begin(busy, now) {
            self.counters.flush_waits_total += 1;
        }
    }

    /// The next operation for the driver; `None` when this turn has no more: a long list of connections is
    /// served in slices, and [`Shard::poll_timeout`] is zero until its end.
    pub fn poll_op(&mut self) -> Option<Op> {
        while let Some(op) = self.writes.ops.pop_front() {
            if let Err(op) = self.carry(op) {
                return Some(op);
            }
        }
        while let Some(index) = self.writes.current() {
            if let Some((id, connection)) = self.table.at(index) {
                let (queues, spare) = (&mut self.queues, &mut self.writes.spare);
                let (is_secure, is_carried) = (connection.is_secure(), connection.is_carried());
                let op = if is_secure {
                    self.gate.layers.poll_op(id, connection, queues, spare)
                } else {
                    connection.poll_op(id, queues, spare, Lane::PLAIN)
                };
                match op {
                    Some(mut op) => {
                        self.writes.count(&op);
                        match &mut op {
                            Op::Send { batch, .. } => {
                                // The last write has its FIN right behind it.
                                if !connection.is_flushing() {
                                    connection.delist();
                                    self.writes.advance();
                                }
                                self.counters.writes_total += 1;
                                self.counters.sent_frames_total += batch.frames();
                                self.measures.frames.note(batch.frames(), 1);
                                if self.measures.outcomes.is_on() {
                                    self.measures.outcomes.hand_over(id, batch);
                                }
                            }
                            Op::PauseReads { .. } => self.counters.paused_connections += 1,
                            Op::ResumeReads { .. } => self.counters.paused_connections -= 1,
                            _ => {}
                        }
                        if is_carried {
                            let taken = self.carry(op);
                            assert!(taken.is_ok(), "no carrier takes {taken:?}");
                            continue;
                        }
                        if !is_secure {
                            return Some(op);
                        }
                        match self.gate.layers.seal(id, op) {
                            Some(op) => return Some(op),
                            None => continue,
                        }
                    }
                    None => connection.delist(),
                }
            }
            self.writes.advance();
        }
        None
    }

    /// How long the loop may sleep: `None` until something happens.
    #[must_use]
    pub fn poll_timeout(&self, now: Time) -> Option<Duration> {
        let due = [
            self.writes.due(now),
            (!self.rooms.bundle.is_empty()).then_some(now),
            self.gate.layers.due(now),
            self.has_carriers_ready().then_some(now),
            self.table.wheel.next().map(|tick| tick.start()),
            self.gate.retry,
            self.gate.paces.due(),
            self.gate.pressure.due(now),
            self.gate.drain.as_ref().map(|drain| drain.due),
            self.relief.due(),
            self.presence_due(),
            self.queues.due(),
            self.history_due(),
            self.rooms.shelf.due(),
            (!self.gate.people.sweeps.is_empty()).then_some(now),
            self.is_surveying().then_some(now),
            self.is_inspecting().then_some(now),
            (!self.gate.people.consults.failed.is_empty()).then_some(now),
            self.rooms.walks.is_ready().then_some(now),
        ];
        due.into_iter().flatten().min().map(|at| at.since(now))
    }

    /// The connection an event is about, for the blame when handling it panics.
    #[must_use]
    pub fn blame(event: &Event<'_>) -> Option<ConnId> {
        match event {
            Event::Accepted { .. } | Event::AcceptFailed { .. } => None,
            Event::Received { conn, .. }
            | Event::ReceivedEnd { conn }
            | Event::Sent { conn, .. }
            | Event::Lost { conn, .. }
            | Event::Looked { conn, .. }
            | Event::HandedOver { conn, .. }
            | Event::Closed { conn } => Some(*conn),
        }
    }

    fn refuse_late(&mut self, id: ConnId, now: Time) {
        if self.is_reading(id) {
            return self.give_up_reading(id, now);
        }
        if self.is_polling(id) {
            return self.hurry_poll(id, now);
        }
        let response = crate::wire::http::Refusal::timeout().response();
        let tick = now.tick();
        let queues = &mut self.queues;
        if let Some(connection) = self.table.get(id)
            && matches!(connection.phase(), Phase::Opening { .. })
            && (!connection.is_secure() || self.gate.layers.is_ready(id.index))
        {
            connection.outbound.push_control(queues, Shared::kept(response), Control::Close, tick);
        }
        self.close(id, Disconnect::HandshakeTimeout, now);
    }
}
