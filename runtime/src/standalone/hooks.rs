//! Hooks: programs of the engine's that are run at certain steps and read the container's state.
//!
//! libcontainer runs those that come before the container's root is entered, and tells them of the bundle that it was given,
//! which is one of ours. So each of them is wrapped: this program corrects what the hook reads, and becomes it.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use oci_spec::runtime::{Hook, HookBuilder};
use serde_json::Value;

#[derive(Debug, thiserror::Error)]
pub enum HookError {
    #[error("cannot be executed")]
    Execute(#[source] io::Error),
    #[error("failed: {0}")]
    Failed(std::process::ExitStatus),
    #[error("did not end within {0} seconds")]
    Timeout(u64),
}

/// Runs a hook with the state on its standard input, and waits for it.
pub fn run(hook: &Hook, state: &str) -> Result<(), HookError> {
    let mut command = Command::new(hook.path());
    match hook.args().as_deref().and_then(<[String]>::split_first) {
        Some((own_name, args)) => command.arg0(own_name).args(args),
        None => &mut command,
    };
    let env = hook
        .env()
        .iter()
        .flatten()
        .map(|entry| entry.split_once('=').unwrap_or((entry, "")));
    let mut child = command
        .env_clear()
        .envs(env)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .map_err(HookError::Execute)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook need not read it.
        let _ = stdin.write_all(state.as_bytes());
    }
    let limit = hook
        .timeout()
        .and_then(|seconds| u64::try_from(seconds).ok());
    match wait(&mut child, limit).map_err(HookError::Execute)? {
        None => Err(HookError::Timeout(limit.unwrap_or_default())),
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(HookError::Failed(status)),
    }
}

fn wait(child: &mut Child, seconds: Option<u64>) -> io::Result<Option<std::process::ExitStatus>> {
    let Some(seconds) = seconds else {
        return child.wait().map(Some);
    };
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            let _ = child.kill();
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The first word of a wrapper's command line.
const WRAPPED: &str = "coracle-oci-hook";

/// The hook as libcontainer is to run it. `/proc/self/exe` is this program, which is sealed by now.
pub(super) fn wrapped(hook: &Hook, bundle: &Path) -> Hook {
    let path = hook.path().display().to_string();
    let own = hook.args().clone().filter(|args| !args.is_empty());
    let mut args = vec![
        "coracle".to_owned(),
        WRAPPED.to_owned(),
        bundle.display().to_string(),
        path.clone(),
    ];
    args.extend(own.unwrap_or_else(|| vec![path]));
    let mut wrapped = HookBuilder::default()
        .path("/proc/self/exe")
        .args(args)
        .env(hook.env().clone().unwrap_or_default())
        .build()
        .expect("a hook needs a path and no more");
    wrapped.set_timeout(hook.timeout());
    wrapped
}

/// Becomes the wrapped hook if that is what this process was started for; call it first thing in `main`.
pub fn reexec() -> Option<i32> {
    let mut args = std::env::args_os().skip(1);
    if args.next()? != WRAPPED {
        return None;
    }
    let error = match become_hook(args) {
        Ok(error) | Err(error) => error,
    };
    eprintln!("cannot run a hook: {error}");
    Some(1)
}

fn become_hook(mut args: impl Iterator<Item = OsString>) -> io::Result<io::Error> {
    let missing = || io::Error::from(io::ErrorKind::InvalidInput);
    let bundle = args.next().ok_or_else(missing)?;
    let path = args.next().ok_or_else(missing)?;
    let own_name = args.next().ok_or_else(missing)?;
    // Up to the end of the object, not of the input: the writer need not close it before we have ended.
    let state = serde_json::Deserializer::from_reader(io::stdin().take(1 << 20))
        .into_iter::<Value>()
        .next();
    let mut state = state.ok_or_else(missing)??;
    state["bundle"] = bundle.to_string_lossy().into();
    let memory = rustix::fs::memfd_create("state", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut memory = std::fs::File::from(memory);
    memory.write_all(state.to_string().as_bytes())?;
    io::Seek::rewind(&mut memory)?;
    Ok(Command::new(path)
        .arg0(own_name)
        .args(args)
        .stdin(memory)
        .exec())
}
