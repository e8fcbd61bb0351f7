//! An image's config of any content: what the store reads of it, and that a stored one is read the same again.

#![no_main]

use image::fuzzing::{config, healthcheck};
use libfuzzer_sys::fuzz_target;
use oci_spec::image::ImageConfiguration;

fuzz_target!(|bytes: &[u8]| {
    let check = healthcheck(bytes);
    let Ok(config) = config(bytes) else {
        return;
    };
    // What `inspect` and `history` show is read as a plain value.
    let value: serde_json::Value = serde_json::from_slice(bytes).expect("a config is JSON");
    if let Some(check) = check {
        let test = &value["config"]["Healthcheck"]["Test"];
        assert_eq!(test.as_array().map(Vec::len), Some(check.test.len()));
    }
    let written = serde_json::to_vec(&config).expect("a config can be written");
    let again: ImageConfiguration = serde_json::from_slice(&written).expect("and read again");
    assert_eq!(again, config);
});
