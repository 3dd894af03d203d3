//! Who is there: users over three shards, observers, rooms that are shown, and questions.

use std::time::Duration;

use serde_json::{Value, json};

use crate::auth::{Source, user_room};
use crate::base::id::ConnId;
use crate::contract::Event;
use crate::shard::tests::guard::{enter, guarded};
use crate::shard::tests::rig::{Heard, Rig};
use crate::shard::{LastSeen, Mail, PresenceRules};

/// A node of three shards whose mail travels at once.
pub(super) struct Trio {
    pub(super) rigs: [Rig; 3],
    /// A shard whose mail is kept under way, and that mail.
    pub(super) withheld: Option<(usize, Vec<Mail>)>,
}

/// A connection: its shard and its number there.
pub(super) type Place = (usize, ConnId);

pub(super) const SECOND: Duration = Duration::from_secs(1);

impl Trio {
    pub(super) fn new(change: impl Fn(&mut PresenceRules)) -> Self {
        let rig = |id| {
            let mut settings = guarded(&[Source::Header], |access| {
                access.verifier.rules.require_expiry = false;
            });
            // Nobody here answers pings.
            settings.timeouts.heartbeat.interval = SECOND * 100_000;
            change(&mut settings.rooms.presence);
            Rig::new(id, 3, settings)
        };
        Self { rigs: [0, 1, 2].map(rig), withheld: None }
    }

    /// Delivers what was withheld, in the order in which it was sent.
    pub(super) fn release(&mut self) {
        let Some((shard, mail)) = self.withheld.take() else { return };
        mail.into_iter().for_each(|mail| self.rigs[shard].take(mail));
    }

    /// Carries mail until nobody has any, and lets everybody turn.
    pub(super) fn settle(&mut self) {
        for _ in 0..64 {
            let mut moved = false;
            for at in 0..3 {
                self.rigs[at].settle();
                self.rigs[at].turn();
                for (to, mail) in std::mem::take(&mut self.rigs[at].post) {
                    let to = usize::from(to.0);
                    match &mut self.withheld {
                        Some((shard, withheld)) if *shard == to => withheld.push(mail),
                        _ => {
                            moved = true;
                            self.rigs[to].take(mail);
                        }
                    }
                }
            }
            if !moved {
                return;
            }
        }
        panic!("mail goes round in circles");
    }

    pub(super) fn later(&mut self, wait: Duration) {
        self.settle();
        self.rigs.iter_mut().for_each(|rig| rig.later(wait));
        self.settle();
    }

    /// A user comes in by a shard; nothing is carried yet.
    pub(super) fn come(&mut self, shard: usize, user: &str) -> Place {
        let rooms = json!({"*": ["join", "publish", "presence"]});
        let conn = enter(&mut self.rigs[shard], &json!({"sub": user, "rooms": rooms}));
        (shard, conn)
    }

    /// A user's connection ends.
    pub(super) fn go(&mut self, (shard, conn): Place) {
        self.rigs[shard].event(Event::ReceivedEnd { conn });
    }

    pub(super) fn say(&mut self, (shard, conn): Place, message: &Value) {
        self.rigs[shard].say(conn, &message.to_string());
    }

    /// What came of that type since the last call.
    pub(super) fn told(&mut self, (shard, conn): Place, kind: &str) -> Vec<Value> {
        self.rigs[shard].told(conn, kind)
    }

    fn ask(&mut self, place: Place, message: &Value) -> Value {
        let mut message = message.clone();
        message["ref"] = json!(1);
        self.say(place, &message);
        self.settle();
        let (shard, conn) = place;
        let heard = self.rigs[shard].heard(conn).into_iter();
        let mut answer = heard.filter_map(|frame| match frame {
            Heard::Text(text) if text["ref"] == 1 => Some(text),
            _ => None,
        });
        answer.next_back().expect("an answer")
    }

    /// The users in presence pushes, with their states, one push after the other.
    fn news(&mut self, place: Place) -> Vec<Vec<(String, String)>> {
        let pushes = self.told(place, "throng:presence");
        let users = |push: Value| {
            let users = push["users"].as_array().cloned().unwrap_or_default().into_iter();
            users.map(|user| (text(&user["user"]), text(&user["state"]))).collect()
        };
        pushes.into_iter().map(users).collect()
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("none").to_owned()
}

fn pair(user: &str, state: &str) -> Vec<(String, String)> {
    vec![(user.to_owned(), state.to_owned())]
}

/// A node in which ada joins a room by that message, and eve has been told who is there.
pub(super) fn watched_lobby(join: &Value) -> (Trio, Place, Place) {
    let mut node = Trio::new(|_| {});
    let (ada, eve) = (node.come(0, "ada"), node.come(1, "eve"));
    node.say(ada, join);
    node.say(eve, &json!({"type": "throng:watch", "room": "lobby"}));
    node.settle();
    node.later(SECOND);
    node.told(eve, "throng:presence");
    (node, ada, eve)
}

/// An observer on shard 2 who has been told of the user as it is.
fn observer(node: &mut Trio, user: &str) -> Place {
    let eve = node.come(2, "eve");
    node.say(eve, &json!({"type": "throng:watch", "users": [user]}));
    node.settle();
    eve
}

#[test]
fn two_tabs_are_online_once_and_offline_after_the_last_has_gone_and_the_grace_is_over() {
    let mut node = Trio::new(|_| {});
    let eve = observer(&mut node, "ada");
    assert_eq!(node.news(eve), [pair("ada", "offline")], "as it is");
    let one = node.come(0, "ada");
    let two = node.come(1, "ada");
    node.later(SECOND);
    assert_eq!(node.news(eve), [pair("ada", "online")], "once");
    node.go(one);
    node.later(SECOND * 20);
    assert_eq!(node.news(eve).len(), 0, "one tab is still there");
    node.go(two);
    node.settle();
    let gone = node.rigs[0].shard.unix_ms(node.rigs[0].now);
    node.later(SECOND * 4);
    assert_eq!(node.news(eve).len(), 0, "the grace is not over");
    node.later(SECOND);
    node.later(SECOND);
    let pushes = node.told(eve, "throng:presence");
    let expected = json!([{"user": "ada", "state": "offline", "lastSeen": gone}]);
    assert_eq!(pushes.len(), 1, "once");
    assert_eq!(pushes[0]["users"], expected, "since the last connection ended");
}

#[test]
fn a_return_within_the_grace_tells_nobody_anything() {
    let mut node = Trio::new(|_| {});
    let eve = observer(&mut node, "ada");
    let mut ada = node.come(0, "ada");
    node.later(SECOND);
    node.told(eve, "throng:presence");
    for shard in [1, 2, 0, 1] {
        node.go(ada);
        node.later(Duration::from_millis(4900));
        ada = node.come(shard, "ada");
        node.later(SECOND * 2);
    }
    node.later(SECOND * 20);
    assert_eq!(node.news(eve).len(), 0);
}

#[test]
fn a_user_is_active_if_any_connection_is() {
    let mut node = Trio::new(|_| {});
    let eve = observer(&mut node, "ada");
    let (one, two) = (node.come(0, "ada"), node.come(0, "ada"));
    let three = node.come(1, "ada");
    node.later(SECOND);
    node.told(eve, "throng:presence");
    let idle = json!({"type": "throng:status", "status": "idle"});
    for place in [one, three] {
        node.say(place, &idle);
        node.later(SECOND);
    }
    assert_eq!(node.news(eve).len(), 0, "one of three is active");
    node.go(two);
    node.later(SECOND);
    assert_eq!(node.news(eve), [pair("ada", "idle")], "the active one has gone");
    node.say(three, &json!({"type": "throng:status", "status": "active"}));
    node.later(SECOND);
    assert_eq!(node.news(eve), [pair("ada", "online")]);
}

#[test]
fn a_second_connection_and_a_second_tab_that_ends_are_told_to_no_home() {
    let mut node = Trio::new(|_| {});
    let user = (0..).map(|n| format!("u{n}")).find(|user| {
        let own = user_room(None, user);
        node.rigs[0].shard.home(&own).0 == 1
    });
    let user = user.expect("a user at home on shard 1");
    let first = node.come(0, &user);
    node.settle();
    let sent = node.rigs[0].shard.counters().mail_sent_total;
    let second = node.come(0, &user);
    node.say(second, &json!({"type": "throng:status", "status": "idle"}));
    node.settle();
    node.go(second);
    node.settle();
    assert_eq!(node.rigs[0].shard.counters().mail_sent_total, sent, "nothing has changed");
    node.go(first);
    node.settle();
    assert_eq!(node.rigs[0].shard.counters().mail_sent_total, sent + 1);
}

#[test]
fn what_comes_and_goes_within_an_interval_cancels_out() {
    let mut node = Trio::new(|rules| rules.grace = Duration::ZERO);
    let eve = observer(&mut node, "ada");
    node.told(eve, "throng:presence");
    for _ in 0..5 {
        let ada = node.come(0, "ada");
        node.settle();
        node.go(ada);
        node.later(Duration::from_millis(10));
    }
    node.later(SECOND * 2);
    let pushes = node.told(eve, "throng:presence");
    // Seen last at another time than never: that alone is news.
    assert_eq!(pushes.len(), 1, "{pushes:?}");
    assert_eq!(pushes[0]["users"][0]["state"], "offline");
}

#[test]
fn a_room_is_shown_as_it_is_and_then_by_differences() {
    let mut node = Trio::new(|_| {});
    let (ada, bob, again) = (node.come(0, "ada"), node.come(1, "bob"), node.come(2, "ada"));
    let eve = node.come(2, "eve");
    let join = json!({"type": "throng:join", "room": "lobby"});
    for place in [ada, bob, again] {
        node.say(place, &join);
    }
    node.settle();
    node.say(eve, &json!({"type": "throng:watch", "room": "lobby", "ref": 7}));
    node.settle();
    let first = node.told(eve, "throng:presence");
    let users = json!([{"user": "ada", "state": "online"}, {"user": "bob", "state": "online"}]);
    let whole = json!({"type": "throng:presence", "room": "lobby", "members": 3, "users": users});
    assert_eq!(first, [whole], "each user once");
    node.say(bob, &json!({"type": "throng:status", "status": "idle"}));
    node.say(ada, &json!({"type": "throng:leave", "room": "lobby"}));
    let carl = node.come(0, "carl");
    node.say(carl, &join);
    node.settle();
    assert_eq!(node.told(eve, "throng:presence").len(), 0, "the interval is not over");
    node.later(SECOND);
    let diff = json!({
        "type": "throng:presence", "room": "lobby", "members": 3,
        "joined": [{"user": "carl", "state": "online"}],
        "states": [{"user": "bob", "state": "idle"}],
    });
    assert_eq!(node.told(eve, "throng:presence"), [diff], "ada has another connection in it");
    node.say(carl, &json!({"type": "throng:leave", "room": "lobby"}));
    node.later(SECOND);
    node.later(SECOND);
    let diff = json!({"type": "throng:presence", "room": "lobby", "members": 2, "left": ["carl"]});
    assert_eq!(node.told(eve, "throng:presence"), [diff], "online, and not in the room");
    node.say(eve, &json!({"type": "throng:unwatch", "room": "lobby"}));
    node.settle();
    node.go(bob);
    node.later(SECOND * 20);
    assert_eq!(node.told(eve, "throng:presence").len(), 0);
    let counters = node.rigs.each_ref().map(|rig| rig.shard.counters());
    assert!(counters.iter().all(|c| c.presence_rooms == 0 && c.presence_watches == 0));
    assert!(node.rigs.iter().all(|rig| rig.shard.rooms.presence.lookout.users() == 0));
}

#[test]
fn a_member_whose_connection_dropped_stays_listed_until_the_grace_is_over() {
    let join = json!({"type": "throng:join", "room": "lobby"});
    let (mut node, ada, eve) = watched_lobby(&join);
    node.go(ada);
    node.later(SECOND * 3);
    let counted = node.told(eve, "throng:presence");
    let no_member = json!({"type": "throng:presence", "room": "lobby", "members": 0});
    assert_eq!(counted, [no_member], "a connection fewer, and the same users");
    let ada = node.come(2, "ada");
    node.say(ada, &join);
    node.later(SECOND);
    node.later(SECOND);
    let member = json!({"type": "throng:presence", "room": "lobby", "members": 1});
    assert_eq!(node.told(eve, "throng:presence"), [member]);
    node.go(ada);
    node.later(SECOND * 2);
    node.told(eve, "throng:presence");
    node.later(SECOND * 4);
    node.later(SECOND * 2);
    let left = json!({"type": "throng:presence", "room": "lobby", "members": 0, "left": ["ada"]});
    assert_eq!(node.told(eve, "throng:presence"), [left]);
}

#[test]
fn a_room_above_its_limit_is_a_number_and_below_it_a_list_again() {
    let mut node = Trio::new(|rules| rules.list = 4);
    let eve = node.come(1, "eve");
    node.say(eve, &json!({"type": "throng:watch", "room": "r"}));
    node.later(SECOND);
    let empty = json!({"type": "throng:presence", "room": "r", "members": 0, "users": []});
    assert_eq!(node.told(eve, "throng:presence"), [empty]);
    let join = json!({"type": "throng:join", "room": "r"});
    let crowd: Vec<Place> = (0..9).map(|n| node.come(n % 3, &format!("u{n}"))).collect();
    crowd.iter().for_each(|place| node.say(*place, &join));
    node.later(SECOND);
    node.later(SECOND);
    let number = json!({"type": "throng:presence", "room": "r", "members": 9, "listed": false});
    assert_eq!(node.told(eve, "throng:presence"), std::slice::from_ref(&number));
    let late = node.come(0, "late");
    node.say(late, &json!({"type": "throng:watch", "room": "r"}));
    node.settle();
    assert_eq!(node.told(late, "throng:presence"), [number], "also to who comes later");
    assert!(
        node.rigs.iter().all(|rig| rig.shard.rooms.presence.lookout.users() == 0),
        "nobody looks at members one by one"
    );
    crowd[..6]
        .iter()
        .for_each(|place| node.say(*place, &json!({"type": "throng:leave", "room": "r"})));
    node.later(SECOND);
    node.later(SECOND);
    let users: Vec<Value> =
        (6..9).map(|n| json!({"user": format!("u{n}"), "state": "online"})).collect();
    let list = json!({"type": "throng:presence", "room": "r", "members": 3, "users": users});
    assert_eq!(node.told(eve, "throng:presence"), [list]);
}

#[test]
fn observing_needs_the_right_and_is_bounded() {
    let mut node = Trio::new(|rules| rules.watches = 3);
    let rooms = json!({"user:b*": ["presence"], "open": ["presence"]});
    let claims = json!({"sub": "eve", "rooms": rooms});
    let eve = (0, enter(&mut node.rigs[0], &claims));
    let watch = |users: Value| json!({"type": "throng:watch", "users": users});
    assert_eq!(node.ask(eve, &watch(json!(["bob", "ada"])))["code"], "forbidden");
    assert_eq!(node.ask(eve, &watch(json!(["bob", "eve"])))["watching"], 2, "oneself, always");
    let closed = json!({"type": "throng:watch", "room": "closed"});
    assert_eq!(node.ask(eve, &closed)["code"], "forbidden");
    assert_eq!(node.ask(eve, &watch(json!(["bill", "bert"])))["code"], "watch_limit");
    assert_eq!(node.ask(eve, &json!({"type": "throng:watch", "room": "open"}))["watching"], 3);
    assert_eq!(node.ask(eve, &watch(json!(["bob"])))["watching"], 3, "no further one");
    let bill = json!({"type": "throng:whois", "users": ["ada"]});
    assert_eq!(node.ask(eve, &bill)["code"], "forbidden");
    let unwatch = json!({"type": "throng:unwatch", "users": ["bob", "ada"]});
    assert_eq!(node.ask(eve, &unwatch)["watching"], 2);
    node.go(eve);
    node.settle();
    let counters = node.rigs[0].shard.counters();
    assert_eq!((counters.presence_watches, counters.forbidden_total), (0, 3));
}

#[test]
fn tenants_see_nothing_of_each_other() {
    let mut node = Trio::new(|_| {});
    let of = |tenant: &str, user: &str| json!({"sub": user, "tenant": tenant, "rooms": ["*"]});
    let eve = (0, enter(&mut node.rigs[0], &of("x", "eve")));
    let ada = (1, enter(&mut node.rigs[1], &of("y", "ada")));
    node.say(ada, &json!({"type": "throng:join", "room": "lobby"}));
    node.settle();
    node.say(eve, &json!({"type": "throng:watch", "users": ["ada"]}));
    node.say(eve, &json!({"type": "throng:watch", "room": "lobby"}));
    node.later(SECOND);
    let told = node.told(eve, "throng:presence");
    let of = |is_room| told.iter().find(|push| push.get("room").is_some() == is_room);
    let (room, user) = (of(true).expect("a push"), of(false).expect("a push"));
    assert_eq!(user["users"], json!([{"user": "ada", "state": "offline"}]));
    assert_eq!((&room["members"], &room["users"]), (&json!(0), &json!([])));
    let whois = json!({"type": "throng:whois", "room": "lobby"});
    assert_eq!(node.ask(eve, &whois)["connections"], json!([]));
}

#[test]
fn questions_are_answered_by_all_homes_and_pages_are_without_gap() {
    let mut node = Trio::new(|rules| {
        rules.page = 4;
        rules.metadata = true;
        rules.grace = Duration::ZERO;
    });
    let mut crowd: Vec<Place> = (0..10).map(|n| node.come(n % 3, &format!("u{n}"))).collect();
    for place in &crowd {
        node.say(*place, &json!({"type": "throng:join", "room": "r"}));
    }
    node.settle();
    node.say(crowd[3], &json!({"type": "throng:status", "status": "idle"}));
    let gone = node.come(0, "gone");
    node.settle();
    node.go(gone);
    node.settle();
    let seen = node.rigs[0].shard.unix_ms(node.rigs[0].now);
    node.later(Duration::from_millis(10));
    let users = json!(["u3", "nobody", "u4", "gone"]);
    let answer = node.ask(crowd[0], &json!({"type": "throng:whois", "users": users}));
    let expected = json!([
        {"user": "u3", "state": "idle"},
        {"user": "nobody", "state": "offline"},
        {"user": "u4", "state": "online"},
        {"user": "gone", "state": "offline", "lastSeen": seen},
    ]);
    assert_eq!(answer["users"], expected, "in the order they were asked for");
    let asker = crowd[1];
    let (mut found, mut after, mut pages) = (Vec::new(), Value::Null, 0);
    loop {
        let mut ask = json!({"type": "throng:whois", "room": "r"});
        if after.is_string() {
            ask["after"] = after;
        }
        let answer = node.ask(asker, &ask);
        pages += 1;
        assert_eq!(answer["members"], 10);
        found.extend(answer["connections"].as_array().expect("a page").iter().cloned());
        after = answer["next"].clone();
        if after.is_null() {
            break;
        }
    }
    assert_eq!((found.len(), pages), (10, 3));
    let mut names: Vec<String> = found.iter().map(|entry| text(&entry["user"])).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 10, "everybody once");
    assert!(found.iter().all(|entry| entry["connectedAt"].is_u64()), "{found:?}");
    let idle = found.iter().filter(|entry| entry["state"] == "idle").count();
    assert_eq!(idle, 1);
    let one = json!({"type": "throng:whois", "room": "r", "limit": 1});
    assert_eq!(node.ask(asker, &one)["connections"].as_array().map(Vec::len), Some(1));
    node.go(crowd.remove(0));
    node.settle();
    let counters = node.rigs[0].shard.counters();
    assert_eq!(counters.connections, 3, "its record went with it");
}

#[test]
fn who_came_and_went_offline_is_given_to_whoever_stores_it_from_the_first_call_on() {
    let mut node = Trio::new(|_| {});
    let fetch = |node: &mut Trio| -> Vec<(String, u64, bool)> {
        let shards = node.rigs.iter_mut();
        let seen = shards.flat_map(|rig| std::iter::from_fn(|| rig.shard.poll_last_seen()));
        seen.map(|LastSeen { user, unix_ms, here, .. }| (user.into(), unix_ms, here)).collect()
    };
    let unix_ms = |node: &mut Trio| {
        node.settle();
        node.rigs[0].shard.unix_ms(node.rigs[0].now)
    };
    let ada = node.come(0, "ada");
    node.go(ada);
    node.later(SECOND * 6);
    assert_eq!(fetch(&mut node), [], "nothing is kept before somebody asks");
    let ada = node.come(1, "ada");
    let came = unix_ms(&mut node);
    let other = node.come(2, "ada");
    node.later(SECOND);
    assert_eq!(fetch(&mut node), [("ada".to_owned(), came, true)], "once, however many tabs");
    node.go(ada);
    node.go(other);
    node.later(SECOND);
    let ada = node.come(0, "ada");
    node.later(SECOND * 10);
    assert_eq!(fetch(&mut node), [], "a return within the grace is no coming");
    node.go(ada);
    let went = unix_ms(&mut node);
    node.later(SECOND * 6);
    node.come(0, "ada");
    let back = unix_ms(&mut node);
    let both = [("ada".to_owned(), went, false), ("ada".to_owned(), back, true)];
    assert_eq!(fetch(&mut node), both, "in order");
    assert_eq!(fetch(&mut node), []);
}

#[test]
fn only_so_many_are_remembered_and_the_longest_gone_is_forgotten() {
    let mut node = Trio::new(|rules| {
        rules.grace = Duration::ZERO;
        rules.remembered = 2;
    });
    for n in 0..30 {
        let place = node.come(n % 3, &format!("u{n}"));
        node.settle();
        node.go(place);
        node.later(Duration::from_millis(10));
    }
    node.later(SECOND);
    let counters = node.rigs.each_ref().map(|rig| rig.shard.counters());
    assert!(counters.iter().all(|c| c.last_seen_remembered == 2), "each home its own");
    assert_eq!(counters.iter().map(|c| c.last_seen_forgotten_total).sum::<u64>(), 24);
    let eve = node.come(0, "eve");
    let answer = node.ask(eve, &json!({"type": "throng:whois", "users": ["u0", "u29"]}));
    assert!(answer["users"][0].get("lastSeen").is_none(), "{answer}");
    assert!(answer["users"][1]["lastSeen"].is_u64(), "{answer}");
}

#[test]
fn an_anonymous_shard_watches_rooms_by_number() {
    let mut rig = Rig::alone();
    let member = rig.member("r");
    let observer = rig.open();
    rig.say(observer, r#"{"type":"throng:watch","room":"r"}"#);
    for _ in 0..4 {
        rig.settle();
        rig.turn();
    }
    let told = rig.told(observer, "throng:presence");
    assert_eq!(told, [json!({"type": "throng:presence", "room": "r", "members": 1, "users": []})]);
    rig.event(Event::ReceivedEnd { conn: member });
    rig.settle();
    rig.later(SECOND * 2);
    for _ in 0..4 {
        rig.settle();
        rig.turn();
    }
    let told = rig.told(observer, "throng:presence");
    assert_eq!(told, [json!({"type": "throng:presence", "room": "r", "members": 0})]);
}
