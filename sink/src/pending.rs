//! Closed windows that are not yet done, and what of them goes into the next batch.

use std::collections::VecDeque;

use weir_schemas::{Closed, Emission, RowBlock, WindowStart, WindowWidth};

use crate::digest::{Content, of_block};
use crate::limits::Limits;
use crate::table::Windows;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// An emission, and what it looks like to the table.
#[derive(Debug)]
pub(crate) struct Held {
    emission: Emission,
    content: Content,
    bytes: u64,
}

/// A message of the pipeline, made ready for [`Pending::push`]: the work that may take long.
#[derive(Debug)]
pub(crate) enum Ready {
    Window(Held),
    Through(WindowStart),
}

impl Ready {
    pub(crate) fn of(closed: Closed) -> Ready {
        match closed {
            Closed::Through(window) => Ready::Through(window),
            Closed::Window(emission) => {
                let mut content = Content::default();
                let mut bytes = 0;
                for block in &emission.blocks {
                    content += of_block(block, emission.window);
                    bytes += block_bytes(block);
                }
                Ready::Window(Held { emission, content, bytes })
            }
        }
    }
}

impl Ready {
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Ready::Through(_) => 0,
            Ready::Window(held) => held.bytes,
        }
    }
}

fn block_bytes(block: &RowBlock) -> u64 {
    let strings = [&block.site, &block.dimension, &block.value];
    let text: usize = strings.iter().flat_map(|index| index.iter()).map(|&n| block.strings.get(n).len() + 1).sum();
    (text + block.len() * 16 + block.counts.len() * 8 + block.visitors.len() * 8) as u64
}

/// A batch to write: the windows `[from, to)`, of which the first `emissions` held ones have rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) from: WindowStart,
    pub(crate) to: WindowStart,
    pub(crate) wanted: Content,
    pub(crate) bytes: u64,
    emissions: usize,
}

impl Batch {
    pub(crate) fn windows(&self) -> Windows {
        Windows { from: self.from, to: self.to }
    }
}

/// The windows from where the run's pipeline began, less those that are done.
#[derive(Debug)]
pub(crate) struct Pending {
    width: WindowWidth,
    limits: Limits,
    by_month: bool,
    held: VecDeque<Held>,
    bytes: u64,
    /// Everything before it is done.
    from: WindowStart,
    /// How far the pipeline has closed: the windows `[from, closed)` are at hand. Below `from` where another owner was
    /// faster.
    closed: WindowStart,
}

impl Pending {
    /// `by_month`: whether the table keeps these rows by month, as it does imports, and not by day.
    pub(crate) fn new(width: WindowWidth, from: WindowStart, by_month: bool, limits: Limits) -> Pending {
        Pending { width, limits, by_month, held: VecDeque::new(), bytes: 0, from, closed: from }
    }

    /// What the windows at hand take.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Everything before it is done, as far as is known.
    pub(crate) fn from(&self) -> WindowStart {
        self.from
    }

    pub(crate) fn push(&mut self, ready: Ready) {
        match ready {
            Ready::Through(window) => self.closed = self.closed.max(window),
            Ready::Window(held) => {
                let window = held.emission.window;
                assert!(window >= self.closed, "windows come in ascending order, each once: {window:?} after {self:?}");
                self.closed = self.width.next(window);
                if window >= self.from {
                    self.bytes += held.bytes;
                    self.held.push_back(held);
                }
            }
        }
    }

    /// Forgets what lies before the checkpoint, which never goes back.
    pub(crate) fn done_through(&mut self, checkpoint: WindowStart) {
        assert!(checkpoint >= self.from, "complete through {checkpoint:?} after {:?}", self.from);
        while self.held.front().is_some_and(|held| held.emission.window < checkpoint) {
            let held = self.held.pop_front().expect("there is a front");
            self.bytes -= held.bytes;
        }
        self.from = checkpoint;
    }

    /// The largest batch at the checkpoint, up to `end`; `None` when there is no window.
    ///
    /// With rows it lies in one partition, so that a chunk is one part. Without, it may be of any length.
    pub(crate) fn batch(&self, end: Option<WindowStart>) -> Option<Batch> {
        let end = end.map_or(self.closed, |end| end.min(self.closed));
        if end <= self.from {
            return None;
        }
        let mut batch = Batch { from: self.from, to: end, wanted: Content::default(), bytes: 0, emissions: 0 };
        let mut partition = None;
        for held in self.held.iter().take_while(|held| held.emission.window < end) {
            let full = batch.emissions > 0
                && (batch.wanted.rows + held.content.rows > self.limits.batch_rows_max
                    || batch.bytes + held.bytes > self.limits.batch_bytes_max);
            let of = self.partition(held.emission.window);
            if full || partition.is_some_and(|partition| partition != of) {
                batch.to = held.emission.window;
                break;
            }
            partition = Some(of);
            batch.wanted += held.content;
            batch.bytes += held.bytes;
            batch.emissions += 1;
        }
        Some(batch)
    }

    pub(crate) fn blocks(&self, batch: &Batch) -> Vec<(WindowStart, &RowBlock)> {
        let held = self.held.iter().take(batch.emissions);
        held.flat_map(|held| held.emission.blocks.iter().map(|block| (held.emission.window, block))).collect()
    }

    /// Equal for windows whose rows share a partition of the table.
    fn partition(&self, window: WindowStart) -> i64 {
        if self.by_month { month(window) } else { window.day() }
    }
}

/// The month (UTC) of a window, counted from year 0: days since the Unix epoch to civil, after Howard Hinnant.
fn month(window: WindowStart) -> i64 {
    let days = window.ms().div_euclid(DAY_MS) + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months from March: the year's end is the leap day.
    (era * 400 + year_of_era) * 12 + (5 * day_of_year + 2) / 153
}

#[cfg(test)]
pub(crate) mod tests {
    use weir_schemas::Strings;

    use super::*;

    const HOUR_MS: i64 = 60 * 60 * 1000;

    pub(crate) fn width() -> WindowWidth {
        WindowWidth::new(HOUR_MS).expect("divides a day")
    }

    pub(crate) fn at(hour: i64) -> WindowStart {
        width().window_of(hour * HOUR_MS)
    }

    fn window(hour: i64) -> Ready {
        Ready::of(closed_window(hour))
    }

    /// One row.
    pub(crate) fn closed_window(hour: i64) -> Closed {
        let mut strings = Strings::default();
        let text = strings.push("a");
        let block = RowBlock {
            strings,
            site: vec![text],
            dimension: vec![text],
            value: vec![text],
            window_start_ms: vec![hour * HOUR_MS],
            counts: vec![1],
            visitors: vec![7],
            visitors_end: vec![1],
        };
        Closed::Window(Emission { window: at(hour), blocks: vec![block] })
    }

    fn pending(by_month: bool) -> Pending {
        Pending::new(width(), at(0), by_month, Limits::of_memory(768 << 20))
    }

    #[test]
    fn a_batch_holds_all_that_has_closed() {
        let mut pending = pending(false);
        assert_eq!(pending.batch(None), None);
        pending.push(window(2));
        pending.push(window(4));
        pending.push(Ready::Through(at(7)));
        let batch = pending.batch(None).expect("windows");
        assert_eq!((batch.from, batch.to, batch.wanted.rows), (at(0), at(7), 2));
        assert_eq!(pending.blocks(&batch).len(), 2);
        let batch = pending.batch(Some(at(4))).expect("windows");
        assert_eq!((batch.to, batch.wanted.rows), (at(4), 1));
    }

    #[test]
    fn a_batch_ends_before_the_next_days_rows() {
        let mut pending = pending(false);
        pending.push(window(23));
        pending.push(window(25));
        let batch = pending.batch(None).expect("windows");
        assert_eq!((batch.to, batch.wanted.rows), (at(25), 1));
    }

    #[test]
    fn an_imports_batch_ends_before_the_next_months_rows() {
        let mut pending = pending(true);
        pending.push(window(30 * 24));
        pending.push(window(30 * 24 + 23));
        pending.push(window(31 * 24));
        let batch = pending.batch(None).expect("windows");
        assert_eq!((batch.to, batch.wanted.rows), (at(31 * 24), 2));
    }

    #[test]
    fn months_are_those_of_the_calendar() {
        let day = |days: i64| width().window_of(days * DAY_MS);
        // 2024-02-29, 2024-03-01; 1999-12-31, 2000-01-01; 1970-01-31, 1970-02-01
        for (last, first) in [(19_782, 19_783), (10_956, 10_957), (30, 31)] {
            assert_eq!(month(day(last)), month(day(last - 27)), "{last}");
            assert_eq!(month(day(last)) + 1, month(day(first)), "{last}");
        }
    }

    #[test]
    fn what_is_done_is_forgotten() {
        let mut pending = pending(false);
        pending.push(window(2));
        pending.push(window(4));
        pending.done_through(at(3));
        assert_eq!(pending.batch(None).map(|batch| (batch.from, batch.wanted.rows)), Some((at(3), 1)));
        pending.done_through(at(9));
        assert_eq!(pending.batch(None), None);
        assert_eq!(pending.bytes, 0);
    }

    #[test]
    fn windows_that_another_owner_has_done_meanwhile_are_left_out_when_they_come() {
        let mut pending = pending(false);
        pending.push(window(2));
        pending.done_through(at(6));
        pending.push(window(4));
        pending.push(Ready::Through(at(5)));
        assert_eq!((pending.batch(None), pending.bytes), (None, 0));
        pending.push(window(5));
        pending.push(window(6));
        assert_eq!(pending.batch(None).map(|batch| (batch.from, batch.to, batch.wanted.rows)), Some((at(6), at(7), 1)));
    }
}
