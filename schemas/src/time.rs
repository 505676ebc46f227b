use serde::{Deserialize, Serialize};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// An instant, ms since the Unix epoch, as every part of weir says it to a person: `2026-03-01 14:00:00 UTC`.
pub fn instant(at_ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(at_ms) {
        Ok(at) => at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        Err(_) => format!("{at_ms} ms"),
    }
}

/// Width of a tumbling window, ms. Invariant: positive and divides a day, so windows are aligned to midnight UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WindowWidth(i64);

impl WindowWidth {
    /// `None` unless `width_ms` is a whole number of seconds that divides a day.
    pub fn new(width_ms: i64) -> Option<Self> {
        (width_ms > 0 && width_ms % 1000 == 0 && DAY_MS % width_ms == 0).then_some(Self(width_ms))
    }

    pub fn ms(self) -> i64 {
        self.0
    }

    /// The smallest width of which both are parts: its windows begin where windows of both do.
    pub fn common(self, other: WindowWidth) -> WindowWidth {
        let (mut a, mut b) = (self.0, other.0);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        // It divides a day, as both do.
        WindowWidth(self.0 / a * other.0)
    }

    /// The window that holds the instant `at_ms`. Law: `start ≤ at_ms < start + width`.
    pub fn window_of(self, at_ms: i64) -> WindowStart {
        WindowStart(at_ms.div_euclid(self.0) * self.0)
    }

    /// The window after `window`.
    pub fn next(self, window: WindowStart) -> WindowStart {
        WindowStart(window.0 + self.0)
    }

    /// The place of `window` among all windows, 0 at the Unix epoch; monotonic.
    pub fn index_of(self, window: WindowStart) -> i64 {
        window.0.div_euclid(self.0)
    }

    /// The window at `index`: inverse of [`index_of`](Self::index_of).
    pub fn at_index(self, index: i64) -> WindowStart {
        WindowStart(index * self.0)
    }
}

/// First instant of a tumbling window, ms since the Unix epoch, UTC. Invariant: a multiple of its width.
///
/// Only [`WindowWidth`] makes one, so an unaligned window cannot be written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WindowStart(i64);

impl WindowStart {
    pub fn ms(self) -> i64 {
        self.0
    }

    /// The day (UTC) the window lies in, days since the Unix epoch.
    pub fn day(self) -> i64 {
        self.0.div_euclid(DAY_MS)
    }
}
