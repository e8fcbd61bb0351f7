//! What a filled volume looks like, and what happens to one that is not empty or was cut off.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};

use super::*;

struct Setting {
    dir: tempfile::TempDir,
}

impl Setting {
    fn new() -> Setting {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("rootfs/var/lib/db/sub")).unwrap();
        std::fs::create_dir_all(dir.path().join("volumes/v/_data")).unwrap();
        Setting { dir }
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("rootfs/var/lib/db")
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("volumes/v/_data")
    }

    fn populate(&self, target: &str) {
        populate(&self.dir.path().join("rootfs"), target, &self.data()).unwrap();
    }
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 64];
    let got = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).ok()?;
    value.truncate(got);
    Some(value)
}

#[test]
fn everything_arrives_as_it_was() {
    let s = Setting::new();
    let image = s.image();
    std::fs::write(image.join("file"), "content").unwrap();
    std::os::unix::fs::chown(image.join("file"), Some(999), Some(998)).unwrap();
    std::fs::set_permissions(image.join("file"), PermissionsExt::from_mode(0o4750)).unwrap();
    rustix::fs::setxattr(image.join("file"), "user.note", b"n", XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(
        image.join("file"),
        "trusted.overlay.x",
        b"y",
        XattrFlags::empty(),
    )
    .unwrap();
    std::fs::hard_link(image.join("file"), image.join("sub/same")).unwrap();
    symlink("/etc/passwd", image.join("link")).unwrap();
    std::os::unix::fs::lchown(image.join("link"), Some(5), Some(6)).unwrap();
    let mode = Mode::from_raw_mode(0o640);
    let null = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        image.join("null"),
        FileType::CharacterDevice,
        mode,
        null,
    )
    .unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, image.join("fifo"), FileType::Fifo, mode, 0).unwrap();
    std::fs::set_permissions(image.join("sub"), PermissionsExt::from_mode(0o500)).unwrap();
    std::os::unix::fs::chown(&image, Some(999), Some(998)).unwrap();
    std::fs::set_permissions(&image, PermissionsExt::from_mode(0o1770)).unwrap();
    s.populate("/var/lib/db");

    let data = s.data();
    let file = std::fs::metadata(data.join("file")).unwrap();
    assert_eq!(
        std::fs::read_to_string(data.join("file")).unwrap(),
        "content"
    );
    assert_eq!(
        (file.uid(), file.gid(), file.mode() & 0o7777),
        (999, 998, 0o4750)
    );
    let before = std::fs::metadata(image.join("file")).unwrap();
    assert_eq!(
        (file.mtime(), file.mtime_nsec()),
        (before.mtime(), before.mtime_nsec())
    );
    assert_eq!(
        xattr(&data.join("file"), "user.note").as_deref(),
        Some(&b"n"[..])
    );
    assert_eq!(xattr(&data.join("file"), "trusted.overlay.x"), None);
    assert_eq!(
        std::fs::metadata(data.join("sub/same")).unwrap().ino(),
        file.ino()
    );
    let link = std::fs::symlink_metadata(data.join("link")).unwrap();
    assert_eq!((link.uid(), link.gid()), (5, 6));
    assert_eq!(
        std::fs::read_link(data.join("link")).unwrap(),
        Path::new("/etc/passwd")
    );
    let device = std::fs::metadata(data.join("null")).unwrap();
    assert!(device.file_type().is_char_device());
    assert_eq!((device.rdev(), device.mode() & 0o7777), (null, 0o640));
    assert!(
        std::fs::metadata(data.join("fifo"))
            .unwrap()
            .file_type()
            .is_fifo()
    );
    assert_eq!(
        std::fs::metadata(data.join("sub")).unwrap().mode() & 0o7777,
        0o500
    );
    let top = std::fs::metadata(&data).unwrap();
    assert_eq!(
        (top.uid(), top.gid(), top.mode() & 0o7777),
        (999, 998, 0o1770)
    );
    assert!(!data.parent().unwrap().join(MARK).exists());
}

#[test]
fn a_volume_with_content_stays_as_it_is() {
    let s = Setting::new();
    std::fs::write(s.image().join("new"), "").unwrap();
    std::fs::write(s.data().join("mine"), "").unwrap();
    s.populate("/var/lib/db");
    assert!(s.data().join("mine").exists());
    assert!(!s.data().join("new").exists());
}

#[test]
fn a_copy_that_was_cut_off_is_made_again() {
    let s = Setting::new();
    std::fs::write(s.image().join("a"), "whole").unwrap();
    std::fs::write(s.image().join("sub/b"), "whole").unwrap();
    // As a kill leaves it: some entries, one of them half, and the mark.
    std::fs::write(s.data().join("a"), "wh").unwrap();
    std::fs::create_dir(s.data().join("sub")).unwrap();
    std::fs::write(s.data().parent().unwrap().join(MARK), "").unwrap();
    s.populate("/var/lib/db");
    assert_eq!(
        std::fs::read_to_string(s.data().join("a")).unwrap(),
        "whole"
    );
    assert_eq!(
        std::fs::read_to_string(s.data().join("sub/b")).unwrap(),
        "whole"
    );
    // From now on what is there is the container's.
    std::fs::write(s.data().join("a"), "mine").unwrap();
    s.populate("/var/lib/db");
    assert_eq!(std::fs::read_to_string(s.data().join("a")).unwrap(), "mine");
}

#[test]
fn a_target_that_the_image_does_not_have_or_that_is_a_file_fills_nothing() {
    let s = Setting::new();
    std::fs::write(s.image().join("file"), "").unwrap();
    for target in ["/nowhere", "/var/lib/db/file", "/var/lib/db/file/x"] {
        s.populate(target);
        assert_eq!(std::fs::read_dir(s.data()).unwrap().count(), 0, "{target}");
    }
}

#[test]
fn a_target_that_links_out_of_the_image_copies_nothing_of_the_host() {
    let s = Setting::new();
    let host = s.dir.path().join("host");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("secret"), "").unwrap();
    for (name, target) in [("abs", host.to_str().unwrap()), ("rel", "../../host")] {
        symlink(target, s.dir.path().join("rootfs").join(name)).unwrap();
        s.populate(name);
        assert_eq!(std::fs::read_dir(s.data()).unwrap().count(), 0, "{name}");
    }
}

/// Another container has the volume too, and puts symlinks in place of what has just been made.
#[test]
fn names_swapped_meanwhile_change_nothing_outside() {
    let s = Setting::new();
    let names: Vec<String> = (0..200).map(|n| format!("fifo{n}")).collect();
    for name in &names {
        let mode = Mode::from_raw_mode(0o666);
        let path = s.image().join(name);
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, mode, 0).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
    }
    let victim = s.dir.path().join("victim");
    std::fs::write(&victim, "of the host").unwrap();
    std::fs::set_permissions(&victim, PermissionsExt::from_mode(0o600)).unwrap();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let link = s.dir.path().join("volumes/v/link");
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                for name in &names {
                    let place = s.data().join(name);
                    if place.symlink_metadata().is_ok() {
                        let _ = symlink(&victim, &link);
                        let _ = std::fs::rename(&link, place);
                    }
                }
            }
        });
        for _ in 0..30 {
            // Whether it ends well is up to who swaps.
            let _ = fill(&s.dir.path().join("rootfs"), "/var/lib/db", &s.data());
            for name in &names {
                let _ = std::fs::remove_file(s.data().join(name));
            }
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(std::fs::metadata(&victim).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn a_link_is_never_made_to_a_file_behind_a_symlink() {
    let s = Setting::new();
    std::fs::write(s.dir.path().join("shadow"), "of the host").unwrap();
    symlink(s.dir.path(), s.data().join("sub")).unwrap();
    let root = open_directory(rustix::fs::CWD, s.data()).unwrap();
    let made = link(&root, Path::new("sub/shadow"), &root, c"mine");
    assert_eq!(made.unwrap_err().raw_os_error(), Some(libc::ELOOP));
    assert!(!s.data().join("mine").exists());
    std::fs::write(s.data().join("own"), "").unwrap();
    link(&root, Path::new("own"), &root, c"mine").unwrap();
    assert!(s.data().join("mine").exists());
}
