//! What is remembered of what became of publications, and what is told of it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::auth::{Access, Source};
use crate::base::fate::{Account, Destiny, Fate};
use crate::base::id::ConnId;
use crate::base::map::Seed;
use crate::base::shared::{Overflow, Shared, Trace};
use crate::base::time::Time;
use crate::contract::SendBatch;
use crate::shard::outcomes::{Note, Outcomes};
use crate::shard::tests::guard::{enter, guarded};
use crate::shard::tests::rig::{Rig, publish, settings};
use crate::shard::{Attendance, Explain, Inquire, Inspect, Mail, Recipient, Settings};

/// Turns until it is told what became of a publication in the room `r`.
fn ask(rig: &mut Rig, offset: u64, of: Recipient) -> Account {
    let explain = Inspect::Explain(Explain { room: "r".into(), offset, of });
    rig.take(Mail::Inquire(7, Arc::new(Inquire::Inspect(Arc::new(explain)))));
    for _ in 0..100 {
        rig.shard.handle_timeout(rig.now);
        rig.shard.check();
        let mut found = None;
        rig.shard.poll_replies(&mut |reply| {
            if let Attendance::Inspected(inspected) = reply.found {
                found = inspected.account;
            }
            Ok(())
        });
        if let Some(account) = found {
            return *account;
        }
    }
    panic!("no answer");
}

fn of(rig: &Rig, conn: ConnId) -> Recipient {
    Recipient::Connection(rig.address(conn), None)
}

/// What became of a publication for a connection.
pub(super) fn fate(rig: &mut Rig, offset: u64, conn: ConnId) -> Option<Fate> {
    let of = of(rig, conn);
    let account = ask(rig, offset, of);
    assert!(account.is_on && account.arrived.is_some(), "{account:?}");
    let [one] = &account.connections[..] else { panic!("{account:?}") };
    one.fate.map(|(fate, _)| fate)
}

fn filler(bytes: usize) -> String {
    format!("\"{}\"", "x".repeat(bytes))
}

fn with_policy(overflow: Overflow) -> Rig {
    let mut settings = settings();
    settings.rooms.overflow = overflow;
    Rig::new(0, 1, settings)
}

#[test]
fn a_publication_is_queued_then_in_a_write_and_then_written() {
    let mut rig = Rig::alone();
    let (reader, author) = (rig.member("r"), rig.open());
    rig.stalled.insert(reader);
    rig.say(author, &publish(&["r"], "1"));
    assert_eq!(fate(&mut rig, 1, reader), Some(Fate::Queued), "gathered in this turn");
    rig.turn();
    assert_eq!(fate(&mut rig, 1, reader), Some(Fate::Writing));
    rig.say(author, &publish(&["r"], "2"));
    rig.turn();
    assert_eq!(fate(&mut rig, 2, reader), Some(Fate::Queued), "behind the write");
    assert_eq!(fate(&mut rig, 1, reader), Some(Fate::Writing));
    rig.stalled.clear();
    rig.settle();
    assert_eq!([1, 2].map(|at| fate(&mut rig, at, reader)), [Some(Fate::Written); 2]);
    let of = of(&rig, author);
    let account = ask(&mut rig, 1, of);
    assert_eq!(account.connections[0].fate, None, "the author is no member");
    assert_eq!(account.position.map(|position| position.offset), Some(2));
    assert!(account.numbered.is_some() && account.since <= 60_000, "{account:?}");
}

#[test]
fn each_of_a_bundle_is_written() {
    let mut rig = Rig::alone();
    let (reader, author) = (rig.member("r"), rig.open());
    rig.heard(reader);
    (1..=5).for_each(|at| rig.say(author, &publish(&["r"], &at.to_string())));
    rig.turn();
    assert_eq!(rig.writes(reader), [5]);
    rig.settle();
    for at in 1..=5 {
        assert_eq!(fate(&mut rig, at, reader), Some(Fate::Written), "{at}");
    }
    let of = of(&rig, reader);
    let beyond = ask(&mut rig, 6, of);
    assert_eq!((beyond.arrived, beyond.connections[0].fate), (None, None));
}

#[test]
fn what_a_slow_reader_loses_is_told_with_the_policy() {
    for (policy, lost) in [(Overflow::DropOldest, 2), (Overflow::DropNew, 4)] {
        let mut rig = with_policy(policy);
        let (reader, author) = (rig.member("r"), rig.open());
        rig.stalled.insert(reader);
        for _ in 1..=4 {
            rig.say(author, &publish(&["r"], &filler(900)));
            rig.turn();
        }
        assert_eq!(fate(&mut rig, 1, reader), Some(Fate::Writing), "in flight, and kept");
        assert_eq!(fate(&mut rig, lost, reader), Some(Fate::Dropped(policy)));
        rig.stalled.clear();
        rig.settle();
        let written = (1..=4).filter(|at| fate(&mut rig, *at, reader) == Some(Fate::Written));
        assert_eq!(
            written.collect::<Vec<_>>(),
            (1..=4).filter(|at| *at != lost).collect::<Vec<_>>()
        );
    }
    let mut rig = with_policy(Overflow::Disconnect);
    let (reader, author) = (rig.member("r"), rig.open());
    rig.stalled.insert(reader);
    for _ in 1..=4 {
        rig.say(author, &publish(&["r"], &filler(900)));
        rig.turn();
    }
    rig.confirms = false;
    assert_eq!(fate(&mut rig, 2, reader), Some(Fate::Lost), "with the queue");
    assert_eq!(fate(&mut rig, 4, reader), Some(Fate::TooSlow));
}

#[test]
fn what_a_newer_one_replaces_is_told() {
    let mut rig = with_policy(Overflow::Conflate);
    let (reader, author) = (rig.member("r"), rig.open());
    rig.stalled.insert(reader);
    let keyed = |bytes| {
        let payload = filler(bytes);
        format!(r#"{{"type":"t","room":"r","key":"k","payload":{payload}}}"#)
    };
    for bytes in [900, 1500, 100] {
        rig.say(author, &keyed(bytes));
        rig.turn();
    }
    assert_eq!(fate(&mut rig, 2, reader), Some(Fate::Replaced));
    assert_eq!(fate(&mut rig, 3, reader), Some(Fate::Queued));
}

#[test]
fn exceptions_and_other_targets_are_told_apart_from_not_being_meant() {
    let mut rig = Rig::alone();
    let (reader, other, author) = (rig.member("r"), rig.member("r"), rig.open());
    rig.say(reader, r#"{"type":"throng:join","room":"s"}"#);
    rig.settle();
    let except = rig.address(other);
    rig.say(author, &format!(r#"{{"type":"t","rooms":["s","r"],"except":["{except}"]}}"#));
    rig.settle();
    assert_eq!(fate(&mut rig, 1, reader), Some(Fate::Twice), "it got that of the room s");
    assert_eq!(fate(&mut rig, 1, other), Some(Fate::Excepted));
    assert_eq!(fate(&mut rig, 1, author), None);
}

fn of_users() -> Settings {
    let keep = |access: &mut Access| access.verifier.rules.metadata_bytes = 16;
    guarded(&[Source::Header], keep)
}

#[test]
fn a_user_is_told_of_with_connections_that_have_ended() {
    let mut rig = Rig::new(0, 1, of_users());
    let claims =
        |user: &str| json!({"sub": user, "exp": 5000, "rooms": {"*": ["join", "publish"]}});
    let [gone, here, other] = ["ada", "ada", "eve"].map(|user| enter(&mut rig, &claims(user)));
    for conn in [gone, here, other] {
        rig.say(conn, r#"{"type":"throng:join","room":"r"}"#);
    }
    rig.settle();
    rig.say(other, &publish(&["r"], "1"));
    rig.settle();
    rig.later(Duration::from_secs(2));
    rig.stalled.insert(gone);
    rig.say(other, &publish(&["r"], "2"));
    rig.turn();
    rig.say(other, &publish(&["r"], "3"));
    rig.turn();
    rig.event(crate::contract::Event::Lost {
        conn: gone,
        error: std::io::Error::from(std::io::ErrorKind::ConnectionReset),
    });
    rig.settle();
    rig.turn();
    // Its place is taken by somebody else, who has nothing of it.
    let newcomer = enter(&mut rig, &claims("bob"));
    assert_eq!(newcomer.index, gone.index);
    let ada = || Recipient::User(crate::auth::user_room(None, "ada").into());
    let fates = |account: &Account| -> Vec<(ConnId, bool, Option<Fate>)> {
        let told =
            |one: &Destiny| (one.conn.conn, one.ended.is_some(), one.fate.map(|fate| fate.0));
        account.connections.iter().map(told).collect()
    };
    let mut seen = Vec::new();
    for offset in 1..=3 {
        let account = ask(&mut rig, offset, ada());
        let mut fates = fates(&account);
        fates.sort_unstable_by_key(|one| one.0 != gone);
        assert_eq!(fates[1], (here, false, Some(Fate::Written)));
        assert_eq!((fates.len(), fates[0].0, fates[0].1), (2, gone, true));
        seen.push(fates[0].2);
        let ended = account.connections.iter().find_map(|one| one.ended).expect("an end");
        let begun = account.connections.iter().find(|one| one.ended.is_some()).expect("it").begun;
        assert!(begun < ended && (61_900..=62_100).contains(&ended), "{account:?}");
    }
    assert_eq!(seen, [Some(Fate::Written), Some(Fate::CutOff), Some(Fate::Lost)]);
}

#[test]
fn what_was_written_over_is_not_remembered_and_never_guessed() {
    let mut rig = Rig::alone();
    let (reader, author) = (rig.member("r"), rig.open());
    for at in 1..=300 {
        rig.say(author, &publish(&["r"], &at.to_string()));
        rig.settle();
        rig.heard(reader);
        rig.later(Duration::from_millis(1));
    }
    let of = of(&rig, reader);
    let account = ask(&mut rig, 1, of.clone());
    assert_eq!(
        (account.numbered, account.arrived, account.connections[0].fate),
        (None, None, None)
    );
    assert!(account.since > 60_000 + 200, "the newest 256 places: {account:?}");
    assert_eq!(ask(&mut rig, 300, of).connections[0].fate.map(|fate| fate.0), Some(Fate::Written));
}

#[test]
fn a_room_that_begins_anew_is_not_taken_for_its_earlier_life() {
    let mut rig = Rig::alone();
    let (reader, author) = (rig.member("r"), rig.open());
    rig.say(author, &publish(&["r"], "1"));
    rig.settle();
    rig.say(reader, r#"{"type":"throng:leave","room":"r"}"#);
    rig.settle();
    let other = rig.member("r");
    rig.say(author, &publish(&["r"], "1"));
    rig.settle();
    assert_eq!(fate(&mut rig, 1, other), Some(Fate::Written));
    assert_eq!(fate(&mut rig, 1, reader), None);
}

#[test]
fn nothing_is_noted_while_it_is_off_and_it_can_be_turned_on_and_off() {
    let mut off = settings();
    off.capacity.outcomes = 0;
    let mut rig = Rig::new(0, 1, off.clone());
    let (reader, author) = (rig.member("r"), rig.open());
    rig.stalled.insert(reader);
    rig.say(author, &publish(&["r"], "1"));
    rig.turn();
    assert_eq!(rig.shard.measures.outcomes.end(), 0);
    let of = of(&rig, reader);
    assert_eq!(ask(&mut rig, 1, of.clone()), Account::default());
    rig.take(Mail::Settings(Arc::new(settings())));
    rig.say(author, &publish(&["r"], "2"));
    rig.stalled.clear();
    rig.settle();
    assert_eq!(fate(&mut rig, 2, reader), Some(Fate::Written));
    let before = ask(&mut rig, 1, of.clone());
    assert!(before.is_on && before.arrived.is_none(), "{before:?}");
    rig.take(Mail::Settings(Arc::new(off)));
    assert_eq!(ask(&mut rig, 2, of), Account::default());
}

#[test]
fn the_ring_remembers_the_newest_and_finds_what_a_write_carried() {
    let seed = Seed::new(3);
    let mut ring = Outcomes::default();
    ring.resize(8, Time::ZERO);
    let conn = |index| ConnId { index, generation: 1 };
    let trace = |offset| ring_trace(&seed, offset);
    let mut batch = SendBatch::new();
    for offset in 1..=3 {
        batch.push(Shared::common(Arc::from(&b"x"[..])).traced(trace(offset)));
        batch.push(Shared::kept(vec![1]));
    }
    ring.hand_over(conn(1), &mut batch);
    assert_eq!(ring.end(), 3, "what carries no trace takes no place");
    let written = |ring: &Outcomes| {
        let places = (ring.oldest()..ring.end()).filter_map(|number| ring.get(number));
        places.filter(|place| place.note == Note::Fate(Fate::Written)).count()
    };
    for offset in 4..=9 {
        ring.note(trace(offset), 1, conn(2), Note::Fate(Fate::Excepted));
    }
    assert_eq!((ring.oldest(), ring.end()), (1, 9));
    ring.written(conn(1), batch.tag);
    assert_eq!(written(&ring), 2, "the first is written over");
    ring.written(conn(2), batch.tag);
    assert_eq!(written(&ring), 2, "of nobody else");
}

fn ring_trace(seed: &Seed, offset: u64) -> Trace {
    Trace { room: crate::shard::outcomes::name(seed, "r"), offset }
}
