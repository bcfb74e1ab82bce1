//! A progress bar on stderr, if that is a terminal and the work takes longer than a second.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;

/// Shows how far a long work has come; may be told from any thread.
#[derive(Debug)]
pub struct Progress {
    started: Instant,
    what: &'static str,
    bytes: bool,
    bar: Mutex<Option<ProgressBar>>,
}

const PATIENCE: Duration = Duration::from_secs(1);

impl Progress {
    /// Progress in bytes.
    pub fn of_bytes(what: &'static str) -> Progress {
        Progress::new(what, true)
    }

    /// Progress in things.
    pub fn of_items(what: &'static str) -> Progress {
        Progress::new(what, false)
    }

    /// `done` of `total` are done.
    pub fn tell(&self, done: u64, total: u64) {
        if self.started.elapsed() < PATIENCE || !std::io::stderr().is_terminal() {
            return;
        }
        let mut bar = self.bar.lock();
        let bar = bar.get_or_insert_with(|| self.draw(total));
        bar.set_length(total);
        bar.set_position(done);
    }

    fn new(what: &'static str, bytes: bool) -> Progress {
        Progress { started: Instant::now(), what, bytes, bar: Mutex::new(None) }
    }

    fn draw(&self, total: u64) -> ProgressBar {
        let template = if self.bytes {
            "{msg} {wide_bar} {bytes}/{total_bytes} {eta}"
        } else {
            "{msg} {wide_bar} {human_pos}/{human_len} {eta}"
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr())
            .with_style(style)
            .with_message(self.what)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.lock().take() {
            bar.finish_and_clear();
        }
    }
}
