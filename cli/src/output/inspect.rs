//! Containers in the shape of `docker inspect`, with its key names. Pure.

mod host_config;

use netmgr::{Endpoint, Network};
use runtime::engine::ContainerPaths;
use runtime::record::{Health, ResolvedMount};
use runtime::request::{LogDriver, NO_NETWORK, Propagation};
use runtime::{Connection, Container, NetworkMode, State};
use serde_json::{Map, Value, json};

use super::inspect_network::{mac, pairs};
use super::{ports, short_id, words};
use crate::args::values::FOR_EVER;

/// Only json-file's is for others to read, as with Docker.
fn log_path(container: &Container, paths: &ContainerPaths) -> Value {
    match container.request.log.driver {
        LogDriver::JsonFile => json!(paths.log),
        LogDriver::Local | LogDriver::None => json!(""),
    }
}

pub fn container(container: &Container, paths: &ContainerPaths) -> Value {
    let resolved = &container.resolved;
    let mut words = resolved.entrypoint.iter().chain(&resolved.command);
    let path = words.next().cloned().unwrap_or_default();
    let arguments: Vec<&String> = words.collect();
    json!({
        "Id": container.id,
        "Created": words::rfc3339(container.created),
        "Path": path,
        "Args": arguments,
        "State": state(container),
        "Image": container.image_id,
        "ResolvConfPath": paths.resolv_conf,
        "HostnamePath": paths.hostname,
        "HostsPath": paths.hosts,
        "LogPath": log_path(container, paths),
        "Name": format!("/{}", container.name),
        "RestartCount": container.restarts,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": container.request.security.apparmor.as_deref().unwrap_or_default(),
        "ExecIDs": null,
        "GraphDriver": graph_driver(paths),
        "HostConfig": host_config::host_config(container),
        "Mounts": mounts(container),
        "Config": config(container),
        "NetworkSettings": network_settings(container),
    })
}

/// The layer above them all, whose lower ones are the image's. It is merged in the container's own mount namespace alone:
/// no path of the host leads there, but for the first process's root while it runs.
fn graph_driver(paths: &ContainerPaths) -> Value {
    json!({
        "Name": "overlay2",
        "Data": {"LowerDir": "", "UpperDir": paths.upper, "WorkDir": paths.work},
    })
}

/// A container as templates see it: Docker leaves these keys out where nothing was asked for, and its templates find them empty
/// none the less: `{{if .State.Health}}`.
pub fn with_absent(mut object: Value) -> Value {
    if object.pointer("/State/Status").is_none() {
        return object;
    }
    for (parent, name, empty) in [
        ("State", "Health", Value::Null),
        ("HostConfig", "Init", Value::Null),
        ("HostConfig", "Tmpfs", json!({})),
        ("HostConfig", "Sysctls", json!({})),
        ("HostConfig", "Annotations", json!({})),
        ("Config", "Healthcheck", Value::Null),
        ("Config", "StopTimeout", Value::Null),
    ] {
        if object[parent].get(name).is_none() {
            object[parent][name] = empty;
        }
    }
    for name in ["SizeRw", "SizeRootFs"] {
        if object.get(name).is_none() {
            object[name] = Value::Null;
        }
    }
    object
}

fn state(container: &Container) -> Value {
    let state = &container.state;
    let (running, pid, code, oom, error) = match state {
        State::Created => (false, 0, 0, false, ""),
        State::Running { pid, .. } => (true, *pid, 0, false, ""),
        State::Restarting { code, .. } => (true, 0, *code, false, ""),
        State::Exited {
            code,
            oom_killed,
            error,
            ..
        } => (false, 0, *code, *oom_killed, error.as_str()),
    };
    let (started, finished) = match state {
        State::Created => (None, None),
        State::Running { started, .. } => (Some(*started), None),
        State::Restarting {
            started, finished, ..
        }
        | State::Exited {
            started, finished, ..
        } => (*started, Some(*finished)),
    };
    let when = |time: Option<time::OffsetDateTime>| {
        time.map_or_else(|| words::NEVER.to_owned(), words::rfc3339)
    };
    let mut value = json!({
        "Status": container.status(),
        "Running": running,
        "Paused": container.paused,
        "Restarting": matches!(state, State::Restarting { .. }),
        "OOMKilled": oom,
        "Dead": false,
        "Pid": pid,
        "ExitCode": code,
        "Error": error,
        "StartedAt": when(started),
        "FinishedAt": when(finished),
    });
    if let Some(health) = &container.health {
        value["Health"] = self::health(health);
    }
    value
}

fn health(health: &Health) -> Value {
    let log: Vec<Value> = health
        .log
        .iter()
        .map(|probe| {
            json!({
                "Start": words::rfc3339(probe.start),
                "End": words::rfc3339(probe.end),
                "ExitCode": probe.exit_code,
                "Output": probe.output,
            })
        })
        .collect();
    json!({
        "Status": health.status.as_str(),
        "FailingStreak": health.failing_streak,
        "Log": log,
    })
}

/// The networks a container belongs to, whether or not it runs. One that is in another container's belongs to none.
pub fn network_names(container: &Container) -> Vec<String> {
    let mode = &container.request.network;
    let connections = container.resolved.connections.iter();
    let mut names: Vec<String> = match mode {
        NetworkMode::Host => vec![mode.to_text()],
        _ => connections.map(|c| c.network.clone()).collect(),
    };
    let attached = container.attachments.iter().map(|(n, _)| &n.name);
    for name in attached {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names.sort_unstable();
    names
}

fn push(map: &mut Map<String, Value>, key: String, value: Value) {
    let entry = map.entry(key).or_insert_with(|| json!([]));
    if !entry.is_array() {
        *entry = json!([]);
    }
    if let Value::Array(list) = entry {
        list.push(value);
    }
}

fn mounts(container: &Container) -> Value {
    let mount = |mount: &ResolvedMount| {
        let mut value = json!({
            "Type": mount.kind(),
            "Source": mount.source,
            "Destination": mount.target,
            "Mode": mount_mode(mount),
            "RW": !mount.read_only,
            "Propagation": match mount.kind() {
                "bind" => mount.options.propagation.map_or("rprivate", Propagation::as_str),
                _ => "",
            },
        });
        if let Some(name) = &mount.volume {
            value["Name"] = name.as_str().into();
            value["Driver"] = "local".into();
        }
        value
    };
    // `--tmpfs` is in HostConfig alone.
    let shown = |m: &&ResolvedMount| m.tmpfs.is_none() || m.options.by_mount_flag;
    let mounts = container.resolved.mounts.iter().filter(shown);
    mounts.map(mount).collect()
}

/// As with Docker: what was written, and `z` for a volume with which nothing was.
fn mount_mode(mount: &ResolvedMount) -> &str {
    let options = &mount.options;
    let is_named = options.by_mount_flag || options.written.contains(':');
    match options.written_mode() {
        "" if mount.volume.is_some() && is_named => "z",
        mode => mode,
    }
}

fn config(container: &Container) -> Value {
    let (request, resolved) = (&container.request, &container.resolved);
    let exposed: Map<String, Value> = resolved
        .exposed_ports
        .iter()
        .map(|port| (port.clone(), json!({})))
        .collect();
    let mut config = json!({
        "Hostname": resolved.hostname,
        "Domainname": request.domainname.as_deref().unwrap_or_default(),
        "User": resolved.user,
        "AttachStdin": request.open_stdin && request.attach.stdin,
        "AttachStdout": request.attach.stdout,
        "AttachStderr": request.attach.stderr,
        "ExposedPorts": exposed,
        "Tty": request.tty,
        "OpenStdin": request.open_stdin,
        "StdinOnce": request.stdin_once,
        "Env": resolved.env,
        "Cmd": null_if_empty(resolved.command.clone()),
        "Image": request.image,
        "Volumes": volumes(container),
        "WorkingDir": resolved.workdir,
        "Entrypoint": null_if_empty(resolved.entrypoint.clone()),
        "OnBuild": null,
        "Labels": pairs(&resolved.labels),
        "StopSignal": resolved.stop_signal,
    });
    if let Some(check) = healthcheck(container) {
        config["Healthcheck"] = check;
    }
    if let Some(seconds) = request.stop_timeout {
        config["StopTimeout"] = match seconds {
            FOR_EVER => (-1).into(),
            seconds => seconds.into(),
        };
    }
    config
}

/// What was asked for, by the user or the image: what is left to the engine is left out.
fn healthcheck(container: &Container) -> Option<Value> {
    let Some(check) = &container.resolved.health else {
        let test = container.request.health.test.as_ref()?;
        return Some(json!({"Test": test}));
    };
    let mut value = json!({"Test": check.test});
    let nanos = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
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
    Some(value)
}

/// Where the image or `-v /path` asks for a volume without a name.
fn volumes(container: &Container) -> Value {
    let is_nameless = |mount: &&ResolvedMount| {
        let options = &mount.options;
        let is_named = options.by_mount_flag || options.inherited || options.written.contains(':');
        mount.volume.is_some() && !is_named
    };
    let mounts = container.resolved.mounts.iter().filter(is_nameless);
    let map: Map<String, Value> = mounts
        .map(|mount| (mount.target.clone(), json!({})))
        .collect();
    match map.is_empty() {
        true => Value::Null,
        false => map.into(),
    }
}

fn network_settings(container: &Container) -> Value {
    let places = network_names(container).into_iter().map(|name| {
        let value = place(container, &name);
        (name, value)
    });
    let networks: Map<String, Value> = places.collect();
    // The fields at the top are those of the default network alone, as in Docker.
    let default = networks.get("bridge").cloned();
    let top = |name: &str, otherwise: Value| {
        let found = default.as_ref().and_then(|value| value.get(name));
        found.cloned().unwrap_or(otherwise)
    };
    json!({
        "Bridge": "",
        "SandboxID": "",
        "HairpinMode": false,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "Ports": published_ports(container),
        "SandboxKey": "",
        "SecondaryIPAddresses": null,
        "SecondaryIPv6Addresses": null,
        "EndpointID": top("EndpointID", "".into()),
        "Gateway": top("Gateway", "".into()),
        "GlobalIPv6Address": top("GlobalIPv6Address", "".into()),
        "GlobalIPv6PrefixLen": top("GlobalIPv6PrefixLen", 0.into()),
        "IPAddress": top("IPAddress", "".into()),
        "IPPrefixLen": top("IPPrefixLen", 0.into()),
        "IPv6Gateway": top("IPv6Gateway", "".into()),
        "MacAddress": top("MacAddress", "".into()),
        "Networks": networks,
    })
}

/// A container's place in one network: what was asked for, and while it runs what it has.
fn place(container: &Container, name: &str) -> Value {
    let wishes = &container.resolved.connections;
    let wish = wishes.iter().find(|c| c.network == name);
    let attached = container.attachments.iter().find(|(n, _)| n.name == name);
    let of_network = |read: &dyn Fn(&Network) -> Value, otherwise: Value| {
        attached.map_or(otherwise, |(network, _)| read(network))
    };
    let of_endpoint = |read: &dyn Fn(&Endpoint) -> Value, otherwise: Value| {
        attached.map_or(otherwise, |(_, endpoint)| read(endpoint))
    };
    let v6 = attached.and_then(|(network, endpoint)| network.v6.zip(endpoint.address6));
    json!({
        "IPAMConfig": wish.map_or(Value::Null, ipam_config),
        "Links": null,
        "Aliases": aliases(container, name, wish),
        "NetworkID": of_network(&|n| n.id.as_str().into(), "".into()),
        "EndpointID": of_endpoint(&|e| e.id.as_str().into(), "".into()),
        "Gateway": of_network(&|n| n.gateway.to_string().into(), "".into()),
        "IPAddress": of_endpoint(&|e| e.address.to_string().into(), "".into()),
        "IPPrefixLen": of_network(&|n| n.subnet.prefix_len().into(), 0.into()),
        "IPv6Gateway": v6.map_or(String::new(), |(v6, _)| v6.gateway.to_string()),
        "GlobalIPv6Address": v6.map_or(String::new(), |(_, address)| address.to_string()),
        "GlobalIPv6PrefixLen": v6.map_or(0, |(v6, _)| v6.subnet.prefix_len()),
        "MacAddress": of_endpoint(&|e| mac(&e.mac).into(), "".into()),
        "DriverOpts": null,
    })
}

fn ipam_config(wish: &Connection) -> Value {
    let mut config = Map::new();
    if let Some(address) = wish.address {
        config.insert("IPv4Address".into(), address.to_string().into());
    }
    if let Some(address) = wish.address6 {
        config.insert("IPv6Address".into(), address.to_string().into());
    }
    match config.is_empty() {
        true => Value::Null,
        false => config.into(),
    }
}

/// On a user network a container goes by the beginning of its ID, too.
fn aliases(container: &Container, network: &str, wish: Option<&Connection>) -> Value {
    if [Network::DEFAULT, "host", NO_NETWORK].contains(&network) {
        return Value::Null;
    }
    let asked = wish.map(|c| c.aliases.clone()).unwrap_or_default();
    let id = short_id(&container.id).to_owned();
    asked.into_iter().chain([id]).collect()
}

/// Published ports with their addresses, and null for those that are only exposed; nothing while it does not run.
fn published_ports(container: &Container) -> Value {
    let mut map: Map<String, Value> = Map::new();
    if !matches!(container.state, State::Running { .. }) {
        return map.into();
    }
    let exposed = container.resolved.exposed_ports.iter();
    // A long run of published ports has one entry there, and is listed port by port below.
    let single = exposed.filter(|port| ports::parse_port(port).is_some());
    map.extend(single.map(|port| (port.clone(), Value::Null)));
    for run in ports::published(container) {
        let address = run.address.map(|ip| ip.to_string()).unwrap_or_default();
        for offset in 0..run.count {
            let key = format!(
                "{}/{}",
                run.container.saturating_add(offset),
                run.protocol.as_str()
            );
            let host = run.host.saturating_add(offset).to_string();
            push(&mut map, key, json!({"HostIp": address, "HostPort": host}));
        }
    }
    map.sort_keys();
    map.into()
}

pub(super) fn null_if_empty(list: Vec<String>) -> Value {
    match list.is_empty() {
        true => Value::Null,
        false => list.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::sample;

    fn inspect(of: &Container) -> Value {
        let file = |name: &str| std::path::Path::new("/storage").join(name);
        let paths = ContainerPaths {
            log: file("log"),
            hosts: file("hosts"),
            hostname: file("hostname"),
            resolv_conf: file("resolv.conf"),
            upper: file("diff"),
            work: file("work"),
        };
        container(of, &paths)
    }

    #[test]
    fn a_running_container_has_dockers_shape() {
        let value = inspect(&sample::running());
        assert_eq!(value["Name"], "/web1");
        assert_eq!(value["Path"], "sh");
        assert_eq!(value["LogPath"], "/storage/log");
        assert_eq!(value["HostsPath"], "/storage/hosts");
        assert_eq!(value["Args"], json!(["-c", "sleep 1000 # \"quoted\""]));
        assert_eq!(value["Image"], format!("sha256:{}", sample::id('a')));
        assert_eq!(
            value["State"],
            json!({
                "Status": "running", "Running": true, "Paused": false, "Restarting": false, "OOMKilled": false,
                "Dead": false, "Pid": 4242, "ExitCode": 0, "Error": "",
                "StartedAt": "2026-11-23T08:51:00Z", "FinishedAt": "0001-01-01T00:00:00Z",
            })
        );
        assert_eq!(value["HostConfig"]["Binds"], json!(["/tmp:/x:ro"]));
        assert_eq!(value["HostConfig"]["NetworkMode"], "bridge");
        assert_eq!(
            value["HostConfig"]["PortBindings"],
            json!({"80/tcp": [{"HostIp": "", "HostPort": "8080"}]})
        );
        assert_eq!(value["Config"]["Labels"], json!({"tier": "front"}));
        assert_eq!(value["Config"]["ExposedPorts"], json!({"80/tcp": {}}));
        assert_eq!(value["Config"]["Entrypoint"], Value::Null);
        assert_eq!(value["Mounts"][0]["Type"], "bind");
        assert_eq!(value["Mounts"][0]["RW"], false);
        assert_eq!(value["Mounts"][1]["Name"], "data");
    }

    #[test]
    fn addresses_and_ports_are_where_scripts_look_for_them() {
        let settings = &inspect(&sample::running())["NetworkSettings"];
        assert_eq!(settings["IPAddress"], "172.18.0.2");
        assert_eq!(settings["Gateway"], "172.18.0.1");
        assert_eq!(settings["MacAddress"], "02:42:ac:12:00:02");
        assert_eq!(settings["Networks"]["bridge"]["IPAddress"], "172.18.0.2");
        assert_eq!(settings["Networks"]["bridge"]["IPPrefixLen"], 16);
        assert_eq!(
            settings["Ports"],
            json!({"80/tcp": [
                {"HostIp": "0.0.0.0", "HostPort": "8080"},
                {"HostIp": "::", "HostPort": "8080"},
            ]})
        );
    }

    #[test]
    fn the_top_address_is_the_default_networks_alone() {
        let mut container = sample::running();
        container.attachments[0].0.name = "n1".into();
        container.resolved.connections = vec![Connection::to("n1")];
        let settings = &inspect(&container)["NetworkSettings"];
        assert_eq!(settings["IPAddress"], "");
        assert_eq!(settings["Networks"]["n1"]["IPAddress"], "172.18.0.2");
        assert_eq!(
            settings["Networks"]["n1"]["Aliases"],
            json!(["cccccccccccc"])
        );
    }

    #[test]
    fn every_network_shows_what_was_asked_and_what_is() {
        let mut container = sample::running();
        let v6 = netmgr::V6 {
            subnet: "fd00:6::/64".parse().unwrap(),
            gateway: "fd00:6::1".parse().unwrap(),
            ip_range: None,
        };
        let (network, endpoint) = &mut container.attachments[0];
        network.name = "web".into();
        network.v6 = Some(v6);
        endpoint.address6 = "fd00:6::55".parse().ok();
        let web = Connection {
            address6: "fd00:6::55".parse().ok(),
            aliases: vec!["db".into()],
            ..Connection::to("web")
        };
        container.resolved.connections = vec![web, Connection::to("back")];
        let networks = &inspect(&container)["NetworkSettings"]["Networks"];
        let web = &networks["web"];
        assert_eq!(web["IPAMConfig"], json!({"IPv6Address": "fd00:6::55"}));
        assert_eq!(web["Aliases"], json!(["db", "cccccccccccc"]));
        assert_eq!(web["GlobalIPv6Address"], "fd00:6::55");
        assert_eq!(web["GlobalIPv6PrefixLen"], 64);
        assert_eq!(web["IPv6Gateway"], "fd00:6::1");
        assert_eq!(networks["back"]["IPAddress"], "");
        assert_eq!(networks["back"]["IPAMConfig"], Value::Null);
    }

    #[test]
    fn an_ended_container_has_a_code_and_no_address() {
        let value = inspect(&sample::exited());
        assert_eq!(value["State"]["Status"], "exited");
        assert_eq!(value["State"]["ExitCode"], 137);
        assert_eq!(value["State"]["Running"], false);
        assert_eq!(value["State"]["FinishedAt"], "2026-11-23T08:59:58Z");
        assert_eq!(value["NetworkSettings"]["Ports"], json!({}));
        assert_eq!(value["NetworkSettings"]["IPAddress"], "");
        assert_eq!(inspect(&sample::created())["State"]["Status"], "created");
    }

    #[test]
    fn exposed_ports_are_null() {
        let mut container = sample::running();
        container.resolved.exposed_ports = vec!["80/tcp".into(), "81/tcp".into()];
        let ports = &inspect(&container)["NetworkSettings"]["Ports"];
        assert_eq!(ports["81/tcp"], Value::Null);
        assert_eq!(ports["80/tcp"].as_array().map(Vec::len), Some(2));
    }
}
