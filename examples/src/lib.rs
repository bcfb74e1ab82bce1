//! What the example programs share, so that each of them shows little more than its memory habit.
//!
//! Every program declares the tracker as its global allocator, as any program would. The `cfg` in
//! front of it is there for the feature `oracle`. With that feature, this library declares the
//! global allocator instead: `alloc_oracle::Counting` around the same tracker, so that the two can
//! be compared.
#![forbid(unsafe_code)]

mod lcg;

pub use lcg::Lcg;

#[cfg(feature = "oracle")]
#[global_allocator]
static COUNTED: alloc_oracle::Counting<alloc_tracker::AllocTracker> =
    alloc_oracle::Counting::new(alloc_tracker::AllocTracker::system());

/// Prepares an example; call it at the beginning of `main`. Does nothing without the feature
/// `oracle`.
///
/// With that feature, the process writes the independent counts at its exit, to the file that
/// `ALLOC_ORACLE_OUT` names.
///
/// ```
/// examples::begin();
/// ```
pub fn begin() {
    #[cfg(feature = "oracle")]
    alloc_oracle::report_at_exit();
}

/// Returns how often to do the whole work: the first argument of the program, or 1 without
/// arguments.
///
/// If the argument is not a positive number, the process ends with status 2.
///
/// ```
/// assert_eq!(examples::rounds(), 1);
/// ```
pub fn rounds() -> usize {
    let Some(argument) = std::env::args().nth(1) else { return 1 };
    parse_rounds(&argument).unwrap_or_else(|| {
        eprintln!("rounds: '{argument}' is not a positive number; give one, or no argument for 1");
        std::process::exit(2);
    })
}

fn parse_rounds(argument: &str) -> Option<usize> {
    argument.parse().ok().filter(|rounds| *rounds > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_positive_numbers() {
        assert_eq!(parse_rounds("3"), Some(3));
        assert_eq!(parse_rounds("0"), None);
        assert_eq!(parse_rounds("-1"), None);
        assert_eq!(parse_rounds("many"), None);
    }
}
