use super::{End, fields::*};
use crate::Kind;

/// A decoded record; strings are borrowed from the payload.
#[derive(Debug, PartialEq)]
pub struct RecordView<'a> {
    /// Writer's clock at the try to append, ms since the Unix epoch.
    pub sent_ms: i64,
    pub content: Content<'a>,
}

/// What a record holds.
#[derive(Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "nearly every record is a batch, and it is never moved far")]
pub enum Content<'a> {
    Batch(BatchView<'a>),
    Tick,
    End(End),
}

/// A decoded batch. A column of indices is empty (all absent) or has `events` entries, each below `strings.len()`;
/// `strings[0]` is empty.
#[derive(Debug, Default, PartialEq)]
pub struct BatchView<'a> {
    /// The `EventBatch` as it was encoded.
    pub encoded: &'a [u8],
    pub collector: [u8; 16],
    pub sequence: u64,
    pub events: usize,
    pub strings: Vec<&'a str>,
    /// ms since the Unix epoch; `events` entries.
    pub received_ms: Vec<i64>,
    /// ms since the Unix epoch, [`NO_CLAIM`] where there is none; empty or `events` entries.
    pub claimed_ms: Vec<i64>,
    /// Empty or `events` entries.
    pub visitor: Vec<u64>,
    /// Numbers of [`Kind`]; empty or `events` entries, all of them known kinds.
    pub kind: Vec<u32>,
    pub site: Vec<u32>,
    pub id: Vec<u32>,
    pub host: Vec<u32>,
    pub page: Vec<u32>,
    pub query: Vec<u32>,
    pub referrer: Vec<u32>,
    pub user_agent: Vec<u32>,
    pub country: Vec<u32>,
    pub name: Vec<u32>,
    pub target: Vec<u32>,
    pub title: Vec<u32>,
    pub screen: Vec<u32>,
    pub language: Vec<u32>,
    /// How many properties each event has; empty or `events` entries.
    pub props: Vec<u32>,
    /// Of all events, one after the other; as many as `props` adds up to.
    pub prop_names: Vec<u32>,
    pub prop_values: Vec<u32>,
}

/// Stands for "no claimed time".
pub const NO_CLAIM: i64 = i64::MIN;

/// Why a payload is not a record.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a weir record: {what} at byte {at}")]
pub struct WireError {
    pub what: &'static str,
    pub at: usize,
}

/// Decodes a record whole, or says why not; never panics, whatever the bytes.
///
/// Where a field that is there once comes twice, the last one counts, as protobuf has it.
pub fn decode(payload: &[u8]) -> Result<RecordView<'_>, WireError> {
    let mut input = Input { bytes: payload, at: 0 };
    let (mut sent_ms, mut content) = (0, None);
    while let Some((field, wire_type)) = input.tag()? {
        match (field, wire_type) {
            (RECORD_SENT_MS, FIXED64) => sent_ms = input.fixed64()? as i64,
            (RECORD_BATCH, BYTES) => content = Some(Content::Batch(batch(input.message()?)?)),
            (RECORD_TICK, BYTES) => {
                input.message()?;
                content = Some(Content::Tick);
            }
            (RECORD_END, BYTES) => content = Some(Content::End(end(input.message()?)?)),
            _ => input.skip(wire_type)?,
        }
    }
    let content = content.ok_or(WireError { what: "neither a batch nor a tick nor an end", at: payload.len() })?;
    Ok(RecordView { sent_ms, content })
}

fn end(mut input: Input<'_>) -> Result<End, WireError> {
    let mut end = End { events: 0, last_ms: 0, digest: 0 };
    while let Some((field, wire_type)) = input.tag()? {
        match (field, wire_type) {
            (END_EVENTS, VARINT) => end.events = input.varint()?,
            (END_LAST_MS, VARINT) => end.last_ms = unzigzag(input.varint()?),
            (END_DIGEST, FIXED64) => end.digest = input.fixed64()?,
            _ => input.skip(wire_type)?,
        }
    }
    Ok(end)
}

fn batch(mut input: Input<'_>) -> Result<BatchView<'_>, WireError> {
    let begin = input.at;
    let mut batch = BatchView { encoded: &input.bytes[begin..], ..BatchView::default() };
    let (mut events, mut base_ms) = (0, 0);
    let (mut received, mut claim) = (Vec::new(), Vec::new());
    while let Some((field, wire_type)) = input.tag()? {
        match (field, wire_type) {
            (COLLECTOR, BYTES) => {
                let at = input.at;
                let name = input.message()?;
                let name = &name.bytes[name.at..];
                batch.collector = name.try_into().map_err(|_| WireError { what: "a collector of not 16 bytes", at })?;
            }
            (SEQUENCE, VARINT) => batch.sequence = input.varint()?,
            (EVENTS, VARINT) => events = input.varint()?,
            (BASE_MS, VARINT) => base_ms = unzigzag(input.varint()?),
            (STRINGS, BYTES) => batch.strings.push(input.text()?),
            (RECEIVED, _) => input.column(wire_type, &mut received, |number| Some(unzigzag(number)))?,
            (CLAIM, _) => input.column(wire_type, &mut claim, Some)?,
            (VISITOR, BYTES) => {
                let mut column = input.message()?;
                batch.visitor.reserve((column.bytes.len() - column.at) / 8);
                while column.at < column.bytes.len() {
                    batch.visitor.push(column.fixed64()?);
                }
            }
            (VISITOR, FIXED64) => batch.visitor.push(input.fixed64()?),
            _ => match batch.column_of(field) {
                Some(column) => input.column(wire_type, column, |number| u32::try_from(number).ok())?,
                None => input.skip(wire_type)?,
            },
        }
    }
    batch.check(events, base_ms, received, &claim).map_err(|what| WireError { what, at: begin })?;
    Ok(batch)
}

impl BatchView<'_> {
    /// The column of small numbers with this field number.
    fn column_of(&mut self, field: u32) -> Option<&mut Vec<u32>> {
        Some(match field {
            KIND => &mut self.kind,
            SITE => &mut self.site,
            ID => &mut self.id,
            HOST => &mut self.host,
            PAGE => &mut self.page,
            QUERY => &mut self.query,
            REFERRER => &mut self.referrer,
            USER_AGENT => &mut self.user_agent,
            COUNTRY => &mut self.country,
            NAME => &mut self.name,
            TARGET => &mut self.target,
            TITLE => &mut self.title,
            SCREEN => &mut self.screen,
            LANGUAGE => &mut self.language,
            PROPS => &mut self.props,
            PROP_NAMES => &mut self.prop_names,
            PROP_VALUES => &mut self.prop_values,
            _ => return None,
        })
    }

    /// Makes the times whole, and checks everything that the type promises.
    fn check(&mut self, events: u64, base_ms: i64, mut received: Vec<i64>, claim: &[u64]) -> Result<(), &'static str> {
        if self.strings.first().is_some_and(|first| !first.is_empty()) {
            return Err("a string table whose first string is not empty");
        }
        let (count, strings) = (events as usize, self.strings.len());
        let right = |length: usize| length == 0 || length == count;
        // A column that is left out is all zeros, and a batch has at least its sites: so the number of events is
        // never more than the payload has bytes, and what is made below is bounded by it.
        if count == 0 || self.site.len() != count {
            return Err("a batch without a site for each event");
        }
        let columns = [
            &self.site,
            &self.id,
            &self.host,
            &self.page,
            &self.query,
            &self.referrer,
            &self.user_agent,
            &self.country,
            &self.name,
            &self.target,
            &self.title,
            &self.screen,
            &self.language,
        ];
        for column in columns {
            if !right(column.len()) {
                return Err("a column of another length than the batch");
            }
            if !below(column, strings) {
                return Err("an index past the string table");
            }
        }
        if !right(self.kind.len()) || !below(&self.kind, Kind::ALL.len()) {
            return Err("a kind that is not known, or not one for each event");
        }
        if ![received.len(), claim.len(), self.visitor.len(), self.props.len()].into_iter().all(right) {
            return Err("a column of another length than the batch");
        }
        let props: u64 = self.props.iter().map(|count| u64::from(*count)).sum();
        if self.prop_names.len() as u64 != props || self.prop_values.len() as u64 != props {
            return Err("properties that do not add up");
        }
        if !below(&self.prop_names, strings) || !below(&self.prop_values, strings) {
            return Err("an index past the string table");
        }
        received.resize(count, 0);
        received.iter_mut().for_each(|received| *received = received.wrapping_add(base_ms));
        self.claimed_ms = claim
            .iter()
            .zip(&received)
            .map(|(claim, received)| match claim {
                0 => NO_CLAIM,
                claim => received.wrapping_sub(unzigzag(claim - 1)),
            })
            .collect();
        self.received_ms = received;
        self.events = count;
        Ok(())
    }
}

/// Whether every number of the column is below `limit`. Branch-free, so that it is vectorised.
fn below(column: &[u32], limit: usize) -> bool {
    let largest = column.iter().fold(0, |largest, index| largest.max(*index));
    column.is_empty() || (largest as usize) < limit
}

/// A message that is being read.
struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn fails<T>(&self, what: &'static str) -> Result<T, WireError> {
        Err(WireError { what, at: self.at })
    }

    /// Field number and wire type of what comes next; `None` at the end.
    fn tag(&mut self) -> Result<Option<(u32, u32)>, WireError> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        match u32::try_from(self.varint()?) {
            Ok(tag) if tag >> 3 != 0 => Ok(Some((tag >> 3, tag & 7))),
            _ => self.fails("a field number out of range"),
        }
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, WireError> {
        let mut number = 0;
        for (place, byte) in self.bytes[self.at..].iter().take(10).enumerate() {
            // The tenth byte holds the last of 64 bits.
            if place == 9 && *byte > 1 {
                break;
            }
            number |= u64::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                self.at += place + 1;
                return Ok(number);
            }
        }
        self.fails("a varint that does not end")
    }

    fn fixed64(&mut self) -> Result<u64, WireError> {
        match self.bytes[self.at..].first_chunk() {
            Some(bytes) => {
                self.at += 8;
                Ok(u64::from_le_bytes(*bytes))
            }
            None => self.fails("a number of 8 bytes that is cut"),
        }
    }

    /// The bytes of a length-delimited field. Positions in it count from the beginning of the record.
    fn message(&mut self) -> Result<Input<'a>, WireError> {
        let length = self.varint()?;
        if length > (self.bytes.len() - self.at) as u64 {
            return self.fails("a field that is cut");
        }
        let begin = self.at;
        self.at += length as usize;
        Ok(Input { bytes: &self.bytes[..self.at], at: begin })
    }

    fn text(&mut self) -> Result<&'a str, WireError> {
        let input = self.message()?;
        match std::str::from_utf8(&input.bytes[input.at..]) {
            Ok(text) => Ok(text),
            Err(_) => input.fails("a string that is not UTF-8"),
        }
    }

    /// One entry, or a packed run of them, of a repeated field of varints.
    fn column<T>(
        &mut self,
        wire_type: u32,
        column: &mut Vec<T>,
        number: impl Fn(u64) -> Option<T>,
    ) -> Result<(), WireError> {
        let mut one = |input: &mut Self| match number(input.varint()?) {
            Some(entry) => {
                column.push(entry);
                Ok(())
            }
            None => input.fails("a number out of range"),
        };
        match wire_type {
            VARINT => one(self),
            BYTES => {
                let mut packed = self.message()?;
                while packed.at < packed.bytes.len() {
                    one(&mut packed)?;
                }
                Ok(())
            }
            _ => self.fails("a column that is not of numbers"),
        }
    }

    fn skip(&mut self, wire_type: u32) -> Result<(), WireError> {
        match wire_type {
            VARINT => self.varint().map(drop),
            FIXED64 => self.fixed64().map(drop),
            BYTES => self.message().map(drop),
            FIXED32 if self.bytes.len() - self.at >= 4 => {
                self.at += 4;
                Ok(())
            }
            _ => self.fails("a wire type that is not protobuf's"),
        }
    }
}
