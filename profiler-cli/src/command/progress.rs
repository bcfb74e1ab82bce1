//! A progress bar on stderr, shown only on a terminal and only for work of more than a second.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;

/// A progress bar that appears when the work takes long, and is removed when it is dropped. Any
/// thread may update it.
#[derive(Debug)]
pub struct ProgressLine {
    started: Instant,
    label: &'static str,
    counts_bytes: bool,
    bar: Mutex<Option<ProgressBar>>,
}

/// How long the work may take before the bar appears.
const PATIENCE: Duration = Duration::from_secs(1);

impl ProgressLine {
    /// Returns a bar that shows amounts of bytes.
    pub fn of_bytes(label: &'static str) -> ProgressLine {
        ProgressLine::new(label, true)
    }

    /// Returns a bar that shows counts.
    pub fn of_items(label: &'static str) -> ProgressLine {
        ProgressLine::new(label, false)
    }

    /// Shows that `done` of `total` are done.
    pub fn update(&self, done: u64, total: u64) {
        if self.started.elapsed() < PATIENCE || !std::io::stderr().is_terminal() {
            return;
        }
        let mut bar = self.bar.lock();
        let bar = bar.get_or_insert_with(|| self.make_bar(total));
        bar.set_length(total);
        bar.set_position(done);
    }

    fn new(label: &'static str, counts_bytes: bool) -> ProgressLine {
        ProgressLine { started: Instant::now(), label, counts_bytes, bar: Mutex::new(None) }
    }

    fn make_bar(&self, total: u64) -> ProgressBar {
        let template = if self.counts_bytes {
            "{msg} {wide_bar} {bytes}/{total_bytes} {eta}"
        } else {
            "{msg} {wide_bar} {human_pos}/{human_len} {eta}"
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr())
            .with_style(style)
            .with_message(self.label)
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.lock().take() {
            bar.finish_and_clear();
        }
    }
}
