//! Variables by address, from symbol tables. In: object files. Out: statics and thread-locals, as
//! the file counts addresses. A malformed file adds nothing.

use std::path::Path;

use object::{
    Object as _, ObjectSection as _, ObjectSegment as _, ObjectSymbol as _, ReadCache, SectionKind,
    SegmentFlags, SymbolKind,
};

use super::Modules;
use super::demangle::demangle;
use super::object_file::open_regular;

/// The variables of a module: first address or offset, bytes, demangled name.
#[derive(Debug, Default)]
pub struct ModuleVariables {
    /// Static variables.
    pub statics: Vec<(u64, u64, String)>,
    /// Thread-local variables by their offset in the module's block of them.
    pub thread_locals: Vec<(u64, u64, String)>,
    /// Bytes of that block, rounded up to its alignment.
    pub tls_size: u64,
    /// First address and end of each writable segment, variables that begin as zeros included.
    pub writable: Vec<(u64, u64)>,
}

impl Modules {
    /// Returns the variables that the files of a module name. Empty if there are no such files.
    #[must_use]
    pub fn variables(&self, module: usize) -> ModuleVariables {
        let mut found = ModuleVariables::default();
        let Some(Ok(files)) = self.located.get(module).map(|located| &located.files) else { return found };
        if let Some(binary) = &files.binary {
            // A malformed file adds nothing.
            let _ = collect_layout(binary, &mut found);
        }
        // The first file is the most complete one.
        for path in &files.symbols {
            let is_read = collect(path, &mut found).is_ok();
            if is_read && !found.statics.is_empty() {
                break;
            }
        }
        found
    }
}

fn collect(path: &Path, found: &mut ModuleVariables) -> Result<(), String> {
    let cache = ReadCache::new(open_regular(path)?);
    let file = object::File::parse(&cache).map_err(|error| error.to_string())?;
    for symbol in file.symbols().chain(file.dynamic_symbols()) {
        if symbol.is_undefined() || symbol.size() == 0 {
            continue;
        }
        let list = match symbol.kind() {
            SymbolKind::Data => &mut found.statics,
            SymbolKind::Tls => &mut found.thread_locals,
            _ => continue,
        };
        let Ok(name) = symbol.name() else { continue };
        if !name.is_empty() {
            list.push((symbol.address(), symbol.size(), demangle(name).into_owned()));
        }
    }
    Ok(())
}

/// Finds the length of the block of a file's thread-local variables, and its writable segments.
fn collect_layout(path: &Path, found: &mut ModuleVariables) -> Result<(), String> {
    let cache = ReadCache::new(open_regular(path)?);
    let file = object::File::parse(&cache).map_err(|error| error.to_string())?;
    let sections = file
        .sections()
        .filter(|section| matches!(section.kind(), SectionKind::Tls | SectionKind::UninitializedTls));
    let (mut start, mut end, mut align) = (u64::MAX, 0, 1);
    for section in sections {
        start = start.min(section.address());
        end = end.max(section.address().saturating_add(section.size()));
        align = align.max(section.align());
    }
    found.tls_size = end.saturating_sub(start).checked_next_multiple_of(align).unwrap_or(0);
    let is_writable = |segment: &object::Segment<'_, '_, _>| match segment.flags() {
        SegmentFlags::Elf { p_flags, .. } => p_flags.0 & object::elf::PF_W.0 != 0,
        _ => false,
    };
    let range = |segment: object::Segment<'_, '_, _>| {
        (segment.address(), segment.address().saturating_add(segment.size()))
    };
    found.writable = file.segments().filter(is_writable).map(range).collect();
    Ok(())
}
