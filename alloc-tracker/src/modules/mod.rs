//! Which files with code are mapped where. In: `/proc/self/maps`, and the ELF headers as they stand in memory. Out:
//! module records for the recording, unwind tables for the walk, a generation that changes when code has gone. Takes no lock of the loader's (an event may come from inside `dlopen`), allocates nothing, and
//! reads the host's memory only through the kernel, so that a library that is just being unmapped is an error and
//! not a fault.

use alloc_dump::record::Module;

use crate::base::epoch;
use crate::base::loader::{self, Identity};
use crate::base::sys::{self, Errno, File, FutexLock, Mapping, PathBuffer, Plain};
use crate::capture;
use crate::recorder;

/// Makes sure that the module of this address is known and reported, if it has one. Code that is in no file (a JIT's)
/// must not cost a scan for each of its frames: after a scan in vain the next one waits, if need be until the end.
pub(crate) fn ensure(pc: u64) {
    MODULES.lock().ensure(pc);
}

/// Calls `f` with the unwind tables of the module that this address lies in. Under the lock of the modules.
pub(crate) fn with_unwind_tables<R>(address: u64, f: impl FnOnce(UnwindTables) -> Option<R>) -> Option<R> {
    let mut shared = MODULES.lock();
    shared.ensure(address);
    let tables = shared.modules.unwind_tables(address)?;
    f(tables)
}

/// Reports all modules to a recording that has just begun.
pub(crate) fn report_all() {
    let mut shared = MODULES.lock();
    let next_id = shared.modules.next_id;
    *shared = Shared { modules: Modules { next_id, ..Modules::new() }, ..Shared::new() };
    begin_generation();
    shared.scan();
}

/// Looks for modules that are no longer what they were.
pub(crate) fn notice_replaced() {
    // Whoever has the lock is just looking.
    let Some(mut shared) = MODULES.try_lock() else { return };
    if shared.modules.any_replaced() {
        shared.scan();
    }
}

/// Scans once more if an address was met outside of all known modules since the last scan.
pub(crate) fn catch_up() {
    let mut shared = MODULES.lock();
    if shared.scan_due {
        shared.scan();
    }
}

/// Begins anew in a forked child.
///
/// # Safety
/// No other thread may use the modules.
pub(crate) unsafe fn renew() {
    // SAFETY: the caller's promise.
    unsafe { MODULES.reset(Shared::new()) };
}

static MODULES: FutexLock<Shared> = FutexLock::new(Shared::new());

/// What is known of the modules, by all threads.
struct Shared {
    modules: Modules,
    next_scan_ns: u64,
    /// Whether an address outside of all known modules was met since the last scan.
    scan_due: bool,
}

impl Shared {
    const fn new() -> Shared {
        Shared { modules: Modules::new(), next_scan_ns: 0, scan_due: false }
    }

    fn ensure(&mut self, pc: u64) {
        if self.modules.covers(pc) {
            return;
        }
        let now = sys::clock_ns(libc::CLOCK_MONOTONIC);
        self.scan_due = now < self.next_scan_ns;
        if self.scan_due {
            return;
        }
        self.scan();
        if !self.modules.covers(pc) {
            self.next_scan_ns = now + SCAN_INTERVAL_NS;
        }
    }

    fn scan(&mut self) {
        let mut gone = false;
        let scanned = self.modules.scan(&mut |found| {
            if matches!(found, Found::Vanished(_)) && !std::mem::replace(&mut gone, true) {
                begin_generation();
            }
            recorder::module_changed(&found);
        });
        self.scan_due = false;
        if scanned.is_err() {
            // Where /proc cannot be read frames stay unresolved, which the reader counts.
            self.next_scan_ns = sys::clock_ns(libc::CLOCK_MONOTONIC) + SCAN_INTERVAL_NS;
        }
    }
}

/// From now on the same addresses may be other code: they get other rules and other nodes.
fn begin_generation() {
    capture::forget_rules();
    // Whoever sees the new generation forgets what it knew, and finds no old rule any more.
    epoch::next_generation();
}

const SCAN_INTERVAL_NS: u64 = 100_000_000;

/// The modules that have been reported, by address.
#[derive(Debug)]
struct Modules {
    table: Option<Mapping>,
    len: usize,
    next_id: u32,
    generation: u32,
    last_hit: (Range, Identity),
}

/// What a rescan found out.
pub(crate) enum Found<'a> {
    /// Mapped since the last scan.
    Appeared(Module<'a>),
    /// No longer mapped, or mapped anew.
    Vanished(u32),
}

impl Modules {
    const fn new() -> Modules {
        Modules { table: None, len: 0, next_id: 0, generation: 0, last_hit: (Range::NONE, Identity::NONE) }
    }

    /// Whether this address lies in a module that has been reported, and that is still the one there, as far as the
    /// loader tells.
    #[inline]
    fn covers(&mut self, pc: u64) -> bool {
        let now = loader::identity(pc);
        let (range, loaded) = self.last_hit;
        if range.contains(pc) {
            return now.is_none_or(|now| now == loaded);
        }
        let Some(known) = self.known().iter().find(|module| module.range.contains(pc)) else { return false };
        let (range, loaded) = (known.range, known.loaded);
        self.last_hit = (range, loaded);
        now.is_none_or(|now| now == loaded)
    }

    /// The unwind tables of the module that this address lies in. Only where the loader tells that it is still there:
    /// the tables of one that is not may be anything, or not mapped.
    fn unwind_tables(&mut self, pc: u64) -> Option<UnwindTables> {
        let now = loader::identity(pc)?;
        let module =
            self.known().iter_mut().find(|module| module.range.contains(pc) && module.loaded == now)?;
        if module.tables.segment_len == 0
            && let Some(elf) = read_elf(module.range.start, &mut [0; MAX_BUILD_ID])
        {
            // It may have been met while another thread was just loading it.
            module.tables = elf.tables;
        }
        (module.tables.segment_len > 0).then_some(module.tables)
    }

    /// Whether the loader has something else where a module was. PERF: nanoseconds for each module.
    fn any_replaced(&mut self) -> bool {
        let replaced =
            |module: &Known| loader::identity(module.range.start).is_some_and(|now| now != module.loaded);
        self.known().iter().any(replaced)
    }

    /// Reads the process's mappings and tells what has changed since the last time.
    fn scan(&mut self, report: &mut dyn FnMut(Found<'_>)) -> Result<(), Errno> {
        if self.table.is_none() {
            self.table = Some(Mapping::anonymous(MAX_MODULES * size_of::<Known>())?);
        }
        self.generation += 1;
        self.last_hit = (Range::NONE, Identity::NONE);
        let mut group = Group::default();
        let mut path = PathBuffer::new();
        for_each_line(c"/proc/self/maps", |line| {
            let Some(region) = Region::parse(line) else { return };
            if group.continues_with(&region) {
                group.extend(&region);
                return;
            }
            self.meet(&group, &path, report);
            group = Group::starting_with(&region);
            path.clear();
            path.push(region.path.strip_suffix(b" (deleted)").unwrap_or(region.path));
        })?;
        self.meet(&group, &path, report);
        self.drop_stale(report);
        Ok(())
    }

    fn known(&mut self) -> &mut [Known] {
        let len = self.len;
        self.table.as_mut().and_then(|table| table.slice_mut::<Known>().get_mut(..len)).unwrap_or_default()
    }

    fn meet(&mut self, group: &Group, path: &PathBuffer, report: &mut dyn FnMut(Found<'_>)) {
        if !group.executable || path.is_empty() {
            return;
        }
        let generation = self.generation;
        let same = |module: &&mut Known| module.range == group.range && module.inode == group.inode;
        let loaded = loader::identity(group.range.start).unwrap_or(Identity::NONE);
        if let Some(module) = self.known().iter_mut().find(same) {
            // The same file at the same place is the same code, also if it was gone in between. But if it was met while another
            // thread was just loading it, not all of it was there.
            module.generation = generation;
            if module.loaded != loaded
                && let Some(elf) = group.head.and_then(|head| read_elf(head, &mut [0; MAX_BUILD_ID]))
                && group.is_still_there(loaded)
            {
                (module.tables, module.loaded) = (elf.tables, loaded);
            }
            return;
        }
        // Before it is said what is there now.
        self.drop_overlapping(group.range, report);
        if self.len == MAX_MODULES {
            return;
        }
        let mut build_id = [0u8; MAX_BUILD_ID];
        // Where the kernel forbids even this reading, position-independent files still resolve.
        let Some(head) = group.head else { return };
        let elf = read_elf(head, &mut build_id);
        if elf.is_none() && loaded == Identity::NONE {
            // Another thread is just loading it; it will be met again.
            return;
        }
        // PERF: not at the first scan, at which there are many, and mostly no other thread that could unload any.
        if generation > 1 && !group.is_still_there(loaded) {
            // It will be met again, or what has taken its place.
            return;
        }
        let elf = elf.unwrap_or(Elf { bias: head, build_id_len: 0, tables: UnwindTables::default() });
        let id = self.next_id;
        self.next_id += 1;
        self.len += 1;
        if let Some(slot) = self.known().last_mut() {
            let tables = elf.tables;
            *slot = Known { range: group.range, inode: group.inode, id, generation, tables, loaded };
        }
        report(Found::Appeared(Module {
            id,
            start: group.range.start,
            end: group.range.end,
            bias: elf.bias,
            build_id: build_id.get(..elf.build_id_len).unwrap_or_default(),
            path: path.as_bytes(),
        }));
    }

    /// Whatever else is known in this range is gone.
    fn drop_overlapping(&mut self, range: Range, report: &mut dyn FnMut(Found<'_>)) {
        self.keep(|module| module.range.end <= range.start || range.end <= module.range.start, report);
    }

    fn drop_stale(&mut self, report: &mut dyn FnMut(Found<'_>)) {
        let generation = self.generation;
        self.keep(|module| module.generation == generation, report);
    }

    fn keep(&mut self, wanted: impl Fn(&Known) -> bool, report: &mut dyn FnMut(Found<'_>)) {
        let known = self.known();
        let mut kept = 0;
        for index in 0..known.len() {
            let module = known[index];
            if wanted(&module) {
                known[kept] = module;
                kept += 1;
            } else {
                report(Found::Vanished(module.id));
            }
        }
        self.len = kept;
    }
}

/// The mapping that an address lies in: its first address and the one behind its last.
pub(crate) fn mapping_around(address: u64) -> Option<(u64, u64)> {
    let mut found = None;
    let look = |line: &[u8]| {
        if let Some(region) = Region::parse(line).filter(|region| region.range.contains(address)) {
            found = Some((region.range.start, region.range.end));
        }
    };
    for_each_line(c"/proc/self/maps", look).ok()?;
    found
}

/// More modules than this are not reported; their frames stay unresolved.
const MAX_MODULES: usize = 4096;
const MAX_BUILD_ID: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
struct Range {
    start: u64,
    end: u64,
}

impl Range {
    const NONE: Range = Range { start: 0, end: 0 };

    #[inline]
    fn contains(&self, address: u64) -> bool {
        (self.start..self.end).contains(&address)
    }
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Known {
    range: Range,
    inode: u64,
    id: u32,
    generation: u32,
    tables: UnwindTables,
    loaded: Identity,
}

// SAFETY: integers without padding.
unsafe impl Plain for Known {}

/// Where a module's unwind tables are mapped.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct UnwindTables {
    /// Address of `.eh_frame_hdr`.
    pub(crate) header: u64,
    /// Address of the readable segment that it lies in, `.eh_frame` included.
    pub(crate) segment_start: u64,
    /// Bytes of that segment; 0 if there are no tables.
    pub(crate) segment_len: u64,
}

/// One line of `/proc/self/maps`.
struct Region<'a> {
    range: Range,
    executable: bool,
    offset: u64,
    inode: u64,
    path: &'a [u8],
}

impl<'a> Region<'a> {
    /// `START-END PERMS OFFSET DEV INODE   PATH`, numbers but the inode in hexadecimal.
    fn parse(line: &'a [u8]) -> Option<Region<'a>> {
        let mut rest = line;
        let mut field = |separator: u8| {
            let end = rest.iter().position(|byte| *byte == separator)?;
            let (field, after) = rest.split_at_checked(end)?;
            rest = after.get(1..)?;
            Some(field)
        };
        let start = number(field(b'-')?, 16)?;
        let end = number(field(b' ')?, 16)?;
        let executable = field(b' ')?.get(2) == Some(&b'x');
        let offset = number(field(b' ')?, 16)?;
        field(b' ')?;
        let inode = number(field(b' ').unwrap_or_default(), 10).unwrap_or(0);
        Some(Region { range: Range { start, end }, executable, offset, inode, path: rest.trim_ascii_start() })
    }
}

/// Neighbouring regions of one file: one load of it.
#[derive(Default)]
struct Group {
    range: Range,
    inode: u64,
    executable: bool,
    /// Address at which the file's first byte is mapped.
    head: Option<u64>,
    vdso: bool,
}

impl Group {
    fn starting_with(region: &Region<'_>) -> Group {
        let vdso = region.path == b"[vdso]";
        let mut group = Group { range: region.range, inode: region.inode, vdso, ..Group::default() };
        group.extend(region);
        group
    }

    fn continues_with(&self, region: &Region<'_>) -> bool {
        if region.inode == 0 || region.inode != self.inode {
            return false;
        }
        // A second mapping of the file's first byte is a second load, as of a library opened in two namespaces; or a
        // segment of the same load, of a file so small that several of them share its first page.
        match self.head.filter(|_| region.offset == 0) {
            Some(head) => end_of_load(head).is_some_and(|end| region.range.start < end),
            None => true,
        }
    }

    /// Whether the file is still mapped there, and the loader still has this there: then what was read from there in between is the
    /// file's. Other threads load and unload libraries meanwhile.
    fn is_still_there(&self, loaded: Identity) -> bool {
        let mut inode = None;
        let look = |line: &[u8]| {
            if let Some(region) = Region::parse(line).filter(|region| region.range.contains(self.range.start))
            {
                inode = Some(region.inode);
            }
        };
        for_each_line(c"/proc/self/maps", look).is_ok()
            && inode == Some(self.inode)
            && loader::identity(self.range.start).unwrap_or(Identity::NONE) == loaded
    }

    fn extend(&mut self, region: &Region<'_>) {
        self.range.end = region.range.end;
        self.executable |= region.executable && (region.path.first() == Some(&b'/') || self.vdso);
        if region.offset == 0 && self.head.is_none() {
            self.head = Some(region.range.start);
        }
    }
}

struct Elf {
    bias: u64,
    build_id_len: usize,
    tables: UnwindTables,
}

/// Reads the load bias and the build-id from the headers in memory.
fn read_elf(head: u64, build_id: &mut [u8; MAX_BUILD_ID]) -> Option<Elf> {
    let mut header = [0u8; 64];
    read_memory(head, &mut header)?;
    if !header.starts_with(b"\x7fELF\x02") {
        return None;
    }
    let program_headers = word64(&header, 32)?;
    let entry_size = u64::from(word16(&header, 54)?);
    let entries = u64::from(word16(&header, 56)?).min(MAX_PROGRAM_HEADERS);
    let header = |index: u64| {
        let mut entry = [0u8; 56];
        read_memory(head.checked_add(program_headers)?.checked_add(index * entry_size)?, &mut entry)?;
        let (kind, offset, address) = (word32(&entry, 0)?, word64(&entry, 8)?, word64(&entry, 16)?);
        Some((kind, offset, address, word64(&entry, 40)?))
    };
    let (mut bias, mut build_id_len, mut tables_at) = (None, None, None);
    for index in 0..entries {
        let (kind, offset, address, size) = header(index)?;
        match kind {
            PT_LOAD if offset == 0 && bias.is_none() => bias = Some(head.wrapping_sub(address)),
            PT_NOTE if build_id_len.is_none() => {
                build_id_len = find_build_id(head.wrapping_add(offset), size, build_id);
            }
            PT_GNU_EH_FRAME => tables_at = Some(address),
            _ => {}
        }
    }
    let (bias, mut tables) = (bias?, UnwindTables::default());
    for index in 0..entries {
        let (kind, _, start, size) = header(index)?;
        if let Some(at) =
            tables_at.filter(|at| kind == PT_LOAD && (start..start.saturating_add(size)).contains(at))
        {
            tables = UnwindTables {
                header: bias.wrapping_add(at),
                segment_start: bias.wrapping_add(start),
                segment_len: size,
            };
        }
    }
    Some(Elf { bias, build_id_len: build_id_len.unwrap_or(0), tables })
}

/// The first address behind all segments of a file that is mapped from `head` on.
fn end_of_load(head: u64) -> Option<u64> {
    let mut header = [0u8; 64];
    read_memory(head, &mut header)?;
    let at = head.checked_add(word64(&header, 32)?)?;
    let (entry_size, entries) = (u64::from(word16(&header, 54)?), u64::from(word16(&header, 56)?));
    let (mut start, mut end) = (u64::MAX, 0);
    for index in 0..entries.min(MAX_PROGRAM_HEADERS) {
        let mut entry = [0u8; 56];
        read_memory(at.checked_add(index * entry_size)?, &mut entry)?;
        if header.starts_with(b"\x7fELF\x02") && word32(&entry, 0)? == PT_LOAD {
            let address = word64(&entry, 16)?;
            start = start.min(address);
            end = end.max(address.checked_add(word64(&entry, 40)?)?);
        }
    }
    head.checked_add(end.checked_sub(start)?)
}

const MAX_PROGRAM_HEADERS: u64 = 128;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const PT_GNU_EH_FRAME: u32 = 0x6474_E550;
const NT_GNU_BUILD_ID: u32 = 3;

/// Notes: name length, content length, kind, name, content; both padded to four bytes.
fn find_build_id(at: u64, size: u64, build_id: &mut [u8; MAX_BUILD_ID]) -> Option<usize> {
    let mut notes = [0u8; 512];
    let notes = notes.get_mut(..(size as usize).min(512))?;
    read_memory(at, notes)?;
    let mut rest = &*notes;
    loop {
        let name_len = word32(rest, 0)? as usize;
        let content_len = word32(rest, 4)? as usize;
        let kind = word32(rest, 8)?;
        let name = rest.get(12..)?.get(..name_len)?;
        let content = rest.get(12..)?.get(name_len.checked_next_multiple_of(4)?..)?;
        if kind == NT_GNU_BUILD_ID && name == b"GNU\0" {
            let content = content.get(..content_len)?;
            build_id.get_mut(..content_len)?.copy_from_slice(content);
            return Some(content_len);
        }
        rest = content.get(content_len.checked_next_multiple_of(4)?..)?;
    }
}

/// Copies memory of this process; `None` if any of it is not readable.
pub(crate) fn read_memory(at: u64, into: &mut [u8]) -> Option<()> {
    let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let remote = libc::iovec { iov_base: std::ptr::without_provenance_mut(at as usize), iov_len: into.len() };
    // SAFETY: the kernel checks the remote range; the local one is ours.
    let got = unsafe { libc::process_vm_readv(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0) };
    (got == into.len() as isize).then_some(())
}

/// Calls `f` with every line, without its newline. Lines longer than the buffer are passed over.
fn for_each_line(path: &std::ffi::CStr, mut f: impl FnMut(&[u8])) -> Result<(), Errno> {
    let file = File::open(path, libc::O_RDONLY, 0)?;
    let mut memory = Mapping::anonymous(LINES_BUFFER)?;
    let buffer = memory.bytes_mut();
    let mut len = 0;
    loop {
        let got = file.read(buffer.get_mut(len..).unwrap_or_default())?;
        if got == 0 {
            return Ok(());
        }
        len += got;
        let mut start = 0;
        while let Some(end) = buffer[start..len].iter().position(|byte| *byte == b'\n') {
            f(&buffer[start..start + end]);
            start += end + 1;
        }
        if start == 0 && len == buffer.len() {
            len = 0;
        }
        buffer.copy_within(start..len, 0);
        len -= start.min(len);
    }
}

const LINES_BUFFER: usize = 16 << 10;

fn number(digits: &[u8], radix: u32) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok()
}

fn word16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn word32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn word64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_maps_is_taken_apart() {
        let line = b"7f01-7f02 r-xp 0000a000 ca:01 1971705                    /lib/a b.so";
        let region = Region::parse(line).unwrap();
        assert_eq!((region.range.start, region.range.end, region.executable), (0x7f01, 0x7f02, true));
        assert_eq!((region.offset, region.inode, region.path), (0xa000, 1971705, &b"/lib/a b.so"[..]));
        assert!(
            Region::parse(b"7f01-7f02 rw-p 00000000 00:00 0 ").is_some_and(|region| region.path.is_empty())
        );
        assert!(Region::parse(b"garbage").is_none());
    }

    #[test]
    fn the_running_program_is_found_with_its_own_code() {
        let mut modules = Modules::new();
        let exe = std::env::current_exe().unwrap();
        let mut own = None;
        modules
            .scan(&mut |found| {
                if let Found::Appeared(module) = found
                    && module.path == exe.to_str().unwrap().as_bytes()
                {
                    own = Some((module.start, module.end, module.build_id.len()));
                }
            })
            .unwrap();
        let here = number as fn(&[u8], u32) -> Option<u64> as usize as u64;
        let (start, end, build_id_len) = own.expect("the test program is among the modules");
        assert!((start..end).contains(&here) && modules.covers(here) && build_id_len >= 8);
        // Nothing has changed since.
        modules.scan(&mut |_| panic!("a second scan reports nothing")).unwrap();
    }
}
