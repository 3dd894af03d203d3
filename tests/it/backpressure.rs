//! Slow readers: rows B1, B2, B3 and the trap of pongs under backpressure.

use serde_json::{Value, json};

use crate::support::{Client, node, on_both_drivers, wait_for, wait_until};

/// A queue small enough that a test fills it, and kernel buffers that do not hide it.
const SMALL: [&str; 8] = [
    "tcp.user_timeout_ms=60000",
    "limits.max_message_bytes=8192",
    "queue.high_water_bytes=20000",
    "queue.low_water_bytes=5000",
    "queue.max_bytes=60000",
    "tcp.send_buffer_bytes=8192",
    "tcp.notsent_lowat_bytes=4096",
    "queue.flush_window_us=0",
];

fn small(more: &[&'static str]) -> Vec<&'static str> {
    SMALL.iter().chain(more).copied().collect()
}

/// Publishes numbered kilobytes until the counters say that enough was lost; returns how many.
fn flood(
    node: &throng::node::Node,
    publisher: &mut Client,
    enough: impl Fn(&throng::base::counters::Counters) -> bool,
) -> u64 {
    let filler = "x".repeat(1000);
    let mut number = 0;
    wait_until("the reader falls behind", || {
        for _ in 0..20 {
            number += 1;
            let payload = json!({"n": number, "x": filler});
            publisher.ask(json!({"type": "n", "room": "r", "payload": payload}));
        }
        enough(&node.counters())
    });
    number
}

/// Reads what is left for a reader that was slow: numbers received, and numbers reported lost.
fn catch_up(reader: &mut Client, last: u64) -> (Vec<u64>, u64) {
    let (mut numbers, mut lost) = (Vec::new(), 0);
    loop {
        let push: Value = reader.next();
        if push["type"] == "throng:gap" {
            assert_eq!(push["room"], "r");
            lost += push["lost"].as_u64().expect("a count");
        } else {
            numbers.push(push["payload"]["n"].as_u64().expect("a number"));
        }
        if numbers.len() as u64 + lost >= last {
            return (numbers, lost);
        }
    }
}

on_both_drivers! {
    fn drop_oldest_keeps_the_newest_and_counts_every_loss(driver) {
        let node = node(driver, &small(&["queue.overflow=drop_oldest"]));
        let mut reader = Client::connect_narrow(node.address());
        reader.join("r");
        let mut publisher = Client::connect(node.address());
        let last = flood(&node, &mut publisher, |c| c.dropped_oldest_total > 2000);
        let (numbers, lost) = catch_up(&mut reader, last);
        assert_eq!(numbers.last(), Some(&last), "the newest survives");
        assert!(numbers.is_sorted());
        assert_eq!(lost, node.counters().dropped_oldest_total);
    }

    /// How many writes it saves depends on the machine; that it saves any, and loses nothing, does not.
    fn a_delay_of_a_namespace_saves_writes_and_loses_nothing(driver) {
        let rule = "namespace=[{pattern=\"slow:*\", write_delay_ms=1000}]";
        let node = node(driver, &[rule]);
        let mut readers: Vec<Client> = (0..4).map(|_| Client::connect(node.address())).collect();
        readers.iter_mut().for_each(|reader| _ = reader.join("slow:r"));
        let mut author = Client::connect(node.address());
        let before = node.counters();
        for number in 0..200 {
            // Each is acknowledged before the next is sent, so no two of them are of one turn.
            author.ask(json!({"type": "n", "room": "slow:r", "payload": number}));
        }
        for reader in &mut readers {
            (0..200).for_each(|number| assert_eq!(reader.next()["payload"], number));
        }
        let now = node.counters();
        let (sent, writes) =
            (now.sent_frames_total - before.sent_frames_total, now.writes_total - before.writes_total);
        assert!(sent >= 1000, "{sent} frames: 200 for each of four, and 200 replies");
        assert!(writes < 600, "{writes} writes for {sent} frames");
    }

    fn drop_new_keeps_the_oldest_and_counts_every_loss(driver) {
        let node = node(driver, &small(&["queue.overflow=drop_new"]));
        let mut reader = Client::connect_narrow(node.address());
        reader.join("r");
        let mut publisher = Client::connect(node.address());
        let last = flood(&node, &mut publisher, |c| c.dropped_new_total > 2000);
        let (numbers, lost) = catch_up(&mut reader, last);
        assert_eq!(numbers.first(), Some(&1), "the oldest survives");
        assert!(numbers.is_sorted());
        assert_eq!(lost, node.counters().dropped_new_total);
    }

    /// Whatever the reader could not take when it was published comes from the room's history, and nothing is lost.
    fn a_room_that_pauses_loses_nothing_and_waits_for_nobody(driver) {
        let rule = "namespace=[{pattern=\"r\", overflow=\"pause\", history_count=1000000, history_bytes=100000000}]";
        let node = node(driver, &small(&[rule, "server.shards=4"]));
        let mut readers: Vec<Client> = (0..4).map(|_| Client::connect_narrow(node.address())).collect();
        readers.iter_mut().for_each(|reader| _ = reader.join("r"));
        let mut publisher = Client::connect(node.address());
        let last = flood(&node, &mut publisher, |c| c.pauses_total >= 4);
        for reader in &mut readers {
            assert_eq!(catch_up(reader, last), ((1..=last).collect(), 0));
        }
        wait_for(&node, "nobody is behind", |c| c.replays == 0);
        publisher.ask(json!({"type": "n", "room": "r", "payload": {"n": last + 1}}));
        for reader in &mut readers {
            assert_eq!(reader.next()["payload"]["n"], last + 1);
        }
        let counters = node.counters();
        assert_eq!((counters.resyncs_total, counters.dropped_oldest_total, counters.dropped_new_total), (0, 0, 0));
    }

    fn disconnect_closes_with_1013_and_others_lose_nothing(driver) {
        let node = node(driver, &small(&["queue.overflow=disconnect"]));
        let mut slow = Client::connect_narrow(node.address());
        slow.join("r");
        let mut publisher = Client::connect(node.address());
        flood(&node, &mut publisher, |c| c.slow_consumers_total == 1);
        assert_eq!(slow.close_code(), 1013);
        publisher.expect_silence();
        wait_for(&node, "only the publisher is left", |c| c.open_connections == 1);
    }

    fn a_slow_reader_that_reads_at_last_was_not_declared_dead(driver) {
        let more = ["heartbeat.ping_interval_ms=200", "heartbeat.ping_timeout_ms=200"];
        let node = node(driver, &small(&more));
        let mut slow = Client::connect_narrow(node.address());
        slow.join("r");
        let mut publisher = Client::connect(node.address());
        let last = flood(&node, &mut publisher, |c| c.dropped_oldest_total > 2000);
        // Connections opened after the slow one live and die by silence meanwhile.
        let mute: Vec<Client> = (0..5).map(|_| Client::connect(node.address())).collect();
        while node.counters().heartbeat_lost_total < 5 {
            publisher.expect_silence();
        }
        assert_eq!(node.counters().open_connections, 2, "{:?}", node.counters());
        drop(mute);
        catch_up(&mut slow, last);
        slow.expect_silence();
        assert_eq!(node.counters().heartbeat_lost_total, 5);
    }

    fn a_client_that_never_reads_its_replies_is_stopped_from_asking(driver) {
        // One turn reads 256 KiB before it stops, and the replies to that are a quarter longer.
        let node = node(driver, &small(&["queue.max_bytes=1048576"]));
        let mut greedy = Client::connect(node.address());
        greedy.stream().set_nonblocking(true).unwrap();
        let command = json!({"type": "throng:ping", "ref": "x".repeat(60)}).to_string();
        let mut stopped = false;
        wait_until("the kernel takes no more", || {
            for _ in 0..100 {
                stopped |= greedy.try_send(&command).is_err();
            }
            stopped
        });
        assert!(node.counters().queued_bytes <= 20_000 + 6 * 65_536, "{:?}", node.counters());
        assert_eq!(node.counters().open_connections, 1);
    }
}
