//! Where the next connection to Redis goes.
//!
//! With a URL it always goes there. With sentinels these are asked every time who the primary is, so whatever they
//! decide is followed by the next link: a primary that they replace closes its connections or does not answer, and
//! either ends the link. Who is named must say itself that it is a primary.

use std::fmt;

use redis::aio::MultiplexedConnection;
use redis::sentinel::SentinelClient;
use redis::{AsyncConnectionConfig, Client, RedisResult};

/// Where the next connection goes.
pub(super) enum Source {
    /// To one place.
    Fixed(Box<Client>),
    /// To whom the sentinels name.
    Named(Box<SentinelClient>),
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fixed(_) => "Fixed",
            Self::Named(_) => "Named",
        })
    }
}

impl Source {
    /// Connects.
    pub(super) async fn connect(
        &mut self,
        config: &AsyncConnectionConfig,
    ) -> RedisResult<MultiplexedConnection> {
        match self {
            Self::Fixed(client) => {
                client.get_multiplexed_async_connection_with_config(config).await
            }
            Self::Named(sentinels) => sentinels.get_async_connection_with_config(config).await,
        }
    }
}
