//! A worker's thread, from its own descriptor table to its last turn.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

use crossbeam_channel::Sender;

use crate::base::time::Time;
use crate::driver::{self, Kind};
use crate::mesh::Port;
use crate::node::opened::Memories;
use crate::node::running::{Addresses, Plan};
use crate::node::settings;
use crate::node::turns::TurnClock;
use crate::node::ways::Ways;
use crate::node::worker::Worker;
use crate::shard::{Mail, Shard};
use crate::sys::{affinity, descriptors, listener};

/// Works until the node says stop. `bound` is told where the worker listens, and is there as long as the node starts.
pub(super) fn work(
    plan: &Plan,
    memories: Arc<Memories>,
    listen: Addresses,
    (port, ways): (Port<Mail>, Ways),
    bound: &Sender<Addresses>,
) -> io::Result<()> {
    let id = plan.identity.id;
    let mut kept = port.wake_fds();
    kept.extend(ways.fds());
    descriptors::separate(&kept)?;
    drop(kept);
    if plan.config.server.pin && !plan.cores.is_empty() {
        affinity::pin(plan.cores[usize::from(id.0) % plan.cores.len()])?;
    }
    let mut sockets = Vec::new();
    let mut open = |address: Option<SocketAddr>| -> io::Result<Option<SocketAddr>> {
        let Some(address) = address else { return Ok(None) };
        let socket = listener::listen(address, &settings::listen_options(&plan.config))?;
        let address = listener::local_address(&socket.as_fd())?;
        sockets.push(socket);
        Ok(Some(address))
    };
    let addresses = Addresses { plain: open(listen.plain)?, tls: open(listen.tls)? };
    let mut options = driver::Options::new(sockets, port.wake_source(), plan.identity.capacity);
    options.uring = settings::uring_options(&plan.config);
    if plan.kind == Kind::Uring {
        options.events_per_wait = driver::ANSWERS_PER_WAIT;
    }
    let driver = driver::build(plan.kind, options)?;
    let mut shard = Shard::new(plan.identity.clone(), Arc::clone(&plan.settings));
    let (clock, board) = (plan.clock, Arc::clone(&plan.board));
    shard.remember(&memories.revocations, clock.now());
    shard.recall_seen(&memories.seen);
    shard.recall_rooms(&memories.rooms, clock.now());
    drop(memories);
    let store = plan.store.clone();
    let turn_clock = plan.config.debug.turn_clock.then(TurnClock::start);
    let (woke, asked) = (clock.now(), Time::ZERO);
    let seen = plan.config.inside.is_lasting().then(Vec::new);
    let worker = Worker {
        shard,
        driver,
        port,
        clock,
        board,
        id,
        asked,
        woke,
        turn_clock,
        store,
        seen,
        ways,
    };
    // The node waits for this; it is there as long as the thread is.
    let _ = bound.send(addresses);
    worker.run()
}
