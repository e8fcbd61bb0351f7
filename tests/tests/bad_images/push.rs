//! A push by hand: a registry looks into no layer, but a program that pushes might.

use std::io::{Read, Write};

use harness::registry::ADDRESS;
use harness::{Netns, net};

use super::image::{Image, MANIFEST};

/// Puts an image into the real registry as it is; what to pull.
#[track_caller]
pub fn push(netns: &Netns, image: &Image, repository: &str) -> String {
    let config = image.config.to_string().into_bytes();
    for bytes in image
        .layers
        .iter()
        .map(|layer| &layer.blob)
        .chain([&config])
    {
        let digest = super::image::sha256(bytes);
        let begun = ask(
            netns,
            "POST",
            &format!("/v2/{repository}/blobs/uploads/"),
            "",
            &[],
        );
        let location = header(&begun, "location").expect("where to upload to");
        let path = location
            .split_once(ADDRESS)
            .map_or(location.as_str(), |(_, path)| path);
        let path = format!("{path}&digest={digest}");
        ask(netns, "PUT", &path, "application/octet-stream", bytes);
    }
    let manifest = image.manifest.to_string();
    let path = format!("/v2/{repository}/manifests/1");
    ask(netns, "PUT", &path, MANIFEST, manifest.as_bytes());
    format!("{ADDRESS}/{repository}:1")
}

/// One request on a connection of its own; the head of the answer.
#[track_caller]
fn ask(netns: &Netns, method: &str, path: &str, content_type: &str, body: &[u8]) -> String {
    let mut stream = net::connect(netns, ADDRESS).expect("the registry listens");
    stream
        .set_read_timeout(Some(harness::scaled(std::time::Duration::from_secs(60))))
        .expect("a time limit");
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {ADDRESS}\r\nConnection: close\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("ask the registry");
    stream.write_all(body).expect("ask the registry");
    let mut answer = Vec::new();
    stream
        .read_to_end(&mut answer)
        .expect("the registry's answer");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(
        answer.starts_with("HTTP/1.1 20"),
        "{method} {path}: {answer}"
    );
    answer
}

fn header(answer: &str, name: &str) -> Option<String> {
    answer.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name)
            .then(|| value.trim().to_owned())
    })
}
