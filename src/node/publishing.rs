//! What back ends publish, from the text of a request to mail for the homes, and back to its outcome.
//!
//! A request is read as a client's message would be and split by homes as a client's command is, here, so
//! that the homes get drafts and no shard works for another. What is under way is bounded: publications
//! that no home has numbered yet, and those to everyone that wait in line; beyond that nothing more is
//! taken. Homes and shards tell by mail to the desk's own port what came of each order. It is read when
//! somebody waits for it, and nobody waits for it to be read.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};

use crate::admin::{NotPublished, Outcome, Posted, Publisher, Replied, Reply};
use crate::auth::{Place, place};
use crate::base::id::{NodeTag, ShardId};
use crate::base::map::{Map, Seed};
use crate::base::time::Time;
use crate::hub::{Durable, Keep, Origin, Receipt, Slip, Terms};
use crate::mesh::{Lane, Port};
use crate::node::config::Config;
use crate::node::desk::{Mutex, NodeDesk};
use crate::node::link::bridge_port;
use crate::node::replies;
use crate::node::settings;
use crate::session::schema::Schemas;
use crate::session::{Code, CommandError, CommandLimits, Count, Order, Orders, parse_orders};
use crate::shard::{
    Author, Crossing, Decided, Identity, Mail, NO_HISTORY, NO_HOME, NO_STORE, Packer, Places,
    Report, RoomRules, SHARED, Submission, SubmissionItem,
};
use crate::sys::clock::Clock;
use crate::sys::memory;

/// Makes the ids of groups of copies unique beside those of shards, which have lower numbers.
const MAKER: u16 = u16::MAX;
/// Publications to everyone that may be in line in a shard, those of a request among them.
const TO_EVERYONE: usize = 256;

/// The admin listener's port: behind those of the shards and the node's own.
pub(super) fn desk_port(shards: usize) -> usize {
    shards + 1
}

/// What the configuration says about publishing.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) commands: CommandLimits,
    rooms: RoomRules,
    /// Publications of one request.
    pub(super) batch: usize,
    waiting: usize,
    /// The memory budget of the whole node.
    memory: u64,
    /// Whether there is a store that outlives the process.
    has_store: bool,
}

impl Rules {
    /// Why the publication cannot be stored, if it is to be and cannot.
    pub(super) fn unstorable(&self, order: &Order<'_>) -> Option<&'static str> {
        let room = order.publish.targets.rooms.first().filter(|_| order.publish.persist)?;
        if !self.has_store {
            return Some(NO_STORE);
        }
        if self.rooms.shares(room) {
            return Some(SHARED);
        }
        self.rooms.memory_of(room).history.is_none().then_some(NO_HISTORY)
    }

    /// Why the payload does not fit the schemas, if it does not.
    pub(super) fn misfit(&self, order: &Order<'_>) -> Option<CommandError> {
        self.rooms.schemas.check(&order.publish, None).err()
    }

    fn of(config: &Config, schemas: &Arc<Schemas>) -> Self {
        Self {
            commands: settings::commands(config),
            rooms: RoomRules { schemas: Arc::clone(schemas), ..settings::rooms(config) },
            batch: config.limits.publish.max_batch as usize,
            waiting: config.limits.publish.max_waiting as usize,
            memory: match config.limits.memory.bytes {
                0 => memory::available() / 2,
                bytes => bytes,
            },
            has_store: config.inside.is_lasting(),
        }
    }
}

/// The orders under way.
#[derive(Debug)]
pub(super) struct Publishing {
    seed: Seed,
    node: NodeTag,
    clock: Clock,
    rules: Mutex<Option<Arc<Rules>>>,
    state: Mutex<State>,
    /// For payloads that are too long for shards to compress.
    packer: Mutex<Option<Packer>>,
    /// Publications refused because their payload does not fit its schema.
    pub(super) misfits: AtomicU64,
}

#[derive(Debug)]
struct State {
    orders: u64,
    groups: u64,
    /// Per shard, in order: what an inbox had no space for.
    waiting: Vec<VecDeque<Mail>>,
    /// For the bridge.
    across: VecDeque<Mail>,
    /// Publications that homes have yet to number; one with several homes counts for each.
    under_way: usize,
    /// Orders that somebody waits for.
    open: Map<u64, Open>,
}

/// An order that somebody waits for.
#[derive(Debug, Default)]
struct Open {
    /// Publications that homes have yet to take, for each of their homes.
    left: usize,
    /// Publications that are being numbered elsewhere; below zero while more is known of them than of their homes.
    kept: i64,
    /// Nobody counts whom those reach.
    is_uncounted: bool,
    /// Copies that shards were sent and tell of, and how many have.
    copies: u64,
    told: u64,
    /// Publications of which the bridge has yet to say whom they reach on other nodes. True: it will not, if its
    /// home does not take it.
    afar: BTreeMap<u32, bool>,
    outcomes: Vec<Outcome>,
}

impl Open {
    fn is_complete(&self) -> bool {
        let are_told = self.afar.is_empty() || self.is_uncounted;
        self.left == 0 && self.kept == 0 && self.told >= self.copies && are_told
    }

    /// A home has not taken that publication, so it may be that no other node hears of it.
    fn note_untaken(&mut self, item: u32) {
        if self.afar.get(&item) == Some(&true) {
            self.afar.remove(&item);
        }
    }

    fn into_outcomes(mut self) -> Vec<Outcome> {
        let complete = self.is_complete() && !self.is_uncounted;
        for outcome in &mut self.outcomes {
            outcome.complete = complete && outcome.missing.is_none();
        }
        self.outcomes
    }
}

impl State {
    fn note(&mut self, report: Report) {
        match report {
            Report::Kept { order, item, told } => self.note_kept(order, item, told),
            Report::Taken { order, items, numbers, repeats, copies, kept } => {
                self.under_way = self.under_way.saturating_sub(items as usize);
                let Some(open) = self.open.get_mut(&order) else { return };
                open.left = open.left.saturating_sub(items as usize);
                open.kept += i64::from(kept);
                open.is_uncounted |= kept > 0;
                open.copies += u64::from(copies);
                for item in repeats {
                    open.note_untaken(item);
                    if let Some(outcome) = open.outcomes.get_mut(item as usize) {
                        outcome.duplicate = true;
                    }
                }
                for number in numbers {
                    let Place::Room(room) = place(&number.room) else { continue };
                    if let Some(outcome) = open.outcomes.get_mut(number.item as usize) {
                        let (epoch, offset) = number.position;
                        outcome.numbers.push((room.to_owned(), epoch, offset));
                    }
                }
            }
            Report::Refused { order, item, code, message } => {
                self.under_way = self.under_way.saturating_sub(1);
                let Some(open) = self.open.get_mut(&order) else { return };
                open.left = open.left.saturating_sub(1);
                open.note_untaken(item);
                if let Some(outcome) = open.outcomes.get_mut(item as usize) {
                    outcome.unstored = Some((code, message));
                }
            }
            Report::Reached { slip, connections } => {
                let Some(open) = self.open.get_mut(&slip.order) else { return };
                open.told += 1;
                let outcome = open.outcomes.get_mut(slip.item as usize);
                if let Some(sum) = outcome.and_then(|outcome| outcome.connections.as_mut()) {
                    *sum += connections;
                }
            }
            Report::Afar { slip, connections, missing } => {
                let Some(open) = self.open.get_mut(&slip.order) else { return };
                open.afar.remove(&slip.item);
                let Some(outcome) = open.outcomes.get_mut(slip.item as usize) else { return };
                outcome.connections = outcome.connections.map(|sum| sum + connections);
                let name = |name: Arc<str>| name.as_ref().to_owned();
                outcome.missing = missing.map(|names| names.into_iter().map(name).collect());
            }
        }
    }

    fn note_kept(&mut self, order: u64, item: u32, told: Decided) {
        let Some(open) = self.open.get_mut(&order) else { return };
        open.kept -= 1;
        let Some(outcome) = open.outcomes.get_mut(item as usize) else { return };
        let plain = |room: &str| match place(room) {
            Place::Room(room) => room.to_owned(),
            _ => String::new(),
        };
        outcome.duplicate |= matches!(told, Decided::Repeat(..));
        match told {
            Decided::Taken(room, at) | Decided::Repeat(room, at) => {
                outcome.numbers.push((plain(&room), at.epoch, at.offset));
            }
            Decided::Refused(room, why) => outcome.refused.push((plain(&room), why.to_owned())),
        }
    }

    fn post(&mut self, port: &Port<Mail>) {
        for (shard, waiting) in self.waiting.iter_mut().enumerate() {
            while let Some(mail) = waiting.pop_front() {
                if let Err(mail) = port.post(shard, Lane::Request, mail) {
                    waiting.push_front(mail);
                    break;
                }
            }
        }
        let bridge = bridge_port(self.waiting.len());
        while let Some(mail) = self.across.pop_front() {
            if let Err(mail) = port.post(bridge, Lane::Request, mail) {
                return self.across.push_front(mail);
            }
        }
    }

    /// Takes in what shards have told.
    fn read(&mut self, port: &Port<Mail>) {
        while let Some(mail) = port.take(Lane::Delivery) {
            if let Mail::Report(report) = mail {
                self.note(*report);
            }
        }
    }
}

impl Publishing {
    pub(super) fn new(identity: &Identity, clock: Clock, packer: Option<Packer>) -> Self {
        let Identity { seed, shards, node, .. } = identity.clone();
        let state = State {
            orders: 0,
            groups: 0,
            waiting: (0..shards).map(|_| VecDeque::new()).collect(),
            across: VecDeque::new(),
            under_way: 0,
            open: seed.map(),
        };
        Self {
            seed,
            node,
            clock,
            rules: Mutex::new(None),
            state: Mutex::new(state),
            packer: Mutex::new(packer),
            misfits: AtomicU64::new(0),
        }
    }

    pub(super) fn adopt(&self, config: &Config, schemas: &Arc<Schemas>) {
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Arc::new(Rules::of(config, schemas)));
    }

    /// Compresses the payloads that are long.
    pub(super) fn prepare(&self, orders: &mut [Order<'_>]) {
        if let Some(packer) = &mut *self.packer.lock().unwrap_or_else(PoisonError::into_inner) {
            orders.iter_mut().for_each(|order| packer.prepare(&mut order.publish));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn rules(&self) -> Result<Arc<Rules>, NotPublished> {
        let rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        rules.clone().ok_or(NotPublished::Behind)
    }

    /// Splits orders by homes.
    fn submissions(
        &self,
        state: &mut State,
        rules: &Rules,
        orders: &[Order<'_>],
        tenant: Option<&str>,
    ) -> (Vec<Vec<SubmissionItem>>, BTreeMap<u32, bool>) {
        let mut afar = BTreeMap::new();
        let mut homes: Vec<Vec<SubmissionItem>> = Vec::new();
        let shards = u16::try_from(state.waiting.len()).unwrap_or(u16::MAX);
        homes.resize_with(usize::from(shards), Vec::new);
        let places = Places { seed: &self.seed, shards, rules: &rules.rooms, node: self.node };
        for (item, order) in (0u32..).zip(orders) {
            let everywhere = order.count == Count::Nodes;
            let slip = Slip { order: state.orders, item, everywhere };
            let slip = (order.count != Count::No).then_some(slip);
            let tenant = tenant.or(order.tenant.as_deref());
            let author =
                Author { tenant, origin: Origin::BackEnd(slip), at: Time::ZERO, across: true };
            let ttl = order.publish.ttl;
            // For what goes to other nodes; homes know what holds for them.
            let until = ttl.map(|ttl| self.clock.now().plus(ttl));
            let number = state.orders;
            let keep = |name: &str| {
                let is_shared = self.node.is_some() && rules.rooms.shares(name);
                let receipt = Receipt::Order { order: number, item };
                is_shared.then(|| Box::new(Keep { author: "back end".into(), receipt }))
            };
            let durable = if order.publish.persist { Durable::Asked } else { Durable::No };
            let terms = |name: &str| Terms { until, keep: keep(name), durable, ..Terms::default() };
            let mut parts = places.parts(&order.publish, &author, &terms);
            let groups = &mut state.groups;
            let group = parts.group(MAKER, || {
                *groups += 1;
                *groups
            });
            let mut whole = parts.take_whole(group.as_ref());
            let alone = parts.homes.iter().flat_map(|(_, drafts)| drafts);
            let crosses_alone = alone.into_iter().any(|draft| draft.terms.across);
            if everywhere && (crosses_alone || whole.is_some()) {
                afar.insert(item, crosses_alone);
            }
            if parts.homeless
                && let Some(whole) = whole.take()
            {
                let crossing = Crossing::Part(whole);
                state.across.push_back(Mail::Across { home: NO_HOME, crossing });
            }
            for (home, drafts) in parts.homes {
                let across = whole.clone();
                let item = SubmissionItem { index: item, drafts, group, ttl, across };
                homes[usize::from(home.0)].push(item);
            }
        }
        (homes, afar)
    }
}

impl NodeDesk {
    /// True when so many more to everyone would make some shard's line too long.
    fn line_is_long(&self, more: u64) -> bool {
        let waiting = |shard| self.board.shard(ShardId(shard)).everyone_waiting;
        let longest = (0..self.shards).map(waiting).max().unwrap_or_default();
        longest + more > TO_EVERYONE as u64
    }

    /// True when memory is so short that clients who publish are not read from.
    fn memory_is_short(&self, rules: &Rules) -> bool {
        self.board.charged_by_others(ShardId(u16::MAX)) >= rules.memory / 2
    }

    /// Posts orders to the homes of their targets: all or none. `tenant`: whose all of them are; `None` for
    /// what each says itself. Gives the number by which their outcome is known.
    pub(super) fn submit(
        &self,
        rules: &Rules,
        list: &[Order<'_>],
        tenant: Option<&str>,
    ) -> Result<u64, NotPublished> {
        let to_all = list.iter().filter(|order| is_to_everyone(order)).count() as u64;
        if to_all > 0 && self.line_is_long(to_all) || self.memory_is_short(rules) {
            return Err(NotPublished::Behind);
        }
        let out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.publishing.state();
        state.read(&out.port);
        let is_long = state.across.len() >= rules.waiting;
        if is_long || state.under_way > 0 && state.under_way + list.len() > rules.waiting {
            return Err(NotPublished::Behind);
        }
        state.orders += 1;
        let order = state.orders;
        let mut open = Open::default();
        open.outcomes.extend(list.iter().map(|order| Outcome {
            connections: (order.count != Count::No).then_some(0),
            ..Outcome::default()
        }));
        let (homes, afar) = self.publishing.submissions(&mut state, rules, list, tenant);
        open.afar = afar;
        for (shard, items) in homes.into_iter().enumerate().filter(|(_, items)| !items.is_empty()) {
            open.left += items.len();
            state.under_way += items.len();
            state.waiting[shard].push_back(Mail::Submit(Box::new(Submission { order, items })));
        }
        state.open.insert(order, open);
        state.post(&out.port);
        Ok(order)
    }
}

fn is_to_everyone(order: &Order<'_>) -> bool {
    order.publish.targets.everyone
}

impl Publisher for NodeDesk {
    fn publish(&self, body: &str, tenant: Option<&str>) -> Result<Posted, NotPublished> {
        let rules = self.publishing.rules()?;
        let orders = parse_orders(body, &rules.commands, rules.batch).map_err(|wrong| {
            NotPublished::Wrong {
                code: wrong.error.code.as_str(),
                message: wrong.error.message,
                field: wrong.error.field.map(String::from),
                at: wrong.at,
            }
        })?;
        let Orders { mut list, batch } = orders;
        let foreign = |order: &Order<'_>| {
            let asked = order.tenant.as_deref();
            tenant.is_some() && asked.is_some() && asked != tenant
        };
        if let Some(at) = list.iter().position(foreign) {
            return Err(NotPublished::OtherTenant { at: batch.then_some(at) });
        }
        for (at, order) in list.iter().enumerate() {
            if let Some(error) = rules.misfit(order) {
                self.publishing.misfits.fetch_add(1, Ordering::Relaxed);
                return Err(NotPublished::Wrong {
                    code: error.code.as_str(),
                    message: error.message,
                    field: Some(format!("payload{}", error.path.unwrap_or_default())),
                    at: batch.then_some(at),
                });
            }
            if let Some(why) = rules.unstorable(order) {
                return Err(NotPublished::Wrong {
                    code: Code::CannotPersist.as_str(),
                    message: why.to_owned(),
                    field: Some("persist".to_owned()),
                    at: batch.then_some(at),
                });
            }
        }
        // Later there would be no more space for them in the lines, so 429 would be a false hope.
        let mut to_all = list.iter().enumerate().filter(|(_, order)| is_to_everyone(order));
        if let Some((at, _)) = to_all.nth(TO_EVERYONE) {
            return Err(NotPublished::Wrong {
                code: Code::BadField.as_str(),
                message: format!("at most {TO_EVERYONE} publications of a batch are to everyone"),
                field: Some("everyone".to_owned()),
                at: Some(at),
            });
        }
        self.publishing.prepare(&mut list);
        let order = self.submit(&rules, &list, tenant)?;
        Ok(Posted { order, batch })
    }

    fn reply(&self, reply: Reply<'_>) -> Result<Replied, NotPublished> {
        replies::reply(self, reply)
    }

    fn outcome(&self, order: u64) -> Option<Vec<Outcome>> {
        let out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.publishing.state();
        state.read(&out.port);
        state.post(&out.port);
        if !state.open.get(&order).is_some_and(Open::is_complete) {
            return None;
        }
        state.open.remove(&order).map(Open::into_outcomes)
    }

    fn give_up(&self, order: u64) -> Option<Vec<Outcome>> {
        let open = self.publishing.state().open.remove(&order)?;
        (open.left == 0 && open.kept == 0).then(|| open.into_outcomes())
    }

    fn post_waiting(&self) -> bool {
        let out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.publishing.state();
        state.read(&out.port);
        state.post(&out.port);
        !state.across.is_empty() || state.waiting.iter().any(|waiting| !waiting.is_empty())
    }
}
