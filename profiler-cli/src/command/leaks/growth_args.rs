//! The options of `leaks` that ask which sites grow, and the second pass over the dump that they
//! need. In: the options and a loaded dump. Out: the growth of its sites.

use std::path::Path;

use anyhow::Context;
use clap::Args;

use crate::analyze::filter::Filter;
use crate::analyze::growth::windows::WindowsFrom;
use crate::analyze::growth::{FollowedSites, GrowingSites};
use crate::analyze::shown::Folding;
use crate::analyze::suppressions::SuppressedStacks;
use crate::command::input::{InputArgs, LoadedDump};
use crate::command::progress::ProgressLine;
use crate::load::load_growth;
use crate::pattern::Pattern;

/// Which sites grow.
#[derive(Debug, Default, Args)]
pub struct GrowthArgs {
    /// Only sites that grow, most growth first, each with a sentence that says why.
    ///
    /// A site grows if its least use rises from window to window, if blocks from every time are
    /// kept, and if that does not slow down. Windows are twelve equal parts of the time, without
    /// its first fifth; with --from all of it. The dump is read a second time. If the program freed
    /// its memory at its end, the report is about the time before, as with --to teardown.
    #[arg(long, help_heading = "Growth")]
    pub growing: bool,
    /// With --growing: all sites, also those that grow by less than 64 KiB or 1 % of the peak, and
    /// those that do not grow.
    #[arg(long, requires = "growing", help_heading = "Growth")]
    pub all: bool,
    /// With --growing: what windows are made of: time, or mark:PATTERN for the marks whose name
    /// matches. [default: time]
    ///
    /// With marks, each window has an equal number of them: --windows-from mark:request compares
    /// requests, however long the program waits in between.
    #[arg(long, value_name = "WHAT", requires = "growing", help_heading = "Growth")]
    pub windows_from: Option<WindowsFrom>,
}

/// Which sites have rows.
#[derive(Clone, Copy)]
pub(super) struct ListedSites<'a> {
    pub(super) filter: &'a Filter,
    pub(super) folding: Folding,
    pub(super) suppressed: &'a SuppressedStacks,
}

impl GrowthArgs {
    /// Returns the pattern for the marks that windows are made of.
    pub(super) fn marks(&self) -> Option<Pattern> {
        self.windows_from.as_ref().and_then(WindowsFrom::marks).cloned()
    }

    /// Judges the growth of all sites that have a row; `None` if it is not asked for. `is_checked`:
    /// a condition needs it, which does not change what is listed.
    ///
    /// # Errors
    /// If the dump cannot be read again, or if no mark matches.
    pub(super) fn judge<'a>(
        &self,
        path: &Path,
        input: &InputArgs,
        dump: &'a LoadedDump,
        listed: &ListedSites<'_>,
        is_checked: bool,
    ) -> anyhow::Result<Option<GrowingSites<'a>>> {
        if !self.growing && !is_checked {
            return Ok(None);
        }
        let ListedSites { filter, folding, suppressed } = *listed;
        let profile = &dump.profile;
        let windows = self.windows_from.clone().unwrap_or_default();
        let sites = FollowedSites::of(profile, &dump.stacks, filter, folding, Some(suppressed), &windows)
            .map_err(anyhow::Error::msg)
            .with_context(|| path.display().to_string())?;
        let progress = ProgressLine::of_bytes("following");
        let request = sites.request.clone();
        let curves = load_growth(path, profile, input.thread.as_ref(), request, &mut |done, total| {
            progress.update(done, total);
        })?;
        let growing = sites.judge(&curves, profile, self.all);
        Ok(Some(if self.growing { growing } else { growing.with_all_sites() }))
    }
}
