//! A client's place in the thread, and how a session of its begins.
//!
//! The [`Seat`] outlives sessions: churn and storms end one and the client opens the next. Opening is a
//! boxed future, so that the task of an idle client does not carry its size for ever.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::timeout;

use super::crew::Crew;
use super::member::{Kept, Member, Session};
use super::shared::{Gauge, Order};
use crate::clock;
use crate::codec::Item;
use crate::dialect::Role;
use crate::events;
use crate::socket::{Dial, Opening, Sender, connect};
use crate::spec::{Kind, SlowKind};
use crate::token;

/// One client.
pub(super) struct Seat {
    pub(super) who: u32,
    /// True for those whom churn, storm or slowness befalls.
    pub(super) chosen: bool,
    /// The path in the URL of a publisher in dialects that put the room there.
    pub(super) publishes: Option<u32>,
    sender: RefCell<Option<Rc<Sender>>>,
    /// Number of the present session.
    pub(super) session: Cell<u32>,
    /// Set by whoever ends the present session on purpose.
    pub(super) dropped: Cell<bool>,
    /// Set by whoever said goodbye.
    pub(super) leaving: Cell<bool>,
    finished: Cell<bool>,
    /// Rooms whose streams have not all ended.
    pub(super) rooms_open: Cell<u16>,
    /// Echoes or answers asked for and received.
    pub(super) asked: Cell<u32>,
    pub(super) answered: Cell<u32>,
    /// Echoes that are to be sent as soon as what was read has been dealt with.
    pub(super) owed: Cell<u32>,
}

impl Seat {
    pub(super) fn new(crew: &Crew, who: u32, publishes: Option<u32>) -> Self {
        let trouble = &crew.shared.spec.trouble;
        let share = match crew.shared.spec.scenario {
            Kind::Storm => trouble.drop,
            Kind::Slow => trouble.slow,
            Kind::Churn => 1.0,
            _ => 0.0,
        };
        Self {
            who,
            chosen: publishes.is_none() && scattered(who, 0x9e37_79b1) < share,
            publishes,
            sender: RefCell::new(None),
            session: Cell::new(0),
            dropped: Cell::new(false),
            leaving: Cell::new(false),
            finished: Cell::new(false),
            rooms_open: Cell::new(0),
            asked: Cell::new(0),
            answered: Cell::new(0),
            owed: Cell::new(0),
        }
    }

    /// True for those who read now and then and whose latency is not taken.
    pub(super) fn is_lazy(&self, crew: &Crew) -> bool {
        let share = crew.shared.spec.crowd.lazy;
        share > 0.0 && self.publishes.is_none() && scattered(self.who, 0x85eb_ca6b) < share
    }

    /// True for those who listen by an event stream.
    pub(super) fn listens(&self, crew: &Crew) -> bool {
        let share = crew.shared.spec.crowd.streams;
        share > 0.0 && self.publishes.is_none() && scattered(self.who, 0xc2b2_ae35) < share
    }

    /// The writing half of the present session.
    pub(super) fn sender(&self) -> Option<Rc<Sender>> {
        self.sender.borrow().clone()
    }

    /// Forgets the session that has ended.
    pub(super) fn vacate(&self) {
        *self.sender.borrow_mut() = None;
    }

    /// True when every echo or answer has come and none is still to be asked for. A server that repeats one
    /// is none the better for it, and so there may be more.
    pub(super) fn has_answers(&self) -> bool {
        self.asked.get() + self.owed.get() <= self.answered.get()
    }

    /// Counts the client as finished once it has had everything it waits for.
    pub(super) fn look_finished(&self, crew: &Crew) {
        let all = self.rooms_open.get() == 0 && self.has_answers();
        if all && self.publishes.is_none() && crew.order.get() >= Order::Settle {
            self.finish(crew);
        }
    }

    /// Counts the client as finished whatever it has had.
    pub(super) fn finish(&self, crew: &Crew) {
        if self.publishes.is_none() && !self.finished.replace(true) {
            crew.count(Gauge::Finished, 1);
        }
    }

    /// True for a client that is to misbehave in that way, while the time for it is.
    pub(super) fn is_now(&self, kind: SlowKind, crew: &Crew) -> bool {
        let spec = &crew.shared.spec;
        self.chosen
            && spec.scenario == Kind::Slow
            && spec.trouble.slow_kind == kind
            && crew.order.get() == Order::Publish
    }
}

/// A client's place from 0 to 1 in a fixed scattering, so that the same ones are chosen in every run.
fn scattered(who: u32, salt: u32) -> f64 {
    f64::from(who.wrapping_mul(salt)) / f64::from(u32::MAX)
}

/// Bytes of the read buffer that a client keeps, by the size of the crowd.
fn read_bytes(crew: &Crew) -> usize {
    let crowd = &crew.shared.spec.crowd;
    match (crowd.read_bytes, crowd.clients) {
        (0, 50_001..) => 128,
        (0, 5_001..) => 512,
        (0, _) => 4096,
        (bytes, _) => usize::try_from(bytes).unwrap_or(512).max(16),
    }
}

/// Opens a session: dial, upgrade, greeting, joins. Returns when the client is in all its rooms.
pub(super) async fn open(
    crew: &Rc<Crew>,
    seat: &Rc<Seat>,
    rooms: &[u32],
    kept: &mut Option<Box<Kept>>,
) -> Result<Session, String> {
    let shared = &crew.shared;
    seat.session.set(seat.session.get() + 1);
    seat.dropped.set(false);
    seat.leaving.set(false);
    let began = clock::now_ns();
    let half_open = shared.spec.trouble.slow_kind == SlowKind::HalfOpen;
    let sources = &shared.sources;
    let dial = Dial {
        source: sources.get(usize::try_from(seat.who).unwrap_or(0) % sources.len().max(1)).copied(),
        seed: u64::from(shared.run) << 32 ^ u64::from(seat.who) ^ began,
        read_bytes: read_bytes(crew),
        may_vanish: seat.chosen && shared.spec.scenario == Kind::Slow && half_open,
        listens: seat.listens(crew),
    };
    let reader = connect(&shared.target, &dial)?;
    *seat.sender.borrow_mut() = Some(Rc::clone(reader.sender()));
    let mut session = Session { reader, member: Member::new(crew, seat, rooms, kept.take()) };
    let patience = Duration::from_millis(shared.spec.target.patience_ms);
    let opened = timeout(patience, greet(crew, seat, &mut session, began)).await;
    match opened {
        Ok(Ok(())) => {
            crew.harvest.borrow_mut().sessions.opened += 1;
            crew.count(Gauge::Ready, 1);
            Ok(session)
        }
        failed => {
            session.reader.sender().abandon();
            seat.vacate();
            *kept = session.member.keep();
            let late = || "no greeting or no reply to a join in time".to_owned();
            Err(failed.map_or_else(|_| late(), |result| result.err().unwrap_or_else(late)))
        }
    }
}

async fn greet(
    crew: &Rc<Crew>,
    seat: &Rc<Seat>,
    session: &mut Session,
    began: u64,
) -> Result<(), String> {
    let shared = &crew.shared;
    let dialect = shared.spec.target.dialect;
    let listens = session.member.listens();
    let path = match listens {
        true => {
            let rooms = session.member.rooms_to_join().map(|room| shared.name(room));
            events::path(&shared.spec.crowd.stream_path, rooms)
        }
        false => dialect.path(&shared.target.path, role(crew, seat, &session.member)),
    };
    let last = session.member.last_id(crew);
    let protocol = dialect.subprotocol();
    let token = match shared.spec.target.token_secret.as_str() {
        "" => None,
        secret => Some(token::mint(secret, seat.who, clock::unix_ms() / 1000)?),
    };
    let (target, sender) = (&shared.target, Rc::clone(session.reader.sender()));
    {
        let Session { reader, member } = session;
        let mut each = |item: Item<'_>, at| member.take(crew, seat, item, at);
        let (path, token, last) = (path.as_str(), token.as_deref(), last.as_deref());
        let opening = Opening { path, protocol, token, last };
        reader.shake_hands(target, opening, &mut each).await?;
    }
    while !session.member.is_greeted() {
        next(crew, seat, session).await?;
    }
    let greeted = clock::now_ns();
    crew.measures.borrow_mut().hists.connect.record_ns(greeted - began);
    if crew.order.get() < Order::Join && shared.spec.scenario == Kind::Idle {
        return Ok(());
    }
    if !listens {
        let frames = joins(crew, seat, &sender, Some(&session.member));
        if frames.is_empty() {
            session.member.join_all(crew, seat);
            return Ok(());
        }
        sender.write(frames).await?;
    }
    while !session.member.is_joined() {
        next(crew, seat, session).await?;
    }
    crew.measures.borrow_mut().hists.join.record_ns(clock::now_ns() - greeted);
    Ok(())
}

/// Frames that ask to join the client's rooms, by their place in the order of its rooms, from where it has
/// come if it knows; none where being connected is being in them.
pub(super) fn joins(crew: &Crew, seat: &Seat, sender: &Sender, member: Option<&Member>) -> Vec<u8> {
    let shared = &crew.shared;
    let mut frames = Vec::new();
    if seat.publishes.is_some() {
        return frames;
    }
    for (reference, room) in (0..).zip(shared.layout.rooms_of(seat.who)) {
        let mut text = Vec::new();
        let dialect = shared.spec.target.dialect;
        let cursor = member.and_then(|member| member.cursor(reference));
        let joins = match cursor {
            Some(cursor) => dialect.rejoin(shared.name(room), reference, cursor, &mut text),
            None => dialect.join(shared.name(room), reference, &mut text),
        };
        if joins {
            sender.frame(&text, &mut frames);
        }
    }
    frames
}

/// What the client is, in words of the dialect.
fn role<'a>(crew: &'a Crew, seat: &Seat, member: &Member) -> Role<'a> {
    let shared = &crew.shared;
    if let Some(stream) = seat.publishes {
        return Role::Publisher(shared.name(shared.room_of(stream).unwrap_or(0)));
    }
    match (shared.spec.scenario, member.rooms_to_join().next()) {
        (Kind::Echo, _) => Role::Echo,
        (_, Some(room)) => Role::Member(shared.name(room)),
        (_, None) => Role::Idle,
    }
}

/// Receives once, and sends what that asks for.
pub(super) async fn next(
    crew: &Rc<Crew>,
    seat: &Rc<Seat>,
    session: &mut Session,
) -> Result<usize, String> {
    let Session { reader, member } = session;
    let mut each = |item: Item<'_>, at| member.take(crew, seat, item, at);
    let read = reader.receive(&crew.pool, &mut each).await?;
    crew.count(Gauge::ReceivedBytes, read as u64);
    let frames = member.answers(crew, seat, reader.sender());
    if !frames.is_empty() {
        // Boxed, so that whoever only reads does not carry the size of a write.
        Box::pin(reader.sender().write(frames)).await?;
    }
    let hung_up = member.listens() && (seat.leaving.get() || crew.order.get() == Order::Close);
    if read == 0 && !member.has_ended() && !hung_up {
        return Err("the server hung up without a close frame".to_owned());
    }
    Ok(read)
}
