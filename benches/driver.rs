//! Echo over real sockets: what a driver costs per message, beside a bare loop and a runtime of tasks.
//!
//! The server has a thread of its own, the client is the bench's, and both take turns on one core. In a
//! round the client writes 64 bytes on each connection and then reads all of them back, byte by byte the
//! same. So the server finds all sockets ready at once, as a busy one does, and the count of its wake-ups
//! does not depend on which of two cores is the faster at the moment. What is reported is not the time
//! that passed but the processor time of the server: that of the process without that of the client's
//! thread. Most of it is TCP, on loopback with the client's receive path in it, so what tells is the
//! distance to `bare epoll`.
//!
//! The two drivers run as the engine builds them, without a shard above. `tokio-uring` is the baseline of
//! decision 0003: one task a connection. Every server ends when its last client has left.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use criterion::{Bencher, Criterion, Throughput};
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::time::{ClockId, Timespec, clock_gettime};
use throng::base::id::ConnId;
use throng::base::shared::Shared;
use throng::contract::{Driver, Event, Op, SendBatch};
use throng::driver::{self, Kind, Options, uring};
use throng::sys::{affinity, eventfd, listener};

const CLIENTS: u32 = 64;
const MESSAGE: usize = 64;

type Server = fn(TcpListener) -> io::Result<()>;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("echo of 64 bytes on 64 connections, server's time");
    group.throughput(Throughput::Elements(1));
    let mut servers: Vec<(&str, Server)> = vec![
        ("bare epoll", bare),
        ("epoll driver", |listener| serve(Kind::Epoll, listener, uring::Options::default())),
    ];
    match uring::probe(&uring::Options::default()) {
        Ok(()) => servers.extend::<[(&str, Server); 3]>([
            ("io_uring driver, poll", |listener| ring(listener, uring::Idle::MultishotPoll)),
            ("io_uring driver, recv", |listener| ring(listener, uring::Idle::MultishotRecv)),
            ("tokio-uring", tasks),
        ]),
        Err(refusal) => println!("io_uring is left out: {refusal}"),
    }
    for (name, server) in servers {
        let mut echo = None;
        group.bench_function(name, |bencher| {
            echo.get_or_insert_with(|| Echo::start(server)).measure(bencher);
        });
        if let Some(echo) = echo {
            echo.end();
        }
    }
    group.finish();
    criterion.final_summary();
}

/// A server and its clients.
struct Echo {
    server: JoinHandle<io::Result<()>>,
    clients: Vec<TcpStream>,
    /// Rounds that were made, which every message carries.
    round: u64,
}

impl Echo {
    fn start(server: Server) -> Self {
        // The server's thread is born on its parent's core.
        let core = sure(affinity::cores()).last().copied().unwrap_or(0);
        sure(affinity::pin(core));
        // All accepted sockets inherit the options that the engine sets, whoever accepts them.
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener =
            TcpListener::from(sure(listener::listen(any, &listener::ListenOptions::default())));
        let address = sure(listener.local_addr());
        let server = sure(std::thread::Builder::new().spawn(move || server(listener)));
        let clients = (0..CLIENTS).map(|_| connect(address)).collect();
        Self { server, clients, round: 0 }
    }

    /// The server's time for so many messages, at least.
    fn measure(&mut self, bencher: &mut Bencher<'_>) {
        bencher.iter_custom(|messages| {
            let rounds = messages.div_ceil(u64::from(CLIENTS));
            let before = server_time();
            for _ in 0..rounds {
                self.round();
            }
            let each =
                (server_time() - before).as_nanos() / u128::from(rounds * u64::from(CLIENTS));
            Duration::from_nanos(u64::try_from(each).unwrap_or(u64::MAX).saturating_mul(messages))
        });
    }

    /// A message for every client, and back.
    fn round(&mut self) {
        self.round += 1;
        for (client, at) in self.clients.iter_mut().zip(0..) {
            sure(client.write_all(&message(self.round, at)));
        }
        for (client, at) in self.clients.iter_mut().zip(0..) {
            let mut back = [0; MESSAGE];
            sure(client.read_exact(&mut back));
            assert_eq!(back, message(self.round, at), "every byte comes back");
        }
    }

    fn end(self) {
        for client in &self.clients {
            sure(client.shutdown(std::net::Shutdown::Write));
        }
        match self.server.join() {
            Ok(result) => sure(result),
            Err(_) => panic!("the server panicked"),
        }
        for mut client in self.clients {
            assert_eq!(sure(client.read(&mut [0])), 0, "nothing came back twice");
        }
    }
}

fn sure<T>(result: io::Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("the kernel refused: {error}"))
}

fn connect(address: SocketAddr) -> TcpStream {
    let client = sure(TcpStream::connect(address));
    sure(client.set_nodelay(true));
    client
}

/// What tells this round and client from all others.
fn message(round: u64, client: u64) -> [u8; MESSAGE] {
    let mut message = [b'x'; MESSAGE];
    message[..8].copy_from_slice(&round.to_le_bytes());
    message[8..16].copy_from_slice(&client.to_le_bytes());
    message
}

/// Processor time of all threads but the calling one.
fn server_time() -> Duration {
    let time = |clock| {
        let Timespec { tv_sec, tv_nsec } = clock_gettime(clock);
        let nanos = u32::try_from(tv_nsec).unwrap_or(0);
        Duration::new(u64::try_from(tv_sec).unwrap_or(0), nanos)
    };
    time(ClockId::ProcessCPUTime).saturating_sub(time(ClockId::ThreadCPUTime))
}

/// The floor: wait, receive, send.
fn bare(listener: TcpListener) -> io::Result<()> {
    listener.set_nonblocking(false)?;
    let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut clients = Vec::new();
    for at in 0..CLIENTS {
        let (client, _) = listener.accept()?;
        epoll::add(&set, &client, epoll::EventData::new_u64(u64::from(at)), epoll::EventFlags::IN)?;
        clients.push(Some(client));
    }
    let mut events = Vec::with_capacity(driver::EVENTS_PER_WAIT);
    let mut buffer = [0; 4096];
    let mut left = CLIENTS;
    while left > 0 {
        events.clear();
        epoll::wait(&set, spare_capacity(&mut events), None)?;
        for event in &events {
            let at = usize::try_from(event.data.u64()).unwrap_or(usize::MAX);
            let Some(client) = &clients[at] else { continue };
            match recv(client, &mut buffer, RecvFlags::DONTWAIT) {
                Ok((0, _)) => {
                    clients[at] = None;
                    left -= 1;
                }
                Ok((length, _)) => {
                    let sent = send(client, &buffer[..length], SendFlags::NOSIGNAL)?;
                    assert_eq!(sent, length, "a message fits into a socket");
                }
                Err(Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// The baseline: a task a connection.
fn tasks(listener: TcpListener) -> io::Result<()> {
    listener.set_nonblocking(false)?;
    tokio_uring::start(async move {
        let listener = tokio_uring::net::TcpListener::from_std(listener);
        let mut tasks = Vec::new();
        for _ in 0..CLIENTS {
            let (client, _) = listener.accept().await?;
            tasks.push(tokio_uring::spawn(echo(client)));
        }
        for task in tasks {
            task.await.map_err(io::Error::other)??;
        }
        Ok(())
    })
}

async fn echo(client: tokio_uring::net::TcpStream) -> io::Result<()> {
    use tokio_uring::buf::BoundedBuf as _;

    let mut buffer = vec![0; 4096];
    loop {
        let (length, read) = client.read(buffer).await;
        let length = length?;
        if length == 0 {
            return Ok(());
        }
        let (written, slice) = client.write_all(read.slice(..length)).await;
        written?;
        buffer = slice.into_inner();
    }
}

fn ring(listener: TcpListener, idle: uring::Idle) -> io::Result<()> {
    serve(Kind::Uring, listener, uring::Options { idle, ..uring::Options::default() })
}

/// One of ours, and the least that a core must do above it.
fn serve(kind: Kind, listener: TcpListener, uring: uring::Options) -> io::Result<()> {
    let (_waker, wake) = eventfd::pair()?;
    let mut options =
        Options { uring, ..Options::new(vec![listener.into()], wake, CLIENTS as usize) };
    if kind == Kind::Uring {
        options.events_per_wait = driver::ANSWERS_PER_WAIT;
    }
    let mut driver = driver::build(kind, options)?;
    let mut core = Core::default();
    while core.closed < CLIENTS {
        driver.wait(None, &mut |event| core.handle(event))?;
        core.submit(&mut *driver);
    }
    Ok(())
}

/// Sends everything back.
#[derive(Default)]
struct Core {
    ops: VecDeque<Op>,
    opened: u32,
    closed: u32,
    spare: Vec<SendBatch>,
}

impl Core {
    fn handle(&mut self, event: Event<'_>) {
        match event {
            Event::Accepted { socket, .. } => {
                let conn = ConnId { index: self.opened, generation: 0 };
                self.opened += 1;
                self.ops.push_back(Op::Open { conn, socket });
            }
            Event::Received { conn, bytes } => {
                let mut batch = self.spare.pop().unwrap_or_default();
                batch.push(Shared::kept(&*bytes));
                self.ops.push_back(Op::Send { conn, batch });
            }
            Event::Sent { batch, .. } => self.spare.push(batch),
            Event::ReceivedEnd { conn } => self.ops.push_back(Op::Close { conn, abort: false }),
            Event::Closed { .. } => self.closed += 1,
            Event::Looked { .. } => unreachable!("nobody looks"),
            Event::HandedOver { .. } => unreachable!("nobody hands over"),
            Event::AcceptFailed { error } | Event::Lost { error, .. } => panic!("{error}"),
        }
    }

    fn submit(&mut self, driver: &mut dyn Driver) {
        while let Some(op) = self.ops.pop_front() {
            if let Some(event) = driver.submit(op) {
                self.handle(event);
            }
        }
    }
}
