//! How many rooms a tenant has in the node.
//!
//! Rooms of one tenant have their homes in all shards, so the tenant's own home counts them: a room's home
//! tells it of each that begins and ends. Until the verdict has come back, joins of the new room wait at
//! the room's home; they are not confirmed meanwhile, so nothing reaches a member of a room that must not
//! be. Members of a room that is refused leave it and hear `tenant_limit`, and with the last of them the
//! room ends. A refused room counts until then, so that begins and ends always cancel out. Where tenants
//! have no limit nothing of this happens, and nothing is kept.

use std::sync::Arc;

use crate::auth::{is_user_room, tenant_of};
use crate::base::id::ShardId;
use crate::base::map::{Map, Seed};
use crate::base::party::Party;
use crate::base::time::Time;
use crate::session::Code;
use crate::shard::holdings::Holdings;
use crate::shard::mail::{Asked, Mail, Question};
use crate::shard::state::Shard;

/// Where a tenant's room stands with the tenant's home.
#[derive(Debug)]
enum Standing {
    /// The verdict on the begin of that epoch is awaited, and so are these joins. The room may have ended
    /// meanwhile.
    Asked(u64, Vec<Question>),
    /// It may be.
    Granted,
    /// It is one too many.
    Refused,
}

/// A begin of a room, as two shards speak of it: a room that ends and begins again is another one.
#[derive(Clone, Debug)]
pub struct Begin {
    /// The tenant.
    pub party: Party,
    /// The room, by its name within the node.
    pub room: Arc<str>,
    /// Tells this life of the room from others.
    pub epoch: u64,
}

/// Rooms of tenants, from both sides.
#[derive(Debug)]
pub(super) struct Quotas {
    /// Rooms of tenants whose home is here.
    rooms: Map<Arc<str>, Standing>,
    /// Rooms of the tenants whose home is here, refused ones included; never zero.
    tenants: Map<Party, u32>,
    /// The sum of those.
    counted: u64,
    /// Joins that wait for a verdict.
    waiting: usize,
    /// The rooms of users.
    pub(super) holdings: Holdings,
}

/// Joins that may wait for verdicts in one shard; more are refused.
const MOST_WAITING: usize = 65_536;

impl Quotas {
    pub(super) fn new(seed: &Seed) -> Self {
        let holdings = Holdings::new(seed);
        Self { rooms: seed.map(), tenants: seed.map(), counted: 0, waiting: 0, holdings }
    }

    /// Rooms that are counted for the tenants whose home is here.
    pub(super) fn counted(&self) -> u64 {
        self.counted
    }

    /// Joins that wait for a verdict.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Notes one room more; true when the tenant may have it.
    fn begin(&mut self, party: Party, most: u32) -> bool {
        let count = self.tenants.entry(party).or_default();
        *count += 1;
        self.counted += 1;
        *count <= most
    }

    /// Notes one room less.
    fn end(&mut self, party: Party) {
        let Some(count) = self.tenants.get_mut(&party) else { return };
        *count -= 1;
        self.counted -= 1;
        if *count == 0 {
            self.tenants.remove(&party);
            relax(&mut self.tenants);
        }
    }

    /// The verdict on a room is asked for. Joins that wait for the one on an earlier life of the room wait
    /// for this one.
    fn ask(&mut self, room: &Arc<str>, epoch: u64) {
        let questions = match self.rooms.remove(room) {
            Some(Standing::Asked(_, questions)) => questions,
            Some(Standing::Granted | Standing::Refused) | None => Vec::new(),
        };
        self.rooms.insert(Arc::clone(room), Standing::Asked(epoch, questions));
    }

    /// The verdict has come. The joins that waited for it; `lives`: the room has not ended since.
    fn judge(&mut self, begin: &Begin, granted: bool, lives: bool) -> Vec<Question> {
        match self.rooms.get(&begin.room) {
            Some(Standing::Asked(epoch, _)) if *epoch == begin.epoch => {}
            _ => return Vec::new(),
        }
        let standing = if granted { Standing::Granted } else { Standing::Refused };
        let before = if lives {
            self.rooms.insert(Arc::clone(&begin.room), standing)
        } else {
            self.rooms.remove(&begin.room)
        };
        let Some(Standing::Asked(_, questions)) = before else { return Vec::new() };
        self.waiting -= questions.len();
        questions
    }

    /// The room has ended; the verdict on it may still be awaited.
    fn forget(&mut self, room: &str) {
        if !matches!(self.rooms.get(room), Some(Standing::Asked(..))) {
            self.rooms.remove(room);
            relax(&mut self.rooms);
        }
    }

    /// Verifies the counts.
    ///
    /// # Panics
    /// When one is wrong.
    pub(super) fn check(&self) {
        assert!(self.tenants.values().all(|count| *count > 0), "a tenant without rooms");
        let counted: u64 = self.tenants.values().map(|count| u64::from(*count)).sum();
        assert_eq!(counted, self.counted, "rooms of tenants");
        let waiting: usize = self.rooms.values().map(Standing::waiting).sum();
        assert_eq!(waiting, self.waiting, "joins that wait");
        self.holdings.check();
    }
}

impl Standing {
    fn waiting(&self) -> usize {
        match self {
            Self::Asked(_, questions) => questions.len(),
            Self::Granted | Self::Refused => 0,
        }
    }
}

/// Gives memory back once most entries have gone.
fn relax<K: Eq + std::hash::Hash, V>(map: &mut Map<K, V>) {
    if map.capacity() > 64 && map.len() < map.capacity() / 8 {
        map.shrink_to(map.len() * 2);
    }
}

impl Shard {
    /// As the room's home: so many members are in that shard now.
    pub(super) fn set_count(&mut self, room: &Arc<str>, shard: ShardId, members: u32, now: Time) {
        self.note_count(room, now);
        let had = self.had_members(room);
        self.count_members(room, shard, members);
        self.note_members(room, had);
        self.note_interest(room, had, now);
    }

    fn count_members(&mut self, room: &Arc<str>, shard: ShardId, members: u32) {
        let directory = &mut self.rooms.directory;
        if self.settings.limits.tenant.rooms == 0 {
            return directory.set_count(room, shard, members);
        }
        let before = directory.position(room);
        directory.set_count(room, shard, members);
        match (before, self.rooms.directory.position(room)) {
            (None, Some((epoch, _))) => self.note_begin(room, epoch),
            (Some(_), None) => self.note_end(room),
            (None, None) | (Some(_), Some(_)) => {}
        }
    }

    /// As the room's home: the room has begun, with a member or with what an earlier process had stored of it.
    pub(super) fn note_begin(&mut self, room: &Arc<str>, epoch: u64) {
        let most = self.settings.limits.tenant.rooms;
        let tenant = tenant_of(room).filter(|_| most > 0 && !is_user_room(room));
        let Some(tenant) = tenant else { return };
        let party = Party::tenant(&self.identity.seed, tenant);
        let (home, own) = (self.home_of(party), self.identity.id);
        let quotas = &mut self.rooms.quotas;
        quotas.ask(room, epoch);
        let begin = Begin { party, room: Arc::clone(room), epoch };
        if home == own {
            let granted = quotas.begin(party, self.settings.limits.of(party).rooms);
            // Whoever asks comes after the count that has begun the room.
            let waited = quotas.judge(&begin, granted, true);
            assert!(waited.is_empty(), "a join before its room");
        } else {
            self.outbox.push(home, Mail::Begin(Box::new(begin), own));
        }
    }

    /// As the room's home: the room has ended.
    pub(super) fn note_end(&mut self, room: &str) {
        let counts = self.settings.limits.tenant.rooms > 0;
        let tenant = tenant_of(room).filter(|_| counts && !is_user_room(room));
        let Some(tenant) = tenant else { return };
        let party = Party::tenant(&self.identity.seed, tenant);
        self.rooms.quotas.forget(room);
        let home = self.home_of(party);
        if home == self.identity.id {
            self.rooms.quotas.end(party);
        } else {
            self.outbox.push(home, Mail::End(party));
        }
    }

    /// As the room's home: true when the room may have history. Where the rooms of tenants are counted, one of
    /// theirs begins with a member and not with a publication, and has history once it may be.
    pub(super) fn may_keep(&self, room: &str) -> bool {
        let counts = self.settings.limits.tenant.rooms > 0;
        if !counts || tenant_of(room).is_none() {
            return true;
        }
        match self.rooms.quotas.rooms.get(room) {
            Some(standing) => matches!(standing, Standing::Granted),
            None => self.rooms.directory.position(room).is_some(),
        }
    }

    /// As the tenant's home: a room has begun, at its home `from`.
    pub(super) fn handle_begin(&mut self, begin: Box<Begin>, from: ShardId) {
        let most = self.settings.limits.of(begin.party).rooms;
        let granted = self.rooms.quotas.begin(begin.party, most);
        self.outbox.push(from, Mail::Verdict(begin, granted));
    }

    /// As the tenant's home: a room has ended.
    pub(super) fn handle_room_end(&mut self, party: Party) {
        self.rooms.quotas.end(party);
    }

    /// As the room's home: the room may be, or not. It may have ended, and begun again, meanwhile.
    pub(super) fn handle_verdict(&mut self, begin: &Begin, granted: bool, now: Time) {
        let lives = self.rooms.directory.position(&begin.room).is_some();
        for question in self.rooms.quotas.judge(begin, granted, lives) {
            self.answer(question, now);
        }
    }

    /// As the room's home: the question, if it may be answered now. A join of a room that waits for its
    /// verdict waits too; one of a room that is one too many is refused.
    pub(super) fn hold_back(&mut self, question: Question, now: Time) -> Option<Question> {
        if !matches!(question.asked, Asked::Join(_)) {
            return Some(question);
        }
        let quotas = &mut self.rooms.quotas;
        match quotas.rooms.get_mut(&question.room) {
            Some(Standing::Asked(_, waiting)) if quotas.waiting < MOST_WAITING => {
                quotas.waiting += 1;
                waiting.push(question);
                None
            }
            Some(Standing::Asked(..) | Standing::Refused) => {
                let shard = question.to.shard;
                if shard == self.identity.id {
                    self.handle_refused(&question, now);
                } else {
                    self.outbox.push(shard, Mail::Refused(Box::new(question)));
                }
                None
            }
            Some(Standing::Granted) | None => Some(question),
        }
    }

    /// The room that somebody has joined must not be: the membership ends, and its owner hears why.
    pub(super) fn handle_refused(&mut self, question: &Question, now: Time) {
        self.counters.rooms_refused_total += 1;
        let conn = question.to.conn;
        self.note_answered(conn);
        if let Some(connection) = self.table.get(conn) {
            self.rooms.hub.leave(&mut connection.member, &question.room);
            self.rooms.replays.leave(conn.index, &question.room);
            self.note_rooms(conn.index);
        }
        let message = "the tenant has as many rooms as it may";
        self.refuse_join(question, Code::TenantLimit, message, now);
    }
}
