//! A store in the process: bounded, fast, and gone with it.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::ask::{Ask, Fault, Limits, Outcome};
use super::table::{self, Store, Table};

/// Keeps everything in memory, within a bound.
#[derive(Debug)]
pub struct Memory {
    limits: Limits,
    rows: Rows,
}

#[derive(Debug)]
struct Rows {
    map: BTreeMap<Box<[u8]>, Box<[u8]>>,
    /// What the rows cost, about.
    bytes: u64,
    most: u64,
}

/// What a row costs beside its bytes: two pointers with lengths, and its share of the tree.
const ROW: u64 = 64;

impl Memory {
    /// An empty store that holds `most` bytes, rows and all.
    #[must_use]
    pub fn new(limits: Limits, most: u64) -> Self {
        Self { limits, rows: Rows { map: BTreeMap::new(), bytes: 0, most } }
    }

    /// What the rows cost, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.rows.bytes
    }
}

impl Store for Memory {
    fn commit(&mut self, asks: &[Ask], now: u64) -> Result<Vec<Outcome>, Fault> {
        // Nothing here fails half-way: memory has no faults to report, and what is refused has changed nothing.
        asks.iter().map(|ask| table::answer(&mut self.rows, ask, &self.limits, now)).collect()
    }
}

fn cost(key: &[u8], value: &[u8]) -> u64 {
    (key.len() + value.len()) as u64 + ROW
}

impl Table for Rows {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        Ok(self.map.get(key).map(|value| value.to_vec()))
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        self.remove(key)?;
        self.bytes += cost(key, value);
        self.map.insert(key.into(), value.into());
        Ok(())
    }

    fn remove(&mut self, key: &[u8]) -> Result<(), Fault> {
        if let Some(value) = self.map.remove(key) {
            self.bytes -= cost(key, &value);
        }
        Ok(())
    }

    fn scan(
        &self,
        from: &[u8],
        below: &[u8],
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), Fault> {
        if from < below {
            let range = (Bound::Included(from), Bound::Excluded(below));
            self.map.range::<[u8], _>(range).all(|(key, value)| each(key, value));
        }
        Ok(())
    }

    fn has_space(&self, bytes: u64) -> bool {
        self.bytes.saturating_add(bytes) <= self.most
    }
}
