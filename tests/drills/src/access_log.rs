//! Access logs as a web server writes them: believable enough to be counted, and made by us.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::Path,
};

use anyhow::Context;
use jiff::{SignedDuration, Timestamp, civil::date, tz::TimeZone};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// Pages of a site; low numbers are asked for far more often than high ones.
const PAGES: f64 = 997.0;
const BROWSERS: [&str; 4] = [
    "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
];
const REFERRERS: [&str; 3] = ["-", "https://www.google.com/", "https://news.ycombinator.com/item?id=1"];

/// `lines` lines, evenly over the first `days` days of March 2020.
pub(crate) fn write(to: &Path, lines: u64, days: u32, seed: u64) -> anyhow::Result<()> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut file = BufWriter::new(File::create(to)?);
    let begin = TimeZone::UTC.to_timestamp(date(2020, 3, 1).at(0, 0, 0, 0))?;
    let (mut stamp, mut second) = (String::new(), None);
    for line in 0..lines {
        let at = line * u64::from(days) * 24 * 60 * 60 / lines;
        // Of a second there is one text.
        if second.replace(at) != Some(at) {
            stamp = stamp_of(begin + SignedDuration::from_secs(i64::try_from(at)?));
        }
        let page = (PAGES * rng.random::<f64>().powi(3)) as u32;
        let (browser, referrer) = (BROWSERS[rng.random_range(0..4)], REFERRERS[rng.random_range(0..3)]);
        writeln!(
            file,
            "198.18.{}.{} - - [{stamp}] \"GET /{page} HTTP/1.1\" 200 5 \"{referrer}\" \"{browser}\"",
            rng.random_range(0..256),
            rng.random_range(1..255),
        )?;
    }
    file.flush().context("the access log cannot be written")
}

fn stamp_of(at: Timestamp) -> String {
    at.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_a_log_reach_from_its_first_day_to_its_last_and_the_same_seed_writes_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let text = |seed| {
            let path = dir.path().join("access.log");
            write(&path, 310, 31, seed).unwrap();
            std::fs::read_to_string(path).unwrap()
        };
        let (text, again, other) = (text(1), text(1), text(2));
        assert_eq!(text, again);
        assert_ne!(text, other);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 310);
        assert!(lines[0].contains("[01/Mar/2020:00:00:00 +0000] \"GET /"), "{}", lines[0]);
        assert!(lines[309].contains("[31/Mar/2020:21:36:00 +0000] \"GET /"), "{}", lines[309]);
    }
}
