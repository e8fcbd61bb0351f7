//! A real registry (the distribution's `docker-registry`) on the loopback of a host of ours, filled with skopeo.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::{Cmd, Host, Netns, Output, Running, eventually, net};

/// Where it listens: inside the host's own namespace, so that all can use the same port.
pub const ADDRESS: &str = "127.0.0.1:5000";

/// The one who may pull from a registry with a password, and the password.
pub const USER: &str = "sailor";
pub const PASSWORD: &str = "secret";

/// `htpasswd -nbB` of the above.
const HTPASSWD: &str = "sailor:$2b$05$2RYFAzxvsk5FGH5T2X.jaet7BT0cBh/v.0qv./BDiNL1A5nrzfCX2\n";

/// May anyone pull?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Open,
    Password,
}

/// A registry that runs until dropped.
#[derive(Debug)]
pub struct Registry<'a> {
    /// Killed when dropped.
    #[allow(dead_code, reason = "held, not used: dropping it ends the registry")]
    server: Running,
    storage: TempDir,
    netns: &'a Netns,
    access: Access,
}

impl<'a> Registry<'a> {
    #[track_caller]
    pub fn start(host: &'a Host, access: Access) -> Registry<'a> {
        Registry::start_in(&host.netns, access)
    }

    /// One in a namespace that is no host's.
    #[track_caller]
    pub fn start_in(netns: &'a Netns, access: Access) -> Registry<'a> {
        let storage = tempfile::tempdir().expect("a folder for a registry");
        let mut config = format!(
            "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {ADDRESS}\n",
            storage.path().display()
        );
        if access == Access::Password {
            let passwords = storage.path().join("htpasswd");
            fs::write(&passwords, HTPASSWD).expect("write htpasswd");
            config += &format!(
                "auth:\n  htpasswd:\n    realm: test\n    path: {}\n",
                passwords.display()
            );
        }
        let path = storage.path().join("config.yml");
        fs::write(&path, config).expect("write config.yml");
        let server = Cmd::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .env("OTEL_TRACES_EXPORTER", "none")
            .limit(Duration::from_secs(3600))
            .spawn_in(netns);
        let registry = Registry {
            server,
            storage,
            netns,
            access,
        };
        eventually("the registry listens", || {
            net::connect(registry.netns, ADDRESS)
        });
        registry
    }

    /// The name of an image in it: `image("redis:7")` is `127.0.0.1:5000/redis:7`.
    pub fn image(&self, name: &str) -> String {
        format!("{ADDRESS}/{name}")
    }

    /// Pushes what an OCI layout has under `tag`, all platforms of it, as `name` (with a tag of its own).
    #[track_caller]
    pub fn push(&self, layout: &Path, tag: &str, name: &str) -> Output {
        let mut cmd = Cmd::new("skopeo").args([
            "--insecure-policy",
            "copy",
            "--quiet",
            "--all",
            "--dest-tls-verify=false",
        ]);
        if self.access == Access::Password {
            cmd = cmd.arg("--dest-creds").arg(format!("{USER}:{PASSWORD}"));
        }
        cmd.arg(format!("oci:{}:{tag}", layout.display()))
            .arg(format!("docker://{}", self.image(name)))
            .run_in(self.netns)
            .ok()
    }

    /// The file in which a blob is kept; for a test that breaks it.
    pub fn blob(&self, digest: &str) -> PathBuf {
        let blobs = self.storage.path().join("docker/registry/v2/blobs/sha256");
        blobs.join(&digest[..2]).join(digest).join("data")
    }
}
