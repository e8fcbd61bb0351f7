//! Images in the shape of `docker image inspect` and as rows of `images`. Pure.

use std::time::Duration;

use image::{Healthcheck, Image, ImageSummary};
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

pub fn row(image: &ImageSummary, now: OffsetDateTime, length: Length) -> Map<String, Value> {
    let created = words::parse_rfc3339(&image.created);
    let id = match length {
        Length::Cut => short_id(&image.id),
        Length::Full => &image.id,
    };
    let value = json!({
        "Repository": image.repository,
        "Tag": image.tag,
        "Digest": "<none>",
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

/// `size` is that of all layers, where it is known.
pub fn image(image: &Image, size: Option<u64>) -> anyhow::Result<Value> {
    // The config's own JSON has the keys of the image-spec, which are Docker's for the parts that both have.
    let config = serde_json::to_value(&image.config)?;
    let field = |name: &str| config.get(name).cloned();
    let text = |name: &str| field(name).unwrap_or_else(|| "".into());
    let history = config.get("history").and_then(Value::as_array);
    let comment = history
        .and_then(|steps| steps.last()?.get("comment").cloned())
        .unwrap_or_else(|| "".into());
    let mut run_config = run_config(config.get("config").unwrap_or(&Value::Null));
    if let Some(check) = &image.healthcheck {
        run_config["Healthcheck"] = healthcheck(check);
    }
    Ok(json!({
        "Id": image.id,
        "RepoTags": image.names,
        "RepoDigests": [],
        "Parent": "",
        "Container": "",
        "DockerVersion": "",
        "Comment": comment,
        "Created": field("created"),
        "Author": text("author"),
        "Config": run_config,
        "Architecture": text("architecture"),
        "Os": text("os"),
        "Size": size,
        "VirtualSize": size,
        "GraphDriver": {
            "Data": {"LowerDir": layers(image)},
            "Name": "overlay2",
        },
        "RootFS": {
            "Type": "layers",
            "Layers": config.pointer("/rootfs/diff_ids").cloned().unwrap_or_else(|| json!([])),
        },
    }))
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

/// Times are nanoseconds; what is left to the engine is left out.
fn healthcheck(check: &Healthcheck) -> Value {
    let mut value = json!({"Test": check.test});
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    for (name, number) in [
        ("Interval", nanos(check.interval)),
        ("Timeout", nanos(check.timeout)),
        ("StartPeriod", nanos(check.start_period)),
        ("StartInterval", nanos(check.start_interval)),
        ("Retries", check.retries.into()),
    ] {
        if number != 0 {
            value[name] = number.into();
        }
    }
    value
}

/// Docker has all of these keys, null where the image says nothing.
fn run_config(config: &Value) -> Value {
    let or = |name: &str, default: Value| config.get(name).cloned().unwrap_or(default);
    let mut shape = json!({
        "Hostname": "",
        "Domainname": "",
        "User": or("User", "".into()),
        "AttachStdin": false,
        "AttachStdout": false,
        "AttachStderr": false,
        "Tty": false,
        "OpenStdin": false,
        "StdinOnce": false,
        "Env": or("Env", Value::Null),
        "Cmd": or("Cmd", Value::Null),
        "Image": "",
        "Volumes": or("Volumes", Value::Null),
        "WorkingDir": or("WorkingDir", "".into()),
        "Entrypoint": or("Entrypoint", Value::Null),
        "OnBuild": null,
        "Labels": or("Labels", Value::Null),
    });
    // Docker leaves these out where they are not set. The volumes and ports are sets: a map with empty values.
    for name in ["ExposedPorts", "StopSignal"] {
        if let Some(value) = config.get(name).filter(|value| !value.is_null()) {
            shape[name] = value.clone();
        }
    }
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
        }
    }

    #[test]
    fn the_table_is_the_one_docker_prints() {
        let rows = [row(&summary("bb", 1_985_467), sample::NOW, Length::Cut)];
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
        let shape = run_config(&json!({"ExposedPorts": {"80/tcp": {}}}));
        assert_eq!(shape["ExposedPorts"], json!({"80/tcp": {}}));
    }
}
