//! Compiles rules to BPF by libseccomp, and puts in front what libseccomp cannot say. Does not load it.

use std::collections::BTreeSet;
use std::io::{Read, Seek};

use libseccomp::error::SeccompError;
use libseccomp::{
    ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall,
};

use super::rules::{Action, Argument, Rules};
use super::{Filter, INSTRUCTION, MAX_INSTRUCTIONS};
use crate::error::Error;

/// libseccomp's level for a binary tree over the call numbers instead of a list: a third of the time to load, and less
/// on every call that the container makes.
const BINARY_TREE: u32 = 2;

pub fn compile(rules: &Rules) -> Result<Filter, Error> {
    let context = context(rules).map_err(Error::CompileSeccomp)?;
    let mut program = Vec::new();
    if rules.newer_are_unknown() {
        // Of an architecture that is not the profile's, every call is refused anyway.
        let covered = |numbering: &&Numbering| {
            let is_it = |name: &String| name.parse().ok() == Some(numbering.arch);
            numbering.arch == NATIVE_ARCH || rules.architectures.iter().any(is_it)
        };
        let numberings: Vec<Numbering> = NUMBERINGS.iter().filter(covered).copied().collect();
        let known: Vec<&str> = rules.known().collect();
        program = newer_calls_are_unknown(&numberings, &known);
    }
    program.extend_from_slice(&export(&context)?);
    if program.len() / INSTRUCTION > MAX_INSTRUCTIONS {
        return Err(Error::SeccompTooLong(program.len() / INSTRUCTION));
    }
    Ok(Filter(program))
}

fn context(rules: &Rules) -> Result<ScmpFilterContext, SeccompError> {
    let mut context = ScmpFilterContext::new(scmp_action(rules.default))?;
    for name in &rules.architectures {
        let arch: ScmpArch = name.parse()?;
        if !context.is_arch_present(arch)? {
            context.add_arch(arch)?;
        }
    }
    context.set_ctl_optimize(BINARY_TREE)?;
    for rule in rules.telling() {
        let action = scmp_action(rule.action);
        let arguments: Vec<ScmpArgCompare> = rule.arguments.iter().map(comparison).collect();
        let indices: BTreeSet<u32> = rule.arguments.iter().map(|a| a.index).collect();
        for call in rule.names.iter().filter_map(|name| known(name)) {
            if arguments.is_empty() {
                context.add_rule(action, call)?;
            } else if indices.len() == arguments.len() {
                context.add_rule_conditional(action, call, &arguments)?;
            } else {
                // libseccomp takes one condition an argument: more are alternatives, as runc has it.
                for argument in &arguments {
                    context.add_rule_conditional(action, call, &[*argument])?;
                }
            }
        }
    }
    Ok(context)
}

fn scmp_action(action: Action) -> ScmpAction {
    match action {
        Action::Allow => ScmpAction::Allow,
        Action::Log => ScmpAction::Log,
        Action::Errno(number) => ScmpAction::Errno(i32::try_from(number).unwrap_or(libc::EPERM)),
        Action::Trace(number) => ScmpAction::Trace(u16::try_from(number).unwrap_or(u16::MAX)),
        Action::Trap => ScmpAction::Trap,
        Action::KillThread => ScmpAction::KillThread,
        Action::KillProcess => ScmpAction::KillProcess,
    }
}

/// For MASKED_EQ the first value is the mask.
fn comparison(argument: &Argument) -> ScmpArgCompare {
    let (op, value) = match argument.op.as_str() {
        "SCMP_CMP_NE" => (ScmpCompareOp::NotEqual, argument.value),
        "SCMP_CMP_LT" => (ScmpCompareOp::Less, argument.value),
        "SCMP_CMP_LE" => (ScmpCompareOp::LessOrEqual, argument.value),
        "SCMP_CMP_GE" => (ScmpCompareOp::GreaterEqual, argument.value),
        "SCMP_CMP_GT" => (ScmpCompareOp::Greater, argument.value),
        "SCMP_CMP_MASKED_EQ" => (
            ScmpCompareOp::MaskedEqual(argument.value),
            argument.value_two,
        ),
        _ => (ScmpCompareOp::Equal, argument.value),
    };
    ScmpArgCompare::new(argument.index, op, value)
}

/// `None` for a call that this libseccomp has never heard of: then it stays forbidden.
fn known(name: &str) -> Option<ScmpSyscall> {
    ScmpSyscall::from_name(name).ok()
}

fn export(context: &ScmpFilterContext) -> Result<Vec<u8>, Error> {
    // A file in memory: libseccomp writes to a descriptor, and a pipe would have to be drained meanwhile. None on a disk:
    // inside a container there may be no /tmp.
    let memory = rustix::fs::memfd_create("seccomp", rustix::fs::MemfdFlags::CLOEXEC)
        .map_err(|e| Error::ExportSeccomp(e.into()))?;
    let mut file = std::fs::File::from(memory);
    context.export_bpf(&file).map_err(Error::CompileSeccomp)?;
    let mut bytes = Vec::new();
    file.rewind().map_err(Error::ExportSeccomp)?;
    file.read_to_end(&mut bytes).map_err(Error::ExportSeccomp)?;
    Ok(bytes)
}

// What stands in front: a call with a number above all that the profile knows of is answered with ENOSYS instead of
// EPERM. C libraries try the newest call first and fall back on ENOSYS alone, so EPERM would break programs that are
// younger than this profile. runc 1.1 does the same, hence Docker 20.10 too.

/// An architecture as `struct seccomp_data` names it, and the range of numbers that its calls are from.
#[derive(Clone, Copy)]
struct Numbering {
    audit_arch: u32,
    first: u32,
    last: u32,
    arch: ScmpArch,
}

/// x32 has the AUDIT_ARCH of x86_64; what tells them apart is this bit of the number.
#[cfg(target_arch = "x86_64")]
const X32_BIT: u32 = 0x4000_0000;

#[cfg(target_arch = "x86_64")]
const NATIVE_ARCH: ScmpArch = ScmpArch::X8664;
#[cfg(target_arch = "aarch64")]
const NATIVE_ARCH: ScmpArch = ScmpArch::Aarch64;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const NATIVE_ARCH: ScmpArch = ScmpArch::Native;

#[cfg(target_arch = "x86_64")]
const NUMBERINGS: &[Numbering] = &[
    numbering(0xc000_003e, 0, X32_BIT - 1, ScmpArch::X8664),
    numbering(0xc000_003e, X32_BIT, u32::MAX, ScmpArch::X32),
    numbering(0x4000_0003, 0, u32::MAX, ScmpArch::X86),
];
#[cfg(target_arch = "aarch64")]
const NUMBERINGS: &[Numbering] = &[numbering(0xc000_00b7, 0, u32::MAX, ScmpArch::Aarch64)];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const NUMBERINGS: &[Numbering] = &[];

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const fn numbering(audit_arch: u32, first: u32, last: u32, arch: ScmpArch) -> Numbering {
    Numbering {
        audit_arch,
        first,
        last,
        arch,
    }
}

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const JUMP_IF_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const JUMP_IF_GREATER: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

fn newer_calls_are_unknown(numberings: &[Numbering], known: &[&str]) -> Vec<u8> {
    let mut program = Vec::new();
    for numbering in numberings {
        let Some(newest) = newest_number(numbering, known) else {
            continue;
        };
        let answer = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
        // Each block falls through to the next, and the last one to libseccomp's program, which loads what it needs.
        program.extend(instruction(LOAD, 0, 0, ARCHITECTURE));
        program.extend(instruction(JUMP_IF_EQUAL, 0, 5, numbering.audit_arch));
        program.extend(instruction(LOAD, 0, 0, NUMBER));
        program.extend(instruction(JUMP_IF_AT_LEAST, 0, 3, numbering.first));
        program.extend(instruction(JUMP_IF_GREATER, 2, 0, numbering.last));
        program.extend(instruction(JUMP_IF_GREATER, 0, 1, newest));
        program.extend(instruction(RETURN, 0, 0, answer));
    }
    program
}

/// The highest number among these calls.
fn newest_number(numbering: &Numbering, known: &[&str]) -> Option<u32> {
    known
        .iter()
        .filter_map(|name| ScmpSyscall::from_name_by_arch(name, numbering.arch).ok())
        // Negative numbers are libseccomp's own, for calls that this architecture does not have.
        .filter_map(|call| u32::try_from(call.as_raw_syscall()).ok())
        .map(|number| number | numbering.first)
        .max()
}

fn instruction(code: u16, if_true: u8, if_false: u8, k: u32) -> [u8; INSTRUCTION] {
    let mut bytes = [0; INSTRUCTION];
    bytes[..2].copy_from_slice(&code.to_ne_bytes());
    bytes[2] = if_true;
    bytes[3] = if_false;
    bytes[4..].copy_from_slice(&k.to_ne_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::profile;

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn newest_numbers_are_those_of_the_kernels_tables() {
        let rules = profile::rules(&[]);
        let known: Vec<&str> = rules.known().collect();
        let newest: Vec<Option<u32>> = NUMBERINGS
            .iter()
            .map(|numbering| newest_number(numbering, &known))
            .collect();
        // futex_waitv is the last, but x32 has some calls of its own behind it, up to pwritev2.
        assert_eq!(newest, [Some(449), Some(X32_BIT + 547), Some(449)]);
    }
}
