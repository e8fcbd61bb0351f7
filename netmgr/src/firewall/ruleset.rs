//! Chains and rules as plain data, each rule with its reason.
//!
//! Knows no backend and decides nothing: [`super::policy`] fills a [`Ruleset`], [`super::iptables`] writes it.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::Protocol;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Before connection tracking: what must never get as far as address translation.
    Raw,
    Filter,
    Nat,
}

impl Table {
    /// In the order in which a batch writes them: the drops of `raw` are in force before `nat` lets anything in.
    pub const ALL: [Table; 3] = [Table::Raw, Table::Filter, Table::Nat];

    pub fn as_str(self) -> &'static str {
        match self {
            Table::Raw => "raw",
            Table::Filter => "filter",
            Table::Nat => "nat",
        }
    }

    /// The chains that the kernel itself calls, in the order of `iptables-save`.
    pub fn built_in_chains(self) -> &'static [&'static str] {
        match self {
            Table::Raw => &["PREROUTING", "OUTPUT"],
            Table::Filter => &["INPUT", "FORWARD", "OUTPUT"],
            Table::Nat => &["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"],
        }
    }
}

/// Whose chain it is decides how it may be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A built-in chain, shared with everyone: only our own rules in it may be touched.
    Host,
    /// Ours alone: may be flushed and rewritten, and positions in it are known.
    Engine,
    /// Made by us once, then the administrator's: never flushed, never reordered.
    Administrator,
}

/// Where a rule stands in a chain that others write to as well. In a chain of ours the order is simply the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Before every other rule, whoever wrote it.
    Head,
    /// Inserted at the top when it came: newer ones above older ones, in a fixed order among ours.
    Top,
    /// Appended when it came. Rules placed so exclude each other, hence their order means nothing.
    Tail,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    pub table: Table,
    pub name: String,
    pub owner: Owner,
    /// In order: all of [`Place::Head`], then [`Place::Top`], then [`Place::Tail`]. No two have the same
    /// matches and verdict.
    pub rules: Vec<Rule>,
}

/// A rule's identity is what it matches and does (and its comment): see `iptables::spec`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub place: Place,
    /// Sorted: the order of [`Match`] is the order in which `iptables-save` prints.
    pub matches: Vec<Match>,
    pub verdict: Verdict,
    /// For whom and what for, in words. Held as data even where the kernel shows no comment.
    pub why: String,
    /// What the kernel shows; `None` in the docker profile, whose rules must equal Docker's.
    pub comment: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sign {
    Is,
    Not,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Match {
    Source(Sign, IpNet),
    Destination(Sign, IpNet),
    In(Sign, String),
    Out(Sign, String),
    /// A protocol and a run of destination ports, both ends included.
    Ports(Protocol, u16, u16),
    /// The destination is one of the host's own addresses.
    LocalDestination,
    /// Replies, and what belongs to a connection already let through.
    Established,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    Accept,
    Drop,
    Return,
    Masquerade,
    Jump(String),
    Dnat(Dnat),
    /// To this port of the host itself, whatever the destination was; `SO_ORIGINAL_DST` tells it.
    Redirect(u16),
}

/// A new destination. A run of ports keeps its offsets: host port `base + n` goes to `first + n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dnat {
    pub address: IpAddr,
    pub first: u16,
    pub last: u16,
    /// The host port that belongs to `first`; only a run of ports has one.
    pub base: Option<u16>,
}

/// Every chain and rule that there must be for one address family: what `iptables` holds, or `ip6tables`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    pub chains: Vec<Chain>,
}

impl Ruleset {
    pub fn chains_of(&self, table: Table) -> impl Iterator<Item = &Chain> {
        self.chains.iter().filter(move |c| c.table == table)
    }

    pub fn chain(&self, table: Table, name: &str) -> Option<&Chain> {
        self.chains
            .iter()
            .find(|c| c.table == table && c.name == name)
    }
}
