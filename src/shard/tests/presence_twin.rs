//! Presence against a naive twin: a list of connections that sees everything at once.
//!
//! Users come, drop, return within their grace and after it, turn idle and active, join and leave rooms, on
//! three shards; observers watch users and rooms and cease to. At the end, and whatever the order was, what
//! each observer has put together from its pushes is what the twin knows. And whatever an observer was told
//! on the way was true shortly before: nobody is reported offline who returned in time. A shard whose mail is
//! backed up refuses joins and watches; who is refused asks again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::shard::tests::presence::{Place, Trio};

const USERS: [&str; 4] = ["ada", "bob", "carl", "dora"];
const ROOMS: [&str; 2] = ["lobby", "kitchen"];
const GRACE: u64 = 5000;
const INTERVAL: u64 = 1000;
/// The longest time that passes at once.
const JUMP: u64 = 3000;

#[derive(Clone, Debug)]
enum Step {
    /// By a shard, a user.
    Come(usize, usize),
    /// One of the tabs that there are, whichever the number is modulo their count; so below.
    Drop(usize),
    Status(usize, bool),
    Join(usize, usize),
    Leave(usize, usize),
    WatchUser(usize, usize, bool),
    WatchRoom(usize, usize, bool),
    Carry,
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let index = || 0..1000usize;
    let step = prop_oneof![
        4 => (0..3usize, 0..4usize).prop_map(|(shard, user)| Step::Come(shard, user)),
        3 => index().prop_map(Step::Drop),
        3 => (index(), any::<bool>()).prop_map(|(at, idle)| Step::Status(at, idle)),
        4 => (index(), 0..2usize).prop_map(|(at, room)| Step::Join(at, room)),
        2 => (index(), 0..2usize).prop_map(|(at, room)| Step::Leave(at, room)),
        2 => (0..2usize, 0..4usize, any::<bool>()).prop_map(|(o, user, on)| Step::WatchUser(o, user, on)),
        2 => (0..2usize, 0..2usize, any::<bool>()).prop_map(|(o, room, on)| Step::WatchRoom(o, room, on)),
        3 => Just(Step::Carry),
        4 => (1..JUMP).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..70)
}

/// A user's state and, offline, when it was last seen.
type State = (String, Option<u64>);

/// A connection as the twin knows it.
#[derive(Clone, Debug)]
struct Tab {
    place: Place,
    user: usize,
    idle: bool,
    rooms: BTreeSet<usize>,
}

/// Everything, at once.
#[derive(Debug, Default)]
struct Twin {
    now: u64,
    tabs: Vec<Tab>,
    /// Per user: when the last tab ended, and how the user stood then.
    gone: BTreeMap<usize, (u64, String)>,
    /// Per user: since when it was in which state.
    history: BTreeMap<usize, Vec<(u64, State)>>,
}

impl Twin {
    fn stand(&self, user: usize) -> Option<&'static str> {
        let mut tabs = self.tabs.iter().filter(|tab| tab.user == user).peekable();
        tabs.peek()?;
        Some(if tabs.all(|tab| tab.idle) { "idle" } else { "online" })
    }

    fn state(&self, user: usize) -> State {
        match (self.stand(user), self.gone.get(&user)) {
            (Some(stand), _) => (stand.to_owned(), None),
            (None, Some((at, before))) if at + GRACE > self.now => (before.clone(), None),
            (None, Some((at, _))) => ("offline".to_owned(), Some(*at)),
            (None, None) => ("offline".to_owned(), None),
        }
    }

    /// Writes down what has changed.
    fn note(&mut self) {
        for user in 0..USERS.len() {
            let state = self.state(user);
            let history = self.history.entry(user).or_default();
            if history.last().map(|(_, last)| last) != Some(&state) {
                history.push((self.now, state));
            }
        }
    }

    fn drop(&mut self, at: usize) -> Tab {
        let before = self.stand(self.tabs[at].user).expect("a tab").to_owned();
        let tab = self.tabs.remove(at);
        if self.stand(tab.user).is_none() {
            self.gone.insert(tab.user, (self.now, before));
        }
        tab
    }

    /// True when the user was in that state at some time not long ago. Two shards that tell a home of one user at
    /// one moment may be heard in either order, so a first look may find the user idle that never was all over;
    /// whether somebody is there at all no order can change.
    fn was(&self, user: usize, state: &State) -> bool {
        let is_same =
            |known: &State| known == state || known.0 != "offline" && state.0 != "offline";
        let history = &self.history[&user];
        let from = self.now.saturating_sub(INTERVAL + 2 * JUMP);
        let mut ends = history.iter().skip(1).map(|(at, _)| *at).chain([u64::MAX]);
        history.iter().any(|(_, known)| ends.next() >= Some(from) && is_same(known))
    }

    /// Users in a room, with their states: those with a tab in it, and those who lost their last one there
    /// and are still in grace are not told apart here, so they are in `may`.
    fn room(&self, room: usize) -> (u64, BTreeMap<String, String>) {
        let inside = self.tabs.iter().filter(|tab| tab.rooms.contains(&room));
        let members = inside.clone().count() as u64;
        let users = inside.map(|tab| (USERS[tab.user].to_owned(), self.state(tab.user).0));
        (members, users.collect())
    }
}

/// An observer, and what it has put together.
struct Observer {
    place: Place,
    watched: BTreeSet<usize>,
    rooms: BTreeSet<usize>,
    users: BTreeMap<String, State>,
    shown: BTreeMap<String, (u64, BTreeMap<String, String>)>,
}

fn states(list: &Value) -> Vec<(String, State)> {
    let list = list.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    list.iter()
        .map(|entry| (text(&entry["user"]), (text(&entry["state"]), entry["lastSeen"].as_u64())))
        .collect()
}

impl Observer {
    /// Puts a push together with what is known.
    fn hear(&mut self, push: &Value, twin: &Twin) {
        let Some(room) = push["room"].as_str() else {
            for (user, state) in states(&push["users"]) {
                let at = USERS.iter().position(|name| *name == user).expect("a user");
                assert!(twin.was(at, &state), "{user} was never {state:?}: {:?}", twin.history);
                self.users.insert(user, state);
            }
            return;
        };
        let shown = self.shown.entry(room.to_owned()).or_default();
        shown.0 = push["members"].as_u64().expect("a number");
        if push.get("users").is_some() {
            shown.1.clear();
        }
        for key in ["users", "joined", "states"] {
            for (user, (state, _)) in states(&push[key]) {
                let before = shown.1.insert(user.clone(), state);
                assert_eq!(before.is_some(), key == "states", "{user} in {key}: {push}");
            }
        }
        for user in push["left"].as_array().cloned().unwrap_or_default() {
            let user = user.as_str().expect("a name");
            assert!(shown.1.remove(user).is_some(), "{user} was not there: {push}");
        }
    }
}

/// Puts something into a set, or takes it out.
fn put(set: &mut BTreeSet<usize>, what: usize, on: bool) {
    if on {
        set.insert(what);
    } else {
        set.remove(&what);
    }
}

struct World {
    node: Trio,
    twin: Twin,
    observers: Vec<Observer>,
}

impl World {
    fn new() -> Self {
        let mut node = Trio::new(|_| {});
        let observers = [0, 2].map(|shard| Observer {
            place: node.come(shard, &format!("eve{shard}")),
            watched: BTreeSet::new(),
            rooms: BTreeSet::new(),
            users: BTreeMap::new(),
            shown: BTreeMap::new(),
        });
        let mut twin = Twin { now: 60_000, ..Twin::default() };
        twin.note();
        Self { node, twin, observers: observers.into() }
    }

    fn listen(&mut self) {
        for observer in &mut self.observers {
            for push in self.node.told(observer.place, "throng:presence") {
                observer.hear(&push, &self.twin);
            }
        }
    }

    fn pass(&mut self, millis: u64) {
        self.node.settle();
        self.listen();
        // Every moment at which somebody's grace ends has its place in the twin's history.
        for _ in 0..millis {
            self.twin.now += 1;
            self.twin.note();
        }
        self.node.later(Duration::from_millis(millis));
        self.listen();
    }

    /// A client says something. One that is refused, because too much mail waits or its last question about the
    /// room has no answer yet, says it again after a pause, as the protocol has it.
    fn say(&mut self, place: Place, message: &Value) {
        if self.is_refused(place, message) {
            self.node.settle();
            self.listen();
            assert!(!self.is_refused(place, message), "refused after a pause: {message}");
        }
    }

    fn is_refused(&mut self, place: Place, message: &Value) -> bool {
        let errors = |node: &Trio| node.rigs[place.0].shard.counters().command_errors_total;
        let before = errors(&self.node);
        self.node.say(place, message);
        errors(&self.node) > before
    }

    /// A tab says something, and changes.
    fn with_tab(&mut self, at: usize, message: &Value, change: impl FnOnce(&mut Tab)) {
        if !self.twin.tabs.is_empty() {
            let at = at % self.twin.tabs.len();
            self.say(self.twin.tabs[at].place, message);
            change(&mut self.twin.tabs[at]);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Come(shard, user) => {
                let place = self.node.come(shard, USERS[user]);
                let tab = Tab { place, user, idle: false, rooms: BTreeSet::new() };
                self.twin.tabs.push(tab);
                self.twin.gone.remove(&user);
            }
            Step::Drop(at) if !self.twin.tabs.is_empty() => {
                let at = at % self.twin.tabs.len();
                let tab = self.twin.drop(at);
                self.node.go(tab.place);
            }
            Step::Drop(_) => {}
            Step::Status(at, idle) => {
                let status = if idle { "idle" } else { "active" };
                let message = json!({"type": "throng:status", "status": status});
                self.with_tab(at, &message, |tab| tab.idle = idle);
            }
            Step::Join(at, room) => {
                let message = json!({"type": "throng:join", "room": ROOMS[room]});
                self.with_tab(at, &message, |tab| _ = tab.rooms.insert(room));
            }
            Step::Leave(at, room) if !self.twin.tabs.is_empty() => {
                let at = at % self.twin.tabs.len();
                let message = json!({"type": "throng:leave", "room": ROOMS[room]});
                let refused = self.is_refused(self.twin.tabs[at].place, &message);
                let was_in = self.twin.tabs[at].rooms.remove(&room);
                assert_eq!(refused, !was_in, "only whoever is not in it cannot leave");
            }
            Step::Leave(..) => {}
            Step::WatchUser(at, user, on) => {
                let kind = if on { "throng:watch" } else { "throng:unwatch" };
                let message = json!({"type": kind, "users": [USERS[user]]});
                self.say(self.observers[at].place, &message);
                put(&mut self.observers[at].watched, user, on);
            }
            Step::WatchRoom(at, room, on) => {
                let kind = if on { "throng:watch" } else { "throng:unwatch" };
                let message = json!({"type": kind, "room": ROOMS[room]});
                self.say(self.observers[at].place, &message);
                put(&mut self.observers[at].rooms, room, on);
            }
            Step::Carry => {
                self.node.settle();
            }
            Step::Pass(millis) => self.pass(millis),
        }
        self.twin.note();
        self.listen();
    }

    /// Lets everything come to rest and compares.
    fn judge(&mut self) {
        for _ in 0..4 {
            self.pass(JUMP);
        }
        for observer in &self.observers {
            for user in &observer.watched {
                let known = observer.users.get(USERS[*user]);
                assert_eq!(known, Some(&self.twin.state(*user)), "{}", USERS[*user]);
            }
            for room in &observer.rooms {
                let known = observer.shown.get(ROOMS[*room]);
                assert_eq!(known, Some(&self.twin.room(*room)), "{}", ROOMS[*room]);
            }
        }
        let counters = self.node.rigs.each_ref().map(|rig| rig.shard.counters());
        let present: BTreeSet<usize> = self.twin.tabs.iter().map(|tab| tab.user).collect();
        let online: u64 = counters.iter().map(|c| c.users_online).sum();
        assert_eq!(online, present.len() as u64 + 2, "and two observers");
    }

    /// Everybody leaves; nothing stays behind but when they were last seen.
    fn end(mut self) {
        let places = self.twin.tabs.iter().map(|tab| tab.place);
        let places: Vec<Place> =
            places.chain(self.observers.iter().map(|observer| observer.place)).collect();
        places.into_iter().for_each(|place| self.node.go(place));
        for _ in 0..4 {
            self.node.later(Duration::from_millis(JUMP));
        }
        for rig in &self.node.rigs {
            let counters = rig.shard.counters();
            let left = counters.users_online + counters.presence_watches + counters.presence_rooms;
            assert_eq!(left, 0, "a phantom");
            let presence = &rig.shard.rooms.presence;
            let interest = presence.lookout.users() + rig.shard.rooms.directory.users.watched();
            assert_eq!(interest, 0, "somebody is of interest to nobody");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn what_observers_put_together_equals_a_twin_that_sees_everything(steps in steps()) {
        play(steps);
    }
}

/// Plays the steps and compares.
fn play(steps: impl IntoIterator<Item = Step>) {
    let mut world = World::new();
    for step in steps {
        world.step(step);
    }
    world.judge();
    world.end();
}

#[test]
fn who_is_refused_because_mail_waits_and_asks_again_is_told_as_everybody_else() {
    play([
        Step::WatchRoom(1, 0, true),
        Step::WatchRoom(1, 0, false),
        Step::WatchUser(1, 1, true),
        Step::Come(0, 0),
        Step::WatchRoom(1, 1, true),
        Step::WatchRoom(1, 0, true),
        Step::WatchUser(1, 0, true),
    ]);
}

#[test]
fn who_begins_to_watch_a_user_in_the_middle_of_a_change_hears_that_it_was_undone() {
    // Idle, as the first observer is told; active when the second one comes; idle again before any news go out.
    play([
        Step::Come(0, 3),
        Step::WatchUser(0, 3, true),
        Step::Status(0, true),
        Step::Carry,
        Step::Come(2, 3),
        Step::WatchUser(1, 3, true),
        Step::Drop(1),
    ]);
}
