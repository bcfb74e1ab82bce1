//! Whether there is memory for a copy of a process. In: a process id. Out: a refusal, if memory is
//! short.

use std::fs;
use std::path::Path;

use super::SnapshotTrouble;

/// Checks that there is a quarter of the memory that a copy needs if the program writes to all of
/// it meanwhile.
///
/// # Errors
/// [`SnapshotTrouble::NoHeadroom`].
pub(super) fn check_headroom(pid: u32) -> Result<(), SnapshotTrouble> {
    let page = rustix::param::page_size() as u64;
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let resident =
        statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * page;
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let of_groups = available_in_groups(&groups, Path::new("/sys/fs/cgroup"));
    let Some(available) = available_in_machine().into_iter().chain(of_groups).min() else { return Ok(()) };
    if available < resident / 4 {
        let text = |bytes: u64| format!("{} MiB", bytes >> 20);
        return Err(SnapshotTrouble::NoHeadroom { resident: text(resident), available: text(available) });
    }
    Ok(())
}

/// Returns how many bytes of memory the machine has left.
fn available_in_machine() -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let kib =
        meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix("kB"))?;
    Some(kib.trim().parse::<u64>().ok()? << 10)
}

/// Returns how many bytes of memory the control groups of a process have left: each limits all that
/// is below it. `groups` is the text of `/proc/PID/cgroup`.
fn available_in_groups(groups: &str, root: &Path) -> Option<u64> {
    groups.lines().filter_map(|line| available_in_hierarchy(line, root)).min()
}

fn available_in_hierarchy(line: &str, root: &Path) -> Option<u64> {
    let (_, rest) = line.split_once(':')?;
    let (controllers, path) = rest.split_once(':')?;
    let version = if controllers.is_empty() {
        &VERSION_2
    } else if controllers.split(',').any(|controller| controller == "memory") {
        &VERSION_1
    } else {
        return None;
    };
    // A group outside of what this process can see has a path with `..`.
    let path = path.strip_prefix('/').filter(|path| path.split('/').all(|part| part != ".."))?;
    let root = root.join(version.folder);
    Path::new(path).ancestors().filter_map(|group| version.available(&root.join(group))).min()
}

/// The names that a version of control groups gives to its files.
struct GroupFiles {
    folder: &'static str,
    limit: &'static str,
    used: &'static str,
    /// Name, in `memory.stat`, of the page cache that was not used lately.
    inactive_cache: &'static str,
}

const VERSION_1: GroupFiles = GroupFiles {
    folder: "memory",
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    inactive_cache: "total_inactive_file",
};
const VERSION_2: GroupFiles =
    GroupFiles { folder: "", limit: "memory.max", used: "memory.current", inactive_cache: "inactive_file" };

impl GroupFiles {
    /// Returns how many bytes a group has left. `None` if it has no limit.
    fn available(&self, group: &Path) -> Option<u64> {
        let number = |name: &str| fs::read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok();
        let (limit, used) = (number(self.limit)?, number(self.used)?);
        // The kernel gives this part of the page cache up as soon as somebody needs memory.
        let cache = fs::read_to_string(group.join("memory.stat")).ok().and_then(|stat| {
            stat.lines().find_map(|line| line.strip_prefix(self.inactive_cache)?.trim().parse::<u64>().ok())
        });
        Some(limit.saturating_sub(used.saturating_sub(cache.unwrap_or(0))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make_group(folder: &Path, files: [(&str, &str); 3]) {
        fs::create_dir_all(folder).unwrap();
        files.iter().for_each(|(name, text)| fs::write(folder.join(name), text).unwrap());
    }

    #[test]
    fn page_cache_counts_as_free_and_every_group_above_limits() {
        let root = tempfile::tempdir().unwrap();
        let stat = "anon 100\nfile 700\ninactive_anon 7\ninactive_file 500\nactive_file 200\n";
        let group = |path: &str, limit: &str, used: &str| {
            let files = [("memory.max", limit), ("memory.current", used), ("memory.stat", stat)];
            make_group(&root.path().join(path), files);
        };
        group("service/inner", "1000\n", "900\n");
        group("service", "max\n", "5000\n");
        let available = |path: &str| available_in_groups(&format!("0::{path}\n"), root.path());
        assert_eq!(available("/service/inner"), Some(1000 - (900 - 500)));
        assert_eq!(available("/service"), None);
        // The group above has less left than the group itself.
        group("service", "5000\n", "5200\n");
        assert_eq!(available("/service/inner"), Some(5000 - (5200 - 500)));
        assert_eq!(available("/../service"), None);
        // In a container the group of the container is the root.
        group("", "800\n", "600\n");
        assert_eq!(available("/"), Some(800 - (600 - 500)));
        assert_eq!(available("/service/inner"), Some(300));
    }

    #[test]
    fn groups_of_the_first_version_are_known() {
        let root = tempfile::tempdir().unwrap();
        let stat = "inactive_file 1\ntotal_inactive_file 300\n";
        let files =
            [("memory.limit_in_bytes", "1000"), ("memory.usage_in_bytes", "900"), ("memory.stat", stat)];
        make_group(&root.path().join("memory/a/b"), files);
        let groups = "9:cpu,cpuacct:/a/b\n4:memory:/a/b\n0::/\n";
        assert_eq!(available_in_groups(groups, root.path()), Some(1000 - (900 - 300)));
        assert_eq!(available_in_groups("9:cpu:/a/b\n", root.path()), None);
    }
}
