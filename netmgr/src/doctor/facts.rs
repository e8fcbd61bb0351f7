//! What was gathered of a host, as plain data: all that the judgement goes by.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::{Family, Protocol};

/// An interface, of the host or inside a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    /// `bridge`, `veth` and so on.
    pub kind: String,
    pub up: bool,
    pub mtu: u32,
    pub master: Option<String>,
    /// Both families.
    pub addresses: Vec<IpNet>,
}

/// The output of one command that prints rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Save {
    /// `iptables`, `ip6tables` or `iptables-legacy`.
    pub tool: &'static str,
    pub family: Family,
    /// As `iptables-save` prints.
    pub text: String,
}

/// A socket of the host that is bound to a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    pub protocol: Protocol,
    pub address: IpAddr,
    pub port: u16,
    /// The program and its process ID; `None` where no process shows it.
    pub program: Option<(String, u32)>,
    /// Held by a process of this very program.
    pub ours: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub interfaces: Vec<Interface>,
    /// By container ID: what is in the namespaces that are at hand.
    pub inside: HashMap<String, Vec<Interface>>,
    /// By container ID: the gateways of its default routes, of both families, where they could be read.
    pub gateways: HashMap<String, Vec<IpAddr>>,
    /// By the name as in sysctl(8) with slashes (`net/ipv4/ip_forward`).
    pub sysctls: BTreeMap<String, String>,
    pub saves: Vec<Save>,
    /// `nft -j list ruleset`; empty where there is no `nft`.
    pub nft: String,
    /// Differences of the nftables backend's own table from what it should be, in words.
    pub own_table: Vec<String>,
    /// Runs of ports that are kept from ephemeral use.
    pub reserved: Vec<(u16, u16)>,
    pub bound: Vec<Bound>,
    /// The interface of the default route.
    pub uplink: Option<String>,
    pub firewalld: bool,
    pub ufw: bool,
    /// What could not be read, and why.
    pub unread: Vec<String>,
}

impl Facts {
    pub(super) fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|i| i.name == name)
    }

    pub(super) fn sysctl(&self, name: &str) -> Option<&str> {
        self.sysctls.get(name).map(|value| value.trim())
    }

    pub(super) fn save(&self, tool: &str) -> Option<&Save> {
        self.saves.iter().find(|save| save.tool == tool)
    }
}
