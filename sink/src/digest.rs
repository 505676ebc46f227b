//! Rows and a digest, computed alike here and in ClickHouse.

use std::fmt::Write as _;

use weir_schemas::{RowBlock, SchemaVersion, WindowStart};
use xxhash_rust::xxh3::xxh3_64;

/// How many rows, and the wrapping sum of their digests: equal contents are the same rows, in any order, each as often.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Content {
    pub rows: u64,
    pub digest: u64,
}

impl std::ops::AddAssign for Content {
    fn add_assign(&mut self, other: Content) {
        self.rows += other.rows;
        self.digest = self.digest.wrapping_add(other.digest);
    }
}

/// The digest holds the number of visitors up to here.
///
/// `uniqCombined64` is exact up to 4,096 (a hash table of 2^12 entries, and the hash of an integer loses nothing), then it
/// estimates to within 0.5 %: well above 3,000. `visitor_check` has no such bound.
const VISITORS_EXACT: u64 = 3_000;

/// The content of one block that left in `emitted_in`.
///
/// Wrapping sum over the rows of `h`, where `h` = xxh3_64(site, 0, dimension, 0, value), and then, for each of window
/// start, emitted in (both s), measures, min(visitors, 3,000), visitor check in this order, `h = intHash64(h + number)`.
/// [`sql`] says the same to ClickHouse.
pub(crate) fn of_block(block: &RowBlock, emitted_in: WindowStart) -> Content {
    let rows = block.len();
    let measures = block.counts.len().checked_div(rows).unwrap_or(0);
    let emitted_s = seconds(emitted_in.ms());
    let mut key = Vec::with_capacity(256);
    let mut digest = 0_u64;
    for row in 0..rows {
        key.clear();
        key.extend_from_slice(block.strings.get(block.site[row]).as_bytes());
        key.push(0);
        key.extend_from_slice(block.strings.get(block.dimension[row]).as_bytes());
        key.push(0);
        key.extend_from_slice(block.strings.get(block.value[row]).as_bytes());
        let visitors = block.visitors_of(row);
        let mut h = xxh3_64(&key);
        h = mix(h, u64::from(seconds(block.window_start_ms[row])));
        h = mix(h, u64::from(emitted_s));
        for &count in &block.counts[row * measures..(row + 1) * measures] {
            h = mix(h, count);
        }
        h = mix(h, (visitors.len() as u64).min(VISITORS_EXACT));
        h = mix(h, visitors.iter().fold(0, |sum, &id| sum.wrapping_add(id)));
        digest = digest.wrapping_add(h);
    }
    Content { rows: rows as u64, digest }
}

/// The digest of one row as an expression over a version's table; `sum` of it is the digest of rows.
pub(crate) fn sql(version: &SchemaVersion) -> String {
    let mut numbers = vec!["toUnixTimestamp(window_start)".to_owned(), "toUnixTimestamp(emitted_in)".to_owned()];
    numbers.extend(version.measures.iter().map(|&measure| measure.name().to_owned()));
    numbers.push(format!("least(finalizeAggregation(visitors), {VISITORS_EXACT})"));
    numbers.push("visitor_check".to_owned());
    let mut h = String::from("xxh3(concat(site, '\\0', dimension, '\\0', value))");
    for number in numbers {
        let inner = std::mem::take(&mut h);
        let _ = write!(h, "intHash64({inner} + {number})");
    }
    h
}

/// The digest of one row and of all that is in it, as an expression: what [`sql`] covers, its origin, and the number of
/// visitors that the state tells, however large. Only ClickHouse can tell that, so no writer's batch is compared by it.
pub(crate) fn whole_sql(version: &SchemaVersion) -> String {
    format!("intHash64(intHash64({} + finalizeAggregation(visitors)) + xxh3(toString(origin)))", sql(version))
}

/// ClickHouse's `intHash64(h + number)`.
fn mix(h: u64, number: u64) -> u64 {
    let mut x = h.wrapping_add(number) ^ 0x4CF2_D2BA_AE6D_A887;
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

/// A `DateTime` of ClickHouse: s since the Unix epoch, 1970 to 2106. Windows are whole seconds; what lies outside, which
/// no trusted clock says, is moved to the nearest end.
pub(crate) fn seconds(ms: i64) -> u32 {
    u32::try_from((ms / 1000).clamp(0, i64::from(u32::MAX))).expect("clamped")
}
