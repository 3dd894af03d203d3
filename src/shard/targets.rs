//! From what somebody publishes to drafts at the homes of its targets.
//!
//! Every target becomes a draft. A room's, and that of a user, whose connections share a room, goes to
//! the room's home; one to everyone goes to a home as well, that of the name that stands for everyone, so
//! that everyone sees these in one order. Connections that are named have no home: alone they go straight
//! to their shards, beside other targets they travel with one of those. Who is meant twice is found where
//! the copies meet (`hub::dedup`).
//!
//! Used by shards for their clients and by the node for back ends; it reads no state of a shard.

use std::sync::Arc;

use serde_json::value::RawValue;
use smallvec::SmallVec;

use crate::auth::{connections, everyone, room, user_room};
use crate::base::cursor::Cursor;
use crate::base::id::{NodeTag, ShardId};
use crate::base::map::Seed;
use crate::base::shared::Overflow;
use crate::base::time::Time;
use crate::hub::{self, Audience, Encoded, Except, Group, Origin, Publication, Target, Terms};
use crate::session::Publish;
use crate::session::targets::{self, MAX_USER_BYTES};
use crate::shard::mail::Whole;
use crate::shard::settings::RoomRules;

/// Where homes are and what holds for targets.
#[derive(Debug)]
pub struct Places<'a> {
    /// The node's seed.
    pub seed: &'a Seed,
    /// Shards of the node.
    pub shards: u16,
    /// The policies.
    pub rules: &'a RoomRules,
    /// The node, among those that work together.
    pub node: NodeTag,
}

/// Who publishes.
#[derive(Clone, Copy, Debug)]
pub struct Author<'a> {
    /// Whose names the targets' are.
    pub tenant: Option<&'a str>,
    /// What it is.
    pub origin: Origin,
    /// When it publishes.
    pub at: Time,
    /// Whether other nodes are to have it as well; of no effect in a node that works alone.
    pub across: bool,
}

/// The drafts of one command, by their homes.
#[derive(Debug, Default)]
pub struct Parts {
    /// Each home once.
    pub homes: SmallVec<[(ShardId, SmallVec<[Publication; 1]>); 1]>,
    /// True when several homes may reach the same connection: then the copies are a [`Group`].
    pub overlap: bool,
    /// What goes to the other nodes in one piece because no draft stands for all of it.
    pub across: SmallVec<[Arc<Publication>; 1]>,
    /// True when no target in `across` has a home: then its author sends it.
    pub homeless: bool,
}

impl Parts {
    fn add(&mut self, home: ShardId, draft: Publication) {
        match self.homes.iter_mut().find(|(shard, _)| *shard == home) {
            Some((_, drafts)) => drafts.push(draft),
            None => self.homes.push((home, SmallVec::from_iter([draft]))),
        }
    }

    /// The group of the copies, if they need one; `number` is unique for `maker`.
    #[must_use]
    pub fn group(&self, maker: u16, number: impl FnOnce() -> u64) -> Option<Group> {
        let homes = u16::try_from(self.homes.len()).unwrap_or(u16::MAX);
        self.overlap
            .then(|| Group { id: (u64::from(maker) << 48) | (number() & 0xffff_ffff_ffff), homes })
    }

    /// True for a publication to one room alone, which is numbered elsewhere.
    pub(super) fn is_numbered_elsewhere(&self) -> bool {
        let homes = &self.homes[..];
        matches!(homes, [(_, drafts)] if matches!(&drafts[..], [draft] if draft.terms.keep.is_some()))
    }

    /// True when the author awaits that number.
    pub(super) fn awaits_number(&self) -> bool {
        let keep = match &self.homes[..] {
            [(_, drafts)] if drafts.len() == 1 => drafts[0].terms.keep.as_deref(),
            _ => None,
        };
        keep.is_some_and(|keep| keep.receipt.is_awaited())
    }

    /// What goes to the other nodes in one piece; all homes send it, or the author if it is `homeless`.
    pub fn take_whole(&mut self, group: Option<&Group>) -> Option<Arc<Whole>> {
        let publications = std::mem::take(&mut self.across);
        let group = group.filter(|_| !self.homeless);
        let (id, homes) = group.map_or((0, 1), |group| (group.id, group.homes));
        (!publications.is_empty()).then(|| Arc::new(Whole { id, homes, publications }))
    }
}

impl Places<'_> {
    /// The drafts of a publication; `terms` says what holds for the one of that name within the node.
    #[must_use]
    pub fn parts(
        &self,
        publish: &Publish<'_>,
        author: &Author<'_>,
        terms: &dyn Fn(&str) -> Terms,
    ) -> Parts {
        let (targets, tenant) = (&publish.targets, author.tenant);
        let drafter = Drafter {
            publish,
            author: *author,
            payload: publish.payload.map(|raw| Arc::from(raw.to_owned())),
            except: publish.except.as_deref().and_then(|named| except(named, tenant)),
            key: publish.key.as_ref().map_or(0, |key| self.seed.hash_one(&**key).max(1)),
            rules: self.rules,
            terms,
        };
        let mut parts = Parts::default();
        for name in &targets.rooms {
            let inner = room(tenant, name);
            parts.add(self.home(&inner), drafter.draft(&inner, Target::Room, || name));
        }
        if targets.everyone {
            // It reaches whomever the users' and the connections' drafts would.
            let name = everyone(tenant);
            parts.add(self.home(&name), drafter.draft(&name, Target::Everyone, || EVERYONE));
        } else {
            for user in targets.users() {
                let own = user_room(tenant, user);
                let draft = drafter.draft(&own, Target::User, || user_right(user));
                parts.add(self.home(&own), draft);
            }
        }
        parts.overlap = parts.homes.len() > 1;
        if !targets.everyone {
            self.add_connections(&mut parts, &drafter, tenant);
        }
        if author.across && self.node.is_some() {
            self.send_on(&mut parts, &drafter, tenant);
        }
        parts
    }

    /// Sees to it that other nodes have it: by its homes, if it has any, which keep the order of each target;
    /// else by its author. In one piece, so that whoever is meant twice there is found too.
    fn send_on(&self, parts: &mut Parts, drafter: &Drafter<'_, '_>, tenant: Option<&str>) {
        let targets = &drafter.publish.targets;
        let listed = if targets.everyone { &[][..] } else { targets.connections() };
        let far: Vec<_> = listed.iter().filter(|far| far.node != self.node).copied().collect();
        if far.is_empty()
            && let [(_, drafts)] = &mut parts.homes[..]
            && let [draft] = &mut drafts[..]
        {
            draft.terms.across =
                draft.terms.keep.is_none() && !matches!(draft.to.target, Target::Connections(_));
            return;
        }
        let drafts = parts.homes.iter().flat_map(|(_, drafts)| drafts);
        // What is numbered elsewhere crosses by that.
        let named = drafts.filter(|draft| {
            draft.terms.keep.is_none() && !matches!(draft.to.target, Target::Connections(_))
        });
        let mut across: SmallVec<[_; 1]> = named.map(|draft| Arc::new(draft.copy())).collect();
        parts.homeless = across.is_empty();
        if !far.is_empty() {
            let target = Target::Connections(far.into());
            let draft = drafter.draft(&connections(tenant), target, || CONNECTIONS);
            across.push(Arc::new(draft));
        }
        parts.across = across;
    }

    fn add_connections(&self, parts: &mut Parts, drafter: &Drafter<'_, '_>, tenant: Option<&str>) {
        let listed = drafter.publish.targets.connections();
        // They are sorted, and so stand by nodes and shards; an address may name a shard that there is not.
        let own = listed.partition_point(|address| address.node < self.node);
        let listed = &listed[own..];
        let known = listed
            .partition_point(|address| address.node == self.node && address.shard.0 < self.shards);
        let listed = &listed[..known];
        if listed.is_empty() {
            return;
        }
        let name = connections(tenant);
        let draft =
            |list: &[_]| drafter.draft(&name, Target::Connections(Arc::from(list)), || CONNECTIONS);
        if let Some((_, drafts)) = parts.homes.first_mut() {
            drafts.push(draft(listed));
            return;
        }
        for list in listed.chunk_by(|one, other| one.shard == other.shard) {
            parts.add(list[0].shard, draft(list));
        }
    }

    fn home(&self, name: &str) -> ShardId {
        hub::home(self.seed, name, self.shards)
    }
}

/// What the drafts of one command have in common.
struct Drafter<'a, 'p> {
    publish: &'a Publish<'p>,
    author: Author<'a>,
    payload: Option<Arc<RawValue>>,
    except: Option<Arc<Except>>,
    key: u64,
    rules: &'a RoomRules,
    terms: &'a dyn Fn(&str) -> Terms,
}

impl Drafter<'_, '_> {
    /// `called`: how rights and namespaces name the target.
    fn draft<S: AsRef<str>>(
        &self,
        name: &str,
        target: Target,
        called: impl FnOnce() -> S,
    ) -> Publication {
        let overflow = if self.rules.namespaces.is_empty() {
            self.rules.overflow
        } else {
            self.rules.overflow_of(called().as_ref())
        };
        // What is said to nobody's room is in no history that could be gone back to.
        let pauses = overflow == Overflow::Pause && target != Target::Room;
        let overflow = if pauses { Overflow::default() } else { overflow };
        Publication {
            room: Arc::from(name),
            to: Audience { target, except: self.except.clone() },
            cursor: Cursor::default(),
            at: self.author.at,
            kind: self.publish.kind.to_owned(),
            payload: self.payload.clone(),
            id: self.publish.id.map(RawValue::to_owned),
            overflow,
            key: self.key,
            origin: self.author.origin,
            terms: (self.terms)(name),
            encoded: Encoded::of(self.publish.packed.clone()),
        }
    }
}

fn except(except: &targets::Except<'_>, tenant: Option<&str>) -> Option<Arc<Except>> {
    if except.is_empty() {
        return None;
    }
    let rooms = except.rooms.iter().map(|name| Arc::from(&*room(tenant, name)));
    let users = except.users.iter().map(|user| Arc::from(user_room(tenant, user)));
    let connections = except.connections.as_slice().into();
    Some(Arc::new(Except { connections, rooms: rooms.chain(users).collect() }))
}

/// How rights and namespaces call everyone.
pub(super) const EVERYONE: &str = "everyone";
/// How rights and namespaces call connections by their ids.
pub(super) const CONNECTIONS: &str = "connections";

/// How rights and namespaces call a user.
pub(super) fn user_right(user: &str) -> String {
    format!("user:{user}")
}

const _: () = assert!(MAX_USER_BYTES == crate::auth::MAX_NAME_BYTES);
