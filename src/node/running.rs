//! A node: its workers, started and ended.
//!
//! Workers are started one after another, each with a descriptor table and a listener of its own, so
//! that the first can say which port port 0 became. The node itself is one more port of the mesh: it
//! speaks to the shards by mail, as they do to each other.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::auth::TicketKey;
use crate::base::counters::Counters;
use crate::base::id::ShardId;
use crate::base::map::Seed;
use crate::bridge::Bridge;
use crate::driver::{self, Kind};
use crate::front::{Front, Line};
use crate::mesh::{Lane, Port, mesh};
use crate::node::board::Board;
use crate::node::config::Config;
use crate::node::desk::{self, NodeDesk, Office};
use crate::node::keeper::{NodeClerk, StoreHandle, StoreThread};
use crate::node::link::{self, Link};
use crate::node::metrics::About;
use crate::node::opened::{Memories, Opened};
use crate::node::prover::{self, Provers};
use crate::node::publishing::Publishing;
use crate::node::tls::Certificates;
use crate::node::turns::TurnTimes;
use crate::node::ways::{self, Moorings, Ways};
use crate::node::work::work;
use crate::node::{farewells, front, keys, settings};
use crate::shard::{Identity, Mail, Packer, Settings};
use crate::sys::clock::{Clock, unix_millis};
use crate::sys::{affinity, descriptors, listener};
use crate::wire::tls::SecureListener;

/// Why the node could not start or go on.
#[derive(Debug)]
pub struct LaunchError(String);

impl LaunchError {
    pub(super) fn of(text: String) -> Self {
        Self(text)
    }

    pub(super) fn new(what: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self(format!("{what}: {why}"))
    }
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LaunchError {}

/// Where a node listens, in the order of its listeners' numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    pub(super) plain: Option<SocketAddr>,
    pub(super) tls: Option<SocketAddr>,
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    addresses: Addresses,
    /// Who we are to clients that speak TLS; `None` where that is off.
    certificates: RefCell<Option<Certificates>>,
    /// The driver in use, and why.
    driver: (Kind, String),
    shards: u16,
    connections: usize,
    board: Arc<Board>,
    /// The node's own port; mail for a full inbox waits here, in order.
    port: Port<Mail>,
    waiting: RefCell<Vec<(usize, Mail)>>,
    pub(super) tickets: TicketKey,
    workers: Vec<JoinHandle<()>>,
    ended: Receiver<(ShardId, io::Result<()>)>,
    beside: Beside,
}

/// The threads beside the workers.
#[derive(Debug, Default)]
struct Beside {
    /// The admin thread, where there is work for it.
    admin: Option<Office>,
    /// The store's; `None` before the start and after the end.
    store: Option<StoreThread>,
    /// The one to other nodes, where there are any.
    bridge: Option<Bridge>,
    /// The one between clients and other servers, where there are any.
    front: Option<Front>,
    /// Those that check tokens, where there are any.
    provers: Option<Provers>,
    /// Ends of the workers' ways for sockets.
    moorings: Moorings,
}

/// Connections per shard for which address space is reserved at the start. Growing beyond costs a copy
/// now and then; reserving for as many as some systems allow descriptors (2^30) would not succeed.
const RESERVED_AT_START: usize = 1 << 22;

/// What every worker of a node is started with.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) config: Config,
    pub(super) settings: Arc<Settings>,
    pub(super) kind: Kind,
    pub(super) identity: Identity,
    pub(super) clock: Clock,
    pub(super) board: Arc<Board>,
    pub(super) cores: Arc<[usize]>,
    pub(super) store: StoreHandle,
    /// Of an earlier life of the node; held until every shard has it.
    pub(super) memories: Arc<Memories>,
}

impl Node {
    /// Starts the workers; when this returns the node is accepting.
    ///
    /// # Errors
    /// When the kernel refuses what the configuration asks for; the text says what and why.
    pub fn start(config: &Config) -> Result<Self, LaunchError> {
        let shards = settings::shards(config);
        let per_table =
            descriptors::connections_within(descriptors::raise_limit(descriptors::ceiling()));
        let connections = settings::capacity(config, shards, per_table);
        let driver = choose_driver(config)?;
        let addresses = Addresses { plain: config.server.listen, tls: config.transport.tls.listen };
        for (key, address) in [("server.listen", addresses.plain), ("tls.listen", addresses.tls)] {
            address
                .map_or(Ok(()), listener::ensure_free)
                .map_err(|error| LaunchError::new(key, error))?;
        }
        let certificates = Certificates::load(config).map_err(LaunchError::of)?;
        // Behind the shards' ports stand those of the node, of the admin listener (`desk_port`), of the store
        // and, where there is one, of the bridge (`bridge_port`), in this order, and then those of the provers.
        let is_linked = config.inside.is_linked();
        let provers = prover::threads(config);
        let count = usize::from(shards) + 3 + usize::from(is_linked) + provers;
        let mut ports = mesh(count, config.inside.mesh.inbox_capacity as usize)
            .map_err(|error| LaunchError::new("mail between shards", error))?;
        let proving = ports.split_off(count - provers);
        let mut last = || ports.pop().ok_or_else(|| LaunchError::new("mesh", "no port"));
        let across = is_linked.then(&mut last).transpose()?;
        let (clerk, desk, port) = (last()?, last()?, last()?);
        let mut opened = Opened::open(config)?;
        let memories = Arc::new(std::mem::take(&mut opened.memories));
        let store =
            opened.start(NodeClerk::new(shards, clerk, config.inside.shared_store.redis))?;
        let handle = store.handle();
        let (tell, ended) = bounded(usize::from(shards));
        let mut node = Self {
            addresses,
            certificates: RefCell::new(certificates),
            driver,
            shards,
            connections: connections * usize::from(shards),
            board: Arc::new(Board::of(config, shards)),
            port,
            waiting: RefCell::default(),
            tickets: keys::ticket_key(config)?,
            workers: Vec::new(),
            ended,
            beside: Beside { store: Some(store), ..Beside::default() },
        };
        let plan = Plan { memories, ..node.plan(config, connections)? };
        if let Some(across) = across {
            let identity = &plan.identity;
            let bridge = Link::start(config, identity, across, &node.board, plan.clock)?;
            node.beside.bridge = Some(bridge);
        }
        node.beside.provers = Provers::start(config, shards, proving)?;
        let mut lines = node.start_front(config)?.into_iter();
        let (mut ferries, moorings) = ways::ferries(shards, &plan.settings)?;
        node.beside.moorings = moorings;
        for (shard, port) in (0..shards).map(ShardId).zip(ports) {
            let work = node.beside.provers.as_ref().map(Provers::line);
            let ways = Ways { front: lines.next(), work, ferry: ferries.next() };
            node.start_worker(&plan, shard, (port, ways), tell.clone())?;
        }
        let mut about =
            About::new(node.connections, node.driver.0.to_string(), plan.identity.started_unix_ms);
        (about.bridge, about.absent) = link::known(config, node.beside.bridge.as_ref());
        about.era = node.beside.bridge.as_ref().map(|bridge| Arc::clone(bridge.era()));
        about.front = node.beside.front.as_ref().map(|front| Arc::clone(front.tally()));
        let packer = settings::compression(config).as_ref().map(Packer::new);
        let publishing = Publishing::new(&plan.identity, plan.clock, packer);
        let desk =
            NodeDesk::new(shards, &node.board, &node.tickets, handle, publishing, desk, about);
        node.beside.admin = Office::open(config, desk)?;
        Ok(node)
    }

    /// Starts the thread between clients and other servers, if there are any; a line to it for each worker.
    fn start_front(&mut self, config: &Config) -> Result<Vec<Line>, LaunchError> {
        let Some(options) = front::options(config) else { return Ok(Vec::new()) };
        let (front, lines) = Front::start(options, self.shards.into())
            .map_err(|error| LaunchError::new("proxy", error))?;
        self.beside.front = Some(front);
        Ok(lines)
    }

    fn plan(&self, config: &Config, connections: usize) -> Result<Plan, LaunchError> {
        let random = || fastrand::u64(..);
        Ok(Plan {
            settings: Arc::new(self.settings(config, connections)?),
            kind: self.driver.0,
            identity: Identity {
                id: ShardId(0),
                node: link::tag(config),
                shards: self.shards,
                seed: Seed::new(random()),
                jitter: random(),
                // In nanoseconds: each life of a room takes one, and however many come and go, the clock
                // of the next start is ahead of them.
                epoch: unix_millis().saturating_mul(1_000_000),
                started_unix_ms: unix_millis(),
                capacity: connections.min(RESERVED_AT_START),
            },
            clock: Clock::start(),
            board: Arc::clone(&self.board),
            store: self.store(),
            memories: Arc::default(),
            cores: affinity::cores().map_err(|e| LaunchError::new("reading the cores", e))?.into(),
            config: config.clone(),
        })
    }

    fn start_worker(
        &mut self,
        plan: &Plan,
        id: ShardId,
        ways: (Port<Mail>, Ways),
        tell: Sender<(ShardId, io::Result<()>)>,
    ) -> Result<(), LaunchError> {
        let (bound, address) = bounded(1);
        let mut plan = plan.clone();
        plan.identity.id = id;
        plan.identity.jitter = plan.identity.jitter.wrapping_add(u64::from(id.0));
        let listen = self.addresses;
        let worker = move || {
            let memories = std::mem::take(&mut plan.memories);
            let worked = AssertUnwindSafe(|| work(&plan, memories, listen, ways, &bound));
            // A panic that the worker did not contain has been printed by now; a node that went on
            // without one of its shards would lose what is published there and say nothing.
            let panicked = |_| Err(io::Error::other("it panicked"));
            let result = catch_unwind(worked).unwrap_or_else(panicked);
            drop(bound);
            // The node may have stopped listening; then nobody needs to know.
            let _ = tell.send((id, result));
        };
        let builder = std::thread::Builder::new().name(format!("shard-{}", id.0));
        let handle = builder.spawn(worker).map_err(|e| LaunchError::new("starting a thread", e))?;
        self.workers.push(handle);
        match address.recv() {
            Ok(addresses) => {
                self.addresses = addresses;
                Ok(())
            }
            Err(_) => {
                let why = self.ended.recv().ok().and_then(|(_, result)| result.err());
                let why =
                    why.map_or_else(|| "it ended early".to_owned(), |error| error.to_string());
                Err(LaunchError::new(format_args!("shard {}", id.0), why))
            }
        }
    }

    /// Where the node listens for clients that speak plainly; where it speaks TLS, when it does nothing
    /// else.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        let Addresses { plain, tls } = self.addresses;
        plain.or(tls).unwrap_or_else(|| unreachable!("a node listens somewhere"))
    }

    /// Where the node listens for clients that speak plainly, if it does.
    #[must_use]
    pub fn plain_address(&self) -> Option<SocketAddr> {
        self.addresses.plain
    }

    /// Where the node speaks TLS, if it does.
    #[must_use]
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.addresses.tls
    }

    /// Where the admin listener is, if there is one.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.beside.admin.as_ref().and_then(Office::address)
    }

    /// The driver in use, and why.
    #[must_use]
    pub fn driver(&self) -> (Kind, &str) {
        (self.driver.0, &self.driver.1)
    }

    /// The number of shards.
    #[must_use]
    pub fn shards(&self) -> u16 {
        self.shards
    }

    /// Connections the node takes at most.
    #[must_use]
    pub fn max_connections(&self) -> usize {
        self.connections
    }

    /// The counters, summed over the shards.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.board.total()
    }

    /// One shard's counters.
    #[must_use]
    pub fn shard_counters(&self, shard: ShardId) -> Counters {
        self.board.shard(shard)
    }

    /// What the store's thread counts.
    #[must_use]
    pub fn store_counters(&self) -> Vec<(&'static str, u64)> {
        self.store().tally().pairs().collect()
    }

    /// What the bridge counts; nothing where the node works alone.
    #[must_use]
    pub fn bridge_counters(&self) -> Vec<(&'static str, u64)> {
        let bridge = self.beside.bridge.iter();
        bridge.flat_map(|bridge| bridge.tally().pairs()).collect()
    }

    /// What is counted of requests that other servers answer; nothing where there are none.
    #[must_use]
    pub fn front_counters(&self) -> Vec<(&'static str, u64)> {
        let front = self.beside.front.iter();
        front.flat_map(|front| front.tally().pairs()).collect()
    }

    fn store(&self) -> StoreHandle {
        self.beside.store.as_ref().map_or_else(StoreHandle::nowhere, StoreThread::handle)
    }

    /// How long the turns of all shards took since this was last asked; zeros unless `debug.turn_clock`
    /// is set.
    #[must_use]
    pub fn take_turns(&self) -> TurnTimes {
        self.board.take_turns()
    }

    /// Gives all shards and the admin listener new limits, rules and keys, and reads the certificates again.
    /// What cannot change in a running node keeps its value; certificates that do not do are logged, and the
    /// old ones kept.
    ///
    /// # Errors
    /// When a file that the configuration names cannot be used; then nothing changes.
    pub fn reload(&self, config: &Config) -> Result<(), LaunchError> {
        let admin = desk::options(config)?;
        let connections = self.connections / usize::from(self.shards);
        let mut settings = self.settings(config, connections)?;
        self.renew_certificates(config);
        settings.routes.tls = self.secure_listener(config);
        let settings = Arc::new(settings);
        self.post_all(|| Mail::Settings(Arc::clone(&settings)));
        if let Some(running) = &self.beside.admin {
            running.reload(config, admin);
        }
        Ok(())
    }

    /// Reads the certificates again if a file has changed. To be called now and then.
    ///
    /// # Errors
    /// As [`Node::reload`].
    pub fn watch(&self, config: &Config) -> Result<(), LaunchError> {
        let stale = |certificates: &Certificates| certificates.are_stale(config);
        if self.certificates.borrow().as_ref().is_some_and(stale) {
            return self.reload(config);
        }
        Ok(())
    }

    fn renew_certificates(&self, config: &Config) {
        let mut certificates = self.certificates.borrow_mut();
        match certificates.as_mut().map(|certificates| certificates.renew(config)) {
            Some(Ok(())) => {
                tracing::info!("the certificates were read; they hold for new connections");
            }
            Some(Err(error)) => {
                tracing::error!(
                    "the certificates in use were kept, as the new ones do not do: {error}"
                );
            }
            None => {}
        }
    }

    fn settings(&self, config: &Config, connections: usize) -> Result<Settings, LaunchError> {
        let mut settings = settings::settings(config, connections);
        keys::furnish(&mut settings, config, &self.tickets)?;
        settings.routes.tls = self.secure_listener(config);
        if settings.capacity.memory == u64::MAX {
            settings.capacity.memory = settings::budget(config);
        }
        Ok(settings)
    }

    fn secure_listener(&self, config: &Config) -> Option<SecureListener> {
        self.certificates.borrow().as_ref().map(|own| own.secure_listener(config))
    }

    /// Begins the graceful end: no socket is accepted any more, clients are told and closed.
    pub fn drain(&self, window: Duration) {
        self.board.begin_drain();
        self.post_all(|| Mail::Drain(window));
        if let Some(front) = &self.beside.front {
            front.drain(window);
        }
    }

    /// True once no connection is left.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.board.is_drained() && self.beside.front.as_ref().is_none_or(Front::is_idle)
    }

    /// Ends the workers and waits for them.
    ///
    /// # Errors
    /// When a worker had failed.
    pub fn stop(mut self) -> Result<(), LaunchError> {
        self.end()
    }

    /// The next worker that has ended, within `wait`; none ends by itself but by failing.
    pub(super) fn failed(&self, wait: Duration) -> Option<LaunchError> {
        self.post_waiting();
        if self.beside.admin.as_ref().is_some_and(Office::has_failed) {
            return Some(LaunchError::new("admin", "its thread has ended"));
        }
        if self.beside.store.as_ref().is_some_and(StoreThread::has_failed) {
            return Some(LaunchError::new("store", "its thread has ended"));
        }
        if self.beside.bridge.as_ref().is_some_and(Bridge::has_failed) {
            return Some(LaunchError::new("bridge", "its thread has ended"));
        }
        if self.beside.front.as_ref().is_some_and(Front::has_failed) {
            return Some(LaunchError::new("proxy", "its thread has ended"));
        }
        if self.beside.provers.as_ref().is_some_and(Provers::has_failed) {
            return Some(LaunchError::new("auth.check_threads", "one of them has ended"));
        }
        let (shard, result) = self.ended.recv_timeout(wait).ok()?;
        let why = result.err().map_or_else(|| "it ended".to_owned(), |error| error.to_string());
        Some(LaunchError::new(format_args!("shard {}", shard.0), why))
    }

    /// The turns of each shard so far.
    pub(super) fn turns(&self) -> Vec<u64> {
        (0..self.shards).map(|shard| self.shard_counters(ShardId(shard)).turns_total).collect()
    }

    /// Asks every shard for a turn.
    pub(super) fn wake(&self) {
        self.post_all(|| Mail::Wake);
    }

    /// Writes to the log who has gone, where that was asked for.
    pub(super) fn log_farewells(&self) {
        for farewell in self.board.farewells() {
            farewells::log(&farewell);
        }
    }

    pub(super) fn post_all(&self, mail: impl Fn() -> Mail) {
        let all = (0..usize::from(self.shards)).map(|shard| (shard, mail()));
        self.waiting.borrow_mut().extend(all);
        self.post_waiting();
    }

    /// Offers mail again that an inbox had no space for. Order per shard is kept.
    fn post_waiting(&self) {
        let mut waiting = self.waiting.borrow_mut();
        let mut full = Vec::new();
        for (shard, mail) in std::mem::take(&mut *waiting) {
            if full.contains(&shard) {
                waiting.push((shard, mail));
            } else if let Err(mail) = self.port.post(shard, Lane::Delivery, mail) {
                full.push(shard);
                waiting.push((shard, mail));
            }
        }
    }

    fn end(&mut self) -> Result<(), LaunchError> {
        // First, while the shards can still do what was asked of them.
        self.beside.admin = None;
        self.post_all(|| Mail::Stop);
        let mut result = Ok(());
        while self.workers.iter().any(|worker| !worker.is_finished()) {
            self.post_waiting();
            if let Ok((shard, Err(error))) = self.ended.recv_timeout(Duration::from_millis(20)) {
                result = Err(LaunchError::new(format_args!("shard {}", shard.0), error));
            }
        }
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                result = Err(LaunchError::new("a worker", "it panicked"));
            }
        }
        // Last: what the others have handed in is still done.
        self.beside.store = None;
        self.beside.bridge = None;
        self.beside.front = None;
        self.beside.provers = None;
        result
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Whoever wants to know calls `stop`.
        let _ = self.end();
    }
}

/// Asks the kernel on a thread of its own: the end of a ring interrupts system calls of the thread that
/// made it a little later (EINTR, seen on Linux 6.18), and the caller's are not ours to interrupt.
fn choose_driver(config: &Config) -> Result<(Kind, String), LaunchError> {
    let uring = settings::uring_options(config);
    let choice = settings::driver_choice(config);
    let probe = std::thread::Builder::new().spawn(move || driver::probe(choice, &uring));
    let probe = probe.map_err(|error| LaunchError::new("starting a thread", error))?;
    match probe.join() {
        Ok(result) => result.map_err(|error| LaunchError::new("server.driver", error)),
        Err(_) => Err(LaunchError::new("server.driver", "the probe panicked")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::{ConnAddress, ConnId};
    use crate::node::config::Origin;
    use crate::shard::{Asked, Question};
    use std::net::TcpStream;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn start(listen: &str) -> Result<Node, LaunchError> {
        let sets = [&format!("server.listen={listen}"), "server.shards=2", "server.pin=false"];
        let sets = sets.iter().map(|set| (*set).to_owned()).collect();
        Node::start(&Origin { file: None, sets }.load().expect("a valid configuration"))
    }

    #[test]
    fn a_worker_that_panics_fails_the_node() {
        let node = start("127.0.0.1:0").expect("a running node");
        let nowhere = ConnAddress::alone(ShardId(99), ConnId { index: 0, generation: 0 });
        let (asked, room) = (Asked::Members, Arc::from("r"));
        let question = Question { to: nowhere, asked, reference: None, room };
        let asks = node.port.post(1, Lane::Request, Mail::Ask(Box::new(question)));
        assert!(asks.is_ok());
        let error = node.failed(PATIENCE).expect("the node hears of it");
        assert_eq!(error.to_string(), "shard 1: it panicked");
    }

    #[test]
    fn a_port_that_another_node_listens_on_is_refused_until_that_one_drains() {
        let first = start("127.0.0.1:0").expect("a running node");
        let address = first.address().to_string();
        let _client = TcpStream::connect(first.address()).expect("a connection");
        let error = start(&address).expect_err("the port is taken").to_string();
        assert!(error.contains("server.listen") && error.contains(&address), "{error}");
        assert!(error.contains("in use"), "{error}");
        first.drain(PATIENCE);
        while TcpStream::connect(first.address()).is_ok() {
            std::thread::yield_now();
        }
        start(&address).expect("the port is free while the first node still drains");
    }
}
