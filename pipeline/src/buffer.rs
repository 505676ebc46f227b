//! The events of one open window, column by column, and the rows they become.
//!
//! Sorting instead of hashing: the events are put in the order of their visitors once; then a stable sort by key, one
//! dimension after the other, leaves each key's events together with its visitors ascending, so that distinct visitors
//! are counted exactly by looking at neighbours.

use weir_schemas::{Dimension, Interner, Kind, Measure, RowBlock, SchemaVersion};

/// Bit of `class` that says that a bot made the event; the bits below are the [`Kind`].
pub(crate) const BOT: u8 = 0x80;

/// Events of one (emitted in, counts for) pair. Symbols are those of the worker's [`Interner`]; 0: absent.
#[derive(Debug)]
pub(crate) struct Buffer {
    site: Vec<u32>,
    visitor: Vec<u64>,
    class: Vec<u8>,
    /// One column for each of [`Layout::columns`].
    columns: Vec<Vec<u32>>,
    prop_event: Vec<u32>,
    prop_dimension: Vec<u32>,
    prop_value: Vec<u32>,
}

/// Where a schema version's dimensions are in a [`Buffer`].
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) has_site: bool,
    pub(crate) has_props: bool,
    /// All others, in the version's order.
    pub(crate) columns: Vec<Dimension>,
    pub(crate) measures: usize,
    /// What an event of a class adds to each measure.
    adds: Vec<Vec<u64>>,
}

impl Layout {
    pub(crate) fn new(version: &SchemaVersion) -> Self {
        let adds = (0..=u8::MAX).map(|class| {
            let kind = Kind::from_wire(u32::from(class & !BOT));
            let counts = |measure: &Measure| kind.is_some_and(|kind| measure.counts(kind, class & BOT != 0));
            version.measures.iter().map(|measure| u64::from(counts(measure))).collect()
        });
        Self {
            has_site: version.dimensions.contains(&Dimension::Site),
            has_props: version.dimensions.contains(&Dimension::Props),
            columns: version
                .dimensions
                .iter()
                .copied()
                .filter(|dimension| !matches!(dimension, Dimension::Site | Dimension::Props))
                .collect(),
            measures: version.measures.len(),
            adds: adds.collect(),
        }
    }
}

/// One event, ready to be put into a buffer.
pub(crate) struct Row<'a> {
    pub(crate) site: u32,
    pub(crate) visitor: u64,
    pub(crate) class: u8,
    /// One symbol for each of [`Layout::columns`].
    pub(crate) columns: &'a [u32],
    /// (dimension, value) of each property.
    pub(crate) props: &'a [(u32, u32)],
}

impl Buffer {
    pub(crate) fn new(layout: &Layout) -> Self {
        Self {
            site: Vec::new(),
            visitor: Vec::new(),
            class: Vec::new(),
            columns: vec![Vec::new(); layout.columns.len()],
            prop_event: Vec::new(),
            prop_dimension: Vec::new(),
            prop_value: Vec::new(),
        }
    }

    /// Memory that the events take, bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.site.len() * Self::row_bytes(self.columns.len()) + self.prop_event.len() * 12
    }

    /// Memory that one event without properties takes, bytes.
    pub(crate) fn row_bytes(columns: usize) -> usize {
        4 + 8 + 1 + 4 * columns
    }

    pub(crate) fn push(&mut self, row: &Row<'_>) {
        let event = self.site.len() as u32;
        self.site.push(row.site);
        self.visitor.push(row.visitor);
        self.class.push(row.class);
        for (column, symbol) in self.columns.iter_mut().zip(row.columns) {
            column.push(*symbol);
        }
        for (dimension, value) in row.props {
            self.prop_event.push(event);
            self.prop_dimension.push(*dimension);
            self.prop_value.push(*value);
        }
    }

    /// The rows of these events, sorted by their strings, all counting for `window_start_ms`.
    pub(crate) fn rows(&self, layout: &Layout, window_start_ms: i64, symbols: &mut Interner) -> RowBlock {
        let mut by_visitor: Vec<u32> = (0..self.site.len() as u32).collect();
        by_visitor.sort_unstable_by_key(|event| self.visitor[*event as usize]);
        let mut rows = Rows { measures: layout.measures, ..Rows::default() };
        let mut keyed: Vec<(u64, u32)> = Vec::with_capacity(self.site.len());
        if layout.has_site {
            let dimension = symbols.intern(Dimension::Site.name());
            keyed.extend(by_visitor.iter().map(|event| (key(self.site[*event as usize], 0), *event)));
            self.group(&mut keyed, dimension, layout, &mut rows);
        }
        for (dimension, column) in layout.columns.iter().zip(&self.columns) {
            let dimension = symbols.intern(dimension.name());
            let present = by_visitor.iter().filter(|event| column[**event as usize] != 0);
            keyed.extend(present.map(|event| {
                let at = *event as usize;
                (key(self.site[at], column[at]), *event)
            }));
            self.group(&mut keyed, dimension, layout, &mut rows);
        }
        if !self.prop_event.is_empty() {
            self.group_props(&by_visitor, layout, &mut rows);
        }
        rows.into_block(window_start_ms, symbols)
    }

    /// Properties: as for the other dimensions, one property's name after the other.
    fn group_props(&self, by_visitor: &[u32], layout: &Layout, rows: &mut Rows) {
        let mut rank = vec![0u32; self.site.len()];
        by_visitor.iter().enumerate().for_each(|(place, event)| rank[*event as usize] = place as u32);
        let mut order: Vec<u32> = (0..self.prop_event.len() as u32).collect();
        order.sort_unstable_by_key(|prop| {
            let at = *prop as usize;
            (self.prop_dimension[at], rank[self.prop_event[at] as usize])
        });
        let mut keyed = Vec::new();
        for props in order.chunk_by(|a, b| self.prop_dimension[*a as usize] == self.prop_dimension[*b as usize]) {
            keyed.extend(props.iter().map(|prop| {
                let event = self.prop_event[*prop as usize];
                (key(self.site[event as usize], self.prop_value[*prop as usize]), event)
            }));
            self.group(&mut keyed, self.prop_dimension[props[0] as usize], layout, rows);
        }
    }

    /// Makes a row of each run of equal keys. `keyed` comes in the order of visitors, and is left empty.
    fn group(&self, keyed: &mut Vec<(u64, u32)>, dimension: u32, layout: &Layout, rows: &mut Rows) {
        keyed.sort_by_key(|(key, _)| *key);
        for group in keyed.chunk_by(|a, b| a.0 == b.0) {
            let counts_begin = rows.counts.len();
            rows.counts.resize(counts_begin + layout.measures, 0);
            let visitors_begin = rows.visitors.len();
            for (_, event) in group {
                let (class, visitor) = (self.class[*event as usize], self.visitor[*event as usize]);
                let counts = &mut rows.counts[counts_begin..];
                counts.iter_mut().zip(&layout.adds[class as usize]).for_each(|(count, add)| *count += add);
                let known = rows.visitors[visitors_begin..].last() == Some(&visitor);
                if class & BOT == 0 && visitor != 0 && !known {
                    rows.visitors.push(visitor);
                }
            }
            rows.site.push((group[0].0 >> 32) as u32);
            rows.value.push(group[0].0 as u32);
            rows.dimension.push(dimension);
            rows.visitors_end.push(rows.visitors.len());
        }
        keyed.clear();
    }
}

fn key(site: u32, value: u32) -> u64 {
    u64::from(site) << 32 | u64::from(value)
}

/// Rows in the order in which they were found, of symbols.
#[derive(Debug, Default)]
struct Rows {
    measures: usize,
    site: Vec<u32>,
    dimension: Vec<u32>,
    value: Vec<u32>,
    counts: Vec<u64>,
    visitors: Vec<u64>,
    visitors_end: Vec<usize>,
}

impl Rows {
    fn into_block(self, window_start_ms: i64, symbols: &Interner) -> RowBlock {
        // Each distinct symbol is compared as a string once; the rows then by the ranks of theirs.
        let mut used: Vec<u32> = [&self.site, &self.dimension, &self.value].into_iter().flatten().copied().collect();
        used.sort_unstable();
        used.dedup();
        used.sort_unstable_by_key(|symbol| symbols.get(*symbol));
        let mut block = RowBlock::default();
        let mut rank = rustc_hash::FxHashMap::default();
        for symbol in used {
            rank.insert(symbol, block.strings.push(symbols.get(symbol)));
        }
        let mut order: Vec<(u32, u32, u32, u32)> = (0..self.site.len())
            .map(|row| (rank[&self.site[row]], rank[&self.dimension[row]], rank[&self.value[row]], row as u32))
            .collect();
        order.sort_unstable();
        for (site, dimension, value, row) in order {
            let row = row as usize;
            block.site.push(site);
            block.dimension.push(dimension);
            block.value.push(value);
            block.window_start_ms.push(window_start_ms);
            block.counts.extend_from_slice(&self.counts[row * self.measures..(row + 1) * self.measures]);
            let begin = if row == 0 { 0 } else { self.visitors_end[row - 1] };
            block.visitors.extend_from_slice(&self.visitors[begin..self.visitors_end[row]]);
            block.visitors_end.push(block.visitors.len());
        }
        block
    }
}
