//! Clients of Socket.IO that were lost and come back: all of their rooms and what they missed there, or nothing.

use std::time::Duration;

use serde_json::{Value, json};

use super::guard::{ada, bearer, guarded};
use super::history::remembering;
use super::rig::{Rig, publish, room_of};
use super::socketio::{TARGET, json_behind, opened, say};
use crate::auth::Source;
use crate::base::id::{ConnId, ShardId};
use crate::contract::Event;
use crate::shard::{Mail, Settings};

const TIME: Duration = Duration::from_secs(60);

fn recalling(mut settings: Settings) -> Settings {
    settings.timeouts.recall = TIME;
    settings
}

fn rig() -> Rig {
    Rig::new(0, 1, recalling(remembering(4)))
}

/// What a client keeps.
struct Client {
    conn: ConnId,
    pid: String,
    place: Option<String>,
}

/// Connects; itself, and the packets behind its greeting.
fn connect(rig: &mut Rig, headers: &str, before: Option<&Client>) -> (Client, Vec<String>) {
    let (conn, _) = opened(rig, TARGET, headers);
    let shown = before.map_or(json!({}), |one| json!({"pid": one.pid, "offset": one.place}));
    let mut heard = say(rig, conn, &format!("40{shown}"));
    let entered = json_behind(&heard[0], "40");
    let pid = entered["pid"].as_str().expect("a pid").to_owned();
    assert!(heard[1].starts_with(r#"42["throng:connected""#), "{heard:?}");
    let place = before.and_then(|one| one.place.clone());
    (Client { conn, pid, place }, heard.split_off(2))
}

/// A client in these rooms.
fn member(rig: &mut Rig, headers: &str, rooms: &[&str]) -> Client {
    let (client, _) = connect(rig, headers, None);
    for room in rooms {
        let heard = say(rig, client.conn, &format!(r#"420["throng:join",{{"room":"{room}"}}]"#));
        assert_eq!(json_behind(&heard[0], "430")[0]["ok"], true, "{heard:?}");
    }
    client
}

/// What it hears of publications; it remembers the last place, as the library does.
fn hear(rig: &mut Rig, client: &mut Client) -> Vec<Value> {
    rig.settle();
    let heard = super::socketio::hear(rig, client.conn).0;
    note(client, &heard)
}

fn note(client: &mut Client, heard: &[String]) -> Vec<Value> {
    let mut payloads = Vec::new();
    for packet in heard.iter().filter(|packet| packet.len() > 1) {
        let event = json_behind(packet, "42");
        assert_eq!(
            event[2]["room"].as_str(),
            event[3].as_str().and_then(|p| p.splitn(3, '.').nth(2))
        );
        client.place = event[3].as_str().map(str::to_owned);
        payloads.push(event[1].clone());
    }
    payloads
}

fn lose(rig: &mut Rig, client: &Client) {
    rig.event(Event::ReceivedEnd { conn: client.conn });
    rig.settle();
    rig.settle();
}

#[test]
fn a_lost_client_comes_back_to_its_rooms_and_to_what_it_missed_in_each() {
    let mut rig = rig();
    let author = rig.open();
    let mut client = member(&mut rig, "", &["room-a", "room-b"]);
    for (room, number) in [("room-a", 1), ("room-b", 2), ("room-a", 3)] {
        rig.say(author, &publish(&[room], &number.to_string()));
        rig.turn();
    }
    assert_eq!(hear(&mut rig, &mut client), [1, 2, 3]);
    for number in 4..7 {
        rig.say(
            author,
            &publish(&[if number == 5 { "room-b" } else { "room-a" }], &number.to_string()),
        );
        rig.turn();
    }
    // These have reached it, or not; it has not heard them.
    lose(&mut rig, &client);
    assert_eq!(rig.shard.counters().lost_clients, 1);
    rig.say(author, &publish(&["room-b"], "7"));
    rig.settle();
    let (mut again, heard) = connect(&mut rig, "", Some(&client));
    assert_eq!(again.pid, client.pid, "by which its library knows that it is recovered");
    assert_ne!(again.conn, client.conn);
    let mut missed: Vec<u64> = note(&mut again, &heard).iter().filter_map(Value::as_u64).collect();
    missed.sort_unstable();
    assert_eq!(missed, [4, 5, 6, 7]);
    rig.say(author, &publish(&["room-a"], "8"));
    rig.say(author, &publish(&["room-b"], "9"));
    assert_eq!(hear(&mut rig, &mut again), [8, 9]);
    // And once more, though nothing came since.
    lose(&mut rig, &again);
    let (mut third, heard) = connect(&mut rig, "", Some(&again));
    assert_eq!((&third.pid, heard.len()), (&client.pid, 0));
    rig.say(author, &publish(&["room-b"], "10"));
    assert_eq!(hear(&mut rig, &mut third), [10]);
    let counters = rig.shard.counters();
    assert_eq!(
        (counters.recalled_total, counters.unrecalled_total, counters.lost_clients),
        (2, 0, 0)
    );
}

#[test]
fn one_who_missed_what_no_history_has_is_a_new_client_in_no_room() {
    let mut rig = rig();
    let author = rig.member("plain");
    for (room, count) in [("plain", 1), ("room-a", 5)] {
        let mut client = member(&mut rig, "", &[room]);
        rig.say(author, &publish(&[room], "0"));
        assert_eq!(hear(&mut rig, &mut client), [0]);
        lose(&mut rig, &client);
        (0..count).for_each(|number: u32| rig.say(author, &publish(&[room], &number.to_string())));
        rig.settle();
        let (mut again, heard) = connect(&mut rig, "", Some(&client));
        assert_ne!(again.pid, client.pid, "{room}");
        rig.say(author, &publish(&[room], "9"));
        assert_eq!(
            (heard.len(), hear(&mut rig, &mut again).len()),
            (0, 0),
            "{room}: it is in no room"
        );
    }
    // Where nothing was published nothing was missed, history or not.
    let client = member(&mut rig, "", &["plain", "room-a"]);
    lose(&mut rig, &client);
    assert_eq!(connect(&mut rig, "", Some(&client)).0.pid, client.pid);
    let counters = rig.shard.counters();
    assert_eq!((counters.recalled_total, counters.unrecalled_total), (1, 2));
}

#[test]
fn nobody_comes_back_after_its_time_or_by_a_pid_that_is_nobodys_or_when_it_went_on_purpose() {
    let mut rig = rig();
    let _keeper = rig.member("room-a");
    let late = member(&mut rig, "", &["room-a"]);
    lose(&mut rig, &late);
    rig.later(TIME - Duration::from_secs(1));
    assert_eq!(connect(&mut rig, "", Some(&late)).0.pid, late.pid, "in time");
    let late = member(&mut rig, "", &["room-a"]);
    lose(&mut rig, &late);
    rig.later(TIME + Duration::from_secs(1));
    assert_ne!(connect(&mut rig, "", Some(&late)).0.pid, late.pid);
    let left = member(&mut rig, "", &["room-a"]);
    rig.receive(left.conn, &super::rig::frame(0x81, b"41"));
    rig.settle();
    assert_ne!(connect(&mut rig, "", Some(&left)).0.pid, left.pid, "it said good-bye");
    for pid in ["", "x", &"0".repeat(32), &"f".repeat(500)] {
        let forged =
            Client { conn: left.conn, pid: pid.to_owned(), place: Some("5.1.room-a".into()) };
        let (client, heard) = connect(&mut rig, "", Some(&forged));
        assert_ne!(client.pid, pid);
        assert!(heard.is_empty(), "{heard:?}");
    }
    let odd = say_connect(&mut rig, r#"40{"pid":7,"offset":[]}"#);
    assert!(odd[0].starts_with("40{"), "{odd:?}");
}

fn say_connect(rig: &mut Rig, packet: &str) -> Vec<String> {
    let (conn, _) = opened(rig, TARGET, "");
    say(rig, conn, packet)
}

#[test]
fn another_user_is_not_recalled_and_takes_nothing_away() {
    let mut rig = Rig::new(0, 1, recalling(guarded(&[Source::Header], |_| {})));
    let [own, other, third] = [json!("ada"), json!("bob"), json!("carl")].map(|user| {
        let mut claims = ada();
        claims["sub"] = user;
        bearer(&claims)
    });
    let _keeper = member(&mut rig, &third, &["a", "b1"]);
    let client = member(&mut rig, &own, &["a", "b1"]);
    // Its old connection is thought to live still.
    let (thief, heard) = connect(&mut rig, &other, Some(&client));
    assert_ne!(thief.pid, client.pid);
    assert!(heard.is_empty() && !rig.table_is_closing(client.conn));
    // It is the client's own word that it is lost.
    let (again, _) = connect(&mut rig, &own, Some(&client));
    assert_eq!(again.pid, client.pid);
    assert!(rig.table_is_closing(client.conn));
    // Without the right to all of its rooms it is a new one.
    rig.settle();
    lose(&mut rig, &again);
    let mut claims = ada();
    claims["rooms"] = json!(["a"]);
    let (fewer, _) = connect(&mut rig, &bearer(&claims), Some(&again));
    assert_ne!(fewer.pid, client.pid);
    assert_eq!(rig.shard.counters().memberships, 5, "each user in its own room");
}

/// Takes mail to and fro until there is none.
fn exchange(rigs: &mut [Rig; 2]) {
    assert!((0..64).any(|_| !carry(rigs)), "64 rounds and still mail");
}

/// Takes what mail there is where it belongs; whether there was any.
fn carry(rigs: &mut [Rig; 2]) -> bool {
    let mut mail: Vec<(ShardId, Mail)> = Vec::new();
    for rig in rigs.iter_mut() {
        rig.settle();
        mail.append(&mut rig.post);
    }
    let is_any = !mail.is_empty();
    for (to, mail) in mail {
        rigs[usize::from(to.0)].take(mail);
    }
    is_any
}

#[test]
fn a_client_comes_back_to_another_shard_whether_its_end_was_noticed_or_not() {
    let mut rigs = [0, 1].map(|id| Rig::new(id, 2, recalling(remembering(4))));
    let rooms = [room_of(0, 2), room_of(1, 2)];
    // A room of which nothing is kept ends with its last member, and begins anew.
    let author = rigs[1].open();
    rooms.iter().for_each(|room| rigs[1].say(author, &publish(&[room], "0")));
    exchange(&mut rigs);
    for is_noticed in [true, false] {
        let client = member(&mut rigs[0], "", &[]);
        for room in &rooms {
            say(&mut rigs[0], client.conn, &format!(r#"42["throng:join",{{"room":"{room}"}}]"#));
        }
        exchange(&mut rigs);
        if is_noticed {
            lose(&mut rigs[0], &client);
        }
        rooms.iter().for_each(|room| rigs[1].say(author, &publish(&[room], "1")));
        exchange(&mut rigs);
        let (conn, _) = opened(&mut rigs[1], TARGET, "");
        let shown = json!({"pid": client.pid});
        assert!(
            say(&mut rigs[1], conn, &format!("40{shown}")).is_empty(),
            "it waits for an answer"
        );
        exchange(&mut rigs);
        let heard = super::socketio::hear(&mut rigs[1], conn).0;
        assert_eq!(json_behind(&heard[0], "40")["pid"], json!(client.pid), "{heard:?}");
        let events = heard[2..].iter().map(|packet| json_behind(packet, "42"));
        let mut missed: Vec<String> =
            events.filter_map(|event| Some(event[2]["room"].as_str()?.to_owned())).collect();
        missed.sort();
        let mut expected = rooms.clone();
        expected.sort();
        assert_eq!(missed, expected, "{is_noticed}");
        assert!(rigs[0].table_is_closing(client.conn));
        rigs[1].event(Event::ReceivedEnd { conn });
        exchange(&mut rigs);
    }
    // Nobody has this one, and one who goes away meanwhile hears nothing of it.
    let (conn, _) = opened(&mut rigs[1], TARGET, "");
    say(&mut rigs[1], conn, &format!(r#"40{{"pid":"{}"}}"#, "0".repeat(32)));
    rigs[1].event(Event::ReceivedEnd { conn });
    exchange(&mut rigs);
    assert_eq!(rigs[1].shard.counters().recalled_total, 2);
}

/// The rooms of the publications that a client of this pid hears when it connects to that shard.
fn missed_by(rigs: &mut [Rig; 2], shard: usize, pid: &str) -> Vec<String> {
    let (conn, _) = opened(&mut rigs[shard], TARGET, "");
    let mut heard = say(&mut rigs[shard], conn, &format!("40{}", json!({"pid": pid})));
    exchange(rigs);
    heard.append(&mut super::socketio::hear(&mut rigs[shard], conn).0);
    assert_eq!(json_behind(&heard[0], "40")["pid"], json!(pid), "{heard:?}");
    let events = heard[2..].iter().map(|packet| json_behind(packet, "42"));
    let mut missed: Vec<String> =
        events.filter_map(|event| Some(event[2]["room"].as_str()?.to_owned())).collect();
    missed.sort();
    missed
}

#[test]
fn one_who_is_lost_again_while_it_comes_back_misses_nothing_whenever_that_is() {
    let cases = (0..12).flat_map(|rounds| {
        let ends = [(0, true), (0, false), (1, true), (1, false)];
        ends.map(|(shard, is_noticed)| (rounds, shard, is_noticed))
    });
    for (rounds, shard, is_noticed) in cases {
        let mut rigs = [0, 1].map(|id| Rig::new(id, 2, recalling(remembering(4))));
        let mut rooms = [room_of(0, 2), room_of(1, 2)];
        let author = rigs[1].open();
        rooms.iter().for_each(|room| rigs[1].say(author, &publish(&[room], "0")));
        exchange(&mut rigs);
        let client = member(&mut rigs[0], "", &[]);
        for room in &rooms {
            let join = format!(r#"42["throng:join",{{"room":"{room}"}}]"#);
            say(&mut rigs[0], client.conn, &join);
        }
        exchange(&mut rigs);
        rooms.iter().for_each(|room| rigs[1].say(author, &publish(&[room], "1")));
        exchange(&mut rigs);
        let (conn, _) = opened(&mut rigs[1], TARGET, "");
        say(&mut rigs[1], conn, &format!("40{}", json!({"pid": client.pid})));
        for _ in 0..rounds {
            carry(&mut rigs);
        }
        if is_noticed {
            rigs[1].event(Event::ReceivedEnd { conn });
        }
        rooms.sort();
        rigs.iter_mut().for_each(|rig| rig.later(Duration::from_millis(20)));
        let missed = missed_by(&mut rigs, shard, &client.pid);
        assert_eq!(missed, rooms, "after {rounds} rounds, to {shard}, {is_noticed}");
    }
}

#[test]
fn a_memo_that_arrives_for_one_who_is_gone_again_is_kept() {
    let mut rigs = [0, 1].map(|id| Rig::new(id, 2, recalling(remembering(4))));
    let client = member(&mut rigs[0], "", &[]);
    lose(&mut rigs[0], &client);
    let shown = format!(r#"40{{"pid":"{}"}}"#, client.pid);
    let (conn, _) = opened(&mut rigs[1], TARGET, "");
    say(&mut rigs[1], conn, &shown);
    rigs[1].event(Event::ReceivedEnd { conn });
    exchange(&mut rigs);
    assert_eq!(rigs.each_ref().map(|rig| rig.shard.counters().lost_clients), [0, 1]);
    let (conn, _) = opened(&mut rigs[0], TARGET, "");
    say(&mut rigs[0], conn, &shown);
    exchange(&mut rigs);
    let heard = super::socketio::hear(&mut rigs[0], conn).0;
    assert_eq!(json_behind(&heard[0], "40")["pid"], json!(client.pid));
}

#[test]
fn without_the_setting_there_is_no_pid_and_no_place() {
    let mut rig = Rig::new(0, 1, remembering(4));
    let (conn, _) = opened(&mut rig, TARGET, "");
    let heard = say(&mut rig, conn, &format!(r#"40{{"pid":"{}"}}"#, "0".repeat(32)));
    assert_eq!(json_behind(&heard[0], "40").get("pid"), None);
    say(&mut rig, conn, r#"42["throng:join",{"room":"room"}]"#);
    let heard = say(&mut rig, conn, r#"42["x",1,{"room":"room"}]"#);
    assert_eq!(json_behind(&heard[0], "42").as_array().map(Vec::len), Some(3));
}
