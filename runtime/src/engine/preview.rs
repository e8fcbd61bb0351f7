//! What a command would do to networks and rules (`--dry-run`), and what the rules that are there are for.

use netmgr::preview::Preview;

use super::{Engine, care, create, network};
use crate::error::Error;
use crate::request::{ContainerRequest, NetworkMode};
use crate::store;

impl Engine {
    /// `network create --dry-run`.
    pub fn preview_create_network(
        &mut self,
        request: &netmgr::NetworkRequest,
    ) -> Result<Preview<()>, Error> {
        self.preview(|edit| {
            edit.create_network(request)?;
            Ok(())
        })
    }

    /// `network rm --dry-run`.
    pub fn preview_remove_network(&mut self, name: &str) -> Result<Preview<()>, Error> {
        self.preview(|edit| {
            edit.remove_network(name)?;
            Ok(())
        })
    }

    /// `run --dry-run`: what a container of this request would need of networks and rules.
    pub fn preview_run(&mut self, request: &ContainerRequest) -> Result<Preview<()>, Error> {
        let image = create::find_image(&self.conn, &self.settings.root, request)?;
        // No container, no namespace: planning asks nothing of it.
        let netns = netmgr::kernel::netns::current().map_err(netmgr::Error::from)?;
        self.preview(|edit| {
            let container = create::draft(edit.transaction(), &image, request)?;
            if let Some(name) = &request.name
                && let Ok(other) = store::find(edit.transaction(), name)
                && other.container.name == *name
            {
                return Err(Error::NameInUse {
                    name: name.clone(),
                    holder: other.container.id,
                });
            }
            match request.network {
                NetworkMode::Host | NetworkMode::None | NetworkMode::Container(_) => {}
                _ => drop(network::attach_all(edit, &container, &netns)?),
            }
            Ok(())
        })
    }

    fn preview(
        &mut self,
        edit: impl FnOnce(&mut netmgr::Edit<'_>) -> Result<(), Error>,
    ) -> Result<Preview<()>, Error> {
        netmgr::preview::change(&self.settings.network, &mut self.conn, edit)
    }

    /// `network reload --dry-run`, `system reload --dry-run`.
    pub fn preview_reload(&mut self) -> Result<Preview<()>, Error> {
        let namespaces = care::namespaces(self)?;
        let of = |id: &str| namespaces.get(id).cloned();
        Ok(netmgr::preview::reload(
            &self.settings.network,
            &self.conn,
            &of,
        )?)
    }

    /// The rules of ours as the model has them, each with what it is for: what `system rules` prints.
    pub fn rules(&mut self) -> Result<Vec<ExplainedRule>, Error> {
        let model = self.model()?;
        let rules = netmgr::explain::explain(&self.settings.network, &model)?;
        Ok(rules
            .into_iter()
            .map(|rule| ExplainedRule {
                table: rule.table,
                rule: rule.rule,
                why: rule.why,
            })
            .collect())
    }
}

/// One rule and its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainedRule {
    pub table: String,
    /// `-A CHAIN ...`, as `iptables-save` would print it.
    pub rule: String,
    pub why: String,
}
