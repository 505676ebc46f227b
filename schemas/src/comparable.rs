//! What the tables of two schema versions must agree on, so that one can be proved by the other.
//!
//! Laws, for versions `a` and `b` over one log, `t` an event's time and `A` its arrival time:
//! - in the rows with `from ≤ window_start < before` and `emitted_in < closed` are, in both, just the events with
//!   `from ≤ t < before` and `A < closed`, if the three are multiples of both widths, and `closed ≥ before + max(L)`: an
//!   event that is on time has `A ≤ t + L`, one that is late leaves with the window of `A`
//! - sums over a day of `window_start` do not depend on width and lateness; nor do distinct visitors, which unite over rows
//! - `visitor_check` adds up the distinct visitors of each row: it depends on how rows are cut, by width and by lateness
//! - which values are `(other)` depends on how rows are cut: where a day has that value, its values differ, their sums do not
//!
//! A source of difference is a part of the rules that is not the same list; nothing else is believed to be one.

use crate::{
    Dimension, Measure, SchemaVersion, WindowStart, WindowWidth,
    rules::{Part, Rules},
};

/// How far a dimension that both versions have agrees, in the sums of a site and day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Agreement {
    /// Value by value.
    Values,
    /// Over all values together: an event has one in both versions, and not the same one.
    Totals,
    /// Nothing: whether an event has a value depends on lists that differ.
    Nothing,
}

/// A sum that both versions must have alike: the measures that it adds up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum {
    pub name: &'static str,
    pub measures: Vec<Measure>,
}

/// What two versions must agree on, and what not. Follows from the two versions alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparable {
    /// Of those that both have, in the order of [`Dimension::ALL`].
    pub dimensions: Vec<(Dimension, Agreement)>,
    pub sums: Vec<Sum>,
    /// Whether the same hits are bots: then each measure agrees, and visitors do.
    pub visitors: bool,
    /// Whether rows are cut alike.
    pub visitor_check: bool,
    /// Windows of both begin at its multiples.
    step: WindowWidth,
    lateness_ms: i64,
}

/// The rows that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// `window_start` is not before this.
    pub from: WindowStart,
    /// `window_start` is before this.
    pub before: WindowStart,
    /// `emitted_in` is before this.
    pub closed: WindowStart,
}

impl Comparable {
    /// Errors never: two versions that share nothing agree on nothing.
    pub fn of(a: &SchemaVersion, b: &SchemaVersion) -> Comparable {
        let rules =
            [a, b].map(|version| Rules::version(version.rules).expect("a version names rules that the binary has"));
        let same = |part| rules[0].part(part) == rules[1].part(part);
        let agreement = |dimension| match dimension {
            Dimension::Site
            | Dimension::Page
            | Dimension::EntryPage
            | Dimension::Referrer
            | Dimension::Country
            | Dimension::Outbound
            | Dimension::Download
            | Dimension::UtmSource
            | Dimension::UtmMedium
            | Dimension::UtmCampaign
            | Dimension::UtmTerm
            | Dimension::UtmContent
            | Dimension::Props => Agreement::Values,
            Dimension::Source | Dimension::Channel if same(Part::Sources) => Agreement::Values,
            Dimension::Browser | Dimension::Os | Dimension::Device if same(Part::Agents) => Agreement::Values,
            Dimension::SearchTerm if same(Part::Sources) => Agreement::Values,
            Dimension::SearchTerm => Agreement::Nothing,
            _ => Agreement::Totals,
        };
        let both = |dimension: &Dimension| a.dimensions.contains(dimension) && b.dimensions.contains(dimension);
        let measured = |measure: &Measure| a.measures.contains(measure) && b.measures.contains(measure);
        let shared: Vec<Measure> = Measure::ALL.into_iter().filter(measured).collect();
        let visitors = same(Part::Bots);
        let sums = match visitors {
            true => shared.iter().map(|&measure| Sum { name: measure.name(), measures: vec![measure] }).collect(),
            // An event counts for one measure, whoever made it.
            false if shared.len() == Measure::ALL.len() => vec![Sum { name: "events", measures: shared }],
            false => Vec::new(),
        };
        Comparable {
            dimensions: Dimension::ALL.into_iter().filter(both).map(|of| (of, agreement(of))).collect(),
            sums,
            visitors,
            visitor_check: visitors && a.width == b.width && a.lateness_ms == b.lateness_ms,
            step: a.width.common(b.width),
            lateness_ms: a.lateness_ms.max(b.lateness_ms),
        }
    }

    /// The rows that can be compared of two tables of which both hold all windows in `[from_ms, to_ms)`; `None`: none.
    pub fn region(&self, from_ms: i64, to_ms: i64) -> Option<Region> {
        let closed = self.step.window_of(to_ms);
        let before = self.step.window_of(closed.ms() - self.lateness_ms);
        let from = self.step.window_of(from_ms + self.step.ms() - 1);
        (from < before).then_some(Region { from, before, closed })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    const SECOND_MS: i64 = 1_000;

    fn version(width_s: i64, lateness_s: i64) -> SchemaVersion {
        let width = WindowWidth::new(width_s * SECOND_MS).unwrap();
        SchemaVersion { width, lateness_ms: lateness_s * SECOND_MS, ..SchemaVersion::builtin(1).unwrap() }
    }

    #[derive(Debug, Clone, Copy)]
    struct Hit {
        t: i64,
        a: i64,
        visitor: u64,
    }

    /// (window start, emitted in) → the hits of that row.
    type Rows = BTreeMap<(WindowStart, WindowStart), Vec<Hit>>;

    /// The rule of all windows, by the book.
    fn rows(version: &SchemaVersion, hits: &[Hit]) -> Rows {
        let mut rows = Rows::new();
        for hit in hits {
            let on_time = hit.a - hit.t <= version.lateness_ms;
            let closes_in = version.width.window_of(if on_time { hit.t } else { hit.a });
            rows.entry((version.width.window_of(hit.t), closes_in)).or_default().push(*hit);
        }
        rows
    }

    fn inside(rows: &Rows, region: Region) -> Vec<&Vec<Hit>> {
        let is_in = |(start, emitted): &(WindowStart, WindowStart)| {
            region.from <= *start && *start < region.before && *emitted < region.closed
        };
        rows.iter().filter(|(key, _)| is_in(key)).map(|(_, hits)| hits).collect()
    }

    /// How many hits, how many visitors, and the sum of each row's distinct ones.
    fn summed(rows: &[&Vec<Hit>]) -> (usize, BTreeSet<u64>, u64) {
        let distinct = |hits: &[Hit]| hits.iter().map(|hit| hit.visitor).collect::<BTreeSet<_>>();
        let hits: Vec<Hit> = rows.iter().flat_map(|hits| hits.iter().copied()).collect();
        (hits.len(), distinct(&hits), rows.iter().flat_map(|hits| distinct(hits)).sum())
    }

    fn widths() -> impl Strategy<Value = i64> {
        prop::sample::select(vec![1, 2, 3, 5, 10, 12, 15, 60, 90, 300])
    }

    fn hits() -> impl Strategy<Value = Vec<Hit>> {
        let hit = (0_i64..2_000_000, 0_i64..90_000, 1_u64..6);
        prop::collection::vec(hit.prop_map(|(t, late, visitor)| Hit { t, a: t + late, visitor }), 0..200)
    }

    proptest! {
        #[test]
        fn in_the_region_are_the_same_hits_whatever_the_widths_and_the_lateness(
            widths in (widths(), widths()), lateness in (0_i64..80, 0_i64..80), hits in hits(),
            from_ms in 0_i64..1_000_000, long_ms in 0_i64..1_500_000,
        ) {
            let (a, b) = (version(widths.0, lateness.0), version(widths.1, lateness.1));
            let comparable = Comparable::of(&a, &b);
            let Some(region) = comparable.region(from_ms, from_ms + long_ms) else { return Ok(()) };
            let whole = |version: &SchemaVersion, at: WindowStart| version.width.window_of(at.ms()) == at;
            for at in [region.from, region.before, region.closed] {
                prop_assert!(whole(&a, at) && whole(&b, at));
            }
            prop_assert!(from_ms <= region.from.ms() && region.closed.ms() <= from_ms + long_ms);
            let (rows_a, rows_b) = (rows(&a, &hits), rows(&b, &hits));
            let (a, b) = (summed(&inside(&rows_a, region)), summed(&inside(&rows_b, region)));
            prop_assert_eq!((a.0, &a.1), (b.0, &b.1));
            let by_time = |hit: &&Hit| region.from.ms() <= hit.t && hit.t < region.before.ms() && hit.a < region.closed.ms();
            prop_assert_eq!(a.0, hits.iter().filter(by_time).count());
            if comparable.visitor_check {
                prop_assert_eq!(a.2, b.2);
            }
        }
    }

    #[test]
    fn a_region_that_is_closed_too_soon_holds_other_hits() {
        let (a, b) = (version(60, 10), version(60, 30));
        // It is on time for the second, in whose rows it leaves at once, and late for the first, with the next minute.
        let hits = [Hit { t: 59_000, a: 79_000, visitor: 1 }];
        let region = Comparable::of(&a, &b).region(0, 120_000).unwrap();
        assert_eq!((region.from.ms(), region.before.ms(), region.closed.ms()), (0, 60_000, 120_000));
        let closed = region.before;
        let too_soon = Region { closed, ..region };
        let count = |version, region| summed(&inside(&rows(version, &hits), region)).0;
        assert_eq!((count(&a, region), count(&b, region)), (1, 1));
        assert_eq!((count(&a, too_soon), count(&b, too_soon)), (0, 1));
    }

    #[test]
    fn the_check_of_visitors_needs_equal_lateness_too() {
        // Once on time and once late in the first; twice on time in the second.
        let hits = [Hit { t: 1_000, a: 1_000, visitor: 7 }, Hit { t: 59_000, a: 79_000, visitor: 7 }];
        let check = |version| summed(&rows(version, &hits).values().collect::<Vec<_>>()).2;
        let (a, b) = (version(60, 10), version(60, 30));
        assert_eq!((check(&a), check(&b)), (14, 7));
        assert!(!Comparable::of(&a, &b).visitor_check && Comparable::of(&a, &a).visitor_check);
    }

    #[test]
    fn with_the_same_lists_all_agrees_that_both_have() {
        let (a, b) = (version(60, 10), version(60, 10));
        let b = SchemaVersion { dimensions: a.dimensions[..3].to_vec(), measures: vec![Measure::PageViews], ..b };
        let comparable = Comparable::of(&a, &b);
        let values = |dimension| (dimension, Agreement::Values);
        assert_eq!(comparable.dimensions, [Dimension::Site, Dimension::Page, Dimension::EntryPage].map(values));
        assert_eq!(comparable.sums, [Sum { name: "page_views", measures: vec![Measure::PageViews] }]);
        assert!(comparable.visitors && comparable.visitor_check);
    }
}
