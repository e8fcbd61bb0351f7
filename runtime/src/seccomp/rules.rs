//! What is allowed, in the one form that `filter` compiles. Docker's default profile (`profile`), one of the user's own
//! (`custom`) and `linux.seccomp` of a bundle (`oci`) all come to it.

use serde::{Deserialize, Serialize};

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Allow,
    Log,
    Errno(u32),
    Trace(u32),
    Trap,
    KillThread,
    KillProcess,
}

impl Action {
    /// By its name in a profile; the number is of those that have one.
    pub fn of(word: &str, number: Option<u32>) -> Result<Action, String> {
        let number = number.unwrap_or(libc::EPERM as u32);
        Ok(match word {
            "SCMP_ACT_ALLOW" => Action::Allow,
            "SCMP_ACT_LOG" => Action::Log,
            "SCMP_ACT_ERRNO" => Action::Errno(number),
            "SCMP_ACT_TRACE" => Action::Trace(number),
            "SCMP_ACT_TRAP" => Action::Trap,
            "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
            "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
            // runc lets a profile without a default action through, and all calls with it.
            "" => Action::Allow,
            "SCMP_ACT_NOTIFY" => {
                return Err("SCMP_ACT_NOTIFY is not supported: nothing would listen".to_owned());
            }
            other => return Err(format!("string {other} is not a valid action for seccomp")),
        })
    }

    /// Its name in a profile.
    pub fn word(self) -> &'static str {
        match self {
            Action::Allow => "SCMP_ACT_ALLOW",
            Action::Log => "SCMP_ACT_LOG",
            Action::Errno(_) => "SCMP_ACT_ERRNO",
            Action::Trace(_) => "SCMP_ACT_TRACE",
            Action::Trap => "SCMP_ACT_TRAP",
            Action::KillThread => "SCMP_ACT_KILL_THREAD",
            Action::KillProcess => "SCMP_ACT_KILL_PROCESS",
        }
    }

    pub fn number(self) -> Option<u32> {
        match self {
            Action::Errno(number) | Action::Trace(number) => Some(number),
            _ => None,
        }
    }
}

/// A profile for one machine and one set of capabilities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    pub default: Action,
    /// `SCMP_ARCH_X86_64`; empty: the machine's own alone.
    pub architectures: Vec<String>,
    /// With those that say what the default says anyway: their calls are known.
    pub rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub names: Vec<String>,
    pub action: Action,
    /// All must hold; conditions on one argument twice are alternatives.
    pub arguments: Vec<Argument>,
}

/// One condition on an argument of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Argument {
    /// 0 to 5.
    pub index: u32,
    pub value: u64,
    pub value_two: u64,
    /// `SCMP_CMP_EQ`.
    pub op: String,
}

impl Rule {
    /// Whatever the arguments are.
    pub fn plain<'a>(names: impl IntoIterator<Item = &'a str>, action: Action) -> Rule {
        Rule {
            names: names.into_iter().map(str::to_owned).collect(),
            action,
            arguments: Vec::new(),
        }
    }
}

impl Rules {
    /// Those that say something: what is the default anyway, libseccomp refuses to be told.
    pub fn telling(&self) -> impl Iterator<Item = &Rule> {
        let told = |rule: &&Rule| rule.action != self.default;
        self.rules.iter().filter(told)
    }

    /// The calls that the profile has heard of.
    pub fn known(&self) -> impl Iterator<Item = &str> {
        let names = self.rules.iter().flat_map(|rule| &rule.names);
        names.map(String::as_str)
    }

    /// Whether calls younger than all of the profile's are answered with ENOSYS, as runc does.
    pub fn newer_are_unknown(&self) -> bool {
        let refuses = !matches!(self.default, Action::Allow | Action::Log | Action::Trace(_));
        refuses && self.default != Action::Errno(libc::ENOSYS as u32)
    }
}
