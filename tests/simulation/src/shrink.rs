//! A failing history with as little in it as still fails.

use std::time::{Duration, Instant};

use crate::{Failure, History, plan::Plan};

/// Leaves out faults, then appends, half of them first, then less, as long as the history still fails in any way, for
/// about `patience`.
pub fn shrink(failure: &Failure, patience: Duration) -> Failure {
    let begin = Instant::now();
    let mut smallest = failure.clone();
    let plan = Plan::draw(failure.history.number, failure.history.bug);
    let whole = |kept: &Option<Vec<usize>>, count: usize| kept.clone().unwrap_or_else(|| (0..count).collect());
    let faults = whole(&failure.history.faults, plan.faults.len());
    let appends = whole(&failure.history.appends, plan.appends.len());
    let mut over = || begin.elapsed() > patience;
    leave_out(&mut smallest, faults, &mut over, |history, kept| History { faults: Some(kept), ..history.clone() });
    leave_out(&mut smallest, appends, &mut over, |history, kept| History { appends: Some(kept), ..history.clone() });
    smallest
}

fn leave_out(
    smallest: &mut Failure,
    mut kept: Vec<usize>,
    over: &mut impl FnMut() -> bool,
    with: impl Fn(&History, Vec<usize>) -> History,
) {
    let mut part = kept.len().div_ceil(2);
    while part > 0 && !kept.is_empty() {
        let (mut at, mut smaller) = (0, false);
        while at < kept.len() {
            if over() {
                return;
            }
            let fewer: Vec<usize> = [&kept[..at], &kept[(at + part).min(kept.len())..]].concat();
            let history = with(&smallest.history, fewer.clone());
            match history.live().0 {
                Some(wrong) => {
                    *smallest = Failure { history, wrong };
                    (kept, smaller) = (fewer, true);
                }
                None => at += part,
            }
        }
        if part == 1 && !smaller {
            return;
        }
        part = if part == 1 { 1 } else { part.div_ceil(2) };
    }
}
