//! What is pulled is, file by file and to the last attribute, what other extractors make of the same layers: umoci, and GNU tar with the
//! whiteouts done by a script. Compared is the tree as overlayfs shows it: paths, types, modes, owners, times, sizes, contents, targets,
//! device numbers, attributes of all namespaces, and which names are the same file.
//!
//! What the layer applier must do itself, and where it is shown (`c`: the image `corners`, `d`: `debian`, `s`: `sparse`; functions with
//! another file's name are unit tests there):
//! 1. nothing leads out of the root: image/tests/layer.rs `nothing_leads_out_of_the_root`, `the_layers_own_symlinks_are_followed_inside_it`
//! 2. write, chown, chmod, attributes, times: d (`su`, `ping`), c (`mode-*`, `caps`, folders' times); default ACLs last: c (`implicit/deep`),
//!    image/tests/layer.rs `nothing_inherits_a_default_acl`
//! 3. whiteouts and opaque folders, markers before and after their siblings: d (layers 2 to 5), c (`opaque-*`, `whited`, `gone`),
//!    image/tests/layer.rs `whiteouts_work_in_any_position`
//! 4. a whiteout and a file of one name in one layer: c (`both-*`)
//! 5. folders that a layer leaves out: d (layer 5: `tmp`, `srv/shared`), c (`implicit`, `dirs/sticky`)
//! 6. hard links to what is in lower layers only: d (`login-again`), c (`link-to-lower-*`)
//! 7. overlayfs's own attributes: c (`attributes`, `dirs`), image/tests/layer.rs `overlays_own_attributes_are_stripped`
//! 8. long names, base 256, devices, FIFOs: c; holes: s; gzip, zstd and plain, Docker's manifest and OCI's: all; gzip of several members:
//!    image/tests/pull.rs

use std::path::PathBuf;

use harness::registry::Access;
use harness::trees::{Difference, FORMS, Fixture, Tree};
use harness::{Cmd, Host, Registry, trees};

/// Where another extractor says something else of `corners` or `sparse`, and why we are right. What is not here is the same.
struct Known {
    extractor: &'static str,
    path: &'static str,
    fact: &'static str,
    /// For those who read; nothing decides by it.
    #[allow(dead_code, reason = "read by people")]
    why: &'static str,
}

const fn known(
    extractor: &'static str,
    path: &'static str,
    fact: &'static str,
    why: &'static str,
) -> Known {
    Known {
        extractor,
        path,
        fact,
        why,
    }
}

const OVERLAYS_OWN: &str = "an image must not bring attributes of overlayfs";
const NOBODY_SAYS: &str = "no layer names the folder: its time is the moment of unpacking";
const KNOWN_OF_CORNERS: &[Known] = &[
    known(
        "tar",
        "attributes",
        "xattr user.overlay.opaque",
        OVERLAYS_OWN,
    ),
    known(
        "umoci",
        "attributes",
        "xattr user.overlay.opaque",
        OVERLAYS_OWN,
    ),
    known("tar", "new", "mtime", NOBODY_SAYS),
    known("tar", "new/parents", "mtime", NOBODY_SAYS),
    known("tar", "new/parents/of", "mtime", NOBODY_SAYS),
    known("tar", "new/parents/of/its", "mtime", NOBODY_SAYS),
    known("tar", "new/parents/of/its/own", "mtime", NOBODY_SAYS),
    known("umoci", "new", "mtime", NOBODY_SAYS),
    known("umoci", "new/parents", "mtime", NOBODY_SAYS),
    known("umoci", "new/parents/of", "mtime", NOBODY_SAYS),
    known("umoci", "new/parents/of/its", "mtime", NOBODY_SAYS),
    known("umoci", "new/parents/of/its/own", "mtime", NOBODY_SAYS),
    known(
        "umoci",
        "attributes",
        "xattr user.empty",
        "umoci takes an empty value for none; tar keeps it",
    ),
    known(
        "umoci",
        "",
        "mtime",
        "umoci lets the root's time go when a layer without the root puts a file there; by tar, the script keeps it",
    ),
];

/// A machine with a registry, and what is done there with images.
struct World<'a> {
    host: &'a Host,
    registry: Registry<'a>,
}

impl<'a> World<'a> {
    fn new(host: &'a Host) -> World<'a> {
        let registry = Registry::start(host, Access::Open);
        World { host, registry }
    }

    /// Pushes an image as it is, byte for byte; its name there.
    #[track_caller]
    fn push(&self, source: &str, name: &str) -> String {
        let name = self.registry.image(name);
        Cmd::new("skopeo")
            .args(["--insecure-policy", "copy", "--quiet", "--preserve-digests"])
            .args(["--dest-tls-verify=false", source])
            .arg(format!("docker://{name}"))
            .run_in(&self.host.netns)
            .ok();
        name
    }

    /// An image's tree as overlayfs shows it.
    #[track_caller]
    fn tree(&self, image: &str) -> Tree {
        let inspect = self.host.run(&format!("image inspect {image}")).json();
        let lower = inspect[0]["GraphDriver"]["Data"]["LowerDir"].as_str();
        let lower = lower.expect("an image has layers").split(':');
        trees::list_mounted(&lower.map(PathBuf::from).collect::<Vec<_>>())
    }

    /// Takes images away, and sees that no layer stays.
    #[track_caller]
    fn remove(&self, images: &[&str]) {
        self.host.run(&format!("rmi {}", images.join(" ")));
        let layers = std::fs::read_dir(self.host.root().join("layers")).unwrap();
        let names = layers.map(|entry| entry.unwrap().file_name());
        // The store's own, such as its lock, begin with a dot.
        let left: Vec<_> = names
            .filter(|name| !name.to_string_lossy().starts_with('.'))
            .collect();
        assert!(left.is_empty(), "layers of no image: {left:?}");
    }
}

/// Fails unless the differences are the known ones, all of them.
#[track_caller]
fn only_known(extractor: &str, differences: &[Difference], known: &[Known]) {
    let known: Vec<&Known> = known
        .iter()
        .filter(|known| known.extractor == extractor)
        .collect();
    let is = |known: &Known, it: &Difference| known.path == it.path && known.fact == it.fact;
    let unexplained: Vec<String> = differences
        .iter()
        .filter(|it| !known.iter().any(|known| is(known, it)))
        .map(ToString::to_string)
        .collect();
    let outdated: Vec<String> = known
        .iter()
        .filter(|known| !differences.iter().any(|it| is(known, it)))
        .map(|known| format!("/{}: {}", known.path, known.fact))
        .collect();
    assert!(
        unexplained.is_empty() && outdated.is_empty(),
        "not as {extractor} has it:\n{}\nin the table, but the same:\n{}",
        unexplained.join("\n"),
        outdated.join("\n")
    );
}

/// Pulls an image in all its forms and compares it with what the other extractors make of it.
#[track_caller]
fn check(fixture: &Fixture, others: &[(&str, Tree)], known: &[Known]) {
    let host = Host::builder().without_image().build();
    let world = World::new(&host);
    for form in FORMS {
        let layer = match form {
            "oci-gzip" => "application/vnd.oci.image.layer.v1.tar+gzip",
            "oci-zstd" => "application/vnd.oci.image.layer.v1.tar+zstd",
            "oci-plain" => "application/vnd.oci.image.layer.v1.tar",
            "docker-gzip" => "application/vnd.docker.image.rootfs.diff.tar.gzip",
            _ => "application/vnd.docker.image.rootfs.diff.tar",
        };
        let types = fixture.media_types(form);
        assert!(types.iter().all(|it| it == layer), "{form}: {types:?}");
        let image = world.push(&fixture.form(form), &format!("tree:{form}"));
        host.run(&format!("pull {image}"));
        let ours = world.tree(&image);
        for (extractor, theirs) in others {
            only_known(extractor, &trees::differences(&ours, theirs), known);
        }
        world.remove(&[&image]);
    }
}

#[test]
fn debian_is_as_umoci_and_tar_unpack_it() {
    let work = tempfile::tempdir().unwrap();
    let debian = trees::debian();
    assert_eq!(debian.tars().len(), 5, "five layers");
    let tar = debian.by_tar(&work.path().join("tar"));
    let umoci = debian.by_umoci(&work.path().join("umoci"));
    // What the image is for: it would be no proof without these.
    let setuid = |tree: &Tree| tree["usr/bin/passwd"]["mode"].clone();
    assert_eq!(setuid(&tar), "4755");
    assert!(tar["usr/bin/login-again"]["links"].contains("usr/bin/passwd"));
    assert!(
        tar.values()
            .any(|file| file.contains_key("xattr security.capability"))
    );
    assert!(!tar.contains_key("usr/bin/chage") && !tar.contains_key("usr/share/doc"));
    assert_eq!(tar["tmp"]["mode"], "1777");
    check(&debian, &[("tar", tar), ("umoci", umoci)], &[]);
}

#[test]
fn all_that_tars_can_say_is_understood_as_umoci_and_tar_do() {
    let work = tempfile::tempdir().unwrap();
    let corners = trees::corners();
    let tar = corners.by_tar(&work.path().join("tar"));
    let umoci = corners.by_umoci(&work.path().join("umoci"));
    check(
        &corners,
        &[("tar", tar), ("umoci", umoci)],
        KNOWN_OF_CORNERS,
    );
}

/// By GNU tar alone: umoci knows no holes in GNU's own format.
#[test]
fn files_with_holes_are_as_tar_unpacks_them() {
    let work = tempfile::tempdir().unwrap();
    let sparse = trees::sparse();
    let tar = sparse.by_tar(&work.path().join("tar"));
    check(&sparse, &[("tar", tar)], &[]);
}

/// A container's root as its own processes have it: the image, and what is mounted for a container.
#[test]
fn a_containers_root_is_the_images_tree() {
    let host = Host::builder().without_image().build();
    let world = World::new(&host);
    let image = world.push(&trees::debian().form("oci-gzip"), "tree:1");
    host.run(&format!("run -d --name debian {image} sleep 1000"));
    let inside = trees::list(&PathBuf::from(format!(
        "/proc/{}/root/.",
        host.pid_of("debian")
    )));
    let ours = world.tree(&image);
    let not_mounted = |it: &Difference| {
        let etc = ["etc/hosts", "etc/hostname", "etc/resolv.conf"];
        let mounted = ["dev", "proc", "sys"];
        let made_for = ["", "etc"];
        !(etc.contains(&&*it.path)
            || mounted.contains(&&*it.path)
            || it.path == "dev/ours"
            || made_for.contains(&&*it.path) && it.fact == "mtime")
    };
    let mut differences = trees::differences(&inside, &ours);
    differences.retain(not_mounted);
    only_known("the image", &differences, &[]);
    host.run("rm -f debian");
}

/// Two commands at once, of one image and of two that share layers, each time into an empty store: the same trees as by one alone.
#[test]
fn pulls_at_once_make_the_same_trees() {
    let host = Host::builder().without_image().build();
    let world = World::new(&host);
    let (debian, corners) = (trees::debian(), trees::corners());
    let layout = host.folder().join("sharing");
    let sharing = trees::sharing(&debian, &layout);
    let names = [
        world.push(&debian.form("oci-gzip"), "debian:1"),
        world.push(&format!("oci:{}:sharing", sharing.display()), "sharing:1"),
        world.push(&corners.form("oci-zstd"), "corners:1"),
    ];
    let [debian, sharing, corners] = &names;
    let mut alone: Vec<Tree> = Vec::new();
    for name in &names {
        host.run(&format!("pull {name}"));
        alone.push(world.tree(name));
        world.remove(&[name]);
    }
    for (one, other) in [
        (debian, debian),
        (debian, sharing),
        (corners, corners),
        (sharing, debian),
        (corners, debian),
        (corners, corners),
    ] {
        let pull = |name: &String| host.command(["pull", name]).spawn_in(&host.netns);
        let both = [pull(one), pull(other)];
        for running in both {
            running.wait().ok();
        }
        let mut pulled = vec![one.as_str(), other.as_str()];
        pulled.dedup();
        for name in &pulled {
            let at = names.iter().position(|it| it == name).unwrap();
            let mut differences = trees::differences(&world.tree(name), &alone[at]);
            // The moment of unpacking.
            let moments = |it: &Known| it.why == NOBODY_SAYS;
            let is =
                |it: &Difference, known: &Known| it.path == known.path && it.fact == known.fact;
            let moments: Vec<&Known> = KNOWN_OF_CORNERS.iter().filter(|it| moments(it)).collect();
            differences.retain(|it| !moments.iter().any(|known| is(it, known)));
            only_known("one pull alone", &differences, &[]);
        }
        world.remove(&pulled);
    }
}
