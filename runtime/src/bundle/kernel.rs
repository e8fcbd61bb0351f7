//! The one mount call that has no safe wrapper.
#![allow(unsafe_code)] // mount_setattr(2) is in no crate that we use.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

/// `struct mount_attr`, MOUNT_ATTR_SIZE_VER0.
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

const MOUNT_ATTR_RDONLY: u64 = 1;

/// Makes the mount behind the descriptor read-only, and no other mount of the same file system.
pub fn make_read_only(mount: impl AsFd) -> Result<(), Errno> {
    set_read_only(mount, libc::AT_EMPTY_PATH)
}

/// And those below it.
pub fn make_all_read_only(mount: impl AsFd) -> Result<(), Errno> {
    set_read_only(mount, libc::AT_EMPTY_PATH | libc::AT_RECURSIVE)
}

fn set_read_only(mount: impl AsFd, flags: i32) -> Result<(), Errno> {
    let attributes = MountAttr {
        set: MOUNT_ATTR_RDONLY,
        clear: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the path is a C string and the structure of the size given; both live through the call, and the kernel
    // only reads them. The descriptor is borrowed, so it is open.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<MountAttr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        let error = std::io::Error::last_os_error();
        Err(Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }
}
