//! What a back end answers to events: publications of its own.
//!
//! Only a back end that was given a voice is listened to; what it says is read behind the [`Publisher`], each
//! publication by itself, so that a wrong one silences no other. None is tried again. While shards are behind
//! an answer waits, and the back end's next events with it, but no longer than an answer may take; so nothing
//! is ever gathered here.
//!
//! [`Publisher`]: super::Publisher

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::client::Failure;
use super::desk::Desk;
use super::publish::{Awaited, NotPublished};
use crate::base::glob::Glob;

/// How often it is looked whether shards are still behind.
const LOOK: Duration = Duration::from_millis(20);

/// Whom a back end may speak to beside rooms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Users, by their names.
    Users,
    /// Connections, by their ids.
    Connections,
    /// Everyone.
    Everyone,
}

/// What a back end may publish by its answers. The default is nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Voice {
    /// In which rooms, by the names that clients use.
    pub rooms: Vec<Glob>,
    /// To whom else.
    pub reach: Vec<Reach>,
}

impl Voice {
    /// True when nothing may be published.
    #[must_use]
    pub fn is_mute(&self) -> bool {
        self.rooms.is_empty() && self.reach.is_empty()
    }
}

/// An answer, with whose it is.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// The body as it came.
    pub body: &'a [u8],
    /// What may be published.
    pub voice: &'a Voice,
    /// The tenants of the events it answers, each once; `None` for that of nobody in particular.
    pub tenants: &'a [Option<Box<str>>],
}

/// What came of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replied {
    /// The number of the order that was posted, if anything was.
    pub order: Option<u64>,
    /// Publications that are on their way.
    pub published: usize,
    /// Publications that are not; an answer that cannot be read counts as one.
    pub refused: usize,
    /// Why the first of them was refused.
    pub why: Option<String>,
}

impl Replied {
    /// Nothing but refusals.
    #[must_use]
    pub fn refused(count: usize, why: impl Into<String>) -> Self {
        Self { refused: count, why: Some(why.into()), ..Self::default() }
    }
}

/// Publishes what was answered, as far as it may be.
pub(super) async fn publish(
    desk: Arc<dyn Desk>,
    answer: Result<Bytes, Failure>,
    voice: &Voice,
    tenants: &[Option<Box<str>>],
    patience: Duration,
) -> Result<Replied, Failure> {
    let body = match answer {
        _ if voice.is_mute() => return answer.map(|_| Replied::default()),
        Ok(body) => body,
        // It was heard, and would only be as large again.
        Err(Failure::TooLarge(limit)) => {
            return Ok(Replied::refused(1, Failure::TooLarge(limit).to_string()));
        }
        Err(failure) => return Err(failure),
    };
    let reply = Reply { body: &body, voice, tenants };
    let replied = timeout(patience, posted(&*desk, reply)).await;
    let replied = replied.unwrap_or_else(|_| Replied::refused(1, "the shards are behind"));
    if let Some(order) = replied.order {
        // Nobody waits for what comes of it.
        drop(Awaited { desk, order });
    }
    Ok(replied)
}

async fn posted(desk: &dyn Desk, reply: Reply<'_>) -> Replied {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        match desk.reply(reply) {
            Ok(replied) => return replied,
            Err(NotPublished::Behind) => _ = looks.tick().await,
            Err(other) => return Replied::refused(1, format!("{other:?}")),
        }
    }
}
