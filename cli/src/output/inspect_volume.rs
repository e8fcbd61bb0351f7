//! Volumes in the shape of `docker volume inspect` and as rows of `volume ls`. Pure.

use runtime::volume::Volume;
use serde_json::{Map, Value, json};

use super::inspect_network::pairs;
use super::listing::Columns;
use super::words;

pub const COLUMNS: Columns = Columns {
    table: "{{.Driver}}\t{{.Name}}",
    headings: &[
        ("Availability", "AVAILABILITY"),
        ("Driver", "DRIVER"),
        ("Group", "GROUP"),
        ("Labels", "LABELS"),
        ("Links", "LINKS"),
        ("Mountpoint", "MOUNTPOINT"),
        ("Name", "VOLUME NAME"),
        ("Scope", "SCOPE"),
        ("Size", "SIZE"),
        ("Status", "STATUS"),
        ("Label", "LABEL"),
    ],
};

/// What Docker shows where only `system df` would know.
const UNKNOWN: &str = "N/A";

pub fn volume(volume: &Volume) -> Value {
    let map = |of: &[(String, String)]| match of.is_empty() {
        true => Value::Null,
        false => pairs(of).into(),
    };
    let created = volume.created.replace_nanosecond(0);
    let created = created.unwrap_or(volume.created);
    json!({
        "CreatedAt": words::rfc3339(created),
        "Driver": "local",
        "Labels": map(&volume.labels),
        "Mountpoint": volume.path,
        "Name": volume.name,
        "Options": map(&volume.options),
        "Scope": "local",
    })
}

pub fn row(volume: &Volume) -> Map<String, Value> {
    let mut labels: Vec<String> = volume
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    labels.sort_unstable();
    let value = json!({
        "Availability": UNKNOWN,
        "Driver": "local",
        "Group": UNKNOWN,
        "Labels": labels.join(","),
        "Links": UNKNOWN,
        "Mountpoint": volume.path,
        "Name": volume.name,
        "Scope": "local",
        "Size": UNKNOWN,
        "Status": UNKNOWN,
        "Label": pairs(&volume.labels),
    });
    match value {
        Value::Object(row) => row,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::listing::render;
    use crate::output::sample;

    #[test]
    fn a_volume_has_dockers_shape() {
        let expected = json!({
            "CreatedAt": "2026-11-23T08:50:00Z", "Driver": "local", "Labels": {"tier": "front"},
            "Mountpoint": "/root/volumes/data/_data", "Name": "data", "Options": null, "Scope": "local",
        });
        assert_eq!(volume(&sample::volume()), expected);
    }

    #[test]
    fn a_listing_has_dockers_columns() {
        let rows = [row(&sample::volume())];
        let text = |format| render(&COLUMNS, format, &rows).unwrap();
        assert_eq!(text(""), "DRIVER    VOLUME NAME\nlocal     data");
        assert_eq!(
            text("{{.Name}} {{.Mountpoint}} {{.Labels}} {{.Links}} {{.Label \"tier\"}}"),
            "data /root/volumes/data/_data tier=front N/A front"
        );
    }
}
