//! Forwarding, the policy of FORWARD, and how the host gets both back.

mod kernel_support;

use std::fs;

use std::net::SocketAddrV6;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use kernel_support::{on_a_host, run, run_inside};
use netmgr::Family;
use netmgr::Firewall;
use netmgr::kernel::{Error, commands, host, netns};
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket, sockopt};

fn policy() -> String {
    policy_in(&run("iptables-save -t filter"))
}

fn policy6() -> String {
    policy_in(&run("ip6tables-save -t filter"))
}

fn policy_in(table: &str) -> String {
    let line = table.lines().find(|line| line.starts_with(":FORWARD"));
    line.map(|line| line.split_whitespace().nth(1).unwrap().to_owned())
        .unwrap_or_else(|| "ACCEPT".into())
}

#[test]
fn forwarding_comes_with_policy_drop_and_both_go_back() {
    on_a_host(|| {
        let root = tempfile::tempdir().unwrap();
        // Not there yet, as after a boot.
        let run_root = root.path().join("run/coracle");
        run("iptables -A FORWARD -s 192.0.2.1 -j ACCEPT");
        assert!(!host::forwarding_enabled(Family::V4).unwrap());
        assert!(host::enable_forwarding(Family::V4, &run_root, Firewall::Iptables).unwrap());
        assert!(host::forwarding_enabled(Family::V4).unwrap());
        assert_eq!(policy(), "DROP");
        run("iptables -C FORWARD -s 192.0.2.1 -j ACCEPT");

        assert!(
            !host::enable_forwarding(Family::V4, &run_root, Firewall::Iptables).unwrap(),
            "changed twice"
        );
        host::restore(&run_root).unwrap();
        assert!(!host::forwarding_enabled(Family::V4).unwrap());
        assert_eq!(policy(), "ACCEPT");
        run("iptables -C FORWARD -s 192.0.2.1 -j ACCEPT");
        assert_eq!(fs::read_dir(&run_root).unwrap().count(), 0);
        host::restore(&run_root).unwrap();
    });
}

#[test]
fn host_that_forwards_already_keeps_its_settings() {
    on_a_host(|| {
        let root = tempfile::tempdir().unwrap();
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        assert!(!host::enable_forwarding(Family::V4, root.path(), Firewall::Iptables).unwrap());
        assert_eq!(policy(), "ACCEPT");
        host::restore(root.path()).unwrap();
        assert!(host::forwarding_enabled(Family::V4).unwrap());
    });
}

#[test]
fn without_a_firewall_only_forwarding_changes() {
    on_a_host(|| {
        let root = tempfile::tempdir().unwrap();
        host::enable_forwarding(Family::V4, root.path(), Firewall::None).unwrap();
        assert!(host::forwarding_enabled(Family::V4).unwrap());
        assert_eq!(run("iptables-save"), "");
        run("iptables -P FORWARD DROP");
        host::restore(root.path()).unwrap();
        assert!(!host::forwarding_enabled(Family::V4).unwrap());
        assert_eq!(policy(), "DROP", "not ours to put back");
    });
}

#[test]
fn policies_of_the_administrator_stay() {
    on_a_host(|| {
        let root = tempfile::tempdir().unwrap();
        run("iptables -P FORWARD DROP");
        host::enable_forwarding(Family::V4, root.path(), Firewall::Iptables).unwrap();
        host::restore(root.path()).unwrap();
        assert_eq!(policy(), "DROP", "it was DROP before us");

        run("iptables -P FORWARD ACCEPT");
        host::enable_forwarding(Family::V4, root.path(), Firewall::Iptables).unwrap();
        run("iptables -P FORWARD ACCEPT");
        host::restore(root.path()).unwrap();
        assert_eq!(policy(), "ACCEPT");
    });
}

#[test]
fn change_cut_short_is_finished_and_still_goes_back() {
    on_a_host(|| {
        let root = tempfile::tempdir().unwrap();
        // Killed after the policy was set and before forwarding was: the memory is from before both.
        host::enable_forwarding(Family::V4, root.path(), Firewall::Iptables).unwrap();
        fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        assert!(host::enable_forwarding(Family::V4, root.path(), Firewall::Iptables).unwrap());
        assert_eq!(policy(), "DROP");
        host::restore(root.path()).unwrap();
        assert_eq!(policy(), "ACCEPT");
        assert!(!host::forwarding_enabled(Family::V4).unwrap());
    });
}

#[test]
fn batch_leaves_other_rules_alone_and_a_refused_one_says_where() {
    on_a_host(|| {
        run("iptables -t nat -A OUTPUT -d 192.0.2.1 -j RETURN");
        commands::restore("*nat\n:MINE - [0:0]\n-A OUTPUT -j MINE\nCOMMIT\n").unwrap();
        let nat = commands::save(Family::V4, "nat").unwrap();
        assert!(nat.contains("-d 192.0.2.1/32 -j RETURN"), "{nat}");
        assert!(nat.contains("-A OUTPUT -j MINE"), "{nat}");
        // A rule that only the commit finds wrong is complained of there.
        let refused = [
            ("-A NOWHERE -j MINE", "-A NOWHERE -j MINE"),
            ("-A MINE -p nonsense", "-A MINE -p nonsense"),
            ("-A MINE -j NOWHERE", "COMMIT"),
        ];
        for (bad, complained) in refused {
            let batch = format!("*nat\n-A MINE -j RETURN\n{bad}\nCOMMIT\n");
            match commands::restore(&batch).unwrap_err() {
                Error::CommandFailed { line, stderr, .. } => {
                    assert_eq!(line.as_deref(), Some(complained), "{stderr}");
                    assert!(!stderr.is_empty());
                }
                other => panic!("{other}"),
            }
            assert_eq!(
                commands::save(Family::V4, "nat")
                    .unwrap()
                    .matches("MINE -j")
                    .count(),
                0
            );
        }
    });
}

fn sysctl(name: &str) -> String {
    let text = fs::read_to_string(Path::new("/proc/sys/net/ipv6/conf").join(name)).unwrap();
    text.trim().to_owned()
}

fn set_sysctl(name: &str, value: &str) {
    fs::write(Path::new("/proc/sys/net/ipv6/conf").join(name), value).unwrap();
}

#[test]
fn ipv6_is_turned_on_and_restored_apart_from_ipv4() {
    on_a_host(|| {
        let root = tempfile::tempdir().unwrap();
        let enable = |family| host::enable_forwarding(family, root.path(), Firewall::Iptables);
        let on = |family| host::forwarding_enabled(family).unwrap();
        assert!(enable(Family::V6).unwrap());
        assert!(on(Family::V6) && !on(Family::V4));
        assert_eq!((policy6(), policy()), ("DROP".into(), "ACCEPT".into()));
        let told = host::turned_on(root.path()).unwrap();
        assert!(told.v6 && !told.v4);

        assert!(enable(Family::V4).unwrap());
        assert!(!enable(Family::V6).unwrap(), "changed twice");
        host::restore_family(Family::V6, root.path()).unwrap();
        assert!(!on(Family::V6) && on(Family::V4));
        assert_eq!((policy6(), policy()), ("ACCEPT".into(), "DROP".into()));

        assert!(enable(Family::V6).unwrap());
        host::restore_family(Family::V4, root.path()).unwrap();
        assert!(on(Family::V6) && !on(Family::V4));
        assert!(enable(Family::V4).unwrap());
        host::restore(root.path()).unwrap();
        assert!(!on(Family::V6) && !on(Family::V4));
        assert_eq!((policy6(), policy()), ("ACCEPT".into(), "ACCEPT".into()));
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        assert_eq!(
            host::turned_on(root.path()).unwrap(),
            netmgr::firewall::nftables::Guard::default()
        );
    });
}

#[test]
fn interfaces_go_on_listening_to_router_advertisements() {
    on_a_host(|| {
        let root = tempfile::tempdir().unwrap();
        for name in ["listens", "deaf", "forwards"] {
            run(&format!("ip link add {name} type veth peer name {name}0"));
            run(&format!("ip link set {name} up"));
        }
        set_sysctl("deaf/accept_ra", "0");
        set_sysctl("forwards/forwarding", "1");
        let all = || {
            ["listens", "deaf", "forwards"].map(|name| {
                let of = |setting: &str| sysctl(&format!("{name}/{setting}"));
                (of("accept_ra"), of("forwarding"))
            })
        };
        let before = all();
        assert_eq!(before[0], ("1".into(), "0".into()));
        host::enable_forwarding(Family::V6, root.path(), Firewall::None).unwrap();
        let pair = |ra: &str, forwarding: &str| (ra.to_owned(), forwarding.to_owned());
        assert_eq!(all(), [pair("2", "1"), pair("0", "1"), pair("1", "1")]);
        host::restore(root.path()).unwrap();
        assert_eq!(all(), before);

        // Whoever has set one since then has the last word; an interface may be gone.
        host::enable_forwarding(Family::V6, root.path(), Firewall::None).unwrap();
        set_sysctl("listens/accept_ra", "0");
        run("ip link delete forwards");
        host::restore(root.path()).unwrap();
        assert_eq!(sysctl("listens/accept_ra"), "0");
        assert!(!host::forwarding_enabled(Family::V6).unwrap());
    });
}

/// One router advertisement to all nodes, by the calling thread's namespace: a default route for half an hour.
fn advertise(interface: &str) {
    let socket = socket(AddressFamily::INET6, SocketType::RAW, Some(ipproto::ICMPV6)).unwrap();
    // Anything less has come from elsewhere (RFC 4861, 6.1.2).
    sockopt::set_ipv6_multicast_hops(&socket, 255).unwrap();
    let [high, low] = 1800u16.to_be_bytes();
    let message = [134, 0, 0, 0, 64, 0, high, low, 0, 0, 0, 0, 0, 0, 0, 0];
    let index = nix::net::if_::if_nametoindex(interface).unwrap();
    let all = SocketAddrV6::new("ff02::1".parse().unwrap(), 0, 0, index);
    sendto(&socket, &message, SendFlags::empty(), &all).unwrap();
}

/// The kernel forgets what it learnt from routers when it begins to forward, and learns nothing any more, unless the
/// interface is told to listen all the same.
#[test]
fn default_route_that_a_router_gave_survives() {
    on_a_host(|| {
        let root = tempfile::tempdir().unwrap();
        let router = netns::create().unwrap();
        run("ip link add uplink type veth peer name faces");
        let fd = router.0.as_raw_fd();
        run(&format!(
            "ip link set faces netns /proc/{}/fd/{fd}",
            std::process::id()
        ));
        run("ip link set uplink up");
        run_inside(&router, "ip link set faces addrgenmode none up");
        run_inside(&router, "ip address add fe80::1/64 dev faces nodad");
        let learns = || {
            let deadline = Instant::now() + Duration::from_secs(5);
            while !run("ip -6 route show default").contains("via fe80::1") {
                assert!(Instant::now() < deadline, "no route was learnt");
                // Again each time: the first may come before the interface is ready.
                netns::run_in(&router, || advertise("faces")).unwrap();
                std::thread::sleep(Duration::from_millis(20));
            }
        };
        learns();
        host::enable_forwarding(Family::V6, root.path(), Firewall::None).unwrap();
        let routes = run("ip -6 route show default");
        assert!(
            routes.contains("via fe80::1"),
            "the route was lost: {routes:?}"
        );
        run("ip -6 route delete default");
        learns();
        host::restore(root.path()).unwrap();
        let routes = run("ip -6 route show default");
        assert!(
            routes.contains("via fe80::1"),
            "the route was lost: {routes:?}"
        );
    });
}

#[test]
fn nftables_sets_no_policy_and_tells_that_forwarding_was_turned_on() {
    on_a_host(|| {
        let root = tempfile::tempdir().unwrap();
        for family in [Family::V4, Family::V6] {
            assert!(host::enable_forwarding(family, root.path(), Firewall::Nftables).unwrap());
        }
        assert_eq!(run("nft list tables"), "");
        let told = host::turned_on(root.path()).unwrap();
        assert!(told.v4 && told.v6);
        host::restore(root.path()).unwrap();
        assert_eq!(run("nft list tables"), "");
    });
}

#[test]
fn memory_of_an_older_version_goes_back() {
    on_a_host(|| {
        let root = tempfile::tempdir().unwrap();
        let old = r#"{"ip_forward":false,"forward_policy":"ACCEPT"}"#;
        fs::write(root.path().join("host.json"), old).unwrap();
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        run("iptables -P FORWARD DROP");
        assert!(host::enable_forwarding(Family::V6, root.path(), Firewall::Iptables).unwrap());
        host::restore(root.path()).unwrap();
        assert_eq!(policy(), "ACCEPT");
        assert!(!host::forwarding_enabled(Family::V4).unwrap());
        assert!(!root.path().join("host.json").exists());
    });
}
