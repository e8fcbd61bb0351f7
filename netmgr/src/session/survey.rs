//! What a session would do, without doing it: for a preview, for the watch, and for the doctor.
//!
//! The plans come from the very functions that a change and a mending use.

use super::{Namespaces, Session};
use crate::error::Error;
use crate::firewall::mend::Goal;
use crate::firewall::policy;
use crate::journal::{Journal, State};
use crate::kernel::{self, settle};
use crate::model::{Family, Model};
use crate::plan::{Backend, Op};

/// What a mending would do now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Survey {
    pub(crate) ops: Vec<Op>,
    /// What needs no inverse, of links that stand.
    pub(crate) settle: Vec<settle::Step>,
    /// The families in which FORWARD has lost the policy that we gave it.
    pub(crate) policy_lost: Vec<Family>,
    pub(crate) notes: Vec<String>,
}

impl Session {
    /// What `reload` would do: nothing where nothing of ours is to be up.
    pub(crate) fn survey(&self, model: &Model, netns: &Namespaces) -> Result<Survey, Error> {
        if self.state()? == State::Down && model.endpoints.is_empty() {
            return Ok(Survey::default());
        }
        let mending = self.mending(model, Goal::Stand, &Journal::default(), netns)?;
        Ok(Survey {
            ops: mending.ops,
            settle: settle::steps(model)?,
            policy_lost: self.policy_lost()?,
            notes: mending.notes,
        })
    }

    /// The families in which FORWARD has lost the policy that we gave it.
    fn policy_lost(&self) -> Result<Vec<Family>, Error> {
        let mut lost = Vec::new();
        if self.backend() == Backend::Iptables {
            let user = policy::chain_names(self.settings.profile).user;
            for family in Family::ALL {
                if kernel::host::policy_is_lost(family, &self.settings.run_root, &user)? {
                    lost.push(family);
                }
            }
        }
        Ok(lost)
    }

    /// Before any rule: the first one makes the table, with the kernel's own policy.
    pub(super) fn policy_again(&self) -> Result<(), Error> {
        for family in self.policy_lost()? {
            let _passed_on = self.lock.pass_on()?;
            kernel::host::policy_again(family)?;
        }
        Ok(())
    }
}
