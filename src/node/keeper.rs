//! The node's side of the store: errands become requests, and what comes of them becomes mail.
//!
//! The clerk lives on the store's thread and has a port of the mesh of its own. To every shard it posts, in
//! one lane and in the order in which the store did its work, the answers to that shard's errands and the
//! notices for a user's connections; so on every connection a page and the pushes around it stand in one
//! order. Which shards have connections of a user it does not know: a notice goes to all, and a shard
//! without any drops it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::sync::oneshot;

use crate::auth::{Revocation, user_of, user_room};
use crate::base::id::ConnAddress;
use crate::base::inbox::Note;
use crate::hub::Encoded;
use crate::mesh::Port;
use crate::node::config::Config;
use crate::node::desk::Out;
use crate::node::running::LaunchError;
use crate::shard::{Errand, Errands, Kept, Mail, News, Notice, Said, Task};
use crate::store::{
    Answer, Appended, Ask, Clerk, Disk, Draft, Handle, Keeper, Limits, Memory, Outcome, Pace,
    Refused, Revoked, Store,
};
use crate::sys::clock::unix_millis;

/// Where requests to the store are handed in.
pub(super) type StoreHandle = Handle<NodeClerk>;

/// The store's thread.
pub(super) type StoreThread = Keeper<NodeClerk>;

/// Requests that wait for a receipt, above which those are forgotten whom nobody waits for any more.
const RECEIPTS: usize = 1024;

const DAY_MS: u64 = 86_400_000;
const PRUNE: Duration = Duration::from_secs(3600);

/// Who asks the store.
#[derive(Debug)]
pub(super) enum From {
    /// A connection.
    Connection { to: ConnAddress, reference: Option<Box<RawValue>> },
    /// The admin listener.
    Admin {
        /// Is told what became of it.
        stored: oneshot::Sender<Outcome>,
        /// Is told how many connections a notification was queued for.
        reached: Option<oneshot::Sender<u64>>,
    },
}

/// A notice under way, of which every shard is to say how many connections it was queued for.
#[derive(Debug)]
struct Receipt {
    /// Shards that have not said it yet.
    left: u16,
    connections: u64,
    tell: oneshot::Sender<u64>,
}

/// Takes the store's answers to those who asked, and news to the users they are for.
#[derive(Debug)]
pub(super) struct NodeClerk {
    out: Out,
    shards: u16,
    receipts: BTreeMap<u64, Receipt>,
    next_receipt: u64,
}

/// A shard's word: the receipt's number, and the connections.
pub(super) type Word = (u64, u64);

impl NodeClerk {
    pub(super) fn new(shards: u16, port: Port<Mail>) -> Self {
        Self { out: Out::new(shards, port), shards, receipts: BTreeMap::new(), next_receipt: 0 }
    }

    fn announce(&mut self, notice: Notice) {
        let notice = Arc::new(notice);
        for shard in 0..usize::from(self.shards) {
            self.out.push(shard, Mail::Notice(Arc::clone(&notice)));
        }
    }

    fn announce_note(
        &mut self,
        draft: Draft,
        appended: Appended,
        reached: Option<oneshot::Sender<u64>>,
    ) {
        let Draft { owner, kind, payload, .. } = draft;
        let Appended { id, at, unread, .. } = appended;
        let news = News::Note(Note { id, at, kind, payload }, unread);
        let receipt = reached.map(|tell| self.expect_receipt(tell));
        self.announce(Notice { owner, news, except: None, receipt, encoded: Encoded::default() });
    }

    fn expect_receipt(&mut self, tell: oneshot::Sender<u64>) -> u64 {
        if self.receipts.len() >= RECEIPTS {
            self.receipts.retain(|_, receipt| !receipt.tell.is_closed());
        }
        self.next_receipt += 1;
        let receipt = Receipt { left: self.shards, connections: 0, tell };
        self.receipts.insert(self.next_receipt, receipt);
        self.next_receipt
    }
}

impl Clerk for NodeClerk {
    type From = From;
    type Word = Word;

    fn answer(&mut self, from: From, ask: Ask, outcome: Outcome) {
        match from {
            From::Connection { to, reference } => {
                if let (Ask::Read { owner, .. }, Ok(Answer::Unread { unread, changed: true })) =
                    (ask, &outcome)
                {
                    let (news, except) = (News::Unread(*unread), Some(to));
                    let encoded = Encoded::default();
                    self.announce(Notice { owner, news, except, receipt: None, encoded });
                }
                let kept = Kept { to: to.conn, reference, told: told(outcome) };
                self.out.push(usize::from(to.shard.0), Mail::Kept(Box::new(kept)));
            }
            From::Admin { stored, reached } => {
                match (ask, &outcome) {
                    (Ask::Append(draft), Ok(Answer::Appended(appended))) if !appended.repeated => {
                        self.announce_note(draft, *appended, reached);
                    }
                    (Ask::Read { owner, .. }, Ok(Answer::Unread { unread, changed: true })) => {
                        let (news, encoded) = (News::Unread(*unread), Encoded::default());
                        self.announce(Notice { owner, news, except: None, receipt: None, encoded });
                    }
                    _ => {}
                }
                // Whoever asked may have stopped waiting.
                let _ = stored.send(outcome);
            }
        }
    }

    fn hear(&mut self, (receipt, connections): Word) {
        let Some(entry) = self.receipts.get_mut(&receipt) else { return };
        entry.connections += connections;
        entry.left = entry.left.saturating_sub(1);
        if entry.left == 0
            && let Some(entry) = self.receipts.remove(&receipt)
        {
            let _ = entry.tell.send(entry.connections);
        }
    }

    fn deliver(&mut self) -> bool {
        self.out.offer();
        self.out.is_empty()
    }

    fn has_space(&self) -> bool {
        self.out.has_space()
    }
}

fn told(outcome: Outcome) -> Said {
    match outcome {
        Ok(Answer::Page(page)) => Said::Page(page),
        Ok(Answer::Unread { unread, .. }) => Said::Unread(unread),
        Ok(_) => unreachable!("no errand is answered so"),
        Err(Refused::Broken(_)) => {
            Said::Refused("the store cannot be written or read; send the same again after a pause")
        }
        Err(_) => Said::Refused("the store is full; send the same again after a pause"),
    }
}

/// Hands a shard's work to the store's thread. Never waits.
///
/// # Errors
/// Gives back a question that there is no space for. A receipt that there is no space for is lost, and whoever
/// waits for it learns nothing.
pub(super) fn hand_in(store: &StoreHandle, errands: Errands) -> Result<(), Box<Errand>> {
    let errand = match errands {
        Errands::Ask(errand) => errand,
        Errands::Reached { receipt, connections } => {
            store.tell((receipt, connections));
            return Ok(());
        }
    };
    let owner = Arc::clone(&errand.owner);
    let ask = match &errand.task {
        Task::List(span) => Ask::List { owner, span: *span },
        Task::Read(marked) => Ask::Read { owner, marked: marked.clone() },
    };
    let from = From::Connection { to: errand.to, reference: errand.reference.clone() };
    store.ask(from, ask).map_err(|_| errand)
}

/// How a revocation is kept.
pub(super) fn kept_revocation(revocation: &Revocation) -> Revoked {
    match revocation {
        Revocation::User { tenant, user, issued, until } => {
            let name = user_room(tenant.as_deref(), user).into();
            Revoked { is_token: false, name, issued: *issued, until: *until }
        }
        Revocation::Token { id, until } => {
            Revoked { is_token: true, name: id.clone(), issued: 0, until: *until }
        }
    }
}

fn revocation(kept: Revoked) -> Revocation {
    let Revoked { is_token, name, issued, until } = kept;
    if is_token {
        return Revocation::Token { id: name, until };
    }
    let (tenant, user) = user_of(&name);
    Revocation::User { tenant: tenant.map(Box::from), user: user.into(), issued, until }
}

/// A store that is open, and what it remembers of an earlier life.
pub(super) struct Opened {
    store: Box<dyn Store>,
    pace: Pace,
    pub(super) revocations: Vec<Revocation>,
}

impl Opened {
    /// Opens what the configuration names.
    ///
    /// # Errors
    /// When the file does not do.
    pub(super) fn open(config: &Config) -> Result<Self, LaunchError> {
        let own = &config.inside.store;
        let limits = Limits {
            count: u64::from(own.inbox_count),
            bytes: u64::from(own.inbox_bytes),
            age_ms: u64::from(own.inbox_age_days) * DAY_MS,
            seen_age_ms: u64::from(own.last_seen_days) * DAY_MS,
            revocations: u64::from(config.auth.door.max_revocations),
        };
        let failed = |error| LaunchError::new("store.path", error);
        let mut store: Box<dyn Store> = if own.path.is_empty() {
            Box::new(Memory::new(limits, own.memory_bytes))
        } else {
            let cache = own.cache_bytes as usize;
            Box::new(Disk::open(Path::new(&own.path), limits, cache).map_err(failed)?)
        };
        let outcomes = store.commit(&[Ask::Revocations], unix_millis()).map_err(failed)?;
        let revocations = match outcomes.into_iter().next() {
            Some(Ok(Answer::Revoked(all))) => all.into_iter().map(revocation).collect(),
            _ => Vec::new(),
        };
        let pace = Pace { queue: own.queue as usize, window: own.commit_window, prune: PRUNE };
        Ok(Self { store, pace, revocations })
    }

    /// Starts the store's thread.
    ///
    /// # Errors
    /// When the kernel refuses one.
    pub(super) fn start(self, clerk: NodeClerk) -> Result<StoreThread, LaunchError> {
        Keeper::start(self.store, clerk, self.pace)
            .map_err(|error| LaunchError::new("starting a thread", error))
    }
}
