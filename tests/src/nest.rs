//! Images with a container engine in them: our own program, or Debian's dockerd, with what each calls.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::images::{cached, pack};
use crate::{Cmd, Host, images};

/// Puts programs into a busybox root filesystem, each with the libraries that it is linked to. `$1` is the folder, the rest are programs.
const WITH_PROGRAMS: &str = r#"
set -eu
root=$1; shift
put() {
  mkdir -p "$root$(dirname "$2")"
  rm -f "$root$2"
  cp -L "$1" "$root$2"
}
mkdir -p "$root/usr/sbin" "$root/sbin" "$root/run" "$root/var/lib" "$root/etc/ssl/certs"
for program in "$@"; do
  from=$program
  to=$program
  case $program in *=*) from=${program#*=}; to=${program%%=*} ;; esac
  put "$from" "$to"
  for library in $(ldd "$from" 2>/dev/null | grep -o '/[^ ]*' || true); do
    [ -e "$root$library" ] || put "$library" "$library"
  done
done
"#;

/// iptables in both flavours (the alternatives as Debian has them) with its extensions, nft, ip and conntrack.
const NETWORK_TOOLS: &str = r#"
set -eu
root=$1
for extension in $(dpkg -L libxtables12 iptables | grep '/xtables/.*\.so$'); do
  mkdir -p "$root$(dirname "$extension")"
  cp -L "$extension" "$root$extension"
done
for flavour in nft legacy; do
  for name in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do
    family=${name%%-*} rest=${name#*tables}
    ln -sf "xtables-$flavour-multi" "$root/usr/sbin/$family-$flavour$rest"
  done
done
for name in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do
  rm -f "$root/bin/$name"
  ln -sf "xtables-nft-multi" "$root/usr/sbin/$name"
done
[ ! -e /etc/protocols ] || cp /etc/protocols /etc/services "$root/etc/"
# busybox has its own, with fewer options.
rm -f "$root/bin/ip" "$root/bin/nsenter"
"#;

const TOOLS: &[&str] = &[
    "/usr/sbin/xtables-nft-multi",
    "/usr/sbin/xtables-legacy-multi",
    "/usr/sbin/nft",
    "/usr/sbin/ip",
    "/usr/sbin/conntrack",
];

/// What the distribution's dockerd is made of.
const DOCKER: &[&str] = &[
    "/usr/sbin/dockerd",
    "/usr/sbin/docker-proxy",
    "/usr/bin/docker",
    "/usr/bin/docker-init",
    "/usr/bin/containerd",
    "/usr/bin/containerd-shim-runc-v2",
    "/usr/sbin/runc",
];

/// A root filesystem with `coracle` in it, and the image `busybox` as /busybox.tar. Import it with [`VOLUME`].
pub fn coracle_tar() -> PathBuf {
    static TAR: OnceLock<PathBuf> = OnceLock::new();
    TAR.get_or_init(|| {
        let binary = images::binary();
        let metadata = fs::metadata(&binary).expect("the program under test");
        // The program changes with every build: its length and time stand for its content.
        let version = format!("{} {:?}", metadata.len(), metadata.modified().ok());
        made("coracle-inside.tar", &version, |root| {
            let small = root.with_extension("stripped");
            let strip = Cmd::new("strip").arg("-o").arg(&small).arg(&binary);
            if strip.run().code() != 0 {
                fs::copy(&binary, &small).expect("copy the program under test");
            }
            put_programs(root, &[format!("/usr/bin/coracle={}", small.display())]);
            fs::remove_file(&small).expect("remove the stripped program");
        })
    })
    .clone()
}

/// A root filesystem with Debian's dockerd in it, and the image `busybox` as /busybox.tar.
pub fn docker_tar() -> PathBuf {
    static TAR: OnceLock<PathBuf> = OnceLock::new();
    TAR.get_or_init(|| {
        let version = Cmd::new("dpkg-query")
            .args(["--show", "docker.io", "containerd", "runc"])
            .run()
            .stdout;
        made("docker-inside.tar", &version, |root| {
            let programs: Vec<String> = DOCKER.iter().map(|path| (*path).to_owned()).collect();
            put_programs(root, &programs);
        })
    })
    .clone()
}

/// The lines of `import --change` for an engine whose state is in `folder`.
pub fn volume(folder: &str) -> [String; 2] {
    ["--change".to_owned(), format!("VOLUME {folder}")]
}

/// Imports a root filesystem as the image `name`, whose state folder is a volume: an overlay cannot lie on an overlay.
#[track_caller]
pub fn import(host: &Host, tar: &Path, name: &str, folder: &str) {
    let mut words: Vec<String> = vec!["import".to_owned()];
    words.extend(volume(folder));
    words.push(tar.display().to_string());
    words.push(name.to_owned());
    host.coracle(words).ok();
}

fn made(name: &str, version: &str, fill: impl FnOnce(&Path)) -> PathBuf {
    let tools = Cmd::new("dpkg-query")
        .args([
            "--show",
            "iptables",
            "nftables",
            "iproute2",
            "conntrack",
            "libc6",
        ])
        .run()
        .stdout;
    let busybox = images::busybox_tar();
    let recipe = format!(
        "{WITH_PROGRAMS}{NETWORK_TOOLS}{version}{tools}{}",
        busybox.display()
    );
    let tar = cached(name, &recipe, |path| {
        let work = tempfile::tempdir_in(path.parent().expect("the cache")).expect("a folder");
        let root = work.path().join("root");
        fs::create_dir(&root).expect("a folder for a root filesystem");
        Cmd::new("tar")
            .arg("-xf")
            .arg(&busybox)
            .arg("-C")
            .arg(&root)
            .run()
            .ok();
        let tools: Vec<String> = TOOLS.iter().map(|path| (*path).to_owned()).collect();
        put_programs(&root, &tools);
        Cmd::new("sh")
            .args(["-c", NETWORK_TOOLS, "sh"])
            .arg(&root)
            .run()
            .ok();
        fill(&root);
        fs::copy(&busybox, root.join("busybox.tar")).expect("an image for the engine inside");
        pack(&root, path);
    });
    forget_older(&tar, name);
    tar
}

fn put_programs(root: &Path, programs: &[String]) {
    Cmd::new("sh")
        .args(["-c", WITH_PROGRAMS, "sh"])
        .arg(root)
        .args(programs)
        .run()
        .ok();
}

/// One of each is enough: a fixture of our own program is made anew after every build.
fn forget_older(tar: &Path, name: &str) {
    for entry in fs::read_dir(tar.parent().expect("the cache"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let file = entry.file_name();
        let other = file.to_string_lossy().starts_with(&format!("{name}-")) && entry.path() != tar;
        // Another run's, if it is young: then that run still needs it.
        let old = entry
            .metadata()
            .and_then(|metadata| metadata.modified())
            .is_ok_and(|at| at.elapsed().is_ok_and(|age| age.as_secs() > 3600));
        if other && old {
            let _ = fs::remove_file(entry.path());
        }
    }
}
