//! PAX extended headers: records of `LENGTH KEY=VALUE\n`. Pure, and strict: a malformed record is refused.

use super::LayerError;
use super::entry::{Time, Xattrs};
use super::numbers::octets;
use super::sparse::MAX_PIECES;

/// Attributes of one file. Linux lists no more than 64 KiB of names.
const MAX_XATTRS: usize = 1024;

/// What the records say; `None` leaves the header's own field in force.
#[derive(Clone, Debug, Default)]
pub struct Pax {
    pub path: Option<Vec<u8>>,
    pub linkpath: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<Time>,
    pub xattrs: Xattrs,
    pub sparse: SparseRecords,
}

/// GNU's sparse files in PAX form, versions 0.0, 0.1 and 1.0 (GNU tar manual, "PAX Format").
#[derive(Clone, Debug, Default)]
pub struct SparseRecords {
    /// The file's name; `path` is then a made-up one.
    pub name: Option<Vec<u8>>,
    pub major: Option<u64>,
    pub real_size: Option<u64>,
    /// Version 0.1: `offset,length,offset,length`.
    pub map: Option<Vec<u64>>,
    /// Version 0.0: the same, a record each.
    pub list: Vec<u64>,
}

impl Pax {
    pub fn is_sparse(&self) -> bool {
        self.sparse.major == Some(1) || self.sparse.map.is_some() || !self.sparse.list.is_empty()
    }

    /// These values with the records' over them.
    pub fn overlaid(&self, mut records: &[u8]) -> Result<Pax, LayerError> {
        let mut pax = self.clone();
        while !records.is_empty() {
            let ((key, value), rest) = split_record(records)?;
            pax.set(key, value)?;
            records = rest;
            // Global records add up from header to header.
            if pax.xattrs.len() > MAX_XATTRS || pax.sparse.list.len() > 2 * MAX_PIECES {
                return Err(LayerError::malformed("too many PAX records"));
            }
        }
        Ok(pax)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), LayerError> {
        let text = || (!value.is_empty()).then(|| value.to_vec());
        let number = || match value {
            b"" => Ok(None),
            _ => decimal(value).map(Some),
        };
        match key {
            b"path" | b"linkpath" | b"GNU.sparse.name" if value.contains(&0) => {
                return Err(bad(value));
            }
            b"path" => self.path = text(),
            b"linkpath" => self.linkpath = text(),
            b"GNU.sparse.name" => self.sparse.name = text(),
            b"size" => self.size = number()?,
            b"uid" => self.uid = number()?,
            b"gid" => self.gid = number()?,
            b"mtime" if value.is_empty() => self.mtime = None,
            b"mtime" => self.mtime = Some(time(value)?),
            b"GNU.sparse.major" => self.sparse.major = number()?,
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => self.sparse.real_size = number()?,
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => self.sparse.list.push(decimal(value)?),
            b"GNU.sparse.map" => {
                let numbers: Result<_, _> = value.split(|&b| b == b',').map(decimal).collect();
                self.sparse.map = Some(numbers?);
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.retain(|(n, _)| n != name);
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

type Record<'a> = (&'a [u8], &'a [u8]);

/// Key and value of the first record, and the records after it.
fn split_record(records: &[u8]) -> Result<(Record<'_>, &[u8]), LayerError> {
    let split = || {
        let space = records.iter().take(20).position(|&b| b == b' ')?;
        let length = usize::try_from(decimal(&records[..space]).ok()?).ok()?;
        let record = records.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|&b| b == b'=')?;
        let pair = (&record[..equals], &record[equals + 1..]);
        (equals > 0).then(|| (pair, &records[length..]))
    };
    split().ok_or_else(|| bad(&records[..records.len().min(40)]))
}

fn bad(value: &[u8]) -> LayerError {
    LayerError::malformed(format!("bad PAX record {:?}", octets(value)))
}

/// Digits only, up to the largest size that Linux knows.
pub fn decimal(value: &[u8]) -> Result<u64, LayerError> {
    if !(1..=19).contains(&value.len()) || !value.iter().all(u8::is_ascii_digit) {
        return Err(bad(value));
    }
    let number = value.iter().try_fold(0_u64, |n, &b| {
        n.checked_mul(10)?.checked_add(u64::from(b - b'0'))
    });
    number
        .filter(|&n| i64::try_from(n).is_ok())
        .ok_or_else(|| bad(value))
}

/// `[-]SECONDS[.FRACTION]`; a fraction finer than nanoseconds is cut.
fn time(value: &[u8]) -> Result<Time, LayerError> {
    let (negative, digits) = match value.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, value),
    };
    let (whole, fraction) = match digits.iter().position(|&b| b == b'.') {
        Some(at) => (&digits[..at], &digits[at + 1..]),
        None => (digits, &b""[..]),
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(bad(value));
    }
    let seconds = decimal(whole)? as i64;
    let padded = fraction
        .iter()
        .copied()
        .chain(std::iter::repeat(b'0'))
        .take(9);
    let nanoseconds = padded.fold(0_u32, |n, b| n * 10 + u32::from(b - b'0'));
    Ok(match (negative, nanoseconds) {
        (false, _) => Time {
            seconds,
            nanoseconds,
        },
        (true, 0) => Time {
            seconds: -seconds,
            nanoseconds,
        },
        // timespec counts the nanoseconds upwards.
        (true, _) => Time {
            seconds: -seconds - 1,
            nanoseconds: 1_000_000_000 - nanoseconds,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &str) -> Vec<u8> {
        let body = format!(" {key}={value}\n");
        let mut length = body.len() + 1;
        while format!("{length}").len() + body.len() != length {
            length += 1;
        }
        format!("{length}{body}").into_bytes()
    }

    #[test]
    fn records_override_and_empty_values_revert() {
        let global = Pax::default().overlaid(&record("path", "a")).unwrap();
        let records = [
            record("path", ""),
            record("size", "12"),
            record("SCHILY.xattr.user.x", "a=b"),
        ]
        .concat();
        let pax = global.overlaid(&records).unwrap();
        assert_eq!(pax.path, None);
        assert_eq!(pax.size, Some(12));
        assert_eq!(pax.xattrs, [(b"user.x".to_vec(), b"a=b".to_vec())]);
    }

    #[test]
    fn times_may_be_negative_and_fractional() {
        let check = |text: &str, seconds, nanoseconds| {
            assert_eq!(
                time(text.as_bytes()).unwrap(),
                Time {
                    seconds,
                    nanoseconds
                },
                "{text}"
            );
        };
        check("1", 1, 0);
        check("1.5", 1, 500_000_000);
        check("1.1234567891", 1, 123_456_789);
        check("-1.25", -2, 750_000_000);
        assert!(time(b"1.x").is_err() && time(b"").is_err() && time(b"--1").is_err());
    }

    #[test]
    fn malformed_records_are_refused() {
        let huge = record("size", "9223372036854775808");
        for bad in [
            &b"x"[..],
            b"6 a=b",
            b"0 a=b\n",
            b"99 a=b\n",
            b"5 ab\n",
            b"-6 a=b\n",
            b"5 =b\n",
            b"\0\0\0",
            &huge,
            &record("size", "-1"),
        ] {
            assert!(Pax::default().overlaid(bad).is_err(), "{:?}", octets(bad));
        }
    }
}
