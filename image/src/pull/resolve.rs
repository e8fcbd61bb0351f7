//! From a reference to the config and the layers of one platform's image, as far as documents tell. Writes nothing.

use oci_spec::image::ImageConfiguration;

use super::PullOptions;
use crate::Reference;
use crate::digest::Digest;
use crate::error::Error;
use crate::registry::manifest::{self, Blob, Layer, Manifest, Parsed};
use crate::registry::platform::Platform;
use crate::registry::{Client, Document};

/// An index may lead to another one, not further.
pub const MAX_DEPTH: usize = 2;
/// Images of an index that are looked at to find one by its ID: no index of a real image has as many.
const MAX_ENTRIES: usize = 64;

pub struct Resolved {
    /// Of the document that the reference names, an index perhaps: what `Digest:` shows.
    pub digest: Digest,
    /// Of the config.
    pub id: Digest,
    pub config: ImageConfiguration,
    pub config_bytes: Vec<u8>,
    pub manifest_bytes: Vec<u8>,
    /// The lowest first, as many as there are diff IDs.
    pub layers: Vec<Layer>,
    pub diff_ids: Vec<Digest>,
}

pub fn resolve(
    client: &Client<'_>,
    reference: &Reference,
    options: &PullOptions,
) -> Result<Resolved, Error> {
    let name = reference.to_string();
    let asked = options
        .platform
        .as_deref()
        .map(Platform::parse)
        .transpose()?;
    let wanted = asked.clone().unwrap_or_else(Platform::host);
    let top = client.manifest(tag_or_digest(reference))?;
    let digest = top.digest.clone();
    let (document, manifest) = descend(client, top, &wanted, &name)?;
    let resolved = read(client, digest, document, manifest)?;
    check_platform(&resolved.config, asked.as_ref(), &name)?;
    Ok(resolved)
}

/// The image of this ID, for whatever platform it is, among those that the reference leads to. `None` if it is none of them.
pub fn resolve_id(
    client: &Client<'_>,
    reference: &Reference,
    id: &Digest,
) -> Result<Option<Resolved>, Error> {
    let name = reference.to_string();
    let top = client.manifest(tag_or_digest(reference))?;
    let digest = top.digest.clone();
    let mut level = vec![top];
    for _ in 0..=MAX_DEPTH {
        let mut entries = Vec::new();
        for document in level {
            match manifest::parse(&document, &name)? {
                Parsed::Manifest(manifest) if manifest.config.digest == *id => {
                    return read(client, digest, document, manifest).map(Some);
                }
                Parsed::Manifest(_) => {}
                Parsed::Index(below) => entries.extend(below),
            }
        }
        entries.truncate(MAX_ENTRIES);
        let documents = entries.iter().map(|(entry, _)| document_of(client, entry));
        level = documents.collect::<Result<_, _>>()?;
    }
    Ok(None)
}

fn tag_or_digest(reference: &Reference) -> &str {
    let digest = reference.digest.as_deref();
    digest.or(reference.tag.as_deref()).unwrap_or("latest")
}

/// The config of a manifest, and what both say together.
fn read(
    client: &Client<'_>,
    digest: Digest,
    document: Document,
    manifest: Manifest,
) -> Result<Resolved, Error> {
    let config_bytes = client.small_blob(&manifest.config.digest, manifest.config.size)?;
    let what = format!("config {}", manifest.config.digest);
    let config: ImageConfiguration = manifest::strictly(&config_bytes)
        .map_err(|e| Error::untrusted(&what, format!("it is not an image's config: {e}")))?;
    let diff_ids: Result<Vec<Digest>, Error> = config
        .rootfs()
        .diff_ids()
        .iter()
        .map(|text| Digest::expect(text, &what))
        .collect();
    let diff_ids = diff_ids?;
    if diff_ids.len() != manifest.layers.len() {
        let why = format!(
            "it names {} layers and the manifest {}",
            diff_ids.len(),
            manifest.layers.len()
        );
        return Err(Error::untrusted(what, why));
    }
    Ok(Resolved {
        digest,
        id: manifest.config.digest,
        config,
        config_bytes,
        manifest_bytes: document.bytes,
        layers: manifest.layers,
        diff_ids,
    })
}

/// Follows indexes to the manifest of the platform.
fn descend(
    client: &Client<'_>,
    top: Document,
    wanted: &Platform,
    name: &str,
) -> Result<(Document, Manifest), Error> {
    let mut document = top;
    for _ in 0..=MAX_DEPTH {
        match manifest::parse(&document, name)? {
            Parsed::Manifest(manifest) => return Ok((document, manifest)),
            Parsed::Index(entries) => {
                let entry = manifest::choose(entries, wanted, name)?;
                document = document_of(client, &entry)?;
            }
        }
    }
    Err(Error::untrusted(
        format!("manifest of {name}"),
        "indexes are nested too deeply",
    ))
}

/// The document that an entry of an index names.
fn document_of(client: &Client<'_>, entry: &Blob) -> Result<Document, Error> {
    let document = client.manifest(entry.digest.as_str())?;
    let size = document.bytes.len() as u64;
    match size == entry.size {
        true => Ok(document),
        false => {
            let why = format!("it has {size} bytes and the index says {}", entry.size);
            Err(Error::untrusted(format!("manifest {}", entry.digest), why))
        }
    }
}

/// A platform that was asked for must be the config's; one that was not, only its system.
pub fn check_platform(
    config: &ImageConfiguration,
    asked: Option<&Platform>,
    name: &str,
) -> Result<(), Error> {
    let actual = Platform {
        os: config.os().to_string(),
        architecture: config.architecture().to_string(),
        variant: config.variant().clone(),
    };
    let fits = match asked {
        Some(asked) => asked.rank(&actual).is_some(),
        None => actual.os == "linux",
    };
    if fits {
        return Ok(());
    }
    let host = Platform::host();
    Err(Error::WrongPlatform {
        reference: name.to_owned(),
        wanted: asked.unwrap_or(&host).to_string(),
        actual: actual.to_string(),
    })
}
