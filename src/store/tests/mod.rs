//! What a store must do, whichever it is, and what its thread must do with any of them.

mod contract;
mod disk;
mod here;
mod rooms;
mod shared;
mod thread;
mod twin;

use std::path::Path;
use std::sync::Arc;

use super::{Answer, Appended, Ask, Disk, Draft, Limits, Memory, Outcome, Refused, Seen, Store};
use crate::base::inbox::{LAST_ID, Marked, Page, Span};

pub(super) const DAY: u64 = 86_400_000;
/// A time to begin at, in milliseconds since 1970.
pub(super) const NOW: u64 = 1_750_000_000_000;

pub(super) fn limits() -> Limits {
    Limits { count: 5, bytes: 1000, age_ms: 30 * DAY, seen_age_ms: 90 * DAY, revocations: 3 }
}

pub(super) fn open(folder: &Path) -> Disk {
    Disk::open(&folder.join("store.redb"), limits(), 1 << 20).expect("a store")
}

/// A store with a clock that a test turns.
pub(super) struct World {
    pub(super) store: Box<dyn Store>,
    pub(super) now: u64,
}

impl World {
    pub(super) fn ask(&mut self, ask: Ask) -> Outcome {
        let mut outcomes = self.store.commit(&[ask], self.now).expect("a store that works");
        assert_eq!(outcomes.len(), 1);
        outcomes.remove(0)
    }

    pub(super) fn append(&mut self, owner: &str, payload: &str) -> Appended {
        self.append_as(owner, payload, "")
    }

    pub(super) fn append_as(&mut self, owner: &str, payload: &str, name: &str) -> Appended {
        match self.ask(Ask::Append(draft(owner, payload, name))) {
            Ok(Answer::Appended(appended)) => appended,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn list(&mut self, owner: &str, after: u64, limit: usize) -> Page {
        let span = Span { after, until: LAST_ID, limit, bytes: u64::MAX };
        self.list_span(owner, span)
    }

    pub(super) fn list_span(&mut self, owner: &str, span: Span) -> Page {
        match self.ask(Ask::List { owner: owner.into(), span }) {
            Ok(Answer::Page(page)) => page,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn payloads(&mut self, owner: &str) -> Vec<String> {
        self.list(owner, 0, 1000).notes.iter().map(|note| note.payload.to_string()).collect()
    }

    pub(super) fn read(&mut self, owner: &str, marked: Marked) -> (u64, bool) {
        match self.ask(Ask::Read { owner: owner.into(), marked }) {
            Ok(Answer::Unread { unread, changed }) => (unread, changed),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn last_seen(&mut self, owner: &str) -> Option<u64> {
        match self.ask(Ask::LastSeen { owner: owner.into() }) {
            Ok(Answer::LastSeen(at)) => at,
            other => panic!("{other:?}"),
        }
    }

    /// Prunes from end to end; how many notifications left.
    pub(super) fn prune(&mut self) -> u64 {
        let (mut from, mut left) = (Vec::new(), 0);
        loop {
            match self.ask(Ask::Prune { from }) {
                Ok(Answer::Pruned { next, dropped }) => {
                    left += dropped;
                    let Some(next) = next else { return left };
                    from = next;
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Users who went then, as a request.
pub(super) fn gone<'u>(users: impl IntoIterator<Item = (&'u str, u64)>) -> Ask {
    let gone = |(owner, at): (&str, u64)| Seen { owner: owner.into(), at, here: false };
    Ask::Seen(users.into_iter().map(gone).collect())
}

pub(super) fn draft(owner: &str, payload: &str, name: &str) -> Draft {
    let owner: Arc<str> = owner.into();
    Draft { owner, kind: "\"mail\"".into(), payload: payload.into(), name: name.into() }
}

pub(super) fn memory() -> World {
    World { store: Box::new(Memory::new(limits(), 1 << 20)), now: NOW }
}

/// Runs a test on all kinds of store.
pub(super) fn on_all(test: impl Fn(World)) {
    test(memory());
    let folder = tempfile::tempdir().expect("a folder");
    test(World { store: Box::new(open(folder.path())), now: NOW });
    let server = shared::Server::start();
    test(server.world("one"));
}
