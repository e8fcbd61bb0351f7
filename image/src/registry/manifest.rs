//! Manifests and indexes, of OCI and of Docker schema 2: what a document promises, checked for sense. Pure.

use serde::Deserialize;

use super::platform::Platform;
use super::{Document, MAX_DOCUMENT};
use crate::digest::Digest;
use crate::error::Error;

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_V1: [&str; 2] = [
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];

/// What is asked for; a registry chooses.
pub const ACCEPT: [&str; 4] = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST];

pub const MAX_LAYERS: usize = 128;

pub(crate) const CONFIGS: [&str; 2] = [
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
];

/// How a layer is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

#[derive(Clone, Debug)]
pub struct Blob {
    pub digest: Digest,
    pub size: u64,
}

#[derive(Clone, Debug)]
pub struct Layer {
    pub blob: Blob,
    /// As the manifest says it.
    pub media_type: String,
    pub compression: Compression,
}

#[derive(Debug)]
pub struct Manifest {
    pub config: Blob,
    /// The lowest first.
    pub layers: Vec<Layer>,
}

#[derive(Debug)]
pub enum Parsed {
    Manifest(Manifest),
    /// Manifests and the platform of each.
    Index(Vec<(Blob, Platform)>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: u32,
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    fs_layers: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    urls: Option<Vec<String>>,
    platform: Option<Platform>,
}

/// Reads a document that the registry sent as the manifest of `what`.
pub fn parse(document: &Document, what: &str) -> Result<Parsed, Error> {
    let refuse = |why: String| Error::untrusted(format!("manifest of {what}"), why);
    let schema_1 = || {
        let why = "it has Docker's schema 1, which nothing supports any more: push the image again";
        refuse(why.into())
    };
    if DOCKER_V1.contains(&document.content_type.as_str()) {
        return Err(schema_1());
    }
    let raw: Raw =
        strictly(&document.bytes).map_err(|e| refuse(format!("it is not a manifest: {e}")))?;
    if raw.schema_version == 1 || raw.fs_layers.is_some() {
        return Err(schema_1());
    }
    if raw.schema_version != 2 {
        return Err(refuse(format!(
            "schema version {} is not supported",
            raw.schema_version
        )));
    }
    let sent_as = document.content_type.as_str();
    if let Some(media_type) = &raw.media_type
        && ACCEPT.contains(&sent_as)
        && media_type != sent_as
    {
        return Err(refuse(format!(
            "it calls itself {media_type:?} and was sent as {sent_as:?}"
        )));
    }
    // One document with two readings may show each reader another image (CVE-2021-41190).
    let is_index = match (&raw.manifests, &raw.layers, &raw.config) {
        (Some(_), None, None) => true,
        (None, Some(_), Some(_)) => false,
        (Some(_), ..) => return Err(refuse("it has both manifests and layers".into())),
        _ => {
            return Err(refuse(
                "it has neither manifests nor config and layers".into(),
            ));
        }
    };
    let media_type = match raw.media_type.as_deref() {
        Some(media_type) => media_type,
        None if ACCEPT.contains(&sent_as) => sent_as,
        None if is_index => OCI_INDEX,
        None => OCI_MANIFEST,
    };
    let said_index = match media_type {
        OCI_INDEX | DOCKER_LIST => true,
        OCI_MANIFEST | DOCKER_MANIFEST => false,
        other => return Err(refuse(format!("media type {other:?} is not an image's"))),
    };
    if said_index != is_index {
        return Err(refuse(format!(
            "its content does not fit its media type {media_type:?}"
        )));
    }
    match raw {
        Raw {
            manifests: Some(manifests),
            ..
        } => index(manifests, what).map(Parsed::Index),
        Raw {
            config: Some(config),
            layers: Some(layers),
            ..
        } => image(config, layers, what).map(Parsed::Manifest),
        _ => Err(refuse("it is empty".into())),
    }
}

/// Reads a document of which all parts are JSON, those too that nobody looks at: who reads it next may look at them.
pub fn strictly<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<T> {
    let _: serde_json::Value = serde_json::from_slice(bytes)?;
    serde_json::from_slice(bytes)
}

fn index(manifests: Vec<Descriptor>, what: &str) -> Result<Vec<(Blob, Platform)>, Error> {
    let mut entries = Vec::new();
    for descriptor in manifests {
        if !ACCEPT.contains(&descriptor.media_type.as_str()) {
            continue;
        }
        let blob = blob(&descriptor, what)?;
        // Entries without a platform, or for `unknown`, are attestations and the like.
        if let Some(platform) = descriptor.platform
            && platform.os != "unknown"
        {
            entries.push((blob, platform));
        }
    }
    Ok(entries)
}

fn image(config: Descriptor, layers: Vec<Descriptor>, what: &str) -> Result<Manifest, Error> {
    let refuse = |why: String| Error::untrusted(format!("manifest of {what}"), why);
    if !CONFIGS.contains(&config.media_type.as_str()) {
        let kind = &config.media_type;
        return Err(refuse(format!(
            "it is an artifact of type {kind:?} and not an image"
        )));
    }
    if layers.is_empty() {
        return Err(refuse("the image has no layers".into()));
    }
    refuse_too_many(layers.len()).map_err(refuse)?;
    let config = blob(&config, what)?;
    if config.size > MAX_DOCUMENT {
        return Err(refuse(format!(
            "its config of {} bytes is over the limit of {MAX_DOCUMENT}",
            config.size
        )));
    }
    let layers: Result<Vec<Layer>, Error> = layers
        .iter()
        .map(|descriptor| {
            if descriptor
                .urls
                .as_ref()
                .is_some_and(|urls| !urls.is_empty())
            {
                return Err(refuse(format!(
                    "layer {} is to come from elsewhere, which is refused",
                    descriptor.digest
                )));
            }
            Ok(Layer {
                blob: blob(descriptor, what)?,
                media_type: descriptor.media_type.clone(),
                compression: compression(&descriptor.media_type).ok_or_else(|| {
                    refuse(format!(
                        "layer type {:?} is not supported",
                        descriptor.media_type
                    ))
                })?,
            })
        })
        .collect();
    Ok(Manifest {
        config,
        layers: layers?,
    })
}

/// No container could be made of more layers: mount(2) of older kernels takes no more. Docker stops at 125.
pub fn refuse_too_many(layers: usize) -> Result<(), String> {
    match layers > MAX_LAYERS {
        true => Err(format!(
            "the image has {layers} layers, and no more than {MAX_LAYERS} can be mounted: have it built with fewer"
        )),
        false => Ok(()),
    }
}

fn blob(descriptor: &Descriptor, what: &str) -> Result<Blob, Error> {
    Ok(Blob {
        digest: Digest::expect(&descriptor.digest, &format!("manifest of {what}"))?,
        size: descriptor.size,
    })
}

/// How a layer of a media type is packed; `None` if it is no layer's.
pub fn compression(media_type: &str) -> Option<Compression> {
    Some(match media_type {
        "application/vnd.oci.image.layer.v1.tar"
        | "application/vnd.docker.image.rootfs.diff.tar" => Compression::None,
        "application/vnd.oci.image.layer.v1.tar+gzip"
        | "application/vnd.docker.image.rootfs.diff.tar.gzip" => Compression::Gzip,
        "application/vnd.oci.image.layer.v1.tar+zstd"
        | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Compression::Zstd,
        _ => return None,
    })
}

/// The entry of an index that fits best; the error lists what there is.
pub fn choose(
    entries: Vec<(Blob, Platform)>,
    wanted: &Platform,
    reference: &str,
) -> Result<Blob, Error> {
    let best = entries
        .iter()
        .filter_map(|(blob, platform)| Some((wanted.rank(platform)?, blob)))
        // Of equals the first counts.
        .min_by_key(|(rank, _)| *rank);
    match best {
        Some((_, blob)) => Ok(blob.clone()),
        None => {
            let mut offered: Vec<String> = entries.iter().map(|(_, p)| p.to_string()).collect();
            offered.dedup();
            if offered.is_empty() {
                offered.push("no image at all".to_owned());
            }
            Err(Error::NoPlatform {
                wanted: wanted.to_string(),
                reference: reference.to_owned(),
                offered: offered.join(", "),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn parse_as(content_type: &str, value: &Value) -> Result<Parsed, Error> {
        let bytes = value.to_string().into_bytes();
        let document = Document {
            digest: Digest::of(&bytes),
            content_type: content_type.to_owned(),
            bytes,
        };
        parse(&document, "x")
    }

    fn descriptor(media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": Digest::of(b"x").as_str(), "size": 1})
    }

    fn good() -> Value {
        json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor(CONFIGS[0]),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip")],
        })
    }

    #[test]
    fn both_families_are_read() {
        assert!(
            matches!(parse_as(OCI_MANIFEST, &good()), Ok(Parsed::Manifest(m)) if m.layers.len() == 1)
        );
        let mut docker = good();
        docker["mediaType"] = DOCKER_MANIFEST.into();
        docker["config"] = descriptor(CONFIGS[1]);
        docker["layers"][0] = descriptor("application/vnd.docker.image.rootfs.diff.tar.gzip");
        assert!(parse_as(DOCKER_MANIFEST, &docker).is_ok());
        assert!(
            parse_as("text/plain", &docker).is_ok(),
            "a plain file server has no manifest types"
        );
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut Value), why: &str) {
        let mut value = good();
        change(&mut value);
        let error = parse_as(OCI_MANIFEST, &value).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }

    #[test]
    fn dishonest_manifests_are_refused() {
        refused(|v| v["manifests"] = json!([]), "both manifests and layers");
        refused(|v| v["mediaType"] = DOCKER_MANIFEST.into(), "was sent as");
        refused(|v| v["schemaVersion"] = 1.into(), "Docker's schema 1");
        refused(|v| v["schemaVersion"] = 3.into(), "schema version 3");
        refused(|v| v["layers"] = json!([]), "no layers");
        refused(
            |v| v["layers"][0]["digest"] = "sha256:../../x".into(),
            "not a sha256 digest",
        );
        refused(|v| v["layers"][0]["size"] = (-1).into(), "not a manifest");
        refused(
            |v| v["layers"][0]["urls"] = json!(["https://elsewhere/x"]),
            "elsewhere",
        );
        refused(
            |v| v["layers"][0]["mediaType"] = "text/html".into(),
            "text/html",
        );
        refused(
            |v| v["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json".into(),
            "not an image",
        );
        refused(
            |v| drop(v.as_object_mut().unwrap().remove("layers")),
            "neither",
        );
        let mut v1 = good();
        v1["mediaType"] = Value::Null;
        assert!(
            parse_as(DOCKER_V1[1], &v1)
                .unwrap_err()
                .to_string()
                .contains("schema 1")
        );
    }

    #[test]
    fn the_platform_is_chosen_or_what_there_is_listed() {
        let entry = |os: &str, architecture: &str| {
            let mut d = descriptor(OCI_MANIFEST);
            d["digest"] = Digest::of(architecture.as_bytes()).as_str().into();
            d["platform"] = json!({"os": os, "architecture": architecture});
            d
        };
        let index = json!({
            "schemaVersion": 2, "mediaType": OCI_INDEX,
            "manifests": [entry("linux", "s390x"), entry("unknown", "unknown"), entry("linux", "amd64")],
        });
        let entries = || match parse_as(OCI_INDEX, &index) {
            Ok(Parsed::Index(entries)) => entries,
            other => panic!("{other:?}"),
        };
        let wanted = Platform::parse("linux/amd64").unwrap();
        assert_eq!(
            choose(entries(), &wanted, "x").unwrap().digest,
            Digest::of(b"amd64")
        );
        let error =
            choose(entries(), &Platform::parse("linux/riscv64").unwrap(), "x:1").unwrap_err();
        assert_eq!(
            error.to_string(),
            "no matching manifest for linux/riscv64 in the manifest list entries of x:1: it offers linux/s390x, linux/amd64"
        );
    }
}
