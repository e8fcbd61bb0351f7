//! `--dry-run`: says what the command then does, does nothing, and fails as the command fails.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use harness::clean::Snapshot;
use harness::{Cmd, Host, Netns, rules};

fn host(firewall: &str) -> Host {
    let host = Host::builder().options(["--firewall", firewall]).build();
    // Forwarding of both families is on, and what is always there is there.
    host.run("network create --ipv6 --opt com.docker.network.bridge.name=cr-first first");
    host.run("run -d --name there --network first -p 9000:80 busybox sleep 100000");
    host
}

/// Kernel, database and files.
struct State {
    kernel: Snapshot,
    listings: String,
    files: BTreeSet<String>,
}

impl State {
    fn of(host: &Host) -> State {
        let mut listings = String::new();
        for line in [
            "ps -a --no-trunc --format {{.ID}}|{{.Names}}|{{.State}}|{{.Ports}}|{{.Networks}}",
            "network ls --no-trunc",
            "images -q --no-trunc",
        ] {
            listings += &host.run(line).stdout;
        }
        for name in host.run("network ls --format {{.Name}}").stdout.lines() {
            listings += &host.run(&format!("network inspect {name}")).stdout;
        }
        let mut files = BTreeSet::new();
        for root in [host.root().as_path(), host.run_root()] {
            list(root, &mut files);
        }
        State {
            kernel: Snapshot::take(&host.netns),
            listings,
            files,
        }
    }

    #[track_caller]
    fn is_still(&self, host: &Host, line: &str) {
        let now = State::of(host);
        assert_eq!(
            real_changes(&self.kernel.changes(&now.kernel)),
            "",
            "{line} has changed the kernel"
        );
        assert_eq!(
            self.listings, now.listings,
            "{line} has changed the database"
        );
        assert_eq!(self.files, now.files, "{line} has changed files");
    }
}

fn list(folder: &Path, files: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        // SQLite's own files come and go with whoever reads.
        if !path.to_string_lossy().contains("coracle.db-") {
            files.insert(path.display().to_string());
        }
        // The content of images and containers is not the network's.
        if path.is_dir() && !path.ends_with("layers") {
            list(&path, files);
        }
    }
}

/// That a bridge without ports has no carrier the kernel notices a second later: `linkdown` is no change.
fn real_changes(changes: &str) -> String {
    let lines = |sign: char| -> BTreeSet<String> {
        let of = changes.lines().filter_map(|line| line.strip_prefix(sign));
        of.map(|line| line.replace(" linkdown", "").trim().to_owned())
            .collect()
    };
    // Sockets, sysctls.
    let of_rules_and_links = |line: &str| line.starts_with(['-', '+']) || line.ends_with(':');
    match lines('-') == lines('+') && changes.lines().all(of_rules_and_links) {
        true => String::new(),
        false => changes.to_owned(),
    }
}

/// Container IDs are new with each attempt: as many zeros for each.
fn without_ids(text: &str) -> String {
    let mut out = String::new();
    let mut word = String::new();
    for c in text.chars().chain(['\n']) {
        if c.is_ascii_alphanumeric() {
            word.push(c);
            continue;
        }
        let is_id = word.len() >= 10
            && word
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        out += &if is_id {
            "0".repeat(word.len())
        } else {
            std::mem::take(&mut word)
        };
        word.clear();
        out.push(c);
    }
    out.trim_end().to_owned()
}

/// The rules of a namespace, comparable with those of another.
fn all_rules(netns: &Netns) -> String {
    let v6 = Cmd::new("ip6tables-save").run_in(netns).ok().stdout;
    let nft = Cmd::new("nft").args(["list", "ruleset"]).run_in(netns);
    let own = nft
        .stdout
        .split("table inet coracle {")
        .nth(1)
        .unwrap_or_default();
    let own = own.split("\n}").next().unwrap_or_default();
    let words: Vec<&str> = own.split_whitespace().collect();
    without_ids(&(rules::save(netns) + &rules::comparable(&v6) + &words.join(" ")))
}

/// A namespace with the same rules, to try on what was told.
fn twin(host: &Host) -> Netns {
    let twin = Netns::new();
    let feed = |program: &str, args: &[&str], text: String| {
        Cmd::new(program).args(args).stdin(text).run_in(&twin).ok();
    };
    for tool in ["iptables", "ip6tables"] {
        feed(
            &format!("{tool}-restore"),
            &[],
            host.tool(&format!("{tool}-save"), [""; 0]).stdout,
        );
    }
    let nft = host
        .tool("nft", ["list", "table", "inet", "coracle"])
        .stdout;
    feed("nft", &["-f", "-"], nft);
    twin
}

/// Does to a namespace's rules what the lines of a dry run say.
fn follow(told: &str, netns: &Netns) {
    let (mut tool, mut script) = (String::new(), String::new());
    let flush = |tool: &str, script: &mut String| {
        let (program, args): (&str, &[&str]) = match tool {
            "iptables" => ("iptables-restore", &["--noflush"]),
            "ip6tables" => ("ip6tables-restore", &["--noflush"]),
            "nftables" => ("nft", &["-f", "-"]),
            _ => return,
        };
        let end = if tool == "nftables" { "" } else { "COMMIT\n" };
        let text = std::mem::take(script) + end;
        Cmd::new(program).args(args).stdin(text).run_in(netns).ok();
    };
    let mut table = String::new();
    let policies = told.lines().filter_map(|line| {
        let rest = line.strip_prefix("set the policy of FORWARD (")?;
        rest.strip_suffix(") to DROP again")
    });
    for tool in policies {
        let args = ["-P", "FORWARD", "DROP"];
        Cmd::new(tool).args(args).run_in(netns).ok();
    }
    for line in told.lines() {
        if let Some(name) = line.strip_prefix("rules (") {
            flush(&tool, &mut script);
            tool = name.trim_end_matches("):").to_owned();
            table.clear();
        } else if tool == "nftables" && line.starts_with("  ") {
            let text = line.trim();
            script += text
                .strip_prefix("+ ")
                .or(text.strip_prefix("- "))
                .unwrap_or(text);
            script.push('\n');
        } else if let Some(text) = line.strip_prefix("  ") {
            let (of, text) = text[2..].split_once(": ").expect("TABLE: RULE");
            if of != table {
                if !table.is_empty() {
                    script += "COMMIT\n";
                }
                script += &format!("*{of}\n");
                table = of.to_owned();
            }
            let line = match (line.trim().chars().next(), text.strip_prefix("chain ")) {
                (Some('+'), Some(chain)) => {
                    format!(":{} - [0:0]", chain.trim_end_matches(", empty at first"))
                }
                (_, Some(chain)) => format!("-X {chain}"),
                (_, None) => text.to_owned(),
            };
            script += &line;
            script.push('\n');
        }
    }
    flush(&tool, &mut script);
}

fn links(host: &Host) -> BTreeSet<String> {
    let links = host.tool("ip", ["-j", "link"]).ok().json();
    let names = links.as_array().into_iter().flatten();
    names
        .filter_map(|link| link["ifname"].as_str().map(str::to_owned))
        .collect()
}

/// The dry run leaves all as it is, the real command does what was told.
#[track_caller]
fn tells(host: &Host, command: &str, options: &str, words: &[&str]) {
    let line = format!("{command} --dry-run {options}");
    let before = State::of(host);
    let told = host.run(&line);
    before.is_still(host, &line);
    for word in words {
        assert!(
            told.stdout.contains(word),
            "`{line}` does not tell {word}: {told}"
        );
    }
    let twin = twin(host);
    assert_eq!(all_rules(&twin), all_rules(&host.netns), "the twin is one");
    follow(&told.stdout, &twin);
    let was = links(host);
    host.run(&format!("{command} {options}"));
    let (should, is) = (all_rules(&twin), all_rules(&host.netns));
    assert!(
        should == is,
        "{line}\n{told}\n(- told, + done)\n{}",
        rules::difference(&should, &is)
    );
    let now = links(host);
    let count = |start: &str| told.stdout.lines().filter(|l| l.starts_with(start)).count();
    let told = count("create bridge") + count("create veth");
    assert_eq!(
        now.difference(&was).count(),
        told,
        "{line}: links that came"
    );
    let gone = count("remove bridge") + count("remove veth");
    assert_eq!(
        was.difference(&now).count(),
        gone,
        "{line}: links that went"
    );
}

pub fn tells_what_the_command_then_does(firewall: &'static str) {
    let host = host(firewall);
    let rules = match firewall {
        "iptables" => ["rules (iptables):", "  + nat: -A CORACLE "],
        _ => ["rules (nftables):", "  + add element inet coracle dnat4 "],
    };
    let bridge = "--opt com.docker.network.bridge.name";
    tells(
        &host,
        "network create",
        &format!("--subnet 10.61.0.0/24 {bridge}=cr-four four"),
        &["create bridge cr-four 10.61.0.1/24", "rules (", "  + "],
    );
    tells(
        &host,
        "network create",
        &format!("--ipv6 --subnet 10.62.0.0/24 --subnet fd00:62::/64 {bridge}=cr-both both"),
        &[
            "create bridge cr-both 10.62.0.1/24 fd00:62::1/64",
            "rules (",
            "  + ",
        ],
    );
    tells(
        &host,
        "network create",
        &format!("--internal --subnet 10.63.0.0/24 {bridge}=cr-inner inner"),
        &["create bridge cr-inner 10.63.0.1/24", "rules (", "  + "],
    );
    let ports =
        "-p 8080:80 -p 8053:53/udp -p 127.0.0.1:8081:81 -p [::1]:8082:82 -p 8100-8110:8100-8110";
    tells(
        &host,
        "run",
        &format!("-d --name web --network both --network four {ports} busybox sleep 100000"),
        &[
            " on cr-both to eth0 of container web with 10.62.0.2/24 fd00:62::2/64 via 10.62.0.1",
            " on cr-four to eth1 of container web with 10.61.0.2/24",
            rules[0],
            rules[1],
        ],
    );
    tells(
        &host,
        "run",
        "-d --name long --network four -p 20000-29999:20000-29999 busybox sleep 100000",
        &[
            "ports kept from ephemeral use: 20000-29999 instead of none",
            rules[0],
        ],
    );
    tells(
        &host,
        "network rm",
        "inner",
        &["remove bridge cr-inner", "  - "],
    );
    // What is amiss is told by a reload, and mended by it.
    for damage in [
        "ip link del cr-both",
        "nft flush ruleset",
        "ip link set cr-four down",
    ] {
        host.tool("sh", ["-c", damage]).ok();
    }
    tells(
        &host,
        "network reload",
        "",
        &[
            "create bridge cr-both",
            "join veth ",
            "set cr-four up",
            "rules (",
            "  + ",
        ],
    );
    for command in ["network reload", "system reload", "network reload both"] {
        host.run(&format!("{command} --dry-run"))
            .says("nothing to do");
    }
    host.remove_everything();
    host.assert_clean();
}

pub fn fails_as_the_command_does(firewall: &'static str) {
    let host = host(firewall);
    host.run("network create --subnet 10.61.0.0/24 four");
    for (command, options, text) in [
        (
            "run",
            "-d -p 9000:80 busybox true",
            "port is already allocated",
        ),
        ("run", "-d --network nonesuch busybox true", "nonesuch"),
        ("run", "-d --name there busybox true", "is already in use"),
        (
            "run",
            "-d --network four --ip 10.62.0.9 busybox true",
            "10.62.0.9",
        ),
        ("network create", "--subnet 10.61.0.0/25 more", "four"),
        ("network create", "--subnet 192.0.2.0/25 more", "192.0.2.0"),
        ("network create", "four", "already exists"),
        ("network rm", "nonesuch", "nonesuch"),
        ("network rm", "first", "has active endpoints"),
        ("network reload", "nonesuch", "nonesuch"),
    ] {
        let line = format!("{command} --dry-run {options}");
        let before = State::of(&host);
        let told = host.try_run(&line);
        before.is_still(&host, &line);
        let done = host.try_run(&format!("{command} {options}"));
        before.is_still(&host, &format!("{command} {options}"));
        assert_ne!(told.code(), 0, "{told}");
        assert_eq!(told.code(), done.code(), "{told}{done}");
        let (told, done) = (without_ids(&told.stderr), without_ids(&done.stderr));
        assert_eq!(told, done, "{line}");
        assert!(told.contains(text), "{line}: {told}");
    }
    host.remove_everything();
    host.assert_clean();
}
