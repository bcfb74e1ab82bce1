//! Names to keep in a dump. In: the call tree of a dump. Out: the names of all its addresses, ready
//! to be written into it. A name is kept only if it comes from the build that ran.

use std::io;

use alloc_dump::compress::LEVEL;
use alloc_dump::symbols::{EncodedSymbols, FunctionSymbol, SymbolsEncoder};

use super::hints::{doubt, hints};
use super::stacks::{addresses_by_module, node_addresses, open_modules};
use super::symbolize::{SymbolFrame, SymbolizeError, SymbolizeOptions};
use crate::profile::{Module, Profile};

/// The names of a dump's code.
#[derive(Debug)]
pub struct NamesToKeep {
    /// All names, to replace those that the dump has; `None` if it has them all already.
    pub symbols: Option<Vec<EncodedSymbols>>,
    /// Number of addresses that have a name.
    pub named: usize,
    /// Number of addresses in modules.
    pub addresses: usize,
    /// Why names are missing, one line each.
    pub hints: Vec<String>,
}

/// Why there are no names to keep.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeepError {
    /// The symbolizer failed.
    #[error(transparent)]
    Symbolize(#[from] SymbolizeError),
    /// The names cannot be compressed.
    #[error("cannot compress the names")]
    Compress(#[from] io::Error),
}

/// Finds the names of all code addresses of the profile.
///
/// # Errors
/// See [`KeepError`]. A module without names is no error: its addresses are left out.
pub fn names_to_keep(
    profile: &Profile,
    options: SymbolizeOptions,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<NamesToKeep, KeepError> {
    let modules = open_modules(profile, options)?;
    let wanted = addresses_by_module(&node_addresses(profile, &modules), profile.modules.len());
    let symbols = modules.symbolize(&wanted, progress)?;
    let mut encoder = SymbolsEncoder::new(LEVEL);
    let (mut named, mut has_new) = (0, false);
    for ((index, module), wanted) in profile.modules.iter().enumerate().zip(&wanted) {
        let is_doubtful = modules.uses_files(index)
            && (is_unknown_build(module)
                || doubt(module, modules.code_file(index), profile.process.started_unix_ns).is_some());
        if is_doubtful {
            continue;
        }
        let is_trusted = symbols.status(index).is_trusted();
        encoder.begin_module(module.id, &modules.trampolines(index));
        for address in wanted {
            let frames = symbols.frames(index, *address);
            let has_name = frames.iter().any(|frame| frame.is_resolved);
            if has_name || is_trusted {
                encoder.push(address.lookup(), frames.iter().map(function_symbol));
                named += usize::from(has_name);
                has_new |= !modules.uses_dump_alone(index);
            }
        }
    }
    let symbols_of_dump = if has_new { Some(encoder.finish()?) } else { None };
    Ok(NamesToKeep {
        symbols: symbols_of_dump,
        named,
        addresses: wanted.iter().map(Vec::len).sum(),
        hints: hints(profile, &modules, &symbols, &wanted),
    })
}

/// Whether nothing tells the build that ran from others.
fn is_unknown_build(module: &Module) -> bool {
    module.build_id.is_empty() && module.code.is_none()
}

fn function_symbol(frame: &SymbolFrame) -> FunctionSymbol<'_> {
    FunctionSymbol {
        function: &frame.function,
        generics: frame.generics.as_deref(),
        file: frame.file.as_deref(),
        line: frame.line,
        column: frame.column,
        is_inlined: frame.is_inlined,
        is_named: frame.is_resolved,
    }
}
