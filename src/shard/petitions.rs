//! Plain requests that somebody else answers: gathered whole, handed to the admin thread, and answered once.
//!
//! A request to a path that is not the shard's own never becomes a connection of the protocol. Its bytes are
//! kept until its body is complete, leave in one piece as a petition, and what comes back is written as it is
//! and ends the connection, as every plain answer does. Until then the connection is one whose handshake is
//! not done, so the handshake's deadline bounds all of it. How many wait, and how much they hold, is bounded
//! here; no turn waits for an answer.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use crate::base::id::ConnId;
use crate::base::map::{Map, Seed};
use crate::base::outside::Petition;
use crate::base::time::Time;
use crate::connection::{Connection, Verdict};
use crate::shard::carriers::Carriers;
use crate::shard::passages::Passages;
use crate::shard::state::Shard;
use crate::wire::http::{self, Refusal};

/// Requests that a shard gathers, or waits for the answers of, at one time.
const MOST: usize = 256;
/// Bytes of them together, those of bodies that are still to come included.
const MOST_BYTES: usize = 16 << 20;
/// When a client may come back that found too many before it.
pub(super) const LATER: Duration = Duration::from_secs(1);

/// A request on its way through the shard.
#[derive(Debug)]
struct Pending {
    conn: ConnId,
    /// Bytes it has in all.
    length: usize,
    /// What has arrived; empty once it has left.
    bytes: Vec<u8>,
    /// Under which number its answer is awaited; `None` while it is gathered.
    number: Option<u64>,
}

/// The requests of a shard that others answer.
#[derive(Debug)]
pub(super) struct Petitions {
    /// By the connections' places.
    pending: Map<u32, Pending>,
    /// The places, by the numbers under which answers come.
    asked: Map<u64, u32>,
    numbers: u64,
    out: VecDeque<Petition>,
    /// The sum of `length` over `pending`.
    bytes: usize,
    /// Requests that leave with their sockets instead.
    pub(super) passages: Passages,
    /// Sessions that poll, and their requests.
    pub(super) carriers: Carriers,
}

impl Petitions {
    /// None; `number` is known to nobody else.
    pub(super) fn new(seed: &Seed, number: u64) -> Self {
        Self {
            pending: seed.map(),
            asked: seed.map(),
            numbers: 0,
            out: VecDeque::new(),
            bytes: 0,
            passages: Passages::new(seed),
            carriers: Carriers::new(seed, number),
        }
    }

    /// Those that are gathered or wait for an answer.
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    /// What they are charged, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes as u64 + self.carriers.bytes()
    }

    fn has_space(&self, length: usize) -> bool {
        self.pending.len() < MOST && self.bytes + length <= MOST_BYTES
    }

    /// The connection has ended, or its answer is here.
    pub(super) fn forget(&mut self, conn: ConnId) {
        self.carriers.forget(conn);
        let own = self.pending.get(&conn.index).is_some_and(|pending| pending.conn == conn);
        if own && let Some(pending) = self.pending.remove(&conn.index) {
            self.bytes -= pending.length;
            pending.number.and_then(|number| self.asked.remove(&number));
        }
    }

    /// Asserts what holds between any two events. `is_opening` says of a connection whether it is there and
    /// its handshake is not done.
    fn check(&self, is_opening: impl Fn(ConnId) -> bool) {
        assert_eq!(
            self.bytes,
            self.pending.values().map(|one| one.length).sum::<usize>(),
            "petitions' bytes"
        );
        for (index, pending) in &self.pending {
            assert!(is_opening(pending.conn), "a petition of nobody: {pending:?}");
            assert!(pending.bytes.len() <= pending.length, "more than a request: {pending:?}");
            let back = pending.number.and_then(|number| self.asked.get(&number));
            assert_eq!(back, pending.number.map(|_| index), "a petition that no answer finds");
        }
        let asked = self.pending.values().filter(|pending| pending.number.is_some()).count();
        assert_eq!(asked, self.asked.len(), "answers for nobody");
    }
}

impl Shard {
    /// Offers the requests that are complete to `post`, in order, until it gives one back.
    pub fn poll_petitions(&mut self, post: &mut dyn FnMut(Petition) -> Result<(), Petition>) {
        while let Some(petition) = self.gate.people.petitions.out.pop_front() {
            if let Err(petition) = post(petition) {
                return self.gate.people.petitions.out.push_front(petition);
            }
        }
    }

    /// A request has begun whose path others answer: `bytes` of its `length` are here.
    pub(super) fn begin_petition(
        &mut self,
        conn: ConnId,
        mut bytes: Vec<u8>,
        length: usize,
        now: Time,
    ) {
        let Some(refusal) = self.screen_request(conn, &bytes, now) else { return };
        let crowded = !self.gate.people.petitions.has_space(length);
        if let Some(refusal) =
            refusal.or_else(|| crowded.then(|| Refusal::unavailable(Some(LATER))))
        {
            self.counters.petitions_refused_total += 1;
            return self.respond(conn, refusal.response(), now);
        }
        // What follows a request that is not to be kept alive has no meaning.
        bytes.truncate(length);
        let is_whole = bytes.len() == length;
        let own = &mut self.gate.people.petitions;
        own.bytes += length;
        own.pending.insert(conn.index, Pending { conn, length, bytes, number: None });
        if is_whole {
            self.send_petition(conn);
        }
    }

    /// Whether a request whose path others answer is refused by what is known of its client; `None` when that has ended
    /// the connection.
    pub(super) fn screen_request(
        &mut self,
        conn: ConnId,
        bytes: &[u8],
        now: Time,
    ) -> Option<Option<Refusal>> {
        let settings = Rc::clone(&self.settings);
        let screened = match http::parse(bytes, &settings.head) {
            Ok(Some(parsed)) => self.screen(conn, &parsed.head, &http::Upgrade::none(), now),
            Ok(None) => Some(Verdict::Refuse(Refusal::bad_request("the head is not complete"))),
            Err(refusal) => Some(Verdict::Refuse(refusal)),
        };
        self.table.get(conn).filter(|connection| connection.is_opening())?;
        Some(match screened {
            Some(Verdict::Refuse(refusal)) => Some(refusal),
            // Only pages of browsers are told by an upgrade, and there is none.
            Some(Verdict::Dismiss(why)) => Some(Refusal::unavailable(why.return_after())),
            Some(Verdict::Welcome) | None => None,
        })
    }

    /// Keeps more of a request that is gathered; false when the connection has none.
    pub(super) fn gather(&mut self, conn: ConnId, bytes: &[u8]) -> bool {
        let pending = self.gate.people.petitions.pending.get_mut(&conn.index);
        let Some(pending) = pending.filter(|pending| pending.conn == conn) else { return false };
        if pending.number.is_none() {
            let wanted = pending.length - pending.bytes.len();
            pending.bytes.extend_from_slice(&bytes[..bytes.len().min(wanted)]);
            if pending.bytes.len() == pending.length {
                self.send_petition(conn);
            }
        }
        true
    }

    /// Asserts that whoever is waited for is there, and not past its handshake.
    pub(super) fn check_petitions(&self) {
        self.check_memos();
        self.check_passages();
        self.check_carriers();
        self.gate.people.petitions.check(|conn| {
            let connection = self.table.peek(conn.index);
            let connection = connection.filter(|c| c.generation() == conn.generation);
            connection.is_some_and(Connection::is_opening)
        });
    }

    fn send_petition(&mut self, conn: ConnId) {
        let own = &mut self.gate.people.petitions;
        let Some(pending) = own.pending.get_mut(&conn.index) else { return };
        own.numbers += 1;
        let number = own.numbers;
        pending.number = Some(number);
        own.asked.insert(number, conn.index);
        let mut bytes = std::mem::take(&mut pending.bytes);
        // A page's address bar and another server's log are no places for what opens this door.
        self.settings.access.sources.withhold(&mut bytes);
        let from = self.identity.id;
        own.out.push_back(Petition { from, number, bytes });
        self.counters.petitions_total += 1;
    }

    /// The answer to a request, as a whole response. The client may be gone by now.
    pub(super) fn handle_answered(&mut self, number: u64, response: Vec<u8>, now: Time) {
        let Some(index) = self.gate.people.petitions.asked.get(&number) else { return };
        let Some(conn) = self.gate.people.petitions.pending.get(index).map(|pending| pending.conn)
        else {
            return;
        };
        self.respond(conn, response, now);
    }
}
