//! Between two queries of a comparison: it rests, waits while the shadow is paused, and keeps how far it is.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use weir_schemas::{Hold, SHADOW, UNHINDERED_PERMILLE, World, control::Action};
use weir_sink::agree::Progress;

use super::{Migrate, swap};

/// How often it is said how far it is.
const SAY_EVERY: Duration = Duration::from_secs(5);
/// How often it is kept how far it is: records are for ever.
const KEEP_EVERY: Duration = Duration::from_secs(60);
/// How often it is looked whether the shadow is to work less.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Which comparison it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt {
    /// The conversion's id.
    pub conversion: i64,
    pub attempt: i64,
    pub closed_ms: i64,
    /// Control records that were there when it began.
    pub known: usize,
}

/// The pace of one origin's comparison: that of the shadow's runs.
pub(super) struct Pace<'a> {
    migrate: &'a Migrate,
    of: Attempt,
    origin: &'a str,
    state: Mutex<State>,
}

struct State {
    hold: Hold,
    /// `None`: the hold is as it was when all began. What was paused then and is not now would be said to wait once more.
    looked: Option<Instant>,
    /// When the last rest was over, and the query began.
    begun: Option<Instant>,
    said: Instant,
    kept: Instant,
}

impl<'a> Pace<'a> {
    pub(super) fn new(migrate: &'a Migrate, world: &World, of: Attempt, origin: &'a str) -> Pace<'a> {
        let (now, hold) = (Instant::now(), Hold::of(SHADOW, &world.control));
        let state = State { hold, looked: None, begun: None, said: now, kept: now };
        Pace { migrate, of, origin, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As long as it takes. What cannot be asked or kept now changes nothing, and is asked again.
    pub(super) async fn wait(&self, progress: Progress) {
        let worked = self.state().begun.map_or(Duration::ZERO, |begun| begun.elapsed());
        let mut waits = false;
        loop {
            if waits || self.state().looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY) {
                self.look().await;
            }
            let paused = self.state().hold.paused().map(|pause| (pause.by.who.clone(), pause.by.reason.clone()));
            let Some((who, reason)) = paused else { break };
            if !waits {
                eprintln!("waits: shadow is paused by {who}, {reason:?}");
            }
            waits = true;
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let share = f64::from(self.state().hold.permille) / f64::from(UNHINDERED_PERMILLE);
        tokio::time::sleep(worked.mul_f64((1.0 - share) / share.max(1e-3))).await;
        if self.is_due(SAY_EVERY, |state| &mut state.said) && progress.of_rows > 0 {
            eprintln!("{} % of the rows are compared", 100 * progress.rows / progress.of_rows);
        }
        if progress.differing == 0
            && let Some(before_day) = progress.before_day
            && self.is_due(KEEP_EVERY, |state| &mut state.kept)
        {
            self.keep(Some(before_day)).await;
        }
        self.state().begun = Some(Instant::now());
    }

    fn is_due(&self, every: Duration, of: impl Fn(&mut State) -> &mut Instant) -> bool {
        let mut state = self.state();
        let last = of(&mut state);
        let due = last.elapsed() >= every;
        if due {
            *last = Instant::now();
        }
        due
    }

    async fn look(&self) {
        let found = self.migrate.world().await;
        let mut state = self.state();
        state.looked = Some(Instant::now());
        if let Ok(world) = found {
            state.hold = Hold::of(SHADOW, &world.control);
        }
    }

    /// That all days before this agree, or all of the origin, unless something has changed a table meanwhile.
    pub(super) async fn keep(&self, before_day: Option<i64>) {
        let Attempt { conversion: id, attempt, closed_ms, known } = self.of;
        let kept = async {
            if swap::changed(&self.migrate.world().await?.control[known..]).is_none() {
                let origin = self.origin.to_owned();
                self.migrate.say("", Action::Agrees { id, attempt, closed_ms, origin, before_day, known }).await?;
            }
            anyhow::Ok(())
        };
        if let Err(error) = kept.await {
            eprintln!("how far it is cannot be kept, and would be compared again if this is cut: {error:#}");
        }
    }
}
