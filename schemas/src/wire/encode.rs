use super::{End, fields::*};
use crate::{Event, Interner};

/// Writes events into one `EventBatch`. Each distinct string is stored once.
#[derive(Debug)]
pub struct BatchBuilder {
    collector: [u8; 16],
    sequence: u64,
    base_ms: i64,
    strings: Interner,
    received: Vec<u64>,
    claim: Vec<u64>,
    visitor: Vec<u64>,
    /// Columns of small numbers, in the order of [`COLUMNS`].
    columns: [Vec<u32>; COLUMNS.len()],
    prop_names: Vec<u32>,
    prop_values: Vec<u32>,
}

/// Fields of [`BatchBuilder::columns`].
const COLUMNS: [u32; 15] =
    [KIND, SITE, ID, HOST, PAGE, QUERY, REFERRER, USER_AGENT, COUNTRY, NAME, TARGET, TITLE, SCREEN, LANGUAGE, PROPS];

/// A varint of 64 bits.
const VARINT_BYTES_MAX: usize = 10;
/// An index or a count: at most 2^28 of them fit into a batch.
const INDEX_BYTES_MAX: usize = 4;
/// Two times, the visitor, and an entry in each of [`COLUMNS`].
const EVENT_BYTES_MAX: usize = 2 * VARINT_BYTES_MAX + 8 + COLUMNS.len() * INDEX_BYTES_MAX;
/// Tag and length of a string in the table.
const STRING_BYTES_MAX: usize = 1 + INDEX_BYTES_MAX;
/// Everything that is there once: names, counts, and tag and length of each column.
const BATCH_BYTES_BASE: usize = 18 + 3 * (2 + VARINT_BYTES_MAX) + (COLUMNS.len() + 5) * (2 + INDEX_BYTES_MAX);

impl BatchBuilder {
    /// An empty batch, named by the pair; the pair must never name another.
    pub fn new(collector: [u8; 16], sequence: u64) -> Self {
        Self {
            collector,
            sequence,
            base_ms: 0,
            strings: Interner::default(),
            received: Vec::new(),
            claim: Vec::new(),
            visitor: Vec::new(),
            columns: Default::default(),
            prop_names: Vec::new(),
            prop_values: Vec::new(),
        }
    }

    /// Adds an event; its strings must be within the limits.
    pub fn push(&mut self, event: &Event) {
        if self.is_empty() {
            self.base_ms = event.received_ms;
        }
        self.received.push(zigzag(event.received_ms.wrapping_sub(self.base_ms)));
        self.claim.push(match event.claimed_ms {
            None => 0,
            // The one claim that the field cannot say, 2^63 ms before its receipt, is said as none.
            Some(claimed_ms) => zigzag(event.received_ms.wrapping_sub(claimed_ms)).wrapping_add(1),
        });
        self.visitor.push(event.visitor);
        let texts = [
            &event.site,
            &event.id,
            &event.host,
            &event.page,
            &event.query,
            &event.referrer,
            &event.user_agent,
            &event.country,
            &event.name,
            &event.target,
            &event.title,
            &event.screen,
            &event.language,
        ];
        self.columns[0].push(event.kind as u32);
        for (column, text) in texts.into_iter().enumerate() {
            let index = self.strings.intern(text);
            self.columns[column + 1].push(index);
        }
        self.columns[COLUMNS.len() - 1].push(event.props.len() as u32);
        for (name, value) in &event.props {
            let (name, value) = (self.strings.intern(name), self.strings.intern(value));
            self.prop_names.push(name);
            self.prop_values.push(value);
        }
    }

    /// Events so far.
    pub fn len(&self) -> usize {
        self.received.len()
    }

    pub fn is_empty(&self) -> bool {
        self.received.is_empty()
    }

    /// At least as many bytes as [`finish`](Self::finish) gives.
    pub fn bytes_at_most(&self) -> usize {
        BATCH_BYTES_BASE
            + self.strings.text_bytes()
            + self.strings.len() * STRING_BYTES_MAX
            + self.len() * EVENT_BYTES_MAX
            + self.prop_names.len() * 2 * INDEX_BYTES_MAX
    }

    /// The encoded `EventBatch`.
    pub fn finish(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes_at_most());
        put_tag(&mut out, COLLECTOR, BYTES);
        put_varint(&mut out, self.collector.len() as u64);
        out.extend_from_slice(&self.collector);
        put_number(&mut out, SEQUENCE, self.sequence);
        put_number(&mut out, EVENTS, self.len() as u64);
        put_number(&mut out, BASE_MS, zigzag(self.base_ms));
        for index in 0..self.strings.len() as u32 {
            let text = self.strings.get(index).as_bytes();
            put_tag(&mut out, STRINGS, BYTES);
            put_varint(&mut out, text.len() as u64);
            out.extend_from_slice(text);
        }
        put_column(&mut out, RECEIVED, self.received.iter().copied());
        put_column(&mut out, CLAIM, self.claim.iter().copied());
        if self.visitor.iter().any(|visitor| *visitor != 0) {
            put_tag(&mut out, VISITOR, BYTES);
            put_varint(&mut out, self.visitor.len() as u64 * 8);
            self.visitor.iter().for_each(|visitor| out.extend_from_slice(&visitor.to_le_bytes()));
        }
        for (field, column) in COLUMNS.into_iter().zip(&self.columns) {
            put_column(&mut out, field, column.iter().map(|index| u64::from(*index)));
        }
        put_column_always(&mut out, PROP_NAMES, self.prop_names.iter().map(|index| u64::from(*index)));
        put_column_always(&mut out, PROP_VALUES, self.prop_values.iter().map(|index| u64::from(*index)));
        out
    }
}

/// A whole record around an encoded batch: what is appended.
pub fn batch_record(sent_ms: i64, batch: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(9 + 1 + VARINT_BYTES_MAX + batch.len());
    put_fixed(&mut out, RECORD_SENT_MS, sent_ms as u64);
    put_tag(&mut out, RECORD_BATCH, BYTES);
    put_varint(&mut out, batch.len() as u64);
    out.extend_from_slice(batch);
    out
}

/// A record that only moves the time.
pub fn tick_record(sent_ms: i64) -> Vec<u8> {
    let mut out = Vec::with_capacity(11);
    put_fixed(&mut out, RECORD_SENT_MS, sent_ms as u64);
    put_tag(&mut out, RECORD_TICK, BYTES);
    put_varint(&mut out, 0);
    out
}

/// The last record of a partition of an import.
pub fn end_record(sent_ms: i64, end: End) -> Vec<u8> {
    let mut inner = Vec::with_capacity(32);
    put_number(&mut inner, END_EVENTS, end.events);
    put_number(&mut inner, END_LAST_MS, zigzag(end.last_ms));
    put_fixed(&mut inner, END_DIGEST, end.digest);
    let mut out = Vec::with_capacity(11 + inner.len());
    put_fixed(&mut out, RECORD_SENT_MS, sent_ms as u64);
    put_tag(&mut out, RECORD_END, BYTES);
    put_varint(&mut out, inner.len() as u64);
    out.extend_from_slice(&inner);
    out
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn varint_len(number: u64) -> usize {
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}

fn put_tag(out: &mut Vec<u8>, field: u32, wire_type: u32) {
    put_varint(out, u64::from(field << 3 | wire_type));
}

fn put_number(out: &mut Vec<u8>, field: u32, number: u64) {
    put_tag(out, field, VARINT);
    put_varint(out, number);
}

fn put_fixed(out: &mut Vec<u8>, field: u32, number: u64) {
    put_tag(out, field, FIXED64);
    out.extend_from_slice(&number.to_le_bytes());
}

/// A packed column; a column of zeros is left out.
fn put_column(out: &mut Vec<u8>, field: u32, column: impl Iterator<Item = u64> + Clone) {
    if column.clone().any(|number| number != 0) {
        put_column_always(out, field, column);
    }
}

fn put_column_always(out: &mut Vec<u8>, field: u32, column: impl Iterator<Item = u64> + Clone) {
    let bytes: usize = column.clone().map(varint_len).sum();
    if bytes > 0 {
        put_tag(out, field, BYTES);
        put_varint(out, bytes as u64);
        column.for_each(|number| put_varint(out, number));
    }
}
