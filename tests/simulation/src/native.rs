//! What an INSERT's body says: a reader of ClickHouse's Native format, as far as weir writes it, and the digest of a row.

use std::collections::BTreeSet;

use weir_oracle::Key;
use weir_sink::Content;
use xxhash_rust::xxh3::xxh3_64;

/// A row as the table holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) key: Key,
    pub(crate) counts: Vec<u64>,
    pub(crate) visitors: BTreeSet<u64>,
}

impl Row {
    pub(crate) fn emitted_s(&self) -> u32 {
        (self.key.0 / 1_000) as u32
    }

    /// One row, and its digest as `digest::sql` defines it.
    pub(crate) fn content(&self) -> Content {
        let (emitted_ms, site, dimension, window_ms, value) = &self.key;
        let mut h = xxh3_64([site.as_str(), dimension, value].join("\0").as_bytes());
        let mut mix = |number: u64| h = int_hash_64(h.wrapping_add(number));
        mix((*window_ms / 1_000) as u64);
        mix((*emitted_ms / 1_000) as u64);
        self.counts.iter().for_each(|count| mix(*count));
        mix((self.visitors.len() as u64).min(3_000));
        mix(self.visitors.iter().fold(0, |sum, id| sum.wrapping_add(*id)));
        Content { rows: 1, digest: h }
    }
}

fn int_hash_64(number: u64) -> u64 {
    let mut x = number ^ 0x4CF2_D2BA_AE6D_A887;
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

/// The rows of a body; one that the server could not read is a bug of the writer's.
pub(crate) fn rows(body: &[u8]) -> Vec<Row> {
    let mut input = Input(body);
    let (columns, rows) = (input.varint() as usize, input.varint() as usize);
    let (mut texts, mut times, mut counts, mut visitors) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..columns {
        let (name, data_type) = (input.text(), input.text());
        match data_type.as_str() {
            "String" => texts.push((0..rows).map(|_| input.text()).collect::<Vec<String>>()),
            "DateTime('UTC')" => times.push((0..rows).map(|_| i64::from(input.u32()) * 1_000).collect::<Vec<i64>>()),
            "UInt64" => counts.push((0..rows).map(|_| input.u64()).collect::<Vec<u64>>()),
            "Array(UInt64)" => {
                let ends: Vec<u64> = (0..rows).map(|_| input.u64()).collect();
                let mut begin = 0;
                for end in ends {
                    let ids: Vec<u64> = (begin..end).map(|_| input.u64()).collect();
                    let distinct: BTreeSet<u64> = ids.iter().copied().collect();
                    assert_eq!(ids.len(), distinct.len(), "a visitor is in a row twice");
                    visitors.push(distinct);
                    begin = end;
                }
            }
            _ => panic!("column {name} of type {data_type}"),
        }
    }
    assert!(input.0.is_empty(), "{} bytes are left of a block", input.0.len());
    let text = |column: usize, row: usize| texts[column][row].clone();
    (0..rows)
        .map(|row| Row {
            key: (times[1][row], text(0, row), text(1, row), times[0][row], text(2, row)),
            counts: counts.iter().map(|column| column[row]).collect(),
            visitors: visitors[row].clone(),
        })
        .collect()
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (taken, rest) = self.0.split_at(N);
        self.0 = rest;
        taken.try_into().expect("split")
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    fn varint(&mut self) -> u64 {
        let (mut number, mut shift) = (0, 0);
        loop {
            let [byte] = self.take();
            number |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return number;
            }
        }
    }

    fn text(&mut self) -> String {
        let length = self.varint() as usize;
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        String::from_utf8(taken.to_vec()).expect("weir writes UTF-8")
    }
}
