//! The only kernel I/O of this crate: netlink, namespaces, sysctls, and the two iptables commands.

pub mod netns;
