//! Runs the operations of a plan against the kernel, and takes them back. Decides nothing.

use std::collections::HashMap;

use crate::change::{Netns, Settings};
use crate::kernel::netlink::Channel;
use crate::kernel::{self, bridge, commands, host, reserved, routes, veth};
use crate::plan::{Batch, Op, Tool, Veth};

/// Runs `ops` in order. When one fails, those before it are taken back, last first, and the kernel is as it was.
///
/// `netns` holds the namespaces of the containers (by their ID) that get or lose a veth.
pub fn run(
    settings: &Settings,
    ops: &[Op],
    netns: &HashMap<String, Netns>,
) -> Result<(), kernel::Error> {
    let mut run = Run::start(settings, netns)?;
    let mut done = Vec::new();
    for op in ops {
        match run.execute(op) {
            Ok(Effect::Done) => done.push(op),
            Ok(Effect::Nothing) => {}
            Err(cause) => {
                let undo = run.undo_all(done.into_iter().rev());
                return Err(match undo.is_empty() {
                    true => cause,
                    false => kernel::Error::RollBack {
                        cause: Box::new(cause),
                        undo,
                    },
                });
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
    let mut run = Run::start(settings, netns)?;
    run.tolerant = true;
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

struct Run<'a> {
    settings: &'a Settings,
    netns: &'a HashMap<String, Netns>,
    channel: Channel,
    /// Nobody knows how much of it was done: an inverse that finds nothing to do is no failure.
    tolerant: bool,
}

impl<'a> Run<'a> {
    fn start(
        settings: &'a Settings,
        netns: &'a HashMap<String, Netns>,
    ) -> Result<Run<'a>, kernel::Error> {
        Ok(Run {
            settings,
            netns,
            channel: Channel::open()?,
            tolerant: false,
        })
    }

    fn execute(&mut self, op: &Op) -> Result<Effect, kernel::Error> {
        match op {
            Op::EnableForwarding(family) => {
                let changed = host::enable_forwarding(
                    *family,
                    &self.settings.run_root,
                    self.settings.firewall,
                )?;
                tracing::debug!(changed, "forwarding enabled");
                if !changed {
                    return Ok(Effect::Nothing);
                }
            }
            Op::CreateBridge(bridge) => {
                bridge::create(&mut self.channel, bridge)?;
                tracing::debug!(bridge = bridge.name, gateway = %bridge.gateway, "bridge created");
            }
            Op::RemoveBridge(bridge) => {
                bridge::remove(&mut self.channel, bridge)?;
                tracing::debug!(bridge = bridge.name, "bridge removed");
            }
            Op::CreateVeth(veth) => {
                let netns = self.netns_of(veth)?;
                veth::create(&mut self.channel, veth, netns)?;
                tracing::debug!(
                    veth = veth.endpoint.host_interface,
                    bridge = veth.bridge,
                    address = %veth.endpoint.address,
                    container = veth.endpoint.container_name,
                    "veth created"
                );
            }
            Op::RemoveVeth(veth) => {
                veth::remove(&mut self.channel, veth)?;
                tracing::debug!(veth = veth.endpoint.host_interface, "veth removed");
            }
            Op::JoinBridge(veth) => {
                bridge::join(&mut self.channel, veth)?;
                tracing::debug!(
                    veth = veth.endpoint.host_interface,
                    bridge = veth.bridge,
                    "joined again"
                );
            }
            Op::DefaultRoute(change) => {
                let netns =
                    self.netns_of_container(&change.container_id, &change.container_name)?;
                routes::set_default(netns, change.from.as_ref(), change.to.as_ref())?;
                tracing::debug!(container = change.container_name, "default route moved");
            }
            Op::ReservePorts(change) => {
                reserved::replace(&self.settings.run_root, &change.after)?;
                tracing::debug!(runs = ?change.after, "ports reserved");
            }
            Op::Rules(batch) => {
                commands::write(batch.tool, &batch.forward).inspect_err(|_| match batch.tool {
                    Tool::Iptables | Tool::Ip6tables => undo_batch(batch),
                    // Refused as a whole, and the inverse would take what somebody else has put there.
                    Tool::Nft => {}
                })?;
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
            Op::EnableForwarding(family) => host::restore_family(*family, &self.settings.run_root),
            // A port of a bridge that is remade: it goes with that bridge.
            Op::JoinBridge(_) => Ok(()),
            Op::DefaultRoute(change) if self.is_out_of_reach(&change.container_id) => Ok(()),
            Op::DefaultRoute(change) => {
                let netns =
                    self.netns_of_container(&change.container_id, &change.container_name)?;
                match routes::set_default(netns, change.to.as_ref(), change.from.as_ref()) {
                    Err(kernel::Error::DefaultRoute { source, .. })
                        if self.tolerant && source.raw_os_error() == Some(libc::ENODEV) =>
                    {
                        Ok(())
                    }
                    result => result,
                }
            }
            Op::ReservePorts(change) => reserved::replace(&self.settings.run_root, &change.before),
            Op::CreateBridge(bridge) => bridge::remove(&mut self.channel, bridge),
            Op::CreateVeth(veth) => veth::remove(&mut self.channel, veth),
            Op::RemoveBridge(bridge) => match bridge::create(&mut self.channel, bridge) {
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
                match veth::create(&mut self.channel, veth, netns) {
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
                undo_batch(batch);
                Ok(())
            }
            Op::Rules(batch) => commands::write(batch.tool, &batch.inverse),
        }
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

/// Takes back a batch of which some tables were committed and some were not: each table by itself, as the command
/// commits them. An inverse that fails belongs to a table that was not committed: within one table it is all or nothing.
/// So it is for the whole of a batch for nft.
fn undo_batch(batch: &Batch) {
    let parts = match batch.tool {
        Tool::Iptables | Tool::Ip6tables => tables(&batch.inverse),
        Tool::Nft => vec![batch.inverse.clone()],
    };
    for part in parts {
        if let Err(error) = commands::write(batch.tool, &part) {
            tracing::debug!(%error, "nothing to take back");
        }
    }
}

/// The input, cut after each `COMMIT`.
fn tables(input: &str) -> Vec<String> {
    let mut tables = Vec::new();
    let mut table = String::new();
    for line in input.lines() {
        table.push_str(line);
        table.push('\n');
        if line.trim() == "COMMIT" {
            tables.push(std::mem::take(&mut table));
        }
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_is_cut_after_each_table() {
        let input = "*nat\n-A X\nCOMMIT\n# a note\n*filter\n-D Y\nCOMMIT\n";
        assert_eq!(
            tables(input),
            ["*nat\n-A X\nCOMMIT\n", "# a note\n*filter\n-D Y\nCOMMIT\n"]
        );
    }
}
