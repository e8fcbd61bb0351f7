//! Pushing to a real registry, and what skopeo, podman and we ourselves pull from there: digests, forms, passwords, cuts.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use harness::oci::{self, Config, Image};
use harness::registry::{ADDRESS, Access, PASSWORD, USER};
use harness::{Cmd, Host, Output, Registry, eventually, images};
use nix::sys::signal::Signal;
use serde_json::Value;

/// What the last line of a push says: `latest: digest: sha256:... size: 527`.
#[track_caller]
fn digest_of(output: &Output) -> String {
    let line = output.stdout.lines().last().unwrap_or_default();
    let words: Vec<&str> = line.split(' ').collect();
    match words.as_slice() {
        [_, "digest:", digest, "size:", _] => (*digest).to_owned(),
        _ => panic!("no digest at the end: {output}"),
    }
}

/// The image `name` has this digest at the registry, by skopeo's reckoning. Returns its manifest.
#[track_caller]
fn inspect(host: &Host, name: &str, digest: &str) -> Value {
    let image = format!("docker://{name}");
    let look = |options: &[&str]| {
        let args = ["--insecure-policy", "inspect", "--tls-verify=false"];
        host.tool("skopeo", args.iter().chain(options).chain([&&*image]))
            .ok()
    };
    assert_eq!(look(&[]).json()["Digest"], digest);
    look(&["--raw"]).json()
}

/// Copies an image with skopeo, which checks each digest, and returns the folder.
#[track_caller]
fn copy(host: &Host, name: &str) -> std::path::PathBuf {
    let folder = host.folder().join("copied");
    let _ = fs::remove_dir_all(&folder);
    let to = format!("dir:{}", folder.display());
    let from = format!("docker://{name}");
    let options = [
        "--insecure-policy",
        "copy",
        "--quiet",
        "--src-tls-verify=false",
    ];
    host.tool("skopeo", options.iter().copied().chain([&*from, &*to]))
        .ok();
    folder
}

#[track_caller]
fn image_id(host: &Host, name: &str) -> String {
    let inspect = host
        .coracle(["image", "inspect", "-f", "{{.Id}}", name])
        .ok();
    inspect.text().to_owned()
}

/// An image of one layer of noise, which compression cannot shrink.
#[track_caller]
fn noise(host: &Host, name: &str, mib: usize) {
    let folder = host.folder().join("noise");
    fs::create_dir_all(&folder).unwrap();
    let count = format!("head -c {mib}M /dev/urandom >noise; echo {name} >name");
    Cmd::new("sh")
        .args(["-euc", &format!("cd \"$1\"; {count}"), "sh"])
        .arg(&folder)
        .run()
        .ok();
    let tar = host.folder().join("noise.tar");
    images::pack(&folder, &tar);
    host.coracle(["import", &tar.display().to_string(), name])
        .ok();
    fs::remove_file(tar).unwrap();
}

/// Forwards connections to the registry at another port of the host, and cuts them as a bad wire does.
struct Wire {
    /// Bytes towards the registry.
    up: Arc<AtomicUsize>,
}

impl Wire {
    const ADDRESS: &str = "127.0.0.1:5001";

    /// The first connection breaks off after `cut` bytes towards the registry, and each after the pause of `slow` for 64 KiB.
    fn start(host: &Host, cut: usize, slow: Duration) -> Wire {
        let up = Arc::new(AtomicUsize::new(0));
        let listener = host
            .netns
            .enter(|| TcpListener::bind(Wire::ADDRESS))
            .unwrap();
        let netns = fs::File::open(host.netns.path()).unwrap();
        let counter = up.clone();
        std::thread::spawn(move || {
            // Sockets that this thread makes are the host's.
            nix::sched::setns(netns, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(ADDRESS) else {
                    continue;
                };
                let (from, to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || forward(from, to, |_| true));
                let counter = counter.clone();
                std::thread::spawn(move || {
                    forward(client, server, |n| {
                        std::thread::sleep(slow);
                        let before = counter.fetch_add(n, Ordering::Relaxed);
                        before > cut || before + n <= cut
                    });
                });
            }
        });
        Wire { up }
    }

    fn sent(&self) -> usize {
        self.up.load(Ordering::Relaxed)
    }
}

/// Until one side ends, or `pass` says no to so many bytes more.
fn forward(mut from: TcpStream, mut to: TcpStream, pass: impl Fn(usize) -> bool) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        if !pass(n) || to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

const NO_CUT: usize = usize::MAX;
const AT_ONCE: Duration = Duration::ZERO;

#[test]
fn a_pulled_image_comes_back_with_the_same_digest_and_nothing_is_sent_twice() {
    let host = Host::builder().without_image().build();
    let registry = Registry::start(&host, Access::Open);
    let layout = host.folder().join("layout");
    let empty = host.folder().join("empty");
    fs::create_dir(&empty).unwrap();
    fs::write(empty.join("upper"), "upper").unwrap();
    let upper = host.folder().join("upper.tar");
    images::pack(&empty, &upper);
    let image = Image::of(&[images::busybox_tar(), upper], Config::default());
    oci::write_layout(&layout, "1", &[image]);
    registry.push(&layout, "1", "library/bb:1");
    let name = registry.image("library/bb:1");
    let pulled = host.run(&format!("pull {name}"));
    let digest = pulled
        .stdout
        .lines()
        .find_map(|line| line.strip_prefix("Digest: "))
        .unwrap();

    // To the same repository, to another tag of it, and to another repository.
    let again = host.run(&format!("push {name}"));
    assert_eq!(digest_of(&again), digest);
    assert_eq!(
        again.stdout.matches(": Layer already exists").count(),
        2,
        "{again}"
    );
    let other_tag = registry.image("library/bb:2");
    host.run(&format!("tag {name} {other_tag}"));
    assert_eq!(digest_of(&host.run(&format!("push {other_tag}"))), digest);
    let other = registry.image("mine/bb:1");
    host.run(&format!("tag {name} {other}"));
    let mounted = host.run(&format!("push {other}"));
    assert_eq!(digest_of(&mounted), digest);
    assert_eq!(
        mounted.stdout.matches(": Mounted from library/bb").count(),
        2,
        "{mounted}"
    );
    assert!(!mounted.stdout.contains("Pushed"), "{mounted}");
    inspect(&host, &other, digest);
    copy(&host, &other);
}

#[test]
fn an_image_made_here_is_pulled_by_skopeo_by_podman_and_by_us() {
    let host = Host::new();
    let registry = Registry::start(&host, Access::Open);
    let name = registry.image("made:1");
    let made = "mkdir -p /data/a; echo here >/data/a/f; ln /data/a/f /data/hard; rm /www/index.html; chmod 4755 /usr/bin/notes.txt";
    host.coracle(["run", "--name", "maker", "busybox", "sh", "-c", made])
        .ok();
    host.run(&format!("commit maker {name}"));
    host.run("rm maker");
    let id = image_id(&host, &name);
    let pushed = host.run(&format!("push {name}"));
    assert!(
        pushed
            .stdout
            .starts_with(&format!("The push refers to repository [{ADDRESS}/made]\n")),
        "{pushed}"
    );
    assert_eq!(
        pushed.stdout.matches(": Preparing\n").count(),
        2,
        "{pushed}"
    );
    assert_eq!(pushed.stdout.matches(": Pushed\n").count(), 2, "{pushed}");
    let digest = digest_of(&pushed);
    let manifest = inspect(&host, &name, &digest);
    assert_eq!(
        manifest["mediaType"],
        "application/vnd.docker.distribution.manifest.v2+json"
    );
    assert_eq!(manifest["config"]["digest"], id.as_str());
    let copied = copy(&host, &name);
    assert_eq!(
        format!("sha256:{}", oci::digest_of(&copied.join("manifest.json"))),
        digest
    );

    let podman = |args: &[&str]| {
        let folder = host.folder().join("podman");
        let place = |name: &str| folder.join(name).display().to_string();
        let options = [
            "--storage-driver",
            "vfs",
            "--events-backend",
            "none",
            "--cgroup-manager",
            "cgroupfs",
        ];
        Cmd::new("podman")
            .args(["--root", &place("root"), "--runroot", &place("run")])
            .args(options)
            .args(args)
            .run_in(&host.netns)
            .ok()
    };
    podman(&["pull", "-q", "--tls-verify=false", &name]).says(&id["sha256:".len()..]);
    let tree = podman(&["image", "mount", &name]).text().to_owned();
    assert_eq!(
        fs::read_to_string(format!("{tree}/data/hard")).unwrap(),
        "here\n"
    );
    assert!(!fs::exists(format!("{tree}/www/index.html")).unwrap());
    podman(&["image", "umount", &name]);
    podman(&["rmi", &name]);

    host.run(&format!("rmi {name}"));
    host.run(&format!("pull {name}@{digest}"));
    assert_eq!(image_id(&host, &format!("{name}@{digest}")), id);
    let look = "cat /data/hard; stat -c %a /usr/bin/notes.txt; ls /www";
    let by_digest = format!("{name}@{digest}");
    host.coracle(["run", "--rm", &by_digest, "sh", "-c", look])
        .ok()
        .says("here\n4755");
}

#[test]
fn layers_are_packed_with_zstd_on_request() {
    let host = Host::new();
    let registry = Registry::start(&host, Access::Open);
    let name = registry.image("packed:1");
    host.run(&format!("tag busybox {name}"));
    let id = image_id(&host, &name);
    host.run(&format!("push {name}"));
    // The registry has it as gzip, which is not what is wanted.
    let pushed = host.run(&format!("push --compression zstd:9 {name}"));
    let manifest = inspect(&host, &name, &digest_of(&pushed));
    assert_eq!(
        manifest["mediaType"],
        "application/vnd.oci.image.manifest.v1+json"
    );
    assert_eq!(
        manifest["layers"][0]["mediaType"],
        "application/vnd.oci.image.layer.v1.tar+zstd"
    );
    let copied = copy(&host, &name);
    let layer = manifest["layers"][0]["digest"].as_str().unwrap();
    let head = fs::read(copied.join(&layer["sha256:".len()..])).unwrap();
    assert_eq!(head[..4], [0x28, 0xb5, 0x2f, 0xfd]);
    host.run(&format!("rmi {name} busybox"));
    host.run(&format!("pull {name}"));
    assert_eq!(image_id(&host, &name), id);
    host.coracle(["run", "--rm", &name, "cat", "/www/index.html"])
        .ok()
        .says(images::PAGE.trim_end());
    host.try_run(&format!("push --compression xz {name}"))
        .exits(1)
        .complains("it must be gzip or zstd");
}

#[test]
fn a_push_goes_on_after_its_wire_was_cut() {
    let host = Host::builder().without_image().build();
    let _registry = Registry::start(&host, Access::Open);
    let name = format!("{}/cut:1", Wire::ADDRESS);
    noise(&host, &name, 24);
    let wire = Wire::start(&host, 13 << 20, AT_ONCE);
    let pushed = host.run(&format!("push {name}"));
    assert!(pushed.stdout.contains(": retrying in "), "{pushed}");
    assert!(wire.sent() > 24 << 20);
    inspect(&host, &format!("{ADDRESS}/cut:1"), &digest_of(&pushed));
    copy(&host, &format!("{ADDRESS}/cut:1"));
}

#[test]
fn a_layer_goes_in_one_request_where_that_is_wanted() {
    let host = Host::builder().without_image().build();
    let registry = Registry::start(&host, Access::Open);
    let name = registry.image("whole:1");
    noise(&host, &name, 10);
    let pushed = host.run(&format!("push --monolithic {name}"));
    inspect(&host, &name, &digest_of(&pushed));
    copy(&host, &name);
    // In pieces it is the same blob.
    host.run(&format!("tag {name} {}", registry.image("pieces:1")));
    let pieces = host.run(&format!("push {}", registry.image("pieces:1")));
    assert_eq!(digest_of(&pieces), digest_of(&pushed));
}

#[test]
fn a_registry_with_a_password_wants_it() {
    let host = Host::new();
    let registry = Registry::start(&host, Access::Password);
    let name = registry.image("private:1");
    host.run(&format!("tag busybox {name}"));
    let refused = host.try_run(&format!("push {name}")).exits(1);
    let wanted = "denied: requested access to the resource is denied";
    let refused = refused
        .complains(wanted)
        .complains("no basic auth credentials");
    assert!(refused.stderr.contains("coracle login"), "{refused}");
    fs::create_dir_all(host.folder().join(".docker")).unwrap();
    let log_in = |password: &str| {
        let entry = format!(r#"{{"username":"{USER}","password":"{password}"}}"#);
        let config = format!(r#"{{"auths":{{"{ADDRESS}":{entry}}}}}"#);
        fs::write(host.folder().join(".docker/config.json"), config).unwrap();
    };
    log_in("wrong");
    host.try_run(&format!("push {name}")).exits(1);
    log_in(PASSWORD);
    digest_of(&host.run(&format!("push {name}")));
    host.run(&format!("rmi {name}"));
    host.run(&format!("pull {name}"));
}

#[test]
fn two_pushes_of_the_same_at_once_both_succeed() {
    let host = Host::builder().without_image().build();
    let registry = Registry::start(&host, Access::Open);
    let (one, two) = (registry.image("same:1"), registry.image("same:2"));
    noise(&host, &one, 12);
    host.run(&format!("tag {one} {two}"));
    let pushes = [&one, &two].map(|name| host.command(["push", name]).spawn_in(&host.netns));
    let [first, second] = pushes.map(|push| digest_of(&push.wait().ok()));
    assert_eq!(first, second);
    inspect(&host, &one, &first);
    copy(&host, &two);
}

#[test]
fn a_push_that_was_killed_is_done_again() {
    let host = Host::builder().without_image().build();
    let _registry = Registry::start(&host, Access::Open);
    let name = format!("{}/killed:1", Wire::ADDRESS);
    noise(&host, &name, 12);
    let wire = Wire::start(&host, NO_CUT, Duration::from_millis(5));
    for part in [1, 5, 9] {
        let before = wire.sent();
        let push = host.command(["push", &name]).spawn_in(&host.netns);
        eventually("some of it is sent", || match wire.sent() - before {
            sent if sent > part << 20 => Ok(()),
            sent => Err(format!("{sent} bytes")),
        });
        push.signal(Signal::SIGKILL);
        push.wait();
    }
    let pushed = host.run(&format!("push {name}"));
    inspect(&host, &format!("{ADDRESS}/killed:1"), &digest_of(&pushed));
    copy(&host, &format!("{ADDRESS}/killed:1"));
    let before = wire.sent();
    host.run(&format!("push {name}"));
    assert!(wire.sent() - before < 1 << 20, "nothing is sent twice");
}

#[test]
fn an_image_that_is_removed_meanwhile_is_pushed_all_the_same() {
    let host = Host::builder().without_image().build();
    let _registry = Registry::start(&host, Access::Open);
    let name = format!("{}/gone:1", Wire::ADDRESS);
    noise(&host, &name, 12);
    let wire = Wire::start(&host, NO_CUT, Duration::from_millis(5));
    let push = host.command(["push", &name]).spawn_in(&host.netns);
    eventually("some of it is sent", || match wire.sent() {
        sent if sent > 1 << 20 => Ok(()),
        sent => Err(format!("{sent} bytes")),
    });
    host.run(&format!("rmi {name}"));
    let pushed = push.wait().ok();
    inspect(&host, &format!("{ADDRESS}/gone:1"), &digest_of(&pushed));
    assert_eq!(host.run("images -q").text(), "");
    host.run(&format!("pull {name}"));
}
