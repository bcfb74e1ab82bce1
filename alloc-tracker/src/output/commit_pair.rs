//! Commits in pairs: how everything that a commit says becomes valid in one step. In: the words of two
//! copies and the number of commits. Out: the order of the stores. Never locks, never allocates.
//!
//! The number of commits tells by its lowest bit which copy is valid. A commit fills the copy that is
//! not valid, then stores that number. So at every instant one copy is whole:
//!
//! ```text
//! COMMITS      copy 0        copy 1
//!    4         valid         old             commit 5 begins
//!    4         valid         being filled    a reader, or a kill, finds commit 4
//!    5         old           valid           commit 5 is published
//! ```
//!
//! A copy has words in the sidecar's header and two words in every ring. All of them are stored between
//! [`begin`] and [`publish`].
//!
//! A reader of a running process may be slow: while it reads copy 0 of commit 4, commits 5 and 6 can
//! come, and 6 fills copy 0 again. So a reader reads the number of commits once more at the end, and
//! begins anew if it has changed ([`alloc_dump::sidecar`]).

use crate::base::primitive::{AtomicU64, Ordering, fence};

/// Returns the copy that the next commit fills, 0 or 1. Must be called before the first store into that
/// copy; `commits` is the number of commits so far.
///
/// The fence keeps these stores behind the one that published the last commit. Without it a reader
/// could see them while it still finds the commit before the last one, which is in the same copy. On
/// x86-64 the fence is no instruction.
#[inline]
pub(crate) fn begin(commits: u64) -> usize {
    fence(Ordering::Release);
    copy_of(commits + 1)
}

/// Publishes the commit that [`begin`] has begun, and returns the number of commits from now on.
#[inline]
pub(crate) fn publish(number: &AtomicU64, commits: u64) -> u64 {
    number.store(commits + 1, Ordering::Release);
    commits + 1
}

/// Returns the copy that the commit with this number is in.
#[inline]
pub(crate) fn copy_of(commit: u64) -> usize {
    (commit & 1) as usize
}
