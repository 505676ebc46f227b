//! At most so many values of a site, dimension and window leave: the largest; the rest as `(other)`.

use weir_schemas::{Interner, RowBlock};

use crate::runs::RowRef;

/// The value that stands for all that were not large enough.
pub const OTHER: &str = "(other)";

/// Takes rows in order, and makes the block that leaves of them.
///
/// Largest first by the sum of all counts, ties by value ascending: a value that is not among the largest of some of the
/// rows is not among the largest of all, so the small ones are dropped on the way and memory is bounded.
pub(crate) struct Limit {
    values_max: usize,
    strings: Interner,
    block: RowBlock,
    group: Option<Group>,
}

/// One site, dimension and window start.
struct Group {
    site: u32,
    dimension: u32,
    window_start_ms: i64,
    kept: Vec<Kept>,
    other: Option<Kept>,
}

struct Kept {
    value: String,
    total: u64,
    counts: Vec<u64>,
    visitors: Vec<u64>,
}

impl Kept {
    fn absorb(&mut self, small: Kept) {
        self.counts.iter_mut().zip(&small.counts).for_each(|(count, add)| *count += add);
        self.visitors.extend_from_slice(&small.visitors);
    }

    fn unite(&mut self) {
        self.visitors.sort_unstable();
        self.visitors.dedup();
    }
}

impl Limit {
    pub(crate) fn new(values_max: usize) -> Self {
        Self { values_max, strings: Interner::default(), block: RowBlock::default(), group: None }
    }

    pub(crate) fn push(&mut self, row: RowRef<'_>) {
        let same = self.group.as_ref().is_some_and(|group| {
            self.strings.get(group.site) == row.site
                && self.strings.get(group.dimension) == row.dimension
                && group.window_start_ms == row.window_start_ms
        });
        if !same {
            self.finish_group();
            let (site, dimension) = (self.strings.intern(row.site), self.strings.intern(row.dimension));
            let window_start_ms = row.window_start_ms;
            self.group = Some(Group { site, dimension, window_start_ms, kept: Vec::new(), other: None });
        }
        let group = self.group.as_mut().expect("made above");
        group.kept.push(Kept {
            value: row.value.to_owned(),
            total: row.counts.iter().sum(),
            counts: row.counts.to_vec(),
            visitors: row.visitors.to_vec(),
        });
        if group.kept.len() >= 2 * self.values_max.max(512) {
            group.cut(self.values_max);
        }
    }

    fn finish_group(&mut self) {
        let Some(mut group) = self.group.take() else { return };
        group.cut(self.values_max);
        if let Some(mut other) = group.other.take() {
            // A value that is really called so goes with the rest.
            if let Some(named) = group.kept.iter().position(|kept| kept.value == OTHER) {
                other.absorb(group.kept.swap_remove(named));
            }
            other.unite();
            group.kept.push(other);
        }
        group.kept.sort_unstable_by(|a, b| a.value.cmp(&b.value));
        for kept in group.kept {
            self.block.site.push(group.site);
            self.block.dimension.push(group.dimension);
            self.block.value.push(self.strings.intern(&kept.value));
            self.block.window_start_ms.push(group.window_start_ms);
            self.block.counts.extend_from_slice(&kept.counts);
            self.block.visitors.extend_from_slice(&kept.visitors);
            self.block.visitors_end.push(self.block.visitors.len());
        }
    }

    /// The rows that leave, sorted.
    pub(crate) fn finish(mut self) -> RowBlock {
        self.finish_group();
        self.block.strings = self.strings.into_strings();
        self.block
    }
}

impl Group {
    /// Keeps the largest `values_max`.
    fn cut(&mut self, values_max: usize) {
        if self.kept.len() <= values_max {
            return;
        }
        let larger = |a: &Kept, b: &Kept| b.total.cmp(&a.total).then_with(|| a.value.cmp(&b.value));
        self.kept.select_nth_unstable_by(values_max, larger);
        for small in self.kept.drain(values_max..) {
            match &mut self.other {
                Some(other) => other.absorb(small),
                None => self.other = Some(Kept { value: OTHER.to_owned(), ..small }),
            }
        }
        if let Some(other) = &mut self.other {
            other.unite();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(values_max: usize, rows: &[(&str, u64, &[u64])]) -> Vec<(String, u64, Vec<u64>)> {
        let mut limit = Limit::new(values_max);
        for (value, count, visitors) in rows {
            let counts = [*count];
            limit.push(RowRef { site: "s", dimension: "page", window_start_ms: 0, value, counts: &counts, visitors });
        }
        let block = limit.finish();
        (0..block.len())
            .map(|row| {
                let value = block.strings.get(block.value[row]).to_owned();
                (value, block.counts[row], block.visitors_of(row).to_vec())
            })
            .collect()
    }

    fn row(value: &str, count: u64, visitors: &[u64]) -> (String, u64, Vec<u64>) {
        (value.to_owned(), count, visitors.to_vec())
    }

    #[test]
    fn the_largest_stay_ties_by_value_and_the_rest_are_one_row_with_their_visitors_united() {
        let rows: [(&str, u64, &[u64]); 4] = [("a", 1, &[1]), ("b", 2, &[2]), ("c", 1, &[1, 3]), ("d", 1, &[1, 4])];
        let want = [row("(other)", 2, &[1, 3, 4]), row("a", 1, &[1]), row("b", 2, &[2])];
        assert_eq!(limited(2, &rows), want);
        assert_eq!(limited(4, &rows).len(), 4, "nothing is cut that need not be");
    }

    #[test]
    fn a_value_that_is_called_like_the_rest_is_counted_with_it() {
        let rows: [(&str, u64, &[u64]); 3] = [("(other)", 9, &[1]), ("b", 1, &[2]), ("c", 2, &[3])];
        assert_eq!(limited(2, &rows), [row("(other)", 10, &[1, 2]), row("c", 2, &[3])]);
    }

    #[test]
    fn cutting_on_the_way_gives_what_cutting_at_the_end_gives() {
        let values: Vec<String> = (0..5_000).map(|value| format!("{value:05}")).collect();
        let rows: Vec<(&str, u64, &[u64])> = values
            .iter()
            .enumerate()
            .map(|(at, value)| (value.as_str(), (at as u64 * 7_919) % 1_000, &[][..]))
            .collect();
        let mut want: Vec<_> = rows.iter().map(|(value, count, _)| (std::cmp::Reverse(*count), *value)).collect();
        want.sort();
        let mut largest: Vec<&str> = want[..10].iter().map(|(_, value)| *value).collect();
        largest.sort();
        let got = limited(10, &rows);
        assert_eq!(got[1..].iter().map(|(value, ..)| value.as_str()).collect::<Vec<_>>(), largest);
        let all = rows.iter().map(|(_, count, _)| count).sum::<u64>();
        assert_eq!(got.iter().map(|(_, count, _)| count).sum::<u64>(), all);
    }
}
