//! `--dry-run`: what a change would do, in words, and nothing done.
//!
//! The edit runs as in [`crate::change`], in a transaction that is rolled back, and the plan comes from the same
//! function. Neither kernel, tables, journal nor the marker of what is live are written. The lock is held meanwhile.

use std::fmt;

use rusqlite::{Connection, TransactionBehavior};

use crate::change::{Netns, Settings};
use crate::edit::Edit;
use crate::error::Error;
use crate::journal::Journal;
use crate::model::Family;
use crate::plan::{Batch, Bridge, Hop, Op, ReservePorts, Tool};
use crate::session::{Namespaces, Session, Step};
use crate::store;

/// What would be done. Displayed, it is one line for each operation, and under `rules` a line for each rule.
#[derive(Debug)]
pub struct Preview<T> {
    /// What the edit returned. Names, addresses and chosen ports are as good as a guess: they are not kept.
    pub value: T,
    pub ops: Vec<Op>,
    /// What is set besides, of links that stand, and what the user is to be told.
    pub notes: Vec<String>,
}

/// Runs an edit and plans it. An attachment holds its ports' sockets for as long as it lives, so an edit that attaches
/// hands back what is to be shown of it, and drops the rest.
///
/// Planning asks nothing of a container's namespace: where there is none yet, any stands in for it
/// (`kernel::netns::current`).
pub fn change<T, E: From<Error>>(
    settings: &Settings,
    conn: &mut Connection,
    edit: impl FnOnce(&mut Edit<'_>) -> Result<T, E>,
) -> Result<Preview<T>, E> {
    let session = Session::begin(settings)?;
    let tx = conn
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(store::failed("begin a preview"))
        .map_err(E::from)?;
    let (value, step) = Step::of(settings, &tx, edit)?;
    let planned = session.plan_step(&step, &Journal::default());
    tx.rollback()
        .map_err(store::failed("roll a preview back"))
        .map_err(E::from)?;
    Ok(Preview {
        value,
        ops: planned?.ops,
        notes: pending(settings),
    })
}

/// What [`crate::reload`] would mend.
pub fn reload(
    settings: &Settings,
    conn: &Connection,
    netns_of: &dyn Fn(&str) -> Option<Netns>,
) -> Result<Preview<()>, Error> {
    let session = Session::begin(settings)?;
    let model = store::load_model(conn, settings.profile)?;
    let ids = model.endpoints.iter().map(|e| &e.container_id);
    let netns: Namespaces = ids
        .filter_map(|id| Some((id.clone(), netns_of(id)?)))
        .collect();
    let survey = session.survey(&model, &netns)?;
    let mut notes = pending(settings);
    notes.extend(survey.policy_lost.into_iter().map(policy_again));
    notes.extend(survey.settle.iter().map(ToString::to_string));
    notes.extend(survey.notes);
    Ok(Preview {
        value: (),
        ops: survey.ops,
        notes,
    })
}

fn pending(settings: &Settings) -> Vec<String> {
    let is_pending = Journal::is_pending(&settings.run_root);
    let note = "the last change was cut short: it is repaired first";
    is_pending.then(|| note.to_owned()).into_iter().collect()
}

impl<T> Preview<T> {
    /// Whether nothing at all would be done to the kernel.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.notes.is_empty()
    }
}

impl<T> fmt::Display for Preview<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.ops.iter().flat_map(words);
        for line in lines.chain(self.notes.iter().cloned()) {
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}

/// A policy that is set again, in words.
pub(crate) fn policy_again(family: Family) -> String {
    let tool = tool_name(Tool::iptables(family));
    format!("set the policy of FORWARD ({tool}) to DROP again")
}

fn tool_name(tool: Tool) -> &'static str {
    match tool {
        Tool::Iptables => "iptables",
        Tool::Ip6tables => "ip6tables",
        Tool::Nft => "nftables",
    }
}

/// An operation in words: one line, and for rules a further line for each.
pub fn words(op: &Op) -> Vec<String> {
    let line = match op {
        Op::EnableForwarding(family) => format!("turn {} forwarding on", family.as_str()),
        Op::CreateBridge(bridge) => format!("create bridge {}{}", bridge.name, details(bridge)),
        Op::RemoveBridge(bridge) => format!("remove bridge {}", bridge.name),
        Op::CreateVeth(veth) => {
            let endpoint = &veth.endpoint;
            let v6 = endpoint.address6.map(|a| format!(" {a}/{}", veth.prefix6));
            let gateway = veth.gateway.map(|g| format!(" via {g}"));
            format!(
                "create veth {} on {} to {} of container {} with {}/{}{}{}",
                endpoint.host_interface,
                veth.bridge,
                endpoint.interface,
                endpoint.container_name,
                endpoint.address,
                veth.prefix,
                v6.unwrap_or_default(),
                gateway.unwrap_or_default(),
            )
        }
        Op::RemoveVeth(veth) => format!("remove veth {}", veth.endpoint.host_interface),
        Op::JoinBridge(veth) => format!(
            "join veth {} of container {} to {}",
            veth.endpoint.host_interface, veth.endpoint.container_name, veth.bridge
        ),
        Op::DefaultRoute(change) => format!(
            "default route of container {}: {} instead of {}",
            change.container_name,
            hop(change.to.as_ref()),
            hop(change.from.as_ref())
        ),
        Op::ReservePorts(change) => reserved(change),
        Op::Rules(batch) => return rules(batch),
    };
    vec![line]
}

fn details(bridge: &Bridge) -> String {
    let mut out = format!(" {}/{}", bridge.gateway, bridge.subnet.prefix_len());
    if let Some((gateway, prefix)) = bridge.gateway6 {
        out.push_str(&format!(" {gateway}/{prefix}"));
    }
    match bridge.mtu {
        Some(mtu) => out.push_str(&format!(" mtu {mtu}")),
        None => out.push_str(" mtu of the default route"),
    }
    out
}

fn hop(hop: Option<&Hop>) -> String {
    let Some(hop) = hop else {
        return "none".to_owned();
    };
    let gateways = [
        hop.gateway.map(|g| g.to_string()),
        hop.gateway6.map(|g| g.to_string()),
    ];
    let gateways: Vec<String> = gateways.into_iter().flatten().collect();
    match gateways.is_empty() {
        true => format!("dev {}", hop.interface),
        false => format!("via {} dev {}", gateways.join(" and "), hop.interface),
    }
}

fn reserved(change: &ReservePorts) -> String {
    let list = |runs: &[(u16, u16)]| -> String {
        let runs = runs.iter().map(|(first, last)| format!("{first}-{last}"));
        let runs: Vec<String> = runs.collect();
        match runs.is_empty() {
            true => "none".to_owned(),
            false => runs.join(", "),
        }
    };
    format!(
        "ports kept from ephemeral use: {} instead of {}",
        list(&change.after),
        list(&change.before)
    )
}

/// `+` for what comes, `-` for what goes. A chain that is named is made, or emptied before its rules follow.
fn rules(batch: &Batch) -> Vec<String> {
    let tool = tool_name(batch.tool);
    let mut out = vec![format!("rules ({tool}):")];
    let mut table = String::new();
    for line in batch.forward.lines().map(str::trim) {
        if batch.tool == Tool::Nft {
            out.push(nft_line(line));
        } else if let Some(name) = line.strip_prefix('*') {
            table = name.to_owned();
        } else if let Some(chain) = line.strip_prefix(':') {
            let name = chain.split(' ').next().unwrap_or(chain);
            out.push(format!("  + {table}: chain {name}, empty at first"));
        } else if let Some(name) = line.strip_prefix("-X ") {
            out.push(format!("  - {table}: chain {name}"));
        } else if line.starts_with("-D ") {
            out.push(format!("  - {table}: {line}"));
        } else if line.starts_with("-A ") || line.starts_with("-I ") {
            out.push(format!("  + {table}: {line}"));
        }
    }
    out
}

/// Of several elements in one command the lines after the first hold one each.
fn nft_line(line: &str) -> String {
    let sign = match line.split(' ').next() {
        Some("add") => '+',
        Some("delete" | "flush") => '-',
        _ => return format!("      {line}"),
    };
    format!("  {sign} {line}")
}
