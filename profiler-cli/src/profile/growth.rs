//! What sites hold over time, window by window. Plain values.

/// The sites that are followed, and the windows in which they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrowthRequest {
    /// The site of each stack, by the id of the stack; [`NO_SITE`] for stacks that are not
    /// followed. Stacks beyond the end are not followed either.
    pub site_of_stack: Vec<u32>,
    /// Number of the sites.
    pub sites: usize,
    /// The windows, in microseconds, in order: window `w` is from border `w` to border `w + 1`.
    pub borders_us: Vec<u64>,
}

/// Stands for the site of a stack that is not followed.
pub const NO_SITE: u32 = u32::MAX;

impl GrowthRequest {
    /// Number of the windows.
    pub fn windows(&self) -> usize {
        self.borders_us.len().saturating_sub(1)
    }
}

/// What the sites held over time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrowthCurves {
    /// The windows, as they were asked for.
    pub borders_us: Vec<u64>,
    /// When the observation ended, in microseconds. Survivors are live then.
    pub end_us: u64,
    /// The curve of each site.
    pub sites: Vec<SiteCurve>,
}

/// What one site held over time. The lists have an entry for each window.
///
/// A block belongs to the site that gave it its present size. A realloc at another site moves the
/// block there, with its time of birth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SiteCurve {
    /// The fewest live bytes at any instant of the window: its floor. The value at the beginning of
    /// the window belongs to it.
    pub floors: Vec<u64>,
    /// Number of the blocks that were born in the window and have ever been the site's.
    pub births: Vec<u64>,
    /// Number of these blocks that are the site's at the end.
    pub survivors: Vec<u64>,
    /// Number of the blocks that left the site, at any time: freed, or reallocated elsewhere.
    pub left: u64,
    /// The age, in microseconds, that 99 % of the blocks that left had not passed; 0 if none left.
    /// It is too high by an eighth at most, and never too low.
    pub age_99_us: u64,
}

/// The times of the marks that match a pattern, thinned out: from one to the next the program set
/// the same number of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MarkTimes {
    /// The times, in microseconds, in order.
    pub us: Vec<u64>,
    /// Number of marks from one time to the next.
    pub step: u64,
    /// Number of all marks that match.
    pub marks: u64,
}
