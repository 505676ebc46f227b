//! What to do next, from facts alone.

use crate::digest::Content;
use crate::error::Kind;

/// The one thing that an owner does in a turn.
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
}

/// Law: never `Leave`; `Done` if and only if the table holds exactly what is wanted, and `Insert` only where it holds nothing.
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
        (Deed::Delete | Deed::Insert | Deed::Leave, Ok(())) => After::Raise,
    }
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

    #[test]
    fn the_first_hole_is_where_coverage_ends() {
        assert_eq!(first_hole(10, vec![]), 10);
        assert_eq!(first_hole(10, vec![(12, 20)]), 10);
        assert_eq!(first_hole(10, vec![(15, 20), (0, 15)]), 20);
        assert_eq!(first_hole(10, vec![(10, 12), (10, 12), (12, 13), (14, 20)]), 13);
    }

    proptest! {
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
