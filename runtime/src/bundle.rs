//! stand-in
use crate::error::Error;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
pub fn seal_self() -> io::Result<OwnedFd> {
    todo!()
}
pub fn mount_overlay(_: &Path, _: &[PathBuf], _: &Path, _: &Path) -> Result<(), Error> {
    todo!()
}
pub fn make_mounts_slave() -> Result<(), Error> {
    todo!()
}
pub fn hosts_file(_: &str, _: Option<Ipv4Addr>, _: &[(String, String)]) -> String {
    todo!()
}
pub fn container_resolv_conf(_: bool, _: &[String], _: &[String]) -> String {
    todo!()
}
