//! Forwarding, the policy of FORWARD, and how the host gets both back.

mod kernel_support;

use std::fs;

use kernel_support::{on_a_host, run};
use netmgr::Family;
use netmgr::Firewall;
use netmgr::kernel::{Error, commands, host};

fn policy() -> String {
    let table = run("iptables-save -t filter");
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
        let nat = commands::save("nat").unwrap();
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
            assert_eq!(commands::save("nat").unwrap().matches("MINE -j").count(), 0);
        }
    });
}
