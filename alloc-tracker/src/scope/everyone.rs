//! The scope that all threads are inside of, wherever they are not inside of another one. In: a
//! scope. Out: its id, if it has not been replaced. Atomic words: never locks.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::slots::ScopeId;
use crate::base::sys;

/// Returns the scope, which may have ended.
pub(super) fn scope() -> Option<ScopeId> {
    ScopeId::from_word(SCOPE.load(Ordering::Acquire))
}

/// Returns the scope, if it follows the calling thread.
pub(super) fn scope_of_this_thread() -> Option<ScopeId> {
    let all = scope()?;
    let is_followed = FOLLOWS_MAIN.load(Ordering::Relaxed) || sys::tid() != sys::pid();
    is_followed.then_some(all)
}

/// Says whether the main thread is followed.
pub(super) fn follow_main_thread(is_followed: bool) {
    FOLLOWS_MAIN.store(is_followed, Ordering::Relaxed);
}

/// Replaces the scope, and returns the one before.
pub(super) fn replace(id: Option<ScopeId>) -> Option<ScopeId> {
    ScopeId::from_word(SCOPE.swap(id.map_or(0, ScopeId::to_word), Ordering::AcqRel))
}

/// 0: there is none.
static SCOPE: AtomicU64 = AtomicU64::new(0);
static FOLLOWS_MAIN: AtomicBool = AtomicBool::new(true);
