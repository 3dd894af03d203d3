//! Rooms whose history all nodes share: what goes to the bridge, what waits for it, what comes of its answers.

use std::time::Duration;

use serde_json::{Value, json};

use crate::base::cursor::{Cursor, Stale};
use crate::base::glob::Glob;
use crate::base::id::{ConnId, NodeTag, ShardId};
use crate::hub::{Audience, HistoryLimits, Origin, Publication, Receipt, Target};
use crate::shard::tests::rig::{Heard, Rig, draft, settings};
use crate::shard::{Decided, Fetched, Joint, Mail, NamespaceRules, Question, RoomMemory, Settings};

const EPOCH: u64 = (1 << 63) + 7;

fn at(offset: u64) -> Cursor {
    Cursor { epoch: EPOCH, offset }
}

/// The only shard of a node that shares the history of all rooms, and keeps three publications of each.
fn sharing() -> Rig {
    sharing_with(|_| {})
}

fn sharing_with(change: impl FnOnce(&mut Settings)) -> Rig {
    let mut settings = settings();
    change(&mut settings);
    let limits = HistoryLimits { count: 3, bytes: 1 << 20, age: Duration::from_secs(60) };
    settings.rooms.shared = vec![Glob::new("*")];
    settings.rooms.namespaces = vec![NamespaceRules {
        pattern: Glob::new("*"),
        overflow: settings.rooms.overflow,
        join: None,
        publish: None,
        origins: None,
        memory: RoomMemory { history: Some(limits), ..RoomMemory::default() },
        queued: 0,
        write_delay: Duration::ZERO,
        payload: 0,
    }];
    Rig::new_in(NodeTag(0xabc), 0, 1, settings)
}

/// What has gone to the bridge about shared histories since this was last asked.
fn shares(rig: &mut Rig) -> Vec<Joint> {
    rig.settle();
    let post = std::mem::take(&mut rig.post).into_iter();
    let share = |(to, mail)| match mail {
        Mail::Joint(share) => {
            assert_eq!(to, ShardId(1), "the bridge");
            Some(*share)
        }
        _ => None,
    };
    post.filter_map(share).collect()
}

fn give(rig: &mut Rig, joint: Joint) {
    rig.take(Mail::Joint(Box::new(joint)));
    rig.settle();
}

fn numbered(offset: u64) -> Publication {
    let audience = Audience { target: Target::Room, except: None };
    Publication { cursor: at(offset), ..draft("r", audience, Origin::BackEnd(None)) }
}

fn arrive(rig: &mut Rig, offset: u64) {
    let draft = Publication { cursor: Cursor::default(), ..numbered(offset) };
    give(rig, Joint::Arrived("r".into(), at(offset), Some(draft)));
}

fn texts(rig: &mut Rig, conn: ConnId) -> Vec<Value> {
    let text = |heard| match heard {
        Heard::Text(text) => Some(text),
        _ => None,
    };
    rig.heard(conn).into_iter().filter_map(text).collect()
}

fn offsets(rig: &mut Rig, conn: ConnId) -> Vec<u64> {
    let texts = texts(rig, conn).into_iter();
    texts.filter(|text| text["type"] == "x").filter_map(|text| text["offset"].as_u64()).collect()
}

fn join(rig: &mut Rig, since: Option<Cursor>) -> ConnId {
    let conn = rig.open();
    let mut message = json!({"type": "throng:join", "room": "r", "ref": 1});
    if let Some(Cursor { epoch, offset }) = since {
        message["since"] = json!({"epoch": format!("{epoch:x}"), "offset": offset});
    }
    rig.say(conn, &message.to_string());
    rig.settle();
    conn
}

/// A member of a room that is at that number.
fn member(rig: &mut Rig, offset: u64) -> ConnId {
    let conn = join(rig, None);
    assert!(matches!(&shares(rig)[..], [Joint::Follow(room)] if **room == *"r"));
    give(rig, Joint::Followed("r".into(), Some(at(offset))));
    assert_eq!(texts(rig, conn)[0]["offset"], json!(offset));
    conn
}

/// The question that the bridge is to look up.
fn fetch(rig: &mut Rig) -> Question {
    match shares(rig).pop() {
        Some(Joint::Fetch(question, _)) => question,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_publication_is_nobodys_until_it_has_come_back_with_its_number() {
    let mut rig = sharing();
    let conn = member(&mut rig, 5);
    rig.say(conn, r#"{"type":"x","room":"r","ref":2}"#);
    let mut sent = shares(&mut rig);
    let Some(Joint::Keep(draft)) = sent.pop() else { panic!("{sent:?}") };
    assert_eq!((draft.cursor, sent.len()), (Cursor::default(), 0));
    assert!(texts(&mut rig, conn).is_empty(), "neither delivered nor answered");
    arrive(&mut rig, 6);
    let receipt = draft.terms.keep.expect("it is to be numbered elsewhere").receipt;
    give(&mut rig, Joint::Told(receipt.clone(), Decided::Taken("r".into(), at(6))));
    let heard = texts(&mut rig, conn);
    assert_eq!((&heard[0]["type"], &heard[0]["offset"]), (&json!("x"), &json!(6)));
    let epoch = json!(format!("{EPOCH:x}"));
    let told = (&heard[1]["ref"], &heard[1]["offset"], &heard[1]["epoch"]);
    assert_eq!(told, (&json!(2), &json!(6), &epoch));
    give(&mut rig, Joint::Told(receipt, Decided::Refused("r".into(), "no memory")));
    let heard = texts(&mut rig, conn);
    assert_eq!((&heard[0]["code"], &heard[0]["ref"]), (&json!("overloaded"), &json!(2)));
}

#[test]
fn what_waits_for_the_bridge_counts_until_it_is_answered() {
    let mut rig = sharing_with(|settings| settings.limits.outstanding = 1);
    let conn = join(&mut rig, None);
    let too_many = |rig: &mut Rig| {
        rig.say(conn, r#"{"type":"throng:members","room":"r","ref":9}"#);
        rig.settle();
        let heard = texts(rig, conn);
        heard.iter().any(|text| text["ref"] == 9 && text["code"] == "overloaded")
    };
    // The place of the room.
    assert!(matches!(&shares(&mut rig)[..], [Joint::Follow(_)]));
    assert!(too_many(&mut rig));
    give(&mut rig, Joint::Followed("r".into(), Some(at(5))));
    assert!(!too_many(&mut rig));
    // The number of a publication, taken or not.
    for decided in [Decided::Taken("r".into(), at(6)), Decided::Refused("r".into(), "no memory")] {
        rig.say(conn, r#"{"type":"x","room":"r","ref":2}"#);
        let Some(Joint::Keep(draft)) = shares(&mut rig).pop() else { panic!("nothing sent") };
        assert!(too_many(&mut rig));
        rig.say(conn, r#"{"type":"x","room":"r","ref":3}"#);
        assert!(shares(&mut rig).is_empty(), "one is under way");
        let receipt = draft.terms.keep.expect("it is to be numbered elsewhere").receipt;
        give(&mut rig, Joint::Told(receipt, decided));
        assert!(!too_many(&mut rig));
    }
    // Who asks for no answer awaits none.
    rig.say(conn, r#"{"type":"x","room":"r"}"#);
    assert_eq!(shares(&mut rig).len(), 1);
    assert!(!too_many(&mut rig));
    assert_eq!(rig.shard.counters().awaited_commands, 0);
}

#[test]
fn who_does_not_ask_for_an_answer_hears_of_a_refusal_only() {
    let mut rig = sharing();
    let conn = member(&mut rig, 0);
    rig.say(conn, r#"{"type":"x","room":"r"}"#);
    let Some(Joint::Keep(draft)) = shares(&mut rig).pop() else { panic!("nothing sent") };
    let receipt = draft.terms.keep.expect("it is to be numbered elsewhere").receipt;
    assert!(matches!(&receipt, Receipt::Client { reference: None, .. }));
    give(&mut rig, Joint::Told(receipt.clone(), Decided::Taken("r".into(), at(1))));
    assert!(texts(&mut rig, conn).is_empty());
    give(&mut rig, Joint::Told(receipt, Decided::Refused("r".into(), "no memory")));
    assert_eq!(texts(&mut rig, conn)[0]["code"], "overloaded");
}

#[test]
fn a_join_waits_until_it_is_known_where_the_room_is_and_the_next_does_not() {
    let mut rig = sharing();
    let first = join(&mut rig, None);
    assert_eq!(shares(&mut rig).len(), 1);
    let second = join(&mut rig, None);
    assert!(shares(&mut rig).is_empty(), "it is asked once");
    assert!(texts(&mut rig, first).is_empty() && texts(&mut rig, second).is_empty());
    give(&mut rig, Joint::Followed("r".into(), Some(at(9))));
    for conn in [first, second] {
        assert_eq!(texts(&mut rig, conn)[0]["offset"], 9);
    }
    let third = join(&mut rig, None);
    assert_eq!(texts(&mut rig, third)[0]["offset"], 9);
    arrive(&mut rig, 10);
    for conn in [first, second, third] {
        assert_eq!(offsets(&mut rig, conn), [10]);
    }
}

#[test]
fn when_redis_cannot_be_asked_a_join_is_refused_and_the_next_asks_again() {
    let mut rig = sharing();
    for _ in 0..2 {
        let conn = join(&mut rig, None);
        assert_eq!(shares(&mut rig).len(), 1);
        give(&mut rig, Joint::Followed("r".into(), None));
        assert_eq!(texts(&mut rig, conn)[0]["code"], "overloaded");
        rig.settle();
        arrive(&mut rig, 1);
        assert!(offsets(&mut rig, conn).is_empty(), "it is no member");
    }
}

#[test]
fn who_leaves_while_its_join_waits_is_answered_and_the_room_is_forgotten() {
    let mut rig = sharing();
    let conn = join(&mut rig, None);
    rig.say(conn, r#"{"type":"throng:leave","room":"r"}"#);
    rig.settle();
    // Its shard's count goes out at the end of the turn.
    rig.settle();
    assert_eq!(texts(&mut rig, conn)[0]["code"], "overloaded");
    give(&mut rig, Joint::Followed("r".into(), Some(at(4))));
    let conn = join(&mut rig, None);
    assert!(texts(&mut rig, conn).is_empty(), "what was told then is not known now");
    give(&mut rig, Joint::Followed("r".into(), Some(at(6))));
    assert_eq!(texts(&mut rig, conn)[0]["offset"], 6);
}

#[test]
fn what_the_ring_does_not_hold_is_looked_up_and_nothing_is_missing_at_the_seam() {
    let mut rig = sharing();
    let _here = member(&mut rig, 5);
    let conn = join(&mut rig, Some(at(3)));
    let question = fetch(&mut rig);
    // Meanwhile two more come; the ring reaches back to the sixth.
    arrive(&mut rig, 6);
    arrive(&mut rig, 7);
    assert!(texts(&mut rig, conn).is_empty());
    let list = vec![numbered(4), numbered(5)];
    give(&mut rig, Joint::Fetched(question, Fetched::Publications(list)));
    arrive(&mut rig, 8);
    let heard = texts(&mut rig, conn);
    assert_eq!(heard[0]["recovered"], json!(true));
    let seen: Vec<u64> = heard[1..].iter().filter_map(|text| text["offset"].as_u64()).collect();
    assert_eq!(seen, [4, 5, 6, 7, 8]);
    assert!(shares(&mut rig).is_empty(), "the ring had the rest");
}

#[test]
fn what_was_looked_up_and_has_not_come_here_yet_comes_once() {
    let mut rig = sharing();
    let _here = member(&mut rig, 5);
    let conn = join(&mut rig, Some(at(4)));
    let question = fetch(&mut rig);
    let list = vec![numbered(5), numbered(6), numbered(7)];
    give(&mut rig, Joint::Fetched(question, Fetched::Publications(list)));
    arrive(&mut rig, 6);
    arrive(&mut rig, 7);
    assert_eq!(offsets(&mut rig, conn), [5, 6, 7]);
}

#[test]
fn more_that_comes_while_nothing_is_found_is_not_passed_over() {
    let mut rig = sharing();
    let _here = member(&mut rig, 5);
    let conn = join(&mut rig, Some(at(6)));
    let question = fetch(&mut rig);
    arrive(&mut rig, 6);
    arrive(&mut rig, 7);
    give(&mut rig, Joint::Fetched(question, Fetched::Publications(Vec::new())));
    arrive(&mut rig, 8);
    assert_eq!(offsets(&mut rig, conn), [7, 8]);
}

#[test]
fn who_has_seen_more_elsewhere_waits_until_it_has_come_here() {
    let mut rig = sharing();
    let _here = member(&mut rig, 5);
    let conn = join(&mut rig, Some(at(7)));
    let question = fetch(&mut rig);
    give(&mut rig, Joint::Fetched(question, Fetched::Publications(Vec::new())));
    arrive(&mut rig, 6);
    assert!(texts(&mut rig, conn).is_empty());
    arrive(&mut rig, 7);
    let heard = texts(&mut rig, conn);
    assert_eq!((heard.len(), &heard[0]["recovered"]), (1, &json!(true)), "{heard:?}");
    arrive(&mut rig, 8);
    assert_eq!(offsets(&mut rig, conn), [8]);
}

#[test]
fn a_cursor_that_nobody_can_go_on_from_gets_one_resync_and_then_what_is_live() {
    for (fetched, reason) in [
        (Fetched::Stale(Stale::TooOld), "too_old"),
        (Fetched::Stale(Stale::Ahead), "ahead"),
        (Fetched::Stale(Stale::Epoch), "epoch"),
    ] {
        let mut rig = sharing();
        let _here = member(&mut rig, 5);
        let conn = join(&mut rig, Some(at(1)));
        let question = fetch(&mut rig);
        give(&mut rig, Joint::Fetched(question, fetched));
        let heard = texts(&mut rig, conn);
        assert_eq!(heard[0]["recovered"], json!(false));
        let told = (&heard[1]["reason"], &heard[1]["offset"], heard.len());
        assert_eq!(told, (&json!(reason), &json!(5), 2));
        arrive(&mut rig, 6);
        assert_eq!(offsets(&mut rig, conn), [6]);
    }
}

#[test]
fn a_room_that_goes_on_from_elsewhere_tells_its_members_once_and_keeps_nothing_of_before() {
    let mut rig = sharing();
    let conn = member(&mut rig, 5);
    arrive(&mut rig, 6);
    assert_eq!(offsets(&mut rig, conn), [6]);
    give(&mut rig, Joint::Reset("r".into(), at(20), Stale::TooOld));
    let heard = texts(&mut rig, conn);
    let told = (&heard[0]["type"], &heard[0]["reason"], &heard[0]["offset"], heard.len());
    assert_eq!(told, (&json!("throng:resync"), &json!("too_old"), &json!(20), 1));
    arrive(&mut rig, 21);
    assert_eq!(offsets(&mut rig, conn), [21]);
    // What came before leads nowhere, so it is looked up.
    join(&mut rig, Some(at(6)));
    fetch(&mut rig);
}

#[test]
fn a_number_without_a_publication_is_passed_and_nothing_is_kept_across_it() {
    let mut rig = sharing();
    let conn = member(&mut rig, 5);
    arrive(&mut rig, 6);
    give(&mut rig, Joint::Arrived("r".into(), at(7), None));
    arrive(&mut rig, 8);
    assert_eq!(offsets(&mut rig, conn), [6, 8]);
    join(&mut rig, Some(at(6)));
    fetch(&mut rig);
    let late = join(&mut rig, Some(at(7)));
    assert_eq!(offsets(&mut rig, late), [8], "out of the ring");
}

#[test]
fn a_shared_room_among_other_targets_goes_alone_and_the_rest_in_one_piece() {
    let mut rig = sharing();
    let conn = rig.open();
    rig.say(conn, r#"{"type":"x","rooms":["r","s"],"connections":["def-0-1-1"],"ref":1}"#);
    rig.settle();
    let (mut kept, mut across) = (Vec::new(), Vec::new());
    for (_, mail) in std::mem::take(&mut rig.post) {
        match mail {
            Mail::Joint(share) => match *share {
                Joint::Keep(draft) => kept.push(draft.room.to_string()),
                other => panic!("{other:?}"),
            },
            Mail::Across { crossing, .. } => {
                across.extend(crossing.publications().iter().map(|one| one.to.target.clone()));
            }
            _ => {}
        }
    }
    assert_eq!(kept, ["r", "s"]);
    assert!(matches!(&across[..], [Target::Connections(_)]), "{across:?}");
    assert_eq!(texts(&mut rig, conn)[0]["ok"], json!(true), "it is answered at once");
}
