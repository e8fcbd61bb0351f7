//! Resource limits of the program (setrlimit(2)), kept from the processes that prepare it.
//!
//! libcontainer sets them early: with few open files allowed it could not go on. So it is only told to raise hard limits, for which
//! it still has the right, and the program's own process lowers all of them as its last step.

use oci_spec::runtime::{PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::Failure;

/// What the program is to have in the end.
#[derive(Clone, Debug, Default)]
pub(super) struct Rlimits(Vec<PosixRlimit>);

impl Rlimits {
    /// Takes the limits out of a description, and leaves there what must be raised.
    pub(super) fn take(process: &mut Process) -> Rlimits {
        let wanted = process.rlimits().clone().unwrap_or_default();
        let raised: Vec<PosixRlimit> = wanted.iter().filter_map(raised).collect();
        process.set_rlimits((!raised.is_empty()).then_some(raised));
        Rlimits(wanted)
    }

    pub(super) fn set(&self) -> Result<(), Failure> {
        for limit in &self.0 {
            let wanted = Rlimit {
                current: finite(limit.soft()),
                maximum: finite(limit.hard()),
            };
            setrlimit(resource(limit.typ()), wanted).map_err(|e| {
                let error = std::io::Error::from(e);
                Failure::internal(&format!("set the limit {}", limit.typ()), &error)
            })?;
        }
        Ok(())
    }
}

/// With our own soft limit for now; `None` if our hard limit is high enough.
fn raised(limit: &PosixRlimit) -> Option<PosixRlimit> {
    let own = getrlimit(resource(limit.typ()));
    let hard = own.maximum?;
    if limit.hard() <= hard {
        return None;
    }
    PosixRlimitBuilder::default()
        .typ(limit.typ())
        .soft(own.current.unwrap_or(hard))
        .hard(limit.hard())
        .build()
        .ok()
}

/// The largest number stands for no limit, in the spec as in the kernel.
fn finite(value: u64) -> Option<u64> {
    (value != u64::MAX).then_some(value)
}

fn resource(kind: PosixRlimitType) -> Resource {
    match kind {
        PosixRlimitType::RlimitAs => Resource::As,
        PosixRlimitType::RlimitCore => Resource::Core,
        PosixRlimitType::RlimitCpu => Resource::Cpu,
        PosixRlimitType::RlimitData => Resource::Data,
        PosixRlimitType::RlimitFsize => Resource::Fsize,
        PosixRlimitType::RlimitLocks => Resource::Locks,
        PosixRlimitType::RlimitMemlock => Resource::Memlock,
        PosixRlimitType::RlimitMsgqueue => Resource::Msgqueue,
        PosixRlimitType::RlimitNice => Resource::Nice,
        PosixRlimitType::RlimitNofile => Resource::Nofile,
        PosixRlimitType::RlimitNproc => Resource::Nproc,
        PosixRlimitType::RlimitRss => Resource::Rss,
        PosixRlimitType::RlimitRtprio => Resource::Rtprio,
        PosixRlimitType::RlimitRttime => Resource::Rttime,
        PosixRlimitType::RlimitSigpending => Resource::Sigpending,
        PosixRlimitType::RlimitStack => Resource::Stack,
    }
}
