//! Which images an archive holds, as far as its documents tell: Docker's manifest.json, or an OCI layout's index.json, or both in one
//! archive as Docker writes it since version 25. Reads documents only.

use std::collections::BTreeMap;

use oci_spec::image::ImageConfiguration;
use serde::Deserialize;

use super::members::{Archive, Extent};
use crate::Reference;
use crate::digest::Digest;
use crate::error::Error;
use crate::pull::resolve::{MAX_DEPTH, check_platform};
use crate::registry::Document;
use crate::registry::manifest::{self, Compression, Parsed};
use crate::registry::platform::Platform;

/// An image of the archive, whose config is what its ID says.
#[derive(Debug)]
pub struct Contained {
    pub id: Digest,
    pub config: ImageConfiguration,
    pub config_bytes: Vec<u8>,
    /// The lowest first, as many as there are diff IDs.
    pub layers: Vec<PackedLayer>,
    pub diff_ids: Vec<Digest>,
    pub names: Vec<Reference>,
}

/// A layer as the archive has it.
#[derive(Clone, Debug)]
pub struct PackedLayer {
    pub extent: Extent,
    pub compression: Compression,
    /// Of the packed form, where the archive promises one.
    pub digest: Option<Digest>,
}

/// All images of an archive, those of other platforms left out.
pub fn images(archive: &Archive, asked: Option<&Platform>) -> Result<Vec<Contained>, Error> {
    let has_index = archive.has("index.json");
    // Docker's own list names one platform's images; another one can only be in the index.
    let images = match archive.has("manifest.json") && !(asked.is_some() && has_index) {
        true => docker(archive)?,
        false if has_index => layout(archive, asked)?,
        false => {
            return Err(Error::untrusted(
                "archive",
                "it holds no image: it has neither a manifest.json, as `save` writes it, nor an OCI layout's index.json; \
                 for the tar of a root filesystem there is `import`",
            ));
        }
    };
    if images.is_empty() {
        return Err(Error::untrusted("archive", "its list of images is empty"));
    }
    for image in &images {
        let name = image.names.first().map(ToString::to_string);
        let name = name.unwrap_or_else(|| image.id.to_string());
        check_platform(&image.config, asked, &name)?;
    }
    Ok(images)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

fn docker(archive: &Archive) -> Result<Vec<Contained>, Error> {
    let bytes = archive.document("manifest.json")?;
    let items: Vec<Item> = manifest::strictly(&bytes)
        .map_err(|e| Error::untrusted("archive member \"manifest.json\"", e.to_string()))?;
    let image = |item: Item| {
        let config = archive.document(&item.config)?;
        let id = Digest::of(&config);
        if let Some(promised) = blob_digest(&item.config)
            && promised != id
        {
            return Err(wrong_digest(&promised, &id));
        }
        let layers = item.layers.unwrap_or_default();
        let layers: Result<Vec<PackedLayer>, Error> = layers
            .iter()
            .map(|name| {
                let extent = archive.find(name)?;
                Ok(PackedLayer {
                    extent,
                    compression: archive.compression(extent)?,
                    digest: blob_digest(name),
                })
            })
            .collect();
        let names = item.repo_tags.unwrap_or_default();
        let names = names
            .iter()
            .map(|name| tagged(name))
            .collect::<Result<_, _>>()?;
        contained(id, config, layers?, names)
    };
    items.into_iter().map(image).collect()
}

/// What a member's name promises of its content.
fn blob_digest(name: &str) -> Option<Digest> {
    let hex = name.strip_prefix("blobs/sha256/")?;
    Digest::parse(&format!("sha256:{hex}"))
}

pub fn wrong_digest(promised: &Digest, found: &Digest) -> Error {
    let why = format!("its content has the digest {found}: the archive is damaged");
    Error::untrusted(format!("blob {promised}"), why)
}

/// A name that an image is to have: with a tag, and without a digest, which a name cannot promise.
fn tagged(name: &str) -> Result<Reference, Error> {
    let reference = Reference::parse(name).map_err(|e| {
        let why = format!("it names an image {name:?}: {e}");
        Error::untrusted("archive", why)
    })?;
    match reference.digest {
        None => Ok(reference),
        Some(_) => {
            let why = format!("it names an image {name:?}, which is no tag");
            Err(Error::untrusted("archive", why))
        }
    }
}

fn contained(
    id: Digest,
    config_bytes: Vec<u8>,
    layers: Vec<PackedLayer>,
    names: Vec<Reference>,
) -> Result<Contained, Error> {
    let what = format!("config {id}");
    let config: ImageConfiguration = manifest::strictly(&config_bytes)
        .map_err(|e| Error::untrusted(&what, format!("it is not an image's config: {e}")))?;
    let texts = config.rootfs().diff_ids().iter();
    let diff_ids: Vec<Digest> = texts
        .map(|text| Digest::expect(text, &what))
        .collect::<Result<_, _>>()?;
    if diff_ids.len() != layers.len() {
        let (names, has) = (diff_ids.len(), layers.len());
        let why = format!("it names {names} layers and the archive's list {has}");
        return Err(Error::untrusted(what, why));
    }
    if layers.is_empty() {
        return Err(Error::untrusted(what, "the image has no layers"));
    }
    manifest::refuse_too_many(layers.len()).map_err(|why| Error::untrusted(&what, why))?;
    Ok(Contained {
        id,
        config,
        config_bytes,
        layers,
        diff_ids,
        names,
    })
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Entry>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Platform>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl Entry {
    /// The name that containerd and BuildKit write in full; else what skopeo and podman call the image. A bare tag, which is
    /// what most layouts have, is no name of an image.
    fn name(&self) -> Result<Option<Reference>, Error> {
        if let Some(full) = self.annotations.get("io.containerd.image.name") {
            return tagged(full).map(Some);
        }
        match self.annotations.get("org.opencontainers.image.ref.name") {
            Some(name) if name.contains(['/', ':']) => tagged(name).map(Some),
            _ => Ok(None),
        }
    }
}

fn layout(archive: &Archive, asked: Option<&Platform>) -> Result<Vec<Contained>, Error> {
    let bytes = archive.document("index.json")?;
    let index: Index = manifest::strictly(&bytes)
        .map_err(|e| Error::untrusted("archive member \"index.json\"", e.to_string()))?;
    let wanted = asked.cloned().unwrap_or_else(Platform::host);
    let mut images: Vec<Contained> = Vec::new();
    let mut others = Vec::new();
    for entry in index.manifests {
        if let Some(platform) = &entry.platform
            && wanted.rank(platform).is_none()
        {
            // Of another platform, or an attestation.
            others.extend((platform.os != "unknown").then(|| platform.to_string()));
            continue;
        }
        let name = entry.name()?;
        let mut image = entry_image(archive, &entry, &wanted)?;
        match images.iter_mut().find(|known| known.id == image.id) {
            Some(known) => known.names.extend(name),
            None => {
                image.names.extend(name);
                images.push(image);
            }
        }
    }
    if images.is_empty() && !others.is_empty() {
        others.dedup();
        return Err(Error::NoPlatform {
            wanted: wanted.to_string(),
            reference: "the archive".to_owned(),
            offered: others.join(", "),
        });
    }
    Ok(images)
}

/// The image that an entry of index.json leads to, through nested indexes.
fn entry_image(archive: &Archive, entry: &Entry, wanted: &Platform) -> Result<Contained, Error> {
    let mut digest = Digest::expect(&entry.digest, "archive member \"index.json\"")?;
    let mut size = entry.size;
    let mut content_type = entry.media_type.clone();
    for _ in 0..=MAX_DEPTH {
        let name = digest.to_string();
        let bytes = blob(archive, &digest, size)?;
        let document = Document {
            bytes,
            digest: digest.clone(),
            content_type: std::mem::take(&mut content_type),
        };
        match manifest::parse(&document, &name)? {
            Parsed::Index(entries) => {
                let chosen = manifest::choose(entries, wanted, &name)?;
                (digest, size) = (chosen.digest, chosen.size);
            }
            Parsed::Manifest(manifest) => {
                let id = manifest.config.digest;
                let config = blob(archive, &id, manifest.config.size)?;
                let layers: Result<Vec<PackedLayer>, Error> = manifest
                    .layers
                    .iter()
                    .map(|layer| {
                        let blob = &layer.blob;
                        let extent = archive.find(&blob_name(&blob.digest))?;
                        same_size(&blob.digest, blob.size, extent.size)?;
                        Ok(PackedLayer {
                            extent,
                            compression: layer.compression,
                            digest: Some(blob.digest.clone()),
                        })
                    })
                    .collect();
                return contained(id, config, layers?, Vec::new());
            }
        }
    }
    Err(Error::untrusted(
        "archive member \"index.json\"",
        "indexes are nested too deeply",
    ))
}

/// A document among the blobs, verified.
fn blob(archive: &Archive, digest: &Digest, size: u64) -> Result<Vec<u8>, Error> {
    let bytes = archive.document(&blob_name(digest))?;
    same_size(digest, size, bytes.len() as u64)?;
    let found = Digest::of(&bytes);
    match found == *digest {
        true => Ok(bytes),
        false => Err(wrong_digest(digest, &found)),
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn same_size(digest: &Digest, promised: u64, found: u64) -> Result<(), Error> {
    match promised == found {
        true => Ok(()),
        false => Err(Error::untrusted(
            format!("blob {digest}"),
            format!("it has {found} bytes and its descriptor says {promised}"),
        )),
    }
}
