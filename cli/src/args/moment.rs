//! Moments as `--since` and `--until` take them: a time before now, a date, or seconds since 1970.

use time::format_description::FormatItem;
use time::macros::format_description;
use time::{Date, OffsetDateTime, PrimitiveDateTime, UtcOffset};

/// Nanoseconds since 1970; `None` for an empty text, which is no limit. `option` is named in the refusal, which is Docker's.
pub fn parse(option: &str, text: &str) -> Result<Option<i64>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let now = OffsetDateTime::now_utc();
    let moment = match before(text) {
        Some(nanoseconds) if text != "0" => Some(now.unix_timestamp_nanos() - nanoseconds),
        _ => date(text)
            .map(|date| date.unix_timestamp_nanos())
            .or_else(|| seconds(text)),
    };
    let moment = moment.and_then(|moment| i64::try_from(moment).ok());
    moment.map(Some).ok_or_else(|| {
        format!("invalid value for {option:?}: failed to parse value as time or duration: {text:?}")
    })
}

/// `1h30m`, `-5s`, `1.5s` as Go writes them, in nanoseconds.
fn before(text: &str) -> Option<i128> {
    const UNITS: [(&str, f64); 8] = [
        ("ns", 1.0),
        ("us", 1e3),
        ("\u{b5}s", 1e3),
        ("\u{3bc}s", 1e3),
        ("ms", 1e6),
        ("s", 1e9),
        ("m", 60e9),
        ("h", 3600e9),
    ];
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut all = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let letters = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
        all += (number.parse::<f64>().ok()? * factor) as i128;
        rest = after;
    }
    (!text.is_empty() && text != "-" && text != "+").then_some(sign * all)
}

/// `1600000000` or `1600000000.5`.
fn seconds(text: &str) -> Option<i128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let fraction: i128 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    Some(i128::from(whole) * 1_000_000_000 + fraction)
}

const DAY: &[FormatItem<'_>] = format_description!("[year]-[month]-[day]");
const TIMES: [&[FormatItem<'_>]; 4] = [
    format_description!("[year]-[month]-[day]T[hour]"),
    format_description!("[year]-[month]-[day]T[hour]:[minute]"),
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]"),
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond]"),
];
const ZONE: &[FormatItem<'_>] = format_description!("[offset_hour sign:mandatory]:[offset_minute]");

/// RFC 3339 from the year down to as much as is given; without a zone it is this machine's time.
fn date(text: &str) -> Option<OffsetDateTime> {
    let (time, zone) = match text.strip_suffix(['z', 'Z']) {
        Some(time) => (time, Some(UtcOffset::UTC)),
        None => match text
            .len()
            .checked_sub(6)
            .and_then(|at| text.split_at_checked(at))
        {
            Some((time, zone)) if zone.contains(':') && zone.starts_with(['+', '-']) => {
                (time, Some(UtcOffset::parse(zone, ZONE).ok()?))
            }
            _ => (text, None),
        },
    };
    let time = match Date::parse(time, DAY) {
        Ok(day) => day.midnight(),
        Err(_) => TIMES
            .iter()
            .find_map(|format| PrimitiveDateTime::parse(time, format).ok())?,
    };
    let zone = zone
        .unwrap_or_else(|| UtcOffset::local_offset_at(time.assume_utc()).unwrap_or(UtcOffset::UTC));
    Some(time.assume_offset(zone))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_seconds_are_moments() {
        let second = 1_577_836_800_i64;
        for (text, seconds) in [
            ("2020-01-01Z", second),
            ("2020-01-01T00Z", second),
            ("2020-01-01T00:00:00+02:00", second - 7200),
            ("2020-01-01T01:02:03Z", second + 3723),
            ("1600000000", 1_600_000_000),
        ] {
            assert_eq!(
                parse("since", text),
                Ok(Some(seconds * 1_000_000_000)),
                "{text}"
            );
        }
        assert_eq!(
            parse("since", "2020-01-01T00:00:00.25Z"),
            Ok(Some(second * 1_000_000_000 + 250_000_000))
        );
        assert_eq!(parse("since", "1.5"), Ok(Some(1_500_000_000)));
        assert_eq!(parse("since", ""), Ok(None));
    }

    #[test]
    fn times_before_now_are_gos() {
        assert_eq!(before("1h30m"), Some(5400 * 1_000_000_000));
        assert_eq!(before("-1.5s"), Some(-1_500_000_000));
        for text in ["1d", "x", "10", "1.x", "-", "s"] {
            assert_eq!(before(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_moment_is_refused_in_dockers_words() {
        for text in ["x", "1d", "1600000000.x", "2020-13-01"] {
            let refused = format!(
                "invalid value for \"since\": failed to parse value as time or duration: {text:?}"
            );
            assert_eq!(parse("since", text), Err(refused));
        }
    }
}
