//! Who receives what: every mixture of targets and exceptions, on three shards, against a naive twin.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::auth::Source;
use crate::base::id::{ConnAddress, ConnId, NodeTag, ShardId};
use crate::base::time::Time;
use crate::hub::{Origin, Slip, Terms};
use crate::session::{CommandLimits, parse_orders};
use crate::shard::tests::guard::{ask, enter, guarded};
use crate::shard::tests::rig::{Heard, Rig, seed, settings};
use crate::shard::{Author, Mail, Places, Report, RoomRules, Submission, SubmissionItem};

const SHARDS: u16 = 3;
const MAKER: u16 = u16::MAX;

/// The shards of a node; mail travels in an order of its own choice, but keeps it between two shards.
pub(super) struct Shards {
    pub(super) rigs: Vec<Rig>,
    /// Per sender and receiver: requests, deliveries.
    ways: Vec<[Vec<Mail>; 2]>,
    pub(super) reports: Vec<Report>,
    rng: fastrand::Rng,
    rules: RoomRules,
    orders: u64,
}

impl Shards {
    pub(super) fn new(order: u64) -> Self {
        let settings = || {
            let mut settings = guarded(&[Source::Header], |_| {});
            settings.capacity.parked_mail = 1000;
            settings
        };
        let ways = (0..SHARDS * SHARDS).map(|_| Default::default()).collect();
        Self {
            rigs: (0..SHARDS).map(|id| Rig::new(id, SHARDS, settings())).collect(),
            ways,
            reports: Vec::new(),
            rng: fastrand::Rng::with_seed(order),
            rules: settings().rooms,
            orders: 0,
        }
    }

    /// Carries all mail, one piece at a time from any way, until there is none.
    pub(super) fn exchange(&mut self) {
        loop {
            for (from, rig) in self.rigs.iter_mut().enumerate() {
                rig.settle();
                for (to, mail) in std::mem::take(&mut rig.post) {
                    let way = &mut self.ways[from * usize::from(SHARDS) + usize::from(to.0)];
                    way[usize::from(!mail.is_request())].push(mail);
                }
                rig.shard.poll_reports(&mut |report| {
                    self.reports.push(report);
                    Ok(())
                });
            }
            let busy: Vec<(usize, usize)> = (0..self.ways.len())
                .flat_map(|way| [(way, 0), (way, 1)])
                .filter(|(way, lane)| !self.ways[*way][*lane].is_empty())
                .collect();
            let Some((way, lane)) = self.rng.choice(busy) else { return };
            let mail = self.ways[way][lane].remove(0);
            self.rigs[way % usize::from(SHARDS)].take(mail);
        }
    }

    /// A back end publishes, and wants to know how many it reaches.
    pub(super) fn order(&mut self, tenant: Option<&str>, message: &Value) -> u64 {
        let (text, seed) = (message.to_string(), seed());
        let orders = parse_orders(&text, &CommandLimits::default(), 1).expect("an order");
        let [order] = &orders.list[..] else { panic!("{text}") };
        self.orders += 1;
        let number = self.orders;
        let places =
            Places { seed: &seed, shards: SHARDS, rules: &self.rules, node: NodeTag::NONE };
        let origin = Origin::BackEnd(Some(Slip { order: number, item: 0, everywhere: false }));
        let author = Author { tenant, origin, at: Time::ZERO, across: true };
        let parts = places.parts(&order.publish, &author, &|_| Terms::default());
        let group = parts.group(MAKER, || number);
        for (home, drafts) in parts.homes {
            let items = vec![SubmissionItem {
                index: 0,
                drafts,
                group,
                ttl: order.publish.ttl,
                across: None,
            }];
            let submission = Submission { order: number, items };
            self.rigs[usize::from(home.0)].take(Mail::Submit(Box::new(submission)));
        }
        number
    }

    /// How many the order has reached, when every copy that was sent has been told of.
    pub(super) fn reached(&self, order: u64) -> u64 {
        let (mut awaited, mut told, mut connections) = (0, 0, 0);
        for report in &self.reports {
            match report {
                Report::Taken { order: own, copies, .. } if *own == order => awaited += copies,
                Report::Reached { slip, connections: more } if slip.order == order => {
                    told += 1;
                    connections += more;
                }
                _ => {}
            }
        }
        assert_eq!(awaited, told, "every copy is told of");
        connections
    }
}

/// A client as the twin knows it.
#[derive(Clone, Debug)]
struct Client {
    shard: usize,
    conn: ConnId,
    user: u8,
    tenant: bool,
    rooms: BTreeSet<u8>,
}

impl Client {
    fn address(&self) -> ConnAddress {
        let shard = ShardId(u16::try_from(self.shard).expect("few"));
        ConnAddress::alone(shard, self.conn)
    }
}

/// Numbers of clients, users and rooms, in each place where they can be named.
#[derive(Clone, Debug)]
struct Wish {
    /// The client that publishes, or a back end.
    by: Option<usize>,
    tenant: bool,
    rooms: BTreeSet<u8>,
    users: BTreeSet<u8>,
    connections: BTreeSet<usize>,
    everyone: bool,
    except: [BTreeSet<usize>; 3],
}

impl Wish {
    fn is_empty(&self) -> bool {
        let named = self.rooms.len() + self.users.len() + self.connections.len();
        named == 0 && !self.everyone
    }

    fn message(&self, clients: &[Client], payload: usize) -> Value {
        let address = |at: &usize| clients[at % clients.len()].address().to_string();
        let names = |kind: &str, set: &BTreeSet<u8>| -> Vec<String> {
            set.iter().map(|number| format!("{kind}{number}")).collect()
        };
        let few = |at: usize| self.except[at].iter().map(|n| u8::try_from(*n).expect("few"));
        let mut message = json!({
            "type": "t",
            "rooms": names("r", &self.rooms),
            "users": names("u", &self.users),
            "connections": self.connections.iter().map(address).collect::<Vec<_>>(),
            "payload": payload,
            "except": {
                "connections": self.except[0].iter().map(address).collect::<Vec<_>>(),
                "users": names("u", &few(1).collect()),
                "rooms": names("r", &few(2).collect()),
            },
        });
        if self.everyone {
            message["everyone"] = json!(true);
        }
        message
    }

    /// What the twin says: the client is meant, of the tenant, and not excepted.
    fn is_for(&self, clients: &[Client], at: usize) -> bool {
        let (client, user) = (&clients[at], usize::from(clients[at].user));
        let named = |set: &BTreeSet<usize>| set.iter().any(|n| n % clients.len() == at);
        let meant = self.everyone
            || !self.rooms.is_disjoint(&client.rooms)
            || self.users.contains(&client.user)
            || named(&self.connections);
        let in_room = client.rooms.iter().any(|r| self.except[2].contains(&usize::from(*r)));
        let excepted = named(&self.except[0]) || self.except[1].contains(&user) || in_room;
        let tenant = self.by.map_or(self.tenant, |by| clients[by % clients.len()].tenant);
        meant && !excepted && client.tenant == tenant
    }
}

fn wish() -> impl Strategy<Value = Wish> {
    let set = |size| prop::collection::btree_set(0..5u8, 0..size);
    let many = |most| prop::collection::btree_set(0..most, 0..2);
    (
        (prop::option::of(0..20usize), any::<bool>()),
        (set(4), set(3), prop::collection::btree_set(0..20usize, 0..4), prop::bool::weighted(0.2)),
        (many(20usize), many(5usize), many(5usize)),
    )
        .prop_map(|((by, tenant), (rooms, users, connections, everyone), (a, b, c))| Wish {
            by,
            tenant,
            rooms,
            users,
            connections,
            everyone,
            except: [a, b, c],
        })
        .prop_filter("somebody is meant", |wish| !wish.is_empty())
}

fn tenant(is_one: bool) -> Option<&'static str> {
    is_one.then_some("acme")
}

fn arrive(
    shards: &mut Shards,
    shard: usize,
    user: u8,
    tenancy: bool,
    rooms: BTreeSet<u8>,
) -> Client {
    let rig = &mut shards.rigs[shard];
    let claims = json!({"sub": format!("u{user}"), "tenant": tenant(tenancy), "exp": 5000,
        "rooms": ["*"]});
    let conn = enter(rig, &claims);
    for room in &rooms {
        rig.say(conn, &json!({"type": "throng:join", "room": format!("r{room}")}).to_string());
    }
    Client { shard, conn, user, tenant: tenancy, rooms }
}

/// A push says by what its receiver was meant.
fn check_push(push: &Value, wish: &Wish, client: &Client) {
    let marks = ["room", "user", "connection", "everyone"];
    let given: Vec<&str> = marks.into_iter().filter(|mark| push.get(*mark).is_some()).collect();
    assert_eq!(given.len(), 1, "{push}");
    assert_eq!(push.get("offset").is_some(), given[0] == "room", "{push}");
    match given[0] {
        "room" => {
            let name = push["room"].as_str().expect("a name");
            let number = name.strip_prefix('r').and_then(|n| n.parse().ok()).expect("a room");
            assert!(wish.rooms.contains(&number) && client.rooms.contains(&number), "{push}");
        }
        "user" => assert!(wish.users.contains(&client.user), "{push}"),
        "connection" => assert!(!wish.connections.is_empty(), "{push}"),
        _ => assert!(wish.everyone, "{push}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn whoever_is_meant_and_not_excepted_receives_one_copy_and_nobody_else_any(
        clients in prop::collection::vec(
            (0..3usize, 0..5u8, any::<bool>(), prop::collection::btree_set(0..5u8, 0..4)), 1..12),
        wishes in prop::collection::vec(wish(), 1..6),
        order: u64,
    ) {
        let mut shards = Shards::new(order);
        let clients: Vec<Client> = clients
            .into_iter()
            .map(|(shard, user, tenant, rooms)| arrive(&mut shards, shard, user, tenant, rooms))
            .collect();
        shards.exchange();
        for client in &clients {
            shards.rigs[client.shard].heard(client.conn);
        }
        let mut orders = Vec::new();
        for (payload, wish) in wishes.iter().enumerate() {
            let message = wish.message(&clients, payload);
            match wish.by {
                Some(by) => {
                    let author = &clients[by % clients.len()];
                    shards.rigs[author.shard].say(author.conn, &message.to_string());
                }
                None => orders.push((payload, shards.order(tenant(wish.tenant), &message))),
            }
        }
        shards.exchange();
        let mut receivers = vec![0u64; wishes.len()];
        for (at, client) in clients.iter().enumerate() {
            let mut got = vec![0; wishes.len()];
            for frame in shards.rigs[client.shard].heard(client.conn) {
                let Heard::Text(push) = frame else { panic!("{frame:?}") };
                prop_assert_eq!(&push["type"], "t", "{}", push);
                let number = usize::try_from(push["payload"].as_u64().expect("a number"))?;
                check_push(&push, &wishes[number], client);
                got[number] += 1;
            }
            let expected: Vec<i32> =
                wishes.iter().map(|wish| i32::from(wish.is_for(&clients, at))).collect();
            prop_assert_eq!(&got, &expected, "client {} of {:?}", at, clients);
            for (sum, one) in receivers.iter_mut().zip(&expected) {
                *sum += u64::from(*one == 1);
            }
        }
        for (payload, order) in orders {
            prop_assert_eq!(shards.reached(order), receivers[payload], "what is told");
        }
        for rig in &shards.rigs {
            prop_assert!(rig.shard.rooms.groups.is_empty() && rig.shard.rooms.walks.len() == 0);
        }
    }
}

#[test]
fn a_user_is_reached_by_mail_to_the_shards_it_is_on_and_no_other() {
    let mut shards = Shards::new(1);
    let ada: Vec<Client> =
        [0, 0, 2].map(|shard| arrive(&mut shards, shard, 1, false, BTreeSet::new())).into();
    let others: Vec<Client> =
        (0..3).map(|shard| arrive(&mut shards, shard, 2, false, BTreeSet::new())).collect();
    shards.exchange();
    let before: Vec<u64> = deliveries(&shards);
    let order = shards.order(None, &json!({"type": "t", "users": ["u1"], "payload": 1}));
    shards.exchange();
    assert_eq!(shards.reached(order), 3);
    let after: Vec<u64> = deliveries(&shards);
    assert_eq!(difference(&after, &before), [2, 0, 1]);
    let copies = shards.reports.iter().filter(|r| matches!(r, Report::Reached { .. })).count();
    assert_eq!(copies, 2, "one copy for each shard that the user is on");
    for client in ada.iter().chain(&others) {
        let heard = shards.rigs[client.shard].told(client.conn, "t");
        assert_eq!(heard.len(), usize::from(client.user == 1));
        assert!(heard.iter().all(|push| push["user"] == json!(true) && push.get("room").is_none()));
    }
}

fn deliveries(shards: &Shards) -> Vec<u64> {
    shards.rigs.iter().map(|rig| rig.shard.counters().deliveries_total).collect()
}

fn difference(after: &[u64], before: &[u64]) -> Vec<u64> {
    after.iter().zip(before).map(|(after, before)| after - before).collect()
}

#[test]
fn an_exception_of_a_user_and_one_of_a_connection_are_two_things() {
    let mut shards = Shards::new(2);
    let tabs = [0, 1].map(|shard| arrive(&mut shards, shard, 1, false, [3].into()));
    let bob = arrive(&mut shards, 2, 2, false, [3].into());
    shards.exchange();
    let by_connection =
        json!({"type": "one", "room": "r3", "except": [tabs[0].address().to_string()]});
    let by_user = json!({"type": "two", "room": "r3", "except": {"users": ["u1"]}});
    for message in [by_connection, by_user] {
        shards.rigs[0].say(tabs[0].conn, &message.to_string());
    }
    shards.exchange();
    let heard = |shards: &mut Shards, client: &Client| -> Vec<Value> {
        let frames = shards.rigs[client.shard].heard(client.conn);
        let types = frames.into_iter().map(|frame| match frame {
            Heard::Text(push) => push["type"].clone(),
            other => panic!("{other:?}"),
        });
        types.filter(|kind| kind != "throng:reply").collect()
    };
    assert_eq!(heard(&mut shards, &tabs[0]), Vec::<Value>::new());
    assert_eq!(heard(&mut shards, &tabs[1]), [json!("one")], "the other tab is not silenced");
    assert_eq!(heard(&mut shards, &bob), [json!("one"), json!("two")]);
}

#[test]
fn targets_beyond_rooms_need_a_right_of_their_own() {
    let mut rig = Rig::new(0, 1, guarded(&[Source::Header], |_| {}));
    let of = |rooms: Value| json!({"sub": "ada", "exp": 5000, "rooms": rooms});
    let cases = [
        (json!(["lobby"]), [false, false, false]),
        (json!({"user:*": ["publish"]}), [true, false, false]),
        (json!({"user:bob": ["publish"], "connections": ["publish"]}), [true, true, false]),
        (json!({"user:eve": ["publish"], "everyone": ["publish"]}), [false, false, true]),
        (json!({"everyone": ["join"]}), [false, false, false]),
    ];
    for (rooms, may) in cases {
        let conn = enter(&mut rig, &of(rooms.clone()));
        let messages = [
            json!({"type": "t", "users": ["bob"], "ref": 1}),
            json!({"type": "t", "connections": ["0-0-0"], "ref": 1}),
            json!({"type": "t", "everyone": true, "except": [rig.address(conn).to_string()],
                "ref": 1}),
        ];
        for (message, may) in messages.iter().zip(may) {
            let answer = ask(&mut rig, conn, &message.to_string());
            let expected = if may { Value::Null } else { json!("forbidden") };
            assert_eq!(answer["code"], expected, "{rooms} {message}");
        }
    }
}

#[test]
fn where_nobody_is_known_the_operator_decides_and_there_are_no_users() {
    for open in [false, true] {
        let mut settings = settings();
        settings.rooms.open_everyone = open;
        settings.rooms.open_connections = open;
        let mut rig = Rig::new(0, 1, settings);
        let conn = rig.open();
        let id = rig.address(conn).to_string();
        for (message, may) in [
            (json!({"type": "t", "everyone": true, "payload": 1}), open),
            (json!({"type": "t", "connections": [id], "payload": 2}), open),
            (json!({"type": "t", "users": ["ada"], "payload": 3}), false),
        ] {
            rig.say(conn, &message.to_string());
            rig.settle();
            let Some(Heard::Text(answer)) = rig.heard(conn).pop() else { panic!("{message}") };
            if may {
                assert_eq!(answer["payload"], message["payload"], "{answer}");
            } else {
                assert_eq!(answer["code"], "forbidden", "{message}");
            }
        }
    }
}

#[test]
fn an_address_of_a_shard_that_is_not_there_reaches_nobody() {
    let mut shards = Shards::new(3);
    let ada = arrive(&mut shards, 0, 1, false, [1].into());
    shards.exchange();
    let nowhere = ["ffff-0-0", "3-0-0", "0-ffffff-0"];
    let alone = shards.order(None, &json!({"type": "t", "connections": nowhere}));
    let beside = json!({"type": "t", "connections": nowhere, "room": "r1", "users": ["u1"]});
    let beside = shards.order(None, &beside);
    shards.exchange();
    assert_eq!((shards.reached(alone), shards.reached(beside)), (0, 1));
    assert_eq!(shards.rigs[0].told(ada.conn, "t").len(), 1);
}
