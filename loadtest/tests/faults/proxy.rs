//! A proxy between the generator and a real engine: a broken engine as far as the generator can tell.
//!
//! Each connection has a thread for each direction. A thread reads one buffer and writes what becomes of it
//! before it reads again, so nothing queues up here beyond one frame, and a client that stops reading stops
//! its engine connection as well. Ends are passed on as they come: the end of a stream as a half-close, a
//! failed write as the end of both.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use socket2::SockRef;

use crate::plan::{Fault, Meddler, Plan};

/// A running proxy. Its listener ends with it; its connections end with their clients.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    pub(crate) plan: Arc<Plan>,
    is_over: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Passes connections on to `engine`, with one fault in every so many deliveries.
    pub(crate) fn start(engine: SocketAddr, fault: Fault, every: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let plan = Arc::new(Plan::new(fault, every));
        let is_over = Arc::new(AtomicBool::default());
        let (own, over) = (Arc::clone(&plan), Arc::clone(&is_over));
        let acceptor = thread("accept", move || {
            for client in listener.incoming() {
                if over.load(Ordering::Acquire) {
                    return;
                }
                serve(client.expect("a connection"), engine, &own);
            }
        });
        Self { address, plan, is_over, acceptor: Some(acceptor) }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        // Wakes the listener up; one that has failed needs no waking.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    Builder::new().name(name.to_owned()).stack_size(STACK).spawn(work).expect("a thread")
}

fn serve(client: TcpStream, engine: SocketAddr, plan: &Arc<Plan>) {
    // An engine that refuses connections is a client's failure to connect.
    let Ok(server) = TcpStream::connect(engine) else { return };
    for socket in [&client, &server] {
        socket.set_nodelay(true).expect("an option");
    }
    SockRef::from(&client).set_send_buffer_size(CLIENT_BUFFER).expect("an option");
    let (client, server) = (Arc::new(client), Arc::new(server));
    let (from, to) = (Arc::clone(&client), Arc::clone(&server));
    thread("up", move || end(&from, &to, relay_up(&from, &to)));
    let plan = Arc::clone(plan);
    thread("down", move || end(&server, &client, relay_down(&server, &client, &plan)));
}

/// Passes the end of a direction on.
fn end(from: &TcpStream, to: &TcpStream, result: io::Result<()>) {
    // Sockets that are gone already are what is wanted.
    match result {
        Ok(()) => drop(to.shutdown(Shutdown::Write)),
        Err(_) => {
            let _ = to.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
        }
    }
}

/// From the client to the server, untouched.
fn relay_up(mut client: &TcpStream, mut server: &TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match client.read(&mut buffer)? {
            0 => return Ok(()),
            read => server.write_all(&buffer[..read])?,
        }
    }
}

/// From the server to the client, meddled with.
fn relay_down(mut server: &TcpStream, mut client: &TcpStream, plan: &Plan) -> io::Result<()> {
    let mut meddler = Meddler::new(plan);
    let (mut buffer, mut out) = (vec![0; BUFFER], Vec::new());
    let mut is_timed = false;
    loop {
        match server.read(&mut buffer) {
            Ok(0) => {
                meddler.release(&mut out);
                return client.write_all(&out);
            }
            Ok(read) => meddler.take(&buffer[..read], &mut out),
            Err(error) if error.kind() == ErrorKind::WouldBlock => meddler.release(&mut out),
            Err(error) => return Err(error),
        }
        if meddler.is_holding() != is_timed {
            is_timed = meddler.is_holding();
            server.set_read_timeout(is_timed.then_some(NEIGHBOUR))?;
        }
        client.write_all(&out)?;
        out.clear();
    }
}

/// Bytes of one read.
const BUFFER: usize = 16 << 10;
/// Bytes that the kernel may hold for a client that does not read.
const CLIENT_BUFFER: usize = 64 << 10;
/// How long a frame is held back for the next one on its connection. The last of a run has no neighbour.
const NEIGHBOUR: Duration = Duration::from_millis(300);
/// The threads are many and shallow.
const STACK: usize = 128 << 10;
