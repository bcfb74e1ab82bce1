//! Shortcuts: remembered paths from a leaf frame to a frame of the recorded walk, the join frame.
//!
//! A walk reads some words until it comes to a frame of the recorded walk. The shortcut remembers
//! the leaf's registers, those words, and the leaf's node. An event with the same registers and the
//! same words has the same node, without a single step:
//!
//! ```text
//!   leaf frame      registers equal?            -+
//!     | path        up to 12 words unchanged?    | all yes: the node is that of the shortcut
//!   join frame      same node, same state?       |
//!     |             words to the root unchanged? -+
//!   root
//! ```
//!
//! There are shortcuts on the thread's own stack only. Another stack may have been unmapped, with a
//! smaller one in its place, so that reading the path's words would fault.
//!
//! A shortcut does not change the recorded walk. The frames that the recorded walk has inside of
//! the join frame may be out of date then. That does no harm, because no recorded frame is used
//! before its words are compared. So a program that allocates and frees in turn at a few call sites
//! keeps its recorded walk. Without shortcuts, the walk of each site would replace frames that the
//! walk of another site needs.
//!
//! In: the leaf's registers, new and recorded walks. Out: nodes. Never allocates through the global
//! allocator. If there is no memory for the table, every stack is walked.

use alloc_dump::layout::StackId;

use super::code_address::ReturnAddress;
use super::frame::Frame;
use super::new_walk::NewWalk;
use super::recorded_walk::RecordedWalk;
use super::registers::Registers;
use super::stack_word::{StackWord, read_word};
use crate::base::sys::{Mapping, Plain};

/// The shortcuts of one thread: a hash table in which a new shortcut replaces the one in its slot.
#[derive(Debug)]
#[repr(C)]
pub(super) struct ShortcutTable {
    /// The slots. Empty until there is a shortcut to remember, and again after everything was
    /// forgotten.
    table: Mapping,
    /// The memory for the slots, while `table` is empty and the kernel has given the memory
    /// already.
    spare: Mapping,
    /// Whether the kernel was asked for the memory already, which happens once.
    was_requested: bool,
    /// How many stacks were walked without a table.
    walks: u32,
}

/// A slot of the table.
///
/// PERF: three cache lines; a path of one group of words needs the first two.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Shortcut {
    /// The leaf's registers. `pc` is [`ReturnAddress::NONE`] in an empty slot.
    pc: ReturnAddress,
    sp: u64,
    fp: u64,
    /// The leaf's node.
    node: u32,
    /// The index of the join frame in the recorded walk.
    join_index: u16,
    /// 1 if the path depends on the value in the frame pointer register, else 0. Not a `bool`,
    /// because a slot must be a value whatever its bytes are.
    depends_on_fp_register: u8,
    /// How many groups of words the path has.
    groups: u8,
    /// The frame that the path leads to. Its own words are not part of the path.
    join_frame: Frame,
    /// The words that led from the leaf to the join frame.
    path: [WordGroup; MAX_GROUPS],
    unused: u64,
}

/// Some words of a path, which are compared at once. If there are fewer words, the last one is
/// repeated.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct WordGroup {
    values: [u64; GROUP_LEN],
    /// The addresses of the words, as distances in words from the leaf's stack pointer.
    distances: [u16; GROUP_LEN],
}

// SAFETY: `Plain` wants a `repr(C)` struct of integers without padding: the fields add up to three
// times 64 bytes, and each begins at a multiple of its alignment.
unsafe impl Plain for Shortcut {}

const _: () = assert!(size_of::<Shortcut>() == 3 * 64);

impl ShortcutTable {
    pub(super) const fn new() -> ShortcutTable {
        ShortcutTable { table: Mapping::empty(), spare: Mapping::empty(), was_requested: false, walks: 0 }
    }

    /// Forgets all shortcuts, because the numbers of nodes or code addresses mean something else
    /// now.
    pub(super) fn forget_all(&mut self) {
        if !self.table.bytes().is_empty() {
            std::mem::swap(&mut self.table, &mut self.spare);
        }
    }

    /// Returns the node of the frame with these registers, if a shortcut leads from there to a
    /// frame of the recorded walk, and all words from the leaf to the root are unchanged.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn find_node(&self, registers: &Registers, recorded: &RecordedWalk) -> Option<StackId> {
        let shortcut = self.table.slice::<Shortcut>().get(slot_index(registers))?;
        let fp_mask = 0u64.wrapping_sub(u64::from(shortcut.depends_on_fp_register));
        let differs = (shortcut.pc.0 ^ registers.pc.0)
            | (shortcut.sp ^ registers.sp)
            | (shortcut.fp ^ registers.fp) & fp_mask;
        // An empty slot differs, because no leaf has the return address 0.
        if differs != 0 {
            return None;
        }
        // SAFETY: the words must be readable in any order. They lie on the thread's own stack, the
        // only one with shortcuts, between the stack pointer, which is that of the remembered walk,
        // and the stack's end.
        if unsafe { shortcut.changed_bits_above(registers.sp) } != 0 {
            return None;
        }
        // SAFETY: the memory from the join frame to the stack's end must be readable. The path is
        // unchanged, so a walk comes to the very state of the join frame, on the thread's own
        // stack.
        unsafe { recorded.still_holds_from(usize::from(shortcut.join_index), &shortcut.join_frame) }
            .then_some(StackId(shortcut.node))
    }

    /// Remembers the path of a walk that has led to `node`, if it fits into a shortcut. `new` is
    /// that walk, and `recorded` has already taken it over. If the walk left no such path, the slot
    /// keeps its previous entry. If a word of the path is too far from the stack pointer (512 KiB
    /// or more), the slot becomes empty.
    #[inline(never)]
    pub(super) fn remember(
        &mut self,
        registers: &Registers,
        new: &NewWalk,
        recorded: &RecordedWalk,
        node: StackId,
    ) {
        let Some((join_index, join_frame)) = new.join_frame(recorded) else { return };
        if self.table.bytes().is_empty() {
            self.walks = self.walks.saturating_add(1);
            if self.walks < WALKS_WITHOUT_TABLE {
                return;
            }
            self.create_table();
        }
        let index = slot_index(registers);
        let Some(shortcut) = self.table.slice_mut::<Shortcut>().get_mut(index) else { return };
        let Some(words) = new.path_words() else { return };
        let is_near = shortcut.set_path(registers.sp, words);
        shortcut.pc = if is_near { registers.pc } else { ReturnAddress::NONE };
        (shortcut.sp, shortcut.fp) = (registers.sp, registers.fp);
        (shortcut.node, shortcut.join_index) = (node.0, join_index);
        shortcut.depends_on_fp_register =
            u8::from(new.depends_on_fp_register() || join_frame.fp_slot().is_none());
        shortcut.join_frame = *join_frame;
    }

    #[cold]
    #[inline(never)]
    fn create_table(&mut self) {
        if !std::mem::replace(&mut self.was_requested, true) {
            // If there is no memory for the table, every stack is walked.
            self.table = Mapping::anonymous(SLOTS * size_of::<Shortcut>()).unwrap_or(Mapping::empty());
        } else {
            std::mem::swap(&mut self.table, &mut self.spare);
            let slots = self.table.slice_mut::<Shortcut>().iter_mut();
            slots.for_each(|shortcut| shortcut.pc = ReturnAddress::NONE);
        }
    }
}

impl Shortcut {
    /// Sets the words of the path, of which there is at least one; false if one of them is too far
    /// from the stack pointer for its distance to be stored.
    #[inline(always)]
    fn set_path(&mut self, sp: u64, words: &[StackWord]) -> bool {
        let (groups, last, mut farthest) = (words.len().div_ceil(GROUP_LEN), words.len() - 1, 0);
        self.groups = groups as u8;
        for (group, WordGroup { values, distances }) in self.path.iter_mut().take(groups).enumerate() {
            for (index, (value, distance)) in values.iter_mut().zip(distances).enumerate() {
                let word = words[(group * GROUP_LEN + index).min(last)];
                let above = word.address.wrapping_sub(sp) / 8;
                farthest |= above;
                (*value, *distance) = (word.value, above as u16);
            }
        }
        farthest <= u64::from(u16::MAX)
    }

    /// Returns the bits in which any word of the path differs from its remembered value.
    ///
    /// PERF: few paths have more than one group, and mostly the same few paths again and again. So
    /// the processor predicts the branch for each further group, which costs little.
    ///
    /// # Safety
    /// All words of the path must be readable, in any order.
    #[inline(always)]
    unsafe fn changed_bits_above(&self, sp: u64) -> u64 {
        let [first, others @ ..] = &self.path;
        // SAFETY: the caller promises that the words of the path are readable, and it has at least
        // one group.
        let mut changed = unsafe { first.changed_bits_above(sp) };
        for (index, group) in others.iter().enumerate() {
            if usize::from(self.groups) <= index + 1 {
                break;
            }
            // SAFETY: the group is one of the path's, whose words the caller promises to be
            // readable.
            changed |= unsafe { group.changed_bits_above(sp) };
        }
        changed
    }
}

impl WordGroup {
    /// Returns the bits in which any word differs from its remembered value.
    ///
    /// # Safety
    /// The words must be readable, in any order.
    #[inline(always)]
    unsafe fn changed_bits_above(&self, sp: u64) -> u64 {
        let words = self.values.iter().zip(&self.distances);
        words.fold(0, |changed, (value, distance)| {
            // SAFETY: the caller promises that each of these words is readable.
            changed | unsafe { read_word(sp + 8 * u64::from(*distance)) } ^ value
        })
    }
}

const GROUP_LEN: usize = 4;
/// PERF: with twelve words, the stack of a JavaScript engine has to be walked at every fiftieth
/// event; with six words, at every ninth.
const MAX_GROUPS: usize = 3;
/// The largest number of words that a path has.
pub(super) const MAX_PATH_WORDS: usize = GROUP_LEN * MAX_GROUPS;
/// How many shortcuts a thread remembers.
///
/// PERF: 192 KiB, which fits into the second-level cache. A slot holds one shortcut. If it held
/// several, the processor could not predict which of them matches; a wrong prediction costs more
/// than the step or two that the shortcut saves.
const SLOTS: usize = 1 << SLOT_BITS;
/// A thread that walks fewer stacks needs no table.
///
/// PERF: a walk costs less than touching a page of the table for the first time. And a program with
/// thousands of threads, each of which records little, must not pay 192 KiB for each of them.
const WALKS_WITHOUT_TABLE: u32 = 256;
const SLOT_BITS: u32 = 10;

#[inline(always)]
fn slot_index(registers: &Registers) -> usize {
    let mixed = (registers.pc.0 ^ registers.sp.rotate_left(24)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> (u64::BITS - SLOT_BITS)) as usize
}
