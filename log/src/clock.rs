use std::{
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

/// Where a part gets the time from, so that tests and the simulation can give it.
pub trait Clock: Send + Sync + 'static {
    /// ms since the Unix epoch; may step back.
    fn now_ms(&self) -> i64;

    /// Since a beginning that stays the same; never steps back.
    fn elapsed(&self) -> Duration {
        static BEGIN: OnceLock<Instant> = OnceLock::new();
        BEGIN.get_or_init(Instant::now).elapsed()
    }

    /// Blocks the thread until so much has elapsed.
    fn sleep(&self, duration: Duration) {
        thread::sleep(duration);
    }
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        #[allow(clippy::disallowed_methods, reason = "the one place where the machine's clock is read")]
        let now = std::time::SystemTime::now();
        now.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
    }
}
