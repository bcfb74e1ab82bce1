//! The functions through which all of a program's code reaches the global allocator: `__rust_alloc` and its like. In: the
//! registers of whoever called the tracker. Out: those of whoever called the function, so that no stack has a frame of it.
//!
//! PERF: such a frame stands at the top of every stack, and an allocation and a free never have the same one: a fifth of what
//! an event of a parser cost was stepping over it, and every stack has a node less.
//!
//! The compiler makes these functions when it links a program and names them as it likes, and sometimes it puts their code
//! into a function of the program's instead, whose frame must stay. So one is known by this: functions of this crate, which
//! do nothing but allocate or free, call it.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, realloc};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use alloc_dump::thread_ring::HeapEvent;

use super::registers::Registers;
use crate::base::sys::ErrnoGuard;

/// One of the four functions: that of this kind of event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shim(HeapEvent);

impl Shim {
    #[inline(always)]
    pub(crate) fn of(kind: HeapEvent) -> Shim {
        Shim(kind)
    }

    /// The registers of the function outside of this one, if these are of this one.
    #[inline(always)]
    pub(crate) fn skip(self, registers: Registers) -> Registers {
        let Found { returns_to, frame, .. } = self.found();
        let known = returns_to.load(Ordering::Acquire);
        if known == registers.pc {
            // SAFETY: its unwind rule says so: the frame of the function that is running ends there.
            return unsafe { registers.outside_of(frame.load(Ordering::Relaxed).into()) };
        }
        if known == UNKNOWN {
            self.learn(registers.pc);
        }
        registers
    }

    /// Finds out whether this address is in the function. What is learned serves the next event.
    #[cold]
    #[inline(never)]
    fn learn(self, address: u64) {
        let _errno = ErrnoGuard::new();
        let Found { returns_to, frame, tries } = self.found();
        let found = frame_of_function_called_by(self.caller(), address);
        if let Some(bytes) = found.and_then(|bytes| u32::try_from(bytes).ok()) {
            frame.store(bytes, Ordering::Relaxed);
            returns_to.store(address, Ordering::Release);
        } else if tries.fetch_add(1, Ordering::Relaxed) >= TRIES {
            returns_to.store(NOT_TO_BE_FOUND, Ordering::Release);
        }
    }

    /// PERF: the kind's number says where, without a branch.
    #[inline(always)]
    fn found(self) -> &'static Found {
        &SHIMS.0[self.0 as usize % KINDS]
    }

    /// Where a function of ours is that calls it.
    fn caller(self) -> u64 {
        let address = match self.0 {
            HeapEvent::Alloc => allocates as unsafe fn(_) -> _ as usize,
            HeapEvent::AllocZeroed => allocates_zeroed as unsafe fn(_) -> _ as usize,
            HeapEvent::Dealloc => frees as unsafe fn(_, _) as usize,
            HeapEvent::ReallocEnd => moves as unsafe fn(_, _, _) -> _ as usize,
        };
        address as u64
    }
}

/// What is known of a shim.
#[derive(Debug)]
struct Found {
    /// Where it is after its call of the tracker; 0 if that is not known yet, 1 if it is not worth looking for.
    returns_to: AtomicU64,
    /// Bytes from its stack pointer to its caller's.
    frame: AtomicU32,
    tries: AtomicU32,
}

impl Found {
    const fn nothing() -> Found {
        Found { returns_to: AtomicU64::new(UNKNOWN), frame: AtomicU32::new(0), tries: AtomicU32::new(0) }
    }
}

/// By the numbers of kinds. PERF: most are in one cache line, and so at the beginning of one.
#[repr(align(64))]
struct Shims([Found; KINDS]);

/// More than the number of any kind.
const KINDS: usize = 8;

#[unsafe(link_section = "alloc_tracker_hot")]
static SHIMS: Shims = Shims([const { Found::nothing() }; KINDS]);

#[cfg(target_arch = "x86_64")]
use super::x86_64::frame_of_function_called_by;

/// Not looked for: on other processors every walk begins in the shim.
#[cfg(not(target_arch = "x86_64"))]
fn frame_of_function_called_by(_caller: u64, _returns_to: u64) -> Option<u64> {
    None
}

// Never called: looked at.

#[inline(never)]
unsafe fn allocates(layout: Layout) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe { alloc(layout) }
}

#[inline(never)]
unsafe fn allocates_zeroed(layout: Layout) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe { alloc_zeroed(layout) }
}

#[inline(never)]
unsafe fn frees(block: *mut u8, layout: Layout) {
    // SAFETY: the caller's promise.
    unsafe { dealloc(block, layout) }
}

#[inline(never)]
unsafe fn moves(block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe { realloc(block, layout, size) }
}

const UNKNOWN: u64 = 0;
const NOT_TO_BE_FOUND: u64 = 1;
/// Events after which it is given up: in a program whose functions have the code in themselves, each of them would else be
/// looked at.
const TRIES: u32 = 8;
