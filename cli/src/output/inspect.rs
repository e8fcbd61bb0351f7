//! Containers in the shape of `docker inspect`, with its key names. Pure.

use netmgr::{Endpoint, Network, PortRequest};
use runtime::engine::ContainerPaths;
use runtime::{Container, MountKind, NetworkMode, State};
use serde_json::{Map, Value, json};

use super::inspect_network::{mac, pairs};
use super::{ports, short_id, words};
use crate::args::values::FOR_EVER;

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
        "State": state(&container.state),
        "Image": container.image_id,
        "ResolvConfPath": paths.resolv_conf,
        "HostnamePath": paths.hostname,
        "HostsPath": paths.hosts,
        "LogPath": paths.log,
        "Name": format!("/{}", container.name),
        "RestartCount": 0,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": null,
        "HostConfig": host_config(container),
        "Mounts": mounts(container),
        "Config": config(container),
        "NetworkSettings": network_settings(container),
    })
}

fn state(state: &State) -> Value {
    let (running, pid, code, oom, error) = match state {
        State::Created => (false, 0, 0, false, ""),
        State::Running { pid, .. } => (true, *pid, 0, false, ""),
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
        State::Exited {
            started, finished, ..
        } => (*started, Some(*finished)),
    };
    let when = |time: Option<time::OffsetDateTime>| {
        time.map_or_else(|| words::NEVER.to_owned(), words::rfc3339)
    };
    json!({
        "Status": state.as_str(),
        "Running": running,
        "Paused": false,
        "Restarting": false,
        "OOMKilled": oom,
        "Dead": false,
        "Pid": pid,
        "ExitCode": code,
        "Error": error,
        "StartedAt": when(started),
        "FinishedAt": when(finished),
    })
}

fn host_config(container: &Container) -> Value {
    let request = &container.request;
    let binds: Vec<String> = request.mounts.iter().filter_map(bind).collect();
    let hosts: Vec<String> = request
        .extra_hosts
        .iter()
        .map(|(name, address)| format!("{name}:{address}"))
        .collect();
    json!({
        "Binds": null_if_empty(binds),
        "ContainerIDFile": "",
        "LogConfig": {"Type": "json-file", "Config": {}},
        "NetworkMode": network_mode(&request.network),
        "PortBindings": port_bindings(&request.ports),
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "AutoRemove": request.auto_remove,
        "VolumeDriver": "",
        "VolumesFrom": null,
        "CapAdd": null,
        "CapDrop": null,
        "Dns": request.dns,
        "DnsOptions": [],
        "DnsSearch": request.dns_search,
        "ExtraHosts": null_if_empty(hosts),
        "GroupAdd": null,
        "IpcMode": "private",
        "Links": null,
        "OomScoreAdj": 0,
        "PidMode": "",
        "Privileged": request.privileged,
        "PublishAllPorts": false,
        "ReadonlyRootfs": false,
        "SecurityOpt": null,
        "UTSMode": "",
        "UsernsMode": "",
        "Runtime": "libcontainer",
    })
}

/// `-v` as it was given; anonymous volumes are not binds.
fn bind(mount: &runtime::Mount) -> Option<String> {
    let source = match &mount.kind {
        MountKind::Bind(path) => path.display().to_string(),
        MountKind::Volume(name) => name.clone(),
        MountKind::Anonymous => return None,
    };
    let mode = if mount.read_only { ":ro" } else { "" };
    Some(format!("{source}:{}{mode}", mount.target.display()))
}

fn network_mode(mode: &NetworkMode) -> &str {
    match mode {
        NetworkMode::Bridge => "bridge",
        NetworkMode::Host => "host",
        NetworkMode::None => "none",
        NetworkMode::Named(name) => name,
    }
}

/// The networks a container belongs to, whether or not it runs.
pub fn network_names(container: &Container) -> Vec<String> {
    match container.attachments.is_empty() {
        true => vec![network_mode(&container.request.network).to_owned()],
        false => container
            .attachments
            .iter()
            .map(|(network, _)| network.name.clone())
            .collect(),
    }
}

fn port_bindings(requests: &[PortRequest]) -> Value {
    let mut bindings: Map<String, Value> = Map::new();
    for request in requests {
        for offset in 0..request.count {
            let port = request.container_port.saturating_add(offset);
            let host = request.host_port.map(|first| first.saturating_add(offset));
            let binding = json!({
                "HostIp": request.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
                "HostPort": host.map(|port| port.to_string()).unwrap_or_default(),
            });
            push(
                &mut bindings,
                format!("{port}/{}", request.protocol.as_str()),
                binding,
            );
        }
    }
    bindings.sort_keys();
    bindings.into()
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
    let mount = |mount: &runtime::record::ResolvedMount| {
        let mode = if mount.read_only { "ro" } else { "" };
        match &mount.volume {
            Some(name) => json!({
                "Type": "volume",
                "Name": name,
                "Source": mount.source,
                "Destination": mount.target,
                "Driver": "local",
                "Mode": mode,
                "RW": !mount.read_only,
                "Propagation": "",
            }),
            None => json!({
                "Type": "bind",
                "Source": mount.source,
                "Destination": mount.target,
                "Mode": mode,
                "RW": !mount.read_only,
                "Propagation": "rprivate",
            }),
        }
    };
    container.resolved.mounts.iter().map(mount).collect()
}

fn config(container: &Container) -> Value {
    let (request, resolved) = (&container.request, &container.resolved);
    let attached = request.open_stdin;
    let exposed: Map<String, Value> = resolved
        .exposed_ports
        .iter()
        .map(|port| (port.clone(), json!({})))
        .collect();
    let mut config = json!({
        "Hostname": resolved.hostname,
        "Domainname": "",
        "User": resolved.user,
        "AttachStdin": attached,
        "AttachStdout": true,
        "AttachStderr": true,
        "ExposedPorts": exposed,
        "Tty": request.tty,
        "OpenStdin": request.open_stdin,
        "StdinOnce": false,
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
    if let Some(seconds) = request.stop_timeout {
        config["StopTimeout"] = match seconds {
            FOR_EVER => (-1).into(),
            seconds => seconds.into(),
        };
    }
    config
}

/// Where the image or `-v /path` asks for a volume without a name.
fn volumes(container: &Container) -> Value {
    let is_named = |target: &str| {
        let named = container.request.mounts.iter();
        named
            .filter(|mount| mount.kind != MountKind::Anonymous)
            .any(|mount| mount.target.as_os_str() == target)
    };
    let targets = container.resolved.mounts.iter().map(|mount| &mount.target);
    let map: Map<String, Value> = targets
        .filter(|target| !is_named(target))
        .map(|target| (target.clone(), json!({})))
        .collect();
    match map.is_empty() {
        true => Value::Null,
        false => map.into(),
    }
}

fn network_settings(container: &Container) -> Value {
    let endpoint = |network: &Network, endpoint: &Endpoint| {
        json!({
            "IPAMConfig": null,
            "Links": null,
            // On a user network a container goes by the beginning of its ID, too.
            "Aliases": match network.name.as_str() {
                Network::DEFAULT => Value::Null,
                _ => json!([short_id(&container.id)]),
            },
            "NetworkID": network.id,
            "EndpointID": endpoint.id,
            "Gateway": network.gateway.to_string(),
            "IPAddress": endpoint.address.to_string(),
            "IPPrefixLen": network.subnet.prefix_len(),
            "IPv6Gateway": "",
            "GlobalIPv6Address": "",
            "GlobalIPv6PrefixLen": 0,
            "MacAddress": mac(&endpoint.mac),
            "DriverOpts": null,
        })
    };
    let networks: Map<String, Value> = container
        .attachments
        .iter()
        .map(|(network, attached)| (network.name.clone(), endpoint(network, attached)))
        .collect();
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
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "IPAddress": top("IPAddress", "".into()),
        "IPPrefixLen": top("IPPrefixLen", 0.into()),
        "IPv6Gateway": "",
        "MacAddress": top("MacAddress", "".into()),
        "Networks": networks,
    })
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

fn null_if_empty(list: Vec<String>) -> Value {
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
        let settings = &inspect(&container)["NetworkSettings"];
        assert_eq!(settings["IPAddress"], "");
        assert_eq!(settings["Networks"]["n1"]["IPAddress"], "172.18.0.2");
        assert_eq!(
            settings["Networks"]["n1"]["Aliases"],
            json!(["cccccccccccc"])
        );
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
