//! 50 `run -p` at once, with SIGKILL for some of the commands and some of the monitors: no address and no port is given twice, and
//! none is lost.
//!
//! Networks and the shared range of ports have room for the containers of a round and no more: whatever a killed command keeps makes a
//! later `run` fail. Each test prints the seed of its kills; `CORACLE_TEST_SEED=N` repeats them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use harness::{Host, Running, net, rules};
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::Value;

const CONTAINERS: usize = 50;
const ROUNDS: usize = 3;
const KILLS_A_ROUND: usize = 16;

/// The first so many are on `one`, which has 29 addresses for them; the others on `six`, of both families.
const ON_ONE: usize = 29;
const ON_SIX: usize = CONTAINERS - ON_ONE;
/// Every fifth asks for one of these, and so many there are.
const SHARED: std::ops::Range<u16> = 8000..8010;

/// One container of a round: what it is called and how it is run. It answers every connection to its port 80 with its name.
struct Wish {
    name: String,
    line: String,
}

fn wishes() -> Vec<Wish> {
    let one = |at: usize| {
        let name = format!("box{at}");
        let network = if at < ON_ONE { "one" } else { "six" };
        let port = match at % 5 {
            0 | 1 => "80".to_owned(),
            2 => format!("{}-{}:80", SHARED.start, SHARED.end - 1),
            _ => format!("{}:80", 9000 + at),
        };
        Wish {
            line: format!(
                "run -d --name {name} --network {network} -p {port} busybox nc -ll -p 80 -e echo {name}"
            ),
            name,
        }
    };
    (0..CONTAINERS).map(one).collect()
}

/// What a container has got.
struct Got {
    addresses: Vec<IpAddr>,
    ports: BTreeSet<u16>,
}

struct Scene {
    host: Host,
    firewall: &'static str,
    random: StdRng,
    /// For messages.
    round: String,
}

#[test]
fn with_iptables() {
    all_rounds("iptables");
}

#[test]
fn with_nftables() {
    all_rounds("nftables");
}

fn all_rounds(firewall: &'static str) {
    let seed = std::env::var("CORACLE_TEST_SEED");
    let seed = seed.ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| rand::rng().random());
    // Shown by the test runner when the test fails.
    println!("{firewall}: CORACLE_TEST_SEED={seed}");
    let host = Host::builder().options(["--firewall", firewall]).build();
    if host.is_docker() {
        return; // It has a daemon to kill; the promise is ours.
    }
    host.run("network create --subnet 10.98.0.0/27 one");
    // Addresses of its 29 that are not wanted.
    let others = (ON_SIX..29).map(|n| format!("--aux-address other{n}=10.97.0.{} ", n + 2));
    let others: String = others.collect();
    host.run(&format!(
        "network create --ipv6 --subnet 10.97.0.0/27 {others} six"
    ));
    let mut scene = Scene {
        host,
        firewall,
        random: StdRng::seed_from_u64(seed),
        round: String::new(),
    };
    for round in 0..ROUNDS {
        scene.round = format!("round {round} of seed {seed}");
        scene.round();
    }
    scene.host.remove_everything();
    scene.host.assert_clean();
}

impl Scene {
    fn round(&mut self) {
        let started = Instant::now();
        let wishes = wishes();
        let mut pending: Vec<&Wish> = wishes.iter().collect();
        self.run_and_kill(&pending);
        let killed_at = started.elapsed();
        // The next command repairs. What has come to run by then stays; all others find room, now that nobody kills.
        let running = self.running();
        pending.retain(|wish| !running.contains(&wish.name));
        let there = self.names("ps -a");
        let leftovers: Vec<_> = pending.iter().map(|wish| wish.name.as_str()).collect();
        let leftovers: Vec<_> = leftovers
            .iter()
            .filter(|name| there.contains(**name))
            .collect();
        if !leftovers.is_empty() {
            let args = ["rm", "-f"].iter().chain(leftovers.iter().copied());
            self.host.coracle(args).ok();
        }
        let again = self.start(&pending);
        for output in again.into_iter().map(Running::wait) {
            assert_eq!(output.code(), 0, "{}, run again: {output}", self.round);
        }
        let run_at = started.elapsed();
        let got = self.check_unique(&wishes);
        self.check_rules(&got);
        self.check_answers(&got);
        self.check_model();
        let checked_at = started.elapsed();
        let ids = self.host.ids();
        self.host
            .coracle(["rm", "-f"].into_iter().map(str::to_owned).chain(ids))
            .ok();
        println!(
            "{}: {} {} were run again; killed {killed_at:?}, run {run_at:?}, checked {checked_at:?}, removed {:?}",
            self.firewall,
            self.round,
            pending.len(),
            started.elapsed()
        );
    }

    fn start(&self, wishes: &[&Wish]) -> Vec<Running> {
        let command = |wish: &&Wish| self.host.command(wish.line.split_whitespace());
        let start = |wish| command(wish).spawn_in(&self.host.netns);
        wishes.iter().map(start).collect()
    }

    /// Starts all at once, kills here and there meanwhile, and waits for the end of all.
    fn run_and_kill(&mut self, wishes: &[&Wish]) {
        let commands = self.start(wishes);
        let mut killed = BTreeSet::new();
        let mut monitors_killed = 0;
        let end = Instant::now() + Duration::from_secs(30);
        for kill in 0..KILLS_A_ROUND {
            let alive: Vec<u32> = commands.iter().map(Running::pid).filter(runs).collect();
            let monitors = self.host.monitors();
            if alive.is_empty() || Instant::now() > end {
                break;
            }
            let of = if kill % 2 == 0 { &alive } else { &monitors };
            if let Some(pid) = of.choose(&mut self.random) {
                let number = nix::unistd::Pid::from_raw(pid.cast_signed());
                let hit = nix::sys::signal::kill(number, Signal::SIGKILL).is_ok();
                if hit && kill % 2 == 0 {
                    killed.insert(*pid);
                } else if hit {
                    monitors_killed += 1;
                }
            }
            let pause = self.random.random_range(0..150);
            std::thread::sleep(Duration::from_millis(pause));
        }
        let mut failures = Vec::new();
        for command in commands {
            let pid = command.pid();
            let output = command.wait();
            if output.code() != 0 && !killed.contains(&pid) {
                failures.push(output.to_string());
            }
        }
        self.host.look_for_ids();
        // A command fails by its monitor's death, but by nobody else's.
        assert!(
            failures.len() <= monitors_killed,
            "{}: {monitors_killed} monitors were killed, but more commands failed:\n{}",
            self.round,
            failures.join("\n")
        );
        assert!(!killed.is_empty(), "{}: nothing was killed", self.round);
    }

    #[track_caller]
    fn names(&self, list: &str) -> BTreeSet<String> {
        let output = self.host.run(&format!("{list} --format {{{{.Names}}}}"));
        output.stdout.lines().map(str::to_owned).collect()
    }

    fn running(&self) -> BTreeSet<String> {
        self.names("ps")
    }

    /// No address and no port belongs to two, and what was asked for was given.
    #[track_caller]
    fn check_unique(&self, wishes: &[Wish]) -> BTreeMap<String, Got> {
        let round = &self.round;
        let names = wishes.iter().map(|wish| wish.name.as_str());
        let inspect = self
            .host
            .coracle(["inspect"].into_iter().chain(names))
            .ok()
            .json();
        let mut owners: BTreeMap<String, String> = BTreeMap::new();
        let mut all = BTreeMap::new();
        for container in inspect.as_array().into_iter().flatten() {
            let name = container["Name"]
                .as_str()
                .unwrap_or_default()
                .trim_start_matches('/');
            assert_eq!(container["State"]["Running"], true, "{round}: {name}");
            let got = got(container);
            let is_on_six = container["NetworkSettings"]["Networks"]["six"].is_object();
            assert_eq!(
                got.addresses.len(),
                1 + usize::from(is_on_six),
                "{round}: {container}"
            );
            assert_eq!(got.ports.len(), 1, "{round}: {container}");
            let port = *got.ports.iter().next().expect("one port");
            let at: usize = name
                .trim_start_matches("box")
                .parse()
                .expect("a name of ours");
            match at % 5 {
                0 | 1 => {}
                2 => assert!(SHARED.contains(&port), "{round}: {name} has {port}"),
                _ => assert_eq!(usize::from(port), 9000 + at, "{round}: {name}"),
            }
            let things = got.addresses.iter().map(|a| format!("the address {a}"));
            for thing in things.chain(got.ports.iter().map(|p| format!("the port {p}"))) {
                if let Some(other) = owners.insert(thing.clone(), name.to_owned()) {
                    panic!("{round}: {name} and {other} both have {thing}");
                }
            }
            all.insert(name.to_owned(), got);
        }
        assert_eq!(all.len(), CONTAINERS, "{round}");
        all
    }

    /// Every port is led to its container, once in each family that the container has.
    #[track_caller]
    fn check_rules(&self, got: &BTreeMap<String, Got>) {
        let round = &self.round;
        let text = match self.firewall {
            "iptables" => {
                let chain = format!("-A {} ", self.host.chain(""));
                ["iptables-save", "ip6tables-save"]
                    .iter()
                    .map(|program| self.host.tool(program, [""; 0]).ok().stdout)
                    .map(|save| rules::table_of(&save, "nat"))
                    .flat_map(|nat| nat.lines().map(str::to_owned).collect::<Vec<_>>())
                    .filter(|line| line.starts_with(&chain) && line.contains("-j DNAT"))
                    .map(|line| line + "\n")
                    .collect()
            }
            _ => {
                let list = ["-j", "list", "table", "inet", "coracle"];
                dnat_elements(&self.host.tool("nft", list).ok().json())
            }
        };
        let lines: Vec<&str> = text.lines().collect();
        let mut expected = 0;
        for (name, got) in got {
            for (address, port) in got.addresses.iter().zip(got.ports.iter().cycle()) {
                expected += 1;
                let target = match (self.firewall, address) {
                    ("iptables", IpAddr::V6(address)) => {
                        format!(" --to-destination [{address}]:80")
                    }
                    ("iptables", IpAddr::V4(address)) => format!(" --to-destination {address}:80"),
                    (_, address) => format!("{address} "),
                };
                let port = match self.firewall {
                    "iptables" => format!(" --dport {port} "),
                    _ => format!(" {port}:"),
                };
                let hits = lines
                    .iter()
                    .filter(|line| format!("{line} ").contains(&port));
                let leads = |line: &&&str| format!("{line} ").contains(&target);
                let led = hits.clone().filter(leads).count();
                assert_eq!(led, 1, "{round}: {name}: {port}{target}in\n{text}");
            }
        }
        assert_eq!(lines.len(), expected, "{round}: rules of nobody in\n{text}");
    }

    /// The container that has a port answers there, from outside and over both families.
    #[track_caller]
    fn check_answers(&self, got: &BTreeMap<String, Got>) {
        for (name, got) in got {
            for port in &got.ports {
                for host in ["192.0.2.1", "2001:db8::1"] {
                    let at = SocketAddr::new(host.parse().expect("an address"), *port).to_string();
                    let what = format!("{}: {name} answers at {at}", self.round);
                    harness::eventually(&what, || {
                        let said = net::first_line(&self.host.neighbour, &at)?;
                        match said == *name {
                            true => Ok(()),
                            false => Err(std::io::Error::other(format!("{said:?} answered"))),
                        }
                    });
                }
            }
        }
    }

    /// The kernel is as the database says, and says so.
    #[track_caller]
    fn check_model(&self) {
        let round = &self.round;
        let doctor = self.host.try_run("network doctor");
        // What is published to all is noted, but is nothing to mend.
        let amiss = doctor.stdout.lines().find(|l| !l.starts_with("note: "));
        assert_eq!((doctor.code(), amiss), (0, None), "{round}: {doctor}");
        let reload = self.host.try_run("network reload --dry-run");
        assert_eq!(reload.text(), "nothing to do", "{round}: {reload}");
    }
}

fn got(container: &Value) -> Got {
    let settings = &container["NetworkSettings"];
    let networks = settings["Networks"].as_object();
    let places = networks.into_iter().flat_map(|all| all.values());
    let addresses = places.flat_map(|place| {
        ["IPAddress", "GlobalIPv6Address"].map(|key| place[key].as_str()?.parse().ok())
    });
    let bindings = settings["Ports"]["80/tcp"].as_array();
    let ports = bindings.into_iter().flatten();
    Got {
        addresses: addresses.flatten().collect(),
        ports: ports
            .filter_map(|binding| binding["HostPort"].as_str()?.parse().ok())
            .collect(),
    }
}

/// The elements of the maps that lead a port to a container, one a line: `tcp 8080: 10.98.0.2 80`.
fn dnat_elements(table: &Value) -> String {
    let words = |concat: &Value| {
        let words = concat["concat"].as_array().into_iter().flatten();
        let words = words.map(|word| word.as_str().map_or(word.to_string(), str::to_owned));
        words.collect::<Vec<_>>().join(" ")
    };
    let items = table["nftables"].as_array().into_iter().flatten();
    let maps = items.map(|item| &item["map"]);
    let maps = maps.filter(|map| map["name"] == "dnat4" || map["name"] == "dnat6");
    let elements = maps.flat_map(|map| map["elem"].as_array().into_iter().flatten());
    let line = |element: &Value| {
        let (key, target) = (&element[0]["elem"]["val"], &element[1]);
        format!("{}: {}\n", words(key), words(target))
    };
    elements.map(line).collect()
}

/// A process that has not ended; one that nobody has waited for yet has ended too.
fn runs(pid: &u32) -> bool {
    std::fs::read_link(format!("/proc/{pid}/exe")).is_ok()
}
