//! Registries, images and archives that mean harm, beyond the table of `bad_images`: what `push` may be made to do, what an image's config
//! may make later commands do.

#[path = "bad_images/image.rs"]
#[allow(dead_code, reason = "the table of bad_images uses all of it")]
mod image;

use harness::mock::{Answer, Mock};
use harness::{Host, Output, Tape, usage};
use image::{Image, Layer, TOP, reference};
use serde_json::{Value, json};

/// Neither a panic nor anything that a terminal would obey.
#[track_caller]
fn sober(output: Output) -> Output {
    assert!(!output.stderr.contains("panicked"), "{output}");
    for text in [&output.stdout, &output.stderr] {
        let bad = text
            .chars()
            .find(|&c| c.is_control() && !matches!(c, '\n' | '\t'));
        assert_eq!(bad, None, "a terminal would obey this: {output}");
    }
    output
}

fn small_layer() -> Layer {
    Layer::plain(Tape::new().file("f", "content").finish())
}

#[test]
fn ten_thousand_layers_are_refused_before_anything_is_downloaded() {
    let host = Host::builder().without_image().build();
    let mut image = Image::good();
    let layer = image.manifest["layers"][0].clone();
    image.manifest["layers"] = Value::Array(vec![layer; 10_000]);
    let mock = image.files().serve(&host.netns);
    let output = sober(host.coracle(["pull", &reference(&mock)])).exits(1);
    assert!(output.stderr.contains("10000 layers"), "{output}");
    assert!(mock.asked("/blobs/").is_empty(), "{:?}", mock.requests());
}

#[test]
fn a_commit_on_top_of_as_many_layers_as_can_be_mounted_is_refused() {
    let host = Host::builder().without_image().build();
    let layers = (0..128)
        .map(|number: u32| Layer::plain(Tape::new().file("f", number.to_string()).finish()));
    let mock = Image::of(layers.collect()).files().serve(&host.netns);
    let name = reference(&mock);
    host.coracle(["pull", "-q", &name]).ok();
    host.coracle(["create", "--name", "deep", &name, "/f"]).ok();
    let before = usage::du(&host.root(), &[]);
    let output = sober(host.coracle(["commit", "deep", "more"])).exits(1);
    output.complains("129 layers, and no more than 128 can be mounted");
    host.run("images -q more").says("");
    assert_eq!(usage::du(&host.root(), &[]), before, "something is left");
    // As many can be mounted indeed: `/f`, which is no program, is found.
    host.run("cp deep:/f -");
    host.coracle(["start", "deep"])
        .exits(1)
        .complains("permission denied");
}

#[test]
fn a_push_is_not_repeated_at_a_server_that_a_redirect_names() {
    let host = Host::builder().without_image().build();
    let source = Image::good().files().serve(&host.netns);
    let name = reference(&source);
    host.coracle(["pull", &name]).ok();
    for status in [301, 302, 303, 307, 308] {
        let victim = Mock::start(&host.netns, "127.0.0.1", |_| {
            Some(Answer::new(201, "text/plain", ""))
        });
        let target = format!("http://{}/latest/api/reboot", victim.address);
        let enemy = Mock::start(&host.netns, "127.0.0.1", move |request| {
            Some(match request.method.as_str() {
                "POST" | "PUT" | "PATCH" => {
                    Answer::new(status, "text/plain", "").with("Location", &target)
                }
                "HEAD" => Answer::new(404, "text/plain", ""),
                _ => Answer::new(200, "text/plain", ""),
            })
        });
        let theirs = format!("{}/x:1", enemy.address);
        host.coracle(["tag", &name, &theirs]).ok();
        let output = sober(host.coracle(["push", &theirs])).exits(1);
        assert!(output.stderr.contains("another server changed"), "{output}");
        assert_eq!(victim.requests().len(), 0, "{:?}", victim.requests());
    }
}

/// Commands that show or use an image, none of which may obey it.
fn look_at(host: &Host, name: &str) {
    for words in [
        &["images", "--no-trunc"][..],
        &["images", "--digests"],
        &["history", name],
        &["history", "--no-trunc", name],
        &["image", "inspect", name],
        &["system", "df", "-v"],
        &["image", "check"],
        &["save", "-o", "/dev/null", name],
        &["create", "--name", "c", name],
        &["ps", "-a", "--no-trunc"],
        &["inspect", "c"],
        &["start", "deep"],
        &["rm", "-f", "c"],
    ] {
        sober(host.coracle(words));
    }
}

fn with_config(config: Value) -> Image {
    let layer = small_layer();
    let mut whole = json!({
        "architecture": harness::oci::this_architecture(), "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
    });
    for (key, value) in config.as_object().into_iter().flatten() {
        whole[key] = value.clone();
    }
    Image::with_config(vec![layer], whole)
}

#[test]
fn no_config_of_an_image_makes_a_command_panic_or_obey() {
    let host = Host::builder().without_image().build();
    let outside = host.folder().join("outside");
    let up = format!("../../../../../../../..{}", outside.display());
    let long = vec!["A=b"; 100_000];
    for config in [
        json!({"config": {"Cmd": ["/f"], "WorkingDir": up, "Volumes": {&up: {}}}}),
        json!({"config": {"Cmd": ["/f"], "WorkingDir": "/a\u{0}b", "Volumes": {"/v\u{0}": {}, "": {}, "/": {}, "\n": {}}}}),
        json!({"config": {"Cmd": ["/f\u{1b}[2J"], "Entrypoint": ["\u{0}", "\u{1b}]0;x\u{7}"], "User": "\u{1b}[31m:\n-1"}}),
        json!({"config": {"Cmd": ["/f"], "User": "4294967296:99999999999999999999", "StopSignal": "SIG\u{1b}[0m"}}),
        json!({"config": {"Cmd": ["/f"], "StopSignal": "-9", "ExposedPorts": {"99999/tcp": {}, "1-65536/x": {}, "\u{1b}": {}, "": {}}}}),
        json!({"config": {"Cmd": ["/f"], "Healthcheck": {"Test": ["CMD", "x"], "Interval": i64::MAX, "Timeout": i64::MIN, "Retries": -1}}}),
        json!({"config": {"Cmd": ["/f"], "Env": long}}),
        json!({"config": {"Cmd": ["/f"], "Env": ["", "=", "=x", "PATH", "A\u{0}=b"], "Labels": {"\u{1b}[2J": "\u{1b}c", "": "\n"}}}),
        json!({"created": "9999-12-31T23:59:59.999999999Z", "author": "\u{1b}[2J", "history": [
            {"created": "0001-01-01T00:00:00Z", "created_by": "\u{1b}[2J\r\n\u{9b}31m", "comment": "\u{7}"},
            {"created_by": "x".repeat(100_000), "empty_layer": true}]}),
        json!({"created": "-1", "history": []}),
        json!({"created": "", "history": vec![json!({"created_by": "x"}); 1000]}),
    ] {
        let mock = with_config(config).files().serve(&host.netns);
        let name = reference(&mock);
        let pulled = sober(host.coracle(["pull", &name]));
        if pulled.code() == 0 {
            look_at(&host, &name);
            sober(host.coracle(["rmi", "-f", &name]));
        }
        assert!(!outside.exists(), "made on the host: {pulled}");
    }
}

#[test]
fn a_working_directory_or_volume_behind_a_symlink_stays_in_the_container() {
    let host = Host::builder().without_image().build();
    let outside = host.folder().join("outside");
    let tar = Tape::new()
        .symlink("link", &host.folder().display().to_string())
        .file("f", "x")
        .finish();
    let mut image = Image::of(vec![Layer::plain(tar)]);
    let mut config = image.config.clone();
    config["config"] =
        json!({"Cmd": ["/f"], "WorkingDir": "/link/outside", "Volumes": {"/link/outside/v": {}}});
    image = Image::with_config(image.layers, config);
    let mock = image.files().serve(&host.netns);
    let name = reference(&mock);
    host.coracle(["pull", &name]).ok();
    look_at(&host, &name);
    assert!(!outside.exists(), "a directory was made on the host");
}

#[test]
fn an_import_shows_no_password_of_its_url() {
    let host = Host::builder().without_image().build();
    let output = sober(host.coracle(["import", "http://me:geheim@127.0.0.1:1/x.tar"])).exits(1);
    assert!(output.stderr.contains("password is not taken"), "{output}");
    let said = format!("{}{}", output.stdout, output.stderr);
    assert!(!said.contains("geheim"), "{output}");
}

#[test]
fn a_config_that_a_thousand_images_share_is_not_read_for_each() {
    let host = Host::builder().without_image().build();
    let mut config = with_config(json!({"author": "x".repeat(1 << 20)})).config;
    config["architecture"] = harness::oci::this_architecture().into();
    let item = json!({"Config": "c", "Layers": ["l"]});
    let tar = Tape::new()
        .file("l", "x")
        .file("c", config.to_string())
        .file("manifest.json", Value::Array(vec![item; 1000]).to_string())
        .finish();
    let path = host.folder().join("many.tar");
    std::fs::write(&path, tar).unwrap();
    let output = sober(host.coracle(["load", "-i", path.to_str().unwrap()])).exits(1);
    assert!(
        output.stderr.contains("the documents of its images"),
        "{output}"
    );
}

#[test]
fn errors_without_end_are_read_to_a_limit() {
    let host = Host::builder().without_image().build();
    let mock = Mock::start(&host.netns, "127.0.0.1", |request| {
        (request.path == TOP).then(|| {
            Answer::new(400, "application/json", vec![b'['; 1 << 20])
                .repeated(100_000)
                .chunked()
        })
    });
    let output = sober(host.coracle(["pull", &reference(&mock)])).exits(1);
    assert!(output.stderr.contains("400"), "{output}");
    assert_eq!(mock.asked(TOP).len(), 1, "{:?}", mock.requests());
}
