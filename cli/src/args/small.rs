//! Options of `run` and `create` that are small and of no group.

use std::path::PathBuf;

use clap::Args;
use runtime::ContainerRequest;

use super::values;
use crate::failure::Failure;

#[derive(Debug, Args)]
pub struct SmallArgs {
    /// Domain name of the container
    #[arg(long, value_name = "NAME")]
    domainname: Option<String>,
    /// Read labels from a file
    #[arg(long, value_name = "FILE")]
    label_file: Vec<PathBuf>,
    /// Write the container's ID to a file, which must not exist
    #[arg(long, value_name = "FILE")]
    pub cidfile: Option<PathBuf>,
    /// Platform of the image: OS[/ARCHITECTURE[/VARIANT]]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// Hand a note to the OCI runtime: KEY=VALUE
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_annotation)]
    annotation: Vec<(String, String)>,
    /// Accepted for Docker's sake: images are not signed
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", value_parser = values::parse_bool, action = clap::ArgAction::Set, hide = true)]
    disable_content_trust: bool,
    /// Not built: user networks have names
    #[arg(long, value_name = "CONTAINER[:ALIAS]", hide = true)]
    link: Vec<String>,
    #[arg(long, value_name = "ADDRESS", hide = true)]
    link_local_ip: Vec<String>,
    #[arg(long, value_name = "OPTION", hide = true)]
    storage_opt: Vec<String>,
    #[arg(long, value_name = "REQUEST", hide = true)]
    gpus: Option<String>,
}

impl SmallArgs {
    /// Enters the options in the request.
    pub fn apply(&self, request: &mut ContainerRequest) -> Result<(), Failure> {
        self.refuse_what_is_not_built()?;
        let mut labels = values::read_label_files(&self.label_file).map_err(Failure::Refused)?;
        labels.append(&mut request.labels);
        request.labels = labels;
        request.domainname = self.domainname.clone().filter(|name| !name.is_empty());
        request.platform = self.platform.clone().filter(|text| !text.is_empty());
        if let Some(text) = &request.platform {
            Platform::parse(text).map_err(|why| Failure::Refused(anyhow::anyhow!(why)))?;
        }
        request.annotations.clone_from(&self.annotation);
        request.cid_file.clone_from(&self.cidfile);
        Ok(())
    }

    /// Flags that people bring along, and what to do instead.
    fn refuse_what_is_not_built(&self) -> Result<(), Failure> {
        if let Some(link) = self.link.first() {
            return Err(Failure::Refused(anyhow::anyhow!(
                "--link {link} is not supported: containers on a network of your own reach each other by name \
                 ('coracle network create NET', then '--network NET' for both)"
            )));
        }
        let missing = [
            (
                "link-local-ip",
                self.link_local_ip.first(),
                "'--ip' and '--ip6' give an address of a network",
            ),
            (
                "storage-opt",
                self.storage_opt.first(),
                "a quota of the file system below --root limits all containers",
            ),
            (
                "gpus",
                self.gpus.as_ref(),
                "'--device' gives the container a device of the host",
            ),
        ];
        for (flag, value, instead) in missing {
            if let Some(value) = value {
                return Err(Failure::Refused(anyhow::anyhow!(
                    "--{flag} {value} is not supported: {instead}"
                )));
            }
        }
        Ok(())
    }
}

fn parse_annotation(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("invalid argument {text:?}: must be KEY=VALUE")),
    }
}

/// `linux/arm64/v8`, `linux`, `arm64`; what is not said is this machine's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
}

const SYSTEMS: [&str; 4] = ["linux", "windows", "darwin", "freebsd"];

impl Platform {
    pub fn parse(text: &str) -> Result<Platform, String> {
        let failed =
            |why: String| format!("error parsing specified platform: {why}: invalid argument");
        let is_word = |word: &str| {
            !word.is_empty()
                && word
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        };
        let parts: Vec<&str> = text.splitn(4, '/').collect();
        if let Some(bad) = parts.iter().find(|part| !is_word(part)) {
            return Err(failed(format!(
                "{bad:?} is an invalid component of {text:?}: platform specifier component must match \"^[A-Za-z0-9_.-]+$\""
            )));
        }
        let machine = std::env::consts::ARCH;
        let (os, architecture) = match parts[..] {
            [os] if SYSTEMS.contains(&os.to_lowercase().as_str()) => (os, machine),
            [architecture] if is_architecture(&normal(architecture)) => ("linux", architecture),
            [_] => {
                return Err(failed(format!(
                    "{text:?}: unknown operating system or architecture"
                )));
            }
            [os, architecture, ..] => (os, architecture),
            [] => return Err(failed(format!("{text:?}: cannot parse platform specifier"))),
        };
        Ok(Platform {
            os: os.to_lowercase(),
            architecture: normal(architecture),
        })
    }
}

/// As images write it (GOARCH).
fn normal(architecture: &str) -> String {
    let lower = architecture.to_lowercase();
    match lower.as_str() {
        "x86_64" | "x86-64" => "amd64".to_owned(),
        "aarch64" => "arm64".to_owned(),
        "i386" | "x86" => "386".to_owned(),
        "armhf" | "armel" => "arm".to_owned(),
        _ => lower,
    }
}

fn is_architecture(name: &str) -> bool {
    [
        "amd64", "arm64", "386", "arm", "ppc64le", "s390x", "riscv64", "mips64le", "loong64",
    ]
    .contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_is_read_as_docker_reads_it() {
        let read = |text: &str| {
            let platform = Platform::parse(text).unwrap();
            format!("{}/{}", platform.os, platform.architecture)
        };
        assert_eq!(read("linux/arm64/v8"), "linux/arm64");
        assert_eq!(read("Linux/x86_64"), "linux/amd64");
        assert_eq!(read("aarch64"), "linux/arm64");
        assert_eq!(
            read("linux"),
            read(&format!("linux/{}", std::env::consts::ARCH))
        );
        assert_eq!(
            Platform::parse("bogus").unwrap_err(),
            "error parsing specified platform: \"bogus\": unknown operating system or architecture: invalid argument"
        );
        assert_eq!(
            Platform::parse("a/b/c/d/e").unwrap_err(),
            "error parsing specified platform: \"d/e\" is an invalid component of \"a/b/c/d/e\": platform specifier \
             component must match \"^[A-Za-z0-9_.-]+$\": invalid argument"
        );
    }
}
