//! The limits of the program's memory: RLIMIT_AS and those of its control groups. In: the kernel's
//! files. Out: [`MemoryLimit`]s. Never allocates; a limit that cannot be read is left out.
//!
//! The drain process reads them before it forbids itself to open files. It has the limits of its
//! host, and it is in the same control group.

use std::ffi::CStr;

use alloc_dump::record::{MemoryLimit, MemoryLimitKind};

use crate::base::sys::{self, Mapping, PathBuffer};

/// Calls `f` with each limit that there is.
pub(super) fn for_each_memory_limit(f: &mut dyn FnMut(MemoryLimit)) {
    let limits = [
        (MemoryLimitKind::AddressSpace, sys::address_space_limit()),
        (MemoryLimitKind::ControlGroup, control_group_limit()),
    ];
    for (kind, most) in limits {
        if let Some(most) = most {
            f(MemoryLimit { kind, most, used: None });
        }
    }
}

/// Returns the least limit of the process's control group and of the groups above it.
fn control_group_limit() -> Option<u64> {
    let mut memory = Mapping::anonymous(MAX_GROUPS_FILE).ok()?;
    let groups = sys::read_file(c"/proc/self/cgroup", memory.bytes_mut()).ok()?;
    let limits = groups.split(|byte| *byte == b'\n').filter_map(MemoryGroup::of_line);
    limits.filter_map(|group| group.least_limit(&mut read_limit)).min()
}

/// A control group, as a line of `/proc/self/cgroup` names it: number, controllers, path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct MemoryGroup<'a> {
    root: &'static [u8],
    path: &'a [u8],
    file: &'static [u8],
}

impl MemoryGroup<'_> {
    /// Returns the group of a line, if it may limit memory.
    ///
    /// ```text
    /// 0::/user.slice/app          version 2
    /// 4:memory:/user.slice/app    version 1
    /// ```
    fn of_line(line: &[u8]) -> Option<MemoryGroup<'_>> {
        let mut fields = line.splitn(3, |byte| *byte == b':');
        let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let path = path.strip_suffix(b"/").unwrap_or(path);
        if number == b"0" && controllers.is_empty() {
            return Some(MemoryGroup { root: b"/sys/fs/cgroup", path, file: b"/memory.max" });
        }
        let is_memory = controllers.split(|byte| *byte == b',').any(|name| name == b"memory");
        let file = b"/memory.limit_in_bytes";
        is_memory.then_some(MemoryGroup { root: b"/sys/fs/cgroup/memory", path, file })
    }

    /// Returns the least limit of the group and of those above it. In a container the path may be
    /// one that the container does not see; then the groups above it count.
    fn least_limit(&self, read: &mut dyn FnMut(&CStr) -> Option<u64>) -> Option<u64> {
        let (mut path, mut least) = (self.path, None::<u64>);
        for _ in 0..MAX_LEVELS {
            let mut name = PathBuffer::of(self.root);
            name.push(path);
            name.push(self.file);
            if let Some(limit) = name.as_c_str().and_then(&mut *read) {
                least = Some(least.map_or(limit, |least| least.min(limit)));
            }
            let Some(end) = path.iter().rposition(|byte| *byte == b'/') else { break };
            path = path.get(..end).unwrap_or_default();
        }
        least
    }
}

/// Reads the file of a limit. `None` if there is no such file, or no limit.
fn read_limit(path: &CStr) -> Option<u64> {
    let mut room = [0; 32];
    limit_of_text(sys::read_file(path, &mut room).ok()?)
}

/// Version 2 says `max` if there is no limit, version 1 the largest number of whole pages.
fn limit_of_text(text: &[u8]) -> Option<u64> {
    let number: u64 = std::str::from_utf8(text).ok()?.trim_ascii().parse().ok()?;
    (number < NO_LIMIT).then_some(number)
}

/// No machine has so much memory.
const NO_LIMIT: u64 = 1 << 62;
/// Longer lists of groups are cut.
const MAX_GROUPS_FILE: usize = 16 << 10;
/// Groups above these are not read.
const MAX_LEVELS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_groups_that_limit_memory_are_found() {
        let of_line = |line: &'static str| MemoryGroup::of_line(line.as_bytes());
        let second = MemoryGroup { root: b"/sys/fs/cgroup", path: b"/user/app", file: b"/memory.max" };
        assert_eq!(of_line("0::/user/app"), Some(second));
        assert_eq!(of_line("0::/").map(|group| group.path), Some(&b""[..]));
        let first =
            MemoryGroup { root: b"/sys/fs/cgroup/memory", path: b"/app:1", file: b"/memory.limit_in_bytes" };
        assert_eq!(of_line("4:hugetlb,memory:/app:1"), Some(first));
        assert_eq!([of_line("3:cpu,cpuacct:/app"), of_line("4:memory"), of_line("")], [None; 3]);
    }

    #[test]
    fn the_least_limit_of_all_levels_counts() {
        let group = MemoryGroup { root: b"/sys/fs/cgroup", path: b"/user/app", file: b"/memory.max" };
        let mut read = Vec::new();
        let least = group.least_limit(&mut |path| {
            read.push(path.to_str().unwrap().to_owned());
            [Some(300), Some(200), None].get(read.len() - 1).copied().flatten()
        });
        assert_eq!(least, Some(200));
        let files = ["/user/app/memory.max", "/user/memory.max", "/memory.max"];
        assert_eq!(read, files.map(|file| format!("/sys/fs/cgroup{file}")));
        assert_eq!(group.least_limit(&mut |_| None), None);
    }

    #[test]
    fn words_and_huge_numbers_are_no_limits() {
        assert_eq!(limit_of_text(b"536870912\n"), Some(512 << 20));
        assert_eq!([&b"max\n"[..], b"9223372036854771712\n", b""].map(limit_of_text), [None; 3]);
    }
}
