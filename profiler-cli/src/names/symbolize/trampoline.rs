//! Recognising the kernel's signal return trampoline by its instructions.
//!
//! In: addresses in a module's code. Out: whether the signal trampoline starts there. A file that
//! cannot be read, or that is not the recorded build, has no trampoline.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::OnceLock;

use dashmap::DashMap;
use foldhash::fast::RandomState;
use object::{Architecture, Object as _, ObjectSegment as _, ReadCache};
use parking_lot::Mutex;

use super::object_file::open_regular;

/// `mov rax, 15; syscall` (`rt_sigreturn`), with the 64-bit move that C libraries use.
const X86_64: &[u8] = &[0x48, 0xc7, 0xc0, 0x0f, 0x00, 0x00, 0x00, 0x0f, 0x05];
/// `mov x8, #139; svc #0` (`rt_sigreturn`).
const AARCH64: &[u8] = &[0x68, 0x11, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4];

/// The trampolines of one module. Its file is opened for the first address.
#[derive(Default)]
pub(super) struct Trampolines {
    code: OnceLock<Option<ExecutableCode>>,
    /// PERF: a call tree has the same few thousand addresses again and again, and reading one takes
    /// a system call.
    known: DashMap<u64, bool, RandomState>,
}

impl Trampolines {
    /// Whether the trampoline starts at `address` of the file at `binary`.
    pub(super) fn starts_at(&self, binary: &Path, address: u64) -> bool {
        if let Some(known) = self.known.get(&address) {
            return *known;
        }
        let code = self.code.get_or_init(|| ExecutableCode::open(binary).ok());
        let answer = code.as_ref().is_some_and(|code| code.matches(address));
        self.known.insert(address, answer);
        answer
    }

    /// Returns the addresses at which a trampoline was found so far, in order.
    pub(super) fn found(&self) -> Vec<u64> {
        let mut found: Vec<u64> =
            self.known.iter().filter(|known| *known.value()).map(|k| *k.key()).collect();
        found.sort_unstable();
        found
    }
}

/// The executable segments of a file, and the instructions of the trampoline.
struct ExecutableCode {
    file: Mutex<File>,
    segments: Vec<CodeSegment>,
    pattern: &'static [u8],
}

struct CodeSegment {
    address: u64,
    offset: u64,
    size: u64,
}

impl ExecutableCode {
    fn open(path: &Path) -> Result<Self, String> {
        let cache = ReadCache::new(open_regular(path)?);
        let object = object::File::parse(&cache).map_err(|error| error.to_string())?;
        let pattern = match object.architecture() {
            Architecture::X86_64 => X86_64,
            Architecture::Aarch64 => AARCH64,
            _ => return Err("the trampoline of this architecture is not known".to_owned()),
        };
        let executable = object.segments().filter(|segment| segment.permissions().executable());
        let segments = executable
            .map(|segment| {
                let (offset, size) = segment.file_range();
                CodeSegment { address: segment.address(), offset, size }
            })
            .collect();
        drop(object);
        Ok(Self { file: Mutex::new(cache.into_inner()), segments, pattern })
    }

    fn matches(&self, address: u64) -> bool {
        self.segments.iter().any(|segment| {
            address.checked_sub(segment.address).is_some_and(|inside| {
                inside.checked_add(self.pattern.len() as u64).is_some_and(|end| end <= segment.size)
                    && segment.offset.checked_add(inside).is_some_and(|offset| self.reads_pattern(offset))
            })
        })
    }

    fn reads_pattern(&self, offset: u64) -> bool {
        let mut bytes = [0; 16];
        let bytes = &mut bytes[..self.pattern.len()];
        let mut file = self.file.lock();
        file.seek(SeekFrom::Start(offset)).is_ok() && file.read_exact(bytes).is_ok() && bytes == self.pattern
    }
}
