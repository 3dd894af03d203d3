//! What makes a scenario one: who asks, who is dropped, who comes back and when.
//!
//! Each function is one kind of trouble or load, started when the first message is due. Publications are not
//! made here (see `publish`); these are the echoes, the roll call, churn, storm and slow readers.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::crew::Crew;
use super::session::{Seat, joins};
use super::shared::{Gauge, Order, Shared, nanos};
use super::timer::Timer;
use crate::clock;
use crate::payload::Stamp;
use crate::socket::Sender;
use crate::spec::{Arrivals, Kind, SlowKind};

/// Starts the scenario's own tasks on a thread of clients.
pub(super) fn begin(crew: &Rc<Crew>) {
    let spec = &crew.shared.spec;
    let task = Rc::clone(crew);
    match spec.scenario {
        Kind::Idle => done_after(crew, call_the_roll(task)),
        Kind::Echo if spec.load.rate > 0.0 => done_after(crew, echo_by_schedule(task)),
        Kind::Echo => done_after(crew, echo_in_a_circle(task)),
        Kind::Storm => done_after(crew, break_the_storm(task)),
        Kind::Churn => {
            for seat in crew.seats.borrow().iter() {
                leave_later(crew, seat);
            }
            crew.count(Gauge::Done, 1);
        }
        Kind::Slow if spec.trouble.slow_kind == SlowKind::HalfOpen => {
            vanish(crew);
            crew.count(Gauge::Done, 1);
        }
        _ => crew.count(Gauge::Done, 1),
    }
}

/// Lets the thread's clients of an idle crowd join their rooms.
pub(super) fn join(crew: &Rc<Crew>) {
    let (working, crew) = (crew.at_work(), Rc::clone(crew));
    tokio_uring::spawn(async move {
        let seats = crew.seats.borrow().clone();
        for seat in seats {
            // No more at one time than may connect at one time: a million at once is a test of its own.
            let Ok(turn) = crew.gate.acquire().await else { break };
            turn.forget();
            let Some(sender) = seat.sender() else { continue };
            if let Err(error) = sender.write(joins(&crew, &seat, &sender, None)).await {
                crew.fail(&error);
            }
        }
        drop(working);
    });
}

/// Starts a driver, at whose end the thread has sent everything.
fn done_after(crew: &Rc<Crew>, driver: impl Future<Output = Result<(), String>> + 'static) {
    let (working, crew) = (crew.at_work(), Rc::clone(crew));
    tokio_uring::spawn(async move {
        if let Err(error) = driver.await {
            crew.fail(&error);
        }
        crew.count(Gauge::Done, 1);
        drop(working);
    });
}

/// How often a closed loop looks whether everything is back, in nanoseconds.
const LOOK_NS: u64 = 10_000_000;

/// Waits for a moment of the monotonic clock, to the millisecond.
async fn wait_until(at: u64) {
    pause(at.saturating_sub(clock::now_ns())).await;
}

/// Waits for so many nanoseconds, to the millisecond.
pub(super) async fn pause(nanos: u64) {
    let now = Instant::from_std(clock::now());
    sleep_until(now + Duration::from_nanos(nanos)).await;
}

/// Waits as long as a lazy client lets its messages lie: 20 to 60 ms at random, so that they do not all read
/// at once.
pub(super) async fn doze(crew: &Crew) {
    let part = crew.random.borrow_mut().f64();
    pause(nanos(0.02 + 0.04 * part)).await;
}

/// Each client asks `roll_calls` times and counts the answers.
async fn call_the_roll(crew: Rc<Crew>) -> Result<(), String> {
    let calls = crew.shared.spec.crowd.roll_calls;
    wait_until(crew.shared.start()).await;
    let seats = crew.seats.borrow().clone();
    for seat in seats {
        let Some(sender) = seat.sender() else { continue };
        let mut frames = Vec::new();
        for _ in 0..calls {
            ask(&crew, &seat, &sender, clock::now_ns(), &mut frames);
        }
        if !frames.is_empty() {
            sender.write(frames).await?;
        }
    }
    Ok(())
}

/// Appends the client's next echo or roll call.
pub(super) fn ask(crew: &Crew, seat: &Seat, sender: &Sender, at_ns: u64, frames: &mut Vec<u8>) {
    let spec = &crew.shared.spec;
    let number = u64::from(seat.asked.get()) + 1;
    let mut text = Vec::new();
    if spec.scenario == Kind::Idle && spec.target.dialect.ping(number, &mut text) {
        sender.frame(&text, frames);
    } else {
        let stamp =
            Stamp { run: crew.shared.run, publisher: seat.who, seq: number, at_ns, last: false };
        let size = spec.load.size.pick(&mut crew.random.borrow_mut());
        let mut payload = Vec::new();
        stamp.write(size, &mut payload);
        spec.target.dialect.echo(&payload, &mut text);
        sender.frame(&text, frames);
    }
    seat.asked.set(seat.asked.get() + 1);
    crew.count(Gauge::Sent, 1);
    crew.count(Gauge::SentBytes, text.len() as u64);
}

/// Whether a client may ask for another echo.
pub(super) fn may_ask(crew: &Crew, seat: &Seat) -> bool {
    let load = &crew.shared.spec.load;
    let share = load.messages / u64::from(crew.shared.spec.crowd.clients);
    load.messages == 0 || u64::from(seat.asked.get() + seat.owed.get()) < share.max(1)
}

/// Closed loop: each client sends `depth` messages, and another for each that comes back.
async fn echo_in_a_circle(crew: Rc<Crew>) -> Result<(), String> {
    let load = &crew.shared.spec.load;
    wait_until(crew.shared.start()).await;
    let seats = crew.seats.borrow().clone();
    for seat in &seats {
        let Some(sender) = seat.sender() else { continue };
        let mut frames = Vec::new();
        for _ in 0..load.depth {
            if may_ask(&crew, seat) {
                ask(&crew, seat, &sender, clock::now_ns(), &mut frames);
            }
        }
        sender.write(frames).await?;
    }
    if load.duration_s > 0.0 {
        wait_until(crew.shared.end()).await;
        return Ok(());
    }
    // Without a length the sending lasts until all messages are back. When one does not come back, nothing
    // moves any more, and the coordinator goes on to the next order.
    while crew.order.get() == Order::Publish && !seats.iter().all(|seat| seat.has_answers()) {
        pause(LOOK_NS).await;
    }
    Ok(())
}

/// Open loop: the clients take turns by the schedule, whatever has come back.
async fn echo_by_schedule(crew: Rc<Crew>) -> Result<(), String> {
    let shared = &crew.shared;
    let load = &shared.spec.load;
    let seats = crew.seats.borrow().clone();
    if seats.is_empty() {
        return Ok(());
    }
    // Each thread has a share of the clients and the same share of the rate.
    let share = |rate: f64| rate * seats.len() as f64 / f64::from(shared.spec.crowd.clients);
    let seed = crew.random.borrow_mut().u64(..);
    let length = load.duration_s * 1e9;
    let (rate, rate_to) = (share(load.rate), share(load.rate_to));
    let mut arrivals = Arrivals::new(load.schedule, rate, rate_to, length, seed);
    let mut timer = Timer::new()?;
    for seat in seats.iter().cycle() {
        let at = shared.start() + arrivals.next_ns();
        if at >= shared.end() || crew.order.get() != Order::Publish || !may_ask(&crew, seat) {
            break;
        }
        timer.until(at).await?;
        crew.measures.borrow_mut().hists.late.record_ns(clock::now_ns().saturating_sub(at));
        let Some(sender) = seat.sender() else { continue };
        let mut frames = Vec::new();
        ask(&crew, seat, &sender, at, &mut frames);
        let (crew, sender) = (Rc::clone(&crew), Rc::clone(&sender));
        // The schedule does not wait for a socket that is full.
        tokio_uring::spawn(async move {
            if let Err(error) = sender.write(frames).await {
                crew.fail(&error);
            }
        });
    }
    Ok(())
}

/// Drops the chosen clients, all at once, and perhaps again and again.
async fn break_the_storm(crew: Rc<Crew>) -> Result<(), String> {
    let trouble = &crew.shared.spec.trouble;
    let mut at = crew.shared.start() + nanos(trouble.drop_at_s);
    loop {
        wait_until(at).await;
        if crew.order.get() != Order::Publish || at >= crew.shared.end() {
            return Ok(());
        }
        crew.storm_ns.set(clock::now_ns());
        for seat in crew.seats.borrow().iter().filter(|seat| seat.chosen) {
            drop_now(seat);
        }
        if trouble.again_s <= 0.0 {
            return Ok(());
        }
        at += nanos(trouble.again_s);
    }
}

fn drop_now(seat: &Seat) {
    if let Some(sender) = seat.sender() {
        seat.dropped.set(true);
        sender.abandon();
    }
}

/// Makes the chosen clients vanish without a word.
fn vanish(crew: &Crew) {
    for seat in crew.seats.borrow().iter().filter(|seat| seat.chosen) {
        if let Some(sender) = seat.sender() {
            if let Err(error) = sender.vanish() {
                crew.fail(&error);
            }
            // Nothing will arrive any more, so the end is by force.
            seat.dropped.set(true);
            seat.finish(crew);
        }
    }
}

/// Called when a client is in its rooms.
pub(super) fn on_open(crew: &Rc<Crew>, seat: &Rc<Seat>) {
    let scenario = crew.shared.spec.scenario;
    let again = seat.session.get() > 1;
    let broke = crew.storm_ns.get();
    if scenario == Kind::Storm && again && broke != u64::MAX {
        crew.measures.borrow_mut().hists.back.record_ns(clock::now_ns().saturating_sub(broke));
    }
    if scenario == Kind::Churn && crew.order.get() == Order::Publish {
        leave_later(crew, seat);
    }
    seat.look_finished(crew);
}

/// Ends the present session after a random stay, in order or by dropping it.
fn leave_later(crew: &Rc<Crew>, seat: &Rc<Seat>) {
    let trouble = &crew.shared.spec.trouble;
    let (stay, aborts) = {
        let mut random = crew.random.borrow_mut();
        (-(1.0 - random.f64()).ln() * trouble.stay_s, random.f64() < trouble.abort)
    };
    let (own, seat) = (Rc::clone(crew), Rc::clone(seat));
    let session = seat.session.get();
    tokio_uring::spawn(async move {
        pause(nanos(stay)).await;
        if own.order.get() != Order::Publish || seat.session.get() != session {
            return;
        }
        if aborts {
            return drop_now(&seat);
        }
        if let Some(sender) = seat.sender() {
            seat.leaving.set(true);
            // A session that has ended meanwhile has been judged by its reader.
            let _ = sender.close().await;
        }
    });
}

/// Waits as long as a dropped client is to wait before attempt number `attempt`, counted from 0.
pub(super) async fn before_return(crew: &Crew, attempt: u32) {
    let trouble = &crew.shared.spec.trouble;
    let part = crew.random.borrow_mut().f64();
    let seconds = match crew.shared.spec.scenario {
        Kind::Storm if trouble.back_off => {
            part * 2_f64.powi(attempt.min(5).cast_signed()).min(30.0)
        }
        Kind::Storm if attempt == 0 => part * trouble.return_within_s,
        _ if attempt == 0 => 0.0,
        _ => part * 0.2,
    };
    if seconds > 0.0 {
        pause(nanos(seconds)).await;
    }
}

/// Counts a delivery for the publisher that waits for it.
pub(super) fn note_delivered(shared: &Shared, stream: u32) {
    if let Some(state) = usize::try_from(stream).ok().and_then(|at| shared.streams.get(at)) {
        state.delivered.fetch_add(1, Ordering::Relaxed);
    }
}
