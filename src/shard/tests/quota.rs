//! How many rooms a tenant may have, wherever in the node they are.

use serde_json::{Value, json};

use crate::auth::Source;
use crate::base::id::{ConnId, ShardId};
use crate::base::map::Seed;
use crate::base::party::Party;
use crate::hub;
use crate::shard::tests::guard::{enter, guarded, join};
use crate::shard::tests::history::remembering;
use crate::shard::tests::rig::{Rig, frame, publish};
use crate::shard::tests::rooms::exchange;
use crate::shard::{Mail, Settings};

fn limited(rooms: u32) -> Settings {
    let mut settings = guarded(&[Source::Header], |_| {});
    settings.limits.tenant.rooms = rooms;
    settings
}

fn pair(rooms: u32) -> [Rig; 2] {
    [0, 1].map(|id| Rig::new(id, 2, limited(rooms)))
}

/// A tenant whose home is that shard.
fn tenant_of(home: u16) -> String {
    let seed = Seed::new(11);
    (0..)
        .map(|number| format!("t{number}"))
        .find(|name| hub::home_of(&seed, Party::tenant(&seed, name), 2) == ShardId(home))
        .expect("a tenant")
}

fn claims(tenant: &str) -> Value {
    json!({"sub": "ada", "tenant": tenant, "exp": 5000, "rooms": ["*"]})
}

/// What a join is answered once all mail has been carried.
fn joins(rigs: &mut [Rig; 2], at: usize, conn: ConnId, room: &str) -> Value {
    rigs[at].say(conn, &join(room));
    exchange(rigs);
    let answers = rigs[at].heard(conn);
    let [crate::shard::tests::rig::Heard::Text(answer)] = &answers[..] else {
        panic!("{answers:?}")
    };
    if answer["ok"] == json!(true) { json!(true) } else { answer["code"].clone() }
}

fn sum(rigs: &[Rig; 2], of: impl Fn(crate::base::counters::Counters) -> u64) -> u64 {
    rigs.iter().map(|rig| of(rig.shard.counters())).sum()
}

#[test]
fn a_tenant_has_no_more_rooms_than_it_may_wherever_they_live() {
    for home in [0, 1] {
        let mut rigs = pair(3);
        let tenant = tenant_of(home);
        let conns = [0, 1].map(|at| enter(&mut rigs[at], &claims(&tenant)));
        let foreign = enter(&mut rigs[0], &claims(&tenant_of(1 - home)));
        exchange(&mut rigs);
        for number in 0..3 {
            let at = number % 2;
            assert_eq!(joins(&mut rigs, at, conns[at], &format!("r{number}")), json!(true));
        }
        for number in 3..9 {
            let at = number % 2;
            let answer = joins(&mut rigs, at, conns[at], &format!("r{number}"));
            assert_eq!(answer, "tenant_limit");
        }
        assert_eq!(joins(&mut rigs, 1, conns[1], "r0"), json!(true), "a room that there is");
        assert_eq!(joins(&mut rigs, 0, foreign, "r9"), json!(true), "another tenant's");
        assert_eq!(sum(&rigs, |c| c.rooms_refused_total), 6);
        assert_eq!(sum(&rigs, |c| c.counted_rooms), 4, "what was refused has ended");
        // Users' own rooms are no rooms of their homes; one user is in both shards.
        assert_eq!(sum(&rigs, |c| c.home_rooms), 4);
        assert_eq!(sum(&rigs, |c| c.users_online), 2);
        rigs[0].say(conns[0], r#"{"type":"throng:leave","room":"r2"}"#);
        exchange(&mut rigs);
        assert_eq!(joins(&mut rigs, 1, conns[1], "r3"), json!(true), "there is a place again");
        for (at, conn) in [(0, conns[0]), (1, conns[1]), (0, foreign)] {
            rigs[at].receive(conn, &frame(0x88, &1000_u16.to_be_bytes()));
        }
        exchange(&mut rigs);
        assert_eq!(sum(&rigs, |c| c.counted_rooms + c.home_rooms + c.waiting_joins), 0);
    }
}

/// A room of the tenant whose home is that shard.
fn room_of(tenant: &str, home: u16, not: &str) -> String {
    let seed = Seed::new(11);
    (0..)
        .map(|number| format!("q{number}"))
        .find(|name| {
            let inner = crate::auth::room(Some(tenant), name);
            name != not && hub::home(&seed, &inner, 2) == ShardId(home)
        })
        .expect("a room")
}

#[test]
fn a_join_waits_for_the_verdict_and_nothing_reaches_the_member_before() {
    let mut rigs = pair(1);
    let tenant = tenant_of(1);
    let [first, second] = [(); 2].map(|()| enter(&mut rigs[0], &claims(&tenant)));
    exchange(&mut rigs);
    let room = room_of(&tenant, 0, "");
    rigs[0].say(first, &join(&room));
    rigs[0].say(second, &join(&room));
    rigs[0].say(first, &publish(&[&room], "1"));
    rigs[0].settle();
    assert_eq!(rigs[0].heard(first), [], "neither the answer nor the publication");
    assert_eq!(rigs[0].shard.counters().waiting_joins, 2);
    exchange(&mut rigs);
    for conn in [first, second] {
        let replies = rigs[0].told(conn, "throng:reply");
        assert_eq!((replies.len(), &replies[0]["offset"]), (1, &json!(1)), "as it is by now");
    }
    rigs[0].say(first, &publish(&[&room], "2"));
    exchange(&mut rigs);
    assert_eq!(rigs[0].published(second), [json!(2)]);
    rigs[0].heard(first);
    // A second room waits, and is refused with all who wait for it.
    let other = room_of(&tenant, 0, &room);
    rigs[0].say(first, &join(&other));
    rigs[0].say(second, &join(&other));
    rigs[0].say(first, &publish(&[&other], "3"));
    exchange(&mut rigs);
    for conn in [first, second] {
        let heard = rigs[0].heard(conn);
        let codes: Vec<String> = heard.iter().map(|frame| format!("{frame:?}")).collect();
        assert!(codes.iter().any(|text| text.contains("tenant_limit")), "{codes:?}");
        assert!(codes.iter().all(|text| !text.contains("payload")), "{codes:?}");
    }
    assert_eq!(rigs[0].shard.counters().waiting_joins, 0);
}

#[test]
fn a_verdict_that_comes_late_is_for_the_life_of_the_room_that_it_was_asked_for() {
    let mut rigs = pair(1);
    let tenant = tenant_of(1);
    let conn = enter(&mut rigs[0], &claims(&tenant));
    exchange(&mut rigs);
    let room = room_of(&tenant, 0, "");
    let leave = format!(r#"{{"type":"throng:leave","room":"{room}"}}"#);
    // Joined, left and joined again before the first verdict: two begins, one end.
    rigs[0].say(conn, &join(&room));
    rigs[0].say(conn, &leave);
    rigs[0].settle();
    rigs[0].say(conn, &join(&room));
    rigs[0].settle();
    let asked = std::mem::take(&mut rigs[0].post);
    let kinds: Vec<bool> = asked.iter().map(|(_, mail)| matches!(mail, Mail::Begin(..))).collect();
    assert_eq!(kinds, [true, false, true], "{asked:?}");
    for (_, mail) in asked {
        rigs[1].take(mail);
    }
    rigs[1].settle();
    let mut verdicts = std::mem::take(&mut rigs[1].post).into_iter().map(|(_, mail)| mail);
    rigs[0].take(verdicts.next().expect("the first"));
    rigs[0].settle();
    assert_eq!(rigs[0].told(conn, "throng:reply"), [] as [Value; 0], "of the earlier life");
    rigs[0].take(verdicts.next().expect("the second"));
    rigs[0].settle();
    let replies = rigs[0].told(conn, "throng:reply");
    assert!(replies.iter().all(|reply| reply["ok"] == json!(true)), "{replies:?}");
    assert_eq!(replies.len(), 2, "both joins are answered");
    rigs[0].say(conn, &leave);
    exchange(&mut rigs);
    assert_eq!(sum(&rigs, |c| c.counted_rooms + c.waiting_joins), 0);
}

#[test]
fn where_tenants_have_no_limit_no_mail_is_sent_for_it() {
    let mut rigs = pair(0);
    let tenant = tenant_of(1);
    let conn = enter(&mut rigs[0], &claims(&tenant));
    exchange(&mut rigs);
    rigs[0].say(conn, &join(&room_of(&tenant, 0, "")));
    rigs[0].settle();
    assert!(rigs[0].post.is_empty(), "{:?}", rigs[0].post);
    assert_eq!(rigs[0].told(conn, "throng:reply").len(), 1);
}

#[test]
fn a_room_that_lives_on_in_its_history_counts_until_that_has_ended() {
    for home in [0, 1] {
        let mut rigs = [0, 1].map(|id| {
            let mut settings = limited(1);
            settings.rooms.namespaces = remembering(10).rooms.namespaces;
            Rig::new(id, 2, settings)
        });
        let conn = enter(&mut rigs[0], &claims(&tenant_of(home)));
        rigs[0].say(conn, &publish(&["room 1"], "0"));
        exchange(&mut rigs);
        assert_eq!(sum(&rigs, |c| c.history_rooms), 0, "a publication begins no room that counts");
        assert_eq!(joins(&mut rigs, 0, conn, "room 1"), json!(true));
        rigs[0].say(conn, &publish(&["room 1"], "1"));
        rigs[0].say(conn, r#"{"type":"throng:leave","room":"room 1"}"#);
        exchange(&mut rigs);
        rigs[0].heard(conn);
        assert_eq!(sum(&rigs, |c| c.counted_rooms), 1, "it lives on");
        assert_eq!(joins(&mut rigs, 0, conn, "room 2"), "tenant_limit");
        for _ in 0..70 {
            rigs.iter_mut().for_each(|rig| rig.later(std::time::Duration::from_secs(1)));
            exchange(&mut rigs);
        }
        assert_eq!(sum(&rigs, |c| c.counted_rooms), 0, "until it has aged out");
        // The silent one has been given up meanwhile.
        let conn = enter(&mut rigs[0], &claims(&tenant_of(home)));
        assert_eq!(joins(&mut rigs, 0, conn, "room 2"), json!(true));
    }
}
