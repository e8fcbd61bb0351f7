//! Real mounts, each test in a mount namespace of its own thread: nothing is left when the thread ends.

use std::os::unix::fs::symlink;

use super::*;

/// A kernel's way of mounting, so that the one for old kernels is tried on a new one too.
type Way = fn(&Path, &[PathBuf], &Path, &Path) -> Result<(), Errno>;

struct Setting {
    dir: tempfile::TempDir,
}

impl Setting {
    fn new() -> Setting {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("root is needed");
        make_mounts_slave().unwrap();
        let dir = tempfile::tempdir().unwrap();
        for name in ["target", "upper", "work"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        Setting { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The uppermost first. Each has a file of its own, and `who` says which layer is seen.
    fn layers(&self, count: usize) -> Vec<PathBuf> {
        (0..count)
            .map(|i| {
                let layer = self.path(&format!("layer{i}"));
                std::fs::create_dir(&layer).unwrap();
                std::fs::write(layer.join(format!("file{i}")), "").unwrap();
                std::fs::write(layer.join("who"), i.to_string()).unwrap();
                layer
            })
            .collect()
    }

    fn mount(&self, way: Way, layers: &[PathBuf]) -> Result<(), Errno> {
        way(
            &self.path("target"),
            layers,
            &self.path("upper"),
            &self.path("work"),
        )
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        let flags = rustix::mount::UnmountFlags::DETACH;
        let _ = rustix::mount::unmount(self.path("target"), flags);
    }
}

fn many_layers(way: Way) {
    let s = Setting::new();
    s.mount(way, &s.layers(128)).unwrap();
    let target = s.path("target");
    assert_eq!(std::fs::read_to_string(target.join("who")).unwrap(), "0");
    assert!(target.join("file0").exists() && target.join("file127").exists());
    std::fs::write(target.join("new"), "").unwrap();
    std::fs::remove_file(target.join("file5")).unwrap();
    assert!(s.path("upper/new").exists());
    assert!(!target.join("file5").exists());
    assert!(s.path("layer5/file5").exists());
}

#[test]
fn an_image_of_128_layers_is_mounted_in_their_order() {
    many_layers(by_new_calls);
}

#[test]
fn an_old_kernel_mounts_128_layers_too() {
    many_layers(by_mount);
}

#[test]
fn paths_may_be_long_and_have_colons_and_commas() {
    for way in [by_new_calls, by_mount] as [Way; 2] {
        let s = Setting::new();
        let long = s.path(&format!("{}/{}", "a,b:".repeat(50), "c".repeat(200)));
        std::fs::create_dir_all(&long).unwrap();
        std::fs::write(long.join("file"), "").unwrap();
        s.mount(way, &[long]).unwrap();
        assert!(s.path("target/file").exists());
    }
}

#[test]
fn a_writable_layer_on_overlayfs_is_refused_with_its_cause() {
    let s = Setting::new();
    let layers = s.layers(1);
    s.mount(by_new_calls, &layers).unwrap();
    let inner = s.path("target");
    for name in ["t", "u", "w"] {
        std::fs::create_dir(inner.join(name)).unwrap();
    }
    let error = mount_overlay(
        &inner.join("t"),
        &layers,
        &inner.join("u"),
        &inner.join("w"),
    )
    .unwrap_err();
    assert!(matches!(error, Error::OverlayOnOverlay { .. }), "{error:?}");
    assert!(error.to_string().contains("--root"), "{error}");
}

#[test]
fn a_missing_layer_is_an_error_that_names_the_target() {
    let s = Setting::new();
    let error = mount_overlay(
        &s.path("target"),
        &[s.path("nowhere")],
        &s.path("upper"),
        &s.path("work"),
    )
    .unwrap_err();
    assert!(error.to_string().contains("target"), "{error}");
    assert_eq!(std::fs::read_dir(s.path("target")).unwrap().count(), 0);
}

#[test]
fn a_rootfs_whose_dev_is_a_symlink_is_refused() {
    for path in MUST_BE_DIRECTORIES {
        let dir = tempfile::tempdir().unwrap();
        check_rootfs(dir.path()).unwrap();
        symlink("/tmp", dir.path().join(path)).unwrap();
        let error = check_rootfs(dir.path()).unwrap_err();
        assert!(error.to_string().contains(path), "{error}");
    }
}
