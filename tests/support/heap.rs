//! What a test takes of the heap.

use std::alloc::{GlobalAlloc, Layout as Memory, System};
use std::cell::Cell;

/// Counts each thread's heap, so that a test sees its own.
struct Counting;

thread_local! {
    static NOW: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is handed to the system's allocator; the counters do not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, memory: Memory) -> *mut u8 {
        let now = NOW.get() + memory.size();
        NOW.set(now);
        PEAK.set(PEAK.get().max(now));
        unsafe { System.alloc(memory) }
    }
    unsafe fn dealloc(&self, at: *mut u8, memory: Memory) {
        NOW.set(NOW.get().saturating_sub(memory.size()));
        unsafe { System.dealloc(at, memory) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Bytes that this thread holds; begins a new peak.
pub fn heap() -> usize {
    PEAK.set(NOW.get());
    NOW.get()
}

/// Most bytes since [`heap`].
pub fn heap_peak() -> usize {
    PEAK.get()
}
