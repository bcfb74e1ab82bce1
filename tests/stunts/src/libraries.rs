//! Libraries that come and go, so that the same addresses are now this code and now that.

use std::ffi::CString;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

const TURNS: usize = 2_000;
const LOADS: usize = 3_000;

/// One library takes the other's place, without a pause: the same addresses, and other frames.
pub(crate) fn one_after_the_other(paths: &[String]) {
    let (mut before, mut same) = (std::ptr::null_mut(), 0);
    for turn in 0..TURNS {
        let library = Library::open(&paths[turn % paths.len()]);
        let place = library.function();
        same += usize::from(std::mem::replace(&mut before, place) == place);
        (0..10).for_each(|size| library.call(1 + size));
        library.close();
        black_box(vec![1u8; 7]);
    }
    assert!(same > TURNS / 2, "{same} of {TURNS} libraries took the place of the one before");
}

/// The same, many times, beside threads that allocate and one that unwinds.
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

extern "C" fn allocates(size: usize) {
    let mut list = black_box(Vec::<u8>::with_capacity(size));
    list.reserve_exact(2 * size);
    drop(black_box(list));
}

struct Library(*mut libc::c_void);

impl Library {
    fn open(path: &str) -> Library {
        let path = CString::new(path).unwrap();
        // SAFETY: a C string; the library's initialisers are those of std.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        assert!(!handle.is_null(), "{path:?} cannot be loaded");
        Library(handle)
    }

    fn function(&self) -> *mut libc::c_void {
        // SAFETY: the library is open and the name a C string.
        let symbol = unsafe { libc::dlsym(self.0, c"plug_calls".as_ptr()) };
        assert!(!symbol.is_null());
        symbol
    }

    fn call(&self, size: usize) {
        // SAFETY: the function of both libraries has this type.
        let calls: extern "C" fn(extern "C" fn(usize), usize) =
            unsafe { std::mem::transmute(self.function()) };
        calls(allocates, size);
    }

    fn close(self) {
        // SAFETY: opened once, and nothing of it is in use.
        assert_eq!(unsafe { libc::dlclose(self.0) }, 0);
    }
}
