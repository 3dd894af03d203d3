//! The processes: three nodes and the Redis that they share, each killed, paused and started again.
//!
//! Each has its ports for good, so that whoever comes back finds it where it was, and writes its log to a file that
//! all of its lives go on with. Redis keeps its data and has written a command down before it answers.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::SECRET;
use crate::support::free_port;

/// How many nodes there are.
pub(crate) const NODES: usize = 3;
/// How long one question to a node may take.
const ANSWER: Duration = Duration::from_secs(2);

/// A program that is run again and again.
pub(crate) struct Machine {
    pub(crate) name: String,
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
    is_paused: bool,
}

impl Machine {
    fn new(name: &str, program: &str, arguments: Vec<String>, folder: &Path) -> Self {
        let log = folder.join(format!("{name}.log"));
        let program = program.into();
        Self { name: name.to_owned(), program, arguments, log, child: None, is_paused: false }
    }

    pub(crate) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.is_paused
    }

    pub(crate) fn start(&mut self) {
        let log = || File::options().create(true).append(true).open(&self.log).unwrap();
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdout(log()).stderr(log());
        self.child = Some(command.spawn().unwrap_or_else(|error| panic!("{}: {error}", self.name)));
    }

    /// Ends it with no chance to do anything more.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        self.is_paused = false;
    }

    /// Stops it in the middle of whatever it does, or lets it go on.
    pub(crate) fn pause(&mut self, paused: bool) {
        let Some(child) = &self.child else { return };
        let signal = if paused { Signal::STOP } else { Signal::CONT };
        let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        self.is_paused = paused;
    }

    /// True when it has ended without being killed.
    pub(crate) fn has_failed(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_some())
    }

    /// What it has said last.
    pub(crate) fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let from = text.char_indices().rev().nth(4000).map_or(0, |(at, _)| at);
        format!("--- {}\n{}", self.name, &text[from..])
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
    }
}

/// All of them.
pub(crate) struct Cluster {
    /// Redis first, then the nodes.
    pub(crate) machines: Vec<Machine>,
    /// Where clients find each node.
    pub(crate) doors: [SocketAddr; NODES],
    admins: [SocketAddr; NODES],
    redis: SocketAddr,
    _folder: TempDir,
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

impl Cluster {
    /// Starts all of them.
    pub(crate) fn start(sets: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = || local(free_port());
        let redis = port();
        let (doors, admins) = ([(); NODES].map(|()| port()), [(); NODES].map(|()| port()));
        let words = format!(
            "--port {} --bind 127.0.0.1 --save  --appendonly yes --appendfsync always --dir {}",
            redis.port(),
            folder.path().display()
        );
        let words = words.split(' ').map(str::to_owned).collect();
        let mut machines = vec![Machine::new("redis", "redis-server", words, folder.path())];
        for at in 0..NODES {
            let own = [
                format!("server.listen={}", doors[at]),
                format!("admin.listen={}", admins[at]),
                format!("bridge.url=redis://{redis}"),
                format!("server.driver={}", ["epoll", "uring", "auto"][at]),
            ];
            let sets = own.into_iter().chain(sets.iter().map(|set| (*set).to_owned()));
            let words = sets.flat_map(|set| ["--set".to_owned(), set]);
            let words = ["run".to_owned()].into_iter().chain(words).collect();
            let program = env!("CARGO_BIN_EXE_throng");
            machines.push(Machine::new(&format!("node {at}"), program, words, folder.path()));
        }
        machines.iter_mut().for_each(Machine::start);
        Self { machines, doors, admins, redis, _folder: folder }
    }

    /// Starts what is down and lets go on what is paused.
    pub(crate) fn mend(&mut self) {
        for machine in &mut self.machines {
            if machine.is_paused() {
                machine.pause(false);
            }
            if !machine.is_running() {
                machine.start();
            }
        }
    }

    /// True when every node serves and has its link.
    pub(crate) fn is_whole(&self) -> bool {
        (0..NODES).all(|node| {
            let ready = self.ask(node, "/readyz");
            ready.is_some_and(|ready| ready["ready"] == true && ready.get("degraded").is_none())
        })
    }

    /// What a node's admin listener answers, if it does.
    pub(crate) fn ask(&self, node: usize, path: &str) -> Option<Value> {
        let mut stream = TcpStream::connect_timeout(&self.admins[node], ANSWER).ok()?;
        stream.set_read_timeout(Some(ANSWER)).ok()?;
        let bearer = format!("Authorization: Bearer {SECRET}");
        let head =
            format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{bearer}\r\n\r\n");
        stream.write_all(head.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }

    /// What a command of Redis answers, if it does.
    pub(crate) fn redis(&self, words: &[&str]) -> Option<redis::Value> {
        let client = redis::Client::open(format!("redis://{}", self.redis)).unwrap();
        let mut connection = client.get_connection_with_timeout(ANSWER).ok()?;
        connection.set_read_timeout(Some(ANSWER)).ok()?;
        let mut command = redis::cmd(words[0]);
        words[1..].iter().for_each(|word| _ = command.arg(word));
        command.query(&mut connection).ok()
    }

    /// What all of them have said last.
    pub(crate) fn last_words(&self) -> String {
        self.machines.iter().map(Machine::last_words).collect()
    }
}
