//! Where the next connection to Redis goes.
//!
//! With a URL it always goes there. With sentinels these are asked every time who the primary is, so whatever they
//! decide is followed by the next link: a primary that they replace closes its connections or does not answer, and
//! either ends the link. Who is named must say itself that it is a primary.
//!
//! With a cluster there are two: the *hub*, a connection to that one node which has the slot of what is for all, and
//! the library's connection to all nodes, by which commands go that have the keys of a room. Every node of ours has
//! the same hub, so what is published and heard there is in one order, as with a single Redis.

use std::fmt;

use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::SentinelClient;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, RedisError, RedisResult,
    ServerErrorKind, cmd,
};

/// How often a node may name another one.
pub(super) const HOPS: usize = 5;

/// Where the next connection goes.
pub(super) enum Source {
    /// To one place.
    Fixed(Box<Client>),
    /// To whom the sentinels name.
    Named(Box<SentinelClient>),
    /// To a cluster.
    Spread(Box<Cluster>),
}

/// A cluster.
pub(super) struct Cluster {
    pub(super) client: ClusterClient,
    /// Where to begin.
    pub(super) seeds: Vec<ConnectionInfo>,
    /// Whoever has the slot of this key is the hub.
    pub(super) key: String,
}

/// Connections to Redis.
pub(super) struct Ways {
    /// For everything that has no key of a room.
    pub(super) hub: MultiplexedConnection,
    /// For what has, where that is another way.
    pub(super) rooms: Option<ClusterConnection>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fixed(_) => "Fixed",
            Self::Named(_) => "Named",
            Self::Spread(_) => "Spread",
        })
    }
}

impl Source {
    /// Connects.
    pub(super) async fn connect(&mut self, config: &AsyncConnectionConfig) -> RedisResult<Ways> {
        let hub = match self {
            Self::Fixed(client) => {
                client.get_multiplexed_async_connection_with_config(config).await?
            }
            Self::Named(sentinels) => sentinels.get_async_connection_with_config(config).await?,
            Self::Spread(cluster) => {
                let hub = cluster.hub(config).await?;
                return Ok(Ways { hub, rooms: Some(cluster.client.get_async_connection().await?) });
            }
        };
        Ok(Ways { hub, rooms: None })
    }
}

impl Cluster {
    /// Whoever answers says who the hub is.
    async fn hub(&self, config: &AsyncConnectionConfig) -> RedisResult<MultiplexedConnection> {
        let mut last = None;
        for seed in &self.seeds {
            match self.hub_from(seed.clone(), config).await {
                Ok(hub) => return Ok(hub),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| std::io::Error::from(std::io::ErrorKind::NotFound).into()))
    }

    async fn hub_from(
        &self,
        mut at: ConnectionInfo,
        config: &AsyncConnectionConfig,
    ) -> RedisResult<MultiplexedConnection> {
        for _ in 0..HOPS {
            let client = Client::open(at.clone())?;
            let mut hub = client.get_multiplexed_async_connection_with_config(config).await?;
            match hop(&at, cmd("EXISTS").arg(&self.key).query_async(&mut hub).await)? {
                None => return Ok(hub),
                Some(next) => at = next,
            }
        }
        Err(in_a_circle())
    }
}

/// Whom a node names as the one that has the slot of a key, which it was asked about; `None` when it has it itself.
pub(super) fn hop(
    at: &ConnectionInfo,
    answer: RedisResult<u64>,
) -> RedisResult<Option<ConnectionInfo>> {
    let Err(error) = answer else { return Ok(None) };
    // A slot that is on its way is still where it is asked for.
    if error.kind() == ServerErrorKind::Ask.into() {
        return Ok(None);
    }
    let named = error.redirect_node().and_then(|(node, _)| node.rsplit_once(':'));
    match named.and_then(|(host, port)| elsewhere(at.addr(), host, port.parse().ok()?)) {
        Some(next) => Ok(Some(at.clone().set_addr(next))),
        None => Err(error),
    }
}

/// What is wrong when nodes have named another too often.
pub(super) fn in_a_circle() -> RedisError {
    std::io::Error::other("the nodes of the cluster name each other in a circle").into()
}

/// The address of another node, reached as the one that named it. A host without a name is the same one.
fn elsewhere(of: &ConnectionAddr, named: &str, at: u16) -> Option<ConnectionAddr> {
    let mut next = of.clone();
    match &mut next {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            if !named.is_empty() {
                named.clone_into(host);
            }
            *port = at;
        }
        _ => return None,
    }
    Some(next)
}
