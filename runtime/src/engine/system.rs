//! Everything at once: up and down.

use super::{Engine, end};
use crate::error::Error;
use crate::store;

impl Engine {
    /// The firewall that is written, now that `auto` is decided.
    pub fn firewall(&self) -> Result<netmgr::plan::Backend, Error> {
        Ok(netmgr::change::backend(&self.settings.network)?)
    }

    /// Puts the default network up and starts what should run by its policy. Returns what could not be started, and why.
    pub fn system_up(&mut self) -> Result<Vec<(String, Error)>, Error> {
        netmgr::up(&self.settings.network, &mut self.conn)?;
        self.start_what_should_run()
    }

    /// Stops every container, then takes everything of ours off the host.
    /// Returns what was left in place on purpose, in words.
    pub fn system_down(&mut self) -> Result<Vec<String>, Error> {
        let running = store::owned(&self.conn)?;
        end::stop_all(self, &running)?;
        let notes = netmgr::down(&self.settings.network, &mut self.conn)?;
        crate::cgroup::sweep(|id| crate::monitor::processes(id).is_empty());
        crate::cgroup::remove_parent();
        Ok(notes)
    }
}
