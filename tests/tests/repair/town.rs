//! A host with networks of each kind and ports published in each way, and whether all of it works.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use harness::{Host, Netns};

use crate::talk::{Protocol, Server, ask, silent};

/// For one question of many that are asked again and again.
const SOON: Duration = Duration::from_millis(300);
/// A second on an idle machine.
const DEADLINE: Duration = Duration::from_secs(20);

const HOST: &str = "192.0.2.1";
const HOST6: &str = "2001:db8::1";
const NEIGHBOUR: &str = "192.0.2.2";
const NEIGHBOUR6: &str = "2001:db8::2";
/// On the neighbour.
const OUTSIDE: u16 = 7000;
/// The port of the container that is removed.
const GONE: u16 = 8082;

pub struct Town {
    pub firewall: &'static str,
    pub host: Host,
    pub web: Place,
    friend: Place,
    peer: Place,
    lone: Place,
    inside: Place,
    _servers: Vec<Server>,
}

/// A container: its namespace, and its addresses by network.
pub struct Place {
    pub netns: Netns,
    addresses: Vec<(String, IpAddr)>,
    pub veths: Vec<(String, String)>,
}

impl Place {
    fn of(host: &Host, name: &str) -> Place {
        let inspect = host.inspect(name);
        let networks = inspect["NetworkSettings"]["Networks"].as_object().cloned();
        let mut addresses = Vec::new();
        for (network, place) in networks.into_iter().flatten() {
            for key in ["IPAddress", "GlobalIPv6Address"] {
                if let Some(address) = place[key].as_str().and_then(|a| a.parse().ok()) {
                    addresses.push((network.clone(), address));
                }
            }
        }
        let netns = Netns::of_process(host.pid_of(name)).expect("its namespace");
        Place {
            veths: veths(host, &netns),
            netns,
            addresses,
        }
    }

    pub fn address(&self, network: &str, v4: bool) -> IpAddr {
        let mut addresses = self.addresses.iter();
        addresses
            .find(|(of, address)| of == network && address.is_ipv4() == v4)
            .map(|(_, address)| *address)
            .unwrap_or_else(|| panic!("no address on {network}: {:?}", self.addresses))
    }
}

/// The ends on the host: the bridge that each is a port of, and its name.
pub fn veths(host: &Host, netns: &Netns) -> Vec<(String, String)> {
    let inside = harness::Cmd::new("ip")
        .args(["-j", "link"])
        .run_in(netns)
        .ok()
        .json();
    let outside = host.tool("ip", ["-j", "link"]).ok().json();
    let peers: Vec<_> = inside.as_array().into_iter().flatten().collect();
    let ends = outside.as_array().into_iter().flatten();
    // The index of the other end stands in each of them; those of two containers can be equal, the link-netnsid is not.
    ends.filter(|end| {
        peers.iter().any(|peer| {
            peer["link_index"] == end["ifindex"] && end["link_index"] == peer["ifindex"]
        })
    })
    .filter_map(|end| {
        let name = end["ifname"].as_str()?.to_owned();
        Some((end["master"].as_str()?.to_owned(), name))
    })
    .collect()
}

pub fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().expect("an address"), port)
}

impl Town {
    pub fn new(firewall: &'static str) -> Town {
        let host = Host::builder().options(["--firewall", firewall]).build();
        let named = |name| format!("--opt com.docker.network.bridge.name=cr-{name} {name}");
        host.run(&format!("network create --ipv6 {}", named("both")));
        host.run(&format!("network create {}", named("four")));
        host.run(&format!(
            "network create --internal --ipv6 {}",
            named("inner")
        ));
        let start = |name: &str, options: &str| {
            host.run(&format!(
                "run -d --name {name} {options} busybox sleep 100000"
            ));
            Place::of(&host, name)
        };
        let web = start(
            "web",
            "--network both --network four -p 8080:80 -p 8053:53/udp -p 127.0.0.1:8081:81 -p 20000-29999:20000-29999",
        );
        let friend = start("friend", "--network four");
        let peer = start("peer", "--network both");
        let lone = start("lone", "");
        let inside = start("inside", "--network inner");
        let gone = start("gone", &format!("--network four -p {GONE}:80"));
        let mut servers: Vec<Server> = [80, 81, 25000]
            .map(|port| Server::start(&web.netns, Protocol::Tcp, port, "web"))
            .into();
        servers.push(Server::start(&web.netns, Protocol::Udp, 53, "web"));
        for (place, name) in [(&peer, "peer"), (&inside, "inside"), (&gone, "gone")] {
            servers.push(Server::start(&place.netns, Protocol::Tcp, 80, name));
        }
        servers.push(Server::start(
            &host.neighbour,
            Protocol::Tcp,
            OUTSIDE,
            "neighbour",
        ));
        // One that wants out of the internal network, and one that knows the way to the containers.
        let inner = host.run("network inspect inner").json();
        for config in inner[0]["IPAM"]["Config"].as_array().into_iter().flatten() {
            let gateway = config["Gateway"].as_str().expect("a gateway");
            inside
                .netns
                .ip(&format!("route add default via {gateway}\n"));
        }
        let town = Town {
            firewall,
            host,
            web,
            friend,
            peer,
            lone,
            inside,
            _servers: servers,
        };
        for v4 in [true, false] {
            let to = town.web.address("both", v4);
            let (length, via) = if v4 { (32, HOST) } else { (128, HOST6) };
            town.host
                .attacker
                .ip(&format!("route add {to}/{length} via {via}\n"));
        }
        town
    }

    /// The neighbour reaches the container that will be removed.
    pub fn gone_answers(&self) {
        self.recovers("before", || {
            self.asked(&self.host.neighbour, Protocol::Tcp, at(HOST, GONE), "gone")
        });
    }

    fn asked(
        &self,
        from: &Netns,
        protocol: Protocol,
        to: SocketAddr,
        name: &str,
    ) -> Result<(), String> {
        match ask(from, protocol, to, SOON) {
            Ok(answer) if answer.name == name => Ok(()),
            other => Err(format!("{name} at {to}/{}: {other:?}", protocol.as_str())),
        }
    }

    /// All that must be reached is.
    pub fn is_well(&self) -> Result<(), String> {
        let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
        let neighbour = &self.host.neighbour;
        for address in [HOST, HOST6] {
            self.asked(neighbour, tcp, at(address, 8080), "web")?;
            self.asked(neighbour, udp, at(address, 8053), "web")?;
            self.asked(neighbour, tcp, at(address, 25000), "web")?;
        }
        self.asked(&self.host.netns, tcp, at("127.0.0.1", 8081), "web")?;
        self.asked(&self.host.netns, tcp, at("127.0.0.1", 25000), "web")?;
        self.asked(&self.lone.netns, tcp, at(HOST, 8080), "web")?;
        for v4 in [true, false] {
            let web = SocketAddr::new(self.web.address("both", v4), 80);
            self.asked(&self.peer.netns, tcp, web, "web")?;
            let peer = SocketAddr::new(self.peer.address("both", v4), 80);
            self.asked(&self.web.netns, tcp, peer, "peer")?;
            let inside = SocketAddr::new(self.inside.address("inner", v4), 80);
            self.asked(&self.host.netns, tcp, inside, "inside")?;
        }
        let web = SocketAddr::new(self.web.address("four", true), 80);
        self.asked(&self.friend.netns, tcp, web, "web")?;
        for (place, out) in [
            (&self.web, NEIGHBOUR),
            (&self.web, NEIGHBOUR6),
            (&self.lone, NEIGHBOUR),
        ] {
            self.asked(&place.netns, tcp, at(out, OUTSIDE), "neighbour")?;
        }
        Ok(())
    }

    /// Nothing is left to be mended, by the word of the program.
    pub fn is_whole(&self) -> Result<(), String> {
        let output = self.host.run("network reload --dry-run");
        match output.text() {
            "nothing to do" => Ok(()),
            _ => Err(output.stdout),
        }
    }

    /// Waits until it holds; how long that took.
    #[track_caller]
    pub fn recovers(&self, what: &str, holds: impl Fn() -> Result<(), String>) -> Duration {
        let begun = Instant::now();
        match harness::until(DEADLINE, holds) {
            Ok(()) => begun.elapsed(),
            Err(why) => panic!("{}, {what}: not well again: {why}", self.firewall),
        }
    }

    /// What must not be reached is not. Asked side by side, since silence takes its time.
    #[track_caller]
    pub fn is_isolated(&self) {
        let tcp = Protocol::Tcp;
        let lone = &self.lone.netns;
        let mut questions: Vec<(&Netns, SocketAddr)> = vec![
            (&self.host.neighbour, at(HOST, 8081)),
            (
                &self.friend.netns,
                SocketAddr::new(self.peer.address("both", true), 80),
            ),
            (lone, SocketAddr::new(self.web.address("four", true), 80)),
            (
                lone,
                SocketAddr::new(self.inside.address("inner", true), 80),
            ),
            (&self.inside.netns, at(HOST, 8080)),
        ];
        for v4 in [true, false] {
            let web = self.web.address("both", v4);
            questions.push((&self.host.attacker, SocketAddr::new(web, 80)));
            questions.push((&self.host.attacker, SocketAddr::new(web, 81)));
            questions.push((&self.inside.netns, SocketAddr::new(web, 80)));
        }
        all_silent(tcp, &questions);
    }

    /// A port whose container was removed while the rules were gone.
    #[track_caller]
    pub fn gone_stays_away(&self) {
        let neighbour = &self.host.neighbour;
        all_silent(
            Protocol::Tcp,
            &[(neighbour, at(HOST, GONE)), (neighbour, at(HOST6, GONE))],
        );
        let rules = self.rules();
        assert!(
            !rules.contains(&GONE.to_string()),
            "port {GONE} is back:\n{rules}"
        );
    }

    /// Everyone's rules.
    pub fn rules(&self) -> String {
        let save = |tool| self.host.tool(tool, [""; 0]).stdout;
        let nft = self.host.tool("nft", ["list", "ruleset"]).stdout;
        save("iptables-save") + &save("ip6tables-save") + &nft
    }

    /// A rule of the administrator's own in the chain that is his; so often it is there.
    pub fn administrators_rules(&self) -> usize {
        let list = match self.firewall {
            "iptables" => self.host.tool("iptables-save", ["-t", "filter"]).stdout,
            _ => self.host.tool("nft", ["list", "ruleset"]).stdout,
        };
        list.lines()
            .filter(|line| line.contains("203.0.113.5"))
            .count()
    }

    pub fn add_administrators_rule(&self) {
        let (tool, args) = match self.firewall {
            "iptables" => ("iptables", "-A CORACLE-USER -s 203.0.113.5 -j DROP"),
            _ => (
                "nft",
                "add rule inet coracle CORACLE-USER ip saddr 203.0.113.5 drop",
            ),
        };
        self.host.tool(tool, args.split(' ')).ok();
    }

    /// The administrator's chain is called from one place only.
    pub fn jumps_to_administrator(&self) -> usize {
        let list = match self.firewall {
            "iptables" => self.host.tool("iptables-save", ["-t", "filter"]).stdout,
            _ => self.host.tool("nft", ["list", "ruleset"]).stdout,
        };
        let is_jump =
            |line: &&str| line.contains("-j CORACLE-USER") || line.contains("jump CORACLE-USER");
        list.lines().filter(is_jump).count()
    }

    /// The end on the host of the web server's cable to network `both`.
    pub fn web_veth(&self) -> String {
        let mut veths = self.web.veths.iter();
        let found = veths.find(|(bridge, _)| bridge == "cr-both");
        found.expect("a port of cr-both").1.clone()
    }

    /// As at any host's end: everything can be removed.
    pub fn take_down(self) {
        self.host.remove_everything();
    }
}

#[track_caller]
fn all_silent(protocol: Protocol, questions: &[(&Netns, SocketAddr)]) {
    std::thread::scope(|scope| {
        for (from, to) in questions {
            scope.spawn(move || silent(from, protocol, *to));
        }
    });
}
