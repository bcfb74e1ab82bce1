//! The packed unwind rules of all code addresses that walks have met, for all threads.
//!
//! In: rules, by one writer at a time. Out: rules, to any number of readers. A look-up takes no
//! lock and makes no system call; nothing here allocates.

use std::sync::atomic::{AtomicU64, Ordering};

use super::code_address::CodeAddress;
use super::rule::PackedRule;

/// A hash table from code addresses to packed rules. Two neighbouring slots are a pair, which holds
/// the last addresses that fell onto one of the two.
///
/// A slot is one word, so that it can be read without a lock, and eight slots fit into a cache
/// line. A word has no room for an address of 48 bits and a rule of 30. So the address is mixed
/// first: multiplied by an odd number, modulo 2^48. Such a multiplication can be undone, so no two
/// addresses have the same product. The upper bits of the product select the pair of slots. Only
/// the other bits must be stored in the slot:
///
/// ```text
/// product    47          34 33                                   0
///           +--------------+--------------------------------------+
///           |   14: pair   |               34: tag                |
///           +--------------+--------------------------------------+
///            bit 33, the first of the tag: which slot of the pair is tried first
///
/// slot       63                                 30 29             0
///           +-------------------------------------+----------------+
///           |               34: tag               |    30: rule    |
///           +-------------------------------------+----------------+
/// ```
///
/// A slot of zeros is empty, because no packed rule is zero.
#[repr(align(64))]
pub(super) struct RuleTable {
    slots: [AtomicU64; SLOTS],
}

impl RuleTable {
    pub(super) const fn new() -> RuleTable {
        RuleTable { slots: [const { AtomicU64::new(EMPTY) }; SLOTS] }
    }

    /// Returns the rule of a code address; `None` if the table has none.
    #[inline(always)]
    pub(super) fn get(&self, address: CodeAddress) -> Option<PackedRule> {
        let (slot, tag) = slot_and_tag(address);
        // Without the tag, the word of this address is below 2^30. An address of more than 48 bits
        // has no slot.
        let word = self.slots[slot].load(Ordering::Relaxed) ^ tag;
        if (word >> PackedRule::BITS) | (address.0 >> ADDRESS_BITS) == 0 {
            return PackedRule::from_word(word);
        }
        // PERF: the other slot of the pair is in the same cache line.
        let word = self.slots[slot ^ 1].load(Ordering::Relaxed) ^ tag;
        if (word >> PackedRule::BITS) | (address.0 >> ADDRESS_BITS) == 0 {
            PackedRule::from_word(word)
        } else {
            None
        }
    }

    /// Stores the rule of a code address. If another address is in its slot, that address moves to
    /// the other slot of the pair and replaces the one there. The rule of an address of more than
    /// 48 bits is not stored.
    pub(super) fn put(&self, address: CodeAddress, rule: PackedRule) {
        if address.0 >> ADDRESS_BITS != 0 {
            return;
        }
        let (slot, tag) = slot_and_tag(address);
        let before = self.slots[slot].load(Ordering::Relaxed);
        if before != EMPTY && (before ^ tag) >> PackedRule::BITS != 0 {
            self.slots[slot ^ 1].store(before, Ordering::Relaxed);
        }
        self.slots[slot].store(tag | rule.to_word(), Ordering::Relaxed);
    }

    /// Forgets all rules, because the code at some addresses has changed.
    pub(super) fn clear(&self) {
        for slot in &self.slots {
            slot.store(EMPTY, Ordering::Relaxed);
        }
    }
}

/// The word of a slot without a rule.
const EMPTY: u64 = 0;
const ADDRESS_BITS: u32 = 48;

/// The number of slots. They have 256 KiB, of which the kernel provides only pages that are used.
///
/// PERF: 4,096 slots are too few for a program like a parser of Rust. Above 16,384 slots, more
/// slots change little.
const SLOTS: usize = 1 << SLOT_BITS;
const SLOT_BITS: u32 = 15;
/// The size of a table in bytes.
pub(super) const TABLE_BYTES: u64 = size_of::<RuleTable>() as u64;

/// Returns the first slot of an address, and the address's tag at its position in a slot.
#[inline(always)]
fn slot_and_tag(address: CodeAddress) -> (usize, u64) {
    // The factor is odd, so no two addresses have the same product.
    let mixed = address.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) << (u64::BITS - ADDRESS_BITS);
    ((mixed >> (u64::BITS - SLOT_BITS)) as usize, mixed << (SLOT_BITS - 1))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::super::rule::{CfaBase, UnwindRule};
    use super::*;

    #[test]
    fn a_slot_answers_for_its_own_address_only() {
        static TABLE: RuleTable = RuleTable::new();
        let fp_saved_below_cfa = NonZeroU32::new(16);
        let rule = |offset| UnwindRule::Cfa { base: CfaBase::StackPointer, offset, fp_saved_below_cfa };
        let slot = |address: &CodeAddress| slot_and_tag(*address).0;
        let mut rivals =
            (0x1235..).map(CodeAddress).filter(|rival| slot(rival) == slot(&CodeAddress(0x1234)));
        let addresses = [CodeAddress(0x1234), rivals.next().unwrap(), rivals.next().unwrap()];
        let get = || addresses.map(|address| TABLE.get(address).map(PackedRule::unpack));
        assert_eq!((TABLE.get(CodeAddress(0)), get()), (None, [None; 3]));
        TABLE.put(addresses[0], rule(8).pack());
        assert_eq!(get(), [Some(rule(8)), None, None]);
        TABLE.put(addresses[1], rule(16).pack());
        assert_eq!(get(), [Some(rule(8)), Some(rule(16)), None]);
        TABLE.put(addresses[1], rule(24).pack());
        assert_eq!(get(), [Some(rule(8)), Some(rule(24)), None]);
        TABLE.put(addresses[2], rule(32).pack());
        assert_eq!(get(), [None, Some(rule(24)), Some(rule(32))]);
        TABLE.clear();
        assert_eq!(get(), [None; 3]);
        TABLE.put(CodeAddress(1 << 48), rule(8).pack());
        assert_eq!([TABLE.get(CodeAddress(1 << 48)), TABLE.get(CodeAddress(0))], [None; 2]);
        TABLE.put(addresses[0], rule(8).pack());
        assert_eq!(TABLE.get(CodeAddress(addresses[0].0 | 1 << 48)), None);
    }

    #[test]
    fn no_two_addresses_share_a_pair_of_slots_and_a_tag() {
        let mut random = fastrand::Rng::with_seed(3);
        let mut seen = std::collections::HashMap::new();
        for _ in 0..if cfg!(miri) { 1000 } else { 200_000 } {
            let address = random.u64(..1 << 48);
            let (slot, tag) = slot_and_tag(CodeAddress(address));
            assert_eq!(tag & ((1 << PackedRule::BITS) - 1), 0);
            assert_eq!(*seen.entry((slot / 2, tag)).or_insert(address), address);
        }
    }
}
