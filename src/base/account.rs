//! Bytes that are held on somebody's account.
//!
//! Beside the total of a shard, what is queued counts for whom it is queued: a tenant, and the rooms of a
//! namespace. Bytes go when the last reference to them does, wherever that happens, so nobody is there to be told
//! of it. An account therefore puts its number on a list that all accounts of its kind share, once until that is
//! read; whoever reads it looks at those that have changed and at no others.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// The numbers of accounts that have changed. What one copy is told, all are.
#[derive(Clone, Debug, Default)]
pub struct Changed(Rc<RefCell<Vec<u32>>>);

impl Changed {
    /// One of the accounts that have changed; its owner says [`Account::read`] next.
    #[must_use]
    pub fn pop(&self) -> Option<u32> {
        self.0.borrow_mut().pop()
    }

    /// How many accounts have changed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.borrow().len()
    }

    /// True when none has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[derive(Debug)]
struct Entry {
    number: u32,
    bytes: Cell<u64>,
    /// True while the number stands on the list.
    is_listed: Cell<bool>,
    changed: Changed,
    /// What is held here is held there too.
    within: Option<Account>,
}

/// One account. Copies are the same account.
#[derive(Clone, Debug)]
pub struct Account(Rc<Entry>);

impl Account {
    /// An account of nothing, with a number of its owner's choice.
    #[must_use]
    pub fn new(number: u32, changed: &Changed) -> Self {
        Self::within(number, changed, None)
    }

    /// The same as a part of another: what it holds that holds too.
    #[must_use]
    pub fn within(number: u32, changed: &Changed, whole: Option<&Self>) -> Self {
        let (bytes, is_listed) = (Cell::new(0), Cell::new(false));
        let (changed, within) = (changed.clone(), whole.cloned());
        Self(Rc::new(Entry { number, bytes, is_listed, changed, within }))
    }

    /// True when nobody else refers to it, so that nothing will ever change it again.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        Rc::strong_count(&self.0) == 1
    }

    /// Lists it as if it had changed.
    pub fn list(&self) {
        if !self.0.is_listed.replace(true) {
            self.0.changed.0.borrow_mut().push(self.0.number);
        }
    }

    /// The bytes at this time.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.bytes.get()
    }

    /// The same, read because the account has changed: it is listed again when it changes again.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.0.is_listed.set(false);
        self.bytes()
    }

    /// So many bytes more.
    pub(super) fn add(&self, bytes: u64) {
        self.set(self.bytes() + bytes);
        if let Some(whole) = &self.0.within {
            whole.add(bytes);
        }
    }

    /// So many bytes less; they were added before.
    pub(super) fn subtract(&self, bytes: u64) {
        self.set(self.bytes() - bytes);
        if let Some(whole) = &self.0.within {
            whole.subtract(bytes);
        }
    }

    fn set(&self, bytes: u64) {
        self.0.bytes.set(bytes);
        self.list();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_changed_is_listed_once_until_it_is_read() {
        let changed = Changed::default();
        let accounts = [4, 9].map(|number| Account::new(number, &changed));
        assert!(changed.is_empty());
        accounts[1].add(70);
        accounts[1].clone().add(30);
        accounts[0].add(1);
        accounts[1].subtract(50);
        assert_eq!(changed.len(), 2);
        assert_eq!([changed.pop(), changed.pop(), changed.pop()], [Some(4), Some(9), None]);
        accounts[1].add(1);
        assert!(changed.is_empty(), "nobody has read it yet");
        assert_eq!((accounts[0].read(), accounts[1].read()), (1, 51));
        accounts[1].subtract(51);
        assert_eq!((changed.pop(), accounts[1].read()), (Some(9), 0));
    }

    #[test]
    fn what_a_part_holds_the_whole_holds_too() {
        let [parts, wholes] = [(); 2].map(|()| Changed::default());
        let whole = Account::new(1, &wholes);
        let part = Account::within(2, &parts, Some(&whole));
        part.add(50);
        whole.add(7);
        part.subtract(20);
        assert_eq!((part.bytes(), whole.bytes()), (30, 37));
        assert_eq!((parts.pop(), wholes.pop()), (Some(2), Some(1)));
        assert!(part.is_alone() && !whole.is_alone());
        drop(part);
        assert!(whole.is_alone());
    }
}
