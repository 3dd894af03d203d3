//! The work that shared histories make for a link, and what comes of it.
//!
//! A link does one piece of work at a time: here a batch of publications to be numbered, or a batch of reads. Both
//! take turns. What a broken link was doing goes again over the next, where the rooms that are followed are read
//! all anew, as nobody knows what was lost last.

use std::collections::VecDeque;
use std::sync::Arc;

use redis::{Value, cmd};

use super::append::{Appends, Waiting};
use super::follow::{Follower, Heard, Read};
use super::script::{APPEND, Keys, Letter, READ, Reading, Trouble, reading, verdict};
use super::side::{Append, Entry, Fetch, Found, Lost, Refusal, Verdict};
use crate::base::cursor::{Cursor, Stale};
use crate::base::map::{Map, Seed};
use crate::bridge::line::{Line, Pending};
use crate::bridge::options::Options;
use crate::bridge::side::{Channel, Refused, Side};
use crate::bridge::tally::{Tally, add, set};

/// Publications, and reads, in one command.
const APPENDS: usize = 64;
const READS: usize = 16;
/// What one read of a room that is followed brings at most: publications, and bytes.
const PORTION: (usize, usize) = (256, 131_072);
/// Questions for what came after a place that may wait.
const MOST_FETCHES: usize = 1024;
/// Of what Redis refuses, one in so many is logged.
const LOGGED: u64 = 1000;

/// A piece of work.
#[derive(Debug)]
pub(in crate::bridge) enum Chore {
    /// Make the scripts known.
    Load,
    Append(Vec<Waiting>),
    Read(Vec<Reader>),
}

/// For whom something is read.
#[derive(Debug)]
pub(in crate::bridge) enum Reader {
    /// For the node, that follows the room.
    Room(Channel),
    /// For a member that was away.
    Member(Fetch),
}

/// A room that is followed.
#[derive(Debug, Default)]
struct Place {
    follower: Follower,
    /// It stands in line to be read.
    in_line: bool,
    /// A read is under way.
    reading: bool,
    /// The node waits to be told the place.
    asked: bool,
}

/// All that is shared.
#[derive(Debug)]
pub(in crate::bridge) struct Streams {
    places: Map<Channel, Place>,
    /// Rooms to be read; some are no longer followed.
    line: VecDeque<Channel>,
    appends: Appends,
    fetches: VecDeque<Fetch>,
    keys: Keys,
    /// Redis was tried and could not be reached.
    away: bool,
    /// It is the turn of the reads.
    reads_next: bool,
    tally: Arc<Tally>,
}

impl Streams {
    pub(in crate::bridge) fn new(options: &Options, seed: &Seed, tally: Arc<Tally>) -> Self {
        Self {
            places: seed.map(),
            line: VecDeque::new(),
            appends: Appends::new(options.bounds.queue, options.bounds.queue_bytes),
            fetches: VecDeque::new(),
            keys: Keys::new(&options.prefix, options.tag, options.cluster),
            away: false,
            reads_next: false,
            tally,
        }
    }

    /// Takes a publication that is to be numbered.
    pub(in crate::bridge) fn append<S: Side>(&mut self, append: Append, side: &mut S) {
        if let Err(ticket) = self.appends.push(append) {
            add(&self.tally.refused, 1);
            side.decided(ticket, Verdict::Refused(Refusal::Queue));
        }
        set(&self.tally.appending, self.appends.len());
    }

    /// The node follows the room from now on, and is to be told its place.
    pub(in crate::bridge) fn follow<S: Side>(&mut self, channel: Channel, side: &mut S) {
        let place = self.places.entry(Arc::clone(&channel)).or_default();
        if let Some(at) = place.follower.at() {
            return side.followed(&channel, Some(at));
        }
        place.asked = !self.away;
        if self.away {
            side.followed(&channel, None);
        }
        self.want(&channel);
    }

    /// Nobody needs the rooms any more.
    pub(in crate::bridge) fn unfollow<S: Side>(&mut self, channels: &[Channel], side: &mut S) {
        for channel in channels {
            if self.places.remove(channel).is_some_and(|place| place.asked) {
                side.followed(channel, None);
            }
        }
        if self.places.capacity() > 1024 && self.places.len() < self.places.capacity() / 8 {
            self.places.shrink_to(self.places.len() * 2);
        }
    }

    /// Asks what came after a place.
    pub(in crate::bridge) fn fetch<S: Side>(&mut self, fetch: Fetch, side: &mut S) {
        if self.away || self.fetches.len() >= MOST_FETCHES {
            return side.fetched(fetch.ticket, Err(Lost::Away));
        }
        self.fetches.push_back(fetch);
    }

    /// True for a room that is followed, which misses nothing.
    pub(in crate::bridge) fn follows(&self, channel: &str) -> bool {
        !self.places.is_empty() && self.places.contains_key(channel)
    }

    /// Something may have been lost of every room.
    pub(in crate::bridge) fn doubt_all(&mut self) {
        let channels: Vec<Channel> = self.places.keys().cloned().collect();
        channels.iter().for_each(|channel| self.want(channel));
    }

    /// There is a connection again.
    pub(in crate::bridge) fn connected(&mut self) {
        self.away = false;
        self.keys.names = None;
        self.doubt_all();
    }

    /// The link has broken, or could not be made, while this was under way.
    pub(in crate::bridge) fn disconnected<S: Side>(&mut self, chore: Option<Chore>, side: &mut S) {
        self.away = true;
        match chore {
            Some(Chore::Append(batch)) => self.appends.put_back(batch, false),
            Some(Chore::Read(readers)) => readers.into_iter().for_each(|reader| match reader {
                Reader::Room(channel) => self.stop_reading(&channel),
                Reader::Member(fetch) => side.fetched(fetch.ticket, Err(Lost::Away)),
            }),
            Some(Chore::Load) | None => {}
        }
        for fetch in self.fetches.drain(..) {
            side.fetched(fetch.ticket, Err(Lost::Away));
        }
        for (channel, place) in &mut self.places {
            if std::mem::take(&mut place.asked) {
                side.followed(channel, None);
            }
        }
        set(&self.tally.appending, self.appends.len());
    }

    /// A message with a number has come by a room's channel.
    ///
    /// # Errors
    /// When it is none.
    pub(in crate::bridge) fn hear<S: Side>(
        &mut self,
        channel: &str,
        payload: &[u8],
        side: &mut S,
    ) -> Result<(), String> {
        let (epoch, entry) = Letter::read(payload)?;
        let Some(place) = self.places.get_mut(channel) else { return Ok(()) };
        let cursor = Cursor { epoch, offset: entry.offset };
        match place.follower.heard(cursor) {
            Heard::Known => add(&self.tally.duplicates, 1),
            Heard::Next => match deliver(place, channel, epoch, &entry, side) {
                Delivered::Yes => add(&self.tally.delivered, 1),
                Delivered::Strange(why) => return Err(why),
                Delivered::No => self.want(&Channel::from(channel)),
            },
            Heard::Beyond => {
                add(&self.tally.holes, usize::from(!place.in_line && !place.reading));
                self.want(&Channel::from(channel));
            }
        }
        Ok(())
    }

    fn want(&mut self, channel: &Channel) {
        let place = self.places.get_mut(channel);
        if let Some(place) = place.filter(|place| !place.in_line && !place.reading) {
            place.in_line = true;
            self.line.push_back(Arc::clone(channel));
        }
    }

    fn stop_reading(&mut self, channel: &Channel) {
        if let Some(place) = self.places.get_mut(channel) {
            place.reading = false;
        }
    }

    /// The next work, if there is any. `is_up`: the link is; `is_calm`: nothing waits for shards.
    pub(in crate::bridge) fn next_chore(
        &mut self,
        line: &Line,
        is_up: bool,
        is_calm: bool,
    ) -> Option<(Pending, Chore)> {
        let reads = (is_calm && !self.line.is_empty()) || (is_up && !self.fetches.is_empty());
        let appends = is_up && self.appends.len() > 0;
        if !reads && !appends {
            return None;
        }
        if self.keys.names.is_none() {
            let nobody = Channel::from("");
            let load =
                |script| (Arc::clone(&nobody), cmd("SCRIPT").arg("LOAD").arg(script).to_owned());
            return Some((line.ask(vec![load(APPEND), load(READ)]), Chore::Load));
        }
        self.reads_next = if reads && appends { !self.reads_next } else { reads };
        if self.reads_next {
            let readers = self.readers(is_up, is_calm);
            let commands = readers.iter().map(|reader| self.reading_of(reader)).collect();
            return Some((line.ask(commands), Chore::Read(readers)));
        }
        let batch = self.appends.take(APPENDS);
        let command = |waiting: &Waiting| {
            let channel = &waiting.append.channel;
            let known = self.places.get(channel).and_then(|place| place.follower.at());
            (Arc::clone(channel), self.keys.append(waiting, known))
        };
        let commands = batch.iter().map(command).collect();
        Some((line.ask(commands), Chore::Append(batch)))
    }

    fn readers(&mut self, is_up: bool, is_calm: bool) -> Vec<Reader> {
        let mut readers = Vec::new();
        while readers.len() < READS
            && is_calm
            && let Some(channel) = self.line.pop_front()
        {
            if let Some(place) = self.places.get_mut(&channel) {
                (place.in_line, place.reading) = (false, true);
                readers.push(Reader::Room(channel));
            }
        }
        let count = if is_up { READS.min(self.fetches.len()) } else { 0 };
        readers.extend(self.fetches.drain(..count).map(Reader::Member));
        readers
    }

    fn reading_of(&mut self, reader: &Reader) -> (Channel, redis::Cmd) {
        match reader {
            Reader::Room(channel) => {
                let place = self.places.get_mut(channel);
                let after = place.and_then(|place| place.follower.begin_read());
                (Arc::clone(channel), self.keys.read(channel, after, PORTION, true))
            }
            Reader::Member(fetch) => {
                let most = (fetch.count.min(PORTION.0), fetch.bytes.min(PORTION.1));
                let command = self.keys.read(&fetch.channel, Some(fetch.after), most, false);
                (Arc::clone(&fetch.channel), command)
            }
        }
    }

    /// What came of the work.
    ///
    /// # Errors
    /// When the link is to be given up: why.
    pub(in crate::bridge) fn finish<S: Side>(
        &mut self,
        chore: Chore,
        answers: Vec<Value>,
        side: &mut S,
    ) -> Result<(), String> {
        match chore {
            Chore::Load => self.loaded(answers),
            Chore::Append(batch) => {
                let result = self.appended(batch, answers, side);
                set(&self.tally.appending, self.appends.len());
                result
            }
            Chore::Read(readers) => {
                let mut result = Ok(());
                let mut answers = answers.into_iter();
                for reader in readers {
                    let answer = reading(answers.next().unwrap_or_default());
                    result = result.and(self.has_read(reader, answer, side));
                }
                result
            }
        }
    }

    fn loaded(&mut self, answers: Vec<Value>) -> Result<(), String> {
        let mut names = Vec::new();
        for answer in answers {
            match answer {
                Value::BulkString(name) => names.push(String::from_utf8_lossy(&name).into_owned()),
                Value::SimpleString(name) => names.push(name),
                Value::ServerError(error) => {
                    return Err(format!("a script cannot be loaded: {error}"));
                }
                other => return Err(format!("SCRIPT LOAD answered {other:?}")),
            }
        }
        self.keys.names = names.try_into().ok();
        Ok(())
    }

    fn appended<S: Side>(
        &mut self,
        batch: Vec<Waiting>,
        answers: Vec<Value>,
        side: &mut S,
    ) -> Result<(), String> {
        let (mut undone, mut later, mut result) = (Vec::new(), Vec::new(), Ok(()));
        let mut answers = answers.into_iter();
        for waiting in batch {
            let ticket = waiting.append.ticket;
            match verdict(answers.next().unwrap_or_default()) {
                Ok(verdict) => {
                    let is_new = matches!(verdict, Verdict::Taken(_));
                    add(&self.tally.appended, usize::from(is_new));
                    side.decided(ticket, verdict);
                }
                Err(Trouble::Forgotten) => {
                    self.keys.names = None;
                    undone.push(waiting);
                }
                Err(Trouble::Later) => later.push(waiting),
                Err(Trouble::Away(why)) => {
                    result = Err(why);
                    undone.push(waiting);
                }
                Err(Trouble::Refused(refusal, why)) => {
                    self.complain(&why);
                    side.decided(ticket, Verdict::Refused(refusal));
                }
            }
        }
        self.appends.put_back(undone, true);
        // Some of it may have been done before a node of the cluster went away: it keeps its number.
        self.appends.put_back(later, false);
        result
    }

    fn has_read<S: Side>(
        &mut self,
        reader: Reader,
        answer: Result<Reading, Trouble>,
        side: &mut S,
    ) -> Result<(), String> {
        if let Reader::Room(channel) = &reader {
            self.stop_reading(channel);
        }
        let reading = match answer {
            Ok(reading) => reading,
            Err(trouble) => return self.not_read(reader, trouble, side),
        };
        match reader {
            Reader::Member(fetch) => side.fetched(fetch.ticket, found(&fetch, reading)),
            Reader::Room(channel) => self.catch_up(&channel, &reading, side),
        }
        Ok(())
    }

    fn not_read<S: Side>(
        &mut self,
        reader: Reader,
        trouble: Trouble,
        side: &mut S,
    ) -> Result<(), String> {
        let is_refused = matches!(trouble, Trouble::Refused(..));
        match reader {
            Reader::Member(fetch) if is_refused => {
                side.fetched(fetch.ticket, Err(Lost::Away));
            }
            Reader::Member(fetch) => self.fetches.push_front(fetch),
            Reader::Room(channel) if is_refused => {
                // It is tried again when the room is asked for or heard of.
                let place = self.places.get_mut(&channel);
                if place.is_some_and(|place| std::mem::take(&mut place.asked)) {
                    side.followed(&channel, None);
                }
            }
            Reader::Room(channel) => self.want(&channel),
        }
        match trouble {
            Trouble::Later => {}
            Trouble::Forgotten => self.keys.names = None,
            Trouble::Away(why) => return Err(why),
            Trouble::Refused(_, why) => self.complain(&why),
        }
        Ok(())
    }

    /// Delivers what was read of a room.
    fn catch_up<S: Side>(&mut self, channel: &Channel, reading: &Reading, side: &mut S) {
        let Some(newest) = reading.newest else { return };
        let Some(place) = self.places.get_mut(channel) else { return };
        let offsets: Vec<u64> = reading.entries.iter().map(|entry| entry.offset).collect();
        match place.follower.read(newest, &offsets) {
            Read::Begin(_) => {}
            Read::Reset(at, why) => {
                add(&self.tally.resets, 1);
                side.reset(channel, at, why);
            }
            Read::From(from) => {
                for entry in &reading.entries[from..] {
                    let cursor = Cursor { epoch: newest.epoch, offset: entry.offset };
                    if place.follower.heard(cursor) != Heard::Next {
                        break;
                    }
                    match deliver(place, channel, newest.epoch, entry, side) {
                        Delivered::Yes => add(&self.tally.fetched, 1),
                        Delivered::Strange(_) => add(&self.tally.malformed, 1),
                        Delivered::No => break,
                    }
                }
            }
        }
        if std::mem::take(&mut place.asked) {
            side.followed(channel, place.follower.at());
        }
        if place.follower.wants_more(newest) {
            self.want(channel);
        }
    }

    fn complain(&self, why: &str) {
        add(&self.tally.refused, 1);
        let count = self.tally.refused.load(std::sync::atomic::Ordering::Relaxed);
        if count % LOGGED == 1 {
            tracing::error!(count, "Redis refuses what a shared history needs: {why}");
        }
    }
}

/// Whether the node has taken a publication.
enum Delivered {
    Yes,
    /// It is none; its number is taken all the same.
    Strange(String),
    /// It has no space now.
    No,
}

fn deliver<S: Side>(
    place: &mut Place,
    channel: &str,
    epoch: u64,
    entry: &Entry,
    side: &mut S,
) -> Delivered {
    let delivered = match side.arrived(channel, epoch, entry) {
        Ok(()) => Delivered::Yes,
        Err(Refused::Malformed(why)) => Delivered::Strange(why),
        Err(Refused::Full) => return Delivered::No,
    };
    place.follower.took(Cursor { epoch, offset: entry.offset });
    delivered
}

/// What a member that was away gets.
fn found(fetch: &Fetch, reading: Reading) -> Result<Found, Lost> {
    let newest = reading.newest.filter(|newest| newest.epoch == fetch.after.epoch);
    let Some(newest) = newest else { return Err(Lost::Stale(Stale::Epoch)) };
    let after = fetch.after.offset;
    if newest.offset < after {
        return Err(Lost::Stale(Stale::Ahead));
    }
    let follow = (after + 1..).zip(&reading.entries);
    let count = follow.take_while(|(offset, entry)| *offset == entry.offset).count();
    if count == 0 && newest.offset > after {
        return Err(Lost::Stale(Stale::TooOld));
    }
    let mut entries = reading.entries;
    entries.truncate(count);
    Ok(Found { entries })
}
