//! Trees of files, down to the last attribute: of images as the program has them, and as other extractors make them.
//!
//! The images are built by `trees/debian.sh` and `trees/corners.sh`; `trees/extract.sh` is the extractor by GNU tar.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{lgetxattr, llistxattr};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::images::cached;
use crate::oci::{self, Config, Image, hex};
use crate::{Cmd, images};

const DEBIAN: &str = include_str!("trees/debian.sh");
const CORNERS: &str = include_str!("trees/corners.sh");
const SPARSE: &str = include_str!("trees/sparse.sh");
const EXTRACT: &str = include_str!("trees/extract.sh");

/// The forms in which an image comes: the manifest's and the layers'. Docker's manifests have no Zstandard.
pub const FORMS: [&str; 5] = [
    "oci-gzip",
    "oci-zstd",
    "oci-plain",
    "docker-gzip",
    "docker-plain",
];

/// What is said of one file, by the name of what it is about: `type`, `mode`, `owner`, `mtime`, `size`, `content`, `target`, `device`,
/// `links` (all names of the same file) and `xattr NAME`.
pub type Facts = BTreeMap<String, String>;

/// Facts by path, of which the root's is empty. Bytes that are not UTF-8 are escaped.
pub type Tree = BTreeMap<String, Facts>;

/// An image, built once on a machine.
#[derive(Clone, Debug)]
pub struct Fixture {
    folder: PathBuf,
}

/// Packages of Debian in five layers, by umoci, buildah and GNU tar.
pub fn debian() -> Fixture {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let folder = cached("trees-debian", &format!("{DEBIAN}{release}"), |path| {
        let layout = path.with_extension("layout");
        let _ = fs::remove_dir_all(&layout);
        script(DEBIAN, [layout.as_os_str()]);
        write_forms(&layout, "debian", path);
        fs::remove_dir_all(&layout).expect("remove a layout");
    });
    Fixture { folder }
}

/// All that tars and overlays make hard, in six layers by GNU tar; the sixth is the second again.
pub fn corners() -> Fixture {
    by_hand("trees-corners", CORNERS, 6)
}

/// Files with holes, in four layers: each way in which GNU tar writes them.
pub fn sparse() -> Fixture {
    by_hand("trees-sparse", SPARSE, 4)
}

/// An image of tars that a script writes.
fn by_hand(name: &str, recipe: &str, count: u32) -> Fixture {
    let version = Cmd::new("tar").arg("--version").run().stdout;
    let folder = cached(name, &format!("{recipe}{version}"), |path| {
        let work = tempfile::tempdir_in(path.parent().expect("the cache")).expect("a folder");
        script(recipe, [work.path().as_os_str()]);
        let tar = |number| work.path().join(format!("{number}.tar"));
        let layers: Vec<PathBuf> = (1..=count).map(tar).collect();
        let layout = work.path().join("layout");
        let image = Image::of(&layers, Config::default());
        oci::write_layout(&layout, "image", &[image]);
        write_forms(&layout, "image", path);
    });
    Fixture { folder }
}

/// An image that shares all but its last layer with another, which is `busybox`'s root filesystem.
pub fn sharing(lower: &Fixture, folder: &Path) -> PathBuf {
    let mut layers = lower.tars();
    layers.pop();
    layers.push(images::busybox_tar());
    oci::write_layout(folder, "sharing", &[Image::of(&layers, Config::default())]);
    folder.to_owned()
}

fn script<'a>(text: &str, args: impl IntoIterator<Item = &'a OsStr>) {
    Cmd::new("sh")
        .args(["-c", text, "sh"])
        .args(args)
        .limit(Duration::from_secs(900))
        .run()
        .ok();
}

/// Writes an image in all of [`FORMS`], each as skopeo's `dir:`.
fn write_forms(layout: &Path, tag: &str, folder: &Path) {
    fs::create_dir_all(folder).expect("a folder for an image");
    let at = |form: &str| format!("dir:{}", folder.join(form).display());
    let copy = |options: &[&str], from: &str, to: &str| {
        let skopeo = Cmd::new("skopeo").args(["--insecure-policy", "copy", "--quiet"]);
        let skopeo = skopeo.args(options).args([from, to]);
        skopeo.limit(Duration::from_secs(300)).run().ok();
    };
    let layout = format!("oci:{}:{tag}", layout.display());
    copy(&["--dest-decompress"], &layout, &at("oci-plain"));
    for compression in ["gzip", "zstd"] {
        let form = at(&format!("oci-{compression}"));
        let options = ["--dest-compress", "--dest-compress-format", compression];
        copy(&options, &at("oci-plain"), &form);
    }
    for compression in ["gzip", "plain"] {
        let (from, to) = (
            format!("oci-{compression}"),
            format!("docker-{compression}"),
        );
        copy(&["--format", "v2s2"], &at(&from), &at(&to));
    }
}

impl Fixture {
    /// One of its [`FORMS`], for `skopeo copy`.
    pub fn form(&self, form: &str) -> String {
        format!("dir:{}", self.folder.join(form).display())
    }

    fn manifest(&self, form: &str) -> Value {
        let text = fs::read(self.folder.join(form).join("manifest.json")).expect("a manifest");
        serde_json::from_slice(&text).expect("a manifest is JSON")
    }

    /// The media types of its layers in a form.
    pub fn media_types(&self, form: &str) -> Vec<String> {
        let manifest = self.manifest(form);
        let layers = manifest["layers"].as_array().expect("layers");
        let media_type = |layer: &Value| layer["mediaType"].as_str().expect("a type").to_owned();
        layers.iter().map(media_type).collect()
    }

    /// The tars of its layers, the lowest first.
    pub fn tars(&self) -> Vec<PathBuf> {
        let manifest = self.manifest("oci-plain");
        let layers = manifest["layers"].as_array().expect("layers");
        let file = |layer: &Value| {
            let digest = layer["digest"].as_str().expect("a digest");
            let digest = digest.strip_prefix("sha256:").expect("a SHA-256");
            self.folder.join("oci-plain").join(digest)
        };
        layers.iter().map(file).collect()
    }

    /// As GNU tar unpacks it, in a folder that does not exist yet.
    pub fn by_tar(&self, folder: &Path) -> Tree {
        let tars = self.tars();
        let args = std::iter::once(folder).chain(tars.iter().map(PathBuf::as_path));
        script(EXTRACT, args.map(Path::as_os_str));
        list(folder)
    }

    /// As umoci unpacks it, in a folder that does not exist yet.
    pub fn by_umoci(&self, folder: &Path) -> Tree {
        fs::create_dir(folder).expect("a folder for umoci");
        let layout = folder.join("layout");
        Cmd::new("skopeo")
            .args(["--insecure-policy", "copy", "--quiet"])
            .arg(self.form("oci-gzip"))
            .arg(format!("oci:{}:image", layout.display()))
            .run()
            .ok();
        Cmd::new("umoci")
            .args(["raw", "unpack", "--image"])
            .arg(format!("{}:image", layout.display()))
            .arg(folder.join("rootfs"))
            .limit(Duration::from_secs(300))
            .run()
            .ok();
        list(&folder.join("rootfs"))
    }
}

/// One file of which two trees say different things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub path: String,
    /// A fact's name; `path` if only one of them has the file.
    pub fact: String,
    pub ours: Option<String>,
    pub theirs: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        let (ours, theirs) = (shown(&self.ours), shown(&self.theirs));
        write!(
            f,
            "/{}: {}: ours {ours}, theirs {theirs}",
            self.path, self.fact
        )
    }
}

/// All in which two trees differ.
pub fn differences(ours: &Tree, theirs: &Tree) -> Vec<Difference> {
    let mut all = Vec::new();
    let mut note = |path: &String, fact: &str, ours: Option<&String>, theirs: Option<&String>| {
        if ours != theirs {
            all.push(Difference {
                path: path.clone(),
                fact: fact.to_owned(),
                ours: ours.cloned(),
                theirs: theirs.cloned(),
            });
        }
    };
    let paths: std::collections::BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    for path in paths {
        match (ours.get(path), theirs.get(path)) {
            (Some(ours), Some(theirs)) => {
                let facts: std::collections::BTreeSet<_> =
                    ours.keys().chain(theirs.keys()).collect();
                for fact in facts {
                    note(path, fact, ours.get(fact), theirs.get(fact));
                }
            }
            (ours, theirs) => note(
                path,
                "path",
                ours.map(|facts| &facts["type"]),
                theirs.map(|facts| &facts["type"]),
            ),
        }
    }
    all
}

/// Lists layers as overlayfs shows them, the uppermost first, in a mount namespace of its own.
pub fn list_mounted(layers: &[PathBuf]) -> Tree {
    // A thread may have a mount namespace of its own; it goes with the thread.
    let look = || {
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace: the tests need root");
        let none: Option<&str> = None;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(none, "/", none, private, none).expect("keep the mounts to this thread");
        let at = tempfile::tempdir().expect("a folder to mount at");
        let lower: Vec<_> = layers.iter().map(|layer| layer.to_string_lossy()).collect();
        let options = format!("lowerdir={}", lower.join(":"));
        let overlay = Some("overlay");
        mount(
            overlay,
            at.path(),
            overlay,
            MsFlags::MS_RDONLY,
            Some(&*options),
        )
        .expect("an overlay");
        let tree = list(at.path());
        // Detached: a child that another thread forks just now holds what was opened here until its exec.
        umount2(at.path(), MntFlags::MNT_DETACH).expect("unmount an overlay");
        tree
    };
    std::thread::scope(|scope| match scope.spawn(look).join() {
        Ok(tree) => tree,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Lists a folder, and what is mounted on it not.
pub fn list(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut files = BTreeMap::new();
    let device = fs::symlink_metadata(root).expect("a tree's root").dev();
    walk(root, root, device, &mut tree, &mut files);
    for names in files.into_values().filter(|names| names.len() > 1) {
        for name in &names {
            let facts = tree.get_mut(name).expect("listed just now");
            facts.insert("links".to_owned(), names.join(", "));
        }
    }
    tree
}

/// Names of the same file, by its device and inode.
type Files = BTreeMap<(u64, u64), Vec<String>>;

fn walk(root: &Path, path: &Path, device: u64, tree: &mut Tree, files: &mut Files) {
    let meta = fs::symlink_metadata(path).expect("look at a file");
    let name = shown(path.strip_prefix(root).expect("below the root").as_os_str());
    tree.insert(name.clone(), facts(path, &meta));
    if !meta.is_dir() {
        files
            .entry((meta.dev(), meta.ino()))
            .or_default()
            .push(name);
        return;
    }
    // Overlayfs gives a file the number of the file system below it, a folder its own: a mount is told by the folder.
    if meta.dev() != device {
        return;
    }
    let mut inside: Vec<_> = fs::read_dir(path)
        .expect("read a folder")
        .map(|entry| entry.expect("read a folder").path())
        .collect();
    inside.sort();
    for path in inside {
        walk(root, &path, device, tree, files);
    }
}

fn facts(path: &Path, meta: &fs::Metadata) -> Facts {
    let mut facts = Facts::new();
    let mut fact = |name: &str, value: String| facts.insert(name.to_owned(), value);
    let kind = meta.file_type();
    let name = match () {
        () if kind.is_dir() => "folder",
        () if kind.is_file() => "file",
        () if kind.is_symlink() => "symlink",
        () if kind.is_fifo() => "fifo",
        () if kind.is_char_device() => "character device",
        () if kind.is_block_device() => "block device",
        () => "socket",
    };
    fact("type", name.to_owned());
    fact("mode", format!("{:04o}", meta.mode() & 0o7777));
    fact("owner", format!("{}:{}", meta.uid(), meta.gid()));
    fact(
        "mtime",
        format!("{}.{:09}", meta.mtime(), meta.mtime_nsec()),
    );
    if kind.is_file() {
        fact("size", meta.len().to_string());
        let mut hash = Sha256::new();
        let mut file = File::open(path).expect("open a file");
        std::io::copy(&mut file, &mut hash).expect("read a file");
        fact("content", hex(&hash.finalize()));
    }
    if kind.is_symlink() {
        let target = fs::read_link(path).expect("read a link");
        fact("target", shown(target.as_os_str()));
    }
    if kind.is_char_device() || kind.is_block_device() {
        let (major, minor) = (
            nix::sys::stat::major(meta.rdev()),
            nix::sys::stat::minor(meta.rdev()),
        );
        fact("device", format!("{major}:{minor}"));
    }
    for (name, value) in xattrs(path) {
        facts.insert(format!("xattr {name}"), value);
    }
    facts
}

/// Extended attributes of all namespaces, without those by which overlayfs keeps its own books.
fn xattrs(path: &Path) -> BTreeMap<String, String> {
    let mut list = vec![0; 64 << 10];
    let length = llistxattr(path, &mut *list).expect("list attributes");
    let names = list[..length].split(|&byte| byte == 0);
    names
        .filter(|name| !name.is_empty() && !name.starts_with(b"trusted.overlay."))
        .map(|name| {
            let name = OsStr::from_bytes(name);
            let mut value = vec![0; 64 << 10];
            let length = lgetxattr(path, name, &mut *value).expect("read an attribute");
            (shown(name), hex(&value[..length]))
        })
        .collect()
}

fn shown(name: &OsStr) -> String {
    match String::from_utf8(name.to_owned().into_vec()) {
        Ok(text) => text,
        Err(error) => error.as_bytes().escape_ascii().to_string(),
    }
}
