//! Making a host: its namespaces, cables and folder. What it then does is not here.

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

use super::Host;
use crate::clean::Snapshot;
use crate::docker::Dockerd;
use crate::{Cmd, Netns, images};

/// Rules that an administrator might have, to see that they are left alone.
const FOREIGN_RULES: &str = "*filter\n:ADMIN - [0:0]\n-A INPUT -p tcp -m tcp --dport 9999 -j DROP\n-A FORWARD -j ADMIN\n-A ADMIN -s 203.0.113.9/32 -j DROP\nCOMMIT\n*nat\n-A POSTROUTING -s 203.0.113.0/24 -j MASQUERADE\nCOMMIT\n";

/// How a host is to be.
#[derive(Clone, Debug)]
pub struct HostBuilder {
    options: Vec<String>,
    ip_forward: bool,
    foreign_rules: bool,
    legacy_iptables: bool,
    rules: Vec<String>,
    busybox: bool,
    binary: Option<PathBuf>,
    docker: bool,
}

impl Default for HostBuilder {
    fn default() -> HostBuilder {
        HostBuilder {
            options: Vec::new(),
            ip_forward: false,
            foreign_rules: false,
            legacy_iptables: false,
            rules: Vec::new(),
            busybox: true,
            binary: None,
            docker: false,
        }
    }
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

    /// The program finds the older flavour of iptables first.
    pub fn legacy_iptables(mut self) -> HostBuilder {
        self.legacy_iptables = true;
        self
    }

    /// More rules of the host's own, of both families: input of `iptables-restore`.
    pub fn rules(mut self, input: &str) -> HostBuilder {
        self.rules.push(input.to_owned());
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

    /// A real Docker Engine on this host, whatever the others run.
    pub fn docker(mut self) -> HostBuilder {
        self.docker = true;
        self.binary = Some(crate::docker::CLIENT.into());
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
        for input in &self.rules {
            for tool in ["iptables-restore", "ip6tables-restore"] {
                let restore = Cmd::new(tool).arg("--noflush").stdin(input);
                restore.run_in(&host).ok();
            }
        }
        let before = Snapshot::take(&host);
        let docker = (self.docker || images::compare_with_docker())
            .then(|| Dockerd::start(&host, folder.path(), &self.options));
        let binary = match (&docker, self.binary) {
            (Some(_), _) if !self.docker => PathBuf::from("docker"),
            (_, Some(binary)) => binary,
            (_, None) => images::binary(),
        };
        let path = self.legacy_iptables.then(|| legacy_path(folder.path()));
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
            path,
            before,
            containers: Mutex::default(),
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
    switch.ip("link set lo up\nlink add lan0 type bridge\nlink set lan0 up\naddr add 192.0.2.254/24 dev lan0\naddr add 2001:db8::fe/64 dev lan0 nodad\n");
    for (machine, last) in machines.into_iter().zip(1..) {
        plug(switch, machine, last);
    }
}

/// The cable of one machine: 192.0.2.`last` and 2001:db8::`last`.
pub(super) fn plug(switch: &Netns, machine: &Netns, last: u8) {
    switch.ip(&format!(
        "link add port{last} type veth peer name eth0 netns {}\nlink set port{last} master lan0 up\n",
        machine.path().display()
    ));
    machine.ip(&format!(
        "link set lo up\naddr add 192.0.2.{last}/24 dev eth0\naddr add 2001:db8::{last:x}/64 dev eth0 nodad\nlink set eth0 up\nroute add default via 192.0.2.254\nroute add default via 2001:db8::fe\n"
    ));
}

/// A folder with iptables' names for the programs that write to the old xtables, before everything else.
fn legacy_path(folder: &std::path::Path) -> String {
    let programs = folder.join("legacy");
    fs::create_dir(&programs).expect("a folder for programs");
    for name in ["iptables", "ip6tables"] {
        for verb in ["save", "restore"] {
            let program = format!("/usr/sbin/{name}-legacy-{verb}");
            std::os::unix::fs::symlink(&program, programs.join(format!("{name}-{verb}")))
                .expect("a link to a program");
        }
    }
    let rest = std::env::var("PATH").unwrap_or_default();
    format!("{}:{rest}", programs.display())
}
