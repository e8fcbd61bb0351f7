//! A manifest of any content: what is accepted names blobs by digests alone. The first byte is its type.

#![no_main]

use image::fuzzing::{Told, manifest};
use libfuzzer_sys::fuzz_target;

const TYPES: [&str; 7] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/json",
    "",
];

fuzz_target!(|input: &[u8]| {
    let Some((kind, bytes)) = input.split_first() else {
        return;
    };
    let content_type = TYPES[usize::from(*kind) % TYPES.len()];
    let digests = match manifest(content_type, bytes) {
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
        Ok(Told::Index(chosen)) => chosen.into_iter().collect(),
        Ok(Told::Image(blobs)) => {
            assert!(blobs.len() > 1, "an image has a config and a layer");
            assert!(blobs[0].1 <= 4 << 20, "a config is small");
            // Two documents in one would be two images (CVE-2021-41190).
            let value: serde_json::Value = serde_json::from_slice(bytes).expect("it is JSON");
            assert!(value.get("manifests").is_none_or(|it| it.is_null()));
            blobs
                .into_iter()
                .map(|(digest, _)| digest)
                .collect::<Vec<_>>()
        }
    };
    for digest in digests {
        let hex = digest.strip_prefix("sha256:").expect("a sha256 digest");
        let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        assert!(hex.len() == 64 && hex.bytes().all(lower_hex), "{digest}");
    }
});
