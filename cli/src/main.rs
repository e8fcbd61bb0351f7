//! The command line. Holds no logic: a command is one call of the engine, typed in and out.

mod args;
mod commands;
mod config;
mod failure;
mod logging;
mod oci;
mod output;
mod sigpipe;

use std::io::Write;

use args::failure::Stream;

fn main() {
    // A monitor is this program started again; it must get there before anything is allocated that it would keep.
    if let Some(code) = runtime::monitor::reexec() {
        std::process::exit(code);
    }
    if let Some(code) = runtime::standalone::hooks::reexec() {
        std::process::exit(code);
    }
    let words: Vec<std::ffi::OsString> = std::env::args_os().collect();
    // Before SIGPIPE is given its default back: a hook need not read what it is told, and a container's log may be closed.
    if let Some(code) = oci::called(&words) {
        std::process::exit(code);
    }
    sigpipe::restore_default();
    let cli = match args::parse(&words) {
        Ok(cli) => cli,
        Err(refused) => {
            match refused.stream {
                Stream::Stdout => say(&mut std::io::stdout(), &refused.text),
                Stream::Stderr => say(&mut std::io::stderr(), &refused.text),
            }
            std::process::exit(refused.code);
        }
    };
    // What containers see and the store keeps is not the caller's umask to decide. What is written for the caller has a mode of its own.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    logging::start(cli.global.debug);
    let verb = cli.command.verb();
    let code = match commands::dispatch(cli.command, cli.global) {
        Ok(code) => code,
        Err(failure) => {
            let report = failure.report(verb);
            if !report.text.is_empty() {
                say(&mut std::io::stderr(), &report.text);
            }
            report.code
        }
    };
    std::process::exit(code);
}

/// There is nothing left to do where even this cannot be written.
fn say(out: &mut dyn Write, text: &str) {
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}
