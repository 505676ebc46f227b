use std::{
    fmt::Display,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use tokio::time::Instant;

/// Where batches are taken this often, one that is not is no outage: it was asked too much at once, or of one partition.
const TAKEN_WITHIN: Duration = Duration::from_secs(5);

/// Senders come again within 30 s (`Retry-After`). When nobody has for so long, nothing is known of now.
const REFUSED_WITHIN: Duration = Duration::from_secs(5 * 60);

/// What became of the last batches: whether events are taken.
#[derive(Debug, Default)]
pub(crate) struct Answers(Mutex<Last>);

#[derive(Debug, Default)]
struct Last {
    taken: Option<Instant>,
    /// The last one that was not, since then, and why.
    refused: Option<(Instant, String)>,
}

impl Answers {
    /// A batch is durable.
    pub(crate) fn taken(&self, now: Instant) {
        *self.lock() = Last { taken: Some(now), refused: None };
    }

    /// A batch was not taken; who sent it was told so.
    pub(crate) fn refused(&self, why: &impl Display, now: Instant) {
        self.lock().refused = Some((now, why.to_string()));
    }

    /// Why no events are taken: some were refused, and none was taken since and for a while. `None`: they are, or nobody has
    /// sent any for long.
    pub(crate) fn failing(&self, now: Instant) -> Option<String> {
        let Last { taken, refused } = &*self.lock();
        let (refused, why) = refused.as_ref()?;
        let is_old = now.duration_since(*refused) > REFUSED_WITHIN;
        let is_taken = taken.is_some_and(|taken| now.duration_since(taken) < TAKEN_WITHIN);
        (!is_old && !is_taken).then(|| why.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Last> {
        self.0.lock().expect("no holder panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_not_taken_from_the_first_refusal_on_to_the_next_that_is_taken_or_until_nobody_has_come_for_long() {
        let (answers, begin) = (Answers::default(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        let failing = |seconds| answers.failing(at(seconds));
        assert_eq!(failing(0), None, "nobody has sent anything");
        answers.refused(&"full", at(1));
        assert_eq!(failing(1).as_deref(), Some("full"));
        answers.taken(at(10));
        assert_eq!(failing(10), None);
        answers.refused(&"busy", at(12));
        assert_eq!((failing(12), failing(14)), (None, None), "one of many");
        assert_eq!(failing(15).as_deref(), Some("busy"), "and none since");
        answers.taken(at(16));
        assert_eq!(failing(60), None);
        answers.refused(&"full", at(100));
        assert_eq!(failing(400).as_deref(), Some("full"));
        assert_eq!(failing(401), None);
    }
}
