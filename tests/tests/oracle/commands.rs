//! What the commands print of the network: `ps`, `port`, `inspect` field by field, and `--format` as users write it.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::scenario::NETWORKS;
use crate::world::{World, told};

/// Answers by key.
pub type Answers = BTreeMap<String, String>;

/// `_` is a space inside of an argument.
const LINES: &[&str] = &[
    "port web",
    "port web 80",
    "port web 80/tcp",
    "port web 80/udp",
    "port six",
    "port plain",
    "port plain2",
    "port sib",
    "port idle",
    "port joined",
    "network ls --filter driver=bridge --format {{.Name}}",
    "network ls --filter label=team=blue --format {{.Name}}|{{.Labels}}",
    "network ls --filter type=custom --format {{.Name}}|{{.Internal}}|{{.IPv6}}|{{.Scope}}",
    "network ls --filter name=clos -q --no-trunc",
    "network ls --filter nonsense=x",
    "network inspect --format {{.Name}}|{{.Driver}}|{{.Internal}}|{{.EnableIPv6}} front closed dual",
    "network inspect --format {{range.IPAM.Config}}{{.Subnet}},{{.Gateway}};{{end}} back dual",
    "network inspect --format {{json_.Containers}} closed",
    "network inspect --format {{index_.Options_\"com.docker.network.bridge.name\"}} named",
    "inspect --format {{range.NetworkSettings.Networks}}{{.IPAddress}},{{end}} multi",
    "inspect --format {{.NetworkSettings.Networks.front.IPAddress}} web",
    "inspect --format {{range_$p,$c:=.NetworkSettings.Ports}}{{$p}};{{end}} web",
    "inspect --format {{(index_(index_.NetworkSettings.Ports_\"83/udp\")_0).HostPort}} web",
    "inspect --format {{range_$name,$place:=.NetworkSettings.Networks}}{{$name}},{{end}} multi",
    "inspect --format {{.HostConfig.NetworkMode}} web plain joined hosted alone",
];

/// Subtrees of `inspect` of which every key is a question of its own.
const CONTAINER_KEYS: &[(&str, &[&str])] = &[
    (
        "HostConfig",
        &[
            "NetworkMode",
            "PortBindings",
            "Dns",
            "DnsSearch",
            "DnsOptions",
            "ExtraHosts",
            "PublishAllPorts",
            "Links",
        ],
    ),
    (
        "Config",
        &["ExposedPorts", "Hostname", "Domainname", "MacAddress"],
    ),
];

/// One engine's words on all that is there now.
#[track_caller]
pub fn look(world: &World, phase: &str) -> Answers {
    let mut answers = Answers::new();
    for line in LINES {
        // A template is one argument, with spaces in it.
        let words = line.split(' ').map(|word| word.replace('_', " "));
        let answer = told(&world.host.coracle(words));
        answers.insert(format!("{phase}: {line}"), answer);
    }
    for (title, column) in [("ports", "{{.Ports}}"), ("networks", "{{.Networks}}")] {
        let line = format!("ps -a --format {{{{.Names}}}}|{column}");
        for row in world.request(&line).lines() {
            let (name, value) = row.split_once('|').unwrap_or((row, ""));
            answers.insert(format!("{phase}: ps {title} of {name}"), value.to_owned());
        }
    }
    for container in world.inspect_all() {
        fields(&mut answers, phase, &container);
    }
    for network in NETWORKS.iter().chain(&["bridge", "host", "none"]) {
        let output = world.host.try_run(&format!("network inspect {network}"));
        let value: Value = serde_json::from_str(&output.stdout).unwrap_or_default();
        for (key, value) in value[0].as_object().into_iter().flatten() {
            let key = format!("{phase}: network inspect {network} {key}");
            if !key.ends_with(" Created") {
                answers.insert(key, sorted(value).to_string());
            }
        }
    }
    for (key, answer) in &mut answers {
        *answer = in_order(key, &world.comparable(answer));
    }
    answers
}

fn fields(answers: &mut Answers, phase: &str, container: &Value) {
    let name = container["Name"].as_str().unwrap_or_default();
    let mut put = |path: String, value: &Value| {
        answers.insert(
            format!("{phase}: inspect {name} {path}"),
            sorted(value).to_string(),
        );
    };
    for (part, keys) in CONTAINER_KEYS {
        for key in *keys {
            put(format!("{part}.{key}"), &container[*part][*key]);
        }
    }
    let settings = container["NetworkSettings"].as_object();
    for (key, value) in settings.into_iter().flatten() {
        // Paths inside of the engine's own folders.
        if !["Networks", "SandboxKey", "SandboxID"].contains(&key.as_str()) {
            put(format!("NetworkSettings.{key}"), value);
        }
    }
    let networks = container["NetworkSettings"]["Networks"].as_object();
    for (network, place) in networks.into_iter().flatten() {
        for (key, value) in place.as_object().into_iter().flatten() {
            put(format!("Networks.{network}.{key}"), value);
        }
    }
}

/// Without the order that is an accident of a map's: of lines, of words in a row, of keys.
fn in_order(key: &str, answer: &str) -> String {
    if let Ok(value) = serde_json::from_str::<Value>(answer) {
        return sorted(&value).to_string();
    }
    let (separator, rows) = match () {
        () if key.contains(": ps ") => (if key.contains("ports") { ", " } else { "," }, answer),
        () if key.contains(": port ") => ("\n", answer),
        () => return answer.to_owned(),
    };
    let mut rows: Vec<_> = rows.split(separator).collect();
    rows.sort_unstable();
    rows.join(separator)
}

/// With the keys of all objects in order: theirs is an accident.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(object) => {
            let ordered: BTreeMap<_, _> = object
                .iter()
                .map(|(key, value)| (key, sorted(value)))
                .collect();
            Value::Object(
                ordered
                    .into_iter()
                    .map(|(key, value)| (key.clone(), value))
                    .collect(),
            )
        }
        Value::Array(items) => {
            let mut items: Vec<_> = items.iter().map(sorted).collect();
            items.sort_by_key(Value::to_string);
            Value::Array(items)
        }
        other => other.clone(),
    }
}
