//! The connection to Redis.
//!
//! One connection carries everything: commands, their answers, and what is pushed because we subscribed to
//! it. So an answer to a command that came after a publication proves that the subscription over which it
//! would have come was there, and a stall is one stall. Pushes go into a channel of our own with a bound; the
//! library would keep them without one.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, PushInfo, PushKind, RedisError, RedisResult,
    ServerErrorKind, Value, cmd, pipe,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::emitter::{Emitter, Said};
use super::life::ALL;
use super::options::Options;
use super::outgoing::Sealed;
use super::presence::{Answer, Ask, Batch, Clerk};
use super::side::Channel;
use super::source::{Source, Ways};
use super::tally::{Tally, add};

/// A message that came by a channel: its name with the prefix, and the payload.
pub(super) type Heard = (Vec<u8>, Vec<u8>);

/// A connection, and what is heard over it.
pub(super) struct Line {
    connection: MultiplexedConnection,
    /// By which commands go that have the keys of a room, where that is another way.
    rooms: Option<ClusterConnection>,
    pub(super) heard: mpsc::Receiver<Heard>,
    flags: Arc<Flags>,
    prefix: Arc<str>,
    /// Whose channels are subscribed to beside ours.
    emitter: Option<Emitter>,
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
                PushKind::Message | PushKind::PMessage => {
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
            .set_connection_timeout(Some(options.patience.connect))
            .set_response_timeout(Some(options.patience.command))
            .set_push_sender(listen);
        // Whoever must be asked first where Redis is has as long again.
        let patience = options.patience.connect * 2;
        let connecting = tokio::time::timeout(patience, source.connect(&config));
        let Ways { hub, rooms } = connecting.await.map_err(std::io::Error::from)??;
        let emitter = options.extras.emitter.map(|key| Emitter::new(&key, options.tag));
        Ok(Self {
            connection: hub,
            rooms,
            heard,
            flags,
            prefix: Arc::from(options.prefix),
            emitter,
        })
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

    /// What an emitter says by the channel of this name.
    pub(super) fn emitted(&self, name: &str) -> Option<Said> {
        self.emitter.as_ref()?.said(name)
    }

    fn name(&self, channel: &str) -> String {
        format!("{}:{channel}", self.prefix)
    }

    /// Subscribes, or ends subscriptions.
    pub(super) fn subscribe(&self, channels: &[Channel], begin: bool) -> Pending {
        let mut command = cmd(if begin { "SUBSCRIBE" } else { "UNSUBSCRIBE" });
        for channel in channels {
            command.arg(self.name(channel));
            command.arg(
                self.emitter.iter().flat_map(|emitter| emitter.beside(channel)).collect::<Vec<_>>(),
            );
        }
        let is_first = begin && channels.iter().any(|channel| **channel == *ALL);
        let own = self.emitter.as_ref().filter(|_| is_first).map(Emitter::own);
        let mut connection = self.connection.clone();
        Box::pin(async move {
            command.exec_async(&mut connection).await?;
            if let Some(pattern) = own {
                cmd("PSUBSCRIBE").arg(pattern).exec_async(&mut connection).await?;
            }
            Ok(Vec::new())
        })
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

    /// Publishes a message to ourselves: in a cluster by any of its nodes, as it has to come from each of them.
    pub(super) fn publish_canary(&self, canary: &Sealed) -> Pending {
        let Some(mut rooms) = self.rooms.clone() else {
            return self.publish(std::slice::from_ref(canary));
        };
        let channel = canary.channels.first().map(|channel| self.name(channel));
        let mut command = cmd("PUBLISH");
        command.arg(channel).arg(&canary.bytes[..]);
        let any = RoutingInfo::SingleNode(SingleNodeRoutingInfo::RandomPrimary);
        Box::pin(async move {
            rooms.route_command(command, any).await?.extract_error()?;
            Ok(Vec::new())
        })
    }

    /// Sends commands with the room of each; an answer for each, refusals among them. In a cluster nothing is an answer
    /// too: not now, nothing was done, nor anything of that room that stands behind it.
    pub(super) fn ask(&self, commands: Vec<(Channel, Cmd)>) -> Pending {
        match &self.rooms {
            Some(rooms) => Box::pin(apart(rooms.clone(), commands)),
            None => self.ask_hub(commands.into_iter().map(|(_, command)| command)),
        }
    }

    /// Sends commands whose keys belong to no room; an answer for each, refusals among them.
    pub(super) fn ask_hub(&self, commands: impl IntoIterator<Item = Cmd>) -> Pending {
        let mut pipeline = pipe();
        pipeline.ignore_errors();
        for command in commands {
            pipeline.add_command(command);
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

/// Sends each room's commands by themselves, one after the other.
async fn apart(
    connection: ClusterConnection,
    commands: Vec<(Channel, Cmd)>,
) -> RedisResult<Vec<Value>> {
    let mut answers = vec![Value::Nil; commands.len()];
    let mut rooms: BTreeMap<Channel, Vec<(usize, Cmd)>> = BTreeMap::new();
    for (at, (room, command)) in commands.into_iter().enumerate() {
        rooms.entry(room).or_default().push((at, command));
    }
    let mut work = JoinSet::new();
    for (_, commands) in rooms {
        let mut connection = connection.clone();
        work.spawn(async move {
            let mut answers = Vec::with_capacity(commands.len());
            let mut no_more = None;
            for (at, command) in commands {
                let answer = match &no_more {
                    Some(answer) => Ok(Value::clone(answer)),
                    None => connection.req_packed_command(&command).await,
                };
                let answer = answer.or_else(not_now)?;
                if is_undone(&answer) {
                    no_more = Some(answer.clone());
                }
                answers.push((at, answer));
            }
            Ok::<_, RedisError>(answers)
        });
    }
    while let Some(done) = work.join_next().await {
        for (at, answer) in done.map_err(std::io::Error::from)?? {
            answers[at] = answer;
        }
    }
    Ok(answers)
}

/// A slot that is on its way is no reason to give up the link.
fn not_now(error: RedisError) -> RedisResult<Value> {
    use ServerErrorKind::{Ask, Moved, TryAgain};
    match error.kind() {
        ErrorKind::Server(TryAgain | Ask | Moved) => Ok(Value::Nil),
        _ => Err(error),
    }
}

/// True for an answer behind which nothing of the room may be done, as it would be done before its turn.
fn is_undone(answer: &Value) -> bool {
    match answer {
        Value::Nil => true,
        Value::ServerError(error) => matches!(error.kind(), Some(ServerErrorKind::NoScript)),
        _ => false,
    }
}

/// The last two of a message's parts; what came by a pattern has that in front.
fn message(mut data: Vec<Value>) -> Option<Heard> {
    data.drain(..data.len().saturating_sub(2));
    match <[Value; 2]>::try_from(data) {
        Ok([Value::BulkString(channel), Value::BulkString(payload)]) => Some((channel, payload)),
        _ => None,
    }
}
