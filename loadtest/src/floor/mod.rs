//! The floor: a bare server that does the least a correct one could, for the engine to be compared with.
//!
//! One thread, one epoll set, one `recv` for each readable connection and one write for each that is to get
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
        let mut server = Server::bind(self.listen)?;
        let address = server.address()?;
        writeln!(io::stdout(), "floor serves ws://{address}")
            .map_err(|e| format!("stdout: {e}"))?;
        loop {
            server.turn(None)?;
        }
    }
}

#[cfg(test)]
mod tests;
