//! The core loop: lock -> edit the tables -> policy -> plan -> apply -> commit.
//!
//! Everything that changes a network goes through [`change`]; nothing else in this crate writes to the kernel. A command
//! may be killed at any instant: before the first operation the journal is written, and whoever finds it mends the kernel
//! to what the tables say (see [`crate::journal`]). What an edit may do is in [`crate::edit`].

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::Ipv4Net;
use rusqlite::{Connection, TransactionBehavior};

pub use crate::edit::Edit;
use crate::error::Error;
use crate::firewall::iptables;
use crate::firewall::mend::{Goal, Known};
use crate::firewall::ruleset::Table;
use crate::journal::{Journal, Live, Lock, State};
use crate::model::{Endpoint, Model, Network, PortRequest, Profile};
use crate::plan::{self, Aim, Found, FoundLink, Op};
use crate::proxy::Forward;
use crate::{apply, kernel, store};

/// Which firewall is written. `--firewall`, and `--iptables=false` for [`Firewall::None`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Firewall {
    /// iptables where its binary works (nftables once that backend exists).
    #[default]
    Auto,
    Iptables,
    /// No rule at all; the loopback proxy still serves published ports.
    None,
}

/// Where state lives, and how the kernel is written. Built once by the caller.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `/var/lib/coracle`: the database and whatever must survive a reboot.
    pub root: PathBuf,
    /// `/run/coracle`: the lock, the journal of a change under way, what we changed of the host's own settings.
    pub run_root: PathBuf,
    pub firewall: Firewall,
    pub profile: Profile,
}

/// A container's network namespace, held open by a descriptor: it needs no name and no mount, and it goes when its
/// last holder does.
#[derive(Clone, Debug)]
pub struct Netns(pub Arc<OwnedFd>);

/// `network create`.
#[derive(Clone, Debug, Default)]
pub struct NetworkRequest {
    pub name: String,
    /// `None`: the next free one of the address pool.
    pub subnet: Option<Ipv4Net>,
    /// `None`: the first address of the subnet.
    pub gateway: Option<Ipv4Addr>,
    pub internal: bool,
    pub labels: Vec<(String, String)>,
    /// Driver options: `com.docker.network.bridge.name`, `com.docker.network.bridge.enable_icc`,
    /// `com.docker.network.bridge.enable_ip_masquerade`, `com.docker.network.driver.mtu`.
    pub options: Vec<(String, String)>,
}

/// A container joins a network.
#[derive(Clone, Debug)]
pub struct AttachRequest {
    pub container_id: String,
    pub container_name: String,
    /// Name, full ID or unique prefix of an ID. The default network is `bridge`.
    pub network: String,
    pub netns: Netns,
    pub ports: Vec<PortRequest>,
}

/// What [`Edit::attach`] hands back.
#[derive(Debug)]
pub struct Attachment {
    pub network: Network,
    pub endpoint: Endpoint,
    /// Listening sockets on the host, one for each published port and address family; the monitor serves them
    /// (see [`crate::proxy`]). While they are open no other program can take the port.
    pub forwards: Vec<Forward>,
}

/// Who takes the veth away on detach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VethRemoval {
    /// The namespace is dying with its last process: the kernel removes the pair, off our path (17 ms saved).
    ByKernel,
    /// The namespace lives on.
    Now,
}

/// Runs one change of the model and brings the kernel along: all of it happens, or nothing.
///
/// The edit runs under the lock and inside a transaction. When it succeeds, the difference between the models before
/// and after is planned and applied; only then the transaction commits. Any failure rolls the kernel back.
pub fn change<T, E: From<Error>>(
    settings: &Settings,
    conn: &mut Connection,
    edit: impl FnOnce(&mut Edit<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let session = Session::begin(settings)?;
    session.repair(conn)?;
    // Immediate: two commands must not both read and then both try to write.
    let tx = conn
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(store::failed("begin a change"))
        .map_err(E::from)?;
    let before = store::load_model(&tx, settings.profile)?;
    let mut edit_of = Edit::new(settings, &tx);
    let value = edit(&mut edit_of)?;
    let after = store::load_model(&tx, settings.profile)?;
    let step = Step {
        before,
        after,
        effects: edit_of.effects,
    };
    let done = session.bring_along(&step)?;
    match tx.commit() {
        Ok(()) => {
            session.finish(&done);
            Ok(value)
        }
        Err(source) => {
            let error = store::failed("commit a change")(source);
            Err(session.take_back(&done, error).into())
        }
    }
}

/// Cheap when nothing is wrong: mends what a killed command left half done (the journal says so).
pub fn repair(settings: &Settings, conn: &mut Connection) -> Result<(), Error> {
    if !Journal::is_pending(&settings.run_root) {
        return Ok(());
    }
    // It may also be the journal of a change that is still running: then there is nothing left once we have the lock.
    Session::begin(settings)?.repair(conn)
}

/// `system up`: the default network's bridge and the base chains, whether or not a container runs.
pub fn up(settings: &Settings, conn: &mut Connection) -> Result<(), Error> {
    change(settings, conn, |edit| {
        edit.effects.needs_kernel = true;
        edit.default_network().map(|_| ())
    })?;
    // Where something was in place already, the change took it on trust.
    reload(settings, conn)
}

/// `system reload`: compares the kernel with the model and mends every difference; `CORACLE-USER` stays as it is.
/// Where nothing is up, nothing is put up.
pub fn reload(settings: &Settings, conn: &mut Connection) -> Result<(), Error> {
    let session = Session::begin(settings)?;
    session.repair(conn)?;
    let model = store::load_model(conn, settings.profile)?;
    if session.state()? == State::Down && model.endpoints.is_empty() {
        return Ok(());
    }
    session
        .mend(&model, Goal::Stand, &Journal::default())
        .map(|_| ())
}

/// `system down`: removes every rule, chain and bridge of ours and gives the host back its sysctls and policies.
/// The networks stay in the database. Refused while containers are attached (the caller stops them first).
///
/// Returns what was left in place on purpose, in words: the administrator's chain, if it holds rules of theirs.
pub fn down(settings: &Settings, conn: &mut Connection) -> Result<Vec<String>, Error> {
    let session = Session::begin(settings)?;
    session.repair(conn)?;
    let model = store::load_model(conn, settings.profile)?;
    if !model.endpoints.is_empty() {
        let attached: HashSet<&str> = model
            .endpoints
            .iter()
            .map(|e| e.network_id.as_str())
            .collect();
        let names: Vec<&str> = model
            .networks
            .iter()
            .filter(|n| attached.contains(n.id.as_str()))
            .map(|n| n.name.as_str())
            .collect();
        return Err(Error::StillAttached {
            networks: names.join(", "),
        });
    }
    session.mend(&model, Goal::Gone, &Journal::default())
}

/// What one change does, from model to model.
struct Step {
    before: Model,
    after: Model,
    effects: crate::edit::Effects,
}

/// What was applied, until the transaction has committed.
struct Done {
    ops: Vec<Op>,
    went_live: bool,
}

/// The lock is held, for as long as this value lives.
struct Session<'a> {
    settings: &'a Settings,
    live: Live,
    _lock: Lock,
}

impl<'a> Session<'a> {
    fn begin(settings: &'a Settings) -> Result<Session<'a>, Error> {
        Ok(Session {
            _lock: Lock::acquire(&settings.run_root)?,
            live: Live::now(settings)?,
            settings,
        })
    }

    fn state(&self) -> Result<State, Error> {
        self.live.state(&self.settings.run_root)
    }

    fn rules(&self) -> plan::Rules {
        match self.settings.firewall {
            Firewall::None => plan::Rules::Omitted,
            Firewall::Auto | Firewall::Iptables => plan::Rules::Written,
        }
    }

    /// Mends what a killed change has left: to what is committed, or to nothing if it was the first change.
    fn repair(&self, conn: &Connection) -> Result<(), Error> {
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
    fn mend(&self, model: &Model, goal: Goal, journal: &Journal) -> Result<Vec<String>, Error> {
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
            apply::run(self.settings, &mending.ops, &Default::default())?;
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
    fn bring_along(&self, step: &Step) -> Result<Done, Error> {
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
                went_live: false,
            });
        }
        let journal = Journal::of(&ops);
        journal.write(&self.settings.run_root)?;
        match apply::run(self.settings, &ops, &step.effects.netns) {
            Ok(()) => Ok(Done {
                ops,
                went_live: false,
            }),
            Err(error) if state == State::Up => {
                // Someone else has changed what is ours (`iptables -F`, a removed bridge): look, and mend on the way.
                tracing::warn!(%error, "the kernel is not as the tables say: reading it");
                self.look_and_apply(step, &journal)
            }
            Err(error) => Err(self.give_up(step, &journal, error.into())),
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
            apply::run(self.settings, &ops, &step.effects.netns)?;
            self.live.write(&self.settings.run_root)
        };
        match run() {
            Ok(()) => Ok(Done {
                ops,
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
    fn take_back(&self, done: &Done, cause: Error) -> Error {
        if done.ops.is_empty() {
            return cause;
        }
        let undo = || -> Result<(), Error> {
            apply::roll_back(self.settings, &done.ops)?;
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
    fn finish(&self, done: &Done) {
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
            forwarding: kernel::host::forwarding_enabled()?,
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
