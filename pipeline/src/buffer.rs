//! The events of one open window, column by column, and the rows they become.
//!
//! Sorting instead of hashing: the events are put in the order of their visitors once; then, one dimension after the
//! other, they are sorted by a number that holds the ranks of site, window and value, and that place. So each key's events
//! come together with its visitors ascending, and distinct visitors are counted exactly by looking at neighbours. Each
//! distinct string is compared as a string once a window, however many rows it is in.

use weir_schemas::{Dimension, Interner, Kind, Measure, RowBlock, SchemaVersion, WindowStart, WindowWidth};

/// Bit of `class` that says that a bot made the event; the bits below are the [`Kind`].
pub(crate) const BOT: u8 = 0x80;

/// The symbol of what is absent.
const NONE: u32 = 0;

/// Events that leave with one window. Symbols are those of the worker's [`Interner`].
#[derive(Debug)]
pub(crate) struct Buffer {
    site: Vec<u32>,
    /// How many windows before the one it leaves with the event counts for.
    lag: Vec<u32>,
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
    /// The measures, by their places, that an event of a class adds one to.
    adds: Vec<Vec<u8>>,
}

impl Layout {
    pub(crate) fn new(version: &SchemaVersion) -> Self {
        let adds = (0..=u8::MAX).map(|class| {
            let kind = Kind::from_wire(u32::from(class & !BOT));
            let counts = |measure: &Measure| kind.is_some_and(|kind| measure.counts(kind, class & BOT != 0));
            let places = version.measures.iter().enumerate().filter(|(_, measure)| counts(measure));
            places.map(|(place, _)| place as u8).collect()
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
            lag: Vec::new(),
            visitor: Vec::new(),
            class: Vec::new(),
            columns: vec![Vec::new(); layout.columns.len()],
            prop_event: Vec::new(),
            prop_dimension: Vec::new(),
            prop_value: Vec::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.site.is_empty()
    }

    /// Memory that the events take, bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.site.len() * Self::row_bytes(self.columns.len()) + self.prop_event.len() * 12
    }

    /// Memory that one event without properties takes, bytes.
    pub(crate) fn row_bytes(columns: usize) -> usize {
        4 + 4 + 8 + 1 + 4 * columns
    }

    /// Adds an event that counts for the window `lag` windows before the one it leaves with.
    pub(crate) fn push(&mut self, row: &Row<'_>, lag: u32) {
        let event = self.site.len() as u32;
        self.site.push(row.site);
        self.lag.push(lag);
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

    /// The rows of these events, which leave with `window`, sorted by their strings.
    pub(crate) fn rows(
        &self,
        layout: &Layout,
        window: WindowStart,
        width: WindowWidth,
        symbols: &mut Interner,
    ) -> RowBlock {
        let site_name = symbols.intern(Dimension::Site.name());
        let names: Vec<u32> = layout.columns.iter().map(|dimension| symbols.intern(dimension.name())).collect();
        let more = [&[site_name, NONE], names.as_slice(), &self.site, &self.prop_dimension, &self.prop_value];
        let ranks = Ranks::of(symbols, &self.columns, more);
        let by_visitor = self.by_visitor();
        let mut rows = Rows::new(self, &by_visitor, layout, &ranks);
        if layout.has_site {
            rows.group(site_name, (0..self.site.len()).map(|place| (place, NONE)));
        }
        for (name, column) in names.iter().zip(&self.columns) {
            let values = by_visitor.iter().enumerate().map(|(place, event)| (place, column[*event as usize]));
            rows.group(*name, values.filter(|(_, value)| *value != NONE));
        }
        self.group_props(&by_visitor, &mut rows);
        rows.into_block(window, width)
    }

    /// The events in the order of their visitors.
    fn by_visitor(&self) -> Vec<u32> {
        let packed = self.visitor.iter().enumerate();
        let mut packed: Vec<u128> =
            packed.map(|(event, visitor)| u128::from(*visitor) << 32 | event as u128).collect();
        packed.sort_unstable();
        packed.into_iter().map(|packed| packed as u32).collect()
    }

    /// Properties: as for the other dimensions, one property's name after the other.
    fn group_props(&self, by_visitor: &[u32], rows: &mut Rows<'_>) {
        if self.prop_event.is_empty() {
            return;
        }
        let mut place_of = vec![0u32; self.site.len()];
        by_visitor.iter().enumerate().for_each(|(place, event)| place_of[*event as usize] = place as u32);
        let mut order: Vec<u32> = (0..self.prop_event.len() as u32).collect();
        order.sort_unstable_by_key(|prop| self.prop_dimension[*prop as usize]);
        for props in order.chunk_by(|a, b| self.prop_dimension[*a as usize] == self.prop_dimension[*b as usize]) {
            let values = props.iter().map(|prop| {
                let at = *prop as usize;
                (place_of[self.prop_event[at] as usize] as usize, self.prop_value[at])
            });
            rows.group(self.prop_dimension[props[0] as usize], values);
        }
    }
}

/// The symbols that a window uses, in the order of their strings.
struct Ranks {
    /// Per symbol; of those that are not used, nothing.
    rank: Vec<u32>,
    strings: weir_schemas::Strings,
}

impl Ranks {
    fn of(symbols: &Interner, columns: &[Vec<u32>], more: [&[u32]; 5]) -> Ranks {
        const UNUSED: u32 = u32::MAX;
        let mut rank = vec![UNUSED; symbols.len()];
        // With the first bytes beside it, most comparisons need not look at the string.
        let mut used: Vec<(u64, u32)> = Vec::new();
        for symbol in columns.iter().map(Vec::as_slice).chain(more).flatten() {
            let seen = &mut rank[*symbol as usize];
            if *seen == UNUSED {
                *seen = 0;
                used.push((first_bytes(symbols.get(*symbol)), *symbol));
            }
        }
        used.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| symbols.get(a.1).cmp(symbols.get(b.1))));
        let mut strings = weir_schemas::Strings::default();
        for (_, symbol) in used {
            rank[symbol as usize] = strings.push(symbols.get(symbol));
        }
        Ranks { rank, strings }
    }
}

/// Orders as the strings do, where it differs.
fn first_bytes(text: &str) -> u64 {
    let mut bytes = [0; 8];
    let length = text.len().min(8);
    bytes[..length].copy_from_slice(&text.as_bytes()[..length]);
    u64::from_be_bytes(bytes)
}

/// Numbers of a few parts each, the first part highest.
trait Packed: Copy + Ord {
    fn pack(parts: [u32; 4], bits: &Bits) -> Self;
    fn part(self, shift: u32, bits: u32) -> u32;
    /// Without the last part.
    fn key(self, bits: &Bits) -> Self;
}

/// How many bits site, lag, value and place need.
struct Bits([u32; 4]);

impl Bits {
    fn all(&self) -> u32 {
        self.0.iter().sum()
    }
}

macro_rules! packed {
    ($number:ty) => {
        impl Packed for $number {
            fn pack(parts: [u32; 4], bits: &Bits) -> Self {
                let mut number = <$number>::from(parts[0]);
                for place in 1..4 {
                    number = number << bits.0[place] | <$number>::from(parts[place]);
                }
                number
            }

            fn part(self, shift: u32, bits: u32) -> u32 {
                (self >> shift) as u32 & ((1u64 << bits) - 1) as u32
            }

            fn key(self, bits: &Bits) -> Self {
                self >> bits.0[3]
            }
        }
    };
}

packed!(u64);
packed!(u128);

/// Rows of a window, one dimension after the other, of ranks.
struct Rows<'a> {
    layout: &'a Layout,
    ranks: &'a Ranks,
    /// Of each event, in the order of the visitors.
    visitor: Vec<u64>,
    class: Vec<u8>,
    /// Rank of the site, and how far its window lies behind the earliest.
    site: Vec<u32>,
    ahead: Vec<u32>,
    lag_max: u32,
    out: Columns,
    segments: Vec<Segment>,
}

#[derive(Default)]
struct Columns {
    value: Vec<u32>,
    lag: Vec<u32>,
    counts: Vec<u64>,
    visitors: Vec<u64>,
    visitors_end: Vec<usize>,
}

/// The rows `begin..end` are those of a site and dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Segment {
    site: u32,
    dimension: u32,
    begin: usize,
    end: usize,
}

impl<'a> Rows<'a> {
    fn new(buffer: &Buffer, by_visitor: &[u32], layout: &'a Layout, ranks: &'a Ranks) -> Rows<'a> {
        let lag_max = buffer.lag.iter().copied().max().unwrap_or(0);
        let events = || by_visitor.iter().map(|event| *event as usize);
        Rows {
            layout,
            ranks,
            visitor: events().map(|event| buffer.visitor[event]).collect(),
            class: events().map(|event| buffer.class[event]).collect(),
            site: events().map(|event| ranks.rank[buffer.site[event] as usize]).collect(),
            ahead: events().map(|event| lag_max - buffer.lag[event]).collect(),
            lag_max,
            out: Columns::default(),
            segments: Vec::new(),
        }
    }

    /// Makes a row of each site, window and value of a dimension; `values` are places and symbols.
    fn group(&mut self, dimension: u32, values: impl Iterator<Item = (usize, u32)>) {
        let bits = |largest: usize| usize::BITS - largest.leading_zeros();
        let rank_bits = bits(self.ranks.strings.len());
        let bits = Bits([rank_bits, bits(self.lag_max as usize), rank_bits, bits(self.class.len())]);
        // Two to the 64 is enough for any but a huge window.
        match bits.all() {
            0..=64 => self.group_packed::<u64>(dimension, values, &bits),
            _ => self.group_packed::<u128>(dimension, values, &bits),
        }
    }

    fn group_packed<K: Packed>(&mut self, dimension: u32, values: impl Iterator<Item = (usize, u32)>, bits: &Bits) {
        let rank = &self.ranks.rank;
        let pack = |(place, value): (usize, u32)| {
            K::pack([self.site[place], self.ahead[place], rank[value as usize], place as u32], bits)
        };
        let mut packed: Vec<K> = values.map(pack).collect();
        packed.sort_unstable();
        let [_, lag_bits, value_bits, place_bits] = bits.0;
        let out = &mut self.out;
        for group in packed.chunk_by(|a, b| a.key(bits) == b.key(bits)) {
            let counts_begin = out.counts.len();
            out.counts.resize(counts_begin + self.layout.measures, 0);
            let visitors_begin = out.visitors.len();
            for event in group {
                let place = event.part(0, place_bits) as usize;
                let (class, visitor) = (self.class[place], self.visitor[place]);
                for measure in &self.layout.adds[class as usize] {
                    out.counts[counts_begin + *measure as usize] += 1;
                }
                let known = out.visitors[visitors_begin..].last() == Some(&visitor);
                if class & BOT == 0 && visitor != 0 && !known {
                    out.visitors.push(visitor);
                }
            }
            let row = out.value.len();
            out.value.push(group[0].part(place_bits, value_bits));
            out.lag.push(self.lag_max - group[0].part(place_bits + value_bits, lag_bits));
            out.visitors_end.push(out.visitors.len());
            let site = self.site[group[0].part(0, place_bits) as usize];
            let dimension = rank[dimension as usize];
            match self.segments.last_mut() {
                Some(last) if (last.site, last.dimension) == (site, dimension) => last.end = row + 1,
                _ => self.segments.push(Segment { site, dimension, begin: row, end: row + 1 }),
            }
        }
    }

    fn into_block(mut self, window: WindowStart, width: WindowWidth) -> RowBlock {
        self.segments.sort_unstable();
        let (rows, measures, from) = (self.out.value.len(), self.layout.measures, &self.out);
        let mut block = RowBlock {
            site: Vec::with_capacity(rows),
            dimension: Vec::with_capacity(rows),
            value: Vec::with_capacity(rows),
            window_start_ms: Vec::with_capacity(rows),
            counts: Vec::with_capacity(from.counts.len()),
            visitors: Vec::with_capacity(from.visitors.len()),
            visitors_end: Vec::with_capacity(rows),
            strings: self.ranks.strings.clone(),
        };
        for Segment { site, dimension, begin, end } in self.segments {
            block.site.resize(block.site.len() + end - begin, site);
            block.dimension.resize(block.dimension.len() + end - begin, dimension);
            block.value.extend_from_slice(&from.value[begin..end]);
            let starts = from.lag[begin..end].iter().map(|lag| window.ms() - i64::from(*lag) * width.ms());
            block.window_start_ms.extend(starts);
            block.counts.extend_from_slice(&from.counts[begin * measures..end * measures]);
            let visitors_begin = if begin == 0 { 0 } else { from.visitors_end[begin - 1] };
            let shift = block.visitors.len();
            block.visitors.extend_from_slice(&from.visitors[visitors_begin..from.visitors_end[end - 1]]);
            block.visitors_end.extend(from.visitors_end[begin..end].iter().map(|at| at - visitors_begin + shift));
        }
        block
    }
}
