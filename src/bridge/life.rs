//! One life of the link: from a connection to the error that ends it.
//!
//! One command is under way at a time, each of many parts: subscriptions first, then what waits, and now and
//! then a canary, a message to ourselves that must come back. While it is under way messages are taken in and
//! the node is listened to. The link is up when everything that matters is subscribed to and a canary has
//! come back after that.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::bans::{CHANNEL as BANS, Task};
use super::claims::Errand;
use super::envelope::{Letter, read};
use super::ids::Naming;
use super::line::{Heard, Line, Pending};
use super::outgoing::Sealed;
use super::presence::{Answer, CHANNEL as PRESENCE, Post};
use super::records::Record;
use super::side::{Channel, Mark, Refused, Side};
use super::streams::{Chore, is_kept};
use super::survey::{CHANNEL as SURVEY, Surveys};
use super::tally::{add, set};
use super::thread::{Engine, pause};
use crate::base::time::Time;
use crate::sys::clock::unix_millis;

/// Channels in one command.
const CHANNELS: usize = 512;
/// Envelopes in one command.
const BATCH: usize = 256;
/// Messages taken in before the rest has its turn.
const MESSAGES: usize = 1024;
/// The channel for all nodes.
pub(super) const ALL: &str = "all";
/// How soon shards are asked again that had no space.
const RETRY: Duration = Duration::from_millis(2);

/// What is under way.
enum Work {
    Subscribe,
    Publish(Vec<Sealed>),
    Share(Chore),
    Presence(oneshot::Receiver<Answer>),
    /// What is not worth sending again.
    Survey,
    Ban(Task),
    Claim(Errand),
    Record(Vec<Record>),
    Name(Vec<Naming>),
}

/// How many take turns at the link.
const TURNS: u8 = 8;

/// What was under way, of which nobody knows whether Redis did it.
#[derive(Default)]
pub(super) struct UnderWay {
    pub(super) batch: Vec<Sealed>,
    pub(super) chore: Option<Chore>,
    pub(super) task: Option<Task>,
    pub(super) errand: Option<Errand>,
    pub(super) records: Vec<Record>,
    pub(super) namings: Vec<Naming>,
}

/// The state of one life.
pub(super) struct Life {
    line: Line,
    working: Option<(Pending, Work)>,
    /// The channels that belong to no room are still to be subscribed to.
    own: Vec<Channel>,
    canary: Canary,
    /// There was a link before, or an attempt at one that failed.
    again: bool,
    /// The link has come up in this life.
    is_up: bool,
    /// Whose turn it was: publications, what is numbered, questions, revocations, tickets, what is for back ends, names, or
    /// presence. Publications, which have waited, begin.
    turn: u8,
}

/// When which canary.
struct Canary {
    /// When the one under way left.
    left: Option<Time>,
    next: Time,
}

impl Life {
    pub(super) fn new(line: Line, tag: u32, again: bool, now: Time) -> Self {
        let own = vec![
            Arc::from(ALL),
            Arc::from(PRESENCE),
            Arc::from(SURVEY),
            Arc::from(BANS),
            Surveys::own_channel(tag),
            canary_channel(tag),
        ];
        let canary = Canary { left: None, next: now };
        Self { line, working: None, own, canary, again, is_up: false, turn: TURNS - 1 }
    }

    /// What was under way.
    pub(super) fn end(self) -> UnderWay {
        let mut under_way = UnderWay::default();
        match self.working {
            Some((_, Work::Publish(batch))) => under_way.batch = batch,
            Some((_, Work::Share(chore))) => under_way.chore = Some(chore),
            Some((_, Work::Ban(task))) => under_way.task = Some(task),
            Some((_, Work::Claim(errand))) => under_way.errand = Some(errand),
            Some((_, Work::Record(records))) => under_way.records = records,
            Some((_, Work::Name(namings))) => under_way.namings = namings,
            Some((_, Work::Subscribe | Work::Presence(_) | Work::Survey)) | None => {}
        }
        under_way
    }

    /// Goes on until the link breaks; why it did. Ends only so, or by being dropped.
    pub(super) async fn go_on<S: Side>(&mut self, engine: &mut Engine<S>) -> String {
        loop {
            let more = engine.listen();
            let busy = match self.step(engine) {
                Ok(busy) => busy || more,
                Err(why) => return why,
            };
            if busy || !engine.side.before_sleep() {
                engine.side.awake();
                tokio::task::yield_now().await;
                if let Some((pending, _)) = &mut self.working {
                    // Looked at, not waited for.
                    let done = tokio::time::timeout(Duration::ZERO, pending).await;
                    if let Ok(result) = done
                        && let Err(why) = self.finish(result, engine)
                    {
                        return why;
                    }
                }
                continue;
            }
            if let Err(why) = self.sleep(engine).await {
                return why;
            }
        }
    }

    /// Waits until something happens.
    async fn sleep<S: Side>(&mut self, engine: &mut Engine<S>) -> Result<(), String> {
        let wait = self.wait(engine);
        let pending = async {
            match &mut self.working {
                Some((pending, _)) => pending.await,
                None => std::future::pending().await,
            }
        };
        let (mut heard, mut done) = (None, None);
        tokio::select! {
            biased;
            result = pending => done = Some(result),
            message = self.line.heard.recv() => heard = Some(message),
            () = engine.wake.woken() => {}
            () = pause(wait) => {}
        }
        engine.side.awake();
        match heard {
            Some(Some(message)) => self.take(&message, engine),
            Some(None) => return Err("the connection has ended".to_owned()),
            None => {}
        }
        done.map_or(Ok(()), |result| self.finish(result, engine))
    }

    /// How long there is nothing to do if nothing happens.
    fn wait<S: Side>(&self, engine: &Engine<S>) -> Duration {
        if !engine.is_flushed {
            return RETRY;
        }
        let now = engine.clock.now();
        let overdue = self.canary.left.map(|left| left.plus(engine.options.patience.command));
        let presence = engine.peers.presence.as_ref().and_then(Post::due);
        let survey = engine.peers.surveys.due();
        let bans = engine.peers.bans.due();
        let due = [Some(self.canary.next), overdue, engine.interest.due(), presence, survey, bans];
        let next = due.into_iter().flatten().filter(|due| *due > now).min();
        next.map_or(RETRY, |due| due.since(now))
    }

    /// Takes in what came and begins what is next. True when there is more to take in.
    fn step<S: Side>(&mut self, engine: &mut Engine<S>) -> Result<bool, String> {
        if self.line.has_ended() {
            return Err("the connection has ended".to_owned());
        }
        let mut taken = 0;
        while taken < MESSAGES
            && let Ok(message) = self.line.heard.try_recv()
        {
            self.take(&message, engine);
            taken += 1;
        }
        if self.line.take_overrun() {
            engine.tell_all_gaps();
            engine.peers.presence.iter_mut().for_each(Post::missed);
        }
        engine.flush();
        let now = engine.clock.now();
        let overdue = engine.options.patience.command;
        if self.canary.left.is_some_and(|left| now.since(left) > overdue) {
            return Err(format!("a canary did not come back within {overdue:?}"));
        }
        if self.working.is_none() {
            self.working = self.next_work(engine, now);
        }
        Ok(taken == MESSAGES)
    }

    fn next_work<S: Side>(&mut self, engine: &mut Engine<S>, now: Time) -> Option<(Pending, Work)> {
        let mut joins = engine.interest.joins(CHANNELS);
        joins.append(&mut self.own);
        if !joins.is_empty() {
            return Some((self.line.subscribe(&joins, true), Work::Subscribe));
        }
        let leaves = engine.interest.leaves(CHANNELS, now);
        set(&engine.tally.subscriptions, engine.interest.len());
        if !leaves.is_empty() {
            engine.streams.unfollow(&leaves, &mut engine.side);
            return Some((self.line.subscribe(&leaves, false), Work::Subscribe));
        }
        if self.canary.left.is_none() && now >= self.canary.next {
            self.canary.left = Some(now);
            self.canary.next = now.plus(engine.options.canary);
            let bytes = engine.writer.write(None, None, false);
            let channels = vec![canary_channel(engine.options.tag)];
            let canary = Sealed { channels, bytes };
            return Some((self.line.publish_canary(&canary), Work::Publish(Vec::new())));
        }
        // Each has its turn, and who has nothing to do passes it on.
        self.turn = (self.turn + 1) % TURNS;
        (0..TURNS).find_map(|step| match (self.turn + step) % TURNS {
            0 => self.publish(engine),
            1 => self.share(engine),
            2 => self.survey(engine),
            3 => self.tell_bans(engine, now),
            4 => self.claim(engine, now),
            5 => self.record(engine),
            6 => self.name(engine),
            _ => self.ask_presence(engine, now),
        })
    }

    fn publish<S: Side>(&self, engine: &mut Engine<S>) -> Option<(Pending, Work)> {
        // Whom it concerns is there once the link is up again.
        if !self.is_up {
            return None;
        }
        let batch = engine.outgoing.take(BATCH);
        set(&engine.tally.queued, engine.outgoing.len() + batch.len());
        (!batch.is_empty()).then(|| (self.line.publish(&batch), Work::Publish(batch)))
    }

    fn ask_presence<S: Side>(&self, engine: &mut Engine<S>, now: Time) -> Option<(Pending, Work)> {
        let presence = engine.peers.presence.as_mut()?;
        let ask = presence.next(now)?;
        let (pending, answer) = self.line.inquire(Arc::clone(&presence.clerk), ask);
        Some((pending, Work::Presence(answer)))
    }

    fn tell_bans<S: Side>(&self, engine: &mut Engine<S>, now: Time) -> Option<(Pending, Work)> {
        let (has_space, unix) = (engine.side.has_space(), unix_millis() / 1000);
        let work = engine.peers.bans.next(&self.line, has_space, now, unix);
        work.map(|(pending, task)| (pending, Work::Ban(task)))
    }

    fn claim<S: Side>(&self, engine: &mut Engine<S>, now: Time) -> Option<(Pending, Work)> {
        let work = engine.peers.claims.next(&self.line, now, unix_millis());
        work.map(|(pending, errand)| (pending, Work::Claim(errand)))
    }

    fn record<S: Side>(&self, engine: &mut Engine<S>) -> Option<(Pending, Work)> {
        let work = engine.peers.records.next(&self.line);
        work.map(|(pending, records)| (pending, Work::Record(records)))
    }

    fn name<S: Side>(&self, engine: &mut Engine<S>) -> Option<(Pending, Work)> {
        let work = engine.peers.ids.next(&self.line);
        work.map(|(pending, namings)| (pending, Work::Name(namings)))
    }

    fn survey<S: Side>(&self, engine: &mut Engine<S>) -> Option<(Pending, Work)> {
        let batch = engine.peers.surveys.take(BATCH);
        (!batch.is_empty()).then(|| (self.line.publish(&batch), Work::Survey))
    }

    fn share<S: Side>(&self, engine: &mut Engine<S>) -> Option<(Pending, Work)> {
        let chore = engine.streams.next_chore(&self.line, self.is_up, engine.is_flushed);
        chore.map(|(pending, chore)| (pending, Work::Share(chore)))
    }

    fn finish<S: Side>(
        &mut self,
        result: redis::RedisResult<Vec<redis::Value>>,
        engine: &mut Engine<S>,
    ) -> Result<(), String> {
        let answers = match result {
            Ok(answers) => answers,
            Err(error) => {
                // What was under way is taken back by `end`.
                if let Some((pending, _)) = &mut self.working {
                    *pending = Box::pin(std::future::pending());
                }
                return Err(error.to_string());
            }
        };
        match self.working.take() {
            Some((_, Work::Publish(batch))) => {
                add(&engine.tally.published, batch.len());
                set(&engine.tally.queued, engine.outgoing.len());
                Ok(())
            }
            Some((_, Work::Share(chore))) => {
                engine.streams.finish(chore, answers, &mut engine.side)
            }
            Some((_, Work::Presence(mut answer))) => {
                if let (Some(presence), Ok(answer)) =
                    (&mut engine.peers.presence, answer.try_recv())
                {
                    presence.answer(answer, engine.clock.now(), &engine.tally);
                }
                Ok(())
            }
            Some((_, Work::Ban(task))) => {
                let times = (engine.clock.now(), unix_millis() / 1000);
                engine.peers.bans.finish(task, answers, &mut engine.side, times);
                Ok(())
            }
            Some((_, Work::Claim(errand))) => {
                engine.peers.claims.finish(errand, answers);
                Ok(())
            }
            Some((_, Work::Name(namings))) => {
                engine.peers.ids.finish(namings, answers);
                Ok(())
            }
            Some((_, Work::Record(records))) => {
                engine.peers.records.finish(records, answers);
                Ok(())
            }
            Some((_, Work::Subscribe | Work::Survey)) | None => Ok(()),
        }
    }

    /// A canary has come back: the link does what it should.
    fn note_canary<S: Side>(&mut self, engine: &mut Engine<S>) {
        self.canary.left = None;
        add(&engine.tally.canaries, 1);
        if self.is_up {
            return engine.peers.bans.look();
        }
        // It left when nothing was left to subscribe to.
        self.is_up = true;
        engine.come_up(self.again);
    }

    fn take<S: Side>(&mut self, (name, payload): &Heard, engine: &mut Engine<S>) {
        let name = String::from_utf8_lossy(name);
        if let Some(said) = self.line.emitted(&name) {
            return engine.hear_emitter(said, &name, payload);
        }
        let Some(channel) = self.line.channel_of(&name) else { return };
        if channel.starts_with(CANARY) {
            if engine.writer.wrote(payload) {
                self.note_canary(engine);
            }
            return;
        }
        if channel == PRESENCE {
            return engine.hear_presence(payload);
        }
        if channel == BANS {
            return engine.hear_ban(payload);
        }
        if channel.starts_with(SURVEY) {
            return engine.hear_survey(payload);
        }
        if engine.writer.wrote(payload) {
            return add(&engine.tally.echoes, 1);
        }
        if is_kept(payload) {
            let heard = engine.streams.hear(channel, payload, &mut engine.side);
            return heard.unwrap_or_else(|why| engine.note_malformed(channel, &why));
        }
        let read = str::from_utf8(payload).map_err(|error| error.to_string());
        let letter = match read.and_then(read_letter) {
            Ok(letter) => letter,
            Err(why) => return engine.note_malformed(channel, &why),
        };
        let result = match &letter {
            Letter::Foreign(order) => engine.side.deliver(channel, order, None, true, None),
            Letter::Far(envelope) => {
                if !engine.windows.first(&envelope.node, envelope.epoch, envelope.seq) {
                    return add(&engine.tally.duplicates, 1);
                }
                if envelope.lost {
                    return engine.tell_gaps(&[Channel::from(channel)]);
                }
                let Some(order) = envelope.order else { return };
                let count = envelope.count.map(|(to, number)| Mark { to, number });
                let from = envelope.from.as_deref();
                engine.side.deliver(channel, order.get(), from, false, count)
            }
        };
        match result {
            Ok(()) => add(&engine.tally.delivered, 1),
            Err(Refused::Malformed(why)) => engine.note_malformed(channel, &why),
            Err(Refused::Full) => {
                add(&engine.tally.overrun, 1);
                engine.tell_gaps(&[Channel::from(channel)]);
            }
        }
    }
}

fn read_letter(text: &str) -> Result<Letter<'_>, String> {
    read(text)
}

const CANARY: &str = "canary:";

fn canary_channel(tag: u32) -> Channel {
    Arc::from(format!("{CANARY}{tag:x}"))
}
