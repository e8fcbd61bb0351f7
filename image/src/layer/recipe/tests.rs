//! Any tar that the applier takes comes out of its recipe again: tars made at random, with everything that replaces, and those
//! of other programs.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use tar::{EntryType, Header};

use super::rebuild::{RebuildError, strict};
use super::*;
use crate::layer::{LayerError, Limits};
use crate::pull::stream::untar;

struct Applied {
    dir: tempfile::TempDir,
    root: OwnedFd,
}

impl Applied {
    /// Over a layer that has the files l1 and l2.
    fn new(tar: &[u8]) -> Result<Applied, LayerError> {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("below");
        fs::create_dir(&below).unwrap();
        for name in ["l1", "l2"] {
            fs::write(below.join(name), "from below").unwrap();
        }
        let below: OwnedFd = File::open(below).unwrap().into();
        let layer = dir.path().join("0");
        fs::create_dir(&layer).unwrap();
        let root: OwnedFd = File::open(&layer).unwrap().into();
        let recorder = Recorder::create(&layer)?;
        let (applied, digest) = untar(tar, &root, recorder, Limits::default())?;
        assert_eq!(digest, crate::digest::Digest::of(tar));
        applied.finish(&root, &[below.as_fd()])?;
        Ok(Applied { dir, root })
    }

    fn recipe(&self) -> PathBuf {
        path(&self.dir.path().join("0"))
    }

    fn rebuild(&self) -> Result<Vec<u8>, RebuildError> {
        let mut out = Vec::new();
        let recipe = File::open(self.recipe()).unwrap();
        rebuild(recipe, self.root.as_fd(), &mut out, &mut strict).map(|()| out)
    }

    /// How many files the recipe points to.
    fn files(&self) -> usize {
        let mut ops = Ops::open(File::open(self.recipe()).unwrap()).unwrap();
        let ops = std::iter::from_fn(|| ops.next().unwrap());
        ops.filter(|op| matches!(op, Op::File(_))).count()
    }
}

#[track_caller]
fn comes_back(what: &str, tar: &[u8]) -> Applied {
    let applied = Applied::new(tar).unwrap_or_else(|e| panic!("{what}: {e}"));
    let again = applied.rebuild().unwrap_or_else(|e| panic!("{what}: {e}"));
    assert!(again == tar, "{what}: another tar");
    assert_eq!(
        fs::read_dir(applied.dir.path()).unwrap().count(),
        3,
        "{what}: more than the layer, its recipe and the one below"
    );
    applied
}

/// xorshift64*: the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.next(one_in) == 0
    }

    /// Few names, so that many of them clash.
    fn path(&mut self) -> String {
        let names = ["a", "b", "c"];
        let depth = 1 + self.next(3);
        let parts: Vec<_> = (0..depth).map(|_| names[self.next(3) as usize]).collect();
        parts.join("/")
    }

    fn data(&mut self) -> Vec<u8> {
        let length = match self.next(24) {
            0 => 0,
            1 => 512,
            2 => 70_000 + self.next(200_000),
            _ => self.next(3000),
        };
        let seed = self.next(256);
        (0..length).map(|i| (seed + i * i / 7) as u8).collect()
    }
}

#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn add(&mut self, kind: EntryType, name: &str, link: &str, data: &[u8], padding: u8) {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000 + self.0.len() as u64);
        header.set_size(data.len() as u64);
        if kind == EntryType::Char {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        }
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), padding);
    }

    fn pax(&mut self, kind: EntryType, key: &str, value: &str) {
        let rest = key.len() + value.len() + 3;
        let length = (rest + 1..)
            .find(|length| length.to_string().len() + rest == *length)
            .unwrap();
        let record = format!("{length} {key}={value}\n");
        self.add(kind, "PaxHeaders/x", "", record.as_bytes(), 0);
    }
}

fn random_tar(random: &mut Random) -> Vec<u8> {
    let mut tar = Tar::default();
    for _ in 0..random.next(16) {
        let (path, other) = (random.path(), random.path());
        let padding = if random.chance(10) { b'#' } else { 0 };
        match random.next(8) {
            0 => tar.pax(EntryType::XHeader, "mtime", "1234.567"),
            1 => tar.pax(EntryType::XHeader, "path", &format!("{path}/é")),
            2 => tar.add(EntryType::GNULongName, "@", "", b"b/long\0", padding),
            3 if random.chance(4) => tar.pax(EntryType::XGlobalHeader, "comment", "x"),
            _ => {}
        }
        let whiteout = match path.rsplit_once('/') {
            Some((dir, name)) => format!("{dir}/.wh.{name}"),
            None => format!(".wh.{path}"),
        };
        let data = random.data();
        match random.next(20) {
            0..9 => tar.add(EntryType::Regular, &path, "", &data, padding),
            9..12 => tar.add(EntryType::Directory, &path, "", b"", 0),
            12 => tar.add(EntryType::Symlink, &path, &other, b"", 0),
            13 => tar.add(EntryType::Symlink, &path, &format!("/{other}"), b"", 0),
            14 => tar.add(EntryType::Link, &path, &other, b"", 0),
            15 => tar.add(EntryType::Link, &path, "l1", b"", 0),
            16 => tar.add(EntryType::Regular, &whiteout, "", &data, padding),
            17 => tar.add(EntryType::Regular, "a/.wh..wh..opq", "", b"", 0),
            18 => tar.add(EntryType::Regular, ".wh..wh.plnk/1.2", "", &data, padding),
            _ => match random.next(3) {
                0 => tar.add(EntryType::Fifo, &path, "", b"", 0),
                1 => tar.add(EntryType::Char, &path, "", b"", 0),
                _ => tar.add(EntryType::Continuous, &path, "", &data, padding),
            },
        }
    }
    let mut tar = tar.0;
    if !random.chance(8) {
        tar.resize(tar.len() + 512 * random.next(25) as usize, 0);
        if random.chance(4) {
            tar.resize(tar.len() + 1024, 0);
            tar.extend(random.data());
        }
    }
    tar
}

#[test]
fn any_tar_that_can_be_applied_comes_back() {
    let mut random = Random(5);
    let mut good = 0;
    for round in 0..400 {
        let tar = random_tar(&mut random);
        // The others have links to nothing, files as directories and the like.
        if Applied::new(&tar).is_ok() {
            comes_back(&format!("round {round}"), &tar);
            good += 1;
        }
    }
    assert!(good > 100, "{good} good tars are too few to say anything");
}

#[test]
fn what_the_same_tar_replaces_is_kept() {
    let data = vec![b'x'; 200_000];
    let mut tar = Tar::default();
    tar.add(EntryType::Regular, "d/e/f", "", b"first", 0);
    tar.add(EntryType::Regular, "d/e/f", "", &data, 0);
    tar.add(EntryType::Link, "kept", "d/e/f", b"", 0);
    tar.add(EntryType::Regular, "d", "", b"no directory", 0);
    tar.add(EntryType::Directory, "e", "", b"", 0);
    tar.add(EntryType::Symlink, "d", "e", b"", 0);
    tar.add(EntryType::Regular, "d/f", "", b"through a link", 0);
    tar.add(EntryType::Directory, "d", "", b"", 0);
    tar.add(EntryType::Regular, "d/f", "", b"last", 0);
    let applied = comes_back("replacing", &tar.0);
    assert_eq!(applied.files(), 2, "e/f and d/f are in the tree");
}

#[test]
fn a_recipe_is_small_where_nothing_is_replaced() {
    let mut tar = Tar::default();
    for i in 0..2000 {
        let data = vec![i as u8; 5000];
        tar.add(EntryType::Regular, &format!("usr/lib/{i}"), "", &data, 0);
    }
    let applied = comes_back("many files", &tar.0);
    assert_eq!(applied.files(), 2000);
    let size = fs::metadata(applied.recipe()).unwrap().len();
    assert!(size < 2000 * 60, "{size} bytes for 2000 files");
}

/// Files of every kind, of which other programs make tars.
fn zoo(dir: &Path) {
    let script = r"
        set -e
        mkdir -p 'd/sub' d/$(printf 'n%.0s' $(seq 120))/$(printf 'm%.0s' $(seq 120))
        echo hello > d/f; ln d/f d/g; ln -s f d/s; ln -s $(printf 'x%.0s' $(seq 150)) d/long
        head -c 100000 /dev/zero | tr '\0' y > d/$(printf 'n%.0s' $(seq 120))/$(printf 'm%.0s' $(seq 120))/deep
        mkfifo d/fifo; mknod d/null c 1 3; : > d/empty
        truncate -s 3M d/holes; printf a | dd of=d/holes bs=1 seek=1000000 conv=notrunc status=none
        for i in $(seq 1 30); do printf abc | dd of=d/many bs=1 seek=$((i * 100000)) conv=notrunc status=none; done
        truncate -s 4M d/nothing
        chmod 4755 d/f; chown 12:3456 d/sub
        setfattr -n user.x -v value d/empty
    ";
    let done = Command::new("sh")
        .args(["-c", script])
        .current_dir(dir)
        .status();
    assert!(done.unwrap().success(), "cannot make the files");
}

fn output(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}");
    output.stdout
}

#[test]
fn tars_of_gnu_tar_come_back() {
    let dir = tempfile::tempdir().unwrap();
    zoo(dir.path());
    let mut kinds: Vec<Vec<&str>> = ["gnu", "pax"]
        .iter()
        .flat_map(|format| {
            let format = format!("--format={format}").leak() as &str;
            [vec![format], vec![format, "-S"], vec![format, "-b1", "-S"]]
        })
        .collect();
    for version in ["0.0", "0.1", "1.0"] {
        let version = format!("--sparse-version={version}").leak() as &str;
        kinds.push(vec!["--format=pax", "-S", version, "--xattrs"]);
    }
    kinds.push(vec!["--format=oldgnu", "-S"]);
    // The oldest know no long names, devices or FIFOs.
    for format in ["--format=ustar", "--format=v7"] {
        kinds.push(vec![
            format,
            "--exclude=n*",
            "--exclude=fifo",
            "--exclude=long",
        ]);
    }
    for options in kinds {
        let mut command = Command::new("tar");
        command
            .args(&options)
            .args(["-cf", "-", "-C"])
            .arg(dir.path());
        let tar = output(command.arg("d"));
        let applied = comes_back(&format!("{options:?}"), &tar);
        assert!(applied.files() >= 2, "{options:?}");
        let kept = applied.dir.path().join("0/d/many");
        assert!(
            fs::read(kept).unwrap() == fs::read(dir.path().join("d/many")).unwrap(),
            "{options:?}"
        );
    }
}

#[test]
fn tars_of_python_come_back() {
    let dir = tempfile::tempdir().unwrap();
    zoo(dir.path());
    for format in ["GNU_FORMAT", "PAX_FORMAT"] {
        let script = format!(
            "import sys, tarfile\n\
             t = tarfile.open(fileobj=sys.stdout.buffer, mode='w|', format=tarfile.{format})\n\
             t.add('d'); t.add('d/f', 'd/empty'); t.close()"
        );
        let mut command = Command::new("python3");
        let tar = output(command.args(["-c", &script]).current_dir(dir.path()));
        comes_back(format, &tar);
    }
}

#[test]
fn a_changed_tree_is_told_and_never_followed_out() {
    let mut tar = Tar::default();
    tar.add(EntryType::Regular, "d/f", "", b"content", 0);
    let check = |change: &dyn Fn(&Path), expect: &str| {
        let applied = comes_back("before", &tar.0);
        let file = applied.dir.path().join("0/d/f");
        fs::write(applied.dir.path().join("outside"), "content").unwrap();
        change(&file);
        let error = applied.rebuild().unwrap_err().to_string();
        assert_eq!(error, format!("/d/f: {expect}"));
    };
    check(&|file| fs::remove_file(file).unwrap(), "it is missing");
    check(
        &|file| fs::write(file, "contenu").unwrap(),
        "its content has changed",
    );
    check(
        &|file| fs::write(file, "more content").unwrap(),
        "it has 12 bytes instead of 7",
    );
    let replaced = |by: &'static str| {
        move |file: &Path| {
            fs::remove_file(file).unwrap();
            let script = by.replace("FILE", file.to_str().unwrap());
            let done = Command::new("sh").args(["-c", &script]).status();
            assert!(done.unwrap().success());
        }
    };
    let expect = "it is not a regular file any more";
    check(&replaced("mkfifo FILE"), expect);
    check(&replaced("mknod FILE c 5 0"), expect);
    check(&replaced("ln -s ../../outside FILE"), expect);
    check(
        &replaced("D=$(dirname FILE); cp $D/../../outside $D/../../f; rmdir $D; ln -s .. $D"),
        "its directory has been replaced",
    );
}

#[test]
fn a_damaged_recipe_is_an_error() {
    let mut tar = Tar::default();
    tar.add(EntryType::Regular, "f", "", b"content", 0);
    let applied = comes_back("before", &tar.0);
    let good = fs::read(applied.recipe()).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        for bad in [&bad[..], &good[..at]] {
            fs::write(applied.recipe(), bad).unwrap();
            // The reserved bit of a frame's header says nothing to older decoders.
            assert!(
                applied.rebuild().is_err() || applied.rebuild().unwrap() == tar.0,
                "byte {at}"
            );
        }
    }
}
