//! What others do to a host: each by the command that does it, and by the words in which the doctor must name it.

use crate::town::Town;

pub struct Damage {
    pub name: &'static str,
    /// Program and arguments; `WEB` stands for the web server's veth on network `both`, `RULES` for the file of rules.
    pub commands: Vec<String>,
    /// Words of one line of the doctor's.
    pub named: &'static [&'static str],
    /// The chain of the administrator goes with it.
    pub takes_users_chain: bool,
}

fn damage(name: &'static str, commands: &[&str], named: &'static [&'static str]) -> Damage {
    Damage {
        name,
        commands: commands.iter().map(|&line| line.to_owned()).collect(),
        named,
        takes_users_chain: false,
    }
}

/// What firewalld writes on a reload, with our bridges in its trusted zone: a table of its own, at another priority, whose
/// forward chain drops what nobody has accepted.
const FIREWALLD: &str = "table inet firewalld
delete table inet firewalld
table inet firewalld {
 chain filter_FORWARD {
  type filter hook forward priority 10; policy drop;
  ct state established,related accept
  ct status dnat accept
  iifname { \"coracle0\", \"cr-both\", \"cr-four\", \"cr-inner\" } accept
  oifname { \"coracle0\", \"cr-both\", \"cr-four\", \"cr-inner\" } accept
 }
}
";

impl Damage {
    pub fn inflict(&self, town: &Town) {
        let file = town.host.folder().join("rules.nft");
        std::fs::write(&file, FIREWALLD).expect("write rules");
        for line in &self.commands {
            let line = line
                .replace("WEB", &town.web_veth())
                .replace("RULES", &file.display().to_string());
            let mut words = line.split(' ');
            let program = words.next().expect("a program");
            town.host.tool(program, words).ok();
        }
    }
}

pub fn all(firewall: &str) -> Vec<Damage> {
    let mut all = match firewall {
        "iptables" => of_iptables(),
        _ => of_nftables(),
    };
    // In turns: whoever undoes the same again and again makes the watch back off.
    let mut links = of_links().into_iter();
    let rules = std::mem::take(&mut all);
    for damage in rules {
        all.push(damage);
        all.extend(links.next());
    }
    all.extend(links);
    all
}

fn of_iptables() -> Vec<Damage> {
    let flush = |tool: &str| -> Vec<String> {
        ["filter", "nat", "raw"]
            .map(|table| format!("{tool} -t {table} -F"))
            .into()
    };
    let flush_and_load = [
        flush("iptables"),
        flush("ip6tables"),
        vec!["nft -f RULES".to_owned()],
    ];
    vec![
        Damage {
            commands: flush("iptables"),
            takes_users_chain: true,
            ..damage(
                "iptables -F",
                &[],
                &["table filter, chain CORACLE-FORWARD", "missing"],
            )
        },
        Damage {
            commands: flush("ip6tables"),
            ..damage(
                "ip6tables -F",
                &[],
                &["ip6tables: table filter, chain CORACLE-FORWARD", "missing"],
            )
        },
        Damage {
            takes_users_chain: true,
            ..damage(
                "nft flush ruleset",
                &["nft flush ruleset"],
                &["table filter, chain CORACLE-ISOLATION-STAGE-1: the chain is missing"],
            )
        },
        Damage {
            commands: flush_and_load.concat(),
            takes_users_chain: true,
            ..damage(
                "firewalld reload",
                &[],
                &["table nat, chain CORACLE", "container web", "missing"],
            )
        },
        damage(
            "one rule deleted",
            &["iptables -F CORACLE-ISOLATION-STAGE-2"],
            &["chain CORACLE-ISOLATION-STAGE-2", "missing"],
        ),
    ]
}

fn of_nftables() -> Vec<Damage> {
    vec![
        Damage {
            takes_users_chain: true,
            ..damage(
                "nft flush ruleset",
                &["nft flush ruleset"],
                &["nftables: table inet coracle is missing"],
            )
        },
        Damage {
            takes_users_chain: true,
            ..damage(
                "flush table",
                &["nft flush table inet coracle"],
                &["nftables: a rule of chain forward is missing"],
            )
        },
        damage(
            "delete element",
            &["nft delete element inet coracle dnat4 { tcp . 8080 }"],
            &[
                "nftables: element tcp . 8080 of map dnat4 is missing",
                "web",
            ],
        ),
        damage(
            "flush map",
            &["nft flush map inet coracle dnat6"],
            &["nftables: element", "of map dnat6 is missing"],
        ),
        damage(
            "delete chain",
            &[
                "nft flush chain inet coracle postrouting-nat",
                "nft delete chain inet coracle postrouting-nat",
            ],
            &["nftables: chain postrouting-nat is missing"],
        ),
        Damage {
            takes_users_chain: true,
            ..damage(
                "firewalld reload",
                &["nft flush ruleset", "nft -f RULES"],
                &["nftables: table inet coracle is missing"],
            )
        },
        damage(
            "FORWARD drops",
            &["iptables -P FORWARD DROP", "ip6tables -P FORWARD DROP"],
            &["table filter, chain FORWARD", "missing"],
        ),
        damage(
            "passage flushed",
            &["iptables -F FORWARD", "ip6tables -F FORWARD"],
            &["table filter, chain FORWARD", "missing"],
        ),
    ]
}

/// The same whatever the firewall.
fn of_links() -> Vec<Damage> {
    vec![
        damage(
            "bridge deleted",
            &["ip link del cr-both"],
            &["bridge cr-both of network both is missing"],
        ),
        damage(
            "all bridges deleted",
            &[
                "ip link del cr-both",
                "ip link del cr-four",
                "ip link del cr-inner",
                "ip link del coracle0",
            ],
            &["bridge cr-four of network four is missing"],
        ),
        damage(
            "bridge down",
            &["ip link set cr-both down"],
            &["bridge cr-both of network both is down"],
        ),
        damage(
            "addresses removed",
            &[
                "ip -4 address flush dev cr-both",
                "ip -6 address flush dev cr-both",
            ],
            &["bridge cr-both of network both lacks the address"],
        ),
        damage(
            "veth without bridge",
            &["ip link set WEB nomaster"],
            &["of container web on network both is not a port of bridge cr-both"],
        ),
        damage(
            "veth deleted",
            &["ip link del WEB"],
            &["of container web on network both is missing"],
        ),
        damage(
            "ip_forward=0",
            &["sysctl -q -w net.ipv4.ip_forward=0"],
            &["net.ipv4.ip_forward is 0"],
        ),
        damage(
            "v6 forwarding=0",
            &["sysctl -q -w net.ipv6.conf.all.forwarding=0"],
            &["net.ipv6.conf.all.forwarding is 0"],
        ),
        damage(
            "ports no longer reserved",
            &["sysctl -q -w net.ipv4.ip_local_reserved_ports="],
            &["ports 20000-29999 are published and not kept from ephemeral use"],
        ),
    ]
}
