//! The limits that end a recording before its program ends, and those of the program's memory, with
//! their numbers in the format. In: limits or numbers. Out: the other.

/// A limit that the user has set for a recording, and that the recording has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RecordingLimit {
    /// The dump has got this large.
    DumpSize {
        /// Most bytes of the dump; the events that threads had already recorded come on top.
        bytes: u64,
    },
    /// The recording has lasted this long.
    Duration {
        /// Longest duration in microseconds.
        us: u64,
    },
}

impl RecordingLimit {
    /// Returns the limit's number in the format, and its value.
    pub(crate) fn to_numbers(self) -> (u64, u64) {
        match self {
            RecordingLimit::DumpSize { bytes } => (1, bytes),
            RecordingLimit::Duration { us } => (2, us),
        }
    }

    /// Returns the limit with these numbers; `None` if it is not known.
    pub(crate) fn from_numbers(limit: u64, value: u64) -> Option<RecordingLimit> {
        match limit {
            1 => Some(RecordingLimit::DumpSize { bytes: value }),
            2 => Some(RecordingLimit::Duration { us: value }),
            _ => None,
        }
    }
}

/// A limit of the program's memory at one moment. Without such a record there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemoryLimit {
    /// What is limited.
    pub kind: MemoryLimitKind,
    /// The most of it: bytes, or mappings for [`MemoryLimitKind::Mappings`].
    pub most: u64,
    /// How much of it was in use, in the same unit. `None` if the recorder could not find out.
    pub used: Option<u64>,
}

/// What a limit is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum MemoryLimitKind {
    /// The virtual size, by the soft limit RLIMIT_AS. Allocations fail if it would be larger.
    AddressSpace,
    /// The memory of a control group: the least limit of the process's group and the groups above
    /// it. The kernel ends processes of the group if it needs more.
    ControlGroup,
    /// Private writable memory, by the soft limit RLIMIT_DATA. Allocations fail if it would be
    /// larger.
    Data,
    /// The memory of a control group above which the kernel slows its processes down
    /// (`memory.high`).
    ControlGroupHigh,
    /// The memory of the machine.
    Machine,
    /// What a control group may swap out.
    ControlGroupSwap,
    /// The swap space of the machine.
    MachineSwap,
    /// The number of mappings of a process (`max_map_count`).
    Mappings,
}

impl MemoryLimitKind {
    /// Each kind, in the order of their numbers in the format, which begin at 1.
    pub const ALL: [MemoryLimitKind; 8] = [
        MemoryLimitKind::AddressSpace,
        MemoryLimitKind::ControlGroup,
        MemoryLimitKind::Data,
        MemoryLimitKind::ControlGroupHigh,
        MemoryLimitKind::Machine,
        MemoryLimitKind::ControlGroupSwap,
        MemoryLimitKind::MachineSwap,
        MemoryLimitKind::Mappings,
    ];

    /// Returns the number of the kind in the format.
    pub(crate) fn number(self) -> u64 {
        self as u64 + 1
    }

    /// Returns the kind with this number; `None` if it is not known.
    pub(crate) fn from_number(number: u64) -> Option<MemoryLimitKind> {
        let index = usize::try_from(number.checked_sub(1)?).ok()?;
        MemoryLimitKind::ALL.get(index).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_limit_has_the_number_of_its_place() {
        for (at, kind) in MemoryLimitKind::ALL.into_iter().enumerate() {
            assert_eq!(kind.number(), at as u64 + 1);
            assert_eq!(MemoryLimitKind::from_number(kind.number()), Some(kind));
        }
        assert_eq!([0, 9, u64::MAX].map(MemoryLimitKind::from_number), [None; 3]);
    }
}
