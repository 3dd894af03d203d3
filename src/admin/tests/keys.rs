//! Keys by URL, from a provider that is at times slow, wrong or down.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::office::{Office, SECRET};
use crate::admin::{Jwks, Limits};

const ONE: &str = r#"{"keys":[1]}"#;
const TWO: &str = r#"{"keys":[1,2]}"#;

/// Serves one answer at a time to whoever asks, and counts.
pub(super) struct Provider {
    pub(super) address: SocketAddr,
    pub(super) asked: Arc<AtomicUsize>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Provider {
    /// The n-th request gets the n-th answer, and all after the last one that.
    pub(super) fn open(answers: Vec<String>) -> Self {
        Self::choosing(answers, |asked| asked)
    }

    /// Every request gets the answer whose number stands there.
    fn saying(answers: Vec<String>, number: &Arc<AtomicUsize>) -> Self {
        let number = Arc::clone(number);
        Self::choosing(answers, move |_| number.load(Ordering::SeqCst))
    }

    fn choosing(answers: Vec<String>, at: impl Fn(usize) -> usize + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("an address");
        let (asked, ends) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counts, stops) = (Arc::clone(&asked), Arc::clone(&ends));
        let serve = move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                if stops.load(Ordering::Relaxed) {
                    return;
                }
                let _ = stream.read(&mut [0; 4096]);
                let at = at(counts.fetch_add(1, Ordering::Relaxed));
                // Whoever asked may have lost patience.
                let _ = stream.write_all(answers[at.min(answers.len() - 1)].as_bytes());
            }
        };
        let thread = std::thread::Builder::new().spawn(serve).expect("a thread");
        Self { address, asked, ends, thread: Some(thread) }
    }

    fn jwks(&self, interval_ms: u64, cool_down_ms: u64) -> Option<Jwks> {
        Some(Jwks {
            url: format!("http://{}/keys", self.address),
            interval: Duration::from_millis(interval_ms),
            timeout: Duration::from_millis(500),
            cool_down: Duration::from_millis(cool_down_ms),
        })
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let _ = std::net::TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("its assertions hold");
        }
    }
}

pub(super) fn answer(status: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// The counters are looked at all the time here.
fn eager() -> Limits {
    Limits { requests_per_second: 1_000_000, ..Limits::default() }
}

fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..2_000_000 {
        if holds() {
            return;
        }
        std::thread::yield_now();
    }
    panic!("in vain: {what}");
}

fn figure(office: &Office, name: &str) -> u64 {
    office.get("/v1/counters", SECRET).json()[name].as_u64().expect("a number")
}

#[test]
fn keys_are_fetched_at_start_and_in_the_interval() {
    let provider = Provider::open(vec![answer("200 OK", ONE), answer("200 OK", TWO)]);
    let office = Office::given(eager(), provider.jwks(20, 10));
    until("two keys", || office.desk.keys.load(Ordering::Relaxed) == 2);
    until("more fetches", || provider.asked.load(Ordering::Relaxed) > 3);
    assert_eq!(office.get("/readyz", "").status, 200);
    assert_eq!(figure(&office, "jwks_failed_total"), 0);
}

#[test]
fn whatever_goes_wrong_the_keys_fetched_last_stay_good() {
    let wrong = [
        answer("500 Internal Server Error", TWO),
        answer("404 Not Found", ""),
        answer("302 Found\r\nLocation: http://127.0.0.1:1/", ""),
        answer("204 No Content", ""),
        answer("200 OK", "no JSON"),
        answer("200 OK", r#"{"no":"keys"}"#),
        answer("200 OK", &format!(r#"{{"keys":[{}]}}"#, " ".repeat(300_000))),
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"keys\":[1,2".to_owned(),
        "no HTTP at all\r\n\r\n".to_owned(),
        String::new(),
    ];
    let count = wrong.len();
    let mut answers = vec![answer("200 OK", ONE)];
    answers.extend(wrong);
    answers.push(answer("200 OK", TWO));
    let number = Arc::new(AtomicUsize::new(0));
    let provider = Provider::saying(answers, &number);
    let office = Office::given(eager(), provider.jwks(5, 1));
    let keys = || office.desk.keys.load(Ordering::Relaxed);
    until("the first key", || keys() == 1);
    for failure in 1..=count {
        let fetched = figure(&office, "jwks_failed_total");
        number.store(failure, Ordering::SeqCst);
        // One fetch may have been answered before, so the third failure is the second of this kind or more.
        until("it goes wrong", || {
            assert_eq!(keys(), 1, "the key is there while failure {failure} lasts");
            figure(&office, "jwks_failed_total") >= fetched + 3
        });
        assert_eq!(office.get("/readyz", "").status, 200, "failure {failure}");
    }
    let failed = figure(&office, "jwks_failed_total");
    assert!(failed >= 3 * count as u64, "each failure is counted: {failed}");
    number.store(count + 1, Ordering::SeqCst);
    until("recovery", || keys() == 2);
}

#[test]
fn a_provider_that_goes_away_takes_no_key_along() {
    let provider = Provider::open(vec![answer("200 OK", TWO)]);
    let office = Office::given(eager(), provider.jwks(5, 1));
    until("the keys", || office.desk.keys.load(Ordering::Relaxed) == 2);
    drop(provider);
    until("nobody is there", || figure(&office, "jwks_failed_total") >= 3);
    assert_eq!(office.desk.keys.load(Ordering::Relaxed), 2);
    assert_eq!(office.get("/readyz", "").status, 200);
}

#[test]
fn a_provider_that_never_answers_keeps_nobody_waiting_and_the_node_unready() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let jwks = Jwks {
        url: format!("http://{}/", listener.local_addr().expect("an address")),
        interval: Duration::from_secs(60),
        timeout: Duration::from_millis(50),
        cool_down: Duration::from_millis(10),
    };
    let office = Office::given(eager(), Some(jwks));
    let ready = office.get("/readyz", "");
    let reasons = r#"{"ready":false,"reasons":["no keys were fetched yet"]}"#;
    assert_eq!((ready.status, ready.body.trim()), (503, reasons));
    until("failures", || figure(&office, "jwks_failed_total") > 1);
    drop(office);
}

#[test]
fn unknown_keys_cause_one_early_fetch_in_a_cool_down() {
    let provider = Provider::open(vec![answer("200 OK", ONE)]);
    let office = Office::given(eager(), provider.jwks(3_600_000, 40));
    let asked = || provider.asked.load(Ordering::Relaxed);
    until("the first fetch", || asked() == 1 && figure(&office, "jwks_fetched_total") == 1);
    let began = office.desk.unknown.fetch_add(1, Ordering::Relaxed);
    assert_eq!(began, 0);
    until("an early fetch", || asked() == 2);
    // From here on tokens with made-up keys arrive all the time.
    let clock = crate::sys::clock::Clock::start();
    let begin = clock.now();
    while asked() < 6 {
        office.desk.unknown.fetch_add(1, Ordering::Relaxed);
        std::thread::yield_now();
    }
    let passed = clock.now().since(begin);
    assert!(passed >= Duration::from_millis(3 * 40), "four fetches within {passed:?}");
}

#[test]
fn another_url_is_taken_over_while_it_runs_and_none_ends_it() {
    let (first, second) =
        (Provider::open(vec![answer("200 OK", ONE)]), Provider::open(vec![answer("200 OK", TWO)]));
    let office = Office::given(eager(), first.jwks(3_600_000, 10));
    until("the first", || office.desk.keys.load(Ordering::Relaxed) == 1);
    let mut options = office.options.clone();
    options.jwks = second.jwks(10, 10);
    office.admin.reload(options.clone());
    until("the second", || office.desk.keys.load(Ordering::Relaxed) == 2);
    options.jwks = None;
    office.admin.reload(options);
    until("it is ready", || office.get("/readyz", "").status == 200);
    assert_eq!(first.asked.load(Ordering::Relaxed), 1);
}
