//! The OCI form of a profile (`linux.seccomp` of config.json), both ways: read, for a bundle of somebody else's; written, for
//! a runtime that is not ours.

use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};

use super::custom::{self, Circumstances};
use super::rules::Rules;

/// A bundle's profile; an error says what is wrong with it. It is what Docker's format is an extension of.
pub fn read(profile: &LinuxSeccomp) -> Result<Rules, String> {
    let mut profile = profile.clone();
    // Nobody is sent there without SCMP_ACT_NOTIFY, which is refused.
    profile.set_listener_path(None);
    let text = serde_json::to_string(&profile).map_err(|e| e.to_string())?;
    custom::pick(&text, &Circumstances::default())
}

/// An error: an architecture that the specification does not know.
pub fn write(rules: &Rules) -> Result<LinuxSeccomp, String> {
    let syscalls = rules.telling().map(|rule| {
        let mut written = json!({ "names": rule.names, "action": rule.action.word() });
        if let Some(number) = rule.action.number() {
            written["errnoRet"] = number.into();
        }
        if !rule.arguments.is_empty() {
            written["args"] = json!(rule.arguments);
        }
        written
    });
    let mut written = json!({
        "defaultAction": rules.default.word(),
        "syscalls": syscalls.collect::<Vec<Value>>(),
    });
    if let Some(number) = rules.default.number() {
        written["defaultErrnoRet"] = number.into();
    }
    if !rules.architectures.is_empty() {
        written["architectures"] = json!(rules.architectures);
    }
    serde_json::from_value(written).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::filter;
    use super::super::profile;
    use super::*;
    use crate::seccomp::Filter;

    fn compile(profile: &LinuxSeccomp) -> Filter {
        filter::compile(&read(profile).unwrap()).unwrap()
    }

    #[test]
    fn rules_come_through_the_oci_form_as_they_were() {
        for held in [&["CAP_SYS_CHROOT"][..], &["CAP_SYS_ADMIN"]] {
            let rules = profile::rules(held);
            let again = read(&write(&rules).unwrap()).unwrap();
            assert!(again.rules.iter().eq(rules.telling()));
            assert_eq!(again.architectures, rules.architectures);
            assert_eq!(again.default, rules.default);
        }
    }

    #[test]
    fn actions_architectures_and_arguments_are_understood() {
        let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86"],
            "syscalls":[
              {"names":["mkdir","nosuchcall"],"action":"SCMP_ACT_ERRNO","errnoRet":13},
              {"names":["clone"],"action":"SCMP_ACT_KILL_PROCESS","args":[{"index":0,"value":2114060288,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"}]},
              {"names":["personality"],"action":"SCMP_ACT_TRAP","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":0,"value":2,"op":"SCMP_CMP_EQ"}]}]}"#;
        let profile: LinuxSeccomp = serde_json::from_str(text).unwrap();
        let program = compile(&profile);
        assert!(program.0.len() > 10 * 8);
        let other = text.replace("2114060288", "1");
        let other: LinuxSeccomp = serde_json::from_str(&other).unwrap();
        assert_ne!(compile(&other), program);
    }
}
