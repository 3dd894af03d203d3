//! `GET /v1/explain`: what became of a publication for a user or a connection, in words.
//!
//! Every shard is asked what it remembers. Whoever was written to, or lost it, has an outcome. Whoever has none was
//! not meant, but only where everything since the publication came is remembered by every shard that may have
//! had it: a shard that has not noted its coming counts where it remembers all since it was numbered. Where
//! that is not known the answer says so and guesses nothing.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::body::{Object, missing};
use super::guard;
use super::options::Scope;
use super::overview::Lookup;
use super::presence::{ROOM_BYTES, answered, checked_room};
use super::refusal::{Refusal, json};
use super::routes::{Answer, Api, NAME_BYTES};
use crate::base::fate::{Account, Destiny, Fate, Sighting};
use crate::base::id::ConnAddress;
use crate::base::shared::Overflow;

/// Who is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A user, with all connections.
    User(String),
    /// One connection.
    Connection(ConnAddress),
}

pub(super) async fn explain(State(api): State<Arc<Api>>, request: Request) -> Answer {
    let key = api.admit(request.headers(), Scope::Inspect)?;
    let mut object = Object::of_query(request.uri().query().unwrap_or_default())?;
    let tenant = object.text("tenant", NAME_BYTES)?;
    let room = object.text("room", ROOM_BYTES)?;
    let offset = object.whole("offset", 1, u64::MAX)?;
    let (user, connection) =
        (object.text("user", NAME_BYTES)?, object.text("connection", NAME_BYTES)?);
    object.finish()?;
    let room = room.ok_or_else(|| missing("room"))?;
    let offset = offset.ok_or_else(|| missing("offset"))?;
    checked_room(&room)?;
    let of = match (user, connection) {
        (Some(user), None) => Subject::User(user),
        (None, Some(id)) => Subject::Connection(
            id.parse().map_err(|_| Refusal::field("connection", "expected a connection's id"))?,
        ),
        (None, None) => return Err(missing("user")),
        (Some(_), Some(_)) => {
            return Err(Refusal::field("connection", "name a user or a connection, not both"));
        }
    };
    let tenant = guard::tenant(&key, tenant)?;
    let ask = Lookup::Explain { room: room.clone(), offset, of };
    let seen = api.look_up(tenant.as_deref(), &ask).await?;
    if !seen.accounts.iter().any(|account| account.is_on) {
        let message = "nothing is remembered where explain.outcomes = 0";
        return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, "not_configured", message));
    }
    let verdict = judge(seen.accounts, offset, seen.missing.is_empty());
    let connections: Vec<Value> = verdict.connections.iter().map(told).collect();
    let mut body = json!({
        "room": room,
        "offset": offset,
        "outcome": verdict.outcome,
        "text": verdict.text,
        "connections": connections,
    });
    if let Some(at) = verdict.published {
        body["publishedAt"] = at.into();
    }
    Ok(json(StatusCode::OK, answered(body, &seen.missing)))
}

/// What the accounts come to.
#[derive(Debug)]
pub(super) struct Verdict {
    /// In a word.
    pub(super) outcome: &'static str,
    /// In a sentence.
    pub(super) text: String,
    /// When it was numbered, or else when it first came, in milliseconds since 1970, if that is remembered.
    pub(super) published: Option<u64>,
    pub(super) connections: Vec<Destiny>,
}

/// Puts the shards' accounts together. `complete`: every shard has given one.
pub(super) fn judge(mut accounts: Vec<Account>, offset: u64, complete: bool) -> Verdict {
    let numbered = accounts.iter().filter_map(|account| account.numbered).max_by_key(|one| one.at);
    // A room that ended and began anew counts from 1 again: only what is of its last life counts.
    let arrivals = accounts.iter().filter_map(|account| account.arrived);
    let epoch = numbered.or_else(|| arrivals.max_by_key(|one| one.epoch)).map(|one| one.epoch);
    for account in &mut accounts {
        if account.arrived.is_some_and(|arrived| Some(arrived.epoch) != epoch) {
            account.arrived = None;
            account.connections.iter_mut().for_each(|one| one.fate = None);
        }
    }
    let arrived = accounts.iter().filter_map(|account| account.arrived).map(|one| one.at).min();
    let published = numbered.map(|one| one.at).or(arrived);
    let newest = accounts.iter().find_map(|account| account.position);
    let is_known = complete && accounts.iter().all(|account| covers(account, numbered));
    let outdated = accounts.iter().any(|account| account.outdated);
    let mut connections: Vec<Destiny> =
        accounts.into_iter().flat_map(|account| account.connections).collect();
    connections.sort_by_key(|one| one.conn);
    let best = connections.iter().filter_map(|one| one.fate).min_by_key(|(fate, _)| rank(*fate));
    let (outcome, text) = if let Some((fate, _)) = best {
        (word(fate), summary(&connections, fate))
    } else if let Some(newest) =
        newest.filter(|newest| published.is_none() && newest.offset < offset)
    {
        let text = format!("the room has no such publication: its newest is {}", newest.offset);
        ("not_published", text)
    } else if !is_known {
        let text = "it is not remembered, or not by every shard that may have had it: the ring of outcomes \
                    (explain.outcomes) has been written over since";
        ("not_remembered", text.to_owned())
    } else if outdated {
        ("outdated", "its time (ttl) was over before it could be handed out".to_owned())
    } else {
        absent(&connections, published)
    };
    Verdict { outcome, text, published, connections }
}

/// True when the shard would know of every outcome there was.
fn covers(account: &Account, numbered: Option<Sighting>) -> bool {
    account.arrived.is_some()
        || account.is_on && numbered.is_some_and(|numbered| account.since <= numbered.at)
}

fn absent(connections: &[Destiny], published: Option<u64>) -> (&'static str, String) {
    let there = connections.iter().filter(|one| !is_later(one, published)).count();
    if there == 0 {
        let text = "no connection was there when it was published";
        return ("not_connected", text.to_owned());
    }
    let text = format!("none of {there} connections that were there was a member of the room");
    ("not_a_member", text)
}

/// True when the connection came after the publication, as far as that is known.
fn is_later(one: &Destiny, published: Option<u64>) -> bool {
    // A connection's begin is known to the tick, which is not a tenth of a second.
    published.is_some_and(|at| one.begun > at.saturating_add(100))
}

fn summary(connections: &[Destiny], best: Fate) -> String {
    let alike = connections.iter().filter(|one| one.fate.is_some_and(|(fate, _)| fate == best));
    let (count, all) = (alike.count(), connections.len());
    let which = if all == 1 {
        "its connection".to_owned()
    } else {
        format!("{count} of {all} connections")
    };
    format!("{which}: {}", sentence(best))
}

/// The better comes first.
fn rank(fate: Fate) -> u8 {
    match fate {
        Fate::Written => 0,
        Fate::Writing => 1,
        Fate::Queued => 2,
        Fate::Twice => 3,
        Fate::CutOff => 4,
        Fate::Replaced => 5,
        Fate::Dropped(_) => 6,
        Fate::TooSlow => 7,
        Fate::Lost => 8,
        Fate::TooLate => 9,
        Fate::Excepted => 10,
    }
}

fn word(fate: Fate) -> &'static str {
    match fate {
        Fate::Queued => "queued",
        Fate::Writing => "writing",
        Fate::Written => "written",
        Fate::CutOff => "cut_off",
        Fate::Dropped(_) => "dropped",
        Fate::Replaced => "replaced",
        Fate::Excepted => "excepted",
        Fate::Twice => "other_target",
        Fate::TooSlow => "too_slow",
        Fate::TooLate => "closing",
        Fate::Lost => "lost",
    }
}

fn policy(overflow: Overflow) -> &'static str {
    match overflow {
        Overflow::DropNew => "drop_new",
        Overflow::DropOldest => "drop_oldest",
        Overflow::Conflate => "conflate",
        Overflow::Pause => "pause",
        Overflow::Disconnect => "disconnect",
    }
}

fn sentence(fate: Fate) -> String {
    let text = match fate {
        Fate::Queued => {
            "it waits in the queue of the connection, which has not read what is ahead of it"
        }
        Fate::Writing => {
            "it was handed to the kernel, which has not taken all of the write: the reader is slow or away"
        }
        Fate::Written => "written: the kernel has taken it for this connection",
        Fate::CutOff => {
            "the connection ended while it was being written; the client may have it or not"
        }
        Fate::Dropped(overflow) => {
            let policy = policy(overflow);
            return format!(
                "dropped, because more than queue.high_water_bytes or queue.max_messages waited for the reader \
                 and the policy of the room is {policy}"
            );
        }
        Fate::Replaced => {
            "a newer publication of the same key took its place in the queue (conflate)"
        }
        Fate::Excepted => "its author excepted the connection",
        Fate::Twice => "the connection got the same message by another target of the same command",
        Fate::TooSlow => "the connection was closed as too slow a reader for it",
        Fate::TooLate => "the connection had begun to close when it came",
        Fate::Lost => "it waited in the queue and was lost with it when the connection ended",
    };
    text.to_owned()
}

fn told(one: &Destiny) -> Value {
    let mut told = json!({ "clientId": one.conn.to_string(), "connectedAt": one.begun });
    if let Some(ended) = one.ended {
        told["endedAt"] = ended.into();
    }
    match one.fate {
        Some((fate, at)) => {
            told["outcome"] = word(fate).into();
            told["at"] = at.into();
            if let Fate::Dropped(overflow) = fate {
                told["policy"] = policy(overflow).into();
            }
            told["text"] = sentence(fate).into();
        }
        None => told["text"] = "nothing is remembered of it for this connection".into(),
    }
    told
}
