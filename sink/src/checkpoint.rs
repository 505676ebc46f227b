//! How far a generation is complete: read from `emissions`, and from nothing else.

use weir_schemas::{SchemaVersion, WindowStart, WindowWidth, control::GAP_RUN};

use crate::SinkError;
use crate::clickhouse::ClickHouse;
use crate::connection::Target;
use crate::decide::first_hole;
use crate::digest::seconds;
use crate::error::Failure;
use crate::table::{State, Table, Windows};

/// Where a run goes on: the first window at or after `from` that no batch of this version and origin covers, and that was
/// not left.
///
/// Errors: [`SinkError`] when ClickHouse does not answer, or has no tables yet ([`crate::prepare()`] makes them).
pub async fn checkpoint(
    target: &Target,
    run: &str,
    version: &SchemaVersion,
    origin: &str,
    from: WindowStart,
) -> Result<WindowStart, SinkError> {
    let table = ClickHouse::new(target, run, version, origin);
    checkpoint_of(&table, version.width, from).await.map_err(|failure| failure.into_error(&target.url, run))
}

/// The same of any table.
pub async fn checkpoint_of(table: &impl Table, width: WindowWidth, from: WindowStart) -> Result<WindowStart, Failure> {
    let recorded = table.recorded(seconds(from.ms()), u32::MAX).await?;
    let covered = recorded.iter().map(|recorded| (recorded.from_s, recorded.to_s)).collect();
    Ok(window_at(width, first_hole(seconds(from.ms()), covered)))
}

/// What is left to the gap run, ascending: of each range that live has left, what lies behind its first window that is not
/// done, or lost. It does the first of them next; with none there is no gap.
///
/// Errors: as of [`checkpoint`].
pub async fn gaps(target: &Target, version: &SchemaVersion) -> Result<Vec<Windows>, SinkError> {
    let table = ClickHouse::new(target, GAP_RUN, version, "");
    gaps_of(&table, version.width).await.map_err(|failure| failure.into_error(&target.url, GAP_RUN))
}

/// The same of any table.
pub async fn gaps_of(table: &impl Table, width: WindowWidth) -> Result<Vec<Windows>, Failure> {
    let mut left = table.left().await?;
    left.sort_unstable_by_key(|range| (range.from_s, range.to_s));
    let mut gaps = Vec::new();
    for range in left {
        let from = done_through(table, width, window_at(width, range.from_s), window_at(width, range.to_s)).await?;
        let to = window_at(width, range.to_s);
        if from < to {
            gaps.push(Windows { from, to });
        }
    }
    Ok(gaps)
}

/// The first window from `from` on that is not done, left or not, as far as `to`.
pub(crate) async fn done_through(
    table: &impl Table,
    width: WindowWidth,
    from: WindowStart,
    to: WindowStart,
) -> Result<WindowStart, Failure> {
    let (from_s, to_s) = (seconds(from.ms()), seconds(to.ms()));
    let recorded = table.recorded(from_s, to_s).await?;
    let done = recorded.iter().filter(|recorded| recorded.state != State::Left);
    let covered = done.map(|done| (done.from_s, done.to_s)).collect();
    Ok(window_at(width, first_hole(from_s, covered).min(to_s)))
}

fn window_at(width: WindowWidth, at_s: u32) -> WindowStart {
    width.window_of(i64::from(at_s) * 1000)
}
