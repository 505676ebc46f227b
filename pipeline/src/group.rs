//! The rows that a window's events become.
//!
//! Sorting instead of hashing: the events are put in the order of their visitors once; then, one dimension after the
//! other, they are sorted by a number that holds the ranks of site, window and value, and that place. So each key's events
//! come together with its visitors ascending, and distinct visitors are counted exactly by looking at neighbours. Each
//! distinct string is compared as a string once a window, however many rows it is in.
//!
//! Rows may be many times their events: a path that nobody else has asked for is a row of its own, and its visitor is in
//! a row of every dimension. So they leave in parts of a bounded size, of which each is a sorted run.

use std::io;

use weir_schemas::{Dimension, Interner, RowBlock, Strings, WindowStart, WindowWidth};

use crate::{
    buffer::{BOT, Buffer, Layout, NONE},
    runs::{RowRef, row_bytes},
};

/// Memory that grouping takes for an event, beside the rows, bytes: [`Events`] has 37, a number to sort by 16, its place 4.
pub(crate) const GROUPED_EVENT_BYTES: usize = 37 + 16 + 4;

/// Makes rows; keeps its room from window to window.
#[derive(Debug, Default)]
pub(crate) struct Grouper {
    ranks: Ranks,
    events: Events,
    rows: Rows,
    segments: Vec<Segment>,
    place_of: Vec<u32>,
    narrow: Vec<u64>,
    wide: Vec<u128>,
}

/// Some of a window's rows, sorted by their strings; each key is in one part.
pub(crate) struct Part<'a> {
    rows: &'a Rows,
    segments: &'a [Segment],
    strings: &'a Strings,
    measures: usize,
    window: WindowStart,
    width: WindowWidth,
    /// There is no other part of the window's rows.
    whole: bool,
}

/// Where rows go while they are made.
struct Parts<'a, F> {
    rows: &'a mut Rows,
    segments: &'a mut Vec<Segment>,
    strings: &'a Strings,
    measures: usize,
    window: WindowStart,
    width: WindowWidth,
    bytes_max: usize,
    given: bool,
    each: F,
}

impl<F: FnMut(Part<'_>) -> io::Result<()>> Parts<'_, F> {
    /// Gives the rows away once they are as many as a part may have.
    fn row_ended(&mut self) -> io::Result<()> {
        if self.rows.bytes() < self.bytes_max { Ok(()) } else { self.give(false) }
    }

    fn give(&mut self, last: bool) -> io::Result<()> {
        if self.segments.is_empty() {
            return Ok(());
        }
        self.segments.sort_unstable();
        let whole = last && !self.given;
        let Self { rows, segments, strings, measures, window, width, each, .. } = self;
        each(Part { rows, segments, strings, measures: *measures, window: *window, width: *width, whole })?;
        self.given = true;
        self.segments.clear();
        self.rows.clear();
        Ok(())
    }
}

impl Grouper {
    /// Memory that it keeps, bytes.
    pub(crate) fn bytes(&self) -> usize {
        let Self { rows, place_of, narrow, wide, .. } = self;
        self.ranks.bytes()
            + self.events.packed.capacity() * 37
            + row_bytes(rows.value.capacity(), rows.counts.capacity(), rows.visitors.capacity())
            + place_of.capacity() * 4
            + narrow.capacity() * 8
            + wide.capacity() * 16
    }

    /// Gives `each` the rows of these events, which leave with `window`, in parts of about `part_bytes_max`.
    #[allow(clippy::too_many_arguments, reason = "what a window's rows are made of, and where they go")]
    pub(crate) fn rows(
        &mut self,
        buffer: &Buffer,
        layout: &Layout,
        window: WindowStart,
        width: WindowWidth,
        symbols: &mut Interner,
        part_bytes_max: usize,
        each: impl FnMut(Part<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let site_name = symbols.intern(Dimension::Site.name());
        let names: Vec<u32> = layout.names.iter().map(|name| symbols.intern(name)).collect();
        let more = [&[site_name, NONE], names.as_slice(), &buffer.site, &buffer.prop_dimension, &buffer.prop_value];
        let used = buffer.columns.iter().map(Vec::as_slice).chain(more).flatten().copied();
        let strings = self.ranks.set(symbols, used);
        self.events.set(buffer, &self.ranks);
        let events = std::mem::take(&mut self.events.order);
        let (mut rows, mut segments) = (std::mem::take(&mut self.rows), std::mem::take(&mut self.segments));
        let mut parts = Parts {
            rows: &mut rows,
            segments: &mut segments,
            strings: &strings,
            measures: layout.measures,
            window,
            width,
            bytes_max: part_bytes_max,
            given: false,
            each,
        };
        let places = || events.iter().copied().enumerate();
        if layout.has_site {
            self.group(site_name, layout, &mut parts, places().map(|(place, _)| (place, NONE)))?;
        }
        for (name, column) in names.iter().zip(&buffer.columns) {
            let values = places().map(|(place, event)| (place, column[event as usize]));
            self.group(*name, layout, &mut parts, values.filter(|(_, value)| *value != NONE))?;
        }
        if !buffer.prop_event.is_empty() {
            self.group_props(buffer, layout, &mut parts, &events)?;
        }
        parts.give(true)?;
        self.events.order = events;
        (self.rows, self.segments) = (rows, segments);
        self.ranks.clear();
        Ok(())
    }

    /// Properties: as for the other dimensions, one property's name after the other.
    fn group_props<F: FnMut(Part<'_>) -> io::Result<()>>(
        &mut self,
        buffer: &Buffer,
        layout: &Layout,
        parts: &mut Parts<'_, F>,
        events: &[u32],
    ) -> io::Result<()> {
        let mut place_of = std::mem::take(&mut self.place_of);
        place_of.resize(events.len(), 0);
        events.iter().enumerate().for_each(|(place, event)| place_of[*event as usize] = place as u32);
        let mut order: Vec<u32> = (0..buffer.prop_event.len() as u32).collect();
        let name = |prop: &u32| buffer.prop_dimension[*prop as usize];
        order.sort_unstable_by_key(name);
        for props in order.chunk_by(|a, b| name(a) == name(b)) {
            let values = props.iter().map(|prop| {
                let at = *prop as usize;
                (place_of[buffer.prop_event[at] as usize] as usize, buffer.prop_value[at])
            });
            self.group(name(&props[0]), layout, parts, values)?;
        }
        self.place_of = place_of;
        Ok(())
    }

    /// Makes a row of each site, window and value of a dimension; `values` are places and symbols.
    fn group<F: FnMut(Part<'_>) -> io::Result<()>>(
        &mut self,
        name: u32,
        layout: &Layout,
        parts: &mut Parts<'_, F>,
        values: impl Iterator<Item = (usize, u32)>,
    ) -> io::Result<()> {
        let bits = |largest: usize| usize::BITS - largest.leading_zeros();
        let (rank_bits, lag_bits) = (bits(parts.strings.len()), bits(self.events.lag_max as usize));
        let bits = Bits([rank_bits, lag_bits, rank_bits, bits(self.events.class.len())]);
        let name = self.ranks.rank[name as usize];
        let (ranks, events) = (&self.ranks, &self.events);
        // Enough for any but a huge window.
        match bits.all() <= u64::BITS {
            true => group(name, layout, ranks, events, parts, values, &bits, &mut self.narrow),
            false => group(name, layout, ranks, events, parts, values, &bits, &mut self.wide),
        }
    }
}

#[allow(clippy::too_many_arguments, reason = "the parts of a grouper, of which one is of two types")]
fn group<K: Packed, F: FnMut(Part<'_>) -> io::Result<()>>(
    name: u32,
    layout: &Layout,
    ranks: &Ranks,
    events: &Events,
    parts: &mut Parts<'_, F>,
    values: impl Iterator<Item = (usize, u32)>,
    bits: &Bits,
    packed: &mut Vec<K>,
) -> io::Result<()> {
    packed.clear();
    packed.extend(values.map(|(place, value)| {
        K::pack([events.site[place], events.ahead[place], ranks.rank[value as usize], place as u32], bits)
    }));
    packed.sort_unstable();
    let [_, lag_bits, value_bits, place_bits] = bits.0;
    for same in packed.chunk_by(|a, b| a.key(bits) == b.key(bits)) {
        let Parts { rows, segments, .. } = parts;
        let counts_begin = rows.counts.len();
        rows.counts.resize(counts_begin + layout.measures, 0);
        let visitors_begin = rows.visitors.len();
        for event in same {
            let place = event.part(0, place_bits) as usize;
            let (class, visitor) = (events.class[place], events.visitor[place]);
            for measure in &layout.adds[class as usize] {
                rows.counts[counts_begin + *measure as usize] += 1;
            }
            let known = rows.visitors[visitors_begin..].last() == Some(&visitor);
            if class & BOT == 0 && visitor != 0 && !known {
                rows.visitors.push(visitor);
            }
        }
        let row = rows.value.len();
        rows.value.push(same[0].part(place_bits, value_bits));
        rows.lag.push(events.lag_max - same[0].part(place_bits + value_bits, lag_bits));
        rows.visitors_end.push(rows.visitors.len());
        let site = events.site[same[0].part(0, place_bits) as usize];
        match segments.last_mut() {
            Some(last) if (last.site, last.dimension) == (site, name) => last.end = row + 1,
            _ => segments.push(Segment { site, dimension: name, begin: row, end: row + 1 }),
        }
        parts.row_ended()?;
    }
    Ok(())
}

/// The symbols that a window uses, by the order of their strings.
#[derive(Debug, Default)]
struct Ranks {
    /// Per symbol; [`UNUSED`] of those that are not.
    rank: Vec<u32>,
    /// With the first bytes of its string beside each, so that most comparisons need not look at it.
    used: Vec<(u64, u32)>,
}

const UNUSED: u32 = u32::MAX;

impl Ranks {
    fn bytes(&self) -> usize {
        self.rank.capacity() * 4 + self.used.capacity() * 16
    }

    /// Ranks the symbols that are used; gives their strings, in order.
    fn set(&mut self, symbols: &Interner, used: impl Iterator<Item = u32>) -> Strings {
        self.rank.resize(symbols.len().max(self.rank.len()), UNUSED);
        for symbol in used {
            let rank = &mut self.rank[symbol as usize];
            if *rank == UNUSED {
                *rank = 0;
                self.used.push((first_bytes(symbols.get(symbol)), symbol));
            }
        }
        self.used.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| symbols.get(a.1).cmp(symbols.get(b.1))));
        let mut strings = Strings::default();
        for (_, symbol) in &self.used {
            self.rank[*symbol as usize] = strings.push(symbols.get(*symbol));
        }
        strings
    }

    fn clear(&mut self) {
        self.used.drain(..).for_each(|(_, symbol)| self.rank[symbol as usize] = UNUSED);
    }
}

/// Orders as the strings do, where it differs.
fn first_bytes(text: &str) -> u64 {
    let mut bytes = [0; 8];
    let length = text.len().min(8);
    bytes[..length].copy_from_slice(&text.as_bytes()[..length]);
    u64::from_be_bytes(bytes)
}

/// A window's events in the order of their visitors.
#[derive(Debug, Default)]
struct Events {
    packed: Vec<u128>,
    /// Their numbers in the buffer.
    order: Vec<u32>,
    visitor: Vec<u64>,
    class: Vec<u8>,
    /// Ranks of the sites.
    site: Vec<u32>,
    /// How many windows after the earliest they count for.
    ahead: Vec<u32>,
    /// Of the earliest window, before the one that they leave with.
    lag_max: u32,
}

impl Events {
    fn set(&mut self, buffer: &Buffer, ranks: &Ranks) {
        let Self { packed, order, visitor, class, site, ahead, lag_max } = self;
        packed.clear();
        packed.extend(buffer.visitor.iter().enumerate().map(|(event, id)| u128::from(*id) << 32 | event as u128));
        packed.sort_unstable();
        *lag_max = buffer.lag.iter().copied().max().unwrap_or(0);
        [order as &mut Vec<u32>, site, ahead].into_iter().for_each(Vec::clear);
        visitor.clear();
        class.clear();
        for packed in packed {
            let event = *packed as u32 as usize;
            order.push(event as u32);
            visitor.push((*packed >> 32) as u64);
            class.push(buffer.class[event]);
            site.push(ranks.rank[buffer.site[event] as usize]);
            ahead.push(*lag_max - buffer.lag[event]);
        }
    }
}

/// The rows `begin..end` are those of a site and dimension, both as ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Segment {
    site: u32,
    dimension: u32,
    begin: usize,
    end: usize,
}

/// Rows as they were found: one dimension after the other, and within it in order.
#[derive(Debug, Default)]
struct Rows {
    value: Vec<u32>,
    lag: Vec<u32>,
    counts: Vec<u64>,
    visitors: Vec<u64>,
    visitors_end: Vec<usize>,
}

impl Rows {
    fn clear(&mut self) {
        self.value.clear();
        self.lag.clear();
        self.counts.clear();
        self.visitors.clear();
        self.visitors_end.clear();
    }

    fn bytes(&self) -> usize {
        row_bytes(self.value.len(), self.counts.len(), self.visitors.len())
    }

    /// Where the visitors of row `row` begin.
    fn visitors_begin(&self, row: usize) -> usize {
        if row == 0 { 0 } else { self.visitors_end[row - 1] }
    }
}

impl Part<'_> {
    fn window_start_ms(&self, row: usize) -> i64 {
        self.window.ms() - i64::from(self.rows.lag[row]) * self.width.ms()
    }

    /// Each row, in order.
    pub(crate) fn for_each(&self, mut each: impl FnMut(&RowRef<'_>) -> io::Result<()>) -> io::Result<()> {
        let Part { rows, strings, measures, .. } = self;
        for Segment { site, dimension, begin, end } in self.segments {
            let (site, dimension) = (strings.get(*site), strings.get(*dimension));
            for row in *begin..*end {
                each(&RowRef {
                    site,
                    dimension,
                    window_start_ms: self.window_start_ms(row),
                    value: strings.get(rows.value[row]),
                    counts: &rows.counts[row * measures..(row + 1) * measures],
                    visitors: &rows.visitors[rows.visitors_begin(row)..rows.visitors_end[row]],
                })?;
            }
        }
        Ok(())
    }

    /// Memory that its block takes, bytes, about.
    pub(crate) fn bytes(&self) -> usize {
        let (rows, strings) = (self.rows.value.len(), self.strings.len());
        // Of a part, as many as it has rows, and these as long as all are.
        let share = if self.whole { strings } else { rows.min(strings) };
        self.rows.bytes() + self.strings.bytes() / strings * share
    }

    /// The rows in order, with the strings that they use.
    pub(crate) fn block(&self) -> RowBlock {
        let Part { rows: Rows { value, counts, visitors, visitors_end, .. }, segments, measures, .. } = self;
        let rows = value.len();
        let mut used = if self.whole { Used::all(self.strings) } else { Used::new(self.strings) };
        let mut block = RowBlock {
            site: Vec::with_capacity(rows),
            dimension: Vec::with_capacity(rows),
            value: Vec::with_capacity(rows),
            window_start_ms: Vec::with_capacity(rows),
            counts: Vec::with_capacity(counts.len()),
            visitors: Vec::with_capacity(visitors.len()),
            visitors_end: Vec::with_capacity(rows),
            strings: Strings::default(),
        };
        for &Segment { site, dimension, begin, end } in *segments {
            block.value.extend(value[begin..end].iter().map(|value| used.place(*value)));
            block.site.resize(block.value.len(), used.place(site));
            block.dimension.resize(block.value.len(), used.place(dimension));
            block.window_start_ms.extend((begin..end).map(|row| self.window_start_ms(row)));
            block.counts.extend_from_slice(&counts[begin * measures..end * measures]);
            let first = self.rows.visitors_begin(begin);
            let shift = block.visitors.len();
            block.visitors.extend_from_slice(&visitors[first..visitors_end[end - 1]]);
            block.visitors_end.extend(visitors_end[begin..end].iter().map(|at| at - first + shift));
        }
        block.strings = used.into_strings();
        block
    }
}

/// Those strings of a block or window that a block of some of its rows uses.
pub(crate) struct Used<'a> {
    all: &'a Strings,
    /// Of each string of `all` its place in `strings`, or [`UNUSED`].
    places: Vec<u32>,
    strings: Strings,
}

impl<'a> Used<'a> {
    pub(crate) fn new(all: &'a Strings) -> Self {
        Self { all, places: vec![UNUSED; all.len()], strings: Strings::default() }
    }

    /// As if each were used.
    fn all(all: &'a Strings) -> Self {
        Self { all, places: (0..all.len() as u32).collect(), strings: all.clone() }
    }

    pub(crate) fn place(&mut self, index: u32) -> u32 {
        let place = &mut self.places[index as usize];
        if *place == UNUSED {
            *place = self.strings.push(self.all.get(index));
        }
        *place
    }

    pub(crate) fn into_strings(self) -> Strings {
        self.strings
    }
}

/// Numbers of four parts, the first highest: site, how far ahead, value, place.
trait Packed: Copy + Ord {
    fn pack(parts: [u32; 4], bits: &Bits) -> Self;
    fn part(self, shift: u32, bits: u32) -> u32;
    /// All but the place.
    fn key(self, bits: &Bits) -> Self;
}

/// How many bits each part has.
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
                for part in 1..4 {
                    number = number << bits.0[part] | <$number>::from(parts[part]);
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn first_bytes_order_as_the_strings_do_where_they_differ(a in ".{0,12}", b in ".{0,12}") {
            let (first_a, first_b) = (first_bytes(&a), first_bytes(&b));
            if first_a != first_b {
                prop_assert_eq!(first_a.cmp(&first_b), a.cmp(&b));
            }
        }

        #[test]
        fn wide_and_narrow_numbers_hold_the_same_parts(parts: [u16; 4]) {
            let (parts, bits) = (parts.map(u32::from), Bits([16; 4]));
            let (narrow, wide) = (u64::pack(parts, &bits), u128::pack(parts, &bits));
            prop_assert_eq!(u128::from(narrow), wide);
            for (shift, part) in [(0, parts[3]), (16, parts[2]), (32, parts[1]), (48, parts[0])] {
                prop_assert_eq!((narrow.part(shift, 16), wide.part(shift, 16)), (part, part));
            }
        }
    }
}
