//! How to get from one frame to its caller, for code compiled the usual way, in one word; and a table of those words
//! by code address. Reading the table takes no lock.

use std::sync::atomic::{AtomicU64, Ordering};

/// What the unwind tables say about one code address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// The caller's stack pointer is `base` + `offset`; the return address lies just below it, the caller's frame
    /// pointer further below, or is still in its register.
    Frame {
        /// What the offset counts from.
        base: Base,
        /// Bytes from there to the caller's stack pointer.
        offset: u32,
        /// Bytes that the frame pointer was saved below the caller's stack pointer; 0: it was not.
        below: u32,
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
    /// Kind in bits 0 to 1, base in bit 2, how many words below the frame pointer was saved in bits 3 to 10, the offset in words in
    /// bits 11 to 29. What does not fit is unpackable. Never 0, so that an empty slot holds no rule.
    pub(super) fn pack(self) -> u64 {
        match self {
            Rule::Frame { base, offset, below } => {
                if offset % 8 != 0 || offset >= 1 << 22 || below % 8 != 0 || below >= 1 << 11 {
                    return Rule::Unpackable.pack();
                }
                let base = u64::from(base == Base::Fp) << 2;
                Rule::FRAME | base | u64::from(below) | u64::from(offset) << 8
            }
            Rule::Outermost => 2,
            Rule::Unpackable => 3,
        }
    }

    #[inline(always)]
    pub(super) fn unpack(word: u64) -> Rule {
        match word & Rule::KIND {
            Rule::FRAME => Rule::Frame {
                base: if word & 4 == 0 { Base::Sp } else { Base::Fp },
                offset: (word >> 8) as u32 & !7,
                below: word as u32 & 0x7F8,
            },
            2 => Rule::Outermost,
            _ => Rule::Unpackable,
        }
    }

    /// The kind of a packed rule.
    pub(super) const KIND: u64 = 3;
    pub(super) const FRAME: u64 = 1;
}

/// Rules by code address, for all threads: each pair of slots remembers the last addresses that fell onto one of the two.
///
/// Addresses have 48 bits. They are mixed in a way that can be undone: the upper 14 bits of what comes out say which pair, the
/// other 34 are in the slot, above the rule. There is one writer at a time.
///
/// PERF: a slot is a word, so that there are eight in a cache line.
#[repr(align(64))]
pub(super) struct RuleTable {
    slots: [AtomicU64; SLOTS],
}

impl RuleTable {
    pub(super) const fn new() -> RuleTable {
        RuleTable { slots: [const { AtomicU64::new(EMPTY) }; SLOTS] }
    }

    #[inline]
    pub(super) fn get(&self, address: u64) -> Option<Rule> {
        let word = self.word(address);
        (word != 0).then(|| Rule::unpack(word))
    }

    /// The packed rule, 0 for none.
    #[inline(always)]
    pub(super) fn word(&self, address: u64) -> u64 {
        let (at, tag) = place(address);
        let word = self.slots[at].load(Ordering::Relaxed) ^ tag;
        if (word >> RULE_BITS) | (address >> ADDRESS_BITS) == 0 {
            return word;
        }
        // PERF: it is in the same cache line.
        let word = self.slots[at ^ 1].load(Ordering::Relaxed) ^ tag;
        if (word >> RULE_BITS) | (address >> ADDRESS_BITS) == 0 { word } else { 0 }
    }

    /// Puts a rule into its slot; what was there goes into the other one of the pair. Nothing is kept of an address that is too
    /// large.
    pub(super) fn put(&self, address: u64, rule: Rule) {
        if address >> ADDRESS_BITS != 0 {
            return;
        }
        let (at, tag) = place(address);
        let before = self.slots[at].load(Ordering::Relaxed);
        if before != EMPTY && (before ^ tag) >> RULE_BITS != 0 {
            self.slots[at ^ 1].store(before, Ordering::Relaxed);
        }
        self.slots[at].store(tag | rule.pack(), Ordering::Relaxed);
    }

    /// Forgets everything: the code at some addresses has changed.
    pub(super) fn clear(&self) {
        for slot in &self.slots {
            slot.store(EMPTY, Ordering::Relaxed);
        }
    }
}

/// No rule.
const EMPTY: u64 = 0;
const RULE_BITS: u32 = 30;
const ADDRESS_BITS: u32 = 48;

/// A quarter of a mebibyte, in memory that is not touched before it is needed. PERF: 4,096 slots are too few for a program
/// like a parser of Rust; from 16,384 on more slots change little.
const SLOTS: usize = 1 << SLOT_BITS;
const SLOT_BITS: u32 = 15;
/// Bytes of a table.
pub(super) const TABLE_BYTES: u64 = size_of::<RuleTable>() as u64;

/// The slot of an address, and what stands in it above the rule.
#[inline(always)]
fn place(address: u64) -> (usize, u64) {
    // Odd, so that no two addresses become the same.
    let mixed = address.wrapping_mul(0x9E37_79B9_7F4A_7C15) << (u64::BITS - ADDRESS_BITS);
    ((mixed >> (u64::BITS - SLOT_BITS)) as usize, mixed << (SLOT_BITS - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_survive_packing() {
        for base in [Base::Sp, Base::Fp] {
            for offset in [0, 8, 16, 4096, (1 << 22) - 8] {
                for below in [0, 8, 16, 2040] {
                    let rule = Rule::Frame { base, offset, below };
                    assert_eq!(Rule::unpack(rule.pack()), rule);
                }
            }
        }
        assert_eq!(Rule::unpack(Rule::Outermost.pack()), Rule::Outermost);
        for (offset, below) in [(1 << 22, 0), (12, 0), (16, 2048), (16, 12)] {
            let other = Rule::Frame { base: Base::Sp, offset, below };
            assert_eq!(Rule::unpack(other.pack()), Rule::Unpackable);
        }
    }

    #[test]
    fn a_slot_answers_for_its_own_address_only() {
        static TABLE: RuleTable = RuleTable::new();
        let rule = |offset| Rule::Frame { base: Base::Sp, offset, below: 16 };
        let mut rivals = (0x1235..).filter(|address| place(*address).0 == place(0x1234).0);
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
        TABLE.put(1 << 48, rule(8));
        assert_eq!([TABLE.get(1 << 48), TABLE.get(0)], [None; 2]);
        TABLE.put(addresses[0], rule(8));
        assert_eq!(TABLE.get(addresses[0] | 1 << 48), None);
    }

    /// No two addresses share a pair and what stands in a slot.
    #[test]
    fn addresses_can_be_told_from_what_is_kept_of_them() {
        let mut random = fastrand::Rng::with_seed(3);
        let mut seen = std::collections::HashMap::new();
        for _ in 0..if cfg!(miri) { 1000 } else { 200_000 } {
            let address = random.u64(..1 << 48);
            let (at, tag) = place(address);
            assert_eq!(tag & ((1 << RULE_BITS) - 1), 0);
            assert_eq!(*seen.entry((at / 2, tag)).or_insert(address), address);
        }
    }
}
