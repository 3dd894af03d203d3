//! Publishers: connections that send and are in no room.
//!
//! An open loop sends what its schedule says, and several messages in one write when it is due for several. A
//! closed loop keeps a window: it waits until the members of the room have what was published before. The last
//! publication of each stream says so, by which its subscribers know that they have had everything; the total
//! is made known before it is sent, so that nobody who joins too late waits for it.

use std::rc::Rc;
use std::sync::atomic::Ordering;

use super::crew::{AtWork, Crew};
use super::member::live;
use super::session::Seat;
use super::shared::{Gauge, Order, nanos};
use super::timer::Timer;
use crate::clock;
use crate::payload::Stamp;
use crate::socket::Sender;
use crate::spec::{Arrivals, PublisherPlan};

/// Bytes that are written together at most.
const WRITE: usize = 256 << 10;

/// Starts the publishers' tasks.
pub(super) fn seat_all(crew: &Rc<Crew>) {
    let plans = crew.shared.layout.publishers.clone();
    for (who, plan) in (0..).zip(plans) {
        let seat = Rc::new(Seat::new(crew, who, plan.streams.first().copied()));
        crew.seats.borrow_mut().push(Rc::clone(&seat));
        tokio_uring::spawn(attend(crew.at_work(), Rc::clone(crew), Rc::clone(&seat)));
        tokio_uring::spawn(publish(crew.at_work(), Rc::clone(crew), seat, plan));
    }
}

async fn attend(working: AtWork, crew: Rc<Crew>, seat: Rc<Seat>) {
    let Ok(turn) = crew.gate.acquire().await else { return };
    turn.forget();
    live(working, Rc::clone(&crew), seat).await;
}

async fn publish(_working: AtWork, crew: Rc<Crew>, seat: Rc<Seat>, plan: PublisherPlan) {
    crew.until(Order::Publish).await;
    if crew.order.get() == Order::Publish {
        let mut publisher = Publisher::new(&crew, &seat, plan);
        if let Err(error) = publisher.run().await {
            crew.fail(&format!("publishing: {error}"));
        }
    }
    crew.count(Gauge::Done, 1);
}

/// One publisher at work.
struct Publisher<'a> {
    crew: &'a Rc<Crew>,
    seat: &'a Rc<Seat>,
    plan: PublisherPlan,
    /// Messages sent so far, by stream, in the order of the plan.
    sent: Vec<u64>,
    total: u64,
    frames: Vec<u8>,
    /// Messages in `frames`.
    framed: u64,
    payload: Vec<u8>,
    text: Vec<u8>,
}

impl<'a> Publisher<'a> {
    fn new(crew: &'a Rc<Crew>, seat: &'a Rc<Seat>, plan: PublisherPlan) -> Self {
        let sent = vec![0; plan.streams.len()];
        let (frames, payload, text) = (Vec::new(), Vec::new(), Vec::new());
        Self { crew, seat, plan, sent, total: 0, frames, framed: 0, payload, text }
    }

    async fn run(&mut self) -> Result<(), String> {
        let sender = self.seat.sender().ok_or("it has no connection")?;
        let start = self.crew.shared.start() + nanos(self.plan.from_s);
        let end = match self.plan.duration_s {
            0.0 => u64::MAX,
            seconds => start + nanos(seconds),
        };
        let mut timer = Timer::new()?;
        timer.until(start).await?;
        if self.crew.shared.spec.load.window > 0 {
            self.closed_loop(&sender, &mut timer, end).await?;
        } else {
            self.open_loop(&sender, &mut timer, start, end).await?;
        }
        self.finish(&sender).await
    }

    fn may_go_on(&self) -> bool {
        let limit = self.plan.messages;
        (limit == 0 || self.total < limit) && self.crew.order.get() == Order::Publish
    }

    async fn open_loop(
        &mut self,
        sender: &Rc<Sender>,
        timer: &mut Timer,
        start: u64,
        end: u64,
    ) -> Result<(), String> {
        let (burst, schedule) = (f64::from(self.plan.burst), self.crew.shared.spec.load.schedule);
        let seed = self.crew.random.borrow_mut().u64(..);
        let (rate, rate_to) = (self.plan.rate / burst, self.plan.rate_to / burst);
        let length = self.plan.duration_s * 1e9;
        let mut arrivals = Arrivals::new(schedule, rate, rate_to, length, seed);
        let mut next = start + arrivals.next_ns();
        while next < end && self.may_go_on() {
            timer.until(next).await?;
            let now = clock::now_ns();
            while next <= now && next < end && self.frames.len() < WRITE && self.may_go_on() {
                self.crew.measures.borrow_mut().hists.late.record_ns(now - next);
                for _ in 0..self.plan.burst {
                    self.publish(sender, next);
                }
                next = start + arrivals.next_ns();
            }
            self.flush(sender).await?;
        }
        Ok(())
    }

    async fn closed_loop(
        &mut self,
        sender: &Rc<Sender>,
        timer: &mut Timer,
        end: u64,
    ) -> Result<(), String> {
        let patience = self.crew.shared.spec.target.patience_ms * 1_000_000;
        let mut moved = clock::now_ns();
        while self.may_go_on() && clock::now_ns() < end {
            let mut sent = false;
            while self.may_go_on() && self.has_window() && self.frames.len() < WRITE {
                self.publish(sender, clock::now_ns());
                sent = true;
            }
            self.flush(sender).await?;
            let now = clock::now_ns();
            if sent {
                moved = now;
            } else if now - moved > patience {
                return Err("the members of the room did not get what was published".to_owned());
            }
            timer.until(now + LOOK).await?;
        }
        Ok(())
    }

    /// Whether the next message is within the window of its stream.
    fn has_window(&self) -> bool {
        let shared = &self.crew.shared;
        let at = self.turn();
        let stream = self.plan.streams[at];
        let members = u64::from(shared.layout.members_of(stream, shared.spec.crowd.clients));
        let state = usize::try_from(stream).ok().and_then(|at| shared.streams.get(at));
        let delivered = state.map_or(0, |state| state.delivered.load(Ordering::Relaxed));
        (self.sent[at].saturating_sub(shared.spec.load.window - 1)) * members <= delivered
    }

    /// Which stream is next: they take turns.
    fn turn(&self) -> usize {
        usize::try_from(self.total % self.plan.streams.len() as u64).unwrap_or(0)
    }

    /// Frames the next message, planned for `at_ns`.
    fn publish(&mut self, sender: &Sender, at_ns: u64) {
        let at = self.turn();
        let size = self.crew.shared.spec.load.size.pick(&mut self.crew.random.borrow_mut());
        self.sent[at] += 1;
        self.total += 1;
        self.frame(sender, at, size, at_ns, false);
    }

    fn frame(&mut self, sender: &Sender, at: usize, size: usize, at_ns: u64, last: bool) {
        let shared = &self.crew.shared;
        let stream = self.plan.streams[at];
        let stamp = Stamp { run: shared.run, publisher: stream, seq: self.sent[at], at_ns, last };
        self.payload.clear();
        stamp.write(size, &mut self.payload);
        let room = shared.name(shared.room_of(stream).unwrap_or(0));
        self.text.clear();
        shared.spec.target.dialect.publish(room, &self.payload, &mut self.text);
        sender.frame(&self.text, &mut self.frames);
        self.framed += 1;
        self.crew.count(Gauge::SentBytes, self.text.len() as u64);
    }

    async fn flush(&mut self, sender: &Rc<Sender>) -> Result<(), String> {
        if self.frames.is_empty() {
            return Ok(());
        }
        self.crew.count(Gauge::Sent, std::mem::take(&mut self.framed));
        sender.write(std::mem::take(&mut self.frames)).await
    }

    /// Ends each stream with a message that says so.
    async fn finish(&mut self, sender: &Rc<Sender>) -> Result<(), String> {
        for at in 0..self.plan.streams.len() {
            self.sent[at] += 1;
            let stream = usize::try_from(self.plan.streams[at]).unwrap_or(0);
            if let Some(state) = self.crew.shared.streams.get(stream) {
                state.total.store(self.sent[at], Ordering::Release);
            }
            self.frame(sender, at, Stamp::MIN_BYTES, clock::now_ns(), true);
        }
        self.flush(sender).await
    }
}

/// How often a closed loop looks whether its window has moved, in nanoseconds.
const LOOK: u64 = 100_000;
