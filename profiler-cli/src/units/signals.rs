//! How a process ended, in words. In: an exit status, or the number of a signal. Out: text.
//!
//! Shells give 128 + N to a program that signal N has ended, and programs that handle a signal
//! often exit with this status themselves. Such a status says no more than that.

/// Returns the name of a signal on Linux; `None` for numbers without a name, such as those of
/// real-time signals.
///
/// ```
/// use profiler_cli::units::signals::signal_name;
/// assert_eq!((signal_name(9), signal_name(40)), (Some("SIGKILL"), None));
/// ```
pub fn signal_name(number: i32) -> Option<&'static str> {
    let index = usize::try_from(number).ok()?.checked_sub(1)?;
    NAMES.get(index).copied().filter(|name| !name.is_empty())
}

/// The names of signals 1 to 31 on x86 and ARM.
const NAMES: [&str; 31] = [
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];

/// Returns how a signal ended a process: `ended by SIGINT (exit status 130)`.
pub fn ended_by_signal(number: i32) -> String {
    match signal_name(number) {
        Some(name) => format!("ended by {name} (exit status {})", 128 + number),
        None => format!("ended by signal {number} (exit status {})", 128 + number),
    }
}

/// Returns how a process exited: `ended with exit status 3`. If shells give this status to a
/// program that a signal has ended, the text says so.
///
/// ```
/// use profiler_cli::units::signals::ended_with_status;
/// assert_eq!(ended_with_status(1), "ended with exit status 1");
/// assert_eq!(
///     ended_with_status(143),
///     "ended with exit status 143, which often stands for SIGTERM"
/// );
/// ```
pub fn ended_with_status(code: i32) -> String {
    match signal_name(code - 128) {
        Some(name) => format!("ended with exit status {code}, which often stands for {name}"),
        None => format!("ended with exit status {code}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of the platform are the authority.
    #[test]
    fn names_are_those_of_the_platform() {
        use signal_hook::consts::*;
        for (number, name) in [
            (SIGHUP, "SIGHUP"),
            (SIGABRT, "SIGABRT"),
            (SIGKILL, "SIGKILL"),
            (SIGSEGV, "SIGSEGV"),
            (SIGTERM, "SIGTERM"),
            (SIGCHLD, "SIGCHLD"),
            (SIGXFSZ, "SIGXFSZ"),
            (SIGIO, "SIGIO"),
            (SIGSYS, "SIGSYS"),
        ] {
            assert_eq!(signal_name(number), Some(name));
        }
        for number in [i32::MIN, -1, 0, 32, 64] {
            assert_eq!(signal_name(number), None);
        }
    }

    #[test]
    fn a_status_below_128_stands_for_no_signal() {
        assert_eq!(ended_with_status(2), "ended with exit status 2");
        assert_eq!(ended_with_status(128), "ended with exit status 128");
        assert_eq!(ended_by_signal(2), "ended by SIGINT (exit status 130)");
        assert_eq!(ended_by_signal(40), "ended by signal 40 (exit status 168)");
    }
}
