//! The node's side of the admin listener: requests become mail, and mail taken becomes answers.
//!
//! The desk has a port of the mesh of its own. What an inbox has no space for waits here, in order and in
//! bounds: when too much waits, the next request is refused whole. Behind everything that a request
//! posts goes a [`Mail::Mark`] with a number that only grows; each shard posts the last number it met on
//! the board, so that "every shard has taken it" is a look at the board.

use std::collections::VecDeque;
use std::fmt;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use crate::admin::{
    Admin, ApiKey, Desk, Limits, Options, Receipt, Refused, Revocation, Scope, Standing, Ticket,
    TicketAsk,
};
use crate::base::counters::Counters;
use crate::base::id::ShardId;
use crate::base::secret::Secret;
use crate::mesh::{Lane, Port};
use crate::node::board::Board;
use crate::node::config::Config;
use crate::node::config::admin::{Key, LONGEST_SECRET, SHORTEST_SECRET};
use crate::node::config::values::KeyScope;
use crate::node::running::LaunchError;
use crate::shard::Mail;
use crate::sys::listener::{self, ListenOptions};

/// Starts the admin listener, if the configuration wants one.
pub(super) fn start(
    config: &Config,
    shards: u16,
    board: &Arc<Board>,
    port: Port<Mail>,
) -> Result<Option<Admin>, LaunchError> {
    let Some(address) = config.admin.listen else { return Ok(None) };
    let failed = |error| LaunchError::new("admin.listen", error);
    let options = options(config)?;
    let listen = ListenOptions { reuse_port: false, backlog: 128, ..ListenOptions::default() };
    let socket = listener::listen(address, &listen).map_err(failed)?;
    let desk = NodeDesk::new(shards, Arc::clone(board), port);
    Admin::start(socket, Arc::new(desk), options).map(Some).map_err(failed)
}

/// What the configuration says of the admin listener, with the secrets of its keys.
///
/// # Errors
/// When a file of a secret cannot be read or holds none.
pub(super) fn options(config: &Config) -> Result<Options, LaunchError> {
    let admin = &config.admin;
    Ok(Options {
        keys: config.lists.keys.iter().map(key).collect::<Result<_, _>>()?,
        limits: Limits {
            request_timeout: admin.request_timeout,
            body_bytes: admin.max_body_bytes as usize,
            connections: usize::from(admin.max_connections),
            requests_per_second: admin.requests_per_second,
            shard_timeout: admin.shard_timeout,
        },
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
        })
        .collect();
    let secret = if key.secret_file.is_empty() {
        key.secret.clone()
    } else {
        let named = |why: &dyn fmt::Display| {
            LaunchError::new(format_args!("key.secret_file = {:?}", key.secret_file), why)
        };
        let text = fs::read_to_string(&key.secret_file).map_err(|error| named(&error))?;
        let text = text.trim();
        if !(SHORTEST_SECRET..=LONGEST_SECRET).contains(&text.len()) {
            let bytes = format!("expected {SHORTEST_SECRET} to {LONGEST_SECRET} bytes on one line");
            return Err(named(&bytes));
        }
        Secret::new(text)
    };
    let tenant = (!key.tenant.is_empty()).then_some(key.tenant.as_str());
    Ok(ApiKey::new(&key.name, secret.expose(), &scopes, tenant))
}

/// Mail that may wait for each shard.
const WAITING: usize = 1024;

#[expect(
    clippy::disallowed_types,
    reason = "held by the admin thread alone, which shares no shard's state"
)]
type Mutex<T> = std::sync::Mutex<T>;

/// What the admin thread asks the node by.
#[derive(Debug)]
pub(super) struct NodeDesk {
    shards: u16,
    board: Arc<Board>,
    out: Mutex<Out>,
    /// The number of the last mark.
    marked: AtomicU64,
}

/// Mail on its way to the shards.
#[derive(Debug)]
struct Out {
    port: Port<Mail>,
    /// Per shard, in order.
    waiting: Vec<VecDeque<Mail>>,
}

impl Out {
    fn offer(&mut self) {
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
    pub(super) fn new(shards: u16, board: Arc<Board>, port: Port<Mail>) -> Self {
        let waiting = (0..shards).map(|_| VecDeque::new()).collect();
        Self { shards, board, out: Mutex::new(Out { port, waiting }), marked: AtomicU64::new(0) }
    }

    /// Posts mail, if there is any, to every shard, and a mark behind it; or nothing at all.
    fn post_all(&self, mail: impl Fn() -> Option<Mail>) -> Result<Receipt, Refused> {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
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

impl Desk for NodeDesk {
    fn standing(&self) -> Standing {
        let mut reasons = Vec::new();
        if self.board.is_draining() {
            reasons.push("draining");
        }
        Standing { reasons }
    }

    fn probe(&self) -> Result<Receipt, Refused> {
        self.post_all(|| None)
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        Counters::NAMES.iter().copied().zip(self.board.total().values()).collect()
    }

    fn mint(&self, _ask: &TicketAsk) -> Result<Ticket, Refused> {
        Err(Refused::NotConfigured("tickets"))
    }

    fn revoke(&self, _revocation: &Revocation) -> Result<Receipt, Refused> {
        Err(Refused::NotConfigured("revocations"))
    }

    fn is_taken(&self, receipt: Receipt) -> bool {
        self.out.lock().unwrap_or_else(PoisonError::into_inner).offer();
        (0..self.shards).all(|shard| self.board.mark(ShardId(shard)) >= receipt.0)
    }

    fn shards(&self) -> usize {
        usize::from(self.shards)
    }
}
