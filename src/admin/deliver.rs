//! Posting events to the back ends that want to hear of them.
//!
//! Each back end has its own queue (`batch`), so one that is slow or dead keeps no other waiting. An answer of
//! 200 says that the events were heard; what else it says is not read. At the end of the thread what waits
//! gets one more chance, within the grace of the whole listener.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use hyper::Uri;
use tokio::task::JoinSet;

use super::batch::{Batches, Fate};
use super::client::{Client, Failure};
use super::options::EventHook;
use super::sign::{SIGNATURE, signature};
use crate::base::tidings::Tiding;
use crate::base::time::Time;
use crate::sys::clock::unix_millis;

/// Bytes of an answer.
const ANSWER_BYTES: usize = 65_536;

/// What came of the events so far, over all back ends.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// Heard.
    pub(super) heard: AtomicU64,
    /// Given up after their last chance.
    pub(super) dead: AtomicU64,
    /// Without space to wait.
    pub(super) dropped: AtomicU64,
    /// Requests that failed.
    pub(super) failed: AtomicU64,
}

/// One back end.
struct Hearer {
    hook: EventHook,
    batches: Batches,
    /// True while the last request has failed.
    is_failing: bool,
}

/// A request that has ended: whose, and how.
pub(super) type Posted = (usize, Result<Bytes, Failure>);

/// The back ends.
pub(super) struct Deliveries {
    hearers: Vec<Hearer>,
    client: Client,
    pub(super) under_way: JoinSet<Posted>,
}

impl Deliveries {
    pub(super) fn new(hooks: &[EventHook], client: Client) -> Self {
        let hearer = |hook: &EventHook| Hearer {
            batches: Batches::new(hook.pace),
            hook: hook.clone(),
            is_failing: false,
        };
        Self { hearers: hooks.iter().map(hearer).collect(), client, under_way: JoinSet::new() }
    }

    /// Takes events in for all who want to hear of them.
    pub(super) fn take(&mut self, events: Vec<Tiding>, record: &Record, now: Time) {
        for event in events {
            for hearer in &mut self.hearers {
                if hearer.hook.kinds.has(event.kind) && !hearer.batches.push(event.clone(), now) {
                    record.dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// When there is something to post.
    pub(super) fn due(&self) -> Option<Time> {
        self.hearers.iter().filter_map(|hearer| hearer.batches.due()).min()
    }

    /// True when nothing waits and nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.hearers.iter().all(|hearer| hearer.batches.len() == 0)
    }

    /// Posts what it is time for; with `hurry` all that need not rest.
    pub(super) fn start(&mut self, now: Time, hurry: bool) {
        for (at, hearer) in self.hearers.iter_mut().enumerate() {
            if let Some(body) = hearer.batches.poll(now, hurry) {
                self.under_way.spawn(post(self.client.clone(), hearer.hook.clone(), at, body));
            }
        }
    }

    /// A request has ended.
    pub(super) fn finish(&mut self, (at, answer): Posted, record: &Record, now: Time) {
        let Hearer { hook, batches, is_failing } = &mut self.hearers[at];
        match batches.done(answer.is_ok(), now, fastrand::u32(..)) {
            Fate::Heard(count) => {
                record.heard.fetch_add(count as u64, Ordering::Relaxed);
                if std::mem::take(is_failing) {
                    tracing::info!("the webhook {:?} answers again", hook.name);
                }
            }
            fate => {
                record.failed.fetch_add(1, Ordering::Relaxed);
                if let Fate::Dead(count) = fate {
                    record.dead.fetch_add(count as u64, Ordering::Relaxed);
                }
                if let (Err(why), false) = (&answer, std::mem::replace(is_failing, true)) {
                    tracing::warn!("the webhook {:?}: {why}", hook.name);
                }
            }
        }
    }
}

async fn post(client: Client, hook: EventHook, at: usize, body: Vec<u8>) -> Posted {
    let signature = signature(&hook.secret, unix_millis() / 1000, &body);
    let headers = [("content-type", "application/json"), (SIGNATURE, &*signature)];
    let patience: Duration = hook.timeout;
    let answer = match hook.url.parse::<Uri>() {
        Ok(uri) => client.post(&uri, &headers, body.into(), ANSWER_BYTES, patience).await,
        Err(error) => Err(Failure::Connection(error.to_string())),
    };
    (at, answer)
}
