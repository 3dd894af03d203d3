//! One thread: its runtime, its clients, and the order in which things happen.
//!
//! Every runtime must exist before any thread parts with the common descriptor table, because the threads
//! wake each other through descriptors of their runtimes: hence the barrier. Threads that publish have no
//! clients, so that a wave of deliveries does not delay the next message. When all is over every socket is
//! shut down before the runtime ends, since its end waits for reads that are under way.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use crossbeam_channel::Sender as ReportSender;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{interval, timeout};

use super::drive;
use super::harvest::Harvest;
use super::member;
use super::publish;
use super::session::Seat;
use super::shared::{Gauge, Order, Shared};
use super::stats::{Hists, LastSeen, SecondReport};
use crate::hdr::Hist;
use crate::socket::Pool;
use crate::spec::Kind;
use crate::sys;

/// What a thread is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Job {
    /// The clients whose number is `first` modulo `of`.
    Clients { first: u32, of: u32 },
    /// All publishers.
    Publishers,
}

/// What a thread is given.
#[derive(Clone, Debug)]
pub(crate) struct Thread {
    pub(crate) shared: Arc<Shared>,
    /// The thread's row of gauges.
    pub(crate) index: usize,
    pub(crate) job: Job,
    pub(crate) orders: watch::Receiver<Order>,
    pub(crate) barrier: Arc<Barrier>,
    pub(crate) seconds: ReportSender<SecondReport>,
}

/// One thread's state, shared by its tasks.
pub(super) struct Crew {
    pub(super) shared: Arc<Shared>,
    index: usize,
    pub(super) seats: RefCell<Vec<Rc<Seat>>>,
    pub(super) pool: Pool,
    /// Connections that may be under way at one time.
    pub(super) gate: Semaphore,
    pub(super) order: Cell<Order>,
    /// A new order, the end of a task, a delivery that a publisher waits for.
    pub(super) changed: Notify,
    pub(super) harvest: RefCell<Harvest>,
    pub(super) measures: RefCell<Measures>,
    tasks: Cell<usize>,
    /// When the storm broke; `u64::MAX` before.
    pub(super) storm_ns: Cell<u64>,
    pub(super) random: RefCell<fastrand::Rng>,
}

/// A task that is at work.
pub(super) struct AtWork(Rc<Crew>);

impl Drop for AtWork {
    fn drop(&mut self) {
        let crew = &self.0;
        crew.tasks.set(crew.tasks.get() - 1);
        crew.uncount(Gauge::Tasks, 1);
        if crew.tasks.get() == 0 {
            crew.changed.notify_waiters();
        }
    }
}

/// What the thread's tasks measure.
pub(super) struct Measures {
    pub(super) hists: Hists,
    pub(super) last: LastSeen,
    /// Latencies of the present second.
    second: Hist,
}

/// Ring sizes: room for the writes of one turn, and for a completion of many clients at once. What does not
/// fit the second waits in the kernel.
const SUBMISSIONS: u32 = 1024;
const COMPLETIONS: u32 = 32_768;

/// The priority of whoever must be on time.
const FIRST: i32 = -19;

impl Thread {
    /// Works until the coordinator has had enough.
    ///
    /// # Errors
    /// When the kernel refuses a ring or a descriptor table.
    pub(crate) fn work(self) -> Result<Harvest, String> {
        let mut ring = tokio_uring::uring_builder();
        ring.setup_cqsize(COMPLETIONS).setup_clamp().setup_coop_taskrun();
        let mut builder = tokio_uring::builder();
        builder.entries(SUBMISSIONS).uring_builder(&ring);
        builder.start(async move {
            self.barrier.wait();
            sys::separate_descriptors().map_err(|error| format!("unshare: {error}"))?;
            if self.job == Job::Publishers {
                // A schedule is kept to the microsecond only if a wave of deliveries on the same core does not
                // delay it. Without the right to it (CAP_SYS_NICE) the outcome says how late messages left.
                let _ = rustix::process::setpriority_process(None, FIRST);
            }
            let crew = Rc::new(Crew::new(&self));
            crew.clone().obey(self).await;
            Ok(crew.harvest.take())
        })
    }

    /// Whether the kernel offers rings at all; the runtime panics where it does not.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(crate) fn probe() -> Result<(), String> {
        let ring = tokio_uring::uring_builder().setup_clamp().build(SUBMISSIONS);
        ring.map(|_| ()).map_err(|error| format!("io_uring is not available: {error}"))
    }
}

impl Crew {
    fn new(thread: &Thread) -> Self {
        let shared = Arc::clone(&thread.shared);
        let spec = &shared.spec;
        let threads = shared.gauges.len().max(1);
        let at_once = usize::try_from(spec.crowd.at_once).unwrap_or(1).div_ceil(threads);
        let streams = shared.layout.streams.len();
        let messages = match spec.load.messages {
            0 => super::shared::nanos(spec.load.rate * spec.load.duration_s) / 1_000_000_000,
            messages => messages,
        };
        Self {
            index: thread.index,
            seats: RefCell::default(),
            pool: Pool::default(),
            gate: Semaphore::new(at_once.max(4)),
            order: Cell::new(Order::Wait),
            changed: Notify::new(),
            harvest: RefCell::default(),
            measures: RefCell::new(Measures {
                hists: Hists::default(),
                last: LastSeen::new(streams, messages),
                second: Hist::coarse(),
            }),
            tasks: Cell::new(0),
            storm_ns: Cell::new(u64::MAX),
            random: RefCell::new(fastrand::Rng::with_seed(
                u64::from(shared.run) ^ (thread.index as u64) << 32,
            )),
            shared,
        }
    }

    /// Adds to a gauge.
    pub(super) fn count(&self, gauge: Gauge, value: u64) {
        self.shared.gauges[self.index].add(gauge, value);
    }

    /// Takes from a gauge.
    pub(super) fn uncount(&self, gauge: Gauge, value: u64) {
        self.shared.gauges[self.index].subtract(gauge, value);
    }

    /// Notes what went wrong; the same words are counted together.
    pub(super) fn fail(&self, what: &str) {
        self.count(Gauge::Failures, 1);
        self.harvest.borrow_mut().fail(what);
    }

    /// Records the latency of a delivery.
    pub(super) fn measure(&self, latency_ns: u64, apart: bool) {
        let mut measures = self.measures.borrow_mut();
        measures.hists.delivery.record_ns(latency_ns);
        measures.second.record_ns(latency_ns);
        if apart {
            measures.hists.spared.record_ns(latency_ns);
        }
    }

    /// Waits for an order or one after it.
    pub(super) async fn until(&self, order: Order) {
        loop {
            let changed = self.changed.notified();
            if self.order.get() >= order {
                return;
            }
            changed.await;
        }
    }

    /// To be held by each task that the thread waits for at its end. A future around the task would do the
    /// same and hold every client's future twice.
    pub(super) fn at_work(self: &Rc<Self>) -> AtWork {
        self.tasks.set(self.tasks.get() + 1);
        self.count(Gauge::Tasks, 1);
        AtWork(Rc::clone(self))
    }

    /// Does what the coordinator asks for, one order after another.
    async fn obey(self: Rc<Self>, mut thread: Thread) {
        let report = tokio_uring::spawn(Self::report(Rc::clone(&self), thread.seconds.clone()));
        loop {
            let order = *thread.orders.borrow_and_update();
            if order > self.order.get() {
                self.order.set(order);
                self.changed.notify_waiters();
                self.begin(order, thread.job);
            }
            if order == Order::Close || thread.orders.changed().await.is_err() {
                break;
            }
        }
        self.close().await;
        report.abort();
        self.harvest_measures();
    }

    fn begin(self: &Rc<Self>, order: Order, job: Job) {
        match (order, job) {
            (Order::Connect, Job::Clients { first, of }) => {
                tokio_uring::spawn(member::seat_all(self.at_work(), Rc::clone(self), first, of));
            }
            (Order::Connect, Job::Publishers) => publish::seat_all(self),
            (Order::Join, Job::Clients { .. }) => drive::join(self),
            (Order::Publish, Job::Clients { .. }) => drive::begin(self),
            (Order::Settle, _) => {
                let seats = self.seats.borrow().clone();
                seats.iter().for_each(|seat| seat.look_finished(self));
            }
            _ => {}
        }
    }

    /// Says goodbye to the server, waits for its answers, and ends whatever is left by force.
    async fn close(self: &Rc<Self>) {
        let seats = self.seats.borrow().clone();
        for seat in &seats {
            if let Some(sender) = seat.sender() {
                // A connection that is gone already has been noted by its reader.
                let _ = sender.close().await;
            }
        }
        let patience = Duration::from_millis(self.shared.spec.target.patience_ms);
        if timeout(patience, self.all_ended()).await.is_err() {
            let left = self.tasks.get();
            self.fail(&format!("the server did not answer {left} close frames in time"));
        }
        for seat in &seats {
            if let Some(sender) = seat.sender() {
                sender.abandon();
            }
        }
        // The reads of abandoned sockets end at once.
        let _ = timeout(patience, self.all_ended()).await;
    }

    async fn all_ended(&self) {
        loop {
            let changed = self.changed.notified();
            if self.tasks.get() == 0 {
                return;
            }
            changed.await;
        }
    }

    /// Sends the coordinator this second's latencies.
    async fn report(self: Rc<Self>, seconds: ReportSender<SecondReport>) {
        let mut ticks = interval(Duration::from_secs(1));
        loop {
            ticks.tick().await;
            let mut measures = self.measures.borrow_mut();
            if !measures.second.is_empty() {
                let latencies = std::mem::replace(&mut measures.second, Hist::coarse());
                // A coordinator that is behind loses a point of its curve and nothing else.
                let _ = seconds.try_send(SecondReport { latencies });
            }
        }
    }

    fn harvest_measures(&self) {
        let measures = self.measures.borrow();
        let mut harvest = self.harvest.borrow_mut();
        harvest.hists.merge(&measures.hists);
        harvest.last.merge(&measures.last);
    }

    /// True for a delivery whose latency is told apart: to those whom a storm or slowness spares, once it has
    /// begun, and in the busy room of an idle crowd.
    pub(super) fn is_apart(&self, chosen: bool, room: u32) -> bool {
        match self.shared.spec.scenario {
            Kind::Storm => !chosen && self.storm_ns.get() != u64::MAX,
            Kind::Slow => !chosen && self.order.get() >= Order::Publish,
            Kind::Idle => self.shared.layout.is_side(room),
            _ => false,
        }
    }
}
