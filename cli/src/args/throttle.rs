//! How fast the container may use the host's block devices: `--device-read-bps /dev/sda:1mb`.

use std::path::PathBuf;

use clap::Args;
use runtime::request::{Throttle, ThrottleKind};

use super::sizes::parse_size;

#[derive(Debug, Args)]
pub struct ThrottleArgs {
    /// Bytes a second that are read from a device: /dev/sda:1mb
    #[arg(long, value_name = "DEVICE:RATE", value_parser = parse_read_bps)]
    device_read_bps: Vec<Throttle>,
    /// Bytes a second that are written to a device: /dev/sda:1mb
    #[arg(long, value_name = "DEVICE:RATE", value_parser = parse_write_bps)]
    device_write_bps: Vec<Throttle>,
    /// Reads a second from a device: /dev/sda:100
    #[arg(long, value_name = "DEVICE:RATE", value_parser = parse_read_iops)]
    device_read_iops: Vec<Throttle>,
    /// Writes a second to a device: /dev/sda:100
    #[arg(long, value_name = "DEVICE:RATE", value_parser = parse_write_iops)]
    device_write_iops: Vec<Throttle>,
}

impl ThrottleArgs {
    pub fn all(&self) -> Vec<Throttle> {
        let all = [
            &self.device_read_bps,
            &self.device_write_bps,
            &self.device_read_iops,
            &self.device_write_iops,
        ];
        all.into_iter().flatten().cloned().collect()
    }
}

fn parse_read_bps(text: &str) -> Result<Throttle, String> {
    parse(ThrottleKind::ReadBytes, text)
}

fn parse_write_bps(text: &str) -> Result<Throttle, String> {
    parse(ThrottleKind::WriteBytes, text)
}

fn parse_read_iops(text: &str) -> Result<Throttle, String> {
    parse(ThrottleKind::ReadOperations, text)
}

fn parse_write_iops(text: &str) -> Result<Throttle, String> {
    parse(ThrottleKind::WriteOperations, text)
}

/// Docker's texts.
fn parse(kind: ThrottleKind, text: &str) -> Result<Throttle, String> {
    let (device, rate) = match text.split_once(':') {
        Some((device, rate)) if !device.is_empty() && !rate.is_empty() => (device, rate),
        _ => return Err(format!("bad format: {text}")),
    };
    if !device.starts_with("/dev/") {
        return Err(format!("bad format for device path: {text}"));
    }
    let number = match kind {
        ThrottleKind::ReadBytes | ThrottleKind::WriteBytes => parse_size(rate).ok(),
        ThrottleKind::ReadOperations | ThrottleKind::WriteOperations => rate.parse().ok(),
    };
    let rate = number.ok_or_else(|| {
        let (form, unit) = match kind {
            ThrottleKind::ReadBytes | ThrottleKind::WriteBytes => {
                ("[<unit>]", ". Unit is optional and can be kb, mb, or gb")
            }
            ThrottleKind::ReadOperations | ThrottleKind::WriteOperations => ("", ""),
        };
        format!(
            "invalid rate for device: {text}. The correct format is <device-path>:<number>{form}. \
             Number must be a positive integer{unit}"
        )
    })?;
    Ok(Throttle {
        kind,
        device: PathBuf::from(device),
        rate,
    })
}
