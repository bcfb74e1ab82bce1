//! Opening debug info. In: the files of a module. Out: a reader that is safe to use.
//!
//! addr2line maps the file, and follows nested inlined calls by recursion. So [`inspect`] measures
//! the nesting first, over every unit that addr2line may read, and refuses debug info that is
//! nested too deep. Nothing in a file may overflow the stack.

use std::path::{Path, PathBuf};

use addr2line::Loader;
use addr2line::gimli::{
    self, AbbreviationsCacheStrategy, DW_TAG_subprogram, Dwarf, DwarfFileType, DwarfPackageSections,
    DwarfSections, EndianSlice, RunTimeEndian, UnitHeader,
};
use object::{Object as _, ReadCache, ReadRef};

use super::instances::Instances;
use super::locate::{DebugFiles, package_name};
use super::object_file::{open_regular, path_from_bytes, section_bytes};

/// The deepest nesting of entries that is accepted. Compilers reach a few hundred.
pub(super) const MAX_ENTRY_DEPTH: isize = 8192;

/// The most `.dwo` files that are read; no program has as many.
const MAX_SPLIT_FILES: usize = 100_000;

type DwarfSlice<'a> = EndianSlice<'a, RunTimeEndian>;

/// The result of [`inspect`].
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Inspection {
    /// The files of split debug info that the units name, whether they exist or not.
    pub(super) split_files: Vec<PathBuf>,
    /// The types of the instances of generic functions.
    pub(super) instances: Instances,
}

/// Reads all entries of the debug info once.
///
/// PERF: takes about 0.1 s for the debug info of a 100 MB program, and runs only if an address is
/// not in the cache.
///
/// # Errors
/// If the debug info cannot be read, or if it is nested too deep for addr2line.
pub(super) fn inspect(files: &DebugFiles) -> Result<Inspection, String> {
    let mut found = Inspection::default();
    with_object(&files.path, |object, endian| {
        let sections = DwarfSections::load(|id| section_bytes(object, id.name()))?;
        let dwarf = sections.borrow(|bytes| EndianSlice::new(bytes, endian));
        // PERF: without this section no unit is split, so the names of split files need not be
        // read.
        let may_be_split = object.section_by_name(".debug_addr").is_some();
        inspect_units(dwarf, &mut found.instances, &mut |dwarf, header| {
            if may_be_split && found.split_files.len() < MAX_SPLIT_FILES {
                found.split_files.extend(split_file(dwarf, header));
            }
        })
    })?;
    if let Some(shared) = &files.shared {
        inspect_whole(shared, &mut found.instances)?;
    }
    if let Some(package) = &files.package {
        inspect_package(package, &mut found.instances)?;
    }
    for path in found.split_files.iter().filter(|path| path.is_file()) {
        inspect_split(path, &mut found.instances)?;
    }
    Ok(found)
}

/// Opens debug info that [`inspect`] has accepted.
pub(super) fn open(files: &DebugFiles) -> Result<Loader, String> {
    // NOTE: the loader finds a package only beside the file that it opens. So links to the file and
    // to its package are put into one folder. The folder can be removed as soon as the files are
    // mapped.
    let staged = match &files.package {
        Some(package) if *package != package_name(&files.path) => {
            Some(link_side_by_side(&files.path, package)?)
        }
        _ => None,
    };
    let path = staged.as_ref().map_or(files.path.clone(), |folder| folder.path().join(STAGED_NAME));
    Loader::new_with_sup(path, files.shared.as_ref()).map_err(|error| error.to_string())
}

const STAGED_NAME: &str = "module";

#[cfg(unix)]
fn link_side_by_side(path: &Path, package: &Path) -> Result<tempfile::TempDir, String> {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let staged = folder.path().join(STAGED_NAME);
    for (from, to) in [(path, staged.clone()), (package, package_name(&staged))] {
        let from = std::path::absolute(from).map_err(|error| error.to_string())?;
        symlink(from, to).map_err(|error| error.to_string())?;
    }
    Ok(folder)
}

#[cfg(not(unix))]
fn link_side_by_side(_: &Path, package: &Path) -> Result<tempfile::TempDir, String> {
    Err(format!("{} is not beside the file that it belongs to", package.display()))
}

fn with_object<T>(
    path: &Path,
    read: impl FnOnce(&object::File<'_, &ReadCache<std::fs::File>>, RunTimeEndian) -> Result<T, String>,
) -> Result<T, String> {
    let cache = ReadCache::new(open_regular(path)?);
    let object = object::File::parse(&cache).map_err(|error| error.to_string())?;
    read(&object, endian(&object))
}

fn endian<'data, R: ReadRef<'data>>(object: &object::File<'data, R>) -> RunTimeEndian {
    if object.is_little_endian() { RunTimeEndian::Little } else { RunTimeEndian::Big }
}

fn inspect_whole(path: &Path, instances: &mut Instances) -> Result<(), String> {
    with_object(path, |object, endian| {
        let sections = DwarfSections::load(|id| section_bytes(object, id.name()))?;
        inspect_units(sections.borrow(|bytes| EndianSlice::new(bytes, endian)), instances, &mut |_, _| {})
    })
}

fn inspect_split(path: &Path, instances: &mut Instances) -> Result<(), String> {
    with_object(path, |object, endian| {
        let sections = DwarfSections::load(|id| {
            id.dwo_name().map_or(Ok([].as_slice().into()), |name| section_bytes(object, name))
        })?;
        let mut dwarf = sections.borrow(|bytes| EndianSlice::new(bytes, endian));
        dwarf.file_type = DwarfFileType::Dwo;
        inspect_units(dwarf, instances, &mut |_, _| {})
    })
}

fn inspect_package(path: &Path, instances: &mut Instances) -> Result<(), String> {
    with_object(path, |object, endian| {
        let sections = DwarfPackageSections::load(|id| {
            let name = id.dwo_name().unwrap_or_default();
            section_bytes(object, name).map_err(PackageError)
        })
        .map_err(|PackageError(text)| text)?;
        let empty = EndianSlice::new(&[], endian);
        let package = sections
            .borrow(|bytes| EndianSlice::new(bytes, endian), empty)
            .map_err(|error| error.to_string())?;
        let parent = Dwarf::load(|_| Ok::<_, gimli::Error>(empty)).map_err(|error| error.to_string())?;
        for row in 1..=package.cu_index.unit_count() {
            let Ok(dwarf) = package.cu_sections(row, &parent) else { continue };
            inspect_units(dwarf, instances, &mut |_, _| {})?;
        }
        Ok(())
    })
}

/// Reads every entry of every unit. An unreadable entry ends its unit, because addr2line stops at
/// the same entry.
fn inspect_units<'a>(
    mut dwarf: Dwarf<DwarfSlice<'a>>,
    instances: &mut Instances,
    visit: &mut dyn FnMut(&Dwarf<DwarfSlice<'a>>, UnitHeader<DwarfSlice<'a>>),
) -> Result<(), String> {
    dwarf.populate_abbreviations_cache(AbbreviationsCacheStrategy::Duplicates);
    let mut units = dwarf.units();
    while let Ok(Some(header)) = units.next() {
        if read_entries(&dwarf, &header, instances).unwrap_or_else(|depth| depth) > MAX_ENTRY_DEPTH {
            return Err(format!("its entries are nested more than {MAX_ENTRY_DEPTH} deep"));
        }
        visit(&dwarf, header);
    }
    Ok(())
}

/// Returns the deepest nesting of a unit. If an entry is unreadable, the `Err` has the deepest
/// nesting before that entry.
fn read_entries<'a>(
    dwarf: &Dwarf<DwarfSlice<'a>>,
    header: &UnitHeader<DwarfSlice<'a>>,
    instances: &mut Instances,
) -> Result<isize, isize> {
    let abbreviations = dwarf.abbreviations(header).map_err(|_| 0_isize)?;
    let mut entries = header.entries_raw(&abbreviations, None).map_err(|_| 0_isize)?;
    let unit = dwarf.unit(*header).ok();
    let mut deepest = 0;
    while !entries.is_empty() && deepest <= MAX_ENTRY_DEPTH {
        deepest = deepest.max(entries.next_depth());
        let Some(abbreviation) = entries.read_abbreviation().map_err(|_| deepest)? else { continue };
        let attributes = abbreviation.attributes();
        let read = if abbreviation.tag() == DW_TAG_subprogram {
            instances.read_function(&mut entries, attributes, (dwarf, unit.as_ref()))
        } else {
            entries.skip_attributes(attributes)
        };
        read.map_err(|_| deepest)?;
    }
    Ok(deepest)
}

/// Returns the `.dwo` file that a unit refers to; `None` if the unit is not split.
fn split_file(dwarf: &Dwarf<DwarfSlice<'_>>, header: UnitHeader<DwarfSlice<'_>>) -> Option<PathBuf> {
    let unit = dwarf.unit(header).ok()?;
    unit.dwo_id?;
    let name = dwarf.attr_string(&unit, unit.dwo_name().ok()??).ok()?;
    let folder =
        unit.comp_dir.as_ref().and_then(|folder| path_from_bytes(folder.slice())).unwrap_or(Path::new(""));
    Some(folder.join(path_from_bytes(name.slice())?))
}

/// An error text. The loader of package sections needs an error type that gimli's errors convert
/// into.
struct PackageError(String);

impl From<gimli::Error> for PackageError {
    fn from(error: gimli::Error) -> Self {
        Self(error.to_string())
    }
}
