//! Posting events to the back ends that want to hear of them.
//!
//! Each back end has its own queue (`batch`), so one that is slow or dead keeps no other waiting. An answer of
//! 200 says that the events were heard; what it says beyond that is read where the back end may publish
//! (`reply`). At the end of the thread what waits gets one more chance, within the grace of the whole listener.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Bytes;
use hyper::Uri;
use tokio::task::JoinSet;

use super::batch::{Batches, Fate};
use super::client::{Client, Failure};
use super::desk::Desk;
use super::options::EventHook;
use super::reply::{self, Replied};
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
    /// Publications that came back.
    pub(super) published: AtomicU64,
    /// Those that came back and may not be.
    pub(super) refused: AtomicU64,
}

/// One back end.
struct Hearer {
    hook: EventHook,
    batches: Batches,
    /// True while the last request has failed.
    is_failing: bool,
    /// True while the last answer asked for more than it may.
    is_refused: bool,
}

/// A request that has ended: whose, and how.
pub(super) type Posted = (usize, Result<Replied, Failure>);

/// The back ends.
pub(super) struct Deliveries {
    hearers: Vec<Hearer>,
    client: Client,
    desk: Arc<dyn Desk>,
    pub(super) under_way: JoinSet<Posted>,
}

impl Deliveries {
    pub(super) fn new(hooks: &[EventHook], client: Client, desk: Arc<dyn Desk>) -> Self {
        let hearer = |hook: &EventHook| Hearer {
            batches: Batches::new(hook.pace),
            hook: hook.clone(),
            is_failing: false,
            is_refused: false,
        };
        Self {
            hearers: hooks.iter().map(hearer).collect(),
            client,
            desk,
            under_way: JoinSet::new(),
        }
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
                let tenants = match hearer.hook.voice.is_mute() {
                    true => Vec::new(),
                    false => hearer.batches.tenants(),
                };
                let (client, desk) = (self.client.clone(), Arc::clone(&self.desk));
                let hook = hearer.hook.clone();
                self.under_way.spawn(async move {
                    let answer = post(client, &hook, body).await;
                    let patience = hook.timeout;
                    (at, reply::publish(desk, answer, &hook.voice, &tenants, patience).await)
                });
            }
        }
    }

    /// A request has ended.
    pub(super) fn finish(&mut self, (at, answer): Posted, record: &Record, now: Time) {
        let Hearer { hook, batches, is_failing, is_refused } = &mut self.hearers[at];
        if let Ok(replied) = &answer {
            record.published.fetch_add(replied.published as u64, Ordering::Relaxed);
            record.refused.fetch_add(replied.refused as u64, Ordering::Relaxed);
            let was_refused = std::mem::replace(is_refused, replied.refused > 0);
            if let (Some(why), false) = (&replied.why, was_refused) {
                let count = replied.refused;
                tracing::warn!(
                    "the webhook {:?}: {count} of its publications are refused: {why}",
                    hook.name
                );
            }
        }
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

async fn post(client: Client, hook: &EventHook, body: Vec<u8>) -> Result<Bytes, Failure> {
    let signature = signature(&hook.secret, unix_millis() / 1000, &body);
    let headers = [("content-type", "application/json"), (SIGNATURE, &*signature)];
    match hook.url.parse::<Uri>() {
        Ok(uri) => client.post(&uri, &headers, body.into(), ANSWER_BYTES, hook.timeout).await,
        Err(error) => Err(Failure::Connection(error.to_string())),
    }
}
