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
    let rank = |totals: &FunctionTotals<'_>| {
        (!totals.is_own, Reverse(totals.allocated_as_site), Reverse(totals.allocated()))
    };
    rank(a).cmp(&rank(b)).then(a_key.cmp(b_key))
}

/// Sorts tables by the column or name that the user chose. The user's own functions stay before
/// those of packages. Tables with equal keys keep their order.
pub(super) fn sort_tables(tables: &mut [FunctionLines], order: TableOrder) {
    match order {
        TableOrder::Column(column) => {
            tables.sort_by_cached_key(|function| (!function.own, Reverse(column.sum(&function.lines))));
        }
        TableOrder::FunctionName => tables.sort_by(|a, b| (!a.own, &a.function).cmp(&(!b.own, &b.function))),
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
