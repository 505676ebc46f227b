//! How times and spans are said to people.

use jiff::Timestamp;
use weir_schemas::control::GAP_RUN;

use crate::Eta;

/// `14:03 UTC`; of another day than `now_ms` with the date before.
pub(crate) fn time(at_ms: i64, now_ms: i64) -> String {
    let (at, now) = (Timestamp::from_millisecond(at_ms), Timestamp::from_millisecond(now_ms));
    let (Ok(at), Ok(now)) = (at, now) else { return "an unknown time".to_owned() };
    let day = |at: Timestamp| at.strftime("%Y-%m-%d").to_string();
    let form = if day(at) == day(now) { "%H:%M UTC" } else { "%Y-%m-%d %H:%M UTC" };
    at.strftime(form).to_string()
}

/// What it is to users that a run other than live is paused.
pub(crate) fn paused(run: &str) -> String {
    match run {
        GAP_RUN => "Filling in statistics that were left out is paused".to_owned(),
        run => format!("Counting {run} is paused"),
    }
}

/// The same when it goes on.
pub(crate) fn goes_on(run: &str) -> String {
    match run {
        GAP_RUN => "Statistics that were left out are filled in again".to_owned(),
        run => format!("{run} is counted again"),
    }
}

/// `2,912,345`
pub(crate) fn number(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut grouped = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if number < 0 { format!("-{grouped}") } else { grouped }
}

/// RFC 3339, as machines read it.
pub(crate) fn machine(at_ms: i64) -> String {
    Timestamp::from_millisecond(at_ms).unwrap_or(Timestamp::UNIX_EPOCH).strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

/// ` They will be ready between 15:05 and 15:20 UTC.`, to follow what is not; nothing if there is nothing to say.
pub(crate) fn ready(eta: Option<Eta>, now_ms: i64) -> String {
    match eta {
        Some(Eta::Between { earliest_ms, latest_ms }) => {
            let (from, to) = (time(earliest_ms, now_ms), time(up_to_minute(latest_ms), now_ms));
            match from == to {
                true => format!(" They will be ready at about {to}."),
                false => format!(" They will be ready between {} and {to}.", from.trim_end_matches(" UTC")),
            }
        }
        Some(Eta::NotConverging) => " They fall further behind.".to_owned(),
        Some(Eta::Unknown) | None => String::new(),
    }
}

/// `about 25 min`, `about 2 to 3 h`: until what is not done yet will be; `None`: nobody can tell.
pub(crate) fn about(eta: Eta, now_ms: i64) -> Option<String> {
    match eta {
        Eta::Between { earliest_ms, latest_ms } => {
            let minutes = |at_ms: i64| ((at_ms - now_ms).max(1) + 59_999) / 60_000;
            let (from, to) = (minutes(earliest_ms), minutes(latest_ms));
            let (from, to, unit) = if to <= 90 { (from, to, "min") } else { ((from + 30) / 60, (to + 30) / 60, "h") };
            Some(if from == to { format!("about {to} {unit}") } else { format!("about {from} to {to} {unit}") })
        }
        Eta::NotConverging => Some("and more comes than is computed".to_owned()),
        Eta::Unknown => None,
    }
}

fn up_to_minute(at_ms: i64) -> i64 {
    at_ms.saturating_add(59_999) / 60_000 * 60_000
}

/// Days (UTC, since the Unix epoch, ascending), neighbours as a range: `2026-11-20 to 2026-11-22, 2026-11-25`.
pub fn days(days: &[i64]) -> String {
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    for &day in days {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == day => *last = day,
            _ => ranges.push((day, day)),
        }
    }
    let date = |day: i64| {
        let at = day.checked_mul(24 * 60 * 60 * 1000).and_then(|ms| Timestamp::from_millisecond(ms).ok());
        at.map_or_else(|| "an unknown day".to_owned(), |at| at.strftime("%Y-%m-%d").to_string())
    };
    let words = ranges.iter().map(|(first, last)| match first == last {
        true => date(*first),
        false => format!("{} to {}", date(*first), date(*last)),
    });
    words.collect::<Vec<_>>().join(", ")
}

/// What XML can hold of a text: no control characters but the new line, and no U+FFFE and U+FFFF, however they are written.
pub(crate) fn of_xml(text: &str) -> String {
    text.chars().filter(|c| *c == '\n' || !(c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}'))).collect()
}

/// The two largest units, as in `2days 3h`.
pub(crate) fn span(ms: i64) -> String {
    let whole = humantime::format_duration(std::time::Duration::from_secs(ms.max(0) as u64 / 1000)).to_string();
    whole.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_xml_cannot_hold_is_left_out() {
        assert_eq!(of_xml("a\u{0}\u{1}\t\r\n\u{85}b\u{fffe}\u{ffff}\u{fffd}\u{1f600}"), "a\nb\u{fffd}\u{1f600}");
    }

    #[test]
    fn neighbouring_days_are_told_as_a_range() {
        assert_eq!(days(&[0, 1, 2, 9]), "1970-01-01 to 1970-01-03, 1970-01-10");
        assert_eq!(days(&[i64::MAX]), "an unknown day");
    }

    #[test]
    fn times_spans_and_numbers_are_as_short_as_they_can_be() {
        let noon_ms = 1_700_049_600_000;
        assert_eq!(time(noon_ms, noon_ms + 1), "12:00 UTC");
        assert_eq!(time(noon_ms, noon_ms + 86_400_000), "2023-11-15 12:00 UTC");
        let between = |from_ms, to_ms| {
            let (earliest_ms, latest_ms) = (noon_ms + from_ms, noon_ms + to_ms);
            ready(Some(Eta::Between { earliest_ms, latest_ms }), noon_ms)
        };
        assert_eq!(between(60_000, 60_000), " They will be ready at about 12:01 UTC.");
        assert_eq!(between(61_000, 121_000), " They will be ready between 12:01 and 12:03 UTC.");
        assert_eq!(ready(None, noon_ms), "");
        let about = |from_min: i64, to_min: i64| {
            let (earliest_ms, latest_ms) = (noon_ms + from_min * 60_000, noon_ms + to_min * 60_000);
            about(Eta::Between { earliest_ms, latest_ms }, noon_ms).unwrap()
        };
        assert_eq!([about(-1, 0), about(25, 25), about(15, 90)], ["about 1 min", "about 25 min", "about 15 to 90 min"]);
        assert_eq!([about(80, 91), about(80, 160)], ["about 1 to 2 h", "about 1 to 3 h"]);
        assert_eq!([0, 999, 1_000, -1_234_567].map(number), ["0", "999", "1,000", "-1,234,567"]);
        assert_eq!(machine(noon_ms + 7), "2023-11-15T12:00:00.007Z");
    }
}
