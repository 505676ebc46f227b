//! What to do next, from facts alone.

use crate::digest::Content;
use crate::error::Kind;
use crate::table::{Recorded, State};

/// The one thing that an owner does in a turn; the last three only when a person has ordered it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// The table holds the batch: record it.
    Done,
    /// The table holds something else of these windows: take it out.
    Delete,
    /// The table holds nothing of them: put the batch in.
    Insert,
    /// What is not done before a window is another run's from now on: record that.
    Leave,
    /// Windows are given up: record that.
    Lose,
    /// What is recorded of windows is not believed any more: take it out.
    Forget,
    /// A day's rows are those that a replay has computed.
    Replace,
}

/// Law: one of the first three; `Done` if and only if the table holds exactly what is wanted, and `Insert` only where it holds nothing.
pub fn next_deed(held: Content, wanted: Content) -> Deed {
    if held == wanted {
        Deed::Done
    } else if held.rows == 0 {
        Deed::Insert
    } else {
        Deed::Delete
    }
}

/// What follows a deed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// The next turn, with a raise: the answer is not believed.
    Raise,
    /// The next turn, with the same owner: nothing of this one can still be under way.
    Keep,
    /// As `Raise`, after a while.
    RaiseLater,
    Stop,
}

pub(crate) fn after(deed: Deed, answer: Result<(), Kind>) -> After {
    match (deed, answer) {
        (_, Err(Kind::Refused | Kind::Hopeless(_))) => After::Stop,
        (_, Err(Kind::Unclear)) => After::RaiseLater,
        (Deed::Done, Ok(())) => After::Keep,
        (_, Ok(())) => After::Raise,
    }
}

/// Where a run is: all before is done, or left, from `first_s` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) first_s: u32,
    pub(crate) at_s: u32,
}

/// How far a run is complete that was at `place`, from what is recorded of `place.at_s - 1` and later.
///
/// What a run has behind it has no holes, so the second before its place tells of all. `None`: that is not recorded any
/// more, because a copy was brought back; what the run knows is void.
pub(crate) fn checkpoint_from(place: Place, recorded: &[Recorded]) -> Option<Hole> {
    let Place { first_s, at_s } = place;
    let behind = at_s <= first_s || recorded.iter().any(|of| of.from_s < at_s && at_s <= of.to_s);
    behind.then(|| hole_at(at_s, recorded.iter().map(|of| (of.from_s, of.to_s)).collect()))
}

/// The same of a gap run that was at `at_s` and ends at `to_s`: it must still have been left to it, from its begin on.
pub(crate) fn gap_from(at_s: u32, to_s: u32, recorded: &[Recorded]) -> Option<Hole> {
    let (left, done): (Vec<Recorded>, Vec<Recorded>) = recorded.iter().partition(|of| of.state == State::Left);
    let left = left.iter().filter(|left| left.from_s <= at_s && to_s <= left.to_s).map(|left| left.from_s).max();
    let Hole { from_s, until_s } = checkpoint_from(Place { first_s: left?, at_s }, &done)?;
    Some(Hole { from_s: from_s.min(to_s), until_s })
}

/// Where a run's next batch may lie, s: what is recorded after it stays recorded, and no batch reaches over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hole {
    pub(crate) from_s: u32,
    /// `None`: nothing is recorded after it.
    pub(crate) until_s: Option<u32>,
}

/// The first hole at or after `from_s` between intervals `(begin, end)` in any order, s.
pub(crate) fn hole_at(from_s: u32, covered: Vec<(u32, u32)>) -> Hole {
    let begins: Vec<u32> = covered.iter().map(|(begin, _)| *begin).collect();
    let from_s = first_hole(from_s, covered);
    Hole { from_s, until_s: begins.into_iter().filter(|begin| *begin > from_s).min() }
}

/// The first instant at or after `from_s` that no interval covers; intervals `(begin, end)` in any order, s.
pub(crate) fn first_hole(from_s: u32, mut covered: Vec<(u32, u32)>) -> u32 {
    covered.sort_unstable();
    let mut at = from_s;
    for (begin, end) in covered {
        if begin > at {
            break;
        }
        at = at.max(end);
    }
    at
}

/// The same instants as few intervals, ascending, none of which touches another.
pub(crate) fn united(mut intervals: Vec<(u32, u32)>) -> Vec<(u32, u32)> {
    intervals.sort_unstable();
    let mut united: Vec<(u32, u32)> = Vec::new();
    for (begin, end) in intervals {
        match united.last_mut() {
            Some((_, last)) if begin <= *last => *last = end.max(*last),
            _ => united.push((begin, end)),
        }
    }
    united
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOTHING: Content = Content { rows: 0, digest: 0 };
    const SOME: Content = Content { rows: 2, digest: 7 };

    #[test]
    fn only_an_equal_table_is_done() {
        assert_eq!(next_deed(SOME, SOME), Deed::Done);
        assert_eq!(next_deed(NOTHING, NOTHING), Deed::Done);
        assert_eq!(next_deed(NOTHING, SOME), Deed::Insert);
        assert_eq!(next_deed(SOME, NOTHING), Deed::Delete);
        assert_eq!(next_deed(Content { rows: 2, digest: 8 }, SOME), Deed::Delete);
        assert_eq!(next_deed(Content { rows: 3, digest: 7 }, SOME), Deed::Delete);
    }

    #[test]
    fn an_ok_is_believed_of_a_done_alone() {
        assert_eq!(after(Deed::Insert, Ok(())), After::Raise);
        assert_eq!(after(Deed::Delete, Ok(())), After::Raise);
        assert_eq!(after(Deed::Leave, Ok(())), After::Raise);
        assert_eq!(after(Deed::Done, Ok(())), After::Keep);
        assert_eq!(after(Deed::Done, Err(Kind::Unclear)), After::RaiseLater);
        assert_eq!(after(Deed::Insert, Err(Kind::Refused)), After::Stop);
        assert_eq!(after(Deed::Insert, Err(Kind::Hopeless(""))), After::Stop);
    }

    fn recorded(from_s: u32, to_s: u32, state: State) -> Recorded {
        Recorded { from_s, to_s, state, content: NOTHING }
    }

    #[test]
    fn a_place_is_void_when_what_was_recorded_before_it_is_not_there_any_more() {
        let from = |at_s, recorded: &[Recorded]| {
            checkpoint_from(Place { first_s: 10, at_s }, recorded).map(|hole| (hole.from_s, hole.until_s))
        };
        let (done, left) = (recorded(10, 20, State::Done), recorded(20, 30, State::Left));
        assert_eq!(from(10, &[]), Some((10, None)));
        assert_eq!(from(20, &[done]), Some((20, None)));
        assert_eq!(from(20, &[left, done]), Some((30, None)));
        assert_eq!(from(20, &[]), None);
        assert_eq!(from(20, &[left]), None);
        assert_eq!(from(25, &[done]), None);
        // What was taken back before something that was not.
        let lost = recorded(40, 50, State::Lost);
        assert_eq!(from(20, &[done, lost, recorded(30, 40, State::Done)]), Some((20, Some(30))));
    }

    #[test]
    fn a_gap_runs_place_is_void_when_it_is_not_left_to_it_any_more() {
        let (before, done, left) =
            (recorded(10, 20, State::Done), recorded(20, 24, State::Done), recorded(20, 30, State::Left));
        let from = |at_s, recorded: &[Recorded]| gap_from(at_s, 30, recorded).map(|hole| (hole.from_s, hole.until_s));
        assert_eq!(from(20, &[before, left]), Some((20, None)));
        assert_eq!(from(24, &[done, left]), Some((24, None)));
        assert_eq!(from(24, &[left]), None);
        assert_eq!(from(20, &[before]), None);
        assert_eq!(from(20, &[left, recorded(20, 40, State::Done)]), Some((30, None)));
        assert_eq!(from(20, &[left, recorded(26, 40, State::Lost)]), Some((20, Some(26))));
    }

    #[test]
    fn the_first_hole_is_where_coverage_ends() {
        assert_eq!(first_hole(10, vec![]), 10);
        assert_eq!(first_hole(10, vec![(12, 20)]), 10);
        assert_eq!(first_hole(10, vec![(15, 20), (0, 15)]), 20);
        assert_eq!(first_hole(10, vec![(10, 12), (10, 12), (12, 13), (14, 20)]), 13);
    }

    proptest! {
        #[test]
        fn united_intervals_hold_the_same_instants_and_do_not_touch(
            intervals in prop::collection::vec((0u32..30, 1u32..8), 0..12),
        ) {
            let intervals: Vec<_> = intervals.into_iter().map(|(begin, length)| (begin, begin + length)).collect();
            let held = |intervals: &[(u32, u32)]| {
                (0..40).filter(|at| intervals.iter().any(|(begin, end)| begin <= at && at < end)).collect::<Vec<u32>>()
            };
            let united = united(intervals.clone());
            prop_assert!(united.windows(2).all(|pair| pair[0].1 < pair[1].0));
            prop_assert_eq!(held(&united), held(&intervals));
        }

        #[test]
        fn the_first_hole_is_the_first_instant_not_covered(
            from in 0u32..30,
            covered in prop::collection::vec((0u32..30, 1u32..8), 0..12),
        ) {
            let covered: Vec<_> = covered.into_iter().map(|(begin, length)| (begin, begin + length)).collect();
            let plain = (from..).find(|at| !covered.iter().any(|(begin, end)| begin <= at && at < end));
            prop_assert_eq!(Some(first_hole(from, covered)), plain);
        }
    }
}
