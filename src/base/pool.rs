//! Values by number, in chunks.
//!
//! There may be a million of each kind. A vector that doubles holds twice what it needs just after it has grown,
//! copies itself in the turn in which it grows, and leaves with the allocator what it was before. Here places come
//! in chunks of 128 that never move: growing takes one more chunk, whose memory is not touched before a value is
//! put there. A value keeps its number until it is taken out. The first chunk alone grows by doubling, as many pools hold
//! a few values and no more.
//!
//! The lowest chunk with a free place is used first, so that what comes after a crowd has gone gathers at the low
//! end. The memory of a chunk goes back with its last value, wherever it stands; one that is small is kept, so that a
//! value that comes and goes allocates nothing. A walk over numbers ends at [`Pool::end`].

use std::ops::{Index, IndexMut};

/// Values, each with a number below 2^32 - 1.
#[derive(Debug)]
pub struct Pool<T> {
    chunks: Vec<Chunk<T>>,
    /// A bit for each chunk, set exactly while a value could be put there.
    open: Vec<u64>,
    len: usize,
    /// The chunk without values that keeps its memory; none of more than [`KEPT_BYTES`] does.
    kept: Option<usize>,
}

#[derive(Debug)]
struct Chunk<T> {
    /// At most [`CHUNK`]; without memory before the first value and after the last, unless it is kept.
    places: Vec<Place<T>>,
    /// The first free one among `places`; [`NONE`] without one.
    free: u32,
    /// Values among them.
    live: usize,
}

#[derive(Debug)]
enum Place<T> {
    Taken(T),
    /// The next free place of the chunk.
    Free(u32),
}

/// Places of a chunk.
pub const CHUNK: usize = 128;

/// Stands for no number.
pub const NONE: u32 = u32::MAX;

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), open: Vec::new(), len: 0, kept: None }
    }
}

impl<T> Chunk<T> {
    fn put(&mut self, value: T) -> usize {
        self.live += 1;
        let at = self.free as usize;
        if let Some(place) = self.places.get_mut(at)
            && let Place::Free(next) = *place
        {
            self.free = next;
            *place = Place::Taken(value);
            return at;
        }
        self.places.push(Place::Taken(value));
        self.places.len() - 1
    }

    fn take(&mut self, at: usize) -> Option<T> {
        let place = self.places.get_mut(at)?;
        if matches!(place, Place::Free(_)) {
            return None;
        }
        let Place::Taken(value) = std::mem::replace(place, Place::Free(self.free)) else {
            return None;
        };
        self.free = index(at);
        self.live -= 1;
        Some(value)
    }

    fn clear(&mut self) {
        self.places.clear();
        self.free = NONE;
    }
}

impl<T> Pool<T> {
    /// Bytes of a place.
    pub const PLACE: usize = size_of::<Place<T>>();

    /// Puts a value in and gives its number.
    ///
    /// # Panics
    /// When there are 2^32 - 1 values.
    pub fn insert(&mut self, value: T) -> u32 {
        let number = self.open_chunk();
        let chunk = &mut self.chunks[number];
        if number > 0 && chunk.places.capacity() == 0 {
            chunk.places.reserve_exact(CHUNK);
        }
        let at = chunk.put(value);
        if chunk.live == CHUNK {
            self.set_open(number, false);
        }
        if self.kept == Some(number) {
            self.kept = None;
        }
        self.len += 1;
        index(number * CHUNK + at)
    }

    /// Takes a value out.
    ///
    /// # Panics
    /// When there is none of that number.
    pub fn remove(&mut self, key: u32) -> T {
        let (number, at) = place_of(key);
        let value = self.chunks.get_mut(number).and_then(|chunk| chunk.take(at));
        assert!(value.is_some(), "nothing has the number {key}");
        self.len -= 1;
        self.set_open(number, true);
        if self.chunks[number].live == 0 {
            self.vacate(number);
        }
        value.unwrap_or_else(|| unreachable!("asserted above"))
    }

    /// The value of that number.
    #[must_use]
    pub fn get(&self, key: u32) -> Option<&T> {
        let (number, at) = place_of(key);
        match self.chunks.get(number)?.places.get(at)? {
            Place::Taken(value) => Some(value),
            Place::Free(_) => None,
        }
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, key: u32) -> Option<&mut T> {
        let (number, at) = place_of(key);
        match self.chunks.get_mut(number)?.places.get_mut(at)? {
            Place::Taken(value) => Some(value),
            Place::Free(_) => None,
        }
    }

    /// The values with their numbers, in the order of these.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.chunks.iter().enumerate().flat_map(|(number, chunk)| {
            chunk.places.iter().enumerate().filter_map(move |(at, place)| match place {
                Place::Taken(value) => Some((index(number * CHUNK + at), value)),
                Place::Free(_) => None,
            })
        })
    }

    /// One more than the highest number in use. Looks at the places of one chunk.
    #[must_use]
    pub fn end(&self) -> u32 {
        let is_taken = |place: &Place<T>| matches!(place, Place::Taken(_));
        let last = self.chunks.iter().enumerate().rev().find(|(_, chunk)| chunk.live > 0);
        last.and_then(|(number, chunk)| {
            let at = chunk.places.iter().rposition(is_taken)?;
            Some(index(number * CHUNK + at + 1))
        })
        .unwrap_or(0)
    }

    /// Values.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True without values.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Values for which memory is held. Looks at every chunk.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.places.capacity()).sum()
    }

    /// Verifies counts, lists of free places and the map of chunks.
    ///
    /// # Panics
    /// When an invariant does not hold.
    pub fn check(&self) {
        let mut len = 0;
        for (number, chunk) in self.chunks.iter().enumerate() {
            let taken = chunk.places.iter().filter(|place| matches!(place, Place::Taken(_)));
            assert_eq!(taken.count(), chunk.live, "values of chunk {number}");
            let mut free = 0;
            let mut next = chunk.free;
            while let Some(Place::Free(behind)) = chunk.places.get(next as usize) {
                (next, free) = (*behind, free + 1);
            }
            assert_eq!(next, NONE, "the list of free places ends");
            assert_eq!(free + chunk.live, chunk.places.len(), "free places of chunk {number}");
            let is_open = self.open[number / BITS] >> (number % BITS) & 1 == 1;
            assert_eq!(is_open, chunk.live < CHUNK, "chunk {number} in the map");
            let has_memory = chunk.places.capacity() > 0;
            assert_eq!(has_memory, chunk.live > 0 || self.kept == Some(number), "its memory");
            len += chunk.live;
        }
        assert_eq!(len, self.len, "values");
        let open: u32 = self.open.iter().map(|word| word.count_ones()).sum();
        let known = self.chunks.iter().filter(|chunk| chunk.live < CHUNK).count();
        assert_eq!(open as usize, known, "chunks in the map");
    }

    /// The lowest chunk with a free place.
    fn open_chunk(&mut self) -> usize {
        let found = self.open.iter().enumerate().find(|(_, word)| **word != 0);
        if let Some((at, word)) = found {
            return at * BITS + word.trailing_zeros() as usize;
        }
        let number = self.chunks.len();
        self.chunks.push(Chunk { places: Vec::new(), free: NONE, live: 0 });
        if number / BITS >= self.open.len() {
            self.open.push(0);
        }
        self.set_open(number, true);
        number
    }

    fn set_open(&mut self, number: usize, is_open: bool) {
        let (word, bit) = (&mut self.open[number / BITS], 1 << (number % BITS));
        if is_open {
            *word |= bit;
        } else {
            *word &= !bit;
        }
    }

    /// The last value of a chunk has gone. Of two that are empty the lower one keeps its memory.
    fn vacate(&mut self, number: usize) {
        self.chunks[number].clear();
        let kept = self.kept.map_or(number, |kept| kept.min(number));
        let other = self.kept.map(|before| before.max(number));
        self.kept = (CHUNK * Self::PLACE <= KEPT_BYTES).then_some(kept);
        let freed = if self.kept.is_some() { other } else { Some(number) };
        if let Some(freed) = freed {
            self.chunks[freed].places = Vec::new();
        }
        let least = self.kept.map_or(0, |kept| kept + 1);
        while self.chunks.len() > least && self.chunks.last().is_some_and(|last| last.live == 0) {
            self.chunks.pop();
            self.set_open(self.chunks.len(), false);
        }
        self.open.truncate(self.chunks.len().div_ceil(BITS));
        if is_sparse(self.chunks.len(), self.chunks.capacity()) {
            self.chunks.shrink_to(self.chunks.len() * 2);
        }
    }
}

impl<T> Index<u32> for Pool<T> {
    type Output = T;

    fn index(&self, key: u32) -> &T {
        let value = self.get(key);
        value.unwrap_or_else(|| panic!("nothing has the number {key}"))
    }
}

impl<T> IndexMut<u32> for Pool<T> {
    fn index_mut(&mut self, key: u32) -> &mut T {
        let value = self.get_mut(key);
        value.unwrap_or_else(|| panic!("nothing has the number {key}"))
    }
}

/// Chunk and place of a number.
fn place_of(key: u32) -> (usize, usize) {
    (key as usize / CHUNK, key as usize % CHUNK)
}

/// True when memory for `capacity` things is worth giving back, as only `len` are left.
#[must_use]
pub fn is_sparse(len: usize, capacity: usize) -> bool {
    capacity > KEPT && len < capacity / 8
}

/// A place as a number.
///
/// # Panics
/// When there is no number so high.
#[must_use]
pub fn index(at: usize) -> u32 {
    let index = u32::try_from(at).unwrap_or(NONE);
    assert!(index < NONE, "a shard holds fewer than 2^32 of anything");
    index
}

/// Capacity up to which nothing is given back: it would be asked for again at once.
const KEPT: usize = 256;

/// Memory up to which an empty chunk may keep it.
const KEPT_BYTES: usize = 8192;

/// Chunks in a word of the map.
const BITS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u16),
        /// Takes out those whose place in the order of numbers is in this part, of a thousand.
        Remove(usize, usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0..700u16).prop_map(Step::Insert),
            (0..1000usize, 1..400usize).prop_map(|(from, many)| Step::Remove(from, many)),
        ];
        prop::collection::vec(step, 1..30)
    }

    proptest! {
        /// The twin is a map from number to value.
        #[test]
        fn a_pool_equals_a_map_of_numbers(steps in steps()) {
            let mut pool = Pool::default();
            let mut twin = BTreeMap::new();
            let mut next = 0u64;
            for step in steps {
                match step {
                    Step::Insert(many) => for _ in 0..many {
                        let key = pool.insert(Box::new(next));
                        prop_assert!(twin.insert(key, next).is_none(), "{} twice", key);
                        next += 1;
                    },
                    Step::Remove(from, many) => {
                        let from = twin.len() * from / 1000;
                        let keys: Vec<u32> = twin.keys().skip(from).take(many).copied().collect();
                        for key in keys {
                            prop_assert_eq!(Some(*pool.remove(key)), twin.remove(&key));
                            prop_assert!(pool.get(key).is_none());
                        }
                    }
                }
                pool.check();
                prop_assert_eq!(pool.len(), twin.len());
                prop_assert!(pool.iter().map(|(key, value)| (key, **value)).eq(twin.clone()));
                prop_assert_eq!(pool.end(), twin.keys().last().map_or(0, |key| key + 1));
                if let Some((key, value)) = twin.iter().next_back() {
                    prop_assert_eq!(&*pool[*key], value);
                    *pool[*key] = *value;
                }
            }
        }
    }

    #[test]
    fn memory_goes_back_with_the_last_value_of_a_chunk_wherever_it_stands() {
        let mut pool = Pool::default();
        for value in 0..10 * index(CHUNK) {
            assert_eq!(pool.insert(value), value);
        }
        assert_eq!(pool.capacity(), 10 * CHUNK, "no more than is used");
        let chunk = index(CHUNK);
        for key in chunk..9 * chunk {
            pool.remove(key);
        }
        assert_eq!(pool.capacity(), 3 * CHUNK, "two in use, and one that is kept");
        assert_eq!(pool.insert(7), chunk, "the lowest place that is free");
        pool.remove(chunk);
        (0..chunk).chain(9 * chunk..10 * chunk).for_each(|key| _ = pool.remove(key));
        assert_eq!((pool.capacity(), pool.end()), (CHUNK, 0));
        pool.check();
        assert_eq!(pool.insert(7), 0, "and all begins anew");
    }

    #[test]
    fn a_large_chunk_keeps_no_memory_without_values() {
        let mut pool = Pool::default();
        for _ in 0..2 {
            let key = pool.insert([7u8; 100]);
            assert!(key == 0 && pool.capacity() < CHUNK, "one alone takes no whole chunk");
            pool.remove(key);
            assert_eq!((pool.capacity(), pool.chunks.len()), (0, 0));
            pool.check();
        }
    }

    #[test]
    #[should_panic(expected = "nothing has the number 3")]
    fn a_value_is_taken_out_once() {
        let mut pool = Pool::default();
        (0..4).for_each(|value| _ = pool.insert(value));
        pool.remove(3);
        pool.remove(3);
    }
}
