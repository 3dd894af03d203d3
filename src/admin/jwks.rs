//! Keys by URL: fetched at start, again in an interval, and early when tokens name keys nobody knows.
//!
//! What was fetched last stays good when a fetch fails: an identity provider that is down must not close the
//! door on everyone whose token is signed by a known key. Failures and recoveries are logged once each and
//! counted. Whoever sends tokens with made-up key ids causes at most one early fetch in a cool-down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hyper::Uri;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::client::Client;
use super::options::Jwks;
use super::routes::Api;
use super::server::Orders;

/// Bytes of a document at most; a hundred RSA keys need fewer.
const DOCUMENT_BYTES: usize = 262_144;
/// How often it is looked whether a fetch is due.
const LOOK: Duration = Duration::from_secs(1);

/// What came of the fetches so far.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) fetched: AtomicU64,
    pub(super) failed: AtomicU64,
    /// True while a URL is configured and nothing was fetched from it yet.
    pub(super) empty: AtomicBool,
}

/// Keeps the node's keys fresh for as long as the listener's thread runs.
pub(super) async fn keep(api: Arc<Api>, client: Client, mut told: watch::Receiver<Orders>) {
    let mut failures = 0_u32;
    let mut last: Option<Jwks> = None;
    loop {
        let wanted = told.borrow_and_update().options.jwks.clone();
        api.jwks.empty.store(wanted.is_some() && wanted != last, Ordering::Relaxed);
        let Some(source) = wanted else {
            last = None;
            if told.changed().await.is_err() {
                return;
            }
            continue;
        };
        if last.as_ref() != Some(&source) {
            failures = 0;
        }
        last = Some(source.clone());
        loop {
            failures = fetch(&api, &client, &source, failures).await;
            tokio::select! {
                () = due(&api, &source, failures) => {}
                changed = told.changed() => match changed {
                    Ok(()) if told.borrow().options.jwks.as_ref() != Some(&source) => break,
                    Ok(()) => {}
                    Err(_) => return,
                },
            }
        }
    }
}

/// Fetches once; gives the number of failures in a row.
async fn fetch(api: &Api, client: &Client, source: &Jwks, failures: u32) -> u32 {
    let taken = match source.url.parse::<Uri>() {
        Ok(uri) => match client.get(&uri, DOCUMENT_BYTES, source.timeout).await {
            Ok(document) => api.desk.take_keys(&document),
            Err(failure) => Err(failure.to_string()),
        },
        Err(error) => Err(error.to_string()),
    };
    match taken {
        Ok(keys) => {
            api.jwks.fetched.fetch_add(1, Ordering::Relaxed);
            if failures > 0 || api.jwks.empty.swap(false, Ordering::Relaxed) {
                tracing::info!(keys, "keys were fetched from auth.jwks_url");
            }
            0
        }
        Err(why) => {
            api.jwks.failed.fetch_add(1, Ordering::Relaxed);
            if failures == 0 {
                tracing::warn!("auth.jwks_url: {why}; the keys fetched last stay good");
            }
            failures.saturating_add(1)
        }
    }
}

/// Waits until the next fetch is due.
async fn due(api: &Api, source: &Jwks, failures: u32) {
    let regular = match failures {
        0 => source.interval,
        failures => source.interval.min(source.cool_down * 2_u32.pow(failures.min(8) - 1)),
    };
    let (since, unknown) = (api.clock.now(), api.desk.unknown_keys());
    let mut looks = interval(LOOK.min(source.cool_down));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let passed = api.clock.now().since(since);
        let early = passed >= source.cool_down && api.desk.unknown_keys() != unknown;
        if passed >= regular || early {
            return;
        }
    }
}
