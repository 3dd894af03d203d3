//! The smoke run: many clients join a room, one publishes, and every delivery is accounted for.
//!
//! Each client is a task. The first is also the publisher; like everyone in the room it receives what it
//! publishes. It never runs more than a window ahead of the slowest client, so that what is lost was lost
//! by the server and not thrown away by its slow-consumer policy. One publication more than asked for ends
//! the run: a room's order being one order, whoever has the last has had all before it, and what is missing
//! then is lost. The closing handshakes that follow flush out what arrives twice.
//!
//! Every phase has a time-out, and a run that times out says what it still waited for. Payloads carry the
//! run's own number, so that two runs may share a room.

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;

use crate::client::{Reader, Sender, Target, connect};
use crate::clock;
use crate::codec::Item;
use crate::report::{Ledger, Report};

/// What to do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) target: Target,
    pub(crate) clients: usize,
    pub(crate) messages: u64,
    pub(crate) room: String,
    /// Addresses to connect from, in turn; empty to let the kernel choose.
    pub(crate) sources: Vec<IpAddr>,
    /// How many publications the publisher may be ahead of the slowest client.
    pub(crate) window: u64,
    /// How long each phase may take.
    pub(crate) patience: Duration,
}

/// Clients that connect and join at one time; the rest waits its turn and spares the accept queue.
const JOINING_AT_ONCE: usize = 256;

/// What the tasks of one run share.
struct Run {
    plan: Plan,
    /// Tells this run's payloads from another's.
    number: u64,
    joining: Semaphore,
    joined: Cell<usize>,
    ended: Cell<usize>,
    closed: Cell<usize>,
    published: Cell<u64>,
    gaps: Cell<u64>,
    pace: RefCell<Pace>,
    senders: RefCell<Vec<Rc<Sender>>>,
    failures: RefCell<Vec<String>>,
    wakes: Wakes,
}

/// Who waits: the coordinator for any progress, the publisher for the slowest client.
#[derive(Default)]
struct Wakes {
    progress: Notify,
    slowest: Notify,
}

/// How far the slowest client is.
struct Pace {
    /// How many clients have come to each sequence number, or past it.
    reached: Vec<usize>,
    slowest: usize,
}

impl Pace {
    /// Notes that one client went from one number to a later one. True when the slowest moved.
    fn advance(&mut self, from: u64, to: u64, clients: usize) -> bool {
        for seq in from + 1..=to {
            if let Some(count) = usize::try_from(seq).ok().and_then(|at| self.reached.get_mut(at)) {
                *count += 1;
            }
        }
        let before = self.slowest;
        while self.reached.get(self.slowest + 1) == Some(&clients) {
            self.slowest += 1;
        }
        self.slowest > before
    }
}

impl Run {
    fn new(plan: Plan) -> Self {
        let numbers = usize::try_from(plan.messages).unwrap_or(usize::MAX).saturating_add(2);
        Self {
            // Kept below 2^53, where a server that reads numbers as doubles stays exact.
            number: RandomState::new().hash_one(&plan.room) >> 11,
            joining: Semaphore::new(JOINING_AT_ONCE),
            joined: Cell::new(0),
            ended: Cell::new(0),
            closed: Cell::new(0),
            published: Cell::new(0),
            gaps: Cell::new(0),
            pace: RefCell::new(Pace { reached: vec![0; numbers], slowest: 0 }),
            senders: RefCell::default(),
            failures: RefCell::default(),
            wakes: Wakes::default(),
            plan,
        }
    }

    fn fail(&self, who: usize, what: &str) {
        self.failures.borrow_mut().push(format!("client {who}: {what}"));
        self.wakes.progress.notify_one();
    }

    fn count(&self, counter: &Cell<usize>) {
        counter.set(counter.get() + 1);
        self.wakes.progress.notify_one();
    }

    /// Waits until every client is counted. False when a client failed or time ran out, which is noted.
    async fn phase(&self, name: &str, counter: &Cell<usize>) -> bool {
        let clients = self.plan.clients;
        let done = async {
            while counter.get() < clients && self.failures.borrow().is_empty() {
                self.wakes.progress.notified().await;
            }
        };
        if timeout(self.plan.patience, done).await.is_err() {
            let (got, patience) = (counter.get(), self.plan.patience.as_millis());
            let text = format!("{name}: {got} of {clients} clients within {patience} ms");
            self.failures.borrow_mut().push(text);
        }
        self.failures.borrow().is_empty()
    }
}

/// Runs the plan to its end. Must be called inside the io_uring runtime.
pub(crate) async fn run(plan: Plan) -> Report {
    let run = Rc::new(Run::new(plan));
    let start = clock::now();
    let tasks: Vec<_> =
        (0..run.plan.clients).map(|who| tokio_uring::spawn(client(Rc::clone(&run), who))).collect();
    let mut report = Report::default();
    if run.phase("joining", &run.joined).await {
        report.joining = start.elapsed();
        let start = clock::now();
        let publisher = tokio_uring::spawn(publish(Rc::clone(&run)));
        let all = run.phase("delivering", &run.ended).await;
        report.delivering = start.elapsed();
        publisher.abort();
        if all {
            let senders = run.senders.borrow().clone();
            for sender in senders {
                if let Err(error) = sender.close().await {
                    run.failures.borrow_mut().push(format!("closing: {error}"));
                }
            }
            run.phase("closing", &run.closed).await;
        }
    }
    run.senders.borrow().iter().for_each(|sender| sender.abandon());
    // A client that still waits its turn to connect would wait for ever.
    run.joining.close();
    for task in tasks {
        match timeout(run.plan.patience, task).await {
            Ok(Ok(ledger)) => add(&mut report, &ledger),
            _ => run.failures.borrow_mut().push("a client's task did not end".to_owned()),
        }
    }
    report.clients = run.plan.clients as u64;
    report.joined = run.joined.get() as u64;
    report.published = run.published.get();
    report.expected = report.clients * run.plan.messages;
    report.gaps = run.gaps.get();
    report.failures = run.failures.take();
    report
}

fn add(report: &mut Report, ledger: &Ledger) {
    report.delivered += ledger.delivered;
    report.duplicates += ledger.duplicates;
    report.reordered += ledger.reordered;
}

/// One client's life. What it saw is returned even when it failed.
async fn client(run: Rc<Run>, who: usize) -> Ledger {
    let mut ledger = Ledger::new(run.plan.messages);
    let mut reader = match join(&run, who).await {
        Ok(reader) => reader,
        Err(error) => {
            run.fail(who, &error);
            return ledger;
        }
    };
    run.count(&run.joined);
    let mut state = Receiving { who, ended: false, offset: 0 };
    if let Err(error) = receive(&run, &mut reader, &mut state, &mut ledger).await {
        // After a failure elsewhere the coordinator hangs up, which is no failure of this client.
        if run.failures.borrow().is_empty() {
            run.fail(who, &error);
        }
    }
    ledger
}

/// Connects, awaits the greeting, joins the room and awaits the reply.
async fn join(run: &Run, who: usize) -> Result<Reader, String> {
    let _turn = run.joining.acquire().await.map_err(|_| "never had its turn to connect")?;
    let sources = &run.plan.sources;
    let source = (!sources.is_empty()).then(|| sources[who % sources.len()]);
    let mut reader = connect(&run.plan.target, source, run.number ^ who as u64)?;
    run.senders.borrow_mut().push(reader.sender());
    reader.shake_hands(&run.plan.target).await?;
    let hello = push(&mut reader).await?;
    if hello["type"] != "throng:connected" || !hello["clientId"].is_string() {
        return Err(format!("the first push is not throng:connected: {hello}"));
    }
    let command = json!({"type": "throng:join", "room": run.plan.room, "ref": 1});
    reader.sender().text(&command.to_string()).await?;
    loop {
        let reply = push(&mut reader).await?;
        match reply["type"].as_str() {
            Some("throng:reply") if reply["ref"] == 1 && reply["ok"] == true => return Ok(reader),
            Some("throng:reply" | "throng:error") => return Err(format!("refused: {reply}")),
            // The room may be in use by others.
            _ => {}
        }
    }
}

/// The next push. A close frame or the end of the stream is an error here.
async fn push(reader: &mut Reader) -> Result<Value, String> {
    match reader.next().await? {
        Some(Item::Text(text)) => {
            serde_json::from_str(&text).map_err(|error| format!("{error} in {text}"))
        }
        Some(Item::Close(code)) => Err(format!("the server closed with {code:?}")),
        Some(other) => Err(format!("not a text message: {other:?}")),
        None => Err("the server hung up".to_owned()),
    }
}

/// Where a client is in its run.
struct Receiving {
    who: usize,
    /// True once the publication after the last has arrived.
    ended: bool,
    /// The offset of the last publication in the room.
    offset: u64,
}

/// Takes deliveries until the server has answered the coordinator's close.
async fn receive(
    run: &Run,
    reader: &mut Reader,
    state: &mut Receiving,
    ledger: &mut Ledger,
) -> Result<(), String> {
    loop {
        match reader.next().await? {
            Some(Item::Text(text)) => {
                let message = serde_json::from_str(&text).map_err(|e| format!("{e} in {text}"))?;
                take(run, state, ledger, &message)?;
            }
            Some(Item::Close(Some(1000))) if state.ended => {
                run.count(&run.closed);
                return Ok(());
            }
            Some(Item::Close(code)) => return Err(format!("the server closed with {code:?}")),
            Some(other) => return Err(format!("not a text message: {other:?}")),
            None => return Err("the server hung up without a close frame".to_owned()),
        }
    }
}

fn take(
    run: &Run,
    state: &mut Receiving,
    ledger: &mut Ledger,
    message: &Value,
) -> Result<(), String> {
    match message["type"].as_str() {
        Some("smoke") => {}
        Some("throng:gap") => {
            run.gaps.set(run.gaps.get() + message["lost"].as_u64().unwrap_or(1));
            return Ok(());
        }
        Some("throng:error" | "throng:reload") => return Err(format!("the server said {message}")),
        _ => return Ok(()),
    }
    let payload = &message["payload"];
    if payload["run"] != run.number {
        return Ok(());
    }
    if message["room"] != run.plan.room.as_str() {
        return Err(format!("a publication of another room: {message}"));
    }
    let seq = payload["seq"].as_u64().unwrap_or(0);
    if seq == run.plan.messages + 1 {
        if !std::mem::replace(&mut state.ended, true) {
            run.count(&run.ended);
        }
        return Ok(());
    }
    let (before, repeated) = (ledger.highest(), ledger.duplicates);
    if !ledger.note(seq) {
        return Err(format!("a number that was never published: {message}"));
    }
    // Offsets number the room's publications, so each is above the one before it.
    let offset = message["offset"].as_u64().unwrap_or(0);
    if ledger.duplicates == repeated && ledger.highest() > before {
        if offset <= state.offset {
            let who = state.who;
            return Err(format!("offset {offset} after {} at client {who}", state.offset));
        }
        state.offset = offset;
    }
    if run.pace.borrow_mut().advance(before, ledger.highest(), run.plan.clients) {
        run.wakes.slowest.notify_one();
    }
    Ok(())
}

/// Publishes everything through the first client, and the publication that ends the run.
async fn publish(run: Rc<Run>) {
    let sender = run.senders.borrow()[0].clone();
    for seq in 1..=run.plan.messages + 1 {
        while seq > run.pace.borrow().slowest as u64 + run.plan.window {
            run.wakes.slowest.notified().await;
        }
        let payload = json!({"seq": seq, "run": run.number});
        let message = json!({"type": "smoke", "room": run.plan.room, "payload": payload});
        if let Err(error) = sender.text(&message.to_string()).await {
            return run.fail(0, &format!("publishing {seq}: {error}"));
        }
        if seq <= run.plan.messages {
            run.published.set(seq);
        }
    }
}

#[cfg(test)]
mod tests;
