//! Two calls on a pidfd that no safe wrapper offers: any signal, real-time ones included, and the exit code of a process
//! that is nobody's child of ours (the kernel keeps it with the pidfd since Linux 6.15).

#![allow(unsafe_code)] // one system call, one ioctl

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// `struct pidfd_info` of its first version, 64 bytes (linux/pidfd.h).
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup_id: u64,
    ids: [u32; 11],
    exit_code: i32,
}

const PIDFD_INFO_EXIT: u64 = 1 << 3;

nix::ioctl_readwrite!(pidfd_get_info, 0xff, 11, PidfdInfo);

/// pidfd_send_signal(2): reaches this process or none.
pub fn send_signal(pidfd: &OwnedFd, signal: i32) -> io::Result<()> {
    let info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open for the length of the call, and a null siginfo is allowed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            info,
            0,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The status, as waitpid(2) reports it, of a process that has ended and has been reaped by whoever is its parent.
pub fn exit_status(pidfd: &OwnedFd) -> Option<i32> {
    let mut info = PidfdInfo {
        mask: PIDFD_INFO_EXIT,
        ..PidfdInfo::default()
    };
    // SAFETY: the structure has the size that the request number carries, and the kernel writes no further.
    unsafe { pidfd_get_info(pidfd.as_raw_fd(), &mut info) }.ok()?;
    (info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_a_reaped_process_is_still_known() {
        for (script, status) in [("exit 7", 7 << 8), ("kill -9 $$", 9)] {
            let mut child = std::process::Command::new("sh")
                .args(["-c", script])
                .spawn()
                .unwrap();
            let pid = rustix::process::Pid::from_child(&child);
            let flags = rustix::process::PidfdFlags::empty();
            let fd = rustix::process::pidfd_open(pid, flags).unwrap();
            child.wait().unwrap();
            assert_eq!(exit_status(&fd), Some(status));
        }
    }
}
