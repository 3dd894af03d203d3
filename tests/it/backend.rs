//! A back end of an application: an HTTP server in the test's own process.
//!
//! Each connection has a thread, so one that is kept waiting keeps no other. What was posted goes to the test
//! through a bounded channel; what is answered is a function of it, or nothing at all.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::hmac;
use crossbeam_channel::{Receiver, Sender, bounded};
use serde_json::Value;

use crate::support::PATIENCE;

/// What both sides sign with.
pub(crate) const SHARED: &str = "what both sides know";

/// A request as it came, its signature checked.
#[derive(Clone, Debug)]
pub(crate) struct Posted {
    pub(crate) path: String,
    pub(crate) body: Value,
}

/// What is posted and when it is answered: `None` never, for as long as the other side is patient.
type Answers = dyn Fn(&Posted) -> Option<String> + Send + Sync;

/// A running back end.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    posted: Receiver<Posted>,
    /// Requests at a time: now, and at most so far.
    at_once: Arc<[AtomicUsize; 2]>,
}

impl Backend {
    pub(crate) fn open(
        answers: impl Fn(&Posted) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self::open_on("127.0.0.1:0".parse().unwrap(), answers)
    }

    pub(crate) fn open_on(
        address: SocketAddr,
        answers: impl Fn(&Posted) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, posted) = bounded(10_000);
        let at_once = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        let answers: Arc<Answers> = Arc::new(answers);
        let counts = Arc::clone(&at_once);
        let serve = move || {
            for stream in listener.incoming() {
                let (answers, tell) = (Arc::clone(&answers), tell.clone());
                let counts = Arc::clone(&counts);
                let attend = move || attend(stream.unwrap(), &*answers, &tell, &counts);
                std::thread::Builder::new().spawn(attend).unwrap();
            }
        };
        // It ends with the process: nobody waits for it.
        std::thread::Builder::new().spawn(serve).unwrap();
        Self { address, posted, at_once }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// The next request that was not looked at yet.
    pub(crate) fn next(&self) -> Posted {
        self.posted.recv_timeout(PATIENCE).expect("a request")
    }

    /// How many were not looked at yet.
    pub(crate) fn waiting(&self) -> usize {
        self.posted.len()
    }

    /// The most requests that were there at one time.
    pub(crate) fn most_at_once(&self) -> usize {
        self.at_once[1].load(Ordering::SeqCst)
    }
}

/// An answer with that body.
pub(crate) fn ok(body: &str) -> Option<String> {
    Some(response("200 OK", body))
}

pub(crate) fn response(status: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
}

fn attend(
    mut stream: TcpStream,
    answers: &Answers,
    tell: &Sender<Posted>,
    at_once: &[AtomicUsize; 2],
) {
    let Some(posted) = read(&mut stream) else { return };
    let now = at_once[0].fetch_add(1, Ordering::SeqCst) + 1;
    at_once[1].fetch_max(now, Ordering::SeqCst);
    let answer = answers(&posted);
    tell.send(posted).unwrap();
    if let Some(answer) = &answer {
        at_once[0].fetch_sub(1, Ordering::SeqCst);
        // Whoever asked may have lost patience.
        let _ = stream.write_all(answer.as_bytes());
        return;
    }
    let _ = stream.read(&mut [0]);
    at_once[0].fetch_sub(1, Ordering::SeqCst);
}

fn read(stream: &mut TcpStream) -> Option<Posted> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        if let Some(at) = bytes.windows(4).position(|end| end == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..at].to_vec()).unwrap();
            let header = |name: &str| {
                let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(name));
                line.and_then(|line| line.split_once(": ")).map(|(_, value)| value.to_owned())
            };
            let length: usize = header("content-length:")?.parse().unwrap();
            let body = &bytes[at + 4..];
            if body.len() >= length {
                assert_eq!(header("content-type:").as_deref(), Some("application/json"));
                check(&header("throng-signature:").expect("a signature"), body);
                let path = head.split(' ').nth(1).unwrap().to_owned();
                return Some(Posted { path, body: serde_json::from_slice(body).unwrap() });
            }
        }
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return None,
            Ok(read) => bytes.extend_from_slice(&piece[..read]),
        }
    }
}

/// Checks a signature as the documentation says it is made.
fn check(signature: &str, body: &[u8]) {
    let (time, digits) = signature.split_once(",v1=").unwrap();
    let time = time.strip_prefix("t=").unwrap();
    assert!(time.parse::<u64>().unwrap() > 1_577_836_800, "{time}");
    let tag: Vec<u8> = (0..digits.len() / 2)
        .map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap())
        .collect();
    let key = hmac::Key::new(hmac::HMAC_SHA256, SHARED.as_bytes());
    let message = [time.as_bytes(), b".", body].concat();
    hmac::verify(&key, &message, &tag).expect("a signature under the shared secret");
}
