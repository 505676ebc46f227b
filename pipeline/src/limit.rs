//! At most so many values of a site, dimension and window leave: the largest; the rest as `(other)`.

use weir_schemas::{Interner, OTHER, RowBlock};

use crate::runs::RowRef;

/// Whether no site, dimension and window of a sorted block has more than `values_max` values: it leaves as it is.
pub(crate) fn is_within(block: &RowBlock, values_max: usize) -> bool {
    let group = |row: usize| (block.site[row], block.dimension[row], block.window_start_ms[row]);
    // Sorted: the row `values_max` further on is of the same group just where there are more.
    (values_max..block.len()).all(|row| group(row) != group(row - values_max))
}

/// Takes rows in order, and makes the block that leaves of them.
///
/// Largest first by the sum of all counts, ties by value ascending: a value that is not among the largest of some of the
/// rows is not among the largest of all, so the small ones are dropped on the way and memory is bounded.
pub(crate) struct Limit {
    values_max: usize,
    strings: Interner,
    block: RowBlock,
    group: Option<Group>,
    kept: Values,
}

/// One site, dimension and window start.
struct Group {
    site: u32,
    dimension: u32,
    window_start_ms: i64,
    other: Option<Other>,
}

/// What the small values come to.
struct Other {
    counts: Vec<u64>,
    visitors: Vec<u64>,
}

impl Other {
    fn absorb(&mut self, counts: &[u64], visitors: &[u64]) {
        self.counts.iter_mut().zip(counts).for_each(|(count, add)| *count += add);
        self.visitors.extend_from_slice(visitors);
    }

    fn unite(&mut self) {
        self.visitors.sort_unstable();
        self.visitors.dedup();
    }
}

/// Values of the group at hand, ascending, with what they count.
#[derive(Default)]
struct Values {
    text: String,
    text_end: Vec<usize>,
    counts: Vec<u64>,
    visitors: Vec<u64>,
    visitors_end: Vec<usize>,
}

impl Values {
    fn len(&self) -> usize {
        self.text_end.len()
    }

    fn push(&mut self, value: &str, counts: &[u64], visitors: &[u64]) {
        self.text.push_str(value);
        self.text_end.push(self.text.len());
        self.counts.extend_from_slice(counts);
        self.visitors.extend_from_slice(visitors);
        self.visitors_end.push(self.visitors.len());
    }

    fn get(&self, at: usize, measures: usize) -> (&str, &[u64], &[u64]) {
        let begin = |end: &[usize]| if at == 0 { 0 } else { end[at - 1] };
        (
            &self.text[begin(&self.text_end)..self.text_end[at]],
            &self.counts[at * measures..(at + 1) * measures],
            &self.visitors[begin(&self.visitors_end)..self.visitors_end[at]],
        )
    }

    fn clear(&mut self) {
        self.text.clear();
        self.text_end.clear();
        self.counts.clear();
        self.visitors.clear();
        self.visitors_end.clear();
    }

    /// Keeps the largest `values_max`, in their order; the others go into `other`.
    fn cut(&mut self, values_max: usize, measures: usize, other: &mut Option<Other>) {
        if self.len() <= values_max {
            return;
        }
        // Values ascend, so their places break ties.
        let total = |at: usize| self.counts[at * measures..(at + 1) * measures].iter().sum::<u64>();
        let mut largest: Vec<(std::cmp::Reverse<u64>, usize)> =
            (0..self.len()).map(|at| (std::cmp::Reverse(total(at)), at)).collect();
        largest.select_nth_unstable(values_max);
        let mut stays = vec![false; self.len()];
        largest[..values_max].iter().for_each(|(_, at)| stays[*at] = true);
        let mut kept = Values::default();
        let absorbed = other.get_or_insert_with(|| Other { counts: vec![0; measures], visitors: Vec::new() });
        for (at, stays) in stays.into_iter().enumerate() {
            let (value, counts, visitors) = self.get(at, measures);
            match stays {
                true => kept.push(value, counts, visitors),
                false => absorbed.absorb(counts, visitors),
            }
        }
        absorbed.unite();
        *self = kept;
    }
}

impl Limit {
    pub(crate) fn new(values_max: usize) -> Self {
        Self {
            values_max,
            strings: Interner::default(),
            block: RowBlock::default(),
            group: None,
            kept: Values::default(),
        }
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
            self.group = Some(Group { site, dimension, window_start_ms, other: None });
        }
        self.kept.push(row.value, row.counts, row.visitors);
        if self.kept.len() >= 2 * self.values_max.max(512) {
            let group = self.group.as_mut().expect("made above");
            self.kept.cut(self.values_max, row.counts.len(), &mut group.other);
        }
    }

    fn finish_group(&mut self) {
        let Some(mut group) = self.group.take() else { return };
        let measures = self.kept.counts.len() / self.kept.len().max(1);
        self.kept.cut(self.values_max, measures, &mut group.other);
        let mut other = group.other.take();
        let kept = std::mem::take(&mut self.kept);
        if let Some(other) = &mut other {
            // A value that is really called so goes with the rest.
            for (value, counts, visitors) in (0..kept.len()).map(|at| kept.get(at, measures)) {
                if value == OTHER {
                    other.absorb(counts, visitors);
                    other.unite();
                }
            }
        }
        for (value, counts, visitors) in (0..kept.len()).map(|at| kept.get(at, measures)) {
            if value >= OTHER
                && let Some(other) = other.take()
            {
                self.row(&group, OTHER, &other.counts, &other.visitors);
                if value == OTHER {
                    continue;
                }
            }
            self.row(&group, value, counts, visitors);
        }
        if let Some(other) = other {
            self.row(&group, OTHER, &other.counts, &other.visitors);
        }
        self.kept = kept;
        self.kept.clear();
    }

    fn row(&mut self, group: &Group, value: &str, counts: &[u64], visitors: &[u64]) {
        self.block.site.push(group.site);
        self.block.dimension.push(group.dimension);
        self.block.value.push(self.strings.intern(value));
        self.block.window_start_ms.push(group.window_start_ms);
        self.block.counts.extend_from_slice(counts);
        self.block.visitors.extend_from_slice(visitors);
        self.block.visitors_end.push(self.block.visitors.len());
    }

    /// The rows that leave, sorted.
    pub(crate) fn finish(mut self) -> RowBlock {
        self.finish_group();
        self.block.strings = self.strings.into_strings();
        self.block
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
    fn a_block_is_within_the_limit_just_when_no_group_has_more_values() {
        let mut limit = Limit::new(100);
        for (site, value) in [("a", "x"), ("a", "y"), ("b", "x"), ("b", "y"), ("b", "z")] {
            limit.push(RowRef { site, dimension: "page", window_start_ms: 0, value, counts: &[1], visitors: &[] });
        }
        let block = limit.finish();
        assert!(is_within(&block, 3));
        assert!(!is_within(&block, 2));
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
