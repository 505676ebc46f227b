//! Rows as one block of ClickHouse's Native format: columns, one after the other, as they lie in memory.

use weir_schemas::{RowBlock, SchemaVersion, WindowStart};
use xxhash_rust::xxh3::Xxh3;

use crate::digest::seconds;
use crate::limits::Limits;

/// A hash does not cut evenly; chunks are planned this much smaller.
const CHUNK_MARGIN_PERCENT: u64 = 10;

/// Length of a string in front of it: strings are far below 2^21 bytes.
const VARINT_BYTES_MAX: usize = 3;
/// Names, types and counts of a body's columns, about.
const HEAD_BYTES_MAX: usize = 4096;

/// How many chunks a batch is cut into. Law: no rows, no chunks; else at least one.
pub(crate) fn chunks(rows: u64, bytes: u64, limits: &Limits) -> u64 {
    let cut = |whole: u64, part: u64| whole.div_ceil((part * (100 - CHUNK_MARGIN_PERCENT) / 100).max(1));
    cut(rows, limits.chunk_rows_max).max(cut(bytes, limits.chunk_bytes_max)).min(rows)
}

/// Names and types of the columns that [`native`] writes: the structure of `input(…)`.
pub(crate) fn columns(version: &SchemaVersion) -> Vec<(&'static str, &'static str)> {
    let mut columns = vec![
        ("site", "String"),
        ("dimension", "String"),
        ("value", "String"),
        ("window_start", "DateTime('UTC')"),
        ("emitted_in", "DateTime('UTC')"),
    ];
    columns.extend(version.measures.iter().map(|&measure| (measure.name(), "UInt64")));
    columns.push(("visitor_ids", "Array(UInt64)"));
    columns
}

/// For each row of each block its chunk, `0..of`, by the hash of (site, dimension, value).
pub(crate) fn assign(blocks: &[(WindowStart, &RowBlock)], of: u64) -> Vec<Vec<u64>> {
    blocks.iter().map(|(_, block)| (0..block.len()).map(|row| chunk_of(block, row, of)).collect()).collect()
}

/// The rows that `assigned` gives to `chunk`, as one block; empty when there are none.
pub(crate) fn native(
    version: &SchemaVersion,
    blocks: &[(WindowStart, &RowBlock)],
    assigned: &[Vec<u64>],
    chunk: u64,
) -> Vec<u8> {
    let picked: Vec<(WindowStart, &RowBlock, Vec<usize>)> = blocks
        .iter()
        .zip(assigned)
        .map(|(&(window, block), chunks)| {
            (window, block, (0..block.len()).filter(|&row| chunks[row] == chunk).collect())
        })
        .collect();
    let rows: usize = picked.iter().map(|(_, _, rows)| rows.len()).sum();
    if rows == 0 {
        return Vec::new();
    }
    let columns = columns(version);
    let measures = version.measures.len();
    // Measured before it is filled: a body of tens of MB is not to be copied while it grows.
    let of_block = |(_, block, rows): &(WindowStart, &RowBlock, Vec<usize>)| {
        let text = |index: u32| block.strings.get(index).len() + VARINT_BYTES_MAX;
        let of_row = |&row: &usize| {
            let strings = text(block.site[row]) + text(block.dimension[row]) + text(block.value[row]);
            strings + 2 * 4 + 8 * (measures + 1 + block.visitors_of(row).len())
        };
        rows.iter().map(of_row).sum::<usize>()
    };
    let mut out = Vec::with_capacity(HEAD_BYTES_MAX + picked.iter().map(of_block).sum::<usize>());
    varint(&mut out, columns.len());
    varint(&mut out, rows);
    for (n, (name, data_type)) in columns.iter().enumerate() {
        string(&mut out, name);
        string(&mut out, data_type);
        match n {
            0..=2 => {
                for (_, block, rows) in &picked {
                    let index = [&block.site, &block.dimension, &block.value][n];
                    rows.iter().for_each(|&row| string(&mut out, block.strings.get(index[row])));
                }
            }
            3 => {
                for (_, block, rows) in &picked {
                    rows.iter().for_each(|&row| out.extend(seconds(block.window_start_ms[row]).to_le_bytes()));
                }
            }
            4 => {
                for (window, _, rows) in &picked {
                    rows.iter().for_each(|_| out.extend(seconds(window.ms()).to_le_bytes()));
                }
            }
            n if n - 5 < measures => {
                for (_, block, rows) in &picked {
                    rows.iter().for_each(|&row| out.extend(block.counts[row * measures + n - 5].to_le_bytes()));
                }
            }
            _ => {
                let mut end = 0_u64;
                for (_, block, rows) in &picked {
                    for &row in rows {
                        end += block.visitors_of(row).len() as u64;
                        out.extend(end.to_le_bytes());
                    }
                }
                for (_, block, rows) in &picked {
                    for &row in rows {
                        block.visitors_of(row).iter().for_each(|id| out.extend(id.to_le_bytes()));
                    }
                }
            }
        }
    }
    out
}

/// All rows of these windows as the body of one INSERT: what [`Table::insert`](crate::table::Table::insert) takes.
pub fn body_of(version: &SchemaVersion, blocks: &[(WindowStart, &RowBlock)]) -> Vec<u8> {
    native(version, blocks, &assign(blocks, 1), 0)
}

fn chunk_of(block: &RowBlock, row: usize, of: u64) -> u64 {
    if of <= 1 {
        return 0;
    }
    let mut hash = Xxh3::new();
    for index in [block.site[row], block.dimension[row], block.value[row]] {
        hash.update(block.strings.get(index).as_bytes());
        hash.update(&[0]);
    }
    hash.digest() % of
}

fn string(out: &mut Vec<u8>, text: &str) {
    varint(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn varint(out: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_cut_by_rows_and_by_bytes() {
        let chunks = |rows, bytes| chunks(rows, bytes, &Limits::of_memory(768 << 20));
        assert_eq!(chunks(0, 0), 0);
        assert_eq!(chunks(1, 10), 1);
        assert_eq!(chunks(450_000, 1), 1);
        assert_eq!(chunks(450_001, 1), 2);
        assert_eq!(chunks(10, 600 << 20), 10);
        assert_eq!(chunks(1_000_000, 570 << 20), 10);
    }
}
