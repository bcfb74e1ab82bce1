//! Tells the runtime from the user's own code. In: the function, file and module of a frame. Out:
//! "runtime" or "the user's own".
//!
//! Runtime is code that the user did not choose to call and cannot change: the allocator and this
//! project's own crates, `alloc`, `core`, `std` and the crates that `std` is built from, the panic
//! machinery, the C library, and the code from the kernel to `main`. All other code is the user's
//! own, including dependencies from a registry.
//!
//! A known file decides first. `Vec::push`, for example, has the user's types in its name and is
//! compiled into the user's crate, but its file shows where it was written. Without a file the name
//! decides: the code belongs to the crate that must contain the `impl`. This answer is a guess.

use crate::names::own_crates::{is_recorder_crate, is_recorder_folder, is_runtime_crate};
use crate::names::rust_path::{ImplName, crate_of, last_segment};

/// Whether a frame belongs to the runtime rather than to the user's own code.
///
/// `function` is demangled, with or without its path. `module_path` is the file that contains the
/// code.
///
/// ```
/// use profiler_cli::names::symbolize::classify::is_runtime;
///
/// assert!(is_runtime("<alloc::vec::Vec<app::Foo>>::push", None, "/srv/app"));
/// assert!(!is_runtime("<app::Foo as core::ops::drop::Drop>::drop", None, "/srv/app"));
/// assert!(is_runtime("push<app::Foo>", Some("/rustc/0123/library/alloc/src/vec/mod.rs"), "/srv/app"));
/// ```
#[must_use]
pub fn is_runtime(function: &str, file: Option<&str>, module_path: &str) -> bool {
    if is_runtime_module(module_path) || is_allocator_shim(function) {
        return true;
    }
    match file {
        Some(file) if is_std_file(file) => true,
        Some(file) if file.ends_with(".rs") => is_recorder_code(function, file),
        // A file in another language. The C library may be linked statically, but `main` is the
        // program's own.
        Some(_) => function != "main" && is_c_runtime_name(function),
        None if is_path(function) => is_runtime_path(function),
        None => function == "main" || is_c_runtime_name(function),
    }
}

/// Whether a function is one of the shims through which the compiler calls the allocator. They are
/// generated in the user's crate, at the line of the `#[global_allocator]`, so the name must decide
/// before the file does.
pub(crate) fn is_allocator_shim(function: &str) -> bool {
    const SHIMS: &[&str] = &["alloc", "dealloc", "realloc", "alloc_zeroed", "no_alloc_shim_is_unstable"];
    if function.starts_with("__rustc::") {
        return true;
    }
    ["__rust_", "__rg_", "__rdl_"]
        .iter()
        .filter_map(|prefix| function.strip_prefix(prefix))
        .any(|name| SHIMS.contains(&name) || name.starts_with("no_alloc_shim") || name == "oom")
}

fn is_runtime_module(path: &str) -> bool {
    const LIBRARIES: &[&str] = &[
        "libc",
        "libpthread",
        "libgcc_s",
        "libm",
        "libdl",
        "librt",
        "ld-linux",
        "ld-musl",
        "libc.musl",
        "linux-vdso",
    ];
    let name = path.rsplit('/').next().unwrap_or(path);
    // After the name there may be `.so.6`, `-2.31.so`, `-x86-64.so.2` or `-x86_64.so.1`, but no
    // letters, as in `libcurl`.
    let is_library = |library: &&str| {
        name.strip_prefix(library)
            .is_some_and(|rest| rest.starts_with(".so") || (rest.starts_with('-') && rest.contains(".so")))
    };
    LIBRARIES.iter().any(is_library)
        || name == "[vdso]"
        || (name.starts_with("ld-2.") && name.ends_with(".so"))
        || (name.starts_with("libstd-") && name.contains(".so"))
}

/// Whether a file is a source of the standard library or its dependencies: at the path of the
/// official builds, or where `rustup` installs it.
fn is_std_file(file: &str) -> bool {
    file.starts_with("/rustc/") || file.starts_with("/rust/deps/") || file.contains("/rustlib/src/rust/")
}

/// Whether a function in a Rust file belongs to the crates that a process links for being profiled.
/// A full path names its crate; for a short name the folder of the file decides.
fn is_recorder_code(function: &str, file: &str) -> bool {
    if is_path(function) {
        let self_type = ImplName::parse(function).map_or(function, |name| name.self_type);
        return crate_of(self_type).is_some_and(is_recorder_crate);
    }
    let mut folders = file.split('/').rev().skip(1);
    // `…/alloc-tracker/src/…`, `…/alloc-tracker/dump/src/…`, `…/backtrace-0.3.76/src/…`: the
    // innermost folder `src` is the package's.
    if !folders.by_ref().any(|folder| folder == "src") {
        return false;
    }
    let (package, parent) = (folders.next(), folders.next());
    package.is_some_and(|package| is_recorder_folder(package, parent))
}

/// Whether a name includes the path of its function. The paths of types after a short name, as in
/// `alloc<std::alloc::System>`, do not count.
fn is_path(function: &str) -> bool {
    function.starts_with('<') || function.split('<').next().is_some_and(|name| name.contains("::"))
}

/// Whether a function belongs to the C library, to the unwinder, or to the start of a process or
/// thread.
fn is_c_runtime_name(function: &str) -> bool {
    const NAMES: &[&str] = &[
        "malloc",
        "calloc",
        "realloc",
        "reallocarray",
        "free",
        "aligned_alloc",
        "memalign",
        "posix_memalign",
        "valloc",
        "pvalloc",
        "cfree",
        "_start",
        "_start_c",
        "_init",
        "_fini",
        "__do_global_dtors_aux",
        "frame_dummy",
        "call_init",
        "start_thread",
        "clone",
        "clone3",
        "__clone",
        "__clone3",
        "__clone_internal",
        "__restore_rt",
        "__kernel_rt_sigreturn",
        "rust_begin_unwind",
        "rust_eh_personality",
        "rust_panic",
        "__rust_start_panic",
        "__rust_panic_cleanup",
        "__rust_drop_panic",
        "__rust_foreign_exception",
        "__rust_try",
    ];
    const PREFIXES: &[&str] = &[
        "__libc_",
        "__GI_",
        "_dl_",
        "_IO_",
        "__pthread_",
        "_Unwind_",
        "__gcc_personality",
        "__cxa_",
        "__run_exit_",
    ];
    // `malloc.cold` and `free.part.0` are parts of a function that the compiler split off.
    let whole = function.split_once('.').map_or(function, |(name, _)| name);
    NAMES.contains(&whole) || PREFIXES.iter().any(|prefix| whole.starts_with(prefix))
}

/// Whether the crate that contains the function belongs to the runtime.
fn is_runtime_path(function: &str) -> bool {
    // Shims that the compiler generates around a closure or a virtual call.
    if function.ends_with("{{vtable.shim}}") || function.contains("::{shim:") {
        return true;
    }
    match ImplName::parse(function) {
        Some(name) => is_runtime_impl(&name),
        None => crate_of(function).is_none_or(is_runtime_crate),
    }
}

/// Whether an `impl` belongs to the runtime. An `impl` is in the crate of its type or in the crate
/// of its trait. If only one of the two is the user's, the `impl` is the user's too. Exception: an
/// `impl` that the standard library has for every type at once belongs to the runtime.
fn is_runtime_impl(name: &ImplName<'_>) -> bool {
    if crate_of(name.trait_path).is_some_and(|name| !is_runtime_crate(name)) {
        return false;
    }
    let Some(crate_name) = crate_of(name.self_type) else { return true };
    if is_runtime_crate(crate_name) {
        return true;
    }
    let trait_name = last_segment(name.trait_path);
    // A trait inside a function belongs to that function.
    let is_local = name.trait_path.contains("::<impl ");
    let is_reference = name.self_type.starts_with('&') || name.self_type.starts_with('*');
    is_local
        || FOR_EVERY_TYPE.contains(&trait_name)
        || trait_name.starts_with("Spec")
        || (is_reference && FOR_EVERY_REFERENCE.contains(&trait_name))
        || (name.self_type.contains("{closure") && FOR_CLOSURES.contains(&trait_name))
}

/// Traits with an `impl<T> Trait for T` in the standard library.
const FOR_EVERY_TYPE: &[&str] = &["Any", "Borrow", "BorrowMut", "Into", "ToOwned", "ToString", "TryInto"];

/// Traits with an `impl<T> Trait for &T` or `&mut T` in the standard library. No other crate can
/// have one for a reference.
const FOR_EVERY_REFERENCE: &[&str] = &[
    "AsMut",
    "AsRef",
    "Binary",
    "BufRead",
    "Clone",
    "Debug",
    "Deref",
    "Display",
    "DoubleEndedIterator",
    "Eq",
    "ExactSizeIterator",
    "Fn",
    "FnMut",
    "FnOnce",
    "Future",
    "Hash",
    "Hasher",
    "Iterator",
    "LowerExp",
    "LowerHex",
    "Octal",
    "Ord",
    "PartialEq",
    "PartialOrd",
    "Pointer",
    "Read",
    "Seek",
    "UpperExp",
    "UpperHex",
    "Write",
];

/// Traits through which a closure is called. The body of the closure is a function of its own.
const FOR_CLOSURES: &[&str] = &["AsyncFn", "AsyncFnMut", "AsyncFnOnce", "Fn", "FnMut", "FnOnce"];

#[cfg(test)]
mod tests {
    use super::*;

    const APP: &str = "/home/me/app/target/release/app";

    #[track_caller]
    fn runtime(function: &str, file: Option<&str>) {
        assert!(is_runtime(function, file, APP), "{function} in {file:?} should be runtime");
    }

    #[track_caller]
    fn user(function: &str, file: Option<&str>) {
        assert!(!is_runtime(function, file, APP), "{function} in {file:?} should be the user's");
    }

    #[test]
    fn files_of_the_standard_library_are_runtime_whatever_the_name() {
        for file in [
            "/rustc/59807616e1fa2540724bfbac14d7976d7e4a3860/library/alloc/src/vec/mod.rs",
            "/rustc/59807616e1fa2540724bfbac14d7976d7e4a3860/library/std/src/../../backtrace/src/backtrace/libunwind.rs",
            "/home/me/.rustup/toolchains/stable/lib/rustlib/src/rust/library/core/src/ptr/mod.rs",
            "/rust/deps/hashbrown-0.15.2/src/raw/mod.rs",
            "/rust/deps/gimli-0.32.3/src/read/line.rs",
        ] {
            for function in
                ["push<app::Foo>", "work", "main", "core::ptr::drop_in_place::<app::Foo>", "app::Foo::new"]
            {
                runtime(function, Some(file));
            }
        }
    }

    #[test]
    fn files_elsewhere_are_the_users_whatever_the_name() {
        for file in [
            "/home/me/app/src/main.rs",
            "src/main.rs",
            "/home/me/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/serde_json-1.0.0/src/de.rs",
            "/home/me/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/hashbrown-0.17.0/src/raw.rs",
            "/home/me/alloc/src/lib.rs",
        ] {
            for function in [
                "clone",
                "free",
                "main",
                "alloc",
                "push<u8>",
                "app::main",
                "<app::Foo as core::clone::Clone>::clone",
            ] {
                user(function, Some(file));
            }
        }
    }

    #[test]
    fn the_allocators_entry_points_are_runtime_even_at_the_users_line() {
        for function in [
            "__rustc::__rust_alloc",
            "__rustc::__rust_dealloc",
            "__rust_alloc",
            "__rust_realloc",
            "__rust_alloc_zeroed",
            "__rg_alloc",
            "__rdl_dealloc",
        ] {
            runtime(function, Some("/home/me/app/src/main.rs"));
            runtime(function, None);
        }
        user("__rust_allocate_my_thing", Some("/home/me/app/src/main.rs"));
    }

    #[test]
    fn the_frames_of_the_recorder_are_runtime() {
        runtime("<alloc_tracker::AllocTracker as core::alloc::global::GlobalAlloc>::alloc", None);
        runtime("alloc_tracker::capture::capture", Some("/x/vendor/tracker/lib.rs"));
        runtime("backtrace::backtrace::trace::<app::main::{closure#0}>", None);
        runtime("alloc", Some("/home/me/alloc-tracker/src/allocator.rs"));
        runtime("alloc<std::alloc::System>", Some("/home/me/alloc-tracker/src/allocator.rs"));
        user("parse<alloc_tracker::AllocTracker>", Some("/home/me/app/src/main.rs"));
        runtime("alloc", Some("/r/registry/src/index/alloc-tracker-0.1.0/src/capture/unwind.rs"));
        runtime("record", Some("/home/me/alloc-tracker/dump/src/write.rs"));
        runtime("count", Some("/home/me/alloc-tracker/oracle/src/lib.rs"));
        runtime("trace", Some("/r/registry/src/index/backtrace-0.3.76/src/lib.rs"));
        // Tests, examples and a user's program in such a folder are not the recorder.
        user("grow", Some("/home/me/alloc-tracker/tests/threads.rs"));
        user("app::grow", Some("/home/me/alloc-tracker/src/main.rs"));
        user("grow", Some("/home/me/backtrace-viewer/src/main.rs"));
        user("<app::Foo as alloc_tracker::Observer>::seen", None);
        user("<app::Foo as alloc_tracker::Observer>::seen", Some("/home/me/app/src/main.rs"));
    }

    #[test]
    fn a_path_belongs_to_its_first_crate() {
        for function in [
            "alloc::vec::Vec<T,A>::push",
            "<alloc::vec::Vec<app::Foo>>::push",
            "<alloc::raw_vec::RawVecInner>::try_allocate_in",
            "alloc::slice::<impl [T]>::to_vec",
            "core::iter::range::<impl core::iter::traits::iterator::Iterator for core::ops::range::Range<A>>::next",
            "core::ptr::drop_in_place::<app::Foo>",
            "core::ptr::drop_in_place<app::Foo>",
            "core::ptr::drop_in_place::<<app::Foo as app::Bar>::baz::Guard>",
            "std::rt::lang_start::<()>",
            "std::rt::lang_start::<()>::{closure#0}",
            "std::sys::backtrace::__rust_begin_short_backtrace::<fn(), ()>",
            "<[u8]>::to_vec",
            "<str>::to_owned",
            "<u32>::checked_add",
            "<dyn core::any::Any>::downcast_ref",
            "panic_unwind::real_imp::panic",
            "<std::thread::Builder>::spawn_unchecked_::<app::main::{closure#0}, ()>::{closure#1}",
        ] {
            runtime(function, None);
        }
        for function in [
            "app::main",
            "app::main::{closure#0}",
            "app::main::{{closure}}",
            "<app::Foo>::new",
            "app::Foo<T>::new",
            "<app::Foo<alloc::vec::Vec<u8>>>::new",
            "<dyn app::Shape>::area",
            "app::ext::<impl alloc::vec::Vec<T>>::extra",
            "app::<impl core::convert::From<app::A> for alloc::string::String>::from",
            "serde_json::de::from_str::<app::Config>",
            "hashbrown::raw::RawTable<T,A>::reserve",
            "core_graphics::draw",
            "alloc_stuff::go",
            "app::apply::<fn(u8) -> alloc::vec::Vec<u8>>",
        ] {
            user(function, None);
        }
    }

    #[test]
    fn an_impl_is_the_users_if_its_type_or_trait_is_the_users() {
        for function in [
            "<alloc::vec::Vec<u8> as core::iter::traits::collect::FromIterator<u8>>::from_iter",
            "<alloc::vec::Vec<app::Foo> as core::clone::Clone>::clone",
            "<alloc::boxed::Box<app::Foo> as core::ops::function::Fn<()>>::call",
            "<T as alloc::string::ToString>::to_string",
            "<T as core::convert::Into<U>>::into",
            "<app::Foo as alloc::string::ToString>::to_string",
            "<app::Foo as core::convert::Into<app::Bar>>::into",
            "<app::Foo as alloc::slice::<impl [T]>::to_vec_in::ConvertVec>::to_vec",
            "<&T as core::fmt::Debug>::fmt",
            "<&app::Foo as core::fmt::Debug>::fmt",
            "<&mut app::Foo as core::iter::traits::iterator::Iterator>::next",
            "<&mut I as core::iter::traits::iterator::Iterator>::next",
            "<[T] as core::fmt::Debug>::fmt",
            "<[u8] as alloc::borrow::ToOwned>::to_owned",
            "<(A, B) as core::fmt::Debug>::fmt",
            "<app::main::{closure#0} as core::ops::function::FnOnce<()>>::call_once",
            "<app::main::{closure#0} as core::ops::function::FnOnce<()>>::call_once::{shim:vtable#0}",
            "core::ops::function::FnOnce::call_once{{vtable.shim}}",
            "<fn(u8) -> app::Foo as core::ops::function::FnOnce<(u8,)>>::call_once",
        ] {
            runtime(function, None);
        }
        for function in [
            "<app::Foo as core::ops::drop::Drop>::drop",
            "<app::Foo as core::clone::Clone>::clone",
            "<app::Foo<T> as core::iter::traits::iterator::Iterator>::next",
            "<&app::List as core::iter::traits::collect::IntoIterator>::into_iter",
            "<&mut app::List as core::iter::traits::collect::Extend<u8>>::extend",
            "<alloc::vec::Vec<u8> as app::Encode>::encode",
            "<u32 as app::Encode>::encode",
            "<T as app::Encode>::encode",
            "<[T] as app::Encode>::encode",
            "<&mut T as app::Encode>::encode",
            "<alloc::boxed::Box<dyn app::Shape> as app::Shape>::area",
            "<serde_json::value::Value as core::clone::Clone>::clone",
            "<<app::Foo as app::Bar>::Out as core::clone::Clone>::clone",
            "<alloc::vec::Vec<T> as serde_core::de::Deserialize>::deserialize",
        ] {
            user(function, None);
        }
    }

    #[test]
    fn names_without_a_path_and_without_a_file_belong_to_c() {
        for function in [
            "malloc",
            "free.part.0",
            "calloc",
            "main",
            "_start",
            "__libc_start_main",
            "__libc_start_call_main",
            "start_thread",
            "clone3",
            "clone",
            "rust_begin_unwind",
            "_Unwind_RaiseException",
            "__restore_rt",
        ] {
            runtime(function, None);
        }
        for function in ["sqlite3_exec", "ZSTD_compress", "app+0x1234", "freeze", "mallocator"] {
            user(function, None);
        }
        runtime("malloc", Some("./malloc/malloc.c"));
        runtime("_start", Some("../sysdeps/x86_64/start.S"));
        user("main", Some("/home/me/app/main.c"));
        user("sqlite3_exec", Some("sqlite3.c"));
    }

    #[test]
    fn whole_modules_of_the_system_are_runtime() {
        for module in [
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/lib/libc-2.31.so",
            "/lib64/ld-linux-x86-64.so.2",
            "/lib/ld-2.31.so",
            "/lib/ld-musl-x86_64.so.1",
            "/lib/libpthread.so.0",
            "/usr/lib/libgcc_s.so.1",
            "linux-vdso.so.1",
            "[vdso]",
            "/home/me/.rustup/toolchains/stable/lib/libstd-0123456789abcdef.so",
        ] {
            assert!(is_runtime("anything+0x1", None, module), "{module}");
        }
        for module in [
            "/usr/lib/libcurl.so.4",
            "/usr/lib/libc++.so.1",
            "/opt/libcore.so",
            "/usr/lib/libmagic.so.1",
            "",
            "/",
        ] {
            assert!(!is_runtime("anything", None, module), "{module}");
        }
    }

    #[test]
    fn broken_names_do_not_panic() {
        let pieces = ["<", ">", "::", " as ", "&", "é", "->", "[", "(", "'a ", "for<", "dyn ", "{shim:", ""];
        for a in pieces {
            for b in pieces {
                for c in pieces {
                    for d in pieces {
                        let name = format!("{a}{b}{c}x::{d}");
                        let _ = (is_runtime(&name, None, &name), is_runtime(&name, Some("src/x.rs"), ""));
                    }
                }
            }
        }
    }
}
