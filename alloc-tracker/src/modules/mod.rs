//! Modules: which files with code are mapped, and where. In: `/proc/self/maps`, and the ELF headers
//! in memory. Out: changes, to an observer that the recorder passes; unwind tables, to the walk.
//!
//! Never takes a lock of the dynamic loader, because an event may come from inside `dlopen`. Never
//! allocates through the global allocator. Memory that may be unmapped is read by `memory`.
//!
//! | module | idea |
//! | --- | --- |
//! | `registry` | the lock, and when the modules are looked at |
//! | `known` | the modules that have been reported, and how changes are found |
//! | `maps` | the mappings of this process |
//! | `file_name` | the path of a mapped file |
//! | `elf` | what the headers of a mapped file say |
//! | `code` | what tells a module's code from other code |
//! | `memory` | reading memory that may not be mapped |

mod code;
mod elf;
mod file_name;
mod known;
mod maps;
mod memory;
mod registry;

pub(crate) use elf::UnwindTables;
pub(crate) use maps::{MappedRegion, keep_maps_open};
pub(crate) use memory::read_running_module;
pub(crate) use registry::{
    ModuleChange, ModuleObserver, ensure_known, notice_replaced, observe, replace_if_abandoned, report_all,
    reset_after_fork, scan_if_due, scan_now, with_module_tables, with_unwind_tables,
};
