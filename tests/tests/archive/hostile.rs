//! Archives that are damaged or lie: each is refused, in words, and nothing of it stays.

use std::fs;

use harness::Host;
use serde_json::{Value, json};

use crate::tar::{Small, Tar, blob, descriptor, digest, index};
use crate::{id_of, place, shell, store};

/// Docker archives, and what is said of each.
fn docker() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let good = Small::new("x");
    let list = |layer| good.list("bad:1", layer);
    let with = |list: &Value| good.members().json("manifest.json", list).finish();
    let mut lying = good.config.clone();
    lying.push(b' ');
    let other = Small::new("y");
    vec![
        ("nothing", Vec::new(), "it is empty"),
        ("no tar", vec![b'x'; 4096], "malformed"),
        ("no list", good.members().finish(), "it holds no image"),
        (
            "an empty list",
            with(&json!([])),
            "its list of images is empty",
        ),
        ("a list that is none", with(&json!({"a": 1})), "manifest.json"),
        (
            "a list of 5 MB",
            good.members().file("manifest.json", vec![b' '; 5 << 20]).finish(),
            "over the limit",
        ),
        (
            "a layer that is missing",
            with(&list("other.tar")),
            "it is not in the archive",
        ),
        (
            "a layer outside",
            with(&list("../../../../etc/passwd")),
            "leads out of the archive",
        ),
        (
            "a layer by a link to the host",
            good.members()
                .symlink("out", "/etc/passwd")
                .json("manifest.json", &list("out"))
                .finish(),
            "it is not in the archive",
        ),
        (
            "a config by a link to the host",
            good.members()
                .symlink("a/b", "../../../../../etc/hostname")
                .json(
                    "manifest.json",
                    &json!([{"Config": "a/b", "Layers": ["layer.tar"]}]),
                )
                .finish(),
            "it is not in the archive",
        ),
        (
            "links in a circle",
            good.members()
                .symlink("a", "b")
                .hard_link("b", "a")
                .json("manifest.json", &list("a"))
                .finish(),
            "links lead nowhere",
        ),
        (
            "a member outside",
            good.members()
                .file("../../planted", "x")
                .json("manifest.json", &list("layer.tar"))
                .finish(),
            "leads out of the archive",
        ),
        (
            "a list twice",
            good.members()
                .json("manifest.json", &list("layer.tar"))
                .json("manifest.json", &list("layer.tar"))
                .finish(),
            "in the archive twice",
        ),
        (
            "another layer than the config's",
            Tar::new()
                .file("layer.tar", &other.layer)
                .file("config.json", &good.config)
                .json("manifest.json", &list("layer.tar"))
                .finish(),
            "its tar has the digest",
        ),
        (
            "more layers than the config's",
            with(&json!([{"Config": "config.json", "Layers": ["layer.tar", "layer.tar"]}])),
            "it names 1 layers and the archive's list 2",
        ),
        (
            "a blob that is not its name's",
            Tar::new()
                .file(&blob(&good.layer), &other.layer)
                .file("config.json", &other.config)
                .json("manifest.json", &other.list("bad:1", &blob(&good.layer)))
                .finish(),
            "the archive is damaged",
        ),
        (
            "a config that is not its name's",
            Tar::new()
                .file("layer.tar", &good.layer)
                .file(&blob(&good.config), &lying)
                .json(
                    "manifest.json",
                    &json!([{"Config": blob(&good.config), "Layers": ["layer.tar"]}]),
                )
                .finish(),
            "the archive is damaged",
        ),
        (
            "a name in capitals",
            with(&good.list("BAD:1", "layer.tar")),
            "must be lowercase",
        ),
        (
            "a name by a digest",
            with(&good.list(&format!("bad@sha256:{}", digest(b"")), "layer.tar")),
            "which is no tag",
        ),
        (
            "a config that is none",
            Tar::new()
                .file("layer.tar", &good.layer)
                .file("config.json", "[]")
                .json("manifest.json", &list("layer.tar"))
                .finish(),
            "not an image's config",
        ),
        (
            "no layers",
            Tar::new()
                .json(
                    "config.json",
                    &json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}),
                )
                .json("manifest.json", &json!([{"Config": "config.json", "Layers": []}]))
                .finish(),
            "the image has no layers",
        ),
        (
            "cut in the middle of a layer",
            good.members().json("manifest.json", &list("layer.tar")).finish()[..1024].to_vec(),
            "it ends in the middle of a file",
        ),
        (
            "a layer of a thousand terabytes",
            good.members()
                .json("manifest.json", &list("huge"))
                .header("huge", b'0', "", 0o77777777777)
                .finish(),
            "it ends in the middle of a file",
        ),
        ("packed with xz", b"\xfd7zXZ\0more".to_vec(), "unpack it first"),
        ("packed with bzip2", b"BZh91AY".to_vec(), "unpack it first"),
        ("gzip that is none", [&b"\x1f\x8b"[..], &[b'x'; 600]].concat(), "read the archive"),
    ]
}

/// Whose layer is hostile itself; image/tests/layer.rs has the whole table.
fn layers() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let image = |layer: Vec<u8>| {
        let image = Small::of(layer, "amd64");
        let list = image.list("bad:1", "layer.tar");
        image.members().json("manifest.json", &list).finish()
    };
    vec![
        (
            "a layer that is no tar",
            image(vec![b'x'; 2048]),
            "applying layer",
        ),
        (
            "a whiteout of nothing",
            image(Tar::new().file(".wh.", "").finish()),
            "a whiteout of nothing",
        ),
        (
            "a device of overlayfs",
            image(Tar::new().header("dev", b'3', "", 0).finish()),
            "applying layer",
        ),
    ]
}

/// OCI layouts.
fn layouts() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let good = Small::new("x");
    let with = |index: &Value| {
        let (tar, _) = good.layout(Tar::new());
        tar.json("index.json", index).finish()
    };
    let (_, descriptor_of) = good.layout(Tar::new());
    let changed = |key: &str, value: Value| {
        let mut descriptor = descriptor_of.clone();
        descriptor[key] = value;
        with(&index(&[descriptor]))
    };
    let mut both = good.manifest();
    both["manifests"] = json!([]);
    let both = both.to_string();
    // Each index is of the next.
    let mut nested = Tar::new();
    let mut inner = descriptor_of.clone();
    inner["platform"] = json!({"os": "linux", "architecture": harness::oci::this_architecture()});
    for _ in 0..4 {
        let text = index(&[inner.clone()]).to_string();
        nested = nested.file(&blob(text.as_bytes()), &text);
        inner = descriptor("index", text.as_bytes());
        inner["platform"] =
            json!({"os": "linux", "architecture": harness::oci::this_architecture()});
    }
    let (nested, _) = good.layout(nested);
    vec![
        (
            "a digest that is a path",
            changed("digest", "sha256:../../x".into()),
            "not a sha256 digest",
        ),
        (
            "a wrong size",
            changed("size", 1.into()),
            "its descriptor says 1",
        ),
        (
            "a blob that is missing",
            changed("digest", format!("sha256:{}", digest(b"")).into()),
            "it is not in the archive",
        ),
        (
            "another platform alone",
            changed("platform", json!({"os": "linux", "architecture": "s390x"})),
            "no matching manifest",
        ),
        (
            "manifests and layers at once",
            Tar::new()
                .file(&blob(both.as_bytes()), &both)
                .json(
                    "index.json",
                    &index(&[descriptor("manifest", both.as_bytes())]),
                )
                .finish(),
            "both manifests and layers",
        ),
        (
            "indexes in indexes",
            nested.json("index.json", &index(&[inner])).finish(),
            "nested too deeply",
        ),
        (
            "an empty index",
            with(&index(&[])),
            "list of images is empty",
        ),
    ]
}

#[test]
fn hostile_archives_are_refused_and_nothing_of_them_stays() {
    let host = Host::new();
    let before = store(&host);
    let file = place(&host, "bad.tar");
    let path = file.display();
    let mut wrong = Vec::new();
    for (what, bytes, expected) in docker().into_iter().chain(layers()).chain(layouts()) {
        fs::write(&file, bytes).unwrap();
        for load in [
            format!("$CORACLE load -i {path}"),
            format!("cat {path} | $CORACLE load"),
        ] {
            let output = shell(&host, &load);
            if output.code() != 1 || !output.stderr.contains(expected) || !output.stdout.is_empty()
            {
                wrong.push(format!("{what}: expected {expected:?}, got {output}"));
            }
            if store(&host) != before {
                wrong.push(format!("{what} leaves something: {}", store(&host)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(!host.folder().parent().unwrap().join("planted").exists());
}

#[test]
fn members_without_end_are_stopped_at_a_cap() {
    let host = Host::new();
    let before = store(&host);
    let members = "import sys, tarfile, io\n\
        header = tarfile.TarInfo('m').tobuf(tarfile.USTAR_FORMAT)\n\
        for _ in range(1000): sys.stdout.buffer.write(header * 1000)";
    let line = format!("python3 -c \"{members}\" | $CORACLE load");
    let output = shell(&host, &line).exits(1);
    assert!(
        output.stderr.contains("more than 400000 entries"),
        "{output}"
    );
    assert_eq!(store(&host), before);
}

#[test]
fn what_is_only_unusual_is_loaded() {
    let host = Host::builder().without_image().build();
    let file = place(&host, "good.tar");
    let path = file.display().to_string();
    let good = Small::new("x");
    let list = good.list("good:1", "link/layer.tar");
    // As old Dockers write it; and as others do, with `./` before every name.
    let old = Tar::new()
        .symlink("link/layer.tar", "../real/layer.tar")
        .file("./real/layer.tar", &good.layer)
        .file("./config.json", &good.config)
        .file("repositories", "not even JSON")
        .json("./manifest.json", &list);
    fs::write(&file, old.finish()).unwrap();
    host.run(&format!("load -i {path}"))
        .says("Loaded image: good:1");
    assert_eq!(id_of(&host, "good:1"), good.id());
    host.run("rmi good:1");

    // The same layer twice, and an image without a name.
    let twice = json!({
        "architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", digest(&good.layer)), format!("sha256:{}", digest(&good.layer))]},
    });
    let list = json!([{"Config": "c", "RepoTags": null, "Layers": ["layer.tar", "hard"]}]);
    let tar = good
        .members()
        .hard_link("hard", "layer.tar")
        .json("c", &twice)
        .json("manifest.json", &list);
    fs::write(&file, tar.finish()).unwrap();
    let id = format!("sha256:{}", digest(twice.to_string().as_bytes()));
    host.run(&format!("load -i {path}"))
        .says(&format!("Loaded image ID: {id}"));
    host.run(&format!("rmi {id}"));

    // An index of two platforms below index.json, with a full name; and a bare tag, which is no name.
    let mine = Small::of(good.layer.clone(), harness::oci::this_architecture());
    let theirs = Small::of(good.layer.clone(), "s390x");
    let (tar, mut first) = theirs.layout(Tar::new());
    first["platform"] = json!({"os": "linux", "architecture": "s390x"});
    let manifest = mine.manifest().to_string();
    let mut second = descriptor("manifest", manifest.as_bytes());
    second["platform"] = json!({"os": "linux", "architecture": harness::oci::this_architecture()});
    let inner = index(&[first, second]).to_string();
    let mut top = descriptor("index", inner.as_bytes());
    top["annotations"] = json!({"org.opencontainers.image.ref.name": "1"});
    let mut named = top.clone();
    named["annotations"]["io.containerd.image.name"] = "docker.io/library/many:1".into();
    let tar = tar
        .file(&blob(&mine.config), &mine.config)
        .file(&blob(manifest.as_bytes()), &manifest)
        .file(&blob(inner.as_bytes()), &inner);
    let tagged = tar.clone().json("index.json", &index(&[top])).finish();
    fs::write(&file, tagged).unwrap();
    host.run(&format!("load -i {path}"))
        .says(&format!("Loaded image ID: {}", mine.id()));
    fs::write(&file, tar.json("index.json", &index(&[named])).finish()).unwrap();
    host.run(&format!("load -i {path}"))
        .says("Loaded image: many:1");
    assert_eq!(id_of(&host, "many:1"), mine.id());
    host.run(&format!("load --platform linux/s390x -i {path}")).says(
        &format!(
            "The image many:1 already exists, renaming the old one with ID {} to empty string\nLoaded image: many:1",
            mine.id()
        ),
    );
    assert_eq!(id_of(&host, "many:1"), theirs.id());
    let output = host
        .try_run(&format!("load --platform linux/riscv64 -i {path}"))
        .exits(1);
    assert!(output.stderr.contains("no matching manifest"), "{output}");
}
