//! What iptables' `filter` table needs beside the nftables backend. Pure.
//!
//! An accept in our own table cannot override a drop in another one on the same hook. Where FORWARD of the `filter` table has
//! the policy DROP or rules of others, what our table has let through (it comes first: priority -5 against 0) needs a
//! passage there. It opens nothing that our table would not: that has already dropped what is not to pass.

use super::rules::{Rules, input_is, label, output_is};
use crate::firewall::ruleset::{Owner, Place, Ruleset, Table, Verdict};
use crate::model::Model;

/// `-I FORWARD -i cr-+ -j ACCEPT`, `-o cr-+`, `-i coracle0`, `-o coracle0`, and a pair for each bridge with a name of the
/// user's own. The wildcard keeps their number, and with it the cost of a packet and of a change, the same for any number of
/// networks.
pub fn passage(model: &Model) -> Ruleset {
    let mut rules = Rules::new(model.profile);
    rules.at(Place::Head);
    let mut open = |interface: &str, whose: &str| {
        rules
            .add(
                vec![input_is(interface)],
                Verdict::Accept,
                format!("{whose}: vetted in the nftables table coracle, going out"),
            )
            .add(
                vec![output_is(interface)],
                Verdict::Accept,
                format!("{whose}: vetted in the nftables table coracle, coming in"),
            );
    };
    let prefix = model.profile.bridge_prefix();
    open(&format!("{prefix}+"), "user networks");
    open(model.profile.default_bridge(), "the default network");
    let is_own_name =
        |bridge: &str| bridge != model.profile.default_bridge() && !bridge.starts_with(prefix);
    for network in model.networks.iter().filter(|n| is_own_name(&n.bridge)) {
        open(
            &network.bridge,
            &format!("network {}", label(&network.name)),
        );
    }
    Ruleset {
        chains: vec![rules.chain(Table::Filter, "FORWARD", Owner::Host)],
    }
}
