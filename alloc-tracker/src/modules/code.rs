//! The identity of a module's code: its length, and a checksum of samples of it. In: a mapped file
//! and where its code is. Out: [`CodeIdentity`], by which a reader tells the file that ran from
//! another one. Works also for files without a build-id. Never locks, never allocates.
//!
//! The bytes come from the file, as long as its path leads to the file that is mapped. Reading the
//! memory would bring pages of the program into its resident set. If the file is gone, there is no
//! other way.

use alloc_dump::code::{CodeIdentity, CodeSamples, SAMPLE_LEN};

use super::elf::CodeSegment;
use super::memory::read_memory;
use crate::base::sys::{File, FileStatus, Mapping, PathBuffer};

/// A file that is mapped into this process.
pub(super) struct MappedFile<'a> {
    pub(super) path: &'a PathBuffer,
    pub(super) inode: u64,
    /// Difference between addresses in memory and addresses in the file.
    pub(super) bias: u64,
    pub(super) code: CodeSegment,
}

impl MappedFile<'_> {
    /// Returns the identity of the code that the process has; `None` if it cannot be read.
    pub(super) fn identity(&self) -> Option<CodeIdentity> {
        self.identity_in_file().or_else(|| {
            let crc = self.checksum_in_memory()?;
            Some(CodeIdentity { code_bytes: self.code.len, crc, file_bytes: 0 })
        })
    }

    /// Whether the code in memory is that of the file.
    pub(super) fn has_code_of_file(&self) -> bool {
        let in_file = self.identity_in_file();
        in_file.is_some_and(|identity| self.checksum_in_memory() == Some(identity.crc))
    }

    /// Returns the checksum of the code in memory.
    pub(super) fn checksum_in_memory(&self) -> Option<u32> {
        checksum_in_memory(self.bias, self.code)
    }

    fn identity_in_file(&self) -> Option<CodeIdentity> {
        let path = self.path.as_c_str().filter(|path| path.to_bytes().starts_with(b"/"))?;
        let is_mapped_file = |status: &FileStatus| status.is_regular && status.inode == self.inode;
        // NOTE: looked at before it is opened. Opening a device can have an effect, and opening a
        // pipe waits for a writer.
        FileStatus::of_path(path).filter(is_mapped_file)?;
        let file = File::open(path, libc::O_RDONLY | libc::O_NONBLOCK, 0).ok()?;
        let status = FileStatus::of_file(&file).filter(is_mapped_file)?;
        let crc = checksum(self.code.len, |offset, sample| {
            file.read_exact_at(self.code.offset.wrapping_add(offset), sample).ok()
        })?;
        Some(CodeIdentity { code_bytes: self.code.len, crc, file_bytes: status.len })
    }
}

/// Returns the checksum of the code of a module with this load bias, as it is in memory now.
pub(super) fn checksum_in_memory(bias: u64, code: CodeSegment) -> Option<u32> {
    let start = bias.wrapping_add(code.address);
    checksum(code.len, |offset, sample| read_memory(start.wrapping_add(offset), sample))
}

/// Returns the checksum of code of this length; `read` fills a sample that begins at an offset.
fn checksum(len: u64, read: impl Fn(u64, &mut [u8]) -> Option<()>) -> Option<u32> {
    let mut samples = CodeSamples::new(len);
    if len == 0 {
        return None;
    }
    // NOTE: not on the stack, because threads of the host may have little of it.
    let mut buffer = Mapping::anonymous(SAMPLE_LEN).ok()?;
    while let Some((offset, sample_len)) = samples.next_range() {
        let sample = buffer.bytes_mut().get_mut(..sample_len)?;
        read(offset, sample)?;
        samples.add(sample);
    }
    Some(samples.checksum())
}
