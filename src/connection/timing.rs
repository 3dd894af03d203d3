//! What a connection is due, asked when its place in the wheel comes up.
//!
//! Deadlines are lazy: bytes that arrive and frames that are queued only leave a tick behind, and the
//! true deadline is computed when the wheel fires. For that to find every deadline in time, no
//! connection sleeps in the wheel for longer than the shortest of its limits.

use std::time::Duration;

use crate::auth::TokenError;
use crate::base::time::Tick;
use crate::connection::disconnect::Disconnect;
use crate::connection::record::{Connection, Open, Phase};
use crate::flow::heartbeat::{self, Beat, HeartbeatOptions};
use crate::flow::outbound::Store;
use crate::session::Session;

/// How long a connection may take for what. Zero disables a limit where it says so.
#[derive(Clone, Debug)]
pub struct Timeouts {
    /// From accept to a complete request head.
    pub handshake: Duration,
    /// From the handshake to the first message, where that is to say who the client is.
    pub login: Duration,
    /// From the first byte of a message to its last.
    pub message: Duration,
    /// The same at the echo path.
    pub echo_message: Duration,
    /// From the begin of the end to the release of the descriptor.
    pub close: Duration,
    /// Without any data message from the client; zero: for ever.
    pub idle: Duration,
    /// The oldest item in the outbound queue.
    pub queue_age: Duration,
    /// How long a client of Socket.IO that was lost may come back to its rooms; zero: it may not.
    pub recall: Duration,
    /// The heartbeat.
    pub heartbeat: HeartbeatOptions,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing before this tick.
    Nothing(Tick),
    /// A ping now, and nothing else before this tick.
    Ping(Tick),
    /// The end, for this reason.
    End(Disconnect),
    /// The end has taken too long.
    Release,
}

/// How often a request is answered that holds up a change of transport.
const URGE: Duration = Duration::from_millis(100);

impl Timeouts {
    /// The longest that an open connection may sleep in the wheel.
    #[must_use]
    pub fn longest_sleep(&self) -> Duration {
        let idle = if self.idle.is_zero() { Duration::MAX } else { self.idle };
        self.message.min(self.echo_message).min(self.queue_age).min(idle)
    }

    /// When a connection that opened at `now` is first looked at, placed by `jitter`, any random number.
    /// That look asks for the first ping, which sets the phase of all later ones; so it is spread even
    /// when it cannot wait for the heartbeat.
    #[must_use]
    pub fn first(&self, now: Tick, jitter: u32) -> Tick {
        let interval = self.heartbeat.interval.min(self.longest_sleep());
        let spread = HeartbeatOptions { interval, ..self.heartbeat.clone() };
        heartbeat::first(now, &spread, jitter)
    }
}

impl Connection {
    /// What is due at `now`. A ping that is due counts as sent from here on.
    pub fn handle_timeout(&mut self, now: Tick, timeouts: &Timeouts, queues: &Store) -> Due {
        let mid_message = self.decoder.is_mid_message();
        let oldest = self.outbound.oldest(queues);
        match self.phase() {
            Phase::Opening { .. } => {
                let deadline = self.since.plus(timeouts.handshake);
                if deadline <= now {
                    return Due::End(Disconnect::HandshakeTimeout);
                }
                return Due::Nothing(deadline);
            }
            Phase::Closing(closing) if closing.deadline > now => {
                return Due::Nothing(closing.deadline);
            }
            Phase::Closing(_) => return self.handle_late_close(now.plus(timeouts.close)),
            Phase::Open(_) => {}
        }
        // While we do not read, silence says nothing about the peer; the queue's age and the kernel's
        // user timeout watch over it instead. A pause that has ended since the last look counts like one
        // that lasts: what the peer sent meanwhile may still lie unread in the kernel.
        let was_paused = self.take_was_paused();
        if was_paused {
            (self.last_seen, self.since) = (now, now);
        }
        let (mut last_seen, since) = (self.last_seen, self.since);
        let (is_stream, packets) = (self.is_stream(), self.speaks_packets());
        let Some(open) = self.open_mut() else { return Due::Nothing(now) };
        if was_paused {
            open.active = now;
        }
        if let Some(due) = early(open, now, timeouts) {
            return due;
        }
        if packets && last_seen >= open.pinged {
            // Its client counts on a ping in each interval, whatever else it says and hears.
            last_seen = open.pinged;
        }
        if is_stream {
            // Nobody answers a comment: each counts as answered, and a peer that is gone shows by what the
            // kernel cannot deliver (TCP_USER_TIMEOUT).
            last_seen = last_seen.max(open.pinged);
        }
        let may_idle = timeouts.idle.is_zero() || is_stream;
        let echoes = open.session == Session::Echo;
        let message = if echoes { timeouts.echo_message } else { timeouts.message };
        let mut next = now.plus(timeouts.longest_sleep());
        let deadlines = [
            mid_message.then(|| (since.plus(message), Disconnect::MessageTimeout)),
            oldest.map(|since| (since.plus(timeouts.queue_age), Disconnect::SlowConsumer)),
            (!may_idle).then(|| (open.active.plus(timeouts.idle), Disconnect::Idle)),
        ];
        for (deadline, why) in deadlines.into_iter().flatten() {
            if deadline <= now {
                return Due::End(why);
            }
            next = next.min(deadline);
        }
        beat(open, last_seen, now, next, &timeouts.heartbeat)
    }
}

impl Connection {
    /// Patience with a closing connection has ended, unless the delay is the shard's own: what waits for
    /// its turn to be written, the FIN included, waits for nothing the peer could do, so the time begins
    /// again.
    fn handle_late_close(&mut self, again: Tick) -> Due {
        let waits = !self.outbound.is_empty() || self.is_flushed();
        let is_ours = self.is_enlisted() && waits && !self.outbound.in_flight();
        match self.closing_mut() {
            Some(closing) if is_ours => {
                closing.deadline = again;
                Due::Nothing(again)
            }
            _ => Due::Release,
        }
    }
}

/// What is due where the client has yet to say who it is, or is to be answered once.
fn early(open: &Open, now: Tick, timeouts: &Timeouts) -> Option<Due> {
    let (wait, end) = match open.session {
        Session::Page | Session::Probe => (timeouts.handshake, Disconnect::HandshakeTimeout),
        Session::Knock => (timeouts.login, Disconnect::Idle),
        // It has said nothing since it came, so that was when it was last active.
        Session::Login => (timeouts.login, Disconnect::Denied(TokenError::Missing)),
        Session::Json(_) | Session::Events | Session::Echo => return None,
    };
    let deadline = open.active.plus(wait);
    if deadline <= now {
        return Some(Due::End(end));
    }
    let is_probe = open.session == Session::Probe;
    Some(Due::Nothing(if is_probe { deadline.min(now.plus(URGE)) } else { deadline }))
}

fn beat(open: &mut Open, seen: Tick, now: Tick, next: Tick, options: &HeartbeatOptions) -> Due {
    match heartbeat::decide(seen, open.pinged, now, options) {
        Beat::Wait(until) => Due::Nothing(until.min(next)),
        Beat::Ping(until) => {
            open.pinged = now;
            Due::Ping(until.min(next))
        }
        Beat::Dead => Due::End(Disconnect::HeartbeatLost),
    }
}
