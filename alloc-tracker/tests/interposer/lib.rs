//! A library for `LD_PRELOAD` that replaces the C functions which a recorder could be tempted to
//! call. Each replacement touches a thread-local of the library, counts the call, and calls the C
//! library's own function.
//!
//! In: calls of any code of the process. Out: `interposed_calls`, the number of calls so far.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_long, c_uint, c_void};
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

static CALLS: AtomicU64 = AtomicU64::new(0);
/// The function that was called last.
static LAST: AtomicPtr<c_char> = AtomicPtr::new(std::ptr::null_mut());

thread_local! {
    /// Lives in the library's part of the thread-locals, which a thread that the C library does not
    /// know lacks.
    static CALLS_OF_THREAD: Cell<u64> = const { Cell::new(0) };
}

/// Returns how often any of the functions was called, and stores the name of the last one.
///
/// # Safety
/// `last` must be null or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn interposed_calls(last: *mut *const c_char) -> u64 {
    if !last.is_null() {
        // SAFETY: the caller promises a pointer that is valid for writes.
        unsafe { *last = LAST.load(Ordering::Relaxed) };
    }
    CALLS.load(Ordering::SeqCst)
}

fn note(name: &'static CStr) {
    let before = CALLS_OF_THREAD.get();
    CALLS_OF_THREAD.set(before + 1);
    CALLS.fetch_add(1, Ordering::SeqCst);
    LAST.store(name.as_ptr().cast_mut(), Ordering::Relaxed);
}

/// Returns the C library's own function of this name.
fn original(name: &CStr, known: &AtomicPtr<c_void>) -> *mut c_void {
    let function = known.load(Ordering::Relaxed);
    if !function.is_null() {
        return function;
    }
    // SAFETY: the name is a C string.
    let function = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    known.store(function, Ordering::Relaxed);
    function
}

macro_rules! interpose {
    ($($name:ident($($argument:ident: $kind:ty),*) -> $result:ty;)*) => {$(
        /// Counts the call, and calls the function of the same name.
        ///
        /// # Safety
        /// As for that function.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($argument: $kind),*) -> $result {
            static ORIGINAL: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
            const NAME: &CStr = match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => c"",
            };
            note(NAME);
            // SAFETY: the function has this type, and the caller keeps its contract.
            unsafe {
                let function: unsafe extern "C" fn($($kind),*) -> $result =
                    std::mem::transmute(original(NAME, &ORIGINAL));
                function($($argument),*)
            }
        }
    )*};
}

interpose! {
    clock_gettime(clock: c_int, time: *mut libc::timespec) -> c_int;
    gettimeofday(time: *mut libc::timeval, zone: *mut c_void) -> c_int;
    nanosleep(time: *const libc::timespec, rest: *mut libc::timespec) -> c_int;
    sched_yield() -> c_int;
    getpid() -> c_int;
    getauxval(kind: libc::c_ulong) -> libc::c_ulong;
    sysconf(name: c_int) -> c_long;
    getrusage(who: c_int, usage: *mut libc::rusage) -> c_int;
    getcwd(buffer: *mut c_char, size: usize) -> *mut c_char;
    close(fd: c_int) -> c_int;
    read(fd: c_int, buffer: *mut c_void, count: usize) -> isize;
    write(fd: c_int, buffer: *const c_void, count: usize) -> isize;
    pread64(fd: c_int, buffer: *mut c_void, count: usize, offset: i64) -> isize;
    pwrite64(fd: c_int, buffer: *const c_void, count: usize, offset: i64) -> isize;
    pread(fd: c_int, buffer: *mut c_void, count: usize, offset: i64) -> isize;
    pwrite(fd: c_int, buffer: *const c_void, count: usize, offset: i64) -> isize;
    ftruncate64(fd: c_int, len: i64) -> c_int;
    ftruncate(fd: c_int, len: i64) -> c_int;
    fstat64(fd: c_int, stat: *mut libc::stat) -> c_int;
    fstat(fd: c_int, stat: *mut libc::stat) -> c_int;
    fstatfs64(fd: c_int, stat: *mut libc::statfs) -> c_int;
    fchmod(fd: c_int, mode: c_uint) -> c_int;
    flock(fd: c_int, operation: c_int) -> c_int;
    unlink(path: *const c_char) -> c_int;
    symlink(target: *const c_char, path: *const c_char) -> c_int;
    readlink(path: *const c_char, buffer: *mut c_char, size: usize) -> isize;
    mmap(start: *mut c_void, len: usize, protection: c_int, flags: c_int, fd: c_int, offset: i64) -> *mut c_void;
    mmap64(start: *mut c_void, len: usize, protection: c_int, flags: c_int, fd: c_int, offset: i64) -> *mut c_void;
    munmap(start: *mut c_void, len: usize) -> c_int;
    madvise(start: *mut c_void, len: usize, advice: c_int) -> c_int;
    mincore(start: *mut c_void, len: usize, resident: *mut u8) -> c_int;
    process_vm_readv(pid: c_int, local: *const libc::iovec, locals: usize, remote: *const libc::iovec, remotes: usize, flags: usize) -> isize;
    pthread_sigmask(how: c_int, set: *const libc::sigset_t, before: *mut libc::sigset_t) -> c_int;
    sigprocmask(how: c_int, set: *const libc::sigset_t, before: *mut libc::sigset_t) -> c_int;
    sigemptyset(set: *mut libc::sigset_t) -> c_int;
    sigfillset(set: *mut libc::sigset_t) -> c_int;
    sigaddset(set: *mut libc::sigset_t, signal: c_int) -> c_int;
    getenv(name: *const c_char) -> *mut c_char;
    getrandom(buffer: *mut c_void, len: usize, flags: c_uint) -> isize;
    waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    pthread_self() -> libc::pthread_t;
    pthread_getspecific(key: c_uint) -> *mut c_void;
    dl_iterate_phdr(callback: *mut c_void, argument: *mut c_void) -> c_int;
    __errno_location() -> *mut c_int;
    // These take more arguments than they are called with mostly. On the processors that this runs
    // on, further arguments do no harm.
    syscall(number: c_long, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> c_long;
    prctl(option: c_int, a: usize, b: usize, c: usize, d: usize) -> c_int;
    fcntl64(fd: c_int, command: c_int, argument: usize) -> c_int;
    fcntl(fd: c_int, command: c_int, argument: usize) -> c_int;
    open64(path: *const c_char, flags: c_int, mode: c_uint) -> c_int;
    open(path: *const c_char, flags: c_int, mode: c_uint) -> c_int;
    openat64(folder: c_int, path: *const c_char, flags: c_int, mode: c_uint) -> c_int;
    openat(folder: c_int, path: *const c_char, flags: c_int, mode: c_uint) -> c_int;
}
