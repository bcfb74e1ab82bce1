//! Whether the tracker is the program's global allocator. In: a question of the program, or its
//! first use of counts or of a [`Profiler`](crate::Profiler). Out: an answer, a panic or an error.
//! Makes the allocations by which the recorder finds out, so it is not part of the hook.

use std::alloc::{Layout, alloc, dealloc};
use std::hint::black_box;

pub use alloc_dump::record::Installation;

use crate::recorder::{self, TrialThread};

/// Whether the allocations of all code that is linked into this program reach an
/// [`AllocTracker`](crate::AllocTracker): those of the program's own code, and those of the
/// standard library. Returns true for [`Installation::Complete`] only; [`installation`] tells the
/// other two apart.
///
/// Switches nothing on. The first question of a process may allocate two small blocks, which are
/// neither counted nor recorded.
///
/// ```
/// use alloc_tracker::AllocTracker;
///
/// #[global_allocator]
/// static ALLOC: AllocTracker = AllocTracker::system();
///
/// fn main() {
///     assert!(alloc_tracker::is_installed());
/// }
/// ```
pub fn is_installed() -> bool {
    installation() == Installation::Complete
}

/// Returns how much of this program's Rust code has an [`AllocTracker`](crate::AllocTracker) as its
/// global allocator.
///
/// | answer | usual reason | counts | recordings |
/// | --- | --- | --- | --- |
/// | [`Complete`](Installation::Complete) | | exact | exact |
/// | [`Partial`](Installation::Partial) | libstd is linked dynamically (`-C prefer-dynamic`): the program's code reaches the tracker, code inside libstd does not | panic | say that they are not exact |
/// | [`Missing`](Installation::Missing) | the attribute `#[global_allocator]` is missing | panic | do not begin |
///
/// "Counts" are [`measure`](crate::measure), [`Region::new`](crate::Region::new) and
/// [`stats`](crate::stats); recordings begin with
/// [`ProfilerBuilder::start`](crate::ProfilerBuilder::start).
///
/// The answer is about the file that this crate is linked into. A library with a global allocator
/// of its own (a `cdylib`) is not part of the question. A tracker that is no global allocator but
/// serves single collections counts as one from its first block on.
///
/// Without the attribute, as in this example, nothing reaches a tracker:
///
/// ```
/// use alloc_tracker::Installation;
///
/// assert_eq!(alloc_tracker::installation(), Installation::Missing);
/// ```
pub fn installation() -> Installation {
    recorder::find_installation(allocate_here, allocate_in_std)
}

/// Panics with one line that says what to do, unless the tracker is installed completely.
#[inline]
#[track_caller]
pub(super) fn require_complete() {
    if !recorder::is_installation_complete() {
        refuse_unless_complete();
    }
}

#[cold]
#[track_caller]
fn refuse_unless_complete() {
    match installation() {
        Installation::Complete => {}
        Installation::Partial => panic!("{PARTIAL}"),
        _ => panic!("{MISSING}"),
    }
}

/// Why nothing can be counted or recorded.
pub(super) const MISSING: &str = "alloc-tracker sees no allocation of this program: it is not the global allocator; \
     add `#[global_allocator] static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();`, \
     or, if that is there, link libstd statically (without `-C prefer-dynamic`)";

/// Why counts would be too low.
const PARTIAL: &str = "alloc-tracker sees only a part of this program's allocations, so counts would be too low: \
     libstd is linked dynamically, and code inside it does not call the program's global allocator; \
     link libstd statically (without `-C prefer-dynamic`)";

/// Allocates and frees a block in code of this crate. NOTE: these two functions are always compiled
/// into their caller. `Box` and `Vec` may be the standard library's own copies in debug builds.
fn allocate_here(_thread: &TrialThread) {
    let layout = Layout::new::<u64>();
    // SAFETY: the layout is not empty, and the block is freed with the layout it was allocated
    // with. `black_box` keeps the compiler from removing both calls.
    unsafe {
        let block = black_box(alloc(layout));
        if !block.is_null() {
            dealloc(block, layout);
        }
    }
}

/// Has the standard library allocate a block, in a function that is compiled there.
fn allocate_in_std(thread: &TrialThread) {
    let text = std::fmt::format(format_args!("{}", black_box(1u8)));
    if !thread.has_reached_hook() {
        // The block came from another allocator than the one that this code would free it with. So
        // it stays: a few bytes, once in a process.
        std::mem::forget(black_box(text));
    }
}
