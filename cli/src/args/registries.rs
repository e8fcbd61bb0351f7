//! Options of every command that talks to a registry.

use std::path::PathBuf;

use clap::Args;
use image::registry::{Insecure, Mirror, Registries};

use crate::config::Config;

/// Where certificates of registries are looked for; the second is Docker's.
const CERTIFICATES: [&str; 2] = ["/etc/coracle/certs.d", "/etc/docker/certs.d"];

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct RegistryArgs {
    /// Registry (HOST[:PORT]) or network (CIDR) that may be reached without verified TLS; loopback addresses always may
    #[arg(
        long,
        global = true,
        env = "CORACLE_INSECURE_REGISTRIES",
        value_name = "HOST",
        value_delimiter = ',',
        hide_env_values = true
    )]
    insecure_registry: Vec<Insecure>,
    /// Mirror of docker.io (https://HOST[:PORT]) that is asked before docker.io itself
    #[arg(
        long,
        global = true,
        env = "CORACLE_REGISTRY_MIRRORS",
        value_name = "URL",
        value_delimiter = ',',
        hide_env_values = true
    )]
    registry_mirror: Vec<Mirror>,
    /// Folder of registries' certificates, HOST[:PORT]/{*.crt,*.cert,*.key}; /etc/coracle/certs.d, then /etc/docker/certs.d
    #[arg(
        long,
        global = true,
        env = "CORACLE_CERT_DIR",
        value_name = "DIR",
        hide_env_values = true
    )]
    cert_dir: Option<PathBuf>,
}

impl RegistryArgs {
    /// Options and the environment before the file, each list as a whole.
    pub fn registries(&self, config: &Config) -> Registries {
        let folder = self.cert_dir.as_ref().or(config.cert_dir.as_ref());
        Registries {
            insecure: first(&self.insecure_registry, &config.insecure_registries),
            mirrors: first(&self.registry_mirror, &config.registry_mirrors),
            certificates: match folder {
                Some(folder) => vec![folder.clone()],
                None => CERTIFICATES.map(PathBuf::from).to_vec(),
            },
            credentials: None,
        }
    }
}

fn first<T: Clone>(given: &[T], configured: &[T]) -> Vec<T> {
    match given.is_empty() {
        true => configured.to_vec(),
        false => given.to_vec(),
    }
}
