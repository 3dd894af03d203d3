//! The rig of the simulated driver: peers on an in-memory network that cuts and delays but loses nothing.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use throng::contract::{Driver, ListenerId};
use throng::driver::sim::{self, Faults, Net, SimDriver};
use throng::sys::eventfd::Waker;

use crate::world::{Peer, Rig};

struct SimRig {
    net: Net,
    driver: Option<SimDriver>,
}

/// A simulated client; what has arrived and was not asked for yet waits here.
struct SimPeer {
    peer: sim::Peer,
    arrived: Vec<u8>,
}

pub(crate) fn rig(faults: Faults) -> Option<Box<dyn Rig>> {
    let net = Net::new(1, faults);
    let driver = Some(net.driver());
    Some(Box::new(SimRig { net, driver }))
}

impl Rig for SimRig {
    fn driver(&mut self) -> &mut dyn Driver {
        self.driver.as_mut().expect("the driver was not dropped")
    }

    fn connect_to(&mut self, listener: ListenerId) -> Box<dyn Peer> {
        Box::new(SimPeer { peer: self.net.connect_on(0, listener), arrived: Vec::new() })
    }

    fn waker(&self) -> Option<Waker> {
        None
    }

    fn listen_again(&mut self) -> io::Result<()> {
        if self.net.is_listening(0) { Err(ErrorKind::AddrInUse.into()) } else { Ok(()) }
    }

    fn drop_driver(&mut self) {
        self.driver = None;
    }

    fn forgives(&self) -> bool {
        false
    }
}

impl Peer for SimPeer {
    fn address(&self) -> Option<SocketAddr> {
        Some(self.peer.address())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.peer.write(bytes) {
            0 if self.peer.is_closed() => Err(ErrorKind::BrokenPipe.into()),
            0 => Err(ErrorKind::WouldBlock.into()),
            taken => Ok(taken),
        }
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.arrived.is_empty() {
            self.peer.read(&mut self.arrived);
        }
        let count = into.len().min(self.arrived.len());
        if count > 0 {
            into[..count].copy_from_slice(&self.arrived[..count]);
            self.arrived.drain(..count);
            return Ok(count);
        }
        if self.peer.saw_reset() {
            return Err(ErrorKind::ConnectionReset.into());
        }
        if self.peer.saw_end() { Ok(0) } else { Err(ErrorKind::WouldBlock.into()) }
    }

    fn finish(&mut self) {
        self.peer.finish();
    }

    fn reset(mut self: Box<Self>) {
        self.peer.reset();
    }
}
