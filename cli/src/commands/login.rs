//! `login`: credentials that a registry takes are kept for later commands. Texts and order of questions are Docker's.

use std::io::{BufRead, IsTerminal, Read, Write};

use anyhow::Context as _;
use clap::Args;
use image::registry::Watcher;
use image::registry::credentials::{Credentials, Kept};
use image::registry::login::{self, Server};
use runtime::attach::hidden;

use super::{Answer, Context};
use crate::failure::{Failure, Verb};
use crate::output;

/// Authenticate to a registry; docker.io if none is named
#[derive(Debug, Args)]
#[command(override_usage = "coracle login [OPTIONS] [SERVER]")]
pub struct Login {
    /// Password or access token
    #[arg(short, long, value_name = "STRING")]
    password: Option<String>,
    /// Take the password or access token from stdin
    #[arg(long)]
    password_stdin: bool,
    /// Username
    #[arg(short, long, value_name = "STRING")]
    username: Option<String>,
    #[arg(value_name = "SERVER")]
    server: Option<String>,
}

/// What registries and helpers have to say while they are asked goes to stderr.
pub struct Stderr;

impl Watcher for Stderr {
    fn notice(&self, text: String) {
        eprintln!("{text}");
    }

    fn cancelled(&self) -> bool {
        false
    }
}

pub fn run(context: &Context, options: Login) -> Answer {
    let password = given_password(&options)?;
    let server = Server::parse(options.server.as_deref())?;
    let mut user = options.username.filter(|user| !user.is_empty());
    if user.is_none()
        && password.is_none()
        && let Some(stored) = login::stored(&server, &Stderr)?
    {
        match with_stored(context, &server, &stored) {
            Ok(()) => return succeeded(&server, &stored),
            Err(failure) => {
                let why = failure.report(Verb::Other).text;
                eprintln!("Login did not succeed, error: {why}");
                user = Some(stored.user).filter(|user| user != "<token>");
                let credentials = ask(&server, None, user.as_deref(), None)?;
                return try_and_keep(context, &server, &credentials);
            }
        }
    }
    let credentials = match (user, password) {
        (Some(user), Some(password)) => Credentials::password(&user, &password),
        (user, password) => ask(&server, user, None, password)?,
    };
    try_and_keep(context, &server, &credentials)
}

/// The password as far as the command line or stdin gives it.
fn given_password(options: &Login) -> Result<Option<String>, Failure> {
    if let Some(password) = &options.password {
        if options.password_stdin {
            return Err(plain(
                "conflicting options: cannot specify both --password and --password-stdin",
            ));
        }
        if password.is_empty() {
            return Err(plain("password is empty"));
        }
        eprintln!("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
        return Ok(Some(password.clone()));
    }
    if !options.password_stdin {
        return Ok(None);
    }
    if options.username.as_deref().unwrap_or("").is_empty() {
        return Err(plain(
            "the --password-stdin option requires --username to be set",
        ));
    }
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .context("cannot read the password from stdin")?;
    let password = text.trim_end_matches(['\r', '\n']);
    match password.is_empty() {
        true => Err(plain("password is empty")),
        false => Ok(Some(password.to_owned())),
    }
}

fn with_stored(context: &Context, server: &Server, stored: &Credentials) -> Result<(), Failure> {
    eprintln!(
        "Authenticating with existing credentials... [Username: {}]\n\n \
         Info -> To login with a different account, run 'coracle logout' followed by 'coracle login'\n\n",
        stored.user
    );
    login::check(server, stored, &context.registries(), &Stderr)?;
    Ok(())
}

/// Asks on the terminal for what is missing. `usual` is taken where no name is typed.
fn ask(
    server: &Server,
    user: Option<String>,
    usual: Option<&str>,
    password: Option<String>,
) -> Result<Credentials, Failure> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(plain(
            "Error: Cannot perform an interactive login from a non TTY device",
        ));
    }
    let user = match user {
        Some(user) => user,
        None => {
            if server.is_docker_io() {
                output::print("Log in with your Docker ID to pull from and push to Docker Hub.")?;
            }
            prompt(&match usual {
                Some(usual) => format!("Username ({usual}): "),
                None => "Username: ".to_owned(),
            })?;
            let mut line = String::new();
            let read = stdin.lock().read_line(&mut line);
            read.context("cannot read the user name")?;
            match (line.trim(), usual) {
                ("", Some(usual)) => usual.to_owned(),
                ("", None) => return Err(plain("Error: Non-null Username Required")),
                (typed, _) => typed.to_owned(),
            }
        }
    };
    let password = match password {
        Some(password) => password,
        None => {
            prompt("Password: ")?;
            let typed = hidden::read_line(&stdin).context("cannot read the password")?;
            output::print("")?;
            typed
        }
    };
    match password.is_empty() {
        true => Err(plain("Error: Password Required")),
        false => Ok(Credentials::password(&user, &password)),
    }
}

fn prompt(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.context("cannot write to stdout")?;
    Ok(())
}

fn try_and_keep(context: &Context, server: &Server, credentials: &Credentials) -> Answer {
    let kept = login::check(server, credentials, &context.registries(), &Stderr)?;
    succeeded(server, &kept)
}

fn succeeded(server: &Server, credentials: &Credentials) -> Answer {
    if let Kept::InFile(path) = login::store(server, credentials, &Stderr)? {
        eprintln!(
            "\nWARNING! Your credentials are stored unencrypted in '{}'.\n\
             Configure a credential helper to remove this warning. See\n\
             https://docs.docker.com/go/credential-store/\n",
            path.display()
        );
    }
    output::print("Login Succeeded")?;
    Ok(0)
}

fn plain(text: &str) -> Failure {
    Failure::Plain {
        text: text.to_owned(),
        code: 1,
    }
}
