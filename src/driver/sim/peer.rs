//! A client's end of a link. Every call returns at once; what has not arrived yet arrives in a later
//! turn of the host.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use rustix::io::Errno;

use super::net::{Link, World, address};

/// A client. Dropping it closes it as a process that ends closes its sockets.
#[derive(Debug)]
pub struct Peer {
    world: Rc<RefCell<World>>,
    link: usize,
    is_reading: bool,
    saw_end: bool,
    saw_reset: bool,
}

impl Peer {
    pub(super) fn new(world: Rc<RefCell<World>>, link: usize) -> Self {
        Self { world, link, is_reading: true, saw_end: false, saw_reset: false }
    }

    /// The address under which the host sees this client.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        address(self.link)
    }

    /// Writes as much of `bytes` as the window takes, and says how much that is. None after the end
    /// was written or a reset was seen. As with TCP, what is written to a host that has let go seems to
    /// succeed and is answered with a reset.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        let mut world = self.world.borrow_mut();
        let (due, now) = (world.due(self.link), world.now(self.link));
        let link = &mut world.links[self.link];
        if link.inbound.is_finished() || link.is_client_gone || self.saw_reset {
            return 0;
        }
        if link.is_server_gone {
            link.reset_client(now);
            return bytes.len();
        }
        let count = bytes.len().min(link.inbound.space());
        link.inbound.push(bytes[..count].to_vec(), due);
        count
    }

    /// Appends what has arrived to `bytes`, and notices an end or a reset that comes after it. Nothing
    /// happens while reading is stopped.
    pub fn read(&mut self, bytes: &mut Vec<u8>) {
        if !self.is_reading {
            return;
        }
        let mut world = self.world.borrow_mut();
        let now = world.now(self.link);
        let link = &mut world.links[self.link];
        bytes.append(&mut link.outbound.take(now, usize::MAX));
        self.saw_end |= link.outbound.is_ended(now);
        self.saw_reset |= link.is_client_reset && !link.outbound.is_readable(now);
    }

    /// Stops reading, so that the window fills and the host's writes stay unfinished; or goes on.
    pub fn set_reading(&mut self, reading: bool) {
        self.is_reading = reading;
    }

    /// Writes the end: the host sees it after all bytes. Reading is still possible.
    pub fn finish(&mut self) {
        let mut world = self.world.borrow_mut();
        let due = world.due(self.link);
        world.links[self.link].inbound.finish(due);
    }

    /// Resets the link.
    pub fn reset(&mut self) {
        let mut world = self.world.borrow_mut();
        leave_with_reset(&mut world.links[self.link]);
    }

    /// True when the link is over for this client whatever it does: it was reset, by whomever, or the
    /// host has let go. Bytes may still be there to be read.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        let world = self.world.borrow();
        let link = &world.links[self.link];
        link.is_server_gone || link.is_client_gone || link.is_client_reset
    }

    /// True when the host's end has been read: nothing more will come.
    #[must_use]
    pub fn saw_end(&self) -> bool {
        self.saw_end
    }

    /// True when a reset has been read: nothing more will come and nothing more can be written.
    #[must_use]
    pub fn saw_reset(&self) -> bool {
        self.saw_reset
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let mut world = self.world.borrow_mut();
        let due = world.due(self.link);
        let link = &mut world.links[self.link];
        if link.outbound.holds_bytes() {
            // Bytes that nobody will read are answered with a reset, as on Linux.
            leave_with_reset(link);
        } else {
            link.inbound.finish(due);
            link.is_client_gone = true;
        }
    }
}

fn leave_with_reset(link: &mut Link) {
    link.is_client_gone = true;
    link.outbound.clear();
    link.broken.get_or_insert(Errno::CONNRESET);
}
