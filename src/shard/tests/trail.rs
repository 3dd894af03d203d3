//! Streams of several rooms that break and come back, held against a list of what was said.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::Value;

use super::history::remembering;
use super::rig::{Rig, publish};
use crate::base::id::ConnId;
use crate::contract::Event;

const ROOMS: [&str; 3] = ["room-a", "room-b", "room c"];

/// What the reader of a stream has, by the standard's own rules: an event and its id come with the empty line.
#[derive(Debug, Default)]
struct Reader {
    last: Option<String>,
    /// Payloads by rooms.
    heard: BTreeMap<String, Vec<u64>>,
    resyncs: usize,
}

impl Reader {
    fn read(&mut self, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        // Behind the last empty line stands half an event, or nothing.
        let Some((whole, _)) = text.rsplit_once("\n\n") else { return };
        for block in whole.split("\n\n") {
            let (mut id, mut data) = (None, String::new());
            for line in block.split('\n') {
                match line.split_once(": ").expect("a field") {
                    ("id", value) => id = Some(value.to_owned()),
                    ("data", value) => data.push_str(value),
                    _ => {}
                }
            }
            self.last = id.or(self.last.take());
            if !data.is_empty() {
                self.take(&serde_json::from_str(&data).expect("JSON"));
            }
        }
    }

    fn take(&mut self, event: &Value) {
        if let Some(payload) = event["payload"].as_u64() {
            let room = event["room"].as_str().expect("a room").to_owned();
            self.heard.entry(room).or_default().push(payload);
        }
        self.resyncs += usize::from(event["type"] == "throng:resync");
    }

    fn listen(&self, rig: &mut Rig) -> ConnId {
        let query: Vec<String> =
            ROOMS.iter().map(|room| format!("room={}", room.replace(' ', "%20"))).collect();
        let last = self.last.as_ref().map(|last| format!("Last-Event-ID: {last}\r\n"));
        let (query, last) = (query.join("&"), last.unwrap_or_default());
        let conn = rig.accept().expect("let in");
        let request = format!("GET /sse?{query} HTTP/1.1\r\nHost: a\r\n{last}\r\n");
        rig.receive(conn, request.as_bytes());
        rig.settle();
        let head = rig.response(conn);
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        conn
    }
}

fn hang_up(rig: &mut Rig, conn: ConnId) {
    rig.event(Event::ReceivedEnd { conn });
    rig.settle();
}

/// A reader that has come once and heard nothing but that it is in the rooms. Each has another member, or it would end
/// with its last one while nothing is said in it, and begin anew.
fn begun(rig: &mut Rig) -> Reader {
    ROOMS.iter().for_each(|room| _ = rig.member(room));
    let mut reader = Reader::default();
    let conn = reader.listen(rig);
    reader.read(&rig.bytes(conn));
    hang_up(rig, conn);
    reader
}

proptest! {
    #[test]
    fn a_stream_of_several_rooms_misses_and_repeats_nothing_wherever_it_breaks(
        rounds in prop::collection::vec(
            (prop::collection::vec((0..3_usize, any::<bool>()), 0..12), 0..=100_usize, 0..4_usize), 1..8),
    ) {
        let mut rig = Rig::new(0, 1, remembering(500));
        let author = rig.open();
        let (mut said, mut number) = (BTreeMap::<String, Vec<u64>>::new(), 0);
        let mut say = |rig: &mut Rig, room: usize, settles: bool| {
            number += 1;
            said.entry(ROOMS[room].to_owned()).or_default().push(number);
            rig.say(author, &publish(&[ROOMS[room]], &number.to_string()));
            if settles {
                rig.settle();
            }
        };
        let mut reader = begun(&mut rig);
        for (live, cut, meanwhile) in rounds {
            let conn = reader.listen(&mut rig);
            for (room, settles) in live {
                say(&mut rig, room, settles);
            }
            rig.settle();
            let bytes = rig.bytes(conn);
            reader.read(&bytes[..bytes.len() * cut / 100]);
            hang_up(&mut rig, conn);
            (0..meanwhile).for_each(|room| say(&mut rig, room % 3, true));
        }
        let conn = reader.listen(&mut rig);
        reader.read(&rig.bytes(conn));
        prop_assert_eq!(&reader.heard, &said);
        prop_assert_eq!(reader.resyncs, 0);
    }
}

#[test]
fn the_readers_of_several_rooms_share_an_event_and_have_ids_of_their_own() {
    let mut rig = Rig::new(0, 1, remembering(100));
    let author = rig.open();
    let conns: Vec<ConnId> = (0..20).map(|_| Reader::default().listen(&mut rig)).collect();
    rig.settle();
    for conn in &conns {
        rig.bytes(*conn);
    }
    conns.iter().for_each(|conn| _ = rig.stalled.insert(*conn));
    // The first write is with the kernel and stands still; what comes then is queued.
    rig.say(author, &publish(&["room-a"], "1"));
    rig.settle();
    let before = rig.shard.counters().charged_bytes;
    let long = format!("\"{}\"", "x".repeat(2000));
    rig.say(author, &publish(&["room-b"], &long));
    rig.settle();
    let grown = rig.shard.counters().charged_bytes - before;
    // The event itself is kept for history and queued, each once; twenty copies would be 40,000 bytes.
    assert!(grown < 20_000, "{grown} bytes for twenty readers");
    rig.stalled.clear();
    rig.settle();
    let mut reader = Reader::default();
    reader.read(&rig.bytes(conns[7]));
    assert_eq!(reader.heard["room-a"], [1]);
    let id = reader.last.expect("an id");
    assert!(id.starts_with('~') && id.ends_with(".1.room-b"), "{id}");
    assert_eq!(id.matches('-').count(), 2 * 2 + 1, "two others, and a name: {id}");
}

#[test]
fn a_room_that_the_id_does_not_name_begins_with_the_newest_and_a_lost_one_anew() {
    let mut rig = Rig::new(0, 1, remembering(3));
    let author = rig.open();
    let mut reader = begun(&mut rig);
    for number in 1..=10 {
        rig.say(author, &publish(&["room-a"], &number.to_string()));
    }
    rig.say(author, &publish(&["room-b"], "11"));
    rig.settle();
    let conn = reader.listen(&mut rig);
    reader.read(&rig.bytes(conn));
    assert_eq!((reader.resyncs, reader.heard.get("room-a")), (1, None), "too far behind in one");
    assert_eq!(reader.heard["room-b"], [11], "and not in the other");
    let stranger = Reader { last: Some("1.1.room of others".to_owned()), ..Reader::default() };
    let conn = stranger.listen(&mut rig);
    let mut stranger = Reader::default();
    stranger.read(&rig.bytes(conn));
    assert!(stranger.heard.is_empty() && stranger.resyncs == 0, "{stranger:?}");
}
