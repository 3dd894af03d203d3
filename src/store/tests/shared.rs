//! The store in Redis, with a server of the test's own: several nodes, one that is killed, an inbox on paper.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::rooms::{keep, offsets, rooms, save};
use super::*;
use crate::store::{Care, Open, Shared};

const CARE: Care = Care { patience: Duration::from_secs(10), replicas: 0 };

/// A redis-server of the test's own, behind a socket in a folder, which writes everything to its disk before it answers.
pub(super) struct Server {
    child: Child,
    folder: TempDir,
}

impl Server {
    pub(super) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let server = Self { child: spawn(&folder), folder };
        server.wait();
        server
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    fn client(&self) -> redis::Client {
        redis::Client::open(format!("redis+unix://{}", self.socket().display())).expect("a URL")
    }

    fn wait(&self) {
        let is_there = || {
            let mut connection = self.client().get_connection()?;
            redis::cmd("PING").query::<String>(&mut connection)
        };
        while is_there().is_err() {
            std::thread::yield_now();
        }
    }

    fn stop(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it has run");
    }

    /// Without anybody noticing but by its connections.
    fn restart_at_once(&mut self) {
        self.stop();
        self.restart();
    }

    fn restart(&mut self) {
        self.child = spawn(&self.folder);
        self.wait();
    }

    fn open(&self) -> Open {
        let client = self.client();
        Box::new(move |patience| {
            let connection = client.get_connection_with_timeout(patience)?;
            connection.set_read_timeout(Some(patience))?;
            Ok(connection)
        })
    }

    /// A store of the node of that name.
    pub(super) fn store(&self, node: &str) -> Shared {
        Shared::new(self.open(), "throng", node, limits(), CARE)
    }

    pub(super) fn world(&self, node: &str) -> World {
        World { store: Box::new(self.store(node)), now: NOW }
    }
}

fn spawn(folder: &TempDir) -> Child {
    let socket = folder.path().join("redis.sock");
    let _ = std::fs::remove_file(&socket);
    Command::new("redis-server")
        .args(["--port", "0", "--save", "", "--appendonly", "yes", "--appendfsync", "always"])
        .args(["--unixsocket".as_ref(), socket.as_os_str(), "--dir".as_ref()])
        .arg(folder.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is installed by `make test`")
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_one_node_keeps_any_other_lists_and_marks_as_read() {
    let server = Server::start();
    let (mut one, mut two) = (server.world("one"), server.world("two"));
    let first = one.append_as("u", "1", "name");
    let again = two.append_as("u", "1", "name");
    assert_eq!((again.id, again.repeated, again.unread), (first.id, true, 1));
    let second = two.append("u", "2");
    assert!(second.id > first.id);
    assert_eq!(
        (one.payloads("u"), two.payloads("u")),
        (vec!["1".into(), "2".into()], vec!["1".into(), "2".into()])
    );
    assert_eq!(one.read("u", Marked::Ids(vec![first.id])), (1, true));
    assert_eq!(two.payloads("u"), ["2"]);
    assert!(two.append_as("u", "1", "name").repeated, "what was read does not come back");
}

#[test]
fn nodes_that_write_to_one_inbox_at_once_lose_nothing_and_repeat_nothing() {
    const EACH: u64 = 200;
    let server = Server::start();
    let roomy = Limits { count: 10_000, bytes: 1 << 20, ..limits() };
    let write = |node: u64| {
        let care = Care { patience: Duration::from_secs(60), ..CARE };
        let store = Shared::new(server.open(), "throng", &node.to_string(), roomy, care);
        let mut world = World { store: Box::new(store), now: NOW };
        // Half of the names are those of the other node as well.
        let name = |at: u64| {
            if at.is_multiple_of(2) { format!("both{at}") } else { format!("{node}:{at}") }
        };
        (0..EACH).map(|at| world.append_as("u", &name(at), &name(at))).collect::<Vec<_>>()
    };
    let (one, two) = std::thread::scope(|scope| {
        let one = scope.spawn(|| write(1));
        let two = write(2);
        (one.join().expect("a thread"), two)
    });
    let repeated = one.iter().chain(&two).filter(|appended| appended.repeated).count() as u64;
    assert_eq!(repeated, EACH / 2);
    let mut world = server.world("three");
    let mut kept = world.payloads("u");
    assert_eq!(kept.len() as u64, 2 * EACH - repeated);
    kept.sort();
    kept.dedup();
    assert_eq!(kept.len() as u64, 2 * EACH - repeated, "each once");
    assert_eq!(world.list("u", 0, 1).unread, 2 * EACH - repeated);
}

#[test]
fn a_redis_that_is_killed_has_lost_nothing_that_was_acknowledged_and_is_a_fault_meanwhile() {
    let mut server = Server::start();
    let mut world = server.world("one");
    let kept: Vec<u64> = (0..5).map(|at| world.append("u", &at.to_string()).id).collect();
    world.read("u", Marked::Ids(vec![kept[0]]));
    // A connection that Redis has closed is found out before anything is written, and costs nobody anything.
    server.restart_at_once();
    assert_eq!(world.append("u", "6").unread, 5);
    world.read("u", Marked::Ids(vec![kept[4] + 1]));
    server.stop();
    let error = world.store.commit(&[Ask::Alive], NOW).expect_err("no Redis");
    assert!(error.to_string().starts_with("the store in Redis: "), "{error}");
    let error = world.store.commit(&[Ask::Alive], NOW).expect_err("still none");
    assert!(error.to_string().contains("connecting"), "{error}");
    server.restart();
    assert_eq!(world.payloads("u"), ["1", "2", "3", "4"]);
    assert_eq!(world.append("u", "5").unread, 5);
}

#[test]
fn each_node_settles_those_who_were_connected_to_it_and_no_others() {
    let server = Server::start();
    let (mut one, mut two) = (server.world("one"), server.world("two"));
    let come = |owner: &str, at| Ask::Seen(vec![Seen { owner: owner.into(), at, here: true }]);
    one.ask(come("ada", NOW)).expect("it works");
    two.ask(come("bob", NOW)).expect("it works");
    one.now += 5000;
    one.ask(Ask::Alive).expect("it works");
    assert_eq!(two.ask(Ask::Settle), Ok(Answer::Settled { more: false }));
    assert_eq!((two.last_seen("ada"), two.last_seen("bob")), (None, Some(NOW)));
    assert_eq!(one.ask(Ask::Settle), Ok(Answer::Settled { more: false }));
    assert_eq!(two.last_seen("ada"), Some(NOW + 5000));
}

#[test]
fn what_is_to_be_on_replicas_is_not_acknowledged_before_they_have_it() {
    let server = Server::start();
    let care = Care { patience: Duration::from_millis(400), replicas: 1 };
    let store = Shared::new(server.open(), "throng", "one", limits(), care);
    let mut world = World { store: Box::new(store), now: NOW };
    let named = || Ask::Append(draft("u", "1", "name"));
    for _ in 0..2 {
        let error = world.store.commit(&[named()], NOW).expect_err("there is none");
        assert!(error.to_string().contains("0 replicas have it, and 1 were to"), "{error}");
    }
    let list = world.payloads("u");
    assert_eq!(list, ["1"], "it is kept all the same, once, and to read needs no replica");
}

#[test]
fn rooms_are_each_nodes_own_and_are_there_for_the_next_of_its_name() {
    let server = Server::start();
    let begin = |name: &str| {
        let mut world = server.world(name);
        let known = rooms(&mut world, u64::MAX);
        (world, known)
    };
    let ((mut one, none), (mut two, nothing)) = (begin("a"), begin("ab"));
    assert!(none.is_empty() && nothing.is_empty());
    keep(&mut one, save("r", 7, 1..4, NOW));
    keep(&mut two, save("r", 9, 1..2, NOW));
    keep(&mut two, save("s", 9, 1..2, NOW));
    one.ask(Ask::Alive).expect("it works");
    one.append("u", "1");
    let (mut one, known) = begin("a");
    let [room] = &known[..] else { panic!("{known:?}") };
    assert_eq!((&*room.room, room.epoch, offsets(room)), ("r", 7, vec![1, 2, 3]));
    assert_eq!(one.payloads("u"), ["1"], "an inbox is everybody's");
    assert_eq!(begin("ab").1.len(), 2);
    // What has grown old leaves by the hand of its own node alone.
    one.now += 2 * DAY;
    one.prune();
    assert!(begin("a").1.is_empty());
    assert_eq!(begin("ab").1.len(), 2);
}

#[test]
fn a_node_that_began_without_what_it_had_kept_of_rooms_has_it_forgotten() {
    let server = Server::start();
    let mut before = server.world("a");
    keep(&mut before, save("r", 7, 1..4, NOW));
    keep(&mut before, save("s", 7, 1..4, NOW));
    // Redis was away when this one asked, and what it numbers it numbers anew.
    let mut blind = server.world("a");
    keep(&mut blind, save("r", 8, 1..2, NOW));
    keep(&mut blind, save("t", 8, 1..2, NOW));
    let known = rooms(&mut server.world("a"), u64::MAX);
    let known: Vec<_> = known.iter().map(|room| (&*room.room, room.epoch)).collect();
    assert_eq!(known, [("r", 8), ("t", 8)]);
}
