//! Docker's default seccomp profile, or one of the user's own, as a compiled filter, cached by its hash.
//!
//! `profile` and what `custom` and `oci` read come to the same `rules`; `filter` compiles them, `kernel` loads the program. This
//! file keeps the compiled program in a cache: compiling takes milliseconds, and every start of a container needs it.

mod custom;
mod filter;
mod kernel;
mod oci;
mod profile;
mod rules;

use std::io::Write;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxSeccomp;
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::request::SeccompChoice;
use rules::Rules;

pub use kernel::load;

/// A compiled program for `seccomp(2)`: an array of `struct sock_filter`, 8 bytes each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter(pub Vec<u8>);

/// The size of `struct sock_filter`.
const INSTRUCTION: usize = 8;
/// BPF_MAXINSNS of the kernel: it takes no longer program.
const MAX_INSTRUCTIONS: usize = 4096;
/// The length of a SHA-256, which stands before the program in a cached file.
const CHECKSUM: usize = 32;

/// Docker's default profile for a process with these capabilities (`CAP_SYS_ADMIN`, ...): they open further calls.
/// Compiled once for each set and kept in `cache`.
///
/// The cache is only a cache: a file in it that is damaged, or that cannot be written, costs time and nothing else.
pub fn default_filter(cache: &Path, capabilities: &[&str]) -> Result<Filter, Error> {
    let held = profile::relevant(capabilities);
    let key = format!("{}|{}", profile::VERSION, held.join(","));
    cached(cache, &key, || filter::compile(&profile::rules(&held)))
}

/// What `--security-opt seccomp` asks for; `None`: no filter.
pub fn chosen_filter(
    choice: &SeccompChoice,
    cache: &Path,
    capabilities: &[&str],
) -> Result<Option<Filter>, Error> {
    match choice {
        SeccompChoice::Unconfined => Ok(None),
        SeccompChoice::Default => default_filter(cache, capabilities).map(Some),
        SeccompChoice::Profile(text) => {
            let mut held = capabilities.to_vec();
            held.sort_unstable();
            let here = circumstances(&held);
            let key = format!("own.2|{:?}|{}|{text}", here.kernel, held.join(","));
            let compile = || filter::compile(&pick(text, &here)?);
            cached(cache, &key, compile).map(Some)
        }
    }
}

/// The same for a runtime that compiles the filter itself.
pub fn chosen_profile(
    choice: &SeccompChoice,
    capabilities: &[&str],
) -> Result<Option<LinuxSeccomp>, Error> {
    let rules = match choice {
        SeccompChoice::Unconfined => return Ok(None),
        SeccompChoice::Default => profile::rules(capabilities),
        SeccompChoice::Profile(text) => pick(text, &circumstances(capabilities))?,
    };
    oci::write(&rules).map(Some).map_err(Error::SeccompProfile)
}

/// The filter of a bundle. The profile's `flags` are not looked at: they change how violations are logged, not what is allowed.
pub fn compile_oci(profile: &LinuxSeccomp) -> Result<Filter, Error> {
    filter::compile(&oci::read(profile).map_err(Error::SeccompProfile)?)
}

/// Refuses a profile that cannot be read or compiled, with any capabilities.
pub fn check(choice: &SeccompChoice) -> Result<(), Error> {
    if let SeccompChoice::Profile(text) = choice {
        filter::compile(&pick(text, &circumstances(&[]))?)?;
    }
    Ok(())
}

fn pick(text: &str, here: &custom::Circumstances<'_>) -> Result<Rules, Error> {
    custom::pick(text, here).map_err(Error::SeccompProfile)
}

fn circumstances<'a>(held: &'a [&'a str]) -> custom::Circumstances<'a> {
    let host = rustix::system::uname();
    let release = host.release().to_string_lossy();
    custom::Circumstances {
        held,
        kernel: custom::version(&release).unwrap_or((u32::MAX, 0)),
    }
}

fn cached(
    cache: &Path,
    key: &str,
    compile: impl FnOnce() -> Result<Filter, Error>,
) -> Result<Filter, Error> {
    let path = cache.join(file_name(key)?);
    if let Some(found) = read(&path) {
        return Ok(found);
    }
    let compiled = compile()?;
    if let Err(error) = write(&path, &compiled) {
        tracing::warn!(path = %path.display(), %error, "cannot keep the compiled seccomp filter");
    }
    Ok(compiled)
}

/// Everything that the compiled program depends on is in the name, so that an upgrade of any of it misses the cache.
fn file_name(key: &str) -> Result<PathBuf, Error> {
    let library = libseccomp::ScmpVersion::current().map_err(Error::CompileSeccomp)?;
    let key = format!("{}|{library}|{key}", std::env::consts::ARCH);
    let digest = Sha256::digest(key.as_bytes());
    let hex: String = digest[..16].iter().map(|b| format!("{b:02x}")).collect();
    Ok(PathBuf::from(format!("seccomp-{hex}.bpf")))
}

/// A power cut can leave a file shorter or other than it was written, hence the checksum.
fn read(path: &Path) -> Option<Filter> {
    let bytes = std::fs::read(path).ok()?;
    let (checksum, program) = bytes.split_at_checked(CHECKSUM)?;
    let sound = !program.is_empty()
        && program.len().is_multiple_of(INSTRUCTION)
        && program.len() / INSTRUCTION <= MAX_INSTRUCTIONS
        && Sha256::digest(program).as_slice() == checksum;
    sound.then(|| Filter(program.to_vec()))
}

/// Another process may read or write the same file meanwhile: only the rename shows it.
fn write(path: &Path, filter: &Filter) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)?;
    let mut file = tempfile::Builder::new()
        .prefix(".seccomp-")
        .tempfile_in(directory)?;
    file.write_all(&Sha256::digest(&filter.0))?;
    file.write_all(&filter.0)?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCKERS: &[&str] = &["CAP_CHOWN", "CAP_SYS_CHROOT", "CAP_MKNOD"];

    fn names(dir: &Path) -> Vec<String> {
        let mut all: Vec<String> = std::fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        all.sort();
        all
    }

    #[test]
    fn second_call_reads_the_cache_and_answers_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let first = default_filter(dir.path(), DOCKERS).unwrap();
        assert_eq!(
            names(dir.path()).len(),
            1,
            "one file, and nothing temporary"
        );
        let path = dir.path().join(&names(dir.path())[0]);
        let before = std::fs::metadata(&path).unwrap().modified().unwrap();
        assert_eq!(default_filter(dir.path(), DOCKERS).unwrap(), first);
        assert_eq!(
            std::fs::metadata(&path).unwrap().modified().unwrap(),
            before
        );
    }

    #[test]
    fn capabilities_that_open_no_call_share_a_file_and_those_that_do_have_their_own() {
        let dir = tempfile::tempdir().unwrap();
        default_filter(dir.path(), DOCKERS).unwrap();
        default_filter(dir.path(), &["CAP_SYS_CHROOT", "CAP_NET_RAW"]).unwrap();
        assert_eq!(names(dir.path()).len(), 1);
        let admin = default_filter(dir.path(), &["CAP_SYS_ADMIN"]).unwrap();
        assert_eq!(names(dir.path()).len(), 2);
        assert_ne!(admin, default_filter(dir.path(), DOCKERS).unwrap());
    }

    #[test]
    fn a_damaged_file_is_not_used_and_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let good = default_filter(dir.path(), DOCKERS).unwrap();
        let path = dir.path().join(&names(dir.path())[0]);
        let whole = std::fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        for damaged in [Vec::new(), whole[..40].to_vec(), flipped] {
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(default_filter(dir.path(), DOCKERS).unwrap(), good);
            assert_eq!(std::fs::read(&path).unwrap(), whole);
        }
    }

    #[test]
    fn a_profile_of_the_users_own_is_cached_by_text_and_capabilities() {
        let dir = tempfile::tempdir().unwrap();
        let own = |text: &str, held: &[&str]| {
            let choice = SeccompChoice::Profile(text.to_owned());
            chosen_filter(&choice, dir.path(), held).unwrap().unwrap()
        };
        let text = r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"},
            {"names":["mkdir"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_CHOWN"]}}]}"#;
        let plain = own(text, &[]);
        assert_eq!(plain, own(text, &[]));
        assert_eq!(names(dir.path()).len(), 1);
        assert_ne!(plain, own(text, &["CAP_CHOWN"]));
        assert_eq!(names(dir.path()).len(), 2);
        let none = chosen_filter(&SeccompChoice::Unconfined, dir.path(), &[]).unwrap();
        assert_eq!(none, None);
        assert!(check(&SeccompChoice::Profile("{".to_owned())).is_err());
    }

    #[test]
    fn a_cache_that_cannot_be_written_is_no_failure() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let filter = default_filter(&file.path().join("cache"), DOCKERS).unwrap();
        assert!(filter.0.len() > 100 * INSTRUCTION);
    }
}
