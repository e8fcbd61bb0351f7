//! An archive of any content: what is said to be in it is in it. The first byte: 1: the input is a list of images, beside a config and a
//! layer that are good, and not a whole tar.

#![no_main]

use std::fs::File;
use std::io::{Seek, Write};

use image::fuzzing::archive;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&how, bytes)) = input.split_first() else {
        return;
    };
    let bytes = match how & 1 {
        0 => bytes.to_vec(),
        _ => around(bytes),
    };
    let folder = tempfile::tempdir().expect("a folder");
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(&bytes).expect("write the archive");
    file.rewind().expect("rewind the archive");
    let same: File = file.try_clone().expect("the same file");
    match archive(folder.path(), same) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(images) => {
            assert!(!images.is_empty());
            for (id, names, sizes) in images {
                assert_eq!(id.len(), 71);
                assert!(names.iter().all(|name| !name.contains('@')), "{names:?}");
                assert!(!sizes.is_empty());
                // Of one that is packed as a whole the members may be longer.
                let packed = [&b"\x1f\x8b"[..], b"\x28\xb5\x2f\xfd"];
                if !packed.iter().any(|magic| bytes.starts_with(magic)) {
                    let longest = sizes.iter().max().expect("a layer");
                    assert!(*longest <= bytes.len() as u64, "{sizes:?}");
                }
            }
        }
    }
    let staging = folder.path().join("layers/.staging");
    let left = std::fs::read_dir(staging)
        .expect("the staging directory")
        .count();
    assert_eq!(left, 0, "something stays in staging");
});

/// The input as `manifest.json` and as `index.json`.
fn around(list: &[u8]) -> Vec<u8> {
    let zeros = "0".repeat(64);
    let config = format!(
        "{{\"architecture\":\"amd64\",\"os\":\"linux\",\"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[\"sha256:{zeros}\"]}}}}"
    );
    let mut tar = Vec::new();
    let name = match list.first() {
        Some(b'[') => "manifest.json",
        _ => "index.json",
    };
    for (name, data) in [(name, list), ("c", config.as_bytes()), ("l", &[0; 1024])] {
        let mut header = [0_u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..107].copy_from_slice(b"0000644");
        header[124..135].copy_from_slice(format!("{:011o}", data.len()).as_bytes());
        header[136..147].copy_from_slice(b"00000000000");
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|&b| u32::from(b)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        tar.extend_from_slice(&header);
        tar.extend_from_slice(data);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}
