//! The order of line tables and of call sites. Equal ranks are decided by names and lines, so that
//! the same profile always gives the same order.

use std::cmp::{Ordering, Reverse};

use crate::analyze::column::TableOrder;
use crate::analyze::lines::totals::{FunctionKey, FunctionTotals};
use crate::analyze::lines::{CallerRow, FunctionLines};

/// Compares two functions that were found on stacks. The user's functions come before those of
/// packages. Within each group, functions are ordered by the bytes that they allocate themselves,
/// without their callees; the largest come first.
pub(super) fn compare_functions(
    (a_key, a): &(FunctionKey<'_>, FunctionTotals<'_>),
    (b_key, b): &(FunctionKey<'_>, FunctionTotals<'_>),
) -> Ordering {
    let rank = |key: &FunctionKey<'_>, totals: &FunctionTotals<'_>| {
        (is_from_package(key.file), Reverse(totals.allocated_as_site), Reverse(totals.allocated()))
    };
    rank(a_key, a).cmp(&rank(b_key, b)).then(a_key.cmp(b_key))
}

/// Whether a file belongs to a package from a registry or from cargo's git cache, or came with the
/// compiler. A function without file counts as one of a package.
pub(in crate::analyze) fn is_from_package(file: Option<&str>) -> bool {
    file.is_none_or(|file| {
        file.contains("/registry/src/") || file.contains("/git/checkouts/") || file.starts_with("/rustc/")
    })
}

/// Sorts tables by the column or name that the user chose. Tables with equal keys keep their order.
pub(super) fn sort_tables(tables: &mut [FunctionLines], order: TableOrder) {
    match order {
        TableOrder::Column(column) => {
            tables.sort_by_cached_key(|function| Reverse(column.sum(&function.lines)));
        }
        TableOrder::FunctionName => tables.sort_by(|a, b| a.function.cmp(&b.function)),
    }
}

/// Sorts call sites by the bytes allocated, then by the bytes freed; the largest come first.
pub(super) fn sort_callers(callers: &mut [CallerRow]) {
    callers.sort_by(|a, b| {
        let rank = |caller: &CallerRow| (Reverse(caller.allocated), Reverse(caller.freed));
        let line_and_events = |caller: &CallerRow| (caller.line, caller.events);
        rank(a)
            .cmp(&rank(b))
            .then_with(|| (&a.function, &a.file).cmp(&(&b.function, &b.file)))
            .then(line_and_events(a).cmp(&line_and_events(b)))
    });
}
