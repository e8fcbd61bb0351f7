//! Images as archives: to and from Docker, podman, skopeo and buildah, by files and pipes; hostile ones; and killed loads.

#[path = "archive/build.rs"]
mod build;
#[path = "archive/exchange.rs"]
mod exchange;
#[path = "archive/hostile.rs"]
mod hostile;
#[path = "archive/killed.rs"]
mod killed;
#[path = "archive/tar.rs"]
mod tar;

use std::fs;
use std::path::{Path, PathBuf};

use harness::oci::{self, Config, Image};
use harness::registry::Access;
use harness::{Cmd, Host, Output, Registry, images};

/// A layer over busybox with everything that a tar made anew would easily lose.
const LAYER: &str = r#"
mkdir -p "$1/data/deep" "$1/etc" "$1/www"
echo 'from the second layer' >"$1/data/file"
ln "$1/data/file" "$1/data/hard"
ln -s file "$1/data/soft"
truncate -s 1M "$1/data/sparse"
printf end >>"$1/data/sparse"
mkfifo "$1/data/fifo"
chmod 4755 "$1/data/deep"
chown 1234:5678 "$1/data/deep"
touch -d '1969-12-31T23:59:58.5Z' "$1/data/old"
setfattr -n user.colour -v blue "$1/data/file" 2>/dev/null || python3 -c 'import os,sys; os.setxattr(sys.argv[1], "user.colour", b"blue")' "$1/data/file"
: >"$1/etc/.wh.group"
: >"$1/www/.wh..wh..opq"
tar --format=posix --xattrs --xattrs-include='user.*' $3 --numeric-owner --sort=name -C "$1" -cf "$2" .
"#;

/// What is in the image, as the container says it.
const LOOK: &str =
    "cat /data/hard; ls /www; ls /etc/group 2>&1; stat -c '%s %u %a' /data/sparse /data/deep";

/// An image of two layers, pulled from a real registry. Returns its name. `option` is one of tar's more: what is stored with
/// `--sparse`, Docker and podman load, but cannot save themselves.
fn pulled(host: &Host, option: &str) -> String {
    let folder = host.folder().join("made");
    let second = host.folder().join("second.tar");
    fs::create_dir_all(&folder).unwrap();
    Cmd::new("sh")
        .args(["-euc", LAYER, "sh"])
        .args([&folder, &second])
        .arg(option)
        .run()
        .ok();
    let config = Config {
        cmd: &["sh"],
        env: &["FROM=image"],
        working_dir: "/data",
        ..Config::default()
    };
    let layout = host.folder().join("layout");
    let image = Image::of(&[images::busybox_tar(), second], config);
    oci::write_layout(&layout, "1", &[image]);
    let registry = Registry::start(host, Access::Open);
    registry.push(&layout, "1", "made:1");
    let name = registry.image("made:1");
    host.run(&format!("pull -q {name}"));
    name
}

/// A line of shell on the host, where `$CORACLE` is the program.
#[track_caller]
fn shell(host: &Host, line: &str) -> Output {
    let program = host.command([] as [&str; 0]).line();
    let script = Cmd::new("sh").args(["-euc", &line.replace("$CORACLE", &program)]);
    host.with_environment(script).run_in(&host.netns)
}

#[track_caller]
fn id_of(host: &Host, name: &str) -> String {
    let inspect = host.run(&format!("image inspect {name}")).json();
    inspect[0]["Id"].as_str().expect("an ID").to_owned()
}

/// Names and IDs of all images, and whatever of layers and images is on disk.
fn store(host: &Host) -> String {
    let mut there = host
        .run("images --no-trunc --format {{.ID}}={{.Repository}}:{{.Tag}}")
        .stdout;
    for folder in ["layers", "layers/.staging", "images"] {
        let mut names: Vec<String> = entries(&host.root().join(folder));
        names.sort();
        there += &format!("{folder}: {names:?}\n");
    }
    there
}

fn entries(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

fn place(host: &Host, name: &str) -> PathBuf {
    host.folder().join(name)
}
