//! Names, options and files that try to be more than that: rules, further lines, paths.

#[path = "enemy/world.rs"]
mod world;

use std::fs;

use harness::images::PAGE;
use harness::{Host, Output, eventually, net};

use world::FIREWALLS;

/// What a command may have changed of a host.
fn state(host: &Host) -> [String; 4] {
    let show = |tool: &str, args: &[&str]| host.tool(tool, args).ok().stdout;
    let links = show("ip", &["-br", "link"]);
    let names = links
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    [
        names.map(|name| format!("{name}\n")).collect(),
        show("iptables", &["-S"]) + &show("iptables", &["-t", "raw", "-S"]),
        show("nft", &["-s", "list", "ruleset"]),
        host.run("network ls --format {{.Name}}").stdout,
    ]
}

fn changes(before: &[String; 4], after: &[String; 4]) -> Vec<String> {
    let (before, after) = (before.join("\n"), after.join("\n"));
    let come = after
        .lines()
        .filter(|line| !before.lines().any(|old| old == *line));
    let gone = before
        .lines()
        .filter(|line| !after.lines().any(|new| new == *line));
    let come = come.map(|line| format!("+{line}"));
    come.chain(gone.map(|line| format!("-{line}"))).collect()
}

#[track_caller]
fn refused(host: &Host, args: &[&str]) -> Output {
    let before = state(host);
    let output = host.coracle(args);
    assert_ne!(output.code(), 0, "{output}");
    assert!(!output.stderr.contains("panicked"), "{output}");
    assert_eq!(changes(&before, &state(host)), [""; 0], "left of {output}");
    output
}

#[test]
fn names_that_are_more_than_names_are_refused() {
    for firewall in FIREWALLS {
        let host = Host::builder().options(["--firewall", firewall]).build();
        if host.is_docker() {
            return;
        }
        host.run("network create web");
        // A repair brings the (empty) chains of both families.
        host.system("reload");
        for name in [
            "a\"b",
            "a b",
            "a\nadd table inet evil",
            "a;flush ruleset",
            "-j",
            "--",
            "ümlaut",
            "",
            "../x",
            "a/b",
            "{",
            "$(id)",
        ] {
            refused(&host, &["network", "create", "--", name]);
            refused(
                &host,
                &["create", &format!("--name={name}x y"), "busybox", "true"],
            );
        }
        for bridge in [
            "lo",
            "eth0",
            "all",
            "default",
            "cr-+",
            "eth+",
            "*",
            ".",
            "..",
            "a/b",
            "a b",
            "-x",
            "a\"b",
            "a\n-A INPUT -j DROP",
            "sixteen-letters-",
            "coracle0",
            "{x}",
            "a,b",
            "a:b",
            "",
        ] {
            let option = format!("com.docker.network.bridge.name={bridge}");
            refused(&host, &["network", "create", "-o", &option, "other"]);
        }
        for interface in [
            "eth0\" accept",
            "eth0\nflush ruleset",
            "eth+",
            "*",
            "eth0 wg0",
            "!eth0",
            "-j",
            "eth0;",
            "a/b",
        ] {
            let option = format!("com.docker.network.bridge.trusted_host_interfaces={interface}");
            refused(&host, &["network", "create", "-o", &option, "other"]);
        }
        for (key, value) in [
            ("container_iface_prefix", "e\"h"),
            ("container_iface_prefix", "a/b"),
            ("container_iface_prefix", "eth\n"),
            ("bridge.host_binding_ipv4", "0.0.0.0 -j ACCEPT"),
            ("bridge.gateway_mode_ipv4", "routed\nnat"),
            ("driver.mtu", "1500 up"),
            ("bridge.enable_icc", "true }"),
        ] {
            let option = format!("com.docker.network.{key}={value}");
            refused(&host, &["network", "create", "-o", &option, "other"]);
        }
        // With such options that are what they seem, it is made.
        host.run("create --network web --add-host a:10.0.0.1 --dns 10.0.0.1 --dns-search a --dns-option ndots:1 --hostname a --network-alias a -p 80:80/tcp --mac-address 02:42:00:00:00:01 busybox true");
        for options in [
            ["--add-host", "a:10.0.0.1\n6.6.6.6 b"],
            ["--add-host", "a\n6.6.6.6 b:10.0.0.1"],
            ["--add-host", "a b:10.0.0.1"],
            ["--dns", "10.0.0.1\nnameserver 10.0.0.2"],
            ["--dns-search", "a\nnameserver 10.0.0.2"],
            ["--dns-option", "ndots:1\nnameserver 10.0.0.2"],
            ["--hostname", "a\n6.6.6.6 b"],
            ["--network-alias", "a\nb"],
            ["--network-alias", "a 10.0.0.1"],
            ["-p", "80:80/tcp -j ACCEPT"],
            ["-p", "127.0.0.1\n:80:80"],
            ["--mac-address", "02:42:00:00:00:01 x"],
        ] {
            let args = [
                "create",
                "--network",
                "web",
                options[0],
                options[1],
                "busybox",
                "true",
            ];
            refused(&host, &args);
        }
    }
}

/// What may hold anything is kept as it is, and no rule is the worse for it.
#[test]
fn labels_and_long_names_change_no_rule() {
    let long = "n".repeat(200);
    for firewall in FIREWALLS {
        let host = Host::builder().options(["--firewall", firewall]).build();
        if host.is_docker() {
            return;
        }
        let evil = "x=\" accept\n}\nflush ruleset\n# \\ ' é %s {{";
        host.coracle([
            "network",
            "create",
            "--label",
            evil,
            "-o",
            evil,
            "--subnet",
            "10.98.0.0/24",
            &long,
        ])
        .ok();
        host.coracle([
            "run",
            "-d",
            "--name",
            &format!("c{long}"),
            "--label",
            evil,
            "--network",
            &long,
            "--network-alias",
            &format!("a{long}"),
            "-e",
            evil,
            "-p",
            "8080:80",
            "busybox",
            "httpd",
            "-f",
            "-h",
            "/www",
        ])
        .ok();
        eventually("the port is published", || {
            net::http_get(&host.neighbour, "192.0.2.1:8080")
        });
        let shown = host.coracle(["network", "inspect", &long]).ok().json();
        let (_, value) = evil.split_once('=').unwrap();
        assert_eq!(shown[0]["Labels"]["x"], value);
        // Written again and read back, they are the same.
        host.system("reload");
        let rules = state(&host);
        host.system("reload");
        assert_eq!(changes(&rules, &state(&host)), [""; 0]);
        host.run("network doctor");
        assert_eq!(
            net::http_get(&host.neighbour, "192.0.2.1:8080").unwrap(),
            PAGE
        );
        host.remove_everything();
        host.assert_clean();
    }
}

#[test]
fn a_configuration_that_is_none_is_refused_by_name() {
    for firewall in FIREWALLS {
        let host = Host::builder().options(["--firewall", firewall]).build();
        if host.is_docker() {
            return;
        }
        host.run("network create web");
        // A repair brings the (empty) chains of both families.
        host.system("reload");
        let path = host.folder().join("config.toml");
        let path = path.to_str().unwrap();
        for text in [
            &b"\0\xff\xfe"[..],
            b"[[[[",
            b"firewall = \"nftables\\nflush ruleset\"",
            b"default-address-pools = [{ base = \"10.0.0.0/8; x\", size = 24 }]",
            b"default-address-pools = [{ base = \"10.0.0.0/8\", size = 99 }]",
            b"no-such-key = 1",
        ] {
            fs::write(path, text).unwrap();
            let output = refused(&host, &["--config", path, "network", "create", "other"]);
            assert!(output.stderr.contains("config.toml"), "{output}");
        }
        fs::write(path, "").unwrap();
        host.coracle(["--config", path, "network", "create", "other"])
            .ok();
    }
}
