//! How a command fails: what is said on stderr, and the exit code. Must not decide anything else.

use runtime::ErrorKind;

/// A failed command.
#[derive(Debug)]
pub enum Failure {
    /// Option values that were refused before the engine saw them.
    Refused(anyhow::Error),
    /// The engine's answer.
    Engine(runtime::Error),
    /// What a file or stdin held is not what it must be; `name` is the user's for it.
    Input {
        name: String,
        error: Box<runtime::Error>,
    },
    /// A text that people script against, printed as it is.
    Plain {
        text: String,
        code: i32,
    },
    NeedsRoot,
    /// Something of this program's own: a stream, a file.
    Own(anyhow::Error),
}

impl From<runtime::Error> for Failure {
    fn from(error: runtime::Error) -> Failure {
        Failure::Engine(error)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::Own(error)
    }
}

impl From<image::Error> for Failure {
    fn from(error: image::Error) -> Failure {
        Failure::Engine(error.into())
    }
}

/// Exit codes and the pointer to `--help` differ between `run` and the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Run,
    Create,
    Exec,
    Other,
}

/// What is printed, and the exit code.
#[derive(Debug, PartialEq, Eq)]
pub struct Report {
    pub text: String,
    pub code: i32,
}

const NEEDS_ROOT: &str = "coracle needs root to make namespaces, mounts and firewall rules: run it with sudo \
     (rootless is not built yet)";

impl Failure {
    /// For what was read from a file or stdin: names it where that is to blame.
    pub fn of_input(name: &str, error: runtime::Error) -> Failure {
        match &error {
            runtime::Error::Image(of_image) if is_of_the_image(of_image) => Failure::Input {
                name: name.to_owned(),
                error: Box::new(error),
            },
            _ => Failure::Engine(error),
        }
    }

    /// As Docker's client 28 reports it, with our own name.
    pub fn report(&self, verb: Verb) -> Report {
        let own_code = if verb == Verb::Run { 125 } else { 1 };
        let (message, code) = match self {
            Failure::NeedsRoot => {
                return Report {
                    text: NEEDS_ROOT.to_owned(),
                    code: own_code,
                };
            }
            Failure::Plain { text, code } => {
                return Report {
                    text: text.clone(),
                    code: *code,
                };
            }
            Failure::Refused(error) => {
                let code = if verb == Verb::Create { 125 } else { own_code };
                (chain(error.as_ref()), code)
            }
            Failure::Own(error) => (chain(error.as_ref()), own_code),
            Failure::Input { name, error } => {
                let text = printable(&format!("{name}: {}", chain(error)));
                (text, own_code)
            }
            Failure::Engine(error) => {
                let code = match (verb, error.kind()) {
                    (Verb::Run | Verb::Exec, ErrorKind::NotExecutable) => 126,
                    (Verb::Run | Verb::Exec, ErrorKind::CommandNotFound) => 127,
                    // The container could not begin what it was told to: Docker's code for a user that is not there.
                    (Verb::Exec, ErrorKind::Invalid)
                        if matches!(error, runtime::Error::Program { .. }) =>
                    {
                        126
                    }
                    _ => own_code,
                };
                let text = match error {
                    // Images and registries put names of their own into it.
                    runtime::Error::Image(_) => printable(&chain(error)),
                    _ => chain(error),
                };
                (text, code)
            }
        };
        let mut text = format!("coracle: {message}");
        if let Failure::Engine(error) = self
            && let Some(advice) = advice(error).or_else(|| make_room(&message))
        {
            text.push_str("\n\n");
            text.push_str(&advice);
        }
        if matches!(self, Failure::Input { .. }) {
            text.push_str(
                "\n\nNothing of it was kept. Look whether it is the right file, and make it or fetch it again.",
            );
        }
        let refused_create = verb == Verb::Create && matches!(self, Failure::Refused(_));
        match verb {
            Verb::Run => text.push_str("\n\nRun 'coracle run --help' for more information"),
            _ if refused_create => {
                text.push_str("\n\nRun 'coracle create --help' for more information");
            }
            _ => {}
        }
        Report { text, code }
    }
}

/// An error and its causes on one line, each said once.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = without_number(error.to_string());
    let mut cause = error.source();
    while let Some(next) = cause {
        let words = without_number(next.to_string());
        // A transparent error repeats its cause.
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = next.source();
    }
    text
}

/// A text of others on one line, without what a terminal would obey.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter.is_control() {
            true => out.extend(letter.escape_default()),
            false => out.push(letter),
        }
    }
    out
}

/// ` (os error 2)` tells nobody anything, and what the C library begins with a capital is in the middle of our line.
fn without_number(text: String) -> String {
    match text.rfind(" (os error ") {
        Some(at) if text.ends_with(')') => {
            let mut rest = text[..at].chars();
            let first = rest.next().map(|letter| letter.to_ascii_lowercase());
            first.into_iter().chain(rest).collect()
        }
        _ => text,
    }
}

/// Whether what arrived is to blame, and not a file of this host's: errors name those by their path.
fn is_of_the_image(error: &image::Error) -> bool {
    match error {
        image::Error::Untrusted { what, .. } => !what.starts_with('/'),
        error => error.kind() == image::ErrorKind::Untrusted,
    }
}

/// What to do about it, where a kind of failure has one remedy.
fn advice(error: &runtime::Error) -> Option<String> {
    match (error, error.kind()) {
        // Only where the image crate's own hint is about TLS; it does not know our options.
        (runtime::Error::Image(image::Error::Unreachable { hint, registry, .. }), _)
            if hint.contains("insecure registry") =>
        {
            Some(format!(
                "It is listed by --insecure-registry {registry}, or by insecure-registries = [\"{registry}\"] in the configuration file."
            ))
        }
        (runtime::Error::Image(image::Error::PushDenied { .. }), _) => Some(
            "Log in with 'coracle login', as one who may push there, or name a repository of your own with 'coracle tag'."
                .to_owned(),
        ),
        (runtime::Error::Image(image::Error::LoginRefused { .. }), _) => None,
        (runtime::Error::Image(error), _) if is_of_the_image(error) => Some(
            "Nothing of it was kept. Get it again, or another tag of it; if that is no better, tell those who publish it."
.to_owned(),
        ),
        (runtime::Error::Image(_), ErrorKind::Forbidden) => Some(
            "Credentials are those that 'coracle login' or 'docker login' has left in ~/.docker/config.json."
                .to_owned(),
        ),
        _ => None,
    }
}

/// The same for a full disk, which any operation may meet: known by what the kernel and SQLite call it, as some causes are kept as text.
fn make_room(message: &str) -> Option<String> {
    let text = message.to_lowercase();
    let full = [
        "no space left on device",
        "database or disk is full",
        "disk quota exceeded",
    ];
    let is_full = full.iter().any(|words| text.contains(words));
    (is_full && !text.contains("remove images")).then(|| {
        "Make room there: 'coracle system df' tells what images, containers and volumes take, 'coracle system prune' frees what is unused."
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn only_run_has_125_and_points_to_its_help() {
        let failure = Failure::Engine(runtime::Error::NoSuchContainer("x".into()));
        let run = failure.report(Verb::Run);
        assert_eq!(run.code, 125);
        assert_eq!(
            run.text,
            "coracle: No such container: x\n\nRun 'coracle run --help' for more information"
        );
        let other = failure.report(Verb::Other);
        assert_eq!(other.code, 1);
        assert_eq!(other.text, "coracle: No such container: x");
        assert_eq!(failure.report(Verb::Create).code, 1);
    }

    #[test]
    fn a_refused_option_is_125_for_create_too() {
        let failure = Failure::Refused(anyhow::anyhow!("invalid hostPort: 99999"));
        let create = failure.report(Verb::Create);
        assert_eq!(create.code, 125);
        assert_eq!(
            create.text,
            "coracle: invalid hostPort: 99999\n\nRun 'coracle create --help' for more information"
        );
        assert_eq!(failure.report(Verb::Other).code, 1);
    }

    #[test]
    fn what_an_image_says_does_not_reach_the_terminal() {
        let error = image::Error::Untrusted {
            what: "\u{1b}[2Jmanifest".into(),
            why: "é\ncoracle: all is well\u{9b}".into(),
        };
        let text = Failure::Engine(error.into()).report(Verb::Other).text;
        let first = text.lines().next().unwrap();
        assert_eq!(
            first,
            "coracle: \\u{1b}[2Jmanifest: é\\ncoracle: all is well\\u{9b}"
        );
        assert!(text.contains("Nothing of it was kept"), "{text}");
        let own = image::Error::Untrusted {
            what: "/root/.docker/config.json".into(),
            why: "not JSON".into(),
        };
        let text = Failure::Engine(own.into()).report(Verb::Other).text;
        assert!(!text.contains("kept"), "{text}");
    }

    #[test]
    fn the_chain_is_on_one_line_and_says_each_cause_once() {
        let error = Err::<(), _>(std::io::Error::other("disk on fire"))
            .context("open /f")
            .unwrap_err();
        assert_eq!(chain(error.as_ref()), "open /f: disk on fire");
        let os = Err::<(), _>(std::io::Error::from_raw_os_error(2)).context("open /f");
        assert_eq!(
            chain(os.unwrap_err().as_ref()),
            "open /f: no such file or directory"
        );
        let transparent = runtime::Error::Network(netmgr::Error::NetworkNotFound("n".into()));
        assert_eq!(chain(&transparent), "network n not found");
    }

    #[test]
    fn a_full_disk_is_told_with_what_to_do_and_only_once() {
        let advice = make_room("read the archive -: write /r/x: No space left on device");
        assert!(advice.is_some_and(|text| text.contains("coracle system prune")));
        assert!(make_room("database: commit: database or disk is full").is_some());
        let told = "create file /x: remove images or choose another root: no space left on device";
        assert_eq!(make_room(told), None);
        assert_eq!(make_room("No such image: x"), None);
    }
}
