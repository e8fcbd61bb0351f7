//! Runs the operations of a plan against the kernel, and takes them back. Decides nothing.

use std::collections::HashMap;

use crate::change::{Netns, Settings};
use crate::firewall::committed;
use crate::firewall::ruleset::Table;
use crate::kernel;
use crate::model::Family;
use crate::plan::{Batch, Op, Tool, Veth};

mod executor;

pub use executor::Executor;
use executor::Host;

/// Runs `ops` in order. When one fails, those before it are taken back, last first, and the kernel is as it was.
///
/// `netns` holds the namespaces of the containers (by their ID) that get or lose a veth.
pub fn run(
    settings: &Settings,
    ops: &[Op],
    netns: &HashMap<String, Netns>,
) -> Result<(), kernel::Error> {
    run_on(&mut Host::open(settings)?, ops, netns)
}

/// As [`run`], against any kernel.
pub fn run_on(
    executor: &mut impl Executor,
    ops: &[Op],
    netns: &HashMap<String, Netns>,
) -> Result<(), kernel::Error> {
    let mut run = Run {
        executor,
        netns,
        tolerant: false,
    };
    let mut done = Vec::new();
    for op in ops {
        match run.execute(op) {
            Ok(Effect::Done) => done.push(op),
            Ok(Effect::Nothing) => {}
            Err(cause) => {
                return Err(with_undo(cause, run.undo_all(done.into_iter().rev())));
            }
        }
    }
    Ok(())
}

/// Takes back all of `ops`, last first, however many of them were run before the command was killed: what is not there
/// any more, or is there again, counts as taken back. Goes on after a failure and returns all of them.
///
/// What is in a container's namespace comes back only where `netns` holds that namespace: without it a removed veth is
/// not made anew, and default routes stay as they are.
pub fn roll_back(
    settings: &Settings,
    ops: &[Op],
    netns: &HashMap<String, Netns>,
) -> Result<(), kernel::Error> {
    roll_back_on(&mut Host::open(settings)?, ops, netns)
}

/// As [`roll_back`], against any kernel.
pub fn roll_back_on(
    executor: &mut impl Executor,
    ops: &[Op],
    netns: &HashMap<String, Netns>,
) -> Result<(), kernel::Error> {
    let mut run = Run {
        executor,
        netns,
        tolerant: true,
    };
    let mut errors = run.undo_all(ops.iter().rev());
    match errors.len() {
        0 => Ok(()),
        1 => Err(errors.remove(0)),
        _ => Err(kernel::Error::Several(errors)),
    }
}

/// Whether an operation has changed anything, and so has to be taken back.
enum Effect {
    Done,
    Nothing,
}

struct Run<'a, E> {
    executor: &'a mut E,
    netns: &'a HashMap<String, Netns>,
    /// Nobody knows how much of it was done: an inverse that finds nothing to do is no failure.
    tolerant: bool,
}

impl<'a, E: Executor> Run<'a, E> {
    fn execute(&mut self, op: &Op) -> Result<Effect, kernel::Error> {
        match op {
            Op::EnableForwarding(family) => {
                let changed = self.executor.enable_forwarding(*family)?;
                tracing::debug!(changed, "forwarding enabled");
                if !changed {
                    return Ok(Effect::Nothing);
                }
            }
            Op::CreateBridge(bridge) => {
                self.executor.create_bridge(bridge)?;
                tracing::debug!(bridge = bridge.name, gateway = %bridge.gateway, "bridge created");
            }
            Op::RemoveBridge(bridge) => {
                self.executor.remove_bridge(bridge)?;
                tracing::debug!(bridge = bridge.name, "bridge removed");
            }
            Op::CreateVeth(veth) => {
                let netns = self.netns_of(veth)?;
                self.executor.create_veth(veth, netns)?;
                tracing::debug!(
                    veth = veth.endpoint.host_interface,
                    bridge = veth.bridge,
                    address = %veth.endpoint.address,
                    container = veth.endpoint.container_name,
                    "veth created"
                );
            }
            Op::RemoveVeth(veth) => {
                self.executor.remove_veth(veth)?;
                tracing::debug!(veth = veth.endpoint.host_interface, "veth removed");
            }
            Op::JoinBridge(veth) => {
                self.executor.join_bridge(veth)?;
                tracing::debug!(
                    veth = veth.endpoint.host_interface,
                    bridge = veth.bridge,
                    "joined again"
                );
            }
            Op::DefaultRoute(change) => {
                let netns =
                    self.netns_of_container(&change.container_id, &change.container_name)?;
                self.executor
                    .set_default_route(netns, change.from.as_ref(), change.to.as_ref())?;
                tracing::debug!(container = change.container_name, "default route moved");
            }
            Op::ReservePorts(change) => {
                self.executor.reserve_ports(&change.after)?;
                tracing::debug!(runs = ?change.after, "ports reserved");
            }
            Op::Rules(batch) => {
                if let Err(cause) = self.executor.write_rules(batch.tool, &batch.forward) {
                    return Err(with_undo(cause, self.undo_committed(batch)));
                }
                tracing::debug!(
                    tool = ?batch.tool,
                    lines = batch.forward.lines().count(),
                    "rules applied"
                );
            }
        }
        Ok(Effect::Done)
    }

    fn undo_all<'o>(&mut self, ops: impl Iterator<Item = &'o Op>) -> Vec<kernel::Error> {
        let mut errors = Vec::new();
        for op in ops {
            match self.undo(op) {
                Ok(()) => tracing::debug!(?op, "taken back"),
                Err(error) => errors.push(error),
            }
        }
        errors
    }

    fn undo(&mut self, op: &Op) -> Result<(), kernel::Error> {
        match op {
            Op::EnableForwarding(family) => self.executor.restore_forwarding(*family),
            // A port of a bridge that is remade: it goes with that bridge.
            Op::JoinBridge(_) => Ok(()),
            Op::DefaultRoute(change) if self.is_out_of_reach(&change.container_id) => Ok(()),
            Op::DefaultRoute(change) => {
                let netns =
                    self.netns_of_container(&change.container_id, &change.container_name)?;
                match self.executor.set_default_route(
                    netns,
                    change.to.as_ref(),
                    change.from.as_ref(),
                ) {
                    Err(kernel::Error::DefaultRoute { source, .. })
                        if self.tolerant && source.raw_os_error() == Some(libc::ENODEV) =>
                    {
                        Ok(())
                    }
                    result => result,
                }
            }
            Op::ReservePorts(change) => self.executor.reserve_ports(&change.before),
            Op::CreateBridge(bridge) => self.executor.remove_bridge(bridge),
            Op::CreateVeth(veth) => self.executor.remove_veth(veth),
            // What a killed command left is not put back.
            Op::RemoveBridge(bridge) if bridge.is_stray() => Ok(()),
            Op::RemoveVeth(veth) if veth.is_stray() => Ok(()),
            Op::RemoveBridge(bridge) => match self.executor.create_bridge(bridge) {
                Err(kernel::Error::CreateBridge { source, .. })
                    if self.tolerant && source.raw_os_error() == Some(libc::EEXIST) =>
                {
                    Ok(())
                }
                result => result,
            },
            Op::RemoveVeth(veth) if self.is_out_of_reach(&veth.endpoint.container_id) => Ok(()),
            Op::RemoveVeth(veth) => {
                let netns = self.netns_of(veth)?;
                match self.executor.create_veth(veth, netns) {
                    Err(kernel::Error::CreateVeth { source, .. })
                        if self.tolerant && source.raw_os_error() == Some(libc::EEXIST) =>
                    {
                        Ok(())
                    }
                    // It was of a bridge that came with the same change.
                    Err(kernel::Error::FindBridge { source, .. })
                        if self.tolerant && source.raw_os_error() == Some(libc::ENODEV) =>
                    {
                        Ok(())
                    }
                    result => result,
                }
            }
            Op::Rules(batch) if self.tolerant => {
                let mut errors = self.undo_committed(batch);
                match errors.pop() {
                    None => Ok(()),
                    Some(error) if errors.is_empty() => Err(error),
                    Some(error) => {
                        errors.push(error);
                        Err(kernel::Error::Several(errors))
                    }
                }
            }
            Op::Rules(batch) => self.executor.write_rules(batch.tool, &batch.inverse),
        }
    }

    /// Takes back a batch of which some tables were committed and some were not: an inverse that meets a table that was
    /// not would put rules there a second time.
    fn undo_committed(&mut self, batch: &Batch) -> Vec<kernel::Error> {
        let family = match batch.tool {
            Tool::Iptables => Family::V4,
            Tool::Ip6tables => Family::V6,
            Tool::Nft => return self.undo_transaction(batch),
        };
        let listed = match self.executor.list_rules(family) {
            Ok(listed) => listed,
            Err(error) => return vec![error],
        };
        let committed: Vec<Table> = committed::parts(&batch.forward)
            .iter()
            .filter(|part| committed::is_committed(part, &listed))
            .map(|part| part.table)
            .collect();
        committed::parts(&batch.inverse)
            .iter()
            .filter(|part| committed.contains(&part.table))
            .filter_map(|part| {
                let written = self.executor.write_rules(batch.tool, &part.input);
                written.err()
            })
            .collect()
    }

    /// nft takes all or nothing. One that failed has changed nothing, and its inverse would take what somebody else has put
    /// there; of one of a killed command nobody knows, and the inverse fails where it was not run.
    fn undo_transaction(&mut self, batch: &Batch) -> Vec<kernel::Error> {
        if self.tolerant
            && let Err(error) = self.executor.write_rules(batch.tool, &batch.inverse)
        {
            tracing::debug!(%error, "nothing to take back");
        }
        Vec::new()
    }

    /// Nobody holds the namespace of a change that was killed: it is nothing that can be taken back here.
    fn is_out_of_reach(&self, container_id: &str) -> bool {
        self.tolerant && !self.netns.contains_key(container_id)
    }

    fn netns_of(&self, veth: &Veth) -> Result<&'a Netns, kernel::Error> {
        self.netns_of_container(&veth.endpoint.container_id, &veth.endpoint.container_name)
    }

    fn netns_of_container(&self, id: &str, name: &str) -> Result<&'a Netns, kernel::Error> {
        let found = self.netns.get(id);
        found.ok_or_else(|| kernel::Error::NetnsUnknown {
            container: name.to_owned(),
        })
    }
}

/// The failure, and what of taking back failed after it.
fn with_undo(cause: kernel::Error, undo: Vec<kernel::Error>) -> kernel::Error {
    match undo.is_empty() {
        true => cause,
        false => kernel::Error::RollBack {
            cause: Box::new(cause),
            undo,
        },
    }
}
