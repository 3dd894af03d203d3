//! What payers hold against a list of everything that is queued, whatever happens to it.
//!
//! Each item's first bytes are its number, so the twin finds out what is held by reading all queues and all
//! batches; whose it is it notes when somebody first takes it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::payers::{EASED, Stage, TIGHT};
use super::*;
use crate::base::map::Seed;
use crate::base::shared::{Mark, Overflow, Shared};
use crate::base::time::Tick;
use crate::contract::SendBatch;

const TENANTS: [&str; 2] = ["acme", "other"];
const QUEUES: usize = 4;
/// Of the first tenant and of the first namespace; the others have none.
const LIMIT: u64 = 6000;
/// Of each room of the first namespace.
const ROOM_LIMIT: u64 = 2500;
const ROOMS: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    Enter {
        key: usize,
        tenant: usize,
    },
    Leave {
        key: usize,
    },
    /// One item for all these queues.
    Push {
        keys: [bool; QUEUES],
        policy: u8,
        size: usize,
        space: Option<usize>,
    },
    Pong {
        key: usize,
    },
    Take {
        key: usize,
        bytes: usize,
    },
    Sent {
        key: usize,
    },
    Discard {
        key: usize,
    },
    Spaces {
        anew: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let keys = any::<[bool; QUEUES]>();
    let space = prop_oneof![Just(None), Just(Some(0)), Just(Some(1))];
    prop_oneof![
        2 => (0..QUEUES, 0..2_usize).prop_map(|(key, tenant)| Step::Enter { key, tenant }),
        1 => (0..QUEUES).prop_map(|key| Step::Leave { key }),
        12 => (keys, 0..5_u8, 8..900_usize, space)
            .prop_map(|(keys, policy, size, space)| Step::Push { keys, policy, size, space }),
        1 => (0..QUEUES).prop_map(|key| Step::Pong { key }),
        4 => (0..QUEUES, 0..3000_usize).prop_map(|(key, bytes)| Step::Take { key, bytes }),
        4 => (0..QUEUES).prop_map(|key| Step::Sent { key }),
        1 => (0..QUEUES).prop_map(|key| Step::Discard { key }),
        1 => any::<bool>().prop_map(|anew| Step::Spaces { anew }),
    ]
}

fn limits() -> OutboundLimits {
    OutboundLimits {
        high_water: 2000,
        low_water: 500,
        max_bytes: 6000,
        ..OutboundLimits::default()
    }
}

/// Whose an item is: the tenant that pays, the namespace and its room, as they were when it was first queued, and its
/// cost.
type Bill = (Option<String>, Option<usize>, u64, Option<usize>);

/// The name of a room, and the room of an item.
fn room(number: usize) -> String {
    format!("r{number}")
}

fn room_of(item: u64) -> usize {
    usize::try_from(item).expect("small") % ROOMS
}

struct World {
    store: Store,
    queues: [(Outbound, SendBatch); QUEUES],
    tenants: [Option<usize>; QUEUES],
    bills: BTreeMap<u64, Bill>,
    stages: [Stage; 2],
    rooms: [Stage; ROOMS],
    told: BTreeMap<String, u64>,
    next: u64,
}

impl World {
    fn new() -> Self {
        let mut store = Store::new(&Seed::new(3));
        store.payers.set_spaces([LIMIT, 0], true);
        store.payers.set_rooms([ROOM_LIMIT, 0]);
        Self {
            store,
            queues: Default::default(),
            tenants: [None; QUEUES],
            bills: BTreeMap::new(),
            stages: [Stage::Calm; 2],
            rooms: [Stage::Calm; ROOMS],
            told: BTreeMap::new(),
            next: 0,
        }
    }

    fn tell(told: &mut BTreeMap<String, u64>, (tenant, before, after): payers::Held<'_>) {
        let known = told.insert(tenant.to_owned(), after).unwrap_or(0);
        assert_eq!(known, before, "each is told what it was told last");
    }

    fn item(&mut self, policy: u8, size: usize, space: Option<usize>) -> Shared {
        self.next += 1;
        let mut bytes = vec![7; size];
        bytes[..8].copy_from_slice(&self.next.to_le_bytes());
        let overflow = match policy {
            0 => Overflow::DropNew,
            1 => Overflow::DropOldest,
            2 => Overflow::Conflate,
            3 => Overflow::Disconnect,
            _ => return Shared::kept(bytes),
        };
        let mark = Mark { room: Arc::from("r"), overflow, key: self.next % 3 };
        let name = room(room_of(self.next));
        let space = space.and_then(|at| self.store.payers.place(&name, at));
        Shared::marked(bytes, mark).counted_for(space)
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Enter { key, tenant } => {
                let limit = if tenant == 0 { LIMIT } else { u64::MAX };
                let index = u32::try_from(key).expect("small");
                self.store.payers.enter(index, TENANTS[tenant], limit);
                self.tenants[key].get_or_insert(tenant);
            }
            Step::Leave { key } => self.leave(key),
            Step::Push { keys, policy, size, space } => self.push(keys, policy, size, space),
            Step::Pong { key } => {
                let pong = Shared::kept(vec![0; 30]);
                self.queues[key].0.push_control(&mut self.store, pong, Control::Pong, Tick(1));
            }
            Step::Take { key, bytes } => {
                let (queue, batch) = &mut self.queues[key];
                if !queue.in_flight() {
                    let index = u32::try_from(key).expect("small");
                    queue.take_batch(&mut self.store, index, batch, bytes, 8);
                }
            }
            Step::Sent { key } => {
                let (queue, batch) = &mut self.queues[key];
                if queue.in_flight() {
                    let index = u32::try_from(key).expect("small");
                    queue.sent(&mut self.store, index, batch.left(), &limits());
                    batch.clear();
                }
            }
            Step::Discard { key } => {
                self.queues[key].0.discard(&mut self.store, u32::try_from(key).expect("small"));
            }
            Step::Spaces { anew } => {
                self.store.payers.set_spaces([LIMIT, 0], anew);
                self.store.payers.set_rooms([ROOM_LIMIT, 0]);
                self.bills.values_mut().for_each(|bill| bill.3 = None);
                self.rooms = [Stage::Calm; ROOMS];
                if anew {
                    self.bills.values_mut().for_each(|bill| bill.1 = None);
                    self.stages[1] = Stage::Calm;
                }
            }
        }
    }

    fn leave(&mut self, key: usize) {
        let index = u32::try_from(key).expect("small");
        let (queue, batch) = &mut self.queues[key];
        queue.clear(&mut self.store, index);
        batch.clear();
        self.store.payers.leave(index, |held| Self::tell(&mut self.told, held));
        let Some(tenant) = self.tenants[key].take() else { return };
        if !self.tenants.contains(&Some(tenant)) {
            let gone = Some(TENANTS[tenant].to_owned());
            self.bills.values_mut().filter(|bill| bill.0 == gone).for_each(|bill| bill.0 = None);
            if tenant == 0 {
                self.stages[0] = Stage::Calm;
            }
        }
    }

    fn push(&mut self, keys: [bool; QUEUES], policy: u8, size: usize, space: Option<usize>) {
        let item = self.item(policy, size, space);
        let cost = item.cost();
        for key in (0..QUEUES).filter(|key| keys[*key]) {
            let index = u32::try_from(key).expect("small");
            let queue = &mut self.queues[key].0;
            let pushed = queue.push(&mut self.store, index, item.clone(), Tick(1), &limits());
            if pushed.is_queued() {
                let tenant = self.tenants[key].map(|tenant| TENANTS[tenant].to_owned());
                let space = space.filter(|at| *at == 0 && policy < 4);
                let bill = (tenant, space, cost, space.map(|_| room_of(self.next)));
                self.bills.entry(self.next).or_insert(bill);
            }
        }
    }

    /// The numbers of all items that some queue or batch holds.
    fn held(&self) -> BTreeSet<u64> {
        let number = |bytes: &[u8]| Some(u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?));
        let mut held = BTreeSet::new();
        for (queue, batch) in &self.queues {
            held.extend(queue.items(&self.store).filter_map(|item| number(item.bytes())));
            held.extend(batch.slices().filter_map(number));
        }
        held
    }

    fn compare(&mut self) {
        let (mut by_tenant, mut of_space) = (BTreeMap::<String, u64>::new(), 0);
        let mut by_room = [0; ROOMS];
        for number in self.held() {
            let Some((tenant, space, cost, room)) = self.bills.get(&number) else { continue };
            if let Some(tenant) = tenant {
                *by_tenant.entry(tenant.clone()).or_default() += cost;
            }
            of_space += if space.is_some() { *cost } else { 0 };
            if let Some(room) = room {
                by_room[*room] += cost;
            }
        }
        let Self { store, told, stages, rooms, .. } = self;
        store.payers.settle(|held| Self::tell(told, held));
        for tenant in TENANTS {
            let expected = by_tenant.get(tenant).copied().unwrap_or(0);
            assert_eq!(store.payers.bytes_of(tenant), expected, "what {tenant} holds");
            assert_eq!(told.get(tenant).copied().unwrap_or(0), expected, "what is told of it");
        }
        let space = store.payers.space(0).expect("a limit");
        assert_eq!(space.bytes(), of_space, "what the namespace holds");
        let own = by_tenant.get(TENANTS[0]).copied().unwrap_or(0);
        *stages = [next(stages[0], own, LIMIT), next(stages[1], of_space, LIMIT)];
        for (number, (bytes, stage)) in by_room.into_iter().zip(&mut *rooms).enumerate() {
            *stage = next(*stage, bytes, ROOM_LIMIT);
            let name = room(number);
            assert_eq!(store.payers.bytes_of_room(&name), bytes, "what {name} holds");
            assert_eq!(store.payers.stage_of_room(&name), *stage, "{bytes} of {ROOM_LIMIT}");
        }
        assert_eq!(store.payers.rooms(), by_room.iter().filter(|bytes| **bytes > 0).count());
        let found = [store.payers.stage(TENANTS[0]), store.payers.stage_of_space(0)];
        assert_eq!(found, *stages, "{own} and {of_space} of {LIMIT}");
        assert_eq!(store.payers.stage(TENANTS[1]), Stage::Calm);
        let is_over = stages[0] == Stage::Over;
        assert_eq!(store.payers.is_over(), is_over);
        let mut all = stages.iter().chain(&*rooms);
        assert_eq!(store.payers.is_uneasy(), all.any(|stage| *stage > Stage::Calm));
        let excess = if is_over { own - LIMIT * EASED / 100 } else { 0 };
        let row = self.tenants.iter().position(|tenant| *tenant == Some(0));
        let row = row.and_then(|key| store.payers.row_of(u32::try_from(key).expect("small")));
        assert_eq!(row.map_or(0, |row| store.payers.excess(row)), excess);
        store.check();
    }
}

/// The rule, written for reading.
fn next(before: Stage, bytes: u64, limit: u64) -> Stage {
    let stays = before == Stage::Over && bytes > limit * EASED / 100;
    match bytes {
        _ if bytes > limit || stays => Stage::Over,
        _ if bytes > limit * TIGHT / 100 => Stage::Tight,
        _ => Stage::Calm,
    }
}

proptest! {
    #[test]
    fn what_is_charged_is_what_is_queued_and_nothing_when_all_is_written(
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            world.compare();
        }
        for key in 0..QUEUES {
            let index = u32::try_from(key).expect("small");
            let (queue, batch) = &mut world.queues[key];
            queue.clear(&mut world.store, index);
            batch.clear();
        }
        world.compare();
        prop_assert_eq!(world.store.held_bytes(), 0);
        prop_assert!(world.told.values().all(|bytes| *bytes == 0));
        (0..QUEUES).for_each(|key| world.leave(key));
        world.compare();
        prop_assert_eq!(world.store.payers.heaviest(), None);
    }
}

#[test]
fn a_frame_is_charged_once_and_a_limit_that_changes_holds_for_what_is_held() {
    let mut store = Store::new(&Seed::new(3));
    let mut queues: Vec<Outbound> = (0..9).map(|_| Outbound::default()).collect();
    let frame = Shared::kept(vec![7; 1000]);
    for (key, queue) in (0..).zip(&mut queues) {
        store.payers.enter(key, "acme", u64::MAX);
        queue.push(&mut store, key, frame.clone(), Tick(1), &OutboundLimits::default());
    }
    assert_eq!(store.payers.bytes_of("acme"), frame.cost());
    store.payers.set_limits(|_| 1200);
    assert_eq!(store.payers.stage("acme"), Stage::Tight);
    store.payers.set_limits(|_| 1000);
    assert_eq!((store.payers.stage("acme"), store.payers.is_over()), (Stage::Over, true));
    store.payers.set_limits(|_| u64::MAX);
    assert!(!store.payers.is_uneasy());
    for (key, queue) in (0..).zip(&mut queues) {
        queue.clear(&mut store, key);
    }
    drop(frame);
    assert_eq!((store.payers.bytes_of("acme"), store.held_bytes()), (0, 0));
}
