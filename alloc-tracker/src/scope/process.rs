//! Which process has the scopes. In: the first scope of a process. Out: whether this process is a
//! forked child that has inherited them, and must leave them alone: a thread that does not exist
//! here may hold any of their locks.
//!
//! The kernel replaces the *mark* by zeros in a child, as in the recorder's `fork`.

use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use crate::base::sys::{self, Mapping};

/// Whether this process has the scopes; false in a forked child of the one that has them.
#[inline]
pub(super) fn is_owner() -> bool {
    let mark = MARK.load(Ordering::Acquire);
    if mark.is_null() {
        return OWNER.load(Ordering::Relaxed) == sys::pid();
    }
    // Acquire: the thread that has set the mark has forgotten the parent's scopes before.
    //
    // SAFETY: the mark's page is never unmapped; in a forked child the kernel replaces it with
    // zeros, which is a valid value.
    unsafe { &*mark }.load(Ordering::Acquire) != 0
}

/// Whether this process was forked by one that had scopes.
pub(super) fn is_fork() -> bool {
    number() > 1 || (number() == 1 && !is_owner())
}

/// Returns a number for the process that has the scopes: 0 before the first scope, 1 for the first
/// process, one more in each forked child that uses scopes.
pub(super) fn number() -> u32 {
    NUMBER.load(Ordering::Acquire)
}

/// Makes this process the one that has the scopes. In a forked child, `forget` is called first.
pub(super) fn claim(forget: impl FnOnce()) {
    let own = sys::pid();
    loop {
        match OWNER.load(Ordering::Acquire) {
            owner if owner == own => return,
            // Another thread of this process is claiming. If it is one of a parent, it does not
            // exist here.
            owner if owner == own | BEING_CLAIMED => sys::yield_now(),
            owner => {
                let claimed = own | BEING_CLAIMED;
                let claims = OWNER.compare_exchange(owner, claimed, Ordering::AcqRel, Ordering::Relaxed);
                if claims.is_err() {
                    continue;
                }
                if owner != NO_OWNER {
                    forget();
                }
                NUMBER.fetch_add(1, Ordering::AcqRel);
                set_mark();
                OWNER.store(own, Ordering::Release);
                return;
            }
        }
    }
}

fn set_mark() {
    let mut mark = MARK.load(Ordering::Relaxed);
    if mark.is_null()
        && let Some(page) = Mapping::anonymous(sys::page_size() as usize).ok().filter(Mapping::wipe_on_fork)
    {
        mark = page.leak().cast::<AtomicU32>();
    }
    if !mark.is_null() {
        // SAFETY: a zeroed page, aligned and large enough, never unmapped.
        unsafe { (*mark).store(1, Ordering::Release) };
        MARK.store(mark, Ordering::Release);
    }
}

/// The first word of a page that a child does not inherit; null before the first scope, and where
/// the kernel cannot wipe pages.
static MARK: AtomicPtr<AtomicU32> = AtomicPtr::new(std::ptr::null_mut());
/// The process id of the process that has the scopes, or with [`BEING_CLAIMED`] that will have
/// them.
static OWNER: AtomicU32 = AtomicU32::new(NO_OWNER);
/// See [`number`].
static NUMBER: AtomicU32 = AtomicU32::new(0);
const NO_OWNER: u32 = 0;
/// A thread of the process is making the scopes its own. No process id has this bit.
const BEING_CLAIMED: u32 = 1 << 31;
