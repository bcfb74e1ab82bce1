//! Commits in pairs: how all statements of a commit become valid in one step. In: the words of two
//! copies and the number of commits. Out: the order of the stores. Never locks, never allocates.
//!
//! The lowest bit of the number of commits says which copy is valid. A commit fills the copy that
//! is not valid, then stores that number. So at every instant one copy is whole:
//!
//! ```text
//! COMMITS      copy 0        copy 1
//!    4         valid         old             commit 5 begins
//!    4         valid         being filled    a reader, or a kill, finds commit 4
//!    5         old           valid           commit 5 is published
//! ```
//!
//! A copy has words in the sidecar's header and two words in every ring. All of them are stored
//! before [`publish`].
//!
//! A reader of a running process may be slow: while it reads copy 0 of commit 4, commits 5 and 6
//! can come, and 6 fills copy 0 again. So a reader reads the number of commits once more at the
//! end, and begins anew if it has changed.

use crate::base::primitive::{AtomicU64, Ordering, fence};

/// Returns the copy, 0 or 1, that the next commit fills if there were `commits` so far.
#[inline]
pub(crate) fn next_copy(commits: u64) -> usize {
    ((commits + 1) & 1) as usize
}

/// Publishes the commit that was filled into [`next_copy`], and returns the number of commits from
/// now on.
///
/// The fence keeps all later stores behind the publication: the next commit's words, and the bytes
/// of the next dump frame. Without the fence a reader could see these stores while it still finds
/// the previous commit valid, whose copy and whose bytes they replace. On x86-64 the fence is no
/// instruction.
#[inline]
pub(crate) fn publish(number: &AtomicU64, commits: u64) -> u64 {
    number.store(commits + 1, Ordering::Release);
    fence(Ordering::Release);
    commits + 1
}
