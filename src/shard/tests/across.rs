//! What a shard has to do with other nodes: what it sends on, what it tells of its rooms.

use std::sync::Arc;

use serde_json::json;

use crate::base::id::{ConnAddress, NodeTag, ShardId};
use crate::hub::{Audience, Origin, Target};
use crate::shard::Mail;
use crate::shard::tests::rig::{Heard, Rig, draft, settings};

const NODE: NodeTag = NodeTag(0xabc);

fn linked(shards: u16) -> Rig {
    Rig::new_in(NODE, 0, shards, settings())
}

/// What has gone to the bridge since this was last asked: rooms and other targets of each command, and the
/// rooms that begin (+) and end (-) to matter.
fn sent(rig: &mut Rig, shards: u16) -> (Vec<Vec<String>>, Vec<String>) {
    rig.settle();
    let (mut across, mut interest) = (Vec::new(), Vec::new());
    for (to, mail) in std::mem::take(&mut rig.post) {
        match mail {
            Mail::Across { crossing, .. } => {
                assert_eq!(to, ShardId(shards));
                across
                    .push(crossing.publications().iter().map(|one| one.room.to_string()).collect());
            }
            Mail::Interest { room, wanted } => {
                assert_eq!(to, ShardId(shards));
                interest.push(format!("{}{room}", if wanted { '+' } else { '-' }));
            }
            _ => {}
        }
    }
    (across, interest)
}

#[test]
fn a_publication_goes_across_once_whether_it_has_members_here_or_not() {
    let mut rig = linked(1);
    let conn = rig.member("here");
    sent(&mut rig, 1);
    rig.say(conn, r#"{"type":"x","room":"here"}"#);
    rig.say(conn, r#"{"type":"x","room":"elsewhere"}"#);
    let (across, _) = sent(&mut rig, 1);
    assert_eq!(across, [["here"], ["elsewhere"]]);
}

#[test]
fn a_command_of_many_targets_goes_across_in_one_piece_with_what_is_there_only() {
    let mut rig = linked(1);
    let conn = rig.open();
    let far = "def-0-1-1";
    let own = ConnAddress { node: NODE, shard: ShardId(0), conn };
    let message = json!({"type": "x", "rooms": ["a", "b"], "connections": [far, own.to_string()]});
    rig.say(conn, &message.to_string());
    let (across, _) = sent(&mut rig, 1);
    assert_eq!(across, [["a", "b", "\u{1d}connections"]]);
    let alone = json!({"type": "x", "connections": [own.to_string()]});
    rig.say(conn, &alone.to_string());
    assert!(sent(&mut rig, 1).0.is_empty(), "it concerns nobody there");
    let heard = rig.heard(conn);
    let copies =
        heard.iter().filter(|heard| matches!(heard, Heard::Text(text) if text["type"] == "x"));
    assert_eq!(copies.count(), 2);
}

#[test]
fn what_came_from_another_node_is_not_sent_on_and_excepts_by_node() {
    let mut rig = linked(1);
    let conn = rig.member("r");
    let other = rig.member("r");
    rig.heard(conn);
    rig.heard(other);
    sent(&mut rig, 1);
    let same_place_elsewhere = ConnAddress { node: NodeTag(7), shard: ShardId(0), conn };
    let own = ConnAddress { node: NODE, shard: ShardId(0), conn: other };
    let except = crate::hub::Except {
        connections: [same_place_elsewhere, own].into(),
        ..crate::hub::Except::default()
    };
    let to = Audience { target: Target::Room, except: Some(Arc::new(except)) };
    let draft = draft("r", to, Origin::Connection(same_place_elsewhere));
    rig.take(Mail::Publish { drafts: vec![draft], group: None, across: None });
    assert!(sent(&mut rig, 1).0.is_empty());
    let [Heard::Text(push)] = &rig.heard(conn)[..] else { panic!("one push") };
    assert_eq!(push["from"], same_place_elsewhere.to_string());
    assert!(rig.heard(other).is_empty(), "excepted by its own node's name");
}

#[test]
fn the_bridge_is_told_when_a_room_begins_and_ends_to_have_members() {
    let mut rig = linked(1);
    let (one, two) = (rig.member("r"), rig.member("r"));
    assert_eq!(sent(&mut rig, 1).1, ["+r"]);
    rig.say(one, r#"{"type":"throng:leave","room":"r"}"#);
    assert!(sent(&mut rig, 1).1.is_empty());
    rig.say(two, r#"{"type":"throng:leave","room":"r"}"#);
    assert_eq!(sent(&mut rig, 1).1, ["-r"]);
}

#[test]
fn members_are_told_that_they_may_have_missed_something() {
    let mut rig = linked(1);
    let conn = rig.member("r");
    rig.heard(conn);
    rig.take(Mail::Astray(["r".into(), "nobody".into()].into()));
    rig.settle();
    let gap = json!({"type": "throng:gap", "room": "r", "lost": null});
    assert_eq!(rig.heard(conn), [Heard::Text(gap)]);
}

#[test]
fn a_bridge_that_takes_nothing_parks_mail_and_stops_publishers_like_any_full_inbox() {
    let mut rig = linked(1);
    let conn = rig.member("r");
    rig.settle();
    rig.full.insert(ShardId(1));
    for _ in 0..20 {
        rig.say(conn, r#"{"type":"x","room":"r","ref":1}"#);
        rig.settle();
    }
    let heard = rig.heard(conn);
    let refused = heard
        .iter()
        .filter(|heard| matches!(heard, Heard::Text(text) if text["code"] == "overloaded"));
    assert!(refused.count() > 0 || rig.shard.counters().paused_connections == 1, "{heard:?}");
    rig.full.clear();
    rig.settle();
    assert_eq!(rig.shard.counters().parked_mail, 0);
}

#[test]
fn a_node_that_works_alone_sends_nothing_across() {
    let mut rig = Rig::alone();
    let conn = rig.member("r");
    rig.say(conn, r#"{"type":"x","rooms":["r","s"]}"#);
    rig.settle();
    assert!(rig.post.is_empty());
    assert_eq!(rig.shard.counters().sent_across_total, 0);
}
