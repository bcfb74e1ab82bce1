//! How to get from one frame to its caller, for code compiled the usual way, in one word; and a table of those words
//! by code address. Reading the table takes no lock.

use std::sync::atomic::{AtomicU64, Ordering};

/// What the unwind tables say about one code address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// The caller's stack pointer is `base` + `offset`; the return address lies just below it, the caller's frame
    /// pointer at `fp` from it, or still in its register.
    Frame {
        /// What the offset counts from.
        base: Base,
        /// Bytes from there to the caller's stack pointer.
        offset: u32,
        /// Bytes from the caller's stack pointer to where the frame pointer was saved; `None`: it was not.
        fp: Option<i32>,
    },
    /// The outermost frame of its thread.
    Outermost,
    /// Something else: an expression, another register, or no unwind table at all.
    Unpackable,
}

/// A register that a frame's size counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base {
    /// The stack pointer.
    Sp,
    /// The frame pointer.
    Fp,
}

impl Rule {
    /// Kind in bits 0 to 1, base in bit 2, whether the frame pointer was saved in bit 3, where in bits 4 to 27, offset
    /// in bits 28 to 55. What does not fit is unpackable. Never 0, so that an empty slot holds no rule.
    pub(super) fn pack(self) -> u64 {
        match self {
            Rule::Frame { base, offset, fp } => {
                let saved = fp.unwrap_or(0);
                if offset >= 1 << 28 || !(-(1 << 23)..1 << 23).contains(&saved) {
                    return Rule::Unpackable.pack();
                }
                let base = u64::from(base == Base::Fp) << 2;
                let has_fp = u64::from(fp.is_some()) << 3;
                1 | base | has_fp | u64::from(saved as u32 & 0xFF_FFFF) << 4 | u64::from(offset) << 28
            }
            Rule::Outermost => 2,
            Rule::Unpackable => 3,
        }
    }

    #[inline(always)]
    pub(super) fn unpack(word: u64) -> Rule {
        match word & 3 {
            1 => Rule::Frame {
                base: if word & 4 == 0 { Base::Sp } else { Base::Fp },
                offset: (word >> 28) as u32,
                // Sign extension of 24 bits.
                fp: (word & 8 != 0).then_some(((word >> 4) as u32) << 8).map(|high| high as i32 >> 8),
            },
            2 => Rule::Outermost,
            _ => Rule::Unpackable,
        }
    }
}

/// Rules by code address, for all threads: each pair of slots remembers the last addresses that fell onto one of the two.
///
/// A slot is two words that are written one after the other. The first is the address mixed with the second, so a
/// reader that catches a slot between two writes finds an address that is not its own. There is one writer at a time.
#[repr(align(64))]
pub(super) struct RuleTable {
    slots: [Slot; SLOTS],
}

struct Slot {
    mixed: AtomicU64,
    word: AtomicU64,
}

impl RuleTable {
    pub(super) const fn new() -> RuleTable {
        RuleTable { slots: [const { Slot::empty() }; SLOTS] }
    }

    #[inline]
    pub(super) fn get(&self, address: u64) -> Option<Rule> {
        let word = self.word(address);
        (word != 0).then(|| Rule::unpack(word))
    }

    /// The packed rule, 0 for none.
    #[inline(always)]
    pub(super) fn word(&self, address: u64) -> u64 {
        let at = slot(address);
        let word = self.slots[at].word_of(address);
        // PERF: the other one is in the same cache line.
        if word != 0 { word } else { self.slots[at ^ 1].word_of(address) }
    }

    /// Puts a rule into its slot; what was there goes into the other one of the pair.
    pub(super) fn put(&self, address: u64, rule: Rule) {
        let at = slot(address);
        let word = self.slots[at].word.load(Ordering::Relaxed);
        let other = self.slots[at].mixed.load(Ordering::Relaxed) ^ word;
        if word != 0 && other != address {
            self.slots[at ^ 1].set(other, word);
        }
        self.slots[at].set(address, rule.pack());
    }

    /// Forgets everything: the code at some addresses has changed.
    pub(super) fn clear(&self) {
        for slot in &self.slots {
            slot.mixed.store(0, Ordering::Relaxed);
            slot.word.store(0, Ordering::Relaxed);
        }
    }
}

impl Slot {
    const fn empty() -> Slot {
        Slot { mixed: AtomicU64::new(0), word: AtomicU64::new(0) }
    }

    #[inline(always)]
    fn word_of(&self, address: u64) -> u64 {
        let word = self.word.load(Ordering::Relaxed);
        if self.mixed.load(Ordering::Relaxed) ^ word == address { word } else { 0 }
    }

    fn set(&self, address: u64, word: u64) {
        self.mixed.store(address ^ word, Ordering::Relaxed);
        self.word.store(word, Ordering::Relaxed);
    }
}

/// Half a mebibyte, in memory that is not touched before it is needed. PERF: 4,096 slots are too few for a program
/// like a parser of Rust; from 16,384 on more slots change little.
const SLOTS: usize = 1 << 15;
/// Bytes of a table.
pub(super) const TABLE_BYTES: u64 = size_of::<RuleTable>() as u64;

#[inline(always)]
fn slot(address: u64) -> usize {
    (address.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 49) as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_survive_packing() {
        for base in [Base::Sp, Base::Fp] {
            for offset in [0, 8, 16, 4096, (1 << 28) - 1] {
                for fp in [None, Some(-16), Some(0), Some(-(1 << 23)), Some((1 << 23) - 1)] {
                    let rule = Rule::Frame { base, offset, fp };
                    assert_eq!(Rule::unpack(rule.pack()), rule);
                }
            }
        }
        assert_eq!(Rule::unpack(Rule::Outermost.pack()), Rule::Outermost);
        let too_large = Rule::Frame { base: Base::Sp, offset: 1 << 28, fp: None };
        assert_eq!(Rule::unpack(too_large.pack()), Rule::Unpackable);
        let too_far = Rule::Frame { base: Base::Sp, offset: 8, fp: Some(1 << 23) };
        assert_eq!(Rule::unpack(too_far.pack()), Rule::Unpackable);
    }

    #[test]
    fn a_slot_answers_for_its_own_address_only() {
        static TABLE: RuleTable = RuleTable::new();
        let rule = |offset| Rule::Frame { base: Base::Sp, offset, fp: Some(-16) };
        let mut rivals = (0x1235..).filter(|address| slot(*address) == slot(0x1234));
        let addresses = [0x1234, rivals.next().unwrap(), rivals.next().unwrap()];
        let get = || addresses.map(|address| TABLE.get(address));
        assert_eq!((TABLE.get(0), get()), (None, [None; 3]));
        TABLE.put(addresses[0], rule(8));
        assert_eq!(get(), [Some(rule(8)), None, None]);
        TABLE.put(addresses[1], rule(16));
        assert_eq!(get(), [Some(rule(8)), Some(rule(16)), None]);
        TABLE.put(addresses[1], rule(24));
        assert_eq!(get(), [Some(rule(8)), Some(rule(24)), None]);
        TABLE.put(addresses[2], rule(32));
        assert_eq!(get(), [None, Some(rule(24)), Some(rule(32))]);
        TABLE.clear();
        assert_eq!(get(), [None; 3]);
    }
}
