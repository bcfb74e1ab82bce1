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

/// A limit of the program's memory. There is none without such a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum MemoryLimit {
    /// The soft limit RLIMIT_AS: allocations fail if the virtual size would be larger.
    AddressSpace {
        /// Most bytes.
        bytes: u64,
    },
    /// The least limit of the process's control group and the groups above it: the kernel ends
    /// processes of the group if it needs more.
    ControlGroup {
        /// Most bytes.
        bytes: u64,
    },
}

impl MemoryLimit {
    /// Returns the limit in bytes.
    pub fn bytes(self) -> u64 {
        match self {
            MemoryLimit::AddressSpace { bytes } | MemoryLimit::ControlGroup { bytes } => bytes,
        }
    }

    /// Returns the limit's number in the format.
    pub(crate) fn number(self) -> u64 {
        match self {
            MemoryLimit::AddressSpace { .. } => 1,
            MemoryLimit::ControlGroup { .. } => 2,
        }
    }

    /// Returns the limit with this number; `None` if it is not known.
    pub(crate) fn from_numbers(limit: u64, bytes: u64) -> Option<MemoryLimit> {
        match limit {
            1 => Some(MemoryLimit::AddressSpace { bytes }),
            2 => Some(MemoryLimit::ControlGroup { bytes }),
            _ => None,
        }
    }
}
