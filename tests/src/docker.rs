//! A real Docker Engine in place of the program under test: the tests themselves are tested against what they claim Docker does.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::{Cmd, Netns, Running, until};

/// A `dockerd` in a host's namespace, with all it has in the host's folder.
#[derive(Debug)]
pub struct Dockerd {
    folder: PathBuf,
    command: Cmd,
    running: Mutex<Option<Running>>,
}

impl Dockerd {
    #[track_caller]
    pub fn start(netns: &Netns, folder: &Path, options: &[String]) -> Dockerd {
        let folder = folder.join("docker");
        let command = Cmd::new("dockerd")
            .args(["--group", "root", "--live-restore"])
            .args(
                options
                    .iter()
                    .filter(|option| *option == "--iptables=false"),
            )
            .arg("--data-root")
            .arg(folder.join("data"))
            .arg("--exec-root")
            .arg(folder.join("exec"))
            .arg("--pidfile")
            .arg(folder.join("pid"))
            .arg("--host")
            .arg(address(&folder))
            .limit(Duration::from_secs(3600));
        let docker = Dockerd {
            folder,
            command,
            running: Mutex::new(None),
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

    pub fn log(&self) -> String {
        format!(
            "(dockerd in {}: its output comes with its end)",
            self.folder.display()
        )
    }

    #[track_caller]
    fn up(&self, netns: &Netns) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(self.command.spawn_in(netns));
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
            panic!("dockerd does not answer: {version}");
        }
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
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        // A second panic while one is under way would end the process before the other tests have cleaned up.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.remove_all()));
    }
}

impl Dockerd {
    fn remove_all(&self) {
        let ids = Cmd::new("docker")
            .args(["--host", &self.address(), "ps", "-aq"])
            .run();
        if !ids.text().is_empty() {
            let remove = ["--host", &self.address(), "rm", "-f"].map(str::to_owned);
            let ids = ids.stdout.lines().map(str::to_owned);
            Cmd::new("docker").args(remove.into_iter().chain(ids)).run();
        }
        self.down();
    }
}

fn address(folder: &Path) -> String {
    format!("unix://{}", folder.join("docker.sock").display())
}
