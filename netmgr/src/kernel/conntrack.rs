//! STUB
use crate::kernel::Error;
use crate::model::Protocol;
use std::net::IpAddr;
pub struct Stale {
    pub protocol: Protocol,
    pub host_ip: Option<IpAddr>,
    pub first: u16,
    pub last: u16,
    pub container: Option<IpAddr>,
}
pub fn flush(_: &[Stale]) -> Result<usize, Error> {
    Ok(0)
}
