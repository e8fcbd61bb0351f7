//! Networks: netmgr's own calls with this engine's database, and their events. What the networks of a running container are,
//! `network` knows.

use super::{Engine, network};
use crate::error::Error;
use crate::events;
use crate::request::Connection;

impl Engine {
    pub fn create_network(
        &mut self,
        request: &netmgr::NetworkRequest,
    ) -> Result<netmgr::Network, Error> {
        netmgr::change(&self.settings.network, &mut self.conn, |edit| {
            let network = edit.create_network(request)?;
            events::record_network(edit.transaction(), &network, "create")?;
            Ok(network)
        })
    }

    /// Returns the network that was removed.
    pub fn remove_network(&mut self, name: &str) -> Result<netmgr::Network, Error> {
        self.making_room(|engine| {
            netmgr::change(&engine.settings.network, &mut engine.conn, |edit| {
                let network = edit.remove_network(name)?;
                events::record_network(edit.transaction(), &network, "destroy")?;
                Ok(network)
            })
        })
    }

    /// `network connect`: a running container is on the network when this returns, a stopped one from its next start on.
    pub fn connect_network(
        &mut self,
        container: &str,
        connection: &Connection,
    ) -> Result<(), Error> {
        network::connect(self, container, connection)
    }

    /// `network disconnect`, likewise.
    pub fn disconnect_network(
        &mut self,
        container: &str,
        network: &str,
        force: bool,
    ) -> Result<(), Error> {
        network::disconnect(self, container, network, force)
    }

    /// `network prune`: removes the user networks without running containers that `wanted` names, and returns them.
    pub fn prune_networks(
        &mut self,
        wanted: impl Fn(&netmgr::Network) -> bool,
    ) -> Result<Vec<netmgr::Network>, Error> {
        let pruned = network::prune(self, wanted)?;
        events::record_prune(&self.conn, events::Subject::Network, 0)?;
        Ok(pruned)
    }

    /// The network of this name, ID or unique prefix of an ID, and who is attached to it.
    pub fn find_network(
        &mut self,
        name: &str,
    ) -> Result<(netmgr::Network, Vec<netmgr::Endpoint>), Error> {
        self.enter_default_network()?;
        let network = netmgr::store::find_network(&self.conn, name)?;
        let endpoints = netmgr::store::endpoints_on(&self.conn, &network.id)?;
        Ok((network, endpoints))
    }

    /// With the endpoints attached to each.
    pub fn networks(&mut self) -> Result<Vec<(netmgr::Network, Vec<netmgr::Endpoint>)>, Error> {
        self.enter_default_network()?;
        let model = self.model()?;
        let of = |id: &str| {
            model
                .endpoints
                .iter()
                .filter(|e| e.network_id == id)
                .cloned()
                .collect()
        };
        Ok(model
            .networks
            .iter()
            .map(|network| (network.clone(), of(&network.id)))
            .collect())
    }

    /// The default network is there from the first look on, as in Docker; its bridge is made when a container needs it.
    fn enter_default_network(&mut self) -> Result<(), Error> {
        let known = netmgr::store::networks(&self.conn)?;
        if known.iter().any(|n| n.name == netmgr::Network::DEFAULT) {
            return Ok(());
        }
        netmgr::change(&self.settings.network, &mut self.conn, |edit| {
            edit.default_network()?;
            Ok(())
        })
    }
}
