//! For whom a shard's queues hold bytes: tenants, namespaces, and single rooms of those that say so.
//!
//! A frame is charged once in a shard, to the tenant of the first connection that queues it and to the namespace
//! that whoever made it says; a tenant's frames never stand in another tenant's queue, so first is as good as
//! any. Control frames are charged to nobody here: they are few for each connection, and some are everybody's.
//!
//! Each payer may have a limit. How near it is to that is its [`Stage`], brought up to date by
//! [`Payers::settle`] for those that have changed since, so tenants who are silent cost nothing. What follows from
//! a stage is the owner's to say. A connection names its payer by 4 bytes at its index, where there are tenants
//! at all.

use super::rooms::Rooms;
use crate::base::account::{Account, Changed};
use crate::base::map::{Map, Seed};

/// How near a payer is to its limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Far from it, or it has none.
    #[default]
    Calm,
    /// From [`TIGHT`] hundredths of it on.
    Tight,
    /// Beyond it, and until it is back at [`EASED`] hundredths.
    Over,
}

/// Hundredths of a limit from which on a payer is near it.
pub const TIGHT: u64 = 70;
/// Hundredths of a limit at which a payer that was beyond it no longer is.
pub const EASED: u64 = 85;

impl Stage {
    /// What follows when so many bytes are held.
    fn after(self, bytes: u64, limit: u64) -> Self {
        let hundredth = limit / 100;
        let mark = if self == Self::Over { hundredth * EASED } else { limit };
        if bytes > mark {
            Self::Over
        } else if bytes > hundredth * TIGHT {
            Self::Tight
        } else {
            Self::Calm
        }
    }
}

/// One who pays.
#[derive(Debug)]
pub(super) struct Payer {
    pub(super) account: Account,
    /// [`u64::MAX`]: none.
    limit: u64,
    pub(super) stage: Stage,
}

impl Payer {
    fn new(number: u32, changed: &Changed, limit: u64) -> Self {
        Self::of(Account::new(number, changed), limit)
    }

    pub(super) fn of(account: Account, limit: u64) -> Self {
        Self { account, limit, stage: Stage::Calm }
    }

    /// Brings the stage up to date; the bytes that are held.
    pub(super) fn settle(&mut self) -> u64 {
        let bytes = self.account.read();
        self.stage = self.stage.after(bytes, self.limit);
        bytes
    }
}

#[derive(Debug)]
struct Tenant {
    name: Box<str>,
    payer: Payer,
    /// Connections with this row.
    members: u32,
    /// The bytes that somebody was told of last.
    told: u64,
}

/// A change of what a tenant holds: its name, and the bytes as they were told last and as they are.
pub type Held<'a> = (&'a str, u64, u64);

/// Who pays in one shard.
#[derive(Debug)]
pub struct Payers {
    known: Map<Box<str>, u32>,
    tenants: Vec<Option<Tenant>>,
    /// Rows that stand for nobody.
    free: Vec<u32>,
    /// By the index of a connection: its tenant's row and one, or zero.
    members: Vec<u32>,
    changed: Changed,
    /// By the place of the namespace; `None` for those without a limit.
    spaces: Vec<Option<Payer>>,
    changed_spaces: Changed,
    rooms: Rooms,
    /// Tenants and namespaces that are not calm.
    uneasy: usize,
    /// Tenants beyond their limit.
    over: usize,
}

impl Payers {
    pub(super) fn new(seed: &Seed) -> Self {
        Self {
            known: seed.map(),
            tenants: Vec::new(),
            free: Vec::new(),
            members: Vec::new(),
            changed: Changed::default(),
            spaces: Vec::new(),
            changed_spaces: Changed::default(),
            rooms: Rooms::new(seed),
            uneasy: 0,
            over: 0,
        }
    }

    /// A connection is one of this tenant's from now on, whose limit is so many bytes; one that is somebody's
    /// stays its.
    pub fn enter(&mut self, index: u32, tenant: &str, limit: u64) {
        let at = index as usize;
        if self.members.get(at).is_some_and(|row| *row > 0) {
            return;
        }
        let row = self.row(tenant, limit);
        if self.members.len() <= at {
            self.members.resize(at + 1, 0);
        }
        self.members[at] = row + 1;
        if let Some(tenant) = &mut self.tenants[row as usize] {
            tenant.members += 1;
        }
    }

    fn row(&mut self, name: &str, limit: u64) -> u32 {
        if let Some(row) = self.known.get(name) {
            return *row;
        }
        let row = self.free.pop().unwrap_or_else(|| {
            self.tenants.push(None);
            u32::try_from(self.tenants.len() - 1).unwrap_or(u32::MAX)
        });
        let payer = Payer::new(row, &self.changed, limit);
        self.tenants[row as usize] = Some(Tenant { name: name.into(), payer, members: 0, told: 0 });
        self.known.insert(name.into(), row);
        row
    }

    /// The connection is no more, and nothing is queued for it. `tell` hears of a tenant that goes with it.
    pub fn leave(&mut self, index: u32, tell: impl FnOnce(Held<'_>)) {
        let Some(place) = self.members.get_mut(index as usize) else { return };
        let Some(row) = std::mem::take(place).checked_sub(1) else { return };
        let Some(tenant) = &mut self.tenants[row as usize] else { return };
        tenant.members -= 1;
        if tenant.members > 0 {
            return;
        }
        // Whatever refers to its account still is counted for the shard alone.
        if let Some(gone) = self.tenants[row as usize].take() {
            self.uneasy -= usize::from(gone.payer.stage > Stage::Calm);
            self.over -= usize::from(gone.payer.stage == Stage::Over);
            self.known.remove(&gone.name);
            self.free.push(row);
            tell((&gone.name, gone.told, 0));
        }
        if self.known.is_empty() {
            (self.members, self.tenants, self.free) = (Vec::new(), Vec::new(), Vec::new());
            self.known.shrink_to(0);
        }
    }

    /// Gives back the places behind the last connection.
    pub fn trim(&mut self, bound: u32) {
        self.members.truncate(bound as usize);
        self.members.shrink_to_fit();
    }

    /// The account of a connection's tenant.
    pub(super) fn account(&self, index: u32) -> Option<&Account> {
        Some(&self.tenants[self.row_of(index)? as usize].as_ref()?.payer.account)
    }

    /// The row of a connection's tenant.
    #[must_use]
    pub fn row_of(&self, index: u32) -> Option<u32> {
        self.members.get(index as usize)?.checked_sub(1)
    }

    /// The account of the namespace at that place, if it has a limit.
    #[must_use]
    pub fn space(&self, at: usize) -> Option<&Account> {
        Some(&self.spaces.get(at)?.as_ref()?.account)
    }

    /// True when some namespace has a limit, or its rooms have.
    #[must_use]
    pub fn has_spaces(&self) -> bool {
        !self.spaces.is_empty() || self.rooms.is_limiting()
    }

    /// Whom publications to a room of the namespace at that place are counted for: the room, where that limits its
    /// rooms, and with it or alone the namespace, if it has a limit.
    pub fn place(&mut self, room: &str, at: usize) -> Option<&Account> {
        let space = self.spaces.get(at).and_then(Option::as_ref).map(|payer| &payer.account);
        match self.rooms.limit(at) {
            0 => space,
            limit => Some(self.rooms.account(room, limit, space)),
        }
    }

    /// What each room of namespaces may hold, in the namespaces' order; zero: no limit.
    pub fn set_rooms(&mut self, limits: impl IntoIterator<Item = u64>) {
        self.rooms.set_limits(limits);
    }

    /// The stage of a room.
    #[must_use]
    pub fn stage_of_room(&self, room: &str) -> Stage {
        self.rooms.stage(room)
    }

    /// What waits for the readers of a room with a limit.
    #[must_use]
    pub fn bytes_of_room(&self, room: &str) -> u64 {
        self.rooms.bytes(room)
    }

    /// The rooms with a limit for which something waits, or did until lately.
    #[must_use]
    pub fn rooms(&self) -> usize {
        self.rooms.len()
    }

    /// Namespaces with these limits, in their order; zero: none. `anew`: they are others than they were, so what
    /// is queued for the old ones counts for none of them.
    pub fn set_spaces(&mut self, limits: impl IntoIterator<Item = u64>, anew: bool) {
        let calm = |payer: &&Payer| payer.stage == Stage::Calm;
        self.uneasy -= self.spaces.iter().flatten().filter(|payer| !calm(payer)).count();
        let mut old = std::mem::take(&mut self.spaces);
        let changed = &self.changed_spaces;
        let mut spaces: Vec<Option<Payer>> = (0..)
            .zip(limits)
            .map(|(number, limit)| {
                let kept = old.get_mut(number as usize).filter(|_| !anew).and_then(Option::take);
                let payer = kept.unwrap_or_else(|| Payer::new(number, changed, limit));
                (limit > 0).then_some(Payer { limit, ..payer })
            })
            .collect();
        if spaces.iter().all(Option::is_none) {
            spaces.clear();
        }
        for payer in spaces.iter_mut().flatten() {
            payer.settle();
            self.uneasy += usize::from(payer.stage > Stage::Calm);
        }
        self.spaces = spaces;
    }

    /// The limits of tenants have changed.
    pub fn set_limits(&mut self, limit: impl Fn(&str) -> u64) {
        for at in 0..self.tenants.len() {
            if let Some(tenant) = &mut self.tenants[at] {
                tenant.payer.limit = limit(&tenant.name);
                self.settle_one(at);
            }
        }
    }

    fn settle_one(&mut self, at: usize) -> Option<u64> {
        let payer = &mut self.tenants.get_mut(at)?.as_mut()?.payer;
        let before = payer.stage;
        let bytes = payer.settle();
        let now = payer.stage;
        self.uneasy =
            self.uneasy + usize::from(now > Stage::Calm) - usize::from(before > Stage::Calm);
        self.over =
            self.over + usize::from(now == Stage::Over) - usize::from(before == Stage::Over);
        Some(bytes)
    }

    /// Brings the stages of all that have changed up to date, and tells what tenants hold now.
    pub fn settle(&mut self, mut tell: impl FnMut(Held<'_>)) {
        while let Some(row) = self.changed.pop() {
            let Some(bytes) = self.settle_one(row as usize) else { continue };
            if let Some(tenant) = &mut self.tenants[row as usize] {
                let before = std::mem::replace(&mut tenant.told, bytes);
                tell((&tenant.name, before, bytes));
            }
        }
        while let Some(at) = self.changed_spaces.pop() {
            let Some(Some(payer)) = self.spaces.get_mut(at as usize) else { continue };
            let before = payer.stage;
            payer.settle();
            let now = payer.stage;
            self.uneasy =
                self.uneasy + usize::from(now > Stage::Calm) - usize::from(before > Stage::Calm);
        }
        self.rooms.settle();
    }

    /// True when somebody is near a limit or beyond it. All others need not be looked for.
    #[must_use]
    pub fn is_uneasy(&self) -> bool {
        self.uneasy + self.rooms.uneasy() > 0
    }

    /// True when a tenant is beyond its limit.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over > 0
    }

    /// The stage of a tenant.
    #[must_use]
    pub fn stage(&self, tenant: &str) -> Stage {
        let row = self.known.get(tenant).and_then(|row| self.tenants[*row as usize].as_ref());
        row.map_or(Stage::Calm, |tenant| tenant.payer.stage)
    }

    /// The stage of the namespace at that place.
    #[must_use]
    pub fn stage_of_space(&self, at: usize) -> Stage {
        self.spaces.get(at).and_then(Option::as_ref).map_or(Stage::Calm, |payer| payer.stage)
    }

    /// How many bytes the tenant of that row has to lose until it is no longer beyond its limit; zero when it is
    /// not.
    #[must_use]
    pub fn excess(&self, row: u32) -> u64 {
        let tenant = self.tenants.get(row as usize).and_then(Option::as_ref);
        let Some(Tenant { payer, .. }) = tenant.filter(|one| one.payer.stage == Stage::Over) else {
            return 0;
        };
        payer.account.bytes().saturating_sub(payer.limit / 100 * EASED)
    }

    /// The row of the tenant that holds most, and how much that is. Looks at all.
    #[must_use]
    pub fn heaviest(&self) -> Option<(u32, u64)> {
        let rows = (0..).zip(&self.tenants);
        let held = rows.filter_map(|(row, one)| Some((row, one.as_ref()?.payer.account.bytes())));
        held.max_by_key(|(_, bytes)| *bytes)
    }

    /// What a tenant's connections hold.
    #[must_use]
    pub fn bytes_of(&self, tenant: &str) -> u64 {
        let row = self.known.get(tenant).and_then(|row| self.tenants[*row as usize].as_ref());
        row.map_or(0, |tenant| tenant.payer.account.bytes())
    }

    /// Verifies that connections, rows and stages agree.
    ///
    /// # Panics
    /// When they do not.
    pub(super) fn check(&self) {
        self.rooms.check();
        let mut members = vec![0; self.tenants.len()];
        for row in self.members.iter().filter_map(|row| row.checked_sub(1)) {
            members[row as usize] += 1;
        }
        let (mut uneasy, mut over) = (0, 0);
        for (row, tenant) in (0..).zip(&self.tenants) {
            assert_eq!(
                tenant.is_none(),
                self.free.contains(&row),
                "row {row} is somebody's or free"
            );
            let Some(tenant) = tenant else { continue };
            assert_eq!(tenant.members, members[row as usize], "connections of {:?}", tenant.name);
            assert_eq!(self.known.get(&tenant.name), Some(&row), "{:?} is known", tenant.name);
            uneasy += usize::from(tenant.payer.stage > Stage::Calm);
            over += usize::from(tenant.payer.stage == Stage::Over);
        }
        assert_eq!(self.known.len() + self.free.len(), self.tenants.len(), "rows of tenants");
        uneasy += self.spaces.iter().flatten().filter(|one| one.stage > Stage::Calm).count();
        assert_eq!((uneasy, over), (self.uneasy, self.over), "who is near a limit");
    }
}
