//! A thread of the bridge that panics: whoever waits for an answer of what it has taken is told that there will be none.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::{
    Afar, Ban, Bounds, Bridge, Channel, Claim, Claimed, Entry, Extras, Found, Lost, Mark, Named,
    Naming, Options, Papers, Patience, Place, Poll, Polled, Presence, Receipt, Record, Refused,
    Server, Shares, Side, Survey, Surveyed, Verdict, Word,
};
use crate::base::cursor::{Cursor, Stale};
use crate::base::id::{ConnAddress, ConnId, ShardId};
use crate::base::secret::Secret;

/// What a node was told.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Surveyed(u64),
    Claimed(Claimed),
    Named(Vec<Option<bool>>),
    Recorded(bool),
}

/// A node that has these words for its bridge and then a panic.
struct Doomed {
    words: VecDeque<Word>,
    told: Sender<Told>,
    fd: UnixStream,
}

impl Doomed {
    fn tell(&self, told: Told) {
        self.told.send(told).expect("the test listens");
    }
}

impl Polled for Doomed {
    fn polled(&mut self, _: Poll) -> Result<(), String> {
        Ok(())
    }

    fn surveyed(&mut self, ticket: u64, _: Surveyed) {
        self.tell(Told::Surveyed(ticket));
    }
}

impl Shares for Doomed {
    fn arrived(&mut self, _: &str, _: u64, _: &Entry) -> Result<(), Refused> {
        Ok(())
    }

    fn followed(&mut self, _: &str, _: Option<Cursor>) {}

    fn reset(&mut self, _: &str, _: Cursor, _: Stale) {}

    fn decided(&mut self, _: u64, _: Verdict) {}

    fn fetched(&mut self, _: u64, _: Result<Found, Lost>) {}
}

impl Side for Doomed {
    fn next(&mut self) -> Option<Word> {
        Some(self.words.pop_front().expect("a word, but there is none"))
    }

    fn deliver(
        &mut self,
        _: &str,
        _: &str,
        _: Option<&str>,
        _: bool,
        _: Option<Mark>,
    ) -> Result<(), Refused> {
        Ok(())
    }

    fn emitted(&mut self, _: &[u8]) -> Result<(), Refused> {
        Ok(())
    }

    fn astray(&mut self, _: &[Channel]) {}

    fn banned(&mut self, _: &str) -> Result<u64, Refused> {
        Ok(0)
    }

    fn claimed(&mut self, _: ConnAddress, claimed: Claimed) {
        self.tell(Told::Claimed(claimed));
    }

    fn named(&mut self, named: Named) {
        self.tell(Told::Named(named.first));
    }

    fn recorded(&mut self, _: Receipt, is_written: bool) {
        self.tell(Told::Recorded(is_written));
    }

    fn has_space(&self) -> bool {
        true
    }

    fn afar(&mut self, _: Vec<Afar>) {}

    fn flush(&mut self) -> bool {
        true
    }

    fn wake_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn before_sleep(&self) -> bool {
        true
    }

    fn awake(&self) {}
}

fn options() -> Options {
    let second = Duration::from_secs(1);
    Options {
        server: Server {
            // Nobody listens there.
            place: Place::Url("redis://127.0.0.1:1".to_owned()),
            user: String::new(),
            password: Secret::new(""),
            papers: Papers::default(),
        },
        prefix: "throng".to_owned(),
        extras: Extras { emitter: None, tickets: true },
        node: "a".to_owned(),
        epoch: 1,
        tag: 7,
        patience: Patience { connect: second, command: second },
        cluster: false,
        bounds: Bounds { queue: 10, queue_bytes: 1000, stream: 100, incoming: 10 },
        canary: second,
        linger: second,
        presence: Presence { lease: Some(second), most_users: 10, survey_timeout: second },
    }
}

fn start(words: Vec<Word>) -> (Bridge, Receiver<Told>) {
    let (told, listener) = bounded(16);
    let (fd, _) = UnixStream::pair().expect("a pair of sockets");
    fd.set_nonblocking(true).expect("it can be");
    let side = Doomed { words: words.into(), told, fd };
    (Bridge::start(options(), side).expect("a thread"), listener)
}

#[test]
fn what_a_bridge_that_panics_has_taken_is_answered_before_it_ends() {
    let by = ConnAddress::alone(ShardId(0), ConnId { index: 1, generation: 0 });
    let naming = Naming {
        home: ShardId(0),
        room: Arc::from("r"),
        names: vec![1, 2],
        window: Duration::from_secs(60),
    };
    let record = Record {
        documents: vec![b"{}".to_vec().into()],
        receipt: Some(Receipt { to: by, reference: None }),
    };
    let words = vec![
        Word::Ask(Survey { ticket: 9, text: "{}".to_owned() }),
        Word::Claim(Claim { id: 1, era: 1, until: u64::MAX, by }),
        Word::Name(naming),
        Word::Record(record),
        Word::Ban(Ban { text: "{}".to_owned(), until: 0 }),
    ];
    let (bridge, told) = start(words);
    let told: Vec<Told> = told.iter().collect();
    let expected = [
        Told::Surveyed(9),
        Told::Claimed(Claimed::Unknown),
        Told::Named(vec![None, None]),
        Told::Recorded(false),
    ];
    assert_eq!(told, expected);
    while !bridge.has_failed() {
        std::thread::yield_now();
    }
    assert!(!bridge.tally().is_up());
}
