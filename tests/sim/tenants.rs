//! Users and tenants with limits, in a node whose inboxes hold next to nothing: rows A15 and A16.
//!
//! Clients of a few users and tenants come and go, join and leave. Who is one too many is decided at homes
//! in other shards, by mail that waits for space; a room of a tenant that has too many must not be, and
//! its joins wait for that verdict. Whenever everything has come to rest the numbers must hold, every
//! command must have been answered, and what the homes have counted must be what there is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use throng::auth::{Algorithm, Key, KeySet};
use throng::driver::sim::Faults;
use throng::node::config::Origin;
use throng::shard::Settings;

use crate::client::Client;
use crate::world::World;

const SECRET: &str = "a secret of no less than 32 byte";
const OF_USER: usize = 2;
const OF_TENANT: usize = 6;
const ROOMS: usize = 3;
const USERS: u32 = 4;
const TENANTS: u32 = 2;

/// A client, whose it is, and what it was told.
struct Guest {
    client: Client,
    tenant: u32,
    user: u32,
    /// Rooms that it is in, as it was told.
    rooms: BTreeSet<String>,
    /// The room of the command that has yet to be answered, and whether it was a join. One at a time, so that
    /// what it was told last is how it is.
    asked: Option<(String, bool)>,
    noted: usize,
}

impl Guest {
    /// Takes note of what the client has heard.
    fn note(&mut self) {
        for message in &self.client.heard[self.noted..] {
            if message.get("ref").is_none() {
                continue;
            }
            let (room, joins) = self.asked.take().expect("a command");
            match (message["ok"].as_bool(), joins) {
                (Some(true), true) => _ = self.rooms.insert(room),
                (Some(true), false) => _ = self.rooms.remove(&room),
                _ => {
                    let code = message["code"].as_str();
                    assert!(code == Some("tenant_limit") && joins, "{message}");
                    assert!(!self.rooms.contains(&room), "{message}: it is in the room");
                }
            }
        }
        self.noted = self.client.heard.len();
    }

    fn is_here(&self) -> bool {
        self.client.is_alive() && self.client.id.is_some()
    }
}

struct Story {
    world: World,
    guests: Vec<Guest>,
}

/// Runs one simulation. How often a room was refused, a connection replaced, and one refused.
pub(crate) fn run(seed: u64) -> (u64, u64, u64) {
    let mut story = Story { world: world(seed), guests: Vec::new() };
    for _ in 0..2 {
        for _ in 0..500 {
            story.act();
            story.turn();
        }
        story.rest();
        story.judge();
    }
    story.end();
    let sum = |of: fn(&throng::base::counters::Counters) -> u64| story.world.sum(of);
    (
        sum(|counters| counters.rooms_refused_total),
        sum(|counters| counters.replaced_total),
        sum(|counters| counters.parties_refused_total),
    )
}

fn world(seed: u64) -> World {
    let sets = [
        format!("limits_user.max_connections={OF_USER}"),
        format!("limits_tenant.max_connections={OF_TENANT}"),
        format!("limits_tenant.max_rooms={ROOMS}"),
    ];
    let shards = 1 + u16::try_from(seed % 4).unwrap();
    let inbox = 1 + usize::try_from(seed / 4 % 3).unwrap();
    World::with(seed, shards, inbox, Faults::rough(), guarded(&sets))
}

/// Settings of a node where everybody shows a token.
pub(crate) fn guarded(sets: &[String]) -> Settings {
    let guard = [
        "auth.mode=token".to_owned(),
        format!("auth.secret={SECRET:?}"),
        "auth.require_expiry=false".to_owned(),
    ];
    let sets = [&guard[..], sets].concat();
    let config = Origin { file: None, sets }.load().expect("a valid configuration");
    let mut settings = throng::node::settings(&config, 1000);
    let key = Key::from_secret(Algorithm::Hs256, SECRET.as_bytes(), None).expect("a key");
    settings.own_keys = KeySet::new(vec![key]).expect("a set");
    let mut access = (*settings.access).clone();
    access.verifier.keys = settings.own_keys.clone();
    settings.access = Arc::new(access);
    settings
}

pub(crate) fn token(tenant: u32, user: u32) -> String {
    token_of(&json!({"sub": format!("u{user}"), "tenant": format!("t{tenant}"), "rooms": ["*"]}))
}

/// A token of these claims.
pub(crate) fn token_of(claims: &Value) -> String {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let head = encode(br#"{"alg":"HS256"}"#);
    let message = format!("{head}.{}", encode(claims.to_string().as_bytes()));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), message.as_bytes());
    format!("{message}.{}", encode(tag.as_ref()))
}

impl Story {
    fn turn(&mut self) {
        self.world.step();
        for guest in &mut self.guests {
            guest.client.turn();
            guest.note();
        }
    }

    /// Somebody comes, or one random deed of one random guest.
    fn act(&mut self) {
        let (shards, guests) = (self.world.shards(), self.guests.len());
        let rng = &mut self.world.rng;
        if guests == 0 || rng.u32(0..100) < 8 {
            let shard = rng.usize(..shards);
            let rng = &mut self.world.rng;
            let (tenant, user) = (rng.u32(..TENANTS), rng.u32(..USERS));
            let client = Client::known(self.world.net.connect(shard), &token(tenant, user));
            let (rooms, asked) = (BTreeSet::new(), None);
            self.guests.push(Guest { client, tenant, user, rooms, asked, noted: 0 });
            return;
        }
        let guest = &mut self.guests[rng.usize(..guests)];
        if !guest.is_here() {
            return;
        }
        match rng.u32(0..100) {
            0..3 => {
                guest.client.peer.reset();
                guest.client.gone = true;
            }
            3..70 if guest.asked.is_none() => {
                let joins = rng.u32(0..3) > 0;
                let mine = guest.rooms.iter().nth(rng.usize(..guest.rooms.len().max(1)));
                let room = match mine {
                    Some(room) if !joins => room.clone(),
                    _ => format!("room {}", rng.u32(0..8)),
                };
                let joins = joins || !guest.rooms.contains(&room);
                let kind = if joins { "throng:join" } else { "throng:leave" };
                guest.client.send(&json!({"type": kind, "room": room, "ref": 1}));
                guest.asked = Some((room, joins));
            }
            _ => {}
        }
    }

    /// Lets everything come to rest.
    fn rest(&mut self) {
        self.world.net.set_faults(Faults::none());
        let mut quiet = 0;
        for _ in 0..200_000 {
            let heard = |guests: &[Guest]| -> usize {
                guests.iter().map(|guest| guest.client.heard.len()).sum()
            };
            let before = heard(&self.guests);
            self.turn();
            let unsent = |guest: &Guest| guest.client.is_alive() && guest.client.has_unsent();
            let idle = before == heard(&self.guests)
                && !self.guests.iter().any(unsent)
                && self.world.mail() == 0;
            quiet = if idle { quiet + 1 } else { 0 };
            if quiet > 200 {
                self.world.net.set_faults(Faults::rough());
                return;
            }
        }
        panic!("it never comes to rest: {} pieces of mail", self.world.mail());
    }

    /// The numbers hold, and the homes know them.
    fn judge(&self) {
        let here: Vec<&Guest> = self.guests.iter().filter(|guest| guest.is_here()).collect();
        let mut users: BTreeMap<(u32, u32), usize> = BTreeMap::new();
        let mut tenants: BTreeMap<u32, usize> = BTreeMap::new();
        let mut rooms: BTreeMap<u32, BTreeSet<&str>> = BTreeMap::new();
        for guest in &here {
            assert!(guest.asked.is_none(), "{:?} was not answered", guest.asked);
            *users.entry((guest.tenant, guest.user)).or_default() += 1;
            *tenants.entry(guest.tenant).or_default() += 1;
            rooms.entry(guest.tenant).or_default().extend(guest.rooms.iter().map(String::as_str));
        }
        assert!(users.values().all(|count| *count <= OF_USER), "{users:?}");
        assert!(tenants.values().all(|count| *count <= OF_TENANT), "{tenants:?}");
        assert!(rooms.values().all(|rooms| rooms.len() <= ROOMS), "{rooms:?}");
        let sum = |of: fn(&throng::base::counters::Counters) -> u64| self.world.sum(of);
        assert_eq!(sum(|counters| counters.open_connections), here.len() as u64);
        let parties = users.len() + tenants.len();
        assert_eq!(sum(|counters| counters.counted_parties), parties as u64, "parties");
        let there: usize = rooms.values().map(BTreeSet::len).sum();
        assert_eq!(sum(|counters| counters.counted_rooms), there as u64, "{rooms:?}");
        assert_eq!(sum(|counters| counters.waiting_joins), 0);
        for guest in self.guests.iter().filter(|guest| !guest.client.gone) {
            if let Some(code) = guest.client.closed {
                assert!([4409, 1013].contains(&code), "closed with {code}");
            }
        }
        let errors = self.guests.iter().flat_map(|guest| &guest.client.heard);
        let errors = errors.filter(|message| message["type"] == "throng:error");
        let other = errors.filter(|error| error["code"] != "tenant_limit").collect::<Vec<&Value>>();
        assert!(other.is_empty(), "{other:?}");
    }

    /// Everybody leaves; nothing stays behind.
    fn end(&mut self) {
        for guest in &mut self.guests {
            guest.client.peer.reset();
            guest.client.gone = true;
        }
        self.world.jump(Duration::from_secs(30));
        for _ in 0..100_000 {
            if self.world.sum(|counters| counters.connections) == 0 && self.world.mail() == 0 {
                break;
            }
            self.turn();
        }
        self.rest();
        let left = self.world.sum(|counters| {
            counters.connections
                + counters.home_rooms
                + counters.memberships
                + counters.counted_parties
                + counters.counted_rooms
                + counters.waiting_joins
        });
        assert_eq!(left, 0, "something stayed behind");
    }
}
