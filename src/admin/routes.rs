//! The endpoints. docs/admin.md describes them; its examples run as tests.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::{Map, Value, json};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::body::{Object, missing};
use super::consult;
use super::deliver;
use super::desk::{Desk, Receipt, Refused, Revocation, Revoked, Standing, TicketAsk};
use super::explain;
use super::exposition::{Exposition, Kind};
use super::guard::{self, Guard};
use super::jwks::Record;
use super::options::{ApiKey, Limits, Options, Scope};
use super::presence;
use super::publish;
use super::refusal::{Refusal, json};
use super::{inbox, laggards, openapi, overview, page};
use crate::base::time::Time;
use crate::sys::clock::Clock;

/// How often it is looked whether all shards have taken some mail.
pub(super) const LOOK: Duration = Duration::from_millis(1);
/// How long a sign of life counts.
const PROBE_LIFE: Duration = Duration::from_secs(1);
/// Bytes of a name in a request: a user, a tenant, a token's id.
pub(super) const NAME_BYTES: usize = 256;
const DAY_MS: u64 = 86_400_000;
/// How long a ticket may live: the shards remember those that were used as long.
const HOUR_MS: u64 = 3_600_000;

/// Held for moments and never across an await, on a thread that shares nothing with shards.
#[expect(clippy::disallowed_types, reason = "all of it happens on the admin thread")]
pub(super) type Lock<T> = std::sync::Mutex<T>;

/// What all handlers share.
pub(super) struct Api {
    pub(super) desk: Arc<dyn Desk>,
    pub(super) guard: Lock<Guard>,
    pub(super) clock: Clock,
    /// What came of fetching keys.
    pub(super) jwks: Record,
    /// What came of asking the application's back end.
    pub(super) consults: consult::Record,
    /// What came of telling back ends of events.
    pub(super) deliveries: deliver::Record,
    /// When the shards were last asked for a sign of life, and the receipt.
    pub(super) probed: Lock<Option<(Time, Receipt)>>,
    /// When they were last asked who has most to read, and the receipt.
    pub(super) surveyed: Lock<Option<(Time, Receipt)>>,
}

pub(super) type Answer = Result<Response, Refusal>;

/// The table of endpoints.
pub(super) fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/", get(page::page))
        .route("/metrics", get(metrics))
        .route("/v1/openapi.json", get(openapi::document))
        .route("/v1/laggards", get(laggards::laggards))
        .route("/v1/counters", get(counters))
        .route("/v1/tickets", post(tickets))
        .route("/v1/revocations", post(revocations))
        .route("/v1/notify", post(inbox::notify))
        .route("/v1/inbox", get(inbox::list))
        .route("/v1/inbox/read", post(inbox::read))
        .route("/v1/publish", post(publish::publish))
        .route("/v1/rooms", get(overview::rooms))
        .route("/v1/rooms/{room}", get(overview::room))
        .route("/v1/connections", get(overview::connections))
        .route("/v1/connections/{id}", get(overview::connection))
        .route("/v1/explain", get(explain::explain))
        .route("/v1/disconnect", post(overview::disconnect))
        .route("/v1/presence/users", get(presence::users))
        .route("/v1/presence/rooms/{room}", get(presence::room))
        .fallback(async || {
            Refusal::new(StatusCode::NOT_FOUND, "not_found", "there is no such endpoint")
        })
        .method_not_allowed_fallback(async || {
            let message = "this endpoint does not take that method";
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
        })
        .with_state(api)
}

impl Api {
    pub(super) fn limits(&self) -> Limits {
        self.locked().options.limits
    }

    /// Takes new keys and limits; every key's allowance is full again.
    pub(super) fn renew(&self, options: Options) {
        self.locked().renew(options, self.clock.now());
    }

    fn locked(&self) -> MutexGuard<'_, Guard> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn admit(&self, headers: &HeaderMap, scope: Scope) -> Result<ApiKey, Refusal> {
        self.locked().admit(headers, scope, self.clock.now())
    }

    /// True while metrics are for everybody who reaches the listener.
    pub(super) fn metrics_open(&self) -> bool {
        self.locked().options.metrics_open
    }

    /// Lets in who may read figures, which are of all tenants.
    pub(super) fn inspector(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let key = self.admit(headers, Scope::Inspect)?;
        if key.tenant.is_some() {
            return Err(Refusal::forbidden("counters are of all tenants, and this key is for one"));
        }
        Ok(())
    }

    pub(super) async fn object(&self, body: Body) -> Result<Object, Refusal> {
        Object::parse(&self.bytes(body).await?)
    }

    /// Reads the body of a request that was admitted.
    pub(super) async fn bytes(&self, body: Body) -> Result<Bytes, Refusal> {
        let limits = self.limits();
        let read = Limited::new(body, limits.body_bytes).collect();
        let read = timeout(limits.request_timeout, read).await.map_err(|_| Refusal::timeout())?;
        let bytes = read.map_err(|error| {
            if error.is::<LengthLimitError>() {
                let message = format!("the body has more than {} bytes", limits.body_bytes);
                Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
            } else {
                Refusal::bad("bad_body", "the body could not be read")
            }
        })?;
        Ok(bytes.to_bytes())
    }

    /// What a sign of life of all shards is awaited by. Whoever asks for it needs no key, so the shards are
    /// asked once a second at most.
    fn probe(&self) -> Result<Receipt, Refused> {
        let now = self.clock.now();
        let mut probed = self.probed.lock().unwrap_or_else(PoisonError::into_inner);
        match *probed {
            Some((at, receipt)) if now.since(at) < PROBE_LIFE => Ok(receipt),
            _ => {
                let receipt = self.desk.probe()?;
                *probed = Some((now, receipt));
                Ok(receipt)
            }
        }
    }

    /// Waits until every shard has taken what the receipt stands for.
    async fn taken(&self, receipt: Receipt) -> Result<(), Refusal> {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let all = async {
            while !self.desk.is_taken(receipt) {
                looks.tick().await;
            }
        };
        timeout(self.limits().shard_timeout, all).await.map_err(|_| {
            Refusal::overloaded(
                "not every shard has taken it yet; it is on its way, asking again is safe",
            )
        })
    }
}

async fn ready(State(api): State<Arc<Api>>) -> Response {
    let Standing { mut reasons, degraded } = api.desk.standing();
    if api.jwks.empty.load(Ordering::Relaxed) {
        reasons.push("no keys were fetched yet");
    }
    match api.probe() {
        Ok(receipt) if api.taken(receipt).await.is_ok() => {}
        Ok(_) => reasons.push("a shard does not answer"),
        Err(_) => reasons.push("mail to the shards is backed up"),
    }
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut body = json!({ "ready": reasons.is_empty(), "reasons": reasons });
    if !degraded.is_empty() {
        body["degraded"] = json!(degraded);
    }
    json(status, body)
}

async fn metrics(State(api): State<Arc<Api>>, headers: HeaderMap) -> Answer {
    if !api.metrics_open() {
        api.inspector(&headers)?;
    }
    let mut out = Exposition::default();
    api.desk.expose(&mut out);
    let fetches = [("fetched", &api.jwks.fetched), ("failed", &api.jwks.failed)];
    let help = "Documents of keys asked for at auth.jwks_url, by outcome.";
    let mut family = out.family("throng_jwks_fetches_total", Kind::Counter, help);
    for (outcome, count) in fetches {
        family.sample(&[("outcome", outcome)], count.load(Ordering::Relaxed));
    }
    expose_consults(&api.consults, &mut out);
    expose_deliveries(&api.deliveries, &mut out);
    let help = "Requests to the admin listener answered with 429 because their key asks too often, by key.";
    let mut family = out.family("throng_admin_rate_limited_total", Kind::Counter, help);
    for (key, count) in api.locked().refused() {
        family.sample(&[("key", key)], count);
    }
    let mut response = Response::new(Body::from(out.finish()));
    let kind = HeaderValue::from_static(Exposition::MEDIA_TYPE);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(response)
}

fn expose_consults(consults: &consult::Record, out: &mut Exposition) {
    let help = "Questions of the shards to auth_webhook.url, by what the admin thread did with them; those that \
                failed were posted as well.";
    let mut family = out.family("throng_auth_webhook_total", Kind::Counter, help);
    let outcomes = [
        ("posted", &consults.posted),
        ("failed", &consults.failed),
        ("late", &consults.late),
        ("overflow", &consults.refused),
    ];
    for (outcome, count) in outcomes {
        family.sample(&[("outcome", outcome)], count.load(Ordering::Relaxed));
    }
}

fn expose_deliveries(deliveries: &deliver::Record, out: &mut Exposition) {
    let help = "Events to back ends, by what became of them: heard, given up after their last chance, or dropped \
                because too much waited.";
    let mut family = out.family("throng_webhook_events_total", Kind::Counter, help);
    let outcomes = [
        ("heard", &deliveries.heard),
        ("dead", &deliveries.dead),
        ("dropped", &deliveries.dropped),
    ];
    for (outcome, count) in outcomes {
        family.sample(&[("outcome", outcome)], count.load(Ordering::Relaxed));
    }
    let help = "Requests with events that failed, those that were tried again included.";
    let mut family = out.family("throng_webhook_failures_total", Kind::Counter, help);
    family.sample(&[], deliveries.failed.load(Ordering::Relaxed));
    let help = "Publications that back ends gave in answer to events, by what became of them.";
    let mut family = out.family("throng_webhook_replies_total", Kind::Counter, help);
    for (outcome, count) in [("published", &deliveries.published), ("refused", &deliveries.refused)]
    {
        family.sample(&[("outcome", outcome)], count.load(Ordering::Relaxed));
    }
}

async fn counters(State(api): State<Arc<Api>>, headers: HeaderMap) -> Answer {
    api.inspector(&headers)?;
    let own = [
        ("jwks_fetched_total", &api.jwks.fetched),
        ("jwks_failed_total", &api.jwks.failed),
        ("auth_webhook_posted_total", &api.consults.posted),
        ("auth_webhook_failed_total", &api.consults.failed),
        ("auth_webhook_late_total", &api.consults.late),
        ("auth_webhook_overflow_total", &api.consults.refused),
        ("webhook_heard_total", &api.deliveries.heard),
        ("webhook_dead_total", &api.deliveries.dead),
        ("webhook_dropped_total", &api.deliveries.dropped),
        ("webhook_failed_total", &api.deliveries.failed),
        ("webhook_published_total", &api.deliveries.published),
        ("webhook_refused_total", &api.deliveries.refused),
    ];
    let own = own.map(|(name, count)| (name, count.load(Ordering::Relaxed)));
    let limited = api.locked().refused().map(|(_, count)| count).sum();
    let own = own.into_iter().chain([("admin_rate_limited_total", limited)]);
    let counters = api.desk.counters().into_iter().chain(own);
    let counters: Map<String, Value> =
        counters.map(|(name, value)| (name.to_owned(), Value::from(value))).collect();
    Ok(json(StatusCode::OK, Value::Object(counters)))
}

async fn tickets(State(api): State<Arc<Api>>, request: Request) -> Answer {
    let (head, body) = request.into_parts();
    let key = api.admit(&head.headers, Scope::Tickets)?;
    let mut object = api.object(body).await?;
    let tenant = object.text("tenant", NAME_BYTES)?;
    let user = object.text("user", NAME_BYTES)?.ok_or_else(|| missing("user"))?;
    let rooms = object.raw("rooms");
    let ttl = object.whole("ttlMs", 1000, HOUR_MS)?.map(Duration::from_millis);
    let token_id = object.text("tokenId", NAME_BYTES)?;
    object.finish()?;
    let tenant = guard::tenant(&key, tenant)?;
    let ask = TicketAsk { tenant, user, rooms, ttl, token_id };
    let ticket = api.desk.mint(&ask)?;
    tracing::debug!(key = key.name, user = ask.user, tenant = ask.tenant, "a ticket was made");
    let mut body = json!({ "ticket": ticket.text, "expiresAt": ticket.expires_unix_ms });
    if let Some(everywhere) = ticket.everywhere {
        body["nodes"] = if everywhere { "all" } else { "this" }.into();
    }
    Ok(json(StatusCode::CREATED, body))
}

async fn revocations(State(api): State<Arc<Api>>, request: Request) -> Answer {
    let (head, body) = request.into_parts();
    let key = api.admit(&head.headers, Scope::Revoke)?;
    let mut object = api.object(body).await?;
    let tenant = object.text("tenant", NAME_BYTES)?;
    let user = object.text("user", NAME_BYTES)?;
    let id = object.text("tokenId", NAME_BYTES)?;
    let remember = object.whole("rememberMs", 1000, 30 * DAY_MS)?.unwrap_or(DAY_MS);
    object.finish()?;
    if id.is_some() && key.tenant.is_some() {
        let message = "this key is for one tenant, and a token id does not tell whose it is";
        return Err(Refusal::forbidden(message).about("tokenId"));
    }
    let tenant = guard::tenant(&key, tenant)?;
    let whose = match (user, id) {
        (Some(user), None) => Revoked::User { tenant, user },
        (None, Some(id)) => Revoked::Token { id },
        (None, None) => return Err(missing("user")),
        (Some(_), Some(_)) => {
            return Err(Refusal::field("tokenId", "name a user or a token, not both"));
        }
    };
    let revocation = Revocation { whose, remember: Duration::from_millis(remember) };
    let (receipt, stored) = api.desk.revoke(&revocation)?;
    tracing::info!(key = key.name, ?revocation, "revoked");
    api.taken(receipt).await?;
    api.stored(stored).await?;
    let mut body = json!({ "shards": api.desk.shards() });
    if let Some(is_linked) = api.desk.is_linked() {
        body["otherNodes"] = if is_linked { "now" } else { "later" }.into();
    }
    Ok(json(StatusCode::OK, body).into_response())
}
