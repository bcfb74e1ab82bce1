//! The longest calls of annotated functions, in bounded memory. In: calls that have ended, which
//! [`lines`](super::lines) adds. Out: the longest of them, in the order in which they began.

use std::cmp::Reverse;

use crate::profile::ActivationSpan;

/// The longest calls so far. When there are too many, the shorter half is dropped. From then on, a
/// call that is shorter than all calls of the longer half is dropped at once.
#[derive(Clone, Debug, Default)]
pub(in crate::load) struct LongestSpans {
    kept: Vec<ActivationSpan>,
    /// A call that is shorter than this is dropped.
    shortest_us: u64,
    dropped: u64,
}

impl LongestSpans {
    /// Adds a call that has ended.
    pub(in crate::load) fn add(&mut self, span: ActivationSpan) {
        if length(&span) < self.shortest_us {
            self.dropped += 1;
            return;
        }
        self.kept.push(span);
        if self.kept.len() == MAX_SPANS {
            self.kept.sort_unstable_by_key(|span| (Reverse(length(span)), span.start_us, span.thread));
            self.dropped += (MAX_SPANS - MAX_SPANS / 2) as u64;
            self.kept.truncate(MAX_SPANS / 2);
            self.shortest_us = self.kept.last().map_or(0, length);
        }
    }

    /// Returns the calls in the order in which they began, and the number of dropped calls.
    pub(in crate::load) fn finish(mut self) -> (Vec<ActivationSpan>, u64) {
        self.kept
            .sort_unstable_by_key(|span| (span.start_us, Reverse(span.end_us), span.thread, span.function));
        (self.kept, self.dropped)
    }
}

fn length(span: &ActivationSpan) -> u64 {
    span.end_us.saturating_sub(span.start_us)
}

const MAX_SPANS: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_calls_stay() {
        let mut spans = LongestSpans::default();
        let count = MAX_SPANS as u64 * 2;
        for at in 0..count {
            let long = u64::from(at % 1000 == 0) * 500;
            spans.add(ActivationSpan {
                function: 0,
                thread: 1,
                start_us: at * 10,
                end_us: at * 10 + 1 + long,
                is_resumed: false,
            });
        }
        let (kept, dropped) = spans.finish();
        assert_eq!(kept.len() as u64 + dropped, count);
        assert!(kept.len() < MAX_SPANS && kept.is_sorted_by_key(|span| span.start_us));
        let long = kept.iter().filter(|span| length(span) == 501).count();
        assert_eq!(long as u64, count.div_ceil(1000));
    }
}
