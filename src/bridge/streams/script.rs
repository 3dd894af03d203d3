//! The two scripts: what they are given, what they answer, and what is published by one of them.
//!
//! A room has three keys in Redis: its place (epoch, newest number, bytes kept), its stream, and for each node
//! that writes to it what that has written last. Identifiers have a key each. The epoch is a random number that
//! lives with the place: who has lost the place has lost the epoch. Its highest bit is set, by which it is told
//! from those that a node gives out itself.

use std::borrow::Cow;
use std::time::Duration;

use redis::{Cmd, ServerError, ServerErrorKind, Value, cmd};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::append::Waiting;
use super::side::{Entry, Refusal, Verdict};
use crate::base::cursor::Cursor;

pub(super) const APPEND: &str = include_str!("append.lua");
pub(super) const READ: &str = include_str!("read.lua");

/// Set in the epochs of shared histories.
const SHARED: u64 = 1 << 63;

/// What a message with a number begins with.
const HEAD: &[u8] = b"{\"v\":2,";

/// A publication as it is kept.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Kept<'a> {
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    from: Option<Cow<'a, str>>,
    #[serde(borrow)]
    order: &'a RawValue,
}

/// A publication with its number, as it is published.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::bridge) struct Letter<'a> {
    #[serde(rename = "v")]
    _version: u32,
    #[serde(borrow)]
    epoch: Cow<'a, str>,
    offset: u64,
    #[serde(borrow, default)]
    from: Option<Cow<'a, str>>,
    #[serde(borrow)]
    order: &'a RawValue,
}

/// True for what may be a publication with a number. Told without reading the whole.
pub(in crate::bridge) fn is_kept(payload: &[u8]) -> bool {
    payload.starts_with(HEAD)
}

impl Letter<'_> {
    /// The epoch, and the publication.
    ///
    /// # Errors
    /// When it is none.
    pub(in crate::bridge) fn read(payload: &[u8]) -> Result<(u64, Entry), String> {
        let letter: Letter<'_> = serde_json::from_slice(payload)
            .map_err(|error| format!("no publication of a shared history: {error}"))?;
        let epoch = epoch(&letter.epoch).ok_or("the epoch is no hexadecimal number")?;
        let entry = Entry {
            offset: letter.offset,
            age: Duration::ZERO,
            order: letter.order.get().to_owned(),
            from: letter.from.map(Cow::into_owned),
        };
        Ok((epoch, entry))
    }
}

fn epoch(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

/// An epoch that was never given out.
fn fresh() -> String {
    format!("{:x}", fastrand::u64(..) | SHARED)
}

/// Whose keys these are, and where the scripts are known.
#[derive(Clone, Debug)]
pub(in crate::bridge) struct Keys {
    prefix: String,
    /// This life of this node.
    writer: String,
    /// The keys of a room say by their names that they belong together, as a cluster wants it.
    tagged: bool,
    /// The names by which Redis has the scripts, once it has them.
    pub(in crate::bridge) names: Option<[String; 2]>,
}

impl Keys {
    pub(in crate::bridge) fn new(prefix: &str, writer: u32, tagged: bool) -> Self {
        Self { prefix: prefix.to_owned(), writer: format!("{writer:x}"), tagged, names: None }
    }

    fn key(&self, kind: &str, channel: &str) -> String {
        if self.tagged {
            format!("{}:{kind}:{{{channel}}}", self.prefix)
        } else {
            format!("{}:{kind}:{channel}", self.prefix)
        }
    }

    /// The key of an identifier that is remembered in a room.
    fn once(&self, channel: &str, once: &str) -> String {
        if self.tagged {
            return format!("{}:{once}", self.key("once", channel));
        }
        let named = serde_json::to_string(&(channel, once)).unwrap_or_default();
        self.key("once", &named)
    }

    fn script(&self, at: usize, keys: &[&str]) -> Cmd {
        let mut command = cmd("EVALSHA");
        let name = self.names.as_ref().map_or("", |names| &*names[at]);
        command.arg(name).arg(keys.len()).arg(keys);
        command
    }

    /// Numbers, keeps and publishes. `known`: up to where the node has the room.
    pub(in crate::bridge) fn append(&self, waiting: &Waiting, known: Option<Cursor>) -> Cmd {
        let append = &waiting.append;
        let channel = &*append.channel;
        let once = append.once.as_ref();
        let named = once.map_or("", |(once, _)| &**once);
        let mut command = self.script(
            0,
            &[
                &self.key("place", channel),
                &self.key("history", channel),
                &self.key(&format!("sent:{}", self.writer), channel),
                &self.once(channel, named),
            ],
        );
        let known = known.unwrap_or_default();
        command
            .arg(format!("{}:{channel}", self.prefix))
            .arg(body(&append.order, append.from.as_deref()))
            .arg(waiting.written.unwrap_or_default())
            .arg(fresh())
            .arg(format!("{:x}", known.epoch))
            .arg(known.offset)
            .arg(append.bound.count)
            .arg(append.bound.bytes)
            .arg(millis(append.bound.age))
            .arg(once.map_or(0, |(_, window)| millis(*window)));
        command
    }

    /// Reads a room's newest number and what came after a place. `follows`: the node follows the room, and
    /// sees to it that it has a place and that a Redis which fell behind the node begins a new epoch.
    pub(super) fn read(
        &self,
        channel: &str,
        after: Option<Cursor>,
        most: (usize, usize),
        follows: bool,
    ) -> Cmd {
        let mut command =
            self.script(1, &[&self.key("place", channel), &self.key("history", channel)]);
        let of = after.map_or_else(String::new, |after| format!("{:x}", after.epoch));
        command
            .arg(of)
            .arg(after.unwrap_or_default().offset)
            .arg(most.0)
            .arg(most.1)
            .arg(if follows { fresh() } else { String::new() });
        command
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn body(order: &[u8], from: Option<&str>) -> Vec<u8> {
    let Ok(order) = serde_json::from_slice(order) else { return Vec::new() };
    serde_json::to_vec(&Kept { from: from.map(Cow::Borrowed), order }).unwrap_or_default()
}

/// What a script that was refused says of Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It does not know the script; nothing was done.
    Forgotten,
    /// Not now: the room is on its way from one node of a cluster to another.
    Later,
    /// It does not serve now; nothing was done.
    Away(String),
    /// It does not do this; nothing was done.
    Refused(Refusal, String),
}

/// What kind of refusal it is.
pub(super) fn trouble(error: &ServerError) -> Trouble {
    use ServerErrorKind::{BusyLoading, ClusterDown, MasterDown, NoScript, ReadOnly, TryAgain};
    let text = format!("{} {}", error.code(), error.details().unwrap_or_default());
    match error.kind() {
        Some(NoScript) => Trouble::Forgotten,
        Some(BusyLoading | ClusterDown | MasterDown | ReadOnly | TryAgain) => Trouble::Away(text),
        // Redis 6 says so within the script's error.
        _ if text.contains("OOM") => Trouble::Refused(Refusal::Memory, text),
        _ => Trouble::Refused(Refusal::Failed, text),
    }
}

fn strange() -> Trouble {
    Trouble::Refused(Refusal::Failed, "an answer that no script of ours gives".to_owned())
}

/// The answer of the script that appends.
///
/// # Errors
/// When it was refused.
pub(super) fn verdict(answer: Value) -> Result<Verdict, Trouble> {
    let texts = texts(answer)?;
    let [word, of, number] = &texts[..] else { return Err(strange()) };
    let offset = number.parse().map_err(|_| strange())?;
    let cursor = Cursor { epoch: epoch(of).ok_or_else(strange)?, offset };
    Ok(if word == "repeat" { Verdict::Repeat(cursor) } else { Verdict::Taken(cursor) })
}

/// What was read: the room's newest, none where the room has no place, and what came after the place that was
/// asked about.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) newest: Option<Cursor>,
    pub(super) entries: Vec<Entry>,
}

/// The answer of the script that reads.
///
/// # Errors
/// When it was refused.
pub(super) fn reading(answer: Value) -> Result<Reading, Trouble> {
    let texts = texts(answer)?;
    let [of, newest, now, rest @ ..] = &texts[..] else { return Err(strange()) };
    let number = |text: &str| text.parse::<u64>().map_err(|_| strange());
    let (offset, now) = (number(newest)?, number(now)?);
    let newest = epoch(of).map(|epoch| Cursor { epoch, offset });
    let mut entries = Vec::new();
    for part in rest.chunks_exact(3) {
        // What cannot be read keeps its number, and is refused where it is delivered.
        let (from, order) = match serde_json::from_str::<Kept<'_>>(&part[2]) {
            Ok(kept) => (kept.from.map(Cow::into_owned), kept.order.get().to_owned()),
            Err(_) => (None, part[2].clone()),
        };
        let age = Duration::from_millis(now.saturating_sub(number(&part[1])?));
        entries.push(Entry { offset: number(&part[0])?, age, order, from });
    }
    Ok(Reading { newest, entries })
}

fn texts(answer: Value) -> Result<Vec<String>, Trouble> {
    let list = match answer {
        Value::Array(list) => list,
        Value::Nil => return Err(Trouble::Later),
        Value::ServerError(error) => return Err(trouble(&error)),
        _ => return Err(strange()),
    };
    let text = |value| match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).map_err(|_| strange()),
        _ => Err(strange()),
    };
    list.into_iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bulk(texts: &[&str]) -> Value {
        let value = |text: &&str| Value::BulkString(text.as_bytes().to_vec());
        Value::Array(texts.iter().map(value).collect())
    }

    #[test]
    fn what_is_published_reads_back_as_it_was_kept() {
        let order = r#"{"type": "x", "payload" : [1.50]}"#;
        let kept = body(order.as_bytes(), Some("1-2-3-4"));
        let kept = str::from_utf8(&kept).expect("UTF-8");
        let message = format!(r#"{{"v":2,"epoch":"8f","offset":17,{}"#, &kept[1..]);
        assert!(is_kept(message.as_bytes()) && !is_kept(br#"{"v":1,"node":"a"}"#));
        let (epoch, entry) = Letter::read(message.as_bytes()).expect("a letter");
        let from = Some("1-2-3-4".to_owned());
        let expected = Entry { offset: 17, age: Duration::ZERO, order: order.to_owned(), from };
        assert_eq!((epoch, &entry), (0x8f, &expected));
        let answer = bulk(&["8f", "19", "5000", "17", "3000", kept]);
        let reading = reading(answer).expect("a reading");
        assert_eq!(reading.newest, Some(Cursor { epoch: 0x8f, offset: 19 }));
        assert_eq!(reading.entries, [Entry { age: Duration::from_secs(2), ..expected }]);
    }

    #[test]
    fn verdicts_are_read_and_nothing_else_is_taken_for_one() {
        let cursor = Cursor { epoch: 0xab, offset: 3 };
        assert_eq!(verdict(bulk(&["taken", "ab", "3"])), Ok(Verdict::Taken(cursor)));
        assert_eq!(verdict(bulk(&["repeat", "ab", "3"])), Ok(Verdict::Repeat(cursor)));
        assert_eq!(verdict(Value::Nil), Err(Trouble::Later));
        for wrong in [bulk(&[]), bulk(&["taken", "ab"]), bulk(&["taken", "x", "3"])] {
            assert!(matches!(verdict(wrong), Err(Trouble::Refused(Refusal::Failed, _))));
        }
        assert!(reading(bulk(&["", "0", "1"])).is_ok_and(|none| none.newest.is_none()));
    }

    proptest! {
        #[test]
        fn any_message_is_read_or_refused_without_a_panic(text in r#"(\{"v":2,)?.*"#) {
            let _ = Letter::read(text.as_bytes());
        }
    }
}
