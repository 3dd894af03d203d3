//! The connection to Redis.
//!
//! One connection carries everything: commands, their answers, and what is pushed because we subscribed to
//! it. So an answer to a command that came after a publication proves that the subscription over which it
//! would have come was there, and a stall is one stall. Pushes go into a channel of our own with a bound; the
//! library would keep them without one.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, PushInfo, PushKind, RedisResult, Value, cmd, pipe};
use tokio::sync::{mpsc, oneshot};

use super::options::Options;
use super::outgoing::Sealed;
use super::presence::{Answer, Ask, Batch, Clerk};
use super::side::Channel;
use super::source::Source;
use super::tally::{Tally, add};

/// A message that came by a channel: its name with the prefix, and the payload.
pub(super) type Heard = (Vec<u8>, Vec<u8>);

/// A connection, and what is heard over it.
pub(super) struct Line {
    connection: MultiplexedConnection,
    pub(super) heard: mpsc::Receiver<Heard>,
    flags: Arc<Flags>,
    prefix: Arc<str>,
}

#[derive(Debug, Default)]
struct Flags {
    /// The connection has ended.
    ended: AtomicBool,
    /// A message found no space.
    overrun: AtomicBool,
}

/// A command under way, and what it is answered where that matters.
pub(super) type Pending = Pin<Box<dyn Future<Output = RedisResult<Vec<Value>>> + Send>>;

impl Line {
    /// Connects.
    pub(super) async fn open(
        source: &mut Source,
        options: Options,
        tally: Arc<Tally>,
    ) -> RedisResult<Self> {
        let (tell, heard) = mpsc::channel(options.bounds.incoming.max(1));
        let flags = Arc::new(Flags::default());
        let told = Arc::clone(&flags);
        let listen = move |push: PushInfo| -> Result<(), ()> {
            match push.kind {
                PushKind::Disconnection => told.ended.store(true, Ordering::Release),
                PushKind::Message => {
                    add(&tally.received, 1);
                    if message(push.data).is_none_or(|message| tell.try_send(message).is_err()) {
                        add(&tally.overrun, 1);
                        told.overrun.store(true, Ordering::Release);
                    }
                }
                _ => {}
            }
            Ok(())
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(options.connect_timeout))
            .set_response_timeout(Some(options.command_timeout))
            .set_push_sender(listen);
        // Whoever must be asked first where Redis is has as long again.
        let patience = options.connect_timeout * 2;
        let connecting = tokio::time::timeout(patience, source.connect(&config));
        let connection = connecting.await.map_err(std::io::Error::from)??;
        Ok(Self { connection, heard, flags, prefix: Arc::from(options.prefix) })
    }

    /// True once the connection has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.flags.ended.load(Ordering::Acquire)
    }

    /// True if messages were dropped since this was last asked.
    pub(super) fn take_overrun(&self) -> bool {
        self.flags.overrun.swap(false, Ordering::AcqRel)
    }

    /// The name of a channel without the prefix; `None` where it has another.
    pub(super) fn channel_of<'a>(&self, name: &'a str) -> Option<&'a str> {
        name.strip_prefix(&*self.prefix)?.strip_prefix(':')
    }

    fn name(&self, channel: &str) -> String {
        format!("{}:{channel}", self.prefix)
    }

    /// Subscribes, or ends subscriptions.
    pub(super) fn subscribe(&self, channels: &[Channel], begin: bool) -> Pending {
        let mut command = cmd(if begin { "SUBSCRIBE" } else { "UNSUBSCRIBE" });
        for channel in channels {
            command.arg(self.name(channel));
        }
        let mut connection = self.connection.clone();
        Box::pin(async move { command.exec_async(&mut connection).await.map(|()| Vec::new()) })
    }

    /// Asks what presence wants to know; the answer is there when the command is done.
    pub(super) fn inquire(
        &self,
        clerk: Arc<Clerk>,
        ask: Ask,
    ) -> (Pending, oneshot::Receiver<Answer>) {
        let (tell, answer) = oneshot::channel();
        let connection = self.connection.clone();
        let work = async move {
            // Nobody waits for it any more where the link has ended.
            let _ = tell.send(clerk.put(ask, connection).await?);
            Ok(Vec::new())
        };
        (Box::pin(work), answer)
    }

    /// Tells the others that the node ends.
    pub(super) fn leave(&self, clerk: Arc<Clerk>, batch: Batch) -> Pending {
        let connection = self.connection.clone();
        Box::pin(async move { clerk.leave(&batch, connection).await.map(|()| Vec::new()) })
    }

    /// Publishes each on its channels, in order.
    pub(super) fn publish(&self, batch: &[Sealed]) -> Pending {
        let mut pipeline = pipe();
        for Sealed { channels, bytes } in batch {
            for channel in channels {
                pipeline.cmd("PUBLISH").arg(self.name(channel)).arg(&bytes[..]).ignore();
            }
        }
        let mut connection = self.connection.clone();
        Box::pin(async move { pipeline.exec_async(&mut connection).await.map(|()| Vec::new()) })
    }

    /// Sends commands; an answer for each, refusals among them.
    pub(super) fn ask(&self, commands: &[Cmd]) -> Pending {
        let mut pipeline = pipe();
        pipeline.ignore_errors();
        for command in commands {
            pipeline.add_command(command.clone());
        }
        let mut connection = self.connection.clone();
        Box::pin(async move {
            match pipeline.query_async(&mut connection).await? {
                Value::Array(answers) => Ok(answers),
                other => Ok(vec![other]),
            }
        })
    }
}

fn message(data: Vec<Value>) -> Option<Heard> {
    match <[Value; 2]>::try_from(data) {
        Ok([Value::BulkString(channel), Value::BulkString(payload)]) => Some((channel, payload)),
        _ => None,
    }
}
