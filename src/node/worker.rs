//! The loop: where the core and the rim meet, and nowhere else.
//!
//! One thread, one shard, one driver, one port of the mesh. A turn waits for the driver, feeds its
//! events to the shard, lets time pass, takes mail, and submits what came of it all. The clock is read
//! with the first event of a turn and after the wait, and once more before a worker sleeps: from these
//! readings follows how long each turn kept the rest of the world waiting.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::auth::user_room;
use crate::base::id::ShardId;
use crate::base::outside::{Inquiry, Petition};
use crate::base::tidings::Tiding;
use crate::base::time::Time;
use crate::contract::{Driver, Event};
use crate::mesh::{Lane, Port};
use crate::node::board::Board;
use crate::node::keeper::{SEEN_AT_ONCE, StoreHandle, hand_in, keep_last_seen, keep_seen};
use crate::node::link::bridge_port;
use crate::node::prover::{hand_over, hand_over_payload};
use crate::node::publishing::desk_port;
use crate::node::turns::TurnClock;
use crate::node::ways::Ways;
use crate::shard::{LastSeen, Mail, Progress, Relieved, Reply, Report, Shard};
use crate::store::Seen;
use crate::sys::clock::Clock;
use crate::sys::memory::{self, Pages};

/// Requests with users who have come and gone, in one turn.
const SEEN_PER_TURN: usize = 8;

/// Mail taken in one turn, per lane, so that a flood of it leaves time for the sockets.
const MAIL_PER_TURN: usize = 1024;

/// How often a shard learns what the others hold: their rows of the board lie in their cores' caches.
const ASK_OTHERS: Duration = Duration::from_millis(1);

/// What a worker turns.
pub(super) struct Worker {
    pub(super) shard: Shard,
    pub(super) driver: Box<dyn Driver>,
    pub(super) port: Port<Mail>,
    pub(super) clock: Clock,
    pub(super) board: Arc<Board>,
    pub(super) id: ShardId,
    /// When the other shards' need for memory was last looked at.
    pub(super) asked: Time,
    /// When the turn under way began: the first event of it was there, or the last sleep ended.
    pub(super) woke: Time,
    /// Present when the times of turns are asked for.
    pub(super) turn_clock: Option<TurnClock>,
    pub(super) store: StoreHandle,
    /// Who has come and gone, while the store has no space for it. `None` where what is kept does not
    /// outlive the process: then nobody asks the shard.
    pub(super) seen: Option<Vec<Seen>>,
    /// Where connections go that leave, and tokens that are checked elsewhere.
    pub(super) ways: Ways,
}

impl Worker {
    /// Turns until the node says stop.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut now = self.clock.now();
        if let Some(seen) = &mut self.seen {
            // From the first time on the shard keeps them for this.
            gather_seen(&mut self.shard, seen, SEEN_AT_ONCE);
        }
        while self.shard.progress() != Progress::Stopped {
            now = self.turn(now)?;
        }
        if let Some(mut seen) = self.seen.take() {
            gather_seen(&mut self.shard, &mut seen, usize::MAX);
            let ended = self.shard.end_presence().into_iter();
            seen.extend(ended.map(|(owner, at)| Seen { owner, at, here: false }));
            keep_last_seen(&self.store, &seen);
        }
        Ok(())
    }

    fn turn(&mut self, before: Time) -> io::Result<Time> {
        let waited = self.wait(before)?;
        let now = self.clock.now();
        self.note_lap(&waited, now);
        if now.since(self.asked) >= ASK_OTHERS {
            self.asked = now;
            self.shard.note_others(self.board.charged_by_others(self.id));
        }
        self.shard.handle_timeout(now);
        let clock = &self.clock;
        self.shard.shake_hands(now, &mut || clock.now());
        let busy = self.take_mail(now) || waited.heard;
        self.run_errands(now);
        self.relieve(now);
        self.shard.begin_writes(busy, now);
        self.submit(now);
        let ferry = &mut self.ways.ferry;
        self.shard.poll_transfers(&mut |to, socket| ferry.as_mut()?.send(to, socket));
        let (shard, port) = (&mut self.shard, &self.port);
        let shards = self.board.shards();
        shard.poll_mail(&mut |to, mail| {
            let to = usize::from(to.0);
            // The receiver behind the shards is the bridge, whose port is not the one behind theirs.
            let to = if to < shards { to } else { bridge_port(shards) };
            port.post(to, lane(&mail), mail)
        });
        self.keep_passages();
        let (shard, port) = (&mut self.shard, &self.port);
        let desk = desk_port(shards);
        shard.poll_inquiries(&mut |inquiry| post_inquiry(port, desk, inquiry));
        shard.poll_reports(&mut |report| {
            let to = if report.is_afar() { bridge_port(shards) } else { desk };
            tell(port, to, report)
        });
        shard.poll_petitions(&mut |petition| post_petition(port, desk, petition));
        shard.poll_tidings(&mut |tidings| post_tidings(port, desk, tidings));
        if let Some(work) = &self.ways.work {
            shard.poll_proofs(&mut |proof| hand_over(work, proof));
            shard.poll_packings(&mut |packing| hand_over_payload(work, packing));
        }
        if let Some(front) = &mut self.ways.front {
            shard.poll_passages(&mut |passage, socket| front.hand_on(passage, socket));
        }
        self.board.hear_farewells(&mut self.shard);
        let (board, port) = (&self.board, &self.port);
        self.shard.poll_replies(&mut |reply| match reply.is_afar() {
            true => answer_bridge(port, bridge_port(shards), reply),
            false => board.tell_reply(reply).map_or(Ok(()), Err),
        });
        if let Some(found) = self.shard.poll_survey(now) {
            self.board.hear_survey(self.id, found);
        }
        self.board.publish(&mut self.shard, self.id);
        if let Some(clock) = &mut self.turn_clock {
            self.board.note_turn(self.id, clock.lap());
        }
        Ok(now)
    }

    /// Waits for events and feeds them. True when a peer was heard without sleeping, which is how the
    /// flush window knows a saturated core. So it looks before it sleeps: what is there already came
    /// while the last turn was at work. Only a core with time to spare pays for a look in vain.
    fn wait(&mut self, now: Time) -> io::Result<Waited> {
        let timeout = self.shard.poll_timeout(now);
        let (first, heard) = self.take_events(Some(Duration::ZERO))?;
        if first.is_some() || timeout == Some(Duration::ZERO) {
            return Ok(Waited { heard, slept: None, first });
        }
        // Requests that must not be taken yet are no reason to stay awake.
        let lanes: &[Lane] = if self.shard.takes_requests() {
            &[Lane::Delivery, Lane::Request]
        } else {
            &[Lane::Delivery]
        };
        if !self.port.before_sleep(lanes) {
            return Ok(Waited { heard: false, slept: None, first });
        }
        let slept = Some(self.clock.now());
        let result = self.take_events(timeout);
        self.port.awake();
        result.map(|(first, _)| Waited { heard: false, slept, first })
    }

    /// Notes how long the turn before took, of which the end is known only now.
    fn note_lap(&mut self, waited: &Waited, now: Time) {
        let woke = waited.first.unwrap_or(now);
        let ended = waited.slept.unwrap_or(woke);
        self.board.note_lag(self.id, ended.since(self.woke));
        self.shard.end_turn(ended);
        self.woke = woke;
    }

    /// Feeds what the driver reports. When the first of it was fed, and whether any of it came from a
    /// peer: completions of our own writes are there whenever there was something to write.
    fn take_events(&mut self, timeout: Option<Duration>) -> io::Result<(Option<Time>, bool)> {
        let (shard, clock) = (&mut self.shard, &self.clock);
        let mut heard = false;
        // One reading serves all events of a turn: the first pays for it. But for handshakes, whose time is counted.
        let (mut first, mut last) = (None, None);
        self.driver.wait(timeout, &mut |event| {
            heard |= matches!(event, Event::Received { .. } | Event::Accepted { .. });
            let now = last.filter(|_| !shard.wants_time()).unwrap_or_else(|| clock.now());
            first.get_or_insert(now);
            last = Some(now);
            feed(shard, event, now);
        })?;
        Ok((first, heard))
    }

    /// Takes mail; true when there was any.
    fn take_mail(&mut self, now: Time) -> bool {
        let mut taken = false;
        for _ in 0..MAIL_PER_TURN {
            let Some(mail) = self.port.take(Lane::Delivery) else { break };
            self.shard.handle_mail(mail, now);
            taken = true;
        }
        for _ in 0..MAIL_PER_TURN {
            if !self.shard.takes_requests() {
                break;
            }
            match self.port.take(Lane::Request) {
                Some(Mail::Transfer(transfer)) => {
                    let (number, transfer) = *transfer;
                    let ferry = self.ways.ferry.as_mut();
                    let socket = ferry.and_then(|ferry| ferry.receive(number));
                    self.shard.handle_transfer(transfer, socket, now);
                }
                Some(mail) => self.shard.handle_mail(mail, now),
                None => break,
            }
            taken = true;
        }
        taken
    }

    /// Hands the store its work, and gives back what it has no space for.
    fn run_errands(&mut self, now: Time) {
        while let Some(errands) = self.shard.poll_errand() {
            if let Err(errands) = hand_in(&self.store, self.id, errands) {
                self.shard.handle_given_back(errands, now);
            }
        }
    }

    /// Hands the store who has come and gone. To be called when the counts are out: users whose home is this shard
    /// come with those, and no other turn may follow for long.
    fn keep_passages(&mut self) {
        let Some(seen) = &mut self.seen else { return };
        for _ in 0..SEEN_PER_TURN {
            if seen.is_empty() {
                gather_seen(&mut self.shard, seen, SEEN_AT_ONCE);
            }
            let is_last = seen.len() < SEEN_AT_ONCE;
            keep_seen(&self.store, seen);
            if is_last || !seen.is_empty() {
                break;
            }
        }
    }

    /// Gives memory back, if the shard says that it is time.
    fn relieve(&mut self, now: Time) {
        match self.shard.relieve(now, &mut Pages) {
            Some(Relieved::Places { from }) => self.driver.trim(from),
            Some(Relieved::Heap) => memory::collect(),
            None => {}
        }
    }

    fn submit(&mut self, now: Time) {
        while let Some(op) = self.shard.poll_op() {
            if let Some(event) = self.driver.submit(op) {
                feed(&mut self.shard, event, now);
            }
        }
    }
}

/// How a turn began.
struct Waited {
    /// A peer was heard without sleeping.
    heard: bool,
    /// When the worker went to sleep, if it did.
    slept: Option<Time>,
    /// When the first event was there, if any was.
    first: Option<Time>,
}

/// Posts a report to the admin listener's port.
fn tell(port: &Port<Mail>, to: usize, report: Report) -> Result<(), Report> {
    let posted = port.post(to, Lane::Delivery, Mail::Report(Box::new(report)));
    posted.map_err(|mail| match mail {
        Mail::Report(report) => *report,
        other => unreachable!("a port gives back what it was given: {other:?}"),
    })
}

/// Posts the answer to a question of another node to the bridge.
fn answer_bridge(port: &Port<Mail>, to: usize, reply: Reply) -> Result<(), Reply> {
    let posted = port.post(to, Lane::Delivery, Mail::Replied(Box::new(reply)));
    posted.map_err(|mail| match mail {
        Mail::Replied(reply) => *reply,
        other => unreachable!("a port gives back what it was given: {other:?}"),
    })
}

/// Hands one event to the shard. A panic of ours ends the connection that the event was about, and the
/// process when the shard's invariants no longer hold (decision 0005).
fn feed(shard: &mut Shard, event: Event<'_>, now: Time) {
    let conn = Shard::blame(&event);
    if catch_unwind(AssertUnwindSafe(|| shard.handle_event(event, now))).is_err() {
        shard.handle_panic(conn, now);
        if catch_unwind(AssertUnwindSafe(|| shard.check())).is_err() {
            tracing::error!("a panic left the shard inconsistent; ending the process");
            std::process::abort();
        }
        tracing::error!(?conn, "a panic was contained; its connection is closed with 1011");
    }
}

/// Takes from the shard who has come and who has gone offline, `most` of them.
fn gather_seen(shard: &mut Shard, seen: &mut Vec<Seen>, most: usize) {
    let passed = std::iter::from_fn(|| shard.poll_last_seen()).take(most);
    seen.extend(passed.map(|LastSeen { tenant, user, unix_ms, here }| {
        let owner = user_room(tenant.as_deref(), &user).into();
        Seen { owner, at: unix_ms, here }
    }));
}

/// Leaves an inquiry at the desk.
fn post_inquiry(port: &Port<Mail>, desk: usize, inquiry: Inquiry) -> Result<(), Inquiry> {
    match port.post(desk, Lane::Request, Mail::Inquiry(Box::new(inquiry))) {
        Err(Mail::Inquiry(inquiry)) => Err(*inquiry),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Leaves a request that others answer there.
fn post_petition(port: &Port<Mail>, desk: usize, petition: Petition) -> Result<(), Petition> {
    match port.post(desk, Lane::Request, Mail::Petition(Box::new(petition))) {
        Err(Mail::Petition(petition)) => Err(*petition),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Leaves tidings there.
fn post_tidings(port: &Port<Mail>, desk: usize, tidings: Vec<Tiding>) -> Result<(), Vec<Tiding>> {
    match port.post(desk, Lane::Request, Mail::Tidings(tidings)) {
        Err(Mail::Tidings(tidings)) => Err(tidings),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn lane(mail: &Mail) -> Lane {
    if mail.is_request() { Lane::Request } else { Lane::Delivery }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::base::id::ConnId;
    use crate::base::map::Seed;
    use crate::contract::{ListenerId, Op, SocketTicket};
    use crate::mesh::mesh;
    use crate::node::config::Origin;
    use crate::shard::Identity;

    const CLIENTS: u32 = 64;
    const HEAD: &[u8] = b"GET /echo HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Version: 13\r\n\r\n";
    const MESSAGE: &[u8] = &[0x82, 0x81, 0, 0, 0, 0, b'x'];

    /// Clients of the echo endpoint who have something there whenever it is looked for, or only once it
    /// is waited for.
    struct Clients {
        conns: Vec<ConnId>,
        upgraded: bool,
        eager: bool,
        /// Messages in each read.
        at_once: usize,
    }

    impl Driver for Clients {
        fn submit(&mut self, op: Op) -> Option<Event<'static>> {
            match op {
                Op::Open { conn, .. } => self.conns.push(conn),
                Op::Send { conn, mut batch } => {
                    let bytes = batch.left();
                    batch.clear();
                    return Some(Event::Sent { conn, batch, bytes });
                }
                _ => {}
            }
            None
        }

        fn wait(
            &mut self,
            timeout: Option<Duration>,
            on_event: &mut dyn FnMut(Event<'_>),
        ) -> io::Result<()> {
            if timeout == Some(Duration::ZERO) && !self.eager {
                return Ok(());
            }
            if self.conns.is_empty() {
                let sockets = (0..CLIENTS).map(SocketTicket);
                sockets.for_each(|socket| {
                    on_event(Event::Accepted { socket, listener: ListenerId(0), peer: None })
                });
            } else {
                let bytes =
                    if self.upgraded { MESSAGE.repeat(self.at_once) } else { HEAD.to_vec() };
                self.upgraded = true;
                for conn in &self.conns {
                    on_event(Event::Received { conn: *conn, bytes: &mut bytes.clone() });
                }
            }
            Ok(())
        }
    }

    /// A worker with this driver that posts on this board.
    fn worker(driver: Box<dyn Driver>, board: &Arc<Board>) -> Worker {
        let sets = ["debug.echo_path=/echo", "queue.flush_window_us=500"].map(str::to_owned);
        let origin = Origin { file: None, sets: sets.to_vec() };
        let config = origin.load().expect("a valid configuration");
        let identity = Identity {
            node: crate::base::id::NodeTag::NONE,
            id: ShardId(0),
            shards: 1,
            seed: Seed::new(1),
            jitter: 1,
            epoch: 1,
            started_unix_ms: 0,
            capacity: 0,
        };
        let settings = Arc::new(crate::node::settings(&config, 1000));
        Worker {
            shard: Shard::new(identity, settings),
            driver,
            port: mesh(1, 1).expect("an eventfd").remove(0),
            clock: Clock::start(),
            board: Arc::clone(board),
            id: ShardId(0),
            asked: Time::ZERO,
            woke: Time::ZERO,
            turn_clock: None,
            store: StoreHandle::nowhere(),
            seen: None,
            ways: Ways { front: None, work: None, ferry: None },
        }
    }

    /// What the shard has counted after so many turns with this driver.
    pub(in crate::node) fn turns(
        driver: Box<dyn Driver>,
        board: &Arc<Board>,
        turns: usize,
    ) -> crate::base::counters::Counters {
        let mut worker = worker(driver, board);
        let mut now = worker.clock.now();
        for _ in 0..turns {
            now = worker.turn(now).expect("a turn");
        }
        worker.shard.counters()
    }

    /// How often writes waited in that many turns with such clients.
    fn waits(eager: bool, at_once: usize, count: usize) -> u64 {
        let clients = Clients { conns: Vec::new(), upgraded: false, eager, at_once };
        let counters = turns(Box::new(clients), &Arc::new(Board::new(1)), count);
        assert_eq!(counters.open_connections, u64::from(CLIENTS));
        counters.flush_waits_total
    }

    #[test]
    fn writes_wait_for_company_when_there_is_always_more_to_read() {
        assert!(waits(true, 2, 200) > 0);
    }

    #[test]
    fn writes_wait_for_nothing_when_each_read_brings_one_message() {
        assert_eq!(waits(true, 1, 200), 0);
    }

    #[test]
    fn writes_wait_for_nothing_when_the_worker_slept_before_each_turn() {
        assert_eq!(waits(false, 2, 200), 0);
    }

    #[test]
    fn a_crowd_that_joins_at_once_is_taken_in_by_the_home_in_slices() {
        let clients = Clients { conns: Vec::new(), upgraded: false, eager: false, at_once: 1 };
        let mut worker = worker(Box::new(clients), &Arc::new(Board::new(1)));
        let mut ports = mesh(2, 4096).expect("an eventfd").into_iter();
        let (port, other) = (ports.next().unwrap(), ports.next().unwrap());
        worker.port = port;
        let room: Arc<str> = Arc::from("lobby");
        for members in 1..=3000 {
            let mail = Mail::Count { room: Arc::clone(&room), shard: ShardId(1), members };
            assert!(other.post(0, Lane::Request, mail).is_ok(), "it has space for all of them");
        }
        let mut now = worker.clock.now();
        for left in [3000 - MAIL_PER_TURN, 3000 - 2 * MAIL_PER_TURN, 0] {
            now = worker.turn(now).expect("a turn");
            assert_eq!(other.depth(0, Lane::Request), left, "what one turn takes is bounded");
        }
        assert_eq!(worker.shard.counters().mail_taken_total, 3000);
    }
}
