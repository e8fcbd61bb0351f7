//! What is mounted in the container beside `-v`.

use anyhow::Context;
use clap::Args;
use runtime::request::MountOptions;
use runtime::{ContainerRequest, Mount, MountKind};

use super::mount_spec::{self, MountSpec};
use super::sizes::parse_size;
use crate::failure::Failure;

#[derive(Debug, Args)]
pub struct MountArgs {
    /// Mount a host path, a volume or memory: type=bind|volume|tmpfs,source=SOURCE,target=PATH[,readonly]
    #[arg(long, value_name = "SPEC", value_parser = mount_spec::parse)]
    mount: Vec<MountSpec>,
    /// Mount memory: PATH[:OPTIONS]
    #[arg(long, value_name = "PATH")]
    tmpfs: Vec<String>,
    /// The root filesystem cannot be written
    #[arg(long)]
    read_only: bool,
    /// Size of /dev/shm, such as 128m; 64m if not said
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    shm_size: Option<u64>,
    /// Mount what another container has: CONTAINER[:ro|rw]
    #[arg(long, value_name = "CONTAINER")]
    volumes_from: Vec<String>,
    /// Driver of the volumes that are made: local is the one there is
    #[arg(long, value_name = "DRIVER")]
    volume_driver: Option<String>,
    /// A small first process reaps orphans and passes signals on
    #[arg(long)]
    init: bool,
}

impl MountArgs {
    /// Enters the options in the request.
    pub fn apply(&self, request: &mut ContainerRequest) -> Result<(), Failure> {
        let cwd = std::env::current_dir()
            .context("find the current directory")
            .map_err(Failure::Refused)?;
        for spec in &self.mount {
            let mount = spec.mount(&cwd);
            request
                .mounts
                .push(mount.map_err(|error| Failure::Refused(error.into()))?);
        }
        request
            .mounts
            .extend(self.tmpfs.iter().map(|text| tmpfs(text)));
        request.read_only = self.read_only;
        // 0 is as much as nothing said.
        request.shm_size = self.shm_size.filter(|bytes| *bytes > 0);
        request.volumes_from.clone_from(&self.volumes_from);
        request.init = self.init;
        if let Some(driver) = &self.volume_driver {
            let named = request.mounts.iter().find_map(|mount| match &mount.kind {
                MountKind::Volume(name) => Some(name.as_str()),
                _ => None,
            });
            runtime::engine::volumes::check_driver(named.unwrap_or_default(), driver)
                .map_err(|error| Failure::Refused(error.into()))?;
            request.volume_driver = Some(driver.clone());
        }
        Ok(())
    }
}

fn tmpfs(text: &str) -> Mount {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    Mount {
        options: MountOptions {
            written: text.to_owned(),
            ..MountOptions::default()
        },
        ..Mount::new(MountKind::Tmpfs(options.to_owned()), target)
    }
}
