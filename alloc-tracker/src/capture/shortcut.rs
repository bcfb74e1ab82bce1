//! Ways from a stack's innermost frame to its node that were gone before: which words were read until the walk came to a
//! frame of the recorded one. An event whose frame and words are the same has the same node, without a step.
//!
//! There are shortcuts on the thread's own stack only: others may have gone, and smaller ones be in their places.
//!
//! The recorded walk stays as it is meanwhile: what lies further in than the junction may be out of date, which does no
//! harm, as nothing of it is believed before it is compared. So a program that allocates and frees in turn at a few
//! places does not make each of them undo the other's walk.

use alloc_dump::layout::StackId;

use super::frame::Frame;
use super::fresh::Fresh;
use super::recorded::Recorded;
use super::registers::Registers;
use super::word::{Word, read};
use crate::sys::{ErrnoGuard, Mapping, Plain};

/// The ways that one thread remembers; each forgets another one that falls onto its place.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Shortcuts {
    /// No memory at all as long as there are none to be looked at.
    table: Mapping,
    /// The memory meanwhile, once the kernel has given it.
    put_away: Mapping,
    /// Whether the kernel has been asked for it.
    asked: bool,
}

/// PERF: two cache lines.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(128))]
struct Shortcut {
    /// 0 for no way at all.
    pc: u64,
    sp: u64,
    fp: u64,
    /// The innermost frame's node.
    node: u32,
    /// Where in the recorded walk the junction is.
    depth: u16,
    /// Whether the way depends on the frame pointer.
    needs_fp: u16,
    /// The frame that the way leads to, which is not part of it.
    junction: Frame,
    way: Way,
}

/// The words that were read. A way of fewer words has some of them again.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Way {
    values: [u64; LONGEST],
    /// Where they are: words above the stack pointer.
    places: [u16; LONGEST],
    unused: u32,
}

// SAFETY: integers without padding.
unsafe impl Plain for Shortcut {}

impl Shortcuts {
    pub(super) const fn new() -> Shortcuts {
        Shortcuts { table: Mapping::empty(), put_away: Mapping::empty(), asked: false }
    }

    /// Forgets everything: numbers of nodes mean something else.
    pub(super) fn close(&mut self) {
        if !self.table.bytes().is_empty() {
            std::mem::swap(&mut self.table, &mut self.put_away);
        }
    }

    /// The node of the frame with these registers, if a way from there leads to a frame of the recorded walk, which is also
    /// still as it was from there to the root.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn node(&self, registers: &Registers, recorded: &Recorded) -> Option<StackId> {
        let shortcut = self.table.slice::<Shortcut>().get(place(registers))?;
        let fp_mask = 0u64.wrapping_sub(u64::from(shortcut.needs_fp));
        let differs = (shortcut.pc ^ registers.pc)
            | (shortcut.sp ^ registers.sp)
            | (shortcut.fp ^ registers.fp) & fp_mask;
        // An empty place has no code address.
        if differs != 0 {
            return None;
        }
        // SAFETY: on the thread's own stack, which is all that shortcuts are for, between its stack pointer, which is the
        // one that the way was gone from, and its end.
        if unsafe { shortcut.way.differences_above(registers.sp) } != 0 {
            return None;
        }
        // SAFETY: this walk has come to the very state of the junction, on the stack where it began.
        unsafe { recorded.goes_on_from(usize::from(shortcut.depth), &shortcut.junction) }
            .then_some(StackId(shortcut.node))
    }

    /// Remembers the way of a walk that has led to `node`, if it can be: `fresh` is what it has gone until it came to a
    /// frame of the recorded walk.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn remember(
        &mut self,
        registers: &Registers,
        fresh: &Fresh,
        recorded: &Recorded,
        node: StackId,
    ) {
        let Some((depth, junction)) = fresh.junction(recorded) else { return };
        if self.table.bytes().is_empty() {
            self.begin();
        }
        let place = place(registers);
        let Some(shortcut) = self.table.slice_mut::<Shortcut>().get_mut(place) else { return };
        // What there is no way to be remembered of leaves the place to whatever has it.
        let Some(way) = fresh.way().and_then(|way| Way::above(registers.sp, &way)) else { return };
        shortcut.way = way;
        (shortcut.pc, shortcut.sp, shortcut.fp) = (registers.pc, registers.sp, registers.fp);
        (shortcut.node, shortcut.depth) = (node.0, depth);
        shortcut.needs_fp = u16::from(fresh.needs_fp() || junction.fp_slot().is_none());
        shortcut.junction = *junction;
    }

    #[cold]
    #[inline(never)]
    fn begin(&mut self) {
        let _errno = ErrnoGuard::new();
        if !std::mem::replace(&mut self.asked, true) {
            // Without memory for it everything is walked.
            self.table = Mapping::anonymous(PLACES * size_of::<Shortcut>()).unwrap_or(Mapping::empty());
        } else {
            std::mem::swap(&mut self.table, &mut self.put_away);
            self.table.slice_mut::<Shortcut>().iter_mut().for_each(|shortcut| shortcut.pc = 0);
        }
    }
}

impl Way {
    /// These words; `None` if one of them is too far away.
    #[inline(always)]
    fn above(sp: u64, words: &[Word; LONGEST]) -> Option<Way> {
        let mut way = Way { values: [0; LONGEST], places: [0; LONGEST], unused: 0 };
        let mut near = true;
        for ((word, value), place) in words.iter().zip(&mut way.values).zip(&mut way.places) {
            let above = word.address.wrapping_sub(sp) / 8;
            near &= above <= u64::from(u16::MAX);
            (*value, *place) = (word.value, above as u16);
        }
        near.then_some(way)
    }

    /// In which bits the words differ from what they were.
    ///
    /// # Safety
    /// They must be readable, in any order.
    #[inline(always)]
    unsafe fn differences_above(&self, sp: u64) -> u64 {
        let words = self.values.iter().zip(&self.places);
        words.fold(0, |differences, (value, place)| {
            // SAFETY: the caller's promise.
            differences | unsafe { read(sp + 8 * u64::from(*place)) } ^ value
        })
    }
}

/// Words of a way.
pub(super) const LONGEST: usize = 6;
/// PERF: 128 KiB, for the second-level cache. One way at a place: with several, which of them it is cannot be foreseen, and costs
/// more than a step or two.
const PLACES: usize = 1 << PLACE_BITS;
const PLACE_BITS: u32 = 10;

#[inline(always)]
fn place(registers: &Registers) -> usize {
    let mixed = (registers.pc ^ registers.sp.rotate_left(24)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> (u64::BITS - PLACE_BITS)) as usize
}
