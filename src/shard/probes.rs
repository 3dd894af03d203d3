//! WebSockets that may become the transport of a session that polls: how far each has come.
//!
//! A client of Socket.IO begins by long polling and tries a WebSocket beside it. On that it asks a question (`2probe`),
//! which is answered (`3probe`); then it lets its requests come to their end, and says that the session goes on here
//! (`5`). Until it has said that, the session is what it was, and whatever becomes of the WebSocket is nothing to it. Once
//! it has, requests say and bring nothing any more, and what the session says waits until its socket is the WebSocket's.
//! There is one at a time of each session. Nothing here acts; `upgrades` does.

use crate::base::id::ConnId;
use crate::base::map::{Map, Seed};

/// How far a WebSocket has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its handshake is done.
    Opened,
    /// Its question is answered.
    Answered,
    /// The session goes on by it as soon as its socket is free.
    Switching,
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    /// The WebSocket.
    conn: ConnId,
    session: ConnId,
    stage: Stage,
}

/// The WebSockets that are tried.
#[derive(Debug)]
pub(super) struct Probes {
    /// By the sessions' places.
    probes: Map<u32, Probe>,
    /// The sessions' places, by the WebSockets'.
    sessions: Map<u32, u32>,
}

impl Probes {
    pub(super) fn new(seed: &Seed) -> Self {
        Self { probes: seed.map(), sessions: seed.map() }
    }

    /// A WebSocket is tried for a session that has none.
    pub(super) fn begin(&mut self, conn: ConnId, session: ConnId) {
        let before =
            self.probes.insert(session.index, Probe { conn, session, stage: Stage::Opened });
        assert!(before.is_none(), "a second WebSocket for {before:?}");
        self.sessions.insert(conn.index, session.index);
    }

    /// The session that this WebSocket is tried for, and how far it has come.
    pub(super) fn session(&self, conn: ConnId) -> Option<(ConnId, Stage)> {
        let probe = self.probes.get(self.sessions.get(&conn.index)?)?;
        (probe.conn == conn).then_some((probe.session, probe.stage))
    }

    /// The WebSocket that is tried for this session, and how far it has come.
    pub(super) fn of(&self, session: ConnId) -> Option<(ConnId, Stage)> {
        let probe = self.probes.get(&session.index)?;
        (probe.session == session).then_some((probe.conn, probe.stage))
    }

    /// It has come so far.
    pub(super) fn advance(&mut self, session: ConnId, stage: Stage) {
        if let Some(probe) = self.probes.get_mut(&session.index) {
            probe.stage = stage;
        }
    }

    /// Nothing is tried for this session any more. The WebSocket that was.
    pub(super) fn end(&mut self, session: ConnId) -> Option<(ConnId, Stage)> {
        let found = self.of(session)?;
        self.probes.remove(&session.index);
        self.sessions.remove(&found.0.index);
        Some(found)
    }

    /// Asserts that all are there who are spoken of.
    ///
    /// # Panics
    /// When somebody is not.
    pub(super) fn check(&self, is_there: impl Fn(ConnId) -> bool, polls: impl Fn(ConnId) -> bool) {
        assert_eq!(self.probes.len(), self.sessions.len(), "WebSockets and sessions");
        for probe in self.probes.values() {
            assert!(polls(probe.session), "a WebSocket for no session: {probe:?}");
            assert!(is_there(probe.conn), "a session waits for nobody: {probe:?}");
            let back = self.sessions.get(&probe.conn.index);
            assert_eq!(back, Some(&probe.session.index), "a WebSocket without a session");
        }
    }
}
