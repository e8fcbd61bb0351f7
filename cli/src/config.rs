//! The configuration file: what an administrator sets for every command. Options and the environment stand above it.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, anyhow, bail};
use image::registry::{Insecure, Mirror};
use ipnet::Ipv4Net;
use serde::{Deserialize, Deserializer};

const FILE: &str = "/etc/coracle/config.toml";

/// Each key may be left out. An unknown key is refused: a misspelt one would do nothing, unseen.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Where networks without `--subnet` get theirs: `[{base = "10.200.0.0/16", size = 24}]`.
    #[serde(default)]
    default_address_pools: Vec<Pool>,
    /// As `--cert-dir`.
    pub cert_dir: Option<PathBuf>,
    /// As `--detach-keys`, where that is not given.
    pub detach_keys: Option<String>,
    /// As `--firewall`.
    pub firewall: Option<netmgr::Firewall>,
    /// As `--insecure-registry`.
    #[serde(default, deserialize_with = "parsed")]
    pub insecure_registries: Vec<Insecure>,
    /// The address of ports that are published without one; without it every address of the host.
    pub ip: Option<IpAddr>,
    /// As `--registry-mirror`.
    #[serde(default, deserialize_with = "parsed")]
    pub registry_mirrors: Vec<Mirror>,
}

/// A list of texts, each of which is refused where it stands.
fn parsed<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: std::fmt::Display>,
{
    let texts = Vec::<String>::deserialize(deserializer)?;
    let values = texts.iter().map(|text| text.parse());
    values
        .collect::<Result<_, _>>()
        .map_err(serde::de::Error::custom)
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pool {
    base: Ipv4Net,
    size: u8,
}

impl Config {
    /// Reads the file that was named, which must be there; else the usual one, if it is.
    pub fn load(named: Option<&Path>) -> anyhow::Result<Config> {
        let path = named.unwrap_or(Path::new(FILE));
        let text = match std::fs::read_to_string(path) {
            Err(error) if named.is_none() && error.kind() == ErrorKind::NotFound => {
                return Ok(Config::default());
            }
            text => text.with_context(|| format!("cannot read {}", path.display()))?,
        };
        parse(&text).with_context(|| format!("cannot use {}", path.display()))
    }

    pub fn pools(&self) -> Vec<netmgr::Pool> {
        let pools = self.default_address_pools.iter();
        pools
            .map(|pool| netmgr::Pool {
                base: pool.base,
                size: pool.size,
            })
            .collect()
    }
}

fn parse(text: &str) -> anyhow::Result<Config> {
    let config: Config = toml::from_str(text).map_err(|error| {
        let before = &text[..error.span().map_or(0, |span| span.start).min(text.len())];
        anyhow!(
            "line {}: {}",
            before.matches('\n').count() + 1,
            error.message()
        )
    })?;
    for pool in &config.default_address_pools {
        if pool.base.trunc() != pool.base {
            bail!(
                "default-address-pools: {} should be {}",
                pool.base,
                pool.base.trunc()
            );
        }
        // A subnet has a gateway and room for a container.
        if pool.size < pool.base.prefix_len() || pool.size > 30 {
            bail!(
                "default-address-pools: {} cannot be cut into subnets of /{}",
                pool.base,
                pool.size
            );
        }
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read() {
        let text = "detach-keys = \"ctrl-x\"\nfirewall = \"nftables\"\nip = \"127.0.0.1\"\n\
                    default-address-pools = [{base = \"10.200.0.0/16\", size = 24}]\n\
                    registry-mirrors = [\"https://m.io\"]\ncert-dir = \"/c\"\n\
                    insecure-registries = [\"r.io:5000\", \"10.0.0.0/8\"]\n";
        let config = parse(text).unwrap();
        assert_eq!(config.detach_keys.as_deref(), Some("ctrl-x"));
        assert_eq!(config.firewall, Some(netmgr::Firewall::Nftables));
        assert_eq!(config.ip, Some("127.0.0.1".parse().unwrap()));
        assert_eq!(config.pools()[0].size, 24);
        assert_eq!(config.registry_mirrors, ["https://m.io".parse().unwrap()]);
        assert_eq!(config.insecure_registries.len(), 2);
        assert_eq!(config.cert_dir.as_deref(), Some(Path::new("/c")));
        assert_eq!(parse("# nothing\n").unwrap(), Config::default());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, expected) in [
            (
                "# first\nfirewal = \"none\"\n",
                "line 2: unknown field `firewal`",
            ),
            ("\n\nfirewall = \"pf\"\n", "line 3: unknown variant `pf`"),
            ("ip = 5\n", "line 1: "),
            (
                "\nregistry-mirrors = [\"m.io\"]\n",
                "line 2: invalid mirror \"m.io\": unsupported scheme",
            ),
            (
                "insecure-registries = [\"r.io/x\"]\n",
                "line 1: invalid insecure registry \"r.io/x\": ",
            ),
            (
                "default-address-pools = [{base = \"10.0.0.0/16\", size = 12}]\n",
                "default-address-pools: 10.0.0.0/16 cannot be cut into subnets of /12",
            ),
            (
                "default-address-pools = [{base = \"10.0.0.1/16\", size = 24}]\n",
                "default-address-pools: 10.0.0.1/16 should be 10.0.0.0/16",
            ),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
