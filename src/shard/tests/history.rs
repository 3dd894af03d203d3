//! History and resume over one shard and two: what a client sees, and in which order.

use std::time::Duration;

use serde_json::{Value, json};

use crate::base::glob::Glob;
use crate::base::id::ConnId;
use crate::base::shared::Overflow;
use crate::hub::HistoryLimits;
use crate::shard::tests::rig::{Heard, Rig, publish, room_of, settings};
use crate::shard::tests::rooms::exchange;
use crate::shard::{NamespaceRules, RoomMemory, Settings};

/// A history of so many publications in rooms that begin with `room`, and identifiers for ten seconds.
pub(super) fn remembering(count: u32) -> Settings {
    let mut settings = settings();
    settings.rooms.namespaces = vec![NamespaceRules {
        pattern: Glob::new("room*"),
        overflow: Overflow::DropOldest,
        join: None,
        publish: None,
        origins: None,
        memory: RoomMemory {
            history: Some(HistoryLimits { count, bytes: 1 << 20, age: Duration::from_secs(60) }),
            repeats: Duration::from_secs(10),
            ..RoomMemory::default()
        },
        queued: 0,
        write_delay: Duration::ZERO,
        payload: 0,
    }];
    settings
}

/// What a client hears, as values.
pub(super) fn texts(rig: &mut Rig, conn: ConnId) -> Vec<Value> {
    let heard = rig.heard(conn).into_iter();
    let text = |frame| match frame {
        Heard::Text(text) => Some(text),
        _ => None,
    };
    heard.filter_map(text).collect()
}

fn offsets(texts: &[Value]) -> Vec<u64> {
    let pushes = texts.iter().filter(|text| text["type"] == "t");
    pushes.map(|push| push["offset"].as_u64().expect("an offset")).collect()
}

fn join_since(room: &str, cursor: &Value, offset: u64) -> String {
    let epoch = &cursor["epoch"];
    json!({"type": "throng:join", "room": room, "ref": 1, "since": {"epoch": epoch, "offset": offset}})
        .to_string()
}

/// A connection that drops without a word.
fn drop_it(rig: &mut Rig, conn: ConnId) {
    let error = std::io::ErrorKind::ConnectionReset.into();
    rig.event(crate::contract::Event::Lost { conn, error });
    rig.settle();
}

/// Many turns, with all mail carried after each.
fn run(rigs: &mut [Rig; 2]) {
    for _ in 0..500 {
        for at in 0..2 {
            rigs[at].turn();
            for (to, mail) in std::mem::take(&mut rigs[at].post) {
                rigs[usize::from(to.0)].take(mail);
            }
        }
    }
}

#[test]
fn whoever_comes_back_gets_what_it_missed_and_then_what_is_new() {
    let mut rig = Rig::new(0, 1, remembering(100));
    let gone = rig.open();
    rig.say(gone, r#"{"type":"throng:join","room":"room","ref":1}"#);
    rig.settle();
    let cursor = texts(&mut rig, gone).remove(0);
    assert_eq!(cursor.get("recovered"), None, "nothing was asked for");
    let publisher = rig.open();
    for number in 0..3 {
        rig.say(publisher, &publish(&["room"], &number.to_string()));
    }
    drop_it(&mut rig, gone);
    assert_eq!(rig.shard.counters().home_rooms, 1, "the room outlives its last member");
    let back = rig.open();
    rig.say(back, &join_since("room", &cursor, 1));
    rig.say(publisher, &publish(&["room"], "3"));
    rig.settle();
    let heard = texts(&mut rig, back);
    assert_eq!((&heard[0]["recovered"], &heard[0]["offset"]), (&json!(true), &json!(3)));
    assert_eq!(offsets(&heard), [2, 3, 4]);
    assert_eq!(heard[1]["payload"], json!(1));
    assert_eq!(rig.shard.counters().resumes_total, 1);
}

#[test]
fn a_cursor_that_is_too_old_ahead_or_of_another_life_gets_one_resync() {
    let mut rig = Rig::new(0, 1, remembering(2));
    let (publisher, first) = (rig.open(), rig.open());
    rig.say(first, r#"{"type":"throng:join","room":"room","ref":1}"#);
    rig.settle();
    let cursor = texts(&mut rig, first).remove(0);
    for number in 0..5 {
        rig.say(publisher, &publish(&["room"], &number.to_string()));
    }
    let foreign = json!({"epoch": "fff"});
    let cases = [(&cursor, 2, "too_old"), (&cursor, 6, "ahead"), (&foreign, 5, "epoch")];
    for (cursor, offset, reason) in cases {
        let back = rig.open();
        rig.say(back, &join_since("room", cursor, offset));
        rig.settle();
        let heard = texts(&mut rig, back);
        assert_eq!(heard[0]["recovered"], json!(false), "{reason}");
        let resync = json!({"type": "throng:resync", "room": "room", "reason": reason,
            "epoch": heard[0]["epoch"], "offset": 5});
        assert_eq!(heard[1..], [resync], "one, and nothing else");
        rig.say(publisher, &publish(&["room"], "9"));
        rig.settle();
        assert_eq!(offsets(&texts(&mut rig, back)).len(), 1, "and then what is new");
        assert_eq!(rig.shard.counters().resyncs_total, 1, "{reason}");
        // The next one finds the same numbers.
        rig = Rig::new(0, 1, remembering(2));
        return_to_five(&mut rig);
    }
}

/// Brings a fresh rig to where the fifth publication was made.
fn return_to_five(rig: &mut Rig) {
    let publisher = rig.open();
    for number in 0..5 {
        rig.say(publisher, &publish(&["room"], &number.to_string()));
    }
    rig.settle();
}

#[test]
fn a_room_without_history_goes_on_from_its_last_number_and_from_no_other() {
    let mut rig = Rig::new(0, 1, remembering(10));
    let stays = rig.open();
    rig.say(stays, r#"{"type":"throng:join","room":"other","ref":1}"#);
    rig.settle();
    let cursor = texts(&mut rig, stays).remove(0);
    rig.say(stays, &publish(&["other"], "1"));
    for (offset, recovered) in [(1, true), (0, false)] {
        let back = rig.open();
        rig.say(back, &join_since("other", &cursor, offset));
        rig.settle();
        let heard = texts(&mut rig, back);
        assert_eq!(heard[0]["recovered"], json!(recovered));
        assert_eq!(heard.len(), if recovered { 1 } else { 2 });
    }
}

#[test]
fn a_member_that_shows_a_cursor_keeps_its_place_in_the_stream() {
    let mut rig = Rig::new(0, 1, remembering(10));
    let conn = rig.open();
    rig.say(conn, r#"{"type":"throng:join","room":"room","ref":1}"#);
    rig.settle();
    let cursor = texts(&mut rig, conn).remove(0);
    rig.say(conn, &publish(&["room"], "1"));
    rig.say(conn, &join_since("room", &cursor, 0));
    rig.say(conn, &publish(&["room"], "2"));
    rig.settle();
    let heard = texts(&mut rig, conn);
    assert_eq!(offsets(&heard), [1, 2], "each once: {heard:?}");
    assert!(heard.iter().any(|text| text["recovered"] == json!(false)));
}

#[test]
fn a_member_that_resumes_gets_nothing_that_excepted_it_nor_what_is_over() {
    let mut rig = Rig::new(0, 1, remembering(10));
    // A room with a member lives on while the other one is away.
    let (publisher, conn) = (rig.member("room"), rig.open());
    rig.say(conn, r#"{"type":"throng:join","room":"room","ref":1}"#);
    rig.settle();
    let cursor = texts(&mut rig, conn).remove(0);
    rig.say(conn, r#"{"type":"throng:leave","room":"room"}"#);
    rig.settle();
    let (own, other) = (rig.address(conn), rig.address(publisher));
    for (number, more) in [
        (1, json!({})),
        (2, json!({"except": [own.to_string()]})),
        (3, json!({"ttlMs": 500})),
        (4, json!({"except": [other.to_string()]})),
        (5, json!({"ttlMs": 60_000})),
    ] {
        let mut message = json!({"type": "t", "room": "room", "payload": number});
        message.as_object_mut().expect("an object").extend(more.as_object().cloned().expect("one"));
        rig.say(publisher, &message.to_string());
    }
    rig.later(Duration::from_secs(1));
    rig.settle();
    texts(&mut rig, conn);
    rig.say(conn, &join_since("room", &cursor, 0));
    rig.settle();
    let heard = texts(&mut rig, conn);
    assert_eq!(heard[0]["recovered"], json!(true), "{heard:?}");
    assert_eq!(offsets(&heard), [1, 4, 5], "{heard:?}");
}

#[test]
fn more_than_a_queue_takes_comes_in_parts_and_live_waits_behind() {
    for home in [0, 1] {
        let mut rigs = [0, 1].map(|id| Rig::new(id, 2, remembering(1000)));
        let room = room_of(home, 2);
        let first = rigs[0].open();
        rigs[0].say(first, &json!({"type": "throng:join", "room": room, "ref": 1}).to_string());
        exchange(&mut rigs);
        let cursor = texts(&mut rigs[0], first).remove(0);
        let publisher = rigs[1].open();
        let filler = "x".repeat(100);
        for _ in 0..200 {
            rigs[1].say(publisher, &publish(&[&room], &format!("{filler:?}")));
            exchange(&mut rigs);
        }
        let back = rigs[0].open();
        rigs[0].stalled.insert(back);
        rigs[0].say(back, &join_since(&room, &cursor, 0));
        exchange(&mut rigs);
        let counters = rigs[0].shard.counters();
        assert_eq!(counters.replays, 1, "it has not had everything");
        assert!(counters.queued_bytes < 2000, "no more than a queue may hold");
        for _ in 0..20 {
            rigs[1].say(publisher, &publish(&[&room], "1"));
            exchange(&mut rigs);
        }
        rigs[0].stalled.clear();
        run(&mut rigs);
        let heard = texts(&mut rigs[0], back);
        assert_eq!(heard[0]["recovered"], json!(true));
        assert_eq!(offsets(&heard), (1..=220).collect::<Vec<u64>>());
        assert_eq!(heard.len(), 221, "and no word of a gap");
        let counters = rigs[0].shard.counters();
        assert_eq!((counters.replays, counters.slow_consumers_total), (0, 0));
        rigs[1].say(publisher, &publish(&[&room], "1"));
        exchange(&mut rigs);
        assert_eq!(offsets(&texts(&mut rigs[0], back)), [221]);
    }
}

#[test]
fn a_reader_that_is_slower_than_the_history_is_told_once_to_begin_anew() {
    let mut rigs = [0, 1].map(|id| Rig::new(id, 2, remembering(50)));
    let room = room_of(1, 2);
    let first = rigs[0].open();
    rigs[0].say(first, &json!({"type": "throng:join", "room": room, "ref": 1}).to_string());
    exchange(&mut rigs);
    let cursor = texts(&mut rigs[0], first).remove(0);
    let publisher = rigs[1].open();
    let text = publish(&[&room], &format!("{:?}", "x".repeat(100)));
    for _ in 0..50 {
        rigs[1].say(publisher, &text);
        exchange(&mut rigs);
    }
    let back = rigs[0].open();
    rigs[0].stalled.insert(back);
    rigs[0].say(back, &join_since(&room, &cursor, 0));
    exchange(&mut rigs);
    for _ in 0..50 {
        rigs[1].say(publisher, &text);
        exchange(&mut rigs);
    }
    rigs[0].stalled.clear();
    exchange(&mut rigs);
    let heard = texts(&mut rigs[0], back);
    let resyncs: Vec<&Value> =
        heard.iter().filter(|text| text["type"] == "throng:resync").collect();
    assert_eq!(resyncs.len(), 1);
    assert_eq!((&resyncs[0]["reason"], &resyncs[0]["offset"]), (&json!("too_old"), &json!(100)));
    let got = offsets(&heard);
    assert_eq!(got, (1..=got.len() as u64).collect::<Vec<u64>>(), "what it had was in order");
    rigs[1].say(publisher, &text);
    exchange(&mut rigs);
    assert_eq!(offsets(&texts(&mut rigs[0], back)), [101]);
}

#[test]
fn a_restore_joins_many_rooms_and_answers_once_with_a_result_for_each() {
    let mut rigs = [0, 1].map(|id| Rig::new(id, 2, remembering(100)));
    let (here, there) = (room_of(0, 2), room_of(1, 2));
    let first = rigs[0].open();
    for room in [&here, &there] {
        rigs[0].say(first, &json!({"type": "throng:join", "room": room, "ref": room}).to_string());
    }
    exchange(&mut rigs);
    let replies = texts(&mut rigs[0], first);
    let epoch = |room: &str| {
        replies.iter().find(|reply| reply["ref"] == room).expect("a reply")["epoch"].clone()
    };
    let (here_epoch, there_epoch) = (epoch(&here), epoch(&there));
    for number in 0..4 {
        rigs[1].now = rigs[0].now;
        rigs[0].say(first, &publish(&[&here], &number.to_string()));
        rigs[0].say(first, &publish(&[&there], &number.to_string()));
    }
    exchange(&mut rigs);
    let back = rigs[0].open();
    let restore = json!({"type": "throng:restore", "ref": "all", "rooms": [
        {"room": here, "since": {"epoch": here_epoch, "offset": 2}},
        {"room": there, "since": {"epoch": there_epoch, "offset": 3}},
        {"room": "fresh"},
        {"room": "throng:no"},
        {"room": there, "since": {"epoch": there_epoch, "offset": 3}},
    ]});
    rigs[0].say(back, &restore.to_string());
    exchange(&mut rigs);
    let heard = texts(&mut rigs[0], back);
    let replies: Vec<&Value> = heard.iter().filter(|text| text["ref"] == "all").collect();
    let [reply] = &replies[..] else { panic!("one reply: {heard:?}") };
    let rooms = reply["rooms"].as_array().expect("results");
    assert_eq!((&rooms[0]["room"], &rooms[0]["recovered"]), (&json!(here), &json!(true)));
    assert_eq!((&rooms[1]["room"], &rooms[1]["offset"]), (&json!(there), &json!(4)));
    assert_eq!((&rooms[2]["ok"], rooms[2].get("recovered")), (&json!(true), None));
    assert_eq!((&rooms[3]["ok"], &rooms[3]["code"]), (&json!(false), &json!("bad_field")));
    assert_eq!(rooms[4]["recovered"], json!(false), "it is in that room already");
    let of = |room: &str| {
        let pushes = heard.iter().filter(|text| text["type"] == "t" && text["room"] == room);
        pushes.map(|push| push["offset"].as_u64().expect("an offset")).collect::<Vec<u64>>()
    };
    assert_eq!((of(&here), of(&there)), (vec![3, 4], vec![4]));
    assert_eq!(rigs[0].shard.counters().restores, 0);
}

#[test]
fn history_is_paged_back_by_members_only() {
    let mut rig = Rig::new(0, 1, remembering(8));
    let publisher = rig.open();
    for number in 0..10 {
        rig.say(publisher, &publish(&["room"], &number.to_string()));
    }
    rig.say(publisher, r#"{"type":"throng:history","room":"room","ref":1}"#);
    rig.settle();
    assert_eq!(rig.told(publisher, "throng:error")[0]["code"], "not_member");
    let reader = rig.member("room");
    rig.heard(reader);
    let mut page = |before: &str, limit: usize| {
        rig.say(
            reader,
            &format!(r#"{{"type":"throng:history","room":"room","limit":{limit}{before}}}"#),
        );
        rig.settle();
        let reply = texts(&mut rig, reader).remove(0);
        let messages = reply["messages"].as_array().expect("messages").clone();
        let payloads: Vec<u64> =
            messages.iter().map(|message| message["payload"].as_u64().expect("one")).collect();
        (payloads, messages[0]["offset"].clone(), reply["more"] == json!(true))
    };
    let (payloads, first, more) = page("", 5);
    assert_eq!((payloads, more), (vec![5, 6, 7, 8, 9], true));
    let (payloads, _, more) = page(&format!(r#","before":{first}"#), 5);
    assert_eq!((payloads, more), (vec![2, 3, 4], false), "as far back as there is");
}

#[test]
fn what_is_over_is_neither_delivered_nor_found_in_history() {
    let mut rig = Rig::new(0, 1, remembering(10));
    let conn = rig.open();
    rig.say(conn, r#"{"type":"throng:join","room":"room","ref":1}"#);
    rig.settle();
    let cursor = texts(&mut rig, conn).remove(0);
    rig.say(conn, r#"{"type":"t","room":"room","payload":1,"ttlMs":500}"#);
    rig.say(conn, &publish(&["room"], "2"));
    rig.settle();
    assert_eq!(offsets(&texts(&mut rig, conn)), [1, 2], "in time");
    rig.later(Duration::from_secs(1));
    let back = rig.open();
    rig.say(back, &join_since("room", &cursor, 0));
    rig.say(back, r#"{"type":"throng:history","room":"room"}"#);
    rig.settle();
    let heard = texts(&mut rig, back);
    assert_eq!((&heard[0]["recovered"], offsets(&heard)), (&json!(true), vec![2]));
    assert_eq!(heard.last().expect("a page")["messages"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_publication_whose_time_is_over_on_the_way_reaches_nobody() {
    let mut rigs = [0, 1].map(|id| Rig::new(id, 2, remembering(10)));
    let room = room_of(1, 2);
    let member = rigs[0].member(&room);
    exchange(&mut rigs);
    let publisher = rigs[0].open();
    let text = json!({"type": "t", "room": room, "payload": 1, "ttlMs": 100});
    rigs[0].say(publisher, &text.to_string());
    rigs[0].settle();
    rigs.iter_mut().for_each(|rig| rig.later(Duration::from_millis(200)));
    exchange(&mut rigs);
    assert_eq!(offsets(&texts(&mut rigs[0], member)), Vec::<u64>::new());
    assert_eq!(rigs[1].shard.counters().outdated_total, 1);
}

#[test]
fn what_is_sent_again_is_acknowledged_as_a_duplicate_and_not_sent_twice() {
    for home in [0, 1] {
        let mut rigs = [0, 1].map(|id| Rig::new(id, 2, remembering(10)));
        let room = room_of(home, 2);
        let member = rigs[1].member(&room);
        exchange(&mut rigs);
        rigs[1].heard(member);
        let (one, other) = (rigs[0].open(), rigs[0].open());
        let text = json!({"type": "t", "room": room, "id": "a", "ref": 1}).to_string();
        let reply = |rigs: &mut [Rig; 2], conn: ConnId, text: &str| {
            rigs[0].say(conn, text);
            exchange(rigs);
            texts(&mut rigs[0], conn).remove(0)
        };
        assert_eq!(reply(&mut rigs, one, &text).get("duplicate"), None);
        assert_eq!(reply(&mut rigs, one, &text)["duplicate"], json!(true));
        assert_eq!(reply(&mut rigs, other, &text).get("duplicate"), None, "somebody else's");
        let without_ref = json!({"type": "t", "rooms": [room], "id": "a"}).to_string();
        rigs[0].say(one, &without_ref);
        exchange(&mut rigs);
        rigs.iter_mut().for_each(|rig| rig.later(Duration::from_secs(11)));
        assert_eq!(reply(&mut rigs, one, &text).get("duplicate"), None, "the window is over");
        assert_eq!(offsets(&texts(&mut rigs[1], member)), [1, 2, 3]);
        let counters = rigs[usize::from(home)].shard.counters();
        assert_eq!((counters.repeats_total, counters.remembered_ids), (2, 1));
    }
}

#[test]
fn a_published_room_that_nobody_joins_ends_when_its_history_has() {
    let mut rig = Rig::new(0, 1, remembering(10));
    let publisher = rig.open();
    for at in 0..1000 {
        rig.say(publisher, &publish(&[&format!("room {at}")], "1"));
    }
    rig.settle();
    let before = rig.shard.counters();
    assert_eq!((before.home_rooms, before.history_rooms), (1000, 1000));
    assert!(before.charged_bytes >= before.history_bytes && before.history_bytes > 500_000);
    for _ in 0..80 {
        rig.later(Duration::from_secs(1));
        rig.turn();
    }
    let after = rig.shard.counters();
    assert_eq!((after.home_rooms, after.history_rooms, after.history_bytes), (0, 0, 0));
    assert_eq!(after.history_evicted_age_total, 1000);
}

#[test]
fn histories_never_have_more_than_their_share_of_the_memory() {
    let mut settings = remembering(1000);
    settings.capacity.memory = 1 << 20;
    let mut rig = Rig::new(0, 1, settings);
    let publisher = rig.open();
    for at in 0..2000 {
        rig.say(publisher, &publish(&[&format!("room {}", at % 50)], "1"));
        let counters = rig.shard.counters();
        assert!(counters.history_bytes <= (1 << 20) / 8, "{}", counters.history_bytes);
    }
    rig.settle();
    let counters = rig.shard.counters();
    assert!(counters.history_evicted_share_total > 0);
    assert_eq!(counters.memory_pauses_total, 0, "nobody has to wait for history");
}

#[test]
fn a_history_that_the_configuration_takes_away_is_forgotten_with_the_next_publication() {
    let mut rig = Rig::new(0, 1, remembering(10));
    let member = rig.member("room");
    rig.say(member, &publish(&["room"], "1"));
    rig.settle();
    assert_eq!(rig.shard.counters().history_rooms, 1);
    rig.take(crate::shard::Mail::Settings(std::sync::Arc::new(settings())));
    rig.say(member, &publish(&["room"], "2"));
    rig.settle();
    assert_eq!(rig.shard.counters().history_rooms, 0);
    assert_eq!(offsets(&texts(&mut rig, member)), [1, 2]);
}

#[test]
fn a_connection_that_leaves_or_ends_halfway_leaves_nothing_behind() {
    let mut rigs = [0, 1].map(|id| Rig::new(id, 2, remembering(1000)));
    let room = room_of(1, 2);
    let first = rigs[0].open();
    rigs[0].say(first, &json!({"type": "throng:join", "room": room, "ref": 1}).to_string());
    exchange(&mut rigs);
    let cursor = texts(&mut rigs[0], first).remove(0);
    let text = publish(&[&room], &format!("{:?}", "x".repeat(100)));
    for _ in 0..100 {
        rigs[0].say(first, &text);
        exchange(&mut rigs);
    }
    for leaves in [true, false] {
        let back = rigs[0].open();
        rigs[0].stalled.insert(back);
        rigs[0].say(back, &join_since(&room, &cursor, 0));
        exchange(&mut rigs);
        assert_eq!(rigs[0].shard.counters().replays, 1);
        if leaves {
            rigs[0].say(back, &json!({"type": "throng:leave", "room": room}).to_string());
        } else {
            drop_it(&mut rigs[0], back);
        }
        assert_eq!(rigs[0].shard.counters().replays, 0);
        rigs[0].stalled.clear();
        exchange(&mut rigs);
    }
}
