//! The chains and rules of our table: the same on every host, whatever the model.
//!
//! A rule's text is also the form in which [`super::decompile`] gives back what the kernel holds.

use super::layout::{ChainDef, Hook, RuleDef};

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
    regular(
        "from-internal",
        &[
            RuleDef(
                "iifname . ip daddr @home4 return",
                "its containers and its bridge have each other",
            ),
            RuleDef(
                "iifname . ip6 daddr @home6 return",
                "its containers and its bridge have each other",
            ),
            RuleDef(
                "ip6 daddr fe80::/10 return",
                "neighbour discovery, never forwarded",
            ),
            RuleDef(
                "ip6 daddr ff00::/8 return",
                "neighbour discovery, never forwarded",
            ),
            RuleDef("drop", "an internal network reaches no other address"),
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
                "iifname @internal jump from-internal",
                "an internal network has its bridge and nothing else of this host",
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
