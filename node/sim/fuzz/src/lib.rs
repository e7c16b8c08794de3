//! A memory bound that all fuzz targets share. See `README.md`.
//!
//! A decoder that believes a length allocates before it reads, so one huge allocation is a finding,
//! whether or not the machine had the memory for it.

use std::alloc::{GlobalAlloc, Layout, System};

/// The largest single allocation of a decoder, in bytes: above every limit that the targets set,
/// below the allocation that a 32-bit length would cause if it were believed.
const ALLOCATION_BYTES_MAX: usize = 64 << 20;

struct Bounded;

#[global_allocator]
static BOUNDED: Bounded = Bounded;

// SAFETY: it passes every call on to `System`, or ends the process.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: the caller's promise is the one that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        check(bytes);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, bytes) }
    }
}

fn check(bytes: usize) {
    if bytes > ALLOCATION_BYTES_MAX {
        // A panic would allocate; libFuzzer reports an abort with its input all the same.
        std::process::abort();
    }
}

/// Makes a binary a fuzz target: every input goes to one function, which panics if a
/// property is broken.
#[macro_export]
macro_rules! target {
    ($promise:path) => {
        libfuzzer_sys::fuzz_target!(|input: &[u8]| $promise(input));
        // The allocator comes with this crate.
        use $crate as _;
    };
}
