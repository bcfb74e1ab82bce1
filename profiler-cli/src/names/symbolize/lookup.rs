//! Looking up one address. In: debug info and symbol table. Out: frames.
//!
//! Frames are innermost first: the functions inlined at the address, then the function that
//! contains the address. There is always at least one frame. A broken part of the debug info costs
//! only the frames that it describes.

use std::sync::Arc;

use addr2line::{Loader, Location};

use super::SymbolFrame;
use super::closures::{BodyKind, readable};
use super::demangle::{NameInterner, is_mangled};
use super::instances::{Instances, generics_of, is_legacy};
use super::symbol_table::SymbolTable;

/// The most frames at one address; no compiler inlines as many calls. The function that contains
/// the address is never left out.
const MAX_FRAMES: usize = 1000;

/// Everything that is known about the code of one module.
pub(super) struct AddressLookup<'a> {
    pub(super) module_name: &'a str,
    pub(super) debug_info: Option<&'a Loader>,
    pub(super) symbols: &'a SymbolTable,
    pub(super) instances: &'a Instances,
    pub(super) names: &'a NameInterner,
}

impl AddressLookup<'_> {
    /// Returns the frames at `address`.
    pub(super) fn frames(&self, address: u64) -> Arc<[SymbolFrame]> {
        let mut frames = Vec::new();
        let complete =
            self.debug_info.is_some_and(|loader| self.push_inline_chain(loader, address, &mut frames));
        if !complete {
            // There are no frames, or only inlined calls without the function that contains them.
            frames.push(self.symbol_frame(address));
        }
        frames.into()
    }

    /// Adds the frames that the debug info has. Returns `false` if the outermost frame is still
    /// missing.
    fn push_inline_chain(&self, loader: &Loader, address: u64, frames: &mut Vec<SymbolFrame>) -> bool {
        let Ok(mut found) = loader.find_frames(address) else { return false };
        let mut held = None;
        loop {
            match found.next() {
                Ok(Some(next)) => {
                    if let Some(inner) = held.replace(next)
                        && frames.len() + 1 < MAX_FRAMES
                    {
                        let name = inner.function.as_ref().and_then(|function| function.raw_name().ok());
                        let name = match name {
                            Some(raw) => self.name(&raw),
                            None => FunctionName::without_generics(self.names.intern("?")),
                        };
                        frames.push(self.frame(name, inner.location, true));
                    }
                }
                Ok(None) => break,
                Err(_) => return false,
            }
        }
        let Some(outermost) = held else { return false };
        let raw = outermost.function.as_ref().and_then(|function| function.raw_name().ok());
        let mut frame = self.frame(self.outermost_name(raw.as_deref(), address), outermost.location, false);
        frame.is_resolved =
            raw.is_some() || frame.line.is_some() || self.symbols.find(address, None).is_some();
        frames.push(frame);
        true
    }

    /// Returns the name of the function that contains the address. With line tables alone, the
    /// debug info names it `push<u8>`, and the linker's symbol has the full path.
    fn outermost_name(&self, raw: Option<&str>, address: u64) -> FunctionName {
        match raw {
            Some(raw) if is_mangled(raw) => self.name(raw),
            Some(raw) => match self.symbols.find(address, Some(raw)) {
                Some(symbol) if is_legacy(symbol) => {
                    let generics = generics_of(raw).map(|generics| self.names.intern(generics));
                    FunctionName { function: self.path(symbol, BodyKind::of(raw)), generics }
                }
                Some(symbol) if is_mangled(symbol) => {
                    FunctionName::without_generics(self.path(symbol, BodyKind::of(raw)))
                }
                _ => FunctionName::without_generics(self.names.function(raw)),
            },
            None => FunctionName::without_generics(self.symbol_frame(address).function),
        }
    }

    fn name(&self, raw: &str) -> FunctionName {
        let generics = self.instances.generics(raw).map(|generics| self.names.intern(generics));
        FunctionName { function: self.path(raw, self.instances.body_kind(raw)), generics }
    }

    /// Returns the readable path of the function with this symbol.
    fn path(&self, symbol: &str, kind: BodyKind) -> Arc<str> {
        let path = self.names.function(symbol);
        // PERF: few functions are closures.
        if !path.contains("::{") {
            return path;
        }
        readable(&path, kind, self.instances.async_paths()).map_or(path, |path| self.names.intern(&path))
    }

    fn symbol_frame(&self, address: u64) -> SymbolFrame {
        let symbol = self.symbols.find(address, None);
        let function = match symbol {
            Some(symbol) => self.path(symbol, BodyKind::Ordinary),
            None => self.names.intern(&format!("{}+{address:#x}", self.module_name)),
        };
        SymbolFrame { is_resolved: symbol.is_some(), ..SymbolFrame::unresolved(function) }
    }

    fn frame(&self, name: FunctionName, location: Option<Location<'_>>, is_inlined: bool) -> SymbolFrame {
        let location = location.unwrap_or(Location { file: None, line: None, column: None });
        let line = location.line.filter(|&line| line != 0);
        // Code without a line may have the compilation unit as its file, `name.0123-cgu.0`, which
        // is no file.
        let file = location.file.filter(|file| line.is_some() || !file.contains("-cgu."));
        SymbolFrame {
            function: name.function,
            generics: name.generics,
            file: file.map(|file| self.names.intern(file)),
            line,
            column: location.column.filter(|&column| column != 0),
            is_inlined,
            is_resolved: true,
        }
    }
}

/// A function's name, and the types of its instance.
struct FunctionName {
    function: Arc<str>,
    generics: Option<Arc<str>>,
}

impl FunctionName {
    fn without_generics(function: Arc<str>) -> FunctionName {
        FunctionName { function, generics: None }
    }
}
