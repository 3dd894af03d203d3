//! Asking the application's back end, and doing nothing until it has answered.
//!
//! A question leaves the shard as an inquiry that the worker hands to the admin thread; the answer comes as
//! mail. No turn waits for it. Meanwhile the handshake, the login or the command in question is held, and
//! everything else goes on. What was answered lately is remembered (`auth::Rulings`), so most commands are
//! decided without a question. Where too many questions wait, the next one counts as not answered.

use std::rc::Rc;
use std::time::Duration;

use serde_json::value::RawValue;
use smallvec::SmallVec;

use crate::auth::{
    Admission, Asker, Consult, Identity, Right, Ruling, TokenError, Veto, Wish, question,
    question_key,
};
use crate::base::id::ConnId;
use crate::base::outside::Inquiry;
use crate::base::packed::Packed;
use crate::base::time::Time;
use crate::connection::Disconnect;
use crate::session::{
    Code, Command, CommandError, CommandLimits, Incoming, Protocol, Request, Session, Subjects,
    Whois,
};
use crate::shard::held::{About, Arrival, Asked, Held, Kept, Rooms, Wait};
use crate::shard::login::Judged;
use crate::shard::people::{Offer, Pending};
use crate::shard::state::Shard;
use crate::wire::http::{Head, Refusal, Upgrade};

/// What is known of a right in a room before anybody is asked.
enum Stand {
    /// Nobody need be asked: the rules of the room decide.
    Ruled,
    /// The back end has said yes lately.
    Allowed,
    /// The back end has said no lately.
    Refused(Veto),
    /// It has to be asked; the answer is remembered under this.
    Open(Box<str>),
}

impl Shard {
    /// Offers the questions that wait to leave to `post`, in order, until it gives one back.
    pub fn poll_inquiries(&mut self, post: &mut dyn FnMut(Inquiry) -> Result<(), Inquiry>) {
        let out = &mut self.gate.people.consults.out;
        while let Some(inquiry) = out.pop_front() {
            if let Err(inquiry) = post(inquiry) {
                out.push_front(inquiry);
                return;
            }
        }
    }

    /// What a page or program was that has made a valid upgrade, where that is asked about later.
    pub(super) fn arrival(&self, head: &Head<'_>, upgrade: &Upgrade<'_>) -> Option<Arrival> {
        let access = &self.settings.access;
        access.consult.filter(|consult| consult.connect)?;
        Some(Arrival { origin: upgrade.origin.map(Box::from), path: head.path().into() })
    }

    /// Asks whether the client whose handshake is held may come in.
    pub(super) fn ask_door(&mut self, conn: ConnId, now: Time) {
        let Some(pending) = self.gate.people.pending.get(&conn.index) else { return };
        let Some(arrival) = &pending.arrival else { return };
        let wish = wish_to_come(arrival, pending.identity.as_ref());
        let (key, document) = self.compose(conn, pending.identity.as_ref(), &wish);
        match self.recall(&key, now) {
            Some(ruling) => self.handle_door_ruling(conn, ruling, now),
            None => self.send(conn, About::Door, key, document),
        }
    }

    /// Asks whether somebody may come in whose first message has said who it is.
    pub(super) fn ask_login(
        &mut self,
        conn: ConnId,
        identity: Identity,
        reference: Option<&RawValue>,
        place: Option<u64>,
        now: Time,
    ) {
        let arrival = self.gate.people.consults.arrivals.remove(&conn.index);
        let arrival = arrival.map_or_else(Arrival::unknown, |arrival| *arrival);
        let (key, document) =
            self.compose(conn, Some(&identity), &wish_to_come(&arrival, Some(&identity)));
        let place = place.unwrap_or_else(|| self.gate.people.consults.place());
        let reference = reference.map(RawValue::to_owned);
        let kept = Kept::Login { identity: Box::new(identity), reference };
        let known = self.recall(&key, now);
        let (left, ruling) = known.map_or((1, Ruling::Allow), |ruling| (0, ruling));
        let wait = Wait::Answers { left, ruling };
        self.hold_command(conn, Held { place, kept, wait });
        if left == 0 {
            self.advance(conn, now);
        } else {
            self.send(conn, About::Held(place), key, document);
        }
    }

    /// The key of a question and its document.
    fn compose(
        &self,
        conn: ConnId,
        identity: Option<&Identity>,
        wish: &Wish<'_>,
    ) -> (Box<str>, Vec<u8>) {
        let (tenant, user) = match (identity, self.gate.people.get(conn.index)) {
            (Some(identity), _) => (identity.tenant.as_deref(), Some(&*identity.user)),
            (None, Some(person)) => {
                let (tenant, user) = person.names();
                (tenant, Some(user))
            }
            (None, None) => (None, None),
        };
        let address = self.gate.seats.party(conn.index).map(|party| party.to_string());
        let client = self.address(conn);
        let asker = Asker { user, tenant, client, address: address.as_deref() };
        (question_key(&asker, wish), question(&asker, wish))
    }

    /// The answer to a question that was answered lately.
    fn recall(&mut self, key: &str, now: Time) -> Option<Ruling> {
        let ruling = self.gate.people.consults.rulings.get(key, now).cloned();
        self.counters.questions_remembered_total += u64::from(ruling.is_some());
        ruling
    }

    /// Sends a question on its way; where too many wait, the next turn has it undecided.
    fn send(&mut self, conn: ConnId, about: About, key: Box<str>, document: Vec<u8>) {
        let most = self.settings.access.consult.map_or(0, |consult| consult.most_waiting);
        let (from, consults) = (self.identity.id, &mut self.gate.people.consults);
        self.counters.questions_total += 1;
        let number = consults.ask(Asked { conn, about, key });
        if consults.out.len() >= most {
            return consults.failed.push(number);
        }
        consults.out.push_back(Inquiry { from, number, document });
    }

    /// Decides what cannot be asked. Not where it was found out: what that sets free may ask again, and so on.
    pub(super) fn fail_some(&mut self, now: Time) {
        for number in std::mem::take(&mut self.gate.people.consults.failed) {
            self.handle_ruling(number, Ruling::Undecided, now);
        }
    }

    /// The back end has answered, or will not.
    pub(super) fn handle_ruling(&mut self, number: u64, ruling: Ruling, now: Time) {
        let consults = &mut self.gate.people.consults;
        let Some(Asked { conn, about, key }) = consults.questions.remove(&number) else { return };
        let counters = &mut self.counters;
        let consult = self.settings.access.consult;
        let life = consult.map(|consult| match &ruling {
            Ruling::Allow => consult.allowed_for,
            Ruling::Refuse(_) => {
                counters.questions_refused_total += 1;
                consult.refused_for
            }
            Ruling::Undecided => {
                counters.questions_undecided_total += 1;
                Duration::ZERO
            }
        });
        if let (Some(Consult { remembered, .. }), Some(life)) = (consult, life)
            && !life.is_zero()
        {
            consults.rulings.keep(key, ruling.clone(), now.plus(life), remembered);
        }
        let ruling = match (ruling, consult) {
            (Ruling::Undecided, Some(Consult { lenient: true, .. })) => Ruling::Allow,
            (ruling, _) => ruling,
        };
        match about {
            About::Door => self.handle_door_ruling(conn, ruling, now),
            About::Held(place) => {
                self.gate.people.consults.note(conn, place, ruling);
                self.advance(conn, now);
            }
        }
    }

    /// Whether the client whose handshake is held may come in. It may be gone by now, and its index in
    /// other hands.
    fn handle_door_ruling(&mut self, conn: ConnId, ruling: Ruling, now: Time) {
        let pending = self.gate.people.pending.get(&conn.index);
        let Some(pending) = pending.filter(|pending| pending.conn == conn) else { return };
        debug_assert!(pending.arrival.is_some(), "nobody was to be asked");
        let (why, words, refusal) = match ruling {
            Ruling::Allow => return self.let_in(conn, now),
            Ruling::Refuse(veto) => {
                self.note_refused_token(TokenError::Vetoed);
                let refusal = Refusal::vetoed(veto.status, &veto.words);
                (Disconnect::Denied(TokenError::Vetoed), veto.words, refusal)
            }
            Ruling::Undecided => return self.put_off(conn, now),
        };
        self.turn_back(conn, why, Some(&words), &refusal, now);
    }

    /// Ends a handshake that is held: a page that can only read close frames gets one, and everybody else a refusal.
    pub(super) fn turn_back(
        &mut self,
        conn: ConnId,
        why: Disconnect,
        words: Option<&str>,
        refusal: &Refusal,
        now: Time,
    ) {
        let Some(pending) = self.gate.people.pending.remove(&conn.index) else { return };
        if pending.tells {
            let Offer { protocol, response, window, .. } = pending.offer;
            self.open(conn, protocol, (response, window), now);
            self.close_saying(conn, why, words, now);
        } else {
            self.refuse_handshake(conn, refusal, now);
        }
    }

    /// Obeys a command, or asks first whether it may be obeyed, or keeps it until that is known of what
    /// was said before. `place` is where it stood if it was held before.
    pub(super) fn consider(
        &mut self,
        id: ConnId,
        request: Request<'_>,
        text: &str,
        place: Option<u64>,
        now: Time,
    ) {
        let consults = &self.gate.people.consults;
        let is_to_be_packed = self.is_to_be_packed(id, &request);
        if self.settings.access.consult.is_none() && consults.len() == 0 && !is_to_be_packed {
            return self.obey(id, request, now);
        }
        let (rooms, right) = concerned(&request.command);
        if !consults.stops(id, &rooms, place.unwrap_or(u64::MAX)) {
            if let Command::Publish(publish) = &request.command
                && is_to_be_packed
            {
                return self.pack_first(id, publish, text, place);
            }
            let open = match self.weigh_rooms(id, &rooms, right, now) {
                Ok(open) => open,
                Err(veto) => return self.refuse_right(id, &veto, request.reference, now),
            };
            if open.is_empty() {
                // What the rules of a room refuse is refused all the same: a pass is for what is asked about.
                drop(rooms);
                self.gate.people.consults.pass = Some(id);
                self.obey(id, request, now);
                self.gate.people.consults.pass = None;
                return;
            }
            return self.ask_first(id, &request, text, open, place, now);
        }
        let rooms: Rooms = rooms.iter().map(|room| (*room).into()).collect();
        self.hold_turn(id, text, rooms, place, request.reference, now);
    }

    /// What has to be asked before a right may be used in all these rooms; nothing when that is known.
    fn weigh_rooms(
        &mut self,
        id: ConnId,
        rooms: &[&str],
        right: Option<Right>,
        now: Time,
    ) -> Result<SmallVec<[Question; 1]>, Veto> {
        let mut open = SmallVec::new();
        let Some(right) = right else { return Ok(open) };
        for room in rooms {
            match self.stand(id, room, right, now) {
                Stand::Ruled | Stand::Allowed => {}
                Stand::Refused(veto) => return Err(veto),
                Stand::Open(key) => {
                    let (_, document) = self.compose(id, None, &Wish::Room { room, right });
                    open.push((key, document));
                }
            }
        }
        Ok(open)
    }

    fn stand(&mut self, id: ConnId, room: &str, right: Right, now: Time) -> Stand {
        let is_open = self.is_asked_about(room, right)
            && !self.has_right(id.index, room, right)
            && self.may_from_there(id.index, room);
        if !is_open {
            return Stand::Ruled;
        }
        let (key, _) = self.compose(id, None, &Wish::Room { room, right });
        match self.recall(&key, now) {
            Some(Ruling::Refuse(veto)) => Stand::Refused(veto),
            Some(_) => Stand::Allowed,
            None => Stand::Open(key),
        }
    }

    /// Holds a command and asks what has to be known of it.
    fn ask_first(
        &mut self,
        id: ConnId,
        request: &Request<'_>,
        text: &str,
        open: SmallVec<[Question; 1]>,
        place: Option<u64>,
        now: Time,
    ) {
        // What was held before was accepted then.
        if place.is_none() && self.has_asked_enough(id) {
            return self.refuse(id, &CommandError::outstanding(request.reference), now);
        }
        let (rooms, _) = concerned(&request.command);
        let kept = Kept::Message {
            text: text.into(),
            rooms: rooms.iter().map(|room| (&**room).into()).collect(),
            packed: packed_of(&request.command),
        };
        let left = u16::try_from(open.len()).unwrap_or(u16::MAX);
        let wait = Wait::Answers { left, ruling: Ruling::Allow };
        let place = place.unwrap_or_else(|| self.gate.people.consults.place());
        self.hold_command(id, Held { place, kept, wait });
        for (key, document) in open {
            self.send(id, About::Held(place), key, document);
        }
    }

    /// Keeps a message until what was said before it is done.
    fn hold_turn(
        &mut self,
        id: ConnId,
        text: &str,
        rooms: Rooms,
        place: Option<u64>,
        reference: Option<&RawValue>,
        now: Time,
    ) {
        if place.is_none() && self.has_asked_enough(id) {
            return self.refuse(id, &CommandError::outstanding(reference), now);
        }
        let place = place.unwrap_or_else(|| self.gate.people.consults.place());
        let kept = Kept::Message { text: text.into(), rooms, packed: None };
        self.hold_command(id, Held { place, kept, wait: Wait::Turn });
    }

    /// Keeps something in its place; until it is taken out it counts as what awaits an answer.
    pub(super) fn hold_command(&mut self, id: ConnId, held: Held) {
        self.note_asked(id);
        self.gate.people.consults.hold(id, held);
    }

    /// True while the connection has said who it is and the back end has yet to let it in.
    pub(super) fn waits_for_login(&self, id: ConnId) -> bool {
        self.gate.people.consults.holds_login(id)
    }

    /// Keeps a message until it is known whether its sender may come in.
    pub(super) fn keep_behind_login(&mut self, id: ConnId, text: &str, now: Time) {
        self.hold_turn(id, text, Rooms::new(), None, None, now);
    }

    /// Goes on with what need not wait any longer.
    pub(super) fn advance(&mut self, conn: ConnId, now: Time) {
        while let Some(held) = self.gate.people.consults.take_ready(conn) {
            self.note_answered(conn);
            self.accept_again(Some(conn));
            let Held { place, kept, wait } = held;
            match (kept, wait) {
                (Kept::Login { identity, reference }, Wait::Answers { ruling, .. }) => {
                    self.finish_login(conn, *identity, reference.as_deref(), ruling, now);
                }
                (Kept::Message { text, packed, .. }, Wait::Answers { ruling, .. }) => {
                    self.finish_command(conn, (&text, packed), ruling, now);
                }
                (Kept::Message { text, .. }, Wait::Turn) => {
                    self.resume(conn, (&text, None), place, now);
                }
                (Kept::Message { text, .. }, Wait::Packing(packed)) => {
                    self.resume(conn, (&text, packed), place, now);
                }
                (Kept::Token { reference }, Wait::Proof(Some(verdict))) => {
                    self.finish_check(conn, *verdict, reference.as_deref(), Some(place), now);
                }
                (Kept::Login { .. } | Kept::Token { .. }, _) | (_, Wait::Proof(_)) => {}
            }
            self.accept_again(None);
        }
    }

    fn finish_login(
        &mut self,
        conn: ConnId,
        identity: Identity,
        reference: Option<&RawValue>,
        ruling: Ruling,
        now: Time,
    ) {
        let unix = self.unix(now);
        let is_void = self.gate.people.revocations.holds(&identity, unix);
        match ruling {
            Ruling::Allow if is_void => {
                self.note_refused_token(TokenError::Revoked);
                self.close(conn, Disconnect::Denied(TokenError::Revoked), now);
            }
            Ruling::Allow => self.accept_token(conn, identity, true, reference, now),
            Ruling::Refuse(veto) => {
                self.note_refused_token(TokenError::Vetoed);
                let why = Disconnect::Denied(TokenError::Vetoed);
                self.close_saying(conn, why, Some(&veto.words), now);
            }
            Ruling::Undecided => self.close_for_now(conn, now),
        }
    }

    fn finish_command(
        &mut self,
        conn: ConnId,
        (text, packed): (&str, Option<Packed>),
        ruling: Ruling,
        now: Time,
    ) {
        let settings = Rc::clone(&self.settings);
        let request = match read(text, &settings.commands) {
            Ok(Incoming::Request(request)) => with(packed, request),
            Ok(Incoming::Bounce) => return,
            // The limits may have changed since it was read first.
            Err(error) => return self.refuse(conn, &error, now),
        };
        match ruling {
            Ruling::Allow => {
                self.gate.people.consults.pass = Some(conn);
                self.obey(conn, request, now);
                self.gate.people.consults.pass = None;
            }
            Ruling::Refuse(veto) => self.refuse_right(conn, &veto, request.reference, now),
            Ruling::Undecided => {
                let message =
                    "it cannot be decided now whether this is allowed; send it again after a pause";
                let error = CommandError::new(Code::Overloaded, message, request.reference);
                self.refuse(conn, &error, now);
            }
        }
    }

    /// Takes up a message whose turn has come.
    fn resume(
        &mut self,
        conn: ConnId,
        (text, packed): (&str, Option<Packed>),
        place: u64,
        now: Time,
    ) {
        let settings = Rc::clone(&self.settings);
        match read(text, &settings.commands) {
            Ok(Incoming::Request(Request { command: Command::Auth { token }, reference })) => {
                self.login(conn, &token, reference, Some(place), now);
            }
            Ok(Incoming::Request(request)) => {
                self.consider(conn, with(packed, request), text, Some(place), now);
            }
            Ok(Incoming::Bounce) => {}
            Err(error) => self.refuse(conn, &error, now),
        }
    }

    fn refuse_right(&mut self, id: ConnId, veto: &Veto, reference: Option<&RawValue>, now: Time) {
        self.counters.forbidden_total += 1;
        self.refuse(id, &CommandError::new(Code::Forbidden, &*veto.words, reference), now);
    }

    /// True while the connection's command is obeyed because the back end allows it.
    pub(super) fn has_pass(&self, id: ConnId) -> bool {
        self.gate.people.consults.pass == Some(id)
    }
}

/// A question's key and document.
type Question = (Box<str>, Vec<u8>);

impl Arrival {
    /// Of a client that came before anybody was to be asked about it.
    fn unknown() -> Self {
        Self { origin: None, path: "/".into() }
    }
}

impl Pending {
    /// A handshake that waits for somebody, or nobody in particular, to be let in.
    pub(super) fn of(conn: ConnId, offer: Offer, judged: Judged, rest: &[u8]) -> Self {
        let Judged { who, arrival, tells, .. } = judged;
        let identity = match who {
            Admission::Known(identity) => Some(*identity),
            Admission::Ticket(read) => Some(read.identity),
            Admission::Anonymous | Admission::Later | Admission::Unproven(_) => None,
        };
        Self { conn, offer, identity, rest: rest.to_vec(), arrival, tells }
    }
}

fn wish_to_come<'a>(arrival: &'a Arrival, identity: Option<&'a Identity>) -> Wish<'a> {
    Wish::Connect {
        origin: arrival.origin.as_deref(),
        path: &arrival.path,
        metadata: identity.and_then(|identity| identity.metadata.as_deref()),
    }
}

/// The rooms that a command is about, and the right that it uses there; none to go.
fn concerned<'r>(command: &'r Command<'_>) -> (SmallVec<[&'r str; 2]>, Option<Right>) {
    let one = |room: &'r str| SmallVec::from_iter([room]);
    match command {
        Command::Join { room, .. } => (one(room), Some(Right::Join)),
        Command::Members { room }
        | Command::Watch(Subjects::Room(room))
        | Command::Whois(Whois { subjects: Subjects::Room(room), .. }) => {
            (one(room), Some(Right::Presence))
        }
        Command::Leave { room } | Command::Unwatch(Subjects::Room(room)) => (one(room), None),
        Command::History { room, .. } => (one(room), Some(Right::History)),
        Command::Restore { rooms } => {
            (rooms.iter().map(|back| &*back.room).collect(), Some(Right::Join))
        }
        Command::Publish(publish) => {
            (publish.targets.rooms.iter().map(|room| &**room).collect(), Some(Right::Publish))
        }
        Command::Ping
        | Command::Status(_)
        | Command::Auth { .. }
        | Command::Watch(Subjects::Users(_))
        | Command::Unwatch(Subjects::Users(_))
        | Command::Whois(Whois { subjects: Subjects::Users(_), .. })
        | Command::Inbox(_)
        | Command::Read(_)
        | Command::Panic => (SmallVec::new(), None),
    }
}

/// What the payload of a command was compressed to.
fn packed_of(command: &Command<'_>) -> Option<Packed> {
    match command {
        Command::Publish(publish) => publish.packed.clone(),
        _ => None,
    }
}

/// The same, with what its payload was compressed to.
fn with(packed: Option<Packed>, mut request: Request<'_>) -> Request<'_> {
    if let Command::Publish(publish) = &mut request.command {
        publish.packed = packed;
    }
    request
}

/// Reads a message again that was held.
fn read<'a>(text: &'a str, limits: &CommandLimits) -> Result<Incoming<'a>, CommandError> {
    Session::new(Protocol::Json).handle_text(text, limits)
}
