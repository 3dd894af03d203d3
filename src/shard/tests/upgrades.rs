//! Sessions of Socket.IO that poll and go on by WebSocket: every order of requests and of what the WebSocket says.

use std::time::Duration;

use proptest::prelude::*;

use super::polling::{
    alone, answer, answered, ask, begun, bring, entered, fetch, fetched, member, polled,
};
use super::rig::{Heard, Rig, Seen, frame, head_with, publish, settings};
use super::rooms::exchange;
use crate::base::id::{ConnAddress, ConnId, ShardId};
use crate::contract::Event;
use crate::shard::Mail;

/// The connection of a session, which has no socket or gets one.
fn own(session: &str) -> ConnId {
    let address: ConnAddress =
        session.split('_').next().expect("a part").parse().expect("its form");
    address.conn
}

/// A WebSocket that names the session has sent its request.
fn try_with(rig: &mut Rig, session: &str, headers: &str) -> ConnId {
    let conn = rig.accept().expect("let in");
    let target = format!("/socket.io/?EIO=4&transport=websocket&sid={session}");
    rig.receive(conn, &head_with(&target, headers));
    rig.settle();
    conn
}

/// One that was let in.
fn tried(rig: &mut Rig, session: &str) -> ConnId {
    let conn = try_with(rig, session, "");
    let response = rig.response(conn);
    assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
    conn
}

fn refused(rig: &mut Rig, session: &str, headers: &str) -> String {
    let conn = try_with(rig, session, headers);
    let response = rig.response(conn);
    let body = String::from_utf8(rig.bytes(conn)).expect("text");
    format!("{} {}", &response[9..12], body.trim())
}

fn say(rig: &mut Rig, conn: ConnId, packet: &str) {
    rig.receive(conn, &frame(0x81, packet.as_bytes()));
    rig.settle();
}

/// The packets that a connection's socket got.
fn packets(rig: &mut Rig, conn: ConnId) -> Vec<String> {
    let text = |frame| match frame {
        Heard::Text(serde_json::Value::String(text)) => text,
        Heard::Text(number) => number.to_string(),
        other => panic!("{other:?}"),
    };
    rig.heard(conn).into_iter().map(text).collect()
}

/// A WebSocket whose question was answered.
fn probed(rig: &mut Rig, session: &str) -> ConnId {
    let conn = tried(rig, session);
    say(rig, conn, "2probe");
    assert_eq!(packets(rig, conn), ["3probe"]);
    conn
}

/// The session, which goes on by a WebSocket of its own now.
fn upgraded(rig: &mut Rig, session: &str) -> ConnId {
    let probe = probed(rig, session);
    say(rig, probe, "5");
    assert!(rig.shard.table.get(probe).is_none(), "its socket is the session's");
    own(session)
}

fn upgrades(rig: &Rig) -> (u64, u64) {
    let counters = rig.shard.counters();
    (counters.socketio_upgrades_total, counters.socketio_upgrades_failed_total)
}

#[test]
fn a_session_goes_on_by_websocket_with_its_rooms_and_its_name() {
    let mut rig = alone();
    let author = rig.member("r");
    let session = member(&mut rig, "r");
    assert_eq!(rig.shard.counters().polling_connections, 1);
    let before = rig.shard.counters().open_connections;
    let socket = upgraded(&mut rig, &session);
    let counters = rig.shard.counters();
    assert_eq!((counters.polling_connections, counters.packet_connections), (0, 1));
    assert_eq!((counters.open_connections, upgrades(&rig)), (before, (1, 0)));
    rig.say(author, &publish(&["r"], "1"));
    rig.settle();
    let heard = packets(&mut rig, socket);
    assert!(heard[0].starts_with("42[\"t\",1,{"), "{heard:?}");
    say(&mut rig, socket, r#"42["t",2,{"room":"r"}]"#);
    assert_eq!(rig.published(author), [1, 2]);
    // Its heartbeat goes on: it is asked, and stays while it answers.
    rig.heard(socket);
    for _ in 0..50 {
        rig.later(Duration::from_secs(1));
        rig.settle();
        if packets(&mut rig, socket).contains(&"2".to_owned()) {
            say(&mut rig, socket, "3");
        }
    }
    assert_eq!(rig.shard.counters().packet_connections, 1);
    for _ in 0..80 {
        rig.later(Duration::from_secs(1));
        rig.settle();
    }
    let gone = rig.shard.counters();
    assert_eq!(gone.packet_connections, 0, "one that is silent is given up: {gone:?}");
}

#[test]
fn the_request_that_waits_is_answered_with_nothing_and_what_is_said_meanwhile_comes_once() {
    let mut rig = alone();
    let author = rig.member("r");
    let session = member(&mut rig, "r");
    let waits = fetch(&mut rig, &session);
    let probe = tried(&mut rig, &session);
    assert_eq!(answered(&mut rig, waits), None, "a WebSocket that says nothing changes nothing");
    say(&mut rig, probe, "2probe");
    assert_eq!(answer(&mut rig, waits), (200, "6".to_owned()));
    // One that was on its way when the question was answered waits no longer than a moment.
    let again = fetch(&mut rig, &session);
    assert_eq!(answered(&mut rig, again), None);
    rig.later(Duration::from_millis(200));
    rig.settle();
    assert_eq!(answer(&mut rig, again), (200, "6".to_owned()));
    // Until the client says so, all goes by requests.
    rig.say(author, &publish(&["r"], "1"));
    rig.settle();
    assert!(fetched(&mut rig, &session)[0].starts_with("42[\"t\",1,{"));
    rig.say(author, &publish(&["r"], "2"));
    rig.settle();
    rig.say(author, &publish(&["r"], "3"));
    rig.settle();
    assert_eq!(packets(&mut rig, probe), ["3probe"]);
    say(&mut rig, probe, "5");
    rig.say(author, &publish(&["r"], "4"));
    rig.settle();
    let heard = packets(&mut rig, own(&session));
    let numbers: Vec<&str> = heard.iter().map(|packet| &packet[..9]).collect();
    assert_eq!(numbers, ["42[\"t\",2,", "42[\"t\",3,", "42[\"t\",4,"], "{heard:?}");
}

#[test]
fn what_comes_behind_the_word_and_while_the_socket_is_on_its_way_is_heard_in_order() {
    let mut rig = alone();
    let author = rig.member("r");
    let session = member(&mut rig, "r");
    let probe = probed(&mut rig, &session);
    let event = |number: u32| frame(0x81, format!(r#"42["t",{number},{{"room":"r"}}]"#).as_bytes());
    rig.receive(probe, &[frame(0x81, b"5"), event(1), event(2)[..9].to_vec()].concat());
    rig.confirms = false;
    rig.turn();
    assert!(rig.ops.contains(&Seen::HandOver(probe)), "{:?}", rig.ops);
    rig.receive(probe, &[&event(2)[9..], &event(3)].concat());
    assert!(rig.published(author).is_empty(), "the session has no socket yet");
    // No request says or brings anything any more.
    for (method, body) in [("GET", ""), ("POST", r#"42["t",9,{"room":"r"}]"#)] {
        let conn = ask(&mut rig, method, &format!("&sid={session}"), "", body);
        let (status, body) = answer(&mut rig, conn);
        assert_eq!((status, body.trim()), (400, r#"{"code":3,"message":"Bad request"}"#));
    }
    rig.confirms = true;
    rig.settle();
    assert!(rig.shard.table.get(probe).is_none());
    rig.receive(own(&session), &event(4));
    rig.settle();
    assert_eq!(rig.published(author), [1, 2, 3, 4]);
    let conn = fetch(&mut rig, &session);
    let (status, body) = answer(&mut rig, conn);
    assert_eq!((status, body.trim()), (400, r#"{"code":1,"message":"Session ID unknown"}"#));
}

#[test]
fn the_question_and_the_word_may_come_together_and_with_the_request() {
    for together in [true, false] {
        let mut rig = alone();
        let author = rig.member("r");
        let session = member(&mut rig, "r");
        let waits = fetch(&mut rig, &session);
        let all = [frame(0x81, b"2probe"), frame(0x81, b"5")].concat();
        let conn = rig.accept().expect("let in");
        let target = format!("/socket.io/?EIO=4&transport=websocket&sid={session}");
        let head = head_with(&target, "");
        if together {
            rig.receive(conn, &[head, all].concat());
        } else {
            rig.receive(conn, &head);
            rig.receive(conn, &all);
        }
        rig.settle();
        assert!(rig.response(conn).starts_with("HTTP/1.1 101 "));
        assert_eq!(packets(&mut rig, conn), ["3probe"]);
        assert_eq!(answer(&mut rig, waits), (200, "6".to_owned()));
        rig.say(author, &publish(&["r"], "1"));
        rig.settle();
        assert!(packets(&mut rig, own(&session))[0].starts_with("42[\"t\",1,{"));
    }
}

/// Something that a WebSocket does.
type Act = fn(&mut Rig, ConnId);

#[test]
fn a_websocket_that_does_not_get_so_far_leaves_the_session_as_it_was() {
    let mut rig = alone();
    let author = rig.member("r");
    let session = member(&mut rig, "r");
    let ends: [(&str, Act); 7] = [
        ("it stalls", |rig, _| rig.later(Duration::from_secs(11))),
        ("it is lost", |rig, conn| {
            let error = std::io::ErrorKind::ConnectionReset.into();
            rig.event(Event::Lost { conn, error });
        }),
        ("it ends", |rig, conn| rig.event(Event::ReceivedEnd { conn })),
        ("it says goodbye", |rig, conn| rig.receive(conn, &frame(0x88, &[]))),
        ("it says something else", |rig, conn| rig.receive(conn, &frame(0x81, b"40"))),
        ("it asks twice", |rig, conn| {
            rig.receive(conn, &frame(0x81, b"2probe"));
            rig.receive(conn, &frame(0x81, b"2probe"));
        }),
        ("it says bytes", |rig, conn| rig.receive(conn, &frame(0x82, b"5"))),
    ];
    for (number, (what, end)) in (0..).zip(ends) {
        for asks in [false, true] {
            let probe = if asks { probed(&mut rig, &session) } else { tried(&mut rig, &session) };
            end(&mut rig, probe);
            rig.settle();
            rig.later(Duration::from_secs(6));
            rig.settle();
            assert!(rig.shard.table.get(probe).is_none(), "{what}: it is closed in the end");
        }
        rig.say(author, &publish(&["r"], &number.to_string()));
        rig.settle();
        let mut heard = Vec::new();
        while !heard.iter().any(|packet: &String| packet.starts_with("42")) {
            heard.extend(fetched(&mut rig, &session));
        }
        let begins = format!("42[\"t\",{number},{{");
        assert!(heard.iter().any(|packet| packet.starts_with(&begins)), "{what}: {heard:?}");
        bring(&mut rig, &session, "3");
        rig.heard(author);
    }
    assert_eq!(upgrades(&rig), (0, 14));
    // The word without the question before it.
    let probe = tried(&mut rig, &session);
    say(&mut rig, probe, "5");
    assert_eq!(upgrades(&rig), (0, 15));
    upgraded(&mut rig, &session);
}

#[test]
fn a_socket_that_is_lost_after_the_word_is_the_sessions_end() {
    let mut rig = alone();
    let session = member(&mut rig, "r");
    let probe = tried(&mut rig, &session);
    rig.stalled.insert(probe);
    rig.receive(probe, &[frame(0x81, b"2probe"), frame(0x81, b"5")].concat());
    rig.turn();
    assert!(!rig.ops.contains(&Seen::HandOver(probe)), "the answer is on its way");
    let error = std::io::ErrorKind::ConnectionReset.into();
    rig.event(Event::Lost { conn: probe, error });
    rig.settle();
    let counters = rig.shard.counters();
    assert_eq!((counters.packet_connections, counters.memberships), (0, 0));
    assert_eq!((upgrades(&rig), rig.shard.counters().polling_connections), ((0, 1), 0));
}

#[test]
fn a_session_that_ends_takes_its_websocket_along() {
    let mut rig = alone();
    let session = member(&mut rig, "r");
    let probe = probed(&mut rig, &session);
    bring(&mut rig, &session, "1");
    rig.settle();
    assert_eq!(fetched(&mut rig, &session), ["1"]);
    rig.settle();
    assert!(rig.table_is_closing(probe));
    // On the way as well: the socket is nobody's then.
    let session = member(&mut rig, "r");
    let probe = probed(&mut rig, &session);
    rig.confirms = false;
    rig.receive(probe, &[frame(0x81, b"5"), frame(0x81, b"41")].concat());
    rig.turn();
    rig.event(Event::Lost { conn: own(&session), error: std::io::ErrorKind::BrokenPipe.into() });
    rig.confirms = true;
    rig.settle();
    assert_eq!(rig.shard.counters().packet_connections, 0);
    // One that has said goodbye on the socket it goes on by is answered there.
    let session = member(&mut rig, "r");
    let socket = upgraded(&mut rig, &session);
    rig.receive(socket, &frame(0x88, &1000_u16.to_be_bytes()));
    rig.settle();
    assert_eq!(rig.heard(socket).last(), Some(&Heard::Close(1000)));
}

#[test]
fn who_may_not_is_refused_and_the_session_goes_on() {
    let mut settings = polled(settings());
    let access = &mut settings.access;
    let access = std::sync::Arc::make_mut(access);
    access.origins.allowed = ["https://good", "https://fine"]
        .map(|rule| crate::auth::OriginRule::parse(rule).expect("a rule"))
        .to_vec();
    let mut rig = Rig::new(0, 1, settings);
    let session = begun(&mut rig, "Origin: https://good\r\n");
    let last = if session.ends_with('0') { '1' } else { '0' };
    let forged = format!("{}{last}", &session[..session.len() - 1]);
    let unknown = r#"400 {"code":1,"message":"Session ID unknown"}"#;
    for sid in [&forged, "", "x", session.split('_').next().expect("an address")] {
        assert_eq!(refused(&mut rig, sid, "Origin: https://good\r\n"), unknown, "{sid}");
    }
    assert!(refused(&mut rig, &session, "Origin: https://bad\r\n").starts_with("403 "));
    let other = refused(&mut rig, &session, "Origin: https://fine\r\n");
    assert_eq!(other, "403 pages of this origin may not connect", "the session is another page's");
    assert_eq!(rig.shard.counters().origin_refused_total, 2);
    let probe = try_with(&mut rig, &session, "Origin: https://good\r\n");
    assert!(rig.response(probe).starts_with("HTTP/1.1 101 "));
    let second = refused(&mut rig, &session, "Origin: https://good\r\n");
    assert_eq!(second, r#"400 {"code":3,"message":"Bad request"}"#);
    say(&mut rig, probe, "2probe");
    say(&mut rig, probe, "5");
    assert_eq!(upgrades(&rig), (1, 0));
    assert_eq!(refused(&mut rig, &session, "Origin: https://good\r\n"), unknown);
    // A session that began by WebSocket has nothing that could take its place.
    let address = rig.address(own(&session)).to_string();
    assert_eq!(refused(&mut rig, &address, "Origin: https://good\r\n"), unknown);
    // Nor is anything tried where nobody may poll, or while the node ends.
    let mut closed = Rig::alone();
    assert_eq!(refused(&mut closed, "1-0-0", ""), unknown);
    let mut rig = alone();
    let session = entered(&mut rig);
    let probe = tried(&mut rig, &session);
    rig.take(Mail::Drain(Duration::from_secs(1)));
    rig.settle();
    for _ in 0..50 {
        rig.later(Duration::from_millis(200));
        rig.settle();
    }
    assert!(rig.shard.table.get(probe).is_none());
}

#[test]
fn a_websocket_at_another_shard_goes_to_the_one_that_has_the_session() {
    let mut rigs = [0, 1].map(|id| Rig::new(id, 2, polled(settings())));
    let session = member(&mut rigs[0], "r");
    let waits = fetch(&mut rigs[1], &session);
    exchange(&mut rigs);
    let first = rigs[1].accept().expect("let in");
    let target = format!("/socket.io/?EIO=4&transport=websocket&sid={session}");
    rigs[1].receive(first, &[head_with(&target, ""), frame(0x81, b"2probe")].concat());
    exchange(&mut rigs);
    assert!(rigs[1].shard.table.get(first).is_none(), "it has left");
    let counters = rigs.each_ref().map(|rig| rig.shard.counters());
    assert_eq!((counters[0].transfers_total, counters[1].handed_over_total), (1, 1));
    let probe = rigs[0].going.adopted.pop().expect("a socket that has come");
    assert!(rigs[0].response(probe).starts_with("HTTP/1.1 101 "));
    assert_eq!(packets(&mut rigs[0], probe), ["3probe"]);
    exchange(&mut rigs);
    assert_eq!(answer(&mut rigs[1], waits), (200, "6".to_owned()));
    say(&mut rigs[0], probe, "5");
    assert_eq!(upgrades(&rigs[0]), (1, 0));
    say(&mut rigs[0], own(&session), r#"42["t",1,{"room":"r"}]"#);
    exchange(&mut rigs);
    assert!(packets(&mut rigs[0], own(&session))[0].starts_with("42[\"t\",1,{"));
    // A session that there is not is refused there, and one of no shard here.
    for (sid, shard) in [("0-0-9-9_00000000000000000000000000000000", 0), (&*session, 0), ("x", 1)]
    {
        let conn = rigs[1].accept().expect("let in");
        let target = format!("/socket.io/?EIO=4&transport=websocket&sid={sid}");
        rigs[1].receive(conn, &head_with(&target, ""));
        exchange(&mut rigs);
        let conn = if shard == 0 { rigs[0].going.adopted.pop().expect("a socket") } else { conn };
        assert!(rigs[shard].response(conn).starts_with("HTTP/1.1 400 "), "{sid}");
    }
    // Where mail waits already, nothing is added to it.
    let session = entered(&mut rigs[0]);
    rigs[1].full.insert(ShardId(0));
    let asked: Vec<ConnId> = (0..20).map(|_| try_with(&mut rigs[1], &session, "")).collect();
    let late = asked.iter().filter(|conn| {
        rigs[1].shard.table.get(**conn).is_some()
            && rigs[1].unheard(**conn).starts_with("HTTP/1.1 503 ")
    });
    assert!(late.count() >= 1);
}

/// What may happen, in any order.
#[derive(Clone, Copy, Debug)]
enum Step {
    Publish,
    Fetch,
    Bring,
    Try,
    Ask,
    Word,
    Speak,
    Wait,
    Lose,
}

proptest! {
    /// Whatever the order: all that is published reaches the client once and in order, by requests first and then by the
    /// WebSocket, and all that it says reaches the room once and in order.
    #[test]
    fn in_any_order_nothing_is_lost_or_comes_twice(steps in prop::collection::vec(prop_oneof![
        3 => Just(Step::Publish), 3 => Just(Step::Fetch), 2 => Just(Step::Bring), 2 => Just(Step::Try),
        2 => Just(Step::Ask), 1 => Just(Step::Word), 2 => Just(Step::Speak), 1 => Just(Step::Wait),
        1 => Just(Step::Lose),
    ], 1..60)) {
        let mut rig = alone();
        let author = rig.member("r");
        let session = member(&mut rig, "r");
        let (mut said, mut brought, mut heard) = (0_u32, 0_u32, Vec::new());
        let (mut probe, mut asked, mut waiting) = (None::<ConnId>, false, Vec::<ConnId>::new());
        let mut socket = None::<ConnId>;
        for step in steps {
            match (step, probe, socket) {
                (Step::Publish, ..) => {
                    said += 1;
                    rig.say(author, &publish(&["r"], &said.to_string()));
                }
                (Step::Fetch, _, None) => waiting.push(fetch(&mut rig, &session)),
                (Step::Bring, _, None) => {
                    brought += 1;
                    bring(&mut rig, &session, &format!(r#"42["own",{brought},{{"room":"r"}}]"#));
                }
                (Step::Speak, _, Some(socket)) => {
                    brought += 1;
                    say(&mut rig, socket, &format!(r#"42["own",{brought},{{"room":"r"}}]"#));
                }
                (Step::Try, None, None) => (probe, asked) = (Some(tried(&mut rig, &session)), false),
                (Step::Ask, Some(conn), None) if !asked => {
                    say(&mut rig, conn, "2probe");
                    asked = true;
                }
                (Step::Word, Some(conn), None) if asked => {
                    say(&mut rig, conn, "5");
                    socket = Some(own(&session));
                }
                (Step::Lose, Some(conn), None) => {
                    rig.event(Event::ReceivedEnd { conn });
                    probe = None;
                }
                (Step::Wait, ..) => rig.later(Duration::from_millis(300)),
                _ => {}
            }
            rig.settle();
            waiting.retain(|conn| match answered(&mut rig, *conn) {
                Some((_, _, body)) => {
                    heard.extend(body.split('\u{1e}').map(str::to_owned));
                    false
                }
                None => true,
            });
        }
        match socket {
            Some(socket) => heard.extend(packets(&mut rig, socket)),
            None => {
                for _ in 0..3 {
                    let conn = fetch(&mut rig, &session);
                    rig.later(Duration::from_secs(11));
                    rig.settle();
                    let (_, body) = answer(&mut rig, conn);
                    heard.extend(body.split('\u{1e}').map(str::to_owned));
                }
            }
        }
        let of = |kind: &str| -> Vec<u32> {
            let begins = format!("42[\"{kind}\",");
            let own = heard.iter().filter_map(|packet| packet.strip_prefix(&begins));
            own.map(|rest| rest.split(',').next().expect("a number").parse().expect("one")).collect()
        };
        prop_assert_eq!(of("t"), (1..=said).collect::<Vec<_>>(), "{:?}", heard);
        prop_assert_eq!(of("own"), (1..=brought).collect::<Vec<_>>(), "{:?}", heard);
    }
}
