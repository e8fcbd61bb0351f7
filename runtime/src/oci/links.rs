//! Links in the container's /dev that libcontainer makes otherwise than the rest of the world.

use std::io;
use std::path::Path;

use oci_spec::runtime::{Mount, Spec};
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::bundle::inside::Inside;

/// Where the kernel has /proc/kcore, libcontainer links /dev/kcore to it; with Docker, runc and udev that link is /dev/core.
/// `pid` is the container's first process, which waits: nothing of the container runs yet.
pub(super) fn name_core(spec: &Spec, pid: i32) {
    // Somebody else's /dev, mounted there by the user, is left alone.
    if spec.mounts().iter().flatten().any(is_own_dev) {
        // Not worth a container: nothing is missing without it, for /proc/kcore is masked.
        let _ = rename(pid);
    }
}

fn is_own_dev(mount: &Mount) -> bool {
    mount.destination() == Path::new("/dev") && mount.typ().as_deref() == Some("tmpfs")
}

fn rename(pid: i32) -> io::Result<()> {
    let rootfs = Inside::new(&Path::new("/proc").join(pid.to_string()).join("root"))?;
    let dev = rootfs.open(Path::new("/dev"), OFlags::PATH | OFlags::DIRECTORY)?;
    match rustix::fs::renameat(&dev, "kcore", &dev, "core") {
        // A kernel without it.
        Err(Errno::NOENT) => Ok(()),
        result => Ok(result?),
    }
}
