//! Sections that are lists: any number of `[[section]]`, each a row with the same keys.
//!
//! A list is given as a whole, by the file or by one `--set`, and taken over as a whole. So all its keys
//! agree on whether a running node takes new values; a test holds them to that. What is the same for
//! every list stands here: a list is one `group!` with an [`About`], and a line in `values` where
//! the lists are named.

use super::group::{Group, Key, Reload};
use super::problem::Place;

/// What there is to say about a list.
#[derive(Clone, Copy, Debug)]
pub(super) struct About {
    /// The section.
    pub(super) name: &'static str,
    /// What an entry is for, line by line.
    pub(super) about: &'static [&'static str],
    /// An entry, line by line.
    pub(super) example: &'static [&'static str],
    /// The keys that every entry must give; each stands in the example.
    pub(super) required: &'static [&'static str],
    /// The key whose value no two entries may share.
    pub(super) unique: Option<&'static str>,
}

impl About {
    /// What to say of an entry without a required key.
    pub(super) fn missing(&self, key: &str) -> String {
        let article = if key.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
        let line = self.example.iter().find(|line| line.starts_with(&format!("{key} = ")));
        format!("[[{}]]: expected {article} {key}, as {}", self.name, line.unwrap_or(&key))
    }

    /// How the list is given on the command line.
    pub(super) fn set(&self) -> String {
        format!("--set '{}=[{{{}}}]'", self.name, self.example.join(", "))
    }
}

/// A struct of the table that an entry of a list is read into.
pub(super) trait Row: Group + Default + 'static {
    /// What there is to say about the list.
    const ABOUT: About;

    /// The rule that the entry breaks, as a text that names the keys.
    fn broken(&self) -> Option<String> {
        None
    }
}

/// A list of the table, handled without knowing its rows.
pub(super) trait List {
    fn about(&self) -> &'static About;

    /// The keys of an entry.
    fn keys(&self) -> Vec<Key>;

    /// The entries, in order.
    fn entries(&self) -> Vec<&dyn Group>;

    /// Removes all entries.
    fn clear(&mut self);

    /// Adds an entry of defaults.
    fn add(&mut self);

    /// The entry added last.
    ///
    /// # Panics
    /// When the list is empty.
    fn last(&mut self) -> &mut dyn Group;

    /// The rule that the entry added last breaks.
    fn broken(&self) -> Option<String>;
}

impl<T: Row> List for Vec<T> {
    fn about(&self) -> &'static About {
        &T::ABOUT
    }

    fn keys(&self) -> Vec<Key> {
        T::default().keys()
    }

    fn entries(&self) -> Vec<&dyn Group> {
        self.iter().map(|row| row as &dyn Group).collect()
    }

    fn clear(&mut self) {
        Self::clear(self);
    }

    fn add(&mut self) {
        self.push(T::default());
    }

    fn last(&mut self) -> &mut dyn Group {
        let last = self.len() - 1;
        &mut self[last]
    }

    fn broken(&self) -> Option<String> {
        self.as_slice().last().and_then(Row::broken)
    }
}

/// True when a running node takes the list over.
pub(super) fn is_live(list: &dyn List) -> bool {
    list.keys().iter().all(|key| key.reload == Reload::Live)
}

/// True when both lists say the same.
pub(super) fn same(one: &dyn List, other: &dyn List) -> bool {
    values(one) == values(other)
}

/// Makes `list` say what `new` says, which was accepted before.
pub(super) fn take_over(list: &mut dyn List, new: &dyn List) {
    list.clear();
    for entry in new.entries() {
        list.add();
        let row = list.last();
        for key in entry.keys() {
            let Some(value) = entry.get(key.name) else { continue };
            let taken = row.set(key.name, &value);
            assert_eq!(taken, Some(true), "{} was accepted before", key.path());
        }
    }
}

fn values(list: &dyn List) -> Vec<Vec<Option<super::kind::Value>>> {
    let values = |entry: &&dyn Group| entry.keys().iter().map(|key| entry.get(key.name)).collect();
    list.entries().iter().map(values).collect()
}

/// The entry before the last that has the last one's value for the list's unique key: that key, its
/// value, and the place of the earlier entry, of those given.
pub(super) fn twin(list: &dyn List, places: &[Place]) -> Option<(&'static str, String, Place)> {
    let key = list.about().unique?;
    let entries = list.entries();
    let (last, before) = entries.split_last()?;
    let value = last.get(key)?;
    let at = before.iter().position(|entry| entry.get(key).as_ref() == Some(&value))?;
    Some((key, value.to_string(), places.get(at)?.clone()))
}
