//! A machine for one test: its networks, its folder, and the program under test on it.
//!
//! ```text
//!   neighbour 192.0.2.2 --+
//!   attacker  192.0.2.3 --+-- bridge (192.0.2.254, the router) --- eth0 192.0.2.1 host
//! ```

mod builder;
mod left;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use serde_json::Value;
use tempfile::TempDir;

pub use builder::HostBuilder;

use crate::clean::Snapshot;
use crate::docker::Dockerd;
use crate::{Cmd, Netns, Output, eventually, net};

pub const HOST: &str = "192.0.2.1";
pub const NEIGHBOUR: &str = "192.0.2.2";
pub const ATTACKER: &str = "192.0.2.3";

/// A machine made of namespaces, with the program on it.
#[derive(Debug)]
pub struct Host {
    // Before the folder: the daemon lives in it, and fields are dropped in this order.
    docker: Option<Dockerd>,
    folder: TempDir,
    run_root: PathBuf,
    marker: String,
    /// The host's own network namespace.
    pub netns: Netns,
    /// Another machine on its LAN.
    pub neighbour: Netns,
    /// A third one, with routes of its own making.
    pub attacker: Netns,
    /// Holds the LAN's bridge, and with it the cables, while the host lives.
    switch: Netns,
    binary: PathBuf,
    options: Vec<String>,
    path: Option<String>,
    before: Snapshot,
    containers: Mutex<BTreeSet<String>>,
}

impl Host {
    pub fn builder() -> HostBuilder {
        HostBuilder::default()
    }

    /// A host with the image `busybox` and forwarding off.
    #[track_caller]
    pub fn new() -> Host {
        Host::builder().build()
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn root(&self) -> PathBuf {
        self.folder().join("root")
    }

    pub fn run_root(&self) -> &Path {
        &self.run_root
    }

    /// Is it a real `dockerd` that answers? A few of our promises are not Docker's.
    pub fn is_docker(&self) -> bool {
        self.docker.is_some()
    }

    /// Ends the real `dockerd`, if there is one; what it left behind, one line each.
    pub fn end_docker(&self) -> Vec<String> {
        self.docker.as_ref().map(Dockerd::end).unwrap_or_default()
    }

    /// One more machine on the LAN, 192.0.2.`last` and 2001:db8::`last`.
    pub fn another_machine(&self, last: u8) -> Netns {
        let machine = Netns::new();
        builder::plug(&self.switch, &machine, last);
        machine
    }

    /// The IDs of all containers that this test has heard of.
    fn ids_so_far(&self) -> MutexGuard<'_, BTreeSet<String>> {
        let poisoned = std::sync::PoisonError::into_inner;
        self.containers.lock().unwrap_or_else(poisoned)
    }

    // Names that differ between the two layouts (and Docker, when it is the one asked).

    fn docker_layout(&self) -> bool {
        self.is_docker() || self.options.iter().any(|option| option == "docker")
    }

    /// The chain of published ports (`""`), or one of the others: `-USER`.
    pub fn chain(&self, suffix: &str) -> String {
        format!(
            "{}{suffix}",
            if self.docker_layout() {
                "DOCKER"
            } else {
                "CORACLE"
            }
        )
    }

    /// The default network's bridge.
    pub fn bridge(&self) -> &'static str {
        if self.docker_layout() {
            "docker0"
        } else {
            "coracle0"
        }
    }

    // Commands.

    /// The program with these arguments, not run yet.
    pub fn command<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Cmd {
        let cmd = self.with_environment(Cmd::new(&self.binary));
        match &self.docker {
            Some(docker) => cmd.arg("--host").arg(docker.address()),
            None => cmd
                .arg("--root")
                .arg(self.root())
                .arg("--run-root")
                .arg(self.run_root())
                .args(&self.options),
        }
        .args(args)
    }

    /// Gives another program that runs ours the environment that ours must have.
    pub fn with_environment(&self, cmd: Cmd) -> Cmd {
        let (name, value) = self.marker.split_once('=').expect("a marker is NAME=VALUE");
        let cmd = cmd.env(name, value).env("HOME", self.folder());
        match &self.path {
            Some(path) => cmd.env("PATH", path),
            None => cmd,
        }
    }

    /// Runs the program on the host.
    #[track_caller]
    pub fn coracle<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Output {
        let output = self.command(args).run_in(&self.netns);
        self.remember_ids(&output.stdout);
        output
    }

    /// A line of arguments without white space in any of them, which must succeed: `host.run("stop web")`.
    #[track_caller]
    pub fn run(&self, line: &str) -> Output {
        self.coracle(line.split_whitespace()).ok()
    }

    /// The same, whatever comes of it.
    #[track_caller]
    pub fn try_run(&self, line: &str) -> Output {
        self.coracle(line.split_whitespace())
    }

    /// `system VERB`; Docker's daemon does these by itself, at its start and end.
    #[track_caller]
    pub fn system(&self, verb: &str) {
        match &self.docker {
            Some(docker) if verb == "reload" => docker.restart(&self.netns),
            Some(_) => {}
            None => drop(self.coracle(["system", verb]).ok()),
        }
    }

    /// Another program on the host: `host.tool("iptables", ["-F", "CORACLE"])`.
    #[track_caller]
    pub fn tool<A: AsRef<OsStr>>(
        &self,
        program: &str,
        args: impl IntoIterator<Item = A>,
    ) -> Output {
        Cmd::new(program).args(args).run_in(&self.netns)
    }

    // Containers.

    /// Starts a web server in the background: `busybox httpd` on the container's port 80. Returns its ID once it serves.
    #[track_caller]
    pub fn start_web(&self, name: &str, options: &str) -> String {
        let id = self
            .run(&format!(
                "run -d --name {name} {options} busybox httpd -f -v -p 80 -h /www"
            ))
            .text()
            .to_owned();
        let inside = self.address_of(name);
        // Asked from inside its own namespace: what is published is for the test to find out.
        eventually(&format!("{name} serves"), || {
            let netns = Netns::of_process(self.pid_of(name))?;
            net::http_get(&netns, &format!("{inside}:80"))
        });
        id
    }

    /// `inspect` of one container.
    #[track_caller]
    pub fn inspect(&self, name: &str) -> Value {
        self.run(&format!("inspect {name}")).json()[0].take()
    }

    /// The process ID of its first process, as the host has it.
    #[track_caller]
    pub fn pid_of(&self, name: &str) -> u32 {
        let pid = self.inspect(name)["State"]["Pid"].as_u64();
        pid.and_then(|pid| u32::try_from(pid).ok())
            .unwrap_or_else(|| panic!("inspect gives no State.Pid of {name}"))
    }

    /// Its address on the one network that it is on.
    #[track_caller]
    pub fn address_of(&self, name: &str) -> String {
        let inspect = self.inspect(name);
        inspect["NetworkSettings"]["Networks"]
            .as_object()
            .into_iter()
            .flat_map(|networks| networks.values())
            .filter_map(|network| network["IPAddress"].as_str())
            .find(|address| !address.is_empty())
            .unwrap_or_else(|| panic!("inspect gives no address of {name}: {inspect}"))
            .to_owned()
    }

    /// The monitor of a container: the process of ours whose command line names it.
    pub fn monitor_of(&self, id: &str) -> Option<u32> {
        self.monitors()
            .into_iter()
            .find(|pid| crate::clean::command_line(*pid).contains(id))
    }

    /// The processes of this host's commands that are monitors: they stay in the host's network namespace.
    pub fn monitors(&self) -> Vec<u32> {
        let here = |pid: &u32| {
            fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|it| it.ino() == self.netns.id())
        };
        fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(here)
            .filter(|pid| crate::clean::command_line(*pid).contains("monitor"))
            .collect()
    }

    /// The full IDs of all containers.
    #[track_caller]
    pub fn ids(&self) -> Vec<String> {
        let output = self.run("ps -aq --no-trunc");
        output.stdout.lines().map(str::to_owned).collect()
    }
}

impl Default for Host {
    fn default() -> Host {
        Host::new()
    }
}
