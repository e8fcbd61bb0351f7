//! The time of a record: nanoseconds since 1970, in text always with nine digits after the second, as `logs -t` prints it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(pub i64);

/// The time of what was read at once, written down once.
pub(super) struct Now {
    pub(super) stamp: Stamp,
    pub(super) text: String,
}

impl Now {
    pub(super) fn read() -> Now {
        let stamp = Stamp::now();
        Now {
            stamp,
            text: stamp.text(),
        }
    }
}

impl Stamp {
    pub fn now() -> Stamp {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        Stamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    }

    /// As RFC 3339 has it: `2026-11-23T15:06:10.947553843Z`.
    pub fn text(self) -> String {
        let time = OffsetDateTime::from_unix_timestamp_nanos(self.0.into())
            .unwrap_or(OffsetDateTime::UNIX_EPOCH);
        format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:09}Z",
            time.year(),
            u8::from(time.month()),
            time.day(),
            time.hour(),
            time.minute(),
            time.second(),
            time.nanosecond()
        )
    }

    /// Any RFC 3339: Docker leaves out zeros at the end.
    pub fn parse(text: &str) -> Option<Stamp> {
        let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        i64::try_from(time.unix_timestamp_nanos()).ok().map(Stamp)
    }
}
