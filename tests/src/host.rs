//! A machine for one test: its networks, its folder, and the program under test on it.
//!
//! ```text
//!   neighbour 192.0.2.2 --+
//!   attacker  192.0.2.3 --+-- bridge (192.0.2.254, the router) --- eth0 192.0.2.1 host
//! ```

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::clean::{Leftovers, Snapshot};
use crate::docker::Dockerd;
use crate::{Cmd, Netns, Output, eventually, images, net, rules};

pub const HOST: &str = "192.0.2.1";
pub const NEIGHBOUR: &str = "192.0.2.2";
pub const ATTACKER: &str = "192.0.2.3";

/// Rules that an administrator might have, to see that they are left alone.
const FOREIGN_RULES: &str = "*filter\n:ADMIN - [0:0]\n-A INPUT -p tcp -m tcp --dport 9999 -j DROP\n-A FORWARD -j ADMIN\n-A ADMIN -s 203.0.113.9/32 -j DROP\nCOMMIT\n*nat\n-A POSTROUTING -s 203.0.113.0/24 -j MASQUERADE\nCOMMIT\n";

/// How a host is to be.
#[derive(Clone, Debug)]
pub struct HostBuilder {
    options: Vec<String>,
    ip_forward: bool,
    foreign_rules: bool,
    busybox: bool,
    binary: Option<PathBuf>,
}

impl HostBuilder {
    /// Global options of the program, before every command: `--profile docker`.
    pub fn options<A: AsRef<str>>(mut self, options: impl IntoIterator<Item = A>) -> HostBuilder {
        self.options
            .extend(options.into_iter().map(|option| option.as_ref().to_owned()));
        self
    }

    /// Is the host a router before the program is first used? (Not, unless said.)
    pub fn ip_forward(mut self, on: bool) -> HostBuilder {
        self.ip_forward = on;
        self
    }

    /// Gives the host firewall rules of its own.
    pub fn foreign_rules(mut self) -> HostBuilder {
        self.foreign_rules = true;
        self
    }

    /// Without the image `busybox`.
    pub fn without_image(mut self) -> HostBuilder {
        self.busybox = false;
        self
    }

    /// Another copy of the program than the usual one.
    pub fn binary(mut self, binary: impl Into<PathBuf>) -> HostBuilder {
        self.binary = Some(binary.into());
        self
    }

    #[track_caller]
    pub fn build(self) -> Host {
        let folder = tempfile::Builder::new()
            .prefix("cch-")
            .tempdir_in(images::scratch_folder())
            .expect("a folder for a host");
        let (host, neighbour, attacker, switch) =
            (Netns::new(), Netns::new(), Netns::new(), Netns::new());
        lay_cables(&switch, [&host, &neighbour, &attacker]);
        host.enter(|| {
            fs::write(
                "/proc/sys/net/ipv4/ip_forward",
                if self.ip_forward { "1" } else { "0" },
            )
        })
        .expect("set ip_forward in a namespace of our own");
        if self.foreign_rules {
            Cmd::new("iptables-restore")
                .stdin(FOREIGN_RULES)
                .run_in(&host)
                .ok();
        }
        let before = Snapshot::take(&host);
        let docker = images::compare_with_docker()
            .then(|| Dockerd::start(&host, folder.path(), &self.options));
        let binary = match (&docker, self.binary) {
            (Some(_), _) => PathBuf::from("docker"),
            (None, Some(binary)) => binary,
            (None, None) => images::binary(),
        };
        let this = Host {
            marker: format!("CORACLE_TEST_HOST={}", folder.path().display()),
            run_root: folder.path().join("run"),
            folder,
            netns: host,
            neighbour,
            attacker,
            switch,
            binary,
            options: self.options,
            before,
            containers: RefCell::default(),
            docker,
        };
        if self.busybox {
            this.coracle([
                "import".as_ref(),
                images::busybox_tar().as_os_str(),
                "busybox".as_ref(),
            ])
            .ok();
        }
        this
    }
}

/// A switch, and one cable to each machine; addresses and routes as a LAN's router would give them.
fn lay_cables(switch: &Netns, machines: [&Netns; 3]) {
    let mut script = "link set lo up\nlink add lan0 type bridge\nlink set lan0 up\naddr add 192.0.2.254/24 dev lan0\n".to_owned();
    for (port, machine) in machines.iter().enumerate() {
        script += &format!(
            "link add port{port} type veth peer name eth0 netns {}\nlink set port{port} master lan0 up\n",
            machine.path().display()
        );
    }
    switch.ip(&script);
    for (machine, address) in machines.iter().zip([HOST, NEIGHBOUR, ATTACKER]) {
        machine.ip(&format!(
            "link set lo up\naddr add {address}/24 dev eth0\nlink set eth0 up\nroute add default via 192.0.2.254\n"
        ));
    }
}

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
    /// Holds the LAN's bridge while the host lives.
    #[allow(dead_code, reason = "held, not used: dropping it would cut the cables")]
    switch: Netns,
    binary: PathBuf,
    options: Vec<String>,
    before: Snapshot,
    containers: RefCell<BTreeSet<String>>,
}

impl Host {
    pub fn builder() -> HostBuilder {
        HostBuilder {
            options: Vec::new(),
            ip_forward: false,
            foreign_rules: false,
            busybox: true,
            binary: None,
        }
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
        cmd.env(name, value).env("HOME", self.folder())
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

    /// The processes of this host's commands that are monitors.
    pub fn monitors(&self) -> Vec<u32> {
        let is_ours = |pid: &u32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            String::from_utf8_lossy(&environment).contains(&self.marker)
                || crate::clean::command_line(*pid).contains(&*self.folder().to_string_lossy())
        };
        fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| crate::clean::command_line(*pid).contains("monitor"))
            .filter(is_ours)
            .collect()
    }

    /// The full IDs of all containers.
    #[track_caller]
    pub fn ids(&self) -> Vec<String> {
        let output = self.run("ps -aq --no-trunc");
        output.stdout.lines().map(str::to_owned).collect()
    }

    // What is left.

    /// Removes every container and every network of the user's, and takes the program's own things off the host.
    #[track_caller]
    pub fn remove_everything(&self) {
        self.look_for_ids();
        let ids = self.ids();
        if !ids.is_empty() {
            let args = ["rm", "-f"].into_iter().map(str::to_owned).chain(ids);
            self.coracle(args).ok();
        }
        for name in self.run("network ls --format {{.Name}}").stdout.lines() {
            if !["bridge", "host", "none"].contains(&name) {
                self.run(&format!("network rm {name}"));
            }
        }
        self.system("down");
    }

    /// After [`Host::remove_everything`]: nothing of ours is left on the machine, and the host is as it was.
    #[track_caller]
    pub fn assert_clean(&self) {
        if self.is_docker() {
            return; // Docker leaves its rules and its bridge: this promise is ours alone.
        }
        self.look_for_ids();
        eventually("nothing of ours is left", || {
            let left = self.leftovers();
            if left.is_empty() { Ok(()) } else { Err(left) }
        });
    }

    /// What of ours is on the machine, and how the host differs from what it was at first.
    pub fn leftovers(&self) -> String {
        let containers = self.containers.borrow();
        let lines: String = self
            .look(&containers)
            .find()
            .iter()
            .map(|line| format!("{line}\n"))
            .collect();
        lines + &self.before.changes(&Snapshot::take(&self.netns))
    }

    fn look<'a>(&'a self, containers: &'a BTreeSet<String>) -> Leftovers<'a> {
        Leftovers {
            folder: self.folder.path(),
            run_root: &self.run_root,
            marker: &self.marker,
            containers,
        }
    }

    fn remember_ids(&self, text: &str) {
        let ids = text.split_whitespace().filter(|word| is_id(word));
        self.containers.borrow_mut().extend(ids.map(str::to_owned));
    }

    /// Learns the IDs of containers that no command has told of: each has a folder of content before it has anything else.
    pub fn look_for_ids(&self) {
        for folder in ["root/containers", "run", "run/containers"] {
            let entries = fs::read_dir(self.folder().join(folder));
            for entry in entries.into_iter().flatten().flatten() {
                self.remember_ids(&entry.file_name().to_string_lossy());
            }
        }
    }

    /// What one wants to see when a test has failed.
    fn diagnose(&self) {
        let show = |what: &str, text: &str| eprintln!("=== {what}\n{}", text.trim_end());
        eprintln!("======== the host {} at the end", self.folder().display());
        let limit = Duration::from_secs(10);
        for line in ["ps -a --no-trunc", "network ls"] {
            let command = self.command(line.split_whitespace()).limit(limit);
            show(line, &command.run_in(&self.netns).to_string());
        }
        show("iptables-save", &rules::save(&self.netns));
        show("ip addr", &self.tool("ip", ["-br", "addr"]).stdout);
        show("what differs from the start", &self.leftovers());
        for id in self.containers.borrow().iter() {
            let logs = self
                .command(["logs", "--tail", "20", id.as_str()])
                .limit(limit);
            let output = logs.run_in(&self.netns);
            if output.code() == 0 {
                show(&format!("logs {id}"), &(output.stdout + &output.stderr));
            }
        }
        if let Some(docker) = &self.docker {
            show("dockerd", &docker.log());
        }
    }
}

impl Default for Host {
    fn default() -> Host {
        Host::new()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.look_for_ids();
        if std::thread::panicking() {
            // A failure in here would hide the first one (and abort the process).
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.diagnose()));
        }
        // Whether the program can clean up is asked by tests. Here things must go, whatever state it is in.
        let containers = self.containers.borrow().clone();
        let look = self.look(&containers);
        for _ in 0..100 {
            let left = look.processes();
            if left.is_empty() || self.is_docker() {
                break;
            }
            for (pid, _) in left {
                let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        for mount in look.mounts().iter().rev() {
            let _ = nix::mount::umount2(mount, nix::mount::MntFlags::MNT_DETACH);
        }
        for cgroup in look.cgroups() {
            let _ = fs::remove_dir(cgroup);
        }
    }
}

fn is_id(word: &str) -> bool {
    word.len() == 64
        && word
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}
