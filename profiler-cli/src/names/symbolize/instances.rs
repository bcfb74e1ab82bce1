//! What the debug info tells about functions that their symbols do not: the types of the instances
//! of generic functions, and which closures are async code. In: the entries of functions in the
//! debug info. Out: both, by symbol.
//!
//! A legacy symbol (`_ZN…17h…E`) names no types. Its hash differs for each instance, and the
//! debug info has the types in the name that belongs to the symbol:
//! `push<u8, alloc::alloc::Global>`. Symbols of the newer mangling (`_R…`) name their types
//! themselves.

use std::borrow::Cow;

use addr2line::gimli::{
    AttributeSpecification, AttributeValue, Dwarf, EntriesRaw, Error, Reader, Unit, constants,
};
use foldhash::HashMap;

use super::closures::{AsyncPaths, BodyKind, async_path};
use super::demangle::{demangle, is_mangled};

/// The types of the instances of a module's generic functions, by symbol.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Instances {
    by_symbol: HashMap<Box<str>, Box<str>>,
    /// The bodies of async functions, blocks and closures.
    bodies: HashMap<Box<str>, BodyKind>,
    async_paths: AsyncPaths,
}

impl Instances {
    /// Returns the types of the instance with this symbol: `<u8>`.
    pub(super) fn generics(&self, symbol: &str) -> Option<&str> {
        self.by_symbol.get(symbol).map(|generics| &**generics)
    }

    /// Returns what the function with this symbol is.
    pub(super) fn body_kind(&self, symbol: &str) -> BodyKind {
        self.bodies.get(symbol).copied().unwrap_or_default()
    }

    /// Returns the paths of all bodies of async functions and blocks.
    pub(super) fn async_paths(&self) -> &AsyncPaths {
        &self.async_paths
    }

    /// Reads the attributes of a function's entry, and keeps the types if its symbol does not name
    /// them.
    pub(super) fn read_function<R: Reader>(
        &mut self,
        entries: &mut EntriesRaw<'_, R>,
        attributes: &[AttributeSpecification],
        (dwarf, unit): (&Dwarf<R>, Option<&Unit<R>>),
    ) -> Result<(), Error> {
        let (mut symbol, mut name) = (None, None);
        for attribute in attributes {
            let attribute = entries.read_attribute(*attribute)?;
            match attribute.name() {
                constants::DW_AT_linkage_name => symbol = Some(attribute.value()),
                constants::DW_AT_name => name = Some(attribute.value()),
                _ => {}
            }
        }
        if let (Some(symbol), Some(name), Some(unit)) = (symbol, name, unit) {
            self.insert(dwarf, unit, symbol, name);
        }
        Ok(())
    }

    fn insert<R: Reader>(
        &mut self,
        dwarf: &Dwarf<R>,
        unit: &Unit<R>,
        symbol: AttributeValue<R>,
        name: AttributeValue<R>,
    ) -> Option<()> {
        if self.by_symbol.len() + self.bodies.len() >= MAX_INSTANCES {
            return None;
        }
        let name = dwarf.attr_string(unit, name).ok()?;
        let name = name.to_string().ok()?;
        let kind = BodyKind::of(&name);
        if kind != BodyKind::Ordinary {
            let symbol = dwarf.attr_string(unit, symbol.clone()).ok()?;
            self.insert_body(&symbol.to_string().ok()?, kind);
        }
        let generics = generics_of(&name)?;
        let symbol = dwarf.attr_string(unit, symbol).ok()?;
        let symbol: Cow<'_, str> = symbol.to_string().ok()?;
        if is_legacy(&symbol) && !self.by_symbol.contains_key(&*symbol) {
            self.by_symbol.insert(symbol.into(), generics.into());
        }
        Some(())
    }

    fn insert_body(&mut self, symbol: &str, kind: BodyKind) {
        if kind == BodyKind::Async
            && let Some(path) = async_path(&demangle(symbol))
        {
            self.async_paths.insert(path.into());
        }
        self.bodies.insert(symbol.into(), kind);
    }
}

/// Returns the generic arguments at the end of a name in the debug info.
pub(super) fn generics_of(name: &str) -> Option<&str> {
    if !name.ends_with('>') || name.len() > MAX_NAME {
        return None;
    }
    name.find('<').filter(|at| *at > 0).map(|at| &name[at..])
}

/// Whether a symbol is a legacy Rust symbol, which names no types.
pub(super) fn is_legacy(symbol: &str) -> bool {
    symbol.starts_with("_ZN") && is_mangled(symbol)
}

/// The most instances that are kept; no program has as many.
const MAX_INSTANCES: usize = 4_000_000;
/// Bytes of the longest name that is used; a longer name tells a person nothing.
const MAX_NAME: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_stand_at_the_end() {
        for (name, generics) in [
            ("push<u8, alloc::alloc::Global>", Some("<u8, alloc::alloc::Global>")),
            ("{closure#0}<app::Foo<u8>>", Some("<app::Foo<u8>>")),
            ("map<fn(u8) -> u8>", Some("<fn(u8) -> u8>")),
            ("main", None),
            ("operator->", None),
            ("<u8>", None),
            ("", None),
        ] {
            assert_eq!(generics_of(name), generics, "{name}");
        }
    }

    #[test]
    fn only_symbols_without_types_need_them() {
        assert!(is_legacy("_ZN3app5inner4work17h4822542496beea80E"));
        assert!(!is_legacy("_RNvNtCs1234_3app5inner4work"));
        assert!(!is_legacy("_ZN3foo3barEv"));
        assert!(!is_legacy("push"));
    }
}
