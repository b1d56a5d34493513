//! Huge pages for what a key is derived in.
//!
//! scrypt walks at random through 32 MiB or more of memory that it has just got. In pages of 4 KiB that is eight thousand
//! faults, and then a miss of the processor's address cache with nearly every step; in huge ones it takes a quarter less
//! time. Where the system gives them only to those who ask (`/sys/kernel/mm/transparent_hugepage/enabled` is `madvise`),
//! somebody has to, and the derivation itself is another crate's.
#![allow(
    unsafe_code,
    reason = "an allocator can't be written without; this one hands all of it on to the system's"
)]

use std::alloc::{GlobalAlloc, Layout, System};

use rustix::mm::Advice;

/// Less than this is not worth the advice. glibc maps this much by itself, whatever was freed before.
const LEAST: usize = 32 << 20;
const PAGE: usize = 2 << 20;

/// The system's allocator, which asks the kernel for huge pages where much memory that reads as zero is wanted.
///
/// A library doesn't choose the allocator, so a program does that derives keys:
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: reseed_backend_restic::HugePages = reseed_backend_restic::HugePages;
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct HugePages;

// SAFETY: every call is handed on to `System` as it came, and what it answers is answered.
unsafe impl GlobalAlloc for HugePages {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those that `System` wants.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let start = unsafe { System.alloc_zeroed(layout) };
        if layout.size() >= LEAST && !start.is_null() {
            advise(start, layout.size());
        }
        start
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        unsafe { System.realloc(start, layout, size) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(start, layout) }
    }
}

/// Asks for huge pages where whole ones fit. Whether the kernel gives any changes nothing but time.
fn advise(start: *mut u8, size: usize) {
    let before = start.align_offset(PAGE);
    let whole = size.saturating_sub(before) / PAGE * PAGE;
    if whole > 0 {
        // SAFETY: the range is within what was just allocated, and this advice changes no byte of it.
        let _ =
            unsafe { rustix::mm::madvise(start.wrapping_add(before).cast(), whole, Advice::LinuxHugepage) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_large_reads_as_zero_and_can_be_written_to_its_last_byte() {
        for size in [LEAST - 1, LEAST, LEAST + 12_345] {
            let layout = Layout::from_size_align(size, 64).unwrap();
            // SAFETY: it is used within its size, and freed once with the same layout.
            unsafe {
                let start = HugePages.alloc_zeroed(layout);
                assert!(!start.is_null());
                let all = std::slice::from_raw_parts_mut(start, size);
                assert!(all.iter().all(|byte| *byte == 0));
                all.fill(7);
                let start = HugePages.realloc(start, layout, 2 * size);
                assert_eq!((*start, *start.add(size - 1)), (7, 7));
                HugePages.dealloc(start, Layout::from_size_align(2 * size, 64).unwrap());
            }
        }
    }
}
