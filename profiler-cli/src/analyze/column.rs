//! The figures of a line table. Each figure is described in one place.
//!
//! In: a [`LineRow`]. Out: the names, values and texts of its figures, for text, CSV, JSON, HTML,
//! `--columns` and `--sort`. A new figure is one entry in [`COLUMNS`], one field of [`LineRow`],
//! the code that computes the field, and a row in `docs/LINES.md`.

use std::fmt;
use std::sync::LazyLock;

use clap::ValueEnum;
use clap::builder::PossibleValue;
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::analyze::lines::LineRow;
use crate::units::{SizeUnit, bytes, count, time};

/// Every figure of a line table, in the order in which all outputs have them.
pub const COLUMNS: &[LineColumn] = &[
    LineColumn {
        is_usual: true,
        ..column(
            ("mem_usage", "mem-usage", "Mem usage"),
            FigureKind::Bytes,
            |row| row.mem_usage.map(i128::from),
            "Live bytes of the whole process when the line was last left; from recorded stacks, after its last heap event.",
        )
    },
    LineColumn {
        is_usual: true,
        orders_tables: true,
        ..column(
            ("increment", "increment", "Increment"),
            FigureKind::ByteChange,
            |row| row.increment.map(i128::from),
            "Bytes allocated minus bytes freed.",
        )
    },
    LineColumn {
        is_usual: true,
        ..column(
            ("occurrences", "occurrences", "Occurrences"),
            FigureKind::Count,
            |row| row.occurrences.map(i128::from),
            "How often the line was reached; from recorded stacks, its heap events.",
        )
    },
    LineColumn {
        orders_tables: true,
        ..column(
            ("allocated", "allocated", "Allocated"),
            FigureKind::Bytes,
            |row| row.allocated.map(i128::from),
            "Bytes allocated, new sizes of reallocations included.",
        )
    },
    column(
        ("freed", "freed", "Freed"),
        FigureKind::Bytes,
        |row| row.freed.map(i128::from),
        "Bytes freed, old sizes of reallocations included.",
    ),
    column(
        ("count", "count", "Allocations"),
        FigureKind::Count,
        |row| row.count.map(i128::from),
        "Number of allocations, without reallocations.",
    ),
    column(
        ("blocks", "blocks", "Blocks"),
        FigureKind::CountChange,
        |row| row.blocks.map(i128::from),
        "Blocks allocated minus blocks freed.",
    ),
    column(
        ("max", "max", "Max usage"),
        FigureKind::Bytes,
        |row| row.max.map(i128::from),
        "The most live bytes of the whole process when the line was left; of annotated functions.",
    ),
    column(
        ("time_ns", "time", "Time"),
        FigureKind::Nanoseconds,
        |row| row.time_ns.map(i128::from),
        "Wall time spent at the line; of annotated functions.",
    ),
    LineColumn {
        orders_tables: true,
        ..column(
            ("peak", "peak", "At peak"),
            FigureKind::Bytes,
            |row| row.peak.map(i128::from),
            "Bytes of the blocks that got their present size here and were live at the global peak.",
        )
    },
    LineColumn {
        orders_tables: true,
        ..column(
            ("live", "live", "Live at end"),
            FigureKind::Bytes,
            |row| row.live.map(i128::from),
            "Bytes of the blocks that got their present size here and are live at the end.",
        )
    },
    column(
        ("temporary", "temporary", "Temporary"),
        FigureKind::Count,
        |row| row.temporary.map(i128::from),
        "Blocks that were allocated here and freed by the next heap event of their thread.",
    ),
    column(
        ("short_lived", "short-lived", "Short-lived"),
        FigureKind::Count,
        |row| row.short_lived.map(i128::from),
        "Blocks that got their last size here and were freed within --short-lived-within.",
    ),
    column(
        ("max_live", "max-live", "Max live"),
        FigureKind::Bytes,
        |row| row.max_live.map(i128::from),
        "The most bytes of blocks from here that were live at one time; from recorded stacks, an upper bound if the line has several stacks.",
    ),
    column(
        ("rss", "rss", "RSS"),
        FigureKind::ByteChange,
        |row| row.rss.map(i128::from),
        "By how much the resident memory of the process has changed; recorded with --lines rss.",
    ),
    column(
        ("minor_faults", "minor-faults", "Minor faults"),
        FigureKind::Count,
        |row| row.minor_faults.map(i128::from),
        "Minor page faults of the thread; recorded with --lines faults.",
    ),
    column(
        ("major_faults", "major-faults", "Major faults"),
        FigureKind::Count,
        |row| row.major_faults.map(i128::from),
        "Major page faults of the thread; recorded with --lines faults.",
    ),
];

const fn column(
    (name, option, title): (&'static str, &'static str, &'static str),
    kind: FigureKind,
    figure: fn(&LineRow) -> Option<i128>,
    help: &'static str,
) -> LineColumn {
    LineColumn { name, option, title, kind, figure, help, is_usual: false, orders_tables: false }
}

/// One figure of a line table.
#[derive(Clone, Copy, Debug)]
pub struct LineColumn {
    /// Key in JSON and in the header of CSV. Never changes, because programs read it.
    pub name: &'static str,
    /// Name on the command line: the value of `--columns` and of `--sort`.
    pub option: &'static str,
    /// Title in text and HTML.
    pub title: &'static str,
    /// The kind of quantity, which decides how the figure is printed.
    pub kind: FigureKind,
    /// Returns the figure of a row: `None` where the line has none. `i128` holds every `u64` and
    /// `i64`.
    pub figure: fn(&LineRow) -> Option<i128>,
    /// Meaning of the figure, for people: one sentence.
    pub help: &'static str,
    /// Whether the text always has the column. The usual columns are those of memory_profiler.
    pub is_usual: bool,
    /// Whether `--sort` can order tables by the sum of the column.
    pub orders_tables: bool,
}

impl LineColumn {
    /// Returns the sum of the figure over all rows; rows without a figure count as 0.
    pub fn sum(&self, rows: &[LineRow]) -> i128 {
        rows.iter().filter_map(self.figure).sum()
    }

    /// Whether any of the rows has the figure.
    pub fn has_figures(&self, rows: &[LineRow]) -> bool {
        rows.iter().any(|row| (self.figure)(row).is_some())
    }

    fn possible_value(&self) -> PossibleValue {
        PossibleValue::new(self.option).help(self.help.trim_end_matches('.'))
    }
}

/// The kind of quantity that a figure measures, with its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FigureKind {
    /// An amount of memory, in bytes.
    Bytes,
    /// The signed change of an amount of memory, in bytes.
    ByteChange,
    /// A number of events or blocks.
    Count,
    /// The signed change of a number of blocks.
    CountChange,
    /// A time, in nanoseconds.
    Nanoseconds,
}

impl FigureKind {
    /// Returns the text of a figure for people, with the sign of a change. Each figure has the unit
    /// that fits it, so that no figure is rounded to zero.
    pub fn show(self, figure: i128) -> String {
        let amount = magnitude(figure);
        match self {
            FigureKind::Bytes => bytes(amount),
            FigureKind::ByteChange => format!("{}{}", sign(figure), bytes(amount)),
            FigureKind::Count => count(amount),
            FigureKind::CountChange => format!("{}{}", sign(figure), count(amount)),
            FigureKind::Nanoseconds => time(amount),
        }
    }

    /// Returns the text of a figure without rounding; `None` if [`FigureKind::show`] never rounds.
    pub fn show_exactly(self, figure: i128) -> Option<String> {
        let amount = count(magnitude(figure));
        match self {
            FigureKind::Bytes => Some(format!("{amount} B")),
            FigureKind::ByteChange => Some(format!("{}{amount} B", sign(figure))),
            FigureKind::Nanoseconds => Some(format!("{amount} ns")),
            FigureKind::Count | FigureKind::CountChange => None,
        }
    }

    /// Returns the text of a figure for a column: with a minus sign but without a plus sign. Sizes
    /// are in the given unit, or else in the unit that fits.
    pub fn show_in_text(self, figure: i128, unit: Option<SizeUnit>, precision: usize) -> String {
        match self {
            FigureKind::Bytes | FigureKind::ByteChange => {
                let limits = (i128::from(i64::MIN), i128::from(i64::MAX));
                let unit = unit.unwrap_or_else(|| SizeUnit::fitting(magnitude(figure)));
                unit.show_to(figure.clamp(limits.0, limits.1) as i64, precision)
            }
            FigureKind::Count => count(magnitude(figure)),
            FigureKind::CountChange => figure.to_string(),
            FigureKind::Nanoseconds => time(magnitude(figure)),
        }
    }
}

/// Returns the absolute value of a figure, at most the largest `u64`.
pub fn magnitude(figure: i128) -> u64 {
    u64::try_from(figure.unsigned_abs()).unwrap_or(u64::MAX)
}

fn sign(figure: i128) -> &'static str {
    match figure {
        1.. => "+",
        0 => "",
        _ => "-",
    }
}

/// A column that is in the text only if `--columns` names it.
#[derive(Clone, Copy)]
pub struct OptionalColumn(pub &'static LineColumn);

impl fmt::Debug for OptionalColumn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.option)
    }
}

impl ValueEnum for OptionalColumn {
    fn value_variants<'a>() -> &'a [Self] {
        static OPTIONAL: LazyLock<Vec<OptionalColumn>> =
            LazyLock::new(|| COLUMNS.iter().filter(|column| !column.is_usual).map(OptionalColumn).collect());
        &OPTIONAL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(self.0.possible_value())
    }
}

/// The order of line tables.
#[derive(Clone, Copy, Debug)]
pub enum TableOrder {
    /// By the sum of a column, largest first.
    Column(&'static LineColumn),
    /// By the name of the function, from A to Z.
    FunctionName,
}

impl ValueEnum for TableOrder {
    fn value_variants<'a>() -> &'a [Self] {
        static ORDERS: LazyLock<Vec<TableOrder>> = LazyLock::new(|| {
            let columns = COLUMNS.iter().filter(|column| column.orders_tables).map(TableOrder::Column);
            columns.chain([TableOrder::FunctionName]).collect()
        });
        &ORDERS
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            TableOrder::Column(column) => column.possible_value(),
            TableOrder::FunctionName => PossibleValue::new("name").help("By name, from A to Z"),
        })
    }
}

/// Writes the line's number, all figures in the order of [`COLUMNS`], and the text. A figure that
/// the line lacks is null.
impl Serialize for LineRow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_map(Some(COLUMNS.len() + 2))?;
        fields.serialize_entry("line", &self.line)?;
        for column in COLUMNS {
            fields.serialize_entry(column.name, &(column.figure)(self))?;
        }
        fields.serialize_entry("text", &self.text)?;
        fields.end()
    }
}

#[cfg(test)]
impl schemars::JsonSchema for LineRow {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "LineRow".into()
    }

    fn json_schema(_generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let figures = COLUMNS.iter().map(|column| {
            let schema = serde_json::json!({"type": ["integer", "null"], "description": column.help});
            (column.name.to_owned(), schema)
        });
        let integer = serde_json::json!({"type": "integer", "description": "Number of the line, from 1."});
        let text = serde_json::json!({"type": ["string", "null"], "description": "Source text; null if it is not at hand."});
        let line = [("line".to_owned(), integer)];
        let fields: serde_json::Map<_, _> =
            line.into_iter().chain(figures).chain([("text".to_owned(), text)]).collect();
        let names: Vec<&String> = fields.keys().collect();
        let schema = serde_json::json!({
            "type": "object",
            "description": "The figures of one source line.",
            "required": names,
            "properties": fields,
        });
        schema.try_into().unwrap()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_columns_share_a_name_an_option_or_a_title() {
        let texts: [fn(&LineColumn) -> &'static str; 3] = [|c| c.name, |c| c.option, |c| c.title];
        for text in texts {
            let distinct: BTreeSet<&str> = COLUMNS.iter().map(text).collect();
            assert_eq!(distinct.len(), COLUMNS.len());
        }
        for column in COLUMNS {
            assert!(column.help.ends_with('.') && !column.help.contains(['<', '&', '"']), "{}", column.help);
        }
    }

    #[test]
    fn json_has_every_column_in_order_between_line_and_text() {
        let row = LineRow { line: 7, increment: Some(i64::MIN), max: Some(u64::MAX), ..LineRow::default() };
        let json = serde_json::to_string(&row).unwrap();
        let names = COLUMNS.iter().map(|column| match column.name {
            "increment" => format!("\"increment\":{}", i64::MIN),
            "max" => format!("\"max\":{}", u64::MAX),
            name => format!("\"{name}\":null"),
        });
        let names: Vec<String> = names.collect();
        assert_eq!(json, format!("{{\"line\":7,{},\"text\":null}}", names.join(",")));
    }

    #[test]
    fn every_option_is_known_by_its_name() {
        let optional = COLUMNS.iter().filter(|column| !column.is_usual);
        for column in optional {
            let found = OptionalColumn::from_str(column.option, false).unwrap();
            assert_eq!(found.0.name, column.name);
        }
        assert!(OptionalColumn::from_str("increment", false).is_err(), "the text always has it");
        assert!(matches!(TableOrder::from_str("name", false), Ok(TableOrder::FunctionName)));
        assert!(matches!(TableOrder::from_str("live", false), Ok(TableOrder::Column(c)) if c.name == "live"));
    }

    #[test]
    fn the_guide_explains_every_column_in_a_table_row() {
        let guide = include_str!("../../../docs/LINES.md");
        let rows: Vec<&str> = guide.lines().filter(|line| line.starts_with('|')).collect();
        for column in COLUMNS {
            let option = format!("`{}`", column.option);
            let explains =
                |row: &&&str| row.contains(column.title) && (column.is_usual || row.contains(&option));
            assert!(rows.iter().find(explains).is_some(), "{} and {option}", column.title);
        }
    }
}
