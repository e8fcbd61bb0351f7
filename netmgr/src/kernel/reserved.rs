//! Host ports kept from ephemeral use (`ip-sysctl: ip_local_reserved_ports`): one list, which we share with the
//! administrator.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::kernel::Error;

const LIST: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// The longest list is of every other port: 32,768 numbers of five digits and a comma. The kernel answers only the first
/// read, so it has to hold all.
const LIST_SIZE: usize = 256 << 10;

/// In `RUN_ROOT`: which entries of the list are ours. No file: none. It goes with a reboot, as does the list.
const MEMORY: &str = "reserved-ports.json";

/// First and last ports.
type Runs = Vec<(u16, u16)>;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Memory {
    /// At least what of the list is ours: while it is being written, what was and what will be.
    ours: Runs,
    /// What of it was in the list before us, or else we would take it away with ours.
    also_theirs: Runs,
}

/// Makes `wanted` the ports that the list holds for us; whatever else it holds stays, ports that ours overlap with
/// included. Run again, or after having been killed, it comes to the same.
pub(crate) fn replace(run_root: &Path, wanted: &[(u16, u16)]) -> Result<(), Error> {
    let path = run_root.join(MEMORY);
    let memory = recall(&path)?;
    if memory.is_none() && wanted.is_empty() {
        return Ok(());
    }
    let memory = memory.unwrap_or_default();
    let listed = read_list()?;
    let (ours, also_theirs) = (Ports::of(&memory.ours), Ports::of(&memory.also_theirs));
    // Those of ours that are not in the list any more somebody has taken out, and they stay out if they were theirs.
    let theirs = listed.without(&ours.without(&also_theirs));
    let wanted_ports = Ports::of(wanted);
    let either = ours.with(&wanted_ports);
    // Before the list: a command that is killed in between leaves more noted as ours than is listed.
    remember(&path, &either, &theirs.within(&either))?;
    let list = theirs.with(&wanted_ports);
    if list != listed {
        write_list(&list)?;
    }
    match wanted.is_empty() {
        true => forget(&path),
        false if either != wanted_ports => {
            remember(&path, &wanted_ports, &theirs.within(&wanted_ports))
        }
        false => Ok(()),
    }
}

fn read_list() -> Result<Ports, Error> {
    let read = || -> io::Result<Ports> {
        let mut text = vec![0; LIST_SIZE];
        let length = File::open(LIST)?.read(&mut text)?;
        let text = String::from_utf8_lossy(&text[..length]);
        Ports::parse(&text).ok_or_else(|| io::ErrorKind::InvalidData.into())
    };
    read().map_err(|source| Error::ReadSysctl {
        path: LIST.into(),
        source,
    })
}

/// The kernel takes a page with each write: the first replaces the list and the rest add to it (`proc_do_large_bitmap`),
/// which is how a file is written whole. The empty list is an empty line; nothing written changes nothing.
fn write_list(ports: &Ports) -> Result<(), Error> {
    fs::write(LIST, ports.to_string() + "\n").map_err(|source| Error::ReservePorts {
        path: LIST.into(),
        source,
    })
}

fn recall(path: &Path) -> Result<Option<Memory>, Error> {
    let failed = |source| Error::RecallHost {
        path: path.into(),
        source,
    };
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| failed(error.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// By a rename, so that a killed command leaves the whole memory or none.
fn remember(path: &Path, ours: &Ports, also_theirs: &Ports) -> Result<(), Error> {
    let memory = Memory {
        ours: ours.runs(),
        also_theirs: also_theirs.runs(),
    };
    let write = || {
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        let new: PathBuf = path.with_extension("json.new");
        fs::write(&new, serde_json::to_vec(&memory)?)?;
        fs::rename(&new, path)
    };
    write().map_err(|source: io::Error| Error::RememberHost {
        path: path.into(),
        source,
    })
}

fn forget(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::RememberHost {
            path: path.into(),
            source,
        }),
        _ => Ok(()),
    }
}

const WORDS: usize = (1 << 16) / 64;

/// A set of ports, as the kernel keeps it: a bit each.
#[derive(Clone, PartialEq, Eq)]
struct Ports(Box<[u64; WORDS]>);

impl Ports {
    fn of(runs: &[(u16, u16)]) -> Ports {
        let mut words = Box::new([0; WORDS]);
        for port in runs.iter().flat_map(|&(first, last)| first..=last) {
            words[usize::from(port) / 64] |= 1 << (port % 64);
        }
        Ports(words)
    }

    /// The kernel's format: `1-10,15`.
    fn parse(text: &str) -> Option<Ports> {
        let entries = text.trim().split(',').filter(|entry| !entry.is_empty());
        let run = |entry: &str| {
            let (first, last) = entry.split_once('-').unwrap_or((entry, entry));
            Some((first.parse().ok()?, last.parse().ok()?))
        };
        entries
            .map(run)
            .collect::<Option<Runs>>()
            .map(|runs| Ports::of(&runs))
    }

    fn runs(&self) -> Runs {
        let mut runs = Runs::new();
        let has = |port: &u16| self.0[usize::from(*port) / 64] >> (port % 64) & 1 == 1;
        for port in (0..=u16::MAX).filter(has) {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == port => *last = port,
                _ => runs.push((port, port)),
            }
        }
        runs
    }

    fn with(&self, other: &Ports) -> Ports {
        self.by_word(other, |a, b| a | b)
    }

    fn without(&self, other: &Ports) -> Ports {
        self.by_word(other, |a, b| a & !b)
    }

    fn within(&self, other: &Ports) -> Ports {
        self.by_word(other, |a, b| a & b)
    }

    fn by_word(&self, other: &Ports, combine: impl Fn(u64, u64) -> u64) -> Ports {
        let mut words = self.0.clone();
        for (word, other) in words.iter_mut().zip(other.0.iter()) {
            *word = combine(*word, *other);
        }
        Ports(words)
    }
}

impl std::fmt::Display for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let runs = self
            .runs()
            .into_iter()
            .map(|(first, last)| match last - first {
                0 => first.to_string(),
                _ => format!("{first}-{last}"),
            });
        f.write_str(&runs.collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_written_as_the_kernel_does() {
        for text in ["", "1-10,15", "8080,32768-60999,65535", "0,2-3,65534-65535"] {
            assert_eq!(Ports::parse(text).unwrap().to_string(), text);
        }
        let same = Ports::parse("1,2,3,9-9,4\n").unwrap();
        assert_eq!(same.to_string(), "1-4,9");
        assert!(Ports::parse("1-x").is_none());
        assert!(Ports::parse("65536").is_none());
    }
}
