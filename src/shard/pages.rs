//! Which web page each connection came from.
//!
//! A namespace may be for pages of some origins only, and a page says where it is from once, in the
//! request. So where a namespace has such a rule, the origin and the host of the request are kept: once for
//! all connections that came with the same, and four bytes for each connection. Where none has, nothing is
//! kept. A program says nothing of this kind and is no page; of whoever was there before the first rule
//! it is not known, and whoever is not known is not let in.

use std::sync::Arc;

use slab::Slab;

use crate::auth::OriginRules;
use crate::base::map::{Map, Seed};

/// Not known.
const UNKNOWN: u32 = 0;
/// A program: the request named no origin.
const PROGRAM: u32 = 1;
/// The numbers of entries begin here.
const FIRST: u32 = 2;

/// Bytes of an origin and a host that are kept; longer ones are not known.
const MOST_BYTES: usize = 512;

/// Between the two.
const GAP: char = '\n';

/// Where the connections of a shard came from.
#[derive(Debug)]
pub(super) struct Pages {
    places: Vec<u32>,
    /// Origin and host, and how many connections came with them; never zero.
    entries: Slab<(Arc<str>, u32)>,
    numbers: Map<Arc<str>, u32>,
}

impl Pages {
    pub(super) fn new(seed: &Seed) -> Self {
        Self { places: Vec::new(), entries: Slab::new(), numbers: seed.map() }
    }

    /// Notes what the request of the connection at `index` said.
    pub(super) fn note(&mut self, index: u32, origin: Option<&str>, host: Option<&str>) {
        self.leave(index);
        let number = match origin {
            None => PROGRAM,
            Some(origin) => self.entry(origin, host.unwrap_or_default()),
        };
        let at = index as usize;
        if at >= self.places.len() {
            self.places.resize(at + 1, UNKNOWN);
        }
        self.places[at] = number;
    }

    /// Forgets the connection at `index`.
    pub(super) fn leave(&mut self, index: u32) {
        let Some(place) = self.places.get_mut(index as usize) else { return };
        let Some(key) = std::mem::replace(place, UNKNOWN).checked_sub(FIRST) else { return };
        let Some((_, count)) = self.entries.get_mut(key as usize) else { return };
        *count -= 1;
        if *count == 0 {
            let (name, _) = self.entries.remove(key as usize);
            self.numbers.remove(&name);
            if self.entries.is_empty() {
                (self.places, self.entries) = (self.places_if_any(), Slab::new());
                self.numbers.shrink_to(0);
            }
        }
    }

    /// True when the rules let the page of the connection at `index` in.
    pub(super) fn may(&self, index: u32, rules: &OriginRules) -> bool {
        let number = self.places.get(index as usize).copied().unwrap_or(UNKNOWN);
        let page = number.checked_sub(FIRST).and_then(|key| self.entries.get(key as usize));
        match (number, page) {
            (PROGRAM, _) => rules.check(None, None, false).is_ok(),
            (_, Some((name, _))) => {
                let (origin, host) = name.split_once(GAP).unwrap_or((name, ""));
                rules.check(Some(origin), Some(host), false).is_ok()
            }
            (_, None) => false,
        }
    }

    /// Gives back the places behind the last connection.
    pub(super) fn trim(&mut self, bound: u32) {
        self.places.truncate(bound as usize);
        self.places.shrink_to_fit();
    }

    /// Verifies the counts.
    ///
    /// # Panics
    /// When one is wrong.
    pub(super) fn check(&self) {
        let taken = self.places.iter().filter(|place| **place >= FIRST).count();
        let counted: usize = self.entries.iter().map(|(_, (_, count))| *count as usize).sum();
        assert_eq!(taken, counted, "connections of pages");
        assert_eq!(self.numbers.len(), self.entries.len(), "pages by name");
        assert!(
            self.entries.iter().all(|(_, (_, count))| *count > 0),
            "a page without connections"
        );
    }

    /// The places, or none when nothing is known of anybody.
    fn places_if_any(&mut self) -> Vec<u32> {
        let places = std::mem::take(&mut self.places);
        if places.iter().any(|place| *place != UNKNOWN) { places } else { Vec::new() }
    }

    fn entry(&mut self, origin: &str, host: &str) -> u32 {
        if origin.len() + host.len() > MOST_BYTES {
            return UNKNOWN;
        }
        let name = format!("{origin}{GAP}{host}");
        if let Some(key) = self.numbers.get(name.as_str()) {
            self.entries[*key as usize].1 += 1;
            return *key + FIRST;
        }
        let name: Arc<str> = Arc::from(name);
        // A shard's descriptors end long before 2^32.
        let key = u32::try_from(self.entries.insert((Arc::clone(&name), 1))).unwrap_or(0);
        self.numbers.insert(name, key);
        key + FIRST
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::OriginRule;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn only(rule: &str) -> OriginRules {
        OriginRules {
            allowed: vec![OriginRule::parse(rule).expect("a rule")],
            ..OriginRules::default()
        }
    }

    proptest! {
        /// The twin is a map from connection to origin and host.
        #[test]
        fn pages_equal_a_map_of_origins(
            steps in prop::collection::vec(
                (0..9u32, prop::option::of(0..4u32), 0..2u32, any::<bool>()), 1..80),
        ) {
            let mut pages = Pages::new(&Seed::new(1));
            let mut twin: BTreeMap<u32, Option<(u32, u32)>> = BTreeMap::new();
            let rules: Vec<OriginRules> =
                (0..4).map(|origin| only(&format!("https://o{origin}"))).collect();
            for (index, origin, host, leaves) in steps {
                if leaves {
                    pages.leave(index);
                    twin.remove(&index);
                } else {
                    let (name, at) = (origin.map(|o| format!("https://o{o}")), format!("h{host}"));
                    pages.note(index, name.as_deref(), Some(&at));
                    twin.insert(index, origin.map(|origin| (origin, host)));
                }
                pages.check();
                for index in 0..9 {
                    for (number, rules) in (0..).zip(&rules) {
                        let expected = match twin.get(&index) {
                            None => false,
                            Some(None) => true,
                            Some(Some((origin, _))) => *origin == number,
                        };
                        prop_assert_eq!(pages.may(index, rules), expected);
                    }
                }
            }
            for index in 0..9 {
                pages.leave(index);
            }
            prop_assert_eq!(pages.entries.len() + pages.numbers.len(), 0);
        }
    }

    #[test]
    fn an_origin_too_long_to_be_kept_is_let_in_nowhere() {
        let mut pages = Pages::new(&Seed::new(1));
        pages.note(3, Some(&"x".repeat(MOST_BYTES)), Some("host"));
        assert!(!pages.may(3, &only("*")));
        pages.note(3, Some("https://a"), Some("a"));
        assert!(pages.may(3, &only("self")) && pages.may(3, &only("*")));
        assert!(!pages.may(3, &only("https://b")) && !pages.may(4, &only("*")));
    }
}
