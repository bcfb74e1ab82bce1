//! Libraries that a scenario loads and unloads.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Returns the library that is built from `tests/plugin` beside this test.
pub(crate) fn plugin() -> Option<PathBuf> {
    let target = std::env::current_exe().unwrap().parent()?.parent()?.to_path_buf();
    let built = target.join("examples").join("libplugin.so");
    built.exists().then_some(built)
}

/// A library that is loaded into this process.
pub(crate) struct Library(*mut libc::c_void);

impl Library {
    pub(crate) fn open() -> Library {
        Library::open_at(&plugin().unwrap())
    }

    pub(crate) fn open_at(path: &Path) -> Library {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: the path is a C string, and the library's initialisers are those of std.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        assert!(!handle.is_null());
        Library(handle)
    }

    pub(crate) fn symbol(&self, name: &std::ffi::CStr) -> *mut libc::c_void {
        // SAFETY: the library is open, and the name is a C string.
        let symbol = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        assert!(!symbol.is_null());
        symbol
    }

    pub(crate) fn call(&self, function: extern "C" fn()) {
        // SAFETY: the function of `tests/plugin` has this type.
        let calls: extern "C" fn(extern "C" fn()) =
            unsafe { std::mem::transmute(self.symbol(c"plugin_calls")) };
        calls(function);
    }

    pub(crate) fn work(&self, blocks: usize, size: usize) {
        // SAFETY: the function of `tests/plugin` has this type.
        let work: extern "C" fn(usize, usize) = unsafe { std::mem::transmute(self.symbol(c"plugin_work")) };
        work(blocks, size);
    }

    pub(crate) fn close(self) {
        // SAFETY: the library was opened once and is closed once, and none of its functions is
        // running.
        assert_eq!(unsafe { libc::dlclose(self.0) }, 0);
    }
}

/// Builds a library whose only function calls another one. Its stack frame has room for `frame`
/// bytes, and its file contains `padding` more bytes.
pub(crate) fn build_library(folder: &Path, name: &str, frame: usize, padding: usize) -> bool {
    build_library_with(folder, name, frame, padding, &["-Cforce-unwind-tables=yes"])
}

/// Builds a library as [`build_library`] does, with these arguments for the compiler.
pub(crate) fn build_library_with(
    folder: &Path,
    name: &str,
    frame: usize,
    padding: usize,
    args: &[&str],
) -> bool {
    let source = format!(
        "#![no_std]
        #[panic_handler] fn panic(_: &core::panic::PanicInfo<'_>) -> ! {{ loop {{}} }}
        #[used] static mut PADDING: [u8; {padding}] = [1; {padding}];
        #[unsafe(no_mangle)] pub extern \"C\" fn plugin_calls(function: extern \"C\" fn()) {{
            let room = core::hint::black_box([0u8; {frame}]);
            function();
            core::hint::black_box(&room);
        }}"
    );
    std::fs::write(folder.join("library.rs"), source).unwrap();
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition=2024", "--crate-type=cdylib", "-Cpanic=abort"]).args(args).arg("-o");
    rustc.arg(folder.join(name)).arg(folder.join("library.rs"));
    rustc.output().is_ok_and(|output| output.status.success())
}
