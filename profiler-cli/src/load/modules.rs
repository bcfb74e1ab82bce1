//! The modules that are mapped at the moment that the replay has reached. In: records of modules
//! that are mapped and unmapped, and an address. Out: the index of the module that contains the
//! address.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use alloc_dump::record;
use foldhash::HashMap;

use crate::profile::Module;

/// The modules that are mapped now, and all that ever were.
#[derive(Clone, Debug, Default)]
pub(super) struct ModuleMap {
    all: Vec<Module>,
    /// Index of each module by its number in the dump.
    by_id: HashMap<u32, u32>,
    /// By the first address of each mapping: the address after its last, and the module's index.
    mapped: BTreeMap<u64, (u64, u32)>,
}

impl ModuleMap {
    /// Adds a module that was mapped, and returns its index. Removes the modules that had any of
    /// its addresses before.
    pub(super) fn add(&mut self, module: &record::Module<'_>) -> u32 {
        let index = self.all.len() as u32;
        self.all.push(Module {
            id: module.id,
            path: PathBuf::from(OsStr::from_bytes(module.path)),
            build_id: module.build_id.to_vec(),
            bias: module.bias,
            start: module.start,
            end: module.end,
            code: None,
            lacks_unwind_tables: false,
        });
        self.by_id.insert(module.id, index);
        let overlapping =
            self.mapped.range(..module.end).rev().take_while(|(_, (end, _))| *end > module.start);
        let stale: Vec<u64> = overlapping.map(|(start, _)| *start).collect();
        for start in stale {
            self.mapped.remove(&start);
        }
        if module.start < module.end {
            self.mapped.insert(module.start, (module.end, index));
        }
        index
    }

    /// Returns the module with this number, which may not be mapped any more.
    pub(super) fn by_id(&mut self, id: u32) -> Option<&mut Module> {
        self.all.get_mut(*self.by_id.get(&id)? as usize)
    }

    /// Removes the mapping of the module with this number, which was unmapped.
    pub(super) fn remove(&mut self, id: u32) {
        let Some(index) = self.by_id.get(&id).copied() else { return };
        let Some(module) = self.all.get(index as usize) else { return };
        // The recorder may record that the next module was mapped at these addresses before it
        // records that this module was unmapped.
        if self.mapped.get(&module.start).is_some_and(|(_, mapped)| *mapped == index) {
            self.mapped.remove(&module.start);
        }
    }

    /// Returns the index of the module that contains the address.
    pub(super) fn find(&self, pc: u64) -> Option<u32> {
        let (_, (end, index)) = self.mapped.range(..=pc).next_back()?;
        (pc < *end).then_some(*index)
    }

    /// Returns all modules that were ever mapped, by index.
    pub(super) fn into_all(self) -> Vec<Module> {
        self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(id: u32, start: u64, end: u64) -> record::Module<'static> {
        record::Module { id, start, end, ..record::Module::default() }
    }

    #[test]
    fn the_newest_mapping_of_an_address_wins() {
        let mut map = ModuleMap::default();
        map.add(&module(1, 100, 200));
        map.add(&module(2, 200, 300));
        assert_eq!(
            (map.find(99), map.find(100), map.find(199), map.find(200)),
            (None, Some(0), Some(0), Some(1))
        );
        map.add(&module(3, 150, 250));
        assert_eq!((map.find(120), map.find(150), map.find(260)), (None, Some(2), None));
        map.remove(3);
        assert_eq!(map.find(200), None);
        map.add(&module(4, 150, 250));
        map.remove(3);
        assert_eq!(map.find(200), Some(3));
        assert_eq!(map.into_all().len(), 4);
    }
}
