//! A run from its first thread to its outcome.
//!
//! The coordinator gives the threads one order after another and looks at their gauges; it never touches a
//! socket. What it waits for always has a limit: a phase without progress for the scenario's patience ends the
//! run, and the outcome says in which phase. Around the measured part, from the first message to the last
//! receipt, it looks at the server and at itself.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Barrier};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use tokio::sync::watch;

use crate::assemble::{Marks, assemble};
use crate::clock;
use crate::hdr::Hist;
use crate::limits;
use crate::outcome::{Outcome, PhaseSpan, Second};
use crate::sample::{Sampler, Snapshot, usage};
use crate::socket::Target;
use crate::sources;
use crate::spec::{Kind, SlowKind, Spec};
use crate::view::{Frame, View};
use crate::worker::{Gauge, Harvest, Job, Order, SecondReport, Shared, Thread};

/// What a run is given besides its scenario.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// The server's process, to be sampled.
    pub(crate) pid: Option<u32>,
    pub(crate) server_log: Option<PathBuf>,
    /// No live view.
    pub(crate) quiet: bool,
}

/// A run under way.
struct Run {
    shared: Arc<Shared>,
    orders: watch::Sender<Order>,
    threads: Vec<JoinHandle<Result<Harvest, String>>>,
    seconds: Receiver<SecondReport>,
    sampler: Sampler,
    view: View,
    began_ns: u64,
    /// The last look of each second's figures.
    look: Look,
    series: Vec<Second>,
    phases: Vec<PhaseSpan>,
    /// Why the run was given up.
    gave_up: Option<String>,
}

struct Look {
    at_ns: u64,
    snapshot: Snapshot,
    sent: u64,
    received: u64,
    received_bytes: u64,
    latencies: Hist,
}

/// How often gauges are looked at.
const GLANCE: Duration = Duration::from_millis(10);
/// From the order to publish to the first message, so that every thread has heard of it.
const LEAD_NS: u64 = 50_000_000;
/// Time after the last close in which memory is given back.
const AFTERGLOW: Duration = Duration::from_millis(500);

/// Runs a scenario.
///
/// # Errors
/// When it cannot begin; what goes wrong later is in the outcome.
pub(crate) fn run(spec: &Spec, options: &Options) -> Result<Outcome, String> {
    spec.check()?;
    let mut run = Run::begin(spec, options)?;
    let started_unix_ms = clock::unix_ms();
    let start = run.sampler.take_full();
    run.phase("connect", Order::Connect, |run| {
        run.shared.total(Gauge::Ready) >= run.sessions_wanted()
    });
    let connected = run.sampler.take_full();
    if spec.crowd.hold_s > 0.0 && run.gave_up.is_none() {
        let until = clock::now_ns() + crate::worker::nanos(spec.crowd.hold_s);
        run.wait("hold", |_| clock::now_ns() >= until);
    }
    if spec.scenario == Kind::Idle && !run.shared.layout.streams.is_empty() {
        let clients = u64::from(spec.crowd.clients);
        run.phase("join", Order::Join, |run| run.shared.total(Gauge::Joined) >= clients);
    }
    let measured_from = run.sampler.take_full();
    let from = run.received();
    let mut paced_to = None;
    if run.gave_up.is_none() {
        paced_to = run.publish();
        let clients = u64::from(spec.crowd.clients);
        run.phase("settle", Order::Settle, |run| run.shared.total(Gauge::Finished) >= clients);
    }
    let measured_to = run.sampler.take_full();
    let messages = run.received() - from;
    let harvest = run.end()?;
    run.sampler.take();
    let end = run.sampler.take_full();
    let marks = Marks { start, connected, measured_from, paced_to, measured_to, end, messages };
    run.view.finish();
    let mut outcome = assemble(spec, harvest, &marks, &run.sampler);
    outcome.about.started_unix_ms = started_unix_ms;
    outcome.about.threads = run.shared.gauges.len() as u64;
    outcome.series = run.series;
    outcome.phases = run.phases;
    crate::certify::judge(&mut outcome, &spec.budget);
    Ok(outcome)
}

impl Run {
    fn begin(spec: &Spec, options: &Options) -> Result<Self, String> {
        let target = Target::parse(&spec.target)?;
        let sources = match spec.target.src.as_str() {
            "" => Vec::new(),
            text => sources::parse(text)?,
        };
        Thread::probe()?;
        let clients = threads_for(spec, &target, &sources)?;
        let sampler = Sampler::new(options.pid, options.server_log.clone())?;
        let mut jobs: Vec<Job> =
            (0..clients).map(|first| Job::Clients { first, of: clients }).collect();
        let run = fastrand::u32(..);
        let shared = Shared::new(spec.clone(), target, sources, jobs.len() + 1, run);
        if !shared.layout.publishers.is_empty() {
            jobs.push(Job::Publishers);
        }
        let shared = Arc::new(shared);
        let (orders, heard) = watch::channel(Order::Wait);
        let barrier = Arc::new(Barrier::new(jobs.len()));
        let (tell, seconds) = bounded(jobs.len() * 4);
        let mut threads = Vec::new();
        for (index, job) in jobs.into_iter().enumerate() {
            let thread = Thread {
                shared: Arc::clone(&shared),
                index,
                job,
                orders: heard.clone(),
                barrier: Arc::clone(&barrier),
                seconds: tell.clone(),
            };
            let builder = std::thread::Builder::new().name(format!("load-{index}"));
            let started = builder.spawn(move || thread.work());
            threads.push(started.map_err(|error| format!("starting a thread: {error}"))?);
        }
        let mut sampler = sampler;
        let look = Look {
            at_ns: clock::now_ns(),
            snapshot: sampler.take(),
            sent: 0,
            received: 0,
            received_bytes: 0,
            latencies: Hist::coarse(),
        };
        Ok(Self {
            shared,
            orders,
            threads,
            seconds,
            sampler,
            view: View::new(spec.scenario.name(), options.quiet),
            began_ns: look.at_ns,
            look,
            series: Vec::new(),
            phases: Vec::new(),
            gave_up: None,
        })
    }

    /// Sessions that are there when everyone is: clients, and publishers of their own.
    fn sessions_wanted(&self) -> u64 {
        u64::from(self.shared.spec.crowd.clients) + self.shared.layout.publishers.len() as u64
    }

    fn client_threads(&self) -> u64 {
        let publishers = u64::from(!self.shared.layout.publishers.is_empty());
        self.threads.len() as u64 - publishers
    }

    fn received(&self) -> u64 {
        self.shared.total(Gauge::Received)
    }

    /// Has everything published. What goes to everyone at the end of a paced load is a phase of its own, and
    /// the snapshot is of the moment before it.
    fn publish(&mut self) -> Option<Snapshot> {
        let start = clock::now_ns() + LEAD_NS;
        self.shared.start_ns.store(start, Ordering::Release);
        let done = self.shared.layout.publishers.len() as u64 + self.client_threads();
        let all_done = move |run: &Self| run.shared.total(Gauge::Done) >= done;
        if !self.shared.layout.ends_with_broadcast() {
            self.phase("publish", Order::Publish, all_done);
            return None;
        }
        let until = start + crate::worker::nanos(self.shared.spec.load.duration_s);
        self.phase("publish", Order::Publish, |_| clock::now_ns() >= until);
        let paced_to = self.sampler.take();
        if self.gave_up.is_none() {
            self.wait("broadcast", all_done);
        }
        Some(paced_to)
    }

    /// Gives an order and waits for what it is to bring about.
    fn phase(&mut self, name: &str, order: Order, done: impl Fn(&Self) -> bool) {
        if self.gave_up.is_none() {
            // Threads that have ended early are noticed while waiting.
            let _ = self.orders.send(order);
            self.wait(name, done);
        }
    }

    /// Waits, with the seconds going by. A phase in which nothing moves for too long ends the run.
    fn wait(&mut self, name: &str, done: impl Fn(&Self) -> bool) {
        let from_ns = clock::now_ns();
        let patience = self.shared.spec.target.patience_ms * 1_000_000;
        let (mut moved, mut before) = (from_ns, self.progress());
        while !done(self) {
            self.glance(name);
            let (now, progress) = (clock::now_ns(), self.progress());
            if progress != before || name == "hold" {
                (moved, before) = (now, progress);
            }
            let ended = self.threads.iter().any(JoinHandle::is_finished);
            let refused = name == "connect" && self.shared.total(Gauge::Failures) > 0;
            if now - moved > patience || ended || refused {
                let (ready, finished) =
                    (self.shared.total(Gauge::Ready), self.shared.total(Gauge::Finished));
                self.gave_up = Some(format!(
                    "the run was given up in the phase {name}, with {ready} sessions ready and {finished} clients finished"
                ));
                break;
            }
        }
        let to_s = |at: u64| clock::seconds(at - self.began_ns);
        let (from_s, to_s) = (to_s(from_ns), to_s(clock::now_ns()));
        self.phases.push(PhaseSpan { name: name.to_owned(), from_s, to_s });
    }

    fn progress(&self) -> [u64; 5] {
        [Gauge::Ready, Gauge::Joined, Gauge::Sent, Gauge::Received, Gauge::Finished]
            .map(|gauge| self.shared.total(gauge))
    }

    /// Waits a moment, takes in what threads report, and once a second looks at everything.
    fn glance(&mut self, phase: &str) {
        match self.seconds.recv_timeout(GLANCE) {
            Ok(report) => self.look.latencies.merge(&report.latencies),
            Err(RecvTimeoutError::Timeout) => {}
            // All threads have ended, which the caller sees; the time passes all the same.
            Err(RecvTimeoutError::Disconnected) => std::thread::park_timeout(GLANCE),
        }
        let now = clock::now_ns();
        if now - self.look.at_ns >= 1_000_000_000 {
            self.look(phase, now);
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "rates are shown to three digits")]
    fn look(&mut self, phase: &str, now: u64) {
        let snapshot = self.sampler.take();
        let [connected, sent, received, bytes] =
            [Gauge::Ready, Gauge::Sent, Gauge::Received, Gauge::ReceivedBytes]
                .map(|gauge| self.shared.total(gauge));
        let used = usage(&self.look.snapshot, &snapshot);
        let seconds = clock::seconds(now - self.look.at_ns);
        let latencies = &self.look.latencies;
        let second = Second {
            at_s: clock::seconds(now - self.began_ns),
            connected,
            sent: sent - self.look.sent,
            received: received - self.look.received,
            received_bytes: bytes - self.look.received_bytes,
            p50_us: latencies.quantile_us(0.5),
            p99_us: latencies.quantile_us(0.99),
            max_us: latencies.max_us(),
            server_cores: used.server,
            server_rss_anon: snapshot.server.map(|server| server.rss_anon),
            generator_cores: used.own,
        };
        let (done, of) = match phase {
            "connect" => (connected, self.sessions_wanted()),
            _ => (self.shared.total(Gauge::Finished), self.shared.spec.crowd.clients.into()),
        };
        self.view.update(&Frame {
            phase: phase.to_owned(),
            done,
            of,
            connected,
            sent_per_s: second.sent as f64 / seconds,
            received_per_s: second.received as f64 / seconds,
            p99_us: second.p99_us,
            failures: self.shared.total(Gauge::Failures),
            server_cores: used.server,
        });
        self.series.push(second);
        self.look = Look {
            at_ns: now,
            snapshot,
            sent,
            received,
            received_bytes: bytes,
            latencies: Hist::coarse(),
        };
    }

    /// Lets everyone go and adds up what the threads bring home.
    fn end(&mut self) -> Result<Harvest, String> {
        let _ = self.orders.send(Order::Close);
        let from_s = clock::seconds(clock::now_ns() - self.began_ns);
        while self.threads.iter().any(|thread| !thread.is_finished()) {
            self.glance("close");
        }
        let mut harvest = Harvest::default();
        for thread in self.threads.drain(..) {
            match thread.join() {
                Ok(result) => harvest.merge(&result?),
                Err(_) => return Err("a thread of the generator panicked".to_owned()),
            }
        }
        std::thread::park_timeout(AFTERGLOW);
        let to_s = clock::seconds(clock::now_ns() - self.began_ns);
        self.phases.push(PhaseSpan { name: "close".to_owned(), from_s, to_s });
        if let Some(why) = self.gave_up.take() {
            harvest.fail(&why);
        }
        harvest.sent = self.shared.total(Gauge::Sent);
        harvest.sent_bytes = self.shared.total(Gauge::SentBytes);
        harvest.received_bytes = self.shared.total(Gauge::ReceivedBytes);
        Ok(harvest)
    }
}

/// How many threads the clients need, after asking whether the machine has what they need.
fn threads_for(spec: &Spec, target: &Target, sources: &[IpAddr]) -> Result<u32, String> {
    let clients = u64::from(spec.crowd.clients);
    // Clients that are to vanish hold a second descriptor.
    let vanishes = spec.scenario == Kind::Slow && spec.trouble.slow_kind == SlowKind::HalfOpen;
    let descriptors = if vanishes { clients * 2 } else { clients };
    let threads = match spec.crowd.threads {
        0 => fewest_threads(descriptors, limits::raise_descriptors()),
        threads => threads,
    };
    let needs = limits::Needs {
        clients,
        threads: u64::from(threads),
        sources: sources.len().max(1) as u64,
        local: target.address.ip().is_loopback(),
    };
    for warning in limits::check(&needs)? {
        crate::say(&format!("warning: {warning}"));
    }
    Ok(threads.min(spec.crowd.clients))
}

/// Threads that hold so many descriptors between them. Each table also has a copy of every runtime's own.
fn fewest_threads(descriptors: u64, limit: u64) -> u32 {
    let wanted = usize::try_from(descriptors).unwrap_or(usize::MAX);
    let mut threads = limits::threads_for(wanted, limit);
    for _ in 0..2 {
        threads = limits::threads_for(wanted, limit.saturating_sub(threads as u64 * RUNTIME));
    }
    u32::try_from(threads).unwrap_or(u32::MAX)
}

/// Descriptors of one runtime: ring, epoll, wake-ups, a timer.
const RUNTIME: u64 = 8;
