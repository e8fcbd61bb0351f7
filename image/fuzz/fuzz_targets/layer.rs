//! A tar of any content is applied as a layer, on a machine of its own: whatever comes of it, nothing else on that machine changes.
//! What could be applied comes out of its recipe again, byte for byte.
//!
//! The machine is a tmpfs in which one thread lives by chroot(2); so `/etc/passwd` is its own, too. Bits of the first byte: 1: the
//! checksums of headers are put right (or little but the check of them would be tried); 2: there is a layer below.

#![no_main]

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use image::fuzzing::apply_and_rebuild;
use image::layer::Limits;
use libfuzzer_sys::fuzz_target;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

const BLOCK: usize = 512;
/// Small, so that caps are reached.
const LIMITS: Limits = Limits {
    entries: 300,
    name: 4095,
    pax: 1 << 16,
    tar: 1 << 22,
    files: 1 << 40,
};

fuzz_target!(|input: &[u8]| {
    thread_local! {
        static MACHINE: OnceCell<Machine> = const { OnceCell::new() };
    }
    MACHINE.with(|machine| machine.get_or_init(Machine::start).apply(input));
});

/// The thread that lives there, and how it is talked to.
struct Machine {
    inputs: SyncSender<Vec<u8>>,
    done: Receiver<()>,
}

impl Machine {
    fn start() -> Machine {
        let (inputs, receive) = sync_channel::<Vec<u8>>(0);
        let (tell, done) = sync_channel(0);
        std::thread::spawn(move || {
            enter();
            let before = listing();
            for input in receive {
                apply(&input);
                assert_eq!(
                    before,
                    listing(),
                    "something outside of the layer has changed"
                );
                if tell.send(()).is_err() {
                    return;
                }
            }
        });
        Machine { inputs, done }
    }

    /// A panic over there ends the program, as one here would.
    fn apply(&self, input: &[u8]) {
        self.inputs.send(input.to_vec()).expect("the machine runs");
        self.done.recv().expect("the machine runs");
    }
}

/// Makes the machine and moves this thread into it. It goes with the thread.
fn enter() {
    let none: Option<&str> = None;
    unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).expect("fuzzing layers needs root");
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private mounts");
    let at = tempfile::tempdir().expect("a folder to mount on");
    let options = "size=256m,nr_inodes=20000,mode=755";
    mount(
        Some("tmpfs"),
        at.path(),
        Some("tmpfs"),
        MsFlags::empty(),
        Some(options),
    )
    .expect("a tmpfs");
    for folder in ["etc", "home/user", "proc", "tmp", "layers"] {
        fs::create_dir_all(at.path().join(folder)).expect("a folder");
    }
    for file in ["etc/passwd", "etc/shadow", "home/user/target", "x"] {
        fs::write(at.path().join(file), file).expect("a file");
    }
    // Attributes of what cannot be opened are set by way of it.
    mount(
        Some("/proc"),
        &at.path().join("proc"),
        none,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        none,
    )
    .expect("proc");
    std::os::unix::fs::chroot(at.path()).expect("chroot");
    std::env::set_current_dir("/").expect("the root");
    below();
}

/// The layer below: of everything that one above could stumble over.
fn below() {
    let root = Path::new("/layers/below");
    fs::create_dir_all(root.join("d/e")).expect("a folder");
    fs::write(root.join("f"), "below").expect("a file");
    fs::write(root.join("d/g"), "below").expect("a file");
    for (name, target) in [
        ("l", "/etc"),
        ("m", "../../../home/user/target"),
        ("n", "n"),
        ("d/o", ".."),
        ("p", "d"),
    ] {
        symlink(target, root.join(name)).expect("a link");
    }
}

fn apply(input: &[u8]) {
    let Some((&how, tar)) = input.split_first() else {
        return;
    };
    let tar = if how & 1 == 0 {
        tar.to_vec()
    } else {
        mended(tar)
    };
    let top = Path::new("/layers/top");
    fs::create_dir(top).expect("a folder for the layer");
    let lower: Vec<OwnedFd> = match how & 2 {
        0 => Vec::new(),
        _ => vec![File::open("/layers/below").expect("the layer below").into()],
    };
    match apply_and_rebuild(top, &tar, &lower, LIMITS) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(again) => {
            let again = again.expect("what was applied comes back");
            assert!(again == tar, "another tar comes out of the recipe");
        }
    }
    for entry in fs::read_dir("/layers").expect("list the layers") {
        let path = entry.expect("an entry").path();
        if path != Path::new("/layers/below") {
            image::remove_at(&path).expect("a layer can be removed");
        }
    }
}

/// The same tar with good checksums.
fn mended(tar: &[u8]) -> Vec<u8> {
    let mut tar = tar.to_vec();
    let mut at = 0;
    while let Some(block) = tar.get_mut(at..at + BLOCK) {
        if block.iter().any(|&b| b != 0) {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
            block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        }
        let digits = block[124..136].iter().filter(|b| (b'0'..=b'7').contains(b));
        let size = digits.fold(0_usize, |n, b| {
            n.saturating_mul(8).saturating_add(usize::from(b - b'0'))
        });
        // Links, devices and folders have no data.
        let data = if (b'1'..=b'6').contains(&block[156]) {
            0
        } else {
            size
        };
        at = data.saturating_add(BLOCK - 1) / BLOCK * BLOCK + at + BLOCK;
        if at > tar.len() {
            break;
        }
    }
    tar
}

/// Every file of the machine but the layer's own, with the time of its last change.
fn listing() -> BTreeMap<String, String> {
    let mut listing = BTreeMap::new();
    list(Path::new("/"), &mut listing);
    listing
}

fn list(path: &Path, listing: &mut BTreeMap<String, String>) {
    if path == Path::new("/proc") || path == Path::new("/layers/top") {
        return;
    }
    let it = fs::symlink_metadata(path).expect("a file of the machine");
    let name = path.display().to_string();
    let (changed, size) = ((it.ctime(), it.ctime_nsec()), it.size());
    let line = match name.as_str() {
        // The layer is made in it.
        "/layers" => format!("{:o}", it.mode()),
        _ => format!(
            "{:o} {}:{} {} {size} {changed:?}",
            it.mode(),
            it.uid(),
            it.gid(),
            it.nlink()
        ),
    };
    if it.is_dir() {
        for entry in fs::read_dir(path).expect("list a folder") {
            list(&entry.expect("an entry").path(), listing);
        }
    }
    listing.insert(name, line);
}
