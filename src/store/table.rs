//! An ordered table of bytes, and the trait over all kinds of store.
//!
//! All that is kept is rows of one table, in the order of their keys as bytes. A transaction sees the rows
//! as it has left them so far; when it fails, none of its changes remains.

use super::ask::{Ask, Fault, Limits, Outcome};
use super::{inbox, prune, records, rooms};

/// Keeps what outlives a connection.
pub trait Store: Send {
    /// Does all of `asks`, in order, in one transaction that is durable when this returns, as far as this
    /// kind of store can be. `now` is in milliseconds since 1970. There are as many outcomes as asks; a
    /// refused one has changed nothing.
    ///
    /// # Errors
    /// The world's fault; then none of `asks` is done.
    fn commit(&mut self, asks: &[Ask], now: u64) -> Result<Vec<Outcome>, Fault>;
}

/// A key and its value.
pub(super) type Row = (Vec<u8>, Vec<u8>);

/// The rows of a transaction.
pub(super) trait Table {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Fault>;

    /// Gives a key a value.
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault>;

    /// Takes a row away, if there is one.
    fn remove(&mut self, key: &[u8]) -> Result<(), Fault>;

    /// Shows rows from `from` up to but not `below`, in order, until `each` says false.
    fn scan(
        &self,
        from: &[u8],
        below: &[u8],
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), Fault>;

    /// True when there is space for so many bytes more.
    fn has_space(&self, bytes: u64) -> bool;

    /// The first row from `from` up to but not `below`.
    fn first(&self, from: &[u8], below: &[u8]) -> Result<Option<Row>, Fault> {
        let mut found = None;
        self.scan(from, below, &mut |key, value| {
            found = Some((key.to_vec(), value.to_vec()));
            false
        })?;
        Ok(found)
    }
}

/// Does one request on a transaction's rows.
pub(super) fn answer(
    table: &mut dyn Table,
    ask: &Ask,
    limits: &Limits,
    now: u64,
) -> Result<Outcome, Fault> {
    match ask {
        Ask::Append(draft) => inbox::append(table, draft, limits, now),
        Ask::List { owner, span } => inbox::list(table, owner, *span, limits, now),
        Ask::Read { owner, marked } => inbox::read(table, owner, marked, limits, now),
        Ask::Seen(seen) => records::note_seen(table, seen),
        Ask::Alive => records::note_alive(table, now),
        Ask::Settle => records::settle(table),
        Ask::LastSeen { owner } => records::last_seen(table, owner),
        Ask::Recent { limit } => records::recent(table, *limit),
        Ask::Revoke(revoked) => records::revoke(table, revoked, limits, now),
        Ask::Revocations => records::revocations(table, now),
        Ask::Save(save) => rooms::save(table, save, now),
        Ask::Forget { room, epoch } => rooms::forget(table, room, *epoch),
        Ask::Rooms { after, bytes } => rooms::list(table, after, *bytes, now),
        Ask::Prune { from } => prune::slice(table, from, limits, now),
    }
}

/// True for what changes nothing.
pub(super) fn only_reads(ask: &Ask) -> bool {
    matches!(
        ask,
        Ask::List { .. }
            | Ask::LastSeen { .. }
            | Ask::Recent { .. }
            | Ask::Revocations
            | Ask::Rooms { .. }
    )
}
