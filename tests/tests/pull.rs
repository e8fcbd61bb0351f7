//! Pulling from a real registry: platforms, layers, passwords, what is printed, and what is there already.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use harness::oci::{self, Config, Image};
use harness::registry::{ADDRESS, Access, PASSWORD, USER};
use harness::{Cmd, Host, Registry, eventually, images, until};
use nix::sys::signal::Signal;

const SHELL: Config = Config {
    entrypoint: &[],
    cmd: &["sh"],
    env: &["FROM=image"],
    exposed_ports: &["81/tcp"],
    working_dir: "/var",
    user: "",
};

#[test]
fn the_image_of_this_machines_platform_is_taken_from_an_index() {
    let host = Host::builder().without_image().build();
    let registry = Registry::start(&host, Access::Open);
    let layout = host.folder().join("layout");
    let base = images::busybox_tar();
    let for_machine = |mark: &str| {
        vec![
            base.clone(),
            images::layer(&host, mark, &format!("echo {mark} >mark")),
        ]
    };
    let images = [
        Image {
            layers: for_machine("s390x"),
            config: SHELL,
            architecture: "s390x",
        },
        Image {
            layers: for_machine("mine"),
            config: SHELL,
            architecture: oci::this_architecture(),
        },
        Image {
            layers: for_machine("riscv64"),
            config: SHELL,
            architecture: "riscv64",
        },
    ];
    oci::write_layout(&layout, "1", &images);
    registry.push(&layout, "1", "many:1");
    let name = registry.image("many:1");
    host.run(&format!("pull {name}"));
    host.coracle(["run", "--rm", &name, "cat", "/mark"])
        .ok()
        .says("mine");

    let others = host.folder().join("others");
    oci::write_layout(&others, "1", &[images[0].clone(), images[2].clone()]);
    registry.push(&others, "1", "others:1");
    let output = host
        .try_run(&format!("pull {}", registry.image("others:1")))
        .exits(1);
    assert!(
        output.stderr.contains("no matching manifest for linux/"),
        "{output}"
    );
}

#[test]
fn layers_lie_on_each_other_with_whiteouts_and_opaque_folders() {
    let host = Host::builder().without_image().build();
    let registry = Registry::start(&host, Access::Open);
    let lower = images::layer(
        &host,
        "lower",
        "mkdir -p a/deep b opq; echo 1 >a/one; echo 1 >a/deep/gone; echo 1 >b/file; echo 1 >opq/old; echo old >over; ln -s nowhere link; chmod 1777 b",
    );
    let upper = images::layer(
        &host,
        "upper",
        "mkdir -p a/deep opq; : >a/.wh.one; : >a/deep/.wh.gone; : >.wh.b; : >opq/.wh..wh..opq; echo new >opq/fresh; echo new >over; mkdir link; echo in >link/in",
    );
    let layout = host.folder().join("layout");
    oci::write_layout(
        &layout,
        "1",
        &[Image::of(&[images::busybox_tar(), lower, upper], SHELL)],
    );
    registry.push(&layout, "1", "layers:1");
    let name = registry.image("layers:1");
    host.run(&format!("pull {name}"));
    let script = "cd /; ls a a/deep opq; cat over link/in; ls b 2>/dev/null || echo no b";
    host.coracle(["run", "--rm", &name, "sh", "-c", script])
        .ok()
        .says("a:\ndeep\n\na/deep:\n\nopq:\nfresh\nnew\nin\nno b");
}

#[test]
fn the_images_configuration_is_used() {
    let host = Host::builder().without_image().build();
    let registry = Registry::start(&host, Access::Open);
    let layout = host.folder().join("layout");
    let config = Config {
        entrypoint: &["echo", "entry"],
        cmd: &["default"],
        env: &["FROM=image"],
        user: "web",
        ..SHELL
    };
    oci::write_layout(&layout, "1", &[Image::of(&[images::busybox_tar()], config)]);
    registry.push(&layout, "1", "configured:1");
    let name = registry.image("configured:1");
    host.run(&format!("run --rm {name}")).says("entry default");
    host.run(&format!("run --rm {name} other words"))
        .says("entry other words");
    let output = host
        .coracle([
            "run",
            "--rm",
            "--entrypoint",
            "sh",
            &name,
            "-c",
            "id -un; pwd; echo $FROM",
        ])
        .ok();
    assert_eq!(output.stdout, "web\n/var\nimage\n");
}

#[test]
fn a_second_pull_downloads_nothing() {
    let host = Host::builder().without_image().build();
    let registry = Registry::start(&host, Access::Open);
    let layout = host.folder().join("layout");
    oci::write_layout(
        &layout,
        "latest",
        &[Image::of(&[images::busybox_tar()], SHELL)],
    );
    registry.push(&layout, "latest", "bb:latest");
    let name = registry.image("bb");
    let first = host.run(&format!("pull {name}"));
    assert!(
        first
            .stdout
            .starts_with("Using default tag: latest\nlatest: Pulling from bb\n"),
        "{first}"
    );
    assert!(first.stdout.contains(": Pull complete"), "{first}");
    let full = format!("{name}:latest");
    assert!(
        first.stdout.trim_end().ends_with(&format!(
            "Status: Downloaded newer image for {full}\n{full}"
        )),
        "{first}"
    );
    let second = host.run(&format!("pull {name}"));
    assert!(
        second
            .stdout
            .contains(&format!("Status: Image is up to date for {full}")),
        "{second}"
    );
    assert!(!second.stdout.contains("Pull complete"), "{second}");
    let digest = second
        .stdout
        .lines()
        .find_map(|line| line.strip_prefix("Digest: "))
        .unwrap()
        .to_owned();
    host.run(&format!("rmi {name}"));
    host.run(&format!("pull -q {name}@{digest}"))
        .says(&format!("{name}@{digest}"));
}

#[test]
fn a_registry_with_a_password_takes_it_from_dockers_configuration() {
    let host = Host::builder().without_image().build();
    let registry = Registry::start(&host, Access::Password);
    let layout = host.folder().join("layout");
    oci::write_layout(&layout, "1", &[Image::of(&[images::busybox_tar()], SHELL)]);
    registry.push(&layout, "1", "private:1");
    let name = registry.image("private:1");
    let output = host.try_run(&format!("pull {name}")).exits(1);
    let text = output.stderr.to_lowercase();
    assert!(
        ["auth", "denied", "credentials"]
            .iter()
            .any(|word| text.contains(word)),
        "{output}"
    );
    fs::create_dir_all(host.folder().join(".docker")).unwrap();
    let credentials = format!(
        "{{\"auths\":{{\"{ADDRESS}\":{{\"auth\":\"{}\"}}}}}}",
        base64(&format!("{USER}:{PASSWORD}"))
    );
    fs::write(host.folder().join(".docker/config.json"), credentials).unwrap();
    host.run(&format!("pull {name}"));
}

/// Between a client and the registry: requests that name one blob wait until it is opened.
struct Gate {
    waiting: AtomicUsize,
    open: Mutex<bool>,
    changed: Condvar,
}

/// Where the gate listens.
const GATE: &str = "127.0.0.1:5001";

impl Gate {
    fn before(host: &Host, blob: &str) -> Arc<Gate> {
        let gate = Arc::new(Gate {
            waiting: AtomicUsize::new(0),
            open: Mutex::new(false),
            changed: Condvar::new(),
        });
        let (here, blob) = (gate.clone(), blob.to_owned());
        let accept = move |listener: TcpListener| {
            for client in listener.incoming().flatten() {
                let Ok(registry) = TcpStream::connect(ADDRESS) else {
                    continue;
                };
                let (mut from, mut to) =
                    (registry.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
                let (here, blob) = (here.clone(), blob.clone());
                std::thread::spawn(move || here.pass(client, registry, &blob));
            }
        };
        // A thread is in the network namespace of the one that made it. It waits until this program ends.
        host.netns.enter(move || {
            let listener = TcpListener::bind(GATE).unwrap();
            std::thread::spawn(move || accept(listener));
        });
        gate
    }

    /// Hands on what a client sends, which is requests that fit a packet.
    fn pass(&self, mut client: TcpStream, mut registry: TcpStream, blob: &str) {
        let mut bytes = [0; 8192];
        while let Ok(n @ 1..) = client.read(&mut bytes) {
            if String::from_utf8_lossy(&bytes[..n]).contains(blob) {
                self.waiting.fetch_add(1, Ordering::SeqCst);
                let shut = self.open.lock().unwrap();
                drop(self.changed.wait_while(shut, |open| !*open).unwrap());
            }
            if registry.write_all(&bytes[..n]).is_err() {
                return;
            }
        }
    }

    #[track_caller]
    fn wait_for(&self, count: usize) {
        eventually("the blob is asked for", || {
            let waiting = self.waiting.load(Ordering::SeqCst);
            (waiting >= count).then_some(()).ok_or(waiting)
        });
    }

    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.changed.notify_all();
    }
}

/// Pushes an image of busybox and a layer on top whose blob the gate holds back.
fn gated<'a>(host: &'a Host, layout: &Path) -> (Registry<'a>, Arc<Gate>, String) {
    let registry = Registry::start(host, Access::Open);
    let top = images::layer(host, "top", "echo top >top");
    oci::write_layout(
        layout,
        "1",
        &[Image::of(&[images::busybox_tar(), top], SHELL)],
    );
    registry.push(layout, "1", "gated:1");
    let manifest = fs::read_to_string(layout.join("index.json")).unwrap();
    let blob = |json: &serde_json::Value| {
        let digest = json["digest"].as_str().unwrap();
        digest["sha256:".len()..].to_owned()
    };
    let index: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let path = layout
        .join("blobs/sha256")
        .join(blob(&index["manifests"][0]));
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let gate = Gate::before(host, &blob(&manifest["layers"][1]));
    (registry, gate, format!("{GATE}/gated:1"))
}

fn layers(host: &Host) -> usize {
    let Ok(entries) = fs::read_dir(host.root().join("layers")) else {
        return 0;
    };
    let names = entries.map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.len() == 32).count()
}

/// A pull that takes long makes permanent what it has, every ten seconds; that is as long as [`eventually`] waits.
#[track_caller]
fn wait_for_the_lower_layer(host: &Host) {
    let is_kept = || (layers(host) == 1).then_some(()).ok_or(());
    let kept = until(Duration::from_secs(60), is_kept);
    kept.expect("the lower layer is to be kept");
}

#[test]
fn an_interrupted_pull_says_so_and_the_next_one_goes_on() {
    let host = Host::builder().without_image().build();
    let (_registry, gate, name) = gated(&host, &host.folder().join("layout"));
    let pull = || host.command(["pull", &name]).spawn_in(&host.netns);
    let pulling = pull();
    gate.wait_for(1);
    wait_for_the_lower_layer(&host);
    pulling.signal(Signal::SIGINT);
    let output = pulling.wait().exits(130);
    assert!(
        output
            .stderr
            .contains("interrupted: the finished layers are kept"),
        "{output}"
    );
    let pulling = pull();
    gate.wait_for(2);
    pulling.signal(Signal::SIGTERM);
    pulling.wait().exits(143);
    assert_eq!(layers(&host), 1);
    assert_eq!(
        fs::read_dir(host.root().join("layers/.staging"))
            .unwrap()
            .count(),
        0
    );
    gate.open();
    let output = pull().wait().ok();
    for text in ["Already exists", "Pull complete", "Downloaded newer image"] {
        assert!(output.stdout.contains(text), "{output}");
    }
    assert!(output.stderr.contains(" downloaded, "), "{output}");
    assert!(output.stderr.contains(" of CPU time), "), "{output}");
    host.run(&format!("run --rm {name} cat /top")).says("top");
}

#[test]
fn a_pull_takes_over_from_one_that_is_killed() {
    let host = Host::builder().without_image().build();
    let (_registry, gate, name) = gated(&host, &host.folder().join("layout"));
    let pull = || host.command(["pull", &name]).spawn_in(&host.netns);
    let first = pull();
    gate.wait_for(1);
    let second = pull();
    wait_for_the_lower_layer(&host);
    assert_eq!(
        gate.waiting.load(Ordering::SeqCst),
        1,
        "one of them downloads"
    );
    first.signal(Signal::SIGKILL);
    drop(first);
    gate.wait_for(2);
    gate.open();
    let output = second.wait().ok();
    assert!(output.stdout.contains("Downloaded newer image"), "{output}");
    host.run(&format!("run --rm {name} cat /top")).says("top");
}

#[test]
fn a_disk_that_is_too_small_is_told_in_numbers_and_keeps_what_was_finished() {
    let host = Host::builder().without_image().build();
    let registry = Registry::start(&host, Access::Open);
    let layout = host.folder().join("layout");
    let zeros = images::layer(&host, "zeros", "head -c 40000000 /dev/zero >zeros");
    let noise = images::layer(&host, "noise", "head -c 30000000 /dev/urandom >noise");
    for (tag, top) in [("zeros", zeros), ("noise", noise)] {
        let _ = fs::remove_dir_all(&layout);
        oci::write_layout(
            &layout,
            tag,
            &[Image::of(&[images::busybox_tar(), top], SHELL)],
        );
        registry.push(&layout, tag, &format!("big:{tag}"));
    }
    let script = r#"
set -u
folder=$1 program=$2 image=$3
root=$folder/disk-root
mkdir -p "$root"
mount -t tmpfs -o size=24m none "$root" || exit 1
pull() { timeout 60 "$program" --root "$root/r" --run-root "$root/run" pull "$1" >"$folder/out" 2>"$folder/err"; }
tells() { grep -q "$1" "$folder/err" || { echo "does not tell: $1"; cat "$folder/err"; }; }
pull "$image:noise" && echo "30 MB in 24"
tells 'not enough space in .*: the layers need at least 3[0-9]* bytes and [0-9]* are free'
[ -z "$(ls "$root/r/layers")" ] || ls "$root/r/layers"
for i in 1 2 3 4 5; do
  pull "$image:zeros" && echo "40 MB in 24"
  tells 'applying layer [0-9a-f]*: no space left in .* need about [0-9]* bytes, [0-9]* bytes and [0-9]* inodes are free'
  tells 'write /zeros'
  grep -q 'Already exists' "$folder/out" && exit 0
done
echo 'the lower layer is not kept'
"#;
    let command = Cmd::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-c", script, "sh"])
        .arg(host.folder())
        .arg(images::binary())
        .arg(registry.image("big"));
    host.with_environment(command)
        .limit(Duration::from_secs(240))
        .run_in(&host.netns)
        .ok()
        .says("");
}

#[test]
fn run_pulls_what_is_not_there() {
    let host = Host::builder().without_image().build();
    let registry = Registry::start(&host, Access::Open);
    let layout = host.folder().join("layout");
    oci::write_layout(&layout, "1", &[Image::of(&[images::busybox_tar()], SHELL)]);
    registry.push(&layout, "1", "bb:1");
    let name = registry.image("bb:1");
    let first = host.coracle(["run", "--rm", &name, "echo", "hello"]).ok();
    assert_eq!(first.stdout, "hello\n", "the progress is on stderr");
    let first = first.complains(&format!("Unable to find image '{name}' locally"));
    assert!(first.stderr.contains("1: Pulling from bb"), "{first}");
    let second = host.coracle(["run", "--rm", &name, "echo", "hello"]).ok();
    assert!(!second.stderr.contains("Unable to find"), "{second}");
}

fn base64(text: &str) -> String {
    Cmd::new("base64")
        .arg("-w0")
        .stdin(text)
        .run()
        .ok()
        .text()
        .to_owned()
}
