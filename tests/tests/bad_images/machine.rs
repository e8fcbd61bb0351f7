//! A machine so small that all of it can be looked at: a root directory with a few files that an image would like to reach, in which the
//! program runs by chroot(2). Its store lies where it does on real ones. What the program needs of the real machine is mounted
//! read-only, in a mount namespace that goes with it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::{Cmd, Netns, Output, images};
use rusqlite::Connection;
use tempfile::TempDir;

const STORE: &str = "var/lib/coracle";
const PROGRAM: &str = "coracle";

/// Mounts what is real, and becomes the program: `$1` is the root, `$2` the program's file.
const ENTER: &str = r#"
root=$1 program=$2
shift 2
mount --bind "$program" "$root/coracle"
for folder in usr $FOLDERS; do mount --bind -o ro "/$folder" "$root/$folder"; done
for folder in proc sys dev; do mount --rbind "/$folder" "$root/$folder"; done
exec chroot "$root" /coracle "$@"
"#;

pub struct Machine {
    folder: TempDir,
    pub netns: &'static Netns,
    /// Folders of the real root that are not in `usr`, where those are folders still.
    folders: String,
    before: Listing,
}

/// All that is known of a file, by path.
pub type Listing = BTreeMap<String, String>;

impl Machine {
    #[track_caller]
    pub fn new(netns: &'static Netns) -> Machine {
        let folder = tempfile::Builder::new()
            .prefix("bad-")
            .tempdir_in(images::scratch_folder())
            .expect("a folder for a machine");
        let root = folder.path();
        for name in [
            "etc/cron.d",
            "home/user",
            "root/.ssh",
            "usr",
            "proc",
            "sys",
            "dev",
            "run/coracle",
            STORE,
        ] {
            fs::create_dir_all(root.join(name)).expect("a folder of the machine");
        }
        fs::DirBuilder::new()
            .mode(0o1777)
            .create(root.join("tmp"))
            .expect("a folder of the machine");
        for (name, text) in [
            ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
            ("etc/shadow", "root:*:19000:0:99999:7:::\n"),
            ("etc/cron.d/daily", "0 0 * * * root true\n"),
            ("root/.ssh/authorized_keys", "ssh-ed25519 AAAA root\n"),
            ("home/user/target", "the user's\n"),
            (PROGRAM, ""),
        ] {
            fs::write(root.join(name), text).expect("a file of the machine");
        }
        let mut folders = String::new();
        for name in ["bin", "sbin", "lib", "lib64", "lib32"] {
            let Ok(metadata) = fs::symlink_metadata(Path::new("/").join(name)) else {
                continue;
            };
            if metadata.is_symlink() {
                let target = fs::read_link(Path::new("/").join(name)).expect("a link");
                symlink(target, root.join(name)).expect("a link of the machine");
            } else {
                fs::create_dir(root.join(name)).expect("a folder of the machine");
                folders += &format!("{name} ");
            }
        }
        let mut machine = Machine {
            folder,
            netns,
            folders,
            before: Listing::new(),
        };
        // Makes the database, so that it is no difference later.
        machine.coracle(["images"]).ok();
        machine.before = machine.listing();
        machine
    }

    /// After a change by the test's own hand.
    pub fn look_again(&mut self) {
        self.before = self.listing();
    }

    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    pub fn store(&self) -> PathBuf {
        self.root().join(STORE)
    }

    #[track_caller]
    pub fn coracle<A: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Output {
        Cmd::new("unshare")
            .args([
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-euc",
                ENTER,
                "sh",
            ])
            .arg(self.root())
            .arg(images::binary())
            .args(["--root", "/var/lib/coracle", "--run-root", "/run/coracle"])
            .args(args)
            .env("FOLDERS", &self.folders)
            .env("HOME", "/root")
            .env("SSL_CERT_FILE", "/nowhere")
            .limit(Duration::from_secs(180))
            .run_in(self.netns)
    }

    /// A pull that must fail and say this, without a trace on the machine or in the store.
    #[track_caller]
    pub fn refuses(&self, reference: &str, says: &[&str]) -> Output {
        self.refuses_with(&[], reference, says)
    }

    #[track_caller]
    pub fn refuses_with(&self, options: &[&str], reference: &str, says: &[&str]) -> Output {
        let words = options.iter().copied().chain(["pull", reference]);
        let output = self.coracle(words).exits(1);
        for text in says {
            assert!(
                output.stderr.contains(text),
                "it does not say {text:?}: {output}"
            );
        }
        self.assert_sober(&output);
        self.assert_untouched(&output);
        self.assert_empty(&output);
        // Nor anything that only the check would find.
        self.coracle(["image", "check"]).ok();
        output
    }

    /// A pull that must work, and leave nothing but its image in the store; the layers' folders, the uppermost first.
    #[track_caller]
    pub fn pulls(&self, reference: &str) -> Vec<PathBuf> {
        self.pulls_with(&[], reference)
    }

    #[track_caller]
    pub fn pulls_with(&self, options: &[&str], reference: &str) -> Vec<PathBuf> {
        self.pull(options, reference).0
    }

    /// And what was printed on the way.
    #[track_caller]
    pub fn pulls_and_says(&self, reference: &str) -> (Vec<PathBuf>, String) {
        self.pull(&[], reference)
    }

    #[track_caller]
    fn pull(&self, options: &[&str], reference: &str) -> (Vec<PathBuf>, String) {
        let words = options.iter().copied().chain(["pull", reference]);
        let output = self.coracle(words).ok();
        self.assert_sober(&output);
        self.assert_untouched(&output);
        let layers = self.layers();
        let mut known: Vec<PathBuf> = layers.clone();
        known.sort();
        known.dedup();
        // Beside a layer's folder lie files that have its name.
        let mut kept = self.kept("layers");
        for path in &mut kept {
            path.set_extension("");
        }
        kept.dedup();
        assert_eq!(kept, known, "more than the layers: {output}");
        assert_eq!(self.kept("images").len(), 1, "not one image: {output}");
        (layers, output.stdout + &output.stderr)
    }

    /// Neither a panic nor anything that a terminal would obey.
    #[track_caller]
    fn assert_sober(&self, output: &Output) {
        for text in [&output.stdout, &output.stderr] {
            assert!(!text.contains("panicked"), "{output}");
            let bad = text.chars().find(|&c| c.is_control() && c != '\n');
            assert_eq!(bad, None, "a terminal would obey this: {output}");
        }
    }

    /// Everything on the machine but the store is as it was, to the time of its last change.
    #[track_caller]
    pub fn assert_untouched(&self, output: &Output) {
        let after = self.listing();
        for (path, line) in &after {
            let before = self.before.get(path).map_or("nothing", String::as_str);
            assert_eq!(before, line, "/{path} has changed: {output}");
        }
        let gone = self.before.keys().find(|path| !after.contains_key(*path));
        assert_eq!(gone, None, "it is gone: {output}");
    }

    #[track_caller]
    fn assert_empty(&self, output: &Output) {
        for folder in ["layers", "images"] {
            assert_eq!(self.kept(folder), Vec::<PathBuf>::new(), "{output}");
        }
        let database = self.database();
        for table in [
            "images",
            "layers",
            "image_layers",
            "image_names",
            "layer_blobs",
        ] {
            let count = format!("SELECT count(*) FROM {table}");
            let rows: i64 = database
                .query_row(&count, [], |row| row.get(0))
                .expect("count the rows of a table");
            assert_eq!(rows, 0, "rows are left in {table}: {output}");
        }
    }

    /// What lies in a folder of the store, and in its hidden folders, but empty ones and locks.
    fn kept(&self, folder: &str) -> Vec<PathBuf> {
        let mut kept = Vec::new();
        for entry in fs::read_dir(self.store().join(folder))
            .into_iter()
            .flatten()
        {
            let entry = entry.expect("an entry of the store");
            let (path, name) = (entry.path(), entry.file_name());
            let hidden = name.to_string_lossy().starts_with('.');
            let metadata = entry.metadata().expect("an entry of the store");
            if hidden && metadata.is_dir() {
                kept.extend(
                    fs::read_dir(&path)
                        .expect("a folder")
                        .map(|e| e.expect("an entry").path()),
                );
                kept.retain(|path| fs::metadata(path).is_ok_and(|it| it.is_dir() || it.len() > 0));
            } else if !(metadata.is_file() && metadata.len() == 0) {
                kept.push(path);
            }
        }
        kept.sort();
        kept
    }

    fn database(&self) -> Connection {
        Connection::open(self.store().join("coracle.db")).expect("the database")
    }

    /// The folders of the one image's layers, the uppermost first.
    fn layers(&self) -> Vec<PathBuf> {
        let database = self.database();
        let mut statement = database
            .prepare("SELECT chain_id FROM image_layers ORDER BY position DESC")
            .expect("a query");
        let rows = statement
            .query_map([], |row| row.get::<_, String>(0))
            .expect("a query");
        rows.map(|id| {
            let id = id.expect("a chain ID");
            let hex = id.strip_prefix("sha256:").expect("a digest");
            self.store().join("layers").join(&hex[..32])
        })
        .collect()
    }

    fn listing(&self) -> Listing {
        let mut listing = Listing::new();
        list(self.root(), "", &mut listing);
        listing
    }
}

/// That a text of an image or registry makes no line of its own on a terminal.
#[track_caller]
pub fn says_no_line_of(output: &Output, start: &str) {
    let mut lines = output.stderr.lines();
    assert!(!lines.any(|line| line.starts_with(start)), "{output}");
}

fn list(root: &Path, name: &str, listing: &mut Listing) {
    if name == STORE || name == "run/coracle" {
        return;
    }
    let path = root.join(name);
    let it = fs::symlink_metadata(&path).expect("a file of the machine");
    let content = if it.is_file() {
        String::from_utf8_lossy(&fs::read(&path).expect("read a file")).into_owned()
    } else if it.is_symlink() {
        fs::read_link(&path)
            .expect("read a link")
            .display()
            .to_string()
    } else {
        String::new()
    };
    // The time of the last change tells of owner, mode, attributes and links, whatever was put back.
    listing.insert(
        name.to_owned(),
        format!(
            "{:o} {}:{} links {} size {} modified {}.{} changed {}.{} {content:?}",
            it.mode(),
            it.uid(),
            it.gid(),
            it.nlink(),
            it.size(),
            it.mtime(),
            it.mtime_nsec(),
            it.ctime(),
            it.ctime_nsec()
        ),
    );
    if !it.is_dir() {
        return;
    }
    for entry in fs::read_dir(&path).expect("list a folder") {
        let child = entry.expect("an entry").file_name();
        let child = child.to_string_lossy();
        let child = match name {
            "" => child.into_owned(),
            _ => format!("{name}/{child}"),
        };
        list(root, &child, listing);
    }
}

/// What overlayfs shows of layers, the uppermost first: kind and content by path.
pub fn merged(layers: &[PathBuf]) -> Listing {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    use nix::sched::{CloneFlags, unshare};
    std::thread::scope(|scope| {
        let look = || {
            // A thread may have a mount namespace of its own; it goes with the thread.
            unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
            let none: Option<&str> = None;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
                .expect("private mounts");
            let at = tempfile::tempdir().expect("a folder to mount on");
            mount(
                Some("tmpfs"),
                at.path(),
                Some("tmpfs"),
                MsFlags::empty(),
                none,
            )
            .expect("a tmpfs");
            for name in ["empty", "root"] {
                fs::create_dir(at.path().join(name)).expect("a folder");
            }
            // Overlayfs wants two layers at least where there is no upper one.
            let empty = at.path().join("empty");
            let folders = layers
                .iter()
                .chain([&empty])
                .map(|path| path.display().to_string());
            let options = format!("lowerdir={}", folders.collect::<Vec<_>>().join(":"));
            let root = at.path().join("root");
            mount(
                Some("overlay"),
                &root,
                Some("overlay"),
                MsFlags::MS_RDONLY,
                Some(&*options),
            )
            .expect("an overlay");
            let mut listing = Listing::new();
            show(&root, "", &mut listing);
            // Detached: a child that another thread forks just now holds what was opened here until its exec.
            umount2(&root, MntFlags::MNT_DETACH).expect("unmount");
            umount2(at.path(), MntFlags::MNT_DETACH).expect("unmount");
            listing
        };
        scope.spawn(look).join().expect("a look at the layers")
    })
}

fn show(root: &Path, name: &str, listing: &mut Listing) {
    for entry in fs::read_dir(root.join(name)).expect("list a folder") {
        let entry = entry.expect("an entry");
        let child = entry.file_name().to_string_lossy().into_owned();
        let child = if name.is_empty() {
            child
        } else {
            format!("{name}/{child}")
        };
        let kind = entry.file_type().expect("a type");
        let what = if kind.is_file() {
            String::from_utf8_lossy(&fs::read(entry.path()).expect("read a file")).into_owned()
        } else if kind.is_symlink() {
            format!(
                "-> {}",
                fs::read_link(entry.path()).expect("read a link").display()
            )
        } else if kind.is_dir() {
            show(root, &child, listing);
            "/".to_owned()
        } else if kind.is_char_device() {
            "device".to_owned()
        } else {
            "special".to_owned()
        };
        listing.insert(child, what);
    }
}
