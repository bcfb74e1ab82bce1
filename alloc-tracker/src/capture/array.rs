//! Arrays in mapped memory that can be looked at in blocks of several values.

use std::ptr::NonNull;

use crate::base::sys::{ErrnoGuard, Mapping, Plain};

/// A growing array in mapped memory, behind room for `SKIP` values, which are all the same.
///
/// PERF: mappings begin at pages, and the beginnings of all pages share a few places in the nearest cache. Arrays that are
/// used together begin at different distances.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Array<T, const SKIP: usize> {
    /// The first value.
    start: NonNull<T>,
    pub(super) len: usize,
    capacity: usize,
    /// What the pointer points into.
    memory: Mapping,
}

impl<T: Plain + Filler, const SKIP: usize> Array<T, SKIP> {
    pub(super) const fn new() -> Array<T, SKIP> {
        Array { start: NonNull::dangling(), len: 0, capacity: 0, memory: Mapping::empty() }
    }

    #[inline(always)]
    pub(super) fn as_slice(&self) -> &[T] {
        // SAFETY: `start` has `capacity` values, and `len` is never above that.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: as in `as_slice`.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// Blocks of `N` values, which together are the first `len` ones; before those, what fills the first block.
    #[inline(always)]
    pub(super) fn blocks<const N: usize>(&self, len: usize) -> impl Iterator<Item = &[T; N]> {
        const { assert!(N <= SKIP + 1) };
        let len = len.min(self.len);
        let blocks = len.div_ceil(N);
        // SAFETY: the first block begins less than `N` values before `start`, where there are `SKIP`, unless there are no blocks.
        unsafe {
            let first = self.start.as_ptr().wrapping_add(len).wrapping_sub(blocks * N).cast::<[T; N]>();
            std::slice::from_raw_parts(first, blocks).iter()
        }
    }

    /// The last `N` values of the first `len` ones, of which there is at least one; before those, what fills the block.
    #[inline(always)]
    pub(super) fn last_block<const N: usize>(&self, len: usize) -> &[T; N] {
        const { assert!(N <= SKIP + 1) };
        debug_assert!((1..=self.len).contains(&len));
        // SAFETY: there is a value, hence memory, with `SKIP` values before the first.
        unsafe { &*self.start.as_ptr().wrapping_add(len).wrapping_sub(N).cast::<[T; N]>() }
    }

    #[inline]
    pub(super) fn get(&self, at: usize) -> Option<&T> {
        self.as_slice().get(at)
    }

    #[inline(always)]
    pub(super) fn push(&mut self, value: T) -> bool {
        let Some([place]) = self.room_for(1) else { return false };
        *place = value;
        self.len += 1;
        true
    }

    /// The places of so many values more, behind the last one; `None` if there is no memory for them.
    #[inline(always)]
    pub(super) fn room_for(&mut self, more: usize) -> Option<&mut [T]> {
        if self.capacity - self.len < more && !self.grow(more) {
            return None;
        }
        // SAFETY: there are `capacity` values, all of them initialised, if only with zeros.
        Some(unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().add(self.len), more) })
    }

    /// Whether [`put`](Array::put) has room for `more` values from this place on, after making some if need be. The places before it
    /// have their values already, whatever `len` says.
    #[inline(always)]
    pub(super) fn has_room(&mut self, at: usize, more: usize) -> bool {
        at + more <= self.capacity || self.grow_behind(at, more)
    }

    /// Puts a value at this place.
    ///
    /// PERF: who puts many counts them in a register, and sets `len` in the end.
    ///
    /// # Safety
    /// There must be room.
    #[inline(always)]
    pub(super) unsafe fn put(&mut self, at: usize, value: T) {
        debug_assert!(at < self.capacity);
        // SAFETY: the caller's promise.
        unsafe { self.start.add(at).write(value) };
    }

    #[cold]
    #[inline(never)]
    fn grow_behind(&mut self, len: usize, more: usize) -> bool {
        self.len = self.capacity.min(len);
        self.grow(more)
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, more: usize) -> bool {
        let _errno = ErrnoGuard::new();
        let capacity = (self.capacity * 2).max(self.len + more).max(FIRST_CAPACITY);
        let Ok(mut memory) = Mapping::anonymous((SKIP + capacity) * size_of::<T>()) else { return false };
        let values = memory.slice_mut::<T>();
        values[..SKIP].fill(T::filler());
        values[SKIP..SKIP + self.len].copy_from_slice(self.as_slice());
        let Some(start) = NonNull::new(values[SKIP..].as_mut_ptr()) else { return false };
        (self.memory, self.start, self.capacity) = (memory, start, capacity);
        true
    }
}

/// What stands in an array before its first value.
pub(super) trait Filler {
    fn filler() -> Self;
}

/// Of address space only: no page is touched that stacks do not reach.
const FIRST_CAPACITY: usize = 512;
