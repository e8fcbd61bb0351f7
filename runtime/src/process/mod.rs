//! Processes by identity, not by number: a pid means nothing without its start time and the boot it belongs to.
//!
//! Must not know what a process is for.

mod listing;

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, getrlimit, pidfd_open, setrlimit};
use serde::{Deserialize, Serialize};

pub use listing::{FULL_TITLES, full_row};

/// A process that cannot be mistaken for another one that got the same number later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub pid: i32,
    /// Clock ticks since boot (field 22 of `/proc/PID/stat`, proc(5)).
    pub start: u64,
}

impl Identity {
    /// The identity of a running process; `None` if there is none of this number, or only a zombie.
    pub fn of(pid: i32) -> Option<Identity> {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        parse_stat(&stat).map(|start| Identity { pid, start })
    }

    pub fn myself() -> io::Result<Identity> {
        let pid = std::process::id() as i32;
        Identity::of(pid)
            .ok_or_else(|| io::Error::other("/proc/self/stat cannot be read; is /proc mounted?"))
    }

    pub fn is_alive(self) -> bool {
        Identity::of(self.pid) == Some(self)
    }

    /// A descriptor for the process; `None` if it has gone.
    pub fn open(self) -> Option<Handle> {
        let fd = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        // Looked at after opening: the descriptor now pins this process, whichever it is.
        self.is_alive().then_some(Handle { fd })
    }
}

/// An open process: signals sent through it reach this process or none.
#[derive(Debug)]
pub struct Handle {
    fd: OwnedFd,
}

impl Handle {
    /// Sends a signal; that the process has ended meanwhile is no error.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        match crate::pidfd::send_signal(&self.fd, signal) {
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            result => result,
        }
    }

    pub fn kill(&self) -> io::Result<()> {
        self.signal(libc::SIGKILL)
    }

    /// Waits until the process has ended (it may still be a zombie); false when the time is up. `None` waits for ever.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<bool> {
        let timeout = timeout.map(|d| Timespec {
            tv_sec: d.as_secs() as i64,
            tv_nsec: d.subsec_nanos() as i64,
        });
        loop {
            let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
            match poll(&mut fds, timeout.as_ref()) {
                Ok(n) => return Ok(n > 0),
                Err(rustix::io::Errno::INTR) => continue,
                Err(e) => return Err(e.into()),
            }
        }
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

/// The start time out of `/proc/PID/stat`; `None` for a zombie.
fn parse_stat(stat: &[u8]) -> Option<u64> {
    let fields = fields_from_state(stat)?;
    if matches!(fields[0], "Z" | "X" | "x") {
        return None;
    }
    // Field 22 of the whole line; the state is field 3.
    fields.get(19)?.parse().ok()
}

/// The fields after the name, which is in parentheses and may hold anything. Never empty.
fn fields_from_state(stat: &[u8]) -> Option<Vec<&str>> {
    let after_name = stat.iter().rposition(|b| *b == b')')? + 1;
    let rest = std::str::from_utf8(&stat[after_name..]).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    (!fields.is_empty()).then_some(fields)
}

/// Raises this process's soft limit of open files to the hard one: a range of published ports takes a descriptor for each
/// port and family. Returns the limit before, which is what a container is to get.
pub fn raise_open_files() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Best effort: with the old limit, fewer ports can be published.
    let _ = setrlimit(Resource::Nofile, raised);
    limit.current
}

/// The hard limit, above which this process can set none: `nofile` and the like. `None`: none of this name, or one that
/// CAP_SYS_RESOURCE lets it raise.
pub fn own_hard_limit(name: &str) -> Option<u64> {
    let privileged = caps::has_cap(
        None,
        caps::CapSet::Effective,
        caps::Capability::CAP_SYS_RESOURCE,
    );
    if privileged.unwrap_or(false) {
        return None;
    }
    let resource = match name {
        "core" => Resource::Core,
        "cpu" => Resource::Cpu,
        "data" => Resource::Data,
        "fsize" => Resource::Fsize,
        "locks" => Resource::Locks,
        "memlock" => Resource::Memlock,
        "msgqueue" => Resource::Msgqueue,
        "nice" => Resource::Nice,
        "nofile" => Resource::Nofile,
        "nproc" => Resource::Nproc,
        "rss" => Resource::Rss,
        "rtprio" => Resource::Rtprio,
        "rttime" => Resource::Rttime,
        "sigpending" => Resource::Sigpending,
        "stack" => Resource::Stack,
        _ => return None,
    };
    // `None` of the kernel is no limit.
    Some(getrlimit(resource).maximum.unwrap_or(u64::MAX))
}

/// How ready the kernel is to kill this process for want of memory: proc_pid_oom_score_adj(5).
pub fn oom_score_adj() -> io::Result<String> {
    fs::read_to_string(OOM_SCORE_ADJ)
}

/// Lowering it below what it has been needs CAP_SYS_RESOURCE.
pub fn set_oom_score_adj(score: &str) -> io::Result<()> {
    fs::write(OOM_SCORE_ADJ, score.trim())
}

const OOM_SCORE_ADJ: &str = "/proc/self/oom_score_adj";

/// Lowers it again, just before a container's program is executed.
pub fn set_open_files(soft: Option<u64>) {
    let limit = getrlimit(Resource::Nofile);
    let lowered = Rlimit {
        current: soft,
        maximum: limit.maximum,
    };
    let _ = setrlimit(Resource::Nofile, lowered);
}

/// The exit code, as a shell counts it, of a process that is nobody's child of ours and has just ended: while it is a
/// zombie from `/proc`, once it is reaped from the pidfd. `None` where neither tells.
pub fn exit_code_of_stranger(process: Identity, pidfd: &OwnedFd) -> Option<i32> {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        let status = zombie_status(process).or_else(|| crate::pidfd::exit_status(pidfd));
        if let Some(status) = status {
            let (signal, code) = (status & 0x7f, (status >> 8) & 0xff);
            return Some(if signal == 0 { code } else { 128 + signal });
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Field 52 of `/proc/PID/stat`: what waitpid(2) will report.
fn zombie_status(process: Identity) -> Option<i32> {
    let stat = fs::read(format!("/proc/{}/stat", process.pid)).ok()?;
    let fields = fields_from_state(&stat)?;
    let start: u64 = fields.get(19)?.parse().ok()?;
    if fields[0] != "Z" || start != process.start {
        return None;
    }
    fields.get(49)?.parse().ok()
}

/// This boot of this kernel: what was written before a reboot says nothing about processes of now.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

/// Every process whose command line has these two words after the program's name. Slow: for repair only.
pub fn with_arguments(first: &str, second: &str) -> Vec<Identity> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let own = std::process::id() as i32;
    entries
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != own)
        .filter_map(|pid| {
            let command_line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let mut words = command_line.split(|b| *b == 0).skip(1);
            let found =
                words.next() == Some(first.as_bytes()) && words.next() == Some(second.as_bytes());
            if found { Identity::of(pid) } else { None }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let line = b"42 (a) b) R) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20\n";
        assert_eq!(parse_stat(line), Some(777));
    }

    #[test]
    fn a_zombie_is_not_alive() {
        let line = b"42 (x) Z 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20\n";
        assert_eq!(parse_stat(line), None);
    }

    #[test]
    fn a_process_is_found_by_identity_until_it_ends() {
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let identity = Identity::of(child.id() as i32).unwrap();
        assert!(identity.is_alive());
        let stranger = Identity {
            start: identity.start + 1,
            ..identity
        };
        assert!(!stranger.is_alive());
        assert!(stranger.open().is_none());
        let handle = identity.open().unwrap();
        handle.kill().unwrap();
        assert!(handle.wait(None).unwrap());
        child.wait().unwrap();
        assert!(!identity.is_alive());
        handle.kill().unwrap();
    }

    #[test]
    fn the_exit_code_of_a_zombie_is_read_from_proc() {
        for (script, code) in [("exit 7", 7), ("kill -9 $$", 137)] {
            let mut child = std::process::Command::new("sh")
                .args(["-c", &format!("read x; {script}")])
                .stdin(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            let process = Identity::of(child.id() as i32).unwrap();
            let handle = process.open().unwrap();
            drop(child.stdin.take());
            handle.wait(None).unwrap();
            assert_eq!(
                exit_code_of_stranger(process, &handle.into_fd()),
                Some(code)
            );
            child.wait().unwrap();
        }
    }
}
