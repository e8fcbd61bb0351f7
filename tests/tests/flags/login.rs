//! `login` and `logout`: what is asked, what is tried, and where it is kept.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use harness::registry::{ADDRESS, Access, PASSWORD, USER};
use harness::terminal::Terminal;
use harness::{Cmd, Host, Output, Registry, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::cell;
use crate::cell::Cell;

pub const CELLS: &[Cell] = &[
    cell!(
        login_tries_the_credentials_and_keeps_them,
        "login",
        "login --username",
        "login -u",
        "login --password",
        "login -p",
        "logout"
    ),
    cell!(
        login_takes_the_password_from_stdin,
        "login --password-stdin"
    ),
    cell!(login_refuses_what_cannot_be_meant, "login", "logout"),
    cell!(login_asks_on_a_terminal_and_shows_no_password, "login"),
    cell!(a_terminal_shows_again_when_login_is_killed, "login"),
    cell!(
        login_leaves_a_configuration_that_it_cannot_read,
        "login",
        "logout"
    ),
    cell!(login_hands_the_credentials_to_helpers, "login", "logout"),
];

/// `docker login` of the harness's user, as `config.json` has it.
const AUTH: &str = "c2FpbG9yOnNlY3JldA==";

fn config_path(host: &Host) -> PathBuf {
    host.folder().join(".docker/config.json")
}

fn config(host: &Host) -> Value {
    serde_json::from_slice(&fs::read(config_path(host)).unwrap()).unwrap()
}

fn write_config(host: &Host, text: &str) {
    fs::create_dir_all(host.folder().join(".docker")).unwrap();
    fs::write(config_path(host), text).unwrap();
}

fn host() -> Host {
    Host::builder().without_image().build()
}

const INSECURE: &str = "WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n";

fn stored(host: &Host) -> String {
    format!(
        "\nWARNING! Your credentials are stored unencrypted in '{}'.\n\
         Configure a credential helper to remove this warning. See\n\
         https://docs.docker.com/go/credential-store/\n\n",
        config_path(host).display()
    )
}

fn login_tries_the_credentials_and_keeps_them() {
    let host = host();
    let _registry = Registry::start(&host, Access::Password);
    let wrong = host
        .try_run(&format!("login -u {USER} -p wrong {ADDRESS}"))
        .exits(1);
    assert_eq!(
        wrong.stderr,
        format!(
            "{INSECURE}coracle: login attempt to http://{ADDRESS}/v2/ failed with status: 401 Unauthorized\n"
        )
    );
    assert!(!config_path(&host).exists(), "nothing was kept");
    let first = host.run(&format!("login -u {USER} -p {PASSWORD} {ADDRESS}"));
    assert_eq!(first.stdout, "Login Succeeded\n");
    assert_eq!(first.stderr, format!("{INSECURE}{}", stored(&host)));
    let text = fs::read_to_string(config_path(&host)).unwrap();
    assert_eq!(
        text,
        format!(
            "{{\n\t\"auths\": {{\n\t\t\"{ADDRESS}\": {{\n\t\t\t\"auth\": \"{AUTH}\"\n\t\t}}\n\t}}\n}}"
        )
    );
    let mode = config_path(&host).metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    // Nothing new is nothing to warn of; a wrong one changes nothing.
    let words = format!("login --username {USER} --password {PASSWORD} http://{ADDRESS}/v2/");
    assert_eq!(host.run(&words).stderr, INSECURE);
    host.try_run(&format!("login -u {USER} -p wrong {ADDRESS}"))
        .exits(1);
    assert_eq!(fs::read_to_string(config_path(&host)).unwrap(), text);
    let again = host.run(&format!("login {ADDRESS}"));
    assert_eq!(again.stdout, "Login Succeeded\n");
    again.complains("Authenticating with existing credentials... [Username: sailor]");
    // What was kept is what a pull uses; `manifest unknown` comes after the login.
    let pull = format!("pull {ADDRESS}/nothing:1");
    let known = host.try_run(&pull).exits(1);
    assert!(!known.stderr.contains("no basic auth"), "{known}");
    host.run(&format!("logout {ADDRESS}"))
        .says(&format!("Removing login credentials for {ADDRESS}"));
    assert_eq!(
        fs::read_to_string(config_path(&host)).unwrap(),
        "{\n\t\"auths\": {}\n}"
    );
    host.run(&format!("logout {ADDRESS}"));
    host.run("logout")
        .says("Removing login credentials for https://index.docker.io/v1/");
    host.try_run(&pull)
        .exits(1)
        .complains("no basic auth credentials");
}

fn with_stdin(host: &Host, line: &str, text: &str) -> Output {
    let command = host.command(line.split_whitespace()).stdin(text);
    command.run_in(&host.netns)
}

fn login_takes_the_password_from_stdin() {
    let host = host();
    let _registry = Registry::start(&host, Access::Password);
    // Another place, a link, and all else in the file stay as they are.
    let elsewhere = host.folder().join("elsewhere");
    fs::create_dir_all(&elsewhere).unwrap();
    let real = host.folder().join("real.json");
    let rest = "{\"HttpHeaders\":{\"X\":\"y\"},\"auths\":{\"other.io\":{\"auth\":\"eDp5\"}},\"detachKeys\":\"ctrl-x\"}";
    fs::write(&real, rest).unwrap();
    std::os::unix::fs::symlink("../real.json", elsewhere.join("config.json")).unwrap();
    let login = |password: &str| {
        let line = format!("login -u {USER} --password-stdin {ADDRESS}");
        let command = host.command(line.split_whitespace()).stdin(password);
        let command = command.env("DOCKER_CONFIG", &elsewhere);
        command.run_in(&host.netns)
    };
    login("wrong\n").exits(1);
    assert_eq!(fs::read_to_string(&real).unwrap(), rest);
    login(&format!("{PASSWORD}\r\n"))
        .ok()
        .says("Login Succeeded");
    assert!(elsewhere.join("config.json").is_symlink());
    let expected = format!(
        "{{\"HttpHeaders\":{{\"X\":\"y\"}},\"auths\":{{\"other.io\":{{\"auth\":\"eDp5\"}},\"{ADDRESS}\":{{\"auth\":\"{AUTH}\"}}}},\"detachKeys\":\"ctrl-x\"}}"
    );
    let written: Value = serde_json::from_slice(&fs::read(&real).unwrap()).unwrap();
    assert_eq!(written.to_string(), expected);
    assert!(!config_path(&host).exists());
    with_stdin(
        &host,
        &format!("login --password-stdin {ADDRESS}"),
        PASSWORD,
    )
    .exits(1)
    .complains("the --password-stdin option requires --username to be set");
    let both = format!("login -u {USER} --password-stdin -p {PASSWORD} {ADDRESS}");
    with_stdin(&host, &both, PASSWORD)
        .exits(1)
        .complains("conflicting options: cannot specify both --password and --password-stdin");
    with_stdin(
        &host,
        &format!("login -u {USER} --password-stdin {ADDRESS}"),
        "\n",
    )
    .exits(1)
    .complains("password is empty");
}

fn login_refuses_what_cannot_be_meant() {
    let host = host();
    let refuses = |words: &[&str], why: &str| {
        host.coracle(words).exits(1).complains(why);
        assert!(!host.folder().join(".docker").exists(), "{words:?}");
    };
    let no_terminal = "Error: Cannot perform an interactive login from a non TTY device";
    refuses(&["login", ADDRESS], no_terminal);
    refuses(&["login", "-u", "me", ADDRESS], no_terminal);
    refuses(&["login", "-p", "x", ADDRESS], no_terminal);
    refuses(&["login"], no_terminal);
    refuses(
        &["login", "-u", "me", "-p", "", ADDRESS],
        "password is empty",
    );
    refuses(
        &["login", "-u", "me", "-p", "x", "a b"],
        "invalid registry \"a b\"",
    );
    refuses(&["logout", "me@host"], "invalid registry \"me@host\"");
    refuses(&["login", "a", "b"], "requires at most 1 argument");
    refuses(&["logout", "a", "b"], "requires at most 1 argument");
    refuses(
        &["login", "-u", "me", "-p", "x", "127.0.0.1:5999"],
        "cannot reach registry 127.0.0.1:5999: connection refused",
    );
    host.run(&format!("logout {ADDRESS}"));
}

fn login_asks_on_a_terminal_and_shows_no_password() {
    let host = host();
    let _registry = Registry::start(&host, Access::Password);
    let mut terminal = Terminal::run(
        &host,
        &format!("$CORACLE login {ADDRESS}; echo \"ended $?\""),
    );
    terminal.shows("Username: ");
    terminal.types(&format!("{USER}\n"));
    terminal.shows(&format!("{USER}\r\nPassword: "));
    eventually("nothing is shown", || match terminal.is_cooked() {
        true => Err("it echoes"),
        false => Ok(()),
    });
    terminal.types(&format!("{PASSWORD}\n"));
    // Nothing of it stands between the question and what follows.
    terminal.shows("\r\n\r\nWARNING! Your credentials are stored unencrypted");
    terminal.shows("Login Succeeded\r\nended 0");
    assert!(terminal.is_cooked());
    assert_eq!(config(&host)["auths"][ADDRESS]["auth"], AUTH);
    // What is kept does not work any more: the name is offered again.
    write_config(
        &host,
        &format!("{{\"auths\":{{\"{ADDRESS}\":{{\"auth\":\"c2FpbG9yOm5vcGU=\"}}}}}}"),
    );
    let mut terminal = Terminal::run(
        &host,
        &format!("$CORACLE login {ADDRESS}; echo \"ended $?\""),
    );
    terminal.shows("Login did not succeed, error: ");
    terminal.shows(&format!("Username ({USER}): "));
    terminal.types("\n");
    terminal.shows("Password: ");
    eventually("nothing is shown", || match terminal.is_cooked() {
        true => Err("it echoes"),
        false => Ok(()),
    });
    terminal.types(&format!("{PASSWORD}\n"));
    terminal.shows("ended 0");
    assert_eq!(config(&host)["auths"][ADDRESS]["auth"], AUTH);
    for (line, keys, text) in [
        (
            "login other.io",
            "\n",
            "Error: Non-null Username Required\r\nended 1",
        ),
        (
            "login -u me other.io",
            "\n",
            "Error: Password Required\r\nended 1",
        ),
    ] {
        let mut terminal = Terminal::run(&host, &format!("$CORACLE {line}; echo \"ended $?\""));
        terminal.shows(": ");
        terminal.types(keys);
        terminal.shows(text);
    }
}

fn a_terminal_shows_again_when_login_is_killed() {
    let host = host();
    for signal in [Signal::SIGKILL, Signal::SIGINT] {
        let mark = host.folder().join("pid");
        let _ = fs::remove_file(&mark);
        let line = format!(
            "sh -c 'echo $$ >{0}.new; mv {0}.new {0}; exec $CORACLE login -u me other.io'; echo \"ended $?\"",
            mark.display()
        );
        let mut terminal = Terminal::run(&host, &line);
        terminal.shows("Password: ");
        eventually("nothing is shown", || match terminal.is_cooked() {
            true => Err("it echoes"),
            false => Ok(()),
        });
        let pid = fs::read_to_string(&mark).unwrap().trim().parse().unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
        terminal.shows("ended");
        eventually("what is typed is shown", || match terminal.is_cooked() {
            true => Ok(()),
            false => Err("it does not echo"),
        });
    }
}

fn login_leaves_a_configuration_that_it_cannot_read() {
    let host = host();
    let _registry = Registry::start(&host, Access::Password);
    for text in ["{\"auths\":", "[]"] {
        write_config(&host, text);
        for line in [
            format!("login -u {USER} -p {PASSWORD} {ADDRESS}"),
            format!("logout {ADDRESS}"),
        ] {
            let output = host.try_run(&line).exits(1);
            output.complains("config.json: it is not Docker's configuration");
            assert_eq!(fs::read_to_string(config_path(&host)).unwrap(), text);
        }
    }
}

/// A helper that keeps one file for each server, and notes what it was asked.
const HELPER: &str = r#"#!/bin/sh
input=$(cat)
echo "$1 $input" >>"$KEYS/asked"
case $1 in
store) server=$(echo "$input" | sed 's/.*"ServerURL":"\([^"]*\)".*/\1/'); echo "$input" >"$KEYS/$(echo "$server" | tr / _)" ;;
get) cat "$KEYS/$(echo "$input" | tr / _)" 2>/dev/null || { echo "credentials not found in native keychain"; exit 1; } ;;
erase) rm -f "$KEYS/$(echo "$input" | tr / _)" ;;
esac
"#;

fn login_hands_the_credentials_to_helpers() {
    let host = host();
    let _registry = Registry::start(&host, Access::Password);
    let (bin, keys) = (host.folder().join("bin"), host.folder().join("keys"));
    for folder in [&bin, &keys] {
        fs::create_dir_all(folder).unwrap();
    }
    for (name, text) in [
        ("mine", HELPER),
        ("broken", "#!/bin/sh\necho the safe is locked\nexit 3\n"),
    ] {
        let path = bin.join(format!("docker-credential-{name}"));
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let try_run = |line: &str| {
        let command = host.command(line.split_whitespace());
        let command: Cmd = command.env("PATH", &path).env("KEYS", &keys);
        command.run_in(&host.netns)
    };
    let login = format!("login -u {USER} -p {PASSWORD} {ADDRESS}");
    let pull = format!("pull {ADDRESS}/nothing:1");
    write_config(&host, "{\"credsStore\":\"mine\"}");
    let output = try_run(&login).ok().says("Login Succeeded");
    assert_eq!(output.stderr, INSECURE, "nothing lies in the open");
    assert_eq!(
        config(&host).to_string(),
        format!("{{\"credsStore\":\"mine\",\"auths\":{{\"{ADDRESS}\":{{}}}}}}")
    );
    let entry = fs::read_to_string(keys.join(ADDRESS)).unwrap();
    assert_eq!(
        entry.trim(),
        format!(
            "{{\"ServerURL\":\"{ADDRESS}\",\"Username\":\"{USER}\",\"Secret\":\"{PASSWORD}\"}}"
        )
    );
    let known = try_run(&pull).exits(1);
    assert!(!known.stderr.contains("no basic auth"), "{known}");
    try_run(&format!("login {ADDRESS}"))
        .ok()
        .complains("[Username: sailor]");
    try_run(&format!("logout {ADDRESS}")).ok();
    assert!(!keys.join(ADDRESS).exists());
    assert_eq!(
        config(&host).to_string(),
        "{\"credsStore\":\"mine\",\"auths\":{}}"
    );
    try_run(&pull)
        .exits(1)
        .complains("no basic auth credentials");
    let asked = fs::read_to_string(keys.join("asked")).unwrap();
    assert!(
        asked.ends_with(&format!("erase {ADDRESS}\nget {ADDRESS}\n")),
        "{asked}"
    );
    // One registry's own helper, and one that knows a token.
    write_config(
        &host,
        &format!("{{\"credsStore\":\"nope\",\"credHelpers\":{{\"{ADDRESS}\":\"mine\"}}}}"),
    );
    fs::write(
        keys.join(ADDRESS),
        "{\"Username\":\"<token>\",\"Secret\":\"identity\"}",
    )
    .unwrap();
    try_run(&pull)
        .exits(1)
        .complains("an identity token is stored for it, and it wants a password: log in again");
    // Helpers that fail: what was to be kept is not said to be, and a pull goes on as nobody, aloud.
    for (name, why) in [
        (
            "nope",
            "docker-credential-nope: config.json names it, and it is not in PATH",
        ),
        (
            "broken",
            "docker-credential-broken: `store`: exit status: 3: the safe is locked",
        ),
        (
            "../mine",
            "\"../mine\" in config.json is not the name of a helper",
        ),
    ] {
        let text = format!("{{\"credsStore\":{name:?}}}");
        write_config(&host, &text);
        let output = try_run(&login).exits(1).complains(why);
        assert_eq!(output.stdout, "", "{output}");
        assert_eq!(fs::read_to_string(config_path(&host)).unwrap(), text);
        let output = try_run(&pull).exits(1);
        let said = format!("{}{}", output.stdout, output.stderr);
        assert!(said.contains("going on without credentials"), "{output}");
        try_run(&format!("logout {ADDRESS}")).exits(1);
    }
}
