//! `image check`: a store that is damaged in each way is found out, the damage is named, and what a registry has is repaired.

use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use harness::oci::{self, Image, SHELL};
use harness::registry::Access;
use harness::{Cmd, Host, Registry, images};
use rusqlite::Connection;

/// The upper layer: of everything that a tar can have, something.
const UPPER: &str = r#"
mkdir -p etc/deep opq var
echo 'some content' >etc/file
ln etc/file etc/link
ln -s file etc/symbolic
mkfifo etc/fifo
mknod etc/device c 1 3
truncate -s 1M etc/sparse; echo end >>etc/sparse
setfattr -n user.mark -v here etc/file
: >etc/.wh.group
: >opq/.wh..wh..opq
"#;

/// At its end: a hard link to a file of the layer below, which is copied up, in directories that the tar leaves out; and a file
/// twice.
const LAST: &str = r#"
import sys, tarfile, io
with tarfile.open(sys.argv[1], "a") as tar:
    for word in "first", "last":
        entry = tarfile.TarInfo("twice")
        entry.size = len(word)
        tar.addfile(entry, io.BytesIO(word.encode()))
    entry = tarfile.TarInfo("usr/share/copied")
    entry.type, entry.linkname = tarfile.LNKTYPE, "usr/bin/notes.txt"
    tar.addfile(entry)
"#;

/// A host whose store has one image of two layers, pulled from a registry.
struct Store<'a> {
    host: &'a Host,
    /// Held: repairs come from it.
    registry: Registry<'a>,
    name: String,
}

impl<'a> Store<'a> {
    fn new(host: &'a Host) -> Store<'a> {
        let registry = Registry::start(host, Access::Open);
        let folder = host.folder().join("upper");
        fs::create_dir_all(&folder).unwrap();
        Cmd::new("sh")
            .args(["-euc", &format!("cd \"$1\"; {UPPER}"), "sh"])
            .arg(&folder)
            .run()
            .ok();
        let tar = host.folder().join("upper.tar");
        Cmd::new("tar")
            .args(["--sort=name", "--xattrs", "-S", "--format=pax", "-C"])
            .arg(&folder)
            .arg("-cf")
            .arg(&tar)
            .arg(".")
            .run()
            .ok();
        Cmd::new("python3").args(["-c", LAST]).arg(&tar).run().ok();
        let layout = host.folder().join("layout");
        let layers = [images::busybox_tar(), tar];
        oci::write_layout(&layout, "1", &[Image::of(&layers, SHELL)]);
        registry.push(&layout, "1", "whole:1");
        let name = registry.image("whole:1");
        host.run(&format!("pull -q {name}"));
        let store = Store {
            host,
            registry,
            name,
        };
        store.is_whole();
        store
    }

    #[track_caller]
    fn is_whole(&self) {
        self.host
            .run("image check")
            .says("1 image and 2 layers checked: no problems");
    }

    /// The directory of the layer that has a path.
    fn layer(&self, path: &str) -> PathBuf {
        let layers = fs::read_dir(self.host.root().join("layers")).unwrap();
        let has = |layer: &PathBuf| layer.join(path).symlink_metadata().is_ok();
        let mut layers = layers.map(|entry| entry.unwrap().path());
        layers.find(has).expect("a layer that has the path")
    }

    fn upper(&self) -> PathBuf {
        self.layer("etc/file")
    }

    fn recipe(&self) -> PathBuf {
        let mut path = self.upper().into_os_string();
        path.push(".recipe");
        path.into()
    }

    fn config(&self) -> PathBuf {
        let images = fs::read_dir(self.host.root().join("images")).unwrap();
        let mut images = images.map(|entry| entry.unwrap().path());
        images.next().expect("an image").join("config.json")
    }

    fn sql(&self, text: &str) {
        let conn = Connection::open(self.host.root().join("coracle.db")).unwrap();
        conn.busy_timeout(std::time::Duration::from_secs(30))
            .unwrap();
        conn.execute_batch(text).unwrap();
    }

    /// Some damage is found and told, with `options` as without, repaired, and the image runs.
    #[track_caller]
    fn heals(&self, what: &str, options: &str, damage: impl FnOnce(), expect: &str) {
        damage();
        let line = format!("image check{options}");
        let output = self.host.try_run(&line).exits(1);
        assert!(output.text().contains(expect), "{what}: {output}");
        assert!(
            output.text().contains("try `coracle image check --repair`"),
            "{what}: {output}"
        );
        let output = self.host.try_run(&format!("{line} --repair")).exits(0);
        assert!(output.text().contains(expect), "{what}: {output}");
        assert!(output.text().contains(": repaired: "), "{what}: {output}");
        assert!(output.text().ends_with("all repaired"), "{what}: {output}");
        self.is_whole();
    }

    #[track_caller]
    fn runs(&self) {
        let words = ["run", "--rm", &self.name, "cat", "/etc/file"];
        self.host.coracle(words).ok().says("some content");
    }
}

/// Changes a file and sets its time back, as only a look at the content can tell.
fn flip(file: &Path, at: usize) {
    let time = fs::metadata(file).unwrap().modified().unwrap();
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 1;
    fs::write(file, bytes).unwrap();
    let file = fs::File::options().write(true).open(file).unwrap();
    file.set_modified(time).unwrap();
}

fn tool(program: &str, words: &[&str], path: &Path) {
    Cmd::new(program).args(words).arg(path).run().ok();
}

#[test]
fn what_has_changed_in_a_layer_is_named_and_pulled_again() {
    let host = Host::builder().without_image().build();
    let store = Store::new(&host);
    let etc = || store.upper().join("etc");
    let heals = |what: &str, damage: &dyn Fn(), expect: &str| {
        store.heals(what, "", damage, expect);
    };
    let whose = format!("({})", store.name);
    heals(
        "a bit",
        &|| flip(&etc().join("file"), 3),
        &format!("{whose}: /etc/file: its content has changed"),
    );
    heals(
        "a bit in the layer below",
        &|| flip(&store.layer("bin/busybox").join("bin/busybox"), 5000),
        "/bin/busybox: its content has changed",
    );
    heals(
        "a mode",
        &|| {
            let mode = fs::Permissions::from_mode(0o4755);
            fs::set_permissions(etc().join("file"), mode).unwrap();
        },
        "/etc/file: mode 4755 instead of 0644",
    );
    heals(
        "an owner",
        &|| lchown(etc().join("symbolic"), Some(7), Some(8)).unwrap(),
        "/etc/symbolic: owner 7:8 instead of 0:0",
    );
    heals(
        "a time",
        &|| tool("touch", &["-d", "@1000"], &etc().join("fifo")),
        "/etc/fifo: modified at 1000.000000000 instead of ",
    );
    heals(
        "an attribute",
        &|| {
            tool(
                "setfattr",
                &["-n", "user.mark", "-v", "there"],
                &etc().join("file"),
            )
        },
        "/etc/file: its attribute user.mark has changed",
    );
    heals(
        "an opaque marker",
        &|| {
            let words = ["-x", "trusted.overlay.opaque"];
            tool("setfattr", &words, &store.upper().join("opq"));
        },
        "/opq: its attribute trusted.overlay.opaque has changed",
    );
    heals(
        "a missing file",
        &|| fs::remove_file(etc().join("sparse")).unwrap(),
        "/etc/sparse: it is missing",
    );
    heals(
        "a missing whiteout",
        &|| fs::remove_file(etc().join("group")).unwrap(),
        "/etc/group: it is missing",
    );
    heals(
        "a new file",
        &|| fs::write(etc().join("deep/new"), "x").unwrap(),
        "/etc/deep/new: the image does not bring it",
    );
    heals(
        "another kind",
        &|| {
            fs::remove_file(etc().join("fifo")).unwrap();
            symlink("file", etc().join("fifo")).unwrap();
        },
        "/etc/fifo: it is a symbolic link instead of a FIFO",
    );
    heals(
        "another target",
        &|| {
            fs::remove_file(etc().join("symbolic")).unwrap();
            symlink("elsewhere", etc().join("symbolic")).unwrap();
        },
        "leads to elsewhere instead of file",
    );
    heals(
        "a FIFO for a file",
        &|| {
            fs::remove_file(etc().join("sparse")).unwrap();
            tool("mkfifo", &[], &etc().join("sparse"));
        },
        "/etc/sparse: it is not a regular file any more",
    );
    heals(
        "a file that was copied from below",
        &|| {
            let (copied, upper) = ("usr/share/copied", store.upper());
            assert_eq!(fs::read(upper.join(copied)).unwrap(), b"not a program\n");
            flip(&upper.join(copied), 2);
        },
        ": its content has changed",
    );
    heals(
        "a directory that the tar leaves out",
        &|| {
            let mode = fs::Permissions::from_mode(0o700);
            fs::set_permissions(store.upper().join("usr/bin"), mode).unwrap();
        },
        "/usr/bin: mode 0700 instead of 0755",
    );
    heals(
        "no link any more",
        &|| {
            tool(
                "cp",
                &["-a", etc().join("file").to_str().unwrap()],
                &etc().join("copy"),
            );
            fs::rename(etc().join("copy"), etc().join("link")).unwrap();
        },
        "/etc/link: it is no link to /etc/file any more",
    );
    store.runs();
}

#[test]
fn what_is_missing_is_found_even_by_a_quick_look() {
    let host = Host::builder().without_image().build();
    let store = Store::new(&host);
    let quick = |what: &str, damage: &dyn Fn(), expect: &str| {
        store.heals(what, " --quick", damage, expect);
    };
    quick(
        "a layer",
        &|| fs::remove_dir_all(store.upper()).unwrap(),
        "its directory is missing",
    );
    quick(
        "a recipe",
        &|| fs::remove_file(store.recipe()).unwrap(),
        "its recipe is missing",
    );
    quick(
        "a config",
        &|| fs::remove_file(store.config()).unwrap(),
        "its config is missing",
    );
    quick(
        "a changed config",
        &|| flip(&store.config(), 20),
        "its config has changed: its digest is sha256:",
    );
    quick(
        "an image's directory",
        &|| fs::remove_dir_all(store.config().parent().unwrap()).unwrap(),
        "its config is missing",
    );
    store.heals(
        "a damaged recipe",
        "",
        || flip(&store.recipe(), 200),
        "its recipe is damaged",
    );
    // Nobody sees it by a quick look.
    flip(&store.upper().join("etc/file"), 0);
    host.run("image check --quick");
    host.try_run("image check").exits(1);
    host.run("image check --repair");
    store.runs();
}

#[test]
fn a_config_comes_back_for_the_platform_that_was_pulled() {
    let host = Host::builder().without_image().build();
    let registry = Registry::start(&host, Access::Open);
    let layout = host.folder().join("layout");
    let layers = vec![images::busybox_tar()];
    let architectures = ["riscv64", "s390x", oci::this_architecture()];
    let images = architectures.map(|architecture| Image {
        layers: layers.clone(),
        config: SHELL,
        architecture,
    });
    oci::write_layout(&layout, "1", &images);
    registry.push(&layout, "1", "many:1");
    let name = registry.image("many:1");
    host.run(&format!("pull -q --platform linux/s390x {name}"));
    let mut folders = fs::read_dir(host.root().join("images")).unwrap();
    let folder = folders.next().unwrap().unwrap().path();
    let before = fs::read(folder.join("config.json")).unwrap();
    for damage in [folder.join("config.json"), folder.clone()] {
        match damage.is_dir() {
            true => fs::remove_dir_all(damage).unwrap(),
            false => flip(&damage, 20),
        }
        host.try_run("image check").exits(1);
        let output = host.run("image check --repair");
        let told = "its config was pulled again from";
        assert!(output.text().contains(told), "{output}");
        assert_eq!(fs::read(folder.join("config.json")).unwrap(), before);
        host.run("image check")
            .says("1 image and 1 layer checked: no problems");
    }
}

#[test]
fn rows_and_rubbish_are_put_in_order() {
    let host = Host::builder().without_image().build();
    let store = Store::new(&host);
    let quick = |what: &str, damage: &dyn Fn(), expect: &str| {
        store.heals(what, " --quick", damage, expect);
    };
    quick(
        "a layer's row",
        &|| store.sql("DELETE FROM layers WHERE chain_id IN (SELECT max(chain_id) FROM layers)"),
        "it has no row in the database",
    );
    quick(
        "a layer's digest",
        &|| store.sql("UPDATE layers SET diff_id = 'sha256:' || substr(diff_id, 9) || '0'"),
        "its row has another digest than the image's config",
    );
    quick(
        "an image's layers",
        &|| store.sql("DELETE FROM image_layers WHERE position = 1"),
        "its rows name other layers than its config",
    );
    quick(
        "a name of nothing",
        &|| {
            store.sql(
                "INSERT INTO image_names (name, repository, tag, image_id)
                 VALUES ('docker.io/library/gone:1', 'gone', '1', 'sha256:0')",
            );
        },
        "name docker.io/library/gone:1: its image is not there",
    );
    let layers = host.root().join("layers");
    quick(
        "a layer of no row",
        &|| fs::create_dir(layers.join("0123456789abcdef0123456789abcdef")).unwrap(),
        "0123456789abcdef0123456789abcdef: it has no row in the database",
    );
    quick(
        "a recipe of no row",
        &|| fs::write(layers.join("1123456789abcdef0123456789abcdef.recipe"), "x").unwrap(),
        "1123456789abcdef0123456789abcdef: it has no row in the database",
    );
    quick(
        "an image of no row",
        &|| fs::create_dir(host.root().join("images").join("ab".repeat(32))).unwrap(),
        "it has no row in the database",
    );
    quick(
        "what a killed process leaves",
        &|| fs::create_dir_all(layers.join(".staging/dead/0")).unwrap(),
        "dead: a killed process has left it",
    );
    store.runs();
}

#[test]
fn a_layer_under_a_running_container_stays_where_it_is() {
    let host = Host::builder().without_image().build();
    let store = Store::new(&host);
    host.run(&format!("run -d --name runs {} sleep 1000", store.name));
    let upper = store.upper();
    fs::write(upper.join("etc/deep/new"), "x").unwrap();
    let output = host.try_run("image check --repair").exits(1);
    let told = "not repaired: container ";
    assert!(output.text().contains(told), "{output}");
    assert!(output.text().contains("runs on it: stop"), "{output}");
    assert!(upper.join("etc/deep/new").exists());
    // A recipe can come back all the same: the directory stays.
    fs::remove_file(upper.join("etc/deep/new")).unwrap();
    tool("touch", &["-d", "@0"], &upper.join("var"));
    host.run("rm -f runs");
    host.run("image check --repair");
    host.run(&format!("run -d --name runs {} sleep 1000", store.name));
    let recipe = store.recipe();
    fs::remove_file(&recipe).unwrap();
    let output = host.run("image check --repair");
    assert!(
        output.text().contains("its recipe was made again"),
        "{output}"
    );
    host.run("exec runs cat /etc/file").says("some content");
    host.run("rm -f runs");
    store.is_whole();
}

#[test]
fn what_no_registry_has_is_told_with_what_to_do() {
    let host = Host::builder().without_image().build();
    let tar = images::busybox_tar();
    host.coracle(["import", tar.to_str().unwrap(), "mine:1"])
        .ok();
    host.run("image check")
        .says("1 image and 1 layer checked: no problems");
    let layers = fs::read_dir(host.root().join("layers")).unwrap();
    let mut layers = layers.map(|entry| entry.unwrap().path());
    let layer = layers
        .find(|path| path.join("etc/passwd").exists())
        .unwrap();
    flip(&layer.join("etc/passwd"), 0);
    let output = host.try_run("image check --repair").exits(1);
    let told = "not repaired: it came from no registry: remove mine:1 and pull, load, import or build it again";
    assert!(output.text().contains(told), "{output}");
    host.run("rmi mine:1");
    host.run("image check")
        .says("0 images and 0 layers checked: no problems");

    // And a registry that has it no more.
    let store = Store::new(&host);
    fs::remove_dir_all(store.upper()).unwrap();
    let Store { registry, .. } = store;
    drop(registry);
    let output = host.try_run("image check --repair").exits(1);
    assert!(output.text().contains("cannot reach registry"), "{output}");
}

#[test]
fn a_commit_can_be_checked_as_well() {
    let host = Host::builder().without_image().build();
    let store = Store::new(&host);
    let script = "echo x >/etc/new; rm /etc/file; ln /bin/busybox /bin/again; rm -r /www";
    let words = ["run", "--name", "changes", &store.name, "sh", "-c", script];
    host.coracle(words).ok();
    host.run("commit changes changed:1");
    host.run("rm changes");
    host.run("image check")
        .says("2 images and 3 layers checked: no problems");
}
