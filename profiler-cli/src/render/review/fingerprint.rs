//! Identities of findings, by which a platform knows a finding of an earlier commit again. In: the
//! findings of a review. Out: one text for each, all different.
//!
//! NOTE: Lines and stacks are left out. Both change when code around the finding is edited, and the
//! platform would close the finding and report it as a new one.

use std::collections::BTreeMap;

use super::place::RepositoryPlace;
use crate::analyze::review::Finding;

/// Returns the fingerprints of findings, in the same order: a hash of the rule, the function and
/// the file, and a number, such as `af63dc4c8601ec8c:1`. The number tells findings apart that have
/// all three in common. It follows their lines: figures, which vary, must not swap two identities.
pub(super) fn fingerprints(findings: &[Finding], place: &RepositoryPlace) -> Vec<String> {
    let mut order: Vec<usize> = (0..findings.len()).collect();
    order.sort_by_key(|at| findings[*at].line);
    let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
    let mut fingerprints = vec![String::new(); findings.len()];
    for at in order {
        let finding = &findings[at];
        let path = finding.file.as_deref().and_then(|file| place.relative(file)).unwrap_or_default();
        let hash = fnv_1a([finding.rule.id(), "\0", &finding.function, "\0", &path]);
        let number = seen.entry(hash).and_modify(|number| *number += 1).or_insert(1);
        fingerprints[at] = format!("{hash:016x}:{number}");
    }
    fingerprints
}

/// Returns the 64-bit FNV-1a hash of some texts as one. It is the same in every release and on
/// every machine. <https://datatracker.ietf.org/doc/html/draft-eastlake-fnv>
fn fnv_1a<'a>(texts: impl IntoIterator<Item = &'a str>) -> u64 {
    let bytes = texts.into_iter().flat_map(str::bytes);
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::review::Severity;
    use crate::render::review::made::{finding, place};

    #[test]
    fn equal_names_get_numbers_by_line_and_edits_change_nothing() {
        let of = |function: &str, line| finding(Severity::Warning, function, line);
        let before = fingerprints(&[of("f", 9), of("g", 1), of("f", 3)], &place());
        assert!(before[2].ends_with(":1") && before[0].ends_with(":2"), "{before:?}");
        assert_eq!(before[0][..16], before[2][..16]);
        assert_ne!(before[0][..16], before[1][..16]);
        // Lines are inserted above, figures change their order, and a caller gets another name.
        let mut moved = [of("f", 103), of("f", 109), of("g", 101)];
        moved[0].stack[1].function = "other".to_owned();
        let after = fingerprints(&moved, &place());
        assert_eq!([&after[1], &after[2], &after[0]], [&before[0], &before[1], &before[2]]);
    }

    #[test]
    fn the_hash_is_that_of_the_published_vectors() {
        assert_eq!(fnv_1a([]), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv_1a(["foo", "bar"]), 0x8594_4171_f739_67e8);
    }
}
