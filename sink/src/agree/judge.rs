//! What must agree of a site, dimension and day: facts in, differences out.

use std::collections::{BTreeMap, BTreeSet};

use weir_schemas::{Agreement, Comparable, Dimension, Measure, SchemaVersion, Sum};

use super::{Difference, Sides, Why};

const VISITORS: &str = "visitors";
const VISITOR_CHECK: &str = "visitor_check";

/// What the tables hold of a site, dimension and day. The columns of [`super::query::groups`].
#[derive(Debug, Clone, clickhouse::Row, serde::Deserialize)]
pub(super) struct Group {
    /// Days since the Unix epoch.
    pub(super) day: u32,
    pub(super) site: String,
    pub(super) dimension: String,
    pub(super) rows_old: u64,
    pub(super) rows_new: u64,
    /// Of both tables together.
    pub(super) values: u64,
    /// Those with a number that differs.
    pub(super) values_differing: u64,
    /// Whether one of them is `(other)`.
    pub(super) has_other: u8,
    /// The numbers of [`Law::numbers`] over all values.
    pub(super) old: Vec<u64>,
    pub(super) new: Vec<u64>,
}

/// One value of a group. The columns of [`super::query::values`].
#[derive(Debug, Clone, clickhouse::Row, serde::Deserialize)]
pub(super) struct Value {
    pub(super) value: String,
    pub(super) old: Vec<u64>,
    pub(super) new: Vec<u64>,
}

/// What is compared of two versions' tables.
#[derive(Debug)]
pub(super) struct Law {
    pub(super) sums: Vec<Sum>,
    pub(super) visitors: bool,
    pub(super) visitor_check: bool,
    /// Measures that both have and that need not agree one by one.
    pub(super) apart: Vec<Measure>,
    /// The same values are `(other)` in both.
    other_is_alike: bool,
    rules: BTreeMap<Dimension, Result<Agreement, Why>>,
    accepted: BTreeSet<String>,
}

/// A group, judged.
#[derive(Debug, Default)]
pub(super) struct Judged {
    /// Over all values.
    pub(super) differing: Vec<Difference>,
    pub(super) values_differing: u64,
    /// How many numbers over all values, and how many values, were compared.
    pub(super) sums: u64,
    pub(super) values: u64,
    pub(super) with_other: bool,
    /// The dimension of which a difference is expected.
    pub(super) expected: Option<(String, Why)>,
}

impl Law {
    pub(super) fn of(old: &SchemaVersion, new: &SchemaVersion, accepted: &BTreeSet<String>) -> Law {
        let Comparable { dimensions, sums, visitors, visitor_check, .. } = Comparable::of(old, new);
        let alone =
            |dimension: &Dimension| match (old.dimensions.contains(dimension), new.dimensions.contains(dimension)) {
                (true, false) => Some((*dimension, Err(Why::OnlyOld))),
                (false, true) => Some((*dimension, Err(Why::OnlyNew))),
                _ => None,
            };
        let shared = dimensions.into_iter().map(|(dimension, agreement)| match agreement {
            Agreement::Nothing => (dimension, Err(Why::Lists)),
            agreement => (dimension, Ok(agreement)),
        });
        let both = |measure: &Measure| old.measures.contains(measure) && new.measures.contains(measure);
        Law {
            apart: if visitors { Vec::new() } else { Measure::ALL.into_iter().filter(both).collect() },
            sums,
            visitors,
            visitor_check,
            // A value's size is the sum of all its counts, of which bots are one.
            other_is_alike: visitor_check && old.values_max == new.values_max && old.measures == new.measures,
            rules: shared.chain(Dimension::ALL.iter().filter_map(alone)).collect(),
            accepted: accepted.clone(),
        }
    }

    /// The numbers of a group and of a value, in order.
    pub(super) fn numbers(&self) -> Vec<&'static str> {
        let visitors = [(self.visitors, VISITORS), (self.visitor_check, VISITOR_CHECK)];
        let visitors = visitors.into_iter().filter_map(|(is, name)| is.then_some(name));
        self.sums.iter().map(|sum| sum.name).chain(visitors).collect()
    }

    /// A dimension that no version has must not be in either table: what is there is a difference.
    pub(super) fn judge(&self, group: &Group) -> Judged {
        let dimension = dimension_of(&group.dimension);
        let name = dimension.map_or(group.dimension.as_str(), |of| of.name());
        if let Some(accepted) = [group.dimension.as_str(), name].into_iter().find(|name| self.accepted.contains(*name))
        {
            return Judged { expected: Some((accepted.to_owned(), Why::Accepted)), ..Judged::default() };
        }
        let known = dimension.and_then(|dimension| self.rules.get(&dimension)).copied();
        let agreement = match known.unwrap_or(Ok(Agreement::Values)) {
            Ok(agreement) => agreement,
            Err(why) => return Judged { expected: Some((name.to_owned(), why)), ..Judged::default() },
        };
        let by_value = agreement == Agreement::Values;
        let with_other = by_value && group.has_other != 0 && !self.other_is_alike;
        let checked = by_value && !with_other;
        let totals = Value { value: String::new(), old: group.old.clone(), new: group.new.clone() };
        let numbers = self.numbers().iter().filter(|name| checked || **name != VISITOR_CHECK).count();
        let differing = self
            .differences_of(&group.site, &group.dimension, i64::from(group.day), totals)
            .filter(|of| checked || of.what != VISITOR_CHECK)
            .map(|of| Difference { value: None, ..of });
        Judged {
            differing: differing.collect(),
            values_differing: if checked { group.values_differing } else { 0 },
            sums: numbers as u64,
            values: if checked { group.values } else { 0 },
            with_other,
            expected: (!by_value).then(|| (name.to_owned(), Why::Values)),
        }
    }

    /// The numbers in which a value differs.
    pub(super) fn differences_of(
        &self,
        site: &str,
        dimension: &str,
        day: i64,
        of: Value,
    ) -> impl Iterator<Item = Difference> {
        let (site, dimension, value) = (site.to_owned(), dimension.to_owned(), Some(of.value));
        let numbers = self.numbers().into_iter().zip(of.old.into_iter().zip(of.new));
        numbers.filter(|(_, (old, new))| old != new).map(move |(what, (old, new))| {
            let (site, dimension, value) = (site.clone(), dimension.clone(), value.clone());
            Difference { day, site, dimension, value, what, numbers: Sides { old, new } }
        })
    }
}

/// The dimension that the column `dimension` names.
fn dimension_of(column: &str) -> Option<Dimension> {
    match column.starts_with(&Dimension::of_prop("")) {
        true => Some(Dimension::Props),
        false => Dimension::ALL.into_iter().find(|dimension| dimension.name() == column),
    }
}

#[cfg(test)]
mod tests {
    use weir_schemas::{Names, WindowWidth};

    use super::*;

    fn version() -> SchemaVersion {
        SchemaVersion {
            number: 1,
            width: WindowWidth::new(60_000).unwrap(),
            lateness_ms: 0,
            dimensions: vec![Dimension::Page, Dimension::Browser],
            measures: vec![Measure::PageViews],
            rules: 1,
            values_max: 10,
            names: Names::default(),
        }
    }

    fn law(new: SchemaVersion) -> Law {
        Law::of(&version(), &new, &BTreeSet::new())
    }

    /// Numbers: page views, visitors, visitor check; two values differ.
    fn group(dimension: &str, has_other: bool, old: [u64; 3], new: [u64; 3]) -> Group {
        let (site, dimension) = ("a".to_owned(), dimension.to_owned());
        let (rows_old, rows_new, values, values_differing) = (5, 6, 4, 2);
        let (old, new) = (old.to_vec(), new.to_vec());
        let has_other = u8::from(has_other);
        Group { day: 7, site, dimension, rows_old, rows_new, values, values_differing, has_other, old, new }
    }

    fn whats(judged: &Judged) -> Vec<&'static str> {
        judged.differing.iter().map(|of| of.what).collect()
    }

    #[test]
    fn with_other_sums_alone_must_agree_unless_rows_are_cut_alike() {
        let group = group("page", true, [9, 3, 70], [9, 4, 60]);
        let alike = law(version()).judge(&group);
        assert_eq!((whats(&alike), alike.values_differing, alike.sums), (vec!["visitors", "visitor_check"], 2, 3));
        assert_eq!((alike.values, alike.with_other), (4, false));
        for new in [
            SchemaVersion { values_max: 9, ..version() },
            SchemaVersion { measures: vec![Measure::PageViews, Measure::BotEvents], ..version() },
        ] {
            let judged = law(new).judge(&group);
            assert_eq!((whats(&judged), judged.values_differing, judged.sums), (vec!["visitors"], 0, 2));
            assert_eq!((judged.values, judged.with_other), (0, true));
        }
    }

    #[test]
    fn where_only_totals_agree_values_and_the_check_of_rows_are_expected_to_differ() {
        let mut law = law(version());
        law.rules.insert(Dimension::Browser, Ok(Agreement::Totals));
        let judged = law.judge(&group("browser", false, [9, 3, 70], [8, 3, 60]));
        assert_eq!((whats(&judged), judged.values_differing), (vec!["page_views"], 0));
        assert_eq!(judged.expected, Some(("browser".to_owned(), Why::Values)));
    }

    #[test]
    fn what_one_version_has_is_expected_and_what_none_has_is_a_difference() {
        let new = SchemaVersion { dimensions: vec![Dimension::Page, Dimension::Props], ..version() };
        let judge = |dimension: &str| law(new.clone()).judge(&group(dimension, false, [1, 1, 1], [0, 0, 0]));
        assert_eq!(judge("browser").expected, Some(("browser".to_owned(), Why::OnlyOld)));
        assert_eq!(judge("prop:x").expected, Some(("prop:*".to_owned(), Why::OnlyNew)));
        for dimension in ["os", "mine", ""] {
            assert_eq!(whats(&judge(dimension)), ["page_views", "visitors", "visitor_check"], "{dimension}");
        }
    }

    #[test]
    fn a_property_is_accepted_by_its_own_name_or_with_all_others() {
        let new = SchemaVersion { dimensions: vec![Dimension::Props], ..version() };
        for (accepted, is_accepted) in [("prop:*", true), ("prop:x", true), ("prop:y", false), ("page", false)] {
            let law = Law::of(&new, &new, &BTreeSet::from([accepted.to_owned()]));
            let judged = law.judge(&group("prop:x", false, [1, 1, 1], [0, 0, 0]));
            assert_eq!(judged.differing.is_empty(), is_accepted, "{accepted}");
            let expected = is_accepted.then(|| (accepted.to_owned(), Why::Accepted));
            assert_eq!(judged.expected, expected);
        }
    }
}
