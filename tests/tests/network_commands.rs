//! The network commands and options as a Docker user types them, judged from outside: packets, files, texts, exit codes.

use harness::{Host, Netns, Output, eventually, net};

/// Runs a line that must succeed.
#[track_caller]
fn run(host: &Host, line: &str) -> Output {
    host.run(line)
}

/// Fails with this code and these words on standard error.
#[track_caller]
fn refuses(host: &Host, line: &str, code: i32, text: &str) {
    host.try_run(line).exits(code).complains(text);
}

fn file(host: &Host, container: &str, path: &str) -> String {
    host.run(&format!("exec {container} cat {path}")).stdout
}

/// The lines of /etc/hosts by which a container knows itself.
fn own_lines(host: &Host, container: &str) -> Vec<String> {
    let hosts = file(host, container, "/etc/hosts");
    let id = host.inspect(container)["Id"].as_str().unwrap()[..12].to_owned();
    let lines = hosts.lines().filter(|line| line.contains(&id));
    lines
        .map(|line| line.split('\t').next().unwrap_or_default().to_owned())
        .collect()
}

/// What a name leads to, asked from inside a container.
fn look_up(host: &Host, container: &str, name: &str) -> Result<String, String> {
    let output = host.try_run(&format!("exec {container} nslookup {name} 127.0.0.11"));
    let answer = output.stdout.rsplit("Name:").next().unwrap_or_default();
    let address = answer
        .lines()
        .find_map(|line| line.strip_prefix("Address: "));
    match address {
        Some(address) if output.stdout.contains("Name:") => Ok(address.trim().to_owned()),
        _ => Err(output.to_string()),
    }
}

#[track_caller]
fn finds(host: &Host, container: &str, name: &str, address: &str) {
    eventually(&format!("{container} finds {name}"), || {
        match look_up(host, container, name)? {
            found if found == address => Ok(()),
            found => Err(format!("{name} is {found}, not {address}")),
        }
    });
}

#[track_caller]
fn served(from: &Netns, at: &str) {
    eventually(&format!("{at} answers"), || net::http_get(from, at));
}

#[test]
fn a_container_joins_several_networks_each_as_asked() {
    let host = Host::new();
    run(&host, "network create --subnet 10.51.0.0/24 front");
    run(&host, "network create --subnet 10.52.0.0/24 back");
    run(
        &host,
        "run -d --name db --network back --network-alias store busybox sleep 1000",
    );
    host.start_web(
        "web",
        "--network name=front,ip=10.51.0.9,alias=www,mac-address=02:42:0a:33:00:77 --network back -p 8080:80",
    );
    let networks = host.inspect("web")["NetworkSettings"]["Networks"].take();
    assert_eq!(networks["front"]["IPAddress"], "10.51.0.9");
    assert_eq!(networks["front"]["MacAddress"], "02:42:0a:33:00:77");
    assert_eq!(networks["front"]["IPAMConfig"]["IPv4Address"], "10.51.0.9");
    assert_eq!(networks["front"]["Aliases"][0], "www");
    assert!(
        networks["back"]["IPAddress"]
            .as_str()
            .unwrap()
            .starts_with("10.52.0.")
    );
    let link = run(&host, "exec web ip link show").stdout;
    assert!(link.contains("02:42:0a:33:00:77"), "{link}");
    let back = networks["back"]["IPAddress"].as_str().unwrap().to_owned();
    assert_eq!(own_lines(&host, "web"), ["10.51.0.9".to_owned(), back]);
    served(&host.neighbour, "192.0.2.1:8080");
    served(&host.netns, "127.0.0.1:8080");
    let db = host.address_of("db");
    finds(&host, "web", "db", &db);
    finds(&host, "web", "store", &db);
    // Both networks are shown, and both come back.
    run(&host, "ps --format {{.Networks}} --filter name=web").says("back,front");
    run(&host, "stop -t 0 web");
    run(&host, "start web");
    assert_eq!(own_lines(&host, "web").len(), 2);
    served(&host.neighbour, "192.0.2.1:8080");
}

#[test]
fn options_for_the_first_network_and_what_they_do_not_go_with() {
    let host = Host::new();
    run(
        &host,
        "network create --subnet 10.53.0.0/24 --ipv6 --subnet fd00:53::/64 n1",
    );
    run(
        &host,
        "run -d --name c1 --net n1 --ip 10.53.0.40 --ip6 fd00:53::40 --mac-address 02:42:00:00:53:01 \
         --network-alias a --network-alias b busybox sleep 1000",
    );
    let place = host.inspect("c1")["NetworkSettings"]["Networks"]["n1"].take();
    assert_eq!(place["IPAddress"], "10.53.0.40");
    assert_eq!(place["GlobalIPv6Address"], "fd00:53::40");
    assert_eq!(place["GlobalIPv6PrefixLen"], 64);
    assert_eq!(place["IPv6Gateway"], "fd00:53::1");
    assert_eq!(place["MacAddress"], "02:42:00:00:53:01");
    assert_eq!(place["Aliases"].as_array().unwrap().len(), 3);
    assert_eq!(own_lines(&host, "c1"), ["10.53.0.40", "fd00:53::40"]);
    for (options, text) in [
        (
            "--network-alias x",
            "network-scoped aliases are only supported for user-defined networks",
        ),
        (
            "--network host --network-alias x",
            "network-scoped aliases are only supported for user-defined networks",
        ),
        (
            "--ip 172.17.0.9",
            "user specified IP address is supported on user defined networks only",
        ),
        (
            "--network none --ip 1.2.3.4",
            "user specified IP address is supported on user defined networks only",
        ),
        (
            "--network n1 --network host",
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
        ),
        (
            "--network name=n1,ip=10.53.0.9 --ip 10.53.0.8",
            "conflicting options: cannot specify both --ip and per-network IPv4 address",
        ),
        ("--network name=n1,foo=bar", "invalid field key foo"),
        ("--network n1 --ip zz", "invalid IPv4 address: zz"),
        ("--network n1 --ip6 zz", "invalid IPv6 address: zz"),
        ("--mac-address zz", "zz is not a valid mac address"),
        (
            "--network host --mac-address 02:42:00:00:53:02",
            "conflicting options: mac-address and the network mode",
        ),
        ("--network nope", "network nope not found"),
    ] {
        refuses(
            &host,
            &format!("run --rm {options} busybox true"),
            125,
            text,
        );
    }
    // Taken, outside, and the gateway's.
    for address in ["10.53.0.40", "10.9.0.9", "10.53.0.1"] {
        host.try_run(&format!(
            "run --rm --network n1 --ip {address} busybox true"
        ))
        .exits(125);
    }
    assert_eq!(host.ids().len(), 1, "what was refused leaves nothing");
}

#[test]
fn a_running_container_is_connected_and_disconnected() {
    let host = Host::new();
    run(&host, "network create --subnet 10.54.0.0/24 n1");
    host.start_web("web", "-p 8080:80");
    run(&host, "run -d --name peer --network n1 busybox sleep 1000");
    let first = host.address_of("web");
    assert!(!file(&host, "web", "/etc/resolv.conf").contains("127.0.0.11"));
    run(
        &host,
        "network connect --ip 10.54.0.77 --alias www --alias shop n1 web",
    )
    .says("");
    assert_eq!(own_lines(&host, "web"), [first, "10.54.0.77".into()]);
    assert!(file(&host, "web", "/etc/resolv.conf").contains("nameserver 127.0.0.11"));
    finds(&host, "peer", "www", "10.54.0.77");
    finds(&host, "web", "peer", &host.address_of("peer"));
    let peer = Netns::of_process(host.pid_of("peer")).unwrap();
    served(&peer, "10.54.0.77:80");
    refuses(
        &host,
        "network connect n1 web",
        1,
        "endpoint with name web already exists in network n1",
    );
    // The published port follows to the network that is left, for local clients and for others.
    run(&host, "network disconnect bridge web").says("");
    assert_eq!(own_lines(&host, "web"), ["10.54.0.77"]);
    served(&host.netns, "127.0.0.1:8080");
    served(&host.neighbour, "192.0.2.1:8080");
    let id = host.inspect("web")["Id"].as_str().unwrap().to_owned();
    refuses(
        &host,
        "network disconnect bridge web",
        1,
        &format!("container {id} is not connected to the network bridge"),
    );
    let inspect = run(&host, "network inspect n1").json();
    let place = &inspect[0]["Containers"][&id];
    assert_eq!(place["IPv4Address"], "10.54.0.77/24");
    // Off every network, and back.
    run(&host, "network disconnect -f n1 web");
    assert_eq!(own_lines(&host, "web"), [] as [String; 0]);
    assert!(net::http_get(&host.neighbour, "192.0.2.1:8080").is_err());
    // Its address is free: the port must not lead to whoever gets it.
    host.start_web("next", "--network n1 --ip 10.54.0.77");
    assert!(net::http_get(&host.netns, "127.0.0.1:8080").is_err());
    // And yet the port is its own.
    refuses(
        &host,
        "run --rm -p 8080:80 busybox true",
        125,
        "port is already allocated",
    );
    run(&host, "network connect n1 web");
    served(&host.netns, "127.0.0.1:8080");
    served(&host.neighbour, "192.0.2.1:8080");
}

#[test]
fn a_stopped_container_is_connected_at_its_next_start() {
    let host = Host::new();
    run(&host, "network create --subnet 10.55.0.0/24 n1");
    run(&host, "network create --subnet 10.56.0.0/24 n2");
    run(&host, "create --name c1 busybox sleep 1000");
    run(&host, "network connect --ip 10.55.0.9 n1 c1");
    run(&host, "network connect n2 c1");
    run(&host, "network disconnect bridge c1");
    let networks = host.inspect("c1")["NetworkSettings"]["Networks"].take();
    let names: Vec<_> = networks.as_object().unwrap().keys().cloned().collect();
    assert_eq!(names, ["n1", "n2"]);
    assert_eq!(networks["n1"]["IPAddress"], "");
    refuses(
        &host,
        "network disconnect bridge c1",
        1,
        "is not connected to the network bridge",
    );
    run(&host, "start c1");
    let networks = host.inspect("c1")["NetworkSettings"]["Networks"].take();
    assert_eq!(networks["n1"]["IPAddress"], "10.55.0.9");
    run(&host, "network disconnect n2 c1");
    run(&host, "stop -t 0 c1");
    run(&host, "start c1");
    assert_eq!(own_lines(&host, "c1"), ["10.55.0.9"]);
}

#[test]
fn connect_and_disconnect_refuse_what_cannot_be() {
    let host = Host::new();
    run(&host, "network create n1");
    run(&host, "run -d --name c1 busybox sleep 1000");
    run(
        &host,
        "run -d --name on-host --network host busybox sleep 1000",
    );
    run(
        &host,
        "run -d --name alone --network none busybox sleep 1000",
    );
    for (line, text) in [
        ("network connect nope c1", "network nope not found"),
        ("network connect n1 nope", "No such container: nope"),
        ("network disconnect nope c1", "network nope not found"),
        ("network disconnect n1 nope", "No such container: nope"),
        ("network disconnect -f n1 nope", "endpoint nope not found"),
        (
            "network connect host c1",
            "container cannot be disconnected from host network or connected to host network",
        ),
        (
            "network disconnect host on-host",
            "container cannot be disconnected from host network or connected to host network",
        ),
        (
            "network connect n1 on-host",
            "container sharing network namespace with another container or host cannot be connected to any other network",
        ),
        (
            "network connect n1 alone",
            "container cannot be connected to multiple networks with one of the networks in private (none) mode",
        ),
        (
            "network connect none c1",
            "container cannot be connected to multiple networks with one of the networks in private (none) mode",
        ),
        (
            "network connect --alias x bridge c1",
            "network-scoped alias is supported only for containers in user defined networks",
        ),
        (
            "network connect --ip 172.17.0.50 bridge c1",
            "user specified IP address is supported on user defined networks only",
        ),
        (
            "network connect n1",
            "'coracle network connect' requires 2 arguments",
        ),
        (
            "network disconnect n1",
            "'coracle network disconnect' requires 2 arguments",
        ),
    ] {
        refuses(&host, line, 1, text);
    }
    // From none to a network.
    run(&host, "network disconnect none alone");
    run(&host, "network connect n1 alone");
    finds(&host, "alone", "alone", &host.address_of("alone"));
}

#[test]
fn another_containers_network_is_shared() {
    let host = Host::new();
    run(&host, "network create --subnet 10.57.0.0/24 n1");
    host.start_web("web", "--network n1 -p 8080:80");
    run(
        &host,
        "run -d --name side --network container:web busybox sleep 1000",
    );
    let (web, side) = (host.pid_of("web"), host.pid_of("side"));
    let id = |pid| Netns::of_process(pid).unwrap().id();
    assert_eq!(id(web), id(side));
    for path in ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"] {
        assert_eq!(
            file(&host, "web", path),
            file(&host, "side", path),
            "{path}"
        );
    }
    assert_eq!(
        run(&host, "exec side hostname").stdout,
        run(&host, "exec web hostname").stdout
    );
    let inspect = host.inspect("side");
    assert_eq!(
        inspect["HostConfig"]["NetworkMode"],
        format!("container:{}", host.inspect("web")["Id"].as_str().unwrap())
    );
    assert_eq!(
        inspect["NetworkSettings"]["Networks"],
        serde_json::json!({})
    );
    run(&host, "exec side wget -q -O /dev/null 127.0.0.1:80");
    // What happens to the one's files happens to the other's.
    run(&host, "network connect bridge web");
    assert_eq!(
        file(&host, "web", "/etc/hosts"),
        file(&host, "side", "/etc/hosts")
    );
    refuses(
        &host,
        "network connect n1 side",
        1,
        "container sharing network namespace with another container or host",
    );
    // Who joined lives on, and cannot be joined through the one that has gone.
    let web_id = host.inspect("web")["Id"].as_str().unwrap().to_owned();
    run(&host, "stop -t 0 web");
    run(&host, "exec side true");
    refuses(
        &host,
        "run --rm --network container:web busybox true",
        125,
        &format!("cannot join network of a non running container: {web_id}"),
    );
    refuses(
        &host,
        "run --rm --network container:nope busybox true",
        125,
        "No such container: nope",
    );
    for (options, text) in [
        (
            "-p 80:80",
            "conflicting options: port publishing and the container type network mode",
        ),
        (
            "-P",
            "conflicting options: port publishing and the container type network mode",
        ),
        (
            "--expose 80",
            "conflicting options: port exposing and the container type network mode",
        ),
        ("-h x", "conflicting options: hostname and the network mode"),
        (
            "--dns 1.1.1.1",
            "conflicting options: dns and the network mode",
        ),
        (
            "--add-host a:1.1.1.1",
            "conflicting options: custom host-to-IP mapping and the network mode",
        ),
        (
            "--mac-address 02:42:00:00:00:01",
            "conflicting options: mac-address and the network mode",
        ),
        (
            "--ip 10.57.0.9",
            "user specified IP address is supported on user defined networks only",
        ),
    ] {
        let line = format!("run --rm --network container:side {options} busybox true");
        refuses(&host, &line, 125, text);
    }
    refuses(
        &host,
        "run --rm --network container: busybox true",
        125,
        "Invalid network mode: invalid container format container:<name|id>",
    );
}

#[test]
fn a_container_that_joined_the_hosts_network_by_another_does_not_change_it() {
    let host = Host::new();
    run(
        &host,
        "run -d --name first --network host busybox sleep 1000",
    );
    let before = host
        .tool("sysctl", ["-n", "net.ipv4.ip_unprivileged_port_start"])
        .stdout;
    run(
        &host,
        "run -d --name second --network container:first busybox sleep 1000",
    );
    let id = Netns::of_process(host.pid_of("second")).unwrap().id();
    assert_eq!(id, host.netns.id());
    let after = host
        .tool("sysctl", ["-n", "net.ipv4.ip_unprivileged_port_start"])
        .stdout;
    assert_eq!(before, after);
}

#[test]
fn a_killed_monitor_is_replaced_with_its_names_and_ports() {
    let host = Host::new();
    run(&host, "network create --subnet 10.58.0.0/24 n1");
    run(&host, "run -d --name peer --network n1 busybox sleep 1000");
    let id = host.start_web("web", "--network n1 -p 8080:80");
    let peer = host.address_of("peer");
    finds(&host, "web", "peer", &peer);
    let monitor = host.monitor_of(&id).expect("a monitor");
    host.tool("kill", ["-9", &monitor.to_string()]).ok();
    eventually("another monitor", || {
        host.run("ps");
        host.monitor_of(&id)
            .filter(|pid| *pid != monitor)
            .ok_or("none yet")
    });
    finds(&host, "web", "peer", &peer);
    served(&host.netns, "127.0.0.1:8080");
    // It follows its networks, too.
    run(&host, "network connect bridge web");
    run(&host, "network disconnect n1 web");
    served(&host.netns, "127.0.0.1:8080");
}

#[test]
fn resolver_options_reach_the_container() {
    let host = Host::new();
    run(&host, "network create --subnet 10.59.0.0/24 n1");
    let options =
        "--dns 192.0.2.2 --dns-search a.example --dns-option ndots:3 --dns-opt attempts:1";
    let read = "busybox cat /etc/resolv.conf";
    assert_eq!(
        run(&host, &format!("run --rm {options} {read}")).stdout,
        "search a.example\nnameserver 192.0.2.2\noptions ndots:3 attempts:1\n"
    );
    assert_eq!(
        run(&host, &format!("run --rm --network n1 {options} {read}")).stdout,
        "search a.example\nnameserver 127.0.0.11\noptions ndots:3 attempts:1\n"
    );
    let hosts = run(
        &host,
        "run --rm --network n1 --add-host h:host-gateway --add-host v:fd00::1 busybox cat /etc/hosts",
    );
    assert!(
        hosts.stdout.contains("\n10.59.0.1\th\nfd00::1\tv\n"),
        "{hosts}"
    );
    run(&host, &format!("create --name c1 {options} busybox true"));
    assert_eq!(
        host.inspect("c1")["HostConfig"]["DnsOptions"],
        serde_json::json!(["ndots:3", "attempts:1"])
    );
}

#[test]
fn exposed_ports_are_published_all_at_once() {
    let host = Host::new();
    host.start_web("web", "-P --expose 80 --expose 90-92/udp -p 8081:81");
    let all = run(&host, "port web").stdout;
    assert_eq!(all.lines().count(), 10, "{all}");
    assert!(all.contains("81/tcp -> 0.0.0.0:8081\n"), "{all}");
    let at = run(&host, "port web 80").stdout;
    let port = at
        .lines()
        .next()
        .unwrap()
        .strip_prefix("0.0.0.0:")
        .unwrap()
        .to_owned();
    served(&host.neighbour, &format!("192.0.2.1:{port}"));
    served(&host.netns, &format!("127.0.0.1:{port}"));
    let web = host.inspect("web");
    assert_eq!(web["HostConfig"]["PublishAllPorts"], true);
    assert_eq!(
        web["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"],
        port
    );
    assert!(run(&host, "port web 91/udp").stdout.starts_with("0.0.0.0:"));
    refuses(
        &host,
        "port web 5000",
        1,
        "Error: No public port '5000' published for web",
    );
    for (port, text) in [
        ("80:81", "invalid port format for --expose: 80:81"),
        (
            "zz",
            "invalid range format for --expose: zz, error: strconv.ParseUint: parsing \"zz\": invalid syntax",
        ),
    ] {
        refuses(
            &host,
            &format!("run --rm --expose {port} busybox true"),
            125,
            text,
        );
    }
    run(&host, "create --name quiet --expose 7000 busybox true");
    assert_eq!(
        host.inspect("quiet")["Config"]["ExposedPorts"],
        serde_json::json!({"7000/tcp": {}})
    );
}

#[test]
fn networks_are_created_with_everything_and_show_it() {
    let host = Host::new();
    run(
        &host,
        "network create --ipv6 --subnet fd00:60::/64 --subnet 10.60.0.0/16 --gateway 10.60.0.7 --gateway fd00:60::7 \
         --ip-range 10.60.5.0/24 --ip-range fd00:60::100/120 --aux-address a=10.60.5.1 --aux-address b=fd00:60::3 \
         -o com.docker.network.bridge.trusted_host_interfaces=eth0 \
         -o com.docker.network.bridge.gateway_mode_ipv4=nat-unprotected \
         --label k=v --attachable --scope local --ipam-driver default --internal both",
    );
    let both = run(&host, "network inspect both").json()[0].take();
    assert_eq!(both["EnableIPv6"], true);
    assert_eq!(both["Internal"], true);
    assert_eq!(both["Labels"]["k"], "v");
    assert_eq!(
        both["Options"]["com.docker.network.bridge.trusted_host_interfaces"],
        "eth0"
    );
    assert_eq!(
        both["IPAM"]["Config"],
        serde_json::json!([
            {
                "Subnet": "10.60.0.0/16", "IPRange": "10.60.5.0/24", "Gateway": "10.60.0.7",
                "AuxiliaryAddresses": {"a": "10.60.5.1"},
            },
            {
                "Subnet": "fd00:60::/64", "IPRange": "fd00:60::100/120", "Gateway": "fd00:60::7",
                "AuxiliaryAddresses": {"b": "fd00:60::3"},
            },
        ])
    );
    let id = run(
        &host,
        "run -d --name c1 --network both --ip6 fd00:60::55 busybox sleep 1000",
    );
    let places = run(&host, "network inspect both").json()[0]["Containers"].take();
    let place = &places[id.text()];
    assert_eq!(place["IPv6Address"], "fd00:60::55/64");
    let address = place["IPv4Address"].as_str().unwrap();
    assert!(
        address.starts_with("10.60.5.") && address != "10.60.5.1/16",
        "{address}"
    );
    let row = run(
        &host,
        "network ls --filter label=k=v --format {{.Name}}:{{.IPv6}}:{{.Internal}}",
    );
    assert_eq!(row.text(), "both:true:true");
    for (options, text) in [
        ("-d foo", "plugin \"foo\" not found"),
        (
            "-d host",
            "only one instance of \"host\" network is allowed",
        ),
        ("--ipam-driver foo", "plugin \"foo\" not found"),
        ("--scope swarm", "a network's scope is local"),
        (
            "--subnet zz",
            "Invalid subnet zz : invalid CIDR address: zz",
        ),
        (
            "--subnet 10.61.0.0/16 --subnet 10.62.0.0/16",
            "bridge driver doesn't support multiple subnets",
        ),
        (
            "--gateway 10.61.0.1",
            "every ip-range or gateway must have a corresponding subnet",
        ),
        (
            "--subnet 10.61.0.0/16 --gateway 10.9.0.1",
            "no matching subnet for gateway 10.9.0.1",
        ),
        (
            "--subnet 10.61.0.0/16 --ip-range 10.9.0.0/24",
            "no matching subnet for range 10.9.0.0/24",
        ),
        (
            "--subnet 10.61.0.0/16 --aux-address a=10.9.0.1",
            "no matching subnet for aux-address 10.9.0.1",
        ),
    ] {
        refuses(&host, &format!("network create {options} n"), 1, text);
    }
    refuses(
        &host,
        "network ls --filter foo=bar",
        1,
        "Invalid filter 'foo'",
    );
}

#[test]
fn unused_networks_are_pruned() {
    let host = Host::new();
    run(&host, "network create --label keep=yes kept");
    run(&host, "network create used");
    run(&host, "network create idle");
    run(&host, "run -d --name c1 --network used busybox sleep 1000");
    run(&host, "network prune -f --filter until=1h").says("");
    refuses(
        &host,
        "network prune -f --filter foo=1h",
        1,
        "Invalid filter 'foo'",
    );
    // Without the word nothing happens.
    let asked = host
        .command(["network", "prune"])
        .stdin("n\n")
        .run_in(&host.netns)
        .ok();
    assert!(
        asked
            .stdout
            .starts_with("WARNING! This will remove all custom networks"),
        "{asked}"
    );
    assert!(host.run("network ls").stdout.contains("idle"));
    let pruned = run(&host, "network prune -f --filter label!=keep");
    assert_eq!(pruned.stdout, "Deleted Networks:\nidle\n\n");
    let asked = host
        .command(["network", "prune"])
        .stdin("y\n")
        .run_in(&host.netns)
        .ok();
    assert!(
        asked.stdout.ends_with("Deleted Networks:\nkept\n\n"),
        "{asked}"
    );
    let names = run(&host, "network ls --format {{.Name}}");
    assert_eq!(names.stdout, "bridge\nhost\nnone\nused\n");
}

#[test]
fn reload_brings_back_the_rules_of_a_published_port() {
    let host = Host::new();
    run(&host, "network create n1");
    host.start_web("web", "--network n1 -p 8080:80");
    served(&host.neighbour, "192.0.2.1:8080");
    // The proxy would answer, too: that the kernel forwards again is seen by its rules.
    let rules = || {
        host.tool("iptables", ["-t", "nat", "-S", "CORACLE"])
            .ok()
            .stdout
    };
    let before = rules();
    assert!(before.contains("--dport 8080"), "{before}");
    host.tool("iptables", ["-t", "nat", "-F"]).ok();
    assert!(!rules().contains("--dport 8080"));
    refuses(&host, "network reload nope", 1, "network nope not found");
    run(&host, "network reload n1").says("");
    assert_eq!(rules(), before);
    served(&host.neighbour, "192.0.2.1:8080");
    run(&host, "network reload");
}

#[test]
fn the_configuration_file_stands_below_options() {
    let host = Host::new();
    let path = host.folder().join("config.toml");
    let config = |text: &str| std::fs::write(&path, text).unwrap();
    let with = |words: &[&str]| {
        let file = path.to_str().unwrap();
        host.coracle([&["--config", file], words].concat())
    };
    config(
        "ip = \"127.0.0.1\"\nfirewall = \"none\"\n\
         default-address-pools = [{base = \"10.77.0.0/16\", size = 26}]\n",
    );
    assert_eq!(with(&["info", "-f", "{{.Firewall}}"]).ok().text(), "none");
    assert_eq!(
        with(&["--firewall", "iptables", "info", "-f", "{{.Firewall}}"])
            .ok()
            .text(),
        "iptables"
    );
    let by_environment = host
        .command(["info", "-f", "{{.Firewall}}"])
        .env("CORACLE_CONFIG", &path)
        .run_in(&host.netns);
    assert_eq!(by_environment.ok().text(), "none");
    config("ip = \"127.0.0.1\"\ndefault-address-pools = [{base = \"10.77.0.0/16\", size = 26}]\n");
    with(&["network", "create", "n1"]).ok();
    let subnet = host.run("network inspect n1").json()[0]["IPAM"]["Config"][0]["Subnet"].take();
    let subnet = subnet.as_str().unwrap();
    assert!(
        subnet.starts_with("10.77.0.") && subnet.ends_with("/26"),
        "{subnet}"
    );
    with(&[
        "run", "-d", "--name", "c1", "-p", "8080:80", "busybox", "sleep", "1000",
    ])
    .ok();
    assert_eq!(host.run("port c1").text(), "80/tcp -> 127.0.0.1:8080");
    config("\nfirewal = \"none\"\n");
    let refused = with(&["ps"]).exits(1);
    let refused = refused.complains("line 2: unknown field `firewal`");
    assert!(refused.stderr.contains("config.toml"), "{refused}");
    host.coracle(["--config", "/nonexistent/config.toml", "ps"])
        .exits(1)
        .complains("cannot read /nonexistent/config.toml: no such file or directory");
}

#[test]
fn info_tells_the_firewalls_make() {
    let host = Host::new();
    let info = host.run("info").stdout;
    let line = info
        .lines()
        .find(|line| line.starts_with("Firewall: "))
        .unwrap();
    let version = host.tool("iptables-restore", ["--version"]).stdout;
    let flavour = version.split(['(', ')']).nth(1).unwrap_or("legacy");
    assert!(
        line.starts_with("Firewall: iptables (/") && line.contains(flavour),
        "{line}"
    );
    assert_eq!(host.run("info -f {{.FirewallFlavour}}").text(), flavour);
    assert_eq!(
        host.run("--firewall none info -f {{.Firewall}}").text(),
        "none"
    );
}
