//! The thread, its listener, its connections, and their end.
//!
//! One thread runs everything; while nobody asks it sleeps in the kernel. A connection that is too slow
//! with its request, or that exceeds a limit, is closed; connections over the limit wait in the kernel
//! until one ends. At the end the listener closes first, requests under way get a moment to finish.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;

use super::client::Client;
use super::consult;
use super::deliver;
use super::desk::Desk;
use super::guard::Guard;
use super::jwks::{self, Record};
use super::options::Options;
use super::routes::{Api, Lock, router};
use crate::sys::clock::Clock;
use crate::sys::listener::local_address;

/// Bytes of a request head and of what is read at once.
const HEAD_BYTES: usize = 16_384;
/// Header lines of a request.
const HEADERS: usize = 64;
/// How long requests under way may take at the end.
const GRACE: Duration = Duration::from_secs(1);
/// The pause after the kernel refused a connection for want of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);

/// A running listener. Dropping it ends it.
#[derive(Debug)]
pub struct Admin {
    address: Option<SocketAddr>,
    orders: watch::Sender<Orders>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread is told.
#[derive(Clone, Debug)]
pub(super) struct Orders {
    pub(super) options: Options,
    pub(super) stop: bool,
}

impl Admin {
    /// Starts the thread, on a listening socket if it is to listen.
    ///
    /// # Errors
    /// When the kernel refuses a thread or what its loop needs.
    pub fn start(
        listener: Option<OwnedFd>,
        desk: Arc<dyn Desk>,
        options: Options,
    ) -> io::Result<Self> {
        let address = listener.as_ref().map(local_address).transpose()?;
        let listener = listener.map(StdListener::from);
        if let Some(listener) = &listener {
            listener.set_nonblocking(true)?;
        }
        let (orders, told) = watch::channel(Orders { options, stop: false });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(|error| io::Error::new(error.kind(), format!("its loop: {error}")))?;
        let work = move || {
            if let Err(error) = runtime.block_on(serve(listener, desk, told)) {
                tracing::error!("the admin listener failed: {error}");
            }
        };
        let thread = std::thread::Builder::new().name("admin".to_owned()).spawn(work)?;
        Ok(Self { address, orders, thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Gives it new keys and limits; requests under way keep what admitted them.
    pub fn reload(&self, options: Options) {
        self.orders.send_modify(|orders| orders.options = options);
    }

    /// True when the thread has ended; it does so by itself only by failing.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.orders.send_modify(|orders| orders.stop = true);
        if let Some(thread) = self.thread.take() {
            // A panic in there has been printed, and ends nothing but the thread.
            let _ = thread.join();
        }
    }
}

async fn serve(
    listener: Option<StdListener>,
    desk: Arc<dyn Desk>,
    mut told: watch::Receiver<Orders>,
) -> io::Result<()> {
    let listener = listener.map(TcpListener::from_std).transpose()?;
    let clock = Clock::start();
    let options = told.borrow_and_update().options.clone();
    let places = Arc::new(Semaphore::new(options.limits.connections));
    let guard = Lock::new(Guard::new(options, clock.now()));
    let probed = Lock::new(None);
    let api = Arc::new(Api {
        desk,
        guard,
        clock,
        probed,
        surveyed: Lock::new(None),
        jwks: Record::default(),
        consults: consult::Record::default(),
        deliveries: deliver::Record::default(),
    });
    let client = Client::new()?;
    tokio::spawn(jwks::keep(Arc::clone(&api), client.clone(), told.clone()));
    let errands = {
        let options = &told.borrow().options;
        options.webhook.is_some() || !options.hooks.is_empty() || options.is_public
    };
    let errands =
        errands.then(|| tokio::spawn(consult::serve(Arc::clone(&api), client, told.clone())));
    let graceful = GracefulShutdown::new();
    // The order to stop may have come before the first look.
    while !told.borrow().stop {
        tokio::select! {
            biased;
            changed = told.changed() => {
                if changed.is_err() {
                    break;
                }
                api.renew(told.borrow_and_update().options.clone());
            }
            accepted = accept(listener.as_ref(), &places) => match accepted {
                Ok((stream, place)) => attend(stream, place, &api, &graceful),
                Err(error) => {
                    tracing::warn!("the admin listener cannot accept: {error}");
                    let _ = timeout(PAUSE, std::future::pending::<()>()).await;
                }
            },
        }
    }
    drop(listener);
    let last = async {
        graceful.shutdown().await;
        if let Some(errands) = errands {
            // A panic in there has been printed.
            let _ = errands.await;
        }
    };
    let _ = timeout(GRACE, last).await;
    Ok(())
}

/// The next connection, once there is a place for it.
async fn accept(
    listener: Option<&TcpListener>,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let Some(listener) = listener else { return std::future::pending().await };
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

/// Serves a connection until it ends; it holds its place as long.
fn attend(
    stream: TcpStream,
    place: OwnedSemaphorePermit,
    api: &Arc<Api>,
    graceful: &GracefulShutdown,
) {
    let _ = stream.set_nodelay(true);
    let service = TowerToHyperService::new(router(Arc::clone(api)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(api.limits().request_timeout)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        // How a client's connection fails is the client's business.
        if let Err(error) = connection.await {
            tracing::debug!("a connection of the admin listener ended: {error}");
        }
        drop(place);
    });
}
