//! What live has left for later (`weir resume live --live-first`): one gap at a time, oldest first, each filled by the run
//! `gap` of its generation, until there is none.

use std::time::{Duration, Instant};

use anyhow::Context;
use tracing::info;
use weir_schemas::{
    Hold, SchemaVersion,
    control::{Action, ControlRecord},
};
use weir_sink::table::Windows;

use crate::{hold::Holding, judge::at};

/// A ClickHouse that does not answer is asked again after so long.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// What was left although nobody has heard of it, by a live that was paused again at once, is found so soon.
const ASK_ANYWAY: Duration = Duration::from_secs(60);
const ASK_PATIENCE: Duration = Duration::from_secs(5);

/// What is known of a generation's gaps.
#[derive(Debug, Default)]
pub(crate) struct Gaps {
    /// The one that is being filled.
    pub(crate) at_hand: Option<Windows>,
    /// How often there may have come another one until it was asked; `None`: it is to be asked.
    asked_at: Option<usize>,
    asked: Option<Instant>,
    /// How their run is held while there is none.
    pub(crate) holding: Holding,
}

impl Gaps {
    /// Asks the table for the next gap, when there may be another than the one at hand.
    pub(crate) async fn look(
        &mut self,
        version: &SchemaVersion,
        target: &weir_sink::Target,
        control: &[ControlRecord],
    ) -> anyhow::Result<()> {
        let (left_something, times) = left(control);
        let since = |least: Duration| self.asked.is_none_or(|asked| asked.elapsed() >= least);
        let anyway = self.at_hand.is_none() && since(ASK_ANYWAY);
        if !left_something || !since(ASK_EVERY) || (self.asked_at == Some(times) && !anyway) {
            return Ok(());
        }
        self.asked = Some(Instant::now());
        let asked = tokio::time::timeout(ASK_PATIENCE, weir_sink::gaps(target, version)).await;
        let found = asked.context("clickhouse does not say whether there is a gap")??.first().copied();
        if let Some(Windows { from, to }) = found.filter(|found| Some(*found) != self.at_hand) {
            info!(from = at(from.ms()), to = at(to.ms()), "a gap is to be filled");
        }
        (self.at_hand, self.asked_at) = (found, Some(times));
        Ok(())
    }

    /// The run of the one at hand has come to its end.
    pub(crate) fn filled(&mut self) {
        (self.asked_at, self.asked) = (None, None);
    }

    /// Where the last one that live has left ends.
    pub(crate) fn last_end_ms(control: &[ControlRecord]) -> Option<i64> {
        let live = Hold::of("live", control);
        live.pauses.iter().filter_map(|pause| pause.resume.as_ref()?.left_to_ms).max()
    }

    /// Whether there is none, as far as live has left anything. One that has gone on since the table was asked may have left
    /// another, and one that is about to go on will.
    pub(crate) fn none(&self, control: &[ControlRecord]) -> bool {
        let live = Hold::of("live", control);
        let last = live.pauses.last().and_then(|pause| pause.resume.as_ref());
        let is_ahead = last.is_some_and(|resume| resume.left_to_ms.is_some() && resume.resumed_ms.is_none());
        let (left_something, times) = left(control);
        !is_ahead && (!left_something || (self.at_hand.is_none() && self.asked_at == Some(times)))
    }
}

/// Whether live was ever told to leave something, and how often there may have come another gap: with each of its resumes
/// that has taken effect, one in order too, because what the one before it was to leave may be left although nobody has
/// heard of it; and with each copy that was brought back.
fn left(control: &[ControlRecord]) -> (bool, usize) {
    let live = Hold::of("live", control);
    let resumes: Vec<_> = live.pauses.iter().filter_map(|pause| pause.resume.as_ref()).collect();
    let took_effect = resumes.iter().filter(|resume| resume.resumed_ms.is_some()).count();
    let restored = control.iter().filter(|record| matches!(record.action, Action::BackupRestored { .. })).count();
    (resumes.iter().any(|resume| resume.left_to_ms.is_some()), took_effect + restored)
}
