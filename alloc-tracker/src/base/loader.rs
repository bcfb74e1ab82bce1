//! What the dynamic loader says is loaded at an address: how to notice that a library went and another came in its place.
//!
//! In: an address. Out: an [`Identity`]. glibc's `_dl_find_object` (from 2.35) answers from a table that is read without
//! a lock and without allocating, in nanoseconds; everything else that a loader offers takes its lock, which the
//! program may hold. It is looked up by name once, so that the program runs with older libraries too.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A load of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Identity {
    /// The loader's own structure for it.
    link_map: u64,
    /// Address of its unwind tables.
    unwind_tables: u64,
}

impl Identity {
    /// That of addresses which the loader does not know.
    pub(crate) const NONE: Identity = Identity { link_map: 0, unwind_tables: 0 };
}

/// Looks the loader's function up. NOTE: takes the loader's lock and may allocate, so it belongs to the beginning of a
/// recording, not into the hook.
pub(crate) fn prepare() {
    if FIND_OBJECT.load(Ordering::Relaxed).is_null() {
        // SAFETY: the name is a C string.
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"_dl_find_object".as_ptr()) };
        FIND_OBJECT.store(found, Ordering::Relaxed);
    }
}

/// What is loaded at this address now; `None` if there is no way to know.
#[inline]
pub(crate) fn identity(address: u64) -> Option<Identity> {
    let find_object = FIND_OBJECT.load(Ordering::Relaxed);
    if find_object.is_null() {
        return None;
    }
    let mut object = MaybeUninit::<Object>::zeroed();
    // SAFETY: the function of this name has this type; the place is valid, and zeros are a value of it.
    let object = unsafe {
        let find_object: FindObject = std::mem::transmute(find_object);
        let unknown =
            find_object(std::ptr::without_provenance_mut(address as usize), object.as_mut_ptr()) != 0;
        if unknown {
            return Some(Identity::NONE);
        }
        object.assume_init()
    };
    Some(Identity { link_map: object.link_map as u64, unwind_tables: object.eh_frame as u64 })
}

static FIND_OBJECT: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

type FindObject = unsafe extern "C" fn(*mut c_void, *mut Object) -> c_int;

/// `struct dl_find_object`; behind the first five fields some architectures have more.
#[repr(C)]
struct Object {
    flags: u64,
    map_start: *mut c_void,
    map_end: *mut c_void,
    link_map: *mut c_void,
    eh_frame: *mut c_void,
    reserved: [u64; 16],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_one_load_and_the_heap_is_none() {
        prepare();
        let Some(here) = identity(prepare as fn() as usize as u64) else { return };
        assert_eq!(Some(here), identity(identity as fn(u64) -> Option<Identity> as usize as u64));
        assert_ne!(Some(here), identity(libc::getpid as unsafe extern "C" fn() -> i32 as usize as u64));
        let heap = Box::new(0u8);
        assert_eq!(identity(&raw const *heap as u64), Some(Identity::NONE));
    }
}
