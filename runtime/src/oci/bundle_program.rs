//! The last steps of a bundle's program: as `program`, but with the sets of capabilities, the hooks and the descriptors that
//! its spec asks for.

use std::collections::HashMap;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use caps::{CapSet, CapsHashSet};
use libcontainer::capabilities::CapabilityExt;
use libcontainer::workload::{
    Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError,
};
use nix::errno::Errno;
use oci_spec::runtime::{Capabilities, Hook, LinuxCapabilities, Spec};
use rustix::fs::OFlags;

use super::Failure;
use super::program::{execute, find, find_by, words};
use crate::bundle::inside::Inside;
use crate::descriptors::close_from_but;
use crate::seccomp::{self, Filter};
use crate::standalone::hooks;

/// How a bundle's program is confined beyond what libcontainer does.
#[derive(Clone, Debug, Default)]
pub struct BundleConfinement {
    /// What it really gets; the spec that libcontainer sees holds two more, to load the filter with.
    pub capabilities: Option<LinuxCapabilities>,
    pub filter: Option<Filter>,
    pub preserve_fds: u32,
    /// `startContainer`, run in the container before the program.
    pub hooks: Vec<Hook>,
    /// What these hooks read: the container's state as JSON.
    pub state: String,
    /// Rows and columns of its terminal.
    pub console_size: Option<(u16, u16)>,
}

#[derive(Clone)]
pub(super) struct BundleProgram {
    confinement: Arc<BundleConfinement>,
    report: Arc<io::PipeWriter>,
}

impl BundleProgram {
    pub(super) fn new(confinement: BundleConfinement, report: io::PipeWriter) -> BundleProgram {
        BundleProgram {
            confinement: Arc::new(confinement),
            report: Arc::new(report),
        }
    }

    fn report(&self, failure: &Failure) -> String {
        let text = serde_json::to_vec(failure).unwrap_or_default();
        // After `create` has ended nobody reads any more.
        let _ = (&*self.report).write_all(&text);
        failure.message.clone()
    }

    fn confine(&self) -> Result<(), Failure> {
        let failed = |e: caps::errors::CapsError| Failure::internal("drop capabilities", &e);
        let sets = self.confinement.capabilities.as_ref();
        let set = |of: fn(&LinuxCapabilities) -> &Option<Capabilities>| -> CapsHashSet {
            let wanted = sets.and_then(|sets| of(sets).as_ref());
            wanted.into_iter().flatten().map(|c| c.to_cap()).collect()
        };
        let bounding = set(LinuxCapabilities::bounding);
        for capability in caps::all() {
            if !bounding.contains(&capability)
                && caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false)
            {
                caps::drop(None, CapSet::Bounding, capability).map_err(failed)?;
            }
        }
        if let Some(filter) = &self.confinement.filter {
            seccomp::load(filter)
                .map_err(|e| Failure::internal("load the seccomp filter", &io::Error::from(e)))?;
        }
        // libcontainer has set the inheritable and ambient ones; what is not permitted any more leaves the latter by itself.
        caps::set(None, CapSet::Effective, &set(LinuxCapabilities::effective)).map_err(failed)?;
        caps::set(None, CapSet::Permitted, &set(LinuxCapabilities::permitted)).map_err(failed)
    }

    fn prepare(&self) -> Result<(), Failure> {
        for hook in &self.confinement.hooks {
            hooks::run(hook, &self.confinement.state)
                .map_err(|e| Failure::internal("run a startContainer hook", &e))?;
        }
        if let Some((rows, columns)) = self.confinement.console_size {
            let size = rustix::termios::Winsize {
                ws_row: rows,
                ws_col: columns,
                ws_xpixel: 0,
                ws_ypixel: 0,
            };
            let _ = rustix::termios::tcsetwinsize(rustix::stdio::stdin(), size);
        }
        Ok(())
    }
}

/// Whether a file can be executed, without following what leads out of the container: libcontainer still holds a procfs of
/// the host. Such a path is left for the last moment to judge.
fn executable_inside(root: &Inside, path: &Path) -> Result<(), Errno> {
    let opened = match root.open(path, OFlags::PATH) {
        Ok(opened) => opened,
        Err(e) => {
            return match Errno::from_raw(e.raw_os_error().unwrap_or(0)) {
                missing @ (Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES) => Err(missing),
                _ => Ok(()),
            };
        }
    };
    let stat = rustix::fs::fstat(&opened).map_err(|e| Errno::from_raw(e.raw_os_error()))?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir() {
        Err(Errno::EISDIR)
    } else if stat.st_mode & 0o111 == 0 {
        Err(Errno::EACCES)
    } else {
        Ok(())
    }
}

impl Executor for BundleProgram {
    /// A program that is not there is told of by `create`, as engines expect.
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        let (args, env) = words(spec);
        let cwd = std::env::current_dir().unwrap_or_else(|_| "/".into());
        let found = Inside::new(Path::new("/")).map_or(Ok(()), |root| {
            find_by(args, env, |path| executable_inside(&root, &cwd.join(path))).map(drop)
        });
        found.map_err(|failure| ExecutorValidationError::ArgValidationError(self.report(&failure)))
    }

    /// The environment is handed to execve(2) as the spec has it, order included.
    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let (args, env) = words(spec);
        let prepared = self.prepare();
        // Before a path of the container's choice is looked at: see `program`.
        close_from_but(3 + self.confinement.preserve_fds, &[self.report.as_fd()]);
        let failure = match prepared.and_then(|()| find(args, env)) {
            Err(failure) => failure,
            Ok(path) => match self.confine() {
                Err(failure) => failure,
                Ok(()) => execute(&path, args, env),
            },
        };
        // On the container's own standard error: `start` has ended by now.
        eprintln!("{}", failure.message);
        Err(ExecutorError::Other(self.report(&failure)))
    }
}
