//! `save`: images as one archive, which is a Docker archive and an OCI layout at once, as Docker writes it since version 25. The same
//! images make the same bytes.
//!
//! The layers are the plain tars that they came as, so their digests are the diff IDs and nothing is packed only to be unpacked.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use rusqlite::Connection;
use serde_json::{Value, json};
use tar::{EntryType, Header};

use crate::Reference;
use crate::digest::Digest;
use crate::error::Error;
use crate::lock::{LayerLock, Mode};
use crate::pull::resolve::check_platform;
use crate::registry::manifest::OCI_MANIFEST;
use crate::registry::platform::Platform;
use crate::store::{self, StoredLayer};

const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const BLOCK: u64 = 512;

/// What the archive is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For every reader: Docker's list and an OCI layout over the same blobs.
    #[default]
    Both,
    Docker,
    Oci,
}

#[derive(Clone, Debug, Default)]
pub struct SaveOptions {
    pub format: Format,
    /// `os/arch[/variant]` that the images must have.
    pub platform: Option<String>,
}

/// An image that is saved, and the names that it keeps.
struct Saved {
    id: Digest,
    names: Vec<Reference>,
    config: Vec<u8>,
    platform: Platform,
    /// The lowest first.
    layers: Vec<StoredLayer>,
    _locks: Vec<LayerLock>,
}

/// Writes the images that `names` stand for, in this order; returns their IDs. By a name with a tag an image keeps this tag, by one
/// without all tags of the repository, by an ID none. After an error, `out` has a part of an archive.
pub fn save(
    conn: &Connection,
    root: &Path,
    names: &[String],
    options: &SaveOptions,
    out: &mut dyn Write,
) -> Result<Vec<String>, Error> {
    let asked = options.platform.as_deref().map(Platform::parse);
    let asked = asked.transpose()?;
    let mut images = Vec::new();
    for (id, names) in wanted(conn, names)? {
        let image = store::steady(conn, &id, || {
            hold(conn, root, &id, names.clone(), asked.as_ref())
        })?;
        let name = || names.first().map_or(id.clone(), ToString::to_string);
        images.push(image.ok_or_else(|| Error::NotFound(name()))?);
    }
    let sizes = sizes(root, &images)?;
    let mut archive = Archive { out };
    match options.format {
        Format::Docker => archive.docker(root, &images, &sizes)?,
        format => archive.blobs(root, &images, &sizes, format)?,
    }
    archive.end()?;
    Ok(images.iter().map(|image| image.id.to_string()).collect())
}

/// Each image once, with the names that it keeps.
fn wanted(conn: &Connection, names: &[String]) -> Result<Vec<(String, Vec<Reference>)>, Error> {
    let mut images: Vec<(String, Vec<Reference>)> = Vec::new();
    let mut add = |id: String, name: Option<Reference>| {
        let at = images.iter().position(|(known, _)| *known == id);
        let at = at.unwrap_or_else(|| {
            images.push((id, Vec::new()));
            images.len() - 1
        });
        let kept = &mut images[at].1;
        kept.extend(name.filter(|name| !kept.contains(name)));
    };
    for name in names {
        let written = Reference::parse(name);
        if let Ok(reference) = &written
            && Reference::leaves_tag_out(name)
        {
            let tags = store::tags_of(conn, reference)?;
            if !tags.is_empty() {
                for (tag, id) in tags {
                    let tag = Some(tag);
                    add(
                        id,
                        Some(Reference {
                            tag,
                            ..reference.clone()
                        }),
                    );
                }
                continue;
            }
        }
        match store::resolve(conn, name)? {
            Some(found) => {
                let by_tag = written.ok().filter(|name| name.digest.is_none());
                add(found.id, by_tag.filter(|_| found.name.is_some()));
            }
            None => {
                // What is no name at all says so.
                if let Err(e @ Error::UppercaseRepository) = written {
                    return Err(e);
                }
                return Err(Error::NotFound(name.clone()));
            }
        }
    }
    Ok(images)
}

/// Locks the image's layers, so that nobody removes them meanwhile, and reads its config.
fn hold(
    conn: &Connection,
    root: &Path,
    id: &str,
    names: Vec<Reference>,
    asked: Option<&Platform>,
) -> Result<Saved, Error> {
    let layers = store::layers_of(conn, id)?;
    let mut locks = Vec::with_capacity(layers.len());
    for layer in &layers {
        locks.push(LayerLock::take(root, &layer.chain_id, Mode::Shared)?);
    }
    // Whatever has gone before the locks were taken is missed here.
    let image = store::load(conn, root, id)?;
    let name = names
        .first()
        .map_or_else(|| id.to_owned(), ToString::to_string);
    if asked.is_some() {
        check_platform(&image.config, asked, &name)?;
    }
    let id = Digest::expect(id, "an image's row")?;
    let config = store::config_bytes(root, &id)?;
    if Digest::of(&config) != id {
        let why = "its config on disk is damaged: remove the image and pull it again";
        return Err(Error::untrusted(format!("image {name}"), why));
    }
    Ok(Saved {
        id,
        names,
        config,
        platform: Platform {
            os: image.config.os().to_string(),
            architecture: image.config.architecture().to_string(),
            variant: image.config.variant().clone(),
        },
        layers,
        _locks: locks,
    })
}

/// Bytes of each layer's tar, by its diff ID: a tar says them before the data. Counted by writing each once to nowhere, which also
/// finds a damaged layer before anything has been written.
fn sizes(root: &Path, images: &[Saved]) -> Result<BTreeMap<Digest, u64>, Error> {
    let mut sizes = BTreeMap::new();
    for layer in images.iter().flat_map(|image| &image.layers) {
        if !sizes.contains_key(&layer.diff_id) {
            let mut counter = Counter {
                out: &mut io::sink(),
                count: 0,
            };
            store::tar::write(root, layer, &mut counter)?;
            sizes.insert(layer.diff_id.clone(), counter.count);
        }
    }
    Ok(sizes)
}

struct Counter<'a> {
    out: &'a mut dyn Write,
    count: u64,
}

impl Write for Counter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.count += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

type Sizes = BTreeMap<Digest, u64>;

/// The archive as it is written.
struct Archive<'a> {
    out: &'a mut dyn Write,
}

impl Archive<'_> {
    /// Members by digest. The small ones that say what the rest is come first: then a reader of a pipe knows what it gets.
    fn blobs(
        &mut self,
        root: &Path,
        images: &[Saved],
        sizes: &Sizes,
        format: Format,
    ) -> Result<(), Error> {
        let manifests: Vec<Vec<u8>> = images.iter().map(|image| manifest(image, sizes)).collect();
        let layout = json!({"imageLayoutVersion": "1.0.0"});
        self.file("oci-layout", layout.to_string().as_bytes())?;
        let index = index(images, &manifests);
        self.file("index.json", index.to_string().as_bytes())?;
        if format == Format::Both {
            let list = docker_list(images, blob_name, blob_name);
            self.file("manifest.json", list.to_string().as_bytes())?;
        }
        self.folder("blobs/")?;
        self.folder("blobs/sha256/")?;
        let mut written = Vec::new();
        for (image, manifest) in images.iter().zip(&manifests) {
            self.file(&blob_name(&Digest::of(manifest)), manifest)?;
            self.file(&blob_name(&image.id), &image.config)?;
        }
        for image in images {
            self.layers(root, image, sizes, &mut written, blob_name)?;
        }
        Ok(())
    }

    fn docker(&mut self, root: &Path, images: &[Saved], sizes: &Sizes) -> Result<(), Error> {
        let config = |id: &Digest| format!("{}.json", id.hex());
        let layer = |diff_id: &Digest| format!("{}.tar", diff_id.hex());
        let list = docker_list(images, config, layer);
        self.file("manifest.json", list.to_string().as_bytes())?;
        let mut written = Vec::new();
        for image in images {
            self.file(&config(&image.id), &image.config)?;
            self.layers(root, image, sizes, &mut written, layer)?;
        }
        Ok(())
    }

    /// The layers that no image before had.
    fn layers(
        &mut self,
        root: &Path,
        image: &Saved,
        sizes: &Sizes,
        written: &mut Vec<Digest>,
        name: impl Fn(&Digest) -> String,
    ) -> Result<(), Error> {
        for layer in &image.layers {
            if written.contains(&layer.diff_id) {
                continue;
            }
            written.push(layer.diff_id.clone());
            let size = sizes.get(&layer.diff_id).copied().unwrap_or(0);
            let name = name(&layer.diff_id);
            self.header(&name, EntryType::Regular, size)?;
            let mut counter = Counter {
                out: self.out,
                count: 0,
            };
            store::tar::write(root, layer, &mut counter)?;
            if counter.count != size {
                let why = "it has changed while it was saved";
                return Err(Error::untrusted(format!("layer {}", layer.diff_id), why));
            }
            self.pad(size)?;
        }
        Ok(())
    }

    fn file(&mut self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        self.header(name, EntryType::Regular, bytes.len() as u64)?;
        self.write(bytes)?;
        self.pad(bytes.len() as u64)
    }

    fn folder(&mut self, name: &str) -> Result<(), Error> {
        self.header(name, EntryType::Directory, 0)
    }

    fn header(&mut self, name: &str, kind: EntryType, size: u64) -> Result<(), Error> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(match kind {
            EntryType::Directory => 0o755,
            _ => 0o644,
        });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.set_path(name).map_err(Error::io("write", name))?;
        header.set_cksum();
        self.write(header.as_bytes())
    }

    fn pad(&mut self, size: u64) -> Result<(), Error> {
        let padding = (BLOCK - size % BLOCK) % BLOCK;
        self.write(&[0; BLOCK as usize][..padding as usize])
    }

    fn end(&mut self) -> Result<(), Error> {
        self.write(&[0; 2 * BLOCK as usize])?;
        self.out.flush().map_err(Error::io("write", "the archive"))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let written = self.out.write_all(bytes);
        written.map_err(Error::io("write", "the archive"))
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Docker's manifest.json.
fn docker_list(
    images: &[Saved],
    config: impl Fn(&Digest) -> String,
    layer: impl Fn(&Digest) -> String,
) -> Value {
    let item = |image: &Saved| {
        let tags: Vec<String> = image.names.iter().map(Reference::to_string).collect();
        let layers = image.layers.iter().map(|one| layer(&one.diff_id));
        json!({
            "Config": config(&image.id),
            "RepoTags": Some(tags).filter(|tags| !tags.is_empty()),
            "Layers": layers.collect::<Vec<_>>(),
        })
    };
    images.iter().map(item).collect()
}

fn manifest(image: &Saved, sizes: &Sizes) -> Vec<u8> {
    let layer = |layer: &StoredLayer| {
        let size = sizes.get(&layer.diff_id).copied().unwrap_or(0);
        json!({"mediaType": OCI_LAYER, "digest": layer.diff_id.as_str(), "size": size})
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": image.id.as_str(), "size": image.config.len()},
        "layers": image.layers.iter().map(layer).collect::<Vec<_>>(),
    });
    manifest.to_string().into_bytes()
}

/// index.json: an entry for each name, with containerd's annotation for the whole of it.
fn index(images: &[Saved], manifests: &[Vec<u8>]) -> Value {
    let mut entries = Vec::new();
    for (image, manifest) in images.iter().zip(manifests) {
        let mut entry = json!({
            "mediaType": OCI_MANIFEST,
            "digest": Digest::of(manifest).as_str(),
            "size": manifest.len(),
            "platform": {"architecture": image.platform.architecture, "os": image.platform.os},
        });
        if let Some(variant) = &image.platform.variant {
            entry["platform"]["variant"] = variant.as_str().into();
        }
        for name in &image.names {
            let mut named = entry.clone();
            named["annotations"] = json!({
                "io.containerd.image.name": name.full(),
                "org.opencontainers.image.ref.name": name.tag,
            });
            entries.push(named);
        }
        if image.names.is_empty() {
            entries.push(entry);
        }
    }
    json!({
        "schemaVersion": 2,
        "mediaType": crate::registry::manifest::OCI_INDEX,
        "manifests": entries,
    })
}
