//! Scopes: which blocks were born while a thread was inside of a scope, and which of them are live.
//!
//! In: beginnings and ends of scopes, entries of threads, and all heap events of the process while
//! there is a scope. Out: what is live of a scope, with the birth stacks. An event of a thread
//! inside of a scope adds a block to the table; a free or a realloc by *any* thread finds it there:
//!
//! ```text
//! thread A   enters a scope
//! thread A     alloc(0x1000)      table: 0x1000, born in the scope
//! thread B   realloc(0x1000) = 0x2000      0x2000, born in the scope, with its new size
//! thread A   leaves the scope
//! thread B   free(0x2000)                  -
//! ```
//!
//! Without a live scope the hook does not call this module.
//!
//! The functions for events run inside the host's allocator calls: they never panic, never allocate
//! through the global allocator, and take no lock that application code can hold. Locks: first that
//! of [`begin`] and [`end`], then one of a shard of the table.
//!
//! | module | idea |
//! | --- | --- |
//! | `slots` | the scopes, who encloses whom, what is live of each |
//! | `blocks` | the table of blocks |
//! | `births` | the birth stacks |
//! | `sites` | what each birth stack of a scope has allocated |
//! | `everyone` | the scope that all threads are inside of |
//! | `thread_scopes` | what a thread knows of scopes |
//! | `process` | forked children |

mod births;
mod blocks;
mod everyone;
mod process;
mod sites;
mod slots;
mod thread_scopes;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::base::mode::{self, SCOPE};
use crate::base::sys::{ErrnoGuard, FutexLock};
use crate::capture::{EntryFrame, Shim, StackWalker};

pub(crate) use births::{for_each_address, ignore_calls_at, walk_by_platform};
use blocks::{BornBlock, Shard, shard_of};
pub(crate) use sites::StackFigures;
use slots::Allocated;
pub(crate) use slots::{Kept, LiveInScope, MAX_SCOPES, NoScope, ScopeFigures, ScopeId};
pub(crate) use thread_scopes::{EntryNumber, MAX_DEPTH, ThreadScopes};

/// Begins a scope, inside of the innermost one of the calling thread, whose scopes are handed in.
/// The thread does not enter it.
pub(crate) fn begin(thread: &mut ThreadScopes, kept: Kept) -> Result<ScopeId, NoScope> {
    process::claim(forget_after_fork);
    thread.belong_to(process::number());
    let mut alive = ALIVE.lock();
    let opened = with_scope_of_events(thread, |parent| slots::open(parent, kept));
    let id = opened.unwrap_or_else(|| slots::open(slots::NONE, kept))?;
    if *alive == 0 {
        PERIOD.fetch_add(1, Ordering::Relaxed);
        mode::switch_on(SCOPE);
    }
    *alive += 1;
    Ok(id)
}

/// Ends a scope. Its blocks still count for the scopes around it. Does nothing in a forked child
/// that has inherited the scope. The calling thread must be in the hook.
pub(crate) fn end(id: ScopeId) {
    if !process::is_owner() || !slots::end(id) {
        return;
    }
    if slots::live_in(id.slot).blocks > 0 && !slots::any_alive(id.slot) {
        forget_blocks_of_ended_scopes();
    }
    slots::release(id.slot);
    let mut alive = ALIVE.lock();
    *alive -= 1;
    if *alive == 0 {
        mode::switch_off(SCOPE);
        // A thread that is just noting an event may have added a block since.
        forget_blocks_of_ended_scopes();
        SHARDS.iter().for_each(|shard| shard.with(|table| table.give_memory_back()));
    }
}

/// Makes the thread enter a scope. `None` if the scope has ended, or is a parent process's.
///
/// # Errors
/// The thread is inside of [`MAX_DEPTH`] scopes.
pub(crate) fn enter(thread: &mut ThreadScopes, id: ScopeId) -> Result<Option<EntryNumber>, TooDeep> {
    if !process::is_owner() {
        return Ok(None);
    }
    thread.belong_to(process::number());
    if !slots::acquire_if_alive(id) {
        return Ok(None);
    }
    let entry = thread.enter(id.slot);
    if entry.is_none() {
        slots::release(id.slot);
    }
    entry.map(Some).ok_or(TooDeep)
}

/// The thread is inside of too many scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooDeep;

/// Makes the thread be outside of all scopes until it leaves this entry. `None` if there is no
/// need, or no room.
pub(crate) fn step_outside(thread: &mut ThreadScopes) -> Option<EntryNumber> {
    if !process::is_owner() || (thread.innermost_alive().is_none() && everyone::scope().is_none()) {
        return None;
    }
    thread.belong_to(process::number());
    thread.enter(slots::NONE)
}

/// Makes the thread leave a scope.
pub(crate) fn leave(thread: &mut ThreadScopes, entry: EntryNumber) {
    if process::is_owner() {
        thread.belong_to(process::number());
        thread.leave(entry);
    }
}

/// Returns the innermost scope that the thread is inside of and that has not ended.
pub(crate) fn current(thread: &mut ThreadScopes) -> Option<ScopeId> {
    if !process::is_owner() {
        return None;
    }
    thread.belong_to(process::number());
    thread.innermost_alive()
}

/// Returns what is live of a scope that has not ended. In a forked child that has inherited the
/// scope: nothing.
pub(crate) fn live(id: ScopeId) -> LiveInScope {
    if !process::is_owner() || !slots::acquire_if_alive(id) {
        return LiveInScope::default();
    }
    let live = slots::live_in(id.slot);
    slots::release(id.slot);
    live
}

/// Makes all threads of the process be inside of this scope, wherever they are not inside of
/// another one. Returns the scope of which that was true before.
pub(crate) fn follow_all_threads(id: Option<ScopeId>) -> Option<ScopeId> {
    everyone::replace(id)
}

/// Says whether the main thread is one of all threads.
pub(crate) fn follow_main_thread(is_followed: bool) {
    everyone::follow_main_thread(is_followed);
}

/// Whether the calling thread is inside of the scope that all threads are inside of, by an entry of
/// its own.
pub(crate) fn has_entered_scope_of_all(thread: &mut ThreadScopes) -> bool {
    match (current(thread), everyone::scope()) {
        (Some(own), Some(all)) => slots::is_within(own.slot, all.slot),
        _ => false,
    }
}

/// Returns the figures of a scope that has not ended. In a forked child that has inherited the
/// scope: zeros.
pub(crate) fn figures(id: ScopeId) -> ScopeFigures {
    if !process::is_owner() || !slots::acquire_if_alive(id) {
        return ScopeFigures::default();
    }
    let figures = slots::figures_of(id.slot);
    slots::release(id.slot);
    figures
}

/// Calls `f` with the figures of every birth stack of a scope that was begun with [`Kept::Sites`].
/// The calling thread must be in the hook. `f` runs under a lock and must not allocate.
pub(crate) fn for_each_stack(id: ScopeId, f: impl FnMut(&StackFigures)) {
    if process::is_owner() && slots::acquire_if_alive(id) {
        slots::for_each_stack(id.slot, f);
        slots::release(id.slot);
    }
}

/// Returns the parts of the table, for [`for_each_live`].
pub(crate) fn shards() -> impl Iterator<Item = &'static Shard> {
    SHARDS.iter()
}

/// Calls `f` with the size and the birth stack of every live block in this part of the table that
/// counts for this scope. The calling thread must be in the hook. `f` runs under a lock and must
/// not allocate.
pub(crate) fn for_each_live(id: ScopeId, shard: &Shard, mut f: impl FnMut(u64, u32)) {
    if !process::is_owner() || !slots::acquire_if_alive(id) {
        return;
    }
    shard.with(|table| {
        table.for_each(|block| {
            if slots::is_within(block.scope, id.slot) {
                f(block.size, block.stack);
            }
        });
    });
    slots::release(id.slot);
}

/// Notes that a block of this address and size was allocated, by a shim that this frame has
/// entered.
#[cold]
pub(crate) fn note_alloc(
    thread: &mut ThreadScopes,
    walker: &mut StackWalker,
    (addr, size): (u64, u64),
    shim: Shim,
    entered: &EntryFrame,
) {
    if !is_own_event(thread) {
        return;
    }
    let noted = with_scope_of_events(thread, |scope| {
        let _errno = ErrnoGuard::new();
        if let Some(stack) = births::note(walker, shim, entered.registers()) {
            slots::count_event(scope, &Allocated { is_realloc: false, bytes: size, stack });
            insert(BornBlock { addr, size, scope, stack }, Birth::New);
        }
    });
    if noted.is_none() && MISSED_FREES.load(Ordering::Relaxed) != 0 {
        note_dealloc(thread, addr);
    }
}

/// Notes that a block is about to be freed.
#[cold]
pub(crate) fn note_dealloc(thread: &mut ThreadScopes, addr: u64) {
    if is_own_event(thread)
        && let Some(block) = take(addr)
    {
        slots::count_end(&block);
    }
}

/// Notes that a block is about to be moved.
#[cold]
pub(crate) fn note_realloc_begin(thread: &mut ThreadScopes, addr: u64) {
    if is_own_event(thread) {
        let block = take(addr);
        if !thread.begin_move(block, period())
            && let Some(block) = block
        {
            // Signal handlers have interrupted each other within reallocs, more than `MAX_MOVES`.
            slots::count_end(&block);
            note_missed(false);
        }
    }
}

/// Counts a realloc to this size, by a shim that this frame has entered.
#[cold]
pub(crate) fn note_realloc(
    thread: &mut ThreadScopes,
    walker: &mut StackWalker,
    size: u64,
    shim: Shim,
    entered: &EntryFrame,
) {
    if !is_own_event(thread) {
        return;
    }
    with_scope_of_events(thread, |scope| {
        let _errno = ErrnoGuard::new();
        // PERF: only a table of sites needs the stack.
        let stack = match slots::keeps_sites(scope) {
            true => births::note(walker, shim, entered.registers()),
            false => Some(births::UNKNOWN),
        };
        if let Some(stack) = stack {
            slots::count_event(scope, &Allocated { is_realloc: true, bytes: size, stack });
        }
    });
}

/// Notes that a block was moved, to this address and size; or that it was not, if there is no new
/// place. A block that was born outside of all scopes stays that.
#[cold]
pub(crate) fn note_realloc_end(thread: &mut ThreadScopes, moved_to: Option<(u64, u64)>) {
    if !is_own_event(thread) {
        return;
    }
    let Some(block) = thread.end_move(period()) else { return };
    let (addr, size) = moved_to.unwrap_or((block.addr, block.size));
    slots::count_growth(&block, size.wrapping_sub(block.size) as i64);
    insert(BornBlock { addr, size, ..block }, Birth::Moved);
}

/// Notes that an event was not followed, because a signal handler that has interrupted the hook has
/// made it.
#[cold]
pub(crate) fn note_missed(is_free: bool) {
    MISSED.fetch_add(1, Ordering::Relaxed);
    if is_free {
        MISSED_FREES.fetch_add(1, Ordering::Relaxed);
    }
}

/// Returns how many events of the process were not followed so far, because signal handlers that
/// have interrupted the hook have made them.
pub(crate) fn missed_events() -> u64 {
    MISSED.load(Ordering::Relaxed)
}

/// Whether events of this process are noted. In a forked child that has not begun a scope of its
/// own, none is.
///
/// NOTE: such a child does not switch the scope mode off, although nothing comes of its events.
/// Another thread of the child may begin a scope just then, and would have its mode switched off:
///
/// ```text
/// child, thread A    notes an event, and sees that the scopes are its parent's
/// child, thread B    begins a scope, and switches the mode on
/// child, thread A    would switch it off: the scope of B would follow nothing
/// ```
fn is_own_event(thread: &mut ThreadScopes) -> bool {
    let is_own = process::is_owner();
    if is_own {
        thread.belong_to(process::number());
    }
    is_own
}

/// Calls `f` with the slot of the scope that the thread's events belong to, to which there is a
/// reference meanwhile; `None` if there is no such scope.
fn with_scope_of_events<R>(thread: &ThreadScopes, f: impl FnOnce(u32) -> R) -> Option<R> {
    if let Some(own) = thread.innermost_alive() {
        // The entry of the thread has the reference.
        return Some(f(own.slot));
    }
    let all = everyone::scope_of_this_thread()?;
    if thread.is_outside() || !slots::acquire_if_alive(all) {
        return None;
    }
    let result = f(all.slot);
    slots::release(all.slot);
    Some(result)
}

/// Takes the block at this address out of the table.
fn take(addr: u64) -> Option<BornBlock> {
    let shard = shard(addr);
    shard.may_have_blocks().then(|| shard.with(|table| table.remove(addr))).flatten()
}

/// Whether a block is counted as live already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Birth {
    /// It was just allocated, and is not counted yet.
    New,
    /// It is counted, and has a new address or size.
    Moved,
}

/// Puts a block into the table, and counts it if it is new.
fn insert(block: BornBlock, birth: Birth) {
    shard(block.addr).with(|table| {
        // Under the lock: the last scope that ends empties all shards, and then no block may come
        // any more.
        let inserted = slots::any_alive(block.scope).then(|| table.insert(block));
        match inserted {
            Some(Ok(before)) => {
                if birth == Birth::New {
                    slots::count_birth(&block);
                }
                // A block whose free was not seen.
                if let Some(before) = before {
                    slots::count_end(&before);
                }
                return;
            }
            Some(Err(_)) => slots::count_unfollowed(block.scope),
            None => {}
        }
        if birth == Birth::Moved {
            slots::count_end(&block);
        }
    });
}

/// Takes all blocks out of the table that count for no scope any more. The calling thread must be
/// in the hook.
fn forget_blocks_of_ended_scopes() {
    for shard in &SHARDS {
        shard.with(|table| table.retain(|block| slots::any_alive(block.scope), slots::count_end));
    }
}

/// Forgets all scopes in a forked child.
fn forget_after_fork() {
    // SAFETY: in the child no event uses the scopes before this process has them (`is_own_event`),
    // and one thread alone claims them.
    unsafe {
        SHARDS.iter().for_each(|shard| shard.reset_after_fork());
        slots::reset_after_fork();
        births::reset_after_fork();
        sites::reset_after_fork();
        ALIVE.reset(0);
    }
    everyone::replace(None);
    mode::switch_off(SCOPE);
}

/// Whether this process was forked by one that had scopes.
pub(crate) fn is_in_fork() -> bool {
    process::is_fork()
}

/// Whether a thread's scopes are those of the process that runs.
fn is_own_process(number: u32) -> bool {
    number == process::number() && process::is_owner()
}

/// Returns a number that changes whenever the first scope begins: moves of blocks that have begun
/// before may have ended unseen.
fn period() -> u32 {
    PERIOD.load(Ordering::Relaxed)
}

fn shard(addr: u64) -> &'static Shard {
    &SHARDS[shard_of(addr, COUNT_OF_SHARDS)]
}

const COUNT_OF_SHARDS: usize = 64;
static SHARDS: [Shard; COUNT_OF_SHARDS] = [const { Shard::new() }; COUNT_OF_SHARDS];
/// How many scopes have not ended.
static ALIVE: FutexLock<usize> = FutexLock::new(0);
/// See [`period`].
static PERIOD: AtomicU32 = AtomicU32::new(0);
/// Events that were not followed, and the frees among them.
static MISSED: AtomicU64 = AtomicU64::new(0);
static MISSED_FREES: AtomicU64 = AtomicU64::new(0);

// Miri knows no fork.
#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    /// A child may have several threads. If one of them begins a scope, no event of another thread
    /// that has just seen the parent's scopes may switch the mode off.
    #[test]
    fn only_the_end_of_a_scope_switches_the_mode_off() {
        let mut thread = ThreadScopes::new();
        let id = begin(&mut thread, Kept::Figures).unwrap();
        // SAFETY: the child uses atomics only, and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            note_dealloc(&mut thread, 64);
            let is_on = mode::current() & SCOPE != 0;
            // SAFETY: the call ends the child at once.
            unsafe { libc::_exit(is_on.into()) };
        }
        let mut status = 0;
        // SAFETY: the child exists, and the status is valid.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!((libc::WIFEXITED(status), libc::WEXITSTATUS(status)), (true, 1));
        end(id);
    }
}
