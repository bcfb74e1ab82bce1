//! The roots, each with its name. In: pointers outside of all blocks, and the names of variables,
//! threads and regions. Out: a table of roots: a variable, the stack of a thread, a region.

use alloc_dump::snapshot::{MemoryRegion, SnapshotThread};
use foldhash::HashMap;

use super::graph::BlockGraph;
use super::places::{PlaceOwner, RootKind};
use crate::names::variables::Variable;

/// Where the names of roots come from.
#[derive(Clone, Copy, Debug, Default)]
pub struct RootNames<'a> {
    /// Static variables, ascending.
    pub statics: &'a [Variable],
    /// Thread-local variables of the program itself.
    pub thread_locals: &'a [Variable],
    /// The regions of the image.
    pub regions: &'a [MemoryRegion],
    /// The threads of the image.
    pub threads: &'a [SnapshotThread],
}

/// Something that holds blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldingRoot {
    /// Its kind.
    pub kind: RootKind,
    /// Its name.
    pub name: String,
    /// The address that offsets count from; 0 for registers.
    pub start: u64,
}

/// All roots.
#[derive(Debug, Default)]
pub(super) struct RootTable {
    roots: Vec<HoldingRoot>,
    /// For each root pointer the index of its root.
    groups: Vec<u32>,
}

impl RootTable {
    pub(super) fn new(graph: &BlockGraph, names: &RootNames<'_>) -> RootTable {
        let mut table = RootTable::default();
        let mut known: HashMap<(PlaceOwner, Option<usize>), u32> = HashMap::default();
        for pointer in &graph.roots {
            let variable = names.variable_at(pointer.owner, pointer.place);
            let group = *known.entry((pointer.owner, variable)).or_insert_with(|| {
                table.roots.push(names.root(pointer.owner, variable, pointer.place));
                table.roots.len() as u32 - 1
            });
            table.groups.push(group);
        }
        table
    }

    /// Returns the root of the root pointer with this index.
    pub(super) fn group(&self, pointer: usize) -> u32 {
        self.groups[pointer]
    }

    pub(super) fn all(&self) -> &[HoldingRoot] {
        &self.roots
    }
}

impl RootNames<'_> {
    /// Returns the index of the variable at a place.
    fn variable_at(&self, owner: PlaceOwner, place: u64) -> Option<usize> {
        match owner.kind {
            RootKind::Static => {
                let at = self.statics.partition_point(|variable| variable.start <= place).checked_sub(1)?;
                let variable = &self.statics[at];
                (place - variable.start < variable.size).then_some(at)
            }
            RootKind::Tls => {
                let pointer = self.threads.get(owner.index as usize)?.thread_pointer;
                let distance = pointer.checked_sub(place)?;
                self.thread_locals.iter().position(|variable| {
                    distance <= variable.start && variable.start - distance < variable.size
                })
            }
            _ => None,
        }
    }

    fn root(&self, owner: PlaceOwner, variable: Option<usize>, place: u64) -> HoldingRoot {
        let at = owner.index as usize;
        let thread = self.threads.get(at);
        let region = self.regions.get(at);
        let (start, name) = match (owner.kind, variable) {
            (RootKind::Static, Some(variable)) => {
                (self.statics[variable].start, self.statics[variable].name.clone())
            }
            (RootKind::Tls, Some(variable)) => {
                let Variable { start, name, .. } = &self.thread_locals[variable];
                let pointer = thread.map_or(0, |thread| thread.thread_pointer);
                (pointer.saturating_sub(*start), format!("{name} of {}", thread_name(thread)))
            }
            (RootKind::Tls, None) => {
                let start = region_with(self.regions, place).map_or(0, |region| region.start);
                (start, format!("thread-locals of {}", thread_name(thread)))
            }
            (RootKind::Stack, _) => {
                // A thread that was running has no stack pointer.
                let region = region_with(self.regions, place);
                let pointer = thread.and_then(|thread| thread.stack_pointer).filter(|pointer| {
                    region.is_some_and(|region| region.contains(*pointer)) && *pointer <= place
                });
                let start = pointer.or(region.map(|region| region.start)).unwrap_or(0);
                (start, format!("stack of {}", thread_name(thread)))
            }
            (RootKind::Register, _) => (0, format!("register of {}", thread_name(thread))),
            (RootKind::Static, None) => {
                let name = region.map_or(String::new(), |region| file_name(&region.name));
                // A .bss without a name comes behind the data of its module; statics of the tracker
                // may be cut out of it.
                let before = || self.regions[..at].iter().rev().find(|region| !region.name.is_empty());
                let name = match name.is_empty().then(before).flatten() {
                    Some(before) => file_name(&before.name),
                    None => name,
                };
                (region.map_or(0, |region| region.start), format!("statics of {name}"))
            }
            (RootKind::Unknown, _) => {
                let name = region.map_or(String::new(), |region| file_name(&region.name));
                let name = match name.as_str() {
                    "" => "memory without a name".to_owned(),
                    "[heap]" => "heap of the C library".to_owned(),
                    _ => name,
                };
                (region.map_or(0, |region| region.start), name)
            }
        };
        HoldingRoot { kind: owner.kind, name, start }
    }
}

fn thread_name(thread: Option<&SnapshotThread>) -> String {
    match thread {
        Some(thread) if !thread.name.is_empty() => {
            format!("thread '{}' ({})", String::from_utf8_lossy(&thread.name), thread.tid)
        }
        Some(thread) => format!("thread {}", thread.tid),
        None => "a thread".to_owned(),
    }
}

fn region_with(regions: &[MemoryRegion], address: u64) -> Option<&MemoryRegion> {
    let after = regions.partition_point(|region| region.start <= address);
    regions[..after].last().filter(|region| region.contains(address))
}

fn file_name(path: &[u8]) -> String {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}
