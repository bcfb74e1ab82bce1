//! The scope that all threads are inside of, wherever they are not inside of another one. In: a
//! scope. Out: its id, if it has not been replaced. One atomic word: never locks.

use std::sync::atomic::{AtomicU64, Ordering};

use super::slots::ScopeId;

/// Returns the scope, which may have ended.
pub(super) fn scope() -> Option<ScopeId> {
    ScopeId::from_word(SCOPE.load(Ordering::Acquire))
}

/// Replaces the scope, and returns the one before.
pub(super) fn replace(id: Option<ScopeId>) -> Option<ScopeId> {
    ScopeId::from_word(SCOPE.swap(id.map_or(0, ScopeId::to_word), Ordering::AcqRel))
}

/// 0: there is none.
static SCOPE: AtomicU64 = AtomicU64::new(0);
