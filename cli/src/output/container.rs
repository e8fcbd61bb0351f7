//! Containers as rows of `ps`. Pure.

use runtime::record::HealthStatus;
use runtime::{Container, State};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use super::inspect_network::pairs;
use super::listing::Columns;
use super::{ports, short_id, words};

pub const COLUMNS: Columns = Columns {
    table: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}",
    headings: &[
        ("ID", "CONTAINER ID"),
        ("Image", "IMAGE"),
        ("Command", "COMMAND"),
        ("CreatedAt", "CREATED AT"),
        ("RunningFor", "CREATED"),
        ("Status", "STATUS"),
        ("State", "STATE"),
        ("Ports", "PORTS"),
        ("Names", "NAMES"),
        ("Labels", "LABELS"),
        ("Label", "LABEL"),
        ("Mounts", "MOUNTS"),
        ("LocalVolumes", "LOCAL VOLUMES"),
        ("Networks", "NETWORKS"),
        ("Size", "SIZE"),
        ("Platform", "PLATFORM"),
    ],
};

/// The table with `--size`.
pub const SIZED: &str = "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}\t{{.Size}}";

/// Whether IDs, commands and mounts are cut to fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    Cut,
    Full,
}

/// One row, as of `now`. `image` is what the image goes by now.
pub fn row(
    container: &Container,
    image: &str,
    now: OffsetDateTime,
    length: Length,
) -> Map<String, Value> {
    let cut = length == Length::Cut;
    let id = if cut {
        short_id(&container.id)
    } else {
        &container.id
    };
    let command = command(container);
    let command = if cut {
        words::ellipsis(&command, 20)
    } else {
        command
    };
    let mounts: Vec<String> = container
        .resolved
        .mounts
        .iter()
        .filter(|mount| mount.tmpfs.is_none())
        .map(|mount| mount.volume.as_ref().unwrap_or(&mount.source))
        .map(|name| {
            if cut {
                words::ellipsis(name, 15)
            } else {
                name.clone()
            }
        })
        .collect();
    let volumes = container
        .resolved
        .mounts
        .iter()
        .filter(|m| m.volume.is_some());
    let value = json!({
        "ID": id,
        "Image": self::image(image, length),
        "Command": words::quote(&command),
        "CreatedAt": words::timestamp(container.created),
        "RunningFor": words::ago(container.created, now),
        "Status": status(container, now),
        "State": container.status(),
        "Ports": ports::column(container),
        "Names": container.name,
        "Labels": labels(&container.resolved.labels),
        "Label": pairs(&container.resolved.labels),
        "Mounts": mounts.join(","),
        "LocalVolumes": volumes.count().to_string(),
        "Networks": super::inspect::network_names(container).join(","),
        "Size": "0B",
        "Platform": null,
    });
    match value {
        Value::Object(row) => row,
        _ => Map::new(),
    }
}

/// An image that goes by its ID is cut like one.
fn image(name: &str, length: Length) -> &str {
    match name.strip_prefix("sha256:") {
        Some(_) if length == Length::Cut => short_id(name),
        _ => name,
    }
}

/// `Up 9 minutes`, `Up 9 minutes (Paused)`, `Up 9 minutes (healthy)`, `Restarting (1) 2 seconds ago`,
/// `Exited (137) 2 seconds ago`, `Created`.
pub fn status(container: &Container, now: OffsetDateTime) -> String {
    match &container.state {
        State::Created => "Created".to_owned(),
        State::Running { started, .. } => {
            let up = words::duration((now - *started).whole_seconds());
            let more = match &container.health {
                _ if container.paused => " (Paused)",
                None => "",
                Some(health) => match health.status {
                    HealthStatus::Starting => " (health: starting)",
                    HealthStatus::Healthy => " (healthy)",
                    HealthStatus::Unhealthy => " (unhealthy)",
                },
            };
            format!("Up {up}{more}")
        }
        State::Restarting { code, finished, .. } => {
            format!("Restarting ({code}) {}", words::ago(*finished, now))
        }
        State::Exited { code, finished, .. } => {
            format!("Exited ({code}) {}", words::ago(*finished, now))
        }
    }
}

/// Words with a space in them get single quotes, the program's name does not.
fn command(container: &Container) -> String {
    let resolved = &container.resolved;
    let all = resolved.entrypoint.iter().chain(&resolved.command);
    let words = all
        .enumerate()
        .map(|(at, word)| match word.contains(' ') && at > 0 {
            true => format!("'{word}'"),
            false => word.clone(),
        });
    words.collect::<Vec<_>>().join(" ")
}

/// `a=b,c=d`
pub fn labels(labels: &[(String, String)]) -> String {
    let pairs: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    pairs.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{listing, sample};

    fn ps(format: &str, length: Length) -> String {
        let containers = [sample::created(), sample::exited(), sample::running()];
        let rows: Vec<_> = containers
            .iter()
            .map(|container| row(container, &container.request.image, sample::NOW, length))
            .collect();
        listing::render(&COLUMNS, format, &rows).unwrap()
    }

    #[test]
    fn the_table_is_the_one_docker_prints() {
        let expected = "\
CONTAINER ID   IMAGE                              COMMAND                  CREATED          STATUS                       PORTS                                     NAMES
ffffffffffff   aaaaaaaaaaaa                       \"true\"                   10 minutes ago   Created                                                                fresh
dddddddddddd   registry.test:5000/long/name:tag   \"sh -c 'sleep 1000 #…\"   10 minutes ago   Exited (137) 2 seconds ago                                             dead_end
cccccccccccc   bb                                 \"sh -c 'sleep 1000 #…\"   10 minutes ago   Up 9 minutes                 0.0.0.0:8080->80/tcp, [::]:8080->80/tcp   web1";
        assert_eq!(ps("", Length::Cut), expected);
    }

    #[test]
    fn no_trunc_cuts_nothing() {
        let text = ps("{{.ID}} {{.Image}} {{.Command}}", Length::Full);
        let lines: Vec<&str> = text.lines().collect();
        let (f, a, c) = (sample::id('f'), sample::id('a'), sample::id('c'));
        assert_eq!(lines[0], format!("{f} sha256:{a} \"true\""));
        assert_eq!(
            lines[2],
            format!("{c} bb \"sh -c 'sleep 1000 # \\\"quoted\\\"'\"")
        );
    }

    #[test]
    fn json_has_dockers_fields() {
        let text = ps("json", Length::Cut);
        let row: Value = serde_json::from_str(text.lines().nth(2).unwrap()).unwrap();
        assert_eq!(row["State"], "running");
        assert_eq!(row["CreatedAt"], "2026-11-23 08:50:00 +0000 UTC");
        assert_eq!(row["Labels"], "tier=front");
        assert_eq!(row["Mounts"], "/tmp,data");
        assert_eq!(row["LocalVolumes"], "1");
        assert_eq!(row["Networks"], "bridge");
        let keys: Vec<&String> = row.as_object().unwrap().keys().collect();
        assert!(keys.is_sorted(), "{keys:?}");
    }

    #[test]
    fn every_field_of_a_row_has_a_heading() {
        let row = row(&sample::running(), "bb", sample::NOW, Length::Cut);
        let mut fields: Vec<&str> = row.keys().map(String::as_str).collect();
        let mut headings: Vec<&str> = COLUMNS.headings.iter().map(|(field, _)| *field).collect();
        fields.sort_unstable();
        headings.sort_unstable();
        assert_eq!(fields, headings);
    }
}
