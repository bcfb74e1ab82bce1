//! A page with a limit of its size. In: blocks of Markdown, the most important first. Out: those
//! that fit, cut at whole rows, with the number of rows that were left out.

use crate::units::{count, more};

/// The most that a page may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkdownLimit {
    /// This many characters, as of a comment.
    Characters(usize),
    /// This many bytes, as of a job summary.
    Bytes(usize),
}

impl MarkdownLimit {
    /// A comment on GitHub or GitLab.
    pub const COMMENT: MarkdownLimit = MarkdownLimit::Characters(65_536);
    /// The job summary of a step on GitHub. An upload of more than 1 MiB fails.
    pub const JOB_SUMMARY: MarkdownLimit = MarkdownLimit::Bytes(1_000_000);

    fn most(self) -> usize {
        match self {
            MarkdownLimit::Characters(most) | MarkdownLimit::Bytes(most) => most,
        }
    }

    fn size_of(self, text: &str) -> usize {
        match self {
            MarkdownLimit::Characters(_) => text.chars().count(),
            MarkdownLimit::Bytes(_) => text.len(),
        }
    }

    fn reason(self) -> String {
        match self {
            MarkdownLimit::Characters(most) => {
                format!("a comment may have {} characters", count(most as u64))
            }
            MarkdownLimit::Bytes(most) => format!("the page may have {} bytes", count(most as u64)),
        }
    }
}

/// A page that never becomes larger than its limit.
pub(super) struct LimitedPage {
    limit: MarkdownLimit,
    size: usize,
    text: String,
}

impl LimitedPage {
    pub(super) fn new(limit: MarkdownLimit) -> LimitedPage {
        LimitedPage { limit, size: 0, text: String::new() }
    }

    /// Adds a block if it fits as a whole. Returns whether it does.
    pub(super) fn push(&mut self, block: &str) -> bool {
        self.push_if_room(block, 0)
    }

    /// Adds a section: its opening, as many rows as fit, how many did not, and its end. Rows are
    /// left out from the first one on that does not fit. Adds nothing if not even the opening fits.
    pub(super) fn push_section(
        &mut self,
        open: &str,
        rows: impl ExactSizeIterator<Item = String>,
        row_name: &str,
        close: &str,
    ) {
        let all = rows.len();
        let cut_at = |left_out: usize| {
            format!("\n{} left out: {}.\n", more(left_out as u64, row_name), self.limit.reason())
        };
        // The number of rows left out is at most that of all, whose text is the longest.
        let longest_cut = cut_at(all.max(2));
        let reserved = self.limit.size_of(close) + self.limit.size_of(&longest_cut);
        if !self.push_if_room(open, reserved) {
            return;
        }
        let mut added = 0;
        for row in rows {
            if !self.push_if_room(&row, reserved) {
                break;
            }
            added += 1;
        }
        if added < all {
            let cut =
                format!("\n{} left out: {}.\n", more((all - added) as u64, row_name), self.limit.reason());
            self.push_if_room(&cut, 0);
        }
        self.push_if_room(close, 0);
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }

    /// Adds a text if `reserved` is still free after it.
    fn push_if_room(&mut self, text: &str, reserved: usize) -> bool {
        let size = self.size + self.limit.size_of(text);
        let fits = size + reserved <= self.limit.most();
        if fits {
            self.text.push_str(text);
            self.size = size;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_cut_whole_and_counted() {
        let rows = || (0..100).map(|row| format!("é{row:02}\n"));
        for most in 0..600 {
            for limit in [MarkdownLimit::Characters(most), MarkdownLimit::Bytes(most)] {
                let mut page = LimitedPage::new(limit);
                page.push_section("open\n", rows(), "row", "close\n");
                let text = page.into_text();
                assert!(limit.size_of(&text) <= most, "{limit:?}");
                if text.is_empty() {
                    // The opening of 5, the end of 6 and at most 70 for the sentence.
                    assert!(most < 81, "{limit:?}");
                    continue;
                }
                assert!(text.starts_with("open\n") && text.ends_with("close\n"), "{text}");
                let shown = text.lines().filter(|line| line.starts_with('é')).count();
                let left_out = format!("\n{}", more(100 - shown as u64, "row"));
                assert_eq!(text.contains(&left_out), shown < 100, "{text}");
            }
        }
    }
}
