//! The variables of the modules of a process: statics and thread-locals. In: a profile, and the
//! files of its modules. Out: names by address. A module without its file, or without symbols, adds
//! nothing.

use super::symbolize::{ModuleSpec, Modules, SymbolizeError, SymbolizeOptions};
use crate::profile::{Module, Profile};

/// A variable at its address in the process or, if it is thread-local, at its distance from the
/// thread pointer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variable {
    /// First address. Of a thread-local variable: how many bytes it begins before the thread
    /// pointer.
    pub start: u64,
    /// Bytes.
    pub size: u64,
    /// The name, demangled.
    pub name: String,
}

/// The variables of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables {
    /// Static variables in the order of their addresses.
    pub statics: Vec<Variable>,
    /// Thread-local variables of the program itself.
    pub thread_locals: Vec<Variable>,
    /// Bytes of the thread-locals of all modules, each with its alignment.
    pub tls_size: u64,
    /// First address and end of the writable segments of the modules whose files are there, in the
    /// order of their addresses.
    pub writable: Vec<(u64, u64)>,
}

impl Variables {
    /// Reads the variables of all modules.
    ///
    /// # Errors
    /// See [`SymbolizeError`].
    pub fn read(profile: &Profile, options: SymbolizeOptions) -> Result<Variables, SymbolizeError> {
        // The names that a dump keeps are those of functions, so the files are needed.
        let spec = |module: &Module| ModuleSpec {
            path: module.path.clone(),
            build_id: module.build_id.clone(),
            code: module.code,
        };
        let specs: Vec<ModuleSpec> = profile.modules.iter().map(spec).collect();
        let modules = Modules::open(&specs, options)?;
        let mut variables = Variables::default();
        for (index, module) in profile.modules.iter().enumerate() {
            let of_module = modules.variables(index);
            let at_run_time =
                |(start, end): (u64, u64)| (start.wrapping_add(module.bias), end.wrapping_add(module.bias));
            variables.writable.extend(of_module.writable.into_iter().map(at_run_time));
            let statics = of_module.statics.into_iter();
            variables.statics.extend(statics.map(|(start, size, name)| Variable {
                start: start.wrapping_add(module.bias),
                size,
                name,
            }));
            // The program's own thread-locals are the nearest to the thread pointer. This is so on
            // x86-64; on other processors they have no names.
            if cfg!(target_arch = "x86_64") && module.path == profile.process.exe {
                let tls_size = of_module.tls_size;
                variables.thread_locals = of_module
                    .thread_locals
                    .into_iter()
                    .filter_map(|(offset, size, name)| {
                        Some(Variable { start: tls_size.checked_sub(offset)?, size, name })
                    })
                    .collect();
            }
            variables.tls_size = variables.tls_size.saturating_add(of_module.tls_size);
        }
        variables.writable.sort_unstable();
        variables.statics.sort_by(|a, b| (a.start, a.size, &a.name).cmp(&(b.start, b.size, &b.name)));
        // Of several names of one address, the one of the largest variable stays.
        variables.statics.dedup_by(|later, earlier| {
            let is_same = later.start == earlier.start;
            if is_same && later.size > earlier.size {
                std::mem::swap(later, earlier);
            }
            is_same
        });
        Ok(variables)
    }
}
