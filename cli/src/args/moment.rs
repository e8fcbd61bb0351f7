//! Moments as `--since` and `--until` take them: a time before now, a date, or seconds since 1970.

use time::format_description::FormatItem;
use time::macros::format_description;
use time::{Date, OffsetDateTime, PrimitiveDateTime, UtcOffset};

use super::values::parse_go_duration;

/// Nanoseconds since 1970, the nearest that can be told; the refusal is Docker's.
pub fn parse(text: &str, now: OffsetDateTime) -> Result<i64, String> {
    let moment = match parse_go_duration(text) {
        Ok(nanoseconds) if text != "0" => {
            Some(now.unix_timestamp_nanos() - i128::from(nanoseconds))
        }
        _ => date(text)
            .map(|date| date.unix_timestamp_nanos())
            .or_else(|| seconds(text)),
    };
    let moment =
        moment.ok_or_else(|| format!("failed to parse value as time or duration: {text:?}"))?;
    Ok(moment.clamp(i64::MIN.into(), i64::MAX.into()) as i64)
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

    const NOW: i64 = 1_600_000_000;

    fn read(text: &str) -> Result<i64, String> {
        parse(text, OffsetDateTime::from_unix_timestamp(NOW).unwrap())
    }

    #[test]
    fn dates_seconds_and_times_before_now_are_moments() {
        let second = 1_577_836_800_i64;
        for (text, seconds) in [
            ("2020-01-01Z", second),
            ("2020-01-01T00Z", second),
            ("2020-01-01T00:00:00+02:00", second - 7200),
            ("2020-01-01T01:02:03Z", second + 3723),
            ("1600000000", 1_600_000_000),
            ("0", 0),
            ("0s", NOW),
            ("1h30m", NOW - 5400),
            ("-10m", NOW + 600),
        ] {
            assert_eq!(read(text), Ok(seconds * 1_000_000_000), "{text}");
        }
        assert_eq!(
            read("2020-01-01T00:00:00.25Z"),
            Ok(second * 1_000_000_000 + 250_000_000)
        );
        assert_eq!(read("1.5"), Ok(1_500_000_000));
        assert_eq!(read("1136073600.000000001"), Ok(1_136_073_600_000_000_001));
        assert_eq!(read("9999-01-01Z"), Ok(i64::MAX));
    }

    #[test]
    fn what_is_no_moment_is_refused_in_dockers_words() {
        for text in ["x", "", "-", "1d", "1600000000.x", "2020-13-01"] {
            let refused = format!("failed to parse value as time or duration: {text:?}");
            assert_eq!(read(text), Err(refused));
        }
    }
}
