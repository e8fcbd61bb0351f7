//! `pause` and `unpause`: the freezer. It is the one place that knows whether a container is paused.
//!
//! On v1 the signals of a frozen process wait until it is thawed, SIGKILL too; on v2 SIGKILL ends it (cgroup-v2, cgroup.freeze).

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{Group, is_v2};

/// How long the processes of a container may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(10);

/// Stops every process of the container where it is; returns when all stand still. A container that cannot be frozen is thawed
/// again.
pub fn freeze(group: &Group) -> io::Result<()> {
    let (file, frozen, thawed) = control(group)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        // v1 gives up half-way when a process is just being made: written again, it goes on (freezer-subsystem: FREEZING).
        fs::write(&file, frozen)?;
        if stands_still(group)? {
            return Ok(());
        }
        if Instant::now() > deadline {
            fs::write(&file, thawed)?;
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Lets them go on. A container that is not frozen, or has no cgroup any more, is no error.
pub fn thaw(group: &Group) -> io::Result<()> {
    let (file, _, thawed) = control(group)?;
    match fs::write(file, thawed) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// A container that stands still until this is dropped.
#[derive(Debug)]
pub struct Frozen(Group);

impl Frozen {
    /// `None` if there is nothing to freeze, or if somebody else has frozen it already.
    pub fn freeze(group: Group) -> Option<Frozen> {
        if is_frozen(&group) {
            return None;
        }
        freeze(&group).ok().map(|()| Frozen(group))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // Gone, if the container was killed meanwhile.
        let _ = thaw(&self.0);
    }
}

/// Whether it has been asked to stand still, and not been let go since.
pub fn is_frozen(group: &Group) -> bool {
    let Ok((file, frozen, _)) = control(group) else {
        return false;
    };
    // A container that was found half-way (FREEZING) is paused as well.
    fs::read_to_string(file).is_ok_and(|state| match frozen {
        "1" => state.trim() == "1",
        _ => state.trim() != "THAWED",
    })
}

fn stands_still(group: &Group) -> io::Result<bool> {
    let (file, frozen, _) = control(group)?;
    if !is_v2() {
        return Ok(fs::read_to_string(file)?.trim() == frozen);
    }
    let events = fs::read_to_string(file.with_file_name("cgroup.events"))?;
    Ok(super::field(&events, "frozen") == Some(1))
}

/// The file, and its words for frozen and thawed.
fn control(group: &Group) -> io::Result<(PathBuf, &'static str, &'static str)> {
    let directory = group
        .directory("freezer")
        .ok_or_else(|| io::Error::other("this host has no freezer cgroup"))?;
    Ok(match is_v2() {
        true => (directory.join("cgroup.freeze"), "1", "0"),
        false => (directory.join("freezer.state"), "FROZEN", "THAWED"),
    })
}
