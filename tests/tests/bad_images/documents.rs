//! Manifests, indexes and configs that lie, contradict each other, or are none.

use harness::mock::Mock;
use harness::{Netns, Tape, oci};
use serde_json::{Value, json};

use super::image::{CONFIG, Files, INDEX, Image, Layer, MANIFEST, PLAIN, TOP, reference, sha256};
use super::layers::ADVICE;
use super::machine::{Machine, says_no_line_of};
use super::{Row, row};

const DOCKER_V1: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

pub fn rows() -> Vec<Row> {
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let mut rows = vec![
        manifest(
            "manifests-and-layers",
            |m| m["manifests"] = json!([]),
            "it has both manifests and layers",
        ),
        manifest(
            "manifests-and-config",
            |m| {
                m["manifests"] = json!([]);
                remove(m, "layers");
            },
            "it has both manifests and layers",
        ),
        manifest(
            "neither",
            |m| {
                remove(m, "layers");
                remove(m, "config");
            },
            "it has neither manifests nor config and layers",
        ),
        manifest(
            "no-layers",
            |m| m["layers"] = json!([]),
            "the image has no layers",
        ),
        manifest(
            "layers-that-are-null",
            |m| m["layers"] = Value::Null,
            "it has neither manifests nor config and layers",
        ),
        manifest(
            "other-media-type",
            |m| m["mediaType"] = DOCKER_LIST.into(),
            "and was sent as",
        ),
        manifest(
            "schema-version-1",
            |m| m["schemaVersion"] = 1.into(),
            "it has Docker's schema 1, which nothing supports any more",
        ),
        manifest(
            "digest-as-a-path",
            |m| m["layers"][0]["digest"] = "sha256:../../x".into(),
            "\"sha256:../../x\" is not a sha256 digest",
        ),
        manifest(
            "config-digest-as-a-path",
            |m| m["config"]["digest"] = "sha256:../../x".into(),
            "\"sha256:../../x\" is not a sha256 digest",
        ),
        manifest(
            "digest-of-another-kind",
            |m| m["layers"][0]["digest"] = format!("md5:{}", "0".repeat(32)).into(),
            "is not a sha256 digest",
        ),
        manifest(
            "digest-in-capitals",
            |m| m["layers"][0]["digest"] = format!("sha256:{}", "AB".repeat(32)).into(),
            "is not a sha256 digest",
        ),
        manifest(
            "negative-size",
            |m| m["layers"][0]["size"] = (-1).into(),
            "it is not a manifest",
        ),
        manifest(
            "size-as-a-fraction",
            |m| m["layers"][0]["size"] = 1.5.into(),
            "it is not a manifest",
        ),
        manifest(
            "size-as-a-text",
            |m| m["layers"][0]["size"] = "81920".into(),
            "it is not a manifest",
        ),
        manifest(
            "config-of-100-mb",
            |m| m["config"]["size"] = (100 << 20).into(),
            "is over the limit of 4194304",
        ),
        manifest(
            "layer-of-a-page",
            |m| m["layers"][0]["mediaType"] = "text/html".into(),
            "layer type \"text/html\" is not supported",
        ),
        manifest(
            "layer-of-escapes",
            |m| m["layers"][0]["mediaType"] = "\x1b[31mred\n".into(),
            "layer type",
        ),
        manifest(
            "artifact",
            |m| m["config"]["mediaType"] = "application/vnd.oci.empty.v1+json".into(),
            "it is an artifact of type \"application/vnd.oci.empty.v1+json\" and not an image",
        ),
        manifest(
            "helm-chart",
            |m| m["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json".into(),
            "and not an image",
        ),
        manifest(
            "signature",
            |m| m["config"]["mediaType"] = "application/vnd.dev.cosign.artifact.sig.v1+json".into(),
            "and not an image",
        ),
        manifest(
            "one-layer-twice-in-the-manifest",
            |m| {
                let layer = m["layers"][0].clone();
                push(m, layer);
            },
            "names 1 layers and the manifest 2",
        ),
        document(
            "not-json",
            MANIFEST,
            b"<html>".to_vec(),
            "it is not a manifest",
        ),
        document("nothing", MANIFEST, Vec::new(), "it is not a manifest"),
        document(
            "not-utf-8",
            MANIFEST,
            b"{\"schemaVersion\": 2, \"mediaType\": \"\xff\xfe\"}".to_vec(),
            "it is not a manifest",
        ),
        document(
            "json-after-json",
            MANIFEST,
            [Image::good().manifest.to_string().as_bytes(), b"{}"].concat(),
            "it is not a manifest",
        ),
        document(
            "deep-nesting",
            MANIFEST,
            format!("{{\"schemaVersion\": 2, \"fsLayers\": {}}}", deep(500_000)).into_bytes(),
            "it is not a manifest",
        ),
        document(
            "deep-nesting-unknown",
            MANIFEST,
            format!("{{\"schemaVersion\": 2, \"x\": {}}}", deep(1_000_000)).into_bytes(),
            "manifest of",
        ),
        document("keys-twice", MANIFEST, twice("layers"), "duplicate field"),
        document(
            "number-too-large",
            MANIFEST,
            Image::good()
                .manifest
                .to_string()
                .replace("\"size\":", "\"size\":1e99,\"x\":")
                .into_bytes(),
            "it is not a manifest",
        ),
        document(
            "sent-as-an-index",
            INDEX,
            Image::good().manifest.to_string().into_bytes(),
            "and was sent as",
        ),
        document(
            "schema-1",
            DOCKER_V1,
            json!({"schemaVersion": 1, "fsLayers": [{"blobSum": sha256(b"")}]})
                .to_string()
                .into_bytes(),
            "Docker's schema 1",
        ),
        document(
            "schema-1-as-json",
            "application/json",
            json!({"schemaVersion": 1, "name": "x", "fsLayers": [{"blobSum": sha256(b"")}]})
                .to_string()
                .into_bytes(),
            "schema 1",
        ),
        row("manifest-of-100-mb", |netns| {
            let good = Image::good().files();
            let mock = Mock::start(netns, "127.0.0.1", move |request| {
                let answer = good.get(request)?;
                Some(match request.path == TOP {
                    true => {
                        harness::mock::Answer::new(200, MANIFEST, vec![b' '; 1 << 20]).repeated(100)
                    }
                    false => answer,
                })
            });
            refuse(
                netns,
                &mock,
                &["manifest 1: it is longer than 4194304 bytes"],
            );
        }),
        row("foreign-layer", |netns| {
            let elsewhere = Mock::start(netns, "127.0.0.1", |_| None);
            let url = format!("http://{}/layer", elsewhere.address);
            let image = Image::changed(|m| m["layers"][0]["urls"] = json!([url]));
            refuse(
                netns,
                &image.files().serve(netns),
                &["is to come from elsewhere, which is refused"],
            );
            assert!(
                elsewhere.requests().is_empty(),
                "{:?}",
                elsewhere.requests()
            );
        }),
        row("index-with-another-manifest", |netns| {
            let image = Image::good();
            let mut files = image.files();
            let wanted = sha256(b"another");
            files.put(
                &format!("/v2/x/manifests/{wanted}"),
                MANIFEST,
                image.manifest.to_string(),
            );
            files.put(
                TOP,
                INDEX,
                index(&[entry(MANIFEST, &wanted, image.manifest.to_string().len())]),
            );
            refuse(
                netns,
                &files.serve(netns),
                &[&wanted, "the registry sent sha256:"],
            );
        }),
        row("index-with-another-size", |netns| {
            let image = Image::good();
            let manifest = image.manifest.to_string();
            let mut files = image.files();
            let digest = sha256(manifest.as_bytes());
            files.put(
                &format!("/v2/x/manifests/{digest}"),
                MANIFEST,
                manifest.clone(),
            );
            files.put(
                TOP,
                INDEX,
                index(&[entry(MANIFEST, &digest, manifest.len() + 1)]),
            );
            refuse(netns, &files.serve(netns), &[&digest, "and the index says"]);
        }),
        row("index-in-an-index-in-an-index", |netns| {
            let image = Image::good();
            let (mut files, mut inner) = (image.files(), (MANIFEST, image.manifest.to_string()));
            for _ in 0..3 {
                let digest = sha256(inner.1.as_bytes());
                files.put(
                    &format!("/v2/x/manifests/{digest}"),
                    inner.0,
                    inner.1.clone(),
                );
                inner = (INDEX, index(&[entry(inner.0, &digest, inner.1.len())]));
            }
            files.put(TOP, INDEX, inner.1);
            refuse(
                netns,
                &files.serve(netns),
                &["indexes are nested too deeply"],
            );
        }),
        row("index-of-itself", |netns| {
            // It cannot be, with true digests: whatever is asked for, the same comes.
            let wanted = sha256(b"itself");
            let text = index(&[entry(INDEX, &wanted, 10)]);
            let mock = Mock::start(netns, "127.0.0.1", move |_| {
                Some(harness::mock::Answer::new(200, INDEX, text.clone()))
            });
            refuse(netns, &mock, &["the registry sent sha256:"]);
        }),
        row("no-platform", |netns| {
            let mut files = Image::good().files();
            let mut other = entry(MANIFEST, &sha256(b"1"), 1);
            other["platform"] = json!({"os": "linux", "architecture": "s390x"});
            let mut windows = entry(MANIFEST, &sha256(b"2"), 1);
            windows["platform"] = json!({"os": "windows", "architecture": "amd64"});
            files.put(TOP, INDEX, index(&[other, windows]));
            Machine::new(netns).refuses(
                &reference(&files.serve(netns)),
                &[
                    "no matching manifest for linux/",
                    "it offers linux/s390x, windows/amd64",
                ],
            );
        }),
        row("no-platform-but-escapes", |netns| {
            let mut files = Image::good().files();
            let mut other = entry(MANIFEST, &sha256(b"1"), 1);
            other["platform"] =
                json!({"os": "\u{1b}[31m", "architecture": "x\ncoracle: all is well"});
            files.put(TOP, INDEX, index(&[other]));
            let output = Machine::new(netns).refuses(
                &reference(&files.serve(netns)),
                &["no matching manifest for linux/"],
            );
            says_no_line_of(&output, "coracle: all");
        }),
        row("attestations-alone", |netns| {
            let mut files = Image::good().files();
            let mut attestation = entry(MANIFEST, &sha256(b"1"), 1);
            attestation["platform"] = json!({"os": "unknown", "architecture": "unknown"});
            attestation["annotations"] =
                json!({"vnd.docker.reference.type": "attestation-manifest"});
            files.put(TOP, INDEX, index(&[attestation]));
            Machine::new(netns).refuses(
                &reference(&files.serve(netns)),
                &["it offers no image at all"],
            );
        }),
        row("empty-index", |netns| {
            let mut files = Image::good().files();
            files.put(TOP, INDEX, index(&[]));
            Machine::new(netns).refuses(
                &reference(&files.serve(netns)),
                &["it offers no image at all"],
            );
        }),
        row("digest-of-another-manifest", |netns| {
            let image = Image::good();
            let mut files = image.files();
            let wanted = sha256(b"another");
            files.put(
                &format!("/v2/x/manifests/{wanted}"),
                MANIFEST,
                image.manifest.to_string(),
            );
            let mock = files.serve(netns);
            let name = format!("{}/x@{wanted}", mock.address);
            Machine::new(netns).refuses(&name, &[&wanted, "the registry sent sha256:", ADVICE]);
        }),
    ];
    rows.extend(configs());
    rows
}

/// The config of an image that is otherwise good.
fn configs() -> Vec<Row> {
    vec![
        config(
            "config-not-json",
            |_, text| *text = "<html>".into(),
            "it is not an image's config",
        ),
        config(
            "config-not-utf-8",
            |_, text| *text = "{\"os\": \"\u{fffd}\"}".into(),
            "it is not an image's config",
        ),
        config(
            "config-of-half-a-letter",
            |c, text| {
                *text = c
                    .to_string()
                    .replace("\"config\":{}", "\"config\":{},\"x\":\"\\ud800\"")
            },
            "it is not an image's config",
        ),
        config(
            "config-of-nothing",
            |_, text| *text = "{}".into(),
            "it is not an image's config",
        ),
        config(
            "config-without-rootfs",
            |c, _| remove(c, "rootfs"),
            "it is not an image's config",
        ),
        config(
            "config-without-diff-ids",
            |c, _| remove(&mut c["rootfs"], "diff_ids"),
            "it is not an image's config",
        ),
        config(
            "more-diff-ids-than-layers",
            |c, _| c["rootfs"]["diff_ids"] = json!([sha256(b"1"), sha256(b"2")]),
            "it names 2 layers and the manifest 1",
        ),
        config(
            "no-diff-ids",
            |c, _| c["rootfs"]["diff_ids"] = json!([]),
            "it names 0 layers and the manifest 1",
        ),
        config(
            "diff-id-as-a-path",
            |c, _| c["rootfs"]["diff_ids"] = json!(["sha256:../../x"]),
            "\"sha256:../../x\" is not a sha256 digest",
        ),
        config(
            "another-diff-id",
            |c, _| c["rootfs"]["diff_ids"] = json!([sha256(b"1")]),
            "its tar has the digest",
        ),
        config(
            "config-of-deep-nesting",
            |_, text| *text = format!("{}{}", "{\"config\":".repeat(100_000), "}".repeat(100_000)),
            "it is not an image's config",
        ),
        config(
            "config-of-another-system",
            |c, _| c["os"] = "windows".into(),
            "does not match the specified platform: wanted linux/",
        ),
        config(
            "config-of-an-escape",
            |c, _| c["os"] = "\u{1b}[31m".into(),
            "does not match the specified platform",
        ),
        row("another-config", |netns| {
            let image = Image::good();
            let path = format!(
                "/v2/x/blobs/{}",
                sha256(image.config.to_string().as_bytes())
            );
            let mut files = image.files();
            let other = image.config.to_string().replace("linux", "Linux");
            files.put(&path, "application/octet-stream", other);
            refuse(
                netns,
                &files.serve(netns),
                &["its content has the digest sha256:"],
            );
        }),
    ]
}

fn remove(value: &mut Value, key: &str) {
    if let Some(object) = value.as_object_mut() {
        object.remove(key);
    }
}

fn push(manifest: &mut Value, layer: Value) {
    if let Some(layers) = manifest["layers"].as_array_mut() {
        layers.push(layer);
    }
}

/// The good manifest with one of its keys a second time.
fn twice(key: &str) -> Vec<u8> {
    let text = Image::good().manifest.to_string();
    let rest = text.strip_prefix('{').unwrap_or(&text);
    format!("{{\"{key}\": [], {rest}").into_bytes()
}

fn entry(media_type: &str, digest: &str, size: usize) -> Value {
    json!({
        "mediaType": media_type, "digest": digest, "size": size,
        "platform": {"os": "linux", "architecture": oci::this_architecture()},
    })
}

fn index(entries: &[Value]) -> String {
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).to_string()
}

#[track_caller]
fn refuse(netns: &'static Netns, mock: &Mock, says: &[&str]) {
    let says: Vec<&str> = says.iter().copied().chain([ADVICE]).collect();
    Machine::new(netns).refuses(&reference(mock), &says);
    // A document is judged before anything is unpacked.
    let layer = Image::good().layers[0].digest();
    let diff_id = says.iter().any(|text| text.contains("its tar has"));
    assert!(
        diff_id || mock.asked(&layer).is_empty(),
        "{:?}",
        mock.requests()
    );
}

fn manifest(name: &'static str, change: fn(&mut Value), why: &'static str) -> Row {
    row(name, move |netns| {
        refuse(
            netns,
            &Image::changed(change).files().serve(netns),
            &["manifest of 127.0.0.1:", why][usize::from(why.starts_with("names"))..],
        )
    })
}

/// These bytes in place of the manifest.
fn document(
    name: &'static str,
    content_type: &'static str,
    bytes: Vec<u8>,
    why: &'static str,
) -> Row {
    row(name, move |netns| {
        let mut files = Image::good().files();
        files.put(TOP, content_type, bytes);
        refuse(netns, &files.serve(netns), &["manifest of 127.0.0.1:", why]);
    })
}

/// The good image with another config: as a value, or, where that is set, as a text.
fn config(name: &'static str, change: fn(&mut Value, &mut String), why: &'static str) -> Row {
    row(name, move |netns| {
        let layer = Layer::plain(Tape::new().file("f", "content ".repeat(10_000)).finish());
        assert_eq!(layer.media_type, PLAIN);
        let (mut value, mut text) = (Image::of(vec![layer.clone()]).config, String::new());
        change(&mut value, &mut text);
        if text.is_empty() {
            text = value.to_string();
        }
        let mut image = Image::of(vec![layer]);
        image.manifest["config"] =
            json!({"mediaType": CONFIG, "digest": sha256(text.as_bytes()), "size": text.len()});
        let mut files: Files = image.files();
        files.put_blob(text);
        let mock = files.serve(netns);
        let output = Machine::new(netns).refuses(&reference(&mock), &[why]);
        let advised = why.contains("platform") || output.stderr.contains(ADVICE);
        assert!(advised, "{output}");
    })
}
