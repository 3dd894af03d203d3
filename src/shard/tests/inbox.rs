//! Errands, their answers, and notices, with the store played by hand.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::auth::user_room;
use crate::base::id::ConnId;
use crate::base::inbox::{Marked, Note, Page};
use crate::contract::Event;
use crate::hub::Encoded;
use crate::shard::tests::guard::{ada, by_header, enter};
use crate::shard::tests::rig::{Heard, Rig};
use crate::shard::{Errand, Errands, Kept, Mail, News, Notice, Said, Task};

fn errand(rig: &mut Rig) -> Errand {
    match rig.shard.poll_errand() {
        Some(Errands::Ask(errand)) => *errand,
        other => panic!("{other:?}"),
    }
}

/// What the client heard, which is one message.
fn only(rig: &mut Rig, conn: ConnId) -> Value {
    rig.settle();
    match &rig.heard(conn)[..] {
        [Heard::Text(text)] => text.clone(),
        other => panic!("{other:?}"),
    }
}

fn notice(user: &str, id: u64) -> Notice {
    let note = Note { id, at: 1, kind: "".into(), payload: "{}".into() };
    let owner = user_room(None, user).into();
    let news = News::Note(note, 4);
    Notice { owner, news, except: None, receipt: None, encoded: Encoded::default() }
}

#[test]
fn a_question_goes_to_the_store_under_its_user_and_the_answer_finds_the_client() {
    let mut rig = by_header();
    let conn = enter(&mut rig, &json!({"sub": "ada", "tenant": "acme", "exp": 1000}));
    rig.say(conn, r#"{"type":"throng:inbox","after":3,"ref":"r"}"#);
    let errand = errand(&mut rig);
    assert_eq!(&*errand.owner, user_room(Some("acme"), "ada"));
    assert!(matches!(errand.task, Task::List(span) if span.after == 3), "{errand:?}");
    assert!(rig.shard.poll_errand().is_none());
    let told = Said::Page(Page { newest: 7, unread: 2, ..Page::default() });
    rig.take(Mail::Kept(Box::new(Kept { to: conn, reference: errand.reference, told })));
    let reply = only(&mut rig, conn);
    assert_eq!(
        (&reply["ref"], &reply["newest"], &reply["unread"]),
        (&json!("r"), &json!(7), &json!(2))
    );
    rig.say(conn, r#"{"type":"throng:read","ids":[5]}"#);
    let errand = self::errand(&mut rig);
    assert_eq!(errand.task, Task::Read(Marked::Ids(vec![5])));
    let told = Said::Unread(1);
    rig.take(Mail::Kept(Box::new(Kept { to: conn, reference: None, told })));
    rig.settle();
    assert_eq!(rig.heard(conn), [], "who gave no ref wants no answer");
}

#[test]
fn who_is_nobody_in_particular_has_no_inbox() {
    let mut rig = Rig::alone();
    let conn = rig.open();
    for text in
        [r#"{"type":"throng:inbox","ref":1}"#, r#"{"type":"throng:read","all":true,"ref":1}"#]
    {
        rig.say(conn, text);
        let error = only(&mut rig, conn);
        assert_eq!((&error["code"], &error["ref"]), (&json!("unauthorized"), &json!(1)));
        assert!(rig.shard.poll_errand().is_none());
    }
}

#[test]
fn a_store_without_space_is_told_to_the_client_and_counted() {
    let mut rig = by_header();
    let conn = enter(&mut rig, &ada());
    rig.say(conn, r#"{"type":"throng:read","all":true,"ref":1}"#);
    let errand = errand(&mut rig);
    let now = rig.now;
    rig.shard.handle_given_back(Errands::Ask(Box::new(errand)), now);
    let error = only(&mut rig, conn);
    assert_eq!((&error["code"], &error["ref"]), (&json!("overloaded"), &json!(1)));
    assert_eq!(rig.shard.counters().errands_refused_total, 1);
    let told = Said::Refused("the store is full");
    rig.say(conn, r#"{"type":"throng:inbox"}"#);
    let errand = self::errand(&mut rig);
    rig.take(Mail::Kept(Box::new(Kept { to: conn, reference: errand.reference, told })));
    assert_eq!(only(&mut rig, conn)["message"], "the store is full");
}

#[test]
fn a_client_may_ask_only_so_much_before_it_is_answered() {
    let mut settings = crate::shard::tests::guard::guarded(&[crate::auth::Source::Header], |_| {});
    settings.limits.outstanding = 2;
    let mut rig = Rig::new(0, 1, settings);
    let conn = enter(&mut rig, &ada());
    for _ in 0..3 {
        rig.say(conn, r#"{"type":"throng:inbox"}"#);
    }
    assert_eq!(only(&mut rig, conn)["code"], "overloaded");
    let errand = errand(&mut rig);
    self::errand(&mut rig);
    assert!(rig.shard.poll_errand().is_none());
    let told = Said::Page(Page::default());
    rig.take(Mail::Kept(Box::new(Kept { to: conn, reference: errand.reference, told })));
    rig.say(conn, r#"{"type":"throng:inbox"}"#);
    self::errand(&mut rig);
}

#[test]
fn an_answer_for_a_client_that_has_gone_meets_nobody_also_when_its_index_is_in_other_hands() {
    let mut rig = by_header();
    let conn = enter(&mut rig, &ada());
    rig.say(conn, r#"{"type":"throng:inbox","ref":1}"#);
    let errand = errand(&mut rig);
    rig.event(Event::ReceivedEnd { conn });
    rig.settle();
    let next = enter(&mut rig, &ada());
    assert_eq!(next.index, conn.index);
    let told = Said::Page(Page::default());
    rig.take(Mail::Kept(Box::new(Kept { to: conn, reference: errand.reference, told })));
    rig.settle();
    assert_eq!(rig.heard(next), []);
}

#[test]
fn a_notice_reaches_the_connections_of_its_user_and_says_how_many() {
    let mut rig = by_header();
    let ada = [(); 2].map(|()| enter(&mut rig, &self::ada()));
    let bob = enter(&mut rig, &json!({"sub": "bob", "exp": 1000}));
    let other = enter(&mut rig, &json!({"sub": "ada", "tenant": "acme", "exp": 1000}));
    rig.take(Mail::Notice(Arc::new(Notice { receipt: Some(9), ..notice("ada", 5) })));
    for conn in ada {
        let push = only(&mut rig, conn);
        assert_eq!(
            push,
            json!({"type": "throng:notification", "id": 5, "at": 1, "payload": {}, "unread": 4})
        );
    }
    assert_eq!((rig.heard(bob), rig.heard(other)), (vec![], vec![]));
    let Some(Errands::Reached { receipt, connections }) = rig.shard.poll_errand() else {
        panic!("no receipt");
    };
    assert_eq!((receipt, connections), (9, 2));
    let nobody = Notice { receipt: Some(10), ..notice("eve", 5) };
    rig.take(Mail::Notice(Arc::new(nobody)));
    let told = rig.shard.poll_errand();
    assert!(matches!(told, Some(Errands::Reached { receipt: 10, connections: 0 })), "{told:?}");
    assert_eq!(rig.shard.counters().notifications_total, 2);
    let except = Some(rig.address(ada[0]));
    let unread = Notice { news: News::Unread(3), except, ..notice("ada", 0) };
    rig.take(Mail::Notice(Arc::new(unread)));
    assert_eq!(only(&mut rig, ada[1]), json!({"type": "throng:unread", "unread": 3}));
    assert_eq!(rig.heard(ada[0]), [], "who read it knows");
    assert!(rig.shard.poll_errand().is_none());
}

#[test]
fn answers_and_notices_reach_a_client_in_the_order_of_their_mail() {
    let mut rig = by_header();
    let conn = enter(&mut rig, &ada());
    rig.say(conn, r#"{"type":"throng:inbox","ref":1}"#);
    let errand = errand(&mut rig);
    rig.take(Mail::Notice(Arc::new(notice("ada", 1))));
    let told = Said::Page(Page { newest: 1, ..Page::default() });
    rig.take(Mail::Kept(Box::new(Kept { to: conn, reference: errand.reference, told })));
    rig.take(Mail::Notice(Arc::new(notice("ada", 2))));
    rig.settle();
    let heard = rig.heard(conn);
    let marks: Vec<&Value> = heard
        .iter()
        .map(|frame| match frame {
            Heard::Text(text) => text.get("newest").unwrap_or(&text["id"]),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(marks, [1, 1, 2]);
    assert_eq!(heard.len(), 3);
}
