//! What a person at a terminal sees while an import runs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar with rate and time left, on stderr; where that is no terminal, nothing.
pub(crate) struct Progress {
    bar: ProgressBar,
    /// Bytes that were read, as they lie on disk.
    pub(crate) taken: Arc<AtomicU64>,
    begun: Instant,
}

const READING: &str = "reading {wide_bar} {bytes}/{total_bytes} · {msg} · {eta} left";
const READING_STDIN: &str = "reading {spinner} {bytes} · {msg} · {elapsed}";
const WAITING: &str = "{spinner} {msg} · {elapsed}";
const WRITING: &str = "writing {wide_bar} {human_pos}/{human_len} events · {msg} · {eta} left";

impl Progress {
    /// `bytes`: of all inputs, if known.
    pub(crate) fn reading(bytes: Option<u64>) -> Self {
        let bar = match bytes {
            Some(bytes) => ProgressBar::new(bytes).with_style(style(READING)),
            None => ProgressBar::no_length().with_style(style(READING_STDIN)),
        };
        Self::on(bar)
    }

    pub(crate) fn writing(events: u64) -> Self {
        Self::on(ProgressBar::new(events).with_style(style(WRITING)))
    }

    /// `why` says for what.
    pub(crate) fn waiting(why: String) -> Self {
        let progress = Self::on(ProgressBar::no_length().with_style(style(WAITING)));
        progress.bar.set_message(why);
        progress.bar.enable_steady_tick(Duration::from_millis(100));
        progress
    }

    fn on(bar: ProgressBar) -> Self {
        // Hidden by itself where stderr is no terminal.
        bar.set_draw_target(ProgressDrawTarget::stderr());
        Self { bar, taken: Arc::default(), begun: Instant::now() }
    }

    pub(crate) fn lines(&self, lines: u64) {
        if !self.bar.is_hidden() {
            self.bar.set_position(self.taken.load(Ordering::Relaxed));
            self.bar.set_message(format!("{} lines/s", self.rate(lines)));
        }
    }

    pub(crate) fn events(&self, events: u64) {
        if !self.bar.is_hidden() {
            self.bar.set_position(events);
            self.bar.set_message(format!("{} events/s", self.rate(events)));
        }
    }

    /// So many a second since it began.
    fn rate(&self, count: u64) -> HumanCount {
        HumanCount((count as f64 / self.begun.elapsed().as_secs_f64().max(1e-3)) as u64)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("a template of ours")
}
