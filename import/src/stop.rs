//! Ctrl-C against the thread that works: exactly one of them decides what state is left.

use std::sync::atomic::{AtomicU8, Ordering};

/// Where an import is, and whether it is to stop.
#[derive(Debug, Default)]
pub(crate) struct Stop(AtomicU8);

const READING: u8 = 0;
const WRITING: u8 = 1;
const STOPPED_READING: u8 = 2;
const STOPPED_WRITING: u8 = 3;

impl Stop {
    /// Asks to stop. `true`: nothing was begun, and nothing will be; else the writer takes back what it began.
    pub(crate) fn stop(&self) -> bool {
        let stopped = |state| Some(if state == READING { STOPPED_READING } else { STOPPED_WRITING });
        let update = |state| if state <= WRITING { stopped(state) } else { Some(state) };
        let before = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, update).unwrap_or(READING);
        matches!(before, READING | STOPPED_READING)
    }

    /// From here on something is left behind; `false` if it is to stop instead.
    pub(crate) fn begin_writing(&self) -> bool {
        self.0.compare_exchange(READING, WRITING, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    pub(crate) fn stopped(&self) -> bool {
        self.0.load(Ordering::Acquire) >= STOPPED_READING
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stops_before_the_first_write_prevents_it() {
        let stop = Stop::default();
        assert!(stop.stop());
        assert!(stop.stop());
        assert!(!stop.begin_writing());
        assert!(stop.stopped());
    }

    #[test]
    fn who_stops_later_waits_for_the_writer() {
        let stop = Stop::default();
        assert!(stop.begin_writing());
        assert!(!stop.stopped());
        assert!(!stop.stop());
        assert!(stop.stopped());
        assert!(!stop.stop());
    }
}
