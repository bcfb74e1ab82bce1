//! Unwind rules: how to get from a frame to its caller, and how such a rule is packed into one
//! word.
//!
//! In and out: plain values. A rule that does not fit into a word is [`UnwindRule::Unpackable`].

use std::num::{NonZeroU32, NonZeroU64};

/// The rule that the unwind tables give for one code address.
///
/// The usual rule, [`UnwindRule::Cfa`], as a picture. The canonical frame address (CFA) is the
/// stack pointer that the caller had before its call:
///
/// ```text
///   higher addresses
///   +----------------------+ <-- CFA = base + offset = the caller's stack pointer
///   | return address       | <-- CFA - 8
///   +----------------------+
///   | saved frame pointer  | <-- CFA - fp_saved_below_cfa, if the function has saved it
///   +----------------------+
///   | locals               |
///   +----------------------+ <-- base, if it is the stack pointer
///   lower addresses
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnwindRule {
    /// The frame of a function that was compiled in the usual way.
    Cfa {
        /// The register that `offset` counts from.
        base: CfaBase,
        /// Bytes from `base` to the canonical frame address.
        offset: u32,
        /// Bytes from the canonical frame address down to the slot that the caller's frame pointer
        /// was saved in. `None` if the function leaves the frame pointer in its register.
        fp_saved_below_cfa: Option<NonZeroU32>,
    },
    /// The outermost frame of its thread: there is no caller.
    Outermost,
    /// A rule that does not fit into a word (an expression, another register, a signal frame), or
    /// no rule that is known.
    Unpackable,
    /// There is no rule, and the platform's unwinder has found no caller either.
    Missing,
}

/// The register that a canonical frame address counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CfaBase {
    StackPointer,
    FramePointer,
}

/// The rule of a function that runs a fiber: its caller is on another stack, at an address that the
/// function keeps where its frame pointer points.
///
/// ```text
///   the fiber's stack                the caller's stack
///                                    +----------------------+ <-- CFA = link + offset
///   |                |               | return address       | <-- CFA - pc_below_cfa
///   +----------------+               | saved frame pointer  | <-- CFA - fp_below_cfa
///   | link           | ------------> +----------------------+
///   +----------------+ <-- frame pointer
/// ```
///
/// Unwind tables say this by an expression. Evaluating the expression takes a microsecond, and
/// programs with fibers switch all the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StackSwitch {
    pub(super) offset: u32,
    pub(super) pc_below_cfa: u32,
    pub(super) fp_below_cfa: u32,
    /// Whether the caller's address is that of its next instruction, as after a signal, and not a
    /// return address.
    pub(super) is_interrupted: bool,
}

/// An unwind rule in the lower [`PackedRule::BITS`] bits of a word.
///
/// ```text
///  29               11 10        3   2    1  0
/// +-------------------+-----------+------+------+
/// | CFA offset        | saved fp  | base | kind |
/// | in words          | in words  |      |      |
/// +-------------------+-----------+------+------+
/// ```
///
/// - kind: 1 for [`UnwindRule::Cfa`], 2 for `Outermost`, 3 for `Unpackable`; 3 for `Missing` as
///   well, with base 1. Never 0, so a word of
///   zeros is no rule.
/// - base: 1 for the frame pointer.
/// - saved fp: how many words below the CFA the frame pointer was saved; 0 if it was not.
///
/// A [`StackSwitch`] is a rule of the kind `Unpackable` with more bits:
///
/// ```text
///  27           20 19           12 11      4      3        2      1  0
/// +---------------+---------------+---------+-------------+---+------+
/// | saved fp      | return address| offset  | interrupted | 1 | kind |
/// | below, words  | below, words  | in words|             |   |      |
/// +---------------+---------------+---------+-------------+---+------+
/// ```
///
/// Packing and unpacking need no division by eight. A distance is stored in bytes; its lowest three
/// bits, which are zero in a multiple of eight, overlap the field below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PackedRule(NonZeroU64);

impl PackedRule {
    pub(super) const BITS: u32 = 30;
    const KIND_MASK: u64 = 3;
    const CFA: NonZeroU64 = NonZeroU64::new(1).unwrap();
    const OUTERMOST: NonZeroU64 = NonZeroU64::new(2).unwrap();
    const UNPACKABLE: NonZeroU64 = NonZeroU64::new(3).unwrap();
    const MISSING: NonZeroU64 = NonZeroU64::new(7).unwrap();
    const BASE_IS_FP: u64 = 4;
    const SAVED_FP_MASK: u32 = 0x7F8;
    const OFFSET_SHIFT: u32 = 8;
    const IS_SWITCH: u64 = 4;
    const IS_INTERRUPTED: u64 = 8;

    /// Returns the rule in this word; `None` if the word is 0.
    #[inline(always)]
    pub(super) fn from_word(word: u64) -> Option<PackedRule> {
        NonZeroU64::new(word).map(PackedRule)
    }

    pub(super) fn to_word(self) -> u64 {
        self.0.get()
    }

    /// Whether the rule is a [`UnwindRule::Cfa`].
    #[inline(always)]
    pub(super) fn is_cfa(self) -> bool {
        self.0.get() & PackedRule::KIND_MASK == PackedRule::CFA.get()
    }

    /// Returns the switch to another stack, if the rule is one.
    pub(super) fn stack_switch(self) -> Option<StackSwitch> {
        let word = self.0.get();
        let is_switch =
            word & PackedRule::KIND_MASK == PackedRule::UNPACKABLE.get() && word & PackedRule::IS_SWITCH != 0;
        let bytes = |shift: u32| ((word >> shift) as u32 & 0xFF) * 8;
        is_switch.then(|| StackSwitch {
            offset: bytes(4),
            pc_below_cfa: bytes(12),
            fp_below_cfa: bytes(20),
            is_interrupted: word & PackedRule::IS_INTERRUPTED != 0,
        })
    }

    #[inline(always)]
    pub(super) fn unpack(self) -> UnwindRule {
        let word = self.0.get();
        if self.is_cfa() {
            let base_is_fp = word & PackedRule::BASE_IS_FP != 0;
            UnwindRule::Cfa {
                base: if base_is_fp { CfaBase::FramePointer } else { CfaBase::StackPointer },
                offset: (word >> PackedRule::OFFSET_SHIFT) as u32 & !7,
                fp_saved_below_cfa: NonZeroU32::new(word as u32 & PackedRule::SAVED_FP_MASK),
            }
        } else if self.0 == PackedRule::OUTERMOST {
            UnwindRule::Outermost
        } else if self.0 == PackedRule::MISSING {
            UnwindRule::Missing
        } else {
            UnwindRule::Unpackable
        }
    }
}

impl StackSwitch {
    /// Packs the rule; `None` if a distance does not fit: it must be less than 2 KiB, and whole
    /// words.
    pub(super) fn pack(self) -> Option<PackedRule> {
        let word = |bytes: u32, shift: u32| {
            (bytes.is_multiple_of(8) && bytes < 1 << 11).then(|| u64::from(bytes / 8) << shift)
        };
        let distances = word(self.offset, 4)? | word(self.pc_below_cfa, 12)? | word(self.fp_below_cfa, 20)?;
        let interrupted = u64::from(self.is_interrupted) * PackedRule::IS_INTERRUPTED;
        Some(PackedRule(PackedRule::UNPACKABLE | PackedRule::IS_SWITCH | interrupted | distances))
    }
}

impl UnwindRule {
    /// Packs the rule. A rule that does not fit becomes [`UnwindRule::Unpackable`]: an offset of 4
    /// MiB or more, a frame pointer saved 2 KiB or more below the CFA, or a distance that is not a
    /// number of words.
    pub(super) fn pack(self) -> PackedRule {
        match self {
            UnwindRule::Cfa { base, offset, fp_saved_below_cfa } => {
                let below = fp_saved_below_cfa.map_or(0, NonZeroU32::get);
                if offset % 8 != 0 || offset >= 1 << 22 || below % 8 != 0 || below >= 1 << 11 {
                    return UnwindRule::Unpackable.pack();
                }
                let base = if base == CfaBase::FramePointer { PackedRule::BASE_IS_FP } else { 0 };
                let offset = u64::from(offset) << PackedRule::OFFSET_SHIFT;
                PackedRule(PackedRule::CFA | base | u64::from(below) | offset)
            }
            UnwindRule::Outermost => PackedRule(PackedRule::OUTERMOST),
            UnwindRule::Unpackable => PackedRule(PackedRule::UNPACKABLE),
            UnwindRule::Missing => PackedRule(PackedRule::MISSING),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(base: CfaBase, offset: u32, below: u32) -> UnwindRule {
        UnwindRule::Cfa { base, offset, fp_saved_below_cfa: NonZeroU32::new(below) }
    }

    #[test]
    fn rules_survive_packing() {
        for base in [CfaBase::StackPointer, CfaBase::FramePointer] {
            for offset in [0, 8, 16, 4096, (1 << 22) - 8] {
                for below in [0, 8, 16, 2040] {
                    let rule = rule(base, offset, below);
                    assert_eq!(rule.pack().unpack(), rule);
                    assert!(rule.pack().to_word() < 1 << PackedRule::BITS);
                }
            }
        }
        for rule in [UnwindRule::Outermost, UnwindRule::Unpackable, UnwindRule::Missing] {
            assert_eq!((rule.pack().unpack(), rule.pack().is_cfa()), (rule, false));
        }
        for usual in [UnwindRule::Outermost, UnwindRule::Unpackable, rule(CfaBase::FramePointer, 8, 2040)] {
            assert_eq!(usual.pack().stack_switch(), None);
        }
        for (offset, below) in [(1 << 22, 0), (12, 0), (16, 2048), (16, 12)] {
            assert_eq!(rule(CfaBase::StackPointer, offset, below).pack().unpack(), UnwindRule::Unpackable);
        }
    }

    #[test]
    fn stack_switches_survive_packing_and_are_no_usual_rules() {
        for (offset, pc_below_cfa, fp_below_cfa) in [(24, 16, 24), (0, 8, 2040), (2040, 2040, 0)] {
            for is_interrupted in [false, true] {
                let switch = StackSwitch { offset, pc_below_cfa, fp_below_cfa, is_interrupted };
                let packed = switch.pack().unwrap();
                assert_eq!(packed.stack_switch(), Some(switch));
                assert_eq!(packed.unpack(), UnwindRule::Unpackable);
                assert!(!packed.is_cfa() && packed.to_word() < 1 << PackedRule::BITS);
                assert_eq!(StackSwitch { offset: offset + 4, ..switch }.pack(), None);
                assert_eq!(StackSwitch { pc_below_cfa: 2048, ..switch }.pack(), None);
            }
        }
    }
}
