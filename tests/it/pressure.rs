//! What is done when memory runs short, on a running node: publishers wait, queues meet their policies early, the
//! heaviest reader goes, nobody is taken in. And what a room does that has a budget of its own.
//!
//! What is held here is held for good: identifiers of publications, which nobody can be closed for, and queues of
//! readers who do not read. It is the budget that moves, by a new configuration, so each share of it is there for
//! as long as a test looks at it. Readers whose little is not worth closing them for stay below 4 KiB.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};
use throng::base::counters::Counters;
use throng::node::Node;
use throng::node::config::Origin;

use crate::auth::{knock, status};
use crate::support::{Client, PATIENCE, on_both_drivers, wait_for, wait_until};

/// Kernel buffers that do not hide queues, and patience with readers who do not read.
const OWN: [&str; 11] = [
    "server.listen=127.0.0.1:0",
    "server.pin=false",
    "server.shards=1",
    "limits.messages_per_second=0",
    "limits.handshake_timeout_ms=600000",
    "heartbeat.ping_interval_ms=600000",
    "tcp.send_buffer_bytes=8192",
    "tcp.notsent_lowat_bytes=4096",
    "queue.flush_window_us=0",
    "queue.max_age_ms=600000",
    "tcp.user_timeout_ms=600000",
];

/// Far more than any test holds.
const PLENTY: u64 = 1 << 40;

/// The least that a budget may be.
const LEAST: u64 = 1 << 20;

/// A namespace whose publications are remembered by their identifiers.
const REMEMBERED: &str = r#"{pattern="ids:*", idempotency_window_ms=86400000}"#;

/// A node whose budget is set again and again.
struct Pressed {
    node: Node,
    sets: Vec<String>,
}

impl Pressed {
    fn start(driver: &str, more: &[&str]) -> Self {
        let driver = format!("server.driver={driver}");
        let all = OWN.iter().chain(more).map(|set| (*set).to_owned());
        let sets: Vec<String> = all.chain([driver]).collect();
        let origin = Origin { file: None, sets: sets.clone() };
        let node = Node::start(&origin.load().expect("valid")).expect("a running node");
        Self { node, sets }
    }

    fn address(&self) -> SocketAddr {
        self.node.address()
    }

    fn budget(&self, bytes: u64) {
        let mut sets = self.sets.clone();
        sets.push(format!("limits.memory_bytes={bytes}"));
        let config = Origin { file: None, sets }.load().expect("valid");
        self.node.reload(&config).unwrap();
    }

    /// From here on what is held is so many hundredths of the budget.
    fn squeeze(&self, percent: u64) {
        let bytes = self.node.counters().charged_bytes * 100 / percent;
        assert!(bytes >= LEAST, "more must be held for {percent} %: {bytes}");
        self.budget(bytes);
    }

    fn ease(&self) {
        self.budget(PLENTY);
    }

    /// Publishes numbered messages of so many bytes until so much more waits for who does not read them; the last
    /// number.
    fn fill(&self, author: &mut Client, (room, bytes): (&str, usize), least: u64) -> u64 {
        let enough = self.node.counters().queued_bytes + least;
        let mut number = BEFORE;
        wait_until(&format!("{least} bytes wait in {room}"), || {
            number += 1;
            assert_eq!(author.ask(publication(room, number, bytes))["ok"], json!(true));
            // The kernel has had its chance to take more of it.
            (0..50).all(|_| {
                author.expect_silence();
                self.node.counters().queued_bytes >= enough
            })
        });
        number
    }
}

fn publication(room: &str, number: u64, bytes: usize) -> Value {
    let payload = json!({"n": number, "x": "x".repeat(bytes)});
    json!({"type": "n", "room": room, "key": "k", "payload": payload})
}

/// One less than the first number: all have as many digits.
const BEFORE: u64 = 999;

/// Has the node remember so many identifiers, sixteen for a message.
fn remember(author: &mut Client, messages: u64) {
    let rooms: Vec<String> = (0..16).map(|at| format!("ids:{at}")).collect();
    for number in 0..messages {
        let reply = author.ask(json!({"type": "x", "rooms": rooms, "id": number.to_string()}));
        assert_eq!(reply["type"], "throng:reply", "{reply}");
    }
}

/// Reads what is left for a reader that was slow, up to that number: the numbers received, and how many it was told
/// were lost, besides those that were `replaced`.
fn catch_up(reader: &mut Client, last: u64, replaced: u64) -> (Vec<u64>, u64) {
    let (mut numbers, mut lost) = (Vec::new(), 0);
    while numbers.len() as u64 + lost + replaced < last - BEFORE {
        let push = reader.next();
        match push["type"].as_str() {
            Some("throng:gap") => lost += push["lost"].as_u64().expect("a count"),
            _ => numbers.push(push["payload"]["n"].as_u64().expect("a number")),
        }
    }
    (numbers, lost)
}

/// True when a newcomer is closed before a word is said.
fn is_unseen(address: SocketAddr) -> bool {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(REQUEST.as_bytes());
    let mut answer = [0; 1];
    !stream.read(&mut answer).is_ok_and(|length| length > 0)
}

const REQUEST: &str = "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// Readers who do not read, one in a room of each policy, and how many messages each of them was sent.
struct Laggards {
    readers: [(&'static str, Client); 3],
    sent: [u64; 3],
}

const POLICIES: [&str; 3] = ["drop_new", "drop_oldest", "conflate"];

impl Laggards {
    /// Less waits for each than it would be closed for, and more than an eighth of the mark.
    fn gather(pressed: &Pressed, author: &mut Client) -> Self {
        let readers = POLICIES.map(|room| {
            let mut reader = Client::connect_narrow(pressed.address());
            reader.join(room);
            (room, reader)
        });
        let sent = POLICIES.map(|room| pressed.fill(author, (room, 50), 3300));
        Self { readers, sent }
    }
}

/// What happened to publications for slow readers: dropped as the newest, dropped as the oldest, replaced.
fn losses(node: &Node) -> [u64; 3] {
    let Counters { dropped_new_total, dropped_oldest_total, conflated_total, .. } = node.counters();
    [dropped_new_total, dropped_oldest_total, conflated_total]
}

on_both_drivers! {
    fn newcomers_are_refused_while_memory_is_short_and_served_again_when_it_is_not(driver) {
        let namespaces = format!("namespace=[{REMEMBERED}]");
        let pressed = Pressed::start(driver, &["server.shards=2", &namespaces]);
        let (node, address) = (&pressed.node, pressed.address());
        let mut inside = Client::connect(address);
        remember(&mut Client::connect(address), 1100);
        let mut knocking: Vec<TcpStream> =
            (0..8).map(|_| TcpStream::connect(address).unwrap()).collect();
        wait_for(node, "they stand at the door", |c| c.connections == 9);
        // For as long as there is something left, whoever comes is served.
        pressed.squeeze(90);
        for _ in 0..8 {
            Client::connect(address).expect_silence();
        }
        wait_for(node, "these have left", |c| c.connections == 9);
        pressed.squeeze(150);
        wait_until("whoever comes is closed", || (0..10).all(|_| is_unseen(address)));
        for stream in &mut knocking {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(REQUEST.as_bytes()).unwrap();
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer);
            assert_eq!(status(&answer), "503", "{answer}");
            assert!(answer.to_lowercase().contains("\r\nretry-after: "), "{answer}");
        }
        inside.expect_silence();
        wait_for(node, "they are counted", |c| c.memory_refused_total >= 18 && c.refused_503_total >= 8);
        assert_eq!(node.counters().memory_shed_total, 0, "nobody who is in has to go for them");
        pressed.ease();
        wait_until("there is enough, in either shard", || {
            (0..10).all(|_| status(&knock(address, "/ws", &[])) == "101")
        });
        let refused = node.counters().memory_refused_total;
        for _ in 0..8 {
            Client::connect(address).expect_silence();
        }
        assert_eq!(node.counters().memory_refused_total, refused);
    }

    fn near_the_budget_publishers_wait_and_queues_meet_their_policies_early(driver) {
        let rules = POLICIES.map(|policy| format!("{{pattern={policy:?}, overflow={policy:?}}}"));
        let namespaces = format!("namespace=[{}, {REMEMBERED}]", rules.join(", "));
        let marks = ["queue.high_water_bytes=16384", "queue.low_water_bytes=4096"];
        let pressed = Pressed::start(driver, &[&marks[..], &[&namespaces]].concat());
        let (node, address) = (&pressed.node, pressed.address());
        let mut inside = Client::connect(address);
        let mut author = Client::connect(address);
        remember(&mut author, 1000);
        let Laggards { readers, sent } = Laggards::gather(&pressed, &mut author);
        assert_eq!(losses(node), [0; 3], "far below the mark");
        assert_eq!(node.counters().memory_pauses_total, 0);
        pressed.squeeze(75);
        // Who has published once is not read from, so each message has a publisher of its own. None is longer than one
        // that it replaces, whatever the name of its publisher: that would need space which there is not.
        let mut publishers = Vec::new();
        for ((room, _), sent) in readers.iter().zip(sent) {
            for more in 1..=5 {
                let mut publisher = Client::connect(address);
                let message = publication(room, sent + more, 50 - 8 * usize::try_from(more).unwrap());
                assert_eq!(publisher.ask(message)["ok"], json!(true));
                publishers.push(publisher);
            }
        }
        wait_for(node, "all of them wait", |c| c.memory_pauses_total == 15 && c.paused_connections >= 15);
        let [new, oldest, conflated] = losses(node);
        assert_eq!(new, 5, "an eighth of the mark is far behind");
        assert!(oldest >= 4, "{oldest}: all but what the kernel has been given");
        assert!((4..=5).contains(&conflated), "{conflated}");
        let before = node.counters().received_messages_total;
        publishers.iter_mut().for_each(|publisher| publisher.send(&json!({"type": "throng:ping"})));
        (0..20).for_each(|_| inside.expect_silence());
        wait_for(node, "only who has not published", |c| c.received_messages_total == before + 20);
        assert_eq!(node.counters().memory_shed_total, 0, "so little is no reason to close anybody");
        pressed.ease();
        for publisher in &mut publishers {
            assert_eq!(publisher.next()["type"], "throng:pong");
        }
        let [(_, mut keeps), (_, mut follows), (_, mut sees)] = readers;
        let (numbers, lost) = catch_up(&mut keeps, sent[0] + 5, 0);
        assert!(numbers.into_iter().eq(BEFORE + 1..=sent[0]) && lost == 5, "{lost}: drop_new");
        let (numbers, lost) = catch_up(&mut follows, sent[1] + 5, 0);
        assert!(numbers.is_sorted() && numbers.last() == Some(&(sent[1] + 5)), "drop_oldest");
        assert_eq!(lost, oldest);
        let (numbers, lost) = catch_up(&mut sees, sent[2] + 5, conflated);
        assert!(numbers.is_sorted() && numbers.contains(&(sent[2] + 5)), "conflate: {numbers:?}");
        assert_eq!(lost, 0);
    }

    fn beyond_that_the_heaviest_reader_goes_and_who_holds_less_loses_nothing(driver) {
        let marks = ["queue.high_water_bytes=1500000", "queue.max_bytes=2000000"];
        let pressed = Pressed::start(driver, &marks);
        let (node, address) = (&pressed.node, pressed.address());
        let mut author = Client::connect(address);
        let mut light = Client::connect_narrow(address);
        light.join("light");
        let mut heavy = Client::connect_narrow(address);
        heavy.join("heavy");
        let sent = pressed.fill(&mut author, ("light", 1000), 60_000);
        pressed.fill(&mut author, ("heavy", 8000), 950_000);
        pressed.squeeze(88);
        wait_for(node, "somebody has gone", |c| c.memory_shed_total == 1 && c.open_connections == 2);
        let (numbers, lost) = catch_up(&mut light, sent, 0);
        assert!(numbers.into_iter().eq(BEFORE + 1..=sent) && lost == 0, "{lost}");
        light.expect_silence();
        author.expect_silence();
        assert_eq!(node.counters().memory_shed_total, 1, "no more than must");
        assert_eq!(losses(node), [0; 3]);
        // It may hear why, or be cut off behind what it never read.
        while heavy.try_ask(&json!({"type": "throng:ping"})).is_some() {}
    }

    fn a_room_beyond_its_memory_loses_early_and_its_neighbour_nothing(driver) {
        for policy in ["drop_oldest", "drop_new", "disconnect"] {
            let rule = format!("namespace=[{{pattern=\"r:*\", overflow={policy:?}, room_memory_bytes=131072}}]");
            let pressed = Pressed::start(driver, &[&rule]);
            let (node, address) = (&pressed.node, pressed.address());
            let mut author = Client::connect(address);
            let mut cold = Client::connect_narrow(address);
            cold.join("r:cold");
            let mut hot = Client::connect_narrow(address);
            hot.join("r:hot");
            // Both together hold more than one room may.
            let sent = pressed.fill(&mut author, ("r:cold", 1000), 75_000);
            let mut last = pressed.fill(&mut author, ("r:hot", 1000), 75_000);
            assert_eq!(losses(node), [0; 3], "{policy}: each is within its own");
            let is_met = |c: &Counters| match policy {
                "disconnect" => c.slow_consumers_total == 1,
                _ => c.dropped_oldest_total + c.dropped_new_total >= 50,
            };
            // By far less than the mark of a queue, which is 262144.
            let most = last + 120;
            while last < most && !is_met(&node.counters()) {
                last += 1;
                author.ask(publication("r:hot", last, 1000));
            }
            wait_for(node, policy, is_met);
            wait_for(node, "no more waits than may", |c| c.queued_bytes < 131_072 + 90_000);
            let (numbers, lost) = catch_up(&mut cold, sent, 0);
            assert!(numbers.into_iter().eq(BEFORE + 1..=sent) && lost == 0, "{policy}: {lost} of the neighbour's");
            if policy == "disconnect" {
                assert_eq!(hot.close_code(), 1013);
            }
            cold.expect_silence();
            author.expect_silence();
        }
    }
}
