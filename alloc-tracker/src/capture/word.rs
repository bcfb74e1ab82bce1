//! Words of the stack: reading them, and whether they are what they were.

use super::array::Filler;
use crate::base::sys::Plain;

/// A word that was read, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Word {
    pub(super) address: u64,
    pub(super) value: u64,
}

// SAFETY: integers without padding.
unsafe impl Plain for Word {}

impl Filler for Word {
    /// A word that is always what it was.
    fn filler() -> Word {
        static WORD: u64 = 0;
        Word { address: (&raw const WORD).expose_provenance() as u64, value: WORD }
    }
}

/// In which bits words differ from what they were.
///
/// # Safety
/// They must be readable, in any order.
#[inline(always)]
pub(super) unsafe fn differences_of<const N: usize>(words: &[Word; N]) -> u64 {
    // SAFETY: the caller's promise.
    words.iter().fold(0, |differences, word| differences | unsafe { read(word.address) } ^ word.value)
}

/// The word at an aligned address.
///
/// # Safety
/// It must be readable.
#[inline(always)]
pub(super) unsafe fn read(address: u64) -> u64 {
    // SAFETY: the caller's promise. Volatile: the memory belongs to other code.
    unsafe { std::ptr::with_exposed_provenance::<u64>(address as usize).read_volatile() }
}
