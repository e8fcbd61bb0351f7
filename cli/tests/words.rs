//! The binary, run with words that fail or answer before the engine is opened: texts, streams and exit codes.

use std::process::{Command, Output, Stdio};

/// What a command line did.
struct Told {
    stdout: String,
    stderr: String,
    code: Option<i32>,
}

fn coracle(words: &[&str]) -> Told {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coracle"));
    command
        .args(words)
        .env_remove("CORACLE_CONFIG")
        .env_remove("CORACLE_FIREWALL")
        .env_remove("CORACLE_PROFILE");
    told(&mut command)
}

/// State goes where nothing can be made, so that a command which reaches the engine fails instead of passing unseen.
fn told(command: &mut Command) -> Told {
    let output: Output = command
        .env("CORACLE_ROOT", "/proc/nowhere/root")
        .env("CORACLE_RUN_ROOT", "/proc/nowhere/run")
        .stdin(Stdio::null())
        .output()
        .expect("run the binary");
    Told {
        stdout: String::from_utf8(output.stdout).expect("UTF-8 on stdout"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8 on stderr"),
        code: output.status.code(),
    }
}

/// Fails with `code`, says `text` first on stderr and nothing on stdout.
#[track_caller]
fn check(words: &[&str], code: i32, text: &str) {
    let told = coracle(words);
    assert_eq!(told.code, Some(code), "{words:?}: {}", told.stderr);
    assert_eq!(told.stdout, "", "{words:?}");
    let first = told.stderr.lines().next().unwrap_or_default();
    assert_eq!(first, text, "{words:?}");
}

#[test]
fn help_is_an_answer_and_names_every_command() {
    let told = coracle(&["--help"]);
    assert_eq!(told.code, Some(0));
    assert_eq!(told.stderr, "");
    for command in [
        "run",
        "create",
        "start",
        "exec",
        "ps",
        "logs",
        "stop",
        "kill",
        "rm",
        "wait",
        "inspect",
        "port",
        "pull",
        "import",
        "images",
        "rmi",
        "network",
        "system",
        "info",
        "restart",
        "rename",
        "events",
        "container",
    ] {
        assert!(
            told.stdout.contains(&format!("\n  {command} ")),
            "{command} is missing:\n{}",
            told.stdout
        );
        let own = coracle(&[command, "--help"]);
        assert_eq!(own.code, Some(0), "{command}");
        assert!(
            own.stdout.contains(&format!("Usage: coracle {command}")),
            "{}",
            own.stdout
        );
    }
}

#[test]
fn run_keeps_h_for_the_hostname() {
    let told = coracle(&["run", "-h"]);
    assert_eq!(told.code, Some(125));
    assert!(
        told.stderr.starts_with("flag needs an argument: "),
        "{}",
        told.stderr
    );
}

#[test]
fn half_a_command_shows_its_help_on_stderr() {
    for (words, usage) in [
        (&[][..], "Usage: coracle [OPTIONS] COMMAND"),
        (&["network"][..], "Usage: coracle network COMMAND"),
        (&["system"][..], "Usage: coracle system COMMAND"),
    ] {
        let told = coracle(words);
        assert_eq!(told.code, Some(0), "{words:?}");
        assert_eq!(told.stdout, "");
        assert!(told.stderr.contains(usage), "{}", told.stderr);
    }
}

#[test]
fn the_version_is_printed() {
    for flag in ["-v", "--version"] {
        let told = coracle(&[flag]);
        assert_eq!(told.code, Some(0));
        assert_eq!(
            told.stdout,
            format!("coracle {}\n", env!("CARGO_PKG_VERSION"))
        );
    }
}

#[test]
fn a_wrong_flag_is_125_with_the_usage() {
    let told = coracle(&["run", "--bogus", "bb"]);
    assert_eq!(told.code, Some(125));
    assert_eq!(
        told.stderr,
        "unknown flag: --bogus\n\nUsage:  coracle run [OPTIONS] IMAGE [COMMAND] [ARG...]\n\n\
         Run 'coracle run --help' for more information\n"
    );
    check(
        &["run", "-Z", "bb"],
        125,
        "unknown shorthand flag: 'Z' in -Z",
    );
    check(&["ps", "--bogus"], 125, "unknown flag: --bogus");
    check(
        &["exec", "--bogus", "c", "ls"],
        125,
        "unknown flag: --bogus",
    );
    check(
        &["run", "-e", "=x", "bb"],
        125,
        "invalid argument \"=x\" for \"-e, --env\" flag: invalid environment variable: =x",
    );
    check(
        &["run", "-l", "=c", "bb"],
        125,
        "invalid argument \"=c\" for \"-l, --label\" flag: invalid label '=c': empty name",
    );
    check(
        &["run", "--add-host", "foo", "bb"],
        125,
        "invalid argument \"foo\" for \"--add-host\" flag: bad format for add-host: \"foo\"",
    );
    check(
        &["run", "--dns", "x", "bb"],
        125,
        "invalid argument \"x\" for \"--dns\" flag: IP address is not correctly formatted: x",
    );
    check(
        &["ps", "--filter", "foo"],
        125,
        "invalid argument \"foo\" for \"-f, --filter\" flag: bad format of filter (expected name=value)",
    );
    check(&["run", "--name"], 125, "flag needs an argument: --name");
    let told = coracle(&["stop", "-t", "x", "c"]);
    assert_eq!(told.code, Some(125));
    assert!(
        told.stderr.contains("\n\nUsage:  coracle stop [OPTIONS] CONTAINER [CONTAINER...]\n\nRun 'coracle stop --help'"),
        "{}",
        told.stderr
    );
}

#[test]
fn too_few_or_too_many_words_are_1() {
    check(
        &["run"],
        1,
        "coracle: 'coracle run' requires at least 1 argument",
    );
    check(
        &["create"],
        1,
        "coracle: 'coracle create' requires at least 1 argument",
    );
    check(
        &["exec", "c"],
        1,
        "coracle: 'coracle exec' requires at least 2 arguments",
    );
    check(
        &["rm"],
        1,
        "coracle: 'coracle rm' requires at least 1 argument",
    );
    check(&["pull"], 1, "coracle: 'coracle pull' requires 1 argument");
    check(
        &["network", "create"],
        1,
        "coracle: 'coracle network create' requires 1 argument",
    );
    check(
        &["network", "rm"],
        1,
        "coracle: 'coracle network rm' requires at least 1 argument",
    );
    check(
        &["ps", "extra"],
        1,
        "coracle: 'coracle ps' accepts no arguments",
    );
    check(
        &["images", "a", "b"],
        1,
        "coracle: 'coracle images' requires at most 1 argument",
    );
    check(&["bogus"], 1, "coracle: unknown command: coracle bogus");
    check(
        &["network", "bogus"],
        1,
        "coracle: unknown command: coracle network bogus",
    );
}

#[test]
fn bad_specs_are_125_for_run_and_create_and_point_to_help() {
    let told = coracle(&["run", "-p", "99999:80", "bb"]);
    assert_eq!(told.code, Some(125));
    assert_eq!(
        told.stderr,
        "coracle: invalid hostPort: 99999\n\nRun 'coracle run --help' for more information\n"
    );
    check(
        &["create", "-p", "80:abc", "bb"],
        125,
        "coracle: invalid containerPort: abc",
    );
    check(
        &["run", "-p", "80:80/foo", "bb"],
        125,
        "coracle: invalid proto: foo",
    );
    check(
        &["run", "-p", "-1:80", "bb"],
        125,
        "coracle: invalid hostPort: -1",
    );
    check(
        &["run", "-v", "", "bb"],
        125,
        "coracle: invalid empty volume spec",
    );
    check(
        &["run", "-v", "/a:/b:bogus", "bb"],
        125,
        "coracle: invalid mode: bogus",
    );
    check(
        &["run", "--network", "", "bb"],
        125,
        "coracle: no name set for network",
    );
    check(
        &["run", "--pull", "bogus", "bb"],
        125,
        "coracle: invalid pull option: 'bogus': must be one of \"always\", \"missing\" or \"never\"",
    );
    let told = coracle(&["run", "--env-file", "/nonexistent", "bb"]);
    assert_eq!(told.code, Some(125));
    assert!(
        told.stderr
            .starts_with("coracle: open /nonexistent: no such file or directory\n"),
        "{}",
        told.stderr
    );
}

#[test]
fn bad_values_of_other_commands_are_1() {
    check(
        &["ps", "--filter", "foo=bar"],
        1,
        "coracle: Invalid filter 'foo'",
    );
    check(
        &["ps", "--filter", "status=bogus"],
        1,
        "coracle: Invalid filter 'status=bogus'",
    );
    check(
        &["ps", "--format", "{{.Nope}}"],
        1,
        "failed to execute template: executing \"\" at <.Nope>: can't evaluate field Nope",
    );
    check(
        &["images", "--format", "{{.ID"],
        1,
        "failed to parse template: template: :1: unclosed action",
    );
    check(
        &["inspect", "-f", "{{.ID", "c"],
        64,
        "template parsing error: template: :1: unclosed action",
    );
    check(
        &["start", "-a", "a", "b"],
        1,
        "you cannot start and attach multiple containers at once",
    );
    check(&["port", "c", "bogus"], 1, "Error: invalid port (bogus)");
    check(
        &["network", "create", "-d", "foo", "x"],
        1,
        "coracle: plugin \"foo\" not found",
    );
    check(
        &["network", "create", "--subnet", "bogus", "x"],
        1,
        "coracle: Invalid subnet bogus : invalid CIDR address: bogus",
    );
    check(
        &["run", "--network", "a", "--network", "host", "bb"],
        125,
        "coracle: conflicting options: cannot attach both user-defined and non-user-defined network-modes",
    );
    check(
        &["run", "--network", "name=a,foo=bar", "bb"],
        125,
        "invalid argument \"name=a,foo=bar\" for \"--network\" flag: invalid field key foo",
    );
    check(
        &["network", "connect", "n1"],
        1,
        "coracle: 'coracle network connect' requires 2 arguments",
    );
    check(
        &["network", "prune", "-f", "--filter", "foo=1h"],
        1,
        "coracle: Invalid filter 'foo'",
    );
    check(
        &["import", "/nonexistent"],
        1,
        "coracle: open /nonexistent: no such file or directory",
    );
}

#[test]
fn a_terminal_is_asked_for_before_anything_is_made() {
    check(
        &["run", "-it", "bb", "true"],
        1,
        "the input device is not a TTY",
    );
    check(
        &["exec", "-it", "c", "ls"],
        1,
        "the input device is not a TTY",
    );
}

#[test]
fn the_environment_sets_global_options() {
    let told = told(
        Command::new(env!("CARGO_BIN_EXE_coracle"))
            .arg("ps")
            .env("CORACLE_PROFILE", "foo"),
    );
    assert_eq!(told.code, Some(125));
    assert!(told.stderr.contains("--profile"), "{}", told.stderr);
}

#[test]
fn without_root_a_command_says_so_and_makes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let binary = folder.path().join("coracle");
    std::fs::copy(env!("CARGO_BIN_EXE_coracle"), &binary).expect("copy the binary");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(folder.path(), open).expect("open the folder");
    let root = folder.path().join("root");
    for (words, code) in [
        (&["run", "bb"][..], 125),
        (&["ps"], 1),
        (&["create", "bb"], 1),
        (&["system", "up"], 1),
    ] {
        let mut command = Command::new(&binary);
        command
            .arg("--root")
            .arg(&root)
            .arg("--run-root")
            .arg(folder.path().join("run"))
            .args(words);
        // As root, become nobody; otherwise this is somebody without root already.
        if nix::unistd::geteuid().is_root() {
            std::os::unix::process::CommandExt::uid(&mut command, 65534);
        }
        let told = told(&mut command);
        assert_eq!(told.code, Some(code), "{words:?}: {}", told.stderr);
        assert!(
            told.stderr.starts_with("coracle needs root"),
            "{}",
            told.stderr
        );
        assert!(!root.exists());
    }
}
