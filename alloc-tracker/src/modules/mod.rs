//! Modules: which files with code are mapped, and where. In: `/proc/self/maps`, and the ELF headers
//! in memory. Out: changes, to an observer that the recorder passes; unwind tables, to the walk.
//!
//! Never takes a lock of the dynamic loader, because an event may come from inside `dlopen`. Never
//! allocates through the global allocator. Reads the host's memory only through the kernel: if a
//! library is being unmapped meanwhile, the result is an error and not a fault.
//!
//! | module | idea |
//! | --- | --- |
//! | `registry` | the modules that have been reported, and how changes are noticed |
//! | `maps` | the mappings of this process |
//! | `elf` | what the headers of a mapped file say |

mod elf;
mod maps;
mod registry;

pub(crate) use elf::read_memory;
pub(crate) use registry::{
    ModuleChange, ModuleObserver, ensure_known, notice_replaced, report_all, reset_after_fork, scan_if_due,
    with_unwind_tables,
};
