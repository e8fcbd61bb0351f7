//! Whether the driver options of a new network can be followed. Those that we do not know are kept, as in Docker.

use std::net::Ipv4Addr;

use crate::change::NetworkRequest;
use crate::error::Error;
use crate::model::{
    self, GatewayMode, OPTION_GATEWAY_MODE_V4, OPTION_GATEWAY_MODE_V6, OPTION_HOST_BINDING,
    OPTION_ICC, OPTION_INTERFACE_PREFIX, OPTION_MASQUERADE, OPTION_MTU, OPTION_TRUSTED_INTERFACES,
};

/// `IFNAMSIZ` less the closing NUL.
const MAX_INTERFACE: usize = 15;

/// Leaves room for the number of an interface.
const MAX_PREFIX: usize = MAX_INTERFACE - 4;

/// An option and what its value must be like.
type Rule = (&'static str, fn(&str) -> bool);

const RULES: [Rule; 8] = [
    (OPTION_ICC, is_bool),
    (OPTION_MASQUERADE, is_bool),
    (OPTION_MTU, is_mtu),
    (OPTION_GATEWAY_MODE_V4, is_gateway_mode),
    (OPTION_GATEWAY_MODE_V6, is_gateway_mode),
    (OPTION_TRUSTED_INTERFACES, are_interfaces),
    (OPTION_HOST_BINDING, is_ipv4),
    (OPTION_INTERFACE_PREFIX, is_prefix),
];

pub(super) fn check(request: &NetworkRequest) -> Result<(), Error> {
    for (key, is_valid) in RULES {
        if let Some(value) = model::option(&request.options, key)
            && !is_valid(value)
        {
            return Err(Error::OptionValue {
                key,
                value: value.to_owned(),
            });
        }
    }
    Ok(())
}

/// Narrower than the kernel's `dev_valid_name`: the name goes into rules, where `+` and `*` stand for others.
pub(super) fn is_interface(name: &str) -> bool {
    let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    !name.is_empty()
        && name.len() <= MAX_INTERFACE
        && name.bytes().all(valid)
        && !name.starts_with(['.', '-'])
}

fn is_bool(value: &str) -> bool {
    model::parse_bool(value).is_some()
}

/// 68 is the least that IPv4 may be given (RFC 791); 65,535 is a veth's most.
fn is_mtu(value: &str) -> bool {
    value.parse().is_ok_and(|mtu| (68..=65535).contains(&mtu))
}

fn is_gateway_mode(value: &str) -> bool {
    GatewayMode::parse(value).is_some()
}

fn are_interfaces(value: &str) -> bool {
    value.split(':').all(is_interface)
}

fn is_ipv4(value: &str) -> bool {
    value.parse::<Ipv4Addr>().is_ok()
}

fn is_prefix(value: &str) -> bool {
    is_interface(value) && value.len() <= MAX_PREFIX && value != "lo"
}
