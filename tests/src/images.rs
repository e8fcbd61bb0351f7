//! What the tests run: the program itself, and images made from the distribution's own packages.
//!
//! A fixture is built once on a machine, under a lock, into `target/test-cache`; its name holds the digest of how it is made.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

use crate::oci::{Config, Image, hex};
use crate::{Cmd, Host, oci};

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests are a folder of the workspace")
        .to_owned()
}

/// Is `dockerd` to answer in place of the program?
pub fn compare_with_docker() -> bool {
    std::env::var_os("CORACLE_TEST_ENGINE").is_some_and(|engine| engine == "docker")
}

/// The program under test: `CORACLE_BIN`, or the workspace's own, brought up to date once in each run.
pub fn binary() -> PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY
        .get_or_init(|| {
            let given = std::env::var_os("CORACLE_BIN").map(PathBuf::from);
            let path = given.unwrap_or_else(built_binary);
            assert!(
                path.is_file(),
                "the program under test is missing: {}",
                path.display()
            );
            path
        })
        .clone()
}

fn built_binary() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    Cmd::new(cargo)
        .args([
            "build",
            "--quiet",
            "--package",
            "coracle",
            "--manifest-path",
        ])
        .arg(repository().join("Cargo.toml"))
        .limit(Duration::from_secs(900))
        .run()
        .ok();
    // This test is TARGET/PROFILE/deps/NAME; `cargo build` makes the profile `debug`.
    let test = std::env::current_exe().expect("the path of this test");
    let target = test
        .ancestors()
        .nth(3)
        .expect("a test is three folders deep");
    target.join("debug/coracle")
}

/// Where hosts keep their state: a short path (a socket's name has at most 108 bytes), and never overlayfs, on which an overlay cannot
/// have its upper folder.
pub fn scratch_folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("CORACLE_TEST_DIR") {
        return folder.into();
    }
    let kind = nix::sys::statfs::statfs("/tmp").map(|stat| stat.filesystem_type());
    match kind {
        Ok(kind) if kind == nix::sys::statfs::OVERLAYFS_SUPER_MAGIC => "/dev/shm".into(),
        _ => "/tmp".into(),
    }
}

/// A fixture of this name: taken from the cache, or made there by `make`, which is given a path that does not exist yet.
pub(crate) fn cached(name: &str, recipe: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let cache = std::env::var_os("CORACLE_TEST_CACHE")
        .map_or_else(|| repository().join("target/test-cache"), PathBuf::from);
    fs::create_dir_all(&cache).expect("a folder for fixtures");
    let key = hex(&Sha256::digest(recipe))[..12].to_owned();
    let done = cache.join(format!("{name}-{key}"));
    let lock = File::create(cache.join(format!("{name}.lock"))).expect("a lock file");
    // flock(2) is of the open file: tests in threads and in other processes wait alike.
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).expect("lock a fixture");
    if !done.exists() {
        let temporary = cache.join(format!("{name}-{key}.part"));
        let _ = fs::remove_dir_all(&temporary);
        let _ = fs::remove_file(&temporary);
        make(&temporary);
        fs::rename(&temporary, &done).expect("put a fixture in its place");
    }
    done
}

/// Makes a root filesystem of `busybox-static` and a page to serve.
const BUSYBOX: &str = r#"
set -eu
busybox=$(command -v busybox)
"$busybox" true
mkdir -p "$1" && cd "$1"
mkdir -p bin dev etc proc root sys tmp usr/bin var www
chmod 1777 tmp
cp "$busybox" bin/busybox
for applet in $(bin/busybox --list); do
  case $applet in busybox) ;; *) ln -s busybox "bin/$applet" ;; esac
done
echo 'root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/:/bin/sh
web:x:1000:1000:web:/www:/bin/sh' >etc/passwd
echo 'root:x:0:
nogroup:x:65534:
web:x:1000:' >etc/group
echo 'hello from the container' >www/index.html
echo 'not a program' >usr/bin/notes.txt
chmod 644 usr/bin/notes.txt
"#;

/// What the web server of the image `busybox` answers.
pub const PAGE: &str = "hello from the container\n";

/// A root filesystem with busybox in it, as a tar.
pub fn busybox_tar() -> PathBuf {
    static TAR: OnceLock<PathBuf> = OnceLock::new();
    TAR.get_or_init(|| {
        let version = Cmd::new("busybox").run().stdout;
        cached("busybox.tar", &format!("{BUSYBOX}{version}"), |path| {
            let root = tempfile::tempdir().expect("a folder for a root filesystem");
            Cmd::new("sh")
                .args(["-c", BUSYBOX, "sh"])
                .arg(root.path())
                .run()
                .ok();
            pack(root.path(), path);
        })
    })
    .clone()
}

/// A folder as a tar that is the same whenever it is made.
pub fn pack(folder: &Path, tar: &Path) {
    Cmd::new("tar")
        .args([
            "--sort=name",
            "--numeric-owner",
            "--owner=0",
            "--group=0",
            "--mtime=@0",
            "-C",
        ])
        .arg(folder)
        .arg("-cf")
        .arg(tar)
        .arg(".")
        .run()
        .ok();
}

/// A layer of what a script makes in an empty folder, as a tar in the host's folder.
pub fn layer(host: &Host, name: &str, script: &str) -> PathBuf {
    let folder = host.folder().join(format!("layer-{name}"));
    fs::create_dir_all(&folder).expect("a folder for a layer");
    Cmd::new("sh")
        .args(["-euc", &format!("cd \"$1\"; {script}"), "sh"])
        .arg(&folder)
        .run()
        .ok();
    let tar = host.folder().join(format!("{name}.tar"));
    pack(&folder, &tar);
    tar
}

/// Makes the root filesystem of a Debian (or Ubuntu) with `redis-server`, from the mirror that apt itself uses, as a tar.
const REDIS: &str = r#"
set -eu
. /etc/os-release
components=main
if [ "$ID" = ubuntu ]; then components=main,universe; fi
mirror=$(apt-get indextargets --format '$(SITE)' "Codename: $VERSION_CODENAME" "Created-By: Packages" | head -n 1)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
debootstrap --variant=minbase --components="$components" --include=redis-server "$VERSION_CODENAME" "$work/root" "$mirror" >"$work/log" 2>&1 ||
  { tail -n 30 "$work/log" >&2; exit 1; }
cd "$work/root"
rm -rf var/cache/apt/*.bin var/cache/apt/archives/*.deb var/lib/apt/lists/* var/log/* usr/share/doc usr/share/locale usr/share/man dev/*
tar --sort=name --numeric-owner -cf "$1" .
"#;

/// The second layer of the Redis image: a configuration file, and a file of the layer below taken away.
const REDIS_LAYER: &str = r#"
set -eu
mkdir -p "$1/etc/redis" "$1/data"
echo 'bind 0.0.0.0
protected-mode no
save ""
dir /data' >"$1/etc/redis/coracle.conf"
: >"$1/etc/.wh.motd"
"#;

/// An OCI layout with one image, tagged `7`: Redis on the distribution's own packages.
pub fn redis_layout() -> PathBuf {
    static LAYOUT: OnceLock<PathBuf> = OnceLock::new();
    LAYOUT
        .get_or_init(|| {
            let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
            let recipe = format!("{REDIS}{REDIS_LAYER}{release}");
            cached("redis", &recipe, |path| {
                let work =
                    tempfile::tempdir_in(path.parent().expect("the cache")).expect("a folder");
                let base = work.path().join("base.tar");
                Cmd::new("sh")
                    .args(["-c", REDIS, "sh"])
                    .arg(&base)
                    .limit(Duration::from_secs(900))
                    .run()
                    .ok();
                let upper = work.path().join("upper");
                Cmd::new("sh")
                    .args(["-c", REDIS_LAYER, "sh"])
                    .arg(&upper)
                    .run()
                    .ok();
                let second = work.path().join("second.tar");
                pack(&upper, &second);
                let config = Config {
                    entrypoint: &["redis-server"],
                    cmd: &["/etc/redis/coracle.conf"],
                    env: &["LANG=C"],
                    exposed_ports: &["6379/tcp"],
                    ..Config::default()
                };
                oci::write_layout(path, "7", &[Image::of(&[base, second], config)]);
            })
        })
        .clone()
}
