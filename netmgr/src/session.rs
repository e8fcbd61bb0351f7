//! One command's hold on the kernel: from a plan to what is applied, and back when something fails.
//!
//! Every way of changing the kernel (a change, repair, up, reload, down) ends here, under the lock and with a journal.

mod look;
mod survey;

use std::collections::{HashMap, HashSet};

use rusqlite::{Connection, Transaction};

use crate::change::{Firewall, Netns, Settings};
use crate::edit::Edit;
use crate::error::Error;
use crate::firewall::mend::Goal;
use crate::journal::{Journal, Live, Lock, Marker, State};
use crate::kernel::{commands, conntrack};
use crate::model::{Family, Model, Profile};
use crate::plan::{self, Aim, Backend, Op, RulesAim, Written};
use crate::stale::{stale, vacated};
use crate::{apply, edit, kernel, store};

pub(crate) use look::table;

/// The network namespaces of containers, by their ID.
pub(crate) type Namespaces = HashMap<String, Netns>;

/// What one change does, from model to model.
pub(crate) struct Step {
    pub(crate) before: Model,
    pub(crate) after: Model,
    pub(crate) effects: edit::Effects,
}

impl Step {
    /// Runs an edit in an open transaction; the models before and after tell what it comes to.
    pub(crate) fn of<T, E: From<Error>>(
        settings: &Settings,
        tx: &Transaction<'_>,
        edit: impl FnOnce(&mut Edit<'_>) -> Result<T, E>,
    ) -> Result<(T, Step), E> {
        let before = store::load_model(tx, settings.profile)?;
        let mut edit_of = Edit::new(settings, tx);
        let value = edit(&mut edit_of)?;
        let effects = edit_of.effects;
        let after = store::load_model(tx, settings.profile)?;
        let step = Step {
            before,
            after,
            effects,
        };
        Ok((value, step))
    }
}

/// A plan for a step, and what the live marker is to say once it has been applied; `None`: what it says now.
pub(crate) struct Planned {
    pub(crate) ops: Vec<Op>,
    pub(crate) live: Option<Written>,
}

/// What was applied, until the transaction has committed.
pub(crate) struct Done {
    ops: Vec<Op>,
    netns: Namespaces,
    /// The live marker as it was, where a new one was written.
    was_live: Option<Marker>,
}

impl Done {
    /// Nothing was planned, so there is no journal either.
    fn is_nothing(&self) -> bool {
        self.ops.is_empty() && self.was_live.is_none()
    }
}

/// The lock is held, for as long as this value lives.
pub(crate) struct Session {
    /// With a firewall that is decided: never [`Firewall::Auto`].
    settings: Settings,
    live: Live,
    lock: Lock,
}

impl Session {
    pub(crate) fn begin(settings: &Settings) -> Result<Session, Error> {
        let settings = Settings {
            firewall: decided(settings)?,
            ..settings.clone()
        };
        let written = Written {
            backend: backend(settings.firewall),
            ..Written::default()
        };
        Ok(Session {
            lock: Lock::acquire(&settings.run_root)?,
            live: Live::now(&settings, written)?,
            settings,
        })
    }

    pub(crate) fn state(&self) -> Result<State, Error> {
        self.live.state(&self.settings.run_root)
    }

    fn backend(&self) -> Backend {
        backend(self.settings.firewall)
    }

    /// Mends what a killed change has left: to what is committed, or to nothing if it was the first change.
    pub(crate) fn repair(&self, conn: &Connection) -> Result<(), Error> {
        let Some(journal) = Journal::read(&self.settings.run_root)? else {
            return Ok(());
        };
        tracing::warn!("the last change was cut short: repairing");
        let model = store::load_model(conn, self.settings.profile)?;
        let goal = self.goal(&model)?;
        let netns = self.namespaces(conn, &journal);
        self.mend(&model, goal, &journal, &netns).map(|_| ())
    }

    /// Those of the containers that a killed change was at, where they still run.
    fn namespaces(&self, conn: &Connection, journal: &Journal) -> Namespaces {
        let Some(find) = self.settings.namespace_of else {
            return Namespaces::new();
        };
        let found = |id: &String| Some((id.clone(), find(conn, id)?));
        journal.containers.iter().filter_map(found).collect()
    }

    fn goal(&self, model: &Model) -> Result<Goal, Error> {
        Ok(match self.state()? {
            State::Down if model.endpoints.is_empty() => Goal::Gone,
            _ => Goal::Stand,
        })
    }

    /// Compares the kernel with a model (or with nothing) and mends it; returns what the user is to be told. `journal` is
    /// of the change that failed.
    pub(crate) fn mend(
        &self,
        model: &Model,
        goal: Goal,
        journal: &Journal,
        netns: &Namespaces,
    ) -> Result<Vec<String>, Error> {
        if goal == Goal::Stand {
            self.policy_again()?;
        }
        let mending = self.mending(model, goal, journal, netns)?;
        let run_root = &self.settings.run_root;
        if !mending.ops.is_empty() {
            Journal::of(&mending.ops).and(journal).write(run_root)?;
            self.apply(&mending.ops, netns)?;
        }
        match goal {
            Goal::Stand => {
                kernel::settle::run(&kernel::settle::steps(model)?)?;
                kernel::reserved::replace(run_root, &plan::reserved(model))?;
                let written = self.written(model, mending.passage)?;
                self.live.write(run_root, written)?;
            }
            Goal::Gone => {
                kernel::reserved::replace(run_root, &[])?;
                kernel::host::restore(run_root)?;
                Live::remove(run_root)?;
            }
        }
        Journal::remove(run_root)?;
        Ok(mending.notes)
    }

    /// What [`Session::mend`] would do.
    pub(crate) fn mending(
        &self,
        model: &Model,
        goal: Goal,
        journal: &Journal,
        netns: &Namespaces,
    ) -> Result<plan::Mending, Error> {
        let mut found = self.look(model, journal, look::Depth::Everything)?;
        if goal == Goal::Gone
            && self.settings.profile == Profile::Docker
            && self.state()? == State::Down
        {
            look::keep_what_is_known(&mut found, journal);
        }
        found.reachable = netns.keys().cloned().collect();
        let touched = journal
            .containers
            .iter()
            .filter(|id| netns.contains_key(*id));
        found.astray = touched.cloned().collect();
        let aim = self.aim(goal, model)?;
        Ok(plan::from_found(&found, model, model, aim, &HashSet::new()))
    }

    fn apply(&self, ops: &[Op], netns: &Namespaces) -> Result<(), Error> {
        let _passed_on = self.lock.pass_on()?;
        Ok(apply::run(&self.settings, ops, netns)?)
    }

    fn aim(&self, goal: Goal, model: &Model) -> Result<Aim, Error> {
        let stands = |backend| match self.backend() == backend {
            true => goal,
            false => Goal::Gone,
        };
        Ok(Aim {
            links: goal,
            iptables: match (goal, self.backend()) {
                (Goal::Gone, _) | (_, Backend::None) => RulesAim::Gone,
                (Goal::Stand, Backend::Iptables) => RulesAim::Policy,
                (Goal::Stand, Backend::Nftables) => RulesAim::Passage,
            },
            nftables: stands(Backend::Nftables),
            ipv6: self.wants_ipv6(model)?,
        })
    }

    /// From the first network with IPv6 on, until `system down`.
    fn wants_ipv6(&self, model: &Model) -> Result<bool, Error> {
        Ok(model.has_v6() || self.state()?.written().ipv6)
    }

    fn written(&self, model: &Model, passage: bool) -> Result<Written, Error> {
        Ok(Written {
            backend: self.backend(),
            ipv6: self.wants_ipv6(model)?,
            passage,
        })
    }

    /// Brings the kernel from the model before to the model after; on failure it is as it was.
    pub(crate) fn bring_along(&self, step: &Step) -> Result<Done, Error> {
        let planned = self.plan_step(step, &Journal::default())?;
        if planned.live.is_none() && planned.ops.is_empty() {
            return Ok(Done {
                ops: Vec::new(),
                netns: Namespaces::new(),
                was_live: None,
            });
        }
        let looked = planned.live.is_some();
        let journal = Journal::of(&planned.ops);
        match self.carry_out(planned, &journal, step) {
            Ok(done) => Ok(done),
            Err(error) if !looked && matches!(self.state()?, State::Up(_)) => {
                // Someone else has changed what is ours (`iptables -F`, a removed bridge): look, and mend on the way.
                tracing::warn!(%error, "the kernel is not as the tables say: reading it");
                let planned = self
                    .plan_from_found(step, &journal)
                    .map_err(|error| self.give_up(step, &journal, error))?;
                let journal = Journal::of(&planned.ops).and(&journal);
                self.carry_out(planned, &journal, step)
                    .map_err(|error| self.give_up(step, &journal, error))
            }
            Err(error) => Err(self.give_up(step, &journal, error)),
        }
    }

    fn carry_out(&self, planned: Planned, journal: &Journal, step: &Step) -> Result<Done, Error> {
        journal.write(&self.settings.run_root)?;
        self.apply(&planned.ops, &step.effects.netns)?;
        let mut was_live = None;
        if let Some(written) = planned.live {
            was_live = Some(Marker::read(&self.settings.run_root)?);
            self.live.write(&self.settings.run_root, written)?;
        }
        Ok(Done {
            ops: planned.ops,
            netns: step.effects.netns.clone(),
            was_live,
        })
    }

    /// What a step does to the kernel. Trusts the kernel to be as the tables say where that is known, and looks where it
    /// is not.
    pub(crate) fn plan_step(&self, step: &Step, journal: &Journal) -> Result<Planned, Error> {
        let state = self.state()?;
        let differs = step.before != step.after;
        let look_first = match state {
            State::Up(written) => step.after.has_v6() && !written.ipv6,
            State::Down => step.effects.needs_kernel,
            State::Different(_) => step.effects.needs_kernel || differs,
        };
        if look_first {
            return self.plan_from_found(step, journal);
        }
        let written = match state {
            State::Up(written) => written,
            State::Down | State::Different(_) => Written::default(),
        };
        let by_kernel = &step.effects.by_kernel;
        let ops = plan::between(&step.before, &step.after, written, by_kernel);
        // Without anything in place an entry in the tables (the default network's) asks nothing of the kernel.
        let ops = match state {
            State::Down => ops.into_iter().filter(removes).collect(),
            _ => ops,
        };
        Ok(Planned { ops, live: None })
    }

    /// The slow way: plans from what is in the kernel.
    fn plan_from_found(&self, step: &Step, journal: &Journal) -> Result<Planned, Error> {
        let found = self.look(&step.after, journal, look::Depth::Needed)?;
        self.refuse_other_engine(&found)?;
        let aim = self.aim(Goal::Stand, &step.after)?;
        let by_kernel = &step.effects.by_kernel;
        let mending = plan::from_found(&found, &step.before, &step.after, aim, by_kernel);
        Ok(Planned {
            ops: mending.ops,
            live: Some(self.written(&step.after, mending.passage)?),
        })
    }

    /// A change has failed and what it did was rolled back. Make sure of that, since a batch is committed table by table
    /// and a roll-back can fail too; the journal stays until it is certain.
    fn give_up(&self, step: &Step, journal: &Journal, cause: Error) -> Error {
        if !Journal::is_pending(&self.settings.run_root) {
            return cause;
        }
        let mend = || {
            let goal = self.goal(&step.before)?;
            self.mend(&step.before, goal, journal, &step.effects.netns)
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
        if done.is_nothing() {
            return cause;
        }
        let undo = || -> Result<(), Error> {
            let _passed_on = self.lock.pass_on()?;
            apply::roll_back(&self.settings, &done.ops, &done.netns)?;
            if let Some(marker) = &done.was_live {
                marker.put_back(&self.settings.run_root)?;
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

    /// After the commit nothing may fail any more: a journal that stays makes the next command look once in vain, and a
    /// connection that stays in the kernel's table goes by its own time-out.
    pub(crate) fn finish(&self, done: &Done, step: &Step) {
        if !done.is_nothing()
            && let Err(error) = Journal::remove(&self.settings.run_root)
        {
            tracing::warn!(%error, "the journal of a finished change stays");
        }
        if self.backend() == Backend::None {
            return;
        }
        let vacated = vacated(&step.before, &step.after);
        for forgotten in [
            conntrack::flush(&stale(&step.before, &step.after)),
            conntrack::forget(&vacated),
        ] {
            match forgotten {
                Ok(0) => {}
                Ok(count) => tracing::debug!(count, "stale connections forgotten"),
                Err(error) => tracing::warn!(%error, "stale connections stay"),
            }
        }
    }

    /// In the docker profile our names are a real Docker's. Whatever bears them while we have nothing up is not ours.
    fn refuse_other_engine(&self, found: &plan::Found) -> Result<(), Error> {
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

/// `auto` stays with the rules that stand: commands of different settings beside each other do not write all of them anew
/// by turns. With none it takes iptables where that works, else nftables; where neither does, the error is that of iptables.
fn decided(settings: &Settings) -> Result<Firewall, Error> {
    if settings.firewall != Firewall::Auto {
        return Ok(settings.firewall);
    }
    let standing = Live::now(settings, Written::default())?.state(&settings.run_root)?;
    let has = |name| commands::path(name).is_some();
    Ok(match standing.written().backend {
        Backend::Iptables => Firewall::Iptables,
        Backend::Nftables => Firewall::Nftables,
        Backend::None if has("nft") && commands::save(Family::V4, "nat").is_err() => {
            Firewall::Nftables
        }
        Backend::None => Firewall::Iptables,
    })
}

/// The backend that a command with these settings writes.
pub(crate) fn standing_backend(settings: &Settings) -> Result<Backend, Error> {
    Ok(backend(decided(settings)?))
}

fn backend(decided: Firewall) -> Backend {
    match decided {
        Firewall::None => Backend::None,
        Firewall::Nftables => Backend::Nftables,
        Firewall::Auto | Firewall::Iptables => Backend::Iptables,
    }
}

fn removes(op: &Op) -> bool {
    matches!(op, Op::RemoveVeth(_) | Op::RemoveBridge(_))
}
