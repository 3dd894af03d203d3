//! A Redis that a test starts and kills itself, a proxy in front of it that can stall, and nodes behind.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use tempfile::TempDir;
use throng::node::Node;

use crate::support::{Client, free_port, node, wait_until};

/// A redis-server process on a port of its own.
pub(crate) struct Redis {
    child: Child,
    port: u16,
    folder: TempDir,
    more: Vec<String>,
}

impl Redis {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with more arguments.
    pub(crate) fn start_with(more: &[&str]) -> Self {
        let port = free_port();
        let folder = tempfile::tempdir().unwrap();
        let more: Vec<String> = more.iter().map(|word| (*word).to_owned()).collect();
        let child = Self::spawn(port, &folder, &more);
        let redis = Self { child, port, folder, more };
        redis.wait();
        redis
    }

    fn spawn(port: u16, folder: &TempDir, more: &[String]) -> Child {
        Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--appendonly", "no", "--dir"])
            .arg(folder.path())
            .args(more)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed by `make test`")
    }

    fn wait(&self) {
        wait_until("Redis answers", || self.try_ask(&["PING"]).is_some());
    }

    pub(crate) fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn restart(&mut self) {
        self.child = Self::spawn(self.port, &self.folder, &self.more);
        self.wait();
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// The same, where it may not answer.
    pub(crate) fn try_ask(&self, words: &[&str]) -> Option<redis::Value> {
        let client = redis::Client::open(format!("redis://{}", self.address())).unwrap();
        let mut connection = client.get_connection().ok()?;
        let mut command = redis::cmd(words[0]);
        words[1..].iter().for_each(|word| _ = command.arg(word));
        command.query(&mut connection).ok()
    }

    /// What a command answers.
    pub(crate) fn ask(&self, words: &[&str]) -> redis::Value {
        self.try_ask(words).unwrap_or_else(|| panic!("{words:?}"))
    }

    /// Has many commands done, in order.
    pub(crate) fn run(&self, pipe: &redis::Pipeline) {
        let client = redis::Client::open(format!("redis://{}", self.address())).unwrap();
        pipe.exec(&mut client.get_connection().unwrap()).unwrap();
    }

    /// Publishes as any program would.
    pub(crate) fn publish(&self, channel: &str, text: &str) {
        self.ask(&["PUBLISH", channel, text]);
    }

    /// How many nodes are subscribed to the channel. Asked again where the connection is cut off: sentinels have a
    /// server close all of its connections when they make something else of it.
    pub(crate) fn subscribers(&self, channel: &str) -> i64 {
        let mut told = None;
        wait_until("Redis says who listens", || {
            told = self.try_ask(&["PUBSUB", "NUMSUB", channel]);
            told.is_some()
        });
        match told {
            Some(redis::Value::Array(pair)) => match pair[1] {
                redis::Value::Int(count) => count,
                ref other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    /// How many nodes are subscribed to each of the channels.
    pub(crate) fn all_subscribers(&self, channels: &[String]) -> Vec<usize> {
        let words: Vec<&str> =
            ["PUBSUB", "NUMSUB"].into_iter().chain(channels.iter().map(String::as_str)).collect();
        let pairs: Vec<(String, usize)> = redis::from_redis_value(self.ask(&words)).unwrap();
        pairs.into_iter().map(|(_, count)| count).collect()
    }

    /// Waits until so many nodes are subscribed to the room.
    pub(crate) fn wait_for_room(&self, room: &str, nodes: i64) {
        let channel = format!("throng:room:{room}");
        wait_until(&channel, || self.subscribers(&channel) == nodes);
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A node that works with those that share its Redis, and is linked.
pub(crate) fn linked(driver: &str, redis: SocketAddr, sets: &[&str]) -> Node {
    let node = unlinked(driver, redis, sets);
    wait_link(&node);
    node
}

/// The same, not waited for.
pub(crate) fn unlinked(driver: &str, redis: SocketAddr, sets: &[&str]) -> Node {
    let url = format!("bridge.url=redis://{redis}");
    let own = ["bridge.canary_interval_ms=100", "bridge.command_timeout_ms=1000"];
    node(driver, &[&[url.as_str()], &own[..], sets].concat())
}

pub(crate) fn wait_link(node: &Node) {
    wait_until("the link is up", || bridge(node, "bridge_up") == 1);
}

/// A counter of the node's bridge.
pub(crate) fn bridge(node: &Node, name: &str) -> u64 {
    let counters = node.bridge_counters();
    counters.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("{name}")).1
}

/// Clients of these nodes, one each, all in the room and subscribed to it.
pub(crate) fn members(redis: &Redis, nodes: &[&Node], room: &str) -> Vec<Client> {
    let mut clients: Vec<Client> =
        nodes.iter().map(|node| Client::connect(node.address())).collect();
    for client in &mut clients {
        client.join(room);
    }
    redis.wait_for_room(room, nodes.len().try_into().unwrap());
    clients
}

/// The next push that is no gap.
pub(crate) fn next_but_gaps(client: &mut Client) -> Value {
    loop {
        let push = client.next();
        if push["type"] != "throng:gap" {
            return push;
        }
    }
}

/// Stands between nodes and Redis, and holds everything back when it is told to.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    stalled: Arc<AtomicBool>,
}

impl Proxy {
    pub(crate) fn before(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stalled = Arc::new(AtomicBool::new(false));
        let held = Arc::clone(&stalled);
        thread(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(target)) else { return };
                let ends = [(&client, &server), (&server, &client)];
                for (from, to) in ends {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let held = Arc::clone(&held);
                    thread(move || carry(from, to, &held));
                }
            }
        });
        Self { address, stalled }
    }

    pub(crate) fn stall(&self, stalled: bool) {
        self.stalled.store(stalled, Ordering::Release);
    }
}

#[expect(clippy::disallowed_methods, reason = "a proxy of a test, not a part of the engine")]
fn thread(work: impl FnOnce() + Send + 'static) {
    std::thread::spawn(work);
}

/// Carries bytes one way, and none while it is told to hold them back.
fn carry(mut from: TcpStream, mut to: TcpStream, held: &AtomicBool) {
    let mut buffer = [0; 16_384];
    loop {
        let count = from.read(&mut buffer).unwrap_or(0);
        while held.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        if count == 0 || to.write_all(&buffer[..count]).is_err() {
            let _ = to.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
            return;
        }
    }
}
