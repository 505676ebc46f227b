use std::{
    collections::BTreeMap,
    sync::{Arc, RwLock},
    time::Duration,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::{sync::Mutex, time::timeout};
use weir_log::{Clock, Log, LogError, TopicKind};
use weir_schemas::control::SALTS_TOPIC;

use crate::{Salt, Spool, spool::RememberedSalt, telemetry};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// How long before midnight (UTC) the next day's salt is agreed on, so that no request waits for it.
///
/// The topic keeps a record 48 h: one written an hour ahead is there 23 h after its day has ended.
const AHEAD_MS: i64 = 60 * 60 * 1000;

/// How long a start waits for today's salt from a log that is there: its topic may have to be made.
const OPEN_PATIENCE: Duration = Duration::from_secs(10);

/// The salts of the days, as all collectors agreed on them in the log: for each day the first record counts.
///
/// Two collectors, and a restart, see one visitor as one. A day's salt is forgotten a day after the day's end, here
/// and, by the topic's retention of 48 h, in the log; from then on nobody can say whose hash was whose. A log or a
/// collector that is not running deletes nothing: then it is gone with its next start.
///
/// A book that remembers (one beside a spool) never keeps a request waiting for a log that is away: a day without a
/// salt gets one of its own, which is offered as the day's when the log is back. If another collector's was first, that
/// one counts from then on, and who came to this collector before and after is two visitors of that day.
pub struct SaltBook {
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    known: RwLock<BTreeMap<i64, Known>>,
    spool: Option<Spool>,
    /// Held while a salt is agreed on.
    reading: Mutex<Reading>,
}

#[derive(Clone, Copy)]
struct Known {
    salt: Salt,
    /// Whether it is the one that counts in the log.
    agreed: bool,
}

struct Reading {
    /// Where to read on.
    next: i64,
    /// Whether the topic is known to be there.
    opened: bool,
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
        let book = Self::new(log, clock, None);
        book.at(book.clock.now_ms()).await?;
        Ok(book)
    }

    /// Knows today's salt when it returns: as the spool remembers it, as the log has it, or one of its own.
    pub(crate) async fn open_remembering(log: Arc<dyn Log>, clock: Arc<dyn Clock>, spool: Spool) -> Self {
        let book = Self::new(log, clock, Some(spool.clone()));
        let today = book.clock.now_ms().div_euclid(DAY_MS);
        let salts = spool.memory().salts().into_iter();
        let remembered = salts
            .filter(|remembered| remembered.day >= today - 1)
            .map(|RememberedSalt { day, salt, agreed }| (day, Known { salt: Salt::from_bytes(salt), agreed }));
        *book.known.write().expect("no holder panics") = remembered.collect();
        // Those of a collector that stood still for days go from its disk.
        book.remember();
        if book.known(today).is_none() && (spool.is_held() || book.agree_within(today, OPEN_PATIENCE).await.is_err()) {
            book.own(today);
        }
        book
    }

    fn new(log: Arc<dyn Log>, clock: Arc<dyn Clock>, spool: Option<Spool>) -> Self {
        let reading = Mutex::new(Reading { next: 0, opened: false });
        Self { log, clock, known: RwLock::default(), spool, reading }
    }

    /// The salt of the day of `at_ms`; asks the log only if that day has none yet.
    pub async fn at(&self, at_ms: i64) -> Result<Salt, LogError> {
        let day = at_ms.div_euclid(DAY_MS);
        match (self.known(day), &self.spool) {
            (Some(known), _) => Ok(known.salt),
            (None, None) => self.agree(day).await,
            (None, Some(spool)) if spool.is_held() => Ok(self.own(day)),
            (None, Some(spool)) => Ok(self.agree_within(day, spool.after()).await.unwrap_or_else(|_| self.own(day))),
        }
    }

    /// Agrees on tomorrow's salt when tomorrow is near, and forgets old ones. To be called every few minutes.
    pub async fn tend(&self) -> Result<(), LogError> {
        let now_ms = self.clock.now_ms();
        let today = now_ms.div_euclid(DAY_MS);
        self.known.write().expect("no holder panics").retain(|&day, _| day >= today - 1);
        self.remember();
        // One that waits for the log already is enough.
        if self.spool.as_ref().is_some_and(|spool| spool.is_held() || self.reading.try_lock().is_err()) {
            return Ok(());
        }
        for day in today..=(now_ms + AHEAD_MS).div_euclid(DAY_MS) {
            if !self.known(day).is_some_and(|known| known.agreed) {
                self.agree(day).await?;
            }
        }
        Ok(())
    }

    /// Days whose salts are in memory.
    pub fn days(&self) -> Vec<i64> {
        self.known.read().expect("no holder panics").keys().copied().collect()
    }

    /// The day's salt until one is agreed on: drawn here, the same over a restart.
    fn own(&self, day: i64) -> Salt {
        let drawn = Known { salt: Salt::random(), agreed: false };
        let salt = self.known.write().expect("no holder panics").entry(day).or_insert(drawn).salt;
        self.remember();
        salt
    }

    fn remember(&self) {
        let Some(spool) = &self.spool else { return };
        let known = self.known.read().expect("no holder panics");
        let salts = known.iter().map(|(&day, known)| RememberedSalt {
            day,
            salt: *known.salt.as_bytes(),
            agreed: known.agreed,
        });
        spool.memory().remember_salts(salts.collect());
    }

    async fn agree_within(&self, day: i64, patience: Duration) -> Result<Salt, LogError> {
        let late = |_| Err(LogError::Unavailable(format!("no salt of day {day} within {patience:?}")));
        timeout(patience, self.agree(day)).await.unwrap_or_else(late)
    }

    fn known(&self, day: i64) -> Option<Known> {
        self.known.read().expect("no holder panics").get(&day).copied()
    }

    /// Reads what others wrote; if the day has no salt yet writes one, and reads on: the first counts, whosever it is.
    async fn agree(&self, day: i64) -> Result<Salt, LogError> {
        let mut reading = self.reading.lock().await;
        if let Some(Known { salt, agreed: true }) = self.known(day) {
            return Ok(salt);
        }
        if !reading.opened {
            let log = Arc::clone(&self.log);
            blocking(move || log.create_topic(SALTS_TOPIC, &TopicKind::Salts)).await?;
            reading.opened = true;
        }
        for written in [false, true] {
            if written {
                let offered = self.known(day).map_or_else(Salt::random, |known| known.salt);
                let record = Agreed { day, salt: *offered.as_bytes() };
                let record = serde_json::to_vec(&record).expect("a salt is JSON");
                self.log.append(SALTS_TOPIC, 0, Bytes::from(record), None).await?;
            }
            let log = Arc::clone(&self.log);
            let from = reading.next;
            let (agreed, end) = blocking(move || read(&*log, from)).await?;
            reading.next = end;
            let today = self.clock.now_ms().div_euclid(DAY_MS);
            let mut known = self.known.write().expect("no holder panics");
            for Agreed { day: of, salt } in agreed {
                if of >= (today - 1).min(day) && !known.get(&of).is_some_and(|known| known.agreed) {
                    known.insert(of, Known { salt: Salt::from_bytes(salt), agreed: true });
                }
            }
            let agreed = known.get(&day).filter(|known| known.agreed).map(|known| known.salt);
            drop(known);
            if let Some(salt) = agreed {
                telemetry::SaltAgreed { day, written }.emit();
                self.remember();
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
