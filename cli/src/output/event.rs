//! Events in Docker's three shapes: a line, JSON, and fields for templates. Pure.

use runtime::events::Event;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::macros::format_description;

const NANOS: i64 = 1_000_000_000;

/// `2026-11-23T08:49:15.250000000Z container create ID (image=bb, name=c1)`.
pub fn line(event: &Event) -> String {
    let format =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:9]Z");
    let time = OffsetDateTime::from_unix_timestamp_nanos(event.time.into())
        .unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let time = time.format(&format).unwrap_or_default();
    let pairs: Vec<String> = event
        .attributes
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let pairs = match pairs.is_empty() {
        true => String::new(),
        false => format!(" ({})", pairs.join(", ")),
    };
    let (subject, action, actor) = (&event.subject, &event.action, &event.actor);
    // A label may hold anything; a line is a line.
    format!("{time} {subject} {action} {actor}{pairs}").replace(['\n', '\r'], " ")
}

/// One line of `--format json`.
pub fn json(event: &Event) -> Value {
    let mut value = Map::new();
    // Docker's old fields, which containers and images still have.
    if let Some(from) = from(event) {
        value.insert("status".into(), event.action.as_str().into());
        value.insert("id".into(), event.actor.as_str().into());
        if !from.is_empty() {
            value.insert("from".into(), from.into());
        }
    }
    value.insert("Type".into(), event.subject.as_str().into());
    value.insert("Action".into(), event.action.as_str().into());
    value.insert(
        "Actor".into(),
        json!({"ID": event.actor, "Attributes": attributes(event)}),
    );
    value.insert("scope".into(), "local".into());
    value.insert("time".into(), event.time.div_euclid(NANOS).into());
    value.insert("timeNano".into(), event.time.into());
    value.into()
}

/// What a template sees.
pub fn fields(event: &Event) -> Value {
    let from = from(event);
    let old = |text: &str| from.map(|_| text).unwrap_or_default().to_owned();
    json!({
        "Status": old(&event.action),
        "ID": old(&event.actor),
        "From": from.unwrap_or_default(),
        "Type": event.subject,
        "Action": event.action,
        "Actor": {"ID": event.actor, "Attributes": attributes(event)},
        "Scope": "local",
        "Time": event.time.div_euclid(NANOS),
        "TimeNano": event.time,
    })
}

fn attributes(event: &Event) -> Value {
    let pairs = event.attributes.iter();
    let map: Map<String, Value> = pairs
        .map(|(name, value)| (name.clone(), value.as_str().into()))
        .collect();
    map.into()
}

/// The image that a container is of; `None` for what is neither container nor image.
fn from(event: &Event) -> Option<&str> {
    let image = event.attributes.iter().find(|(name, _)| name == "image");
    match event.subject.as_str() {
        "container" => Some(image.map_or("", |(_, value)| value)),
        "image" => Some(""),
        _ => None,
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn sample() -> Event {
        let attributes = [("exitCode", "3"), ("image", "bb"), ("name", "c1")];
        Event {
            seq: 1,
            time: 1_136_073_600_000_000_001,
            subject: "container".into(),
            action: "die".into(),
            actor: "ccc".into(),
            attributes: attributes.map(|(k, v)| (k.into(), v.into())).into(),
        }
    }

    #[test]
    fn the_line_and_the_json_are_dockers() {
        assert_eq!(
            line(&sample()),
            "2006-01-01T00:00:00.000000001Z container die ccc (exitCode=3, image=bb, name=c1)"
        );
        assert_eq!(
            json(&sample()).to_string(),
            r#"{"status":"die","id":"ccc","from":"bb","Type":"container","Action":"die","Actor":{"ID":"ccc","Attributes":{"exitCode":"3","image":"bb","name":"c1"}},"scope":"local","time":1136073600,"timeNano":1136073600000000001}"#
        );
        let network = Event {
            subject: "network".into(),
            attributes: Vec::new(),
            ..sample()
        };
        assert!(line(&network).ends_with("network die ccc"));
        assert_eq!(json(&network).as_object().unwrap().len(), 6);
    }
}
