//! Tars that reach for what is outside, or ask for what no layer may: pulled from a real registry.

use std::os::unix::fs::{FileExt, MetadataExt};

use harness::{Netns, Tape};
use tar::EntryType;

use super::image::{Image, Layer, sha256};
use super::machine::{Machine, merged};
use super::push::push;
use super::{Row, row};

/// What a refusal ends with.
pub const ADVICE: &str = "Nothing of it was kept";

/// What the program sees of the layers' folders; far more than enough `..` to leave them.
const UP: &str = "../../../../../../../../../..";

pub fn rows() -> Vec<Row> {
    let tape = Tape::new;
    let mut rows = vec![
        row("what-a-machine-notices", |netns| {
            // Without this all the rest could be in vain.
            let notices = |change: &dyn Fn(&std::path::Path)| {
                let machine = Machine::new(netns);
                let output = machine.coracle(["images"]);
                machine.assert_untouched(&output);
                change(machine.root());
                let look = std::panic::AssertUnwindSafe(|| machine.assert_untouched(&output));
                assert!(std::panic::catch_unwind(look).is_err());
            };
            notices(&|root| std::fs::write(root.join("x"), "").unwrap());
            notices(&|root| std::fs::remove_file(root.join("etc/shadow")).unwrap());
            notices(&|root| {
                let (from, to) = (root.join("etc/passwd"), root.join("var/lib/coracle/link"));
                std::fs::hard_link(from, to).unwrap();
            });
            notices(&|root| {
                let mode = std::fs::metadata(root.join("tmp")).unwrap().permissions();
                std::fs::set_permissions(root.join("tmp"), mode).unwrap();
            });
        }),
        refused(
            "dot-dot",
            tape().file("../../x", "evil"),
            "../../x: the path has .. in it",
        ),
        refused(
            "dot-dot-inside",
            tape().file("a/../../../x", "evil"),
            "a/../../../x: the path has .. in it",
        ),
        refused(
            "dot-dot-to-a-file",
            tape().file(&format!("{UP}/etc/passwd"), "evil"),
            "/etc/passwd: the path has .. in it",
        ),
        refused(
            "dot-dot-alone",
            tape().dir("..", 0o777),
            "..: the path has .. in it",
        ),
        contained(
            "absolute",
            [tape().file("/etc/passwd", "evil")],
            &[("etc", "/"), ("etc/passwd", "evil")],
        ),
        contained(
            "symlink-to-the-root",
            [tape().symlink("a", "/").file("a/tmp/x", "evil")],
            &[("a", "-> /"), ("tmp", "/"), ("tmp/x", "evil")],
        ),
        contained(
            "symlink-up",
            [tape()
                .symlink("a", &format!("{UP}/home/user"))
                .file("a/target", "evil")],
            &[
                ("a", &format!("-> {UP}/home/user")),
                ("home", "/"),
                ("home/user", "/"),
                ("home/user/target", "evil"),
            ],
        ),
        contained(
            "symlink-to-a-file",
            [tape()
                .symlink("etc", "/etc")
                .symlink("passwd", "/etc/passwd")
                .file("passwd", "evil")],
            &[("etc", "-> /etc"), ("passwd", "evil")],
        ),
        contained(
            "symlink-chain",
            [tape()
                .symlink("a", "b/c")
                .symlink("b", "/root")
                .file("a/x", "evil")],
            &[
                ("a", "-> b/c"),
                ("b", "-> /root"),
                ("root", "/"),
                ("root/c", "/"),
                ("root/c/x", "evil"),
            ],
        ),
        contained(
            "symlink-to-a-process",
            [tape().symlink("a", "/proc/self/root").file("a/x", "evil")],
            &[
                ("a", "-> /proc/self/root"),
                ("proc", "/"),
                ("proc/self", "/"),
                ("proc/self/root", "/"),
                ("proc/self/root/x", "evil"),
            ],
        ),
        contained(
            "directory-over-a-symlink",
            [tape()
                .symlink("a", "/home/user")
                .dir("a/", 0o777)
                .file("a/target", "evil")],
            &[("a", "/"), ("a/target", "evil")],
        ),
        refused(
            "symlink-loop",
            tape()
                .symlink("a", "b")
                .symlink("b", "a")
                .file("a/x", "evil"),
            "a: too many symbolic links",
        ),
        refused(
            "symlink-to-itself",
            tape().symlink("a", "a").file("a/x", "evil"),
            "a: too many symbolic links",
        ),
        refused(
            "hard-link-to-a-file",
            tape().hardlink("a", "/etc/passwd"),
            "a: its hard link target /etc/passwd is in no layer",
        ),
        refused(
            "hard-link-up",
            tape().hardlink("a", &format!("{UP}/etc/passwd")),
            "the path has .. in it",
        ),
        refused(
            "hard-link-to-dot-dot",
            tape().hardlink("a", "../"),
            "../: the path has .. in it",
        ),
        refused(
            "hard-link-to-the-root",
            tape().hardlink("a", "/"),
            "a: a hard link to the root",
        ),
        refused(
            "hard-link-to-itself",
            tape().hardlink("a", "a"),
            "a: a hard link to itself",
        ),
        refused(
            "hard-link-to-a-directory",
            tape().dir("d/", 0o755).hardlink("a", "d"),
            "a: a hard link to a directory",
        ),
        refused(
            "hard-link-by-a-symlink",
            tape().symlink("e", "/etc").hardlink("a", "e/passwd"),
            "a: its hard link target /e/passwd is in no layer",
        ),
        contained(
            "hard-link-to-a-symlink",
            [hard_link_to_a_symlink()],
            &[("a", "-> /etc/passwd"), ("b", "evil")],
        ),
        contained(
            "hard-link-to-a-symlink-with-attributes",
            [tape()
                .symlink("a", "/etc/shadow")
                .pax(&[
                    ("SCHILY.xattr.user.evil", b"1"),
                    ("SCHILY.xattr.trusted.evil", b"1"),
                ])
                .link(EntryType::Link, "b", "a")
                .pax(&[
                    ("SCHILY.xattr.user.evil", b"1"),
                    ("SCHILY.xattr.security.capability", &CAPABILITY),
                ])
                .file("b", "evil")],
            &[("a", "-> /etc/shadow"), ("b", "evil")],
        ),
        refused(
            "whiteout-of-dot",
            tape().file(".wh..", ""),
            ".wh..: a whiteout of nothing",
        ),
        refused(
            "whiteout-of-dot-dot",
            tape().file(".wh...", ""),
            ".wh...: a whiteout of nothing",
        ),
        refused(
            "whiteout-of-nothing",
            tape().file(".wh.", ""),
            ".wh.: a whiteout of nothing",
        ),
        refused(
            "whiteout-of-dot-dot-below",
            tape().dir("d/", 0o755).file("d/.wh...", ""),
            "d/.wh...: a whiteout of nothing",
        ),
        refused(
            "whiteout-as-a-directory",
            tape().file(".wh.d/x", ""),
            ".wh.d/x: a whiteout is no directory",
        ),
        contained(
            "whiteout-through-a-symlink",
            [
                tape()
                    .file("home/user/target", "the image's")
                    .file("home/user/other", ""),
                tape()
                    .symlink("link", "/home/user")
                    .file("link/.wh.target", ""),
            ],
            &[
                ("home", "/"),
                ("home/user", "/"),
                ("home/user/other", ""),
                ("link", "-> /home/user"),
            ],
        ),
        contained(
            "whiteout-of-a-missing-file",
            [
                tape().file("f", "1"),
                tape().file(".wh.missing", "").file("none/.wh.missing", ""),
            ],
            &[("f", "1"), ("none", "/")],
        ),
        contained(
            "opaque-after-siblings",
            [
                tape().file("d/old", "1").file("e/old", "1"),
                tape()
                    .file("d/new", "2")
                    .file("d/.wh..wh..opq", "")
                    .file("e/.wh..wh..opq", "")
                    .file("e/new", "2"),
            ],
            &[("d", "/"), ("d/new", "2"), ("e", "/"), ("e/new", "2")],
        ),
        contained(
            "opaque-through-a-symlink",
            [
                tape().file("d/old", "1"),
                tape().symlink("a", "/home/user").file("a/.wh..wh..opq", ""),
            ],
            &[
                ("a", "-> /home/user"),
                ("d", "/"),
                ("d/old", "1"),
                ("home", "/"),
                ("home/user", "/"),
            ],
        ),
        contained(
            "lower-symlink-replaced-by-a-file",
            [tape().symlink("a", "/etc/passwd"), tape().file("a", "evil")],
            &[("a", "evil")],
        ),
        contained(
            "lower-symlink-replaced-by-a-directory",
            [
                tape().symlink("a", "/etc"),
                tape().dir("a/", 0o755).file("a/passwd", "evil"),
            ],
            &[("a", "/"), ("a/passwd", "evil")],
        ),
        contained(
            "lower-symlink-as-a-directory",
            [tape().symlink("a", "/"), tape().file("a/x", "evil")],
            &[("a", "/"), ("a/x", "evil")],
        ),
        contained(
            "hard-link-by-a-lower-symlink",
            [
                tape().symlink("a", "/etc/passwd"),
                tape().hardlink("b", "a").file("b", "evil"),
            ],
            &[("a", "-> /etc/passwd"), ("b", "evil")],
        ),
        refused(
            "device-of-a-whiteout",
            tape().device(EntryType::Char, "c", 0, 0),
            "c: a character device 0, 0",
        ),
        refused(
            "root-as-a-file",
            tape().file(".", "evil"),
            "the root must be a directory",
        ),
        refused(
            "root-as-a-symlink",
            tape().symlink("./", "/etc"),
            "the root must be a directory",
        ),
        refused(
            "file-as-a-directory",
            tape().file("f", "").file("f/x", ""),
            "f: /f is not a directory",
        ),
        contained(
            "attributes-of-overlayfs",
            [
                tape().file("d/secret", "1"),
                tape()
                    .pax(&[
                        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
                        ("SCHILY.xattr.user.overlay.opaque", b"y"),
                        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
                    ])
                    .dir("d/", 0o755),
            ],
            &[("d", "/"), ("d/secret", "1")],
        ),
        row("the-same-layer-twice", |netns| {
            let layer = || Layer::gzip(&Tape::new().file("f", "1").finish());
            let machine = Machine::new(netns);
            let layers = machine.pulls(&push(
                netns,
                &Image::of(vec![layer(), layer()]),
                "layers/twice",
            ));
            assert_eq!(layers.len(), 2);
            assert_eq!(
                merged(&layers).into_iter().collect::<Vec<_>>(),
                [("f".to_owned(), "1".to_owned())]
            );
        }),
        contained(
            "whiteout-in-an-opaque-directory",
            [
                tape().file("d/old", "1"),
                tape()
                    .file("d/.wh..wh..opq", "")
                    .file("d/.wh.old", "")
                    .file("d/new", "2"),
            ],
            &[("d", "/"), ("d/new", "2")],
        ),
        refused(
            "device-that-becomes-a-whiteout",
            tape().device(EntryType::Char, "c", 4096, 0),
            "c: a device number out of range",
        ),
        refused(
            "device-that-becomes-another",
            tape().device(EntryType::Block, "b", 4104, 1 << 20),
            "b: a device number out of range",
        ),
        refused(
            "capability-that-is-none",
            tape()
                .pax(&[("SCHILY.xattr.security.capability", b"all of them")])
                .file("f", ""),
            "f: an attribute security.capability that Linux does not take",
        ),
        row("attributes-without-end", |netns| {
            let names: Vec<String> = (0..2000)
                .map(|n| format!("SCHILY.xattr.user.{n}"))
                .collect();
            let records: Vec<(&str, &[u8])> = names
                .iter()
                .map(|name| (name.as_str(), &b"x"[..]))
                .collect();
            refuse(
                netns,
                "attributes",
                Tape::new().pax(&records).file("f", ""),
                &["too many PAX records"],
            );
        }),
        row("hole-below-a-hard-link", |netns| {
            // The file is copied up to be linked to, and its hole stays one.
            let size: &[u8] = b"1099511627776";
            let hole = Tape::new()
                .pax(&[("GNU.sparse.map", b"4096,5"), ("GNU.sparse.size", size)])
                .file("hole", "piece");
            let layers = [hole, Tape::new().hardlink("link", "hole")];
            let image = Image::of(layers.map(|tape| Layer::gzip(&tape.finish())).into());
            let machine = Machine::new(netns);
            let layers = machine.pulls(&push(netns, &image, "layers/hole"));
            let link = std::fs::metadata(layers[0].join("link")).unwrap();
            assert_eq!((link.len(), link.nlink()), (1 << 40, 2));
            assert!(link.blocks() < 100, "{} blocks", link.blocks());
            let mut piece = [0; 5];
            let file = std::fs::File::open(layers[0].join("link")).unwrap();
            file.read_exact_at(&mut piece, 4096).unwrap();
            assert_eq!(&piece, b"piece");
        }),
        row("a-device-of-the-host", |netns| {
            // It is made, as in Docker: a container's cgroup decides who may open it.
            let machine = Machine::new(netns);
            let tar = Tape::new().device(EntryType::Block, "disk", 8, 0).finish();
            let layers = machine.pulls(&push(
                netns,
                &Image::of(vec![Layer::gzip(&tar)]),
                "layers/disk",
            ));
            let disk = std::fs::symlink_metadata(layers[0].join("disk")).unwrap();
            assert_eq!(disk.rdev(), nix::sys::stat::makedev(8, 0));
        }),
        row("a-good-layer-below", |netns| {
            let good = Layer::gzip(&Tape::new().file("f", "x".repeat(100_000)).finish());
            let bad = Layer::gzip(&Tape::new().file("../x", "evil").finish());
            let machine = Machine::new(netns);
            let name = push(
                netns,
                &Image::of(vec![good.clone(), bad.clone()]),
                "layers/below",
            );
            machine.refuses(&name, &[&bad.short(), "../x"]);
            // The machine is none the worse for it.
            let name = push(netns, &Image::of(vec![good]), "layers/mended");
            assert_eq!(merged(&machine.pulls(&name)).len(), 1);
        }),
        row("the-wrong-layer", |netns| {
            let mut layer = Layer::gzip(&Tape::new().file("f", "1").finish());
            layer.diff_id = sha256(b"another");
            let machine = Machine::new(netns);
            let name = push(netns, &Image::of(vec![layer.clone()]), "layers/wrong");
            machine.refuses(
                &name,
                &[
                    &layer.short(),
                    "its tar has the digest sha256:",
                    &layer.diff_id,
                    ADVICE,
                ],
            );
        }),
        row("too-deep", |netns| {
            // Longer than any path of Linux.
            let name = "d/".repeat(10_000);
            refuse(
                netns,
                "deep",
                Tape::new().long_name(name.as_bytes()).dir("cut", 0o755),
                &["limit"],
            );
        }),
        row("too-deep-by-symlinks", |netns| {
            let deep = "d/".repeat(1000);
            let tape = Tape::new()
                .pax(&[("path", deep.as_bytes())])
                .dir("cut", 0o755);
            let tape = tape
                .pax(&[("linkpath", deep.as_bytes())])
                .symlink("s", "cut");
            let below = format!("s/{deep}");
            let tape = tape.pax(&[("path", below.as_bytes())]).dir("cut", 0o755);
            refuse(netns, "deeper", tape, &["nested too deeply"]);
        }),
        row("deep-and-gone-again", |netns| {
            // What has been made must be deleted too.
            let deep = "d/".repeat(1000);
            let tape = Tape::new()
                .pax(&[("path", deep.as_bytes())])
                .dir("cut", 0o755)
                .file("../x", "");
            refuse(netns, "gone", tape, &["../x"]);
        }),
    ];
    rows.extend(escapes());
    rows
}

/// `security.capability` of a program that may do everything.
const CAPABILITY: [u8; 20] = [
    1, 0, 0, 2, 255, 255, 255, 255, 0, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0,
];

/// Then mode, owner and time are set by the second name: of the link, or of what it leads to?
fn hard_link_to_a_symlink() -> Tape {
    let mut open = Tape::header(EntryType::Regular, "b", 0o6777);
    open.set_uid(1000);
    open.set_gid(1000);
    let mut link = Tape::header(EntryType::Link, "b", 0o6777);
    link.set_uid(1000);
    link.as_old_mut().linkname[0] = b'a';
    Tape::new()
        .symlink("a", "/etc/passwd")
        .add(link, b"")
        .add(open, b"evil")
}

/// Names that a terminal would obey.
fn escapes() -> Vec<Row> {
    vec![row("escapes-in-a-refused-name", |netns| {
        let tape = Tape::new().file("../\x1b[31mred\x1b]0;title\x07\ncoracle: all is well", "");
        let machine = Machine::new(netns);
        let layer = Layer::gzip(&tape.finish());
        let name = push(netns, &Image::of(vec![layer]), "layers/red");
        let output = machine.refuses(&name, &["\\u{1b}[31mred", "the path has .. in it"]);
        let forged = output
            .stderr
            .lines()
            .any(|line| line.starts_with("coracle: all is well"));
        assert!(!forged, "{output}");
    })]
}

#[track_caller]
fn refuse(netns: &'static Netns, repository: &str, tape: Tape, says: &[&str]) {
    let layer = Layer::gzip(&tape.finish());
    let machine = Machine::new(netns);
    let name = push(
        netns,
        &Image::of(vec![layer.clone()]),
        &format!("layers/{repository}"),
    );
    let short = layer.short();
    let says: Vec<&str> = says
        .iter()
        .copied()
        .chain([short.as_str(), ADVICE])
        .collect();
    machine.refuses(&name, &says);
}

/// A layer that is refused: `says` has the path within it and the reason.
fn refused(name: &'static str, tape: Tape, says: &'static str) -> Row {
    row(name, move |netns| refuse(netns, name, tape, &[says]))
}

/// Layers, the lowest first, that do no harm: what is to be seen of them, all of it.
fn contained<const N: usize>(name: &'static str, layers: [Tape; N], shows: &[(&str, &str)]) -> Row {
    let expected: Vec<(String, String)> = shows
        .iter()
        .map(|(path, what)| ((*path).to_owned(), (*what).to_owned()))
        .collect();
    row(name, move |netns| {
        let layers = layers.map(|tape| Layer::gzip(&tape.finish()));
        let machine = Machine::new(netns);
        let pulled = machine.pulls(&push(
            netns,
            &Image::of(layers.into()),
            &format!("layers/{name}"),
        ));
        let seen: Vec<(String, String)> = merged(&pulled).into_iter().collect();
        assert_eq!(seen, expected);
    })
}
