//! Words of a stack: reading them, and comparing them with their values in an earlier walk.
//!
//! In: addresses that the caller knows to be readable. Out: values. Nothing here checks an address.

use super::padded_array::Padding;
use crate::base::sys::Plain;

/// A word that a walk has read: its address and the value that it had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct StackWord {
    pub(super) address: u64,
    pub(super) value: u64,
}

// SAFETY: `Plain` wants a `repr(C)` struct of integers without padding; these are two of eight
// bytes.
unsafe impl Plain for StackWord {}

impl Padding for StackWord {
    /// Returns a word that never changes, so that comparing it never finds a difference.
    fn padding() -> StackWord {
        static WORD: u64 = 0;
        StackWord { address: (&raw const WORD).expose_provenance() as u64, value: WORD }
    }
}

/// Whether any of these words differs from its noted value.
///
/// # Safety
/// All words must be readable, in any order.
pub(super) unsafe fn have_changed(words: &[StackWord]) -> bool {
    let (groups, rest) = words.as_chunks::<8>();
    // SAFETY: the caller promises that each of these words is readable.
    let changed = groups.iter().fold(0, |changed, group| changed | unsafe { changed_bits(group) });
    // SAFETY: as above.
    rest.iter().fold(changed, |changed, word| changed | unsafe { changed_bits(std::array::from_ref(word)) })
        != 0
}

/// Returns the bits in which any of the words differs from its noted value; 0 if all are unchanged.
///
/// # Safety
/// All words must be readable, in any order.
#[inline(always)]
pub(super) unsafe fn changed_bits<const N: usize>(words: &[StackWord; N]) -> u64 {
    // SAFETY: the caller promises that each of these words is readable.
    words.iter().fold(0, |changed, word| changed | unsafe { read_word(word.address) } ^ word.value)
}

/// Reads the word at an address.
///
/// # Safety
/// The address must be a multiple of eight, and its word must be readable.
#[inline(always)]
pub(super) unsafe fn read_word(address: u64) -> u64 {
    #[cfg(test)]
    WORDS_READ.set(WORDS_READ.get() + 1);
    // SAFETY: the caller promises an aligned, readable word. The read is volatile because the
    // memory belongs to other code, which writes it without the compiler's knowledge.
    unsafe { std::ptr::with_exposed_provenance::<u64>(address as usize).read_volatile() }
}

#[cfg(test)]
thread_local! {
    /// How many words this thread has read: the work of its walks.
    pub(super) static WORDS_READ: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}
