//! The endpoints of notifications: keep one and push it, list what is unread, note what was read.
//!
//! Whoever notifies is answered when the store has it, and not before. How many connections it was queued for
//! is told as well where the shards say so in time; that it is kept does not depend on it.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::body::{Object, missing};
use super::desk::Later;
use super::guard;
use super::options::{ApiKey, Scope};
use super::refusal::{Refusal, json};
use super::routes::{Answer, Api, NAME_BYTES};
use crate::base::inbox::{LAST_ID, Marked, Note, Span};
use crate::store::{self, Ask, Draft};

/// Ids in one request.
const MAX_IDS: usize = 1000;
/// Notifications in one answer, and their bytes.
const PAGE: u64 = 1000;
const PAGE_BYTES: u64 = 1 << 20;

impl Api {
    /// Waits for what the store says.
    pub(super) async fn stored(&self, later: Later) -> Result<store::Answer, Refusal> {
        let outcome = timeout(self.limits().request_timeout, later).await.map_err(|_| {
            Refusal::overloaded("the store has not answered in time; it may be done all the same")
        })?;
        let outcome =
            outcome.map_err(|_| Refusal::overloaded("the store has ended; the node is ending"))?;
        Ok(outcome?)
    }

    /// The name under which the store knows the user that a request is about.
    fn owner_in(&self, object: &mut Object, key: &ApiKey) -> Result<Arc<str>, Refusal> {
        let tenant = object.text("tenant", NAME_BYTES)?;
        let user = object.text("user", NAME_BYTES)?.ok_or_else(|| missing("user"))?;
        let tenant = guard::tenant(key, tenant)?;
        Ok(self.desk.owner(tenant.as_deref(), &user))
    }
}

/// How many connections it was queued for, if that is told in time.
async fn told(reached: oneshot::Receiver<u64>, patience: Duration) -> Option<u64> {
    timeout(patience, reached).await.ok()?.ok()
}

pub(super) async fn notify(State(api): State<Arc<Api>>, request: Request) -> Answer {
    let (head, body) = request.into_parts();
    let key = api.admit(&head.headers, Scope::Notify)?;
    let mut object = api.object(body).await?;
    let owner = api.owner_in(&mut object, &key)?;
    let payload = object.raw("payload").ok_or_else(|| missing("payload"))?;
    let kind = object.text("type", NAME_BYTES)?;
    let name = object.text("id", NAME_BYTES)?.unwrap_or_default();
    object.finish()?;
    let kind = kind.map(|kind| Value::from(kind).to_string()).unwrap_or_default();
    let payload: Box<str> = Box::<RawValue>::into(payload);
    let draft = Draft { owner, kind: kind.into(), payload, name: name.into() };
    let (tell, reached) = oneshot::channel();
    let later = api.desk.keep(Ask::Append(draft), Some(tell))?;
    let store::Answer::Appended(appended) = api.stored(later).await? else {
        unreachable!("what was appended is answered so")
    };
    let mut answer = Map::new();
    answer.insert("id".to_owned(), appended.id.into());
    answer.insert("at".to_owned(), appended.at.into());
    answer.insert("unread".to_owned(), appended.unread.into());
    if appended.repeated {
        answer.insert("repeated".to_owned(), true.into());
    } else if let Some(connections) = told(reached, api.limits().shard_timeout).await {
        answer.insert("delivered".to_owned(), connections.into());
    }
    let status = if appended.repeated { StatusCode::OK } else { StatusCode::CREATED };
    Ok(json(status, Value::Object(answer)))
}

pub(super) async fn list(State(api): State<Arc<Api>>, request: Request) -> Answer {
    let key = api.admit(request.headers(), Scope::Notify)?;
    let mut object = Object::of_query(request.uri().query().unwrap_or_default())?;
    let owner = api.owner_in(&mut object, &key)?;
    let after = object.whole("after", 0, LAST_ID)?.unwrap_or(0);
    let until = object.whole("until", 0, LAST_ID)?.unwrap_or(LAST_ID);
    let limit = object.whole("limit", 0, PAGE)?.unwrap_or(100);
    object.finish()?;
    let limit = usize::try_from(limit).unwrap_or_default();
    let span = Span { after, until, limit, bytes: PAGE_BYTES };
    let later = api.desk.keep(Ask::List { owner, span }, None)?;
    let store::Answer::Page(page) = api.stored(later).await? else {
        unreachable!("a list is answered by a page")
    };
    let broken = |_| Refusal::from(store::Refused::Broken("what was kept is no JSON".into()));
    let items = page.notes.iter().map(Item::of).collect::<Result<_, _>>().map_err(broken)?;
    let (newest, unread, more) = (page.newest, page.unread, page.more);
    let text = serde_json::to_string(&List { items, newest, unread, more }).map_err(broken)?;
    Ok(json(StatusCode::OK, text))
}

/// A page of an inbox, payloads as they were written.
#[derive(Serialize)]
struct List<'p> {
    items: Vec<Item<'p>>,
    newest: u64,
    unread: u64,
    more: bool,
}

#[derive(Serialize)]
struct Item<'p> {
    id: u64,
    at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'p RawValue>,
    payload: &'p RawValue,
}

impl<'p> Item<'p> {
    fn of(note: &'p Note) -> serde_json::Result<Self> {
        let kind = (!note.kind.is_empty()).then(|| serde_json::from_str(&note.kind)).transpose()?;
        Ok(Self { id: note.id, at: note.at, kind, payload: serde_json::from_str(&note.payload)? })
    }
}

pub(super) async fn read(State(api): State<Arc<Api>>, request: Request) -> Answer {
    let (head, body) = request.into_parts();
    let key = api.admit(&head.headers, Scope::Notify)?;
    let mut object = api.object(body).await?;
    let owner = api.owner_in(&mut object, &key)?;
    let (ids, all) = (object.raw("ids"), object.raw("all"));
    object.finish()?;
    let marked = marked(ids.as_deref(), all.as_deref())?;
    let later = api.desk.keep(Ask::Read { owner, marked }, None)?;
    let store::Answer::Unread { unread, .. } = api.stored(later).await? else {
        unreachable!("what was read is answered by a number")
    };
    Ok(json(StatusCode::OK, json!({ "unread": unread })))
}

fn marked(ids: Option<&RawValue>, all: Option<&RawValue>) -> Result<Marked, Refusal> {
    match (ids, all) {
        (Some(ids), None) => {
            let ids: Option<Vec<u64>> = serde_json::from_str(ids.get()).ok();
            let fits = |ids: &Vec<u64>| {
                (1..=MAX_IDS).contains(&ids.len()) && ids.iter().all(|id| *id <= LAST_ID)
            };
            let expected = format!("expected a list of 1 to {MAX_IDS} ids of notifications");
            ids.filter(fits).map(Marked::Ids).ok_or_else(|| Refusal::field("ids", expected))
        }
        (None, Some(all)) if all.get() == "true" => Ok(Marked::All),
        (None, Some(_)) => Err(Refusal::field("all", "expected true")),
        (Some(_), Some(_)) => Err(Refusal::field("all", "name ids or all, not both")),
        (None, None) => Err(missing("ids")),
    }
}
