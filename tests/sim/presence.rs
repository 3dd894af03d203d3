//! Who is there in a rough network: what observers put together is what is true in the end.
//!
//! Users come with tokens, by several connections on several shards, and go in all ways a link can end;
//! they turn idle and active, join and leave rooms, watch each other and cease to. Mail is late and inboxes
//! are small. When the network has healed and every grace is over, each living observer knows of everybody
//! it watches exactly what is so, the homes count exactly those who are there, and when all have left nothing
//! is left of anybody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use throng::auth::{Access, Algorithm, Key, KeySet, Mode, Source};
use throng::driver::sim::Faults;
use throng::node::config::Origin;

use crate::client::Client;
use crate::world::World;

const SECRET: &[u8; 32] = b"a secret of no less than 32 byte";
const USERS: [&str; 5] = ["ada", "bob", "carl", "dora", "eve"];
const ROOMS: [&str; 2] = ["lobby", "kitchen"];
const CLIENTS: usize = 14;
const STEPS: usize = 1500;

/// A client of a user, with what it has said of itself.
struct Tab {
    client: Client,
    user: usize,
    idle: bool,
    rooms: BTreeSet<usize>,
    watched: BTreeSet<usize>,
    shown: BTreeSet<usize>,
}

struct Story {
    world: World,
    tabs: Vec<Tab>,
}

fn token(user: &str) -> String {
    let claims = json!({"sub": user, "exp": 9_999_999_999_u64, "rooms": ["*"]});
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let message =
        format!("{}.{}", encode(br#"{"alg":"HS256"}"#), encode(claims.to_string().as_bytes()));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), message.as_bytes());
    format!("{message}.{}", encode(tag.as_ref()))
}

fn world(seed: u64) -> World {
    let sets = [
        "presence.grace_ms=300",
        "presence.interval_ms=50",
        "presence.list_max=6",
        "limits.messages_per_second=0",
    ];
    let origin = Origin { file: None, sets: sets.map(str::to_owned).into() };
    let mut settings = throng::node::settings(&origin.load().expect("a configuration"), 1000);
    let mut access = Access { mode: Mode::Token, ..Access::default() };
    let key = Key::from_secret(Algorithm::Hs256, SECRET, None).expect("a key");
    access.verifier.keys = KeySet::new(vec![key]).expect("a set");
    access.sources.order = vec![Source::Header];
    settings.access = Arc::new(access);
    let faults = if seed.is_multiple_of(2) { Faults::rough() } else { Faults::hostile() };
    let shards = 1 + u16::try_from(seed % 4).expect("few");
    World::with(seed, shards, 1 + usize::try_from(seed % 9).expect("few"), faults, settings)
}

/// Runs one simulation.
pub(crate) fn run(seed: u64) {
    let mut story = Story { world: world(seed), tabs: Vec::new() };
    for _ in 0..STEPS {
        story.act();
        story.turn();
    }
    story.heal();
    story.judge();
    story.end();
}

impl Story {
    fn turn(&mut self) {
        self.world.step();
        self.tabs.iter_mut().for_each(|tab| tab.client.turn());
    }

    fn act(&mut self) {
        let living = self.tabs.iter().filter(|tab| tab.client.is_alive()).count();
        if living < CLIENTS && self.world.rng.u32(0..20) == 0 {
            let shard = self.world.rng.usize(..self.world.shards());
            let user = self.world.rng.usize(..USERS.len());
            let peer = self.world.net.connect(shard);
            self.tabs.push(Tab {
                client: Client::known(peer, &token(USERS[user])),
                user,
                idle: false,
                rooms: BTreeSet::new(),
                watched: BTreeSet::new(),
                shown: BTreeSet::new(),
            });
        }
        if self.tabs.is_empty() {
            return;
        }
        let at = self.world.rng.usize(..self.tabs.len());
        let (user, room) =
            (self.world.rng.usize(..USERS.len()), self.world.rng.usize(..ROOMS.len()));
        let (deed, on) = (self.world.rng.u32(0..100), self.world.rng.u32(0..3) > 0);
        let tab = &mut self.tabs[at];
        if !tab.client.is_alive() || tab.client.id.is_none() {
            return;
        }
        match deed {
            0..6 => {
                tab.idle = on;
                let status = if on { "idle" } else { "active" };
                tab.client.send(&json!({"type": "throng:status", "status": status}));
            }
            6..12 => {
                toggle(&mut tab.rooms, room, on);
                let kind = if on { "throng:join" } else { "throng:leave" };
                tab.client.send(&json!({"type": kind, "room": ROOMS[room]}));
            }
            12..18 => {
                toggle(&mut tab.watched, user, on);
                let kind = if on { "throng:watch" } else { "throng:unwatch" };
                tab.client.send(&json!({"type": kind, "users": [USERS[user]]}));
            }
            18..22 => {
                toggle(&mut tab.shown, room, on);
                let kind = if on { "throng:watch" } else { "throng:unwatch" };
                tab.client.send(&json!({"type": kind, "room": ROOMS[room]}));
            }
            22..23 => {
                tab.client.peer.finish();
                tab.client.gone = true;
            }
            23..24 => {
                tab.client.peer.reset();
                tab.client.gone = true;
            }
            24..26 => self.world.jump(Duration::from_millis(60)),
            _ => {}
        }
    }

    /// Ends all faults and lets everything arrive, and every grace end.
    fn heal(&mut self) {
        self.world.net.set_faults(Faults::none());
        for _ in 0..3 {
            for _ in 0..1500 {
                self.turn();
            }
            self.world.jump(Duration::from_millis(400));
        }
        for _ in 0..1500 {
            self.turn();
        }
        assert_eq!(self.world.mail(), 0, "mail comes to rest");
    }

    fn present(&self) -> impl Iterator<Item = &Tab> + Clone {
        self.tabs.iter().filter(|tab| tab.client.is_alive() && tab.client.id.is_some())
    }

    fn state(&self, user: usize) -> &'static str {
        let mut tabs = self.present().filter(|tab| tab.user == user).peekable();
        if tabs.peek().is_none() {
            "offline"
        } else if tabs.all(|tab| tab.idle) {
            "idle"
        } else {
            "online"
        }
    }

    fn judge(&self) {
        let here: BTreeSet<usize> = self.present().map(|tab| tab.user).collect();
        assert_eq!(self.world.sum(|c| c.users_online), here.len() as u64, "exactly those");
        for tab in self.present() {
            let known = Known::of(&tab.client.heard);
            for user in &tab.watched {
                let user = (USERS[*user], self.state(*user));
                assert_eq!(known.users.get(user.0).map(String::as_str), Some(user.1), "{user:?}");
            }
            for room in &tab.shown {
                let inside = self.present().filter(|tab| tab.rooms.contains(room));
                let members = inside.clone().count();
                let users = inside.map(|tab| (USERS[tab.user].to_owned(), self.state(tab.user)));
                let users: BTreeMap<String, String> =
                    users.map(|(user, state)| (user, state.to_owned())).collect();
                let users = (members <= 6).then_some(users);
                let expected = (members as u64, users);
                assert_eq!(known.rooms.get(ROOMS[*room]), Some(&expected), "{}", ROOMS[*room]);
            }
        }
    }

    /// Everybody leaves; nothing stays behind.
    fn end(mut self) {
        self.tabs.iter_mut().for_each(|tab| tab.client.peer.reset());
        for _ in 0..4000 {
            self.turn();
        }
        let left = self.world.sum(|c| {
            c.connections
                + c.users_online
                + c.presence_watches
                + c.presence_rooms
                + c.rooms
                + c.home_rooms
        });
        assert_eq!(left, 0, "a phantom");
    }
}

fn toggle(set: &mut BTreeSet<usize>, value: usize, on: bool) {
    if on {
        set.insert(value);
    } else {
        set.remove(&value);
    }
}

/// A room as an observer knows it: its members, and its users unless it has too many.
type Shown = (u64, Option<BTreeMap<String, String>>);

/// What an observer puts together from its pushes.
#[derive(Default)]
struct Known {
    users: BTreeMap<String, String>,
    rooms: BTreeMap<String, Shown>,
}

impl Known {
    fn of(heard: &[Value]) -> Self {
        let mut known = Self::default();
        let pushes = heard.iter().filter(|message| message["type"] == "throng:presence");
        pushes.for_each(|push| known.hear(push));
        known
    }

    fn hear(&mut self, push: &Value) {
        let Some(room) = push["room"].as_str() else {
            self.users.extend(states(&push["users"]));
            return;
        };
        let shown = self.rooms.entry(room.to_owned()).or_default();
        shown.0 = push["members"].as_u64().expect("a number");
        if push.get("listed").is_some() {
            shown.1 = None;
        } else if push.get("users").is_some() {
            shown.1 = Some(states(&push["users"]).collect());
        } else if let Some(users) = &mut shown.1 {
            users.extend(states(&push["joined"]).chain(states(&push["states"])));
            for user in push["left"].as_array().into_iter().flatten() {
                users.remove(user.as_str().expect("a name"));
            }
        }
    }
}

fn states(list: &Value) -> impl Iterator<Item = (String, String)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let list = list.as_array().into_iter().flatten();
    list.map(move |entry| (text(&entry["user"]), text(&entry["state"])))
}
