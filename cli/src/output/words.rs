//! Times and sizes in words, as Docker's listings have them. Pure.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

/// "Less than a second", "About a minute", "3 weeks".
pub fn duration(seconds: i64) -> String {
    let minutes = seconds / 60;
    // Docker rounds hours to the nearest and cuts everything else down.
    let hours = (seconds + 1800) / 3600;
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// The same with " ago", from `then` to `now`.
pub fn ago(then: OffsetDateTime, now: OffsetDateTime) -> String {
    format!("{} ago", duration((now - then).whole_seconds()))
}

/// `2026-11-23 08:49:15 +0000 UTC`.
pub fn timestamp(when: OffsetDateTime) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second] +0000 UTC");
    when.to_offset(time::UtcOffset::UTC)
        .format(&format)
        .unwrap_or_default()
}

/// RFC 3339 in UTC, as `inspect` has it.
pub fn rfc3339(when: OffsetDateTime) -> String {
    when.to_offset(time::UtcOffset::UTC)
        .format(&Rfc3339)
        .unwrap_or_default()
}

/// What `inspect` says for a time that has not come: Go's zero time.
pub const NEVER: &str = "0001-01-01T00:00:00Z";

pub fn parse_rfc3339(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}

/// Three significant digits and powers of 1000: `1.99MB`, `364MB`, `0B`.
pub fn size(bytes: u64) -> String {
    size_with(bytes, 3)
}

/// Four significant digits and powers of 1024: `23.54GiB`.
pub fn binary_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let whole_digits = (value.max(1.0).log10() as usize) + 1;
    let text = format!("{value:.*}", 4usize.saturating_sub(whole_digits));
    let short = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    format!("{short}{}", UNITS[unit])
}

/// The same with `digits` significant digits.
pub fn size_with(bytes: u64, digits: usize) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let whole_digits = if value >= 100.0 {
        3
    } else if value >= 10.0 {
        2
    } else {
        1
    };
    let mut text = format!("{value:.*}", digits.saturating_sub(whole_digits));
    if text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    // 999,999 bytes round to 1000 kB, which is 1 MB.
    if text == "1000" && unit + 1 < UNITS.len() {
        text = "1".to_owned();
        unit += 1;
    }
    format!("{text}{}", UNITS[unit])
}

/// At most `width` characters, the last one an ellipsis where something was cut.
pub fn ellipsis(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars()
        .take(width.saturating_sub(1))
        .chain(['…'])
        .collect()
}

/// A string in double quotes, with Go's escapes.
pub fn quote(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            // A listing must not hand a terminal what a container's author wrote.
            c if c.is_control() && (c as u32) < 0x80 => {
                quoted.push_str(&format!("\\x{:02x}", c as u32));
            }
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", c as u32)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_dockers_words() {
        const HOUR: i64 = 3600;
        const DAY: i64 = 24 * HOUR;
        let table = [
            (-5, "Less than a second"),
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (HOUR - 1, "59 minutes"),
            (HOUR, "About an hour"),
            (HOUR + HOUR / 2 - 1, "About an hour"),
            (HOUR + HOUR / 2, "2 hours"),
            (47 * HOUR, "47 hours"),
            (2 * DAY, "2 days"),
            (13 * DAY, "13 days"),
            (14 * DAY, "2 weeks"),
            (59 * DAY, "8 weeks"),
            (60 * DAY, "2 months"),
            (729 * DAY, "24 months"),
            (730 * DAY, "2 years"),
        ];
        for (seconds, words) in table {
            assert_eq!(duration(seconds), words, "{seconds}");
        }
    }

    #[test]
    fn sizes_have_three_digits() {
        let table = [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1_985_467, "1.99MB"),
            (12_345_678, "12.3MB"),
            (100_000_000, "100MB"),
            (364_000_000, "364MB"),
            (1_200_000_000, "1.2GB"),
            (999_999, "1MB"),
        ];
        for (bytes, words) in table {
            assert_eq!(size(bytes), words, "{bytes}");
        }
        assert_eq!(size_with(1_985_467, 4), "1.985MB");
    }

    #[test]
    fn long_texts_end_in_an_ellipsis() {
        assert_eq!(ellipsis("sleep 1000", 20), "sleep 1000");
        assert_eq!(ellipsis("12345678901234567890", 20), "12345678901234567890");
        assert_eq!(
            ellipsis("123456789012345678901", 20),
            "1234567890123456789…"
        );
        assert_eq!(ellipsis("ééé", 2), "é…");
    }

    #[test]
    fn quoting_leaves_nothing_for_a_terminal_to_obey() {
        assert_eq!(quote("a \"b\" \\ é"), "\"a \\\"b\\\" \\\\ é\"");
        assert_eq!(quote("\u{1b}[2J\n"), "\"\\x1b[2J\\n\"");
    }

    #[test]
    fn timestamps_are_in_utc() {
        let when = parse_rfc3339("2026-11-23T09:49:15.25+01:00").unwrap();
        assert_eq!(timestamp(when), "2026-11-23 08:49:15 +0000 UTC");
        assert_eq!(rfc3339(when), "2026-11-23T08:49:15.25Z");
    }
}
