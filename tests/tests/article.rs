//! The experiments of the article that this project re-creates, and what they must show.

use harness::host::{ATTACKER, NEIGHBOUR};
use harness::images::PAGE;
use harness::{Host, eventually, net, rules};

/// One ping from a container to an address; does an answer come within two seconds?
#[track_caller]
fn pings(host: &Host, from: &str, to: &str) -> bool {
    let output = host.try_run(&format!("exec {from} ping -c1 -w2 {to}"));
    match output.code() {
        0 => true,
        1 => false,
        _ => panic!("ping could not run: {output}"),
    }
}

#[test]
fn two_containers_of_one_network_ping_each_other() {
    let host = Host::new();
    host.run("network create moelove");
    for (name, network) in [
        ("a", "bridge"),
        ("b", "bridge"),
        ("c", "moelove"),
        ("d", "moelove"),
    ] {
        host.run(&format!(
            "run -d --name {name}{name} --network {network} busybox sleep 1000"
        ));
    }
    for (from, to) in [("aa", "bb"), ("bb", "aa"), ("cc", "dd"), ("dd", "cc")] {
        assert!(pings(&host, from, &host.address_of(to)), "{from} to {to}");
    }
    host.remove_everything();
    host.assert_clean();
}

#[test]
fn containers_of_different_networks_do_not_reach_each_other() {
    let host = Host::new();
    host.run("network create moelove");
    host.run("network create other");
    for (name, network) in [("aa", "bridge"), ("bb", "moelove"), ("cc", "other")] {
        host.start_web(name, &format!("--network {network}"));
    }
    for (from, to) in [("aa", "bb"), ("bb", "aa"), ("bb", "cc"), ("cc", "bb")] {
        let address = host.address_of(to);
        assert!(!pings(&host, from, &address), "{from} pings {to}");
        let inside = harness::Netns::of_process(host.pid_of(from)).unwrap();
        net::http_get(&inside, &format!("{address}:80")).expect_err("isolated");
    }
}

#[test]
fn a_rule_of_the_users_keeps_out_all_but_one_address_and_survives() {
    let host = Host::new();
    host.start_web("web", "-p 8080:80");
    let user = host.chain("-USER");
    host.tool(
        "iptables",
        [
            "-I", &user, "-i", "eth0", "!", "-s", NEIGHBOUR, "-j", "DROP",
        ],
    )
    .ok();
    let kept_out = |when: &str| {
        let allowed = eventually(when, || net::http_get(&host.neighbour, "192.0.2.1:8080"));
        assert_eq!(allowed, PAGE, "{when}");
        net::http_get(&host.attacker, "192.0.2.1:8080")
            .expect_err(&format!("{ATTACKER} is kept out {when}"));
        let chain = rules::chain(&rules::save(&host.netns), "filter", &user);
        assert_eq!(chain.len(), 2, "{when}: {chain:?}");
        assert_eq!(
            chain[0],
            format!("-A {user} ! -s {NEIGHBOUR}/32 -i eth0 -j DROP"),
            "{when}"
        );
        let listed = rules::listed(&host.netns, "filter", &user);
        assert_eq!(listed[1..], chain[..], "{when}");
    };
    kept_out("at first");
    host.system("reload");
    kept_out("after a reload");
    host.run("stop -t 0 web");
    host.run("start web");
    kept_out("after a restart of the container");
    host.start_web("late", "-p 8081:80");
    kept_out("after another container");
    net::http_get(&host.attacker, "192.0.2.1:8081").expect_err("the rule is for every container");
}

#[test]
fn emptying_the_chain_breaks_publishing_and_reload_mends_it() {
    let host = Host::new();
    host.start_web("web", "-p 8080:80");
    assert_eq!(
        net::http_get(&host.neighbour, "192.0.2.1:8080").unwrap(),
        PAGE
    );
    let whole = rules::save(&host.netns);
    host.tool("iptables", ["-F", &host.chain("")]).ok();
    net::http_get(&host.neighbour, "192.0.2.1:8080").expect_err("nothing accepts it now");
    host.system("reload");
    assert_eq!(
        eventually("mended", || net::http_get(
            &host.neighbour,
            "192.0.2.1:8080"
        )),
        PAGE
    );
    // Docker 20.10 mends what broke, but with the jumps in FORWARD in another order.
    if !host.is_docker() {
        rules::assert_same("after the reload", &rules::save(&host.netns), &whole);
    }
}

/// More than Docker promises: it restarts for this, and leaves out the jump to DOCKER-USER.
#[test]
fn reload_mends_every_table_and_jump_and_does_not_disturb_a_connection() {
    let host = Host::new();
    if host.is_docker() {
        return;
    }
    host.run("run -d --name echo -p 7000:7 busybox nc -ll -p 7 -e cat");
    let mut connection = eventually("echo answers", || {
        net::Echo::connect(&host.neighbour, "192.0.2.1:7000")
    });
    let whole = rules::save(&host.netns);
    host.tool("iptables", ["-t", "nat", "-F"]).ok();
    host.tool("iptables", ["-F", "FORWARD"]).ok();
    host.tool("iptables", ["-F", &host.chain("-ISOLATION-STAGE-1")])
        .ok();
    host.system("reload");
    rules::assert_same("after the reload", &rules::save(&host.netns), &whole);
    connection
        .ask("still there?")
        .expect("the connection lives on");
    net::Echo::connect(&host.neighbour, "192.0.2.1:7000").expect("a new one is accepted");
    host.system("reload");
    rules::assert_same("after a second reload", &rules::save(&host.netns), &whole);
}

#[test]
fn without_iptables_there_is_no_rule_and_the_loopback_path_serves() {
    for option in ["--iptables=false", "--firewall=none"] {
        let host = Host::builder().options([option]).build();
        if host.is_docker() && option != "--iptables=false" {
            continue;
        }
        host.start_web("web", "-p 8080:80");
        assert_eq!(net::http_get(&host.netns, "127.0.0.1:8080").unwrap(), PAGE);
        assert_eq!(rules::save(&host.netns), "", "{option}");
        assert_eq!(
            host.tool("nft", ["list", "ruleset"]).ok().text(),
            "",
            "{option}"
        );
        host.remove_everything();
        host.assert_clean();
    }
}

#[test]
fn our_own_layout_is_the_articles_with_our_names() {
    let host = Host::new();
    host.start_web("web", "-p 6379:6379");
    // The capture's names and addresses, in ours: the bridge's own subnet is read from the address that the container got.
    let address = host.address_of("web");
    let subnet = address.rsplitn(3, '.').last().unwrap();
    let expected = rules::capture("03-publish-tcp")
        .replace("172.17", subnet)
        .replace("docker0", host.bridge())
        .replace("DOCKER", &host.chain(""));
    rules::assert_same(
        "the default profile",
        &rules::nat_and_filter(&host.netns),
        &with_our_additions(&expected, host.bridge()),
    );
}

/// What our own profile does differently in these two tables: a network's rules stand in `CORACLE-FORWARD`, with a drop of
/// what is not published; and `CORACLE-RUNS` is asked after `CORACLE`.
fn with_our_additions(article: &str, bridge: &str) -> String {
    let of_network = |line: &&str| line.starts_with("-A FORWARD ") && line.contains(bridge);
    let drop = format!("-A CORACLE-FORWARD ! -i {bridge} -o {bridge} -j DROP");
    let mut forward = String::new();
    for line in article.lines().filter(of_network) {
        let line = line.replace("-A FORWARD", "-A CORACLE-FORWARD");
        forward += &format!("{line}\n");
        if line.ends_with("-j CORACLE") {
            forward += &format!("{drop}\n");
        }
    }
    let (mut ours, mut table) = (String::new(), "");
    for line in article.lines().filter(|line| !of_network(line)) {
        if line.starts_with('*') {
            table = line;
        }
        if line.starts_with("-A CORACLE-ISOLATION-STAGE-1 -i") {
            ours += &forward;
        }
        ours += &format!("{line}\n");
        let to_runs = |chain| format!("-A {chain} -m addrtype --dst-type LOCAL -j CORACLE-RUNS\n");
        match (table, line) {
            ("*filter", ":CORACLE - [0:0]") => ours += ":CORACLE-FORWARD - [0:0]\n",
            ("*nat", ":CORACLE - [0:0]") => ours += ":CORACLE-RUNS - [0:0]\n",
            (_, "-A FORWARD -j CORACLE-ISOLATION-STAGE-1") => {
                ours += "-A FORWARD -j CORACLE-FORWARD\n";
            }
            ("*nat", line) if line.starts_with("-A PREROUTING") => ours += &to_runs("PREROUTING"),
            ("*nat", line) if line.starts_with("-A OUTPUT") => ours += &to_runs("OUTPUT"),
            _ => {}
        }
    }
    ours
}
