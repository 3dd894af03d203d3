//! How rows are laid out as bytes.
//!
//! The first byte of a key says what its row is; numbers are big-endian, so that rows of one user lie in
//! the order of their ids. An owner's name holds no zero byte (names hold no control characters but the two
//! that join their parts), so a zero ends it and no owner's rows lie among another's.
//!
//! | key | value |
//! |---|---|
//! | `a` owner | head of an inbox: last id, unread, their bytes, stubs |
//! | `b` owner | when the user was last here |
//! | `c` kind name | a revocation: issued, until |
//! | `d` owner | the user is here: since when; of one who has gone there is no such row |
//! | `e` room | head of a room: see [`RoomHead`] |
//! | `f` room 0 epoch offset | a publication: when, and what the room's home made of it |
//! | `n` owner 0 id | a notification: when, lengths of kind and name, kind, name, payload |
//! | `s` owner 0 id | a stub, what is left of a named notification that was read: when, name |
//! | `x` owner 0 name | the id of the notification that was kept under a name |
//! | `z` ... | the format, the number of revocations, when the process last lived |

use super::ask::Fault;
use crate::base::saved::Bounds;

pub(super) const FORMAT_KEY: &[u8] = b"z:format";
pub(super) const REVOCATIONS_KEY: &[u8] = b"z:revocations";
pub(super) const ALIVE_KEY: &[u8] = b"z:alive";

/// Where the rows begin that grow old by themselves, and where they end.
pub(super) const AGEING: (&[u8], &[u8]) = (b"a", b"f");

/// A key's first byte.
pub(super) const HEAD: u8 = b'a';
pub(super) const SEEN: u8 = b'b';
pub(super) const REVOKED: u8 = b'c';
pub(super) const HERE: u8 = b'd';
pub(super) const ROOM: u8 = b'e';
pub(super) const PUBLICATION: u8 = b'f';
pub(super) const NOTE: u8 = b'n';
pub(super) const STUB: u8 = b's';
pub(super) const NAME: u8 = b'x';

/// The head of an inbox; one of zeros is an inbox that nothing is known of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) last: u64,
    pub(super) unread: u64,
    /// Of the unread ones, as [`NoteRow::size`] counts.
    pub(super) bytes: u64,
    pub(super) stubs: u64,
}

/// The head of a room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RoomHead {
    /// The life of the room; rows of others are of no use. Zero when it has ended.
    pub(super) epoch: u64,
    /// The number of the latest row; later ones are what is left of a write that failed.
    pub(super) last: u64,
    /// No number up to here may be given out again.
    pub(super) reserved: u64,
    /// The highest number that was kept and had to go.
    pub(super) dropped: u64,
    pub(super) count: u64,
    pub(super) bytes: u64,
    /// The bounds that held when something was last kept.
    pub(super) bounds: Bounds,
}

impl RoomHead {
    pub(super) fn read(value: &[u8]) -> Result<Self, Fault> {
        let [epoch, last, reserved, dropped, count, bytes, most, most_bytes, age_ms] =
            numbers(value)?;
        let bounds = Bounds { count: most, bytes: most_bytes, age_ms };
        Ok(Self { epoch, last, reserved, dropped, count, bytes, bounds })
    }

    pub(super) fn write(&self) -> Vec<u8> {
        let Bounds { count, bytes, age_ms } = self.bounds;
        let own = [self.epoch, self.last, self.reserved, self.dropped, self.count, self.bytes];
        [own.as_slice(), &[count, bytes, age_ms]]
            .concat()
            .iter()
            .flat_map(|n| n.to_be_bytes())
            .collect()
    }
}

/// The key of a publication's row.
pub(super) fn published(room: &str, epoch: u64, offset: u64) -> Vec<u8> {
    let mut key = numbered(PUBLICATION, room, epoch);
    key.extend_from_slice(&offset.to_be_bytes());
    key
}

/// The epoch in the key of a publication's row.
pub(super) fn epoch_of(key: &[u8]) -> Result<u64, Fault> {
    let at = key.len().checked_sub(16).ok_or_else(unreadable)?;
    let epoch = key[at..].first_chunk().ok_or_else(unreadable)?;
    Ok(u64::from_be_bytes(*epoch))
}

/// A notification's row, borrowed from its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoteRow<'v> {
    pub(super) at: u64,
    pub(super) kind: &'v str,
    pub(super) name: &'v str,
    pub(super) payload: &'v str,
}

/// A key of one row per owner.
pub(super) fn owned(first: u8, owner: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(owner.len() + 1);
    key.push(first);
    key.extend_from_slice(owner.as_bytes());
    key
}

/// A key of many rows per owner.
pub(super) fn within(first: u8, owner: &str, rest: &[u8]) -> Vec<u8> {
    let mut key = owned(first, owner);
    key.push(0);
    key.extend_from_slice(rest);
    key
}

/// The key of a numbered row.
pub(super) fn numbered(first: u8, owner: &str, id: u64) -> Vec<u8> {
    within(first, owner, &id.to_be_bytes())
}

/// The key behind all of an owner's rows of one sort.
pub(super) fn end(first: u8, owner: &str) -> Vec<u8> {
    let mut key = owned(first, owner);
    key.push(1);
    key
}

/// The id in the key of a numbered row.
pub(super) fn id_of(key: &[u8]) -> Result<u64, Fault> {
    let id = key.last_chunk().ok_or_else(unreadable)?;
    Ok(u64::from_be_bytes(*id))
}

/// The owner in the key of one row per owner.
pub(super) fn owner_of(key: &[u8]) -> Result<&str, Fault> {
    text(key.get(1..).unwrap_or_default())
}

/// A row of numbers.
pub(super) fn numbers<const N: usize>(value: &[u8]) -> Result<[u64; N], Fault> {
    let (chunks, []) = value.as_chunks::<8>() else { return Err(unreadable()) };
    let chunks: [[u8; 8]; N] = chunks.try_into().map_err(|_| unreadable())?;
    Ok(chunks.map(u64::from_be_bytes))
}

/// The bytes of a row of numbers.
pub(super) fn of_numbers<const N: usize>(numbers: [u64; N]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

impl Head {
    pub(super) fn read(value: &[u8]) -> Result<Self, Fault> {
        let [last, unread, bytes, stubs] = numbers(value)?;
        Ok(Self { last, unread, bytes, stubs })
    }

    pub(super) fn write(&self) -> Vec<u8> {
        of_numbers([self.last, self.unread, self.bytes, self.stubs])
    }
}

impl<'v> NoteRow<'v> {
    pub(super) fn read(value: &'v [u8]) -> Result<Self, Fault> {
        let (at, rest) = value.split_first_chunk().ok_or_else(unreadable)?;
        let (kind, rest) = rest.split_first_chunk().ok_or_else(unreadable)?;
        let (name, rest) = rest.split_first_chunk().ok_or_else(unreadable)?;
        let (kind, name) = (u32::from_be_bytes(*kind), u32::from_be_bytes(*name));
        let (kind, rest) = rest.split_at_checked(kind as usize).ok_or_else(unreadable)?;
        let (name, payload) = rest.split_at_checked(name as usize).ok_or_else(unreadable)?;
        let (kind, name, payload) = (text(kind)?, text(name)?, text(payload)?);
        Ok(Self { at: u64::from_be_bytes(*at), kind, name, payload })
    }

    pub(super) fn write(&self) -> Vec<u8> {
        let length = |text: &str| u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes();
        let mut value =
            Vec::with_capacity(16 + self.kind.len() + self.name.len() + self.payload.len());
        value.extend_from_slice(&self.at.to_be_bytes());
        value.extend_from_slice(&length(self.kind));
        value.extend_from_slice(&length(self.name));
        for part in [self.kind, self.name, self.payload] {
            value.extend_from_slice(part.as_bytes());
        }
        value
    }

    /// What it counts against its owner's bytes.
    pub(super) fn size(&self) -> u64 {
        (self.kind.len() + self.name.len() + self.payload.len()) as u64
    }
}

/// When a note or a stub was stored.
pub(super) fn at_of(value: &[u8]) -> Result<u64, Fault> {
    let at = value.first_chunk().ok_or_else(unreadable)?;
    Ok(u64::from_be_bytes(*at))
}

/// A stub.
pub(super) fn of_stub(at: u64, name: &str) -> Vec<u8> {
    let mut value = at.to_be_bytes().to_vec();
    value.extend_from_slice(name.as_bytes());
    value
}

/// The name in a stub.
pub(super) fn name_of_stub(value: &[u8]) -> Result<&str, Fault> {
    text(value.get(8..).unwrap_or_default())
}

fn text(bytes: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(bytes).map_err(|_| unreadable())
}

/// What is in the file was not written by this version, or has been damaged.
fn unreadable() -> Fault {
    Fault("the store: a row of it cannot be understood".to_owned())
}
