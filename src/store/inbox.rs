//! Notifications of one user: append, list, mark as read, and the bounds of all that.
//!
//! An inbox holds what is unread. What is read leaves, but for its name, if it had one: a sender that asks
//! again after a lost answer must not bring back what was read meanwhile. Such stubs are bounded like the
//! unread ones. One notification too many pushes the oldest out, because the newest is what its user is
//! most likely to want; the sender is told.

use crate::base::inbox::{LAST_ID, Marked, Note, Page, Span};

use super::ask::{Answer, Appended, Draft, Fault, Limits, Outcome, Refused};
use super::rows::{self, HEAD, Head, NAME, NOTE, NoteRow, STUB};
use super::table::{Row, Table};

/// Bytes of keys and numbers beside what a notification itself brings, at most, for each byte of the owner's
/// name and in all.
const OWNER_SHARE: u64 = 4;
const ROWS_SHARE: u64 = 512;

/// Expired notifications that one request drops; the rest is left to the next, and to pruning.
const EXPIRED_AT_ONCE: usize = 64;

/// Ids in one millisecond of an inbox before they run ahead of the clock.
const IDS_PER_MS: u64 = 1024;

pub(super) fn head_of(table: &dyn Table, owner: &str) -> Result<Head, Fault> {
    let value = table.get(&rows::owned(HEAD, owner))?;
    value.map_or(Ok(Head::default()), |value| Head::read(&value))
}

/// True when an id is so old that the clock alone gives larger ones, and its inbox can be forgotten.
pub(super) fn is_past(id: u64, limits: &Limits, now: u64) -> bool {
    id / IDS_PER_MS < now.saturating_sub(limits.age_ms)
}

fn put_head(table: &mut dyn Table, owner: &str, head: &Head) -> Result<(), Fault> {
    table.put(&rows::owned(HEAD, owner), &head.write())
}

/// Keeps a notification.
pub(super) fn append(
    table: &mut dyn Table,
    draft: &Draft,
    limits: &Limits,
    now: u64,
) -> Result<Outcome, Fault> {
    let Draft { owner, kind, payload, name } = draft;
    let row = NoteRow { at: now, kind, name, payload };
    if row.size() > limits.bytes {
        return Ok(Err(Refused::TooLarge(limits.bytes)));
    }
    if let Some(known) = known(table, draft)? {
        return Ok(Ok(Answer::Appended(known)));
    }
    if !table.has_space(row.size() + owner.len() as u64 * OWNER_SHARE + ROWS_SHARE) {
        return Ok(Err(Refused::Full));
    }
    let mut head = head_of(table, owner)?;
    let expired = expire(table, owner, &mut head, limits, now, EXPIRED_AT_ONCE)?.dropped;
    let by_clock = now.saturating_mul(IDS_PER_MS).min(LAST_ID / 2);
    let id = (head.last + 1).max(by_clock);
    table.put(&rows::numbered(NOTE, owner, id), &row.write())?;
    if !name.is_empty() {
        table.put(&rows::within(NAME, owner, name.as_bytes()), &rows::of_numbers([id]))?;
    }
    head.last = id;
    head.unread += 1;
    head.bytes += row.size();
    let mut dropped = expired;
    while head.unread > limits.count || head.bytes > limits.bytes {
        let oldest = table.first(&rows::numbered(NOTE, owner, 0), &rows::end(NOTE, owner))?;
        let Some((key, value)) = oldest else { break };
        retire(table, owner, &mut head, &key, &value, limits)?;
        dropped += 1;
    }
    put_head(table, owner, &head)?;
    let unread = head.unread;
    Ok(Ok(Answer::Appended(Appended { id, at: now, unread, repeated: false, dropped })))
}

/// What was kept before under the draft's name.
fn known(table: &dyn Table, draft: &Draft) -> Result<Option<Appended>, Fault> {
    let Draft { owner, name, .. } = draft;
    if name.is_empty() {
        return Ok(None);
    }
    let Some(value) = table.get(&rows::within(NAME, owner, name.as_bytes()))? else {
        return Ok(None);
    };
    let [id] = rows::numbers(&value)?;
    let note = table.get(&rows::numbered(NOTE, owner, id))?;
    let row =
        note.map_or_else(|| table.get(&rows::numbered(STUB, owner, id)), |row| Ok(Some(row)))?;
    let at = row.map_or(Ok(0), |row| rows::at_of(&row))?;
    let unread = head_of(table, owner)?.unread;
    Ok(Some(Appended { id, at, unread, repeated: true, dropped: 0 }))
}

/// Takes an unread notification away; its name stays as a stub.
fn retire(
    table: &mut dyn Table,
    owner: &str,
    head: &mut Head,
    key: &[u8],
    value: &[u8],
    limits: &Limits,
) -> Result<(), Fault> {
    let row = NoteRow::read(value)?;
    table.remove(key)?;
    head.unread = head.unread.saturating_sub(1);
    head.bytes = head.bytes.saturating_sub(row.size());
    if row.name.is_empty() {
        return Ok(());
    }
    let id = rows::id_of(key)?;
    table.put(&rows::numbered(STUB, owner, id), &rows::of_stub(row.at, row.name))?;
    head.stubs += 1;
    if head.stubs > limits.count
        && let Some((key, value)) =
            table.first(&rows::numbered(STUB, owner, 0), &rows::end(STUB, owner))?
    {
        forget(table, owner, head, &key, &value)?;
    }
    Ok(())
}

/// Takes a stub away, and with it the name.
fn forget(
    table: &mut dyn Table,
    owner: &str,
    head: &mut Head,
    key: &[u8],
    value: &[u8],
) -> Result<(), Fault> {
    table.remove(key)?;
    table.remove(&rows::within(NAME, owner, rows::name_of_stub(value)?.as_bytes()))?;
    head.stubs = head.stubs.saturating_sub(1);
    Ok(())
}

/// What [`expire`] did.
pub(super) struct Expired {
    /// Unread notifications that left.
    pub(super) dropped: u64,
    /// True when there may be more.
    pub(super) more: bool,
}

/// Takes away up to `most` rows of each sort that are older than they may be. The caller writes the head.
pub(super) fn expire(
    table: &mut dyn Table,
    owner: &str,
    head: &mut Head,
    limits: &Limits,
    now: u64,
    most: usize,
) -> Result<Expired, Fault> {
    let horizon = now.saturating_sub(limits.age_ms);
    let notes = old_rows(table, NOTE, owner, horizon, most)?;
    for (key, value) in &notes {
        let row = NoteRow::read(value)?;
        table.remove(key)?;
        if !row.name.is_empty() {
            table.remove(&rows::within(NAME, owner, row.name.as_bytes()))?;
        }
        head.unread = head.unread.saturating_sub(1);
        head.bytes = head.bytes.saturating_sub(row.size());
    }
    let stubs = old_rows(table, STUB, owner, horizon, most)?;
    for (key, value) in &stubs {
        forget(table, owner, head, key, value)?;
    }
    Ok(Expired { dropped: notes.len() as u64, more: notes.len().max(stubs.len()) >= most })
}

/// The oldest rows of a sort that were stored before `horizon`.
fn old_rows(
    table: &dyn Table,
    first: u8,
    owner: &str,
    horizon: u64,
    most: usize,
) -> Result<Vec<Row>, Fault> {
    let mut found: Vec<Row> = Vec::new();
    table.scan(&rows::numbered(first, owner, 0), &rows::end(first, owner), &mut |key, value| {
        let is_old = rows::at_of(value).is_ok_and(|at| at < horizon);
        if is_old {
            found.push((key.to_vec(), value.to_vec()));
        }
        is_old && found.len() < most
    })?;
    Ok(found)
}

/// Lists what is unread.
pub(super) fn list(
    table: &dyn Table,
    owner: &str,
    span: Span,
    limits: &Limits,
    now: u64,
) -> Result<Outcome, Fault> {
    let head = head_of(table, owner)?;
    let horizon = now.saturating_sub(limits.age_ms);
    let mut page = Page { newest: head.last, unread: head.unread, ..Page::default() };
    let (mut bytes, mut fault) = (0_u64, None);
    let end = rows::end(NOTE, owner);
    // What is too old stands first and does not count.
    table.scan(&rows::numbered(NOTE, owner, 0), &end, &mut |_, value| {
        let is_old = rows::at_of(value).is_ok_and(|at| at < horizon);
        page.unread = page.unread.saturating_sub(u64::from(is_old));
        is_old
    })?;
    table.scan(
        &rows::numbered(NOTE, owner, span.after.saturating_add(1)),
        &end,
        &mut |key, value| {
            let (id, row) = match (rows::id_of(key), NoteRow::read(value)) {
                (Ok(id), Ok(row)) => (id, row),
                (Err(error), _) | (_, Err(error)) => {
                    fault = Some(error);
                    return false;
                }
            };
            if row.at < horizon {
                return true;
            }
            if id > span.until {
                return false;
            }
            bytes += row.size();
            if page.notes.len() >= span.limit || (bytes > span.bytes && !page.notes.is_empty()) {
                page.more = true;
                return false;
            }
            let (kind, payload) = (row.kind.into(), row.payload.into());
            page.notes.push(Note { id, at: row.at, kind, payload });
            true
        },
    )?;
    fault.map_or(Ok(Ok(Answer::Page(page))), Err)
}

/// Notes what was read.
pub(super) fn read(
    table: &mut dyn Table,
    owner: &str,
    marked: &Marked,
    limits: &Limits,
    now: u64,
) -> Result<Outcome, Fault> {
    let mut head = head_of(table, owner)?;
    let before = head;
    expire(table, owner, &mut head, limits, now, EXPIRED_AT_ONCE)?;
    let mut read: Vec<Row> = Vec::new();
    match marked {
        Marked::All => {
            let (from, below) = (rows::numbered(NOTE, owner, 0), rows::end(NOTE, owner));
            table.scan(&from, &below, &mut |key, value| {
                read.push((key.to_vec(), value.to_vec()));
                true
            })?;
        }
        Marked::Ids(ids) => {
            let mut ids = ids.clone();
            ids.sort_unstable();
            ids.dedup();
            for id in ids {
                let key = rows::numbered(NOTE, owner, id);
                if let Some(value) = table.get(&key)? {
                    read.push((key, value));
                }
            }
        }
    }
    for (key, value) in &read {
        retire(table, owner, &mut head, key, value, limits)?;
    }
    if head != before {
        put_head(table, owner, &head)?;
    }
    let changed = head.unread != before.unread;
    Ok(Ok(Answer::Unread { unread: head.unread, changed }))
}
