//! Nodes and a Redis of paper: whatever is lost, late, paused or killed, once all is quiet every node knows
//! exactly who is on the others.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::{
    Afar, Answer, Ask, Batch, Change, Mark, Name, Page, Pose, Presence, Seen, Terms, note,
};
use crate::base::map::Seed;
use crate::base::time::Time;

const LEASE: Duration = Duration::from_secs(15);
const NODES: usize = 3;
const USERS: u8 = 12;
/// Users of a page.
const PAGE: usize = 2;

type Life = (u32, u64);

/// A Redis of paper.
#[derive(Default)]
struct Paper {
    leases: BTreeMap<Life, (Name, Time)>,
    /// The number told last, whether all were told, and the users.
    hashes: BTreeMap<Life, (u64, bool, BTreeMap<Name, Pose>)>,
    lives: BTreeSet<Life>,
}

impl Paper {
    fn expire(&mut self, now: Time) {
        self.leases.retain(|_, (_, end)| *end > now);
    }

    fn tell(&mut self, tag: u32, batch: &Batch, now: Time) -> bool {
        let life = (tag, batch.life);
        let begins = batch.mark == Some(Mark::Begin);
        let held = begins || self.leases.contains_key(&life);
        if held {
            self.leases.insert(life, (name_of(tag), now.plus(LEASE)));
            self.lives.insert(life);
        }
        let (seq, whole, users) = self.hashes.entry(life).or_default();
        *seq = batch.seq;
        *whole |= batch.mark == Some(Mark::Whole);
        for change in &batch.changes {
            users.remove(&change.user);
            if change.pose > Pose::Gone {
                users.insert(Arc::clone(&change.user), change.pose);
            }
        }
        held
    }

    fn look(&self) -> Vec<Seen> {
        let alive = self.lives.iter().filter_map(|life| Some((life, self.leases.get(life)?)));
        let seen = alive.map(|((tag, life), (node, _))| {
            let (seq, whole, _) = &self.hashes[&(*tag, *life)];
            Seen { tag: *tag, life: *life, node: Arc::clone(node), seq: *seq, whole: *whole }
        });
        seen.collect()
    }

    fn page(&self, life: Life, cursor: u64) -> Option<Page> {
        let (seq, whole, users) = self.hashes.get(&life)?;
        // By name, so that whoever is there all the time is on one of the pages.
        let rank = |name: &Name| u64::from(name.as_bytes()[0] - b'a');
        let rest: Vec<_> = users.iter().filter(|(name, _)| rank(name) >= cursor).collect();
        let page = rest.iter().take(PAGE).map(|(name, pose)| (Arc::clone(name), **pose)).collect();
        let cursor = rest.get(PAGE).map_or(0, |(name, _)| rank(name));
        Some(Page { seq: *seq, whole: *whole, cursor, users: page })
    }
}

fn name_of(tag: u32) -> Name {
    Name::from(format!("node {tag}"))
}

fn user(number: u8) -> Name {
    Name::from(char::from(b'a' + number % USERS).to_string())
}

fn terms(tag: u32) -> Terms {
    Terms { tag, lease: LEASE, life: 1, unix_ms: 0, most_users: 1000 }
}

/// A node with its subscription.
struct Node {
    tag: u32,
    presence: Presence,
    truth: BTreeMap<Name, Pose>,
    /// What was handed on: users by the places of their nodes.
    view: BTreeMap<(u16, Name), Pose>,
    inbox: VecDeque<String>,
    answer: Option<Answer>,
    linked: bool,
    paused: bool,
    dead: bool,
}

impl Node {
    fn new(tag: u32) -> Self {
        Self {
            tag,
            presence: Presence::new(&terms(tag), &Seed::new(u64::from(tag))),
            truth: BTreeMap::new(),
            view: BTreeMap::new(),
            inbox: VecDeque::new(),
            answer: None,
            linked: false,
            paused: false,
            dead: false,
        }
    }

    fn take(&mut self, news: Vec<Afar>) {
        for Afar { user, place, pose, .. } in news {
            self.view.remove(&(place, Arc::clone(&user)));
            if pose > Pose::Gone {
                self.view.insert((place, user), pose);
            }
        }
    }
}

struct World {
    redis: Paper,
    nodes: Vec<Node>,
    now: Time,
}

#[derive(Clone, Debug)]
enum Step {
    Change(usize, u8, Pose),
    /// Ask, and whether the answer waits.
    Ask(usize, bool),
    Answer(usize),
    Hear(usize, usize),
    Poll(usize, usize),
    /// Cut the link, before or after what is asked next was done.
    Cut(usize, bool),
    Link(usize),
    Pause(usize, bool),
    Kill(usize),
    /// A message is lost unnoticed, or what waits is dropped and that is known.
    Lose(usize, bool),
    Restart,
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let node = || 0..NODES;
    let pose = prop_oneof![Just(Pose::Gone), Just(Pose::Idle), Just(Pose::Active)];
    prop_oneof![
        8 => (node(), any::<u8>(), pose).prop_map(|(node, user, pose)| Step::Change(node, user, pose)),
        12 => (node(), any::<bool>()).prop_map(|(node, late)| Step::Ask(node, late)),
        6 => node().prop_map(Step::Answer),
        8 => (node(), 1..9_usize).prop_map(|(node, most)| Step::Hear(node, most)),
        4 => (node(), 1..9_usize).prop_map(|(node, most)| Step::Poll(node, most)),
        1 => (node(), any::<bool>()).prop_map(|(node, done)| Step::Cut(node, done)),
        3 => node().prop_map(Step::Link),
        2 => (node(), any::<bool>()).prop_map(|(node, on)| Step::Pause(node, on)),
        1 => node().prop_map(Step::Kill),
        1 => (node(), any::<bool>()).prop_map(|(node, known)| Step::Lose(node, known)),
        1 => Just(Step::Restart),
        4 => (1..20_u64).prop_map(Step::Pass),
    ]
}

impl World {
    fn new() -> Self {
        let nodes = (1..).take(NODES).map(Node::new).collect();
        Self { redis: Paper::default(), nodes, now: Time::from_nanos(1) }
    }

    fn step(&mut self, step: &Step) {
        let at = match step {
            Step::Change(at, ..)
            | Step::Ask(at, _)
            | Step::Answer(at)
            | Step::Hear(at, _)
            | Step::Poll(at, _)
            | Step::Cut(at, _)
            | Step::Link(at) => *at,
            Step::Pause(at, on) => {
                self.nodes[*at].paused = *on;
                return;
            }
            Step::Kill(at) => {
                // One stays, to look.
                self.nodes[*at].dead |= *at > 0;
                return;
            }
            Step::Lose(at, known) => return self.lose(*at, *known),
            Step::Restart => return self.restart(),
            Step::Pass(seconds) => {
                self.now = self.now.plus(Duration::from_secs(*seconds));
                return self.redis.expire(self.now);
            }
        };
        if self.nodes[at].paused || self.nodes[at].dead {
            return;
        }
        match step {
            Step::Change(_, number, pose) => self.change(at, *number, *pose),
            Step::Ask(_, late) => self.ask(at, *late),
            Step::Answer(_) => self.answer(at),
            Step::Hear(_, most) => self.hear(at, *most),
            Step::Poll(_, most) => {
                let news = self.nodes[at].presence.poll(*most, self.now);
                self.nodes[at].take(news);
            }
            Step::Cut(_, done) => {
                if *done {
                    self.ask(at, true);
                }
                self.cut(at);
            }
            _ => self.link(at),
        }
        self.nodes[at].presence.check();
    }

    fn change(&mut self, at: usize, number: u8, pose: Pose) {
        let node = &mut self.nodes[at];
        let user = user(number);
        if node.truth.get(&user).copied().unwrap_or_default() == pose {
            return;
        }
        node.truth.remove(&user);
        if pose > Pose::Gone {
            node.truth.insert(Arc::clone(&user), pose);
        }
        node.presence.note(Change { user, pose, at: 1, last: true });
    }

    fn ask(&mut self, at: usize, late: bool) {
        let (node, now) = (&mut self.nodes[at], self.now);
        let Some(ask) = node.presence.next(now) else { return };
        let tag = node.tag;
        let answer = match ask {
            Ask::Tell(batch) => {
                let held = self.redis.tell(tag, &batch, now);
                let bytes = note::write(tag, &name_of(tag), &batch);
                let text = String::from_utf8(bytes).expect("UTF-8");
                let there = self.nodes.iter_mut().filter(|node| node.linked && !node.dead);
                there.for_each(|node| node.inbox.push_back(text.clone()));
                Answer::Told(held)
            }
            Ask::Look => Answer::Looked(self.redis.look()),
            Ask::Page { tag, life, cursor } => Answer::Page(self.redis.page((tag, life), cursor)),
        };
        self.nodes[at].answer = Some(answer);
        if !late {
            self.answer(at);
        }
    }

    fn answer(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if let Some(answer) = node.answer.take() {
            node.presence.answer(answer, self.now);
        }
    }

    fn hear(&mut self, at: usize, most: usize) {
        let node = &mut self.nodes[at];
        let count = most.min(node.inbox.len());
        for text in node.inbox.drain(..count) {
            node.presence.hear(&text, self.now).expect("a note");
        }
    }

    fn cut(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        (node.linked, node.answer) = (false, None);
        node.inbox.clear();
        node.presence.link_down();
    }

    fn link(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if !std::mem::replace(&mut node.linked, true) {
            node.presence.link_up(self.now);
        }
    }

    fn lose(&mut self, at: usize, known: bool) {
        let node = &mut self.nodes[at];
        if known {
            node.inbox.clear();
            node.presence.missed();
        } else {
            node.inbox.pop_front();
        }
    }

    fn restart(&mut self) {
        self.redis = Paper::default();
        (0..self.nodes.len()).for_each(|at| self.cut(at));
    }

    /// Lets everybody who lives go on until nothing is left to be done.
    fn settle(&mut self) {
        let alive: Vec<usize> = (0..NODES).filter(|at| !self.nodes[*at].dead).collect();
        for _ in 0..60 {
            for at in &alive {
                self.nodes[*at].paused = false;
                self.answer(*at);
                self.link(*at);
            }
            for _ in 0..12 {
                for at in &alive {
                    self.step(&Step::Ask(*at, false));
                    self.step(&Step::Hear(*at, 1000));
                    self.step(&Step::Poll(*at, 1000));
                }
            }
            self.step(&Step::Pass(1));
        }
        for at in &alive {
            let node = &self.nodes[*at];
            let seen: Vec<(Name, Pose)> =
                node.view.iter().map(|((_, user), pose)| (Arc::clone(user), *pose)).collect();
            let others = alive.iter().filter(|other| *other != at).map(|other| &self.nodes[*other]);
            let there: Vec<(Name, Pose)> = others
                .flat_map(|other| other.truth.iter().map(|(user, pose)| (Arc::clone(user), *pose)))
                .collect();
            let sorted = |mut all: Vec<(Name, Pose)>| {
                all.sort_unstable();
                all
            };
            assert_eq!(sorted(seen), sorted(there.clone()), "what node {} knows", node.tag);
            assert_eq!(node.presence.absent(), None, "nobody is missing");
            let counts = node.presence.counts();
            assert_eq!(counts.users_elsewhere, there.len());
            assert_eq!(counts.users_here, node.truth.len());
            assert_eq!(counts.nodes, alive.len() - 1);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn once_all_is_quiet_every_node_knows_exactly_who_is_on_the_others(
        steps in prop::collection::vec(step(), 0..400),
    ) {
        let mut world = World::new();
        (0..NODES).for_each(|at| world.link(at));
        steps.iter().for_each(|step| world.step(step));
        world.settle();
    }
}

/// Two linked nodes, of which the second has users whom the first knows.
fn two() -> World {
    let mut world = World::new();
    world.nodes.truncate(2);
    (0..2).for_each(|at| world.link(at));
    (0..5).for_each(|number| world.change(1, number, Pose::Active));
    world.talk();
    assert_eq!(world.nodes[0].view.len(), 5);
    world
}

impl World {
    /// Everybody who can does everything, at one moment.
    fn talk(&mut self) {
        for _ in 0..40 {
            for at in 0..self.nodes.len() {
                self.step(&Step::Ask(at, false));
                self.step(&Step::Hear(at, 1000));
            }
        }
        for at in 0..self.nodes.len() {
            self.step(&Step::Poll(at, 1000));
        }
    }

    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.step(&Step::Pass(1));
            self.talk();
        }
    }
}

#[test]
fn the_users_of_a_killed_node_are_there_until_its_lease_ends_and_then_are_not() {
    let mut world = two();
    world.pass(20);
    assert_eq!(world.nodes[0].view.len(), 5, "the lease is renewed");
    world.step(&Step::Kill(1));
    world.pass(9);
    assert_eq!(world.nodes[0].view.len(), 5, "it may only be slow");
    world.pass(6);
    assert_eq!(world.nodes[0].view.len(), 0, "the lease has ended");
    assert_eq!(world.nodes[0].presence.counts().nodes, 0);
}

#[test]
fn a_node_that_comes_back_after_the_others_looked_for_it_is_read() {
    let mut world = two();
    world.step(&Step::Restart);
    world.step(&Step::Link(0));
    world.talk();
    world.pass(1);
    assert_eq!(world.nodes[0].presence.absent(), Some(vec![name_of(2)]), "it is not there yet");
    // It tells what nobody knows to have been told, in the life that it had.
    world.step(&Step::Link(1));
    world.pass(30);
    assert_eq!(world.nodes[0].presence.absent(), None);
    assert_eq!(world.nodes[0].view.len(), 5);
}

#[test]
fn a_node_that_was_cut_off_at_its_begin_and_comes_back_late_is_read() {
    let mut world = World::new();
    world.nodes.truncate(2);
    (0..2).for_each(|at| world.link(at));
    world.change(1, 0, Pose::Active);
    let ask = |late| Step::Ask(1, late);
    [ask(false), ask(true), Step::Ask(0, false), Step::Restart]
        .iter()
        .for_each(|step| world.step(step));
    // Nothing is to be read of the life that it was found with, and it has no lease when it is looked for again.
    world.step(&Step::Link(0));
    world.pass(3);
    assert_eq!(world.nodes[0].presence.absent(), Some(vec![name_of(2)]));
    world.step(&Step::Link(1));
    world.pass(30);
    assert_eq!(world.nodes[0].presence.absent(), None);
    assert_eq!(world.nodes[0].view.len(), 1);
}

#[test]
fn a_paused_node_takes_another_life_and_shows_only_who_is_still_there() {
    let mut world = two();
    world.step(&Step::Pause(1, true));
    world.pass(16);
    assert_eq!(world.nodes[0].view.len(), 0);
    world.step(&Step::Pause(1, false));
    world.change(1, 0, Pose::Gone);
    world.change(1, 9, Pose::Idle);
    world.talk();
    let there: Vec<&str> = world.nodes[0].view.keys().map(|(_, user)| &**user).collect();
    assert_eq!(there, ["b", "c", "d", "e", "j"]);
    let counts = world.nodes[1].presence.counts();
    assert_eq!((counts.leases_lost, counts.users_here), (1, 5));
}

#[test]
fn a_redis_that_starts_empty_makes_nobody_offline() {
    let mut world = two();
    world.restart();
    assert_eq!(world.nodes[0].presence.absent(), Some(vec![name_of(2)]), "nothing is known now");
    world.link(0);
    world.pass(5);
    assert_eq!(world.nodes[0].presence.absent(), Some(vec![name_of(2)]), "it may come back");
    world.link(1);
    let before = world.nodes[0].view.clone();
    for _ in 0..20 {
        for at in 0..2 {
            world.step(&Step::Ask(at, false));
            world.step(&Step::Hear(at, 1));
            world.step(&Step::Poll(at, 1));
            assert_eq!(world.nodes[0].view, before);
        }
    }
    world.talk();
    assert_eq!((&world.nodes[0].view, world.nodes[0].presence.absent()), (&before, None));
}

#[test]
fn whoever_heard_everything_reads_nothing() {
    let mut world = two();
    assert_eq!(world.nodes[0].presence.counts().reads, 0, "it was there from the begin on");
    world.cut(0);
    world.link(0);
    world.talk();
    assert_eq!(world.nodes[0].presence.counts().reads, 0, "nothing was told meanwhile");
    world.cut(0);
    world.change(1, 7, Pose::Active);
    world.talk();
    world.link(0);
    world.talk();
    assert_eq!((world.nodes[0].view.len(), world.nodes[0].presence.counts().reads), (6, 1));
}

#[test]
fn a_user_who_comes_and_goes_unheard_costs_nothing() {
    let mut world = two();
    world.cut(1);
    for _ in 0..1000 {
        world.change(1, 8, Pose::Active);
        world.change(1, 8, Pose::Gone);
        world.change(1, 0, Pose::Idle);
        world.change(1, 0, Pose::Active);
    }
    world.link(1);
    world.talk();
    assert_eq!(world.nodes[0].view.len(), 5);
    assert_eq!(world.nodes[1].presence.counts().users_here, 5);
}

#[test]
fn more_users_than_may_be_known_are_counted_and_their_node_is_named() {
    let mut world = two();
    let few = Terms { most_users: 3, ..terms(1) };
    world.nodes[0].presence = Presence::new(&few, &Seed::new(1));
    world.nodes[0].view.clear();
    world.nodes[0].linked = false;
    world.link(0);
    world.talk();
    assert_eq!(world.nodes[0].view.len(), 3);
    let counts = world.nodes[0].presence.counts();
    assert_eq!((counts.users_elsewhere, counts.refused), (3, 2));
    assert_eq!(world.nodes[0].presence.absent(), Some(vec![name_of(2)]));
}

#[test]
fn a_refusal_is_followed_by_a_pause_and_by_the_same_again() {
    let mut world = two();
    world.change(1, 6, Pose::Active);
    let asked = world.nodes[1].presence.next(world.now).expect("something to tell");
    world.nodes[1].presence.answer(Answer::Refused, world.now);
    assert_eq!(world.nodes[1].presence.next(world.now), None);
    let later = world.now.plus(super::whole::AFTER_REFUSAL);
    assert_eq!(world.nodes[1].presence.due(), Some(later));
    assert_eq!(world.nodes[1].presence.next(later), Some(asked));
}

#[test]
fn of_nodes_that_parted_at_once_the_one_with_the_lowest_tag_speaks() {
    let speaks = |own: u32, last: bool| {
        let mut presence = Presence::new(&terms(own), &Seed::new(1));
        presence.link_up(Time::ZERO);
        let tell = |presence: &mut Presence, seq, mark, pose| {
            let change = Change { user: user(0), pose, at: 5, last };
            let changes = if mark == Some(Mark::Begin) { Vec::new() } else { vec![change] };
            let batch = Batch { life: 1, seq, mark, changes };
            let text = String::from_utf8(note::write(2, "b", &batch)).expect("UTF-8");
            presence.hear(&text, Time::ZERO).expect("a note");
        };
        tell(&mut presence, 1, Some(Mark::Begin), Pose::Gone);
        tell(&mut presence, 2, Some(Mark::Whole), Pose::Active);
        assert!(!presence.poll(9, Time::ZERO)[0].speaks, "nobody has gone");
        tell(&mut presence, 3, None, Pose::Gone);
        let news = presence.poll(9, Time::ZERO);
        assert_eq!((news[0].pose, news[0].at), (Pose::Gone, 5));
        news[0].speaks
    };
    assert!(!speaks(1, true), "the other one tells it");
    assert!(speaks(1, false) && !speaks(3, false), "one of them tells it");
}
