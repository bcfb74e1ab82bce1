//! Function names by address, from symbol tables. In: object files. Out: one sorted table of all
//! functions in `.symtab` and `.dynsym`.
//!
//! The order of the table, and so every result, must depend on the contents of the files alone.

use std::path::{Path, PathBuf};

use object::{Object as _, ObjectSymbol as _, ReadCache, SymbolKind};

use super::demangle::demangle;
use super::object_file::open_regular;
use crate::names::rust_path::last_segment;

/// The most ranges before an address that are searched for the range that contains it. Few
/// functions are nested in the range of another function; hand-written assembly does so.
const MAX_STEPS_BACK: usize = 64;

#[derive(Debug, Default)]
pub(super) struct SymbolTable {
    /// Sorted by `start`; the best name comes first among equal addresses.
    entries: Vec<SymbolRange>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct SymbolRange {
    start: u64,
    /// Lower is better: typed before untyped symbols, then global before local ones.
    rank: u8,
    name: Box<str>,
    /// The first address after the function.
    end: u64,
}

impl SymbolTable {
    /// Reads the tables of these files. A file without a readable table adds nothing.
    pub(super) fn read(paths: &[PathBuf]) -> Self {
        let mut entries = Vec::new();
        for path in paths {
            // A file that cannot be read was reported when it was located.
            let _ = collect(path, &mut entries);
        }
        Self::new(entries)
    }

    fn new(mut entries: Vec<SymbolRange>) -> Self {
        entries.sort_unstable();
        entries.dedup_by(|later, first| later.start == first.start && later.name == first.name);
        // A symbol without a size extends to the next symbol.
        let mut next_start = u64::MAX;
        for index in (0..entries.len()).rev() {
            let start = entries[index].start;
            if entries[index].end == start {
                entries[index].end = next_start;
            }
            if index > 0 && entries[index - 1].start != start {
                next_start = start;
            }
        }
        Self { entries }
    }

    /// Returns the linker's name of the function at `address`.
    ///
    /// The linker may have merged functions with equal code at one address. Then `short_name`, the
    /// name in the debug info, selects one of them.
    pub(super) fn find(&self, address: u64, short_name: Option<&str>) -> Option<&str> {
        let after = self.entries.partition_point(|entry| entry.start <= address);
        let containing =
            self.entries[..after].iter().rev().take(MAX_STEPS_BACK).find(|entry| address < entry.end)?;
        let first = self.entries.partition_point(|entry| entry.start < containing.start);
        let same_start =
            self.entries[first..after].iter().take_while(|entry| entry.start == containing.start);
        let mut candidates = same_start.filter(|entry| address < entry.end).map(|entry| &*entry.name);
        let best = candidates.next()?;
        let Some(wanted) = short_name.map(last_segment) else { return Some(best) };
        let matches = |name: &&str| last_segment(&demangle(name)) == wanted;
        if matches(&best) { Some(best) } else { candidates.find(matches).or(Some(best)) }
    }
}

fn collect(path: &Path, entries: &mut Vec<SymbolRange>) -> Result<(), String> {
    let cache = ReadCache::new(open_regular(path)?);
    let file = object::File::parse(&cache).map_err(|error| error.to_string())?;
    for symbol in file.symbols().chain(file.dynamic_symbols()) {
        let is_function = match symbol.kind() {
            SymbolKind::Text => true,
            // Functions in assembly may have no type.
            SymbolKind::Unknown => false,
            _ => continue,
        };
        let Ok(name) = symbol.name() else { continue };
        // `$x` marks code among data, and `.L` is a label of the compiler. Neither is a function.
        if symbol.is_undefined() || name.is_empty() || name.starts_with('$') || name.starts_with(".L") {
            continue;
        }
        let rank = u8::from(!is_function) * 2 + u8::from(!symbol.is_global());
        let start = symbol.address();
        entries.push(SymbolRange {
            start,
            rank,
            name: name.into(),
            end: start.saturating_add(symbol.size()),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(symbols: &[(u64, u64, u8, &str)]) -> SymbolTable {
        let entries = symbols.iter().map(|&(start, size, rank, name)| SymbolRange {
            start,
            rank,
            name: name.into(),
            end: start + size,
        });
        SymbolTable::new(entries.collect())
    }

    #[test]
    fn an_address_belongs_to_the_symbol_whose_range_contains_it() {
        let table = table(&[(0x100, 0x10, 0, "a"), (0x120, 0x10, 0, "b")]);
        assert_eq!(table.find(0xff, None), None);
        assert_eq!(table.find(0x100, None), Some("a"));
        assert_eq!(table.find(0x10f, None), Some("a"));
        assert_eq!(table.find(0x110, None), None, "a gap belongs to no function");
        assert_eq!(table.find(0x12f, None), Some("b"));
        assert_eq!(table.find(u64::MAX, None), None);
    }

    #[test]
    fn a_symbol_without_size_ends_at_the_next_one() {
        let table = table(&[
            (0x100, 0, 2, "asm"),
            (0x100, 0, 3, "asm_alias"),
            (0x140, 0x10, 0, "b"),
            (0x200, 0, 2, "last"),
        ]);
        assert_eq!(table.find(0x13f, None), Some("asm"));
        assert_eq!(table.find(0x140, None), Some("b"));
        assert_eq!(table.find(0x500, None), Some("last"));
    }

    #[test]
    fn the_inner_of_two_nested_symbols_wins_and_the_outer_continues_after_it() {
        let table = table(&[(0x100, 0x100, 0, "outer"), (0x120, 0x10, 0, "inner")]);
        assert_eq!(table.find(0x128, None), Some("inner"));
        assert_eq!(table.find(0x150, None), Some("outer"));
    }

    #[test]
    fn merged_functions_are_distinguished_by_their_short_name() {
        let merged = [
            (0x100, 0x10, 0, "_RNvNtC3app1a5first"),
            (0x100, 0x10, 0, "_RNvNtC3app1b6second"),
            (0x100, 0x10, 1, "a_local_alias"),
        ];
        let table = table(&merged);
        assert_eq!(table.find(0x104, None), Some("_RNvNtC3app1a5first"));
        assert_eq!(table.find(0x104, Some("second<u8>")), Some("_RNvNtC3app1b6second"));
        assert_eq!(table.find(0x104, Some("third")), Some("_RNvNtC3app1a5first"));
    }

    #[test]
    fn the_functions_of_this_test_are_found() {
        let table = SymbolTable::read(&[std::env::current_exe().expect("a test has a path")]);
        let main =
            table.entries.iter().find(|entry| &*entry.name == "main").expect("every program has a main");
        assert_eq!(table.find(main.start, None), Some("main"));
    }
}
