//! The applier alone: what overlayfs gets to see, and that hostile tars touch nothing outside.

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use common::*;
use image::layer::{LayerError, Limits, apply_over};
use tar::EntryType;

/// Directories for layers, the lowest first.
struct Stack {
    dir: tempfile::TempDir,
    layers: Vec<PathBuf>,
}

impl Stack {
    fn new() -> Stack {
        Stack {
            dir: tempfile::tempdir().unwrap(),
            layers: Vec::new(),
        }
    }

    fn push(&mut self, tar: Tar) -> Result<u64, LayerError> {
        self.push_bytes(&tar.finish(), Limits::default())
    }

    fn push_bytes(&mut self, tar: &[u8], limits: Limits) -> Result<u64, LayerError> {
        let path = self.dir.path().join(self.layers.len().to_string());
        fs::create_dir(&path).unwrap();
        let below: Vec<OwnedFd> = self
            .layers
            .iter()
            .rev()
            .map(|p| File::open(p).unwrap().into())
            .collect();
        let root: OwnedFd = File::open(&path).unwrap().into();
        self.layers.push(path);
        apply_over(&root, &mut &*tar, &below, limits)
    }

    fn top(&self) -> &Path {
        self.layers.last().unwrap()
    }

    fn mounted(&self) -> Listing {
        let layers: Vec<_> = self.layers.iter().rev().cloned().collect();
        with_mounted(&layers, list_tree)
    }

    fn names(&self) -> Vec<String> {
        self.mounted()
            .into_keys()
            .filter(|name| !name.is_empty())
            .collect()
    }
}

fn stack(layers: impl IntoIterator<Item = Tar>) -> Stack {
    let mut stack = Stack::new();
    for tar in layers {
        stack.push(tar).unwrap();
    }
    stack
}

#[track_caller]
fn refused(tar: Tar, why: &str) {
    refused_bytes(&tar.finish(), Limits::default(), why);
}

#[track_caller]
fn refused_bytes(tar: &[u8], limits: Limits, why: &str) {
    let error = Stack::new().push_bytes(tar, limits).unwrap_err();
    assert!(
        error.is_content() && error.to_string().contains(why),
        "{error}"
    );
}

#[test]
fn a_left_out_directory_keeps_the_lower_ones_metadata() {
    let base = Tar::new()
        .dir("tmp/", 0o1777)
        .pax(&[("SCHILY.xattr.user.a", b"b")])
        .dir("opt/", 0o711)
        .dir("opt/x/", 0o700);
    let stack = stack([
        base,
        Tar::new()
            .file("tmp/f", 0o644, "")
            .file("opt/x/y/f", 0o644, ""),
    ]);
    let tree = stack.mounted();
    assert!(
        tree["tmp"].starts_with("41777 0:0 1000000000.0"),
        "{}",
        tree["tmp"]
    );
    assert!(
        tree["opt"].starts_with("40711 ") && tree["opt"].ends_with("user.a=[62]"),
        "{}",
        tree["opt"]
    );
    assert!(tree["opt/x"].starts_with("40700 "));
    assert!(tree["opt/x/y"].starts_with("40755 0:0"));
}

#[test]
fn whiteouts_work_in_any_position() {
    let base = || {
        Tar::new()
            .dir("d/", 0o755)
            .file("d/a", 0o644, "a")
            .file("d/b", 0o644, "b")
            .file("f", 0o644, "f")
    };
    let names = |tar: Tar| stack([base(), tar]).names();
    assert_eq!(names(Tar::new().file(".wh.d", 0o644, "")), ["f"]);
    // The same layer's own entry wins, and hides the lower one whole.
    let own = ["d", "d/c", "f"];
    assert_eq!(
        names(
            Tar::new()
                .file(".wh.d", 0o644, "")
                .dir("d/", 0o755)
                .file("d/c", 0o644, "")
        ),
        own
    );
    assert_eq!(
        names(
            Tar::new()
                .dir("d/", 0o755)
                .file("d/c", 0o644, "")
                .file(".wh.d", 0o644, "")
        ),
        own
    );
    assert_eq!(
        names(Tar::new().file(".wh.d", 0o644, "").file("d/c", 0o644, "")),
        own
    );
    assert_eq!(
        names(Tar::new().file("d/c", 0o644, "").file(".wh.d", 0o644, "")),
        own
    );
    assert_eq!(
        names(
            Tar::new()
                .file("d/c", 0o644, "")
                .file("d/.wh..wh..opq", 0o644, "")
        ),
        own
    );
    assert_eq!(
        names(
            Tar::new()
                .file("d/.wh..wh..opq", 0o644, "")
                .file("d/c", 0o644, "")
        ),
        own
    );
    assert_eq!(
        names(Tar::new().file("d/.wh..wh..opq", 0o644, "")),
        ["d", "f"]
    );
    assert_eq!(
        names(Tar::new().file("f", 0o644, "").file(".wh.f", 0o644, "")),
        ["d", "d/a", "d/b", "f"]
    );
    assert_eq!(
        names(Tar::new().file("d/.wh.none", 0o644, "")),
        ["d", "d/a", "d/b", "f"]
    );
    // Over a whiteout of two layers below, a directory starts empty.
    let again = stack([
        base(),
        Tar::new().file(".wh.d", 0o644, ""),
        Tar::new().dir("d/", 0o755).file("d/c", 0o644, ""),
    ]);
    assert_eq!(again.names(), own);
}

#[test]
fn the_layers_own_symlinks_are_followed_inside_it() {
    let tar = Tar::new()
        .symlink("d/absolute", "/t")
        .file("d/absolute/a", 0o644, "")
        .symlink("d/relative", "../../../t")
        .file("d/relative/b", 0o644, "");
    assert_eq!(
        stack([tar]).names(),
        ["d", "d/absolute", "d/relative", "t", "t/a", "t/b"]
    );
}

#[test]
fn an_opaque_root_hides_all_below() {
    let base = Tar::new()
        .dir("d/", 0o755)
        .file("d/a", 0o644, "a")
        .file("f", 0o644, "f");
    let top = Tar::new()
        .file("d/new", 0o644, "")
        .file(".wh..wh..opq", 0o644, "")
        .file("g", 0o644, "");
    assert_eq!(stack([base, top]).names(), ["d", "d/new", "g"]);
}

#[test]
fn aufs_own_names_are_left_out() {
    let tar = Tar::new()
        .dir(".wh..wh.plnk/", 0o700)
        .file(".wh..wh.plnk/1.2", 0o644, "")
        .file(".wh..wh.aufs", 0o644, "")
        .file("f", 0o644, "");
    assert_eq!(stack([tar]).names(), ["f"]);
}

#[test]
fn a_hard_link_to_a_lower_file_copies_it_up_with_all_it_has() {
    let base = Tar::new()
        .dir("d/", 0o750)
        .pax(&[("SCHILY.xattr.user.a", b"b")])
        .owned("d/f", 0o4711, 5, 6, "content")
        .symlink("d/s", "f");
    let middle = Tar::new().file("unrelated", 0o644, "");
    let top = Tar::new()
        .hardlink("l1", "d/f")
        .hardlink("l2", "l1")
        .hardlink("ls", "d/s");
    let stack = stack([base, middle, top]);
    let tree = stack.mounted();
    for name in ["d/f", "l1", "l2"] {
        let line = &tree[name];
        assert!(
            line.starts_with("104711 5:6 1000000000.0 links 3 7 "),
            "{line}"
        );
        assert!(line.ends_with("user.a=[62]"), "{line}");
    }
    assert!(tree["ls"].contains("-> f"));
    assert!(tree["d"].starts_with("40750 "));
    refused(Tar::new().hardlink("a", "missing"), "is in no layer");
    let mut gone = Stack::new();
    gone.push(Tar::new().file("f", 0o644, "")).unwrap();
    gone.push(Tar::new().file(".wh.f", 0o644, "")).unwrap();
    assert!(
        gone.push(Tar::new().hardlink("l", "f")).is_err(),
        "deleted in between"
    );
}

#[test]
fn later_entries_replace_earlier_ones() {
    let tar = Tar::new()
        .dir("d/", 0o755)
        .file("d/x", 0o644, "")
        .file("d", 0o600, "file")
        .file("e", 0o644, "")
        .dir("e/", 0o711)
        .file("e/y", 0o644, "")
        .symlink("s", "/etc")
        .file("s", 0o644, "was a link")
        .file("twice", 0o644, "1")
        .file("twice", 0o600, "22");
    let tree = stack([tar]).mounted();
    assert!(tree["d"].starts_with("100600") && !tree.contains_key("d/x"));
    assert!(tree["e"].starts_with("40711") && tree.contains_key("e/y"));
    assert!(tree["s"].starts_with("100644"));
    assert!(tree["twice"].starts_with("100600 0:0 1000000000.0 links 1 2 "));
}

#[test]
fn overlays_own_attributes_are_stripped() {
    let tar = Tar::new()
        .pax(&[
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("SCHILY.xattr.user.ok", b"1"),
        ])
        .dir("d/", 0o755);
    let stack = stack([tar]);
    assert_eq!(xattrs(&stack.top().join("d")), "user.ok=[31]");
}

/// What is in a folder comes from the tar alone, whatever the folder's default ACL has for new files (acl(5)).
#[test]
fn nothing_inherits_a_default_acl() {
    let acl = [
        &[2, 0, 0, 0][..],
        &[1, 0, 7, 0, 255, 255, 255, 255],
        &[2, 0, 5, 0, 232, 3, 0, 0],
        &[4, 0, 5, 0, 255, 255, 255, 255],
        &[16, 0, 5, 0, 255, 255, 255, 255],
        &[32, 0, 5, 0, 255, 255, 255, 255],
    ]
    .concat();
    let tar = Tar::new()
        .pax(&[("SCHILY.xattr.system.posix_acl_default", &acl)])
        .dir("d/", 0o755)
        .dir("d/sub/", 0o700)
        .file("d/file", 0o640, "x");
    let stack = stack([tar]);
    assert!(xattrs(&stack.top().join("d")).starts_with("system.posix_acl_default="));
    assert_eq!(xattrs(&stack.top().join("d/sub")), "");
    assert_eq!(xattrs(&stack.top().join("d/file")), "");
}

#[test]
fn every_form_of_entry_is_understood() {
    let long = format!("{}x", "n".repeat(120));
    let mut big = Tar::header(EntryType::Regular, "base256", 0o644);
    big.as_old_mut().uid = [0x80, 0, 0, 0, 0, 0x2f, 0xff, 0xff];
    let mut old = Tar::header(EntryType::Regular, "old-dir/", 0o755);
    old.as_old_mut().linkflag = [0];
    let tar = Tar::new()
        .long_name(long.as_bytes())
        .file("cut", 0o644, "long")
        .pax(&[
            ("path", "päx/ü".as_bytes()),
            ("uid", b"70000"),
            ("mtime", b"-1.5"),
        ])
        .file("cut", 0o644, "pax")
        .add(big, b"")
        .add(old, b"")
        .device(EntryType::Block, "block", 8, 1)
        .device(EntryType::Fifo, "fifo", 0, 0)
        .add(Tar::header(EntryType::Continuous, "cont", 0o644), b"data");
    let stack = stack([tar]);
    let tree = stack.mounted();
    assert!(tree[&long].contains(" links 1 4 "));
    assert!(
        tree["päx/ü"].starts_with("100644 70000:0 -2.500000000 "),
        "{}",
        tree["päx/ü"]
    );
    assert!(
        tree["base256"].starts_with("100644 3145727:0"),
        "{}",
        tree["base256"]
    );
    assert!(tree["old-dir"].starts_with("40755"));
    let block = fs::symlink_metadata(stack.top().join("block")).unwrap();
    assert!(block.file_type().is_block_device() && block.rdev() == rustix::fs::makedev(8, 1));
    assert!(
        fs::symlink_metadata(stack.top().join("fifo"))
            .unwrap()
            .file_type()
            .is_fifo()
    );
}

/// GNU tar as the writer: its sparse files in each of its formats.
#[test]
fn sparse_files_of_gnu_tar_keep_content_and_holes() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = File::create(dir.path().join("sparse")).unwrap();
    file.write_all(b"start").unwrap();
    for at in [1_u64 << 20, 3 << 20, 5 << 20, 7 << 20, 9 << 20, 11 << 20] {
        use std::io::{Seek, SeekFrom};
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(b"piece").unwrap();
    }
    file.set_len(20 << 20).unwrap();
    drop(file);
    let expect = sha256(&fs::read(dir.path().join("sparse")).unwrap());
    for format in [
        &["--format=gnu"][..],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ] {
        let output = std::process::Command::new("tar")
            .args(format)
            .args(["--sparse", "-cf", "-", "-C"])
            .arg(dir.path())
            .arg("sparse")
            .output()
            .expect("tar must be installed");
        assert!(output.status.success() && output.stdout.len() < 1 << 20);
        let mut stack = Stack::new();
        stack
            .push_bytes(&output.stdout, Limits::default())
            .unwrap_or_else(|e| panic!("{format:?}: {e}"));
        let path = stack.top().join("sparse");
        assert_eq!(sha256(&fs::read(&path).unwrap()), expect, "{format:?}");
        assert!(
            fs::metadata(&path).unwrap().blocks() * 512 < 1 << 20,
            "{format:?}"
        );
    }
}

#[test]
fn nothing_leads_out_of_the_root() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().join("target");
    fs::write(&target, "host").unwrap();
    fs::set_permissions(&target, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let host = target.display().to_string();
    let host_dir = outside.path().display().to_string();
    let inside = host_dir.trim_start_matches('/');
    let contained = [
        Tar::new().file(&host, 0o644, "evil"),
        Tar::new()
            .symlink("a", "/")
            .file(&format!("a{host}"), 0o644, "evil"),
        Tar::new()
            .symlink("a", &format!("../../../../../../../..{host_dir}"))
            .file("a/target", 0o644, "evil"),
        Tar::new()
            .symlink("a", &host_dir)
            .file("a/.wh.target", 0o644, ""),
        Tar::new().symlink("a", &host_dir).dir("a/", 0o777),
        Tar::new()
            .symlink("a", &host)
            .hardlink("b", "a")
            .file("b", 0o777, "evil"),
        Tar::new()
            .symlink("a", &host_dir)
            .file("a/.wh..wh..opq", 0o644, ""),
    ];
    for (i, tar) in contained.into_iter().enumerate() {
        let mut stack = Stack::new();
        stack.push(tar).unwrap_or_else(|e| panic!("{i}: {e}"));
        assert_eq!(fs::read_to_string(&target).unwrap(), "host", "{i}");
        assert_eq!(fs::metadata(&target).unwrap().mode() & 0o777, 0o600, "{i}");
        assert_eq!(fs::read_dir(&host_dir).unwrap().count(), 1, "{i}");
    }
    let mut stack = Stack::new();
    stack
        .push(
            Tar::new()
                .symlink("a", "/")
                .file(&format!("a{host}"), 0o644, "evil"),
        )
        .unwrap();
    assert_eq!(
        fs::read_to_string(stack.top().join(inside).join("target")).unwrap(),
        "evil"
    );

    for tar in [
        Tar::new().file("../../x", 0o644, ""),
        Tar::new().file("a/../../x", 0o644, ""),
        Tar::new().hardlink("a", "../../etc/passwd"),
        Tar::new().hardlink("a", "/etc/passwd"),
        Tar::new().symlink("a", "a").file("a/x", 0o644, ""),
        Tar::new()
            .symlink("a", &host)
            .hardlink("b", &format!("a/{}", "x")),
    ] {
        assert!(Stack::new().push(tar).is_err());
    }
    // A lower layer's symlink is no way out either, nor is one that a test plants by hand.
    let mut stack = Stack::new();
    stack.push(Tar::new().symlink("l", &host_dir)).unwrap();
    stack
        .push(Tar::new().file("l/target", 0o644, "evil"))
        .unwrap();
    symlink(&host_dir, stack.top().join("planted")).unwrap();
    assert_eq!(fs::read_to_string(&target).unwrap(), "host");
}

#[test]
fn what_cannot_be_done_exactly_is_refused() {
    refused(Tar::new().file(".wh..", 0o644, ""), "whiteout of nothing");
    refused(Tar::new().file(".wh...", 0o644, ""), "whiteout of nothing");
    refused(Tar::new().file(".wh.", 0o644, ""), "whiteout of nothing");
    refused(
        Tar::new().file(".wh.d/x", 0o644, ""),
        "a whiteout is no directory",
    );
    refused(
        Tar::new().device(EntryType::Char, "c", 0, 0),
        "character device 0, 0",
    );
    refused(
        Tar::new().file("f", 0o644, "").file("f/x", 0o644, ""),
        "is not a directory",
    );
    refused(
        Tar::new().dir("d/", 0o755).hardlink("l", "d"),
        "to a directory",
    );
    refused(
        Tar::new().file("f", 0o644, "").hardlink("f", "f"),
        "to itself",
    );
    refused(
        Tar::new().add(Tar::header(EntryType::new(b'Q'), "q", 0o644), b""),
        "unknown entry type",
    );
    refused(
        Tar::new()
            .pax(&[("uid", b"4294967295")])
            .file("f", 0o644, ""),
        "an owner",
    );
    refused(Tar::new().file("./", 0o644, "x"), "malformed");
}

#[test]
fn malformed_and_oversized_tars_are_refused() {
    let whole = Tar::new().file("f", 0o644, &"x".repeat(2000)).finish();
    refused_bytes(&whole[..1000], Limits::default(), "in the middle");
    refused_bytes(&whole[..300], Limits::default(), "in the middle");
    let mut bad = whole.clone();
    bad[0] ^= 1;
    refused_bytes(&bad, Limits::default(), "checksum");
    let mut huge = Tar::header(EntryType::Regular, "f", 0o644);
    huge.as_old_mut().size = [
        0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    ];
    huge.set_cksum();
    refused_bytes(
        &Tar::new().raw(huge.as_bytes()).finish(),
        Limits::default(),
        "over the limit",
    );
    huge.as_old_mut().size = [0xff; 12];
    huge.set_cksum();
    refused_bytes(
        &Tar::new().raw(huge.as_bytes()).finish(),
        Limits::default(),
        "a size of -1",
    );
    refused(
        Tar::new()
            .add(Tar::header(EntryType::XHeader, "p", 0o644), b"99 a=b\n")
            .file("f", 0o644, ""),
        "PAX",
    );
    refused(
        Tar::new().long_name(&[b'n'; 1 << 20]).file("f", 0o644, ""),
        "limit",
    );
    refused(
        Tar::new()
            .pax(&[("path", &[b'n'; 5000])])
            .file("f", 0o644, ""),
        "longer than any path",
    );
    refused(
        Tar::new()
            .pax(&[("comment", &[b'n'; 2 << 20])])
            .file("f", 0o644, ""),
        "limit",
    );
    let many = (0..20).fold(Tar::new(), |tar, i| tar.file(&format!("f{i}"), 0o644, ""));
    refused_bytes(
        &many.finish(),
        Limits {
            entries: 10,
            ..Limits::default()
        },
        "more than 10 entries",
    );
}

/// A reader that believed the header would take the data for entries, and see another image.
#[test]
fn the_size_of_pax_wins_over_the_headers() {
    let inner = Tar::new().file("smuggled", 0o644, "").unfinished();
    let mut header = Tar::header(EntryType::Regular, "f", 0o644);
    header.set_size(0);
    header.set_cksum();
    let tar = Tar::new()
        .pax(&[("size", inner.len().to_string().as_bytes())])
        .raw(header.as_bytes())
        .raw(&inner)
        .file("after", 0o644, "");
    assert_eq!(stack([tar]).names(), ["after", "f"]);
}
