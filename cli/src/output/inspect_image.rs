//! Images in the shape of `docker image inspect` and as rows of `images`. Pure.

use image::{Image, ImageSummary};
use runtime::engine::InspectedImage;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use super::container::Length;
use super::listing::Columns;
use super::{short_id, words};

pub const COLUMNS: Columns = Columns {
    table: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
    headings: &[
        ("Repository", "REPOSITORY"),
        ("Tag", "TAG"),
        ("Digest", "DIGEST"),
        ("ID", "IMAGE ID"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("Size", "SIZE"),
        ("VirtualSize", "SIZE"),
        ("SharedSize", "SHARED SIZE"),
        ("UniqueSize", "UNIQUE SIZE"),
        ("Containers", "CONTAINERS"),
    ],
};

/// The table with `--digests`.
pub const WITH_DIGESTS: &str =
    "table {{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";

pub fn row(
    image: &ImageSummary,
    digest: Option<&str>,
    now: OffsetDateTime,
    length: Length,
) -> Map<String, Value> {
    let created = words::parse_rfc3339(&image.created);
    let id = match length {
        Length::Cut => short_id(&image.id),
        Length::Full => &image.id,
    };
    let value = json!({
        "Repository": image.repository,
        "Tag": image.tag,
        "Digest": digest.unwrap_or("<none>"),
        "ID": id,
        "CreatedSince": created.map_or_else(|| "N/A".to_owned(), |then| words::ago(then, now)),
        "CreatedAt": created.map_or_else(|| "N/A".to_owned(), words::timestamp),
        "Size": words::size(image.size),
        "VirtualSize": words::size_with(image.size, 4),
        "SharedSize": "N/A",
        "UniqueSize": "N/A",
        "Containers": "N/A",
    });
    match value {
        Value::Object(row) => row,
        _ => Map::new(),
    }
}

pub fn image(found: &InspectedImage) -> Value {
    let (image, config) = (&found.image, &found.config);
    let text = |name: &str| config.get(name).cloned().unwrap_or_else(|| "".into());
    let history = config.get("history").and_then(Value::as_array);
    let last = history.and_then(|steps| steps.last()?.get("comment").cloned());
    let comment = config.get("comment").cloned().or(last);
    let mut value = json!({
        "Id": image.id,
        "RepoTags": image.names,
        "RepoDigests": found.digests,
        // An image has no parent but its layers.
        "Parent": "",
        "Comment": comment.unwrap_or_else(|| "".into()),
        "Created": config.get("created").cloned(),
        "Container": text("container"),
        "DockerVersion": text("docker_version"),
        "Author": text("author"),
        "Config": run_config(config.get("config").unwrap_or(&Value::Null)),
        "Architecture": text("architecture"),
        "Os": text("os"),
        "Size": found.size,
        "VirtualSize": found.size,
        "GraphDriver": {
            "Data": {"LowerDir": layers(image)},
            "Name": "overlay2",
        },
        "RootFS": {
            "Type": "layers",
            "Layers": config.pointer("/rootfs/diff_ids").cloned().unwrap_or_else(|| json!([])),
        },
    });
    // Docker leaves these out where they are not set.
    for (key, name) in [("Variant", "variant"), ("OsVersion", "os.version")] {
        if let Some(set) = config.get(name).filter(|set| *set != "") {
            value[key] = set.clone();
        }
    }
    value
}

/// The unpacked layers, as overlayfs lists them.
pub fn layers(image: &Image) -> String {
    let paths: Vec<String> = image
        .layers
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    paths.join(":")
}

/// Docker has all of these keys, null where the image says nothing, and whatever else the image says.
fn run_config(config: &Value) -> Value {
    let mut shape = json!({
        "Hostname": "",
        "Domainname": "",
        "User": "",
        "AttachStdin": false,
        "AttachStdout": false,
        "AttachStderr": false,
        "Tty": false,
        "OpenStdin": false,
        "StdinOnce": false,
        "Env": null,
        "Cmd": null,
        "Image": "",
        "Volumes": null,
        "WorkingDir": "",
        "Entrypoint": null,
        "OnBuild": null,
        "Labels": null,
    });
    let said = config.as_object().into_iter().flatten();
    for (name, value) in said.filter(|(_, value)| !value.is_null()) {
        shape[name] = value.clone();
    }
    // Sets: Docker has a map with empty values.
    for name in ["ExposedPorts", "Volumes"] {
        if let Some(list) = shape.get(name).and_then(Value::as_array).cloned() {
            let keys = list.iter().filter_map(Value::as_str);
            shape[name] = keys
                .map(|key| (key.to_owned(), json!({})))
                .collect::<Map<_, _>>()
                .into();
        }
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{listing, sample};

    fn summary(repository: &str, size: u64) -> ImageSummary {
        ImageSummary {
            id: format!("sha256:{}", sample::id('a')),
            repository: repository.into(),
            tag: "latest".into(),
            created: "2026-11-23T08:59:00Z".into(),
            size,
            digests: Vec::new(),
        }
    }

    #[test]
    fn the_table_is_the_one_docker_prints() {
        let rows = [row(
            &summary("bb", 1_985_467),
            None,
            sample::NOW,
            Length::Cut,
        )];
        assert_eq!(
            listing::render(&COLUMNS, "", &rows).unwrap(),
            "REPOSITORY   TAG       IMAGE ID       CREATED              SIZE\n\
             bb           latest    aaaaaaaaaaaa   About a minute ago   1.99MB"
        );
        assert_eq!(
            listing::render(&COLUMNS, "", &[]).unwrap(),
            "REPOSITORY   TAG       IMAGE ID   CREATED   SIZE"
        );
    }

    #[test]
    fn sets_become_maps_and_missing_keys_are_null() {
        let shape =
            run_config(&json!({"ExposedPorts": ["80/tcp"], "Cmd": ["sh"], "Volumes": ["/data"]}));
        assert_eq!(shape["ExposedPorts"], json!({"80/tcp": {}}));
        assert_eq!(shape["Volumes"], json!({"/data": {}}));
        assert_eq!(shape["Cmd"], json!(["sh"]));
        assert!(shape["Entrypoint"].is_null());
        assert!(shape.get("StopSignal").is_none());
        let shape = run_config(&json!({"OnBuild": ["RUN x"], "Shell": ["sh", "-c"], "Env": null}));
        assert_eq!(shape["OnBuild"], json!(["RUN x"]));
        assert_eq!(shape["Shell"], json!(["sh", "-c"]));
        assert_eq!(shape["Env"], Value::Null);
        let shape = run_config(&json!({"ExposedPorts": {"80/tcp": {}}}));
        assert_eq!(shape["ExposedPorts"], json!({"80/tcp": {}}));
    }
}
