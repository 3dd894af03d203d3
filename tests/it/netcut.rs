//! Peers behind a cable that is cut: nothing of them arrives any more, and nothing reaches them, without a word of
//! either end's kernel; rows L1 and L5.
//!
//! The peer lives in a network namespace of its own, at the other end of a pair of virtual interfaces, and loses its
//! address: what is sent to it is nobody's there, and it has no way to answer. Whoever is found dead is found by
//! the one thing that the test leaves switched on, which its counter tells, so no time is measured. Where no
//! namespace can be made (that takes root and `ip`) the tests are left out, and say so where it is seen.

use std::fs::File;
use std::io::Write as _;
use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::json;
use throng::node::Node;

use crate::support::{Client, node, on_both_drivers, wait_for};

/// A cable between this host and a peer's namespace.
struct Cable {
    name: String,
    /// The first three bytes of the addresses of both ends.
    network: String,
}

fn ip(words: &str) -> bool {
    let out = Command::new("ip").args(words.split(' ')).output();
    out.is_ok_and(|out| out.status.success())
}

impl Cable {
    /// `None`, after a word about it, where there can be none.
    fn lay() -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        let cable = Self {
            name: format!("thr{}x{number}", pid % 100_000),
            network: format!("10.{}.{}", 128 + pid % 120, (pid / 120 * 8 + number) % 256),
        };
        let (name, network) = (&cable.name, &cable.network);
        let steps = [
            format!("netns add {name}"),
            format!("link add {name}a type veth peer name {name}b netns {name}"),
            format!("addr add {network}.1/24 dev {name}a"),
            format!("link set {name}a up"),
            format!("-n {name} addr add {network}.2/24 dev {name}b"),
            format!("-n {name} link set {name}b up"),
        ];
        if let Some(step) = steps.iter().find(|step| !ip(step)) {
            let _ =
                writeln!(std::io::stderr(), "LEFT OUT: no network namespace: `ip {step}` fails");
            return None;
        }
        Some(cable)
    }

    /// A node at this end, with nothing to find dead peers by but what `sets` say.
    fn node(&self, driver: &str, sets: &[&str]) -> Node {
        let listen = format!("server.listen={}.1:0", self.network);
        let own = [
            listen.as_str(),
            "auth.mode=open",
            "tcp.keepalive_idle_ms=0",
            "queue.max_age_ms=600000",
        ];
        node(driver, &[&own, sets].concat())
    }

    /// A client at the far end.
    fn client(&self, node: &Node) -> Client {
        let (name, address) = (self.name.clone(), node.address());
        let connect = move || {
            let space = File::open(format!("/run/netns/{name}")).unwrap();
            move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            TcpStream::connect(address).unwrap()
        };
        let thread = std::thread::Builder::new().spawn(connect).unwrap();
        Client::over(thread.join().unwrap(), address)
    }

    /// From now on what is sent to the far end is lost there, and it can send nothing.
    fn cut(&self) {
        let (name, network) = (&self.name, &self.network);
        // Where the far end is remains known: otherwise this end's kernel would say that nobody is there.
        let path = format!("-n {name} -br link show dev {name}b");
        let shown = Command::new("ip").args(path.split(' ')).output().unwrap();
        let shown = String::from_utf8(shown.stdout).unwrap();
        let hardware = shown.split_whitespace().nth(2).unwrap();
        assert!(ip(&format!(
            "neigh replace {network}.2 lladdr {hardware} dev {name}a nud permanent"
        )));
        assert!(ip(&format!("-n {name} addr flush dev {name}b")));
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        ip(&format!("link del {}a", self.name));
        ip(&format!("netns del {}", self.name));
    }
}

const NO_HEARTBEAT: [&str; 2] =
    ["heartbeat.ping_interval_ms=600000", "heartbeat.ping_timeout_ms=600000"];

on_both_drivers! {
    fn a_peer_behind_a_cut_cable_is_found_by_the_heartbeat(driver) {
        let Some(cable) = Cable::lay() else { return };
        let beat = ["heartbeat.ping_interval_ms=700", "heartbeat.ping_timeout_ms=700"];
        let late = ["tcp.user_timeout_ms=3600000"];
        let node = cable.node(driver, &[&beat[..], &late].concat());
        let mut living = Client::connect(node.address());
        let mut far = cable.client(&node);
        living.join("r");
        far.join("r");
        cable.cut();
        // The one at this end has to read to answer pings.
        while node.counters().heartbeat_lost_total == 0 {
            living.expect_silence();
        }
        wait_for(&node, "nothing of it is left", |c| c.connections == 1 && c.memberships == 1);
        let counters = node.counters();
        assert_eq!((counters.heartbeat_lost_total, counters.lost_total), (1, 0));
        assert_eq!(living.ask(json!({"type": "throng:ping"}))["type"], "throng:pong");
    }

    fn a_peer_behind_a_cut_cable_with_unsent_data_is_found_by_the_kernel(driver) {
        let Some(cable) = Cable::lay() else { return };
        let sets = ["tcp.user_timeout_ms=1000", "queue.high_water_bytes=16777216", "queue.max_bytes=33554432"];
        let node = cable.node(driver, &[&NO_HEARTBEAT[..], &sets].concat());
        let mut author = Client::connect(node.address());
        let mut far = cable.client(&node);
        let mut idle = cable.client(&node);
        far.join("r");
        idle.join("quiet");
        assert_eq!(author.ask(json!({"type": "x", "room": "r", "payload": 1}))["ok"], json!(true));
        assert_eq!(far.next()["payload"], 1, "the cable carries");
        cable.cut();
        // More than the kernel takes, so that some of it waits in the engine too.
        let payload = "x".repeat(60_000);
        for _ in 0..100 {
            assert_eq!(author.ask(json!({"type": "x", "room": "r", "payload": payload}))["ok"], json!(true));
        }
        wait_for(&node, "it is found dead", |c| c.lost_total == 1);
        wait_for(&node, "nothing of it is left", |c| c.connections == 2 && c.queued_bytes == 0);
        let counters = node.counters();
        assert_eq!((counters.heartbeat_lost_total, counters.slow_consumers_total), (0, 0));
        // Whom nothing was sent to nothing is known of; that is what the heartbeat is for.
        assert_eq!(counters.memberships, 1);
    }
}
