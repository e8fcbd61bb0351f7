//! What operations are made of: one method for each thing that is done to the kernel, by an operation or by its inverse.

use crate::change::{Netns, Settings};
use crate::firewall::iptables::{self, FoundChain};
use crate::firewall::ruleset::Table;
use crate::kernel::netlink::Channel;
use crate::kernel::{Error, bridge, commands, host, reserved, routes, veth};
use crate::model::Family;
use crate::plan::{Bridge, Hop, Tool, Veth};

/// A kernel that operations can be run against: this host's ([`Host`]), or one of plain data.
///
/// A method that fails has changed nothing, but for [`Executor::write_rules`] of several tables. What is to be removed and
/// is not there is no failure.
pub trait Executor {
    /// Whether it was off.
    fn enable_forwarding(&mut self, family: Family) -> Result<bool, Error>;
    /// As it was before our first change of it.
    fn restore_forwarding(&mut self, family: Family) -> Result<(), Error>;
    fn create_bridge(&mut self, bridge: &Bridge) -> Result<(), Error>;
    fn remove_bridge(&mut self, bridge: &Bridge) -> Result<(), Error>;
    fn create_veth(&mut self, veth: &Veth, netns: &Netns) -> Result<(), Error>;
    fn remove_veth(&mut self, veth: &Veth) -> Result<(), Error>;
    fn join_bridge(&mut self, veth: &Veth) -> Result<(), Error>;
    fn set_default_route(
        &mut self,
        netns: &Netns,
        from: Option<&Hop>,
        to: Option<&Hop>,
    ) -> Result<(), Error>;
    fn reserve_ports(&mut self, runs: &[(u16, u16)]) -> Result<(), Error>;
    /// Commits table by table for the tools of iptables; all or nothing for nft.
    fn write_rules(&mut self, tool: Tool, input: &str) -> Result<(), Error>;
    /// All tables of a family, as iptables lists them.
    fn list_rules(&mut self, family: Family) -> Result<Vec<FoundChain>, Error>;
}

/// The caller's network namespace.
pub(super) struct Host<'a> {
    settings: &'a Settings,
    channel: Channel,
}

impl<'a> Host<'a> {
    pub(super) fn open(settings: &'a Settings) -> Result<Host<'a>, Error> {
        Ok(Host {
            settings,
            channel: Channel::open()?,
        })
    }
}

impl Executor for Host<'_> {
    fn enable_forwarding(&mut self, family: Family) -> Result<bool, Error> {
        host::enable_forwarding(family, &self.settings.run_root, self.settings.firewall)
    }

    fn restore_forwarding(&mut self, family: Family) -> Result<(), Error> {
        host::restore_family(family, &self.settings.run_root)
    }

    fn create_bridge(&mut self, bridge: &Bridge) -> Result<(), Error> {
        bridge::create(&mut self.channel, bridge)
    }

    fn remove_bridge(&mut self, bridge: &Bridge) -> Result<(), Error> {
        bridge::remove(&mut self.channel, bridge)
    }

    fn create_veth(&mut self, veth: &Veth, netns: &Netns) -> Result<(), Error> {
        veth::create(&mut self.channel, veth, netns)
    }

    fn remove_veth(&mut self, veth: &Veth) -> Result<(), Error> {
        veth::remove(&mut self.channel, veth)
    }

    fn join_bridge(&mut self, veth: &Veth) -> Result<(), Error> {
        bridge::join(&mut self.channel, veth)
    }

    fn set_default_route(
        &mut self,
        netns: &Netns,
        from: Option<&Hop>,
        to: Option<&Hop>,
    ) -> Result<(), Error> {
        routes::set_default(netns, from, to)
    }

    fn reserve_ports(&mut self, runs: &[(u16, u16)]) -> Result<(), Error> {
        reserved::replace(&self.settings.run_root, runs)
    }

    fn write_rules(&mut self, tool: Tool, input: &str) -> Result<(), Error> {
        commands::write(tool, input)
    }

    fn list_rules(&mut self, family: Family) -> Result<Vec<FoundChain>, Error> {
        let mut chains = Vec::new();
        for table in Table::ALL {
            chains.extend(iptables::parse(&commands::save(family, table.as_str())?));
        }
        Ok(chains)
    }
}
