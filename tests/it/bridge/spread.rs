//! The same clients and publications on one, two and four nodes: whoever is where, each gets the same, all are seen to be
//! there alike, and Redis is asked once for a publication and answers once to each node that has somebody for it. Rows O1, O2
//! and O5, with one Redis and with a cluster of three.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use throng::node::Node;

use super::cluster::{Redis, bridge, wait_link};
use super::presence::own;
use super::shared::{KEEPS, SHARED};
use super::slots::Slots;
use crate::admin::ask;
use crate::auth::enter;
use crate::support::{Client, node, on_both_drivers, wait_until};

const CLIENTS: usize = 16;
/// Publications of each client to each of its targets.
const EACH: usize = 10;
/// Nothing but what is published is to be counted, and no link is to be given up on a busy machine.
const QUIET: [&str; 5] = [
    "bridge.canary_interval_ms=600000",
    "bridge.lease_ms=600000",
    "bridge.command_timeout_ms=60000",
    "bridge.survey_timeout_ms=30000",
    "presence.interval_ms=20",
];
/// What the test itself asks of Redis, and what a cluster's client asks on its own account.
const NOT_COUNTED: [&str; 7] = ["info", "hello", "client", "pubsub", "cluster", "ping", "command"];

enum Place {
    One(Redis),
    Three(Slots),
}

impl Place {
    fn sets(&self, at: usize) -> Vec<String> {
        match self {
            Self::One(redis) => vec![format!("bridge.url=redis://{}", redis.address())],
            Self::Three(slots) => slots.place(at).to_vec(),
        }
    }

    /// Where nodes have their subscriptions.
    fn hub(&self) -> &Redis {
        match self {
            Self::One(redis) => redis,
            Self::Three(slots) => slots.hub(),
        }
    }

    /// How often each command was done by all servers together, since they began.
    fn commands(&self) -> BTreeMap<String, u64> {
        let servers = match self {
            Self::One(redis) => std::slice::from_ref(redis),
            Self::Three(slots) => &slots.servers[..],
        };
        let mut all = BTreeMap::new();
        for server in servers {
            let info: String =
                redis::from_redis_value(server.ask(&["INFO", "commandstats"])).unwrap();
            for line in info.lines().filter_map(|line| line.strip_prefix("cmdstat_")) {
                let (name, rest) = line.split_once(":calls=").unwrap();
                let calls: u64 = rest.split_once(',').unwrap().0.parse().unwrap();
                let first = name.split('|').next().unwrap();
                if !NOT_COUNTED.contains(&first) {
                    *all.entry(first.to_owned()).or_default() += calls;
                }
            }
        }
        all
    }
}

/// A kind of target, and which of its kind is for whom.
struct Kind {
    name: &'static str,
    /// Which of the kind a client is in, or its own publications go to.
    of: fn(usize) -> usize,
    is_shared: bool,
}

/// Everybody's; that of clients who are on one node, however many there are; that of two neighbours; that of four.
const KINDS: [Kind; 6] = [
    Kind { name: "lobby", of: |_| 0, is_shared: false },
    Kind { name: "near", of: |client| client % 4, is_shared: false },
    Kind { name: "pair", of: |client| client / 2, is_shared: false },
    Kind { name: "far", of: |client| client / 4, is_shared: false },
    Kind { name: "user", of: |client| client, is_shared: false },
    Kind { name: "shared", of: |client| client / 4, is_shared: true },
];

impl Kind {
    fn room(&self, client: usize) -> String {
        format!("{}:{}", self.name, (self.of)(client))
    }

    fn is_user(&self) -> bool {
        self.name == "user"
    }

    /// What the client publishes: to its room, or to the user after it.
    fn order(&self, client: usize, number: usize) -> Value {
        let payload = json!([client, number]);
        if self.is_user() {
            let whom = format!("u{}", (client + 1) % CLIENTS);
            return json!({"type": "x", "users": [whom], "payload": payload});
        }
        json!({"type": "x", "room": self.room(client), "payload": payload})
    }

    /// Whose publications reach the client.
    fn authors(&self, client: usize) -> BTreeSet<usize> {
        if self.is_user() {
            return BTreeSet::from([(client + CLIENTS - 1) % CLIENTS]);
        }
        (0..CLIENTS).filter(|author| (self.of)(*author) == (self.of)(client)).collect()
    }

    /// How many of so many nodes hear what the client publishes: those that have a member of its room, or all, which have
    /// to look whether they have the user.
    fn hearers(&self, client: usize, nodes: usize) -> usize {
        if self.is_user() {
            return nodes;
        }
        self.authors(client).iter().map(|member| member % nodes).collect::<BTreeSet<_>>().len()
    }
}

struct Stage {
    place: Place,
    nodes: Vec<Node>,
    clients: Vec<Client>,
}

impl Stage {
    /// So many nodes, and all clients, one after the other on the next node.
    fn set(driver: &str, place: Place, count: usize) -> Self {
        let nodes: Vec<Node> = (0..count)
            .map(|at| {
                let sets = [place.sets(at), own(&format!("n{at}"))].concat();
                let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
                let node = node(driver, &[&sets[..], &QUIET, &[SHARED, KEEPS]].concat());
                wait_link(&node);
                node
            })
            .collect();
        for node in &nodes {
            let others: u64 = (count - 1).try_into().unwrap();
            wait_until("all know each other", || bridge(node, "bridge_nodes") == others);
        }
        let rights = json!({"*": ["join", "publish", "presence"], "user:*": ["publish"]});
        let clients = (0..CLIENTS).map(|at| {
            let claims = json!({"sub": format!("u{at}"), "rooms": rights});
            let mut client = enter(nodes[at % count].address(), &claims);
            for kind in KINDS.iter().filter(|kind| !kind.is_user()) {
                client.join(&kind.room(at));
            }
            client
        });
        let clients = clients.collect();
        for kind in KINDS.iter().filter(|kind| !kind.is_user()) {
            for at in 0..CLIENTS {
                let hearers = kind.hearers(at, count).try_into().unwrap();
                place.hub().wait_for_room(&kind.room(at), hearers);
            }
        }
        Self { place, nodes, clients }
    }

    fn query(&self, node: &Node, path: &str) -> Value {
        let admin = node.admin_address().unwrap();
        let (status, body) = ask(admin, &format!("GET /v1/presence/{path}"), "");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Who is there and who is in each room: the same by every node.
    fn seen(&self) -> BTreeMap<String, Value> {
        let names: Vec<String> = (0..=CLIENTS).map(|at| format!("user=u{at}")).collect();
        let users = format!("users?{}", names.join("&"));
        let elsewhere = |at: usize| CLIENTS - (at..CLIENTS).step_by(self.nodes.len()).count();
        for (at, node) in self.nodes.iter().enumerate() {
            let others: u64 = elsewhere(at).try_into().unwrap();
            wait_until("all are known", || bridge(node, "bridge_users_elsewhere") == others);
        }
        let by = |node: &Node| {
            let mut seen = BTreeMap::from([(users.clone(), self.query(node, &users))]);
            for kind in KINDS.iter().filter(|kind| !kind.is_user()) {
                for at in 0..CLIENTS {
                    let page = self.query(node, &format!("rooms/{}", kind.room(at)));
                    assert!(page.get("missingNodes").is_none(), "{page}");
                    let list = page["connections"].as_array().unwrap();
                    let members: BTreeSet<&str> =
                        list.iter().map(|member| member["user"].as_str().unwrap()).collect();
                    seen.insert(kind.room(at), json!([page["members"], members]));
                }
            }
            seen
        };
        let all: Vec<_> = self.nodes.iter().map(by).collect();
        assert!(all.iter().all(|seen| *seen == all[0]), "{all:#?}");
        all[0].clone()
    }

    fn received(&self) -> u64 {
        self.nodes.iter().map(|node| bridge(node, "bridge_received_total")).sum()
    }

    /// Everybody publishes and hears what is for it, all of it once; what that was to Redis.
    fn play(&mut self, kind: &Kind) -> Row {
        let (commands, heard) = (self.place.commands(), self.received());
        for number in 0..EACH {
            for (at, client) in self.clients.iter_mut().enumerate() {
                client.send(&kind.order(at, number));
            }
        }
        for (at, client) in self.clients.iter_mut().enumerate() {
            let authors = kind.authors(at);
            let mut next: BTreeMap<usize, usize> = authors.iter().map(|at| (*at, 0)).collect();
            for offset in 1..=authors.len() * EACH {
                let push = client.next();
                let (author, number): (usize, usize) =
                    serde_json::from_value(push["payload"].clone()).unwrap();
                let due = next.get_mut(&author).unwrap_or_else(|| panic!("not for {at}: {push}"));
                assert_eq!(number, *due, "once, in its author's order: {push}");
                *due += 1;
                if kind.is_shared {
                    assert_eq!(push["offset"], json!(offset), "one order for all: {push}");
                }
            }
            assert!(next.values().all(|count| *count == EACH), "{next:?}");
        }
        let told: usize = (0..CLIENTS).map(|at| kind.hearers(at, self.nodes.len()) * EACH).sum();
        let told = u64::try_from(told).unwrap();
        wait_until("each node has heard it", || self.received() - heard >= told);
        self.clients.iter_mut().for_each(Client::expect_silence);
        let mut after = self.place.commands();
        for (name, before) in &commands {
            *after.get_mut(name).unwrap() -= before;
        }
        after.retain(|_, calls| *calls > 0);
        let sent = u64::try_from(CLIENTS * EACH).unwrap();
        let messages = self.received() - heard;
        assert_eq!(messages, told, "{}: once to each node that has somebody for it", kind.name);
        let row = Row { kind: kind.name, nodes: self.nodes.len(), sent, messages, commands: after };
        let asked = |name: &str| row.commands.get(name).copied().unwrap_or_default();
        assert_eq!((asked("publish"), asked("evalsha")), (sent, u64::from(kind.is_shared) * sent));
        // What a script does within is counted as if it had been asked for.
        assert!(kind.is_shared || row.commands.len() == 1, "and for nothing else: {row:?}");
        row
    }
}

#[derive(Debug)]
struct Row {
    kind: &'static str,
    nodes: usize,
    sent: u64,
    messages: u64,
    commands: BTreeMap<String, u64>,
}

impl Row {
    fn print(&self, of: &str) {
        let Self { kind, nodes, sent, messages, commands } = self;
        let asked = if commands.contains_key("evalsha") { "evalsha" } else { "publish" };
        let asked_for = commands[asked];
        println!("| {of} | {kind} | {nodes} | {sent} | {asked_for} {asked} | {messages} |");
    }
}

fn play(driver: &str, of: &str, start: fn() -> Place) {
    println!("| Redis | target | nodes | publications | commands | messages to nodes |");
    println!("|---|---|---:|---:|---:|---:|");
    let mut first = None;
    for count in [1, 2, 4] {
        let mut stage = Stage::set(driver, start(), count);
        let seen = stage.seen();
        assert_eq!(seen["lobby:0"][0], json!(CLIENTS));
        KINDS.iter().for_each(|kind| stage.play(kind).print(of));
        assert_eq!(&seen, first.get_or_insert_with(|| seen.clone()), "as on one node");
        assert_eq!(stage.seen(), seen, "and still so");
        for node in &stage.nodes {
            assert_eq!(bridge(node, "bridge_duplicates_total"), 0);
            assert_eq!(bridge(node, "bridge_links_total"), 1);
        }
    }
}

on_both_drivers! {
    fn the_same_clients_get_the_same_on_one_two_and_four_nodes_and_redis_is_asked_once(driver) {
        play(driver, "one", || Place::One(Redis::start()));
    }

    fn the_same_clients_get_the_same_on_one_two_and_four_nodes_of_a_cluster(driver) {
        play(driver, "a cluster of three", || Place::Three(Slots::start()));
    }
}
