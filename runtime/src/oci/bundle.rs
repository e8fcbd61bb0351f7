//! A bundle that somebody else has written: its first process, and commands beside it. What libcontainer is given of its spec
//! is prepared by `standalone`; here it is run.

use std::io;
use std::path::{Path, PathBuf};

use libcontainer::container::Container as OciContainer;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use oci_spec::runtime::Process;

use super::bundle_program::{BundleConfinement, BundleProgram};
use super::{Failure, reported, run_beside};

/// Where the process's streams come from: the caller's own, or a terminal.
pub struct Wiring {
    /// A listening socket, to which the terminal's master is sent.
    pub console_socket: Option<PathBuf>,
    /// As many descriptors from 3 on are handed to the program.
    pub preserve_fds: u32,
    pub no_pivot: bool,
}

/// Creates the first process of the bundle in `bundle`; it waits for [`start`]. It is a child of the caller.
/// `state` is libcontainer's own directory.
pub fn create(
    id: &str,
    state: &Path,
    bundle: &Path,
    wiring: Wiring,
    confinement: BundleConfinement,
) -> Result<i32, Failure> {
    let (report, writer) = io::pipe().map_err(|e| Failure::internal("make a pipe", &e))?;
    let no_pivot = wiring.no_pivot;
    let container = builder(id, state, wiring, BundleProgram::new(confinement, writer))?
        .as_init(bundle)
        .with_systemd(false)
        .with_detach(true)
        .with_no_pivot(no_pivot)
        .build()
        .map_err(|e| {
            reported(&report).unwrap_or_else(|| Failure::internal("create the container", &e))
        })?;
    Ok(container.pid().map(|pid| pid.as_raw()).unwrap_or_default())
}

/// Lets the program of a created container run.
pub fn start(id: &str, state: &Path) -> Result<(), Failure> {
    OciContainer::load(state.join(id))
        .and_then(|mut container| container.start())
        .map_err(|e| Failure::internal("start the container", &e))
}

/// Runs a command in a running container; returns its pid once it has been executed. It is a child of the caller.
pub fn exec(
    id: &str,
    state: &Path,
    process_file: &Path,
    process: &Process,
    sub_cgroup: Option<String>,
    wiring: Wiring,
    confinement: BundleConfinement,
) -> Result<i32, Failure> {
    let (report, writer) = io::pipe().map_err(|e| Failure::internal("make a pipe", &e))?;
    let builder = builder(id, state, wiring, BundleProgram::new(confinement, writer))?;
    run_beside(builder, process_file, process, sub_cgroup, report)
}

fn builder(
    id: &str,
    state: &Path,
    wiring: Wiring,
    program: BundleProgram,
) -> Result<ContainerBuilder, Failure> {
    let builder = ContainerBuilder::new(id.to_owned(), SyscallType::default())
        .with_root_path(state)
        .map_err(|e| Failure::internal("use the state directory", &e))?
        .with_executor(program);
    Ok(builder
        .with_preserved_fds(wiring.preserve_fds as i32)
        .with_console_socket(wiring.console_socket))
}
