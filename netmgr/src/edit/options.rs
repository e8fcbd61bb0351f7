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

/// An option, whether a value can be followed, and what one should be.
type Rule = (&'static str, fn(&str) -> bool, &'static str);

const BOOL: &str = "true or false";
const GATEWAY_MODE: &str = "nat, nat-unprotected or routed";

const RULES: [Rule; 8] = [
    (OPTION_ICC, is_bool, BOOL),
    (OPTION_MASQUERADE, is_bool, BOOL),
    (OPTION_MTU, is_mtu, "a number from 68 to 65535"),
    (OPTION_GATEWAY_MODE_V4, is_gateway_mode, GATEWAY_MODE),
    (OPTION_GATEWAY_MODE_V6, is_gateway_mode, GATEWAY_MODE),
    (
        OPTION_TRUSTED_INTERFACES,
        are_interfaces,
        "names of interfaces with colons between them",
    ),
    (OPTION_HOST_BINDING, is_ipv4, "an IPv4 address"),
    (
        OPTION_INTERFACE_PREFIX,
        is_prefix,
        "the start of an interface's name, at most 11 of [a-zA-Z0-9_.-]",
    ),
];

pub(super) fn check(request: &NetworkRequest) -> Result<(), Error> {
    for (key, is_valid, expected) in RULES {
        if let Some(value) = model::option(&request.options, key)
            && !is_valid(value)
        {
            return Err(Error::OptionValue {
                key,
                value: value.to_owned(),
                expected,
            });
        }
    }
    // Below this the kernel switches IPv6 off on the interface (RFC 8200, 5).
    match model::option(&request.options, OPTION_MTU) {
        Some(mtu) if request.ipv6 && mtu.parse().is_ok_and(|mtu: u32| mtu < 1280) => {
            Err(Error::OptionValue {
                key: OPTION_MTU,
                value: mtu.to_owned(),
                expected: "at least 1280 with IPv6",
            })
        }
        _ => Ok(()),
    }
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
