//! When a line happened: `17/May/2015:10:05:03 +0000`, and what comes close to it.

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
const MONTHS: [&[u8; 3]; 12] =
    [b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"];

/// The instant, ms since the Unix epoch; `None` for what is no instant.
///
/// Taken are the Common Log Format's own time and ISO 8601 (`2015-05-17T10:05:03+02:00`), with a fraction of a second
/// or without; a zone (`+0200`, `-02:00`, `Z`) is needed. A leap second counts as the second before it.
pub(crate) fn parse(text: &[u8]) -> Option<i64> {
    let mut text = Digits(text);
    let first = text.number(1, 4)?;
    let (year, month, day) = if text.eat(b'/') {
        let month = text.month()?;
        text.must(b'/')?;
        let year = text.number(4, 4)?;
        text.must(b':')?;
        (year, month, first)
    } else {
        text.must(b'-')?;
        let month = text.number(2, 2)?;
        text.must(b'-')?;
        let day = text.number(2, 2)?;
        if !text.eat(b'T') {
            text.must(b' ')?;
        }
        (first, month, day)
    };
    let hour = text.number(2, 2)?;
    text.must(b':')?;
    let minute = text.number(2, 2)?;
    text.must(b':')?;
    let second = text.number(2, 2)?;
    let fraction_ms = if text.eat(b'.') { text.fraction_ms()? } else { 0 };
    text.eat(b' ');
    let zone_ms = text.zone_ms()?;
    if !text.0.is_empty() || hour > 23 || minute > 59 || second > 60 || day == 0 || day > days_of(year, month)? {
        return None;
    }
    let seconds = (hour * 60 + minute) * 60 + second.min(59);
    Some(days_since_epoch(year, month, day) * DAY_MS + seconds * 1000 + fraction_ms - zone_ms)
}

/// What is still to be read.
struct Digits<'a>(&'a [u8]);

impl Digits<'_> {
    fn number(&mut self, digits_min: usize, digits_max: usize) -> Option<i64> {
        let digits = self.0.iter().take(digits_max).take_while(|byte| byte.is_ascii_digit()).count();
        if digits < digits_min {
            return None;
        }
        let number = self.0[..digits].iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0'));
        self.0 = &self.0[digits..];
        Some(number)
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.0.first() == Some(&byte);
        if found {
            self.0 = &self.0[1..];
        }
        found
    }

    fn must(&mut self, byte: u8) -> Option<()> {
        self.eat(byte).then_some(())
    }

    fn month(&mut self) -> Option<i64> {
        let name: [u8; 3] = self.0.get(..3)?.try_into().ok()?;
        self.0 = &self.0[3..];
        let name = name.map(|byte| byte.to_ascii_lowercase());
        MONTHS.iter().position(|month| **month == name).map(|index| index as i64 + 1)
    }

    fn fraction_ms(&mut self) -> Option<i64> {
        let mut ms = 0;
        let mut unit_ms = 100;
        let mut digits = 0;
        while let Some(digit) = self.0.first().filter(|byte| byte.is_ascii_digit()) {
            ms += i64::from(digit - b'0') * unit_ms;
            unit_ms /= 10;
            digits += 1;
            self.0 = &self.0[1..];
        }
        (digits > 0).then_some(ms)
    }

    fn zone_ms(&mut self) -> Option<i64> {
        if self.eat(b'Z') {
            return Some(0);
        }
        let sign = if self.eat(b'-') {
            -1
        } else {
            self.must(b'+')?;
            1
        };
        let hours = self.number(2, 2)?;
        self.eat(b':');
        let minutes = self.number(2, 2)?;
        (hours <= 26 && minutes <= 59).then_some(sign * (hours * 60 + minutes) * 60_000)
    }
}

fn days_of(year: i64, month: i64) -> Option<i64> {
    Some(match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => return None,
    })
}

/// Days from 1970-01-01 in the Gregorian calendar, by counting years from March on, whose leap day is then the last.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let days = year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year;
    days - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        let expected = expected.map(|text| text.parse::<jiff::Timestamp>().unwrap().as_millisecond());
        assert_eq!(parse(text.as_bytes()), expected, "{text}");
    }

    #[test]
    fn times_of_access_logs_are_instants() {
        check("17/May/2015:10:05:03 +0000", Some("2015-05-17T10:05:03Z"));
        check("17/May/2015:10:05:03 +0530", Some("2015-05-17T04:35:03Z"));
        check("31/Dec/1999:23:59:59 -0930", Some("2000-01-01T09:29:59Z"));
        check("29/Feb/2016:00:00:00 +0000", Some("2016-02-29T00:00:00Z"));
        check("1/jan/2015:00:00:00 Z", Some("2015-01-01T00:00:00Z"));
        check("30/Jun/2015:23:59:60 +0000", Some("2015-06-30T23:59:59Z"));
        check("2015-05-17T10:05:03+02:00", Some("2015-05-17T08:05:03Z"));
        check("2015-05-17 10:05:03.25 +0000", Some("2015-05-17T10:05:03.25Z"));
        check("17/May/0001:10:05:03 +0000", Some("0001-05-17T10:05:03Z"));
        check("17/May/9999:10:05:03 +0000", Some("9999-05-17T10:05:03Z"));
    }

    #[test]
    fn what_is_no_instant_is_none() {
        for text in [
            "",
            "-",
            "17/May/2015:10:05:03",
            "17/May/2015:10:05 +0000",
            "17/Mai/2015:10:05:03 +0000",
            "00/May/2015:10:05:03 +0000",
            "29/Feb/2015:10:05:03 +0000",
            "29/Feb/1900:10:05:03 +0000",
            "31/Apr/2015:10:05:03 +0000",
            "17/May/2015:24:05:03 +0000",
            "17/May/2015:10:60:03 +0000",
            "17/May/2015:10:05:61 +0000",
            "17/May/2015:10:05:03 +0060",
            "17/May/2015:10:05:03 +9900",
            "17/May/2015:10:05:03 UTC",
            "17/May/2015:10:05:03 +0000 x",
            "17/May/20150:10:05:03 +0000",
            "2015-13-17T10:05:03Z",
            "1431857103",
        ] {
            check(text, None);
        }
    }

    proptest! {
        #[test]
        fn every_second_is_what_the_calendar_says(second in -62_135_596_800i64..253_402_207_200, zone in -14i32 * 60..=14 * 60) {
            let zoned = jiff::Timestamp::from_second(second).unwrap()
                .to_zoned_datetime(jiff::tz::TimeZone::fixed(jiff::tz::Offset::from_seconds(zone * 60).unwrap()));
            prop_assume!((1..=9999).contains(&zoned.year()));
            let text = zoned.strftime("%d/%b/%Y:%H:%M:%S %z").to_string();
            prop_assert_eq!(parse(text.as_bytes()), Some(second * 1000), "{}", text);
        }

        #[test]
        fn whatever_the_bytes_nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            parse(&bytes);
        }
    }
}
