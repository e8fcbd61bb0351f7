//! A kernel of plain data that operations run against, and that can fail at any of them.
#![allow(dead_code)]

pub mod rules;
pub mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, RawFd};

use netmgr::apply::Executor;
use netmgr::firewall::iptables::FoundChain;
use netmgr::firewall::nftables::FoundTable;
use netmgr::firewall::ruleset::Table;
use netmgr::kernel::Error;
use netmgr::plan::{Bridge, Hop, Tool, Veth};
use netmgr::{Family, Netns};

pub const INJECTED: &str = "injected";

/// All that operations read or write, comparable as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// By family, and whether we turned it on: then with the policy that FORWARD had, if it was changed.
    pub forwarding: [bool; 2],
    pub turned_on: [Option<Option<String>>; 2],
    pub links: BTreeMap<String, Link>,
    /// By descriptor.
    pub namespaces: BTreeMap<RawFd, Namespace>,
    pub reserved: Vec<(u16, u16)>,
    pub chains: [Vec<FoundChain>; 2],
    pub nft: Option<FoundTable>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Link {
    Bridge(BTreeSet<IpAddr>),
    Veth {
        bridge: Option<String>,
        isolated: bool,
        /// The other end: a namespace and a name in it.
        peer: (RawFd, String),
    },
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Namespace {
    pub interfaces: BTreeMap<String, Interface>,
    pub default4: Option<(String, Ipv4Addr)>,
    pub default6: Option<(String, Ipv6Addr)>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Interface {
    pub mac: [u8; 6],
    pub addresses: BTreeSet<(IpAddr, u8)>,
}

/// Where a run is cut: at which call of the executor, and after how many tables of a batch for iptables.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cut {
    pub call: usize,
    pub tables: usize,
}

#[derive(Clone, Debug)]
pub struct Kernel {
    pub state: State,
    /// With iptables the policy of FORWARD becomes DROP where forwarding was off.
    pub sets_policy: bool,
    pub cut: Option<Cut>,
    /// What each call was, with the number of places at which it can fail.
    pub calls: Vec<(&'static str, usize)>,
}

impl State {
    /// The ports of a bridge stay, without one.
    pub fn remove_link(&mut self, name: &str) {
        self.links.remove(name);
        for link in self.links.values_mut() {
            if let Link::Veth { bridge, .. } = link {
                bridge.take_if(|of| of == name);
            }
        }
    }
}

impl Kernel {
    pub fn new(sets_policy: bool) -> Kernel {
        Kernel {
            state: State {
                forwarding: [false; 2],
                turned_on: [None, None],
                links: BTreeMap::new(),
                namespaces: BTreeMap::new(),
                reserved: Vec::new(),
                chains: [rules::built_in(), rules::built_in()],
                nft: None,
            },
            sets_policy,
            cut: None,
            calls: Vec::new(),
        }
    }

    /// The same kernel, to fail there.
    pub fn failing_at(&self, cut: Cut) -> Kernel {
        Kernel {
            cut: Some(cut),
            calls: Vec::new(),
            ..self.clone()
        }
    }

    /// A dead container takes its ends of veths along.
    pub fn destroy_namespace(&mut self, netns: &Netns) {
        let fd = netns.0.as_raw_fd();
        self.state.namespaces.remove(&fd);
        let of_it = |link: &Link| matches!(link, Link::Veth { peer, .. } if peer.0 == fd);
        self.state.links.retain(|_, link| !of_it(link));
    }

    /// Counts the call; the cut, if it is here.
    fn enter(&mut self, name: &'static str, places: usize) -> Option<Cut> {
        let call = self.calls.len();
        self.calls.push((name, places));
        self.cut.filter(|cut| cut.call == call)
    }

    fn may_fail(&mut self, name: &'static str) -> Result<(), Error> {
        match self.enter(name, 1) {
            Some(_) => Err(injected(name)),
            None => Ok(()),
        }
    }

    fn forward_policy(&mut self, family: Family) -> &mut String {
        let chains = &mut self.state.chains[at(family)];
        let forward = chains
            .iter_mut()
            .find(|c| c.table == Table::Filter && c.name == "FORWARD");
        &mut forward.unwrap().policy
    }

    fn namespace(&mut self, netns: &Netns) -> &mut Namespace {
        let fd = netns.0.as_raw_fd();
        self.state.namespaces.entry(fd).or_default()
    }
}

pub fn at(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}

fn injected(name: &'static str) -> Error {
    Error::CommandFailed {
        name,
        status: INJECTED.into(),
        line: None,
        stderr: String::new(),
    }
}

/// The injected failure itself, and nothing of a roll-back that failed too.
pub fn is_injected(error: &Error) -> bool {
    matches!(error, Error::CommandFailed { status, .. } if status == INJECTED)
}

fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

impl Executor for Kernel {
    fn enable_forwarding(&mut self, family: Family) -> Result<bool, Error> {
        self.may_fail("enable forwarding")?;
        if self.state.forwarding[at(family)] {
            return Ok(false);
        }
        let policy = self.forward_policy(family).clone();
        let replaced = (self.sets_policy && policy != "DROP").then_some(policy);
        if replaced.is_some() {
            *self.forward_policy(family) = "DROP".into();
        }
        self.state.forwarding[at(family)] = true;
        self.state.turned_on[at(family)] = Some(replaced);
        Ok(true)
    }

    fn restore_forwarding(&mut self, family: Family) -> Result<(), Error> {
        self.may_fail("restore forwarding")?;
        let Some(policy) = self.state.turned_on[at(family)].take() else {
            return Ok(());
        };
        self.state.forwarding[at(family)] = false;
        if let Some(policy) = policy
            && self.forward_policy(family) == "DROP"
        {
            *self.forward_policy(family) = policy;
        }
        Ok(())
    }

    fn create_bridge(&mut self, bridge: &Bridge) -> Result<(), Error> {
        self.may_fail("create bridge")?;
        let name = bridge.name.clone();
        if self.state.links.contains_key(&name) {
            let source = errno(libc::EEXIST);
            return Err(Error::CreateBridge { name, source });
        }
        let gateway6 = bridge.gateway6.map(|(gateway, _)| IpAddr::V6(gateway));
        let addresses = gateway6.into_iter().chain([IpAddr::V4(bridge.gateway)]);
        let link = Link::Bridge(addresses.collect());
        self.state.links.insert(name, link);
        Ok(())
    }

    fn remove_bridge(&mut self, bridge: &Bridge) -> Result<(), Error> {
        self.may_fail("remove bridge")?;
        self.state.remove_link(&bridge.name);
        Ok(())
    }

    fn create_veth(&mut self, veth: &Veth, netns: &Netns) -> Result<(), Error> {
        self.may_fail("create veth")?;
        let endpoint = &veth.endpoint;
        if !matches!(self.state.links.get(&veth.bridge), Some(Link::Bridge(_))) {
            return Err(Error::FindBridge {
                bridge: veth.bridge.clone(),
                container: endpoint.container_name.clone(),
                source: errno(libc::ENODEV),
            });
        }
        let there = self
            .namespace(netns)
            .interfaces
            .contains_key(&endpoint.interface);
        if there || self.state.links.contains_key(&endpoint.host_interface) {
            return Err(Error::CreateVeth {
                name: endpoint.host_interface.clone(),
                container: endpoint.container_name.clone(),
                source: errno(libc::EEXIST),
            });
        }
        let link = Link::Veth {
            bridge: Some(veth.bridge.clone()),
            isolated: veth.isolated,
            peer: (netns.0.as_raw_fd(), endpoint.interface.clone()),
        };
        self.state
            .links
            .insert(endpoint.host_interface.clone(), link);
        let v4 = (IpAddr::V4(endpoint.address), veth.prefix);
        let v6 = endpoint.address6.map(|a| (IpAddr::V6(a), veth.prefix6));
        let interface = Interface {
            mac: endpoint.mac,
            addresses: [v4].into_iter().chain(v6).collect(),
        };
        let namespace = self.namespace(netns);
        let name = &endpoint.interface;
        namespace.interfaces.insert(name.clone(), interface);
        if let Some(gateway) = veth.gateway {
            namespace.default4.get_or_insert((name.clone(), gateway));
        }
        if let Some(gateway) = veth.gateway6.filter(|_| endpoint.address6.is_some()) {
            namespace.default6.get_or_insert((name.clone(), gateway));
        }
        Ok(())
    }

    fn remove_veth(&mut self, veth: &Veth) -> Result<(), Error> {
        self.may_fail("remove veth")?;
        let removed = self.state.links.remove(&veth.endpoint.host_interface);
        let Some(Link::Veth {
            peer: (fd, name), ..
        }) = removed
        else {
            return Ok(());
        };
        if let Some(namespace) = self.state.namespaces.get_mut(&fd) {
            namespace.interfaces.remove(&name);
            namespace.default4.take_if(|(by, _)| *by == name);
            namespace.default6.take_if(|(by, _)| *by == name);
        }
        Ok(())
    }

    fn join_bridge(&mut self, veth: &Veth) -> Result<(), Error> {
        self.may_fail("join bridge")?;
        let endpoint = &veth.endpoint;
        let container = endpoint.container_name.clone();
        if !self.state.links.contains_key(&veth.bridge) {
            let (bridge, source) = (veth.bridge.clone(), errno(libc::ENODEV));
            return Err(Error::FindBridge {
                bridge,
                container,
                source,
            });
        }
        match self.state.links.get_mut(&endpoint.host_interface) {
            Some(Link::Veth {
                bridge, isolated, ..
            }) => {
                *bridge = Some(veth.bridge.clone());
                *isolated = veth.isolated;
                Ok(())
            }
            _ => {
                let (name, source) = (endpoint.host_interface.clone(), errno(libc::ENODEV));
                Err(Error::FindVeth {
                    name,
                    container,
                    source,
                })
            }
        }
    }

    fn set_default_route(
        &mut self,
        netns: &Netns,
        from: Option<&Hop>,
        to: Option<&Hop>,
    ) -> Result<(), Error> {
        self.may_fail("set default route")?;
        let namespace = self.namespace(netns);
        let failed = |hop: &Hop, gateway| Error::DefaultRoute {
            action: "set",
            interface: hop.interface.clone(),
            gateway,
            source: errno(libc::ENODEV),
        };
        let before = namespace.clone();
        for family in Family::ALL {
            let over = |hop: &&Hop| match family {
                Family::V4 => hop.gateway.map(IpAddr::V4),
                Family::V6 => hop.gateway6.map(IpAddr::V6),
            };
            let (old, new) = (
                from.filter(|h| over(h).is_some()),
                to.filter(|h| over(h).is_some()),
            );
            if let Some(hop) = new
                && !namespace.interfaces.contains_key(&hop.interface)
            {
                let gateway = over(&hop).unwrap();
                *namespace = before;
                return Err(failed(hop, gateway));
            }
            match family {
                Family::V4 => move_route(&mut namespace.default4, old, new, |hop| hop.gateway),
                Family::V6 => move_route(&mut namespace.default6, old, new, |hop| hop.gateway6),
            }
        }
        Ok(())
    }

    fn reserve_ports(&mut self, runs: &[(u16, u16)]) -> Result<(), Error> {
        self.may_fail("reserve ports")?;
        self.state.reserved = runs.to_vec();
        Ok(())
    }

    fn list_rules(&mut self, family: Family) -> Result<Vec<FoundChain>, Error> {
        Ok(self.state.chains[at(family)].clone())
    }

    fn write_rules(&mut self, tool: Tool, input: &str) -> Result<(), Error> {
        let (name, family) = match tool {
            Tool::Iptables => ("iptables-restore", Some(Family::V4)),
            Tool::Ip6tables => ("ip6tables-restore", Some(Family::V6)),
            Tool::Nft => ("nft", None),
        };
        let tables = family.map_or(1, |_| rules::tables(input).len());
        let cut = self.enter(name, tables);
        let limit = cut.map_or(usize::MAX, |cut| cut.tables);
        let written = match family {
            Some(family) => rules::restore(&mut self.state.chains[at(family)], input, limit),
            None if cut.is_some() => Ok(()),
            None => rules::nft(&mut self.state.nft, input),
        };
        written.map_err(|stderr| Error::CommandFailed {
            name,
            status: "refused".into(),
            line: None,
            stderr,
        })?;
        match cut {
            Some(_) => Err(injected(name)),
            None => Ok(()),
        }
    }
}

/// The new route takes the place of whatever default route is there; without one only the old one's goes.
fn move_route<A: PartialEq>(
    route: &mut Option<(String, A)>,
    from: Option<&Hop>,
    to: Option<&Hop>,
    over: impl Fn(&Hop) -> Option<A>,
) {
    let via = |hop: &Hop| over(hop).map(|gateway| (hop.interface.clone(), gateway));
    match (from.and_then(via), to.and_then(via)) {
        (_, Some(new)) => *route = Some(new),
        (Some(old), None) => {
            route.take_if(|there| *there == old);
        }
        (None, None) => {}
    }
}
