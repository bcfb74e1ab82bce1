//! Libraries are loaded and unloaded in turn, so that the same addresses hold different code at
//! different times.

use std::ffi::{CStr, CString};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

const TURNS: usize = 2_000;
const LOADS: usize = 3_000;

/// Loads a library where the other one was just unloaded: the addresses are the same, and the stack
/// frames have another size.
pub(crate) fn one_after_the_other(paths: &[String]) {
    let (mut last_function, mut same_address) = (std::ptr::null_mut(), 0);
    for turn in 0..TURNS {
        let library = Library::open(&paths[turn % paths.len()]);
        let function = library.function();
        same_address += usize::from(std::mem::replace(&mut last_function, function) == function);
        (0..10).for_each(|size| library.call(1 + size));
        library.close();
        black_box(vec![1u8; 7]);
    }
    assert!(
        same_address > TURNS / 2,
        "{same_address} of {TURNS} libraries were at the address of the one before"
    );
}

/// Loads and unloads the libraries many times, beside two threads that allocate and a third that
/// also unwinds.
pub(crate) fn beside_threads(paths: &[String]) {
    std::panic::set_hook(Box::new(|_| {}));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let work = |unwinds: bool| {
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(Relaxed) {
                    black_box((0..20).map(|n| format!("{n}")).collect::<Vec<_>>());
                    if unwinds {
                        assert!(std::panic::catch_unwind(|| std::panic::panic_any(black_box(1))).is_err());
                    }
                }
            })
        };
        let threads = [work(false), work(false), work(true)];
        for load in 0..LOADS {
            let library = Library::open(&paths[load % paths.len()]);
            library.call(1 + load % 100);
            library.close();
        }
        stop.store(true, Relaxed);
        // Joined one by one: a scope does not wait for the destructors of its threads.
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// The function that the libraries call back: it allocates, reallocates and frees a block.
extern "C" fn allocate(size: usize) {
    let mut list = black_box(Vec::<u8>::with_capacity(size));
    list.reserve_exact(2 * size);
    drop(black_box(list));
}

/// A library that is loaded until [`Library::close`].
pub(crate) struct Library(*mut libc::c_void);

impl Library {
    pub(crate) fn open(path: &str) -> Library {
        let path = CString::new(path).unwrap();
        // SAFETY: the path is a C string, and the library's initialisers are those of std.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        assert!(!handle.is_null(), "{path:?} cannot be loaded");
        Library(handle)
    }

    /// Returns the address of the library's function that calls back.
    fn function(&self) -> *mut libc::c_void {
        self.symbol(c"plug_calls")
    }

    /// Returns the address of a function of the library.
    pub(crate) fn symbol(&self, name: &CStr) -> *mut libc::c_void {
        // SAFETY: the library is open, and the name is a C string.
        let symbol = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        assert!(!symbol.is_null(), "{name:?}");
        symbol
    }

    /// Calls the library's function, which calls back [`allocate`].
    fn call(&self, size: usize) {
        // SAFETY: the function `plug_calls` has this type in both libraries.
        let calls: extern "C" fn(extern "C" fn(usize), usize) =
            unsafe { std::mem::transmute(self.function()) };
        calls(allocate, size);
    }

    pub(crate) fn close(self) {
        // SAFETY: the library was opened once, and no call of its function is active.
        assert_eq!(unsafe { libc::dlclose(self.0) }, 0);
    }
}
