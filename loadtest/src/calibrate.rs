//! What this machine's kernel charges for the operations that any server is made of.
//!
//! All figures are of one thread over loopback: null calls, a bare loop of sends, and the bare server of
//! `floor` between clients of this thread. Of the bare server only its own turns are timed, with all clients
//! ready before a turn begins, so neither the clients' calls nor any wake-up is in the figure; but loopback
//! runs the receiver's part of TCP within the sender's call, and that is in it, as it is for every server
//! here. Nobody waits for what is sent, so a server whose receivers sleep pays for waking them on top.
//! Medians of five rounds, after one that warms the caches, with the lowest and the highest.
//!
//! These are floors to compare with in the same minute. A machine that is shared drifts by half.

use std::fs;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::process::getppid;
use serde::Serialize;
use socket2::SockRef;

use crate::clock::now;
use crate::floor::Server;
use crate::limits;
use crate::outcome::Environment;
use crate::sample::{cores, environment};

/// Arguments of `throng-load calibrate`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The core to run on; without it the kernel chooses.
    #[arg(long, value_name = "K")]
    core: Option<usize>,
    /// A file to write the figures to as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// All floors of one machine.
#[derive(Debug, Serialize)]
struct Calibration {
    format: u32,
    environment: Environment,
    floors: Vec<Floor>,
}

/// The price of one operation, in nanoseconds of elapsed time.
#[derive(Debug, PartialEq, Serialize)]
struct Floor {
    operation: String,
    /// What is in the figure.
    includes: &'static str,
    median_ns: f64,
    min_ns: f64,
    max_ns: f64,
}

/// How much is done in a round.
#[derive(Clone, Copy, Debug)]
struct Effort {
    /// The most pairs of sockets that there may be.
    pairs: usize,
    /// Null calls.
    calls: u32,
    /// Messages, at least; as many times over all sockets as it takes.
    messages: usize,
    /// Connections, at least.
    handshakes: usize,
}

const FORMAT: u32 = 1;
const ROUNDS: usize = 5;
const CALLS: u32 = 100_000;
const MESSAGES: usize = 10_000;
const HANDSHAKES: usize = 2_500;
/// A delivery of 64 bytes with its header.
const MESSAGE: [u8; 66] = [b'x'; 66];
const FAN_OUTS: [usize; 3] = [100, 1_000, 10_000];
const ECHOES: usize = 1_000;
/// Connections that are there at once.
const CROWD: usize = 250;
/// Descriptors that are no socket of a pair.
const SPARE: u64 = 64;
/// How often the bare server is waited for, a tenth of a second each, before it counts as stuck.
const ATTEMPTS: u32 = 50;
const REQUEST: &[u8] = b"GET /echo HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

impl Args {
    /// Measures and prints.
    ///
    /// # Errors
    ///
    /// The core does not exist, sockets run out, or the file cannot be written.
    pub(crate) fn run(self) -> Result<(), String> {
        let environment = environment();
        if let Some(core) = self.core {
            cores::pin(&[core])?;
        }
        let pairs = usize::try_from(limits::raise_descriptors().saturating_sub(SPARE) / 2);
        let effort = Effort {
            pairs: pairs.unwrap_or(usize::MAX),
            calls: CALLS,
            messages: MESSAGES,
            handshakes: HANDSHAKES,
        };
        let floors = floors(effort).map_err(|error| error.to_string())?;
        write!(io::stdout(), "{}", table(&floors)).map_err(|error| format!("stdout: {error}"))?;
        let Some(path) = self.json else { return Ok(()) };
        let calibration = Calibration { format: FORMAT, environment, floors };
        let mut text = serde_json::to_string_pretty(&calibration).map_err(|e| e.to_string())?;
        text.push('\n');
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    }
}

fn floors(effort: Effort) -> io::Result<Vec<Floor>> {
    let mut floors = null_calls(effort.calls)?;
    for sockets in FAN_OUTS {
        floors.push(sends(sockets.min(effort.pairs), effort.messages)?);
    }
    floors.push(echoes(ECHOES.min(effort.pairs), effort.messages)?);
    floors.extend(handshakes(CROWD.min(effort.pairs), effort.handshakes)?);
    Ok(floors)
}

fn null_calls(calls: u32) -> io::Result<Vec<Floor>> {
    let (one, other) = pair(&TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let data = EventData::new_u64(0);
    let empty = repeated(calls, "null system call", "getppid", || {
        let _ = getppid();
        Ok(())
    })?;
    let mut events = Vec::with_capacity(1024);
    let wait =
        repeated(calls, "epoll_wait, nothing ready", "one call with no time to wait", || {
            epoll::wait(&epoll, spare_capacity(&mut events), Some(&AT_ONCE))?;
            Ok(())
        })?;
    let mut buffer = [0_u8; 1024];
    let again =
        repeated(calls, "recv, nothing there", "one call that gives EAGAIN", || {
            match recv(&one, &mut buffer, RecvFlags::empty()) {
                Err(rustix::io::Errno::AGAIN) => Ok(()),
                other => Err(io::Error::other(format!("recv gave {other:?}"))),
            }
        })?;
    epoll::add(&epoll, &other, data, EventFlags::IN)?;
    let modify = repeated(calls, "epoll_ctl, MOD", "one call", || {
        Ok(epoll::modify(&epoll, &other, data, EventFlags::IN)?)
    })?;
    Ok(vec![empty, wait, again, modify])
}

fn repeated(
    calls: u32,
    operation: &str,
    includes: &'static str,
    mut call: impl FnMut() -> io::Result<()>,
) -> io::Result<Floor> {
    rounds(operation, includes, || {
        let start = now();
        for _ in 0..calls {
            call()?;
        }
        Ok(per(start.elapsed(), calls))
    })
}

/// A bare loop of sends, one for each socket, whose other ends are emptied between the loops.
fn sends(sockets: usize, messages: usize) -> io::Result<Floor> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let pairs = (0..sockets).map(|_| pair(&listener)).collect::<io::Result<Vec<_>>>()?;
    let loops = messages.div_ceil(sockets.max(1));
    let mut buffer = [0; 1024];
    let operation = format!("send of {} bytes each to {sockets} sockets", MESSAGE.len());
    rounds(&operation, "one call, the receiver's part of TCP in it", || {
        let mut spent = Duration::ZERO;
        for _ in 0..loops {
            let start = now();
            for (sender, _) in &pairs {
                send(sender, &MESSAGE, SendFlags::NOSIGNAL)?;
            }
            spent += start.elapsed();
            for (_, receiver) in &pairs {
                recv(receiver, &mut buffer, RecvFlags::empty())?;
            }
        }
        Ok(per(spent, loops * sockets))
    })
}

/// The bare server and clients on the same thread.
struct Rig {
    server: Server,
    address: SocketAddr,
    /// How long the server's turns took since this was last taken.
    spent: Duration,
}

const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

impl Rig {
    fn new() -> io::Result<Self> {
        let server = Server::bind((Ipv4Addr::LOCALHOST, 0).into()).map_err(io::Error::other)?;
        let address = server.address().map_err(io::Error::other)?;
        Ok(Self { server, address, spent: Duration::ZERO })
    }

    fn turn(&mut self, timeout: &Timespec) -> io::Result<()> {
        let start = now();
        self.server.turn(Some(timeout)).map_err(io::Error::other)?;
        self.spent += start.elapsed();
        Ok(())
    }

    fn take_spent(&mut self) -> Duration {
        std::mem::take(&mut self.spent)
    }

    fn dial(&self, clients: usize) -> io::Result<Vec<TcpStream>> {
        let dial = |_| quick(TcpStream::connect(self.address)?);
        (0..clients).map(dial).collect()
    }

    /// All clients send, the server takes its turn, and all clients get an answer.
    fn exchange(&mut self, clients: &mut [TcpStream], message: &[u8]) -> io::Result<()> {
        for client in clients.iter_mut() {
            client.write_all(message)?;
        }
        self.turn(&AT_ONCE)?;
        let mut buffer = [0; 1024];
        for client in clients {
            let mut attempts = 0;
            while let Err(error) = client.read(&mut buffer) {
                attempts += 1;
                if error.kind() != ErrorKind::WouldBlock || attempts > ATTEMPTS {
                    return Err(error);
                }
                self.turn(&PATIENCE)?;
            }
        }
        Ok(())
    }
}

fn echoes(connections: usize, messages: usize) -> io::Result<Floor> {
    let mut rig = Rig::new()?;
    let mut clients = rig.dial(connections)?;
    rig.turn(&AT_ONCE)?;
    rig.exchange(&mut clients, REQUEST)?;
    // A text frame of 64 bytes, whose mask costs the server the same whatever it is.
    let mut frame = vec![0x81, 0x80 | 64, 1, 2, 3, 4];
    frame.extend([b'x'; 64]);
    let operation = format!("bare epoll echo, {connections} connections");
    let includes = "recv, unmask, send, and a part of one epoll_wait; the server's end only";
    rounds(&operation, includes, || {
        rig.take_spent();
        let loops = messages.div_ceil(connections.max(1));
        for _ in 0..loops {
            rig.exchange(&mut clients, &frame)?;
        }
        Ok(per(rig.take_spent(), loops * connections))
    })
}

/// Accepting alone, and with the upgrade.
fn handshakes(connections: usize, handshakes: usize) -> io::Result<[Floor; 2]> {
    let mut rig = Rig::new()?;
    let mut accepts = Vec::new();
    let includes = "accept4, epoll_ctl, recv, accept key, send of the 101, and parts of two epoll_wait; \
                    the server's end only, without connect and close";
    let whole = rounds("bare WebSocket handshake", includes, || {
        rig.take_spent();
        let mut accepting = Duration::ZERO;
        let mut all = Duration::ZERO;
        let loops = handshakes.div_ceil(connections.max(1));
        for _ in 0..loops {
            let mut clients = rig.dial(connections)?;
            rig.turn(&AT_ONCE)?;
            let accepted = rig.take_spent();
            rig.exchange(&mut clients, REQUEST)?;
            accepting += accepted;
            all += accepted + rig.take_spent();
            drop(clients);
            rig.turn(&AT_ONCE)?;
            rig.take_spent();
        }
        accepts.push(per(accepting, loops * connections));
        Ok(per(all, loops * connections))
    })?;
    let includes = "accept4 with TCP_NODELAY inherited, epoll_ctl, and a part of one epoll_wait";
    // Both figures are of the same rounds.
    let mut accepts = accepts.into_iter();
    let accept = rounds("accept", includes, || Ok(accepts.next().unwrap_or_default()))?;
    Ok([accept, whole])
}

/// A connection over loopback, both ends.
fn pair(listener: &TcpListener) -> io::Result<(TcpStream, TcpStream)> {
    let one = quick(TcpStream::connect(listener.local_addr()?)?)?;
    let (other, _) = listener.accept()?;
    Ok((one, quick(other)?))
}

/// Never waits, sends at once, and leaves no port in `TIME_WAIT` behind when it is closed.
fn quick(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    Ok(stream)
}

/// Nanoseconds for each.
fn per(spent: Duration, count: impl TryInto<u32>) -> f64 {
    let count = count.try_into().unwrap_or(u32::MAX).max(1);
    spent.as_secs_f64() * 1e9 / f64::from(count)
}

/// Runs one round to warm up and then those that count.
fn rounds(
    operation: &str,
    includes: &'static str,
    mut round: impl FnMut() -> io::Result<f64>,
) -> io::Result<Floor> {
    round()?;
    let mut times = (0..ROUNDS).map(|_| round()).collect::<io::Result<Vec<_>>>()?;
    times.sort_by(f64::total_cmp);
    let (min_ns, median_ns, max_ns) = (times[0], times[ROUNDS / 2], times[ROUNDS - 1]);
    Ok(Floor { operation: operation.to_owned(), includes, median_ns, min_ns, max_ns })
}

fn table(floors: &[Floor]) -> String {
    let wide = floors.iter().map(|floor| floor.operation.len()).max().unwrap_or_default();
    let head =
        format!("{:wide$}  {:>9} {:>9} {:>9}  {}\n", "ns", "median", "min", "max", "includes");
    let rows = floors.iter().map(|floor| {
        let Floor { operation, includes, median_ns, min_ns, max_ns } = floor;
        format!("{operation:wide$}  {median_ns:>9.0} {min_ns:>9.0} {max_ns:>9.0}  {includes}\n")
    });
    head + &rows.collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_is_the_median_of_the_rounds_after_the_first() {
        let mut times = [900.0, 5.0, 1.0, 4.0, 2.0, 3.0].into_iter();
        let floor = rounds("an operation", "nothing", || Ok(times.next().expect("six rounds")));
        let floor = floor.expect("a floor");
        assert_eq!((floor.median_ns, floor.min_ns, floor.max_ns), (3.0, 1.0, 5.0));
        let table = table(&[floor]);
        assert_eq!(table.lines().count(), 2);
        assert!(table.contains("an operation          3         1         5  nothing"), "{table}");
    }

    #[test]
    fn everything_is_measured_with_as_many_sockets_as_there_may_be() {
        let effort = Effort { pairs: 10, calls: 10, messages: 20, handshakes: 20 };
        let floors = floors(effort).expect("floors");
        assert_eq!(floors.len(), 10);
        assert!(floors.iter().all(|floor| floor.min_ns > 0.0));
        let named = |name: &str| floors.iter().filter(|f| f.operation.contains(name)).count();
        assert_eq!((named("to 10 sockets"), named("echo, 10 conn"), named("handshake")), (3, 1, 1));
    }
}
