//! WWW-Authenticate of any content.

#![no_main]

use image::fuzzing::challenges;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for (scheme, parameters) in challenges(text) {
        assert!(
            !scheme.bytes().any(|b| b.is_ascii_uppercase()),
            "{scheme:?}"
        );
        assert!(!scheme.contains([' ', ',', '=']), "{scheme:?}");
        for (name, _) in parameters {
            assert!(!name.contains([' ', ',', '=']), "{name:?}");
        }
    }
});
