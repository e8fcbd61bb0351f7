//! Pulls from a real registry on loopback: what arrives, what is refused, and that a refusal leaves nothing.

mod common;

use std::fs;
use std::process::Command;

use common::*;
use image::pull::{PullEvent, PullOptions, pull};
use image::registry::Registries;
use image::{Error, ErrorKind, Image, Reference, Removal, store};
use tar::EntryType;

fn pull_quietly(store: &mut Store, reference: &Reference) -> Result<Image, Error> {
    let root = store.path().to_owned();
    pull(
        &mut store.conn,
        &root,
        reference,
        &PullOptions::default(),
        &mut |_| {},
    )
}

/// `cap_net_raw+ep`, as setcap(8) stores it.
const CAPABILITY: &[u8] = &[
    1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

/// Layers that need everything that the applier can do.
fn rich_layers() -> Vec<PackedLayer> {
    let base = Tar::new()
        .dir("./", 0o755)
        .dir("tmp/", 0o1777)
        .dir("etc/", 0o755)
        .file("etc/passwd", 0o644, "root:x:0:0::/root:/bin/sh\n")
        .owned("etc/shadow", 0o640, 0, 42, "secret\n")
        .dir("usr/", 0o755)
        .dir("usr/bin/", 0o755)
        .file("usr/bin/su", 0o4755, "su program\n")
        .pax(&[
            ("SCHILY.xattr.security.capability", CAPABILITY),
            ("SCHILY.xattr.user.note", b"hello"),
        ])
        .file("usr/bin/ping", 0o755, "ping program\n")
        .hardlink("usr/bin/ping6", "usr/bin/ping")
        .symlink("bin", "usr/bin")
        .symlink("dangling", "/nowhere/../x")
        .dir("opt/", 0o700)
        .dir("opt/old/", 0o755)
        .file("opt/old/a", 0o644, "a")
        .file("opt/old/b", 0o644, "b")
        .dir("data/", 0o2775)
        .file("data/gone", 0o600, "gone")
        .owned("data/kept", 0o600, 1000, 1001, "kept")
        .dir("replaced/", 0o755)
        .file("replaced/x", 0o644, "x")
        .symlink("link-to-file", "etc/passwd")
        .device(EntryType::Fifo, "fifo", 0, 0)
        .device(EntryType::Char, "null", 1, 3)
        .pax(&[("mtime", b"1234567890.123456789")])
        .file("precise", 0o644, "")
        .finish();
    let second = Tar::new()
        .dir("data/", 0o2775)
        .file("data/.wh.gone", 0o644, "")
        .file("data/new", 0o644, "new")
        // Its directory is left out: the mode and the owner must be those below.
        .owned("tmp/left", 0o600, 7, 7, "left")
        .dir("opt/old/", 0o750)
        .file("opt/old/before", 0o644, "before the marker")
        .file("opt/old/.wh..wh..opq", 0o644, "")
        .file("opt/old/after", 0o644, "after the marker")
        // Only the lower layer has the target.
        .hardlink("usr/bin/kept-link", "data/kept")
        .file(".wh.replaced", 0o644, "")
        .file("link-to-file", 0o600, "a file now")
        .finish();
    let third = Tar::new()
        .dir("replaced/", 0o711)
        .file("replaced/y", 0o644, "y")
        .file("etc/.wh.shadow", 0o644, "")
        .file("etc/.wh.never-was", 0o644, "")
        .long_name(format!("opt/{}/file", "long/".repeat(40)).as_bytes())
        .file("x", 0o644, "deep")
        .finish();
    [base, second, third].map(packed).into()
}

#[test]
fn a_pulled_image_mounts_to_what_an_independent_extractor_makes() {
    let registry = Registry::start();
    let layout = registry.push_layers(&rich_layers(), "rich:1");
    let mut store = Store::new();
    let mut events = Vec::new();
    let root = store.path().to_owned();
    let reference = registry.reference("rich:1");
    let image = pull(
        &mut store.conn,
        &root,
        &reference,
        &PullOptions::default(),
        &mut |e| events.push(e),
    )
    .unwrap();
    assert_eq!(image.layers.len(), 3);
    assert_eq!(image.names, [registry.name("rich:1")]);

    let bundle = tempfile::tempdir().unwrap();
    let at = bundle.path().join("b");
    let umoci = Command::new("umoci")
        .args([
            "unpack",
            "--image",
            &format!("{}:t", layout.path().display()),
        ])
        .arg(&at)
        .output()
        .expect("umoci must be installed");
    assert!(
        umoci.status.success(),
        "{}",
        String::from_utf8_lossy(&umoci.stderr)
    );
    let mut expect = list_tree(&at.join("rootfs"));
    let mut got = list_mounted(&image);
    // Not said by the tars: directories that no layer describes.
    for listing in [&mut expect, &mut got] {
        listing.retain(|path, _| !path.starts_with("opt/long"));
    }
    assert_eq!(
        got.keys().collect::<Vec<_>>(),
        expect.keys().collect::<Vec<_>>()
    );
    for (path, line) in &expect {
        // The extractor's own changes move the times of directories; ours are checked below.
        let cut = |line: &str| match line.starts_with('4') {
            true => line.split(' ').take(2).collect::<Vec<_>>().join(" "),
            false => line.to_owned(),
        };
        assert_eq!(cut(&got[path]), cut(line), "{path}");
    }
    assert!(
        got["tmp"].starts_with("41777 0:0 1000000000.0"),
        "{}",
        got["tmp"]
    );
    assert!(
        got["data"].starts_with("42775 0:0 1000000000.0"),
        "{}",
        got["data"]
    );
    assert!(got["opt/old"].starts_with("40750 "), "{}", got["opt/old"]);
    assert!(
        got["usr/bin/ping"].contains("links 2 13")
            && got["usr/bin/ping"].contains("security.capability=[01, 00")
    );
    assert!(
        got["usr/bin/kept-link"].contains("links 2"),
        "{}",
        got["usr/bin/kept-link"]
    );

    let pulling = events
        .iter()
        .filter(|e| matches!(e, PullEvent::PullingFsLayer { .. }))
        .count();
    let complete = events
        .iter()
        .filter(|e| matches!(e, PullEvent::PullComplete { .. }))
        .count();
    assert_eq!((pulling, complete), (3, 3));
    assert!(
        matches!(&events[0], PullEvent::Started { tag, repository } if tag == "1" && repository == "rich")
    );
    let last = &events[events.len() - 3..];
    assert!(matches!(&last[2], PullEvent::Summary(took) if took.downloaded > 0 && took.free > 0));
    assert!(matches!(&last[0], PullEvent::Digest(d) if d.starts_with("sha256:")));
    let reference = registry.name("rich:1");
    assert_eq!(
        last[1],
        PullEvent::Status {
            newer: true,
            reference
        }
    );
}

#[test]
fn pulling_again_downloads_nothing_and_shared_layers_are_kept_once() {
    let registry = Registry::start();
    let base = || packed(Tar::new().file("base", 0o644, "base").finish());
    let top = |text: &str| packed(Tar::new().file("top", 0o644, text).finish());
    registry.push_layers(&[base(), top("1")], "a:1");
    registry.push_layers(&[base(), top("2")], "b:1");
    let mut store = Store::new();
    let a = pull_quietly(&mut store, &registry.reference("a:1")).unwrap();

    let mut events = Vec::new();
    let root = store.path().to_owned();
    let options = PullOptions::default();
    pull(
        &mut store.conn,
        &root,
        &registry.reference("a:1"),
        &options,
        &mut |e| events.push(e),
    )
    .unwrap();
    assert!(
        !events
            .iter()
            .any(|e| matches!(e, PullEvent::Downloading { .. }))
    );
    assert!(events.contains(&PullEvent::Status {
        newer: false,
        reference: registry.name("a:1")
    }));

    let b = pull_quietly(&mut store, &registry.reference("b:1")).unwrap();
    assert_eq!(a.layers[1], b.layers[1], "the lowest is shared");
    let removed = store::remove(&mut store.conn, &root, &registry.name("a:1"), false, &[]).unwrap();
    assert!(matches!(&removed[0], Removal::Untagged(name) if *name == registry.name("a:1")));
    assert!(matches!(&removed[1], Removal::Untagged(name) if name.contains("@sha256:")));
    assert_eq!(
        removed
            .iter()
            .filter(|r| matches!(r, Removal::Deleted(_)))
            .count(),
        2,
        "image and own layer"
    );
    assert!(b.layers.iter().all(|layer| layer.is_dir()));
    store::remove(&mut store.conn, &root, &b.id, false, &[]).unwrap();
    store.assert_empty();
}

#[test]
fn a_digest_that_is_here_needs_no_registry() {
    let registry = Registry::start();
    registry.push_layers(&[packed(Tar::new().file("f", 0o644, "f").finish())], "x:1");
    let mut store = Store::new();
    let root = store.path().to_owned();
    let mut digest = String::new();
    let mut note = |event| {
        if let PullEvent::Digest(d) = event {
            digest = d;
        }
    };
    let options = PullOptions::default();
    let image = pull(
        &mut store.conn,
        &root,
        &registry.reference("x:1"),
        &options,
        &mut note,
    )
    .unwrap();
    let by_digest = registry.reference(&format!("x@{digest}"));
    drop(registry);
    assert_eq!(pull_quietly(&mut store, &by_digest).unwrap().id, image.id);
}

#[test]
fn a_wrong_tag_and_a_wrong_repository_are_named() {
    let registry = Registry::start();
    registry.push_layers(&[packed(Tar::new().file("f", 0o644, "f").finish())], "x:1");
    let mut store = Store::new();
    for name in ["x:2", "nothing:1"] {
        let error = pull_quietly(&mut store, &registry.reference(name)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let expect = format!(
            "manifest for {} not found: manifest unknown: manifest unknown",
            registry.name(name)
        );
        assert_eq!(error.to_string(), expect);
    }
    store.assert_empty();
}

#[test]
fn an_unreachable_registry_fails_at_once_and_says_what_to_do() {
    let mut store = Store::new();
    let name = format!("127.0.0.1:{}/x", free_port());
    let begun = std::time::Instant::now();
    let error = pull_quietly(&mut store, &Reference::parse(&name).unwrap()).unwrap_err();
    assert!(begun.elapsed().as_secs() < 2);
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let text = error.to_string();
    let host = name.trim_end_matches("/x");
    assert!(
        text.starts_with(&format!(
            "cannot reach registry {host}: connection refused: "
        )),
        "{text}"
    );
    store.assert_empty();
}

#[test]
fn a_corrupt_blob_leaves_nothing() {
    let registry = Registry::start();
    let layers = [
        packed(Tar::new().file("a", 0o644, &"a".repeat(100_000)).finish()),
        packed(Tar::new().file("b", 0o644, &"b".repeat(100_000)).finish()),
    ];
    let digest = sha256(&layers[1].blob);
    registry.push_layers(&layers, "x:1");
    let file = registry.blob_file(&digest);
    for at in [5, layers[1].blob.len() / 2, layers[1].blob.len() - 6] {
        let mut bytes = layers[1].blob.clone();
        bytes[at] ^= 1;
        fs::write(&file, &bytes).unwrap();
        let mut store = Store::new();
        let error = pull_quietly(&mut store, &registry.reference("x:1")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Untrusted);
        assert!(
            error
                .to_string()
                .starts_with(&format!("blob {digest}: its content has the digest ")),
            "{error}"
        );
        store.assert_empty();
    }
}

#[test]
fn a_layer_that_is_not_what_the_config_says_leaves_nothing() {
    let registry = Registry::start();
    let tar = Tar::new().file("f", 0o644, &"f".repeat(10_000)).finish();
    let check = |layer: PackedLayer, why: &str, repository: &str| {
        registry.push_layers(&[layer], repository);
        let mut store = Store::new();
        let error = pull_quietly(&mut store, &registry.reference(repository)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Untrusted, "{error}");
        let source = std::error::Error::source(&error)
            .map(|s| format!("{s} {:?}", s.source()))
            .unwrap_or_default();
        assert!(
            format!("{error}: {source}").contains(why),
            "{error}: {source}"
        );
        store.assert_empty();
    };
    let mut other = packed(tar.clone());
    other.diff_id = sha256(b"another");
    check(other, "and the image's config says", "diffid:1");

    let mut cut = packed(tar.clone());
    cut.blob.truncate(cut.blob.len() - 10);
    check(cut, "reading the tar", "cut:1");

    let mut bad_crc = packed(tar.clone());
    let at = bad_crc.blob.len() - 8;
    bad_crc.blob[at] ^= 1;
    check(bad_crc, "reading the tar", "crc:1");

    check(packed(tar[..1000].to_vec()), "ends in the middle", "tar:1");

    let plain = PackedLayer {
        blob: b"no gzip".to_vec(),
        ..packed(tar)
    };
    // skopeo packs it on the way: what arrives is gzip, of no tar.
    check(plain, "the tar is malformed", "plain:1");
}

#[test]
fn every_kind_of_packing_is_unpacked() {
    let registry = Registry::start();
    let tar = |name: &str| Tar::new().file(name, 0o644, name).finish();
    let mut members = packed(tar("members"));
    let plain = tar("members");
    members.blob = [gzip(&plain[..700]), gzip(&plain[700..])].concat();
    let layers = [
        members,
        PackedLayer {
            blob: tar("none"),
            media_type: "application/vnd.oci.image.layer.v1.tar",
            diff_id: sha256(&tar("none")),
        },
        PackedLayer {
            blob: zstd::encode_all(&*tar("zstd"), 3).unwrap(),
            media_type: "application/vnd.oci.image.layer.v1.tar+zstd",
            diff_id: sha256(&tar("zstd")),
        },
    ];
    registry.push_layers(&layers, "x:1");
    let mut store = Store::new();
    let image = pull_quietly(&mut store, &registry.reference("x:1")).unwrap();
    let listing = list_mounted(&image);
    let names: Vec<_> = listing.keys().map(String::as_str).collect();
    assert_eq!(names, ["", "members", "none", "zstd"]);
}

#[test]
fn dockers_own_manifests_are_read() {
    let registry = Registry::start();
    let layout = Layout::new();
    let layer = packed(Tar::new().file("f", 0o644, "f").finish());
    layout.name(layout.image(&[layer], host_architecture()), "t");
    registry.push(&layout, "t", "x:1", &["--format", "v2s2"]);
    let mut store = Store::new();
    let image = pull_quietly(&mut store, &registry.reference("x:1")).unwrap();
    assert!(image.layers[0].join("f").is_file());
}

#[test]
fn the_platform_is_chosen_from_an_index() {
    let registry = Registry::start();
    let layout = Layout::new();
    let layer = |text: &str| packed(Tar::new().file(text, 0o644, text).finish());
    let manifests = [
        layout.image(&[layer("other")], "s390x"),
        layout.image(&[layer("mine")], host_architecture()),
    ];
    layout.name(layout.index(&manifests), "t");
    registry.push(&layout, "t", "multi:1", &[]);
    let reference = registry.reference("multi:1");
    let mut store = Store::new();
    let image = pull_quietly(&mut store, &reference).unwrap();
    assert!(image.layers[0].join("mine").is_file());

    let root = store.path().to_owned();
    let mut with_platform = |platform: &str| {
        let options = PullOptions {
            platform: Some(platform.into()),
            ..PullOptions::default()
        };
        pull(&mut store.conn, &root, &reference, &options, &mut |_| {})
    };
    assert!(
        with_platform("linux/s390x").unwrap().layers[0]
            .join("other")
            .is_file()
    );
    let error = with_platform("linux/riscv64").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let offered = format!("it offers linux/s390x, linux/{}", host_architecture());
    assert!(error.to_string().ends_with(&offered), "{error}");
}

/// `user` with the password `secret`, by bcrypt.
const HTPASSWD: &str = "user:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a";

#[test]
fn basic_credentials_are_asked_for_and_used() {
    let registry = Registry::with_password(HTPASSWD);
    let layout = Layout::new();
    let layer = packed(Tar::new().file("f", 0o644, "f").finish());
    layout.name(layout.image(&[layer], host_architecture()), "t");
    registry.push(&layout, "t", "x:1", &["--dest-creds", "user:secret"]);
    let reference = registry.reference("x:1");
    let mut store = Store::new();
    let root = store.path().to_owned();
    let mut with = |password: &str| {
        let credentials = Some(("user".to_owned(), password.to_owned()));
        let options = PullOptions {
            registries: Registries {
                credentials,
                ..Registries::default()
            },
            ..PullOptions::default()
        };
        pull(&mut store.conn, &root, &reference, &options, &mut |_| {})
    };
    let error = with("wrong").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert!(with("secret").is_ok());

    let mut empty = Store::new();
    let error = pull_quietly(&mut empty, &reference).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    let expect = format!(
        "pull access denied for {}, repository does not exist or may require 'docker login': no basic auth credentials",
        registry.name("x")
    );
    assert_eq!(error.to_string(), expect);
    empty.assert_empty();
}

#[test]
fn two_pulls_at_once_do_not_harm_each_other() {
    let registry = Registry::start();
    let layers: Vec<_> = (0..4)
        .map(|i| {
            packed(
                Tar::new()
                    .file(&format!("f{i}"), 0o644, &i.to_string().repeat(200_000))
                    .finish(),
            )
        })
        .collect();
    registry.push_layers(&layers, "x:1");
    let store = Store::new();
    let (reference, root) = (registry.reference("x:1"), store.path());
    let ids: Vec<String> = std::thread::scope(|scope| {
        let pulls: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut conn = open(root);
                    pull(
                        &mut conn,
                        root,
                        &reference,
                        &PullOptions::default(),
                        &mut |_| {},
                    )
                    .unwrap()
                    .id
                })
            })
            .collect();
        pulls.into_iter().map(|p| p.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert_eq!(
        store.left_overs().len(),
        9,
        "four layers with recipes and an image: {:?}",
        store.left_overs()
    );
}

#[test]
fn hostile_layers_leave_nothing_and_reach_nothing() {
    let registry = Registry::start();
    let marker = tempfile::tempdir().unwrap();
    let outside = marker.path().join("x").display().to_string();
    let up = format!("../../../../../../../..{outside}");
    let hostile = [
        ("dotdot", Tar::new().file(&up, 0o644, "evil")),
        ("dotdot-link", Tar::new().hardlink("a", &up)),
        ("passwd", Tar::new().hardlink("a", "/etc/passwd")),
        ("whiteout", Tar::new().file(".wh..", 0o644, "")),
        ("whiteout-dots", Tar::new().file(".wh...", 0o644, "")),
        (
            "loop",
            Tar::new()
                .symlink("a", "b")
                .symlink("b", "a")
                .file("a/x", 0o644, ""),
        ),
        ("device", Tar::new().device(EntryType::Char, "a", 0, 0)),
    ];
    for (name, tar) in hostile {
        registry.push_layers(&[packed(tar.finish())], name);
        let mut store = Store::new();
        let error = pull_quietly(&mut store, &registry.reference(name)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Untrusted, "{name}: {error:?}");
        store.assert_empty();
        assert_eq!(fs::read_dir(marker.path()).unwrap().count(), 0, "{name}");
    }
}
