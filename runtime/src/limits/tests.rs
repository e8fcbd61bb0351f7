use super::*;

fn host() -> Host {
    Host {
        cpus: 2,
        cpuset_cpus: "0-1".into(),
        cpuset_mems: "0".into(),
        memory: true,
        swap: true,
        swappiness: true,
        oom_kill_disable: true,
        cpu: true,
        cpuset: true,
        pids: true,
        blkio_weight: true,
        blkio_throttle: true,
    }
}

const MIB: u64 = 1 << 20;

fn refused(resources: Resources, why: &str) {
    let error = check(&mut resources.clone(), &host(), Purpose::Create).expect_err(why);
    assert_eq!(error.to_string(), why, "{resources:?}");
}

#[test]
fn what_docker_refuses_is_refused_in_its_words() {
    let none = Resources::default;
    refused(
        Resources {
            memory: Some(MIB),
            ..none()
        },
        "Minimum memory limit allowed is 6MB",
    );
    refused(
        Resources {
            memory: Some(64 * MIB),
            memory_swap: Some(1),
            ..none()
        },
        "Minimum memoryswap limit should be larger than memory limit, see usage",
    );
    refused(
        Resources {
            memory_swap: Some(1),
            ..none()
        },
        "You should always set the Memory limit when using Memoryswap limit, see usage",
    );
    refused(
        Resources {
            nano_cpus: Some(3_000_000_000),
            ..none()
        },
        "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available",
    );
    refused(
        Resources {
            nano_cpus: Some(1_000_000_000),
            cpu_quota: Some(-1),
            ..none()
        },
        "Conflicting options: Nano CPUs and CPU Quota cannot both be set",
    );
    refused(
        Resources {
            cpuset_cpus: Some("0,9".into()),
            ..none()
        },
        "Requested CPUs are not available - requested 0,9, available: 0-1",
    );
    for set in ["x", "1-0", "0-", "-1", "0,,1", "0-99999999"] {
        refused(
            Resources {
                cpuset_mems: Some(set.into()),
                ..none()
            },
            &format!("Invalid value {set} for cpuset mems: invalid format: {set}"),
        );
    }
    refused(
        Resources {
            oom_score_adj: Some(-1001),
            ..none()
        },
        "Invalid value -1001, range for oom score adj is [-1000, 1000]",
    );
}

#[test]
fn swap_is_twice_the_memory_if_nothing_is_said() {
    let completed = |memory_swap| {
        let mut resources = Resources {
            memory: Some(64 * MIB),
            memory_swap,
            ..Resources::default()
        };
        assert!(
            check(&mut resources, &host(), Purpose::Create)
                .unwrap()
                .is_empty()
        );
        resources.memory_swap
    };
    assert_eq!(completed(None), Some(128 << 20));
    assert_eq!(completed(Some(0)), Some(128 << 20));
    assert_eq!(completed(Some(-1)), Some(-1));
    assert_eq!(completed(Some(64 << 20)), Some(64 << 20));
}

#[test]
fn what_the_host_cannot_do_is_discarded_and_said() {
    let mut resources = Resources {
        memory: Some(64 * MIB),
        memory_swappiness: Some(10),
        oom_kill_disable: true,
        blkio_weight: Some(5),
        pids_limit: Some(5),
        ..Resources::default()
    };
    let host = Host {
        swap: false,
        swappiness: false,
        oom_kill_disable: false,
        pids: false,
        blkio_weight: false,
        ..host()
    };
    let warnings = check(&mut resources, &host, Purpose::Create).unwrap();
    assert_eq!(warnings.len(), 5, "{warnings:?}");
    let left = Resources {
        memory: Some(64 * MIB),
        memory_swap: Some(-1),
        ..Resources::default()
    };
    assert_eq!(resources, left);
}

#[test]
fn an_update_keeps_what_it_does_not_name() {
    let old = Resources {
        memory: Some(64 * MIB),
        memory_swap: Some(128 << 20),
        cpu_shares: Some(512),
        oom_score_adj: Some(5),
        ..Resources::default()
    };
    let memory = |memory| Resources {
        memory: Some(memory),
        ..Resources::default()
    };
    let merged = merge(&old, &memory(100 * MIB)).unwrap();
    let expected = Resources {
        memory: Some(100 * MIB),
        ..old.clone()
    };
    assert_eq!(merged, expected);
    assert_eq!(
        merge(&old, &memory(200 * MIB)),
        Err(LimitError::MemoryAboveSwap)
    );
    let first = merge(&Resources::default(), &memory(10 * MIB)).unwrap();
    assert_eq!(first.memory_swap, Some(20 << 20));
}

#[test]
fn an_update_does_not_mix_cpus_with_quota() {
    let cpus = Resources {
        nano_cpus: Some(1_000_000_000),
        ..Resources::default()
    };
    let quota = Resources {
        cpu_quota: Some(5000),
        ..Resources::default()
    };
    assert_eq!(
        merge(&cpus, &quota).unwrap_err().to_string(),
        "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set"
    );
    assert_eq!(
        merge(&quota, &cpus).unwrap_err().to_string(),
        "Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set"
    );
}

#[test]
fn a_hard_limit_above_ours_is_refused() {
    let limit = |soft, hard| Ulimit {
        name: "nofile".into(),
        soft,
        hard,
    };
    let check = |limit| check_ulimits(&[limit], |_| Some(1000));
    assert!(check(limit(10, 1000)).is_ok());
    assert!(check(limit(10, 1001)).is_err());
    let error = check(limit(10, -1)).unwrap_err().to_string();
    assert!(error.contains("nofile would be unlimited, above this host's own of 1000"));
}
