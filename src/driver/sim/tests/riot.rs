//! The simulated network under a core and clients that do at random all that is allowed.

use std::collections::BTreeMap;
use std::fmt::Write;

use fastrand::Rng;

use super::*;
use crate::base::id::ConnId;
use crate::contract::{Driver, Event, Op};

/// What the contract lets happen next on one connection, as its core knows it.
#[derive(Debug, Default)]
struct Law {
    is_sending: Option<usize>,
    is_lost: bool,
    is_over: bool,
    is_closing: bool,
    is_paused: bool,
    /// Bytes received and written.
    received: usize,
    written: usize,
}

/// A core that does at random what the contract allows, and holds the driver to it.
struct Anarchist {
    driver: SimDriver,
    rng: Rng,
    conns: BTreeMap<u32, (ConnId, Law)>,
    generation: u32,
    history: String,
    /// Late events of each kind that were seen: proof that the driver uses its freedom.
    freedoms: [usize; 3],
}

impl Anarchist {
    fn new(net: &Net, seed: u64) -> Self {
        Self {
            driver: net.driver(),
            rng: Rng::with_seed(seed),
            conns: BTreeMap::new(),
            generation: 0,
            history: String::new(),
            freedoms: [0; 3],
        }
    }

    fn turn(&mut self) {
        let mut events = Vec::new();
        let mut inputs = Vec::new();
        let sort = &mut |event: Event<'_>| match event {
            Event::Received { conn, bytes } => {
                inputs.push(bytes.to_vec());
                events.push(Err(conn));
            }
            Event::Accepted { socket, listener, peer } => {
                events.push(Ok(Event::Accepted { socket, listener, peer }));
            }
            Event::AcceptFailed { error } => events.push(Ok(Event::AcceptFailed { error })),
            Event::ReceivedEnd { conn } => events.push(Ok(Event::ReceivedEnd { conn })),
            Event::Sent { conn, batch, bytes } => {
                events.push(Ok(Event::Sent { conn, batch, bytes }));
            }
            Event::Lost { conn, error } => events.push(Ok(Event::Lost { conn, error })),
            Event::Looked { conn, unread } => events.push(Ok(Event::Looked { conn, unread })),
            Event::HandedOver { .. } => unreachable!("there is nothing to hand over"),
            Event::Closed { conn } => events.push(Ok(Event::Closed { conn })),
        };
        self.driver.wait(None, sort).expect("a turn");
        let mut inputs = inputs.into_iter();
        for event in events {
            match event {
                Ok(event) => self.handle(event),
                Err(conn) => self.received(conn, &inputs.next().expect("bytes")),
            }
        }
        for index in self.conns.keys().copied().collect::<Vec<_>>() {
            self.act(index);
        }
    }

    fn law(&mut self, conn: ConnId) -> &mut Law {
        let (known, law) = self.conns.get_mut(&conn.index).expect("an open connection");
        assert_eq!(*known, conn, "an event of an earlier generation");
        law
    }

    fn received(&mut self, conn: ConnId, bytes: &[u8]) {
        writeln!(self.history, "{conn:?} received {}", bytes.len()).expect("memory");
        let law = self.law(conn);
        assert!(!bytes.is_empty() && !law.is_lost && !law.is_over, "{law:?}");
        assert!(bytes == next(&mut law.received, bytes.len()), "bytes are lost or out of order");
        let (late, paused) = (law.is_closing, law.is_paused);
        self.freedoms[0] += usize::from(late);
        self.freedoms[1] += usize::from(paused && !late);
    }

    fn handle(&mut self, event: Event<'_>) {
        writeln!(self.history, "{event:?}").expect("memory");
        match event {
            Event::Accepted { socket, .. } if self.rng.u8(..) < 16 => {
                assert!(self.driver.submit(Op::Refuse { socket }).is_none());
            }
            Event::Accepted { socket, .. } => {
                let index = (0..).find(|index| !self.conns.contains_key(index)).expect("a place");
                self.generation += 1;
                let conn = ConnId { index, generation: self.generation };
                self.conns.insert(index, (conn, Law::default()));
                assert!(self.driver.submit(Op::Open { conn, socket }).is_none());
            }
            Event::AcceptFailed { .. } => {
                assert!(self.driver.submit(Op::ResumeAccept).is_none());
            }
            Event::Received { .. } => unreachable!("sorted out before"),
            Event::ReceivedEnd { conn } => {
                let law = self.law(conn);
                assert!(!law.is_over && !law.is_lost, "{law:?}");
                law.is_over = true;
            }
            Event::Sent { conn, batch, bytes } => {
                assert!(batch.is_done() && batch.parts() == 0);
                let law = self.law(conn);
                assert!(!law.is_lost, "{law:?}");
                assert_eq!(law.is_sending.take(), Some(bytes));
                let late = law.is_closing;
                self.freedoms[2] += usize::from(late);
            }
            Event::Lost { conn, .. } => {
                let law = self.law(conn);
                assert!(!law.is_lost && !law.is_closing, "{law:?}");
                law.is_lost = true;
                law.is_sending = None;
            }
            Event::Looked { .. } | Event::HandedOver { .. } => unreachable!("nobody asks"),
            Event::Closed { conn } => {
                assert!(self.law(conn).is_closing);
                self.conns.remove(&conn.index);
            }
        }
    }

    fn act(&mut self, index: u32) {
        let (conn, law) = self.conns.get_mut(&index).expect("an open connection");
        let conn = *conn;
        if law.is_closing {
            return;
        }
        let op = match self.rng.u8(0..24) {
            0..8 if law.is_sending.is_none() => {
                let bytes = next(&mut law.written, self.rng.usize(1..20_000));
                law.is_sending = (!law.is_lost).then_some(bytes.len());
                Op::Send { conn, batch: batch(&bytes) }
            }
            8..10 => {
                law.is_paused = true;
                Op::PauseReads { conn }
            }
            10..14 => {
                law.is_paused = false;
                Op::ResumeReads { conn }
            }
            14 if law.is_lost || self.rng.bool() => {
                law.is_closing = true;
                Op::Close { conn, abort: self.rng.bool() }
            }
            _ => return,
        };
        if let Some(event) = self.driver.submit(op) {
            self.handle(event);
        }
    }
}

/// A peer that checks what it reads.
struct Client {
    peer: Peer,
    written: usize,
    read: usize,
}

impl Client {
    fn act(&mut self, rng: &mut Rng) {
        match rng.u8(0..40) {
            0..12 => {
                let before = self.written;
                let bytes = next(&mut self.written, rng.usize(1..9_000));
                self.written = before + self.peer.write(&bytes);
            }
            12..24 => {
                let bytes = read(&mut self.peer);
                assert!(bytes == next(&mut self.read, bytes.len()), "lost or out of order");
            }
            24 => self.peer.set_reading(false),
            25..28 => self.peer.set_reading(true),
            28 => self.peer.finish(),
            29 if rng.bool() => self.peer.reset(),
            _ => {}
        }
    }
}

/// Peers that write, read, stop, finish, reset and vanish at random against one anarchist.
fn riot(seed: u64, faults: Faults) -> Anarchist {
    let net = Net::new(seed, faults);
    let mut core = Anarchist::new(&net, seed ^ 0xabcd);
    let mut rng = Rng::with_seed(!seed);
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..300 {
        if clients.len() < 12 && rng.u8(0..4) == 0 {
            clients.push(Client { peer: net.connect(0), written: 0, read: 0 });
        }
        clients.iter_mut().for_each(|client| client.act(&mut rng));
        if rng.u8(0..10) == 0 {
            clients.retain(|client| !client.peer.is_closed());
        }
        core.turn();
    }
    for (_, (conn, law)) in std::mem::take(&mut core.conns) {
        core.conns.insert(conn.index, (conn, law));
        if !core.law(conn).is_closing {
            core.law(conn).is_closing = true;
            if let Some(event) = core.driver.submit(Op::Close { conn, abort: true }) {
                core.handle(event);
            }
        }
    }
    core.driver.submit(Op::StopAccepting);
    for _ in 0..20 {
        core.turn();
    }
    assert!(core.conns.is_empty(), "seed {seed}: not everyone was closed: {:?}", core.conns);
    assert_eq!(core.driver.connections(), 0);
    core
}

#[test]
fn the_contract_holds_and_its_freedom_is_used_under_any_seed() {
    let mut freedoms = [0; 3];
    for seed in 0..60 {
        let faults = if seed % 2 == 0 { Faults::rough() } else { Faults::hostile() };
        for (sum, seen) in freedoms.iter_mut().zip(riot(seed, faults).freedoms) {
            *sum += seen;
        }
    }
    assert!(freedoms.iter().all(|seen| *seen > 0), "never seen: {freedoms:?}");
}

#[test]
fn one_seed_gives_one_history_and_another_seed_another() {
    let history = |seed| riot(seed, Faults::hostile()).history;
    assert_eq!(history(7), history(7));
    assert_ne!(history(7), history(8));
}
