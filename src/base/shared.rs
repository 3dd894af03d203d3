//! Bytes to write, shared by every queue that holds them.
//!
//! A publication is encoded once; its bytes are an [`Arc`] that all shards share. Within a shard each
//! queue holds a [`Shared`]: one pointer, counted without atomics, so a fan-out to many members of one
//! shard never contends with another shard for the count. Beside the bytes stands a [`Mark`], which
//! says what may be done to them when their reader is slow.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::sync::Arc;

use crate::base::account::Account;

/// What happens to a publication whose receiver's queue is over its high water mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Overflow {
    /// The new publication is dropped.
    DropNew,
    /// The oldest queued publications of such rooms are dropped to make space for it.
    #[default]
    DropOldest,
    /// It replaces the queued publication of the same room and key; without one it is treated as
    /// [`Overflow::DropOldest`].
    Conflate,
    /// The room says nothing more to it until its queue has drained, and then all it has missed, from the room's history.
    /// Where that is none of a room's, as [`Overflow::DropNew`].
    Pause,
    /// The connection is closed as a slow consumer.
    Disconnect,
}

/// What a queue may do with the bytes, and whom to name when it drops them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The room the publication was made in.
    pub room: Arc<str>,
    /// The room's policy.
    pub overflow: Overflow,
    /// The publication's conflation key, hashed; publications of one room without a key share 0.
    pub key: u64,
}

/// Which publication bytes are of, where somebody remembers what becomes of it. Says nothing by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// The room's name, hashed; zero: nobody is to remember it.
    pub room: u64,
    /// Its number in the room. Of several publications, that of the first: the others' follow.
    pub offset: u64,
}

impl Trace {
    /// True when somebody is to remember it.
    #[must_use]
    pub fn is_some(self) -> bool {
        self.room != 0
    }

    /// True when one of `frames` publications from this one on is that one.
    #[must_use]
    pub fn covers(self, frames: u32, other: Self) -> bool {
        let behind = other.offset.checked_sub(self.offset);
        self.room == other.room && behind.is_some_and(|behind| behind < u64::from(frames))
    }
}

/// Bytes that belong to one shard, or to all of them.
#[derive(Debug)]
enum Bytes {
    /// A reply's: as they were written, without another copy.
    Own(Vec<u8>),
    /// A publication's.
    Common(Arc<[u8]>),
    /// The same from that byte on.
    Tail(Arc<[u8]>, usize),
    /// What one reader alone has in front, and what it shares with others.
    Led(Shared, Shared),
}

#[derive(Debug)]
struct Inner {
    bytes: Bytes,
    mark: Option<Mark>,
    /// None for what only stands in front of others.
    frames: u32,
    trace: Trace,
    /// The namespace that the bytes count for once they are charged.
    space: Option<Account>,
    /// Who counts the bytes: from the first charge on, until nobody refers to them any more.
    charge: OnceCell<Charge>,
}

/// On whose account bytes are held.
#[derive(Debug)]
struct Charge {
    shard: Gauge,
    /// Whose connection queued them first, if it was a tenant's.
    tenant: Option<Account>,
}

impl Inner {
    fn new(bytes: Bytes, mark: Option<Mark>, frames: u32) -> Self {
        let trace = Trace::default();
        Self { bytes, mark, frames, trace, space: None, charge: OnceCell::new() }
    }

    /// What these bytes cost, with what stands around them.
    fn cost(&self) -> u64 {
        let bytes = match &self.bytes {
            Bytes::Own(bytes) => bytes.capacity(),
            Bytes::Common(bytes) | Bytes::Tail(bytes, _) => bytes.len(),
            // Each of the two counts itself.
            Bytes::Led(..) => 0,
        };
        (bytes + size_of::<Self>() + 2 * size_of::<usize>()) as u64
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(charge) = self.charge.get() {
            let cost = self.cost();
            charge.shard.0.set(charge.shard.0.get() - cost);
            let accounts = [&charge.tenant, &self.space];
            accounts.into_iter().flatten().for_each(|account| account.subtract(cost));
        }
    }
}

/// How many bytes a shard holds: those charged to it that somebody still refers to.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Rc<Cell<u64>>);

impl Gauge {
    /// The bytes at this time.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.get()
    }
}

/// Immutable bytes with a mark, counted per shard. Cloning copies one pointer.
#[derive(Clone, Debug)]
pub struct Shared(Rc<Inner>);

impl Shared {
    /// Bytes that no queue may drop: replies and control frames.
    pub fn kept(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Rc::new(Inner::new(Bytes::Own(bytes.into()), None, 1)))
    }

    /// Bytes that no queue may drop and that all shards send, such as a page.
    #[must_use]
    pub fn common(bytes: Arc<[u8]>) -> Self {
        Self(Rc::new(Inner::new(Bytes::Common(bytes), None, 1)))
    }

    /// Bytes of a publication.
    pub fn marked(bytes: impl Into<Arc<[u8]>>, mark: Mark) -> Self {
        Self(Rc::new(Inner::new(Bytes::Common(bytes.into()), Some(mark), 1)))
    }

    /// Bytes of a publication from that one on.
    ///
    /// # Panics
    /// When there are fewer.
    #[must_use]
    pub fn tail(bytes: Arc<[u8]>, from: usize, mark: Option<Mark>) -> Self {
        assert!(from <= bytes.len(), "the end of something shorter");
        Self(Rc::new(Inner::new(Bytes::Tail(bytes, from), mark, 1)))
    }

    /// The same publication with something in front that is for one reader alone. A queue takes or drops both
    /// together, and a write has them one behind the other.
    #[must_use]
    pub fn led(lead: impl Into<Vec<u8>>, rest: &Self) -> Self {
        let lead = Self(Rc::new(Inner::new(Bytes::Own(lead.into()), None, 0)));
        let inner = &rest.0;
        let both = Inner::new(Bytes::Led(lead, rest.clone()), inner.mark.clone(), inner.frames);
        Self(Rc::new(both)).traced(inner.trace)
    }

    /// What it consists of: one piece, or what [`Self::led`] put together.
    #[must_use]
    pub fn pieces(self) -> (Option<Self>, Self) {
        match &self.0.bytes {
            Bytes::Led(lead, rest) => (Some(lead.clone()), rest.clone()),
            _ => (None, self),
        }
    }

    /// This one behind what stands in front of `other`, if anything does.
    #[must_use]
    pub fn behind(self, other: Option<&Self>) -> Self {
        match (&self.0.bytes, other.map(|other| &other.0.bytes)) {
            (Bytes::Led(_, rest), Some(Bytes::Led(lead, _))) => Self::led(lead.bytes(), rest),
            _ => self,
        }
    }

    /// Bytes of several publications of one room, which a queue takes or drops together.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn bundle(bytes: Vec<u8>, frames: u32, mark: Mark) -> Self {
        assert!(frames > 0, "a bundle of nothing");
        Self(Rc::new(Inner::new(Bytes::Own(bytes), Some(mark), frames)))
    }

    /// The same, of that publication. To be called before anybody else refers to the bytes; later it does nothing.
    #[must_use]
    pub fn traced(mut self, trace: Trace) -> Self {
        if let Some(inner) = Rc::get_mut(&mut self.0) {
            inner.trace = trace;
        }
        self
    }

    /// Which publication, or which first one of several, the bytes are of.
    #[must_use]
    pub fn trace(&self) -> Trace {
        self.0.trace
    }

    /// The same, counted for that namespace once they are charged. To be called before anybody else refers to
    /// the bytes; later it does nothing.
    #[must_use]
    pub fn counted_for(mut self, space: Option<&Account>) -> Self {
        if let Some(inner) = Rc::get_mut(&mut self.0).filter(|inner| inner.charge.get().is_none()) {
            inner.space = space.cloned();
        }
        self
    }

    /// Charges the bytes to a shard, and to the tenant whose connection queues them. They count once, for
    /// whom they are charged first, however often they are charged and referred to.
    pub fn charge<'a>(&self, shard: &Gauge, tenant: impl FnOnce() -> Option<&'a Account>) {
        if self.0.charge.get().is_some() {
            return;
        }
        self.charge_to(shard, tenant());
    }

    fn charge_to(&self, shard: &Gauge, tenant: Option<&Account>) {
        if self.0.charge.get().is_some() {
            return;
        }
        if let Bytes::Led(lead, rest) = &self.0.bytes {
            lead.charge_to(shard, tenant);
            rest.charge_to(shard, tenant);
        }
        let charge = Charge { shard: shard.clone(), tenant: tenant.cloned() };
        let cost = self.0.cost();
        shard.0.set(shard.0.get() + cost);
        let accounts = [&charge.tenant, &self.0.space];
        accounts.into_iter().flatten().for_each(|account| account.add(cost));
        // It was empty a moment ago, and nobody else has this shard's bytes.
        let _ = self.0.charge.set(charge);
    }

    /// What the bytes cost, with what stands around them.
    #[must_use]
    pub fn cost(&self) -> u64 {
        self.0.cost()
    }

    /// How many frames the bytes are.
    #[must_use]
    pub fn frames(&self) -> u32 {
        self.0.frames
    }

    /// The bytes; of what has [`Self::pieces`], those of the last.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match &self.0.bytes {
            Bytes::Own(bytes) => bytes,
            Bytes::Common(bytes) => bytes,
            Bytes::Tail(bytes, from) => &bytes[*from..],
            Bytes::Led(_, rest) => rest.bytes(),
        }
    }

    /// How many bytes all of it is.
    #[must_use]
    pub fn size(&self) -> usize {
        match &self.0.bytes {
            Bytes::Led(lead, rest) => lead.size() + rest.size(),
            _ => self.bytes().len(),
        }
    }

    /// The mark; `None` for what must not be dropped.
    #[must_use]
    pub fn mark(&self) -> Option<&Mark> {
        self.0.mark.as_ref()
    }

    /// True when both are the same buffer, not merely equal bytes.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_once_until_the_last_reference_has_gone() {
        let gauge = Gauge::default();
        let item = Shared::kept(vec![7; 1000]);
        assert_eq!(gauge.bytes(), 0);
        item.charge(&gauge, || None);
        let others = vec![item.clone(); 50];
        others.iter().for_each(|other| other.charge(&gauge, || None));
        assert!((1000..1200).contains(&gauge.bytes()), "{}", gauge.bytes());
        drop(item);
        assert!(gauge.bytes() >= 1000);
        drop(others);
        assert_eq!(gauge.bytes(), 0);
    }

    #[test]
    fn what_many_have_something_in_front_of_counts_once() {
        let gauge = Gauge::default();
        let rest = Shared::tail(Arc::from(vec![7; 100_000]), 10, None);
        let led: Vec<Shared> = (0..50).map(|number: u8| Shared::led([number], &rest)).collect();
        led.iter().for_each(|item| item.charge(&gauge, || None));
        assert!((100_000..120_000).contains(&gauge.bytes()), "{}", gauge.bytes());
        let item = led[3].clone();
        assert_eq!((item.size(), item.frames()), (99_991, 1));
        let other = Shared::led([9, 9], &Shared::kept([1, 2]));
        let moved = other.behind(Some(&item));
        assert_eq!((moved.size(), moved.bytes()), (3, &[1, 2][..]));
        let (lead, end) = item.pieces();
        assert_eq!(lead.map(|lead| (lead.bytes().to_vec(), lead.frames())), Some((vec![3], 0)));
        assert!(end.same(&rest));
        drop((led, rest, end));
        assert_eq!(gauge.bytes(), 0);
    }
}
