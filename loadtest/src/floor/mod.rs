//! The floor: a bare server that does the least a correct one could, for the engine to be compared with.
//!
//! One thread (several where one descriptor table is too small: `tables`), one epoll set, one `recv` for each readable connection and one write for each that is to get
//! something. There are no limits, no heartbeats, no UTF-8 check, no roles and no protocol of its own beyond
//! the path: what a server with all of these costs more than this one is the price of them. The generator
//! drives both with the same clients (`--dialect plain` here), so that a ratio of the two is one of servers.
//!
//! - `/echo` sends every message back: the floor of an echo, and with a close at once that of a handshake.
//! - `/room/NAME` makes the connection a member of a room; what it sends goes to all members, itself too.
//! - `/publish/NAME` makes it a publisher that is no member: the floor of a fan-out, which is one `send` a
//!   member for one message, and one `writev` a member for all messages that came in one `recv`.
//!
//! It trusts its clients: whoever stops reading grows its memory, whoever sends a false length stays silent
//! for ever. It is no example of how to serve anybody.

mod frames;
mod server;
mod tables;

use std::io::{self, Write as _};
use std::net::SocketAddr;

pub(crate) use server::Server;

use crate::limits;
use crate::sample::cores;

/// Arguments of `throng-load floor`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Where to listen; port 0 takes a free one, and the first line of the output says which.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The core to run on; without it the kernel chooses.
    #[arg(long, value_name = "K")]
    core: Option<usize>,
    /// Threads with a descriptor table each, for more connections than one table holds.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    tables: u16,
    /// With several tables: say of each publication on standard error when a table began and ended to write it.
    #[arg(long)]
    tell: bool,
}

impl Args {
    /// Serves until the process is ended.
    ///
    /// # Errors
    ///
    /// The address is taken, the core does not exist, or descriptors run out.
    pub(crate) fn run(self) -> Result<(), String> {
        if let Some(core) = self.core {
            cores::pin(&[core])?;
        }
        limits::raise_descriptors();
        if self.tables > 1 {
            let listeners = tables::bind(self.listen, self.tables.into())?;
            announce(server::address_of(&listeners[0].0)?)?;
            return tables::serve(listeners, self.tell);
        }
        let mut server = Server::bind(self.listen)?;
        announce(server.address()?)?;
        loop {
            server.turn(None)?;
        }
    }
}

fn announce(address: SocketAddr) -> Result<(), String> {
    writeln!(io::stdout(), "floor serves ws://{address}")
        .map_err(|error| format!("stdout: {error}"))
}

#[cfg(test)]
mod tests;
