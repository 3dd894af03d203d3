//! What waits until the application's back end has answered: questions, commands, logins.
//!
//! A command whose right is in question is kept as the text it came as, in its place among the
//! connection's commands. A later one that names one of its rooms waits behind it, so what a client says
//! about a room is obeyed in the order said; others pass. A login lets nothing pass. Nothing in here asks
//! or obeys: it says what may go on. A connection that ends takes with it what it said, and the answers to
//! its questions find nobody.

use std::collections::VecDeque;

use serde_json::value::RawValue;
use smallvec::SmallVec;

use crate::auth::{Identity, Ruling, Rulings, TokenError};
use crate::base::id::ConnId;
use crate::base::map::{Map, Seed};
use crate::base::outside::Inquiry;
use crate::base::packed::Packed;
use crate::base::time::Time;
use crate::shard::proofs::Proofs;
use crate::shard::tidings::Tidings;

/// The rooms that a command names, as its client calls them.
pub(super) type Rooms = SmallVec<[Box<str>; 1]>;

/// What is kept.
#[derive(Debug)]
pub(super) enum Kept {
    /// Somebody whose token is good.
    Login { identity: Box<Identity>, reference: Option<Box<RawValue>> },
    /// Somebody whose token is being checked.
    Token { reference: Option<Box<RawValue>> },
    /// A message. One that names no room waits for a login only.
    Message {
        text: Box<str>,
        rooms: Rooms,
        /// What its payload was compressed to.
        packed: Option<Packed>,
    },
}

/// What it waits for.
#[derive(Debug)]
pub(super) enum Wait {
    /// For what was said before it.
    Turn,
    /// For so many answers; what those that came say together.
    Answers { left: u16, ruling: Ruling },
    /// For the check of its token; what that has found.
    Proof(Option<Box<Verdict>>),
    /// For its payload to be compressed; what that has become.
    Packing(Option<Packed>),
}

/// Whose a token is, or what is wrong with it.
pub(super) type Verdict = Result<Identity, TokenError>;

/// One that waits.
#[derive(Debug)]
pub(super) struct Held {
    /// Where it stands among all that was ever held: the lower, the earlier it was said.
    pub(super) place: u64,
    pub(super) kept: Kept,
    pub(super) wait: Wait,
}

impl Held {
    fn cost(&self) -> u64 {
        let text = match &self.kept {
            Kept::Login { .. } | Kept::Token { .. } => size_of::<Identity>(),
            Kept::Message { text, packed, .. } => {
                text.len() + packed.as_ref().map_or(0, |packed| packed.blocks().len())
            }
        };
        (size_of::<Self>() + text) as u64
    }

    /// True when a later command about these rooms must not pass.
    fn stops<S: AsRef<str>>(&self, theirs: &[S]) -> bool {
        match &self.kept {
            Kept::Login { .. } | Kept::Token { .. } => true,
            Kept::Message { rooms, .. } => {
                rooms.iter().any(|room| theirs.iter().any(|other| other.as_ref() == &**room))
            }
        }
    }
}

/// What an answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum About {
    /// The handshake of the connection.
    Door,
    /// What the connection said, at that place.
    Held(u64),
}

/// A question that awaits its answer.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) conn: ConnId,
    pub(super) about: About,
    /// Under which its answer is remembered.
    pub(super) key: Box<str>,
}

/// Where a client that has yet to say who it is came from.
#[derive(Clone, Debug)]
pub(super) struct Arrival {
    pub(super) origin: Option<Box<str>>,
    pub(super) path: Box<str>,
}

#[derive(Debug)]
struct Queue {
    conn: ConnId,
    /// By their places.
    list: VecDeque<Held>,
}

/// Everything of a shard that waits for the application's back end.
#[derive(Debug)]
pub(super) struct Consults {
    pub(super) questions: Map<u64, Asked>,
    next_question: u64,
    held: Map<u32, Queue>,
    next_place: u64,
    /// How many are held, and what they cost in bytes.
    total: (usize, u64),
    pub(super) rulings: Rulings,
    /// Questions on their way out of the shard.
    pub(super) out: VecDeque<Inquiry>,
    /// What is to be told.
    pub(super) tidings: Tidings,
    /// Tokens that are checked elsewhere.
    pub(super) proofs: Proofs,
    /// Questions that nobody will answer, as too many wait.
    pub(super) failed: Vec<u64>,
    /// By index, while nobody is known there.
    pub(super) arrivals: Map<u32, Box<Arrival>>,
    /// The connection whose command is being obeyed because the back end allows it.
    pub(super) pass: Option<ConnId>,
}

impl Consults {
    pub(super) fn new(seed: &Seed) -> Self {
        Self {
            questions: seed.map(),
            next_question: 0,
            held: seed.map(),
            next_place: 0,
            total: (0, 0),
            rulings: Rulings::new(seed),
            out: VecDeque::new(),
            tidings: Tidings::default(),
            proofs: Proofs::new(seed),
            failed: Vec::new(),
            arrivals: seed.map(),
            pass: None,
        }
    }

    /// Commands and logins that wait.
    pub(super) fn len(&self) -> usize {
        self.total.0
    }

    /// What they cost, in bytes, and what is to be told with them.
    pub(super) fn bytes(&self) -> u64 {
        self.total.1 + self.tidings.bytes() + self.proofs.bytes()
    }

    /// The place behind all others.
    pub(super) fn place(&mut self) -> u64 {
        self.next_place += 1;
        self.next_place
    }

    /// Notes a question; its number.
    pub(super) fn ask(&mut self, asked: Asked) -> u64 {
        self.next_question += 1;
        self.questions.insert(self.next_question, asked);
        self.next_question
    }

    /// What waits of a connection.
    fn list(&self, conn: ConnId) -> impl Iterator<Item = &Held> {
        let queue = self.held.get(&conn.index).filter(|queue| queue.conn == conn);
        queue.into_iter().flat_map(|queue| &queue.list)
    }

    /// How many wait of a connection; each of them counts as what awaits an answer as well.
    pub(super) fn count(&self, conn: ConnId) -> usize {
        self.list(conn).count()
    }

    /// True while the connection's login, or its token, waits.
    pub(super) fn holds_login(&self, conn: ConnId) -> bool {
        self.list(conn).any(|held| matches!(held.kept, Kept::Login { .. } | Kept::Token { .. }))
    }

    /// True when something said before `place` must be obeyed before a command about these rooms.
    pub(super) fn stops<S: AsRef<str>>(&self, conn: ConnId, rooms: &[S], place: u64) -> bool {
        self.list(conn).take_while(|held| held.place < place).any(|held| held.stops(rooms))
    }

    /// Keeps something in its place.
    pub(super) fn hold(&mut self, conn: ConnId, held: Held) {
        self.total = (self.total.0 + 1, self.total.1 + held.cost());
        let queue = self.held.entry(conn.index);
        let queue = queue.or_insert_with(|| Queue { conn, list: VecDeque::new() });
        let at = queue.list.partition_point(|other| other.place < held.place);
        queue.list.insert(at, held);
    }

    /// What is awaited at that place, if something is held there still.
    fn wait(&mut self, conn: ConnId, place: u64) -> Option<&mut Wait> {
        let queue = self.held.get_mut(&conn.index).filter(|queue| queue.conn == conn)?;
        let at = queue.list.binary_search_by_key(&place, |held| held.place).ok()?;
        Some(&mut queue.list[at].wait)
    }

    /// Notes an answer for what waits at that place, if it still does.
    pub(super) fn note(&mut self, conn: ConnId, place: u64, said: Ruling) {
        if let Some(Wait::Answers { left, ruling }) = self.wait(conn, place) {
            *left = left.saturating_sub(1);
            *ruling = std::mem::replace(ruling, Ruling::Allow).and(said);
        }
    }

    /// Notes what was found of the token that waits at that place, if it still does.
    pub(super) fn note_verdict(&mut self, conn: ConnId, place: u64, found: Verdict) {
        if let Some(Wait::Proof(verdict)) = self.wait(conn, place) {
            *verdict = Some(Box::new(found));
        }
    }

    /// Notes what the payload became that waits at that place, if it still does.
    pub(super) fn note_packed(&mut self, conn: ConnId, place: u64, found: Packed) {
        if let Some(Wait::Packing(packed)) = self.wait(conn, place) {
            *packed = Some(found);
        }
    }

    /// Takes out the first that need not wait any longer.
    pub(super) fn take_ready(&mut self, conn: ConnId) -> Option<Held> {
        let queue = self.held.get_mut(&conn.index).filter(|queue| queue.conn == conn)?;
        let list = &queue.list;
        let at = list.iter().enumerate().position(|(at, held)| match (&held.wait, &held.kept) {
            (Wait::Answers { left, .. }, _) => *left == 0,
            (Wait::Proof(verdict), _) => verdict.is_some(),
            (Wait::Packing(packed), _) => packed.is_some(),
            (Wait::Turn, Kept::Message { rooms, .. }) => {
                !list.iter().take(at).any(|before| before.stops(rooms))
            }
            (Wait::Turn, Kept::Login { .. } | Kept::Token { .. }) => true,
        })?;
        let held = queue.list.remove(at)?;
        if queue.list.is_empty() {
            self.held.remove(&conn.index);
        }
        self.total = (self.total.0 - 1, self.total.1 - held.cost());
        Some(held)
    }

    /// Forgets what waits of the connection at that index. Answers that are still to come find nobody.
    pub(super) fn forget(&mut self, index: u32) {
        self.arrivals.remove(&index);
        for held in self.held.remove(&index).into_iter().flat_map(|queue| queue.list) {
            self.total = (self.total.0 - 1, self.total.1 - held.cost());
        }
    }

    /// Gives back what a crowd has left.
    pub(super) fn purge(&mut self, now: Time) {
        self.rulings.purge(now);
        self.proofs.purge();
        self.questions.shrink_to(self.questions.len() * 2);
        self.held.shrink_to(self.held.len() * 2);
        self.arrivals.shrink_to(self.arrivals.len() * 2);
        self.out.shrink_to(self.out.len() * 2);
        self.failed.shrink_to(self.failed.len() * 2);
    }

    /// Verifies the counts and the order.
    ///
    /// # Panics
    /// When one does not hold.
    pub(super) fn check(&self, is_open: impl Fn(ConnId) -> bool) {
        let mut total = (0, 0);
        for queue in self.held.values() {
            assert!(!queue.list.is_empty(), "an empty list of what is held");
            assert!(is_open(queue.conn), "{:?} is not open and something is held", queue.conn);
            let places = queue.list.iter().map(|held| held.place);
            assert!(places.is_sorted(), "what is held stands in order");
            for held in &queue.list {
                total = (total.0 + 1, total.1 + held.cost());
                let waits = |(_, asked): (&u64, &Asked)| {
                    asked.conn == queue.conn && asked.about == About::Held(held.place)
                };
                if let Wait::Answers { left, .. } = held.wait {
                    let asked = self.questions.iter().filter(|asked| waits(*asked)).count();
                    assert_eq!(asked, usize::from(left), "answers awaited and questions asked");
                }
            }
        }
        self.tidings.check();
        self.proofs.check();
        assert_eq!(total, self.total, "what is held and its cost");
        assert!(self.pass.is_none(), "a pass outlives its command");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONN: ConnId = ConnId { index: 3, generation: 9 };

    fn message(consults: &mut Consults, rooms: &[&str], wait: Wait) -> u64 {
        let place = consults.place();
        let rooms = rooms.iter().map(|room| (*room).into()).collect();
        let kept = Kept::Message { text: place.to_string().into(), rooms, packed: None };
        consults.hold(CONN, Held { place, kept, wait });
        place
    }

    fn asked(consults: &mut Consults, rooms: &[&str], left: u16) -> u64 {
        let wait = Wait::Answers { left, ruling: Ruling::Allow };
        let place = message(consults, rooms, wait);
        for _ in 0..left {
            consults.ask(Asked { conn: CONN, about: About::Held(place), key: "".into() });
        }
        place
    }

    fn answer(consults: &mut Consults, place: u64, ruling: Ruling) {
        let about = |asked: &Asked| asked.about == About::Held(place);
        let number = consults.questions.iter().find(|(_, asked)| about(asked)).map(|(n, _)| *n);
        consults.questions.remove(&number.expect("a question"));
        consults.note(CONN, place, ruling);
        consults.check(|_| true);
    }

    #[test]
    fn what_names_the_same_room_waits_its_turn_and_the_rest_passes() {
        let mut consults = Consults::new(&Seed::new(1));
        let first = asked(&mut consults, &["a", "b"], 2);
        assert!(consults.stops(CONN, &["b", "c"], u64::MAX));
        assert!(!consults.stops(CONN, &["c"], u64::MAX));
        assert!(!consults.stops(CONN, &["b"], first), "nothing waits for what comes behind it");
        let behind = message(&mut consults, &["b"], Wait::Turn);
        let other = asked(&mut consults, &["c"], 1);
        consults.check(|_| true);
        assert!(consults.take_ready(CONN).is_none());
        answer(&mut consults, other, Ruling::Allow);
        assert_eq!(consults.take_ready(CONN).map(|held| held.place), Some(other));
        answer(&mut consults, first, Ruling::Undecided);
        assert!(consults.take_ready(CONN).is_none(), "one answer is still to come");
        answer(&mut consults, first, Ruling::Allow);
        let ready = consults.take_ready(CONN).expect("the first");
        assert!(matches!(ready.wait, Wait::Answers { ruling: Ruling::Undecided, .. }));
        assert_eq!((ready.place, consults.len()), (first, 1));
        assert_eq!(consults.take_ready(CONN).map(|held| held.place), Some(behind));
        assert_eq!((consults.len(), consults.bytes()), (0, 0));
    }

    #[test]
    fn what_is_held_again_keeps_its_place_and_what_has_gone_is_forgotten() {
        let mut consults = Consults::new(&Seed::new(1));
        let first = asked(&mut consults, &["a"], 1);
        let second = message(&mut consults, &["a"], Wait::Turn);
        let third = message(&mut consults, &["a"], Wait::Turn);
        answer(&mut consults, first, Ruling::Allow);
        assert_eq!(consults.take_ready(CONN).map(|held| held.place), Some(first));
        let held = consults.take_ready(CONN).expect("the second");
        assert_eq!(held.place, second);
        let wait = Wait::Answers { left: 0, ruling: Ruling::Allow };
        consults.hold(CONN, Held { wait, ..held });
        assert_eq!(consults.take_ready(CONN).map(|held| held.place), Some(second), "not the third");
        consults.note(ConnId { generation: 8, ..CONN }, third, Ruling::Allow);
        consults.forget(CONN.index);
        consults.check(|_| false);
        assert_eq!((consults.len(), consults.bytes()), (0, 0));
        consults.note(CONN, third, Ruling::Allow);
    }
}
