//! Long payloads, compressed beside the shard: row R18.

use serde_json::{Value, json};

use crate::base::id::ConnId;
use crate::shard::settings::Settings;
use crate::shard::tests::consult::{YES, asking};
use crate::shard::tests::deflate::{OFFER, compressing, member, open, texts};
use crate::shard::tests::guard::{bearer, enter, join, knock};
use crate::shard::tests::rig::{Rig, frame, publish};
use crate::shard::{MOST_PACKED_AT_ONCE, Mail, Packer, Packing};

/// Payloads above 200 bytes are compressed elsewhere, of frames of up to 3,000.
fn settings() -> Settings {
    let mut settings = compressing();
    if let Some(rules) = &mut settings.capacity.compression {
        rules.inline_bytes = 200;
    }
    settings
}

fn rig() -> Rig {
    Rig::new(0, 1, settings())
}

/// A payload of so many bytes about, that is known by `n`.
fn long(n: u32, bytes: usize) -> String {
    json!({"n": n, "words": "abcdefgh".repeat(bytes / 8)}).to_string()
}

/// What is to be compressed elsewhere, in order.
fn wanted(rig: &mut Rig) -> Vec<Packing> {
    let mut wanted = Vec::new();
    rig.shard.poll_packings(&mut |packing| {
        wanted.push(packing);
        Ok(())
    });
    wanted
}

/// Compresses that and gives the answer.
fn done(rig: &mut Rig, packing: &Packing) {
    let rules = settings().capacity.compression.expect("compression");
    rig.take(Mail::Packed(Box::new(Packer::new(&rules).pack(packing))));
    rig.settle();
    rig.shard.check();
}

/// What a client has heard of publications: which, and whether each came compressed.
fn heard(rig: &mut Rig, conn: ConnId) -> Vec<(bool, Value)> {
    let texts = texts(rig, conn).into_iter().filter(|(_, text)| text["type"] == "t");
    texts.map(|(small, text)| (small, text["payload"]["n"].clone())).collect()
}

fn say(rig: &mut Rig, conn: ConnId, rooms: &[&str], n: u32, bytes: usize) {
    rig.say(conn, &publish(rooms, &long(n, bytes)));
    rig.settle();
}

#[test]
fn a_long_payload_is_compressed_elsewhere_before_anybody_has_it_and_keeps_its_place() {
    let mut rig = rig();
    let (author, small, plain) =
        (member(&mut rig, OFFER), member(&mut rig, OFFER), member(&mut rig, ""));
    say(&mut rig, author, &["r"], 1, 120);
    say(&mut rig, author, &["r"], 2, 1000);
    say(&mut rig, author, &["r"], 3, 120);
    say(&mut rig, author, &["r"], 4, 2000);
    let [packing] = &wanted(&mut rig)[..] else { panic!("one, and the rest behind it") };
    assert_eq!(&*packing.payload, long(2, 1000));
    assert_eq!(heard(&mut rig, small), [(true, json!(1))]);
    // Others pass it meanwhile, and so does what the same client says elsewhere.
    say(&mut rig, plain, &["r"], 5, 120);
    say(&mut rig, author, &["other"], 6, 120);
    assert_eq!(heard(&mut rig, small), [(true, json!(5))]);
    done(&mut rig, packing);
    assert_eq!(heard(&mut rig, small), [(true, json!(2)), (true, json!(3))]);
    let [packing] = &wanted(&mut rig)[..] else { panic!("the next") };
    done(&mut rig, packing);
    assert_eq!(heard(&mut rig, small), [(true, json!(4))]);
    let all = [1, 5, 2, 3, 4].map(|n| (false, json!(n)));
    assert_eq!(heard(&mut rig, plain), all);
    let counters = rig.shard.counters();
    assert_eq!((counters.deflated_beside_total, counters.deflated_messages_total), (2, 5));
}

#[test]
fn a_long_payload_in_lines_is_found_again_in_the_frame_that_it_goes_out_in() {
    let mut rig = rig();
    let (author, small) = (member(&mut rig, OFFER), member(&mut rig, OFFER));
    let payload = format!("{{\r\n \"n\": 7,\r\n \"words\": \"{}\"\r\n}}", "abcdefgh".repeat(100));
    rig.say(author, &publish(&["r"], &payload));
    rig.settle();
    let [packing] = &wanted(&mut rig)[..] else { panic!("one") };
    done(&mut rig, packing);
    assert_eq!(heard(&mut rig, small), [(true, json!(7))]);
}

#[test]
fn what_is_no_shorter_or_too_long_or_for_more_than_rooms_goes_plain() {
    let mut rig = rig();
    let (author, reader) = (member(&mut rig, ""), member(&mut rig, OFFER));
    // What no compressor makes shorter.
    let mut state = 1u64;
    let noise: String = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'!' + u8::try_from(state >> 58).unwrap_or_default() + 1)
    })
    .filter(|letter| *letter != '"' && *letter != '\\')
    .take(150)
    .collect();
    let short = format!(r#"{{"n":1,"noise":"{noise}"}}"#);
    rig.say(author, &publish(&["r"], &short));
    rig.settle();
    assert!(wanted(&mut rig).is_empty());
    heard(&mut rig, reader);
    say(&mut rig, author, &["r"], 2, 4000);
    assert!(wanted(&mut rig).is_empty(), "it is longer than anything that is compressed");
    assert_eq!(heard(&mut rig, reader), [(false, json!(2))]);
    let everyone =
        json!({"type": "t", "everyone": true, "payload": {"n": 3, "w": "ab".repeat(400)}});
    rig.say(author, &everyone.to_string());
    rig.settle();
    assert!(wanted(&mut rig).is_empty(), "nothing would keep its place");
    assert!(heard(&mut rig, reader).iter().all(|(small, _)| !small));
    say(&mut rig, author, &["r"], 4, 1000);
    let [packing] = &wanted(&mut rig)[..] else { panic!("one") };
    let nothing = Packing { payload: "1".into(), from: packing.from, ..*packing };
    done(&mut rig, &nothing);
    assert_eq!(heard(&mut rig, reader), [(false, json!(4))], "it would be no shorter");
}

#[test]
fn where_too_many_wait_the_next_goes_plain_at_once() {
    let mut rig = rig();
    let reader = member(&mut rig, OFFER);
    let authors: Vec<_> = (0..=MOST_PACKED_AT_ONCE).map(|_| member(&mut rig, "")).collect();
    heard(&mut rig, reader);
    for (n, author) in (0u32..).zip(&authors) {
        say(&mut rig, *author, &["r"], n, 1000);
    }
    let last = u32::try_from(MOST_PACKED_AT_ONCE).expect("few");
    assert_eq!(heard(&mut rig, reader), [(false, json!(last))]);
    let wanted = wanted(&mut rig);
    assert_eq!(wanted.len(), MOST_PACKED_AT_ONCE);
    for packing in &wanted {
        done(&mut rig, packing);
    }
    let all: Vec<_> = (0..last).map(|n| (true, json!(n))).collect();
    assert_eq!(heard(&mut rig, reader), all);
    say(&mut rig, authors[0], &["r"], 99, 1000);
    assert_eq!(self::wanted(&mut rig).len(), 1, "and the places are free again");
}

#[test]
fn a_client_may_fill_half_of_its_own_places_and_one_that_goes_leaves_nothing() {
    let mut settings = settings();
    settings.limits.outstanding = 4;
    let mut rig = Rig::new(0, 1, settings);
    let (author, reader) = (member(&mut rig, ""), member(&mut rig, OFFER));
    for (n, room) in (1u32..).zip(["a", "b", "r"]) {
        say(&mut rig, author, &[room], n, 1000);
    }
    assert_eq!(heard(&mut rig, reader), [(false, json!(3))], "the third at once");
    let wanted = wanted(&mut rig);
    assert_eq!(wanted.len(), 2);
    rig.receive(author, &frame(0x88, &[]));
    rig.settle();
    for packing in &wanted {
        done(&mut rig, packing);
    }
    assert_eq!(heard(&mut rig, reader), []);
    let (next, _) = open(&mut rig, "/ws", OFFER);
    rig.bytes(next);
    say(&mut rig, next, &["r"], 5, 1000);
    assert_eq!(self::wanted(&mut rig).len(), 1);
    rig.shard.check();
}

#[test]
fn what_the_back_end_is_asked_about_keeps_what_its_payload_became() {
    let mut settings = asking(|_| {});
    let own = self::settings();
    settings.routes.deflate = own.routes.deflate;
    settings.capacity.compression = own.capacity.compression;
    let mut rig = Rig::new(0, 1, settings);
    let claims = json!({"sub": "ada", "exp": 5000, "rooms": ["a", "w:own"]});
    let reader = knock(&mut rig, "/ws", &format!("{}{OFFER}", bearer(&claims)));
    rig.response(reader);
    rig.say(reader, &join("w:own"));
    rig.settle();
    rig.bytes(reader);
    let claims = json!({"sub": "bob", "exp": 5000, "rooms": ["a"]});
    let author = enter(&mut rig, &claims);
    say(&mut rig, author, &["w:own"], 1, 1000);
    assert!(rig.asked().is_empty(), "it is compressed first");
    let [packing] = &wanted(&mut rig)[..] else { panic!("one") };
    say(&mut rig, author, &["w:own"], 2, 120);
    done(&mut rig, packing);
    assert!(heard(&mut rig, reader).is_empty());
    let asked = rig.asked();
    let [(number, _)] = &asked[..] else { panic!("{asked:?}") };
    rig.rule(*number, YES);
    rig.settle();
    assert!(wanted(&mut rig).is_empty(), "not a second time");
    assert_eq!(heard(&mut rig, reader), [(true, json!(1)), (true, json!(2))]);
    rig.shard.check();
}
