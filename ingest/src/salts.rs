use std::{
    collections::BTreeMap,
    sync::{Arc, RwLock},
    time::Duration,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use weir_log::{Clock, Log, LogError, TopicKind};
use weir_schemas::control::SALTS_TOPIC;

use crate::{Salt, telemetry};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// How long before midnight (UTC) the next day's salt is agreed on, so that no request waits for it.
///
/// The topic keeps a record 48 h: one written an hour ahead is there 23 h after its day has ended.
const AHEAD_MS: i64 = 60 * 60 * 1000;

/// The salts of the days, as all collectors agreed on them in the log: for each day the first record counts.
///
/// Two collectors, and a restart, see one visitor as one. A day's salt is forgotten a day after the day's end, here
/// and, by the topic's retention of 48 h, in the log; from then on nobody can say whose hash was whose.
pub struct SaltBook {
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    known: RwLock<BTreeMap<i64, Salt>>,
    /// Where to read on; held while a salt is agreed on.
    next: Mutex<i64>,
}

/// A record of the topic.
#[derive(Serialize, Deserialize)]
struct Agreed {
    /// Days since the Unix epoch, UTC.
    day: i64,
    salt: [u8; 16],
}

impl SaltBook {
    /// Opens the topic, making it if there is none, and knows today's salt when it returns.
    pub async fn open(log: Arc<dyn Log>, clock: Arc<dyn Clock>) -> Result<Self, LogError> {
        let topic = Arc::clone(&log);
        blocking(move || topic.create_topic(SALTS_TOPIC, &TopicKind::Salts)).await?;
        let book = Self { log, clock, known: RwLock::default(), next: Mutex::new(0) };
        book.at(book.clock.now_ms()).await?;
        Ok(book)
    }

    /// The salt of the day of `at_ms`; asks the log only if that day has none yet.
    pub async fn at(&self, at_ms: i64) -> Result<Salt, LogError> {
        let day = at_ms.div_euclid(DAY_MS);
        match self.known(day) {
            Some(salt) => Ok(salt),
            None => self.agree(day).await,
        }
    }

    /// Agrees on tomorrow's salt when tomorrow is near, and forgets old ones. To be called every few minutes.
    pub async fn tend(&self) -> Result<(), LogError> {
        let now_ms = self.clock.now_ms();
        let yesterday = now_ms.div_euclid(DAY_MS) - 1;
        self.known.write().expect("no holder panics").retain(|&day, _| day >= yesterday);
        self.at(now_ms + AHEAD_MS).await.map(drop)
    }

    /// Days whose salts are in memory.
    pub fn days(&self) -> Vec<i64> {
        self.known.read().expect("no holder panics").keys().copied().collect()
    }

    fn known(&self, day: i64) -> Option<Salt> {
        self.known.read().expect("no holder panics").get(&day).copied()
    }

    /// Reads what others wrote; if the day has no salt yet writes one, and reads on: the first counts, whosever it is.
    async fn agree(&self, day: i64) -> Result<Salt, LogError> {
        let mut next = self.next.lock().await;
        for written in [false, true] {
            if written {
                let record = Agreed { day, salt: *Salt::random().as_bytes() };
                let record = serde_json::to_vec(&record).expect("a salt is JSON");
                self.log.append(SALTS_TOPIC, 0, Bytes::from(record), None).await?;
            }
            let log = Arc::clone(&self.log);
            let from = *next;
            let (agreed, end) = blocking(move || read(&*log, from)).await?;
            *next = end;
            let today = self.clock.now_ms().div_euclid(DAY_MS);
            let mut known = self.known.write().expect("no holder panics");
            for Agreed { day: of, salt } in agreed {
                if of >= (today - 1).min(day) {
                    known.entry(of).or_insert(Salt::from_bytes(salt));
                }
            }
            if let Some(&salt) = known.get(&day) {
                telemetry::SaltAgreed { day, written }.emit();
                return Ok(salt);
            }
        }
        Err(LogError::Unavailable(format!(
            "topic {SALTS_TOPIC} did not give back the salt of day {day} that was written to it"
        )))
    }
}

/// All salts from `from`, or from the log's start if that is later, to the end, and the end.
fn read(log: &dyn Log, from: i64) -> Result<(Vec<Agreed>, i64), LogError> {
    let bounds = log.bounds(SALTS_TOPIC, 0)?;
    let mut next = from.max(bounds.start);
    let mut agreed = Vec::new();
    if next >= bounds.end {
        return Ok((agreed, bounds.end));
    }
    let mut reader = log.reader(SALTS_TOPIC)?;
    reader.assign(0, next)?;
    let mut silent = 0;
    while next < bounds.end {
        let given = reader.poll(1_000, Duration::from_millis(500), &mut |record| {
            next = record.offset + 1;
            match serde_json::from_slice(record.payload) {
                Ok(salt) => agreed.push(salt),
                Err(error) => telemetry::SaltUnreadable { offset: record.offset, error: &error }.emit(),
            }
        })?;
        silent = if given == 0 { silent + 1 } else { 0 };
        if silent == 20 {
            return Err(LogError::Unavailable(format!(
                "{SALTS_TOPIC} ends at {} but gives nothing from {next}",
                bounds.end
            )));
        }
    }
    Ok((agreed, next))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(LogError::Unavailable(error.to_string())))
}
