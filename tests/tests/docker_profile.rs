//! With `--profile docker` the tables nat and filter are those of Docker 20.10, line for line: each capture in `oracle/rules/` has a test.

use harness::{Host, Netns, net, rules};

fn host() -> Host {
    let host = Host::builder().options(["--profile", "docker"]).build();
    host.system("up");
    host
}

#[track_caller]
fn assert_is(host: &Host, capture: &str) {
    let save = rules::save(&host.netns);
    let actual = rules::table_of(&save, "filter") + &rules::table_of(&save, "nat");
    rules::assert_same(capture, &actual, &rules::capture(capture));
}

const MOELOVE: &str =
    "network create --subnet 172.18.0.0/16 -o com.docker.network.bridge.name=br-moelove moelove";

#[test]
fn capture_01_empty() {
    assert_is(&host(), "01-empty");
}

#[test]
fn capture_02_network_create() {
    let host = host();
    host.run(MOELOVE);
    assert_is(&host, "02-network-create");
}

#[test]
fn capture_03_publish_tcp() {
    let host = host();
    host.run("run -d --name c1 -p 6379:6379 busybox sleep 1000");
    assert_is(&host, "03-publish-tcp");
}

#[test]
fn capture_04_publish_loopback() {
    let host = host();
    host.run("run -d --name c1 -p 127.0.0.1:8080:80 busybox sleep 1000");
    assert_is(&host, "04-publish-loopback");
}

/// One rule for a range may stand for Docker's three, if it does the same: the other lines are equal, and each port is shown by traffic.
#[test]
fn capture_05_publish_udp_range() {
    let host = host();
    host.run("run -d --name c1 -p 8000-8002:8000-8002/udp busybox sleep 1000");
    let (published, others): (Vec<_>, Vec<_>) = {
        let save = rules::save(&host.netns);
        let both = rules::table_of(&save, "filter") + &rules::table_of(&save, "nat");
        both.lines()
            .map(str::to_owned)
            .partition(|line| line.contains(" udp "))
    };
    let capture = rules::capture("05-publish-udp-range");
    let (expected, expected_others): (Vec<_>, Vec<_>) =
        capture.lines().partition(|line| line.contains(" udp "));
    assert_eq!(others, expected_others);
    if published != expected {
        assert_eq!(
            published.len(),
            3,
            "an accept, a masquerade and a DNAT: {published:#?}"
        );
        let parts = [
            "-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p udp -m udp --dport 8000:8002 -j ACCEPT",
            "-A POSTROUTING -s 172.17.0.2/32 -d 172.17.0.2/32 -p udp -m udp --dport 8000:8002 -j MASQUERADE",
            "-A DOCKER ! -i docker0 -p udp -m udp --dport 8000:8002 -j DNAT --to-destination 172.17.0.2",
        ];
        for (rule, part) in published.iter().zip(parts) {
            assert!(rule.starts_with(part), "{rule}\nis not {part}");
        }
    }
    let inside = Netns::of_process(host.pid_of("c1")).unwrap();
    let _servers = [8000, 8001, 8002, 8003].map(|port| net::UdpServer::start(&inside, port));
    for port in [8000, 8001, 8002] {
        let to = format!("192.0.2.1:{port}");
        assert_eq!(
            net::udp_ask(&host.neighbour, &to, "q").expect(&to),
            format!("{port} 192.0.2.2 q")
        );
        net::udp_ask(&host.netns, &to, "q").expect(&to);
    }
    net::udp_ask(&host.neighbour, "192.0.2.1:8003", "q").expect_err("it is past the range");
}

#[test]
fn capture_06_publish_on_user_network() {
    let host = host();
    host.run(MOELOVE);
    host.run("run -d --name c1 --network moelove -p 8080:80 busybox sleep 1000");
    assert_is(&host, "06-publish-on-user-network");
}

#[test]
fn capture_07_internal_network() {
    let host = host();
    host.run(MOELOVE);
    host.run("network create --internal --subnet 172.19.0.0/16 -o com.docker.network.bridge.name=br-int int");
    assert_is(&host, "07-internal-network");
}

#[test]
fn capture_08_icc_false() {
    let host = host();
    host.run(MOELOVE);
    host.run("network create --subnet 172.20.0.0/16 -o com.docker.network.bridge.name=br-noicc -o com.docker.network.bridge.enable_icc=false noicc");
    assert_is(&host, "08-icc-false");
}

#[test]
fn capture_09_after_removal() {
    let host = host();
    host.run(MOELOVE);
    host.run("network create --internal --subnet 172.19.0.0/16 -o com.docker.network.bridge.name=br-int int");
    host.run("network create --subnet 172.20.0.0/16 -o com.docker.network.bridge.name=br-noicc -o com.docker.network.bridge.enable_icc=false noicc");
    host.run("run -d --name c1 --network moelove -p 8080:80 busybox sleep 1000");
    host.run("run -d --name c2 -p 8000-8002:8000-8002/udp -p 127.0.0.1:8081:80 busybox sleep 1000");
    host.run("rm -f c1 c2");
    host.run("network rm moelove int noicc");
    assert_is(&host, "09-after-removal");
}

#[test]
fn capture_10_three_networks() {
    let host = host();
    for (name, subnet) in [("n1", 31), ("n2", 32), ("n3", 33)] {
        host.run(&format!("network create --subnet 172.{subnet}.0.0/16 -o com.docker.network.bridge.name=br-{name} {name}"));
    }
    assert_is(&host, "10-three-networks");
}

#[test]
fn captures_11_and_12_user_rule_and_restart() {
    let host = host();
    host.tool(
        "iptables",
        [
            "-I",
            "DOCKER-USER",
            "-i",
            "eth9",
            "!",
            "-s",
            "100.84.94.62",
            "-j",
            "DROP",
        ],
    )
    .ok();
    assert_is(&host, "11-user-rule");
    host.system("reload");
    assert_is(&host, "12-user-rule-after-restart");
    host.system("up");
    assert_is(&host, "12-user-rule-after-restart");
}

#[test]
fn capture_13_iptables_false() {
    let host = Host::builder()
        .options(["--profile", "docker", "--iptables=false"])
        .build();
    host.system("up");
    assert_is(&host, "13-iptables-false");
    host.run("run -d --name c1 -p 8080:80 busybox sleep 1000");
    assert_is(&host, "13-iptables-false");
}

/// Reload compiles the rules from the model alone; it must come to the same text as the changes one by one.
#[test]
fn a_reload_changes_no_line_of_a_grown_host() {
    let host = host();
    host.run(MOELOVE);
    host.run("network create --internal --subnet 172.19.0.0/16 -o com.docker.network.bridge.name=br-int int");
    host.run("run -d --name c1 --network moelove -p 8080:80 busybox sleep 1000");
    host.run("run -d --name c2 -p 8000-8002:8000-8002/udp -p 127.0.0.1:8081:80 busybox sleep 1000");
    let grown = rules::save(&host.netns);
    host.system("reload");
    if !host.is_docker() {
        rules::assert_same("after a reload", &rules::save(&host.netns), &grown);
    }
    host.remove_everything();
    host.assert_clean();
}
