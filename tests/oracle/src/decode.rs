//! Records of `schemas/proto/weir.proto`, read field by field in the plainest way: not the product's decoder.

/// A record, as far as the oracle cares.
pub(crate) struct Decoded {
    pub(crate) sent_ms: i64,
    /// `None`: a tick, or the end of an import.
    pub(crate) batch: Option<Batch>,
}

pub(crate) struct Batch {
    /// (collector, sequence).
    pub(crate) name: (Vec<u8>, u64),
    pub(crate) events: Vec<Event>,
}

/// Strings are empty where the hit said nothing.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) received_ms: i64,
    pub(crate) claimed_ms: Option<i64>,
    pub(crate) visitor: u64,
    pub(crate) kind: u32,
    pub(crate) site: String,
    pub(crate) id: String,
    pub(crate) host: String,
    pub(crate) page: String,
    pub(crate) query: String,
    pub(crate) referrer: String,
    pub(crate) user_agent: String,
    pub(crate) country: String,
    pub(crate) target: String,
    pub(crate) props: Vec<(String, String)>,
}

enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
}

/// `None` for whatever is not one of Weir's records.
pub(crate) fn record(payload: &[u8]) -> Option<Decoded> {
    let (mut sent_ms, mut content) = (0, None);
    for (field, value) in fields(payload)? {
        match (field, value) {
            (1, Value::Fixed64(sent)) => sent_ms = sent as i64,
            (2, Value::Bytes(bytes)) => content = Some(Some(batch(bytes)?)),
            (3 | 4, Value::Bytes(bytes)) => {
                fields(bytes)?;
                content = Some(None);
            }
            _ => {}
        }
    }
    Some(Decoded { sent_ms, batch: content? })
}

fn batch(bytes: &[u8]) -> Option<Batch> {
    let fields = fields(bytes)?;
    let number = |wanted: u32| {
        fields.iter().rev().find_map(|(field, value)| match value {
            Value::Varint(number) if *field == wanted => Some(*number),
            _ => None,
        })
    };
    let texts = fields.iter().filter_map(|(field, value)| match value {
        Value::Bytes(bytes) if *field == 5 => Some(std::str::from_utf8(bytes).ok().map(str::to_owned)),
        _ => None,
    });
    let strings = texts.collect::<Option<Vec<String>>>()?;
    let collector = fields.iter().rev().find_map(|(field, value)| match value {
        Value::Bytes(bytes) if *field == 1 => Some(bytes.to_vec()),
        _ => None,
    });
    let events = number(3).unwrap_or(0) as usize;
    let base_ms = zigzag(number(4).unwrap_or(0));
    // A column has one entry an event; one that is left out is all zeros.
    let column = |wanted: u32| {
        let column = numbers(&fields, wanted)?;
        if column.is_empty() { Some(vec![0; events]) } else { (column.len() == events).then_some(column) }
    };
    let (received, claim, visitor, kind) = (column(6)?, column(7)?, column(8)?, column(9)?);
    let text_columns = [10, 11, 12, 13, 14, 15, 16, 17, 19].map(column);
    let (props, names, values) = (column(23)?, numbers(&fields, 24)?, numbers(&fields, 25)?);
    let text = |index: u64| strings.get(index as usize).cloned();
    let (mut batch, mut prop) = (Vec::new(), 0);
    for event in 0..events {
        let of = |place: usize| text(text_columns[place].as_ref()?[event]);
        let received_ms = base_ms + zigzag(received[event]);
        let mut own = Vec::new();
        for _ in 0..props[event] {
            own.push((text(*names.get(prop)?)?, text(*values.get(prop)?)?));
            prop += 1;
        }
        batch.push(Event {
            received_ms,
            claimed_ms: (claim[event] > 0).then(|| received_ms.wrapping_sub(zigzag(claim[event] - 1))),
            visitor: visitor[event],
            kind: (kind[event] <= 4).then_some(kind[event] as u32)?,
            site: of(0)?,
            id: of(1)?,
            host: of(2)?,
            page: of(3)?,
            query: of(4)?,
            referrer: of(5)?,
            user_agent: of(6)?,
            country: of(7)?,
            target: of(8)?,
            props: own,
        });
    }
    let collector = collector.filter(|collector| collector.len() == 16)?;
    Some(Batch { name: (collector, number(2).unwrap_or(0)), events: batch })
}

/// All entries of a repeated number, packed or not.
fn numbers(fields: &[(u32, Value<'_>)], wanted: u32) -> Option<Vec<u64>> {
    let mut all = Vec::new();
    for (field, value) in fields.iter().filter(|(field, _)| *field == wanted) {
        match value {
            Value::Varint(number) | Value::Fixed64(number) => all.push(*number),
            // Of the packed columns only `visitor` has a fixed width.
            Value::Bytes(bytes) if *field == 8 => {
                all.extend(
                    bytes
                        .chunks(8)
                        .map(|eight| Some(u64::from_le_bytes(eight.try_into().ok()?)))
                        .collect::<Option<Vec<_>>>()?,
                );
            }
            Value::Bytes(bytes) => {
                let mut rest = *bytes;
                while !rest.is_empty() {
                    all.push(varint(&mut rest)?);
                }
            }
        }
    }
    Some(all)
}

fn fields(mut bytes: &[u8]) -> Option<Vec<(u32, Value<'_>)>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let value = match tag & 7 {
            0 => Value::Varint(varint(&mut bytes)?),
            1 => Value::Fixed64(u64::from_le_bytes(take(&mut bytes, 8)?.try_into().ok()?)),
            2 => {
                let length = varint(&mut bytes)?;
                Value::Bytes(take(&mut bytes, length as usize)?)
            }
            5 => Value::Fixed64(u64::from(u32::from_le_bytes(take(&mut bytes, 4)?.try_into().ok()?))),
            _ => return None,
        };
        fields.push(((tag >> 3) as u32, value));
    }
    Some(fields)
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn zigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}
