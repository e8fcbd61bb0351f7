//! What our table is made of, and its sets: the same on every host, whatever the model.

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
    // The bridges' own addresses, but for internal networks.
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
