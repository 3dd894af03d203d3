//! What presence asks of Redis, as commands.
//!
//! A life has two keys: `PREFIX:node:TAG-LIFE`, the lease, and `PREFIX:users:TAG-LIFE`, a hash of its users, which
//! outlives the lease by its length again, so that it is there whenever the lease is. `PREFIX:nodes` is the
//! set of all lives; who reads it takes out those whose lease has gone. Telling is one transaction: so the
//! number in the hash is that of what was told last. What a life without a lease still writes is forgotten by itself.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, Pipeline, RedisError, RedisResult, ServerErrorKind, Value, cmd, pipe};

use super::{Answer, Ask, Batch, Mark, Name, Page, Pose, Seen, note};

/// Users of one page, about.
const PAGE: usize = 1000;
/// Lives asked about in one command.
const LIVES: usize = 256;
/// Fields of the hash that are no users: a user's name holds a control character.
const SEQ: &str = "seq";
const WHOLE: &str = "whole";

/// Who asks.
#[derive(Debug)]
pub(in crate::bridge) struct Clerk {
    /// In front of the names of channels.
    pub(in crate::bridge) prefix: Arc<str>,
    /// In front of the names of keys.
    pub(in crate::bridge) keys: Arc<str>,
    pub(in crate::bridge) tag: u32,
    pub(in crate::bridge) node: Name,
    pub(in crate::bridge) lease: Duration,
}

/// The channel on which nodes tell of their users, without the prefix.
pub(in crate::bridge) const CHANNEL: &str = "presence";

impl Clerk {
    /// Asks; a command that Redis does not let us do is an answer, and not the end of the link.
    ///
    /// # Errors
    /// When the connection does not carry any more.
    pub(in crate::bridge) async fn put(
        &self,
        ask: Ask,
        mut connection: MultiplexedConnection,
    ) -> RedisResult<Answer> {
        let answer = match ask {
            Ask::Tell(batch) => self.tell(&batch, &mut connection).await,
            Ask::Look => self.look(&mut connection).await,
            Ask::Page { tag, life, cursor } => {
                self.page(&life_name(tag, life), cursor, &mut connection).await
            }
        };
        answer.or_else(|error| if is_refusal(&error) { refused(&error) } else { Err(error) })
    }

    async fn tell(
        &self,
        batch: &Batch,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<Answer> {
        let told = transact(&self.telling(batch), connection).await?;
        Ok(Answer::Told(told.first().is_some_and(|set| *set != Value::Nil)))
    }

    fn telling(&self, batch: &Batch) -> Pipeline {
        let life = life_name(self.tag, batch.life);
        let (lease, users) = (self.key("node", &life), self.key("users", &life));
        let mut all = pipe();
        all.cmd("MULTI");
        let length = u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX);
        // A little less, so that who has heard nothing for the length of the lease finds it gone.
        let held = length - length / 10;
        let set = all.cmd("SET").arg(&lease).arg(&*self.node).arg("PX").arg(held);
        if batch.mark == Some(Mark::Begin) {
            all.cmd("SADD").arg(self.set()).arg(&life);
        } else {
            set.arg("XX");
        }
        let command = all.cmd("HSET").arg(&users).arg(SEQ).arg(batch.seq);
        if batch.mark == Some(Mark::Whole) {
            command.arg(WHOLE).arg(1);
        }
        let (gone, here): (Vec<_>, Vec<_>) =
            batch.changes.iter().partition(|change| change.pose == Pose::Gone);
        for change in here {
            command.arg(&*change.user).arg(if change.pose == Pose::Active { "a" } else { "i" });
        }
        if !gone.is_empty() {
            let names: Vec<&str> = gone.iter().map(|change| &*change.user).collect();
            all.cmd("HDEL").arg(&users).arg(names);
        }
        all.cmd("PEXPIRE").arg(&users).arg(length.saturating_mul(2));
        self.add_note(&mut all, batch);
        all.cmd("EXEC");
        all
    }

    fn add_note(&self, all: &mut Pipeline, batch: &Batch) {
        let text = note::write(self.tag, &self.node, batch);
        all.cmd("PUBLISH").arg(format!("{}:{CHANNEL}", self.prefix)).arg(text);
    }

    /// Takes everything of the life away, and says so.
    ///
    /// # Errors
    /// When the connection does not carry, or Redis refuses.
    pub(in crate::bridge) async fn leave(
        &self,
        batch: &Batch,
        mut connection: MultiplexedConnection,
    ) -> RedisResult<()> {
        let life = life_name(self.tag, batch.life);
        let mut all = pipe();
        all.cmd("MULTI");
        all.cmd("DEL").arg(self.key("node", &life)).arg(self.key("users", &life));
        all.cmd("SREM").arg(self.set()).arg(&life);
        self.add_note(&mut all, batch);
        all.cmd("EXEC");
        transact(&all, &mut connection).await.map(|_| ())
    }

    async fn look(&self, connection: &mut MultiplexedConnection) -> RedisResult<Answer> {
        let lives: Vec<String> = cmd("SMEMBERS").arg(self.set()).query_async(connection).await?;
        let (mut seen, mut gone) = (Vec::new(), Vec::new());
        for some in lives.chunks(LIVES) {
            let mut all = pipe();
            for life in some {
                all.cmd("GET").arg(self.key("node", life));
                all.cmd("HMGET").arg(self.key("users", life)).arg(SEQ).arg(WHOLE);
            }
            let answers: Vec<Value> = all.query_async(connection).await?;
            for (life, pair) in some.iter().zip(answers.chunks(2)) {
                match read_life(life, pair) {
                    Some(one) => seen.push(one),
                    None => gone.push(life),
                }
            }
        }
        if !gone.is_empty() {
            cmd("SREM").arg(self.set()).arg(gone).exec_async(connection).await?;
        }
        Ok(Answer::Looked(seen))
    }

    async fn page(
        &self,
        life: &str,
        cursor: u64,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<Answer> {
        let users = self.key("users", life);
        let mut all = pipe();
        // In this order: the number is not later than the page.
        all.cmd("HMGET").arg(&users).arg(SEQ).arg(WHOLE);
        all.cmd("HSCAN").arg(&users).arg(cursor).arg("COUNT").arg(PAGE);
        let ((seq, whole), (cursor, fields)): Read = all.query_async(connection).await?;
        let users = fields.into_iter().filter_map(|(name, pose)| {
            let name = String::from_utf8(name).ok().filter(|name| name != SEQ && name != WHOLE)?;
            Some((Name::from(name), if pose == b"a" { Pose::Active } else { Pose::Idle }))
        });
        let users = users.collect();
        let page = seq.map(|seq| Page { seq, whole: whole.is_some(), cursor, users });
        Ok(Answer::Page(page))
    }

    fn key(&self, kind: &str, life: &str) -> String {
        format!("{}:{kind}:{life}", self.keys)
    }

    fn set(&self) -> String {
        format!("{}:nodes", self.keys)
    }
}

/// What the commands between MULTI and EXEC are answered. The library's own transactions end its task when
/// Redis refuses MULTI, so both stand in the pipeline as commands like others.
async fn transact(
    all: &Pipeline,
    connection: &mut MultiplexedConnection,
) -> RedisResult<Vec<Value>> {
    let mut all = all.clone();
    all.ignore_errors();
    let answers: Vec<RedisResult<Value>> = all.query_async(connection).await?;
    let mut done = Vec::new();
    for answer in answers {
        if let Value::Array(answers) = answer? {
            done = answers;
        }
    }
    done.into_iter().map(Value::extract_error).collect()
}

/// The number and the mark of a life, and a part of its hash with where to go on.
type Read = ((Option<u64>, Option<u64>), (u64, Vec<(Vec<u8>, Vec<u8>)>));

fn life_name(tag: u32, life: u64) -> String {
    format!("{tag:x}-{life}")
}

/// A life, by its name, its lease and the beginning of its hash.
fn read_life(name: &str, pair: &[Value]) -> Option<Seen> {
    let [Value::BulkString(node), more] = pair else { return None };
    let (tag, life) = name.split_once('-')?;
    let (seq, whole): (Option<u64>, Option<u64>) = redis::from_redis_value_ref(more).ok()?;
    Some(Seen {
        tag: u32::from_str_radix(tag, 16).ok()?,
        life: life.parse().ok()?,
        node: Name::from(&*String::from_utf8_lossy(node)),
        seq: seq.unwrap_or_default(),
        whole: whole.is_some(),
    })
}

/// True when Redis has answered, and the answer is no. One that is a replica now, or is only starting, is the
/// wrong one to talk to.
fn is_refusal(error: &RedisError) -> bool {
    use ServerErrorKind::{BusyLoading, ClusterDown, MasterDown, Moved, ReadOnly};
    match error.kind() {
        ErrorKind::Server(ReadOnly | BusyLoading | MasterDown | ClusterDown | Moved) => false,
        ErrorKind::Server(_) | ErrorKind::Extension => true,
        _ => false,
    }
}

fn refused(error: &RedisError) -> RedisResult<Answer> {
    tracing::warn!("Redis refuses what is to be known of users on other nodes: {error}");
    Ok(Answer::Refused)
}
