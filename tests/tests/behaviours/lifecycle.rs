//! Behaviours 12, 13 and 20 to 27: restarts, failures and repairs. Those that disturb the whole host have one of their own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use harness::clean::Snapshot;
use harness::{Host, eventually, net};

use super::talk::{Family, Flow, Protocol, Server, answers, silent};
use super::world::{Forward, World, host_at, loopback};

pub fn restart_while_in_time_wait(world: &World, family: Family, protocol: Protocol) {
    let port = world.port();
    let options = format!("--network one -p {port}:80/{}", protocol.as_str());
    for name in ["first", "second"] {
        let web = world.container(&options);
        let _server = Server::start(&web.netns, protocol, 80, name);
        for at in [host_at(family, port), loopback(family, port)] {
            answers(&world.host.netns, protocol, at, name);
        }
        answers(&world.host.neighbour, protocol, host_at(family, port), name);
    }
}

/// A client that keeps its port and goes on sending while one container follows another under the same host port.
pub fn no_stale_connection(world: &World, family: Family, protocol: Protocol) {
    if protocol != Protocol::Udp {
        return;
    }
    let port = world.port();
    // A network of its own: the addresses are nobody else's.
    let network = world.unique("flow");
    world.host.run(&format!("network create --ipv6 {network}"));
    let options = format!("--network {network} -p {port}:80/udp");
    let flow = Flow::open(&world.host.neighbour, host_at(family, port));
    // From before anything is published: the kernel keeps this one as a connection to the host itself.
    flow.send();
    let first = world.container(&options);
    {
        let _server = Server::start(&first.netns, Protocol::Udp, 80, "first");
        eventually("the first one answers", || named(&flow, "first"));
    }
    let old = first.address(family);
    drop(first);
    flow.send();
    // Another container keeps the first one's address from being used again.
    let keeper = world.container(&format!("--network {network}"));
    assert_eq!(keeper.address(family), old);
    let second = world.container(&options);
    let _server = Server::start(&second.netns, Protocol::Udp, 80, "second");
    eventually("the second one answers", || named(&flow, "second"));
    drop((second, keeper));
    world.host.run(&format!("network rm {network}"));
}

fn named(flow: &Flow, name: &str) -> Result<(), String> {
    match flow.ask() {
        Ok(answer) if answer == name => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

pub fn port_in_use(world: &World, family: Family, protocol: Protocol) {
    let port = world.port();
    let other = Server::at(
        &world.host.netns,
        protocol,
        match family {
            Family::V4 => host_at(Family::V4, port),
            Family::V6 => host_at(Family::V6, port),
        },
        "other",
    );
    let name = world.unique("refused");
    let line = format!(
        "run -d --name {name} --network one -p {port}:80/{} busybox sleep 1000",
        protocol.as_str()
    );
    world
        .host
        .try_run(&line)
        .exits(125)
        .complains("port is already allocated");
    let all = world.host.run("ps -a --format {{.Names}}");
    assert!(!all.stdout.lines().any(|line| line == name), "{all}");
    // By somebody else's program still, and by nobody else's rule.
    answers(
        &world.host.neighbour,
        protocol,
        host_at(family, port),
        "other",
    );
    drop(other);
    eventually("the port can be had", || {
        let output = world.host.try_run(&line);
        if output.code() == 0 {
            Ok(())
        } else {
            Err(output)
        }
    });
    world.host.run(&format!("rm -f {name}"));
}

/// What disturbs a whole host: as few hosts as there are firewalls and policies.
pub fn flushed_rules(world: &World, _: Family, _: Protocol) {
    for damage in damages(world.firewall) {
        let host = World::bare(world.firewall, Forward::Accept);
        let own = OwnHost::new(&host);
        own.publishes();
        host.run("run -d --name gone -p 9090:80 busybox sleep 1000");
        for (tool, args) in damage {
            host.tool(tool, args.split_whitespace()).ok();
        }
        host.run("rm -f gone");
        host.run("network reload");
        own.publishes();
        own.isolates();
        let rules = host.tool("iptables-save", [""; 0]).stdout
            + &host.tool("nft", ["list", "ruleset"]).stdout;
        assert!(!rules.contains("9090"), "a deleted port came back: {rules}");
        host.remove_everything();
        host.assert_clean();
    }
}

type Damage = Vec<(&'static str, &'static str)>;

fn damages(firewall: &str) -> Vec<Damage> {
    let everything = vec![("nft", "flush ruleset")];
    match firewall {
        "iptables" => vec![
            vec![
                ("iptables", "-F"),
                ("iptables", "-t nat -F"),
                ("iptables", "-t raw -F"),
                ("ip6tables", "-F"),
                ("ip6tables", "-t nat -F"),
            ],
            everything,
        ],
        _ => vec![
            vec![("nft", "flush table inet coracle")],
            vec![("nft", "delete table inet coracle")],
            everything,
        ],
    }
}

/// Two networks, a web server with a published port on one of them.
struct OwnHost<'a> {
    host: &'a Host,
    bare: String,
}

impl<'a> OwnHost<'a> {
    fn new(host: &'a Host) -> OwnHost<'a> {
        host.run("network create --ipv6 one");
        host.run("network create two");
        host.start_web("web", "--network one -p 8080:80");
        host.run("run -d --name other --network two busybox sleep 100000");
        OwnHost {
            host,
            bare: host.address_of("web"),
        }
    }

    #[track_caller]
    fn publishes(&self) {
        for at in ["192.0.2.1:8080", "[2001:db8::1]:8080"] {
            eventually("the published port answers", || {
                net::http_get(&self.host.neighbour, at)
            });
        }
    }

    #[track_caller]
    fn isolates(&self) {
        let netns = harness::Netns::of_process(self.host.pid_of("other")).unwrap();
        let at = format!("{}:80", self.bare);
        silent(&netns, Protocol::Tcp, at.parse().unwrap());
        net::http_get(&self.host.netns, &at).expect("the host itself reaches it");
    }
}

/// From one firewall to the other and back, with a container running all the time.
pub fn switched_backend(world: &World, _: Family, _: Protocol) {
    let host = World::bare(world.firewall, Forward::Accept);
    let own = OwnHost::new(&host);
    own.publishes();
    let other = match world.firewall {
        "iptables" => "nftables",
        _ => "iptables",
    };
    for firewall in [other, world.firewall] {
        host.run(&format!("--firewall {firewall} system reload"));
        let iptables = host.tool("iptables-save", [""; 0]).stdout
            + &host.tool("ip6tables-save", [""; 0]).stdout;
        let nft = host.tool("nft", ["list", "tables"]).stdout;
        let (in_iptables, in_nft) = (
            iptables.contains("8080"),
            nft.contains("table inet coracle"),
        );
        assert_eq!(
            (in_iptables, in_nft),
            (firewall == "iptables", firewall == "nftables"),
            "{iptables}{nft}"
        );
        own.publishes();
        own.isolates();
    }
    host.remove_everything();
    host.assert_clean();
}

/// Every command that writes rules fails: an attach and a network create leave what was there.
pub fn failing_firewall(world: &World, _: Family, _: Protocol) {
    let host = World::bare(world.firewall, Forward::Accept);
    host.run("network create --ipv6 one");
    host.run("run -d --name there --network one -p 8081:80 busybox sleep 100000");
    let stubs = host.folder().join("failing");
    fs::create_dir(&stubs).unwrap();
    for name in ["iptables-restore", "ip6tables-restore", "nft"] {
        let stub = stubs.join(name);
        // What only lists goes through; whatever writes fails.
        let real = real_path(name);
        fs::write(
            &stub,
            format!(
                "#!/bin/sh\ncase \"$*\" in *list*) exec {} \"$@\";; esac\necho no >&2\nexit 4\n",
                real.display()
            ),
        )
        .unwrap();
        fs::set_permissions(&stub, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:{}", stubs.display(), std::env::var("PATH").unwrap());
    let before = Snapshot::take(&host.netns);
    let networks = host.run("network ls").stdout;
    for line in [
        "run -d --name bad --network one -p 8080:80 busybox sleep 1000",
        "network create --ipv6 bad",
    ] {
        let output = host
            .command(line.split_whitespace())
            .env("PATH", &path)
            .run_in(&host.netns);
        assert_ne!(output.code(), 0, "{output}");
        // The failing commands keep even a repair from writing: the next command must do it.
        host.run("ps");
        host.run("network reload");
        let changes = before.changes(&Snapshot::take(&host.netns));
        assert_eq!(changes, "", "after {line}");
    }
    assert_eq!(host.run("network ls").stdout, networks);
    assert!(!host.run("ps -a").stdout.contains("bad"));
    host.remove_everything();
    host.assert_clean();
}

/// Without `--firewall`: iptables where it works, else nftables; and then what stands, until somebody asks for the other.
pub fn chosen_by_itself(world: &World, _: Family, _: Protocol) {
    let host = Host::builder().ip_forward(true).build();
    let stubs = host.folder().join("broken");
    fs::create_dir(&stubs).unwrap();
    if world.firewall == "nftables" {
        // As on a kernel without xtables: the programs are there, and fail.
        for name in ["iptables-save", "iptables-restore"] {
            let stub = stubs.join(name);
            fs::write(&stub, "#!/bin/sh\nexit 3\n").unwrap();
            fs::set_permissions(&stub, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    let path = format!("{}:{}", stubs.display(), std::env::var("PATH").unwrap());
    let first = "run -d --name web -p 8080:80 busybox httpd -f -p 80 -h /www";
    host.command(first.split_whitespace())
        .env("PATH", &path)
        .run_in(&host.netns)
        .ok();
    let in_nft = || {
        let tables = host.tool("nft", ["list", "tables"]).stdout;
        tables.contains("table inet coracle")
    };
    assert_eq!(in_nft(), world.firewall == "nftables");
    host.run("run -d --name more -p 8081:80 busybox sleep 1000");
    assert_eq!(in_nft(), world.firewall == "nftables", "what stands stays");
    let told = host.run("system rules").stdout;
    assert_eq!(told.contains("inet coracle"), in_nft(), "{told}");
    eventually("published", || {
        net::http_get(&host.neighbour, "192.0.2.1:8080")
    });
    host.remove_everything();
    host.assert_clean();
}

fn real_path(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|file| file.exists())
        .unwrap_or_else(|| panic!("{name} is missing: scripts/test installs it"))
}

pub fn read_only_proc(world: &World, _: Family, _: Protocol) {
    let host = Host::builder()
        .options(["--firewall", world.firewall])
        .build();
    let script =
        "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec \"$@\"";
    let output = host
        .command("run --rm -p 8080:80 busybox true".split_whitespace())
        .wrapped_in("unshare", ["-m", "sh", "-c", script, "sh"])
        .run_in(&host.netns);
    let output = output.exits(125).complains("ip_forward");
    assert!(output.stdout.is_empty(), "{output}");
    host.remove_everything();
    host.assert_clean();
}

/// The bridge of one network is gone, and somebody else has its name: the other networks go on.
pub fn one_broken_network(world: &World, _: Family, _: Protocol) {
    let host = World::bare(world.firewall, Forward::Accept);
    host.run("network create -o com.docker.network.bridge.name=brx broken");
    host.run("network create well");
    host.netns
        .ip("link del brx\nlink add brx type veth peer name bry\n");
    host.start_web("web", "--network well -p 8080:80");
    eventually("published", || {
        net::http_get(&host.neighbour, "192.0.2.1:8080")
    });
    host.try_run("run --rm --network broken busybox true")
        .exits(125);
    eventually("published", || {
        net::http_get(&host.neighbour, "192.0.2.1:8080")
    });
    host.netns.ip("link del brx\n");
    host.run("network reload");
    host.run("run --rm --network broken busybox true");
    host.remove_everything();
    host.assert_clean();
}

pub fn unusual_networks(world: &World, family: Family, protocol: Protocol) {
    let bridge = world.unique("mybr");
    let requests = match family {
        Family::V4 => vec![
            ("--subnet 10.99.7.0/31".to_owned(), "10.99.7.1"),
            ("--subnet 10.99.8.0/24 --ip-range 10.99.8.128/25 --gateway 10.99.8.77 --aux-address a=10.99.8.128".to_owned(), "10.99.8.129"),
            (format!("-o com.docker.network.bridge.name={bridge} --subnet 10.99.9.0/24"), "10.99.9.2"),
        ],
        Family::V6 => vec![
            ("--ipv6 --subnet fd00:99::/48".to_owned(), "fd00:99::2"),
            ("--ipv6 --subnet fd00:98::/127".to_owned(), "fd00:98::1"),
        ],
    };
    // The subnets are the same whatever the protocol: one of the two is enough.
    if protocol == Protocol::Udp {
        return;
    }
    for (request, expected) in requests {
        let network = world.unique("odd");
        world
            .host
            .run(&format!("network create {request} {network}"));
        {
            let port = world.port();
            let web = world.container(&format!("--network {network} -p {port}:80"));
            assert_eq!(web.address(family).to_string(), expected, "{request}");
            let _server = Server::start(&web.netns, protocol, 80, "web");
            answers(
                &world.host.neighbour,
                protocol,
                host_at(family, port),
                "web",
            );
        }
        world.host.run(&format!("network rm {network}"));
    }
    // `--ip` in a subnet that was chosen for the user.
    let first = world.container("--network one");
    let address = first.address(family);
    drop(first);
    let option = match family {
        Family::V4 => "--ip",
        Family::V6 => "--ip6",
    };
    // Somebody beside us may have taken it meanwhile: then the refusal must say so.
    let name = world.unique("fixed");
    let output = world.host.try_run(&format!(
        "run -d --name {name} --network one {option} {address} busybox sleep 1000"
    ));
    match output.code() {
        0 => {
            assert_eq!(world.look(name).address(family), address);
        }
        _ => drop(output.complains("Address already in use")),
    }
}
