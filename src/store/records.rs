//! Last-seen times and revocations.
//!
//! Who has gone is written down with the time. A process that is killed writes nothing of the sort, so who comes
//! is written down as well, once and not at each heartbeat, and every few seconds that the process lives. The
//! next process finds whom nobody saw going: they were last here when the one before it last lived, or when
//! they came, whichever is later. The row of somebody who is here leaves with the proper time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::ask::{Answer, Fault, Limits, Outcome, Refused, Revoked, Seen};
use super::rows::{self, ALIVE_KEY, HERE, REVOCATIONS_KEY, REVOKED, SEEN};
use super::table::Table;

/// Bytes of a row beside its name.
const ROW: u64 = 160;

/// Users of an earlier process that one request settles.
pub(super) const SETTLED_AT_ONCE: usize = 4096;

/// Notes who has come and who has gone.
pub(super) fn note_seen(table: &mut dyn Table, seen: &[Seen]) -> Result<Outcome, Fault> {
    let bytes = seen.iter().map(|seen| seen.owner.len() as u64 + ROW).sum();
    if !table.has_space(bytes) {
        return Ok(Err(Refused::Full));
    }
    for Seen { owner, at, here } in seen {
        let key = rows::owned(HERE, owner);
        if *here {
            table.put(&key, &rows::of_numbers([*at]))?;
        } else {
            table.remove(&key)?;
            put_seen(table, owner, *at)?;
        }
    }
    Ok(Ok(Answer::Done))
}

/// Notes when a user was last here; the time never goes back.
fn put_seen(table: &mut dyn Table, owner: &str, at: u64) -> Result<(), Fault> {
    let key = rows::owned(SEEN, owner);
    let [before] = table.get(&key)?.map_or(Ok([0]), |value| rows::numbers(&value))?;
    if at > before { table.put(&key, &rows::of_numbers([at])) } else { Ok(()) }
}

/// Notes that the process lives.
pub(super) fn note_alive(table: &mut dyn Table, now: u64) -> Result<Outcome, Fault> {
    table.put(ALIVE_KEY, &rows::of_numbers([now]))?;
    Ok(Ok(Answer::Done))
}

/// When somebody was last here who came then and whom nobody saw going, of a process that lived at `alive`.
fn last_sign(since: u64, alive: u64) -> u64 {
    since.max(alive)
}

/// Notes when those were last here whom the process before this one did not see going; a slice of them.
pub(super) fn settle(table: &mut dyn Table) -> Result<Outcome, Fault> {
    let [alive] = table.get(ALIVE_KEY)?.map_or(Ok([0]), |value| rows::numbers(&value))?;
    let mut here = Vec::new();
    table.scan(&[HERE], &[HERE + 1], &mut |key, value| {
        here.push((key.to_vec(), value.to_vec()));
        here.len() < SETTLED_AT_ONCE
    })?;
    for (key, value) in &here {
        let [since] = rows::numbers(value)?;
        table.remove(key)?;
        put_seen(table, rows::owner_of(key)?, last_sign(since, alive))?;
    }
    Ok(Ok(Answer::Settled { more: here.len() == SETTLED_AT_ONCE }))
}

/// When the user was last here.
pub(super) fn last_seen(table: &dyn Table, owner: &str) -> Result<Outcome, Fault> {
    let value = table.get(&rows::owned(SEEN, owner))?;
    let at = value.map(|value| rows::numbers(&value)).transpose()?.map(|[at]| at);
    Ok(Ok(Answer::LastSeen(at)))
}

/// Who was here last.
pub(super) fn recent(table: &dyn Table, limit: usize) -> Result<Outcome, Fault> {
    let mut latest: BinaryHeap<Reverse<(u64, Arc<str>)>> = BinaryHeap::new();
    let mut fault = None;
    table.scan(&[SEEN], &[SEEN + 1], &mut |key, value| {
        match (rows::owner_of(key), rows::numbers(value)) {
            (Ok(owner), Ok([at])) => {
                let is_later = latest.peek().is_none_or(|Reverse((earliest, _))| at > *earliest);
                if latest.len() < limit || is_later {
                    latest.push(Reverse((at, owner.into())));
                }
                if latest.len() > limit {
                    latest.pop();
                }
            }
            (Err(error), _) | (_, Err(error)) => fault = Some(error),
        }
        fault.is_none()
    })?;
    let all = latest.into_iter().map(|Reverse((at, owner))| (owner, at)).collect();
    fault.map_or(Ok(Ok(Answer::Recent(all))), Err)
}

fn key_of(revoked: &Revoked) -> Vec<u8> {
    let sort = if revoked.is_token { 't' } else { 'u' };
    rows::owned(REVOKED, &format!("{sort}{}", revoked.name))
}

fn count(table: &dyn Table) -> Result<u64, Fault> {
    let [count] = table.get(REVOCATIONS_KEY)?.map_or(Ok([0]), |value| rows::numbers(&value))?;
    Ok(count)
}

/// Remembers a revocation; a second one of the same user or token adds to the first.
pub(super) fn revoke(
    table: &mut dyn Table,
    revoked: &Revoked,
    limits: &Limits,
    now: u64,
) -> Result<Outcome, Fault> {
    let key = key_of(revoked);
    let (mut issued, mut until) = (revoked.issued, revoked.until);
    match table.get(&key)? {
        Some(value) => {
            let [before_issued, before_until] = rows::numbers(&value)?;
            issued = issued.max(before_issued);
            until = until.max(before_until);
        }
        None => {
            if count(table)? >= limits.revocations {
                drop_ended(table, now)?;
            }
            let count = count(table)?;
            if count >= limits.revocations || !table.has_space(key.len() as u64 + ROW) {
                return Ok(Err(Refused::Full));
            }
            table.put(REVOCATIONS_KEY, &rows::of_numbers([count + 1]))?;
        }
    }
    table.put(&key, &rows::of_numbers([issued, until]))?;
    Ok(Ok(Answer::Done))
}

fn drop_ended(table: &mut dyn Table, now: u64) -> Result<(), Fault> {
    let mut ended = Vec::new();
    table.scan(&[REVOKED], &[REVOKED + 1], &mut |key, value| {
        if has_ended(value, now) {
            ended.push(key.to_vec());
        }
        true
    })?;
    ended.iter().try_for_each(|key| drop_revocation(table, key))
}

/// True for the row of a revocation that stops nothing any more.
pub(super) fn has_ended(value: &[u8], now: u64) -> bool {
    rows::numbers(value).is_ok_and(|[_, until]| until.saturating_mul(1000) <= now)
}

/// Takes the row of a revocation away.
pub(super) fn drop_revocation(table: &mut dyn Table, key: &[u8]) -> Result<(), Fault> {
    table.remove(key)?;
    let count = count(table)?.saturating_sub(1);
    table.put(REVOCATIONS_KEY, &rows::of_numbers([count]))
}

/// The revocations that still hold.
pub(super) fn revocations(table: &dyn Table, now: u64) -> Result<Outcome, Fault> {
    let (mut all, mut fault) = (Vec::new(), None);
    table.scan(&[REVOKED], &[REVOKED + 1], &mut |key, value| {
        match (rows::owner_of(key), rows::numbers(value)) {
            (Ok(text), Ok([issued, until])) if !has_ended(value, now) => {
                let is_token = text.starts_with('t');
                all.push(Revoked { is_token, name: text[1..].into(), issued, until });
            }
            (Ok(_), Ok(_)) => {}
            (Err(error), _) | (_, Err(error)) => fault = Some(error),
        }
        fault.is_none()
    })?;
    fault.map_or(Ok(Ok(Answer::Revoked(all))), Err)
}
