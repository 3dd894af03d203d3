//! Connections for whoever talks to Redis by itself and waits for each answer, such as the store: to wherever the bridge's
//! own link would go.
//!
//! With sentinels these are asked before every connection, and in a cluster whoever answers says who has the slot of the key
//! that everything is about. So a connection is to the one server that has it, and a server that has it no longer says so:
//! then another connection is made. Nothing here sends a command twice, as nobody but the caller knows which may be.

use std::fmt;
use std::time::Duration;

use redis::{Client, Connection, ConnectionInfo, RedisError, RedisResult, cmd};
use tokio::runtime::Runtime;

use super::server::{Fault, Place, Sentinels, Server};
use super::source::{HOPS, hop, in_a_circle};

/// Where connections go that are waited for.
pub struct Direct {
    server: Server,
    /// Everything is about this key, or others in its slot.
    key: String,
    way: Way,
}

enum Way {
    Fixed(Box<Client>),
    /// The library has no limit of time for sentinels but where it does not block.
    Named(Box<Sentinels>, Runtime),
    Spread(Vec<ConnectionInfo>),
}

impl fmt::Debug for Direct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Direct").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Direct {
    /// Connections about keys in the slot of that one. Nothing is connected.
    ///
    /// # Errors
    /// When the address, a certificate or a key of the options cannot be used; the fault names the configuration's key.
    pub fn new(server: Server, key: String) -> Result<Self, Fault> {
        let way = match &server.place {
            Place::Url(url) => Way::Fixed(Box::new(server.client(url)?)),
            Place::Sentinels(sentinels) => {
                // What cannot be used is found out now.
                server.sentinels(sentinels)?;
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_io()
                    .enable_time()
                    .build()
                    .map_err(|error| Fault {
                        key: "bridge.sentinels",
                        expected: format!("a kernel that lets us ask them: {error}"),
                    })?;
                Way::Named(Box::new(sentinels.clone()), runtime)
            }
            Place::Cluster(urls) => Way::Spread(server.seeds(urls)?),
        };
        Ok(Self { server, key, way })
    }

    /// Connects. Everything on the connection, and whatever is asked before it can be made, may take `patience` each.
    ///
    /// # Errors
    /// When nobody can be reached who has the key.
    pub fn connect(&self, patience: Duration) -> RedisResult<Connection> {
        match &self.way {
            Way::Fixed(client) => connected(client, patience),
            Way::Named(sentinels, runtime) => {
                let asked = async {
                    let mut client = self.server.sentinels(sentinels).map_err(unusable)?;
                    client.async_get_client().await
                };
                let limited = async { tokio::time::timeout(patience, asked).await };
                let client = runtime.block_on(limited).map_err(std::io::Error::from)??;
                connected(&client, patience)
            }
            Way::Spread(seeds) => {
                let mut last = None;
                for seed in seeds {
                    match self.owner(seed.clone(), patience) {
                        Ok(connection) => return Ok(connection),
                        Err(error) => last = Some(error),
                    }
                }
                Err(last
                    .unwrap_or_else(|| std::io::Error::from(std::io::ErrorKind::NotFound).into()))
            }
        }
    }

    /// A connection to who has the key, whom others name.
    fn owner(&self, mut at: ConnectionInfo, patience: Duration) -> RedisResult<Connection> {
        for _ in 0..HOPS {
            let mut connection = connected(&Client::open(at.clone())?, patience)?;
            match hop(&at, cmd("EXISTS").arg(&self.key).query(&mut connection))? {
                None => return Ok(connection),
                Some(next) => at = next,
            }
        }
        Err(in_a_circle())
    }
}

fn connected(client: &Client, patience: Duration) -> RedisResult<Connection> {
    let connection = client.get_connection_with_timeout(patience)?;
    connection.set_read_timeout(Some(patience))?;
    connection.set_write_timeout(Some(patience))?;
    Ok(connection)
}

fn unusable(fault: Fault) -> RedisError {
    std::io::Error::new(std::io::ErrorKind::InvalidInput, fault.to_string()).into()
}
