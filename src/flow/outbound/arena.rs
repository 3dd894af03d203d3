//! The nodes of all outbound queues of a shard.
//!
//! Nodes come in chunks of 1,024 (16 KiB). A single growing array would copy itself in the turn of
//! the burst that makes it grow, and could never shrink while one stuck reader holds a node near its
//! end; chunks are added without copying and given back one by one. They are given back with delay
//! ([`Arena::relax`]): what the last two periods needed at most is kept, so a steady fan-out that
//! fills and empties the arena every turn allocates nothing.
//!
//! The arena does not know which queue a node belongs to.

use crate::base::shared::Shared;
use crate::base::time::Tick;

/// The index that stands for no node.
pub(super) const NIL: u32 = u32::MAX;

/// A place in a queue. Without an item it is either free or marks the batch in flight.
#[derive(Debug)]
pub(super) struct Node {
    /// What is to be sent.
    pub(super) item: Option<Shared>,
    /// The node behind this one; within its chunk, the next free node of a free one.
    pub(super) next: u32,
    /// When the item was queued.
    pub(super) since: Tick,
}

#[derive(Debug)]
struct Chunk {
    /// [`CHUNK`] nodes, or none after the chunk was given back.
    nodes: Box<[Node]>,
    /// The first free node, counted within the chunk.
    free: u32,
    /// Nodes in use.
    live: u32,
    /// True exactly while the chunk's number stands in [`Arena::open`].
    listed: bool,
}

/// Nodes by index; an index is the chunk's number and the place in the chunk.
#[derive(Debug, Default)]
pub(super) struct Arena {
    chunks: Vec<Chunk>,
    /// Chunks that may have free nodes; the last is used first. Holds every chunk that has one.
    open: Vec<u32>,
    /// Numbers of chunks that were given back.
    holes: Vec<u32>,
    /// Nodes in use.
    live: usize,
    /// Chunks without a node in use that were not given back.
    vacant: usize,
    /// The highest `live` of this period and of the one before it.
    peaks: [usize; 2],
}

impl Arena {
    /// Takes a node into use and returns its index.
    pub(super) fn insert(&mut self, item: Shared, since: Tick) -> u32 {
        let number = self.open_chunk();
        let chunk = &mut self.chunks[number as usize];
        let place = chunk.free;
        let node = &mut chunk.nodes[place as usize];
        chunk.free = node.next;
        self.vacant -= usize::from(chunk.live == 0);
        chunk.live += 1;
        *node = Node { item: Some(item), next: NIL, since };
        self.live += 1;
        self.peaks[0] = self.peaks[0].max(self.live);
        (number << CHUNK_BITS) | place
    }

    /// Frees a node and returns what it held.
    pub(super) fn remove(&mut self, index: u32) -> Option<Shared> {
        let number = index >> CHUNK_BITS;
        let chunk = &mut self.chunks[number as usize];
        let place = index & PLACE;
        let node = &mut chunk.nodes[place as usize];
        let item = node.item.take();
        node.next = chunk.free;
        chunk.free = place;
        chunk.live -= 1;
        self.vacant += usize::from(chunk.live == 0);
        if !chunk.listed {
            chunk.listed = true;
            self.open.push(number);
        }
        self.live -= 1;
        item
    }

    pub(super) fn node(&self, index: u32) -> &Node {
        &self.chunks[(index >> CHUNK_BITS) as usize].nodes[(index & PLACE) as usize]
    }

    pub(super) fn node_mut(&mut self, index: u32) -> &mut Node {
        &mut self.chunks[(index >> CHUNK_BITS) as usize].nodes[(index & PLACE) as usize]
    }

    /// Nodes in use.
    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// Nodes for which memory is held.
    pub(super) fn capacity(&self) -> usize {
        (self.chunks.len() - self.holes.len()) * CHUNK
    }

    /// True while periods have to be ended to give chunks back. One is always kept.
    pub(super) fn has_spare(&self) -> bool {
        self.vacant > 1
    }

    /// Ends a period: gives back some of the chunks that neither it nor the one before it needed.
    pub(super) fn relax(&mut self) {
        let keep = self.peaks[0].max(self.peaks[1]).div_ceil(CHUNK) + 1;
        self.peaks = [self.live, self.peaks[0]];
        let mut spare = (self.capacity() / CHUNK).saturating_sub(keep).min(MAX_RELEASED);
        for (number, chunk) in (0u32..).zip(&mut self.chunks) {
            if spare == 0 {
                break;
            }
            if chunk.live == 0 && !chunk.nodes.is_empty() {
                chunk.nodes = Box::default();
                chunk.free = NIL;
                self.holes.push(number);
                self.vacant -= 1;
                spare -= 1;
            }
        }
    }

    /// A chunk with a free node.
    fn open_chunk(&mut self) -> u32 {
        while let Some(&number) = self.open.last() {
            let chunk = &mut self.chunks[number as usize];
            if chunk.free != NIL {
                return number;
            }
            chunk.listed = false;
            self.open.pop();
        }
        let fresh = Chunk { nodes: fresh_nodes(), free: 0, live: 0, listed: true };
        let number = if let Some(hole) = self.holes.pop() {
            self.chunks[hole as usize] = fresh;
            hole
        } else {
            let number = u32::try_from(self.chunks.len()).unwrap_or(u32::MAX);
            assert!(number < NIL >> CHUNK_BITS, "more than four thousand million queued frames");
            self.chunks.push(fresh);
            number
        };
        self.open.push(number);
        self.vacant += 1;
        number
    }

    /// Verifies that every node is either in use or free, and counted as such.
    pub(super) fn check(&self) {
        let mut live = 0;
        for (number, chunk) in self.chunks.iter().enumerate() {
            let listed = self.open.iter().filter(|n| **n as usize == number).count();
            assert_eq!(listed, usize::from(chunk.listed), "chunk {number} in the open list");
            assert!(chunk.listed || chunk.free == NIL, "chunk {number} is open but not listed");
            let mut free = 0;
            let mut at = chunk.free;
            while at != NIL {
                assert!(chunk.nodes[at as usize].item.is_none(), "a free node holds an item");
                free += 1;
                at = chunk.nodes[at as usize].next;
            }
            assert_eq!(free + chunk.live as usize, chunk.nodes.len(), "chunk {number} leaks nodes");
            live += chunk.live as usize;
        }
        assert_eq!(live, self.live, "nodes in use");
        let vacant = self.chunks.iter().filter(|c| c.live == 0 && !c.nodes.is_empty()).count();
        assert_eq!(vacant, self.vacant, "chunks without a node in use");
    }
}

fn fresh_nodes() -> Box<[Node]> {
    let end = 1u32 << CHUNK_BITS;
    let next = |place: u32| if place + 1 < end { place + 1 } else { NIL };
    (0..end).map(|place| Node { item: None, next: next(place), since: Tick(0) }).collect()
}

const CHUNK_BITS: u32 = 10;
/// Nodes per chunk: 16 KiB, small enough to be allocated within a turn, large enough to be rare.
const CHUNK: usize = 1 << CHUNK_BITS;
const PLACE: u32 = (1 << CHUNK_BITS) - 1;
/// Chunks given back per period, so that giving back a million nodes is no stall.
const MAX_RELEASED: usize = 64;

const _: () = assert!(size_of::<Node>() == 16);
