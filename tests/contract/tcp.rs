//! The rig of the drivers that speak to a kernel: TCP over loopback.
//!
//! Buffers are small, so that writes are taken in parts after a few kilobytes already.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};
use throng::contract::{Driver, ListenerId};
use throng::driver::uring::{Idle, Options as Uring};
use throng::driver::{Kind, Options, build, uring};
use throng::sys::descriptors::raise_limit;
use throng::sys::eventfd::{Waker, pair};
use throng::sys::listener::{ListenOptions, SocketOptions, listen, local_address};

use crate::world::{Peer, Rig};

struct TcpRig {
    driver: Option<Box<dyn Driver>>,
    addresses: [SocketAddr; 2],
    waker: Waker,
    again: Vec<OwnedFd>,
}

struct TcpPeer(TcpStream);

fn listen_options() -> ListenOptions {
    let socket = SocketOptions { send_buffer: Some(32 * 1024), ..SocketOptions::default() };
    ListenOptions { reuse_port: false, backlog: 4096, socket }
}

fn rig(kind: Kind, uring: Uring) -> Box<dyn Rig> {
    let _ = raise_limit(16 * 1024);
    let any = "127.0.0.1:0".parse().expect("an address");
    let listeners = [(); 2].map(|()| listen(any, &listen_options()).expect("listen"));
    let addresses = [0, 1].map(|at| local_address(&listeners[at]).expect("an address"));
    let (waker, wake) = pair().expect("eventfd");
    // Few events per wait, so that some are left for the next one.
    let options =
        Options { uring, events_per_wait: 16, ..Options::new(listeners.into(), wake, 2000) };
    let driver = Some(build(kind, options).expect("a driver"));
    Box::new(TcpRig { driver, addresses, waker, again: Vec::new() })
}

pub(crate) fn epoll() -> Option<Box<dyn Rig>> {
    Some(rig(Kind::Epoll, Uring::default()))
}

/// A ring with few entries and buffers, so that the tests run into both limits.
pub(crate) fn uring(idle: Idle) -> Option<Box<dyn Rig>> {
    let options = Uring { entries: 64, buffers: 32, buffer_bytes: 4096, idle };
    match uring::probe(&options) {
        Ok(()) => Some(rig(Kind::Uring, options)),
        Err(refusal) if std::env::var_os("THRONG_WITHOUT_URING").is_some() => {
            println!("LEFT OUT, THRONG_WITHOUT_URING is set: {refusal}");
            None
        }
        Err(refusal) => panic!(
            "io_uring cannot be tested here: {refusal}. Set THRONG_WITHOUT_URING=1 to leave it out."
        ),
    }
}

impl Rig for TcpRig {
    fn driver(&mut self) -> &mut dyn Driver {
        &mut **self.driver.as_mut().expect("the driver was not dropped")
    }

    fn connect_to(&mut self, listener: ListenerId) -> Box<dyn Peer> {
        let peer = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        // Loopback would send segments as long as our whole send buffer, and then every one of them
        // would wait for a delayed acknowledgement.
        peer.set_tcp_mss(1400).expect("a segment size");
        peer.connect(&self.addresses[usize::from(listener.0)].into()).expect("connect");
        peer.set_nonblocking(true).expect("non-blocking");
        Box::new(TcpPeer(peer.into()))
    }

    fn waker(&self) -> Option<Waker> {
        Some(self.waker.clone())
    }

    fn listen_again(&mut self) -> io::Result<()> {
        for address in self.addresses {
            self.again.push(listen(address, &listen_options())?);
        }
        Ok(())
    }

    fn drop_driver(&mut self) {
        self.driver = None;
    }

    fn forgives(&self) -> bool {
        true
    }
}

impl Peer for TcpPeer {
    fn address(&self) -> Option<SocketAddr> {
        self.0.local_addr().ok()
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }

    fn finish(&mut self) {
        self.0.shutdown(Shutdown::Write).expect("shutdown");
    }

    fn reset(self: Box<Self>) {
        SockRef::from(&self.0).set_linger(Some(Duration::ZERO)).expect("linger");
        drop(Socket::from(self.0));
    }
}
