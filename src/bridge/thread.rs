//! The thread: what outlives a link, and how a new one is come by.
//!
//! Between two attempts lies a random time of a range that doubles, so that a thousand nodes whose Redis
//! came back do not all come at once. Whatever the link does, the node is listened to all the time: its inbox
//! here never stays full.

use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::io::Interest as Readiness;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use super::bans::{Bans, CHANNEL as BANS};
use super::claims::{Claims, Era};
use super::emitter::Said;
use super::envelope::Writer;
use super::ids::Ids;
use super::interest::Interest;
use super::life::Life;
use super::line::Line;
use super::options::Options;
use super::outgoing::{Outgoing, Sealed};
use super::presence::{Absent, CHANNEL, Post};
use super::records::Records;
use super::server::Fault;
use super::side::{Channel, Parcel, Refused, Side, Word};
use super::source::Source;
use super::streams::Streams;
use super::survey::{CHANNEL as SURVEY, Surveys};
use super::tally::{Tally, add, set};
use super::window::Windows;
use crate::base::map::Seed;
use crate::sys::clock::{Clock, unix_millis};

/// Words taken from the node before the rest has its turn.
const WORDS: usize = 1024;
/// The first range of the pause between attempts, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long telling others of the end may take.
const LONGEST_FAREWELL: Duration = Duration::from_secs(1);
/// Of malformed messages, one in so many is logged, so that a program gone wild fills no disk.
const LOGGED: u64 = 1000;

/// The running bridge. Dropping it ends it.
#[derive(Debug)]
pub struct Bridge {
    tally: Arc<Tally>,
    absent: Arc<Absent>,
    era: Arc<Era>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Bridge {
    /// Starts the thread. It connects by itself, again and again: a Redis that is away at the start is like
    /// one that goes away later.
    ///
    /// # Errors
    /// When an option cannot be used: then it is a [`Fault`]. When the kernel refuses a thread or what its
    /// loop needs.
    pub fn start<S: Side>(options: Options, side: S) -> Result<Self, io::Error> {
        let mut source =
            options.server.source(&options.prefix, options.patience).map_err(|fault: Fault| {
                io::Error::new(io::ErrorKind::InvalidInput, fault.to_string())
            })?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let tally = Arc::new(Tally::default());
        let fd = side.wake_fd().try_clone_to_owned()?;
        let (stop, stopped) = oneshot::channel();
        let counted = Arc::clone(&tally);
        let absent = Arc::new(Absent::default());
        let missing = Arc::clone(&absent);
        let era = Arc::new(Era::default());
        let current = Arc::clone(&era);
        let work = move || {
            let wake = match runtime.block_on(async { Wake::new(fd) }) {
                Ok(wake) => wake,
                Err(error) => return tracing::error!("the bridge failed: {error}"),
            };
            let mut engine = Engine::new(options, side, wake, counted, (&missing, &current));
            let living = async {
                tokio::select! {
                    biased;
                    _ = stopped => {}
                    () = engine.run(&mut source) => {}
                }
                engine.say_farewell(&mut source).await;
            };
            // Whoever waits for an answer is told that there will be none; the node ends when it sees that this thread has.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| runtime.block_on(living))) {
                engine.give_up();
                drop(engine);
                resume_unwind(panic);
            }
        };
        let thread = std::thread::Builder::new().name("bridge".to_owned()).spawn(work)?;
        Ok(Self { tally, absent, era, stop: Some(stop), thread: Some(thread) })
    }

    /// What it counts.
    #[must_use]
    pub fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    /// The nodes whose users are not known.
    #[must_use]
    pub fn absent(&self) -> &Arc<Absent> {
        &self.absent
    }

    /// Since when Redis remembers what was used.
    #[must_use]
    pub fn era(&self) -> &Arc<Era> {
        &self.era
    }

    /// True when the thread has ended; it does so by itself only by failing.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic in there has been printed, and ends nothing but the thread.
            let _ = thread.join();
        }
    }
}

/// By which the node wakes the thread.
#[derive(Debug)]
pub(super) struct Wake(AsyncFd<OwnedFd>);

impl Wake {
    #[expect(
        deprecated,
        reason = "its successor is unsafe for types that may change their descriptor; an OwnedFd cannot"
    )]
    fn new(fd: OwnedFd) -> io::Result<Self> {
        AsyncFd::with_interest(fd, Readiness::READABLE).map(Self)
    }

    pub(super) async fn woken(&self) {
        let Ok(mut ready) = self.0.readable().await else { return std::future::pending().await };
        let mut count = [0; 8];
        // Nothing to read is a wake-up that was taken already.
        let _ = rustix::io::read(&self.0, &mut count);
        ready.clear_ready();
    }
}

/// What came of the work, also of a panic in it.
async fn caught<T>(work: impl Future<Output = T>) -> std::thread::Result<T> {
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(|context| {
        let looked = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context)));
        looked.map_or_else(|panic| Poll::Ready(Err(panic)), |poll| poll.map(Ok))
    })
    .await
}

/// Waits; other tasks go on.
pub(super) async fn pause(wait: Duration) {
    let _ = tokio::time::timeout(wait, std::future::pending::<()>()).await;
}

/// What is asked and known of other nodes.
pub(super) struct Peers {
    pub(super) surveys: Surveys,
    /// Whom all have to refuse.
    pub(super) bans: Bans,
    /// What only one node may do.
    pub(super) claims: Claims,
    /// What only one node may take.
    pub(super) ids: Ids,
    /// What clients say to back ends.
    pub(super) records: Records,
    /// Who is online on which node, where that is to be known.
    pub(super) presence: Option<Post>,
}

/// What outlives a link.
pub(super) struct Engine<S> {
    pub(super) options: Options,
    pub(super) side: S,
    pub(super) wake: Wake,
    pub(super) clock: Clock,
    pub(super) tally: Arc<Tally>,
    pub(super) writer: Writer,
    pub(super) interest: Interest,
    pub(super) outgoing: Outgoing,
    pub(super) windows: Windows,
    pub(super) streams: Streams,
    pub(super) peers: Peers,
    /// False while something waits for shards.
    pub(super) is_flushed: bool,
}

impl<S: Side> Engine<S> {
    fn new(
        options: Options,
        side: S,
        wake: Wake,
        tally: Arc<Tally>,
        (absent, era): (&Arc<Absent>, &Arc<Era>),
    ) -> Self {
        let seed = Seed::new(fastrand::u64(..));
        Self {
            peers: Peers {
                surveys: Surveys::new(&options),
                bans: Bans::new(&options, Arc::clone(&tally)),
                claims: Claims::new(&options, era),
                ids: Ids::new(&options, Arc::clone(&tally)),
                records: Records::new(&options, Arc::clone(&tally)),
                presence: Post::new(&options, absent, unix_millis(), &seed),
            },
            writer: Writer::new(&options.node, options.epoch),
            interest: Interest::new(&seed, options.linger),
            streams: Streams::new(&options, &seed, Arc::clone(&tally)),
            outgoing: Outgoing::new(options.bounds.queue, options.bounds.queue_bytes),
            windows: Windows::default(),
            clock: Clock::start(),
            is_flushed: true,
            options,
            side,
            wake,
            tally,
        }
    }

    async fn run(&mut self, source: &mut Source) {
        // What is missed before the first link is missed as well, unless that is made at once.
        let (mut pause, mut again) = (FIRST_PAUSE, false);
        loop {
            let opening = Line::open(source, self.options.clone(), Arc::clone(&self.tally));
            let why = match self.meanwhile(opening).await {
                Ok(line) => {
                    self.interest.forget_told();
                    self.streams.connected();
                    let now = self.clock.now();
                    let mut life = Life::new(line, self.options.tag, again, now);
                    let ended = caught(life.go_on(self)).await;
                    let under_way = life.end();
                    self.outgoing.put_back(under_way.batch);
                    self.streams.disconnected(under_way.chore, &mut self.side);
                    under_way.task.into_iter().for_each(|task| self.peers.bans.put_back(task));
                    self.peers.claims.link_down(under_way.errand);
                    self.peers.ids.link_down(under_way.namings);
                    self.peers.records.put_back(under_way.records);
                    ended.unwrap_or_else(|panic| resume_unwind(panic))
                }
                Err(error) => {
                    self.streams.disconnected(None, &mut self.side);
                    error.to_string()
                }
            };
            if self.tally.is_up() {
                pause = FIRST_PAUSE;
                tracing::error!("the bridge lost Redis: {why}");
            } else {
                tracing::warn!("the bridge has no link to Redis yet: {why}");
            }
            again = true;
            set(&self.tally.up, 0);
            self.peers.presence.iter_mut().for_each(|presence| presence.link_down(&self.tally));
            self.peers.surveys.link_down();
            set(&self.tally.queued, self.outgoing.len());
            add(&self.tally.failures, 1);
            self.meanwhile(self::pause(pause.mul_f64(fastrand::f64()))).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Waits for something, and listens to the node all the while.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            let more = self.listen();
            self.flush();
            if more || !self.side.before_sleep() {
                self.side.awake();
                tokio::task::yield_now().await;
                continue;
            }
            let tick = if self.is_flushed { LONGEST_PAUSE } else { Duration::from_millis(2) };
            let done = tokio::select! {
                biased;
                done = &mut work => Some(done),
                () = self.wake.woken() => None,
                () = pause(tick) => None,
            };
            self.side.awake();
            if let Some(done) = done {
                return done;
            }
        }
    }

    /// Takes the node's words; true when there may be more.
    pub(super) fn listen(&mut self) -> bool {
        let mut left = WORDS;
        while left > 0
            && let Some(word) = self.side.next()
        {
            left -= 1;
            let word = match &mut self.peers.presence {
                Some(presence) => presence.take(word),
                None => Some(word),
            };
            let Some(word) = word else { continue };
            match word {
                Word::Here(_) => {}
                Word::Publish(parcel) => self.seal(parcel),
                Word::Interest(channel, wanted) => {
                    self.interest.note(channel, wanted, self.clock.now());
                }
                Word::Append(append) => self.streams.append(append, &mut self.side),
                Word::Follow(channel) => self.streams.follow(channel, &mut self.side),
                Word::Fetch(fetch) => self.streams.fetch(fetch, &mut self.side),
                Word::Ask(survey) => {
                    let there = self.peers.presence.as_ref().map(Post::there);
                    self.peers.surveys.ask(&survey, there, self.clock.now());
                }
                Word::Answer(poll) => self.peers.surveys.answer(&poll),
                Word::Ban(ban) => self.peers.bans.push(ban),
                Word::Name(naming) => self.peers.ids.push(naming, self.tally.is_up()),
                Word::Record(record) => self.peers.records.push(record),
                Word::Claim(claim) => self.peers.claims.push(claim, self.tally.is_up()),
            }
        }
        if left < WORDS {
            set(&self.tally.queued, self.outgoing.len());
        }
        left == 0
    }

    fn seal(&mut self, parcel: Parcel) {
        let Parcel { channels, order, from, in_turn, count } = parcel;
        add(&self.tally.reordered, usize::from(!in_turn));
        let order: Result<&RawValue, _> = serde_json::from_slice(&order);
        let Ok(order) = order else { return add(&self.tally.dropped, 1) };
        let there = self.peers.presence.as_ref().map(Post::there);
        let now = self.clock.now();
        let surveys = &mut self.peers.surveys;
        // Asked in the same queue, so that it is heard behind what it asks about.
        let asked = count.and_then(|survey| surveys.ask_behind(&survey, there, now));
        let mark = asked.as_ref().map(|(number, _)| (self.options.tag, *number));
        let bytes = self.writer.write_counted(from.as_deref(), Some(order), false, mark);
        let is_queued = self.outgoing.push(Sealed { channels, bytes });
        add(&self.tally.dropped, usize::from(!is_queued));
        if let Some((number, question)) = asked
            && !(is_queued && self.outgoing.push_question(question))
        {
            surveys.drop_question(number);
        }
    }

    /// Hands on what waits for the shards.
    pub(super) fn flush(&mut self) {
        let now = self.clock.now();
        self.peers.surveys.expire(now);
        for (ticket, surveyed) in self.peers.surveys.take_done() {
            self.side.surveyed(ticket, surveyed);
        }
        for (by, claimed) in self.peers.claims.take_done() {
            self.side.claimed(by, claimed);
        }
        for named in self.peers.ids.take_done() {
            self.side.named(named);
        }
        for (receipt, is_written) in self.peers.records.take_done() {
            self.side.recorded(receipt, is_written);
        }
        let presence = self.peers.presence.as_mut();
        let is_through =
            presence.is_none_or(|presence| presence.hand_on(&mut self.side, now, &self.tally));
        self.is_flushed = self.side.flush() && is_through;
    }

    /// Takes in what another node tells of its users.
    pub(super) fn hear_presence(&mut self, payload: &[u8]) {
        let now = self.clock.now();
        let Some(presence) = &mut self.peers.presence else { return };
        if let Err(why) = presence.hear(payload, now, &self.tally) {
            self.note_malformed(CHANNEL, &why);
        }
    }

    /// Takes in a question of another node, or an answer.
    pub(super) fn hear_survey(&mut self, payload: &[u8]) {
        let heard = self.peers.surveys.hear(payload);
        let polled = heard.and_then(|poll| poll.map_or(Ok(()), |poll| self.side.polled(poll)));
        if let Err(why) = polled {
            self.note_malformed(SURVEY, &why);
        }
    }

    /// Takes in a revocation.
    pub(super) fn hear_ban(&mut self, payload: &[u8]) {
        let unix = unix_millis() / 1000;
        if let Err(Refused::Malformed(why)) = self.peers.bans.hear(payload, &mut self.side, unix) {
            self.log_malformed(BANS, &why);
        }
    }

    /// Takes in what an emitter says.
    pub(super) fn hear_emitter(&mut self, said: Said, name: &str, payload: &[u8]) {
        if said == Said::Request {
            add(&self.tally.emitter_unsupported, 1);
            let count = self.tally.emitter_unsupported.load(std::sync::atomic::Ordering::Relaxed);
            if count % LOGGED == 1 {
                let why =
                    "an emitter asks for what a server of Socket.IO does and this is not done here";
                tracing::warn!(channel = name, count, "{why}");
            }
            return;
        }
        match self.side.emitted(payload) {
            Ok(()) => add(&self.tally.emitted, 1),
            Err(Refused::Malformed(why)) => self.note_malformed(name, &why),
            Err(Refused::Full) => {
                add(&self.tally.overrun, 1);
                let room = name.split_once("#/#").and_then(|(_, rest)| rest.strip_suffix('#'));
                if let Some(room) = room {
                    self.tell_gaps(&[Channel::from(format!("room:{room}"))]);
                }
            }
        }
    }

    /// Tells the other nodes, if they can be told soon, that this one ends.
    async fn say_farewell(&mut self, source: &mut Source) {
        let patience = self.options.patience.command.min(LONGEST_FAREWELL);
        let Some(presence) = self.peers.presence.as_mut().filter(|_| self.tally.is_up()) else {
            return;
        };
        let Some(batch) = presence.farewell() else { return };
        let clerk = Arc::clone(&presence.clerk);
        let opening = Line::open(source, self.options.clone(), Arc::clone(&self.tally));
        let saying = async { opening.await?.leave(clerk, batch).await };
        // Who does not hear it finds out by the lease.
        let _ = tokio::time::timeout(patience, saying).await;
    }

    /// There will be no link any more: what has been taken from the node and waits for an answer has it now.
    fn give_up(&mut self) {
        set(&self.tally.up, 0);
        self.peers.presence.iter_mut().for_each(|presence| presence.link_down(&self.tally));
        self.peers.surveys.link_down();
        self.peers.claims.link_down(None);
        self.peers.ids.link_down(Vec::new());
        self.peers.records.give_up();
        self.streams.disconnected(None, &mut self.side);
        self.flush();
    }

    /// The link is up: those who were failed are told.
    pub(super) fn come_up(&mut self, again: bool) {
        set(&self.tally.up, 1);
        add(&self.tally.links, 1);
        let now = self.clock.now();
        self.peers.presence.iter_mut().for_each(|presence| presence.link_up(now));
        tracing::info!(subscriptions = self.interest.len(), "the bridge has its link to Redis");
        self.peers.bans.link_up();
        if again {
            self.tell_all_gaps();
        }
        let lost: Vec<Channel> = self.outgoing.take_lost().into_iter().collect();
        let sealed: Vec<Sealed> = lost
            .into_iter()
            .map(|channel| {
                let bytes = self.writer.write(None, None, true);
                Sealed { channels: vec![channel], bytes }
            })
            .collect();
        self.outgoing.put_back(sealed);
    }

    pub(super) fn tell_all_gaps(&mut self) {
        // Of rooms that are followed nothing is lost, if they are read.
        self.streams.doubt_all();
        let follows = |channel: &&Channel| self.streams.follows(channel);
        let others = self.interest.channels().filter(|channel| !follows(channel));
        let channels: Vec<Channel> = others.cloned().collect();
        self.tell_gaps(&channels);
    }

    pub(super) fn tell_gaps(&mut self, channels: &[Channel]) {
        add(&self.tally.gaps, channels.len());
        self.side.astray(channels);
    }

    pub(super) fn note_malformed(&self, channel: &str, why: &str) {
        add(&self.tally.malformed, 1);
        self.log_malformed(channel, why);
    }

    fn log_malformed(&self, channel: &str, why: &str) {
        let count = self.tally.malformed.load(std::sync::atomic::Ordering::Relaxed);
        if count % LOGGED == 1 {
            tracing::warn!(channel, count, "the bridge cannot use what was published: {why}");
        }
    }
}
