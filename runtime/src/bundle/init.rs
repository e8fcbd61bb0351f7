//! The program behind `--init`, on this host: `init/main.rs`, built with the crate, as a file that containers get a
//! read-only bind of.
//!
//! Below ROOT and not RUN_ROOT, which may be mounted noexec. Its name is the digest of its content: a newer coracle puts its
//! own beside it, and what a running container has bound never changes.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/coracle-init"));

/// Where it is on the host; see [`place_init`].
pub fn init_path(root: &Path) -> PathBuf {
    let digest = Sha256::digest(PROGRAM);
    let name: String = digest[..8].iter().map(|b| format!("{b:02x}")).collect();
    root.join("init").join(name)
}

/// Writes it if it is not there, whole or not at all.
pub fn place_init(root: &Path) -> io::Result<()> {
    let path = init_path(root);
    if path.exists() {
        return Ok(());
    }
    let directory = root.join("init");
    fs::create_dir_all(&directory)?;
    let mut file = tempfile::NamedTempFile::new_in(&directory)?;
    file.write_all(PROGRAM)?;
    // Containers run it as any user.
    file.as_file()
        .set_permissions(fs::Permissions::from_mode(0o755))?;
    file.as_file().sync_all()?;
    file.persist(&path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn init() -> (tempfile::TempDir, Command) {
        let root = tempfile::tempdir().unwrap();
        place_init(root.path()).unwrap();
        place_init(root.path()).unwrap();
        let command = Command::new(init_path(root.path()));
        (root, command)
    }

    /// A child that another test's thread has just forked holds the file open for writing until its own exec.
    fn when_free<T>(mut run: impl FnMut() -> io::Result<T>) -> T {
        loop {
            match run() {
                Err(e) if e.kind() == io::ErrorKind::ExecutableFileBusy => {
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
                result => return result.unwrap(),
            }
        }
    }

    #[track_caller]
    fn check(words: &[&str], code: i32) {
        let (_root, mut command) = init();
        command.arg("--").args(words);
        let status = when_free(|| command.status());
        assert_eq!(status.code(), Some(code), "{words:?}");
    }

    #[test]
    fn it_ends_as_its_program_ends() {
        check(&["true"], 0);
        check(&["sh", "-c", "exit 7"], 7);
        check(&["/bin/sh", "-c", "kill -KILL $$"], 137);
        check(&["no-such-program"], 127);
        check(&["/etc/passwd"], 126);
    }

    #[test]
    fn it_waits_for_its_program_and_not_for_orphans() {
        check(&["sh", "-c", "(sleep 0.1; true) & exit 3"], 3);
    }

    #[test]
    fn it_passes_signals_on() {
        let (_root, mut command) = init();
        let script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done";
        command
            .args(["--", "sh", "-c", script])
            .stdout(std::process::Stdio::piped());
        let mut child = when_free(|| command.spawn());
        let mut ready = [0; 6];
        io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
        let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(9));
    }

    #[test]
    fn it_is_small() {
        assert!(PROGRAM.len() < 16 * 1024, "{} bytes", PROGRAM.len());
    }
}
