//! The store that the configuration names, opened, and what it remembers of an earlier life of the node.
//!
//! A file that does not do keeps the node from starting. A Redis that is away does not: the node begins without what it would
//! remember, and the store is tried again with every request.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::auth::Revocation;
use crate::base::saved::SavedRoom;
use crate::bridge::Direct;
use crate::node::config::Config;
use crate::node::keeper::{NodeClerk, StoreThread, revocation};
use crate::node::link;
use crate::node::running::LaunchError;
use crate::store::{Answer, Ask, Care, Disk, Fault, Keeper, Limits, Memory, Pace, Shared, Store};
use crate::sys::clock::unix_millis;
use crate::sys::memory;

const DAY_MS: u64 = 86_400_000;
/// How soon a store that failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);
const PRUNE: Duration = Duration::from_secs(3600);

/// The pause between two notes that the process lives. A user who was here when it was killed is said to have been
/// last seen this much too early, at most.
const ALIVE: Duration = Duration::from_secs(5);

/// A store that is open, and what it remembers of an earlier life.
pub(super) struct Opened {
    store: Box<dyn Store>,
    pace: Pace,
    pub(super) memories: Memories,
}

/// What is remembered of an earlier life of the node.
#[derive(Debug, Default)]
pub(super) struct Memories {
    pub(super) revocations: Vec<Revocation>,
    /// When users were last seen, those seen last.
    pub(super) seen: Vec<(Arc<str>, u64)>,
    /// What was published with persist.
    pub(super) rooms: Vec<SavedRoom>,
}

/// Bytes of rows that are read from the store at once.
const ROOMS_AT_ONCE: u64 = 1 << 22;

/// What was published with persist, as far as there is memory for it; the store forgets the rest, as nobody would
/// know of it.
fn recall_rooms(store: &mut dyn Store, most: u64) -> Result<Vec<SavedRoom>, Fault> {
    let (mut all, mut after, mut bytes, mut forgotten) = (Vec::new(), Arc::from(""), 0, 0);
    loop {
        let ask = Ask::Rooms { after, bytes: ROOMS_AT_ONCE };
        let Some(Ok(Answer::Rooms { rooms, next })) = store.commit(&[ask], unix_millis())?.pop()
        else {
            return Ok(all);
        };
        let mut asks = Vec::new();
        for room in rooms {
            bytes += room.rows.iter().map(|row| row.bytes.len() as u64).sum::<u64>();
            if bytes <= most {
                all.push(room);
            } else {
                asks.push(Ask::Forget { room: room.room, epoch: room.epoch });
            }
        }
        forgotten += asks.len();
        if !asks.is_empty() {
            store.commit(&asks, unix_millis())?;
        }
        match next {
            Some(last) => after = last,
            None => break,
        }
    }
    if forgotten > 0 {
        tracing::warn!("the history of {forgotten} rooms is forgotten: there is no memory for it");
    }
    Ok(all)
}

/// The store in the Redis of all nodes.
fn shared(config: &Config, limits: Limits) -> Result<Shared, LaunchError> {
    let own = &config.inside.bridge;
    let direct = Direct::new(link::server(&config.inside)?, Shared::key(&own.prefix))
        .map_err(|fault| LaunchError::new("store.redis", fault))?;
    let care =
        Care { patience: own.command_timeout, replicas: config.inside.shared_store.replicas };
    let open = Box::new(move |patience| direct.connect(patience));
    Ok(Shared::new(open, &own.prefix, &own.node, limits, care))
}

/// Settles who was here in an earlier life, and reads what is remembered of it.
fn recall(store: &mut dyn Store, config: &Config) -> Result<Memories, Fault> {
    while let Some(Ok(Answer::Settled { more: true })) =
        store.commit(&[Ask::Settle], unix_millis())?.pop()
    {}
    let limit = config.auth.presence.remembered as usize;
    let asks = [Ask::Revocations, Ask::Recent { limit }];
    let mut memories = Memories::default();
    for outcome in store.commit(&asks, unix_millis())? {
        match outcome {
            Ok(Answer::Revoked(all)) => {
                memories.revocations = all.into_iter().map(revocation).collect();
            }
            Ok(Answer::Recent(seen)) => memories.seen = seen,
            _ => {}
        }
    }
    // History has an eighth of the memory budget.
    let budget = match config.limits.memory.bytes {
        0 => memory::available() / 2,
        bytes => bytes,
    };
    memories.rooms = recall_rooms(store, budget / 8)?;
    Ok(memories)
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
        let mut store: Box<dyn Store> = if config.inside.shared_store.redis {
            Box::new(shared(config, limits)?)
        } else if own.path.is_empty() {
            Box::new(Memory::new(limits, own.memory_bytes))
        } else {
            let cache = own.cache_bytes as usize;
            Box::new(Disk::open(Path::new(&own.path), limits, cache).map_err(failed)?)
        };
        let memories = match recall(&mut *store, config) {
            // A node that starts while Redis is away begins without what it would remember.
            Err(fault) if config.inside.shared_store.redis => {
                tracing::error!("nothing of an earlier life is known: {fault}");
                Memories::default()
            }
            recalled => recalled.map_err(failed)?,
        };
        let pace = Pace {
            queue: own.queue as usize,
            window: own.commit_window,
            prune: PRUNE,
            again: AGAIN,
            // What is gone with the process need not know when that was.
            alive: if config.inside.is_lasting() { ALIVE } else { Duration::ZERO },
        };
        Ok(Self { store, pace, memories })
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
