//! Publications of rooms: kept in the order of their numbers, within the bounds of each room.
//!
//! A room's head says which life of the room its rows are of. A life that has ended leaves its rows behind, and
//! so may a life that nobody came to forget; they lie in front of those of the present one and leave with what
//! has grown old. What is dropped goes a slice at a time: whoever keeps something drops at least as many rows as
//! it adds while there are too many, so a room whose bounds have become narrower shrinks and nobody waits for it.

use std::sync::Arc;

use super::ask::{Answer, Fault, Outcome, Refused};
use super::rows::{self, PUBLICATION, ROOM, RoomHead};
use super::table::Table;
use crate::base::saved::{Save, SavedRoom, SavedRow};

/// Bytes of a row beside its text: keys, numbers, its share of the tree.
const ROW: u64 = 64;

/// Rows dropped when something is kept, beside as many as came.
const DROPS: usize = 16;

/// Keeps publications.
pub(super) fn save(table: &mut dyn Table, save: &Save, now: u64) -> Result<Outcome, Fault> {
    let room = &*save.room;
    let bytes = save.rows.iter().map(|row| size(row.bytes.len()) + room.len() as u64).sum::<u64>();
    if !table.has_space(bytes + ROW) {
        return Ok(Err(Refused::Full));
    }
    let key = rows::owned(ROOM, room);
    let before = table.get(&key)?.map_or(Ok(RoomHead::default()), |v| RoomHead::read(&v))?;
    let mut head = if before.epoch == save.epoch {
        before
    } else {
        RoomHead { epoch: save.epoch, ..RoomHead::default() }
    };
    head.bounds = save.bounds;
    if let Some(first) = save.rows.first() {
        drop_ghosts(table, room, &mut head, first.offset)?;
    }
    for row in &save.rows {
        let mut value = row.at.to_be_bytes().to_vec();
        value.extend_from_slice(&row.bytes);
        table.put(&rows::published(room, head.epoch, row.offset), &value)?;
        head.last = row.offset;
        head.count += 1;
        head.bytes += size(row.bytes.len());
    }
    head.reserved = head.reserved.max(save.reserved).max(head.last);
    drop_front(table, room, &mut head, now, DROPS + save.rows.len())?;
    table.put(&key, &head.write())?;
    Ok(Ok(Answer::Done))
}

impl RoomHead {
    /// A row with a value of that length is gone.
    fn take_away(&mut self, length: usize) {
        self.count = self.count.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(size(length.saturating_sub(size_of::<u64>())));
    }
}

/// What a row counts against the room's bytes, by the bytes that its home made of it.
fn size(bytes: usize) -> u64 {
    bytes as u64 + ROW
}

/// Rows from that number on are of a write that was said to have failed, and had not.
fn drop_ghosts(
    table: &mut dyn Table,
    room: &str,
    head: &mut RoomHead,
    from: u64,
) -> Result<(), Fault> {
    let from = rows::published(room, head.epoch, from);
    let below = rows::published(room, head.epoch.saturating_add(1), 0);
    let mut ghosts = Vec::new();
    table.scan(&from, &below, &mut |key, value| {
        ghosts.push((key.to_vec(), value.len()));
        true
    })?;
    for (key, length) in ghosts {
        table.remove(&key)?;
        head.take_away(length);
    }
    Ok(())
}

/// Drops what is too much from the front, looking at `most` rows; true when there may be more of it.
fn drop_front(
    table: &mut dyn Table,
    room: &str,
    head: &mut RoomHead,
    now: u64,
    most: usize,
) -> Result<bool, Fault> {
    let mut front = Vec::new();
    let (from, below) = (rows::within(PUBLICATION, room, &[]), rows::end(PUBLICATION, room));
    table.scan(&from, &below, &mut |key, value| {
        front.push((key.to_vec(), rows::at_of(value), value.len()));
        front.len() < most
    })?;
    let looked = front.len();
    for (key, at, length) in front {
        let is_own = rows::epoch_of(&key)? == head.epoch;
        let is_old = at?.saturating_add(head.bounds.age_ms) <= now;
        let is_much = head.count > head.bounds.count || head.bytes > head.bounds.bytes;
        if is_own && !is_old && !is_much {
            return Ok(false);
        }
        table.remove(&key)?;
        if is_own {
            head.dropped = rows::id_of(&key)?;
            head.take_away(length);
        }
    }
    Ok(looked == most)
}

/// Drops a slice of a room's rows that are too old or of no use, and its head when none is left. True when there
/// may be more.
pub(super) fn prune(
    table: &mut dyn Table,
    key: &[u8],
    value: &[u8],
    now: u64,
    most: usize,
) -> Result<bool, Fault> {
    let (room, mut head) = (rows::owner_of(key)?.to_owned(), RoomHead::read(value)?);
    let before = head;
    let more = drop_front(table, &room, &mut head, now, most)?;
    if head.count == 0 && !more {
        table.remove(key)?;
    } else if head != before {
        table.put(key, &head.write())?;
    }
    Ok(more)
}

/// Ends a life of a room; its rows leave with what has grown old.
pub(super) fn forget(table: &mut dyn Table, room: &str, epoch: u64) -> Result<Outcome, Fault> {
    let key = rows::owned(ROOM, room);
    let head = table.get(&key)?.map(|value| RoomHead::read(&value)).transpose()?;
    if head.is_some_and(|head| head.epoch == epoch) {
        table.put(&key, &RoomHead::default().write())?;
    }
    Ok(Ok(Answer::Done))
}

/// The same for all rooms.
pub(super) fn forget_all(table: &mut dyn Table) -> Result<(), Fault> {
    let mut heads = Vec::new();
    table.scan(&[ROOM], &[ROOM + 1], &mut |key, _| {
        heads.push(key.to_vec());
        true
    })?;
    heads.iter().try_for_each(|key| table.put(key, &RoomHead::default().write()))
}

/// Lists what is kept of rooms behind `after`, until it is so many bytes.
pub(super) fn list(table: &dyn Table, after: &str, bytes: u64, now: u64) -> Result<Outcome, Fault> {
    let mut from = rows::owned(ROOM, after);
    if !after.is_empty() {
        // The least key behind that one.
        from.push(0);
    }
    let (mut listed, mut taken) = (Vec::new(), 0);
    while let Some((key, value)) = table.first(&from, &[ROOM + 1])? {
        let (room, head) = (Arc::from(rows::owner_of(&key)?), RoomHead::read(&value)?);
        if head.count > 0 {
            let found = read(table, &room, &head, now)?;
            taken += found.iter().map(|row| size(row.bytes.len())).sum::<u64>();
            if !found.is_empty() {
                let RoomHead { epoch, reserved, dropped, .. } = head;
                let first = found.first().map_or(0, |row| row.offset);
                let dropped = if before_is_gone(table, &room, &head, first)? {
                    first.saturating_sub(1)
                } else {
                    dropped
                };
                let room = Arc::clone(&room);
                listed.push(SavedRoom { room, epoch, reserved, dropped, rows: found });
            }
        }
        if taken >= bytes {
            return Ok(Ok(Answer::Rooms { rooms: listed, next: Some(room) }));
        }
        from = key;
        from.push(0);
    }
    Ok(Ok(Answer::Rooms { rooms: listed, next: None }))
}

/// True when rows of this life stand before the first one that is to be found, and are too old.
fn before_is_gone(
    table: &dyn Table,
    room: &str,
    head: &RoomHead,
    first: u64,
) -> Result<bool, Fault> {
    let from = rows::published(room, head.epoch, 0);
    Ok(table.first(&from, &rows::published(room, head.epoch, first))?.is_some())
}

/// The rows of a room's present life that are not too old.
fn read(table: &dyn Table, room: &str, head: &RoomHead, now: u64) -> Result<Vec<SavedRow>, Fault> {
    let (mut found, mut fault) = (Vec::new(), None);
    let from = rows::published(room, head.epoch, 0);
    let below = rows::published(room, head.epoch, head.last.saturating_add(1));
    table.scan(&from, &below, &mut |key, value| {
        match (rows::id_of(key), rows::at_of(value)) {
            (Ok(offset), Ok(at)) if at.saturating_add(head.bounds.age_ms) > now => {
                found.push(SavedRow { offset, at, bytes: value[8..].into() });
            }
            (Ok(_), Ok(_)) => {}
            (Err(error), _) | (_, Err(error)) => fault = Some(error),
        }
        fault.is_none()
    })?;
    fault.map_or(Ok(found), Err)
}
