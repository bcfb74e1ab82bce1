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
use crate::base::sys::{ErrnoGuard, Mapping, Plain};

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

/// PERF: three cache lines, of which most are in two.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
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
    needs_fp: u8,
    /// How many blocks the way has.
    blocks: u8,
    /// The frame that the way leads to, which is not part of it.
    junction: Frame,
    /// What was read.
    way: [Block; BLOCKS],
    unused: u64,
}

/// Some words of a way. The last one may be there several times, and is there.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Block {
    values: [u64; BLOCK],
    /// Where they are: words above the stack pointer.
    places: [u16; BLOCK],
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
        if unsafe { shortcut.differences_above(registers.sp) } != 0 {
            return None;
        }
        // SAFETY: this walk has come to the very state of the junction, on the stack where it began.
        unsafe { recorded.goes_on_from(usize::from(shortcut.depth), &shortcut.junction) }
            .then_some(StackId(shortcut.node))
    }

    /// Remembers the way of a walk that has led to `node`, if it can be: `fresh` is what it has gone until it came to a
    /// frame of the recorded walk.
    #[inline(never)]
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
        let Some(words) = fresh.way() else { return };
        let is_near = shortcut.note(registers.sp, words);
        shortcut.pc = if is_near { registers.pc } else { 0 };
        (shortcut.sp, shortcut.fp) = (registers.sp, registers.fp);
        (shortcut.node, shortcut.depth) = (node.0, depth);
        shortcut.needs_fp = u8::from(fresh.needs_fp() || junction.fp_slot().is_none());
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

impl Shortcut {
    /// The words of its way, of which there are some; false if one of them is too far away.
    #[inline(always)]
    fn note(&mut self, sp: u64, words: &[Word]) -> bool {
        let (blocks, last, mut farthest) = (words.len().div_ceil(BLOCK), words.len() - 1, 0);
        self.blocks = blocks as u8;
        for (block, Block { values, places }) in self.way.iter_mut().take(blocks).enumerate() {
            for (at, (value, place)) in values.iter_mut().zip(places).enumerate() {
                let word = words[(block * BLOCK + at).min(last)];
                let above = word.address.wrapping_sub(sp) / 8;
                farthest |= above;
                (*value, *place) = (word.value, above as u16);
            }
        }
        farthest <= u64::from(u16::MAX)
    }

    /// In which bits the words differ from what they were.
    ///
    /// PERF: few have more than one block, and most of those that do are the same ones.
    ///
    /// # Safety
    /// They must be readable, in any order.
    #[inline(always)]
    unsafe fn differences_above(&self, sp: u64) -> u64 {
        let [first, others @ ..] = &self.way;
        // SAFETY: the caller's promise.
        let mut differences = unsafe { first.differences_above(sp) };
        for (at, block) in others.iter().enumerate() {
            if usize::from(self.blocks) <= at + 1 {
                break;
            }
            // SAFETY: as above.
            differences |= unsafe { block.differences_above(sp) };
        }
        differences
    }
}

impl Block {
    /// In which bits its words differ from what they were.
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

const BLOCK: usize = 4;
const BLOCKS: usize = 3;
/// Words of a way.
pub(super) const LONGEST: usize = BLOCK * BLOCKS;
/// PERF: 192 KiB, for the second-level cache. One way at a place: with several, which of them it is cannot be foreseen, and costs
/// more than a step or two.
const PLACES: usize = 1 << PLACE_BITS;
const PLACE_BITS: u32 = 10;

#[inline(always)]
fn place(registers: &Registers) -> usize {
    let mixed = (registers.pc ^ registers.sp.rotate_left(24)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> (u64::BITS - PLACE_BITS)) as usize
}
