//! `HostConfig` of `docker inspect`: what was asked for.

use netmgr::PortRequest;
use runtime::request::{
    DeviceRequest, NamespaceMode, Resources, RestartPolicy, ThrottleKind, Ulimit,
};
use runtime::spec::{MASKED, READ_ONLY};
use runtime::{Container, ContainerRequest, Mount, MountKind};
use serde_json::{Map, Value, json};

use super::{null_if_empty, push};

pub(super) fn host_config(container: &Container) -> Value {
    let request = &container.request;
    let hosts: Vec<String> = request
        .extra_hosts
        .iter()
        .map(|(name, address)| format!("{name}:{address}"))
        .collect();
    // As `spec::namespaces` decides it.
    let cgroupns = match runtime::cgroup::is_v2() {
        true => "private",
        false => "host",
    };
    let mut config = json!({
        "Binds": null_if_empty(request.mounts.iter().filter_map(bind).collect()),
        "ContainerIDFile": request.cid_file.as_deref().unwrap_or(std::path::Path::new("")),
        "LogConfig": {
            "Type": request.log.driver.as_str(),
            "Config": object(&request.log.options),
        },
        "NetworkMode": request.network.to_text(),
        "PortBindings": port_bindings(&request.ports),
        "RestartPolicy": restart_policy(request.restart),
        "AutoRemove": request.auto_remove,
        "VolumeDriver": request.volume_driver.as_deref().unwrap_or_default(),
        "VolumesFrom": null_if_empty(request.volumes_from.clone()),
        "Mounts": mounts(request),
        "CapAdd": null_if_empty(capabilities(&request.security.cap_add)),
        "CapDrop": null_if_empty(capabilities(&request.security.cap_drop)),
        "CgroupnsMode": namespace(&request.namespaces.cgroup, cgroupns),
        "Dns": request.dns,
        "DnsOptions": request.dns_options,
        "DnsSearch": request.dns_search,
        "ExtraHosts": null_if_empty(hosts),
        "GroupAdd": null_if_empty(request.security.groups.clone()),
        "IpcMode": namespace(&request.namespaces.ipc, "private"),
        "Cgroup": "",
        "Links": null,
        "OomScoreAdj": request.resources.oom_score_adj.unwrap_or(0),
        "PidMode": namespace(&request.namespaces.pid, ""),
        "Privileged": request.privileged,
        "PublishAllPorts": request.publish_all,
        "ReadonlyRootfs": request.read_only,
        "SecurityOpt": null_if_empty(security_options(request)),
        "UTSMode": namespace(&request.namespaces.uts, ""),
        "UsernsMode": namespace(&request.namespaces.user, ""),
        "ShmSize": request.shm_size.unwrap_or(64 << 20),
        "Runtime": request.runtime.as_ref().map_or_else(|| "libcontainer".into(), |path| path.display().to_string()),
        "CgroupParent": request.cgroup_parent.as_deref().unwrap_or_default(),
        "ConsoleSize": request.tty_size.map_or([0, 0], |(rows, columns)| [rows, columns]),
        "Isolation": "",
    });
    if let Value::Object(resources) = resources(request) {
        for (name, value) in resources {
            config[name] = value;
        }
    }
    let tmpfs: Map<String, Value> = tmpfs(request).collect();
    if !tmpfs.is_empty() {
        config["Tmpfs"] = tmpfs.into();
    }
    let hidden = match (request.privileged, request.security.unmasked) {
        (true, _) => [Value::Null, Value::Null],
        (false, true) => [json!([]), json!([])],
        (false, false) => [json!(MASKED), json!(READ_ONLY)],
    };
    [config["MaskedPaths"], config["ReadonlyPaths"]] = hidden;
    if !request.security.sysctls.is_empty() {
        config["Sysctls"] = object(&request.security.sysctls);
    }
    if request.init {
        config["Init"] = true.into();
    }
    if !request.annotations.is_empty() {
        config["Annotations"] = object(&request.annotations);
    }
    config
}

fn resources(request: &ContainerRequest) -> Value {
    let resources = &request.resources;
    let security = &request.security;
    let rules: Vec<String> = security
        .device_rules
        .iter()
        .map(|rule| {
            let number = |n: Option<i64>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
            let (major, minor) = (number(rule.major), number(rule.minor));
            format!("{} {major}:{minor} {}", rule.kind, rule.permissions)
        })
        .collect();
    json!({
        "CpuShares": resources.cpu_shares.unwrap_or(0),
        "Memory": resources.memory.unwrap_or(0),
        "NanoCpus": resources.nano_cpus.unwrap_or(0),
        "BlkioWeight": resources.blkio_weight.unwrap_or(0),
        "BlkioDeviceReadBps": throttles(resources, ThrottleKind::ReadBytes),
        "BlkioDeviceWriteBps": throttles(resources, ThrottleKind::WriteBytes),
        "BlkioDeviceReadIOps": throttles(resources, ThrottleKind::ReadOperations),
        "BlkioDeviceWriteIOps": throttles(resources, ThrottleKind::WriteOperations),
        "BlkioWeightDevice": [],
        // Of Windows, of real-time groups and of accelerators; they have their defaults, as scripts look for the keys.
        "CpuCount": 0,
        "CpuPercent": 0,
        "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0,
        "CpuRealtimePeriod": 0,
        "CpuRealtimeRuntime": 0,
        "DeviceRequests": null,
        "KernelMemory": 0,
        "KernelMemoryTCP": 0,
        "CpuPeriod": resources.cpu_period.unwrap_or(0),
        "CpuQuota": resources.cpu_quota.unwrap_or(0),
        "CpusetCpus": resources.cpuset_cpus.as_deref().unwrap_or_default(),
        "CpusetMems": resources.cpuset_mems.as_deref().unwrap_or_default(),
        "Devices": security.devices.iter().map(device).collect::<Vec<_>>(),
        "DeviceCgroupRules": null_if_empty(rules),
        "MemoryReservation": resources.memory_reservation.unwrap_or(0),
        "MemorySwap": resources.memory_swap.unwrap_or(0),
        "MemorySwappiness": resources.memory_swappiness,
        "OomKillDisable": resources.oom_kill_disable,
        "PidsLimit": resources.pids_limit,
        "Ulimits": resources.ulimits.iter().map(ulimit).collect::<Vec<_>>(),
    })
}

fn throttles(resources: &Resources, kind: ThrottleKind) -> Vec<Value> {
    let of_kind = resources.throttles.iter().filter(|t| t.kind == kind);
    of_kind
        .map(|t| json!({"Path": t.device, "Rate": t.rate}))
        .collect()
}

/// As the kernel's names are; `ALL` has no prefix.
fn capabilities(written: &[String]) -> Vec<String> {
    let name = |word: &String| match word.to_uppercase() {
        upper if upper == "ALL" || upper.starts_with("CAP_") => upper,
        upper => format!("CAP_{upper}"),
    };
    written.iter().map(name).collect()
}

fn ulimit(limit: &Ulimit) -> Value {
    json!({"Name": limit.name, "Hard": limit.hard, "Soft": limit.soft})
}

fn device(device: &DeviceRequest) -> Value {
    json!({
        "PathOnHost": device.host,
        "PathInContainer": device.container,
        "CgroupPermissions": device.permissions,
    })
}

fn restart_policy(policy: RestartPolicy) -> Value {
    let (name, most) = match policy {
        RestartPolicy::No => ("no", 0),
        RestartPolicy::OnFailure(most) => ("on-failure", most.unwrap_or(0)),
        RestartPolicy::Always => ("always", 0),
        RestartPolicy::UnlessStopped => ("unless-stopped", 0),
    };
    json!({"Name": name, "MaximumRetryCount": most})
}

fn namespace(mode: &NamespaceMode, default: &str) -> String {
    match mode {
        NamespaceMode::Default => default.to_owned(),
        NamespaceMode::Private => "private".to_owned(),
        NamespaceMode::Host => "host".to_owned(),
        NamespaceMode::Container(name) => format!("container:{name}"),
        NamespaceMode::Shareable => "shareable".to_owned(),
        NamespaceMode::None => "none".to_owned(),
    }
}

/// As written. Docker adds that who is among the host's processes has no SELinux label.
fn security_options(request: &ContainerRequest) -> Vec<String> {
    let mut options = request.security.options.clone();
    let namespaces = &request.namespaces;
    let among_the_hosts = request.privileged
        || namespaces.pid == NamespaceMode::Host
        || namespaces.ipc == NamespaceMode::Host;
    if among_the_hosts && !options.iter().any(|option| option.starts_with("label")) {
        options.push("label=disable".to_owned());
    }
    options
}

/// `-v` as it was given; anonymous volumes are not binds, and `--mount` has its own list.
fn bind(mount: &Mount) -> Option<String> {
    if mount.options.by_mount_flag {
        return None;
    }
    let source = match &mount.kind {
        MountKind::Bind(path) => path.display().to_string(),
        MountKind::Volume(name) => name.clone(),
        MountKind::Anonymous | MountKind::Tmpfs(_) => return None,
    };
    let mode = match mount.options.written_mode() {
        "" if mount.read_only => "ro",
        mode => mode,
    };
    let colon = if mode.is_empty() { "" } else { ":" };
    Some(format!("{source}:{}{colon}{mode}", mount.target.display()))
}

/// `--mount`; null if there is none.
fn mounts(request: &ContainerRequest) -> Value {
    let asked: Vec<Value> = request
        .mounts
        .iter()
        .filter(|mount| mount.options.by_mount_flag)
        .map(|mount| {
            let mut value = json!({"Type": mount.kind.as_str(), "Target": mount.target});
            match &mount.kind {
                MountKind::Bind(path) => value["Source"] = json!(path),
                MountKind::Volume(name) => value["Source"] = json!(name),
                MountKind::Anonymous | MountKind::Tmpfs(_) => {}
            }
            if mount.read_only {
                value["ReadOnly"] = true.into();
            }
            if let Some(word) = &mount.options.consistency {
                value["Consistency"] = word.as_str().into();
            }
            if let Some((name, options)) = mount_options(mount) {
                value[name] = options.into();
            }
            value
        })
        .collect();
    match asked.is_empty() {
        true => Value::Null,
        false => asked.into(),
    }
}

/// What there is of the options that belong to one kind of mount.
fn mount_options(mount: &Mount) -> Option<(&'static str, Map<String, Value>)> {
    let options = &mount.options;
    let mut map = Map::new();
    let name = match &mount.kind {
        MountKind::Bind(_) => {
            if let Some(propagation) = options.propagation {
                map.insert("Propagation".into(), propagation.as_str().into());
            }
            if options.non_recursive {
                map.insert("NonRecursive".into(), true.into());
            }
            "BindOptions"
        }
        MountKind::Volume(_) | MountKind::Anonymous => {
            if options.no_copy {
                map.insert("NoCopy".into(), true.into());
            }
            if !options.labels.is_empty() {
                map.insert("Labels".into(), object(&options.labels));
            }
            if options.driver.is_some() || !options.driver_options.is_empty() {
                let mut driver = json!({});
                if let Some(name) = &options.driver {
                    driver["Name"] = name.as_str().into();
                }
                if !options.driver_options.is_empty() {
                    driver["Options"] = object(&options.driver_options);
                }
                map.insert("DriverConfig".into(), driver);
            }
            "VolumeOptions"
        }
        MountKind::Tmpfs(text) => {
            for (key, value) in text.split(',').filter_map(|option| option.split_once('=')) {
                match key {
                    "size" => map.insert("SizeBytes".into(), value.parse::<u64>().ok().into()),
                    "mode" => map.insert("Mode".into(), u32::from_str_radix(value, 8).ok().into()),
                    _ => None,
                };
            }
            "TmpfsOptions"
        }
    };
    (!map.is_empty()).then_some((name, map))
}

/// `--tmpfs`: target and options.
fn tmpfs(request: &ContainerRequest) -> impl Iterator<Item = (String, Value)> {
    request.mounts.iter().filter_map(|mount| match &mount.kind {
        MountKind::Tmpfs(options) if !mount.options.by_mount_flag => {
            Some((mount.target.display().to_string(), options.as_str().into()))
        }
        _ => None,
    })
}

fn object(pairs: &[(String, String)]) -> Value {
    let map: Map<String, Value> = pairs
        .iter()
        .map(|(name, value)| (name.clone(), value.as_str().into()))
        .collect();
    map.into()
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
