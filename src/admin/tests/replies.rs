//! Answers of back ends while the shards are behind.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Bytes;

use super::keys::{Provider, answer};
use super::office::{Office, PATIENCE, SmallDesk};
use crate::admin::client::Client;
use crate::admin::deliver::{Deliveries, Record};
use crate::admin::desk::Desk;
use crate::admin::reply::{Reach, Replied, Voice, publish};
use crate::admin::{EventHook, Pace};
use crate::base::secret::Secret;
use crate::base::tidings::{Tiding, TidingKind, TidingKinds};
use crate::base::time::Time;

const SAID: &str = r#"{"publish":[{"everyone":true,"data":1}]}"#;

/// One thread, as the admin listener has.
fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

fn voice() -> Voice {
    Voice { rooms: Vec::new(), reach: vec![Reach::Everyone] }
}

/// What came of one answer whose back end may speak to everyone.
fn replied(desk: &Arc<SmallDesk>, patience: Duration) -> Replied {
    let desk: Arc<dyn Desk> = Arc::<SmallDesk>::clone(desk);
    let body = Ok(Bytes::from_static(SAID.as_bytes()));
    run(async { publish(desk, body, &voice(), &[None], patience).await }).expect("it was heard")
}

fn joined(document: &str) -> Tiding {
    Tiding { kind: TidingKind::Joined, tenant: None, document: document.as_bytes().into() }
}

#[test]
fn an_answer_waits_while_shards_are_behind_and_is_published_once() {
    let office = Office::open();
    office.desk.replies.behind.store(3, Ordering::Relaxed);
    let replied = replied(&office.desk, PATIENCE);
    assert_eq!((replied.published, replied.refused), (1, 0), "{replied:?}");
    assert_eq!(office.desk.replies.behind.load(Ordering::Relaxed), 0, "it was behind three times");
    assert_eq!(office.desk.replies.taken.load(Ordering::Relaxed), 1);
}

#[test]
fn an_answer_waits_no_longer_than_it_may() {
    let office = Office::open();
    let replied = replied(&office.desk, Duration::from_millis(30));
    let why = Some("the shards are behind".to_owned());
    assert_eq!(replied, Replied { refused: 1, why, ..Replied::default() });
    assert_eq!(office.desk.replies.taken.load(Ordering::Relaxed), 0, "nothing was posted");
}

#[test]
fn the_next_events_of_a_back_end_wait_behind_its_answer() {
    let office = Office::open();
    let backend = Provider::open(vec![answer("200 OK", SAID)]);
    let hook = EventHook {
        name: "games".to_owned(),
        url: format!("http://{}/", backend.address),
        secret: Secret::new("a secret to sign with"),
        kinds: TidingKinds::of(&[TidingKind::Joined]),
        timeout: PATIENCE,
        pace: Pace { batch: 1, linger: Duration::ZERO, attempts: 1, most_bytes: 10_000 },
        voice: voice(),
    };
    let tries = || u64::MAX - office.desk.replies.behind.load(Ordering::Relaxed);
    let (record, now) = (Record::default(), Time::ZERO);
    run(async {
        let desk: Arc<dyn Desk> = Arc::<SmallDesk>::clone(&office.desk);
        let client = Client::new().expect("a client");
        let mut deliveries = Deliveries::new(&[hook], client, desk);
        deliveries.take(vec![joined("{\"n\":1}"), joined("{\"n\":2}")], &record, now);
        deliveries.start(now, false);
        while tries() < 3 {
            tokio::task::yield_now().await;
        }
        // The first is answered, and its answer finds no space: nothing else may start.
        assert_eq!(deliveries.due(), None);
        deliveries.start(now, true);
        assert_eq!(deliveries.under_way.len(), 1);
        assert_eq!(backend.asked.load(Ordering::Relaxed), 1);
        assert_eq!(record.heard.load(Ordering::Relaxed), 0);
        office.desk.replies.behind.store(0, Ordering::Relaxed);
        for count in 1..=2 {
            let ended = deliveries.under_way.join_next().await.expect("a request");
            deliveries.finish(ended.expect("no panic"), &record, now);
            assert_eq!(record.heard.load(Ordering::Relaxed), count);
            assert_eq!(record.published.load(Ordering::Relaxed), count);
            deliveries.start(now, false);
        }
        assert!(deliveries.is_idle() && deliveries.under_way.is_empty());
    });
    assert_eq!(backend.asked.load(Ordering::Relaxed), 2);
    assert_eq!(office.desk.replies.taken.load(Ordering::Relaxed), 2, "each answer once");
}
