//! The node's side of the admin listener: requests become mail, and mail taken becomes answers.
//!
//! The desk has a port of the mesh of its own. What an inbox has no space for waits here, in order and in
//! bounds: when too much waits, the next request is refused whole. Behind everything that a request
//! posts goes a [`Mail::Mark`] with a number that only grows; each shard posts the last number it met on
//! the board, so that "every shard has taken it" is a look at the board.

use std::collections::VecDeque;
use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};

use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use crate::admin::{
    self, Admin, ApiKey, Desk, EventHook, Exposition, Inquiries, Jwks, Later, Limits, Options,
    Pace, Rate, Receipt, Refused, Revocation, Revoked, Scope, Standing, Ticket, TicketAsk, Voice,
};
use crate::auth::{self, Claimed, KeySet, Source, TicketKey, TokenError};
use crate::base::counters::Counters;
use crate::base::id::ShardId;
use crate::base::secret::Secret;
use crate::base::tidings::TidingKinds;
use crate::mesh::{Lane, Port};
use crate::node::board::Board;
use crate::node::census::Questions;
use crate::node::config::Config;
use crate::node::config::admin::{Key, LONGEST_SECRET, SHORTEST_SECRET};
use crate::node::config::auth::AuthMode;
use crate::node::config::hook::{AuthWebhook, Webhook};
use crate::node::config::values::KeyScope;
use crate::node::keeper::{From as Asker, StoreHandle, kept_revocation};
use crate::node::keys;
use crate::node::link::bridge_port;
use crate::node::metrics::{self, About};
use crate::node::publishing::Publishing;
use crate::node::running::LaunchError;
use crate::node::schemas;
use crate::session::schema::Schemas;
use crate::shard::{Laggard, Mail, Surveyed};
use crate::store::{self, Ask};
use crate::sys::clock::unix_millis;
use crate::sys::listener::{self, ListenOptions};

/// The admin thread and the desk it asks.
#[derive(Debug)]
pub(super) struct Office {
    admin: Admin,
    desk: Arc<NodeDesk>,
}

impl Office {
    /// Starts the admin thread, if the configuration has work for it.
    pub(super) fn open(config: &Config, desk: NodeDesk) -> Result<Option<Self>, LaunchError> {
        let Prepared { options, schemas } = options(config)?;
        desk.adopt(config, &schemas);
        let asks = options.webhook.is_some() || !options.hooks.is_empty();
        let asks = asks || options.is_public;
        let has_work = options.jwks.is_some() || asks;
        if config.admin.listen.is_none() && !has_work {
            return Ok(None);
        }
        let failed = |error| LaunchError::new("admin.listen", error);
        let listen = ListenOptions { reuse_port: false, backlog: 128, ..ListenOptions::default() };
        let socket = config.admin.listen.map(|address| listener::listen(address, &listen));
        let socket = socket.transpose().map_err(failed)?;
        let desk = Arc::new(desk);
        let behind: Arc<dyn Desk> = Arc::<NodeDesk>::clone(&desk);
        let admin = Admin::start(socket, behind, options).map_err(failed)?;
        Ok(Some(Self { admin, desk }))
    }

    /// Where the admin listener is, if there is one.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.admin.address()
    }

    /// True when the thread has ended; it does so by itself only by failing.
    pub(super) fn has_failed(&self) -> bool {
        self.admin.has_failed()
    }

    /// Takes over what a new configuration says, with what was made of it.
    pub(super) fn reload(&self, config: &Config, prepared: Prepared) {
        self.desk.adopt(config, &prepared.schemas);
        self.admin.reload(prepared.options);
    }
}

/// What is made of a configuration before any of it is taken over.
pub(super) struct Prepared {
    options: Options,
    schemas: Arc<Schemas>,
}

/// What the configuration says of the admin listener, with the secrets of its keys, and the schemas that hold for
/// what back ends publish.
///
/// # Errors
/// When a file cannot be read or holds something else.
pub(super) fn options(config: &Config) -> Result<Prepared, LaunchError> {
    Ok(Prepared { options: listener(config)?, schemas: schemas::compile(config)? })
}

fn listener(config: &Config) -> Result<Options, LaunchError> {
    let (listener, jwks, hook) = (&config.admin, &config.auth.jwks, &config.auth.webhook);
    let secret =
        |hook: &AuthWebhook| secret("auth_webhook.secret_file", &hook.secret, &hook.secret_file);
    Ok(Options {
        keys: config.lists.keys.iter().map(key).collect::<Result<_, _>>()?,
        limits: Limits {
            request_timeout: listener.request_timeout,
            body_bytes: listener.max_body_bytes as usize,
            connections: usize::from(listener.max_connections),
            requests_per_second: listener.requests_per_second,
            shard_timeout: listener.shard_timeout,
        },
        metrics_open: listener.metrics_open,
        jwks: (!jwks.url.is_empty()).then(|| Jwks {
            url: jwks.url.clone(),
            interval: jwks.interval,
            timeout: jwks.timeout,
            cool_down: jwks.cool_down,
        }),
        webhook: match hook.url.as_str() {
            "" => None,
            url => Some(admin::Webhook {
                url: url.to_owned(),
                secret: secret(hook)?,
                timeout: hook.timeout,
                concurrent: usize::from(hook.concurrent),
                waiting: hook.waiting as usize,
            }),
        },
        is_public: config.admin.public,
        hooks: config.lists.webhooks.iter().map(event_hook).collect::<Result<_, _>>()?,
    })
}

fn key(key: &Key) -> Result<ApiKey, LaunchError> {
    let scopes: Vec<Scope> = key
        .scopes
        .iter()
        .map(|scope| match scope {
            KeyScope::Tickets => Scope::Tickets,
            KeyScope::Revoke => Scope::Revoke,
            KeyScope::Inspect => Scope::Inspect,
            KeyScope::Notify => Scope::Notify,
            KeyScope::Publish => Scope::Publish,
        })
        .collect();
    let secret = secret("key.secret_file", &key.secret, &key.secret_file)?;
    let tenant = (!key.tenant.is_empty()).then_some(key.tenant.as_str());
    let given = |number: u32| (number > 0).then_some(number);
    let rate = Rate { per_second: given(key.requests_per_second), burst: given(key.burst) };
    Ok(ApiKey::new(&key.name, secret.expose(), &scopes, tenant).with_rate(rate))
}

fn event_hook(hook: &Webhook) -> Result<EventHook, LaunchError> {
    Ok(EventHook {
        name: hook.name.clone(),
        url: hook.url.clone(),
        secret: secret("webhook.secret_file", &hook.secret, &hook.secret_file)?,
        kinds: TidingKinds::of(&hook.events),
        timeout: hook.timeout,
        pace: Pace {
            batch: usize::from(hook.batch),
            linger: hook.linger,
            attempts: u32::from(hook.attempts),
            most_bytes: hook.waiting as usize,
        },
        voice: Voice { rooms: hook.may_publish.clone(), reach: hook.may_reach.clone() },
    })
}

/// A secret that stands in the configuration, or else in the file that `key` names.
fn secret(key: &str, given: &Secret, file: &str) -> Result<Secret, LaunchError> {
    if file.is_empty() {
        return Ok(given.clone());
    }
    let named = |why: &dyn fmt::Display| LaunchError::new(format_args!("{key} = {file:?}"), why);
    let text = fs::read_to_string(file).map_err(|error| named(&error))?;
    let text = text.trim();
    if !(SHORTEST_SECRET..=LONGEST_SECRET).contains(&text.len()) {
        let bytes = format!("expected {SHORTEST_SECRET} to {LONGEST_SECRET} bytes on one line");
        return Err(named(&bytes));
    }
    Ok(Secret::new(text))
}

/// Bytes of a notification's message beside what its sender wrote, at most.
const ENVELOPE: usize = 256;

/// Mail that may wait for each shard.
const WAITING: usize = 1024;

#[expect(
    clippy::disallowed_types,
    reason = "held by the admin thread alone, which shares no shard's state"
)]
pub(super) type Mutex<T> = std::sync::Mutex<T>;

/// What the admin thread asks the node by.
#[derive(Debug)]
pub(super) struct NodeDesk {
    pub(super) shards: u16,
    pub(super) board: Arc<Board>,
    tickets: TicketKey,
    store: StoreHandle,
    rules: Mutex<Rules>,
    about: Mutex<About>,
    pub(super) out: Mutex<Out>,
    pub(super) publishing: Publishing,
    /// The number of the last mark.
    marked: AtomicU64,
    pub(super) questions: Questions,
    surveys: Mutex<Surveys>,
}

/// Who has most to read, as far as the shards have answered.
#[derive(Debug)]
struct Surveys {
    /// The number of the last question.
    number: u64,
    /// The last answer of each shard.
    found: Vec<Surveyed>,
}

/// What the configuration provides for.
#[derive(Clone, Copy, Debug, Default)]
struct Rules {
    /// Clients say who they are.
    tokens: bool,
    /// They may do so by a ticket.
    tickets: bool,
    /// Bytes of a message, and so of a notification.
    message_bytes: usize,
}

/// What a ticket says, under the names that the engine reads it by.
#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rooms: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<&'a str>,
    iat: u64,
}

/// Mail on its way to the shards.
#[derive(Debug)]
pub(super) struct Out {
    pub(super) port: Port<Mail>,
    /// Per shard, in order.
    pub(super) waiting: Vec<VecDeque<Mail>>,
}

impl Out {
    pub(super) fn new(shards: u16, port: Port<Mail>) -> Self {
        Self { port, waiting: (0..shards).map(|_| VecDeque::new()).collect() }
    }

    /// Puts mail in line behind what waits for that shard.
    pub(super) fn push(&mut self, shard: usize, mail: Mail) {
        self.waiting[shard].push_back(mail);
    }

    /// True when nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.iter().all(VecDeque::is_empty)
    }

    /// False while a shard has as much waiting for it as there may be.
    pub(super) fn has_space(&self) -> bool {
        self.waiting.iter().all(|waiting| waiting.len() < WAITING)
    }

    /// Posts what the inboxes have space for.
    pub(super) fn offer(&mut self) {
        for (shard, waiting) in self.waiting.iter_mut().enumerate() {
            while let Some(mail) = waiting.pop_front() {
                if let Err(mail) = self.port.post(shard, Lane::Delivery, mail) {
                    waiting.push_front(mail);
                    break;
                }
            }
        }
    }
}

impl NodeDesk {
    pub(super) fn new(
        shards: u16,
        board: &Arc<Board>,
        tickets: &TicketKey,
        store: StoreHandle,
        publishing: Publishing,
        port: Port<Mail>,
        about: About,
    ) -> Self {
        Self {
            shards,
            board: Arc::clone(board),
            tickets: tickets.clone(),
            store,
            rules: Mutex::default(),
            about: Mutex::new(about),
            out: Mutex::new(Out::new(shards, port)),
            marked: AtomicU64::new(0),
            publishing,
            questions: Questions::new(),
            surveys: Mutex::new(Surveys {
                number: 0,
                found: vec![Surveyed::default(); usize::from(shards)],
            }),
        }
    }

    fn adopt(&self, config: &Config, schemas: &Arc<Schemas>) {
        self.publishing.adopt(config, schemas);
        let door = &config.auth.door;
        let tokens = door.mode == AuthMode::Token;
        let tickets = tokens && door.sources.contains(&Source::Ticket);
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner) =
            Rules { tokens, tickets, message_bytes: config.limits.message.max_bytes as usize };
        self.about.lock().unwrap_or_else(PoisonError::into_inner).adopt(config);
    }

    /// The port, and what waits to leave by it.
    pub(super) fn out(&self) -> MutexGuard<'_, Out> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rules(&self) -> Rules {
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask_store(&self, ask: Ask, reached: Option<oneshot::Sender<u64>>) -> Result<Later, Refused> {
        let (stored, later) = oneshot::channel();
        let asked = self.store.ask(Asker::Admin { stored, reached }, ask);
        asked.map(|()| later).map_err(|_| Refused::Store(store::Refused::Busy))
    }

    /// Posts mail, if there is any, to every shard, and a mark behind it; or nothing at all.
    pub(super) fn post_all(&self, mail: impl Fn() -> Option<Mail>) -> Result<Receipt, Refused> {
        let mut out = self.out();
        out.offer();
        if out.waiting.iter().any(|waiting| waiting.len() + 2 > WAITING) {
            return Err(Refused::Busy);
        }
        let mark = self.marked.fetch_add(1, Ordering::Relaxed) + 1;
        for waiting in &mut out.waiting {
            waiting.extend(mail());
            waiting.push_back(Mail::Mark(mark));
        }
        out.offer();
        Ok(Receipt(mark))
    }
}

fn laggard(found: &Laggard) -> admin::Laggard {
    let (tenant, user) = match &found.who {
        Some((tenant, user)) => (tenant.as_deref(), Some(&**user)),
        None => (None, None),
    };
    admin::Laggard {
        conn: found.conn.to_string(),
        tenant: tenant.map(str::to_owned),
        user: user.map(str::to_owned),
        waiting: found.waiting,
        rooms: found.rooms,
        life: found.life,
    }
}

impl NodeDesk {
    /// True where other nodes are asked for the members of rooms.
    pub(super) fn has_others(&self) -> bool {
        let about = self.about.lock().unwrap_or_else(PoisonError::into_inner);
        about.absent.is_some()
    }

    /// Posts mail to the bridge, if there is one; false when it has no space for it.
    pub(super) fn post_bridge(&self, mail: Mail) -> bool {
        let to = bridge_port(usize::from(self.shards));
        self.is_linked().is_none() || self.out().port.post(to, Lane::Request, mail).is_ok()
    }

    /// Since when Redis remembers used tickets; `None` without a link.
    fn era(&self) -> Option<u32> {
        let about = self.about.lock().unwrap_or_else(PoisonError::into_inner);
        about.era.as_ref()?.read()
    }

    /// The nodes whose users are not all known; `None` when there are none.
    pub(super) fn absent_nodes(&self) -> Option<Vec<String>> {
        let about = self.about.lock().unwrap_or_else(PoisonError::into_inner);
        let absent = about.absent.as_ref()?.read()?;
        Some(absent.iter().map(ToString::to_string).collect())
    }
}

impl Desk for NodeDesk {
    fn standing(&self) -> Standing {
        let mut reasons = Vec::new();
        if self.board.is_draining() {
            reasons.push("draining");
        }
        let about = self.about.lock().unwrap_or_else(PoisonError::into_inner);
        let is_broken = self.store.tally().is_broken();
        reasons.extend(about.shortages(&self.board.total(), is_broken));
        Standing { reasons, degraded: about.troubles(is_broken) }
    }

    fn probe(&self) -> Result<Receipt, Refused> {
        self.post_all(|| None)
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        let shards = Counters::NAMES.iter().copied().zip(self.board.total().values());
        let about = self.about.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let bridge = about.bridge.into_iter().flat_map(|tally| tally.pairs());
        let front = about.front.into_iter().flat_map(|tally| tally.pairs());
        shards.chain(self.store.tally().pairs()).chain(bridge).chain(front).collect()
    }

    fn survey(&self) -> Result<Receipt, Refused> {
        let mut surveys = self.surveys.lock().unwrap_or_else(PoisonError::into_inner);
        let number = surveys.number + 1;
        self.post_all(|| Some(Mail::Survey(number)))?;
        surveys.number = number;
        Ok(Receipt(number))
    }

    fn surveyed(&self, receipt: Receipt) -> Option<Vec<admin::Laggard>> {
        self.out().offer();
        let mut surveys = self.surveys.lock().unwrap_or_else(PoisonError::into_inner);
        for (shard, found) in self.board.surveys() {
            surveys.found[usize::from(shard.0)] = found;
        }
        let all = surveys.found.iter().all(|found| found.number >= receipt.0);
        let laggards = surveys.found.iter().flat_map(|found| &found.laggards);
        all.then(|| laggards.map(laggard).collect())
    }

    fn expose(&self, out: &mut Exposition) {
        let depth = |shard: u16| {
            let out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
            Lane::ALL.map(|lane| out.port.depth(usize::from(shard), lane))
        };
        let inboxes: Vec<_> = (0..self.shards).map(depth).collect();
        let about = self.about.lock().unwrap_or_else(PoisonError::into_inner).clone();
        metrics::expose(out, &self.board, &about, &inboxes);
        metrics::expose_tally(out, self.store.tally().rows());
        if let Some(tally) = &about.bridge {
            metrics::expose_tally(out, tally.rows());
        }
        let help =
            "Publications of back ends refused because their payload does not fit its schema.";
        let misfits = self.publishing.misfits.load(Ordering::Relaxed);
        out.family("throng_publish_payloads_refused_total", admin::Kind::Counter, help)
            .sample(&[], misfits);
        if let Some(tally) = &about.front {
            metrics::expose_tally(out, tally.rows());
        }
    }

    fn mint(&self, ask: &TicketAsk) -> Result<Ticket, Refused> {
        if !self.rules().tickets {
            return Err(Refused::NotConfigured(
                "tickets need auth.mode = \"token\" and \"ticket\" among auth.sources",
            ));
        }
        let now = unix_millis() / 1000;
        let life = ask.ttl.map_or(TicketKey::LIFE, |ttl| {
            ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0))
        });
        let expires = now.saturating_add(life);
        let claims = Claims {
            sub: &ask.user,
            tenant: ask.tenant.as_deref(),
            rooms: ask.rooms.as_deref(),
            jti: ask.token_id.as_deref(),
            iat: now,
        };
        let claims = serde_json::to_string(&claims).map_err(|_| Refused::Busy)?;
        // One that was minted without a link must not need one to be used.
        let shared = self.tickets.is_shared();
        let era = self.era().filter(|_| shared);
        let text = keys::mint_ticket(&self.tickets, &claims, expires, era).map_err(|error| {
            let (name, why) = match error {
                TokenError::TooLong => ("rooms", "the ticket would be too long"),
                TokenError::Claim(Claimed::Tenant) => ("tenant", error.public()),
                TokenError::Claim(Claimed::User) => ("user", error.public()),
                TokenError::Claim(Claimed::Token) => ("tokenId", error.public()),
                _ => ("rooms", "expected patterns, as [\"a\"] or {\"a\":[\"join\"]}"),
            };
            Refused::Field { name, why: why.to_owned() }
        })?;
        let everywhere = shared.then_some(era.is_some());
        Ok(Ticket { text, expires_unix_ms: expires.saturating_mul(1000), everywhere })
    }

    fn revoke(&self, revocation: &Revocation) -> Result<(Receipt, Later), Refused> {
        if !self.rules().tokens {
            return Err(Refused::NotConfigured(
                "nobody is known, and so nobody can be revoked, without auth.mode = \"token\"",
            ));
        }
        let issued = unix_millis() / 1000;
        let until = issued.saturating_add(revocation.remember.as_secs());
        let revocation = match &revocation.whose {
            Revoked::User { tenant, user } => auth::Revocation::User {
                tenant: tenant.as_deref().map(Box::from),
                user: user.as_str().into(),
                issued,
                until,
            },
            Revoked::Token { id } => auth::Revocation::Token { id: id.as_str().into(), until },
        };
        let revocation = Arc::new(revocation);
        if !self.post_bridge(Mail::Revoke(Arc::clone(&revocation))) {
            return Err(Refused::Busy);
        }
        let receipt = self.post_all(|| Some(Mail::Revoke(Arc::clone(&revocation))))?;
        // It holds from now on, whatever the store says to it; what it says is told.
        let ask = Ask::Revoke(kept_revocation(&revocation));
        Ok((receipt, self.ask_store(ask, None)?))
    }

    fn is_linked(&self) -> Option<bool> {
        let about = self.about.lock().unwrap_or_else(PoisonError::into_inner);
        about.bridge.as_ref().map(|tally| tally.is_up())
    }

    fn owner(&self, tenant: Option<&str>, user: &str) -> Arc<str> {
        auth::user_room(tenant, user).into()
    }

    fn keep(&self, ask: Ask, reached: Option<oneshot::Sender<u64>>) -> Result<Later, Refused> {
        let rules = self.rules();
        if !rules.tokens {
            return Err(Refused::NotConfigured(
                "nobody is known, and so nobody has an inbox, without auth.mode = \"token\"",
            ));
        }
        if let Ask::Append(draft) = &ask
            && draft.payload.len() + draft.kind.len() + ENVELOPE > rules.message_bytes
        {
            let why =
                format!("expected less than limits.max_message_bytes = {}", rules.message_bytes);
            return Err(Refused::Field { name: "payload", why });
        }
        self.ask_store(ask, reached)
    }

    fn take_keys(&self, document: &[u8]) -> Result<usize, String> {
        let keys = KeySet::from_jwks(document).map_err(|error| error.to_string())?;
        let (count, keys) = (keys.keys().len(), Arc::new(keys));
        let posted = self.post_all(|| Some(Mail::Keys(Arc::clone(&keys))));
        posted.map(|_| count).map_err(|_| "mail to the shards is backed up".to_owned())
    }

    fn unknown_keys(&self) -> u64 {
        self.board.total().auth_unknown_key_total
    }

    fn is_taken(&self, receipt: Receipt) -> bool {
        self.out().offer();
        (0..self.shards).all(|shard| self.board.mark(ShardId(shard)) >= receipt.0)
    }

    fn shards(&self) -> usize {
        usize::from(self.shards)
    }

    fn inquiries(&self) -> Option<&dyn Inquiries> {
        Some(self)
    }
}
