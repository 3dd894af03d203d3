//! The end of a token: a fresh one in time, 4401, revocation, and keys that change meanwhile.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::auth::{KeySet, Revocation, Source};
use crate::base::id::ConnId;
use crate::base::map::Seed;
use crate::shard::Mail;
use crate::shard::tests::guard::{
    ada, answer, ask, bearer, by_header, enter, guarded, join, keys, knock, login, token,
};
use crate::shard::tests::rig::{Heard, Rig, frame};

/// Lets so many seconds pass for a client that answers pings; what it hears but for those.
fn pass(rig: &mut Rig, conn: ConnId, seconds: u64) -> Vec<Heard> {
    let mut heard = Vec::new();
    for _ in 0..seconds {
        rig.later(Duration::from_secs(1));
        rig.receive(conn, &frame(0x8a, b""));
        rig.settle();
        rig.settle();
        heard.extend(rig.heard(conn));
    }
    heard.retain(|frame| *frame != Heard::Ping);
    heard
}

#[test]
fn a_token_that_ends_is_asked_after_and_closes_with_4401() {
    let mut rig = by_header();
    let conn = enter(&mut rig, &json!({"sub": "ada", "exp": 100}));
    rig.later(Duration::from_secs(29));
    rig.settle();
    assert_eq!(rig.told(conn, "throng:reauth"), [] as [Value; 0]);
    rig.later(Duration::from_millis(1100));
    rig.settle();
    let asked = rig.told(conn, "throng:reauth");
    assert_eq!(asked.len(), 1);
    assert!(asked[0]["inMs"].as_u64().is_some_and(|left| left <= 10_000), "{asked:?}");
    assert_eq!(pass(&mut rig, conn, 9), []);
    assert!(pass(&mut rig, conn, 2).contains(&Heard::Close(4401)));
    assert_eq!(rig.shard.counters().expired_total, 1);
}

/// The leeway is for the clocks of issuers: it makes the close later, and the question no later.
#[test]
fn with_a_leeway_the_question_comes_before_the_end_of_the_token_and_the_close_behind_both() {
    let lenient = |before: u64| {
        let settings = guarded(&[Source::Header], |access| {
            access.verifier.rules.leeway = 30;
            access.reauth_before = Duration::from_secs(before);
        });
        Rig::new(0, 1, settings)
    };
    let mut rig = lenient(10);
    let conn = enter(&mut rig, &json!({"sub": "ada", "exp": 100}));
    assert_eq!(pass(&mut rig, conn, 29), []);
    let asked = pass(&mut rig, conn, 2);
    let [Heard::Text(asked)] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!(asked["type"], "throng:reauth");
    let left = asked["inMs"].as_u64().expect("a number");
    assert!((39_000..=40_000).contains(&left), "until the close: {left}");
    assert_eq!(pass(&mut rig, conn, 38), [], "asked once, and not closed before its time");
    assert!(pass(&mut rig, conn, 2).contains(&Heard::Close(4401)));
    // Who comes with a token that lives by the leeway alone is asked at once.
    let late = knock(&mut rig, "/ws", &bearer(&json!({"sub": "ada", "exp": 110})));
    let (_, frames) = answer(&mut rig, late);
    let [Heard::Text(hello), Heard::Text(asked)] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!(
        (&hello["type"], &asked["type"]),
        (&json!("throng:connected"), &json!("throng:reauth"))
    );
    // Where nobody is to be asked, the end of the token is no reason either.
    let mut rig = lenient(0);
    let conn = enter(&mut rig, &json!({"sub": "ada", "exp": 100}));
    assert_eq!(pass(&mut rig, conn, 69), []);
    assert_eq!(pass(&mut rig, conn, 2), [Heard::Close(4401)]);
}

#[test]
fn a_fresh_token_of_the_same_user_keeps_the_connection_and_another_users_does_not() {
    let mut rig = by_header();
    let conn = enter(&mut rig, &json!({"sub": "ada", "tenant": "t", "exp": 100, "rooms": ["a"]}));
    rig.later(Duration::from_secs(31));
    rig.settle();
    assert_eq!(rig.told(conn, "throng:reauth").len(), 1);
    for other in [
        json!({"sub": "bob", "tenant": "t", "exp": 200}),
        json!({"sub": "ada", "tenant": "u", "exp": 200}),
        json!({"sub": "ada", "exp": 200}),
        json!({"sub": "ada", "tenant": "t", "exp": 80}),
    ] {
        let error = ask(&mut rig, conn, &login(&other));
        assert_eq!((&error["code"], &error["ref"]), (&json!("unauthorized"), &json!(9)));
    }
    let fresh = json!({"sub": "ada", "tenant": "t", "exp": 200, "rooms": ["z"]});
    let reply = ask(&mut rig, conn, &login(&fresh));
    assert_eq!((&reply["userId"], &reply["expiresAt"]), (&json!("ada"), &json!(200)));
    assert_eq!(ask(&mut rig, conn, &join("a"))["code"], "forbidden", "the new grants hold");
    assert_eq!(ask(&mut rig, conn, &join("z"))["ok"], json!(true));
    assert!(!pass(&mut rig, conn, 108).contains(&Heard::Close(4401)));
    assert_eq!(rig.told(conn, "throng:reauth"), [] as [Value; 0], "told on the way");
    assert!(pass(&mut rig, conn, 2).contains(&Heard::Close(4401)));
    assert_eq!(rig.shard.counters().reauths_total, 1);
}

#[test]
fn a_revoked_user_is_closed_on_every_connection_and_comes_back_only_with_a_later_token() {
    let mut rig = by_header();
    let old = json!({"sub": "ada", "iat": 50, "exp": 5000});
    let new = json!({"sub": "ada", "iat": 52, "exp": 5000});
    let taken = [enter(&mut rig, &old), enter(&mut rig, &old)];
    let kept = [enter(&mut rig, &new), enter(&mut rig, &json!({"sub": "bob", "exp": 5000}))];
    let revocation = Revocation::User { tenant: None, user: "ada".into(), issued: 51, until: 6000 };
    rig.take(Mail::Revoke(Arc::new(revocation)));
    rig.settle();
    for conn in taken {
        assert_eq!(rig.heard(conn), [Heard::Close(1008)]);
    }
    for conn in kept {
        assert_eq!(rig.heard(conn), []);
    }
    let conn = knock(&mut rig, "/ws", &bearer(&old));
    assert!(answer(&mut rig, conn).0.starts_with("HTTP/1.1 401 "));
    enter(&mut rig, &new);
    let counters = rig.shard.counters();
    assert_eq!((counters.revoked_total, counters.auth_revoked_total), (2, 1));
    assert_eq!(counters.revocations, 1);
}

/// The set never forgets one to make space for another: what was refused before stays refused.
#[test]
fn a_revocation_too_many_still_closes_is_counted_and_displaces_no_other() {
    let settings = guarded(&[Source::Header], |access| access.max_revocations = 1);
    let mut rig = Rig::new(0, 1, settings);
    let of = |user: &str, issued: u64| json!({"sub": user, "iat": issued, "exp": 5000});
    let [ada, bob] = ["ada", "bob"].map(|user| enter(&mut rig, &of(user, 50)));
    let revoke = |rig: &mut Rig, user: &str, issued: u64, until: u64| {
        let revocation = Revocation::User { tenant: None, user: user.into(), issued, until };
        rig.take(Mail::Revoke(Arc::new(revocation)));
        rig.settle();
    };
    revoke(&mut rig, "ada", 51, 200);
    assert_eq!((rig.heard(ada), rig.heard(bob)), (vec![Heard::Close(1008)], vec![]));
    assert_eq!(rig.shard.counters().revocations_lost_total, 0);
    revoke(&mut rig, "bob", 51, 6000);
    assert_eq!(rig.heard(bob), [Heard::Close(1008)], "one that is not remembered still closes");
    let counters = rig.shard.counters();
    assert_eq!((counters.revoked_total, counters.revocations_lost_total), (2, 1));
    assert_eq!(counters.revocations, 1);
    let status = |rig: &mut Rig, user: &str, issued: u64| {
        let conn = knock(rig, "/ws", &bearer(&of(user, issued)));
        answer(rig, conn).0[9..12].to_owned()
    };
    assert_eq!(status(&mut rig, "ada", 50), "401", "the first is remembered");
    assert_eq!(status(&mut rig, "bob", 50), "101", "the second is not");
    // More of the same needs no more space, and what has ended makes some.
    revoke(&mut rig, "ada", 55, 200);
    assert_eq!(status(&mut rig, "ada", 54), "401");
    rig.later(Duration::from_secs(150));
    revoke(&mut rig, "bob", 51, 6000);
    assert_eq!(status(&mut rig, "bob", 50), "401");
    let counters = rig.shard.counters();
    assert_eq!((counters.revocations, counters.revocations_lost_total), (1, 1));
}

#[test]
fn a_revoked_token_is_found_among_thousands_in_slices() {
    let mut settings = guarded(&[Source::Header], |_| {});
    settings.capacity.connections = 5000;
    let mut rig = Rig::new(0, 1, settings);
    let of = |number: u32| json!({"sub": format!("u{number}"), "jti": format!("j{number}"), "exp": 5000});
    let clients: Vec<ConnId> = (0..3).map(|number| enter(&mut rig, &of(number))).collect();
    pass_through(&mut rig, 2100);
    let revocation = Revocation::Token { id: "j2".into(), until: 6000 };
    rig.take(Mail::Revoke(Arc::new(revocation)));
    assert_eq!(rig.shard.poll_timeout(rig.now), Some(Duration::ZERO), "there is more to do");
    rig.settle();
    rig.settle();
    assert_eq!(rig.heard(clients[2]), [Heard::Close(1008)]);
    assert_eq!(rig.heard(clients[0]), []);
    let conn = knock(&mut rig, "/ws", &bearer(&of(2)));
    assert!(answer(&mut rig, conn).0.starts_with("HTTP/1.1 401 "));
    assert_ne!(rig.shard.poll_timeout(rig.now), Some(Duration::ZERO));
}

/// Though others are taken back in every turn: whoever looks for the newest first never comes to the oldest.
#[test]
fn a_revoked_token_is_found_in_a_round_however_many_others_are_revoked_meanwhile() {
    let mut settings = guarded(&[Source::Header], |_| {});
    settings.capacity.connections = 9000;
    let mut rig = Rig::new(0, 1, settings);
    let of = |number: u32| json!({"sub": format!("u{number}"), "jti": format!("j{number}"), "exp": 5000});
    let stays = enter(&mut rig, &of(0));
    let conn = enter(&mut rig, &of(7));
    pass_through(&mut rig, 8000);
    let revoke = |rig: &mut Rig, id: String| {
        let revocation = Revocation::Token { id: id.into(), until: 6000 };
        rig.take(Mail::Revoke(Arc::new(revocation)));
    };
    // The search has just been where the connection is.
    revoke(&mut rig, "other".to_owned());
    rig.turn();
    revoke(&mut rig, "j7".to_owned());
    for other in 0..8000_usize.div_ceil(1024) {
        assert_eq!(rig.shard.counters.revoked_total, 0);
        revoke(&mut rig, format!("other{other}"));
        rig.turn();
    }
    assert_eq!(rig.shard.counters.revoked_total, 1);
    rig.settle();
    assert_eq!(rig.heard(conn), [Heard::Close(1008)]);
    assert_eq!(rig.heard(stays), []);
    for _ in 0..9 {
        rig.turn();
    }
    assert_ne!(rig.shard.poll_timeout(rig.now), Some(Duration::ZERO), "the search has an end");
}

/// So many come and go, so that as many places have to be looked at.
fn pass_through(rig: &mut Rig, places: u32) {
    let who = identity(&json!({"sub": "passing", "exp": 5000}));
    let people = &mut rig.shard.gate.people;
    for index in 100..places {
        people.settle(index, who.clone(), "".into(), &Seed::new(1));
        people.leave(index);
    }
    assert_eq!(people.bound(), places as usize);
}

fn identity(claims: &Value) -> crate::auth::Identity {
    let mut verifier = crate::auth::Verifier { keys: keys(), ..Default::default() };
    verifier.rules.leeway = 0;
    verifier.verify(&token(claims), 60).expect("in order")
}

#[test]
fn keys_that_are_fetched_stand_beside_those_of_the_configuration_also_after_a_reload() {
    let mut settings =
        guarded(&[Source::Header], |access| access.verifier.keys = KeySet::default());
    settings.own_keys = KeySet::default();
    let mut rig = Rig::new(0, 1, settings.clone());
    let status = |rig: &mut Rig| {
        let conn = knock(rig, "/ws", &bearer(&ada()));
        answer(rig, conn).0[9..12].to_owned()
    };
    assert_eq!(status(&mut rig), "401");
    rig.take(Mail::Keys(Arc::new(keys())));
    assert_eq!(status(&mut rig), "101");
    rig.take(Mail::Settings(Arc::new(settings)));
    assert_eq!(status(&mut rig), "101");
    rig.take(Mail::Keys(Arc::new(KeySet::default())));
    assert_eq!(status(&mut rig), "401");
}
