//! What the kernel says about the memory of the process: sizes, a limit and page faults. In:
//! `/proc/self/statm`, `getrusage`. Out: bytes and counts. Never allocates.

use super::process::page_size;
use super::system_call::system_call;

/// The sizes of the process, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProcessSize {
    /// Virtual size.
    pub(crate) virtual_bytes: u64,
    /// Resident set. The kernel counts it in batches of some pages for each processor.
    pub(crate) resident_bytes: u64,
}

impl ProcessSize {
    /// Reads the text of `/proc/self/statm`: numbers of pages, of which the first is the virtual
    /// size and the second the resident set. A number that is not there counts as 0.
    pub(crate) fn of_statm(text: &[u8]) -> ProcessSize {
        let mut bytes = text.split(|byte| *byte == b' ').map(|field| first_number(field) * page_size());
        let mut next = || bytes.next().unwrap_or(0);
        ProcessSize { virtual_bytes: next(), resident_bytes: next() }
    }
}

/// Returns the soft limit of the virtual size, in bytes; `None` if there is none.
pub(crate) fn address_space_limit() -> Option<u64> {
    // The kernel's struct of 64-bit numbers: the soft limit and the hard one.
    let mut limits = [u64::MAX; 2];
    // SAFETY: the array is valid for writes of the struct, and no new limit is set.
    unsafe { system_call!(libc::SYS_prlimit64, 0, libc::RLIMIT_AS, 0, limits.as_mut_ptr()) }.ok()?;
    (limits[0] != u64::MAX).then_some(limits[0])
}

/// Whose page faults are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultsOf {
    /// Those of all threads of the process, ended ones included.
    Process,
    /// Those of the calling thread.
    Thread,
}

/// Returns the minor and the major page faults since the process or the thread began.
pub(crate) fn page_faults(of: FaultsOf) -> (u64, u64) {
    let who = match of {
        FaultsOf::Process => libc::RUSAGE_SELF,
        FaultsOf::Thread => libc::RUSAGE_THREAD,
    };
    // SAFETY: all-zero is a valid `rusage`, and the call writes one to where the pointer leads.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        let _ = system_call!(libc::SYS_getrusage, who, &raw mut usage);
        usage
    };
    (usage.ru_minflt as u64, usage.ru_majflt as u64)
}

/// Returns the first number in `text`, 0 if there is none.
pub(crate) fn first_number(text: &[u8]) -> u64 {
    let digits =
        text.iter().skip_while(|byte| !byte.is_ascii_digit()).take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_two_fields_of_statm_are_the_sizes_in_pages() {
        let page = page_size();
        let size = ProcessSize::of_statm(b"2101 407 361 31 0 147 0\n");
        assert_eq!((size.virtual_bytes, size.resident_bytes), (2101 * page, 407 * page));
        let nothing = ProcessSize { virtual_bytes: 0, resident_bytes: 0 };
        assert_eq!(ProcessSize::of_statm(b""), nothing);
    }

    #[test]
    fn a_number_begins_at_the_first_digit() {
        assert_eq!(first_number(b"\t  1234 kB"), 1234);
        assert_eq!((first_number(b"kB"), first_number(b"")), (0, 0));
    }

    #[test]
    fn touching_new_pages_is_counted_for_the_thread_and_the_process() {
        let before = (page_faults(FaultsOf::Thread).0, page_faults(FaultsOf::Process).0);
        let mut memory = vec![0u8; 64 << 20];
        memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        let after = (page_faults(FaultsOf::Thread).0, page_faults(FaultsOf::Process).0);
        assert!(after.0 > before.0 && after.1 > before.1, "{before:?} {after:?}");
        assert!(memory.contains(&1));
    }
}
