//! A store in a Redis that several nodes share: whichever of them is asked, it knows what all have kept.
//!
//! The rows are those of the other stores, and so are the rules. They lie in a hash, and their keys in a sorted set, which
//! gives them their order. A transaction notes what it has read and keeps what it would write; in the end one script
//! looks whether what was read still stands so, and writes all or nothing. When another node was faster it is done again from
//! the start. Everything that changes an inbox changes its head, so a head that still stands says that nobody was faster.
//!
//! What is durable when a transaction returns is what Redis makes of it (`appendonly yes`, `appendfsync always`: on its disk),
//! and where so many replicas are to have it, those have it (`WAIT`). Where the connection breaks in the middle of writing
//! nobody knows whether it was done; then it is told as a fault, and whoever asks again under the same name brings nothing
//! twice. Whatever Redis says was not done is done again, elsewhere or a little later, and so is what was only read
//! (`again`).
//!
//! All rows of all users have one tag, `{store}`, and so lie on one server of a cluster: a transaction is of many users, and
//! some walk over all of them.
//!
//! A process says of itself that it lives and who is here, and numbers its rooms itself; so these rows are each node's own,
//! under its name, and it settles and recalls no others. One that has begun without reading what it had kept of rooms, as
//! Redis was away, numbers them anew: then what was kept is forgotten as soon as Redis is there, as whoever came back to it
//! later would miss in silence what was said since.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::time::Duration;

use redis::{Connection, FromRedisValue, RedisError, RedisResult};

use super::again::{Again, Then};
use super::ask::{Answer, Ask, Fault, Limits, Outcome};
use super::rooms;
use super::rows::{ALIVE_KEY, HEAD, HERE, PUBLICATION, REVOKED, ROOM, SEEN, of_numbers};
use super::table::{self, Row, Store, Table};

/// How often a transaction is done again because another node was faster.
const ATTEMPTS: u32 = 100;
/// Rows that one transaction reads or writes before another begins.
const ROWS: usize = 1024;
/// The kinds of rows that are each node's own.
const OWN: [u8; 3] = [HERE, ROOM, PUBLICATION];
/// What is done when nothing was written yet.
const READING: &str = "reading";
/// Rows in the first page of a scan, as most want to see one, and in the later ones.
const FIRST_PAGE: usize = 2;
const PAGE: usize = 256;

/// The rows from one key up to another, so many: their keys, and their values.
const SCAN: &str = "\
local keys = redis.call('ZRANGEBYLEX', KEYS[2], ARGV[1], ARGV[2], 'LIMIT', 0, tonumber(ARGV[3]))
if #keys == 0 then return {{}, {}} end
return {keys, redis.call('HMGET', KEYS[1], unpack(keys))}";

/// Writes, if what was read still stands so; 1 when it did.
const WRITE: &str = "\
local at = 2
for _ = 1, tonumber(ARGV[1]) do
  local now = redis.call('HGET', KEYS[1], ARGV[at])
  if ARGV[at + 1] == '1' then
    if now ~= ARGV[at + 2] then return 0 end
  elseif now then
    return 0
  end
  at = at + 3
end
while at <= #ARGV do
  if ARGV[at + 1] == '1' then
    redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 2])
    redis.call('ZADD', KEYS[2], 0, ARGV[at])
  else
    redis.call('HDEL', KEYS[1], ARGV[at])
    redis.call('ZREM', KEYS[2], ARGV[at])
  end
  at = at + 3
end
return 1";

/// Makes connections about the keys of a store; whatever is waited for may take so long.
pub type Open = Box<dyn FnMut(Duration) -> RedisResult<Connection> + Send>;

/// How a store in Redis is worked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Care {
    /// How long a connection, and a command, may take.
    pub patience: Duration,
    /// How many replicas have what is written before it is acknowledged.
    pub replicas: u16,
}

/// Keeps everything in Redis.
pub struct Shared {
    connect: Open,
    care: Care,
    limits: Limits,
    names: Names,
    /// What this node had kept of rooms was read, or is forgotten.
    knows_rooms: bool,
    /// `None` before the first transaction, and after a fault.
    open: Option<Connection>,
}

/// What things are called.
struct Names {
    rows: String,
    index: String,
    /// This node's, in rows of its own: behind their kind and before the rest.
    node: Vec<u8>,
}

impl Names {
    fn own(&self, kind: u8) -> Vec<u8> {
        [&[kind], &self.node[..], &[0]].concat()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("rows", &self.names.rows).finish_non_exhaustive()
    }
}

impl Shared {
    /// The first of the two keys of a store whose keys begin with `prefix`; the other is in the same slot of a cluster.
    #[must_use]
    pub fn key(prefix: &str) -> String {
        format!("{prefix}:{{store}}:rows")
    }

    /// A store with `prefix` before the names of its keys, for the node of that name. Nothing is connected yet.
    #[must_use]
    pub fn new(connect: Open, prefix: &str, node: &str, limits: Limits, care: Care) -> Self {
        let names = Names {
            rows: Self::key(prefix),
            index: format!("{prefix}:{{store}}:index"),
            node: node.as_bytes().to_vec(),
        };
        Self { connect, care, limits, names, knows_rooms: false, open: None }
    }

    /// Does the first of the asks, as many as a transaction takes; `None` when another node was faster.
    fn part(
        &self,
        connection: &mut Connection,
        asks: &[Ask],
        now: u64,
    ) -> Result<Option<Vec<Outcome>>, (Fault, Then)> {
        let mut rows = Rows::of(&self.names, connection);
        let mut answer = || {
            let (mut part, mut forgets) = (Vec::new(), !self.knows_rooms);
            for ask in asks {
                if forgets && matches!(ask, Ask::Alive | Ask::Save(_)) {
                    rooms::forget_all(&mut rows)?;
                    forgets = false;
                }
                part.push(table::answer(&mut rows, ask, &self.limits, now)?);
                if rows.cost() >= ROWS {
                    break;
                }
            }
            // What was kept before may have been kept a moment ago: then replicas may not have it.
            let is_repeat = |outcome: &Outcome| matches!(outcome, Ok(Answer::Appended(known)) if known.repeated);
            if self.care.replicas > 0 && part.iter().any(is_repeat) {
                rows.put(ALIVE_KEY, &of_numbers([now]))?;
            }
            let is_written = rows.write()?;
            if is_written && self.care.replicas > 0 && !rows.written.is_empty() {
                rows.wait_for_replicas(self.care)?;
            }
            Ok(is_written.then_some(part))
        };
        let done = answer();
        done.map_err(|fault| (fault, rows.then.get()))
    }
}

impl Store for Shared {
    fn commit(&mut self, asks: &[Ask], now: u64) -> Result<Vec<Outcome>, Fault> {
        let mut outcomes = Vec::with_capacity(asks.len());
        let (mut again, mut failed) = (Again::new(self.care.patience), 0);
        while outcomes.len() < asks.len() {
            let is_old = self.open.is_some();
            let mut connection = match self.open.take() {
                Some(connection) => connection,
                None => (self.connect)(self.care.patience)
                    .map_err(|error| fault("connecting", &error))?,
            };
            match self.part(&mut connection, &asks[outcomes.len()..], now) {
                Ok(Some(mut part)) => {
                    let done = asks[outcomes.len()..].iter().zip(&part);
                    self.knows_rooms |= { done }.any(|(ask, outcome)| match outcome {
                        Ok(Answer::Rooms { next, .. }) => next.is_none(),
                        _ => matches!(ask, Ask::Alive | Ask::Save(_)),
                    });
                    outcomes.append(&mut part);
                    failed = 0;
                }
                Ok(None) => failed += 1,
                Err((_, then)) if again.may(then, is_old) => {
                    if then != Then::Later {
                        continue;
                    }
                }
                Err((fault, _)) => return Err(fault),
            }
            self.open = Some(connection);
            if failed >= ATTEMPTS {
                let why = "other nodes write to the same inboxes all the time";
                return Err(Fault(format!("the store in Redis: writing: {why}")));
            }
        }
        Ok(outcomes)
    }
}

fn fault(what: &str, why: &RedisError) -> Fault {
    Fault(format!("the store in Redis: {what}: {why}"))
}

/// The rows of a transaction. Keys are those in Redis.
struct Rows<'s> {
    names: &'s Names,
    connection: RefCell<&'s mut Connection>,
    /// What was read, and has to stand so in the end.
    read: RefCell<BTreeMap<Vec<u8>, Option<Vec<u8>>>>,
    /// What was met in passing, and has to stand so if it is written.
    met: RefCell<BTreeMap<Vec<u8>, Vec<u8>>>,
    written: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// What can be done about the latest fault.
    then: Cell<Then>,
}

impl<'s> Rows<'s> {
    fn of(names: &'s Names, connection: &'s mut Connection) -> Self {
        Self {
            names,
            connection: RefCell::new(connection),
            read: RefCell::default(),
            met: RefCell::default(),
            written: BTreeMap::new(),
            then: Cell::new(Then::Nothing),
        }
    }

    fn cost(&self) -> usize {
        self.read.borrow().len() + self.written.len()
    }

    /// The key in Redis.
    fn outer(&self, key: &[u8]) -> Vec<u8> {
        match key.split_first() {
            Some((kind, rest)) if OWN.contains(kind) => [&self.names.own(*kind), rest].concat(),
            _ if key == ALIVE_KEY => [key, &self.names.own(HERE)].concat(),
            _ => key.to_vec(),
        }
    }

    /// The key in Redis before which a range ends. One of a single kind of the node's own ends with these.
    fn outer_end(&self, from: &[u8], below: &[u8]) -> Vec<u8> {
        match (from, below) {
            ([kind, ..], [end]) if OWN.contains(kind) && *end == kind + 1 => {
                [&[*kind], &self.names.node[..], &[1]].concat()
            }
            (_, [_]) => below.to_vec(),
            _ => self.outer(below),
        }
    }

    /// The key by which the rules know it; none for what is another node's own.
    fn inner(&self, key: &[u8]) -> Option<Vec<u8>> {
        match key.first() {
            Some(kind) if OWN.contains(kind) => {
                Some([&[*kind], key.strip_prefix(self.names.own(*kind).as_slice())?].concat())
            }
            _ => Some(key.to_vec()),
        }
    }

    fn ask<T: FromRedisValue>(&self, what: &str, command: &redis::Cmd) -> Result<T, Fault> {
        let mut connection = self.connection.borrow_mut();
        command.query(&mut **connection).map_err(|error| {
            self.then.set(Then::after(&error, what == READING));
            fault(what, &error)
        })
    }

    fn script(&self, text: &str) -> redis::Cmd {
        let mut command = redis::cmd("EVAL");
        command.arg(text).arg(2).arg(&self.names.rows).arg(&self.names.index);
        command
    }

    fn page(&self, from: &[u8], below: &[u8], most: usize) -> Result<Vec<Row>, Fault> {
        let mut command = self.script(SCAN);
        command.arg(from).arg([b"(", below].concat()).arg(most);
        let (keys, values): (Vec<Vec<u8>>, Vec<Option<Vec<u8>>>) = self.ask(READING, &command)?;
        Ok(keys.into_iter().zip(values.into_iter().map(Option::unwrap_or_default)).collect())
    }

    /// What was met in passing is written, and so has to stand as it did.
    fn note(&mut self, key: &[u8]) {
        if let Some(value) = self.met.get_mut().remove(key) {
            self.read.get_mut().entry(key.to_vec()).or_insert(Some(value));
        }
    }

    /// Writes everything; false when something that was read is not so any more.
    fn write(&mut self) -> Result<bool, Fault> {
        let (read, written) = (self.read.get_mut(), &self.written);
        if read.len() + written.len() == 0 {
            return Ok(true);
        }
        let pairs: Vec<_> = read.iter().chain(written).collect();
        let count = read.len();
        let mut command = redis::cmd("EVAL");
        command.arg(WRITE).arg(2).arg(&self.names.rows).arg(&self.names.index).arg(count);
        for (key, value) in pairs {
            let is_there = if value.is_some() { "1" } else { "0" };
            command.arg(key.as_slice()).arg(is_there).arg(value.as_deref().unwrap_or_default());
        }
        let done: u8 = self.ask("writing", &command)?;
        Ok(done == 1)
    }

    /// Waits until so many replicas have what was written.
    fn wait_for_replicas(&self, care: Care) -> Result<(), Fault> {
        // Less than the connection waits for an answer.
        let millis = u64::try_from(care.patience.as_millis()).unwrap_or(u64::MAX) / 4 * 3;
        let mut command = redis::cmd("WAIT");
        command.arg(care.replicas).arg(millis.max(1));
        let have: u16 = self.ask("waiting for replicas", &command)?;
        if have >= care.replicas {
            return Ok(());
        }
        let most = care.replicas;
        Err(Fault(format!("the store in Redis: {have} replicas have it, and {most} were to")))
    }
}

impl Table for Rows<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        let key = self.outer(key);
        if let Some(value) = self.written.get(&key) {
            return Ok(value.clone());
        }
        if let Some(value) = self.read.borrow().get(&key) {
            return Ok(value.clone());
        }
        let mut command = redis::cmd("HGET");
        command.arg(&self.names.rows).arg(&key);
        let value: Option<Vec<u8>> = self.ask(READING, &command)?;
        self.read.borrow_mut().insert(key, value.clone());
        Ok(value)
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        let key = self.outer(key);
        self.note(&key);
        self.written.insert(key, Some(value.to_vec()));
        Ok(())
    }

    fn remove(&mut self, key: &[u8]) -> Result<(), Fault> {
        let key = self.outer(key);
        self.note(&key);
        self.written.insert(key, None);
        Ok(())
    }

    fn scan(
        &self,
        from: &[u8],
        below: &[u8],
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), Fault> {
        let below = self.outer_end(from, below);
        let (mut from, mut sign, mut most) = (self.outer(from), b"[".as_slice(), FIRST_PAGE);
        while from < below {
            let page = self.page(&[sign, &from].concat(), &below, most)?;
            let last = page.last().filter(|_| page.len() == most).map(|(key, _)| key.clone());
            let mut rows: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
            for (key, value) in page {
                if matches!(key.first(), Some(&(HEAD | SEEN | HERE | REVOKED | ROOM))) {
                    self.met.borrow_mut().insert(key.clone(), value.clone());
                }
                rows.insert(key, Some(value));
            }
            // What this transaction has written lies among them, up to where the page ends.
            let begin = if sign == b"[" { Bound::Included(&from) } else { Bound::Excluded(&from) };
            let end = last.as_ref().map_or(Bound::Excluded(&below), Bound::Included);
            let own = self.written.range::<Vec<u8>, _>((begin, end));
            rows.extend(own.map(|(key, value)| (key.clone(), value.clone())));
            for (key, value) in &rows {
                if let (Some(key), Some(value)) = (self.inner(key), value)
                    && !each(&key, value)
                {
                    return Ok(());
                }
            }
            let Some(last) = last else { return Ok(()) };
            (from, sign, most) = (last, b"(", PAGE);
        }
        Ok(())
    }

    /// Redis says itself when it is full.
    fn has_space(&self, _: u64) -> bool {
        true
    }
}
