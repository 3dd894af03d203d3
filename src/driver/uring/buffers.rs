//! The ring of provided buffers: where multishot reads land.
//!
//! The kernel takes a buffer when data arrives, not before, so a thousand buffers serve a million
//! idle connections. A buffer is lent to the handler, and goes back to the kernel's end of the ring
//! when the handler returns. Buffers are mapped, not allocated: pages nobody wrote to cost nothing.
//!
//! Buffers stand a little further apart than their size, so that the first lines of all of them do
//! not fall into the same few cache sets, as they would at distances of a power of two.

#![expect(unsafe_code, reason = "memory shared with the kernel")]

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use super::ring::Ring;

/// The one group of provided buffers of a ring.
pub(super) const GROUP: u16 = 0;

/// Bytes between the end of one buffer and the start of the next.
const STAGGER: usize = 192;

/// Memory from the kernel, zeroed, page-aligned, given back on drop.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

impl Mapping {
    fn new(length: usize) -> io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new private mapping at an address of the kernel's choice overlaps nothing.
        let start =
            unsafe { mmap_anonymous(std::ptr::null_mut(), length, access, MapFlags::PRIVATE)? };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, length })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `new` with this length, and its owner is gone.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// The buffers and the ring that hands them to the kernel.
#[derive(Debug)]
pub(super) struct Buffers {
    ring: Mapping,
    data: Mapping,
    count: u16,
    /// Where the next returned buffer goes; wraps.
    tail: u16,
    bytes: usize,
}

impl Buffers {
    /// Maps `count` buffers (rounded up to a power of two, at most 32,768) of `bytes` each and
    /// registers them. They must outlive the ring's last request that may select one of them.
    ///
    /// # Errors
    /// ENOMEM; EINVAL before Linux 5.19.
    pub(super) fn new(ring: &Ring, count: u16, bytes: u32) -> io::Result<Self> {
        let count = count.clamp(1, 1 << 15).next_power_of_two();
        let bytes = usize::try_from(bytes.max(64)).unwrap_or(usize::MAX);
        let entries = Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let data = Mapping::new(usize::from(count) * (bytes + STAGGER))?;
        let address = entries.start.as_ptr() as u64;
        // SAFETY: the mapping holds `count` entries, is page-aligned, and outlives the ring: the
        // driver drops its ring first, after every request was answered, or leaks both.
        unsafe {
            ring.raw().submitter().register_buf_ring_with_flags(address, count, GROUP, 0)?;
        }
        let mut buffers = Self { ring: entries, data, count, tail: 0, bytes };
        for id in 0..count {
            buffers.give_back(id);
        }
        Ok(buffers)
    }

    fn address(&self, id: u16) -> NonNull<u8> {
        assert!(id < self.count, "the kernel named buffer {id} of {}", self.count);
        // SAFETY: the id is below the count, so the offset lies within the mapping.
        unsafe { self.data.start.add(usize::from(id) * (self.bytes + STAGGER)) }
    }

    /// The first `length` bytes of a buffer that the kernel has filled and not got back.
    pub(super) fn filled(&mut self, id: u16, length: usize) -> &mut [u8] {
        assert!(length <= self.bytes, "the kernel filled {length} of {} bytes", self.bytes);
        // SAFETY: the bytes lie within the mapping and are initialised (mappings start zeroed). The
        // kernel does not touch a buffer between naming it and its return by `give_back`, which
        // cannot be called while this borrow lives.
        unsafe { std::slice::from_raw_parts_mut(self.address(id).as_ptr(), length) }
    }

    /// Returns a buffer to the kernel.
    pub(super) fn give_back(&mut self, id: u16) {
        let address = self.address(id).as_ptr() as u64;
        let first = self.ring.start.as_ptr().cast::<BufRingEntry>();
        let at = usize::from(self.tail & (self.count - 1));
        // SAFETY: `at` is below the count, so the entry lies within the mapping. The kernel reads
        // entries before the tail only, and this one stands at it. Setting the three fields leaves
        // the fourth alone, which in the first entry is the tail.
        unsafe {
            let entry = &mut *first.add(at);
            entry.set_addr(address);
            entry.set_len(u32::try_from(self.bytes).unwrap_or(u32::MAX));
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `first` is the registered ring's first entry, whose tail field is aligned to two
        // bytes and is written by nobody else. Release makes the entry visible before the tail.
        unsafe {
            let tail = BufRingEntry::tail(first).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}
