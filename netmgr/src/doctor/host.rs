//! The host's own settings, and other programs that write rules. Pure.

use super::packet::Table;
use super::{Facts, Finding, Severity, nft, xtables};
use crate::kernel::settle::covers;
use crate::model::Model;
use crate::plan;

pub(super) fn sysctls(model: &Model, facts: &Facts) -> Vec<Finding> {
    let mut out = Vec::new();
    let is_off = |name: &str| facts.sysctl(name) == Some("0");
    if is_off("net/ipv4/ip_forward") {
        let what = "net.ipv4.ip_forward is 0: no container reaches the outside".to_owned();
        out.push(Finding::fixable(what));
    }
    let v6 = model.networks.iter().find(|n| n.v6.is_some());
    if let Some(network) = v6
        && is_off("net/ipv6/conf/all/forwarding")
    {
        out.push(Finding::fixable(format!(
            "net.ipv6.conf.all.forwarding is 0: network {} has IPv6 that leads nowhere",
            network.name
        )));
    }
    if facts.sysctl("net/bridge/bridge-nf-call-iptables") == Some("1") {
        let what = "bridge-nf-call-iptables is 1: packets between containers of one network pass this host's rules as well";
        let advice =
            "sysctl -w net.bridge.bridge-nf-call-iptables=0, unless another program needs it";
        out.push(Finding::new(Severity::Note, what.to_owned(), advice));
    }
    for run in plan::reserved(model)
        .into_iter()
        .filter(|r| !covers(&facts.reserved, *r))
    {
        let what = format!(
            "ports {}-{} are published and not kept from ephemeral use (net.ipv4.ip_local_reserved_ports)",
            run.0, run.1
        );
        out.push(Finding {
            severity: Severity::Warning,
            ..Finding::fixable(what)
        });
    }
    out
}

pub(super) fn others(model: &Model, facts: &Facts) -> Vec<Finding> {
    let mut out = Vec::new();
    let native = nft::tables(&facts.nft);
    if facts.firewalld || native.iter().any(|t| t.name == "firewalld") {
        let bridges = model.networks.iter().map(|n| n.bridge.as_str());
        let bridges: Vec<&str> = bridges.collect();
        let what = "firewalld is running: its reload takes iptables rules of others away, and its zones judge our bridges".to_owned();
        let advice = format!(
            "run coracle network watch, and put the bridges into its trusted zone: firewall-cmd --permanent --zone=trusted {}",
            bridges
                .iter()
                .map(|b| format!("--add-interface={b}"))
                .collect::<Vec<_>>()
                .join(" ")
        );
        out.push(Finding::new(Severity::Warning, what, advice));
    }
    let saved: Vec<Table> = facts.saves.iter().flat_map(xtables::tables).collect();
    let has_chain = |prefix: &str| {
        let mut chains = saved.iter().chain(&native).flat_map(|t| &t.chains);
        chains.any(|c| c.name == prefix || c.name.starts_with(&format!("{prefix}-")))
    };
    if facts.ufw || has_chain("ufw") {
        let what = "ufw is enabled: published ports do not pass its rules, they are reachable whatever it says";
        let advice = format!(
            "publish on 127.0.0.1 what is for this host alone, or write rules for containers into {}-USER",
            model.profile.chain_prefix()
        );
        out.push(Finding::new(Severity::Warning, what.to_owned(), advice));
    }
    let engines = [
        ("DOCKER", "Docker"),
        ("CNI", "a CNI plugin"),
        ("NETAVARK", "Podman"),
        ("LIBVIRT_FWO", "libvirt"),
        ("KUBE-SERVICES", "Kubernetes"),
    ];
    for (chain, engine) in engines {
        if chain != model.profile.chain_prefix() && has_chain(chain) {
            let what = format!("chains of {engine} ({chain}) are in place beside ours");
            out.push(Finding::new(Severity::Note, what, ""));
        }
    }
    out.extend(both_kinds(facts, &native));
    out
}

/// docker-library#467: what one of them accepts, the other drops, and each shows its own rules only.
fn both_kinds(facts: &Facts, native: &[Table]) -> Option<Finding> {
    let has_rules = |tables: &[Table]| {
        tables
            .iter()
            .flat_map(|t| &t.chains)
            .any(|c| !c.rules.is_empty())
    };
    let legacy = facts.save("iptables-legacy").map(xtables::tables)?;
    let modern: Vec<Table> = facts
        .save("iptables")
        .map(xtables::tables)
        .unwrap_or_default();
    if !has_rules(&legacy) || !(has_rules(&modern) || has_rules(native)) {
        return None;
    }
    let named: Vec<&str> = legacy
        .iter()
        .filter(|t| t.chains.iter().any(|c| !c.rules.is_empty()))
        .map(|t| t.name.as_str())
        .collect();
    let what = format!(
        "legacy iptables (tables {}) and nftables are both in use: a packet has to pass both",
        named.join(", ")
    );
    let advice = "find who calls iptables-legacy, and take its rules away: iptables-legacy -F";
    Some(Finding::new(Severity::Warning, what, advice))
}
