//! Asks the dynamic loader which load of which file is at an address. The answer changes if a
//! library was unloaded and another one was loaded at the same addresses.
//!
//! In: an address. Out: a [`LoadIdentity`]. glibc's `_dl_find_object` (from 2.35) answers in
//! nanoseconds, from a table that it reads without a lock and without allocating. Every other
//! function of a loader takes the loader's lock, which the program may hold. The function is looked
//! up by name once, so that the program also runs with an older glibc.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicPtr, Ordering};

/// The identity of one load of a file: another load, also of the same file, has another identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct LoadIdentity {
    /// Address of the loader's own structure for the load.
    link_map: u64,
    /// Address of the load's unwind tables.
    unwind_tables: u64,
}

impl LoadIdentity {
    /// For addresses that the loader does not know.
    pub(crate) const NONE: LoadIdentity = LoadIdentity { link_map: 0, unwind_tables: 0 };
}

/// Looks the loader's function up. NOTE: takes the loader's lock and may call `malloc`. So it is
/// called when a recording begins, never while a thread records an event.
pub(crate) fn prepare() {
    if FIND_OBJECT.load(Ordering::Relaxed).is_null() {
        // SAFETY: the name is a C string.
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"_dl_find_object".as_ptr()) };
        FIND_OBJECT.store(found, Ordering::Relaxed);
    }
}

/// Returns the load that is at this address now; `None` if the C library has no function to ask.
#[inline]
pub(crate) fn load_at(address: u64) -> Option<LoadIdentity> {
    let find_object = FIND_OBJECT.load(Ordering::Relaxed);
    if find_object.is_null() {
        return None;
    }
    let mut object = MaybeUninit::<Object>::zeroed();
    // SAFETY: the function of this name has this type; the pointer is valid for the result, and
    // zeros are a value of it.
    let object = unsafe {
        let find_object: FindObject = std::mem::transmute(find_object);
        let unknown =
            find_object(std::ptr::without_provenance_mut(address as usize), object.as_mut_ptr()) != 0;
        if unknown {
            return Some(LoadIdentity::NONE);
        }
        object.assume_init()
    };
    Some(LoadIdentity { link_map: object.link_map as u64, unwind_tables: object.eh_frame as u64 })
}

/// Returns the address at which the file with this code or data is mapped; 0 if the loader knows no
/// such file. NOTE: takes the loader's lock.
pub(crate) fn module_base(address: u64) -> u64 {
    let mut info = MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: any address may be asked for. The pointer is valid for the result, and zeros are a
    // value of it.
    unsafe {
        let known = libc::dladdr(std::ptr::without_provenance(address as usize), info.as_mut_ptr()) != 0;
        if known { info.assume_init().dli_fbase.addr() as u64 } else { 0 }
    }
}

static FIND_OBJECT: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

type FindObject = unsafe extern "C" fn(*mut c_void, *mut Object) -> c_int;

/// `struct dl_find_object`. Some architectures have more fields behind the first five.
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
    fn a_file_is_one_load_and_the_heap_is_no_load() {
        prepare();
        let Some(here) = load_at(prepare as fn() as usize as u64) else { return };
        assert_eq!(Some(here), load_at(load_at as fn(u64) -> Option<LoadIdentity> as usize as u64));
        assert_ne!(Some(here), load_at(libc::getpid as unsafe extern "C" fn() -> i32 as usize as u64));
        let heap = Box::new(0u8);
        assert_eq!(load_at(&raw const *heap as u64), Some(LoadIdentity::NONE));
    }
}
