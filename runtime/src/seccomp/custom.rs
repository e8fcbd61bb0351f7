//! A profile of the user's own: Docker's JSON format, and `linux.seccomp` of an OCI spec, which is a part of it. Pure: the
//! kernel's version and the capabilities are the caller's to say.
//!
//! What a flag asks for (`SECCOMP_FILTER_FLAG_LOG`, `_TSYNC`, `_SPEC_ALLOW`) is passed over: it changes what is logged or how
//! fast calls are, never what is allowed.

use serde::Deserialize;

use super::rules::{Action, Argument, Rule, Rules};

/// As written. Fields that a newer format has are passed over, as Docker does.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Written {
    default_action: String,
    default_errno_ret: Option<u32>,
    architectures: Option<Vec<String>>,
    arch_map: Option<Vec<ArchMap>>,
    listener_path: String,
    syscalls: Option<Vec<Group>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ArchMap {
    architecture: String,
    sub_architectures: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Group {
    name: String,
    names: Option<Vec<String>>,
    action: String,
    errno_ret: Option<u32>,
    args: Option<Vec<Argument>>,
    includes: Option<When>,
    excludes: Option<When>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct When {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// What the conditions of a profile are about.
#[derive(Clone, Debug, Default)]
pub struct Circumstances<'a> {
    /// `CAP_...`: the bounding set.
    pub held: &'a [&'a str],
    /// Version and major revision: 6.18 is (6, 18).
    pub kernel: (u32, u32),
}

/// Go's name of this machine's architecture, and libseccomp's.
#[cfg(target_arch = "x86_64")]
const NATIVE: (&str, &str) = ("amd64", "SCMP_ARCH_X86_64");
#[cfg(target_arch = "aarch64")]
const NATIVE: (&str, &str) = ("arm64", "SCMP_ARCH_AARCH64");
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const NATIVE: (&str, &str) = ("", "");

/// Reads a profile; an error says what is wrong with it.
pub fn pick(text: &str, here: &Circumstances<'_>) -> Result<Rules, String> {
    // By way of an object: serde would take a list for the fields in their order.
    let fields: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(text).map_err(|e| e.to_string())?;
    let written: Written =
        serde_json::from_value(fields.into()).map_err(|e: serde_json::Error| e.to_string())?;
    if !written.listener_path.is_empty() {
        return Err("listenerPath is not supported: nothing would listen".to_owned());
    }
    let default = Action::of(&written.default_action, written.default_errno_ret)?;
    let architectures = architectures(&written)?;
    let mut rules = Vec::new();
    for group in written.syscalls.iter().flatten() {
        let rule = rule(group)?;
        if applies(group, here)? {
            rules.push(rule);
        }
    }
    Ok(Rules {
        default,
        architectures,
        rules,
    })
}

fn architectures(written: &Written) -> Result<Vec<String>, String> {
    let listed = written.architectures.clone().unwrap_or_default();
    let map = written.arch_map.as_deref().unwrap_or_default();
    if !listed.is_empty() && !map.is_empty() {
        return Err("'architectures' and 'archMap' were specified in the seccomp profile, use either 'architectures' or 'archMap'".to_owned());
    }
    let own = map.iter().find(|entry| entry.architecture == NATIVE.1);
    Ok(match own {
        None => listed,
        Some(entry) => {
            let mut all = vec![entry.architecture.clone()];
            all.extend(entry.sub_architectures.clone().unwrap_or_default());
            all
        }
    })
}

fn rule(group: &Group) -> Result<Rule, String> {
    let mut names = group.names.clone().unwrap_or_default();
    if !group.name.is_empty() {
        if !names.is_empty() {
            return Err("'name' and 'names' were specified in the seccomp profile, use either 'name' or 'names'".to_owned());
        }
        names.push(group.name.clone());
    }
    let arguments = group.args.clone().unwrap_or_default();
    for argument in &arguments {
        if argument.index > 5 {
            return Err(format!("a call has no argument {}", argument.index));
        }
        if !OPERATORS.contains(&argument.op.as_str()) {
            return Err(format!(
                "string {} is not a valid operator for seccomp",
                argument.op
            ));
        }
    }
    Ok(Rule {
        names,
        action: Action::of(&group.action, group.errno_ret)?,
        arguments,
    })
}

const OPERATORS: &[&str] = &[
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
];

/// Docker's rules: all that is included must be there, nothing of what is excluded.
fn applies(group: &Group, here: &Circumstances<'_>) -> Result<bool, String> {
    let is_native = |arches: &Vec<String>| arches.iter().any(|arch| arch == NATIVE.0);
    let held = |name: &String| here.held.contains(&name.as_str());
    if let Some(not) = &group.excludes {
        let young = minimum(not)?.is_some_and(|version| here.kernel >= version);
        let by_caps = not.caps.iter().flatten().any(held);
        if young || by_caps || not.arches.as_ref().is_some_and(is_native) {
            return Ok(false);
        }
    }
    if let Some(only) = &group.includes {
        let old = minimum(only)?.is_some_and(|version| here.kernel < version);
        let arches = only.arches.as_ref().filter(|list| !list.is_empty());
        if old
            || !only.caps.iter().flatten().all(held)
            || arches.is_some_and(|list| !is_native(list))
        {
            return Ok(false);
        }
    }
    Ok(true)
}

fn minimum(when: &When) -> Result<Option<(u32, u32)>, String> {
    match when.min_kernel.as_deref() {
        None | Some("") => Ok(None),
        Some(text) => version(text)
            .map(Some)
            .ok_or_else(|| format!("invalid kernel version: {text:?}")),
    }
}

/// `6.18.0-generic` and `4.8`; what comes after the second number does not count.
pub fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.splitn(3, '.');
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next()?;
    let digits = minor.find(|c: char| !c.is_ascii_digit());
    let minor = minor[..digits.unwrap_or(minor.len())].parse().ok()?;
    Some((major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str, held: &[&str], kernel: (u32, u32)) -> Result<Vec<String>, String> {
        let picked = pick(text, &Circumstances { held, kernel })?;
        Ok(picked
            .rules
            .into_iter()
            .flat_map(|rule| rule.names)
            .collect())
    }

    #[test]
    fn groups_go_by_capability_architecture_and_kernel() {
        let text = r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[
            {"names":["plain"],"action":"SCMP_ACT_ALLOW","args":null,"comment":"","includes":{},"excludes":{}},
            {"names":["admin"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},
            {"names":["noadmin"],"action":"SCMP_ACT_ALLOW","excludes":{"caps":["CAP_SYS_ADMIN"]}},
            {"names":["both"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN","CAP_BPF"]}},
            {"names":["other"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["s390"]}},
            {"names":["native"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["amd64","arm64"]}},
            {"names":["foreign"],"action":"SCMP_ACT_ALLOW","excludes":{"arches":["amd64","arm64"]}},
            {"names":["young"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"4.8"}},
            {"names":["old"],"action":"SCMP_ACT_ALLOW","excludes":{"minKernel":"4.8"}},
            {"names":["default"],"action":"SCMP_ACT_ERRNO"}]}"#;
        let check = |held: &[&str], kernel, expect: &str| {
            assert_eq!(names(text, held, kernel).unwrap().join(" "), expect);
        };
        check(&[], (6, 18), "plain noadmin native young default");
        check(&["CAP_SYS_ADMIN"], (4, 7), "plain admin native old default");
        let all = ["CAP_SYS_ADMIN", "CAP_BPF"];
        check(&all, (4, 10), "plain admin both native young default");
    }

    #[test]
    fn an_oci_profile_is_read_too() {
        let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],"flags":["SECCOMP_FILTER_FLAG_LOG"],
            "syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO","errnoRet":5,"args":[{"index":1,"value":7,"op":"SCMP_CMP_EQ"}]}]}"#;
        let picked = pick(text, &Circumstances::default()).unwrap();
        assert_eq!(picked.architectures, ["SCMP_ARCH_X86_64"]);
        assert_eq!(picked.rules[0].action, Action::Errno(5));
        assert_eq!(picked.rules[0].arguments[0].value, 7);
        assert!(!picked.newer_are_unknown());
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, why) in [
            ("[]", "invalid type"),
            (
                r#"{"defaultAction":"SCMP_ACT_BOGUS"}"#,
                "string SCMP_ACT_BOGUS is not a valid action",
            ),
            (
                r#"{"syscalls":[{"name":"a","names":["b"],"action":"SCMP_ACT_ALLOW"}]}"#,
                "use either 'name' or 'names'",
            ),
            (
                r#"{"architectures":["a"],"archMap":[{"architecture":"b"}]}"#,
                "use either 'architectures' or 'archMap'",
            ),
            (
                r#"{"syscalls":[{"names":["a"],"action":"SCMP_ACT_ERRNO","args":[{"index":6,"op":"SCMP_CMP_EQ"}]}]}"#,
                "no argument 6",
            ),
            (
                r#"{"syscalls":[{"names":["a"],"action":"SCMP_ACT_ERRNO","args":[{"op":"=="}]}]}"#,
                "not a valid operator",
            ),
            (
                r#"{"syscalls":[{"names":["a"],"action":"SCMP_ACT_ERRNO","includes":{"minKernel":"x"}}]}"#,
                "invalid kernel version",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#,
                "nothing would listen",
            ),
        ] {
            let error = pick(text, &Circumstances::default()).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_kernels_version_is_its_first_two_numbers() {
        assert_eq!(version("6.18.0-rc1"), Some((6, 18)));
        assert_eq!(version("4.8-rc2"), Some((4, 8)));
        assert_eq!(version("4"), None);
    }
}
