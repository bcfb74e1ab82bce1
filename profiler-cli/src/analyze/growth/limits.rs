//! When a limit of memory is reached. In: the limits of a recorded process, and what it used last.
//! Out: the limit that growth at a given rate reaches first.

use alloc_dump::record::{MemoryLimit, MemoryLimitKind};

use super::LimitAhead;
use crate::profile::Profile;

/// The limits of a process, each with the bytes that are left below it.
#[derive(Clone, Debug, Default)]
pub(super) struct MemoryLeft(Vec<(&'static str, u64, u64)>);

impl MemoryLeft {
    /// Finds the limits. A limit counts only if a sample says what the process used of it.
    ///
    /// Other processes of its control group use memory too. Where the recorder has not said how
    /// much the whole group uses, less may be left.
    pub(super) fn of(profile: &Profile) -> MemoryLeft {
        let Some((_, sample)) = profile.timeline.last() else { return MemoryLeft::default() };
        let left = |limit: &MemoryLimit| {
            let (name, used) = match limit.kind {
                MemoryLimitKind::AddressSpace => ("RLIMIT_AS", sample.vsz),
                MemoryLimitKind::ControlGroup => {
                    ("cgroup memory limit", sample.rss.max(limit.used.unwrap_or(0)))
                }
                _ => return None,
            };
            Some((name, limit.most, limit.most.saturating_sub(used)))
        };
        MemoryLeft(profile.process.memory_limits.iter().filter_map(left).collect())
    }

    /// Returns the limit that is reached first; `None` if there is none, or no growth.
    pub(super) fn first_reached(&self, bytes_per_hour: i64) -> Option<LimitAhead> {
        let rate = u64::try_from(bytes_per_hour).ok().filter(|rate| *rate > 0)?;
        let (name, bytes, left) = self.0.iter().min_by_key(|(_, _, left)| *left)?;
        let after_seconds = *left as f64 / rate as f64 * 3600.0;
        Some(LimitAhead { name: (*name).to_owned(), bytes: *bytes, after_seconds })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Process;
    use alloc_dump::record::Sample;

    const GIB: u64 = 1 << 30;

    fn profile(limits: &[MemoryLimit], sample: Option<Sample>) -> Profile {
        let mut process = Process::default();
        limits.iter().for_each(|limit| process.add_memory_limit(*limit));
        Profile {
            process,
            timeline: sample.map(|sample| (7, sample)).into_iter().collect(),
            ..Profile::default()
        }
    }

    fn address_space(most: u64) -> MemoryLimit {
        MemoryLimit { kind: MemoryLimitKind::AddressSpace, most, used: None }
    }

    fn control_group(most: u64, used: Option<u64>) -> MemoryLimit {
        MemoryLimit { kind: MemoryLimitKind::ControlGroup, most, used }
    }

    #[test]
    fn the_limit_with_the_least_left_is_reached_first() {
        let limits = [address_space(9 * GIB), control_group(2 * GIB, None)];
        let sample = Sample { vsz: 4 * GIB, rss: GIB, ..Sample::default() };
        let left = MemoryLeft::of(&profile(&limits, Some(sample)));
        // 1 GiB is left below the second limit, 5 GiB below the first.
        let reached = left.first_reached(GIB as i64 / 2).unwrap();
        assert_eq!((reached.name.as_str(), reached.bytes), ("cgroup memory limit", 2 * GIB));
        assert_eq!(reached.after_seconds, 7200.0);
        let only_first = MemoryLeft::of(&profile(&limits[..1], Some(sample)));
        assert_eq!(only_first.first_reached(GIB as i64).unwrap().after_seconds, 5.0 * 3600.0);
        // Half of what is left is used by other processes of the group.
        let shared = [control_group(2 * GIB, Some(3 * GIB / 2))];
        let left = MemoryLeft::of(&profile(&shared, Some(sample)));
        assert_eq!(left.first_reached(GIB as i64 / 2).unwrap().after_seconds, 3600.0);
    }

    #[test]
    fn without_growth_a_limit_or_a_sample_nothing_is_reached() {
        let limit = [address_space(GIB)];
        let sample = Some(Sample { vsz: 2 * GIB, ..Sample::default() });
        let left = MemoryLeft::of(&profile(&limit, sample));
        assert_eq!([0, -5].map(|rate| left.first_reached(rate)), [None, None]);
        assert_eq!(left.first_reached(5).unwrap().after_seconds, 0.0, "beyond the limit");
        assert_eq!(MemoryLeft::of(&profile(&limit, None)).first_reached(5), None);
        assert_eq!(MemoryLeft::of(&profile(&[], sample)).first_reached(5), None);
    }
}
