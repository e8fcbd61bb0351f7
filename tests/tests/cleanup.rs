//! After `rm -f` of everything and `system down`: no rule, link, namespace, mount, process, cgroup or socket of ours is left, and the host's
//! sysctls, policies and own rules are as before.

use harness::{Host, Netns, eventually, net, rules};

/// A host on which about everything has been done.
fn well_used(host: &Host) {
    host.start_web(
        "web",
        "-p 8080:80 -p 127.0.0.1:8081:80 -p 7000-7003:7000-7003/udp",
    );
    host.run("network create --subnet 10.99.0.0/24 blue");
    host.run("network create --internal green");
    host.start_web("blue1", "--network blue -p 8082:80");
    host.run("run -d --name green1 --network green busybox sleep 1000");
    host.run("run -d --name lonely --network none busybox sleep 1000");
    host.run("run -d --name kept -v data:/data busybox sleep 1000");
    host.run("exec -d kept sleep 1000");
    host.run("create --name never -p 8083:80 busybox true");
    host.try_run("run --name failed busybox nosuch").exits(127);
    host.try_run("run --name taken -p 8080:80 busybox true")
        .exits(125);
    host.run("run --rm -p 8084:80 busybox true");
    host.run("stop -t 0 blue1");
    host.run("start blue1");
    host.run("kill lonely");
    host.run("wait lonely");
    net::http_get(&host.neighbour, "192.0.2.1:8080").unwrap();
    net::http_get(&host.netns, "127.0.0.1:8081").unwrap();
    let inside = Netns::of_process(host.pid_of("web")).unwrap();
    let _server = net::UdpServer::start(&inside, 7001);
    net::udp_ask(&host.neighbour, "192.0.2.1:7001", "q").unwrap();
}

#[test]
fn nothing_is_left_on_a_host_that_was_no_router() {
    let host = Host::builder().foreign_rules().build();
    well_used(&host);
    host.remove_everything();
    host.assert_clean();
}

#[test]
fn nothing_is_left_on_a_host_that_was_a_router() {
    let host = Host::builder().ip_forward(true).foreign_rules().build();
    well_used(&host);
    host.remove_everything();
    host.assert_clean();
}

#[test]
fn nothing_is_left_in_the_docker_profile_and_without_a_firewall() {
    for options in [&["--profile", "docker"][..], &["--firewall", "none"]] {
        let host = Host::builder().options(options).foreign_rules().build();
        if host.is_docker() {
            return;
        }
        well_used(&host);
        host.remove_everything();
        host.assert_clean();
    }
}

#[test]
fn system_down_stops_what_still_runs_and_may_be_said_twice() {
    let host = Host::new();
    if host.is_docker() {
        return;
    }
    host.start_web("web", "-p 8080:80");
    host.run("network create blue");
    host.start_web("blue1", "--network blue -p 8082:80");
    host.system("down");
    host.assert_clean();
    host.system("down");
    host.assert_clean();
    assert_eq!(host.run("ps -q").text(), "");
    // What was stopped is not forgotten: it starts again, on a host that is set up again.
    host.run("start web");
    eventually("it serves again", || {
        net::http_get(&host.neighbour, "192.0.2.1:8080")
    });
    host.run("start blue1");
    eventually("it serves again", || {
        net::http_get(&host.neighbour, "192.0.2.1:8082")
    });
    host.remove_everything();
    host.assert_clean();
}

#[test]
fn a_removed_container_leaves_only_what_its_network_has() {
    let host = Host::new();
    host.run("run --rm busybox true");
    let (rules_before, links_before) = (rules::everywhere(&host.netns), links(&host));
    host.start_web("web", "-p 8080:80 -p 9000-9100:9000-9100");
    assert_ne!(rules::everywhere(&host.netns), rules_before);
    host.run("rm -f web");
    rules::assert_same("after rm", &rules::everywhere(&host.netns), &rules_before);
    assert_eq!(links(&host), links_before);
    let left: Vec<_> = std::fs::read_dir(host.root().join("containers"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    assert!(left.is_empty() || host.is_docker(), "{left:?}");
}

#[test]
fn a_stopped_container_holds_no_link_rule_process_or_port() {
    let host = Host::new();
    host.run("run --rm busybox true");
    let (rules_before, links_before) = (rules::everywhere(&host.netns), links(&host));
    let id = host.start_web("web", "-p 8080:80");
    host.run("stop -t 0 web");
    rules::assert_same("after stop", &rules::everywhere(&host.netns), &rules_before);
    assert_eq!(links(&host), links_before);
    assert_eq!(host.monitor_of(&id), None);
    let _free = host
        .netns
        .enter(|| std::net::TcpListener::bind("0.0.0.0:8080"))
        .expect("the port is free");
}

#[test]
fn rules_that_others_write_meanwhile_are_left_alone() {
    let host = Host::new();
    host.start_web("web", "-p 8080:80");
    host.tool(
        "iptables",
        ["-I", "FORWARD", "-s", "203.0.113.7", "-j", "DROP"],
    )
    .ok();
    host.tool(
        "iptables",
        [
            "-t",
            "nat",
            "-A",
            "POSTROUTING",
            "-s",
            "203.0.113.0/24",
            "-j",
            "MASQUERADE",
        ],
    )
    .ok();
    host.tool(
        "nft",
        ["add table inet foreign; add chain inet foreign c; add rule inet foreign c accept"],
    )
    .ok();
    host.start_web("more", "-p 8081:80");
    host.run("rm -f web more");
    host.system("reload");
    host.system("down");
    let save = rules::save(&host.netns);
    assert!(
        save.contains("-A FORWARD -s 203.0.113.7/32 -j DROP"),
        "{save}"
    );
    assert!(
        save.contains("-A POSTROUTING -s 203.0.113.0/24 -j MASQUERADE"),
        "{save}"
    );
    host.tool("nft", ["list", "chain", "inet", "foreign", "c"])
        .ok();
}

/// The names of the host's links (without the `@ifN` of a veth).
fn links(host: &Host) -> Vec<String> {
    let list = host.tool("ip", ["-br", "link"]).ok().stdout;
    list.lines()
        .map(|line| line.split(['@', ' ']).next().unwrap_or_default().to_owned())
        .collect()
}
