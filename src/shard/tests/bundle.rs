//! What is gathered in one turn: the same as one by one for everybody, in fewer items.

use serde_json::json;

use crate::base::shared::Overflow;
use crate::shard::tests::rig::{Heard, Rig, frame, publish, settings};

/// All of these in one read.
fn say_all(rig: &mut Rig, conn: crate::base::id::ConnId, texts: &[String]) {
    let frames: Vec<u8> = texts.iter().flat_map(|text| frame(0x81, text.as_bytes())).collect();
    rig.receive(conn, &frames);
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| publish(&["r"], &number.to_string())).collect()
}

#[test]
fn a_burst_is_one_item_for_each_member_and_all_its_publications_count() {
    let mut settings = settings();
    settings.queue = crate::flow::outbound::OutboundLimits::default();
    let mut rig = Rig::new(0, 1, settings);
    let members: Vec<_> = (0..2000).map(|_| rig.member("r")).collect();
    rig.settle();
    let before = rig.shard.counters();
    say_all(&mut rig, members[0], &numbers(0..100));
    rig.turn();
    assert!(rig.shard.queues.capacity() <= 4096, "{} places", rig.shard.queues.capacity());
    rig.settle();
    let after = rig.shard.counters();
    assert_eq!(after.deliveries_total - before.deliveries_total, 200_000);
    assert_eq!(after.sent_frames_total - before.sent_frames_total, 200_000);
    let expected: Vec<_> = (0..100).map(|number| json!(number)).collect();
    for conn in members {
        assert_eq!(rig.published(conn), expected);
    }
}

#[test]
fn who_leaves_in_the_middle_of_a_burst_gets_what_came_before_and_who_joins_what_comes_after() {
    let mut rig = Rig::alone();
    let (early, late) = (rig.member("r"), rig.open());
    let publisher = rig.open();
    say_all(&mut rig, publisher, &numbers(0..3));
    rig.say(early, r#"{"type":"throng:leave","room":"r","ref":1}"#);
    rig.say(late, r#"{"type":"throng:join","room":"r"}"#);
    say_all(&mut rig, publisher, &numbers(3..5));
    rig.settle();
    let heard = rig.heard(early);
    assert_eq!(heard.len(), 4, "{heard:?}");
    assert!(matches!(&heard[3], Heard::Text(reply) if reply["ref"] == 1), "left comes last");
    // The room was empty in between, so it is another one.
    assert_eq!(rig.published(late), [json!(3), json!(4)]);
}

#[test]
fn an_exception_in_the_middle_of_a_burst_keeps_the_order_of_everybody_else() {
    let mut rig = Rig::alone();
    let (one, other) = (rig.member("r"), rig.member("r"));
    let address = rig.address(one);
    let excepting = format!(r#"{{"type":"t","room":"r","except":["{address}"],"payload":2}}"#);
    let mut texts = numbers(0..2);
    texts.push(excepting);
    texts.extend(numbers(3..5));
    say_all(&mut rig, other, &texts);
    rig.settle();
    assert_eq!(rig.published(one), [0, 1, 3, 4].map(|number| json!(number)));
    assert_eq!(rig.published(other), [0, 1, 2, 3, 4].map(|number| json!(number)));
}

#[test]
fn bursts_to_several_rooms_reach_each_member_in_the_order_of_publishing() {
    let mut rig = Rig::alone();
    let conn = rig.member("r");
    rig.say(conn, r#"{"type":"throng:join","room":"s"}"#);
    rig.settle();
    rig.heard(conn);
    let rooms = ["r", "r", "s", "s", "r"];
    let texts: Vec<String> =
        rooms.iter().zip(0..).map(|(room, number)| publish(&[room], &number.to_string())).collect();
    say_all(&mut rig, conn, &texts);
    rig.settle();
    assert_eq!(rig.published(conn), [0, 1, 2, 3, 4].map(|number| json!(number)));
}

#[test]
fn who_is_closed_in_the_middle_of_a_burst_gets_what_came_before_its_close_frame() {
    let mut rig = Rig::alone();
    let (member, publisher) = (rig.member("r"), rig.open());
    say_all(&mut rig, publisher, &numbers(0..3));
    // A frame with a reserved bit: a violation.
    rig.receive(member, &frame(0xf1, b"x"));
    rig.settle();
    let heard = rig.heard(member);
    assert_eq!(heard.len(), 4, "{heard:?}");
    assert!(matches!(heard[3], Heard::Close(..)), "{heard:?}");
}

#[test]
fn a_bundle_that_a_slow_reader_has_no_space_for_is_told_as_so_many_lost() {
    let mut settings = settings();
    settings.rooms.overflow = Overflow::DropNew;
    settings.queue.high_water = 4096;
    settings.queue.low_water = 1024;
    let mut rig = Rig::new(0, 1, settings);
    let (slow, publisher) = (rig.member("r"), rig.open());
    rig.stalled.insert(slow);
    for burst in 0..40 {
        say_all(&mut rig, publisher, &numbers(burst * 5..burst * 5 + 5));
        rig.turn();
    }
    rig.stalled.clear();
    rig.settle();
    let heard = rig.heard(slow);
    let texts = heard.iter().filter_map(|heard| match heard {
        Heard::Text(text) => Some(text),
        _ => None,
    });
    let (gaps, published): (Vec<_>, Vec<_>) = texts.partition(|text| text["type"] == "throng:gap");
    let lost: u64 = gaps.iter().filter_map(|gap| gap["lost"].as_u64()).sum();
    assert!(lost > 0 && !published.is_empty());
    assert_eq!(lost + published.len() as u64, 200);
    assert_eq!(rig.shard.counters().dropped_new_total, lost);
}
