//! Publishing by back ends: the endpoint, and what it asks of the node.
//!
//! The body is read behind the [`Publisher`], by the rules that hold for clients. An answer waits for the
//! homes to have taken everything, and, where the back end wants to know how many were reached, for the
//! shards to say so. What was posted is never taken back: other shards count on each part of it. So a request
//! that is given up, by its time-out or by its client, goes on without anybody to tell.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value, json};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::desk::Desk;
use super::options::Scope;
use super::refusal::{Refusal, json};
use super::reply::{Replied, Reply};
use super::routes::{Api, LOOK};

/// How often it is looked at once: an answer is most often there in less time than a timer takes.
const LOOKS_AT_ONCE: usize = 64;

/// A request that was posted to the shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Posted {
    /// Its number.
    pub order: u64,
    /// True when it was a batch, and is to be answered by a list.
    pub batch: bool,
}

/// What came of one publication.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Its rooms that have members, with the epoch and the offset it was given there.
    pub numbers: Vec<(String, u64, u64)>,
    /// Some of its targets had taken it before, under the same `id`, and do not get it again.
    pub duplicate: bool,
    /// Its rooms that do not get it, because Redis did not number it, and why.
    pub refused: Vec<(String, String)>,
    /// Connections in whose queues it was put; `None` where that was not asked for.
    pub connections: Option<u64>,
    /// Nodes that were to tell how many it reached there and have not; empty: nobody knows which there are.
    pub missing: Option<Vec<String>>,
    /// True when every shard has told of it, and every node that was to; where nothing was asked for too.
    pub complete: bool,
    /// It was to be stored and is not, as far as is known: why, for programs and for people.
    pub unstored: Option<(&'static str, &'static str)>,
}

/// Why nothing was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotPublished {
    /// Something is not understood, or may not be.
    Wrong {
        /// What, for programs.
        code: &'static str,
        /// What, for people.
        message: String,
        /// The field that is to blame.
        field: Option<String>,
        /// The place in the batch, from 0.
        at: Option<usize>,
    },
    /// It names another tenant than the key's.
    OtherTenant {
        /// The place in the batch, from 0.
        at: Option<usize>,
    },
    /// Too much is under way: later it may be.
    Behind,
}

/// Who takes publications. None of these calls waits.
pub trait Publisher {
    /// Posts a publication, or a batch of them, to the homes of their targets: all or nothing. `tenant`: the
    /// only one whose names may be used.
    ///
    /// # Errors
    /// Why nothing was posted.
    fn publish(&self, body: &str, tenant: Option<&str>) -> Result<Posted, NotPublished>;

    /// Posts what a back end answers to events, as far as it may be published: each publication by itself.
    ///
    /// # Errors
    /// [`NotPublished::Behind`]; then nothing was posted.
    fn reply(&self, reply: Reply<'_>) -> Result<Replied, NotPublished>;

    /// What came of an order, once that is known; then it is forgotten.
    fn outcome(&self, order: u64) -> Option<Vec<Outcome>>;

    /// Forgets an order; what is known of it, if every home has taken it.
    fn give_up(&self, order: u64) -> Option<Vec<Outcome>>;

    /// Posts what waits for space in inboxes; true while something still does.
    fn post_waiting(&self) -> bool;
}

/// An order that somebody waits for. However the waiting ends, the order is not kept.
pub(super) struct Awaited {
    pub(super) desk: Arc<dyn Desk>,
    pub(super) order: u64,
}

impl Drop for Awaited {
    fn drop(&mut self) {
        let _ = self.desk.give_up(self.order);
        if self.desk.post_waiting() {
            let desk = Arc::clone(&self.desk);
            tokio::spawn(async move {
                let mut looks = interval(LOOK);
                looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                while desk.post_waiting() {
                    looks.tick().await;
                }
            });
        }
    }
}

impl Awaited {
    async fn outcome(&self) -> Vec<Outcome> {
        for _ in 0..LOOKS_AT_ONCE {
            if let Some(outcomes) = self.desk.outcome(self.order) {
                return outcomes;
            }
            tokio::task::yield_now().await;
        }
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if let Some(outcomes) = self.desk.outcome(self.order) {
                return outcomes;
            }
            looks.tick().await;
        }
    }
}

pub(super) async fn publish(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<Response, Refusal> {
    let (head, body) = request.into_parts();
    let key = api.admit(&head.headers, Scope::Publish)?;
    let bytes = api.bytes(body).await?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| Refusal::bad("bad_json", "the body is not UTF-8"))?;
    let posted = api.desk.publish(text, key.tenant.as_deref())?;
    let awaited = Awaited { desk: Arc::clone(&api.desk), order: posted.order };
    let outcome = timeout(api.limits().shard_timeout, awaited.outcome()).await;
    let outcomes = outcome.ok().or_else(|| api.desk.give_up(posted.order)).ok_or_else(|| {
        Refusal::overloaded(
            "not every shard has taken it yet; it is on its way and will be published, so sending it \
             again would publish it twice",
        )
    })?;
    if let [Outcome { unstored: Some((code, message)), .. }] = &outcomes[..]
        && !posted.batch
    {
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, code, *message).retry_after(1));
    }
    let mut results = outcomes.into_iter().map(answer);
    let body = match results.next() {
        Some(one) if !posted.batch => one,
        first => json!({ "results": first.into_iter().chain(results).collect::<Vec<_>>() }),
    };
    Ok(json(StatusCode::OK, &body))
}

fn answer(outcome: Outcome) -> Value {
    let numbers = outcome.numbers.into_iter().map(|(room, epoch, offset)| {
        (room, json!({ "offset": offset, "epoch": format!("{epoch:x}") }))
    });
    let mut answer = Map::new();
    if let Some((code, message)) = outcome.unstored {
        answer.insert("error".to_owned(), json!({ "code": code, "message": message }));
    }
    answer.insert("offsets".to_owned(), Value::Object(numbers.collect()));
    if outcome.duplicate {
        answer.insert("duplicate".to_owned(), Value::from(true));
    }
    if !outcome.refused.is_empty() {
        let refused = outcome.refused.into_iter().map(|(room, why)| (room, Value::from(why)));
        answer.insert("refused".to_owned(), Value::Object(refused.collect()));
    }
    if let Some(connections) = outcome.connections {
        answer.insert("deliveredConnections".to_owned(), Value::from(connections));
        answer.insert("complete".to_owned(), Value::from(outcome.complete));
    }
    if let Some(missing) = outcome.missing {
        answer.insert("missingNodes".to_owned(), Value::from(missing));
    }
    Value::Object(answer)
}

impl From<NotPublished> for Refusal {
    fn from(why: NotPublished) -> Self {
        let place = |at: Option<usize>, field: Option<&str>| match (at, field) {
            (Some(at), Some(field)) => Some(format!("[{at}].{field}")),
            (Some(at), None) => Some(format!("[{at}]")),
            (None, field) => field.map(str::to_owned),
        };
        match why {
            NotPublished::Wrong { code, message, field, at } => {
                let mut refusal = Self::bad(code, message);
                refusal.field = place(at, field.as_deref());
                refusal
            }
            NotPublished::OtherTenant { at } => {
                let mut refusal = Self::forbidden("this key is for another tenant");
                refusal.field = place(at, Some("tenant"));
                refusal
            }
            NotPublished::Behind => {
                let message = "the shards are behind with what was published before";
                Self::new(StatusCode::TOO_MANY_REQUESTS, "overloaded", message).retry_after(1)
            }
        }
    }
}
