//! The pipeline's sources with bugs planted into them: nothing of this is in the product.
//!
//! When this package is built, `build.rs` copies `pipeline/src` and puts a handful of wrong lines beside the right ones; each
//! does what is wrong only while its [`Plant`] is planted. A right line that is not there any more is named by
//! [`MISFITS`], and fails the test of that bug.

#![allow(clippy::all, rustdoc::all, reason = "the sources are linted where they are")]

include!(concat!(env!("OUT_DIR"), "/pipeline/lib.rs"));
include!(concat!(env!("OUT_DIR"), "/pipeline/misfits.rs"));

use std::sync::{
    PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
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
static ONE: RwLock<()> = RwLock::new(());

/// Holds until it is dropped, in the whole process: one that is planted, alone, or none, with others that need none.
#[must_use = "it is over when it is dropped"]
#[allow(dead_code, reason = "held, not read")]
pub enum Planted {
    One(RwLockWriteGuard<'static, ()>),
    None(RwLockReadGuard<'static, ()>),
}

/// Waits for those that need something else planted.
pub fn plant(plant: Option<Plant>) -> Planted {
    // A test that failed while it held it has left nothing half-done.
    let Some(plant) = plant else { return Planted::None(ONE.read().unwrap_or_else(PoisonError::into_inner)) };
    let one = ONE.write().unwrap_or_else(PoisonError::into_inner);
    PLANTED.store(plant as u8, Ordering::SeqCst);
    Planted::One(one)
}

impl Drop for Planted {
    fn drop(&mut self) {
        if let Planted::One(_) = self {
            PLANTED.store(0, Ordering::SeqCst);
        }
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
