//! The sets, chains and rules of our table: the same on every host, whatever the model.
//!
//! A rule's text is also the form in which [`super::decompile`] gives back what the kernel holds.

/// The table that is ours alone.
pub const TABLE: &str = "coracle";
pub const FAMILY: &str = "inet";

/// The administrator's chain: created once, called first of all in `forward`, never flushed.
pub const USER_CHAIN: &str = "CORACLE-USER";

/// A set, or a map where it has data.
pub(super) struct SetDef {
    pub(super) name: &'static str,
    /// The types of the key, one for each part of a concatenation.
    pub(super) key: &'static [&'static str],
    pub(super) data: Option<&'static str>,
    /// Whether keys may hold runs of ports and subnets.
    pub(super) interval: bool,
}

pub(super) struct ChainDef {
    pub(super) name: &'static str,
    /// `None`: called from other chains.
    pub(super) hook: Option<Hook<&'static str>>,
    pub(super) rules: &'static [RuleDef],
}

/// A rule's text and its intent.
pub(super) struct RuleDef(pub(super) &'static str, pub(super) &'static str);

/// Where a base chain hangs. All have the policy accept: what we do not know is not ours to drop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook<T> {
    pub kind: T,
    pub hook: T,
    pub priority: i64,
}

const fn set(name: &'static str, key: &'static [&'static str]) -> SetDef {
    SetDef {
        name,
        key,
        data: None,
        interval: false,
    }
}

const fn interval(name: &'static str, key: &'static [&'static str]) -> SetDef {
    SetDef {
        interval: true,
        ..set(name, key)
    }
}

const fn map(name: &'static str, key: &'static [&'static str], data: &'static str) -> SetDef {
    SetDef {
        data: Some(data),
        ..set(name, key)
    }
}

const fn interval_map(
    name: &'static str,
    key: &'static [&'static str],
    data: &'static str,
) -> SetDef {
    SetDef {
        interval: true,
        ..map(name, key, data)
    }
}

const PORT: &[&str] = &["inet_proto", "inet_service"];
const PORT_AT4: &[&str] = &["ipv4_addr", "inet_proto", "inet_service"];
const PORT_AT6: &[&str] = &["ipv6_addr", "inet_proto", "inet_service"];
const BRIDGE_NET4: &[&str] = &["ifname", "ipv4_addr"];
const BRIDGE_NET6: &[&str] = &["ifname", "ipv6_addr"];
/// The family is there for the sake of the concatenation: the kernel keeps intervals of several fields in a structure
/// (`nft_set_pipapo`) whose look-ups do not grow with their number, those of one field in a tree; and `nft` reads every
/// element of the latter before it adds one.
const NET4: &[&str] = &["nf_proto", "ipv4_addr"];
const NET6: &[&str] = &["nf_proto", "ipv6_addr"];

pub(super) const SETS: &[SetDef] = &[
    // The bridges of all networks.
    set("bridges", &["ifname"]),
    // Those whose containers use published ports by way of the proxy: all but internal ones.
    set("proxied", &["ifname"]),
    set("internal", &["ifname"]),
    // A bridge with itself: whether its containers reach each other.
    map("inside", &["ifname", "ifname"], "verdict"),
    // Networks of the mode nat-unprotected, by family.
    set("open", &["nf_proto", "ifname"]),
    // The families for which the engine itself turned forwarding on.
    set("guarded", &["nf_proto"]),
    // A bridge and its subnet.
    interval("home4", BRIDGE_NET4),
    interval("home6", BRIDGE_NET6),
    // Every subnet; those that cannot be reached by a route; those that leave under the host's address.
    interval("subnets4", NET4),
    interval("subnets6", NET6),
    interval("closed4", NET4),
    interval("closed6", NET6),
    interval("masquerade4", NET4),
    interval("masquerade6", NET6),
    // An interface of the host and a subnet that it reaches by a route.
    interval("trusted4", BRIDGE_NET4),
    interval("trusted6", BRIDGE_NET6),
    set("gateways4", &["ipv4_addr"]),
    set("gateways6", &["ipv6_addr"]),
    // Host ports to containers: on every address, on one address (`-at`), in runs of equal ports (`runs`).
    map("dnat4", PORT, "ipv4_addr . inet_service"),
    map("dnat6", PORT, "ipv6_addr . inet_service"),
    map("dnat-at4", PORT_AT4, "ipv4_addr . inet_service"),
    map("dnat-at6", PORT_AT6, "ipv6_addr . inet_service"),
    interval_map("runs4", PORT, "ipv4_addr"),
    interval_map("runs6", PORT, "ipv6_addr"),
    interval_map("runs-at4", PORT_AT4, "ipv4_addr"),
    interval_map("runs-at6", PORT_AT6, "ipv6_addr"),
    // Runs of host ports to the one listener that the proxy has for them.
    interval_map("listeners4", PORT, "inet_service"),
    interval_map("listeners6", PORT, "inet_service"),
    interval_map("listeners-at4", PORT_AT4, "inet_service"),
    interval_map("listeners-at6", PORT_AT6, "inet_service"),
    // The containers' side of published ports.
    set("published4", PORT_AT4),
    set("published6", PORT_AT6),
    interval("published-runs4", PORT_AT4),
    interval("published-runs6", PORT_AT6),
    // Ports published on a loopback address.
    set("loopback4", PORT_AT4),
    set("loopback6", PORT_AT6),
    interval("loopback-runs4", PORT_AT4),
    interval("loopback-runs6", PORT_AT6),
];

const fn base(
    name: &'static str,
    kind: &'static str,
    hook: &'static str,
    priority: i64,
    rules: &'static [RuleDef],
) -> ChainDef {
    ChainDef {
        name,
        hook: Some(Hook {
            kind,
            hook,
            priority,
        }),
        rules,
    }
}

const fn regular(name: &'static str, rules: &'static [RuleDef]) -> ChainDef {
    ChainDef {
        name,
        hook: None,
        rules,
    }
}

/// The chains, without the administrator's. A chain comes before those that call it.
pub(super) const CHAINS: &[ChainDef] = &[
    regular(
        "loopback-only",
        &[
            RuleDef(
                "ip daddr . meta l4proto . th dport @loopback4 drop",
                "published for this host only",
            ),
            RuleDef(
                "ip daddr . meta l4proto . th dport @loopback-runs4 drop",
                "published for this host only",
            ),
            RuleDef(
                "ip6 daddr . meta l4proto . th dport @loopback6 drop",
                "published for this host only",
            ),
            RuleDef(
                "ip6 daddr . meta l4proto . th dport @loopback-runs6 drop",
                "published for this host only",
            ),
        ],
    ),
    regular(
        "from-network",
        &[
            RuleDef(
                "iifname . ip saddr @home4 return",
                "a network's own addresses come from its bridge",
            ),
            RuleDef(
                "iifname . ip6 saddr @home6 return",
                "a network's own addresses come from its bridge",
            ),
            RuleDef(
                "ip6 saddr fe80::/10 return",
                "neighbour discovery and MLD speak from link-local addresses",
            ),
            RuleDef(
                "ip6 saddr :: return",
                "duplicate address detection speaks from no address",
            ),
            RuleDef("drop", "a forged source address"),
        ],
    ),
    regular(
        "direct",
        &[
            RuleDef("iifname . ip daddr @home4 return", "within a network"),
            RuleDef("iifname . ip6 daddr @home6 return", "within a network"),
            RuleDef(
                "iifname . ip daddr @trusted4 return",
                "a trusted interface reaches published ports at the container's address",
            ),
            RuleDef(
                "iifname . ip6 daddr @trusted6 return",
                "a trusted interface reaches published ports at the container's address",
            ),
            RuleDef(
                "ip daddr @gateways4 return",
                "an address of this host, where the proxy serves published ports",
            ),
            RuleDef(
                "ip6 daddr @gateways6 return",
                "an address of this host, where the proxy serves published ports",
            ),
            RuleDef("drop", "containers are not reachable by a route"),
        ],
    ),
    base(
        "prerouting-raw",
        "filter",
        "prerouting",
        -300,
        &[
            RuleDef("iifname \"lo\" accept", "this host itself"),
            RuleDef(
                "ip daddr 127.0.0.0/8 jump loopback-only",
                "ports published on a loopback address stay on this host",
            ),
            RuleDef(
                "ip6 daddr ::1 jump loopback-only",
                "ports published on a loopback address stay on this host",
            ),
            RuleDef(
                "iifname @bridges jump from-network",
                "containers speak from addresses of their network",
            ),
            RuleDef(
                "iifname != @bridges meta nfproto . ip saddr @subnets4 drop",
                "nobody else speaks from addresses of a network",
            ),
            RuleDef(
                "iifname != @bridges meta nfproto . ip6 saddr @subnets6 drop",
                "nobody else speaks from addresses of a network",
            ),
            RuleDef(
                "meta nfproto . ip daddr @closed4 jump direct",
                "sent to a container's own address",
            ),
            RuleDef(
                "meta nfproto . ip6 daddr @closed6 jump direct",
                "sent to a container's own address",
            ),
        ],
    ),
    regular(
        "listeners",
        &[
            RuleDef(
                "meta nfproto ipv4 meta l4proto tcp redirect to :ip daddr . meta l4proto . th dport map @listeners-at4",
                "a run of ports has one listener of the proxy",
            ),
            RuleDef(
                "meta nfproto ipv4 meta l4proto tcp redirect to :meta l4proto . th dport map @listeners4",
                "a run of ports has one listener of the proxy",
            ),
            RuleDef(
                "meta nfproto ipv6 meta l4proto tcp redirect to :ip6 daddr . meta l4proto . th dport map @listeners-at6",
                "a run of ports has one listener of the proxy",
            ),
            RuleDef(
                "meta nfproto ipv6 meta l4proto tcp redirect to :meta l4proto . th dport map @listeners6",
                "a run of ports has one listener of the proxy",
            ),
        ],
    ),
    regular(
        "publish",
        &[
            RuleDef(
                "ip6 daddr fe80::/10 goto listeners",
                "what comes from a link-local address cannot be sent on: the proxy serves it",
            ),
            RuleDef(
                "dnat ip to ip daddr . meta l4proto . th dport map @dnat-at4",
                "ports published on one address",
            ),
            RuleDef(
                "dnat ip to ip daddr . meta l4proto . th dport map @runs-at4",
                "runs of ports published on one address",
            ),
            RuleDef(
                "dnat ip to meta l4proto . th dport map @dnat4",
                "ports published on every address",
            ),
            RuleDef(
                "dnat ip to meta l4proto . th dport map @runs4",
                "runs of ports published on every address",
            ),
            RuleDef(
                "dnat ip6 to ip6 daddr . meta l4proto . th dport map @dnat-at6",
                "ports published on one address",
            ),
            RuleDef(
                "dnat ip6 to ip6 daddr . meta l4proto . th dport map @runs-at6",
                "runs of ports published on one address",
            ),
            RuleDef(
                "dnat ip6 to meta l4proto . th dport map @dnat6",
                "ports published on every address",
            ),
            RuleDef(
                "dnat ip6 to meta l4proto . th dport map @runs6",
                "runs of ports published on every address",
            ),
            RuleDef(
                "goto listeners",
                "runs of a container that has no address of this family",
            ),
        ],
    ),
    base(
        "prerouting-nat",
        "nat",
        "prerouting",
        -100,
        &[
            RuleDef(
                "iifname @proxied fib daddr type local goto listeners",
                "containers use published ports by way of the proxy",
            ),
            RuleDef(
                "iifname @proxied accept",
                "containers use published ports by way of the proxy",
            ),
            RuleDef(
                "fib daddr type local jump publish",
                "what is sent to this host may be for a published port",
            ),
        ],
    ),
    base(
        "output-nat",
        "nat",
        "output",
        -100,
        &[
            RuleDef(
                "ip daddr 127.0.0.0/8 goto listeners",
                "cannot be sent on to a container: the proxy serves it",
            ),
            RuleDef(
                "ip6 daddr ::1 goto listeners",
                "cannot be sent on to a container: the proxy serves it",
            ),
            RuleDef(
                "fib daddr type local jump publish",
                "packets of this host itself to a published port of its own",
            ),
        ],
    ),
    base(
        "postrouting-nat",
        "nat",
        "postrouting",
        100,
        &[
            RuleDef("oifname \"lo\" accept", "this host itself"),
            RuleDef("oifname . ip saddr @home4 accept", "stays in its network"),
            RuleDef("oifname . ip6 saddr @home6 accept", "stays in its network"),
            RuleDef(
                "meta nfproto . ip saddr @masquerade4 masquerade",
                "goes out under the address of this host",
            ),
            RuleDef(
                "meta nfproto . ip6 saddr @masquerade6 masquerade",
                "goes out under the address of this host",
            ),
        ],
    ),
    regular(
        "into-network",
        &[
            RuleDef(
                "iifname . oifname vmap @inside",
                "whether a network's containers reach each other",
            ),
            RuleDef(
                "iifname @bridges drop",
                "networks are isolated from each other",
            ),
            RuleDef(
                "oifname @internal drop",
                "nothing comes in to an internal network",
            ),
            RuleDef("ct state established,related accept", "replies come in"),
            RuleDef(
                "ip daddr . meta l4proto . th dport @published4 accept",
                "a published port",
            ),
            RuleDef(
                "ip daddr . meta l4proto . th dport @published-runs4 accept",
                "a published port",
            ),
            RuleDef(
                "ip6 daddr . meta l4proto . th dport @published6 accept",
                "a published port",
            ),
            RuleDef(
                "ip6 daddr . meta l4proto . th dport @published-runs6 accept",
                "a published port",
            ),
            RuleDef(
                "meta nfproto . oifname @open accept",
                "a network of the mode nat-unprotected",
            ),
            RuleDef("drop", "not published"),
        ],
    ),
    regular(
        "out-of-network",
        &[
            RuleDef(
                "iifname @internal drop",
                "nothing leaves an internal network",
            ),
            RuleDef("accept", "containers reach the outside"),
        ],
    ),
    // Before `filter` (0), so that a passage there lets through only what was vetted here.
    base(
        "forward",
        "filter",
        "forward",
        -5,
        &[
            RuleDef(
                "jump CORACLE-USER",
                "rules of the administrator come before all others",
            ),
            RuleDef("oifname @bridges jump into-network", "bound for a network"),
            RuleDef(
                "iifname @bridges jump out-of-network",
                "from a network to the outside",
            ),
            RuleDef(
                "meta nfproto @guarded drop",
                "forwarding was turned on for our networks alone",
            ),
        ],
    ),
];
