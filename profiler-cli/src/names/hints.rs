//! Why names are missing or may be wrong. In: the modules of a profile, and how well their symbols
//! are known. Out: one line for each reason, for a person.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, SystemTime};

use alloc_dump::layout::StackId;

use crate::names::symbolize::{CodeAddress, ModuleStatus, Modules, Symbols};
use crate::profile::{Module, Profile};

/// Returns one line for each reason why names are missing, or may be wrong. `wanted` has the
/// addresses of each module.
pub(super) fn hints(
    profile: &Profile,
    modules: &Modules,
    symbols: &Symbols,
    wanted: &[Vec<CodeAddress>],
) -> Vec<String> {
    let mut hints = symbols.warnings().to_vec();
    for ((index, module), wanted) in profile.modules.iter().enumerate().zip(wanted) {
        let (is_program, is_on_stacks) = (module.path == profile.process.exe, !wanted.is_empty());
        let status = symbols.status(index);
        let is_told = match status {
            ModuleStatus::SymbolTableOnly { .. } => is_program,
            ModuleStatus::NoSymbols { .. } | ModuleStatus::Missing { .. } => is_program || is_on_stacks,
            ModuleStatus::LineTables { .. } | ModuleStatus::KeptNames => false,
            ModuleStatus::DamagedDebugInfo { .. } => true,
            _ => is_on_stacks,
        };
        let is_nameless =
            |address: &CodeAddress| symbols.frames(index, *address).iter().all(|frame| !frame.is_resolved);
        if is_told {
            hints.push(status.to_string());
        } else if is_on_stacks && wanted.iter().all(is_nameless) {
            hints.push(format!(
                "{} has symbols, but none for the {} on the stacks",
                module.path.display(),
                plural_addresses(wanted.len()),
            ));
        }
        if is_on_stacks && status.is_trusted() && modules.uses_files(index) {
            hints.extend(doubt(module, modules.code_file(index), profile.process.started_unix_ns));
        }
    }
    let first = StackId::FIRST.0 as usize;
    let of_no_module = profile.nodes.iter().skip(first).filter(|node| node.module.is_none());
    let mut outside: Vec<u64> = of_no_module.map(|node| node.pc).collect();
    outside.sort_unstable();
    outside.dedup();
    if !outside.is_empty() {
        hints.push(format!(
            "{} on the stacks {} in no file with code: what a program makes at run time has no names",
            plural_addresses(outside.len()),
            if outside.len() == 1 { "is" } else { "are" },
        ));
    }
    // A file may be mapped several times.
    let mut told = HashSet::new();
    hints.retain(|hint| told.insert(hint.clone()));
    hints
}

fn plural_addresses(count: usize) -> String {
    format!("{count} code {}", if count == 1 { "address" } else { "addresses" })
}

/// Returns a line if the file that a module's names come from may be another build than the one
/// that ran: it has no build-id, and something about it has changed.
pub(super) fn doubt(module: &Module, file: Option<&Path>, started_unix_ns: u64) -> Option<String> {
    if !module.build_id.is_empty() {
        return None;
    }
    let path = module.path.display();
    match module.code {
        Some(code) => {
            // A copy elsewhere may have been stripped, or have got debug info.
            let file = file.filter(|file| *file == module.path)?;
            let now = std::fs::metadata(file).ok()?.len();
            (code.file_bytes != 0 && now != code.file_bytes).then(|| {
                format!(
                    "{path} has no build-id, and had {} bytes when it ran and {now} now: its code is the same, but \
                     lines may be wrong; link it with -Wl,--build-id, and record a new dump",
                    code.file_bytes
                )
            })
        }
        None => may_be_another_build(module, started_unix_ns).then(|| {
            format!(
                "{path} has no build-id and was written after the recording began: if it was rebuilt, names and \
                 lines are wrong; link it with -Wl,--build-id, and record a new dump"
            )
        }),
    }
}

/// Whether a module's file may be another build than the one that ran: it has no build-id, and it
/// was written after the recording began. A copy of the right build is newer too, so the answer is
/// only a doubt.
fn may_be_another_build(module: &Module, started_unix_ns: u64) -> bool {
    let started = SystemTime::UNIX_EPOCH + Duration::from_nanos(started_unix_ns);
    let written = || std::fs::metadata(&module.path).and_then(|metadata| metadata.modified());
    module.build_id.is_empty() && written().is_ok_and(|written| written > started)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::stacks::Stacks;
    use crate::names::symbolize::SymbolizeOptions;
    use crate::profile::CallNode;

    #[test]
    fn a_file_without_build_id_is_doubted_if_it_is_newer_than_the_recording() {
        let path = std::env::current_exe().expect("a test has a path");
        let written = std::fs::metadata(&path).and_then(|metadata| metadata.modified()).expect("a file");
        let written = written.duration_since(SystemTime::UNIX_EPOCH).expect("a time").as_nanos() as u64;
        let hints = |build_id: &[u8], started_unix_ns: u64, module: Option<u32>| {
            let file =
                Module { path: path.clone(), build_id: build_id.to_vec(), end: 1 << 30, ..Module::default() };
            let mut profile = Profile { modules: vec![file], ..Profile::default() };
            profile.process.started_unix_ns = started_unix_ns;
            profile.nodes = vec![CallNode::default(); StackId::FIRST.0 as usize];
            profile.nodes.push(CallNode { pc: 0x1000, module, ..CallNode::default() });
            Stacks::resolve(&profile, SymbolizeOptions::default(), &|_, _| {}).expect("no wrong build").hints
        };
        let doubt = |hints: Vec<String>| hints.iter().any(|hint| hint.contains("if it was rebuilt"));
        assert!(doubt(hints(&[], written - 1, Some(0))));
        assert!(!doubt(hints(&[], written, Some(0))), "it was there when the recording began");
        assert!(!doubt(hints(&[7; 20], written - 1, Some(0))), "another build-id is another hint");
        assert!(!doubt(hints(&[], written - 1, None)), "no stack is in it");
    }
}
