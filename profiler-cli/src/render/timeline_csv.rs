//! A timeline as CSV (RFC 4180). In: [`Timeline`]. Out: one row for each interval of the heap, each
//! sample, each mark and each call, and one for each group of the heap in each part of the time.
//! The column `kind` tells them apart. Columns that a kind does not have are empty.

use std::io::{self, Write};

use serde::Serialize;

use super::csv_cause;
use super::escape::CsvText;
use crate::analyze::timeline::Timeline;

/// Writes the whole timeline, with a header.
///
/// # Errors
/// Returns the first error of `out`.
pub fn write(out: &mut dyn Write, timeline: &Timeline) -> io::Result<()> {
    let mut out = csv::Writer::from_writer(out);
    let mut row = |row: TimelineCsvRow<'_>| out.serialize(row).map_err(csv_cause);
    for point in &timeline.heap {
        row(TimelineCsvRow {
            kind: "heap",
            start_ns: point.start_ns,
            end_ns: Some(point.end_ns),
            heap_min: Some(point.min),
            heap_max: Some(point.max),
            heap_last: Some(point.last),
            ..TimelineCsvRow::default()
        })?;
    }
    if let Some(groups) = &timeline.groups {
        for point in &groups.points {
            for (group, bytes) in groups.groups.iter().zip(&point.bytes) {
                row(TimelineCsvRow {
                    kind: "group",
                    start_ns: point.start_ns,
                    end_ns: Some(point.end_ns),
                    name: Some(CsvText(&group.name)),
                    group_bytes: Some(*bytes),
                    ..TimelineCsvRow::default()
                })?;
            }
        }
    }
    for sample in &timeline.samples {
        row(TimelineCsvRow {
            kind: "sample",
            start_ns: sample.ns,
            rss: Some(sample.rss),
            vsz: Some(sample.vsz),
            swap: Some(sample.swap),
            minor_faults: Some(sample.minor_faults),
            major_faults: Some(sample.major_faults),
            tracker_bytes: Some(sample.tracker_bytes),
            ..TimelineCsvRow::default()
        })?;
    }
    for mark in &timeline.marks {
        row(TimelineCsvRow {
            kind: "mark",
            start_ns: mark.ns,
            heap_last: Some(mark.live_bytes),
            name: Some(CsvText(&mark.name)),
            thread: Some(CsvText(&mark.thread)),
            ..TimelineCsvRow::default()
        })?;
    }
    for function in &timeline.functions {
        for span in &function.spans {
            row(TimelineCsvRow {
                kind: "call",
                start_ns: span.start_ns,
                end_ns: Some(span.end_ns),
                name: Some(CsvText(&function.function)),
                thread: Some(CsvText(&span.thread)),
                ..TimelineCsvRow::default()
            })?;
        }
    }
    out.flush()
}

/// One row. The field names are the titles of the columns.
#[derive(Default, Serialize)]
struct TimelineCsvRow<'a> {
    kind: &'static str,
    start_ns: u64,
    end_ns: Option<u64>,
    heap_min: Option<u64>,
    heap_max: Option<u64>,
    heap_last: Option<u64>,
    rss: Option<u64>,
    vsz: Option<u64>,
    swap: Option<u64>,
    minor_faults: Option<u64>,
    major_faults: Option<u64>,
    name: Option<CsvText<'a>>,
    thread: Option<CsvText<'a>>,
    tracker_bytes: Option<u64>,
    group_bytes: Option<u64>,
}
