//! The end: every stage against everything that can happen in it, and every order of it all.

use proptest::prelude::*;

use crate::base::id::ConnId;
use crate::base::map::Seed;
use crate::base::shared::Shared;
use crate::base::time::Tick;
use crate::connection::{Connection, Disconnect, Lane, Phase, Stage};
use crate::contract::{Op, SendBatch};
use crate::flow::outbound::{OutboundLimits, Store};
use crate::session::Protocol;
use crate::wire::websocket::{CloseCode, Violation};

const ID: ConnId = ConnId { index: 3, generation: 7 };
const DEADLINE: Tick = Tick(500);

/// What the driver is asked for, without the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Send,
    Shutdown,
    Close { abort: bool },
    Pause,
    Resume,
}

/// What can happen to a closing connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Happens {
    PeerClose,
    Fin,
    Lost,
    Deadline,
    Sent,
}

const EVERYTHING: [Happens; 5] =
    [Happens::PeerClose, Happens::Fin, Happens::Lost, Happens::Deadline, Happens::Sent];

/// One connection and its queue, with the write that is in flight.
struct Rig {
    connection: Connection,
    store: Store,
    in_flight: Option<SendBatch>,
    /// Every byte handed to the driver.
    written: Vec<u8>,
}

impl Rig {
    fn opening() -> Self {
        Self {
            connection: Connection::accepted(ID.generation, Tick(100)),
            store: Store::new(&Seed::new(1)),
            in_flight: None,
            written: Vec::new(),
        }
    }

    fn open() -> Self {
        let mut rig = Self::opening();
        rig.connection.handle_upgrade(Protocol::Json, Tick(101));
        rig
    }

    fn push(&mut self, bytes: &[u8]) {
        let item = Shared::kept(bytes);
        let limits = OutboundLimits::default();
        self.connection.outbound.push(&mut self.store, ID.index, item, Tick(101), &limits);
    }

    fn close(&mut self, why: Disconnect) {
        self.connection.begin_close(why, DEADLINE, &mut self.store, ID.index);
    }

    fn happens(&mut self, what: Happens) {
        let (connection, store) = (&mut self.connection, &mut self.store);
        match what {
            Happens::PeerClose => {
                connection.handle_close_frame(Some(CloseCode::NORMAL), DEADLINE, store, ID.index);
            }
            Happens::Fin => connection.handle_end(),
            Happens::Lost => connection.handle_lost(store, ID.index),
            Happens::Deadline => connection.handle_close_deadline(store, ID.index),
            Happens::Sent => {
                if let Some(batch) = self.in_flight.take() {
                    let limits = OutboundLimits::default();
                    connection.outbound.sent(store, ID.index, batch.left(), &limits);
                }
            }
        }
        self.check();
    }

    fn polled(&mut self) -> Vec<Asked> {
        let mut asked = Vec::new();
        let mut spare = Vec::new();
        while let Some(op) = self.connection.poll_op(ID, &mut self.store, &mut spare, Lane::PLAIN) {
            asked.push(match op {
                Op::Send { batch, .. } => {
                    assert!(self.in_flight.is_none(), "two writes in flight");
                    self.written.extend(batch.slices().flatten());
                    self.in_flight = Some(batch);
                    Asked::Send
                }
                Op::ShutdownWrite { .. } => Asked::Shutdown,
                Op::Close { abort, .. } => Asked::Close { abort },
                Op::PauseReads { .. } => Asked::Pause,
                Op::ResumeReads { .. } => Asked::Resume,
                other => panic!("a connection asks for {other:?}"),
            });
            self.check();
        }
        asked
    }

    fn stage(&mut self) -> Stage {
        self.connection.closing_mut().expect("closing").stage()
    }

    fn check(&self) {
        self.connection.check(&self.store, ID.index);
        self.store.check();
    }
}

/// Our close frame is written and the peer's is awaited.
fn awaiting() -> Rig {
    let mut rig = awaiting_in_flight();
    rig.happens(Happens::Sent);
    rig
}

fn awaiting_in_flight() -> Rig {
    let mut rig = Rig::open();
    rig.close(Disconnect::Idle);
    assert_eq!(rig.polled(), [Asked::Send]);
    assert_eq!(rig.stage(), Stage::AwaitingClose);
    rig
}

/// Our close frame waits for the write in front of it.
fn flushing() -> Rig {
    let mut rig = Rig::open();
    rig.push(b"in front");
    assert_eq!(rig.polled(), [Asked::Send]);
    rig.close(Disconnect::Violated(Violation::Unmasked));
    assert_eq!(rig.polled(), []);
    assert_eq!(rig.stage(), Stage::Flushing);
    rig
}

/// The FIN went down behind a write that has not come back.
fn lingering_in_flight() -> Rig {
    let mut rig = Rig::open();
    rig.close(Disconnect::Violated(Violation::Unmasked));
    assert_eq!(rig.polled(), [Asked::Send, Asked::Shutdown]);
    assert_eq!(rig.stage(), Stage::Lingering);
    rig
}

fn lingering() -> Rig {
    let mut rig = lingering_in_flight();
    rig.happens(Happens::Sent);
    assert_eq!(rig.polled(), []);
    rig
}

fn released() -> Rig {
    let mut rig = lingering();
    rig.happens(Happens::Fin);
    assert_eq!(rig.polled(), [Asked::Close { abort: false }]);
    assert_eq!(rig.stage(), Stage::Released);
    rig
}

#[test]
fn every_stage_answers_everything_that_can_happen_in_it() {
    use Happens::{Deadline, Fin, Lost, PeerClose, Sent};
    const END: &[Asked] = &[Asked::Close { abort: false }];
    const ABORT: &[Asked] = &[Asked::Close { abort: true }];
    const FIN: &[Asked] = &[Asked::Shutdown];
    const LAST: &[Asked] = &[Asked::Send, Asked::Shutdown];
    type Row = (&'static str, fn() -> Rig, &'static [Happens], &'static [Asked]);
    let table: &[Row] = &[
        ("awaiting", awaiting, &[PeerClose], FIN),
        ("awaiting", awaiting, &[Fin], END),
        ("awaiting", awaiting, &[Lost], ABORT),
        ("awaiting", awaiting, &[Deadline], ABORT),
        ("awaiting, frame in flight", awaiting_in_flight, &[Sent], &[]),
        ("awaiting, frame in flight", awaiting_in_flight, &[PeerClose], FIN),
        ("awaiting, frame in flight", awaiting_in_flight, &[PeerClose, Sent], FIN),
        ("awaiting, frame in flight", awaiting_in_flight, &[Fin], &[]),
        ("awaiting, frame in flight", awaiting_in_flight, &[Fin, Sent], END),
        ("awaiting, frame in flight", awaiting_in_flight, &[Lost], ABORT),
        ("awaiting, frame in flight", awaiting_in_flight, &[Deadline], ABORT),
        ("flushing", flushing, &[PeerClose], &[]),
        ("flushing", flushing, &[Fin], &[]),
        ("flushing", flushing, &[Fin, Sent], &[Asked::Send]),
        ("flushing", flushing, &[Sent], LAST),
        ("flushing", flushing, &[Lost], ABORT),
        ("flushing", flushing, &[Deadline], ABORT),
        ("lingering, frame in flight", lingering_in_flight, &[PeerClose], &[]),
        ("lingering, frame in flight", lingering_in_flight, &[Fin], &[]),
        ("lingering, frame in flight", lingering_in_flight, &[Fin, Sent], END),
        ("lingering, frame in flight", lingering_in_flight, &[Fin, Deadline], ABORT),
        ("lingering, frame in flight", lingering_in_flight, &[Sent, Fin], END),
        ("lingering, frame in flight", lingering_in_flight, &[Lost], ABORT),
        ("lingering, frame in flight", lingering_in_flight, &[Deadline], ABORT),
        ("lingering", lingering, &[PeerClose], &[]),
        ("lingering", lingering, &[Fin], END),
        ("lingering", lingering, &[Lost], ABORT),
        ("lingering", lingering, &[Deadline], END),
        ("released", released, &EVERYTHING, &[]),
    ];
    for (stage, rig, events, asked) in table {
        let mut rig = rig();
        for event in *events {
            rig.happens(*event);
        }
        assert_eq!(rig.polled(), *asked, "{stage}: {events:?}");
    }
}

#[test]
fn a_peer_that_closes_gets_its_code_back_behind_what_was_queued() {
    let mut rig = Rig::open();
    rig.push(b"queued before");
    rig.happens(Happens::PeerClose);
    assert_eq!(rig.polled(), [Asked::Send, Asked::Shutdown]);
    assert_eq!(rig.written, [b"queued before".as_slice(), &[0x88, 2, 0x03, 0xe8]].concat());
    rig.happens(Happens::Sent);
    assert_eq!(rig.polled(), []);
    rig.happens(Happens::Fin);
    assert_eq!(rig.polled(), [Asked::Close { abort: false }]);
}

#[test]
fn a_slow_consumer_hears_its_close_code_and_nothing_that_was_queued() {
    let mut rig = Rig::open();
    rig.push(b"in flight");
    assert_eq!(rig.polled(), [Asked::Send]);
    rig.push(b"never sent");
    rig.close(Disconnect::SlowConsumer);
    rig.happens(Happens::Sent);
    assert_eq!(rig.polled(), [Asked::Send]);
    let after = &rig.written[b"in flight".len()..];
    assert_eq!(after[0], 0x88, "a close frame is next");
    assert_eq!(after[2..4], 1013u16.to_be_bytes());
}

/// After these nobody can be expected to read or to answer in a way that has a meaning.
#[test]
fn a_close_frame_is_awaited_only_from_a_peer_whose_bytes_still_have_a_meaning() {
    let awaits = [Disconnect::Idle, Disconnect::Reload, Disconnect::SlowConsumer];
    let does_not = [
        Disconnect::Violated(Violation::Unmasked),
        Disconnect::Panicked,
        Disconnect::Vanished,
        Disconnect::ClosedByClient,
    ];
    for (why, stage) in awaits
        .map(|why| (why, Stage::AwaitingClose))
        .into_iter()
        .chain(does_not.map(|why| (why, Stage::Flushing)))
    {
        let mut rig = Rig::open();
        rig.close(why);
        assert_eq!(rig.stage(), stage, "{why:?}");
        assert_eq!(rig.connection.is_listening(), stage == Stage::AwaitingClose, "{why:?}");
    }
    for why in [Disconnect::HeartbeatLost, Disconnect::Lost] {
        let mut rig = Rig::open();
        rig.push(b"for nobody");
        rig.close(why);
        assert_eq!(rig.polled(), [Asked::Close { abort: true }], "{why:?}");
        assert_eq!(rig.store.queued_bytes(), 0, "{why:?}");
    }
}

#[test]
fn the_first_reason_stands() {
    let mut rig = Rig::open();
    rig.close(Disconnect::Idle);
    rig.close(Disconnect::Lost);
    let closing = rig.connection.closing_mut().expect("closing");
    assert_eq!((closing.why, closing.deadline), (Disconnect::Idle, DEADLINE));
}

fn any_reason() -> impl Strategy<Value = Disconnect> {
    prop::sample::select(vec![
        Disconnect::ClosedByClient,
        Disconnect::Vanished,
        Disconnect::Lost,
        Disconnect::HeartbeatLost,
        Disconnect::Violated(Violation::Unmasked),
        Disconnect::MessageTimeout,
        Disconnect::Idle,
        Disconnect::SlowConsumer,
        Disconnect::Reload,
        Disconnect::Panicked,
        Disconnect::Answered,
        Disconnect::HandshakeTimeout,
    ])
}

proptest! {
    #[test]
    fn a_closing_connection_is_closed_exactly_once_and_by_its_deadline(
        was_open: bool,
        queued in 0..4usize,
        in_flight: bool,
        why in any_reason(),
        events in prop::collection::vec((prop::sample::select(EVERYTHING.to_vec()), any::<bool>()), 0..12),
    ) {
        let mut rig = if was_open { Rig::open() } else { Rig::opening() };
        for _ in 0..queued {
            rig.push(b"frame");
            if in_flight {
                rig.polled();
            }
        }
        rig.close(why);
        let mut asked = Vec::new();
        // An end that the peer's close frame began comes with the frame; every other order is free.
        for (event, poll) in events {
            if event == Happens::PeerClose && !was_open {
                continue;
            }
            rig.happens(event);
            if poll {
                asked.extend(rig.polled());
            }
        }
        asked.extend(rig.polled());
        rig.happens(Happens::Deadline);
        asked.extend(rig.polled());
        let closes = asked.iter().filter(|a| matches!(a, Asked::Close { .. })).count();
        prop_assert_eq!(closes, 1, "{:?}", asked);
        prop_assert!(matches!(asked.last(), Some(Asked::Close { .. })), "{:?}", asked);
        if let Some(at) = asked.iter().position(|a| *a == Asked::Shutdown) {
            prop_assert_eq!(asked.len(), at + 2, "only the close follows the FIN: {:?}", asked);
        }
        let closing = matches!(rig.connection.phase(), Phase::Closing(_));
        prop_assert!(closing && rig.connection.outbound.is_empty());
        for event in EVERYTHING {
            rig.happens(event);
            prop_assert_eq!(rig.polled(), []);
        }
    }
}
