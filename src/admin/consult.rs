//! What shards want of the world: posting questions to the application's back end, and events.
//!
//! The shards' questions come through the desk, whose bell wakes this task; answers go back the same way.
//! So many are under way at a time, the rest wait in a line, and a question that finds the line full or waits
//! too long comes back undecided. Whatever the back end does, or does not do, happens here: no shard waits
//! for it. The first failure in a row is logged, and the recovery; all are counted.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use hyper::Uri;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::client::{Client, Failure};
use super::deliver::Deliveries;
use super::desk::{Inquiries, Outgoing};
use super::line::{Line, Next};
use super::options::Webhook;
use super::petitions::{Answered, Petitions};
use super::routes::Api;
use super::server::Orders;
use super::sign::{SIGNATURE, signature};
use crate::base::outside::Inquiry;
use crate::sys::clock::unix_millis;

/// How long to wait at most before it is looked again.
const LOOK: Duration = Duration::from_secs(3600);
/// Bytes of an answer.
const ANSWER_BYTES: usize = 65_536;

/// What came of the questions so far.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// Posted.
    pub(super) posted: AtomicU64,
    /// Posted, and without an answer that can be used.
    pub(super) failed: AtomicU64,
    /// Not posted, because they had waited too long.
    pub(super) late: AtomicU64,
    /// Not posted, because too many waited.
    pub(super) refused: AtomicU64,
}

/// The desk's bell, as the loop watches it. Every ring is an edge; nobody reads the count.
struct Bell(OwnedFd);

impl AsRawFd for Bell {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

type Done = (Inquiry, Result<Bytes, Failure>);

/// The questions of the node.
struct Consults {
    api: Arc<Api>,
    client: Client,
    line: Line<Inquiry>,
    under_way: JoinSet<Done>,
    /// Failures in a row.
    failures: u64,
    /// Events.
    deliveries: Deliveries,
    /// Plain requests that shards have handed on.
    petitions: Petitions,
}

/// Posts what the shards ask for as long as the thread runs, and in the end the events that wait.
pub(super) async fn serve(api: Arc<Api>, client: Client, mut told: watch::Receiver<Orders>) {
    let Some(desk) = api.desk.inquiries() else { return };
    let bell = match desk.bell().and_then(watch) {
        Ok(bell) => bell,
        Err(error) => return tracing::error!("the webhook cannot be used: {error}"),
    };
    let hooks = told.borrow().options.hooks.clone();
    let mut own = Consults {
        api: Arc::clone(&api),
        deliveries: Deliveries::new(&hooks, client.clone(), Arc::clone(&api.desk)),
        petitions: Petitions::new(&api),
        client,
        line: Line::new(),
        under_way: JoinSet::new(),
        failures: 0,
    };
    loop {
        let Orders { options, stop } = told.borrow_and_update().clone();
        let hook = options.webhook;
        desk.rise();
        own.start(desk, hook.as_ref());
        own.take(desk, hook.as_ref());
        own.deliveries.start(api.clock.now(), stop);
        if !desk.rest() {
            tokio::task::yield_now().await;
            continue;
        }
        if stop && own.deliveries.is_idle() {
            return;
        }
        tokio::select! {
            // Late is the time at which there is something to do again.
            rung = timeout(own.patience(), rung(&bell)) => if let Ok(Err(error)) = rung {
                return tracing::error!("the webhook cannot be used: {error}");
            },
            Some(posted) = own.deliveries.under_way.join_next() => match posted {
                Ok(posted) => {
                    own.deliveries.finish(posted, &api.deliveries, api.clock.now());
                }
                Err(error) => tracing::error!("events were lost: {error}"),
            },
            Some(answered) = own.petitions.under_way.join_next() => match answered {
                Ok(Answered { from, number, response }) => desk.answer(from, number, response),
                // Its client hears of the end of its time.
                Err(error) => tracing::error!("a request was lost: {error}"),
            },
            Some(done) = own.under_way.join_next() => match done {
                Ok(done) => own.finish(desk, done),
                Err(error) => tracing::error!("a question was lost: {error}"),
            },
            changed = told.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

#[expect(deprecated, reason = "what replaces it is unsafe; an owned descriptor stays open")]
fn watch(bell: OwnedFd) -> io::Result<AsyncFd<Bell>> {
    AsyncFd::with_interest(Bell(bell), Interest::READABLE)
}

async fn rung(bell: &AsyncFd<Bell>) -> io::Result<()> {
    bell.readable().await?.clear_ready();
    Ok(())
}

impl Consults {
    /// How long nothing need be done if nothing happens.
    fn patience(&self) -> Duration {
        let due = self.deliveries.due();
        due.map_or(LOOK, |due| due.since(self.api.clock.now()).min(LOOK))
    }

    /// Takes in all that the shards ask; whatever finds a place free does not wait.
    fn take(&mut self, desk: &dyn Inquiries, hook: Option<&Webhook>) {
        let most = hook.map_or(0, |hook| hook.waiting);
        let now = self.api.clock.now();
        while let Some(outgoing) = desk.next() {
            let inquiry = match outgoing {
                Outgoing::Question(inquiry) => inquiry,
                Outgoing::Petition(petition) => {
                    self.petitions.take(petition);
                    continue;
                }
                Outgoing::Events(events) => {
                    self.deliveries.take(events, &self.api.deliveries, now);
                    continue;
                }
            };
            if let Err(inquiry) = self.line.push(inquiry, now, most) {
                self.api.consults.refused.fetch_add(1, Ordering::Relaxed);
                let _ = desk.finish(&inquiry, None);
            }
            self.start(desk, hook);
        }
    }

    /// Posts as many as may be under way.
    fn start(&mut self, desk: &dyn Inquiries, hook: Option<&Webhook>) {
        let Some(hook) = hook else { return };
        while self.under_way.len() < hook.concurrent && self.line.len() > 0 {
            match self.line.next(self.api.clock.now(), hook.timeout) {
                Some(Next::Post(inquiry, patience)) => {
                    self.api.consults.posted.fetch_add(1, Ordering::Relaxed);
                    self.under_way.spawn(post(
                        self.client.clone(),
                        hook.clone(),
                        inquiry,
                        patience,
                    ));
                }
                Some(Next::Late(inquiry)) => {
                    self.api.consults.late.fetch_add(1, Ordering::Relaxed);
                    let _ = desk.finish(&inquiry, None);
                }
                None => return,
            }
        }
    }

    /// Hands an answer to whoever asked.
    fn finish(&mut self, desk: &dyn Inquiries, (inquiry, answer): Done) {
        let read = match &answer {
            Ok(document) => desk.finish(&inquiry, Some(document)),
            Err(failure) => desk.finish(&inquiry, None).and(Err(failure.to_string())),
        };
        match read {
            Ok(()) => {
                if std::mem::take(&mut self.failures) > 0 {
                    tracing::info!("auth_webhook.url answers again");
                }
            }
            Err(why) => {
                self.api.consults.failed.fetch_add(1, Ordering::Relaxed);
                if self.failures == 0 {
                    tracing::warn!("auth_webhook.url: {why}");
                }
                self.failures += 1;
            }
        }
    }
}

/// Posts one question.
async fn post(client: Client, hook: Webhook, inquiry: Inquiry, patience: Duration) -> Done {
    let body = Bytes::copy_from_slice(&inquiry.document);
    let signature = signature(&hook.secret, unix_millis() / 1000, &body);
    let headers = [("content-type", "application/json"), (SIGNATURE, &*signature)];
    let answer = match hook.url.parse::<Uri>() {
        Ok(uri) => client.post(&uri, &headers, body, ANSWER_BYTES, patience).await,
        Err(error) => Err(Failure::Connection(error.to_string())),
    };
    (inquiry, answer)
}
