//! One direction of a link: bytes under way, in order, within a window.
//!
//! The window stands for the two socket buffers and the wire between them: what is written stays in it
//! until the reader takes it, and a reader that does not read fills it. Each piece becomes readable in
//! the turn it is due; pieces never overtake each other.

use std::collections::VecDeque;

/// Bytes under way in one direction.
#[derive(Debug)]
pub(super) struct Pipe {
    pieces: VecDeque<Piece>,
    /// Bytes in all pieces; at most `window`.
    held: usize,
    window: usize,
    /// The turn in which the latest piece is due; no later one is due before.
    latest: u64,
    /// The turn in which the end may be seen, once all pieces are read.
    end: Option<u64>,
    /// Nothing arrives before this turn.
    stalled_until: u64,
}

#[derive(Debug)]
struct Piece {
    due: u64,
    bytes: Vec<u8>,
    /// Bytes before this place have been read; less than all of them.
    from: usize,
}

impl Pipe {
    pub(super) fn new(window: usize) -> Self {
        Self { pieces: VecDeque::new(), held: 0, window, latest: 0, end: None, stalled_until: 0 }
    }

    /// True once the end was written.
    pub(super) fn is_finished(&self) -> bool {
        self.end.is_some()
    }

    /// Bytes that may still be written.
    pub(super) fn space(&self) -> usize {
        if self.end.is_some() { 0 } else { self.window - self.held }
    }

    /// Writes `bytes`, readable from turn `due` on.
    pub(super) fn push(&mut self, bytes: Vec<u8>, due: u64) {
        assert!(bytes.len() <= self.space(), "{} bytes into {}", bytes.len(), self.space());
        if bytes.is_empty() {
            return;
        }
        self.latest = self.latest.max(due);
        self.held += bytes.len();
        self.pieces.push_back(Piece { due: self.latest, bytes, from: 0 });
    }

    /// Writes the end, seen from turn `due` on; no effect after the first.
    pub(super) fn finish(&mut self, due: u64) {
        self.end.get_or_insert(self.latest.max(due));
    }

    /// Keeps everything from arriving before turn `until`.
    pub(super) fn stall(&mut self, until: u64) {
        self.stalled_until = self.stalled_until.max(until);
    }

    /// True when there is something to read in turn `now`.
    pub(super) fn is_readable(&self, now: u64) -> bool {
        now >= self.stalled_until && self.pieces.front().is_some_and(|piece| piece.due <= now)
    }

    /// True when everything was read and the end is to be seen in turn `now`.
    pub(super) fn is_ended(&self, now: u64) -> bool {
        now >= self.stalled_until
            && self.pieces.is_empty()
            && self.end.is_some_and(|due| due <= now)
    }

    /// True when bytes are in it, readable or not.
    pub(super) fn holds_bytes(&self) -> bool {
        self.held > 0
    }

    /// Reads at most `most` bytes that have arrived by turn `now`.
    pub(super) fn take(&mut self, now: u64, most: usize) -> Vec<u8> {
        let mut taken = Vec::new();
        while taken.len() < most && self.is_readable(now) {
            let Some(piece) = self.pieces.front_mut() else { break };
            let end = piece.bytes.len().min(piece.from + most - taken.len());
            taken.extend_from_slice(&piece.bytes[piece.from..end]);
            piece.from = end;
            if end == piece.bytes.len() {
                self.pieces.pop_front();
            }
        }
        self.held -= taken.len();
        taken
    }

    /// Drops what has not arrived by turn `now`, as a reset does; what has arrived stays readable.
    pub(super) fn cut(&mut self, now: u64) {
        let arrived = if now < self.stalled_until {
            0
        } else {
            self.pieces.iter().take_while(|piece| piece.due <= now).count()
        };
        self.pieces.truncate(arrived);
        self.held = self.pieces.iter().map(|piece| piece.bytes.len() - piece.from).sum();
        self.end = None;
    }

    /// Drops all bytes.
    pub(super) fn clear(&mut self) {
        self.pieces = VecDeque::new();
        self.held = 0;
    }
}
