//! A program to be hostile to, and what must hold after each case.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::peer::{End, Peer};
use crate::admin::{ask, with_admin};
use crate::auth::{SECRET, token};
use crate::authority::Spoken;
use crate::process::Program;
use crate::support::{Client, wait_until};
use crate::tls::client::{Files, SecureClient};

/// What a theme may leave behind in the process, in kilobytes of anonymous memory: heads and messages up
/// to their limits on both shards, and what the allocator keeps of them.
const MEMORY_KB: u64 = 16 * 1024;

/// What is zero when nobody is there.
const GAUGES: [&str; 13] = [
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
    /// Where it speaks TLS, and by which files.
    secure: Option<(SocketAddr, Files)>,
    /// What a fresh client shows, where it has to.
    bearer: Option<String>,
}

impl Arena {
    /// Starts a program that loses patience soon.
    pub(super) fn open(driver: &str) -> Self {
        Self::start(driver, &[], None, None)
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
            "limits.message_timeout_ms=500",
            "limits.close_timeout_ms=500",
            "admin.requests_per_second=1000000",
            // What is said is to be judged by what it says, however fast it comes.
            "limits.messages_per_second=0",
            "limits.max_outstanding=65535",
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
        let mut arena = Self { program, admin, memory: 0, secure, bearer };
        arena.check("before all");
        arena.memory = arena.anonymous_kb();
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
        for (name, bytes, end) in cases {
            let mut peer = Peer::connect(self.address());
            peer.send(&bytes);
            peer.expect(name, &end);
            drop(peer);
            self.check(name);
        }
    }

    /// Runs a table whose cases send bytes after an upgrade.
    pub(super) fn run_upgraded(&self, cases: Vec<Case<'_>>) {
        for (name, bytes, end) in cases {
            let mut peer = Peer::upgraded(self.address());
            peer.send(&bytes);
            peer.expect(name, &end);
            drop(peer);
            self.check(name);
        }
    }

    /// A fresh client is served, and when it has gone nothing is left.
    pub(super) fn check(&self, after: &str) {
        self.serve(after);
        let mut left = Value::Null;
        wait_until(&format!("nothing is left after {after}"), || {
            left = self.counters();
            GAUGES.iter().all(|gauge| left[gauge] == json!(0))
        });
        assert_eq!(left["panics_total"], json!(0), "after {after}");
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
        let memory = self.anonymous_kb();
        let before = self.memory;
        assert!(memory <= before + MEMORY_KB, "{before} kB before, {memory} kB after");
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
