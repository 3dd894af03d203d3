//! A small desk that does what it is asked, in memory; a listener before it; and a client.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::admin::routes::Lock;
use crate::admin::{
    Admin, ApiKey, Census, Desk, Exposition, Jwks, Kind, Laggard, Later, Limits, Lookup,
    MemberSeen, Options, PresenceAsk, PresenceSeen, Receipt, Refused, Revocation, Scope, Standing,
    Ticket, TicketAsk, UserSeen,
};
use crate::base::id::{ConnAddress, ConnId, ShardId};
use crate::store::{self, Ask, Memory, Store as _};
use crate::sys::listener::{ListenOptions, listen};

pub(super) const PATIENCE: Duration = Duration::from_secs(20);
pub(super) const SECRET: &str = "a secret of the back end";

/// Numbers its tickets, keeps its revocations, and takes them when told to.
pub(super) struct SmallDesk {
    pub(super) tickets: AtomicU64,
    pub(super) told: Told,
    pub(super) takes: AtomicBool,
    pub(super) surveys: AtomicU64,
    pub(super) draining: AtomicBool,
    /// The number of keys of the last set.
    pub(super) keys: AtomicU64,
    pub(super) unknown: AtomicU64,
    store: Lock<Memory>,
    /// What the store says to everything, if it is to say no.
    pub(super) refusal: Lock<Option<store::Refused>>,
    /// Orders that somebody waits for.
    pub(super) open: AtomicU64,
    /// How often it was asked to post what waits.
    pub(super) posted: AtomicU64,
    pub(super) replies: Replies,
}

/// What it does with answers of back ends.
pub(super) struct Replies {
    /// How many it does not take yet, because shards are behind.
    pub(super) behind: AtomicU64,
    /// How many it has taken.
    pub(super) taken: AtomicU64,
}

/// Where it tells what it was asked.
pub(super) struct Told {
    revoked: Sender<Revocation>,
    asked: Sender<Asked>,
    pub(super) looked: Sender<(Option<String>, Lookup)>,
}

impl Census for SmallDesk {
    fn ask_presence(&self, tenant: Option<&str>, ask: &PresenceAsk) -> Result<u64, Refused> {
        let asked = (tenant.map(str::to_owned), ask.clone());
        self.told.asked.try_send(asked).map_err(|_| Refused::Busy)?;
        Ok(0)
    }

    /// One shard of two has answered by now, or both.
    fn presence(&self, number: u64) -> Option<PresenceSeen> {
        let is_taken = self.takes.load(Ordering::Relaxed);
        is_taken.then(|| PresenceSeen { missing: Vec::new(), ..self.part_of_presence(number) })
    }

    fn part_of_presence(&self, _: u64) -> PresenceSeen {
        let user =
            |name: &str, state, last_seen| UserSeen { user: name.to_owned(), state, last_seen };
        let connection = |index, user: Option<&str>| MemberSeen {
            client: ConnAddress::alone(ShardId(0), ConnId { index, generation: 7 }),
            user: user.map(str::to_owned),
            state: "online",
            connected: user.map(|_| 1_750_000_000_000),
            address: None,
            agent: None,
            meta: None,
        };
        PresenceSeen {
            users: vec![user("ada", "online", None), user("bob", "offline", Some(5))],
            members: 3,
            connections: vec![connection(1, Some("ada")), connection(2, None)],
            is_more: false,
            missing: vec![1],
            absent: None,
        }
    }
}

impl Desk for SmallDesk {
    fn standing(&self) -> Standing {
        let draining = self.draining.load(Ordering::Relaxed);
        Standing {
            reasons: if draining { vec!["draining"] } else { Vec::new() },
            degraded: Vec::new(),
        }
    }

    fn probe(&self) -> Result<Receipt, Refused> {
        Ok(Receipt(1))
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        vec![("tickets", self.tickets.load(Ordering::Relaxed))]
    }

    fn survey(&self) -> Result<Receipt, Refused> {
        Ok(Receipt(self.surveys.fetch_add(1, Ordering::Relaxed) + 1))
    }

    fn surveyed(&self, receipt: Receipt) -> Option<Vec<Laggard>> {
        let laggard = |at: u64| Laggard {
            conn: format!("0-{at}-{}", receipt.0),
            tenant: None,
            user: (at == 30).then(|| "ada".to_owned()),
            waiting: at * 100,
            rooms: 2,
            life: Duration::from_millis(3500),
        };
        self.takes.load(Ordering::Relaxed).then(|| (1..=30).map(laggard).collect())
    }

    fn expose(&self, out: &mut Exposition) {
        let tickets = self.tickets.load(Ordering::Relaxed);
        out.family("tickets_total", Kind::Counter, "Tickets.").sample(&[], tickets);
    }

    fn mint(&self, ask: &TicketAsk) -> Result<Ticket, Refused> {
        let number = self.tickets.fetch_add(1, Ordering::Relaxed);
        let tenant = ask.tenant.as_deref().unwrap_or("none");
        let rooms = ask.rooms.as_ref().map_or("none", |rooms| rooms.get());
        if rooms == "7" {
            return Err(Refused::Field { name: "rooms", why: "expected patterns".to_owned() });
        }
        let ttl = ask.ttl.unwrap_or(Duration::from_secs(60));
        Ok(Ticket {
            text: format!("{number}/{tenant}/{}/{rooms}", ask.user),
            expires_unix_ms: u64::try_from(ttl.as_millis()).expect("a time"),
            everywhere: None,
        })
    }

    fn revoke(&self, revocation: &Revocation) -> Result<(Receipt, Later), Refused> {
        self.told.revoked.try_send(revocation.clone()).map_err(|_| Refused::Busy)?;
        let (tell, later) = oneshot::channel();
        let refused = self.refusal.lock().expect("no panic").clone();
        tell.send(refused.map_or(Ok(store::Answer::Done), Err)).expect("somebody listens");
        Ok((Receipt(1), later))
    }

    fn owner(&self, tenant: Option<&str>, user: &str) -> Arc<str> {
        format!("{}/{user}", tenant.unwrap_or_default()).into()
    }

    fn keep(&self, ask: Ask, reached: Option<oneshot::Sender<u64>>) -> Result<Later, Refused> {
        let (tell, later) = oneshot::channel();
        let refused = self.refusal.lock().expect("no panic").clone();
        if refused == Some(store::Refused::Busy) {
            return Err(Refused::Store(store::Refused::Busy));
        }
        let outcome = match refused {
            Some(refused) => Err(refused),
            None => {
                self.store.lock().expect("no panic").commit(&[ask], 1).expect("memory").remove(0)
            }
        };
        if let Some(reached) = reached {
            reached.send(3).expect("somebody listens");
        }
        tell.send(outcome).expect("somebody listens");
        Ok(later)
    }

    fn take_keys(&self, document: &[u8]) -> Result<usize, String> {
        let set: Value = serde_json::from_slice(document).map_err(|error| error.to_string())?;
        let keys = set["keys"].as_array().ok_or("expected keys")?.len();
        self.keys.store(keys as u64, Ordering::Relaxed);
        Ok(keys)
    }

    fn unknown_keys(&self) -> u64 {
        self.unknown.load(Ordering::Relaxed)
    }

    fn is_taken(&self, _: Receipt) -> bool {
        self.takes.load(Ordering::Relaxed)
    }

    fn shards(&self) -> usize {
        2
    }
}

/// A question about presence, and whose tenant it is about.
pub(super) type Asked = (Option<String>, PresenceAsk);

/// A running listener and the desk behind it.
pub(super) struct Office {
    pub(super) admin: Admin,
    pub(super) options: Options,
    pub(super) desk: Arc<SmallDesk>,
    pub(super) revoked: Receiver<Revocation>,
    pub(super) asked: Receiver<Asked>,
    pub(super) looked: Receiver<(Option<String>, Lookup)>,
}

impl Office {
    pub(super) fn open() -> Self {
        Self::with(Limits::default())
    }

    pub(super) fn with(limits: Limits) -> Self {
        Self::given(limits, None)
    }

    pub(super) fn given(limits: Limits, jwks: Option<Jwks>) -> Self {
        let all = [Scope::Tickets, Scope::Revoke, Scope::Inspect, Scope::Notify, Scope::Publish];
        let keys = vec![
            ApiKey::new("all", SECRET, &all, None),
            ApiKey::new("counts", "a secret for counting", &[Scope::Inspect], None),
            ApiKey::new("acme", "a secret of one tenant", &all, Some("acme")),
        ];
        let (tell, revoked) = bounded(4);
        let (ask, asked) = bounded(4);
        let (look, looked) = bounded(4);
        let (age_ms, seen_age_ms) = (1000, 1000);
        let kept = store::Limits { count: 5, bytes: 1000, age_ms, seen_age_ms, revocations: 4 };
        let desk = Arc::new(SmallDesk {
            tickets: AtomicU64::new(0),
            told: Told { revoked: tell, asked: ask, looked: look },
            takes: AtomicBool::new(true),
            surveys: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            keys: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            store: Lock::new(Memory::new(kept, 1 << 20)),
            refusal: Lock::default(),
            open: AtomicU64::new(0),
            posted: AtomicU64::new(0),
            replies: Replies { behind: AtomicU64::new(u64::MAX), taken: AtomicU64::new(0) },
        });
        let any = "127.0.0.1:0".parse().expect("an address");
        let socket = listen(any, &ListenOptions::default()).expect("a listener");
        let behind: Arc<dyn Desk> = Arc::<SmallDesk>::clone(&desk);
        let options = Options { keys, limits, jwks, ..Options::default() };
        let admin = Admin::start(Some(socket), behind, options.clone()).expect("a thread");
        Self { admin, options, desk, revoked, asked, looked }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.admin.address().expect("a listener")
    }

    pub(super) fn get(&self, path: &str, secret: &str) -> Answer {
        let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\n");
        exchange(self.address(), &format!("{head}{}\r\n", bearer(secret)))
    }

    pub(super) fn post(&self, path: &str, secret: &str, body: &str) -> Answer {
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n", body.len());
        exchange(self.address(), &format!("{head}{}\r\n{body}", bearer(secret)))
    }
}

pub(super) fn bearer(secret: &str) -> String {
    if secret.is_empty() {
        return String::new();
    }
    format!("Authorization: Bearer {secret}\r\n")
}

/// A response.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }

    /// The status with the code of the error and the field it blames.
    pub(super) fn error(&self) -> (u16, String, Option<String>) {
        let error = &self.json()["error"];
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{self:?}");
        let field = error["field"].as_str().map(str::to_owned);
        (self.status, error["code"].as_str().expect("a code").to_owned(), field)
    }
}

/// Sends a request and reads its answer; an empty one when the connection was closed without.
pub(super) fn exchange(address: SocketAddr, request: &str) -> Answer {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    // An answer may come and the connection end before everything was read.
    let _ = stream.write_all(request.as_bytes());
    answer(&mut stream)
}

pub(super) fn answer(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let lower = head.to_ascii_lowercase();
            let length = lower.split_once("content-length: ").map_or("0", |(_, rest)| rest);
            let length = length.lines().next().unwrap_or("0").parse().expect("a length");
            if body.len() >= length {
                let status = head.split(' ').nth(1).unwrap_or("0").parse().expect("a status");
                return Answer { status, head: lower, body: body.to_owned() };
            }
        }
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return Answer { status: 0, head: String::new(), body: text },
            Ok(read) => bytes.extend_from_slice(&piece[..read]),
        }
    }
}
