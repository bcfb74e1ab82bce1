//! What makes events cost more than usual, and its numbers in the format. In: reasons or numbers.
//! Out: the other.

/// Why events cost the program more than they usually do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SlowReason {
    /// The C library has no function that tells which module is at an address. So the platform's
    /// unwinder makes every walk.
    NoLoaderLookup,
    /// The kernel does not offer the call `membarrier`, or it is forbidden. So every event costs a
    /// fence.
    NoMembarrier,
    /// The platform's unwinder made walks.
    PortableWalks {
        /// How many walks it has made since the last such record.
        stacks: u64,
    },
    /// A module has no unwind tables. Stacks end at its code.
    NoUnwindTables {
        /// Number of the module.
        module: u32,
    },
}

impl SlowReason {
    /// Returns the reason's number in the format, and the number that belongs to it.
    pub(crate) fn to_numbers(self) -> (u64, u64) {
        match self {
            SlowReason::NoLoaderLookup => (1, 0),
            SlowReason::NoMembarrier => (2, 0),
            SlowReason::PortableWalks { stacks } => (3, stacks),
            SlowReason::NoUnwindTables { module } => (4, u64::from(module)),
        }
    }

    /// Returns the reason with these numbers; `None` if it is not known.
    pub(crate) fn from_numbers(reason: u64, number: u64) -> Option<SlowReason> {
        match reason {
            1 => Some(SlowReason::NoLoaderLookup),
            2 => Some(SlowReason::NoMembarrier),
            3 => Some(SlowReason::PortableWalks { stacks: number }),
            4 => Some(SlowReason::NoUnwindTables { module: u32::try_from(number).ok()? }),
            _ => None,
        }
    }
}
