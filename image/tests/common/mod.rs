//! What the tests of this crate share: tars and OCI layouts written by hand, a real registry on loopback, and the view
//! of an image through overlayfs.

#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use image::{Image, Reference, store};
use rusqlite::Connection;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

pub mod files;
pub mod server;

pub fn sha256(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    format!("sha256:{hex}")
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Bytes that do not compress.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A tar, entry by entry, with names exactly as given.
#[derive(Default)]
pub struct Tar {
    bytes: Vec<u8>,
}

impl Tar {
    pub fn new() -> Tar {
        Tar::default()
    }

    pub fn header(kind: EntryType, name: &str, mode: u32) -> Header {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(0);
        header
    }

    pub fn add(mut self, mut header: Header, data: &[u8]) -> Tar {
        if header.entry_type().is_file() || !data.is_empty() {
            header.set_size(data.len() as u64);
        }
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    pub fn raw(mut self, bytes: &[u8]) -> Tar {
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub fn file(self, name: &str, mode: u32, data: &str) -> Tar {
        self.add(Tar::header(EntryType::Regular, name, mode), data.as_bytes())
    }

    pub fn owned(self, name: &str, mode: u32, uid: u64, gid: u64, data: &str) -> Tar {
        let mut header = Tar::header(EntryType::Regular, name, mode);
        header.set_uid(uid);
        header.set_gid(gid);
        self.add(header, data.as_bytes())
    }

    pub fn dir(self, name: &str, mode: u32) -> Tar {
        self.add(Tar::header(EntryType::Directory, name, mode), b"")
    }

    pub fn link(self, kind: EntryType, name: &str, target: &str) -> Tar {
        let mut header = Tar::header(kind, name, 0o777);
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        self.add(header, b"")
    }

    pub fn symlink(self, name: &str, target: &str) -> Tar {
        self.link(EntryType::Symlink, name, target)
    }

    pub fn hardlink(self, name: &str, target: &str) -> Tar {
        self.link(EntryType::Link, name, target)
    }

    pub fn device(self, kind: EntryType, name: &str, major: u32, minor: u32) -> Tar {
        let mut header = Tar::header(kind, name, 0o640);
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
        self.add(header, b"")
    }

    /// PAX records for the next entry.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Tar {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length.to_string().len() + rest != length {
                length += 1;
            }
            data.extend_from_slice(format!("{length} {key}=").as_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.add(Tar::header(EntryType::XHeader, "PaxHeader", 0o644), &data)
    }

    /// A GNU long name for the next entry.
    pub fn long_name(self, name: &[u8]) -> Tar {
        let data = [name, b"\0"].concat();
        self.add(
            Tar::header(EntryType::GNULongName, "././@LongLink", 0o644),
            &data,
        )
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&[0; 1024]);
        self.bytes
    }

    /// Without the blocks that end an archive.
    pub fn unfinished(self) -> Vec<u8> {
        self.bytes
    }
}

/// An OCI image layout under construction.
pub struct Layout {
    pub dir: tempfile::TempDir,
}

/// How a test's layer is packed, and what its config says of it.
pub struct PackedLayer {
    pub blob: Vec<u8>,
    pub media_type: &'static str,
    pub diff_id: String,
}

pub fn packed(tar: Vec<u8>) -> PackedLayer {
    PackedLayer {
        blob: gzip(&tar),
        media_type: "application/vnd.oci.image.layer.v1.tar+gzip",
        diff_id: sha256(&tar),
    }
}

/// A layer that is not packed.
pub fn plain(tar: Vec<u8>) -> PackedLayer {
    PackedLayer {
        diff_id: sha256(&tar),
        blob: tar,
        media_type: files::PLAIN_LAYER,
    }
}

impl Layout {
    pub fn new() -> Layout {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
        let layout = dir.path().join("oci-layout");
        fs::write(layout, r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Layout { dir }
    }

    pub fn blob(&self, bytes: &[u8]) -> (String, u64) {
        let digest = sha256(bytes);
        let path = self.dir.path().join("blobs/sha256").join(&digest[7..]);
        fs::write(path, bytes).unwrap();
        (digest, bytes.len() as u64)
    }

    /// Writes an image and returns the descriptor of its manifest.
    pub fn image(&self, layers: &[PackedLayer], architecture: &str) -> Value {
        let config = json!({
            "created": "2020-01-02T03:04:05Z", "architecture": architecture, "os": "linux",
            "config": {"Cmd": ["/bin/true"], "Env": ["A=b"]},
            "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|l| &l.diff_id).collect::<Vec<_>>()},
        });
        let (config_digest, config_size) = self.blob(config.to_string().as_bytes());
        let descriptors: Vec<Value> = layers
            .iter()
            .map(|layer| {
                let (digest, size) = self.blob(&layer.blob);
                json!({"mediaType": layer.media_type, "digest": digest, "size": size})
            })
            .collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": config_size},
            "layers": descriptors,
        });
        let (digest, size) = self.blob(manifest.to_string().as_bytes());
        json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size,
            "platform": {"os": "linux", "architecture": architecture},
        })
    }

    /// Names a manifest or an index within the layout.
    pub fn name(&self, mut descriptor: Value, tag: &str) {
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        let index = json!({"schemaVersion": 2, "manifests": [descriptor]});
        fs::write(self.dir.path().join("index.json"), index.to_string()).unwrap();
    }

    pub fn index(&self, manifests: &[Value]) -> Value {
        let index = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests,
        });
        let (digest, size) = self.blob(index.to_string().as_bytes());
        json!({"mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest, "size": size})
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Debian's docker-registry on a free loopback port; ended when dropped.
pub struct Registry {
    pub port: u16,
    pub data: tempfile::TempDir,
    child: Child,
}

impl Registry {
    pub fn start() -> Registry {
        Registry::with_config("")
    }

    /// `htpasswd` is a line `user:bcrypt-hash`.
    pub fn with_password(htpasswd: &str) -> Registry {
        Registry::with_config(htpasswd)
    }

    fn with_config(htpasswd: &str) -> Registry {
        let data = tempfile::tempdir().unwrap();
        // Another process may take the port in between: then the registry ends, and another port is tried.
        for _ in 0..10 {
            let port = free_port();
            let mut config = format!(
                "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n",
                data.path().join("storage").display()
            );
            if !htpasswd.is_empty() {
                let path = data.path().join("htpasswd");
                fs::write(&path, format!("{htpasswd}\n")).unwrap();
                config += &format!(
                    "auth:\n  htpasswd:\n    realm: test\n    path: {}\n",
                    path.display()
                );
            }
            let path = data.path().join("config.yml");
            fs::write(&path, config).unwrap();
            let mut child = Command::new("docker-registry")
                .arg("serve")
                .arg(&path)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("docker-registry must be installed");
            let begun = Instant::now();
            while child.try_wait().unwrap().is_none() && begun.elapsed() < Duration::from_secs(20) {
                if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Registry { port, data, child };
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("docker-registry does not start");
    }

    pub fn name(&self, repository: &str) -> String {
        format!("127.0.0.1:{}/{repository}", self.port)
    }

    pub fn reference(&self, repository: &str) -> Reference {
        Reference::parse(&self.name(repository)).unwrap()
    }

    /// Pushes a layout's named manifest, with all that an index lists.
    pub fn push(&self, layout: &Layout, tag: &str, repository: &str, extra: &[&str]) {
        let output = Command::new("skopeo")
            .args([
                "copy",
                "--all",
                "--quiet",
                "--dest-tls-verify=false",
                "--insecure-policy",
            ])
            .args(extra)
            .arg(format!("oci:{}:{tag}", layout.path().display()))
            .arg(format!("docker://{}", self.name(repository)))
            .output()
            .expect("skopeo must be installed");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "skopeo: {error}");
    }

    pub fn push_layers(&self, layers: &[PackedLayer], repository: &str) -> Layout {
        let layout = Layout::new();
        layout.name(layout.image(layers, host_architecture()), "t");
        self.push(&layout, "t", repository, &[]);
        layout
    }

    /// The file in which the registry keeps a blob.
    pub fn blob_file(&self, digest: &str) -> PathBuf {
        let hex = &digest[7..];
        let blobs = "storage/docker/registry/v2/blobs/sha256";
        self.data
            .path()
            .join(blobs)
            .join(&hex[..2])
            .join(hex)
            .join("data")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

pub fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A root directory of its own, with its database.
pub struct Store {
    pub root: tempfile::TempDir,
    pub conn: Connection,
}

impl Store {
    pub fn new() -> Store {
        let root = tempfile::tempdir().unwrap();
        let conn = open(root.path());
        Store { root, conn }
    }

    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// Everything below `layers` and `images`, staging and hidden files included, but the lock file.
    pub fn left_overs(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for top in ["layers", "images", "layers/.staging"] {
            let Ok(entries) = fs::read_dir(self.path().join(top)) else {
                continue;
            };
            found.extend(entries.map(|e| e.unwrap().path()));
        }
        found.retain(|p| !p.ends_with(".lock") && !p.ends_with(".staging"));
        found
    }

    #[track_caller]
    pub fn assert_empty(&self) {
        assert_eq!(self.left_overs(), Vec::<PathBuf>::new());
        assert!(store::list(&self.conn).unwrap().is_empty());
        let rows: i64 = self
            .conn
            .query_row("SELECT count(*) FROM layers", [], |r| r.get(0))
            .unwrap();
        assert_eq!(rows, 0);
    }
}

pub fn open(root: &Path) -> Connection {
    let conn = Connection::open(root.join("coracle.db")).unwrap();
    conn.pragma_update(None, "journal_mode", "WAL").unwrap();
    conn.busy_timeout(Duration::from_secs(10)).unwrap();
    store::create_tables(&conn).unwrap();
    conn
}

/// One line about everything in a tree that a container could see, by path.
pub type Listing = BTreeMap<String, String>;

pub fn list_tree(root: &Path) -> Listing {
    let mut listing = Listing::new();
    walk(root, root, &mut listing);
    listing
}

fn walk(root: &Path, path: &Path, listing: &mut Listing) {
    let meta = fs::symlink_metadata(path).unwrap();
    let kind = meta.file_type();
    let content = if kind.is_symlink() {
        format!("-> {}", fs::read_link(path).unwrap().display())
    } else if kind.is_file() {
        format!(
            "links {} {} {}",
            meta.nlink(),
            meta.len(),
            &sha256(&fs::read(path).unwrap())[..19]
        )
    } else if kind.is_char_device() || kind.is_block_device() {
        format!("device {:x}", meta.rdev())
    } else {
        String::new()
    };
    let line = format!(
        "{:o} {}:{} {}.{} {content} {}",
        meta.mode(),
        meta.uid(),
        meta.gid(),
        meta.mtime(),
        meta.mtime_nsec(),
        xattrs(path)
    );
    let name = path.strip_prefix(root).unwrap().display().to_string();
    listing.insert(name, line);
    if kind.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            walk(root, &entry.unwrap().path(), listing);
        }
    }
}

pub fn xattrs(path: &Path) -> String {
    let mut list = vec![0; 4096];
    let length = rustix::fs::llistxattr(path, &mut *list).unwrap();
    let mut all = Vec::new();
    for name in list[..length].split(|&b| b == 0).filter(|n| !n.is_empty()) {
        let name = std::ffi::OsStr::from_bytes(name);
        let mut value = vec![0; 4096];
        let length = rustix::fs::lgetxattr(path, name, &mut *value).unwrap();
        all.push(format!("{}={:02x?}", name.display(), &value[..length]));
    }
    all.sort();
    all.join(" ")
}

/// Lists an image through overlayfs, in a mount namespace of its own.
pub fn list_mounted(image: &Image) -> Listing {
    with_mounted(&image.layers, list_tree)
}

/// `layers` are the uppermost first. Runs `look` on the mounted tree.
pub fn with_mounted<T: Send>(layers: &[PathBuf], look: impl FnOnce(&Path) -> T + Send) -> T {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // A thread may have a mount namespace of its own; it goes with the thread.
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("the tests need root");
            let none: Option<&str> = None;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            let at = tempfile::tempdir().unwrap();
            mount(
                Some("tmpfs"),
                at.path(),
                Some("tmpfs"),
                MsFlags::empty(),
                none,
            )
            .unwrap();
            for dir in ["empty", "root"] {
                fs::create_dir(at.path().join(dir)).unwrap();
            }
            // Overlayfs wants two layers at least where there is no upper one.
            let mut dirs: Vec<String> = layers.iter().map(|l| l.display().to_string()).collect();
            dirs.push(at.path().join("empty").display().to_string());
            let options = format!("lowerdir={}", dirs.join(":"));
            let target = at.path().join("root");
            mount(
                Some("overlay"),
                &target,
                Some("overlay"),
                MsFlags::MS_RDONLY,
                Some(&*options),
            )
            .unwrap();
            let result = look(&target);
            // Detached: a child that another thread forks just now holds what was opened here until its exec.
            umount2(&target, MntFlags::MNT_DETACH).unwrap();
            umount2(at.path(), MntFlags::MNT_DETACH).unwrap();
            result
        });
        thread.join().unwrap()
    })
}
