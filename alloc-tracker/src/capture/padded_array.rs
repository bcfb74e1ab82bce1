//! Growing arrays in mapped memory that can be read in groups of several values.
//!
//! In: plain values. Out: slices and groups of them. Memory comes from the kernel, never from the
//! allocator. If the kernel gives none, methods return false or `None` and the array stays as it
//! was.

use std::ptr::NonNull;

use crate::base::sys::{Mapping, Plain};

/// A growing array with `PADDING` values of padding before its first value.
///
/// The padding makes the number of values irrelevant to a loop that reads groups of `N`. A walk of
/// five words, for example, is compared in two groups of four without a branch for the first one:
///
/// ```text
///   padding          values
///   p p p p p p p p  v0 v1 v2 v3 v4
///             +-------+ +---------+
///              group 0    group 1
/// ```
///
/// PERF: mappings begin at pages, and the beginnings of all pages compete for a few lines of the
/// first-level cache. Arrays that are used together have paddings of different lengths, so their
/// values begin at different distances from a page.
#[derive(Debug)]
#[repr(C)]
pub(super) struct PaddedArray<T, const PADDING: usize> {
    /// The first value, behind the padding.
    start: NonNull<T>,
    pub(super) len: usize,
    capacity: usize,
    /// The mapping that `start` points into, unless that is memory of another owner.
    memory: Mapping,
}

/// A type that can pad a [`PaddedArray`].
pub(super) trait Padding {
    /// Returns the value that stands before the first value of an array.
    fn padding() -> Self;
}

impl<T: Plain + Padding, const PADDING: usize> PaddedArray<T, PADDING> {
    pub(super) const fn new() -> PaddedArray<T, PADDING> {
        PaddedArray { start: NonNull::dangling(), len: 0, capacity: 0, memory: Mapping::empty() }
    }

    /// Returns how many bytes an array of this capacity takes.
    pub(super) const fn len_in_bytes(capacity: usize) -> usize {
        (PADDING + capacity) * size_of::<T>()
    }

    /// Makes an empty array without memory begin in memory of another owner, until it grows.
    ///
    /// # Safety
    /// `memory` must be aligned for `T` and have
    /// [`len_in_bytes(capacity)`](PaddedArray::len_in_bytes) initialised bytes. Nothing else may
    /// use them as long as the array lives.
    pub(super) unsafe fn begin_in(&mut self, memory: NonNull<u8>, capacity: usize) {
        let first = memory.cast::<T>();
        for index in 0..PADDING {
            // SAFETY: the padding lies within the memory that the caller has promised.
            unsafe { first.add(index).write(T::padding()) };
        }
        // SAFETY: as above; the values begin behind the padding.
        (self.start, self.capacity) = (unsafe { first.add(PADDING) }, capacity);
    }

    #[inline(always)]
    pub(super) fn as_slice(&self) -> &[T] {
        // SAFETY: `start` has `capacity` values, all initialised, and `len` is never above
        // `capacity`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: as in `as_slice`; `self` is borrowed mutably for as long as the slice lives.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// Returns the first `len` values in groups of `N`. If `len` is no multiple of `N`, the first
    /// group begins with padding.
    #[inline(always)]
    pub(super) fn groups<const N: usize>(&self, len: usize) -> impl Iterator<Item = &[T; N]> {
        const { assert!(N <= PADDING + 1) };
        let len = len.min(self.len);
        let groups = len.div_ceil(N);
        // SAFETY: with no groups the slice is empty. Otherwise there is memory, and the first group
        // begins at most `N - 1` values before `start`, where there are `PADDING >= N - 1`
        // initialised values; the last one ends at `len <= self.len`.
        unsafe {
            let first = self.start.as_ptr().wrapping_add(len).wrapping_sub(groups * N).cast::<[T; N]>();
            std::slice::from_raw_parts(first, groups).iter()
        }
    }

    /// Returns the last `N` of the first `len` values, with padding before them if there are fewer.
    /// `len` must be at least 1 and at most the array's length.
    #[inline(always)]
    pub(super) fn last_group<const N: usize>(&self, len: usize) -> &[T; N] {
        const { assert!(N <= PADDING + 1) };
        debug_assert!((1..=self.len).contains(&len));
        // SAFETY: there is at least one value, hence memory; the group begins at most `N - 1`
        // values before `start`, where there are `PADDING >= N - 1` initialised values.
        unsafe { &*self.start.as_ptr().wrapping_add(len).wrapping_sub(N).cast::<[T; N]>() }
    }

    #[inline]
    pub(super) fn get(&self, index: usize) -> Option<&T> {
        self.as_slice().get(index)
    }

    /// Appends a value; false if there is no memory for it.
    #[inline(always)]
    pub(super) fn push(&mut self, value: T) -> bool {
        let Some([slot]) = self.spare_slots(1) else { return false };
        *slot = value;
        self.len += 1;
        true
    }

    /// Returns the `count` slots behind the last value; the array grows if it has fewer; `None` if
    /// there is no memory. The caller adds to `len` as many as it has filled.
    #[inline(always)]
    pub(super) fn spare_slots(&mut self, count: usize) -> Option<&mut [T]> {
        if self.capacity - self.len < count && !self.grow(count) {
            return None;
        }
        // SAFETY: `start` has `capacity >= len + count` values, all initialised, if only with
        // zeros.
        Some(unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().add(self.len), count) })
    }

    /// Makes sure that [`write`](PaddedArray::write) has room for `more` values from `index` on;
    /// false if there is no memory. The caller has written the values before `index` already,
    /// whatever `len` says.
    #[inline(always)]
    pub(super) fn ensure_room(&mut self, index: usize, more: usize) -> bool {
        index + more <= self.capacity || self.grow_from(index, more)
    }

    /// Writes a value without changing `len`.
    ///
    /// PERF: a caller that appends many values counts them in a register and sets `len` in the end.
    ///
    /// # Safety
    /// `index` must be below a bound that [`ensure_room`](PaddedArray::ensure_room) has made.
    #[inline(always)]
    pub(super) unsafe fn write(&mut self, index: usize, value: T) {
        debug_assert!(index < self.capacity);
        // SAFETY: the caller promises `index < capacity`, and `start` has `capacity` values.
        unsafe { self.start.add(index).write(value) };
    }

    /// Gives the memory back if there is room for more than `most` values: moves the values into an
    /// array without room to spare. Keeps the memory if the kernel gives no other.
    pub(super) fn shrink_if_above(&mut self, most: usize) {
        if self.capacity > most && self.len <= most {
            let mut small = PaddedArray::new();
            if small.grow(self.len)
                && let Some(slots) = small.spare_slots(self.len)
            {
                slots.copy_from_slice(self.as_slice());
                small.len = self.len;
                *self = small;
            }
        }
    }

    /// Grows an array of which the first `len` values are written.
    #[cold]
    #[inline(never)]
    fn grow_from(&mut self, len: usize, more: usize) -> bool {
        self.len = self.capacity.min(len);
        self.grow(more)
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, more: usize) -> bool {
        let capacity = (self.capacity * 2).max(self.len + more).max(FIRST_CAPACITY);
        let Ok(mut memory) = Mapping::anonymous((PADDING + capacity) * size_of::<T>()) else { return false };
        let values = memory.slice_mut::<T>();
        values[..PADDING].fill(T::padding());
        values[PADDING..PADDING + self.len].copy_from_slice(self.as_slice());
        let Some(start) = NonNull::new(values[PADDING..].as_mut_ptr()) else { return false };
        (self.memory, self.start, self.capacity) = (memory, start, capacity);
        true
    }
}

/// The first capacity in values. It costs address space only: pages that no stack reaches stay
/// untouched.
const FIRST_CAPACITY: usize = 512;
