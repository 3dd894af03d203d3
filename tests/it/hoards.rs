//! A tenant's share of memory: its hostile readers are its own loss, and the tenant beside it notices nothing.

use std::net::SocketAddr;

use serde_json::json;

use crate::admin::{ask, with_admin};
use crate::auth::{guarded, token};
use crate::support::{Client, on_both_drivers, wait_for, wait_until};

/// A tenant's share, of two shards; the queues are as they are by default and would hold thirty times that.
const SHARE: u64 = 2 << 20;
const HOSTILE: usize = 240;
const ROUNDS: u64 = 24;

fn narrow(address: SocketAddr, user: &str, tenant: &str, room: &str) -> Client {
    let claims = json!({"sub": user, "tenant": tenant, "rooms": ["*"]});
    let mut client = Client::connect_narrow_with(address, &format!("Bearer {}", token(&claims)));
    client.join(room);
    client
}

/// What the metrics say that waits for a tenant's clients.
fn waiting(admin: SocketAddr, tenant: &str) -> Option<u64> {
    let (_, text) = ask(admin, "GET /metrics", "");
    let begin = format!("throng_tenant_queued_memory_bytes{{tenant=\"{tenant}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&begin))?;
    Some(line.parse().expect("a number"))
}

on_both_drivers! {
    fn hostile_readers_of_one_tenant_are_closed_and_another_tenant_is_served_as_before(driver) {
        let [listen, key] = with_admin(r#""inspect""#);
        let share = format!("limits_tenant.memory_bytes={SHARE}");
        let node = guarded(driver, &[
            &listen, &key, &share, "admin.requests_per_second=1000000",
            "tcp.send_buffer_bytes=8192", "tcp.notsent_lowat_bytes=4096",
        ]);
        let (address, admin) = (node.address(), node.admin_address().expect("an admin listener"));
        let hostile: Vec<Client> =
            (0..HOSTILE).map(|at| narrow(address, "h", "x", &format!("r{at}"))).collect();
        let mut author = narrow(address, "a", "x", "own");
        let mut good = narrow(address, "g", "y", "good");
        let mut lazy = narrow(address, "l", "y", "lazy");
        let mut other = narrow(address, "o", "y", "own");
        let filler = "x".repeat(4000);
        let (mut most, mut seen) = (0, 0);
        for round in 0..ROUNDS {
            for at in 0..HOSTILE {
                author.send(&json!({"type": "x", "room": format!("r{at}"), "payload": filler}));
            }
            for _ in 0..2 {
                other.send(&json!({"type": "x", "room": "lazy", "payload": filler}));
            }
            other.send(&json!({"type": "n", "room": "good", "payload": round}));
            assert_eq!(good.next()["payload"], json!(round), "every message, in order");
            // What a node has read is obeyed before anybody looks at shares.
            author.ask(json!({"type": "throng:ping"}));
            most = most.max(waiting(admin, "x").unwrap_or(0));
            seen = seen.max(waiting(admin, "y").unwrap_or(0));
        }
        wait_for(&node, "the heaviest are closed", |c| c.hoarders_closed_total > 0);
        assert!(most < SHARE * 3 / 2 && most > SHARE / 2, "{most} bytes waited at most");
        assert!(seen > 100_000, "{seen}: what the other tenant's reader may have waiting stays");
        let counters = node.counters();
        assert!(counters.dropped_oldest_total > 0, "their rooms lost early first: {counters:?}");
        assert_eq!(counters.memory_shed_total, counters.hoarders_closed_total, "nobody else's");
        assert_eq!((counters.slow_consumers_total, counters.panics_total), (0, 0));
        for number in 0..2 * ROUNDS {
            assert_eq!(lazy.next()["offset"], json!(number + 1), "the other tenant lost nothing");
        }
        drop((hostile, author, good, lazy, other));
        wait_until("nothing waits", || waiting(admin, "x").is_none_or(|bytes| bytes == 0));
    }
}
