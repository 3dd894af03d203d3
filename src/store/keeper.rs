//! The thread that owns the store: its queue, group commit, pruning, signs of life.
//!
//! Requests come by a bounded queue; a full one gives the request back and nobody ever waits for space. The
//! thread takes what is there, up to a number, and does it in one transaction: while a disk writes one, the
//! next gathers, so the slower the disk the more requests share a write. A window makes it gather longer on
//! purpose. Answers go to a [`Clerk`], in the order of the requests, and the clerk hands them on; while too
//! much waits there, nothing more is taken, so that a receiver that does not keep up fills this queue and
//! nothing else.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded, never};

use super::ask::{Answer, Ask, Outcome, Refused};
use super::table::Store;
use crate::base::tally::tally;
use crate::base::time::Time;
use crate::sys::clock::{Clock, unix_millis};

/// Takes answers to whoever asked. Owned by the store's thread.
pub trait Clerk: Send + 'static {
    /// Who asked.
    type From: Send;
    /// What the clerk itself can be told.
    type Word: Send;

    /// Takes an answer. Answers come in the order of the requests.
    fn answer(&mut self, from: Self::From, ask: Ask, outcome: Outcome);

    /// Takes what it was told.
    fn hear(&mut self, word: Self::Word);

    /// Hands on what waits with it; true when nothing waits any more.
    fn deliver(&mut self) -> bool;

    /// False while so much waits that nothing should be added.
    fn has_space(&self) -> bool;
}

/// How the thread works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Requests that may wait.
    pub queue: usize,
    /// How long a transaction waits for company after its first request; zero: not at all.
    pub window: Duration,
    /// The pause between two walks over everything for what has grown old.
    pub prune: Duration,
    /// How soon a store that failed is tried again, as nobody may ask for anything meanwhile: by the next slice of a walk.
    pub again: Duration,
    /// The pause between two notes that the process lives; zero: it notes nothing.
    pub alive: Duration,
}

/// Requests in one transaction at most.
const BATCH: usize = 512;

/// How soon the clerk is asked again while something waits with it.
const RETRY: Duration = Duration::from_millis(1);

/// The pause between two slices of a walk.
const SLICE: Duration = Duration::from_millis(100);

tally! {
    /// Requests done, refused ones included.
    requests = "store_requests_total",
    /// Transactions.
    commits = "store_commits_total",
    /// Requests given back because the queue was full.
    overloaded = "store_overloaded_total",
    /// Transactions that failed.
    faults = "store_faults_total",
    /// 1 while the latest transaction is one that failed.
    broken = "store_broken",
    /// Notifications kept.
    kept = "store_kept_total",
    /// Notifications that had been kept before under the same name.
    repeats = "store_repeats_total",
    /// Unread notifications that were pushed out or grew too old.
    dropped = "store_dropped_total",
}

fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

enum Message<C: Clerk> {
    Ask(C::From, Ask),
    Word(C::Word),
    /// What stands before this is done, and then no more.
    End,
}

/// Where requests are handed in. Cloned for everyone who asks.
pub struct Handle<C: Clerk> {
    queue: Sender<Message<C>>,
    tally: Arc<Tally>,
}

impl<C: Clerk> Clone for Handle<C> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), tally: Arc::clone(&self.tally) }
    }
}

impl<C: Clerk> std::fmt::Debug for Handle<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("waiting", &self.queue.len()).finish_non_exhaustive()
    }
}

impl Tally {
    /// True while the latest transaction is one that failed.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed) > 0
    }
}

impl<C: Clerk> Handle<C> {
    /// A handle behind which nobody is: it gives everything back.
    #[must_use]
    pub fn nowhere() -> Self {
        Self { queue: bounded(1).0, tally: Arc::default() }
    }

    /// Hands a request in. Never waits.
    ///
    /// # Errors
    /// Gives it back when too many wait already, or when the store has ended.
    pub fn ask(&self, from: C::From, ask: Ask) -> Result<(), (C::From, Ask)> {
        let given_back = match self.queue.try_send(Message::Ask(from, ask)) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(message) | TrySendError::Disconnected(message)) => message,
        };
        add(&self.tally.overloaded, 1);
        match given_back {
            Message::Ask(from, ask) => Err((from, ask)),
            Message::Word(_) | Message::End => unreachable!("what comes back is what was sent"),
        }
    }

    /// Hands a request in, and waits so long for space; for whoever has nothing else to do any more. False when
    /// there was none.
    #[must_use]
    pub fn ask_patiently(&self, from: C::From, ask: Ask, patience: Duration) -> bool {
        self.queue.send_timeout(Message::Ask(from, ask), patience).is_ok()
    }

    /// Tells the clerk something. False when there is no space for it.
    pub fn tell(&self, word: C::Word) -> bool {
        self.queue.try_send(Message::Word(word)).is_ok()
    }

    /// What the thread counts.
    #[must_use]
    pub fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }
}

/// The thread. Dropping it waits until everything that was handed in before is done; handles that are left
/// give everything back from then on.
#[derive(Debug)]
pub struct Keeper<C: Clerk> {
    handle: Handle<C>,
    thread: Option<JoinHandle<()>>,
}

impl<C: Clerk> Keeper<C> {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the kernel refuses one.
    pub fn start(store: Box<dyn Store>, clerk: C, pace: Pace) -> io::Result<Self> {
        let (sender, queue) = bounded(pace.queue.max(1));
        let tally = Arc::<Tally>::default();
        let handle = Handle { queue: sender, tally: Arc::clone(&tally) };
        let clock = Clock::start();
        let work = Work { store, clerk, queue, pace, tally, clock, broken: false };
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(|| work.run())?;
        Ok(Self { handle, thread: Some(thread) })
    }

    /// A handle to hand requests in by.
    #[must_use]
    pub fn handle(&self) -> Handle<C> {
        self.handle.clone()
    }

    /// True when the thread has ended; it does so by itself only by failing.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl<C: Clerk> Drop for Keeper<C> {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            // Waits for a place in the queue; nobody takes it where the thread has failed.
            let _ = self.handle.queue.send(Message::End);
            // A panic in there has been printed.
            let _ = thread.join();
        }
    }
}

/// What the thread works on.
struct Work<C: Clerk> {
    store: Box<dyn Store>,
    clerk: C,
    queue: Receiver<Message<C>>,
    pace: Pace,
    tally: Arc<Tally>,
    clock: Clock,
    /// True while the last transaction is one that failed.
    broken: bool,
}

impl<C: Clerk> Work<C> {
    fn run(mut self) {
        let (mut slice, mut due) = (Vec::new(), self.clock.now());
        let (mut from, mut asks) = (Vec::new(), Vec::new());
        let mut shown = None;
        loop {
            let is_idle = self.clerk.deliver();
            if !self.clerk.has_space() {
                // Nobody sends here: this is the pause until the clerk is asked again.
                let _ = never::<()>().recv_timeout(RETRY);
                continue;
            }
            let now = self.clock.now();
            let sign = self.show_life(&mut shown, now);
            let patience = due.since(now).min(sign);
            let patience = if is_idle { patience } else { RETRY.min(patience) };
            match self.queue.recv_timeout(patience) {
                Ok(message) => {
                    let goes_on = self.sort(message, &mut from, &mut asks)
                        && self.gather(&mut from, &mut asks);
                    self.commit(&mut from, &mut asks);
                    if !goes_on {
                        break;
                    }
                    if self.broken {
                        due = due.min(self.clock.now().plus(self.pace.again));
                    }
                }
                Err(RecvTimeoutError::Timeout) if self.clock.now() >= due => {
                    due = self.prune(&mut slice);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        // Whoever waits for the last answers gets them, as far as there is anyone.
        self.clerk.deliver();
    }

    /// Notes that the process lives, if that is due; says how long it is until it is due again.
    fn show_life(&mut self, shown: &mut Option<Time>, now: Time) -> Duration {
        let pause = self.pace.alive;
        if pause.is_zero() {
            return Duration::MAX;
        }
        let passed = shown.map_or(pause, |shown| now.since(shown));
        if passed < pause {
            return pause - passed;
        }
        *shown = Some(now);
        self.transact(&[Ask::Alive]);
        pause
    }

    /// False at the end.
    fn sort(&mut self, message: Message<C>, from: &mut Vec<C::From>, asks: &mut Vec<Ask>) -> bool {
        match message {
            Message::Ask(who, ask) => {
                from.push(who);
                asks.push(ask);
            }
            Message::Word(word) => self.clerk.hear(word),
            Message::End => return false,
        }
        true
    }

    /// Takes what has come, and within the window what comes; false at the end.
    fn gather(&mut self, from: &mut Vec<C::From>, asks: &mut Vec<Ask>) -> bool {
        let until = self.clock.now().plus(self.pace.window);
        while asks.len() < BATCH {
            let message = match self.queue.try_recv() {
                Ok(message) => Ok(message),
                Err(_) if self.pace.window.is_zero() => break,
                Err(_) => self.queue.recv_timeout(until.since(self.clock.now())),
            };
            let Ok(message) = message else { break };
            if !self.sort(message, from, asks) {
                return false;
            }
        }
        true
    }

    fn commit(&mut self, from: &mut Vec<C::From>, asks: &mut Vec<Ask>) {
        if asks.is_empty() {
            return;
        }
        let outcomes = self.transact(asks);
        add(&self.tally.requests, asks.len() as u64);
        for ((from, ask), outcome) in from.drain(..).zip(asks.drain(..)).zip(outcomes) {
            if let Ok(Answer::Appended(appended)) = &outcome {
                let is_new = u64::from(!appended.repeated);
                add(&self.tally.kept, is_new);
                add(&self.tally.repeats, 1 - is_new);
                add(&self.tally.dropped, appended.dropped);
            }
            self.clerk.answer(from, ask, outcome);
        }
    }

    fn transact(&mut self, asks: &[Ask]) -> Vec<Outcome> {
        add(&self.tally.commits, 1);
        match self.store.commit(asks, unix_millis()) {
            Ok(outcomes) => {
                if std::mem::take(&mut self.broken) {
                    self.tally.broken.store(0, Ordering::Relaxed);
                    tracing::info!("the store can be written again");
                }
                outcomes
            }
            Err(fault) => {
                add(&self.tally.faults, 1);
                self.tally.broken.store(1, Ordering::Relaxed);
                if !std::mem::replace(&mut self.broken, true) {
                    tracing::error!(
                        "the store failed, and what needs it is refused until it can be written again: {fault}"
                    );
                }
                let why: Arc<str> = fault.to_string().into();
                vec![Err(Refused::Broken(why)); asks.len()]
            }
        }
    }

    /// Does the next slice of the walk, and says when the one after it is due.
    fn prune(&mut self, from: &mut Vec<u8>) -> Time {
        let ask = Ask::Prune { from: std::mem::take(from) };
        let outcome = self.transact(std::slice::from_ref(&ask)).pop();
        let pause = match outcome {
            Some(Ok(Answer::Pruned { next, dropped })) => {
                add(&self.tally.dropped, dropped);
                let pause = if next.is_some() { SLICE } else { self.pace.prune };
                *from = next.unwrap_or_default();
                pause
            }
            _ => self.pace.again.min(self.pace.prune),
        };
        self.clock.now().plus(pause)
    }
}
