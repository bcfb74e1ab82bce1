//! The second pass over a dump, which follows sites. In: a dump, the profile of the first pass, and
//! what to follow. Out: [`GrowthCurves`].
//!
//! Sites are known only when the stacks have names, so the first pass cannot follow them. A dump
//! may have grown since. The second pass ends with the same event as the first one, so that both
//! count the same.

use std::path::Path;

use super::chosen_threads::chosen_threads;
use super::gate::{Bound, Gate};
use super::replay::ReplayScope;
use super::{LoadError, replay_dump};
use crate::dumps::OnProgress;
use crate::pattern::Pattern;
use crate::profile::{GrowthCurves, GrowthRequest, Profile};

/// Follows the sites of a dump in windows. `first` is the profile of the same dump. `threads` are
/// the threads that it counts.
///
/// # Errors
/// See [`LoadError`].
pub fn load_growth(
    path: &Path,
    first: &Profile,
    threads: Option<&Pattern>,
    request: GrowthRequest,
    progress: OnProgress<'_>,
) -> Result<GrowthCurves, LoadError> {
    let selected = threads.map(|pattern| chosen_threads(path, &first.threads, pattern)).transpose()?;
    // PERF: a replay to the very end does not compare each record with its end.
    let is_whole = first.interval.is_none() && first.trust.end.is_some();
    let end = Bound::after_event(first.last_event, None);
    let gate = (!is_whole).then(|| Gate::new(None, Some(end)));
    let scope = ReplayScope { selected, gate, growth: Some(request), ..ReplayScope::default() };
    Ok(replay_dump(path, &scope, progress)?.replay.finish_growth().unwrap_or_default())
}
