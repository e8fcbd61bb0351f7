//! `coracle oci`, or this program under the name `coracle-oci`: the command line that other engines expect of an OCI runtime,
//! which is runc's. It has options of its own and shares none with the rest, so it is parsed apart.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use runtime::standalone::{self, Status};
use serde_json::json;

/// The name under which the program needs no first word.
const NAME: &str = "coracle-oci";

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\nspec: 1.0.2");

/// Run containers from OCI bundles, for other engines
#[derive(Debug, Parser)]
#[command(name = NAME, version = VERSION, disable_help_subcommand = true)]
struct Oci {
    /// Folder of the containers' state
    #[arg(long, value_name = "DIR", default_value = "/run/coracle-oci")]
    root: PathBuf,
    /// File that errors are written to as well
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "text")]
    log_format: LogFormat,
    /// Not supported: cgroups are written directly
    #[arg(long)]
    systemd_cgroup: bool,
    #[arg(long, hide = true)]
    debug: bool,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true)]
    rootless: Option<Option<String>>,
    #[arg(long, hide = true)]
    criu: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a container; its program waits for `start`
    Create(Create),
    /// Let a created container's program run
    Start { id: String },
    /// Create and start a container, and wait for its end
    Run {
        #[command(flatten)]
        create: Create,
        /// Do not wait
        #[arg(short, long)]
        detach: bool,
        /// Keep the container after its end
        #[arg(long)]
        keep: bool,
    },
    /// Print a container's state as JSON
    State { id: String },
    /// Send a signal to a container's first process
    Kill {
        /// To every process of the container
        #[arg(short, long)]
        all: bool,
        id: String,
        #[arg(default_value = "SIGTERM")]
        signal: String,
    },
    /// Remove a container
    Delete {
        /// Kill it first; one that is not there is no error
        #[arg(short, long)]
        force: bool,
        id: String,
    },
    /// Run a command in a running container
    Exec(Exec),
    /// List the processes of a container
    Ps {
        #[arg(short, long, value_enum, default_value = "table")]
        format: ListFormat,
        id: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
        options: Vec<String>,
    },
    /// List the containers
    List {
        #[arg(short, long, value_enum, default_value = "table")]
        format: ListFormat,
        /// IDs only
        #[arg(short, long)]
        quiet: bool,
    },
    /// Freeze all processes of a container
    Pause { id: String },
    /// Thaw them
    Resume { id: String },
    /// Print what this runtime can do as JSON
    Features,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ListFormat {
    Table,
    Json,
}

#[derive(Debug, Args)]
struct Create {
    /// Folder with config.json
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    /// Listening socket that is sent the terminal
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// File to write the first process's ID to
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Hand on as many descriptors from 3 on
    #[arg(long, value_name = "N", default_value = "0")]
    preserve_fds: u32,
    #[arg(long)]
    no_pivot: bool,
    /// Keep the session keyring of the caller
    #[arg(long)]
    no_new_keyring: bool,
    id: String,
}

#[derive(Debug, Args)]
struct Exec {
    /// File with the process as JSON
    #[arg(short, long, value_name = "FILE")]
    process: Option<PathBuf>,
    /// Do not wait
    #[arg(short, long)]
    detach: bool,
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    #[arg(short, long)]
    tty: bool,
    #[arg(short, long, value_name = "NAME=VALUE", action = ArgAction::Append)]
    env: Vec<String>,
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    #[arg(long, value_name = "N", default_value = "0")]
    preserve_fds: u32,
    id: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// The exit code, if the program was called as an OCI runtime.
pub fn called(words: &[OsString]) -> Option<i32> {
    let name = Path::new(words.first()?).file_name()?;
    let args = match words.get(1) {
        _ if name == NAME => words,
        Some(word) if word == "oci" => &words[1..],
        _ => return None,
    };
    let parsed = match Oci::try_parse_from(args) {
        Ok(parsed) => parsed,
        Err(error) => {
            let _ = error.print();
            return Some(if error.use_stderr() { 1 } else { 0 });
        }
    };
    Some(match run(&parsed) {
        Ok(code) => code,
        Err(error) => {
            let text = chain(&error);
            eprintln!("{text}");
            tell_log(&parsed, &text);
            1
        }
    })
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

/// One line as runc writes it, which podman and containerd read to tell what was wrong.
fn tell_log(oci: &Oci, text: &str) {
    let Some(path) = &oci.log else { return };
    let now = time::OffsetDateTime::now_utc();
    let now = now
        .format(&time::format_description::well_known::Rfc3339)
        .unwrap_or_default();
    let line = match oci.log_format {
        LogFormat::Json => json!({ "level": "error", "msg": text, "time": now }).to_string(),
        LogFormat::Text => format!("time={now:?} level=error msg={text:?}"),
    };
    if let Ok(mut file) = OpenOptions::new().create(true).append(true).open(path) {
        let _ = writeln!(file, "{line}");
    }
}

fn run(oci: &Oci) -> Result<i32, standalone::Error> {
    if oci.systemd_cgroup {
        return Err(standalone::Error::Unsupported(
            "--systemd-cgroup: use the cgroupfs manager",
        ));
    }
    let root = &oci.root;
    match &oci.command {
        Command::Create(options) => {
            seal()?;
            standalone::create(root, &create(options))?;
        }
        Command::Start { id } => standalone::start(root, id)?,
        Command::Run {
            create: options,
            detach,
            keep,
        } => {
            seal()?;
            let init = standalone::create(root, &create(options))?;
            if let Err(error) = standalone::start(root, &options.id) {
                let _ = standalone::delete(root, &options.id, true);
                return Err(error);
            }
            if *detach {
                return Ok(0);
            }
            let code = wait(init.pid);
            if !keep {
                standalone::delete(root, &options.id, true)?;
            }
            return Ok(code);
        }
        Command::State { id } => {
            let state = standalone::load(root, id)?.description();
            say(&format!("{state:#}"));
        }
        Command::Kill { all, id, signal } => standalone::kill(root, id, signal, *all)?,
        Command::Delete { force, id } => standalone::delete(root, id, *force)?,
        Command::Exec(options) => {
            seal()?;
            let pid = standalone::exec(root, &exec(options))?;
            if !options.detach {
                return Ok(wait(pid));
            }
        }
        Command::Ps { format, id, .. } => {
            say(&processes(*format, &standalone::processes(root, id)?))
        }
        Command::List { format, quiet } => say(&listing(root, *format, *quiet)),
        Command::Pause { id } => standalone::pause(root, id)?,
        Command::Resume { id } => standalone::resume(root, id)?,
        Command::Features => say(&format!("{:#}", features())),
    }
    Ok(0)
}

/// A container must not reach this program's file through a process of ours that is in it.
fn seal() -> Result<(), standalone::Error> {
    runtime::bundle::run_sealed().map_err(|source| standalone::Error::Host {
        step: "seal this program",
        source,
    })
}

fn create(options: &Create) -> standalone::Create {
    standalone::Create {
        id: options.id.clone(),
        bundle: options.bundle.clone(),
        console_socket: options.console_socket.clone(),
        pid_file: options.pid_file.clone(),
        preserve_fds: options.preserve_fds,
        no_pivot: options.no_pivot,
        no_new_keyring: options.no_new_keyring,
    }
}

fn exec(options: &Exec) -> standalone::Exec {
    standalone::Exec {
        id: options.id.clone(),
        process: options.process.clone(),
        args: options.args.clone(),
        env: options.env.clone(),
        cwd: options.cwd.clone(),
        tty: options.tty,
        console_socket: options.console_socket.clone(),
        pid_file: options.pid_file.clone(),
        preserve_fds: options.preserve_fds,
    }
}

/// The exit code of a child as a shell counts it.
fn wait(pid: i32) -> i32 {
    use nix::sys::wait::{WaitStatus, waitpid};
    loop {
        match waitpid(nix::unistd::Pid::from_raw(pid), None) {
            Ok(WaitStatus::Exited(_, code)) => return code,
            Ok(WaitStatus::Signaled(_, signal, _)) => return 128 + signal as i32,
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return 255,
        }
    }
}

fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
}

fn processes(format: ListFormat, pids: &[i32]) -> String {
    match format {
        ListFormat::Json => json!(pids).to_string(),
        ListFormat::Table => pids
            .iter()
            .fold("PID\n".to_owned(), |text, pid| format!("{text}{pid}\n")),
    }
}

fn listing(root: &Path, format: ListFormat, quiet: bool) -> String {
    let all = standalone::list(root);
    if quiet {
        return all
            .iter()
            .map(|record| format!("{}\n", record.id))
            .collect();
    }
    if format == ListFormat::Json {
        let all: Vec<_> = all.iter().map(standalone::Record::description).collect();
        return json!(all).to_string();
    }
    let mut text = "ID\tPID\tSTATUS\tBUNDLE\tCREATED\n".to_owned();
    for record in all {
        let status = record.status();
        let pid = record
            .init
            .filter(|_| status != Status::Stopped)
            .map_or(0, |init| init.pid);
        let bundle = record.bundle.display();
        let _ = writeln!(
            text,
            "{}\t{pid}\t{status}\t{bundle}\t{}",
            record.id, record.created
        );
    }
    text
}

/// runtime-spec, Features.
fn features() -> serde_json::Value {
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.2.0",
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": [
            "async", "atime", "bind", "defaults", "dev", "diratime", "dirsync", "exec", "mand", "noatime", "nodev",
            "nodiratime", "noexec", "nomand", "norelatime", "nostrictatime", "nosuid", "private", "rbind", "relatime",
            "remount", "ro", "rprivate", "rro", "rshared", "rslave", "rw", "shared", "slave", "strictatime", "suid",
            "sync", "unbindable"
        ],
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"],
            "cgroup": { "v1": true, "v2": true, "systemd": false, "systemdUser": false },
            "seccomp": {
                "enabled": true,
                "actions": [
                    "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS",
                    "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"
                ],
            },
            "apparmor": { "enabled": true },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runcs_command_lines_are_understood() {
        for line in [
            "coracle-oci --root=/r --log /l --log-format json create --bundle /b --pid-file /p --console-socket /s c1",
            "coracle-oci --log-format=json --log=/l create -b /b --no-new-keyring --preserve-fds 2 c1",
            "coracle-oci kill --all c1 9",
            "coracle-oci kill c1 KILL",
            "coracle-oci delete --force c1",
            "coracle-oci exec --process /p.json --detach --pid-file /p c1",
            "coracle-oci exec c1 ls -la --color",
            "coracle-oci ps --format json c1",
            "coracle-oci state c1",
        ] {
            assert!(Oci::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
        assert!(Oci::try_parse_from(["coracle-oci", "create"]).is_err());
    }
}
