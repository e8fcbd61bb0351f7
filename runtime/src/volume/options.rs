//! What `volume create -o` may say, as to Docker's driver `local`. Pure.
//!
//! Docker mounts such a volume on the host for as long as a container uses it. Here nothing is mounted on the host: a volume
//! that stands for a directory of the host is bound straight from there, and the other types are refused.

use std::path::{Path, PathBuf};

use crate::engine::mounts::MountError;

type Options = [(String, String)];

fn get<'a>(options: &'a Options, name: &str) -> Option<&'a str> {
    let mut found = options.iter().filter(|(key, _)| key == name);
    found.next_back().map(|(_, value)| value.as_str())
}

/// Refuses what Docker refuses, in its words, and then what is not built.
pub fn check(volume: &str, options: &Options) -> Result<(), MountError> {
    let create = |reason: String| MountError::CreateVolume {
        name: volume.to_owned(),
        reason,
    };
    let known = |name: &str| ["type", "o", "device"].contains(&name);
    if let Some((name, _)) = options.iter().find(|(name, _)| !known(name)) {
        return Err(create(format!("invalid option: {name:?}")));
    }
    if options.is_empty() {
        return Ok(());
    }
    let Some(device) = get(options, "device").filter(|device| !device.is_empty()) else {
        return Err(create("missing required option: \"device\"".to_owned()));
    };
    let kind = get(options, "type").unwrap_or_default();
    if kind.is_empty() {
        return Err(create("missing required option: \"type\"".to_owned()));
    }
    if !["none", "bind"].contains(&kind) || bind(options).is_none() {
        return Err(create(format!(
            "the options type={kind} and o={:?} are not supported: only type=none with o=bind is; for memory use --tmpfs, \
             and mount other file systems on the host",
            get(options, "o").unwrap_or_default()
        )));
    }
    if !Path::new(device).is_absolute() {
        return Err(create(format!(
            "device {device:?} must be an absolute path"
        )));
    }
    Ok(())
}

/// The directory of the host that the volume stands for, and whether it is read-only; `None`: it has its own.
pub fn device(options: &Options) -> Option<(PathBuf, bool)> {
    let device = get(options, "device")?;
    bind(options).map(|read_only| (PathBuf::from(device), read_only))
}

/// `bind`, perhaps with `ro`: whether it is. `None` for anything else.
fn bind(options: &Options) -> Option<bool> {
    let words: Vec<&str> = get(options, "o")?.split(',').collect();
    let known = |word: &&str| ["bind", "rbind", "ro", "rw"].contains(word);
    let is_bind = words.iter().any(|word| word.ends_with("bind"));
    (is_bind && words.iter().all(known)).then(|| words.contains(&"ro"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn a_directory_of_the_host_is_the_one_thing_built() {
        let bind = options(&[("type", "none"), ("o", "bind,ro"), ("device", "/srv")]);
        assert!(check("vv", &bind).is_ok());
        assert_eq!(device(&bind), Some(("/srv".into(), true)));
        assert!(check("vv", &[]).is_ok());
        assert_eq!(device(&[]), None);
    }

    #[test]
    fn anything_else_is_refused() {
        for (pairs, expected) in [
            (&[("foo", "bar")][..], "create vv: invalid option: \"foo\""),
            (
                &[("type", "none")],
                "create vv: missing required option: \"device\"",
            ),
            (
                &[("device", "/srv")],
                "create vv: missing required option: \"type\"",
            ),
        ] {
            let error = check("vv", &options(pairs)).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
        for pairs in [
            [("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m")],
            [("type", "none"), ("device", "srv"), ("o", "bind")],
            [("type", "nfs"), ("device", ":/x"), ("o", "addr=192.0.2.1")],
        ] {
            assert!(check("vv", &options(&pairs)).is_err(), "{pairs:?}");
        }
    }
}
