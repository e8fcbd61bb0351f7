//! The OCI form of a profile (`linux.seccomp` of config.json): compiled, for a bundle of somebody else's; and Docker's default
//! profile written in it, for a runtime that is not ours.

use std::collections::{BTreeMap, BTreeSet};

use libseccomp::error::SeccompError;
use libseccomp::{
    ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall,
};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompBuilder, LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};

use super::profile::{self, Condition};
use super::{Filter, filter};
use crate::error::Error;

/// Compiles a bundle's profile. Its `flags` are not looked at: they change how violations are logged, not what is allowed.
pub fn compile(profile: &LinuxSeccomp) -> Result<Filter, Error> {
    let (context, known) = context(profile).map_err(Error::CompileSeccomp)?;
    let default = profile.default_action();
    let refuses = default == LinuxSeccompAction::ScmpActErrno
        && profile.default_errno_ret() != Some(libc::ENOSYS as u32);
    // A profile that refuses by EPERM what it has never heard of: see `filter`.
    let known: Vec<&str> = if refuses { known } else { Vec::new() };
    filter::finish(
        filter::newer_calls_are_unknown(filter::NUMBERINGS, &known),
        &context,
    )
}

fn context(profile: &LinuxSeccomp) -> Result<(ScmpFilterContext, Vec<&str>), SeccompError> {
    let default = action(profile.default_action(), profile.default_errno_ret())?;
    let mut context = ScmpFilterContext::new(default)?;
    for arch in profile.architectures().iter().flatten() {
        let arch = architecture(*arch)?;
        if !context.is_arch_present(arch)? {
            context.add_arch(arch)?;
        }
    }
    filter::make_tree(&mut context)?;
    let mut known = Vec::new();
    for rule in profile.syscalls().iter().flatten() {
        let answer = action(rule.action(), rule.errno_ret())?;
        for name in rule.names() {
            known.push(name.as_str());
            // A call that this libseccomp has never heard of, or that says what the default says anyway.
            let Ok(call) = ScmpSyscall::from_name(name) else {
                continue;
            };
            if answer != default {
                add(&mut context, answer, call, rule.args().as_deref())?;
            }
        }
    }
    Ok((context, known))
}

fn add(
    context: &mut ScmpFilterContext,
    answer: ScmpAction,
    call: ScmpSyscall,
    args: Option<&[LinuxSeccompArg]>,
) -> Result<(), SeccompError> {
    let args = args.unwrap_or_default();
    if args.is_empty() {
        context.add_rule(answer, call)?;
        return Ok(());
    }
    let all: Vec<ScmpArgCompare> = args.iter().map(comparison).collect();
    let different: BTreeSet<usize> = args.iter().map(LinuxSeccompArg::index).collect();
    if different.len() == args.len() {
        context.add_rule_conditional(answer, call, &all)?;
    } else {
        // libseccomp takes one condition for each argument; of several for one they are alternatives, as in runc.
        for one in all {
            context.add_rule_conditional(answer, call, &[one])?;
        }
    }
    Ok(())
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<ScmpAction, SeccompError> {
    let errno = errno.map_or(libc::EPERM, |errno| errno as i32);
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => {
            ScmpAction::KillThread
        }
        LinuxSeccompAction::ScmpActKillProcess => ScmpAction::KillProcess,
        LinuxSeccompAction::ScmpActTrap => ScmpAction::Trap,
        LinuxSeccompAction::ScmpActErrno => ScmpAction::Errno(errno),
        LinuxSeccompAction::ScmpActTrace => ScmpAction::Trace(errno as u16),
        LinuxSeccompAction::ScmpActLog => ScmpAction::Log,
        LinuxSeccompAction::ScmpActAllow => ScmpAction::Allow,
        // Needs somebody who listens, whom we do not have: libseccomp's own refusal.
        LinuxSeccompAction::ScmpActNotify => {
            ScmpAction::from_str("SCMP_ACT_NOTIFY without a listener", None)?
        }
    })
}

/// By its name in the specification, which is libseccomp's own.
fn architecture(arch: Arch) -> Result<ScmpArch, SeccompError> {
    let name = serde_json::to_value(arch).unwrap_or_default();
    name.as_str().unwrap_or_default().parse()
}

fn comparison(arg: &LinuxSeccompArg) -> ScmpArgCompare {
    let (operator, value) = match arg.op() {
        LinuxSeccompOperator::ScmpCmpNe => (ScmpCompareOp::NotEqual, arg.value()),
        LinuxSeccompOperator::ScmpCmpLt => (ScmpCompareOp::Less, arg.value()),
        LinuxSeccompOperator::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, arg.value()),
        LinuxSeccompOperator::ScmpCmpEq => (ScmpCompareOp::Equal, arg.value()),
        LinuxSeccompOperator::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, arg.value()),
        LinuxSeccompOperator::ScmpCmpGt => (ScmpCompareOp::Greater, arg.value()),
        // `value` is the mask here, and `valueTwo` what must be left (runtime-spec, Seccomp).
        LinuxSeccompOperator::ScmpCmpMaskedEq => (
            ScmpCompareOp::MaskedEqual(arg.value()),
            arg.value_two().unwrap_or_default(),
        ),
    };
    ScmpArgCompare::new(arg.index() as u32, operator, value)
}

/// Docker's default profile for a process with these capabilities, for another runtime's config.json.
pub fn default_profile(capabilities: &[&str]) -> LinuxSeccomp {
    let held = super::relevant(capabilities);
    let mut syscalls = vec![rule(
        filter::plain_names(&held).map(str::to_owned).collect(),
        LinuxSeccompAction::ScmpActAllow,
        None,
        None,
    )];
    let holds = |gate: Option<&str>| gate.is_some_and(|gate| held.contains(&gate));
    for conditional in profile::CONDITIONAL.iter().filter(|r| !holds(r.unless)) {
        let (operator, value, value_two) = match conditional.condition {
            Condition::Equal(value) => (LinuxSeccompOperator::ScmpCmpEq, value, 0_u64),
            Condition::NotEqual(value) => (LinuxSeccompOperator::ScmpCmpNe, value, 0),
            Condition::NoneOf(mask) => (LinuxSeccompOperator::ScmpCmpMaskedEq, mask, 0),
        };
        let arg = LinuxSeccompArgBuilder::default()
            .index(0_usize)
            .op(operator)
            .value(value)
            .value_two(value_two)
            .build()
            .expect(COMPLETE);
        let names = vec![conditional.name.to_owned()];
        let allow = LinuxSeccompAction::ScmpActAllow;
        syscalls.push(rule(names, allow, None, Some(vec![arg])));
    }
    let mut refused: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for (name, gate) in profile::NOT_IMPLEMENTED {
        if !held.contains(gate) {
            refused
                .entry(libc::ENOSYS as u32)
                .or_default()
                .push((*name).to_owned());
        }
    }
    for (errno, names) in refused {
        let refuse = LinuxSeccompAction::ScmpActErrno;
        syscalls.push(rule(names, refuse, Some(errno), None));
    }
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(libc::EPERM as u32)
        .architectures(architectures())
        .syscalls(syscalls)
        .build()
        .expect(COMPLETE)
}

const COMPLETE: &str = "every field that has no default is set";

fn rule(
    names: Vec<String>,
    action: LinuxSeccompAction,
    errno: Option<u32>,
    args: Option<Vec<LinuxSeccompArg>>,
) -> LinuxSyscall {
    let mut rule = LinuxSyscallBuilder::default()
        .names(names)
        .action(action)
        .build()
        .expect(COMPLETE);
    rule.set_errno_ret(errno);
    rule.set_args(args);
    rule
}

fn architectures() -> Vec<Arch> {
    if cfg!(target_arch = "x86_64") {
        vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32]
    } else if cfg!(target_arch = "aarch64") {
        vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm]
    } else {
        vec![Arch::ScmpArchNative]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_profile_compiles_to_the_same_program_by_way_of_the_oci_form() {
        for held in [&["CAP_CHOWN", "CAP_SYS_CHROOT"][..], &["CAP_SYS_ADMIN"]] {
            let direct = filter::compile(&super::super::relevant(held)).unwrap();
            let by_spec = compile(&default_profile(held)).unwrap();
            // Both refuse the same calls, but not from the same list of newer ones: the gated names are not in the spec.
            assert!(by_spec.0.len().abs_diff(direct.0.len()) < direct.0.len() / 10);
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
        let program = compile(&profile).unwrap();
        assert!(program.0.len() > 10 * 8);
        let other = text.replace("2114060288", "1");
        let other: LinuxSeccomp = serde_json::from_str(&other).unwrap();
        assert_ne!(compile(&other).unwrap(), program);
    }
}
