//! The figures of a site by which recordings are compared and budgeted. Each figure is described in
//! one place: a new one is an entry of [`FIGURES`] and a field of [`SiteFigures`].

use crate::analyze::column::FigureKind;
use crate::profile::{HeapTotals, StackStats};

/// The figures of a site, or of a whole process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SiteFigures {
    /// Bytes at the first instant of the process's peak.
    pub peak_bytes: u64,
    /// Bytes of allocations, and the new sizes of reallocations.
    pub allocated_bytes: u64,
    /// Number of allocations; reallocations do not count.
    pub allocations: u64,
    /// Number of blocks that the next heap event of their thread freed.
    pub temporary: u64,
    /// Bytes that are live at the end.
    pub live_bytes: u64,
}

/// One of the figures.
#[derive(Clone, Copy, Debug)]
pub struct SiteFigure {
    /// Its name in JSON, in budgets and in baselines. Never changes.
    pub name: &'static str,
    /// Its title for people.
    pub title: &'static str,
    /// What it counts.
    pub kind: FigureKind,
    /// Returns the figure.
    pub of: fn(&SiteFigures) -> u64,
}

impl SiteFigure {
    /// Whether it counts bytes.
    pub fn is_bytes(&self) -> bool {
        self.kind == FigureKind::Bytes
    }

    /// Returns the least difference that matters, whatever the size of the figure: 4 KiB, or 10
    /// allocations.
    pub fn least_gap(&self) -> u64 {
        if self.is_bytes() { 4096 } else { 10 }
    }
}

/// All figures. The first one that changed decides whether a site has grown or shrunk.
pub const FIGURES: [SiteFigure; 5] = [
    figure("peak_bytes", "Peak", FigureKind::Bytes, |figures| figures.peak_bytes),
    figure("live_bytes", "Live at end", FigureKind::Bytes, |figures| figures.live_bytes),
    figure("allocated_bytes", "Allocated", FigureKind::Bytes, |figures| figures.allocated_bytes),
    figure("allocations", "Allocations", FigureKind::Count, |figures| figures.allocations),
    figure("temporary", "Temporary", FigureKind::Count, |figures| figures.temporary),
];

const fn figure(
    name: &'static str,
    title: &'static str,
    kind: FigureKind,
    of: fn(&SiteFigures) -> u64,
) -> SiteFigure {
    SiteFigure { name, title, kind, of }
}

impl SiteFigures {
    /// Adds the figures of a stack.
    pub fn add(&mut self, stats: &StackStats) {
        self.peak_bytes += stats.peak_bytes;
        self.allocated_bytes = self.allocated_bytes.saturating_add(stats.allocated);
        self.allocations += stats.allocations;
        self.temporary += stats.temporary;
        self.live_bytes += stats.live_bytes;
    }

    /// Adds the figures of another site.
    pub fn add_all(&mut self, other: &SiteFigures) {
        self.peak_bytes += other.peak_bytes;
        self.allocated_bytes = self.allocated_bytes.saturating_add(other.allocated_bytes);
        self.allocations += other.allocations;
        self.temporary += other.temporary;
        self.live_bytes += other.live_bytes;
    }

    /// Returns the figures of a whole process.
    pub fn of_process(totals: &HeapTotals) -> SiteFigures {
        SiteFigures {
            peak_bytes: totals.peak_bytes,
            allocated_bytes: totals.allocated_bytes,
            allocations: totals.allocations,
            temporary: totals.temporary,
            live_bytes: totals.live_bytes,
        }
    }
}
