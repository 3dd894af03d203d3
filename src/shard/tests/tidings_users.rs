//! What back ends are told of users: who comes, who has gone for good, and what found nobody.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::auth::{Source, user_room};
use crate::base::id::{ConnId, NodeTag};
use crate::base::tidings::{TidingKind, TidingKinds};
use crate::contract::Event;
use crate::hub::{Afar, Audience, Origin, Stand, Target};
use crate::shard::Mail;
use crate::shard::tests::guard::{enter, guarded};
use crate::shard::tests::rig::{Rig, draft};
use crate::shard::tests::tidings::told;

const USERS: [TidingKind; 3] = [TidingKind::Online, TidingKind::Offline, TidingKind::Undelivered];
const GRACE: Duration = Duration::from_secs(5);
/// One step before the grace is over, and one after.
const STEP: Duration = Duration::from_secs(1);

fn rig(kinds: &[TidingKind]) -> Rig {
    let mut settings = guarded(&[Source::Header], |access| {
        access.report.kinds = TidingKinds::of(kinds);
    });
    settings.rooms.presence.grace = GRACE;
    Rig::new(0, 1, settings)
}

fn claims(user: &str) -> Value {
    let rooms = json!({"*": ["join", "publish"], "user:*": ["publish"]});
    json!({"sub": user, "tenant": "acme", "exp": 5000, "rooms": rooms})
}

fn go(rig: &mut Rig, conn: ConnId) {
    rig.event(Event::ReceivedEnd { conn });
    rig.settle();
}

fn names(told: &[Value]) -> Vec<(&str, &str)> {
    told.iter()
        .map(|event| {
            let name = |field: &str| event[field].as_str().expect("a name");
            (name("event"), name("userId"))
        })
        .collect()
}

#[test]
fn a_user_is_online_once_and_offline_after_the_grace_with_nobody_watching() {
    let mut rig = rig(&USERS);
    let tabs = [(); 2].map(|()| enter(&mut rig, &claims("ada")));
    let events = told(&mut rig);
    assert_eq!(names(&events), [("online", "ada")], "one user, however many tabs");
    let fields: Vec<&String> = events[0].as_object().expect("an object").keys().collect();
    assert_eq!(fields, ["at", "event", "id", "tenant", "userId"]);
    for tab in tabs {
        go(&mut rig, tab);
    }
    let gone = rig.shard.unix_ms(rig.now);
    rig.later(GRACE - STEP);
    rig.settle();
    assert_eq!(told(&mut rig), [] as [Value; 0], "not before the grace is over");
    rig.later(STEP);
    rig.settle();
    let events = told(&mut rig);
    assert_eq!(names(&events), [("offline", "ada")]);
    assert_eq!((&events[0]["lastSeen"], &events[0]["tenant"]), (&json!(gone), &json!("acme")));
    enter(&mut rig, &claims("ada"));
    assert_eq!(names(&told(&mut rig)), [("online", "ada")]);
    assert_eq!(rig.shard.counters().events_total, 3);
}

#[test]
fn a_return_within_the_grace_is_told_to_nobody() {
    let mut rig = rig(&USERS);
    let conn = enter(&mut rig, &claims("ada"));
    assert_eq!(told(&mut rig).len(), 1);
    go(&mut rig, conn);
    rig.later(GRACE - STEP);
    rig.settle();
    enter(&mut rig, &claims("ada"));
    rig.later(GRACE * 2);
    rig.settle();
    assert_eq!(told(&mut rig), [] as [Value; 0]);
}

#[test]
fn what_is_published_to_who_is_not_there_is_told_and_nothing_else_of_it() {
    let mut rig = rig(&USERS);
    let ada = enter(&mut rig, &claims("ada"));
    let bob = enter(&mut rig, &claims("bob"));
    go(&mut rig, bob);
    told(&mut rig);
    let message =
        json!({"type": "hello", "users": ["ada", "bob", "eve"], "payload": {"a": 1.0}, "id": 7});
    rig.say(ada, &message.to_string());
    rig.settle();
    assert_eq!(rig.told(ada, "hello").len(), 1);
    let events = told(&mut rig);
    let mut users = names(&events);
    users.sort_unstable();
    assert_eq!(users, [("undelivered", "bob"), ("undelivered", "eve")], "a grace is no connection");
    let from = rig.address(ada).to_string();
    for event in &events {
        let found = json!([
            event["type"],
            event["payload"],
            event["messageId"],
            event["from"],
            event["tenant"]
        ]);
        assert_eq!(found, json!(["hello", {"a": 1.0}, 7, from, "acme"]));
        assert!(event.get("clientId").is_none(), "{event}");
    }
    rig.say(ada, r#"{"type":"hello","room":"empty","ref":1}"#);
    rig.settle();
    assert_eq!(told(&mut rig), [] as [Value; 0], "a room is nobody");
}

#[test]
fn of_several_nodes_the_one_that_took_it_tells_what_found_the_user_nowhere() {
    let mut settings = guarded(&[Source::Header], |access| {
        access.report.kinds = TidingKinds::of(&[TidingKind::Undelivered]);
    });
    settings.rooms.presence.grace = GRACE;
    settings.rooms.presence.nodes = true;
    let mut rig = Rig::new_in(NodeTag(0xabc), 0, 1, settings);
    let ada = enter(&mut rig, &claims("ada"));
    let own: Arc<str> = Arc::from(user_room(Some("acme"), "bob"));
    let afar = |stand| {
        let user = Arc::clone(&own);
        Mail::Afar(vec![Afar { user, node: 0, stand, unix_ms: 1, speaks: false, ended: false }])
    };
    let say = |rig: &mut Rig| {
        rig.say(ada, r#"{"type":"hello","users":["bob"]}"#);
        rig.settle();
        names(&told(rig)).len()
    };
    assert_eq!(say(&mut rig), 1);
    rig.take(afar(Stand::Idle));
    assert_eq!(say(&mut rig), 0, "the user is on another node");
    rig.take(afar(Stand::Gone));
    assert_eq!(say(&mut rig), 1, "a grace is no connection there either");
    let to = Audience { target: Target::User, except: None };
    let mut sent = draft(&own, to, Origin::BackEnd(None));
    sent.terms.foreign = true;
    rig.take(Mail::Publish { drafts: vec![sent], group: None, across: None });
    rig.settle();
    assert_eq!(told(&mut rig), [] as [Value; 0], "another node has told it");
}

#[test]
fn who_did_not_ask_for_users_hears_nothing_of_them() {
    for kinds in [&[][..], &[TidingKind::Connected]] {
        let mut rig = rig(kinds);
        let ada = enter(&mut rig, &claims("ada"));
        rig.say(ada, r#"{"type":"hello","users":["bob"]}"#);
        rig.settle();
        go(&mut rig, ada);
        rig.later(GRACE * 2);
        rig.settle();
        assert_eq!(told(&mut rig).len(), kinds.len());
        assert_eq!(rig.shard.counters().events_total, kinds.len() as u64);
    }
}
