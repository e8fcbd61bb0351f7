//! A real Docker Engine in place of the program under test: the tests themselves are tested against what they claim Docker does.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Cmd, Netns, Running, until};

/// The client of the distribution's package `docker.io`, of the same version as its engine; a newer one in PATH has other texts.
pub const CLIENT: &str = "/usr/bin/docker";

/// A `dockerd` in a host's namespace, with all it has in the host's folder, its mounts in a mount namespace of its own, and its
/// containers below a cgroup of its own.
#[derive(Debug)]
pub struct Dockerd {
    folder: PathBuf,
    cgroup: String,
    command: Cmd,
    running: Mutex<Option<Running>>,
    /// Its mount namespace, for the next start: containers outlive a restart.
    mounts: Mutex<Option<File>>,
}

impl Dockerd {
    /// Starts it and waits until it answers; one that cannot start (no privilege, no `dockerd`) fails the test.
    #[track_caller]
    pub fn start(netns: &Netns, folder: &Path, options: &[String]) -> Dockerd {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let folder = folder.join("docker");
        fs::create_dir_all(&folder).expect("a folder for dockerd");
        let cgroup = format!(
            "coracle-test-docker-{}-{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        // `exec`: the process that is signalled must be dockerd itself.
        let command = Cmd::new("sh")
            .args(["-c", "log=$1; shift; exec \"$@\" >>\"$log\" 2>&1", "sh"])
            .arg(log_file(&folder))
            .args(["dockerd", "--group", "root", "--live-restore"])
            .args(["--exec-opt", "native.cgroupdriver=cgroupfs"])
            .arg("--cgroup-parent")
            .arg(format!("/{cgroup}"))
            .args(options.iter().filter(|option| is_dockerds(option)))
            .arg("--data-root")
            .arg(folder.join("data"))
            .arg("--exec-root")
            .arg(folder.join("exec"))
            .arg("--pidfile")
            .arg(folder.join("pid"))
            .arg("--host")
            .arg(address(&folder))
            // What the engine starts (containerd, shims, proxies) has it too: by this it is found.
            .env(MARKER, &cgroup)
            .limit(Duration::from_secs(3600));
        let docker = Dockerd {
            folder,
            cgroup,
            command,
            running: Mutex::new(None),
            mounts: Mutex::new(None),
        };
        docker.up(netns);
        docker
    }

    /// For the docker client's `--host`.
    pub fn address(&self) -> String {
        address(&self.folder)
    }

    #[track_caller]
    pub fn restart(&self, netns: &Netns) {
        self.down();
        self.up(netns);
    }

    /// The last lines that it has logged.
    pub fn log(&self) -> String {
        let text = fs::read_to_string(log_file(&self.folder)).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    #[track_caller]
    fn up(&self, netns: &Netns) {
        let mut mounts = self.mounts.lock().unwrap_or_else(PoisonError::into_inner);
        let command = match &*mounts {
            Some(file) => {
                let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
                let command = self.command.clone();
                command.wrapped_in("nsenter", [format!("--mount={path}")])
            }
            // What unmounts elsewhere reaches this namespace, so that nothing of others is held; what is mounted here is seen
            // nowhere else and goes with the last process in it.
            None => self
                .command
                .clone()
                .wrapped_in("unshare", ["--mount", "--propagation", "slave"]),
        };
        let running = command.spawn_in(netns);
        let pid = running.pid();
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
        let answer = until(Duration::from_secs(30), || {
            let version = Cmd::new("docker")
                .args(["--host", &self.address(), "version"])
                .run();
            if version.code() == 0 {
                Ok(())
            } else {
                Err(version)
            }
        });
        if let Err(version) = answer {
            panic!("dockerd does not answer: {version}\n{}", self.log());
        }
        *mounts = File::open(format!("/proc/{pid}/ns/mnt")).ok();
    }

    fn down(&self) {
        let running = self
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(running) = running {
            running.signal(Signal::SIGTERM);
            let _ = running.wait();
        }
    }

    /// Removes its containers, ends it, and then whatever is left of it, by force. What was left is told: for a test of the tests.
    pub fn end(&self) -> Vec<String> {
        let client = |args: &[&str]| {
            let address = self.address();
            Cmd::new("docker")
                .args(["--host", &address])
                .args(args)
                .run()
        };
        let ids = client(&["ps", "-aq"]);
        if ids.code() == 0 && !ids.text().is_empty() {
            let mut remove = vec!["rm", "-f", "-v"];
            remove.extend(ids.stdout.lines());
            client(&remove);
        }
        self.down();
        *self.mounts.lock().unwrap_or_else(PoisonError::into_inner) = None;
        // A shim ends a moment after its container.
        let _ = until(Duration::from_secs(5), || {
            if self.processes().is_empty() {
                Ok(())
            } else {
                Err(())
            }
        });
        let left: Vec<_> = self
            .processes()
            .into_iter()
            .map(|pid| {
                let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
                format!("process {pid}: {}", crate::clean::command_line(pid))
            })
            .collect();
        let _ = until(Duration::from_secs(5), || self.remove_cgroups());
        left.into_iter().chain(self.leftovers()).collect()
    }

    /// Its processes, cgroups and mounts, one line each.
    pub fn leftovers(&self) -> Vec<String> {
        let folder = self.folder.display().to_string();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let processes = self.processes().into_iter();
        let mounts = mounts.lines().filter(|line| line.contains(&folder));
        let cgroups = self.cgroups().into_iter();
        processes
            .map(|pid| format!("process {pid}: {}", crate::clean::command_line(pid)))
            .chain(mounts.map(|line| format!("mount {line}")))
            .chain(cgroups.map(|path| format!("cgroup {}", path.display())))
            .collect()
    }

    /// What has its mark in its environment (the engine's own), or is in its cgroup (the containers').
    fn processes(&self) -> BTreeSet<u32> {
        let mark = format!("{MARKER}={}", self.cgroup);
        let below = format!("/{}", self.cgroup);
        let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
        numbers
            .filter_map(|entry| {
                let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
                let has = |name: &str, text: &str| {
                    let bytes = fs::read(entry.path().join(name)).unwrap_or_default();
                    String::from_utf8_lossy(&bytes)
                        .split(['\0', '\n'])
                        .any(|line| line.contains(text))
                };
                (has("environ", &mark) || has("cgroup", &below)).then_some(pid)
            })
            .collect()
    }

    /// The folder of its containers in each hierarchy.
    fn cgroups(&self) -> Vec<PathBuf> {
        let root = Path::new("/sys/fs/cgroup");
        let hierarchies = fs::read_dir(root).into_iter().flatten().flatten();
        hierarchies
            .map(|entry| entry.path())
            .chain([root.to_owned()])
            .map(|hierarchy| hierarchy.join(&self.cgroup))
            .filter(|path| path.is_dir())
            .collect()
    }

    fn remove_cgroups(&self) -> std::io::Result<()> {
        self.cgroups().iter().try_for_each(|path| {
            for below in fs::read_dir(path)?.flatten() {
                if below.path().is_dir() {
                    fs::remove_dir(below.path())?;
                }
            }
            fs::remove_dir(path)
        })
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        // A second panic while one is under way would end the process before the other tests have cleaned up.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.end()));
    }
}

const MARKER: &str = "CORACLE_TEST_DOCKERD";

/// Options that the two engines have in common, and those that are for `dockerd` alone.
fn is_dockerds(option: &str) -> bool {
    let common = ["--iptables=false", "--experimental", "--ip6tables"];
    common.contains(&option) || option.starts_with("--add-runtime=")
}

fn address(folder: &Path) -> String {
    format!("unix://{}", folder.join("docker.sock").display())
}

fn log_file(folder: &Path) -> PathBuf {
    folder.join("log")
}
