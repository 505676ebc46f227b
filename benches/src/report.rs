//! What a bench prints: a table for people, and numbers that are rounded to what they are worth.

use comfy_table::{CellAlignment, Table, presets::NOTHING};

/// Rounded to three significant digits or so; figures of a shared machine are worth no more.
pub(crate) fn rounded(number: f64) -> f64 {
    if number == 0.0 || !number.is_finite() {
        return number;
    }
    let scale = 10f64.powi(2 - number.abs().log10().floor() as i32);
    (number * scale).round() / scale
}

/// The first column is words, the others are numbers.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header).add_rows(rows);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests {
    use weir_drills::report::thousands;

    use super::*;

    #[test]
    fn numbers_are_rounded_to_three_digits_and_their_thousands_set_apart() {
        assert_eq!(rounded(1_234_567.0), 1_230_000.0);
        assert_eq!(rounded(0.123_45), 0.123);
        assert_eq!(rounded(0.0), 0.0);
        assert_eq!(thousands(1_230_000.0), "1,230,000");
        assert_eq!(thousands(999.0), "999");
    }
}
