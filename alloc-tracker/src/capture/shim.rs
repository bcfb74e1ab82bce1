//! The shims: the compiler's functions between the program's code and the global allocator,
//! `__rust_alloc` and its like. No stack shows them.
//!
//! PERF: a shim's frame would stand at the leaf of every stack, and an allocation and a free would
//! never have the same one. Stepping over it was a fifth of the cost of an event of a parser, and
//! every stack has one node less without it.
//!
//! The compiler makes the shims when it links a program, and names them as it likes. Sometimes it
//! inlines a shim into a function of the program, whose frame must stay. So the tracker finds a
//! shim through functions that call it. The four functions at the end of this file do nothing but
//! call one allocation function each. The tracker reads their machine code:
//!
//! ```text
//!   calls_alloc:          call 0x7010      the shim of `alloc` is the function at 0x7010
//!   0x7010  __rust_alloc: sub rsp, 8
//!                         call tracker     returns to 0x7019
//! ```
//!
//! An event whose registers say "returns to 0x7019" comes from that shim, because 0x7018 lies in
//! the function at 0x7010. Its frame is 16 bytes large (8, and the return address), so the caller's
//! registers are 16 bytes up.
//!
//! In: the registers of the tracker's caller, and the kind of event. Out: the registers of the
//! shim's caller if the tracker's caller is a shim, else the given ones. Allocates nothing; takes
//! locks only until the shim is known.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, realloc};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use alloc_dump::thread_ring::HeapEventKind;

use super::code_address::{CodeAddress, ReturnAddress};
use super::registers::Registers;

/// The shim of one kind of event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shim(HeapEventKind);

impl Shim {
    #[inline(always)]
    pub(crate) fn of(kind: HeapEventKind) -> Shim {
        Shim(kind)
    }

    /// Returns the registers of the shim's caller if `registers` are the shim's, else `registers`.
    #[inline(always)]
    pub(crate) fn skip(self, registers: Registers) -> Registers {
        let ShimCall { returns_to, frame_size, .. } = self.call();
        let known = returns_to.load(Ordering::Acquire);
        if known == registers.pc.0 {
            // SAFETY: a shim is running with these registers. `learn` has taken `frame_size` from
            // the shim's unwind rule, which also says that the shim leaves the frame pointer alone.
            // `learn` knows shims on x86-64 only.
            return unsafe { registers.of_caller(frame_size.load(Ordering::Relaxed).into()) };
        }
        if known == UNKNOWN {
            self.learn(registers.pc);
        }
        registers
    }

    /// Finds out whether a return address is in the shim. The result serves the next event.
    #[cold]
    #[inline(never)]
    fn learn(self, pc: ReturnAddress) {
        let ShimCall { returns_to, frame_size, tries } = self.call();
        let found = frame_size_of_function_called_by(self.known_caller(), pc);
        if let Some(bytes) = found.and_then(|bytes| u32::try_from(bytes).ok()) {
            frame_size.store(bytes, Ordering::Relaxed);
            returns_to.store(pc.0, Ordering::Release);
        } else if tries.fetch_add(1, Ordering::Relaxed) >= MAX_TRIES {
            returns_to.store(GIVEN_UP, Ordering::Release);
        }
    }

    /// Returns what is known of this shim's call.
    ///
    /// PERF: the number of the kind is the index, so there is no branch.
    #[inline(always)]
    fn call(self) -> &'static ShimCall {
        &SHIM_CALLS.0[self.0 as usize % KINDS]
    }

    /// Returns the address of a function of this crate that calls the shim.
    fn known_caller(self) -> CodeAddress {
        let address = match self.0 {
            HeapEventKind::Alloc => calls_alloc as unsafe fn(_) -> _ as usize,
            HeapEventKind::AllocZeroed => calls_alloc_zeroed as unsafe fn(_) -> _ as usize,
            HeapEventKind::Dealloc => calls_dealloc as unsafe fn(_, _) as usize,
            HeapEventKind::ReallocEnd => calls_realloc as unsafe fn(_, _, _) -> _ as usize,
        };
        CodeAddress(address as u64)
    }
}

/// What the tracker knows of a shim's call of the tracker.
#[derive(Debug)]
struct ShimCall {
    /// The address that the call returns to, or [`UNKNOWN`], or [`GIVEN_UP`]. It is one word, so
    /// that an event compares it with its own return address and is done.
    returns_to: AtomicU64,
    /// Bytes from the shim's stack pointer to its canonical frame address.
    frame_size: AtomicU32,
    /// How many events came from elsewhere while the shim was unknown.
    tries: AtomicU32,
}

impl ShimCall {
    const fn new() -> ShimCall {
        let (frame_size, tries) = (AtomicU32::new(0), AtomicU32::new(0));
        ShimCall { returns_to: AtomicU64::new(UNKNOWN), frame_size, tries }
    }
}

/// The calls by all shims, indexed by the kind of event.
///
/// PERF: aligned to a cache line, which holds the entries of most kinds.
#[repr(align(64))]
struct ShimCalls([ShimCall; KINDS]);

/// A power of two above the number of every kind.
const KINDS: usize = 8;

#[unsafe(link_section = "alloc_tracker_hot")]
static SHIM_CALLS: ShimCalls = ShimCalls([const { ShimCall::new() }; KINDS]);

/// The call is not known yet. No call returns to address 0.
const UNKNOWN: u64 = 0;
/// The call is no longer looked for. No call returns to address 1.
const GIVEN_UP: u64 = 1;
/// After this many events from elsewhere the shim is no longer looked for. Without a limit, a
/// program that has the shim inlined everywhere would pay for a search at every event.
const MAX_TRIES: u32 = 8;

#[cfg(target_arch = "x86_64")]
use super::x86_64::frame_size_of_function_called_by;

/// Shims are not looked for: on other processors every walk begins in the shim.
#[cfg(not(target_arch = "x86_64"))]
fn frame_size_of_function_called_by(_caller: CodeAddress, _returns_to: ReturnAddress) -> Option<u64> {
    None
}

// The following functions are never called: the tracker reads their machine code.

#[inline(never)]
unsafe fn calls_alloc(layout: Layout) -> *mut u8 {
    // SAFETY: the caller keeps the contract of `alloc`.
    unsafe { alloc(layout) }
}

#[inline(never)]
unsafe fn calls_alloc_zeroed(layout: Layout) -> *mut u8 {
    // SAFETY: the caller keeps the contract of `alloc_zeroed`.
    unsafe { alloc_zeroed(layout) }
}

#[inline(never)]
unsafe fn calls_dealloc(block: *mut u8, layout: Layout) {
    // SAFETY: the caller keeps the contract of `dealloc`.
    unsafe { dealloc(block, layout) }
}

#[inline(never)]
unsafe fn calls_realloc(block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
    // SAFETY: the caller keeps the contract of `realloc`.
    unsafe { realloc(block, layout, size) }
}
