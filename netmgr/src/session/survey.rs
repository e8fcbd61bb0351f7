//! What a session would do, without doing it: for a preview, for the watch, and for the doctor.
//!
//! The plans come from the very functions that a change and a mending use.

use std::collections::HashSet;

use super::{Session, Step};
use crate::error::Error;
use crate::firewall::mend::Goal;
use crate::firewall::policy;
use crate::journal::{Journal, State};
use crate::kernel::{self, settle};
use crate::model::Model;
use crate::plan::{self, Op};

/// What a mending would do now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Survey {
    pub(crate) ops: Vec<Op>,
    /// What needs no inverse, of links that stand.
    pub(crate) settle: Vec<settle::Step>,
    /// FORWARD has lost the policy that we gave it.
    pub(crate) policy_lost: bool,
    pub(crate) notes: Vec<String>,
}

impl Session<'_> {
    /// What `reload` would do: nothing where nothing of ours is to be up.
    pub(crate) fn survey(&self, model: &Model) -> Result<Survey, Error> {
        if self.state()? == State::Down && model.endpoints.is_empty() {
            return Ok(Survey::default());
        }
        let found = self.look(&Journal::default())?;
        let aim = self.aim(Goal::Stand);
        let mending = plan::from_found(&found, model, model, aim, &HashSet::new());
        Ok(Survey {
            ops: mending.ops,
            settle: settle::steps(model)?,
            policy_lost: self.policy_lost()?,
            notes: mending.notes,
        })
    }

    /// What a change asks of the kernel, as [`Session::bring_along`] would plan it.
    pub(crate) fn plan_step(&self, step: &Step) -> Result<Vec<Op>, Error> {
        let state = self.state()?;
        match self.looks_first(step, state) {
            true => self.plan_from_found(step, &Journal::default()),
            false => Ok(self.plan_between(step, state)),
        }
    }

    fn policy_lost(&self) -> Result<bool, Error> {
        Ok(match self.rules() {
            plan::Rules::Written => {
                let user = policy::chain_names(self.settings.profile).user;
                kernel::host::policy_is_lost(&self.settings.run_root, &user)?
            }
            plan::Rules::Omitted => false,
        })
    }

    /// Before any rule: the first one makes the table, with the kernel's own policy.
    pub(super) fn policy_again(&self) -> Result<(), Error> {
        if self.policy_lost()? {
            let _passed_on = self.lock.pass_on()?;
            kernel::host::policy_again()?;
        }
        Ok(())
    }
}
