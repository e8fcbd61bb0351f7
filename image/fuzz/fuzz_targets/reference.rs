//! A reference is either refused, or says the same however it is written.

#![no_main]

use image::Reference;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let leaves_out = Reference::leaves_tag_out(text);
    let Ok(reference) = Reference::parse(text) else {
        assert!(!leaves_out);
        return;
    };
    for written in [reference.to_string(), reference.full()] {
        let again = Reference::parse(&written).expect("what is written parses again");
        assert_eq!(again, reference, "{text:?} as {written:?}");
        assert_eq!(again.to_string(), reference.to_string());
    }
    assert!(reference.tag.is_some() || reference.digest.is_some());
    // It becomes part of a URL and of rows.
    let full = reference.full();
    assert!(full.bytes().all(|b| b.is_ascii_graphic()), "{full:?}");
    let hostile = ["//", "?", "#", "%", "\\"];
    assert!(!hostile.iter().any(|part| full.contains(part)), "{full:?}");
    assert!(!full.split('/').any(|part| part == ".."), "{full:?}");
});
