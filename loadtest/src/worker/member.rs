//! A client's task: it opens sessions, receives, and keeps the books.
//!
//! The books are a [`RoomLedger`] for each room and a track of echoes or answers. They close with the session
//! and are added to the thread's harvest, so a client that comes and goes leaves nothing behind. How a session
//! ended is judged here as well: by plan, in order, or by the server's own decision, which is a fault.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::crew::{AtWork, Crew};
use super::drive;
use super::session::{Seat, next, open};
use super::shared::{Gauge, Order, nanos};
use crate::clock;
use crate::codec::Item;
use crate::dialect::Push;
use crate::ledger::{RoomLedger, Seen, Tally, Track};
use crate::payload::{PayloadError, Stamp};
use crate::socket::{Reader, Sender};
use crate::spec::{Kind, SlowKind};

/// What one session has seen.
pub(super) struct Member {
    rooms: Vec<Joined>,
    /// Echoes or answers.
    asks: Track,
    duplicates: u32,
    reordered: u32,
    greeting: Greeting,
    joined: u16,
    /// The server's close frame, with its code if it had one.
    closed: Option<Option<u16>>,
    /// Pings to be answered.
    pongs: Vec<Vec<u8>>,
    /// Text messages to be sent that only the dialect is about.
    due: Vec<&'static [u8]>,
    /// Which numbering the offsets of each room belong to, where the client is to come back with cursors.
    epochs: Option<Box<Epochs>>,
    /// True of an event stream: it can only be listened to.
    listens: bool,
}

/// By the place of the room.
type Epochs = Vec<Option<Box<str>>>;

/// The books of a client that is to come back with cursors, while it is away.
pub(super) struct Kept {
    rooms: Vec<Joined>,
    epochs: Box<Epochs>,
}

impl Kept {
    /// Rooms whose streams have not all ended.
    fn rooms_open(&self) -> u16 {
        let open = self.rooms.iter().filter(|joined| joined.open > 0).count();
        u16::try_from(open).unwrap_or(u16::MAX)
    }
}

/// A room of the session.
struct Joined {
    room: u32,
    /// Streams of it that go on.
    open: u16,
    ledger: RoomLedger,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Greeting {
    Awaited,
    Had,
}

impl Member {
    pub(super) fn new(crew: &Crew, seat: &Seat, rooms: &[u32], kept: Option<Box<Kept>>) -> Self {
        let streams = |room| crew.shared.streams_of(room).count();
        let joined = |room: &u32| Joined {
            room: *room,
            open: u16::try_from(streams(*room)).unwrap_or(u16::MAX),
            ledger: RoomLedger::new(crew.order.get() < Order::Publish),
        };
        let spec = &crew.shared.spec;
        let greets = spec.target.dialect.greets(spec.scenario == Kind::Echo);
        let fresh = || (rooms.iter().map(joined).collect(), spec.trouble.resume.then(Box::default));
        let (rooms, epochs) = kept.map_or_else(fresh, |kept| (kept.rooms, Some(kept.epochs)));
        Self {
            rooms,
            epochs,
            asks: Track::from_start(),
            duplicates: 0,
            reordered: 0,
            greeting: if greets { Greeting::Awaited } else { Greeting::Had },
            joined: 0,
            closed: None,
            pongs: Vec::new(),
            due: Vec::new(),
            listens: seat.listens(crew),
        }
    }

    pub(super) fn is_greeted(&self) -> bool {
        self.greeting == Greeting::Had
    }

    pub(super) fn is_joined(&self) -> bool {
        usize::from(self.joined) == self.rooms.len()
    }

    /// Without replies to joins, being connected is being in.
    pub(super) fn join_all(&mut self, crew: &Crew, seat: &Seat) {
        for at in 0..self.rooms.len() as u64 {
            self.reply(crew, seat, at, None, false);
        }
    }

    /// Up to where the room at that place was had: epoch and offset, where the client is to go on from there.
    pub(super) fn cursor(&self, at: u64) -> Option<(&str, u64)> {
        let at = usize::try_from(at).ok()?;
        let epoch = self.epochs.as_ref()?.get(at)?.as_deref()?;
        Some((epoch, self.rooms.get(at)?.ledger.cursor()?))
    }

    /// The id of the last event that a stream comes back with.
    pub(super) fn last_id(&self, crew: &Crew) -> Option<String> {
        let (epoch, offset) = self.cursor(0).filter(|_| self.listens)?;
        let room = crew.shared.name(self.rooms.first()?.room);
        Some(format!("{epoch}.{offset}.{room}"))
    }

    /// The books, for the next session; none where each session has its own.
    pub(super) fn keep(&mut self) -> Option<Box<Kept>> {
        let epochs = self.epochs.take()?;
        Some(Box::new(Kept { rooms: std::mem::take(&mut self.rooms), epochs }))
    }

    pub(super) fn rooms_to_join(&self) -> impl Iterator<Item = u32> + '_ {
        self.rooms.iter().map(|joined| joined.room)
    }

    /// True after the server's close frame.
    pub(super) fn has_ended(&self) -> bool {
        self.closed.is_some()
    }

    /// True of an event stream.
    pub(super) fn listens(&self) -> bool {
        self.listens
    }

    /// Takes a message or control frame that arrived at `at`.
    pub(super) fn take(
        &mut self,
        crew: &Crew,
        seat: &Seat,
        item: Item<'_>,
        at: u64,
    ) -> Result<(), String> {
        match item {
            Item::Text(text) => self.text(crew, seat, text.as_bytes(), at),
            Item::Binary(bytes) => self.text(crew, seat, bytes, at),
            Item::Ping(_) if seat.is_now(SlowKind::Mute, crew) => Ok(()),
            Item::Ping(payload) => {
                self.pongs.push(payload.to_vec());
                Ok(())
            }
            Item::Pong(_) => Ok(()),
            Item::Close(code) => {
                self.closed = Some(code);
                Ok(())
            }
        }
    }

    fn text(&mut self, crew: &Crew, seat: &Seat, text: &[u8], at: u64) -> Result<(), String> {
        let spec = &crew.shared.spec;
        match spec.target.dialect.parse(text, spec.echoes())? {
            Push::Publication { room, offset, payload } => {
                self.publication(crew, seat, (&room, offset), &payload, at);
            }
            Push::Echo { payload } => self.echo(crew, seat, &payload, at),
            Push::Pong { reference } => self.answer(crew, seat, reference, None),
            Push::Gap { room, lost } => self.gap(crew, &room, lost),
            Push::Reply { reference, ok: true, offset, epoch, recovered } => {
                let resumed = self.resumes(crew, reference, epoch, recovered);
                self.reply(crew, seat, reference, offset.filter(|_| !resumed), resumed);
            }
            // A client has one room where clients listen, so there is no doubt which.
            Push::Listening { offset, epoch, recovered } => {
                let resumed = self.resumes(crew, 0, epoch, recovered);
                self.reply(crew, seat, 0, offset.filter(|_| !resumed), resumed);
            }
            Push::Closing(code) => self.closed = Some(Some(code)),
            Push::Reply { ok: false, .. } => return Err("a command was refused".to_owned()),
            Push::Connected => self.greeting = Greeting::Had,
            Push::Opened => self.due.push(b"40"),
            Push::HeartbeatPing => self.due.push(b"3"),
            Push::Error(text) => crew.fail(&format!("the server said: {text}")),
            Push::Reload => crew.fail("the server is restarting"),
            Push::Ignored => {}
        }
        Ok(())
    }

    fn publication(
        &mut self,
        crew: &Crew,
        seat: &Seat,
        (name, offset): (&[u8], Option<u64>),
        payload: &[u8],
        at: u64,
    ) {
        let shared = &crew.shared;
        let stamp = match Stamp::read(payload) {
            Ok(stamp) if shared.is_ours(&stamp) => stamp,
            Err(PayloadError::Corrupt) => {
                crew.harvest.borrow_mut().tally.corrupt += 1;
                return;
            }
            // Rooms may be shared with others.
            _ => return,
        };
        let room = shared.room_of(stamp.publisher);
        let joined = self.rooms.iter_mut().find(|joined| Some(joined.room) == room);
        let Some(joined) = joined else {
            return crew.fail("a publication of a room that the client is not in");
        };
        if !name.is_empty() && name != shared.name(joined.room).as_bytes() {
            return crew.fail("a publication under the name of another room");
        }
        joined.ledger.publication(offset, &stamp);
        crew.count(Gauge::Received, 1);
        if !seat.is_lazy(crew) {
            let latency = at.saturating_sub(stamp.at_ns);
            crew.measure(latency, crew.is_apart(seat.chosen, joined.room));
            crew.measures.borrow_mut().last.note(stamp.publisher, stamp.seq, latency);
        }
        if shared.spec.load.window > 0 {
            drive::note_delivered(shared, stamp.publisher);
        }
        if stamp.last && joined.open > 0 {
            joined.open -= 1;
            if joined.open == 0 {
                room_ended(crew, seat);
            }
        }
    }

    fn echo(&mut self, crew: &Crew, seat: &Seat, payload: &[u8], at: u64) {
        match Stamp::read(payload) {
            Ok(stamp) if crew.shared.is_ours(&stamp) && stamp.publisher == seat.who => {
                let shared = &crew.shared;
                let closed_loop =
                    shared.spec.scenario == Kind::Echo && shared.spec.load.rate <= 0.0;
                // Before the answer counts, or a client between two echoes would look finished.
                if closed_loop && at < shared.end() && drive::may_ask(crew, seat) {
                    seat.owed.set(seat.owed.get() + 1);
                }
                let latency = at.saturating_sub(stamp.at_ns);
                self.answer(crew, seat, stamp.seq, Some(latency));
            }
            _ => crew.harvest.borrow_mut().tally.corrupt += 1,
        }
    }

    /// Counts an echo, or an answer to a roll call.
    fn answer(&mut self, crew: &Crew, seat: &Seat, number: u64, latency_ns: Option<u64>) {
        match self.asks.note(number) {
            Seen::Duplicate => self.duplicates += 1,
            Seen::Late => self.reordered += 1,
            Seen::InOrder | Seen::Skipped(_) => {}
        }
        crew.count(Gauge::Received, 1);
        if let Some(latency) = latency_ns {
            crew.measure(latency, false);
        }
        seat.answered.set(seat.answered.get() + 1);
        seat.look_finished(crew);
    }

    fn gap(&mut self, crew: &Crew, name: &[u8], lost: u64) {
        let named = |joined: &&mut Joined| crew.shared.name(joined.room).as_bytes() == name;
        match self.rooms.iter_mut().find(named) {
            Some(joined) => joined.ledger.gap(lost),
            None => crew.fail("a gap in a room that the client is not in"),
        }
    }

    /// True when the room goes on where the client left it; the epoch is noted for the next time.
    fn resumes(
        &mut self,
        crew: &Crew,
        reference: u64,
        epoch: Option<String>,
        recovered: Option<bool>,
    ) -> bool {
        let asked = self.cursor(reference).is_some();
        if let (Some(epochs), Some(epoch)) = (&mut self.epochs, epoch) {
            let at = usize::try_from(reference).unwrap_or(usize::MAX);
            if at < self.rooms.len() {
                epochs.resize(self.rooms.len().max(epochs.len()), None);
                epochs[at] = Some(epoch.into());
            }
        }
        if asked && recovered != Some(true) {
            crew.fail("a cursor from which the server could not go on");
        }
        asked && recovered == Some(true)
    }

    /// `resumed`: the room goes on where it was left, and what has ended meanwhile is still to come.
    fn reply(
        &mut self,
        crew: &Crew,
        seat: &Seat,
        reference: u64,
        offset: Option<u64>,
        resumed: bool,
    ) {
        let at = usize::try_from(reference).unwrap_or(usize::MAX);
        let Some(joined) = self.rooms.get_mut(at) else { return };
        self.joined += 1;
        if resumed {
            return;
        }
        joined.ledger.join(offset);
        let gone = |stream: &u32| crew.shared.total_of(*stream).is_some();
        let over = crew.shared.streams_of(joined.room).filter(gone).count();
        let over = u16::try_from(over).unwrap_or(u16::MAX).min(joined.open);
        if over > 0 {
            joined.open -= over;
            if joined.open == 0 {
                room_ended(crew, seat);
            }
        }
        if self.is_joined() && crew.shared.spec.scenario == Kind::Idle {
            crew.count(Gauge::Joined, 1);
            crew.gate.add_permits(1);
        }
    }

    /// Frames that what was received asks for.
    pub(super) fn answers(&mut self, crew: &Crew, seat: &Seat, sender: &Sender) -> Vec<u8> {
        let mut frames = Vec::new();
        for payload in self.pongs.drain(..) {
            sender.pong(&payload, &mut frames);
        }
        for text in self.due.drain(..) {
            sender.frame(text, &mut frames);
        }
        for _ in 0..seat.owed.take() {
            drive::ask(crew, seat, sender, clock::now_ns(), &mut frames);
        }
        frames
    }

    /// Closes the books. `complete`: the session was there to the end.
    fn tally(&mut self, crew: &Crew, seat: &Seat, complete: bool) -> Tally {
        let mut tally = settle(crew, std::mem::take(&mut self.rooms), complete);
        let asked = u64::from(seat.asked.get());
        if asked > 0 && seat.publishes.is_none() {
            let lost = self.asks.finish(asked);
            tally.expected += asked;
            tally.received += asked - lost.min(asked);
            tally.lost += lost;
            tally.duplicates += u64::from(self.duplicates);
            tally.reordered += u64::from(self.reordered);
        }
        tally
    }
}

fn room_ended(crew: &Crew, seat: &Seat) {
    seat.rooms_open.set(seat.rooms_open.get().saturating_sub(1));
    seat.look_finished(crew);
}

/// Starts the tasks of the thread's clients, as fast as the ramp and the gate allow.
pub(super) async fn seat_all(_working: AtWork, crew: Rc<Crew>, first: u32, of: u32) {
    let crowd = &crew.shared.spec.crowd;
    let (clients, ramp) = (crowd.clients, crowd.ramp_per_s);
    let began = Instant::from_std(crate::clock::now());
    for who in (0..clients).filter(|who| who % of == first) {
        if ramp > 0.0 {
            sleep_until(began + Duration::from_secs_f64(f64::from(who) / ramp)).await;
        }
        if crew.order.get() == Order::Close {
            return;
        }
        let Ok(turn) = crew.gate.acquire().await else { return };
        turn.forget();
        let seat = Rc::new(Seat::new(&crew, who, None));
        crew.seats.borrow_mut().push(Rc::clone(&seat));
        tokio_uring::spawn(live(crew.at_work(), Rc::clone(&crew), seat));
    }
}

/// Attempts of a returning client before it gives up.
const ATTEMPTS: u32 = 20;

/// A client's life, from the first session to the last. Holds a permit of the gate when it begins.
pub(super) async fn live(_working: AtWork, crew: Rc<Crew>, seat: Rc<Seat>) {
    let mut attempt = 0;
    let mut kept = None;
    loop {
        let opened = Box::pin(enter(&crew, &seat, &mut kept)).await;
        crew.gate.add_permits(1);
        match opened {
            Ok(mut session) => {
                attempt = 0;
                drive::on_open(&crew, &seat);
                let result = attend(&crew, &seat, &mut session).await;
                crew.uncount(Gauge::Ready, 1);
                seat.vacate();
                if !end(&crew, &seat, &mut session.member, result) {
                    return;
                }
                kept = session.member.keep();
            }
            Err(error) => {
                attempt += 1;
                if seat.session.get() == 1 || attempt > ATTEMPTS || crew.order.get() == Order::Close
                {
                    crew.harvest.borrow_mut().sessions.refused += 1;
                    crew.fail(&error);
                    close_books(&crew, kept);
                    seat.finish(&crew);
                    return;
                }
                crew.harvest.borrow_mut().sessions.retried += 1;
            }
        }
        Box::pin(drive::before_return(&crew, attempt)).await;
        let Ok(turn) = crew.gate.acquire().await else { return };
        turn.forget();
        if crew.order.get() == Order::Close {
            crew.gate.add_permits(1);
            return close_books(&crew, kept);
        }
    }
}

/// Adds up the books of a client that was to come back and did not: what it has not had is lost.
fn close_books(crew: &Crew, kept: Option<Box<Kept>>) {
    let Some(kept) = kept else { return };
    let tally = settle(crew, kept.rooms, true);
    crew.harvest.borrow_mut().tally.add(&tally);
}

/// Settles the accounts of rooms. `complete`: the client was there to the end, or should have been.
fn settle(crew: &Crew, rooms: Vec<Joined>, complete: bool) -> Tally {
    let mut tally = Tally::default();
    let total = |stream| crew.shared.total_of(stream);
    for mut joined in rooms {
        for stream in crew.shared.streams_of(joined.room).filter(|_| complete) {
            joined.ledger.charge_silent(stream);
        }
        tally.add(&joined.ledger.finish(&total, complete));
    }
    tally
}

/// A session and its books.
pub(super) struct Session {
    pub(super) reader: Reader,
    pub(super) member: Member,
}

async fn enter(
    crew: &Rc<Crew>,
    seat: &Rc<Seat>,
    kept: &mut Option<Box<Kept>>,
) -> Result<Box<Session>, String> {
    let rooms = match seat.publishes {
        None => crew.shared.layout.rooms_of(seat.who),
        Some(_) => Vec::new(),
    };
    let open_rooms = || u16::try_from(rooms.len()).unwrap_or(u16::MAX);
    seat.rooms_open.set(kept.as_ref().map_or_else(open_rooms, |kept| kept.rooms_open()));
    open(crew, seat, &rooms, kept).await.map(Box::new)
}

/// Receives until the session ends.
async fn attend(crew: &Rc<Crew>, seat: &Rc<Seat>, session: &mut Session) -> Result<(), String> {
    loop {
        if seat.is_now(SlowKind::Stop, crew) {
            Box::pin(crew.until(Order::Settle)).await;
        } else if seat.is_now(SlowKind::Trickle, crew) {
            Box::pin(drive::pause(nanos(0.1))).await;
            session.reader.sip();
        } else if seat.is_lazy(crew) && crew.order.get() == Order::Publish {
            Box::pin(drive::doze(crew)).await;
        }
        let read = next(crew, seat, session).await?;
        if read == 0 || session.member.has_ended() {
            return Ok(());
        }
    }
}

/// Judges how a session ended and adds up its books. True when the client is to return.
fn end(crew: &Crew, seat: &Seat, member: &mut Member, result: Result<(), String>) -> bool {
    let spec = &crew.shared.spec;
    let order = crew.order.get();
    let goodbye = seat.leaving.get() || order == Order::Close;
    // A stream is ended by hanging up, which nobody answers.
    let answered = match member.listens {
        true => member.closed.is_none(),
        false => matches!(member.closed, Some(None | Some(1000))),
    };
    let in_order = goodbye && !seat.dropped.get() && result.is_ok() && answered;
    let goes_on = member.epochs.is_some() && seat.dropped.get() && order < Order::Close;
    let tally = match goes_on {
        true => Tally::default(),
        false => member.tally(crew, seat, in_order && order == Order::Close),
    };
    let mut harvest = crew.harvest.borrow_mut();
    harvest.tally.add(&tally);
    if let Some(code) = member.closed {
        let code = code.map_or_else(|| "none".to_owned(), |code| code.to_string());
        *harvest.sessions.close_codes.entry(code).or_default() += 1;
    }
    let returns = matches!(spec.scenario, Kind::Churn | Kind::Storm) && order < Order::Close;
    if seat.dropped.get() || (in_order && order < Order::Close) {
        harvest.sessions.ended_by_plan += 1;
        return returns;
    }
    if in_order {
        return false;
    }
    if spec.scenario == Kind::Slow && seat.chosen {
        harvest.sessions.ended_by_plan += 1;
        drop(harvest);
        seat.finish(crew);
        return false;
    }
    harvest.sessions.ended_by_server += 1;
    drop(harvest);
    let how = match (member.closed, result) {
        (Some(code), _) => format!("close frame with code {code:?}"),
        (None, Err(error)) => error,
        (None, Ok(())) => "the end of the stream".to_owned(),
    };
    crew.fail(&format!("the server ended a session: {how}"));
    seat.finish(crew);
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<F: Future, M: Fn(AtWork, Rc<Crew>, Rc<Seat>) -> F>(_: M) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_client_that_only_reads_carries_no_more_than_half_a_kibibyte() {
        assert!(size(live) <= 512, "{}", size(live));
        assert!(size_of::<Session>() <= 192, "{}", size_of::<Session>());
        assert!(size_of::<Joined>() <= 80, "{}", size_of::<Joined>());
    }
}
