//! Windows of a generation that nobody will compute any more.
//!
//! ```text
//!  given up by its live run, its gap run, the one that carries rows over ──┬──▶ missing
//!  missing in the one before, before the seam, if rows are carried over ───┘
//! ```

use weir_schemas::{
    Conversion, Generations, Missing, Number, Recoveries, Repair,
    control::{Action, CARRIED_RUN, ControlRecord},
    kind_of,
};

use crate::snapshot::LIVE;

/// Ascending, of live events. `said`: the control records as they were written, in their order.
pub(crate) fn missing(said: &[ControlRecord], generations: &Generations, number: Number) -> Vec<Missing> {
    let own: Vec<_> = said.iter().filter_map(|record| by_kind(record, number)).collect();
    let mut all = Recoveries::missing_of(LIVE, &own);
    all.append(&mut Recoveries::missing_of(CARRIED_RUN, &own));
    let carried = generations.made(number).filter(|made| made.carried.is_some());
    all.extend(carried.into_iter().flat_map(|made| not_carried(said, generations, made)));
    all.sort_by_key(|missing| missing.from_ms);
    all
}

/// What could not be carried over, for it was missing there.
///
/// As it was when both were last found to agree: what the one before gives up afterwards, the new one has. But from where on the
/// new one was ordered to compare once more since then, as it is there now.
fn not_carried(said: &[ControlRecord], generations: &Generations, made: &Conversion) -> Vec<Missing> {
    let agrees =
        |record: &ControlRecord| matches!(record.action, Action::Verified { id, differing: 0, .. } if id == made.by.id);
    let (then, since) = said.split_at(said.iter().rposition(agrees).unwrap_or(said.len()));
    let again = since.iter().filter_map(|record| match by_kind(record, Some(made.generation))?.action {
        Action::Recover { run, repair: Repair::AskAgain { from_ms }, .. } if run == CARRIED_RUN => Some(from_ms),
        _ => None,
    });
    let seam_ms = made.from_ms;
    let again_ms = again.fold(seam_ms, i64::min);
    let within = |said, from_ms, to_ms| {
        let all = missing(said, generations, made.old).into_iter();
        let cut = all.map(move |one| Missing { from_ms: one.from_ms.max(from_ms), to_ms: one.to_ms.min(to_ms), ..one });
        cut.filter(|one| one.from_ms < one.to_ms)
    };
    within(then, i64::MIN, again_ms).chain(within(said, again_ms, seam_ms)).collect()
}

/// What was decided about one of this generation's runs, which is called by its kind alone.
fn by_kind(record: &ControlRecord, of: Number) -> Option<ControlRecord> {
    let Action::Recover { run, .. } = &record.action else { return None };
    let (number, kind) = kind_of(run);
    let kind = (number == of).then(|| kind.to_owned())?;
    let mut record = record.clone();
    if let Action::Recover { run, .. } = &mut record.action {
        *run = kind;
    }
    Some(record)
}
