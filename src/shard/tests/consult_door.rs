//! The application's word at the door: by a claim, or when it is asked.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::auth::{Revocation, Source, Ticket, mint};
use crate::base::id::ConnId;
use crate::contract::Event;
use crate::shard::tests::consult::consult;
use crate::shard::tests::guard::{
    ada, answer, ask, bearer, by_header, enter, guarded, join, knock, login, tickets,
};
use crate::shard::tests::rig::{Heard, Rig, frame};
use crate::shard::{Mail, Settings};

const YES: &str = r#"{"allow":true}"#;
const SUSPENDED: &str = r#"{"allow":false,"code":401,"message":"suspended"}"#;
const PAGE: &str = "Origin: http://a\r\n";

fn door(sources: &[Source], browser_errors: bool) -> Settings {
    guarded(sources, |access| {
        let mut consult = consult();
        consult.connect = true;
        access.consult = Some(consult);
        access.browser_errors = browser_errors;
        access.verifier.rules.metadata_bytes = 100;
    })
}

/// A handshake that waits for the back end: the connection and the question.
fn held(rig: &mut Rig, headers: &str) -> (ConnId, u64, Value) {
    let conn = knock(rig, "/ws?x=1", headers);
    assert_eq!(rig.bytes(conn), b"", "nobody is answered before the back end has");
    assert_eq!(rig.shard.counters().pending_tickets, 1);
    let mut asked = rig.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    let (number, question) = asked.remove(0);
    (conn, number, question)
}

/// The reason of the close frame that ends what was said; `None` when there is none.
fn reason(bytes: &[u8]) -> Option<String> {
    let at = bytes.iter().rposition(|byte| *byte == 0x88)?;
    Some(String::from_utf8_lossy(&bytes[at + 4..]).into_owned())
}

#[test]
fn a_client_comes_in_after_the_back_end_has_said_yes_and_is_heard_from_the_first_word() {
    let mut rig = Rig::new(0, 1, door(&[Source::Header], false));
    let (conn, number, question) = held(&mut rig, &format!("{}{PAGE}", bearer(&ada())));
    let expected = json!({"question": "connect", "userId": "ada", "origin": "http://a", "path": "/ws",
        "clientId": rig.address(conn).to_string()});
    assert_eq!(question, expected);
    rig.receive(conn, &frame(0x81, join("a").as_bytes()));
    rig.rule(number, YES);
    let (head, frames) = answer(&mut rig, conn);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let [Heard::Text(hello), Heard::Text(joined)] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!((&hello["userId"], &joined["ok"]), (&json!("ada"), &json!(true)));
    // The same again is known.
    let conn = knock(&mut rig, "/ws", &format!("{}{PAGE}", bearer(&ada())));
    assert!(answer(&mut rig, conn).0.starts_with("HTTP/1.1 101 "));
    let counters = rig.shard.counters();
    assert_eq!((counters.questions_total, counters.questions_remembered_total), (1, 1));
}

#[test]
fn whom_the_back_end_refuses_hears_its_code_and_words_and_nothing_comes_of_it() {
    let mut rig = Rig::new(0, 1, door(&[Source::Header], false));
    let (conn, number, _) = held(&mut rig, &bearer(&ada()));
    rig.rule(number, SUSPENDED);
    let text = String::from_utf8(rig.bytes(conn)).expect("text");
    assert!(text.starts_with("HTTP/1.1 401 ") && text.ends_with("\r\n\r\nsuspended\n"), "{text}");
    rig.later(Duration::from_secs(2));
    let (conn, number, _) = held(&mut rig, &bearer(&ada()));
    rig.rule(number, r#"{"allow":false}"#);
    assert!(rig.bytes(conn).starts_with(b"HTTP/1.1 403 "));
    let counters = rig.shard.counters();
    assert_eq!((counters.auth_vetoed_total, counters.handshakes_refused_total), (2, 2));
    assert_eq!((counters.handshakes_total, counters.logins_total), (0, 0));
    assert_eq!((counters.memberships, counters.home_rooms), (0, 0));
}

#[test]
fn a_page_is_told_by_a_close_frame_where_browsers_are_to_be() {
    let mut rig = Rig::new(0, 1, door(&[Source::Header], true));
    let (conn, number, _) = held(&mut rig, &format!("{}{PAGE}", bearer(&ada())));
    rig.rule(number, SUSPENDED);
    let bytes = rig.bytes(conn);
    assert!(bytes.starts_with(b"HTTP/1.1 101 "));
    assert_eq!(reason(&bytes).as_deref(), Some("suspended"));
    assert_eq!(rig.shard.counters().auth_closed_total, 1);
    rig.later(Duration::from_secs(2));
    let (conn, number, _) = held(&mut rig, &format!("{}{PAGE}", bearer(&ada())));
    rig.rule(number, "");
    assert_eq!(reason(&rig.bytes(conn)).as_deref(), Some("busy: come back in 2 s"));
}

#[test]
fn whoever_cannot_be_decided_about_is_asked_to_come_back() {
    let mut rig = Rig::new(0, 1, door(&[Source::Header], false));
    let (conn, number, _) = held(&mut rig, &bearer(&ada()));
    rig.rule(number, "");
    let text = String::from_utf8(rig.bytes(conn)).expect("text");
    assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("Retry-After: 2\r\n"), "{text}");
    let counters = rig.shard.counters();
    assert_eq!((counters.questions_undecided_total, counters.auth_vetoed_total), (1, 0));
}

#[test]
fn a_client_that_goes_away_before_the_answer_leaves_nothing() {
    let mut rig = Rig::new(0, 1, door(&[Source::Header], false));
    let (conn, number, _) = held(&mut rig, &bearer(&ada()));
    let error = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    rig.event(Event::Lost { conn, error });
    rig.settle();
    rig.settle();
    let other = rig.accept().expect("let in");
    assert_eq!(other.index, conn.index);
    rig.rule(number, YES);
    assert_eq!(rig.bytes(other), b"");
    let counters = rig.shard.counters();
    assert_eq!((counters.pending_tickets, counters.pending_questions), (0, 0));
    assert_eq!((counters.handshakes_total, counters.memberships), (0, 0));
}

#[test]
fn a_handshake_that_waits_ends_in_time_and_with_a_revocation() {
    let mut rig = Rig::new(0, 1, door(&[Source::Header], false));
    let (conn, number, _) = held(&mut rig, &bearer(&ada()));
    rig.later(Duration::from_secs(11));
    rig.settle();
    assert!(rig.bytes(conn).starts_with(b"HTTP/1.1 408 "));
    rig.rule(number, "");
    let (conn, number, _) = held(&mut rig, &bearer(&ada()));
    let revocation =
        Revocation::User { tenant: None, user: "ada".into(), issued: 100, until: 6000 };
    rig.take(Mail::Revoke(Arc::new(revocation)));
    rig.settle();
    assert!(rig.bytes(conn).starts_with(b"HTTP/1.1 401 "));
    rig.rule(number, YES);
    assert_eq!(rig.shard.counters().handshakes_total, 0);
}

#[test]
fn a_ticket_is_redeemed_before_the_back_end_is_asked() {
    let mut rig = Rig::new(0, 1, door(&[Source::Ticket], false));
    let text =
        mint(&tickets(), r#"{"sub":"ada","meta":{"plan":1}}"#, Ticket { id: 4, expires: 120 });
    let target = format!("/ws?ticket={}", text.expect("a ticket"));
    let conn = knock(&mut rig, &target, "");
    assert_eq!(rig.bytes(conn), b"");
    let asked = rig.asked();
    assert_eq!((&asked[0].1["userId"], &asked[0].1["meta"]), (&json!("ada"), &json!({"plan": 1})));
    rig.rule(asked[0].0, YES);
    assert!(answer(&mut rig, conn).0.starts_with("HTTP/1.1 101 "));
    let conn = knock(&mut rig, &target, "");
    assert!(answer(&mut rig, conn).0.starts_with("HTTP/1.1 401 "), "used, and nobody is asked");
    assert_eq!(rig.asked(), []);
}

#[test]
fn who_is_nobody_in_particular_is_asked_about_by_its_address() {
    let mut settings = door(&[], false);
    let mut access = (*settings.access).clone();
    access.mode = crate::auth::Mode::Open;
    settings.access = Arc::new(access);
    let mut rig = Rig::new(0, 1, settings);
    let (conn, answer) = rig.knock("192.0.2.7", "");
    assert_eq!(answer, "");
    let asked = rig.asked();
    let question = &asked[0].1;
    assert_eq!((&question["userId"], &question["address"]), (&Value::Null, &json!("192.0.2.7")));
    rig.rule(asked[0].0, YES);
    assert!(rig.response(conn).starts_with("HTTP/1.1 101 "));
}

#[test]
fn a_login_by_the_first_message_waits_and_what_follows_it_waits_behind() {
    let mut rig = Rig::new(0, 1, door(&[Source::Message], false));
    let enter = |rig: &mut Rig| {
        let conn = knock(rig, "/ws", PAGE);
        assert!(answer(rig, conn).0.starts_with("HTTP/1.1 101 "));
        rig.say(conn, &login(&ada()));
        rig.say(conn, &join("a"));
        rig.say(conn, &login(&ada()));
        rig.say(conn, "no JSON");
        rig.settle();
        let heard = rig.heard(conn);
        assert!(
            matches!(&heard[..], [Heard::Text(error)] if error["code"] == "bad_json"),
            "{heard:?}"
        );
        conn
    };
    let conn = enter(&mut rig);
    let asked = rig.asked();
    assert_eq!((&asked[0].1["userId"], &asked[0].1["origin"]), (&json!("ada"), &json!("http://a")));
    assert_eq!(rig.shard.counters().held_commands, 3);
    rig.rule(asked[0].0, YES);
    let heard = rig.heard(conn);
    let said = |frame: &Heard| match frame {
        Heard::Text(text) => (text["type"].clone(), text["ref"].clone()),
        other => panic!("{other:?}"),
    };
    let reply = json!("throng:reply");
    let expected = [
        (json!("throng:connected"), Value::Null),
        (reply.clone(), json!(9)),
        (reply.clone(), json!(1)),
        (reply, json!(9)),
    ];
    assert_eq!(heard.iter().map(said).collect::<Vec<_>>(), expected);
    assert_eq!(rig.shard.counters().reauths_total, 1, "the second is a fresh token");
    rig.later(Duration::from_secs(11));
    let conn = enter(&mut rig);
    let asked = rig.asked();
    rig.rule(asked[0].0, SUSPENDED);
    let bytes = rig.bytes(conn);
    assert_eq!(reason(&bytes).as_deref(), Some("suspended"));
    let counters = rig.shard.counters();
    assert_eq!((counters.held_commands, counters.auth_vetoed_total), (0, 1));
}

#[test]
fn a_claim_refuses_with_its_code_and_words_in_every_place_a_token_may_stand() {
    let denied = json!({"sub": "ada", "exp": 5000, "deny": {"code": 401, "message": "pay first"}});
    let mut rig = by_header();
    let conn = knock(&mut rig, "/ws", &bearer(&denied));
    let text = String::from_utf8(rig.bytes(conn)).expect("text");
    assert!(text.starts_with("HTTP/1.1 401 ") && text.ends_with("\r\n\r\npay first\n"), "{text}");
    let bare = json!({"sub": "ada", "exp": 5000, "deny": "gone"});
    let conn = knock(&mut rig, "/ws", &bearer(&bare));
    assert!(rig.bytes(conn).starts_with(b"HTTP/1.1 403 "));
    let conn = enter(&mut rig, &json!({"sub": "ada", "exp": 5000, "deny": false}));
    let error = ask(&mut rig, conn, &login(&denied));
    assert_eq!((&error["code"], &error["message"]), (&json!("unauthorized"), &json!("pay first")));
    let conn = knock(&mut rig, "/ws", &bearer(&json!({"sub": "ada", "exp": 5000, "deny": 7})));
    assert!(rig.bytes(conn).starts_with(b"HTTP/1.1 401 "), "a claim that cannot be read");
    let counters = rig.shard.counters();
    assert_eq!((counters.auth_vetoed_total, counters.auth_malformed_total), (3, 1));
    assert_eq!(counters.handshakes_total, 1);
    let mut rig = Rig::new(0, 1, guarded(&[Source::Header], |access| access.browser_errors = true));
    let conn = knock(&mut rig, "/ws", &format!("{}{PAGE}", bearer(&denied)));
    assert_eq!(reason(&rig.bytes(conn)).as_deref(), Some("pay first"));
    let mut rig = Rig::new(0, 1, guarded(&[Source::Message], |_| {}));
    let conn = knock(&mut rig, "/ws", "");
    rig.say(conn, &login(&denied));
    rig.settle();
    assert_eq!(reason(&rig.bytes(conn)).as_deref(), Some("pay first"));
}
