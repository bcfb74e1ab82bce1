//! Loads the code of a dump: its call tree and its modules. In: a path. Out: a [`Profile`] that has
//! them, the program, and the names that the dump keeps, and no figures. Memory follows the call
//! tree alone.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use alloc_dump::record::Record;

use super::call_tree::CallTree;
use crate::dumps::OnProgress;
use crate::dumps::open::{DumpError, open_dump};
use crate::dumps::writing::wait_while_closing;
use crate::profile::{Process, Profile};

/// Loads the call tree of a dump with its modules and names, without any figures.
///
/// # Errors
/// See [`DumpError`]. Records that are in the sidecar only are left out.
pub fn load_code(path: &Path, progress: OnProgress<'_>) -> Result<Profile, DumpError> {
    wait_while_closing(path);
    let (mut reader, size) = open_dump(path)?;
    reader.keep_symbols();
    let mut tree = CallTree::default();
    tree.grow_to(alloc_dump::layout::StackId::FIRST.0 as usize);
    let mut process = Process { started_unix_ns: reader.header().created_unix_ns, ..Process::default() };
    let read_error = DumpError::reading(path);
    while let Some(records) = reader.next_frame().map_err(|error| read_error(error.into()))? {
        tree.set_dropped_bytes(records.damage().dropped_bytes);
        records.visit(|record| match *record {
            Record::Node { id, parent, pc } => tree.add_node(id, parent, pc),
            Record::Module(module) => {
                tree.add_module(&module);
            }
            Record::ModuleEnd { id } => tree.remove_module(id),
            Record::ModuleCode { id, code } => {
                if let Some(module) = tree.module(id) {
                    module.code = Some(code);
                }
            }
            Record::Process(recorded) => process.exe = PathBuf::from(OsStr::from_bytes(recorded.exe)),
            _ => {}
        });
        progress(reader.position(), size);
    }
    let symbols = reader.take_symbols();
    let (nodes, modules, _) = tree.finish();
    Ok(Profile { process, nodes, modules, symbols, ..Profile::default() })
}

#[cfg(test)]
mod tests {
    use alloc_dump::header::Header;
    use alloc_dump::layout::{FRAME_HEADER_LEN, StackId};
    use alloc_dump::record::{self, Module};
    use alloc_dump::trailer::{EndReason, Trailer};
    use alloc_dump::write::{Encoder, seal_trailer};

    use super::*;
    use crate::load::{LoadOptions, load};

    #[test]
    fn the_code_is_that_of_a_whole_load() {
        let (mut buffer, mut encoder) = ([0u8; 4096], Encoder::new());
        let module = |id, start, end| Module { id, start, end, bias: start, ..Module::default() };
        let stack = StackId::FIRST;
        for record in [
            Record::Process(record::Process { exe: b"/bin/app", ..record::Process::default() }),
            Record::Module(module(7, 0x1000, 0x2000)),
            Record::Node { id: stack, parent: StackId::ROOT, pc: 0x1234 },
            Record::ModuleEnd { id: 7 },
            Record::Module(module(8, 0x1000, 0x3000)),
            Record::Node { id: StackId(4), parent: stack, pc: 0x1234 },
            Record::Thread { id: 1 },
            Record::Time { us: 5 },
            Record::Alloc { addr: 0x9000, size: 24, stack: StackId(4), zeroed: false },
        ] {
            encoder.push(&mut buffer, &record).unwrap();
        }
        let mut dump = Header { session: [7; 16], created_unix_ns: 9 }.encode().to_vec();
        let len = encoder.seal(&mut buffer, 0);
        dump.extend_from_slice(&buffer[..len]);
        let mut room = [0u8; FRAME_HEADER_LEN + 128];
        let len = seal_trailer(&mut room, 1, &Trailer::new(EndReason::Finished, 9)).unwrap();
        dump.extend_from_slice(&room[..len]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.alloc");
        std::fs::write(&path, dump).unwrap();

        let code = load_code(&path, &mut |_, _| {}).unwrap();
        let whole = load(&path, &LoadOptions::default(), &mut |_, _| {}).unwrap();
        assert_eq!(code.nodes, whole.nodes);
        assert_eq!(code.nodes[3..].iter().map(|node| node.module).collect::<Vec<_>>(), [Some(0), Some(1)]);
        let modules = |profile: &Profile| format!("{:?}", profile.modules);
        assert_eq!(modules(&code), modules(&whole));
        assert_eq!(code.modules.iter().map(|module| module.id).collect::<Vec<_>>(), [7, 8]);
        assert_eq!((&code.process.exe, code.process.started_unix_ns), (&whole.process.exe, 9));
    }
}
