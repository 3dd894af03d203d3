//! What has grown old leaves, a slice at a time.
//!
//! A user who comes back drops what has expired in passing. For those who never do, a walk over all inboxes
//! goes on in the background, so many rows at a time, and no request waits longer for it than for one
//! slice. The walk remembers where it was by the key it came to.

use super::ask::{Answer, Fault, Limits, Outcome};
use super::inbox;
use super::records;
use super::rooms;
use super::rows::{self, AGEING, HEAD, HERE, Head, REVOKED, ROOM, SEEN};
use super::table::Table;

/// Rows that one slice looks at.
const LOOKS: usize = 128;

/// Notifications of one inbox, or publications of one room, that one slice drops.
const DROPS: usize = 256;

/// Looks at the next rows after `from`, and drops what is too old.
pub(super) fn slice(
    table: &mut dyn Table,
    from: &[u8],
    limits: &Limits,
    now: u64,
) -> Result<Outcome, Fault> {
    let mut looked = Vec::new();
    table.scan(from.max(AGEING.0), AGEING.1, &mut |key, value| {
        looked.push((key.to_vec(), value.to_vec()));
        looked.len() < LOOKS
    })?;
    let mut dropped = 0;
    for (key, value) in &looked {
        match key[0] {
            HEAD => {
                let expired = prune_inbox(table, key, value, limits, now)?;
                dropped += expired.dropped;
                if expired.more {
                    return Ok(Ok(Answer::Pruned { next: Some(key.clone()), dropped }));
                }
            }
            // Who has been here for longer than that is not known after a crash.
            SEEN | HERE => {
                let [at] = rows::numbers(value)?;
                if at < now.saturating_sub(limits.seen_age_ms) {
                    table.remove(key)?;
                }
            }
            // A room with many rows is gone through in several slices.
            ROOM if rooms::prune(table, key, value, now, DROPS)? => {
                return Ok(Ok(Answer::Pruned { next: Some(key.clone()), dropped }));
            }
            REVOKED if records::has_ended(value, now) => records::drop_revocation(table, key)?,
            _ => {}
        }
    }
    let is_end = looked.len() < LOOKS;
    let next = looked.pop().filter(|_| !is_end).map(|(mut key, _)| {
        // The least key behind that one.
        key.push(0);
        key
    });
    Ok(Ok(Answer::Pruned { next, dropped }))
}

fn prune_inbox(
    table: &mut dyn Table,
    key: &[u8],
    value: &[u8],
    limits: &Limits,
    now: u64,
) -> Result<inbox::Expired, Fault> {
    let (owner, before) = (rows::owner_of(key)?.to_owned(), Head::read(value)?);
    let mut head = before;
    let expired = inbox::expire(table, &owner, &mut head, limits, now, DROPS)?;
    if head.unread == 0 && head.stubs == 0 && inbox::is_past(head.last, limits, now) {
        table.remove(key)?;
    } else if head != before {
        table.put(key, &head.write())?;
    }
    Ok(expired)
}
