//! A primary that fails, its replicas, and the sentinels that choose another. Row O4.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use throng::node::Node;

use super::cluster::{Redis, bridge, next_but_gaps};
use super::shared::{KEEPS, ROOM, SHARED, chat, join_since, since};
use crate::support::{Client, free_port, node, on_both_drivers, wait_within};

/// What sentinels may take: one that was not run for two seconds trusts its clock only half a minute later, an
/// election without a winner is held again after twelve seconds, and a primary that is back is made a replica after eight.
const PATIENCE: Duration = Duration::from_secs(150);
/// How long a server is silent before it is taken for gone, in milliseconds. A shorter time has sentinels of a busy
/// machine take servers for gone that are not, so that they change the primary again and again; and a replica whose
/// primary was gone for ten times as long before they noticed is never chosen, so it must be over a tenth of the half
/// minute above.
const SILENT_MS: u32 = 5000;

pub(super) fn wait_until(what: &str, holds: impl FnMut() -> bool) {
    wait_within(PATIENCE, what, holds);
}

pub(super) fn wait_link(node: &Node) {
    wait_until("the link is up", || bridge(node, "bridge_up") == 1);
}

/// A primary, two replicas of it, and three sentinels that watch them.
pub(super) struct Family {
    servers: Vec<Redis>,
    sentinels: Vec<Sentinel>,
}

/// A redis-server process that watches others.
struct Sentinel {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl Sentinel {
    fn start(primary: u16) -> Self {
        let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
        let path = folder.path().join("sentinel.conf");
        let text = format!(
            "port {port}\nbind 127.0.0.1\nrequirepass watchword\nsentinel sentinel-pass watchword\n\
             sentinel monitor main 127.0.0.1 {primary} 2\nsentinel down-after-milliseconds main {SILENT_MS}\n\
             sentinel failover-timeout main 6000\nsentinel parallel-syncs main 2\n"
        );
        fs::write(&path, text).unwrap();
        let child = Command::new("redis-server")
            .arg(&path)
            .args(["--sentinel", "--dir"])
            .arg(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed by `make test`");
        Self { child, port, _folder: folder }
    }

    fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> Option<T> {
        let url = format!("redis://:watchword@127.0.0.1:{}", self.port);
        let mut connection = redis::Client::open(url).unwrap().get_connection().ok()?;
        let mut command = redis::cmd("SENTINEL");
        words.iter().for_each(|word| _ = command.arg(word));
        command.query(&mut connection).ok()
    }

    /// The port of whom it takes for the primary.
    fn primary(&self) -> Option<u16> {
        let (_, port): (String, String) = self.ask(&["GET-MASTER-ADDR-BY-NAME", "main"])?;
        port.parse().ok()
    }

    /// Whether it knows all of the family.
    fn is_ready(&self) -> bool {
        let others: Option<Vec<redis::Value>> = self.ask(&["SENTINELS", "main"]);
        let replicas: Option<Vec<redis::Value>> = self.ask(&["REPLICAS", "main"]);
        let usable = self.ask::<String>(&["CKQUORUM", "main"]).is_some();
        usable
            && others.is_some_and(|all| all.len() == 2)
            && replicas.is_some_and(|all| all.len() == 2)
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Family {
    pub(super) fn start() -> Self {
        let primary = Redis::start();
        let port = primary.address().port();
        let of = format!("127.0.0.1 {port}");
        let replica =
            || Redis::start_with(&["--replicaof", &of, "--repl-diskless-sync-delay", "0"]);
        let servers = vec![primary, replica(), replica()];
        for replica in &servers[1..] {
            wait_until("it has what the primary has", || {
                format!("{:?}", replica.ask(&["INFO", "replication"]))
                    .contains("master_link_status:up")
            });
        }
        let sentinels: Vec<Sentinel> = (0..3).map(|_| Sentinel::start(port)).collect();
        for sentinel in &sentinels {
            wait_until("the sentinels know all", || sentinel.is_ready());
        }
        Self { servers, sentinels }
    }

    pub(super) fn primary(&mut self) -> &mut Redis {
        let port = self.sentinels[0].primary().unwrap();
        let found = self.servers.iter_mut().find(|server| server.address().port() == port);
        found.expect("one of the family")
    }

    /// What a node is told of the sentinels.
    pub(super) fn place(&self) -> Vec<String> {
        let url = |sentinel: &Sentinel| format!("redis://127.0.0.1:{}", sentinel.port);
        let urls: Vec<String> = self.sentinels.iter().map(url).collect();
        let rest = [
            "bridge.sentinel_master=main",
            "bridge.sentinel_password=watchword",
            "bridge.canary_interval_ms=100",
            "bridge.command_timeout_ms=1000",
        ];
        [format!("bridge.sentinels={urls:?}")].into_iter().chain(rest.map(str::to_owned)).collect()
    }

    fn nodes(&self, driver: &str) -> [Node; 2] {
        let place = self.place();
        let sets: Vec<&str> = place.iter().map(String::as_str).chain([SHARED, KEEPS]).collect();
        [(); 2].map(|()| {
            let node = node(driver, &sets);
            wait_link(&node);
            node
        })
    }

    /// Waits until all sentinels name another than that one.
    pub(super) fn wait_for_other(&self, than: u16) {
        for sentinel in &self.sentinels {
            wait_until("there is another primary", || {
                sentinel.primary().is_some_and(|port| port != than)
            });
        }
    }
}

fn plain(payload: &Value) -> Value {
    json!({"type": "chat", "room": "plain", "payload": payload})
}

on_both_drivers! {
    fn when_sentinels_choose_another_primary_nodes_go_there_and_tell_what_may_be_missing(driver) {
        let mut family = Family::start();
        let nodes = family.nodes(driver);
        let mut clients = nodes.each_ref().map(|node| Client::connect(node.address()));
        let joined = clients[1].join(ROOM);
        clients[0].join(ROOM);
        clients.iter_mut().for_each(|client| _ = client.join("plain"));
        for room in [ROOM, "plain"] {
            family.primary().wait_for_room(room, 2);
        }
        for number in 1..=20 {
            let reply = clients[0].ask_among(chat(&json!(number)));
            assert_eq!(reply["offset"], json!(number), "{reply}");
        }
        for client in &mut clients {
            for number in 1..=20 {
                assert_eq!(client.next()["offset"], json!(number));
            }
        }
        clients[0].send(&plain(&json!("before")));
        clients.iter_mut().for_each(|client| assert_eq!(client.next()["payload"], "before"));
        // Nobody has the acknowledged publications but the primary and, asked here, its replicas.
        assert_eq!(family.primary().ask(&["WAIT", "2", "20000"]), redis::Value::Int(2));
        let old = family.primary().address().port();
        family.primary().stop();
        for node in &nodes {
            wait_until("the link is down", || bridge(node, "bridge_up") == 0);
        }
        // They wait for a primary, whichever it is.
        for number in 21..=40 {
            clients[0].send(&chat(&json!(number)));
        }
        clients[0].send(&plain(&json!("meanwhile")));
        family.wait_for_other(old);
        nodes.iter().for_each(wait_link);
        for room in [ROOM, "plain"] {
            family.primary().wait_for_room(room, 2);
        }
        clients[0].send(&plain(&json!("after")));
        // In the room with a shared history nothing is missing, nothing comes twice and nobody begins anew; in the
        // other one what may be missing was told.
        for client in &mut clients {
            let (mut offset, mut gaps, mut last) = (20, 0, Value::Null);
            while last != "after" || offset < 40 {
                let push = client.next();
                match push["room"].as_str() {
                    Some(ROOM) => {
                        offset += 1;
                        assert_eq!((&push["offset"], &push["payload"]), (&json!(offset), &json!(offset)));
                    }
                    _ if push["type"] == "throng:gap" => gaps += 1,
                    _ => last = push["payload"].clone(),
                }
            }
            assert!(gaps >= 1, "told");
        }
        let mut back = Client::connect(nodes[0].address());
        let reply = join_since(&mut back, &since(&joined, 0));
        assert_eq!((&reply["recovered"], &reply["offset"]), (&json!(true), &json!(40)), "{reply}");
    }

    fn a_primary_that_comes_back_as_a_replica_is_left_alone(driver) {
        let mut family = Family::start();
        let nodes = family.nodes(driver);
        let mut clients = nodes.each_ref().map(|node| Client::connect(node.address()));
        clients.iter_mut().for_each(|client| _ = client.join("plain"));
        let old = family.primary().address().port();
        family.primary().stop();
        family.wait_for_other(old);
        nodes.iter().for_each(wait_link);
        let at = family.servers.iter().position(|server| server.address().port() == old).unwrap();
        family.servers[at].restart();
        let returned = &family.servers[at];
        wait_until("it is a replica now", || {
            // It closes connections when it becomes one.
            let info = returned.try_ask(&["INFO", "replication"]);
            info.is_some_and(|info| format!("{info:?}").contains("role:slave"))
        });
        nodes.iter().for_each(wait_link);
        family.primary().wait_for_room("plain", 2);
        assert_eq!(family.servers[at].subscribers("throng:all"), 0);
        clients[0].send(&plain(&json!("here")));
        clients.iter_mut().for_each(|client| assert_eq!(next_but_gaps(client)["payload"], "here"));
    }
}
