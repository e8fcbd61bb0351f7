//! Networks and published ports, flag by flag. What they do to packets is in `behaviours`; here is that each is taken, and refused where it must be.

use harness::{Host, eventually, images, net};

use crate::cell;
use crate::cell::Cell;

pub const CELLS: &[Cell] = &[
    cell!(
        ports_are_published,
        "run -p",
        "run --publish",
        "run -P",
        "run --publish-all",
        "run --expose",
        "port"
    ),
    cell!(
        addresses_are_as_asked,
        "run --network",
        "run --ip",
        "run --ip6",
        "run --mac-address",
        "run --network-alias"
    ),
    cell!(
        names_are_looked_up_as_asked,
        "run --dns",
        "run --dns-search",
        "run --dns-option",
        "run --add-host"
    ),
    cell!(
        a_network_is_made_as_asked,
        "network create",
        "network create --subnet",
        "network create --gateway",
        "network create --ip-range",
        "network create --aux-address",
        "network create --ipv6",
        "network create --internal",
        "network create --label",
        "network create -o",
        "network create --opt",
        "network create -d",
        "network create --driver",
    ),
    cell!(
        a_container_is_connected_and_disconnected,
        "network connect",
        "network connect --ip",
        "network connect --ip6",
        "network connect --alias",
        "network disconnect",
        "network disconnect -f",
        "network disconnect --force",
    ),
    cell!(
        networks_are_listed_and_removed,
        "network ls",
        "network ls -q",
        "network ls --quiet",
        "network ls -f",
        "network ls --filter",
        "network ls --format",
        "network ls --no-trunc",
        "network inspect",
        "network inspect -f",
        "network inspect --format",
        "network rm",
        "network rm -f",
        "network rm --force",
        "network prune",
        "network prune -f",
        "network prune --force",
        "network prune --filter",
    ),
];

fn ports_are_published() {
    let host = Host::new();
    host.start_web("short", "-p 8080:80");
    host.start_web("long", "--publish 127.0.0.1:8081:80/tcp");
    assert_eq!(
        net::http_get(&host.neighbour, "192.0.2.1:8080").unwrap(),
        images::PAGE
    );
    assert_eq!(
        net::http_get(&host.netns, "127.0.0.1:8081").unwrap(),
        images::PAGE
    );
    host.run("port long").says("80/tcp -> 127.0.0.1:8081");
    for (name, flag) in [("any1", "-P"), ("any2", "--publish-all")] {
        host.start_web(name, &format!("{flag} --expose 80"));
        let port = host
            .run(&format!("port {name} 80"))
            .text()
            .lines()
            .next()
            .unwrap()
            .to_owned();
        let port = port.rsplit(':').next().unwrap().to_owned();
        assert_eq!(
            net::http_get(&host.neighbour, &format!("192.0.2.1:{port}")).unwrap(),
            images::PAGE
        );
    }
    host.try_run("run -p 8080:80 busybox true")
        .exits(125)
        .complains("port is already allocated");
    host.try_run("run -p 99999:80 busybox true")
        .exits(125)
        .complains("invalid hostPort: 99999");
    host.try_run("run --expose nosuch busybox true")
        .exits(125)
        .complains("nosuch");
    host.try_run("port short 81")
        .exits(1)
        .complains("No public port '81' published for short");
}

fn addresses_are_as_asked() {
    let host = Host::new();
    host.run("network create --subnet 10.61.0.0/24 --subnet fd00:61::/64 --ipv6 n1");
    host.run("run -d --name c1 --network n1 --ip 10.61.0.9 --ip6 fd00:61::9 --mac-address 02:42:00:00:61:09 --network-alias www busybox sleep 1000");
    let place = host.inspect("c1")["NetworkSettings"]["Networks"]["n1"].take();
    assert_eq!(place["IPAddress"], "10.61.0.9");
    assert_eq!(place["GlobalIPv6Address"], "fd00:61::9");
    assert_eq!(place["MacAddress"], "02:42:00:00:61:09");
    host.run("run --rm --network container:c1 busybox hostname -i")
        .says("10.61.0.9");
    host.try_run("run --network nosuch busybox true")
        .exits(125)
        .complains("network nosuch not found");
    host.try_run("run --network n1 --ip 10.61.0.9 busybox true")
        .exits(125)
        .complains("Address already in use");
    host.try_run("run --ip nosuch busybox true").exits(125);
    host.try_run("run --mac-address nosuch busybox true")
        .exits(125);
}

fn names_are_looked_up_as_asked() {
    let host = Host::new();
    let text = host.run("run --rm --dns 192.0.2.53 --dns-search test --dns-option ndots:2 --add-host db:192.0.2.9 busybox cat /etc/resolv.conf /etc/hosts").stdout;
    for line in [
        "nameserver 192.0.2.53",
        "search test",
        "options ndots:2",
        "192.0.2.9\tdb",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    host.try_run("run --dns nosuch busybox true")
        .exits(125)
        .complains("nosuch");
    host.try_run("run --add-host nosuch busybox true")
        .exits(125)
        .complains("bad format for add-host");
}

fn a_network_is_made_as_asked() {
    let host = Host::new();
    host.run(
        "network create --subnet 10.62.0.0/24 --gateway 10.62.0.254 --ip-range 10.62.0.64/26 --aux-address router=10.62.0.64 --label a=b \
         -o com.docker.network.bridge.name=br-mine -d bridge n1",
    );
    host.run("network create --internal --ipv6 --driver bridge --opt com.docker.network.driver.mtu=1400 n2");
    let made = host.run("network inspect n1").json()[0].take();
    assert_eq!(made["IPAM"]["Config"][0]["Gateway"], "10.62.0.254");
    assert_eq!(made["Labels"]["a"], "b");
    host.run("run --rm --network n1 busybox hostname -i")
        .says("10.62.0.65");
    let n2 = host.run("network inspect n2").json()[0].take();
    assert_eq!(
        (n2["Internal"].as_bool(), n2["EnableIPv6"].as_bool()),
        (Some(true), Some(true))
    );
    host.try_run("network create n1")
        .exits(1)
        .complains("network with name n1 already exists");
    host.try_run("network create --subnet 10.62.0.0/25 n3")
        .exits(1)
        .complains("Pool overlaps with other one on this address space");
    host.try_run("network create --subnet nosuch n3").exits(1);
    host.try_run("network create -d overlay n3").exits(1);
}

fn a_container_is_connected_and_disconnected() {
    let host = Host::new();
    host.run("network create --subnet 10.63.0.0/24 --subnet fd00:63::/64 --ipv6 n1");
    host.run("run -d --name c1 busybox sleep 1000");
    host.run("network connect --ip 10.63.0.7 --ip6 fd00:63::7 --alias www n1 c1");
    assert_eq!(
        host.inspect("c1")["NetworkSettings"]["Networks"]["n1"]["IPAddress"],
        "10.63.0.7"
    );
    eventually("the alias leads to it", || {
        let asked = host.try_run("run --rm --network n1 busybox ping -c 1 www");
        if asked.code() == 0 {
            Ok(())
        } else {
            Err(asked)
        }
    });
    host.try_run("network connect n1 c1")
        .exits(1)
        .complains("already exists in network n1");
    host.run("network disconnect n1 c1");
    host.run("network connect n1 c1");
    host.run("network disconnect -f n1 c1");
    host.run("network connect n1 c1");
    host.run("network disconnect --force n1 c1");
    host.try_run("network disconnect n1 c1")
        .exits(1)
        .complains("is not connected to");
    host.try_run("network connect nosuch c1")
        .exits(1)
        .complains("network nosuch not found");
}

fn networks_are_listed_and_removed() {
    let host = Host::new();
    let id = host
        .run("network create --label keep=no n1")
        .text()
        .to_owned();
    for flag in ["-f", "--filter"] {
        host.run(&format!("network ls {flag} name=n1 --format {{{{.Name}}}}"))
            .says("n1");
    }
    host.run("network ls -q -f name=n1").says(&id[..12]);
    host.run("network ls --quiet --no-trunc -f name=n1")
        .says(&id);
    for flag in ["-f", "--format"] {
        host.run(&format!("network inspect {flag} {{{{.Driver}}}} n1"))
            .says("bridge");
    }
    host.run("network create n2");
    host.run("network prune -f --filter label=keep=no");
    host.run("network ls -q -f name=n1").says("");
    host.run("network prune --force");
    host.run("network ls -q -f name=n2").says("");
    for flag in ["-f", "--force"] {
        host.run(&format!("network rm {flag} nosuch"));
    }
    host.try_run("network rm bridge")
        .exits(1)
        .complains("bridge is a pre-defined network and cannot be removed");
    host.run("network create n3");
    host.run("run -d --name c1 --network n3 busybox sleep 1000");
    host.try_run("network rm n3")
        .exits(1)
        .complains("has active endpoints");
    host.try_run("network rm nosuch")
        .exits(1)
        .complains("network nosuch not found");
    host.try_run("network ls --filter nosuch=1").exits(1);
}
