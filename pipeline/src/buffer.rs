//! The events of one open window, column by column.

use weir_schemas::{Dimension, Kind, Measure, SchemaVersion};

/// Bit of `class` that says that a bot made the event; the bits below are the [`Kind`].
pub(crate) const BOT: u8 = 0x80;

/// The symbol of what is absent.
pub(crate) const NONE: u32 = 0;

/// Events that leave with one window. Symbols are those of the worker's interner.
#[derive(Debug)]
pub(crate) struct Buffer {
    pub(crate) site: Vec<u32>,
    /// How many windows before the one it leaves with the event counts for.
    pub(crate) lag: Vec<u32>,
    pub(crate) visitor: Vec<u64>,
    pub(crate) class: Vec<u8>,
    /// One column for each of [`Layout::columns`].
    pub(crate) columns: Vec<Vec<u32>>,
    pub(crate) prop_event: Vec<u32>,
    pub(crate) prop_dimension: Vec<u32>,
    pub(crate) prop_value: Vec<u32>,
}

/// Where a schema version's dimensions are in a [`Buffer`].
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) has_site: bool,
    pub(crate) has_props: bool,
    /// All others, in the version's order.
    pub(crate) columns: Vec<Dimension>,
    /// What the version calls them.
    pub(crate) names: Vec<String>,
    pub(crate) measures: usize,
    /// The measures, by their places, that an event of a class adds one to.
    pub(crate) adds: Vec<Vec<u8>>,
}

impl Layout {
    pub(crate) fn new(version: &SchemaVersion) -> Self {
        let adds = (0..=u8::MAX).map(|class| {
            let kind = Kind::from_wire(u32::from(class & !BOT));
            let counts = |measure: &Measure| kind.is_some_and(|kind| measure.counts(kind, class & BOT != 0));
            let places = version.measures.iter().enumerate().filter(|(_, measure)| counts(measure));
            places.map(|(place, _)| place as u8).collect()
        });
        let others = |dimension: &Dimension| !matches!(dimension, Dimension::Site | Dimension::Props);
        let columns: Vec<Dimension> = version.dimensions.iter().copied().filter(others).collect();
        Self {
            has_site: version.dimensions.contains(&Dimension::Site),
            has_props: version.dimensions.contains(&Dimension::Props),
            names: columns.iter().map(|dimension| version.names.of(*dimension).to_owned()).collect(),
            columns,
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

    /// Takes all events out; their room stays.
    pub(crate) fn clear(&mut self) {
        self.site.clear();
        self.lag.clear();
        self.visitor.clear();
        self.class.clear();
        self.columns.iter_mut().for_each(Vec::clear);
        self.prop_event.clear();
        self.prop_dimension.clear();
        self.prop_value.clear();
    }

    /// Memory that it takes, bytes: what was taken out has left its room behind.
    pub(crate) fn bytes(&self) -> usize {
        self.site.capacity() * Self::row_bytes(self.columns.len()) + self.prop_event.capacity() * 12
    }

    /// Events, and their properties.
    pub(crate) fn len(&self) -> usize {
        self.site.len() + self.prop_event.len()
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
}
