//! `GET /v1/laggards`: the connections with most to read.
//!
//! The shards look for them when they are asked, and not twice at a time: whoever asks while a survey is fresh
//! waits for that one.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::desk::{Laggard, Receipt};
use super::refusal::{Refusal, json};
use super::routes::{Answer, Api};

/// How long a survey is fresh.
const FRESH: Duration = Duration::from_millis(500);
/// How often it is looked whether all shards have answered.
const LOOK: Duration = Duration::from_millis(2);
/// Connections in an answer.
const MOST: usize = 20;

pub(super) async fn laggards(State(api): State<Arc<Api>>, headers: HeaderMap) -> Answer {
    api.inspector(&headers)?;
    let receipt = survey(&api)?;
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let all = async {
        loop {
            if let Some(found) = api.desk.surveyed(receipt) {
                return found;
            }
            looks.tick().await;
        }
    };
    let found = timeout(api.limits().shard_timeout, all).await;
    let mut found = found.map_err(|_| Refusal::overloaded("not every shard has answered yet"))?;
    found.sort_by_key(|laggard| std::cmp::Reverse(laggard.waiting));
    let laggards: Vec<Value> = found.iter().take(MOST).map(shown).collect();
    Ok(json(StatusCode::OK, json!({ "laggards": laggards })))
}

fn survey(api: &Api) -> Result<Receipt, Refusal> {
    let now = api.clock.now();
    let mut last = api.surveyed.lock().unwrap_or_else(PoisonError::into_inner);
    match *last {
        Some((at, receipt)) if now.since(at) < FRESH => Ok(receipt),
        _ => {
            let receipt = api.desk.survey()?;
            *last = Some((now, receipt));
            Ok(receipt)
        }
    }
}

fn shown(laggard: &Laggard) -> Value {
    let mut shown = json!({
        "conn": laggard.conn,
        "waitingBytes": laggard.waiting,
        "rooms": laggard.rooms,
        "seconds": laggard.life.as_secs(),
    });
    for (name, value) in [("tenant", &laggard.tenant), ("user", &laggard.user)] {
        if let Some(value) = value {
            shown[name] = Value::from(value.as_str());
        }
    }
    shown
}
