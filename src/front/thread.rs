//! The thread, its connections, and their end.
//!
//! One loop takes in what workers leave and has each connection served by a task of its own, all on this thread;
//! while nothing passes it sleeps in the kernel. Drained, it lets requests finish and has tunnels end one after
//! another within the window, so that their clients do not all come back at once; what is left at the end of the
//! window is closed.

use std::io;
use std::net::TcpStream as StdStream;
use std::os::unix::net::UnixStream as StdUnix;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::line::{Line, said_of};
use super::options::{Options, Place};
use super::seats::Seats;
use super::serve::{Common, Whose, serve};
use super::spoken::Spoken;
use super::tally::{Tally, count, less};
use crate::admin::connector;
use crate::base::outside::Passage;
use crate::sys::rights;

/// Connections of a worker that may wait for the thread.
const WAITING: usize = 256;
/// How long a connection to a server is kept for the next request, and how many of each server.
const POOLED: Duration = Duration::from_secs(30);
const POOLED_MOST: usize = 32;
/// Connections served at one time besides those that places allow: they are told that they are too many.
const TOLD: usize = 256;
/// Times that the end of a drain is divided into.
const PARTS: u32 = 1000;

/// A running thread. Dropping it ends it, and with it whatever it serves.
#[derive(Debug)]
pub struct Front {
    tally: Arc<Tally>,
    orders: watch::Sender<Order>,
    thread: Option<JoinHandle<()>>,
    /// The workers' ends, as the common descriptor table has them.
    _sockets: Vec<Arc<StdUnix>>,
}

/// The thread's end of a line.
type End = (StdUnix, Receiver<(u64, Passage)>);

/// What the thread is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Serve,
    /// To be done within so long.
    Drain(Duration),
    Stop,
}

impl Front {
    /// Starts the thread, with a line to it for each of so many workers.
    ///
    /// # Errors
    /// When the kernel refuses a thread or what its loop needs.
    pub fn start(options: Options, workers: usize) -> io::Result<(Self, Vec<Line>)> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let tally = Arc::new(Tally::default());
        let (orders, told) = watch::channel(Order::Serve);
        let (mut lines, mut ends) = (Vec::new(), Vec::new());
        for _ in 0..workers {
            let (ours, theirs) = rights::pair()?;
            let (passages, said) = bounded(WAITING);
            let (sockets, tally) = (Arc::new(theirs), Arc::clone(&tally));
            lines.push(Line { passages, sockets, tally, number: 0 });
            ends.push((ours, said));
        }
        let counted = Arc::clone(&tally);
        let pool = {
            let _entered = runtime.enter();
            Pool::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(POOLED)
                .pool_max_idle_per_host(POOLED_MOST)
                .build(connector()?)
        };
        let common = Common {
            pool,
            tally: counted,
            head_bytes: options.head_bytes,
            headers: options.headers,
        };
        let work = move || {
            let work = run(options.places, Arc::new(common), ends, told);
            if let Err(error) = runtime.block_on(work) {
                tracing::error!("the thread of [[proxy]] failed: {error}");
            }
        };
        let thread = std::thread::Builder::new().name("front".to_owned()).spawn(work)?;
        let sockets = lines.iter().map(|line| Arc::clone(&line.sockets)).collect();
        Ok((Self { tally, orders, thread: Some(thread), _sockets: sockets }, lines))
    }

    /// What it counts.
    #[must_use]
    pub fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    /// Begins the graceful end of what it serves, to be over within that window.
    pub fn drain(&self, window: Duration) {
        self.orders.send_replace(Order::Drain(window));
    }

    /// True when no connection is left.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.tally.connections.load(Ordering::Relaxed) == 0
    }

    /// True when the thread has ended; it does so by itself only by failing.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.orders.send_replace(Order::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic in there has been printed, and ends nothing but the thread.
            let _ = thread.join();
        }
    }
}

async fn run(
    places: Vec<Place>,
    common: Arc<Common>,
    ends: Vec<End>,
    mut told: watch::Receiver<Order>,
) -> io::Result<()> {
    let (leave, mut taken) = mpsc::channel(ends.len().max(1));
    for (end, said) in ends {
        let (end, tally) = (UnixStream::from_std(end)?, Arc::clone(&common.tally));
        tokio::spawn(receive(end, said, tally, leave.clone()));
    }
    let places: Vec<Arc<Place>> = places.into_iter().map(Arc::new).collect();
    let most = places.iter().map(|place| place.connections).sum::<usize>() + TOLD;
    let (seats, mut tasks) = (Seats::default(), JoinSet::new());
    loop {
        if *told.borrow_and_update() == Order::Stop {
            tasks.shutdown().await;
            return Ok(());
        }
        tokio::select! {
            biased;
            changed = told.changed() => if changed.is_err() {
                return Ok(());
            },
            Some(done) = tasks.join_next(), if !tasks.is_empty() => {
                if let Err(error) = done {
                    tracing::error!("a proxied connection was lost: {error}");
                }
            }
            Some((passage, socket, counted)) = taken.recv() => {
                if tasks.len() >= most {
                    count(&common.tally.lost);
                    continue;
                }
                let place = &places[passage.place];
                let seat = seats.take(passage.place, place, passage.client.as_deref());
                let whose = Whose {
                    place: Arc::clone(place),
                    client: passage.client.clone(),
                    is_secure: passage.seal.is_some(),
                    is_welcome: seat.is_some(),
                };
                let (common, told) = (Arc::clone(&common), told.clone());
                tasks.spawn(async move {
                    let _held = (counted, seat);
                    attend(common, whose, passage, socket, told).await;
                });
            }
        }
    }
}

/// One of the connections that are counted.
struct Connected(Arc<Tally>);

impl Drop for Connected {
    fn drop(&mut self) {
        less(&self.0.connections);
    }
}

/// Takes what a worker leaves: the kernel says when there is a socket, and what was said of it is there by then.
async fn receive(
    end: UnixStream,
    said: Receiver<(u64, Passage)>,
    tally: Arc<Tally>,
    leave: mpsc::Sender<(Passage, TcpStream, Connected)>,
) {
    while let Ok((number, socket)) =
        end.async_io(Interest::READABLE, || rights::receive(&end)).await
    {
        let counted = Connected(Arc::clone(&tally));
        let passage = said_of(number, &said);
        let socket = socket.map(|socket| {
            let socket = StdStream::from(socket);
            // Not all drivers need it to be.
            socket.set_nonblocking(true)?;
            TcpStream::from_std(socket)
        });
        let (Some(passage), Some(Ok(socket))) = (passage, socket) else {
            tracing::warn!("a proxied connection was lost: there are no descriptors left");
            count(&tally.lost);
            continue;
        };
        if leave.send((passage, socket, counted)).await.is_err() {
            return;
        }
    }
}

/// Serves a connection to its end, or to that of a drain.
async fn attend(
    common: Arc<Common>,
    whose: Whose,
    passage: Passage,
    socket: TcpStream,
    told: watch::Receiver<Order>,
) {
    let socket = Arc::new(socket);
    let Passage { said, unread, seal, .. } = passage;
    let spoken = Spoken::new(Arc::clone(&socket), seal, said, unread);
    let tally = Arc::clone(&common.tally);
    let end = drained(told.clone(), fastrand::u32(..PARTS));
    tokio::select! {
        () = serve(common, whose, spoken, socket, end) => {}
        () = drained(told, PARTS) => count(&tally.drained),
    }
}

/// Returns once that part of a drain's window has gone by.
async fn drained(mut told: watch::Receiver<Order>, part: u32) {
    let order = told.wait_for(|order| matches!(order, Order::Drain(_))).await.map(|order| *order);
    match order {
        Ok(Order::Drain(window)) => {
            let _ = timeout(window / PARTS * part, std::future::pending::<()>()).await;
        }
        _ => std::future::pending().await,
    }
}
