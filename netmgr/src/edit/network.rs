//! Networks enter the model and leave it.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Edit, options, random_id};
use crate::change::NetworkRequest;
use crate::error::Error;
use crate::model::{self, Network, OPTION_BRIDGE, OPTION_ICC};
use crate::store;

/// Networks that Docker has from the start. We keep only the first in the tables; the others have no bridge.
const PREDEFINED: [&str; 3] = [Network::DEFAULT, "host", "none"];

impl Edit<'_> {
    /// The default network, entered into the tables on first use. That alone makes no bridge: what needs it does.
    pub fn default_network(&mut self) -> Result<Network, Error> {
        if let Some(network) = store::network_named(self.tx, Network::DEFAULT)? {
            return Ok(network);
        }
        let (subnet, gateway) = self.default_subnet()?;
        let network = Network {
            id: random_id(),
            name: Network::DEFAULT.to_owned(),
            bridge: self.settings.profile.default_bridge().to_owned(),
            subnet,
            gateway,
            ip_range: None,
            v6: None,
            aux_addresses: Vec::new(),
            internal: false,
            icc: true,
            created: now(),
            labels: Vec::new(),
            options: Vec::new(),
        };
        store::insert_network(self.tx, &network)?;
        Ok(network)
    }

    /// Enters a new network into the model.
    pub fn create_network(&mut self, request: &NetworkRequest) -> Result<Network, Error> {
        if PREDEFINED.contains(&request.name.as_str()) {
            return Err(Error::CreatePredefined(request.name.clone()));
        }
        if !is_name(&request.name) {
            return Err(Error::NetworkName(request.name.clone()));
        }
        if store::network_named(self.tx, &request.name)?.is_some() {
            return Err(Error::NetworkExists(request.name.clone()));
        }
        options::check(request)?;
        // The default network comes first: its rules stand below all others.
        self.default_network()?;
        let id = random_id();
        let bridge = self.bridge_for(request, &id)?;
        let addressing = self.addressing_for(request)?;
        let icc = model::option(&request.options, OPTION_ICC).and_then(model::parse_bool);
        let network = Network {
            id,
            name: request.name.clone(),
            bridge,
            subnet: addressing.subnet,
            gateway: addressing.gateway,
            ip_range: request.ip_range,
            v6: addressing.v6,
            aux_addresses: request.aux_addresses.clone(),
            internal: request.internal,
            icc: icc.unwrap_or(true),
            created: now(),
            labels: request.labels.clone(),
            options: request.options.clone(),
        };
        store::insert_network(self.tx, &network)?;
        self.effects.needs_kernel = true;
        Ok(network)
    }

    fn bridge_for(&self, request: &NetworkRequest, id: &str) -> Result<String, Error> {
        let Some(name) = model::option(&request.options, OPTION_BRIDGE) else {
            let prefix = self.settings.profile.bridge_prefix();
            return Ok(format!("{prefix}{}", &id[..12]));
        };
        if !options::is_interface(name) {
            return Err(Error::BridgeName(name.to_owned()));
        }
        if store::has_bridge(self.tx, name)? {
            return Err(Error::BridgeTaken {
                network: request.name.clone(),
                bridge: name.to_owned(),
            });
        }
        if (self.host.interfaces)()?.iter().any(|other| other == name) {
            return Err(Error::InterfaceExists {
                network: request.name.clone(),
                bridge: name.to_owned(),
            });
        }
        Ok(name.to_owned())
    }

    /// Takes a network, by name, ID or unique prefix, out of the model; returns it.
    pub fn remove_network(&mut self, name: &str) -> Result<Network, Error> {
        if PREDEFINED.contains(&name) {
            return Err(Error::RemovePredefined(name.to_owned()));
        }
        let network = store::find_network(self.tx, name)?;
        if network.name == Network::DEFAULT {
            return Err(Error::RemovePredefined(network.name));
        }
        if store::is_in_use(self.tx, &network.id)? {
            return Err(Error::ActiveEndpoints {
                name: network.name,
                id: network.id,
            });
        }
        store::delete_network(self.tx, &network.id)?;
        Ok(network)
    }

    /// Takes all networks without endpoints out of the model that `wanted` says yes to; returns their names, oldest first.
    /// Which networks a stopped container will ask for again is the caller's knowledge, and so are filters.
    pub fn prune_networks(
        &mut self,
        wanted: impl Fn(&Network) -> bool,
    ) -> Result<Vec<String>, Error> {
        let mut pruned = Vec::new();
        for network in store::networks(self.tx)? {
            if network.name != Network::DEFAULT
                && wanted(&network)
                && !store::is_in_use(self.tx, &network.id)?
            {
                store::delete_network(self.tx, &network.id)?;
                pruned.push(network.name);
            }
        }
        Ok(pruned)
    }
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

fn now() -> String {
    let now = OffsetDateTime::now_utc();
    now.format(&Rfc3339)
        .expect("a year of four digits has an RFC 3339 form")
}
