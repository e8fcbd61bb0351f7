//! A network namespace that lives as long as a descriptor of it: no name, no mount, nothing to leak.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace, held by a descriptor.
#[derive(Debug)]
pub struct Netns {
    handle: File,
}

impl Netns {
    /// A new, empty one. Only a thread of its own enters it: setns(2) and unshare(2) change the calling thread alone.
    pub fn new() -> Netns {
        let handle = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)
                .expect("a new network namespace: the tests need root (CAP_SYS_ADMIN)");
            File::open("/proc/thread-self/ns/net").expect("this thread's network namespace")
        })
        .join()
        .expect("the thread that makes a network namespace");
        Netns { handle }
    }

    /// The one in which a process lives: how a test gets inside a container.
    pub fn of_process(pid: u32) -> std::io::Result<Netns> {
        File::open(format!("/proc/{pid}/ns/net")).map(|handle| Netns { handle })
    }

    /// What tells it from all others while it lives: the inode that `/proc/PID/ns/net` leads to.
    pub fn id(&self) -> u64 {
        self.handle.metadata().map_or(0, |metadata| metadata.ino())
    }

    /// A path by which another program (`ip link ... netns PATH`) can open it while this value lives.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            self.handle.as_raw_fd()
        ))
    }

    /// Runs `work` inside. Sockets opened and processes started there stay there; the caller's own thread does not move.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                setns(&self.handle, CloneFlags::CLONE_NEWNET).expect("enter a network namespace");
                work()
            });
            match worker.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Runs the lines of an `ip -batch` script inside.
    #[track_caller]
    pub fn ip(&self, script: &str) {
        crate::Cmd::new("ip")
            .args(["-batch", "-"])
            .stdin(script)
            .run_in(self)
            .ok();
    }
}

impl Default for Netns {
    fn default() -> Netns {
        Netns::new()
    }
}
