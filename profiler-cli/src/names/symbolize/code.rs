//! The identity of the code in a file. In: a path. Out: [`CodeIdentity`], to compare with that of a
//! module of the dump. Reads at most some samples of the file.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use alloc_dump::code::{CodeIdentity, CodeSamples};
use object::{Object as _, ObjectSegment as _, ReadCache};

use super::object_file::open_regular;

/// Returns the identity of the code in the file at `path`, as a recorder would record it.
pub(super) fn code_identity(path: &Path) -> Result<CodeIdentity, String> {
    let cache = ReadCache::new(open_regular(path)?);
    let file = object::File::parse(&cache).map_err(|error| error.to_string())?;
    let code = file.segments().filter(|segment| segment.permissions().executable());
    let mut ranges = code.map(|segment| segment.file_range());
    let (start, code_bytes) =
        ranges.find(|(_, len)| *len > 0).ok_or_else(|| "the file has no code".to_owned())?;
    drop(ranges);
    drop(file);
    let mut file = cache.into_inner();
    let mut samples = CodeSamples::new(code_bytes);
    while let Some((offset, len)) = samples.next_range() {
        let mut bytes = vec![0; len];
        let at = start.checked_add(offset).ok_or_else(|| "the code has no end".to_owned())?;
        file.seek(SeekFrom::Start(at)).map_err(|error| error.to_string())?;
        file.read_exact(&mut bytes).map_err(|error| error.to_string())?;
        samples.add(&bytes);
    }
    let file_bytes = file.metadata().map_or(0, |metadata| metadata.len());
    Ok(CodeIdentity { code_bytes, crc: samples.checksum(), file_bytes })
}
