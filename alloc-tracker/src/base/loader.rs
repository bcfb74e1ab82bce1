//! Asks the dynamic loader which load of which file is at an address. The answer changes if a
//! library was unloaded and another one was loaded at the same addresses.
//!
//! In: an address. Out: a [`LoadIdentity`]. glibc's `_dl_find_object` (from 2.35) answers in
//! nanoseconds, from a table that it reads without a lock and without allocating. Every other
//! function of a loader takes the loader's lock, which the program may hold.
//!
//! The function is found in one of three ways:
//! 1. As a weak symbol, which the linker or the loader has bound. Statically linked programs have
//!    the function too, because the unwinder of the C compiler's own library needs it.
//! 2. By its name, once, in a program that was linked where the C library did not have it.
//! 3. A statically linked program without the function needs none: it consists of one module,
//!    which is never unloaded.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

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
    /// For the only module of a statically linked program.
    const WHOLE_PROGRAM: LoadIdentity = LoadIdentity { link_map: 1, unwind_tables: 0 };
}

/// Finds the loader's function. NOTE: may take the loader's lock and call `malloc`. So it is called
/// when a recording begins, never while a thread records an event.
pub(crate) fn prepare() {
    if is_answering() {
        return;
    }
    let mut found = linked_function();
    if found.is_null() {
        // SAFETY: the kernel has put the program's headers there. They stay mapped as long as the
        // program runs.
        let headers = unsafe { program_headers() };
        let here = prepare as fn() as usize as u64;
        if let Some((start, end)) = static_program(headers, (&raw const *headers).addr() as u64, here) {
            STATIC_START.store(start, Ordering::Relaxed);
            STATIC_END.store(end, Ordering::Relaxed);
            return;
        }
        // SAFETY: the name is a C string.
        found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"_dl_find_object".as_ptr()) };
    }
    FIND_OBJECT.store(found, Ordering::Relaxed);
}

/// Whether [`load_at`] has an answer. If not, every stack is walked by the platform's unwinder.
pub(crate) fn is_answering() -> bool {
    !FIND_OBJECT.load(Ordering::Relaxed).is_null() || STATIC_END.load(Ordering::Relaxed) != 0
}

/// Returns the load that is at this address now; `None` if the C library has no function to ask.
#[inline]
pub(crate) fn load_at(address: u64) -> Option<LoadIdentity> {
    let find_object = FIND_OBJECT.load(Ordering::Relaxed);
    if find_object.is_null() {
        let (start, end) = (STATIC_START.load(Ordering::Relaxed), STATIC_END.load(Ordering::Relaxed));
        let load =
            if (start..end).contains(&address) { LoadIdentity::WHOLE_PROGRAM } else { LoadIdentity::NONE };
        return (end != 0).then_some(load);
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

/// Returns the address of `_dl_find_object` that the linker or the loader has bound; null if there
/// is no such function.
///
/// `#[linkage = "extern_weak"]`, which would do the same, is not stable.
#[cfg(all(target_env = "gnu", target_arch = "x86_64", not(miri)))]
fn linked_function() -> *mut c_void {
    let address: *mut c_void;
    // SAFETY: loads a word of the table that the linker makes for addresses of symbols. For a weak
    // symbol without a definition that word is zero.
    unsafe {
        std::arch::asm!(
            ".weak _dl_find_object",
            "mov {address}, qword ptr [rip + _dl_find_object@GOTPCREL]",
            address = out(reg) address,
            options(nomem, nostack, preserves_flags),
        );
    }
    address
}

/// Returns the address of `_dl_find_object`, as on x86-64.
#[cfg(all(target_env = "gnu", target_arch = "aarch64", not(miri)))]
fn linked_function() -> *mut c_void {
    let address: *mut c_void;
    // SAFETY: as on x86-64.
    unsafe {
        std::arch::asm!(
            ".weak _dl_find_object",
            "adrp {address}, :got:_dl_find_object",
            "ldr {address}, [{address}, :got_lo12:_dl_find_object]",
            address = out(reg) address,
            options(nomem, nostack, preserves_flags),
        );
    }
    address
}

#[cfg(not(all(target_env = "gnu", any(target_arch = "x86_64", target_arch = "aarch64"), not(miri))))]
fn linked_function() -> *mut c_void {
    std::ptr::null_mut()
}

/// Returns the program headers of the running program.
///
/// # Safety
/// The table that the kernel has made must be as the kernel has made it.
unsafe fn program_headers<'a>() -> &'a [ProgramHeader] {
    if cfg!(miri) {
        return &[];
    }
    // SAFETY: `getauxval` has no preconditions: it reads a table that the kernel has made. The
    // caller promises that the address and the number in it are right.
    unsafe {
        let at = libc::getauxval(libc::AT_PHDR) as usize;
        let count = libc::getauxval(libc::AT_PHNUM) as usize;
        if at == 0 || libc::getauxval(libc::AT_PHENT) as usize != size_of::<ProgramHeader>() {
            return &[];
        }
        std::slice::from_raw_parts(std::ptr::with_exposed_provenance(at), count)
    }
}

/// Returns the addresses of the program whose headers are at `headers_at`, if it was linked
/// statically, and if the code at `here` belongs to it.
fn static_program(headers: &[ProgramHeader], headers_at: u64, here: u64) -> Option<(u64, u64)> {
    if headers.iter().any(|header| header.kind == PT_INTERP) {
        return None;
    }
    // Without this header the program was linked for fixed addresses.
    let bias = headers.iter().find(|header| header.kind == PT_PHDR);
    let bias = bias.map_or(0, |header| headers_at.wrapping_sub(header.address));
    let loads = || headers.iter().filter(|header| header.kind == PT_LOAD);
    let start = bias.wrapping_add(loads().map(|load| load.address).min()?);
    let end = bias.wrapping_add(loads().map(|load| load.address.saturating_add(load.len)).max()?);
    (start..end).contains(&here).then_some((start, end))
}

static FIND_OBJECT: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
/// The addresses of a statically linked program that has no function to ask; 0 for others.
static STATIC_START: AtomicU64 = AtomicU64::new(0);
static STATIC_END: AtomicU64 = AtomicU64::new(0);

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

/// `Elf64_Phdr`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct ProgramHeader {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    physical_address: u64,
    len_in_file: u64,
    len: u64,
    alignment: u64,
}

const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PT_PHDR: u32 = 6;

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

    #[test]
    #[cfg(all(target_env = "gnu", not(miri)))]
    fn the_linker_binds_the_function_that_the_loader_has() {
        // SAFETY: the name is a C string.
        let by_name = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"_dl_find_object".as_ptr()) };
        assert_eq!(linked_function(), by_name);
    }

    #[test]
    fn a_program_without_an_interpreter_is_one_module() {
        let header = |kind, address, len| ProgramHeader { kind, address, len, ..ProgramHeader::default() };
        let position_independent =
            [header(PT_PHDR, 0x40, 0x100), header(PT_LOAD, 0, 0x1000), header(PT_LOAD, 0x3000, 0x500)];
        let range = (0x7000_0000, 0x7000_3500);
        assert_eq!(static_program(&position_independent, 0x7000_0040, 0x7000_3100), Some(range));
        assert_eq!(static_program(&position_independent, 0x7000_0040, 0x7000_3500), None);
        let fixed = [header(PT_LOAD, 0x40_0000, 0x1000), header(PT_LOAD, 0x40_2000, 0x1000)];
        assert_eq!(static_program(&fixed, 0x40_0040, 0x40_2000), Some((0x40_0000, 0x40_3000)));
        let dynamic = [header(PT_INTERP, 0x200, 0x20), header(PT_LOAD, 0, 0x1000)];
        assert_eq!(static_program(&dynamic, 0x7000_0040, 0x7000_0100), None);
        assert_eq!(static_program(&[], 0, 0x7000_0100), None);
    }
}
