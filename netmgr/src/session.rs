//! One command's hold on the kernel: from a plan to what is applied, and back when something fails.
//!
//! Every way of changing the kernel (a change, repair, up, reload, down) ends here, under the lock and with a journal.

use std::collections::{HashMap, HashSet};

use rusqlite::Connection;

use crate::change::{Firewall, Netns, Settings};
use crate::error::Error;
use crate::firewall::iptables;
use crate::firewall::mend::{Goal, Known};
use crate::firewall::ruleset::Table;
use crate::journal::{Journal, Live, Lock, State};
use crate::model::{Family, Model, Profile};
use crate::plan::{self, Aim, Found, FoundLink, Op};
use crate::{apply, edit, kernel, store};

/// What one change does, from model to model.
pub(crate) struct Step {
    pub(crate) before: Model,
    pub(crate) after: Model,
    pub(crate) effects: edit::Effects,
}

/// What was applied, until the transaction has committed.
pub(crate) struct Done {
    ops: Vec<Op>,
    netns: HashMap<String, Netns>,
    went_live: bool,
}

/// The lock is held, for as long as this value lives.
pub(crate) struct Session<'a> {
    settings: &'a Settings,
    live: Live,
    lock: Lock,
}

impl<'a> Session<'a> {
    pub(crate) fn begin(settings: &'a Settings) -> Result<Session<'a>, Error> {
        Ok(Session {
            lock: Lock::acquire(&settings.run_root)?,
            live: Live::now(settings)?,
            settings,
        })
    }

    pub(crate) fn state(&self) -> Result<State, Error> {
        self.live.state(&self.settings.run_root)
    }

    fn rules(&self) -> plan::Rules {
        match self.settings.firewall {
            Firewall::None => plan::Rules::Omitted,
            Firewall::Auto | Firewall::Iptables | Firewall::Nftables => plan::Rules::Written,
        }
    }

    /// Mends what a killed change has left: to what is committed, or to nothing if it was the first change.
    pub(crate) fn repair(&self, conn: &Connection) -> Result<(), Error> {
        let Some(journal) = Journal::read(&self.settings.run_root)? else {
            return Ok(());
        };
        tracing::warn!("the last change was cut short: repairing");
        let model = store::load_model(conn, self.settings.profile)?;
        self.mend(&model, self.goal(&model)?, &journal).map(|_| ())
    }

    fn goal(&self, model: &Model) -> Result<Goal, Error> {
        Ok(match self.state()? {
            State::Down if model.endpoints.is_empty() => Goal::Gone,
            _ => Goal::Stand,
        })
    }

    /// Compares the kernel with a model (or with nothing) and mends it. `journal` is of the change that failed.
    pub(crate) fn mend(
        &self,
        model: &Model,
        goal: Goal,
        journal: &Journal,
    ) -> Result<Vec<String>, Error> {
        let run_root = &self.settings.run_root;
        let mut found = self.look(journal)?;
        if goal == Goal::Gone
            && self.settings.profile == Profile::Docker
            && self.state()? == State::Down
        {
            keep_what_is_known(&mut found, journal);
        }
        let aim = self.aim(goal);
        let mending = plan::from_found(&found, model, model, aim, &HashSet::new());
        if !mending.ops.is_empty() {
            Journal::of(&mending.ops).and(journal).write(run_root)?;
            self.apply(&mending.ops, &HashMap::new())?;
        }
        match goal {
            Goal::Stand => self.live.write(run_root)?,
            Goal::Gone => {
                kernel::host::restore(run_root)?;
                Live::remove(run_root)?;
            }
        }
        Journal::remove(run_root)?;
        Ok(mending.notes)
    }

    fn apply(&self, ops: &[Op], netns: &HashMap<String, Netns>) -> Result<(), Error> {
        let _passed_on = self.lock.pass_on()?;
        Ok(apply::run(self.settings, ops, netns)?)
    }

    fn aim(&self, goal: Goal) -> Aim {
        Aim {
            links: goal,
            rules: match self.rules() {
                plan::Rules::Written => goal,
                plan::Rules::Omitted => Goal::Gone,
            },
        }
    }

    /// Brings the kernel from the model before to the model after; on failure it is as it was.
    pub(crate) fn bring_along(&self, step: &Step) -> Result<Done, Error> {
        let state = self.state()?;
        let by_kernel = &step.effects.by_kernel;
        let rules = match state {
            State::Up => self.rules(),
            State::Down | State::Different { .. } => plan::Rules::Omitted,
        };
        let differs = step.before != step.after;
        let look_first = match state {
            State::Up => false,
            State::Down => step.effects.needs_kernel,
            State::Different { .. } => step.effects.needs_kernel || differs,
        };
        if look_first {
            return self.look_and_apply(step, &Journal::default());
        }
        let ops = plan::between(&step.before, &step.after, rules, by_kernel);
        // Without anything in place an entry in the tables (the default network's) asks nothing of the kernel.
        let ops = match state {
            State::Down => ops.into_iter().filter(removes).collect(),
            _ => ops,
        };
        if ops.is_empty() {
            return Ok(Done {
                ops,
                netns: step.effects.netns.clone(),
                went_live: false,
            });
        }
        let journal = Journal::of(&ops);
        journal.write(&self.settings.run_root)?;
        match self.apply(&ops, &step.effects.netns) {
            Ok(()) => Ok(Done {
                ops,
                netns: step.effects.netns.clone(),
                went_live: false,
            }),
            Err(error) if state == State::Up => {
                // Someone else has changed what is ours (`iptables -F`, a removed bridge): look, and mend on the way.
                tracing::warn!(%error, "the kernel is not as the tables say: reading it");
                self.look_and_apply(step, &journal)
            }
            Err(error) => Err(self.give_up(step, &journal, error)),
        }
    }

    /// The slow way: plans from what is in the kernel.
    fn look_and_apply(&self, step: &Step, journal: &Journal) -> Result<Done, Error> {
        let look = || -> Result<Vec<Op>, Error> {
            let found = self.look(journal)?;
            self.refuse_other_engine(&found)?;
            let aim = self.aim(Goal::Stand);
            let by_kernel = &step.effects.by_kernel;
            Ok(plan::from_found(&found, &step.before, &step.after, aim, by_kernel).ops)
        };
        let ops = look().map_err(|error| self.give_up(step, journal, error))?;
        let journal = Journal::of(&ops).and(journal);
        let run = || -> Result<(), Error> {
            journal.write(&self.settings.run_root)?;
            self.apply(&ops, &step.effects.netns)?;
            self.live.write(&self.settings.run_root)
        };
        match run() {
            Ok(()) => Ok(Done {
                ops,
                netns: step.effects.netns.clone(),
                went_live: true,
            }),
            Err(error) => Err(self.give_up(step, &journal, error)),
        }
    }

    /// A change has failed and what it did was rolled back. Make sure of that, since a batch is committed table by table
    /// and a roll-back can fail too; the journal stays until it is certain.
    fn give_up(&self, step: &Step, journal: &Journal, cause: Error) -> Error {
        if !Journal::is_pending(&self.settings.run_root) {
            return cause;
        }
        let mend = || {
            let goal = self.goal(&step.before)?;
            self.mend(&step.before, goal, journal)
        };
        match mend() {
            Ok(_) => cause,
            Err(repair) => Error::RepairFailed {
                cause: Box::new(cause),
                repair: Box::new(repair),
            },
        }
    }

    /// The transaction did not commit: nothing of it may stay.
    pub(crate) fn take_back(&self, done: &Done, cause: Error) -> Error {
        if done.ops.is_empty() {
            return cause;
        }
        let undo = || -> Result<(), Error> {
            let _passed_on = self.lock.pass_on()?;
            apply::roll_back(self.settings, &done.ops, &done.netns)?;
            if done.went_live {
                Live::remove(&self.settings.run_root)?;
            }
            Journal::remove(&self.settings.run_root)
        };
        match undo() {
            Ok(()) => cause,
            Err(repair) => Error::RepairFailed {
                cause: Box::new(cause),
                repair: Box::new(repair),
            },
        }
    }

    /// After the commit nothing may fail any more: a journal that stays makes the next command look once in vain.
    pub(crate) fn finish(&self, done: &Done) {
        if !done.ops.is_empty()
            && let Err(error) = Journal::remove(&self.settings.run_root)
        {
            tracing::warn!(%error, "the journal of a finished change stays");
        }
    }

    /// Reads the interfaces, and the rules if we write them or if an earlier command did.
    fn look(&self, journal: &Journal) -> Result<Found, Error> {
        let state = self.state()?;
        let links = kernel::links::list()?;
        let rules = match (self.rules(), state) {
            (plan::Rules::Written, _) => true,
            (plan::Rules::Omitted, State::Different { rules }) => rules,
            (plan::Rules::Omitted, _) => false,
        };
        let chains = match rules {
            false => None,
            true => {
                let mut all = Vec::new();
                for table in Table::ALL {
                    all.extend(iptables::parse(&kernel::commands::save(table.as_str())?));
                }
                Some(all)
            }
        };
        Ok(Found {
            forwarding: kernel::host::forwarding_enabled(Family::V4)?,
            links: links
                .into_iter()
                .map(|link| FoundLink {
                    is_bridge: link.kind == "bridge",
                    name: link.name,
                })
                .collect(),
            chains,
            journal_links: journal.links.iter().cloned().collect(),
            journal_rules: rules_of(journal),
        })
    }

    /// In the docker profile our names are a real Docker's. Whatever bears them while we have nothing up is not ours.
    fn refuse_other_engine(&self, found: &Found) -> Result<(), Error> {
        if self.settings.profile != Profile::Docker || self.state()? != State::Down {
            return Ok(());
        }
        let profile = self.settings.profile;
        let main = profile.chain_prefix();
        let chains = found.chains.iter().flatten().filter(|c| c.name == main);
        let links = found
            .links
            .iter()
            .filter(|l| l.name == profile.default_bridge());
        let mut in_place: Vec<String> = chains
            .map(|c| format!("{} in {}", c.name, c.table.as_str()))
            .collect();
        in_place.extend(links.map(|l| l.name.clone()));
        match in_place.is_empty() {
            true => Ok(()),
            false => Err(Error::OtherEngine {
                chains: in_place.join(", "),
            }),
        }
    }
}

/// In the docker profile our names are a real Docker's: with nothing of ours up, only what a killed change of ours was at
/// may be taken away.
fn keep_what_is_known(found: &mut Found, journal: &Journal) {
    found
        .links
        .retain(|link| found.journal_links.contains(&link.name));
    if journal.batches.is_empty() {
        found.chains = None;
    }
}

fn removes(op: &Op) -> bool {
    matches!(op, Op::RemoveVeth(_) | Op::RemoveBridge(_))
}

/// Every rule that a journal's batches name, in whichever direction.
fn rules_of(journal: &Journal) -> Known {
    let chains = journal
        .batches
        .iter()
        .flat_map(|batch| iptables::parse(batch));
    chains
        .flat_map(|chain| {
            let (table, name) = (chain.table, chain.name);
            chain
                .rules
                .into_iter()
                .map(move |rule| (table, name.clone(), rule.spec))
        })
        .collect()
}
