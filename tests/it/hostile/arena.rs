//! A program to be hostile to, and what must hold after each case.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::peer::{End, Peer};
use crate::admin::{ask, with_admin};
use crate::auth::{SECRET, token};
use crate::authority::Spoken;
use crate::process::Program;
use crate::support::{Client, PATIENCE, holds_within};
use crate::tls::client::{Files, SecureClient};

/// What all cases so far may leave behind in the process, in kilobytes of anonymous memory: heads and messages up
/// to their limits on both shards, and what the allocator keeps of them.
const MEMORY_KB: u64 = 16 * 1024;

/// What all cases so far may leave charged to the memory budget, in bytes: spare places of queues, which are given
/// back as time goes by, and nothing else.
const CHARGED: u64 = 64 * 1024;

/// By how many at once a cheap case is done, and how many times over once all have been done before.
pub(super) const CROWD: usize = 20;
const WAVES: usize = 5;

/// What a table may leave behind that is done so often, in kilobytes: ten for each time of one case would be more, and
/// so would a third of one for each time of all of thirty.
const REPEATED_KB: u64 = 1024;

/// Cases that send no more bytes than this are cheap.
pub(super) const CHEAP: usize = 8 * 1024;

/// What is zero when nobody is there.
const GAUGES: [&str; 34] = [
    "stream_connections",
    "packet_connections",
    "polling_connections",
    "deflate_connections",
    "history_rooms",
    "history_bytes",
    "waiting_to_be_stored",
    "replays",
    "restores",
    "remembered_ids",
    "authenticated_connections",
    "metadata_bytes",
    "users_online",
    "presence_watches",
    "presence_rooms",
    "parties",
    "counted_parties",
    "waiting_joins",
    "awaited_commands",
    "awaited_elsewhere",
    "everyone_waiting",
    "connections",
    "open_connections",
    "rooms",
    "memberships",
    "home_rooms",
    "queued_bytes",
    "parked_mail",
    "paused_connections",
    "tls_connections",
    "pending_tickets",
    "pending_questions",
    "held_commands",
    "petitions",
];

/// A row of a theme's table: what it is called, what is sent, what must come of it.
pub(super) type Case<'a> = (&'a str, Vec<u8>, End);

/// A running program, and what it was like before anybody was hostile.
pub(super) struct Arena {
    program: Program,
    admin: SocketAddr,
    memory: u64,
    charged: u64,
    /// Where it speaks TLS, and by which files.
    secure: Option<(SocketAddr, Files)>,
    /// What a fresh client shows, where it has to.
    bearer: Option<String>,
}

impl Arena {
    /// Starts a program that soon loses patience with who does not finish a handshake or a close. It waits for the
    /// rest of a message as long as by default: a peer of the tests that has to wait for the processor is not hostile.
    pub(super) fn open(driver: &str) -> Self {
        Self::start(driver, &[], None, None)
    }

    /// The same, which does not wait long for the rest of a message either.
    pub(super) fn open_impatient(driver: &str) -> Self {
        Self::start(driver, &["limits.message_timeout_ms=500".to_owned()], None, None)
    }

    /// The same, which speaks TLS too.
    pub(super) fn open_secure(driver: &str) -> Self {
        let files = Files::new();
        let [certificate, clients] = files.sets();
        let sets = ["tls.listen=127.0.0.1:0".to_owned(), certificate, clients];
        Self::start(driver, &sets, Some(files), None)
    }

    /// The same, where everybody must show a token in one of these places.
    pub(super) fn open_guarded(driver: &str, sources: &str) -> Self {
        let sets = [
            "auth.mode=token".to_owned(),
            format!("auth.secret={SECRET:?}"),
            "auth.require_expiry=false".to_owned(),
            format!("auth.sources={sources}"),
        ];
        let claims = json!({"sub": "fresh", "rooms": ["arena"]});
        Self::start(driver, &sets, None, Some(format!("Bearer {}", token(&claims))))
    }

    fn start(driver: &str, more: &[String], files: Option<Files>, bearer: Option<String>) -> Self {
        let [listen, key] = with_admin(r#""inspect""#);
        let driver = format!("server.driver={driver}");
        let own = [
            listen.as_str(),
            &key,
            &driver,
            "server.pin=false",
            "limits.handshake_timeout_ms=500",
            "limits.close_timeout_ms=500",
            "admin.requests_per_second=1000000",
            // What is said is to be judged by what it says, however fast it comes.
            "limits.messages_per_second=0",
            "limits.max_outstanding=65535",
            // So much that nobody is refused, and everybody is counted.
            "limits_address.max_connections=100000",
            "limits_user.max_connections=60000",
            "limits_tenant.max_connections=100000",
            "limits_tenant.max_rooms=100000",
        ];
        let own = own.into_iter().chain(more.iter().map(String::as_str));
        let sets: Vec<&str> = own.flat_map(|set| ["--set", set]).collect();
        let program = Program::start(&sets);
        let (_, rest) = program.said.split_once("admin on http://").unwrap();
        let admin = rest.lines().next().unwrap().parse().unwrap();
        let secure = files.map(|files| {
            let (_, rest) = program.said.split_once("wss://").expect("it says where");
            (rest.split('/').next().unwrap().parse().unwrap(), files)
        });
        let most = u64::MAX / 2;
        let mut arena = Self { program, admin, memory: most, charged: most, secure, bearer };
        arena.check("before all");
        arena.memory = arena.anonymous_kb();
        arena.charged = arena.counters()["charged_bytes"].as_u64().unwrap();
        arena
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.program.address
    }

    /// Where it speaks TLS, and by which files.
    pub(super) fn secure(&self) -> (SocketAddr, &Files) {
        let (address, files) = self.secure.as_ref().expect("a secure arena");
        (*address, files)
    }

    /// Runs a table whose cases send bytes on a fresh socket.
    pub(super) fn run_raw(&self, cases: Vec<Case<'_>>) {
        self.run(&cases, Peer::connect);
    }

    /// Runs a table whose cases send bytes after an upgrade.
    pub(super) fn run_upgraded(&self, cases: Vec<Case<'_>>) {
        self.run(&cases, Peer::upgraded);
    }

    fn run(&self, cases: &[Case<'_>], open: fn(SocketAddr) -> Peer) {
        for case in cases {
            self.crowd(1, case, open);
            self.check(case.0);
        }
        let first = cases.first().map_or("", |case| case.0);
        self.repeat(&format!("the table of {first:?}"), || self.wave(cases, open));
    }

    /// Does the same many times over, each time until nobody is there: it leaves nothing of what it does but
    /// [`REPEATED_KB`].
    pub(super) fn repeat(&self, what: &str, mut wave: impl FnMut()) {
        let mut whole = || {
            wave();
            self.await_calm(what);
        };
        // What a crowd needs at once the allocator keeps, so the first wave is not measured.
        whole();
        let before = self.anonymous_kb();
        (0..WAVES).for_each(|_| whole());
        let mut after = 0;
        let is_back = || {
            after = self.anonymous_kb();
            after <= before + REPEATED_KB
        };
        let holds = holds_within(PATIENCE, is_back);
        assert!(holds, "something is left of {what}: {before} kB before, {after} kB");
    }

    /// Does every cheap case of a table by a crowd.
    fn wave(&self, cases: &[Case<'_>], open: fn(SocketAddr) -> Peer) {
        for case in cases.iter().filter(|(_, bytes, _)| bytes.len() <= CHEAP) {
            self.crowd(CROWD, case, open);
        }
    }

    /// Does a case by so many at once.
    fn crowd(&self, count: usize, (name, bytes, end): &Case<'_>, open: fn(SocketAddr) -> Peer) {
        let mut peers: Vec<Peer> = (0..count).map(|_| open(self.address())).collect();
        peers.iter_mut().for_each(|peer| peer.send(bytes));
        peers.iter_mut().for_each(|peer| peer.expect(name, end));
    }

    /// A fresh client is served, and when it has gone nothing is left.
    pub(super) fn check(&self, after: &str) {
        self.serve(after);
        self.await_calm(after);
    }

    /// Waits until nobody is there and nothing is left of anybody.
    fn await_calm(&self, after: &str) {
        let most = self.charged + CHARGED;
        let mut left = Value::Null;
        let mut wrong = Vec::new();
        let calm = || {
            left = self.counters();
            wrong = GAUGES.into_iter().filter(|gauge| left[gauge] != json!(0)).collect();
            if left["charged_bytes"].as_u64().is_none_or(|bytes| bytes > most) {
                wrong.push("charged_bytes");
            }
            wrong.is_empty()
        };
        if !holds_within(PATIENCE, calm) {
            let wrong: Vec<_> = wrong.iter().map(|gauge| (gauge, &left[gauge])).collect();
            panic!("left after {after}, where {} bytes were charged: {wrong:?}", self.charged);
        }
        assert_eq!(left["panics_total"], json!(0), "after {after}");
        let memory = self.anonymous_kb();
        assert!(
            memory <= self.memory + MEMORY_KB,
            "{after}: {} kB before, {memory} kB",
            self.memory
        );
    }

    /// A fresh client is served, by every door there is.
    pub(super) fn serve(&self, after: &str) {
        let (mut author, mut reader) = (self.fresh(), self.fresh());
        author.join("arena");
        reader.join("arena");
        author.send(&json!({"type": "x", "room": "arena", "payload": after}));
        for client in [&mut author, &mut reader] {
            let push = client.next();
            assert_eq!((&push["type"], &push["payload"]), (&json!("x"), &json!(after)));
        }
        if let Some((address, files)) = &self.secure {
            for version in Spoken::BOTH {
                let config = std::sync::Arc::new(files.authority.client(version, None));
                SecureClient::connect(*address, &config).join("arena");
            }
        }
    }

    fn fresh(&self) -> Client {
        match &self.bearer {
            None => Client::connect(self.address()),
            Some(bearer) => {
                Client::connect_with(self.address(), "/ws", &[("authorization", bearer)])
            }
        }
    }

    pub(super) fn counters(&self) -> Value {
        let (status, text) = ask(self.admin, "GET /v1/counters", "");
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Ends the program in order; it has kept nothing.
    pub(super) fn close(self) {
        self.program.signal("-TERM");
        let (status, log) = self.program.end();
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(!log.contains("panic"), "{log}");
    }

    fn anonymous_kb(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.program.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}
