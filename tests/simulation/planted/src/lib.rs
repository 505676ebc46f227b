//! The pipeline's sources with bugs planted into them: nothing of this is in the product.
//!
//! When this package is built, `build.rs` copies `pipeline/src` and puts a handful of wrong lines beside the right ones; each
//! does what is wrong only while its [`Plant`] is planted. A right line that is not there any more is named by
//! [`MISFITS`], and fails the test of that bug.

#![allow(clippy::all, rustdoc::all, reason = "the sources are linted where they are")]

include!(concat!(env!("OUT_DIR"), "/pipeline/lib.rs"));
include!(concat!(env!("OUT_DIR"), "/pipeline/misfits.rs"));

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU8, Ordering},
};

/// What can be planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Plant {
    /// An event is late if its window has closed by the merged watermark.
    MergedWatermark = 1,
    /// A record's own stamp is its arrival time.
    NoRunningMaximum,
    /// A copy is beaten only by one that itself counted.
    CopyMustCount,
    /// Strings are ordered by the numbers they were interned under.
    OrderedByInterned,
}

static PLANTED: AtomicU8 = AtomicU8::new(0);
static ONE: Mutex<()> = Mutex::new(());

/// Planted until it is dropped. One at a time, in the whole process: whoever comes second waits.
#[must_use = "it is taken out when it is dropped"]
pub struct Planted(#[allow(dead_code, reason = "held, not read")] MutexGuard<'static, ()>);

pub fn plant(plant: Plant) -> Planted {
    // A test that failed while it held it has left nothing half-done.
    let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    PLANTED.store(plant as u8, Ordering::SeqCst);
    Planted(one)
}

impl Drop for Planted {
    fn drop(&mut self) {
        PLANTED.store(0, Ordering::SeqCst);
    }
}

fn is(plant: Plant) -> bool {
    PLANTED.load(Ordering::Relaxed) == plant as u8
}

/// The times that an event would have if a reader asked its watermark, and not the record, what is late.
fn times(shared: &run::Shared, times: windows::Times) -> windows::Times {
    if !is(Plant::MergedWatermark) {
        return times;
    }
    let width = shared.spec.version.width;
    let watermark_ms = shared.status.snapshot().watermark_ms.unwrap_or(times.time_ms);
    let closes_in = width.window_of(times.time_ms).max(width.window_of(watermark_ms));
    windows::Times { closes_in, ..times }
}
