//! Publications that are stored first: what waits for what, and what authors and members are told.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::base::counters::Counters;
use crate::base::glob::Glob;
use crate::base::id::{ConnId, NodeTag};
use crate::base::saved::{Save, SavedRoom, SavedRow};
use crate::session::Code;
use crate::shard::inbox::Errands;
use crate::shard::mail::{Mail, Refusal, Saved};
use crate::shard::tests::history::{remembering, texts};
use crate::shard::tests::rig::{Rig, publish, room_of, room_other_than, settings};
use crate::shard::tests::rooms::exchange;
use crate::shard::{Settings, ShelfLimits};

/// With a history of so many publications and a store, for which so many may wait.
pub(super) fn storing(count: u32, waiting: usize) -> Settings {
    let mut settings = remembering(count);
    let patience = Duration::from_secs(5);
    settings.capacity.shelf = Some(ShelfLimits { waiting, patience });
    settings
}

/// A publication that is to be stored.
pub(super) fn persist(room: &str, payload: u64) -> String {
    json!({"type": "t", "room": room, "payload": payload, "persist": true, "ref": payload})
        .to_string()
}

/// What the store is asked to keep, one request.
pub(super) fn save(rig: &mut Rig) -> Save {
    match rig.shard.poll_errand() {
        Some(Errands::Save(save)) => *save,
        other => panic!("{other:?}"),
    }
}

fn asks_nothing(rig: &mut Rig) -> bool {
    rig.shard.poll_errand().is_none()
}

/// The store's answer.
pub(super) fn kept(rig: &mut Rig, save: &Save, kept: bool) {
    let refusal = Refusal { code: Code::Overloaded, message: "broken" };
    let kept = kept.then_some(()).ok_or(refusal);
    rig.take(Mail::Saved(Box::new(Saved { room: save.room.clone(), kept, forgot: None })));
    rig.settle();
}

/// The payloads and offsets of what a client was sent.
fn pushed(rig: &mut Rig, conn: ConnId) -> Vec<(u64, u64)> {
    let texts = texts(rig, conn).into_iter().filter(|text| text["type"] == "t");
    let number = |text: &Value, key: &str| text[key].as_u64().expect("a number");
    texts.map(|text| (number(&text, "payload"), number(&text, "offset"))).collect()
}

#[test]
fn nobody_has_it_before_the_store_and_then_push_and_reply_carry_offset_and_id() {
    let mut rig = Rig::new(0, 1, storing(100, 16));
    let (author, member) = (rig.open(), rig.member("room"));
    texts(&mut rig, member);
    let text =
        json!({"type": "t", "room": "room", "payload": 7, "id": "n-7", "persist": true, "ref": 1});
    rig.say(author, &text.to_string());
    rig.settle();
    assert!(texts(&mut rig, author).is_empty() && texts(&mut rig, member).is_empty());
    let asked = save(&mut rig);
    assert_eq!(
        (&*asked.room, asked.rows.len(), asked.rows[0].offset, asked.reserved),
        ("room", 1, 1, 1)
    );
    kept(&mut rig, &asked, true);
    let push = texts(&mut rig, member).remove(0);
    assert_eq!(
        (&push["offset"], &push["id"], &push["payload"]),
        (&json!(1), &json!("n-7"), &json!(7))
    );
    let epoch = format!("{:x}", asked.epoch);
    let reply = json!({"type": "throng:reply", "ref": 1, "ok": true, "room": "room", "offset": 1,
        "epoch": epoch, "id": "n-7"});
    assert_eq!(texts(&mut rig, author), [reply]);
    assert_eq!(rig.shard.counters().stored_total, 1);
}

#[test]
fn where_nothing_can_be_stored_the_error_names_what_is_missing() {
    let no_store = remembering(10);
    let mut no_history = settings();
    no_history.capacity.shelf = storing(1, 1).capacity.shelf;
    let mut elsewhere = storing(10, 10);
    elsewhere.rooms.shared = vec![Glob::new("*")];
    for (settings, missing) in [
        (no_store, "store.path"),
        (no_history, "namespace.history_count"),
        (elsewhere, "bridge.shared_rooms"),
    ] {
        let mut rig = Rig::new_in(NodeTag(0xabc), 0, 1, settings);
        let author = rig.open();
        rig.say(author, &persist("room", 3));
        rig.settle();
        let error = texts(&mut rig, author).remove(0);
        assert_eq!((&error["code"], &error["ref"]), (&json!("cannot_persist"), &json!(3)));
        assert!(error["message"].as_str().expect("a text").contains(missing), "{error}");
        assert!(asks_nothing(&mut rig));
    }
}

#[test]
fn what_is_published_in_the_room_meanwhile_comes_behind_it_and_other_rooms_do_not_wait() {
    let mut rig = Rig::new(0, 1, storing(100, 16));
    let (author, member) = (rig.open(), rig.member("room"));
    rig.say(member, r#"{"type":"throng:join","room":"room-2"}"#);
    rig.settle();
    texts(&mut rig, member);
    rig.say(author, &persist("room", 1));
    rig.say(author, &publish(&["room"], "2"));
    rig.say(author, &persist("room", 3));
    rig.say(author, &publish(&["room-2"], "9"));
    rig.settle();
    assert_eq!(pushed(&mut rig, member), [(9, 1)], "another room");
    let first = save(&mut rig);
    assert_eq!(first.rows.len(), 1, "the third stands behind the second");
    kept(&mut rig, &first, true);
    assert_eq!(
        pushed(&mut rig, member),
        [(1, 1)],
        "the second needs a number that the store knows of"
    );
    let numbers = save(&mut rig);
    assert!(numbers.rows.is_empty() && numbers.reserved > 2, "{numbers:?}");
    kept(&mut rig, &numbers, true);
    assert_eq!(pushed(&mut rig, member), [(2, 2)]);
    let third = save(&mut rig);
    assert_eq!(third.rows[0].offset, 3);
    kept(&mut rig, &third, true);
    assert_eq!(pushed(&mut rig, member), [(3, 3)]);
    rig.say(author, &publish(&["room"], "4"));
    rig.settle();
    assert_eq!(pushed(&mut rig, member), [(4, 4)], "many numbers are reserved at once");
    assert!(asks_nothing(&mut rig));
}

#[test]
fn what_comes_while_the_store_writes_goes_there_together() {
    let mut rig = Rig::new(0, 1, storing(100, 16));
    let (author, member) = (rig.open(), rig.member("room"));
    for number in 1..=4 {
        rig.say(author, &persist("room", number));
    }
    let first = save(&mut rig);
    assert_eq!(first.rows.len(), 1);
    assert!(asks_nothing(&mut rig), "one request of a room at a time");
    kept(&mut rig, &first, true);
    let second = save(&mut rig);
    assert_eq!(second.rows.iter().map(|row| row.offset).collect::<Vec<_>>(), [2, 3, 4]);
    kept(&mut rig, &second, true);
    assert_eq!(pushed(&mut rig, member), [(1, 1), (2, 2), (3, 3), (4, 4)]);
}

#[test]
fn what_the_store_refuses_has_no_number_and_may_be_sent_again_under_its_id() {
    let mut rig = Rig::new(0, 1, storing(100, 16));
    let (author, member) = (rig.open(), rig.member("room"));
    let named = |reference: u64| {
        json!({"type": "t", "room": "room", "payload": 1, "id": "n", "persist": true, "ref": reference})
            .to_string()
    };
    rig.say(author, &named(1));
    let asked = save(&mut rig);
    kept(&mut rig, &asked, false);
    assert_eq!(texts(&mut rig, author)[0]["code"], "overloaded");
    assert_eq!(rig.shard.counters().stored_refused_total, 1);
    // Two at once: one is stored and the other is its repeat.
    rig.say(author, &persist("room", 7));
    let asked = save(&mut rig);
    rig.say(author, &named(2));
    rig.say(author, &named(3));
    kept(&mut rig, &asked, true);
    let asked = save(&mut rig);
    assert_eq!(asked.rows.len(), 1);
    kept(&mut rig, &asked, true);
    let replies = texts(&mut rig, author);
    assert_eq!((&replies[1]["offset"], &replies[2]["duplicate"]), (&json!(2), &json!(true)));
    rig.say(author, &named(4));
    rig.settle();
    assert_eq!(texts(&mut rig, author)[0]["duplicate"], true);
    assert!(asks_nothing(&mut rig));
    assert_eq!(pushed(&mut rig, member), [(7, 1), (1, 2)]);
}

#[test]
fn a_store_without_space_for_the_request_is_an_error_and_no_wait() {
    let mut rig = Rig::new(0, 1, storing(100, 16));
    let author = rig.open();
    rig.say(author, &persist("room", 1));
    let asked = save(&mut rig);
    let now = rig.now;
    rig.shard.handle_given_back(Errands::Save(Box::new(asked)), now);
    rig.settle();
    assert_eq!(texts(&mut rig, author)[0]["code"], "overloaded");
    assert_eq!(rig.shard.counters().home_rooms, 0, "of the room nothing is left");
    rig.say(author, &persist("room", 2));
    assert_eq!(save(&mut rig).rows[0].offset, 1);
}

#[test]
fn an_author_is_told_after_a_while_that_nobody_knows_and_it_is_published_all_the_same() {
    let mut rig = Rig::new(0, 1, storing(100, 16));
    let (author, member) = (rig.open(), rig.member("room"));
    rig.say(author, &persist("room", 1));
    rig.say(author, &persist("room", 2));
    rig.say(author, &publish(&["room"], "3"));
    rig.settle();
    let asked = save(&mut rig);
    rig.later(Duration::from_millis(5100));
    rig.settle();
    let errors = texts(&mut rig, author);
    let codes: Vec<(&Value, &Value)> = errors.iter().map(|e| (&e["ref"], &e["code"])).collect();
    // The second one never got to the store.
    assert_eq!(codes, [(&json!(1), &json!("unconfirmed")), (&json!(2), &json!("overloaded"))]);
    kept(&mut rig, &asked, true);
    let asked = save(&mut rig);
    kept(&mut rig, &asked, true);
    assert_eq!(pushed(&mut rig, member), [(1, 1), (3, 2)]);
    assert!(texts(&mut rig, author).is_empty(), "an author is answered once");
    assert!(rig.shard.rooms.shelf.due().is_none(), "nobody waits");
}

#[test]
fn what_waits_is_bounded_and_what_is_lost_is_told_to_members_in_every_shard() {
    let mut rigs = [0, 1].map(|id| Rig::new(id, 2, storing(100, 2)));
    let room = room_of(0, 2);
    let members = [0, 1].map(|at: usize| rigs[at].member(&room));
    exchange(&mut rigs);
    for at in 0..2 {
        texts(&mut rigs[at], members[at]);
    }
    let author = rigs[1].open();
    rigs[1].say(author, &persist(&room, 1));
    exchange(&mut rigs);
    let asked = save(&mut rigs[0]);
    for number in 2..=4 {
        rigs[1].say(author, &persist(&room, number));
    }
    for number in 5..=9 {
        rigs[1].say(author, &publish(&[&room], &number.to_string()));
    }
    exchange(&mut rigs);
    let told = texts(&mut rigs[1], author);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((&told[0]["ref"], &told[0]["code"]), (&json!(4), &json!("overloaded")));
    let gap = json!({"type": "throng:gap", "room": room, "lost": null});
    for at in 0..2 {
        assert_eq!(texts(&mut rigs[at], members[at]), [gap.clone(), gap.clone(), gap.clone()]);
    }
    let counters = rigs[0].shard.counters();
    assert_eq!((counters.unstored_dropped_total, counters.waiting_to_be_stored), (3, 4));
    assert!(counters.charged_bytes > 0);
    kept(&mut rigs[0], &asked, true);
    for _ in 0..2 {
        let asked = save(&mut rigs[0]);
        kept(&mut rigs[0], &asked, true);
    }
    exchange(&mut rigs);
    for at in 0..2 {
        let heard = pushed(&mut rigs[at], members[at]);
        assert_eq!(heard, [(1, 1), (2, 2), (3, 3), (5, 4), (6, 5)]);
    }
    assert_eq!(texts(&mut rigs[1], author).len(), 3, "the author is told of three");
    assert_eq!(rigs[0].shard.counters().waiting_to_be_stored, 0);
}

#[test]
fn what_is_for_several_rooms_of_which_one_waits_comes_once_and_in_turn_in_each() {
    let mut rigs = [0, 1].map(|id| Rig::new(id, 2, storing(100, 16)));
    let (room, other) = (room_of(0, 2), room_of(1, 2));
    let near = room_other_than(&room, 0, 2);
    let member = rigs[1].open();
    for name in [&room, &other, &near] {
        rigs[1].say(member, &json!({"type": "throng:join", "room": name}).to_string());
        exchange(&mut rigs);
    }
    texts(&mut rigs[1], member);
    let author = rigs[0].open();
    rigs[0].say(author, &persist(&room, 1));
    rigs[0].say(author, &publish(&[&room, &other, &near], "2"));
    rigs[0].say(author, &publish(&[&near], "3"));
    exchange(&mut rigs);
    let early: Vec<u64> =
        pushed(&mut rigs[1], member).into_iter().map(|(payload, _)| payload).collect();
    assert_eq!(early, [2], "by the home that waits for nothing");
    let asked = save(&mut rigs[0]);
    kept(&mut rigs[0], &asked, true);
    let asked = save(&mut rigs[0]);
    assert!(asked.rows.is_empty(), "a number for the second");
    kept(&mut rigs[0], &asked, true);
    exchange(&mut rigs);
    let late: Vec<u64> =
        pushed(&mut rigs[1], member).into_iter().map(|(payload, _)| payload).collect();
    assert_eq!(late, [1, 3], "the second is not sent twice");
    assert!(asks_nothing(&mut rigs[0]));
}

#[test]
fn the_store_forgets_a_room_that_has_ended() {
    let mut rig = Rig::new(0, 1, storing(100, 16));
    let author = rig.open();
    rig.say(author, &persist("room", 1));
    let asked = save(&mut rig);
    kept(&mut rig, &asked, true);
    assert_eq!(rig.shard.counters().home_rooms, 1);
    rig.later(Duration::from_secs(120));
    rig.settle();
    assert_eq!(rig.shard.counters().home_rooms, 0);
    let forget = |rig: &mut Rig| match rig.shard.poll_errand() {
        Some(Errands::Forget(room, epoch)) => (room, epoch),
        other => panic!("{other:?}"),
    };
    rig.turn();
    let (room, epoch) = forget(&mut rig);
    assert_eq!((&*room, epoch), ("room", asked.epoch));
    let now = rig.now;
    rig.shard.handle_given_back(Errands::Forget(room, epoch), now);
    rig.turn();
    assert_eq!(forget(&mut rig).1, epoch, "until the store has space for it");
    assert!(asks_nothing(&mut rig));
}

#[test]
fn a_new_life_of_a_room_is_not_heard_of_before_the_store_cannot_bring_the_old_one_back() {
    let mut rig = Rig::new(0, 1, storing(100, 16));
    let mut author = rig.open();
    rig.say(author, &persist("room", 1));
    let asked = save(&mut rig);
    kept(&mut rig, &asked, true);
    rig.later(Duration::from_secs(120));
    rig.settle();
    assert_eq!(rig.shard.counters().home_rooms, 0, "it has ended");
    rig.turn();
    let Some(Errands::Forget(room, epoch)) = rig.shard.poll_errand() else { panic!("it is asked") };
    assert_eq!(epoch, asked.epoch);
    // Who was there has been silent for too long meanwhile.
    author = rig.open();
    // The store has not answered: killed now, it would have the first life.
    let member = rig.member("room");
    texts(&mut rig, member);
    rig.say(author, &publish(&["room"], "2"));
    rig.settle();
    assert!(pushed(&mut rig, member).is_empty(), "nobody has it yet");
    let reserves = save(&mut rig);
    assert!(reserves.rows.is_empty() && reserves.reserved > 0 && reserves.epoch != epoch);
    kept(&mut rig, &reserves, true);
    assert_eq!(pushed(&mut rig, member), [(2, 1)]);
    // Another one that was forgotten by then begins as any other.
    rig.say(author, &persist("room-2", 3));
    let asked = save(&mut rig);
    kept(&mut rig, &asked, true);
    rig.later(Duration::from_secs(120));
    rig.settle();
    rig.turn();
    let forgot = loop {
        match rig.shard.poll_errand() {
            Some(Errands::Forget(name, epoch)) if &*name == "room-2" => break epoch,
            Some(_) => {}
            None => panic!("it is asked to forget the other one"),
        }
    };
    for (name, forgot) in [(room, epoch), (Arc::from("room-2"), forgot)] {
        let saved = Saved { room: name, kept: Ok(()), forgot: Some(forgot) };
        rig.take(Mail::Saved(Box::new(saved)));
    }
    author = rig.open();
    let member = rig.member("room-2");
    texts(&mut rig, member);
    rig.say(author, &publish(&["room-2"], "4"));
    rig.settle();
    assert_eq!(pushed(&mut rig, member), [(4, 1)]);
    assert!(asks_nothing(&mut rig), "the store has nothing of it");
}

#[test]
fn a_tenants_room_that_was_stored_counts_for_the_tenant_until_it_ends() {
    let mut settings = storing(100, 16);
    settings.limits.tenant.rooms = 5;
    let row = |payload: u64| SavedRow {
        offset: payload,
        at: 60_000,
        bytes: format!(r#"{{"t":"t","p":[{payload}]}}"#).as_bytes().into(),
    };
    let name: Arc<str> = crate::auth::room(Some("acme"), "room").into();
    let rooms =
        [SavedRoom { room: name, epoch: 3, reserved: 2, dropped: 0, rows: vec![row(1), row(2)] }];
    let mut rigs = [0, 1].map(|id| Rig::new(id, 2, settings.clone()));
    for rig in &mut rigs {
        let now = rig.now;
        rig.shard.recall_rooms(&rooms, now);
    }
    exchange(&mut rigs);
    let sum = |rigs: &[Rig; 2], of: fn(&Counters) -> u64| {
        rigs.iter().map(|rig| of(&rig.shard.counters())).sum::<u64>()
    };
    assert_eq!((sum(&rigs, |c| c.home_rooms), sum(&rigs, |c| c.counted_rooms)), (1, 1));
    for rig in &mut rigs {
        rig.later(Duration::from_secs(120));
    }
    exchange(&mut rigs);
    assert_eq!((sum(&rigs, |c| c.home_rooms), sum(&rigs, |c| c.counted_rooms)), (0, 0));
}
