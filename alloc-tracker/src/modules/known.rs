//! The modules that have been reported, by address, and scanning the mappings for changes. In:
//! `/proc/self/maps`, ELF headers, the loader. Out: changes, to a callback; unwind tables.
//!
//! Used under the lock of the registry. Never allocates through the global allocator.

use alloc_dump::record::Module;

use super::code::{MappedFile, checksum_in_memory};
use super::elf::{CodeSegment, ElfHeaders, MAX_BUILD_ID, UnwindTables, read_elf};
use super::file_name::path_of;
use super::maps::{AddressRange, LoadedFile, MappedRegion, Reading, RecentHeads, for_each_line};
use super::registry::ModuleChange;
use crate::base::loader::{self, LoadIdentity};
use crate::base::sys::{Errno, Mapping, PathBuffer, Plain};

/// The modules that have been reported, by address.
#[derive(Debug)]
pub(super) struct KnownModules {
    /// An array of [`KnownModule`]s; `None` before the first scan.
    table: Option<Mapping>,
    len: usize,
    next_id: u32,
    /// The number of the scan that is under way or was the last one.
    scan: u32,
    last_hit: (AddressRange, LoadIdentity),
}

impl KnownModules {
    pub(super) const fn new() -> KnownModules {
        KnownModules {
            table: None,
            len: 0,
            next_id: 0,
            scan: 0,
            last_hit: (AddressRange::EMPTY, LoadIdentity::NONE),
        }
    }

    /// Returns no modules, for a new recording. New modules get other numbers than those before.
    pub(super) fn after(before: &KnownModules) -> KnownModules {
        KnownModules { next_id: before.next_id, ..KnownModules::new() }
    }

    /// Whether this address lies in a module that has been reported, and that the loader still has
    /// there. If the loader cannot be asked, the module counts as still there.
    #[inline]
    pub(super) fn covers(&mut self, pc: u64) -> bool {
        let now = loader::load_at(pc);
        let (range, loaded) = self.last_hit;
        if range.contains(pc) {
            return now.is_none_or(|now| now == loaded);
        }
        let Some(known) = self.all().iter().find(|module| module.range.contains(pc)) else { return false };
        let (range, loaded) = (known.range, known.loaded);
        self.last_hit = (range, loaded);
        now.is_none_or(|now| now == loaded)
    }

    /// Returns what is known of the unwind tables of the module that this address lies in. `None`
    /// if there is no such module, or if the loader does not confirm that the module is still
    /// there: its tables may then be anything, or not mapped.
    pub(super) fn unwind_tables(&mut self, pc: u64) -> Option<ModuleTables> {
        let now = loader::load_at(pc)?;
        let module =
            self.all().iter_mut().find(|module| module.range.contains(pc) && module.loaded == now)?;
        if module.headers_read == 0 {
            // The scan has met the module while another thread was loading it.
            let elf = read_elf(module.head, &mut [0; MAX_BUILD_ID])?;
            (module.tables, module.headers_read) = (elf.tables, 1);
        }
        // PERF: a module without tables is remembered as such. Its headers are not read again.
        Some(match module.tables.segment_len {
            0 => ModuleTables::None,
            _ => ModuleTables::Mapped(module.tables),
        })
    }

    /// Whether the loader has replaced any module. PERF: costs nanoseconds for each module.
    pub(super) fn any_replaced(&mut self) -> bool {
        let replaced = |module: &KnownModule| {
            loader::load_at(module.range.start).is_some_and(|now| now != module.loaded)
        };
        self.all().iter().any(replaced)
    }

    /// Reads the process's mappings and reports what has changed since the last scan.
    pub(super) fn scan(&mut self, report: &mut dyn FnMut(ModuleChange<'_>)) -> Result<(), Errno> {
        if self.table.is_none() {
            self.table = Some(Mapping::anonymous(MAX_MODULES * size_of::<KnownModule>())?);
        }
        self.scan += 1;
        self.last_hit = (AddressRange::EMPTY, LoadIdentity::NONE);
        let mut file = LoadedFile::default();
        let (mut path, mut heads) = (PathBuffer::new(), RecentHeads::default());
        for_each_line(Reading::Scan, |line| {
            let Some(region) = MappedRegion::parse(line) else { return };
            if file.continues_with(&region) {
                file.extend(&region);
                return;
            }
            if region.is_executable() && region.inode != file.inode {
                if self.keep_if_copied(&region) {
                    return;
                }
                if is_copy_of_code(&file, &path, &region) {
                    file.extend_by_copy(&region);
                    return;
                }
            }
            self.add_if_new(&file, &path, report);
            heads.note(&file);
            file = LoadedFile::starting_with(&region, &heads);
            path = path_of(region.path, region.inode);
        })?;
        self.add_if_new(&file, &path, report);
        self.remove_stale(report);
        Ok(())
    }

    /// Keeps the known module of which this region of other memory has the code; false if there is
    /// none. Some servers move their code into memory of their own, for the sake of huge pages. The
    /// loader does not know that, and the code has the meaning that it had.
    fn keep_if_copied(&mut self, region: &MappedRegion<'_>) -> bool {
        let (at, scan) = (region.range.start, self.scan);
        let Some(module) = self.all().iter_mut().find(|module| module.range.contains(at)) else {
            return false;
        };
        let still_loaded = module.loaded != LoadIdentity::NONE && loader::load_at(at) == Some(module.loaded);
        if module.inode == region.inode || !still_loaded || module.has_checksum == 0 {
            return false;
        }
        let same = checksum_in_memory(module.bias, module.code) == Some(module.checksum);
        if same {
            module.scan = scan;
        } else {
            // Also for the parts that are still mapped from the file, it is another module now.
            module.inode = NO_INODE;
        }
        same
    }

    fn all(&mut self) -> &mut [KnownModule] {
        let len = self.len;
        self.table
            .as_mut()
            .and_then(|table| table.slice_mut::<KnownModule>().get_mut(..len))
            .unwrap_or_default()
    }

    /// Notes that this scan has met the load, and reports the load if it is new.
    fn add_if_new(&mut self, file: &LoadedFile, path: &PathBuffer, report: &mut dyn FnMut(ModuleChange<'_>)) {
        if !file.executable || path.is_empty() {
            return;
        }
        let scan = self.scan;
        let loaded = loader::load_at(file.range.start).unwrap_or(LoadIdentity::NONE);
        // A part of a known module, which the loader still has there, is that module: other memory
        // has taken the place of its other parts.
        let same = |module: &&mut KnownModule| {
            module.inode == file.inode
                && (module.range == file.range
                    || module.range.covers(&file.range)
                        && Some(module.head) == file.head
                        && module.loaded == loaded
                        && loaded != LoadIdentity::NONE)
        };
        if let Some(module) = self.all().iter_mut().find(same) {
            // One file at the same addresses is the same code, even if it was unmapped in between.
            // But if an earlier scan met the module while another thread was loading it, the
            // headers may not have been readable yet.
            module.scan = scan;
            if module.loaded != loaded
                && let Some(elf) = file.head.and_then(|head| read_elf(head, &mut [0; MAX_BUILD_ID]))
                && file.is_still_there(loaded)
            {
                (module.tables, module.loaded, module.headers_read) = (elf.tables, loaded, 1);
            }
            return;
        }
        // Vanished modules are reported before the new one.
        self.remove_overlapping(file.range, report);
        if self.len == MAX_MODULES {
            return;
        }
        let mut build_id = [0u8; MAX_BUILD_ID];
        // The kernel may forbid to read the headers. Then `head` serves as the load bias, below, so
        // that addresses in position-independent files can still be resolved.
        let Some(head) = file.head else { return };
        let elf = read_elf(head, &mut build_id);
        if elf.is_none() && loaded == LoadIdentity::NONE {
            // Another thread is loading the file at this moment; a later scan will meet the file
            // again.
            return;
        }
        // PERF: not checked in the first scan, which finds many modules. At that time there is
        // mostly no other thread that could unload a module.
        if scan > 1 && !file.is_still_there(loaded) {
            // A later scan will meet the file again, or the one that has replaced it.
            return;
        }
        let headers_read = u32::from(elf.is_some());
        let elf = elf.unwrap_or(ElfHeaders {
            bias: head,
            build_id_len: 0,
            tables: UnwindTables::default(),
            code: CodeSegment::default(),
        });
        let mapped = MappedFile { path, inode: file.inode, bias: elf.bias, code: elf.code };
        let code = if file.is_on_disk() { mapped.identity() } else { None };
        let id = self.next_id;
        self.next_id += 1;
        self.len += 1;
        if let Some(slot) = self.all().last_mut() {
            *slot = KnownModule {
                range: file.range,
                inode: file.inode,
                id,
                scan,
                tables: elf.tables,
                loaded,
                head,
                bias: elf.bias,
                code: elf.code,
                headers_read,
                has_checksum: u32::from(code.is_some()),
                checksum: code.map_or(0, |code| code.crc),
                unused: 0,
            };
        }
        let module = Module {
            id,
            start: file.range.start,
            end: file.range.end,
            bias: elf.bias,
            build_id: build_id.get(..elf.build_id_len).unwrap_or_default(),
            path: path.as_bytes(),
        };
        let lacks_unwind_tables = headers_read != 0 && elf.tables.segment_len == 0;
        report(ModuleChange::Appeared { module, code, lacks_unwind_tables });
    }

    /// Removes all modules that overlap this range, because they are no longer mapped.
    fn remove_overlapping(&mut self, range: AddressRange, report: &mut dyn FnMut(ModuleChange<'_>)) {
        self.keep(|module| module.range.end <= range.start || range.end <= module.range.start, report);
    }

    /// Removes all modules that this scan has not met.
    fn remove_stale(&mut self, report: &mut dyn FnMut(ModuleChange<'_>)) {
        let scan = self.scan;
        self.keep(|module| module.scan == scan, report);
    }

    /// Removes all modules for which `wanted` returns false, and reports each as vanished.
    fn keep(&mut self, wanted: impl Fn(&KnownModule) -> bool, report: &mut dyn FnMut(ModuleChange<'_>)) {
        let known = self.all();
        let mut kept = 0;
        for index in 0..known.len() {
            let module = known[index];
            if wanted(&module) {
                known[kept] = module;
                kept += 1;
            } else {
                report(ModuleChange::Vanished { id: module.id });
            }
        }
        self.len = kept;
    }
}

/// More modules than this are not reported; their frames stay unresolved.
const MAX_MODULES: usize = 4096;

/// A module that has been reported.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct KnownModule {
    range: AddressRange,
    inode: u64,
    id: u32,
    /// The number of the last scan that has met the module.
    scan: u32,
    tables: UnwindTables,
    loaded: LoadIdentity,
    /// Address of the file's first byte.
    head: u64,
    bias: u64,
    code: CodeSegment,
    /// 1 if the headers could be read, so that `tables` is final.
    headers_read: u32,
    /// 1 if `checksum` is known.
    has_checksum: u32,
    /// The checksum of the code.
    checksum: u32,
    unused: u32,
}

/// No file has this inode.
const NO_INODE: u64 = u64::MAX;

/// What is known of a module's unwind tables.
#[derive(Clone, Copy, Debug)]
pub(super) enum ModuleTables {
    Mapped(UnwindTables),
    /// The module has none.
    None,
}

/// Whether this region of other memory, which follows a part of a load, has the load's code. So it
/// is if the program moved its code before the first scan.
fn is_copy_of_code(file: &LoadedFile, path: &PathBuffer, region: &MappedRegion<'_>) -> bool {
    let Some(head) = file.head.filter(|_| file.is_followed_inside_by(region)) else { return false };
    let elf = read_elf(head, &mut [0; MAX_BUILD_ID]);
    elf.is_some_and(|elf| {
        MappedFile { path, inode: file.inode, bias: elf.bias, code: elf.code }.has_code_of_file()
    })
}

// SAFETY: integers without padding.
unsafe impl Plain for KnownModule {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_finds_the_running_program_with_its_own_code() {
        let mut modules = KnownModules::new();
        let exe = std::env::current_exe().unwrap();
        let mut own = None;
        modules
            .scan(&mut |change| {
                if let ModuleChange::Appeared { module, code, lacks_unwind_tables } = change
                    && module.path == exe.to_str().unwrap().as_bytes()
                {
                    assert!(code.is_some_and(|code| code.code_bytes > 0) && !lacks_unwind_tables);
                    own = Some((module.start, module.end, module.build_id.len()));
                }
            })
            .unwrap();
        let here = is_copy_of_code as fn(_, _, _) -> _ as usize as u64;
        let (start, end, build_id_len) = own.expect("the test program is among the modules");
        assert!((start..end).contains(&here) && modules.covers(here) && build_id_len >= 8);
        // Nothing has changed since.
        modules.scan(&mut |_| panic!("a second scan reports nothing")).unwrap();
    }
}
