//! Publications that are taken once over all nodes: who is asked when, what waits behind, what comes of each answer.

use serde_json::Value;
use smallvec::SmallVec;

use crate::base::id::{ConnId, NodeTag, ShardId};
use crate::hub::{Audience, Origin, Publication, Target};
use crate::shard::tests::history::{remembering, texts};
use crate::shard::tests::rig::{Rig, draft};
use crate::shard::{Mail, Named, Naming, Report, Submission, SubmissionItem};

fn rig(most: Option<usize>) -> (Rig, ConnId) {
    let mut settings = remembering(100);
    settings.capacity.ids = most;
    let mut rig = Rig::new_in(NodeTag(0xabc), 0, 1, settings);
    let member = rig.member("room");
    texts(&mut rig, member);
    rig.post.clear();
    (rig, member)
}

/// A back end's publication under that id.
fn of_back_end(id: &str) -> Publication {
    let to = Audience { target: Target::Room, except: None };
    let id = serde_json::value::to_raw_value(id).expect("JSON");
    let payload = Some(id.clone().into());
    Publication { id: Some(id), payload, ..draft("room", to, Origin::BackEnd(None)) }
}

fn submit(rig: &mut Rig, order: u64, id: &str) {
    let drafts = SmallVec::from_iter([of_back_end(id)]);
    let item = SubmissionItem { index: 3, drafts, group: None, ttl: None, across: None };
    rig.take(Mail::Submit(Box::new(Submission { order, items: vec![item] })));
    rig.settle();
}

/// What the bridge is asked.
fn asked(rig: &mut Rig) -> Vec<Naming> {
    let post = std::mem::take(&mut rig.post).into_iter();
    let naming = |(to, mail)| match mail {
        Mail::Name(naming) => {
            assert_eq!(to, ShardId(1), "the bridge");
            Some(*naming)
        }
        _ => None,
    };
    post.filter_map(naming).collect()
}

fn answer(rig: &mut Rig, first: &[Option<bool>]) {
    rig.take(Mail::Named(Box::new(Named { room: "room".into(), first: first.to_vec() })));
    rig.settle();
}

/// Orders, with whether each was a repeat or was refused.
fn reports(rig: &mut Rig) -> Vec<(u64, &'static str)> {
    let mut told = Vec::new();
    rig.shard.poll_reports(&mut |report| {
        told.push(match report {
            Report::Taken { order, repeats, .. } if repeats.is_empty() => (order, "taken"),
            Report::Taken { order, repeats, .. } => {
                assert_eq!(repeats, [3]);
                (order, "repeat")
            }
            Report::Refused { order, .. } => (order, "refused"),
            Report::Kept { .. } | Report::Afar { .. } | Report::Reached { .. } => {
                panic!("nobody asked for that")
            }
        });
        Ok(())
    });
    told
}

fn payloads(rig: &mut Rig, member: ConnId) -> Vec<Value> {
    texts(rig, member).into_iter().map(|push| push["payload"].clone()).collect()
}

#[test]
fn what_no_node_has_taken_is_published_when_that_is_known_and_the_room_waits_behind_it() {
    let (mut rig, member) = rig(Some(8));
    let author = rig.open();
    submit(&mut rig, 1, "a");
    submit(&mut rig, 2, "b");
    rig.say(author, r#"{"type":"t","room":"room","payload":"plain"}"#);
    submit(&mut rig, 3, "c");
    let [naming] = &asked(&mut rig)[..] else { panic!("one question at a time") };
    assert_eq!((naming.home, &*naming.room, naming.names.len()), (ShardId(0), "room", 1));
    assert_eq!(naming.window, std::time::Duration::from_secs(10));
    assert!(naming.names[0].contains("BackEnd"), "{naming:?}");
    assert!(texts(&mut rig, member).is_empty() && reports(&mut rig).is_empty());
    answer(&mut rig, &[Some(true)]);
    assert_eq!(payloads(&mut rig, member), ["a"]);
    assert_eq!(asked(&mut rig)[0].names.len(), 1, "the next, and nothing behind what may go on");
    answer(&mut rig, &[Some(true)]);
    assert_eq!(payloads(&mut rig, member), ["b", "plain"]);
    assert_eq!(asked(&mut rig).len(), 1);
    answer(&mut rig, &[Some(true)]);
    assert_eq!(payloads(&mut rig, member), ["c"]);
    assert_eq!(reports(&mut rig), [(1, "taken"), (2, "taken"), (3, "taken")]);
    // What this node has taken it knows.
    submit(&mut rig, 4, "a");
    assert!(asked(&mut rig).is_empty() && payloads(&mut rig, member).is_empty());
    assert_eq!(reports(&mut rig), [(4, "repeat")]);
}

#[test]
fn what_a_node_has_taken_is_told_to_be_a_repeat_and_what_nobody_knows_is_published() {
    let (mut rig, member) = rig(Some(8));
    for (order, id) in [(1, "a"), (2, "b"), (3, "c"), (4, "d")] {
        submit(&mut rig, order, id);
    }
    answer(&mut rig, &[Some(false)]);
    assert!(payloads(&mut rig, member).is_empty());
    assert_eq!(asked(&mut rig).last().expect("a question").names.len(), 3, "together");
    answer(&mut rig, &[None, Some(false), Some(true)]);
    assert_eq!(payloads(&mut rig, member), ["b", "d"]);
    let mut told = reports(&mut rig);
    told.sort_unstable();
    assert_eq!(told, [(1, "repeat"), (2, "taken"), (3, "repeat"), (4, "taken")]);
    for (order, id) in [(5, "a"), (6, "b"), (7, "c")] {
        submit(&mut rig, order, id);
    }
    assert!(asked(&mut rig).is_empty(), "they are known here now");
    assert_eq!(reports(&mut rig), [(5, "repeat"), (6, "repeat"), (7, "repeat")]);
    assert_eq!(rig.shard.counters().waiting_to_be_stored, 0);
}

#[test]
fn nobody_is_asked_about_what_no_other_node_can_know_or_where_that_is_not_wanted() {
    let (mut rig, member) = rig(Some(8));
    let author = rig.open();
    rig.say(author, r#"{"type":"t","room":"room","id":"mine","payload":1,"ref":1}"#);
    let foreign = of_back_end("of another node");
    rig.take(Mail::Publish { drafts: vec![foreign], group: None, across: None });
    rig.settle();
    assert!(asked(&mut rig).is_empty());
    assert_eq!(payloads(&mut rig, member).len(), 2);
    let (mut rig, member) = self::rig(None);
    submit(&mut rig, 1, "a");
    assert!(asked(&mut rig).is_empty());
    assert_eq!(payloads(&mut rig, member), ["a"]);
}

#[test]
fn more_than_may_wait_is_refused_and_the_rest_goes_on() {
    let (mut rig, member) = rig(Some(2));
    (0..9).for_each(|order| submit(&mut rig, order, &order.to_string()));
    let refused = reports(&mut rig);
    let is_refused = |(_, what): &(u64, &str)| *what == "refused";
    assert!(!refused.is_empty() && refused.iter().all(is_refused), "{refused:?}");
    asked(&mut rig);
    answer(&mut rig, &[Some(true)]);
    let waiting = asked(&mut rig).last().expect("a question").names.len();
    answer(&mut rig, &vec![Some(true); waiting]);
    assert_eq!(reports(&mut rig).len() + refused.len(), 9);
    let got = payloads(&mut rig, member);
    assert_eq!(got.iter().filter(|payload| payload.is_string()).count(), 9 - refused.len());
}
